"""Maximum likelihood against R: `ml.json`, 84 fits by lm, glm, lmer, glmer and glmmTMB.

Where a case has a glmmTMB entry it is the reference of what it holds: its optimum is
Newton-polished, and it uses the true Hessian in the Laplace approximation, as we do (lme4 takes
expected weights, which differ when the link is not canonical, and weights one step old).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import bayesglmm as bg
from bayesglmm.laplace.covariance import covariance_of
from bayesglmm.laplace.pls import deviance, linear_problem, penalised_least_squares
from bayesglmm.laplace.standardise import coordinates
from bayesglmm.laplace.structure import structure_of
from bayesglmm.posterior.ml import MLPosterior

# Degenerate fits are the point here, and warn.
pytestmark = pytest.mark.filterwarnings("ignore::bayesglmm.errors.BayesglmmWarning")

CASES: dict[str, dict[str, Any]] = {
    case["id"]: case
    for case in json.loads(Path(__file__).with_name("ml.json").read_text("utf-8"))["cases"]
}
UNSUPPORTED = {
    "glm_titanic_cauchit": "no cauchit link",
    "glm_grouseticks_sqrt": "no square-root link",
    "glm_mtcars_gamma_log": "no Gamma family",
    "glm_mtcars_gamma_inverse": "no Gamma family",
    "glm_mtcars_invgauss_log": "no inverse Gaussian family",
}
LARGE = "lmer_insteval_ml"  # 73421 rows: the objective at lme4's optimum, not the search
SUPPORTED = [name for name in CASES if name not in {*UNSUPPORTED, LARGE}]
MIXED = [name for name in SUPPORTED if CASES[name]["engine"] in ("lmer", "glmer")]
# The expressions of `derive`, which are R.
DERIVED: dict[str, pl.Expr] = {
    "incidence / size": pl.col("incidence") / pl.col("size"),
    "Days + 1": pl.col("Days") + 1,
    "age / 10": pl.col("age") / 10,
    "ifelse(Days < 5, 'a_early', 'b_late')": (
        pl.when(pl.col("Days") < 5).then(pl.lit("a_early")).otherwise(pl.lit("b_late"))
    ),
    "ifelse(Days < 3, 'a', ifelse(Days < 7, 'b', 'c'))": (
        pl.when(pl.col("Days") < 3)
        .then(pl.lit("a"))
        .when(pl.col("Days") < 7)
        .then(pl.lit("b"))
        .otherwise(pl.lit("c"))
    ),
    "ifelse(livch == '0', 'false', 'true')": (
        pl.when(pl.col("livch") == "0").then(pl.lit("false")).otherwise(pl.lit("true"))
    ),
}


def data_of(case: dict[str, Any]) -> Any:
    """The data as R saw them (see README.md)."""
    data = bg.load_dataset(case["dataset"])
    if case["dataset"] == "penguins":
        data = data.with_columns(pl.col("sex").replace("NA", None))
    data = data.rename({old: new for new, old in case["rename"].items()})
    data = data.with_columns(**{name: DERIVED[text] for name, text in case["derive"].items()})
    if not case["ordered"]:
        return data
    import pandas as pd

    frame = data.to_pandas()
    for name in case["ordered"]:
        frame[name] = pd.Categorical(frame[name], ordered=True)
    return frame


def model_of(case: dict[str, Any]) -> bg.Model:
    levels = case.get("levels") or {}
    factors = {name: levels[name] for name in case["factors"] if name in levels}
    return bg.model(
        case["formula"],
        data_of(case),
        family=case["family"],
        link=case["link"],
        weights=case["weights"],
        trials=case["trials"],
        contrasts=case["contrasts"],
        factors=factors or [name for name in case["factors"] if name in case["formula"]],
        missing="drop",
    )


@cache
def fit_of(name: str) -> bg.Fit:
    case = CASES[name]
    return model_of(case).fit("reml" if case["reml"] else "ml", nagq=case["nagq"])


def estimate_of(name: str) -> Any:
    posterior = fit_of(name).posterior
    assert isinstance(posterior, MLPosterior)
    return posterior.estimate


def best(case: dict[str, Any]) -> dict[str, Any]:
    """glmmTMB's entry where there is one, else the case itself."""
    found: dict[str, Any] = case.get("glmmTMB") or case
    return found


