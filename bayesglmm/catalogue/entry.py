"""A catalogue entry: one worked model with its published figures, read from TOML and checked.

The format is described for people in ``models/README.md``.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import polars as pl

from bayesglmm import priors as prior_records
from bayesglmm.api import model
from bayesglmm.catalogue.figure import Figure
from bayesglmm.catalogue.reader import CatalogueError, Reader
from bayesglmm.datasets import load_dataset
from bayesglmm.errors import BayesglmmError, nearest
from bayesglmm.model import Estimator, Model, estimator
from bayesglmm.priors import Prior

__all__ = ["Block", "CatalogueError", "Entry", "Means", "Predictions", "read_entry"]

Scale = Literal["response", "link"]
# Tables whose rows need no further name; the others are "means:NAME", "predictions:NAME".
TABLES = (
    "params",
    "exponentiated",
    "varcorr",
    "ranef",
    "coef",
    "statistics",
    "correlations",
    "residuals:pearson",
    "residuals:deviance",
    "size",
    "data",
)


@dataclass(frozen=True, slots=True)
class Means:
    """A call of ``emmeans`` that the document makes.

    ``adjust`` applies to fits by maximum likelihood; draws take none.
    """

    name: str
    fits: tuple[str, ...]
    specs: tuple[str, ...]
    by: tuple[str, ...]
    at: Mapping[str, Any]
    contrasts: str | Mapping[str, tuple[float, ...]] | None
    type: Scale
    adjust: str


@dataclass(frozen=True, slots=True)
class Predictions:
    """A call of ``predict`` that the document makes, with rows labelled by their values."""

    name: str
    fits: tuple[str, ...]
    newdata: Mapping[str, tuple[Any, ...]]
    type: Scale
    re: Literal["fitted", "zero"]


@dataclass(frozen=True, slots=True)
class Block:
    """Figures that one source prints in one table.

    Attributes
    ----------
    source
        Where they are printed.
    fit
        Which fit they belong to; empty for figures of the data.
    table
        What of the fit they are, e.g. ``"params"`` or ``"means:probability"``.
    query
        SQL that gives the table, for figures of the data.
    columns
        Names of the columns.
    rows
        By row name, one figure per column; None where the source prints nothing.
    judged
        False for figures that mean nothing by themselves (variances that are not identified):
        shown, not judged.
    reason
        Why they are not judged, or why the tolerances of the block are what they are.
    """

    source: str
    fit: str
    table: str
    query: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[Figure | None, ...]]
    judged: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A worked model of the catalogue.

    Attributes
    ----------
    name
        Name of the file, without ``.toml``.
    title, why, source
        What it is, why it is instructive, and the document it reproduces.
    formula, family, link, weights, offset, trials, factors, contrasts, priors
        As :func:`bayesglmm.model` takes them.
    dataset, rename, derive
        The bundled table, new name by old name, and SQL expression by new column.
    fits
        The estimators by name, in order.
    means, predictions
        What the document computes from the fits.
    published
        The figures.
    """

    name: str
    title: str
    why: str
    source: str
    formula: str
    family: str
    link: str
    weights: str
    offset: str
    trials: str
    factors: tuple[str, ...]
    contrasts: Mapping[str, str]
    priors: str | Mapping[str, Prior]
    dataset: str
    rename: Mapping[str, str]
    derive: Mapping[str, str]
    fits: Mapping[str, Estimator]
    means: tuple[Means, ...]
    predictions: tuple[Predictions, ...]
    published: tuple[Block, ...]

    def data(self) -> pl.DataFrame:
        """The table, with columns renamed and derived."""
        frame = load_dataset(self.dataset).rename(dict(self.rename))
        return frame.with_columns(
            pl.sql_expr(text).alias(column) for column, text in self.derive.items()
        )

    def model(self) -> Model:
        """The model, ready to be fitted."""
        return model(
            self.formula,
            self.data(),
            family=self.family,
            link=self.link,
            weights=self.weights,
            offset=self.offset,
            trials=self.trials,
            contrasts=dict(self.contrasts),
            factors=self.factors,
            priors=self.priors,
        )


