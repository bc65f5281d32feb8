"""The ML engine against dense algebra, finite differences and brute-force integration."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy import integrate, optimize, stats

import bayesglmm as bg
from bayesglmm.families import FAMILIES, LINKS, Likelihood
from bayesglmm.laplace.blocks import (
    cross_products,
    factorize,
    inverse_blocks,
    inverse_trailing,
    layout_of,
    leverages,
    solve,
    transpose_product,
)
from bayesglmm.laplace.covariance import canonical, covariance_of, sd_corr
from bayesglmm.laplace.marginal import Problem, laplace
from bayesglmm.laplace.pirls import scale_up
from bayesglmm.laplace.pls import deviance, linear_problem, penalised_least_squares
from bayesglmm.laplace.quadrature import adaptive, nodes_and_log_weights


@dataclass(frozen=True)
class Term:
    """A random-effects term without labels."""

    name: str
    columns: tuple[str, ...]
    levels: tuple[str, ...]
    index: np.ndarray
    Z: np.ndarray
    correlated: bool


def term(name: str, index: np.ndarray, Z: np.ndarray, correlated: bool = True) -> Term:
    columns = tuple(f"z{k}" for k in range(Z.shape[1]))
    levels = tuple(str(j) for j in range(int(index.max()) + 1))
    return Term(name, columns, levels, index.astype(np.intp), Z, correlated)


STRUCTURES = ("scalar", "slope", "K=3", "uncorrelated", "crossed", "crossed slopes", "three")
RESPONSES = (
    ("gaussian", "identity"),
    ("gaussian", "log"),
    ("binomial", "logit"),
    ("binomial", "probit"),
    ("binomial", "cloglog"),
    ("poisson", "log"),
)
N = 48


def terms_of(structure: str) -> tuple[Term, ...]:
    rng = np.random.default_rng(5)
    one, x = np.ones(N), rng.normal(size=N)
    three = np.column_stack([one, x, rng.normal(size=N)])
    a, b = np.arange(N) % 6, rng.permutation(np.arange(N) % 4)
    return {
        "scalar": (term("a", a, one[:, None]),),
        "slope": (term("a", a, three[:, :2]),),
        "K=3": (term("a", a, three),),
        "uncorrelated": (term("a", a, three[:, :2], correlated=False),),
        "crossed": (term("a", a, one[:, None]), term("b", b, one[:, None])),
        "crossed slopes": (term("b", b, three[:, :2]), term("a", a, three)),
        "three": (
            term("g", a // 3, one[:, None]),
            term("a", a, three[:, :2]),
            term("row", np.arange(N), one[:, None]),
        ),
    }[structure]


@cache
def problem_of(structure: str, family: str, link: str) -> tuple[Problem, np.ndarray]:
    """A problem and a point (theta, beta, log sigma) away from any optimum."""
    rng = np.random.default_rng(8)
    terms = terms_of(structure)
    layout, covariance = layout_of(terms), covariance_of(terms)
    X = np.column_stack([np.ones(N), rng.normal(size=N)])
    theta = np.array([0.7 if r == c else 0.3 for _, r, c in covariance.entries])
    theta = theta * rng.uniform(0.6, 1.2, len(theta))
    beta = np.array([0.4, -0.3])
    w = np.ones(N)
    if family == "binomial":
        w = rng.integers(1, 7, N).astype(float)
        y = rng.binomial(w.astype(int), 0.5) / w
    elif family == "poisson":
        y = rng.poisson(1.5, N).astype(float)
    else:
        y, w = 1.5 + rng.normal(size=N), rng.uniform(0.5, 2.0, N)
    likelihood = Likelihood(FAMILIES[family], LINKS[link], y, w)
    offset = 0.2 * rng.normal(size=N)
    problem = Problem(X, offset, likelihood, layout, covariance)
    return problem, np.concatenate([theta, beta, [np.log(0.8)]])


def zeros(problem: Problem) -> list[np.ndarray]:
    return [np.zeros(size) for size in problem.layout.sizes]


def evaluate(problem: Problem, x: np.ndarray, k: int = 1) -> tuple[float, np.ndarray]:
    m = problem.covariance.size
    theta, beta, log_sigma = x[:m], x[m:-1], float(x[-1])
    sigma = float(np.exp(log_sigma)) if problem.likelihood.family.has_scale else 1.0
    if k == 1:
        at = laplace(problem, theta, beta, sigma, zeros(problem))
    else:
        at = adaptive(problem, theta, beta, sigma, zeros(problem), k)
    return at.loglik, np.concatenate([at.theta, at.beta, [at.log_sigma]])


def differences(problem: Problem, x: np.ndarray, k: int = 1) -> np.ndarray:
    """Central differences of the value with one Richardson step; exact to about 1e-8."""

    def slope(j: int, h: float) -> float:
        step = np.zeros(len(x))
        step[j] = h
        return (evaluate(problem, x + step, k)[0] - evaluate(problem, x - step, k)[0]) / (2 * h)

    return np.array([(4 * slope(j, 1e-3) - slope(j, 2e-3)) / 3 for j in range(len(x))])


# Gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "link"), RESPONSES)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_gradient_of_the_laplace_objective(structure: str, family: str, link: str) -> None:
    if structure == "three" and (family, link) == ("gaussian", "log"):
        # One effect a row beside a free sigma: the mode need not be unique.
        pytest.skip("not a model that can be fitted")
    problem, x = problem_of(structure, family, link)
    value, gradient = evaluate(problem, x)
    assert np.isfinite(value)
    # In units of the log-likelihood; the modes are exact to 1e-8 of their sd.
    np.testing.assert_allclose(gradient, differences(problem, x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("zero", [0, 1])
def test_gradient_where_lambda_is_singular(zero: int) -> None:
    problem, x = problem_of("crossed", "poisson", "log")
    x = x.copy()
    x[zero] = 0.0
    np.testing.assert_allclose(evaluate(problem, x)[1], differences(problem, x), atol=1e-6)
    assert evaluate(problem, x)[1][zero] == pytest.approx(0.0, abs=1e-9)  # even in theta


@pytest.mark.parametrize("k", [1, 2, 5, 9])
@pytest.mark.parametrize(("family", "link"), RESPONSES)
def test_gradient_of_the_quadrature(family: str, link: str, k: int) -> None:
    problem, x = problem_of("scalar", family, link)
    theta, beta = x[:1], x[1:-1]
    sigma = float(np.exp(x[-1])) if problem.likelihood.family.has_scale else 1.0
    at = adaptive(problem, theta, beta, sigma, zeros(problem), k)
    gradient = np.concatenate([at.theta, at.beta, [at.log_sigma]])
    if k == 1:
        same = laplace(problem, theta, beta, sigma, zeros(problem))
        assert at.loglik == pytest.approx(same.loglik, rel=1e-12)
        np.testing.assert_allclose(at.beta, same.beta, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(at.theta, same.theta, rtol=1e-7, atol=1e-8)
    else:
        np.testing.assert_allclose(gradient, differences(problem, x, k), rtol=1e-6, atol=1e-6)


# Values ---------------------------------------------------------------------------------------


def dense(problem: Problem, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Z Lambda and Z as dense matrices, columns in the order of the terms."""
    parts, plain = [], []
    layout = problem.layout
    for index, Z, (J, K), factor in zip(
        layout.index, layout.Z, layout.sizes, problem.covariance.lambdas(theta), strict=True
    ):
        block = np.zeros((N, J, K))
        block[np.arange(N), index, :] = Z
        plain.append(block.reshape(N, J * K))
        parts.append((block @ factor).reshape(N, J * K))
    return np.hstack(parts), np.hstack(plain)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_laplace_is_exact_for_a_gaussian_identity_model(structure: str) -> None:
    problem, x = problem_of(structure, "gaussian", "identity")
    m = problem.covariance.size
    sigma = float(np.exp(x[-1]))
    M, _ = dense(problem, x[:m])
    w = problem.likelihood.w
    V = M @ M.T + np.diag(sigma**2 / w)
    mean = problem.X @ x[m:-1] + problem.offset
    expected = stats.multivariate_normal.logpdf(problem.likelihood.y, mean, V)
    assert evaluate(problem, x)[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("structure", STRUCTURES[:-1])
@pytest.mark.parametrize("seed", [1, 2])
def test_profiled_deviance_is_the_dense_one(structure: str, reml: bool, seed: int) -> None:
    problem, _ = problem_of(structure, "gaussian", "identity")
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=problem.covariance.size)
    X, y = problem.X, problem.likelihood.y + 1e3 * (seed == 2)
    w = rng.uniform(0.2, 3.0, N)
    linear = linear_problem(X, y, w, problem.layout, problem.covariance)
    M, _ = dense(problem, theta)
    V = M @ M.T + np.diag(1 / w)  # relative to sigma^2
    A = X.T @ np.linalg.solve(V, X)
    beta = np.linalg.solve(A, X.T @ np.linalg.solve(V, y))
    e = y - X @ beta
    rss = e @ np.linalg.solve(V, e)
    df = N - X.shape[1] if reml else N
    expected = np.linalg.slogdet(V)[1] + df * (1 + np.log(2 * np.pi * rss / df))
    if reml:
        expected += np.linalg.slogdet(A)[1]
    value, gradient = deviance(linear, theta, reml)
    assert value == pytest.approx(expected, rel=1e-10)
    at = penalised_least_squares(linear, theta)
    np.testing.assert_allclose(at.beta, beta, rtol=1e-9)
    b = np.concatenate([v.ravel() for v in scale_up(at.factor.lambdas, at.u)])
    Z = dense(problem, theta)[1]
    full = np.concatenate([(v @ f.T).ravel() for v, f in zip(at.u, at.factor.lambdas, strict=True)])
    np.testing.assert_allclose(b, full)
    np.testing.assert_allclose(Z @ b, M @ M.T @ np.linalg.solve(V, e), rtol=1e-7, atol=1e-8)
    for sigma in (None, 1.3):
        slopes = []
        for j in range(len(theta)):
            step = 1e-5 * np.eye(len(theta))[j]
            up = deviance(linear, theta + step, reml, sigma)[0]
            slopes.append((up - deviance(linear, theta - step, reml, sigma)[0]) / 2e-5)
        gradient = deviance(linear, theta, reml, sigma)[1]
        np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=2e-5)


