"""Sums over rows that the density of an integrated model needs, and the kernels that read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bayesglmm.nuts import alone_kernels, marginal_kernels

if TYPE_CHECKING:
    from bayesglmm.laplace.pls import LinearProblem
    from bayesglmm.laplace.structure import Array, Structure, Whole
    from bayesglmm.nuts.scales import Scales

    Frame = tuple[Array, Array, Array]  # centre, root and elbows of `marginal.Integrated`


class Several(NamedTuple):
    """What `marginal_kernels` read: several terms, or none.

    Attributes
    ----------
    structure, scales
        Their arrays.
    sums
        Order, inverse lifts, whether terms cross densely, Z'WZ, Z'W[X r], [X r]'W[X r], the
        prior's quadratic form, and constants.
    """

    structure: tuple[Any, ...]
    scales: tuple[Any, ...]
    sums: tuple[Any, ...]

    def log_density(self, x: Array, frame: Frame, gradient: Array) -> float:
        """log p(y, t) as a density of x; fills ``gradient``."""
        return float(marginal_kernels.log_density(x, *self, *frame, gradient))

    def draw_effects(self, t: Array, lifts: Array, root_x: Array, ols: Array, draws: Array) -> None:
        """(b, beta) at every row of t (m, size), in place of the standard normals in ``draws``."""
        marginal_kernels.draw_effects(t, *self, lifts, root_x, ols, draws)

    def c_function(self, frame: Frame) -> tuple[int, list[Array], tuple[int, ...]]:
        """Address of the density in C, the arrays it reads, and the room it needs."""
        from bayesglmm.nuts.marginal_native import native, packed  # compiled at import

        assert native.address is not None
        return native.address, packed(*self, frame), ()


class Alone(NamedTuple):
    """What `alone_kernels` read: a single term.

    Attributes
    ----------
    terms, scales
        `Structure.terms`, (1, 5), and the arrays of the scales.
    sums
        Order, inverse lifts, [X r]'W[X r], the prior's quadratic form, constants, and the sums
        over `levels_alike`.
    zx, which
        (J K, p + 1) Z'W[X r], and (J,) the class of every level.
    """

    terms: Whole
    scales: tuple[Any, ...]
    sums: tuple[Any, ...]
    zx: Array
    which: Whole

    def room(self, size: int) -> tuple[int, int]:
        """Lengths of the working arrays of the density of ``size`` parameters."""
        classes, K, _ = self.sums[5].shape
        return 5 * size + (6 + 2 * classes) * K * K, self.sums[2].size

    def log_density(self, x: Array, frame: Frame, gradient: Array) -> float:
        """As `Several.log_density`."""
        room, fixed = (np.empty(length) for length in self.room(len(x)))
        fixed = fixed.reshape(self.sums[2].shape)
        return float(alone_kernels.log_density(x, *self[:3], *frame, room, fixed, gradient))

    def draw_effects(self, t: Array, lifts: Array, root_x: Array, ols: Array, draws: Array) -> None:
        """As `Several.draw_effects`."""
        alone_kernels.draw_effects(t, *self, lifts, root_x, ols, draws)

    def c_function(self, frame: Frame) -> tuple[int, list[Array], tuple[int, ...]]:
        """As `Several.c_function`."""
        from bayesglmm.nuts.alone_native import native  # compiled at import

        assert native.address is not None
        held = [self.terms, *self.scales, *self.sums, *frame]
        return native.address, [np.ascontiguousarray(a) for a in held], self.room(len(frame[0]))


def cross_products(
    structure: Structure,
    scales: Scales,
    problem: LinearProblem,
    lifts: Array,
    prior: Array,
    constant: float,
) -> Several | Alone:
    """Those of a Gaussian model.

    Parameters
    ----------
    lifts
        The T_f that carry effects of standardised columns to the model's, inverted, one after
        the other in order of elimination.
    prior
        (p + 1, p + 1) quadratic form of the coefficients' prior.
    constant
        Of log p(y, t).
    """
    order = np.array(structure.order, dtype=np.int64)
    constants = np.array([problem.n, constant, structure.q, problem.p + 1], dtype=np.float64)
    if len(order) == 1:
        blocks, counts, products, which = levels_alike(structure, problem)
        sums = (order, lifts, problem.xx, prior, constants, blocks, counts, products)
        return Alone(structure.terms, scales.arrays, sums, problem.zx, which)
    dense = np.array([structure.crosses_densely], dtype=np.int64)
    return Several(
        structure.arrays,
        scales.arrays,
        (order, lifts, dense, problem.W, problem.zx, problem.xx, prior, constants),
    )


def levels_alike(structure: Structure, problem: LinearProblem) -> tuple[Array, Array, Array, Whole]:
    """Levels of a single term with the same Z'WZ, put together.

    All levels of a balanced design are alike; of random intercepts without weights, those with
    the same number of rows.

    Of the sums s = Z'W[X r] of such levels the density needs the sums of products only.

    Returns
    -------
    (classes, K, K) blocks, (classes,) numbers of levels, (classes, K (K + 1) / 2, (p + 1)^2) sums
    over levels of the products of s_k and s_l, l <= k, for l < k both ways together, (J,) class
    of every level
    """
    J, K = (int(v) for v in structure.terms[0, :2])
    blocks, sums = problem.W.reshape(J, K * K), problem.zx.reshape(J, K, -1)
    rounded = np.round(blocks / max(float(np.max(np.abs(blocks))), 1e-300), 13)
    _, first, which, counts = np.unique(
        rounded, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    members = np.split(sums[np.argsort(which, kind="stable")], np.cumsum(counts)[:-1])
    products = np.stack([np.einsum("jkx,jly->klxy", m, m) for m in members])
    products = products + products.transpose(0, 2, 1, 3, 4)
    products[:, np.arange(K), np.arange(K)] *= 0.5
    k, l = np.tril_indices(K)
    return (
        np.ascontiguousarray(blocks[first].reshape(-1, K, K)),
        counts.astype(np.float64),
        np.ascontiguousarray(products[:, k, l].reshape(len(members), len(k), -1)),
        which.ravel().astype(np.int64),
    )
