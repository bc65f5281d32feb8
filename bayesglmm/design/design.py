"""Formula and data to Design: response, X, random-effects terms, weights and offset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from bayesglmm.design.columns import column, find_name, is_missing, numbers, read
from bayesglmm.design.fixed import FixedPart, Roles, build_part, estimable_part
from bayesglmm.design.grouped import RandomTerm, random_terms
from bayesglmm.design.response import Response, build_response, response_columns
from bayesglmm.design.terms import evaluate, read_terms, variables
from bayesglmm.errors import DataError, caret, check_choice, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayesglmm.formula import Formula
    from bayesglmm.laplace.structure import Structure

__all__ = ["Design", "build"]


@dataclass(frozen=True, eq=False)
class Design:
    """A formula applied to data; n rows kept, p fixed-effect columns of full rank.

    Attributes
    ----------
    formula
        The parsed formula.
    response
        y (n,), trials (n,) and levels.
    X
        (n, p) float64.
    names
        R's names of the p coefficients that can be estimated.
    random
        The random-effects terms.
    offset
        (n,) on the link scale, zeros for none.
    weights
        (n,) prior weights, ones for none.
    rows
        (n,) positions of the kept rows in the caller's data.
    n_rows
        Rows of the caller's data.
    fixed
        Makes X for new data.
    data
        The kept rows, all columns.
    offset_column
        The column given as ``offset=``; empty for none or for an array.
    offset_given
        Whether ``offset=`` was an array, which new data cannot carry.
    weightless
        How many rows were left out because their weight is zero.
    weights_column, trials_column
        The columns given as ``weights=`` and ``trials=``; empty for none or for arrays.
    roles
        What the caller said about the columns.

    Examples
    --------
    >>> from bayesglmm.formula import parse
    >>> d = build(parse("y ~ x + (1|g)"), {"y": [1, 2, None], "x": [0, 1, 2], "g": list("aba")})
    >>> d.n, d.p, d.dropped, d.rows.tolist()
    (2, 2, 1, [0, 1])
    """

    formula: Formula
    response: Response
    X: NDArray[np.float64]
    names: tuple[str, ...]
    random: tuple[RandomTerm, ...]
    offset: NDArray[np.float64]
    weights: NDArray[np.float64]
    rows: NDArray[np.intp]
    n_rows: int
    fixed: FixedPart
    data: pl.DataFrame
    offset_column: str = ""
    offset_given: bool = False
    weightless: int = 0
    weights_column: str = ""
    trials_column: str = ""
    roles: Roles = field(default_factory=Roles)

    @property
    def n(self) -> int:
        """Rows used."""
        return int(self.X.shape[0])

    @property
    def p(self) -> int:
        """Fixed-effect columns."""
        return int(self.X.shape[1])

    @property
    def y(self) -> NDArray[np.float64]:
        """The response, (n,)."""
        return self.response.y

    @property
    def trials(self) -> NDArray[np.float64]:
        """The numbers of trials, (n,)."""
        return self.response.trials

    @cached_property
    def total_weights(self) -> NDArray[np.float64]:
        """Prior weights times trials, (n,): the weights of the likelihood."""
        if (self.trials == 1.0).all():
            return self.weights
        return self.weights * self.trials

    @property
    def repeated_trials(self) -> NDArray[np.float64]:
        """The numbers of trials where weights repeat a row of them; else empty."""
        repeated = self.response.has_trials and bool((self.weights != 1.0).any())
        return self.trials if repeated else np.zeros(0)

    @cached_property
    def structure(self) -> Structure:
        """Which levels of the random effects meet, and in which order to eliminate them."""
        from bayesglmm.laplace.structure import structure_of  # the engines import this module

        return structure_of(self.random)

    @property
    def dropped(self) -> int:
        """Rows left out because a value was missing, or the weight zero."""
        return self.n_rows - self.n

    @property
    def all_names(self) -> tuple[str, ...]:
        """R's names of all coefficients of the formula, those that cannot be estimated too."""
        return self.fixed.aliasing.names

    @property
    def columns_used(self) -> tuple[str, ...]:
        """Every data column the model uses, in order of first use."""
        given = {
            "weights": self.weights_column,
            "offset": self.offset_column,
            "trials": self.trials_column,
        }
        return tuple(c for c in _columns_used(self.formula, self.data, given) if c)

    @cached_property
    def collinear(self) -> tuple[str, ...]:
        """Which columns are nearly collinear, a sentence for each part, with the remedy."""
        from bayesglmm.design.collinear import collinear  # it imports this module's Design

        return collinear(self)

    @property
    def aliased(self) -> tuple[str, ...]:
        """The columns left out of X, and of which columns each is a combination, in words."""
        return self.fixed.aliasing.describe()

    def offset_for(self, newdata: object) -> NDArray[np.float64]:
        """The offset of new data: ``offset(...)`` in the formula, and the ``offset=`` column.

        Parameters
        ----------
        newdata
            Anything `to_polars` reads, m rows.

        Returns
        -------
        ndarray, (m,)
            NaN in rows with missing values.

        Raises
        ------
        DataError
            For a missing column, and for an offset given as an array: it has no value here.

        Examples
        --------
        >>> from bayesglmm.formula import parse
        >>> d = build(parse("y ~ offset(log(n))"), {"y": [1, 2], "n": [1.0, 2.0]})
        >>> d.offset_for({"n": [1.0]}).tolist()
        [0.0]
        """
        if self.offset_given:
            raise DataError(
                "the offset was given as an array, so new data have none; put it in a column of "
                "the data and give offset='that column'"
            )
        frame = read(newdata).frame
        known = self.data.columns
        used = [v for e in self.formula.offsets for v in variables(e, known, self.formula.text)[1]]
        used += [self.offset_column] if self.offset_column else []
        gone = _missing(frame, used, self.formula.text)
        total = np.full(frame.height, np.nan)
        kept = frame.filter(~gone)
        if kept.height:
            total[~gone] = _offset(self.formula, kept, self.offset_column)
        return total


