"""A fit in pymer4's tables: its columns, their names, order and types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl

from bayesglmm.errors import BayesglmmError, ChoiceError
from bayesglmm.fit import Fit
from bayesglmm.post import emmeans as marginal
from bayesglmm.post.predict import predict
from bayesglmm.post.statistics import statistics
from bayesglmm.post.tables import coef, params, ranef, varcorr
from bayesglmm.posterior.ml import MLPosterior
from bayesglmm.tables.table import Table, table

__all__ = ["NotFittedError", "Results", "Scale", "empredict", "means"]

Scale = Literal["response", "link"]
Levels = pl.DataFrame | dict[str, pl.DataFrame]

# pymer4 hands these to emmeans; the left-hand names are R's abbreviations.
_ADJUST = {"bonf": "bonferroni", "BH": "fdr"}


class NotFittedError(BayesglmmError, ValueError):
    """Something was asked of a model that only a fitted one has."""


@dataclass(frozen=True, eq=False)
class Results:
    """What a model knows after ``fit``.

    Attributes
    ----------
    fit
        The fit of the package.
    exponentiate
        Whether coefficients, and those of the levels, are shown as exp(coefficient).
    type_predict
        Scale of the fitted values.
    plain
        A linear model without or with random effects (``lm``, ``lmer``).
    """

    fit: Fit
    exponentiate: bool
    type_predict: Scale
    plain: bool

    @cached_property
    def estimate(self) -> Any:
        """The maximum-likelihood estimate behind the fit."""
        assert isinstance(self.fit.posterior, MLPosterior)
        return self.fit.posterior.estimate

    @cached_property
    def result_fit(self) -> pl.DataFrame:
        """``term, estimate, std_error, conf_low, conf_high, t_stat|z_stat, df, p_value``."""
        frame = pl.DataFrame(params(self.fit, exponentiate=self.exponentiate))
        gaussian = self.fit.model.family.name == "gaussian"
        found = "z_stat" if "z_stat" in frame.columns else "t_stat"
        frame = frame.rename({found: "t_stat" if gaussian else "z_stat"})
        if self.plain and not self.fit.model.design.random:
            frame = frame.with_columns(pl.col("df").cast(pl.Int64))
        return frame

    @cached_property
    def result_fit_stats(self) -> pl.DataFrame:
        """One row of fit statistics; see the model's attribute of that name."""
        known = statistics(self.fit).row(0, named=True)
        if self.fit.model.design.random:
            return self._mixed_statistics(known)
        return _linear_statistics(known) if self.plain else _generalised_statistics(known)

    def _mixed_statistics(self, known: Mapping[str, Any]) -> pl.DataFrame:
        likelihood = self.fit.model.likelihood
        row = {name: known[name] for name in ("AIC", "AICc", "BIC")}
        if self.estimate.method == "REML":
            row["REMLcrit"] = known["deviance"]
        elif likelihood.family.has_scale:
            row["deviance"] = known["deviance"]
        else:  # R's deviance() of a glmer fit is that given the random effects
            row["deviance"] = likelihood.deviance(likelihood.link.inverse(self.estimate.eta))
        row |= {name: known[name] for name in ("df_residual", "logLik", "nobs")}
        return pl.DataFrame([{**row, "sigma": known.get("sigma", 1.0)}])

    @cached_property
    def ranef(self) -> Levels:
        """Random effects, ``level`` and a column for each term."""
        return self._by_level(ranef(self.fit))

    @cached_property
    def fixef(self) -> Levels:
        """Coefficients of every level, ``level`` and a column for each term."""
        return self._by_level(coef(self.fit))

    def _by_level(self, long: Table) -> Levels:
        wide: dict[str, pl.DataFrame] = {}
        for (group,), part in long.group_by(["group"], maintain_order=True):
            frame = pl.DataFrame(part).pivot(
                "term", index="level", values="estimate", maintain_order=True
            )
            numbers = pl.exclude("level")
            wide[str(group)] = frame.with_columns(numbers.exp()) if self.exponentiate else frame
        return next(iter(wide.values())) if len(wide) == 1 else wide

    @cached_property
    def ranef_var(self) -> pl.DataFrame:
        """``group, term, estimate, conf_low, conf_high``; intervals are null, as in pymer4."""
        found: list[tuple[tuple[int, int, int], dict[str, Any]]] = []
        rows = list(varcorr(self.fit).iter_rows(named=True))
        groups = list(dict.fromkeys(row["group"] for row in rows))
        for row in rows:
            group = groups.index(row["group"])
            if row["kind"] == "residual":
                found.append(((group, 0, 0), {"term": "sd__Observation", **row}))
                continue
            of_group = [r["term"] for r in rows if r["group"] == row["group"] and r["kind"] == "sd"]
            i = of_group.index(row["term"])
            j = i if row["kind"] == "sd" else of_group.index(row["term2"])
            name = f"sd__{row['term']}" if i == j else f"cor__{row['term']}.{row['term2']}"
            found.append(((group, i, j), {**row, "term": name}))
        found.sort(key=lambda pair: pair[0])
        missing = pl.Series([None] * len(found), dtype=pl.Float64)
        return pl.DataFrame(
            {
                "group": [row["group"] for _, row in found],
                "term": ["sd__Observation" if r["term"] is None else r["term"] for _, r in found],
                "estimate": [row["estimate"] for _, row in found],
                "conf_low": missing,
                "conf_high": missing,
            }
        )

    @cached_property
    def appended(self) -> pl.DataFrame:
        """``fitted`` and ``resid`` (deviance residuals of generalised models), in data order."""
        design, likelihood = self.fit.model.design, self.fit.model.likelihood
        mu = likelihood.link.inverse(self.estimate.eta)
        resid = likelihood.y - mu
        if not self.plain:
            unit = likelihood.family.unit_deviance(likelihood.y, mu)
            resid = np.sign(resid) * np.sqrt(np.maximum(likelihood.w * unit, 0.0))
        shown = mu if self.type_predict == "response" else self.estimate.eta
        whole = np.full((2, design.n_rows), np.nan)
        whole[:, design.rows] = shown, resid
        frame = pl.DataFrame({"fitted": whole[0], "resid": whole[1]})
        return frame.fill_nan(None)

    def predict(self, data: object, use_rfx: bool, type_predict: Scale) -> np.ndarray[Any, Any]:
        """Predicted means, one for each row; NaN where a value is missing."""
        re: Literal["fitted", "zero"] = "fitted" if use_rfx else "zero"
        return predict(self.fit, data, type=type_predict, re=re)["estimate"].to_numpy()

    @property
    def convergence_status(self) -> str:
        """How the fit ended."""
        outcome = self.estimate.outcome
        text = f"converged: {outcome.converged} (largest gradient {outcome.gradient_norm:.1e})"
        return "\n".join([text, *outcome.notes])


