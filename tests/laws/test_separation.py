"""Separation: the linear programme against another one, exact small cases, and the limit fit."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.optimize import linprog

import bayesglmm as bg
from bayesglmm.families import Likelihood, find_family, find_link
from bayesglmm.laplace.separation import find_separation

pytestmark = pytest.mark.filterwarnings("ignore::bayesglmm.errors.BayesglmmWarning")

Array = np.ndarray[Any, np.dtype[np.float64]]


def likelihood(y: Array, trials: Array | None = None, family: str = "binomial") -> Likelihood:
    record = find_family(family)
    w = np.ones(len(y)) if trials is None else trials
    return Likelihood(record, find_link(record, "default"), y, w)


def by_slacks(X: Array, y: Array) -> tuple[list[bool], list[bool]]:
    """The same by a programme with a slack for every row: maximise sum z, z <= 1, z <= +-x'd.

    And whether each coefficient can move, by maximising and minimising it over the directions.
    """
    n, p = X.shape
    sign = np.where(y == 1.0, 1.0, -1.0)
    mixed = (y > 0.0) & (y < 1.0)
    signed = sign[:, None] * X
    solved = linprog(
        -np.append(np.zeros(p), np.ones(n)),
        A_ub=np.hstack([-signed, np.eye(n)]),
        b_ub=np.zeros(n),
        A_eq=np.hstack([X, np.zeros((n, n))])[mixed] if mixed.any() else None,
        b_eq=np.zeros(int(mixed.sum())) if mixed.any() else None,
        bounds=[(None, None)] * p + [(0, 1)] * n,
    )
    rows = (solved.x[p:] > 0.5) & ~mixed
    moved = []
    for j in range(p):
        extremes = [
            linprog(
                c * np.eye(p)[j],
                A_ub=-signed[~mixed] if (~mixed).any() else None,
                b_ub=np.zeros(int((~mixed).sum())) if (~mixed).any() else None,
                A_eq=X[mixed] if mixed.any() else None,
                b_eq=np.zeros(int(mixed.sum())) if mixed.any() else None,
                bounds=[(-1, 1)] * p,
            ).fun
            for c in (1.0, -1.0)
        ]
        moved.append(min(extremes) < -1e-7)
    return rows.tolist(), moved


def small(seed: int) -> tuple[Array, Array, Array]:
    """Few rows of small whole numbers, often separated; some rows with both outcomes."""
    rng = np.random.default_rng(seed)
    n, p = int(rng.integers(4, 12)), int(rng.integers(1, 4))
    X = np.column_stack([np.ones(n), rng.integers(-2, 3, size=(n, p))])
    while np.linalg.matrix_rank(X) < p + 1:
        X[:, 1:] = rng.integers(-2, 3, size=(n, p))
    trials = np.where(rng.random(n) < 0.15, 2.0, 1.0)
    return X, np.where(trials == 2.0, 0.5, rng.random(n) < 0.5).astype(float), trials


@pytest.mark.parametrize("seed", range(60))
def test_against_another_programme(seed: int) -> None:
    X, y, trials = small(seed)
    found = find_separation(X, likelihood(y, trials))
    rows, moved = by_slacks(X, y)
    assert found.rows.tolist() == rows
    assert found.moved.tolist() == moved
    assert found.complete == all(rows)


def test_the_cases_are_of_every_kind() -> None:
    kinds = {
        (bool(r.rows.any()), r.complete)
        for r in (find_separation(X, likelihood(y, w)) for X, y, w in map(small, range(60)))
    }
    assert kinds == {(False, False), (True, False), (True, True)}


@pytest.mark.parametrize(
    ("y", "rows", "complete"),
    [
        ([0, 0, 0, 1, 1, 1], 6, True),
        ([0, 0, 1, 0, 1, 1], 0, False),  # x = 2 and 3 overlap
        ([1, 1, 1, 0, 0, 0], 6, True),
        ([1, 1, 1, 1, 1, 1], 6, True),
    ],
)
def test_one_covariate(y: list[int], rows: int, complete: bool) -> None:
    X = np.column_stack([np.ones(6), np.arange(6.0)])
    found = find_separation(X, likelihood(np.array(y, dtype=float)))
    assert found.rows.sum() == rows and found.complete == complete


def test_a_shared_value_is_quasi_complete() -> None:
    """All zeros below 3, all ones above, both at 3."""
    X = np.column_stack([np.ones(6), [1.0, 2, 3, 3, 4, 5]])
    found = find_separation(X, likelihood(np.array([0.0, 0, 0, 1, 1, 1])))
    assert found.rows.tolist() == [True, True, False, False, True, True]
    assert found.moved.tolist() == [True, True] and not found.complete


def frame(seed: int = 1, n: int = 240) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    x, g = rng.normal(size=n), rng.integers(0, 12, n)
    eta = 0.5 * x + rng.normal(size=12)[g]
    return pl.DataFrame(
        {
            "x": x,
            "g": [f"g{k}" for k in g],
            "f": rng.choice(["a", "b", "c"], n),
            "y": (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int),
            "k": rng.poisson(np.exp(eta)),
        }
    )


@pytest.mark.parametrize("formula", ["~ x + f", "~ x + f + (1|g)"])
@pytest.mark.parametrize(("y", "family"), [("y", "binomial"), ("k", "poisson")])
def test_the_rest_is_the_fit_of_the_rest(formula: str, y: str, family: str) -> None:
    """The rows set apart say nothing: other coefficients are those without these rows."""
    data = frame().with_columns(pl.when(f="c").then(0).otherwise(y).alias(y))
    fit = bg.model(y + formula, data, family=family).fit()
    (note,) = fit.outcome.notes
    assert note.startswith("Quasi-complete separation: fc s") and "prior" in note
    assert f"{(data['f'] == 'c').sum()} of the 240 rows" in note
    assert ("no events" in note) == (family == "poisson")
    rest = bg.model(y + formula, data.filter(pl.col("f") != "c"), family=family).fit()
    assert not rest.outcome.notes
    ours, theirs = fit.params.filter(pl.col("term") != "fc"), rest.params
    assert ours["term"].to_list() == theirs["term"].to_list()
    np.testing.assert_allclose(ours["estimate"], theirs["estimate"], rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(ours["std_error"], theirs["std_error"], rtol=2e-3)
    infinite = fit.params.row(by_predicate=pl.col("term") == "fc", named=True)
    assert infinite["estimate"] < -10
    assert infinite["std_error"] is None


def test_which_predictor_separates() -> None:
    data = frame().with_columns(y=(pl.col("x") > 0.1).cast(pl.Int8))
    fit = bg.glm("y ~ f + x", data, family="binomial").fit()
    assert "Complete separation: x separates the outcomes of all 240 rows" in fit.outcome.notes[0]
    data = data.with_columns(z=pl.col("x") - pl.Series(np.random.default_rng(2).normal(size=240)))
    data = data.with_columns(v=pl.col("x") - pl.col("z")).drop("x")
    fit = bg.glm("y ~ z + v", data, family="binomial").fit()
    assert "z, v (together) separate the outcomes of all 240 rows" in fit.outcome.notes[0]


@pytest.mark.parametrize(("y", "family"), [(1, "binomial"), (0, "binomial"), (0, "poisson")])
def test_outcomes_that_are_all_the_same(y: int, family: str) -> None:
    data = {"y": [y] * 8, "x": [1.0, 5, 2, 8, 3, 4, 6, 7]}
    fit = bg.glm("y ~ x", data, family=family).fit()
    assert "all 8 outcomes are the same" in fit.outcome.notes[0]


def test_extreme_but_not_separated() -> None:
    """Fitted probabilities of 1e-9, but one outcome overlaps: no separation, no note."""
    x = np.concatenate([np.linspace(-30, 30, 400), [-0.2, 0.2]])
    y = np.concatenate([np.linspace(-30, 30, 400) > 0, [True, False]]).astype(int)
    fit = bg.glm("y ~ x", {"x": x, "y": y}, family="binomial").fit()
    assert np.abs(fit.predict(type="link")["estimate"].to_numpy()).max() > 20
    assert fit.outcome.notes == ()
    assert find_separation(fit.model.design.X, fit.model.likelihood).rows.sum() == 0


def separated(n: int = 90) -> pl.DataFrame:
    """x tells something of y, s = 1 means y = 1."""
    rng = np.random.default_rng(7)
    x, g = rng.normal(size=n), rng.integers(0, 6, n)
    y = (rng.random(n) < 1.0 / (1.0 + np.exp(-0.8 * x))).astype(int)
    s = ((y == 1) & (rng.random(n) < 0.4)).astype(int)
    return pl.DataFrame({"y": y, "x": x, "s": s, "g": [f"g{k}" for k in g]})


def test_what_is_finite_beside_an_infinite_coefficient() -> None:
    """As in the fit to the rows that are not set apart, to which the others add nothing."""
    rows = separated()
    whole = bg.glm("y ~ x + s", rows, family="binomial").fit()
    rest = bg.glm("y ~ x", rows.filter(pl.col("s") == 0), family="binomial").fit()
    test = whole.wald_test("x = 0")["chi_square"][0]
    assert test == pytest.approx(rest.wald_test("x = 0")["chi_square"][0], rel=1e-5)
    assert whole.wald_test("s = 0").row(0)[1:] == (None, 1, None)
    seen = whole.predict(type="link")["std_error"]
    assert seen.is_null().to_list() == (rows["s"] == 1).to_list()
    np.testing.assert_allclose(seen.drop_nulls(), rest.predict(type="link")["std_error"], rtol=1e-5)
    tests = whole.anova()
    assert tests.to_dict(as_series=False) == whole.anova(test="lrt").to_dict(as_series=False)
    assert "likelihood-ratio" in tests.caption
    with pytest.raises(bg.ChoiceError, match="no meaning where a coefficient is infinite"):
        whole.anova(test="wald")
    with pytest.raises(bg.ChoiceError, match="a coefficient is infinite"):
        whole.vif()


def test_levels_of_a_separated_fit_keep_their_standard_errors() -> None:
    fit = bg.glmer("y ~ x + s + (1|g)", separated(), family="binomial").fit()
    at = fit.coef.filter(pl.col("term") == "(Intercept)")["std_error"].to_numpy()
    assert np.isfinite(at).all() and (at > 0.0).all()
    assert fit.coef.filter(pl.col("term") == "s")["std_error"].is_null().all()


def test_an_infinite_coefficient_has_no_bootstrap_interval() -> None:
    boot = bg.glm("y ~ x + s", separated(), family="binomial").fit().bootstrap(60, seed=1)
    infinite = boot.draws.filter(pl.col("term") == "s")["estimate"].is_infinite()
    assert infinite.sum() > 54  # a response may separate by nothing
    table = boot.summary()
    row = dict(zip(table.columns, table.row(2), strict=True))
    assert row["n"] == 60 and row["conf_high"] is None and row["std_error"] is None
    assert all(v is not None for v in table.row(1)[5:])


def test_outcomes_that_agree_within_every_group() -> None:
    rng = np.random.default_rng(3)
    y = np.repeat(rng.integers(0, 2, 12), 8)
    rows = pl.DataFrame({"y": y, "x": rng.normal(size=96), "g": np.repeat([*"abcdefghijkl"], 8)})
    with pytest.warns(bg.BayesglmmWarning, match=r"Separation by g: .* fit\(\"nuts\"\)"):
        bg.glmer("y ~ x + (1|g)", rows, family="binomial").fit()
    mixed = rows.with_columns(y=pl.Series([1 - y[0], *y[1:]]))
    fit = bg.glmer("y ~ x + (1|g)", mixed, family="binomial").fit()
    assert not any("Separation" in note for note in fit.outcome.notes)


@pytest.mark.parametrize("term", ["(0 + x|g)", "(x|g)"])
def test_slopes_that_separate_are_named(term: str) -> None:
    rng = np.random.default_rng(3)
    x, g = rng.normal(size=120), rng.integers(0, 12, 120).astype(str)
    data = pl.DataFrame({"x": x, "g": g, "y": (x > 0).astype(int)})
    with pytest.warns(bg.BayesglmmWarning, match=r"Separation by g: .* fit\(\"nuts\"\)"):
        bg.glmer(f"y ~ 1 + {term}", data, family="binomial").fit()
    mixed = pl.when(pl.col("g") == "0").then(pl.Series(rng.integers(0, 2, 120))).otherwise("y")
    one = data.with_columns(y=mixed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bg.glmer(f"y ~ 1 + {term}", one, family="binomial").fit()
    assert not any("Separation by" in str(w.message) for w in caught)
