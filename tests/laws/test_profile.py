"""Profile likelihood: exact cases, the chi-square law by other routes, invariance, boundaries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy.optimize import approx_fprime, minimize
from scipy.special import gammaln, ndtri

import bayesglmm as bg
from bayesglmm.errors import ChoiceError, FitError
from bayesglmm.laplace import ML, maximum_likelihood
from bayesglmm.laplace.curve import CORRELATION, NON_NEGATIVE, REAL, trace
from bayesglmm.laplace.restricted import Fitted
from bayesglmm.laplace.surface import surface
from bayesglmm.post.profile import Profile

Array = NDArray[np.float64]

# Degenerate fits are part of the subject, and warn.
pytestmark = pytest.mark.filterwarnings("ignore::bayesglmm.errors.BayesglmmWarning")

CBPP = "cbind(incidence, size - incidence) ~ period + (1|herd)"


@cache
def sleepstudy() -> Profile:
    m = bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy"))
    return bg.profile(m.fit())


@cache
def cbpp() -> Profile:
    return bg.profile(bg.glmer(CBPP, bg.load_dataset("cbpp"), family="binomial").fit())


def limits(profile: Profile, name: str, level: float = 0.95) -> tuple[float, float]:
    names = [label.name for label in profile.labels]
    row = profile.confint(level).row(names.index(name), named=True)
    return row["conf_low"], row["conf_high"]


# The curve alone


def test_a_quadratic_likelihood_has_a_straight_profile() -> None:
    curve = trace(lambda v: -0.5 * ((v - 3.0) / 2.0) ** 2, 3.0, 1.0, REAL, 0.99)
    assert curve.zeta == pytest.approx((curve.values - 3.0) / 2.0, abs=1e-12)
    assert curve.limits(0.9) == pytest.approx((3 - 2 * ndtri(0.95), 3 + 2 * ndtri(0.95)))
    assert curve.ends == ("reached", "reached")


def test_steps_suit_a_spread_that_is_wrong_by_orders_of_magnitude() -> None:
    for spread in (1e-4, 1e4):
        curve = trace(lambda v: -0.5 * v**2, 0.0, spread, REAL, 0.95)
        assert curve.limits(0.95) == pytest.approx((-ndtri(0.975), ndtri(0.975)), rel=1e-6)


def test_the_end_of_the_range_is_a_limit_and_a_plateau_is_none() -> None:
    near_zero = trace(lambda v: -0.5 * (v - 1.0) ** 2, 1.0, 1.0, NON_NEGATIVE, 0.95)
    assert near_zero.limits(0.95) == pytest.approx((0.0, 1.0 + ndtri(0.975)))
    assert near_zero.limits(0.5)[0] == pytest.approx(1.0 - ndtri(0.75))
    inside = trace(lambda v: -0.1 * v**2, 0.0, 0.3, CORRELATION, 0.95)
    assert inside.limits(0.95) == (-1.0, 1.0)
    plateau = trace(lambda v: -0.5 * min(v, 1.0) ** 2, 0.0, 1.0, REAL, 0.95)
    assert plateau.ends == ("reached", "flat")
    assert np.isnan(plateau.limits(0.95)[1])
    undefined = trace(lambda v: -0.5 * v**2 if v < 1.0 else -np.inf, 0.0, 1.0, REAL, 0.95)
    assert undefined.ends == ("reached", "undefined")
    nowhere = trace(lambda v: -np.inf, 0.0, 1.0, REAL, 0.95)
    assert np.all(np.isnan(nowhere.limits(0.95)))


def test_a_higher_maximum_is_an_error() -> None:
    with pytest.raises(FitError, match="not at the highest maximum"):
        trace(lambda v: -0.5 * (v - 2.0) ** 2, 0.0, 1.0, REAL, 0.95)


# Linear models: everything in closed form


def test_a_linear_model_has_the_t_profile() -> None:
    """zeta^2 = n log(1 + t^2 / (n - p)), a monotone function of the t statistic."""
    fit = bg.lm("mpg ~ wt + hp", bg.load_dataset("mtcars")).fit()
    profile, at = bg.profile(fit), fit.posterior
    n, p = fit.model.design.n, fit.model.design.p
    se = np.sqrt(np.diag(fit.vcov))
    for k in range(p):
        curve = profile.curves[k]
        t = (curve.values - at.estimate.beta[k]) / se[k]  # type: ignore[union-attr]
        exact = np.sign(t) * np.sqrt(n * np.log1p(t**2 / (n - p)))
        assert curve.zeta == pytest.approx(exact, abs=1e-6)
        half = se[k] * np.sqrt((n - p) * np.expm1(ndtri(0.975) ** 2 / n))
        assert curve.limits(0.95)[1] - curve.estimate == pytest.approx(half, rel=1e-5)
    sigma = profile.curves[p]
    ratio = sigma.estimate / sigma.values
    exact = np.sqrt(np.maximum(n * (ratio**2 - 1.0 - 2.0 * np.log(ratio)), 0.0))
    assert np.abs(sigma.zeta) == pytest.approx(exact, abs=1e-6)


# The law of the chi-square, by likelihoods written here and general optimisers

Negative = Callable[[Array], float]


def constrained(negative: Negative, start: Array, place: int, value: float) -> float:
    """Maximum of -negative with one entry held."""

    def rest(v: Array) -> float:
        return negative(np.insert(v, place, value))

    found = minimize(rest, np.delete(start, place), method="BFGS", options={"gtol": 1e-5})
    return -float(found.fun)


def sleepstudy_negative(v: Array) -> float:
    """v: intercept, slope, log sds, atanh correlation, log sigma; dense, subject by subject."""
    design = sleepstudy().fit.model.design
    s1, s2, rho, sigma = np.exp(v[2]), np.exp(v[3]), np.tanh(v[4]), np.exp(v[5])
    S = np.array([[s1**2, rho * s1 * s2], [rho * s1 * s2, s2**2]])
    residual = (design.y - design.X @ v[:2]).reshape(18, 10)
    Z = design.X[:10]  # the same days for all
    V = Z @ S @ Z.T + sigma**2 * np.eye(10)
    _, logdet = np.linalg.slogdet(V)
    quadratic = np.sum(residual * np.linalg.solve(V, residual.T).T)
    return float(0.5 * (18 * logdet + quadratic + 180 * np.log(2 * np.pi)))


def cbpp_negative(v: Array) -> float:
    """v: coefficients, log sd; Laplace by Newton steps for scalar effects."""
    model = cbpp().fit.model
    design, y, w = model.design, model.likelihood.y, model.likelihood.w
    index, sd = design.random[0].index, np.exp(v[-1])
    u = np.zeros(design.random[0].J)
    for _ in range(30):
        eta = design.X @ v[:-1] + sd * u[index]
        mu = 1.0 / (1.0 + np.exp(-eta))
        H = 1.0 + sd**2 * np.bincount(index, w * mu * (1 - mu))
        u = u + (sd * np.bincount(index, w * (y - mu)) - u) / H
    hits, misses = w * y, w * (1 - y)
    constant = gammaln(w + 1) - gammaln(hits + 1) - gammaln(misses + 1)
    value: float = np.sum(hits * np.log(mu) + misses * np.log1p(-mu) + constant)
    return -float(value - 0.5 * np.sum(u**2) - 0.5 * np.sum(np.log(H)))


def at_zero(negative: Negative, start: Array) -> float:
    return -float(minimize(negative, start, method="BFGS", options={"gtol": 1e-6}).fun)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_the_ends_obey_the_chi_square_law(level: float) -> None:
    quantile = ndtri(0.5 + level / 2) ** 2
    same = (float,) * 2
    cases: list[tuple[Profile, Negative, tuple[Callable[..., float], ...]]] = [
        (sleepstudy(), sleepstudy_negative, (*same, np.log, np.log, np.arctanh, np.log)),
        (cbpp(), cbpp_negative, (*same, *same, np.log)),
    ]
    for profile, negative, scales in cases:
        estimates = [curve.estimate for curve in profile.curves]
        start = np.array([f(v) for f, v in zip(scales, estimates, strict=True)])
        best = at_zero(negative, start)
        assert best == pytest.approx(profile.fit.loglik, abs=1e-6)
        for place, curve in enumerate(profile.curves):
            for end in curve.limits(level):
                held = constrained(negative, start, place, scales[place](end))
                assert 2.0 * (best - held) == pytest.approx(quantile, abs=1e-3)


def test_quadrature_is_profiled_as_it_was_fitted() -> None:
    """A coefficient held is a fit with its column in the offset."""
    contra = bg.load_dataset("contra")
    fit = bg.glmer("use ~ age + urban + (1|dist)", contra, family="binomial").fit(nagq=5)
    low, high = bg.profile(fit, "urbanY").curves[0].limits(0.95)
    design = fit.model.design
    for end in (low, high):
        offset = design.offset + end * design.X[:, 2]
        held = replace(design, X=design.X[:, :2], offset=offset)
        at = maximum_likelihood(held, fit.model.likelihood, ML(nagq=5))
        assert 2 * (fit.loglik - at.loglik) == pytest.approx(ndtri(0.975) ** 2, abs=1e-3)


# Shape


@pytest.mark.parametrize("make", [sleepstudy, cbpp])
def test_zeta_grows_through_zero_at_the_estimate(make: Callable[[], Profile]) -> None:
    for curve in make().curves:
        assert np.all(np.diff(curve.values) > 0) and np.all(np.diff(curve.zeta) > 0)
        assert curve.zeta[curve.values == curve.estimate] == 0.0
        assert np.all(np.diff(curve.zeta) < 1.0)  # close enough for a spline
        assert np.all(np.diff(curve.at(np.linspace(-2.5, 2.5, 300))) > 0)


# Invariance


def grouped(seed: int = 1) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    n = 240
    x, g = rng.normal(size=n), rng.integers(0, 12, n)
    eta = 0.3 + 0.4 * x + 0.5 * rng.normal(size=12)[g] + 0.4 * rng.normal(size=12)[g] * x
    return pl.DataFrame(
        {
            "x": x,
            "w": rng.normal(size=n),
            "g": [str(k) for k in g],
            "y": eta + rng.normal(size=n),
            "k": rng.poisson(np.exp(eta)),
        }
    )


@pytest.mark.parametrize(("origin", "unit"), [(0.0, 1e-3), (2000.0, 100.0), (1.7e9, 3e7)])
@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_units_and_origins_of_a_covariate_only_rescale(
    family: str, origin: float, unit: float
) -> None:
    plain = grouped()
    moved = plain.with_columns(x=origin + unit * pl.col("x"))
    kinds = ["x", "sd x | g"] + (["residual"] if family == "gaussian" else [])
    names = ["x", "sd x | g", "residual sd"][: len(kinds)]
    response = "y" if family == "gaussian" else "k"
    found = []
    for data in (plain, moved):
        model = bg.model(f"{response} ~ x + (x|g)", data, family=family)
        profile = bg.profile(model.fit(), kinds, level=0.95)
        found.append([limits(profile, name) for name in names])
    for name, one, other in zip(names, *found, strict=True):
        factor = 1.0 if name == "residual sd" else unit
        assert np.array(other) * factor == pytest.approx(np.array(one), rel=1e-5)


def test_the_order_of_random_columns_does_not_matter() -> None:
    data = grouped()
    one = bg.profile(bg.lmer("y ~ x + w + (x + w|g)", data).fit(), ["sd", "corr"], level=0.9)
    other = bg.profile(bg.lmer("y ~ x + w + (w + x|g)", data).fit(), ["sd", "corr"], level=0.9)
    for name in ("sd x | g", "sd w | g", "corr (Intercept) x x | g"):
        assert limits(one, name, 0.9) == pytest.approx(limits(other, name, 0.9), abs=2e-4)
    pair = limits(one, "corr x x w | g", 0.9)
    assert pair == pytest.approx(limits(other, "corr w x x | g", 0.9), abs=2e-4)


def test_a_restricted_fit_is_profiled_by_maximum_likelihood() -> None:
    m = bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy"))
    by_reml = bg.profile(m.fit("reml"), "sd")
    for name in ("sd (Intercept) | Subject", "sd Days | Subject"):
        assert limits(by_reml, name) == pytest.approx(limits(sleepstudy(), name), rel=1e-5)
    assert "refitted" in by_reml.confint().caption


# Boundaries


def test_an_sd_of_zero_starts_the_interval() -> None:
    profile = bg.profile(bg.lmer("Yield ~ 1 + (1|Batch)", bg.load_dataset("dyestuff2")).fit())
    curve = profile.curves[1]
    assert (curve.estimate, curve.values[0], curve.zeta[0]) == (0.0, 0.0, 0.0)
    assert limits(profile, "sd (Intercept) | Batch")[0] == 0.0
    # Far from its estimate the intercept is held up by a variance between batches.
    assert limits(profile, "(Intercept)", 0.99) == pytest.approx((3.7320, 7.5992), abs=2e-4)


def test_the_profile_of_an_sd_is_finite_at_zero() -> None:
    data = bg.load_dataset("dyestuff")
    fit = bg.lmer("Yield ~ 1 + (1|Batch)", data).fit()
    profile = bg.profile(fit, "sd")
    curve = profile.curves[0]
    without = bg.lm("Yield ~ 1", data).fit()
    assert curve.values[0] == 0.0 and curve.ends[0] == "boundary"
    assert curve.zeta[0] == pytest.approx(-np.sqrt(2 * (fit.loglik - without.loglik)), abs=1e-6)
    assert limits(profile, "sd (Intercept) | Batch", 0.99)[0] == 0.0
    assert limits(profile, "sd (Intercept) | Batch", 0.95)[0] > 0.0


def perfect() -> pl.DataFrame:
    rng = np.random.default_rng(3)
    n = 200
    g, x = rng.integers(0, 10, n), rng.normal(size=n)
    y = 1 + x + 0.7 * rng.normal(size=10)[g] * (1 + x) + rng.normal(size=n)
    return pl.DataFrame({"x": x, "minus": -x, "g": [str(k) for k in g], "y": y})


def test_a_perfect_correlation_ends_the_interval() -> None:
    up = bg.profile(bg.lmer("y ~ x + (x|g)", perfect()).fit())
    down = bg.profile(bg.lmer("y ~ minus + (minus|g)", perfect()).fit(), "corr")
    low, high = limits(up, "corr (Intercept) x x | g")
    assert (up.curves[4].estimate, high) == (1.0, 1.0)
    assert 0.5 < low < 1.0
    mirrored = limits(down, "corr (Intercept) x minus | g")
    assert mirrored == pytest.approx((-1.0, -low), abs=1e-5)


def test_a_correlation_with_an_effect_that_has_no_variance_has_no_interval() -> None:
    data = perfect()
    groups = data.select("g").to_dummies().to_numpy()
    own = np.hstack([groups, groups * data["x"].to_numpy()[:, None]])
    noise = np.random.default_rng(5).normal(size=200)
    noise = noise - own @ np.linalg.lstsq(own, noise)[0]  # no group differs from another
    data = data.with_columns(y=pl.col("x") + noise)
    profile = bg.profile(bg.lmer("y ~ x + (x|g)", data).fit(), level=0.9)
    table = profile.confint(0.9)
    corr = table.filter(pl.col("kind") == "corr").row(0, named=True)
    assert (corr["estimate"], corr["conf_low"], corr["conf_high"]) == (None, None, None)
    assert "corr (Intercept) x x | g: not identified" in table.caption
    sds = table.filter(pl.col("kind") == "sd")
    assert sds["conf_high"].null_count() == 0


def test_a_separated_coefficient_has_one_limit() -> None:
    """12 failures: the log-likelihood of their logit v is 12 log(1 - p)."""
    data = pl.DataFrame({"y": [0] * 17 + [1] * 9, "f": ["a"] * 12 + ["b"] * 14})
    profile = bg.profile(bg.glm("y ~ f", data, family="binomial").fit())
    table = profile.confint()
    row = table.row(0, named=True)
    p = -np.expm1(-(ndtri(0.975) ** 2) / 24)
    assert row["conf_low"] is None
    assert row["conf_high"] == pytest.approx(np.log(p / (1 - p)), abs=1e-3)
    assert "(Intercept): no lower limit: the likelihood levels off" in table.caption
    assert min(profile.curves[0].values) > -50.0  # no points far out on the plateau


# The surface under it all


@pytest.mark.parametrize("which", ["linear", "weighted", "poisson", "log-gaussian", "quadrature"])
def test_gradients_of_the_surface(which: str) -> None:
    data = grouped()
    data = data.with_columns(z=(0.3 * pl.col("y")).exp(), u=1.0 + pl.col("w").abs())
    model, nagq = {
        "linear": (bg.lmer("y ~ w + (x|g)", data), 1),
        "weighted": (bg.model("y ~ w + offset(x) + (x||g)", data, weights="u"), 1),
        "poisson": (bg.glmer("k ~ w + (x|g)", data, family="poisson"), 1),
        "log-gaussian": (bg.glmer("z ~ w + (1|g)", data, family="gaussian", link="log"), 1),
        "quadrature": (bg.glmer("k ~ w + (1|g)", data, family="poisson"), 5),
    }[which]
    on = surface(model.design, model.likelihood, nagq, 1.0)
    K = model.design.random[0].K
    factor = np.array([[0.7, 0.0], [0.2, 0.4]])[:K, :K]
    x = on.point((factor,), 1.3, np.array([0.1, -0.2]))
    numeric = approx_fprime(x, lambda v: on.loglik(v)[0], 1e-6)
    assert on.loglik(x)[1] == pytest.approx(numeric, rel=1e-4, abs=2e-3)
    fit = model.fit(nagq=nagq)
    at = fit.posterior.estimate  # type: ignore[union-attr]
    fitted = Fitted(model.design, model.likelihood, nagq, at)
    top = on.loglik(on.point(fitted.factors(), at.sigma, at.beta))
    assert top[0] == pytest.approx(fit.loglik, abs=1e-7)


# Asking


def test_which_takes_kinds_and_names() -> None:
    fit = sleepstudy().fit
    table = bg.confint(fit, "profile", which=["Days", "corr"], level=0.8)
    assert table["kind"].to_list() == ["coef", "corr"]
    assert table.row(1)[:4] == ("corr", "Subject", "(Intercept)", "Days")
    with pytest.raises(ChoiceError, match=r"did you mean 'sd Days \| Subject'"):
        bg.profile(fit, "sd Days | Subjct")
    with pytest.raises(ChoiceError, match="which=3 is no parameter"):
        bg.profile(fit, [3])  # type: ignore[list-item]


def test_levels_are_checked() -> None:
    with pytest.raises(ChoiceError, match=r"profile\(fit, level=0.999\)"):
        sleepstudy().confint(0.999)
    with pytest.raises(ChoiceError, match="between 0 and 1"):
        bg.profile(sleepstudy().fit, level=95)
    assert bg.profile(sleepstudy().fit, "residual", level=0.9999).confint(0.9999)["conf_low"][0] > 0


def test_the_picture_has_a_panel_for_each_parameter() -> None:
    figure = sleepstudy().plot()
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [label.name for label in sleepstudy().labels]
