"""Compiled code on disk, and what is said while it is made."""

from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from numba import njit
from numba.core import caching

import bayesglmm as bg
from bayesglmm.laplace import chain
from bayesglmm.numba_cache import Announcement, fingerprint


def compiling(module: str) -> Any:
    function = SimpleNamespace(__module__=module)
    return SimpleNamespace(data={"dispatcher": SimpleNamespace(py_func=function)})


@pytest.mark.parametrize("watched", [True, False])
def test_compiling_is_announced_once_to_a_person(
    monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: watched)
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    announcement = Announcement()
    announcement.on_start(compiling("somebody.else"))
    assert out.getvalue() == ""
    for _ in range(2):
        announcement.on_start(compiling("bayesglmm.laplace.kernels"))
    assert out.getvalue().count("compiles its numerical kernels") == int(watched)


def test_functions_without_a_module_compile() -> None:
    """Other packages make them of text, PyTensor among them."""
    scope: dict[str, Any] = {}
    exec("def double(x): return 2 * x", scope)
    assert scope["double"].__module__ is None
    assert njit(scope["double"])(2) == 4


def test_the_stamp_of_a_kernel_covers_the_package() -> None:
    """A change of any compiled file makes every function on disk stale."""
    made = caching.FunctionCache(chain.modes.py_func)  # type: ignore[no-untyped-call]
    stamp = made._impl.locator.get_source_stamp()
    assert len(stamp) == 2 and stamp[1] == fingerprint()


def test_every_function_names_what_a_division_by_zero_does() -> None:
    """Else it does what it did for whoever compiled it first, and keeps doing it from disk."""
    found = 0
    for path in sorted(Path(bg.__file__).parent.rglob("*.py")):
        if "numba" not in path.read_text(encoding="utf-8"):
            continue
        parts = path.relative_to(Path(bg.__file__).parents[1]).with_suffix("").parts
        for name, value in vars(importlib.import_module(".".join(parts))).items():
            options = getattr(value, "targetoptions", None)
            if options is not None and value.py_func.__module__ == ".".join(parts):
                assert options.get("error_model") == "numpy", f"{path.name}: {name}"
                found += 1
    assert found > 100
