"""Estimates with a covariance: what maximum likelihood knows of a vector of parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from bayesglmm.laplace.estimate import covariance_along

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Gaussian:
    """A vector of estimates with their covariance.

    Attributes
    ----------
    mean, cov
        (m,) estimates and their (m, m) covariance.
    degrees
        L (k, m) -> (k,) degrees of freedom of L @ parameters; infinite means asymptotic.

    Examples
    --------
    >>> g = Gaussian(np.array([1.0, 2.0]), np.eye(2), lambda L: np.full(len(L), np.inf))
    >>> difference = g.linear(np.array([[-1.0, 1.0]]))
    >>> difference.mean, difference.cov
    (array([1.]), array([[2.]]))
    """

    mean: Array
    cov: Array
    degrees: Callable[[Array], Array]

    def linear(self, L: Array) -> Gaussian:
        """The distribution of ``L @ parameters`` for L (k, m)."""
        return Gaussian(L @ self.mean, covariance_along(L, self.cov), lambda M: self.degrees(M @ L))

    def covariance(self) -> Array:
        """(m, m) covariance."""
        return self.cov

    def summary(self, level: float = 0.95) -> dict[str, Array]:
        """Columns estimate, std_error, conf_low, conf_high, t_stat|z_stat, df, p_value."""
        std_error = np.sqrt(np.diag(self.cov))
        return wald(self.mean, std_error, self.degrees(np.eye(len(self.mean))), level)


def wald(estimate: Array, std_error: Array, df: Array, level: float) -> dict[str, Array]:
    """Wald columns: t statistics where any df is finite, z statistics otherwise."""
    half = critical_value(df, level) * std_error
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = estimate / std_error
    name = "t_stat" if np.any(np.isfinite(df)) else "z_stat"
    return {
        "estimate": estimate,
        "std_error": std_error,
        "conf_low": estimate - half,
        "conf_high": estimate + half,
        name: statistic,
        "df": df,
        "p_value": two_sided(statistic, df),
    }


def critical_value(df: Array, level: float) -> Array:
    """Two-sided quantile of t with df degrees of freedom (normal where df is infinite)."""
    return t_quantile(0.5 + level / 2.0, df)


def t_quantile(probability: float, df: Array) -> Array:
    """Quantile of t with df degrees of freedom (normal where df is infinite)."""
    finite = np.isfinite(df)
    below = stdtrit(np.where(finite, df, 1.0), probability)
    return np.asarray(np.where(finite, below, ndtri(probability)))


def two_sided(statistic: Array, df: Array) -> Array:
    """Two-sided p value of a t (or z) statistic."""
    finite, below = np.isfinite(df), -np.abs(statistic)
    tail = np.where(finite, stdtr(np.where(finite, df, 1.0), below), ndtr(below))
    return np.asarray(2.0 * tail)
