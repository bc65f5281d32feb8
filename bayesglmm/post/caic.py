"""The conditional AIC: how well a fit predicts new responses of the same groups."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from bayesglmm.design import Design
from bayesglmm.errors import ChoiceError, check_choice
from bayesglmm.families import Family, Likelihood, find_link
from bayesglmm.laplace import ML, maximum_likelihood
from bayesglmm.laplace.hat import hat_diagonal, variance_drift
from bayesglmm.post.check import check_executor, check_fit
from bayesglmm.post.refits import refits
from bayesglmm.posterior.ml import MLPosterior
from bayesglmm.tables.table import Table, table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

_HOW = {
    "corrected": "trace of d mu_hat / d y, variances estimated (Greven and Kneib 2010)",
    "trace": "trace of the hat matrix, variances held fixed (Vaida and Blanchard 2005)",
    "refits": "refits to changed responses (Saefken et al. 2014)",
    "parameters": "number of parameters, no random effects",
}


def caic(
    fit: Fit,
    *,
    df: Literal["default", "corrected", "trace", "refits"] = "default",
    executor: Executor | None = None,
) -> Table:
    """Conditional AIC: -2 conditional log-likelihood + 2 df.

    The likelihood is that of the data given the random effects at their modes, so it judges
    predictions for the groups at hand; the AIC in :func:`statistics` judges those for new
    groups. A residual sd counts as one more parameter.

    Parameters
    ----------
    df
        Effective number of parameters. ``"corrected"``: sum of d mu_hat_i / d y_i with the
        variance parameters estimated anew, for linear mixed models (Greven and Kneib 2010,
        doi:10.1093/biomet/asq042). ``"trace"``: of the hat matrix, the variance parameters held
        fixed (Vaida and Blanchard 2005, doi:10.1093/biomet/92.2.351), which favours models
        with more random effects. ``"refits"``: for counts and for 0/1 responses, by one refit
        for each row with a changed response (Saefken, Kneib, van Waveren and Greven 2014,
        doi:10.1214/14-EJS881). ``"default"``: corrected for linear mixed models, else trace.
    executor
        Of ``concurrent.futures``, to refit in parallel; None refits one after the other.

    Returns
    -------
    Table
        One row: ``logLik_conditional, df, cAIC, df_trace``, the last the trace of the hat
        matrix (plus one for a residual sd). Without random effects it is the AIC.

    Raises
    ------
    ChoiceError
        For a fit by NUTS, or a df that the family does not have.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> m = bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy"))
    >>> bg.caic(m.fit("reml"))["cAIC"].round(2).item()
    1711.52
    """
    check_fit(fit, "caic")
    check_executor(executor)
    check_choice("df", df, ("default", "corrected", "trace", "refits"))
    posterior, design, likelihood = fit.posterior, fit.model.design, fit.model.likelihood
    if not isinstance(posterior, MLPosterior):
        raise ChoiceError(
            f"the conditional AIC belongs to a maximum-likelihood fit; this one is {fit.method}. "
            "Use model.fit() for it."
        )
    at = posterior.estimate
    scale = int(fit.model.family.has_scale)
    loglik = float(np.sum(likelihood.log_density(at.eta, at.sigma)))
    trace = float(np.sum(hat_diagonal(design, likelihood, at))) + scale
    linear = likelihood.is_linear
    how: str = df if df != "default" else "corrected" if linear else "trace"
    if not design.random:
        loglik, trace, how = at.loglik, float(at.n_parameters), "parameters"
    used = trace
    if how == "corrected":
        if not linear:
            raise ChoiceError(
                "df='corrected' is for Gaussian models with an identity link; this is "
                f"family={fit.model.family.name!r}. Use df='trace' or df='refits'."
            )
        used += variance_drift(design, likelihood, at)
    elif how == "refits":
        used = _by_refits(fit, executor)
    row = {"logLik_conditional": [loglik], "df": [used], "cAIC": [2.0 * (used - loglik)]}
    return table({**row, "df_trace": [trace]}, f"Conditional AIC · df: {_HOW[how]} · {fit.method}")


def _by_refits(fit: Fit, executor: Executor | None) -> float:
    """Sum over the rows of an unbiased estimate of cov(eta_hat_i, y_i)."""
    assert isinstance(fit.posterior, MLPosterior) and isinstance(fit.estimator, ML)
    model, design = fit.model, fit.model.design
    y, eta = design.y, fit.posterior.estimate.eta
    mu = model.link.inverse(eta)
    if model.family.stein is None:
        raise ChoiceError(
            f"df='refits' is for counts and 0/1 responses; this is family={model.family.name!r}. "
            "Use df='corrected' or df='trace'."
        )
    if np.any(model.likelihood.w != 1.0) or model.link.name != model.family.canonical:
        raise ChoiceError(
            "df='refits' needs a canonical link, and rows of one trial without weights; use "
            "df='trace'"
        )
    changed, factor = model.family.stein(y, mu)
    rows = np.flatnonzero(factor != 0.0)
    work = partial(eta_with, design, model.family, model.link.name, fit.estimator, changed)
    moved = np.array(refits(work, rows.tolist(), executor, "refits with one response changed"))
    return float(np.sum(factor[rows] * (eta[rows] - moved)))


def eta_with(
    design: Design,
    family: Family,
    link: str,
    options: ML,
    changed: NDArray[np.float64],
    row: int,
) -> float:
    """eta_hat of a row when its response is changed; the arguments travel between processes."""
    y = np.array(design.y)
    y[row] = changed[row]
    likelihood = Likelihood(family, find_link(family, link), y, design.weights * design.trials)
    part = replace(design, response=replace(design.response, y=y))
    return float(maximum_likelihood(part, likelihood, options).eta[row])
