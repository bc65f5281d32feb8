"""The log-likelihood maximised with one parameter held at a value.

Any sd, correlation, coefficient or residual sd becomes a coordinate of a :class:`Surface`: the
effects of its term are put in an order in which the first row of Lambda is (sd, 0, ..., 0) and the
second sd2 (corr, sqrt(1 - corr^2), 0, ..., 0); a coefficient moves its column into the offset.
What is left is free, without constraints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from bayesglmm.design import Design
from bayesglmm.families import Likelihood
from bayesglmm.laplace.covariance import Component, canonical, covariance_of
from bayesglmm.laplace.estimate import Estimate
from bayesglmm.laplace.surface import Objective, Surface, curvature, surface

Array = NDArray[np.float64]

_GRADIENT = 1e-4  # in standard errors: the log-likelihood is then exact to 1e-8
_LOST = 1e-2  # a gradient of this size means that the search did not arrive
_NEARBY = 3  # visited points from which the next start is predicted


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fit of a model with random effects, as this file needs it.

    Attributes
    ----------
    nagq
        Nodes of the quadrature; 1 for Laplace or a linear model.
    estimate
        The maximum.
    """

    design: Design
    likelihood: Likelihood
    nagq: int
    estimate: Estimate

    def surface(self, design: Design) -> Surface:
        """The log-likelihood over a rearranged design."""
        return surface(design, self.likelihood, self.nagq, self.estimate.relative_to)

    def factors(self) -> tuple[Array, ...]:
        """Lambda_f on the scale of the linear predictor."""
        scale = self.estimate.sigma if self.likelihood.is_linear else 1.0
        lambdas = covariance_of(self.design.random).lambdas(self.estimate.theta)
        return tuple(scale * factor for factor in lambdas)


@dataclass(frozen=True, slots=True)
class Restriction:
    """A log-likelihood over the free coordinates y, for each value of the held parameter.

    Attributes
    ----------
    at
        value -> (surface, A, c): the surface's coordinates are x = A y + c.
    start
        y at the estimate.
    """

    at: Callable[[float], tuple[Surface, Array, Array]]
    start: Array

    def objective(self, value: float) -> Objective:
        """The log-likelihood and its gradient in y."""
        on, A, c = self.at(value)

        def loglik(y: Array) -> tuple[float, Array]:
            total, gradient = on.loglik(A @ y + c)
            return total, A.T @ gradient

        return loglik


def hold_coefficient(fit: Fitted, column: int) -> Restriction:
    """Hold the coefficient of one column of X."""
    design, at = fit.design, fit.estimate
    rest = np.delete(design.X, column, axis=1)

    def held(value: float) -> tuple[Surface, Array, Array]:
        offset = design.offset + value * design.X[:, column]
        on = fit.surface(replace(design, X=rest, offset=offset))
        return on, np.eye(len(on.scale)), np.zeros(len(on.scale))

    on = held(float(at.beta[column]))[0]
    return Restriction(held, on.point(fit.factors(), at.sigma, np.delete(at.beta, column)))


def hold_residual(fit: Fitted) -> Restriction:
    """Hold the residual sd."""
    on = fit.surface(fit.design)
    x = on.point(fit.factors(), fit.estimate.sigma, fit.estimate.beta)
    return _hold_coordinate(on, on.covariance.size, np.log, x)


def hold_component(fit: Fitted, part: Component) -> Restriction:
    """Hold an sd or a correlation of the random effects."""
    group = fit.design.random[part.term]
    if not group.correlated:
        order = list(range(group.K))
    else:
        first = [part.row] if part.kind == "sd" else [part.column, part.row]
        order = first + [k for k in range(group.K) if k not in first]
    on = fit.surface(_reordered(fit.design, part.term, order))
    factors = list(fit.factors())
    if group.correlated:
        factors[part.term] = np.linalg.qr(factors[part.term][order].T, mode="r").T
    x = on.point(tuple(factors), fit.estimate.sigma, fit.estimate.beta)
    x[: on.covariance.size] = canonical(on.covariance, x[: on.covariance.size])
    if part.kind == "corr":
        return _hold_correlation(on, part.term, x)
    place = order.index(part.row)
    lift = on.lifts[part.term][place, place]
    entry = on.covariance.entries.index((part.term, place, place))
    return _hold_coordinate(on, entry, lambda sd: sd / lift, x)


def _reordered(design: Design, term: int, order: list[int]) -> Design:
    """The design with the columns of one term in another order."""
    group = design.random[term]
    moved = replace(group, Z=group.Z[:, order], columns=tuple(group.columns[k] for k in order))
    return replace(design, random=(*design.random[:term], moved, *design.random[term + 1 :]))


def _hold_coordinate(
    on: Surface, place: int, coordinate: Callable[[float], float], x: Array
) -> Restriction:
    A = np.delete(np.eye(len(x)), place, axis=1)

    def held(value: float) -> tuple[Surface, Array, Array]:
        c = np.zeros(len(x))
        c[place] = coordinate(value)
        return on, A, c

    return Restriction(held, np.delete(x, place))


