"""How chains are run: reproducibly, until enough, interrupted, into a store, resumed."""

from __future__ import annotations

import _thread
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import scipy.stats
from filelock import FileLock
from numpy.typing import NDArray

import bayesglmm as bg
from bayesglmm.nuts import sampler
from bayesglmm.nuts.chain import draw_start
from bayesglmm.nuts.diagnostics import Diagnostics, diagnose
from bayesglmm.nuts.noise import BLOCK, standard_normals
from bayesglmm.nuts.options import NUTS
from bayesglmm.nuts.progress import Picture, Standing, html
from bayesglmm.nuts.run import Drawn, run
from bayesglmm.nuts.target import Shape
from bayesglmm.posterior.convergence import ess_and_rhat
from bayesglmm.posterior.sampled import SampledPosterior

sys.path.insert(0, str(Path(__file__).parent))
from toy_target import MEAN, SD, toy, toy_model, toy_route

Array = NDArray[np.float64]


def options(**changes: Any) -> NUTS:
    return replace(NUTS(tune=300, target_accept=0.85, adaptation="diag", progress=False), **changes)


# effective sample sizes --------------------------------------------------------------------


def autoregression(chains: int, draws: int, phi: float, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(chains, draws, 5))
    x = noise.copy()
    for i in range(1, draws):
        x[:, i] = phi * x[:, i - 1] + np.sqrt(1.0 - phi**2) * noise[:, i]
    x[..., 0] = np.round(x[..., 0])  # ties
    x[..., 1] += 0.3 * np.arange(chains)[:, None]  # chains that differ
    return x


@pytest.mark.parametrize("phi", [-0.5, 0.0, 0.9, 0.999])
@pytest.mark.parametrize(("chains", "draws"), [(1, 101), (2, 7), (4, 100), (3, 400)])
def test_ess_and_rhat_are_arvizs(chains: int, draws: int, phi: float) -> None:
    from arviz_stats.base import array_stats

    x = autoregression(chains, draws, phi, seed=chains)
    axes = {"chain_axis": 0, "draw_axis": 1}
    found = ess_and_rhat(x)
    with np.errstate(all="ignore"):  # parts that are constant
        expected = {
            "ess_bulk": array_stats.ess(x, **axes, method="bulk"),
            "ess_tail": array_stats.ess(x, **axes, method="tail", prob=(0.05, 0.95)),
            "r_hat": array_stats.rhat(x, **axes),
            "mcse": array_stats.mcse(x, **axes),
        }
    for name, column in expected.items():
        assert np.allclose(found[name], column, rtol=1e-10, equal_nan=True), name


def test_ess_of_constants_and_of_missing_draws() -> None:
    x = np.random.default_rng(1).normal(size=(4, 50, 4))
    x[..., 0] = 2.0
    x[1, 3, 1] = np.nan
    x[2, 5, 2] = np.inf
    found = ess_and_rhat(x)
    assert found["ess_bulk"][0] == 200
    assert np.isnan(found["r_hat"][:3]).all()
    assert np.isnan(found["ess_bulk"][1:3]).all()
    assert np.isfinite([column[3] for column in found.values()]).all()
    assert np.isnan(ess_and_rhat(x[:, :3])["ess_bulk"]).all()


def test_many_quantities_in_threads_are_each_their_own() -> None:
    x = np.random.default_rng(1).normal(size=(4, 700, 730))
    found = ess_and_rhat(x)
    for k in (0, 31, 32, 729):
        alone = ess_and_rhat(x[..., k : k + 1])
        assert all(alone[name][0] == found[name][k] for name in found)


# runs --------------------------------------------------------------------------------------


def same(a: Drawn, b: Drawn) -> bool:
    return all(np.array_equal(a.values[n], b.values[n]) for n in a.values) and all(
        np.array_equal(a.statistics[n], b.statistics[n]) for n in a.statistics
    )


