"""Adaptive Gauss-Hermite quadrature for one scalar random-effects term.

Each level's integral over its own effect is taken by a Gauss-Hermite rule centred at the
conditional mode and scaled by its standard deviation; one node is the Laplace approximation
(Pinheiro & Bates 1995, doi:10.1080/10618600.1995.10474663). The gradient is exact: it follows
the nodes as they move with the parameters.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from bayesglmm.laplace.blocks import Array
from bayesglmm.laplace.marginal import Problem, Value
from bayesglmm.laplace.pirls import conditional_modes


def nodes_and_log_weights(k: int) -> tuple[Array, Array]:
    """Nodes x and log weights with sum_k e^{lw_k} g(x_k) ~ integral of e^{x^2/2} phi(x) g(x).

    The factor e^{x^2/2} is inside the weights because the rule integrates exp(f) whole.
    """
    x, w = np.polynomial.hermite_e.hermegauss(k)
    return x, np.log(w) - 0.5 * np.log(2.0 * np.pi) + 0.5 * x * x


def adaptive(
    problem: Problem, theta: Array, beta: Array, sigma: float, start: list[Array], k: int
) -> Value:
    """Quadrature log-likelihood with k nodes per level, and its gradient."""
    layout, likelihood = problem.layout, problem.likelihood
    lambdas = problem.covariance.lambdas(theta)
    fixed = problem.X @ beta + problem.offset
    modes = conditional_modes(layout, likelihood, fixed, lambdas, start, sigma)
    index, z = layout.index[0], layout.Z[0][:, 0]
    J = layout.sizes[0][0]
    t, u = float(theta[0]), modes.u[0][:, 0]
    m = z * t
    l1, l2, l3 = modes.l1, modes.l2, modes.l3

    def total(v: Array) -> Array:
        """Sum over the rows of each level: (n,) -> (J,), (n, p) -> (J, p)."""
        if v.ndim == 1:
            return np.bincount(index, v, J)
        return np.stack([np.bincount(index, column, J) for column in v.T], axis=1)

    H = 1.0 + total(-l2 * m * m)
    s = 1.0 / np.sqrt(H)
    # How mode and spread move with (beta, theta, log sigma), by the implicit function theorem.
    X = np.column_stack([problem.X, z * u[index]])  # explicit derivative of eta
    mixed = total((l2 * m)[:, None] * X)
    mixed[:, -1] += total(l1 * z)
    u_dot = mixed / H[:, None]
    eta_dot = X + m[:, None] * u_dot[index]
    H_dot = total((-l3 * m * m)[:, None] * eta_dot)
    H_dot[:, -1] += total(-2.0 * l2 * m * z)
    has_scale = likelihood.family.has_scale
    if has_scale:
        s1, s2 = likelihood.scale_derivatives(modes.eta, sigma)[1:]
        u_sigma = total(s1 * m) / H
        u_dot = np.column_stack([u_dot, u_sigma])
        H_dot = np.column_stack([H_dot, total(-(s2 + l3 * m * u_sigma[index]) * m * m)])
    ratio = -0.5 * H_dot / H[:, None]  # s_dot / s

    x, log_weight = nodes_and_log_weights(k)
    points = u[:, None] + s[:, None] * x
    log_terms = np.empty((J, k))
    slopes = np.empty((len(z), k))
    scale_slopes = np.empty((len(z), k))
    for q in range(k):
        eta = fixed + m * points[index, q]
        log_terms[:, q] = total(likelihood.log_density(eta, sigma)) - 0.5 * points[:, q] ** 2
        slopes[:, q] = likelihood.derivatives(eta, sigma)[0]
        if has_scale:
            scale_slopes[:, q] = likelihood.scale_derivatives(eta, sigma)[0]
    log_terms += log_weight
    level = logsumexp(log_terms, axis=1)
    loglik = float(np.sum(level + np.log(s)))

    share = np.exp(log_terms - level[:, None])  # (J, k), rows sum to one
    row_slope = np.sum(share[index] * slopes, axis=1)
    gradient = np.empty(u_dot.shape[1])
    gradient[: problem.p] = problem.X.T @ row_slope
    node_u = points[index]
    gradient[problem.p] = np.sum(share[index] * slopes * z[:, None] * node_u)
    if has_scale:
        gradient[problem.p + 1] = np.sum(share[index] * scale_slopes)
    at_node = np.stack([total(slopes[:, q] * m) for q in range(k)], axis=1) - points
    gradient += np.sum(share * at_node, axis=1) @ u_dot
    gradient += np.sum(share * at_node * x * s[:, None], axis=1) @ ratio + ratio.sum(axis=0)
    return Value(
        loglik,
        gradient[problem.p : problem.p + 1],
        gradient[: problem.p],
        float(gradient[problem.p + 1]) if has_scale else 0.0,
        modes,
    )
