# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Compiled density of the covariance parameters of a Gaussian model, and draws of the rest.

Of several terms, or none; of a single one see `alone_kernels`, which shares what is small here.

Arguments shared by all: ``s`` is ``Structure.arrays`` (see `laplace/structure.py`); ``c`` are the
arrays of ``Scales.arrays``, and ``d`` the cross-products, both of `marginal.Integrated`. The
residual sd is always there: the last element of t is its log.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from bayesglmm.laplace import kernels
from bayesglmm.nuts.dense import backward, cholesky, forward, inverse
from bayesglmm.nuts.scales import bend, log_prior_scales, natural, pull_back, unpack

# Of the logs of standard deviations: far outside of what any data say, and no overflow.
FARTHEST = 100.0


@njit(cache=True, nogil=True, error_model="numpy")
def relative(terms, layout, order, inverse_lifts, factors, sigma, lam):
    """Lambda = T^-1 factor / sigma in order of elimination."""
    at = 0
    for f in range(len(order)):
        K, place = terms[f, 1], layout[order[f], 3]
        for a in range(K):
            for b in range(K):
                total = 0.0
                for k in range(b, a + 1):
                    total += inverse_lifts[at + a * K + k] * factors[place + k * K + b]
                lam[at + a * K + b] = total / sigma
        at += K * K


@njit(cache=True, nogil=True, error_model="numpy")
def _factorise(s, d, lam, H, S, R, fixed):
    """H and its trailing part S factorised, and R = L^-1 Lambda'Z'W[X r].

    R'R is taken from ``fixed`` (p + 1, p + 1). Returns log det H, NaN where something is not
    positive definite.
    """
    dense, W, zx = d[2], d[3], d[4]
    q, m = len(S), R.shape[1]
    if len(s[0]) == 0:
        return 0.0
    logdet = kernels.assemble(s, lam, W, H)
    if math.isnan(logdet):
        return logdet
    if q:
        cross = s[8]
        X = np.empty(len(cross[2]))
        kernels.take(cross, H, X)
        kernels.fill_blocks(s, H, S)
        if dense[0]:
            wide = np.empty((len(zx) - q, q))
            kernels.spread(cross, X, wide)
            S -= wide.T @ wide
        else:
            kernels.subtract_squares(cross, X, S, 0, q)
        for i in range(q):
            for j in range(i):
                S[j, i] = S[i, j]
        if not cholesky(S):
            return math.nan
        for i in range(q):
            logdet += 2.0 * math.log(S[i, i])
    kernels.scale_sums(s, lam, zx, R)
    kernels.solve_down(s, H, R)
    forward(S, len(R) - q, R)
    for i in range(len(R)):
        for a in range(m):
            for b in range(m):
                fixed[a, b] -= R[i, a] * R[i, b]
    return logdet


@njit(cache=True, nogil=True, error_model="numpy")
def _slopes(s, d, lam, H, S, R, weight, slopes):
    """Half the derivative of log det H in Lambda, and ``weight``'s of the Schur complement.

    R, as `_factorise` left it, becomes H^-1 Lambda'Z'W[X r].
    """
    W, zx = d[3], d[4]
    q, m, cross = len(S), R.shape[1], s[8]
    Sinv, E = np.empty((q, q)), np.empty(len(H))
    if q:
        inverse(S, Sinv)
        X, V = np.empty(len(cross[2])), np.empty(len(cross[2]))
        kernels.take(cross, H, X)
        if d[2][0]:
            wide = np.empty((len(zx) - q, q))
            kernels.spread(cross, X, wide)
            kernels.collect(cross, wide @ Sinv, V)
        else:
            kernels.times_symmetric(cross, X, Sinv, V, 0, q)
        kernels.put(cross, V, E)
    kernels.selected_inverse(s, H, Sinv, E)
    kernels.logdet_slopes(s, lam, W, E, slopes)
    backward(S, len(R) - q, R)
    kernels.solve_up(s, H, R)
    B, left, weighted = np.empty_like(R), np.empty_like(R), np.zeros_like(R)
    kernels.scale_effects(s, lam, R, B)
    kernels.multiply_blocks(s, W, B, left)
    for i in range(len(R)):
        for a in range(m):
            value = zx[i, a] - left[i, a]
            for b in range(m):
                weighted[i, b] += value * weight[a, b]
    kernels.outer_sums(s, weighted, R, slopes)


@njit(cache=True, nogil=True, error_model="numpy")
def penalised(xx, prior, sigma, fixed):
    """[X r]'W[X r] with the priors of the coefficients."""
    for a in range(len(xx)):
        for b in range(len(xx)):
            fixed[a, b] = xx[a, b] + sigma * sigma * prior[a, b]


