"""Where to start the variance parameters: moments of the residuals, and the scale of the search.

The sums of squares of Z'r are linear in the variances in expectation (MINQUE with a priori
variances of zero; Rao 1972, doi:10.1080/01621459.1972.10481212): one small linear system, built
from cross-products that are at hand, gives consistent estimates whatever the structure.
"""

from __future__ import annotations

import numpy as np

from bayesglmm.laplace import kernels
from bayesglmm.laplace.factor import Factor, solve, solve_information
from bayesglmm.laplace.pirls import Problem
from bayesglmm.laplace.structure import Array, Structure, Whole

# Effects are never started closer to zero than where they explain this share of the variance of
# a level's sum: sd = 0 is a stationary point, because the likelihood is even in theta.
_SMALLEST_SHARE = 0.05


def moment_start(
    structure: Structure,
    entries: Whole,
    W: Array,
    zr: Array,
    rr: float,
    n: int,
    *,
    known_residual: bool,
) -> tuple[Array, Array]:
    """theta to start from, relative to the residual sd, and a standard error of each entry.

    Parameters
    ----------
    entries
        (k, 3) term in order of elimination, row and column of each theta.
    W
        Z'WZ in flat blocks.
    zr
        (effects, 1) Z'W r for residuals r of the fixed effects.
    rr
        r'W r.
    n
        Number of rows.
    known_residual
        Whether the residual variance is 1 (W holds the weights of a GLMM), not to be estimated.
    """
    levels, columns = structure.terms[:, 0], structure.terms[:, 1]
    size = int(columns.sum())
    system, moments = np.zeros((size + 1, size + 1)), np.zeros(size + 1)
    own = np.empty(structure.effects)  # Z'WZ of every effect by itself
    kernels.moment_equations(structure.arrays, W, zr, system, moments, own)
    mean = np.maximum(system[:size, size] / np.repeat(levels, columns), 1e-300)
    if known_residual:
        residual = 1.0
        variances = solve_information(system[:size, :size], moments[:size] - system[:size, size])
    else:
        system[size, size], moments[size] = n, rr
        variances = solve_information(system, moments)
        residual = max(float(variances[size]), 1e-3 * rr / n)
    floor = _SMALLEST_SHARE / (1.0 - _SMALLEST_SHARE) / mean
    relative = np.maximum(variances[:size] / residual, floor)
    theta, error = np.empty(len(entries)), np.empty(len(entries))
    kernels.moment_errors(structure.arrays, entries, own, relative, theta, error)
    return theta, np.minimum(error, np.maximum(theta, 1.0))


def generalised_start(problem: Problem, eta: Array, sigma: float) -> tuple[Array, Array, Array]:
    """The same from the working residuals of a model without random effects.

    Parameters
    ----------
    eta
        (n,) its linear predictor.
    sigma
        Scale of the family, 1 where it has none.

    Returns
    -------
    (k,) theta, (k,) standard errors, Z'WZ in flat blocks
    """
    density, columns = problem.density, problem.columns
    structure, n = columns.structure, len(eta)
    l = np.empty((4, n))
    density(eta, sigma, l)
    w = np.maximum(density.likelihood.expected_weights(eta, sigma), 1e-300)
    W, zr = np.empty(structure.values), np.empty((structure.effects, 1))
    kernels.cross_products(structure.arrays, columns.Z, w, W)
    kernels.sum_rows(structure.arrays, columns.Z, l[1][:, None], zr)
    rr = float(np.sum(l[1] ** 2 / w))
    theta, error = moment_start(structure, problem.entries, W, zr, rr, n, known_residual=True)
    return theta, error, W


def average_information(
    entries: Whole,
    W: Array,
    factor: Factor,
    u: Array,
    score: Array,
    zx: Array,
    solved: Array,
    schur: Array,
) -> tuple[Array, Array]:
    """Information of theta, the mean of the observed and the expected one (Gilmour et al. 1995).

    It costs one solve, where the observed information needs traces of products of inverses; near
    the optimum it differs from that by sampling error only (doi:10.2307/2533274).

    Parameters
    ----------
    entries
        (k, 3) term in order of elimination, row and column of each theta.
    W, factor
        Z'WZ in flat blocks, and H factorised.
    u, score
        (effects, 1) spherical modes, and Z'W times what the fit leaves (Z' l' in a GLMM).
    zx, solved, schur
        (effects, p) Z'WX and H^-1 M'WX; (p, p) information of beta.

    Returns
    -------
    (k, k), (k,)
        In units of the residual variance: the information with beta profiled out, and the sums
        that tie theta to the scale of a linear model.
    """
    structure, lam = factor.structure, factor.lam
    A = np.empty((structure.effects, len(entries)))
    kernels.moved_columns(structure.arrays, lam, entries, u, score, A)
    product, scaled = np.empty_like(A), np.empty_like(A)
    kernels.multiply_blocks(structure.arrays, W, A, product)
    kernels.scale_sums(structure.arrays, lam, product, scaled)
    information = A.T @ product - scaled.T @ solve(factor, scaled)
    if zx.shape[1]:
        fixed = zx.T @ A - solved.T @ scaled
        information -= fixed.T @ solve_information(schur, fixed)
    return 0.5 * information, A.T @ score[:, 0]
