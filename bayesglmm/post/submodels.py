"""Fits of a model with other fixed-effect columns, for likelihood-ratio tests."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesglmm.errors import ChoiceError, FitError, warn
from bayesglmm.laplace import ML, maximum_likelihood
from bayesglmm.laplace.estimate import Estimate
from bayesglmm.post.check import check_fit
from bayesglmm.posterior.ml import MLPosterior

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

Array = NDArray[np.float64]


def estimate_of(fit: Fit, what: str) -> Estimate:
    """The estimate of a maximum-likelihood fit.

    Raises
    ------
    ChoiceError
        For something that is no fit, and for a fit by NUTS.
    """
    check_fit(fit, what)
    if isinstance(fit.posterior, MLPosterior):
        return fit.posterior.estimate
    raise ChoiceError(
        f"{what} tests hypotheses by maximum likelihood; this fit is by {fit.method}. For a "
        "posterior look at the intervals and prob_direction of params and of "
        'emmeans(..., contrasts="pairwise"), or test the ML fit: model.fit()'
    )


def options_of(fit: Fit) -> ML:
    """The ML estimator of a fit."""
    assert isinstance(fit.estimator, ML)
    return fit.estimator


def refitted(fit: Fit, X: Array, what: str) -> Estimate:
    """The maximum-likelihood estimate (never REML) with X (n, k) for the fixed effects.

    Warns
    -----
    BayesglmmWarning
        If it has not converged; what else there may be to say was said of the fit itself.
    """
    design = replace(fit.model.design, X=X, names=tuple(f"x{k}" for k in range(X.shape[1])))
    options = ML(nagq=options_of(fit).nagq, df="asymptotic")
    try:
        estimate = maximum_likelihood(design, fit.model.likelihood, options)
    except FitError as problem:
        raise FitError(f"{what} could not be refitted: {problem}") from None
    if not estimate.outcome.converged:
        warn(
            f"{what}: the refit stopped before its gradient vanished, so the likelihood ratio "
            "may be too large. Centre and scale the covariates, or use Wald tests"
        )
    return estimate


def by_ml(fit: Fit, what: str) -> Estimate:
    """The fit's own estimate, or for a REML fit that by maximum likelihood."""
    estimate = estimate_of(fit, what)
    return refitted(fit, fit.model.design.X, what) if estimate.method == "REML" else estimate
