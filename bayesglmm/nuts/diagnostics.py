"""What a run says of itself, and what to do about it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesglmm.nuts.options import NUTS
from bayesglmm.nuts.run import AGREED, Drawn
from bayesglmm.posterior.draws import Draws

_APART = 1.05  # R-hat from which one chain may stand out
_MIN_ESS_PER_CHAIN = 100
_MIN_BFMI = 0.3


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """Convergence diagnostics over all parameters, random effects included.

    Attributes
    ----------
    r_hat
        Largest rank-normalised R-hat, and the parameter that has it.
    ess_bulk, ess_tail
        Smallest effective sample sizes, and the parameters that have them.
    divergences
        Number of divergent transitions.
    saturated
        Number of transitions that reached the maximal tree depth.
    bfmi
        Smallest energy fraction of missing information over the chains.
    notes
        Sentences with remedies; empty when all is well.
    """

    r_hat: tuple[float, str]
    ess_bulk: tuple[float, str]
    ess_tail: tuple[float, str]
    divergences: int
    saturated: int
    bfmi: float
    notes: tuple[str, ...]


def diagnose(tree: Any, parameters: Sequence[str], drawn: Drawn, asked: NUTS) -> Diagnostics:
    """Compute the diagnostics of a DataTree with ``posterior`` and ``sample_stats``.

    Parameters
    ----------
    parameters
        Names of the variables to look at.
    drawn
        How the run ended.
    asked
        What it was to bring.
    """
    found: dict[str, list[np.ndarray[Any, np.dtype[np.float64]]]] = {}
    names: list[str] = []
    for name in parameters:
        labels, flat = _flatten(name, tree["posterior"][name])
        names += labels
        for key, column in Draws(flat).diagnostics().items():
            found.setdefault(key, []).append(column)
    columns = {key: np.concatenate(parts) for key, parts in found.items()}
    # A constant (NaN) has no diagnostics of its own.
    worst = {
        "r_hat": _extreme(columns["r_hat"], names, np.nanargmax),
        "ess_bulk": _extreme(columns["ess_bulk"], names, np.nanargmin),
        "ess_tail": _extreme(columns["ess_tail"], names, np.nanargmin),
    }
    statistics = tree["sample_stats"]
    chains = statistics.sizes["chain"]
    divergences = int(np.sum(statistics["diverging"].values))
    saturated = (
        int(np.sum(statistics["reached_max_treedepth"].values))
        if "reached_max_treedepth" in statistics
        else 0
    )
    bfmi = _bfmi(np.asarray(statistics["energy"].values))
    notes = [
        *_ending(drawn, asked, worst),
        *_notes(worst, divergences, saturated, bfmi, chains, drawn.enough, _centres(asked)),
    ]
    if apart := _apart(tree["posterior"], worst["r_hat"]):
        notes.append(apart)
    return Diagnostics(
        worst["r_hat"],
        worst["ess_bulk"],
        worst["ess_tail"],
        divergences,
        saturated,
        bfmi,
        tuple(notes),
    )


def _flatten(name: str, variable: Any) -> tuple[list[str], np.ndarray[Any, np.dtype[np.float64]]]:
    """Labels such as ``b_herd[3, (Intercept)]`` and draws (chains, draws, m) of a variable."""
    values = np.asarray(variable.values, dtype=np.float64)
    dims = variable.dims[2:]
    coords = [[str(v) for v in variable.coords[d].values] for d in dims]
    labels = [
        f"{name}[{', '.join(parts)}]" if parts else name for parts in itertools.product(*coords)
    ]
    flat = values.reshape(*values.shape[:2], -1)
    if name.startswith("corr_"):  # the diagonal is constant, the rest is symmetric
        k = variable.shape[-1]
        below = [r * k + c for r in range(k) for c in range(r)]
        return [labels[i] for i in below], flat[:, :, below]
    return labels, flat


def _extreme(
    column: np.ndarray[Any, np.dtype[np.float64]], names: list[str], at: Any
) -> tuple[float, str]:
    if np.all(np.isnan(column)):
        return float("nan"), ""
    k = int(at(column))
    return float(column[k]), names[k]


def _bfmi(energy: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Smallest E-BFMI (Betancourt 2016, arXiv:1604.00695) over chains; energy (chain, draw)."""
    moves = np.mean(np.diff(energy, axis=1) ** 2, axis=1)
    return float(np.min(moves / np.var(energy, axis=1)))


