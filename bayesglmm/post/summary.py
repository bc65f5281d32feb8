"""Everything about a fit at a glance: a value whose job is to be shown."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bayesglmm.approximate import Approximated
from bayesglmm.design import Design
from bayesglmm.model import not_estimable
from bayesglmm.nuts import Sampled
from bayesglmm.post.check import check_fit
from bayesglmm.post.statistics import statistics
from bayesglmm.post.tables import params, varcorr
from bayesglmm.posterior.approximated import LaplacePosterior
from bayesglmm.posterior.ml import MLPosterior
from bayesglmm.posterior.sampled import SampledPosterior
from bayesglmm.tables.table import Table
from bayesglmm.tables.text import html_note, html_table, number, text_table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

_DRAW_COLUMNS = ("ess_bulk", "r_hat")


@dataclass(frozen=True, slots=True)
class Summary:
    """What :func:`summary` returns: print it, or let a notebook show it.

    Attributes
    ----------
    title, lines
        The head: how the model was fitted, and facts, one a line.
    random, fixed
        Variance components (empty without random effects) and coefficients.
    notes
        What needs attention; empty when all is well.
    """

    title: str
    lines: tuple[str, ...]
    random: Table
    fixed: Table
    notes: tuple[str, ...]

    def text(self) -> str:
        """The summary as plain text."""
        parts = [self.title, *(f"  {line}" for line in self.lines)]
        if self.random.height:
            header, rows = _random_rows(self.random)
            parts += ["", f"{_heading(self.random)}:", text_table(header, rows, labels=2)]
        header, rows = _fixed_rows(self.fixed)
        parts += ["", "Fixed effects:", text_table(header, rows)]
        parts += ["", f"  {self.fixed.caption}"]
        parts += [f"  ! {note}" for note in self.notes]
        return "\n".join(parts)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        head = "<br>".join(html.escape(line) for line in self.lines)
        parts = [f"<div><strong>{html.escape(self.title)}</strong><br>{head}</div>"]
        if self.random.height:
            header, rows = _random_rows(self.random)
            parts.append(html_table(_heading(self.random), header, rows, labels=2))
        header, rows = _fixed_rows(self.fixed)
        parts.append(html_table("Fixed effects", header, rows))
        parts.append(html_note(self.fixed.caption))
        parts += [f"<div>&#9888; {html.escape(note)}</div>" for note in self.notes]
        return "".join(parts)


def _heading(frame: Table) -> str:
    return "Residual" if frame["kind"].to_list() == ["residual"] else "Random effects"


def _random_rows(frame: Table) -> tuple[list[str], list[list[str | float | None]]]:
    extra = [c for c in _DRAW_COLUMNS if c in frame.columns]
    header = ["group", "term", "variance", "sd / corr", "SE", "low", "high", *extra]
    rows: list[list[str | float | None]] = []
    previous = ""
    for row in frame.iter_rows(named=True):
        name = row["term"] or ""
        if row["kind"] == "corr":
            name = f"corr({row['term']}, {row['term2']})"
        group = "" if row["group"] == previous else row["group"]
        previous = row["group"]
        numbers = [row[c] for c in ("variance", "estimate", "std_error", "conf_low", "conf_high")]
        rows.append([group, name, *numbers, *(row[c] for c in extra)])
    return header, rows


def _fixed_rows(frame: Table) -> tuple[list[str], list[list[str | float | None]]]:
    shown = ["term", "estimate", "std_error", "conf_low", "conf_high"]
    tests = ["t_stat", "z_stat", "df", "p_value", "prob_direction", *_DRAW_COLUMNS]
    shown += [c for c in tests if c in frame.columns]
    return shown, [list(row) for row in frame.select(shown).iter_rows()]


def summary(fit: Fit, *, level: float = 0.95, exponentiate: bool = False) -> Summary:
    """Summarise a fit: how it was got, fit statistics or diagnostics, effects, notes.

    Parameters
    ----------
    level
        Probability of the intervals.
    exponentiate
        Show exp(coefficients), as odds or rate ratios.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> fit = bg.lm("mpg ~ wt", bg.load_dataset("mtcars")).fit()
    >>> print(bg.summary(fit).title)
    Linear model by maximum likelihood
    """
    check_fit(fit, "summary")
    model, design = fit.model, fit.model.design
    family = f"family {model.family.name}, link {model.link.name}"
    groups = ", ".join(f"{name} {J}" for name, J in {t.factor: t.J for t in design.random}.items())
    rows = f"{design.n} rows"
    if design.dropped:
        rows += f" ({design.dropped} of {design.n_rows} dropped: {_why_dropped(design)})"
    lines = [model.formula, f"{family} · {rows}{f' · groups: {groups}' if groups else ''}"]
    if design.aliased:
        lines.append(not_estimable(design))
    notes: tuple[str, ...] = ()
    if isinstance(fit.posterior, MLPosterior):
        lines.append(_statistics_line(fit))
        notes = fit.posterior.estimate.outcome.notes
    elif isinstance(fit.posterior, SampledPosterior):
        run = fit.posterior.run
        notes = run.diagnostics.notes
        lines += _laplace_lines(run) if isinstance(run, Approximated) else _nuts_lines(fit, run)
    has_components = bool(design.random) or model.family.has_scale
    return Summary(
        _title(fit),
        tuple(lines),
        varcorr(fit, level=level) if has_components else Table(),
        params(fit, level=level, exponentiate=exponentiate),
        (*design.collinear, *notes),
    )


def _nuts_lines(fit: Fit, run: Sampled) -> list[str]:
    d, options = run.diagnostics, run.options
    value, name = d.r_hat
    r_hat = f"largest R-hat {value:.3f} ({name})" if name else "no R-hat: it needs several chains"
    by = "" if options.sampler == "nutpie" else f" by {options.sampler}"
    return [
        f"{fit.method}{by}, {options.tune} warm-up, seed {options.seed}, "
        f"{run.sample_seconds:.1f} s",
        f"sampled: {run.kind}",
        f"divergences {d.divergences} · {r_hat}",
        f"smallest ESS: bulk {d.ess_bulk[0]:.0f} ({d.ess_bulk[1]}), "
        f"tail {d.ess_tail[0]:.0f} ({d.ess_tail[1]})",
    ]


def _laplace_lines(run: Approximated) -> list[str]:
    d, options = run.diagnostics, run.options
    return [
        f"{options.draws} draws ({d.distinct} distinct) of {d.proposals} weighed points, effective "
        f"sample size {d.effective:.0f} · seed {options.seed}, {d.seconds:.1f} s",
        d.trust,
    ]


def _why_dropped(design: Design) -> str:
    holed = design.dropped - design.weightless
    why = [f"{holed} with missing values" if design.weightless else "missing values"] * bool(holed)
    return ", ".join([*why, *([f"{design.weightless} of weight zero"] * bool(design.weightless))])


def _title(fit: Fit) -> str:
    linear = fit.model.likelihood.is_linear
    mixed = "mixed " if fit.model.design.random else ""
    kind = f"{'Linear' if linear else 'Generalised linear'} {mixed}model"
    if isinstance(fit.posterior, LaplacePosterior):
        return f"{kind}: posterior by Laplace's approximation and importance weights"
    if isinstance(fit.posterior, SampledPosterior):
        return f"{kind}: posterior by NUTS"
    method = fit.posterior.method
    how = {
        "ML": "maximum likelihood",
        "REML": "restricted maximum likelihood (REML)",
        "ML-Laplace": "maximum likelihood (Laplace approximation)",
        "ML-nAGQ0": "lme4's fast approximation to maximum likelihood (nagq=0)",
    }.get(method, f"maximum likelihood (adaptive quadrature, {method})")
    return f"{kind} by {how}"


def _statistics_line(fit: Fit) -> str:
    row = statistics(fit).row(0, named=True)
    shown = ["logLik", "AIC", "BIC", "deviance", "df_residual", "null_deviance", "df_null"]
    return " · ".join(f"{name} {number(row[name], 4)}" for name in shown if name in row)
