"""What makes a design again from its data: formula, levels, codings, and what no column holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from bayesglmm.design.codings import Coding
from bayesglmm.design.columns import Table, is_text, label
from bayesglmm.design.design import Design, build
from bayesglmm.design.fixed import FixedPart
from bayesglmm.errors import BayesglmmError, FitError
from bayesglmm.formula import parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Recipe", "recipe_of"]


@dataclass(frozen=True, eq=False)
class Recipe:
    """Everything of a design that is not in the columns of its data.

    Attributes
    ----------
    formula
        As written.
    weights, offset, trials
        Names of the columns given as such; empty for none or for arrays.
    levels
        By column the levels in order, of every column that is a factor by its type or because
        the caller said so.
    codings
        By column the codings that the caller asked for.
    ordered
        The ordered factors.
    n_rows, weightless
        As in `Design`.
    offset_given
        As in `Design`.
    rows
        (n,) positions of the kept rows in the caller's data; empty when all are kept.
    arrays
        Of ``"y"``, ``"trials"``, ``"weights"``, ``"offset"`` those, each (n,), that the columns
        do not give: because they came as arrays, or the response was replaced.
    """

    formula: str
    weights: str
    offset: str
    trials: str
    levels: Mapping[str, tuple[str, ...]]
    codings: Mapping[str, Coding]
    ordered: tuple[str, ...]
    n_rows: int
    weightless: int
    offset_given: bool
    rows: NDArray[np.intp]
    arrays: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def kept(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The kept rows of the caller's data, (n_rows) high."""
        return frame[self.rows] if self.rows.size else frame

    def design(self, frame: pl.DataFrame) -> Design:
        """Make the design from the kept rows.

        Parameters
        ----------
        frame
            The n kept rows, with at least the columns used.

        Raises
        ------
        DataError
            As `build`.
        """
        made = build(
            parse(self.formula),
            Table(frame, frozenset(self.ordered)),
            weights=self.weights,
            offset=self.offset,
            trials=self.trials,
            contrasts=self.codings,
            factors=self.levels,
        )
        arrays = self.arrays
        for array in (self.rows, *arrays.values()):
            array.setflags(write=False)
        return replace(
            made,
            response=replace(
                made.response,
                y=arrays.get("y", made.y),
                trials=arrays.get("trials", made.trials),
            ),
            weights=arrays.get("weights", made.weights),
            offset=arrays.get("offset", made.offset),
            rows=self.rows if self.rows.size else made.rows,
            n_rows=self.n_rows,
            weightless=self.weightless,
            offset_given=self.offset_given,
        )


def recipe_of(design: Design) -> Recipe:
    """Find what makes a design again, and try it.

    Raises
    ------
    FitError
        If formula and data do not give the same design, so that it could not be saved.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> design = bg.lm("y ~ g", {"y": [1.0, 2.0, 4.0], "g": list("abb")}).design
    >>> recipe_of(design).levels
    {'g': ('a', 'b')}
    """
    frame = design.data.select(design.columns_used)
    recipe = Recipe(
        formula=design.formula.text,
        weights=design.weights_column,
        offset=design.offset_column,
        trials=design.trials_column,
        levels=_levels(design, frame),
        codings=_codings(design),
        ordered=tuple(c for c in frame.columns if c in design.roles.ordered),
        n_rows=design.n_rows,
        weightless=design.weightless,
        offset_given=design.offset_given,
        rows=design.rows if design.dropped else design.rows[:0],
    )
    try:
        again = recipe.design(frame)
    except BayesglmmError as problem:
        raise FitError(_UNLIKE.format(problem)) from None
    arrays = {
        name: array
        for name in ("y", "trials", "weights", "offset")
        if not np.array_equal(array := getattr(design, name), getattr(again, name))
    }
    if not _same(design, again):
        raise FitError(_UNLIKE.format("its columns come out otherwise"))
    return replace(recipe, arrays=arrays)


_UNLIKE = (
    "this fit cannot be saved, because formula and data do not give its design again: {}. Fit the "
    "model anew from its data"
)


def _same(a: Design, b: Design) -> bool:
    return (
        a.names == b.names
        and np.array_equal(a.X, b.X)
        and a.response.levels == b.response.levels
        and len(a.random) == len(b.random)
        and all(
            s.levels == t.levels
            and s.columns == t.columns
            and np.array_equal(s.index, t.index)
            and np.array_equal(s.Z, t.Z)
            for s, t in zip(a.random, b.random, strict=True)
        )
    )


def _parts(design: Design) -> tuple[FixedPart, ...]:
    return (design.fixed, *(term.part for term in design.random))


def _levels(design: Design, frame: pl.DataFrame) -> dict[str, tuple[str, ...]]:
    found = dict(chain.from_iterable(part.factors.items() for part in _parts(design)))
    found |= {g.name: g.levels for term in design.random for g in term._groups}
    if design.response.levels:
        found[design.response.name.strip("`")] = design.response.levels
    asked = design.roles.factors
    out = {}
    for name in frame.columns:
        if name in asked:
            out[name] = found.get(name) or tuple(label(value) for value in asked[name])
        elif name in found and is_text(frame.get_column(name)):
            out[name] = found[name]
    return out


def _codings(design: Design) -> dict[str, Coding]:
    asked = design.roles.contrasts
    return {
        piece.source: part.codings[piece.name]
        for part in _parts(design)
        for piece in part._pieces
        if piece.kind != "expression" and piece.source in asked and not piece.coding
    }