def cases(condition: Callable[[dict[str, Any]], bool]) -> list[str]:
    return [name for name in SUPPORTED if condition(CASES[name])]


def test_every_case_is_run_or_explained() -> None:
    assert set(UNSUPPORTED) <= set(CASES)
    assert len(SUPPORTED) == 78
    assert len(cases(lambda c: "ranef" in c)) == 50
    for name, why in UNSUPPORTED.items():
        case = CASES[name]
        with pytest.raises(bg.ChoiceError):
            bg.model(case["formula"], data_of(case), family=case["family"], link=case["link"])
        assert why


@pytest.mark.parametrize("name", SUPPORTED)
def test_names_and_counts(name: str) -> None:
    case, fit = CASES[name], fit_of(name)
    row = fit.statistics.row(0, named=True)
    assert list(fit.model.design.names) == case["names"]
    assert row["nobs"] == case["nobs"]
    assert row["n_parameters"] == case["df_model"]
    if case["engine"] != "lm":
        assert row["df_residual"] == case["df_residual"]
    for group, J in case.get("n_levels", {}).items():
        found = {t.factor: t.J for t in fit.model.design.random}
        assert found[group_name(group)] == J
    assert fit.outcome.converged


@pytest.mark.parametrize("name", SUPPORTED)
def test_coefficients(name: str) -> None:
    # Both sides are polished to a gradient of about 1e-6 or better in units of a standard
    # error; a millionth of a standard error is far below anything that could matter. The
    # default stopping rule of lme4's references on 73421 rows is not as tight.
    case = CASES[name]
    reference = best(case)
    error = (fit_of(name).params["estimate"] - pl.Series(reference["coef"])).to_numpy()
    assert np.max(np.abs(error) / np.array(reference["se"])) < 1e-6


@pytest.mark.parametrize("name", SUPPORTED)
def test_standard_errors(name: str) -> None:
    case = CASES[name]
    if case["engine"] == "glmer":
        # Each side differentiates its gradient numerically. Against the Hessian by Richardson
        # extrapolation from tightly converged modes, glmmTMB's errors are up to 2.5e-6 (where
        # the columns of X differ most in scale), and 3e-5 for the cloglog link.
        expected, tolerance = best(case)["se"], 3e-6 if case["canonical"] else 4e-5
    else:
        # Closed forms; for lmer the error is that of theta (see test_components).
        expected, tolerance = case["se"], 2e-7
    np.testing.assert_allclose(fit_of(name).params["std_error"], expected, rtol=tolerance)


@pytest.mark.parametrize("name", cases(lambda c: "se_conditional" in c and c["canonical"]))
def test_conditional_standard_errors(name: str) -> None:
    # vcov(use.hessian = FALSE); its weights are one step old too. lme4's expected weights are
    # ours only for canonical links.
    conditional = model_of(CASES[name]).fit(bg.ML(nagq=CASES[name]["nagq"], vcov="conditional"))
    np.testing.assert_allclose(
        conditional.params["std_error"], CASES[name]["se_conditional"], rtol=2e-6
    )


@pytest.mark.parametrize("name", SUPPORTED)
def test_likelihood_and_criteria(name: str) -> None:
    case = CASES[name]
    row = fit_of(name).statistics.row(0, named=True)
    expected = case["logLik_full"] if "logLik_full" in case else best(case)["logLik"]
    # Twelve digits of a sum over thousands of rows.
    assert row["logLik"] == pytest.approx(expected, abs=1e-8)
    k, n = case["df_model"], case["nobs"]
    assert row["AIC"] == pytest.approx(2 * k - 2 * expected, abs=2e-8)
    assert row["BIC"] == pytest.approx(np.log(n) * k - 2 * expected, abs=2e-8)
    if case["engine"] in ("lmer", "glmer"):
        assert row["deviance"] == pytest.approx(-2 * expected, abs=2e-8)


