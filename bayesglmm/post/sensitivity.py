"""How much the posterior would move if the prior, or the data, counted a little more or less."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesglmm.errors import ChoiceError
from bayesglmm.post.parameter_draws import parameter_draws, parameter_names
from bayesglmm.post.pointwise import Chains, chains_of, conditional, draws_of, row_blocks
from bayesglmm.priors.parameters import log_prior
from bayesglmm.tables.table import Table, table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit
    from bayesglmm.model import Model

Array = NDArray[np.float64]
_ALPHAS = (0.99, 1.01)
_THRESHOLD = 0.05
_STRONG, _CONFLICT, _FINE = "strong prior / weak likelihood", "prior-data conflict", "-"


def prior_sensitivity(fit: Fit) -> Table:
    """Power-scaling sensitivity of every parameter to the priors and to the likelihood.

    The priors, or the likelihood, are raised to a power a little below and above one, and the
    draws reweighted by Pareto-smoothed importance sampling; nothing is sampled again. Scaled are
    the priors of the top level together: those of coefficients, standard deviations, correlations
    and sigma. The distribution of the random effects belongs to the model and stays.

    Parameters
    ----------
    fit
        By sampling.

    Returns
    -------
    Table
        ``term``, named as in ``prior_table``; ``prior, likelihood``: the change of the
        posterior distribution (cumulative Jensen-Shannon distance) per doubling of the power;
        ``diagnosis`` with the paper's threshold of 0.05: ``"prior-data conflict"`` when both are
        above it, ``"strong prior / weak likelihood"`` when only the prior's is, else ``"-"``.

    Raises
    ------
    ChoiceError
        For a fit by maximum likelihood, which has no priors.

    References
    ----------
    Kallioinen, Paananen, Bürkner and Vehtari 2024, doi:10.1007/s11222-023-10366-5; R's
    ``priorsense::powerscale_sensitivity``.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> m = bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy"))
    >>> m.fit("nuts", seed=1).prior_sensitivity()  # doctest: +SKIP
    """
    posterior = draws_of(fit, "prior_sensitivity")
    model, chains = fit.model, chains_of(posterior)
    shape = posterior.run.values("beta").shape[:2]
    if chains.size < 100:
        raise ChoiceError(
            f"prior_sensitivity has {chains.size} draws, too few for the tail of importance "
            "weights; use 100 or more (draws=)"
        )
    values = parameter_draws(model.design, chains, model.family.has_scale)
    values = values.reshape(*shape, -1)
    prior = _sensitivity(values, _log_prior(model, chains).reshape(shape))
    likelihood = _sensitivity(values, _log_likelihood(model, chains).reshape(shape))
    strong, informed = prior >= _THRESHOLD, likelihood >= _THRESHOLD
    diagnosis = np.where(strong, np.where(informed, _CONFLICT, _STRONG), _FINE)
    return table(
        {
            "term": list(parameter_names(model.design, model.family.has_scale)),
            "prior": prior,
            "likelihood": likelihood,
            "diagnosis": diagnosis.tolist(),
        },
        f"Power-scaling sensitivity · {posterior.method} · scaled: all priors but that of the "
        "random effects; the likelihood given them · threshold 0.05",
    )


def _log_prior(model: Model, chains: Chains) -> Array:
    """(S,) log-density of the top-level parameters."""
    values = {"beta": chains.beta, "sigma": chains.sigma}
    for term, sd, corr in zip(model.design.random, chains.sds, chains.corrs, strict=True):
        values |= {f"sd_{term.name}": sd, f"corr_{term.name}": corr}
    return log_prior(model.priors, model.design, values)


def _log_likelihood(model: Model, chains: Chains) -> Array:
    """(S,) log-likelihood of all rows given the random effects."""
    total = np.zeros(chains.size)
    for rows in row_blocks(model.design.n, chains.size):
        total += conditional(model, chains, rows).sum(axis=1)
    return total


def _sensitivity(values: Array, log_density: Array) -> Array:
    """(m,) sensitivities of values (chains, draws, m) to a part of the log-density."""
    from arviz_stats.base import array_stats

    if np.ptp(log_density) == 0.0:  # flat priors: no power changes them
        return np.zeros(values.shape[-1])
    weights = []
    for alpha in _ALPHAS:
        log_weights = array_stats.power_scale_lw(log_density, alpha=alpha, axis=(0, 1))
        unscaled = np.exp(log_weights - np.max(log_weights))
        weights.append(unscaled / unscaled.sum())
    moving = np.flatnonzero(np.ptp(values, axis=(0, 1)) > 0.0)
    out = np.full(values.shape[-1], np.nan)
    for k in moving:
        out[k] = array_stats.power_scale_sense(values[..., k], *weights, *_ALPHAS, 0, 1)
    return out
