"""Fits in files: saved whole or not at all, loaded without the code that made them."""

from bayesglmm.storage.load import load
from bayesglmm.storage.save import save

__all__ = ["load", "save"]
