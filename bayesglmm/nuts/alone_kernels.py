# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""`marginal_kernels` for a single term, whose levels are put together by `alone.levels_alike`.

Arguments shared: ``terms`` (1, 5) of `Structure.arrays`, ``c`` those of ``Scales.arrays``, ``d``
the order, the inverse lifts, [X r]'W[X r], the prior's form, the constants, and the three arrays
of blocks, counts and products.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from bayesglmm.nuts import marginal_kernels, scales
from bayesglmm.nuts.marginal_kernels import FARTHEST


def inlined(function):
    """The same, copied into its callers: to hand it arrays takes as long as what it does."""
    return njit(nogil=True, error_model="numpy", inline="always")(function.py_func)


_natural, _unpack = inlined(scales.natural), inlined(scales.unpack)
_pull_back, _log_prior = inlined(scales.pull_back), inlined(scales.log_prior_scales)
_relative, _pull_relative = (
    inlined(marginal_kernels.relative),
    inlined(marginal_kernels.pull_relative),
)
_penalised, _coefficients = (
    inlined(marginal_kernels.penalised),
    inlined(marginal_kernels.coefficients),
)
_enter, _leave = inlined(marginal_kernels.enter), inlined(marginal_kernels.leave)
_draw_coefficients, _place_coefficients = (
    inlined(marginal_kernels.draw_coefficients),
    inlined(marginal_kernels.place_coefficients),
)


@njit(nogil=True, error_model="numpy", inline="always")
def _factorise(lam, blocks, counts, products, H, root, fixed):
    """`marginal_kernels._factorise`, class by class of levels that are alike.

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


@njit(nogil=True, error_model="numpy", inline="always")
def _along(root, at, K, k, l):
    """An element of M = Lambda H^-1 Lambda'."""
    total = 0.0
    for a in range(K):
        total += root[at + a * K + k] * root[at + a * K + l]
    return total


