"""Maximisation of a smooth function with its gradient: BFGS, finished by Newton steps.

BFGS comes near the optimum in few evaluations; the Hessian there, from central differences of
the analytical gradient, both finishes the search to full precision and is what the covariance
of the estimates needs. (BFGS's own inverse Hessian is wrong by percents: it is never used.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Objective = Callable[[Array], tuple[float, Array]]

_MAX_ITERATIONS = 300
_ROUGH_GRADIENT = 1e-3  # where Newton takes over, in the scaled coordinates
_FINE_GRADIENT = 1e-8
_NEWTON_STEPS = 8
# Differences of a gradient that is exact to about 1e-10: error about 1e-7 from either side.
_STEP = 5e-4


@dataclass(frozen=True, slots=True)
class Optimum:
    """Where the search ended.

    Attributes
    ----------
    x, value, gradient
        The point, the function and its gradient there.
    converged
        Whether the scaled gradient vanished.
    evaluations
        Number of evaluations of the function with its gradient.
    trace
        Best value after each iteration.
    """

    x: Array
    value: float
    gradient: Array
    converged: bool
    evaluations: int
    trace: tuple[float, ...]


def hessian(objective: Objective, x: Array, scale: Array) -> Array:
    """Symmetrised central differences of the gradient, with steps ``5e-4 * scale``.

    Near the edge of the objective's domain the steps are shortened; beyond repair the column
    is zero, as of a direction that is not identified.
    """
    size = len(x)
    out = np.zeros((size, size))
    for k in range(size):
        step = np.zeros(size)
        for shorter in (1.0, 0.1, 0.01):
            step[k] = _STEP * scale[k] * shorter
            slope = (objective(x + step)[1] - objective(x - step)[1]) / (2.0 * step[k])
            if np.all(np.isfinite(slope)):
                out[:, k] = slope
                break
    return 0.5 * (out + out.T)


def maximise(objective: Objective, start: Array, scale: Array) -> Optimum:
    """Maximise from ``start``; ``scale`` is the expected size of a change in each entry.

    The objective may return ``-inf`` where it is undefined: such steps are halved.
    """
    evaluations = 0

    def scaled(z: Array) -> tuple[float, Array]:
        nonlocal evaluations
        evaluations += 1
        value, gradient = objective(start + scale * z)
        if not np.isfinite(value) or not np.all(np.isfinite(gradient)):
            return -np.inf, np.full_like(z, np.nan)
        return value, gradient * scale

    z = np.zeros_like(start)
    value, gradient = scaled(z)
    trace = [value]
    z, value, gradient = _bfgs(scaled, z, value, gradient, trace)
    ones = np.ones_like(z)
    curvature = hessian(scaled, z, ones)
    for _ in range(_NEWTON_STEPS):
        before = float(np.linalg.norm(gradient))
        if before < _FINE_GRADIENT:
            break
        step = _newton_step(curvature, gradient)
        moved = False
        for size in (1.0, 0.5, 0.25, 0.1, 0.01):
            new_value, new_gradient = scaled(z + size * step)
            better = float(np.linalg.norm(new_gradient)) < before
            if new_value > value or (better and new_value > value - 1e-8 * (1 + abs(value))):
                z, value, gradient, moved = z + size * step, new_value, new_gradient, True
                break
        trace.append(value)
        if not moved:
            break
        if float(np.linalg.norm(gradient)) > 0.1 * before:  # the curvature is out of date
            curvature = hessian(scaled, z, ones)
    return Optimum(
        start + scale * z,
        value,
        gradient / scale,
        bool(np.max(np.abs(gradient), initial=0.0) < _ROUGH_GRADIENT),
        evaluations,
        tuple(trace),
    )


def _newton_step(curvature: Array, gradient: Array) -> Array:
    """Ascent step: the Hessian with its eigenvalues made negative and bounded."""
    values, vectors = np.linalg.eigh(-curvature)
    floor = 1e-8 * max(1.0, float(np.max(np.abs(values), initial=0.0)))
    return np.asarray(vectors @ ((vectors.T @ gradient) / np.maximum(np.abs(values), floor)))


def _bfgs(
    objective: Objective, z: Array, value: float, gradient: Array, trace: list[float]
) -> tuple[Array, float, Array]:
    inverse = np.eye(len(z)) / max(1.0, float(np.linalg.norm(gradient)))
    fresh = True
    for _ in range(_MAX_ITERATIONS):
        if np.max(np.abs(gradient), initial=0.0) < _ROUGH_GRADIENT:
            break
        step = inverse @ gradient
        slope = float(step @ gradient)
        size = 1.0
        while size > 1e-12:
            new_value, new_gradient = objective(z + size * step)
            if new_value >= value + 1e-4 * size * slope:
                break
            size *= 0.5 if np.isfinite(new_value) else 0.1
        else:
            if fresh:
                break
            inverse, fresh = np.eye(len(z)) / max(1.0, float(np.linalg.norm(gradient))), True
            continue
        s, y = size * step, gradient - new_gradient
        z, value, gradient = z + s, new_value, new_gradient
        trace.append(value)
        curvature = float(s @ y)
        if curvature > 1e-12 * float(np.linalg.norm(s) * np.linalg.norm(y)):
            if fresh:
                inverse, fresh = np.eye(len(z)) * (curvature / float(y @ y)), False
            rho = 1.0 / curvature
            left = np.eye(len(z)) - rho * np.outer(s, y)
            inverse = left @ inverse @ left.T + rho * np.outer(s, s)
    return z, value, gradient
