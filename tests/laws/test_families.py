"""Laws of every registered family with every link it allows."""

from __future__ import annotations

import itertools
import warnings
from decimal import Decimal, localcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bayesglmm.errors import ChoiceError, DataError
from bayesglmm.families import FAMILIES, LINKS, Family, Likelihood, Link, find_family, find_link
from bayesglmm.families.compiled import Density

PAIRS = [(f, k) for f in FAMILIES.values() for k in f.links]
IDS = [f"{f.name}-{k}" for f, k in PAIRS]
PROBABILITY = ("logit", "probit", "cloglog", "log", "identity")
EXTREMES = np.array([-800.0, -40.0, -1e-9, 0.0, 1e-9, 40.0, 800.0])
GAUSS = np.polynomial.hermite_e.hermegauss(60)


def etas(family: Family, link: str) -> np.ndarray:
    """Points inside the range where the mean is allowed, away from its edge."""
    if link == "identity":
        return {
            "gaussian": np.linspace(-3, 3, 9),
            "poisson": np.linspace(0.3, 6, 9),
        }.get(family.name, np.linspace(0.15, 0.85, 9))
    if link == "log" and family.name in ("binomial", "bernoulli"):
        return np.linspace(-4, -0.15, 9)
    if link == "cloglog":
        return np.linspace(-6, 2, 9)
    return np.linspace(-4, 4, 9)


def likelihoods(family: Family, link: str) -> list[tuple[Likelihood, np.ndarray]]:
    """Responses over the support, with weights above 1 where they mean something."""
    rng = np.random.default_rng(11)
    out = []
    for weighted in (False, True):
        eta = np.repeat(etas(family, link), 4)
        w = np.ones(len(eta))
        if weighted and family.name == "bernoulli":
            continue
        if weighted:
            w = rng.integers(2, 9, len(eta)).astype(float)
        if family.name in ("binomial", "bernoulli"):
            y = rng.binomial(w.astype(int), 0.5) / w
            y[:4] = [0.0, 1.0, 0.0, 1.0]
        elif family.name == "poisson":
            y = rng.poisson(2.0, len(eta)).astype(float)
        else:
            y = rng.normal(size=len(eta))
            w = w / 3.0 if weighted else w
        out.append((Likelihood(family, LINKS[link], y, w), eta))
    return out


def difference(function: Any, x: np.ndarray, order: int = 5) -> np.ndarray:
    """Derivative by Richardson extrapolation of central differences."""
    h = 0.02
    table = [
        (function(x + h / 2**k) - function(x - h / 2**k)) / (2 * h / 2**k) for k in range(order)
    ]
    for m in range(1, order):
        table = [
            (4.0**m * finer - coarser) / (4.0**m - 1)
            for coarser, finer in itertools.pairwise(table)
        ]
    return np.asarray(table[0])


# Links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", LINKS.values(), ids=list(LINKS))
def test_link_and_inverse(link: Link) -> None:
    low, high = {"logit": (-12, 12), "probit": (-5, 5), "cloglog": (-15, 2.5)}.get(
        link.name, (-15, 15)
    )
    eta = np.linspace(low, high, 101)
    # Near mu = 1 the double nearest to mu fixes eta to eps / mu' only.
    mu, slope, _, _ = link.derivatives(eta)
    error = np.abs(link.link(mu) - eta)
    assert np.all(error <= 4e-16 * (1 + np.abs(eta) + mu / slope))
    np.testing.assert_allclose(link.inverse(eta), mu, rtol=1e-15)


@pytest.mark.parametrize("link", LINKS.values(), ids=list(LINKS))
@pytest.mark.parametrize("order", [1, 2, 3])
def test_derivatives_of_the_inverse(link: Link, order: int) -> None:
    eta = np.linspace(-5, 3, 41)
    found = difference(lambda e: link.derivatives(e)[order - 1], eta)
    scale = np.max(np.abs(link.derivatives(eta)[order]))
    np.testing.assert_allclose(
        link.derivatives(eta)[order], found, rtol=1e-9, atol=1e-11 * (1 + scale)
    )


