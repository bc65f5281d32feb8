"""A formula cut into tokens, each knowing where it stood and what brackets surround it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bayesglmm.errors import FormulaError

Kind = Literal["name", "number", "string", "op", "open", "close"]

_PATTERN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
  | (?P<name>`[^`]+`|(?:[^\W\d]|\.(?!\d))(?:\w|\.)*)
  | (?P<string>"[^"]*"|'[^']*')
  | (?P<op>\|\||\*\*|%[^%\s]*%|==|!=|<=|>=|//|[~+\-*/:^|&,=<>%!@$])
  | (?P<open>[(\[{])
  | (?P<close>[)\]}])
    """,
    re.VERBOSE,
)
_CLOSES = {")": "(", "]": "[", "}": "{"}


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a formula.

    Attributes
    ----------
    kind
        name, number, string, op, open or close.
    text
        As written (a backticked name keeps its backticks).
    start
        Index into the formula.
    depth
        How many brackets surround it (an opening bracket counts those outside it).
    in_call
        Whether a surrounding bracket belongs to a function call: inside, ``^`` is a power.
    match
        For a bracket, the index of its partner in the token list; otherwise -1.
    call
        For a bracket, whether it is the bracket of a function call.
    """

    kind: Kind
    text: str
    start: int
    depth: int = 0
    in_call: bool = False
    match: int = -1
    call: bool = False

    @property
    def end(self) -> int:
        """Index just after the token."""
        return self.start + len(self.text)


def tokenize(text: str) -> tuple[Token, ...]:
    """Cut a formula into tokens and pair its brackets.

    Parameters
    ----------
    text
        The formula.

    Returns
    -------
    tuple of Token
        In order, without white space.

    Raises
    ------
    FormulaError
        For a character that means nothing in a formula, an unfinished quotation, and a bracket
        without partner.

    Examples
    --------
    >>> [t.text for t in tokenize("y ~ (1|g)")]
    ['y', '~', '(', '1', '|', 'g', ')']
    """
    raw: list[tuple[Kind, str, int]] = []
    position = 0
    while position < len(text):
        found = _PATTERN.match(text, position)
        if found is None:
            char = text[position]
            what = (
                "this quotation mark is never closed"
                if char in "`\"'"
                else f"{char!r} means nothing in a formula"
            )
            raise FormulaError(what, text, position)
        kind = found.lastgroup
        if kind in ("name", "number", "string", "op", "open", "close"):
            raw.append((kind, found.group(), position))  # type: ignore[arg-type]
        position = found.end()
    return _pair(raw, text)


def _pair(raw: Sequence[tuple[Kind, str, int]], text: str) -> tuple[Token, ...]:
    """Attach depth, partner and call flags; complain about unbalanced brackets."""
    partner: dict[int, int] = {}
    stack: list[int] = []
    for i, (kind, symbol, start) in enumerate(raw):
        if kind == "open":
            stack.append(i)
        elif kind == "close":
            if not stack or raw[stack[-1]][1] != _CLOSES[symbol]:
                raise FormulaError(f"this {symbol!r} closes nothing", text, start)
            partner[stack.pop()] = i
    if stack:
        _, symbol, start = raw[stack[-1]]
        raise FormulaError(f"this {symbol!r} is never closed", text, start)

    tokens: list[Token] = []
    surrounding: list[bool] = []
    for i, (kind, symbol, start) in enumerate(raw):
        if kind == "close":
            surrounding.pop()
        opens_call = (
            kind == "open" and i > 0 and (tokens[i - 1].kind == "name" or _ends_call(tokens[i - 1]))
        )
        match = partner.get(i, -1)
        if kind == "close":
            match = next(j for j, k in partner.items() if k == i)
            opens_call = tokens[match].call
        tokens.append(
            Token(kind, symbol, start, len(surrounding), any(surrounding), match, opens_call)
        )
        if kind == "open":
            surrounding.append(opens_call)
    return tuple(tokens)


def _ends_call(token: Token) -> bool:
    return token.kind == "close" and (token.call or token.in_call)


def _is_operand(token: Token | None) -> bool:
    return token is not None and token.kind in ("name", "number", "string")


def emit(tokens: Sequence[Token]) -> str:
    """Write tokens as formulaic reads them.

    ``a & b`` becomes ``a:b`` and, inside a function call, ``^`` becomes ``**`` (formulaic would
    evaluate Python's exclusive or).

    Parameters
    ----------
    tokens
        Any run of tokens.

    Returns
    -------
    str
        Text with regular spacing.

    Examples
    --------
    >>> emit(tokenize("age&sex+I(age^2)"))
    'age:sex + I(age**2)'
    """
    out = ""
    previous: Token | None = None
    for token in tokens:
        symbol = token.text
        if token.kind == "op":
            if symbol == "&" and not token.in_call:
                symbol = ":"
            elif symbol == "^" and token.in_call:
                symbol = "**"
            unary = previous is None or previous.kind == "open" or previous.kind == "op"
            if symbol in (":", "**", "^") or unary:
                pass
            elif symbol == ",":
                symbol = ", "
            else:
                symbol = f" {symbol} "
        elif symbol == "as.factor":  # `as` is a Python keyword, which formulaic would trip over
            symbol = "factor"
        elif token.kind not in ("open", "close") and _is_operand(previous):
            symbol = " " + symbol
        out += symbol
        previous = token
    return out
