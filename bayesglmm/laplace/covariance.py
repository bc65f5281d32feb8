"""theta <-> Lambda <-> standard deviations and correlations of the random effects.

``Lambda_f`` is the lower Cholesky factor of the covariance of term f (relative to sigma^2
when the family has a scale); theta lists its free entries, column by column as lme4 does.
An uncorrelated term has a diagonal Lambda. theta is unconstrained: the sign of a column of
Lambda does not change ``Lambda Lambda'``, and :func:`canonical` makes the diagonals >= 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Term(Protocol):
    """What the covariance of a random-effects term needs to know of it."""

    @property
    def name(self) -> str: ...
    @property
    def columns(self) -> tuple[str, ...]: ...
    @property
    def correlated(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Covariance:
    """The map from theta to the Lambdas of all terms.

    Attributes
    ----------
    sizes
        K_f, number of columns of each term.
    entries
        For each theta: (term, row, column) of its place in Lambda.
    """

    sizes: tuple[int, ...]
    entries: tuple[tuple[int, int, int], ...]

    @property
    def size(self) -> int:
        """Length of theta."""
        return len(self.entries)

    def lambdas(self, theta: Array) -> tuple[Array, ...]:
        """The (K_f, K_f) lower-triangular factors."""
        out = tuple(np.zeros((k, k)) for k in self.sizes)
        for value, (f, r, c) in zip(theta, self.entries, strict=True):
            out[f][r, c] = value
        return out

    def collect(self, matrices: tuple[Array, ...]) -> Array:
        """Pick theta's entries out of (K_f, K_f) matrices: the transpose of ``lambdas``."""
        return np.array([matrices[f][r, c] for f, r, c in self.entries])

    def identity(self, scale: float = 1.0) -> Array:
        """theta of Lambda = scale * I, the usual start."""
        return np.array([scale if r == c else 0.0 for _, r, c in self.entries])


def covariance_of(terms: tuple[Term, ...]) -> Covariance:
    """The theta layout for a tuple of random-effects terms."""
    entries: list[tuple[int, int, int]] = []
    for f, term in enumerate(terms):
        k = len(term.columns)
        for c in range(k):
            rows = range(c, k) if term.correlated else (c,)
            entries.extend((f, r, c) for r in rows)
    return Covariance(tuple(len(t.columns) for t in terms), tuple(entries))


def canonical_signs(covariance: Covariance, theta: Array) -> Array:
    """+1 or -1 for every entry: times theta, the diagonals of every Lambda are >= 0."""
    entries = covariance.entries
    negative = {
        (f, c) for value, (f, r, c) in zip(theta, entries, strict=True) if r == c and value < 0.0
    }
    return np.array([-1.0 if (f, c) in negative else 1.0 for f, _, c in entries])


def canonical(covariance: Covariance, theta: Array) -> Array:
    """The same covariance with the diagonals of every Lambda >= 0."""
    return np.asarray(theta * canonical_signs(covariance, theta))


def sd_corr(factor: Array) -> tuple[Array, Array]:
    """Standard deviations (K,) and correlations (K, K) of ``factor factor'``.

    A correlation with an effect whose sd is zero is NaN.
    """
    sigma = factor @ factor.T
    sd = np.sqrt(np.diag(sigma))
    with np.errstate(divide="ignore", invalid="ignore"):
        corr = sigma / np.outer(sd, sd)
    return sd, corr


def transformed(covariance: Covariance, theta: Array, transforms: tuple[Array, ...]) -> Array:
    """theta of the effects b = T b* when ``theta`` is that of b*, canonical.

    The Cholesky factor of ``T Lambda Lambda' T'`` comes from a QR decomposition, so that it
    also exists where Lambda is singular.
    """
    factors = []
    for T, factor in zip(transforms, covariance.lambdas(theta), strict=True):
        product = T @ factor
        diagonal = np.count_nonzero(product - np.diag(np.diag(product))) == 0
        factors.append(product if diagonal else np.linalg.qr(product.T, mode="r").T)
    return canonical(covariance, covariance.collect(tuple(factors)))


@dataclass(frozen=True, slots=True)
class Component:
    """One row of VarCorr: an sd or a correlation of a term."""

    term: int
    row: int
    column: int
    kind: str  # "sd" | "corr"


@lru_cache(maxsize=64)
def components(covariance: Covariance) -> tuple[Component, ...]:
    """All sds, then all correlations, term by term."""
    out: list[Component] = []
    for f, k in enumerate(covariance.sizes):
        out.extend(Component(f, r, r, "sd") for r in range(k))
        pairs = {(r, c) for g, r, c in covariance.entries if g == f and r != c}
        out.extend(Component(f, r, c, "corr") for r, c in sorted(pairs))
    return tuple(out)


def component_values(covariance: Covariance, theta: Array, sigma: float) -> Array:
    """Values of :func:`components` at theta: sds times sigma, and correlations."""
    stats = [sd_corr(factor) for factor in covariance.lambdas(theta)]
    return np.array(
        [
            sigma * stats[c.term][0][c.row] if c.kind == "sd" else stats[c.term][1][c.row, c.column]
            for c in components(covariance)
        ]
    )


def component_jacobian(
    covariance: Covariance, theta: Array, transforms: tuple[Array, ...]
) -> Array:
    """(m, k) derivatives in theta of log sd and atanh correlation, for :func:`components`.

    The effects are b = T b* with ``theta`` that of b*. Not finite where an sd is zero or a
    correlation is one.
    """
    parts = components(covariance)
    out = np.zeros((len(parts), covariance.size))
    first = 0
    for f, (T, factor) in enumerate(zip(transforms, covariance.lambdas(theta), strict=True)):
        places = [(row, column) for g, row, column in covariance.entries if g == f]
        rows, columns = np.array(places).T
        half = T @ factor
        sigma = half @ half.T
        slope = T[:, None, rows] * half[:, columns]
        slope = slope + slope.transpose(1, 0, 2)  # of sigma, (K, K, entries)
        own = slice(first, first + len(places))
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = 0.5 * np.einsum("aak->ak", slope) / sigma.diagonal()[:, None]  # of log sd
            for m, c in enumerate(parts):
                if c.term != f:
                    continue
                if c.kind == "sd":
                    out[m, own] = relative[c.row]
                else:
                    sds = np.sqrt(sigma[c.row, c.row] * sigma[c.column, c.column])
                    corr = sigma[c.row, c.column] / sds
                    change = slope[c.row, c.column] / sds
                    change -= corr * (relative[c.row] + relative[c.column])
                    out[m, own] = change / (1.0 - corr * corr)
        first += len(places)
    return out
