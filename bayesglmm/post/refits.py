"""Many refits: one after the other or in parallel, watched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor


def refits[S, T](
    work: Callable[[S], T], items: Sequence[S], executor: Executor | None, what: str
) -> list[T]:
    """``work`` of every item, in order, with a progress bar on a terminal.

    Parameters
    ----------
    executor
        Of ``concurrent.futures``; None works in this thread.
    what
        For the progress bar.
    """
    from rich.console import Console
    from rich.progress import track

    if executor is None:
        found: Iterable[T] = map(work, items)
    else:  # in portions, since the data travel to another process with each
        found = executor.map(work, items, chunksize=max(1, len(items) // 32))
    console = Console(stderr=True)
    return list(
        track(
            found,
            description=what,
            total=len(items),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
    )
