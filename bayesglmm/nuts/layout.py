# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""How a model lies in memory for the compiled kernels.

Three flat arrays hold everything: ``ints`` (sizes, then where each part begins, then the integer
parts), ``index`` (the level of every row, term by term, two 32-bit integers in each element) and
``data`` (the floats). A call with five arrays costs a tenth of one with forty, and one signature
fits every model. Inside, the kernels see named views.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]

ROWS = 256  # that the kernels treat at a time: they stay in the nearest cache

Sizes = namedtuple(
    "Sizes",
    (
        "n",  # rows
        "p",  # coefficients
        "terms",  # number of random-effects terms, in order of elimination
        "chain",  # of them eliminated in order; the others trail
        "leading",  # effects of the chain
        "effects",  # of all terms
        "scales",  # length of t
        "code",  # of family and link
        "intercept",  # its position among the coefficients, -1 without one
        "has_scale",
        "factors",  # length of the concatenated K x K factors
        "blocks",  # length of the concatenated blocks
        "scratch",  # for the blocks of one term
        "couplings",  # number of pairs of a chain and a trailing term
        "priors",  # number of sds and sigma
    ),
)
Floats = namedtuple(
    "Floats",
    (
        "y",  # (n,) response and weights
        "w",
        "eta",  # (n,) linear predictor at beta_hat without random effects, offset included
        "X",  # (p, n) orthonormal columns, with beta = beta_hat + back gamma
        "Z",  # (columns, n) of all terms
        "beta",  # (p,) beta_hat
        "back",  # (p, p)
        "A",  # (d, d) upper triangular, single: (z of the trailing effects, gamma) = A epsilon
        "t",  # (scales,) t_hat, straightened
        "root",  # (scales, scales) lower triangular: t is bent from t_hat + root x_t
        "elbows",  # (scales,) where
        "means",  # (p,) of the model's own columns: the intercept's prior holds there
        "beta_priors",  # (p, 3)
        "scale_priors",  # (priors, 3)
        "etas",  # (terms,) of the LKJ priors, in the formula's order
        "blocks",  # (K, K + M, J) pseudo-precisions of a chain term, (K, K, J) of a trailing one
        "r",  # (effects,) pseudo-responses; effects are sorted by term, column, level
        "C",  # (p, effects) minus their slopes in gamma
        "coupled",  # (K, K, entries) pseudo-precisions between chain and trailing levels
        "fixed",  # sigma_hat, log of all normalising constants
    ),
)
Integers = namedtuple(
    "Integers",
    (
        # (terms, 9) levels J, columns K, first effect, first column of Z, 1 if that is 1 and 2 if
        # rows of a level are neighbours, too, begin of the factor, columns M of all ancestors,
        # begin of the blocks, of the ancestors
        "terms",
        "ancestors",  # the levels of later chain terms that each level of a term is nested in
        "couplings",  # (couplings, 5) chain term, trailing term, begin of starts, levels, values
        "starts",  # where the entries of each chain level begin
        "levels",  # of the trailing term
        "layout",  # (terms, 4) of t: `Scales.terms`
        "beta_codes",
        "scale_codes",
    ),
)
Work = namedtuple(
    "Work",
    "t natural along turn factors inverses precision zeta beta b y raw blocks "
    "t_bar precision_bar zeta_bar beta_bar b_bar r_bar blocks_bar scratch eta value slope",
)
_SIZES, _FLOATS = len(Sizes._fields), len(Floats._fields)
_HEADER = _SIZES + _FLOATS + 1 + len(Integers._fields) + 1


@dataclass(frozen=True, slots=True)
class Packed:
    """The three arrays."""

    ints: NDArray[np.int64]
    index: NDArray[np.int64]
    data: Array

    @property
    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
        """What the kernels take first."""
        return self.ints, self.index, self.data


def pack(sizes: Mapping[str, int], parts: Mapping[str, object], index: object) -> Packed:
    """Lay out parts that are given by their names in `Floats` and `Integers`."""
    floats = [_doubles(parts[k]) for k in Floats._fields]
    integers = [np.ravel(np.asarray(parts[k], dtype=np.int64)) for k in Integers._fields]
    ends = np.cumsum([0, *map(len, floats)])
    places = _HEADER + np.cumsum([0, *map(len, integers)])
    header = [*(sizes[k] for k in Sizes._fields), *ends, *places]
    return Packed(
        np.concatenate([np.array(header, dtype=np.int64), *integers]),
        _in_pairs(np.asarray(index, dtype=np.int32)).view(np.int64),
        np.concatenate(floats),
    )


def _doubles(part: object) -> Array:
    """Flat; of single numbers two in each element."""
    array = np.asarray(part)
    if array.dtype == np.float32:
        return _in_pairs(array).view(np.float64)
    return np.ravel(array.astype(np.float64))


