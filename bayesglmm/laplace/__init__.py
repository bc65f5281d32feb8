"""The maximum-likelihood engine: penalised least squares, PIRLS, Laplace, quadrature."""

from bayesglmm.laplace.estimate import Estimate
from bayesglmm.laplace.ml import maximum_likelihood
from bayesglmm.laplace.options import ML
from bayesglmm.laplace.outcome import Outcome

__all__ = ["ML", "Estimate", "Outcome", "maximum_likelihood"]
