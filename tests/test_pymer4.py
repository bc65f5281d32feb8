"""The facade: pymer4's tutorial runs as printed, and its words mean what they mean there."""

from __future__ import annotations

import ast
import html
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bayesglmm.errors import (
    BayesglmmWarning,
    ChoiceError,
    DataError,
    FormulaError,
    OptionError,
)
from bayesglmm.pymer4 import (
    center,
    compare,
    glm,
    glmer,
    lm,
    lmer,
    load_dataset,
    logit2odds,
    logit2prob,
    rank,
    scale,
    zscore,
)
from bayesglmm.pymer4.results import NotFittedError
from bayesglmm.tables.table import Table

# pymer4's tutorial "Generalized Linear & Linear Mixed Models", its plots left out. Only the
# imports are changed.
TUTORIAL = """
from bayesglmm.pymer4.models import glm, glmer
import polars as pl, polars.selectors as cs
from polars import col
from bayesglmm.pymer4 import load_dataset
titanic = load_dataset('titanic')
titanic.group_by('sex').agg(col('survived').mean())
log_regress = glm('survived ~ sex', data=titanic, family='binomial')
log_regress.set_factors('sex')
log_regress.fit()
log_regress.params
log_regress.fit(exponentiate=True)
log_regress.params
log_regress.summary()
# Probability of survival by sex
log_regress.emmeans('sex')
log_regress.emmeans('sex', contrasts={'female_minus_male': [-1, 1]})
# Log-odds scale
log_regress.emmeans('sex', type='link')
# Contrast is same as untransformed parameter estimate
log_regress.emmeans('sex', contrasts={'female_minus_male': [-1, 1]}, type='link')
from bayesglmm.pymer4.models import glmer

log_lmm = glmer('survived ~ sex + (1 | pclass)', data=titanic, family='binomial')
log_lmm.set_factors('pclass')

# Convert estimates to odds
log_lmm.fit(exponentiate=True, summary=True)
log_lmm.ranef
log_lmm.fixef
"""


def run(code: str) -> list[Any]:
    """Run code statement by statement; what a notebook would show of each."""
    namespace: dict[str, Any] = {}
    shown = []
    for statement in ast.parse(code).body:
        if isinstance(statement, ast.Expr):
            value = eval(ast.unparse(statement), namespace)
            if value is not None:
                shown.append(value)
        else:
            exec(ast.unparse(statement), namespace)
    return shown


@pytest.fixture(scope="module")
def tutorial() -> list[Any]:
    return run(TUTORIAL)


# Half a unit of the last digit printed, for six decimals.
PRINTED = 5.01e-7
# R stops where the deviance changes by 1e-8 of itself, so its last digits are not those of the
# maximum: glm's standard errors are off by 5e-7 (z -15.036107 for -15.0360992, and with it
# p 4.2587e-51 for 4.2592e-51; an upper limit 1.345064 for 1.3450647; male's limits -1.694977
# for -1.6949776).
# glmer's derivative-free optimum is off by 2e-6 in the coefficients: exp(fixef) 9.515432 for
# 9.515450, 4.268696 for 4.268703, 1.512781 for 1.512783; exp(ranef) 2.413829 for 2.4138297.
INF = float("inf")
FRAMES: dict[int, tuple[dict[str, str], list[tuple[Any, ...]], dict[str, float]]] = {
    0: (
        {"sex": "str", "survived": "f64"},
        [("female", 0.742038), ("male", 0.188908)],
        {},
    ),
    1: (
        {"term": "str", "estimate": "f64"},
        [("(Intercept)", 1.056589), ("sexmale", -2.51371)],
        {},
    ),
    2: (
        {"term": "str", "estimate": "f64"},
        [("(Intercept)", 2.876543), ("sexmale", 0.080967)],
        {},
    ),
    4: (
        {"sex": "cat", "prob": "f64", "SE": "f64", "df": "f64"}
        | {"asymp_LCL": "f64", "asymp_UCL": "f64"},
        [
            ("female", 0.742038, 0.02469, INF, 0.683113, 0.793322),
            ("male", 0.188908, 0.016296, INF, 0.155122, 0.228066),
        ],
        {},
    ),
    5: (
        {"contrast": "cat", "odds_ratio": "f64", "SE": "f64", "df": "f64"}
        | {"asymp_LCL": "f64", "asymp_UCL": "f64", "null": "f64"}
        | {"z_ratio": "f64", "p_value": "f64"},
        [
            (
                "female_minus_male",
                *(0.080967, 0.013536, INF, 0.058346, 0.11236, 1.0, -15.036107, 4.2587e-51),
            )
        ],
        {"z_ratio": 1e-5, "p_value": 1e-54, "asymp_LCL": 1e-6},
    ),
    6: (
        {"sex": "cat", "emmean": "f64", "SE": "f64", "df": "f64"}
        | {"asymp_LCL": "f64", "asymp_UCL": "f64"},
        [
            ("female", 1.056589, 0.128986, INF, 0.768114, 1.345064),
            ("male", -1.45712, 0.106353, INF, -1.694977, -1.219263),
        ],
        {"SE": 1e-6, "asymp_LCL": 1e-6, "asymp_UCL": 1e-6},
    ),
    7: (
        {"contrast": "str", "estimate": "f64", "SE": "f64", "df": "f64"}
        | {"asymp_LCL": "f64", "asymp_UCL": "f64", "z_ratio": "f64", "p_value": "f64"},
        [
            (
                "female_minus_male",
                *(-2.51371, 0.167178, INF, -2.841373, -2.186046, -15.036107, 4.2587e-51),
            )
        ],
        {"z_ratio": 1e-5, "p_value": 1e-54},
    ),
    9: (
        {"level": "str", "(Intercept)": "f64"},
        [("1", 2.413829), ("2", 1.082862), ("3", 0.383755)],
        {"(Intercept)": 2e-6},
    ),
    10: (
        {"level": "str", "(Intercept)": "f64", "sexmale": "f64"},
        [("1", 9.515432, 0.071631), ("2", 4.268696, 0.071631), ("3", 1.512781, 0.071631)],
        {"(Intercept)": 2e-5},
    ),
}
SHORT = {pl.String: "str", pl.Float64: "f64", pl.Categorical: "cat"}


