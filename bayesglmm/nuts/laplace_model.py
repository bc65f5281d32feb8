"""The PyMC model in Laplace coordinates: the same posterior as `Model.to_pymc()`.

Coefficients and random effects are functions of unit-scale coordinates (see `coordinates.py`);
their prior enters as a potential, with the log-Jacobian. Small matrices are unrolled into
elementwise operations over levels, which compile in seconds where batched ones take minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bayesglmm.design import RandomTerm
from bayesglmm.design.fixed import INTERCEPT
from bayesglmm.nuts.coordinates import Coordinates, TermCoordinates
from bayesglmm.priors import LKJ, Flat, Normal, Prior
from bayesglmm.pymc_model import coordinates_of, level_dim, likelihood_of, term_scales

if TYPE_CHECKING:
    from bayesglmm.model import Model

Columns = list[Any]  # K tensors over levels
Matrix = list[list[Any]]  # K x K scalars, or tensors over levels


def build_in_coordinates(model: Model, at: Coordinates) -> Any:
    """The ``pm.Model`` in Laplace coordinates, with the variables of ``Model.to_pymc()``."""
    import pymc as pm
    import pytensor.tensor as pt

    design, priors = model.design, model.priors
    with pm.Model(coords=coordinates_of(model)) as pymc_model:
        epsilon = pm.Flat("epsilon", shape=at.size, initval=np.zeros(at.size))
        z = epsilon
        if at.whitening.size:
            z = pt.dot(pm.Data("whitening", at.whitening), epsilon)
        # The standard normal shape of the coordinates is not a prior: only the model's is.
        p = design.p
        beta = pm.Deterministic(
            "beta",
            pm.Data("beta_hat", at.beta) + pt.dot(pm.Data("beta_root", at.root), z[:p]),
            dims="coef",
        )
        _coefficient_priors(model, beta)
        sigma = priors.sigma[0].pymc("sigma") if priors.sigma else 1.0
        eta = pt.dot(pm.Data("X", design.X, dims=("obs", "coef")), beta)
        if np.any(design.offset != 0.0):
            eta = eta + pm.Data("offset", design.offset, dims="obs")
        shift = beta - pm.Data("beta_hat_", at.beta)
        # The information of a Gaussian response scales with 1 / sigma^2.
        ratio = (at.sigma / sigma) ** 2 if priors.sigma else 1.0
        start = p
        for term, pseudo, sds, corr in zip(
            design.random, at.terms, priors.sds, priors.correlations, strict=True
        ):
            stop = start + term.J * term.K
            zs = z[start:stop].reshape((term.J, term.K))
            eta = eta + _term(term, pseudo, sds, corr, zs, shift, ratio)
            start = stop
        likelihood_of(model, eta, sigma)
    return pymc_model


def _coefficient_priors(model: Model, beta: Any) -> None:
    """log p(beta), the intercept's at the mean of the other columns."""
    import pymc as pm
    import pytensor.tensor as pt

    design, priors = model.design, model.priors.coefficients
    at_mean = pt.dot(design.X.mean(axis=0), beta)
    values = [at_mean if name == INTERCEPT else beta[k] for k, name in enumerate(design.names)]
    normal = [k for k, prior in enumerate(priors) if isinstance(prior, Normal)]
    if normal:
        chosen: list[Normal] = [prior for prior in priors if isinstance(prior, Normal)]
        means = np.array([prior.mean for prior in chosen])
        sds = np.array([prior.sd for prior in chosen])
        stacked = pt.stack([values[k] for k in normal])
        pm.Potential("prior_beta", -0.5 * (((stacked - means) / sds) ** 2).sum())
    for k, prior in enumerate(priors):
        if not isinstance(prior, Normal | Flat):
            density = pm.logp(prior.pymc_dist(1), values[k].reshape((1,))).sum()
            pm.Potential(f"prior_{design.names[k]}", density)


def _term(
    term: RandomTerm,
    pseudo: TermCoordinates,
    sds: tuple[Prior, ...],
    corr: LKJ,
    z: Any,
    shift: Any,
    ratio: Any,
) -> Any:
    """Z b of one term; adds its prior and Jacobian to the model."""
    import pymc as pm
    import pytensor.tensor as pt

    group, K = term.name, term.K
    factor = _scale_factor(term, sds, corr)
    inverse = _invert_lower(factor)
    precision = [
        [sum(inverse[m][r] * inverse[m][c] for m in range(max(r, c), K)) for c in range(K)]
        for r in range(K)
    ]
    P, r0, C = (pm.Data(f"{part}_{group}", getattr(pseudo, part)) for part in ("P", "r", "C"))
    r = ratio * (r0 - pt.tensordot(C, shift, axes=([2], [0])))
    Q = [[ratio * P[:, a, b] + precision[a][b] for b in range(K)] for a in range(K)]
    L = _cholesky(Q)
    mean = _solve_upper(L, _solve_lower(L, [r[:, k] for k in range(K)]))
    noise = _solve_upper(L, [z[:, k] for k in range(K)])
    columns = [m + e for m, e in zip(mean, noise, strict=True)]
    white = _solve_lower(factor, columns)
    log_density = -0.5 * sum((v**2).sum() for v in white)
    log_density -= term.J * sum(pt.log(factor[k][k]) for k in range(K))
    log_density -= sum(pt.log(L[k][k]).sum() for k in range(K))  # |db / dz|
    pm.Potential(f"effects_{group}", log_density)
    b = pm.Deterministic(
        f"b_{group}", pt.stack(columns, axis=1), dims=(level_dim(term), f"{group}_term")
    )
    index = pm.Data(f"index_{group}", term.index.astype(np.int64), dims="obs")
    if K == 1 and np.all(term.Z == 1.0):
        return b[index, 0]
    return (pm.Data(f"Z_{group}", term.Z) * b[index]).sum(axis=1)


def _scale_factor(term: RandomTerm, sds: tuple[Prior, ...], corr: LKJ) -> Matrix:
    """The Cholesky factor of Sigma as K x K scalars."""
    sd, chol = term_scales(term, sds, corr)
    K = term.K
    if chol is None:
        return [[sd[r] if r == c else 0.0 for c in range(K)] for r in range(K)]
    return [[chol[r, c] if c <= r else 0.0 for c in range(K)] for r in range(K)]


def _cholesky(A: Matrix) -> Matrix:
    import pytensor.tensor as pt

    K = len(A)
    L: Matrix = [[0.0] * K for _ in range(K)]
    for c in range(K):
        L[c][c] = pt.sqrt(A[c][c] - sum(L[c][m] ** 2 for m in range(c)))
        for r in range(c + 1, K):
            L[r][c] = (A[r][c] - sum(L[r][m] * L[c][m] for m in range(c))) / L[c][c]
    return L


def _solve_lower(L: Matrix, v: Columns) -> Columns:
    out: Columns = []
    for r in range(len(v)):
        out.append((v[r] - sum(L[r][m] * out[m] for m in range(r))) / L[r][r])
    return out


def _solve_upper(L: Matrix, v: Columns) -> Columns:
    """Solve L' x = v."""
    K = len(v)
    out: Columns = [0.0] * K
    for r in reversed(range(K)):
        out[r] = (v[r] - sum(L[m][r] * out[m] for m in range(r + 1, K))) / L[r][r]
    return out


def _invert_lower(L: Matrix) -> Matrix:
    K = len(L)
    out: Matrix = [[0.0] * K for _ in range(K)]
    for c in range(K):
        unit = [1.0 if r == c else 0.0 for r in range(K)]
        for r, value in enumerate(_solve_lower(L, unit)):
            out[r][c] = value
    return out
