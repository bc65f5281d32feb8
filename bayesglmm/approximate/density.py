"""The log posterior with the random effects integrated out, and draws of what was.

A Gaussian response with the identity link needs no approximation, and the coefficients can be
integrated out, too: what is left are the covariance parameters t. Elsewhere t and the
coefficients are left, and the integral is Laplace's or quadrature. ``x`` is what is left, in
coordinates of about unit scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.linalg.lapack import dtrtrs

from bayesglmm.approximate.kernels import weigh_candidates
from bayesglmm.approximate.prior import coefficient_prior, scale_prior, split_normal
from bayesglmm.families.compiled import Density
from bayesglmm.laplace import kernels
from bayesglmm.laplace.covariance import covariance_of
from bayesglmm.laplace.factor import Factor, inverse_blocks
from bayesglmm.laplace.glm import fit_glm
from bayesglmm.laplace.marginal import Value, laplace
from bayesglmm.laplace.pirls import Modes, Problem, conditional_modes
from bayesglmm.laplace.pls import (
    deviance_at,
    linear_problem,
    penalised_least_squares,
    sensitivity,
)
from bayesglmm.laplace.quadrature import adaptive
from bayesglmm.laplace.standardise import Coordinates, orthonormal
from bayesglmm.laplace.start import moment_start
from bayesglmm.laplace.structure import Array, Integers, Structure, structure_of

if TYPE_CHECKING:
    from bayesglmm.model import Model

_LOG_2PI = float(np.log(2.0 * np.pi))
# Squared Newton decrement at which modes are near enough: to 1e-4 of their sds. What is drawn
# about them is weighed by the density that it was drawn from, so nothing is lost.
_NEAR = 1e-8
_FARTHEST = 25.0  # of an unconstrained covariance parameter: beyond, exp loses its meaning
_LARGEST_START = 3.0  # of an sd, relative to the residual's
_SMALLEST_START = 0.05
_STEPS = (0.1, 1.0)  # smallest and largest change expected in a log sd
_CORRELATION_STEP = 0.3


@dataclass(frozen=True, slots=True)
class Completed:
    """A point with draws of what was integrated out.

    Attributes
    ----------
    value
        Log posterior of the point, by the approximation.
    exact
        Estimate of the exact log posterior of the point, unbiased before the logarithm: the
        ratios of the joint density to that of the draws, averaged.
    t, beta
        Covariance parameters; (p,) coefficients, link scale.
    b
        (effects,) random effects, in order of elimination.
    """

    value: float
    exact: float
    t: Array
    beta: Array
    b: Array


@dataclass(frozen=True, slots=True)
class _Near:
    """A point with the modes there: its log posterior as asked for, and by Laplace.

    ``engine`` are the coefficients of orthonormal columns.
    """

    t: Array
    beta: Array
    engine: Array
    sigma: float
    modes: Modes
    value: float
    by_laplace: float


class LogPosterior(Protocol):
    """A log posterior in few parameters, the others integrated out.

    Attributes
    ----------
    size
        Number of parameters.
    n_scales
        How many of them, the first, are covariance parameters.
    start, scale
        Where to start and the size of a change there.
    approximates
        Whether the integral is an approximation.
    """

    size: int
    n_scales: int
    start: Array
    scale: Array
    approximates: bool

    def __call__(self, x: Array) -> tuple[float, Array]:
        """The value and its gradient; -inf where it cannot be computed."""
        ...

    def look(self, x: Array) -> tuple[float, Array]:
        """The value, and (effects,) the modes of the random effects where they are searched.

        Raises
        ------
        numpy.linalg.LinAlgError
            If it cannot be computed there.
        """
        ...

    def complete(
        self, x: Array, start: Array, candidates: int, rng: np.random.Generator
    ) -> Completed:
        """The value, and what was integrated out drawn.

        Parameters
        ----------
        start
            A guess at the modes, from which they are searched.
        candidates
            How many draws of the random effects ``exact`` is averaged over, and the draw chosen
            from.
        """
        ...

    def nothing(self, x: Array) -> Completed:
        """What stands for a point where that fails: it gets no weight."""
        ...


def log_posterior(model: Model, nagq: int) -> LogPosterior:
    """The log posterior that suits the model."""
    if model.likelihood.is_linear:
        return LinearPosterior(model)
    return GeneralisedPosterior(model, nagq) if model.design.random else FixedPosterior(model)


def raw_coordinates(model: Model) -> Coordinates:
    """Orthonormal X; random-effects columns as they are, which priors are about."""
    design = model.design
    structure = structure_of(design.random)
    X, R = orthonormal(design.X)
    columns = [design.random[f].Z for f in structure.order]
    Z = np.concatenate(columns, axis=1) if columns else np.zeros((design.n, 0))
    eyes = tuple(np.eye(term.K) for term in design.random)
    return Coordinates(X, R, structure, np.ascontiguousarray(Z), eyes)


class _Layout:
    """The places of the engine's theta among the factors of all terms."""

    def __init__(self, model: Model) -> None:
        self.prior = scale_prior(model)
        self.covariance = covariance_of(model.design.random)
        terms = self.prior.scales.terms
        self.places = np.array(
            [terms[f, 3] + r * terms[f, 0] + c for f, r, c in self.covariance.entries],
            dtype=np.intp,
        )

    def slopes(self, factors: Array, in_theta: Array) -> Array:
        out = np.zeros_like(factors)
        out[self.places] = in_theta
        return out

    def start(self, theta: Array, error: Array, sigma: float) -> tuple[Array, Array]:
        """t of a moment estimate of theta, without correlations, and the scale of changes."""
        scales = self.prior.scales
        factors, spread = [], np.full(scales.size, _CORRELATION_STEP)
        diagonal = {(f, r): k for k, (f, r, c) in enumerate(self.covariance.entries) if r == c}
        for f, (K, _, at, _) in enumerate(scales.terms):
            k = [diagonal[f, r] for r in range(K)]
            sds = np.clip(np.abs(theta[k]), _SMALLEST_START, _LARGEST_START)
            factors.append(sigma * np.diag(sds))
            spread[at : at + K] = np.clip(error[k] / sds, *_STEPS)
        if scales.has_scale:
            spread[-1] = _STEPS[0]
        return scales.pack(factors, sigma), spread


