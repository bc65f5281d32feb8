"""anova() and vif(), with pymer4's columns."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from bayesglmm.design.recode import fixed_terms
from bayesglmm.errors import ChoiceError
from bayesglmm.laplace.joint import f_tail, joint_test
from bayesglmm.post.collinearity import correlation
from bayesglmm.post.grid import mean_grid
from bayesglmm.post.submodels import estimate_of
from bayesglmm.pymer4.tables import stars, written_p

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

__all__ = ["anova_table", "joint_tests", "vif"]


def joint_tests(fit: Fit) -> pl.DataFrame:
    """emmeans' ``joint_tests``: type III tests with covariates at their means.

    For every set of variables that meet in a term: are all interaction contrasts of their
    marginal means zero? A covariate counts as a factor with the levels mean - 1 and mean + 1.
    Several hypotheses share the smallest of their degrees of freedom, as in emmeans.

    Returns
    -------
    polars.DataFrame
        ``model term, df1, df2, F_ratio, p_value``; ``df2`` is infinite for generalised models,
        and a column ``Chisq`` then stands before ``p_value``.
    """
    design, estimate = fit.model.design, estimate_of(fit, "anova()")
    fixed = design.fixed
    variables = list(fixed.columns)
    at: dict[str, Any] = {}
    for name in fixed.covariates:
        if design.data.get_column(name).n_unique() > 2:
            mean = fixed.covariate_means[name]
            at[name] = [mean - 1.0, mean + 1.0]
    columns_of = {piece.name: piece.columns for piece in fixed._pieces}
    met = [{c for v in term.variables for c in columns_of[v]} for term in fixed_terms(design)]
    rows = []
    for count in range(1, len(variables) + 1):
        for names in itertools.combinations(variables, count):
            if not any(set(names) <= term for term in met):
                continue
            grid = mean_grid(fit, names, at)
            contrast: Any = np.ones((1, 1))
            for name in names:  # the first varies fastest
                levels = grid.labels.get_column(name).n_unique()
                contrast = np.kron(np.diff(np.eye(levels), axis=0), contrast)
            Q, R = np.linalg.qr((contrast @ grid.L).T)
            size = np.abs(np.diag(R))
            L = Q.T[size > 1e-7 * max(1.0, float(size.max()))]
            if not len(L):
                continue
            test = joint_test(estimate, L, asymptotic=True)
            den_df = float(np.min(estimate.degrees_of_freedom(L)))
            rows.append(
                {
                    "model term": ":".join(names),
                    "df1": float(test.num_df),
                    "df2": den_df,
                    "F_ratio": test.statistic,
                    "Chisq": test.statistic * test.num_df,
                    "p_value": f_tail(test.statistic, test.num_df, den_df),
                }
            )
    if not rows:
        raise ChoiceError(f"anova(): {fit.model.formula!r} has no terms to test")
    frame = pl.DataFrame(rows)
    return frame if frame["df2"].is_infinite().all() else frame.drop("Chisq")


def vif(fit: Fit) -> pl.DataFrame:
    """``term, vif, ci_increase_factor`` for every column of X but the intercept."""
    design = fit.model.design
    kept = [k for k, name in enumerate(design.names) if name != "(Intercept)"]
    if not kept:
        raise ChoiceError(f"vif(): {fit.model.formula!r} has no predictors")
    factor = np.ones(1)
    if len(kept) > 1:
        covariance = np.cov(design.X[:, kept], rowvar=False)
        factor = np.diag(np.linalg.inv(correlation(covariance)))
    return pl.DataFrame(
        {
            "term": [design.names[k] for k in kept],
            "vif": factor,
            "ci_increase_factor": np.sqrt(factor),
        }
    )


def anova_table(frame: pl.DataFrame, mixed: bool, decimals: int) -> Any:
    """A ``great_tables.GT`` of :func:`joint_tests`."""
    from great_tables import GT

    text: dict[str, list[str]] = {"model term": frame["model term"].to_list()}
    for name in frame.columns[1:-1]:
        places = 0 if name.startswith("df") and not mixed else decimals
        text[name] = [f"{v:,.{places}f}".replace("-", "−") for v in frame[name]]
    text["p_value"] = [written_p(p, decimals) for p in frame["p_value"]]
    text["stars"] = [stars(p) for p in frame["p_value"]]
    return (
        GT(pl.DataFrame(text))
        .tab_header(title="ANOVA (Type III tests)")
        .opt_align_table_header("left")
        .opt_vertical_padding(1)
        .cols_align("right", columns=frame.columns[1:])
        .cols_align("left", columns=["stars"])
        .cols_label(stars="")
        .tab_source_note("Signif. codes:  0 *** 0.001 ** 0.01 * 0.05 . 0.1")
        .tab_options(source_notes_font_size="small")
    )
