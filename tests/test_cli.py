"""The command line: what it prints, what it writes, how it leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

import bayesglmm as bg
from bayesglmm.cli import app

runner = CliRunner()


def invoke(*arguments: str | Path, code: int = 0) -> str:
    """Run the command; its output and errors together, line breaks of wrapping removed."""
    result = runner.invoke(app, [str(a) for a in arguments], env={"COLUMNS": "100"})
    assert result.exit_code == code, result.output + repr(result.exception)
    # A traceback would be an exception other than SystemExit.
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


def flat(text: str) -> str:
    return " ".join(text.split())


# Listing ----------------------------------------------------------------------------------------


def test_version() -> None:
    assert invoke("--version").strip() == f"bayesglmm {bg.__version__}"


def test_lists() -> None:
    assert "grouseticks" in invoke("datasets")
    listed = invoke("models")
    assert "contra_gm3" in listed
    assert "NUTS(seed=1)" in listed


def test_import_is_light() -> None:
    heavy = ["pymc", "pytensor", "arviz", "nutpie", "matplotlib"]
    heavy += ["numba", "llvmlite", "formulaic", "pandas", "scipy.sparse", "scipy.optimize"]
    code = f"import sys, bayesglmm.cli; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# run --------------------------------------------------------------------------------------------


def test_run_one_entry() -> None:
    out = invoke("run", "titanic_glm", "--method", "ml")
    for piece in ("maximum likelihood", "odds ratio", "4.2587e-51", "pymer4", "figures agree"):
        assert piece in out
    assert " NO" not in out


def test_run_quiet_prints_only_the_verdict() -> None:
    out = invoke("run", "models/titanic_glmer.toml", "--method", "ml", "--quiet")
    assert "Verdict" in out
    assert "Fixed effects" not in out


def test_run_leaves_with_1_when_a_figure_is_wrong(tmp_path: Path) -> None:
    from bayesglmm.catalogue import find_entry

    text = find_entry("titanic_glm").read_text(encoding="utf-8")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(text.replace('"-2.51371"', '"-2.51381"'), encoding="utf-8")
    out = invoke("run", wrong, "--method", "ml", "--quiet", code=1)
    assert "NO" in out
    assert "checks fail" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "name a model, or give --all"),
        (["run", "titanic_gml"], "did you mean 'titanic_glm'?"),
        (["run", "titanic_glm", "--all"], "leave out the names"),
        (["run", "titanic_glm", "--method", "nutz"], "--method='nutz' is not known"),
    ],
)
def test_run_usage_errors(arguments: list[str], message: str) -> None:
    assert message in flat(invoke(*arguments, code=2))


def test_broken_entry_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text('title = "x"\n[data]\ndataset = "titanic"\n[fits.ml]\nmethod = "ml"\n')
    assert "broken.toml: the key 'why' is missing" in flat(invoke("run", path, code=2))


# fit --------------------------------------------------------------------------------------------


def test_fit_prints_summary_and_means() -> None:
    out = invoke(
        "fit", "survived ~ sex + (1|pclass)", "--data", "titanic", "--family", "binomial",
        "--factors", "pclass", "--exponentiate", "--emmeans", "sex", "--contrast", "pairwise",
    )  # fmt: skip
    for piece in ("Generalised linear mixed model", "3.9421", "pclass 3", "female / male", "13.96"):
        assert piece in out


def test_fit_options_reach_the_fit() -> None:
    out = invoke(
        "fit", "use ~ age + abs2(age) + urban + livch + (1|dist)", "--data", "contra",
        "--family", "bernoulli", "--contrasts", "urban=helmert", "--nagq", "9",
        "--vcov", "conditional",
    )  # fmt: skip
    assert "ML-AGQ(9)" in out
    assert "0.1686" in out
    out = invoke("fit", "Reaction ~ Days + (Days|Subject)", "--data", "sleepstudy", "--reml")
    assert "REML" in out
    out = invoke(
        "fit", "incidence ~ period + (1|herd)", "--data", "cbpp", "--family", "binomial",
        "--trials", "size",
    )  # fmt: skip
    assert "herd 15" in out


@pytest.fixture
def table(tmp_path: Path) -> Path:
    frame = bg.load_dataset("sleepstudy").with_columns(
        Days=pl.when(pl.col("Days") == 3).then(None).otherwise("Days")
    )
    path = tmp_path / "sleep.csv"
    frame.write_csv(path, null_value="NA")
    return path


def test_fit_and_save(tmp_path: Path, table: Path) -> None:
    target = tmp_path / "deep" / "result"
    invoke(
        "fit", "Reaction ~ Days + (Days|Subject)", "--data", table, "--factors", "Subject",
        "--save", target,
    )  # fmt: skip
    assert {p.name for p in target.iterdir()} == {
        "params.csv", "ranef.csv", "coef.csv", "varcorr.csv", "statistics.csv", "summary.txt",
        "spec.json",
    }  # fmt: skip
    assert [p.name for p in target.parent.iterdir()] == ["result"]  # nothing left beside it
    spec = json.loads((target / "spec.json").read_text())
    assert spec["formula"] == "Reaction ~ Days + (Days|Subject)"
    assert (spec["rows"], spec["rows_dropped"]) == (162, 18)
    assert spec["family"] == "gaussian"
    assert spec["link"] == "identity"
    assert spec["options"]["reml"] is False
    assert "polars" in spec["versions"]
    kept = pl.read_csv(table, null_values="NA").drop_nulls()
    fit = bg.lmer("Reaction ~ Days + (Days|Subject)", kept, factors=["Subject"]).fit()
    saved = pl.read_csv(target / "params.csv")["estimate"]
    assert saved.to_list() == pytest.approx(fit.params["estimate"].to_list(), rel=1e-8)
    assert "162 rows (18 of 180 dropped" in (target / "summary.txt").read_text()


def test_save_does_not_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "result"
    target.mkdir()
    (target / "precious.txt").write_text("x")
    arguments = ["fit", "mpg ~ wt", "--data", "mtcars", "--save", str(target)]
    assert "is not empty; give --force" in flat(invoke(*arguments, code=2))
    assert (target / "precious.txt").exists()
    invoke(*arguments, "--force")
    assert not (target / "precious.txt").exists()
    assert (target / "params.csv").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_failed_save_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bayesglmm.cli as cli

    target = tmp_path / "result"
    invoke("fit", "mpg ~ wt", "--data", "mtcars", "--save", target)
    before = (target / "params.csv").read_text()

    def fail(*_: object) -> None:
        raise bg.FitError("the disk is full")

    monkeypatch.setattr(cli, "_spec", fail)  # after the tables were written
    out = invoke("fit", "mpg ~ hp", "--data", "mtcars", "--save", target, "--force", code=2)
    assert "the disk is full" in out
    assert (target / "params.csv").read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mpg ~ wt", "--data", "mtcar"], "did you mean 'mtcars'?"),
        (["mpg ~ wt", "--data", "nowhere.csv"], "there is no such file"),
        (["mpg ~ wtt", "--data", "mtcars"], "did you mean 'wt'?"),
        (["mpg ~ (1|cyl", "--data", "mtcars"], "mpg ~ (1|cyl"),
        (["mpg ~ wt", "--data", "mtcars", "--family", "gausian"], "did you mean 'gaussian'?"),
        (["mpg ~ wt", "--data", "mtcars", "--method", "mcmc"], "--method='mcmc' is not known"),
        (["mpg ~ wt", "--data", "mtcars", "--draws", "10"], "fit('ml') has no option 'draws'"),
        (["mpg ~ wt", "--data", "mtcars", "--contrasts", "cyl"], "COLUMN=CODING"),
        (["mpg ~ wt", "--data", "mtcars", "--contrast", "pairwise"], "--emmeans"),
        (["mpg ~ wt", "--data", "mtcars", "--dras", "10"], "No such option"),
        (["mpg ~ wt"], "--data"),
    ],
)
def test_fit_usage_errors(arguments: list[str], message: str) -> None:
    out = invoke("fit", *arguments, code=2)
    assert message in flat(out)
    assert "Traceback" not in out


def test_caret_points_into_the_formula() -> None:
    lines = invoke("fit", "mpg ~ (1|cyl", "--data", "mtcars", code=2).splitlines()
    (k,) = [k for k, line in enumerate(lines) if line.strip() == "mpg ~ (1|cyl"]
    assert lines[k + 1].index("^") == lines[k].index("(")


def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"no parquet")
    assert "cannot be read" in flat(invoke("fit", "y ~ x", "--data", path, code=2))


def test_fit_by_laplace_and_save(tmp_path: Path) -> None:
    import xarray as xr

    target = tmp_path / "draws"
    out = invoke(
        "fit", "mpg ~ wt", "--data", "mtcars", "--method", "laplace", "--seed", "1",
        "--draws", "200", "--save", target,
    )  # fmt: skip
    assert "posterior by Laplace's approximation" in out
    spec = json.loads((target / "spec.json").read_text())
    assert (spec["options"]["draws"], spec["options"]["seed"]) == (200, 1)
    (path,) = target.glob("draws.*")
    assert xr.open_datatree(path)["posterior"]["beta"].shape == (1, 200, 2)


@pytest.mark.slow
def test_fit_by_nuts_and_save(tmp_path: Path) -> None:
    import xarray as xr

    target = tmp_path / "draws"
    out = invoke(
        "fit", "mpg ~ wt", "--data", "mtcars", "--method", "nuts", "--seed", "1", "--draws", "200",
        "--tune", "200", "--chains", "2", "--save", target,
    )  # fmt: skip
    assert "posterior by NUTS" in out
    spec = json.loads((target / "spec.json").read_text())
    assert (spec["options"]["draws"], spec["options"]["seed"]) == (200, 1)
    (path,) = target.glob("draws.*")
    tree = xr.open_datatree(path)
    assert tree["posterior"]["beta"].shape == (2, 200, 2)
    assert not (target / "statistics.csv").exists()
