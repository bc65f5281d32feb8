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
from functools import partial

import numpy as np
from numba import njit

from bayesglmm.families.compiled import add_up, value_and_slope
from bayesglmm.nuts.layout import ROWS, floats_of, integers_of, levels_of, sizes_of, work_of
from bayesglmm.nuts.scales import bend, log_prior_scales, pull_back, straight, unpack
from bayesglmm.priors.compiled import log_prior_coefficients

# Called from kernels only: without an entry from Python they compile much faster.
_inner = partial(
    njit,
    cache=True,
    nogil=True,
    error_model="numpy",
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
)()
_0 = np.int64(0)  # a literal would be another type, and compile another kernel

# --------------------------------------------------------------------------- one K x K block


@_inner
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


@_inner
def _solve_lower(blocks, at, K, width, v, first):
    """v = L^-1 v for K entries from ``first``."""
    for a in range(K):
        total = v[first + a]
        for k in range(a):
            total -= blocks[at + a * width + k] * v[first + k]
        v[first + a] = total * blocks[at + a * width + a]


@_inner
def _solve_upper(blocks, at, K, width, v, first):
    """v = L'^-1 v."""
    for a in range(K - 1, -1, -1):
        total = v[first + a]
        for k in range(a + 1, K):
            total -= blocks[at + k * width + a] * v[first + k]
        v[first + a] = total * blocks[at + a * width + a]


@_inner
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


@_inner
def _covariances(terms, factors, inverses, precision):
    """Precisions of all terms and inverses of their factors; returns sum of J log det factor."""
    total = 0.0
    for f in range(len(terms)):
        J, K, place = terms[f, 0], terms[f, 1], terms[f, 5]
        for a in range(K):
            total += J * math.log(factors[place + a * K + a])
            for c in range(K):
                inverses[place + a * K + c] = 0.0
            inverses[place + a * K + a] = 1.0 / factors[place + a * K + a]
            for c in range(a):
                value = 0.0
                for k in range(c, a):
                    value -= factors[place + a * K + k] * inverses[place + k * K + c]
                inverses[place + a * K + c] = value * inverses[place + a * K + a]
        for a in range(K):
            for c in range(K):
                value = 0.0
                for k in range(max(a, c), K):
                    value += inverses[place + k * K + a] * inverses[place + k * K + c]
                precision[place + a * K + c] = value
    return total


@_inner
def _responses(r, C, begin, gamma, raw):
    """raw = r - C gamma; the first effect is number ``begin``."""
    for e in range(len(r)):
        raw[e] = r[e]
    for k in range(len(C)):
        _add_multiple(-gamma[k], C[k, begin : begin + len(r)], raw)


@_inner
def _couple(terms, couplings, starts, levels, coupled, b, raw):
    """Take from the chain's responses what the trailing effects explain."""
    for i in range(len(couplings)):
        f, h, start, level, value = couplings[i]
        J, K, first = terms[f, 0], terms[f, 1], terms[f, 2]
        Kh, first_h = terms[h, 1], terms[h, 2]
        if K == 1 and Kh == 1:
            own, values, others = b[first_h:], coupled[value:], levels[level:]
            for j in range(J):
                begin, end = starts[start + j], starts[start + j + 1]
                if end - begin == terms[h, 0]:  # it meets all, in order
                    raw[first + j] -= _dot(values[begin:end], own)
                    continue
                total = 0.0
                for e in range(begin, end):
                    total += values[e] * own[np.uintp(others[e])]
                raw[first + j] -= total
            continue
        for j in range(J):
            for e in range(starts[start + j], starts[start + j + 1]):
                at, to = value + e * K * Kh, first_h + levels[level + e] * Kh
                for a in range(K):
                    total = 0.0
                    for c in range(Kh):
                        total += coupled[at + a * Kh + c] * b[to + c]
                    raw[first + j * K + a] -= total


@_inner
def _log_product(inverses, step):
    """Minus the sum of logarithms of every ``step``-th element, with few of them."""
    total, product = 0.0, 1.0
    for j in range(0, len(inverses), step):
        product *= inverses[j]
        if not 1e-100 < product < 1e100:
            total -= math.log(product)
            product = 1.0
    return total - math.log(product)


