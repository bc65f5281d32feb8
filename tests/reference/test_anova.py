"""Tests of terms and of models against R: `anova.json`, by lmerTest, car, pbkrtest, lme4, stats."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest

import bayesglmm as bg

# Islands of penguins differ so little that the fit is singular, and warns.
pytestmark = pytest.mark.filterwarnings("ignore::bayesglmm.errors.BayesglmmWarning")

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("anova.json").read_text("utf-8"))[
    "cases"
]
TERMS = {case["model"]["id"]: case for case in CASES if case["kind"] == "terms"}
MODELS = {case["model"]["id"]: case for case in CASES if case["kind"] == "models"}
DERIVED: dict[str, pl.Expr] = {
    "ifelse(Days < 3, 'a', ifelse(Days < 7, 'b', 'c'))": (
        pl.when(pl.col("Days") < 3)
        .then(pl.lit("a"))
        .when(pl.col("Days") < 7)
        .then(pl.lit("b"))
        .otherwise(pl.lit("c"))
    ),
    "(HEIGHT - 460) / 50": (pl.col("HEIGHT") - 460) / 50,
}
# R's column for each of ours.
COLUMNS = {
    "sum_sq": ("Sum Sq", "Sum of Sq"),
    "num_df": ("NumDF", "Df"),
    "den_df": ("DenDF",),
    "f_stat": ("F value", "F", "F values"),
    "chi_square": ("Chisq", "LR Chisq", "LRT", "Deviance"),
    "df": ("Df", "npar"),
    "p_value": ("Pr(>F)", "Pr(>Chisq)", "Pr(Chi)", "Pr(>Chi)"),
    "AIC": ("AIC",),
}


@cache
def model_of(name: str, formula: str = "") -> bg.Model:
    case = {**TERMS, **MODELS}[name]["model"]
    data = bg.load_dataset(case["dataset"])
    if case["dataset"] == "penguins":
        data = data.with_columns(pl.col("sex").replace("NA", None))
    data = data.with_columns(**{new: DERIVED[text] for new, text in case["derive"].items()})
    return bg.model(
        formula or case["formula"],
        data,
        family=case["family"],
        link=case["link"],
        weights=case["weights"],
        factors=case["factors"],
    )


@cache
def fit_of(name: str, df: Literal["satterthwaite", "kenward-roger"] = "satterthwaite") -> bg.Fit:
    return model_of(name).fit(bg.ML(reml=TERMS[name]["model"]["reml"], df=df))


TABLES = [(name, table) for name, case in TERMS.items() for table in case["tables"]]


def table_of(name: str, table: str) -> pl.DataFrame:
    test, kind = table.split("_")
    if test == "drop1":
        fit = fit_of(name)
        return bg.drop1(fit, "F" if kind == "F" else "lrt")
    kinds: Any = kind
    if test == "kenward-roger":
        return bg.anova(fit_of(name, "kenward-roger"), type=kinds)
    chosen: Any = "F" if test == "satterthwaite" else test
    return bg.anova(fit_of(name), type=kinds, test=chosen)


def tolerance(name: str, table: str, column: str) -> float:
    """lmerTest differentiates numerically, and so does lme4 for the vcov of a glmer fit."""
    if name.startswith("glmer") and table.startswith("wald"):
        return 1e-4
    if column in ("den_df", "p_value") and not table.startswith("kenward-roger"):
        return 5e-6
    return 1e-7


@pytest.mark.parametrize(("name", "table"), TABLES)
def test_tests_of_terms(name: str, table: str) -> None:
    reference = TERMS[name]["tables"][table]
    ours = table_of(name, table)
    assert ours["term"].to_list() == reference["term"]
    compared = set()
    for column, names in COLUMNS.items():
        found = [n for n in names if n in reference]
        if column not in ours.columns or not found:
            continue
        theirs = np.array(reference[found[0]], dtype=np.float64)  # null becomes NaN
        mine = ours[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
        if column == "p_value":  # tiny ones are compared by their exponent
            theirs, mine = np.log10(theirs + 1e-300), np.log10(mine + 1e-300)
        tol = tolerance(name, table, column)
        np.testing.assert_allclose(mine, theirs, rtol=tol, atol=tol, err_msg=column)
        compared.add(column)
    expected = {"F": "f_stat", "satterthwaite": "f_stat", "kenward-roger": "f_stat"}
    test = table.split("_")[1] if table.startswith("drop1") else table.split("_")[0]
    assert {expected.get(test, "chi_square"), "p_value"} <= compared


@pytest.mark.parametrize("name", [name for name, case in TERMS.items() if "kr_df" in case])
def test_kenward_roger_covariance(name: str) -> None:
    fit, case = fit_of(name, "kenward-roger"), TERMS[name]
    assert list(fit.model.design.names) == case["names"]
    np.testing.assert_allclose(fit.vcov, case["vcov_adjusted"], rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(fit.params["df"], case["kr_df"], rtol=1e-7)


@pytest.mark.parametrize("name", MODELS)
def test_comparison_of_models(name: str) -> None:
    case = MODELS[name]
    fits = [model_of(name, formula).fit() for formula in case["formulas"]]
    ours, theirs = bg.anova(*reversed(fits)), case["table"]
    assert ours["model"].to_list() == case["formulas"]

    def same(column: str, reference: str, rtol: float = 1e-7) -> None:
        mine = ours[column].cast(pl.Float64).fill_null(np.nan)
        np.testing.assert_allclose(mine, np.array(theirs[reference], dtype=float), rtol=rtol)

    if name == "mtcars":
        for pair in ("rss RSS", "f_stat F", "p_value Pr(>F)", "num_df Df", "df_residual Res.Df"):
            same(*pair.split(" ", 1))  # type: ignore[arg-type]
        return
    np.testing.assert_allclose(ours["logLik"], case["logLik"], rtol=1e-7)
    if name == "titanic":
        same("chi_square", "Deviance")
        same("p_value", "Pr(>Chi)")
        same("df", "Df")
        return
    for column in ("npar", "AIC", "BIC", "logLik", "deviance"):
        same(column, column)
    # A likelihood ratio of a few units between glmer fits has their last digits.
    same("chi_square", "Chisq", 2e-6)
    same("df", "Df")
    same("p_value", "Pr(>Chisq)", 1e-4)