def build(
    formula: Formula,
    data: object,
    *,
    weights: str | Sequence[float] | NDArray[np.float64] | pl.Series = "",
    offset: str | Sequence[float] | NDArray[np.float64] | pl.Series = "",
    trials: str | Sequence[float] | NDArray[np.float64] | pl.Series = "",
    contrasts: Mapping[str, object] | None = None,
    factors: Iterable[str] | Mapping[str, Sequence[object]] = (),
    missing: Literal["drop", "error"] = "drop",
) -> Design:
    """Apply a formula to data.

    Parameters
    ----------
    formula
        From `bayesglmm.formula.parse`.
    data
        A polars, pandas or pyarrow table, anything else narwhals reads, or a dict of columns.
        It is not changed.
    weights, offset, trials
        A column name or one number for each row; "" for none. `offset` is on the link scale and
        adds to ``offset()`` in the formula; `trials` makes the response a count of successes.
        Rows with weight zero say nothing and are left out, as missing ones.
    contrasts
        Codings by column: see `bayesglmm.design.codings.coding_of`.
    factors
        Columns to treat as factors, or a mapping from columns to their levels in order.
    missing
        "drop" leaves out rows with a missing value in a column used; "error" refuses them.

    Returns
    -------
    Design
        Arrays are read-only.

    Raises
    ------
    DataError
        For anything in the data that does not suit the formula; the message names the column.
    FormulaError
        For an unknown function in the formula.
    ChoiceError
        For an unknown coding or value of `missing`.

    Examples
    --------
    >>> from bayesglmm.formula import parse
    >>> d = build(parse("y ~ g"), {"y": [1.0, 2.0, 4.0], "g": ["a", "b", "b"]})
    >>> d.names, d.X.tolist()
    (('(Intercept)', 'gb'), [[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    """
    check_choice("missing", missing, ("drop", "error"))
    table = read(data)
    whole = table.frame
    roles = _roles(formula, whole, contrasts or {}, factors, table.ordered)
    given = {
        role: _given(role, value, whole)
        for role, value in (("weights", weights), ("offset", offset), ("trials", trials))
    }
    used = _columns_used(formula, whole, given)
    weighed = given["weights"]
    apart = {weighed} if isinstance(weighed, str) else set()
    used = [name for name in used if name not in apart]
    frame, rows = _complete(whole, used, missing, formula.text)
    numeric = [c for c in used if frame.get_column(c).dtype.is_float()]
    _refuse_infinite(frame, numeric, formula.text)
    complete = frame.height

    if weighed is not None:
        weight = _values("weights", weighed, frame, rows)
        _check_weights(weight, rows, f" {weighed!r}" if isinstance(weighed, str) else "")
        frame, rows = _counted(frame, rows, weight)
    response = _response(formula, given["trials"], frame, rows, roles)

    fixed, X = estimable_part(*build_part(formula.fixed, frame, roles))
    random = random_terms(formula.bars, frame, roles)
    shift = _values("offset", given["offset"], frame, rows)
    if formula.offsets:
        shift = shift + _offset(formula, frame)
    if not np.isfinite(shift).all():
        bad = int(np.flatnonzero(~np.isfinite(shift))[0])
        raise DataError(f"the offset is infinite or undefined in row {int(rows[bad])}")
    weight = _values("weights", given["weights"], frame, rows)
    for array in (X, shift, weight, rows):
        array.setflags(write=False)
    return Design(
        formula=formula,
        response=response,
        X=X,
        names=fixed.names,
        random=random,
        offset=shift,
        weights=weight,
        rows=rows,
        n_rows=whole.height,
        fixed=fixed,
        data=frame,
        offset_column=offset if isinstance(offset, str) else "",
        offset_given=offset is not None and not isinstance(offset, str),
        weightless=complete - frame.height,
        weights_column=weights if isinstance(weights, str) else "",
        trials_column=trials if isinstance(trials, str) else "",
        roles=roles,
    )