@_inner
def _factor_terms(terms, ancestors, chain, precision, blocks, y, begin, end):
    """[L | Y] and y of all levels of terms from begin to end; returns log det of all L."""
    total = 0.0
    for f in range(begin, end):
        J, K, first = terms[f, 0], terms[f, 1], terms[f, 2]
        prior, M, place = terms[f, 5], terms[f, 6], terms[f, 7]
        ancestor = terms[f, 8]
        width = K + M
        if K == 1 and M == 0:
            own, response = blocks[place : place + J], y[first : first + J]
            added = precision[prior]
            for j in range(J):
                own[j] = 1.0 / math.sqrt(own[j] + added)
                response[j] *= own[j]
            total += _log_product(own, width)
            continue
        if K == 1 and M == 1:
            own, response = blocks[place : place + 2 * J], y[first : first + J]
            above = blocks[terms[f + 1, 7] :]
            response_above, parent = y[terms[f + 1, 2] :], ancestors[ancestor : ancestor + J]
            added = precision[prior]
            for j in range(J):
                inverse = 1.0 / math.sqrt(own[2 * j] + added)
                own[2 * j] = inverse
                own[2 * j + 1] *= inverse
                response[j] *= inverse
            for j in range(J):
                Y = own[2 * j + 1]
                above[parent[j]] -= Y * Y
                response_above[parent[j]] -= Y * response[j]
            total += _log_product(own, width)
            continue
        for j in range(J):
            at = place + j * K * width
            for a in range(K):
                for c in range(K):
                    blocks[at + a * width + c] += precision[prior + a * K + c]
            total += _factor_block(blocks, at, K, width)
            _solve_lower(blocks, at, K, width, y, first + j * K)
            left = K  # columns that belong to the next ancestor
            for g in range(f + 1, f + 1 + _later(chain, f)):
                Kg, Mg = terms[g, 1], terms[g, 6]
                level = ancestors[ancestor + (g - f - 1) * J + j]
                to, wide = terms[g, 7] + level * Kg * (Kg + Mg), Kg + Mg
                for a in range(Kg):
                    for c in range(wide):
                        value = 0.0
                        for k in range(K):
                            row = at + k * width + left
                            value += blocks[row + a] * blocks[row + c]
                        blocks[to + a * wide + c] -= value
                    value = 0.0
                    for k in range(K):
                        value += blocks[at + k * width + left + a] * y[first + j * K + k]
                    y[terms[g, 2] + level * Kg + a] -= value
                left += Kg
    return total


@_inner
def _later(chain, f):
    """Number of chain terms after term f."""
    return max(chain - 1 - f, 0)


@_inner
def _effects(terms, ancestors, chain, blocks, y, z, offset, b, begin, end):
    """b of terms from begin to end, outermost first; z of effect e is z[e - offset]."""
    for f in range(end - 1, begin - 1, -1):
        J, K, first = terms[f, 0], terms[f, 1], terms[f, 2]
        M, place, ancestor = terms[f, 6], terms[f, 7], terms[f, 8]
        width = K + M
        if K == 1 and M == 0:
            for j in range(first, first + J):
                b[j] = (y[j] + z[j - offset]) * blocks[place + j - first]
            continue
        if K == 1 and M == 1:
            first_g = terms[f + 1, 2]
            for j in range(J):
                at = place + 2 * j
                above = blocks[at + 1] * b[first_g + ancestors[ancestor + j]]
                b[first + j] = (y[first + j] - above + z[first + j - offset]) * blocks[at]
            continue
        for j in range(J):
            at, e = place + j * K * width, first + j * K
            for a in range(K):
                b[e + a] = y[e + a] + z[e + a - offset]
            left = K
            for g in range(f + 1, f + 1 + _later(chain, f)):
                Kg = terms[g, 1]
                to = terms[g, 2] + ancestors[ancestor + (g - f - 1) * J + j] * Kg
                for a in range(K):
                    for c in range(Kg):
                        b[e + a] -= blocks[at + a * width + left + c] * b[to + c]
                left += Kg
            _solve_upper(blocks, at, K, width, b, e)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _dot(a, b):
    total = 0.0
    for k in range(len(a)):
        total += a[k] * b[k]
    return total


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _row_times(A, a, x):
    """Row a of the upper triangular A times x."""
    row, rest, total = A[a, a:], x[a:], 0.0
    for k in range(len(row)):
        total += row[k] * rest[k]
    return total


