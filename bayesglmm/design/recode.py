"""The same fixed effects in other columns: another coding of the factors, or without a term."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayesglmm.design.aliasing import find_aliasing
from bayesglmm.design.codings import Coding, Levels
from bayesglmm.design.design import Design
from bayesglmm.design.encode import encode
from bayesglmm.design.fixed import multiplied_out
from bayesglmm.design.terms import read_terms

__all__ = ["FixedTerm", "fixed_terms", "marginally_coded", "without_term"]


@dataclass(frozen=True, slots=True)
class FixedTerm:
    """A term of the fixed part.

    Attributes
    ----------
    label
        As R writes it, ``"sex:age"``.
    columns
        Its columns of X.
    variables
        Names of its variables.
    covariates
        Those that are not factors.
    """

    label: str
    columns: tuple[int, ...]
    variables: frozenset[str]
    covariates: frozenset[str]


def fixed_terms(design: Design) -> tuple[FixedTerm, ...]:
    """The terms of the fixed part in the order of their columns, without the intercept.

    Examples
    --------
    >>> from bayesglmm import lm, load_dataset
    >>> design = lm("mpg ~ wt * factor(cyl)", load_dataset("mtcars")).design
    >>> [(t.label, t.columns) for t in fixed_terms(design)]
    [('wt', (1,)), ('factor(cyl)', (2, 3)), ('wt:factor(cyl)', (4, 5))]
    """
    fixed = design.fixed
    _, terms = read_terms(fixed.text, design.data.columns, design.formula.text)
    out = []
    for term in terms:
        label = ":".join(piece.name for piece in term)
        names = frozenset(piece.name for piece in term)
        out.append(
            FixedTerm(
                label,
                tuple(k for k, at in enumerate(fixed.terms) if at == label),
                names,
                names - set(fixed.codings),
            )
        )
    return tuple(out)


@dataclass(frozen=True, slots=True)
class _Centred:
    """Treatment coding less the mean of its columns, under the names of another coding.

    A coefficient is the difference of a level from the first, as in treatment coding, but the
    coefficients of lower terms are averages over the levels, not values at the first.
    """

    original: Coding

    def matrix(self, levels: Levels) -> NDArray[np.float64]:
        return np.eye(len(levels))[:, 1:] - 1.0 / len(levels)

    def names(self, levels: Levels) -> tuple[str, ...]:
        return self.original.names(levels)


def marginally_coded(design: Design) -> NDArray[np.float64]:
    """X (n, p) in a coding whose coefficients compare unweighted averages of cell means.

    Column by column it belongs to the same terms as ``design.X``, and spans the same space.
    """
    fixed = design.fixed
    codings = {name: _Centred(coding) for name, coding in fixed.codings.items()}
    every = replace(fixed, codings=codings).all_columns(design.data)
    return fixed.aliasing.reduced(every)


def without_term(design: Design, label: str) -> NDArray[np.float64]:
    """X of the formula without one term, as R's ``update(. ~ . - term)``.

    Without an intercept that is more than leaving out columns: the next factor then gets a
    column for every level.
    """
    fixed = design.fixed
    intercept, terms = read_terms(fixed.text, design.data.columns, design.formula.text)
    kept = tuple(t for t in terms if ":".join(piece.name for piece in t) != label)
    if not kept:
        return np.ones((design.n, int(intercept)))
    pieces = tuple(dict.fromkeys(piece for term in kept for piece in term))
    levels = {p.name: fixed._levels[p.name] for p in pieces if p.name in fixed._levels}
    state = dict(fixed._state)
    values = encode(pieces, design.data, levels, fixed.codings, state, design.formula.text)
    cells, X = multiplied_out(intercept, kept, values, design.n)
    return find_aliasing(X, tuple(cell.name for cell in cells)).reduced(X)
