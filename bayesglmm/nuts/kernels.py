# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The log-density in Laplace coordinates and its gradient, compiled.

`pseudo.py` says what the coordinates are and derives the numbers, `layout.py` how they lie in
memory. For a level of a chain term, with P and r what is left of its pseudo-observation after
the levels nested in it are eliminated, B the part of P that joins it to the levels it is itself
nested in, and b_a the effects of those,

    P + Sigma^-1 = L L',    Y = L^-1 B,    y = L^-1 r,    b = L'^-1 (y - Y b_a + z).

A block is stored as K rows of [L | Y] with 1 / L_kk on the diagonal; a level of a trailing term
is the same with nothing beside it. The names ending in ``_bar`` are derivatives of the
log-density in what they are named after, gathered from the end of the map to its beginning.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from bayesglmm.families.compiled import value_and_slope
from bayesglmm.nuts.layout import ROWS, floats_of, integers_of, sizes_of, work_of
from bayesglmm.nuts.scales import log_prior_scales, pull_back, unpack
from bayesglmm.priors.compiled import log_prior_coefficients

# --------------------------------------------------------------------------- one K x K block


@njit(cache=True, nogil=True, error_model="numpy")
def _factor_block(blocks, at, K, width):
    """[Q | B] into [L | Y] in place, 1 / L_kk on the diagonal; returns log det L."""
    product = 1.0
    for a in range(K):
        row = at + a * width
        for c in range(a + 1):
            total = blocks[row + c]
            for k in range(c):
                total -= blocks[row + k] * blocks[at + c * width + k]
            if c < a:
                blocks[row + c] = total * blocks[at + c * width + c]
            else:
                pivot = math.sqrt(total)
                blocks[row + a] = 1.0 / pivot
                product *= pivot
        for m in range(K, width):
            total = blocks[row + m]
            for k in range(a):
                total -= blocks[row + k] * blocks[at + k * width + m]
            blocks[row + m] = total * blocks[row + a]
    return math.log(product)


@njit(cache=True, nogil=True, error_model="numpy")
def _solve_lower(blocks, at, K, width, v, first):
    """v = L^-1 v for K entries from ``first``."""
    for a in range(K):
        total = v[first + a]
        for k in range(a):
            total -= blocks[at + a * width + k] * v[first + k]
        v[first + a] = total * blocks[at + a * width + a]


@njit(cache=True, nogil=True, error_model="numpy")
def _solve_upper(blocks, at, K, width, v, first):
    """v = L'^-1 v."""
    for a in range(K - 1, -1, -1):
        total = v[first + a]
        for k in range(a + 1, K):
            total -= blocks[at + k * width + a] * v[first + k]
        v[first + a] = total * blocks[at + a * width + a]


@njit(cache=True, nogil=True, error_model="numpy")
def _factor_block_bar(blocks, bar, at, K, width, S):
    """From [L_bar | Y_bar] to [Q_bar | B_bar] in place, Q_bar symmetric (Murray 2016).

    ``S`` is scratch for K x K numbers.
    """
    for m in range(K, width):  # B_bar = L'^-1 Y_bar
        for a in range(K - 1, -1, -1):
            total = bar[at + a * width + m]
            for k in range(a + 1, K):
                total -= blocks[at + k * width + a] * bar[at + k * width + m]
            bar[at + a * width + m] = total * blocks[at + a * width + a]
    for a in range(K):
        for c in range(a + 1):
            total = bar[at + a * width + c]
            for m in range(K, width):
                total -= bar[at + a * width + m] * blocks[at + c * width + m]
            bar[at + a * width + c] = total
    for a in range(K):  # S = lower triangle of L' L_bar, mirrored
        for c in range(a + 1):
            total = bar[at + a * width + c] / blocks[at + a * width + a]
            for k in range(a + 1, K):
                total += blocks[at + k * width + a] * bar[at + k * width + c]
            S[a * K + c] = total
            S[c * K + a] = total
    for c in range(K):  # S = L'^-1 S
        for a in range(K - 1, -1, -1):
            total = S[a * K + c]
            for k in range(a + 1, K):
                total -= blocks[at + k * width + a] * S[k * K + c]
            S[a * K + c] = total * blocks[at + a * width + a]
    for a in range(K):  # Q_bar = S L^-1 / 2
        for c in range(K - 1, -1, -1):
            total = 0.5 * S[a * K + c]
            for k in range(c + 1, K):
                total -= bar[at + a * width + k] * blocks[at + k * width + c]
            bar[at + a * width + c] = total * blocks[at + c * width + c]


