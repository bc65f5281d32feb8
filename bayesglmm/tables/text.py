"""Plain-text and HTML tables, and how numbers are written in them."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

Cell = str | float | int | None


def number(value: float | int | None, digits: int = 4) -> str:
    """A number for reading: fixed point near one, scientific when tiny or huge.

    Never fewer than ``digits`` - 1 significant digits, so that an estimate of 0.00644 can be
    told from its rounding error.

    Examples
    --------
    >>> number(0.123456), number(12345.6), number(0.0064361), number(None)
    ('0.1235', '12345.6', '0.00644', '')
    >>> number(27465718.0), number(3.2e-9)
    ('2.747e+07', '3.20e-09')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, int):
        return str(value)
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    size = abs(value)
    if size >= 1e7:
        return f"{value:.{digits - 1}e}"
    if size != 0 and size < 10.0 ** (-digits):
        return f"{value:.{digits - 2}e}"
    power = math.floor(math.log10(size)) if size else 0
    places = digits - 2 - power if power < -2 else digits if power < 1 else max(digits - power, 1)
    return f"{value:.{places}f}"


def p_value(value: float | None) -> str:
    """``<.0001`` or four decimals."""
    if value is None or math.isnan(value):
        return ""
    return "<.0001" if value < 1e-4 else f"{value:.4f}"


def cell(name: str, value: Cell) -> str:
    """Format by column name: p values, effective sample sizes and R-hat have their own style."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if name in ("p_value", "p"):
        return p_value(float(value))
    if name in ("df", "ess", "ess_bulk", "ess_tail"):
        if isinstance(value, float) and math.isinf(value):
            return "inf"
        return "" if math.isnan(value) else f"{value:.0f}" if value >= 100 else f"{value:.1f}"
    if name in ("r_hat", "prob_direction"):
        return "" if math.isnan(value) else f"{value:.3f}"
    if name in ("z_stat", "t_stat"):
        return "" if math.isnan(value) else f"{value:.3f}"
    return number(value)


def text_table(header: Sequence[str], rows: Sequence[Sequence[Cell]], labels: int = 1) -> str:
    """Aligned text: the first ``labels`` columns to the left, numbers to the right."""
    body = [[cell(h, v) for h, v in zip(header, row, strict=True)] for row in rows]
    widths = [max([len(h), *(len(r[k]) for r in body)]) for k, h in enumerate(header)]

    def line(cells: Sequence[str]) -> str:
        parts = [
            c.ljust(w) if k < labels else c.rjust(w)
            for k, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return ("  " + "  ".join(parts)).rstrip()

    return "\n".join([line(header), *(line(row) for row in body)])


def html_note(text: str) -> str:
    """A line of small print above or below a table."""
    return f'<div style="margin:0.3em 0;opacity:0.8">{html.escape(text)}</div>'


def html_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[Cell]], labels: int = 1
) -> str:
    """The same as an HTML table that follows the page's light or dark colours."""
    align = ["left" if k < labels else "right" for k in range(len(header))]

    def row(tag: str, cells: Sequence[str]) -> str:
        inner = "".join(
            f'<{tag} style="text-align:{a};padding:0.15em 0.7em">{html.escape(c)}</{tag}>'
            for c, a in zip(cells, align, strict=True)
        )
        return f"<tr>{inner}</tr>"

    body = "".join(
        row("td", [cell(h, v) for h, v in zip(header, values, strict=True)]) for values in rows
    )
    return (
        f'<table style="border-collapse:collapse;margin:0.6em 0"><caption style="text-align:left;'
        f'font-weight:600;padding:0.2em 0.7em">{html.escape(title)}</caption>'
        f'<thead style="border-bottom:1px solid currentColor">{row("th", header)}</thead>'
        f"<tbody>{body}</tbody></table>"
    )