@njit(cache=True, nogil=True, error_model="numpy")
def coefficients(prior, n, log_sigma, sigma, fixed):
    """The coefficients integrated out, ``fixed`` being the Schur complement of [X r].

    By the sweep operator (Goodnight 1979, doi:10.1080/00031305.1979.10482685). ``fixed`` becomes
    minus the derivative of their part of -2 log p in itself.

    Returns
    -------
    that part, and its slope in log sigma, of log p; NaN where ``fixed`` is not positive definite
    """
    m, p, variance = len(fixed), len(fixed) - 1, sigma * sigma
    logdet, product = 0.0, 1.0
    for k in range(p):
        pivot = fixed[k, k]
        if not pivot > 0.0:
            return math.nan, math.nan
        product *= pivot
        if not 1e-100 < product < 1e100:
            logdet += math.log(product)
            product = 1.0
        for b in range(m):
            fixed[k, b] /= pivot
        fixed[k, k] = 1.0 / pivot
        for a in range(m):
            if a != k:
                own = fixed[a, k]
                fixed[a, k] = 0.0
                for b in range(m):
                    fixed[a, b] -= own * fixed[k, b]
    logdet += math.log(product)
    rss, scaled = fixed[p, p], 1.0 / variance
    fixed[p, p] = -1.0  # [X r] times the last column is minus y - X beta
    slope = 0.0
    for a in range(m):
        for b in range(m):
            weight = -fixed[a, p] * fixed[b, p] * scaled
            if a < p and b < p:
                weight -= fixed[a, b]
                fixed[a, b] = weight
            elif a == p and b < p:
                fixed[a, b] = weight
            slope += weight * prior[a, b]
    for a in range(p):
        fixed[a, p] = fixed[p, a]
    fixed[p, p] = -scaled
    # With Lambda held, sigma scales the residuals, the coefficients and the weight of their prior.
    slope = p - n + rss * scaled + variance * slope
    return -(n - p) * log_sigma - 0.5 * (logdet + rss * scaled), slope


@njit(cache=True, nogil=True, error_model="numpy")
def log_posterior(t, s, c, d, gradient):
    """log p(y, t) of `marginal.Integrated`, and its gradient; -inf where it is not computed."""
    gradient[:] = 0.0
    last = len(t) - 1
    for k in range(len(t)):
        if not abs(t[k]) < FARTHEST:
            return -math.inf
    F, q, m = len(s[0]), int(d[7][2]), len(d[5])
    values = np.empty(len(t))
    factors, lam, slopes = np.empty(len(d[1])), np.empty(len(d[1])), np.zeros(len(d[1]))
    fixed = np.empty((m, m))
    natural(t, c[0], values)
    unpack(values, c[0], factors)
    sigma = values[last]
    relative(s[0], c[0], d[0], d[1], factors, sigma, lam)
    penalised(d[5], d[6], sigma, fixed)
    H, S, R = np.empty(len(d[3])), np.empty((q, q)), np.empty(d[4].shape)
    logdet = _factorise(s, d, lam, H, S, R, fixed)
    if math.isnan(logdet):
        return -math.inf
    value, through = coefficients(d[6], d[7][0], t[last], sigma, fixed)
    value += d[7][1] - 0.5 * logdet
    if not math.isfinite(value):
        return -math.inf
    if F:
        _slopes(s, d, lam, H, S, R, fixed, slopes)
    gradient[last] += through
    for k in range(len(lam)):
        gradient[last] += slopes[k] * lam[k]
    pull_relative(s[0], c[0], d[0], d[1], sigma, slopes, lam)
    pull_back(values, c[0], factors, lam, gradient)
    return value + log_prior_scales(t, values, c[0], c[1], c[2], c[3], gradient)


@njit(cache=True, nogil=True, error_model="numpy")
def pull_relative(terms, layout, order, inverse_lifts, sigma, slopes, out):
    """out = the derivative in the factors, ``slopes`` being minus that in Lambda."""
    at = 0
    for f in range(len(order)):
        K, place = terms[f, 1], layout[order[f], 3]
        for k in range(K):
            for b in range(K):
                total = 0.0
                if b <= k:
                    for a in range(k, K):
                        total += inverse_lifts[at + a * K + k] * slopes[at + a * K + b]
                out[place + k * K + b] = -total / sigma
        at += K * K


@njit(cache=True, nogil=True, error_model="numpy")
def place(x, centre, root, elbows, t):
    """t (m, size) of every row of x."""
    for i in range(len(x)):
        for k in range(len(centre)):
            v = centre[k]
            for j in range(k + 1):
                v += root[k, j] * x[i, j]
            t[i, k] = bend(v, elbows[k])[0]


@njit(cache=True, nogil=True, error_model="numpy")
def log_density(x, s, c, d, centre, root, elbows, gradient):
    """The same in coordinates: v = centre + root x, root lower triangular, and t bent v."""
    m = len(x)
    t, along, turn, slope = np.empty(m), np.empty(m), np.empty(m), np.empty(m)
    value = enter(x, centre, root, elbows, t, along, turn)
    value += log_posterior(t, s, c, d, slope)
    leave(root, along, turn, slope, gradient)
    return value