# ------------------------------------------------------------------------- from x to (beta, b)


@njit(cache=True, nogil=True, error_model="numpy")
def _covariances(s, m, v):
    """Precisions of all terms and inverses of their factors; returns sum of J log det factor."""
    total = 0.0
    for f in range(s.terms):
        J, K, place = m.terms[f, 0], m.terms[f, 1], m.terms[f, 5]
        for a in range(K):
            total += J * math.log(v.factors[place + a * K + a])
            for c in range(K):
                v.inverses[place + a * K + c] = 0.0
            v.inverses[place + a * K + a] = 1.0 / v.factors[place + a * K + a]
            for c in range(a):
                value = 0.0
                for k in range(c, a):
                    value -= v.factors[place + a * K + k] * v.inverses[place + k * K + c]
                v.inverses[place + a * K + c] = value * v.inverses[place + a * K + a]
        for a in range(K):
            for c in range(K):
                value = 0.0
                for k in range(max(a, c), K):
                    value += v.inverses[place + k * K + a] * v.inverses[place + k * K + c]
                v.precision[place + a * K + c] = value
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _responses(s, d, v, begin, end, gamma):
    """v.raw = r - C gamma for effects from begin to end."""
    for e in range(begin, end):
        total = d.r[e]
        for k in range(s.p):
            total -= d.C[e, k] * v.zeta[gamma + k]
        v.raw[e] = total


@njit(cache=True, nogil=True, error_model="numpy")
def _couple(m, d, v):
    """Take from the chain's responses what the trailing effects explain."""
    for i in range(len(m.couplings)):
        f, h, start, level, value = m.couplings[i]
        J, K, first = m.terms[f, 0], m.terms[f, 1], m.terms[f, 2]
        Kh, first_h = m.terms[h, 1], m.terms[h, 2]
        for j in range(J):
            for e in range(m.starts[start + j], m.starts[start + j + 1]):
                at, to = value + e * K * Kh, first_h + m.levels[level + e] * Kh
                for a in range(K):
                    total = 0.0
                    for c in range(Kh):
                        total += d.coupled[at + a * Kh + c] * v.b[to + c]
                    v.raw[first + j * K + a] -= total


@njit(cache=True, nogil=True, error_model="numpy")
def _factor_terms(s, m, v, begin, end):
    """[L | Y] and y of all levels of terms from begin to end; returns log det of all L."""
    total = 0.0
    for f in range(begin, end):
        J, K, first = m.terms[f, 0], m.terms[f, 1], m.terms[f, 2]
        prior, M, place = m.terms[f, 5], m.terms[f, 6], m.terms[f, 7]
        ancestor = m.terms[f, 8]
        width = K + M
        if K == 1 and M == 0:
            added, product = v.precision[prior], 1.0
            for j in range(J):
                inverse = 1.0 / math.sqrt(v.blocks[place + j] + added)
                v.blocks[place + j] = inverse
                v.y[first + j] *= inverse
                product *= inverse
                if not 1e-100 < product < 1e100:
                    total -= math.log(product)
                    product = 1.0
            total -= math.log(product)
            continue
        if K == 1 and M == 1:
            added, product = v.precision[prior], 1.0
            first_g, place_g = m.terms[f + 1, 2], m.terms[f + 1, 7]
            for j in range(J):
                at = place + 2 * j
                inverse = 1.0 / math.sqrt(v.blocks[at] + added)
                Y, y = v.blocks[at + 1] * inverse, v.y[first + j] * inverse
                v.blocks[at], v.blocks[at + 1], v.y[first + j] = inverse, Y, y
                g = m.ancestors[ancestor + j]
                v.blocks[place_g + g] -= Y * Y
                v.y[first_g + g] -= Y * y
                product *= inverse
                if not 1e-100 < product < 1e100:
                    total -= math.log(product)
                    product = 1.0
            total -= math.log(product)
            continue
        for j in range(J):
            at = place + j * K * width
            for a in range(K):
                for c in range(K):
                    v.blocks[at + a * width + c] += v.precision[prior + a * K + c]
            total += _factor_block(v.blocks, at, K, width)
            _solve_lower(v.blocks, at, K, width, v.y, first + j * K)
            left = K  # columns that belong to the next ancestor
            for g in range(f + 1, f + 1 + m_ancestors(m, f, s)):
                Kg, Mg = m.terms[g, 1], m.terms[g, 6]
                level = m.ancestors[ancestor + (g - f - 1) * J + j]
                to, wide = m.terms[g, 7] + level * Kg * (Kg + Mg), Kg + Mg
                for a in range(Kg):
                    for c in range(wide):
                        value = 0.0
                        for k in range(K):
                            row = at + k * width + left
                            value += v.blocks[row + a] * v.blocks[row + c]
                        v.blocks[to + a * wide + c] -= value
                    value = 0.0
                    for k in range(K):
                        value += v.blocks[at + k * width + left + a] * v.y[first + j * K + k]
                    v.y[m.terms[g, 2] + level * Kg + a] -= value
                left += Kg
    return total


