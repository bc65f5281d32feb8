"""Run chains on a target: side by side, in blocks, until there are enough draws.

Draws are expanded to named variables as they come, with noise that depends on their numbers
alone; and whether there is enough is judged after fixed numbers of draws: neither the number of
cores nor the speed of a chain changes what comes out.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bayesglmm.laplace.threads import blas_threads
from bayesglmm.nuts.chain import Chain, draw_start
from bayesglmm.nuts.noise import BLOCK, seed_of, standard_normals
from bayesglmm.nuts.options import NUTS
from bayesglmm.nuts.progress import Progress, Standing, open_progress
from bayesglmm.nuts.target import Array, Target

_MOST = 10 * BLOCK  # rows that are expanded at once
_FEWEST = 4  # draws per chain that diagnostics need
AGREED = 1.01  # R-hat up to which chains agree (Vehtari et al. 2021)
_WRITE_EVERY = 1.0  # seconds: a write costs some hundredths of one
_TURN = 0.2  # seconds that a chain runs before it makes room for one that is behind
_LOOK = 0.1  # seconds between looks at the draws of a chain that runs: they cost its time
# A resumed chain stands where the posterior is: it has only to learn its step size and scales.
_TUNE_AGAIN = 200


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive draws of one chain.

    Attributes
    ----------
    start
        Row of the first.
    values
        Named variables, each (rows, ...).
    statistics
        Sampler statistics, each (rows,).
    last
        (size,) position of the last draw: where the chain goes on from.
    """

    start: int
    values: dict[str, Array]
    statistics: dict[str, NDArray[Any]]
    last: Array

    @property
    def stop(self) -> int:
        """Row after the last."""
        return self.start + len(self.statistics["energy"])


