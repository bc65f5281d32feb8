"""Laplace coordinates: where the posterior is and how it curves, as numbers for the kernels.

At the mode (beta_hat, b_hat) of the posterior, given covariance parameters t_hat, the likelihood
is replaced by Gaussian pseudo-observations with weights w = -l'' (the expected information where
that is not positive): precisions P = Z'WZ between levels that share rows, responses r = Z'l' + P
b_hat, C = Z'WX. They are computed once, and used for every t:

- *Chain* terms (nested one in another, see `laplace/structure.py`) are eliminated innermost
  first, given beta and all trailing terms. In the pseudo-model their coordinates are standard
  normal for every t, whatever beta and the trailing effects are.
- *Trailing* terms (crossed with those) have each level's own precision, the chain eliminated at
  t_hat; what then still correlates them with each other and with beta is whitened once, at t_hat.

A weakly informed level is thus non-centred by itself, a well informed one centred. Nothing is
approximated: the sampled density includes the Jacobian. The precisions of a Gaussian response
scale with (sigma_hat / sigma)^2.

The coordinates x are: z of the chain, epsilon of the trailing effects and of the coefficients,
x_t of the covariance parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from bayesglmm.laplace import Estimate, kernels
from bayesglmm.laplace.covariance import components, covariance_of, sd_corr
from bayesglmm.laplace.standardise import orthonormal
from bayesglmm.laplace.structure import Small, Structure, Whole, structure_of
from bayesglmm.laplace.surface import surface
from bayesglmm.nuts.layout import Packed, pack
from bayesglmm.nuts.mode import CoefficientPrior, Conditional, Curvature, Point
from bayesglmm.nuts.scales import NO_TAIL, Scales, straighten

if TYPE_CHECKING:
    from bayesglmm.model import Model

Array = NDArray[np.float64]
Single = NDArray[np.float32]

# A relative sd below this share of a typical one is moved up to it, a correlation matrix is kept
# this far from singular: coordinates need a scale.
_SMALLEST_SD = 0.1
_SMALLEST_EIGENVALUE = 0.05
# Share of rows of another level than the row before: fewer, and rows are summed by runs.
_FEW_BREAKS = 0.25
# Information on log sds and correlations that even a vague prior brings.
_PRIOR_INFORMATION = 0.5


@dataclass(frozen=True, slots=True)
class Placed:
    """The coordinates of a model.

    Attributes
    ----------
    packed
        For the kernels.
    structure
        Of the random effects.
    order
        (effects,) the structure's number of each effect of the kernels, which have them by term,
        column and level.
    beta, R
        gamma = R (beta - beta_hat).
    bent
        Whether an sd may be zero, and its coordinate therefore bends.
    """

    packed: Packed
    structure: Structure
    order: Whole
    beta: Array
    R: Array
    bent: bool


def place(model: Model, scales: Scales, ml: Estimate) -> Placed:
    """Laplace coordinates around a maximum-likelihood estimate.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a factor is lost: covariates are badly scaled, or data and priors say nothing of a
        coefficient.
    """
    design = model.design
    structure = ml.structure[0] if ml.structure else structure_of(())
    columns = [np.zeros((design.n, 0)), *(design.random[f].Z for f in structure.order)]
    Z = np.concatenate(columns, axis=1)
    factors, sigma = _factors(model, ml)
    X, R = orthonormal(design.X)
    back = np.linalg.inv(R)
    prior = CoefficientPrior(model, back)
    lam = structure.pack(factors) if factors else np.zeros(0)
    conditional = Conditional(model, prior, structure, X, Z, lam, sigma)
    spherical = [np.linalg.solve(L, b.T).T for L, b in zip(factors, ml.modes, strict=True)]
    start = structure.join(spherical)[:, None] if factors else np.zeros((0, 1))
    at, curved = conditional.mode(R @ ml.beta, start)
    dense = _without_chain(structure, curved)
    blocks = _blocks(structure, at, curved, dense, conditional)
    order, leading = _by_column(structure), structure.effects - structure.q
    A = _whitening(dense, blocks, order[leading:] - leading)
    t, root = scales.pack(factors, sigma), _root(model, scales, ml, factors, sigma)
    elbows, centre = _elbows(model, scales, ml, t, root), np.empty((1, len(t)))
    straighten(t[None], elbows, centre)
    constant = scales.constant + prior.constant + conditional.density.constant(1.0)
    constant -= 0.5 * structure.effects * math.log(2.0 * math.pi)
    for matrix in (A, root, back):
        constant += float(np.sum(np.log(np.abs(np.diag(matrix).astype(np.float64)))))
    code, y, w = conditional.density.compiled or (-1, np.zeros(0), np.zeros(0))
    scratch = max((J * K * K for J, K, *_ in blocks.terms), default=1)
    sizes = {
        "n": design.n,
        "p": design.p,
        "terms": len(structure.order),
        "chain": structure.n_chain,
        "leading": leading,
        "effects": structure.effects,
        "scales": scales.size,
        "code": code,
        "intercept": prior.intercept,
        "has_scale": int(scales.has_scale),
        "factors": scales.factors,
        "blocks": len(blocks.values),
        "scratch": scratch,
        "couplings": len(blocks.couplings),
        "priors": len(scales.codes),
    }
    beta = back @ at.gamma
    parts = {
        "y": y,
        "w": w,
        "eta": X @ at.gamma + design.offset,
        "X": X.T,
        "Z": Z.T,
        "beta": beta,
        "back": back,
        "A": A,
        "t": centre,
        "root": root,
        "elbows": elbows,
        "means": prior.means,
        "beta_priors": prior.parameters,
        "scale_priors": scales.parameters,
        "etas": scales.etas,
        "blocks": blocks.values,
        "r": blocks.r[order],
        "C": blocks.C[order].T,
        "coupled": blocks.coupled,
        "fixed": [sigma, constant],
        "terms": blocks.terms,
        "ancestors": blocks.ancestors,
        "couplings": blocks.couplings,
        "starts": blocks.starts,
        "levels": blocks.levels,
        "layout": scales.terms,
        "beta_codes": prior.codes,
        "scale_codes": scales.codes,
    }
    index = [design.random[f].index for f in structure.order] or np.zeros((0, design.n))
    bent = bool((elbows > NO_TAIL).any())
    return Placed(pack(sizes, parts, index), structure, order, beta, R, bent)


def _by_column(structure: Structure) -> Whole:
    """Effects term by term, within it column by column."""
    parts = [
        first + np.arange(J * K).reshape(J, K).T.ravel() for J, K, first in structure.terms[:, :3]
    ]
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _factors(model: Model, ml: Estimate) -> tuple[tuple[Array, ...], float]:
    """Cholesky factors of the covariances, kept away from singular ones, and sigma."""
    out = []
    lambdas = covariance_of(model.design.random).lambdas(ml.theta)
    for term, factor in zip(model.design.random, lambdas, strict=True):
        rms = np.sqrt(np.mean(term.Z * term.Z, axis=0))
        sd, corr = sd_corr(factor)
        sd = np.maximum(sd, _SMALLEST_SD / np.where(rms > 0.0, rms, 1.0))
        corr = np.where(np.isfinite(corr), corr, 0.0)
        np.fill_diagonal(corr, 1.0)
        lowest = float(np.linalg.eigvalsh(corr)[0])
        if lowest < _SMALLEST_EIGENVALUE:
            share = (_SMALLEST_EIGENVALUE - lowest) / (1.0 - lowest)
            corr = (1.0 - share) * corr + share * np.eye(len(sd))
        out.append(ml.relative_to * sd[:, None] * np.linalg.cholesky(corr))
    return tuple(out), ml.sigma


def _root(
    model: Model, scales: Scales, ml: Estimate, factors: tuple[Array, ...], sigma: float
) -> Array:
    """Lower triangular root of the covariance of t: from the likelihood, with a vague prior."""
    cov = ml.component_cov
    known = np.isfinite(np.diag(cov))
    information = np.zeros_like(cov)
    block = np.ix_(known, known)
    information[block] = np.linalg.pinv(cov[block], hermitian=True)
    # t has partial correlations where the estimate has correlations.
    slope = np.linalg.inv(_slopes(model, scales, factors, sigma))
    information = slope.T @ information @ slope + _PRIOR_INFORMATION * np.eye(scales.size)
    values, vectors = np.linalg.eigh(information)
    values = np.maximum(values, _PRIOR_INFORMATION)
    return np.linalg.cholesky((vectors / values) @ vectors.T)


def _elbows(model: Model, scales: Scales, ml: Estimate, t: Array, root: Array) -> Array:
    """Where the tails of log sds begin, by the likelihood at the estimated beta."""
    design = model.design
    if not design.random:
        return scales.elbows(t, root @ root.T, lambda t: 0.0)
    likelihood = surface(design, model.likelihood, 1, ml.relative_to)

    def loglik(t: Array) -> float:
        factors, sigma = scales.unpack(t[None])
        x = likelihood.point(tuple(L[0] for L in factors), float(sigma[0]), ml.beta)
        return likelihood.loglik(x)[0]

    return scales.elbows(t, root @ root.T, loglik)


def _slopes(model: Model, scales: Scales, factors: tuple[Array, ...], sigma: float) -> Array:
    """Derivatives of t in (log sds, atanh correlations, log sigma)."""
    out, step = np.eye(scales.size), 1e-5
    parts = components(covariance_of(model.design.random))
    for k, part in enumerate(parts):
        if part.kind == "sd" or len(factors[part.term]) < 3:
            continue
        moved = []
        for sign in (1.0, -1.0):
            sd, corr = sd_corr(factors[part.term])
            value = np.tanh(np.arctanh(corr[part.row, part.column]) + sign * step)
            corr[part.row, part.column] = corr[part.column, part.row] = value
            changed = list(factors)
            changed[part.term] = sd[:, None] * np.linalg.cholesky(corr)
            moved.append(scales.pack(changed, sigma))
        out[:, k] = (moved[0] - moved[1]) / (2.0 * step)
    return out


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Pseudo-observations as the kernels take them (see `layout.py`), r and C in the structure's
    order."""

    terms: list[tuple[int, ...]]
    values: Array
    ancestors: NDArray[Any]
    r: Array
    C: Array
    couplings: list[tuple[int, ...]]
    starts: NDArray[Any]
    levels: NDArray[Any]
    coupled: Array
    roots: list[Array]  # of trailing terms: (J, K, K) Cholesky factors of Q at t_hat
    inverses: list[Array]  # Lambda^-1 of trailing terms


