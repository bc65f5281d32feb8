"""Tests of nested models against each other: the tables behind ``anova(fit1, fit2, ...)``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from scipy.special import chdtrc

from bayesglmm.errors import ChoiceError, DataError
from bayesglmm.laplace.estimate import Estimate
from bayesglmm.laplace.joint import f_tail
from bayesglmm.post.nesting import Nesting, nesting
from bayesglmm.post.submodels import by_ml, estimate_of, options_of
from bayesglmm.tables.table import Table, table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit


def model_table(fits: Sequence[Fit], test: str, refit: bool) -> Table:
    """Sequential tests of nested fits; see :func:`bayesglmm.anova`."""
    for fit in fits:
        estimate_of(fit, "anova")
    for fit in fits[1:]:
        check_comparable(fits[0], fit)
    _check_quadrature(fits)
    ordered = sorted(fits, key=lambda fit: estimate_of(fit, "anova").n_parameters)
    steps = [
        nesting(small.model.design, large.model.design)
        for small, large in itertools.pairwise(ordered)
    ]
    plain = fits[0].model.family.has_scale and not any(f.model.design.random for f in fits)
    if test == "F" and not plain:
        raise ChoiceError(
            "test='F' compares models with a residual variance and without random effects; for "
            "these use test='lrt'. F tests of terms: anova(fit)"
        )
    if test == "wald":
        raise ChoiceError(
            "test='wald' tests the terms of one fit, anova(fit, test='wald'); several fits are "
            "compared by test='lrt' (or 'F' for linear models)"
        )
    if plain and test != "lrt":
        return _analysis_of_variance(ordered, steps)
    return _likelihood_ratios(ordered, steps, refit)


def _check_quadrature(fits: Sequence[Fit]) -> None:
    """Refuse likelihoods approximated in different ways; without random effects there is none."""
    nodes = sorted({options_of(f).nagq for f in fits if f.model.design.random})
    if len(nodes) > 1:
        raise ChoiceError(
            "anova: the fits approximate the likelihood with different numbers of quadrature "
            f"nodes ({', '.join(map(str, nodes))}); use the same nagq"
        )


def check_comparable(first: Fit, other: Fit) -> None:
    """Refuse fits whose likelihoods are not of the same data and family.

    Raises
    ------
    DataError
        If the rows, the responses or the weights differ.
    ChoiceError
        If the families or links differ.
    """
    a, b = first.model, other.model
    names = f"{a.formula!r} and {b.formula!r}"
    if (a.family.name, a.link.name) != (b.family.name, b.link.name):
        raise ChoiceError(
            f"anova: {names} have different families or links ({a.family.name} {a.link.name}, "
            f"{b.family.name} {b.link.name}), so neither is a special case of the other. "
            "statistics(fit) has their AIC"
        )
    if not np.array_equal(a.design.rows, b.design.rows):
        raise DataError(
            f"anova: {names} used different rows ({a.design.n} of {a.design.n_rows}, "
            f"{b.design.n} of {b.design.n_rows}); drop rows with missing values before both fits"
        )
    for what, x, y in (
        ("responses", a.design.y, b.design.y),
        ("weights or numbers of trials", a.likelihood.w, b.likelihood.w),
    ):
        if not np.allclose(x, y, rtol=1e-12, atol=0.0):
            raise DataError(f"anova: {names} have different {what}; fit both to the same data")


def _formulas(fits: Sequence[Fit]) -> list[str]:
    return [fit.model.formula for fit in fits]


def _comparison(k: int, step: Nesting, df: int) -> str:
    """A sentence for the caption where row k + 2 needs one."""
    if df == 0 and not step.problem:
        return f"row {k + 2} is the model of row {k + 1} again: nothing to test"
    if step.problem:
        return f"row {k + 2} not tested against row {k + 1}: not nested ({step.problem})"
    if step.zeros == 1:
        return f"row {k + 2}: a variance is tested at zero, p_value is conservative"
    if step.zeros > 1:
        return (
            f"row {k + 2}: {step.zeros} variances are tested at zero, p_value is conservative "
            "and its correction not known"
        )
    if step.zeros < 0:
        return f"row {k + 2}: random effects overlap, the number of parameters is not certain"
    return ""


def _analysis_of_variance(fits: Sequence[Fit], steps: Sequence[Nesting]) -> Table:
    """R's ``anova.lm``: the residual mean square is that of the largest model."""
    likelihood = fits[0].model.likelihood
    estimates = [estimate_of(fit, "anova") for fit in fits]
    deviance = [likelihood.deviance(likelihood.link.inverse(e.eta)) for e in estimates]
    rest = np.array([fit.model.design.n - fit.model.design.p for fit in fits])
    scale = deviance[-1] / rest[-1]
    names = ("num_df", "den_df", "sum_sq", "f_stat", "p_value")
    columns: dict[str, list[Any]] = {name: [None] for name in names}
    for k, step in enumerate(steps):
        df, explained = int(rest[k] - rest[k + 1]), deviance[k] - deviance[k + 1]
        tested = not step.problem and df > 0
        F = explained / df / scale if tested else None
        p = f_tail(F, df, float(rest[-1])) if F is not None else None
        row = (df, float(rest[-1]), explained, F, p)
        for name, value in zip(names, row, strict=True):
            columns[name].append(value if tested or name == "num_df" else None)
    first = "rss" if likelihood.is_linear else "deviance"
    saved = -np.diff(rest)
    notes = [n for k, step in enumerate(steps) if (n := _comparison(k, step, int(saved[k])))]
    about = f"residual mean square {scale:.5g} of the largest model"
    numbers = {
        name: pl.Series(values, dtype=pl.Int64 if name == "num_df" else pl.Float64)
        for name, values in columns.items()
    }
    return table(
        {"model": _formulas(fits), "df_residual": rest, first: deviance, **numbers},
        " · ".join(["Comparison of nested models", "F tests", about, *notes]),
    )


