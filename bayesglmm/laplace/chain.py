# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Whole evaluations in one compiled call, for models whose terms nest (no trailing block).

Most fits are small: there the interpreter's time between kernels would exceed theirs. What is
written here once more, `pirls.py` and `marginal.py` (or `pls.py`) say in NumPy for every
structure and family; laws hold the two together. Arguments are those of `kernels.py`; ``places``
are the positions of theta among the Lambdas, and every ``work`` array is filled.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from bayesglmm.families.compiled import evaluate
from bayesglmm.laplace.blocks import inner
from bayesglmm.laplace.kernels import (
    assemble,
    cross_products,
    lift,
    logdet_slopes,
    multiply_blocks,
    outer_sums,
    predict,
    pull_rows,
    quadratic_form,
    scale_effects,
    scale_sums,
    selected_inverse,
    solve_chain,
    sum_rows,
    unscale_effects,
)


@inner
def _factor(A):
    """Cholesky factor of a symmetric matrix in its lower triangle; False if it has none."""
    m = len(A)
    for c in range(m):
        for r in range(c, m):
            total = A[r, c]
            for k in range(c):
                total -= A[r, k] * A[c, k]
            if r == c:
                if not total > 0.0:
                    return False
                A[c, c] = math.sqrt(total)
            else:
                A[r, c] = total / A[c, c]
    return True


@inner
def _solve(L, v):
    """v = (L L')^-1 v."""
    m = len(v)
    for r in range(m):
        for k in range(r):
            v[r] -= L[r, k] * v[k]
        v[r] /= L[r, r]
    for r in range(m - 1, -1, -1):
        for k in range(r + 1, m):
            v[r] -= L[k, r] * v[k]
        v[r] /= L[r, r]


@inner
def _copy(source, target):
    """target = source; ``target[:] = source`` brings texts of errors along, long to compile."""
    for i in range(len(source)):
        target[i] = source[i]


@inner
def _keep(new_u, new_b, new_eta, new_l, u, b, eta, l):
    _copy(new_u.ravel(), u.ravel())
    _copy(new_b.ravel(), b.ravel())
    _copy(new_eta, eta)
    _copy(new_l.ravel(), l.ravel())


@inner
def _times(X, beta, out):
    """out = X beta."""
    for i in range(len(out)):
        total = 0.0
        for k in range(len(beta)):
            total += X[i, k] * beta[k]
        out[i] = total


@inner
def _fixed_part(X, offset, beta, fixed):
    """fixed = X beta + offset."""
    _times(X, beta, fixed)
    for i in range(len(fixed)):
        fixed[i] += offset[i]


@inner
def _pull_fixed(X, v, out):
    """out = X'v."""
    out[:] = 0.0
    for i in range(len(v)):
        for k in range(len(out)):
            out[k] += X[i, k] * v[i]


