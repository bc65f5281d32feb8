"""The same model fitted to another response."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from bayesglmm.design import Design, with_values
from bayesglmm.design.columns import read
from bayesglmm.errors import DataError
from bayesglmm.post.check import check_fit
from bayesglmm.posterior.ml import MLPosterior

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bayesglmm.fit import Fit

__all__ = ["refit"]


def refit(fit: Fit, y: Sequence[object] | NDArray[np.generic] | pl.Series) -> Fit:
    """Fit the model of a fit to another response (lme4's ``refit``).

    Formula, predictors, groups, weights, trials, priors and estimator stay; nothing but the
    response is read again, so it is fast and cannot pick up other rows.

    Parameters
    ----------
    y
        One value for each row of the data the model was made from, in its order, as
        :func:`bayesglmm.simulate` gives them: what is in dropped rows is ignored, and may be
        missing. Or one value for each row used, when rows were dropped. A polars or pandas
        Series, an array or a list, in the units of the response: counts of successes where the
        model has trials, the two levels where the response has levels.

    Returns
    -------
    Fit
        ``fit.model.design.data`` still holds the first response.

    Raises
    ------
    DataError
        For a wrong number of values, a missing one in a row used, or values that the family
        cannot have produced.

    Warns
    -----
    BayesglmmWarning
        As fitting does.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> sleep = bg.load_dataset("sleepstudy")
    >>> fit = bg.lmer("Reaction ~ Days + (1|Subject)", sleep).fit()
    >>> bg.refit(fit, sleep["Reaction"] / 1000).params["estimate"].round(4).to_list()
    [0.2514, 0.0105]
    """
    from bayesglmm.model import Model, check_response, fitted

    check_fit(fit, "refit")
    model = fit.model
    design = _with_response(model.design, y)
    check_response(design, model.family)
    known = fit.posterior.estimate.structure if isinstance(fit.posterior, MLPosterior) else ()
    return fitted(Model(design, model.family, model.link, model.priors), fit.estimator, known)


def _with_response(design: Design, y: object) -> Design:
    """The design with another response, given in its units."""
    if isinstance(y, str) or not hasattr(y, "__len__") or hasattr(y, "columns"):
        hint = ', e.g. frame["sim_1"]' if hasattr(y, "columns") else ""
        raise DataError(f"y is {type(y).__name__}; give one value for each row{hint}")
    series = read({"y": y}).frame.get_column("y")
    if len(series) == design.n_rows:
        series = series.gather(design.rows)
    elif len(series) != design.n:
        used = f", or {design.n}, one for each row used" if design.dropped else ""
        raise DataError(
            f"y has {len(series)} values; give {design.n_rows}, one for each row of the data{used}"
        )
    return replace(design, response=with_values(design.response, series))
