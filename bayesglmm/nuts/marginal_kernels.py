# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Compiled density of the covariance parameters of a Gaussian model, and draws of the rest.

Arguments shared by all: ``s`` is ``Structure.arrays`` (see `laplace/structure.py`); ``c`` are the
arrays of ``Scales.arrays`` without the last, and ``d`` the cross-products, both of
`marginal.Integrated`. The residual sd is always there: the last element of t is its log.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from bayesglmm.laplace import kernels
from bayesglmm.nuts.alike import draw_alike, factorise_alike, slopes_alike
from bayesglmm.nuts.dense import backward, cholesky, forward, inverse
from bayesglmm.nuts.scales import bend, log_prior_scales, pull_back, unpack

# Of the logs of standard deviations: far outside of what any data say, and no overflow.
_FARTHEST = 100.0


@njit(cache=True, nogil=True, error_model="numpy")
def _relative(t, s, c, d, factors, lam):
    """The factors, and Lambda = T^-1 factor / sigma in order of elimination; returns sigma."""
    order, inverse_lifts = d[0], d[1]
    unpack(t, c[0], factors)
    sigma = math.exp(t[len(t) - 1])
    at = 0
    for f in range(len(order)):
        K, place = s[0][f, 1], c[0][order[f], 3]
        for a in range(K):
            for b in range(K):
                total = 0.0
                for k in range(b, a + 1):
                    total += inverse_lifts[at + a * K + k] * factors[place + k * K + b]
                lam[at + a * K + b] = total / sigma
        at += K * K
    return sigma


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
def _penalised(sigma, d, fixed):
    """[X r]'W[X r] with the priors of the coefficients."""
    xx, prior = d[5], d[6]
    for a in range(len(xx)):
        for b in range(len(xx)):
            fixed[a, b] = xx[a, b] + sigma * sigma * prior[a, b]


@njit(cache=True, nogil=True, error_model="numpy")
def _coefficients(sigma, d, fixed, weight):
    """The coefficients integrated out, ``fixed`` being the Schur complement of [X r].

    ``weight`` receives minus the derivative of their part of -2 log p in ``fixed``.

    Returns
    -------
    that part, and its slope in log sigma, of log p; NaN where ``fixed`` is not positive definite
    """
    prior, n, p, variance = d[6], d[7][0], len(fixed) - 1, sigma * sigma
    L, cov, own = np.empty((p, p)), np.empty((p, p)), np.empty(p + 1)
    L[:] = fixed[:p, :p]
    if not cholesky(L):
        return math.nan, math.nan
    inverse(L, cov)
    rss, logdet = fixed[p, p], 0.0
    for a in range(p):
        total = 0.0
        for b in range(p):
            total += cov[a, b] * fixed[b, p]
        own[a] = -total
        rss -= total * fixed[a, p]
        logdet += 2.0 * math.log(L[a, a])
    own[p] = 1.0  # [X r] times own is y - X beta
    value = -(n - p) * math.log(sigma) - 0.5 * (logdet + rss / variance)
    # With Lambda held, sigma scales the residuals, the coefficients and the weight of their prior.
    slope = p - n + rss / variance
    for a in range(p + 1):
        for b in range(p + 1):
            weight[a, b] = -own[a] * own[b] / variance
            slope -= own[a] * prior[a, b] * own[b]
            if a < p and b < p:
                weight[a, b] -= cov[a, b]
                slope -= variance * cov[a, b] * prior[a, b]
    return value, slope


