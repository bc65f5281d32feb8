"""A finished run of NUTS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesglmm.nuts.diagnostics import Diagnostics
from bayesglmm.nuts.options import NUTS


@dataclass(frozen=True, slots=True)
class Sampled:
    """A finished run.

    Attributes
    ----------
    tree
        ArviZ DataTree with ``posterior``, ``sample_stats``, ``observed_data``.
    options
        As asked for, with the seed, the coordinates, the warm-up and the number of draws that
        were used.
    centred
        Parameterisation used for each random-effects term in plain coordinates.
    diagnostics
        What the run says of itself.
    compile_seconds, sample_seconds
        Wall time.
    kind
        The coordinates that were sampled, in words.
    interrupted
        Whether the run was ended by hand, with the draws so far.
    """

    tree: Any
    options: NUTS
    centred: Mapping[str, bool]
    diagnostics: Diagnostics
    compile_seconds: float
    sample_seconds: float
    kind: str = ""
    interrupted: bool = False

    def values(self, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Draws of one variable, (chains, draws, ...)."""
        return np.asarray(self.tree["posterior"][name].values, dtype=np.float64)
