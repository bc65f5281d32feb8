"""compare(): tests of nested models, laid out as R's ``anova`` does."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from bayesglmm.errors import ChoiceError, DataError
from bayesglmm.laplace import ML
from bayesglmm.pymer4.tables import stars, written_p

if TYPE_CHECKING:
    from bayesglmm.pymer4.base import Model

__all__ = ["compare"]


def compare(*models: Model, as_dataframe: bool = False) -> Any:
    """Test nested models against each other.

    Models without random effects get F tests, each against the one before, with the residual
    variance of the largest model (one for binomial and Poisson models, where the F test is the
    likelihood-ratio test). Models with random effects are ordered by their number of
    parameters, refitted by maximum likelihood, and get likelihood-ratio tests; AIC, BIC and
    logLik remain those of the fits compared. Models that are not fitted yet are fitted.

    Parameters
    ----------
    models
        Two models or more, of the same response and the same rows.
    as_dataframe
        Return a polars frame; else a ``great_tables.GT``.

    Returns
    -------
    polars.DataFrame or great_tables.GT
        ``AIC, BIC, logLik``, then ``Res_Df, RSS, Df, Sum of Sq, F, Pr(>F)`` for ``lm``,
        ``Resid_Df, Resid_Dev, Df, Deviance, F, Pr(>F)`` for ``glm``, and ``npar, -2*log(L),
        Chisq, Df, Pr(>Chisq)`` for mixed models.

    Raises
    ------
    ChoiceError
        For fewer than two models, or a mixture of kinds.
    DataError
        If the responses differ.

    Examples
    --------
    >>> from bayesglmm.pymer4 import compare, lm, load_dataset
    >>> cars = load_dataset("mtcars")
    >>> compare(lm("mpg ~ wt", cars), lm("mpg ~ wt + hp", cars), as_dataframe=True)["F"].round(3)[1]
    12.381
    """
    if len(models) < 2:
        raise ChoiceError(f"compare needs two models or more; got {len(models)}")
    kinds = [model.kind for model in models]
    if len({(model.mixed, model.family, model.link) for model in models}) > 1:
        raise ChoiceError(
            "compare needs models of one kind: all with or all without random effects, of one "
            f"family and link; got {', '.join(kinds)}"
        )
    for model in models:
        if not model.fitted:
            model.fit()  # type: ignore[attr-defined]
    _same_response(models)
    if models[0].mixed:
        frame, order = _likelihood_ratio(models)
    else:
        frame, order = _analysis_of_variance(models), list(range(len(models)))
    return frame if as_dataframe else _table(frame, [models[k] for k in order])


def _same_response(models: tuple[Model, ...]) -> None:
    first = models[0].fit_.model.design
    for model in models[1:]:
        design = model.fit_.model.design
        if design.n != first.n or not np.array_equal(design.y, first.y):
            raise DataError(
                f"compare: {models[0].formula!r} used {first.n} rows and {model.formula!r} "
                f"{design.n}, or their responses differ; drop rows with missing values first"
            )


def _common(models: list[Model]) -> dict[str, list[Any]]:
    rows = [model.result_fit_stats.row(0, named=True) for model in models]
    return {name: [row[name] for row in rows] for name in ("AIC", "BIC", "logLik")}


def _analysis_of_variance(models: tuple[Model, ...]) -> pl.DataFrame:
    from scipy.stats import chi2, f

    rows = [model.result_fit_stats.row(0, named=True) for model in models]
    rest = np.array([row["df_residual"] for row in rows], dtype=np.float64)
    deviance = np.array([row["deviance"] for row in rows], dtype=np.float64)
    known_scale = not models[0].fit_.model.family.has_scale
    largest = int(np.argmin(rest))
    scale = 1.0 if known_scale else deviance[largest] / rest[largest]
    df, explained = -np.diff(rest), -np.diff(deviance)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(df != 0, explained / df / scale, np.nan)
    size = np.abs(df)
    if known_scale:  # the F distribution with infinite denominator df, which SciPy lacks
        p = chi2.sf(statistic * size, size)
    else:
        p = f.sf(statistic, size, rest[largest])
    linear = models[0].kind == "lm"
    names = ("Res_Df", "RSS", "Sum of Sq") if linear else ("Resid_Df", "Resid_Dev", "Deviance")
    return pl.DataFrame(
        {
            **_common(list(models)),
            names[0]: rest,
            names[1]: deviance,
            "Df": [None, *df.tolist()],
            names[2]: [None, *explained.tolist()],
            "F": [None, *statistic.tolist()],
            "Pr(>F)": [None, *p.tolist()],
        }
    ).fill_nan(None)


def _likelihood_ratio(models: tuple[Model, ...]) -> tuple[pl.DataFrame, list[int]]:
    from scipy.stats import chi2

    # REML likelihoods of models with different fixed effects are not comparable.
    fits = [
        model.fit_.model.fit(ML()) if model.fit_.method == "REML" else model.fit_
        for model in models
    ]
    size = [fit.statistics["n_parameters"].item() for fit in fits]
    order = sorted(range(len(models)), key=lambda k: size[k])
    npar = np.array([size[k] for k in order])
    twice = 2.0 * np.array([fits[k].loglik for k in order])
    df = np.diff(npar)
    statistic = np.maximum(np.diff(twice), 0.0)
    p = np.where(df > 0, chi2.sf(statistic, np.maximum(df, 1)), np.nan)
    frame = pl.DataFrame(
        {
            **_common([models[k] for k in order]),
            "npar": npar.astype(np.float64),
            "-2*log(L)": -twice,
            "Chisq": [None, *statistic.tolist()],
            "Df": [None, *df.astype(np.float64).tolist()],
            "Pr(>Chisq)": [None, *p.tolist()],
        }
    ).fill_nan(None)
    return frame, order


_PLACES = {"AIC": 1, "BIC": 1, "logLik": 1, "npar": 0, "Res_Df": 0, "Resid_Df": 0, "Df": 0}


def _table(frame: pl.DataFrame, models: list[Model]) -> Any:
    from great_tables import GT
    from great_tables import html as raw

    last = frame.columns[-1]
    text: dict[str, list[str]] = {"model": [str(k + 1) for k in range(frame.height)]}
    for name in frame.columns[:-1]:
        places = _PLACES.get(name, 2)
        text[name] = [
            "" if value is None else f"{value:,.{places}f}".replace("-", "−")
            for value in frame[name]
        ]
    text[last] = [written_p(p, 2) for p in frame[last]]
    text["stars"] = [stars(p) for p in frame[last]]
    lines = [f"Model {k + 1}: {m.kind}({m.formula})" for k, m in enumerate(models)]
    return (
        GT(pl.DataFrame(text), rowname_col="model")
        .tab_header(
            title="Analysis of Deviance Table",
            subtitle=raw("<br>".join(html.escape(line) for line in lines)),
        )
        .opt_align_table_header("left")
        .opt_vertical_padding(0.75)
        .cols_align("right", columns=frame.columns)
        .cols_align("left", columns=["stars"])
        .cols_label(stars="")
        .tab_source_note("Signif. codes:  0 *** 0.001 ** 0.01 * 0.05 . 0.1")
        .tab_options(source_notes_font_size="small")
    )
