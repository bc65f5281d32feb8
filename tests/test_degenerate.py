"""Fits at the edge: separated outcomes, zero variances, terms that say the same thing."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import bayesglmm as bg
from bayesglmm.families.compiled import Density
from bayesglmm.laplace.covariance import covariance_of
from bayesglmm.laplace.generalised import _Guarded, _Profiled
from bayesglmm.laplace.pirls import Problem
from bayesglmm.laplace.standardise import coordinates
from bayesglmm.laplace.structure import structure_of

# Degenerate fits are the point here, and warn.
pytestmark = pytest.mark.filterwarnings("ignore::bayesglmm.errors.BayesglmmWarning")

TICKS = bg.load_dataset("grouseticks")
SEPARATED = pl.DataFrame(
    {
        "y": [0, 0, 0, 0, 1, 1, 1, 1] * 3,
        "x": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0] * 3,
        "f": ["a", "b"] * 12,
        "g": list("uvw") * 8,
    }
)


def said(fit: bg.Fit, words: str) -> bool:
    return any(words in note for note in fit.outcome.notes)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_complete_separation_of_a_glm(link: str) -> None:
    fit = bg.glm("y ~ x", SEPARATED, family="binomial", link=link).fit()
    assert said(fit, "separates the outcomes") and said(fit, 'fit("nuts")')
    assert "separates the outcomes" in fit.summary().text()


def test_complete_separation_of_a_glmm() -> None:
    model = bg.glmer("y ~ x + (1|g)", SEPARATED, family="binomial")
    with pytest.warns(bg.BayesglmmWarning, match="separates the outcomes"):
        fit = model.fit()
    assert said(fit, "separates the outcomes")
    assert fit.params["std_error"].is_nan().all()  # no curvature to take them from


def test_a_cell_without_events() -> None:
    data = {"k": [0, 0, 0, 0, 2, 3, 1, 4], "f": list("aaaabbbb")}
    fit = bg.glm("k ~ f", data, family="poisson").fit()
    assert said(fit, "no events")
    assert fit.params["std_error"].is_nan().all()


def test_a_constant_response_has_no_random_effects() -> None:
    data = {"k": [2, 2, 2, 2], "g": list("abab")}
    with pytest.raises(bg.DataError, match="response 'k' is constant"):
        bg.glmer("k ~ 1 + (1|g)", data, family="poisson")


def test_quasi_separation_by_a_factor() -> None:
    data = SEPARATED.with_columns(y=pl.when(f="a").then(1).otherwise(pl.Series([0, 1, 0, 0] * 6)))
    fit = bg.glm("y ~ f", data, family="binomial").fit()
    assert said(fit, "separates the outcomes")


def test_no_separation_is_not_reported() -> None:
    fit = bg.glm("survived ~ sex + age", bg.load_dataset("titanic"), family="binomial").fit()
    assert fit.outcome.notes == ()


@pytest.mark.parametrize("reml", [False, True])
def test_a_variance_of_exactly_zero(reml: bool) -> None:
    model = bg.lmer("Yield ~ 1 + (1|Batch)", bg.load_dataset("dyestuff2"))
    fit = model.fit(bg.ML(reml=reml))
    row = fit.varcorr.row(0, named=True)
    assert row["estimate"] == 0.0
    assert row["std_error"] is row["conf_low"] is row["conf_high"] is None
    assert fit.outcome.converged
    assert fit.outcome.singular == ("sd of (Intercept) by Batch",)
    assert said(fit, "Singular fit") and said(fit, "sd of (Intercept) by Batch")
    assert np.all(fit.ranef["estimate"].to_numpy() == 0.0)
    plain = bg.lm("Yield ~ 1", bg.load_dataset("dyestuff2")).fit()
    assert fit.params["estimate"].to_list() == pytest.approx(plain.params["estimate"].to_list())
    if not reml:
        assert fit.loglik == pytest.approx(plain.loglik, abs=1e-10)


def test_a_zero_variance_of_a_glmm() -> None:
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(10), 30)
    y = np.concatenate(
        [rng.permutation(np.repeat([0, 1], 15)) for _ in range(10)]
    )  # underdispersed
    data = pl.DataFrame({"y": y, "g": g.astype(str)})
    fit = bg.glmer("y ~ 1 + (1|g)", data, family="binomial").fit()
    assert fit.varcorr["estimate"].to_list() == [0.0]
    plain = bg.glm("y ~ 1", data, family="binomial").fit()
    assert fit.loglik == pytest.approx(plain.loglik, abs=1e-9)
    assert fit.params["std_error"][0] == pytest.approx(plain.params["std_error"][0], rel=1e-6)
    assert said(fit, "Singular fit")


@pytest.mark.parametrize("seed", range(6))
def test_the_search_does_not_linger_at_the_boundary(seed: int) -> None:
    """The average information vanishes with an sd: no guide to how long a step should be."""
    rng = np.random.default_rng(seed)
    g = np.arange(60) % 12
    data = pl.DataFrame(
        {"y": rng.normal(size=60), "x": rng.normal(size=60), "g": g, "s": g * 3 + np.arange(60) % 3}
    ).with_columns(pl.col("g", "s").cast(pl.String))
    for terms in ("(1|g) + (1|s)", "(x|g) + (1|s)"):
        fit = bg.lmer(f"y ~ x + {terms}", data).fit()
        assert fit.outcome.converged
        assert fit.outcome.evaluations < 150
        sds = fit.varcorr.filter(kind="sd")["estimate"].to_numpy()
        assert np.all((sds == 0.0) | (sds > 1e-4))


def test_a_redundant_pair_of_terms() -> None:
    plain = bg.glmer("TICKS ~ YEAR + (YEAR|LOCATION)", TICKS, family="poisson").fit()
    split = bg.glmer(
        "TICKS ~ YEAR + (1|LOCATION) + (0 + YEAR|LOCATION)", TICKS, family="poisson"
    ).fit()
    assert split.loglik == pytest.approx(plain.loglik, abs=1e-6)
    assert said(split, "Not identified") and not said(plain, "Not identified")
    assert "sd of (Intercept) by LOCATION" in split.outcome.redundant
    # What is determined is the same: coefficients and their standard errors.
    for column in ("estimate", "std_error"):
        np.testing.assert_allclose(split.params[column], plain.params[column], rtol=1e-4)
    sd = split.varcorr.filter(kind="sd")
    assert sd["std_error"].null_count() == sd.height
    # The sum of both covariances is determined: the variance of each cell.
    one, cells = (split.varcorr.filter(kind="sd", group=g) for g in ("LOCATION", "LOCATION.1"))
    reference = bg.glmer("TICKS ~ YEAR + (0 + YEAR|LOCATION)", TICKS, family="poisson").fit()
    total = one["variance"].item() + cells["variance"].to_numpy()
    expected = reference.varcorr.filter(kind="sd")["variance"]
    np.testing.assert_allclose(total, expected, rtol=1e-3)


@pytest.mark.parametrize(("link", "flip"), [("log", 0), ("identity", 1)])
def test_probabilities_stay_probabilities(link: str, flip: int) -> None:
    """All outcomes of a group alike: its fitted probability is at most 1, or at least 0."""
    data = pl.DataFrame({"y": [0, 1, 0, 1, 1, 1, 1, 1], "g": list("aaaabbbb")})
    data = data.with_columns(y=(pl.col("y") - flip).abs())
    fit = bg.glm("y ~ g", data, family="binomial", link=link).fit()
    fitted = fit.predict()["estimate"].to_numpy()
    assert np.all((fitted >= 0.0) & (fitted <= 1.0))
    assert fit.loglik <= 4 * np.log(0.5) + 1e-9


def test_wrong_things_to_compare_or_predict_are_told() -> None:
    data = {"y": [1.0, 2.0, 4.0, 3.0, 5.0, 7.0], "g": list("aabbcc")}
    model = bg.lmer("y ~ 1 + (1|g)", data)
    fit = model.fit()
    with pytest.raises(bg.ChoiceError, match=r"got Model\. Fit it first"):
        bg.compare(model, fit)  # type: ignore[arg-type]
    with pytest.raises(bg.DataError, match="row 0: 'g' is missing"):
        fit.predict({"g": pl.Series([None], dtype=pl.String)})
    with pytest.raises(bg.DataError, match="row 1: 'g' = 'z' is not a level"):
        fit.predict({"g": ["a", "z"]})


@pytest.mark.parametrize("terms", ["(1|g)", "(1|g) + (1|h)", "(x|g)"])
def test_a_grouping_factor_that_is_a_fixed_effect_too(terms: str) -> None:
    """REML does not depend on the variance of levels that have a coefficient each."""
    rng = np.random.default_rng(3)
    g = np.arange(100) % 20
    data = pl.DataFrame(
        {"x": rng.normal(size=100), "g": g.astype(str), "h": rng.permutation(g) % 6}
    )
    data = data.with_columns(
        y=pl.Series(rng.normal(size=20)[g] + rng.normal(size=100)), f="g", h=pl.col("h").cast(str)
    )
    fit = bg.lmer(f"y ~ f + x + {terms}", data).fit("reml")
    assert "sd of (Intercept) by g" in fit.outcome.redundant
    assert said(fit, "Not identified")


def test_crossed_factors_too_large_for_the_machine() -> None:
    rows = np.arange(400_000)
    rng = np.random.default_rng(1)
    data = {"y": rng.normal(size=len(rows))}
    data |= {name: rng.permutation(rows) // 2 for name in "abc"}  # a block of 2.3 TiB
    with pytest.raises(bg.FitError, match="this machine has") as error:
        bg.lmer("y ~ 1 + (1|a) + (1|b) + (1|c)", data, factors=list("abc")).fit()
    assert "400000 random effects in all" in str(error.value)


def test_the_higher_of_two_maxima_at_the_boundary() -> None:
    """A model is no less likely than the one nested in it.

    Of its two maxima the lower has a correlation of 1, the higher one of -1. glmmTMB gives
    -20.148118 without h and fails with it, where lme4 1.1-31 stops at the lower, -20.953531.
    """
    g = [int(v) for v in "3103012300210103012301130123312321331130"]
    h = np.zeros(40, dtype=int)
    h[[2, 5, 12, 18, 22, 26, 31, 32]] = [15, 8, 15, 17, 16, 10, 1, 11]
    z = [-1.15, -0.02, 1.45, -0.03, 3.04, 0.34, 0.17, -1.43, 0.13, -0.23, 0.31, 0.33, -1.02, 1.9]
    z += [-0.54, 1.98, -0.48, 0.09, 0.51, 0.32, -0.01, -1.02, 0.31, 1.42, 2.4, -0.77, 1.36, -1.11]
    z += [-0.62, -0.91, 0.3, -0.4, -1.46, -1.12, 0.16, -0.13, 0.82, -0.19, 0.57, 2.31]
    data = {
        "y": [int(v) for v in "1001100111110001010100110101100101111110"],
        "x": np.array([1.13, 1.61, 0.48, -1.72])[g],
        "z": z,
        "g": [f"g{v}" for v in g],
        "h": [f"h{v}" for v in h],
    }
    smaller = bg.glmer("y ~ x + z + (x|g)", data, family="bernoulli").fit()
    larger = bg.glmer("y ~ x + z + (x|g) + (1|h)", data, family="bernoulli").fit()
    assert smaller.loglik == pytest.approx(-20.148118, abs=2e-6)
    assert larger.loglik > smaller.loglik - 1e-6


@pytest.mark.parametrize("log_sigma", [-800.0, 800.0])
def test_a_step_to_where_sigma_is_no_number(log_sigma: float) -> None:
    """Such a step is refused, and halved by the search; it is not the end of the fit."""
    data = {"y": [1.0, 2.0, 3.0, 2.5, 1.5, 4.0], "g": list("aabbcc")}
    model = bg.glmer("y ~ 1 + (1|g)", data, family="gaussian", link="log")
    terms = model.design.random
    columns = coordinates(model.design, structure_of(terms))
    density = Density(model.likelihood)
    problem = Problem(columns, model.design.offset, density, covariance_of(terms))
    objective = _Guarded(_Profiled(problem, np.zeros(1), 1e-4))
    assert objective(np.array([0.5, log_sigma]))[0] == -np.inf
    assert np.isfinite(objective(np.array([0.5, 0.0]))[0])


@pytest.mark.filterwarnings("ignore::bayesglmm.errors.BayesglmmWarning")
@pytest.mark.parametrize("nagq", [0, 1])
def test_crossed_effects_without_coefficients(nagq: int) -> None:
    """Nothing but random effects: an offset that is constant says the same as none."""
    rng = np.random.default_rng(4)
    a, b = rng.integers(0, 6, 120), rng.integers(0, 5, 120)
    y = rng.poisson(np.exp(0.5 * rng.normal(size=6)[a] + 0.5 * rng.normal(size=5)[b]))
    data = {"y": y, "a": a.astype(str), "b": b.astype(str), "none": np.zeros(120)}
    fit = bg.glmer("y ~ 0 + (1|a) + (1|b)", data, family="poisson").fit(nagq=nagq)
    same = bg.glmer("y ~ 0 + (1|a) + (1|b)", data, family="poisson", offset="none").fit(nagq=nagq)
    assert fit.outcome.converged and fit.loglik == pytest.approx(same.loglik, abs=1e-9)
    assert fit.params.height == 0 and fit.varcorr.height == 2


def test_crossed_factors_too_large_for_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search holds four dense matrices of the smaller factor."""
    rows = 64
    data = {
        "y": np.sin(np.arange(rows)),
        "a": [f"a{i % 8}" for i in range(rows)],
        "b": [f"b{i // 16}" for i in range(rows)],
    }
    model = bg.lmer("y ~ 1 + (1|a) + (1|b)", data)
    needed = 4 * 8 * model.design.structure.q**2
    monkeypatch.setattr("bayesglmm.laplace.memory.physical_memory", lambda: needed - 1.0)
    with pytest.raises(bg.FitError, match=r"crossed terms with 4 random effects in all, b \(4\)"):
        model.fit()
    monkeypatch.setattr("bayesglmm.laplace.memory.physical_memory", lambda: float(needed))
    assert np.isfinite(model.fit().loglik)


def one_way(noise: float) -> pl.DataFrame:
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(12.0), 20)
    return pl.DataFrame({"y": g + noise * rng.normal(size=240), "g": g.astype(str)})


@pytest.mark.parametrize(("noise", "exact"), [(1e-2, 1e-7), (1e-3, 1e-6), (1e-5, 2e-3)])
def test_groups_that_differ_far_more_than_their_members(noise: float, exact: float) -> None:
    """Balanced: the maximum is known (Searle, Casella and McCulloch 1992, section 3.7)."""
    rows = one_way(noise)
    fit = bg.lmer("y ~ 1 + (1|g)", rows).fit()
    y = rows["y"].to_numpy().reshape(12, 20)
    within = float(((y - y.mean(axis=1, keepdims=True)) ** 2).sum()) / (12 * 19)
    between = float(np.var(y.mean(axis=1))) - within / 20
    assert fit.outcome.converged
    assert fit.outcome.evaluations < 100
    np.testing.assert_allclose(fit.varcorr["variance"], [between, within], rtol=exact)


def test_a_linear_mixed_model_that_fits_exactly() -> None:
    for shift in (0.0, 1e6):
        rows = one_way(0.0).with_columns(pl.col("y") + shift)
        with pytest.raises(bg.FitError, match="fitted exactly"):
            bg.lmer("y ~ 1 + (1|g)", rows).fit()
    rows = bg.load_dataset("sleepstudy").with_columns(y=2.0 * pl.col("Days"))
    with pytest.raises(bg.FitError, match="fitted exactly"):
        bg.lmer("y ~ Days + (1|Subject)", rows).fit()


