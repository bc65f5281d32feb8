"""The model as PyMC code: the public statement of what is sampled.

Variables: ``beta[coef]``, ``sd_<group>[<group>_term]``, ``corr_<group>``,
``b_<group>[<group>, <group>_term]``, ``sigma``. The data are ``pm.Data``, so new values of
the same shape need no new compilation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesglmm.design import RandomTerm
from bayesglmm.design.fixed import INTERCEPT
from bayesglmm.priors import LKJ, Flat, Normal, Prior

if TYPE_CHECKING:
    from bayesglmm.model import Model


def build_pymc(model: Model, centred: Mapping[str, bool]) -> Any:
    """The ``pm.Model`` of a model.

    Parameters
    ----------
    centred
        For each random-effects term, by name: True samples the effects themselves (good when
        every level has much data), False standard normals that are scaled up (good when it
        has little).

    Returns
    -------
    pymc.Model
    """
    import pymc as pm

    design, priors = model.design, model.priors
    with pm.Model(coords=coordinates_of(model)) as pymc_model:
        eta = _fixed_part(model)
        if np.any(design.offset != 0.0):
            eta = eta + pm.Data("offset", design.offset, dims="obs")
        for term, sds, corr in zip(design.random, priors.sds, priors.correlations, strict=True):
            eta = eta + _random_part(term, sds, corr, centred[term.name])
        sigma = priors.sigma[0].pymc("sigma") if priors.sigma else 1.0
        likelihood_of(model, eta, sigma)
    return pymc_model


# Names that PyMC, ArviZ or this model use for something else.
_TAKEN = {"obs", "coef", "slope", "chain", "draw", "beta", "sigma", "slopes", "epsilon", "y", "X"}


def level_dim(term: RandomTerm) -> str:
    """The dimension of a term's levels: its name, or ``<name>_level`` where that is taken."""
    return f"{term.name}_level" if term.name in _TAKEN else term.name


def coordinates_of(model: Model) -> dict[str, Any]:
    """The named coordinates: rows, coefficients, levels and columns of every term."""
    design = model.design
    coords: dict[str, Any] = {"obs": np.asarray(design.rows), "coef": list(design.names)}
    for term in design.random:
        coords[level_dim(term)] = list(term.levels)
        coords[f"{term.name}_term"] = list(term.columns)
        coords[f"{term.name}_term2"] = list(term.columns)
    return coords


def likelihood_of(model: Model, eta: Any, sigma: Any) -> None:
    """Add the observed response to the model on the context stack."""
    import pymc as pm

    likelihood = model.likelihood
    weighted = bool(np.any(likelihood.w != 1.0))
    w = pm.Data("weights", likelihood.w, dims="obs") if weighted else 1.0
    y = likelihood.y
    if likelihood.family.name in ("binomial", "bernoulli"):
        y = np.round(y * likelihood.w).astype(np.int64)
        if weighted:
            w = pm.Data("trials", np.round(likelihood.w).astype(np.int64), dims="obs")
    elif likelihood.family.name == "poisson":
        y = y.astype(np.int64)
    observed = pm.Data("y_data", y, dims="obs")
    likelihood.family.observed("y", eta, likelihood.link, observed, w, sigma, "obs", weighted)


def _fixed_part(model: Model) -> Any:
    """eta = X beta, sampled with centred columns when there is an intercept."""
    import pymc as pm
    import pytensor.tensor as pt

    design, priors = model.design, model.priors.coefficients
    names = design.names
    if INTERCEPT not in names:
        beta = _coefficients("beta", priors, names, "coef")
        X = pm.Data("X", design.X, dims=("obs", "coef"))
        return X @ beta
    at = names.index(INTERCEPT)
    others = [k for k in range(len(names)) if k != at]
    centre = priors[at].pymc("intercept_at_mean")
    if not others:
        pm.Deterministic("beta", pt.stack([centre]), dims="coef")
        return centre + pt.zeros(len(design.X))
    pymc_model = pm.modelcontext(None)
    pymc_model.add_coord("slope", [names[k] for k in others])
    means = design.X[:, others].mean(axis=0)
    slopes = _coefficients(
        "slopes", tuple(priors[k] for k in others), tuple(names[k] for k in others), "slope"
    )
    X = pm.Data("X_centred", design.X[:, others] - means, dims=("obs", "slope"))
    intercept = centre - pt.dot(pm.Data("X_means", means, dims="slope"), slopes)
    parts = [pt.atleast_1d(intercept) if k == at else None for k in range(len(names))]
    beta = pt.concatenate([slopes[:at], parts[at], slopes[at:]])
    pm.Deterministic("beta", beta, dims="coef")
    return centre + X @ slopes


