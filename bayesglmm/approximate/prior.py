"""Log prior of the parameters that are not integrated out, with its gradient.

Compiled where every prior is; priors of the user's own are evaluated in NumPy beside them and
differenced.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesglmm.design.fixed import INTERCEPT
from bayesglmm.nuts.scales import (
    Scales,
    log_prior_scales,
    natural,
    pull_back,
    scales_of,
    unpack,
)
from bayesglmm.priors import Flat, HalfFlat, Prior
from bayesglmm.priors.compiled import compiled, compiled_priors, log_prior_coefficients

if TYPE_CHECKING:
    from bayesglmm.model import Model

Array = NDArray[np.float64]
Others = tuple[tuple[int, Prior], ...]

_STEP = 1e-5


@dataclass(frozen=True, slots=True)
class ScalePrior:
    """The covariance parameters t: their factors, their log prior (Jacobian included).

    Attributes
    ----------
    scales
        Layout of t, with the priors that are compiled.
    others
        Places in t and priors of sds that are not.
    """

    scales: Scales
    others: Others

    def factors(self, t: Array) -> Array:
        """All (K, K) factors one after the other, row by row."""
        out = np.zeros(self.scales.factors)
        unpack(self._natural(t), self.scales.terms, out)
        return out

    def sigma(self, t: Array) -> float:
        """The residual sd, 1 without one."""
        return float(np.exp(t[-1])) if self.scales.has_scale else 1.0

    def pull_back(self, t: Array, factors: Array, slopes: Array, gradient: Array) -> None:
        """Add to ``gradient`` the derivative in t, given that in the factors."""
        pull_back(self._natural(t), self.scales.terms, factors, slopes, gradient)

    def __call__(self, t: Array, gradient: Array) -> float:
        """Log prior of t; adds its gradient."""
        values = self._natural(t)
        value = self.scales.constant + log_prior_scales(t, values, *self.scales.arrays, gradient)
        for k, prior in self.others:
            own, slope = _numeric(prior, np.exp(t[k]))
            value += own
            gradient[k] += slope * np.exp(t[k])
        return float(value)

    def _natural(self, t: Array) -> Array:
        """Sds, correlations, sigma."""
        out = np.empty(len(t))
        natural(t, self.scales.terms, out)
        return out


def scale_prior(model: Model) -> ScalePrior:
    """The prior of the covariance parameters of a model."""
    priors, places = model.priors, []
    at = 0
    for term in model.design.random:
        places += list(range(at, at + term.K))
        at += term.K + (term.K * (term.K - 1) // 2 if term.correlated else 0)
    places += [at] * len(priors.sigma)
    given = [prior for sds in priors.sds for prior in sds] + list(priors.sigma)
    others = tuple(
        (k, prior) for k, prior in zip(places, given, strict=True) if compiled(prior) is None
    )
    known = replace(
        priors,
        sds=tuple(tuple(map(_known, sds)) for sds in priors.sds),
        sigma=tuple(map(_known, priors.sigma)),
    )
    scales = scales_of(replace(model, priors=known))
    assert scales is not None
    return ScalePrior(scales, others)


def _known(prior: Prior) -> Prior:
    return prior if compiled(prior) is not None else HalfFlat()


@dataclass(frozen=True, slots=True)
class CoefficientPrior:
    """Log prior of the coefficients beta, link scale.

    Attributes
    ----------
    means, at
        (p,) means of the columns, and the position of the intercept, whose prior is on the
        linear predictor there, or -1.
    codes, parameters, constant
        Compiled priors.
    others
        Positions and priors of those that are not compiled.
    """

    means: Array
    at: int
    codes: NDArray[np.int64]
    parameters: Array
    constant: float
    others: Others

    def __call__(self, beta: Array, gradient: Array) -> float:
        """Log prior of beta; adds its gradient."""
        value = self.constant + log_prior_coefficients(
            beta, self.means, self.at, self.codes, self.parameters, gradient
        )
        for k, prior in self.others:
            row = self.row(k)
            own, slope = _numeric(prior, float(row @ beta))
            value += own
            gradient += slope * row
        return float(value)

    def row(self, k: int) -> Array:
        """(p,) the linear function of beta that prior k is on."""
        return self.means if k == self.at else np.eye(len(self.means))[k]


def coefficient_prior(model: Model) -> CoefficientPrior:
    """The prior of the coefficients of a model."""
    names, chosen = model.design.names, model.priors.coefficients
    known = [prior if compiled(prior) is not None else Flat() for prior in chosen]
    found = compiled_priors(known)
    assert found is not None
    return CoefficientPrior(
        model.design.X.mean(axis=0) if len(names) else np.zeros(0),
        names.index(INTERCEPT) if INTERCEPT in names else -1,
        *found,
        tuple((k, prior) for k, prior in enumerate(chosen) if compiled(prior) is None),
    )


def _numeric(prior: Prior, x: float) -> tuple[float, float]:
    """Log-density and its derivative by central differences."""
    step = _STEP * max(abs(x), 1e-3)
    below, here, above = prior.log_density(np.array([x - step, x, x + step]))
    return float(here), float((above - below) / (2.0 * step))
