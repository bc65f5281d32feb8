"""Conditional modes of the random effects by penalised Newton steps (PIRLS).

Maximises f(u) = sum_i l_i(x_i'beta + m_i'u) - |u|^2 / 2 for fixed (theta, beta). Newton with
the observed information; where that is not positive the expected information takes its place.
Every step is halved until f grows, so the iteration cannot diverge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesglmm.families.compiled import Density
from bayesglmm.laplace import kernels
from bayesglmm.laplace.covariance import Covariance
from bayesglmm.laplace.factor import Factor, factorize, solve
from bayesglmm.laplace.standardise import Coordinates
from bayesglmm.laplace.structure import Array

_MAX_STEPS = 100
# Squared Newton decrement at which the modes are exact to about 1e-10 of their sd.
_DECREMENT = 1e-20
_FAR = 1.0  # squared decrement of a start that may be worse than none


@dataclass(frozen=True, slots=True)
class Problem:
    """Everything the objective needs that does not change during a fit.

    Attributes
    ----------
    columns
        X, Z and their structure, standardised.
    offset
        (n,) on the link scale.
    density
        Log-density of the response.
    covariance
        The map from theta to Lambda.
    """

    columns: Coordinates
    offset: Array
    density: Density
    covariance: Covariance

    @property
    def p(self) -> int:
        """Number of fixed effects."""
        return int(self.columns.X.shape[1])

    def zeros(self) -> Array:
        """(effects, 1) a start for the modes."""
        return np.zeros((self.columns.structure.effects, 1))


@dataclass(frozen=True, slots=True)
class Modes:
    """The conditional modes and what is known there.

    Attributes
    ----------
    u, b
        (effects, 1) modes, spherical and on the link scale.
    eta
        (n,) linear predictor at the modes.
    f
        Penalised log-likelihood sum l_i - |u|^2/2.
    l
        (4, n): log-density up to constants and its three derivatives in eta.
    score
        (effects, 1) Z' l'.
    W, factor
        Z' diag(-l'') Z in flat blocks, and H factorised.
    converged
        Whether the Newton decrement vanished.
    """

    u: Array
    b: Array
    eta: Array
    f: float
    l: Array  # noqa: E741
    score: Array
    W: Array
    factor: Factor
    converged: bool


def conditional_modes(
    problem: Problem, fixed: Array, lam: Array, start: Array, sigma: float = 1.0
) -> Modes:
    """Modes of u given the fixed part of eta and Lambda.

    Parameters
    ----------
    fixed
        (n,) X beta + offset.
    lam
        Lambda_f as the kernels take them.
    start
        (effects, 1) starting values, replaced by zeros where they are worse.
    sigma
        Scale of the family, 1 where it has none.

    Raises
    ------
    numpy.linalg.LinAlgError
        If H is not positive definite at the mode found.
    """
    structure, Z, density = problem.columns.structure, problem.columns.Z, problem.density
    s, n = structure.arrays, len(fixed)

    def evaluate(u: Array) -> tuple[Array, Array, Array, float]:
        b, eta, out = np.empty_like(u), np.empty(n), np.empty((4, n))
        kernels.scale_effects(s, lam, u, b)
        kernels.add_effects(s, Z, fixed, b, eta)
        value = density(eta, sigma, out)
        return b, eta, out, value - 0.5 * float(np.vdot(u, u))

    def information(w: Array) -> tuple[Array, Factor]:
        W = np.empty(structure.values)
        kernels.cross_products(s, Z, w, W)
        return W, factorize(structure, W, lam)

    u = start
    b, eta, l, f = evaluate(u)
    if not np.isfinite(f):
        u = np.zeros_like(start)
        b, eta, l, f = evaluate(u)
    converged = False
    for k in range(_MAX_STEPS):
        w = -l[2]
        positive = float(w.min()) > 0.0
        if not positive:
            w = np.where(w > 0.0, w, density.likelihood.expected_weights(eta, sigma))
        W, factor = information(w)
        score, scaled = np.empty_like(u), np.empty_like(u)
        kernels.sum_rows(s, Z, l[1][:, None], score)
        kernels.scale_sums(s, lam, score, scaled)
        gradient = scaled - u
        step = solve(factor, gradient)
        decrement = float(np.vdot(gradient, step))
        if decrement < _DECREMENT * (1.0 + abs(f) * 1e-8):
            converged = True
            break
        if k == 0 and decrement > _FAR and u.any():
            zero = np.zeros_like(u)
            other = evaluate(zero)
            if other[3] > f:
                u, (b, eta, l, f) = zero, other
                continue
        size = 1.0
        while size > 1e-10:
            trial = u + size * step
            new_b, new_eta, new_l, new_f = evaluate(trial)
            # Close to the mode f is flat to rounding: a full Newton step is then right.
            if new_f > f or (decrement < 1e-10 and new_f > f - 1e-9 * (1.0 + abs(f))):
                break
            size *= 0.5
        else:
            break
        u, b, eta, l, f = trial, new_b, new_eta, new_l, new_f
    if not positive:
        W, factor = information(-l[2])
    return Modes(u, b, eta, f, l, score, W, factor, converged)
