# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The log-density in Laplace coordinates and its gradient, compiled.

`pseudo.py` says what the coordinates are and derives the numbers, `layout.py` how they lie in
memory. For a level of a chain term, with P and r what is left of its pseudo-observation after
the levels nested in it are eliminated, B the part of P that joins it to the levels it is itself
nested in, and b_a the effects of those,

    P + Sigma^-1 = L L',    Y = L^-1 B,    y = L^-1 r,    b = L'^-1 (y - Y b_a + z).

A block holds K rows of [L | Y] (see `blocks.py`); a level of a trailing term is the same with
nothing beside it. The effects of a term lie column by column, all levels of one side by side.
The names ending in ``_bar`` are derivatives of the log-density in what they are named after,
gathered from the end of the map to its beginning.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from bayesglmm.families.compiled import add_up, value_and_slope
from bayesglmm.nuts.blocks import (
    copy,
    factorise,
    factorise_bar,
    inner,
    solve_lower,
    solve_upper,
    subtract_product,
    subtract_sums,
    subtract_taken,
)
from bayesglmm.nuts.layout import (
    ROWS,
    floats_of,
    integers_of,
    levels_of,
    room_of,
    sizes_of,
    work_of,
)
from bayesglmm.nuts.scales import (
    bend,
    log_prior_scales,
    natural,
    pull_back,
    straight,
    unpack,
)
from bayesglmm.priors.compiled import log_prior_coefficients

# Of functions that take all named views: to pass them costs more than most of what is done.
_inlined = njit(nogil=True, error_model="numpy", inline="always")

_0 = np.int64(0)  # a literal would be another type, and compile another kernel

# ------------------------------------------------------------------------- from x to (beta, b)


@inner
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


@inner
def _responses(r, C, begin, gamma, raw):
    """raw = r - C gamma; the first effect is number ``begin``."""
    for e in range(len(r)):
        raw[e] = r[e]
    for k in range(len(C)):
        _add_multiple(-gamma[k], C[k, begin : begin + len(r)], raw)


@inner
def _couple(terms, couplings, starts, levels, coupled, b, raw):
    """Take from the chain's responses what the trailing effects explain."""
    for i in range(len(couplings)):
        f, h, start, level, value = couplings[i]
        J, K, first = terms[f, 0], terms[f, 1], terms[f, 2]
        Jh, Kh, first_h = terms[h, 0], terms[h, 1], terms[h, 2]
        size = starts[start + J]
        for a in range(K):
            for c in range(Kh):
                at, own = value + (a * Kh + c) * size, first_h + c * Jh
                values, others = coupled[at : at + size], b[own : own + Jh]
                met, out = levels[level : level + size], raw[first + a * J : first + (a + 1) * J]
                for j in range(J):
                    begin, end = starts[start + j], starts[start + j + 1]
                    if end - begin == Jh:  # it meets all, in order
                        out[j] -= _dot(values[begin:end], others)
                        continue
                    total = 0.0
                    for e in range(begin, end):
                        total += values[e] * others[np.uintp(met[e])]
                    out[j] -= total


@inner
def _factor_terms(terms, ancestors, chain, precision, blocks, y, begin, end):
    """[L | Y] and y of all levels of terms from begin to end; returns log det of all L."""
    total = 0.0
    for f in range(begin, end):
        J, K, first, prior = terms[f, 0], terms[f, 1], terms[f, 2], terms[f, 5]
        at, width, level, left = terms[f, 7], K + terms[f, 6], terms[f, 8], K
        total += factorise(blocks, at, K, width, J, y, first, precision, prior)
        for g in range(f + 1, f + 1 + _later(chain, f)):
            Jg, Kg, first_g, at_g = terms[g, 0], terms[g, 1], terms[g, 2], terms[g, 7]
            wide = Kg + terms[g, 6]
            for k in range(K):
                beside = at + (k * width + left) * J  # columns that belong to g and later ones
                for a in range(Kg):
                    Y, to = beside + a * J, first_g + a * Jg
                    subtract_sums(blocks, Y, y, first + k * J, ancestors, level, J, y, to)
                    for c in range(wide):
                        if c <= a or c >= Kg:
                            Yc, to = beside + c * J, at_g + (a * wide + c) * Jg
                            subtract_sums(blocks, Y, blocks, Yc, ancestors, level, J, blocks, to)
            level += J
            left += Kg
    return total