class GeneralisedPosterior:
    """Of (t, beta), the random effects integrated out by Laplace or quadrature."""

    def __init__(self, model: Model, nagq: int) -> None:
        design, likelihood = model.design, model.likelihood
        self.layout = _Layout(model)
        self.coefficients = coefficient_prior(model, model.priors.coefficients)
        columns = raw_coordinates(model)
        self.problem = Problem(columns, design.offset, Density(likelihood), self.layout.covariance)
        self.has_scale = likelihood.family.has_scale
        self.evaluate: Callable[..., Value] = laplace if nagq == 1 else partial(adaptive, k=nagq)
        self.is_laplace = nagq == 1
        self.k, self.p = self.layout.prior.scales.size, design.p
        self.size, self.n_scales = self.k + self.p, self.k
        self.approximates = bool(design.random)
        self.groups = groups_of(columns.structure, [term.index for term in design.random])
        self._begin()

    def _begin(self) -> None:
        """Start at the fit without random effects, and at moments of its residuals."""
        problem = self.problem
        density, columns, likelihood = problem.density, problem.columns, problem.density.likelihood
        structure, n = columns.structure, len(problem.offset)
        glm = fit_glm(columns.X, problem.offset, likelihood, exact=1e-4)
        sigma = 1.0
        if self.has_scale:
            mu = likelihood.link.inverse(glm.eta)
            sigma = max(float(np.sqrt(likelihood.deviance(mu) / n)), 1e-8)
        l = np.empty((4, n))
        density(glm.eta, sigma, l)
        w = np.maximum(likelihood.expected_weights(glm.eta, sigma), 1e-300)
        theta, error = np.zeros(0), np.zeros(0)
        if structure.effects:
            W, zr = np.empty(structure.values), np.empty((structure.effects, 1))
            kernels.cross_products(structure.arrays, columns.Z, w, W)
            kernels.sum_rows(structure.arrays, columns.Z, l[1][:, None], zr)
            theta, error = moment_start(
                structure,
                problem.covariance,
                W,
                zr[:, 0],
                float(np.sum(l[1] ** 2 / w)),
                n,
                known_residual=True,
            )
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
        t, _, theta, sigma = self._at(x)
        beta, engine = self.root @ x[self.k :], self.to_engine @ x[self.k :]
        prior = self.layout.prior(t, np.zeros(self.k))
        prior += self.coefficients(beta, np.zeros(self.p))
        lam = problem.columns.structure.pack(problem.covariance.lambdas(theta))
        modes = conditional_modes(problem, engine, lam, start[:, None], sigma, _NEAR)
        by_laplace = modes.f - 0.5 * modes.factor.logdet
        value = by_laplace
        if not self.is_laplace:
            value = self.evaluate(problem, theta, engine, sigma, modes.b).loglik
        return _Near(t, beta, engine, sigma, modes, prior + value, prior + by_laplace)

    def complete(
        self, x: Array, start: Array, candidates: int, rng: np.random.Generator
    ) -> Completed:
        at = self._near(x, start)
        log_ratio, b = self._drawn(at, candidates, rng)
        return Completed(at.value, at.by_laplace + log_ratio, at.t, at.beta, b)

    def nothing(self, x: Array) -> Completed:
        beta = self.root @ x[self.k :]
        return Completed(-np.inf, -np.inf, x[: self.k], beta, np.zeros(len(self.b)))

    def _drawn(self, at: _Near, candidates: int, rng: np.random.Generator) -> tuple[float, Array]:
        """Log of the average ratio of the exact density of the effects to their Gaussian, and b.

        Groups of effects that share no row are independent given the parameters: the average is
        taken, and the draw chosen, in each by itself, which multiplies the number of candidates
        without evaluating more (Tran, Scharth, Pitt & Kohn 2013, arXiv:1309.3339, weigh
        parameters by such estimates). Candidates come in pairs opposite each other about the
        mode, which cancels most of what skewness does.
        """
        problem, modes, groups = self.problem, at.modes, self.groups
        structure, m = problem.columns.structure, len(modes.u)
        pairs = (candidates + 1) // 2
        noise = rng.standard_normal((m, pairs))
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
        if candidates == 1:
            return float(log_ratios.sum()), b[0, :, 0]
        top = log_ratios.max(axis=0)
        share = np.exp(log_ratios - top)
        total = share.sum(axis=0)
        ends = np.cumsum(share, axis=0) / total
        chosen = np.minimum((rng.random(groups.count) > ends).sum(axis=0), candidates - 1)
        picked = b[chosen[groups.of_effects], np.arange(m), 0]
        return float(np.sum(top + np.log(total / candidates))), picked


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

    def _near(self, x: Array, start: Array) -> _Near:
        t, _, theta, sigma = self._at(x)
        beta = self.root @ x[self.k :]
        at = self._likelihood(self.problem, theta, self.to_engine @ x[self.k :], sigma, self.b)
        value = at.loglik + self.layout.prior(t, np.zeros(self.k))
        value += self.coefficients(beta, np.zeros(self.p))
        return _Near(t, beta, beta, sigma, at.modes, value, value)

    def _drawn(self, at: _Near, candidates: int, rng: np.random.Generator) -> tuple[float, Array]:
        return 0.0, np.zeros(0)


