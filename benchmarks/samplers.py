"""One run of NUTS, by us and by others, in the same figures."""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bayesglmm as bg
from bayesglmm.nuts import Sampled
from bayesglmm.nuts.sampler import choose_route
from bayesglmm.nuts.tree import parameter_names
from bayesglmm.posterior.convergence import ess_and_rhat
from bayesglmm.posterior.sampled import SampledPosterior

Array = NDArray[np.float64]

TUNE = 1000  # warm-up of the others; ours decides for itself
CORES = os.cpu_count() or 1
_SEED = 1


@dataclass(frozen=True)
class Size:
    """Chains and kept draws of each."""

    chains: int = 4
    draws: int = 1000


@dataclass(frozen=True)
class Measured:
    """What a run brought.

    Attributes
    ----------
    who, how
        The sampler, and the coordinates it sampled.
    ess
        Smallest bulk effective sample size over all parameters, random effects included.
    r_hat
        The largest, over the same.
    gradients
        Gradient evaluations of the kept draws.
    build
        Seconds before the first draw: coordinates, compilation.
    sampling
        Seconds of warm-up and draws, no compilation and no diagnostics among them.
    whole
        Seconds from the model to draws; ours are then diagnosed too.
    """

    who: str
    how: str
    ess: float
    r_hat: float
    divergences: int
    gradients: int
    build: float
    sampling: float
    whole: float

    @property
    def per_second(self) -> float:
        """Effective draws of the slowest parameter per second of sampling."""
        return self.ess / self.sampling


