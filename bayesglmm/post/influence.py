"""What a fit owes to each group, or to each row: refits without it."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bayesglmm.design import Design
from bayesglmm.design.subset import subset
from bayesglmm.errors import BayesglmmError, ChoiceError
from bayesglmm.families import Family, Likelihood, find_link
from bayesglmm.laplace import ML, maximum_likelihood
from bayesglmm.model import check_response
from bayesglmm.post.check import check_executor, check_fit
from bayesglmm.post.groups import levels_of
from bayesglmm.post.refits import refits
from bayesglmm.post.tables import scale, varcorr
from bayesglmm.posterior.ml import MLPosterior
from bayesglmm.tables.table import Table, table
from bayesglmm.tables.text import html_note, html_table, text_table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

Array = NDArray[np.float64]
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Influence:
    """What :func:`influence` returns. D below is the fit without a level (or row).

    Attributes
    ----------
    group
        The factor whose levels were left out one at a time; ``"row"`` for single rows.
    table
        A row for each refit: ``level`` (or ``row``: its position in the data), ``n_rows`` left
        out, ``cooks_distance`` d'V^-1 d / p with d the change of the coefficients and V their
        covariance in the whole fit, ``covratio`` det V(D) / det V, ``max_dfbetas`` with its
        ``term``, and a ``note`` where something needs attention. Numbers are null where there
        was nothing to fit.
    coefficients
        ``level|row, term, estimate`` in D, ``dfbeta`` (whole fit minus D) and ``dfbetas`` (in
        standard errors of D); link scale.
    components
        ``level|row, group, term, term2, kind, estimate`` in D, and ``change``, whole fit minus
        D: sds and correlations as in :func:`varcorr`.
    failed
        Number of refits that could not be done, or did not converge.
    """

    group: str
    table: Table
    coefficients: Table
    components: Table
    failed: int

    def _rows(self) -> tuple[list[str], list[list[Any]]]:
        shown = self.table.sort("cooks_distance", descending=True, nulls_last=True).head(_SHOWN)
        header = [self.table.columns[0], "rows", "Cook's D", "covratio", "max dfbetas", "term"]
        columns = shown.drop("note").with_columns(pl.nth(0).cast(pl.String))
        notes = shown["note"].fill_null("").to_list()
        return [*header, "note"], [
            [*row[:-1], row[-1] or "", note]
            for row, note in zip(columns.iter_rows(), notes, strict=True)
        ]

    def plot(self) -> Any:
        """Cook's distances and dfbetas of every level; returns a matplotlib Figure."""
        from bayesglmm.plots.influence import plot_influence

        return plot_influence(self)

    def text(self) -> str:
        """The most influential levels as plain text."""
        return "\n".join([text_table(*self._rows()), f"  {self._caption()}"])

    def _caption(self) -> str:
        hidden = self.table.height - _SHOWN
        return self.table.caption + (f" · the first {_SHOWN} by Cook's D" if hidden > 0 else "")

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return html_table("Influence", *self._rows()) + html_note(self._caption())


@dataclass(frozen=True, slots=True)
class Refit:
    """Numbers of a fit to some of the rows; NaN where there is none."""

    beta: Array
    vcov: Array
    components: Array
    done: bool
    note: str


