# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Compiled log-densities of the priors, with a derivative, for the numerical engines.

The records in `prior.py` say what a prior is, in NumPy and PyMC; here each is written once more,
as a code and three numbers. A law holds the two together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bayesglmm.numba_cache import cover_package
from bayesglmm.priors.prior import (
    Cauchy,
    Exponential,
    Flat,
    Gamma,
    HalfCauchy,
    HalfFlat,
    HalfNormal,
    HalfStudentT,
    Normal,
    Prior,
    StudentT,
)

cover_package()

Array = NDArray[np.float64]

_FLAT, _NORMAL, _STUDENT, _GAMMA = range(4)


def compiled(prior: Prior) -> tuple[int, tuple[float, float, float], float] | None:
    """Code, parameters and log normalising constant of a prior; None for one not known here.

    Half distributions are their whole ones on the positive half-line: twice the density.
    """
    half = math.log(2.0)
    match prior:
        case Flat() | HalfFlat():
            return _FLAT, (0.0, 1.0, 0.0), 0.0
        case Normal(mean, sd):
            return _NORMAL, (mean, sd, 0.0), _normal(sd)
        case HalfNormal(sd):
            return _NORMAL, (0.0, sd, 0.0), _normal(sd) + half
        case StudentT(df, mean, scale):
            return _STUDENT, (mean, scale, df), _student(df, scale)
        case HalfStudentT(df, scale):
            return _STUDENT, (0.0, scale, df), _student(df, scale) + half
        case Cauchy(centre, scale):
            return _STUDENT, (centre, scale, 1.0), _student(1.0, scale)
        case HalfCauchy(scale):
            return _STUDENT, (0.0, scale, 1.0), _student(1.0, scale) + half
        case Exponential(rate):
            return _GAMMA, (1.0, rate, 0.0), math.log(rate)
        case Gamma(shape, rate):
            return _GAMMA, (shape, rate, 0.0), shape * math.log(rate) - math.lgamma(shape)
    return None


def _normal(sd: float) -> float:
    return -math.log(sd) - 0.5 * math.log(2.0 * math.pi)


def _student(df: float, scale: float) -> float:
    ratio = math.lgamma(0.5 * (df + 1.0)) - math.lgamma(0.5 * df)
    return ratio - 0.5 * math.log(df * math.pi) - math.log(scale)


def compiled_priors(priors: Sequence[Prior]) -> tuple[NDArray[np.int64], Array, float] | None:
    """Codes (m,), parameters (m, 3) and the sum of the constants; None if one is not known."""
    found = [compiled(prior) for prior in priors]
    known = [one for one in found if one is not None]
    if len(known) < len(found):
        return None
    codes = np.array([code for code, _, _ in known], dtype=np.int64)
    parameters = np.array([values for _, values, _ in known]).reshape(-1, 3)
    return codes, parameters, sum(constant for _, _, constant in known)


def curvature(codes: NDArray[np.int64], parameters: Array, x: Array) -> Array:
    """(m,) information in priors on the whole line: slope over distance, never negative."""
    centre, scale, df = parameters.T
    df = np.where(codes == _STUDENT, df, 1e300)  # a normal has infinitely many
    return np.where(codes == _FLAT, 0.0, (df + 1.0) / (df * scale**2 + (x - centre) ** 2))


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def log_prior(code, first, second, third, x):
    """Log-density at x without its constant, and its derivative."""
    if code == _FLAT:
        return 0.0, 0.0
    if code == _NORMAL:
        z = (x - first) / second
        return -0.5 * z * z, -z / second
    if code == _STUDENT:
        z = (x - first) / second
        rest = third + z * z
        return -0.5 * (third + 1.0) * math.log(rest / third), -(third + 1.0) * z / (rest * second)
    slope = (first - 1.0) / x if first != 1.0 else 0.0
    return (first - 1.0) * math.log(x) - second * x, slope - second


@njit(cache=True, nogil=True, error_model="numpy")
def log_prior_coefficients(beta, means, at, codes, parameters, gradient):
    """Log prior of beta (p,) without its constant; adds its gradient.

    ``at`` is the intercept's position, whose prior is on ``means @ beta``, or -1.
    """
    total = 0.0
    for k in range(len(beta)):
        x = beta[k]
        if k == at:
            x = 0.0
            for m in range(len(beta)):
                x += means[m] * beta[m]
        value, slope = log_prior(codes[k], parameters[k, 0], parameters[k, 1], parameters[k, 2], x)
        total += value
        if k == at:
            for m in range(len(beta)):
                gradient[m] += slope * means[m]
        else:
            gradient[k] += slope
    return total
