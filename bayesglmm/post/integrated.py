"""The likelihood of groups of rows for every posterior draw, their random effects integrated.

For a group of rows g and a draw of the parameters, log p(y_g | theta, beta, other effects): the
effects that belong to no other group are integrated over N(0, Sigma). Leaving out g is then a
question of importance weights that hardly vary, where the plain weights, given the group's own
effects, fail (Merkle, Furr & Rabe-Hesketh 2019, doi:10.1007/s11336-019-09679-0).

One term is integrated by an adaptive Gauss-Hermite rule around each level's own mode, terms
nested in one another by such rules inside one another. A linear model needs one node, which is
exact.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from bayesglmm.design import Design
from bayesglmm.errors import ChoiceError, FitError
from bayesglmm.families.compiled import Density
from bayesglmm.laplace import chain, kernels
from bayesglmm.laplace.covariance import Covariance
from bayesglmm.laplace.factor import diagonal_blocks
from bayesglmm.laplace.pirls import Modes, Problem, conditional_modes
from bayesglmm.laplace.quadrature import nodes_and_log_weights
from bayesglmm.laplace.standardise import Coordinates
from bayesglmm.laplace.structure import structure_of
from bayesglmm.laplace.threads import blas_threads
from bayesglmm.post.parameters import covariance_factor
from bayesglmm.post.pointwise import Chains, linear_predictor, row_constants
from bayesglmm.post.scalar_integrals import scalar_levels

if TYPE_CHECKING:
    from bayesglmm.model import Model

Array = NDArray[np.float64]
Index = NDArray[np.intp]
_BLOCK = 1 << 20  # linear predictors at a time
LARGEST_RULE = 3  # columns of a term with a product rule; more take its one-node rule, Laplace's
_NODES = {1: 11, 2: 7, 3: 5}
_OUTER_NODES = {1: 7, 2: 5, 3: 3}  # of a block around others: its integrands are near normal


@dataclass(frozen=True, slots=True)
class Block:
    """Random-effects terms over the same levels, taken together.

    Attributes
    ----------
    terms
        Their positions in the formula.
    index, Z
        (n,) level of each row and (n, K) covariates, side by side.
    levels
        (J,) names.
    parent
        (J,) level of the next outer block, or the group, that each level lies in.
    """

    terms: tuple[int, ...]
    index: Index
    Z: Array
    levels: tuple[str, ...]
    parent: Index

    @property
    def K(self) -> int:
        """Number of effects per level."""
        return int(self.Z.shape[1])


def nested_terms(design: Design, index: Index) -> tuple[int, ...]:
    """Positions of the terms no level of which has rows in two of the groups."""
    return tuple(f for f, t in enumerate(design.random) if _parent(t.index, t.J, index) is not None)


def _parent(index: Index, J: int, outer: Index) -> Index | None:
    parent = np.zeros(J, dtype=np.intp)
    parent[index] = outer
    return parent if np.array_equal(parent[index], outer) else None


def nest(design: Design, chosen: tuple[int, ...], index: Index) -> tuple[Block, ...]:
    """The chosen terms as blocks, outermost first, each nested in the one before.

    Raises
    ------
    ChoiceError
        If two of them cross each other inside the groups.
    """
    found: list[tuple[tuple[int, ...], Index, Array, tuple[str, ...]]] = []
    for f in sorted(chosen, key=lambda f: design.random[f].J):
        term = design.random[f]
        if found and len(found[-1][3]) == term.J:
            same = _parent(term.index, term.J, found[-1][1]) is not None
            if same:
                terms, place, Z, levels = found[-1]
                found[-1] = ((*terms, f), place, np.concatenate([Z, term.Z], axis=1), levels)
                continue
        found.append(((f,), term.index, term.Z, term.levels))
    blocks, outer = [], index
    for terms, place, Z, levels in found:
        parent = _parent(place, len(levels), outer)
        if parent is None:
            names = [design.random[f].name for f in chosen]
            raise ChoiceError(
                f"the random effects of {', '.join(map(repr, names))} lie inside the groups that "
                "are left out, but are not nested in one another: their integral has no product "
                "form. Leave out the levels of one of them instead"
            )
        blocks.append(Block(terms, place, np.ascontiguousarray(Z), levels, parent))
        outer = place
    return tuple(blocks)


@dataclass(frozen=True, slots=True)
class _SortedRows:
    """The data by level of a block of one column, for the compiled integrals."""

    code: int
    y: Array
    w: Array
    z: Array
    order: Index
    starts: Index


def _sorted_rows(density: Density, block: Block) -> _SortedRows | None:
    """None where the compiled integrals do not apply."""
    likelihood = density.likelihood
    if density.compiled is None or block.K > 1 or likelihood.is_linear:
        return None
    code, y, w = density.compiled
    order = np.argsort(block.index, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(block.index, minlength=len(block.levels)))])
    return _SortedRows(code, y[order], w[order], block.Z[order, 0], order, starts)


@dataclass(frozen=True, slots=True)
class _Integrals:
    """What the integrals share for all draws; ``problems[d]`` has the blocks from d inwards.

    ``sorted_rows`` is there where the innermost block has compiled integrals.
    """

    blocks: tuple[Block, ...]
    problems: tuple[Problem, ...]
    rules: tuple[tuple[Array, Array], ...]
    constants: Array
    n_groups: int
    sorted_rows: _SortedRows | None

    def __call__(self, fixed: Array, lambdas: tuple[Array, ...], sigma: float, b: Array) -> Array:
        """(groups,) log-likelihoods for one draw; ``b`` is a start for all effects."""
        values = self._levels(0, fixed, lambdas, sigma, b)
        return np.bincount(self.blocks[0].parent, values, self.n_groups)

    def _levels(
        self, d: int, fixed: Array, lambdas: tuple[Array, ...], sigma: float, b: Array
    ) -> Array:
        """(J,) log-integrals of the levels of block d, given what lies outside it."""
        if self.sorted_rows is not None and d + 1 == len(self.blocks):
            return self._scalar(fixed, lambdas[0][0, 0], sigma, b)
        problem, block = replace(self.problems[d], offset=fixed), self.blocks[d]
        structure, likelihood = problem.columns.structure, problem.density.likelihood
        lam = structure.pack(lambdas)
        modes = conditional_modes(problem, np.zeros(0), lam, b, sigma)
        L = [np.tril(part) for part in diagonal_blocks(structure, modes.factor.H)]
        J = len(block.levels)
        constants = self._constants(sigma)
        if likelihood.is_linear:
            return self._gaussian(d, modes, L, constants)
        x, log_weight = self.rules[d]
        points = structure.split(modes.u[:, 0])[0][:, None, :] + np.einsum(
            "jba,qb->jqa", np.linalg.inv(L[0]), x
        )
        log_terms = np.empty((J, len(x)))
        if d + 1 == len(self.blocks):
            self._node_rows(problem, lam, sigma, points, log_terms)
            log_terms += np.bincount(block.index, constants, J)[:, None]
        else:
            start = self.problems[d + 1].columns.structure.join(structure.split(modes.b)[1:])
            inner = self.blocks[d + 1]
            for q in range(len(x)):
                shift = np.einsum("nk,nk->n", block.Z, (points[:, q] @ lambdas[0].T)[block.index])
                values = self._levels(d + 1, fixed + shift, lambdas[1:], sigma, start)
                log_terms[:, q] = np.bincount(inner.parent, values, J)
        log_terms += log_weight - 0.5 * np.einsum("jqa,jqa->jq", points, points)
        peak = log_terms.max(axis=1)
        total = peak + np.log(np.exp(log_terms - peak[:, None]).sum(axis=1))
        return np.asarray(total - _log_diagonal(L[0]))

    def _constants(self, sigma: float) -> Array:
        """(n,) what the compiled density leaves out."""
        density = self.problems[0].density
        scaled = density.compiled is not None and density.likelihood.family.has_scale
        return self.constants - math.log(sigma) if scaled else self.constants

    def _scalar(self, fixed: Array, sd: float, sigma: float, b: Array) -> Array:
        """The integrals of the innermost block where it is one effect per level, compiled."""
        block, rows = self.blocks[-1], self.sorted_rows
        assert rows is not None
        values = np.empty(len(block.levels))
        x, log_weight = self.rules[-1]
        fine = scalar_levels(
            *(rows.code, rows.y, rows.w, rows.z, fixed[rows.order], rows.starts),
            *(sd, sigma, x[:, 0].copy(), log_weight.copy(), b[:, 0] / max(sd, 1e-300), values),
        )
        if not fine:
            raise np.linalg.LinAlgError("the information at a mode is not positive")
        return values + np.bincount(block.index, self._constants(sigma), len(values))

    def _gaussian(self, d: int, modes: Modes, L: list[Array], constants: Array) -> Array:
        """The integrals of a linear model, which Laplace's formula gives exactly."""
        block = self.blocks[d]
        values = np.bincount(block.index, modes.l[0] + constants, len(block.levels))
        parts = self.problems[d].columns.structure.split(modes.u[:, 0])
        to_outer = np.arange(len(block.levels))
        for depth, (u, factor) in enumerate(zip(parts, L, strict=True)):
            if depth:
                to_outer = to_outer[self.blocks[d + depth].parent]
            spent = 0.5 * np.einsum("jk,jk->j", u, u) + _log_diagonal(factor)
            values -= np.bincount(to_outer, spent, len(block.levels))
        return values

    def _node_rows(
        self, problem: Problem, lam: Array, sigma: float, points: Array, log_terms: Array
    ) -> None:
        """Fill (J, N) log-densities summed over the rows of each level, at (J, N, K) nodes."""
        columns, density, n = problem.columns, problem.density, len(problem.offset)
        s, Z = columns.structure.arrays, columns.Z
        offset = np.array(problem.offset)  # may be read-only: another type
        points = np.ascontiguousarray(points)
        J, N, K = points.shape
        if density.compiled is not None:
            slopes = np.empty((n, N))
            model = density.compiled
            chain.node_rows(s, lam, Z, offset, model, sigma, points, log_terms, slopes)
            return
        b, eta, out = np.empty((J * K, 1)), np.empty(n), np.empty((4, n))
        for q in range(N):
            kernels.predict(s, lam, Z, offset, points[:, q].reshape(-1, 1), b, eta)
            density(eta, sigma, out)
            log_terms[:, q] = np.bincount(self.blocks[-1].index, out[0], J)