def brute_force(problem: Problem, theta: float, beta: np.ndarray, sigma: float) -> float:
    """Sum over the levels of the log of the integral over the effect, by adaptive quadrature."""
    index, z = problem.layout.index[0], problem.layout.Z[0][:, 0]
    likelihood, eta0 = problem.likelihood, problem.X @ beta + problem.offset
    total = 0.0
    for j in range(problem.layout.sizes[0][0]):
        rows = index == j
        part = Likelihood(
            likelihood.family, likelihood.link, likelihood.y[rows], likelihood.w[rows]
        )

        def log_joint(u: float, rows: np.ndarray = rows, part: Likelihood = part) -> float:
            eta = eta0[rows] + theta * z[rows] * u
            return float(np.sum(part.log_density(eta, sigma))) + float(stats.norm.logpdf(u))

        best = optimize.minimize_scalar(lambda u: -log_joint(u), bounds=(-8, 8), method="bounded")
        peak = -float(best.fun)
        area, _ = integrate.quad(
            lambda u: np.exp(log_joint(u) - peak),  # noqa: B023
            *(-9, 9),
            points=[float(best.x)],
            epsabs=1e-13,
            epsrel=1e-11,
            limit=300,
        )
        total += peak + float(np.log(area))
    return total


@pytest.mark.parametrize(("family", "link"), RESPONSES)
def test_quadrature_converges_to_the_integral(family: str, link: str) -> None:
    problem, x = problem_of("scalar", family, link)
    sigma = float(np.exp(x[-1])) if problem.likelihood.family.has_scale else 1.0
    exact = brute_force(problem, float(x[0]), x[1:-1], sigma)
    errors = []
    for k in (1, 3, 7, 25, 61):
        at = adaptive(problem, x[:1], x[1:-1], sigma, zeros(problem), k)
        errors.append(abs(at.loglik - exact))
    assert errors[-1] < 1e-8
    if link == "identity":
        assert max(errors) < 1e-9  # the Laplace approximation is exact
    else:
        assert errors[2] < errors[0] and errors[3] < 1e-6


