"""The Gaussian family: y ~ Normal(mu, sigma^2 / w)."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.special import log_ndtr

from bayesglmm.families.family import Array, Family, chain
from bayesglmm.families.links import Link


def _log_density(link: Link, y: Array, w: Array, eta: Array, sigma: float) -> Array:
    z = (y - link.inverse(eta)) / sigma
    return np.asarray(-0.5 * (np.log(2.0 * np.pi) + 2.0 * np.log(sigma) - np.log(w) + w * z * z))


def _derivatives(
    link: Link, y: Array, w: Array, eta: Array, sigma: float
) -> tuple[Array, Array, Array]:
    precision = w / sigma**2
    return chain(
        link,
        eta,
        lambda mu: (precision * (y - mu), -precision * np.ones_like(mu), np.zeros_like(mu)),
    )


def _scale_derivatives(
    link: Link, y: Array, w: Array, eta: Array, sigma: float
) -> tuple[Array, Array, Array]:
    first, second, _ = _derivatives(link, y, w, eta, sigma)
    z = (y - link.inverse(eta)) / sigma
    return w * z * z - 1.0, -2.0 * first, -2.0 * second


def _log_tails(
    link: Link, y: Array, w: Array, eta: Array, sigma: float
) -> tuple[Array, Array, Array]:
    z = (y - link.inverse(eta)) * np.sqrt(w) / sigma
    return log_ndtr(z), np.full_like(z, -np.inf), log_ndtr(-z)


def _check(y: Array, w: Array, name: str) -> None:
    """Any finite number will do; finiteness is checked when the design is built."""


def _observed(
    name: str, eta: Any, link: Link, y: Any, w: Any, sigma: Any, dims: str, weighted: bool
) -> Any:
    import pymc as pm

    scale = sigma / w**0.5 if weighted else sigma
    return pm.Normal(name, mu=link.pytensor(eta), sigma=scale, observed=y, dims=dims)


GAUSSIAN = Family(
    name="gaussian",
    links=("identity", "log"),
    canonical="identity",
    has_scale=True,
    is_probability=False,
    has_trials=False,
    response_column=MappingProxyType({"identity": "emmean", "log": "response"}),
    log_density=_log_density,
    derivatives=_derivatives,
    scale_derivatives=_scale_derivatives,
    variance=np.ones_like,
    unit_deviance=lambda y, mu: (y - mu) ** 2,
    check=_check,
    observed=_observed,
    draw=lambda rng, mu, w, sigma: rng.normal(mu, sigma / np.sqrt(w)),
    log_tails=_log_tails,
)
