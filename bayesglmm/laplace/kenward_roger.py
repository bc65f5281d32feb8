"""Kenward and Roger's covariance of the coefficients of a linear mixed model fitted by REML.

The covariance of y is ``V = sum_r gamma_r G_r``: G_r = Z_f (I x E_ab) Z_f' for every variance and
covariance of the random effects, and the identity for the residual. With Phi = (X'V^-1 X)^-1,

    P_r = -X'V^-1 G_r V^-1 X,    Q_rs = X'V^-1 G_r V^-1 G_s V^-1 X,
    W = 2 [tr(V^-1 G_r V^-1 G_s) - 2 tr(Phi Q_rs) + tr(Phi P_r Phi P_s)]^-1,
    adjusted = Phi + 2 Phi sum_rs W_rs (Q_rs - P_r Phi P_s) Phi

(Kenward and Roger 1997, doi:10.2307/2533558; as R's pbkrtest, Halekoh and Hojsgaard 2014,
doi:10.18637/jss.v059.i09). No n x n matrix is formed: V^-1 enters only through Z'V^-1 Z and
Z'V^-1 X, and levels that share no row with each other form blocks of their own. So one grouping
factor, or nested ones, cost little; crossed factors need a dense matrix of all their effects.

Prior weights are honoured (pbkrtest ignores them): rows are multiplied by the root of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import block_diag
from scipy.sparse.csgraph import connected_components

from bayesglmm.design import Design
from bayesglmm.errors import FitError
from bayesglmm.laplace.covariance import covariance_of
from bayesglmm.laplace.estimate import Estimate

Array = NDArray[np.float64]
Integers = NDArray[np.intp]

_LARGEST_BLOCK = 6000  # crossed random effects: a handful of dense matrices of this size


def kenward_roger(estimate: Estimate, design: Design) -> Estimate:
    """The estimate with Kenward and Roger's covariance and degrees of freedom.

    Parameters
    ----------
    estimate
        A REML fit, its ``vcov`` given the variance parameters (Phi).
    design
        Of that fit, with the X in whose terms the estimate is.

    Raises
    ------
    FitError
        If crossed random effects need a dense matrix that is too large, or variance parameters
        are not identified: the adjustment is made of their covariance.
    """
    if estimate.outcome.redundant:
        raise FitError(
            "df='kenward-roger' needs variance parameters that the data tell apart; these are not: "
            f"{', '.join(estimate.outcome.redundant)}. Remove the overlapping term, or use "
            "df='satterthwaite'"
        )
    root = np.sqrt(design.weights)
    X = design.X * root[:, None]
    basis = _standardised(estimate, design, root)
    phi = estimate.vcov / estimate.sigma**2
    P, Q, traces = _components(basis, X, np.linalg.inv(phi))
    m = len(P)
    information = traces.copy()
    PphiP = np.einsum("rab,bc,scd->rsad", P, phi, P)
    for r in range(m):
        for s in range(m):
            information[r, s] += np.sum(phi * (PphiP[r, s] - 2.0 * Q[r, s]))
    scale_cov = 2.0 * _inverse(0.5 * (information + information.T))
    bias = np.einsum("rs,rsab->ab", scale_cov, Q - PphiP)
    added = 2.0 * phi @ (0.5 * (bias + bias.T)) @ phi
    slopes = -np.einsum("ab,rbc,cd->rad", phi, P, phi)
    return replace(
        estimate,
        vcov=estimate.vcov + estimate.sigma**2 * added,
        unadjusted=estimate.vcov,
        vcov_slopes=estimate.sigma**2 * slopes,
        scale_cov=scale_cov,
    )


@dataclass(frozen=True, slots=True)
class _Basis:
    """Random effects in columns of unit size; S is relative to sigma^2.

    Attributes
    ----------
    index, Z, S
        Per term: (n,) level of each row, (n, K) weighted columns, (K, K) covariance.
    levels
        J of each term.
    pairs
        Free entries (a, b) of each S, a >= b.
    """

    index: tuple[Integers, ...]
    Z: tuple[Array, ...]
    S: tuple[Array, ...]
    levels: tuple[int, ...]
    pairs: tuple[tuple[tuple[int, int], ...], ...]


def _standardised(estimate: Estimate, design: Design, root: Array) -> _Basis:
    """Neither the adjustment nor the df depend on the basis of Z, but their digits do."""
    columns, covariances, pairs = [], [], []
    lambdas = covariance_of(design.random).lambdas(estimate.theta)
    for term, factor in zip(design.random, lambdas, strict=True):
        Z = term.Z * root[:, None]
        size = np.sqrt(np.mean(Z * Z, axis=0))
        size = np.where(size > 0.0, size, 1.0)
        Z, factor = Z / size, size[:, None] * factor
        if term.correlated and term.K > 1:
            R = np.linalg.qr(Z, mode="r") / np.sqrt(len(Z))
            if np.linalg.cond(R) < 1e8:
                Z, factor = np.linalg.solve(R.T, Z.T).T, R @ factor
        columns.append(Z)
        covariances.append(factor @ factor.T)
        pairs.append(
            tuple((a, b) for a in range(term.K) for b in range(a + 1) if term.correlated or a == b)
        )
    return _Basis(
        tuple(t.index for t in design.random),
        tuple(columns),
        tuple(covariances),
        tuple(t.J for t in design.random),
        tuple(pairs),
    )


def _components(basis: _Basis, X: Array, inverse_phi: Array) -> tuple[Array, Array, Array]:
    """P (m, p, p), Q (m, m, p, p) and tr(V^-1 G_r V^-1 G_s) (m, m), residual last; sigma = 1."""
    p, m = X.shape[1], sum(len(pairs) for pairs in basis.pairs) + 1
    P, Q, traces = np.zeros((m, p, p)), np.zeros((m, m, p, p)), np.zeros((m, m))
    squared = inverse_phi.copy()  # X'V^-2 X
    cubed = np.zeros((p, p))  # X'V^-2 X - X'V^-3 X
    trace = float(len(X))  # tr V^-2
    for C, D, S, entries in _blocks(basis, X):
        size = C.shape[1]
        # Z'V^-1 = T Z', so that A = Z'V^-1 Z = T C and B = Z'V^-1 X = T D.
        T = np.linalg.inv(np.eye(size) + C @ S)
        A, B = T @ C, T @ D
        A2, B2 = A @ T.transpose(0, 2, 1), T @ B  # Z'V^-2 Z, Z'V^-2 X
        SB = S @ B
        squared -= np.einsum("bqi,bqj->ij", B, SB)
        cubed += np.einsum("bqi,bqj->ij", B2, SB)
        trace -= float(np.sum(S * (A + A2)))
        for r, (i, j) in enumerate(entries):
            P[r] -= np.einsum("bqi,bqj->ij", B[:, i], B[:, j])
            Q[r, -1] += np.einsum("bqi,bqj->ij", B[:, i], B2[:, j])
            traces[r, -1] += float(np.sum(A2[:, i, j]))
            for s, (k, el) in enumerate(entries):
                if s < r:
                    continue
                Ajk = A[:, j[:, None], k[None, :]]
                Q[r, s] += np.einsum("bqi,bqk->ik", B[:, i], Ajk @ B[:, el])
                traces[r, s] += float(np.sum(Ajk * A[:, i[:, None], el[None, :]]))
    P[-1] = -squared
    Q[-1, -1] = squared - cubed
    traces[-1, -1] = trace
    for r in range(m):
        for s in range(r):
            Q[r, s] = Q[s, r].T
            traces[r, s] = traces[s, r]
    return P, Q, traces


def _blocks(
    basis: _Basis, X: Array
) -> Iterator[tuple[Array, Array, Array, list[tuple[Integers, Integers]]]]:
    """Independent blocks of random effects, those of the same shape together.

    Yields Z'Z (N, q, q), Z'X (N, q, p), S (q, q), and for every parameter the places (i, j) of
    the ones of its E in a block.
    """
    n, starts = len(X), np.cumsum([0, *basis.levels])
    nodes = np.concatenate(
        [index + start for index, start in zip(basis.index, starts, strict=False)]
    )
    rows = np.tile(np.arange(n), len(basis.levels))
    shared = sparse.csr_array((np.ones(len(nodes)), (rows, nodes)), shape=(n, starts[-1]))
    count, label = connected_components(shared.T @ shared, directed=False)
    term_of = np.repeat(np.arange(len(basis.levels)), basis.levels)
    shape = np.zeros((count, len(basis.levels)), dtype=np.intp)
    np.add.at(shape, (label, term_of), 1)
    _check_size(shape, basis)
    # Position of each level among those of its term in its block.
    order = np.lexsort((term_of, label))
    key = label[order] * len(basis.levels) + term_of[order]
    first = np.searchsorted(key, key)
    rank = np.empty(starts[-1], dtype=np.intp)
    rank[order] = np.arange(starts[-1]) - first
    shapes, kind = np.unique(shape, axis=0, return_inverse=True)
    kind = kind.reshape(-1)
    block_of_row = label[basis.index[0]]
    for which, levels in enumerate(shapes):
        members = np.flatnonzero(kind == which)
        number = np.full(count, -1)
        number[members] = np.arange(len(members))
        inside = np.flatnonzero(kind[block_of_row] == which)
        place = number[block_of_row[inside]]
        widths = [int(J) * Z.shape[1] for J, Z in zip(levels, basis.Z, strict=True)]
        offsets = np.cumsum([0, *widths])
        q = int(offsets[-1])
        columns, values = [], []
        for f, (index, Z) in enumerate(zip(basis.index, basis.Z, strict=True)):
            at = offsets[f] + rank[starts[f] + index[inside]] * Z.shape[1]
            for k in range(Z.shape[1]):
                columns.append(place * q + at + k)
                values.append(Z[inside, k])
        yield (
            _cross(columns, values, len(members), q),
            _cross_x(columns, values, X[inside], len(members), q),
            _block_diagonal(levels, basis.S),
            _entries(levels, offsets, basis),
        )


def _check_size(shape: Integers, basis: _Basis) -> None:
    width = np.array([Z.shape[1] for Z in basis.Z])
    largest = int((shape @ width).max())
    if largest > _LARGEST_BLOCK:
        raise FitError(
            f"Kenward and Roger's method needs dense matrices of {largest} x {largest}: so many "
            f"random effects hang together through shared rows (at most {_LARGEST_BLOCK}). "
            "Use df='satterthwaite'; with so many levels the two hardly differ."
        )


def _cross(columns: list[Integers], values: list[Array], count: int, q: int) -> Array:
    """Z'Z in blocks, (count, q, q)."""
    out = np.zeros(count * q * q)
    for a, va in zip(columns, values, strict=True):
        for b, vb in zip(columns, values, strict=True):
            np.add.at(out, a * q + b % q, va * vb)
    return out.reshape(count, q, q)