def _linear_statistics(known: Mapping[str, Any]) -> pl.DataFrame:
    from scipy.stats import f

    df, rest = known["df_null"] - known["df_residual"], known["df_residual"]
    r_squared = 1.0 - known["deviance"] / known["null_deviance"]
    adjusted = 1.0 - (1.0 - r_squared) * known["df_null"] / rest
    statistic = (r_squared / df) / ((1.0 - r_squared) / rest) if df else None
    row = {
        "r_squared": r_squared,
        "adj_r_squared": adjusted,
        "sigma": known["sigma"],
        "statistic": statistic,
        "p_value": float(f.sf(statistic, df, rest)) if df else None,
        "df": float(df),
        **{
            name: known[name]
            for name in ("logLik", "AIC", "BIC", "deviance", "df_residual", "nobs")
        },
    }
    return pl.DataFrame([row])


def _generalised_statistics(known: Mapping[str, Any]) -> pl.DataFrame:
    names = ("AIC", "AICc", "BIC", "deviance", "df_null", "df_residual", "logLik", "nobs")
    row = {name: known[name] for name in (*names, "null_deviance")}
    return pl.DataFrame([{**row, "sigma": known.get("sigma", 1.0)}])


def _names(given: str | Sequence[str] | None) -> list[str]:
    return [] if given is None else [given] if isinstance(given, str) else list(given)


def _as_printed(frame: Table, first: Sequence[str]) -> Table:
    """Variables first, in the order asked for; factors as R's come over, as Categorical."""
    order = [*first, *(c for c in frame.columns if c not in first)]
    out = frame.select(order).with_columns(pl.col(pl.Enum).cast(pl.Categorical))
    if "null" in out.columns:
        # Ratios reach pymer4 by another road than differences: their label is a factor.
        out = out.with_columns(pl.col("contrast").cast(pl.Categorical))
    return table(out.to_dict(), frame.caption)


def means(
    fit: Fit,
    marginal_var: str | Sequence[str],
    by: str | Sequence[str] | None,
    p_adjust: str | None,
    type: Scale,
    contrasts: str | Mapping[str, Sequence[float]] | None,
    at: Mapping[str, object],
) -> Table:
    """Means of a factor or slopes of a covariate, and contrasts of them."""
    adjust = "none" if p_adjust is None else _ADJUST.get(p_adjust, p_adjust)
    variables, strata = _names(marginal_var), _names(by)
    numeric = [name for name in variables if name in fit.model.design.fixed.covariates]
    if numeric and len(variables) > 1:
        raise ChoiceError(
            f"marginal_var={variables!r}: {', '.join(numeric)} is numeric; give one numeric "
            "variable for its slope, or factors for their means (by= takes the rest)"
        )
    first = ["contrast"] if contrasts is not None else list(variables)
    if numeric:
        trends = marginal.emtrends(
            fit, numeric[0], by=strata, at=at, contrasts=contrasts, adjust=adjust
        )
        return _as_printed(trends, strata if contrasts is None else first)
    found = marginal.emmeans(
        fit, variables, by=strata, at=at, contrasts=contrasts, type=type, adjust=adjust
    )
    return _as_printed(found, [*first, *strata])


def empredict(fit: Fit, at: Mapping[str, object], type: Scale) -> Table:
    """The model's reference grid: predictions at every combination of its variables."""
    names = list(fit.model.design.fixed.columns)
    found = marginal.emmeans(fit, names, at=at, type=type, adjust="none")
    renamed = found.rename({"emmean": "prediction"}, strict=False)
    caption = found.caption.replace("Marginal means", "Predictions", 1)
    return _as_printed(table(renamed.to_dict(), caption), names)
