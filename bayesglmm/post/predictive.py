"""Responses drawn from the prior or the posterior predictive distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bayesglmm.design import Design, RandomTerm, to_polars
from bayesglmm.errors import ChoiceError, DataError, FitError, check_choice, check_whole, nearest
from bayesglmm.post.parameter_draws import parameter_draws, parameter_names
from bayesglmm.post.parameters import covariance_factor
from bayesglmm.post.pointwise import Chains, chains_of, draws_of
from bayesglmm.post.simulate import (
    chosen_draws,
    fresh_seed,
    in_rows,
    places,
    respond,
    stream,
)
from bayesglmm.post.tables import check_level
from bayesglmm.priors.parameters import draw_parameters, refuse_flat
from bayesglmm.tables.table import Table, table

if TYPE_CHECKING:
    from bayesglmm.api import ColumnOrValues
    from bayesglmm.fit import Fit
    from bayesglmm.model import Model

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Known = Literal["fitted", "fitted+new", "new", "zero"]

_EFFECTS = {
    "fitted": "random effects of the fit",
    "fitted+new": "random effects of the fit, drawn anew for levels it has not seen",
    "new": "new random effects",
    "zero": "no random effects",
}


@dataclass(frozen=True, slots=True)
class Predictive:
    """What :func:`prior_predictive` and :func:`posterior_predictive` return.

    Attributes
    ----------
    draws
        (draws, rows) responses as numbers: values, counts (of successes where there are trials),
        0 and 1 for two levels. Infinite where a count would be too large to be held (a mean above
        1e18, which wide priors on a log scale do allow); NaN where new data lack a value. Rows
        are those used, or all of the new data.
    table
        The same in the units of the response, a column ``sim_1, sim_2, ...`` for each draw and a
        row for each row of the data in its order, null where there is none.
    parameters
        A row for each draw: the coefficients (the intercept at zero of the covariates), sds,
        correlations and sigma it was made with.
    observed
        (rows,) the responses of the data as numbers; empty for new data.
    """

    draws: Array
    table: Table
    parameters: Table
    observed: Array

    def summary(self, level: float = 0.95) -> Table:
        """Median and central interval of the response of every row: ``row, median, low, high``.

        Raises
        ------
        ChoiceError
            For a level that is no probability.
        """
        level = check_level(level)
        share = [0.5, 0.5 - level / 2.0, 0.5 + level / 2.0]
        with np.errstate(invalid="ignore"):
            middle, low, high = np.quantile(self.draws, share, axis=0, method="closest_observation")
        columns = {"row": np.arange(len(middle)), "median": middle, "low": low, "high": high}
        note = f"{self.table.caption} · medians and central {level:.0%} intervals of responses"
        return table(columns, note)

    def plot(self) -> Any:
        """The distribution of the data over those of the draws; returns a matplotlib Figure.

        Raises
        ------
        ChoiceError
            For new data, which have no response.
        """
        from bayesglmm.plots.predictive import plot_predictive

        return plot_predictive(self)

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def prior_predictive(model: Model, draws: int = 1000, *, seed: int | None = None) -> Predictive:
    """Responses that the priors expect, before the data are seen.

    Every draw takes parameters from their priors, random effects from N(0, Sigma), and a
    response for every row from the family. Nothing is fitted or compiled.

    Parameters
    ----------
    draws
        Number of draws.
    seed
        A whole number makes them reproducible; None draws one, which the caption reports. Draw k
        depends on the seed and k only.

    Returns
    -------
    Predictive
        ``.table``, ``.draws``, ``.parameters``; ``.plot()`` sets the data against them.

    Raises
    ------
    ChoiceError
        For flat priors, which cannot be drawn from; the message names them.
    FitError
        If the priors allow a mean that the family does not (a probability above one).

    References
    ----------
    Gabry, Simpson, Vehtari, Betancourt and Gelman 2019, doi:10.1111/rssa.12378.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> m = bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy"))
    >>> bg.prior_predictive(m, 200, seed=1).draws.shape
    (200, 180)
    """
    from bayesglmm.model import Model

    if not isinstance(model, Model):
        raise ChoiceError(
            f"prior_predictive needs a model; got {type(model).__name__}. Give bg.model(...), or "
            "fit.model of a fit"
        )
    size, seed = check_whole("draws", draws), fresh_seed(seed)
    design, priors = model.design, model.priors
    refuse_flat(priors, design, "prior_predictive")
    rows, found, ys = _of_design(design, "new"), [], []
    try:
        for k in range(size):
            rng = stream(seed, k)
            values = draw_parameters(priors, design, rng, 1)
            at = chains_of_parameters(design, values)
            found.append(parameter_draws(design, at, model.family.has_scale)[0])
            ys.append(_response(model, at, 0, rows, rng))
    except FitError as problem:
        raise FitError(
            f"draw {len(ys) + 1} from the priors: {problem}, or tighter priors"
        ) from None
    how = f"{size} draws · parameters and random effects from their priors · seed {seed}"
    caption = f"Prior predictive responses · {how}"
    return _predictive(model, rows, ys, np.array(found), caption, new=False)


def posterior_predictive(
    fit: Fit,
    draws: int = 1000,
    *,
    newdata: object = None,
    re: Known = "fitted",
    trials: ColumnOrValues = "",
    weights: ColumnOrValues = "",
    seed: int | None = None,
) -> Predictive:
    """Responses that the fitted model expects, for its own rows or for new ones.

    Their spread is that of new observations: parameters, random effects and the family's own
    variation. For the mean alone see :func:`bayesglmm.predict`.

    Parameters
    ----------
    fit
        By sampling.
    draws
        Number of draws; each uses another posterior draw until all have been used.
    newdata
        Rows to predict; None for the data of the fit.
    re
        ``"fitted"``: of these groups, and a level that the fit has not seen is an error;
        ``"fitted+new"``: such a level gets effects drawn from N(0, Sigma); ``"new"``: all levels
        do, as if every group were another one; ``"zero"``: no random effects.
    trials, weights
        Column of ``newdata``, or a value for each of its rows, where the response of the fit has
        trials, or the model weights that a response depends on.
    seed
        As for :func:`prior_predictive`.

    Returns
    -------
    Predictive
        ``.table``, ``.draws``, ``.parameters``; ``.plot()`` sets the data against them.

    Raises
    ------
    ChoiceError
        For a fit by maximum likelihood (see :func:`bayesglmm.simulate`) or an unknown ``re``.
    DataError
        For missing columns or unseen levels, and for trials or weights that are needed.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> m = bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy"))
    >>> fit = m.fit("nuts", seed=1)  # doctest: +SKIP
    >>> new = {"Days": [0, 9], "Subject": ["new", "new"]}  # doctest: +SKIP
    >>> fit.posterior_predictive(newdata=new, re="new").summary()  # doctest: +SKIP
    """
    posterior = draws_of(fit, "posterior_predictive", ", or fit.simulate()")
    check_choice("re", re, tuple(_EFFECTS))
    size, seed = check_whole("draws", draws), fresh_seed(seed)
    model, chains = fit.model, chains_of(posterior)
    if newdata is None:
        if isinstance(trials, str) and isinstance(weights, str) and not (trials or weights):
            rows = _of_design(model.design, re)
        else:
            raise ChoiceError(
                "trials= and weights= are for newdata; the data of the fit have theirs"
            )
    else:
        rows = _of_newdata(model, newdata, re, trials, weights)
    chosen = chosen_draws(posterior.run.values("beta"), size, seed)
    ys = [_response(model, chains, s, rows, stream(seed, k)) for k, s in enumerate(chosen)]
    found = parameter_draws(model.design, chains, model.family.has_scale)[chosen]
    effects = _EFFECTS[re if model.design.random else "zero"]
    caption = f"Posterior predictive responses · {posterior.method} · {effects} · seed {seed}"
    return _predictive(model, rows, ys, found, caption, new=newdata is not None)


@dataclass(frozen=True, slots=True)
class _Group:
    """The rows' places in a term: ``known`` levels of the fit come first, then ``fresh`` ones."""

    index: Index
    Z: Array
    known: int
    fresh: int


