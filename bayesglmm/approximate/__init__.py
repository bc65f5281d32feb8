"""The posterior by Laplace's approximation with priors, corrected by importance weights."""

from bayesglmm.approximate.approximated import Approximated
from bayesglmm.approximate.diagnostics import LaplaceDiagnostics
from bayesglmm.approximate.options import Laplace

__all__ = ["Approximated", "Laplace", "LaplaceDiagnostics"]
