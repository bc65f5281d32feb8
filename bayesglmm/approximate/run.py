"""Approximate the posterior of a model: find its mode, propose around it, weigh, resample."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesglmm.approximate.approximated import Approximated
from bayesglmm.approximate.density import Completed, LogPosterior
from bayesglmm.approximate.diagnostics import MAX_K_HAT, LaplaceDiagnostics, notes_on
from bayesglmm.approximate.generalised import FixedPosterior, GeneralisedPosterior
from bayesglmm.approximate.integrated import IntegratedPosterior
from bayesglmm.approximate.options import Laplace
from bayesglmm.approximate.proposal import Guide, adapted, proposal_at
from bayesglmm.approximate.variables import parameter_names
from bayesglmm.approximate.weights import (
    Weights,
    effective,
    estimated_shift,
    resample,
    shift,
    smoothed,
)
from bayesglmm.errors import FitError, warn
from bayesglmm.laplace.memory import check_memory
from bayesglmm.laplace.ml import check_quadrature
from bayesglmm.laplace.optimise import Optimum, maximise
from bayesglmm.laplace.structure import Array
from bayesglmm.laplace.threads import blas_threads, workers
from bayesglmm.nuts.marginal import integrated
from bayesglmm.nuts.proper import check_proper

if TYPE_CHECKING:
    from bayesglmm.model import Model

_PILOT = 100
_PARTS = 64  # that points are evaluated in, whatever the number of threads
_MOST_CANDIDATES = 16
_FIRST = 5  # one point in five comes before the proposal is adapted
_NOISE = 0.1  # variance of a log weight that candidates may leave
# Variances, with one pair of them, that they cannot bring down to that: where effects fall into
# independent groups, and where they do not.
_HOPELESS, _HOPELESS_ALONE = 10.0, 1.0
# What the draws may cost, in visits of a row (about 20 ns each): on two cores half a second.
_WORK, _OVERHEAD, _NEWTON_STEPS, _FLOPS = 32e6, 2500.0, 4, 600.0
# At least few of them, for up to ten times as long; never less than the fewest.
_FEWEST, _FEW, _ENOUGH, _PATIENCE = 100, 400, 1000, 10.0
_SOUND = 0.2  # share of the effective draws that exact weights must keep, to be preferred


def approximate(model: Model, options: Laplace) -> Approximated:
    """Approximate the posterior.

    Raises
    ------
    ChoiceError
        If quadrature is asked for where it does not apply.
    FitError
        If flat priors leave the posterior improper, or its mode cannot be found.

    Warns
    -----
    BayesglmmWarning
        If the diagnostics say that the draws should not be trusted, with the remedy.
    """
    began = time.perf_counter()
    design, likelihood = model.design, model.likelihood
    if options.nagq != 1:
        check_quadrature(design, likelihood.is_linear, options.nagq)
    check_proper(model)
    seed = options.seed if options.seed is not None else secrets.randbelow(2**31)
    structure = design.structure
    check_memory(structure, design)
    with blas_threads(structure.q):
        posterior = log_posterior(model, options.nagq)
        mode = find_mode(posterior)
        done, log_q, candidates = _weighed(model, posterior, mode, options, seed)
    value, exact = done.value - log_q, done.exact - log_q
    by_laplace = smoothed(value)
    by_exact = smoothed(exact) if posterior.approximates else by_laplace
    chosen = _chosen(options, by_laplace, by_exact)
    weights = by_exact if chosen == "exact" else by_laplace
    taken = resample(weights, options.draws, np.random.default_rng([seed, 1]))
    off, surely = (0.0, ""), 0.0
    if posterior.approximates and chosen == "exact":
        off = _largest(model, shift(done.parameters, by_laplace.values, by_exact.values))
    elif posterior.approximates:
        usable = by_laplace.values > 0.0
        found, error = estimated_shift(
            done.parameters[usable], (exact - value)[usable], by_laplace.values[usable]
        )
        off = _largest(model, np.abs(found) + 2.0 * error)
        surely = float(np.max(np.abs(found) - 2.0 * error))
    worth = effective(weights, options.draws)
    diagnostics = LaplaceDiagnostics(
        weights=chosen,
        k_hat=weights.k_hat,
        k_hat_exact=by_exact.k_hat,
        k_hat_laplace=by_laplace.k_hat,
        shift=off,
        effective=worth,
        distinct=len(np.unique(taken)),
        proposals=len(log_q),
        candidates=candidates,
        seconds=time.perf_counter() - began,
        notes=notes_on(weights.k_hat, worth / options.draws, surely),
    )
    if diagnostics.notes:
        warn("\n".join(diagnostics.notes))
    return Approximated(
        model,
        posterior.named(done, taken, seed),
        replace(options, seed=seed, proposals=len(log_q)),
        diagnostics,
        mode,
    )


def log_posterior(model: Model, nagq: int) -> LogPosterior:
    """The log posterior that suits the model."""
    exact = integrated(model)
    if exact is not None:
        return IntegratedPosterior(exact)
    return GeneralisedPosterior(model, nagq) if model.design.random else FixedPosterior(model)


def find_mode(posterior: LogPosterior) -> Optimum:
    """The top of a log posterior.

    Raises
    ------
    FitError
        If there is none.
    """
    best = maximise(posterior, posterior.start, posterior.scale)
    if not np.isfinite(best.value):
        raise FitError("the posterior is not finite at the starting values; rescale covariates")
    curved = best.curvature * np.outer(posterior.scale, posterior.scale)
    if not best.converged or np.linalg.eigvalsh(-curved)[0] <= 0.0:
        raise FitError(
            "the posterior has no mode that could be found: flat priors may leave it improper, or "
            "the response is fitted exactly. Give proper priors (the default ones are), or use "
            'fit("nuts")'
        )
    return best


def _affordable(model: Model, posterior: LogPosterior, candidates: int, draws: int) -> int:
    """How many points to weigh, from the cost of one, counted in visits of a row."""
    terms, structure = model.design.random, model.design.structure
    by_cross_products = isinstance(posterior, IntegratedPosterior)
    steps = 1 if by_cross_products else _NEWTON_STEPS
    rows = 0 if by_cross_products else model.design.n * max(len(terms), 1)
    effects = sum(term.J * term.K**2 for term in terms)
    cost = _OVERHEAD + rows * (steps + candidates)
    cost += steps * (effects + structure.q**2 * structure.effects / _FLOPS)
    fewest = np.clip(_PATIENCE * _WORK / cost, _FEWEST, _FEW)
    return int(min(max(draws, _ENOUGH), max(fewest, _WORK / cost)))


def _weighed(
    model: Model, posterior: LogPosterior, mode: Optimum, options: Laplace, seed: int
) -> tuple[Completed, Array, int]:
    """Points with what was integrated out, their log-densities as proposed, and the candidates.

    The first points say where the others should better be proposed; all count as draws from the
    mixture of both proposals (Veach & Guibas 1995, doi:10.1145/218380.218498).
    """
    rng = np.random.default_rng([seed, 0])
    first, guide = proposal_at(posterior, mode)
    candidates = _candidates(posterior, guide, first.draw(_PILOT, rng), seed)
    count = options.proposals or _affordable(model, posterior, candidates, options.draws)
    begin = max(count // _FIRST, _PILOT // 2)
    x = first.draw(begin, rng)
    done = _complete(posterior, guide, x, candidates, seed, 0)
    weights = smoothed(done.value - first.log_density(x))
    second = adapted(first, x, weights, posterior.n_scales)
    rest = second.draw(count - begin, rng)
    done = _joined([done, _complete(posterior, guide, rest, candidates, seed, begin)])
    x = np.concatenate([x, rest])
    share = begin / count
    log_q = np.logaddexp(
        np.log(share) + first.log_density(x), np.log1p(-share) + second.log_density(x)
    )
    return done, log_q, candidates


def _candidates(posterior: LogPosterior, guide: Guide, x: Array, seed: int) -> int:
    """How many draws of the random effects to try at each point, from a few of them."""
    if not posterior.approximates:
        return 1
    pilot = _complete(posterior, guide, x, 2, seed, 0)
    usable = np.isfinite(pilot.value)
    spread = float(np.var(pilot.exact[usable] - pilot.value[usable]))
    if spread > (_HOPELESS if posterior.independent > 1 else _HOPELESS_ALONE):
        return 2
    return int(np.clip(2 * np.ceil(spread / _NOISE), 2, _MOST_CANDIDATES))


def _complete(
    posterior: LogPosterior, guide: Guide, x: Array, candidates: int, seed: int, before: int
) -> Completed:
    """All points, in parts with a stream of their own each: threads do not change the draws.

    ``before`` is the number of streams used up.
    """
    start = guide(guide.proposal.coordinates(x))

    def part(begin: int, end: int) -> Completed:
        rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 1, before + begin]))
        return posterior.complete(x[begin:end], start[begin:end], candidates, rng)

    parts = min(len(x), _PARTS)
    cuts = [len(x) * k // parts for k in range(parts + 1)]
    with ThreadPoolExecutor(workers()) as pool:
        return _joined(list(pool.map(part, cuts[:-1], cuts[1:])))


def _joined(parts: list[Completed]) -> Completed:
    columns = zip(*((at.value, at.exact, at.parameters, at.b) for at in parts), strict=True)
    return Completed(*(np.concatenate(column) for column in columns))


def _chosen(options: Laplace, by_laplace: Weights, by_exact: Weights) -> Any:
    if options.weights != "auto":
        return options.weights
    sound = by_exact.k_hat <= MAX_K_HAT and by_exact.size >= _SOUND * by_laplace.size
    return "exact" if sound else "laplace"


def _largest(model: Model, shifts: Array) -> tuple[float, str]:
    k = int(np.argmax(np.abs(shifts)))
    return float(np.abs(shifts[k])), parameter_names(model)[k]
