"""Refuse a posterior that is not a distribution: what flat priors leave undetermined.

A flat prior on a coefficient needs a likelihood that falls off in every direction of the
coefficients; with separation it does not (see :mod:`bayesglmm.laplace.separation`): the density
would have to be sampled out to infinity; nor does that of a Gaussian with a log link, once all
means are zero. A flat prior on the sd of a term with J levels needs J - r >= 2, where r
directions of the effects are those of coefficients with flat priors, too, such as their mean: the
likelihood falls off as sd^-(J - r) (Gelman 2006, doi:10.1214/06-BA117A). Only levels that hold an
effect back on both sides count: one with nothing but successes allows any large value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesglmm.design import RandomTerm
from bayesglmm.design.fixed import INTERCEPT
from bayesglmm.errors import FitError
from bayesglmm.families import Likelihood, find_family, find_link
from bayesglmm.laplace.separation import can_separate, find_separation
from bayesglmm.priors import Flat, HalfFlat

if TYPE_CHECKING:
    from bayesglmm.design import Design
    from bayesglmm.model import Model


def check_proper(model: Model) -> None:
    """Refuse flat priors where the data do not make up for them.

    Raises
    ------
    FitError
        Naming the parameter, and a prior that gives it a posterior.
    """
    _check_coefficients(model)
    _check_means(model)
    _check_residual(model)
    for term, sds in zip(model.design.random, model.priors.sds, strict=True):
        for k, prior in enumerate(sds):
            if isinstance(prior, HalfFlat):
                _check_sd(model, term, k)


def infinite_if_exact(design: Design) -> bool:
    """Whether the density of a Gaussian response that is fitted exactly is infinite at sigma = 0.

    It grows as sigma^-(n - r), r the number of independent columns: with as many of them as rows
    any response is fitted exactly, and its density is finite.
    """
    return design.n > design.p + sum(term.J * term.K for term in design.random)


def _flat(model: Model) -> list[int]:
    return [k for k, p in enumerate(model.priors.coefficients) if isinstance(p, Flat)]


def _check_coefficients(model: Model) -> None:
    design, flat = model.design, _flat(model)
    if not flat or not can_separate(model.likelihood):
        return
    X = np.array(design.X)
    if INTERCEPT in design.names:  # its prior is at the mean of the covariates
        at = design.names.index(INTERCEPT)
        others = [k for k in range(design.p) if k != at]
        X[:, others] -= X[:, others].mean(axis=0)
    found = find_separation(X[:, flat], model.likelihood)
    if not found.rows.any():
        return
    chosen = found.alone if found.alone.any() else found.moved
    names = [design.names[k] for k, there in zip(flat, chosen, strict=True) if there]
    names = [name for name in names if name != INTERCEPT] or [INTERCEPT]
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    rows = int(found.rows.sum())
    raise FitError(
        f"the posterior is improper: {shown} separate{'s' if len(names) == 1 else ''} the outcomes "
        f"of {rows} of {design.n} rows, and a flat prior lets the estimate grow for ever. Give "
        f"{'it' if len(names) == 1 else 'them'} a prior, "
        f"{_example(names[0], 'bg.Normal(0, 2.5)')}, or use the default priors."
    )


def _check_means(model: Model) -> None:
    """A Gaussian with a log link keeps a likelihood where its means vanish."""
    flat = _flat(model)
    if not flat or (model.family.name, model.link.name) != ("gaussian", "log"):
        return
    none = Likelihood(
        find_family("binomial"),
        find_link(find_family("binomial")),
        0.0 * model.design.y,
        np.ones(model.design.n),
    )
    found = find_separation(model.design.X[:, flat], none)
    if not found.rows.any():
        return
    names = [model.design.names[k] for k, there in zip(flat, found.moved, strict=True) if there]
    name = INTERCEPT if INTERCEPT in names else names[0]
    raise FitError(
        f"the posterior is improper: with a log link the likelihood levels off where means vanish, "
        f"and a flat prior lets {name} run to minus infinity. Give it a prior, "
        f"{_example(name, 'bg.Normal(0, 2.5)')}, or use the default priors."
    )


def _check_residual(model: Model) -> None:
    """sigma^-(n - p) has to be integrable up to infinity."""
    if not model.priors.sigma or not isinstance(model.priors.sigma[0], HalfFlat):
        return
    if model.family.name != "gaussian":
        return
    n, p = model.design.n, len(_flat(model))
    if n - p < 2:
        raise FitError(
            f"the posterior is improper: {n} rows and {p} coefficients with flat priors leave the "
            "residual sd undetermined under a flat prior. Give it a prior, "
            f"{_example('sigma', 'bg.HalfStudentT(3, 2.5)')}, or use the default priors."
        )


def _check_sd(model: Model, term: RandomTerm, k: int) -> None:
    column, held = term.columns[k], _holding_back(model, term, k)
    levels = int(held.sum())
    need = 2 + _shared(model, term, k, held)
    if levels >= need:
        return
    some = f"{levels} of its {term.J} levels" if levels < term.J else f"{term.J} levels"
    name = f"sd:{term.name}" if term.K == 1 else f"sd:{term.name}:{column}"
    raise FitError(
        f"the posterior is improper: the sd of {term.name!r} ({column}) is learnt from {some}"
        f"{' only' if levels < term.J else ''}, and a flat prior needs at least {need}"
        f"{' beside the coefficients with flat priors' if need > 3 else ''}. Give it a prior, "
        f"{_example(name, 'bg.HalfStudentT(3, 2.5)')}, or use the default priors."
    )


def _shared(model: Model, term: RandomTerm, k: int, held: NDArray[np.bool_]) -> int:
    """How many directions of the effects of these levels are those of flat coefficients, too."""
    flat, levels = _flat(model), np.flatnonzero(held)
    if len(levels) >= 2 + len(flat):
        return len(flat)  # enough, whatever it is
    rows = held[term.index]
    X = model.design.X[np.ix_(rows, flat)]
    Z = term.Z[rows, k, None] * (term.index[rows, None] == levels)
    X = X / np.maximum(np.linalg.norm(X, axis=0), 1e-300)
    rank = np.linalg.matrix_rank
    return int(rank(X) + rank(Z) - rank(np.hstack([X, Z]))) if len(flat) and len(levels) else 0


def _holding_back(model: Model, term: RandomTerm, k: int) -> NDArray[np.bool_]:
    """(J,) levels whose likelihood falls off on both sides of the effect in column k."""
    z, y = term.Z[:, k], model.likelihood.y
    up, down = z != 0.0, z != 0.0
    if can_separate(model.likelihood):
        # A failure stops an increase of eta; an event stops a decrease.
        failure = y < 1.0 if model.family.is_probability else np.ones(len(y), dtype=bool)
        event = y > 0.0
        up = ((z > 0.0) & failure) | ((z < 0.0) & event)
        down = ((z > 0.0) & event) | ((z < 0.0) & failure)
    counts = [np.bincount(term.index, side, term.J) > 0 for side in (up, down)]
    return np.asarray(counts[0] & counts[1])


def _example(name: str, prior: str) -> str:
    return f'e.g. priors={{"{name}": {prior}}}'
