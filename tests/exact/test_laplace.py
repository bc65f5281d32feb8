"""The ML engine against dense algebra, finite differences and brute-force integration."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy import integrate, optimize, special, stats
from threadpoolctl import threadpool_info

import bayesglmm as bg
from bayesglmm.families import FAMILIES, LINKS, Likelihood, compiled
from bayesglmm.families.compiled import Density
from bayesglmm.laplace import chain, generalised, kernels, pirls
from bayesglmm.laplace.covariance import canonical, covariance_of, sd_corr
from bayesglmm.laplace.factor import (
    covariance_blocks,
    diagonal_blocks,
    factorize,
    inverse_blocks,
    solve,
    variance_at,
)
from bayesglmm.laplace.marginal import laplace, laplace_profiled
from bayesglmm.laplace.optimise import maximise
from bayesglmm.laplace.pirls import EXACT, Problem
from bayesglmm.laplace.pls import (
    deviance,
    linear_problem,
    penalised_least_squares,
    sensitivity,
)
from bayesglmm.laplace.quadrature import adaptive, nodes_and_log_weights
from bayesglmm.laplace.standardise import Coordinates, coordinates, orthonormal
from bayesglmm.laplace.structure import structure_of
from bayesglmm.laplace.threads import blas_threads, in_parts


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


STRUCTURES = (
    "scalar",
    "slope",
    "K=3",
    "uncorrelated",
    "crossed",
    "crossed slopes",
    "same factor twice",
    "nested",
    "nested and crossed",
    "three",
)
RESPONSES = (
    ("gaussian", "identity"),
    ("gaussian", "log"),
    ("binomial", "logit"),
    ("binomial", "probit"),
    ("binomial", "cloglog"),
    ("poisson", "log"),
)
# Links whose mean leaves its range for some eta: only points well inside have a likelihood.
BOUNDED = (("binomial", "log"), ("binomial", "identity"), ("poisson", "identity"))
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
        "same factor twice": (
            term("a", a, one[:, None]),
            term("a.1", a, three[:, 1:]),
            term("b", b, one[:, None]),
        ),
        "nested": (term("g", a // 3, three), term("a", a, three[:, :2])),
        "nested and crossed": (
            term("b", b, three[:, :2]),
            term("g", a // 2, three[:, :2]),
            term("h", a // 4, one[:, None]),
            term("a", a, one[:, None]),
        ),
        "three": (
            term("g", a // 3, one[:, None]),
            term("a", a, three[:, :2]),
            term("row", np.arange(N), one[:, None]),
        ),
    }[structure]


def coordinates_of(X: np.ndarray, terms: tuple[Term, ...]) -> Coordinates:
    """The columns as they are, not standardised."""
    structure = structure_of(terms)
    Z = np.concatenate([terms[f].Z for f in structure.order], axis=1)
    return Coordinates(
        np.ascontiguousarray(X),
        np.eye(X.shape[1]),
        structure,
        Z,
        tuple(np.eye(t.Z.shape[1]) for t in terms),
    )


@cache
def problem_of(structure: str, family: str, link: str) -> tuple[Problem, np.ndarray]:
    """A problem and a point (theta, beta, log sigma) away from any optimum."""
    rng = np.random.default_rng(8)
    terms = terms_of(structure)
    covariance = covariance_of(terms)
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
    if (family, link) in BOUNDED:
        inside = {"log": [-0.9, 0.05], "identity": [0.5, 0.02]}[link]
        beta = np.array(inside) * (4.0 if family == "poisson" else 1.0)
        theta = 0.1 * theta
    likelihood = Likelihood(FAMILIES[family], LINKS[link], y, w)
    offset = (0.01 if (family, link) in BOUNDED else 0.2) * rng.normal(size=N)
    offset.setflags(write=False)  # as a design's
    problem = Problem(coordinates_of(X, terms), offset, Density(likelihood), covariance)
    return problem, np.concatenate([theta, beta, [np.log(0.8)]])


def evaluate(problem: Problem, x: np.ndarray, k: int = 1) -> tuple[float, np.ndarray]:
    m = problem.covariance.size
    theta, beta, log_sigma = x[:m], x[m:-1], float(x[-1])
    sigma = float(np.exp(log_sigma)) if problem.density.likelihood.family.has_scale else 1.0
    if k == 1:
        at = laplace(problem, theta, beta, sigma, problem.zeros())
    else:
        at = adaptive(problem, theta, beta, sigma, problem.zeros(), k=k)
    return at.loglik, np.concatenate([at.theta, at.beta, [at.log_sigma]])


def differences(problem: Problem, x: np.ndarray, k: int = 1) -> np.ndarray:
    """Central differences of the value with one Richardson step; exact to about 1e-8."""

    def slope(j: int, h: float) -> float:
        step = np.zeros(len(x))
        step[j] = h
        return (evaluate(problem, x + step, k)[0] - evaluate(problem, x - step, k)[0]) / (2 * h)

    return np.array([(4 * slope(j, 1e-3) - slope(j, 2e-3)) / 3 for j in range(len(x))])


# Modes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("most", [2, 100])
@pytest.mark.parametrize("link", ["logit", "probit"])
@pytest.mark.parametrize("structure", ["slope", "crossed"])
def test_all_of_the_modes_is_from_one_point(
    monkeypatch: pytest.MonkeyPatch, structure: str, link: str, most: int, joint: bool
) -> None:
    """Also where the search gave up: after two steps it is not there yet."""
    monkeypatch.setattr(pirls, "_MAX_STEPS", most)
    problem, x = problem_of(structure, "binomial", link)
    m = problem.covariance.size
    at = problem.columns.structure
    lam, beta = at.pack(problem.covariance.lambdas(x[:m])), x[m:-1]
    if joint:
        modes, beta, _ = pirls.joint_modes(problem, beta, lam, problem.zeros())
    else:
        modes = pirls.conditional_modes(problem, beta, lam, problem.zeros())
    assert modes.converged == (most == 100)
    b, eta, l = np.empty_like(modes.b), np.empty_like(modes.eta), np.empty_like(modes.l)
    fixed = problem.columns.X @ beta + problem.offset
    kernels.predict(at.arrays, lam, problem.columns.Z, fixed, modes.u, b, eta)
    value = problem.density(eta, 1.0, l) - 0.5 * np.vdot(modes.u, modes.u)
    W, score = np.empty_like(modes.W), np.empty_like(modes.score)
    kernels.cross_products(at.arrays, problem.columns.Z, -l[2], W)
    kernels.sum_rows(at.arrays, problem.columns.Z, l[1][:, None], score)
    assert modes.f == pytest.approx(value, rel=1e-12)
    assert modes.factor.logdet == pytest.approx(factorize(at, W, lam).logdet, rel=1e-12)
    pairs = [(modes.b, b), (modes.eta, eta), (modes.l[1:], l[1:]), (modes.W, W)]
    for found, wanted in [*pairs, (modes.score, score)]:
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


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


@pytest.mark.parametrize(("family", "link"), BOUNDED)
@pytest.mark.parametrize("structure", ["scalar", "slope", "crossed", "nested and crossed"])
def test_gradient_beside_the_edge_of_the_means(structure: str, family: str, link: str) -> None:
    problem, x = problem_of(structure, family, link)
    value, gradient = evaluate(problem, x)
    assert np.isfinite(value)
    np.testing.assert_allclose(gradient, differences(problem, x), rtol=1e-5, atol=1e-5)


def test_every_family_and_link_has_its_gradient_checked() -> None:
    every = {(f.name, link) for f in FAMILIES.values() for link in f.links}
    bernoulli = {pair for pair in every if pair[0] == "bernoulli"}  # binomial of one trial
    assert every - bernoulli == {*RESPONSES, *BOUNDED}


@pytest.mark.parametrize("zero", [0, 1])
def test_gradient_where_lambda_is_singular(zero: int) -> None:
    problem, x = problem_of("crossed", "poisson", "log")
    x = x.copy()
    x[zero] = 0.0
    np.testing.assert_allclose(evaluate(problem, x)[1], differences(problem, x), atol=1e-6)
    assert evaluate(problem, x)[1][zero] == pytest.approx(0.0, abs=1e-9)  # even in theta


@pytest.mark.parametrize("k", [1, 2, 5, 9])
@pytest.mark.parametrize("structure", ["scalar", "slope", "uncorrelated", "K=3"])
@pytest.mark.parametrize(("family", "link"), RESPONSES)
def test_gradient_of_the_quadrature(family: str, link: str, structure: str, k: int) -> None:
    if structure == "K=3" and k > 5:
        pytest.skip("729 nodes say nothing new")
    problem, x = problem_of(structure, family, link)
    theta, beta = x[: problem.covariance.size], x[problem.covariance.size : -1]
    sigma = float(np.exp(x[-1])) if problem.density.likelihood.family.has_scale else 1.0
    at = adaptive(problem, theta, beta, sigma, problem.zeros(), k=k)
    gradient = np.concatenate([at.theta, at.beta, [at.log_sigma]])
    if k == 1:
        same = laplace(problem, theta, beta, sigma, problem.zeros())
        assert at.loglik == pytest.approx(same.loglik, rel=1e-12)
        np.testing.assert_allclose(at.beta, same.beta, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(at.theta, same.theta, rtol=1e-7, atol=1e-8)
    else:
        np.testing.assert_allclose(gradient, differences(problem, x, k), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("structure", ["scalar", "K=3", "uncorrelated", "nested", "three"])
@pytest.mark.parametrize(("family", "link"), [("binomial", "logit"), ("poisson", "log")])
def test_one_compiled_call_says_the_same(
    monkeypatch: pytest.MonkeyPatch, family: str, link: str, structure: str
) -> None:
    problem, x = problem_of(structure, family, link)
    theta, beta = x[: problem.covariance.size], x[problem.covariance.size : -1]
    start = problem.zeros()

    def both() -> tuple[list[float], list[np.ndarray]]:
        at = laplace(problem, theta, beta, 1.0, start)
        profiled, best, beside = laplace_profiled(problem, theta, beta, 1.0, start)
        found = [at.theta, at.beta, profiled.theta, best, beside.schur, profiled.modes.b]
        return [at.loglik, profiled.loglik], found

    values, arrays = both()
    monkeypatch.setattr(Problem, "in_one_call", False)
    expected, others = both()
    assert values == pytest.approx(expected, rel=1e-12)
    for array, other in zip(arrays, others, strict=True):
        np.testing.assert_allclose(array, other, rtol=1e-9, atol=1e-9)


# Values ---------------------------------------------------------------------------------------


def dense(problem: Problem, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Z Lambda and Z as dense matrices, columns in the order of elimination."""
    parts, plain = [], []
    structure, lambdas = problem.columns.structure, problem.covariance.lambdas(theta)
    for f, place in enumerate(structure.order):
        J, K, _, column, _ = structure.terms[f]
        index = structure.slots[structure.pairs[structure.pair_of[f, f], 2]]
        block = np.zeros((N, J, K))
        block[np.arange(N), index, :] = problem.columns.Z[:, column : column + K]
        plain.append(block.reshape(N, J * K))
        parts.append((block @ lambdas[place]).reshape(N, J * K))
    return np.hstack(parts), np.hstack(plain)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_laplace_is_exact_for_a_gaussian_identity_model(structure: str) -> None:
    problem, x = problem_of(structure, "gaussian", "identity")
    m = problem.covariance.size
    sigma = float(np.exp(x[-1]))
    M, _ = dense(problem, x[:m])
    w = problem.density.likelihood.w
    V = M @ M.T + np.diag(sigma**2 / w)
    mean = problem.columns.X @ x[m:-1] + problem.offset
    expected = stats.multivariate_normal.logpdf(problem.density.likelihood.y, mean, V)
    assert evaluate(problem, x)[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("structure", STRUCTURES[:-1])
@pytest.mark.parametrize("seed", [1, 2])
def test_profiled_deviance_is_the_dense_one(structure: str, reml: bool, seed: int) -> None:
    problem, _ = problem_of(structure, "gaussian", "identity")
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=problem.covariance.size)
    X, y = problem.columns.X, problem.density.likelihood.y + 1e3 * (seed == 2)
    w = rng.uniform(0.2, 3.0, N)
    linear = linear_problem(problem.columns, y, w, problem.covariance)
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
    fitted = M @ at.u[:, 0]
    np.testing.assert_allclose(fitted, M @ M.T @ np.linalg.solve(V, e), rtol=1e-7, atol=1e-8)
    moves = sensitivity(linear, at)
    for j in range(len(theta)):
        step = 1e-5 * np.eye(len(theta))[j]
        above = penalised_least_squares(linear, theta + step)
        below = penalised_least_squares(linear, theta - step)
        for exact, what in ((moves.beta[j], "beta"), (moves.rss[j], "rss")):
            change = (getattr(above, what) - getattr(below, what)) / 2e-5
            np.testing.assert_allclose(exact, change, rtol=1e-5, atol=1e-6)
        change = (above.fixed @ above.fixed.T - below.fixed @ below.fixed.T) / 2e-5
        np.testing.assert_allclose(moves.fixed[j], change, rtol=1e-5, atol=1e-6)
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
    index, z = problem.columns.structure.slots[0], problem.columns.Z[:, 0]
    likelihood, eta0 = problem.density.likelihood, problem.columns.X @ beta + problem.offset
    total = 0.0
    for j in range(int(index.max()) + 1):
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
    sigma = float(np.exp(x[-1])) if problem.density.likelihood.family.has_scale else 1.0
    exact = brute_force(problem, float(x[0]), x[1:-1], sigma)
    errors = []
    for k in (1, 3, 7, 25, 61):
        at = adaptive(problem, x[:1], x[1:-1], sigma, problem.zeros(), k=k)
        errors.append(abs(at.loglik - exact))
    assert errors[-1] < 1e-8
    if link == "identity":
        assert max(errors) < 1e-9  # the Laplace approximation is exact
    else:
        assert errors[2] < errors[0] and errors[3] < 1e-6