@inner
def _penalised(s, lam, Z, fixed, u, model, sigma, b, eta, l):
    """The penalised log-density at u, up to constants, with b, eta and l filled."""
    code, y, w = model
    predict(s, lam, Z, fixed, u, b, eta)
    total = evaluate(code, y, w, eta, sigma, l)
    square = 0.0
    for j in range(len(u)):
        square += u[j, 0] * u[j, 0]
    return total - 0.5 * square


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _border(s, lam, Z, X, w, H, cross, solved, schur):
    """M'WX, H^-1 of it, and the information of beta given theta."""
    wx = np.empty_like(X)
    for i in range(len(w)):
        for k in range(X.shape[1]):
            wx[i, k] = w[i] * X[i, k]
    pull_rows(s, lam, Z, wx, solved, cross)
    _copy(cross.ravel(), solved.ravel())
    solve_chain(s, H, solved)
    own, through = np.dot(X.T, wx), np.dot(cross.T, solved)
    for k in range(len(schur)):
        for c in range(len(schur)):
            schur[k, c] = own[k, c] - through[k, c]


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def modes(s, lam, Z, X, offset, model, sigma, limits, joint, beta, beside, u, at):
    """Conditional modes by penalised Newton steps, those of beta too if ``joint``.

    ``limits`` are the squared decrement that counts as none, that of a start which may be worse
    than none, and the least and the most steps. ``u`` is the start and becomes the mode, as
    ``beta`` does if joint. Filled there: ``at`` = (b, eta, l, score, W, H), and ``beside`` =
    (cross, solved, schur) if joint.

    Returns
    -------
    status (0 converged, 1 no further growth, 2 a weight that is not positive, 3 information that
    is not positive definite, 4 too many steps, W and H not those at the end), penalised
    log-density up to constants, log det H
    """
    b, eta, l, score, W, H = at
    cross, solved, schur = beside
    exact, far, least, most = limits
    n, m, p = len(eta), len(u), len(beta)
    w, scaled, step, fixed = np.empty(n), np.empty((m, 1)), np.empty((m, 1)), np.empty(n)
    new_u, new_b, new_eta, new_l = np.empty((m, 1)), np.empty((m, 1)), np.empty(n), np.empty((4, n))
    pull, new_beta, L = np.empty(p), np.empty(p), np.empty((p, p))
    _fixed_part(X, offset, beta, fixed)
    f = _penalised(s, lam, Z, fixed, u, model, sigma, b, eta, l)
    if not math.isfinite(f):
        u[:] = 0.0
        f = _penalised(s, lam, Z, fixed, u, model, sigma, b, eta, l)
    logdet = math.nan
    for k in range(most):
        for i in range(n):
            w[i] = -l[2, i]
            if not w[i] > 0.0:
                return 2, f, logdet
        cross_products(s, Z, w, W)
        logdet = assemble(s, lam, W, H)
        if math.isnan(logdet):
            return 3, f, logdet
        pull_rows(s, lam, Z, l[1].reshape(n, 1), score, scaled)
        decrement = 0.0
        for j in range(m):
            scaled[j, 0] -= u[j, 0]
            step[j, 0] = scaled[j, 0]
        solve_chain(s, H, step)
        for j in range(m):
            decrement += scaled[j, 0] * step[j, 0]
        if joint:
            _border(s, lam, Z, X, w, H, cross, solved, schur)
            _pull_fixed(X, l[1], pull)
            for j in range(m):
                for c in range(p):
                    pull[c] -= cross[j, c] * step[j, 0]
            _copy(schur.ravel(), L.ravel())
            if not _factor(L):
                return 3, f, logdet
            _copy(pull, new_beta)
            _solve(L, new_beta)
            for c in range(p):
                decrement += pull[c] * new_beta[c]
            for j in range(m):
                for c in range(p):
                    step[j, 0] -= solved[j, c] * new_beta[c]
            _copy(new_beta, pull)
        if k >= least and decrement < exact * (1.0 + abs(f) * 1e-8):
            return 0, f, logdet
        if k == 0 and decrement > far:  # a start that may be worse than none
            new_u[:] = 0.0
            new_f = _penalised(s, lam, Z, fixed, new_u, model, sigma, new_b, new_eta, new_l)
            if new_f > f:
                _keep(new_u, new_b, new_eta, new_l, u, b, eta, l)
                f = new_f
                continue
        size = 1.0
        while True:
            for j in range(m):
                new_u[j, 0] = u[j, 0] + size * step[j, 0]
            if joint:
                for c in range(p):
                    new_beta[c] = beta[c] + size * pull[c]
                _fixed_part(X, offset, new_beta, fixed)
            new_f = _penalised(s, lam, Z, fixed, new_u, model, sigma, new_b, new_eta, new_l)
            # Close to the mode f is flat to rounding: a full Newton step is then right.
            rounding = 1e-9 * (1.0 + abs(f))
            if new_f > f or (decrement < rounding and new_f > f - rounding):
                break
            size *= 0.5
            if size < 1e-10:
                return 1, f, logdet
        _keep(new_u, new_b, new_eta, new_l, u, b, eta, l)
        f = new_f
        if joint:
            _copy(new_beta, beta)
    return 4, f, logdet


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def slopes(s, lam, Z, X, at, u, bar, modes_bar, joint, beside, spread, through, moved, G):
    """`marginal.total_slopes`: what reaches eta and Lambda through the modes and through H.

    ``bar`` is the derivative of the objective in H, in flat blocks, and ``modes_bar`` that in
    the modes; the last four are filled, ``through`` with what reaches a row's eta, ``G`` Lambda.
    """
    l, score, W, H = at[2], at[3], at[4], at[5]
    cross, solved, schur = beside
    n, m, p = len(spread), len(u), X.shape[1]
    C, sums, v, lifted = np.empty_like(bar), np.empty((m, 1)), np.empty((m, 1)), np.empty((m, 1))
    shift = np.zeros(n)
    lift(s, lam, bar, C)
    quadratic_form(s, Z, C, spread)
    for i in range(n):
        through[i] = -l[3, i] * spread[i]
    pull_rows(s, lam, Z, through.reshape(n, 1), sums, v)
    for j in range(m):
        v[j, 0] += modes_bar[j, 0]
    solve_chain(s, H, v)
    if joint:  # beta moves, too
        pull, L = np.empty(p), np.empty((p, p))
        _pull_fixed(X, through, pull)
        for j in range(m):
            for c in range(p):
                pull[c] -= cross[j, c] * v[j, 0]
        _copy(schur.ravel(), L.ravel())
        _factor(L)
        _solve(L, pull)
        for j in range(m):
            for c in range(p):
                v[j, 0] -= solved[j, c] * pull[c]
        _times(X, pull, shift)
    predict(s, lam, Z, shift, v, lifted, moved)
    for i in range(n):
        through[i] += l[2, i] * moved[i]
    sum_rows(s, Z, through.reshape(n, 1), sums)
    logdet_slopes(s, lam, W, bar, G)
    for k in range(len(G)):
        G[k] *= 2.0
    outer_sums(s, sums, u, G)
    outer_sums(s, score, v, G)


