"""lme4, glmmTMB and the Python package `glmm` on the same model, where they are installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.cases import Case

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Result:
    """What a rival found; ``seconds`` is None where it was not timed."""

    loglik: float
    seconds: float | None = None


@dataclass(frozen=True)
class Rivals:
    """Which rivals are here.

    Attributes
    ----------
    rscript
        Whether there is an R.
    glmm_python
        A Python that has `glmm`, or "".
    """

    rscript: bool
    glmm_python: str

    def run(self, case: Case, data: pl.DataFrame, runs: int) -> dict[str, Result]:
        """Every rival that can fit the case: "lme4", "lme4_tight", "glmmTMB", "glmm"."""
        found: dict[str, Result] = {}
        with _request(case, data, runs) as request:
            if self.rscript:
                answer = _answer(["Rscript", str(_HERE / "rivals.R"), request], "R")
                for who, why in answer.pop("failed", {}).items():
                    print(f"  ({who} failed: {why})")
                found |= {name: Result(**result) for name, result in answer.items()}
            if self.glmm_python:
                script = str(_HERE / "rival_glmm.py")
                answer = _answer([self.glmm_python, script, request], "glmm")
                found |= {"glmm": Result(**answer)} if answer else {}
        return found

    def describe(self) -> str:
        """Versions, for the head of the table."""
        said: list[str] = []
        if self.rscript:
            code = (
                "for (p in c('lme4', 'glmmTMB')) if (requireNamespace(p, quietly = TRUE)) "
                "cat(p, as.character(packageVersion(p)), '· '); "
                "cat('R', as.character(getRversion()), 'with', extSoftVersion()[['BLAS']])"
            )
            said.append(_output(["Rscript", "-e", code]).stdout.strip())
        if self.glmm_python:
            code = "import importlib.metadata as m; print('glmm', m.version('glmm'))"
            said.append(_output([self.glmm_python, "-c", code]).stdout.strip())
        return " · ".join(said) or "none installed"


def rivals_here(glmm_python: str) -> Rivals:
    """Look for R, and for `glmm` in the Python named or else in this one."""
    python = glmm_python or sys.executable
    has_glmm = _output([python, "-c", "import glmm, pandas"]).returncode == 0
    if glmm_python and not has_glmm:
        raise SystemExit(f"--glmm-python {glmm_python}: it cannot import glmm and pandas")
    return Rivals(shutil.which("Rscript") is not None, python if has_glmm else "")


NO_RIVALS = Rivals(False, "")


@contextmanager
def _request(case: Case, data: pl.DataFrame, runs: int) -> Iterator[str]:
    """The case and its data in a temporary folder, the response as 0 and 1 if it is text."""
    variables = [name for name in data.columns if name in re.findall(r"\w+", case.formula)]
    data = data.select(variables)
    levels = {name: _levels(data[name]) for name in variables if not data[name].dtype.is_numeric()}
    if case.response in levels:
        low = levels.pop(case.response)[0]
        data = data.with_columns((pl.col(case.response) != low).cast(pl.Int64))
    with tempfile.TemporaryDirectory() as folder:
        csv, request = Path(folder) / "data.csv", Path(folder) / "request.json"
        data.write_csv(csv)
        content = {
            "csv": str(csv),
            "levels": levels,
            "formula": case.r_formula or case.formula,
            "family": case.family,
            "nagq": case.nagq,
            "runs": runs,
        }
        request.write_text(json.dumps(content))
        yield str(request)


def _levels(column: pl.Series) -> list[str]:
    if isinstance(column.dtype, pl.Enum):
        return [str(level) for level in column.dtype.categories]
    return sorted(str(level) for level in column.drop_nulls().unique())


def _output(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _answer(command: list[str], who: str) -> dict[str, Any]:
    done = _output(command)
    if done.returncode != 0:
        print(f"  ({who} failed: {' '.join(done.stderr.split())[-200:]})")
        return {}
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
