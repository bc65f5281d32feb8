"""Maximum likelihood: seconds of a fit, ours and those of lme4, glmmTMB and glmm, in one run.

For every model the median of five fits after a warm-up: ``fit()`` alone, and the whole call from
formula and data frame to fit. The rivals' seconds are those of their whole call.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import polars as pl

import bayesglmm as bg
from bayesglmm.errors import nearest
from benchmarks.cases import CASES, Case
from benchmarks.cold import show_cold
from benchmarks.floor import Fitted, count, show_floor
from benchmarks.measure import Printed, difference, median_seconds, number
from benchmarks.rivals import NO_RIVALS, Result, Rivals, rivals_here
from benchmarks.simulated import LARGE, show_growth, show_large

_HIGHER = 1e-4  # differences of log-likelihoods that want an explanation
_LOGLIKS = ("lme4", "lme4_tight", "glmmTMB", "glmm")


@dataclass(frozen=True)
class Timed:
    """One case, ours and the rivals'."""

    case: Case
    fit: bg.Fit
    alone: float
    whole: float
    rivals: dict[str, Result]

    def seconds(self, rival: str) -> float | None:
        """Of a rival's whole call; None where it is absent."""
        return self.rivals[rival].seconds if rival in self.rivals else None

    def ahead(self, rival: str) -> float | None:
        """Our log-likelihood less the rival's; None where it is absent."""
        return self.fit.loglik - self.rivals[rival].loglik if rival in self.rivals else None

    def gaps(self) -> dict[str, float]:
        """Our log-likelihood less every rival's."""
        return {name: self.fit.loglik - found.loglik for name, found in self.rivals.items()}


def main(arguments: Sequence[str] = ()) -> None:
    """Print the tables that the options ask for."""
    options = _options(arguments)
    names = [case.name for case in (*CASES, *LARGE)]
    only: list[str] = options.only.split(",") if options.only else names
    for name in only:
        if name not in names:
            raise SystemExit(
                f"--only: no case is called {name!r}{nearest(name, names)} "
                f"(there are {', '.join(names)})"
            )
    cases = [case for case in CASES if case.name in only]
    large = [case for case in LARGE if case.name in only and not options.no_large]
    if options.no_models:
        cases, large = [], []
    if not (cases or large or options.growth or options.cold):
        raise SystemExit("these options leave nothing to run")
    print(f"Python {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores")

    fitted: list[Fitted] = []
    if cases:
        timed = _models(cases, options)
        fitted += [
            Fitted(t.case.name, count(t.fit.model, t.case.nagq), t.fit.outcome.evaluations, t.alone)
            for t in timed
        ]
    if large:
        fitted += show_large(large)
    if options.growth:
        show_growth(options.growth_rows)
    if options.cold:
        show_cold()
    if options.floor and fitted:
        show_floor(fitted)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks ml", description=__doc__)
    names = ", ".join(case.name for case in (*CASES, *LARGE))
    add = parser.add_argument
    add("--only", default="", metavar="CASE,...", help=f"cases to run (default: all): {names}")
    add("--no-models", action="store_true", help="leave out the models, with --growth or --cold")
    add("--no-large", action="store_true", help="leave out the simulated tables of 1e6 rows and up")
    add(
        "--rivals",
        choices=("all", "fast", "none"),
        default="all",
        help="fast: none for the models where they need minutes",
    )
    add(
        "--glmm-python",
        default=os.environ.get("GLMM_PYTHON", ""),
        metavar="PATH",
        help="a Python that has the package glmm (default: $GLMM_PYTHON, or this one)",
    )
    add("--runs", type=int, default=5, help="timed fits of each model (default: 5)")
    add("--growth", action="store_true", help="seconds against rows, levels and crossed terms")
    add(
        "--growth-rows",
        type=lambda text: int(float(text)),
        default=10**7,
        metavar="N",
        help="the largest table of --growth (default: 1e7)",
    )
    add("--cold", action="store_true", help="first fit from an empty and from a warm kernel cache")
    add("--floor", action="store_true", help="distance from what this machine could do at best")
    return parser.parse_args(arguments)


def _models(cases: Sequence[Case], options: argparse.Namespace) -> list[Timed]:
    """Time the cases, print a row for each, then compare the log-likelihoods."""
    rivals = NO_RIVALS if options.rivals == "none" else rivals_here(options.glmm_python)
    print(f"Rivals: {rivals.describe()}")
    printed = Printed(
        f"Seconds, median of {options.runs} after a warm-up (slow rivals: one run)",
        (
            *("model", "fit s", "whole s", "lme4 s", "glmmTMB s", "glmm s"),
            *("lme4/whole", "glmm/fit", "logLik", "- lme4", "- tight", "- glmmTMB", "- glmm"),
        ),
        19,
    )
    timed: list[Timed] = []
    for case in cases:
        left_out = case.slow and options.rivals == "fast"
        timed.append(_time(case, case.load(), options.runs, NO_RIVALS if left_out else rivals))
        printed.row(_cells(timed[-1]))
    if rivals != NO_RIVALS:
        _compare(timed)
    return timed


def _time(case: Case, data: pl.DataFrame, runs: int, rivals: Rivals) -> Timed:
    model = case.model(data)
    return Timed(
        case=case,
        fit=bg.fit(model, case.method),
        alone=median_seconds(partial(bg.fit, model, case.method), runs),
        whole=median_seconds(case.whole(data), runs),
        rivals=rivals.run(case, data, 1 if case.slow else runs),
    )


def _cells(timed: Timed) -> tuple[str, ...]:
    lme4, glmm = timed.seconds("lme4"), timed.seconds("glmm")
    return (
        *(timed.case.name, number(timed.alone), number(timed.whole)),
        *(number(lme4), number(timed.seconds("glmmTMB")), number(glmm)),
        number(lme4 / timed.whole if lme4 else None),
        number(glmm / timed.alone if glmm else None),
        f"{timed.fit.loglik:.4f}",
        *(difference(timed.ahead(rival)) for rival in _LOGLIKS),
    )


def _compare(timed: Sequence[Timed]) -> None:
    """Say where log-likelihoods differ, and whether ours is the optimum where it is higher."""
    print(
        "\nWhole calls of lme4, glmmTMB and glmm. logLik - x: ours less theirs; "
        "tight: lme4 with tolPwrss=1e-13."
    )
    compared = [t for t in timed if t.rivals]
    if not compared:
        return
    below, name = max((-min(t.gaps().values()), t.case.name) for t in compared)
    said = f"{below:.1e} ({name})" if below > 0 else "nothing"
    print(f"The most that ours is below the best of the rivals: {said}.")
    for t in compared:
        higher = {rival: gap for rival, gap in t.gaps().items() if gap > _HIGHER}
        if higher:
            by = ", ".join(f"{rival} by {gap:.1e}" for rival, gap in higher.items())
            outcome = t.fit.outcome
            print(
                f"Higher than {by}: {t.case.name}; largest entry of the gradient at our estimate "
                f"{outcome.gradient_norm:.1e}, {'' if outcome.converged else 'NOT '}converged."
            )
