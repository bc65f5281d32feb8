"""Laws of the parametric bootstrap."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

import bayesglmm as bg
from bayesglmm.errors import BayesglmmWarning, ChoiceError, DataError, FitError, OptionError
from bayesglmm.post.bootstrap import Bootstrap
from bayesglmm.post.intervals import interval
from bayesglmm.posterior.sampled import SampledPosterior


@pytest.fixture(scope="module")
def sleep() -> bg.Fit:
    return bg.lmer("Reaction ~ Days + (1|Subject)", bg.load_dataset("sleepstudy")).fit()


@pytest.fixture(scope="module")
def boot(sleep: bg.Fit) -> Bootstrap:
    return sleep.bootstrap(12, seed=3)


def share(fit: bg.Fit) -> dict[str, float]:
    """A statistic that a worker process can import."""
    variance = fit.varcorr["variance"]
    return {"icc": variance[0] / variance.sum(), "slope": fit.params["estimate"][1]}


def failing_at(*calls: int, problem: type[BaseException] = RuntimeError) -> Callable[[bg.Fit], Any]:
    """A statistic that fails at some calls; call 0 is that of the fit itself."""
    counter = itertools.count()

    def statistic(fit: bg.Fit) -> float:
        if next(counter) in calls:
            raise problem("on purpose")
        return fit.loglik

    return statistic


def test_an_iteration_refits_a_simulated_response(sleep: bg.Fit, boot: Bootstrap) -> None:
    sims = sleep.simulate(12, seed=3)
    for k in (1, 5, 12):
        again = sleep.refit(sims[f"sim_{k}"])
        want = [*again.params["estimate"], *again.varcorr["estimate"]]
        found = boot.draws.filter(pl.col("iteration") == k)["estimate"]
        np.testing.assert_allclose(found, want, rtol=1e-9)
        assert boot.outcomes["loglik"][k - 1] == pytest.approx(again.loglik, abs=1e-9)


def test_draws_are_tidy(sleep: bg.Fit, boot: Bootstrap) -> None:
    assert boot.draws.columns == ["iteration", "kind", "group", "term", "term2", "estimate"]
    assert boot.draws["iteration"].unique().sort().to_list() == list(range(1, 13))
    first = boot.draws.filter(pl.col("iteration") == 1)
    assert first.drop("iteration", "estimate").equals(boot.estimates.drop("estimate"))
    assert first["kind"].to_list() == ["coef", "coef", "sd", "residual"]
    random = boot.estimates.filter(pl.col("kind") != "coef")
    assert random.select("group", "term", "term2", "kind", "estimate").equals(
        pl.DataFrame(sleep.varcorr.select("group", "term", "term2", "kind", "estimate"))
    )


def test_seeds_reproduce_and_more_iterations_continue(sleep: bg.Fit, boot: Bootstrap) -> None:
    fewer = bg.bootstrap(sleep, 4, seed=3)
    assert fewer.draws.equals(boot.draws.filter(pl.col("iteration") <= 4))
    other = bg.bootstrap(sleep, 4)
    assert not other.draws.equals(fewer.draws)
    assert bg.bootstrap(sleep, 4, seed=other.seed).draws.equals(other.draws)


def test_executors_agree_to_the_bit(sleep: bg.Fit, boot: Bootstrap) -> None:
    with ThreadPoolExecutor(3) as threads:
        assert sleep.bootstrap(12, seed=3, executor=threads).draws.equals(boot.draws)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as processes:
        with pytest.raises(OptionError, match="top level of a module"):
            sleep.bootstrap(4, executor=processes, statistic=lambda fit: fit.loglik)
        assert sleep.bootstrap(12, seed=3, executor=processes).draws.equals(boot.draws)
        found = sleep.bootstrap(2, seed=3, executor=processes, statistic=share)
    assert found.draws.equals(sleep.bootstrap(2, seed=3, statistic=share).draws)


def test_reml_refits_by_reml(sleep: bg.Fit) -> None:
    fit = sleep.model.fit("reml")
    found = fit.bootstrap(1, seed=1)
    again = fit.refit(fit.simulate(seed=1)["sim_1"])
    assert found.method == again.method == "REML"
    np.testing.assert_allclose(found.outcomes["loglik"], [again.loglik])


def test_successes_and_quadrature() -> None:
    formula = "cbind(incidence, size - incidence) ~ period + (1|herd)"
    fit = bg.glmer(formula, bg.load_dataset("cbpp"), family="binomial").fit(nagq=5)
    found = fit.bootstrap(2, seed=4)
    again = fit.refit(fit.simulate(2, seed=4)["sim_2"])
    np.testing.assert_allclose(found.outcomes["loglik"][1], again.loglik)
    assert found.method == "ML-AGQ(5)"


def test_without_random_effects() -> None:
    fit = bg.lm("mpg ~ wt", bg.load_dataset("mtcars")).fit()
    found = fit.bootstrap(400, seed=1)
    assert found.re == "zero"
    table = found.summary()
    assert table["kind"].to_list() == ["coef", "coef", "residual"]
    assert table["n"].to_list() == [400] * 3
    # About sigma sqrt((X'X)^-1), with a relative Monte Carlo error of 1 / sqrt(800).
    ratio = table["std_error"][:2].to_numpy() / fit.params["std_error"].to_numpy()
    assert np.all(np.abs(ratio - 1.0) < 4 / np.sqrt(800))
    assert abs(table["bias"][1]) < 4 * table["std_error"][1] / 20


def test_summary_agrees_with_the_draws(boot: Bootstrap) -> None:
    table = boot.summary(kind="normal")
    slope = boot.draws.filter(pl.col("term") == "Days")["estimate"].to_numpy()
    row = table.row(1, named=True)
    assert row["std_error"] == pytest.approx(slope.std(ddof=1))
    assert row["bias"] == pytest.approx(slope.mean() - row["estimate"])
    centre = (row["conf_low"] + row["conf_high"]) / 2
    assert centre == pytest.approx(row["estimate"] - row["bias"])
    names = ["kind", "group", "term", "term2", "estimate", "conf_low", "conf_high"]
    for kind in ("percentile", "basic", "normal", "shortest"):
        found = boot.confint(0.8, kind=cast(Any, kind))
        assert found.columns == names
        assert f"80% {kind} interval" in found.caption
        assert (found["conf_low"] < found["conf_high"]).all()
    wide, narrow = boot.confint(0.8), boot.confint(0.5)
    assert (wide["conf_low"] < narrow["conf_low"]).all()
    assert "extreme draws" in boot.confint(0.95).caption
    assert "extreme draws" not in narrow.caption


def test_the_shortest_interval_holds_its_share() -> None:
    draws = np.random.default_rng(1).exponential(size=200)
    low, high = interval(draws, 1.0, 0.9, "shortest")
    assert np.mean((draws >= low) & (draws <= high)) == pytest.approx(0.9)
    ordered = np.sort(draws)
    assert all(ordered[k + 179] - ordered[k] >= high - low - 1e-12 for k in range(21))
    assert low == ordered[:10].min()  # an exponential is highest at zero


def test_statistics_of_ones_own(sleep: bg.Fit) -> None:
    found = sleep.bootstrap(3, seed=3, statistic=share)
    assert found.estimates["term"].to_list() == ["icc", "slope"]
    assert found.estimates["kind"].to_list() == ["statistic"] * 2
    assert found.estimates["estimate"][1] == sleep.params["estimate"][1]
    one = sleep.bootstrap(2, seed=3, statistic=lambda fit: fit.loglik)
    assert one.draws["term"].to_list() == ["statistic"] * 2
    assert one.draws["estimate"].to_list() == one.outcomes["loglik"].to_list()
    several = sleep.bootstrap(2, seed=3, statistic=lambda fit: fit.params["estimate"])
    assert several.estimates["term"].to_list() == ["stat_1", "stat_2"]
    means = sleep.bootstrap(2, seed=3, statistic=lambda fit: fit.predict()["estimate"][0])
    assert means.draws.height == 2


def test_singular_refits_are_counted() -> None:
    fit = bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy")).fit()
    found = fit.bootstrap(15, seed=1, re="zero")
    assert 5 < found.singular <= 15
    assert f"15 refits, {found.singular} singular" in found.summary().caption
    assert found.failures.height == 0


def test_numbers_that_do_not_exist_are_null(sleep: bg.Fit) -> None:
    """A correlation with an sd of zero, for instance."""
    calls = itertools.count()
    found = sleep.bootstrap(
        6, seed=1, statistic=lambda fit: {"a": fit.loglik, "b": [2.0, np.nan][next(calls) % 2]}
    )
    assert found.draws["estimate"].null_count() == 3
    table = found.summary()
    assert table["n"].to_list() == [6, 3]
    assert table.row(1, named=True)["std_error"] == 0.0


def test_separated_refits_are_noted() -> None:
    data = {"y": [0, 0, 1, 0, 1, 1, 1, 1], "x": [0, 1, 2, 3, 4, 5, 6, 7]}
    fit = bg.glm("y ~ x", data, family="binomial").fit()
    found = fit.bootstrap(10, seed=1)
    noted = found.outcomes["notes"].is_not_null().sum()
    assert noted > 0
    assert f"{noted} with other notes" in str(found)


def test_failures_are_listed(sleep: bg.Fit) -> None:
    found = sleep.bootstrap(4, seed=3, statistic=failing_at(2))
    assert found.failures.to_dicts() == [{"iteration": 2, "error": "RuntimeError: on purpose"}]
    assert found.draws["iteration"].to_list() == [1, 3, 4]
    assert "4 refits, 1 failed" in repr(found)
    assert found.not_converged == 0 and found.singular == 0
    with pytest.raises(FitError, match="all 3 refits failed; the first: RuntimeError: on purpose"):
        sleep.bootstrap(3, seed=3, statistic=failing_at(1, 2, 3))
    names = itertools.count()
    moving = sleep.bootstrap(2, statistic=lambda fit: {"a": 1.0, "b" * (next(names) // 2): 2.0})
    assert moving.failures["error"].str.contains("statistic gave").to_list() == [True]


@pytest.mark.filterwarnings("ignore::bayesglmm.errors.BayesglmmWarning")
def test_impossible_responses_fail_one_by_one() -> None:
    data = {"y": [1, 2, 0, 2, 5, 3, 5, 2, 4, 1], "g": [*"aabbccddee"]}
    model = bg.glmer("y ~ 1 + (1|g)", data, family="poisson", link="identity")
    fit = model.fit()
    posterior = cast(Any, fit.posterior)
    wide = replace(posterior.estimate, component_values=np.array([1.7]))
    found = replace(fit, posterior=replace(posterior, estimate=wide)).bootstrap(4, seed=0)
    assert 0 < found.failures.height < 4
    assert found.failures["error"].str.contains("keeps means in range").all()


def test_an_interrupted_bootstrap_keeps_its_draws(sleep: bg.Fit) -> None:
    stop = failing_at(4, problem=KeyboardInterrupt)
    with pytest.warns(BayesglmmWarning, match="3 of 10 refits were done.*seed=3"):
        found = sleep.bootstrap(10, seed=3, statistic=stop)
    assert found.interrupted and found.nsim == 10
    assert found.draws["iteration"].to_list() == [1, 2, 3]
    assert "interrupted: 3 of 10 refits" in str(found)
    with ThreadPoolExecutor(1) as threads:
        stop = failing_at(4, problem=KeyboardInterrupt)
        with pytest.warns(BayesglmmWarning, match="Interrupted"):
            shared = sleep.bootstrap(10, seed=3, statistic=stop, executor=threads)
    assert shared.interrupted
    both = shared.draws.join(found.draws, on="iteration")
    assert both["iteration"].to_list() == [1, 2, 3]
    assert both["estimate"].equals(both["estimate_right"], check_names=False)
    with pytest.raises(KeyboardInterrupt):
        sleep.bootstrap(10, statistic=failing_at(1, problem=KeyboardInterrupt))


def test_nothing_is_printed_where_there_is_no_terminal(
    sleep: bg.Fit, capfd: pytest.CaptureFixture[str]
) -> None:
    sleep.bootstrap(2, seed=1, progress=True)
    assert capfd.readouterr() == ("", "")


def test_how_it_is_shown(boot: Bootstrap) -> None:
    lines = repr(boot).splitlines()
    assert lines[0].split() == "parameter estimate bias std_error conf_low conf_high".split()
    assert [line[2:24].strip() for line in lines[1:5]] == [
        "(Intercept)",
        "Days",
        "sd (Intercept) | Subje",
        "residual sd",
    ]
    start = "Parametric bootstrap · ML · coefficients: response scale · new random effects · seed 3"
    assert start in lines[5]
    assert "<table" in boot._repr_html_() and "12 refits" in boot._repr_html_()


def test_bad_input(sleep: bg.Fit, boot: Bootstrap) -> None:
    sampled = replace(sleep, posterior=SampledPosterior(sleep.model.design, cast(Any, None)))
    object.__setattr__(
        sampled.posterior,
        "run",
        cast(Any, type("R", (), {"options": bg.NUTS(), "interrupted": False})),
    )
    with pytest.raises(ChoiceError, match="maximum-likelihood fit; this one is NUTS"):
        sampled.bootstrap(2)
    with pytest.raises(ChoiceError, match=r"got Model. Fit the model first"):
        bg.bootstrap(sleep.model, 2)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="statistic is str"):
        sleep.bootstrap(2, statistic="loglik")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="it must give numbers"):
        sleep.bootstrap(2, statistic=lambda fit: fit)
    with pytest.raises(DataError, match="gave no numbers"):
        sleep.bootstrap(2, statistic=lambda fit: {})
    with pytest.raises(OptionError, match="executor is int"):
        sleep.bootstrap(2, executor=4)  # type: ignore[arg-type]
    with pytest.raises(ChoiceError, match="re='old'"):
        sleep.bootstrap(2, re="old")  # type: ignore[arg-type]
    with pytest.raises(ChoiceError, match="nsim=0"):
        sleep.bootstrap(0)
    with pytest.raises(ChoiceError, match="seed='a'"):
        sleep.bootstrap(2, seed="a")  # type: ignore[arg-type]
    with pytest.raises(ChoiceError, match="did you mean 'percentile'"):
        boot.confint(kind="percentil")  # type: ignore[arg-type]
    with pytest.raises(ChoiceError, match="level=95"):
        boot.confint(95)
