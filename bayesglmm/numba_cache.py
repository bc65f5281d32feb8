"""Compiled code on disk is valid as long as all compiled code of the package is.

Numba keeps a function until its own file changes, but the machine code has the functions it
calls inside, from other files: after an upgrade, kernels would go on computing what an earlier
version computed. Here the stamp of every function of this package covers all files that hold
compiled code.
"""

from __future__ import annotations

import hashlib
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from numba.core import caching, event

_PACKAGE = Path(__file__).resolve().parent
_IMPORTS = re.compile(rb"^(from|import) numba", re.MULTILINE)


@cache
def fingerprint() -> str:
    """Of all source files of the package that import numba."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        text = path.read_bytes()
        if _IMPORTS.search(text):
            digest.update(text)
    return digest.hexdigest()


def _covering(base: Any) -> Any:
    class Covering(base):  # type: ignore[misc]
        def get_source_stamp(self) -> Any:
            return super().get_source_stamp(), fingerprint()

        @classmethod
        def from_function(cls, py_func: Any, py_file: str) -> Any:
            inside = Path(py_file).resolve().is_relative_to(_PACKAGE)
            return super().from_function(py_func, py_file) if inside else None

    return Covering


class Announcement(event.Listener):
    """Says once, to a person who waits, that functions are being compiled."""

    def __init__(self) -> None:
        self.said = False

    def on_start(self, event: Any) -> None:
        module = event.data["dispatcher"].py_func.__module__ or ""  # made by exec: of nowhere
        if self.said or not module.startswith("bayesglmm."):
            return
        self.said = True
        if sys.stderr.isatty() or "ipykernel" in sys.modules:
            sys.stderr.write(
                "bayesglmm compiles its numerical kernels for this machine: a minute or two, once "
                "after each installation.\n"
            )

    def on_end(self, event: Any) -> None:
        """Nothing to say."""


def cover_package() -> None:
    """Let numba's cache know; done once, before the first function is made."""
    known = caching.CacheImpl._locator_classes
    if not any(cls.__name__ == "Covering" for cls in known):
        event.register("numba:compile", Announcement())  # type: ignore[no-untyped-call]
        files = [cls for cls in known if issubclass(cls, caching._SourceFileBackedLocatorMixin)]
        caching.CacheImpl._locator_classes = [*map(_covering, files), *known]
