"""What a run says of itself, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_MAX_R_HAT = 1.01
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


def diagnose(tree: Any) -> Diagnostics:
    """Compute the diagnostics of a DataTree with ``posterior`` and ``sample_stats``."""
    from bayesglmm.posterior.draws import Draws

    worst: dict[str, tuple[float, str]] = {
        "r_hat": (0.0, ""),
        "ess_bulk": (np.inf, ""),
        "ess_tail": (np.inf, ""),
    }
    posterior = tree["posterior"]
    for name, variable in posterior.data_vars.items():
        values = np.asarray(variable.values)
        flat = values.reshape(*values.shape[:2], -1)
        if str(name).startswith("corr_"):  # the diagonal is constant, the rest is symmetric
            k = variable.shape[-1]
            flat = flat[:, :, [r * k + c for r in range(k) for c in range(r)]]
        found = Draws(flat).diagnostics()
        for key, better in (("r_hat", max), ("ess_bulk", min), ("ess_tail", min)):
            column = found[key]
            if np.any(np.isnan(column)):
                continue
            value = float(column.max() if better is max else column.min())
            if better(value, worst[key][0]) == value and value != worst[key][0]:
                worst[key] = (value, str(name))
    statistics = tree["sample_stats"]
    chains = statistics.sizes["chain"]
    divergences = int(np.sum(statistics["diverging"].values))
    saturated = (
        int(np.sum(statistics["reached_max_treedepth"].values))
        if "reached_max_treedepth" in statistics
        else 0
    )
    bfmi = _bfmi(np.asarray(statistics["energy"].values))
    return Diagnostics(
        worst["r_hat"],
        worst["ess_bulk"],
        worst["ess_tail"],
        divergences,
        saturated,
        bfmi,
        _notes(worst, divergences, saturated, bfmi, chains),
    )


def _bfmi(energy: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Smallest E-BFMI (Betancourt 2016, arXiv:1604.00695) over chains; energy (chain, draw)."""
    moves = np.mean(np.diff(energy, axis=1) ** 2, axis=1)
    return float(np.min(moves / np.var(energy, axis=1)))


def _notes(
    worst: dict[str, tuple[float, str]], divergences: int, saturated: int, bfmi: float, chains: int
) -> tuple[str, ...]:
    notes = []
    if divergences:
        notes.append(
            f"{divergences} divergent transition(s): part of the posterior may be missed. Raise "
            "target_accept (e.g. 0.95 or 0.99), try centred=True or False, or set a tighter "
            "prior on the standard deviations."
        )
    if worst["r_hat"][0] > _MAX_R_HAT:
        value, name = worst["r_hat"]
        notes.append(
            f"R-hat is {value:.3f} for {name} (should be below {_MAX_R_HAT}): the chains do not "
            "agree yet. Increase tune= and draws=."
        )
    need = _MIN_ESS_PER_CHAIN * chains
    for key in ("ess_bulk", "ess_tail"):
        value, name = worst[key]
        if value < need:
            notes.append(
                f"{key.replace('_', ' ')} is {value:.0f} for {name} (should be at least {need}): "
                "estimates of it are imprecise. Increase draws=, or try the other value of "
                "centred=."
            )
    if saturated:
        notes.append(
            f"{saturated} transition(s) reached the maximal tree depth: sampling is slow, not "
            "wrong. Scale the covariates."
        )
    if bfmi < _MIN_BFMI:
        notes.append(
            f"E-BFMI is {bfmi:.2f} (should be above {_MIN_BFMI}): the tails are explored slowly. "
            "Set a tighter prior on the standard deviations, or try the other centred=."
        )
    return tuple(notes)