@pytest.mark.parametrize("link", PROBABILITY)
@pytest.mark.parametrize("side", ["log_probability", "log_complement"])
def test_log_probabilities(link: str, side: str) -> None:
    eta = etas(FAMILIES["binomial"], link)
    function = getattr(LINKS[link], side)
    mu = LINKS[link].inverse(eta)
    expected = np.log(mu) if side == "log_probability" else np.log1p(-mu)
    np.testing.assert_allclose(function(eta)[0], expected, rtol=1e-12, atol=1e-14)
    for order in (1, 2, 3):
        found = difference(lambda e, k=order: function(e)[k - 1], eta, order=4)
        np.testing.assert_allclose(function(eta)[order], found, rtol=2e-7, atol=1e-9)


@pytest.mark.parametrize("link", ["logit", "log", "cloglog"])
@pytest.mark.parametrize("eta", [-300.0, -45.0, -31.0, -29.0, -9.3, -9.1, -1e-3, 0.5, 3.0, 5.0])
def test_tails_of_log_probabilities(link: str, eta: float) -> None:
    """Values and three derivatives against 500-digit arithmetic, where floats would cancel."""
    if link == "log" and eta > 0:
        pytest.skip("outside the range of the mean")
    with localcontext() as context:
        context.prec = 500
        h = Decimal("1e-40") * (1 if abs(eta) > 1e-2 else Decimal("1e-3"))
        for side, function in enumerate((LINKS[link].log_probability, LINKS[link].log_complement)):
            at = [
                exact_log_probability_at(link, Decimal(eta) + k * h)[side]
                for k in (-2, -1, 0, 1, 2)
            ]
            exact = [
                at[2],
                (at[3] - at[1]) / (2 * h),
                (at[3] - 2 * at[2] + at[1]) / h**2,
                (at[4] - 2 * at[3] + 2 * at[1] - at[0]) / (2 * h**3),
            ]
            for order, value in enumerate(function(np.array([eta]))):
                assert float(value[0]) == pytest.approx(float(exact[order]), rel=2e-7, abs=1e-15)


def exact_log_probability_at(link: str, x: Decimal) -> tuple[Decimal, Decimal]:
    if link == "logit":
        return -(1 + (-x).exp()).ln(), -(1 + x.exp()).ln()
    if link == "log":
        return x, (1 - x.exp()).ln()
    return (1 - (-x.exp()).exp()).ln(), -x.exp()


@pytest.mark.parametrize("eta", [-2e4, -9e3, -800.0, -40.0, -20.0, -8.0])
def test_left_tail_of_probit(eta: float) -> None:
    """The inverse Mills ratio by its continued fraction, differentiated by its own equation."""
    x, tail = -eta, 0.0
    for k in range(400, 0, -1):
        tail = k / (x + tail)
    r = x + tail  # phi / Phi; r + eta = tail without cancellation
    _, first, second, third = LINKS["probit"].log_probability(np.array([eta]))
    exact2 = -r * tail
    assert float(first[0]) == pytest.approx(r, rel=1e-9)
    assert float(second[0]) == pytest.approx(exact2, rel=1e-6)
    # r'' = -(r' tail + r (1 + r')), which tends to 0 like 2 / x^3 while r r' grows like x.
    assert abs(float(third[0]) - mills_third(x)) < 1e-5


def mills_third(x: float) -> float:
    """Third derivative of log Phi at -x, x > 5, by its asymptotic series."""
    return 2 / x**3 - 24 / x**5 + 300 / x**7 if x > 15 else _third_by_decimal(x)


def _third_by_decimal(x: float) -> float:
    with localcontext() as context:
        context.prec = 60
        X, tail = Decimal(x), Decimal(0)
        for k in range(4000, 0, -1):
            tail = k / (X + tail)
        r = X + tail
        second = -r * tail
        return float(-(second * tail + r * (1 + second)))


