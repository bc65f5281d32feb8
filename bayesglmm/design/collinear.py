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
    X, names = design.X, design.names
    gram = X.T @ X
    if INTERCEPT in names:
        k = names.index(INTERCEPT)
        gram = gram - np.outer(gram[k], gram[k]) / gram[k, k]
        gram = np.delete(np.delete(gram, k, axis=0), k, axis=1)
        names = names[:k] + names[k + 1 :]
    said = [_sentence("", names, _inflation(gram))]
    for term in design.random:
        if term.K > 1:
            said.append(_sentence(f" by {term.name}", term.columns, _inflation(term.Z.T @ term.Z)))
    return tuple(filter(None, said))


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
    size = np.sqrt(np.diag(gram))
    if not (size > 0.0).all():
        return np.ones(len(gram))
    try:
        root = np.linalg.inv(np.linalg.cholesky(gram / np.outer(size, size)))
    except np.linalg.LinAlgError:
        return np.full(len(gram), np.inf)
    return np.asarray(np.sqrt(np.einsum("ij,ij->j", root, root)))