def check(
    frame: pl.DataFrame,
    columns: dict[str, str],
    rows: list[tuple[Any, ...]],
    tolerance: dict[str, float],
) -> None:
    found = {name: SHORT[type(dtype)] for name, dtype in frame.schema.items()}
    assert list(found.items()) == list(columns.items())
    assert frame.height == len(rows)
    for got, wanted in zip(frame.iter_rows(), rows, strict=True):
        for name, g, w in zip(columns, got, wanted, strict=True):
            if isinstance(w, str):
                assert g == w
            else:
                assert g == pytest.approx(w, abs=tolerance.get(name, PRINTED), rel=0), name


@pytest.mark.parametrize("number", FRAMES)
def test_tutorial_frame(tutorial: list[Any], number: int) -> None:
    columns, rows, tolerance = FRAMES[number]
    frame = tutorial[number]
    # polars' own grouping has no order
    check(frame.sort("sex") if number == 0 else frame, columns, rows, tolerance)


def cells(gt: Any) -> tuple[list[str], list[list[str]]]:
    """Heading lines, and rows of cells, of a great_tables table."""
    text = re.sub(r"<style>.*?</style>", "", gt.as_raw_html(), flags=re.S)
    text = re.sub(r"<br ?/?>", "\n", text)
    rows = [
        [
            html.unescape(re.sub(r"<[^>]+>", "", cell)).strip()
            for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, flags=re.S)
        ]
        for row in re.findall(r"<tr[^>]*>(.*?)</tr>", text, flags=re.S)
    ]
    return "\n".join(cell for row in rows[:2] for cell in row).splitlines(), rows[2:]


def test_tutorial_summary_of_glm(tutorial: list[Any]) -> None:
    heading, rows = cells(tutorial[3])
    assert heading == [
        "Formula: glm(survived~sex)",
        "Family: binomial (link: default)",
        "Number of observations: 891",
        "Confidence intervals: parametric",
        "---------------------",
        "Log-likelihood: -458",
        "AIC: 921 | BIC: 931",
        "Residual deviance: 917 | DF: 889",
        "Null deviance: 1186 | DF: 890",
    ]
    assert rows == [
        ["", "Estimate", "SE", "CI-low", "CI-high", "Z-stat", "df", "p", ""],
        ["(Intercept)", "2.877", "0.371", "2.234", "3.704", "8.191", "inf", "<.001", "***"],
        ["sexmale", "0.081", "0.014", "0.058", "0.112", "−15.036", "inf", "<.001", "***"],
        ["Signif. codes:  0 *** 0.001 ** 0.01 * 0.05 . 0.1"],
    ]


def test_tutorial_summary_of_glmer(tutorial: list[Any]) -> None:
    heading, rows = cells(tutorial[8])
    assert heading == [
        "Formula: glmer(survived~sex+(1|pclass))",
        "Family: binomial (link: default)",
        "Number of observations: 891",
        "Confidence intervals: parametric",
        "---------------------",
        "Log-likelihood: -419",
        "AIC: 845 | BIC: 860",
        "Residual error: 1.0",
    ]
    intercept = rows[4]
    # R prints 0.003356; with the exact Hessian it is 0.0033569.
    assert float(intercept.pop(8)) == pytest.approx(0.0033565, abs=1.1e-6)
    blank = [""] * 7
    assert rows == [
        ["Random Effects:", "", "Estimate", "CI-low", "CI-high", "SE", "Z-stat", "df", "p", ""],
        ["pclass-sd", "(Intercept)", "0.769", *blank],
        [""] * 10,
        ["Fixed Effects:", "", "", *blank],
        ["", "(Intercept)", "3.942", "1.576", "9.858", "1.844", "2.933", "inf", "**"],
        # R prints −14.372: its standard error comes from a noisier Hessian.
        ["", "sexmale", "0.072", "0.050", "0.103", "0.013", "−14.369", "inf", "<.001", "***"],
        ["Signif. codes:  0 *** 0.001 ** 0.01 * 0.05 . 0.1"],
    ]


def test_contrast_caption_spells_out_the_weights(tutorial: list[Any]) -> None:
    assert isinstance(tutorial[5], Table)
    assert "female_minus_male = -female + male" in tutorial[5].caption