def _in_pairs(array: NDArray[Any]) -> NDArray[Any]:
    """Flat, one zero more where the number of elements is odd."""
    out = np.zeros(array.size + array.size % 2, dtype=array.dtype)
    out[: array.size] = array.ravel()
    return out


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def sizes_of(ints):
    """The sizes by name."""
    i = ints
    return Sizes(
        i[0],
        i[1],
        i[2],
        i[3],
        i[4],
        i[5],
        i[6],
        i[7],
        i[8],
        i[9],
        i[10],
        i[11],
        i[12],
        i[13],
        i[14],
    )


@njit(cache=True, nogil=True, error_model="numpy")
def floats_of(ints, data):
    """The floats by name."""
    s, at = sizes_of(ints), ints[_SIZES:]
    d = s.effects - s.leading + s.p
    return Floats(
        data[at[0] : at[1]],
        data[at[1] : at[2]],
        data[at[2] : at[3]],
        data[at[3] : at[4]].reshape((s.p, s.n)),
        data[at[4] : at[5]].reshape((-1, s.n)),
        data[at[5] : at[6]],
        data[at[6] : at[7]].reshape((s.p, s.p)),
        data[at[7] : at[8]].view(np.float32)[: d * d].reshape((d, d)),
        data[at[8] : at[9]],
        data[at[9] : at[10]].reshape((s.scales, s.scales)),
        data[at[10] : at[11]],
        data[at[11] : at[12]],
        data[at[12] : at[13]].reshape((s.p, 3)),
        data[at[13] : at[14]].reshape((s.priors, 3)),
        data[at[14] : at[15]],
        data[at[15] : at[16]],
        data[at[16] : at[17]],
        data[at[17] : at[18]].reshape((s.p, s.effects)),
        data[at[18] : at[19]],
        data[at[19] : at[20]],
    )


@njit(cache=True, nogil=True, error_model="numpy")
def integers_of(ints):
    """The integers by name."""
    s, at = sizes_of(ints), ints[_SIZES + _FLOATS + 1 :]
    return Integers(
        ints[at[0] : at[1]].reshape((s.terms, 9)),
        ints[at[1] : at[2]],
        ints[at[2] : at[3]].reshape((s.couplings, 5)),
        ints[at[3] : at[4]],
        ints[at[4] : at[5]],
        ints[at[5] : at[6]].reshape((s.terms, 4)),
        ints[at[6] : at[7]],
        ints[at[7] : at[8]],
    )


@njit(cache=True, nogil=True, error_model="numpy")
def levels_of(ints, index):
    """(terms, n) level of every row."""
    s = sizes_of(ints)
    return index.view(np.int32)[: s.terms * s.n].reshape((s.terms, s.n))


@njit(cache=True, nogil=True, error_model="numpy")
def room_of(ints):
    """How many numbers :func:`work_of` divides up."""
    s = sizes_of(ints)
    d = s.effects - s.leading + s.p
    small = 5 * s.scales + 4 * s.factors + 2 * s.p + 2 * d
    return small + 5 * s.effects + 2 * s.blocks + s.scratch + 3 * ROWS


@njit(cache=True, nogil=True, error_model="numpy")
def work_of(ints, room):
    """Working arrays by name, those that sums are gathered in set to zero."""
    s, w, a = sizes_of(ints), room, 0
    t, f, e, b, p = s.scales, s.factors, s.effects, s.blocks, s.p
    d = s.effects - s.leading + p
    t_bar, a = w[a : a + t], a + t
    precision_bar, a = w[a : a + f], a + f
    zeta_bar, a = w[a : a + d], a + d
    beta_bar, a = w[a : a + p], a + p
    b_bar, a = w[a : a + e], a + e
    for k in range(a):
        w[k] = 0.0
    first, a = w[a : a + t], a + t
    natural, a = w[a : a + t], a + t
    along, a = w[a : a + t], a + t
    turn, a = w[a : a + t], a + t
    factors, a = w[a : a + f], a + f
    inverses, a = w[a : a + f], a + f
    precision, a = w[a : a + f], a + f
    zeta, a = w[a : a + d], a + d
    beta, a = w[a : a + p], a + p
    effects, a = w[a : a + e], a + e
    y, a = w[a : a + e], a + e
    raw, a = w[a : a + e], a + e
    blocks, a = w[a : a + b], a + b
    r_bar, a = w[a : a + e], a + e
    blocks_bar, a = w[a : a + b], a + b
    scratch, a = w[a : a + s.scratch], a + s.scratch
    return Work(
        *(first, natural, along, turn, factors, inverses, precision, zeta, beta, effects),
        *(y, raw, blocks),
        *(t_bar, precision_bar, zeta_bar, beta_bar, b_bar, r_bar, blocks_bar),
        *(scratch, w[a : a + ROWS], w[a + ROWS : a + 2 * ROWS], w[a + 2 * ROWS : a + 3 * ROWS]),
    )
