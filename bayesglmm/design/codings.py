"""Codings of factors: L levels become L - 1 columns, and each column has an R-style name.

A coding has two faces. Its *coding matrix* C (L rows, L - 1 columns) is what enters X. Its
*hypothesis matrix* H = [1 C]^-1 says what each coefficient means: row k of H holds the weights on
the L cell means that coefficient k estimates. People think in H and software wants C, so
`Hypotheses` takes weights and inverts them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from bayesglmm.errors import ChoiceError, DataError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CODINGS",
    "Coding",
    "Effects",
    "Helmert",
    "Hypotheses",
    "Poly",
    "Sdif",
    "Sum",
    "Treatment",
    "coding_of",
    "hypothesis_matrix",
]

Levels = tuple[str, ...]


@runtime_checkable
class Coding(Protocol):
    """What every coding can do."""

    def matrix(self, levels: Levels) -> NDArray[np.float64]:
        """Coding matrix, (L, L - 1)."""
        ...

    def names(self, levels: Levels) -> tuple[str, ...]:
        """Suffixes of the L - 1 column names."""
        ...


@dataclass(frozen=True, slots=True)
class Treatment:
    """Each level against a base (R's contr.treatment, MixedModels' DummyCoding).

    Attributes
    ----------
    base
        The level that gets no column; the first when empty.

    Examples
    --------
    >>> Treatment(base="b").names(("a", "b", "c"))
    ('a', 'c')
    """

    base: str = ""

    def matrix(self, levels: Levels) -> NDArray[np.float64]:
        """Coding matrix, (L, L - 1): the identity without the base's column."""
        return np.delete(np.eye(len(levels)), self._base(levels), axis=1)

    def names(self, levels: Levels) -> tuple[str, ...]:
        """Every level but the base."""
        base = self._base(levels)
        return tuple(v for i, v in enumerate(levels) if i != base)

    def _base(self, levels: Levels) -> int:
        return _position(self.base, levels, default=0, who="Treatment")


@dataclass(frozen=True, slots=True)
class Sum:
    """Deviations from the mean of the levels, last level -1 (R's contr.sum).

    Examples
    --------
    >>> Sum().matrix(("a", "b", "c"))
    array([[ 1.,  0.],
           [ 0.,  1.],
           [-1., -1.]])
    """

    def matrix(self, levels: Levels) -> NDArray[np.float64]:
        """Coding matrix, (L, L - 1)."""
        size = len(levels)
        return np.vstack([np.eye(size - 1), -np.ones((1, size - 1))])

    def names(self, levels: Levels) -> tuple[str, ...]:
        """Running numbers, as R."""
        return _counted(levels)


@dataclass(frozen=True, slots=True)
class Effects:
    """Deviations from the mean of the levels, base -1 (MixedModels' EffectsCoding).

    Attributes
    ----------
    base
        The level coded -1; the first when empty.

    Examples
    --------
    >>> Effects().matrix(("a", "b", "c"))
    array([[-1., -1.],
           [ 1.,  0.],
           [ 0.,  1.]])
    """

    base: str = ""

    def matrix(self, levels: Levels) -> NDArray[np.float64]:
        """Coding matrix, (L, L - 1)."""
        base = _position(self.base, levels, default=0, who="Effects")
        coding = np.delete(np.eye(len(levels)), base, axis=1)
        coding[base] = -1.0
        return coding

    def names(self, levels: Levels) -> tuple[str, ...]:
        """Every level but the base."""
        return Treatment(self.base).names(levels)


@dataclass(frozen=True, slots=True)
class Helmert:
    """Each level against the mean of those before it, unscaled (R's contr.helmert).

    Examples
    --------
    >>> Helmert().matrix(("a", "b", "c"))
    array([[-1., -1.],
           [ 1., -1.],
           [ 0.,  2.]])
    """

    def matrix(self, levels: Levels) -> NDArray[np.float64]:
        """Coding matrix, (L, L - 1)."""
        size = len(levels)
        coding = np.triu(-np.ones((size, size - 1)))
        below = np.arange(1, size)
        coding[below, below - 1] = below
        return coding

    def names(self, levels: Levels) -> tuple[str, ...]:
        """Running numbers, as R."""
        return _counted(levels)


