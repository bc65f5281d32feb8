"""What is left out of a fit and said so: aliased columns, rows without weight."""

from __future__ import annotations

import datetime
import decimal
import pickle
import re
import warnings
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

import bayesglmm as bg
from bayesglmm.design.factors import codes, factorise, labels
from bayesglmm.posterior.sampled import SampledPosterior

RNG = np.random.default_rng(7)
N = 48
GROUP = RNG.integers(0, 6, N)
DATA = pl.DataFrame(
    {
        "x": RNG.normal(size=N),
        "f": list("abc") * 16,
        "h": list("uuuvvv") * 8,
        "g": [f"g{k}" for k in GROUP],
        "k": RNG.poisson(np.exp(0.5 + GROUP / 4.0)),
        "s": RNG.integers(0, 4, N),
        "size": RNG.integers(4, 8, N),
        "w": RNG.integers(0, 3, N),
    }
).with_columns(
    y=pl.col("x") * 0.5 + pl.Series(RNG.normal(size=N)),
    twice=2 * pl.col("x") - 1,
    seven=pl.lit(7.0),
)
SAID = "ignore:.*not estimable:bayesglmm.errors.BayesglmmWarning"
FORMULAS = [
    ("y ~ x + twice + f", "gaussian"),
    ("y ~ x + twice + f + (1|g)", "gaussian"),
    ("k ~ seven + x + f", "poisson"),
    ("k ~ seven + x + f + (1|g)", "poisson"),
]


@pytest.mark.parametrize(("formula", "family"), FORMULAS)
def test_a_dropped_column_changes_nothing_but_its_row(formula: str, family: str) -> None:
    with pytest.warns(bg.BayesglmmWarning, match="1 coefficient not estimable: (twice|seven) = "):
        model = bg.model(formula, DATA, family=family)
    shorter = formula.replace("twice + ", "").replace("seven + ", "")
    fit, plain = model.fit(), bg.model(shorter, DATA, family=family).fit()
    known = fit.params.drop_nulls("estimate")
    assert fit.params.height == plain.params.height + 1
    for column in plain.params.columns[1:]:
        np.testing.assert_allclose(known[column], plain.params[column], rtol=1e-6)
    assert fit.loglik == pytest.approx(plain.loglik, abs=1e-8)
    assert fit.vcov.shape == plain.vcov.shape
    text = fit.summary().text()
    assert text.count("not estimable") == 1 and "1 coefficient not estimable" in text
    np.testing.assert_allclose(fit.predict()["estimate"], plain.predict()["estimate"], rtol=1e-6)
    if fit.model.design.random:
        lost = fit.coef.filter(pl.col("term").is_in(["twice", "seven"]))
        assert lost.height == 6 and lost["estimate"].null_count() == 6
    again = pickle.loads(pickle.dumps(model.design))
    assert again.aliased == model.design.aliased


@pytest.mark.filterwarnings(SAID)
def test_the_warning_comes_once_and_from_the_model() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = bg.lm("y ~ x + twice", DATA)
        fit = model.fit()
        fit.predict({"x": [0.0], "twice": [-1.0]})
        fit.summary()
    assert len(caught) == 1 and issubclass(caught[0].category, bg.BayesglmmWarning)
    assert "twice = -(Intercept) + 2 x" in str(caught[0].message)


@pytest.mark.filterwarnings(SAID)
def test_a_prior_of_a_dropped_column_is_refused() -> None:
    with pytest.raises(bg.ChoiceError, match=r"priors\['twice'\].*twice = -\(Intercept\) \+ 2 x"):
        bg.lm("y ~ x + twice", DATA, priors={"twice": bg.Normal(0, 1)})
    model = bg.lm("y ~ x + twice", DATA, priors={"x": bg.Normal(0, 1)})
    assert model.prior_table["name"].to_list() == ["(Intercept)", "x", "sigma"]


