"""The structure of the random effects: which levels meet, and in which order to eliminate them.

H = I + Lambda' Z'WZ Lambda has a K x K block wherever two levels share a row. Terms are
eliminated one after the other. A *chain* of terms, each nested in all later ones of the chain,
goes first: a level of a chain term is coupled to no other level of its own term, so its block
stands alone, and eliminating it fills in nothing inside the chain. What is left, the *trailing*
terms, is one dense Schur complement of q columns. So one factor, nested factors, the same factor
twice and observation-level effects cost O(levels); two crossed factors cost what the smaller one
does (the scheme of MixedModels.jl, with nesting).

The selected inverse (Takahashi, Fagan & Chen 1973) gives the entries of H^-1 at the same pairs
of levels, which is all that gradients, leverages and conditional variances need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.intp]
Small = NDArray[np.int32]
Whole = NDArray[np.int64]
Places = NDArray[np.uint32]  # compiled code tests a signed index for being negative


_DENSE_SHARE = 0.2  # of the levels that could meet
_LARGEST_DENSE = 50_000_000  # numbers


class Grouped(Protocol):
    """A random-effects term as the linear algebra sees it."""

    @property
    def index(self) -> Integers: ...
    @property
    def Z(self) -> Array: ...
    @property
    def levels(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Structure:
    """Symbolic elimination of F terms over n rows. Terms are in order of elimination.

    Attributes
    ----------
    order
        Position of each term in the formula.
    n_chain
        Number of chain terms; they come first.
    terms
        (F, 5): levels J, columns K, first effect in u, first column in Z, first column in the
        dense Schur complement (-1 for a chain term).
    pairs
        (P, 7) for every pair of terms f <= g: f, g, row of ``slots``, number of entries, first
        value in a flat array of blocks, first entry in ``levels``, first pointer in ``starts``
        (-1 unless f is a chain term).
    pair_of
        (F, F) number of the pair (f, g).
    slots
        (R, n) for every row the entry of a pair, one line for each distinct pattern.
    levels
        (2, entries) level of f and of g of every entry, sorted by the first, then the second.
    starts
        For a chain term f and a later g: where the entries of each level of f start.
    up, up_of
        For a chain term f, a chain term g > f and any h >= g: from the entry of (f, h) to that
        of (g, h); ``up_of`` (F, F, F) says where in ``up`` it starts.
    """

    order: tuple[int, ...]
    n_chain: int
    terms: Whole
    pairs: Whole
    pair_of: Whole
    slots: Small
    levels: Small
    starts: Whole
    up: Small
    up_of: Whole
    cross: tuple[Whole, Places, Places, Whole, Places, Places]
    effects: int
    q: int
    values: int
    lambda_size: int
    crosses_densely: bool
    arrays: tuple[object, ...]

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.slots.shape[1])

    def split(self, flat: Array) -> list[Array]:
        """A flat (effects,) or (effects, m) array as (J_f, K_f[, m]), in the formula's order."""
        out: list[Array] = [flat] * len(self.order)
        for f, place in enumerate(self.order):
            J, K, first = (int(v) for v in self.terms[f, :3])
            out[place] = flat[first : first + J * K].reshape(J, K, *flat.shape[1:])
        return out

    def join(self, parts: list[Array]) -> Array:
        """The inverse of :meth:`split`."""
        ordered = [parts[place] for place in self.order]
        return np.concatenate([part.reshape(-1, *part.shape[2:]) for part in ordered])

    def pack(self, matrices: tuple[Array, ...]) -> Array:
        """K_f x K_f matrices, given in the formula's order, as one flat array."""
        return np.concatenate([np.zeros(0), *(matrices[place].ravel() for place in self.order)])

    def places(self, entries: Sequence[tuple[int, int, int]]) -> Whole:
        """Where the entries (term in the formula's order, row, column) are in :meth:`pack`."""
        sizes = {place: int(K) for place, K in zip(self.order, self.terms[:, 1], strict=True)}
        first, begins = 0, {}
        for place, K in sizes.items():
            begins[place] = first
            first += K * K
        return np.array([begins[f] + r * sizes[f] + c for f, r, c in entries], dtype=np.int64)

    def columns(self, entries: Sequence[tuple[int, int, int]]) -> Whole:
        """(entries, 3): term in order of elimination, row and column of each entry."""
        position = {place: f for f, place in enumerate(self.order)}
        named = [(position[f], r, c) for f, r, c in entries]
        return np.array(named, dtype=np.int64).reshape(-1, 3)

    def unpack(self, flat: Array) -> tuple[Array, ...]:
        """The inverse of :meth:`pack`."""
        out: list[Array] = [flat] * len(self.order)
        first = 0
        for f, place in enumerate(self.order):
            K = int(self.terms[f, 1])
            out[place] = flat[first : first + K * K].reshape(K, K)
            first += K * K
        return tuple(out)


