"""Marginal likelihoods and Bayes factors against integrals known exactly or by other means."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import gammaln, logsumexp

import bayesglmm as bg
from bayesglmm.model import Model
from bayesglmm.nuts.laplace_target import laplace_target
from bayesglmm.nuts.run import run
from bayesglmm.nuts.sampler import compiled_target
from bayesglmm.nuts.target import Target
from bayesglmm.post.bridge import bridge, normal_like

Array = NDArray[np.float64]
OPTIONS: dict[str, Any] = {
    "tune": 300,
    "target_accept": 0.9,
    "adaptation": "diag",
    "progress": False,
}


def draws(target: Target, seed: int = 1, size: int = 500) -> dict[str, Array]:
    return run(target, bg.NUTS(draws=size, chains=4, seed=seed, **OPTIONS), seed).values


def points(target: Target, values: dict[str, Array]) -> Array:
    assert target.coordinates is not None
    flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in values.items()}
    return target.coordinates(flat).reshape(*values["beta"].shape[:2], -1)


def grouped(levels: int, rows: int, seed: int = 3) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(levels), rows)
    x = rng.normal(size=len(g))
    eta = 0.5 + 0.3 * x + 0.7 * rng.normal(size=levels)[g]
    return pl.DataFrame(
        {
            "g": [f"g{k}" for k in g],
            "x": x,
            "count": rng.poisson(np.exp(eta)),
            "yes": rng.binomial(1, 1.0 / (1.0 + np.exp(-eta))),
            "wins": rng.binomial(4, 1.0 / (1.0 + np.exp(-eta))),
            "size": np.full(len(g), 4),
            "value": eta + 0.8 * rng.normal(size=len(g)),
        }
    )


PRIORS = {
    "(Intercept)": bg.Normal(0, 1.5),
    "x": bg.Normal(0, 1.0),
    "sd:g": bg.HalfNormal(1.0),
    "sigma": bg.Exponential(1.0),
}


def priors(*names: str) -> dict[str, bg.priors.Prior]:
    return {name: PRIORS[name] for name in names}


PRIORS_NO_SIGMA = priors("(Intercept)", "x", "sd:g")


# --- the bridge itself ----------------------------------------------------------------------


def autocorrelated(rng: np.random.Generator, shape: tuple[int, ...], rho: float) -> Array:
    """Standard normal chains (chains, draws, size) with autocorrelation rho."""
    z = rng.normal(size=shape)
    for t in range(1, shape[1]):
        z[:, t] = rho * z[:, t - 1] + np.sqrt(1.0 - rho**2) * z[:, t]
    return z


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_errors_are_what_they_say(rho: float) -> None:
    """A skewed density with integral e^3: log of a gamma variable, and a normal beside it."""
    shape = 2.5
    constant = 3.0 - gammaln(shape) - 0.5 * np.log(2.0 * np.pi)

    def log_density(x: Array, gradient: Array) -> float:
        return float(constant + shape * x[0] - np.exp(x[0]) - 0.5 * (x[1] - x[0]) ** 2)

    scores, rng = [], np.random.default_rng(1)
    for k in range(25):
        z = autocorrelated(rng, (4, 150, 2), rho)
        a = np.log(stats.gamma(shape).ppf(stats.norm.cdf(z[..., 0])))
        found = bridge(log_density, np.stack([a, a + z[..., 1]], axis=-1), k)
        scores.append((found.log_integral - 3.0) / found.error)
        assert found.error < 0.05
    assert abs(np.mean(scores)) < 3.0 / np.sqrt(len(scores))
    assert 0.5 < np.std(scores) < 1.35


def test_errors_in_many_dimensions() -> None:
    """The proposals' errors are common to both halves, and all that there is here."""
    rng, size = np.random.default_rng(7), 15

    def log_density(x: Array, gradient: Array) -> float:
        return float(-0.5 * (x @ x))

    scores = []
    for k in range(30):
        found = bridge(log_density, rng.normal(size=(4, 100, size)), k)
        scores.append((found.log_integral - 0.5 * size * np.log(2.0 * np.pi)) / found.error)
    assert abs(np.mean(scores)) < 3.0 / np.sqrt(len(scores))
    assert 0.5 < np.std(scores) < 1.35