@dataclass(frozen=True, slots=True)
class Poly:
    """Orthonormal polynomials in the level's position (R's contr.poly).

    Examples
    --------
    >>> Poly().names(("a", "b", "c", "d", "e"))
    ('.L', '.Q', '.C', '^4')
    """

    def matrix(self, levels: Levels) -> NDArray[np.float64]:
        """Coding matrix, (L, L - 1), columns of length one."""
        size = len(levels)
        score = np.arange(size) - (size - 1) / 2
        basis, triangle = np.linalg.qr(np.vander(score, size, increasing=True))
        signed = basis * np.sign(np.diag(triangle))
        return np.ascontiguousarray(signed[:, 1:])

    def names(self, levels: Levels) -> tuple[str, ...]:
        """Linear, quadratic, cubic, then powers."""
        first = (".L", ".Q", ".C")
        return tuple(first[k] if k < 3 else f"^{k + 1}" for k in range(len(levels) - 1))


@dataclass(frozen=True, slots=True)
class Sdif:
    """Successive differences between neighbouring levels (contr.sdif of R's MASS).

    Examples
    --------
    >>> Sdif().names(("1", "2", "3"))
    ('2-1', '3-2')
    """

    def matrix(self, levels: Levels) -> NDArray[np.float64]:
        """Coding matrix, (L, L - 1)."""
        size = len(levels)
        row, col = np.mgrid[1 : size + 1, 1:size]
        coding: NDArray[np.float64] = np.where(row > col, col, col - size) / size
        return coding

    def names(self, levels: Levels) -> tuple[str, ...]:
        """Upper level minus lower level."""
        return tuple(f"{b}-{a}" for a, b in itertools.pairwise(levels))


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """Contrasts written as weights on the level means.

    Attributes
    ----------
    weights
        k rows (k at most L - 1), each with one weight for every level, summing to zero.
    labels
        k names; running numbers when empty.

    Notes
    -----
    The coefficient of row k estimates exactly the weighted sum of the level means. With fewer
    than L - 1 rows the space is completed by orthonormal contrasts orthogonal to the given ones,
    named by running numbers, so the model still has a mean for every level. The intercept is the
    unweighted mean of the level means.

    Examples
    --------
    >>> two = Hypotheses(((-1, 1),), ("late_minus_early",))
    >>> two.matrix(("early", "late")).ravel().tolist()
    [-0.5, 0.5]
    """

    weights: tuple[tuple[float, ...], ...]
    labels: tuple[str, ...] = ()

    def matrix(self, levels: Levels) -> NDArray[np.float64]:
        """Coding matrix, (L, L - 1)."""
        size = len(levels)
        given = self._checked(levels)
        top = np.vstack([np.full((1, size), 1.0 / size), given])
        # The rows of V' beyond the rank span what the given contrasts leave out.
        *_, basis = np.linalg.svd(np.vstack([np.ones((1, size)), given]))
        rest = basis[len(top) :]
        if len(rest):
            biggest = np.abs(rest).argmax(axis=1)
            rest = rest * np.sign(rest[np.arange(len(rest)), biggest])[:, None]
        return np.ascontiguousarray(np.linalg.inv(np.vstack([top, rest]))[:, 1:])

    def names(self, levels: Levels) -> tuple[str, ...]:
        """The given labels, then running numbers."""
        counted = _counted(levels)
        return self.labels + counted[len(self.labels) :]

    def _checked(self, levels: Levels) -> NDArray[np.float64]:
        size = len(levels)
        given = np.array(self.weights, dtype=np.float64)
        if given.ndim != 2 or given.shape[1] != size:
            widths = sorted({len(w) for w in self.weights})
            raise DataError(
                f"a contrast over the levels {', '.join(levels)} needs {size} weights, "
                f"one for each level; got {widths}"
            )
        if len(given) > size - 1:
            raise DataError(f"{size} levels allow at most {size - 1} contrasts; got {len(given)}")
        if not np.isfinite(given).all():
            raise DataError("contrast weights must be finite")
        for k, row in enumerate(given):
            if abs(row.sum()) > 1e-9 * np.abs(row).sum():
                label = self.names(levels)[k]
                raise DataError(
                    f"the weights of contrast {label!r} sum to {row.sum():g}; weights on level "
                    "means must sum to zero"
                )
        if np.linalg.matrix_rank(given) < len(given):
            raise DataError("the contrasts are not independent: one is a combination of the rest")
        return given


CODINGS: Mapping[str, Coding] = MappingProxyType(
    {
        "treatment": Treatment(),
        "sum": Sum(),
        "effects": Effects(),
        "helmert": Helmert(),
        "poly": Poly(),
        "sdif": Sdif(),
    }
)