def _blocks(
    structure: Structure, at: Point, curved: Curvature, dense: _Dense, conditional: Conditional
) -> _Blocks:
    s, n_chain = structure, structure.n_chain
    r, C = np.zeros((s.effects, 1)), np.array(curved.zx)
    if s.effects:
        kernels.multiply_blocks(s.arrays, curved.W, at.b, r)
        r += conditional.pull(at.l[1][:, None])[0]
    pieces: list[Array] = []
    terms: list[tuple[int, ...]] = []
    couplings: list[tuple[int, ...]] = []
    roots, inverses = [], []
    ancestors: list[NDArray[Any]] = [np.zeros(0)]
    starts: list[NDArray[Any]] = [np.zeros(0)]
    levels: list[NDArray[Any]] = [np.zeros(0)]
    coupled = [np.zeros(0)]
    lambdas = s.unpack(conditional.lam)
    factors = np.cumsum([0, *(L.size for L in lambdas)])  # in the formula's order

    def pair(f: int, g: int) -> tuple[Array, Small, Whole]:
        """(entries, K_f, K_g) blocks, (2, entries) levels, (J_f + 1,) starts."""
        _, _, _, count, base, entry, start = (int(v) for v in s.pairs[s.pair_of[f, g]])
        Kf, Kg, J = int(s.terms[f, 1]), int(s.terms[g, 1]), int(s.terms[f, 0])
        W = curved.W[base : base + count * Kf * Kg].reshape(count, Kf, Kg)
        return W, s.levels[:, entry : entry + count], s.starts[start : start + J + 1]

    for f, place in enumerate(s.order):
        J, K, first, column, begin = (int(v) for v in s.terms[f])
        M, nested = 0, sum(map(len, ancestors))
        if f < n_chain:
            beside = [pair(f, g) for g in range(f + 1, n_chain)]
            M = sum(W.shape[2] for W, _, _ in beside)
            block = np.concatenate([pair(f, f)[0], *(W for W, _, _ in beside)], axis=2)
            ancestors += [found[1] for _, found, _ in beside]
            for h in range(n_chain, len(s.order)):
                W, met, where = pair(f, h)
                couplings.append((f, h, *(sum(map(len, v)) for v in (starts, levels, coupled))))
                starts.append(where)
                levels.append(met[1])
                coupled.append(_levels_last(W))
        else:
            inverse, rows = np.linalg.inv(lambdas[place]), slice(first, first + J * K)
            block = _own_information(dense.S[begin : begin + J * K, begin : begin + J * K], inverse)
            Q = block + inverse.T @ inverse
            r[rows] = np.einsum("jkm,jm->jk", Q, at.b[rows].reshape(J, K)).reshape(-1, 1)
            C[rows] = (inverse.T @ dense.x[begin : begin + J * K].reshape(J, K, -1)).reshape(
                J * K, -1
            )
            roots.append(np.linalg.cholesky(Q))
            inverses.append(inverse)
        kind = 0
        if K == 1 and bool(np.all(conditional.Z[:, column] == 1.0)):
            index = structure.slots[structure.pairs[structure.pair_of[f, f], 2]]
            kind = 1 + bool(np.count_nonzero(np.diff(index)) < _FEW_BREAKS * len(index))
        size = sum(piece.size for piece in pieces)
        terms.append((J, K, first, column, kind, int(factors[place]), M, size, nested))
        pieces.append(_levels_last(block))
    return _Blocks(
        terms,
        np.concatenate([np.zeros(0), *pieces]),
        np.concatenate(ancestors),
        r,
        C,
        couplings,
        np.concatenate(starts),
        np.concatenate(levels),
        np.concatenate(coupled),
        roots,
        inverses,
    )


