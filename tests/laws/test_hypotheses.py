"""Laws of tests of terms and of models, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest
from scipy.stats import chi2, f

import bayesglmm as bg
from bayesglmm.post.nesting import nesting

pytestmark = pytest.mark.filterwarnings("ignore::bayesglmm.errors.BayesglmmWarning")

Type = Literal["I", "II", "III"]


@cache
def penguins() -> pl.DataFrame:
    data = bg.load_dataset("penguins").with_columns(pl.col("sex").replace("NA", None))
    late = (pl.col("year") > 2007).cast(pl.Int8)
    return data.with_columns(depth=pl.col("bill_depth_mm") - 17.0, late=late).drop_nulls()


@cache
def sleep() -> pl.DataFrame:
    return bg.load_dataset("sleepstudy")


def lmer(formula: str, data: pl.DataFrame | None = None, **options: Any) -> bg.Fit:
    method = options.pop("method", "ml")
    return bg.lmer(formula, sleep() if data is None else data, **options).fit(method)


# The builders of a fit with a coding of its two factors, over all engines.
FACTORIAL = "species * sex + species * depth"
BUILDERS: dict[str, Callable[[dict[str, Any]], bg.Fit]] = {
    "lm": lambda c: bg.lm(f"body_mass_g ~ {FACTORIAL}", penguins(), contrasts=c).fit(),
    "lm without intercept": lambda c: bg.lm(
        f"body_mass_g ~ 0 + {FACTORIAL}", penguins(), contrasts=c
    ).fit(),
    "lm, nested": lambda c: bg.lm("body_mass_g ~ species/sex", penguins(), contrasts=c).fit(),
    "lmer, nested": lambda c: bg.lmer(
        "body_mass_g ~ sex/species + (1|year)", penguins(), contrasts=c
    ).fit("reml"),
    "lmer": lambda c: bg.lmer(f"body_mass_g ~ {FACTORIAL} + (1|year)", penguins(), contrasts=c).fit(
        "reml"
    ),
    "lmer, Kenward-Roger": lambda c: bg.lmer(
        f"body_mass_g ~ {FACTORIAL} + (1|year)", penguins(), contrasts=c
    ).fit("reml", df="kenward-roger"),
    "glm": lambda c: bg.glm(
        f"late ~ {FACTORIAL}", penguins(), family="binomial", contrasts=c
    ).fit(),
}
CODINGS = ["sum", "helmert", "sdif", bg.Treatment(base="Gentoo")]


@pytest.mark.parametrize("name", BUILDERS)
def test_type_three_does_not_depend_on_the_coding(name: str) -> None:
    first = bg.anova(BUILDERS[name]({}))
    for coding in CODINGS:
        sex = coding if isinstance(coding, str) else "treatment"
        other = bg.anova(BUILDERS[name]({"species": coding, "sex": sex}))
        assert other["term"].to_list() == first["term"].to_list()
        for column in first.columns[1:]:
            np.testing.assert_allclose(other[column], first[column], rtol=1e-5, err_msg=column)


@pytest.mark.parametrize("type", ["I", "II", "III"])
@pytest.mark.parametrize("test", ["wald", "lrt"])
def test_likelihood_ratio_tests_do_not_depend_on_the_coding(type: Type, test: Any) -> None:
    a, b = (BUILDERS["glm"](c) for c in ({}, {"species": "helmert", "sex": "sum"}))
    first, other = (bg.anova(fit, type=type, test=test) for fit in (a, b))
    np.testing.assert_allclose(other["chi_square"], first["chi_square"], rtol=1e-6, atol=1e-9)


def test_balanced_data_make_the_types_agree() -> None:
    data = pl.DataFrame(
        {
            "a": [x for x in "pqr" for _ in range(8)],
            "b": [x for x in "uv" for _ in range(4)] * 3,
            "y": np.random.default_rng(2).normal(size=24),
        }
    )
    fit = bg.lm("y ~ a * b", data, contrasts={"a": "helmert"}).fit()
    one, two, three = (bg.anova(fit, type=t) for t in ("I", "II", "III"))
    np.testing.assert_allclose(one["sum_sq"], two["sum_sq"])
    np.testing.assert_allclose(one["sum_sq"], three["sum_sq"])


def test_type_one_sums_of_squares_add_up() -> None:
    fit = BUILDERS["lm"]({})
    empty = bg.lm("body_mass_g ~ 1", penguins()).fit()
    rss = [fit.statistics["deviance"].item() for fit in (empty, fit)]
    assert bg.anova(fit, type="I")["sum_sq"].sum() == pytest.approx(rss[0] - rss[1], rel=1e-10)


def test_type_one_of_a_weighted_model_is_that_of_nested_fits() -> None:
    data = penguins().with_columns(w=pl.col("year") - 2006)
    formulas = [f"body_mass_g ~ {rhs}" for rhs in ("1", "species", "species + depth")]
    fits = [bg.lm(text, data, weights="w").fit() for text in formulas]
    rss = [fit.statistics["deviance"].item() for fit in fits]
    np.testing.assert_allclose(bg.anova(fits[-1], type="I")["sum_sq"], -np.diff(rss), rtol=1e-9)


def test_nested_factors_as_car_with_sum_coding() -> None:
    # car::Anova(lm(body_mass_g ~ species/sex), type = 3) under contr.sum
    table = bg.anova(BUILDERS["lm, nested"]({}))
    np.testing.assert_allclose(table["f_stat"], [746.92449, 134.99132], rtol=1e-7)


@pytest.mark.parametrize("type", ["I", "II", "III"])
def test_without_variance_between_groups_tests_are_those_of_lm(type: Type) -> None:
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(8), 6)
    e = rng.normal(size=48)
    e -= (np.bincount(g, e) / 6)[g]  # groups more alike than chance: their variance is zero
    f = rng.integers(0, 3, 48)
    data = pl.DataFrame({"y": e, "g": g, "f": f, "x": rng.normal(size=48), "w": 1.0 + f})
    options: dict[str, Any] = {"weights": "w", "factors": ["f", "g"]}
    mixed = bg.lmer("y ~ f + x + (1|g)", data, **options).fit("reml")
    plain = bg.lm("y ~ f + x", data, **options).fit()
    assert mixed.outcome.singular
    ours, theirs = bg.anova(mixed, type=type), bg.anova(plain, type=type)
    for column in ("sum_sq", "f_stat"):
        np.testing.assert_allclose(ours[column], theirs[column], rtol=1e-6)


@pytest.mark.parametrize("name", ["lm", "lmer", "lmer, Kenward-Roger", "glm"])
def test_one_degree_of_freedom_is_the_square_of_the_coefficient(name: str) -> None:
    fit = BUILDERS[name]({"species": "sum", "sex": "sum"})
    row = fit.params.row(by_predicate=pl.col("term") == "depth", named=True)
    test = bg.anova(fit).row(by_predicate=pl.col("term") == "depth", named=True)
    squared = row["z_stat" if name == "glm" else "t_stat"] ** 2
    assert test["chi_square" if name == "glm" else "f_stat"] == pytest.approx(squared, rel=1e-6)
    assert test["p_value"] == pytest.approx(row["p_value"], rel=1e-5)


def test_lrt_is_twice_the_difference_of_log_likelihoods() -> None:
    one, two = lmer("Reaction ~ 1 + (Days|Subject)"), lmer("Reaction ~ Days + (Days|Subject)")
    expected = 2.0 * (two.loglik - one.loglik)
    assert bg.anova(one, two)["chi_square"][1] == pytest.approx(expected, rel=1e-9)
    assert bg.drop1(two)["chi_square"][1] == pytest.approx(expected, rel=1e-6)
    for type in ("I", "II", "III"):
        table = two.anova(type=type, test="lrt")
        assert table["chi_square"].item() == pytest.approx(expected, rel=1e-6)


def test_the_order_of_the_fits_does_not_matter() -> None:
    fits = [
        bg.lm("Reaction ~ Days", sleep()).fit(),
        lmer("Reaction ~ Days + (1|Subject)"),
        lmer("Reaction ~ Days + (Days|Subject)", method="reml"),
    ]
    first, other = bg.anova(*fits), fits[2].anova(fits[0], fits[1])
    assert first.equals(other) and first.caption == other.caption
    assert "REML fits refitted by ML" in first.caption


def test_models_without_random_effects_have_the_f_test_of_their_term() -> None:
    small, large = (bg.lm(f"mpg ~ {t}", bg.load_dataset("mtcars")).fit() for t in ("wt", "wt + hp"))
    table, term = bg.anova(large, small), bg.anova(large).row(1, named=True)
    for column in ("sum_sq", "num_df", "den_df", "f_stat", "p_value"):
        assert table[column][1] == pytest.approx(term[column], rel=1e-9)
    by_ratio = bg.anova(small, large, test="lrt")
    assert by_ratio["chi_square"][1] == pytest.approx(2.0 * (large.loglik - small.loglik))
    assert "p_boundary" not in by_ratio.columns


# Boundaries -------------------------------------------------------------------------------------


def boundary(small: bg.Fit, large: bg.Fit) -> dict[str, Any]:
    table = bg.anova(small, large)
    return {**table.row(1, named=True), "caption": table.caption}


def test_one_variance_at_zero_halves_the_p_value() -> None:
    row = boundary(bg.lm("Reaction ~ Days", sleep()).fit(), lmer("Reaction ~ Days + (1|Subject)"))
    assert row["df"] == 1
    assert row["p_boundary"] == pytest.approx(0.5 * row["p_value"])
    assert "p_value is conservative; p_boundary from 0.5 chi2(0) + 0.5 chi2(1)" in row["caption"]


def test_a_correlated_slope_mixes_one_and_two_degrees_of_freedom() -> None:
    # Stram and Lee 1994, case 3; here the smaller model also lacks a fixed effect.
    slopes = lmer("Reaction ~ Days + (Days|Subject)")
    row = boundary(lmer("Reaction ~ Days + (1|Subject)"), slopes)
    x = row["chi_square"]
    assert row["p_boundary"] == pytest.approx(0.5 * chi2.sf(x, 1) + 0.5 * chi2.sf(x, 2))
    row = boundary(lmer("Reaction ~ 1 + (1|Subject)"), slopes)
    x = row["chi_square"]
    assert row["df"] == 3
    assert row["p_boundary"] == pytest.approx(0.5 * chi2.sf(x, 2) + 0.5 * chi2.sf(x, 3))


def test_inside_the_range_there_is_no_correction() -> None:
    row = boundary(
        lmer("Reaction ~ Days + (Days||Subject)"), lmer("Reaction ~ Days + (Days|Subject)")
    )
    assert "p_boundary" not in row and "conservative" not in row["caption"]


def test_several_variances_have_no_known_correction() -> None:
    row = boundary(
        bg.lm("Reaction ~ Days", sleep()).fit(), lmer("Reaction ~ Days + (Days|Subject)")
    )
    assert row["p_boundary"] is None
    assert "2 variances are tested at zero" in row["caption"]


def test_a_singular_smaller_model_has_no_known_correction() -> None:
    data = bg.load_dataset("dyestuff2")
    one = bg.lmer("Yield ~ 1 + (1|Batch)", data).fit()
    half = data.with_columns(side=pl.Series(["a", "b", "c"] * (data.height // 3)))
    two = bg.lmer("Yield ~ 1 + (1|Batch) + (1|side)", half).fit()
    row = boundary(bg.lmer("Yield ~ 1 + (1|Batch)", half).fit(), two)
    assert one.outcome.singular and row["p_boundary"] is None
    assert "singular itself" in row["caption"]


def test_the_same_model_twice_is_not_tested() -> None:
    fits = lmer("Reaction ~ Days + (1|Subject)"), lmer("Reaction ~ 1 + Days + (1|Subject)")
    row = boundary(*fits)
    assert (row["df"], row["p_value"]) == (0, None) and "nothing to test" in row["caption"]


def test_a_likelihood_ratio_of_zero_is_no_evidence() -> None:
    data = bg.load_dataset("dyestuff2")
    row = boundary(bg.lm("Yield ~ 1", data).fit(), bg.lmer("Yield ~ 1 + (1|Batch)", data).fit())
    assert row["chi_square"] == 0.0
    assert row["p_value"] == row["p_boundary"] == 1.0


def test_the_boundary_p_value_is_uniform_under_the_hypothesis() -> None:
    """No variance between groups: a mixture of chi-squares, not chi-square."""
    rng, ratios = np.random.default_rng(5), []
    group = [f"g{k}" for k in range(20) for _ in range(4)]
    for _ in range(100):
        data = pl.DataFrame({"y": rng.normal(size=80), "g": group})
        fits = bg.lm("y ~ 1", data).fit(), bg.lmer("y ~ 1 + (1|g)", data).fit()
        ratios.append(2.0 * (fits[1].loglik - fits[0].loglik))
    # P(ratio > 1.642) is 0.1 for the mixture, 0.2 for chi-square; three standard errors.
    assert abs(np.mean(np.array(ratios) > chi2.isf(0.2, 1)) - 0.1) < 3 * np.sqrt(0.09 / 100)


# Nesting ----------------------------------------------------------------------------------------

NESTED = [  # smaller, larger, variances at zero
    ("y ~ 1 + (1|a)", "y ~ x + (1|a)", 0),
    ("y ~ x + (1|a)", "y ~ x + (1|a) + (1|b)", 1),
    ("y ~ x + (1|a)", "y ~ x + (1|a/b)", 1),
    ("y ~ x + (1|a:b)", "y ~ x + (1|a/b)", 1),
    ("y ~ x + (1|a)", "y ~ x + (x|a)", 1),
    ("y ~ x + (0 + x|a)", "y ~ x + (x|a)", 1),
    ("y ~ x + (1|a) + (0 + x|a)", "y ~ x + (x|a)", 0),
    ("y ~ x + (x||a)", "y ~ x + (x|a)", 0),
    ("y ~ x + (1|a)", "y ~ x + (x + z|a)", 2),
    ("y ~ x + (x|a)", "y ~ x + (x + z|a)", 1),
    ("y ~ x + (1|a)", "y ~ x + (b|a)", 2),
    ("y ~ x + (1|a) + (1|a:b)", "y ~ x + (b|a)", 0),  # compound symmetry in unstructured
    ("y ~ x + (b|a)", "y ~ x + (0 + b|a)", 0),  # the same model, written twice
    ("y ~ offset(2 * x) + (1|a)", "y ~ x + (1|a)", 0),
    ("y ~ x + (1|a)", "y ~ poly(x, 2) + (1|a)", 0),
]
SEPARATE = [
    ("y ~ x + (1|a)", "y ~ z + (1|a)", "x cannot be written"),
    ("y ~ x + (1|a)", "y ~ x + (1|b)", "not a special case"),
    ("y ~ x + (x|a)", "y ~ x + (x||a) + (1|b)", "not a special case"),
    ("y ~ x + (1|a)", "y ~ x", "no random effects"),
    ("y ~ offset(z) + (1|a)", "y ~ x + (1|a)", "the offset cannot be written"),
]


@cache
def design_of(formula: str) -> Any:
    rng = np.random.default_rng(1)
    n = 120
    data = pl.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": 2010.0 + rng.normal(size=n),
            "z": rng.normal(size=n),
            "a": [f"a{k}" for k in rng.integers(0, 6, n)],
            "b": [f"b{k}" for k in rng.integers(0, 3, n)],
        }
    )
    return bg.model(formula, data).design


@pytest.mark.parametrize(("small", "large", "zeros"), NESTED)
def test_nested_models_are_recognised(small: str, large: str, zeros: int) -> None:
    found = nesting(design_of(small), design_of(large))
    assert (found.problem, found.zeros) == ("", zeros)


@pytest.mark.parametrize(("small", "large", "problem"), SEPARATE)
def test_other_models_are_not_nested(small: str, large: str, problem: str) -> None:
    assert problem in nesting(design_of(small), design_of(large)).problem


def test_models_that_are_not_nested_get_no_test() -> None:
    cars = bg.load_dataset("mtcars")
    fits = [bg.lm(f"mpg ~ {t}", cars).fit() for t in ("wt", "hp + qsec", "wt + hp + qsec")]
    table = bg.anova(*fits)
    assert table["p_value"].is_null().to_list() == [True, True, False]
    assert "row 2 not tested against row 1: not nested (wt cannot be written" in table.caption
    mixed = bg.anova(lmer("Reaction ~ 1 + (Days|Subject)"), lmer("Reaction ~ Days + (1|Subject)"))
    assert mixed["p_value"].is_null().all() and "not nested" in mixed.caption
    assert mixed["AIC"].is_not_null().all()


# REML -------------------------------------------------------------------------------------------


def test_restricted_likelihoods_on_request() -> None:
    one, two = (lmer(f"Reaction ~ Days + ({t}|Subject)", method="reml") for t in ("1", "Days"))
    table = bg.anova(one, two, refit=False)
    assert table["chi_square"][1] == pytest.approx(2.0 * (two.loglik - one.loglik))
    assert "restricted" in table.caption and table["p_boundary"][1] < table["p_value"][1]
    with pytest.raises(bg.ChoiceError, match=r"different fixed effects.*refit=True"):
        bg.anova(lmer("Reaction ~ 1 + (1|Subject)", method="reml"), two, refit=False)
    with pytest.raises(bg.ChoiceError, match="cannot be compared; use refit=True"):
        bg.anova(lmer("Reaction ~ Days + (1|Subject)"), two, refit=False)


# Linear hypotheses ------------------------------------------------------------------------------


def test_a_hypothesis_is_what_car_says() -> None:
    fit = bg.lm("mpg ~ wt + hp + qsec", bg.load_dataset("mtcars")).fit()
    table = fit.wald_test(["wt = hp", "2*qsec - hp = 1"])
    assert table["hypothesis"].item() == "wt - hp = 0, -hp + 2*qsec = 1"
    assert table["f_stat"].item() == pytest.approx(22.95857, rel=1e-6)
    assert table["p_value"].item() == pytest.approx(f.sf(22.95857, 2, 28), rel=1e-5)
    same = fit.wald_test([[0, 1, -1, 0], [0, 0, -1, 2]], rhs=[0, 1])
    assert same.equals(table)
    logistic = bg.glm("survived ~ sex + age", bg.load_dataset("titanic"), family="binomial").fit()
    table = logistic.wald_test("sexmale = -2 + age")
    assert table["chi_square"].item() == pytest.approx(6.14072, rel=1e-5)
    assert table["df"].item() == 1


def test_redundant_hypotheses_do_not_count() -> None:
    fit = lmer("Reaction ~ Days + (Days|Subject)")
    once, twice = fit.wald_test("Days = 9"), fit.wald_test(["Days = 9", "2*Days = 18"])
    assert twice["num_df"].item() == 1
    for column in ("den_df", "f_stat", "p_value"):
        assert twice[column].item() == pytest.approx(once[column].item())
    with pytest.raises(bg.DataError, match="contradict"):
        fit.wald_test(["Days = 9", "Days = 10"])


def test_a_term_is_the_hypothesis_about_its_columns() -> None:
    fit = BUILDERS["lmer"]({"species": "sum", "sex": "sum"})
    rows = [f"{n} = 0" for n in fit.model.design.names if n.startswith("species") and ":sex" in n]
    term = bg.anova(fit).row(by_predicate=pl.col("term") == "species:sex", named=True)
    assert fit.wald_test(rows)["f_stat"].item() == pytest.approx(term["f_stat"], rel=1e-9)


EQUATIONS = [
    ("Dayz = 0", "did you mean 'Days'"),
    ("Days", ""),
    ("Days = 0 = 1", "several equations as a list"),
    ("Days (Intercept)", r"\+, - or = is missing"),
    ("Days =", "breaks off"),
    ("* Days", "cannot stand here: give a sum of coefficients"),
    ("", "breaks off"),
]


@pytest.mark.parametrize(("text", "problem"), EQUATIONS)
def test_equations_that_cannot_be_read(text: str, problem: str) -> None:
    fit = lmer("Reaction ~ Days + (1|Subject)")
    if not problem:
        assert fit.wald_test(text)["hypothesis"].item() == f"{text} = 0"
        return
    with pytest.raises(bg.FormulaError, match=problem):
        fit.wald_test(text)


# What is refused --------------------------------------------------------------------------------


def test_bad_input_to_anova() -> None:
    fit = lmer("Reaction ~ Days + (1|Subject)")
    other = lmer("Reaction ~ Days + (Days|Subject)")
    with pytest.raises(bg.ChoiceError, match="anova needs a fit"):
        bg.anova()
    with pytest.raises(bg.ChoiceError, match=r"got Model\. Fit the model first"):
        bg.anova(fit.model)  # type: ignore[arg-type]
    with pytest.raises(bg.ChoiceError, match=r"type='3' is not known.*'I', 'II', 'III'"):
        bg.anova(fit, type="3")  # type: ignore[arg-type]
    with pytest.raises(bg.ChoiceError, match=r"test='lr'.*did you mean 'lrt'"):
        bg.anova(fit, test="lr")  # type: ignore[arg-type]
    with pytest.raises(bg.ChoiceError, match="type='I' belongs to tests of the terms"):
        bg.anova(fit, other, type="I")
    with pytest.raises(bg.ChoiceError, match="refit=False belongs to the comparison"):
        bg.anova(fit, refit=False)
    with pytest.raises(bg.ChoiceError, match="without random effects"):
        bg.anova(fit, other, test="F")
    with pytest.raises(bg.ChoiceError, match="terms of one fit"):
        bg.anova(fit, other, test="wald")
    with pytest.raises(bg.ChoiceError, match="only an intercept"):
        lmer("Reaction ~ 1 + (1|Subject)").anova()
    with pytest.raises(bg.ChoiceError, match="df='asymptotic'"):
        bg.anova(fit.model.fit(df="asymptotic"), test="F")
    with pytest.raises(bg.ChoiceError, match="this model has none, use test='wald'"):
        bg.anova(BUILDERS["glm"]({}), test="F")
    with pytest.raises(bg.ChoiceError, match="test='wald' is not known"):
        bg.drop1(fit, "wald")  # type: ignore[arg-type]


def test_fits_of_different_data_are_refused() -> None:
    fit = lmer("Reaction ~ Days + (1|Subject)")
    fewer = lmer("Reaction ~ 1 + (1|Subject)", sleep().head(170))
    with pytest.raises(bg.DataError, match=r"different rows \(180 of 180, 170 of 170\)"):
        bg.anova(fit, fewer)
    moved = sleep().with_columns(Reaction=pl.col("Reaction") + 1.0, w=pl.col("Days") + 1.0)
    with pytest.raises(bg.DataError, match="different responses"):
        bg.anova(fit, lmer("Reaction ~ 1 + (1|Subject)", moved))
    with pytest.raises(bg.DataError, match="different weights"):
        bg.anova(
            lmer("Reaction ~ Days + (1|Subject)", moved),
            lmer("Reaction ~ 1 + (1|Subject)", moved, weights="w"),
        )
    cbpp = bg.load_dataset("cbpp")
    text = "incidence ~ {} + (1|herd)"
    models = [
        bg.glmer(text.format(t), cbpp, family="binomial", trials="size", factors=["period"])
        for t in ("1", "period")
    ]
    with pytest.raises(bg.ChoiceError, match=r"quadrature nodes \(1, 9\); use the same nagq"):
        plain = bg.glm("incidence ~ 1", cbpp, family="binomial", trials="size")
        bg.anova(plain.fit(), models[0].fit(), models[1].fit(nagq=9))
    probit = bg.glmer(
        "incidence ~ 1 + (1|herd)", cbpp, family="binomial", link="probit", trials="size"
    )
    with pytest.raises(bg.ChoiceError, match="binomial logit, binomial probit"):
        bg.anova(models[1].fit(), probit.fit())
    assert bg.anova(models[0].fit(nagq=9), models[1].fit(nagq=9))["df"][1] == 3


def test_a_posterior_is_told_where_to_look() -> None:
    class Drawn:
        method = "NUTS (4 chains x 1000 draws)"

    fit = lmer("Reaction ~ Days + (1|Subject)")
    drawn = replace(fit, posterior=Drawn())  # type: ignore[arg-type]
    calls: list[Callable[[], object]] = [
        lambda: bg.anova(drawn),
        lambda: bg.anova(fit, drawn),
        lambda: bg.drop1(drawn),
        lambda: bg.wald_test(drawn, "Days = 0"),
    ]
    for call in calls:
        with pytest.raises(bg.ChoiceError, match=r"this fit is by NUTS.*emmeans.*model\.fit\(\)"):
            call()


def test_bad_weights_of_a_hypothesis() -> None:
    fit = lmer("Reaction ~ Days + (1|Subject)")
    with pytest.raises(bg.DataError, match=r"shape \(3,\).*2 coefficients: \(Intercept\), Days"):
        fit.wald_test([0.0, 1.0, 0.0])
    with pytest.raises(bg.DataError, match="no coefficient in it"):
        fit.wald_test([[0.0, 1.0], [0.0, 0.0]])
    with pytest.raises(bg.DataError, match="one for each of 1 rows"):
        fit.wald_test([0.0, 1.0], rhs=[1.0, 2.0])
    with pytest.raises(bg.DataError, match="equations such as"):
        fit.wald_test(["Days = 0", 1.0])  # type: ignore[arg-type]
    with pytest.raises(bg.ChoiceError, match="write it into the equation"):
        fit.wald_test("Days", rhs=1.0)


def test_inflation_of_a_term_of_several_columns() -> None:
    # car::vif(lm(mpg ~ wt + factor(cyl) + hp, mtcars))
    fit = bg.lm("mpg ~ wt + factor(cyl) + hp", bg.load_dataset("mtcars")).fit()
    table = bg.vif(fit)
    np.testing.assert_allclose(table["gvif"], [2.580877, 5.105811, 3.496014], rtol=1e-6)
    np.testing.assert_allclose(
        table["ci_increase_factor"], [1.606511, 1.503198, 1.869763], rtol=1e-6
    )
    with pytest.raises(bg.ChoiceError, match="two terms or more"):
        bg.vif(bg.lm("mpg ~ wt", bg.load_dataset("mtcars")).fit())


ALIASED = {
    "lm": lambda f, d: bg.lm(f, d).fit(),
    "lmer": lambda f, d: lmer(f + " + (1|Subject)", d),
    "Kenward-Roger": lambda f, d: bg.lmer(f + " + (1|Subject)", d).fit("reml", df="kenward-roger"),
    "glm": lambda f, d: bg.glm(f.replace("Reaction", "slow"), d, family="binomial").fit(),
}


@pytest.mark.parametrize("test", ["auto", "wald", "lrt"])
@pytest.mark.parametrize("kind", ALIASED)
def test_a_term_that_adds_no_column_has_no_df(
    kind: str, test: Literal["auto", "wald", "lrt"]
) -> None:
    """Type I tests of the other terms are those without it, as in R's ``anova``."""
    data = sleep().with_columns(
        hours=24 * pl.col("Days"), slow=pl.col("Reaction") > 300, odd=pl.col("Days") % 2
    )
    fit = ALIASED[kind]("Reaction ~ Days + hours + odd", data)
    found = fit.anova(type="I", test=test)
    wanted = ALIASED[kind]("Reaction ~ Days + odd", data).anova(type="I", test=test)
    assert found["term"].to_list() == ["Days", "hours", "odd"]
    for column in wanted.columns[1:]:
        np.testing.assert_allclose(found[column].gather([0, 2]), wanted[column], rtol=1e-6)
    nothing = found.row(1, named=True)
    assert nothing.pop("term") == "hours"
    assert set(nothing.values()) == {0, None}
    assert nothing["df" if "df" in nothing else "num_df"] == 0 and nothing["p_value"] is None
    dropped = fit.drop1()
    assert dropped["p_value"].to_list()[:3] == [None] * 3  # Days is in the span of hours
    assert dropped["df"].to_list() == [None, 0, 0, 1]
    assert dropped["p_value"].is_nan().sum() == 0