def test_nothing_bayesian_is_imported() -> None:
    code = (
        "import sys; from bayesglmm.pymer4 import glmer, load_dataset;"
        "m = glmer('survived ~ sex + (1|pclass)', load_dataset('titanic'), family='binomial');"
        "m.fit(summary=True); m.emmeans('sex');"
        "print(sorted({'pymc', 'pytensor', 'arviz', 'nutpie', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# R's reference values -------------------------------------------------------------------------


def reference(name: str) -> dict[str, Any]:
    cases = json.loads((Path(__file__).parent / "reference" / "ml.json").read_text())["cases"]
    return next(case for case in cases if case["id"] == name)


@pytest.fixture(scope="module")
def sleep() -> lmer:
    model = lmer("Reaction ~ Days + (Days | Subject)", data=load_dataset("sleep"))
    model.fit()
    return model


def test_lmer_is_reml_with_satterthwaite_df(sleep: lmer) -> None:
    r = reference("lmer_sleepstudy_reml")
    table = sleep.result_fit
    assert table.columns == ("term estimate std_error conf_low conf_high t_stat df p_value".split())
    assert table["term"].to_list() == r["names"]
    for column, wanted, rel in (
        ("estimate", r["coef"], 1e-7),
        ("std_error", r["se"], 1e-6),
        ("t_stat", r["t"], 1e-6),
        ("df", r["satterthwaite_df"], 1e-4),  # second differences of the deviance
        ("p_value", r["p"], 1e-3),
    ):
        np.testing.assert_allclose(table[column], wanted, rtol=rel)
    stats = sleep.result_fit_stats
    assert stats["logLik"].item() == pytest.approx(r["logLik"], abs=1e-6)
    assert stats["REMLcrit"].item() == pytest.approx(r["deviance"], abs=1e-6)
    assert stats["sigma"].item() == pytest.approx(r["sigma"], rel=1e-6)
    assert stats["df_residual"].item() == r["df_residual"]
    assert sleep.nobs == 180
    assert (
        stats.columns
        == (
            "AIC AICc BIC ICC R2_conditional R2_marginal REMLcrit RMSE Sigma df_residual logLik "
            "nobs sigma"
        ).split()
    )
    # performance::model_performance of the same fit
    for name, value in (("ICC", 0.721658), ("R2_conditional", 0.799219), ("R2_marginal", 0.278652)):
        assert stats[name].item() == pytest.approx(value, abs=1e-6)
    assert stats["RMSE"].item() == pytest.approx(23.438047, abs=1e-4)


def test_lmer_effects_of_levels(sleep: lmer) -> None:
    r = reference("lmer_sleepstudy_reml")
    modes = np.array(r["ranef"]["Subject"]["modes"])
    ranef, fixef = sleep.ranef, sleep.fixef
    assert isinstance(ranef, pl.DataFrame)
    assert isinstance(fixef, pl.DataFrame)
    assert ranef.columns == fixef.columns == ["level", "(Intercept)", "Days"]
    assert ranef["level"].to_list() == r["ranef"]["Subject"]["levels"]
    assert ranef["level"].dtype == pl.String
    np.testing.assert_allclose(ranef[:, 1:].to_numpy(), modes, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(fixef[:, 1:].to_numpy(), modes + r["coef"], rtol=1e-5)
    assert sleep.ranef_var.rows() == [
        ("Subject", "sd__(Intercept)", pytest.approx(24.7404514, rel=1e-5), None, None),
        ("Subject", "cor__(Intercept).Days", pytest.approx(0.0655513, rel=1e-4), None, None),
        ("Subject", "sd__Days", pytest.approx(5.9221331, rel=1e-5), None, None),
        ("Residual", "sd__Observation", pytest.approx(25.5918156, rel=1e-6), None, None),
    ]


def test_lmer_by_maximum_likelihood_at_construction_or_fit() -> None:
    wanted = reference("lmer_sleepstudy_ml")["logLik"]
    data = load_dataset("sleep")
    first = lmer("Reaction ~ Days + (Days | Subject)", data, REML=False)
    first.fit()
    second = lmer("Reaction ~ Days + (Days | Subject)", data)
    second.fit(REML=False)
    for model in (first, second):
        assert model.result_fit_stats["logLik"].item() == pytest.approx(wanted, abs=1e-6)
        assert "deviance" in model.result_fit_stats.columns


def test_lmer_wald_intervals_are_normal(sleep: lmer) -> None:
    model = lmer("Reaction ~ Days + (Days | Subject)", load_dataset("sleep"))
    model.fit(conf_method="wald")
    assert model.result_fit["df"].to_list() == [INF, INF]
    half = model.result_fit["conf_high"] - model.result_fit["estimate"]
    np.testing.assert_allclose(half / model.result_fit["std_error"], 1.959964, rtol=1e-6)


def test_lmer_summary_table(sleep: lmer) -> None:
    heading, rows = cells(sleep.summary())
    assert heading[-4:] == [
        "---------------------",
        "Log-likelihood: -871",
        "AIC: 1755 | BIC: 1774",
        "Residual error: 25.592",
    ]
    assert rows[0] == "Random Effects:||Estimate|SE|CI-low|CI-high|T-stat|DF|p|".split("|")
    assert [row[:3] for row in rows[1:5]] == [
        ["Subject-sd", "(Intercept)", "24.740"],
        ["Subject-sd", "Days", "5.922"],
        ["Subject-cor", "(Intercept), Days", "0.066"],
        ["Residual-sd", "Observation", "25.592"],
    ]
    assert rows[8] == "|Days|10.467|1.546|7.206|13.729|6.771|17.000|<.001|***".split("|")


def test_lm_summary_and_statistics() -> None:
    model = lm("sales ~ tv", data=load_dataset("advertising"))
    heading, rows = cells(model.fit(summary=True))
    assert heading == [  # pymer4's tutorial on linear models
        "Formula: lm(sales~tv)",
        "Number of observations: 200",
        "Confidence intervals: parametric",
        "---------------------",
        "R-squared: 0.6119",
        "R-squared-adj: 0.6099",
        "F(1, 198) = 312.145, p = <.001",
        "Log-likelihood: -519",
        "AIC: 1044 | BIC: 1053",
        "Residual error: 3.259",
    ]
    assert rows[1] == "(Intercept)|7.033|0.458|6.130|7.935|15.360|198|<.001|***".split("|")
    stats = model.result_fit_stats
    assert (
        stats.columns
        == (
            "r_squared adj_r_squared sigma statistic p_value df logLik AIC BIC deviance "
            "df_residual nobs"
        ).split()
    )
    assert stats["r_squared"].item() == pytest.approx(0.611875, abs=PRINTED)
    assert stats["statistic"].item() == pytest.approx(312.144994, abs=PRINTED)
    assert stats["deviance"].item() == pytest.approx(2102.53058, abs=1e-4)
    assert model.result_fit["df"].dtype == pl.Int64
    assert model.result_fit["p_value"][0] == pytest.approx(1.4063e-35, rel=1e-4)


@pytest.fixture
def cars() -> lm:
    """The model of pymer4's quick start."""
    model = lm("mpg ~ wt * cyl", data=load_dataset("mtcars"))
    model.set_factors({"cyl": ["4", "6", "8"]})
    model.set_transforms({"wt": "center"})
    model.fit()
    return model


def test_quick_start_means(cars: lm) -> None:
    check(
        cars.emmeans("cyl"),
        {"cyl": "cat"} | dict.fromkeys("emmean SE df lower_CL upper_CL".split(), "f64"),
        [
            ("4", 21.403304, 1.465893, 26.0, 17.66308, 25.143528),
            ("6", 19.464549, 0.967159, 26.0, 16.996845, 21.932253),
            ("8", 16.814408, 0.95775, 26.0, 14.370711, 19.258106),
        ],
        {},
    )
    assert cars.emmeans("cyl", at={"wt": 3})["emmean"].to_list() == pytest.approx(
        [22.63012, 20.068527, 17.290715], abs=PRINTED
    )


def test_quick_start_trends_by_factor(cars: lm) -> None:
    check(
        cars.emmeans("wt", by="cyl"),
        {"cyl": "cat"} | dict.fromkeys("wt_trend SE df lower_CL upper_CL".split(), "f64"),
        [
            ("4", -5.647025, 1.359498, 26.0, -9.115782, -2.178268),
            ("6", -2.780106, 2.805265, 26.0, -9.937736, 4.377524),
            ("8", -2.192438, 0.894285, 26.0, -4.474204, 0.089329),
        ],
        {},
    )


def test_quick_start_trend(cars: lm) -> None:
    check(
        cars.emmeans("wt"),
        dict.fromkeys("wt_trend SE df lower_CL upper_CL".split(), "f64"),
        [(-3.539856, 1.081023, 26.0, -5.76193, -1.317783)],
        {},
    )


def test_quick_start_contrast(cars: lm) -> None:
    check(
        cars.emmeans("cyl", contrasts={"linear": [-1, 0, 1]}),
        {"contrast": "str"}
        | dict.fromkeys("estimate SE df lower_CL upper_CL t_ratio p_value".split(), "f64"),
        [("linear", -4.588896, 1.751036, 26.0, -8.188202, -0.98959, -2.620675, 0.014464)],
        {},
    )
    halved = cars.emmeans("cyl", contrasts={"linear": [-1, 0, 1]}, normalize=True)
    assert halved["estimate"].item() == pytest.approx(-4.588896 / np.sqrt(2), abs=1e-6)
    assert cars.result_emmeans is halved


def test_quick_start_predictions_on_the_original_scale(cars: lm) -> None:
    check(
        cars.empredict({"wt": [4, 5, 6], "cyl": "4"}),
        {"wt": "f64", "cyl": "cat"}
        | dict.fromkeys("prediction SE df lower_CL upper_CL".split(), "f64"),
        [
            (0.78275, "4", 16.983095, 2.444694, 26.0, 11.957955, 22.008235),
            (1.78275, "4", 11.33607, 3.763179, 26.0, 3.600744, 19.071395),
            (2.78275, "4", 5.689044, 5.103232, 26.0, -4.800798, 16.178887),
        ],
        {},
    )
    untransformed = cars.empredict({"wt": [0.78275], "cyl": "4"}, apply_transforms=False)
    assert untransformed["prediction"].item() == pytest.approx(16.983095, abs=PRINTED)


def test_empredict_with_observed_values() -> None:
    model = lm("sales ~ tv + radio", data=load_dataset("advertising"))
    model.fit()
    found = model.empredict({"tv": "data", "radio": [0, 20, 40]})
    assert found.columns[:3] == ["tv", "radio", "prediction"]
    assert found["tv"].n_unique() == load_dataset("advertising")["tv"].n_unique()
    assert found["radio"].unique().sort().to_list() == [0.0, 20.0, 40.0]
    expected = model.predict(found.select("tv", "radio"))
    np.testing.assert_allclose(found["prediction"], expected, rtol=1e-12)


def test_empredict_of_a_glm_names_probabilities() -> None:
    model = glm("survived ~ sex * age", load_dataset("titanic"), family="binomial", link="probit")
    model.set_transforms({"age": "center"})
    model.fit()
    found = model.empredict({"sex": ["male", "female"], "age": np.arange(1, 101, 1)})
    assert found.columns[:3] == ["sex", "age", "prob"]
    assert found.height == 200
    assert set(found.filter(pl.col("sex") == "male")["prob"].is_between(0, 1)) == {True}
    assert "prediction" in model.empredict({"age": [1]}, type="link").columns


def test_probit_tutorial() -> None:
    model = glm("survived ~ sex", load_dataset("titanic"), family="binomial", link="probit")
    model.set_factors("sex")
    model.fit()
    assert model.params["estimate"].to_list() == pytest.approx([0.649642, -1.531569], abs=1e-6)
    assert model.emmeans("sex")["asymp_LCL"].to_list() == pytest.approx(
        [0.683927, 0.154647], abs=1e-6
    )


def test_means_by_a_second_factor_keep_the_order_asked_for() -> None:
    model = glm("survived ~ sex * pclass", load_dataset("titanic"), family="binomial")
    model.set_factors("pclass")
    model.fit()
    found = model.emmeans("sex", by="pclass")
    assert found.columns[:2] == ["sex", "pclass"]
    assert found["sex"].to_list() == ["female", "male"] * 3
    pairs = model.emmeans("sex", by="pclass", contrasts="pairwise")
    assert pairs.columns[:3] == ["contrast", "pclass", "odds_ratio"]
    assert pairs["contrast"].to_list() == ["female / male"] * 3
    with pytest.raises(ChoiceError, match="age"):
        model.emmeans("age")


def test_several_grouping_factors_give_a_dict() -> None:
    model = lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", load_dataset("penicillin"))
    model.fit()
    assert isinstance(model.ranef, dict)
    assert isinstance(model.fixef, dict)
    assert list(model.ranef) == ["plate", "sample"]
    mean = model.params["estimate"].item()
    for name, frame in model.ranef.items():
        np.testing.assert_allclose(
            model.fixef[name]["(Intercept)"], frame["(Intercept)"] + mean, rtol=1e-12
        )


# compare --------------------------------------------------------------------------------------


def test_compare_linear_models() -> None:
    data = load_dataset("advertising")
    small, large = lm("sales ~ tv + radio", data), lm("sales ~ tv * radio", data)
    found = compare(small, large, as_dataframe=True)
    assert small.fitted
    assert found.columns == [
        *("AIC", "BIC", "logLik", "Res_Df", "RSS", "Df", "Sum of Sq", "F", "Pr(>F)")
    ]
    assert found.row(0)[3:] == (197.0, pytest.approx(556.91, abs=5e-3), *([None] * 4))
    assert found.row(1)[3:8] == pytest.approx((196.0, 174.48, 1.0, 382.43, 429.59), abs=5e-3)
    heading, rows = cells(compare(small, large))
    assert heading == [
        "Analysis of Deviance Table",
        "Model 1: lm(sales~tv+radio)",
        "Model 2: lm(sales~tv*radio)",
    ]
    assert rows[2] == "2|550.3|566.8|−270.1|196|174.48|1|382.43|429.59|<.001|***".split("|")


def test_compare_smaller_model_second() -> None:
    data = load_dataset("mtcars").with_columns(pl.col("cyl").cast(pl.String))
    found = compare(lm("mpg ~ wt * cyl", data), lm("mpg ~ wt + cyl", data), as_dataframe=True)
    assert found["Df"][1] == -2.0
    assert found["F"][1] == pytest.approx(2.27, abs=5e-3)
    assert found["Pr(>F)"][1] == pytest.approx(0.124, abs=5e-4)


def test_compare_mixed_models_refits_by_ml_and_orders_by_size() -> None:
    data = load_dataset("sleep")
    large = lmer("Reaction ~ Days + (Days | Subject)", data)
    small = lmer("Reaction ~ Days + (1 | Subject)", data)
    found = compare(large, small, as_dataframe=True)
    assert found.columns == (
        ["AIC", "BIC", "logLik", "npar", "-2*log(L)", "Chisq", "Df", "Pr(>Chisq)"]
    )
    assert found["npar"].to_list() == [4.0, 6.0]
    assert found["AIC"].to_list() == pytest.approx(
        [1794.465, 1755.628], abs=1e-3
    )  # REML, as fitted
    assert found["Chisq"].to_list() == [None, pytest.approx(42.1393, abs=1e-4)]
    # lme4: anova() refits by maximum likelihood
    wanted = reference("lmer_sleepstudy_ml")["deviance"]
    assert found["-2*log(L)"][1] == pytest.approx(wanted, abs=1e-6)
    assert cells(compare(large, small))[0][1] == "Model 1: lmer(Reaction~Days+(1|Subject))"


def test_compare_glms_is_the_likelihood_ratio_test() -> None:
    data = load_dataset("titanic")
    null = glm("survived ~ 1", data, family="binomial")
    sex = glm("survived ~ sex", data, family="binomial")
    found = compare(null, sex, as_dataframe=True)
    assert found.columns[3:] == ["Resid_Df", "Resid_Dev", "Df", "Deviance", "F", "Pr(>F)"]
    assert found["F"][1] == pytest.approx(1186.6551368 - 917.8039250, abs=1e-6)
    assert found["Pr(>F)"][1] == pytest.approx(2.02e-60, rel=1e-2)


def test_compare_refuses_what_it_cannot_compare() -> None:
    data = load_dataset("mtcars")
    one = lm("mpg ~ wt", data)
    with pytest.raises(ChoiceError, match="two models"):
        compare(one)
    with pytest.raises(ChoiceError, match="one kind"):
        compare(one, lmer("mpg ~ wt + (1 | cyl)", data))
    with pytest.raises(DataError, match="rows"):
        compare(one, lm("mpg ~ wt + hp", data.head(20)))


# State ----------------------------------------------------------------------------------------


def test_callers_frame_is_never_changed() -> None:
    data = load_dataset("titanic")
    before = data.clone()
    model = glmer("survived ~ sex + age + (1 | pclass)", data, family="binomial")
    model.set_factors(["sex", "pclass"])
    model.set_transforms({"age": "zscore"})
    model.fit()
    assert data.equals(before)
    assert data.schema == before.schema
    pandas = before.to_pandas()
    glm("survived ~ sex", pandas, family="binomial").fit()
    assert list(pandas.columns) == before.columns


def test_fitted_and_residuals_are_appended_in_row_order() -> None:
    model = glm("survived ~ sex + age", load_dataset("titanic"), family="binomial")
    model.fit()
    data = model.data
    assert data.columns[-2:] == ["fitted", "resid"]
    assert data.height == 891
    missing = data["age"].is_null()
    assert data["fitted"].is_null().equals(missing)
    np.testing.assert_allclose(
        data.filter(~missing)["fitted"], model.predict(data.filter(~missing)), rtol=1e-12
    )
    deviance = float((data["resid"] ** 2).sum())
    assert deviance == pytest.approx(model.result_fit_stats["deviance"].item(), rel=1e-12)
    model.fit(type_predict="link")
    assert float(model.data["fitted"].min()) < -1.0  # type: ignore[arg-type]
    linear = lm("mpg ~ wt", load_dataset("mtcars"))
    linear.fit()
    np.testing.assert_allclose(
        linear.data["fitted"] + linear.data["resid"], linear.data["mpg"], rtol=1e-12
    )


def test_predict_with_and_without_random_effects(sleep: lmer) -> None:
    new = pl.DataFrame({"Days": [0, 1], "Subject": [308, 308]})
    zero = sleep.predict(new, use_rfx=False)
    assert isinstance(zero, np.ndarray)
    np.testing.assert_allclose(zero, [251.405105, 261.872391], atol=1e-5)
    np.testing.assert_allclose(sleep.predict(new), [253.66367, 273.32993], atol=1e-3)
    with pytest.raises(DataError, match="Subject"):
        sleep.predict(new.with_columns(Subject=pl.lit(1)))


def test_exponentiate_leaves_statistics_alone() -> None:
    data = load_dataset("titanic")
    model = glm("survived ~ sex", data, family="binomial")
    model.fit()
    plain = model.result_fit
    model.fit(exponentiate=True)
    shown = model.result_fit
    for name in ("estimate", "conf_low", "conf_high"):
        np.testing.assert_allclose(shown[name], np.exp(plain[name]), rtol=1e-12)
    for name in ("z_stat", "df", "p_value"):
        assert shown[name].equals(plain[name])


def test_glmer_statistics_and_quadrature() -> None:
    r = reference("glmer_titanic_pclass")
    model = glmer("survived ~ sex + (1 | pclass)", load_dataset("titanic"), family="binomial")
    model.fit()
    stats = model.result_fit_stats
    assert stats["deviance"].item() == pytest.approx(r["deviance_conditional"], abs=1e-4)
    assert stats["logLik"].item() == pytest.approx(r["logLik"], abs=1e-7)
    assert model.result_fit.columns[5] == "z_stat"
    laplace = stats["logLik"].item()
    model.fit(nAGQ=9)
    assert model.result_fit_stats["logLik"].item() != pytest.approx(laplace, abs=1e-4)


def test_factors_come_and_go() -> None:
    model = lm("mpg ~ cyl", load_dataset("mtcars"))
    model.set_factors("cyl")
    assert model.factors == {"cyl": ["4", "6", "8"]}
    assert model.data["cyl"].dtype == pl.Enum(["4", "6", "8"])
    model.set_factors({"cyl": [8, 4, 6]})
    model.fit()
    assert model.params["term"].to_list() == ["(Intercept)", "cyl4", "cyl6"]
    model.unset_factors("cyl")
    assert model.data["cyl"].dtype == pl.Int64
    assert model.factors == model.contrasts == {}
    model.fit()
    assert model.params["term"].to_list() == ["(Intercept)", "cyl"]
    with pytest.raises(DataError):
        model.set_factors({"cyl": ["4", "6"]})
    with pytest.raises(DataError, match="did you mean 'cyl'"):
        model.set_factors("cyll")


def test_contrasts_are_readable_weights() -> None:
    model = lm("mpg ~ cyl", load_dataset("mtcars"))
    with pytest.raises(ChoiceError, match="set_factors"):
        model.set_contrasts({"cyl": "contr.sum"})
    model.set_factors("cyl")
    model.fit()
    means = model.emmeans("cyl")["emmean"].to_numpy()
    model.set_contrasts({"cyl": np.array([[-1, 1, 0], [0, -1, 1]])})
    model.fit()
    np.testing.assert_allclose(
        model.params["estimate"],
        [means.mean(), means[1] - means[0], means[2] - means[1]],
        rtol=1e-10,
    )
    model.set_contrasts({"cyl": "contr.sum"})
    model.fit()
    np.testing.assert_allclose(
        model.params["estimate"], [means.mean(), *(means[:2] - means.mean())], rtol=1e-10
    )


def test_transforms_come_and_go() -> None:
    data = load_dataset("mtcars")
    model = lm("mpg ~ wt", data)
    model.set_transforms({"wt": "zscore", "hp": "rank"})
    assert model.transformed == {"wt": "zscore", "hp": "rank"}
    assert model.data["wt"].mean() == pytest.approx(0, abs=1e-12)
    assert model.data["wt_orig"].equals(data["wt"].alias("wt_orig"))
    model.set_transforms({"wt": "center"}, group="cyl")  # starts again from the original
    assert model.transformed["wt"] == "center_by_cyl"
    by = model.data.group_by("cyl").agg(pl.col("wt").mean())["wt"]
    np.testing.assert_allclose(by, 0, atol=1e-12)
    model.unset_transforms()
    assert model.data.equals(data)
    with pytest.raises(ChoiceError, match="did you mean 'center'"):
        model.set_transforms({"wt": "centre"})
    with pytest.raises(ChoiceError, match="not transformed"):
        model.unset_transforms("wt")


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    model = lm("mpg ~ cyl", load_dataset("mtcars"))
    model.show_factors()
    model.set_factors("cyl")
    model.show_factors()
    model.show_contrasts()
    model.show_transforms()
    assert capsys.readouterr().out.splitlines() == [
        "No factors set",
        "{'cyl': ['4', '6', '8']}",
        "{'cyl': 'contr.treatment'}",
        "No transformed columns",
    ]


def test_weights() -> None:
    data = load_dataset("mtcars")
    by_name = lm("mpg ~ wt", data, weights="hp")
    by_value = lm("mpg ~ wt", data, weights=data["hp"].to_numpy())
    for model in (by_name, by_value):
        model.fit()
    assert by_name.params.equals(by_value.params)
    assert by_name.params["estimate"][1] != pytest.approx(-5.344, abs=0.01)


# Text -----------------------------------------------------------------------------------------


def test_plain_summary_is_in_rs_layout(sleep: lmer) -> None:
    model = glm("survived ~ sex", load_dataset("titanic"), family="binomial")
    model.fit(exponentiate=True)
    assert str(model.summary(pretty=False)).splitlines() == [
        "Call: glm(survived~sex, family = binomial(link = logit))",
        "",
        "Coefficients:",
        "             Estimate  Std. Error  z value  Pr(>|z|)",
        "(Intercept)    1.0566      0.1290    8.191  2.58e-16  ***",
        "sexmale       -2.5137      0.1672  -15.036    <2e-16  ***",
        "---",
        "Signif. codes:  0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1",
        "",
        "    Null deviance: 1186.66 on 890 degrees of freedom",
        "Residual deviance: 917.80 on 889 degrees of freedom",
        "AIC: 921.8",
    ]
    text = sleep.summary(pretty=False)
    assert repr(text) == str(text)
    assert "Linear mixed model fit by REML" in text
    assert "Number of obs: 180, groups: Subject, 18" in text


def test_report_and_repr(sleep: lmer) -> None:
    text = sleep.report()
    assert "REML" in text
    assert "Days: 10.47, 95% CI [7.21, 13.73], t(17) = 6.77, p < .001" in text
    assert "grouped by Subject (18 levels)" in text
    assert repr(sleep) == "lmer(fitted=True, formula=Reaction~Days+(Days|Subject))"
    model = glm("survived ~ sex", load_dataset("titanic"), family="binomial")
    assert repr(model) == ("glm(fitted=False, formula=survived~sex, family=binomial, link=default)")


def test_decimals() -> None:
    model = lm("mpg ~ wt", load_dataset("mtcars"))
    model.fit()
    assert cells(model.summary(decimals=1))[1][2][:2] == ["wt", "−5.3"]


# Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("params", "result_fit", "result_fit_stats", "ranef", "fixef", "ranef_var", "nobs"),
        *("convergence_status", "result_emmeans", "summary()", "report()", "emmeans('x')"),
        *("empredict({})", "predict({})"),
    ],
)
def test_unfitted(name: str) -> None:
    model = lmer("Reaction ~ Days + (1 | Subject)", load_dataset("sleep"))
    with pytest.raises(NotFittedError, match=r"call \.fit\(\) first"):
        eval(f"model.{name}", {"model": model})


