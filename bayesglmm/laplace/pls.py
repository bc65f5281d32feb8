"""The profiled deviance of a Gaussian linear mixed model, by penalised least squares.

beta and sigma are profiled out (Bates et al. 2015, doi:10.18637/jss.v067.i01, section 3.4).
All that depends on the rows are cross-products of [Z X y], computed once: the cost of one
evaluation does not grow with n.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log, pi

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from bayesglmm.errors import FittedExactly
from bayesglmm.laplace import chain, kernels
from bayesglmm.laplace.covariance import Covariance
from bayesglmm.laplace.factor import Factor, factorize, inverse_blocks, solve
from bayesglmm.laplace.standardise import Coordinates
from bayesglmm.laplace.structure import Array, Structure, Whole

_ROWS_PER_CHUNK = 65536
# Share of the squares of residuals that effects leave, below which it is rounding: cross-products
# know it to about 1e-13.
EXACT = 2e-12
ROUNDING = 1e-12  # residual of a typical row, relative to the largest response, that is none


@dataclass(frozen=True, slots=True)
class LinearProblem:
    """Cross-products of a weighted linear mixed model.

    Attributes
    ----------
    structure, covariance
        Of the random effects.
    W
        Z'WZ in flat blocks.
    zx
        (effects, p+1) Z'W[X r]; r is the residual of y on X, so that no cancellation hides in
        r'r when y is far from zero.
    xx
        (p+1, p+1) [X r]'W[X r].
    ols
        (p,) least-squares coefficients that were taken out of y.
    n
        Number of rows.
    log_weights
        Sum of log w.
    places, entries
        Positions of theta among the Lambdas as the kernels take them, and (k, 3) the term in
        order of elimination, the row and the column of each.
    """

    structure: Structure
    covariance: Covariance
    W: Array
    zx: Array
    xx: Array
    ols: Array
    n: int
    log_weights: float
    places: Whole = field(init=False)
    entries: Whole = field(init=False)

    def __post_init__(self) -> None:
        entries = self.covariance.entries
        object.__setattr__(self, "places", self.structure.places(entries))
        object.__setattr__(self, "entries", self.structure.columns(entries))

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
        Minimisers; u (effects, 1) spherical.
    rss
        Minimum of |y - X beta - M u|^2 + |u|^2, weighted.
    factor, inverse
        H, and H^-1 at the pairs of levels that meet, in flat blocks.
    fixed
        Lower Cholesky factor of X'WX - X'WM H^-1 M'WX.
    ux
        (effects, p) H^-1 M'WX.
    left
        (effects, 1) Z'W (y - X beta - M u).
    logdet_fixed
        log det of ``fixed``.
    """

    beta: Array
    u: Array
    rss: float
    factor: Factor
    inverse: Array
    fixed: Array
    ux: Array
    left: Array
    logdet_fixed: float

    def fixed_inverse(self) -> Array:
        """(p, p) covariance of beta per unit sigma^2."""
        p = len(self.beta)
        return np.asarray(dpotrs(self.fixed, np.eye(p), lower=1)[0]) if p else np.zeros((0, 0))


def linear_problem(at: Coordinates, y: Array, w: Array, covariance: Covariance) -> LinearProblem:
    """Pass over the data."""
    structure, X = at.structure, at.X
    n, p = X.shape
    if np.all(w == 1.0):
        ols = X.T @ y  # the columns are orthonormal
    else:
        root = np.sqrt(w)
        ols = np.linalg.lstsq(X * root[:, None], y * root, rcond=None)[0]
    columns = np.empty((n, p + 1))
    columns[:, :p] = X
    columns[:, p] = y - X @ ols
    weights = np.array(w)
    W, zx = np.empty(structure.values), np.empty((structure.effects, p + 1))
    kernels.cross_products(structure.arrays, at.Z, weights, W)
    xx = np.zeros((p + 1, p + 1))
    for k in range(0, n, _ROWS_PER_CHUNK):
        part = columns[k : k + _ROWS_PER_CHUNK]
        xx += part.T @ (part * weights[k : k + _ROWS_PER_CHUNK, None])
    columns *= weights[:, None]
    kernels.sum_rows(structure.arrays, at.Z, columns, zx)
    return LinearProblem(structure, covariance, W, zx, xx, ols, n, float(np.sum(np.log(weights))))


def penalised_least_squares(problem: LinearProblem, theta: Array) -> Solution:
    """Solve for (beta, u) at theta.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the information is not positive definite.
    """
    if not problem.structure.q:
        return _in_one_call(problem, theta)
    structure, p = problem.structure, problem.p
    lam = structure.pack(problem.covariance.lambdas(theta))
    factor = factorize(structure, problem.W, lam)
    rhs = np.empty_like(problem.zx)
    kernels.scale_sums(structure.arrays, lam, problem.zx, rhs)
    solved = solve(factor, rhs)
    schur = problem.xx - rhs.T @ solved
    fixed, delta = np.zeros((0, 0)), np.zeros(0)
    if p:
        fixed, info = dpotrf(schur[:p, :p], lower=1)
        if info:
            raise np.linalg.LinAlgError(_SINGULAR)
        delta = dpotrs(fixed, schur[:p, p], lower=1)[0]
    rss = float(schur[p, p] - schur[:p, p] @ delta)
    u = (solved[:, p] - solved[:, :p] @ delta)[:, None]
    logdet_fixed = 2.0 * float(np.log(fixed.diagonal()).sum())
    beta, ux = problem.ols + delta, np.array(solved[:, :p])
    left = remainder(problem, lam, delta, u)
    return Solution(beta, u, rss, factor, inverse_blocks(factor), fixed, ux, left, logdet_fixed)


