"""Formulas: what the parser reads, and where its errors point."""

from __future__ import annotations

import pickle

import pytest

from bayesglmm.errors import (
    ChoiceError,
    FormulaError,
    caret,
    check_choice,
    nearest,
)
from bayesglmm.formula import Bar, parse


def bars(text: str) -> list[tuple[str, str, bool]]:
    return [(b.terms, ":".join(b.group), b.correlated) for b in parse(text).bars]


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("(1|g)", [("1", "g", True)]),
        ("(x|g)", [("x", "g", True)]),
        ("(0+x|g)", [("0 + x", "g", True)]),
        ("(-1 + x | g)", [("-1 + x", "g", True)]),
        ("(x||g)", [("x", "g", False)]),
        ("(1 + x || g)", [("1 + x", "g", False)]),
        ("zerocorr(1+x|g)", [("1 + x", "g", False)]),
        ("zerocorr((1 + I(x^2) | g))", [("1 + I(x**2)", "g", False)]),
        ("diag(x|g)", [("x", "g", False)]),
        ("us(x|g)", [("x", "g", True)]),
        ("(1|a/b)", [("1", "a", True), ("1", "a:b", True)]),
        ("(1|a/b/c)", [("1", "a", True), ("1", "a:b", True), ("1", "a:b:c", True)]),
        ("(1|a:b)", [("1", "a:b", True)]),
        ("(1|a & b)", [("1", "a:b", True)]),
        ("(1|a*b)", [("1", "a", True), ("1", "b", True), ("1", "a:b", True)]),
        ("(1|(a:b)/c)", [("1", "a:b", True), ("1", "a:b:c", True)]),
        ("(x|a) + (1|a)", [("x", "a", True), ("1", "a", True)]),
        ("((1|g))", [("1", "g", True)]),
        ("(1|factor(g))", [("1", "g", True)]),
        ("(1|`my group`)", [("1", "my group", True)]),
        ("(a*b + I(x^2)|g)", [("a * b + I(x**2)", "g", True)]),
    ],
)
def test_bars(term: str, expected: list[tuple[str, str, bool]]) -> None:
    assert bars(f"y ~ z + {term}") == expected
    assert parse(f"y ~ z + {term}").fixed == "z"
    assert bars(f"y ~ {term}") == expected
    assert parse(f"y ~ {term}").fixed == "1"


def test_bar_keeps_its_text() -> None:
    assert parse("y ~ x + ( 1|a/b )").bars[1] == Bar("1", ("a", "b"), True, "( 1|a/b )")


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("y ~ 1", "1"),
        ("y ~ 0 + (1|g)", "0"),
        ("y ~ x - 1 + (1|g)", "x - 1"),
        ("y ~ -1 + x", "-1 + x"),
        ("y ~ (1|g) + x", "x"),
        ("y ~ a & b", "a:b"),
        ("y ~ (a + b) & c", "(a + b):c"),
        ("y ~ abs2(x) + I(x^2)", "abs2(x) + I(x**2)"),
        ("y ~ (a + b)^2", "(a + b)^2"),
        ("y ~ log (x + 1)", "log(x + 1)"),
        ("y ~ I(a & b)", "I(a & b)"),
        ("y ~ I(a|b)", "I(a | b)"),
        ("y ~ I(x^-1)", "I(x**-1)"),
        ("y ~ as.factor(x)", "factor(x)"),
        ("y ~ poly(x, 2, raw = TRUE)", "poly(x, 2, raw = TRUE)"),
        ("y ~ `a b` * c", "`a b` * c"),
        ("y ~ x + offset(log(n))", "x"),
        ("y ~ offset(n)", "1"),
    ],
)
def test_fixed_part(text: str, fixed: str) -> None:
    assert parse(text).fixed == fixed


def test_response_offsets_and_text() -> None:
    formula = parse(" cbind(s, n-s) ~ x + offset(log(n^2)) + offset(z) ")
    assert formula.response == "cbind(s, n - s)"
    assert formula.offsets == ("log(n**2)", "z")
    assert str(formula) == formula.text == "cbind(s, n-s) ~ x + offset(log(n^2)) + offset(z)"
    assert parse(str(formula)) == formula


@pytest.mark.parametrize(
    ("text", "phrase", "at"),
    [
        ("", "empty", -1),
        ("   ", "empty", -1),
        ("y x", "no '~'", -1),
        ("~ x", "response before '~' is missing", 0),
        ("y ~", "nothing follows", 2),
        ("y ~ x ~ z", "one '~'", 6),
        ("y ~ I(a ~ b)", "one '~'|inside brackets", 8),
        ("y ~ (1|g", "never closed", 4),
        ("y ~ 1|g)", "closes nothing", 7),
        ("y ~ log(x]", "closes nothing", 9),
        ("y ~ x + 1|g", r"outside brackets; put .* in brackets", 9),
        ("y ~ (|g)", "on the left of this bar", 5),
        ("y ~ (1|)", "on the right of this bar", 6),
        ("y ~ (1|g|h)", "one bar", 8),
        ("y ~ (1|g)*x", "joined to the rest by '\\+'", 6),
        ("y ~ (x + (1|g))", "joined to the rest by '\\+'", 11),
        ("y ~ x - (1|g)", "added, not subtracted", 8),
        ("y ~ (1|a+b)", r"\(1\|a\) \+ \(1\|b\)", 8),
        ("y ~ (1|2)", "column name, not '2'", 7),
        ("y ~ (1|log(g))", "compute log", 7),
        ("y ~ (1|a/)", "nothing on its right", 8),
        ("y ~ cs(x|g)", r"cs\(\) is not supported", 4),
        ("y | trials(n) ~ x", "trials='column'", 2),
        ("y ~ x +", "'\\+' has nothing on its right", 6),
        ("y ~ x + * z", "has nothing on its left", 8),
        ("y ~ x z", "operator is missing", 6),
        ("y ~ .", "not supported; name the columns", 4),
        ("y ~ ()", "brackets are empty", 5),
        ("y ~ `a", "never closed", 4),
        ("y ~ x # z", "means nothing", 6),
        ("y ~ x:offset(z)", "stands on its own", 6),
        ("y ~ x - offset(z)", "an offset is added", 8),
        ("y ~ ((x|g)|h)", "bars cannot be nested", 7),
        ("y ~ (x|g|h)", "one bar", 8),
    ],
)
def test_errors_point_into_the_formula(text: str, phrase: str, at: int) -> None:
    with pytest.raises(FormulaError, match=phrase) as caught:
        parse(text)
    error = caught.value
    assert error.position == at
    if at >= 0:
        lines = str(error).splitlines()
        assert lines[-2] == "  " + text
        assert lines[-1].index("^") == at + 2
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_formula_is_text() -> None:
    with pytest.raises(FormulaError, match="not int"):
        parse(3)  # type: ignore[arg-type]


def test_nearest_ignores_case_and_stays_silent_when_far() -> None:
    assert nearest("Gausian", ["gaussian", "poisson"]) == "; did you mean 'gaussian'?"
    assert nearest("zzz", ["gaussian"]) == ""
    assert caret("", 3) == ""


def test_check_choice_names_everything() -> None:
    check_choice("missing", "drop", ("drop", "error"))
    for bad in ("Drop", 3, None):
        with pytest.raises(ChoiceError, match=r"missing=.*Allowed: 'drop', 'error'"):
            check_choice("missing", bad, ("drop", "error"))
    with pytest.raises(ChoiceError, match="did you mean 'drop'"):
        check_choice("missing", "dorp", ("drop", "error"))
