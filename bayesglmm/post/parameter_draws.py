"""Draws of every top-level parameter under one name each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bayesglmm.design import Design
from bayesglmm.post.pointwise import Chains
from bayesglmm.priors import Prior, Priors

Array = NDArray[np.float64]


def parameter_names(design: Design, has_scale: bool) -> tuple[str, ...]:
    """``x``, ``sd:g:x``, ``corr:g:(Intercept):x``, ``sigma``: as priors and ``params`` are named.

    Coefficients first, then the sds and correlations of every term, the residual sd last.
    """
    names = list(design.names)
    for term in design.random:
        names += [f"sd:{term.name}:{c}" for c in term.columns]
        if term.correlated:
            names += [
                f"corr:{term.name}:{term.columns[j]}:{term.columns[i]}" for i, j in pairs(term.K)
            ]
    return (*names, "sigma") if has_scale else tuple(names)


def parameter_priors(priors: Priors, design: Design) -> tuple[Prior, ...]:
    """The prior of each, in the same order; LKJ for every correlation of a term."""
    out = list(priors.coefficients)
    for term, sds, corr in zip(design.random, priors.sds, priors.correlations, strict=True):
        out += sds
        out += [corr] * len(pairs(term.K)) if term.correlated else []
    return (*out, *priors.sigma)


def pairs(K: int) -> list[tuple[int, int]]:
    """Row and column of every correlation, as ``varcorr`` orders them."""
    return [(i, j) for i in range(K) for j in range(i)]


def parameter_draws(design: Design, chains: Chains, has_scale: bool) -> Array:
    """(S, m) draws, in the order of :func:`parameter_names`."""
    columns = [chains.beta]
    for term, sd, corr in zip(design.random, chains.sds, chains.corrs, strict=True):
        columns.append(sd)
        if term.correlated:
            columns += [corr[:, i, j, None] for i, j in pairs(term.K)]
    if has_scale:
        columns.append(chains.sigma[:, None])
    return np.concatenate(columns, axis=1)
