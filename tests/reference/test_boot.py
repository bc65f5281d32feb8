"""Refits and bootstraps against lme4, intervals against R's boot: `bootstrap.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bayesglmm as bg
from bayesglmm.post.intervals import interval

R: dict[str, Any] = json.loads(Path(__file__).with_name("bootstrap.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def linear() -> bg.Fit:
    return bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy")).fit()


def values(fit: bg.Fit) -> list[float]:
    return [*fit.params["estimate"], *fit.varcorr["estimate"]]


def test_refit_of_a_linear_model(linear: bg.Fit) -> None:
    again = linear.refit(bg.load_dataset("sleepstudy")["Reaction"].reverse())
    np.testing.assert_allclose(values(again), R["refit_linear"]["values"], rtol=1e-5)
    assert again.loglik == pytest.approx(R["refit_linear"]["logLik"], abs=1e-7)


def test_refit_of_successes() -> None:
    data = bg.load_dataset("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1|herd)"
    fit = bg.glmer(formula, data, family="binomial").fit()
    again = fit.refit(data["size"] - data["incidence"])
    # lme4's Laplace approximation carries a PIRLS weight one step old: see README.md.
    np.testing.assert_allclose(values(again), R["refit_binary"]["values"], rtol=1e-3)
    assert again.loglik == pytest.approx(R["refit_binary"]["logLik"], abs=1e-4)


@pytest.mark.parametrize("kind", ["percentile", "basic", "normal"])
def test_intervals(kind: Any) -> None:
    """With 199 draws boot.ci need not interpolate, which it does on the normal scale."""
    case = R["intervals"]
    found = interval(np.array(case["draws"]), case["estimate"], 0.95, kind)
    np.testing.assert_allclose(found, case[kind], rtol=1e-12)


def test_distribution_of_a_linear_model(linear: bg.Fit) -> None:
    """Means, sds and quartiles within Monte Carlo error of lme4's 4000 refits."""
    nsim = 150
    case = R["boot_linear"]
    found = linear.bootstrap(nsim, seed=2)
    np.testing.assert_allclose(found.estimates["estimate"], case["estimate"], rtol=1e-4)
    draws = found.draws["estimate"].to_numpy().reshape(nsim, -1)
    sd = np.array(case["sd"])
    error = np.sqrt(1 / nsim + 1 / case["nsim"])
    assert np.all(np.abs(draws.mean(axis=0) - case["mean"]) < 4 * sd * error)
    assert np.all(np.abs(draws.std(axis=0, ddof=1) / sd - 1.0) < 4 * error)
    for column, p in enumerate(case["probabilities"]):
        below = (draws <= np.array(case["quantiles"])[:, column]).mean(axis=0)
        assert np.all(np.abs(below - p) < 4 * np.sqrt(p * (1 - p)) * error)
    # For the coefficients of a balanced design these are also the ML standard errors.
    table = found.summary()
    ratio = table["std_error"][:2].to_numpy() / linear.params["std_error"].to_numpy()
    assert np.all(np.abs(ratio - 1.0) < 4 / np.sqrt(2 * nsim))
