"""R²: the share of the variance that a model accounts for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayesglmm.errors import ChoiceError
from bayesglmm.post.check import check_fit
from bayesglmm.post.statistics import statistics
from bayesglmm.post.tables import check_level
from bayesglmm.post.variances import Distribution, Variances, variances
from bayesglmm.posterior.ml import MLPosterior
from bayesglmm.tables.table import Table, table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

Array = NDArray[np.float64]


def r2(fit: Fit, *, distribution: Distribution = "default", level: float = 0.95) -> Table:
    """R² of a fit.

    With random effects, ``R2_marginal`` is the share of the fixed effects in the variance of
    the response, and ``R2_conditional`` that of fixed and random effects together, on the link
    scale (Nakagawa, Johnson and Schielzeth 2017, doi:10.1098/rsif.2017.0213; random slopes
    by the mean of z'Sigma z over the rows, Johnson 2014, doi:10.1111/2041-210X.12225). Effects
    with one level for each row count as unexplained. The offset counts for nothing.

    Without random effects, by maximum likelihood: ``R2`` and ``R2_adjusted`` of a linear model;
    ``R2_deviance``, 1 - deviance / null deviance, of a generalised one (Cameron and Windmeijer
    1997, doi:10.1016/S0304-4076(96)01818-0), and where a row is one trial or count also
    ``R2_McFadden`` 1 - l / l0, ``R2_CoxSnell`` 1 - exp(2 (l0 - l) / n), ``R2_Nagelkerke``, the
    last over 1 - exp(2 l0 / n), and for 0/1 responses ``R2_Tjur``, the difference of the mean
    fitted probabilities of ones and zeros; l and l0 are log-likelihoods of the fit and of the
    null model.

    By NUTS each is computed draw by draw; without random effects it is ``R2``, the variance of
    the linear predictor over itself plus that of the distribution (Gelman, Goodrich, Gabry and
    Vehtari 2019, doi:10.1080/00031305.2018.1549100).

    Parameters
    ----------
    distribution
        The variance of the response's own distribution on the link scale. Identity link: the
        residual variance (with weights the mean of sigma^2 / w). ``"theoretical"``: pi^2/3, 1,
        pi^2/6 of a latent response for logit, probit, cloglog. ``"trigamma"``, ``"lognormal"``:
        for counts with a log link. ``"delta"``: V(mean) g'(mean)^2, for all. The last three are
        taken at the population mean of the null model (only an intercept, and the same random
        effects) fitted by maximum likelihood. ``"default"``: theoretical, else trigamma, else
        delta.
    level
        Probability of the intervals for draws.

    Returns
    -------
    Table
        ``term, estimate``; for draws ``std_error, conf_low, conf_high`` and diagnostics. The
        caption has the variances.

    Raises
    ------
    ChoiceError
        For a distribution variance that the family and link do not have.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> m = bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy"))
    >>> bg.r2(m.fit("reml"))["estimate"].round(4).to_list()
    [0.2787, 0.7992]
    """
    check_fit(fit, "r2")
    level = check_level(level)
    if isinstance(fit.posterior, MLPosterior) and not fit.model.design.random:
        if distribution != "default":
            raise ChoiceError(
                f"distribution={distribution!r} is for random effects or draws; {fit.model.formula}"
                " by maximum likelihood has R² from deviances. Use distribution='default'."
            )
        columns, how = _without_effects(fit)
        return table(columns, f"{how} · {fit.method}")
    parts = variances(fit, distribution)
    total = parts.fixed + parts.between + parts.within
    shares = {"R2_marginal": parts.fixed / total}
    if fit.model.design.random:
        shares["R2_conditional"] = (parts.fixed + parts.between) / total
        what = "R² of Nakagawa et al. 2017"
    else:
        shares = {"R2": parts.fixed / total}
        what = "R² of Gelman et al. 2019"
    return shares_table(fit, {"term": list(shares)}, list(shares.values()), what, parts, level)


def shares_table(
    fit: Fit, labels: dict[str, Any], shares: list[Array], what: str, parts: Variances, level: float
) -> Table:
    """A table of shares of variance: numbers for ML, summaries of their draws for NUTS."""
    values = np.stack(shares, axis=-1)
    caption = f"{what} · {parts.text()} · {fit.method}"
    if isinstance(fit.posterior, MLPosterior):
        return table({**labels, "estimate": values[0, 0]}, caption)
    columns = fit.posterior.draws(values).summary(level)
    del columns["prob_direction"]
    return table({**labels, **columns}, f"{caption} · {fit.posterior.interval(level)}")


def _without_effects(fit: Fit) -> tuple[dict[str, Any], str]:
    known = statistics(fit).row(0, named=True)
    model, likelihood = fit.model, fit.model.likelihood
    share = 1.0 - known["deviance"] / known["null_deviance"]
    if likelihood.is_linear:
        adjusted = 1.0 - (1.0 - share) * known["df_null"] / known["df_residual"]
        return {"term": ["R2", "R2_adjusted"], "estimate": [share, adjusted]}, "R² of least squares"
    found = {"R2_deviance": share}
    if model.family.has_scale or np.any(model.design.trials != 1.0):
        return _columns(found), "R²: share of the null deviance"
    l1, y = known["logLik"], likelihood.y
    # Without a scale deviances differ as twice the log-likelihoods do.
    l0 = l1 - (known["null_deviance"] - known["deviance"]) / 2.0
    cox_snell = -np.expm1(2.0 * (l0 - l1) / model.design.n)
    found["R2_McFadden"] = 1.0 - l1 / l0
    found["R2_CoxSnell"] = cox_snell
    found["R2_Nagelkerke"] = cox_snell / -np.expm1(2.0 * l0 / model.design.n)
    if model.family.is_probability:
        assert isinstance(fit.posterior, MLPosterior)
        mu = model.link.inverse(fit.posterior.estimate.eta)
        found["R2_Tjur"] = float(mu[y == 1.0].mean() - mu[y == 0.0].mean())
    return _columns(found), "Pseudo-R², from deviance and log-likelihood"


def _columns(found: dict[str, float]) -> dict[str, Any]:
    return {"term": list(found), "estimate": list(found.values())}
