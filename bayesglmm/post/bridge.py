"""Bridge sampling: the integral of a density from draws of it and draws of a normal like it.

With draws x_j of the density p = f / Z and draws x_i of the proposal q, the optimal bridge of
Meng & Wong (1996, Statistica Sinica 6, 831-860) is the Z at which

    mean_i f / (s1 f + s2 Z q)  =  mean_j Z q / (s1 f + s2 Z q),

s1 and s2 the shares of (effective) draws of p and q. The left side falls in Z and the right side
rises: the root is bracketed, where Gronau et al. (2020, doi:10.18637/jss.v092.i10) iterate.

The proposal is fitted to one half of the draws and the bridge built with the other half, then
the halves change places and the logarithms are averaged: a proposal fitted to the draws that it
is compared with makes Z too small, and no draw is wasted (Wong, Forster & Smith 2020, Statistics
and Computing 30). Before, every coordinate is bent until it is not skewed, by the sinh-arcsinh
map (Jones & Pewsey 2009, doi:10.1093/biomet/asp053), and the density is folded about its mean,
which rids it of all joint skewness (Warp-III: Meng & Schilling 2002, doi:10.1198/106186002457).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
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

    chains, draws, _ = use.shape
    warp = fitted_warp(fit)
    z = warp.standard(use)
    own = _log_ratio(log_density, warp, z)
    other = _log_ratio(log_density, warp, rng.standard_normal(z.shape))
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
    from scipy.optimize import brentq  # heavy: loaded when called

    def balance(log_z: float) -> float:
        above = logsumexp(log_expit(other + offset - log_z)) - np.log(len(other))
        below = logsumexp(log_expit(log_z - offset - own)) - np.log(len(own))
        return float(above - below - offset)

    values = np.concatenate([own, other[np.isfinite(other)]]) + offset
    margin = 50.0 + abs(offset)
    return float(brentq(balance, values.min() - margin, values.max() + margin, xtol=1e-10))


@dataclass(frozen=True, slots=True)
class Warp:
    """Coordinates in which a density is nearly standard normal.

    x = centre + scale sinh(asinh(u) + bend), each coordinate for itself, and u = mean + root z.

    Attributes
    ----------
    centre, scale, bend, mean
        (size,)
    root
        (size, size), lower triangular.
    """

    centre: Array
    scale: Array
    bend: Array
    mean: Array
    root: Array

    def standard(self, x: Array) -> Array:
        """z (m, size) of points (..., size)."""
        u = np.sinh(np.arcsinh((x - self.centre) / self.scale) - self.bend)
        u = u.reshape(-1, len(self.mean)) - self.mean
        return np.ascontiguousarray(solve_triangular(self.root, u.T, lower=True).T)

    def point(self, z: Array) -> tuple[Array, Array]:
        """x (m, size), and (m,) the logarithm of the volume of the map there."""
        u = self.mean + z @ self.root.T
        w = np.sinh(np.arcsinh(u) + self.bend)
        volume = 0.5 * np.sum(np.log1p(w**2) - np.log1p(u**2), axis=1)
        constant = float(np.sum(np.log(np.diag(self.root) * self.scale)))
        return self.centre + self.scale * w, volume + constant


def fitted_warp(x: Array) -> Warp:
    """The map that leaves draws (chains, draws, size) uncorrelated and without skewness."""
    flat = x.reshape(-1, x.shape[-1])
    centre, sd = flat.mean(axis=0), flat.std(axis=0, ddof=1)
    scale = np.where(sd > 0.0, sd, 1.0)
    angle = np.arcsinh((flat - centre) / scale)
    low, high = np.full(len(scale), -1.0), np.full(len(scale), 1.0)
    for _ in range(12):  # bisection: skewness falls as the bend rises
        middle = (low + high) / 2.0
        u = np.sinh(angle - middle)
        skewed = np.mean((u - u.mean(axis=0)) ** 3, axis=0) > 0.0
        low, high = np.where(skewed, middle, low), np.where(skewed, high, middle)
    bend = (low + high) / 2.0
    mean, root = normal_like(np.sinh(angle - bend).reshape(x.shape))
    return Warp(centre, scale, bend, mean, root)


def normal_like(x: Array) -> tuple[Array, Array]:
    """Mean (size,) and lower triangular root (size, size) of the covariance of draws.

    Correlations are shrunk towards zero as far as the chains do not agree on them: of many
    coordinates that are nearly uncorrelated, all the way. Noise in a hundred thousand correlations
    would otherwise part the normal distribution from the draws.

    Parameters
    ----------
    x
        (chains, draws, size)
    """
    chains, draws, size = x.shape
    flat = x.reshape(-1, size)
    mean, sd = flat.mean(axis=0), flat.std(axis=0, ddof=1)
    z = (x - mean) / np.where(sd > 0.0, sd, 1.0)
    halves = (z[::2], z[1::2]) if chains > 1 else (z[:, : draws // 2], z[:, draws // 2 :])
    one, other = (np.tril(_products(part), -1) for part in halves)
    correlation = np.tril(_products(z), -1)
    signal = float(np.sum(correlation**2))
    kept = min(max(float(np.sum(one * other)) / signal, 0.0), 1.0 - 1e-9) if signal > 0.0 else 0.0
    correlation *= kept
    return mean, sd[:, None] * np.linalg.cholesky(correlation + correlation.T + np.eye(size))


def _products(z: Array) -> Array:
    flat = z.reshape(-1, z.shape[-1])
    return np.asarray(flat.T @ flat / len(flat))


def _log_ratio(log_density: Density, warp: Warp, z: Array) -> Array:
    """log of the density of z, folded about zero, over the standard normal one."""
    sides = []
    for side in (z, -z):
        x, volume = warp.point(side)
        sides.append(_evaluate(log_density, x) + volume)
    folded = np.logaddexp(*sides) - np.log(2.0)
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
