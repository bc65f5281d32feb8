"""The benchmarks count right and their models can be built; no test asserts a time."""

from __future__ import annotations

import numpy as np
import pytest

import bayesglmm as bg
from bayesglmm.nuts import Sampled
from bayesglmm.posterior.sampled import SampledPosterior
from benchmarks import nuts
from benchmarks.cases import CASES, Case
from benchmarks.floor import count
from benchmarks.samplers import Measured, Size, worst
from benchmarks.simulated import Simulation


@pytest.mark.parametrize(
    "case", list(dict.fromkeys((*CASES, *nuts.CASES))), ids=lambda case: case.name
)
def test_formula_names_columns_of_the_data(case: Case) -> None:
    data = case.load()
    model = case.model(data)
    assert case.response in data.columns
    assert model.design.n == data.height


def test_one_factor_leaves_nothing_dense() -> None:
    case = CASES[0]
    work = count(case.model(case.load()))
    assert (work.q, work.fill_flops, work.passes) == (0, 0.0, 0)
    assert work.row_bytes == 180 * (8 * (2 + 2 + 2) + 4)


def test_fill_of_two_crossed_factors() -> None:
    simulation = Simulation("crossed", 300, (40, 15), family="poisson")
    data = simulation.data()
    work = count(bg.model(simulation.formula, data, family="poisson"))
    met = data.group_by("g0").n_unique()["g1"].to_numpy().astype(np.float64)
    assert work.q == data["g1"].n_unique()
    assert work.fill_flops == 3.0 * float(met @ met)
    assert work.passes == 2


def test_skewed_pairs_are_distinct() -> None:
    data = Simulation("ratings", 3000, (200, 100), skewed=True).data()
    assert data.height == 3000
    assert not data.select("g0", "g1").is_duplicated().any()


@pytest.mark.filterwarnings("ignore::bayesglmm.BayesglmmWarning")  # few draws
def test_smallest_ess_is_that_of_the_diagnostics() -> None:
    case = CASES[0]
    posterior = case.model(case.load()).fit("nuts", draws=50, seed=1, progress=False).posterior
    assert isinstance(posterior, SampledPosterior) and isinstance(posterior.run, Sampled)
    run = posterior.run
    names = ("beta", "sd_Subject", "corr_Subject", "b_Subject", "sigma")
    found = worst({name: run.values(name) for name in names})
    assert found == pytest.approx((run.diagnostics.ess_bulk[0], run.diagnostics.r_hat[0]))


def test_table_of_samplers(capsys: pytest.CaptureFixture[str]) -> None:
    case = next(case for case in nuts.CASES if case.name == "sleepstudy")
    (compared,) = nuts.show_models([case], Size(chains=2, draws=20), "none")
    said = capsys.readouterr().out
    assert "180 rows, 36 effects" in said
    assert compared.runs[0].how in said
    (row,) = (line for line in said.splitlines() if line.startswith("  ours "))
    assert row.split()[3] == "0"  # divergences
    assert compared.runs[0].gradients >= 2 * 20


def test_ratio_is_to_nutpie() -> None:
    def measured(who: str, ess: float, sampling: float) -> Measured:
        return Measured(who, "", ess, 1.0, 0, 100, 0.0, sampling, 0.0)

    ours, nutpie = measured("ours", 4000.0, 0.5), measured("nutpie", 800.0, 2.0)
    compared = nuts.Compared(nuts.CASES[0], (nutpie, ours))
    assert compared.ratio(ours) == pytest.approx(20.0)
    assert compared.ratio(nutpie) == 1.0
    assert nuts.Compared(nuts.CASES[0], (ours,)).ratio(ours) is None


def test_unknown_case_is_refused() -> None:
    with pytest.raises(SystemExit, match="no case is called 'verbag'; did you mean 'verbagg'"):
        nuts.main(["--only", "verbag"])