def test_a_change_asks_for_a_new_fit(cars: lm) -> None:
    cars.set_contrasts({"cyl": "contr.sum"})
    assert not cars.fitted
    with pytest.raises(ValueError, match=r"call \.fit\(\) first"):
        cars.params  # noqa: B018


def test_misspelt_keywords() -> None:
    data = load_dataset("titanic")
    with pytest.raises(TypeError, match="did you mean 'family'"):
        glm("survived ~ sex", data, famly="binomial")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"lm\(\) has no argument 'family'"):
        lm("survived ~ sex", data, family="binomial")  # type: ignore[call-arg]
    model = glm("survived ~ sex", data, family="binomial")
    with pytest.raises(OptionError, match="did you mean 'exponentiate'"):
        model.fit(exponentate=True)  # type: ignore[call-arg]
    model.fit()
    with pytest.raises(OptionError, match="did you mean 'contrasts'"):
        model.emmeans("sex", contrast="pairwise")  # type: ignore[call-arg]
    with pytest.raises(OptionError, match="did you mean 'summary'"):
        model.anova(sumary=True)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        model.simulat  # type: ignore[attr-defined]  # noqa: B018


def test_other_bad_input() -> None:
    data = load_dataset("titanic")
    with pytest.raises(FormulaError):
        lm("survived ~ (sex", data)
    with pytest.raises(ChoiceError, match="use glmer"):
        glm("survived ~ sex + (1 | pclass)", data, family="binomial").fit()
    with pytest.raises(ChoiceError, match="did you mean 'binomial'"):
        glm("survived ~ sex", data, family="binomal").fit()
    model = glm("survived ~ sex * age", data, family="binomial")
    with pytest.raises(ChoiceError, match="resamples rows"):
        model.fit(conf_method="boot")  # type: ignore[arg-type]
    with pytest.raises(ChoiceError, match="type_predict"):
        model.fit(type_predict="odds")  # type: ignore[arg-type]
    model.fit()
    with pytest.raises(ChoiceError, match="age is numeric"):
        model.emmeans(["sex", "age"])
    with pytest.raises(ChoiceError, match="adjust"):
        model.emmeans("sex", p_adjust="sidac")


