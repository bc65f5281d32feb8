"""The README's code runs and prints what the README says it prints."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", README, re.DOTALL)


def assert_alike(got: str, shown: str) -> None:
    """The same words, and numbers that agree to what an optimiser gives on any machine."""
    one, two = (re.findall(r"[^\s─┬┼┴┆═╪╌]+", text) for text in (got, shown))
    assert len(one) == len(two), got
    for a, b in zip(one, two, strict=True):
        try:
            assert float(a) == pytest.approx(float(b), rel=1e-5), got
        except ValueError:
            assert a == b, got


def test_readme(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(tmp_path)  # some of it saves fits
    names: dict[str, Any] = {}
    printed = 0
    for code, shown in BLOCKS:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(code, names)
        assert_alike(out.getvalue(), shown)
        printed += bool(shown)
    assert printed
