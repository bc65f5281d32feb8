"""Laws every coding obeys, and the matrices R prints."""

from __future__ import annotations

import numpy as np
import pytest

from bayesglmm.design.codings import (
    CODINGS,
    Coding,
    Effects,
    Helmert,
    Hypotheses,
    Poly,
    Sdif,
    Sum,
    Treatment,
    coding_of,
    hypothesis_matrix,
)
from bayesglmm.errors import ChoiceError, DataError

EVERY = {
    **CODINGS,
    "treatment-base": Treatment(base="b"),
    "effects-base": Effects(base="b"),
}
CENTRED = ("sum", "effects", "helmert", "poly", "sdif", "effects-base")


def levels(size: int) -> tuple[str, ...]:
    return tuple("abcdefghij"[:size])


@pytest.mark.parametrize("size", [2, 3, 4, 6])
@pytest.mark.parametrize("name", list(EVERY))
def test_coding_and_hypotheses_are_inverse(name: str, size: int) -> None:
    coding = EVERY[name]
    matrix = coding.matrix(levels(size))
    assert isinstance(coding, Coding)
    assert matrix.shape == (size, size - 1)
    assert matrix.dtype == np.float64
    full = np.column_stack([np.ones(size), matrix])
    meaning = hypothesis_matrix(coding, levels(size))
    np.testing.assert_allclose(meaning @ full, np.eye(size), atol=1e-13)
    # Every coefficient but the intercept is a contrast of means.
    np.testing.assert_allclose(meaning[1:].sum(axis=1), 0, atol=1e-13)
    np.testing.assert_allclose(meaning[0].sum(), 1, atol=1e-13)
    names = coding.names(levels(size))
    assert len(names) == len(set(names)) == size - 1


@pytest.mark.parametrize("size", [2, 3, 4, 7])
@pytest.mark.parametrize("name", CENTRED)
def test_centred_codings_sum_to_zero(name: str, size: int) -> None:
    np.testing.assert_allclose(EVERY[name].matrix(levels(size)).sum(axis=0), 0, atol=1e-13)
    meaning = hypothesis_matrix(EVERY[name], levels(size))
    np.testing.assert_allclose(meaning[0], 1 / size, atol=1e-13)


@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_poly_is_orthonormal_and_ends_high(size: int) -> None:
    matrix = Poly().matrix(levels(size))
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(size - 1), atol=1e-12)
    assert (matrix[-1] > 0).all()


# What R 4 prints: contr.treatment(3), contr.sum(3), contr.helmert(3), contr.poly(3), contr.poly(4)
# and MASS::contr.sdif(3); the irrational entries are written as the roots they are.
KNOWN = [
    (Treatment(), [[0, 0], [1, 0], [0, 1]], ("b", "c")),
    (Treatment("c"), [[1, 0], [0, 1], [0, 0]], ("a", "b")),
    (Sum(), [[1, 0], [0, 1], [-1, -1]], ("1", "2")),
    (Effects(), [[-1, -1], [1, 0], [0, 1]], ("b", "c")),
    (Helmert(), [[-1, -1], [1, -1], [0, 2]], ("1", "2")),
    (
        Poly(),
        [[-(0.5**0.5), 6**-0.5], [0, -2 * 6**-0.5], [0.5**0.5, 6**-0.5]],
        (".L", ".Q"),
    ),
    (
        Poly(),
        [
            [-3 / 20**0.5, 0.5, -1 / 20**0.5],
            [-1 / 20**0.5, -0.5, 3 / 20**0.5],
            [1 / 20**0.5, -0.5, -3 / 20**0.5],
            [3 / 20**0.5, 0.5, 1 / 20**0.5],
        ],
        (".L", ".Q", ".C"),
    ),
    (Sdif(), [[-2 / 3, -1 / 3], [1 / 3, -1 / 3], [1 / 3, 2 / 3]], ("b-a", "c-b")),
]


@pytest.mark.parametrize(("coding", "expected", "names"), KNOWN)
def test_values_r_prints(coding: Coding, expected: list[list[float]], names: tuple[str]) -> None:
    known = levels(len(expected))
    np.testing.assert_allclose(coding.matrix(known), expected, atol=1e-14)
    assert coding.names(known) == names


def test_poly_names_go_on_with_powers() -> None:
    assert Poly().names(levels(6)) == (".L", ".Q", ".C", "^4", "^5")


def test_helmert_of_two_levels_is_that_of_mixedmodels() -> None:
    assert Helmert().matrix(levels(2)).ravel().tolist() == [-1, 1]


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_readable_weights_mean_what_they_say(rows: int) -> None:
    rng = np.random.default_rng(rows)
    weights = rng.normal(size=(rows, 4))
    weights -= weights.mean(axis=1, keepdims=True)
    meaning = hypothesis_matrix(coding_of(weights, levels(4)), levels(4))
    np.testing.assert_allclose(meaning[1 : rows + 1], weights, atol=1e-12)
    # What completes the space is orthogonal to the given contrasts.
    np.testing.assert_allclose(meaning[rows + 1 :] @ weights.T, 0, atol=1e-12)
    np.testing.assert_allclose(meaning[0], 0.25, atol=1e-13)


def test_spellings() -> None:
    known = levels(3)
    assert coding_of("contr.helmert", known) == coding_of("Helmert", known) == Helmert()
    assert coding_of(Helmert, known) == Helmert()
    assert coding_of(Treatment(base="b"), known) == Treatment("b")
    assert coding_of([-1, 0, 1], known) == Hypotheses(((-1.0, 0.0, 1.0),))
    assert coding_of({"a": -1, "c": 1}, known) == Hypotheses(((-1.0, 0.0, 1.0),))
    named = coding_of({"ca": [-1, 0, 1], "mid": {"b": 1, "a": -0.5, "c": -0.5}}, known)
    assert named.names(known) == ("ca", "mid")


@pytest.mark.parametrize(
    ("value", "error", "phrase"),
    [
        ("helmerd", ChoiceError, r"contrasts\['g'\]='helmerd'.*did you mean 'helmert'"),
        ("contr.som", ChoiceError, "did you mean 'sum'"),
        (3.5j, ChoiceError, "not known"),
        (object(), ChoiceError, "Allowed: 'treatment'"),
        ([[-1, 1]], DataError, "needs 3 weights"),
        ([[-1, 1, 1]], DataError, "sum to zero"),
        ([[-1, 1, 0], [1, -1, 0]], DataError, "not independent"),
        (np.ones((3, 3)), DataError, "at most 2 contrasts"),
        ([[np.nan, 1, 0]], DataError, "finite"),
        ({"x": {"a": -1, "z": 1}}, DataError, "'z' is not a level"),
        (Treatment(base="z"), DataError, "no such level"),
    ],
)
def test_bad_codings(value: object, error: type[Exception], phrase: str) -> None:
    with pytest.raises(error, match=phrase):
        coding_of(value, levels(3), "g")
