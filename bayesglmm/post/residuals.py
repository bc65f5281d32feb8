"""Residuals: what the fitted means leave over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from bayesglmm.errors import check_choice
from bayesglmm.post.predict import predict
from bayesglmm.tables.table import Table, table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

_MEANING = {
    "pearson": "(y - mu) sqrt(w / V(mu))",
    "deviance": "signed root of each row's part of the deviance",
    "response": "y - mu",
}


def residuals(fit: Fit, type: Literal["pearson", "deviance", "response"] = "pearson") -> Table:
    """Residuals of every row of the data, in its order.

    The fitted mean mu includes the random effects at their conditional modes (for NUTS it is
    the posterior mean of mu).

    Parameters
    ----------
    type
        ``"pearson"``: (y - mu) sqrt(w / V(mu)) with the prior weights w and the variance
        function V, not divided by sigma, as R's ``residuals(type = "pearson")``. For binomial
        and Poisson mixed models these are lme4's "scaled residuals".
        ``"deviance"``: sign(y - mu) sqrt(d), where d is the row's part of the deviance.
        ``"response"``: y - mu.

    Returns
    -------
    Table
        One column ``residual``; null in rows that the fit dropped. The response is as the
        family sees it: 0 and 1 for two levels, proportions for counts of successes.

    Raises
    ------
    ChoiceError
        For an unknown type.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> fit = bg.glm("TICKS ~ YEAR", bg.load_dataset("grouseticks"), family="poisson").fit()
    >>> round(residuals(fit, "deviance")["residual"].max(), 4)
    17.1467
    """
    check_choice("type", type, tuple(_MEANING))
    design, likelihood = fit.model.design, fit.model.likelihood
    mu = predict(fit)["estimate"].to_numpy()[design.rows]
    y, w = likelihood.y, likelihood.w
    if type == "response":
        values = y - mu
    elif type == "pearson":
        values = (y - mu) * np.sqrt(w / likelihood.family.variance(mu))
    else:
        # Rounding can make the deviance of a perfectly fitted row a hair below zero.
        unit = np.maximum(likelihood.family.unit_deviance(y, mu), 0.0)
        values = np.sign(y - mu) * np.sqrt(w * unit)
    whole = np.full(design.n_rows, np.nan)
    whole[design.rows] = values
    caption = f"Residuals, {type}: {_MEANING[type]} · {fit.method}"
    return table({"residual": pl.Series(whole).fill_nan(None)}, caption)
