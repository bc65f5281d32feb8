"""What the sampler samples: a log-density in good coordinates, and what its points mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesglmm.errors import BayesglmmError

Array = NDArray[np.float64]


class NoTarget(BayesglmmError):
    """A way to sample does not apply to a model; the message says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """A log-density on R^size, nearly standard normal.

    Attributes
    ----------
    size
        Number of coordinates.
    log_density
        (x, gradient) -> value: x (size,) is read, gradient (size,) filled. Compiled; releases
        the GIL; any number of threads may call it.
    expand
        (x (m, size), seed) -> named variables, each (m, ...). The seed is for targets that
        integrate some of them out and draw them afterwards.
    kind
        How the coordinates came about, in words for the user.
    coordinates
        The inverse of ``expand``: named variables -> x (m, size). None for targets that
        integrate some of them out.
    """

    size: int
    log_density: Callable[[Array, Array], float]
    expand: Callable[[Array, int], dict[str, Array]]
    kind: str
    coordinates: Callable[[Mapping[str, Array]], Array] | None = None
