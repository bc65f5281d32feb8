"""The catalogue: every entry reads, every published figure is met, and the judge can say no."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import bayesglmm as bg
from bayesglmm.catalogue import (
    CatalogueError,
    Entry,
    Figure,
    catalogue_folder,
    entry_names,
    find_entry,
    load_entries,
    read_entry,
    run_entry,
)
from bayesglmm.catalogue.judge import figure_checks
from bayesglmm.post.residuals import residuals

MINIMAL = """
title = "t"
why = "w"
source = "s"
formula = "survived ~ sex"
family = "binomial"
[data]
dataset = "titanic"
[fits.ml]
method = "ml"
[[published]]
source = "R"
fit = "ml"
table = "params"
columns = ["estimate"]
[published.rows]
sexmale = ["-2.5137"]
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "entry.toml"
    path.write_text(text, encoding="utf-8")
    return path


# Every entry ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", entry_names())
def test_published_figures(name: str) -> None:
    """Fitted by ML, every judged figure lies within its tolerance."""
    run = run_entry(read_entry(find_entry(name)), ["ml"])
    wrong = [
        (c.source, c.table, c.row, c.column, c.ours, c.published) for c in run.checks if not c.ok
    ]
    assert not wrong
    assert len(run.figures) > 10


@pytest.mark.parametrize("entry", load_entries(), ids=lambda e: e.name)
def test_every_entry_samples_too(entry: Entry) -> None:
    nuts = [how for how in entry.fits.values() if isinstance(how, bg.NUTS)]
    assert len(nuts) == 1
    assert nuts[0].seed == 1
    assert any(isinstance(how, bg.ML) for how in entry.fits.values())


def test_given_tolerances_have_reasons_and_are_the_exception() -> None:
    figures = [
        f
        for entry in load_entries()
        for block in entry.published
        for row in block.rows.values()
        for f in row
        if f is not None
    ]
    given = [f for f in figures if f.tolerance >= 0]
    assert all(f.reason for f in given)
    assert len(given) < 0.2 * len(figures)


def test_readme_example_is_an_entry(tmp_path: Path) -> None:
    text = (catalogue_folder() / "README.md").read_text(encoding="utf-8")
    parts = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert len(parts) == 2
    assert run_entry(read_entry(_write(tmp_path, "".join(parts))), ["ml"]).ok


# The judge --------------------------------------------------------------------------------------


def test_mutated_figure_fails() -> None:
    """One digit off in the last place of one figure, and the verdict is no."""
    entry = read_entry(find_entry("titanic_glm"))
    k = next(k for k, b in enumerate(entry.published) if b.table == "params")
    block = entry.published[k]
    (figure,) = block.rows["sexmale"]
    assert figure is not None
    assert figure.printed == "-2.51371"
    rows = {**block.rows, "sexmale": (replace(figure, printed="-2.51372"),)}
    mutated = (*entry.published[:k], replace(block, rows=rows), *entry.published[k + 1 :])
    run = run_entry(replace(entry, published=mutated), ["ml"])
    assert not run.ok
    assert [(c.row, c.column) for c in run.checks if not c.ok] == [("sexmale", "estimate")]
    assert run.largest == pytest.approx(2.0, abs=0.1)


def test_unidentified_figures_are_shown_but_do_not_count() -> None:
    run = run_entry(read_entry(find_entry("grouseticks_year_split")), ["ml"])
    shown = [c for c in run.checks if not c.judged]
    assert len(shown) == 11
    assert max(c.deviation for c in shown) > 100
    assert run.ok


@pytest.mark.parametrize(
    ("printed", "allowed"),
    [
        ("0.1686", 5e-5),
        ("0.0600", 5e-5),
        ("-458", 0.5),
        ("4.97e-12", 5e-15),
        ("6e+03", 500),
        (".08", 5e-3),
    ],
)
def test_tolerance_is_half_a_unit_of_the_last_digit(printed: str, allowed: float) -> None:
    assert Figure(printed).allowed == pytest.approx(allowed, rel=2e-4)


def test_deviation() -> None:
    assert Figure("0.1686").deviation(0.16865) <= 1.0
    assert Figure("0.1686").deviation(0.168651) > 1.0
    assert Figure("\u221215.036").deviation(-15.036) == 0.0
    assert Figure("inf").deviation(math.inf) == 0.0
    assert Figure("inf").deviation(1e300) == math.inf
    assert Figure("< 2e-16").deviation(1e-17) == 0.0
    assert Figure("< 2e-16").deviation(1e-15) == math.inf
    assert Figure("Y").deviation("Y") == 0.0
    assert Figure("Y").deviation("N") == math.inf
    for missing in (None, math.nan):
        assert Figure("0.1").deviation(missing) == math.inf
    assert Figure("921", 1.0, "cut off").deviation(921.8) == pytest.approx(0.8)


