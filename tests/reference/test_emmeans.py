"""Marginal means, contrasts and trends against R's emmeans: `emmeans.json`, 121 calls."""

from __future__ import annotations

import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import bayesglmm as bg

CASES: dict[str, dict[str, Any]] = {
    case["id"]: case
    for case in json.loads(Path(__file__).with_name("emmeans.json").read_text("utf-8"))["cases"]
}
CONTRASTS = ("", "pairwise")  # and mappings of weights


def unsupported(case: dict[str, Any]) -> str:
    """Why the package has no such call; empty where it has."""
    if case["joint"]:
        return "no joint tests"
    if case["interaction"]:
        return "no interaction contrasts"
    if case["weights"] != "equal":
        return f"no weights={case['weights']!r}"
    if isinstance(case["contrasts"], str) and case["contrasts"] not in CONTRASTS:
        return f"no contrasts={case['contrasts']!r}"
    if case["adjust"] == "scheffe":
        return "no Scheffe adjustment"
    if case["model"]["formula"].startswith("log(") and case["type"] == "response":
        return "a transformation of the response is not carried back"
    return ""


SUPPORTED = [name for name, case in CASES.items() if not unsupported(case)]


@cache
def fit_of(text: str) -> bg.Fit:
    case, df = json.loads(text)
    data = bg.load_dataset(case["dataset"])
    if case["dataset"] == "penguins":
        data = data.with_columns(pl.col("sex").replace("NA", None))
    assert not (case["rename"] or case["derive"] or case["ordered"] or case["trials"])
    levels = case.get("levels") or {}
    model = bg.model(
        case["formula"],
        data,
        family=case["family"],
        link=case["link"],
        contrasts=case["contrasts"],
        factors={name: levels[name] for name in case["factors"] if name in levels},
    )
    return model.fit(bg.ML(nagq=case["nagq"], reml=case["reml"], df=df))


def table_of(case: dict[str, Any]) -> Any:
    df = case["lmer_df"] or "satterthwaite"
    fit = fit_of(json.dumps([case["model"], df]))
    arguments: dict[str, Any] = {
        "contrasts": case["contrasts"] or None,
        "adjust": case["adjust"] or "default",
        "level": case["level"],
        "at": case["at"] or None,
    }
    if case["trend"]:
        return bg.emtrends(fit, case["trend"], by=[*case["specs"], *case["by"]], **arguments)
    return bg.emmeans(fit, case["specs"], by=case["by"], type=case["type"], **arguments)


def numbers(values: list[Any]) -> np.ndarray:
    return np.array([math.inf if v == "Inf" else float(v) for v in values])


def test_every_case_is_run_or_explained() -> None:
    assert len(CASES) == 121
    reasons: dict[str, int] = {}
    for case in CASES.values():
        reasons[unsupported(case)] = reasons.get(unsupported(case), 0) + 1
    assert reasons == {
        "": 93,
        "no weights='proportional'": 3,
        "no weights='cells'": 2,
        "no weights='outer'": 1,
        "no Scheffe adjustment": 2,
        "no contrasts='revpairwise'": 1,
        "no contrasts='trt.vs.ctrl'": 7,
        "no contrasts='poly'": 1,
        "no contrasts='consec'": 1,
        "no contrasts='eff'": 1,
        "no contrasts='del.eff'": 1,
        "no contrasts='mean_chg'": 1,
        "no interaction contrasts": 2,
        "no joint tests": 3,
        "a transformation of the response is not carried back": 2,
    }


@pytest.mark.parametrize("name", SUPPORTED)
def test_means_and_contrasts(name: str) -> None:
    case, table = CASES[name], table_of(CASES[name])
    expected = case["full"]["columns"]
    assert table.height == case["full"]["nrow"]
    mixed = case["model"]["engine"] in ("lmer", "glmer")
    # Linear functions of coefficients and their covariance, with the errors of those: see
    # test_ml.py. lme4's standard errors of a GLMM are good to 4e-6.
    tolerance = 1e-7 if case["model"]["engine"] == "lmer" else 5e-6 if mixed else 1e-8
    kept = {"estimate": case["estimate_name"], "SE": "SE"}
    kept |= {"low": case["clnames"][0], "high": case["clnames"][1]}
    for column in (*kept.values(), "null", "z.ratio", "t.ratio"):
        if column in ("null", "z.ratio", "t.ratio") and "contrast" not in expected:
            continue  # emmeans tests means against zero only when asked
        if column not in expected:
            continue
        mine = table[column.replace(".", "_")].to_numpy()
        values = numbers(expected[column])
        atol: Any = tolerance
        if column in case["clnames"]:
            # Also the error of the quantile: of its degrees of freedom, and of Tukey's
            # distribution, which is integrated numerically.
            atol = tolerance + 1e-6 * numbers(expected["SE"]).max()
        np.testing.assert_allclose(mine, values, rtol=tolerance, atol=atol, err_msg=column)
    # Satterthwaite's second derivatives are numerical on both sides.
    np.testing.assert_allclose(table["df"].to_numpy(), numbers(expected["df"]), rtol=1e-4)
    if "contrast" in expected:
        # ptukey and studentized_range integrate numerically, to about 1e-10.
        p = numbers(expected["p.value"])
        np.testing.assert_allclose(table["p_value"].to_numpy(), p, rtol=1e-4, atol=1e-9)
    for label in (*case["specs"], *case["by"], "contrast"):
        if label in expected:
            compare_labels(case, label, table[label].to_list(), expected[label])
    wanted = [c.replace(".", "_") for c in case["default"]["columns"]]
    assert [c for c in table.columns if c in wanted] == wanted


def compare_labels(case: dict[str, Any], column: str, mine: list[Any], expected: list[Any]) -> None:
    if column != "contrast":
        assert [str(v) for v in mine] == [
            str(float(v)) if isinstance(mine[0], float) else str(v) for v in expected
        ]
        return
    # emmeans puts the variable's name before a level that is a number: "pclass1 - pclass2".
    names = "|".join([*case["specs"], *case["by"]])
    bare = [re.sub(rf"\b(?:{names})(?=[\d.])", "", v) for v in expected]
    assert [re.sub(rf"\b(?:{names})(?=[\d.])", "", v) for v in mine] == bare


@pytest.mark.parametrize("name", [n for n in SUPPORTED if "grid_levels" in CASES[n]])
def test_weights_on_the_coefficients(name: str) -> None:
    # The averaged rows of X; emmeans differentiates trends with another step.
    case, table = CASES[name], table_of(CASES[name])
    if case["trend"]:
        pytest.fail("trends have no grid_levels")
    np.testing.assert_allclose(table.weights.to_numpy(), case["linfct"], rtol=1e-10, atol=1e-12)
