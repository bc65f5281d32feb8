"""What goes wrong with files: it is said in words, and the file that was there stays."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import polars as pl
import pytest

import bayesglmm as bg
from bayesglmm.families import find_family
from bayesglmm.priors import Prior
from bayesglmm.storage import container

DATA = pl.DataFrame(
    {
        "y": [1.0, 2.0, 4.0, 3.0, 5.0, 7.0, 1.5, 2.5],
        "x": [0, 1, 2, 3, 4, 5, 6, 7],
        "g": list("aabbccdd"),
        "idle": [0.0] * 8,
    }
)


@pytest.fixture(scope="module")
def fit() -> bg.Fit:
    return bg.lm("y ~ x + g", DATA).fit()


@pytest.fixture
def path(fit: bg.Fit, tmp_path: Path) -> Path:
    return fit.save(tmp_path / "fit.bglmm")


def test_a_file_that_exists_is_kept_unless_asked(fit: bg.Fit, path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(bg.FileError, match=r"exists; save\(path, overwrite=True\) replaces it"):
        fit.save(path)
    assert path.read_bytes() == before
    other = bg.lm("y ~ x", DATA).fit()
    assert other.save(str(path), overwrite=True) == path
    assert bg.load(path).params["term"].to_list() == ["(Intercept)", "x"]
    with pytest.raises(OSError, match="exists"):  # an ordinary error of the operating system
        fit.save(path)


@pytest.mark.parametrize("step", ["archive", "writestr", "fsync", "replace"])
@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_at_any_step_leaves_the_old_file_and_no_litter(
    step: str, problem: BaseException, fit: bg.Fit, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise problem

    calls = {
        "writestr": (zipfile.ZipFile, "writestr"),
        "archive": (container, "_archive"),
        "fsync": (os, "fsync"),
        "replace": (os, "replace"),
    }
    expected = bg.FileError if isinstance(problem, OSError) else KeyboardInterrupt
    with monkeypatch.context() as patched:
        patched.setattr(*calls[step], fail)
        with pytest.raises(expected):
            bg.lm("y ~ x", DATA).fit().save(path, overwrite=True)
        with pytest.raises(expected):
            fit.save(path.with_name("new.bglmm"))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_places_that_cannot_be_written(fit: bg.Fit, tmp_path: Path) -> None:
    with pytest.raises(bg.FileError, match="there is no directory"):
        fit.save(tmp_path / "nowhere" / "fit.bglmm")
    with pytest.raises(bg.FileError, match="is a directory"):
        fit.save(tmp_path)
    with pytest.raises(bg.FileError, match=r"path is 3; give the name of a file"):
        fit.save(cast(Any, 3))
    with pytest.raises(bg.FileError, match="cannot be written"):
        fit.save(tmp_path / ("n" * 300))
    assert os.listdir(tmp_path) == []
    with pytest.raises((TypeError, bg.BayesglmmError), match="fit"):
        bg.save(cast(Any, "fit"), tmp_path / "x")


def test_files_that_are_not_ours(path: Path, tmp_path: Path) -> None:
    with pytest.raises(bg.FileError, match=r"there is no file .*; did you mean 'fit.bglmm'"):
        bg.load(tmp_path / "fti.bglmm")
    with pytest.raises(bg.FileError, match="there is no directory"):
        bg.load(tmp_path / "no" / "fit.bglmm")
    with pytest.raises(bg.FileError, match="is a directory; a saved fit is one file"):
        bg.load(tmp_path)
    other = tmp_path / "other"
    other.write_bytes(pickle.dumps({}))
    with pytest.raises(bg.FileError, match="is not a saved fit"):
        bg.load(other)
    other.write_bytes(b"")
    with pytest.raises(bg.FileError, match="damaged or incomplete"):
        bg.load(other)
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(bg.FileError, match="is not a saved fit"):
        bg.load(other)
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("manifest.json", "[]")
    with pytest.raises(bg.FileError, match="is not a saved fit"):
        bg.load(other)


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The archive with its members changed; the checksums stay as they were."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_later_format_says_so(path: Path) -> None:
    def later(members: dict[str, bytes]) -> None:
        manifest = json.loads(members["manifest.json"])
        manifest["version"], manifest["versions"]["bayesglmm"] = 7, "3.2"
        members["manifest.json"] = json.dumps(manifest).encode()

    with pytest.raises(bg.FileError, match=r"saved in format 7 by bayesglmm 3\.2.*Update"):
        bg.load(rewritten(path, later))


def test_other_versions_of_the_software_load_without_a_word(path: Path, fit: bg.Fit) -> None:
    def earlier(members: dict[str, bytes]) -> None:
        manifest = json.loads(members["manifest.json"])
        manifest["versions"] = dict.fromkeys(manifest["versions"], "0.0.1")
        members["manifest.json"] = json.dumps(manifest).encode()

    assert bg.load(rewritten(path, earlier)).params.equals(fit.params)


def removed(name: str, members: dict[str, bytes]) -> None:
    del members[name]


def altered(name: str, members: dict[str, bytes]) -> None:
    members[name] = members[name][:-1] + bytes([members[name][-1] ^ 1])


def test_every_member_is_needed_and_checked(path: Path) -> None:
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    assert {"manifest.json", "model.json", "data.parquet"} < set(names)
    for name in names[1:]:
        for change in (removed, altered):
            path.write_bytes(whole)
            with pytest.raises(bg.FileError, match=f"damaged or incomplete.*{name}"):
                bg.load(rewritten(path, partial(change, name)))


def test_no_damage_comes_through_and_no_error_of_zipfile(path: Path, fit: bg.Fit) -> None:
    whole = path.read_bytes()
    expected = fit.params
    rng = np.random.default_rng(5)
    for length in [2, 10, 30, 100, *rng.integers(100, len(whole), 20).tolist()]:
        path.write_bytes(whole[:length])
        with pytest.raises(bg.FileError, match="damaged or incomplete"):
            bg.load(path)
    for at in rng.integers(2, len(whole), 300).tolist():
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << rng.integers(8))]) + whole[at + 1 :])
        try:
            assert bg.load(path).params.equals(expected)  # a date in the directory, or the like
        except bg.FileError:
            continue


def changed_model(path: Path, change: Callable[[Any], None]) -> Path:
    """The file with another description, checksums made anew: as another version writes it."""
    parts, versions = container.read(path)
    record = json.loads(parts["model.json"])
    change(record)
    parts["model.json"] = json.dumps(record).encode()
    container.write(path, parts, versions, overwrite=True)
    return path


def test_records_of_other_versions(path: Path) -> None:
    whole = path.read_bytes()

    def said(change: Callable[[Any], None]) -> str:
        path.write_bytes(whole)
        with pytest.raises(bg.FileError) as problem:
            bg.load(changed_model(path, change))
        return str(problem.value)

    assert "ML has no field speed" in said(lambda r: r["estimator"].update(speed=1))
    assert "a Magic, which this version does not know" in said(
        lambda r: r["estimator"].update(record="Magic")
    )
    assert "Estimate lacks beta" in said(lambda r: r["posterior"]["estimate"].pop("beta"))
    assert "another design than the one saved (coefficients differ)" in said(
        lambda r: r["model"]["shape"]["coefficients"].reverse()
    )
    assert "(values of the columns differ)" in said(
        lambda r: r["model"]["shape"]["sizes"][1].reverse()
    )
    assert "cannot be understood" in said(lambda r: r.pop("posterior"))
    assert "holds a 'magic', which this version" in said(
        lambda r: r["posterior"]["estimate"].update(beta={"magic": 1})
    )
    assert "cannot be understood" in said(lambda r: r["model"].update(family="cauchy"))

    path.write_bytes(whole)  # a field that came later has its default
    again = bg.load(changed_model(path, lambda r: r["estimator"].pop("nagq")))
    assert again.estimator == bg.ML()


def test_another_order_of_elimination_is_seen(tmp_path: Path) -> None:
    path = bg.lmer("y ~ 1 + (1|g)", DATA).fit().save(tmp_path / "fit.bglmm")

    def change(record: Any) -> None:
        record["posterior"]["estimate"]["factor"]["structure"]["value"][1] = 0

    with pytest.raises(bg.FileError, match="eliminates the random effects in another order"):
        bg.load(changed_model(path, change))


def test_data_that_are_not_those_of_the_fit(fit: bg.Fit, path: Path, tmp_path: Path) -> None:
    bare = fit.save(tmp_path / "bare.bglmm", data=False)
    with pytest.raises(bg.DataError, match=r"saved without its data: give them.*'y', 'x', 'g'"):
        bg.load(bare)
    with pytest.raises(bg.DataError, match="lack the column 'x'; did you mean 'X'"):
        bg.load(bare, data=DATA.rename({"x": "X"}))
    with pytest.raises(bg.DataError, match="data have 7 rows; those of the fit had 8"):
        bg.load(bare, data=DATA.head(7))
    with pytest.raises(bg.DataError, match=r"another order of rows \('y', 'x', 'g'\)"):
        bg.load(bare, data=DATA.reverse())
    other = DATA.with_columns(x=pl.when(pl.col("x") > 5).then(99).otherwise("x"))
    with pytest.raises(bg.DataError, match="column 'x' has other values"):
        bg.load(bare, data=other)
    with pytest.raises(bg.DataError, match=r"'x' differs in 2 of 8 rows \(the first is row 6"):
        bg.load(path, data=other)
    holes = DATA.with_columns(x=pl.when(pl.col("x") > 5).then(None).otherwise("x"))
    with pytest.raises(bg.DataError, match="'x' differs in 2 of 8 rows"):
        bg.load(path, data=holes)
    with pytest.raises(bg.DataError, match="column 'x' holds text, and held numbers"):
        bg.load(bare, data=DATA.with_columns(pl.col("x").cast(pl.String)))
    with pytest.raises(bg.DataError, match="data is int"):
        bg.load(bare, data=3)
    shifted = DATA.with_columns(pl.col("g").shift(1, fill_value="d"))
    with pytest.raises(bg.DataError, match="another order"):
        bg.load(bare, data=shifted)


def test_without_data_there_are_none_in_the_file(tmp_path: Path) -> None:
    data = DATA.with_columns(secret=pl.col("y") * 12345.678901)
    fit = bg.lm("secret ~ x", data, weights="y").fit()
    content = fit.save(tmp_path / "bare.bglmm", data=False).read_bytes()
    assert data["secret"].to_numpy().tobytes() not in content
    assert data["y"].to_numpy().tobytes() not in content
    assert "data.parquet" not in zipfile.ZipFile(tmp_path / "bare.bglmm").namelist()


@dataclass(frozen=True, slots=True)
class Triangle(Prior):
    """A prior that is not the package's."""

    width: float
    support: ClassVar[Any] = "real"


