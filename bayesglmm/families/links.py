"""Link functions: eta = g(mu), its inverse, and the derivatives that the engines need.

Every function works elementwise on float arrays and stays finite at eta = +-800.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, expit, log_expit, log_ndtr, logit, ndtr, ndtri

Array = NDArray[np.float64]
Derivatives = tuple[Array, Array, Array, Array]

# exp(230) is about 1e100: beyond it a cube of the mean would overflow to infinity.
_LARGEST_EXPONENT = 230.0


@dataclass(frozen=True, slots=True)
class Link:
    """A link function g with eta = g(mu).

    Attributes
    ----------
    name
        As users write it, e.g. ``"logit"``.
    link, inverse
        g and its inverse, elementwise.
    derivatives
        eta -> (mu, mu', mu'', mu'''), derivatives of the inverse in eta.
    log_probability
        eta -> (log mu, and its first three derivatives in eta); only for links whose mean
        is a probability, computed without cancellation in either tail.
    log_complement
        The same for log(1 - mu).
    pytensor
        The inverse as a PyTensor expression (PyTensor is imported when it is called).
    """

    name: str
    link: Callable[[Array], Array]
    inverse: Callable[[Array], Array]
    derivatives: Callable[[Array], Derivatives]
    log_probability: Callable[[Array], Derivatives]
    log_complement: Callable[[Array], Derivatives]
    pytensor: Callable[[Any], Any]

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle by name: its functions cannot travel, and need not."""
        if LINKS.get(self.name) is self:
            return _link_named, (self.name,)
        return object.__reduce__(self)


def _exp(eta: Array) -> Array:
    return np.exp(np.minimum(eta, _LARGEST_EXPONENT))


def _log_of(derivatives: Callable[[Array], Derivatives]) -> Callable[[Array], Derivatives]:
    """Derivatives of log mu by the chain rule; -inf outside mu > 0."""

    def log_mean(eta: Array) -> Derivatives:
        m, m1, m2, m3 = derivatives(eta)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.where(m > 0, np.log(np.where(m > 0, m, 1.0)), -np.inf)
            r1, r2, r3 = m1 / m, m2 / m, m3 / m
        return value, r1, r2 - r1**2, r3 - 3 * r1 * r2 + 2 * r1**3

    return log_mean


def _complement(derivatives: Callable[[Array], Derivatives]) -> Callable[[Array], Derivatives]:
    def one_minus(eta: Array) -> Derivatives:
        m, m1, m2, m3 = derivatives(eta)
        return 1.0 - m, -m1, -m2, -m3

    return one_minus


# identity ---------------------------------------------------------------------------------


def _identity_derivatives(eta: Array) -> Derivatives:
    zero = np.zeros_like(eta)
    return eta, np.ones_like(eta), zero, zero


IDENTITY = Link(
    name="identity",
    link=lambda mu: mu,
    inverse=lambda eta: eta,
    derivatives=_identity_derivatives,
    log_probability=_log_of(_identity_derivatives),
    log_complement=_log_of(_complement(_identity_derivatives)),
    pytensor=lambda eta: eta,
)

# log --------------------------------------------------------------------------------------


def _log_derivatives(eta: Array) -> Derivatives:
    mu = _exp(eta)
    return mu, mu, mu, mu


def _log_log_probability(eta: Array) -> Derivatives:
    zero = np.zeros_like(eta)
    return eta, np.ones_like(eta), zero, zero


def _log_pytensor(eta: Any) -> Any:
    import pytensor.tensor as pt

    return pt.exp(eta)


def _log_log_complement(eta: Array) -> Derivatives:
    """log(1 - e^eta) for eta < 0, without cancellation as eta approaches 0 or -inf."""
    inside = eta < 0
    e = np.where(inside, eta, -1.0)
    r = np.exp(e) / -np.expm1(e)  # mu / (1 - mu)
    value = np.where(inside, np.log(-np.expm1(e)), -np.inf)
    r1 = r * (1.0 + r)
    return value, -r, -r1, -r1 * (1.0 + 2.0 * r)


LOG = Link(
    name="log",
    link=np.log,
    inverse=_exp,
    derivatives=_log_derivatives,
    log_probability=_log_log_probability,
    log_complement=_log_log_complement,
    pytensor=_log_pytensor,
)

# logit ------------------------------------------------------------------------------------


def _logit_derivatives(eta: Array) -> Derivatives:
    mu, complement = expit(eta), expit(-eta)
    v = mu * complement
    return mu, v, v * (complement - mu), v * (1.0 - 6.0 * v)


def _logit_log_probability(eta: Array) -> Derivatives:
    mu, complement = expit(eta), expit(-eta)
    v = mu * complement
    return log_expit(eta), complement, -v, -v * (complement - mu)


