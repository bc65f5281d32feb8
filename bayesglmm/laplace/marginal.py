"""The Laplace log-likelihood of a GLMM and its gradient.

L(theta, beta, sigma) = f(u_hat) - 1/2 log det H. The gradient is analytical: the explicit
derivative at the modes, plus the log-determinant's, which moves through the weights and the
modes and needs leverages, third derivatives and one more solve (the construction of TMB;
Kristensen et al. 2016, doi:10.18637/jss.v070.i05).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesglmm.families import Likelihood
from bayesglmm.laplace.blocks import (
    Array,
    Layout,
    inverse_trailing,
    leverages,
    logdet_gradient,
    row_product,
    solve,
    transpose_product,
)
from bayesglmm.laplace.covariance import Covariance
from bayesglmm.laplace.pirls import Modes, conditional_modes, scale_down, scale_up


@dataclass(frozen=True, slots=True)
class Problem:
    """Everything the objective needs that does not change during a fit."""

    X: Array
    offset: Array
    likelihood: Likelihood
    layout: Layout
    covariance: Covariance

    @property
    def p(self) -> int:
        """Number of fixed effects."""
        return int(self.X.shape[1])


@dataclass(frozen=True, slots=True)
class Value:
    """The marginal log-likelihood at a point.

    ``beta``, ``theta`` and ``log_sigma`` are its derivatives; ``modes`` the state there.
    """

    loglik: float
    theta: Array
    beta: Array
    log_sigma: float
    modes: Modes


def laplace(problem: Problem, theta: Array, beta: Array, sigma: float, start: list[Array]) -> Value:
    """Laplace log-likelihood and gradient at (theta, beta, sigma).

    Raises
    ------
    numpy.linalg.LinAlgError
        If the information at the modes is not positive definite.
    """
    lambdas = problem.covariance.lambdas(theta)
    layout, likelihood = problem.layout, problem.likelihood
    fixed = problem.X @ beta + problem.offset
    modes = conditional_modes(layout, likelihood, fixed, lambdas, start, sigma)
    factor, w = modes.factor, -modes.l2
    Sinv = inverse_trailing(factor)
    h = leverages(factor, Sinv)
    c = 0.5 * modes.l3 * h
    rhs = [r[..., None] for r in scale_down(lambdas, transpose_product(layout, c))]
    v = [s[..., 0] for s in solve(factor, rhs)]
    mv = row_product(layout, scale_up(lambdas, v))
    a = modes.l1 + c - w * mv
    za, zl = transpose_product(layout, a), transpose_product(layout, modes.l1)
    G = logdet_gradient(factor, modes.cross, Sinv)
    slopes = tuple(za[f].T @ modes.u[f] + zl[f].T @ v[f] - G[f] for f in range(len(layout.sizes)))
    log_sigma = 0.0
    if likelihood.family.has_scale:
        s0, s1, s2 = likelihood.scale_derivatives(modes.eta, sigma)
        log_sigma = float(np.sum(s0 + 0.5 * h * s2 + mv * s1))
    return Value(
        modes.f - 0.5 * factor.logdet,
        problem.covariance.collect(slopes),
        problem.X.T @ a,
        log_sigma,
        modes,
    )
