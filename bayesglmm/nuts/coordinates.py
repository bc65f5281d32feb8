"""Laplace coordinates: where the posterior is and how it curves, from the ML fit.

Around the conditional modes the likelihood of level j of a term is replaced by a Gaussian
pseudo-observation with precision P_j = sum w z z' and r_j(beta) = P_j b_j + Z'l' - C_j (beta -
beta_hat), C_j = sum w z x'. With Q_j = P_j + Sigma^-1 = L_j L_j' the sampled coordinate is z_j:

    b_j = Q_j^-1 r_j(beta) + L_j^-T z_j,      beta = beta_hat + root z_beta

so that z is nearly N(0, I) for every Sigma: a weakly informed level is non-centred by itself, a
well informed one centred. Terms are transformed one by one, the others held at their modes;
what correlation remains between them is whitened once, at the ML estimate. Nothing is
approximated: the sampled density includes the Jacobian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesglmm.errors import BayesglmmError, FittedExactly
from bayesglmm.laplace import ML, Estimate, maximum_likelihood
from bayesglmm.laplace.covariance import covariance_of
from bayesglmm.nuts.proper import infinite_if_exact

if TYPE_CHECKING:
    from bayesglmm.model import Model

Array = NDArray[np.float64]

# Beyond these sizes the unrolled algebra and the dense whitening cost more than they bring.
_MAX_COLUMNS = 4
_MAX_EFFECTS = 1500
# A relative sd below this share of a typical one is moved up to it: coordinates need a scale.
_SMALLEST_SD = 0.1


@dataclass(frozen=True, slots=True)
class TermCoordinates:
    """Pseudo-observations of one random-effects term.

    Attributes
    ----------
    P
        (J, K, K) precisions.
    r
        (J, K) at beta_hat.
    C
        (J, K, p) sensitivity to beta.
    """

    P: Array
    r: Array
    C: Array


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Everything that fixes the coordinates of one model.

    Attributes
    ----------
    beta, root
        (p,) beta_hat and the (p, p) Cholesky factor of its covariance.
    terms
        One for each random-effects term.
    sigma
        Residual sd at the ML estimate (1 without a scale): pseudo-observations scale with it.
    whitening
        (m, m) matrix A of (z_beta, z_1, ..., z_F) = A epsilon; (0, 0) where none is needed.
    """

    beta: Array
    root: Array
    terms: tuple[TermCoordinates, ...]
    sigma: float
    whitening: Array

    @property
    def size(self) -> int:
        """Number of coefficients and random effects."""
        return len(self.beta) + sum(t.r.size for t in self.terms)


def laplace_coordinates(model: Model) -> Coordinates | None:
    """The coordinates of a model, or None where they would not help.

    That is so without random effects, for terms with more than four columns, for more than 1500
    effects, and where maximum likelihood fails, separates, or finds terms that the data cannot
    tell apart (its estimate is then an arbitrary point of a ridge).
    """
    terms = model.design.random
    if not terms or max(t.K for t in terms) > _MAX_COLUMNS:
        return None
    if sum(t.J * t.K for t in terms) > _MAX_EFFECTS:
        return None
    try:
        ml = maximum_likelihood(model.design, model.likelihood, ML(vcov="conditional"))
    except (BayesglmmError, np.linalg.LinAlgError) as error:
        if isinstance(error, FittedExactly) and infinite_if_exact(model.design):
            raise
        return None
    if not ml.outcome.converged or ml.outcome.redundant or not np.all(np.isfinite(ml.vcov)):
        return None
    if any("infinite" in note for note in ml.outcome.notes):
        return None
    try:
        return _from_estimate(model, ml)
    except np.linalg.LinAlgError:  # covariates so badly scaled that a factor is lost
        return None


def _from_estimate(model: Model, ml: Estimate) -> Coordinates:
    design, likelihood = model.design, model.likelihood
    l1, l2, _ = likelihood.derivatives(ml.eta, ml.sigma)
    w = np.where(l2 < 0.0, -l2, likelihood.expected_weights(ml.eta, ml.sigma))
    terms = []
    for term, b in zip(design.random, ml.modes, strict=True):
        J, K = term.J, term.K

        def total(rows: Array, index: NDArray[np.intp] = term.index, J: int = J) -> Array:
            return np.bincount(index, rows, J)

        P = np.empty((J, K, K))
        C = np.empty((J, K, design.p))
        r = np.empty((J, K))
        for k in range(K):
            z = term.Z[:, k]
            for m in range(K):
                P[:, k, m] = total(w * z * term.Z[:, m])
            for m in range(design.p):
                C[:, k, m] = total(w * z * design.X[:, m])
            r[:, k] = total(z * l1)
        r += np.einsum("jkm,jm->jk", P, b)
        terms.append(TermCoordinates(P, r, C))
    precisions = _prior_precisions(model, ml)
    root = np.linalg.cholesky(ml.vcov)
    found = Coordinates(ml.beta, root, tuple(terms), ml.sigma, np.zeros((0, 0)))
    if len(terms) == 1:
        return found  # one term given beta, and beta marginally: already white
    whitening = _whitening(model, found, precisions, w)
    return Coordinates(ml.beta, root, tuple(terms), ml.sigma, whitening)


def _prior_precisions(model: Model, ml: Estimate) -> list[Array]:
    """Sigma_f^-1 at the ML estimate, kept away from zero variance."""
    out = []
    lambdas = covariance_of(model.design.random).lambdas(ml.theta)
    for term, factor in zip(model.design.random, lambdas, strict=True):
        rms = np.sqrt(np.mean(term.Z * term.Z, axis=0))
        floor = _SMALLEST_SD / np.where(rms > 0.0, rms, 1.0)
        has_scale = model.likelihood.family.has_scale
        linear = has_scale and model.link.name == "identity"
        scale = ml.sigma if linear else 1.0
        sigma = scale**2 * (factor @ factor.T + np.diag(floor**2))
        out.append(np.linalg.inv(sigma))
    return out


def _whitening(model: Model, at: Coordinates, precisions: list[Array], w: Array) -> Array:
    """chol(T'HT)^-T: H the precision of (beta, b) at the mode, T the map from coordinates."""
    design = model.design
    p, m = design.p, at.size
    n = design.n
    columns = np.zeros((n, m))
    columns[:, :p] = design.X
    T = np.zeros((m, m))
    T[:p, :p] = at.root
    prior = np.zeros((m, m))
    start = p
    for term, pseudo, precision in zip(design.random, at.terms, precisions, strict=True):
        J, K = term.J, term.K
        for k in range(K):
            columns[np.arange(n), start + term.index * K + k] = term.Z[:, k]
        Q = pseudo.P + precision
        L = np.linalg.cholesky(Q)
        lift = np.linalg.inv(L).transpose(0, 2, 1)
        drift = -np.linalg.solve(Q, pseudo.C) @ at.root
        T[start : start + J * K, :p] = drift.reshape(J * K, p)
        for j in range(J):
            block = slice(start + j * K, start + (j + 1) * K)
            T[block, block] = lift[j]
            prior[block, block] = precision
        start += J * K
    H = columns.T @ (w[:, None] * columns) + prior
    R = T.T @ H @ T
    # A little of the identity: beta's prior is not in R, and R may be close to singular.
    R[np.diag_indices(m)] += 1e-6
    return np.asarray(np.linalg.inv(np.linalg.cholesky(R)).T)
