"""Our side of the comparison: tables of a fit by the catalogue's names of rows and columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from bayesglmm.catalogue.entry import Block, Entry, Means, Predictions
from bayesglmm.catalogue.reader import CatalogueError
from bayesglmm.errors import nearest
from bayesglmm.post.residuals import residuals
from bayesglmm.post.tables import params
from bayesglmm.posterior.ml import MLPosterior

if TYPE_CHECKING:
    from bayesglmm.fit import Fit
    from bayesglmm.post.emmeans import Means as MeansTable
    from bayesglmm.tables.table import Table

Rows = Mapping[str, Mapping[str, Any]]
_QUANTILES = {"min": 0.0, "q1": 0.25, "median": 0.5, "q3": 0.75, "max": 1.0}


def ours(entry: Entry, block: Block, fits: Mapping[str, Fit]) -> Rows:
    """Our values for a block: by row name, then by column name."""
    if block.table == "data":
        return _data(entry, block)
    fit = fits[block.fit]
    kind, _, name = block.table.partition(":")
    if kind == "params":
        return _labelled(fit.params, ["term"])
    if kind == "exponentiated":
        return _labelled(params(fit, exponentiate=True), ["term"])
    if kind in ("ranef", "coef"):
        frame = (fit.ranef if kind == "ranef" else fit.coef).with_columns(
            pl.col("estimate").exp().alias("exp(estimate)")
        )
        return _labelled(frame, ["group", "level", "term"])
    if kind == "varcorr":
        return _components(fit)
    if kind == "statistics":
        row = fit.statistics.row(0, named=True)
        return {column: {"value": value} for column, value in row.items()}
    if kind == "correlations":
        return _correlations(fit)
    if kind == "residuals":
        quantity: Any = name
        values = residuals(fit, quantity)["residual"].drop_nulls().to_numpy()
        return {k: {"value": float(np.quantile(values, q))} for k, q in _QUANTILES.items()}
    if kind == "size":
        return _size(fit)
    if kind == "means":
        asked = next(m for m in entry.means if m.name == name)
        frame = means(fit, asked)
        labels = (
            ["contrast", *asked.by] if asked.contrasts is not None else _variables(asked, frame)
        )
        return _labelled(frame, labels)
    prediction = next(p for p in entry.predictions if p.name == name)
    return _labelled(predictions(fit, prediction), list(prediction.newdata))


def means(fit: Fit, asked: Means) -> MeansTable:
    """The marginal means or contrasts that an entry asks of a fit."""
    ml = isinstance(fit.posterior, MLPosterior)
    contrasts = asked.contrasts
    return fit.emmeans(
        list(asked.specs),
        by=list(asked.by),
        at=dict(asked.at),
        contrasts=contrasts if contrasts is None or isinstance(contrasts, str) else dict(contrasts),
        type=asked.type,
        adjust=asked.adjust if ml else "default",
    )


def predictions(fit: Fit, asked: Predictions) -> Table:
    """The predictions that an entry asks of a fit, beside the rows they are for."""
    from bayesglmm.tables.table import table

    newdata = pl.DataFrame(dict(asked.newdata))
    found = fit.predict(newdata, type=asked.type, re=asked.re)
    return table({**newdata.to_dict(), **found.to_dict()}, found.caption)


def look_up(rows: Rows, row: str, column: str, where: str) -> float | str | None:
    """One value of ours.

    Raises
    ------
    CatalogueError
        If there is no such row or column, with the nearest name.
    """
    if row not in rows:
        raise CatalogueError(
            f"{where}: there is no row {row!r}{nearest(row, rows)}; there are {', '.join(rows)}"
        )
    if column not in rows[row]:
        raise CatalogueError(
            f"{where}: row {row!r} has no column {column!r}{nearest(column, rows[row])}; "
            f"it has {', '.join(rows[row])}"
        )
    value = rows[row][column]
    return value if value is None or isinstance(value, str) else float(value)


def _variables(asked: Means, frame: pl.DataFrame) -> list[str]:
    """The labels of a table of means, in the order in which the entry names them."""
    words = [w for spec in asked.specs for w in spec.replace("|", " ").split()] + list(asked.by)
    return [w for w in words if w in frame.columns]


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).upper()  # as R, and our coefficient names, write it
    return f"{value:g}" if isinstance(value, float) else str(value)


def _labelled(frame: pl.DataFrame, labels: list[str]) -> Rows:
    return {
        " / ".join(_text(row[name]) for name in labels): {
            k: v for k, v in row.items() if k not in labels
        }
        for row in frame.iter_rows(named=True)
    }


def _components(fit: Fit) -> Rows:
    out: dict[str, dict[str, Any]] = {}
    for row in fit.varcorr.iter_rows(named=True):
        if row["kind"] == "residual":
            name = "Residual"
        else:
            pair = f" x {row['term2']}" if row["kind"] == "corr" else ""
            name = f"{row['group']} / {row['term']}{pair}"
        out[name] = {"corr" if row["kind"] == "corr" else "sd": row["estimate"], **row}
    return out


def _correlations(fit: Fit) -> Rows:
    """Correlations of the coefficients, named as R's lower triangle has them: row / column."""
    names, sd = fit.model.design.names, np.sqrt(np.diag(fit.vcov))
    corr = fit.vcov / np.outer(sd, sd)
    return {
        f"{names[i]} / {names[j]}": {"corr": float(corr[i, j])}
        for i in range(len(names))
        for j in range(i)
    }


def _size(fit: Fit) -> Rows:
    design = fit.model.design
    sizes = {
        "rows": design.n,
        "coefficients": design.p,
        "random effects": sum(t.J * t.K for t in design.random),
    }
    sizes |= {f"levels of {t.factor}": t.J for t in design.random}
    return {name: {"value": size} for name, size in sizes.items()}


def _data(entry: Entry, block: Block) -> Rows:
    where = f"{entry.name}: {block.query!r}"
    try:
        numbered = entry.data().with_row_index("row", offset=1)
        frame = pl.SQLContext(data=numbered).execute(block.query, eager=True)
    except pl.exceptions.PolarsError as error:
        raise CatalogueError(f"{where}: {error}") from error
    # The first column names the rows; text columns stay text (an Enum is a word to a reader).
    words = [c for c, t in frame.schema.items() if t in (pl.Enum, pl.Categorical)]
    return _labelled(frame.with_columns(pl.col(words).cast(pl.String)), [frame.columns[0]])
