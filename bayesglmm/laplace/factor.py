"""H = I + Lambda' Z'WZ Lambda factorised, and what is solved with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import isnan

import numpy as np
from scipy.linalg.lapack import dposv, dpotrf, dpotri, dpotrs, dtrtrs

from bayesglmm.laplace import kernels
from bayesglmm.laplace.structure import Array, Integers, Structure
from bayesglmm.laplace.threads import in_parts

_ROWS_PER_CHUNK = 4096
_SINGULAR = 1e-13  # share of a diagonal entry that is left when the others are known: rounding


@dataclass(frozen=True, slots=True)
class Factor:
    """The Cholesky factor of H.

    Attributes
    ----------
    structure
        Which levels meet, and the order of elimination.
    lam
        The Lambda_f one after the other, in order of elimination.
    H
        Flat blocks: L of every chain level and L^-1 B beside it.
    S
        (q, q) Cholesky factor of the Schur complement, lower triangle.
    logdet
        log det H.
    """

    structure: Structure
    lam: Array
    H: Array
    S: Array
    logdet: float


def factorize(structure: Structure, W: Array, lam: Array) -> Factor:
    """Factorise I + Lambda' W Lambda for W in flat blocks.

    Raises
    ------
    numpy.linalg.LinAlgError
        If it is not positive definite (possible only with negative weights).
    """
    s, q = structure.arrays, structure.q
    H, S = np.empty_like(W), np.empty((q, q))
    logdet = float(kernels.assemble(s, lam, W, H))
    if isnan(logdet):
        raise np.linalg.LinAlgError("a block of H is not positive definite")
    if q:
        kernels.fill_blocks(s, H, S)
        cross, X = structure.cross, _crossing(structure, H)
        if structure.crosses_densely:
            dense = _spread(structure, X)
            S -= dense.T @ dense
        else:
            in_parts(partial(kernels.subtract_squares, cross, X, S), q)
        # LAPACK counts columns first: its upper triangle of S' is our lower one of S.
        factor, info = dpotrf(S.T, lower=0, clean=0, overwrite_a=1)
        if info != 0:
            raise np.linalg.LinAlgError("the Schur complement is not positive definite")
        S = factor.T
        logdet += 2.0 * float(np.log(S.diagonal()).sum())
    return Factor(structure, lam, H, S, logdet)


def solve(factor: Factor, rhs: Array) -> Array:
    """H^-1 rhs for (effects, m)."""
    s, q = factor.structure.arrays, factor.structure.q
    R = np.array(rhs, order="C")
    if not q:
        kernels.solve_chain(s, factor.H, R)
        return R
    kernels.solve_down(s, factor.H, R)
    R[-q:] = dpotrs(factor.S.T, R[-q:], lower=0)[0]
    kernels.solve_up(s, factor.H, R)
    return R


def solve_information(A: Array, rhs: Array) -> Array:
    """A^-1 rhs for an information matrix; the shortest solution where it is singular."""
    if not len(A):  # LAPACK takes no empty matrix
        return rhs
    root, out, info = dposv(A, rhs)
    if info or (root.diagonal() ** 2 < _SINGULAR * A.diagonal()).any():
        out = np.linalg.lstsq(A, rhs, rcond=None)[0]
    return np.asarray(out)


def inverse_blocks(factor: Factor) -> Array:
    """H^-1 at the pairs of levels that meet, in flat blocks."""
    structure, H = factor.structure, factor.H
    s, q = structure.arrays, structure.q
    E, Sinv = np.empty_like(H), factor.S
    if q:
        Sinv = dpotri(factor.S.T, lower=0)[0].T
        kernels.symmetrise(Sinv)
        cross, X = structure.cross, _crossing(structure, H)
        V = np.empty_like(X)
        if structure.crosses_densely:
            kernels.collect(cross, _spread(structure, X) @ Sinv, V)
        else:
            in_parts(partial(kernels.times_symmetric, cross, X, Sinv, V), q)
        kernels.put(cross, V, E)
    kernels.selected_inverse(s, H, Sinv, E)
    return E


def _crossing(structure: Structure, H: Array) -> Array:
    """The blocks of H between chain and trailing terms, as the values of a sparse matrix."""
    X = np.empty(len(structure.cross[2]))
    kernels.take(structure.cross, H, X)
    return X


def _spread(structure: Structure, X: Array) -> Array:
    dense = np.empty((structure.effects - structure.q, structure.q))
    kernels.spread(structure.cross, X, dense)
    return dense


def covariance_blocks(factor: Factor, E: Array) -> Array:
    """Lambda H^-1 Lambda' in flat blocks: the conditional covariance of b (per unit sigma^2)."""
    C = np.empty_like(E)
    kernels.lift(factor.structure.arrays, factor.lam, E, C)
    return C


def diagonal_blocks(structure: Structure, blocks: Array) -> list[Array]:
    """The (J_f, K_f, K_f) diagonal blocks out of flat ones, in the formula's order."""
    out: list[Array] = [blocks] * len(structure.order)
    for f, place in enumerate(structure.order):
        J, K = int(structure.terms[f, 0]), int(structure.terms[f, 1])
        first = int(structure.pairs[structure.pair_of[f, f], 4])
        out[place] = blocks[first : first + J * K * K].reshape(J, K, K)
    return out


def variance_at(factor: Factor, index: tuple[Integers, ...], Z: tuple[Array, ...]) -> Array:
    """m' H^-1 m for any rows m of Z Lambda, (rows,): they may pair levels that never met.

    ``index`` and ``Z`` are given term by term, in the formula's order.
    """
    structure = factor.structure
    s, q = structure.arrays, structure.q
    rows = len(index[0])
    levels = np.stack([np.asarray(index[k], dtype=np.int64) for k in structure.order], axis=1)
    columns = np.concatenate([Z[k] for k in structure.order], axis=1)
    out = np.empty(rows)
    for start in range(0, rows, _ROWS_PER_CHUNK):
        part = slice(start, min(start + _ROWS_PER_CHUNK, rows))
        count = part.stop - part.start
        chain, trailing = np.empty(count), np.empty((count, q))
        kernels.half_solve_rows(
            s, factor.lam, factor.H, levels[part], columns[part], chain, trailing
        )
        if q:
            half = dtrtrs(factor.S.T, trailing.T, lower=0, trans=1)[0]
            chain += np.einsum("qr,qr->r", half, half)
        out[part] = chain
    return out
