"""Predictions of the mean for the data of the fit or for new data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from bayesglmm.design import to_polars
from bayesglmm.errors import DataError, check_choice
from bayesglmm.laplace.estimate import variance_along
from bayesglmm.post.check import check_fit
from bayesglmm.post.tables import caption, check_level
from bayesglmm.posterior.gaussian import critical_value
from bayesglmm.posterior.ml import MLPosterior
from bayesglmm.posterior.sampled import SampledPosterior
from bayesglmm.tables.table import Table, table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

Array = NDArray[np.float64]


def predict(
    fit: Fit,
    newdata: object = None,
    *,
    type: Literal["response", "link"] = "response",
    re: Literal["fitted", "zero"] = "fitted",
    level: float = 0.95,
) -> Table:
    """Predicted means, one row per row of the data, in its order.

    Parameters
    ----------
    newdata
        Rows to predict; None for the data of the fit, where dropped rows give nulls.
    type
        ``"response"`` or ``"link"``.
    re
        ``"fitted"``: for these groups; a level that the fit has not seen is an error.
        ``"zero"``: for a typical group, all random effects zero.
    level
        Probability of the intervals of the mean (they are not intervals for new observations).

    Returns
    -------
    Table
        ``estimate, std_error, conf_low, conf_high``. For ML the intervals are Wald intervals on
        the link scale, carried to the response scale; the standard error follows by the delta
        method. With ``re="fitted"`` they include the conditional variance of the effects. For
        NUTS everything is computed draw by draw, and averaged last.

    Raises
    ------
    DataError
        For missing columns, unseen levels of a factor, or (``re="fitted"``) of a group.

    Notes
    -----
    Where columns of X are combinations of others, a new row is predicted only if the data can
    estimate its mean; the others (a cell without data, say) are null and the caption counts them.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> fit = bg.glm("survived ~ sex", bg.load_dataset("titanic"), family="binomial").fit()
    >>> fit.predict({"sex": ["female", "male"]})["estimate"].round(3).to_list()
    [0.742, 0.189]
    """
    check_fit(fit, "predict")
    check_choice("type", type, ("response", "link"))
    check_choice("re", re, ("fitted", "zero"))
    level = check_level(level)
    design = fit.model.design
    if newdata is None:
        X, offset = design.X, np.array(design.offset)
        unknown = np.zeros(design.n, dtype=bool)
        groups = [(t.index, t.Z) for t in design.random]
    else:
        frame = to_polars(newdata)
        every, offset = design.fixed.all_columns(frame), design.offset_for(frame)
        X = design.fixed.aliasing.reduced(every)
        unknown = ~design.fixed.aliasing.estimable(every)
        groups = [t.rows(frame) for t in design.random] if re == "fitted" else []
        for term, (index, _) in zip(design.random, groups, strict=False):
            if np.any(index < 0):
                row = int(np.flatnonzero(index < 0)[0])
                level_of = [frame.get_column(c)[row] for c in term.group_columns]
                draws = (
                    ', posterior_predictive(newdata=, re="new") draws from new ones'
                    if isinstance(fit.posterior, SampledPosterior)
                    else ""
                )
                what = (
                    "is missing"
                    if None in level_of
                    else f"= {':'.join(map(str, level_of))!r} is not a level of the fit"
                )
                raise DataError(
                    f"newdata row {row}: {term.factor!r} {what}; "
                    f're="zero" predicts for a typical group{draws}'
                )
    if re == "zero":
        groups = []
    columns = _columns(fit, X, offset, groups, type, level)
    for values in columns.values():
        values[unknown] = np.nan
    posterior = fit.posterior
    interval = posterior.effect_interval(level) if groups else posterior.interval(level)
    if newdata is None and design.dropped:
        whole = {name: np.full(design.n_rows, np.nan) for name in columns}
        for name, values in columns.items():
            whole[name][design.rows] = values
        columns = whole
    note = caption(fit, f"Predictions (re={re!r})", f"{type} scale", interval)
    if unknown.any():
        note += f" · null in {int(unknown.sum())} row(s) that the data cannot estimate"
    return table(columns, note)


def _columns(
    fit: Fit,
    X: Array,
    offset: Array,
    groups: list[tuple[NDArray[np.intp], Array]],
    type: str,
    level: float,
) -> dict[str, Array]:
    link = fit.model.link
    if isinstance(fit.posterior, SampledPosterior):
        eta = fit.posterior.beta.values @ X.T + offset
        for term, (index, Z) in zip(fit.model.design.random, groups, strict=False):
            effects = fit.posterior.run.values(f"b_{term.name}")
            eta = eta + np.einsum("cdnk,nk->cdn", effects[:, :, index, :], Z)
        draws = fit.posterior.draws(eta if type == "link" else link.inverse(eta))
        return {**draws.point(), **draws.interval(level)}
    assert isinstance(fit.posterior, MLPosterior)
    at = fit.posterior.estimate
    eta = X @ at.beta + offset
    # eta - eta_hat = (x - sum_f C_f' z_f)'(beta - beta_hat) + sum_f z_f' e_f
    sensitivity = X.copy()
    conditional = at.effect_variance(groups) if groups else np.zeros(len(eta))
    for f, (index, Z) in enumerate(groups):
        eta = eta + np.einsum("nk,nk->n", Z, at.modes[f][index])
        sensitivity -= np.einsum("nk,nkp->np", Z, at.coef_map[f][index])
    fixed = variance_along(sensitivity, at.vcov)
    se = np.sqrt(np.maximum(fixed, 0.0) + conditional)
    df = at.degrees_of_freedom(X) if not groups else np.full(len(eta), np.inf)
    half = critical_value(df, level) * se
    low, high = eta - half, eta + half
    if type == "link":
        return {"estimate": eta, "std_error": se, "conf_low": low, "conf_high": high}
    mean, slope, _, _ = link.derivatives(eta)
    return {
        "estimate": mean,
        "std_error": np.abs(slope) * se,
        "conf_low": link.inverse(low),
        "conf_high": link.inverse(high),
    }
