"""Numbers that describe a maximum-likelihood fit as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayesglmm.errors import ChoiceError
from bayesglmm.families import Likelihood
from bayesglmm.post.check import check_fit
from bayesglmm.posterior.ml import MLPosterior
from bayesglmm.tables.table import Table, table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit


def statistics(fit: Fit) -> Table:
    """Log-likelihood, information criteria and deviances of a maximum-likelihood fit.

    Returns
    -------
    Table
        One row: ``method, nobs, n_parameters, logLik, AIC, AICc, BIC, deviance, df_residual``,
        ``sigma`` where there is a residual variance, and for models without random effects
        ``null_deviance, df_null``. ``deviance`` is the residual deviance of R's ``glm`` for
        models without random effects, and -2 logLik for mixed models, as lme4 prints.

    Raises
    ------
    ChoiceError
        For a fit by NUTS, which has no maximised likelihood.
    """
    check_fit(fit, "statistics")
    posterior = fit.posterior
    if not isinstance(posterior, MLPosterior):
        raise ChoiceError(
            "logLik, AIC, BIC and deviance belong to a maximum-likelihood fit; this one is "
            f"{posterior.method}. Use model.fit() for them."
        )
    at, design = posterior.estimate, fit.model.design
    k, n = at.n_parameters, design.n
    aic = 2.0 * k - 2.0 * at.loglik
    row: dict[str, list[object]] = {
        "method": [at.method],
        "nobs": [n],
        "n_parameters": [k],
        "logLik": [at.loglik],
        "AIC": [aic],
        "AICc": [aic + 2.0 * k * (k + 1) / (n - k - 1) if n > k + 1 else np.nan],
        "BIC": [np.log(n) * k - 2.0 * at.loglik],
    }
    if design.random:
        row |= {"deviance": [-2.0 * at.loglik], "df_residual": [n - k]}
    else:
        likelihood = fit.model.likelihood
        row |= {
            "deviance": [likelihood.deviance(likelihood.link.inverse(at.eta))],
            "df_residual": [n - design.p],
            "null_deviance": [
                _null_deviance(design.offset, likelihood, "(Intercept)" in design.names)
            ],
            "df_null": [n - int("(Intercept)" in design.names)],
        }
    if fit.model.family.has_scale:
        row["sigma"] = [at.sigma]
    return table(row, f"Fit statistics · {at.method}")


def _null_deviance(offset: np.ndarray, likelihood: Likelihood, intercept: bool) -> float:
    """Deviance of the model with only an intercept (and the offset)."""
    if not intercept:
        return likelihood.deviance(likelihood.link.inverse(np.array(offset)))
    if np.all(offset == 0.0):
        mean = np.average(likelihood.y, weights=likelihood.w)
        return likelihood.deviance(np.full(len(likelihood.y), mean))
    from bayesglmm.laplace.glm import fit_glm  # compiled: imported when it is needed

    at = fit_glm(np.ones((len(offset), 1)), offset, likelihood)
    return likelihood.deviance(likelihood.link.inverse(at.eta))
