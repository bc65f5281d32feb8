"""nagq=0 against lme4's nAGQ = 0, which profiles beta inside PIRLS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bayesglmm as bg

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("nagq0.json").read_text("utf-8"))[
    "cases"
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_as_lme4(case: dict[str, Any]) -> None:
    data = bg.load_dataset(case["dataset"])
    model = bg.glmer(case["formula"], data, family=case["family"])
    fit = model.fit(nagq=0)
    assert fit.method == "ML-nAGQ0"
    assert fit.outcome.converged
    # lme4 searches without derivatives: its optimum is never above ours.
    assert fit.loglik == pytest.approx(case["loglik"], abs=2e-4)
    assert fit.loglik > case["loglik"] - 1e-6
    error = np.array(case["std_error"])
    assert np.max(np.abs(fit.params["estimate"].to_numpy() - case["coef"]) / error) < 2e-3
    np.testing.assert_allclose(fit.params["std_error"], error, rtol=2e-3)
    found = np.sort(fit.varcorr["estimate"].to_numpy())  # lme4 orders terms by their levels
    np.testing.assert_allclose(found, np.sort(np.atleast_1d(case["vcov"])), rtol=5e-3, atol=2e-3)
    # The likelihood that is maximised in beta too is higher.
    assert model.fit().loglik > fit.loglik


def test_standard_errors_are_conditional() -> None:
    data = bg.load_dataset("cbpp")
    model = bg.glmer("incidence ~ period + (1|herd)", data, family="binomial", trials="size")
    with pytest.raises(bg.ChoiceError, match="vcov='hessian' needs a likelihood"):
        model.fit(nagq=0, vcov="hessian")
    plain, said = model.fit(nagq=0), model.fit(nagq=0, vcov="conditional")
    np.testing.assert_array_equal(plain.vcov, said.vcov)