def test_singular_fits_warn_unless_quiet() -> None:
    model = lmer("Yield ~ 1 + (1 | Batch)", load_dataset("dyestuff2"))
    with pytest.warns(BayesglmmWarning):
        model.fit()
    assert "\n" in model.convergence_status
    model.fit(verbose=False)
    assert model.ranef_var["estimate"][0] == 0.0


# Expressions ----------------------------------------------------------------------------------


def test_expressions() -> None:
    frame = pl.DataFrame({"x": [1.0, 3.0, 5.0]})
    found = frame.select(
        center("x").alias("center"),
        scale(pl.col("x")).alias("scale"),
        zscore("x").alias("zscore"),
        rank("x", descending=True).alias("rank"),
        logit2odds("x").alias("odds"),
        logit2prob("x").alias("prob"),
    )
    assert found["center"].to_list() == [-2.0, 0.0, 2.0]
    assert found["scale"].to_list() == [0.5, 1.5, 2.5]
    assert found["zscore"].to_list() == [-1.0, 0.0, 1.0]
    assert found["rank"].to_list() == [3.0, 2.0, 1.0]
    np.testing.assert_allclose(found["odds"] / (1 + found["odds"]), found["prob"], rtol=1e-14)


def test_anova_is_joint_tests_of_emmeans() -> None:
    # emmeans 1.8.4-1: joint_tests(lmer(...), lmer.df = "satterthwaite"), which rounds.
    model = lmer("weight ~ Time * Diet + (1 | Chick)", load_dataset("chickweight"))
    model.set_factors(["Diet", "Chick"])
    assert model.anova() is None
    table = model.result_anova
    assert table.columns == ["model term", "df1", "df2", "F_ratio", "p_value"]
    assert table["model term"].to_list() == ["Time", "Diet", "Time:Diet"]
    np.testing.assert_allclose(table["df2"], [526.15, 46.27, 527.69], atol=0.006)
    np.testing.assert_allclose(table["F_ratio"], [3141.657, 6.542, 43.466], atol=0.0006)
    assert table["p_value"][1] == pytest.approx(0.0009, abs=5e-5)
    # Another coding changes only which of several degrees of freedom is the smallest.
    model.set_contrasts({"Diet": "contr.helmert"})
    model.anova()
    np.testing.assert_allclose(model.result_anova["F_ratio"], table["F_ratio"], rtol=1e-6)
    np.testing.assert_allclose(model.result_anova["df2"], [526.15, 45.89, 525.48], atol=0.006)
    model.set_contrasts({"Diet": "contr.treatment"})
    model.anova()
    html_text = model.summary_anova(decimals=2).as_raw_html()
    assert "ANOVA (Type III tests)" in html_text and "46.27" in html_text

    logistic = glm("survived ~ sex * pclass + age", load_dataset("titanic"), family="binomial")
    logistic.set_factors(["sex", "pclass"])
    assert "ANOVA" in logistic.anova(summary=True).as_raw_html()
    table = logistic.result_anova
    assert table.columns == ["model term", "df1", "df2", "F_ratio", "Chisq", "p_value"]
    np.testing.assert_allclose(table["F_ratio"], [118.840, 39.053, 26.254, 14.424], atol=0.0006)
    np.testing.assert_allclose(table["Chisq"], table["F_ratio"] * table["df1"])
    assert table["df2"].is_infinite().all()


