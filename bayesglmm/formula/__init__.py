"""Text to Formula: the random-effects bars are ours, the fixed part is formulaic's."""

from bayesglmm.formula.bars import Bar
from bayesglmm.formula.parse import Formula, parse

__all__ = ["Bar", "Formula", "parse"]
