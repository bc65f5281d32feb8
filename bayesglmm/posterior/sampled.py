"""What sampling knows: draws of everything, by NUTS or from Laplace's approximation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from bayesglmm.approximate import Approximated
from bayesglmm.design import Design
from bayesglmm.laplace.covariance import components, covariance_of
from bayesglmm.nuts import Sampled
from bayesglmm.posterior.draws import Draws

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SampledPosterior:
    """The draws side of a fit."""

    design: Design
    run: Sampled | Approximated

    @property
    def method(self) -> str:
        """How the numbers were got."""
        run = cast(Sampled, self.run)  # a posterior by Laplace's approximation has its own
        options = run.options
        ended = ", interrupted" if run.interrupted else ""
        chains = f"{options.chains} chain{'s' if options.chains > 1 else ''}"
        return f"NUTS ({chains} x {options.draws} draws{ended})"

    def interval(self, level: float) -> str:
        """The kind of interval in every table."""
        return f"{level:.0%} highest-density interval"

    def effect_interval(self, level: float) -> str:
        """The kind of interval of random effects, and of sums with them."""
        return self.interval(level)

    def component_interval(self, level: float) -> str:
        """The kind of interval of sds and correlations."""
        return self.interval(level)

    @property
    def beta(self) -> Draws:
        """The coefficients, link scale."""
        return self.draws(self.run.values("beta"))

    def draws(self, values: Array) -> Draws:
        """Draws of any quantities of the run, (chains, draws, m)."""
        return Draws(values)

    @property
    def component_draws(self) -> Draws:
        """Every sd and correlation, and the residual sd last where there is one."""
        parts = components(covariance_of(self.design.random))
        columns = []
        for c in parts:
            name = self.design.random[c.term].name
            if c.kind == "sd":
                columns.append(self.run.values(f"sd_{name}")[..., c.row])
            else:
                columns.append(self.run.values(f"corr_{name}")[..., c.row, c.column])
        if self.has_sigma:
            columns.append(self.run.values("sigma"))
        shape = self.run.values("beta").shape[:2]
        return self.draws(np.stack(columns, axis=-1) if columns else np.zeros((*shape, 0)))

    @property
    def has_sigma(self) -> bool:
        """Whether there is a residual sd."""
        return "sigma" in self.run.tree["posterior"]

    def components(self, level: float) -> dict[str, Array]:
        """Columns for :attr:`component_draws`; ``variance`` is the mean of the squares."""
        draws = self.component_draws
        if draws.values.shape[-1] == 0:
            empty = np.zeros(0)
            names = ("estimate", "std_error", "conf_low", "conf_high", "variance")
            return dict.fromkeys(names, empty)
        parts = components(covariance_of(self.design.random))
        squares = np.mean(draws.flat() ** 2, axis=0)
        squares[[k for k, c in enumerate(parts) if c.kind == "corr"]] = np.nan
        columns = draws.summary(level)
        del columns["prob_direction"]
        first = {k: columns[k] for k in ("estimate", "std_error", "conf_low", "conf_high")}
        return {**first, "variance": squares, **columns}

    def _effect_draws(self, term: int) -> Array:
        return self.run.values(f"b_{self.design.random[term].name}")

    def effects(self, term: int, level: float) -> dict[str, Array]:
        """Columns for the (J K) random effects of a term, level by level."""
        values = self._effect_draws(term)
        return self.draws(values.reshape(*values.shape[:2], -1)).summary(level)

    def effect_covariance(self, term: int) -> Array:
        """(J, K, K) posterior covariance of the effects of every level."""
        values = self._effect_draws(term)
        values = (values - values.mean(axis=(0, 1))).reshape(-1, *values.shape[2:])
        return np.asarray(np.einsum("djk,djl->jkl", values, values) / (len(values) - 1))

    def coefficients(self, column: int, term: int, position: int, level: float) -> dict[str, Array]:
        """Columns for (J,) beta + b, draw by draw."""
        J = self.design.random[term].J
        beta = self.run.values("beta")
        total = np.zeros((*beta.shape[:2], J))
        if column >= 0:
            total += beta[..., column, None]
        if position >= 0:
            total += self._effect_draws(term)[..., position]
        return self.draws(total).summary(level)

    def modes(self) -> tuple[Array, ...]:
        """(J_f, K_f) posterior means of the random effects."""
        return tuple(
            self._effect_draws(f).mean(axis=(0, 1)) for f in range(len(self.design.random))
        )
