"""Intraclass correlations: how alike two responses of one group are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesglmm.errors import ChoiceError
from bayesglmm.post.check import check_fit
from bayesglmm.post.r2 import shares_table
from bayesglmm.post.tables import check_level, scale
from bayesglmm.post.variances import Distribution, variances
from bayesglmm.tables.table import Table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit


def icc(fit: Fit, *, distribution: Distribution = "default", level: float = 0.95) -> Table:
    """Intraclass correlation of every grouping factor, and of all together.

    The share of a factor in the variance of the response on the link scale: ``adjusted`` for
    the fixed effects (random and distribution variance in the denominator), or ``unadjusted``
    (the variance of the fixed effects too). With random slopes the variance of a factor is the
    mean over the rows of z'Sigma z, so it depends on where the covariates lie.

    Parameters
    ----------
    distribution
        The variance of the response's own distribution on the link scale; see :func:`r2`.
    level
        Probability of the intervals for draws.

    Returns
    -------
    Table
        ``group, kind, estimate``; for draws ``std_error, conf_low, conf_high`` and
        diagnostics. ``group`` is ``(all)`` for all factors together, if there are several. The
        caption has the variances.

    Raises
    ------
    ChoiceError
        For a model without groups, or a distribution variance that it does not have.

    References
    ----------
    Nakagawa, Johnson and Schielzeth 2017, doi:10.1098/rsif.2017.0213.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> m = bg.lmer("diameter ~ 1 + (1|plate) + (1|sample)", bg.load_dataset("penicillin"))
    >>> bg.icc(m.fit("reml")).filter(kind="adjusted")["estimate"].round(4).to_list()
    [0.1509, 0.7854, 0.9363]
    """
    check_fit(fit, "icc")
    level = check_level(level)
    design = fit.model.design
    if all(design.n == term.J for term in design.random):
        raise ChoiceError(
            f"icc needs groups of rows; {fit.model.formula!r} has none. Add a term such as "
            "(1|group)"
        )
    parts = variances(fit, distribution)
    groups = dict(parts.random)
    if len(groups) > 1:
        groups["(all)"] = parts.between
    adjusted = parts.between + parts.within
    labels: dict[str, list[str]] = {"group": [], "kind": []}
    shares = []
    for name, part in groups.items():
        for kind, total in (("adjusted", adjusted), ("unadjusted", parts.fixed + adjusted)):
            labels["group"].append(name)
            labels["kind"].append(kind)
            shares.append(part / total)
    what = f"Intraclass correlations, {scale(fit)}"
    return shares_table(fit, dict(labels), shares, what, parts, level)
