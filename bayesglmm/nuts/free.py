"""The free variables of `Model.to_pymc()`, from the draws of its named quantities.

With them PyMC's own functions work on any fit: ``pm.sample_posterior_predictive(fit.to_arviz(),
model=fit.model.to_pymc())`` and ``pm.compute_log_likelihood``. Without them PyMC would quietly
draw the missing ones from their priors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayesglmm.design.fixed import INTERCEPT
from bayesglmm.priors import Flat, Normal

if TYPE_CHECKING:
    from bayesglmm.model import Model

Array = NDArray[np.float64]
Variables = dict[str, tuple[tuple[str, ...], Array]]


def free_variables(model: Model, posterior: Any) -> Variables:
    """Dims and values, (chain, draw, ...), of every free variable that is not there already.

    Parameters
    ----------
    posterior
        xarray Dataset with ``beta``, ``sd_<group>``, ``corr_<group>``, ``b_<group>``.
    """
    out = _coefficients(model, np.asarray(posterior["beta"].values))
    for term, sds in zip(model.design.random, model.priors.sds, strict=True):
        group, K = term.name, term.K
        sd = np.asarray(posterior[f"sd_{group}"].values)
        b = np.asarray(posterior[f"b_{group}"].values)
        correlated = term.correlated and K > 1
        factor = sd[..., :, None] * np.eye(K)
        if len(set(sds)) > 1:
            out |= {f"sd_{group}_{c}": ((), sd[..., k]) for k, c in enumerate(term.columns)}
        if correlated:
            # A correlation that rounds to one leaves a factor that exists.
            corr = np.asarray(posterior[f"corr_{group}"].values)
            unit = np.linalg.cholesky(corr + 1e-14 * np.eye(corr.shape[-1]))
            factor = sd[..., :, None] * unit
            if len(set(sds)) > 1:
                out[f"chol_{group}"] = ((f"chol_{group}_0", f"chol_{group}_1"), unit)
            else:
                packed = factor[..., *np.tril_indices(K)]
                out[f"chol_{group}"] = ((f"chol_{group}_packed",), packed)
        z = np.linalg.solve(factor[..., None, :, :], b[..., None])[..., 0]
        out[f"z_{group}"] = (tuple(posterior[f"b_{group}"].dims[2:]), z)
    return out


def _coefficients(model: Model, beta: Array) -> Variables:
    names, priors = model.design.names, model.priors.coefficients
    others = [k for k, name in enumerate(names) if name != INTERCEPT]
    chosen = [priors[k] for k in others]
    whole = all(isinstance(p, Normal) for p in chosen) or all(isinstance(p, Flat) for p in chosen)
    if INTERCEPT not in names:
        return {} if whole else {f"beta_{n}": ((), beta[..., k]) for k, n in enumerate(names)}
    out: Variables = {"intercept_at_mean": ((), beta @ model.design.X.mean(axis=0))}
    if not others:
        return out
    if whole:
        return {**out, "slopes": (("slope",), beta[..., others])}
    return {**out, **{f"slopes_{names[k]}": ((), beta[..., k]) for k in others}}
