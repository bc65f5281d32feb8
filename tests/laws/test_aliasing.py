"""Laws of rank: which columns are kept, what can be estimated, how terms are coded."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.linalg import matrix_rank

from bayesglmm.design.aliasing import find_aliasing
from bayesglmm.design.fixed import build_part

Array = np.ndarray[Any, np.dtype[np.float64]]


def deficient(seed: int) -> Array:
    """Small whole numbers: some columns are combinations of earlier or later ones, or zero."""
    rng = np.random.default_rng(seed)
    n, p = int(rng.integers(3, 15)), int(rng.integers(2, 9))
    X = rng.integers(-2, 3, size=(n, p)).astype(float)
    for _ in range(int(rng.integers(1, 4))):
        j, a, b = rng.integers(0, p, 3)
        X[:, j] = 2 * X[:, a] - X[:, b] if rng.random() < 0.8 else 0.0
    return X


def names(X: Array) -> tuple[str, ...]:
    return tuple(f"x{j}" for j in range(X.shape[1]))


@pytest.mark.parametrize("seed", range(60))
def test_kept_columns_are_those_that_add_to_the_span(seed: int) -> None:
    X = deficient(seed)
    found = find_aliasing(X, names(X))
    adds = [
        j
        for j in range(X.shape[1])
        if matrix_rank(X[:, : j + 1]) > (matrix_rank(X[:, :j]) if j else 0)
    ]
    assert found.kept.tolist() == adds
    assert sorted([*found.kept, *found.dropped]) == list(range(X.shape[1]))
    np.testing.assert_allclose(X[:, found.dropped], X[:, found.kept] @ found.weights, atol=1e-10)
    for j, weights in zip(found.dropped, found.weights.T, strict=True):
        assert not weights[found.kept > j].any()  # of earlier columns only
    assert len(found.describe()) == len(found.dropped)


@pytest.mark.parametrize("seed", range(20))
def test_neither_units_nor_the_order_of_rows_matter(seed: int) -> None:
    X = deficient(seed)
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-8, 8, X.shape[1])
    kept = find_aliasing(X, names(X)).kept.tolist()
    assert find_aliasing(X * scale, names(X)).kept.tolist() == kept
    assert find_aliasing(rng.permutation(X), names(X)).kept.tolist() == kept


@pytest.mark.parametrize("seed", range(40))
def test_estimable_means_in_the_row_space(seed: int) -> None:
    X = deficient(seed)
    rng = np.random.default_rng(seed)
    found = find_aliasing(X, names(X))
    inside = rng.integers(-2, 3, size=(4, len(X))) @ X
    anything = rng.integers(-2, 3, size=(8, X.shape[1])).astype(float)
    functions = np.vstack([inside, anything])
    expected = [matrix_rank(np.vstack([X, f])) == matrix_rank(X) for f in functions]
    assert found.estimable(functions).tolist() == expected
    assert all(expected[:4])
    # The value is then the same for every solution of the least-squares problem.
    y = rng.normal(size=len(X))
    whole = np.linalg.pinv(X) @ y
    kept = np.linalg.lstsq(X[:, found.kept], y, rcond=None)[0]
    np.testing.assert_allclose(
        (functions @ whole)[expected], (found.reduced(functions) @ kept)[expected], atol=1e-8
    )


def test_rows_in_several_blocks() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(150_000, 4))
    X[:, 2] = X[:, 0] - 3 * X[:, 1]
    found = find_aliasing(X, names(X))
    assert found.kept.tolist() == [0, 1, 3]
    assert found.describe() == ("x2 = x0 - 3 x1",)


def test_nearly_dependent_columns_are_kept() -> None:
    """Time stamps: a second apart after 50 years; their square adds to the span all the same."""
    t = 1.6e9 + np.arange(100.0)
    X = np.column_stack([np.ones(100), t])
    assert find_aliasing(X, names(X)).kept.tolist() == [0, 1]


FORMULAS = [
    "f", "0 + f", "f:g", "0 + f:g", "f + f:g", "g + f:g", "f * g", "0 + f * g", "f:g:h", "f*g*h",
    "x:f", "x + x:f", "0 + x:f", "f + x:f", "x * f", "x:f:g", "f:g + x:f:g", "f + g:h", "f:g + g:h",
    "f:g + f:h + g:h", "(f + g + h)**2", "f/g", "f/g/h", "x:z", "x*z*f", "0 + x + f:g", "f*g*h - f",
    "f*g - g", "0 + f + g + f:g:h", "bs(x, df=4, include_intercept=True)",
    "0 + bs(x, df=4, include_intercept=True) + f", "f:bs(x, df=4)",
]  # fmt: skip


@pytest.mark.parametrize("rhs", FORMULAS)
def test_terms_are_coded_as_by_formulaic(rhs: str) -> None:
    """The same number of columns, of full rank, spanning the same space."""
    from formulaic import model_matrix

    rng = np.random.default_rng(4)
    cells = list(itertools.product("abc", "uv", "pqr")) * 4
    data = pd.DataFrame(cells, columns=["f", "g", "h"])
    data["x"], data["z"] = rng.normal(size=len(data)), rng.normal(size=len(data))
    theirs = np.asarray(model_matrix(rhs, data), dtype=float)
    part, ours = build_part(rhs, pl.from_pandas(data))
    assert ours.shape == theirs.shape
    assert matrix_rank(ours) == matrix_rank(np.hstack([ours, theirs])) == ours.shape[1]
    assert len(set(part.names)) == ours.shape[1]
    np.testing.assert_array_equal(part.matrix(data), ours)
