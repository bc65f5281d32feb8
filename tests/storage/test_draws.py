"""Fits by sampling in files: draws, diagnostics and options come back as they were."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import xarray as xr

import bayesglmm as bg
from bayesglmm.nuts import Diagnostics, Sampled
from bayesglmm.posterior.sampled import SampledPosterior

RNG = np.random.default_rng(2)
DATA = pl.DataFrame(
    {
        "y": [1.5, 2.0, None, 3.0, 5.0, 7.0, 1.25, 2.5, 0.5, 4.0],
        "x": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        "g": list("aababbbéaé"),
    }
)
CHAINS, DRAWS = 2, 40


@pytest.fixture(scope="module")
def fit() -> bg.Fit:
    model = bg.lmer("y ~ x + (x|g)", DATA)
    (term,) = model.design.random
    shape = (CHAINS, DRAWS)
    rho = RNG.uniform(-0.5, 0.5, shape)
    posterior = xr.Dataset(
        {
            "beta": (("chain", "draw", "coef"), RNG.normal(size=(*shape, 2))),
            "sd_g": (("chain", "draw", "g_term"), RNG.uniform(1, 2, (*shape, 2))),
            "corr_g": (
                ("chain", "draw", "g_term", "g_term2"),
                np.eye(2) + rho[..., None, None] * (1 - np.eye(2)),
            ),
            "b_g": (("chain", "draw", "g", "g_term"), RNG.normal(size=(*shape, term.J, 2))),
            "sigma": (("chain", "draw"), RNG.uniform(1, 2, shape)),
            "flat": (("chain", "draw"), np.full(shape, -0.0)),
            "gap": (("chain", "draw"), np.full(shape, np.nan)),
        },
        coords={
            "chain": np.arange(CHAINS),
            "draw": np.arange(DRAWS),
            "coef": np.array(model.design.names, dtype=object),
            "g": np.array(term.levels, dtype=object),
            "g_term": list(term.columns),
            "g_term2": list(term.columns),
        },
        attrs={"sample_dims": ["chain", "draw"], "inference_library": "none"},
    )
    statistics = xr.Dataset(
        {
            "diverging": (("chain", "draw"), np.zeros(shape, dtype=bool)),
            "tree_depth": (("chain", "draw"), RNG.integers(1, 9, shape).astype(np.uint64)),
            "energy": (("chain", "draw"), RNG.normal(size=shape).astype(np.float32)),
        },
        coords={"chain": np.arange(CHAINS), "draw": np.arange(DRAWS)},
    )
    observed = xr.Dataset({"y": ("obs", model.likelihood.y)}, coords={"obs": model.design.rows})
    tree = xr.DataTree.from_dict(
        {"/posterior": posterior, "/sample_stats": statistics, "/observed_data": observed}
    )
    options = bg.NUTS(
        draws=DRAWS, chains=CHAINS, tune=7, seed=3, coordinates="plain", centred={"g": True}
    )
    diagnostics = Diagnostics(
        (float("nan"), ""), (12.5, "beta[x]"), (np.inf, "sigma"), 3, 0, np.float64(0.4), ("Note.",)
    )
    run = Sampled(
        tree, options, {"g": True}, diagnostics, 0.25, np.float64(1.5), "plain coordinates", True
    )
    return bg.Fit(model, options, SampledPosterior(model.design, run))


@pytest.mark.parametrize("data", [True, False])
def test_draws_come_back_to_the_last_bit(data: bool, fit: bg.Fit, tmp_path: Path) -> None:
    path = fit.save(tmp_path / "fit.bglmm", data=data)
    again = bg.load(path, data=None if data else DATA)
    old, new = fit.to_arviz(), again.to_arviz()
    assert new.identical(old)
    assert new.groups == old.groups
    for group in old.children:
        assert list(new[group].data_vars) == list(old[group].data_vars)
        assert list(new[group].coords) == list(old[group].coords)
        for name, variable in old[group].data_vars.items():
            assert new[group][name].dtype == variable.dtype, name
            assert new[group][name].values.tobytes() == variable.values.tobytes(), name
    assert again.estimator == fit.estimator
    assert repr(again.diagnostics) == repr(fit.diagnostics)  # NaN among them
    assert isinstance(again.diagnostics, Diagnostics)
    assert type(again.diagnostics.bfmi) is np.float64
    assert isinstance(again.posterior, SampledPosterior)
    run = again.posterior.run
    assert isinstance(run, Sampled)
    assert (run.kind, run.interrupted) == ("plain coordinates", True)
    assert again.method == fit.method == "NUTS (2 chains x 40 draws, interrupted)"
    for table in ("params", "ranef", "coef", "varcorr"):
        assert getattr(again, table).equals(getattr(fit, table)), table
    assert again.summary().text() == fit.summary().text()
    few = {"x": [3, 4], "g": ["é", "a"]}
    assert again.predict(few).equals(fit.predict(few))
    assert again.predict().equals(fit.predict())
    assert again.simulate(2, seed=1).equals(fit.simulate(2, seed=1))


def test_other_tools_read_the_draws_and_the_arrays(fit: bg.Fit, tmp_path: Path) -> None:
    import zarr

    path = fit.save(tmp_path / "fit.bglmm")
    with zarr.storage.ZipStore(path, mode="r") as store:
        opened: Any = store
        tree = xr.open_datatree(
            opened, group="posterior/run/tree", engine="zarr", consolidated=False
        ).load()
    assert tree["posterior"].to_dataset().identical(fit.to_arviz()["posterior"].to_dataset())
    assert pl.read_parquet(zipfile.ZipFile(path).read("data.parquet")).columns == ["y", "x", "g"]
    ml = bg.lm("y ~ x", DATA).fit().save(tmp_path / "ml.bglmm")
    with np.load(ml) as arrays:
        assert arrays["posterior/estimate/beta"].shape == (2,)


def test_without_data_the_response_is_not_among_the_draws(fit: bg.Fit, tmp_path: Path) -> None:
    path = fit.save(tmp_path / "fit.bglmm", data=False)
    assert not [n for n in zipfile.ZipFile(path).namelist() if "observed" in n]
    assert "observed_data" in fit.to_arviz()  # the fit itself keeps it


def test_loaded_fits_are_compared_like_others(fit: bg.Fit, tmp_path: Path) -> None:
    flat = bg.lmer("y ~ x + (1|g)", DATA)
    ml, loaded = flat.fit(), bg.load(flat.fit().save(tmp_path / "ml.bglmm"))
    again = bg.load(fit.save(tmp_path / "fit.bglmm"))
    assert repr(bg.compare(loaded, ml)) == repr(bg.compare(ml, ml))
    with pytest.raises(bg.BayesglmmError) as expected:
        bg.compare(fit, ml)
    with pytest.raises(bg.BayesglmmError) as found:
        bg.compare(again, loaded)
    assert str(found.value) == str(expected.value)


def test_damaged_draws_are_not_read(fit: bg.Fit, tmp_path: Path) -> None:
    path = fit.save(tmp_path / "fit.bglmm")
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("posterior/run/tree/posterior/beta/c/0/0/0").header_offset
    content = bytearray(path.read_bytes())
    content[at + 200] ^= 4
    path.write_bytes(content)
    with pytest.raises(bg.FileError, match=r"damaged or incomplete .*beta"):
        bg.load(path)
