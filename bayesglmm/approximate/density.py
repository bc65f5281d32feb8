"""A log posterior in few parameters, the others integrated out: what every kind of it shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.linalg.lapack import dtrtrs

from bayesglmm.approximate.prior import scale_prior
from bayesglmm.laplace import kernels
from bayesglmm.laplace.covariance import covariance_of
from bayesglmm.laplace.factor import Factor
from bayesglmm.laplace.standardise import Coordinates, orthonormal
from bayesglmm.laplace.structure import Array, Integers

if TYPE_CHECKING:
    from bayesglmm.model import Model

_LARGEST_START = 3.0  # of an sd, relative to the residual's
_SMALLEST_START = 0.05
_STEPS = (0.1, 1.0)  # smallest and largest change expected in a log sd
_CORRELATION_STEP = 0.3


@dataclass(frozen=True, slots=True)
class Completed:
    """Points with draws of what was integrated out.

    Attributes
    ----------
    value
        (m,) log posterior of the points, by the approximation; -inf where it cannot be computed.
    exact
        (m,) estimates of the exact log posterior, unbiased before the logarithm: the ratios of the
        joint density to that of the draws, averaged.
    parameters
        (m, d) covariance parameters t and, unless they are integrated out too, coefficients, link
        scale.
    b
        (m, effects) random effects, in order of elimination; (m, 0) where they are drawn later.
    """

    value: Array
    exact: Array
    parameters: Array
    b: Array


class LogPosterior(Protocol):
    """A log posterior in few parameters, the others integrated out.

    Attributes
    ----------
    size
        Number of parameters.
    n_scales
        How many of them, the first, are covariance parameters.
    start, scale
        Where to start and the size of a change there.
    approximates
        Whether the integral is an approximation.
    independent
        Number of groups of random effects that are independent given the parameters.
    """

    size: int
    n_scales: int
    start: Array
    scale: Array
    approximates: bool
    independent: int

    def __call__(self, x: Array) -> tuple[float, Array]:
        """The value and its gradient; -inf where it cannot be computed."""
        ...

    def look(self, x: Array) -> tuple[float, Array]:
        """The value, and (effects,) the modes of the random effects where they are searched.

        Raises
        ------
        numpy.linalg.LinAlgError
            If it cannot be computed there.
        """
        ...

    def complete(
        self, x: Array, start: Array, candidates: int, rng: np.random.Generator
    ) -> Completed:
        """The values at points x (m, size), and what was integrated out drawn.

        Releases the interpreter's lock where it is compiled.

        Parameters
        ----------
        start
            (m, effects) guesses at the modes, from which they are searched.
        candidates
            How many draws of the random effects ``exact`` is averaged over, and the draw chosen
            from.
        """
        ...

    def named(self, done: Completed, taken: Integers, seed: int) -> dict[str, Array]:
        """Draws of all variables by name, (1, draws, ...), at the points ``taken`` of ``done``.

        What is integrated out exactly is drawn here, afresh for every draw.
        """
        ...


def raw_coordinates(model: Model) -> Coordinates:
    """Orthonormal X; random-effects columns as they are, which priors are about."""
    design = model.design
    structure = design.structure
    X, R = orthonormal(design.X)
    columns = [design.random[f].Z for f in structure.order]
    Z = np.concatenate(columns, axis=1) if columns else np.zeros((design.n, 0))
    eyes = tuple(np.eye(term.K) for term in design.random)
    return Coordinates(X, R, structure, np.ascontiguousarray(Z), eyes)


class Layout:
    """The places of the engine's theta among the factors of all terms."""

    def __init__(self, model: Model) -> None:
        self.prior = scale_prior(model)
        self.covariance = covariance_of(model.design.random)
        terms = self.prior.scales.terms
        self.places = np.array(
            [terms[f, 3] + r * terms[f, 0] + c for f, r, c in self.covariance.entries],
            dtype=np.intp,
        )

    def slopes(self, factors: Array, in_theta: Array) -> Array:
        out = np.zeros_like(factors)
        out[self.places] = in_theta
        return out

    def start(self, theta: Array, error: Array, sigma: float) -> tuple[Array, Array]:
        """t of a moment estimate of theta, without correlations, and the scale of changes."""
        scales = self.prior.scales
        factors, spread = [], np.full(scales.size, _CORRELATION_STEP)
        diagonal = {(f, r): k for k, (f, r, c) in enumerate(self.covariance.entries) if r == c}
        for f, (K, _, at, _) in enumerate(scales.terms):
            k = [diagonal[f, r] for r in range(K)]
            sds = np.clip(np.abs(theta[k]), _SMALLEST_START, _LARGEST_START)
            factors.append(sigma * np.diag(sds))
            spread[at : at + K] = np.clip(error[k] / sds, *_STEPS)
        if scales.has_scale:
            spread[-1] = _STEPS[0]
        return scales.pack(factors, sigma), spread


def half_solve(factor: Factor, noise: Array) -> Array:
    """(effects, m) draws from N(0, H^-1) out of standard normals: L'^-1 noise."""
    q = factor.structure.q
    out = np.array(noise, order="C")
    if q:
        out[-q:] = dtrtrs(factor.S.T, out[-q:], lower=0)[0]
    kernels.solve_up(factor.structure.arrays, factor.H, out)
    return out
