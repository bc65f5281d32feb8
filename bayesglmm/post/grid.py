"""The reference grid: every combination of factor levels, covariates at chosen values."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bayesglmm.design import Design
from bayesglmm.design.terms import variables
from bayesglmm.errors import ChoiceError, DataError, nearest

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Grid:
    """Linear functions of the coefficients over a grid.

    Attributes
    ----------
    labels
        One row per function: the values of the grouping variables.
    L
        (m, p) weights on the coefficients that are estimated.
    offset
        (m,) part of the linear predictor that is not estimated.
    held
        What happened to the other variables, in words; empty where there are none.
    every
        (m, p + d) weights on all coefficients of the formula, those that are not estimated too;
        they decide whether a function can be estimated (`Aliasing.estimable`).
    """

    labels: pl.DataFrame
    L: Array
    offset: Array
    held: str
    every: Array


def axes_of(design: Design, at: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Values of every variable of the fixed part: levels, or the mean, or what ``at`` says.

    A covariate with two distinct values keeps both, as in emmeans.

    Raises
    ------
    ChoiceError
        If ``at`` names a variable that the model does not have.
    DataError
        If it gives a level that the factor does not have, or something that is no number.
    """
    fixed = design.fixed
    axes: dict[str, list[Any]] = {name: list(levels) for name, levels in fixed.factors.items()}
    for name in fixed.covariates:
        values = design.data.get_column(name).unique().sort()
        axes[name] = values.to_list() if len(values) <= 2 else [fixed.covariate_means[name]]
    for name, given in at.items():
        if name not in axes:
            raise ChoiceError(
                f"at={name!r}: not a variable of the fixed part{nearest(name, axes)}; it has "
                f"{', '.join(map(repr, axes)) or 'none'}"
            )
        chosen = list(given) if isinstance(given, Sequence | np.ndarray | pl.Series) else [given]
        if isinstance(given, str):
            chosen = [given]
        if name in fixed.factors:
            known = fixed.factors[name]
            chosen = [_level(v) for v in chosen]
            for level in chosen:
                if level not in known:
                    raise DataError(
                        f"at[{name!r}]: {level!r} is not a level{nearest(level, known)}; levels "
                        f"are {', '.join(map(repr, known))}"
                    )
        elif not all(isinstance(v, int | float | np.number) for v in chosen):
            raise DataError(f"at[{name!r}]={given!r}: give numbers")
        axes[name] = chosen
    return axes