def test_the_same_seed_draws_the_same_on_any_number_of_cores() -> None:
    first = run(toy(), options(draws=230, cores=1), 7)
    assert first.values["beta"].shape == (4, 230, 1)
    for other in (
        run(toy(), options(draws=230, cores=4), 7),
        run(toy(native=False), options(draws=230, cores=2), 7),
    ):
        assert same(first, other)
    assert not same(first, run(toy(), options(draws=230), 8))
    assert len(np.unique(first.values["beta"][:, 0, 0])) == 4
    assert len(np.unique(first.values["noise"])) == first.values["noise"].size


def test_noise_is_standard_normal_and_leans_away_from_the_row_before() -> None:
    z = standard_normals(5, 2, 0, 1000, 200)
    flat = np.sort(z.ravel())
    apart = np.abs(scipy.stats.norm.cdf(flat) - (np.arange(flat.size) + 0.5) / flat.size).max()
    assert apart < 2.0 / np.sqrt(flat.size)
    blocks = z.reshape(-1, BLOCK, 200)  # each has a seed of its own
    for lag in (1, 2, 3):
        products = blocks[:, lag:] * blocks[:, :-lag]
        assert products.mean() == pytest.approx((-0.25) ** lag, abs=0.02)
    assert (z[BLOCK::BLOCK] * z[BLOCK - 1 : -1 : BLOCK]).mean() == pytest.approx(0.0, abs=0.1)
    assert np.abs(np.corrcoef(z.T) - np.eye(200)).max() < 0.2  # of one row they are independent
    assert np.array_equal(z[300:520], standard_normals(5, 2, 300, 520, 200))
    assert not np.isin(z, standard_normals(5, 3, 0, 1000, 200)).any()


@pytest.mark.parametrize("shape", ["", "normal", "ridge"])
@pytest.mark.parametrize("adaptation", ["diag", "low_rank"])
def test_draws_are_from_the_target(shape: Shape, adaptation: str) -> None:
    """However long its steps and trajectories are."""
    drawn = run(replace(toy(), shape=shape), options(draws=2000, adaptation=adaptation), 3)
    for x, mean, sd in (
        (drawn.values["beta"][..., 0], MEAN[0], SD[0]),
        (np.log(drawn.values["sigma"]), MEAN[1], SD[1]),
    ):
        found = ess_and_rhat(x[..., None])
        assert found["r_hat"][0] < 1.01
        assert abs(x.mean() - mean) < 4.0 * found["mcse"][0]
        assert x.std() == pytest.approx(sd, rel=0.05)
    assert not drawn.statistics["diverging"].any()


@pytest.mark.parametrize("size", [2, 400])
def test_a_short_warm_up_learns_step_size_and_scales(size: int) -> None:
    """Scales off by a factor of two, as Laplace coordinates may be for a few parameters."""
    sd = np.geomspace(0.5, 2.0, size)
    target = toy(mean=np.zeros(size), sd=sd)
    target = replace(target, expand=lambda x, noise: {"x": x})
    drawn = run(target, options(draws=500), 5)
    x = drawn.values["x"]
    assert np.max(ess_and_rhat(x)["r_hat"]) < 1.02
    assert x.std(axis=(0, 1)) == pytest.approx(sd, rel=0.25)
    assert 0.8 < drawn.statistics["acceptance_rate"].mean() < 0.97
    assert not drawn.statistics["diverging"].any()


def test_min_ess_stops_when_every_variable_has_it() -> None:
    drawn = run(
        toy(),
        NUTS(min_ess=900, tune=300, target_accept=0.85, adaptation="diag", progress=False, cores=1),
        2,
    )
    assert drawn.enough
    assert drawn.draws < 3000
    assert drawn.draws % 100 == 0
    for x in drawn.values.values():
        found = ess_and_rhat(x.reshape(*x.shape[:2], -1))
        assert min(found["ess_bulk"].min(), found["ess_tail"].min()) >= 900
        assert found["r_hat"].max() <= 1.01
    again = NUTS(
        min_ess=900, tune=300, target_accept=0.85, adaptation="diag", progress=False, cores=4
    )
    assert same(drawn, run(toy(), again, 2))
    longer = run(toy(), options(draws=drawn.draws + 50), 2)  # neither changes the draws
    assert np.array_equal(longer.values["noise"][:, : drawn.draws], drawn.values["noise"])


