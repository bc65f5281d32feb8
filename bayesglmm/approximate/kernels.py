# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Compiled: points evaluated one after the other, their random effects drawn.

Candidates for the random effects are weighed against their Gaussian approximation. Whole points
are for models whose terms nest (see `laplace/chain.py`).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from bayesglmm.families.compiled import evaluate
from bayesglmm.laplace.chain import modes
from bayesglmm.laplace.kernels import predict, solve_up, unscale_effects


@njit(cache=True, nogil=True, error_model="numpy")
def weigh_candidates(
    s, lam, Z, fixed, model, sigma, mode, away, noise, of_rows, of_effects, here, b, log_ratios
):
    """Fill b (candidates, effects, 1) and log_ratios (candidates, groups).

    Candidates come in pairs mode + away, mode - away; ``away`` and the ``noise`` it came from are
    (effects, pairs). ``here`` is the penalised log-density of every group at the mode.
    """
    m, n = len(mode), len(fixed)
    u, eta, l = np.empty((m, 1)), np.empty(n), np.empty((4, n))
    for c in range(len(b)):
        sign = 1.0 if c % 2 == 0 else -1.0
        pair = c // 2
        for k in range(m):
            u[k, 0] = mode[k, 0] + sign * away[k, pair]
        predict(s, lam, Z, fixed, u, b[c], eta)
        evaluate(model[0], model[1], model[2], eta, sigma, l)
        for g in range(len(here)):
            log_ratios[c, g] = -here[g]
        for i in range(n):
            log_ratios[c, of_rows[i]] += l[0, i]
        for k in range(m):
            z = noise[k, pair]
            log_ratios[c, of_effects[k]] -= 0.5 * (u[k, 0] * u[k, 0] - z * z)


@njit(cache=True, nogil=True, error_model="numpy")
def choose(b, log_ratios, of_effects, uniform, out):
    """Take in each group one of the candidates b, in proportion to the ratios, into out (effects,).

    ``uniform`` (groups,) says which. Returns the log of the product of the average ratios.
    """
    candidates, groups = log_ratios.shape
    picked, total = np.empty(groups, dtype=np.int64), 0.0
    for g in range(groups):
        top, whole = log_ratios[0, g], 0.0
        for c in range(1, candidates):
            top = max(top, log_ratios[c, g])
        for c in range(candidates):
            whole += math.exp(log_ratios[c, g] - top)
        total += top + math.log(whole / candidates)
        part = 0.0
        picked[g] = candidates - 1
        for c in range(candidates):
            part += math.exp(log_ratios[c, g] - top)
            if uniform[g] * whole <= part:
                picked[g] = c
                break
    for k in range(len(out)):
        out[k] = b[picked[of_effects[k]], k, 0]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def complete_nested(
    s, places, Z, X, offset, model, limits, theta, sigma, beta, start, noise, uniform,
    candidates, of_rows, of_effects, lam, at, values, log_ratios, b, found,
):  # fmt: skip
    """Evaluate every point (theta, sigma, beta), each (m, ...), and draw its random effects.

    ``start`` (m, effects) are guesses at their modes, ``noise`` (m, effects, pairs) standard
    normals and ``uniform`` (m, groups) what chooses among candidates. Filled are ``values`` (m,)
    of Laplace's approximation, up to the constant of the density; ``log_ratios`` (m,) by which
    the exact ones are higher; the effects b (m, effects); and whether this was ``found``. The
    workspace is ``lam`` and ``at``, that of `chain.modes`.
    """
    m, effects, n, groups = len(theta), start.shape[1], len(offset), uniform.shape[1]
    u, none = np.empty((effects, 1)), np.empty((0, 0))
    fixed, here = np.empty(n), np.empty(groups)
    tried, ratios = np.empty((candidates, effects, 1)), np.empty((candidates, groups))
    joint = len(beta) < 0  # no: a literal would compile another `modes`
    for i in range(m):
        for k in range(len(places)):
            lam[places[k]] = theta[i, k]
        unscale_effects(s, lam, start[i].reshape(effects, 1), u)
        status, f, logdet = modes(
            s, lam, Z, X, offset, model, sigma[i], limits, joint, beta[i],
            (none, none, none), u, at,
        )  # fmt: skip
        found[i] = status < 2
        if not found[i]:
            continue
        values[i] = f - 0.5 * logdet
        here[:] = 0.0
        for r in range(n):
            here[of_rows[r]] += at[2][0, r]
            fixed[r] = offset[r]
            for k in range(beta.shape[1]):
                fixed[r] += X[r, k] * beta[i, k]
        for k in range(effects):
            here[of_effects[k]] -= 0.5 * u[k, 0] * u[k, 0]
        away = noise[i].copy()
        solve_up(s, at[5], away)
        weigh_candidates(
            s, lam, Z, fixed, model, sigma[i], u, away, noise[i], of_rows, of_effects, here,
            tried, ratios,
        )  # fmt: skip
        log_ratios[i] = choose(tried, ratios, of_effects, uniform[i], b[i])