@njit(cache=True, nogil=True, inline="always")
def m_ancestors(m, f, s):
    """Number of later chain terms."""
    return s.chain - 1 - f if f < s.chain else 0


@njit(cache=True, nogil=True, error_model="numpy")
def _effects(s, m, v, z, offset, begin, end):
    """b of terms from begin to end, outermost first; z of effect e is z[e - offset]."""
    for f in range(end - 1, begin - 1, -1):
        J, K, first = m.terms[f, 0], m.terms[f, 1], m.terms[f, 2]
        M, place, ancestor = m.terms[f, 6], m.terms[f, 7], m.terms[f, 8]
        width = K + M
        if K == 1 and M == 0:
            for j in range(first, first + J):
                v.b[j] = (v.y[j] + z[j - offset]) * v.blocks[place + j - first]
            continue
        if K == 1 and M == 1:
            first_g = m.terms[f + 1, 2]
            for j in range(J):
                at = place + 2 * j
                above = v.blocks[at + 1] * v.b[first_g + m.ancestors[ancestor + j]]
                v.b[first + j] = (v.y[first + j] - above + z[first + j - offset]) * v.blocks[at]
            continue
        for j in range(J):
            at, e = place + j * K * width, first + j * K
            for a in range(K):
                v.b[e + a] = v.y[e + a] + z[e + a - offset]
            left = K
            for g in range(f + 1, f + 1 + m_ancestors(m, f, s)):
                Kg = m.terms[g, 1]
                to = m.terms[g, 2] + m.ancestors[ancestor + (g - f - 1) * J + j] * Kg
                for a in range(K):
                    for c in range(Kg):
                        v.b[e + a] -= v.blocks[at + a * width + left + c] * v.b[to + c]
                left += Kg
            _solve_upper(v.blocks, at, K, width, v.b, e)


@njit(cache=True, nogil=True, error_model="numpy")
def _scale(s, d, m, v):
    """factors, precisions and blocks of v.t; returns sigma, ratio and log det of the factors."""
    unpack(v.t, m.layout, v.factors)
    logdet = _covariances(s, m, v)
    sigma, ratio = 1.0, 1.0
    if s.has_scale:
        sigma = math.exp(v.t[s.scales - 1])
        ratio = (d.fixed[0] / sigma) ** 2
    for e in range(s.blocks):
        v.blocks[e] = ratio * d.blocks[e]
    return sigma, ratio, logdet


@njit(cache=True, nogil=True, error_model="numpy")
def _trailing_responses(s, d, m, v, ratio):
    """Factors and y of the trailing terms, v.zeta's gamma being known."""
    gamma = s.effects - s.leading
    _responses(s, d, v, s.leading, s.effects, gamma)
    for e in range(s.leading, s.effects):
        v.y[e] = ratio * v.raw[e]
    return _factor_terms(s, m, v, s.chain, s.terms)


@njit(cache=True, nogil=True, error_model="numpy")
def _chain_responses(s, d, m, v, ratio):
    """Factors and y of the chain, gamma and the trailing effects being known."""
    gamma = s.effects - s.leading
    _responses(s, d, v, 0, s.leading, gamma)
    _couple(m, d, v)
    for e in range(s.leading):
        v.y[e] = ratio * v.raw[e]
    return _factor_terms(s, m, v, 0, s.chain)