def _ending(drawn: Drawn, asked: NUTS, worst: dict[str, tuple[float, str]]) -> list[str]:
    """What was asked for and not reached."""
    if drawn.interrupted:
        more = "Fit again for all of them"
        return [
            f"Interrupted: {drawn.draws} of {asked.draws} draws per chain are kept. {more}"
            + (" with the same store= to go on." if asked.store is not None else ".")
        ]
    if drawn.enough:
        return []
    key = min(("ess_bulk", "ess_tail"), key=lambda k: worst[k][0])
    return [
        f"min_ess={asked.min_ess:g} was not reached in {drawn.draws} draws per chain: "
        f"{key.removeprefix('ess_')} ESS is {worst[key][0]:.0f} for {worst[key][1]}. Raise draws="
        f" (now {asked.draws}), or set tighter priors on what mixes slowly."
    ]


def _apart(posterior: Any, r_hat: tuple[float, str]) -> str:
    """Name the one chain that differs, if the others agree without it; empty if none does."""
    value, label = r_hat
    if not value > _APART:
        return ""
    name = label.split("[")[0]
    labels, flat = _flatten(name, posterior[name])
    draws = flat[:, :, labels.index(label)]
    if len(draws) < 3:
        return ""
    others = [np.delete(draws, c, axis=0) for c in range(len(draws))]
    without = np.array([Draws(o[..., None]).diagnostics()["r_hat"][0] for o in others])
    c = int(np.argmin(without))
    if without[c] > AGREED:
        return ""
    return (
        f"Chain {c} differs from the others: {label} has mean {draws[c].mean():.3g} in it and "
        f"{others[c].mean():.3g} in the others. The posterior may have several modes, or the "
        "chain got stuck. Raise tune=, or set tighter priors."
    )


def _centres(asked: NUTS) -> bool:
    """Whether random effects are sampled centred or not: in plain coordinates."""
    return (
        asked.coordinates == "plain"
        or asked.centred != "auto"
        or (asked.coordinates == "auto" and asked.sampler != "nutpie")
    )


def _notes(
    worst: dict[str, tuple[float, str]],
    divergences: int,
    saturated: int,
    bfmi: float,
    chains: int,
    enough: bool,
    centres: bool,
) -> list[str]:
    notes = []
    if divergences:
        notes.append(
            f"{divergences} divergent transition(s): part of the posterior may be missed. Raise "
            "target_accept (e.g. 0.95 or 0.99), "
            f"{'try centred=True or False, ' if centres else ''}"
            "or set a tighter prior on the standard deviations."
        )
    if worst["r_hat"][0] > AGREED:
        value, name = worst["r_hat"]
        notes.append(
            f"R-hat is {value:.4f} for {name} (should be below {AGREED}): the chains do not "
            "agree yet. Increase tune= and draws=."
        )
    need = _MIN_ESS_PER_CHAIN * chains
    low = [key for key in ("ess_bulk", "ess_tail") if worst[key][0] < need]
    if low and enough:
        parts = " and ".join(
            f"{key.removeprefix('ess_')} ESS is {worst[key][0]:.0f} for {worst[key][1]}"
            for key in low
        )
        notes.append(
            f"{parts} (should be at least {need}): estimates of it are imprecise. Increase draws=, "
            + ("or try the other value of centred=." if centres else "or ask for min_ess=.")
        )
    if saturated:
        notes.append(
            f"{saturated} transition(s) reached the maximal tree depth (2^10 steps): sampling is "
            "slow, not wrong. Scale the covariates, or set tighter priors."
        )
    if bfmi < _MIN_BFMI:
        notes.append(
            f"E-BFMI is {bfmi:.2f} (should be above {_MIN_BFMI}): the tails are explored slowly. "
            "Set a tighter prior on the standard deviations"
            f"{', or try the other centred=' if centres else ''}."
        )
    return notes
