"""Linear mixed models: the profiled likelihood maximised, and what follows from it."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_solve

from bayesglmm.design import Design
from bayesglmm.errors import FitError
from bayesglmm.families import Likelihood
from bayesglmm.laplace.blocks import Array, layout_of, row_product
from bayesglmm.laplace.covariance import (
    canonical,
    component_values,
    covariance_of,
    transformed,
)
from bayesglmm.laplace.estimate import Estimate
from bayesglmm.laplace.judge import invert_information, judge, snap_to_zero
from bayesglmm.laplace.kenward_roger import kenward_roger
from bayesglmm.laplace.optimise import hessian, maximise
from bayesglmm.laplace.options import ML
from bayesglmm.laplace.pirls import scale_up
from bayesglmm.laplace.pls import (
    LinearProblem,
    deviance,
    linear_problem,
    penalised_least_squares,
)
from bayesglmm.laplace.standardise import (
    coefficient_map,
    effect_variance,
    mode_covariance,
    standardised,
)

_START = 1.0  # sd of the random effects at the start, relative to sigma; lme4's start


def linear_mixed(design: Design, likelihood: Likelihood, options: ML) -> Estimate:
    layout, transforms = standardised(layout_of(design.random), design)
    covariance = covariance_of(design.random)
    if any(design.n == J for J, _ in layout.sizes):
        raise FitError(
            f"a random effect for each of the {design.n} rows cannot be told apart from the "
            "residual of a Gaussian model; remove the observation-level term"
        )
    problem = linear_problem(
        design.X, likelihood.y - design.offset, likelihood.w, layout, covariance
    )

    def objective(theta: Array) -> tuple[float, Array]:
        try:
            value, gradient = deviance(problem, theta, options.reml)
        except np.linalg.LinAlgError:
            return -np.inf, np.zeros_like(theta)
        return -0.5 * value, -0.5 * gradient

    start = covariance.identity(_START)
    best = maximise(objective, start, np.full(covariance.size, 0.3))
    theta = canonical(covariance, best.x)
    theta = snap_to_zero(lambda t: objective(t)[0], covariance, theta)
    at = penalised_least_squares(problem, theta)
    df = design.n - design.p if options.reml else design.n
    sigma = float(np.sqrt(at.rss / df))
    joint = _linear_information(problem, theta, sigma, df, options.reml)
    scale_cov, flat = invert_information(joint)
    inverse_fixed = cho_solve(at.fixed, np.eye(design.p))
    conditional = inverse_fixed * sigma**2
    slopes, drift = _linear_sensitivity(problem, theta, sigma, conditional)
    vcov = conditional
    if options.vcov == "hessian":
        vcov = conditional + drift.T @ scale_cov[:-1, :-1] @ drift
    asymptotic = options.df == "asymptotic"
    b = scale_up(at.factor.lambdas, at.u)
    value = objective(theta)[0]
    raw = transformed(covariance, theta, transforms)
    outcome, component_cov = judge(
        design, covariance, transforms, theta, sigma, best, scale_cov, flat, ()
    )
    estimate = Estimate(
        method="REML" if options.reml else "ML",
        beta=at.beta,
        vcov=vcov,
        theta=raw,
        sigma=sigma,
        component_values=np.append(component_values(covariance, raw, sigma), sigma),
        component_cov=component_cov,
        modes=tuple(scale_up(transforms, b)),
        mode_cov=mode_covariance(at.factor, transforms, sigma),
        effect_variance=effect_variance(at.factor, transforms, sigma),
        coef_map=coefficient_map(at.factor, transforms, at.ux),
        vcov_slopes=np.zeros((0, design.p, design.p)) if asymptotic else slopes,
        scale_cov=np.zeros((0, 0)) if asymptotic else scale_cov,
        df_residual=np.inf,
        eta=design.X @ at.beta + design.offset + row_product(layout, b),
        loglik=value,
        n_parameters=design.p + covariance.size + 1,
        outcome=outcome,
    )
    return kenward_roger(estimate, design) if options.df == "kenward-roger" else estimate


def _linear_information(
    problem: LinearProblem, theta: Array, sigma: float, df: int, reml: bool
) -> Array:
    """Observed information of (theta, log sigma), beta profiled out."""
    size = len(theta)

    def at_sigma(t: Array) -> tuple[float, Array]:
        value, gradient = deviance(problem, t, reml, sigma)
        return 0.5 * value, 0.5 * gradient

    out = np.empty((size + 1, size + 1))
    out[:size, :size] = hessian(at_sigma, theta, np.ones(size))
    # In l = log sigma the deviance is 2 df l + rss e^{-2l}, plus what depends on theta only.
    up = deviance(problem, theta, reml, sigma * np.exp(1e-4))[1]
    down = deviance(problem, theta, reml, sigma * np.exp(-1e-4))[1]
    out[:size, size] = out[size, :size] = 0.5 * (up - down) / 2e-4
    rss = penalised_least_squares(problem, theta).rss
    out[size, size] = 2.0 * rss / sigma**2
    return out


def _linear_sensitivity(
    problem: LinearProblem, theta: Array, sigma: float, conditional: Array
) -> tuple[Array, Array]:
    """d vcov / d(theta, log sigma), (m, p, p), and d beta / d theta, (m - 1, p)."""
    slopes, drift, h = [], [], 1e-4
    eye = np.eye(problem.p)
    for k in range(len(theta)):
        step = np.zeros(len(theta))
        step[k] = h
        up = penalised_least_squares(problem, theta + step)
        down = penalised_least_squares(problem, theta - step)
        difference = cho_solve(up.fixed, eye) - cho_solve(down.fixed, eye)
        slopes.append(sigma**2 * difference / (2 * h))
        drift.append((up.beta - down.beta) / (2 * h))
    slopes.append(2.0 * conditional)
    return np.stack(slopes), np.array(drift).reshape(len(theta), problem.p)
