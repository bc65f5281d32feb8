"""Responses simulated from a fit, or from parameters that somebody chose."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bayesglmm.design import Design, build, in_units
from bayesglmm.design.columns import Table as Data
from bayesglmm.design.columns import read
from bayesglmm.design.response import Response
from bayesglmm.errors import DataError, FitError, check_choice, check_whole, named_arguments
from bayesglmm.families import Family, Likelihood, Link, find_family, find_link
from bayesglmm.formula import parse
from bayesglmm.post.check import check_fit
from bayesglmm.post.parameters import Parameters, drawn, estimated, named
from bayesglmm.posterior.ml import MLPosterior
from bayesglmm.tables.table import Table, table

if TYPE_CHECKING:
    from bayesglmm.api import ColumnOrValues, Factors
    from bayesglmm.fit import Fit
    from bayesglmm.model import Missing

__all__ = ["Effects", "draw_response", "fresh_seed", "simulate", "simulate_new", "stream"]

Array = NDArray[np.float64]
Places = NDArray[np.int64]
Effects = Literal["new", "fitted", "zero"]

_EFFECTS = {
    "new": "new random effects",
    "fitted": "fitted random effects",
    "zero": "no random effects",
}
_RESPONSE = "response"
_LARGEST_COUNT = 1e18  # of a mean whose counts 64 bits can hold


@overload
def simulate(fit: Fit, nsim: int = 1, *, seed: int | None = None, re: Effects = "new") -> Table: ...


@overload
def simulate(fit: str, data: object, **options: Any) -> Table: ...


def simulate(fit: Fit | str, *given: Any, **options: Any) -> Table:
    """Responses simulated from a fit, for the rows it was fitted to (lme4's ``simulate``).

    ``simulate(fit, nsim=1, *, seed=None, re="new")``; with a formula in place of the fit,
    ``simulate(formula, data, *, params, family, ...)``, it is :func:`bayesglmm.simulate_new`.

    Parameters
    ----------
    nsim
        Number of simulations.
    seed
        A whole number makes them reproducible; None draws one, which the caption reports. Column
        ``sim_k`` depends on the seed and k only, not on ``nsim``.
    re
        ``"new"``: random effects are drawn anew for every simulation (lme4's default,
        ``re.form = NA``); ``"fitted"``: those of the fit, as they are estimated
        (``re.form = NULL``); ``"zero"``: none.

    Returns
    -------
    Table
        Columns ``sim_1, sim_2, ...``, one row per row of the data in its order, null in dropped
        rows. In the units of the response: counts of successes where there are trials,
        proportions where they are given by weights, the two levels of a two-level factor, the
        transformed response where the formula transforms it. ML: all simulations use the
        estimates. NUTS: each uses another posterior draw, so they are draws from the posterior
        predictive distribution. A weight divides the variance of a Gaussian response and is the
        number of trials of a binomial proportion; elsewhere it is a case weight, which has no
        part in the drawing.

    Raises
    ------
    ChoiceError
        For an unknown ``re`` or something that is no fit.
    FitError
        If a simulated mean is one that the family does not allow (possible with links that do
        not keep it in range).

    Examples
    --------
    >>> import bayesglmm as bg
    >>> titanic = bg.load_dataset("titanic")
    >>> fit = bg.glmer("survived ~ sex + (1|pclass)", titanic, family="binomial").fit()
    >>> fit.simulate(2, seed=1).head(3)["sim_2"].to_list()
    [0, 1, 1]
    """
    if isinstance(fit, str) and (given or options):
        return simulate_new(fit, *given, **options)
    return _from_fit(fit, *given, **options)  # type: ignore[arg-type]  # told there


@named_arguments({}, "simulate")
def _from_fit(fit: Fit, nsim: int = 1, *, seed: int | None = None, re: Effects = "new") -> Table:
    check_fit(
        fit,
        "simulate",
        "model.fit(). Or simulate from chosen parameters: "
        "bg.simulate_new(formula, data, params=...)",
    )
    check_choice("re", re, tuple(_EFFECTS))
    nsim, seed = check_whole("nsim", nsim), fresh_seed(seed)
    model, posterior = fit.model, fit.posterior
    if isinstance(posterior, MLPosterior):
        values = [estimated(model.design, posterior.estimate)] * nsim
    else:
        values = [drawn(posterior, at) for at in chosen_draws(posterior.beta.values, nsim, seed)]
    ys = [
        draw_response(model.design, model.family, model.link, at, re, stream(seed, k))
        for k, at in enumerate(values)
    ]
    how = f"{fit.method} · {_EFFECTS[re if model.design.random else 'zero']}"
    return _table(model.design, model.family, ys, how, seed)


# With a fit, as help() shows it.
setattr(simulate, "__signature__", inspect.signature(_from_fit))  # noqa: B010


def simulate_new(
    formula: str,
    data: object,
    *,
    params: Mapping[str, object],
    family: str | Family = "gaussian",
    link: str = "default",
    nsim: int = 1,
    seed: int | None = None,
    weights: ColumnOrValues = "",
    offset: ColumnOrValues = "",
    trials: ColumnOrValues = "",
    contrasts: Mapping[str, object] | None = None,
    factors: Factors = (),
    missing: Missing = "drop",
) -> Table:
    """Responses simulated from chosen parameters, without a fit: for power studies and teaching.

    The counterpart of lme4's ``simulate(~ x + (1|g), newdata=, newparams=, family=)`` and
    glmmTMB's ``simulate_new``.

    Parameters
    ----------
    formula
        As for :func:`bayesglmm.model`; ``"~ x + (1|g)"`` or ``"y ~ x + (1|g)"``. The left-hand
        side, if there is one, is not used and need not be in the data.
    data
        The predictors, one row for each response to simulate.
    params
        Every parameter by the name under which ``Model.prior_table`` lists it: coefficients by
        R's names (link scale); ``"sd:GROUP"`` a number, or for several columns a mapping
        (``"sd:GROUP:COLUMN"`` also works); ``"corr:GROUP"`` a number for every pair, a matrix,
        or a mapping such as ``{("(Intercept)", "x"): 0.3}``; ``"sigma"``, the residual sd.
        Those of a fit are :func:`bayesglmm.param_values`, some of which may be changed:
        ``{**fit.param_values, "x": 0.5}``.
    family, link, weights, offset, trials, contrasts, factors, missing
        As for :func:`bayesglmm.model`.
    nsim, seed
        As for :func:`bayesglmm.simulate`.

    Returns
    -------
    Table
        As :func:`bayesglmm.simulate` gives it, random effects drawn anew in every column.

    Raises
    ------
    DataError, ChoiceError
        For a parameter that is missing, unknown or impossible; the message lists them all.

    Examples
    --------
    >>> import polars as pl
    >>> import bayesglmm as bg
    >>> design = pl.DataFrame({"g": ["a", "b", "c"] * 4, "x": [0.0, 0.5, 1.0] * 4})
    >>> truth = {"(Intercept)": 1.0, "x": 0.5, "sd:g": 0.3}
    >>> bg.simulate_new("~ x + (1|g)", design, params=truth, family="poisson", seed=1).shape
    (12, 1)
    """
    nsim, seed = check_whole("nsim", nsim), fresh_seed(seed)
    chosen = find_family(family)
    chosen_link = find_link(chosen, link)
    parsed = parse(formula, one_sided=True)
    if parsed.response.startswith("cbind"):
        raise DataError(
            f"{formula!r}: without a response there are no failures to add up; leave the "
            "left-hand side out and give the numbers of trials as trials="
        )
    source = read(data)
    name = _free_name(source.frame.columns)
    design = build(
        replace(parsed, response=name),
        Data(source.frame.with_columns(pl.lit(0.0).alias(name)), source.ordered),
        weights=weights,
        offset=offset,
        trials=trials,
        contrasts=contrasts,
        factors=factors,
        missing=missing,
    )
    if design.response.has_trials and not chosen.has_trials:
        raise DataError(f"trials were given, but family={family!r} has none; use 'binomial'")
    if chosen.has_trials:
        chosen.check(design.y, design.weights * design.trials, name)
    bound = Likelihood(chosen, chosen_link, design.y, design.weights * design.trials)
    at = named(design, bound, params)
    ys = [
        draw_response(design, chosen, chosen_link, at, "new", stream(seed, k)) for k in range(nsim)
    ]
    how = f"chosen parameters · {_EFFECTS['new' if design.random else 'zero']}"
    return _table(design, chosen, ys, how, seed)


def draw_response(
    design: Design,
    family: Family,
    link: Link,
    at: Parameters,
    re: Effects,
    rng: np.random.Generator,
) -> Array:
    """One response, (n,), as ``Response.y`` holds it (proportions for trials).

    Raises
    ------
    FitError
        If a mean is outside what the family allows.
    """
    eta = design.X @ at.beta + design.offset
    if re != "zero":
        for f, term in enumerate(design.random):
            if re == "new":
                b = rng.standard_normal((term.J, term.K)) @ at.factors[f].T
            else:
                b = at.effects[f]
            eta += np.einsum("nk,nk->n", term.Z, b[term.index])
    # Weights beside trials repeat a row; they do not lengthen it.
    w = design.trials if design.response.has_trials else design.weights
    y = respond(family, link, eta, w, at.sigma, rng)
    if not np.isfinite(y).all():
        raise FitError("a simulated response is infinite: the parameters are too large")
    return y


def respond(
    family: Family, link: Link, eta: Array, w: Array, sigma: float, rng: np.random.Generator
) -> Array:
    """Responses (n,) as ``Response.y`` holds them, infinite where the mean is beyond counting.

    Raises
    ------
    FitError
        If a mean is outside what the family allows.
    """
    mu = link.inverse(eta)
    small = mu < _LARGEST_COUNT
    try:
        y = family.draw(rng, np.where(small, mu, 0.0), w, sigma)
    except ValueError as problem:
        raise FitError(
            f"a simulated mean is not possible for family={family.name!r} with link="
            f"{link.name!r} ({problem}); use a link that keeps means in range"
        ) from None
    return np.where(small, y, np.inf)


def stream(seed: int, k: int) -> np.random.Generator:
    """The random stream of simulation k, independent of the others; it depends on both only."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(k,)))


def fresh_seed(seed: int | None) -> int:
    """The seed, or a new one for None.

    Raises
    ------
    ChoiceError
        For anything but a whole number of at least 0.
    """
    if seed is None:
        return secrets.randbelow(2**31)
    return check_whole("seed", seed, 0, ", or None")


def chosen_draws(values: Array, nsim: int, seed: int) -> list[int]:
    """Which posterior draw each simulation uses: all in random order before any comes twice."""
    available = values.shape[0] * values.shape[1]
    rng = np.random.default_rng(seed)
    rounds = -(-nsim // available)
    order = np.concatenate([rng.permutation(available) for _ in range(rounds)])
    return [int(at) for at in order[:nsim]]


def _table(design: Design, family: Family, ys: list[Array], how: str, seed: int) -> Table:
    """Columns sim_1, ...: the caller's rows, the response's units."""
    what = "counts of successes" if design.response.has_trials else "response scale"
    columns = in_rows(design, family, ys, design.response, places(design))
    return table(columns, f"Simulated responses · {what} · {how} · seed {seed}")


def in_rows(
    design: Design, family: Family, ys: Iterable[Array], response: Response, place: Places
) -> dict[str, pl.Series]:
    """``sim_1, ...`` in the response's units, null where a value is not finite.

    ``place`` is the position in y of every row, -1 for none.
    """
    where = pl.Series(place).replace(-1, None)
    dtype, out = response_type(design, family), {}
    for k, y in enumerate(ys, start=1):
        fine = np.isfinite(y)
        series = in_units(response, np.where(fine, y, 0.0), dtype)
        out[f"sim_{k}"] = series.set(pl.Series(~fine), None).gather(where)
    return out


def places(design: Design) -> Places:
    """(n_rows,) the position among the rows used of each row of the caller's data, or -1."""
    place = np.full(design.n_rows, -1)
    place[design.rows] = np.arange(design.n)
    return place


def response_type(design: Design, family: Family) -> pl.DataType:
    """The type of simulated responses where there are no trials."""
    response = design.response
    if response.levels:
        return design.data.get_column(response.name.strip("`")).dtype
    if family.whole and not (family.has_trials and np.any(design.weights != 1.0)):
        return pl.Int64()
    return pl.Float64()


def _free_name(taken: list[str]) -> str:
    """A name for the response that is no column of the data."""
    name = _RESPONSE
    while name in taken:
        name += "_"
    return name
