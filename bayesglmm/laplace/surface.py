"""The log-likelihood of a mixed model and its gradient, at any parameters.

The one file through which profiles use the engine. The coordinates are free, of order one and
linear in what is estimated, so that a search over them needs no further scaling.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import solve_triangular

from bayesglmm.design import Design
from bayesglmm.errors import FitError
from bayesglmm.families import Likelihood
from bayesglmm.families.compiled import Density
from bayesglmm.laplace.covariance import Covariance, covariance_of
from bayesglmm.laplace.glm import fit_glm
from bayesglmm.laplace.marginal import laplace
from bayesglmm.laplace.optimise import hessian
from bayesglmm.laplace.pirls import Problem
from bayesglmm.laplace.pls import deviance_at, linear_problem, penalised_least_squares
from bayesglmm.laplace.quadrature import adaptive
from bayesglmm.laplace.standardise import Coordinates, coordinates
from bayesglmm.laplace.structure import Array
from bayesglmm.laplace.threads import blas_threads

Objective = Callable[[Array], tuple[float, Array]]

_DECREMENT = 1e-8  # squared length, in standard errors, of the last step of a search that arrived
_LARGEST = 1e6  # of a coordinate; beyond it the likelihood is not computed


@dataclass(frozen=True, slots=True)
class Surface:
    """The log-likelihood as a function of ``x``.

    ``x`` lists the entries of T_f^-1 Lambda_f as ``covariance`` does, where Lambda_f is the
    Cholesky factor of the covariance of term f on the scale of the linear predictor; then log
    sigma, where there is a scale; then R beta, except for a linear model, where beta is
    maximised out. Signs of the columns of Lambda_f are free.

    Attributes
    ----------
    covariance
        Which entry of which Lambda each of the first coordinates is.
    lifts
        (K_f, K_f) T_f, lower triangular with positive diagonals, so that fixing the first row
        of Lambda_f fixes coordinates.
    root
        (p, p) R, upper triangular; (0, 0) for a linear model.
    has_scale
        Whether log sigma is among the coordinates.
    scale
        (m,) expected size of a change in each coordinate.
    loglik
        x -> log-likelihood, all constants included, and its (m,) gradient; -inf where it
        cannot be computed.
    """

    covariance: Covariance
    lifts: tuple[Array, ...]
    root: Array
    has_scale: bool
    scale: Array
    loglik: Objective

    def point(self, factors: tuple[Array, ...], sigma: float, beta: Array) -> Array:
        """The coordinates of (Lambda_f, sigma, beta)."""
        inner = tuple(
            solve_triangular(T, factor, lower=True)
            for T, factor in zip(self.lifts, factors, strict=True)
        )
        parts = [self.covariance.collect(inner)]
        if self.has_scale:
            parts.append(np.array([np.log(sigma)]))
        if len(self.root):
            parts.append(self.root @ beta)
        return np.concatenate(parts)


def surface(design: Design, likelihood: Likelihood, nagq: int, unit: float) -> Surface:
    """The log-likelihood of a model with random effects.

    Parameters
    ----------
    nagq
        Nodes of the quadrature; 1 for the Laplace approximation (exact for linear models).
    unit
        Size of the random effects to be expected: about the residual sd of a row in a linear
        model, 1 on a link scale.
    """
    columns, covariance = (
        coordinates(design, design.structure, lower_whitening),
        covariance_of(design.random),
    )
    R, lifts = columns.R, columns.transforms
    linear, has_scale = likelihood.is_linear, likelihood.family.has_scale
    if linear:
        loglik = _linear(columns, design, likelihood, covariance)
    else:
        unit_columns = columns.X * np.sqrt(design.n)  # columns of order one
        columns, R = replace(columns, X=unit_columns), R / np.sqrt(design.n)
        problem = Problem(columns, design.offset, Density(likelihood), covariance)
        loglik = _generalised(problem, nagq)
    size = int(has_scale) + (0 if linear else design.p)
    return Surface(
        covariance,
        lifts,
        np.zeros((0, 0)) if linear else R,
        has_scale,
        np.concatenate([np.full(covariance.size, unit), np.ones(size)]),
        loglik,
    )


def without_effects(X: Array, offset: Array, likelihood: Likelihood) -> float:
    """The log-likelihood of a model without random effects, maximised over beta (and sigma).

    -inf where no maximum is found.
    """
    try:
        at = fit_glm(np.linalg.qr(X)[0], offset, likelihood)
    except FitError:  # no means inside their range, for an identity or log link
        return -np.inf
    if not at.decrement < _DECREMENT:
        return -np.inf
    deviance_ = likelihood.deviance(likelihood.link.inverse(at.eta))
    sigma = float(np.sqrt(deviance_ / len(offset))) if likelihood.family.has_scale else 1.0
    return float(np.sum(likelihood.log_density(at.eta, sigma)))


def curvature(objective: Objective, x: Array, scale: Array) -> Array:
    """The Hessian of an objective at x."""
    return hessian(objective, x, scale, objective(x)[1])


def threads(design: Design) -> AbstractContextManager[object]:
    """How many threads the linear algebra of this design is worth, for as long as it runs."""
    return blas_threads(design.structure.q if design.random else 0)


def lower_whitening(Z: Array, correlated: bool) -> Array:
    """T with orthonormal columns Z T, lower triangular (diagonal for ``||``)."""
    rms = np.sqrt(np.mean(Z * Z, axis=0))
    T = np.diag(1.0 / np.where(rms > 0.0, rms, 1.0))
    if correlated and len(rms) > 1:
        # From the last column to the first, which makes T lower triangular.
        R = np.linalg.qr((Z @ T)[:, ::-1], mode="r") / np.sqrt(len(Z))
        if np.linalg.cond(R) < 1e8:
            T = T @ np.linalg.inv(R)[::-1, ::-1]
            T = T * np.sign(np.diag(T))
    return T


def _linear(
    columns: Coordinates, design: Design, likelihood: Likelihood, covariance: Covariance
) -> Objective:
    problem = linear_problem(columns, likelihood.y - design.offset, likelihood.w, covariance)
    k, n = covariance.size, design.n

    def loglik(x: Array) -> tuple[float, Array]:
        if not np.max(np.abs(x[k:])) < 300.0 or not np.all(np.isfinite(x)):
            return -np.inf, np.zeros_like(x)
        sigma = float(np.exp(x[k]))
        theta = x[:k] / sigma
        try:
            at = penalised_least_squares(problem, theta)
            value, slope = deviance_at(problem, at, False, sigma)
        except np.linalg.LinAlgError:
            return -np.inf, np.zeros_like(x)
        # With Lambda fixed, theta = Lambda / sigma moves with sigma.
        in_sigma = at.rss / sigma**2 - n + 0.5 * float(slope @ theta)
        return -0.5 * value, np.append(-0.5 * slope / sigma, in_sigma)

    return loglik


def _generalised(problem: Problem, nagq: int) -> Objective:
    k, has_scale = problem.covariance.size, problem.density.likelihood.family.has_scale
    first = k + int(has_scale)
    # Where the last search for the modes ended; it only saves the next one steps.
    warm = problem.zeros()

    def loglik(x: Array) -> tuple[float, Array]:
        nonlocal warm
        if not np.max(np.abs(x)) < _LARGEST:
            return -np.inf, np.zeros_like(x)
        sigma = float(np.exp(x[k])) if has_scale else 1.0
        try:
            if nagq == 1:
                at = laplace(problem, x[:k], x[first:], sigma, warm)
            else:
                at = adaptive(problem, x[:k], x[first:], sigma, warm, k=nagq)
        except (np.linalg.LinAlgError, FloatingPointError):
            return -np.inf, np.zeros_like(x)
        warm = at.modes.b
        scale = [np.array([at.log_sigma])] if has_scale else []
        gradient = np.concatenate([at.theta, *scale, at.beta])
        if not (np.isfinite(at.loglik) and np.all(np.isfinite(gradient))):
            return -np.inf, np.zeros_like(x)
        return at.loglik, gradient

    return loglik
