"""Ours beside what others published, and whether they agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import polars as pl

from bayesglmm.approximate import LaplaceDiagnostics
from bayesglmm.catalogue.entry import Entry
from bayesglmm.catalogue.ours import look_up, ours
from bayesglmm.posterior.ml import MLPosterior
from bayesglmm.posterior.sampled import SampledPosterior

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

_MAX_R_HAT = 1.01  # Vehtari et al. 2021, doi:10.1214/20-BA1221
_MAX_SHIFT = 3.0  # a coarse guard against sampling another model, not a test of equality

Kind = Literal["figure", "diagnostic", "sanity"]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the verdict.

    Attributes
    ----------
    kind
        "figure": something published. "diagnostic": what the sampler says of itself.
        "sanity": posterior means near the ML estimates.
    fit, table, row, column
        What it is.
    ours, published
        As text, ours to two digits more.
    tolerance
        Largest deviation that agrees; 0 for an inequality or a word.
    deviation
        In units of the tolerance.
    judged
        Whether it counts.
    source, reason
        Where the figure is printed; why the tolerance is what it is, if it was given.
    """

    kind: Kind
    fit: str
    table: str
    row: str
    column: str
    ours: str
    published: str
    tolerance: float
    deviation: float
    judged: bool
    source: str
    reason: str

    @property
    def ok(self) -> bool:
        """Whether it agrees (or is not judged)."""
        return not self.judged or self.deviation <= 1.0


def figure_checks(entry: Entry, fits: Mapping[str, Fit]) -> tuple[Check, ...]:
    """Every published figure of the fits that were made, and of the data.

    Raises
    ------
    CatalogueError
        If a figure names a row or a column that we do not have.
    """
    out = []
    for block in entry.published:
        if block.fit and block.fit not in fits:
            continue
        rows = ours(entry, block, fits)
        where = f"{entry.name}: {block.table}"
        for row, figures in block.rows.items():
            for column, figure in zip(block.columns, figures, strict=True):
                if figure is None:
                    continue
                value = look_up(rows, row, column, where)
                out.append(
                    Check(
                        kind="figure",
                        fit=block.fit,
                        table=block.table,
                        row=row,
                        column=column,
                        ours=figure.beside(value),
                        published=figure.printed,
                        tolerance=figure.allowed,
                        deviation=figure.deviation(value),
                        judged=block.judged,
                        source=block.source,
                        reason=figure.reason or ("" if block.judged else block.reason),
                    )
                )
    return tuple(out)


def sampling_checks(fits: Mapping[str, Fit]) -> tuple[Check, ...]:
    """Diagnostics of every fit by NUTS, and its coefficients beside those of the ML fit."""
    out: list[Check] = []
    ml = next((f for f in fits.values() if isinstance(f.posterior, MLPosterior)), None)
    for name, fit in fits.items():
        if not isinstance(fit.posterior, SampledPosterior):
            continue
        found = fit.diagnostics
        if isinstance(found, LaplaceDiagnostics):
            continue
        r_hat, parameter = found.r_hat
        out.append(
            _bound(
                name,
                "divergent transitions",
                "",
                str(found.divergences),
                "0",
                found.divergences == 0,
            )
        )
        out.append(
            _bound(
                name,
                "largest R-hat",
                parameter,
                f"{r_hat:.4f}",
                f"<{_MAX_R_HAT}",
                r_hat < _MAX_R_HAT,
            )
        )
        if ml is not None:
            out += _near(name, fit, ml)
    return tuple(out)


def _bound(fit: str, row: str, column: str, ours: str, bound: str, met: bool) -> Check:
    deviation = 0.0 if met else float("inf")
    return Check(
        "diagnostic", fit, "sampler", row, column, ours, bound, 0.0, deviation, True,
        "diagnostics of the sampler", "",
    )  # fmt: skip


def _near(name: str, fit: Fit, ml: Fit) -> list[Check]:
    source = f"{ml.method} fit: a sanity check, not a published figure"
    both = fit.params.select("term", "estimate", "std_error").join(
        ml.params.select("term", pl.col("estimate").alias("ml")), on="term", maintain_order="left"
    )
    out = []
    for row in both.drop_nulls("estimate").iter_rows(named=True):
        allowed = _MAX_SHIFT * row["std_error"]
        out.append(
            Check(
                kind="sanity",
                fit=name,
                table="posterior mean",
                row=row["term"],
                column="estimate",
                ours=f"{row['estimate']:.4f}",
                published=f"{row['ml']:.4f}",
                tolerance=allowed,
                deviation=abs(row["estimate"] - row["ml"]) / allowed,
                judged=True,
                source=source,
                reason=f"{_MAX_SHIFT:g} posterior sds",
            )
        )
    return out
