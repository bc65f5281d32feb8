"""Sample a model with NUTS and keep what belongs to the user: named, labelled draws."""

from __future__ import annotations

import secrets
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesglmm.errors import BayesglmmError, ChoiceError, nearest, warn
from bayesglmm.laplace import ML, maximum_likelihood
from bayesglmm.laplace.covariance import component_values, components, covariance_of
from bayesglmm.nuts.coordinates import Coordinates, laplace_coordinates
from bayesglmm.nuts.diagnostics import diagnose
from bayesglmm.nuts.laplace_model import build_in_coordinates
from bayesglmm.nuts.laplace_target import laplace_target
from bayesglmm.nuts.marginal import marginal_target
from bayesglmm.nuts.options import NUTS
from bayesglmm.nuts.others import check_installed, sample_other
from bayesglmm.nuts.proper import check_proper
from bayesglmm.nuts.pytensor_target import pytensor_target
from bayesglmm.nuts.run import Drawn, finished, run
from bayesglmm.nuts.sampled import Sampled
from bayesglmm.nuts.store import Store, Used, open_store, specification
from bayesglmm.nuts.target import NoTarget, Target
from bayesglmm.nuts.tree import build_tree, parameter_names
from bayesglmm.pymc_model import build_pymc

if TYPE_CHECKING:
    from bayesglmm.model import Model

# Above this many parameters low-rank adaptation costs more than it saves (measured: 1.4 times
# the time of diagonal adaptation at 67 parameters, over 100 times at 470).
_LOW_RANK_LIMIT = 100
# A level's effect is sampled centred when the data determine more than this share of it.
_RELIABILITY = 1.0 / 3.0

# Warm-up iterations and target acceptance.
_BY_COORDINATES = {
    "integrated": (300, 0.7),
    "laplace": (300, 0.85),
    "ridge": (300, 0.9),  # with its longer trajectories 0.85 diverges now and then
    "plain": (1000, 0.9),
}


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
    """Sample the posterior of a model.

    Raises
    ------
    ChoiceError
        If an option does not fit the model, or the store holds another run.
    FitError
        If the posterior is improper, or a chain breaks off.
    KeyboardInterrupt
        If interrupted during the warm-up; afterwards the draws so far are kept.

    Warns
    -----
    BayesglmmWarning
        If the diagnostics say that the draws should not be trusted yet, with the remedy.
    """
    check_proper(model)
    started = time.perf_counter()
    if options.sampler != "nutpie":
        check_installed(options.sampler)
    store = None
    if options.store is not None:
        store = open_store(options.store, specification(model, options), options.seed)
        options = replace(options, seed=store.seed)
    try:
        return _sampled(model, options, store, started)
    finally:
        if store is not None:
            store.close()


def _sampled(model: Model, options: NUTS, store: Store | None, started: float) -> Sampled:
    seed = options.seed if options.seed is not None else secrets.randbelow(2**31)
    options = replace(options, seed=seed)
    drawn = finished(options, store) if store is not None else None
    if drawn is not None and store is not None:
        used = store.used
        compiled = time.perf_counter()
    else:
        route = choose_route(model, options)
        used = route.used
        if store is not None:
            store.settle(used)
        compiled = time.perf_counter()
        drawn = route.draw(replace(options, **used.settings), seed, store)
    asked, options = options, replace(options, **used.settings, draws=drawn.draws)
    tree = build_tree(model, drawn.values, drawn.statistics)
    diagnostics = diagnose(tree, parameter_names(model), drawn, asked)
    if diagnostics.notes:
        warn("\n".join(diagnostics.notes))
    return Sampled(
        tree,
        options,
        used.centred,
        diagnostics,
        compiled - started,
        time.perf_counter() - compiled,
        used.kind,
        drawn.interrupted,
    )


@dataclass(frozen=True, slots=True)
class Route:
    """How a model is going to be sampled.

    Attributes
    ----------
    used
        The choices that were made.
    draw
        Options, with those choices, seed and store -> draws.
    """

    used: Used
    draw: Callable[[NUTS, int, Store | None], Drawn]


def choose_route(model: Model, options: NUTS) -> Route:
    """The fastest way to the posterior that the model and the options allow."""
    if options.sampler != "nutpie" and options.coordinates == "auto":
        options = replace(options, coordinates="plain")  # an independent check is wanted
    if options.sampler == "nutpie" and options.coordinates != "plain" and options.centred == "auto":
        found = compiled_target(model)
        if found is not None:
            kind = "ridge" if found.shape == "ridge" else "laplace"
            if found.coordinates is None:
                kind = "integrated"
            return on_target(found, options, {}, _settings(options, kind))
    coordinates = choose_coordinates(model, options)
    centred = {} if coordinates else choose_centring(model, options)
    pymc_model = _pymc_model(model, coordinates, centred)
    names = parameter_names(model)
    kind = f"{'Laplace' if coordinates else 'plain'} coordinates, PyTensor"
    settings = _settings(options, "laplace" if coordinates else "plain")
    if options.sampler != "nutpie":

        def other(options: NUTS, seed: int, store: Store | None) -> Drawn:
            with _quiet():
                return Drawn(*sample_other(pymc_model, options, seed, names), False, True)

        return Route(Used(kind, 0, centred, settings), other)
    with _quiet():
        target = pytensor_target(pymc_model, names, kind)
    return on_target(target, options, centred, settings)


def _settings(options: NUTS, coordinates: str) -> dict[str, Any]:
    """What options leave to the coordinates."""
    tune, accept = _BY_COORDINATES[coordinates]
    return {
        "coordinates": "plain" if coordinates == "plain" else "laplace",
        "tune": options.tune or tune,
        "target_accept": options.target_accept or accept,
    }


def compiled_target(model: Model) -> Target | None:
    """With the random effects integrated out, or in Laplace coordinates; None needs PyTensor."""
    integrated = marginal_target(model)
    if integrated is not None:
        return integrated
    try:
        return laplace_target(model)
    except NoTarget:
        return None


def on_target(
    target: Target, options: NUTS, centred: Mapping[str, bool], settings: Mapping[str, Any]
) -> Route:
    """Sample a target with nutpie."""
    chosen = {**settings, "adaptation": options.adaptation}
    if options.adaptation == "auto":
        # In Laplace coordinates nothing is left to correlate.
        few = settings["coordinates"] == "plain" and target.size <= _LOW_RANK_LIMIT
        chosen["adaptation"] = "low_rank" if few else "diag"
    return Route(
        Used(target.kind, target.size, centred, chosen),
        lambda options, seed, store: run(target, options, seed, store),
    )


def _pymc_model(model: Model, coordinates: Coordinates | None, centred: Mapping[str, bool]) -> Any:
    with _quiet():
        if coordinates:
            return build_in_coordinates(model, coordinates)
        return build_pymc(model, centred)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # PyTensor's advice on linking BLAS does not concern the numba backend used here.
        warnings.filterwarnings("ignore", message="PyTensor could not link to a BLAS")
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield
