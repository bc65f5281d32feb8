"""The marginal log-likelihood of a GLMM and its gradient, by the Laplace approximation.

L(theta, beta, sigma) = f(u_hat) - 1/2 log det H. The gradient is analytical: the explicit
derivative at the modes, plus the log-determinant's, which moves through the weights and the
modes and needs leverages, third derivatives and one more solve (the construction of TMB;
Kristensen et al. 2016, doi:10.18637/jss.v070.i05).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesglmm.laplace import chain, kernels
from bayesglmm.laplace.factor import covariance_blocks, inverse_blocks, solve
from bayesglmm.laplace.pirls import (
    EXACT,
    NO_BORDER,
    Border,
    Modes,
    Problem,
    conditional_modes,
    joint_modes,
    limits,
    modes_of,
    workspace,
)
from bayesglmm.laplace.structure import Array


@dataclass(frozen=True, slots=True)
class Value:
    """The marginal log-likelihood at a point.

    ``theta``, ``beta`` and ``log_sigma`` are its derivatives; ``modes`` the state there.
    """

    loglik: float
    theta: Array
    beta: Array
    log_sigma: float
    modes: Modes


def laplace(
    problem: Problem, theta: Array, beta: Array, sigma: float, start: Array, least: int = 0
) -> Value:
    """Laplace log-likelihood and gradient at (theta, beta, sigma).

    ``start`` and ``least`` are those of `pirls.conditional_modes`.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the information at the modes is not positive definite.
    """
    found = _in_one_call(problem, theta, beta, sigma, start, limits(EXACT, least), joint=False)
    if found is not None:
        return found[0]
    lam = problem.columns.structure.pack(problem.covariance.lambdas(theta))
    modes = conditional_modes(problem, beta, lam, start, sigma, least=least)
    return _laplace_at(problem, modes, sigma, ())


def laplace_profiled(
    problem: Problem,
    theta: Array,
    beta: Array,
    sigma: float,
    start: Array,
    exact: float = EXACT,
) -> tuple[Value, Array, Border]:
    """The same with beta at the mode of the penalised likelihood (lme4's ``nAGQ = 0``).

    ``beta`` is where its search starts, which ends at a squared Newton decrement of ``exact``.
    The derivative in theta follows beta as it moves.

    Returns
    -------
    Value, (p,) beta, Border
    """
    found = _in_one_call(problem, theta, beta, sigma, start, limits(exact), joint=True)
    if found is not None:
        return found
    lam = problem.columns.structure.pack(problem.covariance.lambdas(theta))
    modes, beta, beside = joint_modes(problem, beta, lam, start, sigma, exact)
    return _laplace_at(problem, modes, sigma, (beside,)), beta, beside


def _in_one_call(
    problem: Problem,
    theta: Array,
    beta: Array,
    sigma: float,
    start: Array,
    within: tuple[float, float, int, int],
    *,
    joint: bool,
) -> tuple[Value, Array, Border] | None:
    """The same by `chain.laplace`; None where that does not apply."""
    if not problem.in_one_call or problem.density.likelihood.family.has_scale:
        return None
    columns, structure, p = problem.columns, problem.columns.structure, problem.p
    lam, u, at = (
        np.empty(structure.lambda_size),
        np.empty((structure.effects, 1)),
        workspace(problem),
    )
    beside, beta = NO_BORDER, beta.copy()
    if joint:
        shape = (structure.effects, p)
        beside = (np.empty(shape), np.empty(shape), np.empty((p, p)))
    by_theta, by_beta = np.empty(len(theta)), np.empty(p)
    status, f, logdet = chain.laplace(
        structure.arrays,
        problem.places,
        columns.Z,
        columns.X,
        problem.offset,
        problem.density.compiled,
        sigma,
        within,
        joint,
        theta,
        beta,
        start,
        lam,
        u,
        at,
        beside,
        by_theta,
        by_beta,
    )
    if status >= 2:
        return None
    modes = modes_of(problem, lam, u, at, sigma, status, f, logdet)
    return Value(modes.f - 0.5 * logdet, by_theta, by_beta, 0.0, modes), beta, Border(*beside)


def _laplace_at(problem: Problem, modes: Modes, sigma: float, beside: tuple[Border, ...]) -> Value:
    value = modes.f - 0.5 * modes.factor.logdet
    direct = np.zeros_like(modes.factor.lam)
    kernels.outer_sums(problem.columns.structure.arrays, modes.score, modes.u, direct)
    slopes = total_slopes(
        problem,
        modes,
        sigma,
        rows=modes.l[1],
        lambdas=direct,
        modes_bar=np.zeros_like(modes.u),
        information_bar=-0.5 * inverse_blocks(modes.factor),
        beside=beside,
    )
    log_sigma = 0.0
    likelihood = problem.density.likelihood
    if likelihood.family.has_scale:
        explicit = likelihood.scale_derivatives(modes.eta, sigma)[0]
        log_sigma = slopes.log_sigma + float(np.sum(explicit))
    return Value(value, slopes.theta, slopes.beta, log_sigma, modes)


@dataclass(frozen=True, slots=True)
class Slopes:
    """Total derivatives of an objective in theta, beta and (through the modes only) log sigma."""

    theta: Array
    beta: Array
    log_sigma: float


def total_slopes(
    problem: Problem,
    modes: Modes,
    sigma: float,
    *,
    rows: Array,
    lambdas: Array,
    modes_bar: Array,
    information_bar: Array,
    beside: tuple[Border, ...] = (),
) -> Slopes:
    """Derivatives of an objective that also moves through the modes and through H.

    Parameters
    ----------
    rows
        (n,) its derivative in the fixed part of eta_i, modes and H held still.
    lambdas
        Its derivative in the Lambda_f, modes and H held still; as the kernels take them.
    modes_bar
        (effects, 1) its derivative in the modes u, H held still.
    information_bar
        Its derivative in H, in flat blocks (-H^-1 / 2 for the Laplace approximation).
    beside
        The fixed effects, if they are at their mode too and move with it; else empty.
    """
    structure, Z, lam, l = problem.columns.structure, problem.columns.Z, modes.factor.lam, modes.l
    s, slopes = structure.arrays, np.empty_like(lam)
    spread, through, moved = np.empty_like(rows), np.empty_like(rows), np.empty_like(rows)
    if not structure.q and not beside:
        at = (modes.b, modes.eta, l, modes.score, modes.W, modes.factor.H)
        bars, made = (information_bar, modes_bar), (spread, through, moved, slopes)
        chain.slopes(s, lam, Z, problem.columns.X, at, modes.u, *bars, False, NO_BORDER, *made)
    else:
        # spread is m' (information_bar) m: H moves with eta at the mode.
        kernels.quadratic_form(s, Z, covariance_blocks(modes.factor, information_bar), spread)
        through = -l[3] * spread
        sums, scaled = np.empty_like(modes.u), np.empty_like(modes.u)
        kernels.pull_rows(s, lam, Z, through[:, None], sums, scaled)
        v = solve(modes.factor, scaled + modes_bar)  # the modes move with everything
        shift = np.zeros_like(rows)
        for border in beside:
            pull = problem.columns.X.T @ through - border.cross.T @ v[:, 0]
            v_beta = border.solve(pull)
            v = v - (border.solved @ v_beta)[:, None]
            shift = problem.columns.X @ v_beta
        lifted = np.empty_like(v)
        kernels.predict(s, lam, Z, shift, v, lifted, moved)
        through += l[2] * moved
        kernels.sum_rows(s, Z, through[:, None], sums)
        kernels.logdet_slopes(s, lam, modes.W, information_bar, slopes)
        slopes *= 2.0
        kernels.outer_sums(s, sums, modes.u, slopes)
        kernels.outer_sums(s, modes.score, v, slopes)
    slopes += lambdas
    log_sigma = 0.0
    if problem.density.likelihood.family.has_scale:
        _, s1, s2 = problem.density.likelihood.scale_derivatives(modes.eta, sigma)
        log_sigma = float(np.sum(moved * s1 - spread * s2))
    return Slopes(
        slopes[problem.places],
        problem.columns.X.T @ (rows + through),
        log_sigma,
    )
