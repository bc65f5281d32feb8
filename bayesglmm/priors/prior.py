"""Prior distributions as records, with PyMC's parameterisation.

Each knows its support, its log-density in NumPy and its PyMC variable; a law in the tests holds
the two to each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from bayesglmm.errors import ChoiceError, OptionError

Array = NDArray[np.float64]
Support = Literal["real", "positive", "correlation"]

_NO_DRAWS = "a flat prior is no probability distribution, so it cannot be drawn from"


def _positive(prior: Prior, *names: str) -> None:
    for name in names:
        if not _number(prior, name, "positive") > 0.0:
            _refuse(prior, name, "positive")


def _finite(prior: Prior, *names: str) -> None:
    for name in names:
        _number(prior, name, "finite")


def _number(prior: Prior, name: str, kind: str) -> float:
    """A finite number; NumPy's become Python's, which can be written to files."""
    value = getattr(prior, name)
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        _refuse(prior, name, kind)
    if not isinstance(value, int):
        object.__setattr__(prior, name, float(value))
    return float(value)


def _refuse(prior: Prior, name: str, kind: str) -> None:
    record, value = type(prior).__name__, getattr(prior, name)
    raise ChoiceError(f"{record}({name}={value!r}): {name} must be a {kind} number")


@dataclass(frozen=True, slots=True)
class Prior:
    """Base of all priors. Use one of its subclasses, e.g. :class:`Normal`, or write one.

    A prior of your own is a frozen dataclass with ``support`` ("real" for coefficients,
    "positive" for sds), :meth:`log_density`, :meth:`draw` and :meth:`pymc_distribution`. Such
    models are sampled through PyTensor, and cannot be saved.

    Examples
    --------
    >>> @dataclass(frozen=True, slots=True)
    ... class Logistic(Prior):
    ...     scale: float
    ...     support: ClassVar[Support] = "real"
    ...
    ...     def log_density(self, x):
    ...         return -np.abs(x) / self.scale - 2 * np.log1p(np.exp(-np.abs(x) / self.scale))
    ...
    ...     def draw(self, rng, size):
    ...         return rng.logistic(0.0, self.scale, size)
    ...
    ...     def pymc_distribution(self):
    ...         return "Logistic", {"mu": 0.0, "s": self.scale}
    >>> str(Logistic(2.5))
    'Logistic(2.5)'
    """

    support: ClassVar[Support]

    def __new__(cls, *_: object, **named: object) -> Self:
        known = [field.name for field in fields(cls)]
        for name in named:
            if name not in known:
                raise OptionError(
                    f"{cls.__name__} has no {name!r}; give {', '.join(known) or 'nothing'}"
                )
        return object.__new__(cls)

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

        distribution, parameters = self.pymc_distribution()
        return getattr(pm, distribution)(name, **parameters, dims=dims or None)

    def pymc_dist(self, shape: int) -> Any:
        """An unregistered PyMC variable of that length, for LKJCholeskyCov's sds."""
        import pymc as pm

        distribution, parameters = self.pymc_distribution()
        return getattr(pm, distribution).dist(**parameters, shape=shape)

    def pymc_distribution(self) -> tuple[str, dict[str, float]]:
        """The name of a distribution of PyMC, and its parameters.

        Raises
        ------
        ChoiceError
            For a prior that has none yet.
        """
        raise ChoiceError(
            f"{type(self).__name__} has no pymc_distribution(): define it to return the name of a "
            'distribution of PyMC and its parameters, e.g. ("Normal", {"mu": 0.0, "sigma": 2.0})'
        )


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
        _finite(self, "mean")
        _positive(self, "sd")

    def log_density(self, x: Array) -> Array:
        from scipy import stats

        return np.asarray(stats.norm.logpdf(x, self.mean, self.sd))

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        return rng.normal(self.mean, self.sd, size)

    def pymc_distribution(self) -> tuple[str, dict[str, float]]:
        return "Normal", {"mu": self.mean, "sigma": self.sd}


@dataclass(frozen=True, slots=True)
class StudentT(Prior):
    """Student t with ``df`` degrees of freedom, centre and scale."""

    df: float
    mean: float
    scale: float
    support: ClassVar[Support] = "real"

    def __post_init__(self) -> None:
        _finite(self, "mean")
        _positive(self, "df", "scale")

    def log_density(self, x: Array) -> Array:
        from scipy import stats

        return np.asarray(stats.t.logpdf(x, self.df, self.mean, self.scale))

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        return self.mean + self.scale * rng.standard_t(self.df, size)

    def pymc_distribution(self) -> tuple[str, dict[str, float]]:
        return "StudentT", {"nu": self.df, "mu": self.mean, "sigma": self.scale}


