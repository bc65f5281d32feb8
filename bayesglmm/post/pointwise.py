"""The likelihood of every row for every posterior draw, given the random effects."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayesglmm.errors import ChoiceError
from bayesglmm.families import Likelihood
from bayesglmm.post.check import check_fit
from bayesglmm.posterior.sampled import SampledPosterior

if TYPE_CHECKING:
    from bayesglmm.families.compiled import Density
    from bayesglmm.fit import Fit
    from bayesglmm.model import Model

Array = NDArray[np.float64]
_BLOCK = 1 << 22  # numbers at a time: 32 MiB


def draws_of(fit: object, what: str, instead: str = "") -> SampledPosterior:
    """The draws of a fit by sampling.

    Raises
    ------
    ChoiceError
        For anything else; ``instead`` says what serves a fit by maximum likelihood.
    """
    check_fit(fit, what, 'model.fit("nuts")')
    posterior = fit.posterior  # type: ignore[attr-defined]
    if not isinstance(posterior, SampledPosterior):
        raise ChoiceError(
            f"{what} needs posterior draws; this fit is {posterior.method}. "
            f'Use model.fit("nuts"){instead}'
        )
    return posterior


@dataclass(frozen=True, slots=True)
class Chains:
    """The draws of a fit, chains one after the other.

    Attributes
    ----------
    beta
        (S, p).
    sds, corrs
        (S, K) and (S, K, K) of every term; correlations are the identity where there are none.
    effects
        (S, J, K) of every term.
    sigma
        (S,); ones where the family has no scale.
    """

    beta: Array
    sds: tuple[Array, ...]
    corrs: tuple[Array, ...]
    effects: tuple[Array, ...]
    sigma: Array

    @property
    def size(self) -> int:
        """Number of draws, S."""
        return len(self.beta)


def chains_of(posterior: SampledPosterior, thin: int = 1) -> Chains:
    """Every ``thin``-th draw of each chain."""

    def flat(name: str) -> Array:
        values = posterior.run.values(name)[:, ::thin]
        return values.reshape(values.shape[0] * values.shape[1], *values.shape[2:])

    beta = flat("beta")
    sds, corrs, effects = [], [], []
    for term in posterior.design.random:
        sds.append(flat(f"sd_{term.name}"))
        correlated = term.correlated and term.K > 1
        one = np.broadcast_to(np.eye(term.K), (len(beta), term.K, term.K))
        corrs.append(flat(f"corr_{term.name}") if correlated else one)
        effects.append(flat(f"b_{term.name}"))
    has_sigma = "sigma" in posterior.run.tree["posterior"]
    sigma = flat("sigma") if has_sigma else np.ones(len(beta))
    return Chains(beta, tuple(sds), tuple(corrs), tuple(effects), sigma)


def linear_predictor(
    model: Model, chains: Chains, draws: slice, rows: slice, without: Collection[int] = ()
) -> Array:
    """eta of some rows for some draws, (draws, rows).

    Parameters
    ----------
    without
        Positions of random-effects terms to leave out.
    """
    design = model.design
    eta = chains.beta[draws] @ design.X[rows].T + design.offset[rows]
    for f, term in enumerate(design.random):
        if f in without:
            continue
        b, Z = chains.effects[f][draws], term.Z[rows]
        for k in range(term.K):
            eta += b[:, term.index[rows], k] * Z[:, k]
    return np.asarray(eta)


def row_blocks(n: int, size: int) -> Iterator[slice]:
    """Slices of n rows whose likelihoods for ``size`` draws fit a bounded memory."""
    step = max(1, _BLOCK // max(size, 1))
    return (slice(k, min(k + step, n)) for k in range(0, n, step))


def conditional(model: Model, chains: Chains, rows: slice) -> Array:
    """(S, rows) log p(y_i | beta, b, sigma)."""
    from bayesglmm.families.compiled import Density, evaluate  # compiled: loaded when called

    whole = model.likelihood
    part = Likelihood(whole.family, whole.link, whole.y[rows], whole.w[rows], whole.trials[rows])
    density, has_scale = Density(part), whole.family.has_scale
    eta = linear_predictor(model, chains, slice(None), rows)
    if density.compiled is None:
        # Families are elementwise, so a column of sigmas gives every draw its own.
        sigma = chains.sigma[:, None] if has_scale else 1.0
        return part.log_density(eta, sigma)  # type: ignore[arg-type]
    filled = np.empty((4, eta.shape[1]))
    for s in range(chains.size):
        evaluate(*density.compiled, eta[s], chains.sigma[s], filled)
        eta[s] = filled[0]
    eta += row_constants(density)
    return eta - np.log(chains.sigma)[:, None] if has_scale else eta


def row_constants(density: Density) -> Array:
    """(n,) what the compiled density leaves out, at sigma = 1."""
    likelihood, out = density.likelihood, np.empty((4, len(density.likelihood.y)))
    if density.compiled is None:
        return np.zeros(len(likelihood.y))
    # A large sigma keeps the squares small, and the digits of the difference.
    sigma = float(np.max(np.abs(likelihood.y))) + 1.0 if likelihood.family.has_scale else 1.0
    # Inside the range of every link, where a row's own density is finite, too.
    eta = np.full(len(likelihood.y), float(likelihood.link.link(np.array(likelihood.inside()))))
    density(eta, sigma, out)
    extra = math.log(sigma) if likelihood.family.has_scale else 0.0
    return np.asarray(likelihood.log_density(eta, sigma) - out[0] + extra)


def log_likelihood(fit: Fit) -> Array:
    """Log-likelihood of every row for every draw, given the random effects.

    Its mean over the draws enters information criteria, its inverse the weights of
    :func:`bayesglmm.loo`, which needs no such array in memory.

    Returns
    -------
    ndarray, (chains, draws, n)
        log p(y_i | beta, b, sigma), constants included, for the n rows used.

    Raises
    ------
    ChoiceError
        For a fit by maximum likelihood, whose ``loglik`` is one number.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> fit = bg.lm("mpg ~ wt", bg.load_dataset("mtcars")).fit("nuts")  # doctest: +SKIP
    >>> bg.log_likelihood(fit).shape  # doctest: +SKIP
    (4, 1000, 32)
    """
    posterior = draws_of(fit, "log_likelihood", "; that of an ML fit is fit.loglik")
    chains, n = chains_of(posterior), fit.model.design.n
    out = np.empty((chains.size, n))
    for rows in row_blocks(n, chains.size):
        out[:, rows] = conditional(fit.model, chains, rows)
    return out.reshape(*posterior.run.values("beta").shape[:2], n)


def with_log_likelihood(fit: Fit) -> Any:
    """The draws as a DataTree of their own that has a group ``log_likelihood`` too."""
    import xarray as xr

    tree = draws_of(fit, "to_arviz").run.tree.copy()
    observed = tree["observed_data"]
    values = xr.DataArray(
        log_likelihood(fit), dims=("chain", "draw", "obs"), coords={"obs": observed.coords["obs"]}
    )
    tree["log_likelihood"] = xr.DataTree(xr.Dataset({"y": values}))
    return tree
