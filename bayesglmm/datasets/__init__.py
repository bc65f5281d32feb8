"""The tables that ship with the package, as polars frames.

Where each comes from is told in ``PROVENANCE.md`` beside this file;
``scripts/make_datasets.py`` builds the parquet files from plain CSVs.
"""

from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from types import MappingProxyType

import polars as pl

from bayesglmm.errors import check_choice

__all__ = ["list_datasets", "load_dataset"]


@dataclass(frozen=True, slots=True)
class _About:
    """What a table holds, and who published it."""

    title: str
    source: str


_CATALOGUE = MappingProxyType(
    {
        "advertising": _About(
            "Sales of a product in 200 markets, by advertising budget",
            "James, Witten, Hastie & Tibshirani 2013; pymer4",
        ),
        "cbpp": _About(
            "Contagious bovine pleuropneumonia in 15 herds over 4 periods",
            "Lesnoff et al. 2004; R lme4",
        ),
        "chickweight": _About(
            "Weight of 50 chicks over time on 4 diets",
            "Crowder & Hand 1990; R datasets, by way of pymer4",
        ),
        "contra": _About(
            "Use of contraception by 1934 women in Bangladesh",
            "Huq & Cleland 1990; R mlmRev, as in MixedModels.jl",
        ),
        "credit": _About(
            "Credit card balance of 400 simulated customers",
            "James, Witten, Hastie & Tibshirani 2013; pymer4",
        ),
        "dyestuff": _About(
            "Yield of dyestuff from 6 batches",
            "Davies & Goldsmith 1972; R lme4",
        ),
        "dyestuff2": _About(
            "Simulated yields whose estimated batch variance is zero",
            "Box & Tiao 1973; R lme4",
        ),
        "gammas": _About(
            "Simulated brain response over time in 3 regions",
            "seaborn example data, by way of pymer4",
        ),
        "grouseticks": _About(
            "Ticks on 403 red grouse chicks, by brood, location and year",
            "Elston et al. 2001; R lme4",
        ),
        "insteval": _About(
            "73421 ratings of lecturers by students at ETH Zurich",
            "R lme4 InstEval",
        ),
        "mtcars": _About(
            "Fuel consumption and design of 32 cars, 1973-74",
            "Henderson & Velleman 1981; R datasets, by way of pymer4",
        ),
        "pastes": _About(
            "Strength of a paste, by batch and cask within batch",
            "Davies & Goldsmith 1972; R lme4",
        ),
        "penguins": _About(
            "Size of 344 penguins of 3 species, Palmer Archipelago",
            "Gorman, Williams & Fraser 2014; palmerpenguins, by way of pymer4",
        ),
        "penicillin": _About(
            "Diameter of growth inhibition, by plate and sample",
            "Davies & Goldsmith 1972; R lme4",
        ),
        "poker": _About(
            "Balance of 300 players, by skill, hand and betting limit",
            "Meyer et al. 2013; pymer4",
        ),
        "sample_data": _About(
            "Simulated grouped data with a continuous and a binary response",
            "pymer4",
        ),
        "sleep": _About(
            "The sleepstudy data with the columns as pymer4 has them",
            "Belenky et al. 2003; pymer4",
        ),
        "sleepstudy": _About(
            "Reaction time of 18 subjects by days of sleep deprivation",
            "Belenky et al. 2003; R lme4",
        ),
        "titanic": _About(
            "Survival of 891 passengers of the Titanic",
            "seaborn example data, as in pymer4's tutorial",
        ),
        "verbagg": _About(
            "Verbal aggression: 24 items answered by 316 persons",
            "De Boeck & Wilson 2004; R lme4",
        ),
    }
)


def load_dataset(name: str) -> pl.DataFrame:
    """Read one of the bundled tables.

    What is a factor in R is a polars ``Enum`` here, its categories in R's level
    order; other text columns are plain strings.

    Parameters
    ----------
    name : str
        One of the names that `list_datasets` shows, for instance ``"sleepstudy"``.

    Returns
    -------
    polars.DataFrame
        A new frame at each call, yours to change.

    Raises
    ------
    ChoiceError
        If there is no such table; the message names the nearest one.

    Examples
    --------
    >>> from bayesglmm.datasets import load_dataset
    >>> load_dataset("sleepstudy").head(2)
    shape: (2, 3)
    ┌──────────┬──────┬─────────┐
    │ Reaction ┆ Days ┆ Subject │
    │ ---      ┆ ---  ┆ ---     │
    │ f64      ┆ i64  ┆ enum    │
    ╞══════════╪══════╪═════════╡
    │ 249.56   ┆ 0    ┆ 308     │
    │ 258.7047 ┆ 1    ┆ 308     │
    └──────────┴──────┴─────────┘
    """
    check_choice("name", name, tuple(_CATALOGUE))
    return pl.read_parquet(_parquet(name))


def list_datasets() -> pl.DataFrame:
    """List the bundled tables.

    Returns
    -------
    polars.DataFrame
        Columns ``name``, ``rows``, ``columns``, ``title``, ``source``; one row a table.

    Examples
    --------
    >>> from bayesglmm.datasets import list_datasets
    >>> list_datasets().filter(name="cbpp").row(0)[:3]
    ('cbpp', 56, 4)
    """
    records = []
    for name, about in _CATALOGUE.items():
        table = pl.scan_parquet(_parquet(name))
        records.append(
            {
                "name": name,
                "rows": table.select(pl.len()).collect().item(),
                "columns": len(table.collect_schema()),
                "title": about.title,
                "source": about.source,
            }
        )
    return pl.DataFrame(records)


def _parquet(name: str) -> BytesIO:
    # Read as bytes, so that the package also works from a zip archive.
    return BytesIO((files(__name__) / "files" / f"{name}.parquet").read_bytes())
