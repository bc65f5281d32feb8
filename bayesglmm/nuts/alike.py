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
    (classes, K, K) blocks, (classes,) numbers of levels, (classes, K (K + 1) / 2, (p + 1)^2) sums
    over levels of the products of s_k and s_l, l <= k, for l < k both ways together, (J,) class
    of every level
    """
    if len(structure.order) != 1:
        none = np.zeros(0, dtype=np.int64)
        return np.zeros((0, 0, 0)), np.zeros(0), np.zeros((0, 0, 0)), none
    J, K = (int(v) for v in structure.terms[0, :2])
    blocks, sums = problem.W.reshape(J, K * K), problem.zx.reshape(J, K, -1)
    rounded = np.round(blocks / max(float(np.max(np.abs(blocks))), 1e-300), 13)
    _, first, which, counts = np.unique(
        rounded, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    members = np.split(sums[np.argsort(which, kind="stable")], np.cumsum(counts)[:-1])
    products = np.stack([np.einsum("jkx,jly->klxy", m, m) for m in members])
    products = products + products.transpose(0, 2, 1, 3, 4)
    products[:, np.arange(K), np.arange(K)] *= 0.5
    k, l = np.tril_indices(K)
    return (
        np.ascontiguousarray(blocks[first].reshape(-1, K, K)),
        counts.astype(np.float64),
        np.ascontiguousarray(products[:, k, l].reshape(len(members), len(k), -1)),
        which.ravel().astype(np.int64),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def factorise_alike(lam, blocks, counts, products, H, root, fixed):
    """`marginal_kernels._factorise` for a single term, where levels alike were put together.

    With I + Lambda'W Lambda = L L', H (classes K K) receives L, the inverse on its diagonal, and
    root (classes K K) L^-1 Lambda', class by class.
    """
    K, m = blocks.shape[1], len(fixed)
    logdet, at = 0.0, 0
    for c in range(len(blocks)):
        det = 1.0
        for a in range(K):
            for b in range(a + 1):
                total = 1.0 if a == b else 0.0
                for l in range(b, K):
                    half = 0.0  # of Lambda'W
                    for k in range(a, K):
                        half += lam[k * K + a] * blocks[c, k, l]
                    total += half * lam[l * K + b]
                for k in range(b):
                    total -= H[at + a * K + k] * H[at + b * K + k]
                if a == b:
                    if not total > 0.0:
                        return math.nan
                    det *= total
                    H[at + a * K + a] = 1.0 / math.sqrt(total)
                else:
                    H[at + a * K + b] = total * H[at + b * K + b]
        logdet += counts[c] * math.log(det)
        for a in range(K):
            for b in range(K):
                total = lam[b * K + a] if a <= b else 0.0
                for k in range(a):
                    total -= H[at + a * K + k] * root[at + k * K + b]
                root[at + a * K + b] = total * H[at + a * K + a]
        pair = 0
        for k in range(K):
            for l in range(k + 1):
                shrunk = _along(root, at, K, k, l)
                for x in range(m):
                    for y in range(m):
                        fixed[x, y] -= shrunk * products[c, pair, x * m + y]
                pair += 1
        at += K * K
    return logdet


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _along(root, at, K, k, l):
    """An element of M = Lambda H^-1 Lambda'."""
    total = 0.0
    for a in range(K):
        total += root[at + a * K + k] * root[at + a * K + l]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def slopes_alike(blocks, counts, products, H, root, weight, scratch, slopes):
    """`marginal_kernels._slopes` for a single term, H and root as `factorise_alike` left them.

    The sum over classes of (W n + (I - W M) T) D, with M = Lambda H^-1 Lambda', D = Lambda H^-1
    and T what ``weight`` makes of the products. ``scratch`` holds 3 K K numbers.
    """
    K, m, at = blocks.shape[1], len(weight), 0
    T, MT, D = 0, K * K, 2 * K * K  # where each begins in the scratch
    for c in range(len(blocks)):
        pair = 0
        for k in range(K):
            for l in range(k + 1):
                total = 0.0
                for x in range(m):
                    for y in range(m):
                        total += weight[x, y] * products[c, pair, x * m + y]
                if l < k:  # both ways together
                    total *= 0.5
                scratch[T + k * K + l] = scratch[T + l * K + k] = total
                pair += 1
        for a in range(K):
            for l in range(K):
                total = 0.0
                for k in range(K):
                    total += _along(root, at, K, a, k) * scratch[T + k * K + l]
                scratch[MT + a * K + l] = total
        for b in range(K):  # D' = L'^-1 root
            for a in range(K - 1, -1, -1):
                total = root[at + a * K + b]
                for k in range(a + 1, K):
                    total -= H[at + k * K + a] * scratch[D + b * K + k]
                scratch[D + b * K + a] = total * H[at + a * K + a]
        for a in range(K):
            for l in range(K):
                total = scratch[T + a * K + l]
                for k in range(K):
                    held = counts[c] if k == l else 0.0
                    total += blocks[c, a, k] * (held - scratch[MT + k * K + l])
                for b in range(K):
                    slopes[a * K + b] += total * scratch[D + l * K + b]
        at += K * K


@njit(cache=True, nogil=True, error_model="numpy")
def draw_alike(zx, which, root, lift, sigma, delta, own, lifted, draws):
    """T Lambda times a draw of the effects given the coefficients, for a single term.

    ``draws`` holds standard normals and receives the effects; ``delta`` (p, 1) is beta - ols.
    ``own`` (K,) and ``lifted`` (of root's size) are filled.
    """
    K, p = len(own), len(delta)
    for at in range(0, len(root), K):  # rows of root T'
        for k in range(K):
            total = 0.0
            for l in range(k + 1):
                total += root[at + l] * lift[k * K + l]
            lifted[at + k] = total
    for j in range(len(which)):
        at, first = which[j] * K * K, j * K
        for a in range(K):
            own[a] = sigma * draws[first + a]
        for k in range(K):
            left = zx[first + k, p]
            for x in range(p):
                left -= zx[first + k, x] * delta[x, 0]
            for a in range(K):
                own[a] += root[at + a * K + k] * left
        for k in range(K):
            total = 0.0
            for a in range(K):
                total += lifted[at + a * K + k] * own[a]
            draws[first + k] = total
