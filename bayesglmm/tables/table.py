"""A polars frame that says what it shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from bayesglmm.tables.text import html_note


class Table(pl.DataFrame):
    """A ``polars.DataFrame`` with a caption: the method, the scale, the interval.

    It is a polars frame in every respect; operations on it return plain frames. The caption
    appears under the frame when it is printed and above it in a notebook.
    """

    caption: str = ""

    def __str__(self) -> str:
        return _with_caption(super().__str__(), self.caption)

    def _repr_html_(self, *, _from_series: bool = False) -> str:
        body = super()._repr_html_(_from_series=_from_series)
        if not self.caption:
            return body
        return html_note(self.caption) + body


def _with_caption(text: str, caption: str) -> str:
    return f"{text}\n{caption}" if caption else text


def table(columns: Mapping[str, Any], caption: str) -> Table:
    """Build a :class:`Table` from columns."""
    out = Table(dict(columns))
    out.caption = caption
    return out