_SINGULAR = "the information of the fixed effects is singular"


def _in_one_call(problem: LinearProblem, theta: Array) -> Solution:
    """The same where there is no trailing block."""
    structure, p = problem.structure, problem.p
    effects, values = structure.effects, structure.values
    lam, u, left = np.empty(structure.lambda_size), np.empty((effects, 1)), np.empty((effects, 1))
    H, inverse, ux = np.empty(values), np.empty(values), np.empty((effects, p))
    fixed, delta = np.empty((p, p)), np.empty(p)
    status, rss, logdet, logdet_fixed = chain.least_squares(
        structure.arrays,
        problem.places,
        problem.W,
        problem.zx,
        problem.xx,
        theta,
        lam,
        u,
        H,
        inverse,
        ux,
        fixed,
        delta,
        left,
    )
    if status:
        raise np.linalg.LinAlgError(_SINGULAR)
    factor = Factor(structure, lam, H, np.empty((0, 0)), logdet)
    return Solution(problem.ols + delta, u, rss, factor, inverse, fixed, ux, left, logdet_fixed)


def deviance(
    problem: LinearProblem, theta: Array, reml: bool, sigma: float | None = None
) -> tuple[float, Array]:
    """-2 log-likelihood (or REML criterion) and its gradient in theta.

    beta is profiled out, and so is sigma unless it is given.
    """
    return deviance_at(problem, penalised_least_squares(problem, theta), reml, sigma)


def deviance_at(
    problem: LinearProblem, at: Solution, reml: bool, sigma: float | None = None
) -> tuple[float, Array]:
    """The same where the least-squares problem is solved already."""
    df = problem.n - problem.p if reml else problem.n
    variance = at.rss / df if sigma is None else sigma**2
    if variance <= 0.0:
        raise FittedExactly
    value = (
        at.factor.logdet - problem.log_weights + df * log(2.0 * pi * variance) + at.rss / variance
    )
    structure, p, lam = problem.structure, problem.p, at.factor.lam
    s = structure.arrays
    slopes = np.empty_like(lam)
    kernels.logdet_slopes(s, lam, problem.W, at.inverse, slopes)
    kernels.outer_sums(s, at.left / -variance, at.u, slopes)
    if reml:
        value += at.logdet_fixed
        left = _left(problem, lam, np.array(problem.zx[:, :p]), at.ux)
        kernels.outer_sums(s, left @ -at.fixed_inverse(), at.ux, slopes)
    return value, 2.0 * slopes[problem.places]


def remainder(problem: LinearProblem, lam: Array, delta: Array, u: Array) -> Array:
    """(effects, 1) Z'W (y - X beta - M u)."""
    own = np.append(-delta, 1.0)[:, None]  # [X r] times this is y - X beta
    return _left(problem, lam, problem.zx @ own, u)


def _left(problem: LinearProblem, lam: Array, sums: Array, u: Array) -> Array:
    """Z'W (columns - M u) from Z'W columns, (effects, m)."""
    s = problem.structure.arrays
    b, moved = np.empty_like(u), np.empty_like(u)
    kernels.scale_effects(s, lam, u, b)
    kernels.multiply_blocks(s, problem.W, b, moved)
    return sums - moved


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Derivatives in theta (k,) of the solution, exact.

    Attributes
    ----------
    fixed
        (k, p, p) of X'WX - X'WM H^-1 M'WX.
    beta
        (k, p) of beta.
    rss
        (k,) of the penalised residual sum of squares.
    """

    fixed: Array
    beta: Array
    rss: Array


def sensitivity(problem: LinearProblem, at: Solution) -> Sensitivity:
    """How the solution moves with theta, by the envelope theorem.

    The quadratic form of [X r] that remains after u is minimised out has the derivative
    -(E'dM U + U'dM'E), where U are the minimisers and E what they leave.
    """
    p, structure = problem.p, problem.structure
    # The last column of [X r], its minimiser and what it leaves, beta not yet taken out.
    delta = at.beta - problem.ols
    U = np.empty_like(problem.zx)
    U[:, :p] = at.ux
    U[:, p] = at.u[:, 0] + at.ux @ delta
    E = _left(problem, at.factor.lam, problem.zx, U)
    left, effects = structure.split(E), structure.split(U)
    forms = np.empty((problem.covariance.size, p + 1, p + 1))
    for k, (f, row, column) in enumerate(problem.covariance.entries):
        half = left[f][:, row, :].T @ effects[f][:, column, :]
        forms[k] = -(half + half.T)
    moved = forms[:, :p, p] - forms[:, :p, :p] @ delta
    beta = moved @ at.fixed_inverse()
    tail = np.append(-delta, 1.0)
    return Sensitivity(forms[:, :p, :p], beta, forms @ tail @ tail)
