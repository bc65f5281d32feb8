"""Laws of simulated responses and of refits."""

from __future__ import annotations

import contextlib
import pickle
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
import polars as pl
import pytest

import bayesglmm as bg
from bayesglmm.errors import (
    BayesglmmWarning,
    ChoiceError,
    DataError,
    FitError,
    FormulaError,
)
from bayesglmm.families import FAMILIES, LINKS, Link
from bayesglmm.nuts import Sampled
from bayesglmm.posterior.sampled import SampledPosterior

TINY = 1e-9


def numbers(frame: pl.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
    return frame.to_numpy().astype(float)


@pytest.fixture(scope="module")
def sleep() -> bg.Fit:
    return bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy")).fit()


@pytest.fixture(scope="module")
def cbpp() -> bg.Fit:
    data = bg.load_dataset("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1|herd)"
    return bg.glmer(formula, data, family="binomial").fit()


# From chosen parameters ----------------------------------------------------------------------


def small_design() -> pl.DataFrame:
    rng = np.random.default_rng(4)
    return pl.DataFrame(
        {
            "g": np.repeat(["a", "b", "c"], 4),
            "h": ["u", "v"] * 6,
            "x": rng.normal(size=12),
            "w": rng.integers(1, 5, 12).astype(float),
            "o": rng.normal(size=12),
        }
    )


def test_without_any_noise_the_response_is_its_mean() -> None:
    data = small_design()
    params = {"(Intercept)": 1.0, "x": -2.0, "sd:g": 0.0, "sigma": TINY}
    found = bg.simulate_new("~ x + (1|g)", data, params=params, offset="o", seed=1)
    want = 1.0 - 2.0 * data["x"] + data["o"]
    np.testing.assert_allclose(found["sim_1"], want, atol=1e-7)


def test_means_and_covariances_of_a_linear_mixed_model() -> None:
    """Rows of a level share effects; the residual variance is sigma^2 / weight."""
    data, nsim = small_design(), 4000
    params = {
        "(Intercept)": 2.0,
        "x": 0.5,
        "sd:g": {"(Intercept)": 0.7, "x": 1.2},
        "corr:g": -0.6,
        "sd:h": 0.4,
        "sigma": 0.5,
    }
    found = bg.simulate_new(
        "y ~ x + (x|g) + (1|h)", data, params=params, weights="w", nsim=nsim, seed=2
    )
    x, w = data["x"].to_numpy(), data["w"].to_numpy()
    Z = np.column_stack([np.ones(12), x])
    cov = np.array([[0.49, -0.6 * 0.7 * 1.2], [-0.6 * 0.7 * 1.2, 1.44]])
    same_g = data["g"].to_numpy()[:, None] == data["g"].to_numpy()
    same_h = data["h"].to_numpy()[:, None] == data["h"].to_numpy()
    want = same_g * (Z @ cov @ Z.T) + 0.16 * same_h + np.diag(0.25 / w)
    y = numbers(found)
    spread = np.sqrt(np.diag(want) / nsim)
    assert np.all(np.abs(y.mean(axis=1) - (2.0 + 0.5 * x)) < 5 * spread)
    error = np.sqrt((want**2 + np.outer(np.diag(want), np.diag(want))) / nsim)
    assert np.all(np.abs(np.cov(y) - want) < 5 * error)


@pytest.mark.parametrize(
    ("family", "link", "intercept"),
    [
        ("poisson", "log", 1.2),
        ("poisson", "identity", 3.0),
        ("binomial", "logit", -0.4),
        ("binomial", "cloglog", -1.0),
        ("bernoulli", "probit", 0.3),
        ("gaussian", "log", 0.5),
    ],
)
def test_mean_and_variance_of_every_family(family: str, link: str, intercept: float) -> None:
    trials = "n" if family == "binomial" else ""
    params = {"(Intercept)": intercept} | ({"sigma": 0.3} if family == "gaussian" else {})
    rows = 4000
    data = {"n": [7] * rows}
    found = bg.simulate_new(
        "~ 1", data, params=params, family=family, link=link, trials=trials, seed=3
    )
    record = FAMILIES[family]
    mu = float(LINKS[link].inverse(np.array(intercept)))
    times = 7.0 if trials else 1.0
    want = times * float(record.variance(np.array(mu))) * (0.09 if record.has_scale else 1.0)
    y = numbers(found)[:, 0]
    assert abs(y.mean() - times * mu) < 5 * np.sqrt(want / rows)
    assert abs(y.var() - want) < 0.15 * want
    assert found["sim_1"].dtype == (pl.Float64 if family == "gaussian" else pl.Int64)


def test_rows_with_missing_predictors_are_null() -> None:
    data = {"x": [0.0, None, 2.0], "g": ["a", "b", "b"], "y": [None, 1.0, 2.0]}
    params = {"(Intercept)": 1.0, "x": 1.0, "sd:g": 0.0, "sigma": TINY}
    found = bg.simulate_new("y ~ x + (1|g)", data, params=params, seed=1)["sim_1"]
    assert found.is_null().to_list() == [False, True, False]
    np.testing.assert_allclose(found.drop_nulls(), [1.0, 3.0], atol=1e-7)


def test_the_ways_of_writing_parameters_agree() -> None:
    data = small_design()
    base: dict[str, object] = {"(Intercept)": 1.0, "x": 1.0, "sigma": 1.0}
    written: list[dict[str, object]] = [
        {"sd:g": {"(Intercept)": 1.0, "x": 2.0}, "corr:g": 0.5},
        {"sd:g:x": 2.0, "sd:g:(Intercept)": 1.0, "corr:g": np.array([[1, 0.5], [0.5, 1]])},
        {"sd:g": {"x": 2, "(Intercept)": 1}, "corr:g": {("x", "(Intercept)"): 0.5}},
    ]
    found = [
        bg.simulate_new("~ x + (x|g)", data, params={**more, **base}, seed=5)["sim_1"]
        for more in written
    ]
    assert found[0].equals(found[1]) and found[0].equals(found[2])


def test_contrasts_name_the_parameters() -> None:
    data = small_design()
    names = bg.lm("x ~ h", data, contrasts={"h": "sum"}).prior_table["name"].to_list()
    assert names == ["(Intercept)", "h1", "sigma"]
    params = {"(Intercept)": 1.0, "h1": 0.5, "sigma": TINY}
    found = bg.simulate_new("~ h", data, params=params, contrasts={"h": "sum"}, seed=1)["sim_1"]
    np.testing.assert_allclose(found[:2], [1.5, 0.5], atol=1e-7)


@pytest.mark.filterwarnings("ignore::bayesglmm.errors.BayesglmmWarning")
@pytest.mark.parametrize(
    ("dataset", "formula", "family"),
    [
        ("sleepstudy", "Reaction ~ Days + (Days|Subject)", "gaussian"),
        ("sleepstudy", "Reaction ~ Days + (Days||Subject) + (1|Days)", "gaussian"),
        ("sleepstudy", "Reaction ~ (1|Subject) + (0 + Days|Subject)", "gaussian"),
        ("dyestuff2", "Yield ~ 1 + (1|Batch)", "gaussian"),
        ("mtcars", "mpg ~ wt", "gaussian"),
        ("grouseticks", "TICKS ~ YEAR + (YEAR|LOCATION)", "poisson"),
        ("titanic", "survived ~ sex", "binomial"),
    ],
)
def test_simulating_from_the_values_of_a_fit(dataset: str, formula: str, family: str) -> None:
    """Two roads to one response: the engine's estimate, and the tables by name."""
    data = bg.load_dataset(dataset)
    fit = bg.model(formula, data, family=family).fit()
    assert list(fit.param_values) == fit.model.prior_table["name"].to_list()
    found = bg.simulate_new(formula, data, params=fit.param_values, family=family, seed=3)
    np.testing.assert_allclose(numbers(found), numbers(fit.simulate(seed=3)), rtol=1e-6, atol=1e-6)
    first = fit.model.design.names[0]
    changed = {**fit.param_values, first: fit.param_values[first]}
    assert bg.simulate_new(formula, data, params=changed, family=family, seed=3).equals(found)


BAD_PARAMS: list[tuple[dict[str, object], type[Exception], str]] = [
    ({"sdg": 1.0}, ChoiceError, "matches no parameter"),
    ({"sd:g": {"(Intercept)": 1.0, "X": 1.0}}, ChoiceError, "'sd:g:X'.*did you mean 'sd:g:x'"),
    ({"sd:g": 1.0}, DataError, "2 columns; give a mapping"),
    ({"sd:g": {"(Intercept)": 1.0}}, DataError, "lacks 'sd:g:x'"),
    ({"sd:g": {"(Intercept)": -1.0, "x": 1.0}}, DataError, "number of at least 0"),
    ({"sd:g:x": 1.0}, ChoiceError, "'sd:g:x' twice"),
    ({"corr:g": 2.0}, DataError, "from -1 to 1"),
    ({"corr:g": [[1.0, 0.3]]}, DataError, "shape"),
    ({"corr:g": [[1.0, 0.3], [0.2, 1.0]]}, DataError, "symmetric"),
    ({"corr:g": {("x", "z"): 0.1}}, DataError, "pair"),
    ({"corr:g": {("x", "(Intercept)"): 0.1, "x": 1}}, ChoiceError, "no pair of columns"),
    ({"sigma": 0.0}, DataError, "positive"),
    ({"sigma": "1"}, DataError, "give a number"),
    ({"x": float("nan")}, DataError, "give a number"),
    ({"sd:x": 1.0}, ChoiceError, "matches no parameter"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_PARAMS)
def test_bad_parameters(change: dict[str, object], error: type[Exception], message: str) -> None:
    params = {
        "(Intercept)": 1.0,
        "x": 1.0,
        "sd:g": {"(Intercept)": 1.0, "x": 1.0},
        "corr:g": 0.2,
        "sigma": 1.0,
    }
    with pytest.raises(error, match=message):
        bg.simulate_new("~ x + (x|g)", small_design(), params=params | change)


def test_correlations_that_cannot_be() -> None:
    data = small_design()
    names = bg.lmer("x ~ w + o + (w + o|g)", data).prior_table["name"].to_list()
    params: dict[str, object] = dict.fromkeys(names, 1.0)
    with pytest.raises(DataError, match="no distribution has these"):
        bg.simulate_new("~ w + o + (w + o|g)", data, params={**params, "corr:g": -0.9})


def test_bad_input_without_a_fit() -> None:
    data = small_design()
    with pytest.raises(DataError, match="leave the left-hand side out"):
        bg.simulate_new("cbind(s, f) ~ x", data, params={}, family="binomial")
    with pytest.raises(DataError, match="params is list"):
        bg.simulate_new("~ x", data, params=[1.0, 2.0])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="trials were given"):
        bg.simulate_new("~ 1", data, params={"(Intercept)": 1.0}, family="poisson", trials="w")
    with pytest.raises(DataError, match="no column 'xx'; did you mean 'x'"):
        bg.simulate_new("~ xx", data, params={})
    with pytest.raises(FormulaError, match="response before"):
        bg.lm("~ x", data)
    with pytest.raises(FitError, match="keeps means in range"):
        params = {"(Intercept)": -1.0}
        bg.simulate_new("~ 1", data, params=params, family="poisson", link="identity")
    for bad in (0, 1.5, True):
        with pytest.raises(ChoiceError, match="nsim="):
            bg.simulate_new("~ 1", data, params={}, nsim=bad)  # type: ignore[arg-type]
    with pytest.raises(ChoiceError, match="seed="):
        bg.simulate_new("~ 1", data, params={}, seed=-1)


# From a fit ----------------------------------------------------------------------------------


def test_seeds_reproduce_and_columns_do_not_depend_on_their_number(sleep: bg.Fit) -> None:
    many = sleep.simulate(5, seed=9)
    assert many.equals(bg.simulate(sleep, 5, seed=9))
    assert sleep.simulate(2, seed=9).equals(many[:, :2])
    assert not sleep.simulate(1, seed=8).equals(many[:, :1])
    assert not sleep.simulate().equals(sleep.simulate())
    seed = int(sleep.simulate().caption.rsplit(" ", 1)[1])
    assert sleep.simulate(seed=seed).shape == (180, 1)


def test_what_happens_to_the_random_effects(sleep: bg.Fit) -> None:
    """Means over simulations: the fitted values, or the population line; variances likewise."""
    nsim = 600
    sigma = sleep.varcorr["estimate"][-1]
    for re, which in (("fitted", "fitted"), ("zero", "zero"), ("new", "zero")):
        y = numbers(sleep.simulate(nsim, seed=1, re=cast(Any, re)))
        mean = sleep.predict(re=cast(Any, which))["estimate"].to_numpy()
        spread = y.std(axis=1, ddof=1)
        assert np.all(np.abs(y.mean(axis=1) - mean) < 5 * spread / np.sqrt(nsim))
        if re == "new":
            sd = np.sqrt(sigma**2 + 23.7806**2 + 81 * 5.7168**2 + 18 * 23.7806 * 5.7168 * 0.0813)
            assert abs(spread[9] / sd - 1.0) < 0.15
        else:
            assert np.all(np.abs(spread / sigma - 1.0) < 0.15)


@pytest.mark.parametrize("link", ["identity", "log"])
def test_effects_have_the_size_that_varcorr_shows(link: Any) -> None:
    """sigma is far from 1, so nothing may be relative to it."""
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(30), 6)
    eta = 4.0 + rng.normal(0, 0.2, 30)[group]
    mean = np.exp(eta) if link == "log" else 50.0 * eta
    data = pl.DataFrame({"y": mean + rng.normal(0, 6.0, 180), "g": group})
    fit = bg.model("y ~ 1 + (1|g)", data, link=link, factors="g").fit()
    sd, sigma = fit.varcorr["estimate"]
    assert sigma > 4.0
    y = numbers(fit.simulate(400, seed=1)).reshape(30, 6, 400)
    centre = fit.params["estimate"][0]
    # Within a group rows have in common the variance of the group's mean.
    variance = np.exp(2 * centre + sd**2) * np.expm1(sd**2) if link == "log" else sd**2
    shared = np.mean(
        [np.cov(y[:, i].ravel(), y[:, j].ravel())[0, 1] for i, j in ((0, 1), (2, 3), (4, 5))]
    )
    assert shared == pytest.approx(variance, rel=0.1)
    total = float(np.mean(y.reshape(180, 400).var(axis=1, ddof=1)))
    assert total == pytest.approx(variance + sigma**2, rel=0.1)


def test_offsets_and_weights_of_a_fit() -> None:
    nsim = 2000
    rng = np.random.default_rng(8)
    time = rng.uniform(0.5, 20.0, 30)
    data = pl.DataFrame({"y": rng.poisson(2 * time), "time": time, "w": np.tile([1.0, 9.0], 15)})
    counts = bg.glm("y ~ 1 + offset(log(time))", data, family="poisson").fit()
    y = numbers(counts.simulate(nsim, seed=1))
    mean = time * float(data["y"].sum()) / time.sum()  # the ML estimate
    assert np.all(np.abs(y.mean(axis=1) - mean) < 5 * np.sqrt(mean / nsim))
    weighted = bg.lm("y ~ time", data, weights="w").fit()
    y = numbers(weighted.simulate(nsim, seed=1))
    sd = weighted.varcorr["estimate"][0] / np.sqrt(data["w"].to_numpy())
    assert np.all(np.abs(y.std(axis=1) / sd - 1.0) < 5 / np.sqrt(2 * nsim))


def test_refitting_its_own_response_gives_the_fit(sleep: bg.Fit, cbpp: bg.Fit) -> None:
    data = bg.load_dataset("cbpp")
    for fit, y in (
        (sleep, bg.load_dataset("sleepstudy")["Reaction"]),
        (cbpp, data["incidence"]),
        (sleep.model.fit("reml"), sleep.model.design.y),
    ):
        again = bg.refit(fit, y)
        assert again.method == fit.method
        assert abs(again.loglik - fit.loglik) < 1e-8
        for one, two in ((again.params, fit.params), (again.varcorr, fit.varcorr)):
            np.testing.assert_allclose(one["estimate"], two["estimate"], rtol=1e-6)


def test_refits_keep_everything_but_the_response(cbpp: bg.Fit) -> None:
    y = cbpp.simulate(seed=3)["sim_1"]
    again = cbpp.refit(y)
    assert again.loglik != pytest.approx(cbpp.loglik, abs=0.1)
    assert again.model.design.X is cbpp.model.design.X
    assert again.model.priors is cbpp.model.priors
    frame = bg.load_dataset("cbpp").with_columns(incidence=y)
    direct = bg.model(cbpp.model.formula, frame, family="binomial").fit()
    np.testing.assert_allclose(again.params["estimate"], direct.params["estimate"], rtol=1e-6)
    assert cbpp.model.design.y is not again.model.design.y


def test_every_kind_of_sequence_is_a_response(sleep: bg.Fit) -> None:
    y = sleep.simulate(seed=1)["sim_1"]
    want = sleep.refit(y).loglik
    for other in (y.to_numpy(), y.to_list(), tuple(y), pd.Series(y.to_numpy())):
        assert sleep.refit(other).loglik == want


def test_trials_given_as_weights_are_proportions() -> None:
    data = bg.load_dataset("cbpp").with_columns(rate=pl.col("incidence") / pl.col("size"))
    by_weights = bg.glm("rate ~ period", data, family="binomial", weights="size").fit()
    by_trials = bg.glm("incidence ~ period", data, family="binomial", trials="size").fit()
    counts = by_trials.simulate(3, seed=6)
    assert counts.dtypes == [pl.Int64] * 3
    assert "successes" in counts.caption
    rates = by_weights.simulate(3, seed=6)
    for name in counts.columns:
        np.testing.assert_allclose(rates[name], counts[name] / data["size"], rtol=1e-15)
    one, two = by_weights.refit(rates["sim_2"]), by_trials.refit(counts["sim_2"])
    np.testing.assert_allclose(one.params["estimate"], two.params["estimate"], rtol=1e-9)


@pytest.mark.parametrize(
    "values",
    [
        pl.Series(["no", "yes"] * 20),
        pl.Series(["no", "yes"] * 20, dtype=pl.Categorical()),
        pl.Series(["yes", "no"] * 20, dtype=pl.Enum(["yes", "no"])),
        pl.Series([False, True] * 20),
    ],
    ids=["text", "categorical", "enum", "boolean"],
)
def test_two_levels_come_back_as_they_were(values: pl.Series) -> None:
    x = np.random.default_rng(1).normal(size=40)
    data = pl.DataFrame({"y": values, "x": x})
    fit = bg.glm("y ~ x", data, family="binomial").fit()
    found = fit.simulate(2, seed=1)
    assert found["sim_1"].dtype == values.dtype
    success = fit.model.design.response.levels[1]
    plain = data.with_columns(y=(values.cast(pl.String).str.to_uppercase() == success.upper()))
    zero_one = bg.glm("y ~ x", plain.with_columns(pl.col("y").cast(int)), family="binomial").fit()
    same = values.dtype == pl.Boolean or success
    for name in found.columns:
        want = zero_one.simulate(2, seed=1)[name]
        assert (found[name] == same).cast(int).to_list() == want.to_list()
    again = fit.refit(found["sim_1"])
    direct = bg.glm("y ~ x", data.with_columns(y=found["sim_1"]), family="binomial").fit()
    np.testing.assert_allclose(again.params["estimate"], direct.params["estimate"], rtol=1e-9)
    with pytest.raises(DataError, match="has the levels"):
        fit.refit([5] * 40)


def test_numeric_levels_and_transformed_responses() -> None:
    x = np.random.default_rng(1).normal(size=30)
    data = pl.DataFrame({"y": [1, 2, 2] * 10, "x": x, "z": np.exp(x) + 0.1})
    fit = bg.glm("y ~ x", data, family="binomial", factors="y").fit()
    found = fit.simulate(seed=1)["sim_1"]
    assert found.dtype == pl.Int64 and set(found) == {1, 2}
    assert fit.refit(data["y"]).loglik == pytest.approx(fit.loglik)
    logged = bg.lm("log(z) ~ x", data).fit()
    assert logged.refit(np.log(data["z"])).loglik == pytest.approx(logged.loglik)
    assert logged.simulate(seed=1)["sim_1"].min() < 0  # type: ignore[operator]


def test_dropped_rows_are_null_and_ignored() -> None:
    data = bg.load_dataset("sleepstudy").with_row_index("row")
    holed = data.with_columns(Reaction=pl.when(pl.col("row") != 3).then("Reaction"))
    fit = bg.lmer("Reaction ~ Days + (1|Subject)", holed).fit()
    sims = fit.simulate(2, seed=1)
    assert sims.height == 180
    assert sims["sim_1"].is_null().arg_true().to_list() == [3]
    whole, kept = sims["sim_1"], sims["sim_1"].drop_nulls()
    assert fit.refit(whole).loglik == fit.refit(kept).loglik
    filled = whole.fill_null(1e6)  # a value in a dropped row has no meaning
    assert fit.refit(filled).loglik == fit.refit(kept).loglik
    with pytest.raises(DataError, match=r"178 values; give 180.*or 179, one for each row used"):
        fit.refit(kept[:-1])
    with pytest.raises(DataError, match="missing in 1 of the rows used"):
        fit.refit(whole.to_numpy()[[*range(3), 4, 3, *range(5, 180)]])


def test_bad_responses(sleep: bg.Fit, cbpp: bg.Fit) -> None:
    n = cbpp.model.design.n
    with pytest.raises(DataError, match=r'one value for each row, e\.g\. frame\["sim_1"\]'):
        sleep.refit(sleep.simulate())  # type: ignore[arg-type]
    with pytest.raises(DataError, match="y is str"):
        sleep.refit("Reaction")
    with pytest.raises(DataError, match="not numeric"):
        sleep.refit(["a"] * 180)
    with pytest.raises(DataError, match="infinite"):
        sleep.refit(np.full(180, np.inf))
    with pytest.raises(DataError, match="counts of successes"):
        cbpp.refit(np.full(n, 0.5))
    with pytest.raises(DataError, match="more successes than trials"):
        cbpp.refit(np.full(n, 1000))
    with pytest.raises(DataError, match="constant"):
        sleep.refit(np.ones(180))
    with pytest.raises(ChoiceError, match="refit needs a fit"):
        bg.refit(sleep.model, [1])  # type: ignore[arg-type]
    with pytest.raises(ChoiceError, match="param_values needs a fit"):
        bg.param_values(sleep.model)  # type: ignore[arg-type]
    with pytest.raises(ChoiceError, match="simulate_new"):
        bg.simulate("y ~ x")  # type: ignore[call-overload]
    with pytest.raises(ChoiceError, match="did you mean 'fitted'"):
        sleep.simulate(re="fited")  # type: ignore[arg-type]
    counts = bg.glm("incidence ~ 1", bg.load_dataset("cbpp"), family="poisson").fit()
    with pytest.raises(DataError, match="counts 0, 1, 2"):
        counts.refit(np.full(n, -1))


def test_singular_refits_warn() -> None:
    fit = bg.lmer("Reaction ~ Days + (1|Subject)", bg.load_dataset("sleepstudy")).fit()
    with pytest.warns(BayesglmmWarning, match="Singular"):
        fit.refit(fit.simulate(seed=1, re="zero")["sim_1"])


def test_case_weights_do_not_make_half_events() -> None:
    data = {"y": [0, 1, 1, 0, 1, 0], "w": [2, 1, 2, 1, 2, 1], "n": [3, 4, 5, 3, 4, 5]}
    bernoulli = bg.glm("y ~ 1", data, family="bernoulli", weights="w").fit()
    assert set(bernoulli.simulate(seed=1)["sim_1"]) <= {0, 1}
    both = bg.glm("y ~ 1", data, family="binomial", trials="n", weights="w").fit()
    sims = both.simulate(2000, seed=1)
    spread = numbers(sims).var(axis=1) / (np.array(data["n"]) * 0.25)
    p = float(both.predict()["estimate"][0])
    np.testing.assert_allclose(spread, p * (1 - p) * 4, rtol=0.15)  # not divided by the weight
    both.refit(sims["sim_1"])


# From posterior draws ------------------------------------------------------------------------


def test_values_of_a_singular_fit_can_be_simulated_from(sleep: bg.Fit) -> None:
    with pytest.warns(BayesglmmWarning, match="Singular"):
        fit = sleep.refit(sleep.simulate(2, seed=1, re="zero")["sim_2"])
    data, formula = bg.load_dataset("sleepstudy"), sleep.model.formula
    assert abs(fit.param_values["corr:Subject"]["(Intercept)", "Days"]) == pytest.approx(1.0)  # type: ignore[index]
    found = bg.simulate_new(formula, data, params=fit.param_values, seed=2)
    np.testing.assert_allclose(numbers(found), numbers(fit.simulate(seed=2)), rtol=1e-5)


def draws_of(model: bg.Model, beta: np.ndarray[Any, Any], sigma: float) -> bg.Fit:
    """A fit by sampling, with made-up draws: effects of size 1000 j at level j."""
    import xarray as xr

    chains, draws = beta.shape[:2]
    shape = (chains, draws)
    term = model.design.random[0]
    values = {
        "beta": (("chain", "draw", "coef"), beta),
        "sigma": (("chain", "draw"), np.full(shape, sigma)),
        "sd_g": (("chain", "draw", "t"), np.zeros((*shape, 2))),
        "corr_g": (("chain", "draw", "t", "t2"), np.broadcast_to(np.eye(2), (*shape, 2, 2))),
        "b_g": (
            ("chain", "draw", "level", "t"),
            np.broadcast_to(1000.0 * np.arange(term.J)[:, None], (*shape, term.J, 2)),
        ),
    }
    tree = xr.DataTree.from_dict({"/posterior": xr.Dataset(values)})
    run = Sampled(tree, bg.NUTS(draws=draws, chains=chains), {}, cast(Any, None), 0.0, 0.0)
    return bg.Fit(model, bg.NUTS(), SampledPosterior(model.design, run))


def test_each_simulation_uses_one_posterior_draw() -> None:
    data = small_design().with_columns(y=pl.col("x") + pl.col("o"))
    model = bg.lmer("y ~ x + (x|g)", data)
    beta = np.zeros((2, 5, 2))
    beta[..., 0] = np.arange(10.0).reshape(2, 5)
    fit = draws_of(model, beta, TINY)
    sims = numbers(fit.simulate(10, seed=1))  # all sds are zero: only beta is left
    np.testing.assert_allclose(np.sort(sims[0]), np.arange(10.0), atol=1e-7)
    np.testing.assert_allclose(sims, np.broadcast_to(sims[0], sims.shape), atol=1e-7)
    again = numbers(fit.simulate(25, seed=1))
    np.testing.assert_array_equal(again[:, :10], sims)
    assert np.unique(again[0].round(), return_counts=True)[1].tolist() != [25]
    fitted = numbers(fit.simulate(1, seed=1, re="fitted"))[:, 0] - sims[:, 0]
    level = model.design.random[0].index
    np.testing.assert_allclose(fitted, 1000.0 * level * (1.0 + data["x"]), atol=1e-4)


# Models that travel --------------------------------------------------------------------------


def test_models_can_be_pickled() -> None:
    half = pl.when(pl.col("Days") < 5).then(pl.lit("first")).otherwise(pl.lit("second"))
    data = bg.load_dataset("sleepstudy").with_columns(half=half)
    formula = "Reaction ~ bs(Days, df=4) + I(Days > 2) + half + (scale(Days)|Subject)"
    model = bg.lmer(formula, data, contrasts={"half": "sum"})
    again = pickle.loads(pickle.dumps(model))
    assert again.family is model.family and again.link is model.link
    np.testing.assert_array_equal(again.design.fixed.matrix(data), model.design.X)
    assert again.fit().loglik == model.fit().loglik


def test_fits_can_be_pickled() -> None:
    sleep = bg.load_dataset("sleepstudy")
    fit = bg.lmer("Reaction ~ Days + (Days|Subject)", sleep).fit()
    again = pickle.loads(pickle.dumps(fit))
    assert again.params.equals(fit.params) and again.ranef.equals(fit.ranef)
    assert again.predict(sleep[:9]).equals(fit.predict(sleep[:9]))
    assert again.refit(sleep["Reaction"]).loglik == pytest.approx(fit.loglik, abs=1e-9)


@pytest.mark.parametrize("name", [*FAMILIES, *LINKS])
def test_families_and_links_are_pickled_by_name(name: str) -> None:
    record = FAMILIES[name] if name in FAMILIES else LINKS[name]
    assert pickle.loads(pickle.dumps(record)) is record
    other = replace(record, link=np.abs) if isinstance(record, Link) else replace(record, name="x")
    with contextlib.suppress(pickle.PicklingError, TypeError, AttributeError):
        assert pickle.loads(pickle.dumps(other)) is not record


def test_a_formula_is_simulated_from_without_a_fit() -> None:
    design = pl.DataFrame({"g": ["a", "b", "c"] * 4, "x": [0.0, 0.5, 1.0] * 4})
    truth = {"(Intercept)": 1.0, "x": 0.5, "sd:g": 0.3}
    one = bg.simulate("~ x + (1|g)", design, params=truth, family="poisson", nsim=3, seed=1)
    same = bg.simulate_new("~ x + (1|g)", design, params=truth, family="poisson", nsim=3, seed=1)
    assert one.to_dict(as_series=False) == same.to_dict(as_series=False)


def test_a_misspelt_option_is_told_under_the_public_name() -> None:
    fit = bg.lm("Reaction ~ Days", bg.load_dataset("sleepstudy")).fit()
    wrong: Any = {"nsmi": 3}
    with pytest.raises(bg.OptionError, match=r"^simulate\(\) has no argument 'nsmi'.*'nsim'"):
        bg.simulate(fit, **wrong)


def test_what_is_aliased_is_not_simulated_from() -> None:
    rows = bg.load_dataset("sleepstudy").with_columns(double=2 * pl.col("Days"))
    with pytest.warns(bg.BayesglmmWarning, match="not estimable"):
        fit = bg.lmer("Reaction ~ Days + double + (1|Subject)", rows).fit()
    names = ["(Intercept)", "Days", "sd:Subject:(Intercept)", "sigma"]
    assert list(fit.param_values) == names
    ys = bg.simulate("~ Days + (1|Subject)", rows, params=fit.param_values, seed=1)
    assert ys.height == 180
