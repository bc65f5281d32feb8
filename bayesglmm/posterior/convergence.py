"""Effective sample sizes and R-hat of many quantities at once, compiled.

Rank-normalised, split chains (Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021,
doi:10.1214/20-BA1221), the definitions of R's *posterior* and of ArviZ. Autocovariances are
summed lag by lag and no further than Geyer's rule needs them: few lags for chains that mix.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import ndtri

Array = NDArray[np.float64]

TAIL = 0.05  # tail ESS is that of the 5% and the 95% quantile
_BLOCK = 32  # quantities at a time: their draws stay in cache
_MANY = 2_000_000  # numbers from which a second thread pays


def ess_and_rhat(values: Array) -> dict[str, Array]:
    """``ess_bulk``, ``ess_tail``, ``r_hat`` and ``mcse`` (of the mean), each (m,).

    Parameters
    ----------
    values
        (chains, draws, m) draws. NaN for quantities with a NaN, for fewer than four draws, and
        R-hat also for one chain or a constant.
    """
    chains, draws, m = values.shape
    out = np.full((4, m), np.nan)
    if draws >= 4:
        scores = _normal_scores(2 * chains * (draws // 2))
        starts = range(0, m, _BLOCK)
        if values.size >= _MANY:
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                list(pool.map(lambda at: _block(values, at, scores, out), starts))
        else:
            for at in starts:
                _block(values, at, scores, out)
    return dict(zip(("ess_bulk", "ess_tail", "r_hat", "mcse"), out, strict=True))


def _block(values: Array, start: int, scores: Array, out: Array) -> None:
    """Fill ``out[:, start : start + _BLOCK]``."""
    chains, draws, _ = values.shape
    each = np.ascontiguousarray(values[:, :, start : start + _BLOCK].transpose(2, 0, 1))
    half = draws // 2
    # (m, 2 chains, half): first and last halves of every chain as chains of their own.
    split = np.concatenate([each[:, :, :half], each[:, :, draws - half :]], axis=1)
    flat = split.reshape(len(split), -1)
    order = np.argsort(flat, axis=1)
    with np.errstate(invalid="ignore"):  # infinite draws: no quantiles between them
        limits = np.quantile(each.reshape(len(each), -1), (TAIL, 1.0 - TAIL), axis=1)
    spread = each.reshape(len(each), -1).std(axis=1, ddof=1)
    _fill(flat, order, limits, spread, scores, 2 * chains, chains, out[:, start : start + _BLOCK])


def _normal_scores(size: int) -> Array:
    """Normal scores of the ranks 1, 1.5, 2, ..., size (half ranks are ties); Blom (1958)."""
    ranks = np.arange(2.0, 2.0 * size + 1.0) / 2.0
    return np.asarray(ndtri((ranks - 0.375) / (size + 0.25)))


@njit(cache=True, nogil=True, error_model="numpy")
def _fill(flat, order, limits, spread, scores, parts, chains, out):  # type: ignore[no-untyped-def]
    m, size = flat.shape
    half = size // parts
    z, folded = np.empty(size), np.empty(size)
    rank, place = np.empty(size), np.empty(size, dtype=np.int64)
    for k in range(m):
        x = flat[k]
        if np.isnan(x).any() or np.isnan(spread[k]):
            continue
        _scores_in_order(x, order[k], scores, z)
        if chains > 1:
            _fold(x, order[k], folded, place)
            _scores_in_order(folded, place, scores, rank)
            out[2, k] = max(_rhat(z.reshape(parts, half)), _rhat(rank.reshape(parts, half)))
        out[0, k] = _ess(z.reshape(parts, half))
        for side in range(2):
            limit = limits[side, k]
            for i in range(size):
                rank[i] = 1.0 if x[i] <= limit else 0.0
            tail = _ess(rank.reshape(parts, half))
            if side == 0 or not tail >= out[1, k]:
                out[1, k] = tail
        out[3, k] = spread[k] / np.sqrt(_ess(x.copy().reshape(parts, half)))


@njit(cache=True, nogil=True, error_model="numpy")
def _scores_in_order(x, order, scores, out):  # type: ignore[no-untyped-def]
    """Normal scores of x, given the order that sorts it; ties share the mean rank."""
    size = len(x)
    i = 0
    while i < size:
        j = i
        while j + 1 < size and x[order[j + 1]] == x[order[i]]:
            j += 1
        score = scores[i + j]  # mean rank (i + j) / 2 + 1, in half steps from one
        for k in range(i, j + 1):
            out[order[k]] = score
        i = j + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _fold(x, order, folded, place):  # type: ignore[no-untyped-def]
    """|x - median| and the order that sorts it: two sorted halves, merged."""
    size = len(x)
    middle = 0.5 * (x[order[(size - 1) // 2]] + x[order[size // 2]])
    for i in range(size):
        folded[i] = abs(x[i] - middle)
    low, high = size // 2 - 1, size // 2
    for k in range(size):
        if high >= size or (low >= 0 and folded[order[low]] <= folded[order[high]]):
            place[k] = order[low]
            low -= 1
        else:
            place[k] = order[high]
            high += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _rhat(x):  # type: ignore[no-untyped-def]
    parts, n = x.shape
    means, within = np.empty(parts), 0.0
    for c in range(parts):
        means[c] = x[c].mean()
        within += np.sum((x[c] - means[c]) ** 2) / (n - 1)
    within /= parts
    between = n * np.sum((means - means.mean()) ** 2) / (parts - 1)
    return np.sqrt((between / within + n - 1.0) / n)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _lag(x, t):  # type: ignore[no-untyped-def]
    """Autocovariance at lag t, averaged over chains; rows of x have mean zero."""
    parts, n = x.shape
    total = 0.0
    for c in range(parts):
        row, part = x[c], 0.0
        for i in range(n - t):
            part += row[i] * row[i + t]
        total += part
    return total / (n * parts)


@njit(cache=True, nogil=True, error_model="numpy")
def _ess(x):  # type: ignore[no-untyped-def]
    """Effective sample size of (chains, draws), by Geyer's initial monotone sequence.

    x is overwritten.
    """
    parts, n = x.shape
    if x.max() - x.min() < 1e-15:
        return float(x.size)
    means = np.empty(parts)
    for c in range(parts):
        means[c] = x[c].mean()
        x[c] -= means[c]
    at_zero = _lag(x, 0)
    mean_var = at_zero * n / (n - 1.0)
    var_plus = at_zero
    if parts > 1:
        var_plus += np.sum((means - means.mean()) ** 2) / (parts - 1)
    rho = np.zeros(n)
    even, odd = 1.0, 1.0 - (mean_var - _lag(x, 1)) / var_plus
    rho[0], rho[1] = even, odd
    t = 1
    while t < n - 3 and even + odd > 0.0:
        even = 1.0 - (mean_var - _lag(x, t + 1)) / var_plus
        odd = 1.0 - (mean_var - _lag(x, t + 2)) / var_plus
        if even + odd >= 0.0:
            rho[t + 1], rho[t + 2] = even, odd
        t += 2
    last = t - 2
    if even > 0.0:
        rho[last + 1] = even
    t = 1
    while t <= last - 2:
        if rho[t + 1] + rho[t + 2] > rho[t - 1] + rho[t]:
            rho[t + 1] = rho[t + 2] = (rho[t - 1] + rho[t]) / 2.0
        t += 2
    total = 0.0
    for k in range(last + 1):
        total += rho[k]
    tau = -1.0 + 2.0 * total + rho[last + 1]
    return x.size / max(tau, 1.0 / np.log10(x.size))
