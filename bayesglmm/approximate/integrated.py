"""The log posterior of the covariance parameters of a Gaussian model, exact."""

from __future__ import annotations

import numpy as np

from bayesglmm.approximate.density import Completed
from bayesglmm.laplace.structure import Array, Integers
from bayesglmm.nuts.marginal import Integrated


class IntegratedPosterior:
    """Of t, coefficients and random effects integrated out as `nuts.marginal` does it."""

    approximates, independent = False, 1

    def __init__(self, exact: Integrated) -> None:
        self.exact = exact
        self.size = self.n_scales = exact.scales.size
        self.start = exact.parameters(np.zeros((1, self.size)))[0]
        self.scale = np.sqrt(np.sum(exact.root**2, axis=1))

    def __call__(self, x: Array) -> tuple[float, Array]:
        return self.exact.log_posterior(x)

    def look(self, x: Array) -> tuple[float, Array]:
        return self(x)[0], np.zeros(0)

    def complete(
        self, x: Array, start: Array, candidates: int, rng: np.random.Generator
    ) -> Completed:
        value = np.array([self(row)[0] for row in np.ascontiguousarray(x)])
        return Completed(value, value, x, np.zeros((len(x), 0)))

    def named(self, done: Completed, taken: Integers, seed: int) -> dict[str, Array]:
        noise = np.random.default_rng(seed).standard_normal((len(taken), self.exact.noise))
        draws = self.exact.draw(done.parameters[taken], noise)
        return {name: values[None] for name, values in draws.items()}
