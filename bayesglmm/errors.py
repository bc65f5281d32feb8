"""The exceptions of the package, and the hints they carry.

Every message names the argument or the column, the value, what was allowed, and the nearest
match. A formula error shows the formula with a caret under the place.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from pathlib import Path
from typing import ParamSpec, TypeVar

__all__ = [
    "BayesglmmError",
    "BayesglmmWarning",
    "ChoiceError",
    "DataError",
    "FileError",
    "FitError",
    "FittedExactly",
    "FormulaError",
    "OptionError",
    "caret",
    "check_choice",
    "check_whole",
    "named_arguments",
    "nearest",
    "warn",
]

P = ParamSpec("P")
R = TypeVar("R")

_FITTED_EXACTLY = (
    "the response is fitted exactly by the model: its residual variance is zero (or rounding), "
    "where the likelihood is infinite. Leave out a term; check whether the response is a copy of "
    "something, as a mean that is constant within groups; if its values are large beside their "
    "differences, subtract a constant"
)
_PACKAGE = str(Path(__file__).resolve().parent)


class BayesglmmError(Exception):
    """The base of every error this package raises on purpose."""


class FormulaError(BayesglmmError, ValueError):
    """A formula that cannot be read.

    Parameters
    ----------
    message
        What is wrong and what to write instead.
    text
        The formula; shown under the message.
    position
        Index into `text` of the offending character; negative for "nowhere in particular".
    width
        How many characters to underline.

    Examples
    --------
    >>> print(FormulaError("this bracket is never closed", "y ~ (1|g", 4))
    this bracket is never closed
      y ~ (1|g
          ^
    """

    def __init__(self, message: str, text: str = "", position: int = -1, width: int = 1) -> None:
        self.message = message
        self.text = text
        self.position = position
        self.width = width
        super().__init__(message + caret(text, position, width))

    def __reduce__(self) -> tuple[type[FormulaError], tuple[str, str, int, int]]:
        """Rebuild from the parts, so that the error survives pickling."""
        return type(self), (self.message, self.text, self.position, self.width)


class DataError(BayesglmmError, ValueError):
    """Data that do not suit the formula: a missing column, one level, an infinite value."""


class OptionError(BayesglmmError, TypeError):
    """A misspelt or unknown option name."""


class ChoiceError(BayesglmmError, ValueError):
    """An argument whose value is not one of the allowed ones."""


class FitError(BayesglmmError, RuntimeError):
    """A fit that could not be computed at all."""


class FittedExactly(FitError):
    """A Gaussian response without residuals: the likelihood has no maximum."""

    def __init__(self, message: str = _FITTED_EXACTLY) -> None:
        super().__init__(message)


class FileError(BayesglmmError, OSError):
    """A saved fit that cannot be written, or a file that cannot be read as one."""


class BayesglmmWarning(UserWarning):
    """Something the reader of a result should know."""


def check_whole(argument: str, value: object, least: int = 1, or_none: str = "") -> int:
    """A whole number of at least ``least``, NumPy's too, as Python's.

    Raises
    ------
    ChoiceError
        For anything else, True and False included.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ChoiceError(f"{argument}={value!r}: give a whole number of at least {least}{or_none}")
    return int(value)


def named_arguments(
    hints: Mapping[str, str], public: str = ""
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function that tells an unknown argument by name, with a hint or the nearest it has.

    Parameters
    ----------
    hints
        What to do instead, for names that other packages use.
    public
        What users call the function, if not by its own name.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        known = [name for name in inspect.signature(function).parameters if name != "self"]

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs:
                if name not in known:
                    hint = f": {hints[name]}" if name in hints else nearest(name, known)
                    raise OptionError(
                        f"{public or function.__name__}() has no argument {name!r}{hint}; it has "
                        + ", ".join(known)
                    )
            return function(*args, **kwargs)

        return checked

    return decorate


def caret(text: str, position: int, width: int = 1) -> str:
    """Render `text` on its own line with carets under `position`.

    Parameters
    ----------
    text
        A formula; empty for none.
    position
        Index of the first character to mark; negative marks nothing.
    width
        Number of carets.

    Returns
    -------
    str
        Lines starting with a newline, or "" when there is no text.

    Examples
    --------
    >>> print("here:" + caret("y ~ xx", 4, 2))
    here:
      y ~ xx
          ^^
    """
    if not text:
        return ""
    line = "\n  " + "".join(" " if c.isspace() else c for c in text)
    if position < 0:
        return line
    return line + "\n  " + " " * position + "^" * max(width, 1)


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Suggest the allowed name nearest to `name`.

    Parameters
    ----------
    name
        What was written.
    allowed
        The names that exist.

    Returns
    -------
    str
        ``"; did you mean 'x'?"``, or "" when nothing is close. Case is ignored.

    Examples
    --------
    >>> nearest("gausian", ["gaussian", "poisson"])
    "; did you mean 'gaussian'?"
    >>> nearest("zzz", ["gaussian", "poisson"])
    ''
    """
    folded = {str(a).casefold(): str(a) for a in allowed}
    found = difflib.get_close_matches(str(name).casefold(), list(folded), n=1, cutoff=0.6)
    return f"; did you mean {folded[found[0]]!r}?" if found else ""


def check_choice(argument: str, value: object, allowed: Iterable[str]) -> None:
    """Raise unless `value` is one of `allowed`.

    Parameters
    ----------
    argument
        The argument's name, for the message.
    value
        What was given.
    allowed
        The values that exist.

    Raises
    ------
    ChoiceError
        Names the argument, the value, the nearest match and the allowed values.

    Examples
    --------
    >>> check_choice("missing", "drop", ["drop", "error"])
    >>> check_choice("missing", "dorp", ["drop", "error"])
    Traceback (most recent call last):
    ...
    bayesglmm.errors.ChoiceError: missing='dorp' is not known; did you mean 'drop'? \
Allowed: 'drop', 'error'
    """
    choices = list(allowed)
    if isinstance(value, str) and value in choices:
        return
    hint = nearest(value, choices) if isinstance(value, str) else ""
    raise ChoiceError(
        f"{argument}={value!r} is not known{hint or '.'} "
        f"Allowed: {', '.join(repr(c) for c in choices)}"
    )


def warn(message: str) -> None:
    """A `BayesglmmWarning` that points at the user's own line, however deep it is found."""
    warnings.warn(message, BayesglmmWarning, stacklevel=2, skip_file_prefixes=(_PACKAGE,))