@pytest.mark.filterwarnings(SAID)
def test_draws_have_the_same_columns_and_the_same_nulls() -> None:
    data = DATA.filter(~((pl.col("f") == "b") & (pl.col("h") == "v")))
    model = bg.lm("y ~ f * h + x", data)
    kept = [name for name in model.design.all_names if name != "fb:hv"]
    assert list(model.to_pymc().coords["coef"]) == kept
    draws = RNG.normal(size=(2, 50, len(kept)))
    run = SimpleNamespace(
        values={"beta": draws}.__getitem__, options=bg.NUTS(draws=50, chains=2), interrupted=False
    )
    fit = bg.Fit(model, run.options, SampledPosterior(model.design, cast(Any, run)))
    empty = fit.params.row(by_predicate=pl.col("term") == "fb:hv", named=True)
    assert all(v is None for k, v in empty.items() if k != "term")
    means = fit.emmeans(["f", "h"])
    assert means["emmean"].is_null().to_list() == [False] * 4 + [True, False]
    assert np.isnan(means.draws[..., 4]).all() and not np.isnan(means.draws[..., :4]).any()
    pairs = fit.emmeans("f", contrasts="pairwise")
    assert pairs["estimate"].is_null().to_list() == [True, False, True]
    rows = fit.predict({"f": ["b", "b"], "h": ["u", "v"], "x": [0.0, 0.0]})
    assert rows["estimate"].is_null().to_list() == [False, True]


@pytest.mark.filterwarnings(SAID)
def test_more_columns_than_rows() -> None:
    few = DATA[:7]
    with pytest.raises(bg.FitError, match="7 coefficients and 7 rows"):
        bg.lm("y ~ x + I(x^2) + I(x^3) + k + s + size + w + h + f", few).fit()
    with pytest.raises(bg.FitError, match="7 coefficients and 7 rows"):
        bg.lmer("y ~ x + I(x^2) + I(x^3) + k + s + size + w + h + (1|f)", few).fit()
    fit = bg.lm("y ~ x + h + I(x * 2) + I(x - 1) + I(x + 1) + I(x / 2) + twice", few).fit()
    assert len(fit.model.design.aliased) == 5
    assert fit.params["estimate"].null_count() == 5


# Rows that say nothing -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "family"),
    [
        ("y ~ x + f", "gaussian"),
        ("y ~ x + f + (1|g)", "gaussian"),
        ("k ~ x + f", "poisson"),
        ("k ~ x + (1|g)", "poisson"),
    ],
)
@pytest.mark.parametrize("how", ["column", "array"])
def test_rows_of_weight_zero_are_left_out(formula: str, family: str, how: str) -> None:
    weights: Any = "w" if how == "column" else DATA["w"].to_numpy()
    fit = bg.model(formula, DATA, family=family, weights=weights).fit()
    counted = DATA.filter(pl.col("w") > 0)
    plain = bg.model(formula, counted, family=family, weights="w").fit()
    assert fit.model.design.weightless == N - counted.height == fit.model.design.dropped > 0
    np.testing.assert_array_equal(fit.params["estimate"], plain.params["estimate"])
    assert fit.loglik == plain.loglik
    assert fit.statistics["nobs"].item() == counted.height
    rows = fit.predict()["estimate"]
    assert rows.is_null().to_list() == (DATA["w"] == 0).to_list()
    assert f"({N - counted.height} of {N} dropped: {N - counted.height} of weight zero)" in str(fit)


def test_missing_values_and_zero_weights_are_told_apart() -> None:
    data = DATA.with_columns(x=pl.when(pl.int_range(N) < 2).then(None).otherwise("x"))
    fit = bg.lm("y ~ x", data, weights="w").fit()
    zero = int((data["w"][2:] == 0).sum())
    assert f"dropped: 2 with missing values, {zero} of weight zero" in fit.summary().text()


@pytest.mark.parametrize("left", ["s", "cbind(s, size - s)"])
@pytest.mark.parametrize("which", ["some", "all"])
def test_rows_without_trials_are_refused(left: str, which: str) -> None:
    empty = (pl.int_range(N) % 5 == 2) | (which == "all")
    data = DATA.with_columns(
        s=pl.when(empty).then(0).otherwise("s"), size=pl.when(empty).then(0).otherwise("size")
    )
    options: Any = {"trials": "size"} if left == "s" else {}
    said = (
        "48 of the rows used (first: 0, 1" if which == "all" else "10 of the rows used (first: 2, 7"
    )
    with pytest.raises(bg.DataError, match=r"number of trials is zero in " + re.escape(said)):
        bg.glm(f"{left} ~ x + f", data, family="binomial", **options)
    if which == "some":  # as the message says
        bg.glm(f"{left} ~ x + f", data.filter(pl.col("size") > 0), family="binomial", **options)


