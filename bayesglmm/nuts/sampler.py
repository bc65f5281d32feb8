"""Sample a model with NUTS and keep what belongs to the user: named, labelled draws."""

from __future__ import annotations

import os
import secrets
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesglmm.errors import BayesglmmError, BayesglmmWarning, ChoiceError, nearest
from bayesglmm.laplace import ML, maximum_likelihood
from bayesglmm.laplace.covariance import component_values, components, covariance_of
from bayesglmm.nuts.coordinates import Coordinates, laplace_coordinates
from bayesglmm.nuts.diagnostics import Diagnostics, diagnose
from bayesglmm.nuts.free import free_variables
from bayesglmm.nuts.laplace_model import build_in_coordinates
from bayesglmm.nuts.options import NUTS
from bayesglmm.pymc_model import build_pymc

if TYPE_CHECKING:
    from bayesglmm.model import Model

# Above this many parameters low-rank adaptation costs more than it saves (measured: 1.4 times
# the time of diagonal adaptation at 67 parameters, over 100 times at 470).
_LOW_RANK_LIMIT = 100
# A level's effect is sampled centred when the data determine more than this share of it.
_RELIABILITY = 1.0 / 3.0

_TUNE_LAPLACE, _TUNE_PLAIN = 500, 1000

_STATISTICS = {
    "diverging": "diverging",
    "energy": "energy",
    "depth": "tree_depth",
    "tree_depth": "tree_depth",
    "n_steps": "n_steps",
    "mean_tree_accept": "acceptance_rate",
    "acceptance_rate": "acceptance_rate",
    "step_size": "step_size",
    "maxdepth_reached": "reached_max_treedepth",
    "reached_max_treedepth": "reached_max_treedepth",
}


