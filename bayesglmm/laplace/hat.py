"""The diagonal of the hat matrix at a fit."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_triangular

from bayesglmm.design import Design
from bayesglmm.families import Likelihood
from bayesglmm.laplace.blocks import Array
from bayesglmm.laplace.estimate import Estimate


def hat_diagonal(design: Design, likelihood: Likelihood, at: Estimate) -> Array:
    """(n,) w_i var(eta_i), beta and the random effects both uncertain, theta and sigma known.

    w is the information of eta_i at the fit (in units of sigma^-2 where there is a scale). The
    sum is the trace of the hat matrix: the effective degrees of freedom given theta.
    """
    if design.random:
        w = -likelihood.derivatives(at.eta, at.sigma)[1]
    else:
        w = likelihood.expected_weights(at.eta, at.sigma)
    groups = [(t.index, t.Z) for t in design.random]
    # eta - eta_hat = S (beta - beta_hat) + Z (b - E[b | beta]); the two parts are independent.
    S = np.array(design.X)
    for (index, Z), C in zip(groups, at.coef_map, strict=True):
        S -= np.einsum("nk,nkp->np", Z, C[index])
    Q, R = np.linalg.qr(design.X)
    S = solve_triangular(R, S.T, trans="T").T
    precision = Q.T @ (w[:, None] * S)
    cov = np.linalg.pinv((precision + precision.T) / 2.0, hermitian=True)
    fixed = np.einsum("np,pq,nq->n", S, cov, S)
    random = at.effect_variance(groups) if groups else np.zeros(design.n)
    return np.asarray(w * (fixed + random))
