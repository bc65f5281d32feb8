"""Printed tables, to the letter, at parameters known in closed form."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest

import bayesglmm as bg
from bayesglmm.tables.text import number, p_value, text_table

# Degenerate fits are the point here, and warn.
pytestmark = pytest.mark.filterwarnings("ignore::bayesglmm.errors.BayesglmmWarning")

# Balanced, so that everything has a closed form: group means 4, 10, 7; mean squares within 2 and
# between 18. ML: variance (36/3 - 2)/2 = 5, standard error sqrt((2 + 2*5)/6), 3 degrees of
# freedom. REML: variance (18 - 2)/2 = 8, standard error sqrt(18/6), 2 degrees of freedom.
BALANCED = {"y": [3.0, 5.0, 9.0, 11.0, 6.0, 8.0], "g": list("aabbcc")}
# Log odds of 6/20 and 14/20.
COUNTS = {"s": [2, 4, 5, 9], "f": list("aabb")}


@cache
def mixed(method: str) -> bg.Fit:
    return bg.lmer("y ~ 1 + (1|g)", BALANCED).fit(method)


@cache
def logistic() -> bg.Fit:
    return bg.glm("cbind(s, 10 - s) ~ f", COUNTS, family="binomial").fit()


def test_summary_of_a_linear_mixed_model() -> None:
    assert (
        mixed("ml").summary().text()
        == """\
Linear mixed model by maximum likelihood
  y ~ 1 + (1|g)
  family gaussian, link identity · 6 rows · groups: g 3
  logLik -13.281 · AIC 32.561 · BIC 31.937 · deviance 26.561 · df_residual 3

Random effects:
  group     term         variance  sd / corr      SE     low    high
  g         (Intercept)    5.0000     2.2361  1.1106  0.8448  5.9189
  Residual                 2.0000     1.4142  0.5774  0.6354  3.1479

Fixed effects:
  term         estimate  std_error  conf_low  conf_high  t_stat   df  p_value
  (Intercept)    7.0000     1.4142    2.4993     11.501   4.950  3.0   0.0158

  Coefficients · ML · response scale · 95% Wald interval (t)"""
    )


def test_summary_of_a_reml_fit() -> None:
    text = mixed("reml").summary().text()
    assert text.startswith("Linear mixed model by restricted maximum likelihood (REML)\n")
    assert "  g         (Intercept)    8.0000     2.8284  1.5975  0.9349  8.5568\n" in text
    assert "  (Intercept)    7.0000     1.7321   -0.4524     14.452   4.041  2.0   0.0561\n" in text


def test_summary_of_odds_ratios() -> None:
    assert (
        logistic().summary(exponentiate=True, level=0.9).text()
        == """\
Generalised linear model by maximum likelihood
  cbind(s, 10 - s) ~ f
  family binomial, link logit · 4 rows
  logLik -7.4488 · AIC 18.898 · BIC 17.670 · deviance 5.0363 · df_residual 2 · \
null_deviance 11.619 · df_null 3

Fixed effects:
  term         estimate  std_error  conf_low  conf_high  z_stat   df  p_value
  (Intercept)    0.4286     0.2091    0.1921     0.9563  -1.736  inf   0.0825
  fb             5.4444     3.7570    1.7499     16.940   2.456  inf   0.0141

  Coefficients · ML · exp of logit scale · 90% Wald interval"""
    )


def test_summary_says_what_needs_attention() -> None:
    data = {"y": [1.0, 2.0, 2.0, 1.0, 1.5, 1.5, None], "g": list("aabbcca")}
    text = bg.lmer("y ~ 1 + (1|g)", data).fit().summary().text()
    assert "6 rows (1 of 7 dropped: missing values)" in text
    assert "  g         (Intercept)    0.0000     0.0000\n" in text  # no interval at the boundary
    assert text.splitlines()[-1] == (
        "  ! Singular fit: estimated at the boundary (zero, or perfectly correlated): "
        "sd of (Intercept) by g. The estimate is valid; simplify the term, or let a prior keep it "
        'inside: fit("nuts").'
    )


@pytest.mark.parametrize(
    ("nagq", "title"),
    [
        (
            0,
            "Generalised linear mixed model by lme4's fast approximation to maximum likelihood "
            "(nagq=0)",
        ),
        (1, "Generalised linear mixed model by maximum likelihood (Laplace approximation)"),
        (
            5,
            "Generalised linear mixed model by maximum likelihood (adaptive quadrature, ML-AGQ(5))",
        ),
    ],
)
def test_title_of_a_glmm(nagq: int, title: str) -> None:
    model = bg.glmer("TICKS ~ 1 + (1|LOCATION)", bg.load_dataset("grouseticks"), family="poisson")
    assert model.fit(nagq=nagq).summary().text().splitlines()[0] == title


def test_comparison() -> None:
    assert (
        bg.compare(mixed("ml"), mixed("reml")).text()
        == """\
  parameter               ML      SE     low    high    REML      SE      low    high  REML shift  sd ratio
  (Intercept)         7.0000  1.4142  2.4993  11.501  7.0000  1.7321  -0.4524  14.452       +0.00      1.22
  sd (Intercept) | g  2.2361  1.1106  0.8448  5.9189  2.8284  1.5975   0.9349  8.5568       +0.53      1.44
  residual sd         1.4142  0.5774  0.6354  3.1479  1.4142  0.5774   0.6354  3.1479       +0.00      1.00
  ML: ML, 95% Wald interval (t); REML: REML, 95% Wald interval (t). Coefficients: response scale. \
shift: difference from ML in its standard errors; sd ratio: to ML's."""  # noqa: E501
    )


