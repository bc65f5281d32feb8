"""Maximum likelihood: from a design and a likelihood to an Estimate.

Gaussian models with the identity link take the profiled least-squares path; everything else
the Laplace (or quadrature) path; models without random effects Fisher scoring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.linalg import cho_solve

from bayesglmm.design import Design
from bayesglmm.errors import ChoiceError, FitError, check_choice
from bayesglmm.families import Likelihood
from bayesglmm.laplace.blocks import (
    Array,
    Factor,
    inverse_blocks,
    inverse_trailing,
    layout_of,
    row_product,
    solve,
    transpose_product,
)
from bayesglmm.laplace.covariance import (
    Covariance,
    canonical,
    component_values,
    components,
    covariance_of,
)
from bayesglmm.laplace.estimate import Estimate
from bayesglmm.laplace.glm import fit_glm
from bayesglmm.laplace.marginal import Problem, Value, laplace
from bayesglmm.laplace.optimise import Objective, Optimum, hessian, maximise
from bayesglmm.laplace.outcome import Outcome
from bayesglmm.laplace.pirls import scale_down, scale_up
from bayesglmm.laplace.pls import (
    LinearProblem,
    Solution,
    deviance,
    linear_problem,
    penalised_least_squares,
)
from bayesglmm.laplace.quadrature import adaptive
from bayesglmm.laplace.threads import blas_threads

_START = 1.0  # sd of the random effects at the start, relative to sigma; lme4's start
_ZERO = 1e-5  # a relative sd below this is tested against exactly zero
_FLAT = 2e-6  # relative curvature below which a direction is not identified
_EXTREME_ETA = 15.0  # a fitted probability of 1 - 3e-7: the data are (quasi-)separated


@dataclass(frozen=True, slots=True)
class ML:
    """Maximum likelihood.

    Attributes
    ----------
    nagq
        1 for the Laplace approximation; k > 1 for adaptive Gauss-Hermite quadrature with k
        nodes, available for a single scalar random-effects term.
    reml
        Restricted maximum likelihood; Gaussian models with random effects only.
    vcov
        Covariance of the coefficients: "hessian" includes the uncertainty of the variance
        parameters, "conditional" holds them at their estimates (what MixedModels.jl prints),
        "auto" is lme4's choice: hessian for generalised, conditional for linear models.
    df
        For linear mixed models: "satterthwaite" (lmerTest) gives t statistics, "asymptotic"
        z statistics.

    Examples
    --------
    >>> ML(nagq=9, vcov="conditional")
    ML(nagq=9, reml=False, vcov='conditional', df='satterthwaite')
    """

    nagq: int = 1
    reml: bool = False
    vcov: Literal["auto", "hessian", "conditional"] = "auto"
    df: Literal["satterthwaite", "asymptotic"] = "satterthwaite"

    def __post_init__(self) -> None:
        check_choice("vcov", self.vcov, ("auto", "hessian", "conditional"))
        check_choice("df", self.df, ("satterthwaite", "asymptotic"))
        if not isinstance(self.nagq, int) or isinstance(self.nagq, bool) or self.nagq < 1:
            raise ChoiceError(
                f"nagq={self.nagq!r} is not a number of quadrature nodes; give a whole number "
                "from 1 (Laplace) up, e.g. 9"
            )


def maximum_likelihood(design: Design, likelihood: Likelihood, options: ML) -> Estimate:
    """Fit by maximum likelihood.

    Raises
    ------
    ChoiceError
        If an option does not apply to this model (REML for a GLMM, quadrature for several
        terms).
    FitError
        If no finite likelihood can be found.
    """
    linear = likelihood.family.name == "gaussian" and likelihood.link.name == "identity"
    if options.reml and not (linear and design.random):
        raise ChoiceError(
            "reml=True is for Gaussian models with an identity link and random effects; "
            f"this is family={likelihood.family.name!r}, link={likelihood.link.name!r} with "
            f"{len(design.random)} random-effects term(s). Use reml=False."
        )
    if options.nagq > 1:
        _check_quadrature(design, linear)
    if not design.random:
        return _without_effects(design, likelihood, linear)
    fit = _linear_mixed if linear else _generalised_mixed
    with blas_threads(layout_of(design.random).q):
        return fit(design, likelihood, options)


def _check_quadrature(design: Design, linear: bool) -> None:
    if linear or not design.random:
        raise ChoiceError(
            "nagq > 1 is for generalised models with random effects: this likelihood needs no "
            "quadrature, it is already exact. Use nagq=1."
        )
    if len(design.random) > 1 or len(design.random[0].columns) > 1:
        terms = ", ".join(f"{t.name} ({len(t.columns)} column(s))" for t in design.random)
        raise ChoiceError(
            "nagq > 1 needs a single scalar random-effects term such as (1|g); this model has "
            f"{terms}. Use nagq=1 (Laplace)."
        )


# Without random effects ---------------------------------------------------------------------


def _without_effects(design: Design, likelihood: Likelihood, linear: bool) -> Estimate:
    at = fit_glm(design.X, design.offset, likelihood)
    has_scale = likelihood.family.has_scale
    mu = likelihood.link.inverse(at.eta)
    deviance_ = likelihood.deviance(mu)
    df_residual = design.n - design.p
    ml_sigma = float(np.sqrt(deviance_ / design.n)) if has_scale else 1.0
    if has_scale and df_residual <= 0:
        raise FitError(
            f"{design.p} coefficients and {design.n} rows leave nothing to estimate the "
            "residual variance from; use fewer terms"
        )
    sigma = float(np.sqrt(deviance_ / df_residual)) if has_scale else 1.0
    if has_scale and ml_sigma == 0.0:
        raise FitError("the response is fitted exactly: its residual variance is zero")
    log_sigma_cov = np.full((1, 1), 1.0 / (2.0 * design.n)) if has_scale else np.zeros((0, 0))
    notes = _separation_notes(likelihood, at.eta)
    return Estimate(
        method="ML",
        beta=at.beta,
        vcov=np.linalg.pinv(at.information, hermitian=True) * sigma**2,
        theta=np.zeros(0),
        sigma=sigma,
        component_values=np.array([sigma]) if has_scale else np.zeros(0),
        component_cov=log_sigma_cov,
        modes=(),
        mode_cov=(),
        coef_map=(),
        vcov_slopes=np.zeros((0, design.p, design.p)),
        scale_cov=np.zeros((0, 0)),
        df_residual=float(df_residual) if has_scale else np.inf,
        eta=at.eta,
        loglik=float(np.sum(likelihood.log_density(at.eta, ml_sigma))),
        n_parameters=design.p + int(has_scale),
        outcome=Outcome(
            converged=at.decrement < 1e-8,
            gradient_norm=float(np.sqrt(at.decrement)),
            evaluations=at.steps,
            trace=(),
            notes=notes,
        ),
    )


def _separation_notes(likelihood: Likelihood, eta: Array) -> tuple[str, ...]:
    if likelihood.family.name not in ("binomial", "bernoulli"):
        return ()
    if likelihood.link.name in ("log", "identity") or np.max(np.abs(eta), initial=0) < _EXTREME_ETA:
        return ()
    return (
        "Some fitted probabilities are 0 or 1 to rounding: a predictor separates the outcomes, "
        "so its estimate is infinite and its standard error meaningless. Remove or merge the "
        'predictor, or fit with a prior: fit("nuts").',
    )


# Linear mixed models ------------------------------------------------------------------------


def _linear_mixed(design: Design, likelihood: Likelihood, options: ML) -> Estimate:
    layout, covariance = layout_of(design.random), covariance_of(design.random)
    n_effects = sum(J * K for J, K in layout.sizes)
    if n_effects >= design.n and any(design.n == J for J, _ in layout.sizes):
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
    theta = _snap_to_zero(lambda t: objective(t)[0], covariance, theta)
    at = penalised_least_squares(problem, theta)
    df = design.n - design.p if options.reml else design.n
    sigma = float(np.sqrt(at.rss / df))
    joint = _linear_information(problem, theta, sigma, df, options.reml)
    scale_cov, flat = _invert_information(joint)
    inverse_fixed = cho_solve(at.fixed, np.eye(design.p))
    conditional = inverse_fixed * sigma**2
    slopes, drift = _linear_sensitivity(problem, theta, sigma, conditional)
    vcov = conditional
    if options.vcov == "hessian":
        vcov = conditional + drift.T @ scale_cov[:-1, :-1] @ drift
    asymptotic = options.df == "asymptotic"
    b = scale_up(at.factor.lambdas, at.u)
    value = objective(theta)[0]
    outcome, component_cov = _judge(design, covariance, theta, sigma, best, scale_cov, flat, ())
    return Estimate(
        method="REML" if options.reml else "ML",
        beta=at.beta,
        vcov=vcov,
        theta=theta,
        sigma=sigma,
        component_values=np.append(component_values(covariance, theta, sigma), sigma),
        component_cov=component_cov,
        modes=tuple(b),
        mode_cov=_mode_covariance(at.factor, sigma),
        coef_map=tuple(scale_up_columns(at.factor.lambdas, at.ux)),
        vcov_slopes=np.zeros((0, design.p, design.p)) if asymptotic else slopes,
        scale_cov=np.zeros((0, 0)) if asymptotic else scale_cov,
        df_residual=np.inf,
        eta=design.X @ at.beta + design.offset + row_product(layout, b),
        loglik=value,
        n_parameters=design.p + covariance.size + 1,
        outcome=outcome,
    )


def scale_up_columns(lambdas: tuple[Array, ...], parts: list[Array]) -> list[Array]:
    """Lambda applied to (J_f, K_f, m) arrays."""
    return [np.einsum("kc,jcm->jkm", f, part) for f, part in zip(lambdas, parts, strict=True)]


def _mode_covariance(factor: Factor, sigma: float) -> tuple[Array, ...]:
    blocks = inverse_blocks(factor, inverse_trailing(factor))
    return tuple(
        sigma**2 * (f @ block @ f.T) for f, block in zip(factor.lambdas, blocks, strict=True)
    )


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


# Generalised linear mixed models --------------------------------------------------------------


def _generalised_mixed(design: Design, likelihood: Likelihood, options: ML) -> Estimate:
    layout, covariance = layout_of(design.random), covariance_of(design.random)
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
            return -np.inf, np.zeros_like(x)
        try:
            value = evaluate(x)
        except (np.linalg.LinAlgError, FloatingPointError):
            return -np.inf, np.zeros_like(x)
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
    x[:k] = _snap_to_zero(lambda t: objective(np.append(t, x[k:]))[0], covariance, x[:k])
    curvature = hessian(objective, x, scale)
    at = evaluate(x)
    theta, beta, sigma = unpack(x)
    everything, flat = _invert_information(-curvature)
    order = [*range(k), *([k + p] if has_scale else [])]
    scale_cov = everything[np.ix_(order, order)]
    modes = at.modes
    w = -modes.l2
    cross = scale_down(modes.factor.lambdas, transpose_product(layout, w[:, None] * design.X))
    ux = solve(modes.factor, cross)
    coef_map = tuple(scale_up_columns(modes.factor.lambdas, ux))
    if options.vcov == "conditional":
        schur = design.X.T @ (w[:, None] * design.X) - sum(
            np.einsum("jka,jkb->ab", c, u) for c, u in zip(cross, ux, strict=True)
        )
        vcov = np.linalg.pinv(schur, hermitian=True)
    else:
        block = slice(k, k + p)
        vcov = root @ everything[block, block] @ root.T
    outcome, component_cov = _judge(
        design,
        covariance,
        theta,
        sigma,
        best,
        scale_cov,
        flat[:, order],
        _separation_notes(likelihood, design.X @ beta + design.offset),
    )
    values = component_values(covariance, theta, 1.0)
    return Estimate(
        method="ML-Laplace" if options.nagq == 1 else f"ML-AGQ({options.nagq})",
        beta=beta,
        vcov=vcov,
        theta=theta,
        sigma=sigma,
        component_values=np.append(values, sigma) if has_scale else values,
        component_cov=component_cov,
        modes=tuple(scale_up(modes.factor.lambdas, modes.u)),
        mode_cov=_mode_covariance(modes.factor, 1.0),
        coef_map=coef_map,
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


# Judging the end --------------------------------------------------------------------------------


def _snap_to_zero(
    objective: Callable[[Array], float], covariance: Covariance, theta: Array
) -> Array:
    """Set a relative sd that vanished to exactly zero, if the likelihood agrees."""
    out = theta
    for f, r, c in covariance.entries:
        row = [k for k, (g, s, _) in enumerate(covariance.entries) if g == f and s == r]
        if r == c and 0 < float(np.linalg.norm(theta[row])) < _ZERO:
            trial = out.copy()
            trial[row] = 0.0
            if objective(trial) >= objective(out) - 1e-8:
                out = trial
    return out


def _invert_information(information: Array) -> tuple[Array, Array]:
    """Inverse information and the flat directions (rows), which the data do not inform."""
    diagonal = np.sqrt(np.maximum(np.abs(np.diag(information)), 1e-300))
    values, vectors = np.linalg.eigh(information / np.outer(diagonal, diagonal))
    flat = values < _FLAT * max(float(values[-1]), 1e-300)
    inverse = (vectors[:, ~flat] / values[~flat]) @ vectors[:, ~flat].T
    directions = (vectors[:, flat] / diagonal[:, None]).T
    norms = np.linalg.norm(directions, axis=1, keepdims=True)
    return inverse / np.outer(diagonal, diagonal), directions / np.where(norms > 0, norms, 1.0)


def _judge(
    design: Design,
    covariance: Covariance,
    theta: Array,
    sigma: float,
    best: Optimum,
    scale_cov: Array,
    flat: Array,
    notes: tuple[str, ...],
) -> tuple[Outcome, Array]:
    """The outcome in words, and the covariance of (log sd, atanh corr[, log sigma])."""
    parts = components(covariance)
    has_sigma = len(scale_cov) > len(theta)
    relative = has_sigma and best.x.shape == theta.shape  # sigma profiled out: sds scale with it

    def unconstrained(x: Array) -> Array:
        s = float(np.exp(x[-1])) if has_sigma else 1.0
        values = component_values(covariance, x[: len(theta)], s if relative else 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            out = [
                np.log(v) if c.kind == "sd" else np.arctanh(v)
                for v, c in zip(values, parts, strict=True)
            ]
        return np.array([*out, np.log(s)] if has_sigma else out)

    x = np.append(theta, np.log(sigma)) if has_sigma else theta
    jacobian = np.empty((len(parts) + has_sigma, len(x)))
    with np.errstate(invalid="ignore"):  # a component at its boundary: masked below
        for k in range(len(x)):
            step = np.zeros(len(x))
            step[k] = 1e-5
            jacobian[:, k] = (unconstrained(x + step) - unconstrained(x - step)) / 2e-5
    values = component_values(covariance, theta, 1.0)
    names = [component_name(design, c.term, c.row, c.column, c.kind) for c in parts]
    at_boundary = np.array(
        [
            (c.kind == "sd" and v < 1e-4)
            or (c.kind == "corr" and (not np.isfinite(v) or abs(v) > 1 - 1e-6))
            for c, v in zip(parts, values, strict=True)
        ]
        + [False] * has_sigma,
        dtype=bool,
    )
    with np.errstate(invalid="ignore"):
        cov = jacobian @ scale_cov @ jacobian.T
        lost = np.zeros(len(cov), dtype=bool)
        for direction in flat:
            lost |= ~(np.abs(jacobian @ direction) < 1e-3)
    redundant = tuple(
        n for n, gone, edge in zip(names, lost, at_boundary, strict=False) if gone and not edge
    )
    singular = tuple(n for n, edge in zip(names, at_boundary, strict=False) if edge)
    singular += _degenerate(design, covariance, theta, singular)
    cov[lost | at_boundary, :] = np.nan
    cov[:, lost | at_boundary] = np.nan
    notes = (*notes, *_notes(best, singular, redundant))
    outcome = Outcome(
        converged=best.converged,
        gradient_norm=float(np.max(np.abs(best.gradient), initial=0.0)),
        evaluations=best.evaluations,
        trace=best.trace,
        singular=singular,
        redundant=redundant,
        notes=notes,
    )
    return outcome, cov


def _degenerate(
    design: Design, covariance: Covariance, theta: Array, known: tuple[str, ...]
) -> tuple[str, ...]:
    """Terms whose covariance matrix has lost rank without any sd or pair saying so."""
    out = []
    for term, factor in zip(design.random, covariance.lambdas(theta), strict=True):
        diagonal = np.abs(np.diag(factor))
        if len(factor) > 1 and diagonal.min() < 1e-4 * max(diagonal.max(), 1e-4):
            name = f"covariance of {term.name}"
            if not any(term.name in other for other in known):
                out.append(name)
    return tuple(out)


def component_name(design: Design, term: int, row: int, column: int, kind: str) -> str:
    """How a variance component is called in messages, e.g. ``sd of (Intercept) by herd``."""
    group = design.random[term]
    if kind == "sd":
        return f"sd of {group.columns[row]} by {group.name}"
    return f"correlation of {group.columns[column]} and {group.columns[row]} by {group.name}"


def _notes(best: Optimum, singular: tuple[str, ...], redundant: tuple[str, ...]) -> list[str]:
    notes = []
    if not best.converged:
        notes.append(
            "The optimiser stopped before the gradient vanished: centre and scale the "
            "covariates, or simplify the random effects."
        )
    if singular:
        notes.append(
            "Singular fit: estimated at the boundary (zero, or perfectly correlated): "
            f"{', '.join(singular)}. The estimate is valid; simplify the term, or let a prior "
            'keep it inside: fit("nuts").'
        )
    if redundant:
        notes.append(
            "Not identified: the data do not tell these apart, so only the fit as a whole has "
            f"meaning: {', '.join(redundant)}. Remove an overlapping term, or centre the "
            "covariates."
        )
    return notes


__all__ = ["ML", "Estimate", "Solution", "maximum_likelihood", "Objective"]
