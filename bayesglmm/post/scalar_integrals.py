# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""One-dimensional integrals over the effect of every level, compiled."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from bayesglmm.families.compiled import evaluate

_STEPS = 100
_CLOSE = 1e-12  # squared Newton decrement: a rule may be centred a millionth of an sd off


@njit(cache=True, nogil=True, error_model="numpy")
def scalar_levels(code, y, w, z, fixed, starts, sd, sigma, x, log_weight, start, out):
    """Log-integrals over u ~ N(0, 1) of the likelihood of each level's rows, eta = fixed + sd z u.

    Parameters
    ----------
    code, y, w
        A compiled family and its data; rows are sorted by level.
    z, fixed
        (n,) covariate and linear predictor without the effect.
    starts
        (J + 1,) first row of every level.
    x, log_weight
        (N,) adaptive Gauss-Hermite rule.
    start
        (J,) where the searches for the modes of u begin.
    out
        (J,) receives the log-integrals.

    Returns
    -------
    bool
        Whether the information is positive at every mode.
    """
    J, N = len(out), len(x)
    longest = 0
    for j in range(J):
        longest = max(longest, starts[j + 1] - starts[j])
    eta, l, terms = np.empty(longest), np.empty((4, longest)), np.empty(N)
    for j in range(J):
        a, b = starts[j], starts[j + 1]
        m, u, e = b - a, start[j], eta[: b - a]
        yj, wj, zj, fj = y[a:b], w[a:b], z[a:b], fixed[a:b]
        f = _at(code, yj, wj, zj, fj, sd, sigma, u, e, l)
        if not math.isfinite(f):
            u = 0.0
            f = _at(code, yj, wj, zj, fj, sd, sigma, u, e, l)
        h = 1.0
        for _ in range(_STEPS):
            slope, h = -u, 1.0
            for i in range(m):
                s = sd * z[a + i]
                slope += s * l[1, i]
                h -= s * s * l[2, i]
            step = slope / h if h > 0.0 else slope
            if slope * step < _CLOSE:
                break
            size = 1.0
            while size > 1e-10:
                new = u + size * step
                value = _at(code, yj, wj, zj, fj, sd, sigma, new, e, l)
                if value >= f - 1e-12 * abs(f):
                    break
                size *= 0.5
            if size <= 1e-10:  # nowhere higher: this is the mode to rounding
                f = _at(code, yj, wj, zj, fj, sd, sigma, u, e, l)
                break
            u, f = new, value
        if not h > 0.0:
            return False
        width, peak = 1.0 / math.sqrt(h), -math.inf
        for q in range(N):
            at = u + width * x[q]
            terms[q] = log_weight[q] + _at(code, yj, wj, zj, fj, sd, sigma, at, e, l)
            peak = max(peak, terms[q])
        total = 0.0
        for q in range(N):
            total += math.exp(terms[q] - peak)
        out[j] = peak + math.log(total) + math.log(width)
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _at(code, y, w, z, fixed, sd, sigma, u, eta, l):
    """Log-density of the rows of a level at u, with the effect's own; l is filled."""
    m = len(y)
    for i in range(m):
        eta[i] = fixed[i] + sd * z[i] * u
    return evaluate(code, y, w, eta, sigma, l) - 0.5 * u * u
