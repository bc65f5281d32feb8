"""Whether a response varies more than its family allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import chdtrc

from bayesglmm.errors import ChoiceError
from bayesglmm.post.check import check_fit
from bayesglmm.post.residuals import raw_residuals
from bayesglmm.posterior.ml import MLPosterior
from bayesglmm.tables.table import Table, table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit


def overdispersion(fit: Fit) -> Table:
    """Pearson's chi-square over its residual degrees of freedom, of counts and proportions.

    About one if the family's variance is right, random effects at their conditional modes. The
    degrees of freedom are rows minus parameters, as in lme4's FAQ and performance's
    ``check_overdispersion``; random effects count by their variances only, and expected counts
    below about five make the chi-square a rough guide.

    Returns
    -------
    Table
        One row: ``pearson_chisq, df_residual, ratio, p_value``, the last of a larger chi-square.

    Raises
    ------
    ChoiceError
        For a fit by NUTS, a family with a scale parameter, and responses of single trials,
        whose variance is fixed by their mean.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> m = bg.glmer("TICKS ~ YEAR + (1|BROOD)", bg.load_dataset("grouseticks"), family="poisson")
    >>> bg.overdispersion(m.fit())["ratio"].round(3).item()
    1.692
    """
    check_fit(fit, "overdispersion")
    model = fit.model
    if not isinstance(fit.posterior, MLPosterior):
        raise ChoiceError(
            f"overdispersion belongs to a maximum-likelihood fit; this one is {fit.method}. Use "
            "model.fit() for it."
        )
    if model.family.has_scale:
        raise ChoiceError(
            f"overdispersion is for families without a scale parameter; family="
            f"{model.family.name!r} estimates its own variance"
        )
    if model.family.is_probability and np.all(model.design.trials == 1.0):
        raise ChoiceError(
            "overdispersion: 0/1 responses of single trials cannot be overdispersed; their "
            "variance follows from their mean"
        )
    chisq = float(np.sum(raw_residuals(fit, "pearson") ** 2))
    df = model.design.n - fit.posterior.estimate.n_parameters
    row = {
        "pearson_chisq": [chisq],
        "df_residual": [df],
        "ratio": [chisq / df if df > 0 else None],
        "p_value": [float(chdtrc(df, chisq)) if df > 0 else None],
    }
    given = ", random effects at their modes" if model.design.random else ""
    return table(row, f"Overdispersion: Pearson chi-square of {fit.method}{given}")
