"""All parameters of a model under their priors: draws of them, and their log-density."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bayesglmm.design import Design
from bayesglmm.design.fixed import INTERCEPT
from bayesglmm.errors import ChoiceError
from bayesglmm.priors.default import Priors

Array = NDArray[np.float64]


def refuse_flat(priors: Priors, design: Design, what: str) -> None:
    """Refuse a model with an improper prior.

    Raises
    ------
    ChoiceError
        Names every parameter that has one.
    """
    flat = [name for name, prior in priors.table(design).items() if not prior.is_proper]
    if flat:
        raise ChoiceError(
            f"{what} needs a prior that is a probability distribution for every parameter; "
            f"{', '.join(map(repr, flat))} {'has' if len(flat) == 1 else 'have'} a flat one. Give "
            f"one by priors=, e.g. priors={{{flat[0]!r}: "
            f"{'bg.HalfNormal(1)' if flat[0].startswith(('sd:', 'sigma')) else 'bg.Normal(0, 1)'}}}"
        )


def draw_parameters(
    priors: Priors, design: Design, rng: np.random.Generator, size: int
) -> dict[str, Array]:
    """Draws of every parameter, by the names that draws of the posterior have.

    Returns
    -------
    dict
        ``beta`` (size, p), with the intercept at zero of all covariates; ``sd_<group>``
        (size, K), ``corr_<group>`` (size, K, K) of every term; ``sigma`` (size,).

    Raises
    ------
    ChoiceError
        For a flat prior.
    """
    beta = np.stack([prior.draw(rng, size) for prior in priors.coefficients], axis=1)
    if INTERCEPT in design.names:  # its prior is at the mean of the covariates
        at = design.names.index(INTERCEPT)
        beta[:, at] += beta @ intercept_shift(design)
    out = {"beta": beta}
    for term, sds, corr in zip(design.random, priors.sds, priors.correlations, strict=True):
        out[f"sd_{term.name}"] = np.stack([prior.draw(rng, size) for prior in sds], axis=1)
        if term.correlated and term.K > 1:
            out[f"corr_{term.name}"] = corr.draw(rng, size, term.K)
    if priors.sigma:
        out["sigma"] = priors.sigma[0].draw(rng, size)
    return out


def intercept_shift(design: Design) -> Array:
    """(p,) weights whose sum with beta takes the intercept from the covariates' mean to zero."""
    means = design.X.mean(axis=0)
    means[design.names.index(INTERCEPT)] = 0.0
    return np.asarray(-means)


def log_prior(priors: Priors, design: Design, values: dict[str, Array]) -> Array:
    """Log-density of the top-level parameters, for draws of them as :func:`draw_parameters` has.

    Those of coefficients, sds, correlations and sigma; not of the random effects, whose
    distribution is part of the model. Up to the constant of LKJ; zero for flat priors.

    Returns
    -------
    (size,)
    """
    beta = np.array(values["beta"])
    if INTERCEPT in design.names:
        beta[:, design.names.index(INTERCEPT)] -= values["beta"] @ intercept_shift(design)
    total = np.zeros(len(beta))
    for k, prior in enumerate(priors.coefficients):
        total += prior.log_density(beta[:, k])
    for term, sds, corr in zip(design.random, priors.sds, priors.correlations, strict=True):
        for k, prior in enumerate(sds):
            total += prior.log_density(values[f"sd_{term.name}"][:, k])
        if term.correlated and term.K > 1:
            total += corr.log_density(values[f"corr_{term.name}"])
    if priors.sigma:
        total += priors.sigma[0].log_density(values["sigma"])
    return total
