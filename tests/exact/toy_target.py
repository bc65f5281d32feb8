"""A model whose posterior is known, sampled without PyTensor: for tests of the sampling itself.

`lm("y ~ 1")` with flat priors in name only: what is sampled is beta ~ N(mean, sd), log sigma ~
N(0, 1). Run as a script it fits that model into a store, slowly, to be killed:
``toy_target.py STORE DRAWS SECONDS_PER_DRAW``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numba import carray, cfunc, njit  # type: ignore[attr-defined]
from numpy.typing import NDArray

import bayesglmm as bg
from bayesglmm.model import Model
from bayesglmm.nuts import sampler
from bayesglmm.nuts.native import LOG_DENSITY, addresses, floats
from bayesglmm.nuts.options import NUTS
from bayesglmm.nuts.target import Array, Target

MEAN, SD = np.array([3.0, 0.0]), np.array([0.5, 1.0])


@njit(cache=True, nogil=True)
def _kernel(x, gradient, mean, sd):  # type: ignore[no-untyped-def]
    value = 0.0
    for i in range(len(x)):
        z = (x[i] - mean[i]) / sd[i]
        gradient[i] = -z / sd[i]
        value -= 0.5 * z * z
    return value


@cfunc(LOG_DENSITY, cache=True)
def _native(size, x, gradient, value, data):  # type: ignore[no-untyped-def]
    mean, sd = floats(data, 0), floats(data, 1)
    value[0] = _kernel(carray(x, size), carray(gradient, size), mean, sd)
    return 0


def toy(
    *, native: bool = True, mean: Array = MEAN, sd: Array = SD, wait: float = 0.0, kind: str = "toy"
) -> Target:
    """Independent normals; ``wait`` seconds at every evaluation."""

    def log_density(x: Array, gradient: Array) -> float:
        if wait:
            time.sleep(wait)
        return float(_kernel(x, gradient, mean, sd))

    def expand(x: Array, noise: Array) -> dict[str, NDArray[Any]]:
        return {"beta": x[:, :1], "sigma": np.exp(x[:, 1]), "noise": noise[:, 0]}

    address = cast(int, _native.address) if native and not wait else 0
    return Target(len(mean), log_density, expand, kind, address, addresses(mean, sd), noise=1)


def toy_model() -> Model:
    return bg.lm("y ~ 1", {"y": [2.0, 3.0, 4.5]})


def toy_route(target: Target) -> Callable[[Model, NUTS], sampler.Route]:
    """In place of :func:`bayesglmm.nuts.sampler.choose_route`."""

    def choose(model: Model, options: NUTS) -> sampler.Route:
        settings = sampler._settings(options, "laplace")
        return sampler.on_target(target, options, {}, settings)

    return choose


if __name__ == "__main__":
    setattr(sampler, "choose_route", toy_route(toy(wait=float(sys.argv[3]))))  # noqa: B010
    toy_model().fit("nuts", draws=int(sys.argv[2]), tune=50, chains=2, seed=1, store=sys.argv[1])
