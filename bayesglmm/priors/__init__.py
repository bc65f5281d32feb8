"""Prior distributions: records, documented defaults, and choosing them by name."""

from bayesglmm.priors.default import Priors, choose_priors
from bayesglmm.priors.prior import (
    LKJ,
    Cauchy,
    Exponential,
    Flat,
    Gamma,
    HalfCauchy,
    HalfFlat,
    HalfNormal,
    HalfStudentT,
    Normal,
    Prior,
    StudentT,
)

__all__ = [
    "LKJ",
    "Cauchy",
    "Exponential",
    "Flat",
    "Gamma",
    "HalfCauchy",
    "HalfFlat",
    "HalfNormal",
    "HalfStudentT",
    "Normal",
    "Prior",
    "Priors",
    "StudentT",
    "choose_priors",
]
