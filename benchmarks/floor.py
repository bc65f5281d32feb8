"""How fast a fit could be here: the work it cannot avoid, at the measured speed of this machine.

One evaluation of the log-likelihood with its gradient needs the Cholesky factor and the inverse
of the dense Schur complement (q columns), the products that fill it, and passes over the rows.
Each is counted once at the best rate: a Laplace evaluation with one Newton step only, a pass that
reads every input once, no standardisation, no formula, no interpreter. The floor is that times
the evaluations which the search took: what a better search could save is not in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.linalg.blas import dgemm
from scipy.linalg.lapack import dpotrf, dpotri

import bayesglmm as bg
from bayesglmm.laplace.structure import structure_of
from bayesglmm.laplace.threads import blas_threads
from benchmarks.measure import Printed, number, seconds

_LEAST_SECONDS = 0.02  # of every measurement
_LARGEST_COPY = 2**27  # bytes; larger tables go at the same speed


@dataclass(frozen=True)
class Work:
    """What one evaluation needs.

    Attributes
    ----------
    q
        Columns of the dense Schur complement: q^3/3 flops for its factor, 2q^3/3 for its inverse.
    fill_flops, fill_bytes
        Products of the blocks beside the chain: for each of its levels, with m columns of the
        Schur complement beside K of its own, K m^2 to fill it and 2 K m^2 for the inverse at the
        same places. Half of S is read and written, half of its inverse read: 12 m^2 bytes.
    block_bytes
        The blocks of Z'WZ read, those of H written, and the right-hand sides read.
    row_bytes
        One pass over the rows: X, Z, the response, weights and places of the blocks.
    passes
        Over the rows in every evaluation: one for the weights, one for the gradient, one more for
        every quadrature node; none for a linear model, which needs one in all.
    rows
        Each costs an exponential in every pass.
    """

    q: int
    fill_flops: float
    fill_bytes: float
    block_bytes: float
    row_bytes: float
    passes: int
    rows: int

    def flops(self) -> float:
        """Of one evaluation, rows left aside."""
        return float(self.q) ** 3 + self.fill_flops


def count(model: bg.Model, nagq: int = 1) -> Work:
    """Count the work of one evaluation."""
    design = model.design
    s = structure_of(design.random)
    flops = moved = 0.0
    for f in range(s.n_chain):
        levels, K = int(s.terms[f, 0]), int(s.terms[f, 1])
        beside = np.zeros(levels)
        for g in range(f + 1, len(s.order)):
            first = int(s.pairs[s.pair_of[f, g], 6])
            beside += np.diff(s.starts[first : first + levels + 1]) * int(s.terms[g, 1])
        squares = float(beside @ beside)
        flops += 3.0 * K * squares
        moved += 12.0 * squares
    columns = design.p + sum(term.K for term in design.random)
    linear = model.likelihood.is_linear
    return Work(
        q=s.q,
        fill_flops=flops,
        fill_bytes=moved,
        block_bytes=8.0 * (2 * s.values + s.effects * (design.p + 1)),
        row_bytes=float(s.n) * (8 * (columns + 2) + s.slots.itemsize * len(s.slots)),
        passes=0 if linear else 2 + (nagq if nagq > 1 else 0),
        rows=s.n,
    )


def _best(call: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls."""
    best = seconds(call)
    spent = best
    while spent < _LEAST_SECONDS:
        last = seconds(call)
        best, spent = min(best, last), spent + last
    return min(best, seconds(call))


@cache
def dense_seconds(q: int) -> tuple[float, float]:
    """Seconds of dpotrf and of dpotri for q columns, as many threads as a fit would use."""
    if q == 0:
        return 0.0, 0.0
    A = np.asfortranarray(np.eye(q) + 0.5 / q)
    with blas_threads(q):
        factor = dpotrf(A)[0]
        return _best(lambda: dpotrf(A)), _best(lambda: dpotri(factor))


@cache
def gemm_speed(q: int) -> float:
    """Flops per second of dgemm for q columns."""
    A = np.asfortranarray(np.ones((q, q)))
    with blas_threads(q):
        return 2.0 * float(q) ** 3 / _best(lambda: dgemm(1.0, A, A))


@cache
def _bandwidth(size: int) -> float:
    threads = os.cpu_count() or 1
    source = np.ones(size // 8)
    parts = zip(
        np.array_split(source, threads), np.array_split(source.copy(), threads), strict=True
    )
    pieces = [(target, part) for part, target in parts]
    if size < 2**21:  # a second thread would cost more than it brings
        target, part = pieces[0]
        return 2.0 * part.nbytes / _best(lambda: np.copyto(target, part))
    with ThreadPoolExecutor(threads) as pool:
        return 2.0 * size / _best(lambda: list(pool.map(lambda pair: np.copyto(*pair), pieces)))


def bandwidth(size: float) -> float:
    """Bytes read and written per second by numpy, all cores, for arrays of about this size."""
    whole = 2 ** round(np.log2(max(size, 1.0)))
    return _bandwidth(int(min(max(whole, 2**16), _LARGEST_COPY)))


@cache
def _exponential() -> float:
    values, out = np.linspace(-2.0, 2.0, 10_000), np.empty(10_000)
    return _best(lambda: np.exp(values, out=out)) / len(values)


def floor(work: Work, evaluations: int) -> float:
    """Seconds in all."""
    filled = 0.0
    if work.q and work.fill_bytes:
        moved = work.fill_bytes / bandwidth(8.0 * work.q**2)
        filled = max(moved, work.fill_flops / gemm_speed(max(work.q, 512)))
    blocks = work.block_bytes / bandwidth(work.block_bytes)
    one_pass = work.row_bytes / bandwidth(work.row_bytes)
    rows = work.passes * (one_pass + work.rows * _exponential() / (os.cpu_count() or 1))
    once = one_pass if work.passes == 0 else 0.0
    return once + evaluations * (sum(dense_seconds(work.q)) + filled + blocks + rows)


@dataclass(frozen=True)
class Fitted:
    """A timed fit and its work."""

    name: str
    work: Work
    evaluations: int
    seconds: float


def show_floor(fits: Iterable[Fitted]) -> None:
    """Print the speeds of the machine and, for every fit, its floor and its distance from it."""
    print(
        f"\nThis machine: dgemm {gemm_speed(2048) / 1e9:.1f} Gflop/s at 2048 columns, memory "
        f"{bandwidth(_LARGEST_COPY) / 1e9:.1f} GB/s (copy, read and written), exp "
        f"{_exponential() * 1e9:.1f} ns, {os.cpu_count()} cores"
    )
    columns = ("model", "q", "dpotrf s", "dpotri s", "dgemm GF/s", "Mflop/eval", "fill MB/eval")
    more = ("block MB", "row MB", "evaluations", "floor s", "fit s", "fit/floor")
    printed = Printed("Floor: the work of the evaluations at these speeds", (*columns, *more), 19)
    for fit in fits:
        work = fit.work
        factor, inverse = dense_seconds(work.q)
        least = floor(work, fit.evaluations)
        printed.row(
            (
                *(fit.name, str(work.q)),
                *(number(t if work.q else None) for t in (factor, inverse)),
                number(gemm_speed(work.q) / 1e9 if work.q else None),
                *(number(work.flops() / 1e6), number(work.fill_bytes / 1e6)),
                number(work.block_bytes / 1e6),
                *(number(work.row_bytes / 1e6), str(fit.evaluations)),
                *(f"{least:.2g}", number(fit.seconds), number(fit.seconds / least)),
            )
        )
