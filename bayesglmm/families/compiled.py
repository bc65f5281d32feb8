# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Compiled log-densities of the common families, with three derivatives in eta.

The records in this package say what a family is, in NumPy; here the pairs of family and link
that most fits use are written once more, row by row, for the numerical engines. The laws in
`tests/laws/test_families.py` hold the two together. A family that is not listed here works as
well, only slower.

Every function is (y, w, eta, sigma) -> (log p without what does not depend on eta and sigma,
and its first three derivatives in eta).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from scipy.special import gammaln

from bayesglmm.families.elementary import exp, log1p_of_unit
from bayesglmm.families.family import Array, Likelihood, log_choices

_GAUSSIAN, _GAUSSIAN_LOG, _LOGIT, _CLOGLOG, _POISSON = range(5)
_PROBIT, _LOG, _SHARE, _RATE, _LARGE_POISSON = range(5, 10)
_CODES = {
    ("gaussian", "identity"): _GAUSSIAN,
    ("gaussian", "log"): _GAUSSIAN_LOG,
    ("binomial", "logit"): _LOGIT,
    ("bernoulli", "logit"): _LOGIT,
    ("binomial", "cloglog"): _CLOGLOG,
    ("bernoulli", "cloglog"): _CLOGLOG,
    ("poisson", "log"): _POISSON,
    ("binomial", "probit"): _PROBIT,
    ("bernoulli", "probit"): _PROBIT,
    ("binomial", "log"): _LOG,
    ("bernoulli", "log"): _LOG,
    ("binomial", "identity"): _SHARE,
    ("bernoulli", "identity"): _SHARE,
    ("poisson", "identity"): _RATE,
}
_LARGEST_EXPONENT = 230.0  # as in links.py
# From here on a Poisson density is taken relative to that at mu = y: both terms of y eta - mu are
# so large that their difference would be rounding.
_LARGE_COUNT = 1000.0
_ROOT_HALF = math.sqrt(0.5)
_ROOT_2_PI = math.sqrt(2.0 * math.pi)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _gaussian(y, w, eta, sigma):
    precision = w / (sigma * sigma)
    e = y - eta
    return -0.5 * precision * e * e, precision * e, -precision, 0.0


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _gaussian_log(y, w, eta, sigma):
    precision = w / (sigma * sigma)
    mu = exp(min(eta, _LARGEST_EXPONENT))
    e = y - mu
    return (
        -0.5 * precision * e * e,
        precision * e * mu,
        precision * mu * (e - mu),
        precision * mu * (e - 3.0 * mu),
    )


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _logit(y, w, eta, sigma):
    t = exp(-abs(eta))  # never overflows
    large = 1.0 / (1.0 + t)
    small = t * large
    if eta > 0.0:
        p, complement, top = large, small, eta
    else:
        p, complement, top = small, large, 0.0
    v = w * (p * complement)
    return (
        w * (y * eta - top - log1p_of_unit(t)),
        w * (y * complement - (1.0 - y) * p),
        -v,
        v * (p - complement),
    )


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _cloglog(y, w, eta, sigma):
    e = math.exp(min(eta, _LARGEST_EXPONENT))
    failures = w * (1.0 - y)
    value = first = second = third = 0.0
    if failures > 0.0:
        value = first = second = third = -failures * e
    successes = w * y
    if successes > 0.0:
        t = min(e, 700.0)
        if eta < -30.0:
            log_p = eta
        else:
            log_p = math.log(-math.expm1(-t))
        r = t / math.expm1(t) if t > 0.0 else 1.0
        # 1 - t - r cancels for small t, where it is -t/2 - t^2/12
        s = -0.5 * t - t * t / 12.0 if t < 1e-4 else 1.0 - t - r
        curve = r * s
        value += successes * log_p
        first += successes * r
        second += successes * curve
        third += successes * (curve * s - r * (t + curve))
    return value, first, second, third


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _poisson(y, w, eta, sigma):
    mu = w * exp(min(eta, _LARGEST_EXPONENT))
    return w * y * eta - mu, w * y - mu, -mu, -mu


@njit(cache=True, nogil=True, error_model="numpy")
def _large_poisson(y, w, eta, sigma):
    """The same, relative to mu = y where y is large."""
    if y < _LARGE_COUNT:
        return _poisson(y, w, eta, sigma)
    d = eta - math.log(y)
    e = math.expm1(min(d, _LARGEST_EXPONENT))
    mu = w * y * (1.0 + e)
    return w * y * (d - e), -w * y * e, -mu, -mu