@njit(cache=True, nogil=True, error_model="numpy")
def _coefficients(s, d, v):
    gamma = s.effects - s.leading
    for a in range(s.p):
        total = d.beta[a]
        for c in range(s.p):
            total += d.back[a, c] * v.zeta[gamma + c]
        v.beta[a] = total


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _dot(a, b, begin, end):
    total = 0.0
    for k in range(begin, end):
        total += a[k] * b[k]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _place(s, d, m, v, x):
    """(t, beta, b) of a point; returns sigma, ratio, log det of the factors, log|d(..)/dx|.

    The determinants of the static maps are among the constants.
    """
    last = s.effects + s.p
    for a in range(s.scales):
        v.t[a] = d.t[a] + _dot(d.root[a], x[last:], 0, a + 1)
    sigma, ratio, logdet = _scale(s, d, m, v)
    size = last - s.leading
    epsilon = x[s.leading : last]
    for a in range(size):
        v.zeta[a] = _dot(d.A[a], epsilon, a, size)
    _coefficients(s, d, v)
    jacobian = -_trailing_responses(s, d, m, v, ratio)
    _effects(s, m, v, v.zeta, s.leading, s.chain, s.terms)
    jacobian -= _chain_responses(s, d, m, v, ratio)
    _effects(s, m, v, x, 0, 0, s.chain)
    return sigma, ratio, logdet, jacobian


@njit(cache=True, nogil=True, error_model="numpy")
def positions(ints, index, data, xs, ts, betas, bs):
    """(t, beta, b) of every row of xs (m, size)."""
    s, d, m, v = sizes_of(ints), floats_of(ints, data), integers_of(ints), work_of(ints)
    for i in range(len(xs)):
        _place(s, d, m, v, xs[i])
        ts[i], betas[i], bs[i] = v.t, v.beta, v.b


@njit(cache=True, nogil=True, error_model="numpy")
def coordinates(ints, index, data, ts, gammas, bs, xs):
    """The inverse: xs (m, size) of every (t, gamma, b)."""
    s, d, m, v = sizes_of(ints), floats_of(ints, data), integers_of(ints), work_of(ints)
    last, q = s.effects + s.p, s.effects - s.leading
    size = q + s.p
    for i in range(len(xs)):
        x = xs[i]
        v.t[:], v.b[:], v.zeta[q:] = ts[i], bs[i], gammas[i]
        for a in range(s.scales):
            left = v.t[a] - d.t[a] - _dot(d.root[a], x[last:], 0, a)
            x[last + a] = left / d.root[a, a]
        ratio = _scale(s, d, m, v)[1]
        _trailing_responses(s, d, m, v, ratio)
        _standardise(s, m, v, v.zeta, s.leading, s.chain, s.terms)
        _chain_responses(s, d, m, v, ratio)
        _standardise(s, m, v, x, 0, 0, s.chain)
        epsilon = x[s.leading : last]
        for a in range(size - 1, -1, -1):
            epsilon[a] = (v.zeta[a] - _dot(d.A[a], epsilon, a + 1, size)) / d.A[a, a]


@njit(cache=True, nogil=True, error_model="numpy")
def _standardise(s, m, v, z, offset, begin, end):
    """z = L'b - y + Y b_a, the inverse of `_effects`."""
    for f in range(begin, end):
        J, K, first = m.terms[f, 0], m.terms[f, 1], m.terms[f, 2]
        M, place, ancestor = m.terms[f, 6], m.terms[f, 7], m.terms[f, 8]
        width = K + M
        for j in range(J):
            at, e = place + j * K * width, first + j * K
            for a in range(K):
                total = v.b[e + a] / v.blocks[at + a * width + a] - v.y[e + a]
                for k in range(a + 1, K):
                    total += v.blocks[at + k * width + a] * v.b[e + k]
                left = K
                for g in range(f + 1, f + 1 + m_ancestors(m, f, s)):
                    Kg = m.terms[g, 1]
                    to = m.terms[g, 2] + m.ancestors[ancestor + (g - f - 1) * J + j] * Kg
                    for c in range(Kg):
                        total += v.blocks[at + a * width + left + c] * v.b[to + c]
                    left += Kg
                z[e + a - offset] = total


# --------------------------------------------------------------------------- over the rows


