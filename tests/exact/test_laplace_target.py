"""The compiled log-density in Laplace coordinates: the model's own, its gradient, its shape."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import betaln

import bayesglmm as bg
from bayesglmm.catalogue import find_entry, read_entry
from bayesglmm.families import compiled
from bayesglmm.model import Model
from bayesglmm.numba_cache import fingerprint
from bayesglmm.nuts import blocks, kernels, kernels_native, layout
from bayesglmm.nuts.laplace_target import laplace_target, nearly_normal
from bayesglmm.nuts.native import with_room
from bayesglmm.nuts.scales import scales_of
from bayesglmm.nuts.target import NoTarget, Target

Array = NDArray[np.float64]


def data(seed: int = 1, n: int = 48) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    g, h = rng.integers(0, 5, n), np.arange(n) % 4
    x, z = rng.normal(size=n), rng.normal(size=n)
    b = rng.normal(size=(5, 2)) * [0.7, 0.4]
    eta = 0.3 + 0.3 * x + b[g, 0] + b[g, 1] * z
    p = 1.0 / (1.0 + np.exp(-eta))
    return pl.DataFrame(
        {
            "x": x,
            "z": z,
            "f": rng.choice(["u", "v", "w"], n),
            "g": [f"g{k}" for k in g],
            "a": [f"a{k}{m}" for k, m in zip(g, rng.integers(0, 2, n), strict=True)],
            "h": [f"h{k}" for k in h],
            "row": [str(k) for k in range(n)],
            "count": rng.poisson(np.exp(eta)),
            "yes": rng.binomial(1, p),
            "wins": rng.binomial(7, p),
            "size": np.full(n, 7),
            "wt": rng.integers(1, 4, n),
            "value": eta + 0.7 * rng.normal(size=n),
            "positive": np.exp(0.3 * eta) + 0.1 * rng.normal(size=n),
        }
    )


def poisson(formula: str, **options: object) -> Callable[[], Model]:
    return lambda: bg.glmer(f"count ~ {formula}", data(), family="poisson", **options)  # type: ignore[arg-type]


def binomial(link: str, formula: str = "x + (1|g)") -> Callable[[], Model]:
    return lambda: bg.glmer(
        f"wins ~ {formula}", data(), family="binomial", link=link, trials="size"
    )


MODELS: dict[str, Callable[[], Model]] = {
    "scalar": poisson("x + (1|g)"),
    "vector": poisson("x + (z|g)"),
    "three columns": poisson("x + (z + x|g)"),
    "independent": poisson("x + (z||g)"),
    "nested": poisson("x + (1|g/a)"),
    "nested vectors": poisson("x + (z|g) + (z|a)"),
    "observation level": poisson("x + (1|g) + (1|row)"),
    "nested thrice": poisson("x + (1|g) + (0 + z|a) + (1|row)"),
    "same factor twice": poisson("x + (1|g) + (0 + z|g)"),
    "crossed": poisson("x + (1|g) + (1|h)"),
    "crossed vectors": poisson("x + (z|g) + (z|h)"),
    "nested and crossed": poisson("x + (z|g) + (1|a) + (1|h)"),
    "three crossed": poisson("1 + (1|a) + (1|h) + (1|f)"),
    "no coefficients": lambda: bg.lmer("value ~ 0 + (1|g)", data()),
    "no intercept": poisson("0 + f + (1|g)"),
    "offset": poisson("x + offset(z) + (1|g)"),
    "priors": poisson(
        "x + f + (z|g)",
        priors={
            "(Intercept)": bg.StudentT(4, 0, 2),
            "x": bg.Cauchy(0, 1),
            "sd:g:z": bg.Exponential(2),
            "sd:g:(Intercept)": bg.Gamma(2, 1),
            "corr:g": bg.LKJ(3),
        },
    ),
    "flat priors": poisson("x + (z|g)", priors="flat"),
    "identity": poisson("1 + (1|g)", link="identity"),
    "separated": lambda: bg.glmer("yes ~ x + I(1.0 * yes) + (1|g)", data(), family="binomial"),
    "bernoulli": lambda: bg.glmer("yes ~ x + (1|g)", data(), family="bernoulli"),
    "logit": binomial("logit"),
    "probit": binomial("probit"),
    "cloglog": binomial("cloglog"),
    "weights": lambda: bg.glmer("count ~ x + (1|g)", data(), family="poisson", weights="wt"),
    "linear": lambda: bg.lmer("value ~ x + (z|g)", data()),
    "linear, crossed": lambda: bg.lmer("value ~ x + (z||g) + (1|a) + (1|h)", data(), weights="wt"),
    "singular": lambda: bg.lmer("value ~ x + (z + f|h)", data()),
    "gaussian log": lambda: bg.glmer(
        "positive ~ x + (1|g) + (1|h)", data(), family="gaussian", link="log"
    ),
    "lm": lambda: bg.lm("value ~ x + f", data()),
    "glm": lambda: bg.glm("count ~ x", data(), family="poisson"),
}


def expand(target: Target, x: np.ndarray) -> dict[str, np.ndarray]:
    """Nothing is left to noise."""
    return target.expand(x, np.empty((len(x), 0)))


def named(model: Model, target: Target, x: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Named values, and the free ones among them as one vector for every row of x."""
    values = expand(target, np.atleast_2d(x))
    free = [values["beta"]]
    for term in model.design.random:
        free += [
            values[f"sd_{term.name}"],
            values[f"b_{term.name}"].reshape(len(values["beta"]), -1),
        ]
        if f"corr_{term.name}" in values:
            row, column = np.tril_indices(term.K, -1)
            free.append(values[f"corr_{term.name}"][:, row, column])
    if "sigma" in values:
        free.append(values["sigma"][:, None])
    return values, np.concatenate(free, axis=1)


