"""How a fit is shown: pymer4's table, R's text, a few sentences."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import polars as pl

from bayesglmm.post.statistics import statistics
from bayesglmm.post.tables import params, varcorr
from bayesglmm.pymer4.results import Results
from bayesglmm.tables.text import text_table

__all__ = ["Text", "report", "stars", "summary_table", "summary_text", "written_p"]

_CODES = "Signif. codes:  0 *** 0.001 ** 0.01 * 0.05 . 0.1"


class Text(str):
    """Text that a notebook shows as it is, without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def stars(p: float | None) -> str:
    """The stars of a p value.

    Examples
    --------
    >>> stars(0.0004), stars(0.03), stars(0.5)
    ('***', '*', '')
    """
    if p is None:
        return ""
    marks = ((0.001, "***"), (0.01, "**"), (0.05, "*"), (0.1, "."))
    return next((mark for bound, mark in marks if p < bound), "")


def written_p(p: float | None, decimals: int = 3) -> str:
    """A p value as pymer4 writes it: one significant digit more than the decimals.

    Examples
    --------
    >>> written_p(0.0033564, 3), written_p(1e-9, 3)
    ('0.003356', '<.001')
    """
    if p is None:
        return ""
    return "<.001" if p < 0.001 else repr(float(f"{p:.{decimals + 1}g}"))


def _number(value: float | None, decimals: int) -> str:
    """Fixed point with a typographic minus, as great_tables formats numbers."""
    if value is None:
        return ""
    return f"{value:,.{decimals}f}".replace("-", "−")


# pymer4's table ------------------------------------------------------------------------------


def _head(family: str | None, link: str, results: Results, decimals: int) -> list[str]:
    """The lines above the table. Whole numbers are truncated, as pymer4 does with int()."""
    row = results.basic_statistics.row(0, named=True)
    lines = [] if family is None else [f"Family: {family} (link: {link})"]
    lines.append(f"Number of observations: {row['nobs']}")
    if results.boots is None:
        lines.append("Confidence intervals: parametric")
    else:
        lines.append(f"Confidence intervals: boot {results.conf_type}")
        lines.append(f"Bootstrap Iterations: {results.boots.outcomes.height}")
    lines.append("-" * 21)
    mixed = bool(results.fit.model.design.random)
    if results.plain and not mixed:
        lines += [
            f"R-squared: {round(row['r_squared'], decimals + 1)}",
            f"R-squared-adj: {round(row['adj_r_squared'], decimals + 1)}",
        ]
        if row["statistic"] is not None:
            p = "<.001" if row["p_value"] < 0.001 else round(row["p_value"], decimals + 1)
            lines.append(
                f"F({int(row['df'])}, {row['df_residual']}) = "
                f"{round(row['statistic'], decimals)}, p = {p}"
            )
    lines.append(f"Log-likelihood: {int(row['logLik'])}")
    lines.append(f"AIC: {int(row['AIC'])} | BIC: {int(row['BIC'])}")
    if mixed or results.plain:
        lines.append(f"Residual error: {round(row['sigma'], decimals)}")
    else:
        lines += [
            f"Residual deviance: {int(row['deviance'])} | DF: {row['df_residual']}",
            f"Null deviance: {int(row['null_deviance'])} | DF: {row['df_null']}",
        ]
    return lines


def _fixed_cells(results: Results, decimals: int) -> list[dict[str, str]]:
    whole_df = results.plain and not results.fit.model.design.random
    cells = []
    for row in results.result_fit.iter_rows(named=True):
        line = {"term": row["term"]}
        for name, value in row.items():
            if name not in ("term", "p_value"):
                line[name] = _number(value, 0 if name == "df" and whole_df else decimals)
        line["p_value"] = written_p(row["p_value"], decimals)
        line["stars"] = stars(row["p_value"])
        cells.append(line)
    return cells


def _random_cells(results: Results, decimals: int) -> list[dict[str, str]]:
    """Standard deviations, then correlations, the residual last."""
    short = {"sd": "sd", "corr": "cor", "residual": "sd"}
    interval = {"conf_low": "", "conf_high": ""}
    rows = varcorr(results.fit).to_dicts()
    if results.intervals is not None:
        found = results.limits(coefficients=False).iter_rows(named=True)
        rows = [{**row, **bounds} for row, bounds in zip(rows, found, strict=True)]
    cells = []
    for row in sorted(rows, key=lambda r: ("sd", "corr", "residual").index(r["kind"])):
        term = row["term"] or "Observation"
        if row["kind"] == "corr":
            # pymer4 names only the first of two correlated terms, which is not enough for three.
            term += f", {row['term2']}"
        group = f"{row['group']}-{short[row['kind']]}"
        if results.intervals is not None:
            interval = {name: _number(row[name], decimals) for name in interval}
        estimate = _number(row["estimate"], decimals)
        cells.append({"rfx": group, "term": term, "estimate": estimate, **interval})
    return cells


