"""Read a TOML table key by key, so that every mistake is named by its key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bayesglmm.errors import BayesglmmError, nearest


class CatalogueError(BayesglmmError, ValueError):
    """A catalogue entry that cannot be read; the message names the file and the key."""


class Reader:
    """A TOML table being read: values are taken out by key and checked.

    Parameters
    ----------
    table
        What ``tomllib`` made of it.
    where
        File and path of keys, for messages.

    Examples
    --------
    >>> r = Reader({"title": "x", "fromula": "y ~ x"}, "a.toml")
    >>> r.text("title")
    'x'
    >>> r.text("formula")
    Traceback (most recent call last):
    ...
    bayesglmm.catalogue.reader.CatalogueError: a.toml: the key 'formula' is missing
    """

    def __init__(self, table: Mapping[str, Any], where: str) -> None:
        self._table = dict(table)
        self._asked: list[str] = []
        self.where = where

    def fail(self, message: str) -> CatalogueError:
        """An error at this place."""
        return CatalogueError(f"{self.where}: {message}")

    def _take(self, key: str, kinds: tuple[type, ...], described: str, default: Any) -> Any:
        self._asked.append(key)
        if key not in self._table:
            if default is None:
                raise self.fail(f"the key {key!r} is missing")
            return default
        value = self._table.pop(key)
        # A TOML boolean is no number, though Python's is.
        wrong = isinstance(value, bool) and bool not in kinds
        if wrong or not isinstance(value, kinds):
            raise self.fail(f"{key} = {value!r}: give {described}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        return str(self._take(key, (str,), "a string", default))

    def prose(self, key: str, default: str | None = None) -> str:
        """A string for reading, its line breaks turned into spaces."""
        return " ".join(self.text(key, default).split())

    def flag(self, key: str, default: bool) -> bool:
        """A boolean."""
        return bool(self._take(key, (bool,), "true or false", default))

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """A list of strings; one string stands for a list of one."""
        value = self._take(key, (str, list, tuple), "a string or a list of strings", default)
        if isinstance(value, str):
            return (value,)
        if not all(isinstance(v, str) for v in value):
            raise self.fail(f"{key} = {value!r}: give a list of strings")
        return tuple(value)

    def table(self, key: str, required: bool = False) -> dict[str, Any]:
        """A table, empty when absent unless required."""
        return dict(self._take(key, (dict,), "a table", None if required else {}))

    def text_table(self, key: str) -> dict[str, str]:
        """A table of strings."""
        found = self.table(key)
        for name, value in found.items():
            if not isinstance(value, str):
                raise self.fail(f"{key}.{name} = {value!r}: give a string")
        return found

    def tables(self, key: str) -> list[Reader]:
        """An array of tables, empty when absent."""
        found = self._take(key, (list,), f"tables, each headed [[{key}]]", [])
        for k, item in enumerate(found):
            if not isinstance(item, dict):
                raise self.fail(f"{key}[{k}]: give a table, headed [[{key}]]")
        return [Reader(item, f"{self.where}: {key}[{k}]") for k, item in enumerate(found)]

    def inner(self, key: str) -> Reader:
        """A required table, to be read in its turn."""
        return Reader(self.table(key, required=True), f"{self.where}: {key}")

    def anything(self, key: str, default: Any) -> Any:
        """A value of any type."""
        self._asked.append(key)
        return self._table.pop(key, default)

    def choice(self, key: str, allowed: Iterable[str], default: str | None = None) -> str:
        """A string out of a set."""
        choices = list(allowed)
        value = self.text(key, default)
        if value not in choices:
            raise self.fail(
                f"{key} = {value!r} is not known{nearest(value, choices)}; "
                f"allowed: {', '.join(map(repr, choices))}"
            )
        return value

    def finish(self) -> None:
        """Refuse keys that nobody asked for.

        Raises
        ------
        CatalogueError
            With the nearest key that exists.
        """
        for key in self._table:
            raise self.fail(
                f"the key {key!r} is not known{nearest(key, self._asked)}; "
                f"there are {', '.join(self._asked)}"
            )
