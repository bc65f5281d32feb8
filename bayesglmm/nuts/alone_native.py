# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
"""The density of `alone_kernels` as a C function; compiled when first imported, then on disk."""

from __future__ import annotations

import math

from numba import carray, cfunc  # type: ignore[attr-defined]

from bayesglmm.nuts.alone_kernels import inlined, log_density
from bayesglmm.nuts.native import LOG_DENSITY, floats, floats_in, integers, integers_in

_log_density = inlined(log_density)


@cfunc(LOG_DENSITY, cache=True)
def native(size, x, gradient, value, data):
    """``data`` holds the arrays of `cross_products.Alone`, of the coordinates, and room."""
    m = int(size)
    terms, codes, constants = integers_in(data, 0, (1, 5)), integers(data, 2), floats(data, 9)
    counts = floats(data, 11)
    K, classes, p = terms[0, 1], len(counts), int(constants[3])
    scales = (
        integers_in(data, 1, (1, 4)),
        codes,
        floats_in(data, 3, (len(codes), 3)),
        floats(data, 4),
    )
    sums = (
        integers(data, 5),
        floats(data, 6),
        floats_in(data, 7, (p, p)),
        floats_in(data, 8, (p, p)),
        constants,
        floats_in(data, 10, (classes, K, K)),
        counts,
        floats_in(data, 12, (classes, K * (K + 1) // 2, p * p)),
    )
    centre, root, elbows = floats(data, 13), floats_in(data, 14, (m, m)), floats(data, 15)
    room, fixed, slopes = floats(data, 16), floats_in(data, 17, (p, p)), carray(gradient, m)
    at = carray(x, m)
    value[0] = _log_density(at, terms, scales, sums, centre, root, elbows, room, fixed, slopes)
    for k in range(m):
        if not math.isfinite(gradient[k]):
            return 1
    return 0 if math.isfinite(value[0]) else 1