def _logit_log_complement(eta: Array) -> Derivatives:
    mu, complement = expit(eta), expit(-eta)
    v = mu * complement
    return log_expit(-eta), -mu, -v, -v * (complement - mu)


def _logit_pytensor(eta: Any) -> Any:
    import pytensor.tensor as pt

    return pt.sigmoid(eta)


LOGIT = Link(
    name="logit",
    link=logit,
    inverse=expit,
    derivatives=_logit_derivatives,
    log_probability=_logit_log_probability,
    log_complement=_logit_log_complement,
    pytensor=_logit_pytensor,
)

# probit -----------------------------------------------------------------------------------

_LOG_SQRT_2PI = 0.5 * np.log(2.0 * np.pi)


def _normal_density(eta: Array) -> Array:
    # exp(-745) is the smallest positive double: a larger square only underflows.
    return np.asarray(np.exp(-np.minimum(0.5 * eta * eta, 745.0)) / np.sqrt(2.0 * np.pi))


def _probit_derivatives(eta: Array) -> Derivatives:
    d = _normal_density(eta)
    return ndtr(eta), d, -eta * d, (eta * eta - 1.0) * d


def _probit_log_probability(eta: Array) -> Derivatives:
    """log Phi and derivatives through the inverse Mills ratio r = phi / Phi."""
    value = log_ndtr(eta)
    # erfcx carries no exponential: no digits cancel on the left, where r is about -eta.
    left = np.sqrt(2.0 / np.pi) / erfcx(-np.minimum(eta, 0.0) / np.sqrt(2.0))
    r = np.where(
        eta < 0.0, left, _normal_density(np.maximum(eta, 0.0)) / ndtr(np.maximum(eta, 0.0))
    )
    # In the left tail eta + r cancels: it is a continued fraction there.
    far = eta < -10.0
    x, tail = np.where(far, -eta, 1.0), np.zeros_like(eta)
    for k in range(60, 0, -1):
        tail = k / (x + tail)
    sum_, r = np.where(far, tail, eta + r), np.where(far, x + tail, r)
    second = -r * sum_
    third = -(second * sum_ + r * (1.0 + second))
    third = np.where(eta < -500.0, 2.0 / (x * x * x), third)
    return value, r, second, third


def _probit_log_complement(eta: Array) -> Derivatives:
    value, first, second, third = _probit_log_probability(-eta)
    return value, -first, second, -third


def _probit_pytensor(eta: Any) -> Any:
    import pytensor.tensor as pt

    return 0.5 * pt.erfc(-eta / np.sqrt(2.0))


PROBIT = Link(
    name="probit",
    link=ndtri,
    inverse=ndtr,
    derivatives=_probit_derivatives,
    log_probability=_probit_log_probability,
    log_complement=_probit_log_complement,
    pytensor=_probit_pytensor,
)

# cloglog ----------------------------------------------------------------------------------


def _cloglog_inverse(eta: Array) -> Array:
    return np.asarray(-np.expm1(-_exp(eta)))


def _cloglog_derivatives(eta: Array) -> Derivatives:
    t = _exp(eta)
    # t * exp(-t), which is 0 and not inf * 0 for large t
    d = np.exp(np.minimum(eta, _LARGEST_EXPONENT) - np.minimum(t, 1e5))
    t = np.minimum(t, 1e5)
    return -np.expm1(-t), d, d * (1.0 - t), d * (1.0 - 3.0 * t + t * t)


def _cloglog_log_probability(eta: Array) -> Derivatives:
    t = np.minimum(_exp(eta), 700.0)
    value = np.where(eta < -30.0, np.minimum(eta, 0.0), np.log(-np.expm1(-np.maximum(t, 1e-300))))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.where(t > 0, t / np.expm1(t), 1.0)
    # 1 - t - r cancels for small t, where it is -t/2 - t^2/12
    s = np.where(t < 1e-4, -0.5 * t - t * t / 12.0, 1.0 - t - r)
    second = r * s
    third = second * s - r * (t + second)
    return value, r, second, third


def _cloglog_log_complement(eta: Array) -> Derivatives:
    t = -_exp(eta)
    return t, t, t, t


def _cloglog_pytensor(eta: Any) -> Any:
    import pytensor.tensor as pt

    return -pt.expm1(-pt.exp(eta))


CLOGLOG = Link(
    name="cloglog",
    link=lambda mu: np.log(-np.log1p(-mu)),
    inverse=_cloglog_inverse,
    derivatives=_cloglog_derivatives,
    log_probability=_cloglog_log_probability,
    log_complement=_cloglog_log_complement,
    pytensor=_cloglog_pytensor,
)

LINKS: dict[str, Link] = {link.name: link for link in (IDENTITY, LOG, LOGIT, PROBIT, CLOGLOG)}


def _link_named(name: str) -> Link:
    return LINKS[name]
