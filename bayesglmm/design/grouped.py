"""Random-effects terms: for each row its level and its covariates.

Z is never formed. A term is an index (row to level) and K dense columns, which is all that
penalised least squares needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from bayesglmm.design.columns import column, to_polars
from bayesglmm.design.factors import Factor, codes
from bayesglmm.design.fixed import FixedPart, Roles, build_part
from bayesglmm.errors import DataError, caret

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bayesglmm.formula import Bar

__all__ = ["RandomTerm", "random_terms"]


@dataclass(frozen=True, eq=False)
class RandomTerm:
    """One random-effects term and the rows' places in it.

    Attributes
    ----------
    name
        Unique display name: the grouping factor, with ``.1`` for its second term, as lme4 prints.
    factor
        The grouping factor, ``"Subject"`` or ``"urban:dist"``.
    columns
        R's names of the K effects, e.g. ``("(Intercept)", "Days")``.
    levels
        The J levels observed; ``"Y:D01"`` for an interaction.
    index
        (n,) intp, the level of each row.
    Z
        (n, K) float64, the covariates of each row.
    correlated
        False for ``||``.
    part
        Makes the covariates of new data.
    """

    name: str
    factor: str
    columns: tuple[str, ...]
    levels: tuple[str, ...]
    index: NDArray[np.intp]
    Z: NDArray[np.float64]
    correlated: bool
    part: FixedPart
    _groups: tuple[Factor, ...]
    _observed: NDArray[np.int64]

    @property
    def K(self) -> int:
        """Number of effects per level."""
        return len(self.columns)

    @property
    def J(self) -> int:
        """Number of levels."""
        return len(self.levels)

    @property
    def group_columns(self) -> tuple[str, ...]:
        """The data columns that make up the grouping factor."""
        return tuple(g.name for g in self._groups)

    def rows(self, newdata: object) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Place new rows.

        Parameters
        ----------
        newdata
            Anything `to_polars` reads, m rows.

        Returns
        -------
        index : ndarray of intp, (m,)
            Level of each row, -1 for a level that was not in the data of the fit or is missing.
        Z : ndarray, (m, K)
            Covariates; NaN in rows with a missing covariate.

        Raises
        ------
        DataError
            For a missing column, or an unseen level of a factor among the covariates.

        Examples
        --------
        >>> from bayesglmm.formula import parse
        >>> frame = pl.DataFrame({"g": ["a", "b", "a"]})
        >>> (term,) = random_terms(parse("y ~ (1|g)").bars, frame)
        >>> term.rows({"g": ["b", "new"]})[0].tolist()
        [1, -1]
        """
        frame = newdata if isinstance(newdata, pl.DataFrame) else to_polars(newdata)
        found = [codes(column(frame, g.name, self.part._formula), g) for g in self._groups]
        flat = _flat_codes(found, self._groups)
        valid = np.all([code >= 0 for code in found], axis=0)
        place = np.searchsorted(self._observed, flat)
        place[place == self.J] = 0
        known = valid & (self._observed[place] == flat)
        return np.where(known, place, -1).astype(np.intp), self.part.matrix(frame)


def random_terms(
    bars: Iterable[Bar], frame: pl.DataFrame, roles: Roles | None = None
) -> tuple[RandomTerm, ...]:
    """Make the random-effects terms.

    Parameters
    ----------
    bars
        From the formula.
    frame
        The data, n rows, without missing values in the columns used.
    roles
        What the caller said about the columns.

    Returns
    -------
    tuple of RandomTerm
        In the formula's order.

    Raises
    ------
    DataError
        For an unknown column, and a grouping factor with fewer than two levels.

    Examples
    --------
    >>> from bayesglmm.formula import parse
    >>> frame = pl.DataFrame({"g": [2, 10, 2], "x": [0.0, 1.0, 2.0]})
    >>> (term,) = random_terms(parse("y ~ (x|g)").bars, frame)
    >>> term.levels, term.columns, term.index.tolist()
    (('2', '10'), ('(Intercept)', 'x'), [0, 1, 0])
    """
    roles = roles or Roles()
    terms: list[RandomTerm] = []
    seen: dict[str, int] = {}
    for bar in bars:
        factor = ":".join(bar.group)
        made = [roles.factorise(column(frame, g, roles.text)) for g in bar.group]
        groups = tuple(factor for factor, _ in made)
        observed, index = _observed(_flat_codes([code for _, code in made], groups), groups)
        if len(observed) < 2:
            raise DataError(
                f"grouping factor {factor!r} has one level in the rows used, so its variance "
                f"cannot be estimated; remove {bar.text}" + _point(roles.text, bar.text)
            )
        part, Z = build_part(bar.terms, frame, roles)
        if not part.names:
            raise DataError(f"{bar.text} has no effects" + _point(roles.text, bar.text))
        count = seen.get(factor, 0)
        seen[factor] = count + 1
        for array in (index, Z, observed):
            array.setflags(write=False)
        terms.append(
            RandomTerm(
                name=f"{factor}.{count}" if count else factor,
                factor=factor,
                columns=part.names,
                levels=_level_names(observed, groups),
                index=index,
                Z=Z,
                correlated=bar.correlated or len(part.names) == 1,
                part=part,
                _groups=groups,
                _observed=observed,
            )
        )
    return tuple(terms)


def _flat_codes(found: Sequence[NDArray[np.intp]], groups: tuple[Factor, ...]) -> NDArray[np.int64]:
    """One integer for each combination of levels, first factor slowest."""
    if len(found) == 1:
        return np.maximum(found[0], 0)
    flat = np.zeros(len(found[0]), dtype=np.int64)
    for code, group in zip(found, groups, strict=True):
        flat = flat * len(group.levels) + np.maximum(code, 0)
    return flat


def _observed(
    flat: NDArray[np.int64], groups: tuple[Factor, ...]
) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """The combinations that occur, in order, and the place of every row among them."""
    cells = math.prod(len(g.levels) for g in groups)
    if cells > 4 * len(flat) + 1024:  # too many to count every one
        observed, index = np.unique(flat, return_inverse=True)
        return observed, index.astype(np.intp).reshape(-1)
    occurs = np.zeros(cells, dtype=bool)
    occurs[flat] = True
    index = flat.astype(np.intp) if occurs.all() else (np.cumsum(occurs) - 1)[flat]
    return np.flatnonzero(occurs), index


def _level_names(observed: NDArray[np.int64], groups: tuple[Factor, ...]) -> tuple[str, ...]:
    shape = tuple(len(g.levels) for g in groups)
    parts = [
        np.array(g.levels, dtype=object)[where]
        for g, where in zip(groups, np.unravel_index(observed, shape), strict=True)
    ]
    return tuple(":".join(names) for names in zip(*parts, strict=True))


def _point(text: str, term: str) -> str:
    return caret(text, text.find(term), len(term))
