"""Confidence intervals from bootstrap draws of one quantity."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

__all__ = ["INTERVALS", "Interval", "interval"]

Interval = Literal["percentile", "basic", "normal", "shortest"]
INTERVALS = ("percentile", "basic", "normal", "shortest")


def interval(
    draws: NDArray[np.float64], estimate: float, level: float, kind: Interval
) -> tuple[float, float]:
    """An interval of probability ``level``.

    The p quantile is order statistic (n + 1) p, interpolated (Davison & Hinkley 1997, chapter 5,
    doi:10.1017/CBO9780511802843); beyond the draws it is the outermost one.

    Parameters
    ----------
    draws
        (n,), n at least 2. Infinite ones count; an end that they reach is not finite.
    estimate
        Of the fit that the draws were simulated from.
    kind
        ``"percentile"``: quantiles of the draws. ``"basic"``: 2 estimate - quantiles.
        ``"normal"``: estimate - bias -+ z sd. ``"shortest"``: the shortest that contains the
        share ``level`` of the draws (MixedModels.jl's ``shortestcovint``).

    Examples
    --------
    >>> draws = np.arange(1.0, 100.0)
    >>> interval(draws, 40.0, 0.5, "percentile"), interval(draws, 40.0, 0.5, "basic")
    ((25.0, 75.0), (5.0, 55.0))
    """
    tail = (1.0 - level) / 2.0
    if kind == "normal":
        centre = 2.0 * estimate - float(draws.mean())
        half = -float(ndtri(tail)) * float(draws.std(ddof=1))
        return centre - half, centre + half
    if kind == "shortest":
        ordered = np.sort(draws)
        size = int(np.ceil(level * len(ordered)))
        widths = ordered[size - 1 :] - ordered[: len(ordered) - size + 1]
        first = int(np.argmin(widths))
        return float(ordered[first]), float(ordered[first + size - 1])
    low, high = np.quantile(draws, [tail, 1.0 - tail], method="weibull").tolist()
    if kind == "percentile":
        return low, high
    return 2.0 * estimate - high, 2.0 * estimate - low