def _log_diagonal(L: Array) -> Array:
    return np.asarray(np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1))


def _problem(density: Density, blocks: tuple[Block, ...]) -> Problem:
    n = len(blocks[0].index)
    structure = structure_of(blocks)
    Z = np.concatenate([blocks[f].Z for f in structure.order], axis=1)
    columns = Coordinates(np.zeros((n, 0)), np.zeros((0, 0)), structure, Z, ())
    return Problem(columns, np.zeros(n), density, Covariance((), ()))


def nodes_of(blocks: tuple[Block, ...], linear: bool, nodes: int | None) -> tuple[int, ...]:
    """How many nodes an effect of each block gets."""
    out = []
    for block in blocks:
        default = _NODES if block is blocks[-1] else _OUTER_NODES
        whole = linear or block.K > LARGEST_RULE
        out.append(1 if whole else nodes or default[block.K])
    return tuple(out)


def group_likelihood(
    model: Model,
    chains: Chains,
    index: Index,
    n_groups: int,
    blocks: tuple[Block, ...],
    nodes: int | None = None,
) -> Array:
    """(S, groups) log p(y_g | theta, beta, effects that are not in ``blocks``).

    Parameters
    ----------
    index
        (n,) the group of each row.
    blocks
        From :func:`nest`; at least one.
    nodes
        Of the Gauss-Hermite rule, per effect; None chooses by the number of effects of a level.

    Raises
    ------
    FitError
        If the mode of some integrand cannot be found.
    """
    density = Density(model.likelihood)
    problems = tuple(_problem(density, blocks[d:]) for d in range(len(blocks)))
    linear = model.likelihood.is_linear
    rules = tuple(
        nodes_and_log_weights(k, block.K)
        for k, block in zip(nodes_of(blocks, linear, nodes), blocks, strict=True)
    )
    integrals = _Integrals(
        *(blocks, problems, rules, row_constants(density), n_groups),
        _sorted_rows(density, blocks[-1]),
    )
    lambdas = [_lambdas(chains, block.terms) for block in blocks]
    means = [
        np.concatenate([chains.effects[f].mean(axis=0) for f in block.terms], axis=1)
        for block in blocks
    ]
    start = problems[0].columns.structure.join([m.reshape(-1, 1) for m in means]).reshape(-1, 1)
    inside = {f for block in blocks for f in block.terms}
    out = np.empty((chains.size, n_groups))

    def work(draws: slice) -> None:
        fixed = linear_predictor(model, chains, draws, slice(None), inside)
        for row, s in enumerate(range(draws.start, draws.stop)):
            factors = tuple(part[s] for part in lambdas)
            out[s] = integrals(fixed[row], factors, float(chains.sigma[s]), start)

    size = max(1, min(_BLOCK // model.design.n, 64))
    parts = [slice(k, min(k + size, chains.size)) for k in range(0, chains.size, size)]
    try:
        with blas_threads(0), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for _ in pool.map(work, parts):
                pass
    except np.linalg.LinAlgError as problem:
        raise FitError(
            f"the random effects of a group cannot be integrated: {problem}. The likelihood of a "
            f"draw is not concave (family={model.family.name!r}, link={model.link.name!r})"
        ) from None
    return out


def _lambdas(chains: Chains, terms: tuple[int, ...]) -> Array:
    """(S, K, K) lower-triangular factors of the covariance of the terms' effects together."""
    if len(terms) == 1 and chains.sds[terms[0]].shape[1] == 1:
        return chains.sds[terms[0]][:, :, None]
    return np.array(
        [
            block_diag(*(covariance_factor(chains.sds[f][s], chains.corrs[f][s]) for f in terms))
            for s in range(chains.size)
        ]
    )
