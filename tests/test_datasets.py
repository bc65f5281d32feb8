"""The bundled tables: shapes, types, level order, and values computed apart from polars.

The means and counts below come from the CSVs by Python's csv module and math.fsum;
the level orders come from R (lme4 1.1-31).
"""

import polars as pl
import pytest

from bayesglmm.datasets import list_datasets, load_dataset
from bayesglmm.errors import ChoiceError

SHAPES = {
    "advertising": (200, 4),
    "cbpp": (56, 4),
    "chickweight": (578, 4),
    "contra": (1934, 5),
    "credit": (400, 11),
    "dyestuff": (30, 2),
    "dyestuff2": (30, 2),
    "gammas": (6000, 4),
    "grouseticks": (403, 7),
    "insteval": (73421, 7),
    "mtcars": (32, 12),
    "pastes": (60, 4),
    "penguins": (344, 8),
    "penicillin": (144, 3),
    "poker": (300, 4),
    "sample_data": (564, 6),
    "sleep": (180, 3),
    "sleepstudy": (180, 3),
    "titanic": (891, 15),
    "verbagg": (7584, 9),
}

MEANS = [
    ("advertising", "sales", 14.0225),
    ("cbpp", "incidence", 1.7678571428571428),
    ("cbpp", "size", 15.035714285714286),
    ("chickweight", "weight", 121.81833910034602),
    ("contra", "age", 0.0020475698035160197),
    ("credit", "Balance", 520.015),
    ("dyestuff", "Yield", 1527.5),
    ("dyestuff2", "Yield", 5.6656),
    ("gammas", "BOLD signal", 0.8148366803133523),
    ("grouseticks", "TICKS", 6.369727047146402),
    ("grouseticks", "HEIGHT", 462.2406947890819),
    ("grouseticks", "cHEIGHT", 0.0),
    ("insteval", "y", 3.205744950354803),
    ("mtcars", "mpg", 20.090625),
    ("pastes", "strength", 60.05333333333333),
    ("penguins", "body_mass_g", 4201.754385964912),
    ("penicillin", "diameter", 22.97222222222222),
    ("poker", "balance", 9.7715),
    ("sample_data", "DV", 42.06929668971631),
    ("sleep", "Reaction", 298.5078916666667),
    ("sleepstudy", "Reaction", 298.5078916666667),
    ("titanic", "age", 29.69911764705882),
    ("titanic", "fare", 32.204207968574636),
    ("titanic", "survived", 0.3838383838383838),
    ("verbagg", "Anger", 20.003164556962027),
]

SUBJECTS = "308 309 310 330 331 332 333 334 335 337 349 350 351 352 369 370 371 372"
ITEMS = (
    "S1WantCurse S1WantScold S1WantShout S2WantCurse S2WantScold S2WantShout "
    "S3WantCurse S3WantScold S3WantShout S4wantCurse S4WantScold S4WantShout "
    "S1DoCurse S1DoScold S1DoShout S2DoCurse S2DoScold S2DoShout "
    "S3DoCurse S3DoScold S3DoShout S4DoCurse S4DoScold S4DoShout"
)

# Level orders as levels() gives them in R.
LEVELS = [
    ("sleepstudy", "Subject", SUBJECTS.split()),
    ("grouseticks", "INDEX", [str(i) for i in range(1, 404)]),
    ("grouseticks", "YEAR", ["95", "96", "97"]),
    ("grouseticks", "LOCATION", [str(i) for i in range(1, 64)]),
    ("cbpp", "herd", [str(i) for i in range(1, 16)]),
    ("cbpp", "period", list("1234")),
    ("penicillin", "plate", list("abcdefghijklmnopqrstuvwx")),
    ("penicillin", "sample", list("ABCDEF")),
    ("pastes", "batch", list("ABCDEFGHIJ")),
    ("pastes", "cask", list("abc")),
    ("pastes", "sample", [f"{batch}:{cask}" for batch in "ABCDEFGHIJ" for cask in "abc"]),
    ("dyestuff", "Batch", list("ABCDEF")),
    ("dyestuff2", "Batch", list("ABCDEF")),
    ("verbagg", "item", ITEMS.split()),
    ("verbagg", "id", [str(i) for i in range(1, 317)]),
    ("verbagg", "resp", ["no", "perhaps", "yes"]),
    ("verbagg", "btype", ["curse", "scold", "shout"]),
    ("verbagg", "situ", ["other", "self"]),
    ("verbagg", "mode", ["want", "do"]),
    ("verbagg", "r2", ["N", "Y"]),
    ("verbagg", "Gender", ["F", "M"]),
    ("insteval", "s", [str(i) for i in range(1, 2973)]),
    ("insteval", "studage", list("2468")),
    ("insteval", "lectage", list("123456")),
    ("insteval", "service", ["0", "1"]),
    ("insteval", "dept", "15 5 10 12 6 7 4 8 9 14 1 3 11 2".split()),
]


def levels(table: pl.DataFrame, column: str) -> list[str]:
    dtype = table.schema[column]
    assert isinstance(dtype, pl.Enum)
    return dtype.categories.to_list()


