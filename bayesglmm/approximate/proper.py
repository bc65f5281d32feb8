"""Whether flat priors leave a posterior: what can be known beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesglmm.errors import FitError
from bayesglmm.laplace.separation import can_separate, find_separation
from bayesglmm.priors import Flat, HalfFlat
from bayesglmm.priors.default import INTERCEPT

if TYPE_CHECKING:
    from bayesglmm.design import RandomTerm
    from bayesglmm.model import Model


def check_proper(model: Model) -> None:
    """Refuse flat priors that the data do not make up for.

    Coefficients: the outcomes must not be separated along those with flat priors. An sd with a
    flat prior: as it grows the likelihood falls as sd^-m, where m counts the levels whose effect
    the data bound from both sides (not those of failures only, say), one fewer where a flat
    coefficient can follow them; m > 1 is needed (Gelman 2006, doi:10.1214/06-BA117A, for the
    Gaussian case). The residual sd: likewise, with rows less flat coefficients.

    Raises
    ------
    FitError
        Naming the parameter, and the priors that mend it.
    """
    design, priors = model.design, model.priors
    flat = np.array([isinstance(prior, Flat) for prior in priors.coefficients], dtype=bool)
    names = np.array(design.names)[flat] if len(flat) else np.array([])
    if flat.any() and can_separate(model.likelihood):
        X = design.X[:, flat]
        if INTERCEPT in design.names and INTERCEPT not in names:
            X = X - X.mean(axis=0)  # the intercept's prior holds the level at the mean
        if find_separation(X, model.likelihood).rows.any():
            raise FitError(
                "the posterior is improper: the outcomes are separated along coefficients with "
                f"flat priors ({', '.join(names)}), which then run to infinity. Give them proper "
                "priors such as bg.Normal(0, 2.5), or leave priors out for the defaults"
            )
    for term, sds in zip(design.random, priors.sds, strict=True):
        m = _bounded(model, term)
        for column, prior in zip(term.columns, sds, strict=True):
            if isinstance(prior, HalfFlat) and m - int(column in names) < 2:
                raise FitError(
                    f"the posterior is improper: {m} level(s) of {term.factor} say too little of "
                    f"the sd of {column} for a flat prior. Give it a proper one: "
                    f"priors={{'sd:{term.name}': bg.HalfStudentT(3, 2.5)}}, or leave priors out "
                    "for the defaults"
                )
    if priors.sigma and isinstance(priors.sigma[0], HalfFlat) and design.n - flat.sum() < 2:
        raise FitError(
            f"the posterior is improper: {design.n} rows and {flat.sum()} coefficients with flat "
            "priors say too little of the residual sd for a flat prior. Give it a proper one: "
            "priors={'sigma': bg.HalfStudentT(3, 2.5)}, or leave priors out for the defaults"
        )


def _bounded(model: Model, term: RandomTerm) -> int:
    """Number of levels whose effects the likelihood bounds from both sides."""
    y, index = model.likelihood.y, term.index

    def present(rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.bincount(index[rows], minlength=term.J) > 0

    if model.family.is_probability:
        return int(np.sum(present(y > 0.0) & present(y < 1.0)))
    if model.family.name == "poisson":
        return int(np.sum(present(y > 0.0)))
    return term.J
