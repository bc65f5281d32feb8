"""Linear algebra of H = I + Lambda' Z' W Z Lambda in blocks.

The term with the most random effects leads: its block D is block diagonal, one K x K block
per level. The other terms together trail; their Schur complement S = C - B' D^-1 B is dense.
So one grouping factor costs O(levels), and two crossed factors cost what the smaller one does
(the scheme of MixedModels.jl, with one elimination step).

Shapes: J levels and K columns of the leading term, q trailing effects, n rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Array = NDArray[np.float64]
Integers = NDArray[np.intp]

_ROWS_PER_CHUNK = 8192


class Grouped(Protocol):
    """A random-effects term as the linear algebra sees it."""

    @property
    def index(self) -> Integers: ...
    @property
    def Z(self) -> Array: ...
    @property
    def levels(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Layout:
    """Which term leads, and where the trailing ones lie.

    Attributes
    ----------
    index, Z
        Level of each row (n,) and columns (n, K) of every term, in the order given.
    sizes
        (J, K) of every term.
    lead
        Position of the leading term.
    trail
        Positions of the trailing terms.
    offsets
        First trailing column of each trailing term.
    """

    index: tuple[Integers, ...]
    Z: tuple[Array, ...]
    sizes: tuple[tuple[int, int], ...]
    lead: int
    trail: tuple[int, ...]
    offsets: tuple[int, ...]

    @property
    def q(self) -> int:
        """Number of trailing random effects."""
        return sum(self.sizes[f][0] * self.sizes[f][1] for f in self.trail)


def layout_of(terms: tuple[Grouped, ...]) -> Layout:
    """Choose the leading term (most random effects) and lay out the rest."""
    sizes = tuple((len(t.levels), t.Z.shape[1]) for t in terms)
    lead = max(range(len(terms)), key=lambda f: sizes[f][0] * sizes[f][1])
    trail = tuple(f for f in range(len(terms)) if f != lead)
    widths = [sizes[f][0] * sizes[f][1] for f in trail]
    offsets = tuple(int(v) for v in np.cumsum([0, *widths])[:-1])
    return Layout(
        tuple(t.index for t in terms), tuple(t.Z for t in terms), sizes, lead, trail, offsets
    )


@dataclass(frozen=True, slots=True)
class CrossProducts:
    """Z' W Z in blocks: P (J, K, K) leading, B (J, K, q) between, C (q, q) trailing."""

    P: Array
    B: Array
    C: Array


def cross_products(layout: Layout, w: Array) -> CrossProducts:
    """Z' diag(w) Z, accumulated in one pass over the rows."""
    lead = layout.lead
    J, K = layout.sizes[lead]
    z, index, q = layout.Z[lead], layout.index[lead], layout.q
    P = np.empty((J, K, K))
    for a in range(K):
        for b in range(a + 1):
            P[:, a, b] = P[:, b, a] = np.bincount(index, w * z[:, a] * z[:, b], J)
    B = np.zeros((J, K, q))
    C = np.zeros((q, q))
    for f, offset in zip(layout.trail, layout.offsets, strict=True):
        Jf, Kf = layout.sizes[f]
        for b in range(Kf):
            wz = w * layout.Z[f][:, b]
            columns = layout.index[f] * Kf + b
            for a in range(K):
                cells = np.bincount(index * Jf + layout.index[f], wz * z[:, a], J * Jf)
                B[:, a, offset + b : offset + Jf * Kf : Kf] = cells.reshape(J, Jf)
            for g, other in zip(layout.trail, layout.offsets, strict=True):
                if g > f:
                    continue
                Jg, Kg = layout.sizes[g]
                for c in range(Kg):
                    flat = np.bincount(
                        columns * Jg + layout.index[g], wz * layout.Z[g][:, c], Jf * Kf * Jg
                    ).reshape(Jf * Kf, Jg)
                    block = C[offset : offset + Jf * Kf, other + c : other + Jg * Kg : Kg]
                    block += flat
        for g, other in zip(layout.trail, layout.offsets, strict=True):
            if g < f:
                rows = slice(offset, offset + layout.sizes[f][0] * layout.sizes[f][1])
                cols = slice(other, other + layout.sizes[g][0] * layout.sizes[g][1])
                C[cols, rows] = C[rows, cols].T
    return CrossProducts(P, B, C)


