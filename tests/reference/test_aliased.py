"""Models whose X is not of full rank, against R: `aliased.json`."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import bayesglmm as bg

pytestmark = pytest.mark.filterwarnings("ignore:.*not estimable:bayesglmm.errors.BayesglmmWarning")

STORED = json.loads(Path(__file__).with_name("aliased.json").read_text("utf-8"))
DATA = bg.model("y ~ 1", STORED["data"]).design.data
CASES: dict[str, dict[str, Any]] = {case["id"]: case for case in STORED["cases"]}
# lme4's optimum of a GLMM is good to five digits or so; everything else to ten.
TOLERANCE = {"lm": 1e-9, "glm": 1e-7, "lmer": 1e-5, "glmer": 1e-3}


@cache
def fit_of(name: str) -> bg.Fit:
    case = CASES[name]
    model = bg.model(
        case["formula"],
        DATA[: case["rows"]],
        family=case["family"],
        weights=case["weights"],
        trials=case["trials"],
    )
    return model.fit(bg.ML(df="asymptotic"))


def numbers(values: list[Any]) -> np.ndarray[Any, Any]:
    return np.array([math.nan if v is None else float(v) for v in values])


def same(ours: pl.Series, theirs: list[Any], tolerance: float) -> None:
    """Equal, and null exactly where R has NA or nonEst."""
    expected = numbers(theirs)
    assert ours.is_null().to_list() == np.isnan(expected).tolist()
    got = ours.cast(pl.Float64).fill_null(math.nan).to_numpy()
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_coefficients(name: str) -> None:
    case, fit = CASES[name], fit_of(name)
    tolerance = TOLERANCE[case["engine"]]
    assert fit.params["term"].to_list() == case["names"]
    assert fit.model.design.all_names == tuple(case["names"])
    assert len(fit.model.design.aliased) == case["coef"].count(None) > 0
    same(fit.params["estimate"], case["coef"], tolerance)
    same(fit.params["std_error"], case["se"], 10 * tolerance)
    assert fit.statistics["nobs"].item() == case["nobs"]
    assert fit.statistics["n_parameters"].item() == case["df"]
    assert fit.statistics["df_residual"].item() == case["df_residual"]
    if case["weights"]:  # R's constant has the logarithm of the weights, as ours
        assert fit.model.design.weightless == int((DATA[case["weights"]] == 0).sum())
    assert fit.loglik == pytest.approx(case["logLik"], rel=1e-7)
    assert fit.statistics["BIC"].item() == pytest.approx(case["BIC"], rel=1e-7)


MEANS = [(name, k) for name, case in CASES.items() for k in range(len(case["means"]))]


@pytest.mark.parametrize(("name", "k"), MEANS)
def test_means_and_contrasts(name: str, k: int) -> None:
    case, fit = CASES[name], fit_of(name)
    asked, tolerance = case["means"][k], TOLERANCE[case["engine"]]
    arguments: dict[str, Any] = {
        "contrasts": asked["contrasts"] or None,
        "adjust": asked["adjust"] or "default",
    }
    if asked["trend"]:
        frame = bg.emtrends(fit, asked["trend"], by=asked["specs"], **arguments)
    else:
        frame = fit.emmeans(asked["specs"], by=asked["by"], type="link", **arguments)
    theirs = asked["table"]
    position = frame.columns.index("SE")
    # R integrates the studentised range to four digits.
    loose = 1e-4 if asked["contrasts"] and asked["adjust"] in ("", "tukey") else 10 * tolerance
    same(frame.to_series(position - 1), theirs["estimate"], 10 * tolerance)
    same(frame["SE"], theirs["SE"], 10 * tolerance)
    same(frame.to_series(position + 2), theirs["low"], loose)
    same(frame.to_series(position + 3), theirs["high"], loose)
    if asked["contrasts"]:
        same(frame["p_value"], theirs["p.value"], loose)
    assert ("cannot estimate" in frame.caption) == (None in theirs["estimate"])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "newdata" in case])
def test_new_rows(name: str) -> None:
    case = CASES[name]
    table = fit_of(name).predict(case["newdata"], re="zero", type="link")
    same(table["estimate"], case["link"], TOLERANCE[case["engine"]])
    lost = case["link"].count(None)
    assert (f"null in {lost} row(s)" in table.caption) == (lost > 0)
