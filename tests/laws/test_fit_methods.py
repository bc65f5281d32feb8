"""Every public function of a fit is also a method of it, or an attribute, and the same."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import bayesglmm as bg
from bayesglmm.tables import Table

FUNCTIONS: list[Callable[..., Any]] = [
    f
    for f in (getattr(bg, name) for name in bg.__all__)
    if inspect.isfunction(f) and next(iter(inspect.signature(f).parameters), "") == "fit"
]


def name_of(function: Callable[..., Any]) -> str:
    return function.__name__


@pytest.fixture(scope="module")
def fit() -> bg.Fit:
    return bg.glmer(
        "TICKS ~ YEAR + cHEIGHT + (1|BROOD)", bg.load_dataset("grouseticks"), family="poisson"
    ).fit()


@pytest.mark.parametrize("function", FUNCTIONS, ids=name_of)
def test_signatures_agree(function: Callable[..., Any]) -> None:
    found = inspect.getattr_static(bg.Fit, function.__name__)
    assert f":func:`bayesglmm.{function.__name__}`" in str(found.__doc__)
    if isinstance(found, property):  # of the function's defaults
        rest = list(inspect.signature(function).parameters.values())[1:]
        assert all(p.default is not p.empty for p in rest)
        return
    ours, theirs = (list(inspect.signature(f).parameters.values())[1:] for f in (found, function))
    assert [(p.name, p.kind, p.default) for p in ours] == [
        (p.name, p.kind, p.default) for p in theirs
    ]


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (bg.hatvalues, {}),
        (bg.cooks_distance, {}),
        (bg.overdispersion, {}),
        (bg.vif, {}),
        (bg.caic, {"df": "trace"}),
        (bg.residuals, {"type": "deviance"}),
        (bg.icc, {"level": 0.9}),
        (bg.drop1, {}),
        (bg.statistics, {}),
        (bg.ranef, {}),
    ],
    ids=lambda v: name_of(v) if callable(v) else "",
)
def test_methods_forward(fit: bg.Fit, function: Callable[..., Any], arguments: Any) -> None:
    found = getattr(fit, function.__name__)
    here = found if isinstance(found, Table) else found(**arguments)
    there = function(fit, **arguments)
    assert here.equals(there) and here.caption == there.caption


def test_trends_forward(fit: bg.Fit) -> None:
    here = fit.emtrends("cHEIGHT", by="YEAR", level=0.9)
    there = bg.emtrends(fit, "cHEIGHT", by="YEAR", level=0.9)
    assert str(here) == str(there)