@njit(cache=True, nogil=True, error_model="numpy")
def enter(x, centre, root, elbows, t, along, turn):
    """t of a point, its slope in v, and the slope of that one's log; returns log |dt/dx|."""
    total, stretch = 0.0, 1.0
    for i in range(len(x)):
        v = centre[i]
        for j in range(i + 1):
            v += root[i, j] * x[j]
        t[i], along[i], turn[i] = bend(v, elbows[i])
        stretch *= root[i, i] * along[i]
        if not 1e-100 < stretch < 1e100:  # few logarithms
            total += math.log(stretch)
            stretch = 1.0
    return total + math.log(stretch)


@njit(cache=True, nogil=True, error_model="numpy")
def leave(root, along, turn, slopes, gradient):
    """The gradient in x from ``slopes``, that in t."""
    m = len(gradient)
    for j in range(m):
        gradient[j] = 0.0
    for i in range(m):
        slope = slopes[i] * along[i] + turn[i]
        for j in range(i + 1):
            gradient[j] += root[i, j] * slope


@njit(cache=True, nogil=True, error_model="numpy")
def draw_effects(t, s, c, d, lifts, root_x, ols, draws):
    """Exact draws of (b, beta) given every row of t (m, size).

    ``draws`` (m, effects + p) holds standard normals and becomes the effects, in order of
    elimination, and the coefficients; NaN where they cannot be computed. ``lifts`` are the T_f
    one after the other; ``root_x`` and ``ols`` carry the coefficients from orthonormal columns.
    """
    zx, xx, q = d[4], d[5], int(d[7][2])
    m, p, effects = len(t), len(xx) - 1, len(zx)
    factors, lam, H, S = (
        np.empty(len(d[1])),
        np.empty(len(d[1])),
        np.empty(len(d[3])),
        np.empty((q, q)),
    )
    R, fixed = np.empty((effects, p + 1)), np.empty((p + 1, p + 1))
    L, delta, values = np.empty((p, p)), np.empty((p, 1)), np.empty(t.shape[1])
    u, scaled = np.empty((effects, 1)), np.empty((effects, 1))
    for row in range(m):
        natural(t[row], c[0], values)
        unpack(values, c[0], factors)
        sigma = values[len(values) - 1]
        relative(s[0], c[0], d[0], d[1], factors, sigma, lam)
        penalised(xx, d[6], sigma, fixed)
        logdet = _factorise(s, d, lam, H, S, R, fixed)
        if math.isnan(logdet) or not draw_coefficients(fixed, sigma, draws[row], effects, L, delta):
            draws[row] = math.nan
            continue
        if effects:
            for i in range(effects):
                u[i, 0] = R[i, p] + sigma * draws[row, i]
                for a in range(p):
                    u[i, 0] -= R[i, a] * delta[a, 0]
            backward(S, effects - q, u)
            kernels.solve_up(s, H, u)
            kernels.scale_effects(s, lam, u, scaled)
            _lift(s[0], lifts, scaled, draws[row])
        place_coefficients(delta, root_x, ols, effects, draws[row])


@njit(cache=True, nogil=True, error_model="numpy")
def draw_coefficients(fixed, sigma, draws, first, L, delta):
    """A draw of beta - ols in orthonormal columns, into delta (p, 1), without the effects.

    ``fixed`` is the Schur complement of [X r]; standard normals begin at ``first`` in ``draws``.
    False where it is not positive definite; L (p, p) is filled.
    """
    p = len(L)
    for a in range(p):
        delta[a, 0] = fixed[a, p]
        for b in range(p):
            L[a, b] = fixed[a, b]
    if not cholesky(L):
        return False
    forward(L, 0, delta)
    for a in range(p):
        delta[a, 0] += sigma * draws[first + a]
    backward(L, 0, delta)
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def place_coefficients(delta, root_x, ols, first, draws):
    """The model's coefficients, from ``first`` on in ``draws``."""
    p = len(delta)
    for a in range(p - 1, -1, -1):
        total = ols[a] + delta[a, 0]
        for k in range(a + 1, p):
            total -= root_x[a, k] * draws[first + k]
        draws[first + a] = total / root_x[a, a]


@njit(cache=True, nogil=True, error_model="numpy")
def _lift(terms, lifts, b, out):
    """T_f b of every level, T lower triangular."""
    at = 0
    for f in range(len(terms)):
        J, K, first = terms[f, 0], terms[f, 1], terms[f, 2]
        for j in range(J):
            for k in range(K):
                total = 0.0
                for a in range(k + 1):
                    total += lifts[at + k * K + a] * b[first + j * K + a, 0]
                out[first + j * K + k] = total
        at += K * K


@njit(cache=True, nogil=True, error_model="numpy")
def overrelax(rows, lean):
    """Independent rows, in place, as a chain of rows."""
    fresh = math.sqrt(1.0 - lean * lean)
    for i in range(1, len(rows)):
        for j in range(rows.shape[1]):
            rows[i, j] = fresh * rows[i, j] - lean * rows[i - 1, j]