def test_min_ess_that_is_out_of_reach_ends_at_the_cap() -> None:
    drawn = run(toy(), options(min_ess=1e5, draws=150), 2)
    assert not drawn.enough
    assert drawn.draws == 150


def test_a_density_that_is_nowhere_finite_is_refused() -> None:
    bad = replace(toy(), log_density=lambda x, gradient: float("nan"))
    with pytest.raises(bg.FitError, match=r"cannot start.*100 starting points"):
        run(bad, options(), 1)
    starts = [draw_start(toy(), seed) for seed in range(200)]
    assert np.std(starts) == pytest.approx(1.0, abs=0.15)


def test_a_chain_that_breaks_off_says_why() -> None:
    calls = []

    def log_density(x: Array, gradient: Array) -> float:
        calls.append(1)
        started = threading.current_thread() is not threading.main_thread()
        if started and len(calls) > 20:  # not where a later chain is given its start
            raise ValueError("no more")
        gradient[:] = -x
        return -0.5 * float(x @ x)

    bad = replace(toy(native=False), log_density=log_density)
    with pytest.raises(bg.FitError, match=r"chain broke off.*no more"):
        run(bad, options(), 1)


# Short runs draw warnings, which are not what is tested.
short = pytest.mark.filterwarnings("ignore::bayesglmm.errors.BayesglmmWarning")

# through fit -------------------------------------------------------------------------------


@pytest.fixture
def toy_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "choose_route", toy_route(toy()))


def interrupt_after(seconds: float) -> None:
    threading.Timer(seconds, _thread.interrupt_main).start()


@pytest.mark.parametrize("cores", [1, 4])
def test_ctrl_c_keeps_the_draws_so_far(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(sampler, "choose_route", toy_route(toy(wait=1e-5)))
    interrupt_after(1.5)
    with pytest.warns(bg.BayesglmmWarning, match=r"Interrupted: \d+ of 100000 draws per chain"):
        fit = toy_model().fit("nuts", draws=100_000, tune=10, seed=1, cores=cores, progress=False)
    draws = fit.to_arviz()["posterior"].sizes["draw"]
    assert 4 <= draws < 100_000
    assert fit.method == f"NUTS (4 chains x {draws} draws, interrupted)"
    assert "interrupted" in str(fit.params)
    assert np.isfinite(fit.to_arviz()["posterior"]["beta"].values).all()


def test_ctrl_c_in_the_warm_up_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "choose_route", toy_route(toy(wait=0.02)))
    interrupt_after(0.5)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted during the warm-up.*nothing to keep"):
        toy_model().fit("nuts", seed=1, progress=False)


def test_min_ess_not_reached_is_said(toy_fits: None) -> None:
    with pytest.warns(bg.BayesglmmWarning, match=r"min_ess=50000 was not reached in 200 draws"):
        toy_model().fit("nuts", min_ess=50_000, draws=200, seed=1, progress=False)
    fit = toy_model().fit("nuts", min_ess=500, seed=1, progress=False)
    assert diagnostics(fit).notes == ()
    assert fit.method == f"NUTS (4 chains x {fit.to_arviz()['posterior'].sizes['draw']} draws)"


