"""A fit that was saved and loaded gives the same numbers, to the last bit."""

from __future__ import annotations

import datetime
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import bayesglmm as bg
from bayesglmm.laplace.estimate import Estimate
from bayesglmm.posterior.ml import MLPosterior

RNG = np.random.default_rng(11)
N = 120
G = RNG.integers(0, 10, N)
DATA = pl.DataFrame(
    {
        "x": RNG.normal(size=N),
        "z.1": RNG.normal(3.0, 2.0, size=N),
        "year": RNG.integers(1995, 1998, N),
        "f": RNG.choice(["low", "mid", "high"], N),
        "b": RNG.choice([True, False], N),
        "day": [datetime.date(2024, 1, 1 + int(k)) for k in RNG.integers(0, 3, N)],
        "g": [f"gé{k}" for k in G],
        "h": [f"h{k // 3}" for k in G],
        "i": RNG.integers(0, 6, N),
        "size": RNG.integers(4, 9, N),
        "w": RNG.integers(0, 3, N),
        "exposure": RNG.uniform(0.5, 2.0, N),
    }
).with_columns(
    y=pl.col("x") * 0.5 + pl.Series(RNG.normal(size=10)[G] + RNG.normal(size=N)),
    k=pl.Series(RNG.poisson(np.exp(0.5 + 0.3 * RNG.normal(size=10)[G]))),
    s=pl.Series(RNG.integers(0, 5, N)),
    twice=2 * pl.col("x") - 1,
    use=pl.Series(np.where(RNG.uniform(size=N) < 0.4 + 0.03 * G, "yes", "no")),
    grade=pl.col("f").cast(pl.Enum(["low", "mid", "high", "never"])),
    cat=pl.col("f").cast(pl.Categorical),
)
HOLES = DATA.with_columns(
    x=pl.when(pl.int_range(pl.len()) % 17 == 3).then(None).otherwise(pl.col("x"))
)
MIXED_ORDER = pd.DataFrame(
    {
        "y": DATA["y"].to_list(),
        "g": DATA["g"].to_list(),
        "dose": pd.Categorical(DATA["f"].to_list(), ["low", "mid", "high"], ordered=True),
    }
)
LEVELS = [f"gé{k}" for k in RNG.permutation(10)]
WEIGHTS = RNG.uniform(0.5, 2.0, N)
SAID = "ignore:.*:bayesglmm.errors.BayesglmmWarning"

MODELS: dict[str, tuple[str, Any, dict[str, Any], dict[str, Any]]] = {
    "lm": ("y ~ x + f", DATA, {}, {}),
    "lm without intercept": ("y ~ 0 + f", DATA, {}, {}),
    "reml": ("y ~ x + (x|g)", DATA, {}, {"reml": True}),
    "kenward-roger": ("y ~ x + (1|g)", DATA, {}, {"reml": True, "df": "kenward-roger"}),
    "ml, nested": ("y ~ x * b + (1|h/g)", DATA, {}, {}),
    "crossed, uncorrelated": ("y ~ x + (x||g) + (1|i)", DATA, {}, {}),
    "dropped rows": ("y ~ x + (1|g)", HOLES, {}, {}),
    "weights": ("y ~ x + (1|g)", DATA, {"weights": "w"}, {}),
    "weights as an array": ("y ~ x + (1|g)", HOLES, {"weights": WEIGHTS}, {}),
    "offset in the formula": (
        "k ~ x + offset(log(exposure)) + (1|g)",
        DATA,
        {"family": "poisson"},
        {},
    ),
    "offset": ("k ~ x + (1|g)", HOLES, {"family": "poisson", "offset": "exposure"}, {}),
    "offset as an array": (
        "k ~ x + offset(log(exposure)) + (1|g)",
        HOLES,
        {"family": "poisson", "offset": WEIGHTS},
        {},
    ),
    "trials": ("s ~ x + (1|g)", DATA, {"family": "binomial", "trials": "size"}, {}),
    "trials as an array": (
        "s ~ x + (1|g)",
        HOLES,
        {"family": "binomial", "trials": DATA["size"].to_numpy()},
        {},
    ),
    "cbind": ("cbind(s, size - s) ~ x + (1|g)", DATA, {"family": "binomial"}, {"nagq": 7}),
    "two levels": ("use ~ x + b + (1|g)", DATA, {"family": "bernoulli", "link": "probit"}, {}),
    "success first": (
        "use ~ x + (1|g)",
        DATA,
        {"family": "binomial", "factors": {"use": ["yes", "no"], "g": ["unused", *LEVELS]}},
        {},
    ),
    "coding of a slope": (
        "y ~ x + (0 + grade|i)",
        DATA,
        {"contrasts": {"grade": "sdif"}, "factors": {"i": [5, 3, 1, 0, 2, 4]}},
        {},
    ),
    "rank-deficient": ("y ~ x + twice + f + (1|g)", DATA, {}, {}),
    "codings": (
        "y ~ f + C(year, helmert) + (f|h)",
        DATA,
        {"contrasts": {"f": {"up": [1, -1, 0]}}},
        {"reml": True},
    ),
    "coding record": ("y ~ f + (1|g)", DATA, {"contrasts": {"f": bg.Treatment("mid")}}, {}),
    "coding class": ("y ~ f + (1|g)", DATA, {"contrasts": {"f": "contr.sum"}}, {}),
    "levels in an order": ("y ~ f + (1|g)", DATA, {"factors": {"f": ["mid", "low", "high"]}}, {}),
    "numbers as factors": ("y ~ year + (1|i)", DATA, {"factors": ["year", "i", "size"]}, {}),
    "a number twice": ("y ~ C(year) + x + (year|i)", DATA, {}, {"nagq": 1}),
    "enum": ("y ~ grade + cat + (1|g)", DATA, {}, {}),
    "ordered": ("y ~ dose + (1|g)", MIXED_ORDER, {}, {}),
    "dates": ("y ~ x + C(day) + (1|g)", DATA, {}, {}),
    "splines": ("y ~ bs(x, df=4) + poly(`z.1`, 2) + center(exposure) + (1|g)", HOLES, {}, {}),
    "expressions": ("log(exposure) ~ I(x > 0) + scale(`z.1`) + I(x^2) + (1|g)", DATA, {}, {}),
    "priors": (
        "y ~ x + (x|g)",
        DATA,
        {"priors": {"x": bg.Normal(0, 1), "sd:g": bg.Exponential(2), "corr:g": bg.LKJ(3.5)}},
        {},
    ),
    "flat priors": ("y ~ x", DATA, {"priors": "flat"}, {}),
}