@dataclass(frozen=True, slots=True)
class _Rows:
    """What a response needs of its rows: X, offset, levels, and their trials or weights."""

    X: Array
    offset: Array
    groups: tuple[_Group, ...]
    w: Array


def _of_design(design: Design, re: str) -> _Rows:
    groups = tuple(
        _Group(t.index, t.Z, 0, t.J) if re == "new" else _Group(t.index, t.Z, t.J, 0)
        for t in design.random
        if re != "zero"
    )
    # Weights beside trials repeat a row; they do not lengthen it.
    w = design.trials if design.response.has_trials else design.weights
    return _Rows(design.X, design.offset, groups, w)


def _of_newdata(
    model: Model, newdata: object, re: str, trials: ColumnOrValues, weights: ColumnOrValues
) -> _Rows:
    design, frame = model.design, to_polars(newdata)
    every = design.fixed.all_columns(frame)
    X = design.fixed.aliasing.reduced(every)
    unknown = ~design.fixed.aliasing.estimable(every)
    X = np.where(unknown[:, None], np.nan, X)
    groups = tuple(_placed(term, frame, re) for term in design.random if re != "zero")
    w = _amounts(model, frame, trials, weights)
    return _Rows(X, design.offset_for(frame), groups, w)


def _placed(term: RandomTerm, frame: pl.DataFrame, re: str) -> _Group:
    """The rows of new data in a term, each new level numbered once.

    Raises
    ------
    DataError
        For a missing level, and with ``re="fitted"`` for one that the fit has not seen.
    """
    index, Z = term.rows(frame)
    known = 0 if re == "new" else term.J
    fresh: dict[str, int] = {}
    for i, values in enumerate(frame.select(term.group_columns).iter_rows()):
        if index[i] >= 0 and known:
            continue
        if None in values:
            raise DataError(f"newdata row {i}: {term.factor!r} is missing; re='zero' needs none")
        level = ":".join(map(str, values))
        if re == "fitted":
            raise DataError(
                f"newdata row {i}: {term.factor!r} = {level!r} is not a level of the fit"
                f"{nearest(level, term.levels)}. re='fitted+new' draws effects for such a level, "
                "re='new' for every one"
            )
        index[i] = known + fresh.setdefault(level, len(fresh))
    return _Group(index, Z, known, len(fresh))


