"""Simulation-based calibration of the sampler (Talts et al. 2018, arXiv:1804.06788).

Parameters are drawn from their priors, a response is drawn given them, and the model is fitted to
it. The rank of each true value among draws of its posterior is then uniform, if and only if the
draws are from the posterior. Beside the parameters the log-likelihood is ranked, which also tells
a posterior that overlooks the data (Modrák et al. 2023, doi:10.1214/23-BA1404).

    make test ARGS="-m calibration tests/slow --junit-xml=ranks.xml"

It takes some minutes, and every p value is in the report. More replicates, and with them more
power, by the environment variable CALIBRATION_REPLICATES.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy import stats

import bayesglmm as bg
from bayesglmm.families import Likelihood
from bayesglmm.model import Model
from bayesglmm.nuts import Sampled
from bayesglmm.post.parameters import covariance_factor
from bayesglmm.post.simulate import respond, stream
from bayesglmm.posterior.sampled import SampledPosterior
from bayesglmm.priors import Prior
from bayesglmm.priors.parameters import draw_parameters

Array = NDArray[np.float64]
Values = Mapping[str, Array]

REPLICATES = int(os.environ.get("CALIBRATION_REPLICATES", "200"))
SEED = 20260101
DRAWS, EVERY = 250, 5  # of each of two chains: 100 draws almost independent
BINS = 10
# About 150 p values of a right sampler: one below this in a hundred runs.
ALARM = 1e-4

_SLOPES: Mapping[str, Prior] = {"(Intercept)": bg.Normal(0.4, 0.6), "x": bg.Normal(0.0, 0.5)}


@dataclass(frozen=True)
class Kind:
    """One kind of model: what is random is all in the priors."""

    name: str
    formula: str
    family: str
    scales: Mapping[str, Prior]
    shape: tuple[int, ...]  # levels of a, levels of b, rows in each cell
    route: str
    trials: str = ""
    link: str = "default"
    weights: str = ""
    effects: tuple[tuple[str, int, int], ...] = (("a", 0, 0),)  # ranked: term, level, column

    def model(self, y: Array | None = None) -> Model:
        """The model of a response, or of one that stands for none."""
        data = self._data()
        if y is None:
            y = np.asarray(np.arange(data.height) % 2, dtype=np.float64)
        return bg.model(
            self.formula,
            data.with_columns(y=y),
            family=self.family,
            link=self.link,
            trials=self.trials,
            weights=self.weights,
            priors={**_SLOPES, **self.scales},
        )

    def _data(self) -> pl.DataFrame:
        levels_a, levels_b, rows = self.shape
        a, b, _ = (axis.ravel() for axis in np.indices((levels_a, levels_b, rows)))
        rng = np.random.default_rng(1)  # the covariate is the same in every replicate
        kept = rng.random(a.size) < 0.9  # unequal cells
        columns = {
            "a": [f"a{k:02d}" for k in a],
            "b": [f"b{k:02d}" for k in b],
            "x": rng.normal(0.3, 1.0, a.size).round(2),
            "n": 1.0 + rng.integers(0, 8, a.size),
            "w": rng.uniform(0.5, 3.0, a.size).round(2),
        }
        return pl.DataFrame(columns).filter(pl.Series(kept))


_INTEGRATED, _COMPILED = "integrated out", "Laplace coordinates, compiled"
KINDS = (
    Kind(
        "scalar",
        "y ~ x + (1|a)",
        "poisson",
        {"sd:a": bg.HalfNormal(0.7)},
        (12, 1, 6),
        _COMPILED,
    ),
    Kind(
        "vector",
        "y ~ x + (x|a)",
        "binomial",
        {"sd:a": bg.HalfNormal(0.8), "corr:a": bg.LKJ(2.0)},
        (14, 1, 6),
        _COMPILED,
        trials="n",
        effects=(("a", 0, 0), ("a", 3, 1)),
    ),
    Kind(
        "uncorrelated",
        "y ~ x + (x||a)",
        "poisson",
        {"sd:a": bg.Exponential(2.0)},
        (12, 1, 6),
        _COMPILED,
    ),
    Kind(
        "nested",
        "y ~ x + (1|a) + (1|a:b)",
        "poisson",
        {"sd:a": bg.HalfNormal(0.6), "sd:a:b": bg.HalfNormal(0.6)},
        (8, 4, 3),
        _COMPILED,
        effects=(("a", 0, 0), ("a:b", 5, 0)),
    ),
    Kind(
        "crossed",
        "y ~ x + (1|a) + (1|b)",
        "binomial",
        {"sd:a": bg.HalfNormal(0.8), "sd:b": bg.HalfStudentT(4.0, 0.5)},
        (10, 8, 2),
        _COMPILED,
        trials="n",
        effects=(("a", 0, 0), ("b", 2, 0)),
    ),
    Kind(
        "gaussian",
        "y ~ x + (x|a)",
        "gaussian",
        {"sd:a": bg.HalfNormal(1.0), "corr:a": bg.LKJ(1.5), "sigma": bg.Gamma(4.0, 4.0)},
        (12, 1, 6),
        _INTEGRATED,
        weights="w",
        effects=(("a", 0, 0), ("a", 3, 1)),
    ),
    Kind(
        "gaussian-crossed",
        "y ~ x + (1|a) + (1|b)",
        "gaussian",
        {"sd:a": bg.HalfNormal(1.0), "sd:b": bg.Exponential(1.0), "sigma": bg.HalfNormal(1.0)},
        (8, 6, 2),
        _INTEGRATED,
        effects=(("a", 0, 0), ("b", 2, 0)),
    ),
)


@pytest.mark.slow
@pytest.mark.calibration
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_ranks_are_uniform(kind: Kind, record_property: Callable[[str, object], None]) -> None:
    ranks = calibrate(kind, REPLICATES)
    found = {
        f"{quantity} {test}": p
        for quantity, column in ranks.items()
        for test, p in p_values(column).items()
    }
    for name, p in found.items():
        record_property(name, round(p, 4))
    low = {name: p for name, p in found.items() if p < ALARM}
    assert not low, f"ranks are not uniform: {low}"


def calibrate(kind: Kind, replicates: int) -> dict[str, NDArray[np.intp]]:
    """Rank of every quantity among draws of its posterior, one for each replicate."""
    template = kind.model()
    ranks: dict[str, list[int]] = {}
    for k in range(replicates):
        rng = stream(SEED, k)
        truth = draw_truth(template, rng)
        y = respond(
            *(template.family, template.link, predictor(template, truth)[0]),
            *(amounts(template), float(truth["sigma"][0]), rng),
        )
        model = kind.model(y * template.design.trials)
        options = bg.NUTS(draws=DRAWS, chains=2, seed=k, progress=False)
        with warnings.catch_warnings():  # short chains
            warnings.simplefilter("ignore", bg.BayesglmmWarning)
            posterior = bg.fit(model, options).posterior
        assert isinstance(posterior, SampledPosterior) and isinstance(posterior.run, Sampled)
        run = posterior.run
        assert kind.route in run.kind
        draws = {name: thinned(run.values(name)) for name in truth if name in run.tree["posterior"]}
        draws.setdefault("sigma", np.ones(len(draws["beta"])))
        drawn, true = quantities(kind, model, draws), quantities(kind, model, truth)
        for name, column in drawn.items():
            ranks.setdefault(name, []).append(int(np.sum(column < true[name][0])))
    return {name: np.array(found) for name, found in ranks.items()}


def draw_truth(model: Model, rng: np.random.Generator) -> dict[str, Array]:
    """One draw of everything from the priors, as draws of the posterior are named."""
    out = draw_parameters(model.priors, model.design, rng, 1)
    for term in model.design.random:
        corr = out.get(f"corr_{term.name}", np.eye(term.K)[None])
        factor = covariance_factor(out[f"sd_{term.name}"][0], corr[0])
        out[f"b_{term.name}"] = (rng.standard_normal((term.J, term.K)) @ factor.T)[None]
    out.setdefault("sigma", np.ones(1))
    return out


def predictor(model: Model, values: Values) -> Array:
    """(draws, rows) linear predictor."""
    eta = values["beta"] @ model.design.X.T + model.design.offset
    for term in model.design.random:
        eta += np.einsum("nk,snk->sn", term.Z, values[f"b_{term.name}"][:, term.index])
    return np.asarray(eta)


def amounts(model: Model) -> Array:
    """Trials, or weights, of every row."""
    design = model.design
    return design.trials if design.response.has_trials else design.weights


def thinned(values: Array) -> Array:
    """Every fifth draw, the chains one after another."""
    kept = values[:, ::EVERY]
    return kept.reshape(-1, *kept.shape[2:])


def quantities(kind: Kind, model: Model, values: Values) -> dict[str, Array]:
    """What is ranked: one column for each coefficient, sd, correlation, and more."""
    design = model.design
    out = {name: values["beta"][:, k] for k, name in enumerate(design.names)}
    for term in design.random:
        for k, column in enumerate(term.columns):
            out[f"sd:{term.name}:{column}"] = values[f"sd_{term.name}"][:, k]
        if f"corr_{term.name}" in values:
            out[f"corr:{term.name}"] = values[f"corr_{term.name}"][:, 1, 0]
    for term in design.random:
        for level, k in ((j, k) for name, j, k in kind.effects if name == term.name):
            out[f"b:{term.name}:{level}:{k}"] = values[f"b_{term.name}"][:, level, k]
    if model.family.has_scale:
        out["sigma"] = values["sigma"]
    likelihood: Likelihood = model.likelihood
    eta = predictor(model, values)
    terms = [likelihood.log_density(e, float(s)) for e, s in zip(eta, values["sigma"], strict=True)]
    return {**out, "log-likelihood": np.array([np.sum(t) for t in terms])}


def p_values(ranks: NDArray[np.intp]) -> dict[str, float]:
    """Three tests of uniformity on 0, ..., 100: the shape, the centre and the spread."""
    size, n = 2 * DRAWS // EVERY + 1, len(ranks)
    counts = np.histogram((ranks + 0.5) / size, BINS, (0.0, 1.0))[0]
    # Ranks are whole numbers: the bins do not hold equally many of them.
    share = np.histogram((np.arange(size) + 0.5) / size, BINS, (0.0, 1.0))[0] / size
    scaled = (ranks - (size - 1) / 2) / np.sqrt((size**2 - 1) / 12)
    centre = np.sqrt(n) * scaled.mean()
    spread = np.sqrt(n) * (np.mean(scaled**2) - 1.0) / np.sqrt(0.8)  # kurtosis of a uniform: 1.8
    return {
        "chi-square": float(stats.chisquare(counts, n * share).pvalue),
        "centre": float(2.0 * stats.norm.sf(abs(centre))),
        "spread": float(2.0 * stats.norm.sf(abs(spread))),
    }
