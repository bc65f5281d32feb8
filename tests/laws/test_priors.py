"""Laws of every prior, and choosing priors by name."""

from __future__ import annotations

import inspect
import math
import pickle
import re
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
from scipy import integrate

import bayesglmm as bg
from bayesglmm.priors import prior as records
from bayesglmm.priors.prior import LKJ, Prior

EXAMPLES: dict[str, Prior] = {
    "Normal": bg.Normal(0.7, 2.0),
    "StudentT": bg.StudentT(4.0, -0.5, 1.5),
    "Cauchy": bg.Cauchy(0.3, 2.0),
    "Flat": bg.Flat(),
    "HalfFlat": bg.HalfFlat(),
    "HalfNormal": bg.HalfNormal(1.7),
    "HalfStudentT": bg.HalfStudentT(3.0, 2.5),
    "HalfCauchy": bg.HalfCauchy(1.3),
    "Exponential": bg.Exponential(0.6),
    "Gamma": bg.Gamma(2.5, 1.4),
}
X = np.array([-3.0, -0.4, 0.2, 1.0, 3.7, 12.0])
DATA = pl.DataFrame(
    {
        "y": [1.0, 3.0, 2.0, 5.0, 4.0, 7.0, 5.5, 6.0],
        "x": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 9.0],
        "f": list("abcabcab"),
        "g": list("uuvvwwuv"),
        "n": [0, 1, 2, 1, 3, 0, 5, 2],
        "b": [0, 1, 1, 0, 1, 1, 1, 0],
    }
)


def test_every_prior_has_an_example() -> None:
    found = {
        name
        for name, value in vars(records).items()
        if inspect.isclass(value) and issubclass(value, Prior) and value is not Prior
    }
    assert found == {*EXAMPLES, "LKJ"}
    assert found <= set(bg.__all__)


@pytest.mark.parametrize("name", EXAMPLES)
def test_pymc_says_the_same(name: str) -> None:
    import pymc as pm

    prior = EXAMPLES[name]
    with pm.Model(coords={"k": np.arange(3)}) as model:
        variable = prior.pymc("v", ("k",))
        assert prior.pymc("w").ndim == 0
    assert model.named_vars_to_dims["v"] == ("k",)
    # A positive point has positive density everywhere; beyond the support it is zero.
    for dist in (variable, prior.pymc_dist(len(X))):
        points = X[:3] if dist is variable else X
        value = pm.logp(dist, points).eval(mode="FAST_COMPILE")
        # PyTensor stores PyMC's constants, such as sqrt(2 pi), in single precision here.
        np.testing.assert_allclose(value, prior.log_density(points), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", EXAMPLES)
def test_support(name: str) -> None:
    prior = EXAMPLES[name]
    with np.errstate(all="raise"):
        value = prior.log_density(X)
    assert value.shape == X.shape
    assert prior.support in ("real", "positive")
    inside = (X > 0) | (prior.support == "real")
    assert np.all(np.isfinite(value[inside]))
    assert np.all(value[~inside] == -np.inf)


@pytest.mark.parametrize("name", [n for n in EXAMPLES if "Flat" not in n])
def test_integrates_to_one(name: str) -> None:
    prior = EXAMPLES[name]

    def density(x: float) -> float:
        return math.exp(float(prior.log_density(np.array(x))))

    area = sum(
        integrate.quad(density, low, high, epsabs=1e-12)[0]
        for low, high in ((-np.inf, 0.0), (0.0, 1.0), (1.0, np.inf))
    )
    assert area == pytest.approx(1.0, abs=1e-9)


def test_flat_priors_say_nothing() -> None:
    assert np.all(bg.Flat().log_density(X) == 0.0)
    assert np.all(bg.HalfFlat().log_density(X[X > 0]) == 0.0)


@pytest.mark.parametrize("eta", [0.5, 1.0, 2.0, 4.0])
def test_lkj(eta: float) -> None:
    import pymc as pm

    def matrix(r: float, s: float, t: float) -> np.ndarray:
        return np.array([[1, r, s], [r, 1, t], [s, t, 1]])

    prior = LKJ(eta)
    points = [matrix(0.1, -0.2, 0.3), matrix(0.6, 0.5, -0.2), matrix(0.0, 0.0, 0.0)]
    mine = np.array([float(prior.log_density(R)) for R in points])
    theirs = []
    for R in points:
        L = np.linalg.cholesky(R)
        # PyMC's LKJCorr is a distribution of the Cholesky factor L. The density of R is that of
        # L divided by |dR/dL| = prod_i L_ii^(n - i), i from 1.
        value = float(pm.logp(pm.LKJCorr.dist(n=3, eta=eta), L).eval(mode="FAST_COMPILE"))
        theirs.append(value - float(np.log(np.diag(L)) @ [2.0, 1.0, 0.0]))
    # Ours lacks the normalising constant.
    np.testing.assert_allclose(np.diff(mine), np.diff(theirs), rtol=1e-9, atol=1e-10)
    with pytest.raises(bg.ChoiceError, match="eta"):
        LKJ(0.0)


POSITIVE = {
    "Normal": ("sd",),
    "StudentT": ("df", "scale"),
    "Cauchy": ("scale",),
    "HalfNormal": ("sd",),
    "HalfStudentT": ("df", "scale"),
    "HalfCauchy": ("scale",),
    "Exponential": ("rate",),
    "Gamma": ("shape", "rate"),
    "LKJ": ("eta",),
}


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, "1", None, True])
@pytest.mark.parametrize(("name", "field"), [(n, f) for n, fs in POSITIVE.items() for f in fs])
def test_refuses_what_is_not_positive(name: str, field: str, value: Any) -> None:
    record = getattr(bg, name)
    good = dict.fromkeys(inspect.signature(record).parameters, 1.0)
    record(**good)
    if value is True:
        pytest.skip("True is 1 in Python")
    with pytest.raises(bg.ChoiceError, match=rf"{name}\({field}=.*positive"):
        record(**{**good, field: value})


@pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS:UserWarning")
def test_different_sds_keep_a_correlation_matrix() -> None:
    """With one prior for each sd the correlations are sampled apart, and are still LKJ."""
    import pymc as pm

    rng = np.random.default_rng(3)
    data = DATA.with_columns(z=pl.Series(rng.normal(size=8)))
    given = {"sd:g:x": bg.HalfNormal(3.0), "corr:g": bg.LKJ(1.0)}
    model = bg.model("y ~ x + (x + z | g)", data, priors=given)
    graph = model.to_pymc(centred=True)
    names = ["corr_g", "sd_g", "b_g"]
    corr, sd, b = pm.draw([graph[n] for n in names], draws=2000, random_seed=4, mode="FAST_COMPILE")
    np.testing.assert_allclose(np.diagonal(corr, axis1=1, axis2=2), 1.0, atol=1e-12)
    np.testing.assert_allclose(corr, corr.transpose(0, 2, 1), atol=1e-12)
    # LKJ(1) in three dimensions: each correlation is 2 Beta(3/2, 3/2) - 1, of variance 1/4.
    off = corr[:, [1, 2, 2], [0, 0, 1]]
    np.testing.assert_allclose(off.mean(axis=0), 0.0, atol=0.06)
    np.testing.assert_allclose(off.var(axis=0), 0.25, atol=0.03)
    # The effects have those sds and correlations.
    z = b / sd[:, None, :]
    np.testing.assert_allclose(z.var(axis=(0, 1)), 1.0, atol=0.08)
    for r, c in ((1, 0), (2, 0), (2, 1)):
        product = np.mean(z[:, :, r] * z[:, :, c], axis=1)
        assert np.mean((product - corr[:, r, c]) * corr[:, r, c]) == pytest.approx(0.0, abs=0.04)


@pytest.mark.parametrize(
    ("name", "field"), [("Normal", "mean"), ("StudentT", "mean"), ("Cauchy", "centre")]
)
def test_refuses_an_infinite_centre(name: str, field: str) -> None:
    record = getattr(bg, name)
    good = dict.fromkeys(inspect.signature(record).parameters, 1.0)
    record(**{**good, field: -7.0})
    for value in (math.nan, math.inf, "0"):
        with pytest.raises(bg.ChoiceError, match=rf"{name}\({field}=.*finite"):
            record(**{**good, field: value})


# Defaults ---------------------------------------------------------------------------------------


def priors_of(formula: str, given: Any = "default", **arguments: Any) -> dict[str, Prior]:
    model = bg.model(formula, DATA, priors=given, **arguments)
    return model.priors.table(model.design)


