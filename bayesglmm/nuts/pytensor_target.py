"""A PyMC model as a target: the route of custom families and priors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from bayesglmm.nuts.target import Array, Target


def pytensor_target(pymc_model: Any, names: Sequence[str], kind: str) -> Target:
    """Compile a PyMC model (numba, some seconds) and wrap it.

    Parameters
    ----------
    pymc_model
        A ``pm.Model``.
    names
        The variables to keep.
    """
    import nutpie

    compiled = nutpie.compile_pymc_model(pymc_model)
    size, expanded = compiled.n_dim, compiled.n_expanded
    data = compiled.user_data.ctypes.data
    where = {
        name: (part, shape)
        for name, part, shape in zip(*compiled.shape_info, strict=True)
        if name in names
    }

    def pointer(array: Array) -> Any:
        return array.ctypes.data_as(ctypes.POINTER(ctypes.c_double))

    # Both functions hold ``compiled``, and with it the code and the data behind the addresses.
    def log_density(x: Array, gradient: Array) -> float:
        value = np.empty(1)
        call = compiled.compiled_logp_func.ctypes
        code = call(size, pointer(x), pointer(gradient), pointer(value), data)
        return float(value[0]) if code == 0 else float("nan")

    def expand(x: Array, noise: Array) -> dict[str, Array]:
        x, write = np.ascontiguousarray(x), compiled.compiled_expand_func.ctypes
        out = np.empty((len(x), expanded))
        for row, variables in zip(x, out, strict=True):
            write(size, expanded, pointer(row), pointer(variables), data)
        return {
            name: out[:, part].reshape(len(x), *(int(n) for n in shape))
            for name, (part, shape) in where.items()
        }

    return Target(
        size,
        log_density,
        expand,
        kind,
        address=compiled.compiled_logp_func.address,
        data=compiled.user_data,
        start=compiled.initial_point_func,
    )
