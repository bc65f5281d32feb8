"""hypothesis, prior_sensitivity and the distance in compare, on draws from known posteriors."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import polars as pl
import pytest
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

import bayesglmm as bg
from bayesglmm.model import Model
from bayesglmm.post.pointwise import chains_of
from bayesglmm.post.sensitivity import _log_prior

Array = NDArray[np.float64]


def data() -> pl.DataFrame:
    rng = np.random.default_rng(1)
    n = 60
    x, z, g = rng.normal(1.0, 1.0, n), rng.normal(size=n), np.arange(n) % 10
    y = 1.0 + 0.4 * x + rng.normal(size=10)[g] * 0.7 + rng.normal(size=n)
    return pl.DataFrame({"y": y, "x": x, "z": z, "g": [f"g{k}" for k in g]})


def normal_model(**priors: bg.priors.Prior) -> Model:
    given = {
        "(Intercept)": bg.Normal(0.5, 1.0),
        "x": bg.Normal(0.0, 0.5),
        "z": bg.Normal(0.2, 0.3),
        **priors,
    }
    return bg.model("y ~ x + z", data(), priors=given)


def normal_posterior(model: Model, S: int = 5000) -> tuple[Array, Array, dict[str, Array]]:
    """Mean and covariance of beta where sigma is 1, and exact draws."""
    design, own = model.design, model.priors.coefficients
    T = np.eye(design.p)
    T[0] = design.X.mean(axis=0)
    means = np.array([p.mean for p in own])  # type: ignore[attr-defined]
    P = np.diag([p.sd**-2.0 for p in own])  # type: ignore[attr-defined]
    Q = T.T @ P @ T + design.X.T @ design.X
    cov = np.linalg.inv(Q)
    mean = cov @ (T.T @ P @ means + design.X.T @ design.y)
    beta = np.random.default_rng(2).multivariate_normal(mean, cov, (4, S))
    return mean, cov, {"beta": beta, "sigma": np.ones((4, S))}


def test_one_sided(fit_of_draws: Any) -> None:
    model = normal_model()
    mean, cov, values = normal_posterior(model)
    fit = fit_of_draws(model, values)
    found = fit.hypothesis(["x > 0.3", "2*z - x < 1/4", "(Intercept) + x>1", "x > -50"])
    for row, (w, value, side) in zip(
        found.iter_rows(named=True),
        (([0, 1, 0], 0.3, 1), ([0, -1, 2], 0.25, -1), ([1, 1, 0], 1.0, 1)),
        strict=False,
    ):
        centre, sd = mean @ w - value, np.sqrt(w @ cov @ np.array(w))
        p = stats.norm.cdf(side * centre / sd)
        assert row["post_prob"] == pytest.approx(p, abs=0.01)
        assert row["evid_ratio"] == pytest.approx(row["post_prob"] / (1 - row["post_prob"]))
        assert row["estimate"] == pytest.approx(centre, abs=0.04 * sd)
        assert row["std_error"] == pytest.approx(sd, rel=0.03)
        assert row["conf_low"] == pytest.approx(centre - 1.96 * sd, abs=0.12 * sd)
    assert found["evid_ratio"][3] == np.inf and found["post_prob"][3] == 1.0
    assert found["hypothesis"].to_list()[0] == "x > 0.3"


def test_savage_dickey(fit_of_draws: Any) -> None:
    """Posterior and prior density of a weighted sum are normal: the ratio is known."""
    model = normal_model()
    mean, cov, values = normal_posterior(model)
    fit = fit_of_draws(model, values)
    means, sds, xbar = np.array([0.5, 0.0, 0.2]), np.array([1.0, 0.5, 0.3]), model.design.X.mean(0)
    for text, w, value in (
        ("x = 0.3", [0, 1, 0], 0.3),
        ("x - z = 0", [0, 1, -1], 0.0),
        ("(Intercept) = 1", [1, 0, 0], 1.0),
    ):
        (row,) = fit.hypothesis(text).iter_rows(named=True)
        v = np.array(w) - w[0] * np.array([0.0, xbar[1], xbar[2]])
        prior = stats.norm.pdf(value, v @ means, np.sqrt(v**2 @ sds**2))
        posterior = stats.norm.pdf(value, mean @ w, np.sqrt(w @ cov @ np.array(w)))
        assert row["evid_ratio"] == pytest.approx(posterior / prior, rel=0.05)
        assert row["post_prob"] == pytest.approx(row["evid_ratio"] / (1 + row["evid_ratio"]))
    far = fit.hypothesis("x = 9")
    assert far["evid_ratio"][0] > 0.0 and "upper bound: x = 9" in far.caption


def test_savage_dickey_by_draws_of_the_prior(fit_of_draws: Any) -> None:
    """Where the posterior is the prior, the ratio is one, at the edge of the support too."""
    model = bg.model("y ~ x + (x|g)", data(), priors={"x": bg.StudentT(5, 0, 1)})
    rng, S, own = np.random.default_rng(3), 5000, model.priors
    values = {
        "beta": np.stack(
            [rng.normal(size=(4, S)), own.coefficients[1].draw(rng, 4 * S).reshape(4, S)], -1
        ),
        "sd_g": np.stack([p.draw(rng, 4 * S).reshape(4, S) for p in own.sds[0]], -1),
        "corr_g": bg.LKJ(2.0).draw(rng, 4 * S).reshape(4, S, 2, 2),
        "b_g": np.zeros((4, S, 10, 2)),
        "sigma": own.sigma[0].draw(rng, 4 * S).reshape(4, S),
    }
    fit = fit_of_draws(model, values)
    found = fit.hypothesis(
        ["x = 0.5", "sd:g:x = 0", "sigma = 1", "corr:g = 0", "sd_g__x - sigma = 0"]
    )
    np.testing.assert_allclose(found["evid_ratio"], 1.0, atol=0.12)


def test_names_and_what_cannot_be_read(fit_of_draws: Any) -> None:
    frame = data().with_columns(a=pl.Series(["<5", ">=5"] * 30))
    model = bg.model("y ~ a + x + (x|g)", frame)
    rng, S = np.random.default_rng(4), 200
    R = bg.LKJ(2.0).draw(rng, 4 * S).reshape(4, S, 2, 2)
    values = {
        "beta": rng.normal(size=(4, S, 3)),
        "sd_g": rng.uniform(1, 2, (4, S, 2)),
        "corr_g": R,
        "b_g": np.zeros((4, S, 10, 2)),
        "sigma": rng.uniform(1, 2, (4, S)),
    }
    fit = fit_of_draws(model, values)
    found = fit.hypothesis(
        [
            "a>=5 > 0",
            "sd:g:x > 0",
            "sd_g__Intercept > 0",
            "corr:g > 0",
            "corr:g:x:(Intercept) > 0",
            "cor_g__Intercept__x > 0",
            "sigma > 1",
        ]
    )
    means = [
        values["beta"][..., 1].mean(),
        *values["sd_g"].mean(axis=(0, 1))[::-1],
        *[R[..., 1, 0].mean()] * 3,
        values["sigma"].mean() - 1.0,
    ]
    np.testing.assert_allclose(found["estimate"], means, rtol=1e-10)
    for text, says in (
        ("x", "has one of <, > and ="),
        ("0 < x < 1", "give several as a list"),
        ("xx > 0", "'xx' is not a parameter; did you mean 'x'"),
        ("1 > 0", "no parameter in it"),
        ("x > ", "breaks off"),
    ):
        with pytest.raises(bg.FormulaError, match=re.escape(says)):
            fit.hypothesis(text)
    with pytest.raises(bg.FormulaError) as caught:
        fit.hypothesis("x > zz")
    assert caught.value.text == "x > zz"  # as it was written
    assert fit.hypothesis("Intercept > 1")["estimate"].equals(
        fit.hypothesis("(Intercept) > 1")["estimate"]
    )
    for bad in ([], 3, [3], None):
        with pytest.raises(bg.DataError, match="give a statement"):
            fit.hypothesis(bad)
    with pytest.raises(bg.ChoiceError, match="wald_test"):
        bg.lm("y ~ x", data()).fit().hypothesis("x > 0")
    flat = bg.model("y ~ a + x", frame, priors="flat")
    fit = fit_of_draws(flat, {k: values[k] for k in ("beta", "sigma")})
    fit.hypothesis("x > 0")
    with pytest.raises(bg.ChoiceError, match=re.escape("'x' is flat")):
        fit.hypothesis("x = 0")
    assert fit.prior_sensitivity()["prior"].to_list() == [0.0] * 4


def test_sensitivity_is_arviz(fit_of_draws: Any) -> None:
    import arviz_stats

    model = normal_model()
    fit = fit_of_draws(model, normal_posterior(model, 500)[2])
    tree = fit.to_arviz(log_likelihood=True)
    own = _log_prior(model, chains_of(fit.posterior)).reshape(4, 500)
    tree["log_prior"] = xr.DataTree(xr.Dataset({"all": (("chain", "draw"), own)}))
    found = fit.prior_sensitivity()
    for part in ("prior", "likelihood"):
        theirs = arviz_stats.psense(tree, var_names=["beta"], group=part)["beta"].values
        np.testing.assert_allclose(found[part].head(3), theirs, rtol=1e-9)


def test_sensitivity_knows_conflict_from_strength(fit_of_draws: Any) -> None:
    """A prior far from the data, one that says all, and one that says nothing."""
    said = {}
    for name, prior in (
        ("conflict", bg.Normal(-2.0, 0.15)),
        ("weak", bg.Normal(0.0, 50.0)),
    ):
        model = normal_model(x=prior)
        fit = fit_of_draws(model, normal_posterior(model, 1000)[2])
        found = fit.prior_sensitivity()
        said[name] = dict(zip(found["term"], found["diagnosis"], strict=True))["x"]
    assert said == {"conflict": "prior-data conflict", "weak": "-"}
    frame = data().with_columns(x=pl.col("x") * 1e-3)
    model = bg.model("y ~ x", frame, priors={"x": bg.Normal(0.0, 1.0)})
    fit = fit_of_draws(model, normal_posterior(model, 1000)[2])
    found = fit.prior_sensitivity()
    assert found["diagnosis"][1] == "strong prior / weak likelihood"
    with pytest.raises(bg.ChoiceError, match="nuts"):
        bg.prior_sensitivity(model.fit())


def test_distance_in_compare(fit_of_draws: Any) -> None:
    model = bg.lm("y ~ x + z", data())
    ml = model.fit()
    at = ml.params
    est, se = at["estimate"].to_numpy(), at["std_error"].to_numpy()
    rng, S = np.random.default_rng(6), 1000
    beta = rng.normal(size=(4, S, 3))
    beta = (beta - beta.mean((0, 1))) / beta.std((0, 1), ddof=1)
    sigma = ml.varcorr["estimate"][0] + 0.1 * rng.normal(size=(4, S))
    fit = fit_of_draws(model, {"beta": est + se * (2.0 * beta + [0.0, 3.0, 0.0]), "sigma": sigma})
    found = bg.compare(ml, fit)
    np.testing.assert_allclose(found.table["NUTS_sd_ratio"].head(3), 2.0, rtol=1e-3)
    np.testing.assert_allclose(found.table["NUTS_shift"].head(3), [0.0, 3.0, 0.0], atol=1e-6)
    assert "means differ by at most 1.50 posterior sds (x)" in found.text()
    assert "sd ratio" in found.text()
    assert "posterior sds" not in bg.compare(fit, ml).text()
