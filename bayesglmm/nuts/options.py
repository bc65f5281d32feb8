"""How to sample, as a value."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from bayesglmm.errors import ChoiceError, check_choice, check_whole

Centring = Literal["auto"] | bool | Mapping[str, bool]

DRAWS = 1000  # kept draws per chain
MOST_DRAWS = 20_000  # where min_ess= decides when to stop
SAMPLERS = ("nutpie", "pymc", "numpyro", "blackjax")


@dataclass(frozen=True, slots=True)
class NUTS:
    """The No-U-Turn sampler on the full posterior.

    Attributes
    ----------
    draws, chains
        Kept draws per chain (default 1000), and the number of chains. With `min_ess` draws is
        the most that a chain may take (default 20000).
    tune
        Warm-up iterations per chain. None takes 300 in Laplace coordinates, which need little,
        and 1000 in plain ones.
    min_ess
        Sample until every parameter, random effects included, has this effective sample size in
        bulk and tails, and R-hat is at most 1.01. Both are looked at after fixed numbers of
        draws, so that the result does not depend on how fast the chains run.
    seed
        Makes the run reproducible, whatever the number of cores. None draws a fresh one, which
        the fit then reports.
    target_accept
        Target acceptance statistic in (0, 1); raise it against divergences. None takes 0.85 in
        Laplace coordinates, whose curvature hardly varies, 0.7 where random effects are
        integrated out and few parameters are left, and 0.9 in plain ones. Also 0.9, with
        trajectories twice as long, where the data cannot tell terms apart.
    coordinates
        "laplace": the random effects and coefficients are sampled in coordinates taken from
        the maximum-likelihood fit, in which their posterior is almost a standard normal;
        "plain": as `Model.to_pymc()` writes them; "auto": laplace where that fit exists. Where
        their density is found to be close to a standard normal, nutpie takes steps that are exact
        for one, and can be longer. It changes the efficiency, never the posterior.
    centred
        Parameterisation of the random effects in plain coordinates: "auto" decides for each
        term from the maximum-likelihood fit, True or False for all, or a mapping by term name.
        Asking for one asks for plain coordinates.
    adaptation
        How warm-up learns the shape of the posterior (nutpie): "diag" scales each parameter,
        "low_rank" also follows the strongest correlations, whose cost grows fast with the
        number of parameters; "auto" takes low_rank for small models in plain coordinates.
    sampler
        "nutpie" (default), or for comparison PyMC's own "pymc", or "numpyro" and "blackjax"
        where those packages are installed (they run on a GPU where JAX finds one; PyMC 6.4 needs
        BlackJAX below 1.6); these three sample plain coordinates unless told otherwise.
    cores
        Chains run at the same time; None takes one per chain, at most one per processor.
    progress
        Show the progress in a terminal or a notebook: draws, divergences, step size, smallest
        effective sample size so far, time left.
    store
        A directory that draws are written to (zarr) while they come. The same call resumes a
        run that was killed: it keeps the draws on disk and goes on from the last of each chain,
        after a new warm-up that is discarded. That is valid, but not bit for bit what the run
        would have drawn uninterrupted. A finished store is read back. `draws` and `min_ess` may
        be raised later; anything else that differs from the stored run is an error.

    Examples
    --------
    >>> NUTS(draws=2000, seed=1).draws
    2000
    """

    draws: int = cast(int, None)  # filled in below
    chains: int = 4
    tune: int | None = None
    min_ess: float | None = None
    seed: int | None = None
    target_accept: float | None = None
    coordinates: Literal["auto", "laplace", "plain"] = "auto"
    centred: Centring = "auto"
    adaptation: Literal["auto", "diag", "low_rank"] = "auto"
    sampler: Literal["nutpie", "pymc", "numpyro", "blackjax"] = "nutpie"
    cores: int | None = None
    progress: bool = True
    store: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.draws is None:
            draws = DRAWS if self.min_ess is None else MOST_DRAWS
            object.__setattr__(self, "draws", draws)
        for name, least in (("draws", 4), ("tune", 1), ("chains", 1), ("seed", 0), ("cores", 1)):
            value, optional = getattr(self, name), name in ("tune", "seed", "cores")
            if value is not None or not optional:
                number = check_whole(name, value, least, ", or None" if optional else "")
                object.__setattr__(self, name, number)
        accept = self.target_accept
        if accept is not None and not (isinstance(accept, int | float) and 0.0 < accept < 1.0):
            raise ChoiceError(f"target_accept={accept!r}: give a number between 0 and 1, e.g. 0.95")
        check_choice("coordinates", self.coordinates, ("auto", "laplace", "plain"))
        if self.coordinates == "laplace" and self.centred != "auto":
            raise ChoiceError(
                f"centred={self.centred!r} is for plain coordinates; leave it out, or set "
                'coordinates="plain"'
            )
        check_choice("adaptation", self.adaptation, ("auto", "diag", "low_rank"))
        check_choice("sampler", self.sampler, SAMPLERS)
        self._check_run()
        by_term = isinstance(self.centred, Mapping) and all(
            isinstance(value, bool) for value in self.centred.values()
        )
        if not (by_term or isinstance(self.centred, bool) or self.centred == "auto"):
            raise ChoiceError(
                f"centred={self.centred!r}: give True, False, 'auto', or a mapping from terms to "
                "True or False"
            )

    def _check_run(self) -> None:
        """Refuse what only nutpie can do, and nonsense."""
        ess = self.min_ess
        if ess is not None and not (
            isinstance(ess, int | float)
            and not isinstance(ess, bool)
            and math.isfinite(ess)
            and ess > 0.0
        ):
            raise ChoiceError(f"min_ess={ess!r}: give a positive number, e.g. 1000, or None")
        if self.store is not None and not isinstance(self.store, str | os.PathLike):
            raise ChoiceError(f"store={self.store!r}: give the path of a directory, or None")
        for name in ("min_ess", "store"):
            if self.sampler != "nutpie" and getattr(self, name) is not None:
                raise ChoiceError(
                    f'{name}={getattr(self, name)!r} needs sampler="nutpie"; this is '
                    f"sampler={self.sampler!r}"
                )
