"""A family: the distribution of the response given its mean, as one record of functions.

To add a family, write one such record and list it in `registry.py`; the laws in
`tests/laws/test_families.py` then test it for every link it allows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from bayesglmm.families.links import Link

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Family:
    """A response distribution.

    All functions are elementwise over observations. ``w`` are the prior weights: for the
    binomial the number of trials (times any case weight) with ``y`` the proportion of
    successes; for the Gaussian the variance is sigma^2 / w.

    Attributes
    ----------
    name
        As users write it.
    links
        Allowed links; the first is the default.
    canonical
        Name of the canonical link, for which observed and expected information agree.
    has_scale
        Whether there is a scale sigma to estimate (standard deviation, response scale).
    is_probability
        Whether the mean is a probability: a response may have two levels, and predictors may
        separate them.
    has_trials
        Whether a row may stand for several trials.
    response_column
        emmeans' column name for a mean on the response scale.
    log_density
        (link, y, w, eta, sigma) -> log p(y | eta), constants included.
    derivatives
        (link, y, w, eta, sigma) -> first three derivatives of the log-density in eta.
    scale_derivatives
        (link, y, w, eta, sigma) -> derivatives in log sigma of the log-density and of its
        first two derivatives in eta (zeros where there is no scale).
    variance
        mu -> variance function V(mu), without sigma.
    unit_deviance
        (y, mu) -> contribution to the deviance per unit weight, without sigma.
    check
        (y, w, name) -> None; raises DataError when the response is outside the support.
    observed
        (name, eta, link, y, w, sigma, dims) -> the PyMC likelihood variable.
    draw
        (rng, mu, w, sigma) -> simulated responses, as y is stored (proportions for binomial).
    log_tails
        (link, y, w, eta, sigma) -> log P(Y < y), log P(Y = y), log P(Y > y); the second is -inf
        where the distribution is continuous. A case weight of the Poisson is not part of it.
    link_variances
        By link and name, population mean -> variance of the response on the link scale, where
        there are better answers than the delta method; the first is the default.
    stein
        (y, mu) -> y', c with E[(y - mu) g(y)] = E[c (g(y) - g(y'))] for every function g, one
        trial a row; None for a family without such an identity.
    whole
        Whether responses are whole numbers (of events, or of successes).
    """

    name: str
    links: tuple[str, ...]
    canonical: str
    has_scale: bool
    is_probability: bool
    has_trials: bool
    response_column: Mapping[str, str]
    log_density: Callable[[Link, Array, Array, Array, float], Array]
    derivatives: Callable[[Link, Array, Array, Array, float], tuple[Array, Array, Array]]
    scale_derivatives: Callable[[Link, Array, Array, Array, float], tuple[Array, Array, Array]]
    variance: Callable[[Array], Array]
    unit_deviance: Callable[[Array, Array], Array]
    check: Callable[[Array, Array, str], None]
    observed: Callable[..., Any]
    draw: Callable[[np.random.Generator, Array, Array, float], Array]
    log_tails: Callable[[Link, Array, Array, Array, float], tuple[Array, Array, Array]]
    whole: bool = False
    link_variances: Mapping[str, Mapping[str, Callable[[float], float]]] = field(
        default_factory=dict
    )
    stein: Callable[[Array, Array], tuple[Array, Array]] | None = None

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle by name: its functions cannot travel, and need not."""
        from bayesglmm.families.registry import FAMILIES, find_family

        if FAMILIES.get(self.name) is self:
            return find_family, (self.name,)
        return object.__reduce__(self)


