# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Small triangular blocks of all levels of a term at once.

A block has K rows of [L | Y], L lower triangular with 1 / L_kk on its diagonal. Levels come last:
element (a, c) of level j is ``blocks[at + (a * width + c) * J + j]``, element a of what a block
acts on ``v[first + a * J + j]``. So every operation is a loop over levels, of which the processor
does several at a time. Places in arrays are passed as numbers: a view would cost as much as the
loop.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numba import njit

# Called from kernels only: without an entry from Python they compile much faster.
_options = partial(
    njit,
    cache=True,
    nogil=True,
    error_model="numpy",
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
)
inner = _options()
_contracted = _options(fastmath={"contract"})

# ---------------------------------------------------------------- J elements from given places


@_contracted
def subtract_product(x, at_x, y, at_y, J, out, at):
    """out -= x y, element by element."""
    for j in range(J):
        out[np.uintp(at + j)] -= x[np.uintp(at_x + j)] * y[np.uintp(at_y + j)]


@_contracted
def subtract_taken(x, at_x, y, at_y, level, at_level, J, out, at):
    """out -= x y[level]."""
    for j in range(J):
        met = level[np.uintp(at_level + j)]
        out[np.uintp(at + j)] -= x[np.uintp(at_x + j)] * y[np.uintp(at_y + met)]


@_contracted
def subtract_sums(x, at_x, y, at_y, level, at_level, J, out, at):
    """out[level] -= x y: its transpose."""
    for j in range(J):
        met = level[np.uintp(at_level + j)]
        out[np.uintp(at + met)] -= x[np.uintp(at_x + j)] * y[np.uintp(at_y + j)]


@inner
def multiply(x, at_x, J, out, at):
    """out *= x."""
    for j in range(J):
        out[np.uintp(at + j)] *= x[np.uintp(at_x + j)]


@inner
def copy(x, at_x, J, out, at):
    """out = x."""
    for j in range(J):
        out[np.uintp(at + j)] = x[np.uintp(at_x + j)]


# -------------------------------------------------------------------------------- whole blocks


@inner
def factorise(blocks, at, K, width, J, y, first, precision, prior):
    """[P | B] into [L | Y] and r into y = L^-1 r in place, with P + precision = L L'.

    Returns log det of all L.
    """
    logdet = 0.0
    for a in range(K):
        row = at + a * width * J
        for c in range(a):
            other, added = at + c * width * J, precision[prior + a * K + c]
            for j in range(J):
                blocks[np.uintp(row + c * J + j)] += added
            for k in range(c):
                subtract_product(blocks, row + k * J, blocks, other + k * J, J, blocks, row + c * J)
            multiply(blocks, other + c * J, J, blocks, row + c * J)
        pivot, added, product = row + a * J, precision[prior + a * K + a], 1.0
        for k in range(a):
            subtract_product(blocks, row + k * J, blocks, row + k * J, J, blocks, pivot)
        for j in range(J):
            blocks[np.uintp(pivot + j)] = 1.0 / math.sqrt(blocks[np.uintp(pivot + j)] + added)
        for j in range(J):
            product *= blocks[np.uintp(pivot + j)]
            if not 1e-100 < product < 1e100:  # few logarithms
                logdet -= math.log(product)
                product = 1.0
        logdet -= math.log(product)
        for m in range(K, width):
            for k in range(a):
                above = at + (k * width + m) * J
                subtract_product(blocks, row + k * J, blocks, above, J, blocks, row + m * J)
            multiply(blocks, pivot, J, blocks, row + m * J)
        for k in range(a):
            subtract_product(blocks, row + k * J, y, first + k * J, J, y, first + a * J)
        multiply(blocks, pivot, J, y, first + a * J)
    return logdet


@inner
def solve_lower(blocks, at, K, width, J, v, first):
    """v = L^-1 v."""
    for a in range(K):
        row = at + a * width * J
        for k in range(a):
            subtract_product(blocks, row + k * J, v, first + k * J, J, v, first + a * J)
        multiply(blocks, row + a * J, J, v, first + a * J)


@inner
def solve_upper(blocks, at, K, width, J, v, first):
    """v = L'^-1 v, the rows of v ``J`` apart."""
    for a in range(K - 1, -1, -1):
        for k in range(a + 1, K):
            below = at + (k * width + a) * J
            subtract_product(blocks, below, v, first + k * J, J, v, first + a * J)
        multiply(blocks, at + (a * width + a) * J, J, v, first + a * J)


@inner
def factorise_bar(blocks, at, K, width, J, bar, S):
    """From [L_bar | Y_bar] to [P_bar | B_bar] in place, P_bar symmetric (Murray 2016).

    ``S`` is scratch for K x K x J numbers.
    """
    for m in range(K, width):  # B_bar = L'^-1 Y_bar
        for a in range(K - 1, -1, -1):
            own = at + (a * width + m) * J
            for k in range(a + 1, K):
                beside = at + (k * width + m) * J
                subtract_product(blocks, at + (k * width + a) * J, bar, beside, J, bar, own)
            multiply(blocks, at + (a * width + a) * J, J, bar, own)
    for a in range(K):
        for c in range(a + 1):
            own = at + (a * width + c) * J
            for m in range(K, width):
                beside = at + (a * width + m) * J
                subtract_product(bar, beside, blocks, at + (c * width + m) * J, J, bar, own)
    for a in range(K):  # S = minus the lower triangle of L' L_bar, mirrored
        pivot = at + (a * width + a) * J
        for c in range(a + 1):
            own, to = at + (a * width + c) * J, (a * K + c) * J
            for j in range(J):
                S[np.uintp(to + j)] = -bar[np.uintp(own + j)] / blocks[np.uintp(pivot + j)]
            for k in range(a + 1, K):
                row = at + k * width * J
                subtract_product(blocks, row + a * J, bar, row + c * J, J, S, to)
            if c < a:
                copy(S, to, J, S, (c * K + a) * J)
    for c in range(K):  # S = L'^-1 S
        for a in range(K - 1, -1, -1):
            to = (a * K + c) * J
            for k in range(a + 1, K):
                below = at + (k * width + a) * J
                subtract_product(blocks, below, S, (k * K + c) * J, J, S, to)
            multiply(blocks, at + (a * width + a) * J, J, S, to)
    for a in range(K):  # P_bar = -S L^-1 / 2
        row = at + a * width * J
        for c in range(K - 1, -1, -1):
            for j in range(J):
                bar[np.uintp(row + c * J + j)] = -0.5 * S[np.uintp((a * K + c) * J + j)]
            for k in range(c + 1, K):
                below = at + (k * width + c) * J
                subtract_product(bar, row + k * J, blocks, below, J, bar, row + c * J)
            multiply(blocks, at + (c * width + c) * J, J, bar, row + c * J)
