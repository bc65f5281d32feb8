"""How to approximate the posterior, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bayesglmm.errors import check_choice, check_whole


@dataclass(frozen=True, slots=True)
class Laplace:
    """The posterior by Laplace's approximation, with priors, and importance weights.

    The random effects are integrated out approximately, the other parameters are drawn around
    the top of what is left and weighted (Pareto-smoothed importance sampling; Vehtari et al. 2024,
    arXiv:1507.02646), and the random effects are drawn given them. Weights to the exact posterior
    rest on unbiased estimates of what the approximation leaves out (Tran et al. 2013,
    arXiv:1309.3339). Takes about a second where NUTS takes many; the fit's ``diagnostics`` say how
    far to trust it. The mode is that of log sds and log sigma: even with flat priors it is not the
    maximum-likelihood estimate, which has no such Jacobian.

    Attributes
    ----------
    draws
        Kept draws.
    seed
        Makes the draws reproducible, whatever the number of cores. None draws a fresh one, which
        the fit then reports.
    nagq
        1: Laplace. More: adaptive Gauss-Hermite quadrature with that many nodes an effect, for a
        single random-effects term of at most three columns.
    weights
        What the draws are weighted to: "exact", the posterior itself, random effects included,
        which works for any number of independent groups of random effects, and for a few effects
        of crossed factors; "laplace", the approximation of the posterior of the other parameters;
        "auto": exact where these weights are sound. Without random effects, or with a Gaussian
        response, both are the same.
    proposals
        Points that are weighed, of which the draws are taken. None takes as many as draws and at
        least 1000, fewer where the model is large.

    Examples
    --------
    >>> Laplace(draws=1000, seed=1).draws
    1000
    """

    draws: int = 4000
    seed: int | None = None
    nagq: int = 1
    weights: Literal["auto", "exact", "laplace"] = "auto"
    proposals: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("draws", 4), ("nagq", 1), ("proposals", 100), ("seed", 0)):
            value = getattr(self, name)
            if name in ("proposals", "seed") and value is None:
                continue
            object.__setattr__(self, name, check_whole(name, value, least))
        check_choice("weights", self.weights, ("auto", "exact", "laplace"))