@_inner
def _add_row(factor, A, a, out):
    """out += factor times row a of the upper triangular A."""
    row, rest = A[a, a:], out[a:]
    for k in range(len(row)):
        rest[k] += factor * row[k]


@_inner
def _add_multiple(factor, x, out):
    for i in range(len(x)):
        out[i] += factor * x[i]


@_inner
def _scale(s, d, m, v):
    """Factors, precisions and blocks of v.t; returns sigma, ratio and log det of the factors."""
    unpack(v.t, m.layout, v.factors)
    logdet = _covariances(m.terms, v.factors, v.inverses, v.precision)
    sigma, ratio = 1.0, 1.0
    if s.has_scale:
        sigma = math.exp(v.t[s.scales - 1])
        ratio = (d.fixed[0] / sigma) ** 2
    for e in range(s.blocks):
        v.blocks[e] = ratio * d.blocks[e]
    return sigma, ratio, logdet


@_inner
def _eliminate(s, d, m, v, ratio, terms, effects):
    """[L | Y] and y of a range of terms, gamma and all later terms being known.

    Returns log det of all L.
    """
    begin, end = effects
    gamma, raw, y = v.zeta[s.effects - s.leading :], v.raw[begin:end], v.y[begin:end]
    _responses(d.r[begin:end], d.C, begin, gamma, raw)
    if begin < s.leading:
        _couple(m.terms, m.couplings, m.starts, m.levels, d.coupled, v.b, v.raw)
    for e in range(len(y)):
        y[e] = ratio * raw[e]
    return _factor_terms(
        m.terms, m.ancestors, s.chain, v.precision, v.blocks, v.y, terms[0], terms[1]
    )


@_inner
def _place(s, d, m, v, x):
    """(t, beta, b) of a point; returns sigma, ratio, log det of the factors, log|d(..)/dx|.

    The determinants of the static maps are among the constants.
    """
    last, q = s.effects + s.p, s.effects - s.leading
    jacobian = 0.0
    for a in range(s.scales):
        point = d.t[a] + _dot(d.root[a, : a + 1], x[last:])
        v.t[a], v.along[a], v.turn[a] = bend(point, d.elbows[a])
        jacobian += math.log(v.along[a])
    sigma, ratio, logdet = _scale(s, d, m, v)
    epsilon = x[s.leading : last]
    for a in range(q + s.p):
        v.zeta[a] = _row_times(d.A, a, epsilon)
    for a in range(s.p):
        v.beta[a] = d.beta[a] + _dot(d.back[a], v.zeta[q:])
    trailing, chain = (s.chain, s.terms), (_0, s.chain)
    jacobian -= _eliminate(s, d, m, v, ratio, trailing, (s.leading, s.effects))
    _effects(m.terms, m.ancestors, s.chain, v.blocks, v.y, v.zeta, s.leading, v.b, *trailing)
    jacobian -= _eliminate(s, d, m, v, ratio, chain, (_0, s.leading))
    _effects(m.terms, m.ancestors, s.chain, v.blocks, v.y, x, _0, v.b, *chain)
    return sigma, ratio, logdet, jacobian


@njit(cache=True, nogil=True, error_model="numpy")
def positions(ints, index, data, xs, ts, betas, bs):
    """(t, beta, b) of every row of xs (m, size)."""
    s, d, m, v = sizes_of(ints), floats_of(ints, data), integers_of(ints), work_of(ints)
    for i in range(len(xs)):
        _place(s, d, m, v, xs[i])
        for a in range(s.scales):
            ts[i, a] = v.t[a]
        for a in range(s.p):
            betas[i, a] = v.beta[a]
        for a in range(s.effects):
            bs[i, a] = v.b[a]


