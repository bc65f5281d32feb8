"""Linear mixed models: the profiled likelihood maximised, and what follows from it."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from bayesglmm.design import Design
from bayesglmm.errors import FittedExactly
from bayesglmm.families import Likelihood
from bayesglmm.laplace import kernels
from bayesglmm.laplace.covariance import (
    component_values,
    covariance_of,
    transformed,
)
from bayesglmm.laplace.estimate import Estimate
from bayesglmm.laplace.judge import at_edge, better, invert_information, judge, negligible, settle
from bayesglmm.laplace.kenward_roger import kenward_roger
from bayesglmm.laplace.optimise import forward_step, maximise
from bayesglmm.laplace.options import ML
from bayesglmm.laplace.pls import (
    EXACT,
    ROUNDING,
    LinearProblem,
    Solution,
    deviance_at,
    linear_problem,
    penalised_least_squares,
    sensitivity,
)
from bayesglmm.laplace.standardise import Coordinates, coefficient_map, mode_covariance
from bayesglmm.laplace.start import average_information, moment_start
from bayesglmm.laplace.structure import Array

_LARGE = 500  # columns of the dense block from which an evaluation is dear
_DEAR_STEP = 1e-5  # of the differences there


def linear_mixed(
    design: Design, columns: Coordinates, likelihood: Likelihood, options: ML
) -> Estimate:
    structure, transforms = columns.structure, columns.transforms
    covariance = covariance_of(design.random)
    # Weights of about one: the residual sd is then that of a typical row, beside which a small
    # theta is small. The likelihood is the same, with sigma^2 smaller by the unit.
    unit = _unit(likelihood.w)
    y, w = likelihood.y - design.offset, likelihood.w / unit
    problem = linear_problem(columns, y, w, covariance)

    objective = _Objective(problem, options.reml)
    start, scale = moment_start(
        structure,
        problem.entries,
        problem.W,
        np.array(problem.zx[:, design.p :]),
        float(problem.xx[design.p, design.p]),
        design.n,
        known_residual=False,
    )
    forward = _DEAR_STEP if structure.q >= _LARGE else forward_step(design.n)
    best = maximise(
        objective, start, scale, metric=objective.information, forward=forward, growing=True
    )
    zero = negligible(structure, problem.W)
    if at_edge(covariance, best, zero):
        ones = covariance.identity()
        again = maximise(
            objective, ones, scale, metric=objective.information, forward=forward, growing=True
        )
        best = better(best, again)
    theta, curvature = settle(objective, covariance, best, scale, zero)
    value = objective(theta)[0]
    at = objective.solution
    df = design.n - design.p if options.reml else design.n
    sigma = float(np.sqrt(at.rss / df))
    moves = sensitivity(problem, at)
    joint = _joint_information(-curvature, moves.rss, sigma, df)
    expected = np.append(scale, 1.0 / np.sqrt(2.0 * df))
    scale_cov, flat, _ = invert_information(joint, expected)
    inverse_fixed = at.fixed_inverse()
    conditional = sigma**2 * inverse_fixed
    vcov = conditional
    if options.vcov == "hessian":
        vcov = conditional + moves.beta.T @ scale_cov[:-1, :-1] @ moves.beta
    slopes = np.concatenate([-(conditional @ moves.fixed @ inverse_fixed), 2.0 * conditional[None]])
    asymptotic = options.df == "asymptotic"
    b = np.empty_like(at.u)
    kernels.scale_effects(structure.arrays, at.factor.lam, at.u, b)
    eta = np.empty(design.n)
    fixed = columns.X @ at.beta + design.offset
    kernels.add_effects(structure.arrays, columns.Z, fixed, b, eta)
    left, largest = float(w @ (likelihood.y - eta) ** 2), float(np.max(np.abs(likelihood.y)))
    rounding = float(np.sum(w)) * (ROUNDING * largest) ** 2
    if left <= max(EXACT * float(problem.xx[design.p, design.p]), rounding):
        raise FittedExactly
    raw = transformed(covariance, theta, transforms)
    outcome, component_cov = judge(
        design, covariance, transforms, theta, zero, best, scale_cov, flat, ()
    )
    estimate = Estimate(
        method="REML" if options.reml else "ML",
        beta=at.beta,
        vcov=vcov,
        theta=raw / np.sqrt(unit),
        sigma=sigma * np.sqrt(unit),
        component_values=np.append(component_values(covariance, raw, sigma), sigma * np.sqrt(unit)),
        component_cov=component_cov,
        modes=tuple(v @ T.T for v, T in zip(structure.split(b[:, 0]), transforms, strict=True)),
        mode_cov=mode_covariance(at.factor, at.inverse, transforms, sigma),
        factor=at.factor,
        transforms=transforms,
        relative_to=sigma,
        coef_map=coefficient_map(at.factor, transforms, at.ux),
        vcov_slopes=np.zeros((0, design.p, design.p)) if asymptotic else slopes,
        scale_cov=np.zeros((0, 0)) if asymptotic else scale_cov,
        df_residual=np.inf,
        eta=eta,
        loglik=value,
        n_parameters=design.p + covariance.size + 1,
        outcome=outcome,
    )
    if options.df == "kenward-roger":
        return kenward_roger(estimate, replace(design, X=columns.X))
    return estimate


def _unit(w: Array) -> float:
    """The power of four that is nearest to the mean weight: to divide by it rounds nothing."""
    return float(4.0 ** np.round(0.5 * np.log2(np.mean(w))))


class _Evaluated(NamedTuple):
    theta: bytes
    value: float
    gradient: Array
    solution: Solution


class _Objective:
    """The log-likelihood (or restricted one) in theta, and its information where it was last.

    The point evaluated last is remembered, and that which was asked for twice: the centre of
    differences, and the estimate.
    """

    def __init__(self, problem: LinearProblem, reml: bool) -> None:
        self.problem, self.reml = problem, reml
        self.last: tuple[_Evaluated, ...] = ()
        self.centre: tuple[_Evaluated, ...] = ()

    def __call__(self, theta: Array) -> tuple[float, Array]:
        point = theta.tobytes()
        for known in (*self.last, *self.centre):
            if point == known.theta:
                self.centre, self.solution = (known,), known.solution
                return known.value, known.gradient
        try:
            self.solution = penalised_least_squares(self.problem, theta)
        except np.linalg.LinAlgError:
            return -np.inf, np.zeros_like(theta)
        deviance, slopes = deviance_at(self.problem, self.solution, self.reml)
        value, gradient = -0.5 * deviance, -0.5 * slopes
        self.last = (_Evaluated(point, value, gradient, self.solution),)
        return value, gradient

    def information(self) -> Array:
        """(k, k) average information of theta, sigma profiled out."""
        problem, at = self.problem, self.solution
        df = problem.n - problem.p if self.reml else problem.n
        information, tie = average_information(
            problem.entries,
            problem.W,
            at.factor,
            at.u,
            at.left,
            problem.zx[:, : problem.p],
            at.ux,
            at.fixed @ at.fixed.T,
        )
        variance = at.rss / df
        return information / variance - np.outer(tie, tie) / (2.0 * df * variance**2)


def _joint_information(profiled: Array, rss_slopes: Array, sigma: float, df: int) -> Array:
    """Observed information of (theta, log sigma) from that of theta with sigma profiled out.

    In l = log sigma the deviance is 2 df l + rss e^{-2l}, plus what depends on theta only.
    """
    size = len(profiled)
    out = np.empty((size + 1, size + 1))
    cross = -rss_slopes / sigma**2
    out[:size, :size] = profiled + np.outer(cross, cross) / (2.0 * df)
    out[:size, size] = out[size, :size] = cross
    out[size, size] = 2.0 * df
    return out
