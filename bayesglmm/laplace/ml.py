"""Maximum likelihood: from a design and a likelihood to an Estimate.

Gaussian models with the identity link take the profiled least-squares path (`linear.py`);
everything else the Laplace or quadrature path (`generalised.py`); models without random effects
Fisher scoring (`glm.py`).

The engines are imported by the functions that start them: they are compiled by numba, which takes
a quarter of a second to import. So `import bayesglmm` is quick, and the first fit pays.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bayesglmm.design import Design
from bayesglmm.errors import ChoiceError, FitError, FittedExactly
from bayesglmm.families import Likelihood
from bayesglmm.laplace.estimate import Estimate
from bayesglmm.laplace.memory import check_memory
from bayesglmm.laplace.options import ML
from bayesglmm.laplace.outcome import Outcome
from bayesglmm.laplace.separation import judge_groups, judge_separation
from bayesglmm.laplace.structure import Array, Structure
from bayesglmm.laplace.threads import blas_threads

_MOST_COLUMNS = 3  # k^3 nodes for every level


def maximum_likelihood(
    design: Design,
    likelihood: Likelihood,
    options: ML,
    structure: tuple[Structure, ...] = (),
) -> Estimate:
    """Fit by maximum likelihood.

    Parameters
    ----------
    structure
        That of ``design.random``, if it is known from another fit (`Estimate.structure`); else
        empty.

    Raises
    ------
    ChoiceError
        If an option does not apply to this model (REML for a GLMM, quadrature for several
        terms).
    FitError
        If no finite likelihood can be found.
    """
    from bayesglmm.laplace.generalised import generalised_mixed
    from bayesglmm.laplace.linear import linear_mixed
    from bayesglmm.laplace.standardise import coordinates, orthonormal

    linear = likelihood.is_linear
    if options.reml and not (linear and design.random):
        raise ChoiceError(
            "reml=True is for Gaussian models with an identity link and random effects; "
            f"this is family={likelihood.family.name!r}, link={likelihood.link.name!r} with "
            f"{len(design.random)} random-effects term(s). Use reml=False."
        )
    if options.nagq != 1:
        check_quadrature(design, linear, options.nagq)
    found_structure = structure[0] if structure else design.structure
    with blas_threads(found_structure.q):
        # The engines see orthonormal columns, so neither units nor origins of covariates (years
        # and their squares, time stamps) cost digits; the estimate is then carried back.
        if design.random:
            check_memory(found_structure, design)
            columns = coordinates(design, found_structure)
            fit = linear_mixed if linear else generalised_mixed
            found, R = fit(design, columns, likelihood, options), columns.R
        else:
            Q, R = orthonormal(design.X)
            found = without_effects(replace(design, X=Q), likelihood, linear)
        found = judge_separation(found.for_columns(R), design, likelihood)
        return judge_groups(found, design, likelihood)


def check_quadrature(design: Design, linear: bool, nagq: int) -> None:
    """Refuse quadrature where it does not apply.

    Raises
    ------
    ChoiceError
        With the terms of the model.
    """
    if linear or not design.random:
        raise ChoiceError(
            f"nagq={nagq} is for generalised models with random effects: this likelihood needs no "
            "quadrature, it is already exact. Use nagq=1."
        )
    columns = len(design.random[0].columns)
    if nagq == 0:
        return
    if len(design.random) > 1 or columns > _MOST_COLUMNS:
        terms = ", ".join(f"{t.name} ({len(t.columns)} column(s))" for t in design.random)
        one = len({t.factor for t in design.random}) == 1 < len(design.random)
        raise ChoiceError(
            "nagq > 1 needs a single random-effects term of at most three columns, such as "
            f"(1|g), (x|g) or (x||g); this model has {terms}. "
            + ("Write the terms as one, or use" if one else "Use")
            + " nagq=1 (Laplace)."
        )


def without_effects(design: Design, likelihood: Likelihood, linear: bool) -> Estimate:
    from bayesglmm.laplace.glm import fit_glm

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
    typical = np.sqrt(deviance_ / np.sum(likelihood.w))  # residual of a row of mean weight
    if has_scale and typical <= 1e-12 * float(np.max(np.abs(likelihood.y))):
        raise FittedExactly
    log_sigma_cov = np.full((1, 1), 1.0 / (2.0 * design.n)) if has_scale else np.zeros((0, 0))
    notes: tuple[str, ...] = ()
    if at.decrement >= 1e-8:
        notes = (
            "The search stopped before the gradient vanished, at the edge of what the link "
            "allows: standard errors mean nothing. Try the family's default link.",
        )
    return Estimate(
        method="ML",
        beta=at.beta,
        vcov=_inverse_information(design.X, likelihood.expected_weights(at.eta)) * sigma**2,
        theta=np.zeros(0),
        sigma=sigma,
        component_values=np.array([sigma]) if has_scale else np.zeros(0),
        component_cov=log_sigma_cov,
        modes=(),
        mode_cov=(),
        factor=None,
        transforms=(),
        relative_to=1.0,
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


def _inverse_information(X: Array, w: Array) -> Array:
    """(X' W X)^-1 through the singular values of W^1/2 X, which lose half as many digits.

    Nothing is cut off: a separated direction has a huge variance, not none.
    """
    _, s, Vt = np.linalg.svd(X * np.sqrt(w)[:, None], full_matrices=False)
    half = Vt.T / np.maximum(s, 1e-12 * max(float(s.max(initial=0.0)), 1e-100))
    return np.asarray(half @ half.T)
