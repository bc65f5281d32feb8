"""Laws of prior draws, and of prior and posterior predictive responses."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy import stats

import bayesglmm as bg
from bayesglmm.model import Model
from bayesglmm.priors.parameters import draw_parameters, log_prior
from bayesglmm.priors.prior import LKJ, Prior

Array = NDArray[np.float64]

DISTRIBUTIONS: list[tuple[Prior, Any]] = [
    (bg.Normal(0.7, 2.0), stats.norm(0.7, 2.0)),
    (bg.StudentT(4.0, -0.5, 1.5), stats.t(4.0, -0.5, 1.5)),
    (bg.Cauchy(0.3, 2.0), stats.cauchy(0.3, 2.0)),
    (bg.HalfNormal(1.7), stats.halfnorm(0, 1.7)),
    (bg.HalfCauchy(1.3), stats.halfcauchy(0, 1.3)),
    (bg.Exponential(0.6), stats.expon(0, 1 / 0.6)),
    (bg.Gamma(2.5, 1.4), stats.gamma(2.5, 0, 1 / 1.4)),
]


@pytest.mark.parametrize(("prior", "distribution"), DISTRIBUTIONS)
def test_priors_draw_from_themselves(prior: Prior, distribution: Any) -> None:
    draws = prior.draw(np.random.default_rng(1), 20_000)
    assert stats.kstest(draws, distribution.cdf).pvalue > 1e-3
    assert prior.is_proper


def test_half_student_draws() -> None:
    draws = bg.HalfStudentT(3.0, 2.5).draw(np.random.default_rng(2), 20_000)
    assert stats.kstest(draws, lambda x: 2.0 * stats.t(3.0, 0.0, 2.5).cdf(x) - 1.0).pvalue > 1e-3


@pytest.mark.parametrize("prior", [bg.Flat(), bg.HalfFlat()])
def test_flat_priors_cannot_be_drawn(prior: Prior) -> None:
    assert not prior.is_proper
    with pytest.raises(bg.ChoiceError, match="no probability distribution"):
        prior.draw(np.random.default_rng(1), 3)


@pytest.mark.parametrize("eta", [0.6, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("K", [2, 3, 5])
def test_lkj_draws(eta: float, K: int) -> None:
    """Every correlation is 2 Beta(a, a) - 1 with a = eta - 1 + K/2, and det R a product of
    independent betas (Lewandowski et al. 2009)."""
    R = LKJ(eta).draw(np.random.default_rng(3), 20_000, K)
    np.testing.assert_allclose(np.diagonal(R, axis1=1, axis2=2), 1.0, atol=1e-12)
    np.testing.assert_array_equal(R, R.transpose(0, 2, 1))
    a = eta - 1.0 + K / 2.0
    for i, j in ((1, 0), (K - 1, 0), (K - 1, K - 2)):
        assert stats.kstest((R[:, i, j] + 1.0) / 2.0, stats.beta(a, a).cdf).pvalue > 1e-4
    # E log det R = sum over k of E log Beta(eta + (K - 1 - k) / 2, k / 2).
    k = np.arange(1, K)
    first = eta + (K - 1 - k) / 2.0
    from scipy.special import digamma

    expected = np.sum(digamma(first) - digamma(first + k / 2.0))
    logdet = np.linalg.slogdet(R)[1]
    assert logdet.mean() == pytest.approx(expected, abs=5.0 * logdet.std() / np.sqrt(len(R)))


def data(n: int = 48) -> pl.DataFrame:
    rng = np.random.default_rng(4)
    g, x = np.arange(n) % 6, rng.normal(2.0, 1.0, n)
    eta = 0.2 + 0.3 * x + 0.5 * rng.normal(size=6)[g]
    return pl.DataFrame(
        {
            "x": x,
            "g": [f"g{k}" for k in g],
            "value": eta + 0.5 * rng.normal(size=n),
            "count": rng.poisson(np.exp(eta)),
            "yes": np.where(rng.random(n) < 0.5, "yes", "no"),
            "wins": rng.binomial(9, 0.4, n),
            "size": np.full(n, 9),
            "w": rng.uniform(0.5, 4.0, n),
        }
    )


def draws_for(model: Model, S: int = 200, seed: int = 1) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    out = {"beta": np.array([0.2, 0.3])[: model.design.p] + 0.1 * rng.normal(size=(2, S, 2))}
    for term in model.design.random:
        out[f"sd_{term.name}"] = rng.uniform(0.4, 0.6, (2, S, term.K))
        out[f"b_{term.name}"] = 0.5 * rng.normal(size=(2, S, term.J, term.K))
        if term.correlated and term.K > 1:
            out[f"corr_{term.name}"] = LKJ(2.0).draw(rng, 2 * S, term.K).reshape(2, S, 2, 2)
    if model.family.has_scale:
        out["sigma"] = rng.uniform(0.4, 0.6, (2, S))
    return out


# Prior -----------------------------------------------------------------------------------------


def test_prior_predictive_of_a_linear_model_is_normal() -> None:
    """With normal priors and (nearly) known sds every response is normal, of known variance."""
    priors = {
        "(Intercept)": bg.Normal(3.0, 1.0),
        "x": bg.Normal(1.0, 0.5),
        "sd:g": bg.Gamma(4e6, 2e6),
        "sigma": bg.Gamma(1e6, 2e6),
    }
    model = bg.model("value ~ x + (1|g)", data(), weights="w", priors=priors)
    found = model.prior_predictive(4000, seed=1)
    design, x = model.design, model.design.X[:, 1]
    away = x - x.mean()
    variance = 1.0 + (0.5 * away) ** 2 + 4.0 + 0.25 / design.weights
    z = (found.draws - (3.0 + away)) / np.sqrt(variance)
    for i in (0, 7, 30):
        assert stats.kstest(z[:, i], stats.norm.cdf).pvalue > 1e-3
    # Rows of one group share its effect.
    shared = 1.0 + 0.25 * away[0] * away[6] + 4.0
    expected = shared / np.sqrt(variance[0] * variance[6])
    assert np.corrcoef(found.draws[:, 0], found.draws[:, 6])[0, 1] == pytest.approx(
        expected, abs=0.02
    )
    # The intercept of the table is at zero of the covariates.
    at_mean = found.parameters["(Intercept)"] + x.mean() * found.parameters["x"]
    assert stats.kstest(at_mean.to_numpy(), stats.norm(3.0, 1.0).cdf).pvalue > 1e-3
    again = model.prior_predictive(10, seed=1)
    np.testing.assert_array_equal(again.draws, found.draws[:10])


@pytest.mark.slow
def test_prior_predictive_is_pymcs() -> None:
    import pymc as pm

    priors = {
        "slopes": bg.Normal(0, 0.3),
        "sd:g": bg.HalfNormal(0.4),
        "(Intercept)": bg.Normal(0, 1),
    }
    model = bg.model("count ~ x + (x|g)", data(), family="poisson", priors=priors)
    S = 6000
    ours = model.prior_predictive(S, seed=2)
    with model.to_pymc():
        theirs = pm.sample_prior_predictive(S, random_seed=3)
    y = theirs["prior_predictive"]["y"].values[0]
    prior = theirs["prior"]
    for name, mine in (
        ("sd_g", ours.parameters.select("sd:g:(Intercept)", "sd:g:x").to_numpy()),
        ("beta", ours.parameters.select("(Intercept)", "x").to_numpy()),
        ("corr_g", ours.parameters["corr:g:(Intercept):x"].to_numpy()),
    ):
        other = prior[name].values[0]
        other = other[:, 1, 0] if name == "corr_g" else other
        for a, b in zip(np.atleast_2d(mine.T), np.atleast_2d(other.T), strict=True):
            assert stats.ks_2samp(a, b).pvalue > 1e-3
    for i in (0, 11, 40):
        assert stats.ks_2samp(np.log1p(ours.draws[:, i]), np.log1p(y[:, i])).pvalue > 1e-3


def test_log_prior_is_the_sum_of_its_parts() -> None:
    priors = {"x": bg.StudentT(3, 0, 1), "sd:g:x": bg.HalfNormal(1), "corr:g": bg.LKJ(3)}
    model = bg.model("value ~ x + (x|g)", data(), priors=priors)
    values = draw_parameters(model.priors, model.design, np.random.default_rng(1), 5)
    found = log_prior(model.priors, model.design, values)
    own: dict[str, Any] = model.priors.table(model.design)
    at = values["beta"][:, 0] + model.design.X[:, 1].mean() * values["beta"][:, 1]
    expected = (
        stats.norm.logpdf(at, own["(Intercept)"].mean, own["(Intercept)"].sd)
        + stats.t.logpdf(values["beta"][:, 1], 3)
        + own["sd:g:(Intercept)"].log_density(values["sd_g"][:, 0])
        + stats.halfnorm.logpdf(values["sd_g"][:, 1])
        + 2.0 * np.log(1.0 - values["corr_g"][:, 1, 0] ** 2)
        + own["sigma"].log_density(values["sigma"])
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_counts_beyond_counting_are_null() -> None:
    wide = {"(Intercept)": bg.Normal(0, 60)}
    found = bg.model("count ~ x + (1|g)", data(), family="poisson", priors=wide).prior_predictive(
        50, seed=1
    )
    share = float(np.isinf(found.draws).mean())
    assert 0.05 < share < 0.5
    assert f"{share:.2g} of the responses are too large for a count" in found.table.caption
    nulls = sum(found.table.null_count().row(0))
    assert nulls == np.isinf(found.draws).sum()
    found.plot()


def test_says_which_priors_are_flat() -> None:
    model = bg.model("value ~ x + (1|g)", data(), priors="flat")
    with pytest.raises(
        bg.ChoiceError, match=re.escape("'(Intercept)', 'x', 'sd:g:(Intercept)', 'sigma' have")
    ):
        model.prior_predictive(5)
    with pytest.raises(bg.ChoiceError, match="needs a model; got Fit"):
        bg.prior_predictive(bg.lm("value ~ x", data()).fit())  # type: ignore[arg-type]
    with pytest.raises(bg.ChoiceError, match="draws=0"):
        bg.lm("value ~ x", data()).prior_predictive(0)
    wild = bg.glm("yes ~ x", data(), family="binomial", link="identity")
    with pytest.raises(bg.FitError, match="tighter priors"):
        wild.prior_predictive(50, seed=1)


# Posterior ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("re_", ["fitted", "new", "zero"])
@pytest.mark.parametrize(
    ("formula", "arguments"),
    [
        ("value ~ x + (x|g)", {"weights": "w"}),
        ("yes ~ x + (1|g)", {"family": "binomial"}),
        ("wins ~ x + (1|g)", {"family": "binomial", "trials": "size"}),
    ],
)
def test_posterior_predictive_is_simulate(
    fit_of_draws: Any, formula: str, arguments: dict[str, Any], re_: Any
) -> None:
    frame = data().with_columns(x=pl.when(pl.col("g") == "g3").then(None).otherwise("x"))
    model = bg.model(formula, frame, **arguments)
    fit = fit_of_draws(model, draws_for(model))
    found = fit.posterior_predictive(5, re=re_, seed=3)
    assert found.table.equals(fit.simulate(5, re=re_, seed=3))
    assert found.draws.shape == (5, 40)
    if formula.startswith("wins"):
        assert np.all(found.draws == np.round(found.draws)) and found.draws.max() > 1.0


def test_newdata(fit_of_draws: Any) -> None:
    model = bg.model("value ~ x + (1|g)", data())
    values = draws_for(model)
    values["sigma"] = np.full_like(values["sigma"], 1e-9)
    fit = fit_of_draws(model, values)
    new = pl.DataFrame({"x": [0.0, 1.0, 1.0, 1.0, None], "g": ["g2", "g2", "new", "new", "other"]})
    known = fit.posterior_predictive(400, newdata=new.head(2), seed=1)
    # Every posterior draw is used once: the same mean and spread as the draws' own.
    exact = values["beta"] @ [1.0, 1.0] + values["b_g"][:, :, 2, 0]
    np.testing.assert_allclose(np.sort(known.draws[:, 1]), np.sort(exact.ravel()), atol=1e-7)
    both = fit.posterior_predictive(400, newdata=new, re="fitted+new", seed=1)
    np.testing.assert_allclose(both.draws[:, :2], known.draws, atol=1e-6)
    np.testing.assert_allclose(both.draws[:, 2], both.draws[:, 3], atol=1e-7)  # one new group
    assert np.isnan(both.draws[:, 4]).all() and both.table.row(4) == (None,) * 400
    spread = (both.draws[:, 2] - both.parameters.to_numpy() @ [1.0, 1.0, 0.0, 0.0]).std()
    assert spread == pytest.approx(0.5, abs=0.06)
    fresh = fit.posterior_predictive(400, newdata=new, re="new", seed=1)
    assert np.corrcoef(fresh.draws[:, 1], known.draws[:, 1])[0, 1] < 0.5
    np.testing.assert_allclose(
        fresh.draws[:, 1] - fresh.draws[:, 0], fresh.parameters["x"].to_numpy(), atol=1e-7
    )
    zero = fit.posterior_predictive(400, newdata=new, re="zero", seed=1)
    np.testing.assert_allclose(
        zero.draws[:, 2], zero.parameters.to_numpy()[:, :2].sum(axis=1), atol=1e-7
    )
    assert both.summary()["row"].to_list() == [0, 1, 2, 3, 4]
    assert both.summary()["median"][4] is None
    with pytest.raises(bg.ChoiceError, match="newdata have none"):
        both.plot()
    with pytest.raises(bg.DataError, match=re.escape("row 2: 'g' = 'new' is not a level")):
        fit.posterior_predictive(newdata=new)
    with pytest.raises(bg.DataError, match=re.escape("row 0: 'g' is missing")):
        fit.posterior_predictive(newdata={"x": [1.0], "g": [None]}, re="new")
    with pytest.raises(bg.ChoiceError, match=re.escape("did you mean 'fitted'")):
        fit.posterior_predictive(re="fited")


def test_trials_and_weights_of_newdata(fit_of_draws: Any) -> None:
    model = bg.model("wins ~ x + (1|g)", data(), family="binomial", trials="size")
    fit = fit_of_draws(model, draws_for(model))
    new = pl.DataFrame({"x": [0.0, 1.0], "g": ["g2", "g2"], "n": [1, 1000]})
    found = fit.posterior_predictive(200, newdata=new, trials="n", seed=1)
    assert found.draws[:, 0].max() == 1.0 and 300 < found.draws[:, 1].mean() < 800
    assert found.table.dtypes[0] == pl.Int64
    same = fit.posterior_predictive(200, newdata=new, trials=[1, 1000], seed=1)
    np.testing.assert_array_equal(same.draws, found.draws)
    with pytest.raises(bg.DataError, match="have trials; give those of the new rows as trials="):
        fit.posterior_predictive(newdata=new)
    with pytest.raises(bg.DataError, match="trials='m' is no column"):
        fit.posterior_predictive(newdata=new, trials="m")
    with pytest.raises(bg.DataError, match="newdata has 2 rows"):
        fit.posterior_predictive(newdata=new, trials=[1.0])
    with pytest.raises(bg.DataError, match="positive"):
        fit.posterior_predictive(newdata=new, trials=[1.0, 0.0])
    with pytest.raises(bg.ChoiceError, match="are for newdata"):
        fit.posterior_predictive(trials="size")
    linear = bg.model("value ~ x + (1|g)", data(), weights="w")
    fit = fit_of_draws(linear, draws_for(linear))
    with pytest.raises(bg.DataError, match="weights="):
        fit.posterior_predictive(newdata=new)
    with pytest.raises(bg.ChoiceError, match=re.escape("have no trials; it has weights")):
        fit.posterior_predictive(newdata=new, trials="n", weights="n")
    wide, narrow = (
        fit.posterior_predictive(400, newdata=new, weights=[w, w], seed=1).draws[:, 0].std()
        for w in (0.01, 100.0)
    )
    assert wide > 3.0 * narrow


def test_pp_check(fit_of_draws: Any) -> None:
    for formula, family in (
        ("value ~ x + (1|g)", "gaussian"),
        ("count ~ x + (1|g)", "poisson"),
        ("yes ~ x + (1|g)", "binomial"),
    ):
        model = bg.model(formula, data(), family=family)
        figure = fit_of_draws(model, draws_for(model)).pp_check(20, seed=1)
        (axis,) = figure.axes
        assert len(axis.lines) == 21
        *_, curve = axis.lines
        x, y = np.asarray(curve.get_xdata()), np.asarray(curve.get_ydata())
        area = y.sum() * (x[1] - x[0] if family == "gaussian" else 1.0)
        assert area == pytest.approx(1.0, abs=0.06)
    with pytest.raises(bg.ChoiceError, match="nuts"):
        bg.lm("value ~ x", data()).fit().pp_check()
