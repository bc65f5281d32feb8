"""Transformations of columns, as polars expressions."""

from __future__ import annotations

from typing import Literal

import polars as pl

__all__ = ["center", "logit2odds", "logit2prob", "rank", "scale", "zscore"]

Ties = Literal["average", "min", "max", "dense", "ordinal"]


def _expression(column: pl.Expr | str) -> pl.Expr:
    return pl.col(column) if isinstance(column, str) else column


def center(expr: pl.Expr | str) -> pl.Expr:
    """Subtract the mean.

    Examples
    --------
    >>> pl.DataFrame({"x": [1.0, 2.0, 6.0]}).select(center("x"))["x"].to_list()
    [-2.0, -1.0, 3.0]
    """
    column = _expression(expr)
    return column - column.mean()


def scale(expr: pl.Expr | str) -> pl.Expr:
    """Divide by the standard deviation (n - 1 in its denominator).

    Examples
    --------
    >>> pl.DataFrame({"x": [1.0, 3.0, 5.0]}).select(scale("x"))["x"].to_list()
    [0.5, 1.5, 2.5]
    """
    column = _expression(expr)
    return column / column.std()


def zscore(expr: pl.Expr | str) -> pl.Expr:
    """Subtract the mean, then divide by the standard deviation.

    Examples
    --------
    >>> pl.DataFrame({"x": [1.0, 3.0, 5.0]}).select(zscore("x"))["x"].to_list()
    [-1.0, 0.0, 1.0]
    """
    column = _expression(expr)
    return (column - column.mean()) / column.std()


def rank(expr: pl.Expr | str, method: Ties = "average", descending: bool = False) -> pl.Expr:
    """Replace values by their ranks, ties sharing the average rank.

    Examples
    --------
    >>> pl.DataFrame({"x": [10, 30, 10]}).select(rank("x"))["x"].to_list()
    [1.5, 3.0, 1.5]
    """
    return _expression(expr).rank(method, descending=descending)


def logit2odds(expr: pl.Expr | str) -> pl.Expr:
    """Turn log-odds into odds.

    Examples
    --------
    >>> pl.DataFrame({"x": [0.0]}).select(logit2odds("x"))["x"].to_list()
    [1.0]
    """
    return _expression(expr).exp()


def logit2prob(expr: pl.Expr | str) -> pl.Expr:
    """Turn log-odds into probabilities; large ones do not overflow.

    Examples
    --------
    >>> pl.DataFrame({"x": [0.0, 800.0]}).select(logit2prob("x"))["x"].to_list()
    [0.5, 1.0]
    """
    # As a power rather than a quotient, so that the column keeps its name.
    return ((-_expression(expr)).exp() + 1.0).pow(-1.0)
