"""The profiled deviance of a Gaussian linear mixed model, by penalised least squares.

beta and sigma are profiled out (Bates et al. 2015, doi:10.18637/jss.v067.i01, section 3.4).
All that depends on the rows are cross-products of [Z X y], computed once: the cost of one
evaluation does not grow with n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from bayesglmm.laplace.blocks import (
    Array,
    CrossProducts,
    Factor,
    Layout,
    cross_products,
    factorize,
    flat,
    inverse_trailing,
    logdet_gradient,
    solve,
    stack,
    transpose_product,
    unstack,
)
from bayesglmm.laplace.covariance import Covariance
from bayesglmm.laplace.pirls import scale_down, scale_up


@dataclass(frozen=True, slots=True)
class LinearProblem:
    """Cross-products of a weighted linear mixed model.

    Attributes
    ----------
    zz, zx, xx
        Z'WZ in blocks, Z'W[X r] as (J_f, K_f, p+1) parts, [X r]'W[X r]; r is the residual of
        y on X, so that no cancellation hides in r'r when y is far from zero.
    ols
        (p,) least-squares coefficients that were taken out of y.
    n
        Number of rows.
    log_weights
        Sum of log w.
    """

    layout: Layout
    covariance: Covariance
    zz: CrossProducts
    zx: list[Array]
    xx: Array
    ols: Array
    n: int
    log_weights: float

    @property
    def p(self) -> int:
        """Number of fixed effects."""
        return len(self.ols)


@dataclass(frozen=True, slots=True)
class Solution:
    """Penalised least squares at one theta.

    Attributes
    ----------
    beta, u
        Minimisers; u as (J_f, K_f) spherical effects.
    rss
        Minimum of |y - X beta - M u|^2 + |u|^2, weighted.
    factor, fixed
        H, and the Cholesky factor of X'WX - X'WM H^-1 M'WX.
    ux
        (J_f, K_f, p) H^-1 M'WX.
    logdet_fixed
        log det of ``fixed``.
    """

    beta: Array
    u: list[Array]
    rss: float
    factor: Factor
    fixed: tuple[Array, bool]
    ux: list[Array]
    logdet_fixed: float


def linear_problem(
    X: Array, y: Array, w: Array, layout: Layout, covariance: Covariance
) -> LinearProblem:
    """Pass once over the data."""
    root = np.sqrt(w)
    ols = np.linalg.lstsq(X * root[:, None], y * root, rcond=None)[0]
    columns = np.column_stack([X, y - X @ ols])
    return LinearProblem(
        layout,
        covariance,
        cross_products(layout, w),
        transpose_product(layout, columns * w[:, None]),
        columns.T @ (columns * w[:, None]),
        ols,
        len(y),
        float(np.sum(np.log(w))),
    )


def penalised_least_squares(problem: LinearProblem, theta: Array) -> Solution:
    """Solve for (beta, u) at theta."""
    lambdas = problem.covariance.lambdas(theta)
    factor = factorize(problem.layout, problem.zz, lambdas)
    rhs = scale_down(lambdas, problem.zx)
    solved = solve(factor, rhs)
    schur = problem.xx - sum(
        np.einsum("jka,jkb->ab", r, s) for r, s in zip(rhs, solved, strict=True)
    )
    p = problem.p
    fixed = cho_factor(schur[:p, :p], lower=True)
    delta = cho_solve(fixed, schur[:p, p])
    rss = float(schur[p, p] - schur[:p, p] @ delta)
    u = [s[..., p] - s[..., :p] @ delta for s in solved]
    logdet_fixed = 2.0 * float(np.sum(np.log(np.diag(fixed[0]))))
    return Solution(
        problem.ols + delta, u, rss, factor, fixed, [s[..., :p] for s in solved], logdet_fixed
    )


def _apply_cross(problem: LinearProblem, b: list[Array]) -> list[Array]:
    """Z'WZ b for (J_f, K_f, m) arrays."""
    layout, zz = problem.layout, problem.zz
    b1, b2 = b[layout.lead], stack(layout, b)
    B = flat(zz.B)
    first = zz.P @ b1 + (B @ b2).reshape(b1.shape)
    return unstack(layout, first, B.T @ flat(b1) + zz.C @ b2)


def deviance(
    problem: LinearProblem, theta: Array, reml: bool, sigma: float | None = None
) -> tuple[float, Array]:
    """-2 log-likelihood (or REML criterion) and its gradient in theta.

    beta is profiled out, and so is sigma unless it is given.
    """
    at = penalised_least_squares(problem, theta)
    df = problem.n - problem.p if reml else problem.n
    variance = at.rss / df if sigma is None else sigma**2
    value = (
        at.factor.logdet
        - problem.log_weights
        + df * np.log(2.0 * np.pi * variance)
        + at.rss / variance
    )
    lambdas, p = at.factor.lambdas, problem.p
    delta = at.beta - problem.ols
    Sinv = inverse_trailing(at.factor)
    G = logdet_gradient(at.factor, problem.zz, Sinv)
    moved = _apply_cross(problem, [v[..., None] for v in scale_up(lambdas, at.u)])
    residual = [
        zx[..., p] - zx[..., :p] @ delta - m[..., 0]
        for zx, m in zip(problem.zx, moved, strict=True)
    ]
    slopes = [2.0 * g - 2.0 * e.T @ u / variance for g, e, u in zip(G, residual, at.u, strict=True)]
    if reml:
        value += at.logdet_fixed
        inverse = cho_solve(at.fixed, np.eye(p))
        lifted = [np.einsum("kc,jcp->jkp", f, v) for f, v in zip(lambdas, at.ux, strict=True)]
        moved = _apply_cross(problem, lifted)
        for f, (zx, m, ux) in enumerate(zip(problem.zx, moved, at.ux, strict=True)):
            e = zx[..., :p] - m
            slopes[f] = slopes[f] - 2.0 * np.einsum("jra,ab,jcb->rc", e, inverse, ux)
    return float(value), problem.covariance.collect(tuple(slopes))
