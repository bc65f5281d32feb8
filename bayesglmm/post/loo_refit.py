"""Leave-one-out by sampling again, where importance weights cannot say what a unit costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from bayesglmm.design import Design
from bayesglmm.design.subset import rows_of, subset
from bayesglmm.errors import BayesglmmError, FitError
from bayesglmm.model import Model
from bayesglmm.nuts.options import NUTS
from bayesglmm.nuts.sampler import sample
from bayesglmm.post.integrated import group_likelihood, nest, nested_terms
from bayesglmm.post.parameters import covariance_factor
from bayesglmm.post.pointwise import Chains, chains_of, conditional
from bayesglmm.post.refits import refits
from bayesglmm.posterior.sampled import SampledPosterior

Array = NDArray[np.float64]
Index = NDArray[np.intp]


def sample_without(
    model: Model,
    options: NUTS,
    index: Index,
    units: Mapping[np.intp, Any],
    nodes: int | None,
    thin: int,
) -> Array:
    """log p(y of a unit | all other rows) of every unit, by draws that never saw it.

    Parameters
    ----------
    options
        Of the fit; its seed gives that of every unit.
    index
        (n,) unit of every row.
    units
        Which ones, and what they are called.
    nodes, thin
        As for :func:`bayesglmm.loo`.

    Raises
    ------
    FitError
        If the model cannot be sampled without one of them.
    """

    def predicted(unit: np.intp) -> float:
        try:
            return _predicted(model, options, index, int(unit), nodes, thin)
        except BayesglmmError as error:
            raise FitError(f"loo(refit=True), without {units[unit]!r}: {error}") from error

    return np.array(refits(predicted, list(units), None, "sampling again"))


def _predicted(
    model: Model, options: NUTS, index: Index, unit: int, nodes: int | None, thin: int
) -> float:
    left = index == unit
    seed = int(np.random.SeedSequence((options.seed or 0, unit)).generate_state(1)[0] >> 1)
    others = replace(model, design=subset(model.design, ~left))
    run = sample(others, replace(options, seed=seed, store=None, progress=False))
    own = replace(model, design=rows_of(model.design, left))
    learnt = chains_of(SampledPosterior(others.design, run), thin)
    chains = _carried(learnt, others.design, own.design, np.random.default_rng(seed))
    one, integrated = np.zeros(own.design.n, dtype=np.intp), nested_terms(model.design, index)
    blocks = nest(own.design, integrated, one)
    if blocks:
        total = group_likelihood(own, chains, one, 1, blocks, nodes)[:, 0]
    else:
        total = conditional(own, chains, slice(None)).sum(axis=1)
    return float(logsumexp(total)) - math.log(len(total))


def _carried(chains: Chains, learnt: Design, rows: Design, rng: np.random.Generator) -> Chains:
    """Draws for the levels of some rows: of a level that was not there, from N(0, Sigma)."""
    effects = []
    for f, (known, needed) in enumerate(zip(learnt.random, rows.random, strict=True)):
        place = {level: j for j, level in enumerate(known.levels)}
        own = np.empty((chains.size, needed.J, needed.K))
        for j, level in enumerate(needed.levels):
            if level in place:
                own[:, j] = chains.effects[f][:, place[level]]
                continue
            noise = rng.standard_normal((chains.size, needed.K))
            for s in range(chains.size):
                own[s, j] = covariance_factor(chains.sds[f][s], chains.corrs[f][s]) @ noise[s]
        effects.append(own)
    return replace(chains, effects=tuple(effects))
