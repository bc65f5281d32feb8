"""The binomial family: w y ~ Binomial(w, mu), with y a proportion; Bernoulli when w = 1."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.special import bdtrc, xlogy

from bayesglmm.errors import DataError
from bayesglmm.families.family import Array, Family, log_choices, no_scale
from bayesglmm.families.links import Link


def _log_density(link: Link, y: Array, w: Array, eta: Array, sigma: float) -> Array:
    successes, failures = w * y, w * (1.0 - y)
    # 0 * log(0) is 0: a certain outcome that happened costs nothing.
    with np.errstate(invalid="ignore"):
        hits = np.where(successes > 0, successes * link.log_probability(eta)[0], 0.0)
        misses = np.where(failures > 0, failures * link.log_complement(eta)[0], 0.0)
    mu = link.inverse(eta)
    return np.where((mu >= 0.0) & (mu <= 1.0), hits + misses + log_choices(w, y), -np.inf)


def _derivatives(
    link: Link, y: Array, w: Array, eta: Array, sigma: float
) -> tuple[Array, Array, Array]:
    successes, failures = w * y, w * (1.0 - y)
    _, a1, a2, a3 = link.log_probability(eta)
    _, b1, b2, b3 = link.log_complement(eta)

    def mix(a: Array, b: Array) -> Array:
        with np.errstate(invalid="ignore"):
            hits = np.where(successes > 0, successes * a, 0.0)
            return hits + np.where(failures > 0, failures * b, 0.0)

    return mix(a1, b1), mix(a2, b2), mix(a3, b3)


def _unit_deviance(y: Array, mu: Array) -> Array:
    return np.asarray(
        2.0 * (xlogy(y, y) - xlogy(y, mu) + xlogy(1 - y, 1 - y) - xlogy(1 - y, 1 - mu))
    )


def _log_tails(
    link: Link, y: Array, w: Array, eta: Array, sigma: float
) -> tuple[Array, Array, Array]:
    trials = np.round(w)
    successes = np.round(w * y)
    failures = trials - successes
    # Fewer successes are more failures: so both tails are small where they are computed.
    p, q = np.exp(link.log_probability(eta)[0]), np.exp(link.log_complement(eta)[0])
    with np.errstate(divide="ignore"):
        below = np.log(np.where(successes > 0, _more(failures, trials, q), 0.0))
        above = np.log(np.where(failures > 0, _more(successes, trials, p), 0.0))
    return below, _log_density(link, y, w, eta, sigma), above


def _more(k: Array, n: Array, p: Array) -> Array:
    """P(K > k) for K ~ Binomial(n, p)."""
    return np.asarray(bdtrc(k, n.astype(np.int64), np.clip(p, 0.0, 1.0)))


def _check_trials(w: Array, name: str) -> None:
    """Half a trial has no binomial probability: the posterior could only round it away."""
    off = np.abs(w - np.round(w)) > 1e-6 * np.maximum(1.0, w)
    if np.any(off):
        raise DataError(
            f"response {name!r}: trials (or weights) must be whole numbers for "
            f"family='binomial' and 'bernoulli'; found {w[off][0]:g}"
        )


def _check(y: Array, w: Array, name: str) -> None:
    if np.any((y < 0) | (y > 1)):
        bad = y[(y < 0) | (y > 1)][0]
        raise DataError(
            f"response {name!r}: family='binomial' needs 0/1, True/False, two levels, or "
            f"proportions in [0, 1]; found {bad:g}. For counts of successes give "
            "trials=, or write cbind(successes, failures) on the left of the formula."
        )
    _check_trials(w, name)
    successes = w * y
    off = np.abs(successes - np.round(successes)) > 1e-6 * np.maximum(1.0, w)
    if np.any(off):
        bad = y[off][0]
        raise DataError(
            f"response {name!r}: the proportion {bad:g} of {w[off][0]:g} trial(s) is not a whole "
            "number of successes. Give the number of trials by trials= or weights=."
        )


def _check_bernoulli(y: Array, w: Array, name: str) -> None:
    _check_trials(w, name)
    off = (y != 0) & (y != 1)
    if np.any(off):
        raise DataError(
            f"response {name!r}: family='bernoulli' needs 0/1, True/False or two levels; found "
            f"{y[off][0]:g}. For several trials per row use family='binomial'."
        )


def _observed(
    name: str, eta: Any, link: Link, y: Any, w: Any, sigma: Any, dims: str, weighted: bool
) -> Any:
    import pymc as pm

    if link.name == "logit":
        if weighted:
            return pm.Binomial(name, n=w, logit_p=eta, observed=y, dims=dims)
        return pm.Bernoulli(name, logit_p=eta, observed=y, dims=dims)
    p = link.pytensor(eta)
    if weighted:
        return pm.Binomial(name, n=w, p=p, observed=y, dims=dims)
    return pm.Bernoulli(name, p=p, observed=y, dims=dims)


def _draw(rng: np.random.Generator, mu: Array, w: Array, sigma: float) -> Array:
    trials = np.round(w).astype(np.int64)
    return np.asarray(rng.binomial(trials, mu) / trials)


def _draw_bernoulli(rng: np.random.Generator, mu: Array, w: Array, sigma: float) -> Array:
    """Zeros and ones: a weight says how often a row counts, not that it is a proportion."""
    return rng.binomial(1, mu).astype(np.float64)


BINOMIAL = Family(
    name="binomial",
    links=("logit", "probit", "cloglog", "log", "identity"),
    canonical="logit",
    has_scale=False,
    is_probability=True,
    has_trials=True,
    response_column=MappingProxyType(
        dict.fromkeys(("logit", "probit", "cloglog", "log", "identity"), "prob")
    ),
    log_density=_log_density,
    derivatives=_derivatives,
    scale_derivatives=no_scale,
    variance=lambda mu: mu * (1.0 - mu),
    unit_deviance=_unit_deviance,
    check=_check,
    observed=_observed,
    draw=_draw,
    whole=True,
    log_tails=_log_tails,
    # Of a latent response that is logistic, normal or Gumbel.
    link_variances={
        "logit": {"theoretical": lambda mu: np.pi**2 / 3.0},
        "probit": {"theoretical": lambda mu: 1.0},
        "cloglog": {"theoretical": lambda mu: np.pi**2 / 6.0},
    },
    stein=lambda y, mu: (1.0 - y, mu * (1.0 - mu) * (2.0 * y - 1.0)),
)
