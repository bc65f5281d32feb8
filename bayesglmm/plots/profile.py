"""Zeta curves: one panel per parameter, the interval marked on its axis."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri

if TYPE_CHECKING:
    from bayesglmm.laplace.curve import Curve
    from bayesglmm.post.profile import Profile

_COLUMNS = 3
_BLUE, _ORANGE = "#0072B2", "#D55E00"  # Okabe & Ito


def plot_profile(profile: Profile, level: float) -> Any:
    """Zeta against every parameter; a straight line means that the likelihood is a Gaussian's.

    Returns
    -------
    matplotlib.figure.Figure
        Not shown, not registered with pyplot: display it, or ``.savefig(path)``.
    """
    from bayesglmm.plots.figure import Picture

    count = len(profile.curves)
    columns = min(_COLUMNS, count)
    lines = math.ceil(count / columns)
    figure = Picture(figsize=(3.2 * columns + 0.4, 2.5 * lines + 0.5), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axis in axes[count:]:
        axis.set_axis_off()
    q = float(ndtri(0.5 + level / 2.0))
    for axis, label, curve in zip(axes, profile.labels, profile.curves, strict=False):
        _draw(axis, curve, curve.limits(level), q)
        axis.set_title(label.name, fontsize=9)
    for axis in axes[::columns]:
        axis.set_ylabel("zeta", fontsize=9)
    figure.supxlabel(
        f"{profile.fit.method}; dashed: zeta = ±{q:.2f}, the ends of the {100 * level:g}% "
        "profile-likelihood interval; thin: tangent at the estimate",
        fontsize=7,
        color="0.35",
    )
    return figure


def _draw(axis: Any, curve: Curve, limits: tuple[float, float], q: float) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color("0.6")
    axis.tick_params(labelsize=8)
    axis.locator_params(axis="x", nbins=6)
    for height in (-q, q):
        axis.axhline(height, color="0.75", linewidth=0.8, linestyle="--", zorder=0)
    axis.axhline(0.0, color="0.85", linewidth=0.8, zorder=0)
    if len(curve.values) < 2:
        axis.text(0.5, 0.5, "not identified", transform=axis.transAxes, ha="center", fontsize=8)
        return
    zeta = np.linspace(curve.zeta[0], curve.zeta[-1], 200)
    values = curve.at(zeta)
    axis.plot(values, zeta, color=_BLUE, linewidth=1.8)
    slope = curve.slope()
    if np.isfinite(slope):
        shown = np.abs(line := slope * (values - curve.estimate)) < np.max(np.abs(zeta))
        axis.plot(values[shown], line[shown], color="0.5", linewidth=0.7, zorder=1)
    axis.plot([curve.estimate], [0.0], "o", color=_BLUE, markersize=4)
    for limit, height in zip(limits, (-q, q), strict=True):
        if np.isfinite(limit):
            at = float(np.clip(height, curve.zeta[0], curve.zeta[-1]))
            axis.vlines(limit, *sorted((at, 0.0)), color=_ORANGE, linewidth=1.4)
    low, high = (
        limit if np.isfinite(limit) else end
        for limit, end in zip(limits, curve.values[[0, -1]], strict=True)
    )
    axis.hlines(0.0, low, high, color=_ORANGE, linewidth=1.8)
