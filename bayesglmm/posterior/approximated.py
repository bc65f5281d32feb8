"""What Laplace's approximation knows: independent draws of everything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesglmm.approximate import Approximated
from bayesglmm.approximate.diagnostics import shown
from bayesglmm.posterior.draws import Draws, Independent
from bayesglmm.posterior.sampled import SampledPosterior

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LaplacePosterior(SampledPosterior):
    """The draws side of a fit by Laplace's approximation."""

    run: Approximated

    @property
    def method(self) -> str:
        """How the numbers were got."""
        k_hat = shown(self.run.diagnostics.k_hat)
        return f"Laplace ({self.run.options.draws} draws, k-hat {k_hat})"

    @property
    def has_sigma(self) -> bool:
        """Whether there is a residual sd."""
        return "sigma" in self.run.variables

    def draws(self, values: Array) -> Draws:
        """Draws of any quantities, (1, draws, m)."""
        return Independent(values, self.run.diagnostics.effective)