def _levels_last(blocks: Array) -> Array:
    """(J, K, M) as flat (K, M, J)."""
    return np.moveaxis(blocks, 0, -1).ravel()


def _own_information(S: Array, inverse: Array) -> Array:
    """(J, K, K) information on every level, from the diagonal blocks of I + Lambda'P Lambda."""
    K = len(inverse)
    own = np.array([S[a : a + K, a : a + K] for a in range(0, len(S), K)]).reshape(-1, K, K)
    values, vectors = np.linalg.eigh(own - np.eye(K))
    known = np.maximum(values, 0.0)[:, None, :]  # rounding may make it negative
    return np.asarray(inverse.T @ ((vectors * known) @ vectors.transpose(0, 2, 1)) @ inverse)


@dataclass(frozen=True, slots=True)
class _Dense:
    """The precision of spherical trailing effects (S), gamma (xx), and both (x): no chain."""

    S: Array
    x: Array
    xx: Array


def _without_chain(structure: Structure, curved: Curvature) -> _Dense:
    q = structure.q
    half, S = np.array(curved.cross, order="C"), np.zeros((q, q))
    for factor in curved.factor:
        kernels.solve_down(structure.arrays, factor.H, half)
        L = np.tril(factor.S)
        S = L @ L.T
    lead = half[: len(half) - q]
    return _Dense(S, half[len(lead) :], curved.xx - lead.T @ lead)


