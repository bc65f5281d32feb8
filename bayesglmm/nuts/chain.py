"""One chain, sampled by nutpie in a thread of its own.

Everything that needs nutpie's compiled module is here. Chains are nutpie samplers of one chain
each, so that each has its own seed, start and length, and can be paused.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from importlib.machinery import PathFinder
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesglmm.errors import FitError
from bayesglmm.nuts.target import Array, Shape, Target

# nutpie's statistics under ArviZ's names
STATISTICS = {
    "diverging": "diverging",
    "energy": "energy",
    "depth": "tree_depth",
    "n_steps": "n_steps",
    "mean_tree_accept": "acceptance_rate",
    "step_size": "step_size",
    "maxdepth_reached": "reached_max_treedepth",
}

# nutpie's settings for what trajectories meet. Steps that are exact for a standard normal can be
# twice as long where there are many coordinates, but at most a fifth of a turn: longer ones come
# back to where they were. In the tails of other densities they are too long.
_TRAJECTORIES: dict[Shape, dict[str, Any]] = {
    "": {},
    "normal": {"exact_normal_trajectory": True, "max_step_size": 1.2},
    "ridge": {"extra_doublings": 1},  # they end far out on it
}
_ATTEMPTS = 100  # at a start where the density is finite


def load_nutpie() -> Any:
    """nutpie's compiled module, alone.

    ``import nutpie`` takes seconds, for the ArviZ, pandas and matplotlib that its own ``sample``
    returns; none of it is used here. A later ``import nutpie`` finds the module already there.
    """
    name = "nutpie._lib"
    if name not in sys.modules:
        package = importlib.util.find_spec("nutpie")
        assert package is not None
        spec = PathFinder.find_spec(name, package.submodule_search_locations)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def draw_start(target: Target, seed: int) -> Array:
    """A point where the density is finite: drawn as if the target were standard normal.

    The starts are then as far apart as the posterior is wide, which R-hat relies on.

    Raises
    ------
    FitError
        If a hundred points have no finite density.
    """
    rng = np.random.default_rng(seed)
    gradient = np.empty(target.size)
    for attempt in range(_ATTEMPTS):
        if target.start is not None:
            x = np.ascontiguousarray(target.start(int(rng.integers(2**31))), dtype=np.float64)
        else:  # nearer and nearer to the centre
            x = rng.normal(size=target.size) * 0.95**attempt
        value = target.log_density(x, gradient)
        if np.isfinite(value) and np.all(np.isfinite(gradient)):
            return x
    raise FitError(
        "sampling cannot start: the posterior density is not finite at any of "
        f"{_ATTEMPTS} starting points. Check the scale of the response and the covariates, and "
        "set tighter priors"
        + ("; or leave out coordinates=" if target.kind.startswith("plain") else "")
        + "."
    )


class Chain:
    """A running chain.

    Parameters
    ----------
    start
        (size,) first point.
    draws, tune
        Kept draws, and warm-up iterations before them.
    adaptation
        "diag" or "low_rank".
    watch
        Whether :attr:`divergences` and :attr:`step_size` are followed.
    """

    def __init__(
        self,
        target: Target,
        start: Array,
        *,
        draws: int,
        tune: int,
        seed: int,
        target_accept: float,
        adaptation: str,
        watch: bool,
    ) -> None:
        lib = load_nutpie()
        self.draws, self.tune = draws, tune
        self.divergences, self.step_size = 0, float("nan")
        self.paused = False
        self._error: Exception | None = None
        self._statistics: dict[str, NDArray[Any]] = {}  # as they were asked for last
        self._seen = -1  # iterations when the chain was asked last whether it is over
        # Zero pages: memory is used as the draws come.
        self._positions = np.zeros((draws, target.size))
        self._state = np.array([0, tune], dtype=np.int64)
        settings = (
            lib.PyNutsSettings.LowRank(seed)
            if adaptation == "low_rank"
            else lib.PyNutsSettings.Diag(seed)
        )
        settings.update(
            {
                "num_tune": tune,
                "num_draws": draws,
                "num_chains": 1,
                "target_accept": target_accept,
                **_TRAJECTORIES[target.shape],
            }
        )
        none = lib.PyVariable.new_variables([], [], [], {}, {})
        make, model = (
            (lib.PySampler.from_pymc, self._native(lib, target, start, none))
            if target.address
            else (lib.PySampler.from_pyfunc, self._python(lib, target, start, none))
        )
        self._sampler = make(
            settings,
            1,
            model,
            lib.ProgressType.none(),
            self._watch if watch else None,
            200,
            lib.PyStorage.arrow(),
        )

    def _native(self, lib: Any, target: Target, start: Array, none: Any) -> Any:
        from bayesglmm.nuts.native import addresses, keep, with_room

        held = addresses(self._state, self._positions)
        data, room = with_room(target.data, target.room)
        size = target.size
        return lib.PyMcModel(
            lib.LogpFunc(target.address, data.ctypes.data, (target, data, room)),
            lib.ExpandFunc(size, 0, keep.address, held.ctypes.data, (held, self)),
            none,
            size,
            {},
            {},
            lambda seed: start,
            None,
        )

    def _python(self, lib: Any, target: Target, start: Array, none: Any) -> Any:
        state, positions = self._state, self._positions

        def density() -> Any:
            def both(x: Array) -> tuple[float, Array]:
                gradient = np.empty(len(x))
                try:
                    return target.log_density(x, gradient), gradient
                except Exception as error:  # would bring down nutpie's thread
                    self._error = error
                    return math.nan, gradient

            return both

        def expand(*seeds: int) -> Any:
            def keep(x: Array) -> dict[str, Array]:
                row = state[0] - state[1]
                if row >= 0:
                    positions[row] = x
                state[0] += 1
                return {}

            return keep

        return lib.PyModel(
            density,
            expand,
            none,
            target.size,
            dim_sizes={},
            coords={},
            init_point_func=lambda seed: start,
            transform_adapter=None,
        )

    def _watch(self, chains: Any) -> None:
        self.divergences, self.step_size = chains[0].divergences, chains[0].step_size

    @property
    def iterations(self) -> int:
        """Iterations that are over, warm-up included."""
        count = int(self._state[0])
        # The last may be in the making while the chain runs.
        return count if count == self.tune + self.draws else max(count - 1, 0)

    @property
    def drawn(self) -> int:
        """Kept draws so far."""
        return max(self.iterations - self.tune, 0)

    @property
    def finished(self) -> bool:
        """Whether there is no more to come.

        Raises
        ------
        FitError
            If the chain broke.
        """
        count = self.iterations
        if count == self.tune + self.draws:
            return True
        if count != self._seen:  # it has not broken since
            self._seen = count
            return False
        if self._error is not None:
            raise FitError(f"a chain broke off: {self._error}") from self._error
        try:
            self._sampler.is_finished()
        except TimeoutError:  # nutpie's way to say no
            return False
        except RuntimeError as error:
            reason = str(error).split("Stack backtrace")[0].split("Caused by:")[-1].strip()
            raise FitError(f"a chain broke off: {reason[:300]}") from None
        return self.iterations == self.tune + self.draws

    def positions(self, first: int, last: int) -> Array:
        """(last - first, size) draws."""
        return self._positions[first:last]

    def statistics(self, first: int, last: int) -> dict[str, NDArray[Any]]:
        """Statistics of the same draws."""
        rows = slice(self.tune + first, self.tune + last)
        if not self._statistics or len(self._statistics["energy"]) < rows.stop:
            _, (batch,) = self._trace().get_arrow_trace()
            self._statistics = {
                new: np.asarray(batch.column(old).to_numpy()) for old, new in STATISTICS.items()
            }
        return {name: column[rows] for name, column in self._statistics.items()}

    def _trace(self) -> Any:
        if self.iterations < self.tune + self.draws:
            return self._sampler.inspect()  # a copy: takes a millisecond
        self._sampler.wait(None)  # until nutpie's thread has ended, too
        return self._sampler.take_results()

    def pause(self) -> None:
        """Stop for a while."""
        if not self.paused:
            self._sampler.pause()
            self.paused = True

    def resume(self) -> None:
        """Go on."""
        if self.paused:
            self._sampler.resume()
            self.paused = False

    def stop(self) -> None:
        """Stop for good; what has been drawn stays."""
        self._sampler.abort()