def structure_of(terms: tuple[Grouped, ...]) -> Structure:
    """Find the chain, and the pairs of levels that meet in a row; there may be no terms."""
    J = [len(t.levels) for t in terms]
    K = [t.Z.shape[1] for t in terms]
    index = [np.ascontiguousarray(t.index, dtype=np.int32) for t in terms]
    meet = _Meetings(index, J)
    chain, trailing = _chain(meet, J, K)
    order = (*chain, *trailing)
    F, n_chain = len(order), len(chain)

    table = np.empty((F, 5), dtype=np.int64)
    effect = column = dense = 0
    for f, place in enumerate(order):
        table[f] = J[place], K[place], effect, column, dense if f >= n_chain else -1
        effect += J[place] * K[place]
        column += K[place]
        dense += J[place] * K[place] if f >= n_chain else 0

    slots: list[Small] = []
    line_of: dict[int, int] = {}
    pairs: list[tuple[int, ...]] = []
    levels, starts = [], []
    pair_of = np.full((F, F), -1, dtype=np.int64)
    slot_of: dict[tuple[int, int], Small] = {}
    value = entry = start = 0
    for f in range(F):
        for g in range(f, F):
            slot, first, second = meet.entries(order[f], order[g])
            if id(slot) not in line_of:
                line_of[id(slot)] = len(slots)
                slots.append(slot)
            slot_of[f, g] = slot
            pair_of[f, g] = pair_of[g, f] = len(pairs)
            chained = f < n_chain and g > f
            count = len(first)
            pairs.append(
                (
                    *(f, g, line_of[id(slot)], count, value, entry),
                    start if chained else -1,
                )
            )
            levels.append(np.stack([first, second]))
            value += count * K[order[f]] * K[order[g]]
            entry += count
            if chained:
                starts.append(np.searchsorted(first, np.arange(J[order[f]] + 1)))
                start += J[order[f]] + 1
    up: list[Small] = []
    up_of = np.full((F, F, F), -1, dtype=np.int64)
    length = 0
    for f in range(n_chain):
        for g in range(f + 1, n_chain):
            for h in range(g, F):
                move = np.empty(int(pairs[pair_of[f, h]][3]), dtype=np.int32)
                move[slot_of[f, h]] = slot_of[g, h]
                up.append(move)
                up_of[f, g, h] = length
                length += len(move)
    lines = np.stack(slots) if slots else np.zeros((0, 0), dtype=np.int32)
    arrays = (
        table,
        np.array(pairs, dtype=np.int64).reshape(-1, 7),
        pair_of,
        lines,
        np.concatenate([np.zeros((2, 0), dtype=np.int32), *levels], axis=1),
        np.concatenate([np.zeros(0, dtype=np.int64), *starts]),
        np.concatenate([np.zeros(0, dtype=np.int32), *up]),
        up_of,
        _crossing(table, pairs, levels, n_chain, effect - dense, dense),
    )
    across = [p for p in pairs if p[0] < n_chain <= p[1]]
    meet = sum(p[3] * K[order[p[0]]] * K[order[p[1]]] for p in across)
    cells = (effect - dense) * dense
    return Structure(
        order,
        n_chain,
        *arrays,
        effects=effect,
        q=dense,
        values=value,
        lambda_size=int((table[:, 1] ** 2).sum()),
        crosses_densely=cells <= _LARGEST_DENSE and meet > _DENSE_SHARE * cells,
        arrays=(*arrays, n_chain),
    )


