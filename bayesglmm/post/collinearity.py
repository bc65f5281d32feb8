"""Variance inflation: what correlated predictors cost in precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesglmm.design.recode import fixed_terms
from bayesglmm.errors import ChoiceError
from bayesglmm.post.check import check_fit
from bayesglmm.tables.table import Table, table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

Array = NDArray[np.float64]


def vif(fit: Fit) -> Table:
    """Generalised variance-inflation factors of the terms of the fixed part.

    How many times larger the squared volume of a term's confidence region is than if the term
    were uncorrelated with the others; for a term of one coefficient the usual factor, by which
    its variance is inflated. Computed from the correlations of the coefficients (link scale), so
    it also describes generalised and mixed models, and fits by NUTS (Fox and Monette 1992,
    doi:10.1080/01621459.1992.10475190; as ``vif`` of R's car). Centre covariates first if the
    formula has products of them.

    Returns
    -------
    Table
        ``term, df, gvif, ci_increase_factor``; the last is gvif^(1 / (2 df)), the factor by
        which an interval is longer, comparable between terms. Both are null for a term without
        coefficients of its own (aliased).

    Raises
    ------
    ChoiceError
        For fewer than two terms, a model without an intercept, or an infinite coefficient, where
        it has no meaning.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> fit = bg.lm("mpg ~ wt + hp + qsec", bg.load_dataset("mtcars")).fit()
    >>> bg.vif(fit)["gvif"].round(2).to_list()
    [2.53, 4.92, 2.87]
    """
    check_fit(fit, "vif")
    design = fit.model.design
    terms = fixed_terms(design)
    if len(terms) < 2 or "(Intercept)" not in design.names:
        raise ChoiceError(
            f"vif needs an intercept and two terms or more; {fit.model.formula!r} has "
            f"{len(terms)} term(s) and {'an' if '(Intercept)' in design.names else 'no'} intercept"
        )
    if np.isnan(fit.vcov).any():
        raise ChoiceError(
            "vif: a coefficient is infinite, as outcomes that are separated make it (see "
            "fit.outcome), and has no correlation with the others; drop the predictor, or give it "
            'a prior: model.fit("nuts")'
        )
    kept = [k for k, name in enumerate(design.names) if name != "(Intercept)"]
    R = correlation(fit.vcov[np.ix_(kept, kept)])
    whole = np.linalg.slogdet(R)[1]
    gvif = []
    for term in terms:
        inside = np.isin(kept, term.columns)
        own = np.linalg.slogdet(R[np.ix_(inside, inside)])[1]
        others = np.linalg.slogdet(R[np.ix_(~inside, ~inside)])[1]
        gvif.append(float(np.exp(own + others - whole)) if inside.any() else np.nan)
    df = np.array([len(term.columns) for term in terms])
    return table(
        {
            "term": [term.label for term in terms],
            "df": df,
            "gvif": gvif,
            "ci_increase_factor": np.array(gvif) ** (0.5 / np.maximum(df, 1)),
        },
        f"Generalised variance-inflation factors · {fit.method} · correlations of the coefficients",
    )


def correlation(cov: Array) -> Array:
    """Correlations of a covariance matrix."""
    sd = np.sqrt(np.diag(cov))
    return np.asarray(cov / np.outer(sd, sd))