def lkj_constant(K: int, eta: float) -> float:
    """log of the integral of det(R)^(eta - 1) over correlation matrices."""
    total = 0.0
    for k in range(1, K):
        a = eta + 0.5 * (K - k - 1)
        total += (K - k) * (betaln(a, a) + (2.0 * a - 1.0) * np.log(2.0))
    return float(total)


def log_joint(model: Model, values: dict[str, np.ndarray], i: int) -> float:
    """log p(y, parameters), all constants included, in NumPy and SciPy alone."""
    design, priors = model.design, model.priors
    beta = values["beta"][i]
    total, eta = 0.0, design.X @ beta + design.offset
    for k, (name, prior) in enumerate(zip(design.names, priors.coefficients, strict=True)):
        at = design.X.mean(axis=0) @ beta if name == "(Intercept)" else beta[k]
        total += float(prior.log_density(np.asarray(at)))
    for term, sds, corr in zip(design.random, priors.sds, priors.correlations, strict=True):
        sd, b = values[f"sd_{term.name}"][i], values[f"b_{term.name}"][i]
        total += sum(float(p.log_density(np.asarray(v))) for p, v in zip(sds, sd, strict=True))
        R = np.eye(term.K)
        if term.correlated and term.K > 1:
            R = values[f"corr_{term.name}"][i]
            total += float(corr.log_density(R)) - lkj_constant(term.K, corr.eta)
        cov = np.outer(sd, sd) * R
        total += float(np.sum(stats.multivariate_normal(np.zeros(term.K), cov).logpdf(b)))
        eta = eta + np.einsum("nk,nk->n", term.Z, b[term.index])
    sigma = 1.0
    if priors.sigma:
        sigma = float(values["sigma"][i])
        total += float(priors.sigma[0].log_density(np.asarray(sigma)))
    return total + float(np.sum(model.likelihood.log_density(eta, sigma)))


def value(target: Target, x: np.ndarray) -> float:
    return target.log_density(x, np.empty(target.size))