def test_a_normal_density_leaves_no_error_but_that_of_its_fit() -> None:
    rng = np.random.default_rng(2)
    L = np.array([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [-3.0, 0.5, 1.5]])
    normal = stats.multivariate_normal([1.0, -2.0, 5.0], L @ L.T)
    x = np.array([1.0, -2.0, 5.0]) + rng.normal(size=(4, 500, 3)) @ L.T
    found = bridge(lambda x, gradient: float(normal.logpdf(x)) - 7.0, x, 0)
    assert found.log_integral == pytest.approx(-7.0, abs=4 * found.error)
    assert found.error < 0.01
    same = bridge(lambda x, gradient: float(normal.logpdf(x)) - 7.0, x, 0)
    assert same == found


def test_noise_in_many_correlations_does_not_matter() -> None:
    size = 300
    x = autocorrelated(np.random.default_rng(8), (4, 250, size), 0.5)
    found = bridge(lambda x, gradient: float(-0.5 * (x @ x)), x, 0)
    assert found.error < 0.15
    exact = 0.5 * size * np.log(2.0 * np.pi)
    assert found.log_integral == pytest.approx(exact, abs=4 * found.error)


def test_covariances_are_shrunk_where_they_are_noise_only() -> None:
    rng = np.random.default_rng(3)
    _, root = normal_like(rng.normal(size=(4, 100, 150)))
    assert np.max(np.abs(root - np.diag(np.diag(root)))) < 0.02
    _, root = normal_like(rng.normal(size=(4, 500, 1)) @ np.ones((1, 3)) + np.zeros(3) + 0.01)
    cov = root @ root.T
    assert np.all(cov / np.sqrt(np.outer(np.diag(cov), np.diag(cov))) > 0.999)


# --- against exact integrals ----------------------------------------------------------------


def gaussian_by_quadrature(model: Model) -> float:
    """log p(y) of value ~ ... + (1|g) or without: (beta, b) in closed form, the sds on a grid."""
    design, own = model.design, model.priors
    T = np.eye(design.p)
    T[0] = design.X.mean(axis=0)  # the intercept's prior is at the mean of the covariates
    half = design.X @ np.linalg.inv(T) @ np.diag([p.sd for p in own.coefficients])  # type: ignore[attr-defined]
    mean = design.X @ np.linalg.inv(T) @ [p.mean for p in own.coefficients]  # type: ignore[attr-defined]
    base = half @ half.T
    same = np.zeros((design.n, design.n))
    log_sd, weights = np.zeros(1), np.zeros(1)
    sd = np.zeros(1)
    if design.random:
        index = design.random[0].index
        same = (index[:, None] == index).astype(float)
        log_sd = np.linspace(-9.0, 2.5, 120)
        sd = np.exp(log_sd)
        weights = own.sds[0][0].log_density(sd) + log_sd + np.log(log_sd[1] - log_sd[0])
    log_sigma = np.linspace(-1.6, 1.2, 90)
    sigma = np.exp(log_sigma)
    step = np.log(log_sigma[1] - log_sigma[0])
    outer = own.sigma[0].log_density(sigma) + log_sigma + step
    total = [
        stats.multivariate_normal(mean, base + a**2 * same + s**2 * np.eye(design.n)).logpdf(
            design.y
        )
        + w
        + v
        for a, w in zip(sd, weights, strict=True)
        for s, v in zip(sigma, outer, strict=True)
    ]
    return float(logsumexp(total))


@pytest.mark.parametrize("formula", ["value ~ x", "value ~ x + (1|g)"])
def test_gaussian_models(fit_of_draws: Any, formula: str) -> None:
    """With the effects integrated out, and all parameters in Laplace coordinates."""
    given = PRIORS if "g" in formula else priors("(Intercept)", "x", "sigma")
    model = bg.model(formula, grouped(6, 4), priors=given)
    exact = gaussian_by_quadrature(model)
    short = compiled_target(model)
    assert short is not None and short.size == (2 if "g" in formula else 1)
    found = fit_of_draws(model, draws(short)).marginal_likelihood()
    error = found["std_error"][0]
    assert error < 0.01
    assert found["log_marginal_likelihood"][0] == pytest.approx(exact, abs=4 * error + 1e-4)
    assert "integrated out exactly" in found.caption

    full = laplace_target(model)
    whole = bridge(full.log_density, points(full, draws(full)), 2)
    assert full.size > short.size and whole.error < 0.05
    assert whole.log_integral == pytest.approx(exact, abs=4 * whole.error)


