"""Generalised linear mixed models: the Laplace or quadrature likelihood maximised."""

from __future__ import annotations

import numpy as np

from bayesglmm.design import Design
from bayesglmm.errors import FitError
from bayesglmm.families import Likelihood
from bayesglmm.laplace.blocks import Array, layout_of, solve, transpose_product
from bayesglmm.laplace.covariance import (
    canonical,
    component_values,
    covariance_of,
    transformed,
)
from bayesglmm.laplace.estimate import Estimate
from bayesglmm.laplace.glm import fit_glm
from bayesglmm.laplace.judge import invert_information, judge, snap_to_zero
from bayesglmm.laplace.marginal import Problem, Value, laplace
from bayesglmm.laplace.optimise import hessian, maximise
from bayesglmm.laplace.options import ML
from bayesglmm.laplace.pirls import scale_down, scale_up
from bayesglmm.laplace.quadrature import adaptive
from bayesglmm.laplace.standardise import (
    coefficient_map,
    effect_variance,
    mode_covariance,
    standardised,
)

_START = 1.0  # sd of the (standardised) random effects at the start; lme4's start


def generalised_mixed(design: Design, likelihood: Likelihood, options: ML) -> Estimate:
    layout, transforms = standardised(layout_of(design.random), design)
    covariance = covariance_of(design.random)
    problem = Problem(design.X, design.offset, likelihood, layout, covariance)
    glm = fit_glm(design.X, design.offset, likelihood)
    has_scale, p, k = likelihood.family.has_scale, design.p, covariance.size
    sigma0 = 1.0
    if has_scale:
        sigma0 = float(np.sqrt(likelihood.deviance(likelihood.link.inverse(glm.eta)) / design.n))
    # beta is searched in coordinates in which its information is the identity.
    root = _inverse_root(glm.information / sigma0**2)
    warm = [np.zeros(size) for size in layout.sizes]

    def unpack(x: Array) -> tuple[Array, Array, float]:
        sigma = float(np.exp(x[k + p])) if has_scale else 1.0
        return x[:k], root @ x[k : k + p], sigma

    def evaluate(x: Array) -> Value:
        nonlocal warm
        theta, beta, sigma = unpack(x)
        if options.nagq == 1:
            value = laplace(problem, theta, beta, sigma, warm)
        else:
            value = adaptive(problem, theta, beta, sigma, warm, options.nagq)
        warm = value.modes.u
        return value

    def objective(x: Array) -> tuple[float, Array]:
        if np.max(np.abs(x[:k])) > 1e4:
            return -np.inf, np.full_like(x, np.nan)
        try:
            value = evaluate(x)
        except (np.linalg.LinAlgError, FloatingPointError):
            return -np.inf, np.full_like(x, np.nan)
        parts = [value.theta, root.T @ value.beta]
        if has_scale:
            parts.append(np.array([value.log_sigma]))
        return value.loglik, np.concatenate(parts)

    start = np.concatenate([covariance.identity(_START), np.linalg.solve(root, glm.beta)])
    scale = np.concatenate([np.full(k, 0.2), np.ones(p)])
    if has_scale:
        # On the link scale the effects start at the size of the noise, not at 1.
        start[:k] *= sigma0 / max(abs(float(np.mean(likelihood.y))), sigma0)
        start, scale = np.append(start, np.log(sigma0)), np.append(scale, 0.1)
    best = maximise(objective, start, scale)
    if not np.isfinite(best.value):
        raise FitError("the likelihood is not finite at the starting values; rescale covariates")
    x = best.x.copy()
    x[:k] = canonical(covariance, x[:k])
    x[:k] = snap_to_zero(lambda t: objective(np.append(t, x[k:]))[0], covariance, x[:k])
    curvature = hessian(objective, x, scale)
    at = evaluate(x)
    theta, beta, sigma = unpack(x)
    everything, flat = invert_information(-curvature)
    order = [*range(k), *([k + p] if has_scale else [])]
    scale_cov = everything[np.ix_(order, order)]
    modes = at.modes
    w = -modes.l2
    cross = scale_down(modes.factor.lambdas, transpose_product(layout, w[:, None] * design.X))
    ux = solve(modes.factor, cross)
    if options.vcov == "conditional":
        schur = design.X.T @ (w[:, None] * design.X) - sum(
            np.einsum("jka,jkb->ab", c, u) for c, u in zip(cross, ux, strict=True)
        )
        vcov = np.linalg.pinv(schur, hermitian=True)
    else:
        block = slice(k, k + p)
        vcov = root @ everything[block, block] @ root.T
    outcome, component_cov = judge(
        design,
        covariance,
        transforms,
        theta,
        sigma,
        best,
        scale_cov,
        flat[:, order],
        (),
    )
    raw = transformed(covariance, theta, transforms)
    values = component_values(covariance, raw, 1.0)
    return Estimate(
        method="ML-Laplace" if options.nagq == 1 else f"ML-AGQ({options.nagq})",
        beta=beta,
        vcov=vcov,
        theta=raw,
        sigma=sigma,
        component_values=np.append(values, sigma) if has_scale else values,
        component_cov=component_cov,
        modes=tuple(scale_up(transforms, scale_up(modes.factor.lambdas, modes.u))),
        mode_cov=mode_covariance(modes.factor, transforms, 1.0),
        effect_variance=effect_variance(modes.factor, transforms, 1.0),
        coef_map=coefficient_map(modes.factor, transforms, ux),
        vcov_slopes=np.zeros((0, p, p)),
        scale_cov=np.zeros((0, 0)),
        df_residual=np.inf,
        eta=modes.eta,
        loglik=at.loglik,
        n_parameters=p + k + int(has_scale),
        outcome=outcome,
    )


def _inverse_root(information: Array) -> Array:
    """A square R with R R' the inverse of a symmetric matrix, floored where it is singular."""
    values, vectors = np.linalg.eigh(information)
    floor = 1e-10 * max(float(values[-1]), 1e-300)
    return np.asarray(vectors / np.sqrt(np.maximum(values, floor)))