@njit(cache=True, nogil=True, error_model="numpy")
def log_posterior(t, s, c, d, gradient):
    """log p(y, t) of `marginal.Integrated`, and its gradient; -inf where it is not computed."""
    gradient[:] = 0.0
    last = len(t) - 1
    for k in range(len(t)):
        if not abs(t[k]) < _FARTHEST:
            return -math.inf
    F, q, m = len(s[0]), int(d[7][2]), len(d[5])
    factors, lam, slopes = np.empty(len(d[1])), np.empty(len(d[1])), np.zeros(len(d[1]))
    fixed, weight = np.empty((m, m)), np.empty((m, m))
    sigma = _relative(t, s, c, d, factors, lam)
    _penalised(sigma, d, fixed)
    if F == 1:
        root, D = np.empty(d[8].shape), np.empty(d[8].shape)
        logdet = factorise_alike(d, lam, root, D, fixed)
        value, through = _coefficients(sigma, d, fixed, weight)
        if math.isfinite(value):
            slopes_alike(d, root, D, weight, slopes)
    else:
        H, S, R = np.empty(len(d[3])), np.empty((q, q)), np.empty(d[4].shape)
        logdet = _factorise(s, d, lam, H, S, R, fixed)
        if math.isnan(logdet):
            return -math.inf
        value, through = _coefficients(sigma, d, fixed, weight)
        if F and math.isfinite(value):
            _slopes(s, d, lam, H, S, R, weight, slopes)
    value += d[7][1] - 0.5 * logdet
    if not math.isfinite(value):
        return -math.inf
    gradient[last] += through
    for k in range(len(lam)):
        gradient[last] += slopes[k] * lam[k]
    _pull_relative(sigma, s, c, d, slopes, lam)
    pull_back(t, c[0], factors, lam, gradient)
    has_scale = len(t) > 0  # always: a literal would compile another function
    return value + log_prior_scales(t, c[0], c[1], c[2], c[3], has_scale, gradient)


@njit(cache=True, nogil=True, error_model="numpy")
def _pull_relative(sigma, s, c, d, slopes, out):
    """out = the derivative in the factors, ``slopes`` being minus that in Lambda."""
    out[:] = 0.0
    order, inverse_lifts = d[0], d[1]
    at = 0
    for f in range(len(order)):
        K, place = s[0][f, 1], c[0][order[f], 3]
        for k in range(K):
            for b in range(k + 1):
                total = 0.0
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
    t, along, slope = np.empty(m), np.empty(m), np.empty(m)
    value = 0.0
    for i in range(m):
        v = centre[i]
        for j in range(i + 1):
            v += root[i, j] * x[j]
        t[i], along[i], gradient[i] = bend(v, elbows[i])
        value += math.log(root[i, i]) + math.log(along[i])
    value += log_posterior(t, s, c, d, slope)
    for i in range(m):
        slope[i] = slope[i] * along[i] + gradient[i]
    for j in range(m):
        total = 0.0
        for i in range(j, m):
            total += root[i, j] * slope[i]
        gradient[j] = total
    return value


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
    L, delta, u, scaled = (
        np.empty((p, p)),
        np.empty((p, 1)),
        np.empty((effects, 1)),
        np.empty((effects, 1)),
    )
    root, D, alike = np.empty(d[8].shape), np.empty(d[8].shape), len(s[0]) == 1
    for row in range(m):
        sigma = _relative(t[row], s, c, d, factors, lam)
        _penalised(sigma, d, fixed)
        if alike:
            logdet = factorise_alike(d, lam, root, D, fixed)
        else:
            logdet = _factorise(s, d, lam, H, S, R, fixed)
        L[:] = fixed[:p, :p]
        if math.isnan(logdet) or not cholesky(L):
            draws[row] = math.nan
            continue
        delta[:, 0] = fixed[:p, p]
        forward(L, 0, delta)
        for a in range(p):
            delta[a, 0] += sigma * draws[row, effects + a]
        backward(L, 0, delta)
        for i in range(effects):
            u[i, 0] = draws[row, i]
        if alike:
            draw_alike(d, root, sigma, delta, u)
        elif effects:
            for i in range(effects):
                u[i, 0] = R[i, p] + sigma * u[i, 0]
                for a in range(p):
                    u[i, 0] -= R[i, a] * delta[a, 0]
            backward(S, effects - q, u)
            kernels.solve_up(s, H, u)
        if effects:
            if alike:
                scaled[:] = u
            else:
                kernels.scale_effects(s, lam, u, scaled)
            at = 0
            for f in range(len(s[0])):  # b = T b*, T lower triangular
                J, K, first = s[0][f, 0], s[0][f, 1], s[0][f, 2]
                for j in range(J):
                    for k in range(K):
                        total = 0.0
                        for a in range(k + 1):
                            total += lifts[at + k * K + a] * scaled[first + j * K + a, 0]
                        draws[row, first + j * K + k] = total
                at += K * K
        for a in range(p - 1, -1, -1):
            total = ols[a] + delta[a, 0]
            for k in range(a + 1, p):
                total -= root_x[a, k] * draws[row, effects + k]
            draws[row, effects + a] = total / root_x[a, a]
