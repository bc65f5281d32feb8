"""Columns of X that are combinations of earlier ones, and what can be estimated all the same.

As R does, a column that the columns before it span is left out of the fit. A linear function l of
all coefficients keeps its meaning if it is in the row space of the whole X, that is if l'N = 0
for the null space N of X; the columns of N are read off the combinations (Searle 1971, *Linear
Models*, section 5.4; the rule of R's package estimability).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Aliasing", "find_aliasing"]

# A column whose distance from the span of those before it, relative to its length, is below this
# is a combination of them; R has 1e-7 in lm and lmer, 1e-11 in glm.
_TOLERANCE = 1e-8
_CLEAR = 1e-5
# Relative size of l'N that counts as rounding.
_ESTIMABLE = 1e-6
_ROWS = 1 << 16  # rows factorised at a time
_PARTS = 8  # of a combination that are spelt out


@dataclass(frozen=True, eq=False)
class Aliasing:
    """Which columns of X are estimated, and of which of them the others are combinations.

    Attributes
    ----------
    names
        R's names of all p + d columns that the formula makes, in order.
    kept
        (p,) positions of the columns that are estimated.
    dropped
        (d,) positions of those that are combinations of earlier kept ones.
    weights
        (p, d): the dropped columns are the kept ones times this.

    Examples
    --------
    >>> x = np.array([0.0, 1.0, 2.0])
    >>> a = find_aliasing(np.column_stack([np.ones(3), x, 2 * x]), ("(Intercept)", "x", "x2"))
    >>> a.describe()
    ('x2 = 2 x',)
    >>> a.estimable(np.array([[1.0, 1.0, 2.0], [1.0, 1.0, 0.0]])).tolist()
    [True, False]
    """

    names: tuple[str, ...]
    kept: NDArray[np.intp]
    dropped: NDArray[np.intp]
    weights: NDArray[np.float64]

    @staticmethod
    def none(names: tuple[str, ...]) -> Aliasing:
        """Every column is estimated."""
        every = np.arange(len(names))
        return Aliasing(names, every, every[:0], np.zeros((len(names), 0)))

    def __bool__(self) -> bool:
        """Whether any column is left out."""
        return bool(self.dropped.size)

    def estimable(self, functions: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether each linear function of the coefficients of all columns can be estimated.

        Parameters
        ----------
        functions
            (m, p + d) weights on the coefficients of all columns, e.g. rows of X for new data.

        Returns
        -------
        ndarray of bool, (m,)
            True where the function is in the row space of X: then its weights on the kept
            columns alone give its value.
        """
        if not self:
            return np.ones(len(functions), dtype=bool)
        left, right = functions[:, self.dropped], functions[:, self.kept]
        excess = np.abs(left - right @ self.weights)
        size = np.abs(left) + np.abs(right) @ np.abs(self.weights)
        return np.asarray(~(excess > _ESTIMABLE * size).any(axis=1))

    def reduced(self, functions: NDArray[np.float64]) -> NDArray[np.float64]:
        """The weights on the kept columns, (m, p)."""
        return functions[:, self.kept] if self else functions

    def describe(self) -> tuple[str, ...]:
        """For each dropped column, in words, of what it is a combination."""
        out = []
        for j, weights in zip(self.dropped, self.weights.T, strict=True):
            used = np.flatnonzero(np.abs(weights) > 1e-7 * np.abs(weights).max(initial=0.0))
            if used.size:
                parts = [(weights[k], self.names[self.kept[k]]) for k in used]
                out.append(f"{self.names[j]} = {_combination(parts)}")
            else:
                out.append(f"{self.names[j]} = 0 in every row")
        return tuple(out)


def find_aliasing(X: NDArray[np.float64], names: tuple[str, ...]) -> Aliasing:
    """Find the columns that are combinations of earlier ones.

    Parameters
    ----------
    X
        (n, p + d) columns; n may be smaller than their number.
    names
        Their names.

    Returns
    -------
    Aliasing
        The kept columns are R's: walking from left to right, a column stays if it adds to the
        span. Neither units nor the order of rows matter.
    """
    count = X.shape[1]
    gram = X.T @ X
    size = np.sqrt(np.diag(gram))
    unit = np.where(size > 0, size, 1.0)
    with contextlib.suppress(np.linalg.LinAlgError):
        # A pivot is the distance of a column from those before it. Cross-products know half of
        # its digits: that is enough to say that it is not small.
        if np.diag(np.linalg.cholesky(gram / np.outer(unit, unit))).min(initial=1.0) > _CLEAR:
            return Aliasing.none(names)
    # Column k of the triangle has the same inner products as column k of X, scaled to length one.
    triangle = _triangle(X) / unit
    if len(triangle) == count and np.abs(np.diag(triangle)).min(initial=1.0) > _TOLERANCE:
        return Aliasing.none(names)
    basis = np.zeros((len(triangle), 0))
    kept: list[int] = []
    dropped: list[int] = []
    for j in range(count):
        rest = triangle[:, j]
        for _ in range(2):  # the second pass removes what rounding left of the first
            rest = rest - basis @ (basis.T @ rest)
        length = float(np.linalg.norm(rest))
        if length > _TOLERANCE:
            basis = np.column_stack([basis, rest / length])
            kept.append(j)
        else:
            dropped.append(j)
    weights = np.linalg.lstsq(triangle[:, kept], triangle[:, dropped], rcond=None)[0]
    later = np.array(kept)[:, None] > np.array(dropped)[None, :]
    weights[later | (np.abs(weights) < 1e-7)] = 0.0  # only earlier columns, without rounding
    weights *= size[dropped] / size[kept][:, None]
    near = np.round(weights)  # 1, not 0.9999999999999998
    weights = np.where(np.abs(weights - near) < 1e-9 * np.abs(near), near, weights)
    return Aliasing(names, np.array(kept, np.intp), np.array(dropped, np.intp), weights)


def _triangle(X: NDArray[np.float64]) -> NDArray[np.float64]:
    """R of X = QR, a block of rows at a time, so that X is never copied whole."""
    out = X[:0]
    for start in range(0, len(X), _ROWS):
        out = np.linalg.qr(np.vstack([out, X[start : start + _ROWS]]), mode="r")
    return np.asarray(out)


def _combination(parts: list[tuple[float, str]]) -> str:
    """``2 x - z`` for weights 2 and -1."""
    text = ""
    for weight, name in parts[:_PARTS]:
        size = "" if abs(abs(weight) - 1.0) < 1e-9 else f"{abs(weight):.4g} "
        sign = ("-" if weight < 0 else "") if not text else (" - " if weight < 0 else " + ")
        text += f"{sign}{size}{name}"
    return text + (" + …" if len(parts) > _PARTS else "")