@dataclass(frozen=True, slots=True)
class Likelihood:
    """A family and link bound to data: what the engines see of the response.

    Attributes
    ----------
    family, link
        The records.
    y
        (n,) response (proportions for the binomial).
    w
        (n,) prior weights (trials for the binomial).
    trials
        (n,) trials of a row that counts w / trials times, or empty where w are the trials: to
        have a row twice is not to have a row of twice as many trials, of which there are more.
    """

    family: Family
    link: Link
    y: Array
    w: Array
    trials: Array = field(default_factory=lambda: np.zeros(0))

    @property
    def is_linear(self) -> bool:
        """Whether this is least squares: Gaussian with the identity link."""
        return self.family.has_scale and self.link.name == self.family.canonical == "identity"

    def inside(self) -> float:
        """The weighted mean of y, moved off the ends of the mean's range."""
        total = float(self.w.sum())
        mean = float(self.w @ self.y) / total
        if self.family.is_probability:
            return (mean * total + 0.5) / (total + 1.0)
        if self.link.name == "log":
            return max(mean, 1e-3 * (float(np.max(np.abs(self.y))) + 1.0))
        return mean

    def log_density(self, eta: Array, sigma: float = 1.0) -> Array:
        """(n,) log p(y_i | eta_i), constants included."""
        return self.family.log_density(self.link, self.y, self.w, eta, sigma) + self.repeated()

    def repeated(self) -> Array | float:
        """(n,) what rows that count several times have in log p beyond one row of all trials."""
        if not len(self.trials):
            return 0.0
        one = log_choices(self.trials, self.y)
        return np.asarray(self.w / self.trials * one - log_choices(self.w, self.y))

    def derivatives(self, eta: Array, sigma: float = 1.0) -> tuple[Array, Array, Array]:
        """First, second and third derivative of the log-density in eta, each (n,)."""
        return self.family.derivatives(self.link, self.y, self.w, eta, sigma)

    def scale_derivatives(self, eta: Array, sigma: float) -> tuple[Array, Array, Array]:
        """Derivatives in log sigma of the log-density and its first two derivatives."""
        return self.family.scale_derivatives(self.link, self.y, self.w, eta, sigma)

    def log_tails(self, eta: Array, sigma: float = 1.0) -> tuple[Array, Array, Array]:
        """log P(Y_i < y_i), log P(Y_i = y_i) and log P(Y_i > y_i), each (n,)."""
        return self.family.log_tails(self.link, self.y, self.w, eta, sigma)

    def expected_weights(self, eta: Array, sigma: float = 1.0) -> Array:
        """(n,) Fisher information of eta: w mu'^2 / (V(mu) sigma^2)."""
        mu, slope, _, _ = self.link.derivatives(eta)
        with np.errstate(divide="ignore", invalid="ignore"):
            information = self.w * slope**2 / self.family.variance(mu)
        return np.where(np.isfinite(information), information, 0.0) / sigma**2

    def deviance(self, mu: Array) -> float:
        """Sum of weighted unit deviances (R's ``deviance``)."""
        return float(np.sum(self.w * self.family.unit_deviance(self.y, mu)))


def log_choices(trials: Array, share: Array) -> Array:
    """log of the number of ways in which ``share`` of the trials can be successes."""
    wins, losses = trials * share, trials * (1.0 - share)
    return np.asarray(gammaln(trials + 1.0) - gammaln(wins + 1.0) - gammaln(losses + 1.0))


def chain(
    link: Link, eta: Array, in_mu: Callable[[Array], tuple[Array, Array, Array]]
) -> tuple[Array, Array, Array]:
    """Three derivatives in eta from three derivatives in mu (Faa di Bruno)."""
    mu, m1, m2, m3 = link.derivatives(eta)
    g1, g2, g3 = in_mu(mu)
    return g1 * m1, g2 * m1**2 + g1 * m2, g3 * m1**3 + 3.0 * g2 * m1 * m2 + g1 * m3


def no_scale(
    link: Link, y: Array, w: Array, eta: Array, sigma: float
) -> tuple[Array, Array, Array]:
    """Derivatives in log sigma of a family without a scale: zeros."""
    zero = np.zeros_like(eta)
    return zero, zero, zero
