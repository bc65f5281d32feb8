"""confint: one table for every method, and what is refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from xarray import Dataset

import bayesglmm as bg
from bayesglmm.errors import ChoiceError
from bayesglmm.nuts import Sampled
from bayesglmm.post.confint import Method
from bayesglmm.posterior.sampled import SampledPosterior
from bayesglmm.tables.table import Table

COLUMNS = ["kind", "group", "term", "term2", "estimate", "conf_low", "conf_high"]


def sleepstudy() -> bg.Model:
    return bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy"))


def drawn(model: bg.Model) -> bg.Fit:
    """A fit whose draws come from a generator, which is quicker than a sampler."""
    rng = np.random.default_rng(1)
    corr = np.tile(np.eye(2), (2, 100, 1, 1))
    corr[..., 0, 1] = corr[..., 1, 0] = rng.uniform(-0.5, 0.7, (2, 100))
    posterior = {
        "beta": (("chain", "draw", "coef"), rng.normal([251.0, 10.0], 5.0, (2, 100, 2))),
        "sd_Subject": (("chain", "draw", "term"), rng.uniform(5.0, 30.0, (2, 100, 2))),
        "corr_Subject": (("chain", "draw", "row", "column"), corr),
        "sigma": (("chain", "draw"), rng.uniform(20.0, 30.0, (2, 100))),
        "b_Subject": (("chain", "draw", "level", "term"), rng.normal(size=(2, 100, 18, 2))),
    }
    unasked: Any = None
    run = Sampled({"posterior": Dataset(posterior)}, bg.NUTS(), {}, unasked, 0.0, 0.0)
    return bg.Fit(model, bg.NUTS(), SampledPosterior(model.design, run))


def ends(table: Table) -> np.ndarray:
    return table.select("estimate", "conf_low", "conf_high").to_numpy()


def test_wald_intervals_are_those_of_params_and_varcorr() -> None:
    fit = sleepstudy().fit("reml")
    table = fit.confint(level=0.9)
    assert table.columns == COLUMNS
    assert table["kind"].to_list() == ["coef", "coef", "sd", "sd", "corr", "residual"]
    assert np.array_equal(ends(table)[:2], ends(bg.params(fit, level=0.9)))
    assert np.array_equal(ends(table)[2:], ends(bg.varcorr(fit, level=0.9)))
    for name in ("group", "term", "term2"):
        assert table[name].to_list()[2:] == bg.varcorr(fit)[name].to_list()
    assert "REML" in table.caption and "90% Wald interval (t)" in table.caption
    assert table.equals(bg.confint(fit, "wald", level=0.9))


def test_all_methods_share_columns_and_rows() -> None:
    fit = sleepstudy().fit()
    wald, profile = fit.confint("wald"), fit.confint("profile")
    assert profile.columns == wald.columns
    assert profile.select(COLUMNS[:4]).equals(wald.select(COLUMNS[:4]))
    assert profile["estimate"].to_numpy() == pytest.approx(wald["estimate"].to_numpy())
    assert "profile-likelihood" in profile.caption


def test_a_model_without_random_effects() -> None:
    fit = bg.lm("mpg ~ wt", bg.load_dataset("mtcars")).fit()
    assert fit.confint()["kind"].to_list() == ["coef", "coef", "residual"]
    assert "divisor n" in fit.confint("profile").caption
    poisson = bg.glm("carb ~ wt", bg.load_dataset("mtcars"), family="poisson").fit()
    assert poisson.confint("profile", which="coef")["kind"].to_list() == ["coef", "coef"]
    with pytest.raises(ChoiceError, match="which='sd' is no parameter"):
        poisson.confint(which="sd")


def test_a_sampled_fit_has_highest_density_intervals_only() -> None:
    fit = drawn(sleepstudy())
    table = fit.confint()
    assert np.array_equal(ends(table)[:2], ends(bg.params(fit)))
    assert np.array_equal(ends(table)[2:], ends(bg.varcorr(fit)))
    assert "95% highest-density interval" in table.caption
    assert table.equals(fit.confint("hdi"))
    methods: tuple[Method, ...] = ("wald", "profile", "boot")
    for method in methods:
        with pytest.raises(ChoiceError, match="draws are the whole posterior"):
            fit.confint(method)
    with pytest.raises(ChoiceError, match="profile needs a fit by maximum likelihood"):
        bg.profile(fit)


def test_bootstrap_intervals() -> None:
    pytest.importorskip("bayesglmm.post.bootstrap")
    fit = sleepstudy().fit()
    table = bg.confint(fit, "boot", nsim=40, seed=1, which=["sd", "Days"])
    assert table.columns == COLUMNS
    assert table["kind"].to_list() == ["coef", "sd", "sd"]
    with ThreadPoolExecutor(2) as pool:
        shared = fit.confint("boot", nsim=40, seed=1, executor=pool, progress=False)
    every = fit.bootstrap(40, seed=1).confint()
    assert shared.to_dict(as_series=False) == every.to_dict(as_series=False)
    with pytest.raises(ChoiceError, match="executor belong to method='boot'"):
        fit.confint("wald", executor=pool)


def test_bad_arguments() -> None:
    fit = sleepstudy().fit()
    with pytest.raises(ChoiceError, match="did you mean 'profile'"):
        fit.confint("profil")  # type: ignore[arg-type]
    with pytest.raises(ChoiceError, match="needs draws"):
        fit.confint("hdi")
    with pytest.raises(ChoiceError, match="between 0 and 1"):
        fit.confint("profile", level=1.0)
    with pytest.raises(ChoiceError, match="did you mean 'Days'"):
        fit.confint(which="days")


def test_covariances_of_effects() -> None:
    fit = sleepstudy().fit()
    found = fit.ranef_vcov
    assert found.columns == ["group", "level", "term", "term2", "covariance"]
    own = found.filter(found["term"] == found["term2"])["covariance"]
    np.testing.assert_allclose(np.sqrt(own), fit.ranef["std_error"], rtol=1e-12)
    # lme4: attr(ranef(fm)$Subject, "postVar")[, , 1]
    np.testing.assert_allclose(found["covariance"][:3], [140.96491, -20.60410, 5.15774], rtol=1e-4)
    sampled = drawn(sleepstudy())
    assert isinstance(sampled.posterior, SampledPosterior)
    b = sampled.posterior.run.values("b_Subject")[:, :, 3].reshape(-1, 2)
    np.testing.assert_allclose(
        sampled.ranef_vcov["covariance"][9:12], np.cov(b.T)[np.tril_indices(2)], atol=1e-12
    )
