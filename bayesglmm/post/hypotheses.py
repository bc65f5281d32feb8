"""What a test of a term tests: rows L with L beta = 0, of type I, II or III.

Type I and II hypotheses are rows of a triangular factor of X'WX (or of the inverse covariance of
the coefficients, for Wald tests), with the columns in a suitable order: that is what sweeping out
the terms before does. Type III hypotheses are read off in a coding that compares unweighted
averages of cell means, so they do not depend on the coding of the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bayesglmm.design import Design
from bayesglmm.design.recode import FixedTerm, fixed_terms, marginally_coded, without_term
from bayesglmm.errors import ChoiceError

Array = NDArray[np.float64]


def terms_of(design: Design, what: str) -> tuple[FixedTerm, ...]:
    """The terms of the fixed part; there must be one."""
    terms = fixed_terms(design)
    if not terms:
        raise ChoiceError(
            f"{what}: the fixed part of {design.formula.text!r} has no terms to test, only an "
            "intercept (see params)"
        )
    return terms


def relatives(term: FixedTerm, terms: Sequence[FixedTerm], covariates: bool) -> list[FixedTerm]:
    """The higher-order terms to which a term is marginal: ``a`` to ``a:b``.

    With ``covariates`` a factor is marginal to its product with a covariate (R, car); without,
    both must have the same covariates (SAS, lmerTest): ``a`` is then not marginal to ``a:x``.
    """
    return [
        other
        for other in terms
        if term.variables < other.variables and (covariates or term.covariates == other.covariates)
    ]


def columns_of(terms: Sequence[FixedTerm]) -> list[int]:
    """Positions of their columns in X."""
    return [k for term in terms for k in term.columns]


def type_one(design: Design, terms: Sequence[FixedTerm], root: Array) -> list[Array]:
    """Each term given those before it. ``root'root`` is X'WX or the inverse covariance."""
    return [
        _sequential(root, list(range(min(t.columns, default=0))), list(t.columns)) for t in terms
    ]


def type_two(
    design: Design, terms: Sequence[FixedTerm], root: Array, covariates: bool
) -> list[Array]:
    """Each term given all others but its relatives."""
    out = []
    for term in terms:
        columns = list(term.columns)
        later = {*columns, *columns_of(relatives(term, terms, covariates))}
        if len(later) == len(columns):
            out.append(np.eye(design.p)[columns])
        else:
            before = [k for k in range(design.p) if k not in later]
            out.append(_sequential(root, before, columns))
    return out


def _sequential(root: Array, before: list[int], columns: list[int]) -> Array:
    p = root.shape[1]
    order = [*before, *columns]
    order += [k for k in range(p) if k not in set(order)]
    R = np.linalg.qr(root[:, order], mode="r")
    rows = slice(len(before), len(before) + len(columns))
    L = np.zeros((len(columns), p))
    # The scale of a row is free, but degrees of freedom of several rows depend on it: as lmerTest.
    L[:, order] = R[rows] / np.diag(R)[rows, None]
    return L


def type_three(design: Design, terms: Sequence[FixedTerm]) -> list[Array]:
    """Each term given all others, averages over the levels of its relatives unweighted."""
    recoded = marginally_coded(design)
    # design.X beta = recoded (change beta): the coefficients of the marginal coding.
    change = np.linalg.lstsq(recoded, design.X, rcond=None)[0]
    change[np.abs(change) < 1e-12 * np.abs(change).max()] = 0.0
    return [change[list(t.columns)] for t in terms]


def droppable(terms: Sequence[FixedTerm]) -> list[FixedTerm]:
    """Terms that are marginal to no other: those R's ``drop1`` drops."""
    return [t for t in terms if not relatives(t, terms, covariates=True)]


def dropping(design: Design, term: FixedTerm) -> Array:
    """L whose null space is the model without the term."""
    columns = list(term.columns)
    inside = np.linalg.lstsq(design.X, without_term(design, term.label), rcond=None)[0]
    if inside.shape[1] == design.p - len(columns) and np.abs(inside[columns]).max(initial=0) < 1e-9:
        return np.eye(design.p)[columns]
    return complement(inside)


def complement(basis: Array) -> Array:
    """Orthonormal rows orthogonal to the columns of ``basis`` (p, k) of full rank."""
    Q, _ = np.linalg.qr(basis, mode="complete")
    return np.ascontiguousarray(Q[:, basis.shape[1] :].T)