def diagnosed(x: Array, asked: NUTS | None = None, **statistics: NDArray[Any]) -> tuple[str, ...]:
    """Notes on draws (chains, draws) of the coefficient, all else being well."""
    import xarray as xr

    shape = x.shape
    rng = np.random.default_rng(0)
    run = {
        "diverging": np.zeros(shape, dtype=bool),
        "reached_max_treedepth": np.zeros(shape, dtype=bool),
        "energy": rng.normal(size=shape),
        **statistics,
    }
    dims = ("chain", "draw")
    tree = xr.DataTree.from_dict(
        {
            "/posterior": xr.Dataset(
                {"beta": ((*dims, "coef"), x[..., None])}, coords={"coef": ["x"]}
            ),
            "/sample_stats": xr.Dataset({n: (dims, a) for n, a in run.items()}),
        }
    )
    return diagnose(tree, ["beta"], Drawn({}, run, False, True), asked or NUTS()).notes


def test_diagnostics_say_what_is_wrong_and_what_to_do() -> None:
    x = np.random.default_rng(1).normal(size=(4, 500))
    assert diagnosed(x) == ()
    apart = x + np.array([0.0, 0.0, 3.0, 0.0])[:, None]
    notes = diagnosed(apart)
    assert notes[0].startswith("R-hat is")
    assert notes[-1].startswith("Chain 2 differs from the others: beta[x] has mean ")
    assert not any("differs" in n for n in diagnosed(x + np.arange(4.0)[:, None]))
    some = np.arange(2000).reshape(4, 500) < 3
    (note,) = diagnosed(x, reached_max_treedepth=some)
    assert "3 transition(s) reached the maximal tree depth" in note
    (note,) = diagnosed(x, diverging=some)
    assert "3 divergent transition(s)" in note
    assert "centred" not in note
    for plain in (NUTS(coordinates="plain"), NUTS(centred=True), NUTS(sampler="pymc")):
        (note,) = diagnosed(x, plain, diverging=some)
        assert "try centred=True or False" in note
    (note,) = diagnosed(x, energy=np.cumsum(x, axis=1))
    assert "E-BFMI is 0.0" in note


# stores ------------------------------------------------------------------------------------


def beta(fit: bg.Fit) -> Array:
    return np.asarray(fit.to_arviz()["posterior"]["beta"].values)


@short
def test_a_store_holds_the_run_and_goes_on(toy_fits: None, tmp_path: Path) -> None:
    how: dict[str, Any] = {"seed": 4, "progress": False}
    plain = toy_model().fit("nuts", draws=250, **how)
    store = str(tmp_path / "new" / "run")
    stored = toy_model().fit("nuts", draws=250, store=store, **how)
    assert np.array_equal(beta(plain), beta(stored))  # storing changes nothing

    def refuse(model: object, options: object) -> sampler.Route:
        raise AssertionError("a finished store needs no sampling")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler, "choose_route", refuse)
        back = toy_model().fit("nuts", draws=250, store=store, progress=False)
        assert back.diagnostics == stored.diagnostics
        assert used(back) == used(stored)
        assert np.array_equal(beta(back), beta(stored))
        shorter = toy_model().fit("nuts", draws=230, store=store, **how)
        assert np.array_equal(beta(shorter), beta(stored)[:, :230])
    longer = toy_model().fit("nuts", draws=600, store=store, **how)
    assert np.array_equal(beta(longer)[:, :250], beta(stored))
    assert diagnostics(longer).r_hat[0] < 1.02
    assert diagnostics(longer).divergences == 0


def test_a_store_goes_on_until_min_ess(toy_fits: None, tmp_path: Path) -> None:
    how: dict[str, Any] = {"seed": 4, "store": tmp_path, "progress": False}
    first = toy_model().fit("nuts", min_ess=500, **how)
    again = toy_model().fit("nuts", min_ess=500, **how)
    assert np.array_equal(beta(first), beta(again))
    more = toy_model().fit("nuts", min_ess=1500, **how)
    have = beta(first).shape[1]
    assert beta(more).shape[1] > have
    assert np.array_equal(beta(more)[:, :have], beta(first))
    assert min(diagnostics(more).ess_bulk[0], diagnostics(more).ess_tail[0]) >= 1500


