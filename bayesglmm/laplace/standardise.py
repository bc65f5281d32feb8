"""Fixed and random effects in standardised coordinates, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from bayesglmm.design import Design
from bayesglmm.laplace.factor import Factor, covariance_blocks, diagonal_blocks, inverse_blocks
from bayesglmm.laplace.structure import Array, Structure, structure_of

_ROWS_PER_CHUNK = 65536


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


def coordinates(
    design: Design, transform: Callable[[Array, bool], Array] | None = None
) -> Coordinates:
    """Standardise the columns of a design with random effects.

    ``transform`` gives T for the columns of a term, correlated or not; by default one that makes
    them orthonormal.
    """
    X, R = orthonormal(design.X)
    structure = structure_of(design.random)
    transforms = tuple((transform or _whitening)(t.Z, t.correlated) for t in design.random)
    columns = [design.random[f].Z @ transforms[f] for f in structure.order]
    return Coordinates(X, R, structure, np.concatenate(columns, axis=1), transforms)


def orthonormal(X: Array) -> tuple[Array, Array]:
    """Q (n, p) with orthonormal columns and upper triangular R, X = Q R.

    A tall X is taken in blocks of rows (TSQR; Demmel et al. 2012, doi:10.1137/080731992), with
    one more pass that makes Q orthonormal to rounding.
    """
    n, p = X.shape
    if n <= 2 * _ROWS_PER_CHUNK or p == 0:
        Q, R = np.linalg.qr(X)
        return np.ascontiguousarray(Q), R
    starts = range(0, n, _ROWS_PER_CHUNK)
    R = np.linalg.qr(
        np.concatenate([np.linalg.qr(X[k : k + _ROWS_PER_CHUNK], mode="r") for k in starts]),
        mode="r",
    )
    Q = np.empty((n, p))
    gram = np.zeros((p, p))
    for k in starts:
        rows = slice(k, k + _ROWS_PER_CHUNK)
        Q[rows] = solve_triangular(R, X[rows].T, trans=1).T
        gram += Q[rows].T @ Q[rows]
    again = np.linalg.cholesky(gram).T
    for k in starts:
        rows = slice(k, k + _ROWS_PER_CHUNK)
        Q[rows] = solve_triangular(again, Q[rows].T, trans=1).T
    return Q, again @ R


def _whitening(Z: Array, correlated: bool) -> Array:
    rms = np.sqrt(np.einsum("nk,nk->k", Z, Z) / len(Z))
    T = np.diag(1.0 / np.where(rms > 0.0, rms, 1.0))
    if correlated and len(rms) > 1:
        R = np.linalg.qr(Z @ T, mode="r") / np.sqrt(len(Z))
        if np.linalg.cond(R) < 1e8:
            T = T @ np.linalg.inv(R)
    return T


def mode_covariance(
    factor: Factor, transforms: tuple[Array, ...], sigma: float
) -> tuple[Array, ...]:
    """Conditional covariances of b, (J_f, K_f, K_f)."""
    E = inverse_blocks(factor)
    blocks = diagonal_blocks(factor.structure, covariance_blocks(factor, E))
    return tuple(sigma**2 * (T @ C @ T.T) for T, C in zip(transforms, blocks, strict=True))


def coefficient_map(factor: Factor, transforms: tuple[Array, ...], ux: Array) -> tuple[Array, ...]:
    """T Lambda H^-1 M'WX, (J_f, K_f, p), from ux (effects, p)."""
    lambdas = factor.structure.unpack(factor.lam)
    parts = factor.structure.split(ux)
    return tuple(
        np.einsum("kc,jcp->jkp", T @ L, part)
        for T, L, part in zip(transforms, lambdas, parts, strict=True)
    )
