"""Groups of rows that are left out together: the levels of a factor, or single rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesglmm.design import Design
from bayesglmm.errors import ChoiceError, DataError, check_choice


def levels_of(design: Design, group: str | None) -> tuple[list[Any], NDArray[np.intp]]:
    """The levels, and the place among them of each row.

    Parameters
    ----------
    group
        A grouping factor of the model, or a column of the data; None for single rows, whose
        levels are their positions in the data.

    Raises
    ------
    ChoiceError
        For a group that is neither.
    DataError
        For a column with missing values, or with one level.
    """
    if group is None:
        return design.rows.tolist(), np.arange(design.n)
    for term in design.random:
        if term.factor == group:
            return list(term.levels), term.index
    factors = [t.factor for t in design.random]
    if group == design.response.name:
        raise ChoiceError(
            f"group={group!r} is the response: leaving out all rows of one value says nothing of "
            f"prediction. Give a factor, e.g. {', '.join(map(repr, factors)) or 'a column'}"
        )
    others = [name for name in design.data.columns if name != design.response.name]
    check_choice("group", group, dict.fromkeys([*factors, *others]))
    column = design.data.get_column(group)
    if column.null_count():
        raise DataError(
            f"group={group!r} is missing in {column.null_count()} of the rows used; give a "
            "column that is complete"
        )
    values = column.unique(maintain_order=True)
    if len(values) < 2:
        raise DataError(f"group={group!r} has one level: nothing would be left to fit")
    place = {value: j for j, value in enumerate(values.to_list())}
    index = np.array([place[value] for value in column.to_list()], dtype=np.intp)
    return [str(value) for value in place], index
