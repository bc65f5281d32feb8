"""The catalogue of worked models: what each is, and the figures that others published of it."""

from bayesglmm.catalogue.entry import CatalogueError, Entry, read_entry
from bayesglmm.catalogue.figure import Figure
from bayesglmm.catalogue.find import catalogue_folder, entry_names, find_entry, load_entries
from bayesglmm.catalogue.judge import Check
from bayesglmm.catalogue.run import Run, run_entry

__all__ = [
    "CatalogueError",
    "Check",
    "Entry",
    "Figure",
    "Run",
    "catalogue_folder",
    "entry_names",
    "find_entry",
    "load_entries",
    "read_entry",
    "run_entry",
]
