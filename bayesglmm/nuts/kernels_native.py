# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
"""`kernels.log_density` as a C function; compiled when first imported, then on disk."""

from __future__ import annotations

import math

from numba import carray, cfunc  # type: ignore[attr-defined]

from bayesglmm.nuts.kernels import log_density
from bayesglmm.nuts.native import LOG_DENSITY, floats, integers


@cfunc(LOG_DENSITY, cache=True)
def native(size, x, gradient, value, data):
    """``data`` holds the three arrays of `layout.Packed`."""
    ints, index, parts = integers(data, 0), integers(data, 1), floats(data, 2)
    value[0] = log_density(ints, index, parts, carray(x, size), carray(gradient, size))
    return 0 if math.isfinite(value[0]) else 1
