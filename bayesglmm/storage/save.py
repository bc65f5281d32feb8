"""A fit to a file."""

from __future__ import annotations

import datetime
import io
import json
import os
import platform
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bayesglmm.design import Design
from bayesglmm.design.recipe import recipe_of
from bayesglmm.errors import ChoiceError, FileError
from bayesglmm.families.links import LINKS
from bayesglmm.families.registry import FAMILIES
from bayesglmm.nuts import Sampled
from bayesglmm.post.check import check_fit
from bayesglmm.storage.container import write
from bayesglmm.storage.draws import without_data
from bayesglmm.storage.fingerprint import combined, fingerprints
from bayesglmm.storage.records import Parts, encode

if TYPE_CHECKING:
    from bayesglmm.fit import Fit
    from bayesglmm.model import Model

__all__ = ["DATA", "MODEL", "save", "shape_of"]

MODEL, DATA = "model.json", "data.parquet"
_SOFTWARE = ("formulaic", "numpy", "polars", "scipy", "pymc", "nutpie")


def save(
    fit: Fit, path: str | os.PathLike[str], *, data: bool = True, overwrite: bool = False
) -> Path:
    """Save a fit to one file, which :func:`bayesglmm.load` reads.

    The file is a zip archive of plain formats: JSON for the model (formula, family, link,
    levels, codings, priors, options, versions, hashes of the data), Parquet for the data, NumPy
    arrays for estimates and Zarr for draws. There is no pickle in it. It is written under
    another name and renamed when complete, so that ``path`` never holds half a fit.

    Parameters
    ----------
    path
        Name of the file, taken as it is; ``.bglmm`` is customary.
    data
        Whether the rows used, of the columns used, go into the file. Without them ``load``
        needs the data; the file still holds the names of levels, the fitted values of an ML
        fit, and weights, offset or trials that were given as arrays.
    overwrite
        Whether to replace a file that is there.

    Returns
    -------
    pathlib.Path
        Where the file is.

    Raises
    ------
    FileError
        If the file exists, or cannot be written. An existing file is then as it was.
    ChoiceError
        If the model has a family, prior or coding that is not one of this package's.
    FitError
        If formula and data no longer give the design of the fit.

    Examples
    --------
    >>> import tempfile, bayesglmm as bg
    >>> fit = bg.lmer("Reaction ~ Days + (1|Subject)", bg.load_dataset("sleepstudy")).fit()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = fit.save(f"{folder}/sleep.bglmm")
    ...     again = bg.load(path)
    >>> again.loglik == fit.loglik
    True
    """
    check_fit(fit, "save")
    model, design = fit.model, fit.model.design
    _check_by_name(model)
    recipe = recipe_of(design)
    frame = design.data.select(design.columns_used)
    columns = fingerprints(frame)
    parts = Parts()
    record: dict[str, Any] = {
        "saved": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": {
            "family": model.family.name,
            "link": model.link.name,
            "design": encode(recipe, "design", parts),
            "priors": encode(model.priors, "priors", parts),
            "shape": shape_of(design),
        },
        "data": {
            "stored": bool(data),
            "rows": design.n,
            "sha256": combined(columns),
            "columns": {
                n: {"type": str(frame.schema[n].base_type()), **at} for n, at in columns.items()
            },
        },
        "method": fit.method,
        "estimator": encode(fit.estimator, "estimator", parts),
        "posterior": encode(_shareable(fit.posterior, bool(data)), "posterior", parts),
    }
    described = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False).encode()
    contents = {MODEL: described, **({DATA: _parquet(frame)} if data else {}), **parts.contents}
    return write(path, contents, _versions(), overwrite)


def shape_of(design: Design) -> dict[str, Any]:
    """What a design made again must agree with.

    ``sizes`` are mean and root mean square of every column of X and of the random terms.
    """
    columns = [design.X, *(term.Z for term in design.random)]
    return {
        "coefficients": list(design.all_names),
        "estimated": list(design.names),
        "terms": [
            {"name": term.name, "columns": list(term.columns), "levels": term.J}
            for term in design.random
        ],
        "sizes": [size for X in columns for size in _sizes(X)],
    }


def _sizes(X: NDArray[np.float64]) -> list[list[float]]:
    squares = np.sqrt(np.einsum("ij,ij->j", X, X) / len(X))
    return [[float(m), float(s)] for m, s in zip(X.mean(axis=0), squares, strict=True)]


def _check_by_name(model: Model) -> None:
    """Refuse a family or link that a file could not name."""
    family, link = model.family.name, model.link.name
    own = (
        ("family", family, FAMILIES.get(family) is model.family, tuple(FAMILIES)),
        ("link", link, LINKS.get(link) is model.link, tuple(LINKS)),
    )
    for what, name, known, allowed in own:
        if not known:
            raise ChoiceError(
                f"the model's {what} {name!r} is not one of this package's "
                f"({', '.join(map(repr, allowed))}), and functions cannot be saved; keep the code "
                "and fit again instead"
            )


def _shareable(posterior: Any, data: bool) -> Any:
    """The posterior, without the response where the data are to stay out of the file."""
    run = getattr(posterior, "run", None)
    if data or not isinstance(run, Sampled):
        return posterior
    return replace(posterior, run=replace(run, tree=without_data(run.tree)))


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    try:
        frame.write_parquet(buffer)
    except Exception as problem:  # a column type that Parquet cannot hold
        raise FileError(
            f"the data cannot be saved: {problem}; save(path, data=False) leaves them out"
        ) from None
    return buffer.getvalue()


def _versions() -> dict[str, str]:
    from bayesglmm import __version__

    found = {"bayesglmm": __version__, "python": platform.python_version()}
    for name in _SOFTWARE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
