"""fit("laplace") against dense integration, and against what must not change it."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
from scipy import stats

import bayesglmm as bg
from bayesglmm.approximate import LaplaceDiagnostics, run
from bayesglmm.approximate.generalised import GeneralisedPosterior
from bayesglmm.approximate.run import approximate, find_mode, log_posterior
from bayesglmm.approximate.weights import effective, estimated_shift, resample, shift, smoothed
from bayesglmm.errors import BayesglmmWarning, ChoiceError, FitError, OptionError
from bayesglmm.model import Model
from bayesglmm.nuts import Sampled
from bayesglmm.nuts.diagnostics import Diagnostics
from bayesglmm.posterior.approximated import LaplacePosterior
from bayesglmm.posterior.sampled import SampledPosterior
from bayesglmm.priors import Prior


def data(seed: int = 1, n: int = 60, groups: int = 6) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    g, x = np.arange(n) % groups, rng.normal(size=n)
    eta = 0.3 + 0.5 * x + 0.8 * rng.normal(size=groups)[g]
    return pl.DataFrame(
        {
            "x": x,
            "f": rng.choice(["u", "v"], n),
            "g": [f"g{k}" for k in g],
            "h": [f"h{k}" for k in rng.integers(0, 4, n)],
            "count": rng.poisson(np.exp(eta)),
            "yes": rng.binomial(1, 1 / (1 + np.exp(-eta))),
            "wins": rng.binomial(7, 1 / (1 + np.exp(-eta))),
            "size": np.full(n, 7),
            "value": eta + rng.normal(size=n),
            "w": rng.uniform(0.5, 2.0, n),
            "positive": np.exp(0.3 * eta) + 0.3 * rng.normal(size=n),
        }
    )


MODELS = {
    "lm": lambda d: bg.lm("value ~ x + f", d),
    "lm, weights": lambda d: bg.lm("value ~ x", d, weights="w", priors="flat"),
    "lmm": lambda d: bg.lmer("value ~ x + (x|g) + (1|h)", d, weights="w"),
    "lmm, other priors": lambda d: bg.lmer(
        "value ~ x + (x||g)", d, priors={"x": bg.StudentT(3, 0, 1), "sd:g": bg.Gamma(2, 1)}
    ),
    "glm": lambda d: bg.glm("count ~ x * f", d, family="poisson"),
    "glm, scale": lambda d: bg.glm("positive ~ x", d, family="gaussian", link="log"),
    "poisson": lambda d: bg.glmer("count ~ x + (x|g) + (1|h)", d, family="poisson"),
    "nested": lambda d: bg.glmer("yes ~ 0 + f + (1|g/h)", d, family="binomial"),
    "probit": lambda d: bg.glmer("yes ~ x + (1|g)", d, family="binomial", link="probit"),
    "trials": lambda d: bg.glmer("cbind(wins, size - wins) ~ x + (1|g)", d, family="binomial"),
    "scale": lambda d: bg.glmer("positive ~ x + (1|g)", d, family="gaussian", link="log"),
}


@pytest.mark.parametrize("name", MODELS)
def test_gradient_is_that_of_the_value(name: str) -> None:
    posterior = log_posterior(MODELS[name](data()), 1)
    rng = np.random.default_rng(2)
    x = posterior.start + 0.3 * posterior.scale * rng.normal(size=posterior.size)
    value, gradient = posterior(x)
    step = 1e-5
    numeric = [
        (posterior(x + step * e)[0] - posterior(x - step * e)[0]) / (2 * step)
        for e in np.eye(posterior.size)
    ]
    np.testing.assert_allclose(gradient, numeric, atol=1e-6 * np.abs(gradient).max())
    # Modes only as near as draws need them do not change the value.
    assert posterior.look(x)[0] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("name", ["lmm", "poisson", "nested", "glm, scale"])
def test_mode(name: str) -> None:
    posterior = log_posterior(MODELS[name](data()), 1)
    mode = find_mode(posterior)
    assert mode.converged
    assert np.abs(mode.gradient * posterior.scale).max() < 1e-5
    rng = np.random.default_rng(1)
    for _ in range(5):
        near = mode.x + 0.1 * posterior.scale * rng.normal(size=posterior.size)
        assert posterior(near)[0] < mode.value


def test_flat_priors_leave_the_likelihood() -> None:
    glm = bg.glm("count ~ x", data(), family="poisson", priors="flat")
    at = approximate(glm, bg.Laplace(seed=1, draws=100, proposals=200))
    top = log_posterior(glm, 1)
    assert isinstance(top, GeneralisedPosterior)
    np.testing.assert_allclose(
        top.root @ at.mode.x, glm.fit().params["estimate"].to_numpy(), atol=1e-6
    )
    # With random effects the Jacobian of log sd is left: slope one at the ML estimate.
    mixed = bg.glmer("count ~ x + (1|g)", data(), family="poisson", priors="flat")
    ml, top = mixed.fit(), log_posterior(mixed, 1)
    assert isinstance(top, GeneralisedPosterior)
    beta = np.linalg.solve(top.root, ml.params["estimate"].to_numpy())
    log_sd = float(np.log(ml.varcorr["estimate"].to_numpy()[0]))
    value, gradient = top(np.append(log_sd, beta))
    np.testing.assert_allclose(gradient, [1.0, 0.0, 0.0], atol=1e-5)
    assert value - log_sd == pytest.approx(ml.loglik, abs=1e-8)


def said_of(fit: bg.Fit) -> LaplaceDiagnostics:
    assert isinstance(fit.posterior, LaplacePosterior)
    return fit.posterior.run.diagnostics


def draws_of(fit: bg.Fit, name: str) -> np.ndarray:
    assert isinstance(fit.posterior, LaplacePosterior)
    return fit.posterior.run.values(name)


# --- against dense integration ------------------------------------------------------------------


def moments(log_density: np.ndarray, *values: np.ndarray) -> list[tuple[float, float]]:
    """Mean and sd of each array of values under a density on a grid."""
    weight = np.exp(log_density - log_density.max())
    weight /= weight.sum()
    means = [float(np.sum(weight * v)) for v in values]
    return [
        (m, float(np.sqrt(np.sum(weight * (v - m) ** 2))))
        for m, v in zip(means, values, strict=True)
    ]


def test_linear_mixed_model_against_integration() -> None:
    d = data(n=24, groups=4)
    priors = {
        "(Intercept)": bg.Normal(0, 2),
        "x": bg.Normal(0, 1),
        "sd:g": bg.HalfNormal(1),
        "sigma": bg.Exponential(1),
    }
    fit = bg.lmer("value ~ x + (1|g)", d, priors=priors).fit("laplace", seed=1, draws=10000)
    X = np.column_stack([np.ones(24), d["x"]])
    Z = (d["g"].to_numpy()[:, None] == np.array(["g0", "g1", "g2", "g3"])).astype(float)
    y, mean = d["value"].to_numpy(), float(d["x"].to_numpy().mean())
    # The intercept's prior is at the mean of x: beta_0 + mean * beta_x ~ N(0, 2).
    A = np.array([[1.0, -mean], [0.0, 1.0]])
    P = A @ np.diag([4.0, 1.0]) @ A.T
    t, s = np.meshgrid(np.linspace(-7, 2.5, 150), np.linspace(-1, 1, 80), indexing="ij")
    log, beta, b = np.empty(t.shape), np.empty((*t.shape, 2)), np.empty((*t.shape, 4))
    beta_sq, b_sq = np.empty((*t.shape, 2)), np.empty((*t.shape, 4))
    for at in np.ndindex(t.shape):
        tau, sigma = np.exp(t[at]), np.exp(s[at])
        V = X @ P @ X.T + tau**2 * Z @ Z.T + sigma**2 * np.eye(24)
        L = np.linalg.cholesky(V)
        e = np.linalg.solve(L, y)
        log[at] = -0.5 * e @ e - np.log(np.diag(L)).sum() - 0.5 * tau**2 - sigma + t[at] + s[at]
        solved, left = np.linalg.solve(L.T, e), np.linalg.solve(L, X @ P)
        beta[at], right = P @ X.T @ solved, np.linalg.solve(L, tau**2 * Z)
        b[at] = tau**2 * Z.T @ solved
        beta_sq[at] = beta[at] ** 2 + np.diag(P - left.T @ left)
        b_sq[at] = b[at] ** 2 + tau**2 - np.sum(right**2, axis=0)
    truth = moments(log, np.exp(t), np.exp(s))
    for square, mean_of in [(beta_sq, beta), (b_sq, b)]:
        for k in range(mean_of.shape[-1]):
            first = moments(log, mean_of[..., k], square[..., k])
            truth.append((first[0][0], float(np.sqrt(first[1][0] - first[0][0] ** 2))))
    found = pl.concat(
        [f.select("estimate", "std_error") for f in (fit.varcorr, fit.params, fit.ranef)]
    )
    assert said_of(fit).k_hat < 0.5
    mean_, sd = np.array(truth).T
    np.testing.assert_allclose((found["estimate"].to_numpy() - mean_) / sd, 0.0, atol=0.04)
    np.testing.assert_allclose(found["std_error"].to_numpy() / sd, 1.0, atol=0.04)


@dataclass(frozen=True)
class Truth:
    """Posterior moments of a Bernoulli model with 4 groups: beta, sd, b_0."""

    mean: np.ndarray
    sd: np.ndarray


@cache
def bernoulli() -> tuple[Model, Truth]:
    y = np.array([1, 1, 1, 1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 1])
    d = pl.DataFrame({"y": y, "g": np.repeat(list("abcd"), 4)})
    priors = {"(Intercept)": bg.Normal(0, 1.5), "sd:g": bg.HalfNormal(1)}
    model = bg.glmer("y ~ 1 + (1|g)", d, family="binomial", priors=priors)
    wins = y.reshape(4, 4).sum(axis=1)
    z, gap = np.linspace(-8, 8, 401, retstep=True)
    t, beta = np.meshgrid(np.linspace(-8, 2.5, 120), np.linspace(-6, 6, 100), indexing="ij")
    eta = beta[..., None] + np.exp(t)[..., None] * z
    prior = stats.norm.logpdf(z)
    log = stats.norm.logpdf(beta, 0, 1.5) - 0.5 * np.exp(2 * t) + t
    for group, w in enumerate(wins):
        terms = np.exp(w * eta - 4 * np.logaddexp(0, eta) + prior) * gap
        total = terms.sum(axis=-1)
        log = log + np.log(total)
        if group == 0:
            b = [np.exp(k * t) * (terms @ z**k) / total for k in (1, 2)]
    found = moments(log, beta, np.exp(t), b[0], b[1])
    found[2:] = [(found[2][0], float(np.sqrt(found[3][0] - found[2][0] ** 2)))]
    return model, Truth(*np.array(found).T)


def three(fit: bg.Fit) -> tuple[np.ndarray, np.ndarray]:
    frames = [f.select("estimate", "std_error")[0] for f in (fit.params, fit.varcorr, fit.ranef)]
    found = pl.concat(frames)
    return found["estimate"].to_numpy(), found["std_error"].to_numpy()


def test_exact_weights_correct_the_approximation() -> None:
    model, truth = bernoulli()
    fit = model.fit("laplace", seed=1, draws=6000)
    assert said_of(fit).weights == "exact" and said_of(fit).k_hat < 0.5
    mean, sd = three(fit)
    np.testing.assert_allclose((mean - truth.mean) / truth.sd, 0.0, atol=0.05)
    np.testing.assert_allclose(sd / truth.sd, 1.0, atol=0.05)


def test_laplace_weights_are_as_good_as_the_approximation() -> None:
    model, truth = bernoulli()
    exact = model.fit("laplace", seed=1)
    plain = model.fit("laplace", seed=1, weights="laplace")
    off, _ = three(plain)
    error = (off - truth.mean) / truth.sd
    assert 0.03 < np.abs(error).max() < 0.35  # four rows a group
    # The fit with exact weights says how far off it was.
    said, name = said_of(exact).shift
    assert name == "sd of (Intercept) by g"
    assert said == pytest.approx(abs(error[1]), abs=0.05)
    # Quadrature mends the parameters, not the Gaussian that random effects are drawn from.
    mean, _ = three(model.fit("laplace", seed=1, weights="laplace", nagq=15))
    np.testing.assert_allclose((mean - truth.mean)[:2] / truth.sd[:2], 0.0, atol=0.06)


# --- what must not change it --------------------------------------------------------------------


def test_trials_are_rows_and_offsets_are_known() -> None:
    d = data(n=24, groups=4)
    priors = {"(Intercept)": bg.Normal(0, 1.5), "x": bg.Normal(0, 1), "sd:g": bg.HalfNormal(1)}
    together = bg.glmer("cbind(wins, size - wins) ~ x + (1|g)", d, family="binomial", priors=priors)
    rows = d.select(
        "x",
        "g",
        y=pl.struct("wins").map_elements(
            lambda s: [1] * s["wins"] + [0] * (7 - s["wins"]), return_dtype=pl.List(pl.Int64)
        ),
    ).explode("y")
    apart = bg.glmer("y ~ x + (1|g)", rows, family="binomial", priors=priors)
    modes = [find_mode(log_posterior(m, 1)) for m in (together, apart)]
    tops = [log_posterior(m, 1) for m in (together, apart)]
    assert modes[0].x[0] == pytest.approx(modes[1].x[0], abs=1e-6)
    betas = [t.root @ m.x[1:] for t, m in zip(tops, modes, strict=True)]  # type: ignore[attr-defined]
    np.testing.assert_allclose(betas[0], betas[1], atol=1e-6)

    moved = bg.glmer(
        "count ~ x + offset(2 * x) + (1|g)",
        d,
        family="poisson",
        priors={**priors, "x": bg.Normal(-2, 1), "(Intercept)": bg.Flat()},
    )
    plain = bg.glmer(
        "count ~ x + (1|g)", d, family="poisson", priors={**priors, "(Intercept)": bg.Flat()}
    )
    tops = [log_posterior(m, 1) for m in (moved, plain)]
    modes = [find_mode(t) for t in tops]
    betas = [t.root @ m.x[1:] for t, m in zip(tops, modes, strict=True)]  # type: ignore[attr-defined]
    np.testing.assert_allclose(betas[0] + [0.0, 2.0], betas[1], atol=1e-6)


@pytest.mark.filterwarnings("ignore::bayesglmm.errors.BayesglmmWarning")  # of the unseeded run
def test_seeds_reproduce_whatever_the_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["poisson"](data())
    first = model.fit("laplace", seed=5, draws=200, proposals=400)
    monkeypatch.setattr(run, "workers", lambda: 3)
    again = model.fit("laplace", seed=5, draws=200, proposals=400)
    other = model.fit("laplace", seed=6, draws=200, proposals=400)
    for name in ("beta", "b_g", "b_h", "corr_g"):
        same = draws_of(first, name)
        np.testing.assert_array_equal(same, draws_of(again, name))
        assert not np.array_equal(same, draws_of(other, name))
    fresh = model.fit("laplace", draws=50, proposals=400).posterior
    assert isinstance(fresh, LaplacePosterior) and fresh.run.options.seed is not None


@dataclass(frozen=True, slots=True)
class Own(Prior):
    """A normal prior that the engines do not know."""

    sd: float
    support: ClassVar[Any] = "real"

    def log_density(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(stats.norm.logpdf(x, 0.0, self.sd))


@dataclass(frozen=True, slots=True)
class OwnHalf(Own):
    support: ClassVar[Any] = "positive"


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_priors_of_the_users_own(family: str) -> None:
    response = "value" if family == "gaussian" else "count"
    known = {"x": bg.Normal(0, 0.5), "(Intercept)": bg.Normal(0, 2), "sd:g": bg.HalfNormal(0.7)}
    own = {"x": Own(0.5), "(Intercept)": Own(2.0), "sd:g": OwnHalf(0.7)}
    fits = [
        bg.glmer(f"{response} ~ x + (1|g)", data(), family=family, priors=p).fit(
            "laplace", seed=1, draws=2000
        )
        for p in (known, own)
    ]
    for table in ("params", "varcorr"):
        one, two = (getattr(fit, table) for fit in fits)
        away = (one["estimate"] - two["estimate"]) / one["std_error"]
        assert np.abs(away.to_numpy()).max() < 0.12


# --- degenerate data ----------------------------------------------------------------------------


def separated() -> pl.DataFrame:
    x = np.linspace(-2, 2, 40)
    return pl.DataFrame({"y": (x > 0).astype(int), "x": x, "g": list("abcde") * 8})


def test_separated_data_have_a_posterior_with_proper_priors() -> None:
    fit = bg.glmer("y ~ x + (1|g)", separated(), family="binomial").fit("laplace", seed=1)
    assert said_of(fit).k_hat < 0.7
    row = fit.params.row(1, named=True)
    assert 0.0 < row["conf_low"] < row["estimate"] < 20.0


def test_singular_estimates_have_a_posterior() -> None:
    rng = np.random.default_rng(5)
    d = pl.DataFrame(
        {"y": rng.normal(size=80), "x": rng.normal(size=80), "g": list("abcdefgh") * 10}
    )
    fit = bg.lmer("y ~ x + (x|g)", d).fit("laplace", seed=1)
    assert said_of(fit).k_hat < 0.7 and said_of(fit).effective > 1000


@pytest.mark.parametrize("formula", ["y ~ x", "y ~ x + (1|g)"])
def test_flat_priors_with_separation_are_refused(formula: str) -> None:
    make = bg.glmer if "|" in formula else bg.glm
    with pytest.raises(FitError, match=r"improper: x separates.*bg.Normal"):
        make(formula, separated(), family="binomial", priors="flat").fit("laplace")


def test_too_few_levels_for_a_flat_prior_are_refused() -> None:
    d = data().filter(pl.col("g").is_in(["g0", "g1"]))
    with pytest.raises(FitError, match=r"improper.*learnt from 2 levels.*sd:g.*HalfStudentT"):
        bg.lmer("value ~ x + (1|g)", d, priors="flat").fit("laplace")
    # Levels of failures only leave their effects unbounded.
    y = {"y": [0, 0, 0, 0, 1, 0, 1, 0], "g": list("aabbccdd")}
    with pytest.raises(FitError, match=r"improper.*learnt from 2 of its 4 levels"):
        bg.glmer("y ~ 1 + (1|g)", y, family="binomial", priors="flat").fit("laplace")
    with pytest.raises(FitError, match="improper: 2 rows"):
        bg.lm("y ~ x", {"y": [1.0, 2.0], "x": [0.0, 1.0]}, priors="flat").fit("laplace")


# --- weights ------------------------------------------------------------------------------------


def test_resampling_repeats_points_no_more_than_it_must() -> None:
    rng = np.random.default_rng(1)
    weights = smoothed(rng.normal(size=500))
    counts = np.bincount(resample(weights, 300, rng), minlength=500)
    expected = 300 * weights.values
    assert np.all((counts >= np.floor(expected)) & (counts <= np.ceil(expected)))
    equal = smoothed(np.zeros(500))
    assert len(np.unique(resample(equal, 300, rng))) == 300
    assert effective(equal, 300) == pytest.approx(300) and effective(equal, 500) == 500
    assert effective(weights, 500) == pytest.approx(weights.size)


def test_weights_that_are_not_sound_are_known() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=2000)
    good = smoothed(stats.norm.logpdf(x, 0.3) - stats.norm.logpdf(x))
    assert good.k_hat < 0.5 and float(good.values @ x) == pytest.approx(0.3, abs=0.08)
    assert smoothed(stats.t.logpdf(x, 2) - stats.norm.logpdf(x)).k_hat > 0.5
    lost = smoothed(np.where(x > 2, -np.inf, 0.0))
    assert lost.values[x > 2].sum() == 0.0


def test_shifts() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20000, 1))
    equal = np.full(20000, 1 / 20000)
    tilted = np.exp(0.2 * x[:, 0])
    assert shift(x, equal, tilted / tilted.sum())[0] == pytest.approx(0.2, abs=0.02)
    # Its mean moves with x by -0.1, and half its variance by 0.3.
    noise = rng.normal(size=20000) * np.sqrt(np.maximum(2.0 + 0.6 * x[:, 0], 0.0))
    found, error = estimated_shift(x, -0.1 * x[:, 0] + noise, equal)
    assert found[0] == pytest.approx(0.2, abs=4 * error[0]) and error[0] < 0.05


# --- the fit ------------------------------------------------------------------------------------


def test_everything_that_a_fit_does() -> None:
    model = bg.glmer("count ~ x + f + (x|g) + (1|h)", data(), family="poisson")
    fit = model.fit("laplace", seed=1, draws=500)
    assert fit.method.startswith("Laplace (500 draws, k-hat ")
    assert {"ess", "mcse"} <= set(fit.params.columns) and "r_hat" not in fit.params.columns
    assert fit.varcorr["kind"].to_list() == ["sd", "sd", "corr", "sd"]
    assert fit.ranef.height == 6 * 2 + 4 and fit.coef.height > fit.ranef.height
    assert fit.predict().height == 60 and fit.simulate(2, seed=1).height == 60
    means = fit.emmeans("f", contrasts="pairwise")
    assert "ess" in means.columns
    assert fit.residuals().height == 60
    assert fit.vcov.shape == (3, 3) and fit.icc().height and fit.r2().height
    tree = fit.to_arviz()["posterior"]
    assert tree["b_g"].dims == ("chain", "draw", "g", "g_term")
    assert tree["corr_g"].shape == (1, 500, 2, 2)
    np.testing.assert_allclose(tree["corr_g"].values[..., 0, 0], 1.0)
    text = fit.summary().text()
    assert "posterior by Laplace's approximation" in text and "k-hat" in text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesglmmWarning)  # the ML fit is singular
        compared = bg.compare(model.fit(), fit)
    assert compared.names == ("ML-Laplace", "Laplace")
    assert np.abs(compared.table["Laplace_shift"].to_numpy()[:3]).max() < 1.0
    with pytest.raises(ChoiceError, match="belongs to an ML fit"):
        _ = fit.loglik


def test_sampling_is_compared_with_what_stands_for_it() -> None:
    model = bg.lmer("value ~ x + (1|g)", data())
    ml, laplace = model.fit(), model.fit("laplace", seed=1, draws=200)
    none = Diagnostics((1.0, ""), (200.0, ""), (200.0, ""), 0, 0, 1.0, ())
    run = Sampled(laplace.to_arviz(), bg.NUTS(draws=200, chains=1), {}, none, 0.0, 0.0)
    nuts = bg.Fit(model, run.options, SampledPosterior(model.design, run))
    for fits, said in (
        ((ml, laplace, nuts), ["Laplace from ML", "NUTS from ML", "NUTS from Laplace"]),
        ((nuts, laplace), ["NUTS from Laplace"]),
        ((laplace, ml), []),
    ):
        caption = bg.compare(*fits).table.caption
        assert re.findall(r"\w+ from \w+(?=: means)", caption) == said
        assert ("NUTS from Laplace: means differ by at most 0.00 posterior" in caption) == (
            "NUTS from Laplace" in said
        )


def test_a_fit_not_to_be_trusted_says_so() -> None:
    # One row a level: the Gaussian of each effect is wrong, and there are many.
    rng = np.random.default_rng(1)
    d = pl.DataFrame({"y": rng.poisson(0.3, 400), "g": [str(k) for k in range(400)]})
    model = bg.glmer("y ~ 1 + (1|g)", d, family="poisson")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = model.fit("laplace", seed=1, draws=100, proposals=100)
    said = said_of(fit)
    assert bool(said.notes) == any(issubclass(w.category, BayesglmmWarning) for w in caught)
    assert said.k_hat_exact != said.k_hat_laplace
    assert any(word in said.trust for word in ("Laplace's approximation", "do not trust"))


def test_bad_options() -> None:
    model = MODELS["poisson"](data())
    with pytest.raises(OptionError, match=r"no option 'drows'.*draws"):
        model.fit("laplace", drows=10)
    with pytest.raises(ChoiceError, match="single random-effects term"):
        model.fit("laplace", nagq=5)
    for bad in ({"draws": 0}, {"proposals": 5}, {"seed": -1}, {"nagq": 0}, {"draws": True}):
        with pytest.raises(ChoiceError, match="whole number"):
            bg.Laplace(**bad)
    with pytest.raises(ChoiceError, match="weights"):
        bg.Laplace(weights="exakt")  # type: ignore[arg-type]