def _cross_x(columns: list[Integers], values: list[Array], X: Array, count: int, q: int) -> Array:
    """Z'X in blocks, (count, q, p)."""
    out = np.zeros((count * q, X.shape[1]))
    for a, va in zip(columns, values, strict=True):
        np.add.at(out, a, va[:, None] * X)
    return out.reshape(count, q, X.shape[1])


def _block_diagonal(levels: Integers, covariances: tuple[Array, ...]) -> Array:
    parts = [S for J, S in zip(levels, covariances, strict=True) for _ in range(int(J))]
    return np.asarray(block_diag(*parts))


def _entries(levels: Integers, offsets: Integers, basis: _Basis) -> list[tuple[Integers, Integers]]:
    out = []
    for f, pairs in enumerate(basis.pairs):
        start = offsets[f] + np.arange(int(levels[f])) * basis.Z[f].shape[1]
        for a, b in pairs:
            if a == b:
                out.append((start + a, start + a))
            else:
                out.append((np.append(start + a, start + b), np.append(start + b, start + a)))
    return out


def _inverse(information: Array) -> Array:
    """The inverse; parameters that the data cannot tell apart get the pseudo-inverse."""
    scale = np.sqrt(np.maximum(np.diag(information), 1e-300))
    unit = information / np.outer(scale, scale)
    return np.asarray(np.linalg.pinv(unit, rcond=1e-10, hermitian=True) / np.outer(scale, scale))
