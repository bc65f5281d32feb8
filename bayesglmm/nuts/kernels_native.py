# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
"""`kernels.log_density` as a C function; compiled when first imported, then on disk."""

from __future__ import annotations

import math

from numba import carray, cfunc  # type: ignore[attr-defined]

from bayesglmm.nuts.kernels import log_density_in
from bayesglmm.nuts.native import LOG_DENSITY, floats, integers


@cfunc(LOG_DENSITY, cache=True)
def native(size, x, gradient, value, data):
    """``data`` holds the three arrays of `layout.Packed`, and room."""
    ints, index, parts, room = (
        integers(data, 0),
        integers(data, 1),
        floats(data, 2),
        floats(data, 3),
    )
    value[0] = log_density_in(ints, index, parts, room, carray(x, size), carray(gradient, size))
    return 0 if math.isfinite(value[0]) else 1
