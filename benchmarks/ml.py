"""Maximum likelihood: seconds of a fit, ours and lme4's where R has it, in one run.

For every model the median of five fits after a warm-up: ``fit()`` alone, and the whole call
from formula and data frame. Also the whole process, from `python` to a printed fit.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import bayesglmm as bg

_RUNS = 5


@dataclass(frozen=True)
class Case:
    """One model, in our words and in lme4's."""

    name: str
    dataset: str
    formula: str
    family: str
    nagq: int = 1
    r_formula: str = ""


CASES = (
    Case("sleepstudy (Days|Subject)", "sleepstudy", "Reaction ~ Days + (Days|Subject)", "gaussian"),
    Case("titanic (1|pclass)", "titanic", "survived ~ sex + (1|pclass)", "binomial"),
    Case("grouseticks (1|LOCATION)", "grouseticks", "TICKS ~ YEAR + (1|LOCATION)", "poisson"),
    Case(
        "grouseticks + (1|INDEX)",
        "grouseticks",
        "TICKS ~ YEAR + (1|LOCATION) + (1|INDEX)",
        "poisson",
    ),
    Case("grouseticks (YEAR|LOCATION)", "grouseticks", "TICKS ~ YEAR + (YEAR|LOCATION)", "poisson"),
    Case(
        "contra, nAGQ=9",
        "contra",
        "use ~ age + abs2(age) + urban + livch + (1|dist)",
        "binomial",
        nagq=9,
        r_formula="use ~ age + I(age^2) + urban + livch + (1|dist)",
    ),
    Case(
        "verbagg crossed",
        "verbagg",
        "r2 ~ Anger + Gender + btype + situ + (1|id) + (1|item)",
        "binomial",
    ),
)

_R = """
suppressMessages(library(lme4))
cases <- jsonlite::fromJSON(commandArgs(TRUE)[1], simplifyVector = FALSE)
out <- lapply(cases, function(case) {
  d <- read.csv(case$csv, stringsAsFactors = TRUE)
  for (f in case$factors) d[[f]] <- factor(d[[f]])
  once <- function() suppressMessages(suppressWarnings(
    if (case$family == "gaussian") lmer(as.formula(case$formula), d, REML = FALSE)
    else glmer(as.formula(case$formula), d, family = case$family, nAGQ = case$nagq)))
  fit <- once()
  seconds <- replicate(case$runs, system.time(once())[["elapsed"]])
  list(seconds = median(seconds), loglik = as.numeric(logLik(fit)))
})
cat(jsonlite::toJSON(out, auto_unbox = TRUE, digits = NA))
"""


def _median(call: Callable[[], object]) -> float:
    call()
    seconds = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _lme4() -> list[dict[str, float]] | None:
    """Seconds and logLik of lme4 for every case, or None without R."""
    if shutil.which("Rscript") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        requests = []
        for k, case in enumerate(CASES):
            frame = bg.load_dataset(case.dataset)
            path = Path(folder) / f"{k}.csv"
            frame.write_csv(path)
            factors = [n for n, d in frame.schema.items() if type(d).__name__ == "Enum"]
            requests.append(
                {
                    "csv": str(path),
                    "formula": case.r_formula or case.formula,
                    "family": case.family,
                    "nagq": case.nagq,
                    "factors": factors,
                    "runs": _RUNS,
                }
            )
        spec = Path(folder) / "cases.json"
        spec.write_text(json.dumps(requests))
        script = Path(folder) / "time.R"
        script.write_text(_R)
        done = subprocess.run(
            ["Rscript", str(script), str(spec)], capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        print(f"lme4 could not be timed: {done.stderr.strip().splitlines()[-1:]}")
        return None
    found: list[dict[str, float]] = json.loads(done.stdout)
    return found


def _from_scratch(build: Callable[[], bg.Model], method: bg.ML) -> bg.Fit:
    return bg.fit(build(), method)


def main() -> None:
    """Print the table."""
    reference = _lme4()
    head = f"{'model':30}{'fit s':>9}{'whole s':>9}{'logLik':>13}"
    print(head + (f"{'lme4 s':>9}{'ratio':>7}{'ours - lme4':>13}" if reference else ""))
    for k, case in enumerate(CASES):
        data = bg.load_dataset(case.dataset)

        build = partial(bg.model, case.formula, data, family=case.family)
        model, method = build(), bg.ML(nagq=case.nagq)
        alone = _median(partial(bg.fit, model, method))
        whole = _median(partial(_from_scratch, build, method))
        loglik = bg.fit(model, method).loglik
        line = f"{case.name:30}{alone:9.4f}{whole:9.4f}{loglik:13.4f}"
        if reference:
            seconds = reference[k]["seconds"]
            line += f"{seconds:9.3f}{seconds / whole:7.1f}{loglik - reference[k]['loglik']:13.6f}"
        print(line)
    code = (
        "import bayesglmm as bg; print(bg.lmer('Reaction ~ Days + (Days|Subject)', "
        "bg.load_dataset('sleepstudy')).fit())"
    )
    process = _median(
        lambda: subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    )
    print(f"whole process, python to printed fit (sleepstudy): {process:.2f} s")