class LinearPosterior:
    """Of t, coefficients and random effects integrated out exactly.

    Only normal priors of coefficients can be; others come in as a weight, both in ``value`` and
    in ``exact``.
    """

    def __init__(self, model: Model) -> None:
        design, likelihood = model.design, model.likelihood
        self.layout = _Layout(model)
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
        self.size, self.n_scales, self.approximates = self.k, self.k, False
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

    def _solve(self, x: Array):  # type: ignore[no-untyped-def]
        """The penalised problem at t with beta at its conditional posterior mean."""
        prior = self.layout.prior
        sigma = prior.sigma(x)
        factors = prior.factors(x)
        theta = factors[self.layout.places] / sigma
        at = penalised_least_squares(self.problem, theta)
        schur = at.fixed @ at.fixed.T if self.p else np.zeros((0, 0))
        precision = schur / sigma**2 + self.precision
        half = cholesky(precision, lower=True) if self.p else precision
        mean = at.beta
        if self.p:
            right = schur @ at.beta / sigma**2 + self.shift
            mean = solve_triangular(half.T, solve_triangular(half, right, lower=True))
        return sigma, factors, theta, at, half, mean

    def _moved(self, at, beta: Array):  # type: ignore[no-untyped-def]
        """The least-squares solution in u at another beta."""
        from dataclasses import replace

        away = beta - at.beta
        rss = at.rss + float(np.sum((at.fixed.T @ away) ** 2)) if self.p else at.rss
        return replace(at, beta=beta, u=at.u - (at.ux @ away)[:, None], rss=rss)

    def __call__(self, x: Array) -> tuple[float, Array]:
        bad = -np.inf, np.full_like(x, np.nan)
        if np.abs(np.diff(np.append(x, 0.0))).max(initial=0.0) > 1e3 or not np.all(np.isfinite(x)):
            return bad
        try:
            sigma, factors, theta, at, half, mean = self._solve(x)
            inverse = inverse_blocks(at.factor)
        except np.linalg.LinAlgError:
            return bad
        here = self._moved(at, mean)
        deviance, in_theta = deviance_at(self.problem, here, inverse, False, sigma)
        value = -0.5 * deviance + self.normal(self.Rinv @ mean, np.zeros(self.p))
        value += 0.5 * self.p * _LOG_2PI - float(np.sum(np.log(np.diag(half))))
        in_theta = -0.5 * in_theta
        in_sigma = -self.problem.n + here.rss / sigma**2
        if self.p:
            inner = np.linalg.inv(half)
            inner = inner.T @ inner
            if len(theta):
                moves = sensitivity(self.problem, at).fixed
                in_theta -= 0.5 * np.einsum("ij,kji->k", inner, moves) / sigma**2
            in_sigma += float(np.sum((inner @ at.fixed) * at.fixed)) / sigma**2
        gradient = np.zeros(self.k)
        value += self.layout.prior(x, gradient)
        slopes = self.layout.slopes(factors, in_theta / sigma)
        self.layout.prior.pull_back(x, factors, slopes, gradient)
        gradient[-1] += in_sigma - float(in_theta @ theta)
        return value, gradient

    def look(self, x: Array) -> tuple[float, Array]:
        return self.complete(x, np.zeros(0), 1, np.random.default_rng(0)).value, np.zeros(0)

    def complete(
        self, x: Array, start: Array, candidates: int, rng: np.random.Generator
    ) -> Completed:
        sigma, _, _, at, half, mean = self._solve(x)
        here = self._moved(at, mean)
        problem, structure = self.problem, self.columns.structure
        deviance = (
            at.factor.logdet
            - problem.log_weights
            + problem.n * (_LOG_2PI + 2.0 * np.log(sigma))
            + here.rss / sigma**2
        )
        value = -0.5 * deviance + self.normal(self.Rinv @ mean, np.zeros(self.p))
        value += self.layout.prior(x, np.zeros(self.k))
        engine = mean
        if self.p:
            value += 0.5 * self.p * _LOG_2PI - float(np.sum(np.log(np.diag(half))))
            noise = rng.standard_normal(self.p)
            engine = mean + dtrtrs(half, noise, lower=1, trans=1)[0]
        beta = self.Rinv @ engine
        value += self.rest(beta, np.zeros(self.p))
        effects = rng.standard_normal((structure.effects, 1))
        u = self._moved(at, engine).u + sigma * half_solve(at.factor, effects)
        b = np.empty_like(u)
        kernels.scale_effects(structure.arrays, at.factor.lam, u, b)
        return Completed(float(value), float(value), x, beta, b[:, 0])

    def nothing(self, x: Array) -> Completed:
        effects = self.columns.structure.effects
        return Completed(-np.inf, -np.inf, x, np.zeros(self.p), np.zeros(effects))