def _coefficients(name: str, priors: tuple[Prior, ...], names: tuple[str, ...], dim: str) -> Any:
    """One vector variable where the priors allow it, else one variable per coefficient."""
    import pymc as pm
    import pytensor.tensor as pt

    if all(isinstance(p, Normal) for p in priors):
        normals = [p for p in priors if isinstance(p, Normal)]
        means, sds = np.array([p.mean for p in normals]), np.array([p.sd for p in normals])
        return pm.Normal(name, mu=means, sigma=sds, dims=dim)
    if all(isinstance(p, Flat) for p in priors):
        return pm.Flat(name, dims=dim)
    each = [p.pymc(f"{name}_{coef}") for p, coef in zip(priors, names, strict=True)]
    return pm.Deterministic(name, pt.stack(each), dims=dim)


def _random_part(term: RandomTerm, sds: tuple[Prior, ...], corr: LKJ, centred: bool) -> Any:
    """Z b of one term, with its priors."""
    import pymc as pm

    group, columns = term.name, f"{term.name}_term"
    effects = _effects(term, sds, corr, centred)
    index = pm.Data(f"index_{group}", term.index.astype(np.int64), dims="obs")
    if len(term.columns) == 1 and np.all(term.Z == 1.0):
        return effects[index, 0]
    Z = pm.Data(f"Z_{group}", term.Z, dims=("obs", columns))
    return (Z * effects[index]).sum(axis=1)


def term_scales(term: RandomTerm, sds: tuple[Prior, ...], corr: LKJ) -> tuple[Any, Any]:
    """Standard deviations (K,) of a term with their priors, and the Cholesky factor (K, K).

    The factor is None for a single column or independent ones.
    """
    import pymc as pm
    import pytensor.tensor as pt

    group, columns, K = term.name, f"{term.name}_term", len(term.columns)
    correlated = term.correlated and K > 1
    if correlated and len(set(sds)) == 1:
        chol, matrix, sd = pm.LKJCholeskyCov(
            f"chol_{group}",
            n=K,
            eta=corr.eta,
            sd_dist=sds[0].pymc_dist(K),
            store_in_trace=False,
        )
        pm.Deterministic(f"sd_{group}", sd, dims=columns)
        pm.Deterministic(f"corr_{group}", matrix, dims=(columns, f"{columns}2"))
        return sd, chol
    if len(set(sds)) == 1:
        sd = sds[0].pymc(f"sd_{group}", (columns,))
    else:
        each = [p.pymc(f"sd_{group}_{c}") for p, c in zip(sds, term.columns, strict=True)]
        sd = pm.Deterministic(f"sd_{group}", pt.stack(each), dims=columns)
    if not correlated:
        return sd, None
    # LKJCholeskyCov takes one distribution for all sds: with several, correlations alone.
    # The value of LKJCorr is the Cholesky factor of the correlation matrix.
    unit = pm.LKJCorr(f"chol_{group}", n=K, eta=corr.eta)
    pm.Deterministic(f"corr_{group}", unit @ unit.T, dims=(columns, f"{columns}2"))
    return sd, sd[:, None] * unit


def _effects(term: RandomTerm, sds: tuple[Prior, ...], corr: LKJ, centred: bool) -> Any:
    """The effects b of a term, (J, K)."""
    import pymc as pm

    group, dims = term.name, (level_dim(term), f"{term.name}_term")
    sd, chol = term_scales(term, sds, corr)
    if centred:
        if chol is None:
            return pm.Normal(f"b_{group}", 0.0, sd, dims=dims)
        return pm.MvNormal(f"b_{group}", np.zeros(term.K), chol=chol, dims=dims)
    z = pm.Normal(f"z_{group}", 0.0, 1.0, dims=dims)
    return pm.Deterministic(f"b_{group}", z * sd if chol is None else z @ chol.T, dims=dims)
