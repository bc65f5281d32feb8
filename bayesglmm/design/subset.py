"""A design with some of its rows: the same columns, so that coefficients keep their meaning."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bayesglmm.design.design import Design
from bayesglmm.design.grouped import RandomTerm
from bayesglmm.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["subset"]


def subset(design: Design, keep: NDArray[np.bool_]) -> Design:
    """Keep some of the n rows.

    Splines, centres and polynomials stay those of all rows. Levels of a grouping factor without
    rows disappear.

    Parameters
    ----------
    keep
        (n,) which rows of the design to keep.

    Raises
    ------
    DataError
        If a coefficient or the variance of a grouping factor cannot be estimated from the rows
        kept; the message names it.

    Examples
    --------
    >>> from bayesglmm.design import build
    >>> from bayesglmm.formula import parse
    >>> d = build(parse("y ~ x + (1|g)"), {"y": [1, 2, 4], "x": [0, 1, 2], "g": list("abc")})
    >>> subset(d, np.array([True, False, True])).random[0].levels
    ('a', 'c')
    """
    part = rows_of(design, keep)
    _check_rank(part.X, part.names)
    for term in part.random:
        if term.J < 2:
            raise DataError(f"grouping factor {term.factor!r} has one level left")
    return part


def rows_of(design: Design, keep: NDArray[np.bool_]) -> Design:
    """The same, without asking whether a model could be fitted to them."""
    X = design.X[keep]
    X.setflags(write=False)
    return replace(
        design,
        response=replace(design.response, y=design.y[keep], trials=design.trials[keep]),
        X=X,
        random=tuple(_levels_of(term, keep) for term in design.random),
        offset=design.offset[keep],
        weights=design.weights[keep],
        rows=design.rows[keep],
        data=design.data.filter(keep),
    )


def _levels_of(term: RandomTerm, keep: NDArray[np.bool_]) -> RandomTerm:
    left, index = np.unique(term.index[keep], return_inverse=True)
    return replace(
        term,
        levels=tuple(term.levels[j] for j in left),
        index=index.astype(np.intp).reshape(-1),
        Z=term.Z[keep],
        _observed=term._observed[left],
    )


def _check_rank(X: NDArray[np.float64], names: tuple[str, ...]) -> None:
    """Refuse columns that are combinations of those before them."""
    n, p = X.shape
    if p == 0:
        return
    if n < p:
        raise DataError(f"{n} rows left for {p} coefficients")
    size = np.sqrt(np.einsum("ij,ij->j", X, X))
    R = np.linalg.qr(X / np.where(size > 0, size, 1.0), mode="r")
    lost = [name for name, d in zip(names, np.abs(np.diag(R)), strict=True) if d <= 1e-8]
    if lost:
        raise DataError(f"{', '.join(lost)} cannot be estimated from the rows left")