def influence(fit: Fit, group: str | None = None, *, executor: Executor | None = None) -> Influence:
    """How much the fit changes when a group, or a row, is left out.

    Every number comes from a complete refit without the rows of one level, by the same method;
    nothing is approximated. The columns of X stay those of the whole data (bases, centres).

    Parameters
    ----------
    group
        A grouping factor of the model or a column of the data, whose levels are left out one at
        a time; None leaves out single rows, as many refits as there are rows.
    executor
        Of ``concurrent.futures``, to refit in parallel; None refits one after the other.

    Returns
    -------
    Influence
        With a table of Cook's distances, one of the changes of coefficients, and one of those
        of the variance components. Print it.

    Raises
    ------
    ChoiceError
        For an unknown group, or a fit by NUTS.
    DataError
        For a column with missing values, or with one level.

    References
    ----------
    Belsley, Kuh and Welsch 1980, doi:10.1002/0471725153; for groups Nieuwenhuis, te Grotenhuis
    and Pelzer 2012, doi:10.32614/RJ-2012-011. dfbeta has the sign of R's ``dfbeta`` for ``lm``
    and of influence.ME; lme4's is the opposite. lme4 multiplies Cook's distance by
    (g - p) / g for g groups.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> fit = bg.lmer("Reaction ~ Days + (1|Subject)", bg.load_dataset("sleepstudy")).fit("reml")
    >>> found = bg.influence(fit, "Subject").table
    >>> found.sort("cooks_distance")["level"][-1]
    '335'
    """
    check_fit(fit, "influence")
    check_executor(executor)
    if not isinstance(fit.posterior, MLPosterior):
        raise ChoiceError(
            f"influence belongs to a maximum-likelihood fit; this one is {fit.method}. Use "
            "influence(model.fit(), ...)."
        )
    assert isinstance(fit.estimator, ML)
    design, model = fit.model.design, fit.model
    levels, index = levels_of(design, group)
    label, key = ("row", "row") if group is None else (group, "level")
    work = partial(
        refit_without,
        design,
        model.family,
        model.link.name,
        replace(fit.estimator, df="asymptotic"),
        index,
    )
    found = refits(work, range(len(levels)), executor, f"refits without {label}")
    beta = np.array([r.beta for r in found])
    dfbeta = fit.posterior.estimate.beta - beta
    dfbetas = dfbeta / np.sqrt(np.array([np.diag(r.vcov) for r in found]))
    failed = sum(not r.done for r in found)
    counted = f"{failed} of {len(found)} not possible or not converged" if failed else "all done"
    method = f"refits without one {label if group is None else f'level of {label}'} each"
    n_rows = np.bincount(index, minlength=len(levels))
    coefficients = {
        "term": list(design.names) * len(levels),
        "estimate": beta.ravel(),
        "dfbeta": dfbeta.ravel(),
        "dfbetas": dfbetas.ravel(),
    }
    components = _components(fit, found)
    return Influence(
        label,
        _nulls(
            {key: levels, "n_rows": n_rows, **_summary(fit, design.names, found, dfbeta, dfbetas)},
            f"Influence: {len(found)} {method}, {counted} · {fit.method}",
        ),
        _nulls(
            {key: _repeated(levels, design.p), **coefficients},
            f"Coefficients in {method}, {scale(fit)} · {fit.method}",
        ),
        _nulls(
            {key: _repeated(levels, len(components["kind"]) // len(levels)), **components},
            f"Variance components in {method} · {fit.method}",
        ),
        failed,
    )


def refit_without(
    design: Design, family: Family, link: str, options: ML, index: NDArray[np.intp], level: int
) -> Refit:
    """Fit the rows whose level is another; the arguments travel between processes."""
    p = design.p
    nothing = Refit(np.full(p, np.nan), np.full((p, p), np.nan), np.zeros(0), False, "")
    try:
        part = subset(design, index != level)
        check_response(part, family)
        likelihood = Likelihood(family, find_link(family, link), part.y, part.weights * part.trials)
        at = maximum_likelihood(part, likelihood, options)
    except (BayesglmmError, np.linalg.LinAlgError) as error:
        return replace(nothing, note=str(error).split("; ")[0])
    notes = [text.split(": ")[0].split(". ")[0] for text in at.outcome.notes]
    return Refit(at.beta, at.vcov, at.component_values, at.outcome.converged, "; ".join(notes))


def _repeated(levels: list[Any], times: int) -> list[Any]:
    return [level for level in levels for _ in range(times)]


def _summary(
    fit: Fit, names: tuple[str, ...], found: list[Refit], dfbeta: Array, dfbetas: Array
) -> dict[str, Any]:
    vcov = fit.vcov
    cooks = np.einsum("gp,pq,gq->g", dfbeta, _inverse(vcov), dfbeta) / max(len(names), 1)
    covratio = np.exp(np.array([_logdet(r.vcov) for r in found]) - _logdet(vcov))
    largest, where = np.full(len(found), np.nan), [None] * len(found)
    if names:
        column = np.argmax(np.nan_to_num(np.abs(dfbetas), nan=-1.0), axis=1)
        largest = dfbetas[np.arange(len(found)), column]
        where = [names[j] if np.isfinite(v) else None for j, v in zip(column, largest, strict=True)]
    return {
        "cooks_distance": cooks,
        "covratio": covratio,
        "max_dfbetas": largest,
        "term": pl.Series(where, dtype=pl.String),
        "note": pl.Series([r.note or None for r in found], dtype=pl.String),
    }


def _components(fit: Fit, found: list[Refit]) -> dict[str, Any]:
    """A row for each sd and correlation in each refit; none for a glm without a scale."""
    assert isinstance(fit.posterior, MLPosterior)
    whole = fit.posterior.estimate.component_values
    m = len(whole)
    labels = ("group", "term", "term2", "kind")
    parts = varcorr(fit).select(labels).rows() if m else []
    values = np.array([r.components if r.components.size else np.full(m, np.nan) for r in found])
    text = {
        name: pl.Series([part[k] for part in parts] * len(found), dtype=pl.String)
        for k, name in enumerate(labels)
    }
    return {**text, "estimate": values.ravel(), "change": (whole - values).ravel()}


def _inverse(cov: Array) -> Array:
    """The inverse; NaN of a separated fit, which has none."""
    sd = np.sqrt(np.diag(cov))
    try:
        return np.asarray(np.linalg.inv(cov / np.outer(sd, sd)) / np.outer(sd, sd))
    except np.linalg.LinAlgError:
        return np.full_like(cov, np.nan)


def _logdet(cov: Array) -> float:
    return float(np.linalg.slogdet(cov)[1]) if np.all(np.isfinite(cov)) else np.nan


def _nulls(columns: dict[str, Any], caption: str) -> Table:
    """A table with null where a number is missing."""
    out = {
        name: pl.Series(v).fill_nan(None) if isinstance(v, np.ndarray) and v.dtype == float else v
        for name, v in columns.items()
    }
    return table(out, caption)
