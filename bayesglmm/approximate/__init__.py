"""The posterior by Laplace's approximation with priors, corrected by importance weights."""

from bayesglmm.approximate.diagnostics import LaplaceDiagnostics
from bayesglmm.approximate.options import Laplace

__all__ = ["Laplace", "LaplaceDiagnostics"]
