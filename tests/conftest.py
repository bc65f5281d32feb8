"""Fits whose draws are known, so that what is computed from draws can be tested exactly."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from bayesglmm.fit import Fit
from bayesglmm.model import Model
from bayesglmm.nuts import Sampled
from bayesglmm.nuts.diagnostics import Diagnostics
from bayesglmm.nuts.options import NUTS
from bayesglmm.posterior.sampled import SampledPosterior
from bayesglmm.pymc_model import coordinates_of, level_dim

Array = NDArray[np.float64]
FitOfDraws = Callable[[Model, Mapping[str, Array]], Fit]

# A shell ignores it for what runs in its background: tests that send it would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def fit_of_draws() -> FitOfDraws:
    """A fit by NUTS that was not sampled: ``beta``, ``sd_g``, ``corr_g``, ``b_g``, ``sigma``."""
    return made_fit


def made_fit(model: Model, values: Mapping[str, Array]) -> Fit:
    """Every array (chains, draws, ...); the diagnostics say nothing."""
    coords = coordinates_of(model)
    dims = {"beta": ("coef",), "sigma": ()}
    for term in model.design.random:
        name = f"{term.name}_term"
        dims |= {f"sd_{term.name}": (name,), f"corr_{term.name}": (name, f"{name}2")}
        dims[f"b_{term.name}"] = (level_dim(term), name)
    variables = {k: (("chain", "draw", *dims[k]), np.asarray(v)) for k, v in values.items()}
    used = {d for k in values for d in dims[k]}
    posterior = xr.Dataset(variables, {d: v for d, v in coords.items() if d in used})
    chains, draws = np.asarray(values["beta"]).shape[:2]
    observed = xr.Dataset({"y": ("obs", model.likelihood.y)}, {"obs": model.design.rows})
    tree = xr.DataTree.from_dict({"/posterior": posterior, "/observed_data": observed})
    options = NUTS(draws=max(draws, 4), chains=chains, seed=0, tune=1)
    nothing = Diagnostics((1.0, ""), (1.0, ""), (1.0, ""), 0, 0, 1.0, ())
    run = Sampled(tree, options, {}, nothing, 0.0, 0.0, "draws of a test")
    return Fit(model, options, SampledPosterior(model.design, run))
