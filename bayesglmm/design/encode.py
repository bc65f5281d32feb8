"""Variables to columns: numbers as they are, factors coded, one column made at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from bayesglmm.design.codings import Coding
from bayesglmm.design.columns import numbers
from bayesglmm.design.factors import Factor, codes
from bayesglmm.design.terms import Piece, evaluate
from bayesglmm.errors import DataError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Columns", "encode", "is_categorical", "series_of"]


@dataclass(frozen=True, eq=False, slots=True)
class Columns:
    """The columns of one variable.

    Attributes
    ----------
    names
        R's names of all columns.
    reduced
        The names of those that remain beside an intercept: one fewer where they add up to it.
    column
        (position, whether reduced) -> (n,) values of that column.
    spans
        Whether the columns add up to the constant.
    """

    names: tuple[str, ...]
    reduced: tuple[str, ...]
    column: Callable[[int, bool], NDArray[np.float64]]
    spans: bool


def encode(
    pieces: Iterable[Piece],
    frame: pl.DataFrame,
    levels: Mapping[str, Factor],
    codings: Mapping[str, Coding],
    state: dict[str, Any],
    text: str,
) -> dict[str, Columns]:
    """Evaluate and code every piece of a right-hand side.

    Parameters
    ----------
    pieces
        The variables, from `read_terms`.
    frame
        The data, n rows, without missing values in the columns used.
    levels, codings
        Of the pieces that are factors, by the piece's name.
    state
        What the transforms remember.
    text
        The whole formula, for error messages.

    Returns
    -------
    dict
        The columns of each piece, by its name.

    Raises
    ------
    DataError
        For a level that is not among the known ones, and a value that cannot be computed.

    Examples
    --------
    >>> frame = pl.DataFrame({"x": [1]})
    >>> encode([Piece("x", "column", "x", ("x",))], frame, {}, {}, {}, "")["x"].names
    ('x',)
    """
    out: dict[str, Columns] = {}
    for piece in pieces:
        if piece.kind == "expression":
            value = evaluate(piece.source, piece.columns, frame, state, text)
            if piece.name not in levels:
                out[piece.name] = _numeric(piece.name, value, frame.height)
                continue
            series = series_of(piece.name, value)
        else:
            series = frame.get_column(piece.source)
        if piece.name in levels:
            out[piece.name] = _categorical(piece, series, levels[piece.name], codings[piece.name])
        else:
            out[piece.name] = _numeric(piece.name, numbers(series, text), frame.height)
    return out


def _categorical(piece: Piece, series: pl.Series, factor: Factor, coding: Coding) -> Columns:
    """A factor: its coding where an intercept is spanned already, else cell means."""
    position = codes(series, factor)
    if position.min(initial=0) == -2:
        value = str(series[int(np.argmax(position == -2))])
        raise DataError(
            f"column {piece.source!r} holds the level {value!r}, which was not in the data of "
            f"the fit{nearest(value, factor.levels)}; levels: {', '.join(factor.levels)}"
        )
    matrix, suffixes = coding.matrix(factor.levels), coding.names(factor.levels)
    if len(set(suffixes)) != len(suffixes):
        raise DataError(f"two columns of one coding have the same name: {', '.join(suffixes)}")

    def column(k: int, reduced: bool) -> NDArray[np.float64]:
        return matrix[:, k][position] if reduced else (position == k).astype(np.float64)

    return Columns(
        tuple(piece.name + level for level in factor.levels),
        tuple(piece.name + suffix for suffix in suffixes),
        column,
        spans=True,
    )


def _numeric(name: str, value: Any, n: int) -> Columns:
    """Numbers: one column, or several numbered from 1 as in R."""
    spans = False
    if isinstance(value, dict):
        metadata = getattr(value, "__formulaic_metadata__", None)
        spans = len(value) > 1 and metadata is not None and bool(metadata.spans_intercept)
        shift = 1 if 0 in value else 0
        suffixes = [str(k + shift if isinstance(k, int) else k) for k in value]
        arrays = [_floats(name, v, n) for v in value.values()]
    else:
        array = _floats(name, value, n)
        arrays = [array] if array.ndim == 1 else list(array.T)
        suffixes = [str(k + 1) for k in range(len(arrays))]
    names = (name,) if len(arrays) == 1 else tuple(name + suffix for suffix in suffixes)
    return Columns(
        names,
        names[1:] if spans else names,
        lambda k, reduced: arrays[k + (spans and reduced)],
        spans,
    )


def _floats(name: str, value: Any, n: int) -> NDArray[np.float64]:
    """(n,) or (n, k) numbers."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{name} does not give numbers") from None
    if array.ndim == 2 and array.shape == (n, 1):
        array = array[:, 0]
    if array.ndim == 0:
        array = np.full(n, float(array))
    if array.shape[0] != n or array.ndim > 2:
        raise DataError(f"{name} gives {array.shape} values for {n} rows")
    return array


def is_categorical(value: Any) -> bool:
    """Whether an expression gave truth values or text."""
    if isinstance(value, dict):
        return False
    return np.asarray(value).dtype.kind in "bOUS"


def series_of(name: str, value: Any) -> pl.Series:
    """An expression's truth values or text as a column."""
    array = np.asarray(value)
    kind = array.dtype.kind
    return pl.Series(name, array) if kind == "b" else pl.Series(name, [str(v) for v in array])
