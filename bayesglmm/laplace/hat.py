"""How the fitted values follow the response: hat values, and the drift of the variances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from bayesglmm.design import Design
from bayesglmm.families import Likelihood
from bayesglmm.laplace.covariance import covariance_of
from bayesglmm.laplace.estimate import Estimate
from bayesglmm.laplace.structure import Array, Integers

if TYPE_CHECKING:
    from scipy import sparse


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


def variance_drift(design: Design, likelihood: Likelihood, at: Estimate) -> float:
    """sum_i (d mu_hat_i / d theta)(d theta_hat / d y_i) of a linear mixed model.

    What the trace of the hat matrix leaves out: theta is estimated from y too. Analytic (Greven
    and Kneib 2010, doi:10.1093/biomet/asq042), by implicit differentiation of the profiled
    deviance f(theta, y) = N log y'Py + log det, whose derivatives follow from dP = -P dV P. A
    theta on its boundary does not move: there dV is zero. Dense in the number of random effects.
    """
    from scipy import sparse  # slow to import

    w = likelihood.w
    covariance = covariance_of(design.random)
    lambdas = covariance.lambdas(at.theta)
    units = np.eye(covariance.size)
    steps = [covariance.lambdas(unit) for unit in units]  # d Lambda / d theta_k
    Z = sparse.hstack([_columns(t.index, t.Z, t.J) for t in design.random]).tocsr()
    counts = [t.J for t in design.random]

    def spread(blocks: list[Array]) -> sparse.csr_array:
        """Block-diagonal (q, q) with a term's block for each of its levels."""
        parts = [sparse.kron(sparse.eye_array(J), B) for J, B in zip(counts, blocks, strict=True)]
        return sparse.csr_array(sparse.block_diag(parts))

    M = Z @ spread(list(lambdas))
    WM = sparse.diags_array(w) @ M
    factor = cho_factor((M.T @ WM).toarray() + np.eye(M.shape[1]), lower=True)

    def V_solve(v: Array) -> Array:
        wv = w.reshape(-1, *[1] * (v.ndim - 1)) * v
        return np.asarray(wv - WM @ cho_solve(factor, M.T @ wv))

    X = np.linalg.qr(design.X)[0]
    VX = V_solve(X)
    fixed = cho_factor(X.T @ VX, lower=True)

    def P(v: Array) -> Array:
        return np.asarray(V_solve(v) - VX @ cho_solve(fixed, VX.T @ v))

    reml = at.method == "REML"
    N = design.n - design.p if reml else design.n
    K = (M.T @ sparse.diags_array(w) @ Z).toarray()
    T = (Z.T @ sparse.diags_array(w) @ Z).toarray() - K.T @ cho_solve(factor, K)  # Z'V^-1 Z
    if reml:  # Z'P Z
        ZVX = Z.T @ VX
        T -= ZVX @ cho_solve(fixed, ZVX.T)
    Py = w * (likelihood.y - at.eta)
    r2 = N * at.sigma**2  # y'P y
    G = [spread([d @ L.T + L @ d.T for d, L in zip(step, lambdas, strict=True)]) for step in steps]
    ZPy = Z.T @ Py
    a = np.column_stack([Z @ (g @ ZPy) for g in G])  # dV_k P y
    Pa = P(a)
    slope = -(Py @ a)  # d r2 / d theta
    TG = [T @ g for g in G]
    m = len(G)
    F = np.empty((m, m))
    for k in range(m):
        for j in range(k + 1):
            pair = zip(steps[k], steps[j], strict=True)
            both = spread([c @ d.T + d @ c.T for c, d in pair])
            second = 2.0 * a[:, k] @ Pa[:, j] - ZPy @ (both @ ZPy)
            logdet = both.multiply(T).sum() - np.sum(TG[k] * TG[j].T)
            F[k, j] = F[j, k] = N * (second / r2 - slope[k] * slope[j] / r2**2) + logdet
    # d mu_hat / d theta_k = W^-1 P a_k, and the mixed derivative of f in theta_l and y.
    moved = Pa / w[:, None]
    mixed = -2.0 * N * (Pa / r2 + np.outer(Py, slope) / r2**2)
    size = np.sqrt(np.abs(np.diag(F)))
    size[size == 0.0] = 1.0
    inverse = np.linalg.pinv(F / np.outer(size, size), rcond=1e-8, hermitian=True)
    return -float(np.sum(inverse / np.outer(size, size) * (moved.T @ mixed)))


def _columns(index: Integers, Z: Array, J: int) -> sparse.csr_array:
    """The (n, J K) columns of a term, level by level."""
    from scipy import sparse

    n, K = Z.shape
    where = index[:, None] * K + np.arange(K)
    return sparse.csr_array((Z.ravel(), where.ravel(), np.arange(n + 1) * K), shape=(n, J * K))
