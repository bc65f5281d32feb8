"""How many threads the linear algebra may use."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

# Below this many trailing effects a second BLAS thread costs more than it brings; on a busy
# machine it costs up to fifty times as much (threads wait for each other in every small call).
_WORTH_THREADS = 500


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def blas_threads(q: int) -> AbstractContextManager[Any]:
    """Within this context BLAS uses one thread if the largest dense block has q < 500 columns."""
    limits = 1 if q < _WORTH_THREADS else None
    context: AbstractContextManager[Any] = _controller().limit(limits=limits, user_api="blas")
    return context
