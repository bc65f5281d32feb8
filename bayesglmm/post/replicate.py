"""Simulate a response, refit, keep the numbers: one iteration of a bootstrap, and many of them."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayesglmm.errors import BayesglmmError, DataError, OptionError
from bayesglmm.laplace import ML, maximum_likelihood
from bayesglmm.laplace.structure import Structure
from bayesglmm.laplace.threads import blas_threads
from bayesglmm.model import Model, check_response
from bayesglmm.post.parameters import Parameters
from bayesglmm.post.simulate import Effects, draw_response, stream
from bayesglmm.posterior.ml import MLPosterior

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

__all__ = ["Replicate", "Statistic", "Task", "named_values", "replicate_all"]

Array = NDArray[np.float64]
Statistic = Callable[["Fit"], Any]

_BATCHES = 50  # enough to share among workers, few enough that sending the model costs little


@dataclass(frozen=True, slots=True)
class Task:
    """What one iteration needs; it can be sent to another process.

    Attributes
    ----------
    model, estimator
        What is fitted, and how.
    at, re, seed
        What is simulated: see :func:`bayesglmm.simulate`.
    statistic
        Numbers of a fit; None for all its parameters.
    names
        Names of the statistic's numbers.
    structure
        Of the random effects, found once.
    """

    model: Model
    estimator: ML
    at: Parameters
    re: Effects
    seed: int
    statistic: Statistic | None
    names: tuple[str, ...]
    structure: tuple[Structure, ...]


@dataclass(frozen=True, slots=True)
class Replicate:
    """One iteration.

    Attributes
    ----------
    iteration
        Counted from 1: it fitted column ``sim_<iteration>`` of :func:`bayesglmm.simulate`.
    values
        The numbers; empty if it failed.
    loglik, converged, singular, notes
        Of the refit.
    error
        Why it failed; empty if it did not.
    """

    iteration: int
    values: Array
    loglik: float = np.nan
    converged: bool = False
    singular: bool = False
    notes: str = ""
    error: str = ""


def named_values(result: object) -> dict[str, float]:
    """The numbers of a statistic by name: from a mapping, a sequence, or one number.

    Raises
    ------
    DataError
        If there are none.

    Examples
    --------
    >>> named_values([1, 2.5])
    {'stat_1': 1.0, 'stat_2': 2.5}
    """
    try:
        if result is None:  # a function without return; numpy takes it for NaN
            raise TypeError
        if isinstance(result, Mapping):
            found = {str(name): float(value) for name, value in result.items()}
        else:
            values = np.asarray(result, dtype=np.float64)
            if values.ndim == 0:
                return {"statistic": float(values)}
            if values.ndim != 1:
                raise TypeError
            found = {f"stat_{k + 1}": float(value) for k, value in enumerate(values)}
    except (TypeError, ValueError):
        raise DataError(
            f"statistic gave {type(result).__name__}; it must give numbers: a mapping from names "
            "to numbers, a sequence of numbers, or one"
        ) from None
    if not found:
        raise DataError("statistic gave no numbers")
    return found


def replicate(task: Task, k: int) -> Replicate:
    """Iteration k, counted from 0: simulate, refit, and take the numbers."""
    from bayesglmm.fit import Fit

    model, old = task.model, task.model.design
    try:
        y = draw_response(old, model.family, model.link, task.at, task.re, stream(task.seed, k))
        design = replace(old, response=replace(old.response, y=y))
        check_response(design, model.family)
        refitted = replace(model, design=design)
        estimate = maximum_likelihood(design, refitted.likelihood, task.estimator, task.structure)
    except (BayesglmmError, np.linalg.LinAlgError) as problem:
        return _failed(k, problem)
    if task.statistic is None:
        infinite = np.isnan(estimate.vcov.diagonal())  # outcomes are separated
        beta = np.where(infinite, np.copysign(np.inf, estimate.beta), estimate.beta)
        values = np.concatenate([beta, estimate.component_values])
    else:
        try:
            found = named_values(
                task.statistic(Fit(refitted, task.estimator, MLPosterior(design, estimate)))
            )
            if tuple(found) != task.names:
                raise DataError(
                    f"statistic gave {', '.join(found)}; for the fit itself it gave "
                    f"{', '.join(task.names)}"
                )
        except Exception as problem:  # whatever the caller's function may raise
            return _failed(k, problem)
        values = np.array(list(found.values()))
    outcome = estimate.outcome
    return Replicate(
        k + 1,
        values,
        estimate.loglik,
        outcome.converged,
        bool(outcome.singular),
        "\n".join(outcome.notes),
    )


def _failed(k: int, problem: Exception) -> Replicate:
    return Replicate(k + 1, np.zeros(0), error=f"{type(problem).__name__}: {problem}")


def _batch(task: Task, iterations: range) -> list[Replicate]:
    """Several iterations, in a worker."""
    # A worker process has nobody above it who limits its threads; a pool's thread has.
    if threading.current_thread() is threading.main_thread():
        with blas_threads(0):
            return [replicate(task, k) for k in iterations]
    return [replicate(task, k) for k in iterations]


def replicate_all(
    task: Task, nsim: int, executor: Executor | None, progress: bool
) -> tuple[list[Replicate], bool]:
    """All iterations in order, and whether Ctrl-C cut them short.

    The numbers do not depend on the executor: each iteration has a random stream of its own, and
    all linear algebra runs on one BLAS thread.

    Raises
    ------
    OptionError
        If the statistic cannot be sent to the executor's processes.
    """
    done: list[Replicate] = []
    interrupted = False
    with _bar(nsim, progress) as advance, blas_threads(0):
        if executor is None:
            try:
                for k in range(nsim):
                    done.append(replicate(task, k))
                    advance(1)
            except KeyboardInterrupt:
                interrupted = True
        else:
            done, interrupted = _share(task, nsim, executor, advance)
    return sorted(done, key=lambda one: one.iteration), interrupted


def _share(
    task: Task, nsim: int, executor: Executor, advance: Callable[[int], None]
) -> tuple[list[Replicate], bool]:
    """Let an executor do them, in batches."""
    if isinstance(executor, ProcessPoolExecutor):
        _check_picklable(task)
    size = -(-nsim // _BATCHES)
    batches = [range(start, min(start + size, nsim)) for start in range(0, nsim, size)]
    futures: list[Future[list[Replicate]]] = []
    interrupted = False
    try:
        futures += [executor.submit(_batch, task, batch) for batch in batches]
        for future in as_completed(futures):
            advance(len(future.result()))
    except KeyboardInterrupt:
        interrupted = True
    finally:
        for future in futures:
            future.cancel()
    finished = [f for f in futures if f.done() and not f.cancelled() and f.exception() is None]
    return [one for future in finished for one in future.result()], interrupted


def _check_picklable(task: Task) -> None:
    try:
        pickle.dumps(task)
    except Exception as problem:  # PicklingError, TypeError or AttributeError, by what it meets
        raise OptionError(
            f"the task cannot be sent to other processes ({problem}). Define the statistic with "
            "def at the top level of a module, or use a ThreadPoolExecutor"
        ) from None


@contextmanager
def _bar(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on the terminal; nothing where there is none."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    quiet = not (shown and console.is_terminal)
    with Progress(*columns, console=console, disable=quiet, transient=True) as bar:
        task = bar.add_task("Refitting", total=total)
        yield lambda n: bar.advance(task, n)
