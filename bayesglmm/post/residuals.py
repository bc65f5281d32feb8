"""Residuals: what the fitted means leave over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import ndtri_exp

from bayesglmm.errors import ChoiceError, check_choice, check_whole
from bayesglmm.laplace.hat import hat_diagonal
from bayesglmm.post.check import check_fit
from bayesglmm.post.predict import predict
from bayesglmm.posterior.ml import MLPosterior
from bayesglmm.tables.table import Table, table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

Array = NDArray[np.float64]
Type = Literal["pearson", "deviance", "response", "working", "quantile", "studentised"]

_MEANING = {
    "pearson": "(y - mu) sqrt(w / V(mu))",
    "deviance": "signed root of each row's part of the deviance",
    "response": "y - mu",
    "working": "(y - mu) / (d mu / d eta), link scale",
    "quantile": "normal quantile of F(y), randomised where y is discrete",
    "studentised": "deviance residual with the row's own leverage taken out",
}
_DIVISOR = {"none": "", "sigma": " / sigma", "leverage": " / (sigma sqrt(1 - hat))"}
_SCALED = ("pearson", "deviance")


def residuals(
    fit: Fit,
    type: Type = "pearson",
    *,
    scale: Literal["none", "sigma", "leverage"] = "none",
    seed: int = 0,
) -> Table:
    """Residuals of every row of the data, in its order.

    The fitted mean mu includes the random effects at their conditional modes (for NUTS it is
    the posterior mean of mu, and sigma its posterior mean).

    Parameters
    ----------
    type
        ``"pearson"``: (y - mu) sqrt(w / V(mu)) with the prior weights w and the variance
        function V, not divided by sigma, as R's ``residuals(type = "pearson")``. For binomial
        and Poisson mixed models these are lme4's "scaled residuals".
        ``"deviance"``: sign(y - mu) sqrt(d), where d is the row's part of the deviance.
        ``"response"``: y - mu.
        ``"working"``: (y - mu) / (d mu / d eta), link scale.
        ``"quantile"``: the standard normal quantile of F(y) at the fitted mean and sigma; for a
        discrete response of a point drawn uniformly between F(y-) and F(y). Standard normal
        when the model holds (Dunn and Smyth 1996, doi:10.1080/10618600.1996.10474708).
        ``"studentised"``: R's ``rstudent``, sign(y - mu) sqrt(d + h r^2 / (1 - h)) with the
        Pearson residual r and the hat value h, divided by the scale estimated without the row
        (for mixed models, as lme4, by sigma).
    scale
        For Pearson and deviance residuals: ``"sigma"`` divides by sigma (lme4's ``scaled``),
        ``"leverage"`` by sigma sqrt(1 - h), R's ``rstandard``; ML only.
    seed
        Of the randomisation of quantile residuals.

    Returns
    -------
    Table
        One column ``residual``; null in rows that the fit dropped, and studentised or scaled by
        leverage also where the hat value is one. The response is as the family sees it: 0 and 1
        for two levels, proportions for counts of successes.

    Raises
    ------
    ChoiceError
        For an unknown type or scale, a scale that does not apply to the type, a seed that is
        not a whole number, or hat values of a fit by NUTS.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> fit = bg.glm("TICKS ~ YEAR", bg.load_dataset("grouseticks"), family="poisson").fit()
    >>> round(bg.residuals(fit, "deviance")["residual"].max(), 4)
    17.1467
    """
    check_fit(fit, "residuals")
    check_choice("type", type, tuple(_MEANING))
    check_choice("scale", scale, tuple(_DIVISOR))
    if scale != "none" and type not in _SCALED:
        raise ChoiceError(
            f"scale={scale!r} applies to type 'pearson' and 'deviance'; {type!r} residuals have "
            "their own scale"
        )
    drawn = ""
    if type == "quantile":
        values, discrete = _quantile(fit, seed)
        drawn = f", seed {seed}" if discrete else ""
    elif type == "studentised":
        values = _studentised(fit)
    else:
        values = raw_residuals(fit, type)
        if scale == "sigma":
            values = values / sigma(fit)
        elif scale == "leverage":
            values = _over(values, sigma(fit) * np.sqrt(_free(fit)))
    caption = f"Residuals, {type}: {_MEANING[type]}{_DIVISOR[scale]}{drawn} · {fit.method}"
    return by_row(fit, {"residual": values}, caption)


def by_row(fit: Fit, columns: dict[str, Array], caption: str) -> Table:
    """A table with the rows of the caller's data from columns (n,); null in dropped rows."""
    design = fit.model.design
    out = {}
    for name, values in columns.items():
        whole = np.full(design.n_rows, np.nan)
        whole[design.rows] = values
        out[name] = pl.Series(whole).fill_nan(None)
    return table(out, caption)


def fitted_eta(fit: Fit) -> Array:
    """(n,) linear predictor at the conditional modes; for NUTS g(posterior mean of mu)."""
    if isinstance(fit.posterior, MLPosterior):
        return fit.posterior.estimate.eta
    mu = predict(fit)["estimate"].to_numpy()[fit.model.design.rows]
    return np.asarray(fit.model.link.link(mu))


def sigma(fit: Fit) -> float:
    """The residual scale: its estimate, or its posterior mean; 1 for a family without."""
    if not fit.model.family.has_scale:
        return 1.0
    if isinstance(fit.posterior, MLPosterior):
        return fit.posterior.estimate.sigma
    return float(fit.posterior.run.values("sigma").mean())


def hat(fit: Fit) -> Array:
    """(n,) hat values of an ML fit.

    Raises
    ------
    ChoiceError
        For a fit by NUTS.
    """
    if not isinstance(fit.posterior, MLPosterior):
        raise ChoiceError(
            f"hat values belong to a maximum-likelihood fit; this one is {fit.method}. Use "
            "model.fit() for them."
        )
    return hat_diagonal(fit.model.design, fit.model.likelihood, fit.posterior.estimate)


def raw_residuals(fit: Fit, type: str) -> Array:
    """(n,) response, Pearson, deviance or working residuals of the rows used."""
    likelihood = fit.model.likelihood
    mu, slope, _, _ = likelihood.link.derivatives(fitted_eta(fit))
    y, w = likelihood.y, likelihood.w
    if type == "response":
        return y - mu
    if type == "working":
        return _over(y - mu, slope)
    if type == "pearson":
        # A mean at the edge of its range that fits perfectly has no variance, and no residual.
        quotient = _over((y - mu) * np.sqrt(w), np.sqrt(likelihood.family.variance(mu)))
        return np.where(y == mu, 0.0, quotient)
    # Rounding can make the deviance of a perfectly fitted row a hair below zero.
    unit = np.maximum(likelihood.family.unit_deviance(y, mu), 0.0)
    return np.asarray(np.sign(y - mu) * np.sqrt(w * unit))


def _quantile(fit: Fit, seed: int) -> tuple[Array, bool]:
    """(n,) quantile residuals, and whether they are randomised."""
    seed = check_whole("seed", seed, 0)
    below, at, above = fit.model.likelihood.log_tails(fitted_eta(fit), sigma(fit))
    u = np.random.default_rng(seed).uniform(np.finfo(np.float64).tiny, 1.0, size=len(below))
    lower = np.logaddexp(below, np.log(u) + at)
    upper = np.logaddexp(above, np.log1p(-u) + at)
    # The smaller tail has all its digits.
    values = np.where(lower < upper, ndtri_exp(lower), -ndtri_exp(upper))
    return values, bool(np.any(np.isfinite(at)))


def _free(fit: Fit) -> Array:
    """(n,) 1 - h, zero where a row fits itself."""
    return np.maximum(1.0 - hat(fit), 0.0)


def _studentised(fit: Fit) -> Array:
    design = fit.model.design
    free = _free(fit)
    d, r = raw_residuals(fit, "deviance"), raw_residuals(fit, "pearson")
    own = _over(d**2, free)  # what the row adds to the deviance
    scale: Array | float = sigma(fit)
    if fit.model.family.has_scale and not design.random:
        rest = np.sum(d**2) - own
        scale = np.sqrt(np.maximum(rest, 0.0) / (design.n - design.p - 1))
    # A hat value is negative where the log-density is not concave (some links that are not
    # canonical); the root then stops at zero.
    both = np.sign(d) * np.sqrt(np.maximum(d**2 + _over((1.0 - free) * r**2, free), 0.0))
    return _over(both, np.broadcast_to(scale, both.shape))


def _over(numerator: Array, denominator: Array) -> Array:
    """A quotient; NaN where the denominator is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0.0, numerator / denominator, np.nan)
