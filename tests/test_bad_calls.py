"""Wrong calls of what is computed from a fit: which argument, what is allowed, what to do."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import bayesglmm as bg

SLEEP = bg.load_dataset("sleepstudy")
NOT_OF_A_FIT = (
    *("fit", "glm", "glmer", "lm", "lmer", "model", "load_dataset", "list_datasets", "compare"),
    *("simulate_new", "load", "loo_compare", "prior_predictive"),
)
AFTER = [
    name
    for name in bg.__all__
    if inspect.isfunction(getattr(bg, name)) and name not in NOT_OF_A_FIT
]


@cache
def sleep() -> bg.Fit:
    return bg.lmer("Reaction ~ Days + (Days|Subject)", SLEEP).fit()


@cache
def cbpp() -> bg.Fit:
    data = bg.load_dataset("cbpp")
    f = "cbind(incidence, size - incidence) ~ period + (1|herd)"
    return bg.glmer(f, data, family="binomial").fit()


@pytest.mark.parametrize("name", AFTER)
@pytest.mark.parametrize("given", ["a model", "text"])
def test_what_is_no_fit(name: str, given: str) -> None:
    function = getattr(bg, name)
    needed = [
        p
        for p in list(inspect.signature(function).parameters.values())[1:]
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    thing: Any = sleep().model if given == "a model" else "Days"
    with pytest.raises(bg.ChoiceError) as caught:
        function(thing, **{p.name: "Days" for p in needed})
    for part in (f"{name} needs a fit", "Model" if given == "a model" else "str", "model.fit("):
        assert part in str(caught.value)


CALLS: list[tuple[str, Callable[[], Any], type[Exception], tuple[str, ...]]] = [
    ("anova type", lambda: sleep().anova(type="IV"), bg.ChoiceError, ("type='IV'", "'III'")),  # type: ignore[arg-type]
    ("anova list", lambda: bg.anova([sleep()]), bg.ChoiceError, ("one by one", "anova(*fits)")),  # type: ignore[arg-type]
    (
        "anova rows",
        lambda: bg.anova(
            bg.lmer("Reaction ~ 1 + (1|Subject)", SLEEP.head(100)).fit(),
            sleep(),
        ),
        bg.DataError,
        ("different rows", "100", "180"),
    ),
    (
        "drop1 of an intercept",
        lambda: bg.lm("Reaction ~ 1", SLEEP).fit().drop1(),
        bg.ChoiceError,
        ("drop1", "no terms"),
    ),
    ("wald name", lambda: sleep().wald_test("Day = 0"), bg.FormulaError, ("'Days'", "^")),
    ("wald ==", lambda: sleep().wald_test("Days == 0"), bg.FormulaError, ("one '='", "^")),
    ("influence", lambda: sleep().influence("Subjekt"), bg.ChoiceError, ("group=", "'Subject'")),
    ("profile", lambda: sleep().profile("Dayz"), bg.ChoiceError, ("which='Dayz'", "'Days'")),
    ("profile of none", lambda: sleep().profile([]), bg.ChoiceError, ("which=[]", "leave it out")),
    ("profile by place", lambda: sleep().profile(0), bg.ChoiceError, ("which=0", "'Days'")),  # type: ignore[arg-type]
    ("profile level", lambda: sleep().profile(level=99), bg.ChoiceError, ("level=99", "0.95")),
    ("bootstrap", lambda: sleep().bootstrap(0), bg.ChoiceError, ("nsim=0", "at least 1")),
    ("confint level", lambda: sleep().confint(level=95), bg.ChoiceError, ("level=95", "0.95")),
    (
        "confint method",
        lambda: sleep().confint("profil"),  # type: ignore[arg-type]
        bg.ChoiceError,
        ("method='profil'", "'profile'"),
    ),
    (
        "confint of draws",
        lambda: sleep().confint("hdi"),
        bg.ChoiceError,
        ("method='hdi'", 'fit("nuts")'),
    ),
    (
        "seed of a Wald interval",
        lambda: sleep().confint("wald", seed=1),
        bg.ChoiceError,
        ("seed", "method='boot'", "method='wald'"),
    ),
    (
        "a statistic of nothing",
        lambda: sleep().bootstrap(2, statistic=lambda fit: None, progress=False),
        bg.DataError,
        ("statistic gave NoneType", "numbers"),
    ),
    (
        "influence executor",
        lambda: sleep().influence("Subject", executor=2),  # type: ignore[arg-type]
        bg.OptionError,
        ("executor is int", "concurrent.futures"),
    ),
    (
        "cAIC executor",
        lambda: bg.caic(cbpp(), executor=2),  # type: ignore[arg-type]
        bg.OptionError,
        ("executor is int", "concurrent.futures"),
    ),
    ("drop1 F", lambda: cbpp().drop1("F"), bg.ChoiceError, ("test='F'", "use test='lrt'")),
    (
        "wald F",
        lambda: cbpp().wald_test("period2 = 0", test="F"),
        bg.ChoiceError,
        ("test='F'", "use test='wald'"),
    ),
    ("refit length", lambda: sleep().refit([1, 2, 3]), bg.DataError, ("3 values", "180")),
    ("refit table", lambda: sleep().refit(sleep().simulate(1)), bg.DataError, ("y is", "sim_1")),  # type: ignore[arg-type]
    ("refit holes", lambda: sleep().refit(np.full(180, np.nan)), bg.DataError, ("missing", "180")),
    (
        "new without sd",
        lambda: bg.simulate_new(
            "~ Days + (1|Subject)", SLEEP, params={"(Intercept)": 1.0, "Days": 2.0, "sigma": 1.0}
        ),
        bg.DataError,
        ("params", "lacks 'sd:Subject:(Intercept)'"),
    ),
    ("residuals", lambda: sleep().residuals("pearsn"), bg.ChoiceError, ("type=", "'pearson'")),  # type: ignore[arg-type]
    (
        "R2 distribution",
        lambda: cbpp().r2(distribution="theoretic"),  # type: ignore[arg-type]
        bg.ChoiceError,
        ("distribution=", "'theoretical'"),
    ),
    ("cAIC df", lambda: bg.caic(sleep(), df="refit"), bg.ChoiceError, ("df='refit'", "'refits'")),  # type: ignore[arg-type]
    (
        "Kenward-Roger of ML",
        lambda: sleep().model.fit("ml", df="kenward-roger"),
        bg.ChoiceError,
        ("kenward-roger", "'reml'"),
    ),
    ("draws of ML", lambda: sleep().diagnostics, bg.ChoiceError, ("diagnostics", 'fit("nuts")')),
]


@pytest.mark.parametrize(
    ("call", "error", "parts"), [pytest.param(*case[1:], id=case[0]) for case in CALLS]
)
def test_wrong_call(
    call: Callable[[], Any], error: type[Exception], parts: tuple[str, ...]
) -> None:
    with pytest.raises(error) as caught:
        call()
    assert isinstance(caught.value, bg.BayesglmmError)
    for part in parts:
        assert part in str(caught.value)


def test_warnings_point_at_the_line_of_the_user() -> None:
    data = {"y": [1.0, 2.0, 3.5, 4.0, 5.5, 6.0], "x": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]}
    data["twice"] = [2.0 * x for x in data["x"]]
    with pytest.warns(bg.BayesglmmWarning, match="not estimable") as caught:
        bg.lm("y ~ x + twice", data)
    assert caught[0].filename == __file__


def test_the_response_is_no_group() -> None:
    fit = bg.lmer("Reaction ~ Days + (1|Subject)", SLEEP).fit()
    with pytest.raises(bg.ChoiceError, match=r"is the response.*'Subject'"):
        fit.influence("Reaction")


@pytest.mark.parametrize(
    ("function", "given", "said"),
    [
        (bg.lmer, {"REML": False}, r"lmer\(\) has no argument 'REML': .*\.fit\(\"reml\"\)"),
        (bg.lmer, {"family": "poisson"}, "use glm or glmer"),
        (bg.glmer, {"nAGQ": 9}, r"\.fit\(nagq=9\)"),
        (bg.model, {"prior": 1}, "use priors="),
        (bg.glm, {"weigths": "w"}, "did you mean 'weights'"),
    ],
)
def test_arguments_of_other_packages(
    function: Callable[..., object], given: dict[str, Any], said: str
) -> None:
    with pytest.raises(bg.OptionError, match=said):
        function("Reaction ~ Days + (1|Subject)", SLEEP, **given)
    assert "formula" in inspect.signature(function).parameters


def test_formula_and_data_in_the_wrong_order() -> None:
    with pytest.raises(bg.FormulaError, match="not DataFrame; it comes first, then the data"):
        bg.lmer(SLEEP, "Reaction ~ Days + (1|Subject)")  # type: ignore[arg-type]