def test_nodes_integrate_polynomials() -> None:
    x, log_weight = nodes_and_log_weights(7)
    moments = [np.sum(np.exp(log_weight - 0.5 * x * x) * x**m) for m in range(0, 13, 2)]
    np.testing.assert_allclose(moments, [1, 1, 3, 15, 105, 945, 10395], rtol=1e-12)


# Blocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", STRUCTURES)
def test_blocks_are_the_dense_inverse(structure: str) -> None:
    problem, x = problem_of(structure, "poisson", "log")
    theta = x[: problem.covariance.size]
    layout, lambdas = problem.layout, problem.covariance.lambdas(theta)
    rng = np.random.default_rng(4)
    w = rng.uniform(0.1, 3.0, N)
    cross = cross_products(layout, w)
    factor = factorize(layout, cross, lambdas)
    M, _ = dense(problem, theta)
    H = np.eye(M.shape[1]) + M.T @ (w[:, None] * M)
    inverse = np.linalg.inv(H)
    assert factor.logdet == pytest.approx(np.linalg.slogdet(H)[1], rel=1e-12)
    Sinv = inverse_trailing(factor)
    np.testing.assert_allclose(
        leverages(factor, Sinv), np.einsum("ij,jk,ik->i", M, inverse, M), rtol=1e-10
    )
    start = 0
    for block, (J, K) in zip(inverse_blocks(factor, Sinv), layout.sizes, strict=True):
        for j in range(J):
            at = slice(start + j * K, start + (j + 1) * K)
            np.testing.assert_allclose(block[j], inverse[at, at], rtol=1e-9, atol=1e-12)
        start += J * K
    v = rng.normal(size=(N, 2))
    rhs = transpose_product(layout, v)
    flat = np.concatenate([r.reshape(-1, 2) for r in rhs])
    np.testing.assert_allclose(flat, dense(problem, theta)[1].T @ v, rtol=1e-10, atol=1e-12)
    found = np.concatenate([s.reshape(-1, 2) for s in solve(factor, rhs)])
    np.testing.assert_allclose(found, inverse @ flat, rtol=1e-9, atol=1e-11)


