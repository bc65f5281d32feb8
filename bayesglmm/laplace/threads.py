"""How many threads the linear algebra may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from threading import Lock
from typing import Any

# Below this many trailing effects a second thread costs more than it brings; on a busy machine
# it costs up to fifty times as much (BLAS threads wait for each other in every small call).
_WORTH_THREADS = 500
_PARTS_PER_THREAD = 16  # rows differ in work: small parts even it out


@cache
def _libraries() -> tuple[Any, ...]:
    from threadpoolctl import ThreadpoolController

    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)


class _OneThread:
    """BLAS on one thread as long as any fit wants it.

    The limit is the whole process's: of two fits at the same time the one that ends last has to
    restore it, not the one that came last.
    """

    def __init__(self) -> None:
        self._lock, self._users = Lock(), 0
        self._before: tuple[int, ...] = ()

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._before = tuple(library.get_num_threads() for library in _libraries())
                for library in _libraries():
                    library.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                for library, threads in zip(_libraries(), self._before, strict=True):
                    library.set_num_threads(threads)


_one_thread = _OneThread()


def blas_threads(q: int) -> AbstractContextManager[None]:
    """Within this context BLAS uses one thread if the largest dense block has q < 500 columns."""
    return _one_thread if q < _WORTH_THREADS else nullcontext()


@cache
def _workers() -> tuple[int, ThreadPoolExecutor]:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return count or 1, ThreadPoolExecutor(max_workers=count or 1, thread_name_prefix="bayesglmm")


def workers() -> int:
    """Number of threads that work can be spread over."""
    return _workers()[0]


if hasattr(os, "register_at_fork"):  # threads do not survive a fork: a pool's would be waited for
    os.register_at_fork(after_in_child=_workers.cache_clear)


def in_parts(work: Callable[[int, int], object], rows: int) -> None:
    """``work(begin, end)`` over all rows: at once, or in parallel parts where there are many.

    ``work`` must release the interpreter's lock and write to its own rows only.
    """
    if rows < _WORTH_THREADS:
        work(0, rows)
        return
    threads, pool = _workers()
    parts = min(rows, threads * _PARTS_PER_THREAD)
    cuts = [rows * k // parts for k in range(parts + 1)]
    for _ in pool.map(work, cuts[:-1], cuts[1:]):
        pass