def _roles(
    formula: Formula,
    frame: pl.DataFrame,
    contrasts: Mapping[str, object],
    factors: Iterable[str] | Mapping[str, Sequence[object]],
    ordered: frozenset[str],
) -> Roles:
    if isinstance(factors, str):
        factors = (factors,)
    levels: dict[str, tuple[object, ...]] = (
        {name: tuple(values) for name, values in factors.items()}
        if isinstance(factors, Mapping)
        else dict.fromkeys(factors, ())
    )
    for argument, names in (("contrasts", contrasts), ("factors", levels)):
        for name in names:
            if name not in frame.columns:
                raise DataError(
                    f"{argument} names {name!r}, which is not a column"
                    f"{nearest(name, frame.columns)}"
                )
    _check_coded(formula, frame, contrasts)
    return Roles(formula.text, levels, dict(contrasts), ordered)


def _check_coded(formula: Formula, frame: pl.DataFrame, contrasts: Mapping[str, object]) -> None:
    """Refuse a coding of a column that is no coded factor of the formula.

    Naming unused columns in ``factors`` is harmless: it says something of the data.
    """
    if not contrasts:
        return
    known, text = frame.columns, formula.text
    sides = (formula.fixed, *(bar.terms for bar in formula.bars))
    pieces = [p for side in sides for term in read_terms(side, known, text)[1] for p in term]
    allowed = dict.fromkeys(p.source for p in pieces if p.kind != "expression")
    grouping = [name for bar in formula.bars for name in bar.group]
    for name in contrasts:
        if name not in allowed:
            what = "only groups by" if name in grouping else "does not use"
            shown = ", ".join(map(repr, allowed)) or "no column"
            raise DataError(
                f"contrasts names {name!r}, which the formula {what}"
                f"{nearest(name, allowed)}; here it can name {shown}"
            )