@njit(cache=True, nogil=True, error_model="numpy")
def coordinates(ints, index, data, ts, gammas, bs, xs):
    """The inverse: xs (m, size) of every (t, gamma, b)."""
    s, d, m, v = sizes_of(ints), floats_of(ints, data), integers_of(ints), work_of(ints)
    last, q = s.effects + s.p, s.effects - s.leading
    size = q + s.p
    trailing, chain = (s.chain, s.terms), (_0, s.chain)
    for i in range(len(xs)):
        x = xs[i]
        for a in range(s.scales):
            v.t[a] = ts[i, a]
            left = straight(v.t[a], d.elbows[a]) - d.t[a] - _dot(d.root[a, :a], x[last:])
            x[last + a] = left / d.root[a, a]
        for a in range(s.p):
            v.zeta[q + a] = gammas[i, a]
        for a in range(s.effects):
            v.b[a] = bs[i, a]
        ratio = _scale(s, d, m, v)[1]
        _eliminate(s, d, m, v, ratio, trailing, (s.leading, s.effects))
        _standardise(
            m.terms, m.ancestors, s.chain, v.blocks, v.y, v.b, v.zeta, s.leading, *trailing
        )
        _eliminate(s, d, m, v, ratio, chain, (_0, s.leading))
        _standardise(m.terms, m.ancestors, s.chain, v.blocks, v.y, v.b, x, _0, *chain)
        epsilon = x[s.leading : last]
        for a in range(size - 1, -1, -1):
            epsilon[a] = 0.0
            epsilon[a] = (v.zeta[a] - _row_times(d.A, a, epsilon)) / d.A[a, a]


@_inner
def _standardise(terms, ancestors, chain, blocks, y, b, z, offset, begin, end):
    """z = L'b - y + Y b_a, the inverse of `_effects`."""
    for f in range(begin, end):
        J, K, first = terms[f, 0], terms[f, 1], terms[f, 2]
        M, place, ancestor = terms[f, 6], terms[f, 7], terms[f, 8]
        width = K + M
        for j in range(J):
            at, e = place + j * K * width, first + j * K
            for a in range(K):
                total = b[e + a] / blocks[at + a * width + a] - y[e + a]
                for k in range(a + 1, K):
                    total += blocks[at + k * width + a] * b[e + k]
                left = K
                for g in range(f + 1, f + 1 + _later(chain, f)):
                    Kg = terms[g, 1]
                    to = terms[g, 2] + ancestors[ancestor + (g - f - 1) * J + j] * Kg
                    for c in range(Kg):
                        total += blocks[at + a * width + left + c] * b[to + c]
                    left += Kg
                z[e + a - offset] = total


# --------------------------------------------------------------------------- over the rows


@_inner
def _rows(
    code, y, w, fixed, X, Z, terms, index, gamma, b, sigma, eta, value, slope, gamma_bar, b_bar
):
    """Log-likelihood; its slopes in b and gamma are added to b_bar and gamma_bar."""
    total, n = 0.0, len(y)
    for begin in range(0, n, ROWS):
        end = min(begin + ROWS, n)
        size = end - begin
        for i in range(size):
            eta[i] = fixed[begin + i]
        for k in range(len(X)):
            _add_multiple(gamma[k], X[k, begin:end], eta)
        for f in range(len(terms)):
            J, K, first, z = terms[f, 0], terms[f, 1], terms[f, 2], terms[f, 3]
            level, own = index[f, begin:end], b[first : first + J * K]
            if terms[f, 4]:
                for i in range(size):
                    eta[i] += own[np.uintp(level[i])]
            else:
                for k in range(K):
                    column = Z[z + k, begin:end]
                    for i in range(size):
                        eta[i] += column[i] * own[np.uintp(level[i] * K + k)]
        value_and_slope(code, y[begin:end], w[begin:end], eta, sigma, value, slope)
        total += add_up(value[:size])
        for k in range(len(X)):
            gamma_bar[k] += _dot(X[k, begin:end], slope)
        for f in range(len(terms)):
            J, K, first, z = terms[f, 0], terms[f, 1], terms[f, 2], terms[f, 3]
            level, own = index[f, begin:end], b_bar[first : first + J * K]
            if terms[f, 4] == 2:
                at, summed = level[0], 0.0
                for i in range(size):
                    if level[i] != at:
                        own[at] += summed
                        at, summed = level[i], 0.0
                    summed += slope[i]
                own[at] += summed
            elif terms[f, 4] == 1:
                for i in range(size):
                    own[np.uintp(level[i])] += slope[i]
            else:
                for k in range(K):
                    column = Z[z + k, begin:end]
                    for i in range(size):
                        own[np.uintp(level[i] * K + k)] += column[i] * slope[i]
    return total