def half_solve(factor: Factor, noise: Array) -> Array:
    """(effects, m) draws from N(0, H^-1) out of standard normals: L'^-1 noise."""
    q = factor.structure.q
    out = np.array(noise, order="C")
    if q:
        out[-q:] = dtrtrs(factor.S.T, out[-q:], lower=0)[0]
    kernels.solve_up(factor.structure.arrays, factor.H, out)
    return out


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of effects that share no row with each other.

    Attributes
    ----------
    count
        Number of groups.
    of_rows, of_effects
        (n,) and (effects,) the group of each.
    """

    count: int
    of_rows: Integers
    of_effects: Integers

    def sum_rows(self, values: Array) -> Array:
        """(count,) sums over rows."""
        return np.bincount(self.of_rows, values, self.count)

    def sum_effects(self, values: Array) -> Array:
        """(count,) sums over effects."""
        return np.bincount(self.of_effects, values, self.count)


def groups_of(structure: Structure, index: Sequence[Integers]) -> Groups:
    """The levels of the outermost of nested terms; all in one group where terms cross.

    ``index`` is the level of each row, term by term in the formula's order.
    """
    n = len(index[0]) if index else 0
    if structure.q or not index:
        return Groups(1, np.zeros(n, dtype=np.intp), np.zeros(structure.effects, dtype=np.intp))
    of_rows = index[structure.order[structure.n_chain - 1]]
    of_effects = np.empty(structure.effects, dtype=np.intp)
    for f, place in enumerate(structure.order):
        J, K, first = (int(v) for v in structure.terms[f, :3])
        level = np.zeros(J, dtype=np.intp)
        level[index[place]] = of_rows
        of_effects[first : first + J * K] = np.repeat(level, K)
    return Groups(int(of_rows.max()) + 1, of_rows, of_effects)
