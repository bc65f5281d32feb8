"""wald_test(): any linear hypothesis about the coefficients, written out or as a matrix."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesglmm.errors import ChoiceError, DataError, FormulaError, check_choice, nearest
from bayesglmm.laplace.joint import joint_test
from bayesglmm.post.submodels import estimate_of
from bayesglmm.post.tables import scale
from bayesglmm.post.term_tests import choose_test, describe, result_columns
from bayesglmm.tables.table import Table, table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

Array = NDArray[np.float64]

_DECIMAL = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_NUMBER = f"{_DECIMAL}(?:/{_DECIMAL})?"


def wald_test(
    fit: Fit,
    hypotheses: str | Sequence[str] | ArrayLike,
    *,
    rhs: ArrayLike = 0.0,
    test: Literal["auto", "F", "wald"] = "auto",
) -> Table:
    """Joint test of linear hypotheses about the coefficients (car's ``linearHypothesis``).

    Parameters
    ----------
    fit
        By maximum likelihood.
    hypotheses
        An equation, or several to be tested together: ``"sexmale = 0"``, ``["a = b",
        "2*a - c = 1"]``, with the names of ``params``; an expression without ``=`` is set to
        zero. Or weights on the coefficients, (p,) or (m, p), link scale.
    rhs
        What the weighted sums are under the hypothesis, for weights: a number or (m,).
    test
        ``"F"`` with the degrees of freedom of the fit, ``"wald"`` (chi-square), or ``"auto"``:
        F where there are any.

    Returns
    -------
    Table
        One row: ``hypothesis``, then ``num_df, den_df, f_stat, p_value`` or ``chi_square, df,
        p_value``. Redundant equations do not count.

    Raises
    ------
    FormulaError
        For an equation that cannot be read, with a caret under the place.
    DataError
        For weights of the wrong shape, and equations that contradict each other.
    ChoiceError
        For a fit by NUTS, or F without degrees of freedom.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> fit = bg.lm("mpg ~ wt + hp + qsec", bg.load_dataset("mtcars")).fit()
    >>> bg.wald_test(fit, ["hp = 0", "qsec = 0"])["f_stat"].round(3).to_list()
    [6.942]
    """
    check_choice("test", test, ("auto", "F", "wald"))
    estimate = estimate_of(fit, "wald_test")
    names = fit.model.design.names
    L, right = _matrix(hypotheses, rhs, names)
    _check_consistent(L, right)
    chosen = choose_test(fit, test, "wald_test")
    result = joint_test(estimate, L, right, asymptotic=chosen == "wald")
    columns = result_columns(fit, [result])
    written = ", ".join(_written(row, value, names) for row, value in zip(L, right, strict=True))
    return table(
        {
            "hypothesis": [written],
            **{k: v for k, v in columns.items() if k not in ("sum_sq", "mean_sq")},
        },
        f"Linear hypothesis · {fit.method} · {scale(fit)} · {describe(fit, chosen)}",
    )


def _matrix(
    hypotheses: str | Sequence[str] | ArrayLike, rhs: ArrayLike, names: Sequence[str]
) -> tuple[Array, Array]:
    texts = [hypotheses] if isinstance(hypotheses, str) else hypotheses
    if isinstance(texts, Sequence) and texts and all(isinstance(t, str) for t in texts):
        if np.any(np.asarray(rhs) != 0.0):
            raise ChoiceError(
                "rhs belongs to weights; write it into the equation, e.g. 'sexmale = 1'"
            )
        rows = [read_equation(str(text), names) for text in texts]
        return np.array([row for row, _ in rows]), np.array([value for _, value in rows])
    try:
        L = np.atleast_2d(np.asarray(hypotheses, dtype=np.float64))
        right = np.asarray(rhs, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(
            "hypotheses are equations such as 'sexmale = 0', or a matrix of weights on the "
            f"coefficients ({', '.join(names)})"
        ) from None
    if L.ndim != 2 or L.shape[1] != len(names) or not len(L) or not np.all(np.isfinite(L)):
        raise DataError(
            f"hypotheses has shape {np.shape(hypotheses)}; give finite weights, a column for each "
            f"of the {len(names)} coefficients: {', '.join(names)}"
        )
    if right.ndim > 1 or right.size not in (1, len(L)) or not np.all(np.isfinite(right)):
        raise DataError(f"rhs={rhs!r}: give one finite number, or one for each of {len(L)} rows")
    return L, np.broadcast_to(right, len(L)).astype(np.float64)


def _check_consistent(L: Array, right: Array) -> None:
    if not np.any(L, axis=1).all():
        raise DataError("a hypothesis has no coefficient in it, so there is nothing to test")
    solution = np.linalg.lstsq(L, right, rcond=None)[0]
    if np.max(np.abs(L @ solution - right)) > 1e-8 * max(1.0, float(np.max(np.abs(right)))):
        raise DataError("the hypotheses contradict each other: no coefficients satisfy them all")


def read_equation(
    text: str, names: Sequence[str], what: str = "coefficient"
) -> tuple[Array, float]:
    """Weights (p,) and right-hand side of an equation in the coefficients.

    ``what`` the names are is for messages.

    Examples
    --------
    >>> row, value = read_equation("2*age = sexmale + 1", ["(Intercept)", "age", "sexmale"])
    >>> row.tolist(), value
    ([0.0, 2.0, -1.0], 1.0)
    """
    # Longest first, so that sexmale:age is not read as sexmale. Names may hold an equals sign.
    known = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    term = re.compile(
        rf"\s*(?P<sign>[-+]?)\s*(?:(?:(?P<factor>{_NUMBER})\s*\*?\s*)?(?P<name>{known})(?![\w.:])"
        rf"|(?P<constant>{_NUMBER}))\s*"
    )
    row, constant = np.zeros(len(names)), 0.0
    side, position, first = 1.0, 0, True
    while position < len(text.rstrip()):
        found = term.match(text, position)
        if found is None or not (first or found["sign"]):
            problem = "" if found is None else "+, - or = is missing"
            if text[position - 1 : position + 1] == "==":
                problem = "an equation is written with one '='"
            raise _unreadable(text, position, names, problem, what)
        weight = side * (-1.0 if found["sign"] == "-" else 1.0)
        if found["name"]:
            row[list(names).index(found["name"])] += weight * _value(found["factor"] or "1")
        else:
            constant += weight * _value(found["constant"])
        position, first = found.end(), False
        if text[position : position + 1] == "=":
            if side < 0.0:
                problem = "an equation has one '='; give several equations as a list"
                raise _unreadable(text, position, names, problem, what)
            side, position, first = -1.0, position + 1, True
    if first:
        raise _unreadable(text, len(text) - 1, names, "the equation breaks off", what)
    return row, 0.0 - constant


def _value(number: str) -> float:
    top, _, bottom = number.partition("/")
    return float(top) / float(bottom or 1.0)


def _unreadable(
    text: str, position: int, names: Sequence[str], problem: str, what: str
) -> FormulaError:
    """An error that points at the place; without a problem, at what is no coefficient."""
    sign = text[position:].lstrip()[:1]
    if not problem and sign and sign in "^*/()!":
        problem = f"{sign!r} cannot stand here: give a sum of {what}s, each times a number"
    word = re.compile(r"[-+*\s\d]*([^\s=+*-]*)").match(text, position)
    if not problem and word is not None and word[1] and word[1] not in names:
        hint = nearest(word[1], names) or f"; there are {', '.join(names)}"
        problem, position = f"{word[1]!r} is not a {what}{hint}", word.start(1)
    return FormulaError(problem or f"a number or a {what} is expected here", text, position)


def _written(row: Array, value: float, names: Sequence[str]) -> str:
    """``2*age - sexmale = 1``."""
    parts: list[str] = []
    for weight, name in zip(row, names, strict=True):
        if weight == 0.0:
            continue
        size = "" if abs(weight) == 1.0 else f"{abs(weight):.4g}*"
        lead = ("-" if weight < 0 else "") if not parts else ("- " if weight < 0 else "+ ")
        parts.append(f"{lead}{size}{name}")
    return f"{' '.join(parts)} = {value:g}"
