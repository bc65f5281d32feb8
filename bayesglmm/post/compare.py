"""Two or more fits of one model side by side: estimates, uncertainties, a table, a picture."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from bayesglmm.errors import ChoiceError
from bayesglmm.post.tables import check_level, params, scale, varcorr
from bayesglmm.posterior.approximated import LaplacePosterior
from bayesglmm.posterior.ml import MLPosterior
from bayesglmm.posterior.sampled import SampledPosterior
from bayesglmm.tables.table import Table, table
from bayesglmm.tables.text import html_note, html_table, text_table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

_NUMBERS = ("estimate", "std_error", "conf_low", "conf_high")


@dataclass(frozen=True, slots=True)
class Comparison:
    """What :func:`compare` returns.

    Attributes
    ----------
    names
        Short name of each fit, the prefix of its columns.
    methods
        How each was got, with its kind of interval.
    table
        ``group, term, kind``, then for each fit ``<name>_estimate, <name>_std_error,
        <name>_conf_low, <name>_conf_high``, and for each fit after the first
        ``<name>_shift``: its estimate minus the first's, in standard errors of the first, and
        ``<name>_sd_ratio``: its standard error over the first's.
    """

    names: tuple[str, ...]
    methods: tuple[str, ...]
    table: Table

    def plot(self) -> Any:
        """Intervals of every parameter side by side; returns a matplotlib Figure."""
        from bayesglmm.plots.compare import plot_comparison

        return plot_comparison(self)

    def _rows(self) -> tuple[list[str], list[list[Any]]]:
        header = ["parameter"]
        for name in self.names:
            header += [name, "SE" if name.startswith(("ML", "REML")) else "sd", "low", "high"]
        for name in self.names[1:]:
            header += [f"{name} shift", "sd ratio"]
        rows = []
        for row in self.table.iter_rows(named=True):
            cells: list[Any] = [label(row)]
            for name in self.names:
                cells += [row[f"{name}_{c}"] for c in _NUMBERS]
            for name in self.names[1:]:
                shift, ratio = row[f"{name}_shift"], row[f"{name}_sd_ratio"]
                cells.append("" if shift is None else f"{round(shift, 2) + 0.0:+.2f}")
                cells.append("" if ratio is None else f"{ratio:.2f}")
            rows.append(cells)
        return header, rows

    def text(self) -> str:
        """The comparison as plain text."""
        return "\n".join([text_table(*self._rows()), f"  {self.table.caption}"])

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        header, rows = self._rows()
        return html_table("Comparison", header, rows) + html_note(self.table.caption)


def label(row: dict[str, Any]) -> str:
    """How a row of the comparison is called, e.g. ``sd Days | Subject``."""
    if row["kind"] == "coefficient":
        return str(row["term"])
    if row["kind"] == "residual":
        return "residual sd"
    return f"{row['kind']} {row['term']} | {row['group']}"


def compare(*fits: Fit, level: float = 0.95) -> Comparison:
    """Put fits of the same model side by side, e.g. ``compare(ml, nuts)``.

    Coefficients are on the link scale; variance components are sds and correlations. For ML
    the numbers are estimate, standard error and Wald interval; for NUTS posterior mean, sd and
    highest-density interval.

    Parameters
    ----------
    fits
        Two or more fits of models with the same coefficients and variance components.
    level
        Probability of the intervals.

    Raises
    ------
    ChoiceError
        For fewer than two fits, something that is no fit, or fits of different models or data.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> m = bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy"))
    >>> bg.compare(m.fit(), m.fit("reml")).table["REML_estimate"].round(2).to_list()
    [251.41, 10.47, 24.74, 5.92, 0.07, 25.59]
    """
    level = check_level(level)
    if len(fits) < 2:
        raise ChoiceError(f"compare needs two fits or more; got {len(fits)}")
    for fit in fits:
        if not hasattr(fit, "posterior"):
            raise ChoiceError(
                f"compare needs fits; got {type(fit).__name__}. Fit it first: compare(model.fit(), "
                'model.fit("nuts"))'
            )
    names = _names(fits)
    frames = [_rows_of(fit, level) for fit in fits]
    keys = ["group", "term", "kind"]
    first = frames[0].select(keys)
    for fit, frame in zip(fits[1:], frames[1:], strict=True):
        if not frame.select(keys).equals(first):
            raise ChoiceError(
                "compare needs fits of the same model: "
                f"{fits[0].model.formula!r} and {fit.model.formula!r} have different parameters; "
                "for different models there are anova (maximum likelihood) and loo_compare"
            )
        _same_data(fits[0], fit)
    columns: dict[str, Any] = first.to_dict()
    for name, frame in zip(names, frames, strict=True):
        columns |= {f"{name}_{c}": frame.get_column(c) for c in _NUMBERS}
    base = frames[0]
    for name, frame in zip(names[1:], frames[1:], strict=True):
        shift = (frame["estimate"] - base["estimate"]) / base["std_error"]
        columns[f"{name}_shift"] = pl.Series(shift).fill_nan(None)
        ratio = frame["std_error"] / base["std_error"]
        columns[f"{name}_sd_ratio"] = pl.Series(ratio).fill_nan(None)
    methods = tuple(f"{fit.posterior.method}, {fit.posterior.interval(level)}" for fit in fits)
    note = "; ".join(f"{name}: {method}" for name, method in zip(names, methods, strict=True))
    note += f". Coefficients: {scale(fits[0])}. "
    note += f"shift: difference from {names[0]} in its standard errors; sd ratio: to {names[0]}'s."
    for i, j in itertools.permutations(range(len(fits)), 2):
        if _stands_for(fits[i], fits[j]) and (i == 0 or _is_laplace(fits[i])):
            note += f" {_distance(names[j], names[i], frames[j], frames[i])}"
    return Comparison(names, methods, table(columns, note))


def _stands_for(fit: Fit, other: Fit) -> bool:
    """Whether the first approximates what the other knows better: ML, Laplace, NUTS."""
    if not isinstance(other.posterior, SampledPosterior):
        return False
    by_ml = isinstance(fit.posterior, MLPosterior)
    return by_ml or (_is_laplace(fit) and not _is_laplace(other))


def _is_laplace(fit: Fit) -> bool:
    return isinstance(fit.posterior, LaplacePosterior)


def _distance(name: str, first: str, posterior: pl.DataFrame, near: pl.DataFrame) -> str:
    """How far a posterior is from an approximation (of maximum likelihood's, a Gaussian)."""
    shift = ((posterior["estimate"] - near["estimate"]) / posterior["std_error"]).to_numpy()
    ratio = (posterior["std_error"] / near["std_error"]).to_numpy()
    if not np.isfinite(shift).any():
        return ""
    at = int(np.nanargmax(np.abs(shift)))
    text = (
        f"{name} from {first}: means differ by at most {abs(shift[at]):.2f} posterior sds "
        f"({label(posterior.row(at, named=True))})"
    )
    known = ratio[np.isfinite(ratio)]
    if len(known):
        text += f", sds are {known.min():.2f} to {known.max():.2f} times as large"
    return text + "."


def _same_data(one: Fit, other: Fit) -> None:
    """Refuse fits whose coefficients mean different things."""
    a, b = one.model, other.model
    if (a.family.name, a.link.name) != (b.family.name, b.link.name):
        raise ChoiceError(
            f"compare needs one family and link; got {a.family.name} ({a.link.name}) and "
            f"{b.family.name} ({b.link.name})"
        )
    if a.design.n != b.design.n or not np.array_equal(a.design.y, b.design.y):
        raise ChoiceError(
            f"compare needs fits of the same data; {a.design.n} and {b.design.n} rows were used, "
            "or their responses differ"
        )


def _names(fits: tuple[Fit, ...]) -> tuple[str, ...]:
    """Method names, numbered where they repeat."""
    plain = [fit.posterior.method.split(" ")[0] for fit in fits]
    return tuple(
        f"{name}_{plain[: k + 1].count(name)}" if plain.count(name) > 1 else name
        for k, name in enumerate(plain)
    )


def _rows_of(fit: Fit, level: float) -> pl.DataFrame:
    """Coefficients, then variance components, one format."""
    text = pl.String
    fixed = params(fit, level=level).select(
        pl.lit(None, dtype=text).alias("group"),
        "term",
        pl.lit("coefficient").alias("kind"),
        *_NUMBERS,
    )
    if not fit.model.design.random and not fit.model.family.has_scale:
        return pl.DataFrame(fixed)
    both = pl.when(pl.col("term2").is_null()).then(pl.col("term"))
    joined = both.otherwise(pl.format("{} x {}", "term", "term2"))
    random = varcorr(fit, level=level).select("group", joined.alias("term"), "kind", *_NUMBERS)
    return pl.concat([fixed, random])
