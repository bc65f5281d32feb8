"""Which random effects are independent of each other given the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bayesglmm.laplace.structure import Array, Integers, Structure


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of effects that share no row with each other.

    Attributes
    ----------
    count
        Number of groups.
    of_rows, of_effects
        (n,) and (effects,) the group of each.
    """

    count: int
    of_rows: Integers
    of_effects: Integers

    def sum_rows(self, values: Array) -> Array:
        """(count,) sums over rows."""
        return np.bincount(self.of_rows, values, self.count)

    def sum_effects(self, values: Array) -> Array:
        """(count,) sums over effects."""
        return np.bincount(self.of_effects, values, self.count)


def groups_of(structure: Structure, index: Sequence[Integers]) -> Groups:
    """The levels of the outermost of nested terms; all in one group where terms cross.

    ``index`` is the level of each row, term by term in the formula's order.
    """
    n = len(index[0]) if index else 0
    if structure.q or not index:
        return Groups(1, np.zeros(n, dtype=np.intp), np.zeros(structure.effects, dtype=np.intp))
    of_rows = index[structure.order[structure.n_chain - 1]]
    of_effects = np.empty(structure.effects, dtype=np.intp)
    for f, place in enumerate(structure.order):
        J, K, first = (int(v) for v in structure.terms[f, :3])
        level = np.zeros(J, dtype=np.intp)
        level[index[place]] = of_rows
        of_effects[first : first + J * K] = np.repeat(level, K)
    return Groups(int(of_rows.max()) + 1, of_rows, of_effects)
