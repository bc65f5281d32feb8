"""Models without random effects: Fisher scoring with step halving (R's ``glm``, safeguarded)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesglmm.errors import FitError
from bayesglmm.families import Likelihood
from bayesglmm.families.compiled import Density
from bayesglmm.laplace.structure import Array

_MAX_STEPS = 100


@dataclass(frozen=True, slots=True)
class GLMSolution:
    """Maximum-likelihood coefficients of a generalised linear model.

    Attributes
    ----------
    beta
        (p,) coefficients.
    eta
        (n,) linear predictor, offset included.
    decrement
        Squared length of the last scoring step in standard errors, roughly.
    steps
        Number of scoring steps.
    """

    beta: Array
    eta: Array
    decrement: float
    steps: int


def feasible(offset: Array, likelihood: Likelihood) -> Array:
    """What X beta must be for every eta to be g(weighted mean of y), a feasible point."""
    return np.asarray(float(likelihood.link.link(np.array(likelihood.inside()))) - offset)


def fit_glm(X: Array, offset: Array, likelihood: Likelihood, exact: float = 1e-18) -> GLMSolution:
    """Fit by Fisher scoring, until the relative decrement is ``exact``.

    Raises
    ------
    FitError
        If no starting point with a finite likelihood is found (log or identity links).
    """
    beta = np.linalg.lstsq(X, feasible(offset, likelihood), rcond=None)[0]
    density, canonical = Density(likelihood), likelihood.link.name == likelihood.family.canonical
    sigma = _scale(X @ beta + offset, likelihood)

    def evaluate(b: Array) -> tuple[Array, Array, float]:
        eta, out = X @ b + offset, np.empty((4, len(offset)))
        return eta, out, density(eta, sigma, out)

    eta, l, value = evaluate(beta)
    if not np.isfinite(value):
        raise FitError(
            f"link={likelihood.link.name!r}: no starting values inside the range of the mean "
            f"for family={likelihood.family.name!r}; try another link or rescale the offset"
        )
    decrement, steps = np.inf, 0
    for _ in range(_MAX_STEPS):
        steps += 1
        w = -l[2] if canonical else likelihood.expected_weights(eta, sigma)
        score, information = X.T @ l[1], X.T @ (X * w[:, None])
        step = np.linalg.lstsq(information, score, rcond=None)[0]
        decrement = float(score @ step)
        if decrement < exact * (1.0 + abs(value)):
            break
        size = 1.0
        while size > 1e-10:
            new_eta, new_l, new_value = evaluate(beta + size * step)
            if new_value > value or (decrement < 1e-8 and new_value > value - 1e-9 * abs(value)):
                break
            size *= 0.5
        else:
            break
        beta, eta, l, value = beta + size * step, new_eta, new_l, new_value
    return GLMSolution(beta, eta, decrement, steps)


def _scale(eta: Array, likelihood: Likelihood) -> float:
    """About the scale of the family, whatever the units of the response and the weights."""
    if not likelihood.family.has_scale:
        return 1.0
    deviance = likelihood.deviance(likelihood.link.inverse(eta))
    return float(np.sqrt(deviance / len(eta))) or 1.0
