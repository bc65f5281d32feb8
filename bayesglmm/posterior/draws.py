"""Draws from a posterior: what sampling knows of a vector of parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Draws:
    """Posterior draws of a vector of m quantities.

    Attributes
    ----------
    values
        (chains, draws, m).

    Examples
    --------
    >>> d = Draws(np.random.default_rng(1).normal(size=(4, 500, 2)))
    >>> d.linear(np.array([[-1.0, 1.0]])).values.shape
    (4, 500, 1)
    """

    values: Array

    def linear(self, L: Array) -> Draws:
        """``L @ parameters``, draw by draw, for L (k, m)."""
        return self.like(self.values @ L.T)

    def map(self, function: Callable[[Array], Array]) -> Draws:
        """An elementwise function of every draw."""
        return self.like(function(self.values))

    def like(self, values: Array) -> Draws:
        """Draws of other quantities of the same run, (chains, draws, m)."""
        return replace(self, values=values)

    def flat(self) -> Array:
        """(chains * draws, m)."""
        chains, draws, m = self.values.shape
        return self.values.reshape(chains * draws, m)

    def covariance(self) -> Array:
        """(m, m) covariance of the draws."""
        away = self.flat() - self.flat().mean(axis=0)
        return np.asarray(away.T @ away / (len(away) - 1))

    def summary(self, level: float = 0.95) -> dict[str, Array]:
        """Posterior mean, sd, highest-density interval and diagnostics of each quantity.

        Columns: estimate (posterior mean), std_error (posterior sd), conf_low, conf_high (HDI
        of probability ``level``), median, mad (scaled to the sd of a normal), prob_direction
        (largest of P(>0) and P(<0)), ess_bulk, ess_tail, r_hat, mcse (of the mean).
        """
        return {**self.point(), **self.interval(level), **self.shape(), **self.diagnostics()}

    def point(self) -> dict[str, Array]:
        """Posterior mean and sd."""
        flat = self.flat()
        return {"estimate": flat.mean(axis=0), "std_error": flat.std(axis=0, ddof=1)}

    def interval(self, level: float) -> dict[str, Array]:
        """Highest-density interval of probability ``level``: the shortest that holds as many draws.

        Chen & Shao (1999, doi:10.1080/10618600.1999.10474802); NaN where a draw is.
        """
        flat = np.sort(self.flat(), axis=0)
        n = len(flat)
        inside = min(int(np.floor(level * n)), n - 1)
        widths = flat[inside:] - flat[: n - inside]
        at = np.argmin(widths, axis=0)
        k = np.arange(flat.shape[1])
        return {"conf_low": flat[at, k], "conf_high": flat[at + inside, k]}

    def shape(self) -> dict[str, Array]:
        """Median, median absolute deviation, probability of direction."""
        flat = self.flat()
        median = np.median(flat, axis=0)
        mad = 1.482602218505602 * np.median(np.abs(flat - median), axis=0)
        above, below = (flat > 0).mean(axis=0), (flat < 0).mean(axis=0)
        return {"median": median, "mad": mad, "prob_direction": np.maximum(above, below)}

    def diagnostics(self) -> dict[str, Array]:
        """Effective sample sizes, R-hat and Monte Carlo standard error of the mean.

        Rank-normalised (Vehtari et al. 2021, doi:10.1214/20-BA1221).
        """
        from bayesglmm.posterior.convergence import ess_and_rhat

        return ess_and_rhat(self.values)


@dataclass(frozen=True, slots=True)
class Independent(Draws):
    """Independent draws, as importance resampling gives them: one "chain" without an order.

    Attributes
    ----------
    effective
        Number of equally weighted draws that they are worth.
    """

    effective: float

    def diagnostics(self) -> dict[str, Array]:
        """Effective sample size and Monte Carlo standard error of the mean."""
        ess = np.full(self.values.shape[-1], self.effective)
        return {"ess": ess, "mcse": self.flat().std(axis=0, ddof=1) / np.sqrt(ess)}