class Keeper(Protocol):
    """Something that blocks are written to and read from."""

    def blocks(self, chain: int) -> list[Block]:
        """Blocks of a chain so far, in order and without gaps."""
        ...

    def write(self, chain: int, block: Block) -> None:
        """Keep one more, at once or not at all."""
        ...


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a run brought.

    Attributes
    ----------
    values
        Named variables, each (chains, draws, ...).
    statistics
        Sampler statistics, each (chains, draws).
    interrupted
        Whether it was ended by hand.
    enough
        Whether `min_ess` was reached; True where none was asked for.
    """

    values: dict[str, Array]
    statistics: dict[str, NDArray[Any]]
    interrupted: bool
    enough: bool

    @property
    def draws(self) -> int:
        """Draws per chain."""
        return int(next(iter(self.statistics.values())).shape[1])


def run(target: Target, options: NUTS, seed: int, keeper: Keeper | None = None) -> Drawn:
    """Sample a target.

    Parameters
    ----------
    options
        With ``tune``, ``target_accept`` and ``adaptation`` decided.
    seed
        Of everything random; together with the options it determines the draws.
    keeper
        What was drawn before, and where draws are written to.

    Raises
    ------
    FitError
        If a chain cannot start or breaks off.
    KeyboardInterrupt
        If interrupted before every chain has a few draws.
    """
    # What it calls is loaded now: no interrupt can come between draws and their expansion.
    target.expand(np.zeros((1, target.size)), standard_normals(seed, 0, 0, 1, target.noise))
    team = _Team(target, options, seed, keeper)
    judge = _Judge(options)
    interrupted = False
    with ExitStack() as stack:
        stack.enter_context(blas_threads(0))  # the chains themselves run side by side
        stack.callback(team.write, at_once=True)
        stack.callback(team.stop)
        progress = stack.enter_context(open_progress(options.progress))
        try:
            _sample(team, judge, progress)
        except KeyboardInterrupt:
            interrupted = True
        if interrupted:
            team.collect(options.draws, partial=True)
    rows = min(team.rows, options.draws) if judge.cut is None else judge.cut
    if interrupted and rows < _FEWEST:
        raise KeyboardInterrupt(
            f"interrupted during the warm-up, when not every chain had {_FEWEST} draws: there is "
            "nothing to keep. Fit again"
            + (" with the same store= to go on." if keeper is not None else ".")
        )
    return _assemble(team.blocks, rows, interrupted, judge.enough)


def finished(options: NUTS, keeper: Keeper) -> Drawn | None:
    """What the options ask for, if all of it is there; None if there is something to sample."""
    blocks = [keeper.blocks(c) for c in range(options.chains)]
    rows = min(_rows(of_chain) for of_chain in blocks)
    judge = _Judge(options)
    if not judge.satisfied(blocks, rows) and rows < options.draws:
        return None
    return _assemble(blocks, judge.cut or options.draws, False, judge.enough)


def _sample(team: _Team, judge: _Judge, progress: Progress) -> None:
    """Go on until the chains have what they need."""
    started = time.perf_counter()
    if judge.satisfied(team.blocks, team.rows):
        return
    while True:
        team.advance(judge.next)
        team.collect(judge.next)
        team.write()
        if judge.satisfied(team.blocks, team.rows) or team.complete:
            return
        progress.show(lambda: team.standings(), lambda: _worst(team.blocks, team.rows)[0])
        # Short runs are not kept waiting, long ones not disturbed.
        time.sleep(min(0.02, 0.0005 + 0.01 * (time.perf_counter() - started)))


class _Team:
    """The chains of a run and their blocks."""

    def __init__(self, target: Target, options: NUTS, seed: int, keeper: Keeper | None) -> None:
        self._target, self._options, self._seed, self._keeper = target, options, seed, keeper
        number = options.chains
        self.blocks = [keeper.blocks(c) if keeper else [] for c in range(number)]
        self._begin = [_rows(blocks) for blocks in self.blocks]
        self._kept = [len(blocks) for blocks in self.blocks]
        self._wrote = time.perf_counter()
        self._chains: list[Chain | None] = [None] * number
        self._cores = cores_of(options)
        self._queued = False  # whether a chain waits for a core
        self._turned = 0.0  # when other chains began to run
        self._looked = time.perf_counter()

    @property
    def rows(self) -> int:
        """Rows that every chain has."""
        return min(_rows(blocks) for blocks in self.blocks)

    @property
    def complete(self) -> bool:
        """Whether there are all draws of all chains."""
        return self.rows >= self._options.draws

    def advance(self, limit: int) -> None:
        """Let the chains run that are behind and below the limit."""
        left = [c for c in range(len(self._chains)) if not self._finished(c)]
        waiting = [c for c in left if self._drawn(c) < limit]
        running = {c for c in waiting if self._runs(c)}
        # To stop a chain and start it again takes milliseconds.
        stay = running if time.perf_counter() - self._turned < _TURN else set()
        waiting.sort(key=lambda c: (c not in stay, self._done(c), c))
        now, later = waiting[: self._cores], waiting[self._cores :]
        self._queued = bool(later)
        if running != set(now):
            self._turned = time.perf_counter()
        for c in left:
            chain = self._chains[c]
            if chain is not None and c not in now:
                chain.pause()
        for c in now:
            chain = self._chains[c]
            if chain is None:
                self._chains[c] = self._start(c)
            else:
                chain.resume()

    def _runs(self, c: int) -> bool:
        chain = self._chains[c]
        return chain is not None and not chain.paused

    def _finished(self, c: int) -> bool:
        chain = self._chains[c]
        return self._begin[c] >= self._options.draws if chain is None else chain.finished

    def _done(self, c: int) -> int:
        chain = self._chains[c]
        return self._begin[c] + (0 if chain is None else chain.iterations)

    def _drawn(self, c: int) -> int:
        chain = self._chains[c]
        return self._begin[c] + (0 if chain is None else chain.drawn)

    def _start(self, c: int) -> Chain:
        target, options, begin = self._target, self._options, self._begin[c]
        assert options.tune is not None and options.target_accept is not None
        tune = options.tune if begin == 0 else min(options.tune, _TUNE_AGAIN)
        seed = seed_of(self._seed, c, begin, 0)
        return Chain(
            target,
            draw_start(target, seed) if begin == 0 else self.blocks[c][-1].last,
            draws=options.draws - begin,
            tune=tune,
            seed=seed,
            target_accept=options.target_accept,
            adaptation=options.adaptation,
            watch=options.progress,
        )

    def collect(self, limit: int, partial: bool = False) -> None:
        """Take the blocks below the limit that are complete, or whatever there is.

        Only every now and then while a chain waits for a core, and of chains that still run.
        """
        look = partial or time.perf_counter() - self._looked > _LOOK
        if look:
            self._looked = time.perf_counter()
        for c, chain in enumerate(self._chains):
            if chain is None:
                continue
            have = self._drawn(c)
            if not look and (self._queued or have < min(limit, self._options.draws)):
                continue
            over = partial or have == self._options.draws
            end = min(have if over else have // BLOCK * BLOCK, limit)
            while (first := _rows(self.blocks[c])) < end:
                last = min((first // BLOCK) * BLOCK + _MOST, end)
                self.blocks[c].append(self._block(c, chain, first, last))

    def _block(self, c: int, chain: Chain, first: int, last: int) -> Block:
        begin = self._begin[c]
        x = chain.positions(first - begin, last - begin)
        noise = standard_normals(self._seed, c, first, last, self._target.noise)
        values = self._target.expand(x, noise)
        statistics = chain.statistics(first - begin, last - begin)
        rows = len(statistics["energy"])  # the last may not have come yet
        if rows < len(x):
            values = {name: array[:rows] for name, array in values.items()}
        return Block(first, values, statistics, x[rows - 1].copy())

    def write(self, at_once: bool = False) -> None:
        """Hand new blocks to the keeper, now or if the last time is long enough ago."""
        if self._keeper is None or (
            not at_once and time.perf_counter() - self._wrote < _WRITE_EVERY
        ):
            return
        for c, blocks in enumerate(self.blocks):
            if new := blocks[self._kept[c] :]:
                self._keeper.write(c, _merged(new))
                self._kept[c] = len(blocks)
        self._wrote = time.perf_counter()

    def standings(self) -> list[Standing]:
        """How far each chain is."""
        out = []
        for c, chain in enumerate(self._chains):
            begin = self._begin[c]
            total = self._options.draws
            if chain is None:
                share = begin / total
                out.append(Standing(begin, total, share, begin < total, 0, math.nan))
            else:
                share = (begin + chain.iterations) / (total + chain.tune)
                warm = chain.iterations < chain.tune
                drawn = begin + chain.drawn
                out.append(Standing(drawn, total, share, warm, chain.divergences, chain.step_size))
        return out

    def stop(self) -> None:
        """End all chains."""
        for chain in self._chains:
            if chain is not None:
                chain.stop()


class _Judge:
    """Whether effective sample sizes suffice, asked at numbers of draws fixed in advance.

    Each checkpoint, ``next``, follows from the draws up to the one before it and from nothing
    else. No chain runs further than that until it has been judged.
    """

    def __init__(self, options: NUTS) -> None:
        self._need, self._most = options.min_ess, options.draws
        self.cut: int | None = None
        self.enough = options.min_ess is None
        self.next = options.draws
        if options.min_ess is not None:  # two effective draws per draw are rarely exceeded
            self.next = self._rounded(options.min_ess / (2.0 * options.chains))

    def _rounded(self, rows: float) -> int:
        return min(max(math.ceil(rows / BLOCK), 1) * BLOCK, self._most)

    def satisfied(self, blocks: Sequence[list[Block]], rows: int) -> bool:
        """Judge every checkpoint that the chains have passed."""
        while self._need is not None and not self.enough and rows >= self.next:
            at = self.next
            found, apart = _worst(blocks, at)
            self.enough = found >= self._need and not apart > AGREED
            if self.enough or at == self._most:
                self.cut = at
                return True
            # What ESS per draw so far promises and a little more, but at most twice as much.
            wanted = 1.1 * at * max(self._need / max(found, 1.0), 1.0)
            self.next = self._rounded(min(wanted, 2.0 * at))
        return self.cut is not None


def _worst(blocks: Sequence[list[Block]], rows: int) -> tuple[float, float]:
    """Smallest bulk or tail ESS and largest R-hat in the first rows; constants do not count."""
    from bayesglmm.posterior.convergence import ess_and_rhat

    smallest, largest = math.inf, 1.0
    if rows < _FEWEST:
        return 0.0, math.inf
    for name in blocks[0][0].values:
        values = _stacked(blocks, rows, lambda b, name=name: b.values[name])
        flat = values.reshape(*values.shape[:2], -1)
        flat = flat[..., np.any(flat != flat[:1, :1], axis=(0, 1))]
        found = ess_and_rhat(flat)
        for key in ("ess_bulk", "ess_tail"):
            smallest = min(smallest, float(np.nanmin(found[key], initial=math.inf)))
        largest = max(largest, float(np.nanmax(found["r_hat"], initial=1.0)))
    return smallest, largest


def _assemble(blocks: Sequence[list[Block]], rows: int, interrupted: bool, enough: bool) -> Drawn:
    first = blocks[0][0]
    return Drawn(
        {n: _stacked(blocks, rows, lambda b, n=n: b.values[n]) for n in first.values},
        {n: _stacked(blocks, rows, lambda b, n=n: b.statistics[n]) for n in first.statistics},
        interrupted,
        enough,
    )


def _merged(blocks: list[Block]) -> Block:
    """Consecutive blocks as one."""
    first = blocks[0]
    return Block(
        first.start,
        {n: np.concatenate([b.values[n] for b in blocks]) for n in first.values},
        {n: np.concatenate([b.statistics[n] for b in blocks]) for n in first.statistics},
        blocks[-1].last,
    )


def _stacked(blocks: Sequence[list[Block]], rows: int, part: Any) -> NDArray[Any]:
    return np.stack([np.concatenate([part(b) for b in chain])[:rows] for chain in blocks])


def cores_of(options: NUTS) -> int:
    """Chains that run at the same time."""
    return options.cores or min(options.chains, os.cpu_count() or 1)


def _rows(blocks: list[Block]) -> int:
    return blocks[-1].stop if blocks else 0
