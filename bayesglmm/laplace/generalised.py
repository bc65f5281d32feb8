"""Generalised linear mixed models: the Laplace or quadrature likelihood maximised.

First beta is profiled out inside PIRLS (lme4's ``nAGQ = 0``), which leaves the few variance
parameters to search; then all parameters move together, from there and in the metric found there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from bayesglmm.design import Design
from bayesglmm.errors import FitError
from bayesglmm.families import Likelihood
from bayesglmm.families.compiled import Density
from bayesglmm.laplace import kernels
from bayesglmm.laplace.covariance import Covariance, component_values, covariance_of, transformed
from bayesglmm.laplace.estimate import Estimate
from bayesglmm.laplace.factor import inverse_blocks
from bayesglmm.laplace.glm import feasible, fit_glm
from bayesglmm.laplace.judge import at_edge, better, invert_information, judge, negligible, settle
from bayesglmm.laplace.marginal import Value, laplace, laplace_profiled
from bayesglmm.laplace.optimise import Optimum, bfgs, eigen, forward_step, maximise
from bayesglmm.laplace.options import ML
from bayesglmm.laplace.pirls import EXACT, Border, Modes, Problem, border
from bayesglmm.laplace.quadrature import adaptive
from bayesglmm.laplace.standardise import Coordinates, coefficient_map, mode_covariance
from bayesglmm.laplace.start import average_information, generalised_start
from bayesglmm.laplace.structure import Array, structure_of

_LARGEST_START = 3.0  # of theta: moments are of little worth where the link is flat
# Of theta, from above: moments are too small where outcomes are few. From 3 on, binary data that
# the random effects separate may lead to where the Laplace approximation has its own maxima.
_SECOND_START = 2.0
_LARGEST_THETA = 1e4
_LARGEST_LOG_SIGMA = 100.0  # its fourth power still is a number
_STEPS = (0.2, 0.1)  # largest expected size of a change in theta and in log sigma
_PLATEAU = 1e-9  # relative information of a direction of beta below which there is none
_NEAR = 1e-3  # in theta and in standard errors: farther than the steps of differences
# Share of what rows know of beta that is left where effects are unknown, below which differences
# of the gradient, in which the rest cancels, are rounding.
_LITTLE_LEFT = 3e-10
_ROUGH = 1e-2  # squared distance in standard errors at which the profiled search hands over
_COUNTLESS_NOTE = (
    "With so many events the curvature of the likelihood is rounding. Standard errors of the "
    "coefficients are those given the variance parameters, which hardly differ then; those of the "
    'variance parameters are not known: use confint("profile"), or fit("nuts").'
)
_NO_EFFECTS, _NO_COVARIANCE = structure_of(()), Covariance((), ())


@dataclass(frozen=True, slots=True)
class Point:
    """A place in parameter space, with the likelihood and the modes there.

    ``log_sigma`` has one entry, or none for a family without a scale.
    """

    theta: Array
    beta: Array
    log_sigma: Array
    value: Value

    @property
    def sigma(self) -> float:
        """The scale of the family, 1 where it has none."""
        return _sigma(self.log_sigma)


class _Starts:
    """Where the search for the modes starts: at the effects of the nearest point that is known.

    Of two points opposite each other about a third, as in central differences, the second starts
    at the mirror image of the first, which is exact to second order.
    """

    def __init__(self, b: Array) -> None:
        self.best = self.last = (np.zeros(0), b)
        self.height = -np.inf

    def at(self, x: Array) -> tuple[Array, int]:
        """The start, and the Newton steps to take at least.

        Near points are those of differences, whose modes need all their digits.
        """
        (centre, b), (before, other) = self.best, self.last
        if len(centre) != len(x):
            return other, 0
        move, turn = x - centre, x - before
        away, between = move @ move, turn @ turn
        if away > 0.0 and abs(between - 4.0 * away) < 1e-3 * away:  # about as far on either side
            missed = move + move - turn
            if missed @ missed < 1e-28:
                return np.asarray(2.0 * b - other), 2
        least = 2 if min(away, between) < _NEAR**2 else 0
        return (b if away < between else other), least

    def learn(self, x: Array, value: float, b: Array) -> None:
        self.last = (x, b)
        if value > self.height:
            self.best, self.height = self.last, value


class _Profiled:
    """The log-likelihood in (theta, log sigma), beta at its penalised mode."""

    def __init__(self, problem: Problem, beta: Array, exact: float) -> None:
        self.problem, self.beta, self.b = problem, beta, problem.zeros()
        self.k, self.exact = problem.covariance.size, exact
        self.known: tuple[tuple[bytes, Point, Border], ...] = ()  # the point evaluated last

    def at(self, x: Array) -> tuple[Point, Border]:
        place = x.tobytes()
        if self.known and place == self.known[0][0]:
            return self.known[0][1:]
        theta, log_sigma = x[: self.k], x[self.k :]
        value, beta, beside = laplace_profiled(
            self.problem, theta, self.beta, _sigma(log_sigma), self.b, self.exact
        )
        if value.modes.converged:  # else no place for the next search to start from
            self.beta, self.b = beta, value.modes.b
        self.last = (value, beside)
        point = Point(theta, beta, log_sigma, value)
        self.known = ((place, point, beside),)
        return point, beside

    def information(self) -> Array:
        """Average information of theta where the likelihood was last, and of log sigma."""
        value, beside = self.last
        modes, problem = value.modes, self.problem
        wx = problem.columns.X * -modes.l[2][:, None]
        zx = np.empty_like(beside.cross)
        kernels.sum_rows(problem.columns.structure.arrays, problem.columns.Z, wx, zx)
        theta, tie = average_information(
            problem.entries,
            modes.W,
            modes.factor,
            modes.u,
            modes.score,
            zx,
            beside.solved,
            beside.schur,
        )
        if not problem.density.likelihood.family.has_scale:
            return theta
        n = len(problem.offset)
        return np.block([[theta, tie[:, None]], [tie[None, :], np.array([[2.0 * n]])]])

    def __call__(self, x: Array) -> tuple[float, Array]:
        value = self.at(x)[0].value
        if len(x) == self.k:
            return value.loglik, value.theta
        return value.loglik, np.append(value.theta, value.log_sigma)


class _Joint:
    """The log-likelihood in (theta, gamma, log sigma), with beta = root gamma.

    ``root`` is that of the inverse information of beta, ``back`` its inverse.
    """

    def __init__(self, problem: Problem, nagq: int, information: Array, b: Array) -> None:
        self.problem, self.starts = problem, _Starts(b)
        self.root, self.back = _roots(information)
        # The point evaluated last, if its modes have all digits, and the centre of differences.
        self.last: tuple[tuple[bytes, Point], ...] = ()
        self.centre: tuple[tuple[bytes, Point], ...] = ()
        self.k, self.p = problem.covariance.size, problem.p
        has_scale = int(problem.density.likelihood.family.has_scale)
        end = self.k + self.p
        own = np.array([*range(self.k), *range(end, end + has_scale)])
        self.own = own[:, None], own  # theta and log sigma, in a matrix of all parameters
        self.evaluate = laplace if nagq == 1 else partial(adaptive, k=nagq)

    def at(self, x: Array) -> Point:
        place = x.tobytes()
        for known in (*self.centre, *self.last):
            if place == known[0]:  # asked for again: differences will be taken
                self.centre = (known,)
                return known[1]
        theta, beta, log_sigma = self.split(x)
        start, least = self.starts.at(x)
        value = self.evaluate(self.problem, theta, beta, _sigma(log_sigma), start, least)
        point = Point(theta, beta, log_sigma, value)
        self.last = ((place, point),) if least else ()
        if place == self.starts.best[0].tobytes():
            self.centre = self.last
        self.starts.learn(x, value.loglik, value.modes.b)
        return point

    def split(self, x: Array) -> tuple[Array, Array, Array]:
        return x[: self.k], self.root @ x[self.k : self.k + self.p], x[self.k + self.p :]

    def __call__(self, x: Array) -> tuple[float, Array]:
        value = self.at(x).value
        slopes = np.concatenate([value.theta, self.root.T @ value.beta])
        if len(x) > len(slopes):
            slopes = np.append(slopes, value.log_sigma)
        return value.loglik, slopes


def _sigma(log_sigma: Array) -> float:
    if not len(log_sigma):
        return 1.0
    if abs(log_sigma[0]) > _LARGEST_LOG_SIGMA:
        raise FloatingPointError("sigma runs away")
    return float(np.exp(log_sigma[0]))


class _Guarded:
    """An objective that is -inf where it cannot be computed or a parameter runs away."""

    def __init__(self, objective: _Profiled | _Joint) -> None:
        self.objective = objective

    def __call__(self, x: Array) -> tuple[float, Array]:
        if np.abs(x[: self.objective.k]).max() <= _LARGEST_THETA:
            try:
                return self.objective(x)
            except (np.linalg.LinAlgError, FloatingPointError):
                pass
        return -np.inf, np.full_like(x, np.nan)


def generalised_mixed(
    design: Design, columns: Coordinates, likelihood: Likelihood, options: ML
) -> Estimate:
    covariance = covariance_of(design.random)
    problem = Problem(columns, design.offset, Density(likelihood), covariance)
    k, p = covariance.size, problem.p
    beta, start, steps, zero = _start(problem)
    exact = EXACT if options.nagq == 0 else _ROUGH**2
    notes: list[str] = []
    profiled = _Profiled(problem, beta, exact)
    if options.nagq == 0:
        best = maximise(_Guarded(profiled), start, steps, metric=profiled.information)
        x, curvature = settle(_Guarded(profiled), covariance, best, steps, zero)
        point, beside = profiled.at(x)
        scale_cov, flat, _ = invert_information(-curvature, steps)
        vcov = np.linalg.pinv(beside.schur, hermitian=True)
    else:
        joint, best, scale = _all_together(problem, profiled, options.nagq, start, steps)
        if at_edge(covariance, best, zero):
            large = np.concatenate([covariance.identity(_SECOND_START), start[k:]])
            profiled = _Profiled(problem, beta, exact)  # free of the effects found first
            other, end, width = _all_together(problem, profiled, options.nagq, large, steps)
            if better(best, end).value > best.value:
                joint, scale = other, width
            best = better(best, end)
        root = joint.root
        x, curvature = settle(_Guarded(joint), covariance, best, scale, zero)
        point = joint.at(x)
        beside = border(problem, point.value.modes)
        conditional = options.vcov == "conditional"
        known = _known(problem, point.value.modes)
        if eigen(known.T @ beside.schur @ known)[0].min(initial=1.0) < _LITTLE_LEFT:
            scale_cov, flat = np.full((len(steps),) * 2, np.nan), np.zeros((0, len(steps)))
            notes, conditional = [_COUNTLESS_NOTE], True
        else:
            basis = _informed(known, joint.back, k, len(best.x))
            expected = np.append(steps[:k], np.ones(basis.shape[1] - k))
            everything, flat, rest = invert_information(basis.T @ -curvature @ basis, expected)
            whole = basis @ (everything + rest) @ basis.T
            everything, flat = basis @ everything @ basis.T, flat @ basis.T
            scale_cov, flat = everything[joint.own], flat[:, joint.own[1]]
            block = slice(k, k + p)
            vcov = root @ whole[block, block] @ root.T
        if conditional:
            vcov = np.linalg.pinv(beside.schur, hermitian=True)
    if not np.isfinite(best.value):
        raise FitError("the likelihood is not finite at the starting values; rescale covariates")
    return _estimate(
        design, problem, options, point, beside, best, vcov, scale_cov, flat, zero, notes
    )


def _total(point: Point) -> float:
    """Total weight of the rows at a point."""
    return -float(point.value.modes.l[2].sum())


def _all_together(
    problem: Problem, profiled: _Profiled, nagq: int, start: Array, steps: Array
) -> tuple[_Joint, Optimum, Array]:
    """Search all parameters, from the top of the profiled likelihood near ``start``.

    Returns
    -------
    The objective, the optimum, and the scale of its coordinates
    """
    rough, covariance = _climb(profiled, start, steps)
    point, beside = profiled.at(rough)
    joint = _Joint(problem, nagq, beside.schur, point.value.modes.b)
    size = len(rough) + problem.p
    scale, inverse = np.ones(size), np.eye(size)
    scale[joint.own[1]] = steps
    inverse[joint.own] = covariance
    first = np.concatenate([point.theta, joint.back @ point.beta, point.log_sigma])
    best = maximise(
        _Guarded(joint),
        first,
        scale,
        inverse=inverse,
        forward=forward_step(max(len(problem.offset), _total(point))),
    )
    return joint, best, scale


def _start(problem: Problem) -> tuple[Array, Array, Array, Array]:
    """beta without random effects, (theta, log sigma) to start from, steps, negligible theta."""
    columns, likelihood = problem.columns, problem.density.likelihood
    beta, eta = _without_effects(problem)
    n, sigma, log_sigma = len(problem.offset), 1.0, np.zeros(0)
    if likelihood.family.has_scale:
        mu = likelihood.link.inverse(eta)
        sigma = float(np.sqrt(likelihood.deviance(mu) / n))
        log_sigma = np.array([np.log(sigma)])
    theta, error, W = generalised_start(problem, eta, sigma)
    start = np.concatenate([np.clip(theta, -_LARGEST_START, _LARGEST_START), log_sigma])
    steps = np.append(np.minimum(error, _STEPS[0]), np.full(len(log_sigma), _STEPS[1]))
    return beta, start, steps, negligible(columns.structure, W)


def _without_effects(problem: Problem) -> tuple[Array, Array]:
    """About the maximum likelihood (p,) beta and (n,) eta without random effects."""
    columns, density, offset = problem.columns, problem.density, problem.offset
    if density.compiled is not None and not density.likelihood.family.has_scale:
        alone = Coordinates(columns.X, columns.R, _NO_EFFECTS, np.zeros((len(offset), 0)), ())
        fixed = Problem(alone, offset, density, _NO_COVARIANCE)
        first = columns.X.T @ feasible(offset, density.likelihood)  # the columns are orthonormal
        found = laplace_profiled(fixed, np.zeros(0), first, 1.0, fixed.zeros(), _ROUGH)
        if np.isfinite(found[0].loglik) and found[0].modes.converged:
            return found[1], found[0].modes.eta
    glm = fit_glm(columns.X, offset, density.likelihood, exact=_ROUGH**2)
    return glm.beta, glm.eta


def _climb(profiled: _Profiled, start: Array, steps: Array) -> tuple[Array, Array]:
    """Near the top of the profiled likelihood, and the inverse curvature there."""
    objective = _Guarded(profiled)

    def scaled(z: Array) -> tuple[float, Array]:
        value, gradient = objective(start + steps * z)
        return value, gradient * steps

    def metric() -> Array:
        return profiled.information() * np.outer(steps, steps)

    z = np.zeros_like(start)
    value, gradient = scaled(z)
    z, _, _, inverse = bfgs(scaled, z, value, gradient, [], metric=metric, arrived=_ROUGH)
    return start + steps * z, inverse * np.outer(steps, steps)


def _known(problem: Problem, modes: Modes) -> Array:
    """(p, r) directions of beta that do not run to infinity, with X'WX the identity in them.

    Where predictors separate the outcomes the likelihood levels off, and so does that of the
    rows given the random effects: its curvature there is rounding.
    """
    X = problem.columns.X
    values, vectors = eigen(X.T @ (X * -modes.l[2][:, None]))
    known = values > _PLATEAU * values.max(initial=0.0)
    return np.asarray(vectors[:, known] / np.sqrt(values[known]))


def _informed(known: Array, back: Array, k: int, m: int) -> Array:
    """(m, r) basis of the parameters with the `_known` directions of beta alone.

    The others would spoil the standard errors of everything else.
    """
    p, r = known.shape
    if r == p:
        return np.eye(m)
    basis = np.zeros((m, m - p + r))
    basis[:k, :k] = np.eye(k)
    basis[k : k + p, k : k + r] = back @ (known / np.linalg.norm(known, axis=0))
    basis[k + p :, k + r :] = np.eye(m - k - p)
    return basis


def _roots(information: Array) -> tuple[Array, Array]:
    """A square R with R R' the inverse of a symmetric matrix, floored where singular; R^-1."""
    values, vectors = eigen(information)
    floor = 1e-10 * max(float(values[-1]), 1e-300) if len(values) else 0.0
    half = np.sqrt(np.maximum(values, floor))
    return vectors / half, half[:, None] * vectors.T