_LABELS = {
    "rfx": "Random Effects:",
    "term": "",
    "estimate": "Estimate",
    "std_error": "SE",
    "conf_low": "CI-low",
    "conf_high": "CI-high",
    "t_stat": "T-stat",
    "z_stat": "Z-stat",
    "df": "df",
    "p_value": "p",
    "stars": "",
}


def summary_table(
    kind: str, formula: str, family: str | None, link: str, results: Results, decimals: int
) -> Any:
    """pymer4's summary as a ``great_tables.GT``."""
    from great_tables import GT, loc, style
    from great_tables import html as raw

    cells = _fixed_cells(results, decimals)
    mixed = bool(results.fit.model.design.random)
    statistic = "z_stat" if "z_stat" in cells[0] else "t_stat"
    interval = ["conf_low", "conf_high"]
    estimates = ["estimate", "std_error", *interval]
    if mixed and family is not None:
        estimates = ["estimate", *interval, "std_error"]
    columns = ["term", *estimates, statistic, "df", "p_value", "stars"]
    labels = dict(_LABELS)
    if mixed:
        columns = ["rfx", *columns]
        cells = [*_random_cells(results, decimals), {}, {"rfx": "Fixed Effects:"}, *cells]
        labels["df"] = "DF" if family is None else "df"
    frame = pl.DataFrame(
        {name: [row.get(name, "") for row in cells] for name in columns},
        schema=dict.fromkeys(columns, pl.String),
    )
    lines = "<br>".join(html.escape(line) for line in _head(family, link, results, decimals))
    # The terms of a model without random effects are row names; the others a column of their own.
    out = GT(frame) if mixed else GT(frame, rowname_col="term")
    where = loc.body(columns=["term"]) if mixed else loc.stub()
    left = ["rfx", "term", "stars"] if mixed else ["stars"]
    return (
        out.tab_header(title=f"Formula: {kind}({formula})", subtitle=raw(lines))
        .opt_align_table_header("left")
        .opt_vertical_padding(0.75)
        .cols_label({name: labels[name] for name in columns if mixed or name != "term"})
        .cols_align("right", columns=[c for c in columns if c not in ("rfx", "term", "stars")])
        .cols_align("left", columns=left)
        .tab_style(style=style.text(style="italic"), locations=where)
        .tab_source_note(_CODES)
        .tab_options(source_notes_font_size="small")
    )


# R's text ------------------------------------------------------------------------------------


def _r_p(p: float) -> str:
    if p < 2.2e-16:
        return "<2e-16"
    return f"{p:.3g}" if p < 1e-4 else f"{p:.4f}"


def _coefficients(results: Results) -> list[str]:
    rows: list[list[str]] = []
    frame = params(results.fit)
    letter = "z" if "z_stat" in frame.columns else "t"
    mixed_t = letter == "t" and bool(results.fit.model.design.random)
    for row in frame.iter_rows(named=True):
        if row["estimate"] is None:  # a combination of earlier columns
            rows.append([row["term"], *["NA"] * (5 if mixed_t else 4), ""])
            continue
        df = [f"{row['df']:.2f}"] if mixed_t else []
        numbers = [f"{row['estimate']:.4f}", f"{row['std_error']:.4f}", *df]
        p = row["p_value"]
        rows.append(
            [row["term"], *numbers, f"{row[f'{letter}_stat']:.3f}", _r_p(p), stars(p).ljust(3)]
        )
    df_name = ["df"] if mixed_t else []
    header = ["", "Estimate", "Std. Error", *df_name, f"{letter} value", f"Pr(>|{letter}|)", ""]
    text = text_table(header, rows)
    # text_table indents by two; R does not.
    lines = [line.removeprefix("  ").rstrip() for line in text.splitlines()]
    return [*lines, "---", "Signif. codes:  0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1"]


def _random_lines(results: Results) -> list[str]:
    rows: list[list[str]] = []
    previous = ""
    for row in varcorr(results.fit).iter_rows(named=True):
        if row["kind"] == "corr":
            name = f"corr({row['term']}, {row['term2']})"
            rows.append(["", name, "", f"{row['estimate']:.3f}"])
            continue
        group = "" if row["group"] == previous else row["group"]
        previous = row["group"]
        rows.append([group, row["term"] or "", f"{row['variance']:.4f}", f"{row['estimate']:.4f}"])
    header = ["Groups", "Name", "Variance", "Std.Dev."]
    text = text_table(header, rows, labels=2)
    return [line.removeprefix(" ") for line in text.splitlines()]


