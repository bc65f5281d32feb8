"""What tells whether data are those of the fit: a hash of each column's values.

It depends on the values and their order only: not on the frame library, on the width of the
numbers, on categories or on other columns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from bayesglmm.design.columns import is_missing, is_text
from bayesglmm.design.factors import labels
from bayesglmm.errors import DataError, nearest

__all__ = ["check_data", "combined", "fingerprints"]

_EXACT = 2**53  # up to here every whole number is a double


def fingerprints(frame: pl.DataFrame) -> dict[str, dict[str, str]]:
    """By column what its values are and their SHA-256, in order and sorted.

    Examples
    --------
    >>> a = fingerprints(pl.DataFrame({"x": [1, 2]}))
    >>> a == fingerprints(pl.DataFrame({"x": [1.0, 2.0]}))
    True
    """
    return {name: _fingerprint(frame.get_column(name)) for name in frame.columns}


def combined(columns: Mapping[str, Mapping[str, str]]) -> str:
    """One SHA-256 of all columns, whatever their order."""
    found = sorted((name, at["values"], at["sha256"]) for name, at in columns.items())
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def check_data(
    frame: pl.DataFrame, saved: Mapping[str, Mapping[str, str]], stored: pl.DataFrame | None
) -> None:
    """Refuse rows that are not those of the fit.

    Parameters
    ----------
    frame
        The n rows that the fit kept.
    saved
        From `fingerprints`.
    stored
        The rows in the file, to count the differences; None for none.

    Raises
    ------
    DataError
        With the columns that differ, how, and in how many rows where that is known.
    """
    missing = [name for name in saved if name not in frame.columns]
    if missing:
        raise DataError(
            f"data lack the column{'s' if len(missing) > 1 else ''} "
            f"{', '.join(map(repr, missing))}{nearest(missing[0], frame.columns)}; the fit used "
            f"{', '.join(map(repr, saved))}"
        )
    found = fingerprints(frame.select(list(saved)))
    differing = [name for name in saved if found[name] != saved[name]]
    if not differing:
        return
    if all(found[n]["sorted"] == saved[n]["sorted"] for n in differing):
        raise DataError(
            "data hold the values of the fit in another order of rows "
            f"({', '.join(map(repr, differing))}); give them in the order they had"
        )
    told = "; ".join(
        _difference(frame.get_column(n), found[n], saved[n], stored) for n in differing
    )
    raise DataError(f"data are not those of the fit: {told}")


def _difference(
    series: pl.Series,
    found: Mapping[str, str],
    saved: Mapping[str, str],
    stored: pl.DataFrame | None,
) -> str:
    name = series.name
    if found["values"] != saved["values"]:
        return f"column {name!r} holds {found['values']}, and held {saved['values']}"
    if stored is None:
        return f"column {name!r} has other values"
    changed = _comparable(series) != _comparable(stored.get_column(name))
    rows = np.flatnonzero(np.asarray(changed))
    return (
        f"column {name!r} differs in {rows.size} of {series.len()} rows (the first is row "
        f"{int(rows[0])} of those used)"
    )


def _comparable(series: pl.Series) -> Any:
    if series.dtype.is_numeric():
        return _numbers(series)
    return np.array(labels(series).to_list(), dtype=object)


def _fingerprint(series: pl.Series) -> dict[str, str]:
    if series.dtype.is_numeric():
        values, array = "numbers", _numbers(series)
        found = [array.tobytes(), np.sort(array).tobytes()]
    elif series.dtype == pl.Boolean:
        values, array = "truth values", series.to_numpy().astype(np.uint8)
        found = [array.tobytes(), np.sort(array).tobytes()]
    else:
        values = "text" if is_text(series) else "dates or times"
        text = labels(series).cast(pl.String)
        found = [_encoded(text), _encoded(text.sort())]
    size = f"{values} {series.len()} ".encode()
    ordered, sort = (hashlib.sha256(size + part).hexdigest() for part in found)
    return {"values": values, "sha256": ordered, "sorted": sort}


def _numbers(series: pl.Series) -> Any:
    """Little-endian doubles, or 64-bit integers where doubles would not do; -0 is 0."""
    dtype = series.dtype
    if dtype.is_integer() and series.len() > series.null_count():
        low, high = int(series.min()), int(series.max())  # type: ignore[arg-type]
        if max(-low, high) > _EXACT and low >= -(2**63) and high < 2**63:
            return series.cast(pl.Int64).to_numpy().astype("<i8")
    return series.cast(pl.Float64).to_numpy().astype("<f8") + 0.0


def _encoded(text: pl.Series) -> bytes:
    """Lengths, then all characters: no separator that a value could hold."""
    gone = is_missing(text)
    filled = text.fill_null("")
    lengths = filled.str.len_bytes().to_numpy().astype("<i8")
    lengths = np.where(gone, -1, lengths)
    return lengths.astype("<i8").tobytes() + "".join(filled.to_list()).encode()
