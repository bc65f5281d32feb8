"""Build the bundled parquet files from plain CSVs.

Usage::

    python scripts/make_datasets.py FOLDER

``FOLDER`` holds ``titanic.csv``, ``contra.csv``, ``sleepstudy.csv``, ``grouseticks.csv``,
``cbpp.csv``, ``penicillin.csv``, ``pastes.csv``, ``dyestuff.csv``, ``dyestuff2.csv``,
``verbagg.csv``, ``insteval.csv`` and pymer4's tables as ``pymer4_<name>.csv``.  The tables of
R packages are what ``write.csv(table, file, row.names = FALSE)`` writes.

A CSV forgets which columns are factors and how their levels are ordered, so that is
recorded here.  Nothing else is changed: rows, column names and values are the CSV's.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

OUT = Path(__file__).resolve().parent.parent / "bayesglmm" / "datasets" / "files"

type Levels = Callable[[pl.Series], list[str]]
"""The levels of a factor, in order, from the column's text."""


def numeric(column: pl.Series) -> list[str]:
    """Levels that are numbers, in numeric order (R's, for a factor made from numbers)."""
    return sorted(column.unique().to_list(), key=int)


def alphabetic(column: pl.Series) -> list[str]:
    """Levels in alphabetic order (R's default)."""
    return sorted(column.unique().to_list())


def appearance(column: pl.Series) -> list[str]:
    """Levels in the order in which the rows first show them."""
    levels: list[str] = column.unique(maintain_order=True).to_list()
    return levels


def given(*levels: str) -> Levels:
    """Levels in an order that neither rule explains, as R has it."""

    def rule(column: pl.Series) -> list[str]:
        if set(levels) != set(column.unique().to_list()):
            raise ValueError(f"{column.name} has other levels than {levels}")
        return list(levels)

    return rule


FACTORS: Mapping[str, Mapping[str, Levels]] = {
    "sleepstudy": {"Subject": numeric},
    "grouseticks": {"INDEX": numeric, "BROOD": numeric, "YEAR": numeric, "LOCATION": numeric},
    "cbpp": {"herd": numeric, "period": numeric},
    "penicillin": {"plate": alphabetic, "sample": alphabetic},
    "pastes": {"batch": alphabetic, "cask": alphabetic, "sample": alphabetic},
    "dyestuff": {"Batch": alphabetic},
    "dyestuff2": {"Batch": alphabetic},
    "verbagg": {
        "Gender": alphabetic,
        "item": appearance,
        "resp": given("no", "perhaps", "yes"),  # ordered in R
        "id": numeric,
        "btype": alphabetic,
        "situ": alphabetic,
        "mode": given("want", "do"),
        "r2": alphabetic,
    },
    "insteval": {
        "s": numeric,
        "d": numeric,
        "studage": numeric,  # ordered in R
        "lectage": numeric,  # ordered in R
        "service": numeric,
        "dept": given(*"15 5 10 12 6 7 4 8 9 14 1 3 11 2".split()),
    },
}

# Measurements that happen to be whole numbers in every row.
MEASURED: Mapping[str, tuple[str, ...]] = {
    "penicillin": ("diameter",),
    "dyestuff": ("Yield",),
}


def read(csv: Path, name: str) -> pl.DataFrame:
    """Read one CSV and give its columns the types that the table has in R."""
    factors = FACTORS.get(name, {})
    overrides: dict[str, type[pl.DataType]] = dict.fromkeys(factors, pl.String)
    overrides |= dict.fromkeys(MEASURED.get(name, ()), pl.Float64)
    table = pl.read_csv(csv, schema_overrides=overrides, infer_schema_length=None)
    return table.with_columns(
        pl.col(column).cast(pl.Enum(levels(table[column]))) for column, levels in factors.items()
    )


def main() -> None:
    """Build every table of the folder given on the command line."""
    parser = argparse.ArgumentParser(description="Build the bundled parquet files from CSVs.")
    parser.add_argument("folder", type=Path, help="the folder with the CSVs")
    folder: Path = parser.parse_args().folder

    OUT.mkdir(parents=True, exist_ok=True)
    for csv in sorted(folder.glob("*.csv")):
        name = csv.stem.removeprefix("pymer4_")
        table = read(csv, name)
        target = OUT / f"{name}.parquet"
        table.write_parquet(target, compression="zstd", compression_level=19)
        print(f"{name:12} {table.height:6} × {table.width:<3} {target.stat().st_size:8} bytes")


if __name__ == "__main__":
    main()
