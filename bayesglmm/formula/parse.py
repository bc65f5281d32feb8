"""Text to Formula: response, fixed part, random-effects bars and offsets.

formulaic reads the fixed part but has no random-effects bars (a bar in brackets is a syntax
error there), so the bars and ``offset()`` are taken out here, with errors that point into the
formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from bayesglmm.errors import FormulaError
from bayesglmm.formula.bars import Bar, is_bar_term, read_bars
from bayesglmm.formula.tokens import Token, emit, tokenize

__all__ = ["Bar", "Formula", "parse"]


@dataclass(frozen=True, slots=True)
class Formula:
    """A parsed formula.

    Attributes
    ----------
    text
        As the user wrote it.
    response
        The left-hand side, e.g. ``"y"``, ``"cbind(incidence, size - incidence)"``.
    fixed
        The right-hand side without bars and offsets, as formulaic reads it; ``"1"`` when nothing
        else is left.
    bars
        The random-effects terms, nesting expanded.
    offsets
        The expressions inside ``offset(...)``.

    Examples
    --------
    >>> parse("Reaction ~ Days + (Days|Subject)").fixed
    'Days'
    """

    text: str
    response: str
    fixed: str
    bars: tuple[Bar, ...] = ()
    offsets: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Give the formula as written."""
        return self.text


def parse(text: str, *, one_sided: bool = False) -> Formula:
    """Read an lme4-style formula.

    Parameters
    ----------
    text
        For instance ``"y ~ x + (1 + x | g)"``. Random-effects terms: ``(1|g) (x|g) (0+x|g)
        (x||g) (1|a/b) (1|a:b) (1|a*b)``, and MixedModels' ``zerocorr(1+x|g)`` and ``a & b``.
    one_sided
        Allow ``"~ x"``, with an empty response.

    Returns
    -------
    Formula
        The parts; nothing is evaluated yet.

    Raises
    ------
    FormulaError
        With a caret under the place: unbalanced brackets, no ``~`` or two, an empty side, a bar
        outside brackets, a dangling operator.

    Examples
    --------
    >>> f = parse("y ~ x + offset(log(n)) + (x || g) + (1|a/b)")
    >>> f.fixed, f.offsets
    ('x', ('log(n)',))
    >>> [(b.terms, ":".join(b.group), b.correlated) for b in f.bars]
    [('x', 'g', False), ('1', 'a', True), ('1', 'a:b', True)]
    """
    if not isinstance(text, str):
        raise FormulaError(
            f"a formula is text such as 'y ~ x + (1|g)', not {type(text).__name__}; it comes "
            "first, then the data"
        )
    return _parse(text.strip(), one_sided)


@lru_cache(maxsize=256)
def _parse(text: str, one_sided: bool) -> Formula:
    if not text:
        raise FormulaError("the formula is empty; write for instance 'y ~ x + (1|g)'")
    tokens = tokenize(text)
    left, right = _sides(tokens, text, one_sided)
    _check_grammar(right, text)
    _check_unsupported(right, text)

    kept: list[tuple[str, Sequence[Token]]] = []
    bars: list[Bar] = []
    offsets: list[str] = []
    for sign, item in _items(right):
        if is_bar_term(item):
            if sign == "-":
                raise FormulaError(
                    "a random-effects term is added, not subtracted", text, item[0].start
                )
            bars.extend(read_bars(item, text))
            continue
        _refuse_stray_bar(item, text)
        if _is_call(item, "offset"):
            if sign == "-":
                raise FormulaError(
                    "an offset is added; write offset(-x) to subtract it", text, item[0].start
                )
            offsets.append(emit(item[2:-1]))
            continue
        _refuse_nested_offset(item, text)
        kept.append((sign, item))
    return Formula(text, emit(left), _join(kept), tuple(bars), tuple(offsets))


def _sides(
    tokens: Sequence[Token], text: str, one_sided: bool
) -> tuple[Sequence[Token], Sequence[Token]]:
    """Split at the only ``~``."""
    tildes = [i for i, t in enumerate(tokens) if t.text == "~"]
    if not tildes:
        raise FormulaError(
            "there is no '~' between the response and the predictors; write 'y ~ x'", text
        )
    if len(tildes) > 1:
        raise FormulaError("a formula has one '~'", text, tokens[tildes[1]].start)
    at = tildes[0]
    if tokens[at].depth:
        raise FormulaError("'~' inside brackets means nothing here", text, tokens[at].start)
    left, right = tokens[:at], tokens[at + 1 :]
    if not left and not one_sided:
        raise FormulaError("the response before '~' is missing", text, tokens[at].start)
    if not right:
        raise FormulaError(
            "nothing follows '~'; write 'y ~ 1' for an intercept alone", text, tokens[at].start
        )
    for token in left:
        if token.text in ("|", "||"):
            raise FormulaError(
                "a bar on the left-hand side means nothing here; give the number of trials as "
                "trials='column', weights as weights='column'",
                text,
                token.start,
            )
    return left, right


