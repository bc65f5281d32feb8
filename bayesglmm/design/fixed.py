"""A right-hand side and data to columns: X, or the columns of one random-effects term.

formulaic expands the algebra of the formula; which variables get all their columns, the codings
and the names are ours.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from bayesglmm.design.aliasing import Aliasing, find_aliasing
from bayesglmm.design.codings import Coding, Poly, Treatment, coding_of
from bayesglmm.design.columns import (
    column,
    find_name,
    is_missing,
    is_text,
    numbers,
    to_polars,
)
from bayesglmm.design.encode import Columns, encode, is_categorical, series_of
from bayesglmm.design.factors import Factor, factorise, make_factor
from bayesglmm.design.spans import products_of
from bayesglmm.design.terms import Piece, Term, evaluate, read_terms
from bayesglmm.errors import DataError, caret

if TYPE_CHECKING:
    from numpy.typing import NDArray

INTERCEPT = "(Intercept)"

__all__ = ["FixedPart", "Roles", "build_part", "estimable_part", "multiplied_out"]


@dataclass(frozen=True, slots=True)
class Roles:
    """What the caller said about the columns.

    Attributes
    ----------
    text
        The formula as written, for error messages.
    factors
        Columns to treat as factors, each with its levels (empty: find them).
    contrasts
        Codings by column, as the user gave them.
    ordered
        Columns that are ordered factors.
    """

    text: str = ""
    factors: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    contrasts: Mapping[str, object] = field(default_factory=dict)
    ordered: frozenset[str] = frozenset()

    def is_factor(self, series: pl.Series) -> bool:
        """Whether a bare column enters the formula as a factor."""
        return is_text(series) or series.name in self.factors or series.name in self.contrasts

    def factor(self, series: pl.Series) -> Factor:
        """The levels of a column."""
        return self.factorise(series)[0]

    def factorise(self, series: pl.Series) -> tuple[Factor, NDArray[np.intp]]:
        """The levels of a column and the code of every row, (n,)."""
        name = series.name
        return factorise(series, given=self.factors.get(name, ()), ordered=name in self.ordered)


@dataclass(frozen=True, slots=True)
class Cell:
    """One column of X: a product of columns of variables.

    Attributes
    ----------
    name
        R's coefficient name.
    term
        The label of its term, ``"(Intercept)"`` for the intercept.
    factors
        The variables, each with whether it has one column fewer and which column it is.
    """

    name: str
    term: str
    factors: tuple[tuple[str, bool, int], ...]


@dataclass(frozen=True, eq=False)
class FixedPart:
    """The columns of a right-hand side, and how to make them again for new data.

    Attributes
    ----------
    text
        The right-hand side.
    names
        R's names of the p coefficients that are estimated.
    terms
        For each column the label of its term, ``"(Intercept)"`` for the intercept (R's
        ``assign``).
    factors
        Levels of every column used as a factor.
    covariates
        The other columns used.
    covariate_means
        Their means over the rows of the fit.
    codings
        The coding of each factor, by its name in the formula.
    aliasing
        Which of the columns that the formula makes are combinations of earlier ones, and so not
        estimated.
    """

    text: str
    names: tuple[str, ...]
    terms: tuple[str, ...]
    factors: Mapping[str, tuple[str, ...]]
    covariates: tuple[str, ...]
    covariate_means: Mapping[str, float]
    codings: Mapping[str, Coding]
    aliasing: Aliasing
    _pieces: tuple[Piece, ...]
    _levels: Mapping[str, Factor]
    _state: Mapping[str, Any]
    _cells: tuple[Cell, ...]
    _formula: str

    def __getstate__(self) -> dict[str, Any]:
        """Read-only views cannot be pickled; plain dicts can."""
        state = self.__dict__
        return {k: dict(v) if isinstance(v, MappingProxyType) else v for k, v in state.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the read-only views."""
        for name, value in state.items():
            self.__dict__[name] = MappingProxyType(value) if type(value) is dict else value

    @property
    def columns(self) -> tuple[str, ...]:
        """The data columns used, in order of first use."""
        return tuple(dict.fromkeys(c for p in self._pieces for c in p.columns))

    @property
    def has_intercept(self) -> bool:
        """Whether there is an intercept."""
        return INTERCEPT in self.terms

    def matrix(self, newdata: object) -> NDArray[np.float64]:
        """Make the same columns for new data.

        Parameters
        ----------
        newdata
            Anything `to_polars` reads, with the columns this part uses; m rows.

        Returns
        -------
        ndarray, (m, p)
            Columns as in `names`. A row with a missing value is NaN throughout, and so is a row
            whose value of the linear predictor cannot be estimated (`Aliasing.estimable`).

        Raises
        ------
        DataError
            For a missing column and for a factor level that was not in the data of the fit.

        Examples
        --------
        >>> part, X = build_part("g", pl.DataFrame({"g": ["a", "b"]}))
        >>> part.matrix({"g": ["b"]}).tolist()
        [[1.0, 1.0]]
        """
        every = self.all_columns(newdata)
        out = self.aliasing.reduced(every)
        if self.aliasing:
            out[~self.aliasing.estimable(every)] = np.nan
        return out

    def all_columns(self, newdata: object) -> NDArray[np.float64]:
        """Make every column of the formula, those that are not estimated too.

        Parameters and errors as for `matrix`.

        Returns
        -------
        ndarray, (m, p + d)
            Columns as in ``aliasing.names``; NaN in rows with a missing value.
        """
        frame = newdata if isinstance(newdata, pl.DataFrame) else to_polars(newdata)
        gone = np.zeros(frame.height, dtype=bool)
        for name in self.columns:
            gone |= is_missing(column(frame, name, self._formula))
        kept = frame.filter(~gone) if gone.any() else frame
        if not kept.height:
            return np.full((frame.height, len(self._cells)), np.nan)
        values = encode(
            self._pieces, kept, self._levels, self.codings, _copied(self._state), self._formula
        )
        made = _multiplied(self._cells, values, kept.height)
        if not gone.any():
            return made
        out = np.full((frame.height, len(self._cells)), np.nan)
        out[~gone] = made
        return out


