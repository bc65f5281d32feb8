"""Simulated data of any size, each fit in a fresh process so that its memory is its own.

``python -m benchmarks.simulated FILE FORMULA FAMILY`` is that process: it reads the table, fits a
small model of the same kind to load the kernels, then fits the model and prints JSON.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

import bayesglmm as bg
from benchmarks.floor import Fitted, Work, count
from benchmarks.measure import Printed, number

_WARM_ROWS = 2000  # enough for a fit that takes every step, few enough to cost nothing


@dataclass(frozen=True)
class Simulation:
    """A random-intercept model with crossed factors.

    Attributes
    ----------
    levels
        Number of levels of each factor.
    covariates
        Number of standard normal covariates.
    skewed
        Two factors met as users and films are in MovieLens 1M: numbers of rows per level vary
        like a log-normal variable, and no pair occurs twice.
    """

    name: str
    rows: int
    levels: tuple[int, ...]
    covariates: int = 1
    family: str = "gaussian"
    skewed: bool = False

    @property
    def formula(self) -> str:
        """The model that the data come from."""
        fixed = [f"x{k}" for k in range(self.covariates)] or ["1"]
        return "y ~ " + " + ".join([*fixed, *(f"(1|g{f})" for f in range(len(self.levels)))])

    def data(self, seed: int = 1) -> pl.DataFrame:
        """Draw the table."""
        rng = np.random.default_rng(seed)
        if self.skewed:
            index = _distinct_pairs(rng, self.rows, self.levels)
        else:
            index = [rng.integers(J, size=self.rows) for J in self.levels]
        columns: dict[str, np.ndarray] = {}
        eta = np.full(self.rows, 0.5)
        for k in range(self.covariates):
            columns[f"x{k}"] = rng.standard_normal(self.rows)
            eta += 0.1 * columns[f"x{k}"]
        for f, (J, levels) in enumerate(zip(self.levels, index, strict=True)):
            columns[f"g{f}"] = levels
            eta += rng.normal(scale=0.5, size=J)[levels]
        if self.family == "gaussian":
            columns["y"] = eta + rng.standard_normal(self.rows)
        else:
            columns["y"] = rng.poisson(np.exp(eta))
        return pl.DataFrame(columns)


def _distinct_pairs(
    rng: np.random.Generator, rows: int, levels: tuple[int, ...]
) -> list[np.ndarray]:
    users, films = levels
    chances = [rng.lognormal(sigma=s, size=J) for J, s in ((users, 1.1), (films, 1.6))]
    chances = [weights / weights.sum() for weights in chances]
    keys = np.zeros(0, dtype=np.int64)
    while len(keys) < rows:
        user, film = (rng.choice(len(p), size=rows, p=p) for p in chances)
        keys = np.unique(np.concatenate([keys, user * films + film]))
    return list(np.divmod(rng.permutation(keys)[:rows], films))


LARGE = (
    Simulation("ratings-1m", 1_000_000, (6_000, 3_700), skewed=True),
    Simulation("rows-10m", 10_000_000, (100_000,), covariates=5),
    Simulation("rows-10m-poisson", 10_000_000, (100_000,), covariates=5, family="poisson"),
)


@dataclass(frozen=True)
class Measured:
    """What the fresh process found.

    Attributes
    ----------
    model, fit
        Seconds of ``bg.model()`` and of ``bg.fit()``.
    data_mib, read_mib, peak_mib
        The table itself; the peak before the model was made (interpreter, libraries, kernels,
        table), and in all.
    """

    model: float
    fit: float
    data_mib: float
    read_mib: float
    peak_mib: float
    evaluations: int
    converged: bool
    loglik: float
    work: Work


def measure(simulation: Simulation) -> Measured:
    """Write the table to a file, and fit it in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.parquet"
        simulation.data().write_parquet(path)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks.simulated"),
                *(str(path), simulation.formula, simulation.family),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise RuntimeError(f"{simulation.name}: the fit failed\n{done.stderr}")
    found = json.loads(done.stdout)
    return Measured(**{**found, "work": Work(**found["work"])})


def _peak_mib() -> float:
    """Peak resident memory of this process.

    Linux hands the peak of the parent down to ``getrusage`` of a child; VmHWM is the child's own.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def show_large(simulations: Iterable[Simulation]) -> list[Fitted]:
    """Print one row for every simulation."""
    fits: list[Fitted] = []
    columns = ("case", "rows", "levels", "model s", "fit s", "evaluations")
    memory = ("data MiB", "read MiB", "peak MiB", "logLik")
    printed = Printed("Large simulated data, each in a fresh process", (*columns, *memory), 17)
    for case in simulations:
        found = measure(case)
        printed.row(
            (
                *(case.name, f"{case.rows:.0e}", "x".join(str(J) for J in case.levels)),
                *(number(found.model), number(found.fit)),
                f"{found.evaluations}{'' if found.converged else ' (not converged)'}",
                *(f"{mib:.0f}" for mib in (found.data_mib, found.read_mib, found.peak_mib)),
                f"{found.loglik:.2f}",
            )
        )
        fits.append(Fitted(case.name, found.work, found.evaluations, found.fit))
    return fits


def show_growth(largest: int) -> None:
    """Seconds against rows, levels and crossed terms; no table has more than ``largest`` rows."""
    families = ("gaussian", "poisson")
    _grow(
        "Growth with rows: 1000 levels",
        "rows",
        {
            f"{n:.0e}": [Simulation(f, n, (1000,), family=f) for f in families]
            for n in (10**4, 10**5, 10**6, 10**7)
            if largest >= n
        },
    )
    rows = min(10**6, largest)
    _grow(
        f"Growth with levels: {rows:.0e} rows",
        "levels",
        {
            f"{J:.0e}": [Simulation(f, rows, (J,), family=f) for f in families]
            for J in (10**2, 10**3, 10**4, 10**5)
            if rows >= J
        },
    )
    rows = min(10**5, largest)
    _grow(
        f"Growth with crossed terms: {rows:.0e} rows, 200 levels each",
        "terms",
        {
            str(terms): [Simulation(f, rows, (200,) * terms, family=f) for f in families]
            for terms in (1, 2, 3, 4)
        },
    )


def _grow(title: str, what: str, cases: dict[str, list[Simulation]]) -> None:
    columns = ("LMM model s", "LMM fit s", "evaluations", "Poisson model s", "Poisson fit s")
    printed = Printed(title, (what, *columns, "evaluations"), 8)
    for label, simulations in cases.items():
        cells = [label]
        for found in map(measure, simulations):
            cells += [number(found.model), number(found.fit), str(found.evaluations)]
        printed.row(cells)


def main() -> None:
    """Fit the table in the file named on the command line; print a Measured as JSON."""
    path, formula, family = sys.argv[1:]
    data = pl.read_parquet(path)
    bg.fit(bg.model(formula, data.head(_WARM_ROWS), family=family), bg.ML())
    read = _peak_mib()
    start = time.perf_counter()
    model = bg.model(formula, data, family=family)
    made = time.perf_counter()
    fit = bg.fit(model, bg.ML())
    done = time.perf_counter()
    found = Measured(
        model=made - start,
        fit=done - made,
        data_mib=data.estimated_size("mb"),
        read_mib=read,
        peak_mib=_peak_mib(),  # taken before the work is counted
        evaluations=fit.outcome.evaluations,
        converged=fit.outcome.converged,
        loglik=fit.loglik,
        work=count(model),
    )
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
