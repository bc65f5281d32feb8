"""A file to a fit."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from bayesglmm.design import Design
from bayesglmm.design.columns import read as read_table
from bayesglmm.design.recipe import Recipe
from bayesglmm.errors import DataError, FileError
from bayesglmm.families import find_family, find_link
from bayesglmm.model import Model
from bayesglmm.nuts import Sampled
from bayesglmm.storage.container import read
from bayesglmm.storage.draws import observed
from bayesglmm.storage.fingerprint import check_data
from bayesglmm.storage.records import Parts, decode
from bayesglmm.storage.save import DATA, MODEL, shape_of

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

__all__ = ["load"]

# Relative difference of a column's mean that counts as another column; rounding is far below.
_TOLERANCE = 1e-6


def load(path: str | os.PathLike[str], data: object = None) -> Fit:
    """Read a fit that was saved with :meth:`Fit.save`.

    Nothing is fitted again: estimates and draws are those of the file to the last bit. The
    design is made anew from formula and data, with the levels, codings and order of rows of the
    fit, and must agree with the one saved.

    Parameters
    ----------
    path
        The file.
    data
        The data of the fit: needed if they are not in the file, else used instead of those (other
        columns may be among them). All rows, or only those the fit used, in the order they had.
        Any frame as for :func:`bayesglmm.model`. None takes the data in the file.

    Returns
    -------
    Fit
        Everything works as on the fit that was saved.

    Raises
    ------
    FileError
        If the file is not a saved fit, is damaged, or belongs to a later version.
    DataError
        If the data are not those of the fit, or are needed and not given.

    Examples
    --------
    >>> import tempfile, bayesglmm as bg
    >>> sleep = bg.load_dataset("sleepstudy")
    >>> fit = bg.lmer("Reaction ~ Days + (Days|Subject)", sleep).fit("reml")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = fit.save(f"{folder}/sleep.bglmm", data=False)
    ...     again = bg.load(path, data=sleep)
    >>> again.predict({"Days": [3], "Subject": ["308"]})["estimate"].round(3).to_list()
    [312.662]
    """
    from bayesglmm.fit import Fit

    contents, versions = read(path)
    shown = repr(os.fspath(path))
    parts = Parts(contents)
    with _understanding(shown, versions):
        record = json.loads(contents[MODEL])
        recipe: Recipe = decode(record["model"]["design"], parts)
        stored = pl.read_parquet(io.BytesIO(contents[DATA])) if DATA in contents else None
    design = recipe.design(_frame(record["data"], recipe, stored, data, shown))
    with _understanding(shown, versions):
        _check_shape(record["model"]["shape"], design, versions)
        family = find_family(record["model"]["family"])
        link = find_link(family, record["model"]["link"])
        model = Model(design, family, link, decode(record["model"]["priors"], parts))
        estimator = decode(record["estimator"], parts)
        posterior = decode(record["posterior"], parts, model)
        run = getattr(posterior, "run", None)
        if not record["data"]["stored"] and isinstance(run, Sampled):
            posterior = replace(posterior, run=replace(run, tree=observed(run.tree, model)))
    return Fit(model, estimator, posterior)


@contextlib.contextmanager
def _understanding(shown: str, versions: Mapping[str, str]) -> Iterator[None]:
    """Say of which file it is, and who wrote it, that something in it makes no sense."""
    try:
        yield
    except FileError as problem:
        raise FileError(f"{shown}: {problem}") from None
    except Exception as problem:
        raise FileError(
            f"{shown} cannot be understood ({type(problem).__name__}: {problem}); bayesglmm "
            f"{versions.get('bayesglmm', '?')} saved it"
        ) from problem


def _frame(
    record: Mapping[str, Any], recipe: Recipe, stored: pl.DataFrame | None, data: object, shown: str
) -> pl.DataFrame:
    """The kept rows, out of the file or out of the data given."""
    if data is None:
        if stored is None:
            raise DataError(
                f"{shown} was saved without its data: give them, load(path, data=frame). The fit "
                f"used the columns {', '.join(map(repr, record['columns']))} of "
                f"{recipe.n_rows} rows"
            )
        return stored
    frame = read_table(data).frame
    n, n_rows = record["rows"], recipe.n_rows
    if frame.height == n_rows:
        frame = recipe.kept(frame)
    elif frame.height != n:
        used = f", {n_rows - n} of them left out" if n < n_rows else ""
        raise DataError(f"data have {frame.height} rows; those of the fit had {n_rows}{used}")
    saved = {
        name: {k: v for k, v in at.items() if k != "type"} for name, at in record["columns"].items()
    }
    check_data(frame, saved, stored)
    return frame


def _check_shape(saved: Mapping[str, Any], design: Design, versions: Mapping[str, str]) -> None:
    """Refuse a design whose columns are not those the estimates belong to."""
    made = shape_of(design)
    differing = [name for name in made if name != "sizes" and made[name] != saved.get(name)]
    if not differing:
        before, after = np.array(saved["sizes"]), np.array(made["sizes"])
        moved = np.abs(after - before) > _TOLERANCE * before[:, 1:]
        if not moved.any():
            return
        differing = ["values of the columns"]
    raise FileError(
        f"formula and data give another design than the one saved ({', '.join(differing)} differ), "
        f"which bayesglmm {versions.get('bayesglmm', '?')} made with formulaic "
        f"{versions.get('formulaic', '?')}. Load it with those versions, or fit again"
    )
