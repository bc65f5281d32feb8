"""Where to propose parameters: a multivariate t about the mode, split along its axes.

A log sd that the data hardly tell from zero has a posterior with a long left tail. Each axis has
one scale to either side (Geweke 1989, doi:10.2307/1913710, section 3), found from how far the
log posterior falls; the tails are those of a t.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from bayesglmm.approximate.density import LogPosterior
from bayesglmm.laplace.optimise import Optimum
from bayesglmm.laplace.structure import Array

DEGREES = 6.0
_REACH = 2.0  # standard deviations at which the scales are measured
_SCALES = (0.4, 4.0)  # smallest and largest, in standard deviations
_GUIDED = 3.0


@dataclass(frozen=True, slots=True)
class Proposal:
    """A split t distribution.

    Attributes
    ----------
    centre, axes
        (d,) and (d, d): a point is ``centre + axes @ y``.
    low, high
        (d,) scales of y below and above zero.
    df
        Degrees of freedom.
    modes
        (3, effects, d): modes of the random effects as a quadratic in y, its constant in the
        first column of the first.
    """

    centre: Array
    axes: Array
    low: Array
    high: Array
    df: float
    modes: Array

    def draw(self, m: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """(m, d) y, and their log-densities (as densities of x)."""
        d = len(self.centre)
        stretch = np.sqrt(self.df / rng.chisquare(self.df, m))
        z = np.abs(rng.standard_normal((m, d)) * stretch[:, None])
        # Sides in proportion to their scales: the density has no step at the centre.
        above = rng.random((m, d)) < self.high / (self.low + self.high)
        y = np.where(above, self.high, -self.low) * z
        return y, self._log_density(z)

    def _log_density(self, z: Array) -> Array:
        d, df = len(self.centre), self.df
        constant = gammaln(0.5 * (df + d)) - gammaln(0.5 * df) - 0.5 * d * np.log(df * np.pi)
        volume = float(np.linalg.slogdet(self.axes)[1])
        volume += float(np.sum(np.log(0.5 * (self.low + self.high))))
        shape = -0.5 * (df + d) * np.log1p(np.sum(z * z, axis=1) / df)
        return np.asarray(constant - volume + shape)

    def point(self, y: Array) -> Array:
        """(d,) x of one y."""
        return np.asarray(self.centre + self.axes @ y)

    def guess(self, y: Array) -> Array:
        """(effects,) about where the modes of the random effects are."""
        near = np.clip(y, -_GUIDED, _GUIDED)
        constant, first, second = self.modes
        return np.asarray(constant[:, 0] + first @ near + second @ near**2)


def proposal_at(posterior: LogPosterior, best: Optimum) -> Proposal:
    """The proposal for a posterior at its mode."""
    k, d = posterior.n_scales, posterior.size
    covariance = np.linalg.inv(-best.curvature)
    axes = np.zeros((d, d))
    # The axes of the covariance parameters, along which the coefficients follow, and those of
    # the coefficients given them: skewness is a matter of single parameters.
    if k:
        own = covariance[:k, :k]
        axes[:, :k] = covariance[:, :k] @ np.linalg.solve(own, _root(own))
    if d > k:
        axes[k:, k:] = _root(np.linalg.inv(-best.curvature[k:, k:]))
    top, centre = posterior.look(best.x)
    low, high = np.ones(d), np.ones(d)
    modes = np.zeros((3, len(centre), d))
    modes[0, :, :1] = centre[:, None]
    for a in range(d):
        sides = []
        for sign, scale in ((-1.0, low), (1.0, high)):
            try:
                value, b = posterior.look(best.x + sign * _REACH * axes[:, a])
            except np.linalg.LinAlgError:
                value, b = -np.inf, centre
            fall = max(top - value, 1e-3)
            scale[a] = np.clip(_REACH / np.sqrt(2.0 * fall), *_SCALES)
            sides.append(b)
        modes[1, :, a] = (sides[1] - sides[0]) / (2.0 * _REACH)
        modes[2, :, a] = (sides[1] + sides[0] - 2.0 * centre) / (2.0 * _REACH**2)
    return Proposal(best.x, axes, low, high, DEGREES, modes)


def _root(covariance: Array) -> Array:
    """Principal axes of the correlations, scaled: a square R with R R' the covariance."""
    sd = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(sd, sd))
    return np.asarray(sd[:, None] * vectors * np.sqrt(values))