def _check_grammar(tokens: Sequence[Token], text: str) -> None:
    """Operands and operators must alternate, at every level outside function calls."""
    operand_next = True
    previous: Token | None = None
    for token in tokens:
        if token.in_call or (token.call and token.kind == "open"):
            previous = token
            continue
        if token.kind == "open":
            if not operand_next:
                raise FormulaError("an operator is missing before this", text, token.start)
        elif token.kind == "close":
            if operand_next and not token.call:
                _refuse_operator_end(previous, token, text)
            operand_next = False
        elif token.kind == "op":
            if operand_next and token.text not in ("+", "-"):
                if token.text in ("|", "||"):
                    raise FormulaError(
                        "nothing stands on the left of this bar; write (1|g) for a random "
                        "intercept",
                        text,
                        token.start,
                    )
                raise FormulaError(
                    f"{token.text!r} has nothing on its left", text, token.start, len(token.text)
                )
            operand_next = True
        else:
            if not operand_next:
                raise FormulaError(
                    "an operator is missing before this", text, token.start, len(token.text)
                )
            operand_next = False
        previous = token
    if operand_next and previous is not None:
        _refuse_operator_end(previous, previous, text)


def _refuse_operator_end(previous: Token | None, token: Token, text: str) -> None:
    if previous is not None and previous.text in ("|", "||"):
        raise FormulaError(
            "nothing stands on the right of this bar; write (1|g) with a grouping factor",
            text,
            previous.start,
        )
    if previous is not None and previous.kind == "op":
        raise FormulaError(
            f"{previous.text!r} has nothing on its right", text, previous.start, len(previous.text)
        )
    raise FormulaError("these brackets are empty", text, token.start)


def _check_unsupported(tokens: Sequence[Token], text: str) -> None:
    for token in tokens:
        if token.text == "." and not token.in_call:
            raise FormulaError(
                "'.' for 'all other columns' is not supported; name the columns", text, token.start
            )
        if token.text in ("!", "@", "$", "=") and not token.in_call:
            raise FormulaError(f"{token.text!r} means nothing in a formula", text, token.start)


def _items(tokens: Sequence[Token]) -> list[tuple[str, Sequence[Token]]]:
    """Split a right-hand side at its outermost plus and minus signs."""
    items: list[tuple[str, Sequence[Token]]] = []
    sign = "+"
    start = 0
    for i, token in enumerate(tokens):
        if token.kind != "op" or token.depth or token.text not in ("+", "-"):
            continue
        if i > start:
            previous = tokens[i - 1]
            if previous.kind == "op":  # a sign after another operator: a^-1 and the like
                continue
            items.append((sign, tokens[start:i]))
            sign = token.text
        elif token.text == "-":
            sign = "-" if sign == "+" else "+"
        start = i + 1
    items.append((sign, tokens[start:]))
    return items


def _is_call(item: Sequence[Token], name: str) -> bool:
    if len(item) < 3 or item[0].text != name:
        return False
    return item[1].call and item[1].kind == "open" and item[-1].call and item[-1].depth == 0


def _refuse_stray_bar(item: Sequence[Token], text: str) -> None:
    for token in item:
        if token.text not in ("|", "||") or token.in_call:
            continue
        if token.depth == 0:
            raise FormulaError(
                "this bar stands outside brackets; put the random-effects term in brackets, "
                "as in (1|g)",
                text,
                token.start,
            )
        raise FormulaError(
            "a random-effects term stands on its own, joined to the rest by '+'", text, token.start
        )


def _refuse_nested_offset(item: Sequence[Token], text: str) -> None:
    for i, token in enumerate(item[:-1]):
        if token.text == "offset" and item[i + 1].call:
            raise FormulaError(
                "offset(...) stands on its own, joined to the rest by '+'", text, token.start, 6
            )


def _join(items: Sequence[tuple[str, Sequence[Token]]]) -> str:
    """Write the remaining terms; an empty remainder is the intercept alone."""
    out = ""
    for sign, item in items:
        body = emit(item)
        if out:
            out += f" {sign} {body}"
        else:
            out = f"-{body}" if sign == "-" else body
    return out or "1"
