"""The models that are timed on real data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

import bayesglmm as bg


@dataclass(frozen=True)
class Case:
    """One model, in our words and in R's.

    Attributes
    ----------
    name
        What ``--only`` calls it.
    slow
        Rivals need minutes: they run once, without a warm-up.
    """

    name: str
    dataset: str
    formula: str
    family: str = "gaussian"
    nagq: int = 1
    r_formula: str = ""
    slow: bool = False

    @property
    def method(self) -> bg.ML:
        """How it is fitted."""
        return bg.ML(nagq=self.nagq)

    @property
    def response(self) -> str:
        """The column that is modelled."""
        return self.formula.split("~")[0].strip()

    def load(self) -> pl.DataFrame:
        """The data, its columns as they are shipped."""
        return bg.load_dataset(self.dataset)

    def model(self, data: pl.DataFrame) -> bg.Model:
        """Formula and data, ready to be fitted."""
        return bg.model(self.formula, data, family=self.family)

    def whole(self, data: pl.DataFrame) -> Callable[[], bg.Fit]:
        """The whole call: formula and data frame to fit."""
        return lambda: bg.fit(self.model(data), self.method)


CASES = (
    Case("sleepstudy", "sleepstudy", "Reaction ~ Days + (Days|Subject)"),
    Case("titanic", "titanic", "survived ~ sex + (1|pclass)", "binomial"),
    Case("grouseticks", "grouseticks", "TICKS ~ YEAR + (1|LOCATION)", "poisson"),
    Case("grouseticks-index", "grouseticks", "TICKS ~ YEAR + (1|LOCATION) + (1|INDEX)", "poisson"),
    Case("grouseticks-slopes", "grouseticks", "TICKS ~ YEAR + (YEAR|LOCATION)", "poisson"),
    Case(
        "contra",
        "contra",
        "use ~ age + abs2(age) + urban + livch + (1|dist)",
        "binomial",
        nagq=9,
        r_formula="use ~ age + I(age^2) + urban + livch + (1|dist)",
    ),
    Case(
        "verbagg",
        "verbagg",
        "r2 ~ Anger + Gender + btype + situ + (1|id) + (1|item)",
        "binomial",
    ),
    Case("insteval", "insteval", "y ~ service + (1|s) + (1|d) + (1|dept)", slow=True),
    Case("insteval-slopes", "insteval", "y ~ service + (1|s) + (1 + service|d)", slow=True),
)
