# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""One random-effects term: levels with the same Z'WZ put together.

All levels of a balanced design are alike; of random intercepts without weights, those with the
same number of rows. What they contribute to the density depends on sums over them alone.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from bayesglmm.laplace.pls import LinearProblem
from bayesglmm.laplace.structure import Array, Structure


def levels_alike(structure: Structure, problem: LinearProblem) -> tuple[Array, ...]:
    """Levels of a single term with the same Z'WZ, put together; empty for several terms.

    Of the Z'W[X r] of such levels the density needs the sums of products only: no more rows
    with the same ones than K (p + 1).

    Returns
    -------
    (classes, K, K) blocks, (classes,) numbers of levels, (classes + 1,) where the rows of each
    class begin, (rows, K, p + 1) rows
    """
    if len(structure.order) != 1:
        none = np.zeros((0, 0, 0))
        return none, np.zeros(0), np.zeros(1, dtype=np.int64), none
    J, K = (int(v) for v in structure.terms[0, :2])
    blocks, sums = problem.W.reshape(J, K * K), problem.zx.reshape(J, -1)
    rounded = np.round(blocks / max(float(np.max(np.abs(blocks))), 1e-300), 13)
    _, first, which, counts = np.unique(
        rounded, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    members = np.split(sums[np.argsort(which, kind="stable")], np.cumsum(counts)[:-1])
    rows = [np.linalg.qr(m, mode="r") if len(m) > m.shape[1] else m for m in members]
    ends = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
    return (
        np.ascontiguousarray(blocks[first].reshape(-1, K, K)),
        counts.astype(np.float64),
        ends.astype(np.int64),
        np.ascontiguousarray(np.concatenate(rows).reshape(ends[-1], K, -1)),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def factorise_alike(d, lam, D, R, fixed):
    """`marginal_kernels._factorise` for a single term, where levels alike were put together.

    D (classes, K, K) receives Lambda H^-1, R (rows, K, p + 1) H^-1 Lambda'sums.
    """
    blocks, counts, ends, sums = d[8], d[9], d[10], d[11]
    K, m = blocks.shape[1], sums.shape[2]
    A = lam.reshape(K, K)
    H, half, v = np.empty((K, K)), np.empty((K, K)), np.empty((K, m))
    logdet = 0.0
    for c in range(len(blocks)):
        for a in range(K):
            for b in range(K):
                total = 0.0
                for k in range(a, K):
                    total += A[k, a] * blocks[c, k, b]
                half[a, b] = total  # A'W
        for a in range(K):
            for b in range(a + 1):
                total = 1.0 if a == b else 0.0
                for k in range(b, K):
                    total += half[a, k] * A[k, b]
                for k in range(b):
                    total -= H[a, k] * H[b, k]
                if a == b:
                    if not total > 0.0:
                        return math.nan
                    H[a, a] = math.sqrt(total)
                    logdet += 2.0 * counts[c] * math.log(H[a, a])
                else:
                    H[a, b] = total / H[b, b]
        for b in range(K):  # L^-1 A', then Lambda H^-1 from it
            for a in range(K):
                total = A[b, a] if a <= b else 0.0
                for k in range(a):
                    total -= H[a, k] * half[k, b]
                half[a, b] = total / H[a, a]
            for a in range(K - 1, -1, -1):
                total = half[a, b]
                for k in range(a + 1, K):
                    total -= H[k, a] * D[c, b, k]
                D[c, b, a] = total / H[a, a]
        for r in range(ends[c], ends[c + 1]):
            for a in range(K):
                for x in range(m):
                    total, whole = 0.0, 0.0
                    for k in range(K):
                        total += half[a, k] * sums[r, k, x]
                        whole += D[c, k, a] * sums[r, k, x]
                    v[a, x] = total
                    R[r, a, x] = whole
            for a in range(K):
                for x in range(m):
                    for y in range(m):
                        fixed[x, y] -= v[a, x] * v[a, y]
    return logdet


@njit(cache=True, nogil=True, error_model="numpy")
def slopes_alike(d, lam, D, R, weight, slopes):
    """`marginal_kernels._slopes` for a single term, D and R as `factorise_alike` left them."""
    blocks, counts, ends, sums = d[8], d[9], d[10], d[11]
    K, m = blocks.shape[1], sums.shape[2]
    A, G = lam.reshape(K, K), slopes.reshape(K, K)
    WA, left = np.empty((K, K)), np.empty(m)
    G[:] = 0.0
    for c in range(len(blocks)):
        for a in range(K):
            for b in range(K):
                total, along = 0.0, 0.0
                for k in range(K):
                    along += blocks[c, a, k] * D[c, k, b]
                    if k >= b:
                        total += blocks[c, a, k] * A[k, b]
                WA[a, b] = total
                G[a, b] += counts[c] * along
        for r in range(ends[c], ends[c + 1]):
            for a in range(K):
                for x in range(m):
                    total = sums[r, a, x]
                    for k in range(K):
                        total -= WA[a, k] * R[r, k, x]
                    left[x] = total
                for y in range(m):
                    total = 0.0
                    for x in range(m):
                        total += left[x] * weight[x, y]
                    for b in range(K):
                        G[a, b] += total * R[r, b, y]
