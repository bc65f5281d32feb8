# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Compiled: candidates for the random effects, weighed against their Gaussian approximation."""

from __future__ import annotations

import numpy as np
from numba import njit

from bayesglmm.families.compiled import evaluate
from bayesglmm.laplace.kernels import predict


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