def test_a_small_poisson_model(fit_of_draws: Any) -> None:
    """Against dense quadrature over the intercept, the sd and every effect."""
    g = np.repeat(np.arange(3), 5)
    rng = np.random.default_rng(5)
    frame = pl.DataFrame({"g": [f"g{k}" for k in g], "y": rng.poisson(np.exp(0.4 * g))})
    own = priors("(Intercept)", "sd:g")
    model = bg.glmer("y ~ 1 + (1|g)", frame, family="poisson", priors=own)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / np.sqrt(2.0 * np.pi)
    beta, sd = np.linspace(-4.0, 4.0, 201), np.linspace(1e-4, 6.0, 400)
    eta = beta[:, None, None] + sd[:, None] * nodes
    log_joint = stats.norm(0, 1.5).logpdf(beta)[:, None] + stats.halfnorm(0, 1).logpdf(sd)
    y = model.likelihood.y
    for level in range(3):
        own_rows = y[model.design.random[0].index == level]
        log_likelihood = sum(stats.poisson(np.exp(eta)).logpmf(v) for v in own_rows)
        log_joint = log_joint + np.log(np.exp(log_likelihood) @ weights)
    exact = float(np.log(np.trapezoid(np.trapezoid(np.exp(log_joint), sd, axis=1), beta)))

    fit = fit_of_draws(model, draws(laplace_target(model)))
    found = fit.marginal_likelihood()
    assert found["std_error"][0] < 0.02
    assert abs(found["log_marginal_likelihood"][0] - exact) < 4 * found["std_error"][0]
    assert found["dimensions"][0] == 5 and found["draws"][0] == 2000


def test_seventy_dimensions(fit_of_draws: Any) -> None:
    """Against importance sampling in the same coordinates, with many draws."""
    model = bg.glmer(
        "wins ~ x + (1|g)", grouped(66, 4), family="binomial", trials="size", priors=PRIORS_NO_SIGMA
    )
    target = laplace_target(model)
    found = fit_of_draws(model, draws(target)).marginal_likelihood(seed=3)
    assert found["dimensions"][0] == 69

    rng = np.random.default_rng(4)
    mean, root = normal_like(points(target, draws(target, seed=9)))
    z, gradient = rng.normal(size=(40_000, 69)), np.empty(69)
    ratio = np.array([target.log_density(x, gradient) for x in mean + z @ root.T])
    ratio += 0.5 * np.sum(z**2, axis=1) + 34.5 * np.log(2 * np.pi) + np.log(np.diag(root)).sum()
    weights = np.exp(ratio - ratio.max())
    exact = ratio.max() + np.log(weights.mean())
    error = np.hypot(weights.std() / weights.mean() / 200.0, found["std_error"][0])
    assert error < 0.1
    assert abs(found["log_marginal_likelihood"][0] - exact) < 4 * error


# --- Bayes factors --------------------------------------------------------------------------


def test_nested_models_agree_with_savage_and_dickey(fit_of_draws: Any) -> None:
    frame = grouped(10, 6)
    fits = []
    for formula in ("yes ~ 1 + (1|g)", "yes ~ x + (1|g)"):
        names = ("(Intercept)", "x", "sd:g") if "x" in formula else ("(Intercept)", "sd:g")
        model = bg.glmer(formula, frame, family="binomial", priors=priors(*names))
        fits.append(fit_of_draws(model, draws(laplace_target(model), size=1500)))
    found = bg.bayes_factor(*fits)
    against = fits[1].hypothesis("x = 0")["evid_ratio"][0]  # a kernel estimate
    assert -found["log_bayes_factor"][1] == pytest.approx(np.log(against), abs=0.1)
    assert found["bayes_factor"][1] == pytest.approx(np.exp(found["log_bayes_factor"][1]))
    one, other = (fit.marginal_likelihood() for fit in fits)
    np.testing.assert_array_equal(
        found["log_marginal_likelihood"],
        [t["log_marginal_likelihood"][0] for t in (one, other)],
    )
    assert found["std_error"][1] == pytest.approx(
        np.hypot(one["std_error"][0], other["std_error"][0])
    )
    assert found["prior_prob"].to_list() == [0.5, 0.5]
    assert found["post_prob"][1] == pytest.approx(1.0 / (1.0 + 1.0 / found["bayes_factor"][1]))
    tilted = bg.bayes_factor(*fits, prior_probs=[3, 1])
    odds = tilted["post_prob"][1] / tilted["post_prob"][0]
    assert odds == pytest.approx(found["bayes_factor"][1] / 3.0)
    assert bg.bayes_factor(*fits, prior_probs=[1, 0])["post_prob"].to_list() == [1.0, 0.0]


# --- what is refused ------------------------------------------------------------------------


def expand(target: Target, x: np.ndarray) -> dict[str, np.ndarray]:
    """Nothing is left to noise."""
    return target.expand(x, np.empty((len(x), 0)))


