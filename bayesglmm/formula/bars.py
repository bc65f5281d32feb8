"""Random-effects terms: ``(x | g)`` and its relatives to Bar records."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from bayesglmm.errors import FormulaError
from bayesglmm.formula.tokens import Token, emit, tokenize

_UNCORRELATED = ("zerocorr", "diag")
_CORRELATED = ("us",)
_UNSUPPORTED = ("cs", "homcs", "hetcs", "ar1", "hetar1", "homdiag", "toep", "rr", "gr", "mm", "s")

Group = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """One random-effects term.

    Attributes
    ----------
    terms
        What varies, as formulaic reads it, e.g. ``"1 + Days"``; an intercept is implicit, as in
        lme4.
    group
        The grouping columns: ``("urban", "dist")`` for ``urban:dist``.
    correlated
        False for ``||`` and ``zerocorr``: every column independent of the others.
    text
        The term as the user wrote it.

    Examples
    --------
    >>> Bar("1 + Days", ("Subject",), True, "(Days|Subject)").group
    ('Subject',)
    """

    terms: str
    group: Group
    correlated: bool
    text: str


def is_bar_term(item: Sequence[Token]) -> bool:
    """Tell whether an additive item is ``( ... | ... )`` or ``zerocorr( ... | ... )``.

    Examples
    --------
    >>> from bayesglmm.formula.tokens import tokenize
    >>> is_bar_term(tokenize("(1|g)")), is_bar_term(tokenize("I(a|b)"))
    (True, False)
    """
    inner, name = _unwrap(item)
    if name and name not in (*_UNCORRELATED, *_CORRELATED, *_UNSUPPORTED):
        return False
    return len(inner) < len(item) and any(
        t.text in ("|", "||") and t.depth == _depth(inner) for t in inner
    )


def read_bars(item: Sequence[Token], text: str) -> list[Bar]:
    """Read one random-effects item; nesting ``a/b`` and crossing ``a*b`` give several bars.

    Parameters
    ----------
    item
        Tokens for which `is_bar_term` holds.
    text
        The whole formula, for error messages.

    Returns
    -------
    list of Bar
        In the order a, a:b, a:b:c.

    Raises
    ------
    FormulaError
        For an empty side, two bars, or a grouping expression that cannot be read.

    Examples
    --------
    >>> from bayesglmm.formula.tokens import tokenize
    >>> formula = "(1|a/b)"
    >>> [b.group for b in read_bars(tokenize(formula), formula)]
    [('a',), ('a', 'b')]
    """
    inner, name = _unwrap(item)
    if name in _UNSUPPORTED:
        raise FormulaError(
            f"the covariance structure {name}() is not supported; available: (x|g), (x||g)",
            text,
            item[0].start,
            len(name),
        )
    depth = _depth(inner)
    places = [i for i, t in enumerate(inner) if t.text in ("|", "||") and t.depth == depth]
    if len(places) > 1:
        raise FormulaError("a term has one bar", text, inner[places[1]].start)
    at = places[0]
    left, right = inner[:at], inner[at + 1 :]
    if not left:
        raise FormulaError(
            "nothing stands on the left of this bar; write (1|g) for a random intercept",
            text,
            inner[at].start,
        )
    if not right:
        raise FormulaError(
            "nothing stands on the right of this bar; write (1|g) with a grouping factor",
            text,
            inner[at].start,
        )
    for token in left:
        if token.text in ("|", "||") and not token.in_call:
            raise FormulaError("bars cannot be nested", text, token.start)
    correlated = inner[at].text == "|" and name not in _UNCORRELATED
    written = text[item[0].start : item[-1].end]
    # Cut anew: inside zerocorr(...) every token counts as in a call, where ^ means power.
    terms = emit(tokenize(text[left[0].start : left[-1].end]))
    groups = _Groups(right, text).read()
    return [Bar(terms, group, correlated, written) for group in groups]


def _unwrap(item: Sequence[Token]) -> tuple[Sequence[Token], str]:
    """Strip brackets that surround the whole item, and at most one function name."""
    name = ""
    while len(item) >= 2:
        if not name and len(item) >= 3 and item[0].kind == "name" and item[1].text == "(":
            if not _surrounds(item[1:]):
                break
            name, item = item[0].text, item[2:-1]
        elif item[0].text == "(" and _surrounds(item):
            item = item[1:-1]
        else:
            break
    return item, name


def _surrounds(item: Sequence[Token]) -> bool:
    """Whether the first bracket is closed by the last token."""
    if item[0].kind != "open" or item[-1].kind != "close":
        return False
    return all(t.depth > item[0].depth for t in item[1:-1])


def _depth(item: Sequence[Token]) -> int:
    return min((t.depth for t in item), default=0)


class _Groups:
    """Recursive descent over a grouping expression: names joined by ``/ * : &``."""

    def __init__(self, tokens: Sequence[Token], text: str) -> None:
        self.tokens = tokens
        self.text = text
        self.at = 0

    def read(self) -> list[Group]:
        groups = self.product()
        if self.at < len(self.tokens):
            token = self.tokens[self.at]
            advice = (
                "write one term for each grouping factor: (1|a) + (1|b)"
                if token.text == "+"
                else "grouping factors are joined by ':', '/' or '*'"
            )
            raise FormulaError(
                f"{token.text!r} cannot stand here; {advice}", self.text, token.start
            )
        return _unique(groups)

    def product(self) -> list[Group]:
        groups = self.interaction()
        while self.peek() in ("/", "*"):
            symbol = self.take().text
            more = self.interaction()
            if symbol == "/":
                outer = tuple(dict.fromkeys(itertools.chain(*groups)))
                groups = groups + [_merge(outer, g) for g in more]
            else:
                groups = groups + more + [_merge(a, b) for a in groups for b in more]
        return groups

    def interaction(self) -> list[Group]:
        groups = self.atom()
        while self.peek() in (":", "&"):
            self.take()
            groups = [_merge(a, b) for a, b in itertools.product(groups, self.atom())]
        return groups

    def atom(self) -> list[Group]:
        token = self.take()
        if token.text == "(":
            groups = self.product()
            if self.peek() != ")":
                bad = self.tokens[min(self.at, len(self.tokens) - 1)]
                raise FormulaError(f"{bad.text!r} cannot stand here", self.text, bad.start)
            self.take()
            return groups
        if token.kind != "name":
            raise FormulaError(
                f"a grouping factor is a column name, not {token.text!r}",
                self.text,
                token.start,
                len(token.text),
            )
        if self.peek() == "(":
            if token.text not in ("factor", "C", "as.factor"):
                raise FormulaError(
                    f"a grouping factor is a column; compute {token.text}(...) in the data first",
                    self.text,
                    token.start,
                    len(token.text),
                )
            return self.atom()
        return [(token.text.strip("`"),)]

    def peek(self) -> str:
        return self.tokens[self.at].text if self.at < len(self.tokens) else ""

    def take(self) -> Token:
        if self.at >= len(self.tokens):
            last = self.tokens[-1]
            raise FormulaError(
                f"{last.text!r} has nothing on its right", self.text, last.start, len(last.text)
            )
        self.at += 1
        return self.tokens[self.at - 1]


def _merge(a: Group, b: Group) -> Group:
    return tuple(dict.fromkeys((*a, *b)))


def _unique(groups: Sequence[Group]) -> list[Group]:
    return list(dict.fromkeys(groups))
