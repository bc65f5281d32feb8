"""Fits, tables and verdicts on a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import polars as pl
from rich import box
from rich.console import Console, JustifyMethod
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bayesglmm.catalogue.judge import Check
from bayesglmm.catalogue.ours import means, predictions
from bayesglmm.catalogue.run import Run
from bayesglmm.errors import BayesglmmError
from bayesglmm.model import Estimator
from bayesglmm.post.compare import Comparison, compare, label
from bayesglmm.posterior.ml import MLPosterior
from bayesglmm.tables.table import Table as Frame
from bayesglmm.tables.text import cell

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

_WIDTHS = (16, 14, 10, 6, 3)  # ours, published, tolerance, share of it, mark


def show_summary(console: Console, fit: Fit, *, exponentiate: bool = False) -> None:
    """The summary of a fit: as its text, with headings and notes set off."""
    summary = fit.summary(exponentiate=exponentiate)
    console.print(Text(summary.title, style="bold"))
    header = False
    for line in summary.text().split("\n")[1:]:
        indent = len(line) - len(line.lstrip())
        style = ""
        if line.endswith("effects:"):
            style = "bold cyan"
        elif header:
            style = "dim"
        elif line.startswith("  ! "):
            style = "yellow"
        header = line.endswith("effects:")
        # Rows of tables fit; sentences that do not are wrapped under their own beginning.
        console.print(Padding(Text(line.strip(), style=style), (0, 0, 0, indent)))


def show_frame(console: Console, title: str, frame: pl.DataFrame) -> None:
    """A table of results under its title, with its caption below."""
    out = _frame_box()
    words = [not dtype.is_numeric() for dtype in frame.dtypes]
    for name, left in zip(frame.columns, words, strict=True):
        justify: JustifyMethod = "left" if left else "right"
        out.add_column(name, justify=justify, no_wrap=not left, overflow="fold")
    for row in frame.iter_rows():
        cells = (
            str(v) if left and v is not None else cell(name, v)
            for name, v, left in zip(frame.columns, row, words, strict=True)
        )
        out.add_row(*(Text(c) for c in cells))
    console.print(Text(title, style="bold cyan"))
    console.print(Padding(out, (0, 0, 0, 2)))
    if isinstance(frame, Frame) and frame.caption:
        console.print(Padding(Text(frame.caption, style="dim"), (0, 0, 1, 2)))


def _frame_box() -> Table:
    """An empty table with a rule under its header and no other lines."""
    return Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False, header_style="dim")


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Fits side by side: estimates with their uncertainties, and how far apart they are."""
    names = comparison.names
    out = _frame_box()
    out.add_column("parameter", overflow="fold")
    for name in names:
        out.add_column(name, justify="right", no_wrap=True)
        out.add_column("SE" if name.startswith(("ML", "REML")) else "sd", justify="right")
        out.add_column("interval", justify="right", no_wrap=True)
    for _ in names[1:]:
        out.add_column("shift", justify="right")
    for row in comparison.table.iter_rows(named=True):
        cells = [label(row)]
        for name in names:
            low, high = (cell("", row[f"{name}_{end}"]) for end in ("conf_low", "conf_high"))
            cells += [cell("", row[f"{name}_{c}"]) for c in ("estimate", "std_error")]
            cells.append(f"{low} … {high}" if low and high else "")
        shifts = [row[f"{name}_shift"] for name in names[1:]]
        cells += ["" if s is None else f"{s:+.2f}" for s in shifts]
        out.add_row(*(Text(c) for c in cells))
    console.print(Text("Side by side", style="bold cyan"))
    console.print(Padding(out, (0, 0, 0, 2)))
    console.print(Padding(Text(comparison.table.caption, style="dim"), (0, 0, 1, 2)))


def show_run(console: Console, run: Run, *, quiet: bool = False) -> None:
    """Everything of a run: what the entry is, its fits, what it asks of them, the verdict."""
    entry = run.entry
    console.print()
    console.rule(Text(f" {entry.name} ", style="bold"), style="cyan", align="left")
    console.print(Text(entry.title, style="bold"))
    if not quiet:
        console.print(Text(entry.why))
        console.print(Text(f"After: {entry.source}", style="dim"))
        for fit in run.fits.values():
            console.print()
            show_summary(console, fit)
        _show_asked(console, run)
        _show_comparison_of(console, run)
    show_verdict(console, run)


def _show_asked(console: Console, run: Run) -> None:
    """The marginal means and predictions of the entry."""
    for name, fit in run.fits.items():
        for asked in run.entry.means:
            if name in asked.fits:
                console.print()
                show_frame(console, f"Marginal means: {asked.name} · {name}", means(fit, asked))
        for wanted in run.entry.predictions:
            if name in wanted.fits:
                console.print()
                title = f"Predictions: {wanted.name} · {name}"
                show_frame(console, title, predictions(fit, wanted))


def _show_comparison_of(console: Console, run: Run) -> None:
    ml = [f for f in run.fits.values() if isinstance(f.posterior, MLPosterior)]
    sampled = [f for f in run.fits.values() if not isinstance(f.posterior, MLPosterior)]
    if ml and sampled:
        console.print()
        show_comparison(console, compare(*ml, *sampled))