@dataclass(frozen=True, slots=True)
class Cauchy(Prior):
    """Cauchy with centre and scale."""

    centre: float
    scale: float
    support: ClassVar[Support] = "real"

    def __post_init__(self) -> None:
        _finite(self, "centre")
        _positive(self, "scale")

    def log_density(self, x: Array) -> Array:
        from scipy import stats

        return np.asarray(stats.cauchy.logpdf(x, self.centre, self.scale))

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        return self.centre + self.scale * rng.standard_cauchy(size)

    def pymc_distribution(self) -> tuple[str, dict[str, float]]:
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

    def pymc_distribution(self) -> tuple[str, dict[str, float]]:
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

    def pymc_distribution(self) -> tuple[str, dict[str, float]]:
        return "HalfFlat", {}


@dataclass(frozen=True, slots=True)
class HalfNormal(Prior):
    """Normal(0, sd) folded onto the positive half-line."""

    sd: float
    support: ClassVar[Support] = "positive"

    def __post_init__(self) -> None:
        _positive(self, "sd")

    def log_density(self, x: Array) -> Array:
        from scipy import stats

        return np.asarray(stats.halfnorm.logpdf(x, 0, self.sd))

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        return np.abs(rng.normal(0.0, self.sd, size))

    def pymc_distribution(self) -> tuple[str, dict[str, float]]:
        return "HalfNormal", {"sigma": self.sd}


@dataclass(frozen=True, slots=True)
class HalfStudentT(Prior):
    """Student t folded onto the positive half-line."""

    df: float
    scale: float
    support: ClassVar[Support] = "positive"

    def __post_init__(self) -> None:
        _positive(self, "df", "scale")

    def log_density(self, x: Array) -> Array:
        from scipy import stats

        value = np.log(2.0) + stats.t.logpdf(x, self.df, 0, self.scale)
        return np.where(np.asarray(x) >= 0, value, -np.inf)

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        return np.abs(self.scale * rng.standard_t(self.df, size))

    def pymc_distribution(self) -> tuple[str, dict[str, float]]:
        return "HalfStudentT", {"nu": self.df, "sigma": self.scale}


@dataclass(frozen=True, slots=True)
class HalfCauchy(Prior):
    """Cauchy folded onto the positive half-line."""

    scale: float
    support: ClassVar[Support] = "positive"

    def __post_init__(self) -> None:
        _positive(self, "scale")

    def log_density(self, x: Array) -> Array:
        from scipy import stats

        return np.asarray(stats.halfcauchy.logpdf(x, 0, self.scale))

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        return np.abs(self.scale * rng.standard_cauchy(size))

    def pymc_distribution(self) -> tuple[str, dict[str, float]]:
        return "HalfCauchy", {"beta": self.scale}


@dataclass(frozen=True, slots=True)
class Exponential(Prior):
    """Exponential with a rate (mean 1 / rate)."""

    rate: float
    support: ClassVar[Support] = "positive"

    def __post_init__(self) -> None:
        _positive(self, "rate")

    def log_density(self, x: Array) -> Array:
        from scipy import stats

        return np.asarray(stats.expon.logpdf(x, 0, 1.0 / self.rate))

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        return rng.exponential(1.0 / self.rate, size)

    def pymc_distribution(self) -> tuple[str, dict[str, float]]:
        return "Exponential", {"lam": self.rate}


@dataclass(frozen=True, slots=True)
class Gamma(Prior):
    """Gamma with shape and rate (mean shape / rate)."""

    shape: float
    rate: float
    support: ClassVar[Support] = "positive"

    def __post_init__(self) -> None:
        _positive(self, "shape", "rate")

    def log_density(self, x: Array) -> Array:
        from scipy import stats

        return np.asarray(stats.gamma.logpdf(x, self.shape, 0, 1.0 / self.rate))

    def draw(self, rng: np.random.Generator, size: int) -> Array:
        return rng.gamma(self.shape, 1.0 / self.rate, size)

    def pymc_distribution(self) -> tuple[str, dict[str, float]]:
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
        _positive(self, "eta")

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