def test_anova_and_vif_need_something_to_do() -> None:
    model = lm("mpg ~ wt + hp + qsec", load_dataset("mtcars"))
    with pytest.raises(NotFittedError):
        model.vif()
    model.fit()
    with pytest.raises(NotFittedError, match=r"call \.anova\(\) first"):
        model.result_anova  # noqa: B018
    with pytest.raises(ChoiceError, match="type='I'"):
        model.anova(auto_ss_3=False)
    # car::vif of the same fit.
    table = model.vif()
    np.testing.assert_allclose(table["vif"], [2.530443, 4.921956, 2.873804], rtol=1e-6)
    np.testing.assert_allclose(table["ci_increase_factor"] ** 2, table["vif"])
    assert model.result_vif.equals(table)
    empty = lm("mpg ~ 1", load_dataset("mtcars"))
    with pytest.raises(ChoiceError, match="no terms to test"):
        empty.anova()
    with pytest.raises(ChoiceError, match="no predictors"):
        empty.vif()


# Simulation and bootstrap --------------------------------------------------------------------


def test_simulate() -> None:
    model = lmer("Reaction ~ Days + (Days | Subject)", data=load_dataset("sleep"))
    with pytest.raises(NotFittedError):
        model.simulate()
    model.fit()
    sims = model.simulate(2, seed=1)
    assert sims.columns == ["sim_1", "sim_2"] and sims.height == 180
    assert sims.equals(model.simulate(2, seed=1))
    # pymer4's own test: with the random effects of the fit, data and simulations go together.
    without = model.simulate(2, use_rfx=False, seed=1)
    data = model.data["Reaction"].to_numpy()
    near = np.corrcoef(data, sims["sim_1"])[0, 1]
    assert near > np.corrcoef(data, without["sim_1"])[0, 1]
    plain = lm("mpg ~ wt", data=load_dataset("mtcars"))
    plain.fit()
    assert plain.simulate(3, seed=1).shape == (32, 3)
    logistic = glm("survived ~ sex", data=load_dataset("titanic"), family="binomial")
    logistic.fit()
    assert set(logistic.simulate(seed=1)["sim_1"]) == {0, 1}