# Families with links ---------------------------------------------------------------------------


def nth_derivative(likelihood: Likelihood, n: int, eta: np.ndarray, sigma: float) -> np.ndarray:
    return likelihood.derivatives(eta, sigma)[n]


@pytest.mark.parametrize(("family", "link"), PAIRS, ids=IDS)
def test_derivatives_of_the_log_density(family: Family, link: str) -> None:
    sigma = 0.7 if family.has_scale else 1.0
    for likelihood, eta in likelihoods(family, link):
        previous: Any = likelihood.log_density
        for order in range(3):
            mine = likelihood.derivatives(eta, sigma)[order]
            found = difference(lambda e, f=previous: f(e, sigma), eta, order=4)
            scale = 1.0 + np.max(np.abs(mine)) * 1e-3
            np.testing.assert_allclose(mine, found, rtol=1e-6, atol=1e-7 * scale)
            previous = partial(nth_derivative, likelihood, order)


@pytest.mark.parametrize(("family", "link"), PAIRS, ids=IDS)
def test_derivatives_in_log_sigma(family: Family, link: str) -> None:
    for likelihood, eta in likelihoods(family, link):
        mine = likelihood.scale_derivatives(eta, 0.7)
        if not family.has_scale:
            assert all(np.all(m == 0.0) for m in mine)
            continue
        functions = [
            likelihood.log_density,
            partial(nth_derivative, likelihood, 0),
            partial(nth_derivative, likelihood, 1),
        ]
        for value, function in zip(mine, functions, strict=True):
            found = difference(
                lambda t, f=function: np.array([f(eta, float(np.exp(v))) for v in t]).T,  # noqa: B023
                np.array([np.log(0.7)]),
            )[:, 0]
            np.testing.assert_allclose(value, found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("family", "link"), PAIRS, ids=IDS)
