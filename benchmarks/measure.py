"""Timing, and tables in plain text."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence


def seconds(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def median_seconds(call: Callable[[], object], runs: int) -> float:
    """Median of ``runs`` calls after a warm-up."""
    call()
    return statistics.median(seconds(call) for _ in range(runs))


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits without an exponent; a dash for what is absent."""
    if value is None:
        return "-"
    if value == 0.0 or abs(value) >= 10**digits:
        return f"{value:.0f}"
    places = digits - 1
    size = abs(value)
    while size < 1.0 and places < 6:
        size *= 10.0
        places += 1
    while size >= 10.0 and places > 0:
        size /= 10.0
        places -= 1
    return f"{value:.{places}f}"


def difference(value: float | None) -> str:
    """A difference of log-likelihoods; a dash for what is absent."""
    return "-" if value is None else f"{value:+.1e}"


class Printed:
    """A table that prints each row as soon as it is known."""

    def __init__(self, title: str, columns: Sequence[str], first: int) -> None:
        self.widths = [first, *(max(9, len(name)) for name in columns[1:])]
        print(f"\n{title}")
        self.row(columns)
        print("-" * (sum(self.widths) + 2 * len(self.widths) - 2), flush=True)

    def row(self, cells: Sequence[str]) -> None:
        """Print one row: the first cell to the left, the others to the right."""
        first, *others = zip(cells, self.widths, strict=True)
        line = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        print("  ".join(line).rstrip(), flush=True)
