"""What a maximum-likelihood fit knows: estimates, covariances, conditional modes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from bayesglmm.design import Design
from bayesglmm.laplace.covariance import components, covariance_of
from bayesglmm.laplace.estimate import Estimate, variance_along
from bayesglmm.posterior.gaussian import Gaussian, wald

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MLPosterior:
    """The Gaussian side of a fit."""

    design: Design
    estimate: Estimate

    @property
    def method(self) -> str:
        """How the numbers were got."""
        return self.estimate.method

    def interval(self, level: float) -> str:
        """The kind of interval in every table."""
        if len(self.estimate.unadjusted):
            return f"{level:.0%} Wald interval (t, Kenward-Roger)"
        finite = np.any(np.isfinite(self.estimate.degrees_of_freedom(np.eye(self.design.p))))
        return f"{level:.0%} Wald interval{' (t)' if finite else ''}"

    def effect_interval(self, level: float) -> str:
        """The kind of interval of random effects, and of sums with them."""
        return f"{level:.0%} Wald interval"

    def component_interval(self, level: float) -> str:
        """The kind of interval of sds and correlations."""
        return f"{level:.0%} Wald interval of log sd and atanh correlation, carried back"

    @property
    def beta(self) -> Gaussian:
        """The coefficients, link scale."""
        at = self.estimate
        return Gaussian(at.beta, at.vcov, at.degrees_of_freedom)

    def components(self, level: float) -> dict[str, Array]:
        """Columns for every sd and correlation, and the residual sd last where there is one.

        Intervals are Wald intervals of log sd and atanh correlation, carried back; missing
        where a component lies on its boundary or is not identified.
        """
        at = self.estimate
        parts = components(covariance_of(self.design.random))
        values = at.component_values
        spread = np.sqrt(np.diag(at.component_cov))
        z = ndtri(0.5 + level / 2.0)
        is_corr = np.array([c.kind == "corr" for c in parts] + [False] * (len(values) - len(parts)))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            location = np.where(is_corr, np.arctanh(values), np.log(values))
            low, high = location - z * spread, location + z * spread
            return {
                "estimate": values,
                "std_error": spread * np.where(is_corr, 1.0 - values**2, values),
                "conf_low": np.where(is_corr, np.tanh(low), np.exp(low)),
                "conf_high": np.where(is_corr, np.tanh(high), np.exp(high)),
                "variance": np.where(is_corr, np.nan, values**2),
            }

    def effects(self, term: int, level: float) -> dict[str, Array]:
        """Columns for the (J K) conditional modes of a term, level by level.

        Standard errors are conditional sds given the parameters (lme4's ``condVar``).
        """
        mean = self.estimate.modes[term].ravel()
        variance = np.diagonal(self.estimate.mode_cov[term], axis1=1, axis2=2).ravel()
        return _asymptotic(mean, np.sqrt(np.maximum(variance, 0.0)), level)

    def effect_covariance(self, term: int) -> Array:
        """(J, K, K) covariance of the effects of every level, given the parameters."""
        return self.estimate.mode_cov[term]

    def coefficients(self, column: int, term: int, position: int, level: float) -> dict[str, Array]:
        """Columns for (J,) beta + b: ``column`` of X (or -1), ``position`` in a term (or -1).

        The variance is that of the sum, the uncertainty of beta included.
        """
        at = self.estimate
        J = self.design.random[term].J
        mean, variance = np.zeros(J), np.zeros(J)
        if column >= 0:
            mean += at.beta[column]
        if position >= 0:
            C = at.coef_map[term][:, position, :]
            mean += at.modes[term][:, position]
            variance += at.mode_cov[term][:, position, position]
            moved = -C
            if column >= 0:
                moved[:, column] += 1.0
            variance += variance_along(moved, at.vcov)
        elif column >= 0:
            variance += at.vcov[column, column]
        return _asymptotic(mean, np.sqrt(np.maximum(variance, 0.0)), level)

    def modes(self) -> tuple[Array, ...]:
        """(J_f, K_f) point estimates of the random effects."""
        return self.estimate.modes


def _asymptotic(mean: Array, std_error: Array, level: float) -> dict[str, Array]:
    columns = wald(mean, std_error, np.full(len(mean), np.inf), level)
    return {k: columns[k] for k in ("estimate", "std_error", "conf_low", "conf_high")}
