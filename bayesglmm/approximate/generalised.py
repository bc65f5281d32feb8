"""The log posterior of covariance parameters and coefficients, the random effects integrated out.

By Laplace's approximation or quadrature. ``x`` is t and the coefficients, these in coordinates of
about unit scale.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesglmm.approximate.density import Completed, Layout, half_solve, raw_coordinates
from bayesglmm.approximate.groups import groups_of
from bayesglmm.approximate.kernels import choose, complete_nested, weigh_candidates
from bayesglmm.approximate.prior import coefficient_prior
from bayesglmm.families.compiled import Density
from bayesglmm.laplace import kernels
from bayesglmm.laplace.factor import Factor
from bayesglmm.laplace.glm import fit_glm
from bayesglmm.laplace.marginal import Value, laplace
from bayesglmm.laplace.pirls import Modes, Problem, conditional_modes, limits, workspace
from bayesglmm.laplace.quadrature import adaptive
from bayesglmm.laplace.start import generalised_start
from bayesglmm.laplace.structure import Array, Integers
from bayesglmm.nuts.scales import unpack_all
from bayesglmm.nuts.tree import named

if TYPE_CHECKING:
    from bayesglmm.model import Model

# Squared Newton decrement at which modes are near enough: to 1e-4 of their sds. What is drawn
# about them is weighed by the density that it was drawn from, so nothing is lost.
_NEAR = 1e-8
_FARTHEST = 25.0  # of an unconstrained covariance parameter: beyond, exp loses its meaning


@dataclass(frozen=True, slots=True)
class _Near:
    """A point with the modes there: its log posterior as asked for, and by Laplace.

    ``engine`` are the coefficients of orthonormal columns.
    """

    engine: Array
    sigma: float
    modes: Modes
    value: float
    by_laplace: float


class GeneralisedPosterior:
    """Of (t, beta), the random effects integrated out by Laplace or quadrature."""

    def __init__(self, model: Model, nagq: int) -> None:
        design, likelihood = model.design, model.likelihood
        self.model, self.layout = model, Layout(model)
        self.coefficients = coefficient_prior(model)
        columns = raw_coordinates(model)
        self.problem = Problem(columns, design.offset, Density(likelihood), self.layout.covariance)
        self.has_scale = likelihood.family.has_scale
        self.evaluate: Callable[..., Value] = laplace if nagq == 1 else partial(adaptive, k=nagq)
        self.is_laplace = nagq == 1
        self.k, self.p = self.layout.prior.scales.size, design.p
        self.size, self.n_scales = self.k + self.p, self.k
        self.approximates = bool(design.random) and not likelihood.is_linear
        self.groups = groups_of(columns.structure, [term.index for term in design.random])
        self.independent = self.groups.count
        self._begin()

    def _begin(self) -> None:
        """Start at the fit without random effects, and at moments of its residuals."""
        problem = self.problem
        columns, likelihood = problem.columns, problem.density.likelihood
        glm = fit_glm(columns.X, problem.offset, likelihood, exact=1e-4)
        sigma = 1.0
        if self.has_scale:
            mu = likelihood.link.inverse(glm.eta)
            sigma = max(float(np.sqrt(likelihood.deviance(mu) / len(mu))), 1e-8)
        w = np.maximum(likelihood.expected_weights(glm.eta, sigma), 1e-300)
        theta, error = np.zeros(0), np.zeros(0)
        if columns.structure.effects:
            theta, error, _ = generalised_start(problem, glm.eta, sigma)
        t, spread = self.layout.start(theta, error, 1.0)
        if self.has_scale:
            t[-1] = np.log(sigma)
        # The prior's curvature keeps directions that the data separate on a finite scale.
        Rinv = np.linalg.inv(columns.R) if self.p else np.zeros((0, 0))
        beta, slope = Rinv @ glm.beta, np.zeros(self.p)
        self.coefficients(beta, slope)
        curvature = np.empty((self.p, self.p))
        for k in range(self.p):
            moved = np.zeros(self.p)
            step = 1e-3 * max(1.0, abs(float(beta[k])))
            self.coefficients(beta + step * np.eye(self.p)[k], moved)
            curvature[:, k] = (slope - moved) / step
        information = columns.X.T @ (columns.X * w[:, None])
        information += Rinv.T @ (0.5 * (curvature + curvature.T)) @ Rinv
        values, vectors = np.linalg.eigh(information)
        floor = 1e-8 * float(np.max(np.abs(values), initial=1e-300))
        self.root = Rinv @ (vectors / np.sqrt(np.maximum(values, floor)))
        self.to_engine = columns.R @ self.root
        gamma = np.linalg.solve(self.root, beta) if self.p else beta
        self.start = np.concatenate([t, gamma])
        self.scale = np.concatenate([spread, np.ones(self.p)])
        self.b = problem.zeros()

    def _at(self, x: Array) -> tuple[Array, Array, Array, float]:
        t = x[: self.k]
        factors = self.layout.prior.factors(t)
        return t, factors, factors[self.layout.places], self.layout.prior.sigma(t)

    def __call__(self, x: Array) -> tuple[float, Array]:
        bad = -np.inf, np.full_like(x, np.nan)
        if np.abs(x[: self.k]).max(initial=0.0) > _FARTHEST:
            return bad
        t, factors, theta, sigma = self._at(x)
        try:
            at = self.evaluate(self.problem, theta, self.to_engine @ x[self.k :], sigma, self.b)
        except (np.linalg.LinAlgError, FloatingPointError):
            return bad
        in_t, in_beta = np.zeros(self.k), np.zeros(self.p)
        value = at.loglik + self.layout.prior(t, in_t)
        value += self.coefficients(self.root @ x[self.k :], in_beta)
        self.layout.prior.pull_back(t, factors, self.layout.slopes(factors, at.theta), in_t)
        if self.has_scale:
            in_t[-1] += at.log_sigma
        slope = self.to_engine.T @ at.beta + self.root.T @ in_beta
        self.b = at.modes.b  # where the next search starts
        return value, np.concatenate([in_t, slope])

    def look(self, x: Array) -> tuple[float, Array]:
        at = self._near(x, self.b[:, 0])
        return at.value, at.modes.b[:, 0]

    def _near(self, x: Array, start: Array) -> _Near:
        problem = self.problem
        _, _, theta, sigma = self._at(x)
        engine = self.to_engine @ x[self.k :]
        prior = self._log_prior(self._natural(x[None])[0])
        lam = problem.columns.structure.pack(problem.covariance.lambdas(theta))
        modes = conditional_modes(problem, engine, lam, start[:, None], sigma, _NEAR)
        by_laplace = modes.f - 0.5 * modes.factor.logdet
        value = by_laplace
        if not self.is_laplace:
            value = self.evaluate(problem, theta, engine, sigma, modes.b).loglik
        return _Near(engine, sigma, modes, prior + value, prior + by_laplace)

    def complete(
        self, x: Array, start: Array, candidates: int, rng: np.random.Generator
    ) -> Completed:
        (m, effects), count = start.shape, self.groups.count
        noise = rng.standard_normal((m, effects, (candidates + 1) // 2))
        uniform = rng.random((m, count))
        done = Completed(np.full(m, -np.inf), np.zeros(m), self._natural(x), np.zeros(start.shape))
        found = np.zeros(m, dtype=np.bool_)
        if self.is_laplace and self.problem.in_one_call:
            found = self._complete_nested(x, start, candidates, noise, uniform, done)
        for i in np.flatnonzero(~found):
            with suppress(np.linalg.LinAlgError, FloatingPointError):
                at = self._near(x[i], start[i])
                log_ratio = self._drawn(at, candidates, noise[i], uniform[i], done.b[i])
                done.value[i], done.exact[i] = at.value, at.by_laplace + log_ratio
        done.exact[np.isinf(done.value)] = -np.inf
        return done

    def named(self, done: Completed, taken: Integers, seed: int) -> dict[str, Array]:
        t, beta = np.split(done.parameters[taken], [self.k], axis=1)
        draws = named(
            self.model,
            self.layout.prior.scales,
            self.problem.columns.structure,
            t,
            beta,
            done.b[taken],
        )
        return {name: values[None] for name, values in draws.items()}

    def _natural(self, x: Array) -> Array:
        """(m, size) t and beta, link scale."""
        return np.concatenate([x[:, : self.k], x[:, self.k :] @ self.root.T], axis=1)

    def _log_prior(self, parameters: Array) -> float:
        value = self.layout.prior(parameters[: self.k], np.zeros(self.k))
        return value + self.coefficients(parameters[self.k :], np.zeros(self.p))

    def _complete_nested(
        self,
        x: Array,
        start: Array,
        candidates: int,
        noise: Array,
        uniform: Array,
        done: Completed,
    ) -> NDArray[np.bool_]:
        """Fill ``done`` in one compiled call; returns at which points that was possible."""
        problem, scales = self.problem, self.layout.prior.scales
        columns, density = problem.columns, problem.density
        m, t = len(x), np.ascontiguousarray(x[:, : self.k])
        sigma = np.exp(t[:, -1]) if self.has_scale else np.ones(m)
        found, log_ratios = np.empty(m, dtype=np.bool_), np.empty(m)
        complete_nested(
            columns.structure.arrays,
            problem.places,
            columns.Z,
            columns.X,
            problem.offset,
            density.compiled,
            limits(_NEAR),
            unpack_all(t, scales.terms, scales.factors)[:, self.layout.places],
            sigma,
            x[:, self.k :] @ self.to_engine.T,
            start,
            noise,
            uniform,
            candidates,
            self.groups.of_rows,
            self.groups.of_effects,
            np.zeros(columns.structure.lambda_size),
            workspace(problem),
            done.value,
            log_ratios,
            done.b,
            found,
        )
        for i in np.flatnonzero(found):
            done.value[i] += density.constant(sigma[i]) + self._log_prior(done.parameters[i])
            done.exact[i] = done.value[i] + log_ratios[i]
        return found

    def _drawn(
        self, at: _Near, candidates: int, noise: Array, uniform: Array, chosen: Array
    ) -> float:
        """Log of the average ratio of the exact density of the effects to their Gaussian.

        Fills ``chosen`` (effects,) with a draw of them. Groups of effects that share no row are
        independent given the parameters: the average is taken, and the draw chosen, in each by
        itself, which multiplies the number of candidates without evaluating more (Tran, Scharth,
        Pitt & Kohn 2013, arXiv:1309.3339, weigh parameters by such estimates). Candidates come in
        pairs opposite each other about the mode, which cancels most of what skewness does.
        """
        problem, modes, groups = self.problem, at.modes, self.groups
        structure, m = problem.columns.structure, len(modes.u)
        away = half_solve(modes.factor, noise)
        fixed = problem.columns.X @ at.engine + problem.offset
        b, log_ratios = np.empty((candidates, m, 1)), np.empty((candidates, groups.count))
        here = groups.sum_rows(modes.l[0]) - 0.5 * groups.sum_effects(modes.u[:, 0] ** 2)
        model, lam, Z = problem.density.compiled, modes.factor.lam, problem.columns.Z
        if model is not None:
            where = (structure.arrays, lam, Z, fixed, model, at.sigma, modes.u, away, noise)
            weigh_candidates(*where, groups.of_rows, groups.of_effects, here, b, log_ratios)
        else:
            eta, l = np.empty_like(modes.eta), np.empty_like(modes.l)
            for c in range(candidates):
                sign = 1.0 if c % 2 == 0 else -1.0
                u = modes.u + sign * away[:, c // 2 : c // 2 + 1]
                kernels.predict(structure.arrays, lam, Z, fixed, u, b[c], eta)
                problem.density(eta, at.sigma, l)
                squares = groups.sum_effects(u[:, 0] ** 2 - noise[:, c // 2] ** 2)
                log_ratios[c] = groups.sum_rows(l[0]) - 0.5 * squares - here
        return float(choose(b, log_ratios, groups.of_effects, uniform, chosen))


class FixedPosterior(GeneralisedPosterior):
    """Of (t, beta) without random effects: nothing is integrated out."""

    def __init__(self, model: Model) -> None:
        super().__init__(model, 1)
        self.evaluate = self._likelihood

    def _likelihood(
        self, problem: Problem, theta: Array, beta: Array, sigma: float, start: Array
    ) -> Value:
        density, none = problem.density, np.zeros((0, 1))
        eta, l = problem.columns.X @ beta + problem.offset, np.empty((4, len(problem.offset)))
        value, log_sigma = density(eta, sigma, l), 0.0
        if self.has_scale:
            log_sigma = float(np.sum(density.likelihood.scale_derivatives(eta, sigma)[0]))
        empty = np.zeros(0)
        factor = Factor(problem.columns.structure, empty, empty, np.zeros((0, 0)), 0.0)
        modes = Modes(none, none, eta, value, l, none, empty, factor, True)
        return Value(value, empty, problem.columns.X.T @ l[1], log_sigma, modes)

    def look(self, x: Array) -> tuple[float, Array]:
        done = self.complete(x[None], np.zeros((1, 0)), 1, np.random.default_rng(0))
        return float(done.value[0]), done.b[0]

    def complete(
        self, x: Array, start: Array, candidates: int, rng: np.random.Generator
    ) -> Completed:
        problem, parameters = self.problem, self._natural(x)
        etas = (x[:, self.k :] @ self.to_engine.T) @ problem.columns.X.T + problem.offset
        value, l = np.empty(len(x)), np.empty((4, len(problem.offset)))
        for i, eta in enumerate(etas):
            sigma = self.layout.prior.sigma(x[i, : self.k])
            value[i] = problem.density(eta, sigma, l) + self._log_prior(parameters[i])
        return Completed(value, value, parameters, np.zeros((len(x), 0)))