def summary_text(kind: str, formula: str, results: Results) -> Text:
    """The summary in R's layout; coefficients on the link scale, as R has them."""
    model = results.fit.model
    known = statistics(results.fit).row(0, named=True)
    outside = f", family = {model.family.name}(link = {model.link.name})"
    if not model.design.random:
        lines = [f"Call: {kind}({formula}{'' if results.plain else outside})", "", "Coefficients:"]
        lines += [*_coefficients(results), ""]
        row = results.basic_statistics.row(0, named=True)
        if results.plain:
            rest = row["df_residual"]
            lines.append(
                f"Residual standard error: {row['sigma']:.4g} on {rest} degrees of freedom"
            )
            lines.append(
                f"Multiple R-squared: {row['r_squared']:.4f}, "
                f"Adjusted R-squared: {row['adj_r_squared']:.4f}"
            )
            if row["statistic"] is not None:
                lines.append(
                    f"F-statistic: {row['statistic']:.4g} on {row['df']:.0f} and {rest} DF, "
                    f"p-value: {_r_p(row['p_value'])}"
                )
            return Text("\n".join(lines))
        lines += [
            f"    Null deviance: {row['null_deviance']:.2f} on {row['df_null']} degrees of freedom",
            f"Residual deviance: {row['deviance']:.2f} on {row['df_residual']} degrees of freedom",
            f"AIC: {row['AIC']:.1f}",
        ]
        return Text("\n".join(lines))
    general = "" if model.family.name == "gaussian" else "Generalized "
    method = {"REML": "REML", "ML": "maximum likelihood"}.get(known["method"], known["method"])
    lines = [f"{general or ''}{'l' if general else 'L'}inear mixed model fit by {method}"]
    if general:
        lines.append(f" Family: {model.family.name} ({model.link.name})")
    lines.append(f"Formula: {formula}")
    names = ("AIC", "BIC", "logLik", "deviance", "df_residual")
    lines.append(", ".join(f"{n} {known[n]:.1f}".removesuffix(".0") for n in names))
    groups = "; ".join(f"{t.factor}, {t.J}" for t in model.design.random)
    lines += ["", "Random effects:", *_random_lines(results)]
    lines += [f"Number of obs: {model.design.n}, groups: {groups}", "", "Fixed effects:"]
    lines += _coefficients(results)
    notes = results.fit.outcome.notes
    return Text("\n".join([*lines, *notes]))


# Sentences -----------------------------------------------------------------------------------


def report(kind: str, formula: str, results: Results) -> Text:
    """What was fitted and what came out, in plain English."""
    model = results.fit.model
    known = statistics(results.fit).row(0, named=True)
    general = (
        "" if model.family.name == "gaussian" and model.link.name == "identity" else " generalised"
    )
    mixed = " mixed" if model.design.random else ""
    groups = _listed([f"{t.factor} ({t.J} levels)" for t in model.design.random])
    grouped = f", grouped by {groups}" if groups else ""
    dropped = model.design.dropped
    why = "missing values" + (" or weight zero" if model.design.weightless else "")
    left_out = f" ({dropped} rows with {why} were left out)" if dropped else ""
    scale = f" on the {model.link.name} scale" if general else ""
    lines = [
        f"We fitted a{general} linear{mixed} model ({kind}; {model.family.name} family, "
        f"{model.link.name} link; estimated by {known['method']}) to predict "
        f"{model.design.response.name} (formula: {formula}) from {model.design.n} "
        f"observations{grouped}{left_out}. The log-likelihood is {known['logLik']:.2f}, "
        f"AIC {known['AIC']:.2f}, BIC {known['BIC']:.2f}. Estimates{scale}, with 95% Wald "
        "intervals:",
        "",
    ]
    frame = params(results.fit)
    letter = "z" if "z_stat" in frame.columns else "t"
    for row in frame.iter_rows(named=True):
        if row["estimate"] is None:
            lines.append(f"  - {row['term']}: cannot be estimated from these data.")
            continue
        df = "" if letter == "z" else f"({row['df']:.4g})"
        p = row["p_value"]
        clear = "differs from zero" if p < 0.05 else "does not clearly differ from zero"
        p_text = "p < .001" if p < 0.001 else f"p = {p:.3f}"
        lines.append(
            f"  - {row['term']}: {row['estimate']:.2f}, 95% CI [{row['conf_low']:.2f}, "
            f"{row['conf_high']:.2f}], {letter}{df} = {row[f'{letter}_stat']:.2f}, {p_text}; "
            f"{clear}."
        )
    return Text("\n".join(lines))


def _listed(parts: Sequence[str]) -> str:
    unique = list(dict.fromkeys(parts))
    return (
        unique[0]
        if len(unique) == 1
        else ", ".join(unique[:-1]) + " and " + unique[-1]
        if unique
        else ""
    )
