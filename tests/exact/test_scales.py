"""Units and origins of covariates, and the unit of weights, change no fit: they move numbers."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import bayesglmm as bg

pytestmark = pytest.mark.filterwarnings("ignore:Nearly collinear")  # so they are meant to be
SCALES = {"day numbers": (738_000.0, 100.0), "time stamps": (1.7e9, 3e7), "tiny": (0.0, 1e-8)}


def data(mean: float = 0.0, sd: float = 1.0) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    n = 300
    x, g = rng.normal(size=n), rng.integers(0, 12, n)
    eta = 0.3 + 0.4 * x + 0.5 * rng.normal(size=12)[g]
    return pl.DataFrame(
        {
            "x": mean + sd * x,
            "g": [str(k) for k in g],
            "h": [str(k % 7) for k in range(n)],
            "y": eta + rng.normal(size=n),
            "b": rng.binomial(1, 1 / (1 + np.exp(-eta))),
            "k": rng.poisson(np.exp(eta)),
        }
    )


FITS = {
    "lm": lambda d: bg.lm("y ~ x", d).fit(),
    "glm": lambda d: bg.glm("b ~ x", d, family="binomial").fit(),
    "poisson": lambda d: bg.glm("k ~ x", d, family="poisson").fit(),
    "lmer": lambda d: bg.lmer("y ~ x + (x|g)", d).fit(),
    "glmer": lambda d: bg.glmer("k ~ x + (x|g) + (1|h)", d, family="poisson").fit(),
    "quadrature": lambda d: bg.glmer("b ~ x + (1|g)", d, family="binomial").fit(nagq=5),
}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", FITS)
def test_scale_and_origin_do_not_matter(name: str, scale: str) -> None:
    mean, sd = SCALES[scale]
    plain, moved = FITS[name](data()), FITS[name](data(mean, sd))
    assert moved.outcome.converged
    assert moved.loglik == pytest.approx(plain.loglik, abs=1e-5)
    for column in ("estimate", "std_error"):
        wanted = plain.params[column][1]
        assert moved.params[column][1] * sd == pytest.approx(wanted, rel=1e-4)


def test_years_and_their_squares() -> None:
    """The same parabola from raw and from centred years."""
    d = data().with_columns(year=2000 + 10 * pl.col("x"), c=10 * pl.col("x"))
    raw = bg.glm("b ~ year + I(year^2)", d, family="binomial").fit()
    centred = bg.glm("b ~ c + I(c^2)", d, family="binomial").fit()
    assert raw.loglik == pytest.approx(centred.loglik, abs=1e-7)
    for column in ("estimate", "std_error"):
        assert raw.params[column][2] == pytest.approx(centred.params[column][2], rel=1e-5)


def test_reml_depends_on_the_unit_as_its_definition_says() -> None:
    """The restricted likelihood integrates over beta: x in other units shifts it by log(unit)."""
    plain = bg.lmer("y ~ x + (1|g)", data()).fit("reml").loglik
    scaled = bg.lmer("y ~ x + (1|g)", data(0.0, 100.0)).fit("reml").loglik
    assert scaled == pytest.approx(plain - np.log(100.0), abs=1e-6)


def test_prediction_errors_of_overlapping_terms() -> None:
    """(1|g) + (0+x|g) is (x||g): the same model, the same standard errors."""
    one = bg.lmer("y ~ x + (x||g)", data()).fit().predict()
    two = bg.lmer("y ~ x + (1|g) + (0+x|g)", data()).fit().predict()
    assert np.allclose(one["estimate"], two["estimate"], atol=1e-6)
    assert np.allclose(one["std_error"], two["std_error"], rtol=1e-4)


def weighted(unit: float, formula: str, **options: object) -> bg.Fit:
    rows = data()
    weights = unit * np.random.default_rng(2).gamma(2.0, 0.5, len(rows))
    return bg.lmer(formula, rows, weights=weights).fit("ml", **options)


@pytest.mark.filterwarnings("ignore::bayesglmm.errors.BayesglmmWarning")
@pytest.mark.parametrize("unit", [1e-8, 1e-4, 3.0, 1e4, 1e8])
@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("y ~ x + (1|g)", {}),
        ("y ~ x + (x|g)", {"reml": True}),
        ("y ~ x + (1|g) + (1|h)", {"reml": True, "df": "kenward-roger"}),  # h says nothing
    ],
)
def test_the_unit_of_weights_belongs_to_sigma(
    formula: str, options: dict[str, object], unit: float
) -> None:
    """Variances are sigma^2 / w: weights c w with sigma^2 c are the same model."""
    plain, other = weighted(1.0, formula, **options), weighted(unit, formula, **options)
    assert other.loglik == pytest.approx(plain.loglik, abs=1e-9)
    assert other.outcome.notes == plain.outcome.notes
    assert other.outcome.singular == plain.outcome.singular
    sd, wanted = (f.varcorr.filter(group="g", kind="sd")["estimate"] for f in (other, plain))
    assert np.allclose(sd, wanted, rtol=1e-6)
    sigma, wanted = (f.statistics["sigma"][0] for f in (other, plain))
    assert sigma == pytest.approx(wanted * np.sqrt(unit), rel=1e-8)
    for column in ("estimate", "std_error", "df"):
        assert np.allclose(other.params[column], plain.params[column], rtol=1e-5)
    for name in ("estimate", "std_error"):
        assert np.allclose(other.ranef[name], plain.ranef[name], rtol=1e-5, atol=1e-9)


LINEAR = {
    "lm": lambda d, w: bg.lm("y ~ x", d, weights=w).fit(),
    "lmer": lambda d, w: bg.lmer("y ~ x + (1|g)", d, weights=w).fit(),
}


@pytest.mark.parametrize("unit", [1e-12, 1e12])
@pytest.mark.parametrize("name", LINEAR)
def test_the_unit_of_the_response(name: str, unit: float) -> None:
    rows = data()
    weights = np.random.default_rng(2).gamma(2.0, 0.5, len(rows))
    plain = LINEAR[name](rows, weights)
    for w in (1.0, 1e-24, 1e24):
        other = LINEAR[name](rows.with_columns(y=unit * pl.col("y")), w * weights)
        assert other.outcome.converged and not other.outcome.notes
        density = plain.loglik - len(rows) * np.log(unit)
        assert other.loglik == pytest.approx(density, abs=1e-8)
        assert other.statistics["sigma"][0] == pytest.approx(
            plain.statistics["sigma"][0] * unit * np.sqrt(w), rel=1e-7
        )
        for column in ("estimate", "std_error"):
            assert np.allclose(other.params[column] / unit, plain.params[column], rtol=1e-6)


def test_profiles_know_the_unit_of_weights() -> None:
    plain, other = (
        bg.profile(weighted(unit, "y ~ x + (1|g)"), "sd", level=0.95).confint()
        for unit in (1.0, 1e8)
    )
    assert np.allclose(other["conf_low"], plain["conf_low"], rtol=1e-5)
    assert np.allclose(other["conf_high"], plain["conf_high"], rtol=1e-5)


@pytest.mark.parametrize("mean", [1e2, 1e5, 1e8])
def test_what_counts_as_zero_depends_on_the_information(mean: float) -> None:
    """Counts of 1e8 tell an sd of 6e-5 from none.

    With many events log totals are as good as normal with variance sd^2 + 1 / mean.
    """
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(40), 10)
    sd = 0.6 / np.sqrt(mean)
    y = rng.poisson(mean * np.exp(sd * rng.normal(size=40)[g]))
    totals = y.reshape(40, 10).sum(axis=1)
    wanted = np.sqrt(np.var(np.log(totals)) - 1.0 / totals.mean())
    fit = bg.glmer("y ~ 1 + (1|g)", {"y": y, "g": g.astype(str)}, family="poisson").fit()
    assert fit.outcome.converged and not fit.outcome.singular
    assert fit.varcorr["estimate"][0] == pytest.approx(wanted, rel=1.0 / np.sqrt(mean))


@pytest.mark.filterwarnings("ignore::bayesglmm.errors.BayesglmmWarning")
@pytest.mark.parametrize("family", ["poisson", "binomial"])
@pytest.mark.parametrize("terms", ["(1|g)", "(x|g)", "(1|g) + (1|row)"])
def test_counts_in_the_millions(family: str, terms: str) -> None:
    """The log-likelihood's rounding (1e-6 here) spoils neither the modes nor the curvature."""
    rng = np.random.default_rng(1)
    g, x = np.arange(400) % 20, rng.normal(size=400)
    eta = 0.3 * rng.normal(size=20)[g] + 0.1 * x
    eta += 0.3 * rng.normal(size=400) * ("row" in terms)
    data = {"x": x, "g": g.astype(str), "row": np.arange(400).astype(str), "m": [10**6] * 400}
    if family == "poisson":
        data["y"] = rng.poisson(np.exp(13.0 + eta))
    else:
        data["y"] = rng.binomial(10**6, 1.0 / (1.0 + np.exp(-eta)))
    trials = "m" if family == "binomial" else ""
    fit = bg.glmer(f"y ~ x + {terms}", data, family=family, trials=trials).fit()
    assert fit.outcome.converged
    assert fit.outcome.evaluations < 60
    assert fit.outcome.redundant == ()
    # With so much information in every row this is a linear model of the rows' own effects.
    named = {
        (r["group"], r["term"]): r["variance"]
        for r in fit.varcorr.filter(kind="sd").iter_rows(named=True)
    }
    own = named["g", "(Intercept)"] / 20 + named.get(("row", "(Intercept)"), 0.0) / 400
    assert fit.params["std_error"][0] == pytest.approx(np.sqrt(own), rel=5e-3)