def test_canonical_theta_is_the_same_covariance() -> None:
    covariance = covariance_of(terms_of("crossed slopes"))
    theta = np.random.default_rng(2).normal(size=covariance.size)
    plain = canonical(covariance, theta)
    pairs = zip(covariance.lambdas(theta), covariance.lambdas(plain), strict=True)
    for before, after in pairs:
        np.testing.assert_allclose(before @ before.T, after @ after.T, rtol=1e-12)
        assert np.all(np.diag(after) >= 0)
    sd, corr = sd_corr(np.array([[2.0, 0.0], [3.0, 4.0]]))
    np.testing.assert_allclose(sd, [2.0, 5.0])
    assert corr[0, 1] == pytest.approx(0.6)


# Fits that must agree ---------------------------------------------------------------------------

TICKS = bg.load_dataset("grouseticks")
SLEEP = bg.load_dataset("sleepstudy")
CBPP = bg.load_dataset("cbpp")


def ticks(formula: str, data: pl.DataFrame = TICKS) -> bg.Fit:
    return bg.glmer(formula, data, family="poisson").fit()


def test_order_of_rows() -> None:
    before = ticks("TICKS ~ YEAR + (YEAR | LOCATION)")
    after = ticks(
        "TICKS ~ YEAR + (YEAR | LOCATION)", TICKS.sample(fraction=1.0, shuffle=True, seed=1)
    )
    assert after.loglik == pytest.approx(before.loglik, abs=1e-8)
    np.testing.assert_allclose(after.params["estimate"], before.params["estimate"], atol=1e-6)
    assert_frame_equal(
        pl.DataFrame(after.ranef), pl.DataFrame(before.ranef), rel_tol=1e-4, abs_tol=1e-5
    )


def test_labels_of_levels() -> None:
    names = TICKS["LOCATION"].cast(pl.String).unique().sort().to_list()
    other = np.random.default_rng(1).permutation(names).tolist()
    renamed = TICKS.with_columns(
        pl.col("LOCATION").cast(pl.String).replace_strict(dict(zip(names, other, strict=True)))
    )
    before, after = (ticks("TICKS ~ YEAR + (1|LOCATION)", d) for d in (TICKS, renamed))
    assert after.loglik == pytest.approx(before.loglik, abs=1e-8)
    assert sorted(after.ranef["estimate"]) == pytest.approx(
        sorted(before.ranef["estimate"]), abs=1e-6
    )


def test_order_of_terms() -> None:
    before = ticks("TICKS ~ YEAR + (1|LOCATION) + (1|BROOD)")
    after = ticks("TICKS ~ YEAR + (1|BROOD) + (1|LOCATION)")
    assert after.loglik == pytest.approx(before.loglik, abs=1e-8)
    np.testing.assert_allclose(after.params["std_error"], before.params["std_error"], rtol=1e-5)


