"""Columns so nearly collinear that the estimate of each by itself says little.

The engines standardise columns, so no digits are lost; but a coefficient then describes a value
that no row is near, such as a herd in the year 0, and its prior and its standard error with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayesglmm.design.fixed import INTERCEPT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayesglmm.design.design import Design

__all__ = ["collinear"]

_INFLATION = 100.0  # of a standard error: a variance-inflation factor of 10 000
_REDUNDANT = 1e7  # one column is the others' combination, to rounding
_CONSTANT = 1e-8
_ROWS = 1 << 16
_REMEDY = (
    "Centre the covariates, as in I(year - 2010) or center(x), use poly(x, 2) for powers, or "
    "leave one out"
)


def collinear(design: Design) -> tuple[str, ...]:
    """What is nearly collinear in the fixed part, and in each random-effects term, in words.

    Parameters
    ----------
    design
        Of the model.

    Returns
    -------
    tuple of str
        A sentence, with the remedy, for each part in which a column's standard error is inflated
        100 times or more: in the fixed part by columns other than the intercept (the root of the
        usual variance-inflation factor), in a term (year | g) by all its columns.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> data = {"y": [3.0, 1.0, 2.0, 5.0, 4.0], "t": [2001, 2002, 2003, 2004, 2005]}
    >>> collinear(bg.lm("y ~ t", data).design)
    ()
    """
    said = [_sentence("", *_fixed(design))]
    for factor in dict.fromkeys(term.factor for term in design.random):
        terms = [term for term in design.random if term.factor == factor]
        names = tuple(name for term in terms for name in term.columns)
        if len(names) > 1:
            gram = _cross_products([term.Z for term in terms], np.zeros(len(names)))
            said.append(_sentence(f" by {factor}", names, _inflation(gram)))
    return tuple(filter(None, said))


def _fixed(design: Design) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """The columns beside a constant, and their inflation.

    Without an intercept, the first column that the constant needs (of a factor's levels) stands
    for it: the model is the same.
    """
    X, names = design.X, design.names
    if not names:
        return (), np.zeros(0)
    if INTERCEPT in names:
        k = names.index(INTERCEPT)
    else:
        weights = np.linalg.lstsq(X, np.ones(design.n), rcond=None)[0]
        if np.abs(X @ weights - 1.0).max() > _CONSTANT:
            return names, _inflation(_cross_products([X], np.zeros(design.p)))
        k = int(np.argmax(np.abs(weights) * np.abs(X).max(axis=0) > _CONSTANT))
    # Centred first: differences of cross-products would lose the digits of time stamps.
    gram = _cross_products([X], X.mean(axis=0))
    gram = np.delete(np.delete(gram, k, axis=0), k, axis=1)
    return names[:k] + names[k + 1 :], _inflation(gram)


def _cross_products(
    parts: list[NDArray[np.float64]], origin: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Of the columns less their origins, a few rows at a time."""
    gram = np.zeros((len(origin), len(origin)))
    for first in range(0, len(parts[0]), _ROWS):
        rows = np.concatenate([part[first : first + _ROWS] for part in parts], axis=1) - origin
        gram += rows.T @ rows
    return gram


def _sentence(by: str, names: tuple[str, ...], inflation: NDArray[np.float64]) -> str:
    high = np.flatnonzero(inflation > _INFLATION)
    if not high.size:
        return ""
    shown = ", ".join(names[k] for k in high[:5]) + (", …" if high.size > 5 else "")
    worst = float(inflation.max())
    times = f"{worst:.0f}" if worst < 1e6 else "over a million"
    what = (
        "their sds and correlations mean little one by one"
        if by
        else f"their standard errors are up to {times} times what they would be alone"
    )
    return f"Nearly collinear{by}: {shown}: {what}. {_REMEDY}"


def _inflation(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K,) how many times each column is longer than its distance from the span of the others."""
    out, size = np.ones(len(gram)), np.sqrt(np.diag(gram))
    there = np.flatnonzero(size > 0.0)
    unit = gram[np.ix_(there, there)] / np.outer(size[there], size[there])
    try:
        root = np.linalg.inv(np.linalg.cholesky(unit))
    except np.linalg.LinAlgError:  # redundant: that is said elsewhere
        return out
    inflation = np.sqrt(np.einsum("ij,ij->j", root, root))
    out[there] = np.where(inflation < _REDUNDANT, inflation, 1.0)
    return out
