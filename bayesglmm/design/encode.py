"""Variables to the values formulaic multiplies out: numbers as they are, factors coded.

Everything passes through formulaic's documented `FactorValues`: its ``encoder`` is called with
"all levels" or "one fewer", its ``format`` gives R's names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from bayesglmm.design.codings import Coding
from bayesglmm.design.columns import Factor, codes, numbers
from bayesglmm.design.terms import Piece, evaluate
from bayesglmm.errors import DataError, nearest

__all__ = ["encode", "is_categorical", "series_of"]


def encode(
    pieces: Iterable[Piece],
    frame: pl.DataFrame,
    levels: Mapping[str, Factor],
    codings: Mapping[str, Coding],
    state: dict[str, Any],
    text: str,
) -> dict[str, Any]:
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
        By name, formulaic's `FactorValues`: the namespace in which it looks the names up.

    Raises
    ------
    DataError
        For a level that is not among the known ones, and a value that cannot be computed.

    Examples
    --------
    >>> list(encode([Piece("x", "column", "x", ("x",))], pl.DataFrame({"x": [1]}), {}, {}, {}, ""))
    ['x']
    """
    out: dict[str, Any] = {}
    for piece in pieces:
        if piece.kind == "expression":
            value = evaluate(piece.source, piece.columns, frame, state, text)
            if piece.name in levels:
                series = series_of(piece.name, value)
            else:
                out[piece.name] = _numeric(piece.name, value, frame.height)
                continue
        else:
            series = frame.get_column(piece.source)
        if piece.name in levels:
            out[piece.name] = _categorical(piece, series, levels[piece.name], codings[piece.name])
        else:
            out[piece.name] = _numeric(piece.name, numbers(series, text), frame.height)
    return out


def _categorical(piece: Piece, series: pl.Series, factor: Factor, coding: Coding) -> Any:
    from formulaic.materializers.types import FactorValues

    position = codes(series, factor)
    unseen = np.flatnonzero(position == -2)
    if unseen.size:
        value = str(series[int(unseen[0])])
        raise DataError(
            f"column {piece.source!r} holds the level {value!r}, which was not in the data of "
            f"the fit{nearest(value, factor.levels)}; levels: {', '.join(factor.levels)}"
        )
    return FactorValues(
        position,
        kind="categorical",
        spans_intercept=True,
        encoder=partial(_encoded, levels=factor.levels, coding=coding),
    )


def _encoded(
    values: Any,
    reduced_rank: bool,
    drop_rows: object,
    encoder_state: object,
    model_spec: object,
    *,
    levels: tuple[str, ...],
    coding: Coding,
) -> Any:
    """Columns of a factor: its coding where an intercept is spanned already, else cell means."""
    from formulaic.materializers.types import FactorValues

    position = np.asarray(values)
    matrix = coding.matrix(levels) if reduced_rank else np.eye(len(levels))
    suffixes = coding.names(levels) if reduced_rank else levels
    if len(set(suffixes)) != len(suffixes):
        raise DataError(f"two columns of one coding have the same name: {', '.join(suffixes)}")
    columns = {s: matrix[position, k] for k, s in enumerate(suffixes)}
    return FactorValues(
        columns, kind="categorical", format="{name}{field}", spans_intercept=False, encoded=True
    )


def _numeric(name: str, value: Any, n: int) -> Any:
    """Numbers for formulaic: one column, or several numbered from 1 as in R."""
    from formulaic.materializers.types import FactorValues

    metadata = getattr(value, "__formulaic_metadata__", None)
    if isinstance(value, dict):
        shift = 1 if 0 in value else 0
        columns = {
            (k + shift if isinstance(k, int) else k): np.asarray(v, dtype=np.float64)
            for k, v in value.items()
        }
        spans = bool(metadata.spans_intercept) if metadata is not None else False
        if len(columns) > 1:
            return FactorValues(
                columns,
                kind="numerical",
                format="{name}{field}",
                spans_intercept=spans,
                drop_field=next(iter(columns)) if spans else None,
            )
        value = next(iter(columns.values()))
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
    if array.ndim == 2:
        columns = {str(k + 1): array[:, k] for k in range(array.shape[1])}
        return FactorValues(columns, kind="numerical", format="{name}{field}")
    return FactorValues(array, kind="numerical")


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
