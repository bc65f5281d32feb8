"""Whether one model is a special case of another, and whether at the edge of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesglmm.design import Design
from bayesglmm.design.grouped import RandomTerm

Array = NDArray[np.float64]

_ROUNDING = 1e-9
_ZERO = 1e-9  # an eigenvalue below this, relative to the largest, is rounding
_PROBES = 3  # random vectors that tell covariance matrices apart


@dataclass(frozen=True, slots=True)
class Nesting:
    """How a smaller model lies in a larger one.

    Attributes
    ----------
    problem
        Why it does not, in words; empty when it does.
    zeros
        How many variances of the larger model are zero in the smaller (the rank that its
        covariance matrices lack): each puts the smaller model on the boundary. -1: not known.
    """

    problem: str
    zeros: int = 0


def nesting(small: Design, large: Design) -> Nesting:
    """Compare column spaces of X, and the covariance structures of the random effects.

    The offsets may differ by something that the larger model can fit.
    """
    columns = np.column_stack([small.X, small.offset - large.offset])
    outside = _outside(columns, large.X)
    if np.any(outside):
        names = [n for n, out in zip((*small.names, "the offset"), outside, strict=True) if out]
        return Nesting(f"{', '.join(names)} cannot be written with the columns of the larger model")
    if not small.random:
        return Nesting("", sum(t.K for t in large.random))
    if not large.random:
        return Nesting("the larger model has no random effects")
    return _covariances(small.random, large.random)


def _outside(columns: Array, X: Array) -> NDArray[np.bool_]:
    """For each column whether it leaves the span of X."""
    Q, _ = np.linalg.qr(X)
    rest = columns - Q @ (Q.T @ columns)
    size = np.linalg.norm(columns, axis=0)
    return np.asarray(np.linalg.norm(rest, axis=0) > _ROUNDING * np.where(size > 0, size, 1.0))


def _covariances(small: tuple[RandomTerm, ...], large: tuple[RandomTerm, ...]) -> Nesting:
    """Is each covariance Z E Z' of the smaller model a combination of those of the larger?

    They are compared through their products with a few random vectors, so that no n x n matrix
    is formed. At an interior point of the smaller model the ranks of the larger model's
    covariance matrices then tell how many of its variances vanish.
    """
    n = len(small[0].index)
    probes = np.random.default_rng(1).standard_normal((n, _PROBES))
    inside, weights = _images(small, probes)
    basis, _ = _images(large, probes)
    solved, _, rank, _ = np.linalg.lstsq(basis, inside, rcond=1e-10)
    rest = np.linalg.norm(inside - basis @ solved, axis=0)
    if np.any(rest > 1e-7 * np.linalg.norm(inside, axis=0)):
        return Nesting("its random effects are not a special case of those of the larger model")
    if rank < basis.shape[1]:
        return Nesting("", -1)
    values = solved @ weights
    eigenvalues = [np.linalg.eigvalsh(S) for S in _matrices(large, values)]
    largest = max(float(e[-1]) for e in eigenvalues)
    if any(e[0] < -1e-6 * largest for e in eigenvalues):
        return Nesting("its random effects would need a negative variance in the larger model")
    return Nesting("", int(sum(np.sum(e < _ZERO * largest) for e in eigenvalues)))


def _pairs(term: RandomTerm) -> list[tuple[int, int]]:
    return [(a, b) for a in range(term.K) for b in range(a + 1) if term.correlated or a == b]


def _images(terms: tuple[RandomTerm, ...], probes: Array) -> tuple[Array, Array]:
    """(n probes, m) products with every Z E_ab Z', and (m,) an interior point of the cone."""
    columns, weights = [], []
    for number, term in enumerate(terms):
        if term.correlated and term.K > 1:
            Z = np.linalg.qr(term.Z)[0] * np.sqrt(len(term.Z))
        else:
            size = np.sqrt(np.mean(term.Z**2, axis=0))
            Z = term.Z / np.where(size > 0.0, size, 1.0)
        sums = [_by_level(term, Z[:, [k]] * probes)[term.index] for k in range(term.K)]
        for a, b in _pairs(term):
            image = Z[:, [a]] * sums[b] + (Z[:, [b]] * sums[a] if a != b else 0.0)
            columns.append(image.ravel())
            weights.append(1.0 + 0.1 * number + 0.01 * a if a == b else 0.0)
    return np.array(columns).T, np.array(weights)


def _by_level(term: RandomTerm, values: Array) -> Array:
    out = np.zeros((term.J, values.shape[1]))
    np.add.at(out, term.index, values)
    return out


def _matrices(terms: tuple[RandomTerm, ...], values: Array) -> list[Array]:
    out, start = [], 0
    for term in terms:
        S = np.zeros((term.K, term.K))
        for a, b in _pairs(term):
            S[a, b] = S[b, a] = values[start]
            start += 1
        out.append(S)
    return out
