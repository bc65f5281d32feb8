"""Confidence intervals of every parameter, by whichever method."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Literal

import numpy as np

from bayesglmm.errors import ChoiceError, check_choice
from bayesglmm.post.check import check_fit
from bayesglmm.post.labels import key_columns, labels, select
from bayesglmm.post.profile import profile
from bayesglmm.post.tables import check_level, scale
from bayesglmm.posterior.ml import MLPosterior
from bayesglmm.tables.table import Table, table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

Method = Literal["default", "wald", "profile", "boot", "hdi"]
METHODS = ("default", "wald", "profile", "boot", "hdi")
_NSIM = 1000
_NUMBERS = ("estimate", "conf_low", "conf_high")


def confint(
    fit: Fit,
    method: Method = "default",
    *,
    level: float = 0.95,
    which: str | Sequence[str] | None = None,
    nsim: int = _NSIM,
    seed: int | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Table:
    """Intervals of coefficients, sds, correlations and the residual sd (R's ``confint``).

    Parameters
    ----------
    fit
        By any method.
    method
        ``"wald"``: estimate ± quantile times standard error; t with the fit's degrees of freedom
        for coefficients where it has them, log sd and atanh correlation for the others.
        ``"profile"``: from the profile likelihood, see :func:`profile`.
        ``"boot"``: from the parametric bootstrap, see ``bootstrap``.
        ``"hdi"``: the highest-density interval of the draws.
        ``"default"``: ``"wald"`` for a fit by maximum likelihood, ``"hdi"`` for one by sampling.
    level
        Probability of the intervals.
    which
        Kinds (``"coef"``, ``"sd"``, ``"corr"``, ``"residual"``) or names (``"Days"``,
        ``"sd Days | Subject"``) of parameters; None for all.
    nsim, seed, executor, progress
        Of the bootstrap: number of simulated responses, what makes them reproducible, who shares
        the work, and whether a bar shows how far it is; see ``bootstrap``.

    Returns
    -------
    Table
        ``kind, group, term, term2, estimate, conf_low, conf_high``: ``group``, ``term`` and
        ``term2`` as in :func:`varcorr`, coefficients on the link scale. A limit that does not
        exist is null.

    Raises
    ------
    ChoiceError
        For an unknown method, one that does not suit the fit, an unknown parameter, or an option
        of the bootstrap where nothing is drawn.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> cbpp = bg.load_dataset("cbpp")
    >>> f = "cbind(incidence, size - incidence) ~ period + (1|herd)"
    >>> fit = bg.glmer(f, cbpp, family="binomial").fit()
    >>> [round(v, 2) for v in bg.confint(fit, "profile", which="sd").row(0)[-2:]]
    [0.35, 1.1]
    >>> [round(v, 2) for v in bg.confint(fit, "wald", which="sd").row(0)[-2:]]
    [0.37, 1.11]
    """
    check_fit(fit, "confint")
    check_choice("method", method, METHODS)
    level = check_level(level)
    by_likelihood = isinstance(fit.posterior, MLPosterior)
    if method == "default":
        method = "wald" if by_likelihood else "hdi"
    if by_likelihood and method == "hdi":
        raise ChoiceError(
            f"method='hdi' needs draws; this fit is {fit.method}. Use 'wald', 'profile' or 'boot', "
            'or sample: model.fit("nuts").'
        )
    if not by_likelihood and method != "hdi":
        raise ChoiceError(
            f"method={method!r} needs a fit by maximum likelihood; this one is {fit.method}: its "
            "draws are the whole posterior, priors included. Use method='hdi', or "
            f"confint(model.fit(), {method!r})."
        )
    if method != "boot" and (seed is not None or nsim != _NSIM or executor is not None):
        raise ChoiceError(
            f"nsim, seed and executor belong to method='boot'; method={method!r} draws nothing. "
            "Leave them out"
        )
    if method == "profile":
        return profile(fit, which, level=level).confint(level)
    if method == "boot":
        from bayesglmm.post.bootstrap import bootstrap

        chosen = list(select(labels(fit.model), which))
        boot = bootstrap(fit, nsim, seed=seed, executor=executor, progress=progress)
        every = boot.confint(level)
        return table(every[chosen].to_dict(), every.caption)
    return _summarised(fit, level, which)


def _summarised(fit: Fit, level: float, which: str | Sequence[str] | None) -> Table:
    """Wald or highest-density intervals: those of ``params`` and ``varcorr``."""
    every = labels(fit.model)
    chosen = list(select(every, which))
    beta, parts = fit.posterior.beta.summary(level), fit.posterior.components(level)
    numbers = {name: np.concatenate([beta[name], parts[name]])[chosen] for name in _NUMBERS}
    kinds = {every[k].kind for k in chosen}
    told = ["Confidence intervals", fit.method]
    if "coef" in kinds:
        told.append(f"coefficients ({scale(fit)}): {fit.posterior.interval(level)}")
    if kinds - {"coef"}:
        told.append(f"sds and correlations: {fit.posterior.component_interval(level)}")
    return table(
        {
            **key_columns([every[k] for k in chosen]),
            **numbers,
        },
        " · ".join(told),
    )
