"""A right-hand side and data to columns: X, or the columns of one random-effects term.

formulaic decides which factors get all their levels and which one fewer (so that the columns are
of full rank), and multiplies out interactions. The values, the codings and the names are ours:
every variable is handed over as evaluated, coded columns under its R name, through formulaic's
documented `FactorValues` encoder.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from bayesglmm.design.codings import Coding, Poly, Treatment, coding_of
from bayesglmm.design.columns import (
    Factor,
    column,
    find_name,
    is_missing,
    is_text,
    make_factor,
    numbers,
    to_polars,
)
from bayesglmm.design.encode import encode, is_categorical, series_of
from bayesglmm.design.terms import Piece, Term, evaluate, read_terms
from bayesglmm.errors import DataError, caret

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FixedPart", "Roles", "build_part", "materialize"]


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
        name = series.name
        return make_factor(series, given=self.factors.get(name, ()), ordered=name in self.ordered)


@dataclass(frozen=True, eq=False)
class FixedPart:
    """The columns of a right-hand side, and how to make them again for new data.

    Attributes
    ----------
    text
        The right-hand side.
    names
        R's coefficient names, p of them.
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
    """

    text: str
    names: tuple[str, ...]
    terms: tuple[str, ...]
    factors: Mapping[str, tuple[str, ...]]
    covariates: tuple[str, ...]
    covariate_means: Mapping[str, float]
    codings: Mapping[str, Coding]
    _pieces: tuple[Piece, ...]
    _levels: Mapping[str, Factor]
    _state: Mapping[str, Any]
    _spec: Any
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
        return "(Intercept)" in self.terms

    def matrix(self, newdata: object) -> NDArray[np.float64]:
        """Make the same columns for new data.

        Parameters
        ----------
        newdata
            Anything `to_polars` reads, with the columns this part uses; m rows.

        Returns
        -------
        ndarray, (m, p)
            Columns as in `names`. A row with a missing value is NaN throughout.

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
        frame = newdata if isinstance(newdata, pl.DataFrame) else to_polars(newdata)
        out = np.full((frame.height, len(self.names)), np.nan)
        gone = np.zeros(frame.height, dtype=bool)
        for name in self.columns:
            gone |= is_missing(column(frame, name, self._formula)).to_numpy()
        kept = frame.filter(~gone) if gone.any() else frame
        if not kept.height:
            return out
        if not self._pieces:
            out[:] = 1.0
            return out
        values = encode(
            self._pieces, kept, self._levels, self.codings, _copied(self._state), self._formula
        )
        made = self._spec.get_model_matrix(_rows(kept.height), context=values)
        out[~gone] = np.asarray(made, dtype=np.float64)
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
    if pieces:
        values = encode(pieces, frame, levels, codings, state, roles.text)
        spec, X, names, labels = materialize(intercept, terms, values, frame.height)
    else:
        spec = None
        names = ("(Intercept)",) * intercept
        labels, X = names, np.ones((frame.height, len(names)))
    _refuse_not_finite(X, names)

    used = tuple(dict.fromkeys(c for p in pieces for c in p.columns))
    known = _column_levels(pieces, used, frame, levels, roles)
    covariates = tuple(c for c in used if c not in known)
    part = FixedPart(
        text=rhs,
        names=names,
        terms=labels,
        factors=MappingProxyType({c: f.levels for c, f in known.items()}),
        covariates=covariates,
        covariate_means=MappingProxyType(
            {c: float(numbers(frame.get_column(c), roles.text).mean()) for c in covariates}
        ),
        codings=MappingProxyType(codings),
        _pieces=pieces,
        _levels=MappingProxyType(levels),
        _state=MappingProxyType(state),
        _spec=spec,
        _formula=roles.text,
    )
    return part, X


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


def materialize(
    intercept: bool, terms: tuple[Term, ...], values: Mapping[str, Any], n: int
) -> tuple[Any, NDArray[np.float64], tuple[str, ...], tuple[str, ...]]:
    """Let formulaic choose reduced or full coding and multiply out the interactions."""
    from formulaic import SimpleFormula
    from formulaic.parser.types import Factor as FormulaicFactor
    from formulaic.parser.types import Term as FormulaicTerm

    written = [FormulaicTerm([FormulaicFactor("1", eval_method="literal")])] * intercept
    written += [
        FormulaicTerm([FormulaicFactor(p.name, eval_method="lookup") for p in term])
        for term in terms
    ]
    formula = SimpleFormula(written, _ordering="none")
    made = formula.get_model_matrix(_rows(n), context=values, output="numpy", na_action="ignore")
    spec: Any = made.model_spec
    names: list[str] = []
    labels: list[str] = []
    for structure in spec.structure:
        label = ":".join(f.expr for f in structure.term.factors)
        is_one = label == "1"
        names += ["(Intercept)"] if is_one else structure.columns
        labels += ["(Intercept)" if is_one else label] * len(structure.columns)
    X = np.ascontiguousarray(np.asarray(made), dtype=np.float64)
    return spec, X, tuple(names), tuple(labels)


def _rows(n: int) -> Any:
    """A frame without columns: formulaic takes the number of rows from it."""
    import pandas as pd

    return pd.DataFrame(index=pd.RangeIndex(n))


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
