"""The posterior in Laplace coordinates, compiled: a `Target` for built-in families and priors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesglmm.errors import BayesglmmError, FittedExactly
from bayesglmm.families.compiled import Density
from bayesglmm.laplace import ML, maximum_likelihood
from bayesglmm.nuts import kernels
from bayesglmm.nuts.layout import room_of
from bayesglmm.nuts.native import addresses
from bayesglmm.nuts.proper import infinite_if_exact
from bayesglmm.nuts.pseudo import Placed, place
from bayesglmm.nuts.scales import Scales, scales_of
from bayesglmm.nuts.target import NoTarget, Target
from bayesglmm.nuts.tree import named
from bayesglmm.priors.compiled import compiled

if TYPE_CHECKING:
    from bayesglmm.model import Model

Array = NDArray[np.float64]
LogDensity = Callable[[Array, Array], float]
_POINTS = 40
# Coordinates from which on steps that are exact for a standard normal can be longer than others.
_MANY = 50
# Levels of a term with fewer of which its sd has a long tail, which is lost among many effects.
_LEVELS = 10


def laplace_target(model: Model) -> Target:
    """The posterior of any model with built-in family and priors.

    Raises
    ------
    NoTarget
        With the reason: a family, link or prior has no compiled form, or maximum likelihood
        fails.
    FittedExactly
        If a Gaussian response is, and its density therefore infinite.
    """
    likelihood, scales = model.likelihood, scales_of(model)
    if Density(likelihood).compiled is None:
        raise NoTarget(
            f"family {likelihood.family.name!r} with link {likelihood.link.name!r} has no "
            "compiled form"
        )
    unknown = [p for p in model.priors.coefficients if compiled(p) is None]
    if scales is None or unknown:
        raise NoTarget("a prior has no compiled form")
    try:
        ml = maximum_likelihood(model.design, likelihood, ML(vcov="conditional"))
        at = place(model, scales, ml)
    except (BayesglmmError, np.linalg.LinAlgError) as error:
        if isinstance(error, FittedExactly) and infinite_if_exact(model.design):
            raise
        raise NoTarget(f"maximum likelihood gives no coordinates: {error}") from error
    if not np.all(np.isfinite(at.packed.data)):
        raise NoTarget("maximum likelihood gives no coordinates: its estimate is not finite")
    from bayesglmm.nuts.kernels_native import native

    arrays = at.packed.arrays
    size = at.structure.effects + model.design.p + scales.size
    log_density = partial(kernels.log_density, *arrays)
    enough = size >= _MANY and all(term.J >= _LEVELS for term in model.design.random)
    nearly = enough and not at.bent and nearly_normal(log_density, size)
    return Target(
        size,
        log_density,
        partial(_expand, model, scales, at),
        "Laplace coordinates, compiled",
        address=native.address or 0,
        data=addresses(*arrays),
        room=(int(room_of(at.packed.ints)),),
        shape="ridge" if ml.outcome.redundant else "normal" if nearly else "",
        coordinates=partial(_coordinates, model, scales, at),
    )


def nearly_normal(log_density: LogDensity, size: int) -> bool:
    """Whether a density is that of independent standard normals, but for a little.

    At points drawn from those, their own log density varies by (size / 2)^(1/2); what the other
    adds to it has to vary by less than half of that.
    """
    rng, gradient = np.random.default_rng(0), np.empty(size)
    points = rng.standard_normal((_POINTS, size))
    added = [log_density(x, gradient) + 0.5 * float(x @ x) for x in points]
    return bool(np.isfinite(added).all() and np.std(added) < 0.5 * np.sqrt(0.5 * size))


def _expand(model: Model, scales: Scales, at: Placed, x: Array, noise: Array) -> dict[str, Array]:
    """Named variables of every row of x; nothing is left to noise."""
    m, structure = len(x), at.structure
    t, beta = np.empty((m, scales.size)), np.empty((m, model.design.p))
    ordered, b = np.empty((m, structure.effects)), np.empty((m, structure.effects))
    kernels.positions(*at.packed.arrays, np.ascontiguousarray(x), t, beta, ordered)
    b[:, at.order] = ordered
    return named(model, scales, structure, t, beta, b)


def _coordinates(model: Model, scales: Scales, at: Placed, values: Mapping[str, Array]) -> Array:
    """The inverse of `_expand`: (m, size)."""
    beta = np.asarray(values["beta"])
    m, structure, terms = len(beta), at.structure, model.design.random
    roots = []
    for term in terms:
        sd = np.asarray(values[f"sd_{term.name}"])
        corr = values.get(f"corr_{term.name}", np.broadcast_to(np.eye(term.K), (m, *[term.K] * 2)))
        roots.append(sd[:, :, None] * np.linalg.cholesky(np.asarray(corr)))
    sigma = np.asarray(values["sigma"]) if scales.has_scale else np.ones(m)
    t = np.array([scales.pack([L[i] for L in roots], float(sigma[i])) for i in range(m)])
    b = np.zeros((m, 0))
    if terms:
        parts = [np.moveaxis(np.asarray(values[f"b_{term.name}"]), 0, 2) for term in terms]
        b = np.ascontiguousarray(structure.join(parts)[at.order].T)
    x = np.empty((m, structure.effects + model.design.p + scales.size))
    gamma = np.ascontiguousarray((beta - at.beta) @ at.R.T)
    kernels.coordinates(*at.packed.arrays, t.reshape(m, scales.size), gamma, b, x)
    return x