@pytest.mark.filterwarnings("ignore::bayesglmm.errors.BayesglmmWarning")
@pytest.mark.parametrize("name", MODELS)
def test_log_density_gradient_and_inverse(name: str) -> None:
    model = MODELS[name]()
    target = laplace_target(model)
    rng = np.random.default_rng(2)
    h = 1e-5
    units = h * np.eye(target.size)
    for scale in (0.3, 1.0):
        x = scale * rng.normal(size=target.size)
        values, _ = named(model, target, x)
        # The density of the named values, times the volume of the map.
        jacobian = (named(model, target, x + units)[1] - named(model, target, x - units)[1]) / (
            2 * h
        )
        expected = log_joint(model, values, 0) + np.linalg.slogdet(jacobian)[1]
        gradient = np.empty(target.size)
        found = target.log_density(x, gradient)
        assert found == pytest.approx(expected, abs=1e-6 * target.size)
        slopes = [(value(target, x + e) - value(target, x - e)) / (2 * h) for e in units]
        np.testing.assert_allclose(gradient, slopes, atol=1e-6 * (1.0 + np.abs(gradient).max()))
        assert target.coordinates is not None
        np.testing.assert_allclose(target.coordinates(values)[0], x, atol=1e-8)


WITHOUT_EFFECT = {
    "scalar": poisson("x + z + g + (1|h)"),
    "independent": poisson("x + z + g + (z||h)"),
    "crossed": poisson("x + z + g + (1|h) + (1|f)"),
}


@pytest.mark.filterwarnings("ignore::bayesglmm.errors.BayesglmmWarning")
@pytest.mark.parametrize("name", WITHOUT_EFFECT)
@pytest.mark.parametrize("depth", [3.0, 8.0])
def test_far_below_the_mode_of_an_sd_the_density_falls_like_a_normal(
    name: str, depth: float
) -> None:
    """Where the data cannot tell an sd from zero, its log has an exponential tail."""
    model = WITHOUT_EFFECT[name]()
    target = laplace_target(model)
    first = -target_scales(model)
    x = np.random.default_rng(5).normal(size=target.size) * 0.3
    x[first] -= depth
    gradient, step = np.empty(target.size), np.zeros(target.size)
    step[first] = 1e-5
    at = target.log_density(x, gradient)
    slope = (value(target, x + step) - value(target, x - step)) / 2e-5
    assert gradient[first] == pytest.approx(slope, rel=1e-5, abs=1e-5)
    deeper = x.copy()
    deeper[first] -= 1.0
    further = np.empty(target.size)
    assert target.log_density(deeper, further) < at
    assert further[first] > gradient[first] + 0.1  # steeper and steeper

    values, _ = named(model, target, np.stack([x, deeper]))
    sds = values[f"sd_{model.design.random[0].name}"][:, 0]
    assert sds[1] < sds[0]
    assert target.coordinates is not None
    np.testing.assert_allclose(target.coordinates(values), [x, deeper], atol=1e-6)


def log_sds_below(formula: str) -> np.ndarray:
    """The log sd at its mode and at steps below it, for groups whose means are far apart."""
    rng = np.random.default_rng(3)
    means = np.exp(np.repeat([-0.5, 1.0, 2.5, 0.5, 3.0, 1.5], 8))
    rows = {
        "count": rng.poisson(means),
        "g": np.repeat([*"uvwxyz"], 8),
        "h": np.tile([*"abcd"], 12),
    }
    target = laplace_target(bg.glmer(f"count ~ {formula}", rows, family="poisson"))
    x = np.zeros((4, target.size))
    x[:, -1] = -np.arange(4.0)  # the term that comes last in the formula
    return np.log(expand(target, x)[f"sd_{formula[-2]}"][:, 0])


def test_an_sd_that_cannot_be_zero_has_no_tail() -> None:
    """Below its mode is a wall: there the log sd stays a straight line in its coordinate."""
    steps = np.diff(log_sds_below("1 + (1|g)"))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-10)
    assert np.all(np.diff(log_sds_below("1 + (1|h)"), 2) < -0.01)


def target_scales(model: Model) -> int:
    """Number of covariance parameters, which come last among the coordinates."""
    found = scales_of(model)
    assert found is not None
    return found.size


