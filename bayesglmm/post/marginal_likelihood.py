"""marginal_likelihood() and bayes_factor(): how well models with their priors foretold the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesglmm.errors import ChoiceError, DataError, FitError, warn
from bayesglmm.nuts import Sampled
from bayesglmm.nuts.target import NoTarget
from bayesglmm.nuts.tree import parameter_names
from bayesglmm.post.bridge import FEWEST, Bridge, Density, bridge
from bayesglmm.post.check import check_fit
from bayesglmm.post.simulate import fresh_seed
from bayesglmm.posterior.sampled import SampledPosterior
from bayesglmm.priors import Flat, HalfFlat
from bayesglmm.tables.table import Table, table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit
    from bayesglmm.model import Model

Array = NDArray[np.float64]
_PRIORS_COUNT = (
    "the priors decide as much as the data: a marginal likelihood is the prior's average of the "
    "likelihood, and falls as priors get wider"
)
# Standard errors from which the two halves of the draws contradict each other, and the error of
# the logarithm from which a Bayes factor says little.
_APART, _ROUGH = 4.0, 0.3


def marginal_likelihood(fit: Fit, *, seed: int | None = None) -> Table:
    """The probability (density) of the response under the model and its priors.

    Parameters
    ----------
    fit
        By NUTS, with proper priors.
    seed
        Of the draws of the bridge; None takes that of the fit. The same draws and the same seed
        give the same numbers.

    Returns
    -------
    Table
        One row: ``log_marginal_likelihood``, all constants included; ``std_error``, its Monte
        Carlo standard error, which is the relative error of the marginal likelihood itself;
        ``first_half, second_half``: the two estimates that it is the mean of, from proposals
        fitted to one half of the draws and compared with the other; ``dimensions`` of the
        integral; ``draws`` and ``ess``, the number of draws and their median effective number.

    Raises
    ------
    ChoiceError
        For a fit by another method, for flat priors, and for families and priors without a
        compiled form.
    FitError
        For fewer than eight draws per chain, or draws that no normal distribution resembles.

    Warns
    -----
    BayesglmmWarning
        If the error is large, or the halves differ by more than it allows.

    Notes
    -----
    Of Gaussian models with normal priors on the coefficients, the coefficients and random effects
    are integrated out exactly, and the bridge spans the variance parameters only. Other models
    are integrated in the coordinates of their Laplace approximation, nearly standard normal.
    The error grows with the dimensions and falls with the square root of the draws. It takes
    the draws as they are: the diagnostics of the fit tell whether they cover the posterior.

    References
    ----------
    Meng and Wong 1996, Statistica Sinica 6, 831-860; Meng and Schilling 2002,
    doi:10.1198/106186002457 (Warp-III); Gronau, Singmann and Wagenmakers 2020,
    doi:10.18637/jss.v092.i10, for autocorrelated draws and the error: Frühwirth-Schnatter 2004,
    doi:10.1111/j.1368-423X.2004.00125.x.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> m = bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy"))
    >>> m.fit("nuts", seed=1).marginal_likelihood()  # doctest: +SKIP
    """
    found = _estimate(fit, "marginal_likelihood", seed)
    result = found.bridge
    return table(
        {
            "log_marginal_likelihood": [result.log_integral],
            "std_error": [result.error],
            "first_half": [result.halves[0]],
            "second_half": [result.halves[1]],
            "dimensions": [found.dimensions],
            "draws": [found.draws],
            "ess": [result.ess],
        },
        f"Marginal likelihood by bridge sampling (Warp-III) · {found.kind} · natural logarithm, "
        "all constants included · std_error: Monte Carlo error of the logarithm · "
        f"{_PRIORS_COUNT}",
    )


def bayes_factor(
    *fits: Fit, prior_probs: Sequence[float] | None = None, seed: int | None = None
) -> Table:
    """Bayes factors and posterior probabilities of models of the same response.

    Parameters
    ----------
    fits
        Two or more, by NUTS, with proper priors.
    prior_probs
        Prior probability of each model, up to a factor; None: equal.
    seed
        Of the draws of the bridges, as in :func:`marginal_likelihood`.

    Returns
    -------
    Table
        For each ``model`` (its place among the arguments and its formula), in the order given:
        ``log_marginal_likelihood``; ``log_bayes_factor`` and ``bayes_factor`` for it against the
        first model; ``std_error`` of the log Bayes factor, which is the relative error of the
        Bayes factor; ``prior_prob`` and ``post_prob``.

    Raises
    ------
    ChoiceError
        For fewer than two fits, fits of different responses or rows, and as
        :func:`marginal_likelihood`.
    DataError
        For prior probabilities that are none.

    Warns
    -----
    BayesglmmWarning
        As :func:`marginal_likelihood`.

    References
    ----------
    Kass and Raftery 1995, doi:10.1080/01621459.1995.10476572. The default priors are wide, and
    not made for testing: choose those of the parameters in question before looking at a factor.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> data = bg.load_dataset("sleepstudy")
    >>> fits = [bg.lmer(f"Reaction ~ {rhs}", data).fit("nuts", seed=1)
    ...         for rhs in ("Days + (1|Subject)", "Days + (Days|Subject)")]  # doctest: +SKIP
    >>> bg.bayes_factor(*fits)  # doctest: +SKIP
    """
    for fit in fits:
        _check(fit, "bayes_factor")
    if len(fits) < 2:
        raise ChoiceError(f"bayes_factor needs two fits or more; got {len(fits)}")
    for other in fits[1:]:
        _check_same_response(fits[0], other)
    prior = _prior_probs(prior_probs, len(fits))
    found = [_estimate(fit, "bayes_factor", seed).bridge for fit in fits]
    logs = np.array([one.log_integral for one in found])
    errors = np.array([one.error for one in found])
    differences = np.hypot(errors, errors[0])
    differences[0] = 0.0
    with np.errstate(divide="ignore"):
        weight = np.log(prior) + logs
    post = np.exp(weight - weight.max())
    with np.errstate(over="ignore"):
        factors = np.exp(logs - logs[0])
    return table(
        {
            "model": [f"{k}: {fit.model.formula}" for k, fit in enumerate(fits, start=1)],
            "log_marginal_likelihood": logs,
            "log_bayes_factor": logs - logs[0],
            "bayes_factor": factors,
            "std_error": differences,
            "prior_prob": prior,
            "post_prob": post / post.sum(),
        },
        "Bayes factors by bridge sampling (Warp-III) · each model against the first · natural "
        "logarithms · std_error: Monte Carlo error of log_bayes_factor, the relative error of "
        f"bayes_factor · {_PRIORS_COUNT}",
    )


@dataclass(frozen=True, slots=True)
class _Estimate:
    bridge: Bridge
    kind: str
    dimensions: int
    draws: int


def _estimate(fit: Fit, what: str, seed: int | None) -> _Estimate:
    posterior = _check(fit, what)
    seed = fresh_seed(posterior.run.options.seed if seed is None else seed)
    density, coordinates, kind = _coordinates_of(fit.model, what)
    named = {name: posterior.run.values(name) for name in parameter_names(fit.model)}
    chains, draws = named["beta"].shape[:2]
    if draws < FEWEST:
        raise FitError(
            f"{what} needs {FEWEST} draws per chain or more; this fit has {draws}. Fit with "
            "draws=1000"
        )
    try:
        x = coordinates({k: v.reshape(chains * draws, *v.shape[2:]) for k, v in named.items()})
    except np.linalg.LinAlgError as error:
        raise FitError(
            f"{what}: a draw of a correlation matrix is singular to rounding; give the "
            'correlations a prior away from one, e.g. priors={"corr:GROUP": bg.LKJ(2)}'
        ) from error
    result = bridge(density, x.reshape(chains, draws, -1), seed)
    _judge(result, fit.model)
    return _Estimate(result, kind, x.shape[1], chains * draws)


def _judge(result: Bridge, model: Model) -> None:
    """Say when not to believe an estimate."""
    apart = result.apart > _APART
    if not apart and result.error <= _ROUGH:
        return
    first, second = result.halves
    why = (
        f"the halves of the draws give {first:.2f} and {second:.2f}, {result.apart:.1f} standard "
        "errors apart"
        if apart
        else f"its standard error is {result.error:.2f}"
    )
    warn(
        f"the log marginal likelihood of {model.formula!r} is not reliable: {why}. Look at the "
        "fit's diagnostics and fit with more draws, e.g. draws=10_000"
    )


def _coordinates_of(
    model: Model, what: str
) -> tuple[Density, Callable[[Mapping[str, Array]], Array], str]:
    """The density, all constants included, the way to its coordinates, and how they came about."""
    from bayesglmm.nuts.laplace_target import laplace_target  # loads compiled kernels
    from bayesglmm.nuts.marginal import integrated

    found = integrated(model)
    if found is not None:
        kind = "random effects and coefficients integrated out exactly"
        return found.log_density, found.coordinates, kind
    try:
        target = laplace_target(model)
    except NoTarget as reason:
        raise ChoiceError(
            f"{what} is for models whose family, link and priors are built in: {reason}. "
            "For a point hypothesis about a parameter there is hypothesis('x = 0')"
        ) from reason
    assert target.coordinates is not None
    return target.log_density, target.coordinates, "Laplace coordinates"


def _check(fit: Fit, what: str) -> SampledPosterior:
    check_fit(fit, what, 'model.fit("nuts")')
    posterior = fit.posterior
    if not isinstance(posterior, SampledPosterior) or not isinstance(posterior.run, Sampled):
        raise ChoiceError(
            f"{what} needs draws by NUTS; {fit.model.formula!r} was fitted by {fit.method}. Use "
            'model.fit("nuts")'
        )
    priors = fit.model.priors.table(fit.model.design)
    flat = [name for name, prior in priors.items() if isinstance(prior, Flat | HalfFlat)]
    if flat:
        example = (
            f'"{flat[0]}": bg.Normal(0, 2.5)'
            if isinstance(priors[flat[0]], Flat)
            else f'"{flat[0]}": bg.HalfNormal(1)'
        )
        shown = ", ".join(flat[:5]) + (", …" if len(flat) > 5 else "")
        raise ChoiceError(
            f"{what}: {fit.model.formula!r} has no marginal likelihood, for the flat prior of "
            f"{shown} integrates to infinity. Give {'it' if len(flat) == 1 else 'each'} a proper "
            f"prior, e.g. priors={{{example}}}, and fit again"
        )
    return posterior


def _check_same_response(one: Fit, other: Fit) -> None:
    """Refuse fits whose likelihoods are not probabilities of the same event."""
    a, b = one.model, other.model
    formulas = f"{a.formula!r} and {b.formula!r}"
    same = np.array_equal(a.design.rows, b.design.rows)
    if not same or not np.array_equal(a.design.y, b.design.y):
        raise ChoiceError(
            f"bayes_factor needs fits of the same response and rows; {formulas} used "
            f"{a.design.n} and {b.design.n} rows, or their responses differ"
        )
    if a.family.has_scale != b.family.has_scale:
        raise ChoiceError(
            f"bayes_factor cannot weigh a density against a probability: {formulas} have families "
            f"{a.family.name!r} and {b.family.name!r}"
        )
    if not a.family.has_scale and not np.array_equal(
        a.design.total_weights, b.design.total_weights
    ):
        raise ChoiceError(
            f"bayes_factor needs fits with the same trials and weights; those of {formulas} differ"
        )


def _prior_probs(given: Sequence[float] | None, number: int) -> Array:
    if given is None:
        return np.full(number, 1.0 / number)
    try:
        values = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.full(0, np.nan)
    usable = values.shape == (number,) and np.all(np.isfinite(values)) and np.all(values >= 0.0)
    if not usable or values.sum() == 0.0:
        raise DataError(
            f"prior_probs={given!r}: give {number} numbers, none negative, one for each fit"
        )
    return values / values.sum()