def _level(value: Any) -> str:
    """A level as the design labels it."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def split_names(specs: str | Sequence[str]) -> tuple[list[str], list[str]]:
    """``"a + b | c"`` or a list of names to (specs, by)."""
    if not isinstance(specs, str):
        return list(specs), []
    left, _, right = specs.lstrip("~ ").partition("|")

    def names(text: str) -> list[str]:
        for separator in "*:":
            text = text.replace(separator, "+")
        return [part.strip() for part in text.split("+") if part.strip()]

    return names(left), names(right)


def expand(axes: Mapping[str, list[Any]], order: Sequence[str]) -> list[dict[str, Any]]:
    """Every combination, the first name varying fastest (R's ``expand.grid``)."""
    values = [axes[name] for name in reversed(order)]
    return [
        dict(zip(order, reversed(combination), strict=True))
        for combination in itertools.product(*values)
    ]


def _matrix(design: Design, rows: list[dict[str, Any]]) -> tuple[Array, Array]:
    """All columns and offset at rows of the grid."""
    frame = pl.DataFrame(rows) if rows[0] else pl.DataFrame({"_": [0.0] * len(rows)})
    extra = {}
    if np.any(design.offset != 0.0):
        used = design.fixed.columns
        for name, dtype in design.data.schema.items():
            if name not in frame.columns and name not in used and dtype.is_numeric():
                extra[name] = pl.lit(float(design.data.get_column(name).mean()))  # type: ignore[arg-type]
    frame = frame.with_columns(**extra)
    offset = np.zeros(len(rows))
    if np.any(design.offset != 0.0):
        known = design.data.columns
        read = {v for e in design.formula.offsets for v in variables(e, known)[1]}
        looked_up = bool((read | {design.offset_column}) & set(design.fixed.columns))
        offset = (
            design.offset_for(frame)
            if looked_up
            else np.full(len(rows), float(np.mean(design.offset)))
        )
    return design.fixed.all_columns(frame), offset


def check_names(design: Design, names: Sequence[str], argument: str) -> None:
    """Refuse a name that is not a variable of the fixed part."""
    known = [*design.fixed.factors, *design.fixed.covariates]
    for name in names:
        if name not in known:
            grouping = {g for t in design.random for g in t.group_columns}
            why = " (it only groups random effects: see ranef and coef)" if name in grouping else ""
            raise ChoiceError(
                f"{argument}={name!r} is not a variable of the fixed part{why}"
                f"{nearest(name, known)}; it has {', '.join(map(repr, known)) or 'none'}"
            )


def mean_grid(fit: Fit, names: Sequence[str], at: Mapping[str, Any]) -> Grid:
    """Average X over everything but ``names``, with equal weights (on the link scale)."""
    design = fit.model.design
    axes = axes_of(design, at)
    others = [name for name in axes if name not in names]
    labels = expand(axes, names)
    inner = expand(axes, others)
    rows = [{**label, **rest} for label in labels for rest in inner]
    X, offset = _matrix(design, rows)
    m = len(labels)
    every = X.reshape(m, len(inner), -1).mean(axis=1)
    shift = offset.reshape(m, len(inner)).mean(axis=1)
    L = design.fixed.aliasing.reduced(every)
    return Grid(_labels(design, labels), L, shift, _held(axes, others), every)


def _held(axes: Mapping[str, list[Any]], others: Sequence[str]) -> str:
    """``averaged over pclass; age = 29.7`` for the variables that the means do not span."""
    several = [name for name in others if len(axes[name]) > 1]
    single = [
        f"{name} = {axes[name][0]:.4g}"
        if isinstance(axes[name][0], float)
        else f"{name} = {axes[name][0]}"
        for name in others
        if len(axes[name]) == 1
    ]
    averaged = [f"averaged over {', '.join(several)}"] if several else []
    return "; ".join([*averaged, *single])


def trend_grid(fit: Fit, variable: str, names: Sequence[str], at: Mapping[str, Any]) -> Grid:
    """Derivative of the linear predictor in ``variable``, averaged like :func:`mean_grid`."""
    design = fit.model.design
    centre = design.fixed.covariate_means[variable]
    spread = float(np.ptp(design.data.get_column(variable).to_numpy()))
    # Central differences with emmeans' step, a thousandth of the range.
    h = 0.0005 * (spread if spread > 0 else 1.0)
    around = at.get(variable, [centre])
    around = list(around) if isinstance(around, Sequence | np.ndarray) else [around]
    up = mean_grid(fit, names, {**at, variable: [v + h for v in around]})
    down = mean_grid(fit, names, {**at, variable: [v - h for v in around]})
    every, offset = (up.every - down.every) / (2 * h), (up.offset - down.offset) / (2 * h)
    held = mean_grid(fit, [*names, variable], at).held
    return Grid(up.labels, design.fixed.aliasing.reduced(every), offset, held, every)


def _labels(design: Design, labels: list[dict[str, Any]]) -> pl.DataFrame:
    """The label columns; factors as Enum with the model's level order."""
    columns = {}
    for name in labels[0]:
        values = [row[name] for row in labels]
        if name in design.fixed.factors:
            dtype = pl.Enum(list(design.fixed.factors[name]))
            columns[name] = pl.Series(name, [_level(v) for v in values], dtype=dtype)
        else:
            columns[name] = pl.Series(name, values, dtype=pl.Float64)
    return pl.DataFrame(columns)
