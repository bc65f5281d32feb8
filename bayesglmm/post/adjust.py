"""Adjustment of p values and intervals for several comparisons, as R's emmeans does it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bayesglmm.posterior.gaussian import t_quantile, two_sided

Array = NDArray[np.float64]

ADJUSTMENTS = ("none", "tukey", "sidak", "bonferroni", "holm", "fdr")
# Larger degrees of freedom are the normal limit of the studentised range.
_LARGE_DF = 1e6


def critical(adjust: str, level: float, df: Array, family: int, n_means: int) -> Array:
    """Multiplier of the standard error for simultaneous intervals.

    Parameters
    ----------
    df
        (m,) degrees of freedom.
    family
        Number of intervals considered together.
    n_means
        Number of means compared, for Tukey's method; 0 for intervals of the means themselves.
        Step-down methods have no intervals of their own and take Bonferroni's.
    """
    alpha = 1.0 - level
    if adjust == "none" or family == 1:
        return t_quantile(1.0 - alpha / 2.0, df)
    if adjust == "tukey" and n_means:
        from scipy.stats import studentized_range

        finite = np.minimum(df, _LARGE_DF)
        return np.asarray(studentized_range.ppf(level, n_means, finite) / np.sqrt(2.0))
    if adjust in ("sidak", "tukey"):
        return t_quantile(0.5 + 0.5 * level ** (1.0 / family), df)
    return t_quantile(1.0 - alpha / (2.0 * family), df)


def adjusted_p(adjust: str, statistic: Array, df: Array, n_means: int) -> Array:
    """Two-sided p values of one family of tests, adjusted.

    Parameters
    ----------
    statistic, df
        (m,) t or z statistics and their degrees of freedom; a NaN counts as a test of the
        family, as in R's emmeans.
    n_means
        Number of means compared, for Tukey's method.
    """
    p = two_sided(statistic, df)
    m = len(p)
    if adjust == "none" or m == 1:
        return p
    if adjust == "tukey":
        from scipy.stats import studentized_range

        finite, q = np.minimum(df, _LARGE_DF), np.abs(statistic) * np.sqrt(2.0)
        return np.asarray(studentized_range.sf(q, n_means, finite))
    if adjust == "sidak":
        with np.errstate(divide="ignore"):  # p = 1 stays 1
            return np.asarray(-np.expm1(m * np.log1p(-p)))
    if adjust == "bonferroni":
        return np.minimum(1.0, m * p)
    order = np.argsort(p)
    out = np.empty(m)
    if adjust == "holm":
        out[order] = np.minimum(1.0, np.maximum.accumulate((m - np.arange(m)) * p[order]))
        return out
    scaled = p[order] * m / (np.arange(m) + 1.0)  # Benjamini & Hochberg
    out[order] = np.minimum(1.0, np.fmin.accumulate(scaled[::-1])[::-1])
    return out