@dataclass(frozen=True, slots=True)
class Sampled:
    """A finished run.

    Attributes
    ----------
    tree
        ArviZ DataTree with ``posterior``, ``sample_stats``, ``observed_data``.
    options
        As asked for, with the seed, the coordinates and the warm-up that were used.
    centred
        Parameterisation used for each random-effects term in plain coordinates.
    diagnostics
        What the run says of itself.
    compile_seconds, sample_seconds
        Wall time.
    """

    tree: Any
    options: NUTS
    centred: Mapping[str, bool]
    diagnostics: Diagnostics
    compile_seconds: float
    sample_seconds: float

    def values(self, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Draws of one variable, (chains, draws, ...)."""
        return np.asarray(self.tree["posterior"][name].values, dtype=np.float64)


def choose_coordinates(model: Model, options: NUTS) -> Coordinates | None:
    """Laplace coordinates if asked for, or by default where they exist.

    Raises
    ------
    ChoiceError
        If they are asked for and do not exist for this model.
    """
    plain = options.coordinates == "plain" or options.centred != "auto"
    found = None if plain else laplace_coordinates(model)
    if found is None and options.coordinates == "laplace":
        raise ChoiceError(
            'coordinates="laplace" needs random effects (at most four columns a term, 1500 in '
            "all) and a maximum-likelihood fit that converges without separation; use "
            'coordinates="auto"'
        )
    return found


def choose_centring(model: Model, options: NUTS) -> dict[str, bool]:
    """Centred where the data say more of a level's effect than its prior does.

    The maximum-likelihood fit gives, for each level, the conditional variance of its effect;
    averaged over levels and columns and divided by the prior variance it is one minus the
    reliability. Above one third the term is sampled centred.

    Raises
    ------
    ChoiceError
        If a mapping names a term that the model does not have.
    """
    terms = model.design.random
    names = [term.name for term in terms]
    if isinstance(options.centred, bool):
        return dict.fromkeys(names, options.centred)
    if isinstance(options.centred, Mapping):
        for name in options.centred:
            if name not in names:
                raise ChoiceError(
                    f"centred[{name!r}]: no such random-effects term{nearest(name, names)}; "
                    f"this model has {', '.join(map(repr, names)) or 'none'}"
                )
        return {name: options.centred.get(name, False) for name in names}
    if not terms:
        return {}
    try:
        ml = maximum_likelihood(model.design, model.likelihood, ML())
    except (BayesglmmError, np.linalg.LinAlgError):
        return dict.fromkeys(names, False)
    if ml.outcome.redundant:  # the estimate says nothing of each term
        return dict.fromkeys(names, False)
    covariance = covariance_of(terms)
    values = component_values(covariance, ml.theta, ml.sigma)
    out = {}
    for f, term in enumerate(terms):
        sds = np.array(
            [
                v
                for v, c in zip(values, components(covariance), strict=True)
                if c.term == f and c.kind == "sd"
            ]
        )
        if np.any(sds < 1e-3 * max(ml.relative_to, 1e-12)):
            out[term.name] = False
            continue
        spread = np.mean(np.diagonal(ml.mode_cov[f], axis1=1, axis2=2), axis=0)
        out[term.name] = bool(np.mean(1.0 - spread / sds**2) > _RELIABILITY)
    return out


def sample(model: Model, options: NUTS) -> Sampled:
    """Compile the PyMC model and sample it.

    Raises
    ------
    ChoiceError
        If an option does not fit the model.

    Warns
    -----
    BayesglmmWarning
        If the diagnostics say that the draws should not be trusted yet, with the remedy.
    """
    seed = options.seed if options.seed is not None else secrets.randbelow(2**31)
    started = time.perf_counter()
    coordinates = choose_coordinates(model, options)
    centred = {} if coordinates else choose_centring(model, options)
    options = replace(
        options,
        seed=seed,
        coordinates="laplace" if coordinates else "plain",
        tune=options.tune or (_TUNE_LAPLACE if coordinates else _TUNE_PLAIN),
    )
    with warnings.catch_warnings():
        # PyTensor's advice on linking BLAS does not concern the numba backend used here.
        warnings.filterwarnings("ignore", message="PyTensor could not link to a BLAS")
        warnings.filterwarnings("ignore", category=FutureWarning)
        if coordinates:
            pymc_model = build_in_coordinates(model, coordinates)
        else:
            pymc_model = build_pymc(model, centred)
        run = _nutpie if options.sampler == "nutpie" else _pymc
        tree, compiled = run(pymc_model, options, seed)
    finished = time.perf_counter()
    tree = _tidy(model, tree)
    diagnostics = diagnose(tree, _parameters(model))
    if diagnostics.notes:
        warnings.warn("\n".join(diagnostics.notes), BayesglmmWarning, stacklevel=4)

    return Sampled(
        tree,
        options,
        centred,
        diagnostics,
        compiled - started,
        finished - compiled,
    )


def _cores(options: NUTS) -> int:
    return options.cores or min(options.chains, os.cpu_count() or 1)


def _nutpie(pymc_model: Any, options: NUTS, seed: int) -> tuple[Any, float]:
    import nutpie

    compiled = nutpie.compile_pymc_model(pymc_model)
    at = time.perf_counter()
    tree = nutpie.sample(
        compiled,
        draws=options.draws,
        tune=options.tune,
        chains=options.chains,
        cores=_cores(options),
        seed=seed,
        target_accept=options.target_accept,
        adaptation=_adaptation(options, compiled.n_dim),
        progress_bar=options.progress,
        save_warmup=False,
    )
    return tree, at


def _adaptation(options: NUTS, size: int) -> str:
    if options.adaptation != "auto":
        return options.adaptation
    if options.coordinates == "laplace":  # nothing is left to correlate
        return "diag"
    return "low_rank" if size <= _LOW_RANK_LIMIT else "diag"


def _pymc(pymc_model: Any, options: NUTS, seed: int) -> tuple[Any, float]:
    import pymc as pm

    at = time.perf_counter()
    with pymc_model:
        tree = pm.sample(
            draws=options.draws,
            tune=options.tune,
            chains=options.chains,
            cores=_cores(options),
            random_seed=seed,
            target_accept=options.target_accept,
            progressbar=options.progress,
            compute_convergence_checks=False,
        )
    return tree, at


def _parameters(model: Model) -> list[str]:
    """The variables that mean something to the user."""
    keep = ["beta"]
    for term in model.design.random:
        keep.append(f"sd_{term.name}")
        if term.correlated and len(term.columns) > 1:
            keep.append(f"corr_{term.name}")
        keep.append(f"b_{term.name}")
    return [*keep, "sigma"] if model.likelihood.family.has_scale else keep


def _tidy(model: Model, tree: Any) -> Any:
    """The model's parameters and free variables, and statistics under ArviZ's names."""
    import xarray as xr

    posterior = tree["posterior"].to_dataset()[_parameters(model)]
    wanted = {f"{t.name}_term": list(t.columns) for t in model.design.random}
    posterior = posterior.assign_coords({d: v for d, v in wanted.items() if d in posterior.dims})
    free = free_variables(model, posterior)
    posterior = posterior.assign(
        {name: (("chain", "draw", *dims), values) for name, (dims, values) in free.items()}
    )
    statistics = tree["sample_stats"].to_dataset()
    names = {old: new for old, new in _STATISTICS.items() if old in statistics.data_vars}
    chosen = statistics[list(names)].rename({o: n for o, n in names.items() if o != n})
    observed = xr.Dataset(
        {"y": ("obs", model.likelihood.y)}, coords={"obs": np.asarray(model.design.rows)}
    )
    return xr.DataTree.from_dict(
        {"/posterior": posterior, "/sample_stats": chosen, "/observed_data": observed}
    )
