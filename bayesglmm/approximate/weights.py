"""Importance weights: smoothed, judged, and used up by resampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesglmm.laplace.structure import Array, Integers

_FEWEST = 25  # weights of which a tail can be judged


@dataclass(frozen=True, slots=True)
class Weights:
    """Normalised importance weights.

    Attributes
    ----------
    values
        (m,), Pareto-smoothed; they sum to one.
    k_hat
        Shape of the generalised Pareto distribution of the largest: below 0.7 the weights are
        sound, from 1 on they have no mean (Vehtari et al. 2024, arXiv:1507.02646).
    size
        Kish's effective number of independent draws, 1 / sum of squares.
    """

    values: Array
    k_hat: float
    size: float


def smoothed(log_weights: Array) -> Weights:
    """Pareto-smoothed weights of (m,) log ratios; -inf stands for no weight."""
    from arviz_stats.base import array_stats

    usable = np.isfinite(log_weights)
    values = np.zeros(len(log_weights))
    ratios = log_weights[usable]
    if len(ratios) < _FEWEST:
        values[usable] = 1.0 / max(len(ratios), 1)
        return Weights(values, np.inf, float(len(ratios)))
    if np.ptp(np.sort(ratios)[-_FEWEST // 5 :]) < 1e-9:  # equal: nothing to smooth
        values[usable] = np.exp(ratios - ratios.max())
        values /= values.sum()
        return Weights(values, -np.inf, float(1.0 / np.sum(values**2)))
    log_smooth, k_hat = array_stats.psislw(-(ratios - ratios.max()))
    values[usable] = np.exp(log_smooth - np.max(log_smooth))
    values /= values.sum()
    return Weights(values, float(k_hat), float(1.0 / np.sum(values**2)))


def resample(weights: Weights, draws: int, rng: np.random.Generator) -> Integers:
    """(draws,) positions, in random order.

    Systematic resampling (Kitagawa 1996, doi:10.2307/1390750): each point comes up its expected
    number of times, rounded up or down, so that none is repeated before it has to be.
    """
    ends = np.cumsum(weights.values)
    at = (np.arange(draws) + rng.random()) / draws
    chosen = np.minimum(np.searchsorted(ends / ends[-1], at), len(ends) - 1)
    return np.asarray(rng.permutation(chosen), dtype=np.intp)


def effective(weights: Weights, draws: int) -> float:
    """Number of independent draws from the posterior that a resample is worth."""
    m = int(np.count_nonzero(weights.values))
    return 1.0 / (1.0 / weights.size + max(1.0 / draws - 1.0 / m, 0.0))


def shift(x: Array, first: Array, second: Array) -> Array:
    """(k,) difference of weighted means of x (m, k), in standard deviations by the first."""
    mean = first @ x
    sd = np.sqrt(first @ (x - mean) ** 2)
    return np.asarray((second @ x - mean) / np.where(sd > 0.0, sd, 1.0))


def estimated_shift(x: Array, log_ratio: Array, weights: Array) -> tuple[Array, Array]:
    """How far means of x move when weights are multiplied by E[exp(log_ratio) | x].

    First-order: the covariance of x with log E[exp(log_ratio) | x], which for a sum of many small
    parts is the conditional mean plus half the conditional variance.

    Returns
    -------
    (k,) shifts in standard deviations of x, (k,) their Monte Carlo standard errors
    """
    mean = weights @ x
    sd = np.sqrt(weights @ (x - mean) ** 2)
    z = (x - mean) / np.where(sd > 0.0, sd, 1.0)
    centred = log_ratio - weights @ log_ratio
    slope = np.linalg.lstsq((z.T * weights) @ z, weights @ (z * centred[:, None]), rcond=None)[0]
    squares = (centred - z @ slope) ** 2
    parts = z * (centred + 0.5 * (squares - weights @ squares))[:, None]
    found = weights @ parts
    return found, np.sqrt((weights**2) @ (parts - found) ** 2)