def mean_sd(prior: Prior) -> tuple[float, float]:
    assert isinstance(prior, bg.Normal)
    return prior.mean, prior.sd


def test_defaults_of_a_linear_model() -> None:
    found = priors_of("y ~ x + f + (x | g)")
    s_y, s_x = DATA["y"].std(), DATA["x"].std()
    assert isinstance(s_y, float) and isinstance(s_x, float)
    mean = DATA["y"].mean()
    assert mean_sd(found["(Intercept)"]) == pytest.approx((mean, 2.5 * s_y))
    assert mean_sd(found["x"]) == pytest.approx((0.0, 2.5 * s_y / s_x))
    s_f = np.std(DATA["f"].to_numpy() == "b", ddof=1)
    assert mean_sd(found["fb"]) == pytest.approx((0.0, 2.5 * s_y / s_f))
    for name in ("sd:g:(Intercept)", "sd:g:x", "sigma"):
        half = found[name]
        assert isinstance(half, bg.HalfStudentT)
        assert (half.df, half.scale) == pytest.approx((3.0, 2.5 * s_y))
    assert found["corr:g"] == LKJ(2.0)
    assert list(found) == [
        *("(Intercept)", "x", "fb", "fc", "sd:g:(Intercept)", "sd:g:x", "corr:g", "sigma")
    ]


def test_defaults_follow_the_unit_of_x() -> None:
    scaled = bg.model("y ~ x", DATA.with_columns(pl.col("x") * 10)).priors.coefficients[1]
    plain = bg.model("y ~ x", DATA).priors.coefficients[1]
    assert mean_sd(scaled) == pytest.approx((0.0, mean_sd(plain)[1] / 10))


@pytest.mark.parametrize(
    ("formula", "family", "centre"),
    [
        ("b ~ x", "binomial", math.log(5.5 / 3.5)),  # half a success is added: stays finite
        ("n ~ x", "poisson", math.log(14 / 8)),
    ],
)
def test_defaults_of_generalised_models(formula: str, family: str, centre: float) -> None:
    found = priors_of(formula, family=family)
    assert mean_sd(found["(Intercept)"]) == pytest.approx((centre, 2.5))
    s_x = np.std(DATA["x"].to_numpy(), ddof=1)
    assert mean_sd(found["x"]) == pytest.approx((0.0, 2.5 / s_x))
    assert "sigma" not in found
    assert not any(key.startswith("corr:") for key in found)


def test_defaults_are_proper_for_extreme_responses() -> None:
    for response, family in (("one", "binomial"), ("none", "poisson")):
        data = DATA.with_columns(one=pl.lit(1), none=pl.lit(0))
        first = bg.model(f"{response} ~ x", data, family=family).priors.coefficients[0]
        assert isinstance(first, bg.Normal) and math.isfinite(first.mean)
    constant = bg.model("y ~ x", DATA.with_columns(y=pl.lit(2.0))).priors
    assert constant.coefficients[0] == bg.Normal(2.0, 2.5)


def test_flat() -> None:
    found = priors_of("y ~ x + (x | g)", "flat")
    assert found["(Intercept)"] == found["x"] == bg.Flat()
    assert found["sd:g:x"] == found["sigma"] == bg.HalfFlat()
    assert found["corr:g"] == LKJ(1.0)


# Choosing -----------------------------------------------------------------------------------------