def test_unknown_row_and_column_are_errors(tmp_path: Path) -> None:
    for old, new, hint in (
        ("sexmale = [", "sexmal = [", "no row 'sexmal'; did you mean 'sexmale'"),
        ('["estimate"]', '["estimat"]', "no column 'estimat'; did you mean 'estimate'"),
    ):
        entry = read_entry(_write(tmp_path, MINIMAL.replace(old, new)))
        with pytest.raises(CatalogueError, match=re.escape(hint)):
            run_entry(entry, ["ml"])


def test_priors_and_derived_columns(tmp_path: Path) -> None:
    text = MINIMAL.replace("[data]", '[priors]\nsexmale = "Normal(0, 5)"\n[data]')
    text = text.replace(
        '"titanic"', '"titanic"\nrename = { sex = "gender" }\nderive = { old = "age > 40" }'
    )
    entry = read_entry(_write(tmp_path, text))
    assert not isinstance(entry.priors, str)
    assert entry.priors["sexmale"] == bg.Normal(0, 5)
    frame = entry.data()
    assert {"gender", "old"} <= set(frame.columns)
    assert frame.schema["old"] == pl.Boolean


# Malformed entries ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "t"', "title = 3", "title = 3: give a string"),
        ('title = "t"', "", "the key 'title' is missing"),
        ("formula =", "fromula =", "the key 'formula' is missing"),
        ('why = "w"', 'why = "w"\nwieghts = "x"', "'wieghts' is not known; did you mean 'weights'"),
        ('method = "ml"', 'method = "mle"', "fits.ml: method='mle' is not known"),
        ('method = "ml"', 'method = "ml"\nnagk = 9', "fits.ml: fit('ml') has no option 'nagk'"),
        ('fit = "ml"', 'fit = "nuts"', "published[0]: fit = 'nuts' is not known"),
        ('"params"', '"parms"', "table = 'parms' is not known; did you mean 'params'"),
        ('["-2.5137"]', "[-2.5137]", "give figures as text"),
        ('["-2.5137"]', '["1", "2"]', "rows.sexmale: give 1 figure(s)"),
        ('["estimate"]', '["estimate"]\ntolerance = { estimate = 1 }', "tolerance needs a reason"),
        ('["estimate"]', '["estimate"]\ntolerance = { SE = 1 }\nreason = "r"', "tolerance.SE"),
        ('["estimate"]', '["estimate"]\nidentified = false', "identified = false needs a reason"),
        ('["-2.5137"]', '[{ printed = "1", tolerance = 0.1 }]', "a tolerance needs a reason"),
        ("[data]", '[priors]\nsexmale = "Norml(0, 5)"\n[data]', "did you mean 'Normal'"),
        ("[data]", '[priors]\nsexmale = "Normal(0, sd())"\n[data]', "priors.sexmale"),
        ("[data]", "[data", "not valid TOML"),
    ],
)  # fmt: skip
def test_malformed_entries_name_the_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in MINIMAL
    with pytest.raises(CatalogueError, match=re.escape(message)) as caught:
        read_entry(_write(tmp_path, MINIMAL.replace(old, new, 1)))
    assert "entry.toml" in str(caught.value)


def test_finding() -> None:
    assert find_entry("titanic_glm") == find_entry("models/titanic_glm.toml").resolve()
    with pytest.raises(CatalogueError, match="did you mean 'titanic_glm'"):
        find_entry("titanic_gml")
    with pytest.raises(CatalogueError, match="no file and no bundled model"):
        find_entry("elsewhere/titanic_glm.toml")


def test_restricting_methods() -> None:
    entry = read_entry(find_entry("titanic_glm"))
    with pytest.raises(bg.ChoiceError, match="method='mcmc'"):
        run_entry(entry, ["mcmc"])
    # Without a fit only the figures of the data remain.
    assert {c.table for c in figure_checks(entry, {})} == {"data"}


# Residuals, which the catalogue's documents print -----------------------------------------------


def test_residuals_by_hand() -> None:
    data = {"y": [1.0, 3.0, None, 2.0], "x": ["a", "a", "a", "b"]}
    fit = bg.glm("y ~ x", data, family="poisson").fit()
    assert residuals(fit, "response")["residual"].round(6).to_list() == [-1.0, 1.0, None, 0.0]
    root = math.sqrt(2.0)
    pearson = residuals(fit)["residual"].to_list()
    assert pearson[:3] == [pytest.approx(-1 / root), pytest.approx(1 / root), None]
    deviance = residuals(fit, "deviance")["residual"].to_list()
    assert deviance[0] == pytest.approx(-math.sqrt(2 * (1 * math.log(1 / 2) - (1 - 2))))
    assert deviance[1] == pytest.approx(math.sqrt(2 * (3 * math.log(3 / 2) - (3 - 2))))
    with pytest.raises(bg.ChoiceError, match="type='persons'"):
        residuals(fit, "persons")  # type: ignore[arg-type]


def test_squared_deviance_residuals_sum_to_the_deviance() -> None:
    fit = bg.glm("survived ~ sex", bg.load_dataset("titanic"), family="binomial").fit()
    total = (residuals(fit, "deviance")["residual"] ** 2).sum()
    assert total == pytest.approx(fit.statistics["deviance"][0], rel=1e-12)
