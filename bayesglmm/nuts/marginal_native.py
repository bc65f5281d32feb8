# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
"""The density of `marginal_kernels` as a C function; compiled when first imported, then on disk."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import carray, cfunc  # type: ignore[attr-defined]
from numpy.typing import NDArray

from bayesglmm.nuts.marginal_kernels import log_density
from bayesglmm.nuts.native import LOG_DENSITY, floats, integers


def packed(
    s: tuple[Any, ...], c: tuple[Any, ...], d: tuple[Any, ...], frame: tuple[Any, ...]
) -> list[NDArray[Any]]:
    """What it reads, as arrays for `native.addresses`, from the kernel's arguments."""
    terms, pairs, pair_of, _, levels, starts, up, up_of, cross, n_chain = s
    lengths = [len(terms), len(pairs), levels.shape[1], len(cross[1]), len(up), n_chain]
    whole = [np.array(lengths, dtype=np.int64), terms, pairs, pair_of, starts, up_of]
    small = [_as_whole(part) for part in (levels, up, *(cross[k] for k in (1, 2, 4, 5)))]
    parts = [*whole, *small, cross[0], cross[3], *c, *d, *frame]
    return [np.ascontiguousarray(part) for part in parts]


def _as_whole(small: NDArray[np.int32 | np.uint32]) -> NDArray[np.int64]:
    """32-bit integers two by two."""
    out = np.zeros((small.size + 1) // 2 * 2, dtype=small.dtype)
    out[: small.size] = small.ravel()
    return out.view(np.int64)


@cfunc(LOG_DENSITY, cache=True)
def native(size, x, gradient, value, data):
    """See `packed` for what ``data`` holds."""
    lengths = integers(data, 0)
    F, P, entries, crossing, up = lengths[0], lengths[1], lengths[2], lengths[3], lengths[4]
    s = (
        integers(data, 1).reshape(F, 5),
        integers(data, 2).reshape(P, 7),
        integers(data, 3).reshape(F, F),
        np.empty((0, 0), dtype=np.int32),  # rows are not asked for
        integers(data, 6).view(np.int32)[: 2 * entries].reshape(2, entries),
        integers(data, 4),
        integers(data, 7).view(np.int32)[:up],
        integers(data, 5).reshape(F, F, F),
        (
            integers(data, 12),
            integers(data, 8).view(np.uint32)[:crossing],
            integers(data, 9).view(np.uint32)[:crossing],
            integers(data, 13),
            integers(data, 10).view(np.uint32)[:crossing],
            integers(data, 11).view(np.uint32)[:crossing],
        ),
        lengths[5],
    )
    codes = integers(data, 15)
    c = (integers(data, 14).reshape(F, 4), codes, floats(data, 16).reshape(len(codes), 3))
    xx = floats(data, 23)
    p = int(math.sqrt(len(xx)) + 0.5)
    zx = floats(data, 22)
    d = (
        integers(data, 18),
        floats(data, 19),
        integers(data, 20),
        floats(data, 21),
        zx.reshape(len(zx) // p, p),
        xx.reshape(p, p),
        floats(data, 24).reshape(p, p),
        floats(data, 25),
    )
    m = int(size)
    out = log_density(
        carray(x, m),
        s,
        (c[0], c[1], c[2], floats(data, 17)),
        d,
        floats(data, 26),
        floats(data, 27).reshape(m, m),
        floats(data, 28),
        carray(gradient, m),
    )
    value[0] = out
    for k in range(m):
        if not math.isfinite(gradient[k]):
            return 1
    return 0 if math.isfinite(out) else 1
