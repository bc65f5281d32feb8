"""The parametric bootstrap: refits to responses simulated from a fit."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bayesglmm.errors import ChoiceError, FitError, OptionError, check_choice, check_whole, warn
from bayesglmm.laplace import ML
from bayesglmm.post.check import check_executor, check_fit
from bayesglmm.post.intervals import INTERVALS, Interval, interval
from bayesglmm.post.parameters import estimated
from bayesglmm.post.replicate import Replicate, Statistic, Task, named_values, replicate_all
from bayesglmm.post.simulate import Effects, fresh_seed
from bayesglmm.post.tables import check_level, scale, varcorr
from bayesglmm.posterior.ml import MLPosterior
from bayesglmm.tables.table import Table, table
from bayesglmm.tables.text import html_note, html_table, text_table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

__all__ = ["Bootstrap", "bootstrap"]

Array = NDArray[np.float64]

_KEYS = ("kind", "group", "term", "term2")


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """What :func:`bootstrap` returns.

    Attributes
    ----------
    draws
        ``iteration, kind, group, term, term2, estimate``: one row for each iteration that did not
        fail and each quantity. ``kind`` is ``coef`` (link scale), ``sd``, ``corr``, ``residual``,
        or ``statistic``; ``group``, ``term`` and ``term2`` are those of ``varcorr`` (for a
        coefficient or a statistic only ``term``). A correlation with an sd of zero is null; a
        coefficient that separated outcomes leave without a maximum is infinite.
    estimates
        The same quantities of the fit itself, ``kind, group, term, term2, estimate``.
    outcomes
        ``iteration, loglik, converged, singular, notes, error``: one row for each iteration;
        where it failed only ``error``, which is null elsewhere.
    method, scale
        How the fit, and every refit, was got, and the scale of the coefficients.
    nsim
        Iterations asked for.
    seed, re
        As given (re is ``"zero"`` for a model without random effects); iteration k refits to
        column ``sim_k`` of ``simulate(fit, seed=seed, re=re)``.
    interrupted
        Whether Ctrl-C cut it short.
    """

    draws: pl.DataFrame
    estimates: pl.DataFrame
    outcomes: pl.DataFrame
    method: str
    scale: str
    nsim: int
    seed: int
    re: Effects
    interrupted: bool

    @property
    def failures(self) -> pl.DataFrame:
        """``iteration, error`` of the iterations that gave no numbers."""
        return self.outcomes.filter(pl.col("error").is_not_null()).select("iteration", "error")

    @property
    def singular(self) -> int:
        """Number of refits at the boundary (an sd of zero, a correlation of one); they count."""
        return int(self.outcomes["singular"].sum())

    @property
    def not_converged(self) -> int:
        """Number of refits whose gradient did not vanish; they count."""
        return int((~self.outcomes["converged"]).sum())

    def summary(self, *, level: float = 0.95, kind: Interval = "percentile") -> Table:
        """Estimates, their bias and standard error, and intervals.

        Parameters
        ----------
        level, kind
            As for :meth:`confint`.

        Returns
        -------
        Table
            ``kind, group, term, term2, estimate, bias, std_error, conf_low, conf_high, n``:
            ``estimate`` is that of the fit, ``bias`` the mean of the draws minus it,
            ``std_error`` the sd of the draws, ``n`` the number of draws that are not null. Where
            some are infinite bias and standard error are null, and so is an end of an interval
            that they reach.
        """
        level = check_level(level)
        check_choice("kind", kind, INTERVALS)
        columns: dict[str, list[float | None]] = {
            name: [] for name in ("bias", "std_error", "conf_low", "conf_high")
        }
        counts = []
        for estimate, draws in zip(self.estimates["estimate"], self._matrix.T, strict=True):
            kept = draws[~np.isnan(draws)]
            counts.append(len(kept))
            numbers: tuple[float | None, ...] = (None,) * 4
            if estimate is not None and len(kept) > 1:
                with np.errstate(invalid="ignore"):  # infinite draws
                    found = (
                        float(kept.mean() - estimate),
                        float(kept.std(ddof=1)),
                        *interval(kept, estimate, level, kind),
                    )
                numbers = tuple(v if np.isfinite(v) else None for v in found)
            for name, value in zip(columns, numbers, strict=True):
                columns[name].append(value)
        series = {name: pl.Series(v, dtype=pl.Float64) for name, v in columns.items()}
        few = (min(counts) + 1) * (1.0 - level) / 2.0 < 1.0 and kind in ("percentile", "basic")
        note = f"{self._heading} · {level:.0%} {kind} interval"
        if few:
            note += " (too few draws for this level: its ends are the extreme draws)"
        note += f" · {self._counts}"
        return table({**self.estimates.to_dict(), **series, "n": counts}, note)

    def confint(self, level: float = 0.95, *, kind: Interval = "percentile") -> Table:
        """Confidence intervals.

        Parameters
        ----------
        level
            Probability of the intervals.
        kind
            ``"percentile"``: quantiles of the draws, which stay within a parameter's range;
            ``"basic"``: 2 estimate - quantiles; ``"normal"``: estimate - bias -+ z std_error;
            ``"shortest"``: the shortest that contains this share of the draws. See
            :func:`bayesglmm.post.intervals.interval` for sources. Basic and normal intervals of
            an sd may reach below zero.

        Returns
        -------
        Table
            ``kind, group, term, term2, estimate, conf_low, conf_high``.

        Raises
        ------
        ChoiceError
            For an unknown ``kind`` or an impossible ``level``.
        """
        whole = self.summary(level=level, kind=kind)
        shown = whole.select(*_KEYS, "estimate", "conf_low", "conf_high")
        return table(shown.to_dict(), whole.caption)

    @cached_property
    def _matrix(self) -> Array:
        """The draws, (iterations, quantities); NaN where null."""
        values = self.draws["estimate"].to_numpy().astype(np.float64)
        return np.asarray(values.reshape(-1, self.estimates.height))

    @property
    def _noted(self) -> int:
        """Number of refits with something else to note, such as separation."""
        fine = pl.col("converged") & ~pl.col("singular")
        return self.outcomes.filter(fine & pl.col("notes").is_not_null()).height

    @property
    def _heading(self) -> str:
        effects = {"new": "new", "fitted": "fitted", "zero": "no"}[self.re]
        parts = ["Parametric bootstrap", self.method]
        if "coef" in self.estimates["kind"]:
            parts.append(f"coefficients: {self.scale}")
        return " · ".join([*parts, f"{effects} random effects", f"seed {self.seed}"])

    @property
    def _counts(self) -> str:
        done = self.outcomes.height
        parts = [f"{done} refits"]
        if self.interrupted:
            parts = [f"interrupted: {done} of {self.nsim} refits"]
        for number, what in (
            (self.singular, "singular"),
            (self.not_converged, "not converged"),
            (self.failures.height, "failed"),
            (self._noted, "with other notes"),
        ):
            if number:
                parts.append(f"{number} {what}")
        return ", ".join(parts)

    def _rows(self) -> tuple[list[str], list[list[Any]], str]:
        found = self.summary()
        shown = ["estimate", "bias", "std_error", "conf_low", "conf_high"]
        rows = [[_label(row), *(row[c] for c in shown)] for row in found.iter_rows(named=True)]
        return ["parameter", *shown], rows, found.caption

    def text(self) -> str:
        """The summary as plain text."""
        header, rows, note = self._rows()
        return "\n".join([text_table(header, rows), f"  {note}"])

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        header, rows, note = self._rows()
        return html_table("Parametric bootstrap", header, rows) + html_note(note)


def bootstrap(
    fit: Fit,
    nsim: int = 1000,
    *,
    seed: int | None = None,
    statistic: Statistic | None = None,
    executor: Executor | None = None,
    progress: bool = True,
    re: Effects = "new",
) -> Bootstrap:
    """Parametric bootstrap of a maximum-likelihood fit (lme4's ``bootMer``).

    Responses are simulated from the fit, and the same model is fitted to each by the same
    estimator.

    Parameters
    ----------
    nsim
        Number of responses.
    seed
        A whole number makes the draws reproducible, to the bit, whatever the executor and the
        number of its workers. None draws one, which the result reports.
    statistic
        Function of a fit that gives a mapping from names to numbers, a sequence of numbers, or
        one number. None takes all coefficients, sds and correlations.
    executor
        A ``concurrent.futures`` executor to share the work, e.g. ``ProcessPoolExecutor(
        mp_context=multiprocessing.get_context("spawn"))``; None does it here. It is not shut
        down. For processes the statistic must be defined at the top level of a module, and the
        start method "fork" (the default on Linux before Python 3.14) may hang.
    progress
        Show a progress bar, on a terminal. Ctrl-C ends the work and keeps the draws so far, with
        a warning; the same seed gives the same draws again.
    re
        Random effects of the simulated responses: ``"new"``, or ``"fitted"`` to condition on
        those of the fit, or ``"zero"``. See :func:`bayesglmm.simulate`.

    Returns
    -------
    Bootstrap
        Its ``draws`` in tidy form, ``summary()``, ``confint()``. Refits that are singular or did
        not converge count, and are counted; those that failed are listed in ``failures``.

    Raises
    ------
    ChoiceError
        For a fit by NUTS, whose draws already show the uncertainty.
    OptionError
        For a statistic that is no function, or cannot be sent to the executor's processes.
    FitError
        If every iteration failed.

    Warns
    -----
    BayesglmmWarning
        If it was interrupted.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> fit = bg.lmer("Reaction ~ Days + (1|Subject)", bg.load_dataset("sleepstudy")).fit()
    >>> boot = bg.bootstrap(fit, 20, seed=1)
    >>> boot.summary()["kind"].to_list()
    ['coef', 'coef', 'sd', 'residual']
    """
    check_fit(fit, "bootstrap")
    posterior = fit.posterior
    if not (isinstance(posterior, MLPosterior) and isinstance(fit.estimator, ML)):
        raise ChoiceError(
            f"bootstrap belongs to a maximum-likelihood fit; this one is {fit.method}, whose draws "
            "already show the uncertainty: use summary()"
        )
    if statistic is not None and not callable(statistic):
        raise OptionError(f"statistic is {type(statistic).__name__}; give a function of a fit")
    check_executor(executor)
    check_choice("re", re, ("new", "fitted", "zero"))
    nsim, seed = check_whole("nsim", nsim), fresh_seed(seed)
    estimates = _estimates(fit, posterior, statistic)
    model, design = fit.model, posterior.design
    if statistic is None:  # the numbers need no data frame: what is sent to workers is lighter
        model = replace(model, design=replace(design, data=design.data.clear()))
    task = Task(
        model,
        fit.estimator,
        estimated(design, posterior.estimate),
        re,
        seed,
        statistic,
        tuple(estimates["term"]) if statistic is not None else (),
        posterior.estimate.structure,
    )
    done, interrupted = replicate_all(task, nsim, executor, progress)
    if interrupted and not done:
        raise KeyboardInterrupt
    if interrupted:
        warn(
            f"Interrupted: {len(done)} of {nsim} refits were done, and are kept. Run it again "
            f"with seed={seed} for the same draws and the rest."
        )
    good = [one for one in done if not one.error]
    if not good:
        raise FitError(f"all {len(done)} refits failed; the first: {done[0].error}")
    return Bootstrap(
        _draws(good, estimates),
        estimates,
        _outcomes(done),
        fit.method,
        scale(fit),
        nsim,
        seed,
        re if design.random else "zero",
        interrupted,
    )


def _estimates(fit: Fit, posterior: MLPosterior, statistic: Statistic | None) -> pl.DataFrame:
    """The quantities and their values for the fit itself."""
    if statistic is not None:
        values = named_values(statistic(fit))
        names, kind, numbers = list(values), "statistic", list(values.values())
    else:
        names, kind = list(posterior.design.names), "coef"
        numbers = posterior.estimate.beta.tolist()
    rows = [(kind, None, name, None, number) for name, number in zip(names, numbers, strict=True)]
    if statistic is None and (posterior.design.random or fit.model.family.has_scale):
        rows += varcorr(fit).select(*_KEYS, "estimate").rows()
    schema = dict.fromkeys(_KEYS, pl.String) | {"estimate": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row").fill_nan(None)


def _draws(good: Sequence[Replicate], estimates: pl.DataFrame) -> pl.DataFrame:
    """Long form: the quantities under each other, iteration by iteration."""
    labels = estimates.select(_KEYS)[np.tile(np.arange(estimates.height), len(good))]
    iterations = np.repeat([one.iteration for one in good], estimates.height)
    values = pl.Series("estimate", np.concatenate([one.values for one in good]))
    return labels.insert_column(0, pl.Series("iteration", iterations)).with_columns(
        values.fill_nan(None)
    )


def _outcomes(done: Sequence[Replicate]) -> pl.DataFrame:
    rows = [
        (one.iteration, None, None, None, None, one.error)
        if one.error
        else (one.iteration, one.loglik, one.converged, one.singular, one.notes or None, None)
        for one in done
    ]
    schema = {
        "iteration": pl.Int64,
        "loglik": pl.Float64,
        "converged": pl.Boolean,
        "singular": pl.Boolean,
        "notes": pl.String,
        "error": pl.String,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def _label(row: dict[str, Any]) -> str:
    """How a row is called in print, e.g. ``sd Days | Subject``."""
    if row["kind"] in ("coef", "statistic"):
        return str(row["term"])
    if row["kind"] == "residual":
        return "residual sd"
    pair = f" x {row['term2']}" if row["term2"] else ""
    return f"{row['kind']} {row['term']}{pair} | {row['group']}"
