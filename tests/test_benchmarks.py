"""The benchmarks count right and their models can be built; no test asserts a time."""

from __future__ import annotations

import numpy as np
import pytest

import bayesglmm as bg
from benchmarks.cases import CASES, Case
from benchmarks.floor import count
from benchmarks.simulated import Simulation


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
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
