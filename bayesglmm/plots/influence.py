"""The picture of an influence analysis: one line of points for Cook's distance and each term."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bayesglmm.post.influence import Influence

_COLOUR = "#0072B2"
_NAMED = 3  # levels named in each panel


def plot_influence(influence: Influence) -> Any:
    """Cook's distance, and the dfbetas of every coefficient, level by level.

    Lines mark 0 and, for dfbetas, 2 / sqrt(g) for g levels (Belsley, Kuh and Welsch 1980). The
    three largest in each panel are named. Levels without a refit are left out.

    Returns
    -------
    matplotlib.figure.Figure
        Not shown, not registered with pyplot: display it, or ``.savefig(path)``.
    """
    from bayesglmm.plots.figure import Picture

    key = influence.table.columns[0]
    panels = [("Cook's D", influence.table.select(key, value="cooks_distance").drop_nulls())]
    for (term,), part in influence.coefficients.group_by(["term"], maintain_order=True):
        panels.append((f"dfbetas\n{term}", part.select(key, value="dfbetas").drop_nulls()))
    figure = Picture(figsize=(7.0, 0.6 + 1.3 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False).ravel()
    for axis, (name, part) in zip(axes, panels, strict=True):
        values = part["value"].to_numpy()
        at = np.arange(len(values))
        axis.vlines(at, 0.0, values, color=_COLOUR, linewidth=1.2)
        axis.plot(at, values, "o", color=_COLOUR, markersize=3)
        axis.axhline(0.0, color="0.6", linewidth=1.0)
        if name.startswith("dfbetas") and len(values):
            bound = 2.0 / np.sqrt(len(values))
            axis.axhline(bound, color="0.7", linewidth=0.8, linestyle="--")
            axis.axhline(-bound, color="0.7", linewidth=0.8, linestyle="--")
        for j in np.argsort(-np.abs(values))[:_NAMED]:
            text = str(part[key][int(j)])
            axis.annotate(
                text, (j, values[j]), (3, 2), textcoords="offset points", fontsize=7, color="0.2"
            )
        axis.set_ylabel(name, fontsize=8)
        axis.set_xticks([])
        axis.tick_params(axis="y", labelsize=7)
        for side in ("top", "right", "bottom"):
            axis.spines[side].set_visible(False)
    figure.supxlabel(influence.table.caption, fontsize=7, color="0.35")
    return figure
