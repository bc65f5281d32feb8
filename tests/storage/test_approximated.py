"""Fits by Laplace's approximation in files, and pickled: everything comes back as it was."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import bayesglmm as bg
from bayesglmm.posterior.approximated import LaplacePosterior

RNG = np.random.default_rng(5)
G = np.arange(60) % 6
DATA = pl.DataFrame(
    {
        "x": RNG.normal(size=60),
        "g": [f"gé{k}" for k in G],
        "value": 0.8 * RNG.normal(size=6)[G] + RNG.normal(size=60),
        "count": RNG.poisson(np.exp(0.5 * RNG.normal(size=6))[G]),
    }
)
FORMULAS = {"gaussian": "value ~ x + (x|g)", "poisson": "count ~ x + (1|g)"}


@cache
def made(family: str) -> bg.Fit:
    model = bg.model(FORMULAS[family], DATA, family=family)
    return model.fit("laplace", seed=1, draws=120, proposals=200)


def check_same(fit: bg.Fit, again: bg.Fit) -> None:
    assert isinstance(fit.posterior, LaplacePosterior)
    assert isinstance(again.posterior, LaplacePosterior)
    old, new = fit.posterior.run, again.posterior.run
    assert new.model is again.model
    assert (new.options, new.diagnostics) == (old.options, old.diagnostics)
    assert again.estimator == fit.estimator and again.method == fit.method
    assert list(new.variables) == list(old.variables)
    for name, values in old.variables.items():
        assert new.variables[name].tobytes() == values.tobytes(), name
    for field in fields(old.mode):
        np.testing.assert_array_equal(getattr(new.mode, field.name), getattr(old.mode, field.name))
    for table in ("params", "ranef", "coef", "varcorr"):
        assert getattr(again, table).equals(getattr(fit, table)), table
    assert again.summary().text() == fit.summary().text()
    assert again.to_arviz().identical(fit.to_arviz())
    few = {"x": [0.5], "g": ["gé2"]}
    assert again.predict(few).equals(fit.predict(few))
    assert again.simulate(2, seed=1).equals(fit.simulate(2, seed=1))


@pytest.mark.parametrize("family", FORMULAS)
@pytest.mark.parametrize("data", [True, False])
def test_every_number_comes_back(family: str, data: bool, tmp_path: Path) -> None:
    fit = made(family)
    path = fit.save(tmp_path / "fit.bglmm", data=data)
    again = bg.load(path, data=None if data else DATA)
    check_same(fit, again)
    check_same(again, bg.load(again.save(tmp_path / "twice.bglmm")))
    with zipfile.ZipFile(path) as archive:
        assert ("data.parquet" in archive.namelist()) == data


@pytest.mark.parametrize("family", FORMULAS)
def test_pickled(family: str) -> None:
    fit = made(family)
    check_same(fit, pickle.loads(pickle.dumps(fit)))
