"""Draws of all parameters under the names that NUTS fits use, and as an ArviZ DataTree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesglmm.approximate.prior import scale_prior
from bayesglmm.laplace.structure import Array, structure_of
from bayesglmm.nuts.free import free_variables
from bayesglmm.pymc_model import coordinates_of, level_dim

if TYPE_CHECKING:
    from bayesglmm.model import Model


def named(model: Model, x: Array, b: Array) -> dict[str, Array]:
    """Variables (1, m, ...) of draws of (t, beta), (m, k + p), and of the effects, (m, effects)."""
    scales = scale_prior(model).scales
    factors, sigmas = scales.unpack(np.ascontiguousarray(x[:, : scales.size]))
    out = {"beta": x[:, scales.size :]}
    terms = model.design.random
    effects = structure_of(terms).split(np.ascontiguousarray(b.T)) if terms else []
    for term, factor, values in zip(terms, factors, effects, strict=True):
        covariance = factor @ factor.transpose(0, 2, 1)
        sd = np.sqrt(np.einsum("mkk->mk", covariance))
        out[f"sd_{term.name}"] = sd
        if term.correlated and term.K > 1:
            corr = covariance / (sd[:, :, None] * sd[:, None, :])
            corr[:, np.arange(term.K), np.arange(term.K)] = 1.0
            out[f"corr_{term.name}"] = corr
        out[f"b_{term.name}"] = np.moveaxis(values, -1, 0)
    if scales.has_scale:
        out["sigma"] = sigmas
    return {name: np.ascontiguousarray(values)[None] for name, values in out.items()}


def parameter_names(model: Model) -> list[str]:
    """Names of (t, beta), as messages call them."""
    out = []
    for term in model.design.random:
        out += [f"sd of {column} by {term.name}" for column in term.columns]
        if term.correlated:
            out += [
                f"correlation of {term.columns[c]} and {term.columns[r]} by {term.name}"
                for r in range(1, term.K)
                for c in range(r)
            ]
    out += ["residual sd"] * len(model.priors.sigma)
    return [*out, *model.design.names]


def tree_of(model: Model, variables: Mapping[str, Array]) -> Any:
    """The ArviZ DataTree, the free variables of `Model.to_pymc()` included."""
    import xarray as xr

    design = model.design
    dims: dict[str, tuple[str, ...]] = {"beta": ("coef",), "sigma": ()}
    for term in design.random:
        name, columns = term.name, f"{term.name}_term"
        dims[f"sd_{name}"] = (columns,)
        dims[f"corr_{name}"] = (columns, f"{columns}2")
        dims[f"b_{name}"] = (level_dim(term), columns)
    coords = coordinates_of(model)
    rows = coords.pop("obs")
    given = {name: (("chain", "draw", *dims[name]), values) for name, values in variables.items()}
    used = {dim for parts, _ in given.values() for dim in parts}
    posterior = xr.Dataset(given, coords={d: v for d, v in coords.items() if d in used})
    free = free_variables(model, posterior)
    posterior = posterior.assign(
        {name: (("chain", "draw", *parts), values) for name, (parts, values) in free.items()}
    )
    observed = xr.Dataset({"y": ("obs", model.likelihood.y)}, coords={"obs": rows})
    return xr.DataTree.from_dict({"/posterior": posterior, "/observed_data": observed})