def test_the_list_shows_every_table_with_its_shape() -> None:
    listed = list_datasets()
    assert listed.columns == ["name", "rows", "columns", "title", "source"]
    assert {name: (rows, columns) for name, rows, columns, *_ in listed.rows()} == SHAPES
    assert listed["name"].is_sorted()
    assert (listed["title"].str.len_chars() > 0).all()
    assert (listed["source"].str.len_chars() > 0).all()


@pytest.mark.parametrize("name", SHAPES)
def test_shape(name: str) -> None:
    assert load_dataset(name).shape == SHAPES[name]


@pytest.mark.parametrize(("name", "column", "mean"), MEANS)
def test_mean(name: str, column: str, mean: float) -> None:
    assert load_dataset(name)[column].mean() == pytest.approx(mean, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("name", "column", "expected"), LEVELS)
def test_level_order_is_that_of_r(name: str, column: str, expected: list[str]) -> None:
    table = load_dataset(name)
    assert levels(table, column) == expected
    assert set(table[column].unique().to_list()) == set(expected)


@pytest.mark.parametrize(
    ("name", "column", "n", "first", "last"),
    [("grouseticks", "BROOD", 118, "501", "743"), ("insteval", "d", 1128, "1", "2160")],
)
def test_long_level_lists(name: str, column: str, n: int, first: str, last: str) -> None:
    found = levels(load_dataset(name), column)
    assert (len(found), found[0], found[-1]) == (n, first, last)
    assert found == sorted(found, key=int)


def test_levels_stay_attached_to_their_rows() -> None:
    ticks = load_dataset("grouseticks").group_by("YEAR").agg(pl.col("TICKS").sum()).sort("YEAR")
    assert ticks["TICKS"].to_list() == [696, 1720, 151]

    answers = load_dataset("verbagg")
    assert answers["resp"].value_counts().sort("resp")["count"].to_list() == [3973, 2081, 1530]
    assert answers.filter(item="S2DoCurse", resp="yes").height == 110
    assert answers.filter(item="S4wantCurse", resp="yes").height == 91
    assert answers.filter(pl.col("btype") == "shout", pl.col("resp") != "no").height == 767

    department = load_dataset("insteval").filter(dept="15")["y"]
    assert department.len() == 3292
    assert department.mean() == pytest.approx(3.278857837181045, rel=1e-12)


def test_types_of_the_numeric_columns() -> None:
    assert load_dataset("grouseticks").select("TICKS", "HEIGHT", "cHEIGHT").dtypes == [
        pl.Int64,
        pl.Int64,
        pl.Float64,
    ]
    assert load_dataset("sleepstudy").select("Reaction", "Days").dtypes == [pl.Float64, pl.Int64]
    assert load_dataset("cbpp").select("incidence", "size").dtypes == [pl.Int64, pl.Int64]
    assert load_dataset("insteval")["y"].dtype == pl.Int64
    assert load_dataset("penicillin")["diameter"].dtype == pl.Float64
    assert load_dataset("dyestuff")["Yield"].dtype == pl.Float64


def test_titanic_is_pymer4s() -> None:
    titanic = load_dataset("titanic")
    assert titanic.schema == {
        "survived": pl.Int64,
        "pclass": pl.Int64,
        "sex": pl.String,
        "age": pl.Float64,
        "sibsp": pl.Int64,
        "parch": pl.Int64,
        "fare": pl.Float64,
        "embarked": pl.String,
        "class": pl.String,
        "who": pl.String,
        "adult_male": pl.Boolean,
        "deck": pl.String,
        "embark_town": pl.String,
        "alive": pl.String,
        "alone": pl.Boolean,
    }
    assert titanic.select("age", "deck", "embarked").null_count().row(0) == (177, 688, 2)
    assert titanic.select("adult_male", "alone").sum().row(0) == (537, 537)


def test_contra_has_text_where_mixedmodels_has_strings() -> None:
    contra = load_dataset("contra")
    assert contra.select("dist", "urban", "livch", "use").dtypes == [pl.String] * 4
    assert contra["age"].dtype == pl.Float64
    assert contra["dist"].n_unique() == 60
    assert sorted(contra["livch"].unique()) == ["0", "1", "2", "3+"]
    assert contra.filter(use="Y").height == 759


def test_pymer4_tables_are_as_its_csvs_read() -> None:
    assert load_dataset("sleep").schema == {
        "Subject": pl.Int64,
        "Days": pl.Int64,
        "Reaction": pl.Float64,
    }
    # Unknown sex is the text "NA", as pymer4 hands it out; unknown measurements are null.
    penguins = load_dataset("penguins")
    assert penguins.filter(sex="NA").height == 11
    assert penguins["body_mass_g"].null_count() == 2


def test_each_call_gives_a_new_frame() -> None:
    first = load_dataset("dyestuff")
    first[0, "Yield"] = -1.0
    assert load_dataset("dyestuff")[0, "Yield"] == 1545.0


def test_an_unknown_name_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ChoiceError, match="sleepstudy"):
        load_dataset("sleepstudies")
