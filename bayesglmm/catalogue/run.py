"""Run an entry: fit it by every method it lists, and judge the fits."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bayesglmm.catalogue.entry import Entry
from bayesglmm.catalogue.judge import Check, figure_checks, sampling_checks
from bayesglmm.errors import BayesglmmWarning, check_choice
from bayesglmm.laplace import ML
from bayesglmm.model import fit as fit_model
from bayesglmm.nuts.options import NUTS

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

METHODS = ("ml", "nuts")


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run of an entry.

    Attributes
    ----------
    entry
        What was run.
    fits, seconds
        The fits and their wall time by name.
    checks
        The verdict, line by line.
    """

    entry: Entry
    fits: dict[str, Fit]
    seconds: dict[str, float]
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether everything that is judged agrees."""
        return all(check.ok for check in self.checks)

    @property
    def figures(self) -> tuple[Check, ...]:
        """The published figures that are judged."""
        return tuple(c for c in self.checks if c.kind == "figure" and c.judged)

    @property
    def largest(self) -> float:
        """Largest deviation of a published figure, in units of its tolerance; 0 without any."""
        return max((c.deviation for c in self.figures), default=0.0)


def run_entry(
    entry: Entry, methods: Collection[str] = METHODS, before: Callable[[str], None] | None = None
) -> Run:
    """Fit an entry by the methods it lists and judge every figure.

    Parameters
    ----------
    entry
        From :func:`bayesglmm.catalogue.read_entry`.
    methods
        Restricts the fits: ``("ml",)`` leaves out sampling.
    before
        Called with the name of each fit before it starts, to show progress.

    Raises
    ------
    ChoiceError
        For an unknown method.
    CatalogueError
        If a figure names a row or column that a fit does not have.

    Examples
    --------
    >>> from bayesglmm.catalogue import find_entry, read_entry
    >>> run_entry(read_entry(find_entry("titanic_glm")), ["ml"]).ok
    True
    """
    for method in methods:
        check_choice("method", method, METHODS)
    model = entry.model()
    fits: dict[str, Fit] = {}
    seconds: dict[str, float] = {}
    for name, how in entry.fits.items():
        if ("ml" if isinstance(how, ML) else "nuts") not in methods:
            continue
        if before is not None:
            before(name)
        if isinstance(how, NUTS):
            how = replace(how, progress=False)  # a bar would break the tables apart
        started = time.perf_counter()
        with warnings.catch_warnings():
            # What a fit warns of stands in its summary and fails the verdict.
            warnings.simplefilter("ignore", BayesglmmWarning)
            fits[name] = fit_model(model, how)
        seconds[name] = time.perf_counter() - started
    return Run(entry, fits, seconds, figure_checks(entry, fits) + sampling_checks(fits))