@short
def test_an_interrupted_store_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sampler, "choose_route", toy_route(toy(wait=1e-5)))
    how: dict[str, Any] = {"tune": 10, "chains": 2, "seed": 1, "progress": False}
    interrupt_after(1.0)
    with pytest.warns(bg.BayesglmmWarning, match="same store= to go on"):
        first = toy_model().fit("nuts", draws=50_000, store=tmp_path, **how)
    have = beta(first).shape[1]
    monkeypatch.setattr(sampler, "choose_route", toy_route(toy()))
    fit = toy_model().fit("nuts", draws=have + 300, store=tmp_path, **how)
    assert np.array_equal(beta(fit)[:, :have], beta(first))
    assert beta(fit).shape == (2, have + 300, 1)


def used(fit: bg.Fit) -> NUTS:
    assert isinstance(fit.posterior, SampledPosterior)
    options = fit.posterior.run.options
    assert isinstance(options, NUTS)
    return options


def diagnostics(fit: bg.Fit) -> Diagnostics:
    found = fit.diagnostics
    assert isinstance(found, Diagnostics)
    return found


DATA = {"y": [2.0, 3.0, 4.5], "x": [1.0, 2.0, 2.0]}
MISMATCHES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "formula": (lambda: bg.lm("y ~ 0 + x", DATA), {}, "its formula is 'y ~ 1', and this is"),
    "data": (lambda: bg.lm("y ~ 1", {"y": [2.0, 3.0, 4.6]}), {}, "its data are not these data"),
    "prior": (
        lambda: bg.lm("y ~ 1", {"y": [2.0, 3.0, 4.5]}, priors={"sigma": bg.Exponential(1)}),
        {},
        "its prior of 'sigma' is .*, and this is Exponential",
    ),
    "option": (
        toy_model,
        {"target_accept": 0.8},
        "its NUTS option target_accept is left to the default, and this",
    ),
    "chains": (toy_model, {"chains": 3}, "its NUTS option chains is 4, and this is 3"),
    "seed": (toy_model, {"seed": 5}, "holds draws with seed=4, and this is seed=5"),
}


@short
@pytest.mark.parametrize("name", MISMATCHES)
def test_a_store_refuses_another_run(toy_fits: None, tmp_path: Path, name: str) -> None:
    toy_model().fit("nuts", draws=100, seed=4, store=tmp_path, progress=False)
    make, changes, match = MISMATCHES[name]
    with pytest.raises(bg.ChoiceError, match=match):
        make().fit("nuts", **{"draws": 100, "store": tmp_path, "progress": False, **changes})


@short
def test_a_store_of_a_version_that_chose_otherwise(toy_fits: None, tmp_path: Path) -> None:
    toy_model().fit("nuts", draws=100, seed=4, store=tmp_path, progress=False)
    used = json.loads((tmp_path / "used.json").read_text())
    used["settings"]["tune"] = 777
    (tmp_path / "used.json").write_text(json.dumps(used))
    with pytest.raises(bg.ChoiceError, match=r"in another way \(tune=777, now \d+\); give a new"):
        toy_model().fit("nuts", draws=200, store=tmp_path, progress=False)


@short
def test_a_store_is_for_one_process_at_a_time(toy_fits: None, tmp_path: Path) -> None:
    toy_model().fit("nuts", draws=100, seed=4, store=tmp_path, progress=False)
    with FileLock(tmp_path / "lock"), pytest.raises(bg.ChoiceError, match="in use: another"):
        toy_model().fit("nuts", draws=200, store=tmp_path, progress=False)
    after = toy_model().fit("nuts", draws=200, store=tmp_path, progress=False)
    assert beta(after).shape[1] == 200


