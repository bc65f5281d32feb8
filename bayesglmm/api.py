"""The front door: model(), lm(), glm(), lmer(), glmer()."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bayesglmm.design import build
from bayesglmm.errors import ChoiceError, named_arguments, warn
from bayesglmm.families import Family, Likelihood, find_family, find_link
from bayesglmm.formula import parse
from bayesglmm.model import Missing, Model, check_response, not_estimable
from bayesglmm.priors import Prior, choose_priors

ColumnOrValues = str | Sequence[float] | NDArray[np.float64] | pl.Series
Factors = Iterable[str] | Mapping[str, Sequence[object]]

_REML = 'it belongs to the fit: .fit("reml"), or .fit() for maximum likelihood'
_NAGQ = "it belongs to the fit: .fit(nagq=9)"
_SAMPLING = 'it belongs to the fit: .fit("nuts", ...)'
_named = named_arguments(
    {
        **dict.fromkeys(("REML", "reml"), _REML),
        **dict.fromkeys(("nAGQ", "nagq"), _NAGQ),
        **dict.fromkeys(("chains", "cores", "draws", "iter", "seed", "tune", "warmup"), _SAMPLING),
        "family": "lm and lmer are Gaussian; use glm or glmer",
        "na_action": "use missing=",
        "prior": "use priors=",
        "subset": "filter the data frame first",
    }
)


@_named
def model(
    formula: str,
    data: object,
    *,
    family: str | Family = "gaussian",
    link: str = "default",
    weights: ColumnOrValues = "",
    offset: ColumnOrValues = "",
    trials: ColumnOrValues = "",
    contrasts: Mapping[str, object] | None = None,
    factors: Factors = (),
    priors: str | Mapping[str, Prior] = "default",
    missing: Missing = "drop",
) -> Model:
    """Put a formula, data, a family and priors together.

    Parameters
    ----------
    formula
        As in lme4: ``"y ~ x + (1 + x | g)"``.
    data
        A polars, pandas or pyarrow frame (anything narwhals reads) or a mapping of columns. It
        is never changed.
    family, link
        ``"gaussian"`` (identity, log), ``"binomial"`` or ``"bernoulli"`` (logit, probit,
        cloglog, log, identity), ``"poisson"`` (log, identity). The first link is the default.
        Or a :class:`bayesglmm.families.Family` of your own.
    weights
        Column name or (n,) values. Gaussian: the variance is sigma^2 / weight. Binomial
        proportions: the number of trials, as in R. Poisson: case weights. Rows of weight zero
        are left out of the fit, counted in its summary, and null in predictions.
    offset
        Column name or (n,) values added to the linear predictor; also ``offset(x)`` in the
        formula.
    trials
        Column name or (n,) values; the response is then the number of successes. The same as
        ``cbind(successes, trials - successes)``. A row without trials is an error.
    contrasts
        Coding of factors by column: ``"treatment"``, ``"sum"``, ``"effects"``, ``"helmert"``,
        ``"poly"``, ``"sdif"``, or a readable contrast matrix.
    factors
        Columns to treat as factors, or a mapping from column to its levels in order.
    priors
        ``"default"``, ``"flat"``, or a mapping by name; used by Bayesian methods only.
    missing
        ``"drop"`` rows with missing values (counted in the summary) or ``"error"``.

    Raises
    ------
    FormulaError, DataError, ChoiceError
        Each names the argument, what was given, and what to do.

    Warns
    -----
    BayesglmmWarning
        If fixed effects cannot all be estimated: a column of X that is a combination of earlier
        ones is left out, as by R's ``lm`` and ``lmer``, and is null in ``params`` and the summary.
        If columns are so nearly collinear (a year and its square, a random slope of a year) that
        one by one their coefficients, or their sds, mean little: centre the covariates.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> titanic = bg.load_dataset("titanic")
    >>> bg.model("survived ~ sex", titanic, family="binomial")
    Model('survived ~ sex', family='binomial', link='logit', 891 rows)
    """
    chosen = find_family(family)
    chosen_link = find_link(chosen, link)
    design = build(
        parse(formula),
        data,
        weights=weights,
        offset=offset,
        trials=trials,
        contrasts=contrasts,
        factors=factors,
        missing=missing,
    )
    check_response(design, chosen)
    if design.aliased:
        warn(
            f"{not_estimable(design)}. Left out of the fit and null in its tables (R's NA): the "
            "data cannot tell it from the columns before it. Remove the term, or merge levels "
            "until every cell has data"
        )
    if design.collinear:
        warn("\n".join(design.collinear))
    likelihood = Likelihood(chosen, chosen_link, design.y, design.total_weights)
    return Model(design, chosen, chosen_link, choose_priors(design, likelihood, priors))


def _guard(name: str, formula: str, bars: bool, gaussian: bool, family: str | Family) -> None:
    """Say which function is meant when bars or family do not fit the name."""
    has_bars = bool(parse(formula).bars)
    right = {
        (True, True): "lmer",
        (True, False): "glmer",
        (False, True): "lm",
        (False, False): "glm",
    }
    if has_bars != bars:
        wanted = "has random effects" if has_bars else "has no random effects such as (1|g)"
        raise ChoiceError(
            f"{name}: the formula {formula!r} {wanted}; use {right[(has_bars, gaussian)]}()"
        )
    if not gaussian:
        find_family(family)


@_named
def lm(
    formula: str,
    data: object,
    *,
    weights: ColumnOrValues = "",
    offset: ColumnOrValues = "",
    contrasts: Mapping[str, object] | None = None,
    factors: Factors = (),
    priors: str | Mapping[str, Prior] = "default",
    missing: Missing = "drop",
) -> Model:
    """A linear model: Gaussian, identity link, no random effects. See :func:`model`.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> bg.lm("mpg ~ wt", bg.load_dataset("mtcars")).fit().params["estimate"].round(3).to_list()
    [37.285, -5.344]
    """
    _guard("lm", formula, bars=False, gaussian=True, family="gaussian")
    return model(
        formula,
        data,
        weights=weights,
        offset=offset,
        contrasts=contrasts,
        factors=factors,
        priors=priors,
        missing=missing,
    )


@_named
def glm(
    formula: str,
    data: object,
    *,
    family: str | Family = "gaussian",
    link: str = "default",
    weights: ColumnOrValues = "",
    offset: ColumnOrValues = "",
    trials: ColumnOrValues = "",
    contrasts: Mapping[str, object] | None = None,
    factors: Factors = (),
    priors: str | Mapping[str, Prior] = "default",
    missing: Missing = "drop",
) -> Model:
    """A generalised linear model: no random effects. See :func:`model`."""
    _guard("glm", formula, bars=False, gaussian=False, family=family)
    return model(
        formula,
        data,
        family=family,
        link=link,
        weights=weights,
        offset=offset,
        trials=trials,
        contrasts=contrasts,
        factors=factors,
        priors=priors,
        missing=missing,
    )


@_named
def lmer(
    formula: str,
    data: object,
    *,
    weights: ColumnOrValues = "",
    offset: ColumnOrValues = "",
    contrasts: Mapping[str, object] | None = None,
    factors: Factors = (),
    priors: str | Mapping[str, Prior] = "default",
    missing: Missing = "drop",
) -> Model:
    """A linear mixed model: Gaussian, identity link, random effects. See :func:`model`."""
    _guard("lmer", formula, bars=True, gaussian=True, family="gaussian")
    return model(
        formula,
        data,
        weights=weights,
        offset=offset,
        contrasts=contrasts,
        factors=factors,
        priors=priors,
        missing=missing,
    )


@_named
def glmer(
    formula: str,
    data: object,
    *,
    family: str | Family = "gaussian",
    link: str = "default",
    weights: ColumnOrValues = "",
    offset: ColumnOrValues = "",
    trials: ColumnOrValues = "",
    contrasts: Mapping[str, object] | None = None,
    factors: Factors = (),
    priors: str | Mapping[str, Prior] = "default",
    missing: Missing = "drop",
) -> Model:
    """A generalised linear mixed model: random effects. See :func:`model`."""
    _guard("glmer", formula, bars=True, gaussian=False, family=family)
    return model(
        formula,
        data,
        family=family,
        link=link,
        weights=weights,
        offset=offset,
        trials=trials,
        contrasts=contrasts,
        factors=factors,
        priors=priors,
        missing=missing,
    )