def _crossing(
    terms: Whole,
    pairs: list[tuple[int, ...]],
    levels: list[Small],
    n_chain: int,
    rows: int,
    q: int,
) -> tuple[Whole, Places, Places, Whole, Places, Places]:
    """`Structure.cross`."""
    keys, places = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for (f, g, _, count, base, *_), (first, second) in zip(pairs, levels, strict=True):
        if f < n_chain <= g:
            K, L = int(terms[f, 1]), int(terms[g, 1])
            row = int(terms[f, 2]) + first[:, None].astype(np.int64) * K + np.arange(K)
            column = int(terms[g, 4]) + second[:, None].astype(np.int64) * L + np.arange(L)
            keys.append((row[:, :, None] * q + column[:, None, :]).ravel())
            places.append(base + np.arange(count * K * L))
    key, place = np.concatenate(keys), np.concatenate(places)
    if not np.all(key[1:] > key[:-1]):
        order = np.argsort(key)
        key, place = key[order], place[order]
    row, column = np.divmod(key, max(q, 1))
    turned = np.argsort(column, kind="stable")
    return (
        np.searchsorted(row, np.arange(rows + 1)),
        column.astype(np.uint32),
        place.astype(np.uint32),
        np.searchsorted(column[turned], np.arange(q + 1)),
        row[turned].astype(np.uint32),
        turned.astype(np.uint32),
    )


def _chain(meet: _Meetings, J: list[int], K: list[int]) -> tuple[list[int], list[int]]:
    """Terms to eliminate blockwise, innermost first, and the rest, of as few effects as can be."""
    by_levels = sorted(range(len(J)), key=lambda f: -J[f])
    best: tuple[list[int], list[int]] = ([], by_levels)
    fewest = np.inf
    for start in by_levels:
        chain = [start]
        for f in by_levels:
            if f != start and all(meet.is_nested(inner, f) for inner in chain):
                chain.append(f)
        rest = [f for f in range(len(J)) if f not in chain]
        columns = sum(J[f] * K[f] for f in rest)
        if columns < fewest:
            best, fewest = (chain, rest), columns
    return best


class _Meetings:
    """The distinct pairs of levels of two terms, found once for each pair of terms."""

    def __init__(self, index: list[Small], J: list[int]) -> None:
        self.index, self.J = index, J
        self._found: dict[tuple[int, int], tuple[Small, Small, Small]] = {}
        self._nested: dict[tuple[int, int], bool] = {}

    def is_nested(self, f: int, g: int) -> bool:
        """Whether every level of f meets one level of g only."""
        if (f, g) not in self._nested:
            parent = np.zeros(self.J[f], dtype=np.int32)
            parent[self.index[f]] = self.index[g]
            self._nested[f, g] = bool(np.array_equal(parent[self.index[f]], self.index[g]))
        return self._nested[f, g]

    def entries(self, f: int, g: int) -> tuple[Small, Small, Small]:
        """(n,) entry of every row, and the levels of f and g of every entry, sorted."""
        if f == g:
            each = np.arange(self.J[f], dtype=np.int32)
            return self.index[f], each, each
        if (f, g) not in self._found:
            self._found[f, g] = self._search(f, g)
        return self._found[f, g]

    def _search(self, f: int, g: int) -> tuple[Small, Small, Small]:
        if self.is_nested(f, g):
            parent = np.zeros(self.J[f], dtype=np.int32)
            parent[self.index[f]] = self.index[g]
            return self.index[f], np.arange(self.J[f], dtype=np.int32), parent
        code = self.index[f].astype(np.int64) * self.J[g] + self.index[g]
        cells = self.J[f] * self.J[g]
        if cells <= 4 * len(code):  # counting is faster than sorting
            present = np.zeros(cells, dtype=bool)
            present[code] = True
            unique = np.flatnonzero(present)
            rank = np.empty(cells, dtype=np.int32)
            rank[unique] = np.arange(len(unique), dtype=np.int32)
            slot = rank[code]
        else:
            unique, inverse = np.unique(code, return_inverse=True)
            slot = inverse.astype(np.int32)
        first, second = np.divmod(unique, self.J[g])
        return slot, first.astype(np.int32), second.astype(np.int32)
