"""Prior distributions as records, with PyMC's parameterisation.

Each knows its support, its log-density in NumPy and its PyMC variable; a law in the tests holds
the two to each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bayesglmm.errors import ChoiceError

Array = NDArray[np.float64]
Support = Literal["real", "positive", "correlation"]

_NO_DRAWS = "a flat prior is no probability distribution, so it cannot be drawn from"


def _positive(record: str, **values: float) -> None:
    for name, value in values.items():
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise ChoiceError(f"{record}({name}={value!r}): {name} must be a positive number")


def _finite(record: str, **values: float) -> None:
    for name, value in values.items():
        if not (isinstance(value, int | float) and math.isfinite(value)):
            raise ChoiceError(f"{record}({name}={value!r}): {name} must be a finite number")


@dataclass(frozen=True, slots=True)
class Prior:
    """Base of all priors. Use one of its subclasses, e.g. :class:`Normal`."""

    support: ClassVar[Support]

    def __str__(self) -> str:
        values = ", ".join(f"{getattr(self, field.name):.4g}" for field in fields(self))
        return f"{type(self).__name__}({values})"

    def log_density(self, x: Array) -> Array:
        """Elementwise log-density at ``x`` (zero everywhere for a flat prior)."""
        raise NotImplementedError

    @property
    def is_proper(self) -> bool:
        """Whether it is a probability distribution, so that it can be drawn from."""
        return True

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        """(size,) independent draws.

        Raises
        ------
        ChoiceError
            For a flat prior, which is no probability distribution.
        """
        raise NotImplementedError

    def pymc(self, name: str, dims: tuple[str, ...] = ()) -> Any:
        """The PyMC variable, inside a model context."""
        import pymc as pm

        distribution, parameters = self._pymc()
        return getattr(pm, distribution)(name, **parameters, dims=dims or None)

    def pymc_dist(self, shape: int) -> Any:
        """An unregistered PyMC variable of that length, for LKJCholeskyCov's sds."""
        import pymc as pm

        distribution, parameters = self._pymc()
        return getattr(pm, distribution).dist(**parameters, shape=shape)

    def _pymc(self) -> tuple[str, dict[str, float]]:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Normal(Prior):
    """Normal(mean, sd) on the whole line.

    Examples
    --------
    >>> float(Normal(0, 1).log_density(np.array(0.0)).round(4))
    -0.9189
    """

    mean: float
    sd: float
    support: ClassVar[Support] = "real"

    def __post_init__(self) -> None:
        _finite("Normal", mean=self.mean)
        _positive("Normal", sd=self.sd)

    def log_density(self, x: Array) -> Array:
        from scipy import stats

        return np.asarray(stats.norm.logpdf(x, self.mean, self.sd))

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        return rng.normal(self.mean, self.sd, size)

    def _pymc(self) -> tuple[str, dict[str, float]]:
        return "Normal", {"mu": self.mean, "sigma": self.sd}


@dataclass(frozen=True, slots=True)
class StudentT(Prior):
    """Student t with ``df`` degrees of freedom, centre and scale."""

    df: float
    mean: float
    scale: float
    support: ClassVar[Support] = "real"

    def __post_init__(self) -> None:
        _finite("StudentT", mean=self.mean)
        _positive("StudentT", df=self.df, scale=self.scale)

    def log_density(self, x: Array) -> Array:
        from scipy import stats

        return np.asarray(stats.t.logpdf(x, self.df, self.mean, self.scale))

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        return self.mean + self.scale * rng.standard_t(self.df, size)

    def _pymc(self) -> tuple[str, dict[str, float]]:
        return "StudentT", {"nu": self.df, "mu": self.mean, "sigma": self.scale}


@dataclass(frozen=True, slots=True)
class Cauchy(Prior):
    """Cauchy with centre and scale."""

    centre: float
    scale: float
    support: ClassVar[Support] = "real"

    def __post_init__(self) -> None:
        _finite("Cauchy", centre=self.centre)
        _positive("Cauchy", scale=self.scale)

    def log_density(self, x: Array) -> Array:
        from scipy import stats

        return np.asarray(stats.cauchy.logpdf(x, self.centre, self.scale))

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        return self.centre + self.scale * rng.standard_cauchy(size)

    def _pymc(self) -> tuple[str, dict[str, float]]:
        return "Cauchy", {"alpha": self.centre, "beta": self.scale}


@dataclass(frozen=True, slots=True)
class Flat(Prior):
    """No prior information on a coefficient: constant density on the whole line (improper)."""

    support: ClassVar[Support] = "real"

    def log_density(self, x: Array) -> Array:
        return np.zeros_like(np.asarray(x, dtype=float))

    @property
    def is_proper(self) -> bool:
        return False

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        raise ChoiceError(_NO_DRAWS)

    def _pymc(self) -> tuple[str, dict[str, float]]:
        return "Flat", {}


@dataclass(frozen=True, slots=True)
class HalfFlat(Prior):
    """Constant density on the positive half-line (improper), for a standard deviation."""

    support: ClassVar[Support] = "positive"

    def log_density(self, x: Array) -> Array:
        return np.where(np.asarray(x) > 0, 0.0, -np.inf)

    @property
    def is_proper(self) -> bool:
        return False

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        raise ChoiceError(_NO_DRAWS)

    def _pymc(self) -> tuple[str, dict[str, float]]:
        return "HalfFlat", {}