def build_part(
    rhs: str, frame: pl.DataFrame, roles: Roles | None = None
) -> tuple[FixedPart, NDArray[np.float64]]:
    """Make the columns of a right-hand side.

    Parameters
    ----------
    rhs
        As in `Formula.fixed` or `Bar.terms`.
    frame
        The data, n rows, without missing values in the columns used.
    roles
        What the caller said about the columns.

    Returns
    -------
    FixedPart, ndarray (n, p)
        The part, which remembers levels, centres and knots, and its columns.

    Raises
    ------
    FormulaError, DataError
        For an unknown column or function, a factor with one level, an infinite or undefined value.

    Examples
    --------
    >>> part, X = build_part("sex * age", pl.DataFrame({"sex": ["f", "m"], "age": [1.0, 2.0]}))
    >>> part.names
    ('(Intercept)', 'sexm', 'age', 'sexm:age')
    """
    roles = roles or Roles()
    intercept, terms = read_terms(rhs, frame.columns, roles.text)
    pieces = tuple(dict.fromkeys(p for term in terms for p in term))
    levels = _levels_of(pieces, frame, roles)
    state: dict[str, Any] = {}
    levels.update(_derived_levels(pieces, frame, levels, state, roles.text))
    codings = {p.name: _coding(p, levels[p.name], roles) for p in pieces if p.name in levels}
    values = encode(pieces, frame, levels, codings, state, roles.text)
    cells, X = multiplied_out(intercept, terms, values, frame.height)
    names = tuple(cell.name for cell in cells)
    _refuse_not_finite(X, names)

    used = tuple(dict.fromkeys(c for p in pieces for c in p.columns))
    known = _column_levels(pieces, used, frame, levels, roles)
    covariates = tuple(c for c in used if c not in known)
    part = FixedPart(
        text=rhs,
        names=names,
        terms=tuple(cell.term for cell in cells),
        factors=MappingProxyType({c: f.levels for c, f in known.items()}),
        covariates=covariates,
        covariate_means=MappingProxyType(
            {c: float(numbers(frame.get_column(c), roles.text).mean()) for c in covariates}
        ),
        codings=MappingProxyType(codings),
        aliasing=Aliasing.none(names),
        _pieces=pieces,
        _levels=MappingProxyType(levels),
        _state=MappingProxyType(state),
        _cells=cells,
        _formula=roles.text,
    )
    return part, X


def estimable_part(
    part: FixedPart, X: NDArray[np.float64]
) -> tuple[FixedPart, NDArray[np.float64]]:
    """Leave out the columns that are combinations of earlier ones, as R does.

    Parameters
    ----------
    part, X
        From `build_part`; X (n, p + d).

    Returns
    -------
    FixedPart, ndarray (n, p)
        The part with its `aliasing`, and the columns that remain.
    """
    aliasing = find_aliasing(X, part.names)
    if not aliasing:
        return part, X
    kept = aliasing.kept
    smaller = replace(
        part,
        names=tuple(part.names[k] for k in kept),
        terms=tuple(part.terms[k] for k in kept),
        aliasing=aliasing,
    )
    return smaller, np.ascontiguousarray(X[:, kept])


def _levels_of(pieces: Iterable[Piece], frame: pl.DataFrame, roles: Roles) -> dict[str, Factor]:
    """Levels of the pieces that are factors, by the piece's name."""
    out = {}
    for piece in pieces:
        if piece.kind == "expression":
            continue
        series = frame.get_column(piece.source)
        if piece.kind == "factor" or roles.is_factor(series):
            factor = roles.factor(series)
            if len(factor.levels) < 2:
                only = factor.levels[0] if factor.levels else ""
                raise DataError(
                    f"factor {piece.source!r} has one level ({only!r}) in the rows used, so its "
                    "effect cannot be estimated; remove it from the formula"
                    + _point(roles.text, piece.source)
                )
            out[piece.name] = factor
        else:
            numbers(series, roles.text)
    return out