@njit(nogil=True, error_model="numpy", inline="always")
def _slopes(blocks, counts, products, H, root, weight, scratch, slopes):
    """`marginal_kernels._slopes`, H and root as `_factorise` left them.

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


@njit(nogil=True, error_model="numpy", inline="always")
def _log_posterior(t, terms, c, d, room, fixed, gradient):
    """log p(y, t), and its gradient; -inf where it is not computed."""
    layout, codes, parameters, etas = c
    order, inverse_lifts, xx, prior, constants, blocks, counts, products = d
    last, square = len(t) - 1, terms[0, 1] * terms[0, 1]
    for k in range(len(t)):
        gradient[k] = 0.0
        if not abs(t[k]) < FARTHEST:
            return -math.inf
    values, at = room[: len(t)], len(t)
    H, at = room[at : at + len(counts) * square], at + len(counts) * square
    root, at = room[at : at + len(H)], at + len(H)
    factors, at = room[at : at + square], at + square
    lam, at = room[at : at + square], at + square
    slopes, at = room[at : at + square], at + square
    scratch = room[at : at + 3 * square]
    _natural(t, layout, values)
    _unpack(values, layout, factors)
    sigma = values[last]
    _relative(terms, layout, order, inverse_lifts, factors, sigma, lam)
    _penalised(xx, prior, sigma, fixed)
    logdet = _factorise(lam, blocks, counts, products, H, root, fixed)
    value, through = _coefficients(prior, constants[0], t[last], sigma, fixed)
    value += constants[1] - 0.5 * logdet
    if not math.isfinite(value):
        return -math.inf
    for k in range(square):
        slopes[k] = 0.0
    _slopes(blocks, counts, products, H, root, fixed, scratch, slopes)
    gradient[last] = through
    for k in range(square):
        gradient[last] += slopes[k] * lam[k]
    _pull_relative(terms, layout, order, inverse_lifts, sigma, slopes, lam)
    _pull_back(values, layout, factors, lam, gradient)
    return value + _log_prior(t, values, layout, codes, parameters, etas, gradient)


@njit(cache=True, nogil=True, error_model="numpy")
def log_density(x, terms, c, d, centre, root, elbows, room, fixed, gradient):
    """`marginal_kernels.log_density` for a single term.

    As short as it can be, in given room: here the sampler's own step takes as long as the
    density, and to make an array as long as a tenth of it. ``fixed`` is (p + 1, p + 1).
    """
    m = len(x)
    t, along, turn = room[:m], room[m : 2 * m], room[2 * m : 3 * m]
    slope, rest = room[3 * m : 4 * m], room[4 * m :]
    value = _enter(x, centre, root, elbows, t, along, turn)
    value += _log_posterior(t, terms, c, d, rest, fixed, slope)
    _leave(root, along, turn, slope, gradient)
    return value


@njit(nogil=True, error_model="numpy", inline="always")
def _draw_levels(zx, which, root, lift, sigma, delta, room, draws):
    """T Lambda times a draw of the effects given the coefficients.

    That is G z + M s: of every level z, the standard normals in ``draws``, which receives the
    effects, and s = Z'W(r - X delta), where delta (p, 1) is beta - ols. ``room`` holds G and M of
    every class and 2 K numbers.
    """
    classes, p = len(root), len(delta)
    G, M, K = 0, classes, int(math.sqrt(len(lift)))
    for at in range(0, classes, K * K):
        for k in range(K):  # row k of T root' and of T root' root
            for a in range(K):
                total = 0.0
                for l in range(k + 1):
                    total += root[at + a * K + l] * lift[k * K + l]
                room[G + at + k * K + a] = total
            for b in range(K):
                total = 0.0
                for a in range(K):
                    total += room[G + at + k * K + a] * root[at + a * K + b]
                room[M + at + k * K + b] = total
            for a in range(K):
                room[G + at + k * K + a] *= sigma
    z, s = 2 * classes, 2 * classes + K
    for j in range(len(which)):
        at, first = which[j] * K * K, j * K
        for a in range(K):
            total = zx[first + a, p]
            for x in range(p):
                total -= zx[first + a, x] * delta[x, 0]
            room[z + a], room[s + a] = draws[first + a], total
        for k in range(K):
            total = 0.0
            for a in range(K):
                total += room[G + at + k * K + a] * room[z + a]
                total += room[M + at + k * K + a] * room[s + a]
            draws[first + k] = total


@njit(cache=True, nogil=True, error_model="numpy")
def draw_effects(t, terms, c, d, zx, which, lift, root_x, ols, draws):
    """`marginal_kernels.draw_effects` for a single term; ``which`` (J,): the classes of levels."""
    order, inverse_lifts, xx, prior, _, blocks, counts, products = d
    p, effects, K = len(xx) - 1, len(zx), blocks.shape[1]
    values, factors, lam = np.empty(t.shape[1]), np.empty(K * K), np.empty(K * K)
    half, root, room = (
        np.empty(blocks.size),
        np.empty(blocks.size),
        np.empty(2 * blocks.size + 2 * K),
    )
    fixed, L, delta = np.empty(xx.shape), np.empty((p, p)), np.empty((p, 1))
    for row in range(len(t)):
        _natural(t[row], c[0], values)
        _unpack(values, c[0], factors)
        sigma = values[len(values) - 1]
        _relative(terms, c[0], order, inverse_lifts, factors, sigma, lam)
        _penalised(xx, prior, sigma, fixed)
        logdet = _factorise(lam, blocks, counts, products, half, root, fixed)
        if math.isnan(logdet) or not _draw_coefficients(
            fixed, sigma, draws[row], effects, L, delta
        ):
            draws[row] = math.nan
            continue
        _draw_levels(zx, which, root, lift, sigma, delta, room, draws[row])
        _place_coefficients(delta, root_x, ols, effects, draws[row])
