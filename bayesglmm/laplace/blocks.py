# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Compiled loops over the rows and levels of one term, of K columns.

Most terms have one to three columns. For those there are versions in which the compiler knows K:
loops over a block unroll and its values stay in registers, which makes them two to five times as
fast. ``index`` (n,) is the level of every row; levels count from 0, their effects from ``first``,
their blocks from ``base`` in a flat array, and Lambda's matrix from ``at`` in ``lam``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

# For functions that compiled code alone calls: the interpreter's way in takes long to compile.
_OPTIONS: dict[str, Any] = {
    "error_model": "numpy",
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
inner = njit(**_OPTIONS)


def _sized(build):
    """The kernel ``build(K)`` in versions for K of 1, 2 and 3, and for any (``build(0)``)."""
    version = njit(cache=True, **_OPTIONS)
    one, two, three, general = (version(build(known)) for known in (1, 2, 3, 0))

    @inner
    def choose(K, *arguments):
        if K == 1:
            return one(K, *arguments)
        if K == 2:
            return two(K, *arguments)
        if K == 3:
            return three(K, *arguments)
        return general(K, *arguments)

    return choose


# ------------------------------------------------------------------------------ over the rows


@_sized
def add_effects(known):
    """eta += Z b for b (effects, 1)."""

    def kernel(K, Z, column, index, first, b, eta):
        K = known or K
        for i in range(len(eta)):
            z, own = Z[i, column:], b[first + index[i] * K :, 0]
            total = 0.0
            for k in range(K):
                total += z[k] * own[k]
            eta[i] += total

    return kernel


@_sized
def sum_rows(known):
    """out += Z'V for V (n, m), out (effects, m)."""

    def kernel(K, Z, column, index, first, V, out):
        K = known or K
        n, m = V.shape
        for i in range(n):
            z, own = Z[i, column:], out[first + index[i] * K :]
            for c in range(m):
                v = V[i, c]
                for k in range(K):
                    own[k, c] += z[k] * v

    return kernel


@_sized
def cross_products(known):
    """The blocks of Z' diag(w) Z, into W where there are zeros."""

    def kernel(K, Z, column, index, base, J, w, W):
        K = known or K
        for i in range(len(w)):
            z, block = Z[i, column:], W[base + index[i] * K * K :]
            for a in range(K):
                wz = w[i] * z[a]
                for c in range(a + 1):
                    block[a * K + c] += wz * z[c]
        for j in range(J):
            block = W[base + j * K * K :]
            for a in range(K):
                for c in range(a):
                    block[c * K + a] = block[a * K + c]

    return kernel


@_sized
def quadratic_form(known):
    """out += z'C z for every row, C symmetric blocks."""

    def kernel(K, Z, column, index, base, C, out):
        K = known or K
        for i in range(len(out)):
            z, block = Z[i, column:], C[base + index[i] * K * K :]
            total = 0.0
            for a in range(K):
                inner = 0.0
                for c in range(a):
                    inner += block[a * K + c] * z[c]
                total += z[a] * (2.0 * inner + block[a * K + a] * z[a])
            out[i] += total

    return kernel


# ------------------------------------------------------------------------------ over the levels


@_sized
def scale_effects(known):
    """B = Lambda U for U (effects, m)."""

    def kernel(K, J, first, lam, at, U, B):
        K = known or K
        factor, m = lam[at:], U.shape[1]
        for j in range(J):
            source, target = U[first + j * K :], B[first + j * K :]
            for k in range(m):
                for a in range(K):
                    total = 0.0
                    for c in range(a + 1):  # Lambda is lower triangular
                        total += factor[a * K + c] * source[c, k]
                    target[a, k] = total

    return kernel


@_sized
def scale_sums(known):
    """out = Lambda' R for R (effects, m)."""

    def kernel(K, J, first, lam, at, R, out):
        K = known or K
        factor, m = lam[at:], R.shape[1]
        for j in range(J):
            source, target = R[first + j * K :], out[first + j * K :]
            for k in range(m):
                for c in range(K):
                    total = 0.0
                    for a in range(c, K):
                        total += factor[a * K + c] * source[a, k]
                    target[c, k] = total

    return kernel


@_sized
def congruence(known):
    """H = A'WA for symmetric blocks W and any A at ``at`` in ``matrices``."""

    def kernel(K, J, base, matrices, at, W, H):
        K = known or K
        A, half = matrices[at:], np.empty(K * K)
        for j in range(J):
            source, target = W[base + j * K * K :], H[base + j * K * K :]
            for a in range(K):
                for c in range(K):
                    total = 0.0
                    for k in range(K):
                        total += A[k * K + a] * source[k * K + c]
                    half[a * K + c] = total
            for a in range(K):
                for c in range(a + 1):
                    total = 0.0
                    for k in range(K):
                        total += half[a * K + k] * A[k * K + c]
                    target[a * K + c] = total
                    target[c * K + a] = total

    return kernel


@_sized
def factorise(known):
    """Cholesky factors of the blocks of H in their lower triangles; returns their log det.

    NaN if one is not positive definite.
    """

    def kernel(K, J, base, H):
        K = known or K
        logdet = 0.0
        for j in range(J):
            block = H[base + j * K * K :]
            product = 1.0
            for a in range(K):
                for c in range(a + 1):
                    total = block[a * K + c]
                    for k in range(c):
                        total -= block[a * K + k] * block[c * K + k]
                    if a == c:
                        if not total > 0.0:
                            return math.nan
                        if known:
                            product *= total  # one logarithm for few pivots
                        else:
                            logdet += math.log(total)
                        block[a * K + a] = math.sqrt(total)
                    else:
                        block[a * K + c] = total / block[c * K + c]
            if known:
                logdet += math.log(product)
        return logdet

    return kernel


@_sized
def solve_lower(known):
    """R = L^-1 R for R (effects, m)."""

    def kernel(K, J, base, first, H, R):
        K = known or K
        m = R.shape[1]
        for j in range(J):
            block, own = H[base + j * K * K :], R[first + j * K :]
            for c in range(m):
                for a in range(K):
                    total = own[a, c]
                    for k in range(a):
                        total -= block[a * K + k] * own[k, c]
                    own[a, c] = total / block[a * K + a]

    return kernel


@_sized
def solve_upper(known):
    """R = L'^-1 R for R (effects, m)."""

    def kernel(K, J, base, first, H, R):
        K = known or K
        m = R.shape[1]
        for j in range(J):
            block, own = H[base + j * K * K :], R[first + j * K :]
            for c in range(m):
                for a in range(K - 1, -1, -1):
                    total = own[a, c]
                    for k in range(a + 1, K):
                        total -= block[k * K + a] * own[k, c]
                    own[a, c] = total / block[a * K + a]

    return kernel


@_sized
def invert(known):
    """E = L'^-1 (I + E) L^-1 for symmetric blocks E."""

    def kernel(K, J, base, H, E):
        K = known or K
        for j in range(J):
            block, own = H[base + j * K * K :], E[base + j * K * K :]
            for a in range(K):
                own[a * K + a] += 1.0
            for c in range(K):  # L'^-1 from the left
                for a in range(K - 1, -1, -1):
                    total = own[a * K + c]
                    for k in range(a + 1, K):
                        total -= block[k * K + a] * own[k * K + c]
                    own[a * K + c] = total / block[a * K + a]
            for a in range(K):  # and L^-1 from the right
                for c in range(K - 1, -1, -1):
                    total = own[a * K + c]
                    for k in range(c + 1, K):
                        total -= own[a * K + k] * block[k * K + c]
                    own[a * K + c] = total / block[c * K + c]

    return kernel


@_sized
def logdet_slopes(known):
    """G += the sum of W Lambda E over the levels, for symmetric blocks."""

    def kernel(K, J, base, lam, at, W, E, G):
        K = known or K
        factor, half, sums = lam[at:], np.empty(K * K), np.zeros(K * K)
        for j in range(J):
            source, inverse = W[base + j * K * K :], E[base + j * K * K :]
            for c in range(K):
                for k in range(K):
                    total = 0.0
                    for m in range(c + 1):
                        total += factor[c * K + m] * inverse[m * K + k]
                    half[c * K + k] = total
            for a in range(K):
                for k in range(K):
                    total = 0.0
                    for c in range(K):
                        total += source[a * K + c] * half[c * K + k]
                    sums[a * K + k] += total
        for v in range(K * K):
            G[at + v] += sums[v]

    return kernel


@_sized
def outer_sums(known):
    """G += the sum over levels of A_j B_j', for A and B (effects, m)."""

    def kernel(K, J, first, A, B, at, G):
        K = known or K
        m = A.shape[1]
        for j in range(J):
            left, right = A[first + j * K :], B[first + j * K :]
            for k in range(m):
                for a in range(K):
                    for c in range(K):
                        G[at + a * K + c] += left[a, k] * right[c, k]

    return kernel
