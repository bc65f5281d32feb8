"""Estimated marginal means, trends and contrasts, after R's emmeans (Lenth).

Means are linear functions of the coefficients, averaged with equal weights on the link scale,
random effects at zero; exact for ML, computed draw by draw for NUTS and summarised last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bayesglmm.errors import ChoiceError, DataError, check_choice
from bayesglmm.families import Link
from bayesglmm.post.adjust import ADJUSTMENTS, adjusted_p, critical
from bayesglmm.post.check import check_fit
from bayesglmm.post.grid import Grid, check_names, mean_grid, split_names, trend_grid
from bayesglmm.post.tables import check_level
from bayesglmm.posterior import Draws, Gaussian
from bayesglmm.tables.table import Table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

Array = NDArray[np.float64]
# Links whose differences are ratios when carried back.
_RATIOS = {"logit": "odds_ratio", "log": "ratio"}


class Means(Table):
    """Marginal means or contrasts: a polars frame with a caption, and more.

    Attributes
    ----------
    weights
        Contrasts: one column per mean with its weight in each contrast. Means: the weights on
        the coefficients.
    draws
        For NUTS the draws of every row, (chains, draws, rows), on the scale shown; for ML an
        array with no draws.
    """

    weights: pl.DataFrame
    draws: Array


def emmeans(
    fit: Fit,
    specs: str | Sequence[str],
    *,
    by: str | Sequence[str] = (),
    at: Mapping[str, Any] | None = None,
    contrasts: str | Mapping[str, Sequence[float]] | None = None,
    type: Literal["response", "link"] = "response",
    adjust: str = "default",
    level: float = 0.95,
) -> Means:
    """Estimated marginal means, or contrasts of them.

    Parameters
    ----------
    specs
        Variables that span the means: ``"sex"``, ``["sex", "pclass"]``, ``"sex | pclass"``.
    by
        Variables within whose values contrasts are taken.
    at
        Values for covariates (default: the mean) or levels for factors.
    contrasts
        ``"pairwise"``, or a mapping from labels to weights on the means in their order.
        Omitted: the means themselves.
    type
        ``"response"``: means carried back by the inverse link; contrasts of a logit (log) link
        become odds ratios (ratios), of other links stay on the link scale, as the caption says.
        ``"link"``: everything on the link scale. Averages are always taken on the link scale.
    adjust
        Multiplicity adjustment for ML, within each value of ``by``: ``"tukey"`` (default for
        pairwise), ``"none"`` (default otherwise), ``"sidak"``, ``"bonferroni"``, ``"holm"``,
        ``"fdr"``. Posterior draws need none and take none.
    level
        Probability of the intervals.

    Returns
    -------
    Means
        A polars frame with emmeans' columns: the variables (or ``contrast``), then
        ``emmean|prob|rate|response`` (or ``estimate|odds_ratio|ratio``), ``SE, df``,
        ``asymp_LCL, asymp_UCL`` (``lower_CL, upper_CL`` where df are finite), and for contrasts
        ``null`` (ratios), ``z_ratio|t_ratio, p_value``. For draws after ``SE``:
        ``lower_HDI, upper_HDI, prob_direction, ess_bulk, r_hat`` (``ess`` for
        independent draws); ``SE`` is then the posterior
        sd, and prob_direction the larger of P(> 0) and P(< 0) on the link scale. What the data
        cannot estimate, such as the mean of an empty cell, is null (emmeans' ``nonEst``).

    Raises
    ------
    ChoiceError, DataError
        For an unknown variable, level, option, or weights of the wrong number.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> fit = bg.glm("survived ~ sex", bg.load_dataset("titanic"), family="binomial").fit()
    >>> fit.emmeans("sex")["prob"].round(4).to_list()
    [0.742, 0.1889]
    >>> fit.emmeans("sex", contrasts="pairwise")["odds_ratio"].round(3).to_list()
    [12.351]
    """
    check_fit(fit, "emmeans")
    check_choice("type", type, ("response", "link"))
    check_choice("adjust", adjust, ("default", *ADJUSTMENTS))
    level = check_level(level)
    names, strata = split_names(specs)
    strata += [by] if isinstance(by, str) else list(by)
    design = fit.model.design
    check_names(design, names, "specs")
    check_names(design, strata, "by")
    if not names:
        raise ChoiceError("specs is empty; name at least one variable of the fixed part")
    grid = mean_grid(fit, [*names, *strata], at or {})
    about = f"{fit.method} · random effects at zero" if design.random else fit.method
    about += f" · {grid.held}" if grid.held else ""
    means = _quantity(fit, grid)
    if contrasts is None:
        return _means(fit, grid, means, strata, type, adjust, level, about)
    return _contrasts(fit, grid, means, names, strata, contrasts, type, adjust, level, about)


def emtrends(
    fit: Fit,
    variable: str,
    *,
    by: str | Sequence[str] = (),
    at: Mapping[str, Any] | None = None,
    contrasts: str | Mapping[str, Sequence[float]] | None = None,
    adjust: str = "default",
    level: float = 0.95,
) -> Means:
    """Slopes of the linear predictor in a covariate, link scale, over the levels of ``by``.

    Columns as for :func:`emmeans`, with ``<variable>_trend`` for the slope.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> fit = bg.lm("mpg ~ wt", bg.load_dataset("mtcars")).fit()
    >>> bg.emtrends(fit, "wt")["wt_trend"].round(3).to_list()
    [-5.344]
    """
    check_fit(fit, "emtrends")
    level = check_level(level)
    check_choice("adjust", adjust, ("default", *ADJUSTMENTS))
    design = fit.model.design
    strata = [by] if isinstance(by, str) else list(by)
    check_names(design, [variable, *strata], "variable")
    if variable not in design.fixed.covariates:
        raise ChoiceError(f"variable={variable!r} is a factor; use emmeans for its means")
    grid = trend_grid(fit, variable, strata, at or {})
    slopes = _quantity(fit, grid)
    about = f"{fit.method} · slope of the linear predictor ({fit.model.link.name} scale)"
    about += f" · {grid.held}" if grid.held else ""
    if contrasts is None:
        return _means(fit, grid, slopes, [], "link", adjust, level, about, f"{variable}_trend")
    return _contrasts(fit, grid, slopes, strata, [], contrasts, "link", adjust, level, about)


def _quantity(fit: Fit, grid: Grid) -> Gaussian | Draws:
    """L beta + offset for a fit of either kind."""
    linear = fit.posterior.beta.linear(grid.L)
    if isinstance(linear, Draws):
        return linear.like(linear.values + grid.offset)
    return Gaussian(linear.mean + grid.offset, linear.cov, linear.degrees)


def _only_estimable(values: Gaussian | Draws, known: NDArray[np.bool_]) -> Gaussian | Draws:
    """NaN for estimates that mean nothing; draws keep their shape and are hidden at the end."""
    if known.all() or isinstance(values, Draws):
        return values
    return Gaussian(np.where(known, values.mean, np.nan), values.cov, values.degrees)


def _hidden(columns: Mapping[str, Array], known: NDArray[np.bool_]) -> dict[str, Any]:
    """Null in the rows that cannot be estimated."""
    if known.all():
        return dict(columns)
    return {name: pl.Series(v).set(pl.Series(~known), None) for name, v in columns.items()}


def _not_estimable_note(known: NDArray[np.bool_]) -> str:
    return "" if known.all() else " · null where the data cannot estimate it"


def _families(labels: pl.DataFrame, strata: list[str], rows: int) -> list[list[int]]:
    """Row numbers of each value of the strata, in order of appearance."""
    if not strata:
        return [list(range(rows))]
    found: dict[tuple[Any, ...], list[int]] = {}
    for k, row in enumerate(labels.select(strata).iter_rows()):
        found.setdefault(row, []).append(k)
    return list(found.values())


def _result(
    columns: Mapping[str, Any], caption: str, weights: pl.DataFrame, draws: Array | None
) -> Means:
    out = Means(dict(columns))
    out.caption = caption
    out.weights = weights
    out.draws = np.zeros((0, 0, out.height)) if draws is None else draws
    return out


def _no_adjustment(adjust: str) -> None:
    if adjust not in ("default", "none"):
        raise ChoiceError(
            f"adjust={adjust!r} is for maximum likelihood; posterior draws describe all "
            "comparisons jointly and need no adjustment. Use adjust='none'."
        )


def _means(
    fit: Fit,
    grid: Grid,
    means: Gaussian | Draws,
    strata: list[str],
    type: str,
    adjust: str,
    level: float,
    about: str,
    name: str = "",
) -> Means:
    link = fit.model.link
    back = type == "response" and link.name != "identity"
    column = name or (fit.model.family.response_column[link.name] if back else "emmean")
    scale = f"{type} scale" if not back else f"response scale, averaged on the {link.name} scale"
    what = "Marginal means" if not name else "Trends"
    weights = pl.DataFrame(grid.L, schema=list(fit.model.design.names), orient="row")
    known = fit.model.design.fixed.aliasing.estimable(grid.every)
    means = _only_estimable(means, known)
    if isinstance(means, Draws):
        _no_adjustment(adjust)
        shown = means.map(link.inverse) if back else means
        columns = _draw_columns(column, shown, means.shape()["prob_direction"], level)
        caption = f"{what} · {about} · {scale} · {fit.posterior.interval(level)}"
        caption += _not_estimable_note(known)
        draws = np.where(known, shown.values, np.nan)
        left = grid.labels.to_dict()
        return _result({**left, **_hidden(columns, known)}, caption, weights, draws)
    chosen = "none" if adjust == "default" else adjust
    df = means.degrees(np.eye(len(means.mean)))
    se = np.sqrt(np.diag(means.cov))
    half = np.empty_like(se)
    for rows in _families(grid.labels, strata, len(grid.L)):
        half[rows] = critical(chosen, level, df[rows], len(rows), 0) * se[rows]
    low, high, estimate = means.mean - half, means.mean + half, means.mean
    if back:
        estimate, slope, _, _ = link.derivatives(estimate)
        se, low, high = np.abs(slope) * se, link.inverse(low), link.inverse(high)
        low, high = np.minimum(low, high), np.maximum(low, high)
    lower, upper = _bounds(df)
    columns = {column: estimate, "SE": se, "df": df, lower: low, upper: high}
    caption = f"{what} · {about} · {scale} · {fit.posterior.interval(level)}"
    caption += _adjust_note(chosen, "intervals") + _not_estimable_note(known)
    return _result({**grid.labels.to_dict(), **_hidden(columns, known)}, caption, weights, None)


def _bounds(df: Array) -> tuple[str, str]:
    finite = bool(np.any(np.isfinite(df)))
    return ("lower_CL", "upper_CL") if finite else ("asymp_LCL", "asymp_UCL")


def _adjust_note(adjust: str, what: str) -> str:
    return "" if adjust == "none" else f" · {what} adjusted by {adjust}"


def _draw_columns(name: str, draws: Draws, direction: Array, level: float) -> dict[str, Array]:
    point, interval, checks = draws.point(), draws.interval(level), draws.diagnostics()
    return {
        name: point["estimate"],
        "SE": point["std_error"],
        "lower_HDI": interval["conf_low"],
        "upper_HDI": interval["conf_high"],
        "prob_direction": direction,
        **{check: checks[check] for check in ("ess_bulk", "r_hat", "ess") if check in checks},
    }


def _weights(
    contrasts: str | Mapping[str, Sequence[float]], labels: list[str], ratio: bool
) -> dict[str, Array]:
    """Contrast weights on the means of one family, by label."""
    m = len(labels)
    if isinstance(contrasts, str):
        check_choice("contrasts", contrasts, ("pairwise",))
        if m < 2:
            raise ChoiceError(f"contrasts='pairwise' needs two means or more; there is {m}")
        out = {}
        for i in range(m):
            for j in range(i + 1, m):
                weights = np.zeros(m)
                weights[i], weights[j] = 1.0, -1.0
                out[f"{labels[i]} {'/' if ratio else '-'} {labels[j]}"] = weights
        return out
    if not contrasts:
        raise ChoiceError("contrasts is empty; give 'pairwise' or a mapping of labels to weights")
    out = {}
    for name, given in contrasts.items():
        weights = np.asarray(given, dtype=np.float64)
        if weights.shape != (m,):
            raise DataError(
                f"contrasts[{name!r}] has {weights.size} weight(s) for {m} means "
                f"({', '.join(labels)}); give one for each"
            )
        if not np.all(np.isfinite(weights)) or not np.any(weights):
            raise DataError(f"contrasts[{name!r}]={list(given)!r}: give finite weights, not all 0")
        out[str(name)] = weights
    return out


def describe_weights(weights: Array, labels: Sequence[str]) -> str:
    """``-female + male`` for weights (-1, 1) on (female, male)."""
    parts: list[str] = []
    for weight, level in zip(weights, labels, strict=True):
        if weight == 0.0:
            continue
        label = level if level[:1].isalpha() else f"[{level}]"  # 0.5*[2], not 0.5*2
        size = "" if abs(weight) == 1.0 else f"{abs(weight):.4g}*"
        minus = weight < 0
        first = f"{'-' if minus else ''}{size}{label}"
        parts.append(f"{'-' if minus else '+'} {size}{label}" if parts else first)
    return " ".join(parts)


def _contrasts(
    fit: Fit,
    grid: Grid,
    means: Gaussian | Draws,
    names: list[str],
    strata: list[str],
    contrasts: str | Mapping[str, Sequence[float]],
    type: str,
    adjust: str,
    level: float,
    about: str,
) -> Means:
    link = fit.model.link
    families = _families(grid.labels, strata, len(grid.L))
    texts = [
        " ".join(str(v) if not isinstance(v, float) else f"{v:g}" for v in row)
        for row in grid.labels.select(names).iter_rows()
    ]
    labels = [texts[k] for k in families[0]]
    first = _weights(contrasts, labels, ratio=False)
    sums_to_zero = all(abs(w.sum()) < 1e-10 for w in first.values())
    ratio = type == "response" and link.name in _RATIOS and sums_to_zero
    weights = _weights(contrasts, labels, ratio)
    K = np.zeros((len(weights) * len(families), len(grid.L)))
    for b, rows in enumerate(families):
        for c, w in enumerate(weights.values()):
            K[b * len(weights) + c, rows] = w
    left: dict[str, Any] = {"contrast": list(weights) * len(families)}
    for name in strata:
        value = grid.labels.get_column(name)
        left[name] = value[[rows[0] for rows in families for _ in weights]]
    column = _RATIOS[link.name] if ratio else "estimate"
    caption = _contrast_caption(fit, about, type, ratio, sums_to_zero, level)
    if not isinstance(contrasts, str):
        caption += " · " + "; ".join(
            f"{name} = {describe_weights(w, labels)}" for name, w in weights.items()
        )
    table = pl.DataFrame(
        {
            "contrast": list(weights),
            **dict(zip(labels, np.array(list(weights.values())).T, strict=True)),
        }
    )
    # A contrast may be estimable even where its means are not.
    known = fit.model.design.fixed.aliasing.estimable(K @ grid.every)
    values = _only_estimable(means.linear(K), known)
    caption += _not_estimable_note(known)
    if isinstance(values, Draws):
        _no_adjustment(adjust)
        shown = values.map(np.exp) if ratio else values
        columns = _draw_columns(column, shown, values.shape()["prob_direction"], level)
        draws = np.where(known, shown.values, np.nan)
        return _result({**left, **_hidden(columns, known)}, caption, table, draws)
    chosen = _default_adjustment(contrasts) if adjust == "default" else adjust
    pairwise = isinstance(contrasts, str)
    if chosen == "tukey" and not pairwise:
        chosen = "sidak"  # Tukey's distribution is for all pairwise differences only
    columns = _contrast_columns(
        values, link, column, ratio, chosen, len(weights), len(labels), level
    )
    if len(weights) > 1:
        caption += _adjust_note(chosen, "p values and intervals")
    return _result({**left, **_hidden(columns, known)}, caption, table, None)


def _default_adjustment(contrasts: str | Mapping[str, Sequence[float]]) -> str:
    return "tukey" if contrasts == "pairwise" else "none"


def _contrast_columns(
    values: Gaussian,
    link: Link,
    column: str,
    ratio: bool,
    adjust: str,
    family: int,
    n_means: int,
    level: float,
) -> dict[str, Array]:
    df = values.degrees(np.eye(len(values.mean)))
    se = np.sqrt(np.maximum(np.diag(values.cov), 0.0))
    estimate = values.mean
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = estimate / se
    half, p = np.empty_like(se), np.empty_like(se)
    for start in range(0, len(se), family):
        rows = slice(start, start + family)
        half[rows] = critical(adjust, level, df[rows], family, n_means) * se[rows]
        p[rows] = adjusted_p(adjust, statistic[rows], df[rows], n_means)
    low, high = estimate - half, estimate + half
    lower, upper = _bounds(df)
    name = "t_ratio" if np.any(np.isfinite(df)) else "z_ratio"
    if not ratio:
        return {
            column: estimate, "SE": se, "df": df, lower: low, upper: high,
            name: statistic, "p_value": p,
        }  # fmt: skip
    ratios = np.exp(estimate)
    return {
        column: ratios, "SE": ratios * se, "df": df, lower: np.exp(low), upper: np.exp(high),
        "null": np.ones_like(se), name: statistic, "p_value": p,
    }  # fmt: skip


def _contrast_caption(
    fit: Fit, about: str, type: str, ratio: bool, sums_to_zero: bool, level: float
) -> str:
    link = fit.model.link.name
    if ratio:
        scale = f"ratios; tests on the {link} scale"
    elif type == "response" and link != "identity":
        why = "" if sums_to_zero else " (weights do not sum to zero)"
        scale = f"still on the {link} scale{why}"
    else:
        scale = f"{link} scale" if link != "identity" else "response scale"
    return f"Contrasts · {about} · {scale} · {fit.posterior.interval(level)}"
