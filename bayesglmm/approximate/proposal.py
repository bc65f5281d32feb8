"""Where to propose parameters: a multivariate t about the mode, split along its axes.

A log sd that the data hardly tell from zero has a posterior with a long left tail. Each axis has
one scale to either side (Geweke 1989, doi:10.2307/1913710, section 3), found from how far the
log posterior falls; the tails are those of a t. Once some points are weighed, axes and scales can
be those of the weighed points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from bayesglmm.approximate.density import LogPosterior
from bayesglmm.approximate.weights import Weights
from bayesglmm.laplace.optimise import Optimum
from bayesglmm.laplace.structure import Array

_DEGREES = 6.0
# Standard deviations at which the scales are measured: near the mode and in the tails.
_REACH, _TAIL = 2.0, 5.0
_SCALES = (0.3, 4.0)  # smallest and largest, in standard deviations
_GUIDED = 3.0
_TRUSTED = 5.0  # effective points per parameter at which their covariance counts for half


@dataclass(frozen=True, slots=True)
class Proposal:
    """A split t distribution.

    Attributes
    ----------
    centre, axes
        (d,) and (d, d): a point is ``centre + axes @ y``.
    low, high
        (d,) scales of y below and above zero.
    """

    centre: Array
    axes: Array
    low: Array
    high: Array

    def draw(self, m: int, rng: np.random.Generator) -> Array:
        """(m, d) points."""
        d = len(self.centre)
        stretch = np.sqrt(_DEGREES / rng.chisquare(_DEGREES, m))
        z = np.abs(rng.standard_normal((m, d)) * stretch[:, None])
        # Sides in proportion to their scales: the density has no step at the centre.
        above = rng.random((m, d)) < self.high / (self.low + self.high)
        return self.centre + np.where(above, self.high, -self.low) * z @ self.axes.T

    def coordinates(self, x: Array) -> Array:
        """y of points (m, d)."""
        return np.asarray(np.linalg.solve(self.axes, (x - self.centre).T).T)

    def log_density(self, x: Array) -> Array:
        """(m,) log-density at points (m, d)."""
        d, y = len(self.centre), self.coordinates(x)
        z = y / np.where(y > 0.0, self.high, self.low)
        constant = gammaln(0.5 * (_DEGREES + d)) - gammaln(0.5 * _DEGREES)
        constant -= 0.5 * d * np.log(_DEGREES * np.pi) + np.linalg.slogdet(self.axes)[1]
        constant -= np.sum(np.log(0.5 * (self.low + self.high)))
        shape = -0.5 * (_DEGREES + d) * np.log1p(np.sum(z * z, axis=1) / _DEGREES)
        return np.asarray(constant + shape)


@dataclass(frozen=True, slots=True)
class Guide:
    """About where the modes of the random effects are, as a quadratic in y of a proposal.

    Attributes
    ----------
    proposal
        Whose y.
    constant, first, second
        (effects,) at its centre, (effects, d) slopes and halved curvatures along its axes.
    """

    proposal: Proposal
    constant: Array
    first: Array
    second: Array

    def __call__(self, y: Array) -> Array:
        """(m, effects) at every row of y (m, d)."""
        near = np.clip(y, -_GUIDED, _GUIDED)
        return np.asarray(self.constant + near @ self.first.T + near**2 @ self.second.T)


def proposal_at(posterior: LogPosterior, mode: Optimum) -> tuple[Proposal, Guide]:
    """The proposal for a posterior at its mode."""
    k, d = posterior.n_scales, posterior.size
    axes = _axes(np.linalg.inv(-mode.curvature), k)
    top, centre = posterior.look(mode.x)
    low, high = np.ones(d), np.ones(d)
    first, second = np.empty((len(centre), d)), np.empty((len(centre), d))
    for a in range(d):
        sides = []
        for sign, scale in ((-1.0, low), (1.0, high)):
            found = []
            for reach in (_REACH, _TAIL):
                try:
                    value, b = posterior.look(mode.x + sign * reach * axes[:, a])
                except np.linalg.LinAlgError:
                    value, b = -np.inf, centre
                found.append(reach / np.sqrt(2.0 * max(top - value, 1e-3)))
                if reach == _REACH:
                    sides.append(b)
            scale[a] = np.clip(max(found), *_SCALES)
        first[:, a] = (sides[1] - sides[0]) / (2.0 * _REACH)
        second[:, a] = (sides[1] + sides[0] - 2.0 * centre) / (2.0 * _REACH**2)
    proposal = Proposal(mode.x, axes, low, high)
    return proposal, Guide(proposal, centre, first, second)


def adapted(proposal: Proposal, x: Array, weights: Weights, k: int) -> Proposal:
    """The proposal with the covariance and the scales of weighed points (m, d).

    ``k`` is the number of covariance parameters, which come first. The centre stays at the mode.
    """
    away = x - proposal.centre
    w = weights.values
    share = weights.size / (weights.size + _TRUSTED * len(proposal.centre))
    scale = 0.5 * (proposal.low + proposal.high)
    before = (proposal.axes * scale**2) @ proposal.axes.T
    axes = _axes(share * (away.T * w) @ away + (1.0 - share) * before, k)
    y = np.linalg.solve(axes, away.T).T
    # Of a split normal: the second moments of its sides are low^3 and high^3 over low + high.
    below = np.maximum(w @ (y * y * (y < 0.0)), 1e-3)
    above = np.maximum(w @ (y * y * (y > 0.0)), 1e-3)
    ratio = np.cbrt(above / below)
    low = np.sqrt(below * (1.0 + ratio))
    return Proposal(proposal.centre, axes, np.clip(low, *_SCALES), np.clip(ratio * low, *_SCALES))


def _axes(covariance: Array, k: int) -> Array:
    """(d, d) axes: those of the first k, along which the others follow, and of the others."""
    axes = np.zeros_like(covariance)
    own = covariance[:k, :k]
    follow = np.linalg.solve(own, covariance[:k, k:]) if k else covariance[:k, k:]
    axes[:k, :k] = _root(own)
    axes[k:, :k] = follow.T @ axes[:k, :k]
    axes[k:, k:] = _root(covariance[k:, k:] - covariance[k:, :k] @ follow)
    return axes


def _root(covariance: Array) -> Array:
    """A square R with R R' the covariance, each column as near to its own parameter as can be.

    That is the symmetric root of the correlations, scaled: skewness is a matter of single
    parameters, which other axes would smear out.
    """
    sd = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(sd, sd))
    return np.asarray(sd[:, None] * (vectors * np.sqrt(np.maximum(values, 1e-12))) @ vectors.T)
