"""Hat values, influence, quantile residuals, R2, ICC and conditional AIC by definition."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import integrate, stats

import bayesglmm as bg
from bayesglmm.families import Likelihood
from bayesglmm.laplace import ML, maximum_likelihood
from bayesglmm.laplace.covariance import covariance_of
from bayesglmm.nuts import Sampled
from bayesglmm.posterior.ml import MLPosterior
from bayesglmm.posterior.sampled import SampledPosterior

quiet = pytest.mark.filterwarnings("ignore::bayesglmm.errors.BayesglmmWarning")


@cache
def crossed() -> pl.DataFrame:
    rng = np.random.default_rng(4)
    n = 60
    g, h, x = np.arange(n) % 8, rng.permutation(np.arange(n) % 5), rng.normal(size=n)
    eta = 0.3 + 0.6 * x + rng.normal(size=8)[g] + 0.7 * rng.normal(size=5)[h]
    eta += 0.6 * rng.normal(size=8)[g] * x
    return pl.DataFrame(
        {
            "x": x,
            "g": [f"g{k}" for k in g],
            "h": [f"h{k}" for k in h],
            "w": rng.uniform(0.5, 2.0, n),
            "o": 0.2 * rng.normal(size=n),
            "y": eta + rng.normal(size=n),
            "count": rng.poisson(np.exp(eta)),
            "size": np.full(n, 6),
            "hits": rng.binomial(6, 1 / (1 + np.exp(-eta))),
        }
    )


@cache
def fit_of(kind: str) -> bg.Fit:
    rhs = "x + (x|g) + (1|h)"
    if kind in ("ML", "REML"):
        m = bg.lmer(f"y ~ {rhs}", crossed(), weights="w", offset="o")
        return m.fit("reml" if kind == "REML" else "ml", vcov="hessian")
    if kind == "poisson":
        return bg.glmer(f"count ~ {rhs}", crossed(), family="poisson", offset="o").fit()
    link = kind.removeprefix("binomial-")
    return bg.glmer(f"hits ~ {rhs}", crossed(), family="binomial", link=link, trials="size").fit()


KINDS = ("ML", "REML", "poisson", "binomial-logit", "binomial-probit", "binomial-cloglog")


def estimate_of(fit: bg.Fit) -> Any:
    assert isinstance(fit.posterior, MLPosterior)
    return fit.posterior.estimate


def dense(fit: bg.Fit) -> tuple[np.ndarray, np.ndarray]:
    """Z and the covariance of all random effects."""
    design, at = fit.model.design, estimate_of(fit)
    blocks, cov = [], []
    for t, L in zip(design.random, covariance_of(design.random).lambdas(at.theta), strict=True):
        one = (t.index[:, None] == np.arange(t.J)).astype(float)
        blocks.append(np.einsum("nj,nk->njk", one, t.Z).reshape(design.n, -1))
        cov.append(np.kron(np.eye(t.J), at.sigma**2 * L @ L.T))
    size = sum(len(c) for c in cov)
    G, start = np.zeros((size, size)), 0
    for c in cov:
        G[start : start + len(c), start : start + len(c)] = c
        start += len(c)
    return np.hstack(blocks), G


# Hat values -----------------------------------------------------------------------------------


@quiet
@pytest.mark.parametrize("kind", KINDS)
def test_hat_values_by_dense_algebra(kind: str) -> None:
    fit = fit_of(kind)
    design, at, (Z, G) = fit.model.design, estimate_of(fit), dense(fit)
    w = -fit.model.likelihood.derivatives(at.eta, at.sigma)[1]
    V = np.diag(1.0 / w) + Z @ G @ Z.T
    P = np.linalg.inv(V) - np.linalg.solve(V, design.X) @ np.linalg.solve(
        design.X.T @ np.linalg.solve(V, design.X), np.linalg.solve(V, design.X).T
    )
    hat = np.eye(design.n) - P / w[:, None]  # the fitted working response is (I - W^-1 P) times it
    found = bg.hatvalues(fit)["hat"].to_numpy()
    np.testing.assert_allclose(found, np.diag(hat), rtol=1e-8, atol=1e-10)
    assert np.all((found > 0.0) & (found < 1.0))


def test_hat_values_of_a_linear_mixed_model_are_derivatives() -> None:
    """d mu_hat_i / d y_i at fixed variances, whatever vcov was asked for."""
    fit = fit_of("ML")
    (Z, G), design, at = dense(fit), fit.model.design, estimate_of(fit)
    V = np.diag(at.sigma**2 / design.weights) + Z @ G @ Z.T
    X, y = design.X, design.y - design.offset

    def fitted(response: np.ndarray) -> np.ndarray:
        beta = np.linalg.solve(X.T @ np.linalg.solve(V, X), X.T @ np.linalg.solve(V, response))
        return np.asarray(X @ beta + Z @ G @ Z.T @ np.linalg.solve(V, response - X @ beta))

    np.testing.assert_allclose(fitted(y) + design.offset, at.eta, rtol=1e-7, atol=1e-9)
    steps = np.eye(design.n)
    slopes = [fitted(y + steps[i])[i] - fitted(y)[i] for i in range(design.n)]
    np.testing.assert_allclose(bg.hatvalues(fit)["hat"], slopes, rtol=1e-7)


@pytest.mark.parametrize(
    ("formula", "data", "family"),
    [
        ("mpg ~ wt + hp", "mtcars", "gaussian"),
        ("survived ~ sex + age", "titanic", "binomial"),
        ("TICKS ~ YEAR + HEIGHT", "grouseticks", "poisson"),
    ],
)
def test_hat_values_sum_to_the_number_of_coefficients(formula: str, data: str, family: str) -> None:
    fit = bg.glm(formula, bg.load_dataset(data), family=family).fit()
    hat = bg.hatvalues(fit)["hat"]
    assert len(hat) == fit.model.design.n_rows
    assert hat.null_count() == fit.model.design.dropped
    assert hat.sum() == pytest.approx(fit.model.design.p, rel=1e-9)


@quiet
@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_without_variance_a_mixed_model_has_the_hat_values_of_a_plain_one(family: str) -> None:
    rng = np.random.default_rng(1)
    # Every group has the same responses: nothing between the groups.
    data = {"x": np.tile(np.arange(6.0), 5), "g": np.repeat(list("abcde"), 6)}
    data["y"] = np.tile(rng.poisson(4.0, 6).astype(float), 5)
    mixed = bg.model("y ~ x + (1|g)", data, family=family).fit()
    plain = bg.model("y ~ x", data, family=family).fit()
    assert estimate_of(mixed).outcome.singular
    for function in (bg.hatvalues, bg.residuals):
        np.testing.assert_allclose(function(mixed), function(plain), rtol=1e-5, atol=1e-8)


# Residuals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gaussian", "poisson", "binomial", "bernoulli"])
def test_quantile_residuals_are_normal_when_the_model_holds(family: str) -> None:
    rng, n = np.random.default_rng(9), 1500
    x = rng.normal(size=n)
    eta, trials = 0.4 + 0.5 * x, np.full(n, 5 if family == "binomial" else 1)
    y = {
        "gaussian": eta + 2.0 * rng.normal(size=n),
        "poisson": rng.poisson(np.exp(eta)).astype(float),
    }.get(family, rng.binomial(trials, 1 / (1 + np.exp(-eta))).astype(float))
    extra: dict[str, Any] = {"trials": trials} if family == "binomial" else {}
    fit = bg.glm("y ~ x", {"x": x, "y": y}, family=family, **extra).fit()
    found = fit.residuals("quantile", seed=2)
    r = found["residual"].to_numpy()
    assert stats.kstest(r, "norm").pvalue > 0.01
    assert abs(np.corrcoef(r, x)[0, 1]) < 0.05
    np.testing.assert_array_equal(r, fit.residuals("quantile", seed=2)["residual"])
    same = np.array_equal(r, fit.residuals("quantile", seed=3)["residual"])
    assert same == (family == "gaussian")
    assert ("seed 2" in found.caption) == (family != "gaussian")
    if family == "gaussian":
        scaled = fit.residuals("response")["residual"] / fit.statistics["sigma"]
        np.testing.assert_allclose(r, scaled, rtol=1e-9, atol=1e-12)


def test_quantile_residuals_of_the_impossible_are_finite() -> None:
    """900 events where 3 are expected: the probability is zero in doubles, its logarithm not."""
    y = np.array([3.0] * 400 + [900.0])
    fit = bg.glm("y ~ x", {"y": y, "x": np.r_[np.zeros(400), 1e-3]}, family="poisson").fit()
    values = fit.residuals("quantile")["residual"]
    assert values.is_finite().all()
    outlier = replace(fit.model.likelihood, y=np.array([900.0]), w=np.ones(1))
    below, at, above = outlier.log_tails(np.log(np.array([3.0])))
    assert below[0] == 0.0 and np.isneginf(above[0]) and -5000 < at[0] < -4000


def test_scaled_residuals() -> None:
    fit = fit_of("REML")
    sigma, h = estimate_of(fit).sigma, bg.hatvalues(fit)["hat"]
    pearson = fit.residuals("pearson")["residual"]
    np.testing.assert_allclose(
        fit.residuals("pearson", scale="sigma")["residual"], pearson / sigma, rtol=1e-12
    )
    standard = fit.residuals("pearson", scale="leverage")["residual"]
    np.testing.assert_allclose(standard, pearson / (sigma * (1 - h).sqrt()), rtol=1e-10)
    # A linear mixed model's studentised residual is its standardised one, sigma held fixed.
    np.testing.assert_allclose(fit.residuals("studentised")["residual"], standard, rtol=1e-10)


def test_a_row_that_fits_itself_has_no_standardised_residual() -> None:
    data = {"y": [1.0, 2.0, 4.0, 3.0], "g": ["a", "b", "b", "b"]}
    fit = bg.lm("y ~ g", data).fit()
    assert bg.hatvalues(fit)["hat"][0] == pytest.approx(1.0)
    for column in (
        bg.residuals(fit, "pearson", scale="leverage")["residual"],
        bg.cooks_distance(fit)["cooks_distance"],
    ):
        assert column.is_null().to_list() == [True, False, False, False]


# Influence ------------------------------------------------------------------------------------


def test_influence_of_rows_on_a_linear_model_is_the_closed_form() -> None:
    cars = bg.load_dataset("mtcars").with_columns(
        wt=pl.when(pl.int_range(pl.len()) == 3).then(None).otherwise("wt")
    )
    fit = bg.lm("mpg ~ wt + hp", cars).fit()
    found, X = fit.influence(), fit.model.design.X
    e, h = fit.residuals("response")["residual"], bg.hatvalues(fit)["hat"]
    change = ((e / (1 - h)).drop_nulls().to_numpy()[:, None] * X) @ np.linalg.inv(X.T @ X)
    np.testing.assert_allclose(found.coefficients["dfbeta"], change.ravel(), rtol=1e-7, atol=1e-10)
    cooks = bg.cooks_distance(fit)["cooks_distance"]
    assert cooks[3] is None and 3 not in found.table["row"]
    np.testing.assert_allclose(found.table["cooks_distance"], cooks.drop_nulls(), rtol=1e-8)
    # R's covratio: 1 / ((1 - h) ((n - p - 1 + t^2) / (n - p))^p)
    n, p = X.shape
    t = fit.residuals("studentised")["residual"].drop_nulls().to_numpy()
    covratio = 1 / ((1 - h.drop_nulls().to_numpy()) * ((n - p - 1 + t**2) / (n - p)) ** p)
    np.testing.assert_allclose(found.table["covratio"], covratio, rtol=1e-7)
    named = bg.lm("mpg ~ wt", cars.with_columns(row=pl.col("cyl"))).fit().influence("row")
    assert named.table["level"].to_list() == ["6", "4", "8"]
    assert found.failed == 0 and found.components["kind"].unique().to_list() == ["residual"]


def test_influence_of_a_group_is_a_fit_without_it() -> None:
    data = crossed()
    fit = bg.glmer("count ~ x + (1|g) + (1|h)", data, family="poisson").fit()
    found = fit.influence("g")
    with ThreadPoolExecutor(2) as executor:
        again = fit.influence("g", executor=executor)
    np.testing.assert_allclose(
        again.table["cooks_distance"], found.table["cooks_distance"], rtol=1e-9
    )
    rest = bg.glmer(
        "count ~ x + (1|g) + (1|h)", data.filter(pl.col("g") != "g2"), family="poisson"
    ).fit()
    own = found.coefficients.filter(level="g2")
    np.testing.assert_allclose(own["estimate"], rest.params["estimate"], rtol=1e-5)
    whole = fit.params["estimate"] - rest.params["estimate"]
    np.testing.assert_allclose(own["dfbeta"], whole, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(own["dfbetas"], whole / rest.params["std_error"], rtol=1e-3)
    sds = found.components.filter(level="g2")
    np.testing.assert_allclose(sds["estimate"], rest.varcorr["estimate"], rtol=1e-4)
    d = (fit.params["estimate"] - rest.params["estimate"]).to_numpy()
    cooks = found.table.filter(level="g2")["cooks_distance"].item()
    assert cooks == pytest.approx(d @ np.linalg.solve(fit.vcov, d) / 2, rel=1e-3)


def test_groups_without_which_nothing_can_be_fitted() -> None:
    data = crossed().with_columns(
        z=pl.when(pl.col("g") == "g3").then(1.0 + pl.col("x")).otherwise(0.0),
        part=pl.when(pl.col("h") == "h0").then(pl.lit("first")).otherwise(pl.lit("rest")),
    )
    fit = bg.lmer("y ~ x + z + (1|h)", data).fit()
    found = fit.influence("g")
    row = found.table.filter(level="g3").row(0, named=True)
    assert row["cooks_distance"] is None and row["term"] is None
    assert "z cannot be estimated" in row["note"]
    assert found.failed == 1 and "1 of 8" in found.table.caption
    assert found.table["cooks_distance"].null_count() == 1
    assert found.coefficients.filter(level="g3")["dfbetas"].null_count() == 3
    assert "z cannot be estimated" in str(fit.influence("g").text())
    figure = found.plot()  # Cook's distance and a panel for each coefficient
    assert [a.get_ylabel() for a in figure.axes][1:] == [
        f"dfbetas\n{name}" for name in fit.model.design.names
    ]
    assert all(len(axis.lines[0].get_xdata()) == 7 for axis in figure.axes)
    rest = fit.influence("part")
    notes = dict(rest.table.select("level", "note").iter_rows())
    assert "one level left" in notes["rest"] and rest.failed == 1
    assert "<table" in found._repr_html_()


# Conditional AIC ------------------------------------------------------------------------------


@quiet
@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("case", ["intercepts", "slopes", "boundary"])
def test_degrees_of_freedom_are_those_of_refits(case: str, reml: bool) -> None:
    """Sum of d mu_hat_i / d y_i, every variance parameter estimated anew."""
    if case == "boundary":
        fit = bg.lmer("Yield ~ 1 + (1|Batch)", bg.load_dataset("dyestuff2")).fit(ML(reml=reml))
    elif case == "intercepts":
        fit = bg.lmer("Yield ~ 1 + (1|Batch)", bg.load_dataset("dyestuff")).fit(ML(reml=reml))
    else:
        model = bg.lmer("y ~ x + (x|g)", crossed(), weights="w", offset="o")
        fit = model.fit(ML(reml=reml))
    design, likelihood = fit.model.design, fit.model.likelihood
    options = ML(reml=reml, df="asymptotic")

    def fitted(i: int, step: float) -> float:
        y = np.array(design.y)
        y[i] += step
        moved = replace(design, response=replace(design.response, y=y))
        at = Likelihood(likelihood.family, likelihood.link, y, likelihood.w)
        return float(maximum_likelihood(moved, at, options).eta[i])

    h = 0.01 * estimate_of(fit).sigma
    slopes = [(fitted(i, h) - fitted(i, -h)) / (2 * h) for i in range(design.n)]
    row = bg.caic(fit).row(0, named=True)
    assert row["df"] == pytest.approx(sum(slopes) + 1, abs=2e-4)
    held = bg.caic(fit, df="trace").row(0, named=True)
    assert held["df"] == held["df_trace"] == row["df_trace"]
    if case == "boundary":  # least squares: a mean and a residual sd
        assert row["df"] == pytest.approx(2.0, abs=1e-8)
    else:
        assert row["df"] > row["df_trace"] + 0.05


@quiet
@pytest.mark.parametrize("family", ["poisson", "bernoulli"])
def test_degrees_of_freedom_by_refits(family: str) -> None:
    data = crossed()[:24].with_columns(
        y=pl.col("count") if family == "poisson" else pl.col("hits") > 3
    )
    data = data.with_columns(pl.col("y").cast(pl.Float64))
    formula = "y ~ x + (1|h)"
    fit = bg.glmer(formula, data, family=family).fit()
    eta, total = fit.predict(type="link")["estimate"].to_numpy(), 0.0
    mu, y = fit.predict()["estimate"].to_numpy(), data["y"].to_numpy()
    for i in range(24):
        other, factor = y[i] - 1.0, y[i]
        if family == "bernoulli":
            other, factor = 1.0 - y[i], mu[i] * (1 - mu[i]) * (2 * y[i] - 1)
        if factor == 0.0:
            continue
        changed = np.where(np.arange(24) == i, other, y)
        refit = bg.glmer(formula, data.with_columns(y=changed), family=family).fit()
        total += factor * (eta[i] - refit.predict(type="link")["estimate"][i])
    row = bg.caic(fit, df="refits").row(0, named=True)
    assert row["df"] == pytest.approx(total, abs=1e-4)
    mean = np.clip(mu, 0, 1) if family == "bernoulli" else mu
    known = stats.bernoulli(mean) if family == "bernoulli" else stats.poisson(mean)
    assert row["logLik_conditional"] == pytest.approx(float(np.sum(known.logpmf(y))), rel=1e-8)
    assert bg.caic(fit)["df"].item() == pytest.approx(bg.hatvalues(fit)["hat"].sum())


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_without_random_effects_it_is_the_aic(family: str) -> None:
    fit = bg.glm("count ~ x", crossed(), family=family).fit()
    assert bg.caic(fit)["cAIC"].item() == pytest.approx(fit.statistics["AIC"].item())


# R2 and ICC -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Nearly collinear")
def test_shares_do_not_depend_on_units_or_origins() -> None:
    data = crossed().with_columns(z=1000.0 + 10.0 * pl.col("x"), u=3.0 * pl.col("y") - 7.0)
    one = bg.lmer("y ~ x + (x|g) + (1|h)", data).fit()
    other = bg.lmer("u ~ z + (z|g) + (1|h)", data).fit()
    np.testing.assert_allclose(other.r2()["estimate"], one.r2()["estimate"], rtol=1e-5)
    np.testing.assert_allclose(other.icc()["estimate"], one.icc()["estimate"], rtol=1e-5)


def test_shares_by_hand() -> None:
    fit = bg.lmer("y ~ x + (x|g) + (1|h)", crossed()).fit()
    design, at = fit.model.design, estimate_of(fit)
    fixed = float(np.var(design.X @ at.beta, ddof=1))
    (Z, G), parts = dense(fit), {}
    split = 16  # 8 levels with two effects each
    parts["g"] = np.mean(np.einsum("ni,ij,nj->n", Z[:, :split], G[:split, :split], Z[:, :split]))
    parts["h"] = np.mean(np.einsum("ni,ij,nj->n", Z[:, split:], G[split:, split:], Z[:, split:]))
    between, residual = parts["g"] + parts["h"], at.sigma**2
    total = fixed + between + residual
    np.testing.assert_allclose(
        fit.r2()["estimate"], [fixed / total, (fixed + between) / total], rtol=1e-9
    )
    expected = [
        share / whole
        for share in (parts["g"], parts["h"], between)
        for whole in (between + residual, total)
    ]
    found = fit.icc()
    np.testing.assert_allclose(found["estimate"], expected, rtol=1e-9)
    assert found["group"].to_list() == ["g", "g", "h", "h", "(all)", "(all)"]


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_distribution_variance_of_a_probability(link: str) -> None:
    fit = fit_of(f"binomial-{link}")
    null = bg.glmer(
        "hits ~ 1 + (x|g) + (1|h)", crossed(), family="binomial", link=link, trials="size"
    ).fit()
    Z, G = dense(null)
    inverse, b0 = null.model.link.inverse, float(estimate_of(null).beta[0])

    def mean(spread: float) -> float:
        return float(
            integrate.quad(
                lambda z: inverse(np.array(b0 + z * spread)) * stats.norm.pdf(z), -10, 10
            )[0]
        )

    mu = np.mean([mean(s) for s in np.sqrt(np.einsum("ni,ij,nj->n", Z, G, Z))])
    slope = float(null.model.link.derivatives(null.model.link.link(np.array([mu])))[1][0])
    found = {}
    for kind in ("theoretical", "delta"):
        marginal, conditional = bg.r2(fit, distribution=kind)["estimate"]
        fixed = float(np.var(fit.model.design.X @ estimate_of(fit).beta, ddof=1))
        found[kind] = fixed / marginal * (1.0 - conditional)
    theory = {"logit": np.pi**2 / 3, "probit": 1.0, "cloglog": np.pi**2 / 6}[link]
    assert found["theoretical"] == pytest.approx(theory, rel=1e-9)
    assert found["delta"] == pytest.approx(mu * (1 - mu) / slope**2, rel=1e-5)


@quiet
def test_effects_of_single_rows_are_unexplained() -> None:
    data = crossed().with_columns(row=pl.int_range(pl.len()).cast(pl.String))
    fit = bg.glmer("count ~ x + (1|g) + (1|row)", data, family="poisson").fit()
    marginal, conditional = fit.r2()["estimate"]
    sds = dict(fit.varcorr.select("group", "variance").iter_rows())
    fixed = float(np.var(fit.model.design.X @ estimate_of(fit).beta, ddof=1))
    assert conditional / marginal == pytest.approx((fixed + sds["g"]) / fixed)
    assert "one effect a row" in fit.r2().caption
    assert fit.icc()["group"].to_list() == ["g", "g"]


def made_up_draws(model: bg.Model) -> bg.Fit:
    """A fit with draws around the estimates; what is computed from draws does not ask whence."""
    import xarray as xr

    at, rng, shape = estimate_of(model.fit()), np.random.default_rng(3), (2, 200)
    effects = at.modes[0] + 0.3 * rng.normal(size=(*shape, *at.modes[0].shape))
    sd = at.component_values[:2] * np.exp(0.2 * rng.normal(size=(*shape, 2)))
    corr = np.tile(np.eye(2), (*shape, 1, 1))
    corr[..., 0, 1] = corr[..., 1, 0] = np.tanh(0.2 * rng.normal(size=shape))
    draws = {
        "beta": rng.multivariate_normal(at.beta, at.vcov, size=shape),
        "sd_g": sd,
        "corr_g": corr,
        "b_g": effects,
        "sigma": at.sigma * np.exp(0.1 * rng.normal(size=shape)),
    }
    posterior = xr.Dataset(
        {
            name: (("chain", "draw", *(f"{name}_{k}" for k in range(v.ndim - 2))), v)
            for name, v in draws.items()
        }
    )
    options = bg.NUTS(draws=shape[1], chains=shape[0], seed=1)
    nothing: Any = None
    run = Sampled({"posterior": posterior}, options, {}, nothing, 0.0, 0.0)
    return bg.Fit(model, options, SampledPosterior(model.design, run))


def test_draws_give_shares_draw_by_draw() -> None:
    model = bg.lmer("y ~ x + (x|g)", crossed())
    fit = made_up_draws(model)
    assert isinstance(fit.posterior, SampledPosterior)
    run = fit.posterior.run
    X, Z = model.design.X, model.design.random[0].Z
    fixed = np.var(run.values("beta") @ X.T, axis=-1, ddof=1)
    sd, corr = run.values("sd_g"), run.values("corr_g")
    Sigma = sd[..., :, None] * corr * sd[..., None, :]
    random = np.einsum("nk,cdkl,nl->cd", Z, Sigma, Z) / len(Z)
    total = fixed + random + run.values("sigma") ** 2
    found = fit.r2()
    np.testing.assert_allclose(
        found["estimate"], [np.mean(fixed / total), np.mean((fixed + random) / total)], rtol=1e-9
    )
    adjusted = random / (random + run.values("sigma") ** 2)
    assert fit.icc()["estimate"][0] == pytest.approx(float(adjusted.mean()))
    assert fit.icc()["std_error"][0] == pytest.approx(float(adjusted.std(ddof=1)))
    assert "highest-density" in found.caption and {"ess_bulk", "r_hat"} <= set(found.columns)
    quantile = fit.residuals("quantile")["residual"]
    ml = model.fit().residuals("quantile")["residual"]
    assert np.corrcoef(quantile, ml)[0, 1] > 0.99
    for function in (bg.hatvalues, bg.cooks_distance, bg.caic, bg.overdispersion, bg.influence):
        with pytest.raises(bg.ChoiceError, match="maximum-likelihood"):
            function(fit)


# Bad input ------------------------------------------------------------------------------------


def test_bad_input() -> None:
    linear, count, hits = fit_of("ML"), fit_of("poisson"), fit_of("binomial-probit")
    plain = bg.lm("y ~ x", crossed()).fit()
    expect: list[tuple[Any, str]] = [
        (lambda: linear.residuals("quantil"), "did you mean 'quantile'"),  # type: ignore[arg-type]
        (lambda: linear.residuals(scale="sigm"), "did you mean 'sigma'"),  # type: ignore[arg-type]
        (lambda: linear.residuals("working", scale="sigma"), "'pearson' and 'deviance'"),
        (lambda: linear.residuals("quantile", seed=-1), "seed=-1"),
        (lambda: linear.influence("gg"), "group='gg'"),
        (lambda: bg.caic(linear, df="refits"), "counts and 0/1"),
        (lambda: bg.caic(count, df="corrected"), "Gaussian models"),
        (lambda: bg.caic(hits, df="refits"), "one trial"),
        (lambda: bg.caic(linear, df="trce"), "did you mean 'trace'"),  # type: ignore[arg-type]
        (lambda: linear.r2(distribution="theoretical"), "Allowed: 'default', 'residual'"),
        (lambda: count.icc(distribution="theoretical"), "'trigamma', 'lognormal', 'delta'"),
        (lambda: plain.r2(distribution="delta"), "Use distribution='default'"),
        (lambda: linear.r2(level=2), "level=2"),
        (lambda: plain.icc(), "needs groups"),
        (lambda: bg.overdispersion(linear), "its own variance"),
    ]
    for call, says in expect:
        with pytest.raises(bg.ChoiceError, match=says):
            call()
    holes = crossed().with_columns(k=pl.when(pl.col("x") > 0).then(pl.lit("a")), one=pl.lit("a"))
    fit = bg.lm("y ~ x", holes).fit()
    with pytest.raises(bg.DataError, match=r"group='k' is missing in \d+"):
        fit.influence("k")
    with pytest.raises(bg.DataError, match="one level"):
        fit.influence("one")
    zeros = bg.glm("s ~ x", crossed().with_columns(s=pl.col("y") > 0), family="binomial").fit()
    with pytest.raises(bg.ChoiceError, match="single trials"):
        bg.overdispersion(zeros)
