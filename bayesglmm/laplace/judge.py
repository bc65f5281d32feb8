"""Judging where an optimisation ended: boundaries, flat directions, in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bayesglmm.design import Design
from bayesglmm.laplace.covariance import (
    Covariance,
    canonical_signs,
    component_jacobian,
    components,
)
from bayesglmm.laplace.factor import diagonal_blocks
from bayesglmm.laplace.optimise import Array, Objective, Optimum, eigen, hessian
from bayesglmm.laplace.outcome import Outcome
from bayesglmm.laplace.structure import Structure

_ZERO = 1e-4  # a standardised sd below this, where the data say no more of an effect, may be zero
_HIGHER = 1e-6  # a log-likelihood higher by this is another maximum
_FLAT = 2e-6  # relative curvature below which a direction is not identified
_NOISE = 1e-7  # relative error of the curvature
_LITTLE = 0.3  # root information, in units of what is expected, that normalises less than that


def negligible(structure: Structure, W: Array) -> Array:
    """(terms,) size of an entry of Lambda below which it may be zero.

    It is far below the sd with which the data by themselves know an effect: millions of counts
    tell an sd of 1e-5 from none. ``W`` is Z'WZ in flat blocks, of standardised columns.
    """
    blocks = diagonal_blocks(structure, W)
    known = np.array([np.einsum("jkk->", B) / B[..., 0].size for B in blocks])
    return np.asarray(_ZERO / np.sqrt(np.maximum(known, 1.0)))


def at_edge(covariance: Covariance, best: Optimum, zero: Array) -> bool:
    """Whether a diagonal of Lambda vanished; theta comes first in x, ``zero`` is by term.

    Such an end may be a local maximum: sd = 0 is a stationary point, whatever the data.
    """
    return any(
        row == column and abs(value) < zero[f]
        for value, (f, row, column) in zip(best.x, covariance.entries, strict=False)
    )


def better(first: Optimum, second: Optimum) -> Optimum:
    """The higher of two ends of a search, with the evaluations of both.

    An end that is none, where the likelihood still grows (without bound, perhaps), is not
    preferred to one where its gradient vanished.
    """
    higher = second.value > first.value + _HIGHER and (second.converged or not first.converged)
    chosen = second if higher else first
    return replace(chosen, evaluations=first.evaluations + second.evaluations)


def settle(
    objective: Objective, covariance: Covariance, best: Optimum, scale: Array, zero: Array
) -> tuple[Array, Array]:
    """The optimum with canonical theta, which comes first in x, and the curvature there.

    A row of Lambda that vanished (an sd), or a diagonal (a rank), is set to exactly zero, if the
    likelihood agrees.
    """
    k = covariance.size
    signs = np.ones(len(best.x))
    signs[:k] = canonical_signs(covariance, best.x[:k])
    x, curvature = signs * best.x, best.curvature * np.outer(signs, signs)
    snapped = x
    places = covariance.entries
    rows = [[k for k, (f, r, _) in enumerate(places) if (f, r) == (g, q)] for g, q, _ in places]
    for entries in [*rows, *([k] for k, (_, r, c) in enumerate(places) if r == c)]:
        if 0.0 < np.abs(snapped[entries]).max() < zero[places[entries[0]][0]]:
            trial = snapped.copy()
            trial[entries] = 0.0
            if objective(trial)[0] >= objective(snapped)[0] - 1e-8:
                snapped = trial
    if snapped is not x:
        curvature = hessian(objective, snapped, scale, objective(snapped)[1])
    return snapped, curvature


def invert_information(information: Array, scale: Array) -> tuple[Array, Array, Array]:
    """Inverse information and the flat directions (rows), which the data do not inform.

    ``scale`` is the expected standard error of each entry: one by itself may be uninformed, too.
    The inverse is without the flat directions; third, what they would add to it at the curvature
    that is left of them, or at the least that differences can tell from none.
    """
    diagonal = np.maximum(np.sqrt(np.abs(np.diag(information))), _LITTLE / scale)
    unit = np.outer(diagonal, diagonal)
    values, vectors = eigen(information / unit)
    largest = max(float(values[-1]), 1e-300)
    flat = values < _FLAT * largest
    if not flat.any():
        size = len(information)
        inverse = (vectors / values) @ vectors.T
        return inverse / unit, np.zeros((0, size)), np.zeros((size, size))
    inverse = (vectors[:, ~flat] / values[~flat]) @ vectors[:, ~flat].T
    rest = (vectors[:, flat] / np.maximum(values[flat], _NOISE * largest)) @ vectors[:, flat].T
    directions = (vectors[:, flat] / diagonal[:, None]).T
    norms = np.linalg.norm(directions, axis=1, keepdims=True)
    return inverse / unit, directions / np.where(norms > 0, norms, 1.0), rest / unit


def judge(
    design: Design,
    covariance: Covariance,
    transforms: tuple[Array, ...],
    theta: Array,
    zero: Array,
    best: Optimum,
    scale_cov: Array,
    flat: Array,
    notes: tuple[str, ...],
) -> tuple[Outcome, Array]:
    """The outcome in words, and the covariance of (log sd, atanh corr[, log sigma])."""
    parts = components(covariance)
    has_sigma = len(scale_cov) > len(theta)
    relative = has_sigma and best.x.shape == theta.shape  # sigma profiled out: sds scale with it

    jacobian = np.zeros((len(parts) + has_sigma, len(scale_cov)))
    jacobian[: len(parts), : len(theta)] = component_jacobian(covariance, theta, transforms)
    if has_sigma:
        jacobian[-1, -1] = 1.0
        jacobian[: len(parts), -1] = [relative and c.kind == "sd" for c in parts]
    names = [component_name(design, c.term, c.row, c.column, c.kind) for c in parts]
    edge = _boundary(design, covariance, transforms, theta, zero)
    with np.errstate(invalid="ignore"):
        cov = jacobian @ scale_cov @ jacobian.T
        lost = np.zeros(len(cov), dtype=bool)
        for direction in flat:
            lost |= ~(np.abs(jacobian @ direction) < 1e-3)
    redundant = tuple(
        n for n, gone, at_edge in zip(names, lost, edge, strict=False) if gone and not at_edge
    )
    singular = _singular(design, covariance, theta, zero, names, edge)
    masked = lost | np.append(edge, [False] * has_sigma).astype(bool)
    cov[masked, :] = np.nan
    cov[:, masked] = np.nan
    outcome = Outcome(
        converged=best.converged,
        gradient_norm=float(np.max(np.abs(best.gradient), initial=0.0)),
        evaluations=best.evaluations,
        trace=best.trace,
        singular=singular,
        redundant=redundant,
        notes=(*notes, *_notes(best, singular, redundant)),
    )
    return outcome, cov


def _boundary(
    design: Design,
    covariance: Covariance,
    transforms: tuple[Array, ...],
    theta: Array,
    zero: Array,
) -> NDArray[np.bool_]:
    """For each component whether it lies at the boundary of its range.

    That is so where Lambda (of standardised columns) has lost rank: for an sd that is zero, for
    correlations with it, and, where no sd is zero, for all correlations of the term.
    """
    zero_sd, deficient = [], []
    lambdas = covariance.lambdas(theta)
    for term, T, factor, small in zip(design.random, transforms, lambdas, zero, strict=True):
        half = T @ factor
        ms = np.einsum("nk,nk->k", term.Z, term.Z) / design.n
        moved = np.sqrt(np.einsum("kc,kc->k", half, half) * ms)
        zero_sd.append(moved < max(small, _ZERO * float(moved.max())))
        diagonal = np.abs(np.diag(factor))
        deficient.append(bool(diagonal.min() < max(small, _ZERO * float(diagonal.max()))))
    out = []
    for c in components(covariance):
        gone = zero_sd[c.term]
        if c.kind == "sd":
            out.append(bool(gone[c.row]))
        else:
            out.append(
                bool(gone[c.row] or gone[c.column]) or (deficient[c.term] and not gone.any())
            )
    return np.array(out, dtype=bool)


def _singular(
    design: Design,
    covariance: Covariance,
    theta: Array,
    zero: Array,
    names: list[str],
    edge: NDArray[np.bool_],
) -> tuple[str, ...]:
    """What lies at its boundary, by name.

    A covariance of three columns or more may have lost rank though no correlation is one: it is
    named as a whole.
    """
    out: list[str] = []
    parts, lambdas = components(covariance), covariance.lambdas(theta)
    for f, (group, factor) in enumerate(zip(design.random, lambdas, strict=True)):
        own = [k for k, c in enumerate(parts) if c.term == f]
        sds, correlations = own[: group.K], own[group.K :]
        if len(correlations) > 1 and edge[correlations].all() and not edge[sds].any():
            diagonal = np.abs(np.diag(factor))
            rank = int(np.sum(diagonal >= max(zero[f], _ZERO * float(diagonal.max()))))
            columns = ", ".join(group.columns)
            out.append(f"covariance of {columns} by {group.name} (rank {rank} of {group.K})")
        else:
            out.extend(names[k] for k in own if edge[k])
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
