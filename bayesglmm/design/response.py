"""The left-hand side of a formula: numbers, two levels, or successes out of trials."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from bayesglmm.design.columns import column, is_missing, numbers
from bayesglmm.design.factors import Factor, codes
from bayesglmm.design.fixed import Roles
from bayesglmm.design.terms import evaluate, r_name, variables
from bayesglmm.errors import DataError, FormulaError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Response", "build_response", "in_units", "response_columns", "with_values"]


@dataclass(frozen=True, eq=False)
class Response:
    """The response of n rows.

    Attributes
    ----------
    name
        The left-hand side as written.
    y
        (n,) float64: the values; 0 and 1 for two levels; the proportion of successes when there
        are trials.
    trials
        (n,) float64, ones where the formula gives none.
    levels
        Empty for a numeric response, else the two levels; the second is the success, as in R.
    """

    name: str
    y: NDArray[np.float64]
    trials: NDArray[np.float64]
    levels: tuple[str, ...] = ()

    @property
    def has_trials(self) -> bool:
        """Whether rows stand for several trials, so that people count successes."""
        return bool(np.any(self.trials != 1.0))


def response_columns(text: str, known: list[str], formula: str) -> tuple[str, ...]:
    """Find the columns a left-hand side uses.

    Parameters
    ----------
    text
        The left-hand side.
    known
        The data's columns.
    formula
        The whole formula, for error messages.

    Returns
    -------
    tuple of str
        Column names.

    Raises
    ------
    DataError, FormulaError
        For an unknown column or function.

    Examples
    --------
    >>> response_columns("cbind(s, n - s)", ["n", "s"], "cbind(s, n - s) ~ 1")
    ('s', 'n')
    """
    if _is_name(text):
        name = text.strip("`")
        if name not in known:
            column(pl.DataFrame(schema=dict.fromkeys(known, pl.Float64)), name, formula)
        return (name,)
    used = [c for part in _parts(text, formula) for c in variables(part, known, formula)[1]]
    return tuple(dict.fromkeys(used))


def build_response(
    text: str,
    frame: pl.DataFrame,
    trials: NDArray[np.float64] | None = None,
    roles: Roles | None = None,
) -> Response:
    """Evaluate a left-hand side.

    Parameters
    ----------
    text
        A column, an expression such as ``"log(y)"``, or ``"cbind(successes, failures)"``.
    frame
        The data, n rows, without missing values in the columns used.
    trials
        (n,) numbers of trials, which make the response a count of successes; None for none.
    roles
        What the caller said about the columns.

    Returns
    -------
    Response
        See there.

    Raises
    ------
    DataError
        For more than two levels, for trials that are not positive, and for more successes than
        trials.

    Examples
    --------
    >>> build_response("use", pl.DataFrame({"use": ["N", "Y", "N"]})).y.tolist()
    [0.0, 1.0, 0.0]
    """
    roles = roles or Roles()
    levels: tuple[str, ...] = ()
    if text.replace(" ", "").startswith("cbind("):
        if trials is not None:
            raise DataError("give the trials once: either cbind(...) or trials=")
        success, failure = (_expression(part, frame, roles) for part in _parts(text, roles.text))
        if (failure < 0).any():
            raise DataError(f"{text}: failures are negative in {_where(failure < 0)}")
        return _proportion(text, success, success + failure)
    if _is_name(text):
        series = frame.get_column(text.strip("`"))
        if roles.is_factor(series):
            levels = _two_levels(roles.factor(series), series)
            y = codes(series, Factor(series.name, levels)).astype(np.float64)
        else:
            y = numbers(series, roles.text)
    else:
        y = _expression(text, frame, roles)
    if trials is not None:
        if levels:
            raise DataError(
                f"response {text!r} has the levels {levels[0]!r} and {levels[1]!r}; with trials= "
                "it must be a count of successes"
            )
        return _proportion(text, y, trials)
    if not np.isfinite(y).all():
        bad = ~np.isfinite(y)
        raise DataError(f"response {text} is infinite or undefined in {_where(bad)}")
    return Response(text, _frozen(y), _frozen(np.ones(len(y))), levels)


def with_values(response: Response, values: pl.Series) -> Response:
    """The same response with other values.

    Parameters
    ----------
    response
        Gives the trials and the levels.
    values
        (n,) in the units of the left-hand side: counts of successes where there are trials, the
        two levels where it has levels, else numbers.

    Returns
    -------
    Response
        With the new `y`.

    Raises
    ------
    DataError
        For a missing value, another level, a count that is no whole number or above the trials.

    Examples
    --------
    >>> old = build_response("use", pl.DataFrame({"use": ["N", "Y", "N"]}))
    >>> with_values(old, pl.Series(["Y", "Y", "N"])).y.tolist()
    [1.0, 1.0, 0.0]
    """
    name = response.name
    missing = np.asarray(is_missing(values))
    if missing.any():
        raise DataError(f"the new values of {name!r} are missing in {_where(missing)}")
    if response.levels:
        position = codes(values, Factor(name, response.levels))
        if (position < 0).any():
            at = int(np.flatnonzero(position < 0)[0])
            raise DataError(
                f"response {name!r} has the levels {response.levels[0]!r} and "
                f"{response.levels[1]!r}; found {values[at]!r}"
                f"{nearest(str(values[at]), response.levels)}"
            )
        return replace(response, y=_frozen(position.astype(np.float64)))
    y = numbers(values.alias(name))
    if not np.isfinite(y).all():
        raise DataError(f"the new values of {name!r} are infinite in {_where(~np.isfinite(y))}")
    if not response.has_trials:
        return replace(response, y=_frozen(y))
    if (y != np.round(y)).any():
        raise DataError(
            f"the new values of {name!r} must be counts of successes, because the model has "
            f"trials; found {y[y != np.round(y)][0]:g}"
        )
    return replace(response, y=_proportion(name, y, response.trials).y)


def in_units(response: Response, y: NDArray[np.float64], dtype: pl.DataType) -> pl.Series:
    """Values of a response in the units of the left-hand side: the inverse of `with_values`.

    Parameters
    ----------
    response
        Gives the trials and the levels.
    y
        (n,) as `Response.y` holds them.
    dtype
        Type of the result where there are no trials.

    Returns
    -------
    polars.Series
        (n,) counts of successes, the two levels, or numbers.

    Examples
    --------
    >>> old = build_response("use", pl.DataFrame({"use": ["N", "Y", "N"]}))
    >>> in_units(old, np.array([1.0, 1.0, 0.0]), pl.String()).to_list()
    ['Y', 'Y', 'N']
    """
    if response.has_trials:
        return pl.Series(np.round(y * response.trials).astype(np.int64))
    if not response.levels:
        return pl.Series(y).cast(dtype)
    if dtype == pl.Boolean:
        return pl.Series(y == 1.0)
    text = pl.Series([response.levels[int(v)] for v in y], dtype=pl.String)
    return text if dtype.is_temporal() else text.cast(dtype)


def _two_levels(factor: Factor, series: pl.Series) -> tuple[str, ...]:
    if series.dtype == pl.Boolean:
        return ("FALSE", "TRUE")
    found = factor.levels
    if len(found) == 2:
        return found
    shown = ", ".join(repr(v) for v in found[:6]) + (", …" if len(found) > 6 else "")
    raise DataError(
        f"response {factor.name!r} is not numeric and has {len(found)} "
        f"level{'s' if len(found) != 1 else ''} ({shown}); "
        "a response is a number or has two levels, the second being the success"
    )


def _proportion(text: str, success: NDArray[np.float64], trials: NDArray[np.float64]) -> Response:
    for name, values in (("the number of successes", success), ("the number of trials", trials)):
        if not np.isfinite(values).all():
            raise DataError(f"{text}: {name} is not finite in {_where(~np.isfinite(values))}")
    if (trials < 0).any():
        raise DataError(f"{text}: the number of trials is negative in {_where(trials < 0)}")
    if (trials == 0).any():
        raise DataError(
            f"{text}: the number of trials is zero in {_where(trials == 0)}; such rows say "
            "nothing: leave them out, with data.filter(...) in polars"
        )
    if (success < 0).any():
        raise DataError(f"{text}: the number of successes is negative in {_where(success < 0)}")
    over = success > trials
    if over.any():
        raise DataError(f"{text}: there are more successes than trials in {_where(over)}")
    return Response(text, _frozen(success / trials), _frozen(trials))


def _expression(text: str, frame: pl.DataFrame, roles: Roles) -> NDArray[np.float64]:
    source, used = variables(_python(text), frame.columns, roles.text)
    value: Any = np.asarray(evaluate(source, used, frame, {}, roles.text))
    if value.ndim == 0:
        value = np.full(frame.height, value)
    if value.shape != (frame.height,) or value.dtype.kind not in "bif":
        raise DataError(f"response {r_name(text)} does not give one number for each row")
    return np.array(value, dtype=np.float64)


def _parts(text: str, formula: str) -> list[str]:
    """The expressions of a left-hand side: one, or the two arguments of cbind."""
    from bayesglmm.formula.tokens import emit, tokenize

    tokens = tokenize(text)
    if tokens[0].text != "cbind":
        return [_python(text)]
    commas = [i for i, t in enumerate(tokens) if t.text == "," and t.depth == 1]
    if len(commas) != 1 or tokens[-1].match != 1:
        raise FormulaError(
            "cbind takes two arguments: cbind(successes, failures)", formula, formula.find("cbind")
        )
    return [emit(tokens[2 : commas[0]]), emit(tokens[commas[0] + 1 : -1])]


def _python(text: str) -> str:
    return text.replace("^", "**").strip()


def _is_name(text: str) -> bool:
    from bayesglmm.formula.tokens import tokenize

    tokens = tokenize(text)
    return len(tokens) == 1 and tokens[0].kind == "name"


def _where(bad: NDArray[np.bool_]) -> str:
    rows = np.flatnonzero(bad)
    shown = ", ".join(str(int(r)) for r in rows[:5])
    return f"{rows.size} of the rows used (first: {shown})"


def _frozen(array: NDArray[np.float64]) -> NDArray[np.float64]:
    out = array if array.flags.owndata else array.copy()  # a view belongs to the caller's data
    out.setflags(write=False)
    return out