@cache
def made(name: str) -> bg.Fit:
    formula, data, options, fit = MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bg.BayesglmmWarning)
        return bg.model(formula, data, **options).fit("ml", **fit)


def equal(a: Any, b: Any) -> bool:
    """To the last bit, types and memory order of arrays too."""
    if isinstance(a, np.ndarray):
        same = (
            a.dtype == b.dtype
            and a.shape == b.shape
            and a.flags.f_contiguous == b.flags.f_contiguous
        )
        return bool(same and np.asarray(a).tobytes() == np.asarray(b).tobytes())
    if isinstance(a, pl.DataFrame):
        return bool(a.equals(b)) and getattr(a, "caption", "") == getattr(b, "caption", "")
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return bool(type(a) is type(b) and (a == b or a != a))


QUESTIONS: dict[str, Callable[[bg.Fit], Any]] = {
    "params": lambda f: f.params,
    "ranef": lambda f: f.ranef,
    "coef": lambda f: f.coef,
    "varcorr": lambda f: f.varcorr,
    "statistics": lambda f: f.statistics,
    "vcov": lambda f: f.vcov,
    "loglik": lambda f: f.loglik,
    "summary": lambda f: f.summary().text(),
    "predict": lambda f: f.predict(),
    "predict typical": lambda f: f.predict(re="zero", type="link"),
    "residuals": lambda f: f.residuals(),
    "anova": lambda f: f.anova(test="wald"),
    "simulate": lambda f: f.simulate(2, seed=3),
    "hatvalues": lambda f: bg.hatvalues(f),
    "priors": lambda f: f.model.prior_table,
    "repr": lambda f: repr(f.model),
}


def answers(fit: bg.Fit) -> dict[str, Any]:
    """Everything a fit says, its refusals too."""
    out = {}
    for name, ask in QUESTIONS.items():
        try:
            out[name] = ask(fit)
        except bg.BayesglmmError as refusal:
            out[name] = str(refusal)
    return out


def check_same(fit: bg.Fit, again: bg.Fit) -> None:
    a, b = answers(fit), answers(again)
    for name in a:
        assert equal(a[name], b[name]), name
    assert again.estimator == fit.estimator
    assert again.model.priors == fit.model.priors
    assert again.model.family is fit.model.family
    old, new = fit.model.design, again.model.design
    for name in ("X", "y", "trials", "weights", "offset", "rows", "names", "total_weights"):
        assert equal(getattr(old, name), getattr(new, name)), name
    assert (old.n_rows, old.weightless, old.offset_given) == (
        new.n_rows,
        new.weightless,
        new.offset_given,
    )
    assert equal(dict(old.fixed.factors), dict(new.fixed.factors))
    assert equal(dict(old.fixed.covariate_means), dict(new.fixed.covariate_means))
    assert dict(old.fixed.codings) == dict(new.fixed.codings)
    if isinstance(fit.posterior, MLPosterior) and isinstance(again.posterior, MLPosterior):
        check_estimate(fit.posterior.estimate, again.posterior.estimate)


def check_estimate(a: Estimate, b: Estimate) -> None:
    for name in a.__dataclass_fields__:
        if name == "factor" and a.factor is not None and b.factor is not None:
            assert equal(a.factor.H, b.factor.H) and equal(a.factor.lam, b.factor.lam)
            assert equal(np.tril(a.factor.S), b.factor.S)
            assert a.factor.structure.order == b.factor.structure.order
            assert equal(a.factor.structure.slots, b.factor.structure.slots)
        else:
            assert equal(getattr(a, name), getattr(b, name)), name