@njit(cache=True, nogil=True, error_model="numpy")
def laplace(
    s, places, Z, X, offset, model, sigma, limits, joint, theta, beta, start, lam, u, at, beside,
    theta_slopes, beta_slopes,
):  # fmt: skip
    """The Laplace objective at (theta, beta), or at the mode in beta if ``joint``, with gradient.

    ``start`` holds the effects b to start from. Returns as `modes`.
    """
    eta, l, score, H = at[1], at[2], at[3], at[5]
    lam[:] = 0.0
    for k in range(len(theta)):
        lam[places[k]] = theta[k]
    unscale_effects(s, lam, start, u)
    status, f, logdet = modes(
        s, lam, Z, X, offset, model, sigma, limits, joint, beta, beside, u, at
    )
    if status >= 2:
        return status, f, logdet
    n, m = len(eta), len(u)
    bar, none, G = np.empty_like(H), np.empty((0, 0)), np.empty_like(lam)
    selected_inverse(s, H, none, bar)
    for v in range(len(bar)):
        bar[v] *= -0.5
    spread, through, moved = np.empty(n), np.empty(n), np.empty(n)
    slopes(s, lam, Z, X, at, u, bar, np.zeros((m, 1)), joint, beside, spread, through, moved, G)
    outer_sums(s, score, u, G)
    for k in range(len(theta)):
        theta_slopes[k] = G[places[k]]
    for i in range(n):
        through[i] += l[1, i]
    _pull_fixed(X, through, beta_slopes)
    return status, f, logdet


@njit(cache=True, nogil=True, error_model="numpy")
def node_rows(s, lam, Z, fixed, model, sigma, points, log_terms, row_slopes):
    """Log-densities (J, N) summed by level, and slopes in eta (n, N), at nodes (J, N, K)."""
    code, y, w = model
    slots, n, (J, N, K) = s[3], len(fixed), points.shape
    u, b, eta, l = np.empty((J * K, 1)), np.empty((J * K, 1)), np.empty(n), np.empty((4, n))
    log_terms[:] = 0.0
    for q in range(N):
        for j in range(J):
            for k in range(K):
                u[j * K + k, 0] = points[j, q, k]
        predict(s, lam, Z, fixed, u, b, eta)
        evaluate(code, y, w, eta, sigma, l)
        for i in range(n):
            log_terms[slots[0, i], q] += l[0, i]
            row_slopes[i, q] = l[1, i]


@njit(cache=True, nogil=True, error_model="numpy")
def least_squares(s, places, W, zx, xx, theta, lam, u, H, inverse, solved, L, delta, left):
    """`pls.penalised_least_squares` and the gradient's parts, for a linear model.

    Filled: H factorised and its selected ``inverse``, ``solved`` (effects, p) = H^-1 M'WX, the
    lower factor L of the information of beta, ``delta`` = beta - ols, the modes u, and ``left``
    (effects, 1), Z'W times what the fit leaves.

    Returns
    -------
    status (0, or 3 for information that is not positive definite), the penalised residual sum of
    squares, log det H, log det of the information of beta
    """
    m, p = len(u), len(delta)
    lam[:] = 0.0
    for k in range(len(theta)):
        lam[places[k]] = theta[k]
    logdet = assemble(s, lam, W, H)
    if math.isnan(logdet):
        return 3, math.nan, logdet, math.nan
    rhs, every = np.empty((m, p + 1)), np.empty((m, p + 1))
    scale_sums(s, lam, zx, rhs)
    _copy(rhs.ravel(), every.ravel())
    solve_chain(s, H, every)
    schur = np.dot(rhs.T, every)
    for r in range(p + 1):
        for c in range(p + 1):
            schur[r, c] = xx[r, c] - schur[r, c]
    for r in range(p):
        delta[r] = schur[r, p]
        for c in range(p):
            L[r, c] = schur[r, c]
    if not _factor(L):
        return 3, math.nan, logdet, math.nan
    _solve(L, delta)
    rss, logdet_fixed = schur[p, p], 0.0
    for c in range(p):
        rss -= schur[c, p] * delta[c]
        logdet_fixed += 2.0 * math.log(L[c, c])
        for r in range(c):
            L[r, c] = 0.0
    b, sums = np.empty((m, 1)), np.empty((m, 1))
    for j in range(m):
        u[j, 0] = every[j, p]
        sums[j, 0] = zx[j, p]
        for c in range(p):
            u[j, 0] -= every[j, c] * delta[c]
            sums[j, 0] -= zx[j, c] * delta[c]
            solved[j, c] = every[j, c]
    scale_effects(s, lam, u, b)
    multiply_blocks(s, W, b, left)
    for j in range(m):
        left[j, 0] = sums[j, 0] - left[j, 0]
    none = np.empty((0, 0))
    selected_inverse(s, H, none, inverse)
    return 0, rss, logdet, logdet_fixed
