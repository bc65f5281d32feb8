"""The terms of a right-hand side, and the values of the expressions in them.

formulaic expands the algebra (``a*b``, ``(a+b)^2``) and supplies the transforms that remember
their state. Names, the order of terms and of variables within a term follow R.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import polars as pl

from bayesglmm.design.columns import column, find_name, is_text
from bayesglmm.design.factors import labels
from bayesglmm.errors import DataError, FormulaError, nearest

__all__ = ["Piece", "Term", "evaluate", "functions", "r_name", "read_terms", "variables"]

_WRAPPER = re.compile(r"^(?:C|factor)\((`[^`]+`|[^\W\d][\w.]*)(?:, (.+))?\)$")
_SYNTACTIC = re.compile(r"^(?:[^\W\d]|\.(?!\d))[\w.]*$")
_QUOTED = re.compile(r"(`[^`]*`|'[^']*'|\"[^\"]*\")")
_CONSTANTS: Mapping[str, object] = {"TRUE": True, "FALSE": False, "pi": np.pi, "np": np}


@dataclass(frozen=True, slots=True)
class Piece:
    """One variable of a term, in R's sense: a column, a factor or an expression.

    Attributes
    ----------
    name
        As R names it in coefficients: ``"age"``, ``"factor(year)"``, ``"I(age^2)"``.
    kind
        ``"column"``; ``"factor"`` for ``C(x)`` and ``factor(x)``; ``"expression"``.
    source
        The column's name, or the expression as Python.
    columns
        The columns it uses.
    coding
        The coding asked for inside ``C(x, sum)``; empty for none.
    """

    name: str
    kind: Literal["column", "factor", "expression"]
    source: str
    columns: tuple[str, ...]
    coding: str = ""


Term = tuple[Piece, ...]


@lru_cache(maxsize=1)
def functions() -> Mapping[str, Any]:
    """Every function a formula may call, by name.

    Examples
    --------
    >>> float(functions()["abs2"](3.0))
    9.0
    """
    from formulaic.transforms import TRANSFORMS

    plain = ("log", "log2", "log10", "log1p", "exp", "expm1", "sqrt", "abs", "sign", "floor")
    more = ("sin", "cos", "tan", "tanh", "ceil", "round", "minimum", "maximum", "where", "isin")
    kept = ("I", "scale", "center", "standardize", "poly", "bs")
    centred = {"cr": "cr", "cs": "cr", "cc": "cc"}
    return {
        **{name: getattr(np, name) for name in (*plain, *more)},
        **{name: TRANSFORMS[name] for name in kept},
        **{name: _centred(TRANSFORMS[target]) for name, target in centred.items()},
        "abs2": np.square,
        "logit": lambda p: np.log(p) - np.log1p(-np.asarray(p)),
    }


def _centred(spline: Any) -> Any:
    """A cubic regression spline that is centred unless told otherwise.

    formulaic's default basis contains the constant, which an intercept duplicates.
    """
    from formulaic.utils.stateful_transforms import stateful_transform

    @stateful_transform  # type: ignore[untyped-decorator, unused-ignore]
    def centred(
        x: Any,
        df: int | None = None,
        knots: Any = None,
        lower_bound: float | None = None,
        upper_bound: float | None = None,
        constraints: Any = "center",
        extrapolation: str = "extend",
        _state: Any = None,
    ) -> Any:
        return spline(
            x,
            df=df,
            knots=knots,
            lower_bound=lower_bound,
            upper_bound=upper_bound,
            constraints=constraints,
            extrapolation=extrapolation,
            _state=_state,
        )

    return centred


def read_terms(rhs: str, columns: Iterable[str], text: str = "") -> tuple[bool, tuple[Term, ...]]:
    """Expand a right-hand side into terms in R's order.

    Parameters
    ----------
    rhs
        As in `Formula.fixed` or `Bar.terms`; an intercept is implicit.
    columns
        The data's columns.
    text
        The whole formula, for error messages.

    Returns
    -------
    tuple
        Whether there is an intercept, and the terms: by number of variables, then as written.
        Within a term variables stand in the order in which the formula first names them.

    Raises
    ------
    FormulaError
        When formulaic cannot read it, or it calls an unknown function.
    DataError
        For an unknown column.

    Examples
    --------
    >>> intercept, terms = read_terms("b:a + a*b + I(a**2)", ["a", "b"])
    >>> intercept, [":".join(p.name for p in t) for t in terms]
    (True, ['a', 'b', 'I(a^2)', 'b:a'])
    """
    return _read_terms(rhs, tuple(columns), text)


@lru_cache(maxsize=256)
def _read_terms(rhs: str, known: tuple[str, ...], text: str) -> tuple[bool, tuple[Term, ...]]:
    if rhs in ("1", "0", "-1"):
        return rhs == "1", ()
    from formulaic import Formula
    from formulaic.parser.types import Factor

    try:
        parsed: Any = Formula(rhs, _ordering="none")
    except Exception as problem:
        reason = str(problem).strip().partition("\n")[0]
        raise FormulaError(f"{rhs!r} cannot be read: {reason}", text) from None
    if not hasattr(parsed, "required_variables") or not all(hasattr(t, "factors") for t in parsed):
        raise FormulaError(f"{rhs!r} is not a sum of terms", text)

    pieces: dict[str, Piece] = {}
    place: dict[str, int] = {}
    raw: list[list[str]] = []
    intercept = False
    for term in parsed:
        chosen = []
        for factor in term.factors:
            if factor.eval_method is Factor.EvalMethod.LITERAL:
                if len(term.factors) > 1:
                    raise FormulaError(
                        f"numbers cannot be multiplied in here; write I({factor.expr} * x)", text
                    )
                intercept = True
                continue
            if factor.expr not in pieces:
                lookup = factor.eval_method is Factor.EvalMethod.LOOKUP
                pieces[factor.expr] = _piece(factor.expr, lookup, known, text)
            start = getattr(factor.token, "source_start", None) or 0
            place[factor.expr] = min(start, place.get(factor.expr, start))
            chosen.append(factor.expr)
        if chosen:
            raw.append(chosen)
    terms = dict.fromkeys(
        tuple(pieces[e] for e in sorted(set(chosen), key=place.__getitem__)) for chosen in raw
    )
    return intercept, tuple(sorted(terms, key=len))


def _piece(expr: str, lookup: bool, known: tuple[str, ...], text: str) -> Piece:
    if lookup:
        _require(expr, known, text)
        return Piece(_quoted(expr), "column", expr, (expr,))
    wrapped = _WRAPPER.match(expr)
    if wrapped:
        name = wrapped.group(1).strip("`")
        _require(name, known, text)
        return Piece(r_name(expr), "factor", name, (name,), _coding_name(wrapped.group(2), text))
    source, used = variables(expr, known, text)
    return Piece(r_name(expr), "expression", source, used)


def _coding_name(argument: str | None, text: str) -> str:
    """The second argument of C(x, sum); only names of codings."""
    if not argument:
        return ""
    bare = argument.strip("'\"")
    if not re.fullmatch(r"[\w.]+", bare):
        raise FormulaError(
            f"C(x, {argument}) is not understood; give the coding as contrasts={{'x': ...}} and "
            "levels as factors={'x': [...]}",
            text,
            text.find("C("),
        )
    return bare


def _require(name: str, known: tuple[str, ...], text: str) -> None:
    if name not in known:
        if name in functions():
            raise FormulaError(
                f"{name} is a function; write {name}(x)", text, find_name(text, name)
            )
        column(pl.DataFrame(schema=dict.fromkeys(known, pl.Float64)), name, text)


def variables(expr: str, known: Iterable[str], text: str = "") -> tuple[str, tuple[str, ...]]:
    """Find the columns an expression uses.

    Parameters
    ----------
    expr
        A Python expression over columns and `functions`.
    known
        The data's columns.
    text
        The whole formula, for error messages.

    Returns
    -------
    tuple
        The expression with dotted column names quoted, and the columns it uses, sorted.

    Raises
    ------
    FormulaError
        For an unknown function, and for an expression Python cannot read.
    DataError
        For an unknown column.

    Examples
    --------
    >>> variables("log(x + 1)", ["x", "y"])
    ('log(x + 1)', ('x',))
    """
    from formulaic.utils.variables import get_required_variables

    names = tuple(known)
    for dotted in (c for c in names if "." in c and c in expr):
        pattern = rf"(?<![\w.`]){re.escape(dotted)}(?![\w.`])"
        expr = re.sub(pattern, f"`{dotted}`", expr)
    try:
        found = get_required_variables(expr, {})
    except SyntaxError:
        raise FormulaError(f"{expr!r} is not an expression", text) from None
    used = set()
    for variable in sorted(found):
        name = str(variable)
        root = name.split(".", 1)[0]
        if "callable" in {str(r.value) for r in variable.roles}:
            if root != "np" and name not in functions():
                raise FormulaError(
                    f"there is no function {name}(){nearest(name, functions())}",
                    text,
                    find_name(text, name),
                    len(name),
                )
        elif name in names or root in names:
            used.add(name if name in names else root)
        elif root not in _CONSTANTS and name not in functions():
            _require(name, names, text)
    return expr, tuple(sorted(used))


def evaluate(
    expr: str,
    used: Iterable[str],
    frame: pl.DataFrame,
    state: dict[str, Any],
    text: str = "",
) -> Any:
    """Evaluate an expression over the columns of a frame.

    Parameters
    ----------
    expr
        As returned by `variables`.
    used
        The columns it uses.
    frame
        The data, n rows, without missing values in those columns.
    state
        What the transforms remember (centres, knots); filled on first use, obeyed afterwards.
    text
        The whole formula, for error messages.

    Returns
    -------
    object
        An array (n,), an array (n, k), or formulaic's dict of columns.

    Raises
    ------
    DataError
        When it cannot be computed.

    Examples
    --------
    >>> evaluate("center(x)", ["x"], pl.DataFrame({"x": [1.0, 3.0]}), {}).tolist()
    [-1.0, 1.0]
    """
    from formulaic.utils.stateful_transforms import stateful_eval

    env: dict[str, Any] = {**functions(), **_CONSTANTS}
    called = {name for name in functions() if f"{name}(" in expr}
    for name in used:
        if name not in called:
            env[name] = _values(frame.get_column(name))
    try:
        with np.errstate(all="ignore"):
            return stateful_eval(expr, env, None, state, None)
    except Exception as problem:
        place = find_name(text, expr.partition("(")[0])
        shown = r_name(expr)
        raise DataError(
            f"{shown} cannot be computed: {type(problem).__name__}: {problem}"
            + ("" if place < 0 else f"\n  {text}\n  {' ' * place}^")
        ) from None


def _values(series: pl.Series) -> Any:
    """A column as the functions see it: floats, truth values or labels."""
    if series.dtype == pl.Boolean:
        return series.to_numpy().astype(bool)
    if is_text(series):
        return np.array(labels(series).to_list(), dtype=object)
    if series.dtype.is_numeric():
        return series.cast(pl.Float64).to_numpy().copy()
    raise TypeError(f"column {series.name!r} has type {series.dtype}, which is not a number")


def _quoted(name: str) -> str:
    """R puts backticks around names that are not syntactic."""
    return name if _SYNTACTIC.match(name) else f"`{name}`"


def r_name(expr: str) -> str:
    """Write a Python expression as R would deparse it.

    Examples
    --------
    >>> r_name("I(age ** 2)"), r_name("poly(x, 2, raw=True)"), r_name("I(a / b)")
    ('I(age^2)', 'poly(x, 2, raw = TRUE)', 'I(a/b)')
    """
    parts = _QUOTED.split(expr)
    for i in range(0, len(parts), 2):
        part = parts[i].replace(" ** ", "^").replace(" / ", "/")
        part = re.sub(r"(?<=\w)=(?!=)", " = ", part)
        parts[i] = re.sub(r"\bTrue\b", "TRUE", re.sub(r"\bFalse\b", "FALSE", part))
    for i in range(1, len(parts), 2):
        inside = parts[i][1:-1]
        if parts[i][0] == "`":
            parts[i] = _quoted(inside)
        elif '"' not in inside:
            parts[i] = f'"{inside}"'
    return "".join(parts)