def test_captions() -> None:
    fit = logistic()
    assert fit.params.caption == "Coefficients · ML · logit scale · 95% Wald interval"
    assert bg.params(fit, exponentiate=True, level=0.9).caption == (
        "Coefficients · ML · exp of logit scale · 90% Wald interval"
    )
    assert fit.emmeans("f").caption == (
        "Marginal means · ML · response scale, averaged on the logit scale · 95% Wald interval"
    )
    assert fit.emmeans("f", contrasts="pairwise").caption == (
        "Contrasts · ML · ratios; tests on the logit scale · 95% Wald interval"
    )
    weights = fit.emmeans("f", contrasts={"d": [-1, 1]}, type="link")
    assert weights.caption == "Contrasts · ML · logit scale · 95% Wald interval · d = -a + b"
    assert fit.emmeans("f", adjust="sidak").caption.endswith(" · intervals adjusted by sidak")
    assert fit.predict().caption == (
        "Predictions (re='fitted') · ML · response scale · 95% Wald interval"
    )
    assert mixed("ml").varcorr.caption == (
        "Variance components · ML · 95% Wald interval of log sd and atanh correlation, carried back"
    )
    assert str(fit.params).endswith("\n" + fit.params.caption)


def test_captions_name_the_interval_that_is_shown() -> None:
    """Conditional modes have normal intervals, whatever the coefficients have."""
    fit = mixed("ml")
    row = fit.ranef.row(0, named=True)
    half = (row["conf_high"] - row["conf_low"]) / 2
    assert half / row["std_error"] == pytest.approx(1.959964, abs=1e-6)
    assert fit.ranef.caption == "Random effects · ML · response scale · 95% Wald interval"
    assert fit.coef.caption == "Coefficients by level · ML · response scale · 95% Wald interval"
    assert "(t)" not in fit.predict().caption
    assert fit.predict(re="zero").caption.endswith("95% Wald interval (t)")


def test_html() -> None:
    page = mixed("ml")._repr_html_()
    for part in (
        "<strong>Linear mixed model by maximum likelihood</strong>",
        "5.0000",
        "groups: g 3",
    ):
        assert part in page
    strange = {"y": BALANCED["y"], "a&b": [0.0, 1.0, 2.0, 3.0, 4.0, 6.0]}
    assert "a&amp;b" in bg.lm("y ~ `a&b`", strange).fit()._repr_html_()


def test_models_show_themselves() -> None:
    assert repr(mixed("ml").model) == (
        "Model('y ~ 1 + (1|g)', family='gaussian', link='identity', 6 rows, groups: g (3))"
    )
    assert repr(mixed("ml")) == mixed("ml").summary().text()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.0000"),
        (-1.23456, "-1.2346"),
        (9.99996, "10.0000"),
        (12.345678, "12.346"),
        (123456.789, "123456.8"),
        (0.0064361, "0.00644"),
        (-0.00012345, "-0.000123"),
        (1e-9, "1.00e-09"),
        (27465718.0, "2.747e+07"),
        (float("inf"), "inf"),
        (float("-inf"), "-inf"),
        (float("nan"), ""),
        (None, ""),
        (12, "12"),
    ],
)
def test_numbers(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_p_values_and_alignment() -> None:
    assert [p_value(v) for v in (0.04567, 5e-5, 1.0, float("nan"), None)] == [
        *("0.0457", "<.0001", "1.0000", "", "")
    ]
    text = text_table(["term", "estimate", "p_value"], [["a", 1.0, 1e-9], ["longer", -20.0, 0.5]])
    assert text == (
        "  term    estimate  p_value\n  a         1.0000   <.0001\n  longer   -20.000   0.5000"
    )


def test_tables_print_every_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    shown = str(mixed("ml").varcorr)  # nine columns, of which polars shows eight
    assert "estimate" in shown and "…" not in shown
    assert shown.endswith(mixed("ml").varcorr.caption)
    a, b = logistic(), bg.glm("cbind(s, 10 - s) ~ 1", COUNTS, family="binomial").fit()
    compared = " ".join(str(bg.anova(a, b)).split())
    assert "cbind(s, 10 - s) ~ f" in compared and "…" not in compared


def test_printing_respects_and_keeps_the_options_of_polars(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    with pl.Config(tbl_cols=3):
        before = pl.Config.state()
        assert "estimate" not in str(mixed("ml").varcorr)
        assert pl.Config.state() == before


def test_many_columns_are_cut() -> None:
    assert "…" in str(mixed("ml").simulate(100, seed=1))


def test_captions_name_what_was_held_only_where_there_is_something() -> None:
    assert "given the variances" in bg.hatvalues(mixed("ml")).caption
    assert bg.hatvalues(logistic()).caption == "Hat values · ML"
    assert bg.cooks_distance(logistic()).caption == "Cook's distances, one step · ML"
    assert bg.overdispersion(logistic()).caption == "Overdispersion: Pearson chi-square of ML"


def test_summary_says_how_draws_were_got(fit_of_draws: Any) -> None:
    model = bg.lm("mpg ~ wt", bg.load_dataset("mtcars"))
    rng = np.random.default_rng(1)
    draws = {"beta": rng.normal(size=(1, 50, 2)), "sigma": rng.uniform(1, 2, (1, 50))}
    fit = fit_of_draws(model, draws)
    lines = fit.summary().lines
    assert lines[2] == "NUTS (1 chain x 50 draws), 1 warm-up, seed 0, 0.0 s"
    assert lines[3] == "sampled: draws of a test"
    assert lines[4] == "divergences 0 · no R-hat: it needs several chains"