@pytest.mark.parametrize("name", MODELS)
def test_every_number_comes_back(name: str, tmp_path: Path) -> None:
    fit = made(name)
    path = fit.save(tmp_path / "a fit.any-name")
    again = bg.load(path)  # warnings are errors here
    check_same(fit, again)
    assert equal(
        dict(vars(again.model.design))["data"].columns, list(fit.model.design.columns_used)
    )


@pytest.mark.parametrize("name", MODELS)
def test_without_data_the_callers_data_serve(name: str, tmp_path: Path) -> None:
    fit, data = made(name), MODELS[name][1]
    path = bg.save(fit, tmp_path / "fit.bglmm", data=False)
    check_same(fit, bg.load(path, data=data))
    if fit.model.design.dropped:  # or the rows used
        check_same(fit, bg.load(path, data=fit.model.design.data))


def test_new_data_get_the_columns_of_the_fit(tmp_path: Path) -> None:
    for name in ("splines", "codings", "expressions", "numbers as factors", "ordered"):
        fit, data = made(name), MODELS[name][1]
        again = bg.load(fit.save(tmp_path / f"{name}.bglmm"))
        few = (data if isinstance(data, pl.DataFrame) else pl.from_pandas(data))[5:40:3]
        assert equal(fit.predict(few), again.predict(few))
    with pytest.raises(bg.DataError, match="holds the level 'new'"):
        again.predict({"dose": ["new"], "g": ["gé1"]})


@pytest.mark.filterwarnings(SAID)
def test_what_needs_the_engine_again(tmp_path: Path) -> None:
    fit = made("reml")
    again = bg.load(fit.save(tmp_path / "fit.bglmm"))
    other = DATA["y"] + 0.1 * DATA["z.1"]
    assert equal(fit.refit(other).params, again.refit(other).params)
    assert equal(fit.confint("wald"), again.confint("wald"))
    assert equal(fit.drop1(), again.drop1())
    small, smaller = made("lm"), bg.lm("y ~ x", DATA).fit()
    loaded = bg.load(small.save(tmp_path / "lm.bglmm"))
    assert equal(small.anova(smaller), loaded.anova(smaller))
    assert equal(
        small.emmeans("f", contrasts="pairwise"), loaded.emmeans("f", contrasts="pairwise")
    )


def test_a_refit_keeps_its_response(tmp_path: Path) -> None:
    first = made("trials as an array")
    design = first.model.design
    fit = first.refit(np.minimum(design.y * design.trials + 1, design.trials))
    for data in (True, False):
        path = fit.save(tmp_path / f"{data}.bglmm", data=data)
        check_same(fit, bg.load(path, data=None if data else HOLES))


def test_saved_twice_is_saved_the_same(tmp_path: Path) -> None:
    fit = made("crossed, uncorrelated")
    again = bg.load(fit.save(tmp_path / "one.bglmm"))
    check_same(fit, bg.load(again.save(tmp_path / "two.bglmm")))


def test_a_link_is_followed_and_the_file_has_usual_rights(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    fit = made("lm")
    assert fit.save(tmp_path / "link").name == "file"
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "plain").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_data_may_come_from_another_frame_library(tmp_path: Path) -> None:
    fit = made("enum")
    path = fit.save(tmp_path / "fit.bglmm", data=False)
    text = DATA.with_columns(pl.col("grade", "cat").cast(pl.String), extra=pl.lit(1))
    frame = text.select(sorted(text.columns, reverse=True)).to_pandas()
    again = bg.load(path, data=frame)
    assert again.params["term"].to_list() == fit.params["term"].to_list()  # mid, high: as an Enum
    assert equal(again.params, fit.params) and equal(again.predict(), fit.predict())
    assert equal(
        bg.load(path, data=frame.astype({"y": "float64"}).to_dict("list")).ranef, fit.ranef
    )


def test_data_given_beside_those_in_the_file_bring_their_columns(tmp_path: Path) -> None:
    fit = bg.lmer("y ~ x + (1|g)", DATA).fit()
    path = fit.save(tmp_path / "fit.bglmm")
    assert bg.load(path).model.design.data.columns == ["y", "x", "g"]
    assert "year" in bg.load(path, data=DATA).model.design.data.columns


def test_another_process_without_the_heavy_libraries(tmp_path: Path) -> None:
    fit = made("reml")
    path = fit.save(tmp_path / "fit.bglmm")
    code = (
        "import sys, bayesglmm as bg\n"
        f"fit = bg.load({str(path)!r})\n"
        "heavy = {'xarray', 'zarr', 'arviz', 'pymc', 'pytensor', 'nutpie', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert fit.save(sys.argv[1]).exists()\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "sys.stdout.buffer.write(fit.params['estimate'].to_numpy().tobytes())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "again.bglmm")], capture_output=True, check=True
    )
    assert done.stdout == fit.params["estimate"].to_numpy().tobytes()
    check_same(fit, bg.load(tmp_path / "again.bglmm"))