def ours(model: bg.Model, size: Size, seeds: Sequence[int] = (1, 2, 3)) -> Measured:
    """Our sampler by its defaults: of the runs, the one with median effective draws per second."""
    options = bg.NUTS(draws=size.draws, chains=size.chains, progress=False)
    with _quiet():
        bg.fit(model, replace(options, draws=4, tune=1, seed=0))  # loads the kernels
        runs = [_ours(model, replace(options, seed=seed)) for seed in seeds]
    return sorted(runs, key=lambda run: run.per_second)[len(runs) // 2]


def _ours(model: bg.Model, options: bg.NUTS) -> Measured:
    start = time.perf_counter()
    route = choose_route(model, options)
    built = time.perf_counter()
    drawn = route.draw(replace(options, **route.used.settings), options.seed or 0, None)
    sampled = time.perf_counter()
    bg.fit(model, options)
    whole = time.perf_counter() - sampled
    times = (built - start, sampled - built, whole)
    return _measured("ours", route.used.kind, drawn.values, drawn.statistics, times=times)


def until_enough(model: bg.Model, min_ess: float) -> Measured:
    """Our sampler until every parameter has that effective sample size, in bulk and tails."""
    with _quiet():
        start = time.perf_counter()
        fit = bg.fit(model, bg.NUTS(min_ess=min_ess, seed=1, progress=False))
        whole = time.perf_counter() - start
    posterior = fit.posterior
    assert isinstance(posterior, SampledPosterior) and isinstance(posterior.run, Sampled)
    run = posterior.run
    values = {name: run.values(name) for name in parameter_names(model)}
    statistics = _statistics(run.tree["sample_stats"])
    times = (run.compile_seconds, run.sample_seconds, whole)
    return _measured("ours", run.kind, values, statistics, times=times)


def nutpie(model: bg.Model, size: Size) -> Measured:
    """The same posterior, random effects as scaled standard normals, by nutpie itself."""
    import nutpie as theirs

    with _quiet():
        start = time.perf_counter()
        compiled = theirs.compile_pymc_model(model.to_pymc(centred=False))
        built = time.perf_counter()
        tree = theirs.sample(
            compiled,
            draws=size.draws,
            tune=TUNE,
            chains=size.chains,
            cores=CORES,
            seed=_SEED,
            progress_bar=False,
        )
    return _of_tree(
        model, "nutpie", "plain coordinates, non-centred", tree, start, (built - start, None)
    )


def pymc(model: bg.Model, size: Size) -> Measured:
    """The same by PyMC's own sampler; the seconds of sampling are those that it reports."""
    import pymc as pm

    with _quiet():
        start = time.perf_counter()
        with model.to_pymc(centred=False):
            tree = pm.sample(
                draws=size.draws,
                tune=TUNE,
                chains=size.chains,
                cores=CORES,
                random_seed=_SEED,
                nuts_sampler="pymc",
                progressbar=False,
                quiet=True,
                compute_convergence_checks=False,
            )
    sampling = float(tree["posterior"].attrs["sampling_time"])
    return _of_tree(
        model, "pm.sample", "plain coordinates, non-centred", tree, start, (None, sampling)
    )


OTHERS: Mapping[str, Callable[[bg.Model, Size], Measured]] = {"nutpie": nutpie, "pm.sample": pymc}


def bambi(formula: str, family: str, data: Any, size: Size) -> Measured:
    """The same formula with bambi's own priors and defaults, over all that it samples."""
    theirs: Any = importlib.import_module("bambi")
    with _quiet():
        start = time.perf_counter()
        tree = theirs.Model(formula, data.to_pandas(), family=family).fit(
            draws=size.draws,
            tune=TUNE,
            chains=size.chains,
            cores=CORES,
            random_seed=_SEED,
            progressbar=False,
        )
    posterior, statistics = tree["posterior"], tree["sample_stats"]
    values = {str(name): np.asarray(posterior[name].values) for name in posterior.data_vars}
    sampling = float(posterior.attrs["sampling_time"])
    whole = time.perf_counter() - start
    return _measured(
        *("bambi", "its own priors", values, _statistics(statistics)),
        times=(whole - sampling, sampling, whole),
    )


def has_bambi() -> bool:
    """Whether it is installed here."""
    return importlib.util.find_spec("bambi") is not None


def worst(values: Mapping[str, Array]) -> tuple[float, float]:
    """Smallest bulk ESS and largest R-hat of named variables, each (chains, draws, ...).

    What never moves does not count: the diagonal of a correlation matrix, in whose upper half
    everything stands twice.
    """
    smallest, largest = np.inf, 0.0
    for name, array in values.items():
        flat = np.asarray(array, dtype=np.float64).reshape(*array.shape[:2], -1)
        if name.startswith("corr_"):
            K = array.shape[-1]
            flat = flat[:, :, [r * K + c for r in range(K) for c in range(r)]]
        found = ess_and_rhat(np.ascontiguousarray(flat))
        smallest = min(smallest, float(np.min(found["ess_bulk"])))
        largest = max(largest, float(np.max(found["r_hat"])))
    return smallest, largest


def _of_tree(
    model: bg.Model,
    who: str,
    how: str,
    tree: Any,
    start: float,
    known: tuple[float | None, float | None],
) -> Measured:
    """Figures of a DataTree; of build and sampling, what is not known is the rest of the time."""
    until = time.perf_counter() - start
    values = {name: np.asarray(tree["posterior"][name].values) for name in parameter_names(model)}
    build = known[0] if known[0] is not None else until - (known[1] or 0.0)
    sampling = known[1] if known[1] is not None else until - build
    times = (build, sampling, until)
    return _measured(who, how, values, _statistics(tree["sample_stats"]), times=times)


def _statistics(group: Any) -> dict[str, NDArray[Any]]:
    return {name: np.asarray(group[name].values) for name in ("diverging", "n_steps")}


def _measured(
    who: str,
    how: str,
    values: Mapping[str, Array],
    statistics: Mapping[str, NDArray[Any]],
    *,
    times: tuple[float, float, float],
) -> Measured:
    divergences = int(np.sum(statistics["diverging"]))
    gradients = int(np.sum(statistics["n_steps"]))
    return Measured(who, how, *worst(values), divergences, gradients, *times)


@contextmanager
def _quiet() -> Iterator[None]:
    """What a sampler warns of stands in the table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
