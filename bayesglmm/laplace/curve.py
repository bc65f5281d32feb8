"""Profile curves: the signed root deviance zeta as a function of one parameter.

zeta(v) = sign(v - v_hat) sqrt(2 (l_hat - l(v))), where l(v) is the log-likelihood maximised with
the parameter held at v (Bates et al. 2015, doi:10.18637/jss.v067.i01, section 5.1). It is a
straight line where the likelihood is that of a Gaussian; limits of the interval of probability
``level`` are where |zeta| is the normal quantile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from bayesglmm.errors import FitError

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline, PchipInterpolator

Array = NDArray[np.float64]
End = Literal["reached", "boundary", "flat", "undefined"]

# Quantiles of the usual levels are where the curve is computed: limits there need next to no
# interpolation. The last point lies beyond the outermost level, so that the spline is not at
# its end there.
_LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
_BEYOND = 0.4
_TOO_FAR = 0.4  # a step that overshoots its target by more is shortened
_GROWTH = 10.0
_MOST_STEPS = 60
_MOST_TRIALS = 12
_FLAT_STEPS = 4  # of growing length, in which zeta hardly changes
_FLAT = 0.05
_DOUBT = 0.002  # of the spline, in zeta; above it the curve is computed where the limits lie
_SURE = 2e-4  # and this near to the quantile
_MOST_CHECKS = 5
_BETTER = 1e-4  # a log-likelihood this much above the fit's is another maximum


@dataclass(frozen=True, slots=True)
class Range:
    """A parameter's range, and a coordinate in which its profile is nearly straight.

    Attributes
    ----------
    coordinate, value
        value -> coordinate and back, increasing.
    low, high
        Ends of the parameter's range, where a likelihood exists; infinite for none.
    """

    coordinate: Callable[[Array], Array]
    value: Callable[[Array], Array]
    low: float
    high: float


REAL = Range(np.asarray, np.asarray, -np.inf, np.inf)
CORRELATION = Range(np.asarray, np.asarray, -1.0, 1.0)
POSITIVE = Range(np.log, np.exp, -np.inf, np.inf)
NON_NEGATIVE = Range(np.asarray, np.asarray, 0.0, np.inf)


def sd_range(estimate: float) -> Range:
    """log(v^2 + estimate^2): smooth in v^2 at zero, as the likelihood is, logarithmic far out."""
    square = estimate**2
    return Range(
        lambda v: np.log(v * v + square),
        lambda t: np.sqrt(np.maximum(np.exp(t) - square, 0.0)),
        0.0,
        np.inf,
    )


@dataclass(frozen=True, slots=True)
class Curve:
    """A profile, on both sides of the estimate.

    Attributes
    ----------
    values, zeta
        (m,) ascending.
    estimate
        Where zeta is zero.
    range
        Range and coordinate of the parameter.
    ends
        How the curve ends below and above: at a zeta beyond the outermost level, at the end of
        the parameter's range, flat (zeta grows no more), or where no likelihood is defined.
    """

    values: Array
    zeta: Array
    estimate: float
    range: Range
    ends: tuple[End, End]

    def __post_init__(self) -> None:
        self.values.setflags(write=False)
        self.zeta.setflags(write=False)

    def at(self, zeta: Array) -> Array:
        """Values at given zeta: a cubic spline, or where that turns back a monotone one.

        Beyond the curve's ends NaN.
        """
        zeta = np.asarray(zeta)
        if len(self.values) < 2:
            return np.where(zeta == 0.0, self.estimate, np.nan)
        spline = _spline(self.zeta, self.range.coordinate(self.values))
        inside = (zeta >= self.zeta[0]) & (zeta <= self.zeta[-1])
        out = np.full(np.shape(zeta), np.nan)
        out[inside] = self.range.value(spline(zeta[inside]))
        return np.asarray(np.clip(out, self.range.low, self.range.high))

    def doubt(self, zeta: float) -> float:
        """How far off zeta the spline would be at its nearest knot, had it not that knot."""
        knots = self.range.coordinate(self.values)
        inner = np.abs(self.zeta[1:-1] - zeta)
        if len(inner) < 2:
            return np.inf
        k = 1 + int(np.argmin(inner))
        without = _spline(np.delete(self.zeta, k), np.delete(knots, k))
        rise = (self.zeta[k + 1] - self.zeta[k - 1]) / (knots[k + 1] - knots[k - 1])
        return float(abs(without(self.zeta[k]) - knots[k]) * rise)

    def slope(self) -> float:
        """d zeta / d value at the estimate, one over the standard error; NaN for none."""
        if len(self.values) < 2:
            return float("nan")
        ahead = float(self.at(np.array(0.01))) - self.estimate
        behind = self.estimate - float(self.at(np.array(-0.01)))
        span = float(np.nansum([ahead, behind]))
        count = int(np.isfinite([ahead, behind]).sum())
        return 0.01 * count / span if span > 0.0 else float("nan")

    def limits(self, level: float) -> tuple[float, float]:
        """Lower and upper limit; the end of the range where it is inside, NaN for none."""
        q = float(ndtri(0.5 + level / 2.0))
        low, high = (float(v) for v in self.at(np.array([-q, q])))
        if np.isnan(low) and self.ends[0] == "boundary":
            low = self.range.low
        if np.isnan(high) and self.ends[1] == "boundary":
            high = self.range.high
        return low, high


def _spline(zeta: Array, knots: Array) -> CubicSpline | PchipInterpolator:
    from scipy.interpolate import CubicSpline, PchipInterpolator  # slow to import

    spline = CubicSpline(zeta, knots)
    fine = np.linspace(zeta[0], zeta[-1], 20 * len(knots))
    return spline if np.all(np.diff(spline(fine)) > 0.0) else PchipInterpolator(zeta, knots)


UNDEFINED = Curve(np.zeros(0), np.zeros(0), np.nan, REAL, ("undefined", "undefined"))


def trace(
    maximum: Callable[[float], float], estimate: float, spread: float, over: Range, level: float
) -> Curve:
    """Follow a profile from the estimate to both sides, out to ``level``.

    Parameters
    ----------
    maximum
        value -> log-likelihood maximised over all else; -inf where it is not defined.
    spread
        Rough standard error in the coordinate of ``over``.

    Raises
    ------
    FitError
        If a likelihood higher than that at the estimate is found.
    """
    best = maximum(estimate)
    if not np.isfinite(best):
        return Curve(np.array([estimate]), np.zeros(1), estimate, over, UNDEFINED.ends)

    def size(value: float) -> float:
        """|zeta|."""
        loglik = maximum(value)
        if loglik > best + _BETTER:
            raise FitError(
                f"profiling found a log-likelihood of {loglik:.4f}, above the fit's {best:.4f}: "
                "the fit is not at the highest maximum, so its profile means nothing. Centre and "
                "scale the covariates, or simplify the random effects."
            )
        return float(np.sqrt(2.0 * max(best - loglik, 0.0)))

    quantiles = [float(ndtri(0.5 + v / 2.0)) for v in (*(v for v in _LEVELS if v < level), level)]
    below, low_end = _side(size, estimate, spread, over, quantiles, -1)
    above, high_end = _side(size, estimate, spread, over, quantiles, 1)
    points = {estimate: 0.0, **below, **above}

    def curve() -> Curve:
        values = np.array(sorted(points))
        return Curve(values, np.array([points[v] for v in values]), estimate, over, ends)

    ends = (low_end, high_end)
    for zeta in [sign * q for q in quantiles for sign in (-1, 1)]:
        for _ in range(_MOST_CHECKS):
            at = float(curve().at(np.array(zeta)))
            if np.isnan(at) or curve().doubt(zeta) < _DOUBT:
                break
            found = float(np.sign(zeta)) * size(at)
            under = max((z for v, z in points.items() if v < at), default=-np.inf)
            if not under < found < min((z for v, z in points.items() if v > at), default=np.inf):
                break
            points[at] = found
            if abs(found - zeta) < _SURE:
                break
    return curve()


def _side(
    size: Callable[[float], float],
    estimate: float,
    spread: float,
    over: Range,
    quantiles: list[float],
    sign: int,
) -> tuple[dict[float, float], End]:
    """Points value: zeta on one side, and how the side ends."""
    targets = [*quantiles, quantiles[-1] + _BEYOND]
    bound = over.high if sign > 0 else over.low
    edge = float(over.coordinate(np.array(bound))) if np.isfinite(bound) else sign * np.inf
    t, zeta = float(over.coordinate(np.array(estimate))), 0.0
    points: dict[float, float] = {}
    if t == edge:
        return points, "boundary"
    slope, step, still, climbed, wall = 1.0 / spread, np.inf, 0, 0, False
    for _ in range(_MOST_STEPS):
        target = next(v for v in targets if v > zeta + 0.1 or v == targets[-1])
        wanted = (target - zeta) / slope if slope > 0.0 else np.inf
        step = min(wanted, _GROWTH * step, abs(edge - t))
        if abs(edge - t) < 1.2 * step:
            step = abs(edge - t)
        wall = False
        for _ in range(_MOST_TRIALS):
            new_t = edge if step == abs(edge - t) else t + sign * step
            value = bound if new_t == edge else float(over.value(np.array(new_t)))
            new_zeta = size(value)
            if new_zeta <= target + _TOO_FAR:
                break
            wall |= np.isinf(new_zeta)
            step *= max(0.1, (target - zeta) / (new_zeta - zeta))
        else:
            return points, "undefined"
        still = still + 1 if new_zeta < zeta + _FLAT else 0
        if new_zeta > zeta + 1e-6:
            points[value] = sign * new_zeta
            slope = (new_zeta - zeta) / step
            zeta = new_zeta
        else:
            slope = 0.0
        t = new_t
        if zeta >= targets[-2] + 0.5 * _BEYOND:
            return points, "reached"
        if t == edge:
            return points, "boundary"
        climbed = climbed if still else len(points)
        if still >= _FLAT_STEPS:
            break
    # On a plateau zeta is rounding error, at values far out.
    return dict(list(points.items())[:climbed]), "undefined" if wall else "flat"