@pytest.mark.parametrize("name", cases(lambda c: "logLik_full" not in c and "glmmTMB" not in c))
def test_criteria_as_r_prints_them(name: str) -> None:
    case = CASES[name]
    row = fit_of(name).statistics.row(0, named=True)
    assert row["AIC"] == pytest.approx(case["AIC"], abs=2e-8)
    assert row["BIC"] == pytest.approx(case["BIC"], abs=2e-8)
    assert row["deviance"] == pytest.approx(case["deviance"], rel=1e-11)


@pytest.mark.parametrize("name", cases(lambda c: c["engine"] == "glm"))
def test_deviances_of_a_glm(name: str) -> None:
    case = CASES[name]
    row = fit_of(name).statistics.row(0, named=True)
    assert row["deviance"] == pytest.approx(case["deviance"], rel=1e-12)
    assert row["null_deviance"] == pytest.approx(case["null_deviance"], rel=1e-12)
    assert row["df_null"] == case["df_null"]


@pytest.mark.parametrize("name", cases(lambda c: c["family"] == "gaussian"))
def test_residual_sd(name: str) -> None:
    case = CASES[name]
    sigma = fit_of(name).statistics["sigma"][0]
    # lmer: as flat as the likelihood in theta (see test_components). glm: R's dispersion takes
    # the working residuals of the last but one iteration.
    tolerance = {"lmer": 1e-6, "glm": 1e-8, "lm": 1e-12}[case["engine"]]
    assert sigma == pytest.approx(case["sigma"], rel=tolerance)


@pytest.mark.parametrize("name", SUPPORTED)
def test_tests_of_coefficients(name: str) -> None:
    case, params = CASES[name], fit_of(name).params
    reference = best(case)
    column = "t_stat" if "t_stat" in params.columns else "z_stat"
    assert (column == "t_stat") == (case["family"] == "gaussian")
    # The errors of coefficients and of standard errors together (see there).
    tolerance = 5e-6 if case["canonical"] else 4e-5
    statistic = np.array(reference["coef"]) / np.array(reference["se"])
    np.testing.assert_allclose(params[column], statistic, rtol=tolerance, atol=1e-6)
    if "glmmTMB" not in case:
        # A relative error e of z is about z^2 e in its tail probability.
        z, expected = np.abs(np.array(case["stat"])), np.array(case["p"])
        error = np.abs(params["p_value"].to_numpy() - expected)
        assert np.all(error <= 1e-6 * (1 + z**2) * expected)


@pytest.mark.parametrize("name", cases(lambda c: "satterthwaite_df" in c))
def test_satterthwaite(name: str) -> None:
    # lmerTest differentiates numerically (Richardson) in another parametrisation; at a
    # singular fit its Jacobian is one-sided.
    case, params = CASES[name], fit_of(name).params
    np.testing.assert_allclose(params["df"], case["satterthwaite_df"], rtol=1e-4)


def group_name(label: str) -> str:
    """R writes the inner factor of a nested pair first; a/b is a, then a:b here."""
    return {"cask:batch": "batch:cask"}.get(label, label)


def term_of(fit: bg.Fit, group: str, columns: list[str]) -> int:
    """Position of the term with that grouping factor and those columns."""
    found = [
        f
        for f, t in enumerate(fit.model.design.random)
        if t.factor == group_name(group) and set(columns) <= set(t.columns)
    ]
    assert found, f"no term with {columns} by {group}"
    return min(found, key=lambda f: len(fit.model.design.random[f].columns))


def blocks(case: dict[str, Any]) -> list[tuple[str, list[str], Any, Any]]:
    """(group, columns, sds, correlations) of every term, from glmmTMB where it is there."""
    entry = case.get("glmmTMB")
    if not entry:
        return [(b["group"], b["terms"], b["sd"], b["corr"]) for b in case["varcorr"]]
    return [(g.split(".")[0], b["terms"], b["sd"], b["corr"]) for g, b in entry["varcorr"].items()]