@dataclass(frozen=True, slots=True)
class HalfNormal(Prior):
    """Normal(0, sd) folded onto the positive half-line."""

    sd: float
    support: ClassVar[Support] = "positive"

    def __post_init__(self) -> None:
        _positive("HalfNormal", sd=self.sd)

    def log_density(self, x: Array) -> Array:
        from scipy import stats

        return np.asarray(stats.halfnorm.logpdf(x, 0, self.sd))

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        return np.abs(rng.normal(0.0, self.sd, size))

    def _pymc(self) -> tuple[str, dict[str, float]]:
        return "HalfNormal", {"sigma": self.sd}


@dataclass(frozen=True, slots=True)
class HalfStudentT(Prior):
    """Student t folded onto the positive half-line."""

    df: float
    scale: float
    support: ClassVar[Support] = "positive"

    def __post_init__(self) -> None:
        _positive("HalfStudentT", df=self.df, scale=self.scale)

    def log_density(self, x: Array) -> Array:
        from scipy import stats

        value = np.log(2.0) + stats.t.logpdf(x, self.df, 0, self.scale)
        return np.where(np.asarray(x) >= 0, value, -np.inf)

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        return np.abs(self.scale * rng.standard_t(self.df, size))

    def _pymc(self) -> tuple[str, dict[str, float]]:
        return "HalfStudentT", {"nu": self.df, "sigma": self.scale}


@dataclass(frozen=True, slots=True)
class HalfCauchy(Prior):
    """Cauchy folded onto the positive half-line."""

    scale: float
    support: ClassVar[Support] = "positive"

    def __post_init__(self) -> None:
        _positive("HalfCauchy", scale=self.scale)

    def log_density(self, x: Array) -> Array:
        from scipy import stats

        return np.asarray(stats.halfcauchy.logpdf(x, 0, self.scale))

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        return np.abs(self.scale * rng.standard_cauchy(size))

    def _pymc(self) -> tuple[str, dict[str, float]]:
        return "HalfCauchy", {"beta": self.scale}


@dataclass(frozen=True, slots=True)
class Exponential(Prior):
    """Exponential with a rate (mean 1 / rate)."""

    rate: float
    support: ClassVar[Support] = "positive"

    def __post_init__(self) -> None:
        _positive("Exponential", rate=self.rate)

    def log_density(self, x: Array) -> Array:
        from scipy import stats

        return np.asarray(stats.expon.logpdf(x, 0, 1.0 / self.rate))

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        return rng.exponential(1.0 / self.rate, size)

    def _pymc(self) -> tuple[str, dict[str, float]]:
        return "Exponential", {"lam": self.rate}


@dataclass(frozen=True, slots=True)
class Gamma(Prior):
    """Gamma with shape and rate (mean shape / rate)."""

    shape: float
    rate: float
    support: ClassVar[Support] = "positive"

    def __post_init__(self) -> None:
        _positive("Gamma", shape=self.shape, rate=self.rate)

    def log_density(self, x: Array) -> Array:
        from scipy import stats

        return np.asarray(stats.gamma.logpdf(x, self.shape, 0, 1.0 / self.rate))

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        return rng.gamma(self.shape, 1.0 / self.rate, size)

    def _pymc(self) -> tuple[str, dict[str, float]]:
        return "Gamma", {"alpha": self.shape, "beta": self.rate}


@dataclass(frozen=True, slots=True)
class LKJ(Prior):
    """LKJ(eta) on a correlation matrix: density proportional to det(R)^(eta - 1).

    eta = 1 is uniform over correlation matrices; larger values pull towards independence
    (Lewandowski, Kurowicka & Joe 2009, doi:10.1016/j.jmva.2009.04.008).
    """

    eta: float
    support: ClassVar[Support] = "correlation"

    def __post_init__(self) -> None:
        _positive("LKJ", eta=self.eta)

    def log_density(self, x: Array) -> Array:
        """Log-density of correlation matrices (..., K, K), up to its normalising constant."""
        return np.asarray((self.eta - 1.0) * np.linalg.slogdet(np.asarray(x))[1])

    def draw(self, rng: np.random.Generator, size: int, K: int = 2) -> Array:
        """(size, K, K) independent correlation matrices, by the onion method of that paper.

        Row k of the Cholesky factor points in a uniform direction, and the squared length of
        what lies below the diagonal is Beta(k / 2, eta + (K - 1 - k) / 2). Each correlation is
        then 2 Beta(a, a) - 1 with a = eta - 1 + K / 2.

        Examples
        --------
        >>> LKJ(2.0).draw(np.random.default_rng(1), 4000, 3)[:, 1, 0].var().round(2)
        np.float64(0.17)
        """
        factor = np.zeros((size, K, K))
        factor[:, 0, 0] = 1.0
        for k in range(1, K):
            length = rng.beta(0.5 * k, self.eta + 0.5 * (K - 1 - k), size)
            direction = rng.standard_normal((size, k))
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            factor[:, k, :k] = np.sqrt(length)[:, None] * direction
            factor[:, k, k] = np.sqrt(1.0 - length)
        return np.asarray(factor @ factor.transpose(0, 2, 1))