def test_log_density_is_scipys(family: Family, link: str) -> None:
    sigma = 0.7 if family.has_scale else 1.0
    for likelihood, eta in likelihoods(family, link):
        y, w, mu = likelihood.y, likelihood.w, LINKS[link].inverse(eta)
        if family.name == "gaussian":
            expected = stats.norm.logpdf(y, mu, sigma / np.sqrt(w))
        elif family.name == "poisson":
            expected = w * stats.poisson.logpmf(y, mu)
        else:
            expected = stats.binom.logpmf(np.round(w * y), w, mu)
        np.testing.assert_allclose(
            likelihood.log_density(eta, sigma), expected, rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize(("family", "link"), PAIRS, ids=IDS)
def test_expected_information(family: Family, link: str) -> None:
    """E[-l''] and E[l'^2] by summation or quadrature; and E[l'] = 0."""
    sigma, w = (0.7 if family.has_scale else 1.0), 3.0
    w = 1.0 if family.name in ("bernoulli", "poisson") else w
    for eta in etas(family, link):
        mu = float(LINKS[link].inverse(np.array(eta)))
        if family.name == "gaussian":
            y = mu + sigma / np.sqrt(w) * GAUSS[0]
            p = GAUSS[1] / GAUSS[1].sum()
        elif family.name == "poisson":
            y = np.arange(0.0, 400.0)
            p = stats.poisson.pmf(y, mu)
        else:
            y = np.arange(w + 1) / w
            p = stats.binom.pmf(np.arange(w + 1), w, mu)
        likelihood = Likelihood(family, LINKS[link], y, np.full(len(y), w))
        at = np.full(len(y), eta)
        first, second, _ = likelihood.derivatives(at, sigma)
        expected = likelihood.expected_weights(at, sigma)[0]
        assert expected == pytest.approx(float(p @ -second), rel=1e-9)
        assert expected == pytest.approx(float(p @ first**2), rel=1e-9)
        assert float(p @ first) == pytest.approx(0.0, abs=1e-9 * (1 + np.sqrt(expected)))
        if link == family.canonical:
            np.testing.assert_allclose(-second, expected, rtol=1e-12)


@pytest.mark.parametrize(("family", "link"), PAIRS, ids=IDS)
def test_finite_and_silent_far_out(family: Family, link: str) -> None:
    """No nan, no warning; -inf only for a log-density of what cannot happen."""
    for y in (0.0, 1.0):
        likelihood = Likelihood(family, LINKS[link], np.full(7, y), np.ones(7))
        with np.errstate(all="raise", under="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error")
            LINKS[link].inverse(EXTREMES)
            for value in LINKS[link].derivatives(EXTREMES):
                assert np.all(np.isfinite(value))
            density = likelihood.log_density(EXTREMES, 1.0)
            assert not np.any(np.isnan(density)) and not np.any(density == np.inf)
            inside = np.isfinite(density)
            for value in likelihood.derivatives(EXTREMES, 1.0):
                assert np.all(np.isfinite(value[inside]))
            weights = likelihood.expected_weights(EXTREMES, 1.0)
            assert np.all(np.isfinite(weights)) and np.all(weights[inside] >= 0.0)


@pytest.mark.parametrize(("family", "link"), PAIRS, ids=IDS)
def test_compiled_density_is_the_familys(family: Family, link: str) -> None:
    """What the engines evaluate, constants included; near the tails and far out in them."""
    rng = np.random.default_rng(5)
    near = np.concatenate([etas(family, link), rng.choice(etas(family, link), 200)])
    n, sigma = len(near), 0.7
    w = np.ones(n) if family.name == "bernoulli" else rng.integers(1, 9, n).astype(float)
    y = rng.integers(0, 2, n).astype(float)
    if family.name == "binomial":
        y = rng.binomial(w.astype(int), 0.4) / w
    elif family.name == "poisson":
        y = rng.poisson(3.0, n).astype(float)
    likelihood = Likelihood(family, LINKS[link], y, w)
    density, out = Density(likelihood), np.empty((4, n))
    total = density(near, sigma, out)
    values = likelihood.log_density(near, sigma)
    assert total == pytest.approx(float(np.sum(values)), rel=1e-11, abs=1e-10)
    assert total == pytest.approx(float(np.sum(out[0])) + density.constant(sigma), rel=1e-12)
    for row, expected in zip(out[1:], likelihood.derivatives(near, sigma), strict=True):
        np.testing.assert_allclose(row, expected, rtol=1e-9, atol=1e-12)
    far = np.concatenate([EXTREMES] * 2)
    y = np.repeat([0.0, 1.0], len(EXTREMES))
    likelihood = Likelihood(family, LINKS[link], y, np.ones(len(far)))
    with np.errstate(all="ignore"):
        made, beyond = np.empty((4, len(far))), likelihood.derivatives(far, 1.0)
        Density(likelihood)(far, 1.0, made)
    inside = np.isfinite(likelihood.log_density(far, 1.0))
    for row, value in zip(made[1:], beyond, strict=True):
        np.testing.assert_allclose(row[inside], value[inside], rtol=1e-9, atol=1e-15)


def test_large_counts_lose_no_digits() -> None:
    """Relative to the density at mu = y; the two terms of y eta - mu are of the size of y log y."""
    y = np.array([999.0, 1000.0, 1001.0, 1e6, 1e9, 1e12])
    eta = np.log(y) + np.array([0.1, -0.2, 1e-3, 1e-4, -1e-5, 1e-7])
    likelihood = Likelihood(FAMILIES["poisson"], LINKS["log"], y, np.full(6, 2.0))
    density, out = Density(likelihood), np.empty((4, 6))
    d = eta - np.log(y)
    exact = 2.0 * (y * (d - np.expm1(d)) + stats.poisson.logpmf(y, y))
    assert density(eta, 1.0, out) == pytest.approx(float(np.sum(exact)), rel=1e-9)
    np.testing.assert_allclose(out[1], -2.0 * y * np.expm1(d), rtol=1e-12)
    np.testing.assert_allclose(out[2], -2.0 * np.exp(eta), rtol=1e-12)


@pytest.mark.parametrize("family", ["binomial", "bernoulli", "poisson"])
@pytest.mark.parametrize("link", ["identity", "log"])
def test_no_density_where_the_mean_is_impossible(family: str, link: str) -> None:
    """Whatever the response: log(1 - mu) of a negative mean is no log-probability."""
    if link not in FAMILIES[family].links or (family, link) == ("poisson", "log"):
        pytest.skip("every eta is allowed")
    eta = np.array([-0.5]) if family == "poisson" else np.array([-0.5, 1.5])
    eta = eta if link == "identity" else np.array([0.5])
    for y in (0.0, 1.0):
        likelihood = Likelihood(
            FAMILIES[family], LINKS[link], np.full(len(eta), y), np.ones(len(eta))
        )
        assert np.all(likelihood.log_density(eta) == -np.inf)


@pytest.mark.parametrize(("family", "link"), PAIRS, ids=IDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_pymc_says_the_same(family: Family, link: str, weighted: bool) -> None:
    import pymc as pm

    found = likelihoods(family, link)
    if weighted and len(found) == 1:
        pytest.skip("no weights for a Bernoulli response")
    likelihood, eta = found[weighted]
    sigma = 0.7 if family.has_scale else 1.0
    y, w = likelihood.y, likelihood.w
    if family.name in ("binomial", "bernoulli"):
        y, w = np.round(y * w).astype(np.int64), w.astype(np.int64)
    elif family.name == "poisson":
        y = y.astype(np.int64)
    with pm.Model(coords={"obs": np.arange(len(eta))}) as model:
        variable = family.observed("y", eta, LINKS[link], y, w, sigma, "obs", weighted)
        graph = variable if weighted and family.name == "poisson" else pm.logp(variable, y)
    assert "y" in model.named_vars
    value = graph.eval(mode="FAST_COMPILE")
    np.testing.assert_allclose(value, likelihood.log_density(eta, sigma), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("family", "link"), PAIRS, ids=IDS)
def test_deviance_and_draws(family: Family, link: str) -> None:
    """The unit deviance is twice the log-density lost; draws have the mean and the variance."""
    sigma = 0.7 if family.has_scale else 1.0
    for likelihood, eta in likelihoods(family, link):
        mu, y, w = LINKS[link].inverse(eta), likelihood.y, likelihood.w
        inside = (
            (y > 0) & (y < 1) if family.name in ("binomial", "bernoulli") else np.ones_like(y, bool)
        )
        inside &= (y > 0) | (link == "identity")
        if not np.any(inside) or family.name == "gaussian":
            continue
        best = Likelihood(family, LINKS[link], y[inside], w[inside])
        with np.errstate(divide="ignore"):
            saturated = best.log_density(LINKS[link].link(y[inside]))
        loss = 2 * (saturated - best.log_density(eta[inside]))
        unit = w[inside] * family.unit_deviance(y[inside], mu[inside])
        np.testing.assert_allclose(loss, unit, rtol=1e-8, atol=1e-9)
    rng, n, w0 = np.random.default_rng(3), 40_000, 1.0 if family.name == "bernoulli" else 4.0
    mu0 = 0.3
    draws = family.draw(rng, np.full(n, mu0), np.full(n, w0), sigma)
    spread = float(family.variance(np.array(mu0))) * sigma**2
    spread /= 1.0 if family.name == "poisson" else w0
    assert draws.mean() == pytest.approx(mu0, abs=5 * np.sqrt(spread / n))
    assert draws.var() == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize(("family", "link"), PAIRS, ids=IDS)
def test_tails(family: Family, link: str) -> None:
    """Below, at and above make one; each is scipy's; what is at y is the density, or nothing."""
    sigma = 0.7 if family.has_scale else 1.0
    for likelihood, eta in likelihoods(family, link):
        y, w, mu = likelihood.y, likelihood.w, LINKS[link].inverse(eta)
        below, at, above = (np.exp(v) for v in likelihood.log_tails(eta, sigma))
        np.testing.assert_allclose(below + at + above, 1.0, rtol=1e-12)
        if family.name == "gaussian":
            known = stats.norm(mu, sigma / np.sqrt(w))
            expected = known.cdf(y), np.zeros_like(y), known.sf(y)
        elif family.name == "poisson":
            known = stats.poisson(mu)
            expected = known.cdf(y - 1), known.pmf(y), known.sf(y)
        else:
            known, k = stats.binom(w, mu), np.round(w * y)
            expected = known.cdf(k - 1), known.pmf(k), known.sf(k)
        for value, wanted in zip((below, at, above), expected, strict=True):
            np.testing.assert_allclose(value, wanted, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize(("family", "link"), PAIRS, ids=IDS)
def test_tails_far_out(family: Family, link: str) -> None:
    """No nan and no warning where the mean is possible; the probability below falls with eta."""
    for y in (0.0, 1.0):
        likelihood = Likelihood(family, LINKS[link], np.full(7, y), np.ones(7))
        with np.errstate(all="raise", under="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error")
            inside = np.isfinite(likelihood.log_density(EXTREMES, 1.0))
            at = Likelihood(family, LINKS[link], likelihood.y[inside], likelihood.w[inside])
            below, here, above = at.log_tails(EXTREMES[inside], 1.0)
        for value in (below, here, above):
            assert not np.any(np.isnan(value)) and np.all(value <= 1e-12)
        assert np.all(below[1:] <= below[:-1] + 1e-12)
        assert np.all(above[1:] >= above[:-1] - 1e-12)


@pytest.mark.parametrize("family", [f for f in FAMILIES.values() if f.stein], ids=lambda f: f.name)
@pytest.mark.parametrize("mu", [0.2, 0.7])
def test_stein_identity(family: Family, mu: float) -> None:
    """By summation over the support, for a function that no polynomial is."""
    assert family.stein is not None
    y = np.arange(2.0 if family.is_probability else 60.0)
    one = Likelihood(family, LINKS[family.canonical], y, np.ones(len(y)))
    eta = np.full(len(y), float(one.link.link(np.array(mu))))
    p = np.exp(one.log_density(eta))
    other, factor = family.stein(y, np.full(len(y), mu))
    change = np.where(factor != 0.0, np.sin(y) - np.sin(other), 0.0)
    assert p @ ((y - mu) * np.sin(y)) == pytest.approx(float(p @ (factor * change)), rel=1e-12)


def test_finding_families_and_links() -> None:
    for name, family in FAMILIES.items():
        assert find_family(name) is family
        assert find_link(family).name == family.links[0]
        assert family.canonical in family.links
        assert set(family.response_column) == set(family.links)
    with pytest.raises(ChoiceError, match=r"family='gausian'.*did you mean 'gaussian'"):
        find_family("gausian")
    with pytest.raises(ChoiceError, match=r"link='logt'.*did you mean 'logit'"):
        find_link(FAMILIES["binomial"], "logt")
    with pytest.raises(ChoiceError, match=r"not available for family='poisson'.*'log'"):
        find_link(FAMILIES["poisson"], "logit")


@pytest.mark.parametrize(
    ("family", "y", "w", "says"),
    [
        ("binomial", 1.5, 1.0, "trials="),
        ("binomial", 0.3, 2.0, "whole number of successes"),
        ("bernoulli", 0.5, 2.0, "family='binomial'"),
        ("poisson", -1.0, 1.0, "counts"),
        ("poisson", 0.5, 1.0, "offset=log"),
    ],
)
def test_support(family: str, y: float, w: float, says: str) -> None:
    with pytest.raises(DataError, match=f"'resp'.*{says}"):
        FAMILIES[family].check(np.array([1.0, y]), np.array([1.0, w]), "resp")