def _derived_levels(
    pieces: Iterable[Piece],
    frame: pl.DataFrame,
    levels: Mapping[str, Factor],
    state: dict[str, Any],
    text: str,
) -> dict[str, Factor]:
    """Levels of expressions that give truth values or text, such as ``I(age > 30)``."""
    out = {}
    for piece in pieces:
        if piece.kind == "expression":
            value = evaluate(piece.source, piece.columns, frame, state, text)
            if is_categorical(value):
                factor = make_factor(series_of(piece.name, value))
                if len(factor.levels) < 2:
                    raise DataError(
                        f"{piece.name} is {factor.levels[0]!r} in every row used; remove it"
                        + _point(text, piece.source.partition("(")[0])
                    )
                out[piece.name] = factor
    return out


def _column_levels(
    pieces: Iterable[Piece],
    used: Iterable[str],
    frame: pl.DataFrame,
    levels: Mapping[str, Factor],
    roles: Roles,
) -> dict[str, Factor]:
    """Levels by data column: what a reference grid varies over."""
    out: dict[str, Factor] = {}
    for piece in pieces:
        if piece.kind != "expression" and piece.name in levels:
            out.setdefault(piece.source, levels[piece.name])
    for name in used:
        series = frame.get_column(name)
        if name not in out and roles.is_factor(series):
            out[name] = roles.factor(series)
    return {name: out[name] for name in used if name in out}


def _coding(piece: Piece, factor: Factor, roles: Roles) -> Coding:
    """The coding of one factor: asked for, else polynomial if ordered, else treatment."""
    if piece.coding:
        return coding_of(piece.coding, factor.levels, piece.source)
    if piece.kind != "expression" and piece.source in roles.contrasts:
        return coding_of(roles.contrasts[piece.source], factor.levels, piece.source)
    return Poly() if factor.ordered else Treatment()


def multiplied_out(
    intercept: bool, terms: Sequence[Term], values: Mapping[str, Columns], n: int
) -> tuple[tuple[Cell, ...], NDArray[np.float64]]:
    """The columns of a fixed part, described, and X (n, columns) with all of them."""
    cells = _cells_of([()] * intercept + [tuple(p.name for p in term) for term in terms], values)
    return cells, _multiplied(cells, values, n)


def _cells_of(terms: Sequence[tuple[str, ...]], values: Mapping[str, Columns]) -> tuple[Cell, ...]:
    """The columns of every term; within a product the first variable varies fastest, as in R."""
    out: list[Cell] = []
    spanning = {name for name, columns in values.items() if columns.spans}
    for term, products in zip(terms, products_of(terms, spanning), strict=True):
        label = ":".join(term) or INTERCEPT
        for product in products:
            variables = [
                [(name, reduced, k, text) for k, text in enumerate(_names(values[name], reduced))]
                for name, reduced in product
            ]
            for chosen in itertools.product(*reversed(variables)):
                parts = chosen[::-1]
                text = ":".join(part[3] for part in parts) or INTERCEPT
                out.append(Cell(text, label, tuple(part[:3] for part in parts)))
    return tuple(out)


def _names(columns: Columns, reduced: bool) -> tuple[str, ...]:
    return columns.reduced if reduced else columns.names


def _multiplied(
    cells: Sequence[Cell], values: Mapping[str, Columns], n: int
) -> NDArray[np.float64]:
    """X (n, p), column by column, so that no factor is ever spread out over all its levels."""
    X = np.empty((n, len(cells)))
    for j, cell in enumerate(cells):
        columns = (values[name].column(k, reduced) for name, reduced, k in cell.factors)
        X[:, j] = next(columns, 1.0)
        for more in columns:
            X[:, j] *= more
    return X


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    """A copy, so that nothing done with new data can change what was learnt."""
    return copy.deepcopy(dict(state))


def _refuse_not_finite(X: NDArray[np.float64], names: tuple[str, ...]) -> None:
    if np.isfinite(X).all():
        return
    bad = np.flatnonzero(~np.isfinite(X).all(axis=0))
    rows = np.flatnonzero(~np.isfinite(X[:, bad[0]]))
    what = "infinite" if np.isinf(X[rows[0], bad[0]]) else "not a number"
    raise DataError(
        f"{names[bad[0]]} is {what} in {rows.size} rows (first: row {int(rows[0])} of the rows "
        "used); transform or remove those rows"
    )


def _point(text: str, name: str) -> str:
    return caret(text, find_name(text, name), len(name))