@inner
def _later(chain, f):
    """Number of chain terms after term f."""
    return max(chain - 1 - f, 0)


@inner
def _effects(terms, ancestors, chain, blocks, y, z, offset, b, begin, end):
    """b of terms from begin to end, outermost first; z of effect e is z[e - offset]."""
    for f in range(end - 1, begin - 1, -1):
        J, K, first = terms[f, 0], terms[f, 1], terms[f, 2]
        at, width, level, left = terms[f, 7], K + terms[f, 6], terms[f, 8], K
        for e in range(first, first + J * K):
            b[np.uintp(e)] = y[np.uintp(e)] + z[np.uintp(e - offset)]
        for g in range(f + 1, f + 1 + _later(chain, f)):
            Jg, Kg, first_g = terms[g, 0], terms[g, 1], terms[g, 2]
            for c in range(Kg):
                for a in range(K):
                    Y, own = at + (a * width + left + c) * J, first_g + c * Jg
                    subtract_taken(blocks, Y, b, own, ancestors, level, J, b, first + a * J)
            level += J
            left += Kg
        solve_upper(blocks, at, K, width, J, b, first)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _dot(a, b):
    total = 0.0
    for k in range(len(a)):
        total += a[k] * b[k]
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _row_times(A, a, x):
    """Row a of the upper triangular A times x."""
    row, rest, total = A[a, a:], x[a:], 0.0
    for k in range(len(row)):
        total += row[k] * rest[k]
    return total


@inner
def _add_row(factor, A, a, out):
    """out += factor times row a of the upper triangular A."""
    row, rest = A[a, a:], out[a:]
    for k in range(len(row)):
        rest[k] += factor * row[k]


@inner
def _add_multiple(factor, x, out):
    for i in range(len(x)):
        out[i] += factor * x[i]


@inner
def _scaled(factor, x, out):
    for i in range(len(x)):
        out[i] = factor * x[i]


@_inlined
def _scale(s, d, m, v):
    """Factors, precisions and blocks of v.t; returns sigma, ratio and log det of the factors."""
    natural(v.t, m.layout, v.natural)
    unpack(v.natural, m.layout, v.factors)
    logdet = _covariances(m.terms, v.factors, v.inverses, v.precision)
    sigma, ratio = 1.0, 1.0
    if s.has_scale:
        sigma = v.natural[s.scales - 1]
        ratio = (d.fixed[0] / sigma) ** 2
    _scaled(ratio, d.blocks, v.blocks)
    return sigma, ratio, logdet


@_inlined
def _eliminate(s, d, m, v, ratio, terms, effects):
    """[L | Y] and y of a range of terms, gamma and all later terms being known.

    Returns log det of all L.
    """
    begin, end = effects
    gamma, raw, y = v.zeta[s.effects - s.leading :], v.raw[begin:end], v.y[begin:end]
    _responses(d.r[begin:end], d.C, begin, gamma, raw)
    if begin < s.leading:
        _couple(m.terms, m.couplings, m.starts, m.levels, d.coupled, v.b, v.raw)
    _scaled(ratio, raw, y)
    return _factor_terms(
        m.terms, m.ancestors, s.chain, v.precision, v.blocks, v.y, terms[0], terms[1]
    )


@_inlined
def _place(s, d, m, v, x):
    """(t, beta, b) of a point; returns sigma, ratio, log det of the factors, log|d(..)/dx|.

    The determinants of the static maps are among the constants.
    """
    last, q = s.effects + s.p, s.effects - s.leading
    jacobian, stretch = 0.0, 1.0
    for a in range(s.scales):
        point = d.t[a] + _dot(d.root[a, : a + 1], x[last:])
        v.t[a], v.along[a], v.turn[a] = bend(point, d.elbows[a])
        stretch *= v.along[a]
        if stretch > 1e100:
            jacobian += math.log(stretch)
            stretch = 1.0
    jacobian += math.log(stretch)
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
    room = np.empty(room_of(ints))
    s, d, m, v = sizes_of(ints), floats_of(ints, data), integers_of(ints), work_of(ints, room)
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
    room = np.empty(room_of(ints))
    s, d, m, v = sizes_of(ints), floats_of(ints, data), integers_of(ints), work_of(ints, room)
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