def coding_of(value: object, levels: Levels, column: str = "x") -> Coding:
    """Read what a user put into ``contrasts=``.

    Parameters
    ----------
    value
        A name (``"helmert"``, R's ``"contr.helmert"``), a coding record, weights on the level
        means (k x L, or one row of L), or a dict of contrast names to weights; weights may be a
        dict of levels to numbers, levels left out counting zero.
    levels
        The factor's levels in order, L of them.
    column
        The factor's name, for messages.

    Returns
    -------
    Coding
        A record with `matrix` and `names`.

    Raises
    ------
    ChoiceError
        For an unknown name; suggests the nearest.
    DataError
        For weights that do not fit the levels.

    Examples
    --------
    >>> coding_of("contr.sum", ("a", "b"))
    Sum()
    >>> coding_of({"b_a": {"a": -1, "b": 1}}, ("a", "b", "c")).names(("a", "b", "c"))
    ('b_a', '2')
    """
    if isinstance(value, str):
        found = CODINGS.get(value.removeprefix("contr.").casefold())
        if found is None:
            raise ChoiceError(
                f"contrasts[{column!r}]={value!r} is not known"
                f"{nearest(value.removeprefix('contr.'), CODINGS) or '.'} "
                f"Allowed: {', '.join(repr(c) for c in CODINGS)}, a coding record, or weights "
                "on the level means"
            )
        coding = found
    elif isinstance(value, type) and value in {type(c) for c in CODINGS.values()}:
        coding = value()  # Helmert for Helmert()
    elif isinstance(value, Coding):
        coding = value
    elif isinstance(value, Mapping) and all(np.isscalar(w) for w in value.values()):
        coding = Hypotheses((_weights(value, levels, column),))  # one contrast, by level
    elif isinstance(value, Mapping):
        rows = tuple(_weights(w, levels, column) for w in value.values())
        coding = Hypotheses(rows, tuple(str(k) for k in value))
    else:
        coding = _from_array(value, column)
    try:
        coding.matrix(levels)
    except DataError as problem:
        raise DataError(f"contrasts[{column!r}]: {problem}") from None
    return coding


def hypothesis_matrix(coding: Coding, levels: Levels) -> NDArray[np.float64]:
    """What the intercept and each coefficient estimate, as weights on the level means.

    Parameters
    ----------
    coding
        Any coding.
    levels
        L levels.

    Returns
    -------
    ndarray, (L, L)
        The inverse of [1 C]; the first row belongs to the intercept.

    Examples
    --------
    >>> hypothesis_matrix(Treatment(), ("a", "b")).tolist()
    [[1.0, 0.0], [-1.0, 1.0]]
    """
    coded = coding.matrix(levels)
    return np.linalg.inv(np.column_stack([np.ones(len(levels)), coded])) + 0.0


def _weights(row: object, levels: Levels, column: str) -> tuple[float, ...]:
    """One contrast: a sequence over levels, or a dict with zeros left out."""
    if isinstance(row, Mapping):
        unknown = [str(k) for k in row if str(k) not in levels]
        if unknown:
            raise DataError(
                f"contrasts[{column!r}]: {unknown[0]!r} is not a level"
                f"{nearest(unknown[0], levels)}; levels: {', '.join(levels)}"
            )
        named = {str(k): float(v) for k, v in row.items()}
        return tuple(named.get(v, 0.0) for v in levels)
    return _from_array(row, column).weights[0]


def _from_array(value: object, column: str) -> Hypotheses:
    try:
        array = np.atleast_2d(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        array = np.empty((0, 0, 0))
    if array.ndim != 2 or array.size == 0:
        raise ChoiceError(
            f"contrasts[{column!r}]={value!r} is not known. Allowed: "
            f"{', '.join(repr(c) for c in CODINGS)}, a coding record, or weights on the level "
            "means"
        )
    return Hypotheses(tuple(tuple(float(v) for v in row) for row in array))


def _counted(levels: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(k) for k in range(1, len(levels)))


def _position(level: str, levels: Levels, *, default: int, who: str) -> int:
    if not level:
        return default
    if level not in levels:
        raise DataError(
            f"{who}(base={level!r}): no such level{nearest(level, levels)}; "
            f"levels: {', '.join(levels)}"
        )
    return levels.index(level)
