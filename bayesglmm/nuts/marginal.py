"""Gaussian models with the random effects and the coefficients integrated out, exactly.

With y = X beta + Z b + e all Gaussian and beta ~ Normal (or flat), p(y | t) has a closed form in
the covariance parameters t alone, from cross-products computed once: with Lambda the factor of
the effects' covariance relative to sigma, H = I + Lambda'Z'WZ Lambda, P the prior precision of
beta and r^2 the least penalised sum of squares,

    -2 log p(y | t) = log det H + log det (X'WX - X'WZ Lambda H^-1 Lambda'Z'WX + sigma^2 P)
                      + r^2 / sigma^2 + 2 (n - p) log sigma + constants,

which is the (restricted, where priors are flat) likelihood of Bates et al. 2015,
doi:10.18637/jss.v067.i01. NUTS then explores t only, and (beta, b) are drawn exactly given each
of its points. The cost of one evaluation does not grow with the number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular

from bayesglmm.design.fixed import INTERCEPT
from bayesglmm.errors import FittedExactly
from bayesglmm.laplace.covariance import covariance_of
from bayesglmm.laplace.optimise import maximise
from bayesglmm.laplace.pls import (
    EXACT,
    ROUNDING,
    LinearProblem,
    linear_problem,
)
from bayesglmm.laplace.standardise import Coordinates, coordinates, orthonormal
from bayesglmm.laplace.structure import Array, Structure
from bayesglmm.laplace.surface import lower_whitening
from bayesglmm.laplace.threads import blas_threads
from bayesglmm.nuts import marginal_kernels as kernels
from bayesglmm.nuts.cross_products import Alone, Several, cross_products
from bayesglmm.nuts.native import addresses
from bayesglmm.nuts.proper import infinite_if_exact
from bayesglmm.nuts.scales import NO_TAIL, Scales, scales_of, straighten
from bayesglmm.nuts.target import Target
from bayesglmm.nuts.tree import named
from bayesglmm.priors import Flat, Normal
from bayesglmm.priors.compiled import compiled

if TYPE_CHECKING:
    from bayesglmm.model import Model

# Multiplications in the dense part of an evaluation, a millisecond or two, above which sampling
# all parameters takes less time.
_DEAR = 5e6
# Multiplications for the levels of random effects, and by row of the data: with more, an evaluation
# (of which a draw takes three) costs more than the thirty of Laplace coordinates, row by row.
_CHEAP = 1e5
_PER_ROW = 50.0
_KIND = "random effects and coefficients integrated out, exactly"
# Standard deviations in t beyond which a direction counts as not identified.
_WIDEST = 3.0


@dataclass(frozen=True, slots=True)
class Integrated:
    """The posterior of the covariance parameters t of a Gaussian model, exact.

    There is no Laplace approximation in it: for a Gaussian model `log_posterior` is what
    ``fit("laplace")`` approximates elsewhere.

    Attributes
    ----------
    model, scales, structure
        What is fitted, the layout and priors of t, and the structure of the effects.
    lifts
        (K_f, K_f) T that carry effects of the standardised columns to the model's.
    root_x, ols
        (p, p) R with X = Q R, and the (p,) least-squares coefficients of Q.
    sums
        What the kernels read.
    centre, root, elbows
        The coordinates: v = centre + root x, where ``centre`` (size,) is the mode of v and
        ``root`` (size, size) the lower triangular factor of its covariance there. t is v, but for
        log sds below their elbow (size,), where it goes down faster: for standard deviations
        that may be zero.
    improper
        Whether a coefficient's prior is flat: the constant of the density is then arbitrary.
    """

    model: Model
    scales: Scales
    structure: Structure
    lifts: tuple[Array, ...]
    root_x: Array
    ols: Array
    sums: Several | Alone
    centre: Array
    root: Array
    elbows: Array
    improper: bool

    @property
    def frame(self) -> tuple[Array, Array, Array]:
        """Centre, root and elbows: what makes coordinates."""
        return self.centre, self.root, self.elbows

    def log_posterior(self, t: Array) -> tuple[float, Array]:
        """log p(y, t), all constants and the Jacobian of t included, and its (size,) gradient.

        Where coefficients have flat priors (density one), its constant is arbitrary, as is
        that of the restricted likelihood.
        """
        return _log_posterior(self.sums, t)

    def log_density(self, x: Array, gradient: Array) -> float:
        """The same as a density of x; fills ``gradient``."""
        return self.sums.log_density(x, self.frame, gradient)

    def parameters(self, x: Array) -> Array:
        """t (m, size) of every row of x."""
        t = np.empty(x.shape)
        kernels.place(np.ascontiguousarray(x), self.centre, self.root, self.elbows, t)
        return t

    @property
    def noise(self) -> int:
        """Number of effects and coefficients."""
        return self.structure.effects + len(self.ols)

    def expand(self, x: Array, noise: Array) -> dict[str, Array]:
        """Named variables at every row of x (m, size), with exact draws of beta and b.

        ``noise`` (m, noise) are standard normals.

        Returns
        -------
        beta (m, p), sd_<group> (m, K), corr_<group> (m, K, K) for correlated terms of several
        columns, b_<group> (m, J, K), sigma (m,)
        """
        return self.draw(self.parameters(x), noise)

    def draw(self, t: Array, noise: Array) -> dict[str, Array]:
        """The same at every row of t (m, size)."""
        effects, draws = self.structure.effects, np.array(noise)
        lifts = [self.lifts[f].ravel() for f in self.structure.order]
        lift = np.concatenate([np.zeros(0), *lifts])
        with blas_threads(0):
            self.sums.draw_effects(np.ascontiguousarray(t), lift, self.root_x, self.ols, draws)
        b, beta = draws[:, :effects], draws[:, effects:]
        return named(self.model, self.scales, self.structure, t, beta, b)

    def coordinates(self, values: Mapping[str, Array]) -> Array:
        """x (m, size) of named sds, correlations and sigma: the inverse of :meth:`expand`."""
        sigma = np.asarray(values["sigma"])
        t = np.empty((len(sigma), self.scales.size))
        for i in range(len(sigma)):
            factors = []
            for term in self.model.design.random:
                sd = np.asarray(values[f"sd_{term.name}"])[i]
                correlated = term.correlated and term.K > 1
                unit = np.linalg.cholesky(values[f"corr_{term.name}"][i]) if correlated else 1.0
                factors.append(sd[:, None] * unit * (1.0 if correlated else np.eye(term.K)))
            t[i] = self.scales.pack(factors, float(sigma[i]))
        v = np.empty(t.shape)
        straighten(t, self.elbows, v)
        return np.asarray(solve_triangular(self.root, (v - self.centre).T, lower=True).T)


def why_not_integrated(model: Model) -> str:
    """What keeps the effects of a model from being integrated out exactly; "" if nothing does."""
    if not model.likelihood.is_linear:
        return f"the family is {model.family.name} with the {model.link.name} link"
    for name, prior in zip(model.design.names, model.priors.coefficients, strict=True):
        if not isinstance(prior, Normal | Flat):
            return f"the prior of {name} is {prior}, neither normal nor flat"
    if scales_of(model) is None:
        return "a prior on a standard deviation has no compiled form"
    cost = _cost(model.design.structure)
    if cost > _DEAR:
        return f"the terms cross too densely ({cost:.1g} multiplications for one evaluation)"
    cost = _level_cost(model)
    if cost > max(_CHEAP, _PER_ROW * model.design.n):
        return (
            f"there are too many levels and coefficients ({cost:.1g} multiplications for one "
            "evaluation)"
        )
    return ""


def integrated(model: Model) -> Integrated | None:
    """The posterior of a Gaussian model's covariance parameters; None where it is not for it.

    `why_not_integrated` says the reason. None also where the density has no mode: it is improper
    then, or so wide that standard deviations exceed e^100.

    Raises
    ------
    FittedExactly
        If the response is fitted exactly: the density is infinite where sigma is zero.
    """
    if why_not_integrated(model):
        return None
    design, likelihood = model.design, model.likelihood
    scales = scales_of(model)
    assert scales is not None
    structure = design.structure
    with blas_threads(0):
        if design.random:
            columns = coordinates(design, structure, lower_whitening)
        else:
            Q, R = orthonormal(design.X)
            columns = Coordinates(Q, R, structure, np.zeros((design.n, 0)), ())
        y = likelihood.y - design.offset
        problem = linear_problem(columns, y, likelihood.w, covariance_of(design.random))
        prior, constant = _prior(model, columns.R, problem.ols)
        constant += scales.constant + 0.5 * problem.log_weights
        constant -= 0.5 * (design.n - design.p) * np.log(2.0 * np.pi)
        lifts = [np.linalg.inv(columns.transforms[f]).ravel() for f in structure.order]
        sums = cross_products(
            structure, scales, problem, np.concatenate([np.zeros(0), *lifts]), prior, constant
        )
        largest = float(likelihood.w.sum() * np.max(np.abs(y)) ** 2)
        floor = 0.0
        if infinite_if_exact(design):
            if problem.xx[-1, -1] <= ROUNDING**2 * largest:
                raise FittedExactly
            floor = float(np.sqrt(EXACT * problem.xx[-1, -1] / design.n))
        found = _coordinates(sums, _start(scales, columns, problem), scales, floor)
    if found is None:
        return None
    return Integrated(
        model,
        scales,
        structure,
        columns.transforms,
        np.ascontiguousarray(columns.R),
        problem.ols,
        sums,
        *found,
        any(isinstance(prior, Flat) for prior in model.priors.coefficients),
    )


def marginal_target(model: Model) -> Target | None:
    """What NUTS samples of a Gaussian model: its covariance parameters only.

    None where :func:`integrated` is.
    """
    found = integrated(model)
    if found is None:
        return None
    address, held, room = found.sums.c_function(found.frame)

    def log_density(x: Array, gradient: Array, _held: object = held) -> float:
        return found.log_density(x, gradient)  # and keeps alive what the addresses point to

    return Target(
        found.scales.size,
        log_density,
        found.expand,
        _KIND,
        address=address,
        data=addresses(*held),
        room=room,
        noise=found.noise,
    )


def _log_posterior(sums: Several | Alone, t: Array) -> tuple[float, Array]:
    gradient, size = np.empty(len(t)), len(t)
    plain = np.zeros(size), np.eye(size), np.full(size, NO_TAIL)
    return sums.log_density(t, plain, gradient), gradient


def _cost(structure: Structure) -> float:
    """Multiplications for the dense part of one evaluation, roughly."""
    q = float(structure.q)
    cost = 2.0 * q**3
    if structure.crosses_densely:
        return cost + 2.0 * (structure.effects - q) * q**2
    trailing = structure.pairs[
        (structure.pairs[:, 0] < structure.n_chain) & (structure.pairs[:, 1] >= structure.n_chain)
    ]
    for f in range(structure.n_chain):
        J, K = (int(v) for v in structure.terms[f, :2])
        met = np.zeros(J)
        for pair in trailing[trailing[:, 0] == f]:
            first = structure.levels[0, pair[5] : pair[5] + pair[3]]
            met += np.bincount(first, minlength=J) * structure.terms[pair[1], 1]
        cost += 2.0 * K * float(met @ met)
    return cost


def _level_cost(model: Model) -> float:
    """Multiplications for the cross-products of effects and coefficients in one evaluation."""
    terms, square = model.design.random, (model.design.p + 1.0) ** 2
    if len(terms) != 1:
        return 2.0 * square * sum(term.J * term.K for term in terms)
    term = terms[0]
    k, l = np.tril_indices(term.K)
    cost = square * len(k)
    if term.J * cost > _CHEAP:  # levels with the same Z'WZ are put together
        w = model.likelihood.w
        blocks = [
            np.bincount(term.index, w * term.Z[:, a] * term.Z[:, b])
            for a, b in zip(k, l, strict=True)
        ]
        size = max(float(np.abs(block).max()) for block in blocks)
        cost *= len(np.unique(np.round(np.stack(blocks) / max(size, 1e-300), 13), axis=1).T)
    return cost


def _prior(model: Model, R: Array, ols: Array) -> tuple[Array, float]:
    """[B e]'D[B e], the prior's quadratic form in the coefficients of Q less the ols ones.

    The intercept's prior is on the linear predictor at the means of the columns, the others' on
    beta = R^-1 (ols + delta). With it, all constants of the prior.
    """
    design, priors = model.design, model.priors.coefficients
    p = design.p
    A = np.eye(p)
    if INTERCEPT in design.names:
        A[design.names.index(INTERCEPT)] = design.X.mean(axis=0)
    B = solve_triangular(R, A.T, trans=1).T if p else A
    form = np.zeros((p + 1, p + 1))
    constant = -float(np.sum(np.log(np.abs(np.diag(R)))))
    for k, prior in enumerate(priors):
        if isinstance(prior, Normal):
            row = np.append(B[k], prior.mean - B[k] @ ols) / prior.sd
            form += np.outer(row, row)
            known = compiled(prior)
            assert known is not None
            constant += known[2]
    return form, constant


def _start(scales: Scales, columns: Coordinates, problem: LinearProblem) -> Array:
    """Effects of about the size of the residuals, in standardised columns."""
    spread = float(np.sqrt(problem.xx[-1, -1] / max(problem.n - problem.p, 1)))
    sigma = 0.7 * (spread if spread > 0.0 else 1.0)
    return scales.pack([sigma * T for T in columns.transforms], sigma)


def _coordinates(
    sums: Several | Alone, start: Array, scales: Scales, floor: float
) -> tuple[Array, Array, Array] | None:
    """Centre, root and elbows; None without a mode.

    A sigma below its ``floor`` is rounding.
    """
    size = scales.size
    usual = np.full(size, 0.3)
    best = maximise(lambda t: _log_posterior(sums, t), start, usual)
    if np.exp(best.x[-1]) < floor:
        raise FittedExactly
    if not (np.isfinite(best.value) and best.converged):
        return None
    cov = _inverse(best.curvature)
    elbows = scales.elbows(best.x, cov, lambda t: _log_posterior(sums, t)[0])
    zero, one = np.zeros(size), np.eye(size)

    def straightened(t: Array) -> Array:
        v = np.empty((1, size))
        straighten(t[None], elbows, v)
        return np.asarray(v[0])

    def bent(v: Array) -> tuple[float, Array]:
        gradient = np.empty(size)
        return sums.log_density(zero, (v, one, elbows), gradient), gradient

    if (elbows > NO_TAIL).any():
        best = maximise(bent, straightened(best.x), usual)
        if not (np.isfinite(best.value) and best.converged):
            return None
    root = np.linalg.cholesky(_inverse(best.curvature))
    return best.x, np.ascontiguousarray(root), elbows


def _inverse(curvature: Array) -> Array:
    """Covariance at a mode."""
    values, vectors = np.linalg.eigh(-curvature)
    spread = 1.0 / np.maximum(values, _WIDEST**-2)
    return np.asarray((vectors * spread) @ vectors.T)
