"""How to sample, as a value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bayesglmm.errors import ChoiceError, check_choice

Centring = Literal["auto"] | bool | Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class NUTS:
    """The No-U-Turn sampler on the full posterior.

    Attributes
    ----------
    draws, chains
        Kept draws per chain, and the number of chains.
    tune
        Warm-up iterations per chain. None takes 500 in Laplace coordinates, which need little,
        and 1000 in plain ones.
    seed
        Makes the run reproducible, whatever the number of cores. None draws a fresh one, which
        the fit then reports.
    target_accept
        Target acceptance statistic in (0, 1); raise it against divergences.
    coordinates
        "laplace": the random effects and coefficients are sampled in coordinates taken from
        the maximum-likelihood fit, in which their posterior is almost a standard normal;
        "plain": as `Model.to_pymc()` writes them; "auto": laplace where that fit exists. It
        changes the efficiency, never the posterior.
    centred
        Parameterisation of the random effects in plain coordinates: "auto" decides for each
        term from the maximum-likelihood fit, True or False for all, or a mapping by term name.
        Asking for one asks for plain coordinates.
    adaptation
        How warm-up learns the shape of the posterior (nutpie): "diag" scales each parameter,
        "low_rank" also follows the strongest correlations, whose cost grows fast with the
        number of parameters; "auto" takes low_rank for small models in plain coordinates.
    sampler
        "nutpie" (default) or "pymc".
    cores
        Chains run at the same time; None takes one per chain, at most one per processor.
    progress
        Show a progress bar.

    Examples
    --------
    >>> NUTS(draws=2000, seed=1).draws
    2000
    """

    draws: int = 1000
    chains: int = 4
    tune: int | None = None
    seed: int | None = None
    target_accept: float = 0.9
    coordinates: Literal["auto", "laplace", "plain"] = "auto"
    centred: Centring = "auto"
    adaptation: Literal["auto", "diag", "low_rank"] = "auto"
    sampler: Literal["nutpie", "pymc"] = "nutpie"
    cores: int | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("draws", "tune", "chains"):
            value = getattr(self, name)
            if name == "tune" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ChoiceError(f"{name}={value!r}: give a whole number of at least 1")
        if self.draws < 4:
            raise ChoiceError(f"draws={self.draws}: diagnostics need at least 4 draws per chain")
        if not (math.isfinite(self.target_accept) and 0.0 < self.target_accept < 1.0):
            raise ChoiceError(
                f"target_accept={self.target_accept!r}: give a number between 0 and 1, e.g. 0.95"
            )
        if self.seed is not None and (not isinstance(self.seed, int) or self.seed < 0):
            raise ChoiceError(f"seed={self.seed!r}: give a whole number of at least 0, or None")
        if self.cores is not None and (not isinstance(self.cores, int) or self.cores < 1):
            raise ChoiceError(f"cores={self.cores!r}: give a whole number of at least 1, or None")
        check_choice("coordinates", self.coordinates, ("auto", "laplace", "plain"))
        if self.coordinates == "laplace" and self.centred != "auto":
            raise ChoiceError(
                f"centred={self.centred!r} is for plain coordinates; leave it out, or set "
                'coordinates="plain"'
            )
        check_choice("adaptation", self.adaptation, ("auto", "diag", "low_rank"))
        check_choice("sampler", self.sampler, ("nutpie", "pymc"))
        if isinstance(self.centred, str):
            check_choice("centred", self.centred, ("auto",))
