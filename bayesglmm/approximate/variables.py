"""Names of the parameters that are not integrated out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bayesglmm.model import Model


def parameter_names(model: Model) -> list[str]:
    """Names of (t, beta), as messages call them."""
    out = []
    for term in model.design.random:
        out += [f"sd of {column} by {term.name}" for column in term.columns]
        if term.correlated:
            out += [
                f"correlation of {term.columns[c]} and {term.columns[r]} by {term.name}"
                for r in range(1, term.K)
                for c in range(r)
            ]
    out += ["residual sd"] * len(model.priors.sigma)
    return [*out, *model.design.names]
