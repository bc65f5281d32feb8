"""The result of a maximum-likelihood fit: numbers only, no labels and no tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dtrtrs

from bayesglmm.laplace.outcome import Outcome
from bayesglmm.laplace.structure import Array, Integers, Structure

if TYPE_CHECKING:
    from bayesglmm.laplace.factor import Factor


_USED = 1e-6  # weight of an estimate without a covariance from which on it counts


def covariance_along(L: Array, cov: Array) -> Array:
    """(m, m) L cov L' for L (m, p).

    Estimates without a covariance (NaN: they run to infinity) only matter to rows that use them.
    """
    known, used = _known(L, cov)
    out = L[:, known] @ cov[np.ix_(known, known)] @ L[:, known].T
    out[used] = out[:, used] = np.nan
    return np.asarray(out)


def variance_along(L: Array, cov: Array) -> Array:
    """(m,) the diagonal of :func:`covariance_along`."""
    known, used = _known(L, cov)
    out = np.einsum("mp,pq,mq->m", L[:, known], cov[np.ix_(known, known)], L[:, known])
    out[used] = np.nan
    return np.asarray(out)


def _known(L: Array, cov: Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which estimates have a covariance, and which rows use one that has none."""
    known = ~np.isnan(cov.diagonal())
    return known, (np.abs(L[:, ~known]) > _USED).any(axis=1)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A maximum-likelihood estimate.

    Attributes
    ----------
    method
        How it was got: "ML", "REML", "ML-Laplace", "ML-AGQ(9)".
    beta, vcov
        (p,) coefficients on the link scale and their (p, p) covariance.
    theta, sigma
        Relative covariance parameters (canonical) and the residual sd (1 without a scale).
    component_values, component_cov
        (m,) sds and correlations (and log sigma last, where there is a scale), and the
        covariance of their unconstrained versions (log sd, atanh correlation, log sigma);
        NaN where a component lies on its boundary or is not identified.
    modes
        (J_f, K_f) conditional modes b of every term, link scale.
    mode_cov
        (J_f, K_f, K_f) conditional covariances of b given the parameters (lme4's condVar).
    factor, transforms, relative_to
        The factorised precision of the effects given the parameters, in standardised columns;
        (K_f, K_f) T that carry effects of those to the model's; and what the effects are
        relative to: in a linear mixed model the residual sd of a row of typical weight (sigma
        without weights), 1 elsewhere. Without random effects None, empty and 1.
    coef_map
        (J_f, K_f, p) sensitivity -db/dbeta: b given beta moves by -coef_map (beta - beta_hat).
    vcov_slopes, scale_cov
        (m, p, p) derivatives of the conditional vcov in (theta, log sigma) and their (m, m)
        covariance, for Satterthwaite degrees of freedom; empty without a residual variance. After
        Kenward and Roger's adjustment in (co)variances relative to sigma^2, and sigma^2 itself.
    df_residual
        n - p for a linear model, infinite otherwise.
    eta
        (n,) linear predictor at the modes, offset included.
    loglik
        Log-likelihood (REML: the restricted one), all constants included.
    n_parameters
        Number of estimated parameters.
    outcome
        How the optimisation ended.
    unadjusted
        (p, p) vcov before Kenward and Roger's adjustment; empty where there is none.
    """

    method: str
    beta: Array
    vcov: Array
    theta: Array
    sigma: float
    component_values: Array
    component_cov: Array
    modes: tuple[Array, ...]
    mode_cov: tuple[Array, ...]
    factor: Factor | None
    transforms: tuple[Array, ...]
    relative_to: float
    coef_map: tuple[Array, ...]
    vcov_slopes: Array
    scale_cov: Array
    df_residual: float
    eta: Array
    loglik: float
    n_parameters: int
    outcome: Outcome
    unadjusted: Array = field(default_factory=lambda: np.zeros((0, 0)))

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            for array in value if isinstance(value, tuple) else (value,):
                if isinstance(array, np.ndarray):
                    array.setflags(write=False)

    @property
    def structure(self) -> tuple[Structure, ...]:
        """The structure of the random effects, for fits to other responses; empty for none."""
        return (self.factor.structure,) if self.factor is not None else ()

    def effect_variance(self, groups: Sequence[tuple[Integers, Array]]) -> Array:
        """(m,) variance of sum_f z_f'b_f given the parameters, covariances between terms included.

        ``groups`` are (index, Z) of every term, m rows.
        """
        if self.factor is None:
            return np.zeros(0)
        from bayesglmm.laplace.factor import variance_at

        columns = tuple(Z @ T for (_, Z), T in zip(groups, self.transforms, strict=True))
        index = tuple(index for index, _ in groups)
        return self.relative_to**2 * variance_at(self.factor, index, columns)

    def degrees_of_freedom(self, L: Array) -> Array:
        """(m,) degrees of freedom of each row of L beta.

        Satterthwaite's approximation for a linear mixed model (Kenward and Roger's, which for
        one contrast has the same form), n - p for a linear model, infinity where inference is
        asymptotic.
        """
        if len(self.scale_cov) == 0:
            return np.full(len(L), self.df_residual)
        vcov = self.unadjusted if len(self.unadjusted) else self.vcov
        variance = np.einsum("mp,pq,mq->m", L, vcov, L)
        slopes = np.einsum("mp,kpq,mq->mk", L, self.vcov_slopes, L)
        spread = np.einsum("mk,kl,ml->m", slopes, self.scale_cov, slopes)
        with np.errstate(divide="ignore", invalid="ignore"):
            df = 2.0 * variance**2 / spread
        return np.asarray(np.where(np.isfinite(df) & (df > 0), df, np.inf))

    def for_columns(self, R: Array) -> Estimate:
        """The estimate in terms of the columns X = Q R, when this one is in terms of Q."""

        def carried(cov: Array) -> Array:
            return np.asarray(dtrtrs(R, dtrtrs(R, cov)[0].T)[0])

        if not len(R):
            return self
        # REML integrates over beta: its density changes with the volume of X.
        volume = float(np.sum(np.log(np.abs(np.diag(R))))) if self.method == "REML" else 0.0
        return replace(
            self,
            beta=dtrtrs(R, self.beta)[0],
            vcov=carried(self.vcov),
            unadjusted=carried(self.unadjusted) if len(self.unadjusted) else self.unadjusted,
            coef_map=tuple(C @ R for C in self.coef_map),
            vcov_slopes=np.array([carried(S) for S in self.vcov_slopes]).reshape(
                self.vcov_slopes.shape
            ),
            loglik=self.loglik - volume,
        )
