"""The Poisson family: y ~ Poisson(mu), log-density multiplied by the case weight w."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.special import gammaln, pdtr, pdtrc, polygamma, xlogy

from bayesglmm.errors import DataError
from bayesglmm.families.family import Array, Family, chain, no_scale
from bayesglmm.families.links import Link


def _log_density(link: Link, y: Array, w: Array, eta: Array, sigma: float) -> Array:
    mu, log_mu = link.inverse(eta), link.log_probability(eta)[0]
    with np.errstate(invalid="ignore"):
        value = w * (np.where(y > 0, y * log_mu, 0.0) - mu - gammaln(y + 1.0))
    return np.where(mu >= 0, value, -np.inf)


def _derivatives(
    link: Link, y: Array, w: Array, eta: Array, sigma: float
) -> tuple[Array, Array, Array]:
    if link.name == "log":  # y - mu without the quotient y mu / mu
        mu = link.inverse(eta)
        return w * (y - mu), -w * mu, -w * mu
    with np.errstate(divide="ignore", invalid="ignore"):
        return chain(link, eta, lambda mu: _in_mu(y, w, mu))


def _in_mu(y: Array, w: Array, mu: Array) -> tuple[Array, Array, Array]:
    r = np.where(y > 0, y / mu, 0.0)  # 0 / 0 is 0: no event and none expected
    return (
        w * (r - 1.0),
        -w * np.where(y > 0, r / mu, 0.0),
        2.0 * w * np.where(y > 0, r / mu**2, 0.0),
    )


def _log_tails(
    link: Link, y: Array, w: Array, eta: Array, sigma: float
) -> tuple[Array, Array, Array]:
    mu = link.inverse(eta)
    with np.errstate(divide="ignore"):
        below = np.log(np.where(y > 0, pdtr(np.maximum(y - 1.0, 0.0), mu), 0.0))
        above = np.log(pdtrc(y, mu))
    return below, _log_density(link, y, np.ones_like(y), eta, sigma), above


def _check(y: Array, w: Array, name: str) -> None:
    if np.any(y < 0):
        raise DataError(
            f"response {name!r}: family='poisson' needs counts 0, 1, 2, ...; found {y.min():g}."
        )
    off = y != np.round(y)
    if np.any(off):
        raise DataError(
            f"response {name!r}: family='poisson' needs whole numbers; found {y[off][0]:g}. "
            "For a rate, model the count and give offset=log(exposure)."
        )


def _observed(
    name: str, eta: Any, link: Link, y: Any, w: Any, sigma: Any, dims: str, weighted: bool
) -> Any:
    import pymc as pm

    mu = link.pytensor(eta)
    if not weighted:
        return pm.Poisson(name, mu=mu, observed=y, dims=dims)
    # A weighted log-likelihood is not a distribution of y: it enters as a potential.
    return pm.Potential(name, w * pm.logp(pm.Poisson.dist(mu=mu), y), dims=dims)


POISSON = Family(
    name="poisson",
    links=("log", "identity"),
    canonical="log",
    has_scale=False,
    is_probability=False,
    has_trials=False,
    response_column=MappingProxyType({"log": "rate", "identity": "rate"}),
    log_density=_log_density,
    derivatives=_derivatives,
    scale_derivatives=no_scale,
    variance=lambda mu: mu,
    unit_deviance=lambda y, mu: 2.0 * (xlogy(y, y) - xlogy(y, mu) - (y - mu)),
    check=_check,
    observed=_observed,
    draw=lambda rng, mu, w, sigma: rng.poisson(mu).astype(np.float64),
    whole=True,
    log_tails=_log_tails,
    # Nakagawa, Johnson & Schielzeth 2017, doi:10.1098/rsif.2017.0213, who prefer the trigamma.
    link_variances={
        "log": {
            "trigamma": lambda mu: float(polygamma(1, mu)),
            "lognormal": lambda mu: float(np.log1p(1.0 / mu)),
        }
    },
    stein=lambda y, mu: (y - 1.0, y),
)
