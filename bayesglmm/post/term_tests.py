"""Tests of the terms of one fit: the tables behind ``anova(fit)`` and ``drop1(fit)``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import chdtrc

from bayesglmm.design.recode import FixedTerm, without_term
from bayesglmm.errors import ChoiceError
from bayesglmm.laplace.estimate import Estimate
from bayesglmm.laplace.joint import JointTest, joint_test
from bayesglmm.post.hypotheses import (
    columns_of,
    complement,
    droppable,
    dropping,
    relatives,
    terms_of,
    type_one,
    type_three,
    type_two,
)
from bayesglmm.post.submodels import by_ml, estimate_of, refitted
from bayesglmm.tables.table import Table, table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

Array = NDArray[np.float64]

_HYPOTHESES = {
    "I": "each term given those before it",
    "II": "each term given all others but those that contain it",
    "III": "each term given all others, unweighted averages of cell means (any coding)",
}
_WITHOUT_DF = {
    "anova": "test='wald' or test='lrt'",
    "drop1": "test='lrt'",
    "wald_test": "test='wald'",
}


def choose_test(fit: Fit, test: str, what: str) -> str:
    """``"F"``, ``"wald"`` or ``"lrt"``; ``"auto"`` is F where there are degrees of freedom.

    Of a table with a coefficient that is infinite it is lrt, the one test that has a meaning.
    """
    estimate = estimate_of(fit, what)
    if what == "anova" and _infinite(estimate):
        if test == "wald":
            raise ChoiceError(
                "test='wald' has no meaning where a coefficient is infinite, as outcomes that are "
                "separated make it (see fit.outcome); use test='lrt'"
            )
        test = "lrt" if test == "auto" else test
    has_df = len(estimate.scale_cov) > 0 or np.isfinite(estimate.df_residual)
    if test == "auto":
        return "F" if has_df else "wald"
    if test == "F" and not has_df:
        why = (
            "this fit has df='asymptotic'; fit with df='satterthwaite' (or 'kenward-roger')"
            if fit.model.likelihood.is_linear
            else f"this model has none, use {_WITHOUT_DF[what]}"
        )
        raise ChoiceError(f"test='F' needs denominator degrees of freedom: {why}")
    return test


def _infinite(estimate: Estimate) -> bool:
    return bool(np.isnan(estimate.vcov).any())


def describe(fit: Fit, test: str) -> str:
    """How the statistic was got."""
    estimate = estimate_of(fit, "anova")
    if test == "lrt":
        again = "; REML fit refitted by ML" if estimate.method == "REML" else ""
        return f"likelihood-ratio chi-square{again}"
    if test == "wald":
        # A Wald test of an estimate that runs to infinity has a p value near one.
        care = "" if not estimate.outcome.notes else " (this fit needs care: see fit.outcome)"
        return f"Wald chi-square{care}"
    if len(estimate.unadjusted):
        return "F scaled as Kenward and Roger, their degrees of freedom"
    if len(estimate.scale_cov):
        return "F, Satterthwaite degrees of freedom"
    return f"F, residual mean square {estimate.sigma**2:.5g}"


def type_table(fit: Fit, type: str, test: str) -> Table:
    """Tests of every term; see :func:`bayesglmm.anova`."""
    test = choose_test(fit, test, "anova")
    terms = terms_of(fit.model.design, "anova")
    labels = [t.label for t in terms]
    caption = f"Type {type} tests · {fit.method} · {describe(fit, test)} · {_HYPOTHESES[type]}"
    caption += _held(terms, type, test == "F" and bool(fit.model.design.random))
    if test == "lrt":
        return table({"term": labels, **_likelihood_ratios(fit, type, terms)}, caption)
    estimate = estimate_of(fit, "anova")
    tests = [
        joint_test(estimate, L, asymptotic=test == "wald")
        for L in _rows(fit, estimate, type, test, terms)
    ]
    return table({"term": labels, **result_columns(fit, tests)}, caption)


def _held(terms: Sequence[FixedTerm], type: str, sas: bool) -> str:
    """A warning where a factor is tested at a covariate of zero."""
    if type == "I" or (type == "II" and not sas):
        return ""
    found = []
    for term in terms:
        more = {v for r in relatives(term, terms, True) for v in r.covariates - term.covariates}
        if more:
            found.append(f"{term.label} at {', '.join(sorted(more))} = 0")
    return f" · {'; '.join(found)}" if found else ""


def _rows(
    fit: Fit, estimate: Estimate, type: str, test: str, terms: Sequence[FixedTerm]
) -> list[Array]:
    design = fit.model.design
    if type == "III":
        return type_three(design, terms)
    # F tests sweep with X'WX, as lm and lmerTest; Wald tests with the inverse covariance, as car.
    linear = fit.model.likelihood.is_linear
    if test == "F" and linear:
        root = design.X * np.sqrt(fit.model.likelihood.w)[:, None]
    else:
        root = np.linalg.inv(np.linalg.cholesky(estimate.vcov))
    if type == "I":
        return type_one(design, terms, root)
    return type_two(design, terms, root, covariates=not (test == "F" and bool(design.random)))


def result_columns(fit: Fit, tests: Sequence[JointTest]) -> dict[str, Any]:
    """``[sum_sq, mean_sq,] num_df, den_df, f_stat, p_value`` or ``chi_square, df, p_value``.

    Of a term without a coefficient of its own nothing is tested: its df are 0, the rest is null.
    """
    num_df = np.array([t.num_df for t in tests])
    p_value = _finite([t.p_value for t in tests])
    if all(np.isinf(t.den_df) for t in tests):
        chi = [t.statistic * t.num_df for t in tests]
        return {"chi_square": _finite(chi), "df": num_df, "p_value": p_value}
    statistic = np.array([t.statistic for t in tests])
    squares: dict[str, Any] = {}
    if fit.model.likelihood.is_linear:
        sigma = estimate_of(fit, "anova").sigma
        mean = statistic / np.array([t.scaling for t in tests]) * sigma**2
        squares = {"sum_sq": _finite(mean * num_df), "mean_sq": _finite(mean)}
    return {
        **squares,
        "num_df": num_df,
        "den_df": _finite([t.den_df for t in tests]),
        "f_stat": _finite(statistic),
        "p_value": p_value,
    }


def _finite(values: Iterable[float]) -> pl.Series:
    """The values, null for those that are not finite."""
    found = [float(v) if np.isfinite(v) else None for v in values]
    return pl.Series(found, dtype=pl.Float64)


def _likelihood_ratios(fit: Fit, type: str, terms: Sequence[FixedTerm]) -> dict[str, Any]:
    X = fit.model.design.X
    p = X.shape[1]
    found: dict[tuple[int, ...], float] = {tuple(range(p)): by_ml(fit, "anova").loglik}

    def loglik(columns: Sequence[int]) -> float:
        key = tuple(sorted(columns))
        if key not in found:
            found[key] = refitted(fit, X[:, list(key)], "anova: a model without a term").loglik
        return found[key]

    chi, df = [], []
    rows = type_three(fit.model.design, terms) if type == "III" else [np.zeros((0, p))] * len(terms)
    for term, L in zip(terms, rows, strict=True):
        if not term.columns:  # the model without it is the same
            chi.append(0.0)
        elif type == "III":
            small = refitted(fit, X @ complement(L.T).T, f"anova: without {term.label}").loglik
            chi.append(2.0 * (loglik(range(p)) - small))
        else:
            later = set(
                columns_of(relatives(term, terms, covariates=True))
                if type == "II"
                else range(max(term.columns) + 1, p)
            )
            large = [k for k in range(p) if k not in later]
            chi.append(2.0 * (loglik(large) - loglik([k for k in large if k not in term.columns])))
        df.append(len(term.columns))
    return chi_square_columns(chi, df)


def chi_square_columns(chi: Sequence[float], df: Sequence[int]) -> dict[str, Any]:
    """``chi_square, df, p_value``; a statistic that rounding made negative counts as zero."""
    values = np.array(chi, dtype=np.float64)
    values = np.where((values < 0.0) & (values > -1e-6), 0.0, values)
    count = np.array(df)
    p = chdtrc(np.maximum(count, 1), np.maximum(values, 0.0))
    return {
        "chi_square": values,
        "df": count,
        "p_value": _finite(np.where(count > 0, p, np.nan)),  # nothing is tested with none
    }


def drop_table(fit: Fit, test: str) -> Table:
    """Single-term deletions; see :func:`bayesglmm.drop1`."""
    design = fit.model.design
    terms = droppable(terms_of(design, "drop1"))
    if test == "F":
        choose_test(fit, "F", "drop1")
        estimate = estimate_of(fit, "drop1")
        tests = [joint_test(estimate, dropping(design, t)) for t in terms]
        caption = f"Single-term deletions · {fit.method} · {describe(fit, 'F')}"
        return table({"term": [t.label for t in terms], **result_columns(fit, tests)}, caption)
    whole = by_ml(fit, "drop1")
    fits = [
        refitted(fit, without_term(design, t.label), f"drop1: without {t.label}") for t in terms
    ]
    npar = [whole.n_parameters, *(e.n_parameters for e in fits)]
    logliks = [whole.loglik, *(e.loglik for e in fits)]
    found = chi_square_columns(
        [2.0 * (whole.loglik - e.loglik) for e in fits],
        [whole.n_parameters - e.n_parameters for e in fits],
    )
    columns = [(name, pl.Series(values)) for name, values in found.items()]
    method = "ML" if whole.method == "ML" else fit.method
    return table(
        {
            "term": ["<none>", *(t.label for t in terms)],
            "npar": npar,
            "AIC": [2.0 * k - 2.0 * v for k, v in zip(npar, logliks, strict=True)],
            **{name: pl.Series([None, *values], dtype=values.dtype) for name, values in columns},
        },
        f"Single-term deletions · {method} · {describe(fit, 'lrt')}",
    )
