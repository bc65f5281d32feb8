"""Many refits, watched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def watched[T](refits: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Pass on the refits, with a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(
        refits,
        description=what,
        total=total,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
