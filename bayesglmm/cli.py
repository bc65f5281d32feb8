"""The command line: run the catalogue, fit a model, list what there is.

Importing this module imports neither PyMC nor anything else that is slow; the commands import
what they need.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from bayesglmm.errors import BayesglmmError, ChoiceError, DataError, check_choice, nearest

if TYPE_CHECKING:
    import polars as pl

    from bayesglmm.fit import Fit

app = typer.Typer(
    name="bayesglmm",
    help="Generalised linear mixed models: maximum likelihood and the full posterior.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a traceback here is a bug; let it be a plain one
)

DISAGREES, USAGE = 1, 2  # exit codes


@contextmanager
def _clean_errors() -> Iterator[None]:
    """Print the package's own errors without a traceback and leave with the usage code."""
    try:
        yield
    except BayesglmmError as error:
        from bayesglmm.catalogue.show import show_error

        show_error(Console(stderr=True), error)
        raise typer.Exit(USAGE) from error


def _print_version(wanted: bool) -> None:
    if wanted:
        from bayesglmm import __version__

        typer.echo(f"bayesglmm {__version__}")
        raise typer.Exit


@app.callback()
def main(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Generalised linear mixed models: maximum likelihood and the full posterior."""


@app.command()
def run(
    entries: Annotated[
        list[str] | None,
        typer.Argument(help="TOML files, or names that `bayesglmm models` lists."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Run every bundled model.")] = False,
    method: Annotated[str, typer.Option(help="Only these fits: ml or nuts.")] = "",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the verdicts.")] = False,
) -> None:
    """Fit worked models and put the results beside the published figures.

    Leaves with 0 if all agree and sampling went well, 1 if not, 2 if it could not be run.
    """
    with _clean_errors():
        from bayesglmm.catalogue import entry_names, find_entry, read_entry, run_entry
        from bayesglmm.catalogue.run import METHODS
        from bayesglmm.catalogue.show import describe, show_run, show_total

        if method:
            check_choice("--method", method, METHODS)
        if everything and entries:
            raise ChoiceError("--all runs every bundled model; leave out the names")
        if not everything and not entries:
            raise ChoiceError(f"name a model, or give --all; there are {', '.join(entry_names())}")
        # All are read first: a mistake in the last must not cost the time of the others.
        chosen = [
            read_entry(find_entry(n)) for n in (entry_names() if everything else entries or [])
        ]
        console = _console()
        runs = []
        for entry in chosen:
            with console.status("") as status:

                def before(name: str, entry: Any = entry, status: Any = status) -> None:
                    status.update(f"{entry.name}: {describe(entry.fits[name])}")

                runs.append(run_entry(entry, [method] if method else METHODS, before))
            show_run(console, runs[-1], quiet=quiet)
        if everything:
            show_total(console, runs)
    if not all(r.ok for r in runs):
        raise typer.Exit(DISAGREES)


@app.command()
def models() -> None:
    """List the worked models."""
    with _clean_errors():
        from rich.table import Table

        from bayesglmm.catalogue import load_entries
        from bayesglmm.catalogue.show import describe

        out = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
        out.add_column(no_wrap=True)
        for entry in load_entries():
            fits = ", ".join(describe(how) for how in entry.fits.values())
            out.add_row(f"[bold]{entry.name}[/]", entry.title)
            out.add_row("", f"[dim]{_plain(entry.formula)}[/]")
            out.add_row("", f"[dim]{_plain(fits)}[/]")
        Console().print(out)


@app.command()
def datasets() -> None:
    """List the bundled data sets."""
    from rich.table import Table

    from bayesglmm.datasets import list_datasets

    out = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in ("name", "size", "title", "source"):
        out.add_column(name, justify="right" if name == "size" else "left", no_wrap=name == "name")
    for row in list_datasets().iter_rows(named=True):
        size = f"{row['rows']} × {row['columns']}"
        out.add_row(f"[bold]{row['name']}[/]", size, _plain(row["title"]), _plain(row["source"]))
    Console().print(out)


@app.command()
def fit(
    formula: Annotated[str, typer.Argument(help='For instance "survived ~ sex + (1|pclass)".')],
    data: Annotated[str, typer.Option(help="Bundled data set, or a .csv or .parquet file.")],
    family: Annotated[
        str, typer.Option(help="gaussian, binomial, bernoulli, poisson, …")
    ] = "gaussian",
    link: Annotated[str, typer.Option(help="Link function.")] = "default",
    method: Annotated[str, typer.Option(help="ml, reml, laplace or nuts.")] = "ml",
    weights: Annotated[str, typer.Option(help="Column of prior weights.")] = "",
    offset: Annotated[str, typer.Option(help="Column added to the linear predictor.")] = "",
    trials: Annotated[str, typer.Option(help="Column with the numbers of trials.")] = "",
    factors: Annotated[
        list[str] | None, typer.Option(help="Column to treat as a factor (repeat, or commas).")
    ] = None,
    contrasts: Annotated[
        list[str] | None, typer.Option(help="Coding of a factor: urban=helmert (repeat).")
    ] = None,
    priors: Annotated[str, typer.Option(help="default or flat; for nuts.")] = "default",
    nagq: Annotated[
        int | None, typer.Option(help="Quadrature nodes; 1 is Laplace, 0 lme4's fast one.")
    ] = None,
    reml: Annotated[bool, typer.Option("--reml", help="Restricted maximum likelihood.")] = False,
    vcov: Annotated[
        str | None, typer.Option(help="Standard errors: auto, hessian or conditional.")
    ] = None,
    df: Annotated[
        str | None,
        typer.Option(help="Linear mixed models: satterthwaite, kenward-roger (REML), asymptotic."),
    ] = None,
    draws: Annotated[int | None, typer.Option(help="Draws kept per chain.")] = None,
    tune: Annotated[int | None, typer.Option(help="Warm-up iterations per chain.")] = None,
    chains: Annotated[int | None, typer.Option(help="Number of chains.")] = None,
    target_accept: Annotated[float | None, typer.Option(help="Raise against divergences.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes sampling reproducible.")] = None,
    exponentiate: Annotated[
        bool, typer.Option("--exponentiate", help="Show odds or rate ratios.")
    ] = False,
    emmeans: Annotated[
        str, typer.Option(help='Marginal means of, e.g. sex or "sex | pclass".')
    ] = "",
    contrast: Annotated[str, typer.Option(help="Contrasts of the marginal means: pairwise.")] = "",
    scale: Annotated[
        str, typer.Option("--type", help="Scale of the marginal means: response or link.")
    ] = "response",
    save: Annotated[Path | None, typer.Option(help="Folder for the results.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the folder of --save.")] = False,
) -> None:
    """Fit one model, print it, and save it if asked."""
    with _clean_errors():
        if save is not None:
            _check_target(save, force)
        if contrast and not emmeans:
            raise ChoiceError("--contrast compares marginal means; say of what with --emmeans")
        from bayesglmm.api import model
        from bayesglmm.catalogue.show import describe, show_frame, show_summary
        from bayesglmm.model import METHODS, estimator

        check_choice("--method", method, METHODS)
        if reml and method == "nuts":
            raise ChoiceError("--reml belongs to maximum likelihood; leave it out, or the nuts")
        given = {
            "nagq": nagq, "vcov": vcov, "df": df, "draws": draws, "tune": tune, "chains": chains,
            "target_accept": target_accept, "seed": seed,
        }  # fmt: skip
        how = estimator(
            "reml" if reml else method, {k: v for k, v in given.items() if v is not None}
        )
        what = model(
            formula,
            _read(data),
            family=family,
            link=link,
            weights=weights,
            offset=offset,
            trials=trials,
            contrasts=_pairs(contrasts or []),
            factors=[name.strip() for item in factors or [] for name in item.split(",")],
            priors=priors,
        )
        console = _console()
        with console.status(describe(how)):
            fitted = _fit(what, how)
        show_summary(console, fitted, exponentiate=exponentiate)
        means: dict[str, pl.DataFrame] = {}
        if emmeans:
            wanted: Any = scale
            means["emmeans"] = fitted.emmeans(emmeans, type=wanted)
            if contrast:
                means["contrasts"] = fitted.emmeans(emmeans, contrasts=contrast, type=wanted)
        for name, frame in means.items():
            console.print()
            title = "Marginal means" if name == "emmeans" else f"Contrasts ({contrast})"
            show_frame(console, f"{title}: {emmeans}", frame)
        if save is not None:
            asked = {
                "weights": weights,
                "offset": offset,
                "trials": trials,
                "factors": factors or [],
                "contrasts": contrasts or [],
                "priors": priors,
                "emmeans": emmeans,
                "contrast": contrast,
            }
            with console.status(f"saving {save}"):
                _save(fitted, save, {"data": data, **asked}, exponentiate, means)
            console.print(f"[dim]Saved in[/] {save}")


def _console() -> Console:
    """The terminal, or, where output goes to a file or a pipe, lines wide enough for tables."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=120)


def _plain(text: str) -> str:
    """Text in which square brackets are no markup."""
    return text.replace("[", "\\[")


def _fit(what: Any, how: Any) -> Fit:
    """Fit without warnings on the way: the summary carries them."""
    import warnings
    from dataclasses import replace

    from bayesglmm.errors import BayesglmmWarning
    from bayesglmm.model import fit as fit_model
    from bayesglmm.nuts.options import NUTS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesglmmWarning)
        return fit_model(what, replace(how, progress=False) if isinstance(how, NUTS) else how)