def show_verdict(console: Console, run: Run) -> None:
    """Ours beside the published figures, block by block, and one line that sums up."""
    console.print()
    console.print(Text("Verdict", style="bold cyan"))
    head = ("", "ours", "published", "tolerance ", "used", "")
    console.print(_row_table([tuple(Text(h, style="dim") for h in head)]))
    blocks = groupby(run.checks, lambda c: (c.kind, c.table, c.fit, c.source))
    for (_, table, fit, source), group in blocks:
        checks = list(group)
        heading = Text.assemble(
            (f"{table}{f' · {fit}' if fit else ''}", "bold"), ("   " + source, "dim")
        )
        console.print(Padding(heading, (0, 0, 0, 2)))
        if table == "data" and len(checks) > 6 and all(c.ok for c in checks):
            note = Text(f"{len(checks)} figures, all as printed")
            console.print(
                _row_table([(note, *(Text("") for _ in _WIDTHS[:-1]), _mark(True, True))])
            )
            continue
        console.print(_row_table([_check_row(c) for c in checks]))
        for reason in dict.fromkeys(c.reason for c in checks if c.reason):
            console.print(Padding(Text(f"* {reason}", style="dim italic"), (0, 0, 0, 4)))
    console.print(sum_up(run))


def _row_table(rows: Sequence[Sequence[Text]]) -> Padding:
    """Rows in columns of fixed width, so that the tables of all blocks line up."""
    out = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False, expand=True)
    out.add_column(ratio=1)
    for width in _WIDTHS:
        out.add_column(justify="right", width=width, no_wrap=True)
    for row in rows:
        out.add_row(*row)
    return Padding(out, (0, 0, 0, 4))


def _check_row(check: Check) -> tuple[Text, ...]:
    what = f"{check.row} {check.column}" if check.column != "value" else check.row
    exact = check.tolerance == 0.0
    used = "" if exact or not check.judged else _share(check.deviation)
    # A star says that the tolerance was given, for the reason below, not read off the digits.
    star = "*" if check.reason else " "
    tolerance = f"{'' if exact or not check.judged else f'{check.tolerance:.2g}'}{star}"
    style = "" if check.ok else "bold red"
    return (
        Text(what.strip(), style=style or ("dim" if not check.judged else "")),
        Text(check.ours, style=style),
        Text(check.published),
        Text(tolerance, style="dim"),
        Text(used, style=style or "dim"),
        _mark(check.ok, check.judged),
    )


def _share(deviation: float) -> str:
    return "∞" if math.isinf(deviation) else f"{deviation:.2f}"


def _mark(ok: bool, judged: bool) -> Text:
    if not judged:
        return Text("–", style="dim")
    return Text("ok", style="green") if ok else Text("NO", style="bold red")


def _times(run: Run) -> str:
    return " · ".join(f"{name} {seconds:.1f} s" for name, seconds in run.seconds.items())


def sum_up(run: Run) -> Text:
    """One line: how many figures agree, and how nearly."""
    judged = [c for c in run.checks if c.judged]
    bad = [c for c in judged if not c.ok]
    shown = len(run.checks) - len(judged)
    mark = ("✓ ", "bold green") if run.ok else ("✗ ", "bold red")
    words = f"{len(run.figures)} published figures"
    if bad:
        words += f", {len(bad)} of {len(judged)} checks fail"
    elif run.figures:
        words += f" agree, the farthest at {_share(run.largest)} of its tolerance"
    if len(judged) > len(run.figures):
        words += f"; {len(judged) - len(run.figures)} checks of the sampler"
    if shown:
        words += f"; {shown} shown, not judged"
    return Text.assemble(mark, words, (f"\n  {_times(run)}" if run.seconds else "", "dim"))


def show_total(console: Console, runs: Sequence[Run]) -> None:
    """One line for each entry, and a total."""
    names = list(dict.fromkeys(name for run in runs for name in run.seconds))
    out = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, header_style="dim", expand=True
    )
    out.add_column("", ratio=1)
    for name in ("figures", "farthest", *(f"{n}, s" for n in names), ""):
        out.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        seconds = (f"{run.seconds[n]:.1f}" if n in run.seconds else "" for n in names)
        row = (str(len(run.figures)), _share(run.largest), *seconds)
        out.add_row(Text(run.entry.title), *row, _mark(run.ok, True))
    totals = (f"{sum(r.seconds.get(n, 0.0) for r in runs):.1f}" for n in names)
    ok = all(run.ok for run in runs)
    figures = sum(len(run.figures) for run in runs)
    largest = _share(max((run.largest for run in runs), default=0.0))
    out.add_section()
    out.add_row(
        f"{len(runs)} models", str(figures), largest, *totals, _mark(ok, True), style="bold"
    )
    console.print()
    console.rule(Text(" All models ", style="bold"), style="cyan", align="left")
    console.print(out)
    console.print(
        Text(
            "figures: published numbers judged; farthest: largest deviation in units of its "
            "tolerance (above 1 fails)",
            style="dim",
        )
    )


def describe(how: Estimator) -> str:
    """An estimator with the options that differ from its defaults, e.g. ``ML(nagq=9)``."""
    plain = type(how)()
    changed = [f for f in how.__dataclass_fields__ if getattr(how, f) != getattr(plain, f)]
    return f"{type(how).__name__}({', '.join(f'{f}={getattr(how, f)!r}' for f in changed)})"


def show_error(console: Console, error: BayesglmmError) -> None:
    """A mistake of the caller in red; a formula keeps its caret in place."""
    console.print(Text("Error: ", style="bold red") + Text(str(error), style="red"), soft_wrap=True)