@_inner
def _effects_prior(terms, precision, b, b_bar, precision_bar):
    """sum of log N(b; 0, Sigma) without determinants and constants, with slopes."""
    total = 0.0
    for f in range(len(terms)):
        J, K, first, prior = terms[f, 0], terms[f, 1], terms[f, 2], terms[f, 5]
        if K == 1:
            squares, inverse = 0.0, precision[prior]
            for e in range(first, first + J):
                squares += b[e] * b[e]
                b_bar[e] -= inverse * b[e]
            total -= 0.5 * inverse * squares
            precision_bar[prior] -= 0.5 * squares
            continue
        for j in range(J):
            e = first + j * K
            for a in range(K):
                pull = 0.0
                for c in range(K):
                    pull += precision[prior + a * K + c] * b[e + c]
                    precision_bar[prior + a * K + c] -= 0.5 * b[e + a] * b[e + c]
                total -= 0.5 * b[e + a] * pull
                b_bar[e + a] -= pull
    return total


# ------------------------------------------------------------------------------ and backwards


@_inner
def _effects_bar(
    terms, ancestors, chain, blocks, b, b_bar, r_bar, blocks_bar, z_bar, offset, begin, end
):
    """Back through `_effects`: innermost first. Sets z_bar, r_bar (of y) and blocks_bar."""
    for f in range(begin, end):
        J, K, first = terms[f, 0], terms[f, 1], terms[f, 2]
        M, place, ancestor = terms[f, 6], terms[f, 7], terms[f, 8]
        width = K + M
        if K == 1 and M == 0:
            for j in range(first, first + J):
                inverse = blocks[place + j - first]
                pull = b_bar[j] * inverse
                blocks_bar[place + j - first] = -b[j] * pull - inverse
                r_bar[j] = pull
                z_bar[j - offset] = pull
            continue
        if K == 1 and M == 1:
            first_g = terms[f + 1, 2]
            for j in range(J):
                at, e = place + 2 * j, first + j
                g = first_g + ancestors[ancestor + j]
                inverse = blocks[at]
                pull = b_bar[e] * inverse
                blocks_bar[at] = -b[e] * pull - inverse
                blocks_bar[at + 1] = -pull * b[g]
                b_bar[g] -= blocks[at + 1] * pull
                r_bar[e] = pull
                z_bar[e - offset] = pull
            continue
        for j in range(J):
            at, e = place + j * K * width, first + j * K
            for a in range(K):
                r_bar[e + a] = b_bar[e + a]
            _solve_lower(blocks, at, K, width, r_bar, e)
            for a in range(K):
                z_bar[e + a - offset] = r_bar[e + a]
                for c in range(a + 1):
                    blocks_bar[at + a * width + c] = -b[e + a] * r_bar[e + c]
                blocks_bar[at + a * width + a] -= blocks[at + a * width + a]
            left = K
            for g in range(f + 1, f + 1 + _later(chain, f)):
                Kg = terms[g, 1]
                to = terms[g, 2] + ancestors[ancestor + (g - f - 1) * J + j] * Kg
                for a in range(K):
                    row = at + a * width + left
                    for c in range(Kg):
                        blocks_bar[row + c] = -r_bar[e + a] * b[to + c]
                        b_bar[to + c] -= blocks[row + c] * r_bar[e + a]
                left += Kg