def _likelihood_ratios(fits: Sequence[Fit], steps: Sequence[Nesting], refit: bool) -> Table:
    methods = {fit.method for fit in fits}
    about = "likelihood-ratio tests"
    if "REML" in methods and refit:
        estimates = [by_ml(fit, "anova") for fit in fits]
        about += " · REML fits refitted by ML"
    elif "REML" in methods:
        _check_restricted(fits)
        estimates = [estimate_of(fit, "anova") for fit in fits]
        about = "restricted-likelihood-ratio tests (REML, the same fixed effects)"
    else:
        estimates = [estimate_of(fit, "anova") for fit in fits]
        about += f" · {', '.join(sorted(methods))}"
    n = fits[0].model.design.n
    npar = np.array([e.n_parameters for e in estimates])
    loglik = np.array([e.loglik for e in estimates])
    names = ("chi_square", "df", "p_value", "p_boundary")
    columns: dict[str, list[Any]] = {name: [None] for name in names}
    notes = []
    for k, step in enumerate(steps):
        df, chi = int(npar[k + 1] - npar[k]), 2.0 * float(loglik[k + 1] - loglik[k])
        tested = not step.problem and df > 0
        corrected = None
        if tested:
            if chi < -1e-6:
                notes.append(
                    f"row {k + 2} has the lower likelihood although it is the larger model: one "
                    "of the two has not converged"
                )
            chi = max(chi, 0.0) if chi > -1e-6 else chi
            if step.zeros == 1:
                corrected, how = _at_boundary(chi, df, estimates[k])
                notes.append(_comparison(k, step, df) + how)
        p = float(chdtrc(df, max(chi, 0.0))) if tested else None
        if not tested or step.zeros not in (0, 1):
            notes.append(_comparison(k, step, df))
        row = (chi if tested else None, df, p, corrected)
        for name, value in zip(names, row, strict=True):
            columns[name].append(value)
    numbers: dict[str, Any] = {
        name: pl.Series(values, dtype=pl.Int64 if name == "df" else pl.Float64)
        for name, values in columns.items()
    }
    if not any(step.zeros for step in steps if not step.problem):
        del numbers["p_boundary"]
    return table(
        {
            "model": _formulas(fits),
            "npar": npar,
            "AIC": 2.0 * npar - 2.0 * loglik,
            "BIC": np.log(n) * npar - 2.0 * loglik,
            "logLik": loglik,
            "deviance": -2.0 * loglik,
            **numbers,
        },
        " · ".join(["Comparison of nested models", about, *notes]),
    )


def _at_boundary(chi: float, df: int, smaller: Estimate) -> tuple[float | None, str]:
    """The p value when exactly one variance vanishes in the smaller model.

    The likelihood ratio is then distributed as chi-square with df - 1 or df degrees of freedom,
    each with probability 1/2 (Self and Liang 1987, doi:10.1080/01621459.1987.10478472; Stram
    and Lee 1994, doi:10.2307/2533455), if no other variance is zero.
    """
    if smaller.outcome.singular:
        return None, "; its correction is not known, as the smaller model is singular itself"
    below = float(chdtrc(df - 1, chi)) if df > 1 else float(chi <= 0.0)
    how = f"; p_boundary from 0.5 chi2({df - 1}) + 0.5 chi2({df})"
    return 0.5 * below + 0.5 * float(chdtrc(df, chi)), how


def _check_restricted(fits: Sequence[Fit]) -> None:
    first = fits[0]
    for fit in fits:
        if fit.method != "REML":
            raise ChoiceError(
                f"refit=False with fits by {', '.join(dict.fromkeys(f.method for f in fits))}: "
                "restricted and ordinary likelihoods cannot be compared; use refit=True"
            )
        a, b = first.model.design.X, fit.model.design.X
        if a.shape != b.shape or not np.allclose(a, b, rtol=1e-12, atol=0.0):
            raise ChoiceError(
                "refit=False: restricted likelihoods of models with different fixed effects "
                f"({first.model.formula!r}, {fit.model.formula!r}) cannot be compared; use "
                "refit=True"
            )
