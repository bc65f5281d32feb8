"""Joint tests of linear hypotheses L beta = rhs, for an estimate of any kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, fdtrc

from bayesglmm.laplace.estimate import Estimate, covariance_along

Array = NDArray[np.float64]

_RANK = np.sqrt(np.finfo(np.float64).eps)  # lmerTest's tolerance for redundant rows


@dataclass(frozen=True, slots=True)
class JointTest:
    """The result of a joint test.

    Attributes
    ----------
    statistic
        F (Wald statistic over ``num_df``), scaled where the method asks for it.
    num_df
        Number of independent hypotheses; with none of them the statistic is NaN.
    den_df
        Denominator degrees of freedom; infinite where inference is asymptotic, and
        ``num_df * statistic`` then is chi-square.
    scaling
        Kenward and Roger's lambda, by which the F statistic was multiplied; 1 otherwise.
    """

    statistic: float
    num_df: int
    den_df: float
    scaling: float = 1.0

    @property
    def p_value(self) -> float:
        """Upper tail of F, or of chi-square where ``den_df`` is infinite."""
        return f_tail(self.statistic, self.num_df, self.den_df)


def f_tail(statistic: float, num_df: float, den_df: float) -> float:
    """P(F > statistic); for infinite ``den_df`` from chi-square."""
    if np.isinf(den_df):
        return float(chdtrc(num_df, num_df * statistic))
    return float(fdtrc(num_df, den_df, statistic))


def joint_test(
    estimate: Estimate, L: Array, rhs: Array | None = None, *, asymptotic: bool = False
) -> JointTest:
    """Wald test of L beta = rhs.

    Parameters
    ----------
    estimate
        Of the coefficients, p of them; where L uses one that is infinite the statistic is NaN.
    L
        (m, p), link scale; redundant rows do not count.
    rhs
        (m,); zeros if omitted.
    asymptotic
        Chi-square whatever degrees of freedom the estimate offers.

    Returns
    -------
    JointTest
        Linear models: n - p denominator degrees of freedom. Linear mixed models: Satterthwaite's
        by matching the mean of F (Fai and Cornelius 1996, doi:10.1080/00949659608811740; as
        ``contestMD`` of lmerTest), or Kenward and Roger's with their scaling of F (1997,
        doi:10.2307/2533558; as ``KRmodcomp`` of pbkrtest). Otherwise infinite.
    """
    if len(L) == 0:
        return JointTest(np.nan, 0, np.inf if asymptotic else np.nan)
    away = L @ estimate.beta - (0.0 if rhs is None else rhs)
    covariance = covariance_along(L, estimate.vcov)
    if np.isnan(covariance).any():
        return JointTest(np.nan, int(np.linalg.matrix_rank(L)), np.inf)
    values, vectors = np.linalg.eigh(covariance)
    kept = values > _RANK * max(float(values[-1]), 0.0)
    values, basis = values[kept], vectors[:, kept].T
    q = int(kept.sum())
    squares = (basis @ away) ** 2 / values
    statistic = float(squares.sum()) / q
    rows = basis @ L
    if asymptotic:
        return JointTest(statistic, q, np.inf)
    if len(estimate.unadjusted):
        den_df, scaling = _kenward_roger(estimate, rows)
        return JointTest(scaling * statistic, q, den_df, scaling)
    return JointTest(statistic, q, _combined(estimate.degrees_of_freedom(rows)))


def _combined(df: Array) -> float:
    """Degrees of freedom of the mean of independent squared t variables with those given."""
    if len(df) == 1 or np.ptp(df) < 1e-8 or np.all(np.isinf(df)):
        return float(df[0]) if np.isinf(df[0]) else float(df.mean())
    if np.any(df <= 2.0):
        return 2.0
    ratio = 1.0 + 2.0 / (df - 2.0)  # df / (df - 2), also for infinite df
    excess = float(np.sum(2.0 / (df - 2.0)))
    return 2.0 * float(ratio.sum()) / excess


def _kenward_roger(estimate: Estimate, L: Array) -> tuple[float, float]:
    """Denominator degrees of freedom and lambda, from the first two moments of F."""
    q = len(L)
    root = np.linalg.cholesky(L @ estimate.unadjusted @ L.T)
    slopes = np.einsum("ap,kpq,bq->kab", L, estimate.vcov_slopes, L)
    half = np.linalg.solve(root, slopes)
    relative = np.linalg.solve(root, half.transpose(0, 2, 1))
    traces = np.trace(relative, axis1=1, axis2=2)
    W = estimate.scale_cov
    A1 = float(traces @ W @ traces)
    A2 = float(np.einsum("kl,kab,lba->", W, relative, relative))
    B = (A1 + 6.0 * A2) / (2.0 * q)
    g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
    d = 3.0 * q + 2.0 * (1.0 - g)
    c1, c2, c3 = g / d, (q - g) / d, (q + 2.0 - g) / d
    v0, v1, v2 = 1.0 + c1 * B, 1.0 - c2 * B, 1.0 - c3 * B
    v0 = 0.0 if abs(v0) < 1e-10 else v0
    top = 1.0 - A2 / q
    ratio = 1.0 if abs(top) < 1e-14 and abs(v1) < 1e-14 else top / v1
    rho = ratio**2 * v0 / v2 / q
    den_df = 4.0 + (q + 2.0) / (q * rho - 1.0)
    scaling = 1.0 if abs(den_df - 2.0) < 0.01 else den_df * top / (den_df - 2.0)
    return den_df, scaling