def _estimate(
    design: Design,
    problem: Problem,
    options: ML,
    point: Point,
    beside: Border,
    best: Optimum,
    vcov: Array,
    scale_cov: Array,
    flat: Array,
    zero: Array,
    notes: list[str],
) -> Estimate:
    covariance, transforms = problem.covariance, problem.columns.transforms
    k, p, has_scale = covariance.size, problem.p, len(point.log_sigma)
    outcome, component_cov = judge(
        design, covariance, transforms, point.theta, zero, best, scale_cov, flat, tuple(notes)
    )
    raw = transformed(covariance, point.theta, transforms)
    values = component_values(covariance, raw, 1.0)
    modes, structure = point.value.modes, problem.columns.structure
    effects = structure.split(modes.b[:, 0])
    return Estimate(
        method={0: "ML-nAGQ0", 1: "ML-Laplace"}.get(options.nagq, f"ML-AGQ({options.nagq})"),
        beta=point.beta,
        vcov=vcov,
        theta=raw,
        sigma=point.sigma,
        component_values=np.append(values, point.sigma) if has_scale else values,
        component_cov=component_cov,
        modes=tuple(v @ T.T for v, T in zip(effects, transforms, strict=True)),
        mode_cov=mode_covariance(modes.factor, inverse_blocks(modes.factor), transforms, 1.0),
        factor=modes.factor,
        transforms=transforms,
        relative_to=1.0,
        coef_map=coefficient_map(modes.factor, transforms, beside.solved),
        vcov_slopes=np.zeros((0, p, p)),
        scale_cov=np.zeros((0, 0)),
        df_residual=np.inf,
        eta=modes.eta,
        loglik=point.value.loglik,
        n_parameters=p + k + has_scale,
        outcome=outcome,
    )
