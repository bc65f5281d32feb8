"""C functions for the sampler's threads, which then never wait for the GIL.

A kernel with data in arrays becomes one like this, at module level, so that numba's cache on
disk holds it::

    @cfunc(LOG_DENSITY, cache=True)
    def native(size, x, gradient, value, data):
        y, w = floats(data, 0), floats(data, 1)
        value[0] = kernel(carray(x, size), carray(gradient, size), y, w)
        return 0 if isfinite(value[0]) else 1

    Target(..., address=native.address, data=addresses(y, w))
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, cfunc, njit, types  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

_DOUBLES = types.CPointer(types.double)  # type: ignore[no-untyped-call]

# (size, x, gradient, value, data) -> 0, or 1 where the density or its gradient is not finite
LOG_DENSITY = types.int64(types.uint64, _DOUBLES, _DOUBLES, _DOUBLES, types.voidptr)
# (size, number of variables, x, variables, data) -> 0
EXPAND = types.int64(types.uint64, types.uint64, _DOUBLES, _DOUBLES, types.voidptr)


def addresses(*arrays: NDArray[Any]) -> NDArray[np.intp]:
    """Where contiguous arrays of float64 or int64 lie, and their sizes, for :func:`floats`.

    The caller keeps the arrays alive.

    Raises
    ------
    TypeError
        For another type, or an array that is not contiguous.
    """
    out = np.empty((len(arrays), 2), dtype=np.intp)
    for k, array in enumerate(arrays):
        if array.dtype not in (np.float64, np.int64) or not array.flags.c_contiguous:
            raise TypeError(f"array {k} is {array.dtype}; make it contiguous float64 or int64")
        out[k] = array.ctypes.data, array.size
    return out


def with_room(
    data: NDArray[np.intp], room: tuple[int, ...]
) -> tuple[NDArray[np.intp], tuple[NDArray[np.float64], ...]]:
    """:func:`addresses` with working arrays of these sizes after the others, and the arrays.

    Without room the data stay as they are, whatever they hold. Whoever calls keeps both alive.
    No two threads may share them.
    """
    if not room:
        return data, ()
    arrays = tuple(np.zeros(size) for size in room)
    return np.concatenate([data.reshape(-1, 2), addresses(*arrays)]), arrays


@intrinsic
def _pointer(typing_context, address):  # type: ignore[no-untyped-def]
    """An address as a pointer."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


@njit(cache=True, nogil=True, error_model="numpy")
def floats(data, k):  # type: ignore[no-untyped-def]
    """Array k of :func:`addresses`, flat, of float64."""
    at = carray(data, 2 * k + 2, np.intp)
    return carray(_pointer(at[2 * k]), at[2 * k + 1], np.float64)  # type: ignore[call-arg]


@njit(cache=True, nogil=True, error_model="numpy")
def integers(data, k):  # type: ignore[no-untyped-def]
    """Array k of :func:`addresses`, flat, of int64."""
    at = carray(data, 2 * k + 2, np.intp)
    return carray(_pointer(at[2 * k]), at[2 * k + 1], np.int64)  # type: ignore[call-arg]


@njit(cache=True, nogil=True, error_model="numpy")
def floats_in(data, k, shape):  # type: ignore[no-untyped-def]
    """The same in a shape: cheaper than to reshape it."""
    at = carray(data, 2 * k + 2, np.intp)
    return carray(_pointer(at[2 * k]), shape, np.float64)  # type: ignore[call-arg]


@njit(cache=True, nogil=True, error_model="numpy")
def integers_in(data, k, shape):  # type: ignore[no-untyped-def]
    """The same of int64."""
    at = carray(data, 2 * k + 2, np.intp)
    return carray(_pointer(at[2 * k]), shape, np.int64)  # type: ignore[call-arg]


@cfunc(EXPAND, cache=True)
def keep(size, count, x, variables, data):  # type: ignore[no-untyped-def]
    """Write a draw into the chain's memory: it is there at once, and nothing copies it.

    ``data`` packs [iterations so far, warm-up] and the (draws * size) positions.
    """
    state, positions = integers(data, 0), floats(data, 1)
    row = state[0] - state[1]
    if row >= 0:
        for i in range(size):
            positions[row * size + i] = x[i]
    state[0] += 1
    return 0