def transpose_product(layout: Layout, v: Array) -> list[Array]:
    """Z' v for v (n,) or (n, m): a list with (J_f, K_f[, m]) for every term."""
    columns = v.reshape(len(v), -1)
    out = []
    for index, z, (J, K) in zip(layout.index, layout.Z, layout.sizes, strict=True):
        total = np.empty((J, K, columns.shape[1]))
        for k in range(K):
            for m in range(columns.shape[1]):
                total[:, k, m] = np.bincount(index, z[:, k] * columns[:, m], J)
        out.append(total.reshape((J, K, *v.shape[1:])))
    return out


def row_product(layout: Layout, b: list[Array]) -> Array:
    """Z b, (n,), for a list of (J_f, K_f) effects."""
    total = np.zeros(len(layout.index[0]))
    for index, z, effects in zip(layout.index, layout.Z, b, strict=True):
        for k in range(z.shape[1]):
            total += z[:, k] * effects[index, k]
    return total


@dataclass(frozen=True, slots=True)
class Factor:
    """H = I + Lambda' Z'WZ Lambda, factorised.

    Attributes
    ----------
    Dinv
        (J, K, K) inverses of the leading blocks.
    V
        (J, K, q) D^-1 B.
    S
        Cholesky factor of the Schur complement, as ``cho_factor`` returns it.
    logdet
        log det H.
    """

    layout: Layout
    lambdas: tuple[Array, ...]
    Dinv: Array
    V: Array
    S: tuple[Array, bool]
    logdet: float


def flat(A: Array) -> Array:
    """(J, K, q) as (J K, q); q may be zero."""
    return A.reshape(A.shape[0] * A.shape[1], A.shape[2])


def _right_lambda(layout: Layout, lambdas: tuple[Array, ...], A: Array) -> Array:
    """A @ blockdiag(Lambda_f of the trailing terms), on the last axis."""
    out = np.empty_like(A)
    for f, offset in zip(layout.trail, layout.offsets, strict=True):
        J, K = layout.sizes[f]
        part = A[..., offset : offset + J * K]
        out[..., offset : offset + J * K] = (
            part.reshape(*part.shape[:-1], J, K) @ lambdas[f]
        ).reshape(part.shape)
    return out


def factorize(layout: Layout, cross: CrossProducts, lambdas: tuple[Array, ...]) -> Factor:
    """Factorise I + Lambda' Z'WZ Lambda.

    Raises
    ------
    numpy.linalg.LinAlgError
        If it is not positive definite (possible only with negative weights).
    """
    lead = lambdas[layout.lead]
    D = lead.T @ cross.P @ lead + np.eye(len(lead))
    B = lead.T @ _right_lambda(layout, lambdas, cross.B)
    L = np.linalg.cholesky(D)
    logdet = 2.0 * float(np.sum(np.log(np.diagonal(L, axis1=1, axis2=2))))
    Dinv = np.linalg.inv(D)
    V = Dinv @ B
    q = layout.q
    C = _right_lambda(layout, lambdas, _right_lambda(layout, lambdas, cross.C).T)
    S = np.eye(q) + C - flat(B).T @ flat(V)
    if q == 0:
        return Factor(layout, lambdas, Dinv, V, (S, True), logdet)
    chol = cho_factor(S, lower=True)
    logdet += 2.0 * float(np.sum(np.log(np.diag(chol[0]))))
    return Factor(layout, lambdas, Dinv, V, chol, logdet)


def stack(layout: Layout, parts: list[Array]) -> Array:
    """Trailing (J_f, K_f, m) arrays as one (q, m) array."""
    m = parts[0].shape[-1]
    return np.concatenate([parts[f].reshape(-1, m) for f in layout.trail] or [np.zeros((0, m))])


def unstack(layout: Layout, lead: Array, trail: Array) -> list[Array]:
    """Inverse of :func:`stack`, with the leading part put in its place."""
    out: list[Array] = [lead] * len(layout.sizes)
    for f, offset in zip(layout.trail, layout.offsets, strict=True):
        J, K = layout.sizes[f]
        out[f] = trail[offset : offset + J * K].reshape(J, K, -1)
    return out


