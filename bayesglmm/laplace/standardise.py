"""Fixed and random effects in standardised coordinates, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dpotrf, dtrtri

from bayesglmm.design import Design
from bayesglmm.laplace.factor import Factor, covariance_blocks, diagonal_blocks
from bayesglmm.laplace.structure import Array, Structure

_ROWS_PER_CHUNK = 65536
_WELL_CONDITIONED = 1e-4  # smallest distance of a unit column from the span of those before it


@dataclass(frozen=True, slots=True)
class Coordinates:
    """The columns as the engines see them.

    Neither the unit nor the origin of a covariate affects the search, the steps of differences,
    or what counts as zero; years and their squares, or time stamps, cost no digits.

    Attributes
    ----------
    X, R
        (n, p) orthonormal columns, and (p, p) with ``design.X = X R``.
    structure
        Of the random effects.
    Z
        (n, columns) of all terms in order of elimination: orthogonal (or, for independent
        effects, unit) columns within a term.
    transforms
        (K_f, K_f) T with b = T b*, where b* belongs to ``Z``; in the formula's order.
    """

    X: Array
    R: Array
    structure: Structure
    Z: Array
    transforms: tuple[Array, ...]

    def lam(self, lambdas: tuple[Array, ...]) -> Array:
        """Lambda_f as the kernels take them."""
        return self.structure.pack(lambdas)


def whitening(Z: Array, correlated: bool) -> Array:
    """T with orthogonal columns Z T of mean square one (of mean square one only, for ``||``)."""
    rms = np.sqrt(np.einsum("nk,nk->k", Z, Z) / len(Z))
    T = np.diag(1.0 / np.where(rms > 0.0, rms, 1.0))
    if correlated and len(rms) > 1 and rms.all():
        R = orthonormal(Z @ T)[1] / np.sqrt(len(Z))
        if np.abs(R.diagonal()).min() > 1e-8:  # of columns of mean square one
            T = T @ dtrtri(R)[0]
    return T


def coordinates(
    design: Design,
    structure: Structure,
    transform: Callable[[Array, bool], Array] = whitening,
) -> Coordinates:
    """Standardise the columns of a design with random effects.

    ``transform`` gives T for the columns of a term, correlated or not.
    """
    X, R = orthonormal(design.X)
    transforms = tuple(transform(t.Z, t.correlated) for t in design.random)
    columns = [design.random[f].Z @ transforms[f] for f in structure.order]
    return Coordinates(X, R, structure, np.concatenate(columns, axis=1), transforms)


def orthonormal(X: Array) -> tuple[Array, Array]:
    """Q (n, p) with orthonormal columns and upper triangular R, X = Q R.

    By the Cholesky factor of X'X, twice, which passes over the rows in blocks and is orthonormal
    to rounding where X is conditioned well (Yamamoto et al. 2015, doi:10.1553/etna_vol44s306);
    by Householder reflections where it is not.
    """
    n, p = X.shape
    if p == 0:
        return np.zeros((n, 0)), np.zeros((0, 0))
    Q, R = X, np.eye(p)
    for _ in range(2):
        gram = np.zeros((p, p))
        for rows in _row_blocks(n):
            gram += Q[rows].T @ Q[rows]
        scale = np.sqrt(gram.diagonal())
        factor, info = dpotrf(gram / np.outer(scale, scale), lower=0)
        if info or np.abs(factor.diagonal()).min() < _WELL_CONDITIONED:
            Q, R = np.linalg.qr(X)
            return np.ascontiguousarray(Q), R
        factor = factor * scale
        inverse, made = dtrtri(factor)[0], np.empty((n, p))
        for rows in _row_blocks(n):
            np.matmul(Q[rows], inverse, out=made[rows])
        Q, R = made, factor @ R
    return Q, R


def _row_blocks(n: int) -> Iterator[slice]:
    return (slice(k, k + _ROWS_PER_CHUNK) for k in range(0, n, _ROWS_PER_CHUNK))


def mode_covariance(
    factor: Factor, inverse: Array, transforms: tuple[Array, ...], sigma: float
) -> tuple[Array, ...]:
    """Conditional covariances of b, (J_f, K_f, K_f); ``inverse`` is H^-1 in flat blocks."""
    blocks = diagonal_blocks(factor.structure, covariance_blocks(factor, inverse))
    return tuple(sigma**2 * (T @ C @ T.T) for T, C in zip(transforms, blocks, strict=True))


def coefficient_map(factor: Factor, transforms: tuple[Array, ...], ux: Array) -> tuple[Array, ...]:
    """T Lambda H^-1 M'WX, (J_f, K_f, p), from ux (effects, p)."""
    lambdas = factor.structure.unpack(factor.lam)
    parts = factor.structure.split(ux)
    return tuple(
        np.einsum("kc,jcp->jkp", T @ L, part)
        for T, L, part in zip(transforms, lambdas, parts, strict=True)
    )
