"""Bridge sampling: the integral of a density from draws of it and draws of a normal like it.

With draws x_j of the density p = f / Z and draws x_i of the proposal q, the optimal bridge of
Meng & Wong (1996, Statistica Sinica 6, 831-860) is the Z at which

    mean_i f / (s1 f + s2 Z q)  =  mean_j Z q / (s1 f + s2 Z q),

s1 and s2 the shares of (effective) draws of p and q. The left side falls in Z and the right side
rises: the root is bracketed, where Gronau et al. (2020, doi:10.18637/jss.v092.i10) iterate.

The proposal is fitted to one half of the draws and the bridge built with the other half, then
the halves change places and the logarithms are averaged: a proposal fitted to the draws that it
is compared with makes Z too small, and no draw is wasted (Wong, Forster & Smith 2020, Statistics
and Computing 30). It is compared with the density folded about its mean, which no skewness is
left in (Warp-III: Meng & Schilling 2002, doi:10.1198/106186002457).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import brentq
from scipy.special import expit, log_expit, logsumexp

from bayesglmm.errors import FitError

Array = NDArray[np.float64]
Density = Callable[[Array, Array], float]
FEWEST = 8  # draws of a chain, of which each half is split once more for its effective size
_LOG_2PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True, slots=True)
class Bridge:
    """An estimate of an integral.

    Attributes
    ----------
    log_integral
        Mean of the two.
    error
        Monte Carlo standard error of the logarithm: the relative error of the integral.
    halves
        The two estimates, and
    errors
        their standard errors.
    ess
        Effective number of draws of the density, in all.
    """

    log_integral: float
    error: float
    halves: tuple[float, float]
    errors: tuple[float, float]
    ess: float

    @property
    def apart(self) -> float:
        """The difference of the two estimates in standard errors, at most."""
        return abs(self.halves[0] - self.halves[1]) / max(float(np.hypot(*self.errors)), 1e-12)


def bridge(log_density: Density, x: Array, seed: int) -> Bridge:
    """The logarithm of the integral of ``exp(log_density)``.

    Parameters
    ----------
    log_density
        (point (size,), gradient (size,) to be filled) -> value, from several threads at once.
    x
        (chains, draws, size) draws of the density, at least eight of each chain.
    seed
        Of the draws of the proposals.

    Raises
    ------
    FitError
        If the density is not finite at a draw, or zero at all draws of a proposal.
    """
    half = x.shape[1] // 2
    parts = x[:, :half], x[:, half : 2 * half]
    rngs = np.random.default_rng(seed).spawn(2)
    found = [
        _one_way(log_density, fit, use, rng)
        for fit, use, rng in zip(parts, parts[::-1], rngs, strict=True)
    ]
    (a, error_a, ess_a), (b, error_b, ess_b) = found
    # The proposal's own error times that of the draws is the same in both directions, and in many
    # nearly normal coordinates it is all there is: averaging does not make it smaller.
    return Bridge(
        (a + b) / 2.0,
        (error_a + error_b) / 2.0,
        (a, b),
        (error_a, error_b),
        ess_a + ess_b,
    )


def _one_way(
    log_density: Density, fit: Array, use: Array, rng: np.random.Generator
) -> tuple[float, float, float]:
    """log Z, its standard error and the effective number of draws that were used."""
    from bayesglmm.posterior.convergence import ess_and_rhat  # compiled at import

    chains, draws, size = use.shape
    mean, root = normal_like(fit)
    z = solve_triangular(root, (use.reshape(-1, size) - mean).T, lower=True).T
    own = _log_ratio(log_density, mean, root, z)
    other = _log_ratio(log_density, mean, root, rng.standard_normal(z.shape))
    if not np.all(np.isfinite(own)):
        raise FitError("the density is not finite at a draw: these are not draws of this model")
    if not np.any(np.isfinite(other)):
        raise FitError(
            "the normal distribution fitted to the draws lies where the posterior is zero: there "
            "are too few draws for a bridge; fit with more draws"
        )
    ess = float(np.median(ess_and_rhat(use)["ess_bulk"]))
    offset = np.log(ess / len(other))  # log s1 / s2
    log_z = _root(own, other, offset)
    over, under = expit(other + offset - log_z), expit(log_z - offset - own)
    variance = np.var(over, ddof=1) / len(over) / np.mean(over) ** 2
    mcse = ess_and_rhat(under.reshape(chains, draws, 1))["mcse"][0]
    return log_z, float(np.sqrt(variance + (mcse / np.mean(under)) ** 2)), ess


def _root(own: Array, other: Array, offset: float) -> float:
    """The log Z at which both sides of the bridge are equal."""

    def balance(log_z: float) -> float:
        above = logsumexp(log_expit(other + offset - log_z)) - np.log(len(other))
        below = logsumexp(log_expit(log_z - offset - own)) - np.log(len(own))
        return float(above - below - offset)

    values = np.concatenate([own, other[np.isfinite(other)]]) + offset
    margin = 50.0 + abs(offset)
    return float(brentq(balance, values.min() - margin, values.max() + margin, xtol=1e-10))


def normal_like(x: Array) -> tuple[Array, Array]:
    """Mean (size,) and lower triangular root (size, size) of the covariance of draws.

    Correlations are shrunk towards zero as far as they are noise (Schäfer & Strimmer 2005,
    doi:10.2202/1544-6115.1175): of many coordinates that are nearly uncorrelated, all.

    Parameters
    ----------
    x
        (chains, draws, size)
    """
    flat = x.reshape(-1, x.shape[-1])
    m, size = flat.shape
    mean, sd = flat.mean(axis=0), flat.std(axis=0, ddof=1)
    z = (flat - mean) / np.where(sd > 0.0, sd, 1.0)
    correlation = z.T @ z / (m - 1)
    noise = ((z**2).T @ z**2 - (m - 1) ** 2 / m * correlation**2) * m / (m - 1) ** 3
    apart = ~np.eye(size, dtype=bool)
    signal = np.sum(correlation[apart] ** 2)
    share = min(1.0, float(np.sum(noise[apart]) / signal)) if signal > 0.0 else 1.0
    correlation[apart] *= 1.0 - share
    np.fill_diagonal(correlation, 1.0)
    return mean, sd[:, None] * np.linalg.cholesky(correlation)


def _log_ratio(log_density: Density, mean: Array, root: Array, z: Array) -> Array:
    """log of the density of z, folded about zero, over the standard normal one."""
    both = [_evaluate(log_density, mean + side * (z @ root.T)) for side in (1.0, -1.0)]
    folded = np.logaddexp(*both) - np.log(2.0) + np.sum(np.log(np.diag(root)))
    return np.asarray(folded + 0.5 * (np.sum(z**2, axis=1) + z.shape[1] * _LOG_2PI))


def _evaluate(log_density: Density, x: Array) -> Array:
    """The log density at every row of x; where it does not exist it is -inf."""
    cores = os.cpu_count() or 1
    x = np.ascontiguousarray(x)

    def some(rows: Array) -> Array:
        gradient = np.empty(x.shape[1])
        return np.array([log_density(row, gradient) for row in rows])

    with ThreadPoolExecutor(cores) as pool:
        values = np.concatenate(list(pool.map(some, np.array_split(x, 8 * cores))))
    return np.where(np.isnan(values), -np.inf, values)
