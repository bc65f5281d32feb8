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
        (chains, draws, m) draws. NaN for quantities with a draw that is not finite, for fewer
        than four draws, and R-hat also for one chain or a constant.
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
    whole = each.reshape(len(each), -1)
    with np.errstate(invalid="ignore"):  # infinite draws
        limits = np.quantile(whole, (TAIL, 1.0 - TAIL), axis=1)
        spread = whole.std(axis=1, ddof=1)
    _fill(flat, order, limits, spread, scores, 2 * chains, out[:, start : start + _BLOCK])


def _normal_scores(size: int) -> Array:
    """Normal scores of the ranks 1, 1.5, 2, ..., size (half ranks are ties); Blom (1958)."""
    ranks = np.arange(2.0, 2.0 * size + 1.0) / 2.0
    return np.asarray(ndtri((ranks - 0.375) / (size + 0.25)))


_kernel = njit(cache=True, nogil=True, error_model="numpy")


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _lag(x, parts, t):  # type: ignore[no-untyped-def]
    """Autocovariance at lag t, averaged over the parts of x, each of mean zero."""
    n = len(x) // parts
    total = 0.0
    for c in range(parts):
        part = 0.0
        for i in range(c * n, (c + 1) * n - t):
            part += x[i] * x[i + t]
        total += part
    return total / (n * parts)


@_kernel
def _mean(x, first, last):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(first, last):
        total += x[i]
    return total / (last - first)


@_kernel
def _variance_of_means(x, parts):  # type: ignore[no-untyped-def]
    n, total, squares = len(x) // parts, 0.0, 0.0
    centre = _mean(x, 0, len(x))
    for c in range(parts):
        total = _mean(x, c * n, (c + 1) * n) - centre
        squares += total * total
    return squares / (parts - 1)


@_kernel
def _rhat(x, parts):  # type: ignore[no-untyped-def]
    n, within = len(x) // parts, 0.0
    for c in range(parts):
        mean = _mean(x, c * n, (c + 1) * n)
        for i in range(c * n, (c + 1) * n):
            within += (x[i] - mean) ** 2
    within /= parts * (n - 1)
    return np.sqrt((n * _variance_of_means(x, parts) / within + n - 1.0) / n)


@_kernel
def _ess(x, parts, rho):  # type: ignore[no-untyped-def]
    """Effective sample size of parts of equal length, by Geyer's initial monotone sequence.

    x is centred in place; rho (n,) is memory.
    """
    n, low, high = len(x) // parts, x[0], x[0]
    for value in x:
        low, high = min(low, value), max(high, value)
    if high - low < 1e-15:
        return float(len(x))
    between = _variance_of_means(x, parts) if parts > 1 else 0.0
    for c in range(parts):
        mean = _mean(x, c * n, (c + 1) * n)
        for i in range(c * n, (c + 1) * n):
            x[i] -= mean
    at_zero = _lag(x, parts, 0)
    mean_var = at_zero * n / (n - 1.0)
    var_plus = at_zero + between
    even, odd = 1.0, 1.0 - (mean_var - _lag(x, parts, 1)) / var_plus
    rho[:] = 0.0
    rho[0], rho[1] = even, odd
    t = 1
    while t < n - 3 and even + odd > 0.0:
        even = 1.0 - (mean_var - _lag(x, parts, t + 1)) / var_plus
        odd = 1.0 - (mean_var - _lag(x, parts, t + 2)) / var_plus
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
    tau = -1.0 + rho[last + 1]
    for k in range(last + 1):
        tau += 2.0 * rho[k]
    return len(x) / max(tau, 1.0 / np.log10(len(x)))


@_kernel
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


@_kernel
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


# One signature, compiled once: views of arrays differ in layout.
@njit(
    "void(float64[:, ::1], int64[:, ::1], float64[:, :], float64[:], float64[::1], int64, "
    "float64[:, :])",
    cache=True,
    nogil=True,
    error_model="numpy",
)
def _fill(flat, order, limits, spread, scores, parts, out):  # type: ignore[no-untyped-def]
    """The four statistics of every row of flat, which is ``parts`` half chains side by side."""
    m, size = flat.shape
    z, work, folded = np.empty(size), np.empty(size), np.empty(size)
    place, rho = np.empty(size, dtype=np.int64), np.empty(size // parts)
    for k in range(m):
        x = flat[k]
        if np.isnan(spread[k]):  # some draw is NaN or infinite
            continue
        _scores_in_order(x, order[k], scores, z)
        if parts > 2:
            _fold(x, order[k], folded, place)
            _scores_in_order(folded, place, scores, work)
            out[2, k] = max(_rhat(z, parts), _rhat(work, parts))
        out[0, k] = _ess(z, parts, rho)
        for side in range(2):
            for i in range(size):
                work[i] = 1.0 if x[i] <= limits[side, k] else 0.0
            tail = _ess(work, parts, rho)
            if side == 0 or tail < out[1, k]:
                out[1, k] = tail
        work[:] = x
        out[3, k] = spread[k] / np.sqrt(_ess(work, parts, rho))