@njit(cache=True, nogil=True, error_model="numpy")
def _rows(s, d, m, v, index, sigma, gamma_bar):
    """Log-likelihood; its slopes in b and gamma are added to v.b_bar and gamma_bar."""
    total, q = 0.0, s.effects - s.leading
    for begin in range(0, s.n, ROWS):
        size = min(ROWS, s.n - begin)
        for i in range(size):
            v.eta[i] = d.eta[begin + i]
        for k in range(s.p):
            g, column = v.zeta[q + k], d.X[k, begin : begin + size]
            for i in range(size):
                v.eta[i] += g * column[i]
        for f in range(s.terms):
            K, first, z = m.terms[f, 1], m.terms[f, 2], m.terms[f, 3]
            level = index[f, begin : begin + size]
            if m.terms[f, 4]:
                for i in range(size):
                    v.eta[i] += v.b[first + level[i]]
            else:
                for k in range(K):
                    column = d.Z[z + k, begin : begin + size]
                    for i in range(size):
                        v.eta[i] += column[i] * v.b[first + level[i] * K + k]
        end = begin + size
        total += value_and_slope(s.code, d.y[begin:end], d.w[begin:end], v.eta, sigma, v.slope)
        for k in range(s.p):
            gamma_bar[k] += _dot(d.X[k, begin:end], v.slope, 0, size)
        for f in range(s.terms):
            K, first, z = m.terms[f, 1], m.terms[f, 2], m.terms[f, 3]
            level = index[f, begin:end]
            if m.terms[f, 4]:
                for i in range(size):
                    v.b_bar[first + level[i]] += v.slope[i]
            else:
                for k in range(K):
                    column = d.Z[z + k, begin:end]
                    for i in range(size):
                        v.b_bar[first + level[i] * K + k] += column[i] * v.slope[i]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _effects_prior(s, m, v):
    """sum of log N(b; 0, Sigma) without determinants and constants, with slopes."""
    total = 0.0
    for f in range(s.terms):
        J, K, first, prior = m.terms[f, 0], m.terms[f, 1], m.terms[f, 2], m.terms[f, 5]
        if K == 1:
            squares, precision = 0.0, v.precision[prior]
            for e in range(first, first + J):
                squares += v.b[e] * v.b[e]
                v.b_bar[e] -= precision * v.b[e]
            total -= 0.5 * precision * squares
            v.precision_bar[prior] -= 0.5 * squares
            continue
        for j in range(J):
            e = first + j * K
            for a in range(K):
                pull = 0.0
                for c in range(K):
                    pull += v.precision[prior + a * K + c] * v.b[e + c]
                    v.precision_bar[prior + a * K + c] -= 0.5 * v.b[e + a] * v.b[e + c]
                total -= 0.5 * v.b[e + a] * pull
                v.b_bar[e + a] -= pull
    return total


# ------------------------------------------------------------------------------ and backwards


@njit(cache=True, nogil=True, error_model="numpy")
def _effects_bar(s, m, v, z_bar, offset, begin, end):
    """Back through `_effects`: innermost first. Sets z_bar, r_bar (of y) and blocks_bar."""
    for f in range(begin, end):
        J, K, first = m.terms[f, 0], m.terms[f, 1], m.terms[f, 2]
        M, place, ancestor = m.terms[f, 6], m.terms[f, 7], m.terms[f, 8]
        width = K + M
        if K == 1 and M == 0:
            for j in range(first, first + J):
                inverse = v.blocks[place + j - first]
                pull = v.b_bar[j] * inverse
                v.blocks_bar[place + j - first] = -v.b[j] * pull - inverse
                v.r_bar[j] = pull
                z_bar[j - offset] = pull
            continue
        if K == 1 and M == 1:
            first_g = m.terms[f + 1, 2]
            for j in range(J):
                at, e = place + 2 * j, first + j
                g = first_g + m.ancestors[ancestor + j]
                inverse = v.blocks[at]
                pull = v.b_bar[e] * inverse
                v.blocks_bar[at] = -v.b[e] * pull - inverse
                v.blocks_bar[at + 1] = -pull * v.b[g]
                v.b_bar[g] -= v.blocks[at + 1] * pull
                v.r_bar[e] = pull
                z_bar[e - offset] = pull
            continue
        for j in range(J):
            at, e = place + j * K * width, first + j * K
            for a in range(K):
                v.r_bar[e + a] = v.b_bar[e + a]
            _solve_lower(v.blocks, at, K, width, v.r_bar, e)
            for a in range(K):
                z_bar[e + a - offset] = v.r_bar[e + a]
                for c in range(a + 1):
                    v.blocks_bar[at + a * width + c] = -v.b[e + a] * v.r_bar[e + c]
                v.blocks_bar[at + a * width + a] -= v.blocks[at + a * width + a]
            left = K
            for g in range(f + 1, f + 1 + m_ancestors(m, f, s)):
                Kg = m.terms[g, 1]
                to = m.terms[g, 2] + m.ancestors[ancestor + (g - f - 1) * J + j] * Kg
                for a in range(K):
                    row = at + a * width + left
                    for c in range(Kg):
                        v.blocks_bar[row + c] = -v.r_bar[e + a] * v.b[to + c]
                        v.b_bar[to + c] -= v.blocks[row + c] * v.r_bar[e + a]
                left += Kg


