"""The data over what a model expects: one curve for each draw, one for the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayesglmm.errors import ChoiceError

if TYPE_CHECKING:
    from bayesglmm.post.predictive import Predictive

Array = NDArray[np.float64]
_BLUE, _DARK = "#56B4E9", "0.1"  # Okabe & Ito
_CURVES = 50
_POINTS = 256
_MOST_VALUES = 40  # different whole numbers that are shown one by one


def plot_predictive(predictive: Predictive) -> Any:
    """Distribution of the responses in up to 50 draws, and of the data (bayesplot's ``ppc``).

    Densities where responses are continuous; the share of every value where they are whole
    numbers. The axis reaches at most three times as far as the data: a prior may go much further.

    Returns
    -------
    matplotlib.figure.Figure
        Not shown, not registered with pyplot: display it, or ``.savefig(path)``.

    Raises
    ------
    ChoiceError
        For new data, which have no response to compare with.
    """
    from bayesglmm.plots.figure import Picture

    y, draws = predictive.observed, predictive.draws[:_CURVES]
    if not len(y):
        raise ChoiceError("plot() sets draws against the data; those for newdata have none")
    whole = bool(np.all(y == np.round(y)) and np.all(draws == np.round(draws)))
    figure = Picture(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    low, high = _range(y, draws)
    at, curve, ylabel, marker = np.linspace(low, high, _POINTS), _density, "density", ""
    if whole and high - low <= _MOST_VALUES:
        at, curve, ylabel = np.arange(np.floor(low), np.ceil(high) + 1.0), _shares, "share of rows"
        marker = "o"
    line = "" if len(at) == 2 else "-"
    style: dict[str, Any] = {"marker": marker, "markersize": 3, "linestyle": line}
    for k, row in enumerate(draws):
        label = "draws" if k == 0 else None
        axis.plot(at, curve(row, at), color=_BLUE, lw=0.7, alpha=0.6, label=label, **style)
    axis.plot(at, curve(y, at), color=_DARK, lw=1.8, label="data", **style)
    axis.set_ylabel(ylabel, fontsize=9)
    axis.set_xlabel("response", fontsize=9)
    if curve is _shares and len(at) <= 12:
        axis.set_xticks(at)
    axis.set_ylim(bottom=0.0)
    axis.tick_params(labelsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.legend(frameon=False, fontsize=9)
    figure.supxlabel(predictive.table.caption, fontsize=6.5, color="0.35", wrap=True)
    return figure


def _range(y: Array, draws: Array) -> tuple[float, float]:
    """Where data and most of the draws lie, at most three times as wide as the data alone."""
    low, high = np.quantile(y, [0.0, 0.99 if y.min() >= 0.0 and y.max() > 10.0 else 1.0])
    finite = draws[np.isfinite(draws)]
    first, last = np.quantile(finite, [0.005, 0.995]) if len(finite) else (low, high)
    width = max(float(y.max() - low), 1e-12)
    bottom, top = max(first, low - width), min(last, high + width)
    return float(min(low, bottom)), float(max(high, top))


def _density(values: Array, at: Array) -> Array:
    """Kernel density of the finite values, scaled by their share; the rule of Silverman."""
    finite = values[np.isfinite(values)]
    spread = np.std(finite) if len(finite) > 1 else 0.0
    if len(finite) > 1:
        quartiles = np.quantile(finite, [0.25, 0.75])
        robust = float(quartiles[1] - quartiles[0]) / 1.349
        spread = min(spread, robust) if robust > 0.0 else spread
    if spread == 0.0:
        return np.full(len(at), np.nan)
    width = 0.9 * spread * len(finite) ** -0.2
    # Values in cells of a fraction of the width: a draw may have a hundred thousand.
    step = float(at[1] - at[0])
    edges = np.concatenate([at - 0.5 * step, [at[-1] + 0.5 * step]])
    counts = np.histogram(finite, edges)[0]
    z = (at[:, None] - at) / max(width, 0.5 * step)
    kernel = np.exp(-0.5 * z * z) / (max(width, 0.5 * step) * np.sqrt(2.0 * np.pi))
    return np.asarray(kernel @ counts / len(values))


def _shares(values: Array, at: Array) -> Array:
    """The share of the rows that has each value."""
    return np.asarray([np.mean(values == value) for value in at])