def test_effects_given_the_rest_are_exactly_standard_normal() -> None:
    """In a Gaussian model with nested terms, for any covariance parameters but one sigma."""
    model = bg.lmer("value ~ x + (z|g) + (1|a)", data())
    target = laplace_target(model)
    rng = np.random.default_rng(3)
    effects = sum(t.J * t.K for t in model.design.random)
    for scale in (0.0, 1.5):
        x = scale * rng.normal(size=target.size)
        x[-1] = 0.0  # sigma at its estimate
        np.testing.assert_allclose(
            hessian(target, x)[:effects, :effects], -np.eye(effects), atol=2e-5
        )


def hessian(target: Target, x: np.ndarray) -> np.ndarray:
    h, out = 1e-4, np.empty((target.size, target.size))
    for k, unit in enumerate(h * np.eye(target.size)):
        up, down = np.empty(target.size), np.empty(target.size)
        target.log_density(x + unit, up)
        target.log_density(x - unit, down)
        out[k] = (up - down) / (2 * h)
    return out


@pytest.mark.parametrize(
    "name", ["vector", "nested", "observation level", "crossed", "crossed vectors", "three crossed"]
)
def test_coordinates_are_nearly_white(name: str) -> None:
    model = MODELS[name]()
    target = laplace_target(model)
    size = model.design.p + sum(t.J * t.K for t in model.design.random)
    values = np.linalg.eigvalsh(-hessian(target, np.zeros(target.size))[:size, :size])
    assert 0.95 < values.min() < values.max() < 1.05


def test_the_log_density_integrates_to_the_marginal_likelihood() -> None:
    """Importance sampling in the coordinates against brute-force quadrature."""
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(3), 5)
    frame = pl.DataFrame({"g": [f"g{k}" for k in g], "y": rng.poisson(np.exp(0.4 * g))})
    model = bg.glmer(
        "y ~ 1 + (1|g)",
        frame,
        family="poisson",
        priors={"(Intercept)": bg.Normal(0, 1.5), "sd:g": bg.HalfNormal(1.0)},
    )
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / np.sqrt(2.0 * np.pi)
    beta, sd = np.linspace(-4.0, 4.0, 201), np.linspace(1e-4, 6.0, 400)
    eta = beta[:, None, None] + sd[:, None] * nodes
    log_marginal = stats.norm(0, 1.5).logpdf(beta)[:, None] + stats.halfnorm(0, 1).logpdf(sd)
    y = model.likelihood.y
    for level in range(3):
        own = y[model.design.random[0].index == level]
        log_likelihood = sum(stats.poisson(np.exp(eta)).logpmf(v) for v in own)
        log_marginal = log_marginal + np.log(np.exp(log_likelihood) @ weights)
    density = np.exp(log_marginal)
    exact = float(np.log(np.trapezoid(np.trapezoid(density, sd, axis=1), beta)))

    target = laplace_target(model)
    proposal = stats.multivariate_t(np.zeros(target.size), 1.3 * np.eye(target.size), df=5, seed=6)
    x = proposal.rvs(20_000)
    ratio = np.array([value(target, point) for point in x]) - proposal.logpdf(x)
    estimate = np.log(np.mean(np.exp(ratio)))
    error = np.std(np.exp(ratio - estimate)) / np.sqrt(len(x))
    assert error < 0.04
    assert abs(estimate - exact) < 4 * error


def test_far_away_it_is_not_finite_and_does_not_fail() -> None:
    target = laplace_target(MODELS["crossed"]())
    gradient = np.empty(target.size)
    for far in (1e3, -1e3, 1e200):
        assert not target.log_density(np.full(target.size, far), gradient) > 0.0


def test_without_a_compiled_form_there_is_no_target() -> None:
    class Own(bg.priors.Prior):
        support = "real"

    model = poisson("x + (1|g)")()
    with pytest.raises(NoTarget, match="no compiled form"):
        laplace_target(bg.model(model.formula, data(), family="poisson", priors={"x": Own()}))