@njit(cache=True, nogil=True, error_model="numpy")
def _factor_terms_bar(s, m, v, begin, end):
    """Back through `_factor_terms`: outermost first.

    r_bar becomes that of r, blocks_bar that of P; adds to precision_bar.
    """
    for f in range(end - 1, begin - 1, -1):
        J, K, first = m.terms[f, 0], m.terms[f, 1], m.terms[f, 2]
        prior, M, place = m.terms[f, 5], m.terms[f, 6], m.terms[f, 7]
        ancestor = m.terms[f, 8]
        width = K + M
        if K == 1 and M == 0:
            total = 0.0
            for j in range(J):
                inverse = v.blocks[place + j]
                pull = v.r_bar[first + j] * inverse
                v.r_bar[first + j] = pull
                bar = 0.5 * inverse * (v.blocks_bar[place + j] - pull * v.y[first + j])
                v.blocks_bar[place + j] = bar
                total += bar
            v.precision_bar[prior] += total
            continue
        if K == 1 and M == 1:
            total = 0.0
            first_g, place_g = m.terms[f + 1, 2], m.terms[f + 1, 7]
            for j in range(J):
                at, e = place + 2 * j, first + j
                g = m.ancestors[ancestor + j]
                inverse, Y, y = v.blocks[at], v.blocks[at + 1], v.y[e]
                above, r_above = v.blocks_bar[place_g + g], v.r_bar[first_g + g]
                beside = (v.blocks_bar[at + 1] - 2.0 * Y * above - y * r_above) * inverse
                pull = (v.r_bar[e] - Y * r_above) * inverse
                bar = 0.5 * inverse * (v.blocks_bar[at] - beside * Y - pull * y)
                v.blocks_bar[at], v.blocks_bar[at + 1], v.r_bar[e] = bar, beside, pull
                total += bar
            v.precision_bar[prior] += total
            continue
        for j in range(J):
            at, e = place + j * K * width, first + j * K
            left = K
            for g in range(f + 1, f + 1 + m_ancestors(m, f, s)):
                Kg, wide = m.terms[g, 1], m.terms[g, 1] + m.terms[g, 6]
                level = m.ancestors[ancestor + (g - f - 1) * J + j]
                to, r_to = m.terms[g, 7] + level * Kg * wide, m.terms[g, 2] + level * Kg
                for k in range(K):
                    row = at + k * width + left
                    y, y_bar = v.y[e + k], v.r_bar[e + k]
                    for a in range(Kg):
                        bar = -y * v.r_bar[r_to + a]
                        y_bar -= v.blocks[row + a] * v.r_bar[r_to + a]
                        for c in range(wide):
                            above = v.blocks_bar[to + a * wide + c]
                            bar -= v.blocks[row + c] * above
                            v.blocks_bar[row + c] -= v.blocks[row + a] * above
                        v.blocks_bar[row + a] += bar
                    v.r_bar[e + k] = y_bar
                left += Kg
            _solve_upper(v.blocks, at, K, width, v.r_bar, e)
            for a in range(K):
                for c in range(a + 1):
                    v.blocks_bar[at + a * width + c] -= v.r_bar[e + a] * v.y[e + c]
            _factor_block_bar(v.blocks, v.blocks_bar, at, K, width, v.scratch)
            for a in range(K):
                for c in range(K):
                    v.precision_bar[prior + a * K + c] += v.blocks_bar[at + a * width + c]


