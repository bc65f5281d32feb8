"""Formula and data to matrices: names as R's, new data as old, clear refusals."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from bayesglmm.design import Treatment, build, to_polars
from bayesglmm.design.columns import read
from bayesglmm.errors import BayesglmmError, ChoiceError, DataError, FormulaError
from bayesglmm.formula import parse


def frame(n: int = 60) -> pl.DataFrame:
    rng = np.random.default_rng(7)
    sexes = rng.choice(["male", "female"], n)
    return pl.DataFrame(
        {
            "y": rng.normal(size=n).round(3),
            "n": rng.integers(3, 9, n),
            "s": rng.integers(0, 3, n),
            "age": rng.uniform(1, 50, n).round(2),
            "x": rng.normal(size=n).round(2),
            "sex": sexes,
            "livch": rng.choice(["0", "1", "2", "3+"], n),
            "children": rng.random(n) < 0.5,
            "period": rng.integers(1, 5, n),
            "use": rng.choice(["N", "Y"], n),
            "g": rng.integers(8, 14, n),
            "dist": rng.choice([f"D{i:02d}" for i in range(6)], n),
            "BOLD signal": rng.normal(size=n),
            "Petal.Width": rng.uniform(1, 2, n),
            "const": ["only"] * n,
        }
    )


DATA = frame()

NAMES = [
    ("1", "(Intercept)"),
    ("0 + x", "x"),
    ("x - 1", "x"),
    ("sex", "(Intercept) sexmale"),
    ("0 + sex", "sexfemale sexmale"),
    ("0 + sex + livch", "sexfemale sexmale livch1 livch2 livch3+"),
    ("children", "(Intercept) childrenTRUE"),
    (
        "age * children + abs2(age) + children + sex",
        "(Intercept) age childrenTRUE abs2(age) sexmale age:childrenTRUE",
    ),
    ("sex:age + age + x", "(Intercept) age x sexmale:age"),
    ("age + sex + sex:age", "(Intercept) age sexmale age:sexmale"),
    ("x:sex", "(Intercept) x:sexfemale x:sexmale"),
    ("sex/x", "(Intercept) sexmale sexfemale:x sexmale:x"),
    ("(age + x + sex)^2 - age:x", "(Intercept) age x sexmale age:sexmale x:sexmale"),
    ("I(age^2)", "(Intercept) I(age^2)"),
    ("x + x + age:x + x:age", "(Intercept) x x:age"),
    ("poly(age,2)", "(Intercept)|poly(age, 2)1|poly(age, 2)2"),
    ("poly(age, 2, raw=TRUE)", "(Intercept)|poly(age, 2, raw = TRUE)1|poly(age, 2, raw = TRUE)2"),
    ("log(age)", "(Intercept) log(age)"),
    ("I(age/2)", "(Intercept) I(age/2)"),
    ("scale(age) + center(x)", "(Intercept) scale(age) center(x)"),
    ("bs(age, df=4)", "(Intercept)|" + "|".join(f"bs(age, df = 4){i}" for i in (1, 2, 3, 4))),
    ("cr(age, df=3)", "(Intercept)|" + "|".join(f"cr(age, df = 3){i}" for i in (1, 2, 3))),
    ("factor(period)", "(Intercept) factor(period)2 factor(period)3 factor(period)4"),
    ("C(sex, contr.sum)", "(Intercept)|C(sex, contr.sum)1"),
    ("I(age > 25)", "(Intercept)|I(age > 25)TRUE"),
    ("I(sex == 'male')", '(Intercept)|I(sex == "male")TRUE'),
    ("`BOLD signal` + log(Petal.Width)", "(Intercept)|`BOLD signal`|log(Petal.Width)"),
    ("sex:livch - 1", "sexfemale:livch0 sexmale:livch0 sexfemale:livch1 sexmale:livch1 "
     "sexfemale:livch2 sexmale:livch2 sexfemale:livch3+ sexmale:livch3+"),
    ("sex*poly(age, 2)", "(Intercept)|sexmale|poly(age, 2)1|poly(age, 2)2|sexmale:poly(age, 2)1|"
     "sexmale:poly(age, 2)2"),
    ("sin(x) + sqrt(age) + log2(age) + exp(x)", "(Intercept) sin(x) sqrt(age) log2(age) exp(x)"),
]  # fmt: skip


@pytest.mark.parametrize(("rhs", "names"), NAMES)
def test_coefficient_names_are_r(rhs: str, names: str) -> None:
    design = build(parse(f"y ~ {rhs}"), DATA)
    assert design.names == tuple(names.split("|" if "|" in names else " "))
    assert design.X.shape == (60, len(design.names)) == (design.n, design.p)
    assert len(design.fixed.terms) == design.p


@pytest.mark.parametrize(("rhs", "names"), NAMES)
def test_new_data_get_the_same_columns(rhs: str, names: str) -> None:
    design = build(parse(f"y ~ {rhs} + ({rhs}|g)"), DATA)
    (term,) = design.random
    np.testing.assert_array_equal(design.fixed.matrix(DATA), design.X)
    for rows in ([0], [5, 3, 3], list(range(59, 20, -2))):
        new = DATA[rows]
        np.testing.assert_allclose(design.fixed.matrix(new), design.X[rows], rtol=1e-12)
        np.testing.assert_allclose(design.fixed.matrix(new.to_pandas()), design.X[rows], rtol=1e-12)
        index, Z = term.rows(new)
        np.testing.assert_array_equal(index, term.index[rows])
        np.testing.assert_allclose(Z, term.Z[rows], rtol=1e-12)
    again = pickle.loads(pickle.dumps(design))
    np.testing.assert_array_equal(again.fixed.matrix(DATA[:4]), design.fixed.matrix(DATA[:4]))


def test_values_by_hand() -> None:
    d = build(parse("y ~ sex*x + I(x^2)"), DATA)
    x = DATA["x"].to_numpy()
    male = (DATA["sex"] == "male").to_numpy().astype(float)
    np.testing.assert_allclose(d.X, np.column_stack([x**0, male, x, x**2, male * x]))
    assert d.fixed.terms == ("(Intercept)", "sex", "x", "I(x^2)", "sex:x")
    scaled = build(parse("y ~ scale(x)"), DATA).X[:, 1]
    np.testing.assert_allclose(scaled, (x - x.mean()) / x.std(ddof=1))
    basis = build(parse("y ~ poly(age, 3)"), DATA).X[:, 1:]
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-12)


def test_interaction_without_margins_spans_every_cell() -> None:
    cells = build(parse("y ~ sex:livch"), DATA)
    full = build(parse("y ~ sex*livch"), DATA)
    assert cells.p == full.p == 8
    assert np.linalg.matrix_rank(np.hstack([cells.X, full.X])) == 8


@pytest.mark.parametrize(
    ("coding", "names"),
    [
        ("treatment", "livch1 livch2 livch3+"),
        ("contr.sum", "livch1 livch2 livch3"),
        ("effects", "livch1 livch2 livch3+"),
        ("helmert", "livch1 livch2 livch3"),
        ("poly", "livch.L livch.Q livch.C"),
        ("sdif", "livch1-0 livch2-1 livch3+-2"),
        (Treatment(base="3+"), "livch0 livch1 livch2"),
        ({"any": [-1, 1 / 3, 1 / 3, 1 / 3]}, "livchany livch2 livch3"),
    ],
)
def test_contrasts(coding: object, names: str) -> None:
    d = build(parse("y ~ livch"), DATA, contrasts={"livch": coding})
    assert d.names == ("(Intercept)", *names.split())
    # Saturated in livch: with any coding the fit gives the means of the levels, and each
    # coefficient is what the hypothesis matrix says.
    beta = np.linalg.lstsq(d.X, d.y, rcond=None)[0]
    means = DATA.group_by("livch").agg(pl.col("y").mean()).sort("livch")["y"].to_numpy()
    levels = d.fixed.factors["livch"]
    full = np.column_stack([np.ones(4), d.fixed.codings["livch"].matrix(levels)])
    np.testing.assert_allclose(full @ beta, means, rtol=1e-9)
    if isinstance(coding, dict):
        np.testing.assert_allclose(beta[1], means[1:].mean() - means[0])


def test_numbers_become_factors_when_asked() -> None:
    expected = ("(Intercept)", "period2", "period3", "period4")
    assert build(parse("y ~ period"), DATA).names == ("(Intercept)", "period")
    assert build(parse("y ~ period"), DATA, factors=["period"]).names == expected
    assert build(parse("y ~ period"), DATA, contrasts={"period": "treatment"}).names == expected
    ordered = build(parse("y ~ period"), DATA, factors={"period": [4, 3, 2, 1]})
    assert ordered.names == ("(Intercept)", "period3", "period2", "period1")


def test_level_order() -> None:
    small = pl.DataFrame(
        {
            "y": [1.0, 2, 4, 8],
            "num": [10, 9, 100, 9],
            "flt": [1.5, 0.5, 2.0, 0.5],
            "enum": pl.Series(["c", "a", "b", "a"], dtype=pl.Enum(["c", "b", "unused", "a"])),
            "cat": pl.Series(["c", "a", "b", "a"], dtype=pl.Categorical),
        }
    )
    d = build(parse("y ~ 1 + (1|num) + (1|flt) + (1|enum) + (1|cat)"), small)
    assert [t.levels for t in d.random] == [
        ("9", "10", "100"),
        ("0.5", "1.5", "2"),
        ("c", "b", "a"),
        ("a", "b", "c"),
    ]
    assert d.random[0].index.tolist() == [1, 0, 2, 0]


def test_pandas_categories_keep_their_order_and_ordered_ones_are_polynomial() -> None:
    values = ["low", "high", "mid", "low", "high"]
    made: dict[str, Any] = {
        kind: pd.Categorical(values, ["low", "mid", "high", "never"], ordered=kind == "ordered")
        for kind in ("plain", "ordered")
    }
    data = pd.DataFrame({"y": range(5), **made})
    assert build(parse("y ~ plain"), data).names == ("(Intercept)", "plainmid", "plainhigh")
    ordered = build(parse("y ~ ordered"), data)
    assert ordered.names == ("(Intercept)", "ordered.L", "ordered.Q")
    np.testing.assert_allclose(ordered.X[:3, 1], [-(0.5**0.5), 0.5**0.5, 0], atol=1e-12)
    treated = build(parse("y ~ ordered"), data, contrasts={"ordered": "treatment"})
    assert treated.names == ("(Intercept)", "orderedmid", "orderedhigh")
    assert read(data).ordered == {"ordered"}


# --------------------------------------------------------------------------- random effects


def test_random_terms() -> None:
    d = build(parse("y ~ x + (1|g) + (x||g) + (1|sex/dist) + (0 + sex|dist)"), DATA)
    shown = [(t.name, t.factor, t.columns, t.J, t.correlated) for t in d.random]
    both = DATA.select("sex", "dist").n_unique()
    assert shown == [
        ("g", "g", ("(Intercept)",), 6, True),
        ("g.1", "g", ("(Intercept)", "x"), 6, False),
        ("sex", "sex", ("(Intercept)",), 2, True),
        ("sex:dist", "sex:dist", ("(Intercept)",), both, True),
        ("dist", "dist", ("sexfemale", "sexmale"), 6, True),
    ]
    nested = d.random[3]
    assert nested.levels[0].startswith("female:D") and list(nested.levels) == sorted(nested.levels)
    for row in range(60):
        level = nested.levels[nested.index[row]]
        assert level == f"{DATA['sex'][row]}:{DATA['dist'][row]}"
    np.testing.assert_array_equal(d.random[4].Z.sum(axis=1), np.ones(60))
    assert d.random[1].K == 2 and d.random[3].group_columns == ("sex", "dist")


def test_factor_slopes_with_double_bar_are_independent_columns() -> None:
    (term,) = build(parse("y ~ 1 + (livch||dist)"), DATA).random
    assert term.columns == ("(Intercept)", "livch1", "livch2", "livch3+")
    assert not term.correlated


def test_new_levels_are_marked() -> None:
    (term,) = build(parse("y ~ 1 + (x|sex:g)"), DATA).random
    new = pl.DataFrame(
        {
            "sex": ["male", "other", "male", None],
            "g": [DATA.filter(pl.col("sex") == "male")["g"][0], 8, 99, 8],
            "x": [1.0, 2.0, None, 4.0],
        }
    )
    index, Z = term.rows(new)
    assert index[0] >= 0 and index[1:].tolist() == [-1, -1, -1]
    assert term.levels[index[0]] == f"male:{new['g'][0]}"
    assert np.isnan(Z[2]).all() and Z[3].tolist() == [1.0, 4.0]


# --------------------------------------------------------------------------- response


def test_two_level_responses() -> None:
    text = build(parse("use ~ 1"), DATA).response
    assert text.levels == ("N", "Y")
    np.testing.assert_array_equal(text.y, (DATA["use"] == "Y").to_numpy().astype(float))
    flag = build(parse("children ~ 1"), DATA).response
    assert flag.levels == ("FALSE", "TRUE")
    np.testing.assert_array_equal(flag.y, DATA["children"].to_numpy())
    turned = build(parse("use ~ 1"), DATA, factors={"use": ["Y", "N"]}).response
    assert turned.levels == ("Y", "N")
    np.testing.assert_array_equal(turned.y, 1 - text.y)
    assert build(parse("y ~ 1"), DATA).response.levels == ()


def test_trials_in_three_spellings() -> None:
    by_name = build(parse("s ~ x"), DATA, trials="n")
    by_array = build(parse("s ~ x"), DATA, trials=DATA["n"])
    cbind = build(parse("cbind(s, n - s) ~ x"), DATA)
    for d in (by_name, by_array, cbind):
        np.testing.assert_allclose(d.y, DATA["s"].to_numpy() / DATA["n"].to_numpy())
        np.testing.assert_array_equal(d.trials, DATA["n"].to_numpy())
    assert cbind.response.name == "cbind(s, n - s)"


def test_transformed_response() -> None:
    np.testing.assert_allclose(build(parse("log(age) ~ x"), DATA).y, np.log(DATA["age"]))
    np.testing.assert_allclose(build(parse("age^2/n ~ x"), DATA).y, DATA["age"] ** 2 / DATA["n"])


# --------------------------------------------------------------------------- rows


def test_missing_rows_are_dropped_and_counted() -> None:
    holed = DATA.with_columns(
        pl.when(pl.int_range(60) == 3).then(None).otherwise(pl.col("sex")).alias("sex"),
        pl.when(pl.int_range(60) == 5).then(float("nan")).otherwise(pl.col("x")).alias("x"),
        pl.when(pl.int_range(60) == 7).then(None).otherwise(pl.col("g")).alias("g"),
        pl.when(pl.int_range(60) == 9).then(None).otherwise(pl.col("livch")).alias("livch"),
    )
    w = np.arange(60.0) + 1.0
    d = build(parse("y ~ sex + x + (1|g)"), holed, weights=w)
    kept = [i for i in range(60) if i not in (3, 5, 7)]
    assert (d.n, d.n_rows, d.dropped) == (57, 60, 3)
    assert d.rows.tolist() == kept and d.weights.tolist() == [i + 1 for i in kept]
    assert d.data.height == 57 and "livch" in d.data.columns
    np.testing.assert_array_equal(d.X, build(parse("y ~ sex + x + (1|g)"), DATA).X[kept])
    with pytest.raises(DataError, match=r"3 of 60 rows .*rows 3, 5, 7.*sex \(1\), x \(1\), g"):
        build(parse("y ~ sex + x + (1|g)"), holed, missing="error")
    predicted = d.fixed.matrix(holed)
    assert np.flatnonzero(np.isnan(predicted).all(axis=1)).tolist() == [3, 5]
    np.testing.assert_array_equal(predicted[d.rows], d.X)


def test_offset_and_weights() -> None:
    d = build(
        parse("y ~ x + offset(log(n)) + offset(age)"), DATA, offset="x", weights=np.full(60, 2.0)
    )
    expected = np.log(DATA["n"].to_numpy()) + DATA["age"].to_numpy() + DATA["x"].to_numpy()
    np.testing.assert_allclose(d.offset, expected)
    np.testing.assert_allclose(d.offset_for(DATA[:5]), expected[:5])
    assert d.names == ("(Intercept)", "x") and set(d.weights) == {2.0}
    plain = build(parse("y ~ x"), DATA)
    assert not plain.offset.any() and set(plain.weights) == set(plain.trials) == {1.0}
    listed = build(parse("y ~ x"), DATA, offset=list(range(60)))
    assert listed.offset.tolist() == list(range(60)) and listed.offset_column == ""


def test_reference_grid_facts() -> None:
    d = build(parse("y ~ sex*x + log(age) + I(children == TRUE) + factor(period)"), DATA)
    fixed = d.fixed
    assert dict(fixed.factors) == {
        "sex": ("female", "male"),
        "children": ("FALSE", "TRUE"),
        "period": ("1", "2", "3", "4"),
    }
    assert fixed.covariates == ("x", "age")
    assert fixed.covariate_means["age"] == pytest.approx(DATA["age"].mean())
    assert fixed.has_intercept and set(fixed.columns) == {"sex", "x", "age", "children", "period"}
    labels = pl.DataFrame({"sex": ["male"], "children": [True], "x": [0.0], "age": [9.0]})
    assert fixed.matrix(labels.with_columns(period=pl.lit("3"))).shape == (1, d.p)
    with pytest.raises(TypeError):
        fixed.factors["sex"] = ()  # type: ignore[index]


# --------------------------------------------------------------------------- inputs


KINDS: dict[str, Callable[[pl.DataFrame], Any]] = {
    "polars": lambda d: d,
    "lazy": lambda d: d.lazy(),
    "pandas": lambda d: d.to_pandas(),
    "pyarrow": lambda d: d.to_arrow(),
    "dict of lists": lambda d: d.to_dict(as_series=False),
    "dict of arrays": lambda d: {c: d[c].to_numpy() for c in d.columns},
    "dict of pandas": lambda d: {c: d[c].to_pandas() for c in d.columns},
    "shuffled index": lambda d: d.to_pandas().set_index(np.arange(60)[::-1]),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_of_table_gives_the_same_design(kind: str) -> None:
    formula = parse("use ~ sex*age + children + livch + (x|g) + (1|sex:dist)")
    reference = build(formula, DATA)
    data = KINDS[kind](DATA)
    before = pickle.dumps(data) if kind != "lazy" else b""
    design = build(formula, data, weights="n")
    assert design.names == reference.names
    np.testing.assert_array_equal(design.X, reference.X)
    np.testing.assert_array_equal(design.y, reference.y)
    for mine, theirs in zip(design.random, reference.random, strict=True):
        assert mine.levels == theirs.levels
        np.testing.assert_array_equal(mine.index, theirs.index)
        np.testing.assert_array_equal(mine.Z, theirs.Z)
    if before:
        assert pickle.dumps(data) == before  # nothing of the caller's is changed
    arrays = [design.X, design.y, design.trials, design.offset, design.weights, design.rows]
    for array in (*arrays, *(t.Z for t in design.random), *(t.index for t in design.random)):
        assert not array.flags.writeable


def test_the_callers_arrays_stay_writeable() -> None:
    weights = np.ones(60)
    build(parse("y ~ x"), DATA, weights=weights, offset=weights)
    weights[0] = 5.0
    given = {"y": np.arange(4.0), "x": np.array([0.0, 1, 0, 3])}
    design = build(parse("y ~ x"), given)
    given["y"][0] = given["x"][0] = 99
    assert design.y[0] == 0 and design.X[0, 1] == 0


def test_building_imports_only_what_it_needs() -> None:
    code = (
        "import sys, bayesglmm.formula, bayesglmm.design\n"
        "print([m for m in ('pandas', 'formulaic', 'pymc') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("formula", "phrase"),
    [
        ("y ~ agee", "no column 'agee'; did you mean 'age'"),
        ("yy ~ age", "no column 'yy'"),
        ("y ~ log(agee)", "no column 'agee'; did you mean 'age'"),
        ("y ~ x + (1|distt)", "no column 'distt'; did you mean 'dist'"),
        ("y ~ x + (zz|g)", "no column 'zz'"),
        ("y ~ x + offset(nn)", "no column 'nn'"),
        ("y ~ lgo(age)", r"no function lgo\(\); did you mean 'log'"),
        ("y ~ log", "log is a function"),
        ("y ~ x (age)", r"no function x\(\)"),
        ("y ~ log(sex)", r"log\(sex\) cannot be computed"),
        ("y ~ log(x - 100)", "not a number in 60 rows"),
        ("y ~ log(s)", "infinite in"),
        ("y ~ const", "'const' has one level"),
        ("y ~ x + (1|const)", "'const' has one level.*remove \\(1\\|const\\)"),
        ("y ~ I(age > 1000)", "in every row used"),
        ("y ~ 2 + x", "cannot be read"),
        ("livch ~ x", "not numeric and has 4 levels"),
        ("const ~ x", "has 1 level"),
        ("log(sex) ~ x", "cannot be computed"),
        ("cbind(s) ~ x", "cbind takes two"),
        ("cbind(n, s - n) ~ x", "failures are negative"),
        ("y ~ x + (0|g)", "no effects"),
        ("y ~ C(sex, levels=['a'])", "give the coding as contrasts"),
        ("y ~ bs(age, df=1)", "cannot be computed"),
    ],
)
def test_bad_formulas_for_the_data(formula: str, phrase: str) -> None:
    with pytest.raises((DataError, FormulaError), match=phrase):
        build(parse(formula), DATA)


@pytest.mark.parametrize("formula", ["y ~ agee", "y ~ sex + log(agee)", "y ~ lgo(age)"])
def test_errors_carry_a_caret(formula: str) -> None:
    with pytest.raises((DataError, FormulaError)) as caught:
        build(parse(formula), DATA)
    *_, shown, carets = str(caught.value).splitlines()
    assert shown.strip() == formula
    assert shown[carets.index("^") : carets.rindex("^") + 1] in ("agee", "lgo")


@pytest.mark.parametrize(
    ("options", "error", "phrase"),
    [
        ({"weights": "nn"}, DataError, "weights='nn': there is no such column"),
        ({"weights": -np.ones(60)}, DataError, "not negative; .*first row 0 with -1"),
        ({"weights": np.zeros(60)}, DataError, "the weight is zero in every row"),
        ({"weights": np.ones(59)}, DataError, "weights has 59 values; the data have 60 rows"),
        ({"weights": np.full(60, np.nan)}, DataError, "weights is missing in row 0"),
        ({"weights": "sex"}, DataError, "'sex' is not numeric"),
        ({"offset": [1, 2]}, DataError, "offset has 2 values"),
        ({"offset": np.full(60, np.inf)}, DataError, "offset is infinite"),
        ({"offset": object()}, DataError, "give a column name or one number"),
        ({"trials": np.zeros(60)}, DataError, "number of trials is zero"),
        ({"trials": -np.ones(60)}, DataError, "number of trials is negative"),
        ({"trials": np.full(60, 0.01)}, DataError, "more successes than trials|negative"),
        ({"contrasts": {"sexx": "sum"}}, DataError, "contrasts names 'sexx'.*'sex'"),
        ({"contrasts": {"sex": "sun"}}, ChoiceError, "did you mean 'sum'"),
        ({"factors": ["perod"]}, DataError, "factors names 'perod'.*'period'"),
        ({"factors": {"sex": ["male"]}}, DataError, "also holds 'female'"),
        ({"contrasts": {"g": "sum"}}, DataError, "'g', which the formula does not use; here it"),
        ({"missing": "dorp"}, ChoiceError, "did you mean 'drop'"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], phrase: str) -> None:
    with pytest.raises(error, match=phrase):
        build(parse("age ~ sex"), DATA, **options)


@pytest.mark.parametrize(
    ("data", "phrase"),
    [
        (3, "data is int; give a polars"),
        (None, "data is NoneType"),
        ([1, 2], "data is list"),
        ({}, "no columns"),
        ({"y": [], "x": []}, "no rows"),
        (pl.DataFrame(), "no columns"),
        (pd.DataFrame({"y": [], "x": []}), "no rows"),
        ({"y": [1, 2], "x": [1]}, "y has 2, x has 1"),
        ({"y": [1, 2], "x": 3}, r"data\['x'\] is 3"),
        ({"y": [1, 2], "x": "ab"}, "a column is a sequence"),
        ({"y": [1, 2], "x": np.ones((2, 2))}, "2 dimensions"),
        (
            pd.DataFrame([[1, 2], [3, 4]], columns=["y", "y"]),
            "two columns named 'y'|unique column names",
        ),
        ({"y": [1.0, None], "x": [None, 1.0]}, "every row has a missing value"),
        ({"y": [1.0, 2.0], "x": [1.0, float("inf")]}, "column 'x' is infinite in 1 rows"),
        ({"y": [1.0, float("inf")], "x": [1.0, 2.0]}, "column 'y' is infinite"),
        ({"y": [1.0, 2.0], "x": [[1], [2]]}, "not numeric"),
        ({"y": [[1], [2]], "x": [1.0, 2.0]}, "'y' is not numeric"),
    ],
)
def test_bad_data(data: object, phrase: str) -> None:
    with pytest.raises(DataError, match=phrase):
        build(parse("y ~ x"), data)


def test_bad_new_data() -> None:
    d = build(parse("y ~ sex + age + bs(x, df=4)"), DATA)
    new = DATA[:2]
    with pytest.raises(
        DataError, match=r"column 'sex' holds the level 'mail'.*'male'.*female, male"
    ):
        d.fixed.matrix(new.with_columns(sex=pl.Series(["mail", "male"])))
    with pytest.raises(DataError, match="no column 'age'; did you mean 'agee'"):
        d.fixed.matrix(new.rename({"age": "agee"}))
    with pytest.raises(DataError, match=r"bs\(x, df = 4\) cannot be computed"):
        d.fixed.matrix(new.with_columns(x=pl.lit(1e6)))
    (term,) = build(parse("y ~ 1 + (livch|g)"), DATA).random
    with pytest.raises(DataError, match="'livch' holds the level '9'"):
        term.rows(new.with_columns(livch=pl.lit("9")))
    with pytest.raises(DataError, match="no column 'g'"):
        term.rows(new.drop("g"))


def test_level_missing_in_the_rows_used_is_not_known() -> None:
    d = build(parse("y ~ livch"), DATA.filter(pl.col("livch") != "2"))
    assert d.fixed.factors["livch"] == ("0", "1", "3+")
    with pytest.raises(BayesglmmError, match="holds the level '2'"):
        d.fixed.matrix(DATA)


def test_learning_is_not_disturbed_by_new_data() -> None:
    d = build(parse("y ~ scale(x) + poly(age, 2)"), DATA)
    d.fixed.matrix(DATA.with_columns(x=pl.col("x") * 100, age=pl.col("age") + 7))
    np.testing.assert_array_equal(d.fixed.matrix(DATA), d.X)


def test_to_polars_returns_the_frame() -> None:
    copied = to_polars(DATA)
    assert copied is not DATA and copied.equals(DATA)
    assert to_polars(DATA.to_pandas()).equals(DATA)
