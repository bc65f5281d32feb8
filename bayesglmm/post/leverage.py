"""Hat values and Cook's distances: what a row contributes to its own fit, and to all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayesglmm.post.check import check_fit
from bayesglmm.post.residuals import by_row, hat, raw_residuals, sigma
from bayesglmm.tables.table import Table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit


def hatvalues(fit: Fit) -> Table:
    """Diagonal of the hat matrix: how strongly each row determines its own fitted value.

    With random effects it is w var(eta) given the variance parameters, beta and the effects
    both uncertain, with the weights w at the fit: for linear mixed models d mu_hat / d y, as in
    lme4. The sum is the effective number of parameters given the variance parameters. For
    generalised mixed models lme4 puts the prior weights in the place of w, which does not lead
    to the hat values of ``glm`` as the random effects vanish; these do.
    With a link that is not canonical w is the observed information, as in the Laplace
    approximation, and may be negative in rows whose log-density is not concave.

    Returns
    -------
    Table
        One column ``hat``, a row for each row of the data; null in rows that the fit dropped.

    Raises
    ------
    ChoiceError
        For a fit by NUTS.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> m = bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy"))
    >>> round(bg.hatvalues(m.fit())["hat"].sum(), 3)
    28.612
    """
    check_fit(fit, "hatvalues")
    given = " given the variances" if fit.model.design.random else ""
    return by_row(fit, {"hat": hat(fit)}, f"Hat values{given} · {fit.method}")


def cooks_distance(fit: Fit) -> Table:
    """Cook's distance of every row, by the one-step formula r^2 h / ((1 - h)^2 p sigma^2).

    r is the Pearson residual, h the hat value, p the number of coefficients; as R's
    ``cooks.distance`` for ``lm``, ``glm`` and lme4's linear mixed models. The variance
    parameters are held fixed: for exact refits, and for whole groups, see :func:`influence`
    (Cook 1977, doi:10.1080/00401706.1977.10489493).

    Returns
    -------
    Table
        One column ``cooks_distance``, a row for each row of the data; null in rows that the fit
        dropped and where the hat value is one.

    Raises
    ------
    ChoiceError
        For a fit by NUTS.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> fit = bg.lm("mpg ~ wt", bg.load_dataset("mtcars")).fit()
    >>> round(bg.cooks_distance(fit)["cooks_distance"].max(), 4)
    0.5319
    """
    check_fit(fit, "cooks_distance")
    h, r = hat(fit), raw_residuals(fit, "pearson")
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = (r / (1.0 - h)) ** 2 * h / (fit.model.design.p * sigma(fit) ** 2)
    distance[~np.isfinite(distance)] = np.nan
    held = ", variances held fixed" if fit.model.design.random else ""
    return by_row(
        fit, {"cooks_distance": distance}, f"Cook's distances, one step{held} · {fit.method}"
    )
