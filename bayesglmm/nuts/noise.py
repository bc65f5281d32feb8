"""Standard normals by which coefficients and effects are drawn, given what NUTS sampled.

Each row leans a little away from the one before it (overrelaxation: Adler 1981,
doi:10.1103/PhysRevD.23.2901): z' = sqrt(1 - a^2) e - a z with e a fresh normal. Every z is still
standard normal and independent of what NUTS sampled, so the draws are from the same posterior;
but errors of one row cancel part of those of the next. A mean over N rows is as precise as over
N (1 + a) / (1 - a) independent ones, a variance as over N (1 - a^2) / (1 + a^2).
"""

from __future__ import annotations

import numpy as np

from bayesglmm.nuts.target import Array

BLOCK = 100  # rows that have a seed of their own
# Means of effects become as precise as those of the variances that NUTS draws, 1.7 times what
# independent draws give; variances lose an eighth.
_LEAN = 0.25


def standard_normals(seed: int, chain: int, first: int, last: int, size: int) -> Array:
    """Rows ``first`` to ``last`` of a chain, each (size,).

    They depend on the rows' numbers alone, where ``first`` is a multiple of `BLOCK`; a row in
    between starts anew.
    """
    out = np.empty((last - first, size))
    if not out.size:
        return out
    from bayesglmm.nuts.marginal_kernels import overrelax  # compiled: loaded when called

    at = first
    while at < last:
        stop = min((at // BLOCK + 1) * BLOCK, last)
        rows = out[at - first : stop - first]
        np.random.default_rng(seed_of(seed, chain, at, 1)).standard_normal(out=rows)
        overrelax(rows, _LEAN)
        at = stop
    return out


def seed_of(*path: int) -> int:
    """A seed for one purpose: the run's seed, chain, row, and which purpose."""
    return int(np.random.SeedSequence(path).generate_state(1, np.uint64)[0] >> np.uint64(1))
