"""The posterior is right: log-densities against NumPy, draws against quadrature."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import polars as pl
import pytest
from scipy import stats

import bayesglmm as bg
from bayesglmm.model import Model
from bayesglmm.posterior.sampled import SampledPosterior


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
            L = np.diag(sd)
            correlated = term.correlated and K > 1
            if correlated:
                R = values[f"corr_{term.name}"]
                L = np.diag(sd) @ np.linalg.cholesky(R)
                # LKJCholeskyCov's density is that of the Cholesky factor L = diag(sd) C of the
                # covariance: R -> C gives prod C_kk^(K-k), and (sd_k, C_k) -> L_k gives
                # C_kk / sd_k^(k-1) for each row (k from 1).
                C = np.linalg.cholesky(R)
                k = np.arange(1, K + 1)
                if "differ" not in name:  # there pm.LKJCorr is used, whose density is that of R
                    jacobian += float(np.sum((K - k + 1) * np.log(np.diag(C))))
                    jacobian -= float(np.sum((k - 1) * np.log(sd)))
            if not centred:  # b = L z: the density of z is that of b times |L| per level
                jacobian += term.J * float(np.sum(np.log(np.diag(L))))
        differences.append(float(logp(point)) - numpy_log_density(model, values) - jacobian)
    assert np.ptp(differences) < 1e-8


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