class OwnCoding:
    """A coding that is not the package's."""

    def matrix(self, levels: tuple[str, ...]) -> Any:
        return np.eye(len(levels))[:, 1:]

    def names(self, levels: tuple[str, ...]) -> tuple[str, ...]:
        return levels[1:]


def test_what_only_its_own_code_could_make_again_is_refused(fit: bg.Fit, tmp_path: Path) -> None:
    prior = bg.lm("y ~ x", DATA, priors={"x": Triangle(2.0)}).fit()
    with pytest.raises(
        bg.ChoiceError, match=r"priors\.coefficients\.1 is .*Triangle, which cannot"
    ):
        prior.save(tmp_path / "fit.bglmm")
    coding = bg.lm("y ~ g", DATA, contrasts={"g": OwnCoding()}).fit()
    with pytest.raises(bg.ChoiceError, match=r"design\.codings\.g is .*OwnCoding, which cannot"):
        coding.save(tmp_path / "fit.bglmm")
    family = replace(find_family("gaussian"), name="mine")
    own = bg.Fit(replace(fit.model, family=family), fit.estimator, fit.posterior)
    with pytest.raises(bg.ChoiceError, match="family 'mine' is not one of this package's"):
        own.save(tmp_path / "fit.bglmm")
    design = replace(fit.model.design, X=fit.model.design.X * 2)
    scaled = bg.Fit(replace(fit.model, design=design), fit.estimator, fit.posterior)
    with pytest.raises(bg.FitError, match="formula and data do not give its design again"):
        scaled.save(tmp_path / "fit.bglmm")
    design = replace(fit.model.design, data=DATA.clear())
    empty = bg.Fit(replace(fit.model, design=design), fit.estimator, fit.posterior)
    with pytest.raises(bg.FitError, match="do not give its design again: data has no rows"):
        empty.save(tmp_path / "fit.bglmm")
    assert os.listdir(tmp_path) == []
