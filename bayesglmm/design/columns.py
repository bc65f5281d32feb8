"""Data in: any data frame becomes a polars frame with checked columns.

The caller's data are never changed: everything here builds new objects.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from bayesglmm.errors import DataError, caret, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Table", "column", "find_name", "is_missing", "numbers", "read", "to_polars"]

_TEXT = (pl.String, pl.Categorical, pl.Enum)


@dataclass(frozen=True, slots=True)
class Table:
    """A polars frame and what polars cannot hold about it.

    Attributes
    ----------
    frame
        The data.
    ordered
        Names of the columns that are ordered factors (pandas' ordered categoricals).
    """

    frame: pl.DataFrame
    ordered: frozenset[str] = frozenset()


def to_polars(data: object) -> pl.DataFrame:
    """Turn anything that holds columns into a polars frame.

    Parameters
    ----------
    data
        A polars, pandas or pyarrow table, anything else narwhals reads, or a mapping from
        column names to sequences.

    Returns
    -------
    polars.DataFrame
        With the same rows in the same order. A pandas categorical becomes an Enum, which keeps
        the order of its categories.

    Raises
    ------
    DataError
        For anything else, for columns of different lengths, and for data without rows.

    Examples
    --------
    >>> to_polars({"x": [1, 2], "g": ["a", "b"]}).shape
    (2, 2)
    """
    return read(data).frame


def read(data: object) -> Table:
    """Like `to_polars`, but remember which columns are ordered factors.

    Parameters
    ----------
    data
        As for `to_polars`.

    Returns
    -------
    Table
        The frame and the names of its ordered factors.

    Raises
    ------
    DataError
        As for `to_polars`.

    Examples
    --------
    >>> sorted(read({"x": [1, 2]}).ordered)
    []
    """
    if isinstance(data, Table):
        table = data
    elif isinstance(data, pl.DataFrame):
        table = Table(data.clone())  # the caller may change theirs in place
    elif isinstance(data, pl.LazyFrame):
        table = Table(data.collect())
    elif isinstance(data, Mapping):
        table = _from_mapping(data)
    else:
        table = _from_native(data)
    if table.frame.height == 0 or table.frame.width == 0:
        raise DataError("data has no rows" if table.frame.width else "data has no columns")
    return table


def _from_mapping(data: Mapping[Any, Any]) -> Table:
    lengths = {}
    columns: dict[str, Any] = {}
    ordered: set[str] = set()
    for key, values in data.items():
        name = str(key)
        if isinstance(values, str) or not hasattr(values, "__len__"):
            raise DataError(f"data[{name!r}] is {values!r}; a column is a sequence of values")
        if getattr(values, "ndim", 1) != 1:
            raise DataError(f"data[{name!r}] has {values.ndim} dimensions; a column has one")
        if type(values).__module__.partition(".")[0] == "pandas":
            columns[name], is_ordered = _from_pandas_column(name, values)
            if is_ordered:
                ordered.add(name)
        else:
            columns[name] = _mixed_numbers(values)
        lengths[name] = len(values)
    if len(set(lengths.values())) > 1:
        raise DataError(
            "the columns of data differ in length: "
            + ", ".join(f"{k} has {v}" for k, v in lengths.items())
        )
    return Table(_frame(columns), frozenset(ordered))


def _mixed_numbers(values: Any) -> Any:
    """Floats for a list of whole numbers and fractions such as [0, 0.5], which polars refuses."""
    if isinstance(values, list | tuple) and {type(v) for v in values} >= {int, float}:
        with contextlib.suppress(TypeError):
            return pl.Series(values, dtype=pl.Float64)
    return values


def _from_native(data: object) -> Table:
    import narwhals as nw

    try:
        frame = nw.from_native(data, eager_only=True)  # type: ignore[call-overload]
    except TypeError:
        raise DataError(
            f"data is {type(data).__name__}; give a polars, pandas or pyarrow table, "
            "or a dict of columns"
        ) from None
    except Exception as problem:  # a backend refuses, e.g. duplicate pandas column names
        raise DataError(f"data cannot be read: {problem}") from None
    if not frame.implementation.is_pandas_like():
        try:
            return Table(frame.to_polars())
        except Exception as problem:
            raise DataError(f"data cannot be turned into a polars frame: {problem}") from None
    native: Any = data
    columns: dict[str, pl.Series] = {}
    ordered: set[str] = set()
    for position, key in enumerate(native.columns):
        name = str(key)
        if name in columns:
            raise DataError(f"data has two columns named {name!r}")
        columns[name], is_ordered = _from_pandas_column(name, native.iloc[:, position])
        if is_ordered:
            ordered.add(name)
    return Table(_frame(columns), frozenset(ordered))


def _from_pandas_column(name: str, values: Any) -> tuple[pl.Series, bool]:
    """Convert a pandas Series, keeping the order of categories."""
    categories = getattr(values.dtype, "categories", None)
    if categories is not None and hasattr(values, "cat"):
        levels = _category_labels(name, categories)
        position = np.asarray(values.cat.codes).astype(np.int64)
        index = pl.Series(position).set(pl.Series(position < 0), None)
        picked = pl.Series(name, [*levels, None], dtype=pl.Enum(levels)).gather(index)
        return picked, bool(values.cat.ordered)
    try:
        if values.dtype == object:
            present = values.astype(object).where(values.notna(), None)
            return pl.Series(name, present.tolist(), strict=True), False
        return pl.Series(name, pl.from_pandas(values)), False
    except Exception as problem:
        raise DataError(f"column {name!r} cannot be read: {problem}") from None


def _category_labels(name: str, categories: Iterable[object]) -> list[str]:
    found = [label(c) for c in categories]
    if len(set(found)) != len(found):
        raise DataError(f"two categories of column {name!r} have the same label")
    return found


def _frame(columns: Mapping[str, Any]) -> pl.DataFrame:
    try:
        return pl.DataFrame(dict(columns))
    except Exception as problem:
        raise DataError(f"data cannot be turned into a polars frame: {problem}") from None


def column(frame: pl.DataFrame, name: str, formula: str = "", role: str = "column") -> pl.Series:
    """Fetch a column, or say which one was probably meant.

    Parameters
    ----------
    frame
        The data.
    name
        Column name.
    formula
        The formula that names it; the error points into it.
    role
        What the column is for, e.g. ``"weights"``.

    Returns
    -------
    polars.Series
        The column.

    Raises
    ------
    DataError
        When it is not there; names the nearest column.

    Examples
    --------
    >>> column(pl.DataFrame({"days": [1]}), "day")
    Traceback (most recent call last):
    ...
    bayesglmm.errors.DataError: there is no column 'day'; did you mean 'days'?
    """
    if name in frame.columns:
        return frame.get_column(name)
    hint = nearest(name, frame.columns)
    known = "" if hint else f"; the data have {', '.join(frame.columns[:20])}"
    what = f"there is no column {name!r}"
    if role != "column":
        what = f"{role}={name!r}: there is no such column"
    raise DataError(what + (hint or known) + caret(formula, find_name(formula, name), len(name)))


def find_name(formula: str, name: str) -> int:
    """Find where a formula mentions a name; -1 if it does not.

    Examples
    --------
    >>> find_name("y ~ xx + x", "x")
    9
    """
    from bayesglmm.formula.tokens import tokenize

    if not formula:
        return -1
    for token in tokenize(formula):
        if token.kind == "name" and token.text.strip("`") == name:
            return token.start + token.text.startswith("`")
    return -1


def is_text(series: pl.Series) -> bool:
    """Whether a column is a factor by its type alone: text, categories or truth values."""
    return isinstance(series.dtype, _TEXT) or series.dtype == pl.Boolean


def is_missing(series: pl.Series) -> NDArray[np.bool_]:
    """Mark nulls and NaNs.

    Returns
    -------
    ndarray of bool, (n,)
    """
    if series.null_count():
        gone = series.is_null().to_numpy()
        if series.dtype.is_float():
            gone = gone | series.is_nan().fill_null(True).to_numpy()
        return gone
    if series.dtype.is_float():
        return np.asarray(np.isnan(series.to_numpy()))
    return np.zeros(series.len(), dtype=bool)


def label(value: object) -> str:
    """One value as R's as.character prints it."""
    if isinstance(value, bool | np.bool_):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float | np.floating):
        return f"{float(value):.15g}"
    return str(value)


def numbers(series: pl.Series, formula: str = "") -> NDArray[np.float64]:
    """Read a column as numbers.

    Parameters
    ----------
    series
        The column, (n,); truth values count as 0 and 1.
    formula
        For the error message.

    Returns
    -------
    ndarray of float64, (n,)
        NaN where missing. It may share memory with the column: copy it to keep it.

    Raises
    ------
    DataError
        When the column does not hold numbers.

    Examples
    --------
    >>> numbers(pl.Series([1, None])).tolist()
    [1.0, nan]
    """
    dtype = series.dtype
    if not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
        raise DataError(
            f"column {series.name!r} is not numeric (its type is {dtype})"
            + caret(formula, find_name(formula, series.name), len(series.name))
        )
    return np.asarray(series.cast(pl.Float64).to_numpy(), dtype=np.float64)