def made(fit_of_draws: Any, model: Model, size: int = 50) -> bg.Fit:
    """A fit with draws of the coordinates about their centre."""
    target = laplace_target(model)
    x = np.random.default_rng(0).normal(size=(2 * size, target.size))
    values = {k: v.reshape(2, size, *v.shape[1:]) for k, v in expand(target, x).items()}
    fit: bg.Fit = fit_of_draws(model, values)
    return fit


def test_what_has_no_marginal_likelihood(fit_of_draws: Any) -> None:
    frame = grouped(6, 4)
    model = bg.glmer("count ~ x + (1|g)", frame, family="poisson")
    with pytest.raises(bg.ChoiceError, match=r"draws by NUTS; .* fitted by ML"):
        model.fit().marginal_likelihood()
    with pytest.raises(bg.ChoiceError, match=r"draws by NUTS; .* fitted by Laplace"):
        model.fit("laplace", draws=200, seed=1).marginal_likelihood()
    with pytest.raises(bg.ChoiceError, match=r"needs a fit; got Model"):
        bg.marginal_likelihood(model)  # type: ignore[arg-type]
    flat = bg.glmer(
        "count ~ x + (1|g)", frame, family="poisson", priors={"x": bg.Flat(), "sd:g": bg.HalfFlat()}
    )
    with pytest.raises(bg.ChoiceError, match=r"flat prior of x, sd:g:\(Intercept\) .* bg.Normal"):
        made(fit_of_draws, flat).marginal_likelihood()
    fit = made(fit_of_draws, model, size=6)
    with pytest.raises(bg.FitError, match=r"8 draws per chain or more; this fit has 6"):
        fit.marginal_likelihood()
    with pytest.raises(bg.ChoiceError, match=r"seed=-1"):
        fit.marginal_likelihood(seed=-1)


def test_priors_without_a_compiled_form(fit_of_draws: Any) -> None:
    class Own(bg.priors.Prior):
        support = "real"

    frame = grouped(6, 4)
    draws = made(fit_of_draws, bg.glmer("count ~ x + (1|g)", frame, family="poisson"))
    values = {name: draws.posterior.run.values(name) for name in ("beta", "sd_g", "b_g")}  # type: ignore[union-attr]
    model = bg.glmer("count ~ x + (1|g)", frame, family="poisson", priors={"x": Own()})
    with pytest.raises(bg.ChoiceError, match=r"no compiled form.*hypothesis\('x = 0'\)"):
        fit_of_draws(model, values).marginal_likelihood()


def test_what_no_bayes_factor_compares(fit_of_draws: Any) -> None:
    frame = grouped(6, 4)
    fit = made(fit_of_draws, bg.glmer("count ~ x + (1|g)", frame, family="poisson"))
    with pytest.raises(bg.ChoiceError, match="two fits or more; got 1"):
        bg.bayes_factor(fit)
    for formula, rows, options, message in [
        ("yes ~ x + (1|g)", frame, {"family": "binomial"}, "their responses differ"),
        ("count ~ x + (1|g)", frame.head(20), {"family": "poisson"}, "24 and 20 rows"),
        ("count ~ x + (1|g)", frame, {"family": "gaussian"}, "a density against a probability"),
        (
            "count ~ x + (1|g)",
            frame.with_columns(w=2),
            {"family": "poisson", "weights": "w"},
            "trials and weights",
        ),
    ]:
        other = made(fit_of_draws, bg.model(formula, rows, **options))  # type: ignore[arg-type]
        with pytest.raises(bg.ChoiceError, match=message):
            bg.bayes_factor(fit, other)
    for given in ([1.0], [0, 0], [-1, 2], "ab", [np.nan, 1]):
        with pytest.raises(bg.DataError, match="give 2 numbers"):
            bg.bayes_factor(fit, fit, prior_probs=given)  # type: ignore[arg-type]


def test_a_bad_bridge_says_so(fit_of_draws: Any) -> None:
    """Draws whose halves are from different places."""
    model = bg.glmer("count ~ x + (1|g)", grouped(6, 4), family="poisson", priors=PRIORS_NO_SIGMA)
    target = laplace_target(model)
    x = np.random.default_rng(0).normal(size=(2, 50, target.size))
    x[:, 25:] += 2.5
    values = expand(target, x.reshape(100, -1))
    fit = fit_of_draws(model, {k: v.reshape(2, 50, *v.shape[1:]) for k, v in values.items()})
    with pytest.warns(bg.BayesglmmWarning, match=r"not reliable: .* fit with more draws"):
        fit.marginal_likelihood()