def test_nodes_integrate_polynomials() -> None:
    x, log_weight = nodes_and_log_weights(7, 1)
    weight = np.exp(log_weight - 0.5 * x[:, 0] ** 2)
    moments = [np.sum(weight * x[:, 0] ** m) for m in range(0, 13, 2)]
    np.testing.assert_allclose(moments, [1, 1, 3, 15, 105, 945, 10395], rtol=1e-12)
    x, log_weight = nodes_and_log_weights(5, 3)
    weight = np.exp(log_weight - 0.5 * np.sum(x * x, axis=1))
    mixed = np.sum(weight * x[:, 0] ** 4 * x[:, 1] ** 2 * x[:, 2] ** 8)
    assert mixed == pytest.approx(3 * 1 * 105, rel=1e-12)


def test_vector_quadrature_converges_to_the_integral() -> None:
    problem, x = problem_of("slope", "binomial", "logit")
    m = problem.covariance.size
    factor = problem.covariance.lambdas(x[:m])[0]
    likelihood = problem.density.likelihood
    index, Z = problem.columns.structure.slots[0], problem.columns.Z
    fixed = problem.columns.X @ x[m:-1] + problem.offset
    # A plain product rule on a wide fine grid: crude, and independent of modes and curvatures.
    grid = np.linspace(-9.0, 9.0, 121)
    step = grid[1] - grid[0]
    u = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    exact = 0.0
    for j in range(6):
        rows = index == j
        part = Likelihood(
            likelihood.family, likelihood.link, likelihood.y[rows], likelihood.w[rows]
        )
        eta = fixed[rows] + (u @ factor.T) @ Z[rows].T
        total = stats.norm.logpdf(u).sum(axis=1) + part.log_density(eta).sum(axis=1)
        exact += special.logsumexp(total) + 2.0 * np.log(step)
    errors = [
        abs(adaptive(problem, x[:m], x[m:-1], 1.0, problem.zeros(), k=k).loglik - exact)
        for k in (1, 3, 7, 21)
    ]
    assert errors[3] < 1e-7 and errors[2] < 1e-3 and errors[1] < errors[0]


# Blocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", STRUCTURES)
def test_blocks_are_the_dense_inverse(structure: str) -> None:
    problem, x = problem_of(structure, "poisson", "log")
    theta, s = x[: problem.covariance.size], problem.columns.structure
    rng = np.random.default_rng(4)
    w = rng.uniform(0.1, 3.0, N)
    W = np.empty(s.values)
    kernels.cross_products(s.arrays, problem.columns.Z, w, W)
    factor = factorize(s, W, s.pack(problem.covariance.lambdas(theta)))
    M, Z = dense(problem, theta)
    H = np.eye(M.shape[1]) + M.T @ (w[:, None] * M)
    inverse = np.linalg.inv(H)
    assert factor.logdet == pytest.approx(np.linalg.slogdet(H)[1], rel=1e-12)
    E = inverse_blocks(factor)
    leverages = np.empty(N)
    kernels.quadratic_form(s.arrays, problem.columns.Z, covariance_blocks(factor, E), leverages)
    np.testing.assert_allclose(leverages, np.einsum("ij,jk,ik->i", M, inverse, M), rtol=1e-10)
    blocks = diagonal_blocks(s, E)
    for f, place in enumerate(s.order):
        J, K, start = s.terms[f, :3]
        for j in range(J):
            at = slice(start + j * K, start + (j + 1) * K)
            np.testing.assert_allclose(blocks[place][j], inverse[at, at], rtol=1e-9, atol=1e-12)
    rhs = rng.normal(size=(s.effects, 2))
    np.testing.assert_allclose(solve(factor, rhs), inverse @ rhs, rtol=1e-9, atol=1e-11)
    sums, v = np.empty_like(rhs), rng.normal(size=(N, 2))
    kernels.sum_rows(s.arrays, problem.columns.Z, v, sums)
    np.testing.assert_allclose(sums, Z.T @ v, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_variance_where_levels_never_met(structure: str) -> None:
    """Rows of new data may pair any level of one factor with any of another."""
    problem, x = problem_of(structure, "poisson", "log")
    theta, s, terms = x[: problem.covariance.size], problem.columns.structure, terms_of(structure)
    W = np.empty(s.values)
    kernels.cross_products(s.arrays, problem.columns.Z, np.ones(N), W)
    lam = s.pack(problem.covariance.lambdas(theta))
    M, _ = dense(problem, theta)
    inverse = np.linalg.inv(np.eye(M.shape[1]) + M.T @ M)
    rng = np.random.default_rng(6)
    index = tuple(rng.integers(0, len(t.levels), 30) for t in terms)
    Z = tuple(rng.normal(size=(30, len(t.columns))) for t in terms)
    rows = np.zeros((30, s.effects))
    for f, place in enumerate(s.order):
        K, start = s.terms[f, 1:3]
        scaled = Z[place] @ problem.covariance.lambdas(theta)[place]
        for k in range(K):
            rows[np.arange(30), start + index[place] * K + k] = scaled[:, k]
    expected = np.einsum("ij,jk,ik->i", rows, inverse, rows)
    found = variance_at(factorize(s, W, lam), index, Z)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_elimination_order() -> None:
    """Nested terms are eliminated block by block; only what crosses them is dense."""
    dense_columns = {
        name: problem_of(name, "poisson", "log")[0].columns.structure.q for name in STRUCTURES
    }
    assert dense_columns["nested"] == dense_columns["slope"] == 0
    assert dense_columns["same factor twice"] == 4  # the levels of b
    assert dense_columns["nested and crossed"] == 8
    assert dense_columns["three"] == 0
    assert dense_columns["crossed"] == 4


def test_orthonormal_columns_of_a_tall_matrix() -> None:
    rng = np.random.default_rng(3)
    t = np.linspace(2e9, 2e9 + 1e5, 200_000)  # time stamps and their squares
    X = np.column_stack([np.ones(len(t)), t - 2e9, (t - 2e9) ** 2, rng.normal(size=len(t))])
    Q, R = orthonormal(X)
    np.testing.assert_allclose(Q.T @ Q, np.eye(4), atol=1e-12)
    size = np.linalg.norm(X, axis=0) / np.sqrt(len(t))
    np.testing.assert_allclose((Q @ R) / size, X / size, atol=1e-13)
    assert np.array_equal(R, np.triu(R))


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


def test_a_weight_of_two_is_a_row_that_is_there_twice() -> None:
    """Also beside trials: twice the log-likelihood of a row, not a row of twice the trials."""
    formula = "cbind(incidence, size - incidence) ~ period + (1|herd)"
    twice = bg.glmer(formula, pl.concat([CBPP, CBPP]), family="binomial").fit()
    weighted = bg.glmer(formula, CBPP, family="binomial", weights=np.full(56, 2.0))
    fit = weighted.fit()
    assert fit.loglik == pytest.approx(twice.loglik, abs=1e-9)
    np.testing.assert_allclose(fit.params["estimate"], twice.params["estimate"], atol=1e-7)
    one = bg.glm(formula.replace(" + (1|herd)", ""), CBPP, family="binomial").fit()
    two = bg.glm(formula.replace(" + (1|herd)", ""), CBPP, family="binomial", weights=[2.0] * 56)
    assert two.fit().loglik == pytest.approx(2.0 * one.loglik, abs=1e-9)


def test_every_kernel_is_compiled_for_one_type_of_arguments() -> None:
    """Another layout or a read-only array would compile a kernel again, in the middle of a fit."""
    data = bg.load_dataset("cbpp")
    model = bg.glmer("incidence ~ period + (1|herd)", data, family="binomial", trials="size")
    for nagq in (0, 1, 5):
        model.fit(bg.ML(nagq=nagq))
    fit = bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy")).fit("reml")
    fit.predict({"Days": [1, 2], "Subject": ["308", "309"]})
    for module in (kernels, chain, compiled):
        for name, kernel in vars(module).items():
            signatures = getattr(kernel, "signatures", ())
            assert len(signatures) <= 1, (name, signatures)


def test_fits_in_several_threads_leave_blas_as_it_was() -> None:
    def limits() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = limits()
    first, second = blas_threads(10), blas_threads(20)
    first.__enter__()
    second.__enter__()
    assert set(limits()) == {1}
    first.__exit__(None, None, None)
    assert set(limits()) == {1}
    second.__exit__(None, None, None)
    assert limits() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_parallel_rows_after_a_fork() -> None:
    """A pool of threads does not survive a fork."""
    done = np.zeros(600)

    def work(begin: int, end: int) -> None:
        done[begin:end] = 1.0

    in_parts(work, 600)
    child = multiprocessing.get_context("fork").Process(target=in_parts, args=(work, 600))
    child.start()
    child.join(20.0)
    if child.is_alive():
        child.kill()
    assert child.exitcode == 0
    assert np.all(done == 1.0)


def test_a_search_for_modes_that_failed_starts_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    model = bg.glmer(
        "incidence ~ period + (1|herd)",
        bg.load_dataset("cbpp"),
        family="binomial",
        trials="size",
    )
    design = model.design
    problem = Problem(
        coordinates(design, design.structure),
        design.offset,
        Density(model.likelihood),
        covariance_of(design.random),
    )
    objective = generalised._Profiled(problem, np.zeros(problem.p), EXACT)
    near = objective.at(np.array([0.6]))[0].value
    found = laplace_profiled

    def fails(*arguments: Any) -> Any:
        value, beta, beside = found(*arguments)
        modes = replace(value.modes, b=np.full_like(value.modes.b, np.nan), converged=False)
        return replace(value, modes=modes), beta * np.nan, beside

    monkeypatch.setattr(generalised, "laplace_profiled", fails)
    objective.at(np.array([7.0]))
    monkeypatch.undo()
    again = objective.at(np.array([0.6]))[0].value
    assert again.loglik == pytest.approx(near.loglik, abs=1e-9)


def test_no_step_of_the_search_is_longer_than_what_its_scale_allows() -> None:
    """A gradient far from the top, at curvature near zero, says nothing of how far it is."""
    points = [np.zeros(1)]

    def objective(z: np.ndarray) -> tuple[float, np.ndarray]:
        points.append(z)
        return -float(np.logaddexp(0.0, z[0] - 200.0)) + 1e-3 * float(z[0]), np.array(
            [1e-3 - 1.0 / (1.0 + np.exp(200.0 - z[0]))]
        )

    best = maximise(objective, np.zeros(1), np.ones(1), inverse=np.array([[1e9]]))
    assert best.converged
    assert best.x[0] == pytest.approx(200.0 - np.log(999.0), abs=1e-4)
    assert np.abs(np.diff(np.ravel(points))).max() < 60.1  # there and back