@pytest.mark.parametrize("kind", ["II", "III"])
def test_tests_beside_aliased_terms_are_those_without_them(kind: Type) -> None:
    """As of lmerTest, which leaves the columns out."""
    data = sleep().with_columns(
        hours=24 * pl.col("Days"), late=pl.col("Days") * 2 + 1, odd=pl.col("Days") % 2
    )
    fit = lmer("Reaction ~ Days + hours + late + odd + (1|Subject)", data)
    found, wanted = fit.anova(type=kind), lmer("Reaction ~ Days + odd + (1|Subject)", data)
    assert found["num_df"].to_list() == [1, 0, 0, 1]
    for column in ("f_stat", "den_df", "p_value"):
        np.testing.assert_allclose(
            found[column].gather([0, 3]), wanted.anova(type=kind)[column], rtol=1e-6
        )
        assert found[column].gather([1, 2]).is_null().all()


def test_type_two_compares_the_cells_there_are() -> None:
    rng = np.random.default_rng(2)
    f, h, g = (rng.integers(0, k, 200) for k in (3, 2, 10))
    rows = pl.DataFrame({"y": rng.normal(size=200) + f, "f": f, "h": h, "g": g})
    rows = rows.filter(~((pl.col("f") == 2) & (pl.col("h") == 1))).cast(
        {"f": pl.String, "h": pl.String, "g": pl.String}
    )
    fit, other = (lmer(f"y ~ {terms} + (1|g)", rows) for terms in ("f * h", "h * f"))
    with pytest.raises(bg.ChoiceError, match=r"cells of a product.*f2:h1.*type='II'"):
        fit.anova()
    second = fit.anova(type="II")
    assert second["num_df"].to_list() == [2, 1, 1]
    # Each given the other: what comes second of two, whatever their order.
    last = [other.anova(type="I")["f_stat"][1], *fit.anova(type="I")["f_stat"][1:]]
    np.testing.assert_allclose(second["f_stat"], last, rtol=1e-6)