@njit(cache=True, nogil=True, error_model="numpy")
def _responses_bar(s, d, v, begin, end, ratio, gamma_bar):
    """Back through y = ratio (r - C gamma); r_bar becomes that of the bracket.

    Returns the derivative in the ratio.
    """
    total = 0.0
    for e in range(begin, end):
        total += v.r_bar[e] * v.raw[e]
        v.r_bar[e] *= ratio
        for k in range(s.p):
            gamma_bar[k] -= d.C[e, k] * v.r_bar[e]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _couple_bar(m, d, v):
    for i in range(len(m.couplings)):
        f, h, start, level, value = m.couplings[i]
        J, K, first = m.terms[f, 0], m.terms[f, 1], m.terms[f, 2]
        Kh, first_h = m.terms[h, 1], m.terms[h, 2]
        for j in range(J):
            for e in range(m.starts[start + j], m.starts[start + j + 1]):
                at, to = value + e * K * Kh, first_h + m.levels[level + e] * Kh
                for a in range(K):
                    pull = v.r_bar[first + j * K + a]
                    for c in range(Kh):
                        v.b_bar[to + c] -= d.coupled[at + a * Kh + c] * pull


@njit(cache=True, nogil=True, error_model="numpy")
def _covariances_bar(s, m, v):
    """From precision_bar to the slopes in the factors, in place: -2 Sigma^-1 P_bar F'^-1."""
    for f in range(s.terms):
        J, K, place = m.terms[f, 0], m.terms[f, 1], m.terms[f, 5]
        for a in range(K):  # P_bar F'^-1
            for c in range(K):
                total = 0.0
                for k in range(c + 1):
                    total += v.precision_bar[place + a * K + k] * v.inverses[place + c * K + k]
                v.scratch[a * K + c] = total
        for a in range(K):
            for c in range(a + 1):
                total = 0.0
                for k in range(K):
                    total += v.precision[place + a * K + k] * v.scratch[k * K + c]
                v.precision_bar[place + a * K + c] = -2.0 * total
            v.precision_bar[place + a * K + a] -= J * v.inverses[place + a * K + a]


@njit(cache=True, nogil=True, error_model="numpy")
def log_density(ints, index, data, x, gradient):
    """The log-density at x, normalising constants included; fills ``gradient``."""
    s, d, m, v = sizes_of(ints), floats_of(ints, data), integers_of(ints), work_of(ints)
    last, q = s.effects + s.p, s.effects - s.leading
    sigma, ratio, logdet, jacobian = _place(s, d, m, v, x)
    gamma_bar = v.zeta_bar[q:]
    value = _rows(s, d, m, v, index, sigma, gamma_bar)
    if s.has_scale:
        value -= s.n * v.t[s.scales - 1]
        v.t_bar[s.scales - 1] -= 2.0 * (value + s.n * v.t[s.scales - 1]) + s.n
    value += _effects_prior(s, m, v) - logdet + jacobian + d.fixed[1]
    value += log_prior_coefficients(
        v.beta, d.means, s.intercept, m.beta_codes, d.beta_priors, v.beta_bar
    )
    value += log_prior_scales(
        v.t, m.layout, m.scale_codes, d.scale_priors, d.etas, s.has_scale == 1, v.t_bar
    )
    for a in range(s.p):
        for c in range(s.p):
            gamma_bar[c] += d.back[a, c] * v.beta_bar[a]

    _effects_bar(s, m, v, gradient, 0, 0, s.chain)
    _factor_terms_bar(s, m, v, 0, s.chain)
    ratio_bar = _responses_bar(s, d, v, 0, s.leading, ratio, gamma_bar)
    _couple_bar(m, d, v)
    _effects_bar(s, m, v, v.zeta_bar, s.leading, s.chain, s.terms)
    _factor_terms_bar(s, m, v, s.chain, s.terms)
    ratio_bar += _responses_bar(s, d, v, s.leading, s.effects, ratio, gamma_bar)
    _covariances_bar(s, m, v)
    pull_back(v.t, m.layout, v.factors, v.precision_bar, v.t_bar)
    if s.has_scale:
        v.t_bar[s.scales - 1] -= 2.0 * ratio * (ratio_bar + _dot(d.blocks, v.blocks_bar, 0, s.blocks))
    size = last - s.leading
    epsilon_bar = gradient[s.leading : last]
    epsilon_bar[:] = 0.0
    for a in range(size):
        pull, row = v.zeta_bar[a], d.A[a]
        for c in range(a, size):
            epsilon_bar[c] += pull * row[c]
    for c in range(s.scales):
        total = 0.0
        for a in range(c, s.scales):
            total += d.root[a, c] * v.t_bar[a]
        gradient[last + c] = total
    return value