def test_bootstrap_intervals() -> None:
    model = lmer("Reaction ~ Days + (Days | Subject)", data=load_dataset("sleep"))
    model.fit()
    satterthwaite = model.result_fit
    with pytest.raises(NotFittedError, match="conf_method='boot'"):
        model.result_boots  # noqa: B018
    model.fit(conf_method="boot", nboot=20, seed=1)
    assert model.result_boots.shape == (20, 6)
    assert model.result_boots.columns == [
        "(Intercept)",
        "Days",
        "sd__(Intercept)___Subject",
        "sd__Days___Subject",
        "cor__(Intercept).Days___Subject",
        "sd__Observation___Residual",
    ]
    same = pl.exclude("conf_low", "conf_high")
    assert model.result_fit.select(same).equals(satterthwaite.select(same))
    found = model.fit_.bootstrap(20, seed=1).confint()
    for name in ("conf_low", "conf_high"):
        assert model.result_fit[name].to_list() == found[name].to_list()[:2]
        order = [2, 4, 3, 5]  # pymer4 lists the correlation between the sds
        assert model.ranef_var[name].to_list() == [found[name][k] for k in order]
    draws = model.result_boots["Days"]
    assert draws.min() <= model.result_fit["conf_low"][1] < model.result_fit["conf_high"][1]
    shown = model.summary().as_raw_html()
    assert "boot perc" in shown and "Bootstrap Iterations: 20" in shown
    model.fit(conf_method="boot", nboot=20, seed=1, conf_type="norm")
    assert model.result_fit["conf_low"][1] != found["conf_low"][1]
    with pytest.raises(ChoiceError, match="conf_type"):
        model.fit(conf_method="boot", conf_type="bca")  # type: ignore[arg-type]


def test_bootstrap_intervals_of_odds_ratios() -> None:
    data = load_dataset("titanic")
    model = glmer("survived ~ sex + (1 | pclass)", data=data, family="binomial")
    model.fit(conf_method="boot", nboot=4, seed=1)
    logs = model.result_fit
    model.fit(conf_method="boot", nboot=4, seed=1, exponentiate=True)
    for name in ("conf_low", "conf_high"):
        np.testing.assert_allclose(model.result_fit[name], np.exp(logs[name]))


def test_profile_intervals_reach_all_tables() -> None:
    model = lmer("Reaction ~ Days + (Days | Subject)", data=load_dataset("sleep"))
    model.fit(conf_method="profile")
    # lme4: confint(profile(m)), of the fit by maximum likelihood
    assert model.result_fit["conf_low"].to_list() == pytest.approx([237.6807, 7.3587], abs=1e-3)
    assert model.ranef_var["conf_high"].to_list() == pytest.approx(
        [37.7161, 0.6850, 8.7534, 28.8580], abs=1e-3
    )
