"""The posterior is right: log-densities against NumPy, draws against quadrature."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import stats

import bayesglmm as bg
from bayesglmm.design import RandomTerm
from bayesglmm.families import FAMILIES
from bayesglmm.model import Model
from bayesglmm.nuts.coordinates import laplace_coordinates
from bayesglmm.nuts.laplace_model import build_in_coordinates
from bayesglmm.posterior.sampled import SampledPosterior

KEPT = ("beta", "sd", "corr", "b", "sigma")


def small_data(seed: int = 1) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    n, groups = 60, 6
    g = rng.integers(0, groups, n)
    x = rng.normal(size=n)
    b = rng.normal(size=(groups, 2)) * [0.8, 0.4]
    eta = 0.3 + 0.5 * x + b[g, 0] + b[g, 1] * x
    return pl.DataFrame(
        {
            "x": x,
            "f": rng.choice(["u", "v"], n),
            "g": [f"g{k}" for k in g],
            "count": rng.poisson(np.exp(eta)),
            "yes": rng.binomial(1, 1 / (1 + np.exp(-eta))),
            "wins": rng.binomial(7, 1 / (1 + np.exp(-eta))),
            "size": np.full(n, 7),
            "value": eta + rng.normal(size=n),
        }
    )


MODELS = {
    "poisson slopes": lambda d: bg.glmer("count ~ x + f + (x|g)", d, family="poisson"),
    "slopes, sd priors that differ": lambda d: bg.glmer(
        "count ~ x + (x|g)", d, family="poisson", priors={"sd:g:x": bg.HalfNormal(1)}
    ),
    "bernoulli": lambda d: bg.glmer("yes ~ x + (1|g)", d, family="binomial"),
    "binomial probit trials": lambda d: bg.glmer(
        "wins ~ x + (1|g)", d, family="binomial", link="probit", trials="size"
    ),
    "gaussian independent": lambda d: bg.lmer("value ~ x + (x||g)", d),
    "no intercept": lambda d: bg.lm("value ~ 0 + f", d),
    "offset, own priors": lambda d: bg.glmer(
        "count ~ x + offset(x) + (1|g)",
        d,
        family="poisson",
        priors={"x": bg.StudentT(3, 0, 1), "sd:g": bg.Exponential(2)},
    ),
}


def numpy_log_density(model: Model, values: Mapping[str, np.ndarray]) -> float:
    """log prior + log likelihood at named values, without any PyMC."""
    design, likelihood, priors = model.design, model.likelihood, model.priors
    beta = values["beta"]
    total, eta = 0.0, design.X @ beta + design.offset
    names = list(design.names)
    for k, (name, prior) in enumerate(zip(names, priors.coefficients, strict=True)):
        at = design.X.mean(axis=0) @ beta if name == "(Intercept)" else beta[k]
        total += float(prior.log_density(np.asarray(at)))
    for term, sds, corr in zip(design.random, priors.sds, priors.correlations, strict=True):
        sd, b = values[f"sd_{term.name}"], values[f"b_{term.name}"]
        total += sum(float(p.log_density(np.asarray(s))) for p, s in zip(sds, sd, strict=True))
        R = values.get(f"corr_{term.name}", np.eye(term.K))
        if term.correlated and term.K > 1:
            total += float(corr.log_density(R))
        cov = np.outer(sd, sd) * R
        total += float(np.sum(stats.multivariate_normal(np.zeros(term.K), cov).logpdf(b)))
        eta = eta + np.einsum("nk,nk->n", term.Z, b[term.index])
    sigma = 1.0
    if priors.sigma:
        sigma = float(values["sigma"])
        total += float(priors.sigma[0].log_density(np.asarray(sigma)))
    return total + float(np.sum(likelihood.log_density(eta, sigma)))


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_pymc_log_density_is_the_models(name: str, centred: bool) -> None:
    """Equal up to the Jacobian of the parameterisation, at random points."""
    import pymc as pm

    model = MODELS[name](small_data())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pymc_model = model.to_pymc(centred=centred)
        # jacobian=False: densities of the named variables themselves.
        logp = pymc_model.compile_logp(jacobian=False, mode="FAST_COMPILE")
        wanted = [
            v
            for v in pymc_model.deterministics
            if v.name.split("_")[0] in ("beta", "sd", "corr", "b")
        ]
        free = [*pymc_model.free_RVs]
        named = {v.name: v for v in [*wanted, *free]}
        keep = [n for n in named if n.split("_")[0] in ("beta", "sd", "corr", "b", "sigma")]
        inputs = pymc_model.value_vars
        outputs = pymc_model.replace_rvs_by_values([named[n] for n in keep])
        evaluate = pm.pytensorf.compile(
            inputs, outputs, mode="FAST_COMPILE", on_unused_input="ignore"
        )
    rng = np.random.default_rng(3)
    start = pymc_model.initial_point()
    differences = []
    for _ in range(4):
        point = {k: v + 0.3 * rng.normal(size=np.shape(v)) for k, v in start.items()}
        values = dict(zip(keep, evaluate(**point), strict=True))
        jacobian = 0.0
        for term in model.design.random:
            sd, K = values[f"sd_{term.name}"], term.K
            jacobian += cholesky_jacobian(term, values, "differ" in name)
            L = np.diag(sd)
            if term.correlated and K > 1:
                R = values[f"corr_{term.name}"]
                L = np.diag(sd) @ np.linalg.cholesky(R)
            if not centred:  # b = L z: the density of z is that of b times |L| per level
                jacobian += term.J * float(np.sum(np.log(np.diag(L))))
        differences.append(float(logp(point)) - numpy_log_density(model, values) - jacobian)
    assert np.ptp(differences) < 1e-8


def cholesky_jacobian(term: RandomTerm, values: Mapping[str, np.ndarray], own_sds: bool) -> float:
    """log |d(sd, R) / d(variables)| of a correlated term: see the comments inside."""
    sd, K = values[f"sd_{term.name}"], term.K
    if not (term.correlated and K > 1) or own_sds:
        return 0.0  # the variables are the sds themselves, and pm.LKJCorr's density is that of R
    # LKJCholeskyCov's density is that of the Cholesky factor L = diag(sd) C of the covariance:
    # R -> C gives prod C_kk^(K-k), and (sd_k, C_k) -> L_k gives C_kk / sd_k^(k-1), k from 1.
    C = np.linalg.cholesky(values[f"corr_{term.name}"])
    k = np.arange(1, K + 1)
    return float(np.sum((K - k + 1) * np.log(np.diag(C))) - np.sum((k - 1) * np.log(sd)))


CROSSED = {
    "crossed": lambda d: bg.glmer("count ~ x + (x|g) + (1|h)", d, family="poisson"),
    "observation level": lambda d: bg.glmer("count ~ x + (1|g) + (1|row)", d, family="poisson"),
    "linear, independent": lambda d: bg.lmer("value ~ f + (0+f||g) + (1|h)", d),
}


@pytest.mark.parametrize("name", [n for n in [*MODELS, *CROSSED] if n != "no intercept"])
def test_laplace_coordinates_give_the_same_posterior(name: str) -> None:
    """Up to the Jacobian of (beta, b) in the coordinates, taken column by column."""
    import pymc as pm

    data = small_data().with_columns(
        h=pl.Series([f"h{k % 7}" for k in range(60)]), row=pl.Series([str(k) for k in range(60)])
    )
    make: Callable[[pl.DataFrame], Model] = {**MODELS, **CROSSED}[name]
    model = make(data)
    at = laplace_coordinates(model)
    assert at is not None
    pymc_model = build_in_coordinates(model, at)
    logp = pymc_model.compile_logp(jacobian=False, mode="FAST_COMPILE")
    variables = [*pymc_model.deterministics, *pymc_model.free_RVs]
    named = {v.name: v for v in variables if v.name.split("_")[0] in KEPT}
    outputs = pymc_model.replace_rvs_by_values(list(named.values()))
    evaluate = pm.pytensorf.compile(
        pymc_model.value_vars, outputs, mode="FAST_COMPILE", on_unused_input="ignore"
    )

    def values_at(point: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(named, evaluate(**point), strict=True))

    def stacked(values: Mapping[str, np.ndarray]) -> np.ndarray:
        parts = [values["beta"], *(values[f"b_{t.name}"].ravel() for t in model.design.random)]
        return np.concatenate(parts)

    rng = np.random.default_rng(5)
    start = pymc_model.initial_point()
    differences = []
    for _ in range(3):
        point = {k: v + 0.4 * rng.normal(size=np.shape(v)) for k, v in start.items()}
        values = values_at(point)
        origin = stacked(values_at({**point, "epsilon": np.zeros(at.size)}))
        columns = [
            stacked(values_at({**point, "epsilon": unit})) - origin for unit in np.eye(at.size)
        ]
        expected = numpy_log_density(model, values) + np.linalg.slogdet(np.array(columns))[1]
        expected += sum(cholesky_jacobian(t, values, "differ" in name) for t in model.design.random)
        differences.append(float(logp(point)) - expected)
    assert np.ptp(differences) < 1e-7


def test_coordinates_are_nearly_standard_normal() -> None:
    """At the ML estimate the negative Hessian in the coordinates is close to the identity."""
    data = small_data().with_columns(h=pl.Series([f"h{k % 7}" for k in range(60)]))
    model = CROSSED["crossed"](data)
    at = laplace_coordinates(model)
    assert at is not None
    pymc_model = build_in_coordinates(model, at)
    gradient = pymc_model.compile_dlogp([pymc_model["epsilon"]], mode="FAST_COMPILE")
    ml = model.fit().varcorr
    start = pymc_model.initial_point()
    sds = ml.filter(pl.col("kind") == "sd")["estimate"].to_numpy()
    corr = float(ml.filter(pl.col("kind") == "corr")["estimate"][0])
    chol = np.array([sds[0], sds[1] * corr, sds[1] * np.sqrt(1 - corr**2)])
    chol[[0, 2]] = np.log(chol[[0, 2]])  # the diagonal is sampled on the log scale
    point = {**start, "chol_g_cholesky-cov-packed__": chol, "sd_h_log__": np.log(sds[2:3])}
    assert set(point) == set(start)
    h = 1e-4
    hessian = [
        (gradient({**point, "epsilon": h * unit}) - gradient({**point, "epsilon": -h * unit}))
        / (2 * h)
        for unit in np.eye(at.size)
    ]
    values = np.linalg.eigvalsh(-np.array(hessian))
    assert 0.7 < values.min() < values.max() < 1.4


def grid_posterior(model: Model) -> dict[str, tuple[float, float]]:
    """Posterior mean and sd of (beta, sd) of ``yes ~ 1 + (1|g)`` by quadrature alone."""
    design, priors = model.design, model.priors
    x, w = np.polynomial.hermite_e.hermegauss(40)
    w = w / w.sum()
    term = design.random[0]
    betas, sds = np.linspace(-4, 4, 161), np.linspace(1e-3, 12, 400)
    successes = np.bincount(term.index, design.y, term.J)
    counts = np.bincount(term.index, minlength=term.J)
    eta = betas[:, None, None] + sds[None, :, None] * x
    p = 1.0 / (1.0 + np.exp(-eta))
    log_posterior = (
        priors.coefficients[0].log_density(betas)[:, None]
        + priors.sds[0][0].log_density(sds)[None, :]
    )
    for k, n in zip(successes, counts, strict=True):
        log_posterior = log_posterior + np.log((p**k * (1 - p) ** (n - k)) @ w)
    weight = np.exp(log_posterior - log_posterior.max())
    weight /= weight.sum()
    out = {}
    for name, values, margin in (("beta", betas, weight.sum(1)), ("sd", sds, weight.sum(0))):
        mean = float(values @ margin)
        out[name] = (mean, float(np.sqrt(values**2 @ margin - mean**2)))
    return out


@pytest.mark.parametrize("sampler", ["nutpie", "pymc"])
def test_draws_agree_with_quadrature(sampler: str) -> None:
    model = bg.glmer(
        "yes ~ 1 + (1|g)",
        small_data(),
        family="binomial",
        priors={"(Intercept)": bg.Normal(0, 1.5), "sd:g": bg.HalfNormal(1.5)},
    )
    options = bg.NUTS(draws=1500, tune=1000, seed=4, progress=False, sampler=sampler)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = bg.fit(model, options)
    exact = grid_posterior(model)
    assert isinstance(fit.posterior, SampledPosterior)
    found = {"beta": fit.params, "sd": fit.varcorr}
    for name, (mean, sd) in exact.items():
        row = found[name].row(0, named=True)
        assert abs(row["estimate"] - mean) < 4 * row["mcse"]
        assert row["std_error"] == pytest.approx(sd, rel=0.1)


def test_seed_makes_the_run_reproducible() -> None:
    model = bg.glm("yes ~ x", small_data(), family="binomial")
    runs = []
    for cores in (1, 2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = model.fit("nuts", draws=100, tune=100, seed=9, cores=cores, progress=False)
        runs.append(fit.to_arviz()["posterior"]["beta"].values)
    assert np.array_equal(runs[0], runs[1])
    assert runs[0].shape == (4, 100, 2)
    assert not np.array_equal(runs[0][0], runs[0][1])


@pytest.mark.filterwarnings("ignore")  # PyMC's and xarray's, while they predict
@pytest.mark.parametrize("name", ["slopes, sd priors that differ", "poisson slopes", "bernoulli"])
def test_pymc_predicts_from_a_fit(name: str) -> None:
    """to_arviz() holds every free variable of to_pymc(): none is drawn from its prior."""
    import pymc as pm

    model = MODELS[name](small_data())
    fit = model.fit("nuts", draws=200, tune=200, chains=2, seed=3, sampler="pymc", progress=False)
    tree = fit.to_arviz()
    pymc_model = model.to_pymc()
    assert {v.name for v in pymc_model.free_RVs} <= set(tree["posterior"].data_vars)
    predicted = pm.sample_posterior_predictive(
        tree, model=pymc_model, random_seed=1, progressbar=False
    )
    mean = predicted["posterior_predictive"]["y"].values.mean()
    expected = fit.predict()["estimate"].to_numpy().mean()
    assert mean == pytest.approx(expected, rel=0.05)
    if "differ" in name:  # PyMC cannot recompute densities with its own LKJCorr
        return
    with pymc_model:
        computed = pm.compute_log_likelihood(tree, progressbar=False)
    values = np.asarray(computed["log_likelihood"]["y"].values)
    beta, posterior = fit.to_arviz()["posterior"]["beta"].values, tree["posterior"]
    eta = beta @ model.design.X.T
    for term in model.design.random:
        b = posterior[f"b_{term.name}"].values
        eta = eta + np.einsum("cdnk,nk->cdn", b[:, :, term.index, :], term.Z)
    assert np.allclose(values, model.likelihood.log_density(eta), atol=1e-8)


@pytest.mark.filterwarnings("ignore:R-hat is:bayesglmm.errors.BayesglmmWarning")  # short runs
@pytest.mark.parametrize("method", ["nuts", "laplace"])
def test_a_model_without_coefficients(method: str) -> None:
    model = bg.glmer("incidence ~ 0 + (1|herd)", bg.load_dataset("cbpp"), family="poisson")
    fit = model.fit(method, draws=200, seed=1)
    assert fit.params.height == 0 and fit.vcov.shape == (0, 0)
    assert "herd" in str(fit) and "Fixed effects" not in fit.varcorr.caption
    assert fit.hypothesis("sd:herd > 0.01")["post_prob"][0] > 0.99
    assert np.isfinite(fit.loo().elpd)
    assert fit.posterior_predictive(seed=1).draws.shape[1] == 56
    both = bg.compare(model.fit(), fit).table
    assert both["term"].to_list() == ["(Intercept)"]


@pytest.mark.filterwarnings("ignore:R-hat is:bayesglmm.errors.BayesglmmWarning")  # short runs
def test_a_family_of_ones_own_is_sampled_through_pytensor() -> None:
    own = replace(FAMILIES["poisson"], name="counts")
    rows = bg.load_dataset("cbpp")
    mine = bg.glmer("incidence ~ 1 + (1|herd)", rows, family=own)
    theirs = bg.glmer("incidence ~ 1 + (1|herd)", rows, family="poisson")
    assert mine.fit().loglik == pytest.approx(theirs.fit().loglik, abs=1e-8)
    fit, same = (m.fit("nuts", draws=250, seed=2, progress=False) for m in (mine, theirs))
    assert "PyTensor" in fit.summary().text()
    assert abs(fit.params["estimate"][0] - same.params["estimate"][0]) < 0.15
    with pytest.raises(bg.ChoiceError, match="family=3 is not known"):
        bg.glm("incidence ~ 1", rows, family=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("family", "link"), [("poisson", "identity"), ("binomial", "log"), ("binomial", "identity")]
)
def test_pointwise_likelihood_where_links_have_a_limited_range(family: str, link: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(size=60)
    y = rng.poisson(2.0 + x) if family == "poisson" else (rng.random(60) < 0.3).astype(int)
    model = bg.glm("y ~ x", {"x": x, "y": y}, family=family, link=link)
    fit = model.fit("laplace", draws=100, seed=1)
    values = bg.log_likelihood(fit)
    beta = fit.posterior.beta.values  # type: ignore[union-attr]
    eta = beta @ model.design.X.T
    expected = [[model.likelihood.log_density(e) for e in chain] for chain in eta]
    np.testing.assert_allclose(values, expected, atol=1e-10)