@_inner
def _factor_terms_bar(
    terms, ancestors, chain, blocks, y, r_bar, blocks_bar, precision_bar, scratch, begin, end
):
    """Back through `_factor_terms`: outermost first.

    r_bar becomes that of r, blocks_bar that of P; adds to precision_bar.
    """
    for f in range(end - 1, begin - 1, -1):
        J, K, first = terms[f, 0], terms[f, 1], terms[f, 2]
        prior, M, place = terms[f, 5], terms[f, 6], terms[f, 7]
        ancestor = terms[f, 8]
        width = K + M
        if K == 1 and M == 0:
            total = 0.0
            for j in range(J):
                inverse = blocks[place + j]
                pull = r_bar[first + j] * inverse
                r_bar[first + j] = pull
                bar = 0.5 * inverse * (blocks_bar[place + j] - pull * y[first + j])
                blocks_bar[place + j] = bar
                total += bar
            precision_bar[prior] += total
            continue
        if K == 1 and M == 1:
            total = 0.0
            first_g, place_g = terms[f + 1, 2], terms[f + 1, 7]
            for j in range(J):
                at, e = place + 2 * j, first + j
                g = ancestors[ancestor + j]
                inverse, Y, own = blocks[at], blocks[at + 1], y[e]
                above, r_above = blocks_bar[place_g + g], r_bar[first_g + g]
                beside = (blocks_bar[at + 1] - 2.0 * Y * above - own * r_above) * inverse
                pull = (r_bar[e] - Y * r_above) * inverse
                bar = 0.5 * inverse * (blocks_bar[at] - beside * Y - pull * own)
                blocks_bar[at], blocks_bar[at + 1], r_bar[e] = bar, beside, pull
                total += bar
            precision_bar[prior] += total
            continue
        for j in range(J):
            at, e = place + j * K * width, first + j * K
            left = K
            for g in range(f + 1, f + 1 + _later(chain, f)):
                Kg, wide = terms[g, 1], terms[g, 1] + terms[g, 6]
                level = ancestors[ancestor + (g - f - 1) * J + j]
                to, r_to = terms[g, 7] + level * Kg * wide, terms[g, 2] + level * Kg
                for k in range(K):
                    row = at + k * width + left
                    own, y_bar = y[e + k], r_bar[e + k]
                    for a in range(Kg):
                        bar = -own * r_bar[r_to + a]
                        y_bar -= blocks[row + a] * r_bar[r_to + a]
                        for c in range(wide):
                            above = blocks_bar[to + a * wide + c]
                            bar -= blocks[row + c] * above
                            blocks_bar[row + c] -= blocks[row + a] * above
                        blocks_bar[row + a] += bar
                    r_bar[e + k] = y_bar
                left += Kg
            _solve_upper(blocks, at, K, width, r_bar, e)
            for a in range(K):
                for c in range(a + 1):
                    blocks_bar[at + a * width + c] -= r_bar[e + a] * y[e + c]
            _factor_block_bar(blocks, blocks_bar, at, K, width, scratch)
            for a in range(K):
                for c in range(K):
                    precision_bar[prior + a * K + c] += blocks_bar[at + a * width + c]


@_inner
def _responses_bar(C, begin, raw, ratio, r_bar, gamma_bar):
    """Back through y = ratio (r - C gamma); r_bar becomes that of the bracket.

    Returns the derivative in the ratio.
    """
    total = _dot(r_bar, raw)
    for e in range(len(r_bar)):
        r_bar[e] *= ratio
    for k in range(len(C)):
        gamma_bar[k] -= _dot(C[k, begin : begin + len(r_bar)], r_bar)
    return total


@_inner
def _couple_bar(terms, couplings, starts, levels, coupled, r_bar, b_bar):
    for i in range(len(couplings)):
        f, h, start, level, value = couplings[i]
        J, K, first = terms[f, 0], terms[f, 1], terms[f, 2]
        Kh, first_h = terms[h, 1], terms[h, 2]
        if K == 1 and Kh == 1:
            own, values, others = b_bar[first_h:], coupled[value:], levels[level:]
            for j in range(J):
                begin, end, pull = starts[start + j], starts[start + j + 1], r_bar[first + j]
                if end - begin == terms[h, 0]:
                    _add_multiple(-pull, values[begin:end], own)
                    continue
                for e in range(begin, end):
                    own[np.uintp(others[e])] -= values[e] * pull
            continue
        for j in range(J):
            for e in range(starts[start + j], starts[start + j + 1]):
                at, to = value + e * K * Kh, first_h + levels[level + e] * Kh
                for a in range(K):
                    pull = r_bar[first + j * K + a]
                    for c in range(Kh):
                        b_bar[to + c] -= coupled[at + a * Kh + c] * pull