@pytest.mark.parametrize("hole", [None, float("nan"), float("inf"), -1.0])
def test_weights_that_are_none_are_refused(hole: float | None) -> None:
    data = DATA.with_columns(w=pl.Series([2.0, hole, 1.0] * 16))
    kind = "missing" if hole is None or hole != hole else f"{hole:g}"
    with pytest.raises(bg.DataError, match=rf"weights .w. must be finite.*row 1 with .*{kind}"):
        bg.lm("y ~ x", data, weights="w")
    gone = data.with_columns(y=pl.when(pl.int_range(N) % 3 == 1).then(None).otherwise("y"))
    assert bg.lm("y ~ x", gone, weights="w").design.n == 32


# Scales ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [1e-8, 1e-3, 1e8])
@pytest.mark.parametrize(
    ("formula", "family"),
    [("y ~ x + z + (x|g)", "gaussian"), ("k ~ x + z + (1|g)", "poisson"), ("k ~ x + z", "poisson")],
)
def test_units_of_covariates_do_not_matter(formula: str, family: str, unit: float) -> None:
    """lme4 asks to rescale; here the fit is the same, and nothing is said."""
    data = DATA.with_columns(z=pl.col("x").abs())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bg.BayesglmmWarning)  # the slope may be singular
        one = bg.model(formula, data, family=family).fit()
        other = bg.model(formula, data.with_columns(pl.col("x") * unit), family=family).fit()
    assert other.loglik == pytest.approx(one.loglik, abs=1e-7)
    assert [n.split(":")[0] for n in other.outcome.notes] == [
        n.split(":")[0] for n in one.outcome.notes
    ]
    scale = np.array([1.0, unit, 1.0])
    for column in ("estimate", "std_error"):
        np.testing.assert_allclose(other.params[column] * scale, one.params[column], rtol=1e-3)


# Factors ---------------------------------------------------------------------------------------

PICK = np.random.default_rng(3).integers(0, 4, 60).tolist()
DAY = datetime.date(2020, 2, 28)
KINDS: dict[str, tuple[list[Any], Any, list[str]]] = {
    "text": (["b", "a", "ä", "Z"], pl.String, ["Z", "a", "b", "ä"]),
    "categorical": (["b", "a", "ä", "Z"], pl.Categorical, ["Z", "a", "b", "ä"]),
    "enum": (["b", "a", "ä", "Z"], pl.Enum(["q", "ä", "Z", "b", "a"]), ["ä", "Z", "b", "a"]),
    "int8": ([127, -128, 0, 3], pl.Int8, ["-128", "0", "3", "127"]),
    "far apart": ([2**62, -(2**62), 1, 2], pl.Int64, [str(-(2**62)), "1", "2", str(2**62)]),
    "unsigned": ([2**64 - 1, 1, 2**63, 7], pl.UInt64, ["1", "7", str(2**63), str(2**64 - 1)]),
    "128": ([1, 2, 3, 10], pl.Int128, ["1", "2", "3", "10"]),
    "float": ([1.5, -2.0, 1e10, 0.1], pl.Float64, ["-2", "0.1", "1.5", "10000000000"]),
    "decimal": ([decimal.Decimal(k) for k in "3124"], pl.Decimal(10, 0), ["1", "2", "3", "4"]),
    "bool": ([True, False, True, False], pl.Boolean, ["FALSE", "TRUE"]),
    "date": (
        [DAY + datetime.timedelta(k) for k in range(4)],
        pl.Date,
        ["2020-02-28", "2020-02-29", "2020-03-01", "2020-03-02"],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("holed", [False, True])
def test_factors_of_every_type(kind: str, holed: bool) -> None:
    values, dtype, expected = KINDS[kind]
    picked = [None if holed and k % 7 == 0 else values[i] for k, i in enumerate(PICK)]
    series = pl.Series("v", picked, dtype=dtype)
    factor, code = factorise(series)
    assert list(factor.levels) == expected and code.dtype == np.intp
    named = [None if c < 0 else factor.levels[c] for c in code]
    assert named == labels(series).to_list()
    assert [v is None for v in named] == [v is None for v in picked]
    assert codes(series, factor).tolist() == code.tolist()
    assert set(codes(series, type(factor)("v", factor.levels[1:]))) >= {-2, 0}


def test_many_strings_are_coded_as_few() -> None:
    text = pl.Series("v", ["b", "a", None, "c"] * 30_000)
    factor, code = factorise(text)
    assert factor.levels == ("a", "b", "c") and code[:4].tolist() == [1, 0, -1, 2]
    assert codes(text, factor)[-4:].tolist() == [1, 0, -1, 2]
