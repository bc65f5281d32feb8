"""The log posterior of the covariance parameters of a Gaussian model, all else integrated out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs, dtrtrs

from bayesglmm.approximate.density import Completed, Layout, half_solve, raw_coordinates
from bayesglmm.approximate.prior import split_normal
from bayesglmm.laplace import kernels
from bayesglmm.laplace.factor import Factor
from bayesglmm.laplace.pls import (
    LinearProblem,
    Solution,
    deviance_at,
    linear_problem,
    penalised_least_squares,
    remainder,
    sensitivity,
)
from bayesglmm.laplace.start import moment_start
from bayesglmm.laplace.structure import Array

if TYPE_CHECKING:
    from bayesglmm.model import Model

_LOG_2PI = float(np.log(2.0 * np.pi))
_FARTHEST = 25.0  # of a log sd from where it starts: beyond, exp loses its meaning


@dataclass(frozen=True, slots=True)
class _At:
    """The model at one t.

    Attributes
    ----------
    sigma, factors, theta
        Residual sd, factors of the random effects, and what the engine sees of them.
    found
        Penalised least squares.
    half, mean
        Lower Cholesky factor of the conditional posterior precision of beta, and its mean, for
        orthonormal columns.
    value
        Log density of the response, beta integrated out.
    """

    sigma: float
    factors: Array
    theta: Array
    found: Solution
    half: Array
    mean: Array
    value: float

    def u(self, beta: Array) -> Array:
        """(effects, 1) conditional mean of the spherical effects given beta."""
        return np.asarray(self.found.u - (self.found.ux @ (beta - self.found.beta))[:, None])

    def rss(self) -> float:
        """Penalised sum of squares at the mean of beta."""
        away = self.found.fixed.T @ (self.mean - self.found.beta)
        return self.found.rss + float(away @ away)


class LinearPosterior:
    """Of t, coefficients and random effects integrated out exactly.

    Only normal priors of coefficients can be; others come in as a weight, both in ``value`` and
    in ``exact``.
    """

    def __init__(self, model: Model) -> None:
        design, likelihood = model.design, model.likelihood
        self.layout = Layout(model)
        normal, self.rest, precision, shift = split_normal(model)
        self.normal = normal
        columns = raw_coordinates(model)
        self.columns = columns
        self.problem = linear_problem(
            columns, likelihood.y - design.offset, likelihood.w, self.layout.covariance
        )
        self.Rinv = np.linalg.inv(columns.R) if design.p else np.zeros((0, 0))
        self.precision = self.Rinv.T @ precision @ self.Rinv
        self.shift = self.Rinv.T @ shift
        self.k, self.p = self.layout.prior.scales.size, design.p
        self.size, self.n_scales = self.k, self.k
        self.approximates, self.independent = False, 1
        problem = self.problem
        rr = float(problem.xx[-1, -1])
        sigma = np.sqrt(max(rr, 1e-16) / max(design.n - design.p, 1))
        theta, error = np.zeros(0), np.zeros(0)
        if columns.structure.effects and rr > 0.0:
            theta, error = moment_start(
                columns.structure,
                self.layout.covariance,
                problem.W,
                problem.zx[:, self.p],
                rr,
                design.n,
                known_residual=False,
            )
        else:
            theta = np.full(self.layout.covariance.size, 0.5)
            error = theta
        self.start, self.scale = self.layout.start(theta, error, float(sigma))
        self.least_squares = _least_squares(problem)

    def _at(self, x: Array) -> _At:
        prior, problem = self.layout.prior, self.problem
        sigma, factors = prior.sigma(x), prior.factors(x)
        theta = factors[self.layout.places] / sigma
        found = penalised_least_squares(problem, theta) if len(theta) else self.least_squares
        half, mean, value = found.fixed, found.beta, 0.0
        if self.p:
            schur = np.tril(found.fixed) @ np.tril(found.fixed).T / sigma**2
            half, info = dpotrf(schur + self.precision, lower=1, clean=1)
            if info:
                raise np.linalg.LinAlgError("the precision of the coefficients is singular")
            mean = dpotrs(half, schur @ found.beta + self.shift, lower=1)[0]
            value = self.normal(self.Rinv @ mean, np.zeros(self.p)) + 0.5 * self.p * _LOG_2PI
            value -= float(np.log(half.diagonal()).sum())
        at = _At(sigma, factors, theta, found, half, mean, value)
        deviance = (
            found.factor.logdet
            - problem.log_weights
            + problem.n * (_LOG_2PI + 2.0 * np.log(sigma))
            + at.rss() / sigma**2
        )
        return replace(at, value=value - 0.5 * deviance)

    def __call__(self, x: Array) -> tuple[float, Array]:
        bad = -np.inf, np.full_like(x, np.nan)
        if np.abs(x - self.start).max() > _FARTHEST:
            return bad
        try:
            at = self._at(x)
        except np.linalg.LinAlgError:
            return bad
        in_theta, in_sigma = np.zeros(0), -self.problem.n + at.rss() / at.sigma**2
        if len(at.theta):
            problem, found, u = self.problem, at.found, at.u(at.mean)
            left = remainder(problem, found.factor.lam, at.mean - problem.ols, u)
            here = replace(found, beta=at.mean, u=u, rss=at.rss(), left=left)
            in_theta = -0.5 * deviance_at(problem, here, False, at.sigma)[1]
        if self.p:
            covariance = dpotri(at.half, lower=1)[0]
            covariance = np.tril(covariance) + np.tril(covariance, -1).T
            if len(at.theta):
                moves = sensitivity(self.problem, at.found).fixed
                in_theta -= 0.5 * np.einsum("ij,kji->k", covariance, moves) / at.sigma**2
            fixed = np.tril(at.found.fixed)
            in_sigma += float(np.sum((covariance @ fixed) * fixed)) / at.sigma**2
        gradient = np.zeros(self.k)
        value = at.value + self.layout.prior(x, gradient)
        slopes = self.layout.slopes(at.factors, in_theta / at.sigma)
        self.layout.prior.pull_back(x, at.factors, slopes, gradient)
        gradient[-1] += in_sigma - float(in_theta @ at.theta)
        return value, gradient

    def look(self, x: Array) -> tuple[float, Array]:
        return self._at(x).value + self.layout.prior(x, np.zeros(self.k)), np.zeros(0)

    def complete(
        self, x: Array, start: Array, candidates: int, rng: np.random.Generator
    ) -> Completed:
        at, structure = self._at(x), self.columns.structure
        value = at.value + self.layout.prior(x, np.zeros(self.k))
        engine = at.mean
        if self.p:
            noise = rng.standard_normal(self.p)
            engine = at.mean + dtrtrs(at.half, noise, lower=1, trans=1)[0]
        beta = self.Rinv @ engine
        value += self.rest(beta, np.zeros(self.p))
        if not structure.effects:
            return Completed(value, value, x, beta, np.zeros(0))
        effects = rng.standard_normal((structure.effects, 1))
        u = at.u(engine) + at.sigma * half_solve(at.found.factor, effects)
        b = np.empty_like(u)
        kernels.scale_effects(structure.arrays, at.found.factor.lam, u, b)
        return Completed(value, value, x, beta, b[:, 0])

    def nothing(self, x: Array) -> Completed:
        effects = self.columns.structure.effects
        return Completed(-np.inf, -np.inf, x, np.zeros(self.p), np.zeros(effects))


def _least_squares(problem: LinearProblem) -> Solution:
    """The solution without random effects."""
    p, none, empty = problem.p, np.zeros((0, 0)), np.zeros(0)
    fixed = np.linalg.cholesky(problem.xx[:p, :p]) if p else none
    factor = Factor(problem.structure, empty, empty, none, 0.0)
    logdet = 2.0 * float(np.log(fixed.diagonal()).sum())
    rss = float(problem.xx[p, p])
    nothing = np.zeros((0, 1))
    return Solution(
        problem.ols, nothing, rss, factor, empty, fixed, np.zeros((0, p)), nothing, logdet
    )