@inner
def _standardise(terms, ancestors, chain, blocks, y, b, z, offset, begin, end):
    """z = L'b - y + Y b_a, the inverse of `_effects`."""
    for f in range(begin, end):
        J, K, first = terms[f, 0], terms[f, 1], terms[f, 2]
        at, width = terms[f, 7], K + terms[f, 6]
        for a in range(K):
            own = first + a * J
            for j in range(J):
                pivot = blocks[at + (a * width + a) * J + j]
                total, level, left = b[own + j] / pivot - y[own + j], terms[f, 8] + j, K
                for k in range(a + 1, K):
                    total += blocks[at + (k * width + a) * J + j] * b[first + k * J + j]
                for g in range(f + 1, f + 1 + _later(chain, f)):
                    for c in range(terms[g, 1]):
                        met = terms[g, 2] + c * terms[g, 0] + ancestors[level]
                        total += blocks[at + (a * width + left + c) * J + j] * b[met]
                    level += J
                    left += terms[g, 1]
                z[own + j - offset] = total


# --------------------------------------------------------------------------- over the rows


@inner
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
            level = index[f, begin:end]
            for k in range(K):
                own = b[first + k * J : first + (k + 1) * J]
                if terms[f, 4]:
                    for i in range(size):
                        eta[i] += own[np.uintp(level[i])]
                else:
                    column = Z[z + k, begin:end]
                    for i in range(size):
                        eta[i] += column[i] * own[np.uintp(level[i])]
        value_and_slope(code, y[begin:end], w[begin:end], eta, sigma, value, slope)
        total += add_up(value[:size])
        for k in range(len(X)):
            gamma_bar[k] += _dot(X[k, begin:end], slope)
        for f in range(len(terms)):
            J, K, first, z = terms[f, 0], terms[f, 1], terms[f, 2], terms[f, 3]
            level = index[f, begin:end]
            for k in range(K):
                own = b_bar[first + k * J : first + (k + 1) * J]
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
                    column = Z[z + k, begin:end]
                    for i in range(size):
                        own[np.uintp(level[i])] += column[i] * slope[i]
    return total


@inner
def _effects_prior(terms, precision, b, b_bar, precision_bar):
    """sum of log N(b; 0, Sigma) without determinants and constants, with slopes."""
    total = 0.0
    for f in range(len(terms)):
        J, K, first, prior = terms[f, 0], terms[f, 1], terms[f, 2], terms[f, 5]
        for a in range(K):
            own, bar = b[first + a * J : first + (a + 1) * J], b_bar[first + a * J :]
            for c in range(K):
                other, P = b[first + c * J : first + (c + 1) * J], precision[prior + a * K + c]
                product = -0.5 * _dot(own, other)
                total += P * product
                precision_bar[prior + a * K + c] += product
                _add_multiple(-P, other, bar)
    return total


# ------------------------------------------------------------------------------ and backwards


@inner
def _effects_bar(
    terms, ancestors, chain, blocks, b, b_bar, r_bar, blocks_bar, z_bar, offset, begin, end
):
    """Back through `_effects`: innermost first. Sets z_bar, r_bar (of y) and blocks_bar."""
    for f in range(begin, end):
        J, K, first = terms[f, 0], terms[f, 1], terms[f, 2]
        at, width, level, left = terms[f, 7], K + terms[f, 6], terms[f, 8], K
        copy(b_bar, first, J * K, r_bar, first)
        solve_lower(blocks, at, K, width, J, r_bar, first)
        copy(r_bar, first, J * K, z_bar, first - offset)
        for a in range(K):
            row, pivot = at + a * width * J, at + (a * width + a) * J
            for e in range(row, row + a * J):
                blocks_bar[np.uintp(e)] = 0.0
            for j in range(J):
                blocks_bar[np.uintp(pivot + j)] = -blocks[np.uintp(pivot + j)]
            for e in range(row + K * J, row + width * J):
                blocks_bar[np.uintp(e)] = 0.0
            for c in range(a + 1):
                own = row + c * J
                subtract_product(b, first + a * J, r_bar, first + c * J, J, blocks_bar, own)
        for g in range(f + 1, f + 1 + _later(chain, f)):
            Jg, Kg, first_g = terms[g, 0], terms[g, 1], terms[g, 2]
            for c in range(Kg):
                to = first_g + c * Jg
                for a in range(K):
                    Y, r = at + (a * width + left + c) * J, first + a * J
                    subtract_taken(r_bar, r, b, to, ancestors, level, J, blocks_bar, Y)
                    subtract_sums(blocks, Y, r_bar, r, ancestors, level, J, b_bar, to)
            level += J
            left += Kg