def _pairs(items: list[str]) -> dict[str, str]:
    """``urban=helmert`` as a mapping."""
    out = {}
    for item in items:
        name, equals, coding = item.partition("=")
        if not (name and equals and coding):
            raise ChoiceError(f"--contrasts {item!r}: write COLUMN=CODING, e.g. urban=helmert")
        out[name.strip()] = coding.strip()
    return out


def _read(data: str) -> pl.DataFrame:
    """A bundled data set by name, or a file."""
    import polars as pl

    from bayesglmm.datasets import list_datasets, load_dataset

    suffix = Path(data).suffix.lower()
    if suffix not in (".csv", ".parquet"):
        names = list_datasets()["name"].to_list()
        if data not in names:
            raise ChoiceError(
                f"--data {data!r} is no bundled data set{nearest(data, names)}; give one of "
                f"{', '.join(names)}, or a path ending in .csv or .parquet"
            )
        return load_dataset(data)
    if not Path(data).is_file():
        raise DataError(f"--data {data!r}: there is no such file")
    try:
        if suffix == ".parquet":
            return pl.read_parquet(data)
        # As R reads a CSV: NA is missing. All rows decide a column's type.
        return pl.read_csv(data, null_values=["NA", ""], infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"--data {data!r} cannot be read: {error}") from error


