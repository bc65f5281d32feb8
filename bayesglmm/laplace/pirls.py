"""Conditional modes of the random effects by penalised Newton steps (PIRLS).

Maximises f(u) = sum_i l_i(x_i'beta + m_i'u) - |u|^2 / 2 for fixed (theta, beta). Newton with
the observed information; where that is not positive the expected information takes its place.
Every step is halved until f grows, so the iteration cannot diverge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesglmm.families import Likelihood
from bayesglmm.laplace.blocks import (
    Array,
    CrossProducts,
    Factor,
    Layout,
    cross_products,
    factorize,
    row_product,
    solve,
    transpose_product,
)

_MAX_STEPS = 100
# Squared Newton decrement at which the modes are exact to about 1e-10 of their sd.
_DECREMENT = 1e-20


@dataclass(frozen=True, slots=True)
class Modes:
    """The conditional modes and what is known there.

    Attributes
    ----------
    u
        (J_f, K_f) spherical modes of every term.
    eta
        (n,) linear predictor at the modes.
    f
        Penalised log-likelihood sum l_i - |u|^2/2.
    l1, l2, l3
        (n,) derivatives of the log-density in eta.
    cross, factor
        Cross-products with the weights -l2, and H factorised.
    converged
        Whether the Newton decrement vanished.
    """

    u: list[Array]
    eta: Array
    f: float
    l1: Array
    l2: Array
    l3: Array
    cross: CrossProducts
    factor: Factor
    converged: bool


def scale_up(lambdas: tuple[Array, ...], u: list[Array]) -> list[Array]:
    """b = Lambda u for every level."""
    return [effects @ factor.T for effects, factor in zip(u, lambdas, strict=True)]


def scale_down(lambdas: tuple[Array, ...], parts: list[Array]) -> list[Array]:
    """Lambda' applied to (J_f, K_f[, m]) arrays."""
    return [
        np.einsum("kc,jk...->jc...", factor, part)
        for part, factor in zip(parts, lambdas, strict=True)
    ]


def conditional_modes(
    layout: Layout,
    likelihood: Likelihood,
    fixed: Array,
    lambdas: tuple[Array, ...],
    start: list[Array],
    sigma: float = 1.0,
) -> Modes:
    """Modes of u given the fixed part of eta and Lambda.

    Parameters
    ----------
    fixed
        (n,) X beta + offset.
    start
        (J_f, K_f) starting values, replaced by zeros where they are worse.
    sigma
        Scale of the family, 1 where it has none.

    Raises
    ------
    numpy.linalg.LinAlgError
        If H is not positive definite at the mode found.
    """

    def evaluate(u: list[Array]) -> tuple[Array, float]:
        eta = fixed + row_product(layout, scale_up(lambdas, u))
        value = float(np.sum(likelihood.log_density(eta, sigma)))
        return eta, value - 0.5 * sum(float(np.sum(v * v)) for v in u)

    u = [v.copy() for v in start]
    eta, f = evaluate(u)
    zeros = [np.zeros_like(v) for v in start]
    eta0, f0 = evaluate(zeros)
    if not f >= f0:
        u, eta, f = zeros, eta0, f0
    converged = False
    for _ in range(_MAX_STEPS):
        l1, l2, l3 = likelihood.derivatives(eta, sigma)
        w = -l2
        if np.any(w <= 0.0):
            w = np.where(w > 0.0, w, likelihood.expected_weights(eta, sigma))
        cross = cross_products(layout, w)
        factor = factorize(layout, cross, lambdas)
        score = scale_down(lambdas, transpose_product(layout, l1))
        g = [s - v for s, v in zip(score, u, strict=True)]
        step = [s[..., 0] for s in solve(factor, [v[..., None] for v in g])]
        decrement = sum(float(np.sum(a * b)) for a, b in zip(g, step, strict=True))
        if decrement < _DECREMENT * (1.0 + abs(f) * 1e-8):
            converged = True
            break
        size = 1.0
        while size > 1e-10:
            trial = [v + size * s for v, s in zip(u, step, strict=True)]
            new_eta, new_f = evaluate(trial)
            # Close to the mode f is flat to rounding: a full Newton step is then right.
            if new_f > f or (decrement < 1e-10 and new_f > f - 1e-9 * (1.0 + abs(f))):
                break
            size *= 0.5
        else:
            break
        u, eta, f = trial, new_eta, new_f
    if np.any(l2 > 0.0):
        cross = cross_products(layout, -l2)
        factor = factorize(layout, cross, lambdas)
    return Modes(u, eta, f, l1, l2, l3, cross, factor, converged)