def solve(factor: Factor, rhs: list[Array]) -> list[Array]:
    """H^-1 rhs for a list of (J_f, K_f, m) arrays."""
    layout = factor.layout
    r1 = rhs[layout.lead]
    q = layout.q
    V = flat(factor.V)
    x2 = stack(layout, rhs)
    if q:
        x2 = cho_solve(factor.S, x2 - V.T @ flat(r1))
    x1 = factor.Dinv @ r1 - (V @ x2).reshape(r1.shape)
    return unstack(layout, x1, x2)


def inverse_trailing(factor: Factor) -> Array:
    """S^-1, the trailing (q, q) block of H^-1."""
    q = factor.layout.q
    return cho_solve(factor.S, np.eye(q)) if q else np.zeros((0, 0))


def inverse_blocks(factor: Factor, Sinv: Array) -> list[Array]:
    """The diagonal blocks of H^-1, (J_f, K_f, K_f) for every term."""
    layout = factor.layout
    J, K = layout.sizes[layout.lead]
    VS = (flat(factor.V) @ Sinv).reshape(factor.V.shape)
    lead = factor.Dinv + VS @ factor.V.transpose(0, 2, 1)
    out: list[Array] = [lead] * len(layout.sizes)
    for f, offset in zip(layout.trail, layout.offsets, strict=True):
        J, K = layout.sizes[f]
        square = Sinv[offset : offset + J * K, offset : offset + J * K].reshape(J, K, J, K)
        out[f] = square[np.arange(J), :, np.arange(J), :]
    return out


def logdet_gradient(factor: Factor, cross: CrossProducts, Sinv: Array) -> tuple[Array, ...]:
    """Half the derivative of log det H in every Lambda_f, the weights held fixed.

    Entry (r, c) of item f is sum_j of (Z'WZ Lambda H^-1)_{fj,fj} at (r, c); written with the
    cross-products, not with Lambda^-1, so that it also holds where Lambda is singular.
    """
    layout, lambdas = factor.layout, factor.lambdas
    q, lead = layout.q, layout.lead
    N = _right_lambda(layout, lambdas, np.eye(q)) @ Sinv
    E = inverse_blocks(factor, Sinv)[lead]
    BN = flat(cross.B) @ N
    K = cross.P.shape[1]
    V = factor.V
    first = np.sum(cross.P @ (lambdas[lead] @ E), axis=0)
    first -= np.einsum("jaq,jbq->ab", BN.reshape(V.shape), V)
    out: list[Array] = [first] * len(layout.sizes)
    if q:
        LV = flat(lambdas[lead] @ V)
        G = cross.C @ N - flat(cross.B).T @ LV @ Sinv
        for f, offset in zip(layout.trail, layout.offsets, strict=True):
            J, K = layout.sizes[f]
            square = G[offset : offset + J * K, offset : offset + J * K].reshape(J, K, J, K)
            out[f] = square[np.arange(J), :, np.arange(J), :].sum(axis=0)
    return tuple(out)


def leverages(factor: Factor, Sinv: Array) -> Array:
    """(n,) m_i' H^-1 m_i with m_i the row of Z Lambda: conditional variance of eta_i."""
    layout, lead = factor.layout, factor.layout.lead
    n = len(layout.index[lead])
    out = np.empty(n)
    for start in range(0, n, _ROWS_PER_CHUNK):
        rows = slice(start, min(start + _ROWS_PER_CHUNK, n))
        index = layout.index[lead][rows]
        m1 = layout.Z[lead][rows] @ factor.lambdas[lead]
        h = np.einsum("nk,nkl,nl->n", m1, factor.Dinv[index], m1)
        if layout.q:
            r = -np.einsum("nk,nkq->nq", m1, factor.V[index])
            at = np.arange(len(index))
            for f, offset in zip(layout.trail, layout.offsets, strict=True):
                m2 = layout.Z[f][rows] @ factor.lambdas[f]
                for k in range(m2.shape[1]):
                    r[at, offset + layout.index[f][rows] * m2.shape[1] + k] += m2[:, k]
            h += np.einsum("nq,nq->n", r @ Sinv, r)
        out[rows] = h
    return out
