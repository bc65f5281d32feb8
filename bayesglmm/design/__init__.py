"""Formula and data to Design: columns, codings, X, random-effects terms, response."""

from bayesglmm.design.codings import (
    CODINGS,
    Coding,
    Effects,
    Helmert,
    Hypotheses,
    Poly,
    Sdif,
    Sum,
    Treatment,
    coding_of,
    hypothesis_matrix,
)
from bayesglmm.design.columns import to_polars
from bayesglmm.design.design import Design, build
from bayesglmm.design.fixed import FixedPart
from bayesglmm.design.grouped import RandomTerm
from bayesglmm.design.response import Response, in_units, with_values

__all__ = [
    "CODINGS",
    "Coding",
    "Design",
    "Effects",
    "FixedPart",
    "Helmert",
    "Hypotheses",
    "Poly",
    "RandomTerm",
    "Response",
    "Sdif",
    "Sum",
    "Treatment",
    "build",
    "coding_of",
    "hypothesis_matrix",
    "in_units",
    "to_polars",
    "with_values",
]