# Saving -----------------------------------------------------------------------------------------


def _check_target(folder: Path, force: bool) -> None:
    """Refuse to write over results, before any time is spent."""
    if folder.exists() and not folder.is_dir():
        raise ChoiceError(f"--save {str(folder)!r} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise ChoiceError(f"--save {str(folder)!r} is not empty; give --force to replace it")


def _save(
    fitted: Fit,
    folder: Path,
    asked: Mapping[str, object],
    exponentiate: bool,
    means: Mapping[str, pl.DataFrame],
) -> None:
    """Write the results beside the folder, then rename: a half-written folder cannot appear."""
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    fresh, old = scratch / "new", scratch / "old"
    try:
        fresh.mkdir()
        _write(fitted, fresh, asked, exponentiate, means)
        if folder.exists():
            os.rename(folder, old)
        try:
            os.rename(fresh, folder)
        except OSError:
            if old.exists():
                os.rename(old, folder)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(
    fitted: Fit,
    folder: Path,
    asked: Mapping[str, object],
    exponentiate: bool,
    means: Mapping[str, pl.DataFrame],
) -> None:
    from bayesglmm.posterior.ml import MLPosterior

    design = fitted.model.design
    tables: dict[str, pl.DataFrame] = {"params": fitted.params, **means}
    if design.random or fitted.model.family.has_scale:
        tables["varcorr"] = fitted.varcorr
    if design.random:
        tables |= {"ranef": fitted.ranef, "coef": fitted.coef}
    sampled = not isinstance(fitted.posterior, MLPosterior)
    if not sampled:
        tables["statistics"] = fitted.statistics
    for name, frame in tables.items():
        frame.write_csv(folder / f"{name}.csv")
    text = fitted.summary(exponentiate=exponentiate).text()
    (folder / "summary.txt").write_text(text + "\n", encoding="utf-8")
    if sampled:
        _write_draws(fitted, folder)
    spec = json.dumps(_spec(fitted, asked, sampled), indent=2, ensure_ascii=False, default=str)
    (folder / "spec.json").write_text(spec + "\n", encoding="utf-8")


def _write_draws(fitted: Fit, folder: Path) -> None:
    """The draws as netCDF where a library for it is installed, else as Zarr (nutpie brings it)."""
    import warnings
    from importlib.util import find_spec

    tree = fitted.to_arviz()
    with warnings.catch_warnings():
        # Zarr 3 has no final specification of strings yet; ours are coordinate labels, which
        # the same library reads back.
        warnings.simplefilter("ignore")
        if find_spec("h5netcdf") or find_spec("netCDF4"):
            tree.to_netcdf(folder / "draws.nc")
        else:
            tree.to_zarr(folder / "draws.zarr")


def _spec(fitted: Fit, asked: Mapping[str, object], sampled: bool) -> dict[str, Any]:
    """What was fitted, how, and with which versions."""
    model, design = fitted.model, fitted.model.design
    options = fitted.posterior.run.options if hasattr(fitted.posterior, "run") else fitted.estimator
    packages = ["bayesglmm", "numpy", "scipy", "polars", "formulaic"]
    packages += ["pymc", "pytensor", "nutpie", "arviz"] if sampled else []
    versions = {"python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that is not installed
            versions[name] = "not installed"
    return {
        "formula": model.formula,
        "family": model.family.name,
        "link": model.link.name,
        **asked,
        "rows": design.n,
        "rows_dropped": design.dropped,
        "method": fitted.method,
        "options": asdict(options),
        "versions": versions,
    }