@short
@pytest.mark.parametrize("harm", ["lost", "cut"])
def test_a_damaged_store_says_where(toy_fits: None, tmp_path: Path, harm: str) -> None:
    whole = toy_model().fit("nuts", draws=200, seed=4, store=tmp_path, progress=False)
    block = tmp_path / "chain-1" / "block-00000000"
    piece = next(p for p in sorted(block.rglob("c/*")) if p.is_file() or (p / "0").is_file())
    piece = piece if piece.is_file() else piece / "0"
    if harm == "lost":
        piece.unlink()
    else:
        piece.write_bytes(piece.read_bytes()[:-3])
    with pytest.raises(bg.FileError, match=r"chain 1 cannot be read from draw 0 on.*delete it"):
        toy_model().fit("nuts", draws=200, store=tmp_path, progress=False)
    shutil.rmtree(tmp_path / "chain-1")
    again = toy_model().fit("nuts", draws=200, store=tmp_path, progress=False)
    assert np.array_equal(beta(whole), beta(again))


def test_priors_that_differ_in_the_fifth_digit_are_not_one_run(tmp_path: Path) -> None:
    cars = bg.load_dataset("mtcars")
    first, other = (
        bg.lm("mpg ~ wt", cars, priors={"(Intercept)": bg.Normal(mean, 0.01)})
        for mean in (10001.0, 10004.0)
    )
    first.fit("nuts", draws=500, seed=1, store=tmp_path, progress=False)
    with pytest.raises(bg.ChoiceError, match=r"mean=10001\.0.*mean=10004\.0"):
        other.fit("nuts", draws=500, store=tmp_path, progress=False)


