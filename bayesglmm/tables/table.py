"""A polars frame that says what it shows."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import polars as pl

from bayesglmm.tables.text import html_note

_PAGE = 200  # characters in a line where there is no terminal
_COLUMN = 8  # characters that a column needs at least


class Table(pl.DataFrame):
    """A ``polars.DataFrame`` with a caption: the method, the scale, the interval.

    It is a polars frame in every respect; operations on it return plain frames. The caption
    appears under the frame when it is printed and above it in a notebook.
    """

    caption: str = ""

    def __str__(self) -> str:
        with _whole_rows(self.width):
            return _with_caption(super().__str__(), self.caption)

    def _repr_html_(self, *, _from_series: bool = False) -> str:
        body = super()._repr_html_(_from_series=_from_series)
        if not self.caption:
            return body
        return html_note(self.caption) + body


def _whole_rows(width: int) -> pl.Config:
    """Polars' options to print all columns and whole formulas, if they fit and are not set.

    By default polars shows eight columns, which of nine hides the estimate.
    """
    chosen = pl.Config.state(if_set=True, env_only=True)
    page = shutil.get_terminal_size((_PAGE, 24)).columns
    out = pl.Config()
    if width * _COLUMN <= page and "POLARS_FMT_MAX_COLS" not in chosen:
        out.set_tbl_cols(-1)
    if "POLARS_TABLE_WIDTH" not in chosen:
        out.set_tbl_width_chars(page)
    if "POLARS_FMT_STR_LEN" not in chosen:
        out.set_fmt_str_lengths(100)
    return out


def _with_caption(text: str, caption: str) -> str:
    return f"{text}\n{caption}" if caption else text


def table(columns: Mapping[str, Any], caption: str) -> Table:
    """Build a :class:`Table` from columns; what is no number is missing (null, R's NA)."""
    out = Table(pl.DataFrame(dict(columns)).fill_nan(None).to_dict())
    out.caption = caption
    return out
