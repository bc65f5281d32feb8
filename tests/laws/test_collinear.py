"""Advice to centre: given where columns are nearly collinear, whatever their units, only there."""

from __future__ import annotations

import warnings

import numpy as np
import polars as pl
import pytest

import bayesglmm as bg
from bayesglmm.catalogue import entry_names, find_entry, read_entry

RNG = np.random.default_rng(5)
N = 240
YEAR = RNG.integers(2001, 2021, N)
GROUP = RNG.integers(0, 12, N)
X = RNG.normal(size=N)
DATA = pl.DataFrame(
    {
        "year": YEAR,
        "x": X,
        "near": X + 0.004 * RNG.normal(size=N),
        "far": X + 0.04 * RNG.normal(size=N),
        "g": [f"g{k}" for k in GROUP],
        "y": 0.1 * (YEAR - 2010) + RNG.normal(size=12)[GROUP] + RNG.normal(size=N),
    }
)
SAID = "ignore:Nearly collinear:bayesglmm.errors.BayesglmmWarning"


def others(columns: list[str]) -> float:
    """By how much the last column is longer, centred, than its distance from the others."""
    X = np.column_stack([np.ones(N), *(DATA[c].to_numpy() for c in columns[:-1])])
    last = DATA[columns[-1]].to_numpy().astype(float)
    rest = last - X @ np.linalg.lstsq(X, last, rcond=None)[0]
    return float(np.linalg.norm(last - last.mean()) / np.linalg.norm(rest))


@pytest.mark.parametrize(
    ("formula", "phrase"),
    [
        ("y ~ year + I(year^2)", r"^Nearly collinear: year, I\(year\^2\): .*Centre"),
        ("y ~ x + near", f"x, near: .* up to {others(['x', 'near']):.0f} times.*leave one out"),
        ("y ~ 0 + x + near + (1|g)", "^Nearly collinear: x, near: "),
        ("y ~ x + (year|g)", r"^Nearly collinear by g: \(Intercept\), year: their sds"),
        ("y ~ (x + near|g)", "^Nearly collinear by g: x, near: "),
        ("y ~ x + (x + near + I(0 * x)|g)", "^Nearly collinear by g: x, near: "),
    ],
)
def test_advice_comes_once_and_stays_in_the_summary(formula: str, phrase: str) -> None:
    with pytest.warns(bg.BayesglmmWarning, match=phrase) as caught:
        model = bg.model(formula, DATA)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bg.BayesglmmWarning)  # a slope may be singular
        fit = model.fit()
    assert fit.summary().text().count("Nearly collinear") == 1


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ year",
        "y ~ x + far + I(x^2)",
        "y ~ center(year) + I(center(year)^2) + (center(year)|g)",
        "y ~ poly(year, 2) + (I(year - 2010)|g)",
        "y ~ x + (0 + year|g)",
        "y ~ x * g",
    ],
)
@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
def test_no_advice_where_none_is_due(formula: str, unit: float) -> None:
    assert bg.model(formula, DATA.with_columns(pl.col("x", "far") * unit)).design.collinear == ()


@pytest.mark.filterwarnings(SAID)
@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
def test_units_and_order_do_not_matter(unit: float) -> None:
    data = DATA.with_columns(pl.col("near") * unit).sample(N, shuffle=True, seed=1)
    assert bg.lm("y ~ near + x", data).design.collinear == tuple(
        text.replace("x, near", "near, x") for text in bg.lm("y ~ x + near", DATA).design.collinear
    )


@pytest.mark.parametrize("name", entry_names())
def test_the_catalogue_gets_no_advice(name: str) -> None:
    assert read_entry(find_entry(name)).model().design.collinear == ()
