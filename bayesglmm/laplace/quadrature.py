"""Adaptive Gauss-Hermite quadrature for one random-effects term, scalar or vector.

Each level's integral over its own K effects is taken by a product Gauss-Hermite rule centred at
the conditional mode and scaled by the Cholesky factor of the conditional covariance; one node is
the Laplace approximation (Pinheiro & Bates 1995, doi:10.1080/10618600.1995.10474663). The
gradient is exact: it follows the nodes as they move with the parameters.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np

from bayesglmm.laplace import chain, kernels
from bayesglmm.laplace.factor import diagonal_blocks
from bayesglmm.laplace.marginal import Value, total_slopes
from bayesglmm.laplace.pirls import Problem, conditional_modes
from bayesglmm.laplace.structure import Array


@cache
def nodes_and_log_weights(k: int, dimension: int) -> tuple[Array, Array]:
    """Nodes x (N, K) and log weights (N,), N = k^K.

    The sum of e^{log weight} g(x) is the integral of e^{|x|^2/2} phi(x) g(x): the factor is
    inside the weights because the rule integrates exp(f) whole.
    """
    x, w = np.polynomial.hermite_e.hermegauss(k)
    log_weight = np.log(w) - 0.5 * np.log(2.0 * np.pi) + 0.5 * x * x
    places = np.array(list(product(range(k), repeat=dimension)))
    out = x[places], log_weight[places].sum(axis=1)
    for array in out:
        array.setflags(write=False)
    return out


def adaptive(
    problem: Problem,
    theta: Array,
    beta: Array,
    sigma: float,
    start: Array,
    least: int = 0,
    *,
    k: int,
) -> Value:
    """Quadrature log-likelihood with k nodes per effect, and its gradient.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the information at the modes is not positive definite.
    """
    columns, density = problem.columns, problem.density
    structure, Z = columns.structure, columns.Z
    s, (J, K) = structure.arrays, (int(v) for v in structure.terms[0, :2])
    lam = structure.pack(problem.covariance.lambdas(theta))
    fixed = columns.X @ beta + problem.offset
    modes = conditional_modes(problem, beta, lam, start, sigma, least=least)
    L = np.tril(diagonal_blocks(structure, modes.factor.H)[0])  # of every level's H
    Linv = np.linalg.inv(L)
    x, log_weight = nodes_and_log_weights(k, K)
    N, n = len(x), len(fixed)
    away = np.einsum("jba,qb->jqa", Linv, x)  # L'^-1 x, how far each node is from the mode
    points = np.ascontiguousarray(modes.u.reshape(J, 1, K) + away)

    index, has_scale = structure.slots[0], density.likelihood.family.has_scale
    log_terms, row_slopes, scale_slopes = np.empty((J, N)), np.empty((n, N)), np.zeros((J, N))
    if density.compiled is not None and not has_scale:
        chain.node_rows(s, lam, Z, fixed, density.compiled, sigma, points, log_terms, row_slopes)
    else:
        b, eta, out = np.empty((J * K, 1)), np.empty(n), np.empty((4, n))
        for q in range(N):
            kernels.predict(s, lam, Z, fixed, np.array(points[:, q]).reshape(-1, 1), b, eta)
            density(eta, sigma, out)
            log_terms[:, q] = np.bincount(index, out[0], J)
            row_slopes[:, q] = out[1]
            if has_scale:
                explicit = density.likelihood.scale_derivatives(eta, sigma)[0]
                scale_slopes[:, q] = np.bincount(index, explicit, J)
    log_terms += log_weight - 0.5 * np.einsum("jqa,jqa->jq", points, points)
    peak = log_terms.max(axis=1)
    share = np.exp(log_terms - peak[:, None])
    total = share.sum(axis=1)
    level = peak + np.log(total)
    share /= total[:, None]  # (J, N), rows sum to one
    value = float(np.sum(level)) - 0.5 * modes.factor.logdet + density.constant(sigma)

    sums, scaled = np.empty((J * K, N)), np.empty((J * K, N))
    kernels.sum_rows(s, Z, row_slopes, sums)
    kernels.scale_sums(s, lam, sums, scaled)
    weighted = sums.reshape(J, K, N) * share[:, None, :]
    pull = (scaled.reshape(J, K, N).transpose(0, 2, 1) - points) * share[:, :, None]
    # The nodes hang on L, and the rule's volume on det L.
    bar = -np.einsum("jqa,jqb->jab", away, np.einsum("jab,jqb->jqa", Linv, pull))
    corner = np.arange(K)
    bar[:, corner, corner] -= 1.0 / L[:, corner, corner]
    half = np.tril(L.transpose(0, 2, 1) @ np.tril(bar))
    half[:, corner, corner] *= 0.5
    information_bar = 0.5 * Linv.transpose(0, 2, 1) @ (half + half.transpose(0, 2, 1)) @ Linv
    slopes = total_slopes(
        problem,
        modes,
        sigma,
        rows=np.einsum("nq,nq->n", row_slopes, share[index]),
        lambdas=np.einsum("jaq,jqb->ab", weighted, points).ravel(),
        modes_bar=pull.sum(axis=1).reshape(-1, 1),
        information_bar=information_bar.ravel(),
    )
    log_sigma = slopes.log_sigma + float(np.sum(share * scale_slopes)) if has_scale else 0.0
    return Value(value, slopes.theta, slopes.beta, log_sigma, modes)
