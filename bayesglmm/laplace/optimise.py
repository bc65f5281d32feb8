"""Maximisation of a smooth function with its gradient: BFGS, then Newton where that is not enough.

BFGS reaches the optimum to rounding in few evaluations; the Hessian there, from central
differences of the analytical gradient, is what the covariance of the estimates needs and what
confirms the optimum. (BFGS's own inverse Hessian is wrong by percents: it is never used.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dsyevd

Array = NDArray[np.float64]
Objective = Callable[[Array], tuple[float, Array]]
Metric = Callable[[], Array]

_MAX_ITERATIONS = 300
_NEWTON_STEPS = 8
# Squared distances to the optimum, in standard errors: 2 (L_max - L) to second order.
_ARRIVED = 1e-11
_GOOD = 1e-13
_CONVERGED = 1e-6
_LONGEST = 30.0  # step of an iteration in any coordinate, each scaled to its expected change
_NEAR = 0.1  # from here on the search learns the metric by itself
_TOO_LONG = 0.25  # share of a step at which the metric that gave it was no guide
# Values closer than this, relative, may differ by rounding and by the inner iteration only.
_NOISE = 1e-10
# Differences of a gradient that is exact to about 1e-10: error about 1e-7 from either side.
_STEP = 5e-4
_SMALL_STEP = 1e-6  # of forward differences for a thousand rows or fewer; rounding grows with rows
_MANY_ROWS = 100_000
_FLAT = 1e-3  # ratio of curvatures from which on forward differences are not enough
_BEND = 0.2  # how far from linear a gradient may be over two steps, relative to its change


@dataclass(frozen=True, slots=True)
class Optimum:
    """Where the search ended.

    Attributes
    ----------
    x, value, gradient
        The point, the function and its gradient there.
    curvature
        Hessian at ``x``.
    converged
        Whether the gradient vanished, in the metric of the Hessian.
    evaluations
        Number of evaluations of the function with its gradient.
    trace
        Value after each iteration.
    """

    x: Array
    value: float
    gradient: Array
    curvature: Array
    converged: bool
    evaluations: int
    trace: tuple[float, ...]


def forward_step(rows: float) -> float:
    """The step at which forward differences are as exact as central ones; 0 where none is."""
    return _SMALL_STEP * math.sqrt(max(rows, 1000) / 1000) if rows < _MANY_ROWS else 0.0


def hessian(
    objective: Objective, x: Array, scale: Array, gradient: Array, *, forward: float = 0.0
) -> Array:
    """Symmetrised differences of the gradient, which is ``gradient`` at x.

    Central ones with steps ``5e-4 * scale``; they are shortened near the edge of the objective's
    domain, and where the gradient is far from linear (beside estimates that run to infinity);
    beyond repair the column is zero, as of a direction that is not identified. The error is
    about 1e-7.

    Where ``forward`` is not zero, forward ones with steps ``forward * scale``, at half the cost:
    for a gradient that is exact to rounding. The error is about ``forward``.
    """
    size = len(x)
    out = np.zeros((size, size))
    if forward:
        gradient = objective(x)[1]  # once more: now it is known to be the centre of differences
    for k in range(size):
        step, straightest = np.zeros(size), np.inf
        if forward:
            step[k] = forward * scale[k]
            slope = (objective(x + step)[1] - gradient) / step[k]
            if np.isfinite(slope).all():
                out[:, k] = slope
                continue
        for shorter in (1.0, 0.1, 0.01, 0.001):
            step[k] = _STEP * scale[k] * shorter
            above, below = objective(x + step)[1], objective(x - step)[1]
            difference = above - below
            if not np.isfinite(difference).all():
                continue
            bend = float(np.linalg.norm(above + below - 2.0 * gradient))
            bend /= max(float(np.linalg.norm(difference)), 1e-300)
            if bend < straightest:  # a step too short is all rounding
                out[:, k], straightest = difference / (2.0 * step[k]), bend
            if bend <= _BEND:
                break
    return 0.5 * (out + out.T)


def maximise(
    objective: Objective,
    start: Array,
    scale: Array,
    *,
    metric: Metric | None = None,
    inverse: Array | None = None,
    forward: float = 0.0,
    growing: bool = False,
) -> Optimum:
    """Maximise from ``start``; ``scale`` is the expected size of a change in each entry.

    The objective may return ``-inf`` where it is undefined: such steps are halved.

    Parameters
    ----------
    metric
        Gives the negative Hessian at the point evaluated last, as far as it is known without
        search; by default nothing is.
    inverse
        About the inverse of the negative Hessian at the start, positive definite, where a metric
        is not known everywhere.
    forward
        Step of forward differences for the Hessian, 0 for central ones; see :func:`hessian`.
    growing
        Whether the longest step may grow: where the function has no other maxima far away.
    """
    evaluations, unit = 0, np.outer(scale, scale)

    def scaled(z: Array) -> tuple[float, Array]:
        nonlocal evaluations
        evaluations += 1
        value, gradient = objective(start + scale * z)
        gradient = gradient * scale
        if not math.isfinite(value + gradient.sum()):
            return -np.inf, np.full_like(z, np.nan)
        return value, gradient

    z = np.zeros_like(start)
    value, gradient = scaled(z)
    trace = [value]
    known = None if metric is None else lambda: metric() * unit
    z, value, gradient, _ = bfgs(
        scaled,
        z,
        value,
        gradient,
        trace,
        metric=known,
        inverse=None if inverse is None else inverse / unit,
        growing=growing,
    )
    ones = np.ones_like(z)
    curvature = hessian(scaled, z, ones, gradient, forward=forward)
    step, distance, flattest = _newton_step(curvature, gradient)
    if forward and flattest < _FLAT:  # that direction wants more digits
        forward = 0.0
        curvature = hessian(scaled, z, ones, gradient)
        step, distance, _ = _newton_step(curvature, gradient)
    for _ in range(_NEWTON_STEPS):
        if not distance > _GOOD:
            break
        before = distance
        moved = False
        for size in (1.0, 0.5, 0.25, 0.1, 0.01):
            new_value, new_gradient = scaled(z + size * step)
            better = np.linalg.norm(new_gradient) < np.linalg.norm(gradient)
            if new_value > value or (better and new_value > value - _NOISE * (1 + abs(value))):
                z, value, gradient, moved = z + size * step, new_value, new_gradient, True
                break
        trace.append(value)
        if not moved:
            break
        # Moved too far for the curvature to be that of the new point, as exactly as it was known.
        if before > (_ARRIVED if forward else _GOOD):
            curvature = hessian(scaled, z, ones, gradient, forward=forward)
        step, distance, _ = _newton_step(curvature, gradient)
    return Optimum(
        start + scale * z,
        value,
        gradient / scale,
        curvature / unit,
        bool(distance < _CONVERGED),
        evaluations,
        tuple(trace),
    )


def eigen(A: Array) -> tuple[Array, Array]:
    """Eigenvalues of a symmetric matrix, ascending, and its eigenvectors (columns).

    LAPACK itself: for the few parameters of a model, NumPy's checks take longer than it does.

    Raises
    ------
    numpy.linalg.LinAlgError
        If they are not found, as for a matrix that is not finite.
    """
    if not len(A):
        return np.zeros(0), np.zeros((0, 0))
    values, vectors, info = dsyevd(A)
    if info or not np.isfinite(values).all():
        raise np.linalg.LinAlgError("eigenvalues were not found")
    return values, vectors


def _inverse(information: Array) -> Array:
    """Of a symmetric matrix, its eigenvalues made positive and bounded."""
    values, vectors = eigen(information)
    size = np.abs(values)
    floor = 1e-6 * max(float(size.max(initial=0.0)), 1e-300)
    return np.asarray((vectors / np.maximum(size, floor)) @ vectors.T)


def _newton_step(curvature: Array, gradient: Array) -> tuple[Array, float, float]:
    """Ascent step, the squared distance it covers in standard errors, and the least curvature.

    The Hessian's eigenvalues are made negative and bounded; the least is relative to the largest.
    """
    values, vectors = eigen(curvature)
    size = np.abs(values)
    largest = float(size.max(initial=0.0))
    step = vectors @ ((vectors.T @ gradient) / np.maximum(size, 1e-8 * max(1.0, largest)))
    least = float(size.min(initial=np.inf)) / max(largest, 1e-300)
    return step, float(gradient @ step), least


def bfgs(
    objective: Objective,
    z: Array,
    value: float,
    gradient: Array,
    trace: list[float],
    *,
    metric: Metric | None = None,
    inverse: Array | None = None,
    growing: bool = False,
    arrived: float = _ARRIVED,
) -> tuple[Array, float, Array, Array]:
    """Quasi-Newton ascent until the squared distance to the top, in its metric, is ``arrived``.

    Returns
    -------
    z, value, gradient, (m, m) approximate inverse of the negative Hessian
    """
    identity = np.eye(len(z))
    fresh, far = metric is None and inverse is None, metric is not None
    longest = _LONGEST
    if inverse is None:
        inverse = identity / max(1.0, float(np.linalg.norm(gradient)))
    for _ in range(_MAX_ITERATIONS):
        if metric is not None and far:
            inverse = _inverse(metric())
        step = inverse @ gradient
        length = max(float(np.abs(step).max(initial=0.0)), 1e-300)
        step *= min(1.0, longest / length)
        slope = float(step @ gradient)
        far = slope > _NEAR
        if not slope > arrived:
            break
        noise = _NOISE * (1.0 + abs(value))
        size = 1.0
        while size > 1e-12:
            new_value, new_gradient = objective(z + size * step)
            if new_value >= value + 1e-4 * size * slope:
                break
            # So near the top that values say nothing: the gradient has to shrink.
            if slope < noise and new_gradient @ inverse @ new_gradient < slope:
                break
            size *= 0.5 if math.isfinite(new_value) else 0.1
            if slope < 1e-3 * noise and size < 0.1:
                size = 0.0
        else:
            if fresh or slope < noise:
                break
            inverse, fresh = identity / max(1.0, float(np.linalg.norm(gradient))), True
            metric = None
            continue
        if growing and length > longest and size == 1.0:
            longest *= 2.0
        if far and size < _TOO_LONG:  # the average information vanishes with an sd
            metric = None
        s, y = size * step, gradient - new_gradient
        z, value, gradient = z + s, new_value, new_gradient
        trace.append(value)
        bend = float(s @ y)
        if bend > 1e-12 * math.sqrt(float(s @ s) * float(y @ y)):
            if fresh:
                inverse, fresh = identity * (bend / float(y @ y)), False
            left = identity - s[:, None] * (y / bend)
            inverse = left @ inverse @ left.T + s[:, None] * (s / bend)
    return z, value, gradient, inverse
