"""How many threads the linear algebra may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

# Below this many trailing effects a second thread costs more than it brings; on a busy machine
# it costs up to fifty times as much (BLAS threads wait for each other in every small call).
_WORTH_THREADS = 500
_PARTS_PER_THREAD = 16  # rows differ in work: small parts even it out


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def blas_threads(q: int) -> AbstractContextManager[Any]:
    """Within this context BLAS uses one thread if the largest dense block has q < 500 columns."""
    limits = 1 if q < _WORTH_THREADS else None
    context: AbstractContextManager[Any] = _controller().limit(limits=limits, user_api="blas")
    return context


@cache
def _workers() -> tuple[int, ThreadPoolExecutor]:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return count or 1, ThreadPoolExecutor(max_workers=count or 1, thread_name_prefix="bayesglmm")


def in_parts(work: Callable[[int, int], object], rows: int, q: int) -> None:
    """``work(begin, end)`` over all rows: at once, or in parallel parts for a large dense block.

    ``work`` must release the interpreter's lock and write to its own rows only.
    """
    if q < _WORTH_THREADS:
        work(0, rows)
        return
    threads, pool = _workers()
    parts = min(rows, threads * _PARTS_PER_THREAD)
    cuts = [rows * k // parts for k in range(parts + 1)]
    for _ in pool.map(work, cuts[:-1], cuts[1:]):
        pass