@inner
def _factor_terms_bar(
    terms, ancestors, chain, blocks, y, r_bar, blocks_bar, precision_bar, scratch, begin, end
):
    """Back through `_factor_terms`: outermost first.

    r_bar becomes that of r, blocks_bar that of P; adds to precision_bar.
    """
    for f in range(end - 1, begin - 1, -1):
        J, K, first, prior = terms[f, 0], terms[f, 1], terms[f, 2], terms[f, 5]
        at, width, level, left = terms[f, 7], K + terms[f, 6], terms[f, 8], K
        for g in range(f + 1, f + 1 + _later(chain, f)):
            Jg, Kg, first_g, at_g = terms[g, 0], terms[g, 1], terms[g, 2], terms[g, 7]
            wide = Kg + terms[g, 6]
            for k in range(K):
                beside, own = at + (k * width + left) * J, first + k * J
                for a in range(Kg):
                    Y, r = beside + a * J, first_g + a * Jg
                    subtract_taken(y, own, r_bar, r, ancestors, level, J, blocks_bar, Y)
                    subtract_taken(blocks, Y, r_bar, r, ancestors, level, J, r_bar, own)
                    for c in range(wide):
                        Yc, to = beside + c * J, at_g + (a * wide + c) * Jg
                        subtract_taken(
                            blocks, Yc, blocks_bar, to, ancestors, level, J, blocks_bar, Y
                        )
                        subtract_taken(
                            blocks, Y, blocks_bar, to, ancestors, level, J, blocks_bar, Yc
                        )
            level += J
            left += Kg
        solve_upper(blocks, at, K, width, J, r_bar, first)
        for a in range(K):
            for c in range(a + 1):
                own = at + (a * width + c) * J
                subtract_product(r_bar, first + a * J, y, first + c * J, J, blocks_bar, own)
        factorise_bar(blocks, at, K, width, J, blocks_bar, scratch)
        for a in range(K):
            for c in range(K):
                own = at + (a * width + c) * J
                precision_bar[prior + a * K + c] += add_up(blocks_bar[own : own + J])


@inner
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


@inner
def _couple_bar(terms, couplings, starts, levels, coupled, r_bar, b_bar):
    for i in range(len(couplings)):
        f, h, start, level, value = couplings[i]
        J, K, first = terms[f, 0], terms[f, 1], terms[f, 2]
        Jh, Kh, first_h = terms[h, 0], terms[h, 1], terms[h, 2]
        size = starts[start + J]
        for a in range(K):
            for c in range(Kh):
                at, own = value + (a * Kh + c) * size, first_h + c * Jh
                values, others = coupled[at : at + size], b_bar[own : own + Jh]
                met, bar = levels[level : level + size], r_bar[first + a * J : first + (a + 1) * J]
                for j in range(J):
                    begin, end, pull = starts[start + j], starts[start + j + 1], bar[j]
                    if end - begin == Jh:
                        _add_multiple(-pull, values[begin:end], others)
                        continue
                    for e in range(begin, end):
                        others[np.uintp(met[e])] -= values[e] * pull


@inner
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
    return log_density_in(ints, index, data, np.empty(room_of(ints)), x, gradient)


@njit(cache=True, nogil=True, error_model="numpy")
def log_density_in(ints, index, data, room, x, gradient):
    """The same in given room (see `layout.room_of`)."""
    s, d, m, v = sizes_of(ints), floats_of(ints, data), integers_of(ints), work_of(ints, room)
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
        v.t, v.natural, m.layout, m.scale_codes, d.scale_priors, d.etas, v.t_bar
    )
    for a in range(s.p):
        _add_multiple(v.beta_bar[a], d.back[a], gamma_bar)

    ratio_bar = _eliminate_bar(
        s, d, m, v, ratio, gradient, gamma_bar, (_0, s.chain), (_0, s.leading)
    )
    _couple_bar(m.terms, m.couplings, m.starts, m.levels, d.coupled, v.r_bar, v.b_bar)
    trailing, effects = (s.chain, s.terms), (s.leading, s.effects)
    ratio_bar += _eliminate_bar(s, d, m, v, ratio, v.zeta_bar, gamma_bar, trailing, effects)
    _covariances_bar(m.terms, v.inverses, v.precision, v.precision_bar, v.scratch)
    pull_back(v.natural, m.layout, v.factors, v.precision_bar, v.t_bar)
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


@_inlined
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