@njit(cache=True, nogil=True, error_model="numpy")
def _log_normal_cdf(x):
    """log Phi(x) and three derivatives, as in links.py."""
    lower = 0.5 * math.erfc(-x * _ROOT_HALF)
    if x >= 0.0:
        value = math.log1p(-0.5 * math.erfc(x * _ROOT_HALF))
    elif x > -35.0:
        value = math.log(lower)
    else:
        value = -0.5 * x * x
    if x >= -10.0:
        r = math.exp(-0.5 * min(x * x, 1490.0)) / (_ROOT_2_PI * lower)
        tail = x + r
    else:  # a continued fraction: x + r would cancel
        tail = 0.0
        for k in range(60, 0, -1):
            tail = k / (tail - x)
        r = tail - x
        if x <= -35.0:
            value -= math.log(_ROOT_2_PI * r)  # Phi = phi / r
    second = -r * tail
    third = -(second * tail + r * (1.0 + second)) if x >= -500.0 else -2.0 / (x * x * x)
    return value, r, second, third


@njit(cache=True, nogil=True, error_model="numpy")
def _probit(y, w, eta, sigma):
    value = first = second = third = 0.0
    successes, failures = w * y, w * (1.0 - y)
    if successes > 0.0:
        v, a, b, c = _log_normal_cdf(eta)
        value, first, second, third = successes * v, successes * a, successes * b, successes * c
    if failures > 0.0:
        v, a, b, c = _log_normal_cdf(-eta)
        value += failures * v
        first -= failures * a
        second += failures * b
        third -= failures * c
    return value, first, second, third


@njit(cache=True, nogil=True, error_model="numpy")
def _log_probability(y, w, eta, sigma):
    """Binomial with log link."""
    failures = w * (1.0 - y)
    value, first, second, third = w * y * eta, w * y, 0.0, 0.0
    if eta > 0.0 or (eta == 0.0 and failures > 0.0):
        return -math.inf, first, second, third
    if failures > 0.0:
        complement = -math.expm1(eta)
        r = math.exp(eta) / complement
        value += failures * math.log(complement)
        first -= failures * r
        second -= failures * r * (1.0 + r)
        third -= failures * r * (1.0 + r) * (1.0 + 2.0 * r)
    return value, first, second, third


@njit(cache=True, nogil=True, error_model="numpy")
def _share(y, w, eta, sigma):
    """Binomial with identity link."""
    value = first = second = third = 0.0
    if not 0.0 <= eta <= 1.0:
        return -math.inf, first, second, third
    successes, failures = w * y, w * (1.0 - y)
    if successes > 0.0:
        a = successes / eta
        value = successes * math.log(eta) if eta > 0.0 else -math.inf
        first, second, third = a, -a / eta, 2.0 * a / (eta * eta)
    if failures > 0.0:
        other = 1.0 - eta
        a = failures / other
        value += failures * math.log(other) if other > 0.0 else -math.inf
        first -= a
        second -= a / other
        third -= 2.0 * a / (other * other)
    return value, first, second, third


