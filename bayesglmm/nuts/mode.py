"""The mode of coefficients and random effects given the covariance parameters, with priors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesglmm.design.fixed import INTERCEPT
from bayesglmm.families.compiled import Density
from bayesglmm.laplace import kernels
from bayesglmm.laplace.factor import Factor, factorize, solve
from bayesglmm.laplace.structure import Structure
from bayesglmm.priors.compiled import compiled_priors, curvature, log_prior_coefficients

if TYPE_CHECKING:
    from bayesglmm.model import Model

Array = NDArray[np.float64]

_MAX_STEPS = 100
_EXACT = 1e-10  # squared distance to the mode in posterior standard deviations


class CoefficientPrior:
    """The prior of beta = back gamma. The intercept's is on the mean of the linear predictor."""

    def __init__(self, model: Model, back: Array) -> None:
        names, X = model.design.names, model.design.X
        found = compiled_priors(model.priors.coefficients)
        assert found is not None
        self.codes, self.parameters, self.constant = found
        self.intercept = names.index(INTERCEPT) if INTERCEPT in names else -1
        self.means, self.back = X.mean(axis=0), back
        rows = np.eye(len(names))
        if self.intercept >= 0:
            rows[self.intercept] = self.means
        self._rows = rows @ back  # what the priors are on, in gamma

    def __call__(self, gamma: Array) -> tuple[float, Array]:
        """Log prior without its constant, and its gradient in gamma."""
        gradient = np.zeros(len(gamma))
        value = log_prior_coefficients(
            self.back @ gamma,
            self.means,
            self.intercept,
            self.codes,
            self.parameters,
            gradient,
        )
        return float(value), self.back.T @ gradient

    def information(self, gamma: Array) -> Array:
        """(p, p) in gamma, never negative."""
        known = curvature(self.codes, self.parameters, self._rows @ gamma)
        return np.asarray(self._rows.T @ (known[:, None] * self._rows))


@dataclass(frozen=True, slots=True)
class Point:
    """A value of (gamma, u) and what is known there.

    Attributes
    ----------
    gamma, u, b
        (p,) coefficients of the orthonormal columns; (effects, 1) effects, spherical and on the
        link scale, in order of elimination.
    eta, l
        (n,) linear predictor, offset included; (4, n) log-density and three derivatives in eta.
    value
        Log posterior up to a constant.
    """

    gamma: Array
    u: Array
    b: Array
    eta: Array
    l: Array
    value: float


@dataclass(frozen=True, slots=True)
class Curvature:
    """The negative Hessian at a point.

    Attributes
    ----------
    w
        (n,) weights.
    W, zx
        Z'WZ in flat blocks and Z'WX (effects, p).
    cross
        Lambda' Z'WX.
    factor
        The factor of I + Lambda' Z'WZ Lambda; empty without random effects.
    xx
        (p, p) X'WX with the prior's information.
    """

    w: Array
    W: Array
    zx: Array
    cross: Array
    factor: tuple[Factor, ...]
    xx: Array


class Conditional:
    """The posterior of (gamma, u) given Lambda and sigma.

    Parameters
    ----------
    X, Z
        (n, p) orthonormal columns; (n, columns) of all terms in order of elimination.
    lam
        The Lambda_f one after the other, in order of elimination, on the link scale.
    """

    def __init__(
        self,
        model: Model,
        prior: CoefficientPrior,
        structure: Structure,
        X: Array,
        Z: Array,
        lam: Array,
        sigma: float,
    ) -> None:
        self.likelihood, self.density = model.likelihood, Density(model.likelihood)
        self.offset, self.prior, self.structure = np.array(model.design.offset), prior, structure
        self.X, self.Z, self.lam, self.sigma = X, Z, lam, sigma

    def at(self, gamma: Array, u: Array) -> Point:
        """The log posterior at a point."""
        eta, l = self.X @ gamma + self.offset, np.empty((4, len(self.offset)))
        b = np.zeros_like(u)
        if len(u):
            fixed, eta = eta, np.empty_like(eta)
            kernels.predict(self.structure.arrays, self.lam, self.Z, fixed, u, b, eta)
        value = self.density(eta, self.sigma, l) - 0.5 * float(np.vdot(u, u))
        return Point(gamma, u, b, eta, l, value + self.prior(gamma)[0])

    def pull(self, rows: Array) -> tuple[Array, Array]:
        """Z' rows and Lambda' Z' rows, for rows (n, m)."""
        shape = (self.structure.effects, rows.shape[1])
        sums, scaled = np.zeros(shape), np.zeros(shape)
        if self.structure.effects:
            rows = np.ascontiguousarray(rows)
            kernels.pull_rows(self.structure.arrays, self.lam, self.Z, rows, sums, scaled)
        return sums, scaled

    def curvature(self, at: Point) -> Curvature:
        """The negative Hessian, by expected information in rows where it is not positive."""
        expected = self.likelihood.expected_weights(at.eta, self.sigma)
        w = np.where(at.l[2] < 0.0, -at.l[2], expected)
        wx, W = self.X * w[:, None], np.zeros(self.structure.values)
        factor: tuple[Factor, ...] = ()
        if self.structure.effects:
            kernels.cross_products(self.structure.arrays, self.Z, w, W)
            factor = (factorize(self.structure, W, self.lam),)
        xx = self.X.T @ wx + self.prior.information(at.gamma)
        return Curvature(w, W, *self.pull(wx), factor, xx)

    def mode(self, gamma: Array, u: Array) -> tuple[Point, Curvature]:
        """Newton's method with step halving, from given values.

        Raises
        ------
        numpy.linalg.LinAlgError
            If the log-density is not finite there.
        """
        at = self.at(gamma, u)
        if not np.isfinite(at.value):
            at = self.at(gamma, np.zeros_like(u))
        if not np.isfinite(at.value):
            raise np.linalg.LinAlgError("the log-density is not finite at the ML estimate")
        for _ in range(_MAX_STEPS):
            curved = self.curvature(at)
            slope = self.pull(at.l[1][:, None])[1] - at.u
            solved = np.zeros((len(at.u), 1 + len(gamma)))
            for factor in curved.factor:
                solved = solve(factor, np.concatenate([slope, curved.cross], axis=1))
            along = self.X.T @ at.l[1] + self.prior(at.gamma)[1] - solved[:, 1:].T @ slope[:, 0]
            schur = curved.xx - curved.cross.T @ solved[:, 1:]
            dgamma = np.linalg.lstsq(schur, along, rcond=None)[0]
            distance = float(along @ dgamma) + float(np.vdot(slope, solved[:, 0]))
            du = solved[:, :1] - solved[:, 1:] @ dgamma[:, None]
            if not distance > _EXACT:
                break
            size = 1.0
            while size > 1e-8:
                trial = self.at(at.gamma + size * dgamma, at.u + size * du)
                if trial.value > at.value:
                    break
                size *= 0.5
            else:
                break
            at = trial
        return at, curved
