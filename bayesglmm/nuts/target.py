"""What the sampler samples: a log-density in good coordinates, and what its points mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bayesglmm.errors import BayesglmmError

Array = NDArray[np.float64]
Shape = Literal["", "normal", "ridge"]


class NoTarget(BayesglmmError):
    """A way to sample does not apply to a model; the message says why."""


def _no_data() -> NDArray[np.intp]:
    return np.zeros(0, dtype=np.intp)


@dataclass(frozen=True, slots=True)
class Target:
    """A log-density on R^size, nearly standard normal.

    Attributes
    ----------
    size
        Number of coordinates.
    log_density
        (x, gradient) -> value: x (size,) is read, gradient (size,) filled. Compiled; releases
        the GIL.
    expand
        (x (m, size), standard normals (m, noise)) -> named variables, each (m, ...).
    kind
        How the coordinates came about, in words for the user.
    address
        The same density as a C function with signature :data:`bayesglmm.nuts.native.LOG_DENSITY`
        (``cfunc.address``), or zero for none. It runs without the GIL throughout, which saves
        about 10 microseconds a gradient. Whoever makes it keeps its code alive.
    data
        What the C function gets as its last argument: the address of this array.
        :func:`bayesglmm.nuts.native.addresses` packs several arrays. ``log_density`` or
        ``expand`` must keep alive what it points to.
    room
        Numbers of each working array of the C function. Every chain has its own, after the
        arrays of ``data``: :func:`bayesglmm.nuts.native.with_room` adds them.
    shape
        What trajectories meet: "normal" where the density is nearly standard normal, "ridge" where
        the data say nothing of some direction, which is longer and more bent than the others; ""
        for neither.
    noise
        Standard normals that ``expand`` takes for a row: variables that are integrated out are
        drawn by them afterwards.
    start
        seed -> (size,) point to start a chain from; None draws one around zero.
    coordinates
        The inverse of ``expand``: named variables, each (m, ...) -> x (m, size). None where
        some of the variables are integrated out.
    """

    size: int
    log_density: Callable[[Array, Array], float]
    expand: Callable[[Array, Array], dict[str, Array]]
    kind: str
    address: int = 0
    data: NDArray[np.intp] = field(default_factory=_no_data)
    room: tuple[int, ...] = ()
    shape: Shape = ""
    noise: int = 0
    start: Callable[[int], Array] | None = None
    coordinates: Callable[[Mapping[str, Array]], Array] | None = None