@pytest.mark.parametrize("name", [n for n in MIXED if CASES[n]["identified"]])
def test_components(name: str) -> None:
    # An sd is found where the likelihood is flat: an error d of the optimum costs d^2/2 in
    # log-likelihood, so twelve digits of likelihood leave six of the sd.
    fit = fit_of(name)
    rows = fit.varcorr.filter(pl.col("kind") != "residual")
    seen = 0
    for group, columns, sds, corr in blocks(CASES[name]):
        term = fit.model.design.random[term_of(fit, group, columns)]
        mine = rows.filter(group=term.name)
        for k, column in enumerate(columns):
            value = mine.filter(kind="sd", term=column)["estimate"].item()
            assert value == pytest.approx(sds[k], rel=5e-6, abs=1e-9)
            seen += 1
        if not term.correlated or len(columns) == 1:
            continue
        for a in range(len(columns)):
            for b in range(a):
                value = mine.filter(kind="corr", term=columns[b], term2=columns[a])["estimate"]
                assert value.item() == pytest.approx(corr[a][b], abs=5e-6)
                seen += 1
    assert seen == rows.height


@pytest.mark.parametrize(
    "name", cases(lambda c: "ranef" in c and c["identified"] and c["canonical"])
)
def test_modes(name: str) -> None:
    # In units of the conditional sd. lme4's PIRLS stops at a relative 1e-13 of the deviance,
    # its theta is as in test_components.
    fit, estimate = fit_of(name), estimate_of(name)
    for group, reference in CASES[name]["ranef"].items():
        modes, sds = np.array(reference["modes"]), np.array(reference["condsd"])
        scale = np.where(sds > 0, sds, 1.0)
        for k, column in enumerate(reference["columns"]):
            f = term_of(fit, group, [column])
            term = fit.model.design.random[f]
            c = term.columns.index(column)
            labels = [":".join(reversed(v.split(":"))) if ":" in group else v for v in term.levels]
            if group == "urban:dist":
                labels = list(term.levels)
            order = [labels.index(v) for v in reference["levels"]]
            mine = estimate.modes[f][order, c]
            spread = np.sqrt(estimate.mode_cov[f][order, c, c])
            assert np.max(np.abs(mine - modes[:, k]) / scale[:, k]) < 2e-5
            np.testing.assert_allclose(spread, sds[:, k], rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["lmer_sleepstudy_reml", "glmer_cbpp"])
def test_ranef_table(name: str) -> None:
    # The table shows the numbers of test_modes: levels and columns in the right rows.
    ((_, reference),) = CASES[name]["ranef"].items()
    table = fit_of(name).ranef
    size = len(reference["columns"])
    np.testing.assert_allclose(
        table["estimate"].to_numpy().reshape(-1, size), reference["modes"], rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        table["std_error"].to_numpy().reshape(-1, size), reference["condsd"], rtol=1e-4
    )
    assert table["term"].to_list()[:size] == reference["columns"]
    assert table["level"].to_list()[::size] == reference["levels"]


@pytest.mark.parametrize("name", cases(lambda c: bool(c.get("fitted_head")) and c["canonical"]))
def test_fitted_values(name: str) -> None:
    case = CASES[name]
    fitted = fit_of(name).predict()["estimate"].drop_nulls()[: len(case["fitted_head"])]
    np.testing.assert_allclose(fitted, case["fitted_head"], rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("name", MIXED)
def test_singular_fits_say_so(name: str) -> None:
    case, outcome = CASES[name], fit_of(name).outcome
    assert bool(outcome.singular) == case["singular"]
    assert bool(outcome.redundant) == (not case["identified"])


def test_insteval_at_the_optimum_of_lme4() -> None:
    case = CASES[LARGE]
    model = model_of(case)
    design, theta = model.design, np.array(case["theta"])
    columns, covariance = (
        coordinates(design, structure_of(design.random)),
        covariance_of(design.random),
    )
    problem = linear_problem(columns, model.likelihood.y, model.likelihood.w, covariance)
    value, gradient = deviance(problem, theta, reml=False)
    assert list(design.names) == case["names"]
    assert value == pytest.approx(case["deviance"], rel=1e-12)
    # lme4's search ended where a step changes the deviance by 1e-8 (curvatures about 1e4).
    assert np.max(np.abs(gradient)) < 1e-3
    at = penalised_least_squares(problem, theta)
    beta = np.linalg.solve(columns.R, at.beta)
    np.testing.assert_allclose(beta, case["coef"], rtol=1e-6)
    assert np.sqrt(at.rss / design.n) == pytest.approx(case["sigma"], rel=1e-9)
