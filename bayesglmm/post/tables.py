"""The tables of a fit: params, ranef, coef, varcorr. Written once for ML and NUTS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from bayesglmm.errors import ChoiceError
from bayesglmm.laplace.covariance import components, covariance_of
from bayesglmm.post.check import check_fit
from bayesglmm.posterior import Draws, Gaussian
from bayesglmm.tables.table import Table, table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit


def check_level(level: float) -> float:
    """A probability strictly between 0 and 1."""
    if not (isinstance(level, int | float) and 0.0 < level < 1.0):
        raise ChoiceError(f"level={level!r}: give a probability between 0 and 1, e.g. 0.95")
    return float(level)


def caption(fit: Fit, what: str, shown: str, interval: str) -> str:
    """What a table shows, how it was got, on which scale, with which interval."""
    return f"{what} · {fit.posterior.method} · {shown} · {interval}"


def params(fit: Fit, *, level: float = 0.95, exponentiate: bool = False) -> Table:
    """Population-level coefficients (lme4's ``fixef`` with its standard errors).

    Parameters
    ----------
    level
        Probability of the intervals.
    exponentiate
        Show exp(coefficient): odds ratios for a logit link, rate ratios for a log link. ML
        standard errors follow by the delta method and intervals are exponentiated; draws are
        exponentiated one by one. Statistics and p values stay those of the coefficient.

    Returns
    -------
    Table
        ``term, estimate, std_error, conf_low, conf_high``, then for ML ``t_stat|z_stat, df,
        p_value``, for draws ``median, mad, prob_direction, ess_bulk, ess_tail, r_hat, mcse``
        (independent ones, of Laplace's approximation: ``median, mad, prob_direction, ess, mcse``).
        A coefficient that cannot be estimated (a column of X that is a combination of earlier
        ones) keeps its row, with nulls where R has NA.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> fit = bg.glm("survived ~ sex", bg.load_dataset("titanic"), family="binomial").fit()
    >>> bg.params(fit, exponentiate=True)["estimate"].round(3).to_list()
    [2.877, 0.081]
    """
    check_fit(fit, "params")
    level = check_level(level)
    beta = fit.posterior.beta
    columns = _exponentiated(beta, level) if exponentiate else beta.summary(level)
    shown = f"exp of {fit.model.link.name} scale" if exponentiate else scale(fit)
    return table(
        {
            "term": pl.Series(fit.model.design.all_names, dtype=pl.String),
            **_in_place(fit, columns),
        },
        caption(fit, "Coefficients", shown, fit.posterior.interval(level)),
    )


def _in_place(fit: Fit, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Rows for all coefficients: null for those that cannot be estimated."""
    aliasing = fit.model.design.fixed.aliasing
    if not aliasing:
        return dict(columns)
    unknown = pl.Series(np.isin(np.arange(len(aliasing.names)), aliasing.dropped))
    out = {}
    for name, values in columns.items():
        whole = np.zeros(len(aliasing.names))
        whole[aliasing.kept] = values
        out[name] = pl.Series(whole).set(unknown, None)
    return out


def scale(fit: Fit) -> str:
    """The scale of the coefficients, in words."""
    link = fit.model.link.name
    return "response scale" if link == "identity" else f"{link} scale"


def _exponentiated(beta: Gaussian | Draws, level: float) -> dict[str, Any]:
    if isinstance(beta, Draws):
        out = beta.map(np.exp).summary(level)
        return {**out, "prob_direction": beta.shape()["prob_direction"]}
    columns = beta.summary(level)
    ratio = np.exp(columns["estimate"])
    return {
        **columns,
        "estimate": ratio,
        "std_error": ratio * columns["std_error"],
        "conf_low": np.exp(columns["conf_low"]),
        "conf_high": np.exp(columns["conf_high"]),
    }


def varcorr(fit: Fit, *, level: float = 0.95) -> Table:
    """Standard deviations and correlations of the random effects, and the residual sd.

    Returns
    -------
    Table
        ``group, term, term2, kind (sd|corr|residual), estimate, std_error, conf_low,
        conf_high, variance``, then for draws their diagnostics. ``variance`` is null for
        correlations; for draws it is the posterior mean of the variance. Standard errors and
        intervals are null at the boundary.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> m = bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy"))
    >>> bg.varcorr(m.fit())["estimate"].round(2).to_list()
    [23.78, 5.72, 0.08, 25.59]
    """
    check_fit(fit, "varcorr")
    level = check_level(level)
    design = fit.model.design
    parts = components(covariance_of(design.random))
    columns = fit.posterior.components(level)
    extra = len(columns["estimate"]) - len(parts)
    terms = [design.random[c.term] for c in parts]
    labels: dict[str, Any] = {
        "group": [t.name for t in terms] + ["Residual"] * extra,
        "term": [
            t.columns[c.column if c.kind == "corr" else c.row]
            for t, c in zip(terms, parts, strict=True)
        ]
        + [None] * extra,
        "term2": [
            t.columns[c.row] if c.kind == "corr" else None
            for t, c in zip(terms, parts, strict=True)
        ]
        + [None] * extra,
        "kind": [c.kind for c in parts] + ["residual"] * extra,
    }
    text = {name: pl.Series(values, dtype=pl.String) for name, values in labels.items()}
    note = (
        f"Variance components · {fit.posterior.method} · {fit.posterior.component_interval(level)}"
    )
    return table({**text, **columns}, note)


def ranef(fit: Fit, *, level: float = 0.95) -> Table:
    """Random effects (conditional modes, or posterior means) of every level.

    Returns
    -------
    Table
        ``group, level, term, estimate, std_error, conf_low, conf_high`` (draws: also their
        summaries), link scale, one row per level and column of each grouping factor.
    """
    check_fit(fit, "ranef")
    level = check_level(level)
    _needs_groups(fit, "ranef")
    frames = []
    for f, term in enumerate(fit.model.design.random):
        frames.append(
            pl.DataFrame(
                {
                    "group": [term.factor] * (term.J * term.K),
                    "level": [name for name in term.levels for _ in range(term.K)],
                    "term": list(term.columns) * term.J,
                    **fit.posterior.effects(f, level),
                }
            )
        )
    return table(
        pl.concat(frames).to_dict(),
        caption(fit, "Random effects", scale(fit), fit.posterior.effect_interval(level)),
    )


def ranef_vcov(fit: Fit) -> Table:
    """Variances and covariances of the random effects of every level (``postVar`` of lme4).

    By maximum likelihood those given the parameters, at their estimates (``condVar``); of draws
    those of the posterior.

    Returns
    -------
    Table
        ``group, level, term, term2, covariance``, squared units of the link scale: for every
        level the variances (``term`` is ``term2``) and the covariances between the columns of a
        term.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> m = bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy"))
    >>> bg.ranef_vcov(m.fit())["covariance"].round(1).to_list()[:3]
    [141.0, -20.6, 5.2]
    """
    check_fit(fit, "ranef_vcov")
    _needs_groups(fit, "ranef_vcov")
    frames = []
    for f, term in enumerate(fit.model.design.random):
        row, column = np.tril_indices(term.K)
        pairs = len(row)
        frames.append(
            pl.DataFrame(
                {
                    "group": [term.factor] * (term.J * pairs),
                    "level": [name for name in term.levels for _ in range(pairs)],
                    "term": [term.columns[k] for k in row] * term.J,
                    "term2": [term.columns[k] for k in column] * term.J,
                    "covariance": fit.posterior.effect_covariance(f)[:, row, column].ravel(),
                }
            )
        )
    return table(
        pl.concat(frames).to_dict(),
        f"Covariances of random effects · {fit.method} · {scale(fit)}, squared",
    )


def coef(fit: Fit, *, level: float = 0.95) -> Table:
    """Coefficients of every level: population value plus random effect (lme4's ``coef``).

    Returns
    -------
    Table
        ``group, level, term, estimate, std_error, conf_low, conf_high`` (draws: also their
        summaries), link scale; all population terms, then random ones that have no population
        value. Standard errors are those of the sum. Null where the population value cannot be
        estimated.
    """
    check_fit(fit, "coef")
    level = check_level(level)
    _needs_groups(fit, "coef")
    design = fit.model.design
    frames = []
    for factor in dict.fromkeys(t.factor for t in design.random):
        members = [f for f, t in enumerate(design.random) if t.factor == factor]
        where = {c: (f, k) for f in members for k, c in enumerate(design.random[f].columns)}
        if len(where) < sum(design.random[f].K for f in members):
            raise ChoiceError(
                f"coef: two terms of {factor!r} have the same column, so a level has no single "
                "coefficient; use ranef, or write one term"
            )
        names = [*design.all_names, *(c for c in where if c not in design.all_names)]
        levels = design.random[members[0]].levels
        for name in names:
            f, k = where.get(name, (members[0], -1))
            column = design.names.index(name) if name in design.names else -1
            values: Mapping[str, Any] = fit.posterior.coefficients(column, f, k, level)
            if name in design.all_names and column < 0:
                unknown = pl.Series([None] * len(levels), dtype=pl.Float64)
                values = dict.fromkeys(values, unknown)
            frames.append(
                pl.DataFrame(
                    {
                        "group": [factor] * len(levels),
                        "level": list(levels),
                        "term": [name] * len(levels),
                        "_order": list(range(len(levels))),
                        **values,
                    }
                )
            )
    merged = pl.concat(frames)
    groups = pl.col("group").replace_strict(
        {g: i for i, g in enumerate(dict.fromkeys(merged["group"]))}, return_dtype=pl.Int64
    )
    merged = merged.sort(groups, "_order", maintain_order=True).drop("_order")
    return table(
        merged.to_dict(),
        caption(fit, "Coefficients by level", scale(fit), fit.posterior.effect_interval(level)),
    )


def _needs_groups(fit: Fit, what: str) -> None:
    if not fit.model.design.random:
        raise ChoiceError(
            f"{what} needs random effects; {fit.model.formula!r} has none. Use params."
        )
