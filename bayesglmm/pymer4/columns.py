"""What is done to the data before a fit: factors, contrasts, transforms.

The caller's frame is never changed: a model works on a frame of its own.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from bayesglmm.design import to_polars
from bayesglmm.design.columns import column
from bayesglmm.design.factors import labels, make_factor
from bayesglmm.errors import ChoiceError, OptionError, check_choice, nearest
from bayesglmm.pymer4.expressions import center, rank, scale, zscore

__all__ = ["Columns", "hinted"]

_TRANSFORMS: dict[str, Callable[[pl.Expr | str], pl.Expr]] = {
    "center": center,
    "scale": scale,
    "zscore": zscore,
    "rank": rank,
}


def hinted[**P, R](method: Callable[P, R]) -> Callable[P, R]:
    """Make a misspelt keyword a TypeError that names the nearest one.

    Examples
    --------
    >>> @hinted
    ... def fit(self, summary=False): ...
    >>> fit(None, sumary=True)
    Traceback (most recent call last):
    ...
    bayesglmm.errors.OptionError: fit() has no argument 'sumary'; did you mean 'summary'? \
It has summary
    """
    allowed = list(inspect.signature(method).parameters)[1:]
    name = method.__qualname__.removesuffix(".__init__")

    @functools.wraps(method)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for key in kwargs:
            if key not in allowed:
                hint = nearest(key, allowed) or "."
                raise OptionError(
                    f"{name}() has no argument {key!r}{hint} It has {', '.join(allowed)}"
                )
        return method(*args, **kwargs)

    return checked


class Columns:
    """A frame whose columns can be made factors, coded and transformed.

    Attributes
    ----------
    factors
        Levels of every column made a factor, in order.
    contrasts
        Their codings: a name of R's, or weights on the level means.
    transformed
        Transform of every transformed column; its old values are in ``<column>_orig``.
    """

    def __init__(self, data: object) -> None:
        self._frame = to_polars(data)
        self._before: dict[str, pl.Series] = {}
        self.factors: dict[str, list[str]] = {}
        self.contrasts: dict[str, str | NDArray[np.float64]] = {}
        self.transformed: dict[str, str] = {}

    def _changed(self) -> None:
        """Called after every change; models forget their fit."""

    def _show(self, what: object) -> None:
        sys.stdout.write(f"{what}\n")

    # Factors

    def set_factors(
        self, factors_and_levels: str | Sequence[str] | Mapping[str, Sequence[object]]
    ) -> None:
        """Treat columns as factors.

        Parameters
        ----------
        factors_and_levels
            A column, several, or a mapping from columns to their levels in order; the first
            level is the reference. Without levels: sorted, numbers by value.

        Raises
        ------
        DataError
            For an unknown column, or a value that is not among the levels given.

        Examples
        --------
        >>> model = Columns({"cyl": [6, 4, 8, 4]})
        >>> model.set_factors("cyl")
        >>> model.factors
        {'cyl': ['4', '6', '8']}
        """
        given: dict[str, Sequence[object]] = (
            dict(factors_and_levels)
            if isinstance(factors_and_levels, Mapping)
            else dict.fromkeys(
                [factors_and_levels] if isinstance(factors_and_levels, str) else factors_and_levels,
                (),
            )
        )
        for name, levels in given.items():
            series = self._before.get(name, column(self._frame, name))
            levels = [levels] if isinstance(levels, str) else levels
            factor = make_factor(series, given=tuple(levels))
            self._before[name] = series
            coded = labels(series).cast(pl.Enum(list(factor.levels))).alias(name)
            self._frame = self._frame.with_columns(coded)
            self.factors = {**self.factors, name: list(factor.levels)}
            self.contrasts = {**self.contrasts, name: "contr.treatment"}
        self._changed()

    def unset_factors(self, factors: str | Sequence[str] | None = None) -> None:
        """Give columns their old type again; all of them when none is named.

        Examples
        --------
        >>> model = Columns({"cyl": [6, 4, 8, 4]})
        >>> model.set_factors("cyl")
        >>> model.unset_factors()
        >>> model.factors
        {}
        """
        names = list(self.factors) if factors is None else factors
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            self._needs_factor(name, "unset_factors")
            self._frame = self._frame.with_columns(self._before.pop(name).alias(name))
        self.factors = {k: v for k, v in self.factors.items() if k not in names}
        self.contrasts = {k: v for k, v in self.contrasts.items() if k not in names}
        self._changed()

    def show_factors(self) -> None:
        """Print the factors and their levels."""
        self._show(self.factors or "No factors set")

    def _needs_factor(self, name: str, who: str) -> None:
        if name not in self.factors:
            known = ", ".join(map(repr, self.factors)) or "none"
            raise ChoiceError(
                f"{who}: {name!r} is not a factor{nearest(name, self.factors)}; factors: {known}. "
                f"Use set_factors({name!r}) first."
            )

    # Contrasts

    def set_contrasts(
        self, contrasts: Mapping[str, str | ArrayLike], normalize: bool = False
    ) -> None:
        """Choose how factors are coded.

        Parameters
        ----------
        contrasts
            By factor: ``"contr.treatment"``, ``"contr.sum"``, ``"contr.helmert"``,
            ``"contr.poly"``, or weights on the level means, one row for each contrast. With
            fewer rows than levels less one, orthogonal contrasts are added.
        normalize
            Divide weights by their Euclidean norm.

        Raises
        ------
        ChoiceError
            For a column that is not a factor.

        Examples
        --------
        >>> model = Columns({"g": ["a", "b"]})
        >>> model.set_factors("g")
        >>> model.set_contrasts({"g": [-1, 1]}, normalize=True)
        >>> model.contrasts["g"].round(4).tolist()
        [-0.7071, 0.7071]
        """
        chosen: dict[str, str | NDArray[np.float64]] = {}
        for name, value in contrasts.items():
            self._needs_factor(name, "set_contrasts")
            if isinstance(value, str):
                chosen[name] = value
                continue
            weights = np.asarray(value, dtype=np.float64)
            chosen[name] = weights / np.linalg.norm(weights) if normalize else weights
        self.contrasts = {**self.contrasts, **chosen}
        self._changed()

    def show_contrasts(self) -> None:
        """Print the codings of the factors."""
        self._show(self.contrasts or "No factors set")

    def _codings(self) -> dict[str, object]:
        # Treatment coding is what the design does by itself; naming it would also make it
        # complain about factors that only group random effects.
        return {
            name: value
            for name, value in self.contrasts.items()
            if not (isinstance(value, str) and value == "contr.treatment")
        }

    # Transforms

    def set_transforms(
        self, cols_and_transforms: Mapping[str, str], group: str | Sequence[str] | None = None
    ) -> None:
        """Centre, scale or rank columns; the old values stay in ``<column>_orig``.

        Parameters
        ----------
        cols_and_transforms
            By column: ``"center"``, ``"scale"``, ``"zscore"`` or ``"rank"``.
        group
            Columns within whose groups to transform.

        Examples
        --------
        >>> model = Columns({"x": [1.0, 3.0]})
        >>> model.set_transforms({"x": "center"})
        >>> model.transformed
        {'x': 'center'}
        """
        for name, transform in cols_and_transforms.items():
            check_choice(f"set_transforms[{name!r}]", transform, _TRANSFORMS)
            column(self._frame, name)
        again = [name for name in cols_and_transforms if name in self.transformed]
        if again:
            self.unset_transforms(again)
        keep = [pl.col(name).alias(f"{name}_orig") for name in cols_and_transforms]
        new = [
            _TRANSFORMS[transform](name)
            if group is None
            else _TRANSFORMS[transform](name).over(group)
            for name, transform in cols_and_transforms.items()
        ]
        self._frame = self._frame.with_columns(
            *keep, *(e.alias(name) for e, name in zip(new, cols_and_transforms, strict=True))
        )
        groups = [] if group is None else [group] if isinstance(group, str) else list(group)
        suffix = "".join(f"_by_{name}" for name in groups)
        done = {name: f"{transform}{suffix}" for name, transform in cols_and_transforms.items()}
        self.transformed = {**self.transformed, **done}
        self._changed()

    def unset_transforms(self, cols: str | Sequence[str] | None = None) -> None:
        """Put the old values back; all of them when no column is named."""
        names = list(self.transformed) if cols is None else cols
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            if name not in self.transformed:
                raise ChoiceError(
                    f"unset_transforms: {name!r} is not transformed"
                    f"{nearest(name, self.transformed)}; transformed: "
                    f"{', '.join(map(repr, self.transformed)) or 'none'}"
                )
        old = [pl.col(f"{name}_orig").alias(name) for name in names]
        self._frame = self._frame.with_columns(old).drop([f"{name}_orig" for name in names])
        self.transformed = {k: v for k, v in self.transformed.items() if k not in names}
        self._changed()

    def show_transforms(self) -> None:
        """Print the transforms of the columns."""
        self._show(self.transformed or "No transformed columns")

    def _at(
        self, at: Mapping[str, object], apply_transforms: bool, observed: bool
    ) -> dict[str, object]:
        """Values on the scale of the fit; ``"data"`` stands for those observed.

        Values are given on the original scale of a transformed column. Ranks and transforms
        within groups have no single scale, so values for them are taken as they are.
        """
        out: dict[str, object] = {}
        for name, value in at.items():
            if observed and isinstance(value, str) and value == "data":
                found = column(self._frame, name).drop_nulls().unique(maintain_order=True)
                out[name] = found.to_list()
                continue
            transform = self.transformed.get(name, "") if apply_transforms else ""
            if transform in ("center", "scale", "zscore"):
                before = self._frame.get_column(f"{name}_orig").cast(pl.Float64)
                shift, size = np.float64(before.mean()), np.float64(before.std())  # type: ignore[arg-type]
                values = np.atleast_1d(np.asarray(value, dtype=np.float64))
                values = values if transform == "scale" else values - shift
                value = (values if transform == "center" else values / size).tolist()
            out[name] = value
        return out
