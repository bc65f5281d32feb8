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
from bayesglmm.laplace.structure import Array, Structure, Whole


def levels_alike(structure: Structure, problem: LinearProblem) -> tuple[Array, Array, Array, Whole]:
    """Levels of a single term with the same Z'WZ, put together; empty for several terms.

    Of the sums s = Z'W[X r] of such levels the density needs the sums of products only.

    Returns
    -------
    (classes, K, K) blocks, (classes,) numbers of levels, (classes, K, K, p + 1, p + 1) sums over
    levels of the products of s_k and s_l, (J,) class of every level
    """
    if len(structure.order) != 1:
        none = np.zeros(0, dtype=np.int64)
        return np.zeros((0, 0, 0)), np.zeros(0), np.zeros((0, 0, 0, 0, 0)), none
    J, K = (int(v) for v in structure.terms[0, :2])
    blocks, sums = problem.W.reshape(J, K * K), problem.zx.reshape(J, -1)
    rounded = np.round(blocks / max(float(np.max(np.abs(blocks))), 1e-300), 13)
    _, first, which, counts = np.unique(
        rounded, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    members = np.split(sums[np.argsort(which, kind="stable")], np.cumsum(counts)[:-1])
    products = np.stack([m.T @ m for m in members]).reshape(
        len(members), K, -1, K, len(sums.T) // K
    )
    return (
        np.ascontiguousarray(blocks[first].reshape(-1, K, K)),
        counts.astype(np.float64),
        np.ascontiguousarray(products.transpose(0, 1, 3, 2, 4)),
        which.ravel().astype(np.int64),
    )


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _along(root, c, k, l):
    """An element of M = Lambda H^-1 Lambda'."""
    total = 0.0
    for a in range(root.shape[1]):
        total += root[c, a, k] * root[c, a, l]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def factorise_alike(d, lam, root, D, fixed):
    """`marginal_kernels._factorise` for a single term, where levels alike were put together.

    With H = L L', root (classes, K, K) receives L^-1 Lambda' and D (classes, K, K) Lambda H^-1.
    """
    blocks, counts, products = d[8], d[9], d[10]
    K, m = blocks.shape[1], len(fixed)
    H, half = np.empty(K * K), np.empty(K * K)
    logdet = 0.0
    for c in range(len(blocks)):
        for a in range(K):
            for b in range(K):
                total = 0.0
                for k in range(a, K):
                    total += lam[k * K + a] * blocks[c, k, b]
                half[a * K + b] = total  # Lambda'W
        for a in range(K):
            for b in range(a + 1):
                total = 1.0 if a == b else 0.0
                for k in range(b, K):
                    total += half[a * K + k] * lam[k * K + b]
                for k in range(b):
                    total -= H[a * K + k] * H[b * K + k]
                if a == b:
                    if not total > 0.0:
                        return math.nan
                    H[a * K + a] = math.sqrt(total)
                    logdet += counts[c] * math.log(total)
                else:
                    H[a * K + b] = total / H[b * K + b]
        for b in range(K):
            for a in range(K):
                total = lam[b * K + a] if a <= b else 0.0
                for k in range(a):
                    total -= H[a * K + k] * root[c, k, b]
                root[c, a, b] = total / H[a * K + a]
            for a in range(K - 1, -1, -1):
                total = root[c, a, b]
                for k in range(a + 1, K):
                    total -= H[k * K + a] * D[c, b, k]
                D[c, b, a] = total / H[a * K + a]
        for k in range(K):
            for l in range(K):
                shrunk = _along(root, c, k, l)
                for x in range(m):
                    for y in range(m):
                        fixed[x, y] -= shrunk * products[c, k, l, x, y]
    return logdet


@njit(cache=True, nogil=True, error_model="numpy")
def slopes_alike(d, root, D, weight, slopes):
    """`marginal_kernels._slopes` for a single term, root and D as `factorise_alike` left them.

    The sum over classes of (W n + (I - W M) T) D, with M = Lambda H^-1 Lambda' and T what
    ``weight`` makes of the products.
    """
    blocks, counts, products = d[8], d[9], d[10]
    K, m = blocks.shape[1], len(weight)
    T, inner = np.empty(K * K), np.empty(K * K)
    for c in range(len(blocks)):
        for k in range(K):
            for l in range(K):
                total = 0.0
                for x in range(m):
                    for y in range(m):
                        total += weight[x, y] * products[c, k, l, x, y]
                T[k * K + l] = total
        for a in range(K):  # M T
            for l in range(K):
                total = 0.0
                for k in range(K):
                    total += _along(root, c, a, k) * T[k * K + l]
                inner[a * K + l] = total
        for a in range(K):
            for l in range(K):
                total = T[a * K + l]
                for k in range(K):
                    total += blocks[c, a, k] * ((counts[c] if k == l else 0.0) - inner[k * K + l])
                for b in range(K):
                    slopes[a * K + b] += total * D[c, l, b]


@njit(cache=True, nogil=True, error_model="numpy")
def draw_alike(d, root, sigma, delta, u):
    """Lambda times a draw of the effects given the coefficients, for a single term.

    u (effects, 1) holds standard normals before; ``delta`` (p, 1) is beta - ols.
    """
    zx, which = d[4], d[11]
    K, p = root.shape[1], len(delta)
    own = np.empty(K)
    for j in range(len(which)):
        c = which[j]
        for a in range(K):
            own[a] = sigma * u[j * K + a, 0]
        for k in range(K):
            left = zx[j * K + k, p]
            for x in range(p):
                left -= zx[j * K + k, x] * delta[x, 0]
            for a in range(K):
                own[a] += root[c, a, k] * left
        for k in range(K):
            total = 0.0
            for a in range(K):
                total += root[c, a, k] * own[a]
            u[j * K + k, 0] = total
