# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The covariance parameters as the samplers see them: unconstrained, with prior and Jacobian.

For each random-effects term t holds the K log sds and, where the columns are correlated,
atanh of the K (K - 1) / 2 canonical partial correlations, row by row; last, log sigma where the
family has a scale. Under LKJ(eta) the partial correlations are independent,

    (1 + z_rc) / 2 ~ Beta(a, a),     a = eta + (K - c - 2) / 2     (c from 0),

Lewandowski, Kurowicka & Joe 2009, doi:10.1016/j.jmva.2009.04.008. A term's factor is the lower
Cholesky factor of the covariance of its effects, ``diag(sd) chol(correlations)``, on the link
scale (not relative to sigma).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import betaln

from bayesglmm.priors.compiled import compiled_priors, log_prior

if TYPE_CHECKING:
    from bayesglmm.model import Model

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

_TAIL = 0.5  # how far below the mode of a log sd its tail begins
_SHARPNESS = 2.0  # of the elbow there
NO_TAIL = -1e30  # of correlations, of log sigma, and of sds that cannot be zero
_LOWER = 3.0  # a log sd so much lower: a twentieth of the sd
_NO_CHANCE = 10.0  # log-density lost there by an sd that cannot be zero
_APART = 0.7  # correlation up to which such a loss is not made good by another parameter


@dataclass(frozen=True, slots=True)
class Scales:
    """Layout and priors of t.

    Attributes
    ----------
    terms
        (F, 4): number of columns K, 1 where they are correlated, where the term begins in t,
        where its (K, K) factor begins among the factors.
    codes, parameters
        (s,) and (s, 3) compiled priors of all sds, term by term, and of sigma.
    etas
        (F,) LKJ parameters.
    constant
        Sum of the log normalising constants.
    has_scale
        Whether the last element of t is log sigma.
    size, factors
        Lengths of t and of the concatenated factors.
    """

    terms: Integers
    codes: Integers
    parameters: Array
    etas: Array
    constant: float
    has_scale: bool
    size: int
    factors: int

    @property
    def arrays(self) -> tuple[Integers, Integers, Array, Array]:
        """What the kernels read."""
        return self.terms, self.codes, self.parameters, self.etas

    def pack(self, factors: Sequence[Array], sigma: float) -> Array:
        """The t of given (K, K) lower factors and residual sd."""
        t = np.empty(self.size)
        for (K, correlated, at, _), factor in zip(self.terms, factors, strict=True):
            sd = np.sqrt(np.sum(factor**2, axis=1))
            t[at : at + K] = np.log(sd)
            if not correlated:
                continue
            unit = factor / sd[:, None]
            k = at + K
            for r in range(1, K):
                left = 1.0
                for c in range(r):
                    z = unit[r, c] / math.sqrt(left)
                    t[k] = math.atanh(min(max(z, -1.0 + 1e-12), 1.0 - 1e-12))
                    left = max(left - unit[r, c] ** 2, 1e-300)
                    k += 1
        if self.has_scale:
            t[-1] = math.log(sigma)
        return t

    def elbows(self, t: Array, cov: Array, log_density: Callable[[Array], float]) -> Array:
        """Where the tail of each element begins (:func:`bend`).

        An sd that the data keep from zero has none: below its mode is a wall, which a bend would
        make steeper.

        Parameters
        ----------
        t, cov
            (size,) mode and (size, size) covariance.
        log_density
            Of t, up to a constant.
        """
        out, top = np.full(self.size, NO_TAIL), log_density(t)
        sd = np.sqrt(np.diag(cov))
        tied = np.abs(cov / np.outer(sd, sd) - np.eye(self.size)).max(axis=1, initial=0.0)
        for K, _, at, _ in self.terms:
            for k in range(at, at + K):
                lower = t.copy()
                lower[k] -= _LOWER
                # A density that cannot be computed says nothing.
                kept = _NO_CHANCE < top - log_density(lower) < np.inf
                if not (kept and tied[k] < _APART):
                    out[k] = t[k] - _TAIL
        return out

    def unpack(self, t: Array) -> tuple[tuple[Array, ...], Array]:
        """(m, K_f, K_f) factors of every term and (m,) sigmas (1 without one), t (m, size)."""
        flat = unpack_all(np.ascontiguousarray(t), self.terms, self.factors)
        factors = tuple(flat[:, at : at + K * K].reshape(-1, K, K) for K, _, _, at in self.terms)
        return factors, np.exp(t[:, -1]) if self.has_scale else np.ones(len(t))


def scales_of(model: Model) -> Scales | None:
    """The scales of a model; None where a prior has no compiled form."""
    priors = model.priors
    found = compiled_priors([prior for sds in priors.sds for prior in sds] + list(priors.sigma))
    if found is None:
        return None
    codes, parameters, constant = found
    rows, at, place = [], 0, 0
    for term, lkj in zip(model.design.random, priors.correlations, strict=True):
        K = len(term.columns)
        correlated = term.correlated and K > 1
        rows.append((K, int(correlated), at, place))
        at += K
        place += K * K
        if correlated:
            at += K * (K - 1) // 2
            for c in range(K - 1):
                a = lkj.eta + 0.5 * (K - c - 2)
                constant -= (K - 1 - c) * float(betaln(a, a) + (2.0 * a - 1.0) * math.log(2.0))
    return Scales(
        np.array(rows, dtype=np.int64).reshape(-1, 4),
        codes,
        parameters,
        np.array([lkj.eta for lkj in priors.correlations], dtype=np.float64),
        constant,
        bool(priors.sigma),
        at + len(priors.sigma),
        place,
    )


