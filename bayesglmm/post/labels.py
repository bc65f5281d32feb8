"""What the parameters of a fit are called: coefficients, sds, correlations, the residual sd."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from bayesglmm.errors import ChoiceError, nearest
from bayesglmm.laplace.covariance import Component, components, covariance_of
from bayesglmm.model import Model

KINDS = ("coef", "sd", "corr", "residual")


@dataclass(frozen=True, slots=True)
class Label:
    """One parameter.

    Attributes
    ----------
    kind
        "coef", "sd", "corr" or "residual".
    group, term, term2
        As in ``varcorr``; of a coefficient only ``term``.
    at
        The coefficient's column of X, or the component's place; None for the residual sd.
    """

    kind: str
    group: str | None
    term: str | None
    term2: str | None
    at: int | Component | None

    @property
    def name(self) -> str:
        """``Days``, ``sd Days | Subject``, ``corr a x b | Subject``, ``residual sd``."""
        if self.kind == "coef":
            return str(self.term)
        if self.kind == "residual":
            return "residual sd"
        both = self.term if self.term2 is None else f"{self.term} x {self.term2}"
        return f"{self.kind} {both} | {self.group}"


def labels(model: Model) -> tuple[Label, ...]:
    """All parameters: coefficients, sds and correlations term by term, the residual sd."""
    out = [Label("coef", None, name, None, k) for k, name in enumerate(model.design.names)]
    for part in components(covariance_of(model.design.random)):
        term = model.design.random[part.term]
        one, two = term.columns[part.column], term.columns[part.row]
        other = None if part.kind == "sd" else two
        out.append(Label(part.kind, term.name, one, other, part))
    if model.family.has_scale:
        out.append(Label("residual", "Residual", None, None, None))
    return tuple(out)


def select(every: Sequence[Label], which: str | Sequence[str] | None) -> tuple[int, ...]:
    """Positions of the parameters asked for by kind or name; None for all.

    Raises
    ------
    ChoiceError
        For something that is neither, with the nearest that is.
    """
    if which is None:
        return tuple(range(len(every)))
    alone = isinstance(which, str) or not isinstance(which, Iterable)
    wanted = [which] if alone else list(which)
    if not wanted:
        raise ChoiceError(
            f"which={which!r} asks for no parameter; leave it out for all, or give kinds "
            f"({', '.join(map(repr, KINDS))}) or names"
        )
    for name in wanted:
        if not any(name in (label.kind, label.name) for label in every):
            allowed = list(dict.fromkeys([v.kind for v in every] + [v.name for v in every]))
            hint = nearest(name, allowed) if isinstance(name, str) else ""
            raise ChoiceError(
                f"which={name!r} is no parameter of this fit{hint or '.'} Allowed: a kind or a "
                f"name, {', '.join(map(repr, allowed))}"
            )
    return tuple(k for k, v in enumerate(every) if v.kind in wanted or v.name in wanted)


def key_columns(chosen: Sequence[Label]) -> dict[str, pl.Series]:
    """``kind, group, term, term2``."""
    return {
        name: pl.Series([getattr(label, name) for label in chosen], dtype=pl.String)
        for name in ("kind", "group", "term", "term2")
    }