def _whitening(dense: _Dense, blocks: _Blocks, order: Whole) -> Single:
    """Upper triangular A with (z of the trailing effects, gamma) = A epsilon white at t_hat.

    ``order`` (q,) is that of the kernels.

    In single precision: coordinates may be any, so nothing is lost, and where there are many
    trailing effects reading A is a large part of an evaluation.
    """
    q, p = dense.x.shape
    R, E, start = np.empty((q + p, q + p)), np.empty((q, p)), 0
    R[:q, :q] = dense.S
    for L, inverse in zip(blocks.roots, blocks.inverses, strict=True):
        J, K, _ = L.shape
        turn = np.linalg.solve(L, np.broadcast_to(inverse.T, L.shape))  # L^-1 Lambda'^-1
        rows = slice(start, start + J * K)
        E[rows] = (turn @ dense.x[rows].reshape(J, K, p)).reshape(J * K, p)
        R[rows, :q] = (turn @ R[rows, :q].reshape(J, K, q)).reshape(J * K, q)
        R[:q, rows] = (turn @ R[:q, rows].T.reshape(J, K, q)).reshape(J * K, q).T
        start += J * K
    R[:q, q:] = E - R[:q, :q] @ E  # the trailing means move with gamma by -L'^-1 E
    R[q:, :q] = R[:q, q:].T
    R[q:, q:] = dense.xx + E.T @ (R[:q, :q] @ E) - 2.0 * E.T @ E
    order = np.append(order, np.arange(q, q + p))
    G = cholesky(R[np.ix_(order, order)], lower=True)
    with np.errstate(over="ignore"):
        A: Single = solve_triangular(G, np.eye(q + p), lower=True).T.astype(np.float32)
    if not (np.isfinite(A).all() and np.diag(A).all()):
        raise np.linalg.LinAlgError("the units of the response are too large or too small")
    return A