@short
def test_a_directory_that_is_no_store_is_refused(toy_fits: None, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(bg.ChoiceError, match="not a store of draws, and not empty"):
        toy_model().fit("nuts", store=tmp_path, progress=False)
    (tmp_path / "notes.txt").rename(tmp_path / "specification.json")
    with pytest.raises(bg.ChoiceError, match="cannot be read"):
        toy_model().fit("nuts", store=tmp_path, progress=False)
    assert (tmp_path / "specification.json").read_text() == "mine"


@short
def test_a_killed_process_loses_nothing_that_was_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = tmp_path / "run"
    script = Path(__file__).with_name("toy_target.py")
    root = str(Path(bg.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    command = [sys.executable, str(script), str(store), "1000000", "1e-5"]
    with subprocess.Popen(command, env=environment) as process:
        try:
            limit = time.monotonic() + 120.0
            while len(list(store.glob("chain-*/block-*"))) < 4:
                assert process.poll() is None
                assert time.monotonic() < limit
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGKILL)
    (store / "chain-0" / "unfinished-1").mkdir(exist_ok=True)  # as if killed while writing
    blocks = {c: sorted(p.name for p in (store / f"chain-{c}").glob("block-*")) for c in range(2)}
    starts = [int(name.removeprefix("block-")) for names in blocks.values() for name in names]
    draws = max(starts) + 3000
    monkeypatch.setattr(sampler, "choose_route", toy_route(toy()))
    fit = toy_model().fit("nuts", draws=draws, tune=50, chains=2, store=store, progress=False)
    assert beta(fit).shape == (2, draws, 1)
    assert used(fit).seed == 1
    undisturbed = run(toy(), options(draws=100, tune=50, chains=2), 1)
    assert np.array_equal(beta(fit)[:, :100], undisturbed.values["beta"])
    assert diagnostics(fit).r_hat[0] < 1.03
    assert not list(store.glob("chain-*/unfinished-*"))


# other samplers, improper posteriors, progress ----------------------------------------------


@pytest.mark.parametrize("name", ["numpyro", "blackjax"])
def test_a_sampler_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("bayesglmm.nuts.others.find_spec", lambda package: None)
    with pytest.raises(bg.ChoiceError, match=rf"needs jax and {name}, .*pip install jax {name}"):
        toy_model().fit("nuts", sampler=name)


def test_a_blackjax_that_is_too_new_for_pymc(monkeypatch: pytest.MonkeyPatch) -> None:
    import pymc

    def sample(**settings: Any) -> Any:
        raise TypeError("kernel() got an unexpected keyword argument 'progress_bar'")

    monkeypatch.setattr("bayesglmm.nuts.others.find_spec", lambda package: object())
    monkeypatch.setattr("bayesglmm.nuts.others._chain_method", lambda chains: "parallel")
    monkeypatch.setattr(pymc, "sample", sample)
    with pytest.raises(bg.ChoiceError, match=r"BlackJAX: pip install 'blackjax<1.6', or use"):
        toy_model().fit("nuts", sampler="blackjax")
    with pytest.raises(TypeError, match="progress_bar"):  # of whatever else
        toy_model().fit("nuts", sampler="numpyro")


@pytest.mark.filterwarnings("ignore:R-hat is", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["numpyro", "blackjax"])
def test_samplers_on_jax(name: str) -> None:
    pytest.importorskip(name)
    model = bg.lm("Reaction ~ Days", bg.load_dataset("sleepstudy"))
    fit: Any = model.fit("nuts", sampler=name, seed=1, progress=False)
    exact: Any = model.fit("nuts", seed=1, progress=False)
    apart = fit.params["estimate"][0] - exact.params["estimate"][0]
    assert abs(apart) < 0.2 * exact.params["std_error"][0]
    assert fit.diagnostics.r_hat[0] < 1.05 and name in fit.summary().text()


def test_what_only_nutpie_can_do() -> None:
    for wrong in ({"min_ess": 100}, {"store": "here"}):
        with pytest.raises(bg.ChoiceError, match='needs sampler="nutpie"; this is'):
            NUTS(sampler="pymc", **cast(Any, wrong))
    for ess in (0, -5, float("nan"), True, "many"):
        with pytest.raises(bg.ChoiceError, match=r"min_ess=.*positive number"):
            NUTS(min_ess=cast(Any, ess))
    with pytest.raises(bg.ChoiceError, match="store=3: give the path"):
        NUTS(store=cast(Any, 3))
    assert NUTS().draws == 1000
    assert NUTS(min_ess=1000).draws == 20_000
    assert NUTS(min_ess=1000, draws=50).draws == 50


RNG = np.random.default_rng(1)
GROUPED = {
    "y": RNG.normal(size=40),
    "n": RNG.exponential(size=40),
    "x": RNG.normal(size=40),
    "z": RNG.normal(size=40),
    "g": list("abcde") * 8,
    **{name: np.tile(RNG.normal(size=5), 8) for name in "uvw"},
}
SEPARATED = {"y": [0, 0, 0, 1, 1, 1], "x": [1.0, 2, 3, 4, 5, 6], "g": list("aabbcc")}
IMPROPER: dict[str, tuple[Any, str | None]] = {
    "separation": (
        lambda: bg.glm("y ~ x", SEPARATED, family="binomial", priors="flat"),
        r"improper: x separates the outcomes of 6 of 6 rows.*priors=\{\"x\": bg\.Normal",
    ),
    "separation by one flat prior": (
        lambda: bg.glm("y ~ x", SEPARATED, family="binomial", priors={"x": bg.Flat()}),
        "improper: x separates",
    ),
    "no events": (
        lambda: bg.glm(
            "y ~ f", {"y": [0, 0, 3, 4], "f": list("uuvv")}, family="poisson", priors="flat"
        ),
        "improper: fv separates the outcomes of 2 of 4 rows",
    ),
    "two levels": (
        lambda: bg.lmer(
            "y ~ 1 + (1|g)", {"y": np.arange(8.0) % 3, "g": list("aaaabbbb")}, priors="flat"
        ),
        r"improper: the sd of 'g' \(\(Intercept\)\) is learnt from 2 levels, and a flat prior needs"
        r' at least 3.*priors=\{"sd:g": bg\.HalfStudentT',
    ),
    "levels that say little": (
        lambda: bg.glmer(
            "y ~ 1 + (1|g)",
            {"y": [0, 1, 0, 1, 1, 1, 0, 0, 1], "g": list("aabbccddd")},
            family="binomial",
            priors={"(Intercept)": bg.Flat(), "sd:g": bg.HalfFlat()},
        ),
        None,
    ),
    "levels with one outcome": (
        lambda: bg.glmer(
            "y ~ 1 + (1|g)",
            {"y": [0, 1, 0, 1, 1, 1, 0, 0, 0], "g": list("aabbccddd")},
            family="binomial",
            priors={"(Intercept)": bg.Flat(), "sd:g": bg.HalfFlat()},
        ),
        r"learnt from 2 of its 4 levels only",
    ),
    "a factor that is a fixed effect, too": (
        lambda: bg.lmer("y ~ g + (1|g)", GROUPED, priors="flat"),
        r"learnt from 5 levels, and a flat prior needs at least 7 beside the coefficients",
    ),
    "predictors of groups": (
        lambda: bg.lmer(
            "y ~ u + v + (1|g)", GROUPED, priors={"slopes": bg.Flat(), "sd:g": bg.HalfFlat()}
        ),
        None,
    ),
    "too many predictors of groups": (
        lambda: bg.lmer("y ~ u + v + w + (1|g)", GROUPED, priors="flat"),
        r"learnt from 5 levels, and a flat prior needs at least 6 beside",
    ),
    "predictors of rows": (
        lambda: bg.lmer("y ~ x + z + (1|g)", GROUPED, priors="flat"),
        None,
    ),
    "means that vanish": (
        lambda: bg.glm("n ~ x", GROUPED, family="gaussian", link="log", priors="flat"),
        r"levels off where means vanish.*\(Intercept\) run.*priors=",
    ),
    "means that cannot vanish together": (
        lambda: bg.glm("n ~ x", GROUPED, family="gaussian", link="log", priors={"x": bg.Flat()}),
        None,
    ),
    "as many coefficients as rows": (
        lambda: bg.lm("y ~ x", {"y": [1.0, 2, 4], "x": [1.0, 2, 2]}, priors="flat"),
        "3 rows and 2 coefficients with flat priors.*residual sd",
    ),
}


@pytest.mark.parametrize("name", IMPROPER)
def test_improper_posteriors_are_refused(name: str) -> None:
    from bayesglmm.nuts.proper import check_proper

    make, match = IMPROPER[name]
    if match is None:
        check_proper(make())
        return
    with pytest.raises(bg.FitError, match=match):
        make().fit("nuts", progress=False)


def test_proper_priors_are_not_refused() -> None:
    from bayesglmm.nuts.proper import check_proper

    check_proper(bg.glm("y ~ x", SEPARATED, family="binomial"))
    check_proper(bg.glm("y ~ x", SEPARATED, family="binomial", priors={"(Intercept)": bg.Flat()}))
    check_proper(
        bg.lmer(
            "y ~ 1 + (1|g)",
            {"y": np.arange(8.0) % 3, "g": list("aaaabbbb")},
            priors={"sd:g": bg.HalfFlat()},
        )
    )
    check_proper(
        bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy"), priors="flat")
    )


def test_progress_picture() -> None:
    chains = (Standing(250, 1000, 0.4, False, 3, 0.51), Standing(100, 1000, 0.1, False, 0, 0.4))
    picture = Picture(chains, 412.0, 10.0)
    assert picture.left == pytest.approx(90.0)
    assert "1:30 left" in picture.footer
    assert "smallest ESS so far 412" in picture.footer
    assert picture.footer.endswith("an interrupt keeps the draws")
    assert "<td>250/1000</td><td>3</td><td>0.51</td>" in html(picture)
    warm = Picture((Standing(0, 1000, 0.0, True, 0, float("nan")),), float("nan"), 2.0)
    assert "left" not in warm.footer
    assert warm.footer.endswith("warming up")
    assert "<td>warm-up</td>" in html(warm)


@short
def test_nothing_is_shown_where_nobody_looks(
    toy_fits: None, capfd: pytest.CaptureFixture[str]
) -> None:
    toy_model().fit("nuts", draws=200, seed=1)
    assert capfd.readouterr() == ("", "")
