"""Conditional modes of the random effects by penalised Newton steps (PIRLS).

Maximises f(u) = sum_i l_i(x_i'beta + m_i'u) - |u|^2 / 2 for fixed (theta, beta). Newton with
the observed information; where that is not positive the expected information takes its place.
Every step is halved until f grows, so the iteration cannot diverge.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bayesglmm.families.compiled import Density
from bayesglmm.laplace import chain, kernels
from bayesglmm.laplace.covariance import Covariance
from bayesglmm.laplace.factor import Factor, factorize, solve, solve_information
from bayesglmm.laplace.standardise import Coordinates
from bayesglmm.laplace.structure import Array, Structure, Whole

_MAX_STEPS = 100
# Squared Newton decrement at which the modes are exact to about 1e-10 of their sd.
EXACT = 1e-20
_FAR = 1.0  # squared decrement of a start that may be worse than none


@dataclass(frozen=True, slots=True)
class Problem:
    """Everything the objective needs that does not change during a fit.

    Attributes
    ----------
    columns
        X, Z and their structure, standardised.
    offset
        (n,) on the link scale.
    density
        Log-density of the response.
    covariance
        The map from theta to Lambda.
    places, entries
        Positions of theta among the Lambdas as the kernels take them, and (k, 3) the term in
        order of elimination, the row and the column of each.
    """

    columns: Coordinates
    offset: Array
    density: Density
    covariance: Covariance
    places: Whole = field(init=False)
    entries: Whole = field(init=False)

    def __post_init__(self) -> None:
        structure, entries = self.columns.structure, self.covariance.entries
        object.__setattr__(self, "places", structure.places(entries))
        object.__setattr__(self, "entries", structure.columns(entries))
        offset = self.offset.view()
        offset.setflags(write=False)  # always: two types would compile the kernels twice
        object.__setattr__(self, "offset", offset)

    @property
    def p(self) -> int:
        """Number of fixed effects."""
        return int(self.columns.X.shape[1])

    @property
    def in_one_call(self) -> bool:
        """Whether `chain.py` applies: no trailing block, and a family that is compiled."""
        return not self.columns.structure.q and self.density.compiled is not None

    def zeros(self) -> Array:
        """(effects, 1) a start for the modes."""
        return np.zeros((self.columns.structure.effects, 1))


@dataclass(frozen=True, slots=True)
class Modes:
    """The conditional modes and what is known there.

    Attributes
    ----------
    u, b
        (effects, 1) modes, spherical and on the link scale.
    eta
        (n,) linear predictor at the modes.
    f
        Penalised log-likelihood sum l_i - |u|^2/2.
    l
        (4, n): log-density up to constants and its three derivatives in eta.
    score
        (effects, 1) Z' l'.
    W, factor
        Z' diag(-l'') Z in flat blocks, and H factorised.
    converged
        Whether the Newton decrement vanished.
    """

    u: Array
    b: Array
    eta: Array
    f: float
    l: Array
    score: Array
    W: Array
    factor: Factor
    converged: bool


@dataclass(frozen=True, slots=True)
class Border:
    """The fixed effects beside H in the joint information of (u, beta).

    Attributes
    ----------
    cross, solved
        (effects, p) M'WX, and H^-1 of it.
    schur
        (p, p) X'WX - X'WM H^-1 M'WX: the information of beta given theta.
    """

    cross: Array
    solved: Array
    schur: Array

    def solve(self, v: Array) -> Array:
        """schur^-1 v, the shortest solution where it is singular."""
        return solve_information(self.schur, v)


def conditional_modes(
    problem: Problem,
    beta: Array,
    lam: Array,
    start: Array,
    sigma: float = 1.0,
    exact: float = EXACT,
    least: int = 0,
) -> Modes:
    """Modes of u given beta and Lambda.

    Parameters
    ----------
    lam
        Lambda_f as the kernels take them.
    start
        (effects, 1) starting values of b = Lambda u, which moves less than u when Lambda does;
        replaced by zeros where they are worse.
    sigma
        Scale of the family, 1 where it has none.
    exact
        The squared Newton decrement that counts as none.
    least
        Newton steps to take even where the first would do: two, each squaring what is left, give
        modes near the start all their digits.

    Raises
    ------
    numpy.linalg.LinAlgError
        If H is not positive definite at the mode found.
    """
    found = _chain_newton(problem, beta, lam, start, sigma, exact, least)
    if found is not None:
        return found
    return _newton(problem, beta, lam, start, sigma, joint=False, exact=exact, least=least)[0]


def _chain_newton(
    problem: Problem,
    beta: Array,
    lam: Array,
    start: Array,
    sigma: float,
    exact: float,
    least: int,
) -> Modes | None:
    """The same in one compiled loop, where there is no trailing part and the family is compiled.

    None where it does not apply, weights that are not positive and too many steps included.
    """
    if not problem.in_one_call:
        return None
    structure, columns = problem.columns.structure, problem.columns
    u, at = _spherical(structure, lam, start), workspace(problem)
    status, f, logdet = chain.modes(
        structure.arrays,
        lam,
        columns.Z,
        columns.X,
        problem.offset,
        problem.density.compiled,
        sigma,
        limits(exact, least),
        False,
        beta,
        NO_BORDER,
        u,
        at,
    )
    if status >= 2:
        return None
    return modes_of(problem, lam, u, at, sigma, status, f, logdet)


def limits(exact: float = EXACT, least: int = 0) -> tuple[float, float, int, int]:
    """Of the search for the modes, as `chain.modes` takes them."""
    return exact, _FAR, least, _MAX_STEPS


Work = tuple[Array, Array, Array, Array, Array, Array]
NO_BORDER = (np.empty((0, 0)), np.empty((0, 0)), np.empty((0, 0)))


def workspace(problem: Problem) -> Work:
    """What `chain.modes` fills: b, eta, l, score, W, H."""
    structure, n = problem.columns.structure, len(problem.offset)
    effects, values = structure.effects, structure.values
    return (
        np.empty((effects, 1)),
        np.empty(n),
        np.empty((4, n)),
        np.empty((effects, 1)),
        np.empty(values),
        np.empty(values),
    )


def modes_of(
    problem: Problem,
    lam: Array,
    u: Array,
    at: Work,
    sigma: float,
    status: int,
    f: float,
    logdet: float,
) -> Modes:
    """The record of what `chain.modes` found."""
    b, eta, l, score, W, H = at
    f += problem.density.constant(sigma)
    factor = Factor(problem.columns.structure, lam, H, np.empty((0, 0)), logdet)
    return Modes(u, b, eta, f, l, score, W, factor, status == 0)


def _spherical(structure: Structure, lam: Array, b: Array) -> Array:
    u = np.empty_like(b)
    kernels.unscale_effects(structure.arrays, lam, b, u)
    return u


def joint_modes(
    problem: Problem,
    beta: Array,
    lam: Array,
    start: Array,
    sigma: float = 1.0,
    exact: float = EXACT,
) -> tuple[Modes, Array, Border]:
    """Modes of u and beta together given Lambda (lme4's ``nAGQ = 0``), from a start for both.

    ``exact`` is the squared Newton decrement that counts as none.

    Returns
    -------
    Modes, (p,) beta, Border
    """
    modes, beta = _newton(problem, beta, lam, start, sigma, joint=True, exact=exact)
    return modes, beta, border(problem, modes)


def border(problem: Problem, modes: Modes) -> Border:
    """The fixed effects beside H at the modes."""
    return _border(problem, modes.factor, -modes.l[2])


def _border(problem: Problem, factor: Factor, w: Array) -> Border:
    s, X = problem.columns.structure.arrays, problem.columns.X
    wx = X * w[:, None]
    sums = np.empty((problem.columns.structure.effects, problem.p))
    cross = np.empty_like(sums)
    kernels.pull_rows(s, factor.lam, problem.columns.Z, wx, sums, cross)
    solved = solve(factor, cross)
    return Border(cross, solved, X.T @ wx - cross.T @ solved)


def _newton(
    problem: Problem,
    beta: Array,
    lam: Array,
    start: Array,
    sigma: float,
    *,
    joint: bool,
    exact: float = EXACT,
    least: int = 0,
) -> tuple[Modes, Array]:
    structure, X, Z = problem.columns.structure, problem.columns.X, problem.columns.Z
    density, s, n = problem.density, structure.arrays, len(problem.offset)

    def evaluate(u: Array, fixed: Array) -> tuple[Array, Array, Array, float]:
        b, eta, out = np.empty_like(u), np.empty(n), np.empty((4, n))
        kernels.predict(s, lam, Z, fixed, u, b, eta)
        value = density(eta, sigma, out)
        return b, eta, out, value - 0.5 * float(np.vdot(u, u))

    def information(w: Array) -> tuple[Array, Factor]:
        W = np.empty(structure.values)
        kernels.cross_products(s, Z, w, W)
        return W, factorize(structure, W, lam)

    u, fixed = _spherical(structure, lam, start), X @ beta + problem.offset
    b, eta, l, f = evaluate(u, fixed)
    if not np.isfinite(f):
        u = np.zeros_like(start)
        b, eta, l, f = evaluate(u, fixed)
    converged = False
    for k in range(_MAX_STEPS):
        w = -l[2]
        positive = float(w.min()) > 0.0
        if not positive:
            w = np.where(w > 0.0, w, density.likelihood.expected_weights(eta, sigma))
        W, factor = information(w)
        score, scaled = np.empty_like(u), np.empty_like(u)
        kernels.pull_rows(s, lam, Z, l[1][:, None], score, scaled)
        gradient = scaled - u
        step = solve(factor, gradient)
        decrement = float(np.vdot(gradient, step))
        beta_step = np.zeros_like(beta)
        if joint:
            beside = _border(problem, factor, w)
            pull = X.T @ l[1] - beside.cross.T @ step[:, 0]
            beta_step = beside.solve(pull)
            step = step - (beside.solved @ beta_step)[:, None]
            decrement += float(pull @ beta_step)
        if k >= least and decrement < exact * (1.0 + abs(f) * 1e-8):
            converged = True
            break
        if k == 0 and decrement > _FAR and u.any():
            zero = np.zeros_like(u)
            other = evaluate(zero, fixed)
            if other[3] > f:
                u, (b, eta, l, f) = zero, other
                continue
        size = 1.0
        while size > 1e-10:
            trial = u + size * step
            if joint:
                fixed = X @ (beta + size * beta_step) + problem.offset
            new_b, new_eta, new_l, new_f = evaluate(trial, fixed)
            # Close to the mode f is flat to rounding: a full Newton step is then right.
            rounding = 1e-9 * (1.0 + abs(f))
            if new_f > f or (decrement < rounding and new_f > f - rounding):
                break
            size *= 0.5
        else:
            break
        u, b, eta, l, f = trial, new_b, new_eta, new_l, new_f
        beta = beta + size * beta_step
    if not (positive and converged):
        # The last step may have moved on from where these were taken, or W is the expected one.
        W, factor = information(-l[2])
        kernels.pull_rows(s, lam, Z, l[1][:, None], score, scaled)
    return Modes(u, b, eta, f, l, score, W, factor, converged), beta