def test_code_on_disk_is_stamped_with_all_compiled_sources() -> None:
    """Numba looks at a function's own file only, and would keep what its callees once were."""
    made: list[Any] = [compiled.evaluate, kernels.log_density, kernels_native.native]
    for kernel in made:
        assert fingerprint() in kernel._cache._impl.locator.get_source_stamp()


@pytest.mark.parametrize("name", ["three columns", "crossed vectors", "linear, crossed"])
def test_the_c_function_is_the_same(name: str) -> None:
    target = laplace_target(MODELS[name]())
    x = np.random.default_rng(1).normal(size=target.size)
    gradients, found = np.empty((2, target.size)), np.empty(1)
    expected = target.log_density(x, gradients[0])

    def pointer(array: np.ndarray) -> object:
        return array.ctypes.data_as(ctypes.POINTER(ctypes.c_double))

    packed, _room = with_room(target.data, target.room)
    code = kernels_native.native.ctypes(
        *(target.size, pointer(x), pointer(gradients[1]), pointer(found)),
        packed.ctypes.data,
    )
    assert code == 0
    assert found[0] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gradients[1], gradients[0], rtol=1e-9, atol=1e-9)


def test_kernels_are_compiled_for_one_type_of_arguments() -> None:
    for name in ("linear, crossed", "glm", "nested thrice"):
        target = laplace_target(MODELS[name]())
        target.log_density(np.zeros(target.size), np.empty(target.size))
        assert target.coordinates is not None
        target.coordinates(expand(target, np.zeros((2, target.size))))
    for module in (kernels, blocks, layout):
        for name, kernel in vars(module).items():
            assert len(getattr(kernel, "signatures", ())) <= 1, name


@pytest.mark.parametrize("name", MODELS)
def test_points_far_out_have_no_density_and_no_error(name: str) -> None:
    """There sds are zero to rounding; the sampler's threads could not tell anyone."""
    target = laplace_target(MODELS[name]())
    rng, gradient = np.random.default_rng(2), np.empty(target.size)
    for size in (50.0, 500.0, 5e3, 1e5, 1e300):
        for _ in range(5):
            value = target.log_density(size * rng.normal(size=target.size), gradient)
            assert not value > 1e3


def test_which_densities_are_nearly_normal() -> None:
    def normal(x: Array, gradient: Array) -> float:
        return 3.0 - 0.5 * float(x @ x)

    def wide(x: Array, gradient: Array) -> float:  # one direction ten times as long
        return normal(x, gradient) + 0.495 * float(x[0] ** 2)

    def narrow(x: Array, gradient: Array) -> float:
        return normal(x, gradient) - 1.5 * float(x[0] ** 2)

    assert nearly_normal(normal, 10) and nearly_normal(normal, 1)
    assert nearly_normal(wide, 10) and nearly_normal(wide, 100)  # is none of many
    assert not nearly_normal(wide, 1) and not nearly_normal(narrow, 10)
    assert not nearly_normal(lambda x, gradient: np.nan, 3)
    assert not nearly_normal(lambda x, gradient: -np.inf if x[0] > 2.0 else 0.0, 3)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("contra_gm3", "normal"), ("titanic_glmer", ""), ("grouseticks_year_split", "ridge")],
)
def test_shapes_of_the_catalogue(name: str, shape: str) -> None:
    assert laplace_target(read_entry(find_entry(name)).model()).shape == shape


def test_few_levels_are_not_lost_among_many() -> None:
    """Their sd has a long tail, whatever the other coordinates are like."""
    rng = np.random.default_rng(14)
    u, g = np.repeat(np.arange(3), 400), np.repeat(np.arange(80), 15)
    eta = 1.0 + np.array([0.5, -0.4, 0.1])[u] + 0.6 * rng.normal(size=80)[g]
    y = rng.poisson(np.exp(eta))
    data = pl.DataFrame({"y": y, "u": u.astype(str), "g": g.astype(str)})
    shapes = [
        laplace_target(bg.glmer(f"y ~ 1 + {terms}", data, family="poisson")).shape
        for terms in ("(1|g)", "(1|g) + (1|u)")
    ]
    assert shapes == ["normal", ""]
