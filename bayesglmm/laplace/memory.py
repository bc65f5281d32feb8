"""A clear refusal where the dense block of crossed factors would not fit into memory."""

from __future__ import annotations

import os

from bayesglmm.design import Design
from bayesglmm.errors import FitError
from bayesglmm.laplace.structure import Structure

# Of q x q held at the same time: the factors of the two points that a search remembers, the one
# being made, and its inverse.
_DENSE_MATRICES = 4


def physical_memory() -> float:
    """Bytes of memory of this machine; infinite where the system does not say."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def check_memory(structure: Structure, design: Design) -> None:
    """Systems that promise more memory than they have would end the process instead.

    Raises
    ------
    FitError
        If the dense block needs more than the machine has.
    """
    needed = 8.0 * _DENSE_MATRICES * float(structure.q) ** 2
    present = physical_memory()
    if needed > present:
        trailing = [design.random[f] for f in structure.order[structure.n_chain :]]
        sizes = ", ".join(f"{t.name} ({len(t.levels) * len(t.columns)})" for t in trailing)
        raise FitError(
            f"crossed terms with {structure.q} random effects in all, {sizes}, need a dense "
            f"matrix of {structure.q} rows: {needed / 2**30:.0f} GiB, and this machine has "
            f"{present / 2**30:.0f} GiB. Only the largest of crossed factors is cheap: merge "
            "levels of the others, drop a term, or make it a fixed effect of few levels"
        )
