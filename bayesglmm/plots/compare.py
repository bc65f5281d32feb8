"""The picture of a comparison: one panel per scale, one colour per fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayesglmm.post.compare import Comparison

# Okabe & Ito's palette: distinguishable with any colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "D", "^", "v", "P")
_PANELS = (
    ("coefficient", "Coefficients (link scale)"),
    ("sd", "Standard deviations"),
    ("corr", "Correlations"),
)


def plot_comparison(comparison: Comparison) -> Any:
    """Point and interval of every parameter for every fit.

    Returns
    -------
    matplotlib.figure.Figure
        Not shown, not registered with pyplot: display it, or ``.savefig(path)``.
    """
    from matplotlib.figure import Figure

    from bayesglmm.post.compare import label

    rows = list(comparison.table.iter_rows(named=True))
    panels = []
    for kind, title in _PANELS:
        members = [r for r in rows if r["kind"] == kind or (kind, r["kind"]) == ("sd", "residual")]
        if members:
            panels.append((title, members))
    heights = [len(members) + 0.9 for _, members in panels]
    figure = Figure(figsize=(7.0, 0.9 + 0.42 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    count = len(comparison.names)
    for axis, (title, members) in zip(axes, panels, strict=True):
        for k, name in enumerate(comparison.names):
            shift = (k - (count - 1) / 2) * 0.5 / max(count, 2)
            _draw(axis, members, name, k, shift)
        if min(_lowest(members, comparison.names), 0.0) < 0.0:
            axis.axvline(0.0, color="0.75", linewidth=0.8, zorder=0)
        axis.set_yticks(range(len(members)), [label(r) for r in members])
        axis.set_ylim(len(members) - 0.4, -0.6)
        axis.set_title(title, loc="left", fontsize=10)
        axis.tick_params(axis="y", length=0)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside upper right",
        ncols=count,
        frameon=False,
        fontsize=9,
    )
    return figure


def _lowest(members: list[dict[str, Any]], names: tuple[str, ...]) -> float:
    bounds = [r[f"{n}_{c}"] for r in members for n in names for c in ("estimate", "conf_low")]
    return min(b for b in bounds if b is not None)


def _draw(axis: Any, members: list[dict[str, Any]], name: str, k: int, shift: float) -> None:
    colour = _COLOURS[k % len(_COLOURS)]
    for y, row in enumerate(members):
        low, high = row[f"{name}_conf_low"], row[f"{name}_conf_high"]
        if low is not None and high is not None:
            axis.hlines(y + shift, low, high, color=colour, linewidth=1.6)
        axis.plot(
            [row[f"{name}_estimate"]],
            [y + shift],
            marker=_MARKERS[k % len(_MARKERS)],
            color=colour,
            markersize=5,
            linestyle="none",
            label=name if y == 0 else None,
        )
