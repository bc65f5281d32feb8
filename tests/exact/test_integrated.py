"""Gaussian models with effects and coefficients integrated out: against dense normal densities."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

import bayesglmm as bg
from bayesglmm.laplace import ML, maximum_likelihood
from bayesglmm.laplace.covariance import covariance_of
from bayesglmm.nuts.cross_products import Several
from bayesglmm.nuts.marginal import Integrated, integrated, marginal_target, why_not_integrated
from bayesglmm.posterior.sampled import SampledPosterior

SLOPE = {"x": bg.Normal(0.3, 0.8), "(Intercept)": bg.Normal(1.0, 2.0)}
SCALES = {"sd:g": bg.Gamma(2.0, 1.5), "corr:g": bg.LKJ(1.4), "sigma": bg.Exponential(0.7)}


@cache
def rows(n: int = 120) -> pl.DataFrame:
    rng = np.random.default_rng(8)
    g, h = np.arange(n) % 9, rng.permutation(np.arange(n) % 7)
    x, z = rng.normal(3.0, 1.0, n), rng.normal(size=n)
    many = rng.permutation(np.arange(n) % 31)
    y = 1.0 + 0.5 * x + rng.normal(size=9)[g] + 0.7 * rng.normal(size=7)[h]
    y += 0.5 * rng.normal(size=9)[g] * x + 0.6 * rng.normal(size=31)[many]
    return pl.DataFrame(
        {
            "x": x,
            "z": z,
            "g": [f"g{k}" for k in g],
            "h": [f"h{k}" for k in h],
            "many": [f"m{k}" for k in many],
            "few": [f"f{k}" for k in (np.arange(n) // 4) % 29],
            "inner": [f"i{k}" for k in rng.integers(3, size=n)],
            "w": rng.uniform(0.5, 2.0, n),
            "o": rng.normal(size=n),
            "y": y + rng.normal(size=n),
        }
    )


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "scalar": ("x + (1|g)", {}),
    "vector": ("x + (x|g)", {}),
    "three columns": ("x + z + (x + z|g)", {}),
    "independent": ("x + (x||g)", {}),
    "no intercept": ("0 + x + z + (0 + x|g)", {}),
    "nested": ("x + (x|g/inner)", {}),
    "crossed": ("x + (1|g) + (1|h)", {}),
    "crossed slopes": ("x + (x|g) + (z|h)", {}),
    "crossed, LAPACK": ("x + (1|few) + (1|many)", {}),
    "crossed, three": ("1 + (1|g) + (1|h) + (1|many)", {}),
    "weights": ("x + (x|g)", {"weights": "w"}),
    "offset": ("x + (x|g) + offset(o)", {"weights": "w"}),
    "no effects": ("x + z", {"weights": "w"}),
    "nothing but the sd": ("1", {}),
}


@cache
def found(kind: str) -> Integrated:
    rhs, options = MODELS[kind]
    priors = {
        name: prior
        for name, prior in (SLOPE | SCALES).items()
        if (":" not in name or "|g)" in rhs)
        and (name != "corr:g" or "(x|g)" in rhs)
        and (name != "x" or "x" in rhs.split("(")[0])
        and (name != "(Intercept)" or not rhs.startswith("0"))
    }
    make = bg.lmer if "|" in rhs else bg.lm
    out = integrated(make(f"y ~ {rhs}", rows(), priors=priors, **options))
    assert out is not None
    return out


def points(at: Integrated, m: int = 2) -> np.ndarray:
    """Rows of t about the mode."""
    return at.parameters(np.random.default_rng(3).normal(size=(m, at.scales.size)))


def dense(at: Integrated, t: np.ndarray) -> tuple[np.ndarray, ...]:
    """Indicators of all effects (n, effects), their covariance, and A, sigma at t."""
    design = at.model.design
    factors, sigma = at.scales.unpack(t[None])
    Z, G = np.zeros((design.n, 0)), np.zeros((0, 0))
    for term, factor in zip(design.random, factors, strict=True):
        part = np.zeros((design.n, term.J * term.K))
        for k in range(term.K):
            part[np.arange(design.n), term.index * term.K + k] = term.Z[:, k]
        Z = np.hstack([Z, part])
        block = np.kron(np.eye(term.J), factor[0] @ factor[0].T)
        G = np.block([[G, np.zeros((len(G), len(block)))], [np.zeros((len(block), len(G))), block]])
    A = np.eye(design.p)
    if "(Intercept)" in design.names:
        A[design.names.index("(Intercept)")] = design.X.mean(axis=0)
    return Z, G, A, sigma


def log_prior(at: Integrated, t: np.ndarray) -> float:
    """Of the sds, correlations and sigma, with the Jacobian of t; K up to 2."""
    factors, sigma = at.scales.unpack(t[None])
    priors, total = at.model.priors, 0.0
    for factor, sds, lkj, term in zip(
        factors, priors.sds, priors.correlations, at.model.design.random, strict=True
    ):
        sd = np.sqrt(np.sum(factor[0] ** 2, axis=1))
        total += sum(float(p.log_density(s)) + np.log(s) for p, s in zip(sds, sd, strict=True))
        if term.correlated and term.K == 2:
            r = factor[0][1, 0] / sd[1]
            total += stats.beta(lkj.eta, lkj.eta).logpdf((1 + r) / 2) - np.log(2)
            total += np.log1p(-(r**2))
    return total + float(priors.sigma[0].log_density(sigma[0])) + float(np.log(sigma[0]))


@pytest.mark.parametrize("kind", [k for k in MODELS if k != "three columns"])
def test_value_is_the_dense_normal_density(kind: str) -> None:
    at = found(kind)
    design, likelihood = at.model.design, at.model.likelihood
    priors = at.model.priors.coefficients
    for t in points(at):
        Z, G, A, sigma = dense(at, t)
        X = design.X @ np.linalg.inv(A)
        spread = np.array([p.sd for p in priors if isinstance(p, bg.Normal)])
        mean = X @ np.array([p.mean for p in priors if isinstance(p, bg.Normal)]) + design.offset
        V = np.diag(sigma**2 / likelihood.w) + Z @ G @ Z.T + (X * spread**2) @ X.T
        expected = stats.multivariate_normal(mean, V).logpdf(likelihood.y) + log_prior(at, t)
        assert at.log_posterior(t)[0] == pytest.approx(expected, abs=1e-9 * abs(expected))


@pytest.mark.parametrize("kind", MODELS)
def test_gradient_is_the_slope(kind: str) -> None:
    at = found(kind)
    for t in points(at):
        gradient = at.log_posterior(t)[1]
        steps = 1e-4 * np.eye(len(t))

        def rise(step: np.ndarray, t: np.ndarray = t) -> float:
            return at.log_posterior(t + step)[0] - at.log_posterior(t - step)[0]

        slopes = [(8 * rise(step) - rise(2 * step)) / 12e-4 for step in steps]
        np.testing.assert_allclose(gradient, slopes, atol=1e-6, rtol=1e-6)


def test_trailing_terms_by_either_kind_of_algebra() -> None:
    at = found("crossed, LAPACK")
    assert at.structure.q > 24
    assert isinstance(at.sums, Several)
    d = at.sums.sums
    for densely in (0, 1):
        other = replace(at, sums=at.sums._replace(sums=(*d[:2], np.array([densely]), *d[3:])))
        t = points(at)[0]
        value, gradient = other.log_posterior(t)
        assert value == pytest.approx(at.log_posterior(t)[0], abs=1e-9)
        np.testing.assert_allclose(gradient, at.log_posterior(t)[1], atol=1e-8)


def test_flat_priors_give_the_restricted_likelihood() -> None:
    model = bg.lmer("y ~ x + (x|g)", rows(), priors="flat", weights="w")
    at = integrated(model)
    assert at is not None
    assert at.improper
    reml = maximum_likelihood(model.design, model.likelihood, ML(reml=True))
    factors = [reml.sigma * f for f in covariance_of(model.design.random).lambdas(reml.theta)]
    t = at.scales.pack(factors, reml.sigma)
    jacobian = log_prior(at, t)
    assert at.log_posterior(t)[0] - jacobian == pytest.approx(reml.loglik, abs=1e-8)


@pytest.mark.parametrize("depth", [0.0, 3.0, 12.0])
def test_coordinates_have_the_same_density_as_t(depth: float) -> None:
    at, size = found("vector"), found("vector").scales.size
    x = np.random.default_rng(2).normal(size=size)
    x[0] -= depth  # beyond the elbow
    steps, gradient = 1e-5 * np.eye(size), np.empty(size)

    def value(x: np.ndarray) -> float:
        return at.log_density(x, np.empty(size))

    jacobian = [(at.parameters((x + s)[None]) - at.parameters((x - s)[None]))[0] for s in steps]
    volume = np.linalg.slogdet(np.array(jacobian) / 2e-5)[1]
    expected = at.log_posterior(at.parameters(x[None])[0])[0] + volume
    assert at.log_density(x, gradient) == pytest.approx(expected, abs=1e-6)
    slopes = [(value(x + s) - value(x - s)) / 2e-5 for s in steps]
    np.testing.assert_allclose(gradient, slopes, atol=1e-5, rtol=1e-6)


def test_the_centre_is_the_mode() -> None:
    for kind in MODELS:
        gradient = np.empty(found(kind).scales.size)
        found(kind).log_density(np.zeros(len(gradient)), gradient)
        np.testing.assert_allclose(gradient, 0.0, atol=1e-3)


def noise(at: Integrated, rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, at.noise))


@pytest.mark.parametrize("kind", ["vector", "nested", "crossed slopes", "offset", "no effects"])
def test_draws_have_the_conditional_moments(kind: str) -> None:
    at = found(kind)
    design, likelihood = at.model.design, at.model.likelihood
    t = points(at, 1)
    m = 8_000
    x = np.random.default_rng(3).normal(size=(1, at.scales.size))
    drawn = at.expand(np.repeat(x, m, axis=0), noise(at, m, 5))
    parts = [drawn["beta"], *(drawn[f"b_{r.name}"].reshape(m, -1) for r in design.random)]
    draws = np.hstack(parts)

    Z, G, A, sigma = dense(at, t[0])
    priors = [p for p in at.model.priors.coefficients if isinstance(p, bg.Normal)]
    D = np.diag([p.sd**-2.0 for p in priors])
    M = np.hstack([design.X, Z])
    H = M.T @ (M * likelihood.w[:, None]) / sigma**2
    p = design.p
    H[:p, :p] += A.T @ D @ A
    H[p:, p:] += np.linalg.inv(G) if len(G) else 0.0
    rhs = M.T @ (likelihood.w * (likelihood.y - design.offset)) / sigma**2
    rhs[:p] += A.T @ D @ np.array([q.mean for q in priors])
    cov = np.linalg.inv(H)
    mean, sd = cov @ rhs, np.sqrt(np.diag(cov))
    assert np.max(np.abs(draws.mean(axis=0) - mean) / sd) < 5.0 / np.sqrt(m)
    seen = np.cov(draws.T) / np.outer(sd, sd)
    assert np.max(np.abs(seen - cov / np.outer(sd, sd))) < 5.0 * np.sqrt(2.0 / m)


def test_draws_are_named_seeded_and_invertible() -> None:
    at = found("crossed slopes")
    x = 3.0 * np.random.default_rng(1).normal(size=(6, at.scales.size))
    out = at.expand(x, noise(at, 6, 11))
    assert {k: v.shape for k, v in out.items()} == {
        "beta": (6, 2),
        "sd_g": (6, 2),
        "corr_g": (6, 2, 2),
        "b_g": (6, 9, 2),
        "sd_h": (6, 2),
        "corr_h": (6, 2, 2),
        "b_h": (6, 7, 2),
        "sigma": (6,),
    }
    first = at.expand(x[:2], noise(at, 2, 11))
    assert all(np.array_equal(out[name][:2], first[name]) for name in out)
    assert not np.array_equal(at.expand(x, noise(at, 6, 12))["beta"], out["beta"])
    np.testing.assert_allclose(at.coordinates(out), x, atol=1e-10)


def test_the_c_function_is_the_density() -> None:
    import ctypes

    from bayesglmm.nuts import alone_native, marginal_native
    from bayesglmm.nuts.native import with_room

    for kind in ("scalar", "three columns", "nested", "crossed slopes", "no effects"):
        at = found(kind)
        target = marginal_target(at.model)
        assert target is not None
        alone = kind in ("scalar", "three columns")
        density = alone_native.native if alone else marginal_native.native
        assert target.address == density.address
        call = density.ctypes
        x = np.random.default_rng(2).normal(size=target.size)
        gradient, seen, value = np.empty(target.size), np.empty(target.size), np.empty(1)
        pointers = [a.ctypes.data_as(ctypes.POINTER(ctypes.c_double)) for a in (x, seen, value)]
        packed, _room = with_room(target.data, target.room)
        assert call(target.size, *pointers, packed.ctypes.data) == 0
        assert value[0] == at.log_density(x, gradient)
        assert np.array_equal(seen, gradient)
        x[0] = 1e6
        assert call(target.size, *pointers, packed.ctypes.data) != 0


@pytest.mark.parametrize("rhs", ["x + (x|g)", "x + (x|g) + (z|h)"])
def test_whole_numbers_are_numbers_in_c(rhs: str) -> None:
    """A C function reads bits: eta = 2, an int, must not reach it as one."""
    import ctypes

    from bayesglmm.nuts.native import with_room

    seen = []
    for number in (int, float):
        priors: dict[str, Any] = {f"corr:{g}": bg.LKJ(number(2)) for g in "gh" if f"|{g})" in rhs}
        priors |= {"sigma": bg.HalfNormal(number(3)), "sd:g": bg.HalfStudentT(number(4), number(2))}
        target = marginal_target(bg.lmer(f"y ~ {rhs}", rows(), priors=priors))
        assert target is not None
        signature = [ctypes.c_uint64, *[ctypes.c_void_p] * 4]
        call = ctypes.CFUNCTYPE(ctypes.c_int64, *signature)(target.address)
        x = np.linspace(-0.7, 0.8, target.size)
        gradient, value = np.empty(target.size), np.empty(1)
        packed, _room = with_room(target.data, target.room)
        pointers = [a.ctypes.data for a in (x, gradient, value, packed)]
        assert call(target.size, *pointers) == 0
        assert value[0] == target.log_density(x, np.empty(target.size))
        seen.append((value[0], gradient))
    assert seen[0][0] == seen[1][0] and np.array_equal(seen[0][1], seen[1][1])


def test_correlations_that_round_to_one_lose_no_draws() -> None:
    priors = {"corr:g": bg.LKJ(0.1)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bg.BayesglmmWarning)  # of so hard a posterior
        fit = bg.lmer("y ~ x + (x|g)", rows(), priors=priors).fit("nuts", seed=1, progress=False)
    posterior = fit.posterior
    assert isinstance(posterior, SampledPosterior)
    corr = posterior.run.values("corr_g")[..., 0, 1]
    assert np.isfinite(corr).all() and (np.abs(corr) > 1.0 - 1e-12).any()


def test_normalised_over_a_fine_grid() -> None:
    """Z = p(y) by quadrature over (sd, sigma) themselves, with dense densities."""
    data = rows().head(25)
    model = bg.lmer("y ~ 1 + (1|g)", data, priors={"sd:g": bg.HalfNormal(1.0)})
    at = integrated(model)
    assert at is not None
    gradient = np.empty(2)
    nodes, weights = np.polynomial.legendre.leggauss(80)
    u, v = 9.0 * nodes, 8.0 * nodes
    inside = np.array([[at.log_density(np.array([a, b]), gradient) for b in v] for a in u])
    top = inside.max()
    evidence = np.log(9.0 * weights @ np.exp(inside - top) @ (8.0 * weights)) + top

    prior = model.priors.coefficients[0]
    assert isinstance(prior, bg.Normal)
    y, g = model.likelihood.y - prior.mean, model.design.random[0].index
    sds, sigmas = 3.0 * (nodes + 1.0), 0.2 + 3.0 * (nodes + 1.0)
    V = sigmas[:, None, None] ** 2 * np.eye(len(y)) + prior.sd**2
    V = V + (sds**2)[:, None, None, None] * (g[:, None] == g)
    quadratic = np.linalg.solve(V, np.broadcast_to(y[:, None], (*V.shape[:3], 1)))[..., 0] @ y
    total = -0.5 * (np.linalg.slogdet(2.0 * np.pi * V)[1] + quadratic)
    total += bg.HalfNormal(1.0).log_density(sds)[:, None]
    total += model.priors.sigma[0].log_density(sigmas)
    plain = np.log(3.0 * weights @ np.exp(total) @ (3.0 * weights))
    assert evidence == pytest.approx(plain, abs=1e-4)


def test_says_why_not() -> None:
    data = rows().with_columns(count=pl.Series(np.arange(120) % 4))
    poisson = bg.glmer("count ~ x + (1|g)", data, family="poisson")
    assert "poisson" in why_not_integrated(poisson)
    assert integrated(poisson) is None
    assert marginal_target(poisson) is None
    student = bg.lmer("y ~ x + (1|g)", data, priors={"x": bg.StudentT(3, 0, 1)})
    assert "the prior of x is StudentT" in why_not_integrated(student)
    dense = pl.DataFrame(
        {"y": np.arange(2000.0) % 7, "a": np.arange(2000) % 400, "b": np.arange(2000) % 393}
    ).with_columns(pl.col("a", "b").cast(pl.String))
    crossed = bg.lmer("y ~ 1 + (1|a) + (1|b)", dense)
    assert "cross too densely" in why_not_integrated(crossed)
    assert why_not_integrated(bg.lm("y ~ x", data)) == ""


def test_many_levels_and_coefficients_are_sampled_row_by_row() -> None:
    rng = np.random.default_rng(1)
    n, J, p = 2400, 800, 12
    X = {f"x{k}": rng.normal(size=n) for k in range(p)}
    data = pl.DataFrame({"y": rng.normal(size=n), "g": np.arange(n) % J, **X})
    fixed = " + ".join(X)
    slopes = bg.lmer(f"y ~ {fixed} + (x0|g)", data, factors="g")
    assert "too many levels and coefficients" in why_not_integrated(slopes)
    alike = bg.lmer(f"y ~ {fixed} + (1|g)", data, factors="g")  # three rows each: one class
    assert why_not_integrated(alike) == ""


@pytest.mark.parametrize("method", ["nuts", "laplace"])
def test_a_response_that_is_fitted_exactly_is_refused(method: str) -> None:
    """Its density is infinite where sigma is zero, whatever the prior of sigma."""
    g = np.repeat(np.arange(18), 10)
    data = pl.DataFrame({"g": g.astype(str), "x": np.arange(180.0), "y": np.sin(g.astype(float))})
    line = data.with_columns(y=2.0 * pl.col("x") + 1.0)
    wide = {"slopes": bg.StudentT(3, 0, 2.5)}  # what keeps coefficients from being integrated out
    for formula, rows_, priors in (
        ("y ~ 1 + (1|g)", data, {}),
        ("y ~ x + (1|g)", line, {}),
        ("y ~ x", line, {}),
        ("y ~ x + (1|g)", line.with_columns(pl.col("y") + data["y"]), wide),
    ):
        with pytest.raises(bg.FitError, match="fitted exactly"):
            bg.model(formula, rows_, priors=priors).fit(method, seed=1)
    with pytest.raises(bg.FitError) as caught:
        bg.lm("y ~ x", line).fit()
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # from a process
    each = data.with_columns(g=pl.int_range(180).cast(pl.String), y=pl.col("y") + pl.col("x"))
    assert integrated(bg.lmer("y ~ 1 + (1|g)", each)) is not None


def test_as_many_columns_as_rows_have_a_posterior() -> None:
    """Any response is fitted exactly, and its density at sigma = 0 is finite."""
    rows = pl.DataFrame({"y": [1.0, 2.0, 4.0], "x": [0.0, 1.0, 2.0], "z": [1.0, 0.0, 3.0]})
    fit: Any = bg.lm("y ~ x + z", rows).fit("nuts", seed=1)
    assert integrated(fit.model) is not None and fit.diagnostics.r_hat[0] < 1.01
    with pytest.raises(bg.FitError, match="leave nothing to estimate"):
        fit.model.fit()