@njit(cache=True, nogil=True, error_model="numpy")
def bend(v, elbow):
    """t(v), its slope and the slope of log t': t = v far above the elbow, quadratic below it.

    An sd that may be zero has a density flat at zero, that of its log an exponential tail; the
    tail of v is that of a normal.
    """
    distance = _SHARPNESS * (elbow - v)
    if distance < -40.0:  # nothing is left of it in double precision
        return v, 1.0, 0.0
    power = math.exp(-abs(distance))
    below = (max(distance, 0.0) + math.log1p(power)) / _SHARPNESS  # softplus
    share = (1.0 if distance > 0.0 else power) / (1.0 + power)
    slope = 1.0 + below * share
    turn = -share * share - _SHARPNESS * below * share * (1.0 - share)
    return v - 0.5 * below * below, slope, turn / slope


@njit(cache=True, nogil=True, error_model="numpy")
def straight(t, elbow):
    """The inverse of `bend`, by Newton's method."""
    depth = elbow - t
    v = elbow + 1.0 - math.sqrt(1.0 + 2.0 * depth) if depth > 0.0 else t
    for _ in range(50):
        value, slope, _ = bend(v, elbow)
        step = (t - value) / slope
        v += step
        if abs(step) < 1e-15 * (1.0 + abs(v)):
            break
    return v


@njit(cache=True, nogil=True, error_model="numpy")
def straighten(t, elbows, v):
    """The same for every row of t (m, size)."""
    for i in range(len(t)):
        for k in range(len(elbows)):
            v[i, k] = straight(t[i, k], elbows[k])


@njit(cache=True, nogil=True, error_model="numpy")
def natural(t, terms, values):
    """Sds, partial correlations and sigma, where t (size,) has their logs and atanh."""
    at = 0
    for f in range(len(terms)):
        K = terms[f, 0]
        for _ in range(K):
            values[at] = math.exp(t[at])
            at += 1
        if terms[f, 1]:
            for _ in range(K * (K - 1) // 2):
                values[at] = math.tanh(t[at])
                at += 1
    if at < len(t):
        values[at] = math.exp(t[at])


@njit(cache=True, nogil=True, error_model="numpy")
def unpack(values, terms, factors):
    """Fill the concatenated factors (row by row) from `natural` values."""
    for f in range(len(terms)):
        K, correlated, at, place = terms[f, 0], terms[f, 1], terms[f, 2], terms[f, 3]
        k = at + K
        for r in range(K):
            sd, left = values[at + r], 1.0
            for c in range(K):
                factors[place + r * K + c] = 0.0
            if correlated:
                for c in range(r):
                    z = values[k]
                    factors[place + r * K + c] = sd * z * math.sqrt(left)
                    left *= (1.0 - z) * (1.0 + z)
                    k += 1
            factors[place + r * K + r] = sd * math.sqrt(left)


@njit(cache=True, nogil=True, error_model="numpy")
def unpack_all(t, terms, size):
    """The factors of every row of t (m, size of t)."""
    out, values = np.zeros((len(t), size)), np.empty(t.shape[1])
    for i in range(len(t)):
        natural(t[i], terms, values)
        unpack(values, terms, out[i])
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def pull_back(values, terms, factors, slopes, gradient):
    """Add to ``gradient`` the derivative in t, given ``slopes``, that in the factors."""
    for f in range(len(terms)):
        K, correlated, at, place = terms[f, 0], terms[f, 1], terms[f, 2], terms[f, 3]
        k = at + K
        for r in range(K):
            row, sd = place + r * K, values[at + r]
            for c in range(r + 1):
                gradient[at + r] += slopes[row + c] * factors[row + c]
            if not correlated:
                continue
            # Backwards along the row: left_c = prod over c' < c of (1 - z^2).
            root = factors[row + r] / sd  # sqrt of what is left at the end
            slope_left = 0.5 * sd * slopes[row + r] / max(root, 1e-150)
            left = root * root
            for c in range(r - 1, -1, -1):
                z = values[k + c]
                open_ = (1.0 - z) * (1.0 + z)
                left = left / max(open_, 1e-300)
                root = math.sqrt(left)
                slope = sd * slopes[row + c]
                gradient[k + c] += (slope * root - 2.0 * z * left * slope_left) * open_
                slope_left = slope_left * open_ + 0.5 * slope * z / max(root, 1e-150)
            k += r


@njit(cache=True, nogil=True, error_model="numpy")
def log_prior_scales(t, values, terms, codes, parameters, etas, gradient):
    """Log prior of t, Jacobian included, without its constant; adds its gradient.

    ``values`` are the `natural` ones.
    """
    total, s, k = 0.0, 0, 0
    for f in range(len(terms)):
        K = terms[f, 0]
        for _ in range(K):
            value, slope = log_prior(
                codes[s], parameters[s, 0], parameters[s, 1], parameters[s, 2], values[k]
            )
            total += value + t[k]
            gradient[k] += slope * values[k] + 1.0
            s += 1
            k += 1
        if not terms[f, 1]:
            continue
        for r in range(1, K):
            for c in range(r):
                a = etas[f] + 0.5 * (K - c - 2)
                y = abs(t[k])  # log(1 - tanh(y)^2), without cancellation
                total += a * 2.0 * (math.log(2.0) - y - math.log1p(math.exp(-2.0 * y)))
                gradient[k] -= 2.0 * a * values[k]
                k += 1
    if k < len(t):
        value, slope = log_prior(
            codes[s], parameters[s, 0], parameters[s, 1], parameters[s, 2], values[k]
        )
        total += value + t[k]
        gradient[k] += slope * values[k] + 1.0
    return total