@pytest.mark.parametrize("method", ["ml", "reml"])
def test_rescaling_a_covariate(method: str) -> None:
    before = bg.lmer("Reaction ~ Days + (Days|Subject)", SLEEP).fit(method)
    scaled = SLEEP.with_columns(pl.col("Days") * 100)
    after = bg.lmer("Reaction ~ Days + (Days|Subject)", scaled).fit(method)
    # A restricted likelihood moves by log |d beta / d scaled beta|.
    shift = np.log(100) if method == "reml" else 0.0
    assert after.loglik == pytest.approx(before.loglik - shift, abs=1e-8)
    expected = before.varcorr["estimate"].to_numpy() / np.array([1, 100, 1, 1])
    np.testing.assert_allclose(after.varcorr["estimate"], expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(after.params["df"], before.params["df"], rtol=1e-4)
    assert after.params["t_stat"][1] == pytest.approx(before.params["t_stat"][1], rel=1e-6)


def test_rescaling_a_covariate_of_a_glmm() -> None:
    data = bg.load_dataset("contra")
    formula = "use ~ age + urban + livch + (age | dist)"
    before = bg.glmer(formula, data, family="binomial").fit()
    scaled = data.with_columns(pl.col("age") * 100)
    after = bg.glmer(formula, scaled, family="binomial").fit()
    assert after.loglik == pytest.approx(before.loglik, abs=1e-8)
    np.testing.assert_allclose(after.params["z_stat"], before.params["z_stat"], rtol=1e-5)
    ratio = after.varcorr["std_error"] / before.varcorr["std_error"]
    np.testing.assert_allclose(ratio, [1, 0.01, 1], rtol=1e-4)


def test_a_tiny_sd_is_not_singular() -> None:
    """Singular means zero beside the noise, whatever the unit of the covariate."""
    scaled = SLEEP.with_columns(pl.col("Days") * 1e5)
    outcome = bg.lmer("Reaction ~ Days + (Days|Subject)", scaled).fit().outcome
    assert outcome.converged and outcome.notes == ()


def test_units_of_the_response() -> None:
    before = bg.lmer("Reaction ~ Days + (Days|Subject)", SLEEP).fit()
    after = bg.lmer(
        "Reaction ~ Days + (Days|Subject)", SLEEP.with_columns(pl.col("Reaction") / 1000 + 7)
    ).fit()
    assert after.loglik == pytest.approx(before.loglik + SLEEP.height * np.log(1000), abs=1e-7)
    np.testing.assert_allclose(
        after.params["std_error"] * 1000, before.params["std_error"], rtol=1e-6
    )


@pytest.mark.parametrize("coding", ["sum", "helmert", "poly", "sdif"])
def test_coding_of_a_factor(coding: str) -> None:
    formula = "cbind(incidence, size - incidence) ~ period + (1|herd)"
    plain = bg.glmer(formula, CBPP, family="binomial").fit()
    coded = bg.glmer(formula, CBPP, family="binomial", contrasts={"period": coding}).fit()
    assert coded.loglik == pytest.approx(plain.loglik, abs=1e-8)
    for what in ("prob", "SE"):
        np.testing.assert_allclose(
            coded.emmeans("period")[what], plain.emmeans("period")[what], rtol=1e-5
        )


def test_cell_means_in_a_random_term() -> None:
    with_intercept = ticks("TICKS ~ YEAR + (YEAR | LOCATION)")
    cells = ticks("TICKS ~ YEAR + (0 + YEAR | LOCATION)")
    assert cells.loglik == pytest.approx(with_intercept.loglik, abs=1e-8)
    # Var(cell) = T Var(intercept, differences) T'.
    np.testing.assert_allclose(
        cells.predict()["estimate"], with_intercept.predict()["estimate"], rtol=1e-5
    )


def test_successes_and_proportions() -> None:
    first = bg.glmer(
        "cbind(incidence, size - incidence) ~ period + (1|herd)", CBPP, family="binomial"
    )
    second = bg.glmer("incidence ~ period + (1|herd)", CBPP, family="binomial", trials="size")
    share = CBPP.with_columns(p=pl.col("incidence") / pl.col("size"))
    third = bg.glmer("p ~ period + (1|herd)", share, family="binomial", weights="size")
    single = pl.concat(
        [
            CBPP.select("herd", "period", n="incidence", y=pl.lit(1)),
            CBPP.select("herd", "period", n=pl.col("size") - pl.col("incidence"), y=pl.lit(0)),
        ]
    ).select(pl.exclude("n").repeat_by("n").explode())
    fourth = bg.glmer("y ~ period + (1|herd)", single, family="bernoulli")
    fits = [m.fit() for m in (first, second, third, fourth)]
    for other in fits[1:]:
        np.testing.assert_allclose(other.params["estimate"], fits[0].params["estimate"], atol=1e-6)
        np.testing.assert_allclose(
            other.params["std_error"], fits[0].params["std_error"], rtol=1e-5
        )
    assert fits[1].loglik == pytest.approx(fits[0].loglik, abs=1e-9)
    assert fits[2].loglik == pytest.approx(fits[0].loglik, abs=1e-9)
