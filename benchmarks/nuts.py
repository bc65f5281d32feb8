"""NUTS: effective draws per second, ours and those of nutpie, PyMC and bambi, in one run.

For every model the smallest bulk effective sample size over all parameters, random effects
included, of four chains with 1000 draws. The others sample the same posterior with the random
effects as scaled standard normals, after a warm-up of 1000. Compilation is no part of sampling.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import bayesglmm as bg
from bayesglmm.errors import nearest
from benchmarks.cases import CASES as ML_CASES
from benchmarks.cases import Case
from benchmarks.cold import run_python
from benchmarks.measure import Printed, number, seconds
from benchmarks.samplers import (
    OTHERS,
    TUNE,
    Measured,
    Size,
    bambi,
    has_bambi,
    nutpie,
    ours,
    until_enough,
)

_BY_NAME = {case.name: case for case in ML_CASES}
_CONTRA = "use ~ age + {square} + urban + livch + (1|dist) + (1|urban:dist)"
CASES = (
    _BY_NAME["grouseticks-index"],
    _BY_NAME["verbagg"],
    _BY_NAME["grouseticks-slopes"],
    Case(
        "contra-nested",
        "contra",
        _CONTRA.format(square="abs2(age)"),
        "binomial",
        r_formula=_CONTRA.format(square="I(age**2)"),
    ),
    _BY_NAME["sleepstudy"],
)
LARGE = _BY_NAME["insteval"]

_ENOUGH = 1000  # effective draws of every parameter, where a run goes on until it has them

_OURS = """
import bayesglmm as bg
model = bg.model({formula!r}, bg.load_dataset({dataset!r}), family={family!r})
print(model.fit("nuts", min_ess={enough}, seed=1, progress=False))
"""
_NUTPIE = """
import arviz, nutpie, bayesglmm as bg
model = bg.model({formula!r}, bg.load_dataset({dataset!r}), family={family!r})
compiled = nutpie.compile_pymc_model(model.to_pymc(centred=False))
tree = nutpie.sample(compiled, draws=1000, tune={tune}, chains=4, seed=1, progress_bar=False)
print(arviz.summary(tree, var_names=["beta", "sd_"], filter_vars="like"))
"""


@dataclass(frozen=True)
class Compared:
    """One case: ours, then the others."""

    case: Case
    runs: tuple[Measured, ...]

    def ratio(self, run: Measured) -> float | None:
        """Effective draws per second against those of nutpie; None without it."""
        base = [other for other in self.runs if other.who == "nutpie"]
        return run.per_second / base[0].per_second if base else None


def main(arguments: Sequence[str] = ()) -> None:
    """Print the tables that the options ask for."""
    options = _options(arguments)
    names = [case.name for case in CASES]
    only: list[str] = options.only.split(",") if options.only else names
    for name in only:
        if name not in names:
            raise SystemExit(
                f"--only: no case is called {name!r}{nearest(name, names)} "
                f"(there are {', '.join(names)})"
            )
    cases = [case for case in CASES if case.name in only]
    print(f"Python {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores")
    print(f"Load of the machine over the last minute: {os.getloadavg()[0]:.1f}")
    size = Size(options.chains, options.draws)
    if not options.no_models:
        show_models(cases, size, options.rivals)
        show_whole(cases, options.rivals != "none", options.cold)
    if options.large:
        show_large()
    print(f"\nLoad of the machine over the last minute: {os.getloadavg()[0]:.1f}")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks nuts", description=__doc__)
    add = parser.add_argument
    names = ", ".join(case.name for case in CASES)
    add("--only", default="", metavar="CASE,...", help=f"cases to run (default: all): {names}")
    add("--no-models", action="store_true", help="leave out the models, with --large")
    add("--large", action="store_true", help="InstEval, 4114 effects, until all have ESS 1000")
    add(
        "--rivals",
        choices=("all", "fast", "none"),
        default="all",
        help="fast: nutpie only (default: all, with pm.sample, and bambi where it is installed)",
    )
    add("--draws", type=int, default=1000, help="kept draws of each chain (default: 1000)")
    add("--chains", type=int, default=4, help="default: 4")
    add("--cold", action="store_true", help="the whole process also from an empty kernel cache")
    return parser.parse_args(arguments)


def show_models(cases: Sequence[Case], size: Size, rivals: str) -> list[Compared]:
    """Sample every case and print a row for each sampler as soon as it is done."""
    printed = Printed(
        f"{size.chains} chains of {size.draws} draws · smallest bulk ESS and largest R-hat over "
        "all parameters, random effects included",
        (
            *("model", "ESS", "R-hat", "diverging", "gradients", "grads/ESS"),
            *("build s", "sample s", "ESS/s", "ratio", "whole s"),
        ),
        24,
    )
    out: list[Compared] = []
    for case in cases:
        data = case.load()
        model = case.model(data)
        _head(case, model)
        compared = Compared(case, ())
        chosen = {"all": OTHERS, "fast": {"nutpie": nutpie}, "none": {}}[rivals]
        # nutpie first: every row is told as a ratio to it.
        for run in (*chosen.values(), ours):
            compared = replace(compared, runs=(*compared.runs, run(model, size)))
            printed.row(_cells(compared))
        if rivals == "all" and has_bambi():
            run_of_bambi = bambi(case.r_formula or case.formula, case.family, data, size)
            compared = replace(compared, runs=(*compared.runs, run_of_bambi))
            printed.row(_cells(compared))
        out.append(compared)
    _legend(out)
    return out


def _legend(out: Sequence[Compared]) -> None:
    print(
        f"Warm-up: ours by its defaults, others {TUNE}. gradients: of the kept draws. sample s: "
        "warm-up and draws. ratio: ESS/s against nutpie, in this run.\n"
        "whole s: from the model to draws; ours includes diagnostics and is of a fit in a process "
        "that has the kernels. Ours: the run with the median ESS/s of three."
    )
    print("Ours samples:")
    for compared in out:
        print(f"  {compared.case.name}: {next(r.how for r in compared.runs if r.who == 'ours')}")


def _head(case: Case, model: bg.Model) -> None:
    effects = sum(term.J * term.K for term in model.design.random)
    print(f"{case.name}: {case.formula} · {model.design.n} rows, {effects} effects", flush=True)


def _cells(compared: Compared) -> tuple[str, ...]:
    """The row of the last run."""
    run = compared.runs[-1]
    return (
        f"  {run.who}",
        *(f"{run.ess:.0f}", f"{run.r_hat:.4f}", str(run.divergences), str(run.gradients)),
        *(number(run.gradients / run.ess), number(run.build), number(run.sampling)),
        *(number(run.per_second), number(compared.ratio(run)), number(run.whole)),
    )


def show_whole(cases: Sequence[Case], with_nutpie: bool, cold: bool) -> None:
    """Print the seconds of whole processes: import, data, build, sampling, summary."""
    printed = Printed(
        f"Whole process, python to a printed summary, seconds · ours until every ESS is {_ENOUGH}",
        ("model", "ours", *(["ours, empty cache"] if cold else []), "nutpie"),
        19,
    )
    for case in cases:
        words = {"formula": case.formula, "dataset": case.dataset, "family": case.family}
        code = _OURS.format(**words, enough=_ENOUGH)
        cells = []
        run_python(code)  # fills the cache
        cells.append(number(seconds(partial(run_python, code))))
        if cold:
            with tempfile.TemporaryDirectory() as cache:
                took = seconds(partial(run_python, code, cache))
            cells.append(number(took))
        theirs = _NUTPIE.format(**words, tune=TUNE)
        cells.append(number(seconds(partial(run_python, theirs)) if with_nutpie else None))
        printed.row((case.name, *cells))
    print(f"nutpie: the same model, random effects non-centred, {TUNE} warm-up, 4 x 1000 draws.")


def show_large() -> None:
    """Print one long run: every parameter of InstEval with an ESS of 1000."""
    model = LARGE.model(LARGE.load())
    printed = Printed(
        f"Until every bulk and tail ESS is {_ENOUGH}",
        ("model", "ESS", "R-hat", "diverging", "gradients", "build s", "sample s", "whole s"),
        24,
    )
    _head(LARGE, model)
    run = until_enough(model, _ENOUGH)
    printed.row(
        (
            *(f"  {run.who}", f"{run.ess:.0f}", f"{run.r_hat:.4f}"),
            *(str(run.divergences), str(run.gradients)),
            *(number(run.build), number(run.sampling), number(run.whole)),
        )
    )