def _amounts(
    model: Model, frame: pl.DataFrame, trials: ColumnOrValues, weights: ColumnOrValues
) -> Array:
    """Trials or weights of new rows; ones for a response that has neither."""
    design, family = model.design, model.family
    needed = ""
    if design.response.has_trials:
        needed = "trials"
    elif np.any(design.weights != 1.0) and (family.has_scale or family.has_trials):
        needed = "weights"
    w = np.ones(frame.height)
    for name, given in (("trials", trials), ("weights", weights)):
        if not isinstance(given, str) or given:
            if name != needed:
                instead = f"it has {needed}" if needed else "leave it out"
                raise ChoiceError(
                    f"{name}= was given, but the responses of this fit have no {name}; {instead}"
                )
            w = _values(name, given, frame)
        elif name == needed:
            raise DataError(
                f"the responses of this fit have {name}; give those of the new rows as {name}= (a "
                "column of newdata, or a value for each row)"
            )
    return w


def _values(name: str, given: ColumnOrValues, frame: pl.DataFrame) -> Array:
    if isinstance(given, str):
        if given not in frame.columns:
            raise DataError(
                f"{name}={given!r} is no column of newdata{nearest(given, frame.columns)}; it has "
                f"{', '.join(map(repr, frame.columns))}"
            )
        given = frame.get_column(given)
    values = np.asarray(
        given.to_numpy() if isinstance(given, pl.Series) else given, dtype=np.float64
    )
    if values.shape != (frame.height,):
        raise DataError(f"{name} has shape {values.shape}; newdata has {frame.height} rows")
    if not (np.isfinite(values).all() and (values > 0.0).all()):
        raise DataError(f"{name} must be positive numbers; found {values[~(values > 0.0)][:1]}")
    return values


def _response(model: Model, chains: Chains, s: int, rows: _Rows, rng: np.random.Generator) -> Array:
    """One response for draw s, as ``Response.y`` holds it; NaN where eta is."""
    eta = rows.X @ chains.beta[s] + rows.offset
    for f, group in enumerate(rows.groups):
        parts = [chains.effects[f][s]] if group.known else []
        if group.fresh:
            factor = covariance_factor(chains.sds[f][s], chains.corrs[f][s])
            parts.append(rng.standard_normal((group.fresh, len(factor))) @ factor.T)
        eta += np.einsum("nk,nk->n", group.Z, np.concatenate(parts)[group.index])
    known, sigma = np.isfinite(eta), float(chains.sigma[s])
    y = respond(model.family, model.link, np.where(known, eta, 0.0), rows.w, sigma, rng)
    return np.where(known, y, np.nan)


def chains_of_parameters(design: Design, values: dict[str, Array]) -> Chains:
    """Parameters as draws that have no random effects."""
    size = len(values["beta"])
    sds = tuple(values[f"sd_{t.name}"] for t in design.random)
    corrs = tuple(
        values.get(f"corr_{t.name}", np.broadcast_to(np.eye(t.K), (size, t.K, t.K)))
        for t in design.random
    )
    return Chains(values["beta"], sds, corrs, (), values.get("sigma", np.ones(size)))


def _predictive(
    model: Model, rows: _Rows, ys: Sequence[Array], parameters: Array, caption: str, new: bool
) -> Predictive:
    """Label the draws."""
    design, family = model.design, model.family
    response, place = design.response, places(design)
    if new:
        place = np.arange(len(rows.w))
        response = replace(response, trials=rows.w) if response.has_trials else response
    trials = response.trials if response.has_trials else np.ones(len(rows.w))
    draws = np.stack(ys) * trials
    huge = int(np.isinf(draws).sum())
    if huge:
        caption += f" · {huge / draws.size:.2g} of the responses are too large for a count (null)"
    what = "counts of successes" if design.response.has_trials else "response scale"
    names = parameter_names(design, family.has_scale)
    return Predictive(
        np.round(draws) if design.response.has_trials else draws,
        table(in_rows(design, family, ys, response, place), f"{caption} · {what}"),
        table(dict(zip(names, parameters.T, strict=True)), f"Parameters of: {caption}"),
        np.zeros(0) if new else response.y * trials,
    )
