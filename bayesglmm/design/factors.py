"""Factors: a column's levels, and the level of every row as an integer code.

A label is made once for every distinct value, never for every row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from bayesglmm.design.columns import is_missing, label
from bayesglmm.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Factor", "codes", "factorise", "labels", "make_factor"]

# From about this many rows on, the distinct strings are found faster among categories.
_MANY = 100_000


@dataclass(frozen=True, slots=True)
class Factor:
    """A categorical column: its name and its levels in order.

    Attributes
    ----------
    name
        Column name.
    levels
        Labels as R prints them, in order.
    ordered
        Whether it is an ordered factor (polynomial coding by default, as in R).
    """

    name: str
    levels: tuple[str, ...]
    ordered: bool = False


def labels(series: pl.Series) -> pl.Series:
    """Give the factor label of every value.

    Parameters
    ----------
    series
        Any column: text, categories, integers, floats, truth values, dates.

    Returns
    -------
    polars.Series
        Strings, (n,); null where the value is missing. 3 is "3", 1.5 is "1.5", True is "TRUE".

    Raises
    ------
    DataError
        For nested columns, which have no label.

    Examples
    --------
    >>> labels(pl.Series([1.5, 2.0, None])).to_list()
    ['1.5', '2', None]
    """
    if series.dtype == pl.String:
        return series
    if isinstance(series.dtype, pl.Categorical | pl.Enum) or series.dtype.is_integer():
        return series.cast(pl.String)
    position, words = _dictionary(series)
    place = pl.Series(position).set(pl.Series(position < 0), None)
    return pl.Series(series.name, words, dtype=pl.String).gather(place)


def make_factor(
    series: pl.Series, *, given: Iterable[object] = (), ordered: bool = False
) -> Factor:
    """Find the levels of a column: those present, in order.

    Parameters
    ----------
    series
        The column, (n,).
    given
        Levels in the wanted order; the rest of the rule applies when empty.
    ordered
        Whether it is an ordered factor.

    Returns
    -------
    Factor
        Levels in the order given; else of an Enum's categories; else numbers by size, text by
        character code. Levels that do not occur are dropped.

    Raises
    ------
    DataError
        When `given` leaves out a value that occurs.

    Examples
    --------
    >>> make_factor(pl.Series("x", [10, 9, 10])).levels
    ('9', '10')
    >>> make_factor(pl.Series("x", ["b", "a"]), given=["b", "a"]).levels
    ('b', 'a')
    """
    return factorise(series, given=given, ordered=ordered)[0]


def codes(series: pl.Series, factor: Factor) -> NDArray[np.intp]:
    """Find the level of every row.

    Parameters
    ----------
    series
        The column, (n,).
    factor
        Its levels.

    Returns
    -------
    ndarray of intp, (n,)
        Position in ``factor.levels``; -1 for a missing value, -2 for a value that is no level.

    Examples
    --------
    >>> codes(pl.Series(["b", None, "z"]), Factor("x", ("a", "b"))).tolist()
    [1, -1, -2]
    """
    return _coded(*_dictionary(series), factor.levels)


def factorise(
    series: pl.Series, *, given: Iterable[object] = (), ordered: bool = False
) -> tuple[Factor, NDArray[np.intp]]:
    """Levels and codes at once: `make_factor` and `codes`.

    Examples
    --------
    >>> factor, code = factorise(pl.Series("x", ["b", "a", "b"]))
    >>> factor.levels, code.tolist()
    (('a', 'b'), [1, 0, 1])
    """
    name = series.name
    position, words = _dictionary(series)
    occurs = np.bincount(position + 1, minlength=len(words) + 1)[1:] > 0
    present = [word for word, there in zip(words, occurs, strict=True) if there]
    wanted = [label(value) for value in given]
    if wanted:
        left_out = sorted(set(present) - set(wanted))
        if left_out:
            raise DataError(
                f"factors[{name!r}] lists the levels {_listed(wanted)}, but the column also "
                f"holds {_listed(left_out)}"
            )
        there = set(present)
        present = [word for word in dict.fromkeys(wanted) if word in there]
    factor = Factor(name, tuple(dict.fromkeys(present)), ordered)
    return factor, _coded(position, words, factor.levels)


def _coded(
    position: NDArray[np.intp], words: list[str], levels: tuple[str, ...]
) -> NDArray[np.intp]:
    """Positions among the words as positions among the levels."""
    if tuple(words) == levels:
        return position
    place = {level: k for k, level in enumerate(levels)}
    # The last entry is what position -1, a missing value, looks up.
    return np.array([*(place.get(word, -2) for word in words), -1], dtype=np.intp)[position]


def _dictionary(series: pl.Series) -> tuple[NDArray[np.intp], list[str]]:
    """Every row as a position among labels: (n,), -1 where missing; and the labels, in order.

    Numbers and dates are in order of size, categories in theirs, text in order of character
    codes. Categories that do not occur are among the labels of an Enum.
    """
    dtype = series.dtype
    if dtype.is_nested() or dtype in (pl.Object, pl.Binary):
        raise DataError(f"column {series.name!r} has type {dtype}; it cannot be a factor")
    gone = is_missing(series)
    if gone.all():
        return np.full(series.len(), -1, dtype=np.intp), []
    if gone.any():  # any value will do: these rows are marked at the end
        series = series.set(pl.Series(gone), series[int(np.argmin(gone))])
    if dtype == pl.String and series.len() > _MANY:
        series = series.cast(pl.Categorical)
        dtype = series.dtype
    if dtype == pl.String:
        words = sorted(series.unique().to_list())
        keys = series.cast(pl.Enum(words)).to_physical().to_numpy()
    elif isinstance(dtype, pl.Enum):
        words = dtype.categories.to_list()
        keys = series.to_physical().to_numpy()
    elif dtype == pl.Boolean:
        words, keys = ["FALSE", "TRUE"], series.cast(pl.UInt8).to_numpy()
    elif dtype == pl.Categorical:
        found = series.unique()
        found = found.gather(found.cast(pl.String).arg_sort())
        words = found.cast(pl.String).to_list()
        keys = _positions(series.to_physical().to_numpy(), found.to_physical().to_numpy())
    else:
        keys, found = _distinct(series)
        words = [label(value) for value in found.to_list()]
    position = keys.astype(np.intp, copy=False)
    if gone.any():
        position[gone] = -1
    return position, words


def _distinct(series: pl.Series) -> tuple[NDArray[np.intp], pl.Series]:
    """Numbers or dates: every row as a position among the distinct values, by size."""
    dtype = series.dtype
    if dtype.is_decimal() or str(dtype).endswith("128"):  # not numbers to NumPy
        found = series.unique().sort()
        place = series.replace_strict(found, range(found.len()), return_dtype=pl.Int64)
        return np.array(place.to_numpy()), found
    if dtype.is_integer():
        values = series.to_numpy()
        low, high = int(values.min()), int(values.max())
        if high - low < 4 * len(values) + 1024:
            shifted = _shifted(values, low)
            occurs = np.zeros(high - low + 1, dtype=bool)
            occurs[shifted] = True
            return (np.cumsum(occurs) - 1)[shifted], pl.Series(np.flatnonzero(occurs) + low)
    found = series.unique().sort()
    return _positions(series.to_physical().to_numpy(), found.to_physical().to_numpy()), found


def _positions(values: NDArray[np.generic], keys: NDArray[np.generic]) -> NDArray[np.intp]:
    """The position of every value among the keys, which may be in any order."""
    if keys.dtype.kind in "iu":
        low, high = int(keys.min()), int(keys.max())
        if high - low < 4 * len(values) + 1024:
            table = np.zeros(high - low + 1, dtype=np.intp)
            table[_shifted(keys, low)] = np.arange(len(keys))
            return table[_shifted(values, low)]
    order = np.argsort(keys)
    return order[np.searchsorted(keys[order], values)]


def _shifted(values: NDArray[np.generic], low: int) -> NDArray[np.int64]:
    """Values minus the lowest, in 64 bits: 127 - (-128) is no 8-bit number."""
    wide = values if values.dtype == np.int64 else values.astype(np.int64)
    return np.asarray(wide - low, dtype=np.int64)


def _listed(values: Iterable[str], most: int = 12) -> str:
    """Name values for a message, not more than `most`."""
    found = list(values)
    text = ", ".join(repr(v) for v in found[:most])
    return text + (f", … ({len(found)} in all)" if len(found) > most else "")
