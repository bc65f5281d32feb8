"""Each wrong call gets an error of the right type that names the argument and the remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

import bayesglmm as bg
from bayesglmm.errors import FittedExactly

# Degenerate fits are the point here, and warn.
pytestmark = pytest.mark.filterwarnings("ignore::bayesglmm.errors.BayesglmmWarning")

DATA = pl.DataFrame(
    {
        "y": [1.5, 2.0, 3.5, 2.5, 5.0, 4.0, 6.5, 6.0, 5.5, 8.0, 7.0, 9.5],
        "x": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0],
        "n": [0, 1, 3, 1, 2, 4, 2, 5, 3, 6, 4, 7],
        "b": [0, 0, 1, 0, 1, 0, 1, 1, 0, 1, 1, 1],
        "size": [9] * 12,
        "half": [0.5] * 12,
        "minus": [-1, 2, 3, 1, 2, 4, 2, 5, 3, 6, 4, 7],
        "colour": list("abcabcabcabc"),
        "two": ["no", "yes"] * 6,
        "g": list("uuuvvvwwwzzz"),
        "h": list("uvuvuvuvuvuv"),
        "one": ["only"] * 12,
        "gone": [None] * 12,
        "hole": [None, 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5],
        "inf": [float("inf"), *map(float, range(11))],
        "w0": [0.0] * 12,
        "wneg": [-1.0] + [1.0] * 11,
    },
    schema_overrides={"gone": pl.Float64, "hole": pl.Float64},
)


@cache
def linear() -> bg.Fit:
    return bg.lmer("y ~ x + colour + (1|g)", DATA).fit()


@cache
def binary() -> bg.Fit:
    return bg.glm("b ~ x", DATA, family="binomial").fit()


def m(formula: str, **arguments: Any) -> Callable[[], Any]:
    return lambda: bg.model(formula, DATA, **arguments)


def f(
    formula: str, method: Any = "ml", family: str = "gaussian", **options: Any
) -> Callable[[], Any]:
    return lambda: bg.model(formula, DATA, family=family).fit(method, **options)


MODELS: list[tuple[str, Callable[[], Any], type[Exception], tuple[str, ...]]] = [
    ("column", m("y ~ xx"), bg.DataError, ("'xx'", "'x'", "^")),
    ("response", m("z ~ x"), bg.DataError, ("'z'",)),
    ("group", m("y ~ x + (1|gg)"), bg.DataError, ("'gg'", "'g'", "^")),
    ("slope", m("y ~ x + (xx|g)"), bg.DataError, ("'xx'", "'x'")),
    ("function", m("y ~ lgo(x)"), bg.FormulaError, ("lgo()", "'log'", "^")),
    ("bracket", m("y ~ x + (1|g"), bg.FormulaError, ("never closed", "^")),
    ("closing", m("y ~ x) + (1|g)"), bg.FormulaError, ("^",)),
    ("no tilde", m("y"), bg.FormulaError, ("~",)),
    ("empty formula", m(""), bg.FormulaError, ()),
    ("family", m("y ~ x", family="gausian"), bg.ChoiceError, ("family='gausian'", "'gaussian'")),
    (
        "link",
        m("b ~ x", family="binomial", link="probti"),
        bg.ChoiceError,
        ("link='probti'", "'probit'"),
    ),
    (
        "link of family",
        m("n ~ x", family="poisson", link="logit"),
        bg.ChoiceError,
        ("link='logit'", "'poisson'", "'log'"),
    ),
    ("missing", m("y ~ x", missing="dorp"), bg.ChoiceError, ("missing='dorp'", "'drop'")),
    ("weights column", m("y ~ x", weights="ww"), bg.DataError, ("weights", "'ww'")),
    ("weights length", m("y ~ x", weights=[1.0, 2.0]), bg.DataError, ("weights", "2", "12")),
    ("weights type", m("y ~ x", weights=object()), bg.DataError, ("weights", "column name")),
    ("weights zero", m("y ~ x", weights="w0"), bg.DataError, ("weight", "zero")),
    ("weights negative", m("y ~ x", weights="wneg"), bg.DataError, ("weights", "row 0", "-1")),
    (
        "contrasts unused",
        m("y ~ colour", contrasts={"two": "sum"}),
        bg.DataError,
        ("contrasts", "'two'", "does not use", "'colour'"),
    ),
    (
        "contrasts of a group",
        m("y ~ colour + (1|g)", contrasts={"g": "sum"}),
        bg.DataError,
        ("contrasts", "'g'", "only groups by", "'colour'"),
    ),
    ("offset column", m("y ~ x", offset="siez"), bg.DataError, ("offset", "'siez'", "'size'")),
    (
        "trials column",
        m("n ~ x", family="binomial", trials="sise"),
        bg.DataError,
        ("trials", "'size'"),
    ),
    (
        "trials family",
        m("n ~ x", family="poisson", trials="size"),
        bg.DataError,
        ("trials", "'poisson'", "'binomial'"),
    ),
    ("trials too few", m("size ~ x", family="binomial", trials="n"), bg.DataError, ("trials",)),
    (
        "contrasts column",
        m("y ~ colour", contrasts={"color": "sum"}),
        bg.DataError,
        ("contrasts", "'color'", "'colour'"),
    ),
    (
        "contrasts name",
        m("y ~ colour", contrasts={"colour": "smu"}),
        bg.ChoiceError,
        ("'smu'", "'sum'"),
    ),
    ("factors column", m("y ~ x", factors=["xx"]), bg.DataError, ("factors", "'xx'")),
    ("0/1 outside", m("n ~ x", family="binomial"), bg.DataError, ("'n'", "'binomial'", "trials=")),
    (
        "half a success",
        m("half ~ x", family="binomial"),
        bg.DataError,
        ("'half'", "0.5", "whole number"),
    ),
    ("bernoulli", m("half ~ x", family="bernoulli"), bg.DataError, ("'half'", "0.5", "'binomial'")),
    ("negative count", m("minus ~ x", family="poisson"), bg.DataError, ("'minus'", "-1", "counts")),
    ("fraction", m("y ~ x", family="poisson"), bg.DataError, ("'y'", "1.5", "offset=log")),
    ("text response", m("two ~ x"), bg.DataError, ("'two'", "not numeric", "family='binomial'")),
    ("three levels", m("colour ~ x", family="binomial"), bg.DataError, ("'colour'", "3 levels")),
    (
        "constant, mixed",
        m("size ~ x + (1|g)", family="poisson"),
        bg.DataError,
        ("'size' is constant (9)", "random effects"),
    ),
    ("weights infinite", m("y ~ x", weights="inf"), bg.DataError, ("'inf'", "with inf")),
    (
        "weights infinite values",
        m("y ~ x", weights=[float("inf"), *[1.0] * 11]),
        bg.DataError,
        ("weights", "row 0", "inf"),
    ),
    (
        "weights missing",
        m("y ~ x", weights=[1.0, float("nan"), *[1.0] * 10]),
        bg.DataError,
        ("weights", "missing", "row 1"),
    ),
    ("one level", m("y ~ x + (1|one)"), bg.DataError, ("'one'", "one level", "(1|one)")),
    ("all missing", m("y ~ gone"), bg.DataError, ("every row", "gone (12)")),
    (
        "missing refused",
        m("y ~ hole", missing="error"),
        bg.DataError,
        ("hole (1)", "missing='drop'"),
    ),
    ("infinite", m("y ~ inf"), bg.DataError, ("'inf'", "infinite")),
    ("infinite response", m("inf ~ x"), bg.DataError, ("inf", "infinite")),
    ("infinite by function", m("log(n) ~ x"), bg.DataError, ("log(n)", "infinite")),
    ("lm with bars", lambda: bg.lm("y ~ x + (1|g)", DATA), bg.ChoiceError, ("lm:", "lmer()")),
    ("lmer without", lambda: bg.lmer("y ~ x", DATA), bg.ChoiceError, ("lmer:", "lm()", "(1|g)")),
    (
        "glm with bars",
        lambda: bg.glm("b ~ x + (1|g)", DATA, family="binomial"),
        bg.ChoiceError,
        ("glm:", "glmer()"),
    ),
    (
        "glmer without",
        lambda: bg.glmer("b ~ x", DATA, family="binomial"),
        bg.ChoiceError,
        ("glmer:", "glm()"),
    ),
    ("no frame", lambda: bg.model("y ~ x", 3), bg.DataError, ("int",)),
    ("no rows", lambda: bg.model("y ~ x", DATA.clear()), bg.DataError, ("row",)),
    ("no rows, group", lambda: bg.lmer("y ~ x + (1|g)", DATA.clear()), bg.DataError, ("row",)),
    ("ragged", lambda: bg.model("y ~ x", {"y": [1.0, 2.0], "x": [1.0]}), bg.DataError, ()),
    (
        "dataset",
        lambda: bg.load_dataset("sleepstudi"),
        bg.ChoiceError,
        ("'sleepstudi'", "'sleepstudy'"),
    ),
    ("priors", m("y ~ x", priors={"X": bg.Normal(0, 1)}), bg.ChoiceError, ("priors['X']", "'x'")),
    (
        "priors support",
        m("y ~ x", priors={"sigma": bg.Normal(0, 1)}),
        bg.ChoiceError,
        ("'sigma'", "bg.HalfNormal"),
    ),
]

FITS: list[tuple[str, Callable[[], Any], type[Exception], tuple[str, ...]]] = [
    ("method", f("y ~ x", "mcmc"), bg.ChoiceError, ("method='mcmc'", "'nuts'")),
    ("method near", f("y ~ x", "nutz"), bg.ChoiceError, ("did you mean 'nuts'",)),
    ("method type", f("y ~ x", 3), bg.OptionError, ("int", "bg.ML")),
    (
        "option",
        f("b ~ x", "ml", "binomial", nagc=3),
        bg.OptionError,
        ("'nagc'", "did you mean 'nagq'"),
    ),
    (
        "nuts option",
        f("y ~ x", "nuts", draw=10),
        bg.OptionError,
        ("'draw'", "did you mean 'draws'"),
    ),
    (
        "brms option",
        f("y ~ x", "nuts", warmup=10),
        bg.OptionError,
        ("'warmup'", "here it is tune="),
    ),
    ("lme4 option", f("y ~ x", "ml", nAGQ=9), bg.OptionError, ("'nAGQ'", "here it is nagq=")),
    ("beside value", f("y ~ x", bg.ML(), nagq=2), bg.OptionError, ("nagq", "ML(nagq=...)")),
    ("reml lm", f("y ~ x", "reml"), bg.ChoiceError, ("reml=True", "random effects")),
    (
        "reml glmm",
        f("n ~ x + (1|g)", "reml", "poisson"),
        bg.ChoiceError,
        ("reml=True", "'poisson'", "reml=False"),
    ),
    (
        "nagq terms",
        f("n ~ x + (1|g) + (1|h)", "ml", "poisson", nagq=5),
        bg.ChoiceError,
        ("nagq", "g (1", "h (1", "nagq=1"),
    ),
    (
        "nagq slopes",
        f("n ~ x + (x + I(x^2) + I(x^3)|g)", "ml", "poisson", nagq=5),
        bg.ChoiceError,
        ("nagq", "4 column", "three columns", "nagq=1"),
    ),
    ("nagq lmm", f("y ~ x + (1|g)", "ml", nagq=5), bg.ChoiceError, ("nagq", "exact", "nagq=1")),
    ("nagq glm", f("n ~ x", "ml", "poisson", nagq=5), bg.ChoiceError, ("nagq", "nagq=1")),
    (
        "nagq negative",
        f("n ~ x + (1|g)", "ml", "poisson", nagq=-1),
        bg.ChoiceError,
        ("nagq=-1", "whole number"),
    ),
    ("nagq float", lambda: bg.ML(nagq=2.5), bg.ChoiceError, ("nagq=2.5",)),  # type: ignore[arg-type]
    ("nagq bool", lambda: bg.ML(nagq=True), bg.ChoiceError, ("nagq=True",)),
    ("vcov", lambda: bg.ML(vcov="hesian"), bg.ChoiceError, ("vcov='hesian'", "'hessian'")),  # type: ignore[arg-type]
    ("df", lambda: bg.ML(df="kenward"), bg.ChoiceError, ("df='kenward'", "'satterthwaite'")),  # type: ignore[arg-type]
    (
        "row effects",
        lambda: bg.lmer("y ~ x + (1|r)", DATA.with_row_index("r"), factors=["r"]).fit(),
        bg.FitError,
        ("residual", "remove"),
    ),
    (
        "huge",
        lambda: bg.lm("y ~ x", DATA.with_columns(pl.col("y") * 3e44)),
        bg.DataError,
        ("response 'y'", "between 1e-40 and 1e+40", "unit"),
    ),
    ("tiny", lambda: bg.lm("y ~ x", DATA.with_columns(pl.col("y") * 1e-150)), bg.DataError, ("y",)),
    ("constant", f("size ~ x"), bg.FitError, ("'size' is constant (9)", "residual variance")),
    (
        "slopes",
        f("y ~ x + (x|h) + (colour|g)"),
        bg.FitError,
        ("'g' has 12 random effects (4 levels x 3 columns) for 12 rows", "slopes", 'fit("nuts")'),
    ),
    (
        "saturated",
        lambda: bg.lm("y ~ x", DATA[:2]).fit(),
        bg.FitError,
        ("2 coefficients", "fewer terms"),
    ),
    (
        "exact",
        lambda: bg.lm("x ~ twice", DATA.with_columns(twice=pl.col("x") * 2)).fit(),
        FittedExactly,
        ("exactly",),
    ),
    ("draws", lambda: bg.NUTS(draws=0), bg.ChoiceError, ("draws=0", "at least 4")),
    ("few draws", lambda: bg.NUTS(draws=2), bg.ChoiceError, ("draws=2", "4")),
    ("tune", lambda: bg.NUTS(tune=-1), bg.ChoiceError, ("tune=-1",)),
    ("chains", lambda: bg.NUTS(chains=1.5), bg.ChoiceError, ("chains=1.5",)),  # type: ignore[arg-type]
    ("accept", lambda: bg.NUTS(target_accept=1.0), bg.ChoiceError, ("target_accept=1.0", "0.95")),
    (
        "accept word",
        lambda: bg.NUTS(target_accept="high"),  # type: ignore[arg-type]
        bg.ChoiceError,
        ("target_accept='high'", "0.95"),
    ),
    (
        "accept nan",
        lambda: bg.NUTS(target_accept=float("nan")),
        bg.ChoiceError,
        ("target_accept=nan",),
    ),
    ("seed", lambda: bg.NUTS(seed=-3), bg.ChoiceError, ("seed=-3", "None")),
    ("cores", lambda: bg.NUTS(cores=0), bg.ChoiceError, ("cores=0",)),
    ("sampler", lambda: bg.NUTS(sampler="nutpy"), bg.ChoiceError, ("sampler='nutpy'", "'nutpie'")),  # type: ignore[arg-type]
    ("centred", lambda: bg.NUTS(centred="autom"), bg.ChoiceError, ("centred='autom'", "'auto'")),  # type: ignore[arg-type]
]

AFTER: list[tuple[str, Callable[[], Any], type[Exception], tuple[str, ...]]] = [
    ("specs", lambda: linear().emmeans("color"), bg.ChoiceError, ("specs='color'", "'colour'")),
    (
        "group",
        lambda: linear().emmeans("g"),
        bg.ChoiceError,
        ("specs='g'", "groups random effects", "ranef"),
    ),
    ("no specs", lambda: linear().emmeans(""), bg.ChoiceError, ("specs", "empty")),
    ("by", lambda: linear().emmeans("colour", by="z"), bg.ChoiceError, ("by='z'", "'x'")),
    ("at name", lambda: linear().emmeans("colour", at={"X": 1}), bg.ChoiceError, ("at='X'", "'x'")),
    (
        "at level",
        lambda: linear().emmeans("colour", at={"colour": "d"}),
        bg.DataError,
        ("at['colour']", "'d'", "'a', 'b', 'c'"),
    ),
    (
        "at text",
        lambda: linear().emmeans("colour", at={"x": "low"}),
        bg.DataError,
        ("at['x']", "'low'", "numbers"),
    ),
    (
        "contrasts",
        lambda: linear().emmeans("colour", contrasts="pairwize"),
        bg.ChoiceError,
        ("contrasts='pairwize'", "'pairwise'"),
    ),
    (
        "weights",
        lambda: linear().emmeans("colour", contrasts={"d": [1, -1]}),
        bg.DataError,
        ("contrasts['d']", "2 weight", "3 means", "a, b, c"),
    ),
    (
        "weights nan",
        lambda: linear().emmeans("colour", contrasts={"d": [1, -1, float("nan")]}),
        bg.DataError,
        ("contrasts['d']", "finite"),
    ),
    (
        "weights 0",
        lambda: linear().emmeans("colour", contrasts={"d": [0, 0, 0]}),
        bg.DataError,
        ("not all 0",),
    ),
    (
        "no contrasts",
        lambda: linear().emmeans("colour", contrasts={}),
        bg.ChoiceError,
        ("contrasts", "empty"),
    ),
    (
        "one mean",
        lambda: linear().emmeans("colour", at={"colour": "a"}, contrasts="pairwise"),
        bg.ChoiceError,
        ("pairwise", "two means"),
    ),
    (
        "type",
        lambda: cast(Any, linear()).emmeans("colour", type="respons"),
        bg.ChoiceError,
        ("type='respons'", "'response'"),
    ),
    (
        "adjust",
        lambda: linear().emmeans("colour", adjust="tuckey"),
        bg.ChoiceError,
        ("adjust='tuckey'", "'tukey'"),
    ),
    ("level", lambda: linear().emmeans("colour", level=95), bg.ChoiceError, ("level=95", "0.95")),
    (
        "trend of factor",
        lambda: bg.emtrends(linear(), "colour"),
        bg.ChoiceError,
        ("'colour'", "factor", "emmeans"),
    ),
    ("trend of what", lambda: bg.emtrends(linear(), "xx"), bg.ChoiceError, ("'xx'", "'x'")),
    (
        "predict group",
        lambda: linear().predict({"x": [1.0, 2.0], "colour": ["a", "b"], "g": ["u", "new"]}),
        bg.DataError,
        ("row 1", "'g'", 're="zero"'),
    ),
    (
        "predict level",
        lambda: linear().predict({"x": [1.0], "colour": ["d"], "g": ["u"]}),
        bg.DataError,
        ("'colour'", "'d'"),
    ),
    (
        "predict column",
        lambda: linear().predict({"colour": ["a"], "g": ["u"]}),
        bg.DataError,
        ("'x'",),
    ),
    ("predict re", lambda: linear().predict(re="none"), bg.ChoiceError, ("re='none'", "'zero'")),  # type: ignore[arg-type]
    (
        "predict type",
        lambda: cast(Any, linear()).predict(type="mean"),
        bg.ChoiceError,
        ("type='mean'", "'response'"),
    ),
    ("summary level", lambda: linear().summary(level=1.0), bg.ChoiceError, ("level=1.0",)),
    ("ranef", lambda: binary().ranef, bg.ChoiceError, ("ranef", "params")),
    ("coef", lambda: binary().coef, bg.ChoiceError, ("coef", "params")),
    ("arviz", lambda: binary().to_arviz(), bg.ChoiceError, ("to_arviz", 'fit("nuts")')),
    ("diagnostics", lambda: binary().diagnostics, bg.ChoiceError, ("diagnostics", 'fit("nuts")')),
    ("compare one", lambda: bg.compare(linear()), bg.ChoiceError, ("two fits", "1")),
    (
        "compare others",
        lambda: bg.compare(linear(), binary()),
        bg.ChoiceError,
        ("'b ~ x'", "different parameters"),
    ),
]

EVERY = [
    pytest.param(*case[1:], id=f"{part}-{case[0]}")
    for part, cases in (("model", MODELS), ("fit", FITS), ("after", AFTER))
    for case in cases
]
FAMILY = {
    bg.FormulaError: ValueError,
    bg.DataError: ValueError,
    bg.ChoiceError: ValueError,
    bg.OptionError: TypeError,
    bg.FitError: RuntimeError,
    FittedExactly: bg.FitError,
}


@pytest.mark.parametrize(("call", "error", "parts"), EVERY)
def test_wrong_call(
    call: Callable[[], Any], error: type[Exception], parts: tuple[str, ...]
) -> None:
    before = DATA.clone()
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is error
    assert isinstance(caught.value, bg.BayesglmmError) and isinstance(caught.value, FAMILY[error])
    for part in parts:
        assert part in message, f"{part!r} is not in {message!r}"
    assert not re.search(r"Traceback|<[a-z]+ object| at 0x", message)
    assert DATA.equals(before)


@pytest.mark.parametrize("kind", ["polars", "pandas", "dict", "arrays"])
def test_data_are_never_changed(kind: str) -> None:
    columns = ["y", "x", "n", "size", "colour", "g", "hole"]
    data: Any = DATA.select(columns)
    if kind == "pandas":
        data = data.to_pandas()
    elif kind == "dict":
        data = data.to_dict(as_series=False)
    elif kind == "arrays":
        data = {name: data[name].to_numpy().copy() for name in columns}
    import copy

    before = copy.deepcopy(data)
    w: Any = np.linspace(1.0, 2.0, 12)
    kept = w.copy()
    fit = bg.lmer(
        "y ~ scale(x) + colour + hole + (1|g)", data, weights=w, contrasts={"colour": "sum"}
    ).fit()
    fit.emmeans("colour")
    fit.predict(data)
    bg.glm("n ~ x", data, family="binomial", trials="size").fit().predict()
    assert np.array_equal(w, kept)
    if kind == "polars":
        assert data.equals(before)
    elif kind == "pandas":
        assert data.equals(before) and list(data.columns) == columns
    else:
        for name in columns:
            assert [str(v) for v in data[name]] == [str(v) for v in before[name]]


def test_unknown_keywords_are_type_errors() -> None:
    with pytest.raises(TypeError):
        bg.model("y ~ x", DATA, familly="gaussian")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        bg.ML(nagc=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        bg.NUTS(draw=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        linear().emmeans("colour", adjustment="none")  # type: ignore[call-arg]


def test_results_cannot_be_overwritten() -> None:
    fit = linear()
    with pytest.raises(AttributeError):
        fit.model = fit.model  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        fit.model.design.X[0, 0] = 9.0
