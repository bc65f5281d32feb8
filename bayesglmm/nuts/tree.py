"""Draws as an ArviZ DataTree with named dimensions and coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayesglmm.laplace.structure import Structure
from bayesglmm.nuts.free import free_variables
from bayesglmm.nuts.target import Array
from bayesglmm.pymc_model import level_dim

if TYPE_CHECKING:
    from bayesglmm.model import Model
    from bayesglmm.nuts.scales import Scales


def parameter_names(model: Model) -> list[str]:
    """The variables that mean something to the user."""
    return list(_dims(model))


def _dims(model: Model) -> dict[str, tuple[str, ...]]:
    """Dimensions of every parameter after chain and draw."""
    out: dict[str, tuple[str, ...]] = {"beta": ("coef",)}
    for term in model.design.random:
        group, columns = term.name, f"{term.name}_term"
        out[f"sd_{group}"] = (columns,)
        if term.correlated and term.K > 1:
            out[f"corr_{group}"] = (columns, f"{columns}2")
        out[f"b_{group}"] = (level_dim(term), columns)
    if model.likelihood.family.has_scale:
        out["sigma"] = ()
    return out


def named(
    model: Model, scales: Scales, structure: Structure, t: Array, beta: Array, b: Array
) -> dict[str, Array]:
    """Parameters by name, each (m, ...).

    Parameters
    ----------
    structure
        Of the random effects.
    t, beta
        (m, size) covariance parameters, (m, p) coefficients.
    b
        (m, effects) random effects, in order of elimination.
    """
    terms = model.design.random
    factors, sigma = scales.unpack(t)
    firsts = dict(zip(structure.order, structure.terms[:, 2].tolist(), strict=True))
    out = {"beta": np.ascontiguousarray(beta)}
    for f, (term, factor) in enumerate(zip(terms, factors, strict=True)):
        sd = np.sqrt(np.sum(factor**2, axis=2))
        out[f"sd_{term.name}"] = sd
        if term.correlated and term.K > 1:
            unit = factor / sd[:, :, None]
            corr = unit @ unit.transpose(0, 2, 1)
            corr[:, np.arange(term.K), np.arange(term.K)] = 1.0
            out[f"corr_{term.name}"] = corr
        own = b[:, firsts[f] : firsts[f] + term.J * term.K]
        out[f"b_{term.name}"] = np.ascontiguousarray(own).reshape(len(t), term.J, term.K)
    return {**out, "sigma": sigma} if scales.has_scale else out


def build_tree(
    model: Model, values: Mapping[str, Array], statistics: Mapping[str, NDArray[Any]]
) -> Any:
    """An xarray DataTree with posterior, sample_stats where there are any, and observed_data.

    The posterior also holds the free variables of :meth:`Model.to_pymc`, so that PyMC's own
    functions work on it.

    Parameters
    ----------
    values
        Parameters by name, each (chains, draws, ...).
    statistics
        Sampler statistics by name, each (chains, draws).
    """
    import xarray as xr

    first = ("chain", "draw")
    dims = _dims(model)
    coords: dict[str, Any] = {
        name: np.arange(size) for name, size in zip(first, values["beta"].shape[:2], strict=True)
    }
    coords["coef"] = list(model.design.names)
    for term in model.design.random:
        coords[level_dim(term)] = list(term.levels)
        coords[f"{term.name}_term"] = list(term.columns)
        if f"corr_{term.name}" in dims:
            coords[f"{term.name}_term2"] = list(term.columns)
    posterior = xr.Dataset(
        {name: ((*first, *inner), values[name]) for name, inner in dims.items()}, coords=coords
    )
    free = free_variables(model, posterior)
    posterior = posterior.assign(
        {name: ((*first, *inner), array) for name, (inner, array) in free.items()}
    )
    observed = xr.Dataset(
        {"y": ("obs", model.likelihood.y)}, coords={"obs": np.asarray(model.design.rows)}
    )
    run = xr.Dataset(
        {name: (first, array) for name, array in statistics.items()},
        coords={name: coords[name] for name in first},
    )
    parts = {"/posterior": posterior, **({"/sample_stats": run} if statistics else {})}
    return xr.DataTree.from_dict({**parts, "/observed_data": observed})
