"""The variance of the response on the link scale in its parts: behind R² and ICC.

Nakagawa, Johnson and Schielzeth 2017, doi:10.1098/rsif.2017.0213; with random slopes Johnson
2014, doi:10.1111/2041-210X.12225.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from bayesglmm.design import Design
from bayesglmm.errors import check_choice
from bayesglmm.laplace import ML, maximum_likelihood
from bayesglmm.laplace.covariance import components, covariance_of
from bayesglmm.laplace.estimate import Estimate
from bayesglmm.posterior.ml import MLPosterior

if TYPE_CHECKING:
    from bayesglmm.fit import Fit
    from bayesglmm.model import Model

Array = NDArray[np.float64]
Distribution = Literal["default", "theoretical", "trigamma", "lognormal", "delta", "residual"]

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(61)


@dataclass(frozen=True, slots=True)
class Variances:
    """Parts of the variance, link scale; draws where the fit has draws.

    Attributes
    ----------
    fixed
        (chains, draws) variance of X beta over the rows; (1, 1) for ML.
    random
        By grouping factor, the same shape: mean over the rows of the variance of z'b.
    dispersion
        The same for effects with one level for each row (additive overdispersion).
    distribution
        Variance of the response's own distribution.
    how
        In words, what ``distribution`` is.
    """

    fixed: Array
    random: dict[str, Array]
    dispersion: Array
    distribution: Array
    how: str

    @property
    def between(self) -> Array:
        """All grouping factors together."""
        return np.asarray(sum(self.random.values(), np.zeros_like(self.fixed)))

    @property
    def within(self) -> Array:
        """What neither the fixed effects nor the groups account for."""
        return self.dispersion + self.distribution

    def text(self) -> str:
        """The parts in a line: their values, or posterior means."""
        parts = {"fixed": self.fixed, **self.random}
        if np.any(self.dispersion):
            parts["one effect a row"] = self.dispersion
        shown = ", ".join(f"{name} {np.mean(value):.4g}" for name, value in parts.items())
        return f"variances: {shown}, distribution {np.mean(self.distribution):.4g} ({self.how})"


def variances(fit: Fit, distribution: Distribution = "default") -> Variances:
    """Split the variance of the response on the link scale.

    Raises
    ------
    ChoiceError
        For a distribution variance that the family and link do not have.
    """
    design, posterior = fit.model.design, fit.posterior
    if isinstance(posterior, MLPosterior):
        beta = posterior.estimate.beta[None, None]
        values = posterior.estimate.component_values[None, None]
    else:
        beta, values = posterior.beta.values, posterior.component_draws.values
    R = np.linalg.qr(design.X - design.X.mean(axis=0), mode="r")
    fixed = np.sum((beta @ R.T) ** 2, axis=-1) / max(design.n - 1, 1)
    random: dict[str, Array] = {}
    dispersion = np.zeros_like(fixed)
    for term, Sigma in zip(design.random, covariances(design, values), strict=True):
        part = np.einsum("...kl,kl->...", Sigma, term.Z.T @ term.Z / design.n)
        if design.n == term.J:
            dispersion = dispersion + part
        else:
            random[term.factor] = random.get(term.factor, 0.0) + part
    sigma = values[..., -1] if fit.model.family.has_scale else np.ones_like(fixed)
    value, how = _distribution_variance(fit.model, sigma, distribution)
    return Variances(fixed, random, dispersion, value, how)


def covariances(design: Design, values: Array) -> list[Array]:
    """Covariance of every term, (..., K, K), from (..., m) sds and correlations."""
    out = [np.zeros((*values.shape[:-1], t.K, t.K)) for t in design.random]
    for k, c in enumerate(components(covariance_of(design.random))):
        Sigma = out[c.term]
        if c.kind == "sd":
            Sigma[..., c.row, c.row] = values[..., k] ** 2
        else:  # all sds come first; a correlation with an effect of sd zero is not a number
            product = Sigma[..., c.row, c.row] * Sigma[..., c.column, c.column]
            covariance = np.nan_to_num(values[..., k]) * np.sqrt(product)
            Sigma[..., c.row, c.column] = Sigma[..., c.column, c.row] = covariance
    return out


def distribution_variances(model: Model) -> tuple[str, ...]:
    """Names of the distribution variances that a model has, the default first."""
    if model.likelihood.is_linear:
        return ("residual",)
    return (*model.family.link_variances.get(model.link.name, {}), "delta")


def _distribution_variance(model: Model, sigma: Array, kind: str) -> tuple[Array, str]:
    """The variance of the response's distribution on the link scale, and what it is in words."""
    known = model.family.link_variances.get(model.link.name, {})
    allowed = distribution_variances(model)
    check_choice("distribution", kind, ("default", *allowed))
    kind = allowed[0] if kind == "default" else kind
    if kind == "residual":
        return sigma**2 * float(np.mean(1.0 / model.likelihood.w)), "residual"
    if kind == "theoretical":
        value = known[kind](np.nan)
        return np.full_like(sigma, value), f"of a latent response, {model.link.name} link"
    mu = null_mean(model)
    how = f"{kind} at {mu:.4g}, the mean of the null model"
    if kind in known:
        return np.full_like(sigma, known[kind](mu)), how
    eta = model.link.link(np.array([mu]))
    slope, unit = model.link.derivatives(eta)[1], model.family.variance(np.array([mu]))
    return sigma**2 * float(unit[0] / slope[0] ** 2), how


def null_mean(model: Model) -> float:
    """The population mean of the intercept-only model with the same random effects and offset.

    The random effects are integrated over, not set to zero; the mean is over the rows.
    """
    design = model.design
    at = null_fit(model)
    eta = design.offset + at.beta[0]
    spread = np.zeros(design.n)
    for term, Sigma in zip(design.random, covariances(design, at.component_values), strict=True):
        spread += np.einsum("nk,kl,nl->n", term.Z, Sigma, term.Z)
    points = eta[:, None] + np.sqrt(spread)[:, None] * _NODES
    return float(np.mean(model.link.inverse(points) @ _WEIGHTS) / np.sum(_WEIGHTS))


def null_fit(model: Model) -> Estimate:
    """The fit with an intercept as the only coefficient."""
    design = replace(model.design, X=np.ones((model.design.n, 1)), names=("(Intercept)",))
    return maximum_likelihood(design, model.likelihood, ML(df="asymptotic"))