def read_entry(path: str | Path) -> Entry:
    """Read and check a catalogue entry.

    Parameters
    ----------
    path
        A TOML file.

    Raises
    ------
    CatalogueError
        If the file is not TOML, or a key is missing, unknown or of the wrong kind; the message
        names the file and the key.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatalogueError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path.name}: not valid TOML: {error}") from error
    top = Reader(table, path.name)
    data = top.inner("data")
    fits = _fits(top)
    means = tuple(_means(r, fits) for r in top.tables("means"))
    predictions = tuple(_prediction(r, fits) for r in top.tables("predictions"))
    entry = Entry(
        name=path.stem,
        title=top.prose("title"),
        why=top.prose("why"),
        source=top.prose("source"),
        formula=top.text("formula"),
        family=top.text("family", "gaussian"),
        link=top.text("link", "default"),
        weights=top.text("weights", ""),
        offset=top.text("offset", ""),
        trials=top.text("trials", ""),
        factors=top.texts("factors", ()),
        contrasts=MappingProxyType(top.text_table("contrasts")),
        priors=_priors(top),
        dataset=data.text("dataset"),
        rename=MappingProxyType(data.text_table("rename")),
        derive=MappingProxyType(data.text_table("derive")),
        fits=MappingProxyType(fits),
        means=means,
        predictions=predictions,
        published=tuple(_block(r, fits, means, predictions) for r in top.tables("published")),
    )
    data.finish()
    top.finish()
    return entry


def _fits(top: Reader) -> dict[str, Estimator]:
    found = top.table("fits", required=True)
    if not found:
        raise top.fail("fits is empty; give at least [fits.ml] with method = 'ml'")
    out: dict[str, Estimator] = {}
    for name, table in found.items():
        where = f"{top.where}: fits.{name}"
        if not isinstance(table, dict):
            raise CatalogueError(f"{where}: give a table, headed [fits.{name}]")
        reader = Reader(table, where)
        method = reader.text("method")
        options = {k: v for k, v in table.items() if k != "method"}
        try:
            out[name] = estimator(method, options)
        except BayesglmmError as error:
            raise CatalogueError(f"{where}: {error}") from error
    return out


def _priors(top: Reader) -> str | Mapping[str, Prior]:
    given = top.anything("priors", "default")
    if isinstance(given, str):
        return given
    if not isinstance(given, dict):
        raise top.fail("priors: give 'flat', 'default', or a table [priors]")
    return MappingProxyType(
        {name: _prior(text, f"{top.where}: priors.{name}") for name, text in given.items()}
    )


def _prior(text: object, where: str) -> Prior:
    """``"Normal(0, 5)"`` as the record; arguments are literals, nothing is evaluated."""
    found = re.fullmatch(r"(\w+)\((.*)\)", text) if isinstance(text, str) else None
    if found is None:
        raise CatalogueError(f"{where} = {text!r}: write it as 'Normal(0, 5)'")
    known = [n for n in prior_records.__all__ if n not in ("Prior", "Priors", "choose_priors")]
    if found[1] not in known:
        raise CatalogueError(
            f"{where}: the prior {found[1]!r} is not known{nearest(found[1], known)}; "
            f"there are {', '.join(known)}"
        )
    record: Callable[..., Prior] = getattr(prior_records, found[1])
    try:
        arguments = ast.literal_eval(f"({found[2]},)") if found[2].strip() else ()
        return record(*arguments)
    except (ValueError, SyntaxError, TypeError, BayesglmmError) as error:
        raise CatalogueError(f"{where} = {text!r}: {error}") from error


def _chosen_fits(reader: Reader, fits: Mapping[str, Estimator]) -> tuple[str, ...]:
    chosen = reader.texts("fits", tuple(fits))
    for name in chosen:
        if name not in fits:
            raise reader.fail(
                f"fits names {name!r}{nearest(name, fits)}; there are {', '.join(fits)}"
            )
    return chosen


def _means(reader: Reader, fits: Mapping[str, Estimator]) -> Means:
    contrasts = reader.anything("contrasts", None)
    if isinstance(contrasts, dict):
        for label, weights in contrasts.items():
            if not (isinstance(weights, list) and all(isinstance(w, int | float) for w in weights)):
                raise reader.fail(f"contrasts.{label} = {weights!r}: give a list of weights")
        contrasts = MappingProxyType(
            {k: tuple(float(w) for w in weights) for k, weights in contrasts.items()}
        )
    elif contrasts is not None and not isinstance(contrasts, str):
        raise reader.fail(f"contrasts = {contrasts!r}: give 'pairwise' or a table of weights")
    scale: Any = reader.choice("type", ("response", "link"), "response")
    out = Means(
        name=reader.text("name"),
        fits=_chosen_fits(reader, fits),
        specs=reader.texts("specs"),
        by=reader.texts("by", ()),
        at=MappingProxyType(reader.table("at")),
        contrasts=contrasts,
        type=scale,
        adjust=reader.text("adjust", "default"),
    )
    reader.finish()
    return out


def _prediction(reader: Reader, fits: Mapping[str, Estimator]) -> Predictions:
    newdata = reader.table("newdata", required=True)
    sizes = {len(v) if isinstance(v, list) else -1 for v in newdata.values()}
    if len(sizes) != 1 or -1 in sizes:
        raise reader.fail("newdata: give for each column a list, all of one length")
    scale: Any = reader.choice("type", ("response", "link"), "response")
    effects: Any = reader.choice("re", ("fitted", "zero"), "zero")
    out = Predictions(
        name=reader.text("name"),
        fits=_chosen_fits(reader, fits),
        newdata=MappingProxyType({k: tuple(v) for k, v in newdata.items()}),
        type=scale,
        re=effects,
    )
    reader.finish()
    return out


def _block(
    reader: Reader,
    fits: Mapping[str, Estimator],
    means: tuple[Means, ...],
    predictions: tuple[Predictions, ...],
) -> Block:
    named = {f"means:{m.name}": m.fits for m in means}
    named |= {f"predictions:{p.name}": p.fits for p in predictions}
    table = reader.choice("table", (*TABLES, *named))
    if table == "data":
        fit, query = "", reader.text("query")
    else:
        fit, query = reader.choice("fit", named.get(table, tuple(fits))), ""
    columns = reader.texts("columns")
    source, reason = reader.prose("source"), reader.prose("reason", "")
    judged = reader.flag("identified", True)
    tolerances = reader.table("tolerance")
    for column, size in tolerances.items():
        if column not in columns:
            raise reader.fail(f"tolerance.{column}{nearest(column, columns)}: no such column")
        if isinstance(size, bool) or not isinstance(size, int | float) or not size > 0:
            raise reader.fail(f"tolerance.{column} = {size!r}: give a positive number")
    if tolerances and not reason:
        raise reader.fail("tolerance needs a reason: why should the printed digits not hold?")
    if not judged and not reason:
        raise reader.fail("identified = false needs a reason")
    rows: dict[str, tuple[Figure | None, ...]] = {}
    for label, cells in reader.table("rows", required=True).items():
        where = f"{reader.where}: rows.{label}"
        if not isinstance(cells, list) or len(cells) != len(columns):
            raise CatalogueError(
                f"{where}: give {len(columns)} figure(s), one for each of {', '.join(columns)}"
            )
        rows[label] = tuple(
            _figure(cell, float(tolerances.get(column, -1.0)), reason, f"{where} ({column})")
            for column, cell in zip(columns, cells, strict=True)
        )
    reader.finish()
    return Block(source, fit, table, query, columns, MappingProxyType(rows), judged, reason)


def _figure(cell: object, tolerance: float, reason: str, where: str) -> Figure | None:
    """A string, "" for nothing printed, or a table with its own tolerance.

    The reason of the block serves where the figure gives none.
    """
    if isinstance(cell, dict):
        own = Reader(cell, where)
        printed, why = own.text("printed"), own.prose("reason", reason)
        if not why:
            raise CatalogueError(f"{where}: a tolerance needs a reason, here or in the block")
        size = own.anything("tolerance", None)
        if isinstance(size, bool) or not isinstance(size, int | float) or not size > 0:
            raise CatalogueError(f"{where}: tolerance = {size!r}: give a positive number")
        own.finish()
        return Figure(printed, float(size), why)
    if not isinstance(cell, str):
        raise CatalogueError(
            f"{where} = {cell!r}: give figures as text, as printed: the tolerance follows from "
            "the digits"
        )
    if not cell:
        return None
    return Figure(cell, tolerance, reason if tolerance >= 0 else "")