def _given(role: str, value: object, frame: pl.DataFrame) -> pl.Series | str | None:
    """A column's name, or the values themselves; None for neither."""
    if value is None:
        return None
    if isinstance(value, str):
        if not value:
            return None
        column(frame, value, role=role)
        return value
    try:
        series = pl.Series(role, np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        raise DataError(
            f"{role} is {type(value).__name__}; give a column name or one number for each row"
        ) from None
    if series.len() != frame.height:
        raise DataError(f"{role} has {series.len()} values; the data have {frame.height} rows")
    if is_missing(series).any():
        first = int(is_missing(series).argmax())
        raise DataError(f"{role} is missing in row {first}")
    return series


def _columns_used(formula: Formula, frame: pl.DataFrame, given: Mapping[str, object]) -> list[str]:
    """Every data column the model uses, in order of first use."""
    known, text = frame.columns, formula.text
    used = list(response_columns(formula.response, known, text))
    for rhs in (formula.fixed, *(bar.terms for bar in formula.bars)):
        _, terms = read_terms(rhs, known, text)
        used += [name for term in terms for piece in term for name in piece.columns]
    for bar in formula.bars:
        used += [column(frame, name, text).name for name in bar.group]
    for expression in formula.offsets:
        used += variables(expression, known, text)[1]
    used += [value for value in given.values() if isinstance(value, str)]
    return list(dict.fromkeys(used))


def _missing(frame: pl.DataFrame, used: Iterable[str], text: str) -> NDArray[np.bool_]:
    gone = np.zeros(frame.height, dtype=bool)
    for name in used:
        gone |= is_missing(column(frame, name, text))
    return gone


def _complete(
    frame: pl.DataFrame, used: Sequence[str], missing: str, text: str
) -> tuple[pl.DataFrame, NDArray[np.intp]]:
    """Keep the rows without missing values in the columns used."""
    gone = _missing(frame, used, text)
    if not gone.any():
        return frame, np.arange(frame.height)
    rows = np.flatnonzero(~gone)
    if missing == "drop" and rows.size:
        return frame.filter(~gone), rows
    holes = {name: int(is_missing(frame.get_column(name)).sum()) for name in used}
    where = ", ".join(f"{name} ({count})" for name, count in holes.items() if count)
    if missing == "error":
        first = ", ".join(str(int(r)) for r in np.flatnonzero(gone)[:5])
        raise DataError(
            f"{int(gone.sum())} of {frame.height} rows have missing values (first: rows {first}); "
            f"by column: {where}. missing='drop' leaves them out"
        )
    raise DataError(f"every row has a missing value; by column: {where}")


def _refuse_infinite(frame: pl.DataFrame, names: Iterable[str], text: str) -> None:
    for name in names:
        bad = np.isinf(frame.get_column(name).to_numpy())
        if bad.any():
            raise DataError(
                f"column {name!r} is infinite in {int(bad.sum())} rows"
                + caret(text, find_name(text, name), len(name))
            )


def _values(
    role: str, given: pl.Series | str | None, frame: pl.DataFrame, rows: NDArray[np.intp]
) -> NDArray[np.float64]:
    """The kept rows of weights, offset or trials."""
    if given is None:
        return np.zeros(len(rows)) if role == "offset" else np.ones(len(rows))
    if isinstance(given, str):
        return numbers(frame.get_column(given)).copy()
    return np.array(given.to_numpy()[rows], dtype=np.float64)


def _offset(formula: Formula, frame: pl.DataFrame, name: str = "") -> NDArray[np.float64]:
    """The sum of the formula's offsets and of a column."""
    total = np.zeros(frame.height)
    for expression in formula.offsets:
        source, used = variables(expression, frame.columns, formula.text)
        total = total + np.asarray(
            evaluate(source, used, frame, {}, formula.text), dtype=np.float64
        )
    return total + numbers(frame.get_column(name)) if name else total


def _response(
    formula: Formula,
    trials: pl.Series | str | None,
    frame: pl.DataFrame,
    rows: NDArray[np.intp],
    roles: Roles,
) -> Response:
    counts = None if trials is None else _values("trials", trials, frame, rows)
    return build_response(formula.response, frame, counts, roles)


def _check_weights(weights: NDArray[np.float64], rows: NDArray[np.intp], name: str) -> None:
    """A missing weight is no missing observation: what its row is worth, nobody said."""
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        first = weights[bad][0]
        shown = "a missing one" if np.isnan(first) else f"{first:g}"
        raise DataError(
            f"weights{name} must be finite and not negative; {int(bad.sum())} of {len(rows)} rows "
            f"are not, first row {int(rows[np.argmax(bad)])} with {shown}. A row of weight zero is "
            "left out"
        )


def _counted(
    frame: pl.DataFrame, rows: NDArray[np.intp], weights: NDArray[np.float64]
) -> tuple[pl.DataFrame, NDArray[np.intp]]:
    """Keep the rows of positive weight."""
    counts = weights > 0
    if counts.all():
        return frame, rows
    if not counts.any():
        raise DataError("the weight is zero in every row")
    return frame.filter(counts), rows[counts]