@_inner
def _covariances_bar(terms, inverses, precision, precision_bar, scratch):
    """From precision_bar to the slopes in the factors, in place: -2 Sigma^-1 P_bar F'^-1."""
    for f in range(len(terms)):
        J, K, place = terms[f, 0], terms[f, 1], terms[f, 5]
        for a in range(K):  # P_bar F'^-1
            for c in range(K):
                total = 0.0
                for k in range(c + 1):
                    total += precision_bar[place + a * K + k] * inverses[place + c * K + k]
                scratch[a * K + c] = total
        for a in range(K):
            for c in range(a + 1):
                total = 0.0
                for k in range(K):
                    total += precision[place + a * K + k] * scratch[k * K + c]
                precision_bar[place + a * K + c] = -2.0 * total
            precision_bar[place + a * K + a] -= J * inverses[place + a * K + a]


@njit(cache=True, nogil=True, error_model="numpy")
def log_density(ints, index, data, x, gradient):
    """The log-density at x, normalising constants included; fills ``gradient``."""
    s, d, m, v = sizes_of(ints), floats_of(ints, data), integers_of(ints), work_of(ints)
    last, q = s.effects + s.p, s.effects - s.leading
    sigma, ratio, logdet, jacobian = _place(s, d, m, v, x)
    gamma, gamma_bar = v.zeta[q:], v.zeta_bar[q:]
    value = _rows(
        *(s.code, d.y, d.w, d.eta, d.X, d.Z, m.terms, levels_of(ints, index), gamma, v.b, sigma),
        *(v.eta, v.value, v.slope, gamma_bar, v.b_bar),
    )
    if s.has_scale:
        v.t_bar[s.scales - 1] -= 2.0 * value + s.n
        value -= s.n * v.t[s.scales - 1]
    value += jacobian - logdet + d.fixed[1]
    value += _effects_prior(m.terms, v.precision, v.b, v.b_bar, v.precision_bar)
    value += log_prior_coefficients(
        v.beta, d.means, s.intercept, m.beta_codes, d.beta_priors, v.beta_bar
    )
    value += log_prior_scales(
        v.t, m.layout, m.scale_codes, d.scale_priors, d.etas, s.has_scale == 1, v.t_bar
    )
    for a in range(s.p):
        _add_multiple(v.beta_bar[a], d.back[a], gamma_bar)

    ratio_bar = _eliminate_bar(
        s, d, m, v, ratio, gradient, gamma_bar, (_0, s.chain), (_0, s.leading)
    )
    _couple_bar(m.terms, m.couplings, m.starts, m.levels, d.coupled, v.r_bar, v.b_bar)
    ratio_bar += _eliminate_bar(
        *(s, d, m, v, ratio, v.zeta_bar, gamma_bar, (s.chain, s.terms), (s.leading, s.effects))
    )
    _covariances_bar(m.terms, v.inverses, v.precision, v.precision_bar, v.scratch)
    pull_back(v.t, m.layout, v.factors, v.precision_bar, v.t_bar)
    if s.has_scale:
        ratio_bar += _dot(d.blocks, v.blocks_bar)
        v.t_bar[s.scales - 1] -= 2.0 * ratio * ratio_bar
    epsilon_bar = gradient[s.leading : last]
    for a in range(q + s.p):
        epsilon_bar[a] = 0.0
    for a in range(q + s.p):
        _add_row(v.zeta_bar[a], d.A, a, epsilon_bar)
    for c in range(s.scales):
        total = 0.0
        for a in range(c, s.scales):
            total += d.root[a, c] * (v.along[a] * v.t_bar[a] + v.turn[a])
        gradient[last + c] = total
    return value


@_inner
def _eliminate_bar(s, d, m, v, ratio, z_bar, gamma_bar, terms, effects):
    """Back through the effects of a range of terms and `_eliminate`; returns the ratio's part."""
    _effects_bar(
        *(m.terms, m.ancestors, s.chain, v.blocks, v.b, v.b_bar, v.r_bar, v.blocks_bar),
        *(z_bar, effects[0], terms[0], terms[1]),
    )
    _factor_terms_bar(
        *(m.terms, m.ancestors, s.chain, v.blocks, v.y, v.r_bar, v.blocks_bar),
        *(v.precision_bar, v.scratch, terms[0], terms[1]),
    )
    begin, end = effects
    return _responses_bar(d.C, begin, v.raw[begin:end], ratio, v.r_bar[begin:end], gamma_bar)
