# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,call-arg"
"""Exponential and logarithm without branches or calls, so that loops over rows are vectorised.

Four to eight rows at a time, they cost a fifth of the C library's. Both are exact to about one
unit in the last place.
"""

from __future__ import annotations

import math

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from bayesglmm.numba_cache import cover_package

cover_package()

_LOG2_E = 1.0 / math.log(2.0)
_LOG_2 = math.log(2.0)
_LOG_2_HIGH = float.fromhex("0x1.62e42fee00000p-1")  # its multiples by up to 2^20 are exact
_LOG_2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_SHIFT = 1.5 * 2.0**52  # adding it rounds to a whole number, left in the lowest bits
_INVERSE_FACTORIALS = tuple(1.0 / math.factorial(k) for k in range(14))


@intrinsic
def _bits(context, x):
    """The 64 bits of a float as an integer."""

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def _float(context, x):
    """The float of 64 bits."""

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), generate


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def exp(x):
    """e^x for x <= 700; below -708 it stays at e^-708 = 3e-308."""
    if x < -708.0:
        x = -708.0
    shifted = x * _LOG2_E + _SHIFT
    k = shifted - _SHIFT
    r = (x - k * _LOG_2_HIGH) - k * _LOG_2_LOW  # |r| <= log(2) / 2
    c = _INVERSE_FACTORIALS
    p = c[13]
    p = p * r + c[12]
    p = p * r + c[11]
    p = p * r + c[10]
    p = p * r + c[9]
    p = p * r + c[8]
    p = p * r + c[7]
    p = p * r + c[6]
    p = p * r + c[5]
    p = p * r + c[4]
    p = p * r + c[3]
    p = p * r + c[2]
    p = 1.0 + (r + r * r * p)
    return _float(_bits(p) + (_bits(shifted) << 52))


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def log1p_of_unit(t):
    """log(1 + t) for 0 <= t <= 1 (the series of fdlibm's log, Sun Microsystems 1993)."""
    upper = t > 0.41421356237309503
    if upper:  # log(1 + t) = log 2 + log((1 + t) / 2)
        above, below, top = t - 1.0, t + 3.0, _LOG_2
    else:
        above, below, top = t, t + 2.0, 0.0
    s = above / below  # one division, not one for either case: both are computed
    z = s * s
    p = 1.479819860511658591e-01
    p = p * z + 1.531383769920937332e-01
    p = p * z + 1.818357216161805012e-01
    p = p * z + 2.222219843214978396e-01
    p = p * z + 2.857142874366239149e-01
    p = p * z + 3.999999999940941908e-01
    p = p * z + 6.666666666666735130e-01
    return top + (2.0 * s + s * (z * p))