def test_no_adjustment_by_parameters_that_are_not_identified() -> None:
    rows = one_way(1.0)
    with pytest.raises(bg.FitError, match=r"kenward-roger.*sd of \(Intercept\) by g"):
        bg.lmer("y ~ g + (1|g)", rows).fit("reml", df="kenward-roger")


def test_a_covariance_that_lost_rank_is_named_as_a_whole() -> None:
    rng = np.random.default_rng(1)
    x, z, g = rng.normal(size=300), rng.normal(size=300), rng.integers(0, 15, 300)
    u, v = rng.normal(size=15), rng.normal(size=15)  # two directions for three effects
    y = u[g] + v[g] * x + (0.6 * u[g] + 0.8 * v[g]) * z + 0.3 * rng.normal(size=300)
    rows = pl.DataFrame({"y": y, "x": x, "z": z, "g": g.astype(str)})
    fit = bg.lmer("y ~ x + z + (x + z|g)", rows).fit()
    assert fit.outcome.singular == ("covariance of (Intercept), x, z by g (rank 2 of 3)",)


@pytest.mark.parametrize("noise", [1e-6, 3e-7, 1e-8])
@pytest.mark.parametrize("slopes", [True, False])
def test_what_cross_products_cannot_resolve_is_refused(noise: float, slopes: bool) -> None:
    rng = np.random.default_rng(0)
    g, x, (u, v) = np.arange(240) % 12, rng.normal(size=240), rng.normal(size=(2, 12))
    y = 1.0 + x + u[g] + slopes * v[g] * x + noise * rng.normal(size=240)
    rows = pl.DataFrame({"x": x, "g": g.astype(str), "y": y})
    with pytest.raises(bg.FitError, match="fitted exactly"):
        bg.lmer(f"y ~ x + ({'x' if slopes else '1'}|g)", rows).fit(reml=True)


@pytest.mark.parametrize("mean", [1e3, 1e5, 1e7, 1e9])
def test_standard_errors_of_many_events(mean: float) -> None:
    """The groups are then known, and beta as well as the mean of as many normal effects."""
    rng = np.random.default_rng(2)
    g, x = np.arange(2000) % 20, rng.normal(size=2000)
    k = rng.poisson(mean * np.exp(0.2 * x + 2.0 * rng.normal(size=20)[g]))
    data = pl.DataFrame({"x": x, "g": g.astype(str), "k": k})
    model = bg.glmer("k ~ x + (1|g)", data, family="poisson")
    if mean > 1e6:
        with pytest.warns(bg.BayesglmmWarning, match="curvature of the likelihood is rounding"):
            fit = model.fit()
        assert fit.varcorr["std_error"][0] is None
    else:
        fit = model.fit()
    sd = fit.varcorr["estimate"][0]
    assert fit.params["std_error"][0] == pytest.approx(sd / np.sqrt(20), rel=5e-3)
    within = np.sqrt(1.0 / float(np.sum(k * (x - np.average(x, weights=k)) ** 2)))
    assert fit.params["std_error"][1] == pytest.approx(within, rel=0.2)