@njit(cache=True, nogil=True, error_model="numpy")
def _rate(y, w, eta, sigma):
    """Poisson with identity link."""
    if not eta >= 0.0:
        return -math.inf, 0.0, 0.0, 0.0
    if y == 0.0:
        return -w * eta, -w, 0.0, 0.0
    if eta == 0.0:
        return -math.inf, 0.0, 0.0, 0.0
    r = y / eta
    return (
        w * (y * math.log(eta) - eta),
        w * (r - 1.0),
        -w * (r / eta),
        2.0 * w * (r / (eta * eta)),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _rare(code, y, w, eta, sigma):
    """The families and links of few models: compiled once for all of them."""
    if code == _CLOGLOG:
        return _cloglog(y, w, eta, sigma)
    if code == _PROBIT:
        return _probit(y, w, eta, sigma)
    if code == _LOG:
        return _log_probability(y, w, eta, sigma)
    if code == _SHARE:
        return _share(y, w, eta, sigma)
    if code == _LARGE_POISSON:
        return _large_poisson(y, w, eta, sigma)
    return _rate(y, w, eta, sigma)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def evaluate(code, y, w, eta, sigma, out):
    """Fill out (4, n) and return the sum of its first row, taken in blocks to keep its digits."""
    n, value, first, second, third = len(y), out[0], out[1], out[2], out[3]
    if code == _LOGIT:
        for i in range(n):
            value[i], first[i], second[i], third[i] = _logit(y[i], w[i], eta[i], sigma)
    elif code == _POISSON:
        for i in range(n):
            value[i], first[i], second[i], third[i] = _poisson(y[i], w[i], eta[i], sigma)
    elif code == _GAUSSIAN:
        for i in range(n):
            value[i], first[i], second[i], third[i] = _gaussian(y[i], w[i], eta[i], sigma)
    elif code == _GAUSSIAN_LOG:
        for i in range(n):
            value[i], first[i], second[i], third[i] = _gaussian_log(y[i], w[i], eta[i], sigma)
    else:
        for i in range(n):
            value[i], first[i], second[i], third[i] = _rare(code, y[i], w[i], eta[i], sigma)
    total = 0.0
    for start in range(0, n, 512):
        total += add_up(value[start : min(start + 512, n)])
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc"})
def add_up(v):
    """The sum of v, several elements at a time."""
    total = 0.0
    for i in range(len(v)):
        total += v[i]
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def value_and_slope(code, y, w, eta, sigma, value, slope):
    """The first two of `evaluate` for every row: what a sampler needs."""
    n = len(y)
    if code == _LOGIT:
        for i in range(n):
            value[i], slope[i], _, _ = _logit(y[i], w[i], eta[i], sigma)
    elif code == _POISSON:
        for i in range(n):
            value[i], slope[i], _, _ = _poisson(y[i], w[i], eta[i], sigma)
    elif code == _GAUSSIAN:
        for i in range(n):
            value[i], slope[i], _, _ = _gaussian(y[i], w[i], eta[i], sigma)
    elif code == _GAUSSIAN_LOG:
        for i in range(n):
            value[i], slope[i], _, _ = _gaussian_log(y[i], w[i], eta[i], sigma)
    else:
        for i in range(n):
            value[i], slope[i], _, _ = _rare(code, y[i], w[i], eta[i], sigma)


class Density:
    """The log-density of the data as the engines evaluate it, thousands of times.

    Compiled where the family and link are known here, by the family's own functions otherwise.

    Parameters
    ----------
    likelihood
        Family and link bound to n observations.
    """

    def __init__(self, likelihood: Likelihood) -> None:
        self.likelihood = likelihood
        self._code = _CODES.get((likelihood.family.name, likelihood.link.name), -1)
        if self._code == _POISSON and np.any(likelihood.y >= _LARGE_COUNT):
            self._code = _LARGE_POISSON
        # Copies of one type (contiguous, writable): another type would compile another kernel.
        self._y, self._w = np.array(likelihood.y), np.array(likelihood.w)
        self._constant = self._data_constant() if self._code >= 0 else 0.0

    @property
    def compiled(self) -> tuple[int, Array, Array] | None:
        """Code, y and w for :func:`evaluate`; None for a family it does not know."""
        return (self._code, self._y, self._w) if self._code >= 0 else None

    def constant(self, sigma: float) -> float:
        """What the first row that a call fills leaves out of the log-density, summed."""
        if self._code >= 0 and self.likelihood.family.has_scale:
            return self._constant - len(self._y) * math.log(sigma)
        return self._constant

    def _data_constant(self) -> float:
        y, w, name = self._y, self._w, self.likelihood.family.name
        if name == "gaussian":
            return float(0.5 * np.sum(np.log(w)) - 0.5 * len(y) * np.log(2.0 * np.pi))
        if name == "poisson":
            at_y = np.zeros_like(y)
            if self._code == _LARGE_POISSON:
                at_y = np.where(y < _LARGE_COUNT, 0.0, y * np.log(np.maximum(y, 1.0)) - y)
            return float(np.sum(w * (at_y - gammaln(y + 1.0))))
        if np.all(w == 1.0):
            return 0.0
        return float(np.sum(log_choices(w, y) + self.likelihood.repeated()))

    def __call__(self, eta: Array, sigma: float, out: Array) -> float:
        """Sum of log p(y_i | eta_i), constants included.

        Parameters
        ----------
        eta
            (n,) linear predictor.
        out
            (4, n), filled with log p (up to constants) and its first three derivatives in eta.
        """
        if self._code < 0:
            out[0] = self.likelihood.log_density(eta, sigma)
            out[1], out[2], out[3] = self.likelihood.derivatives(eta, sigma)
            return float(np.sum(out[0]))
        total: float = evaluate(self._code, self._y, self._w, eta, sigma, out)
        return total + self.constant(sigma)
