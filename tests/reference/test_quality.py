"""Residuals, hat values, influence, R2, ICC and conditional AIC against R: `quality.json`."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import bayesglmm as bg

CASES: dict[str, dict[str, Any]] = {
    case["id"]: case
    for case in json.loads(Path(__file__).with_name("quality.json").read_text("utf-8"))["cases"]
}
MIXED = [name for name, case in CASES.items() if case["engine"] in ("lmer", "glmer")]
LINEAR = [name for name, case in CASES.items() if case["engine"] == "lmer"]
# lme4 stops PIRLS one step early, and glm at a relative change of the deviance.
RTOL = {"glmer": 5e-6, "lmer": 2e-6, "glm": 1e-7, "lm": 1e-10}


@cache
def fit_of(name: str) -> bg.Fit:
    case = CASES[name]
    data = bg.load_dataset(case["dataset"])
    if case["derive"]:
        assert case["derive"] == {"w": "Days + 1"}
        data = data.with_columns(w=pl.col("Days") + 1)
    model = bg.model(
        case["formula"],
        data,
        family=case["family"],
        link=case["link"],
        weights=case["weights"],
        factors=case["factors"],
    )
    return model.fit("reml" if case["reml"] else "ml")


def same(name: str, column: pl.Series, expected: dict[str, Any]) -> None:
    """The first ten values, and the norm of all."""
    values = column.drop_nulls().to_numpy()
    norm, rtol = float(np.linalg.norm(values)), RTOL[CASES[name]["engine"]]
    assert norm == pytest.approx(expected["norm"], rel=rtol)
    size = norm / np.sqrt(len(values))
    np.testing.assert_allclose(values[:10], expected["first"], rtol=rtol, atol=rtol * size)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("type", ["response", "pearson", "deviance", "working", "studentised"])
def test_residuals(name: str, type: Any) -> None:
    case, fit = CASES[name], fit_of(name)
    if case["engine"] == "glmer" and type == "studentised":
        pytest.skip("lme4's hat values of a GLMM exceed one")
    # R: of a linear (mixed) model "working" does not weigh, nor does it here.
    same(name, fit.residuals(type)["residual"], case["residuals"][type])


@pytest.mark.parametrize("name", [n for n in CASES if n not in MIXED])
def test_standardised_residuals(name: str) -> None:
    fit, expected = fit_of(name), CASES[name]["residuals"]
    for type in ("pearson", "deviance"):
        if f"standardised_{type}" in expected:
            column = bg.residuals(fit, type, scale="leverage")["residual"]
            same(name, column, expected[f"standardised_{type}"])


@pytest.mark.parametrize("name", CASES)
def test_quantile_residuals_lie_where_they_must(name: str) -> None:
    found = fit_of(name).residuals("quantile", seed=3)["residual"].drop_nulls()[:10].to_numpy()
    low, high = (
        np.array(CASES[name]["quantile"][end], dtype=np.float64) for end in ("low", "high")
    )
    room = 1e-5 * (1 + np.abs(found))
    assert np.all(found >= low - room) and np.all(found <= high + room)
    if CASES[name]["family"] == "gaussian":
        np.testing.assert_allclose(found, low, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_hat_values(name: str) -> None:
    case, fit = CASES[name], fit_of(name)
    if case["engine"] != "glmer":
        same(name, bg.hatvalues(fit)["hat"], case["hat"])
        same(name, bg.cooks_distance(fit)["cooks_distance"], case["cooks"])
    else:
        same(name, bg.hatvalues(fit)["hat"], case["hat_working"])


@pytest.mark.parametrize("name", ["lmer_sleepstudy", "glmer_cbpp"])
def test_influence(name: str) -> None:
    expected, fit = CASES[name]["influence"], fit_of(name)
    found = bg.influence(fit, expected["group"])
    order = {level: j for j, level in enumerate(expected["levels"])}
    assert sorted(found.table["level"]) == sorted(expected["levels"])
    rows = [order[level] for level in found.table["level"]]
    g, p = len(rows), fit.model.design.p
    # R takes numerical second derivatives for the standard errors of a GLMM.
    rtol = 1e-4 if name == "glmer_cbpp" else 1e-5
    for column, size in (("dfbeta", "dfbeta"), ("dfbetas", "dfbetas")):
        wanted = np.array(expected[size])[rows]
        values = found.coefficients[column].to_numpy().reshape(g, p)
        np.testing.assert_allclose(values, wanted, rtol=rtol, atol=rtol * np.abs(wanted).max())
    for column, key in (("cooks_distance", "cooks"), ("covratio", "covratio")):
        reference = np.array(expected[key])[rows]
        np.testing.assert_allclose(found.table[column], reference, rtol=10 * rtol)
    components = np.array(expected["components"])[rows]
    np.testing.assert_allclose(
        found.components["estimate"].to_numpy().reshape(g, -1), components, rtol=1e-4, atol=1e-5
    )
    # lme4's own function stops early, and scales by (g - p) / g.
    lme4 = np.array(expected["cooks_lme4"])[rows] * g / (g - p)
    np.testing.assert_allclose(found.table["cooks_distance"], lme4, rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize("name", MIXED)
def test_r2_and_icc(name: str) -> None:
    case, fit = CASES[name], fit_of(name)
    expected = case["shares"]
    if case["weights"]:  # performance takes sigma^2 for the residual variance of every row
        sigma2 = fit.statistics["sigma"].item() ** 2
        parts = expected["fixed"], expected["random"]
        residual = sigma2 * float(np.mean(1.0 / fit.model.design.weights))
        total = sum(parts) + residual
        np.testing.assert_allclose(
            fit.r2()["estimate"], [parts[0] / total, sum(parts) / total], rtol=1e-6
        )
    elif "r2" in expected:
        np.testing.assert_allclose(fit.r2()["estimate"], expected["r2"], rtol=1e-5, atol=1e-12)
        found = fit.icc()[-2:]["estimate"]
        np.testing.assert_allclose(found, expected["icc"], rtol=1e-5)
    else:
        for kind in ("trigamma", "lognormal", "delta"):
            found = bg.r2(fit, distribution=kind)["estimate"]
            np.testing.assert_allclose(found, expected[kind], rtol=1e-5)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if "r2" in c])
def test_r2_without_random_effects(name: str) -> None:
    expected = CASES[name]["r2"]
    found = dict(fit_of(name).r2().iter_rows())
    names = {"r2": "R2", "adjusted": "R2_adjusted"}
    assert len(found) == len(expected)
    for key, value in expected.items():
        if (name, key) == ("glm_grouseticks", "Nagelkerke"):
            # Nagelkerke's largest value has l0; performance puts the saturated model's in it.
            assert found["R2_Nagelkerke"] == pytest.approx(value, abs=1e-6)
            continue
        assert found[names.get(key, f"R2_{key}")] == pytest.approx(value, rel=1e-7)


@pytest.mark.parametrize("name", LINEAR)
def test_conditional_aic(name: str) -> None:
    """cAIC4 with the factor corrected that the exact law in tests/exact contradicts."""
    expected, row = CASES[name]["caic"], bg.caic(fit_of(name)).row(0, named=True)
    assert row["logLik_conditional"] == pytest.approx(expected["loglik"], abs=2e-4)
    assert row["df_trace"] == pytest.approx(expected["trace"], rel=1e-6)
    if expected["df"] is not None:
        assert row["df"] == pytest.approx(expected["df"], abs=1e-6)
        assert abs(row["df"] - expected["df_cAIC4"]) < 0.06
    assert row["cAIC"] == pytest.approx(2 * (row["df"] - row["logLik_conditional"]))


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if "overdispersion" in c])
def test_overdispersion(name: str) -> None:
    expected, row = CASES[name]["overdispersion"], bg.overdispersion(fit_of(name)).row(0)
    wanted = [expected[k] for k in ("chisq", "df", "ratio", "p")]
    np.testing.assert_allclose(row, wanted, rtol=2e-5, atol=1e-300)
