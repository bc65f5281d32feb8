"""A published figure: the characters that were printed, and what they allow.

The tolerance of a rounded number is half a unit of its last digit, so it follows from the
characters. That is why the catalogue keeps figures as text: ``0.0600`` says more than ``0.06``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# A figure may sit exactly half way between two printed ones; rounding noise decides there.
_SLACK = 1.0001


@dataclass(frozen=True, slots=True)
class Figure:
    """One published figure.

    Attributes
    ----------
    printed
        As the source prints it: ``"-0.6871"``, ``"4.97e-12"``, ``"<1e-04"``, ``"inf"``, or a
        word (a level, for data).
    tolerance
        Largest absolute deviation that agrees; negative for the one that follows from the
        printed digits.
    reason
        Why a tolerance was given; empty where it follows from the digits.

    Examples
    --------
    >>> Figure("0.1686").allowed
    5.0005e-05
    >>> round(Figure("0.1686").deviation(0.16859), 2)
    0.2
    >>> Figure("<1e-04").deviation(4.6e-05), Figure("<1e-04").deviation(0.002)
    (0.0, inf)
    """

    printed: str
    tolerance: float = -1.0
    reason: str = ""

    @property
    def _plain(self) -> str:
        # Documents use the typographic minus.
        return self.printed.replace("\u2212", "-").replace(" ", "")

    @property
    def is_bound(self) -> bool:
        """Whether it is an inequality such as ``<2e-16``."""
        return self._plain.startswith(("<", ">"))

    @property
    def is_number(self) -> bool:
        """Whether it is a finite number, which can be near or far."""
        return _NUMBER.fullmatch(self._plain) is not None

    @property
    def value(self) -> float:
        """The number (of an inequality, its bound); NaN for a word."""
        text = self._plain.lstrip("<>=")
        if _NUMBER.fullmatch(text) or text.lstrip("+-").lower() == "inf":
            return float(text)
        return math.nan

    @property
    def decimals(self) -> int:
        """Decimal places of the last printed digit: 4 for ``0.1686``, 14 for ``4.97e-12``."""
        mantissa, _, exponent = self._plain.lower().lstrip("<>=").partition("e")
        return len(mantissa.partition(".")[2]) - int(exponent or 0)

    @property
    def allowed(self) -> float:
        """The tolerance: as given, or half a unit of the last digit; 0 where it must be equal."""
        if self.tolerance >= 0.0:
            return self.tolerance
        return 0.5 * 10.0**-self.decimals * _SLACK if self.is_number else 0.0

    def deviation(self, ours: float | str | None) -> float:
        """How far ours is, in units of the tolerance; at most 1 agrees.

        Inequalities, infinities and words are either met (0) or not (infinite).
        """
        if ours is None:
            return math.inf
        if isinstance(ours, str):
            return 0.0 if ours == self.printed else math.inf
        if math.isnan(ours):
            return math.inf
        if self.is_bound:
            below = self._plain.startswith("<")
            met = ours < self.value if below else ours > self.value
            return 0.0 if met else math.inf
        if not self.is_number:
            return 0.0 if ours == self.value else math.inf
        return abs(ours - self.value) / self.allowed

    def beside(self, ours: float | str | None) -> str:
        """Ours, written to two digits more than the source printed.

        Examples
        --------
        >>> Figure("0.1686").beside(0.168594496)
        '0.168594'
        """
        if ours is None or isinstance(ours, str):
            return ours or "missing"
        if math.isinf(ours) or math.isnan(ours):
            return str(ours)
        if self.is_bound:
            return f"{ours:.2g}"
        if "e" in self._plain.lower():
            mantissa = self._plain.lower().partition("e")[0]
            return f"{ours:.{len(mantissa.partition('.')[2]) + 2}e}"
        if self.decimals <= 0 and float(ours).is_integer():
            return f"{ours:.0f}"
        return f"{ours:.{max(self.decimals, 0) + 2}f}"
