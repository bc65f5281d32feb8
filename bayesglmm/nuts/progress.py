"""What a running sampler shows; nothing that is drawn depends on it."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_EVERY = 0.2  # seconds between pictures
_SHARE = 0.05  # of the time for effective sample sizes
_FIRST_ESS = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a chain is; ``share`` of all its iterations are over."""

    drawn: int
    total: int
    share: float
    warming_up: bool
    divergences: int
    step_size: float


class Progress:
    """A picture that is renewed now and then.

    Parameters
    ----------
    draw
        Shows one; None shows nothing.
    """

    def __init__(self, draw: Callable[[Picture], None] | None) -> None:
        self._draw = draw
        self._started = time.perf_counter()
        self._next, self._next_ess = _EVERY, _FIRST_ESS
        self._ess = math.nan

    def show(self, standings: Callable[[], list[Standing]], ess: Callable[[], float]) -> None:
        """Renew the picture if it is time to."""
        elapsed = time.perf_counter() - self._started
        if self._draw is None or elapsed < self._next:
            return
        chains = standings()
        if elapsed >= self._next_ess and not any(c.warming_up for c in chains):
            at = time.perf_counter()
            self._ess = ess()
            self._next_ess = elapsed + max(1.0, (time.perf_counter() - at) / _SHARE)
        self._draw(Picture(tuple(chains), self._ess, elapsed))
        self._next = time.perf_counter() - self._started + _EVERY


@dataclass(frozen=True, slots=True)
class Picture:
    """One moment of a run; ``ess`` is the smallest of all parameters, NaN for not known yet."""

    chains: tuple[Standing, ...]
    ess: float
    elapsed: float

    @property
    def left(self) -> float:
        """Seconds left, if iterations take as long as so far; infinite at the start."""
        share = min(c.share for c in self.chains)
        return self.elapsed * (1.0 / share - 1.0) if share > 0.0 else math.inf

    @property
    def footer(self) -> str:
        """One line under the chains."""
        parts = [f"{_time(self.elapsed)} elapsed"]
        if math.isfinite(self.left):
            parts.append(f"at most {_time(self.left)} left")
        if math.isfinite(self.ess):
            parts.append(f"smallest ESS so far {self.ess:.0f}")
        warm = any(c.warming_up for c in self.chains)
        return " · ".join([*parts, "warming up" if warm else "an interrupt keeps the draws"])

    def rows(self) -> Iterator[tuple[str, str, str, str, float]]:
        """Chain, draws, divergences, step size, and the share that is done."""
        for k, c in enumerate(self.chains):
            state = "warm-up" if c.warming_up else f"{c.drawn}/{c.total}"
            step = f"{c.step_size:.2f}" if c.step_size > 0.0 else ""
            yield str(k), state, str(c.divergences), step, c.share


def _time(seconds: float) -> str:
    """1.5 s, 42 s, 3:05 or 1:02:03."""
    if seconds < 60.0:
        return f"{seconds:.0f} s" if seconds >= 10.0 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


_HEADINGS = ("chain", "draws", "divergences", "step size")


@contextmanager
def open_progress(wanted: bool) -> Iterator[Progress]:
    """A display in a terminal or a notebook, and none elsewhere."""
    if not wanted:
        yield Progress(None)
    elif _in_notebook():
        with _notebook() as draw:
            yield Progress(draw)
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:
            yield Progress(lambda picture: live.update(_table(picture), refresh=True))
    else:
        yield Progress(None)


def _table(picture: Picture) -> Any:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right")
    table.add_column("")
    for *cells, share in picture.rows():
        divergences = cells[2] if cells[2] == "0" else f"[bold red]{cells[2]}[/]"
        bar = ProgressBar(total=1.0, completed=share, width=30)
        table.add_row(cells[0], cells[1], divergences, cells[3], bar)
    return Group(table, Text(picture.footer, style="dim"))


def html(picture: Picture) -> str:
    """The picture for a notebook."""
    head = "".join(f"<th>{heading}</th>" for heading in (*_HEADINGS, ""))
    body = "".join(
        "<tr>"
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + f'<td><progress max="1" value="{share:.3f}"></progress></td></tr>'
        for *cells, share in picture.rows()
    )
    return f"<table><tr>{head}</tr>{body}</table><p>{picture.footer}</p>"


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


@contextmanager
def _notebook() -> Iterator[Callable[[Picture], None]]:
    """Renew one output; at the end it is empty."""
    from IPython.display import HTML, display

    handles: list[Any] = []

    def draw(text: str) -> None:
        shown = HTML(text)  # type: ignore[no-untyped-call]
        if handles:
            handles[0].update(shown)
        else:
            handle = display(shown, display_id=True)  # type: ignore[no-untyped-call]
            handles.append(handle)

    try:
        yield lambda picture: draw(html(picture))
    finally:
        if handles:
            draw("")
