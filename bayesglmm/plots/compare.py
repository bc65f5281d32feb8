"""The picture of a comparison: one strip per parameter, one colour per fit.

Every strip has its own scale, because the question is whether the fits agree on a parameter,
and parameters differ by orders of magnitude.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayesglmm.post.compare import Comparison

# Okabe & Ito's palette: distinguishable with any colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "D", "^", "v", "P")
_STRIPS_PER_COLUMN = 6


def plot_comparison(comparison: Comparison) -> Any:
    """Point and interval of every parameter for every fit.

    Returns
    -------
    matplotlib.figure.Figure
        Not shown, not registered with pyplot: display it, or ``.savefig(path)``.
    """
    from matplotlib.ticker import MaxNLocator

    from bayesglmm.plots.figure import Picture
    from bayesglmm.post.compare import label

    rows = list(comparison.table.iter_rows(named=True))
    columns = min(2, math.ceil(len(rows) / _STRIPS_PER_COLUMN))
    lines = math.ceil(len(rows) / columns)
    strip = 0.48 + 0.15 * len(comparison.names)
    height = 0.7 + strip * lines + 0.12 * (len(comparison.methods) - 1)
    figure = Picture(figsize=(4.6 * columns + 0.6, height), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).T.ravel()
    for axis in axes[len(rows) :]:
        axis.set_axis_off()
    for axis, row in zip(axes, rows, strict=False):
        for k, name in enumerate(comparison.names):
            _draw(axis, row, name, k)
        low, high = axis.get_xlim()
        if low < 0.0 < high:
            axis.axvline(0.0, color="0.8", linewidth=1.0, zorder=0)
        axis.set_ylim(len(comparison.names) - 0.4, -0.6)
        axis.set_yticks([])
        axis.set_ylabel(label(row), rotation=0, ha="right", va="center", fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.tick_params(axis="x", labelsize=8)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
        axis.spines["bottom"].set_color("0.6")
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=len(comparison.names),
        frameon=False,
        fontsize=9,
    )
    figure.supxlabel("\n".join(comparison.methods), fontsize=7, color="0.35")
    return figure


def _draw(axis: Any, row: dict[str, Any], name: str, k: int) -> None:
    colour = _COLOURS[k % len(_COLOURS)]
    low, high = row[f"{name}_conf_low"], row[f"{name}_conf_high"]
    if low is not None and high is not None:
        axis.hlines(k, low, high, color=colour, linewidth=1.8)
    axis.plot(
        [row[f"{name}_estimate"]],
        [k],
        marker=_MARKERS[k % len(_MARKERS)],
        color=colour,
        markersize=5,
        linestyle="none",
        label=name,
    )