def test_choosing_by_name() -> None:
    found = priors_of(
        "y ~ x + f + (x | g)",
        {
            "x": bg.Normal(1, 1),
            "slopes": bg.StudentT(3, 0, 1),
            "sd:g:x": bg.HalfNormal(2),
            "sd:g": bg.Exponential(3),
            "corr:g": bg.LKJ(5),
            "sigma": bg.HalfCauchy(4),
        },
    )
    assert found["x"] == bg.Normal(1, 1)  # the particular wins, whatever the order
    assert found["fb"] == found["fc"] == bg.StudentT(3, 0, 1)
    assert isinstance(found["(Intercept)"], bg.Normal)
    assert found["sd:g:x"] == bg.HalfNormal(2)
    assert found["sd:g:(Intercept)"] == bg.Exponential(3)
    assert found["corr:g"] == bg.LKJ(5)
    assert found["sigma"] == bg.HalfCauchy(4)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ("flatt", bg.ChoiceError, "priors='flatt' is not known; give 'default', 'flat'"),
        ({"xx": bg.Normal(0, 1)}, bg.ChoiceError, "priors['xx'] matches no parameter"),
        ({"(intercept)": bg.Normal(0, 1)}, bg.ChoiceError, "did you mean '(Intercept)'"),
        ({"sd:h": bg.HalfNormal(1)}, bg.ChoiceError, "did you mean 'sd:g'"),
        ({"sd:g:z": bg.HalfNormal(1)}, bg.ChoiceError, "'sd:g:x'"),
        ({"corr:h": bg.LKJ(1)}, bg.ChoiceError, "did you mean 'corr:g'"),
        ({"sigm": bg.HalfNormal(1)}, bg.ChoiceError, "did you mean 'sigma'"),
        ({"x": bg.HalfNormal(1)}, bg.ChoiceError, "'x' is a coefficient"),
        ({"x": bg.LKJ(1)}, bg.ChoiceError, "'x' is a coefficient"),
        ({"slopes": bg.Exponential(1)}, bg.ChoiceError, "bg.Normal(0, 5)"),
        ({"sigma": bg.Normal(0, 1)}, bg.ChoiceError, "'sigma' is a standard deviation"),
        ({"sd:g": bg.Normal(0, 1)}, bg.ChoiceError, "bg.HalfNormal(1)"),
        ({"corr:g": bg.HalfNormal(1)}, bg.ChoiceError, "bg.LKJ(2)"),
        ({"x": 3.0}, bg.DataError, "priors['x'] is float, not a prior; use bg.Normal"),
        ({"x": bg.Normal}, bg.DataError, "not a prior"),
    ],
)
def test_errors(given: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)):
        priors_of("y ~ x + (x | g)", given)


def test_no_correlation_to_set() -> None:
    for formula in ("y ~ x + (1 | g)", "y ~ x + (x || g)"):
        with pytest.raises(bg.ChoiceError, match="corr:g"):
            priors_of(formula, {"corr:g": bg.LKJ(2)})
    with pytest.raises(bg.ChoiceError, match="sigma"):
        priors_of("n ~ x", {"sigma": bg.HalfNormal(1)}, family="poisson")


def test_numbers_of_numpy_are_numbers() -> None:
    one: Any = np.int64(1)
    prior = bg.Normal(one, np.float32(2.5))  # type: ignore[arg-type]
    assert prior == bg.Normal(1.0, 2.5)
    assert type(prior.mean) is float and type(prior.sd) is float
    options = bg.NUTS(draws=50 * one, seed=3 * one)
    assert type(options.draws) is int and options == bg.NUTS(draws=50, seed=3)
    for wrong in ({"seed": True}, {"draws": 3}, {"centred": None}, {"centred": {"g": "yes"}}):
        with pytest.raises(bg.ChoiceError, match=f"{next(iter(wrong))}=.*give"):
            bg.NUTS(**cast(Any, wrong))
    with pytest.raises(bg.ChoiceError, match="sd must be a positive number"):
        bg.Normal(0.0, True)


@pytest.mark.parametrize("given", [None, [bg.Normal(0, 1)], bg.Normal(0, 1), {1: bg.Normal(0, 1)}])
def test_priors_are_given_by_name(given: Any) -> None:
    with pytest.raises(bg.ChoiceError, match="give 'default', 'flat', or a mapping from names"):
        bg.lm("y ~ x", DATA, priors=given)


def test_a_prior_without_a_distribution_of_pymc() -> None:
    class Mine(bg.Prior):
        support = "real"

    with pytest.raises(bg.ChoiceError, match=r"Mine has no pymc_distribution\(\): define it"):
        bg.lm("y ~ x", DATA, priors={"x": Mine()}).to_pymc()


def test_parameters_of_priors_have_their_own_names() -> None:
    wrong: dict[str, Any] = {"mu": 0.0, "sigma": 1.0}
    with pytest.raises(bg.OptionError, match="Normal has no 'mu'; give mean, sd"):
        bg.Normal(**wrong)
    assert pickle.loads(pickle.dumps(bg.Normal(0.0, 1.0))) == bg.Normal(sd=1.0, mean=0.0)
