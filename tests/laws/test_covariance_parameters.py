"""Unconstrained covariance parameters: one to one, with the density they claim."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import nquad

import bayesglmm as bg
from bayesglmm.nuts.scales import (
    Scales,
    log_prior_scales,
    natural,
    pull_back,
    scales_of,
    unpack,
)
from bayesglmm.priors import Prior
from bayesglmm.priors.compiled import compiled, compiled_priors, log_prior, log_prior_coefficients

Array = NDArray[np.float64]

_PRIORS = (
    bg.Flat(),
    bg.Normal(0.3, 2.0),
    bg.StudentT(4.0, -0.2, 1.5),
    bg.Cauchy(0.1, 2.0),
    bg.HalfFlat(),
    bg.HalfNormal(1.5),
    bg.HalfStudentT(3.0, 2.5),
    bg.HalfCauchy(0.7),
    bg.Exponential(1.3),
    bg.Gamma(2.0, 0.7),
    bg.Gamma(1.0, 0.7),
)


@pytest.mark.parametrize("prior", _PRIORS, ids=str)
def test_compiled_priors_say_what_the_records_say(prior: Prior) -> None:
    found = compiled(prior)
    assert found is not None
    code, parameters, constant = found
    for x in (0.02, 0.5, 3.0, 40.0):
        value, slope = log_prior(code, *parameters, x)
        expected = float(prior.log_density(np.array(x)))
        assert value + constant == pytest.approx(expected, rel=1e-12, abs=1e-12)
        h = 1e-6 * x
        up, down = (log_prior(code, *parameters, x + s * h)[0] for s in (1.0, -1.0))
        assert slope == pytest.approx((up - down) / (2.0 * h), rel=1e-6, abs=1e-8)


def test_intercept_prior_is_at_the_means() -> None:
    priors = (bg.Normal(1.0, 2.0), bg.StudentT(3.0, 0.0, 1.0), bg.Cauchy(0.0, 1.0))
    found = compiled_priors(priors)
    assert found is not None
    codes, parameters, constant = found
    beta, means = np.array([0.4, -0.3, 1.2]), np.array([1.0, 2.0, -0.5])
    gradient = np.zeros(3)
    value = log_prior_coefficients(beta, means, 0, codes, parameters, gradient)
    places = (means @ beta, beta[1], beta[2])
    expected = sum(float(p.log_density(np.array(x))) for p, x in zip(priors, places, strict=True))
    assert value + constant == pytest.approx(expected, rel=1e-12)
    for k in range(3):
        step = np.zeros(3)
        step[k] = 1e-6
        ends = [
            log_prior_coefficients(beta + s * step, means, 0, codes, parameters, np.zeros(3))
            for s in (1.0, -1.0)
        ]
        assert gradient[k] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-7)


def _scales(formula: str, **priors: Prior) -> Scales:
    data = bg.load_dataset("grouseticks")
    named = {name.replace("__", ":"): prior for name, prior in priors.items()}
    model = bg.glmer(formula, data, family="poisson", priors=named)
    found = scales_of(model)
    assert found is not None
    return found


@pytest.fixture(params=["(YEAR|LOCATION)+(1|INDEX)", "(YEAR||LOCATION)", "(YEAR+cHEIGHT|LOCATION)"])
def scales(request: pytest.FixtureRequest) -> Scales:
    return _scales(f"TICKS ~ YEAR + {request.param}")


def natural_of(t: Array, scales: Scales) -> Array:
    values = np.empty(scales.size)
    natural(t, scales.terms, values)
    return values


def test_pack_is_the_inverse_of_unpack(scales: Scales) -> None:
    t = np.random.default_rng(1).normal(size=(5, scales.size))
    factors, sigma = scales.unpack(t)
    assert sigma == pytest.approx(1.0)
    for i in range(5):
        assert scales.pack([f[i] for f in factors], 1.0) == pytest.approx(t[i], abs=1e-12)


def test_gradient(scales: Scales) -> None:
    rng = np.random.default_rng(2)
    weights = rng.normal(size=scales.factors)

    def value(t: Array) -> tuple[float, Array]:
        factors, gradient = np.zeros(scales.factors), np.zeros(scales.size)
        values = natural_of(t, scales)
        unpack(values, scales.terms, factors)
        total = log_prior_scales(t, values, *scales.arrays, gradient)
        pull_back(values, scales.terms, factors, weights, gradient)
        return total + float(weights @ factors), gradient

    for _ in range(5):
        t = rng.normal(size=scales.size)
        gradient = value(t)[1]
        for k in range(scales.size):
            step = np.zeros(scales.size)
            step[k] = 1e-6
            slope = (value(t + step)[0] - value(t - step)[0]) / 2e-6
            assert gradient[k] == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_stays_finite_far_out(scales: Scales) -> None:
    t = np.full(scales.size, 30.0)
    factors, gradient = np.zeros(scales.factors), np.zeros(scales.size)
    values = natural_of(t, scales)
    unpack(values, scales.terms, factors)
    total = log_prior_scales(t, values, *scales.arrays, gradient)
    pull_back(values, scales.terms, factors, np.ones(scales.factors), gradient)
    assert np.isfinite(total)
    assert np.all(np.isfinite(gradient))


def test_integrates_to_one() -> None:
    """Two sds and a correlation: the constant is the whole of the density's mass."""
    scales = _scales(
        "TICKS ~ cHEIGHT + (cHEIGHT|LOCATION)",
        sd__LOCATION=bg.HalfNormal(1.0),
        corr__LOCATION=bg.LKJ(1.7),
    )

    def density(a: float, b: float, y: float) -> float:
        t = np.array([a, b, y])
        value = log_prior_scales(t, natural_of(t, scales), *scales.arrays, np.zeros(3))
        return float(np.exp(value + scales.constant))

    options = {"epsabs": 1e-6, "epsrel": 1e-6}
    mass, _ = nquad(density, [(-14.0, 2.2), (-14.0, 2.2), (-7.0, 7.0)], opts=options)
    assert mass == pytest.approx(1.0, abs=1e-4)


def test_correlations_follow_the_lkj_law() -> None:
    """The density in t is det(R)^(eta - 1) times the Jacobian of R, for a 3 x 3 matrix."""
    scales = _scales("TICKS ~ YEAR + (YEAR|LOCATION)", corr__LOCATION=bg.LKJ(2.5))

    def below(y: Array) -> Array:
        factors, _ = scales.unpack(np.concatenate([np.zeros(3), y])[None])
        return np.asarray((factors[0][0] @ factors[0][0].T)[np.tril_indices(3, -1)])

    rng = np.random.default_rng(3)
    differences = []
    for _ in range(6):
        y = rng.normal(size=3) * 0.6
        jacobian = np.column_stack([(below(y + h) - below(y - h)) / 2e-5 for h in 1e-5 * np.eye(3)])
        R = np.eye(3)
        R[np.tril_indices(3, -1)] = below(y)
        R = R + R.T - np.eye(3)
        expected = float(bg.LKJ(2.5).log_density(R)) + np.linalg.slogdet(jacobian)[1]
        t = np.concatenate([np.zeros(3), y])
        found = log_prior_scales(t, natural_of(t, scales), *scales.arrays, np.zeros(6))
        differences.append(found - expected)
    assert np.ptp(differences) < 1e-7