def _hold_correlation(on: Surface, term: int, x: Array) -> Restriction:
    """Rows (s1, 0) and s2 (rho, sqrt(1 - rho^2)) of Lambda.

    With [[a, 0], [b, c]] the head of T^-1 the coordinates are a s1, b s1 + c s2 rho and
    c s2 sqrt(1 - rho^2); free are a s1 and c s2.
    """
    inverse = solve_triangular(on.lifts[term][:2, :2], np.eye(2), lower=True)
    tilt = inverse[1, 0] / inverse[0, 0]
    first, cross, second = (
        on.covariance.entries.index((term, *place)) for place in ((0, 0), (1, 0), (1, 1))
    )
    free = second - 1  # its place in y, which lacks the cross entry before it

    def held(value: float) -> tuple[Surface, Array, Array]:
        A = np.delete(np.eye(len(x)), cross, axis=1)
        A[cross, first] = tilt
        A[cross, free] = value
        A[second, free] = np.sqrt(max(0.0, 1.0 - value**2))
        return on, A, np.zeros(len(x))

    y = np.delete(x, cross)
    y[free] = np.hypot(x[second], x[cross] - tilt * x[first])
    return Restriction(held, y)


class Maximum:
    """value -> the log-likelihood maximised over everything else; -inf where no maximum is found.

    A search starts where those nearby ended, so that it takes few steps.

    Parameters
    ----------
    restriction
        What is held.
    at
        Its estimate.
    """

    def __init__(self, restriction: Restriction, at: float) -> None:
        on, A, _ = restriction.at(at)
        entries = on.covariance.entries
        diagonal = [k for k, (_, r, c) in enumerate(entries) if r == c]
        self._restriction = restriction
        self._visited: dict[float, tuple[Array, Array]] = {}
        self._scale = np.max(np.where(A != 0.0, on.scale[:, None], 0.0), axis=0)
        self._diagonal = np.any(A[diagonal] != 0.0, axis=0)
        self._root = _root(restriction.objective(at), restriction.start, self._scale)

    def __call__(self, value: float) -> float:
        objective, start = self._restriction.objective(value), self._restriction.start
        if len(start) == 0:
            return objective(start)[0]
        y, total, gradient, inverse = self._search(objective, *self._predicted(value))
        if not gradient < _LOST:
            again = self._search(objective, self._off_zero(start), np.eye(len(start)))
            if not total >= again[1]:
                y, total, gradient, inverse = again
        if not (np.isfinite(total) and gradient < _LOST):
            return -np.inf
        self._visited[value] = y, inverse
        return total

    def _search(
        self, objective: Objective, start: Array, inverse: Array
    ) -> tuple[Array, float, float, Array]:
        """Maximise over z, y = start + root z: standard errors are one."""
        from scipy.optimize import minimize  # slow to import

        def downhill(z: Array) -> tuple[float, Array]:
            total, gradient = objective(start + self._root @ z)
            return -total, -(self._root.T @ gradient)

        with np.errstate(invalid="ignore", over="ignore"):  # a step too long: it is shortened
            found = minimize(
                downhill,
                np.zeros(len(start)),
                jac=True,
                method="BFGS",
                options={"gtol": _GRADIENT, "hess_inv0": inverse, "maxiter": 200},
            )
        gradient = float(np.max(np.abs(found.jac)))
        return start + self._root @ found.x, -float(found.fun), gradient, found.hess_inv

    def _predicted(self, value: float) -> tuple[Array, Array]:
        """The polynomial through the nearest points visited, and the nearest's curvature."""
        start = self._restriction.start
        near = sorted(self._visited, key=lambda v: abs(v - value))[:_NEARBY]
        if not near:
            return self._off_zero(start), np.eye(len(start))
        if abs(value - near[0]) > 3.0 * np.ptp(near):
            near = near[:1]
        y = np.zeros_like(start)
        for k, place in enumerate(near):
            others = np.delete(near, k)
            y += self._visited[place][0] * np.prod((value - others) / (place - others))
        inverse = self._visited[near[0]][1]
        return self._off_zero(y), 0.5 * (inverse + inverse.T)

    def _off_zero(self, y: Array) -> Array:
        """Diagonals of Lambda moved off zero, where the gradient vanishes by symmetry."""
        away = np.minimum(0.3 * np.linalg.norm(self._root, axis=1), 0.1 * self._scale)
        small = self._diagonal & (np.abs(y) < away)
        return np.where(small, np.where(y < 0.0, -away, away), y)


def _root(objective: Objective, y: Array, scale: Array) -> Array:
    """A root of the inverse information at the estimate; flat directions are bounded."""
    if len(y) == 0:
        return np.zeros((0, 0))
    information = -curvature(objective, y, scale) * np.outer(scale, scale)
    values, vectors = np.linalg.eigh(information)
    floor = 1e-6 * max(float(np.max(np.abs(values))), 1e-300)
    return np.asarray(scale[:, None] * vectors / np.sqrt(np.maximum(np.abs(values), floor)))
