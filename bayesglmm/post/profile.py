"""Profile likelihood: zeta curves of every parameter, and the intervals they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bayesglmm.errors import ChoiceError
from bayesglmm.laplace import ML, maximum_likelihood
from bayesglmm.laplace.covariance import Component
from bayesglmm.laplace.curve import (
    CORRELATION,
    NON_NEGATIVE,
    POSITIVE,
    REAL,
    UNDEFINED,
    Curve,
    Range,
    sd_range,
    trace,
)
from bayesglmm.post.check import check_fit
from bayesglmm.post.labels import Label, key_columns, labels, select
from bayesglmm.post.tables import check_level, scale
from bayesglmm.posterior.ml import MLPosterior
from bayesglmm.tables.table import Table, table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit

Array = NDArray[np.float64]

_AT_EDGE = 1e-12  # a correlation this near to +-1 is there
_ZERO = 1e-6  # an sd this small, per unit of what it adds to, is zero


@dataclass(frozen=True, slots=True)
class Profile:
    """What :func:`profile` returns.

    Attributes
    ----------
    fit
        The maximum-likelihood fit that was profiled; for a REML fit its refit by ML.
    labels
        The parameters.
    curves
        The curve of each.
    level
        Out to which probability the curves go.
    refitted
        Whether the fit given was by REML.
    """

    fit: Fit
    labels: tuple[Label, ...]
    curves: tuple[Curve, ...]
    level: float
    refitted: bool

    @property
    def zeta(self) -> Table:
        """The computed points: ``kind, group, term, term2, value, zeta``.

        ``value`` is on the link scale for coefficients, an sd or a correlation otherwise.
        """
        counts = [len(curve.values) for curve in self.curves]
        repeated = [v for v, n in zip(self.labels, counts, strict=True) for _ in range(n)]
        return table(
            {
                **key_columns(repeated),
                "value": np.concatenate([np.zeros(0), *(c.values for c in self.curves)]),
                "zeta": np.concatenate([np.zeros(0), *(c.zeta for c in self.curves)]),
            },
            f"Profile likelihood · {self._method} · zeta: signed root of the change in "
            f"-2 log-likelihood{self._scale}",
        )

    def confint(self, level: float = 0.95) -> Table:
        """Intervals: the values at which -2 log-likelihood has grown by the chi-square quantile.

        Parameters
        ----------
        level
            Probability of the intervals, at most that of the profile.

        Returns
        -------
        Table
            ``kind, group, term, term2, estimate, conf_low, conf_high``. An interval that
            reaches an end of the parameter's range (an sd of 0, a correlation of -1 or 1) ends
            there; a limit that the likelihood does not give is null, and the caption says why.

        Raises
        ------
        ChoiceError
            For a level beyond the profile's.
        """
        level = self._within(level)
        limits = np.array([c.limits(level) for c in self.curves]).reshape(-1, 2)
        numbers = {
            "estimate": np.array([c.estimate for c in self.curves]),
            "conf_low": limits[:, 0],
            "conf_high": limits[:, 1],
        }
        notes = [
            f"{label.name}: {note}"
            for label, curve in zip(self.labels, self.curves, strict=True)
            for note in _notes(curve, level)
        ]
        heading = (
            f"Confidence intervals · {self._method} · {100 * level:g}% profile-likelihood "
            f"interval{self._scale}"
        )
        return table(
            {
                **key_columns(self.labels),
                **{k: pl.Series(v, dtype=pl.Float64) for k, v in numbers.items()},
            },
            "\n".join([heading, *notes]),
        )

    @property
    def _method(self) -> str:
        if self.refitted:
            return "ML (refitted: restricted likelihoods cannot be profiled)"
        sigma = not self.fit.model.design.random and any(v.kind == "residual" for v in self.labels)
        return self.fit.method + (" (residual sd: divisor n)" if sigma else "")

    @property
    def _scale(self) -> str:
        shown = any(label.kind == "coef" for label in self.labels)
        return f" · coefficients: {scale(self.fit)}" if shown else ""

    def plot(self, level: float = 0.95) -> Any:
        """The zeta curves with the interval marked; returns a matplotlib Figure."""
        from bayesglmm.plots.profile import plot_profile

        return plot_profile(self, self._within(level))

    def _within(self, level: float) -> float:
        level = check_level(level)
        if level > self.level:
            raise ChoiceError(
                f"level={level!r}: the profile goes out to {self.level:g}; make it with "
                f"profile(fit, level={level!r})"
            )
        return level

    def __repr__(self) -> str:
        return str(self.confint(min(0.95, self.level)))

    def _repr_html_(self) -> str:
        return self.confint(min(0.95, self.level))._repr_html_()


def profile(fit: Fit, which: str | Sequence[str] | None = None, *, level: float = 0.99) -> Profile:
    """Profile the likelihood of a fit (lme4's ``profile``).

    For each parameter, zeta is the signed root of the change in -2 log-likelihood when the
    parameter is held at a value and all others are estimated again. Where zeta is a straight
    line, Wald intervals are right; where it bends, intervals from the profile are better. The
    profile of an sd shows whether zero is compatible with the data; there the chi-square
    quantile is conservative (Self & Liang 1987, doi:10.1080/01621459.1987.10478472).

    Parameters
    ----------
    fit
        By maximum likelihood, Laplace or quadrature (as the fit was). A REML fit is refitted by
        ML, as in lme4: restricted likelihoods with a coefficient held are not comparable.
    which
        Kinds (``"coef"``, ``"sd"``, ``"corr"``, ``"residual"``) or names (``"Days"``,
        ``"sd Days | Subject"``) of parameters; None for all.
    level
        Out to which probability the curves go.

    Returns
    -------
    Profile
        With the curves ``.zeta``, ``.confint(level)`` and ``.plot()``.

    Raises
    ------
    ChoiceError
        For a fit by sampling, an unknown parameter, an impossible level.
    FitError
        If a higher likelihood than the fit's is found.

    References
    ----------
    Bates, Maechler, Bolker & Walker (2015), section 5.1, doi:10.18637/jss.v067.i01; Venzon &
    Moolgavkar (1988), doi:10.2307/2347496.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> m = bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy"))
    >>> bg.profile(m.fit(), "sd").confint()["conf_low"].round(2).to_list()
    [14.38, 3.8]
    """
    from bayesglmm.laplace.surface import threads  # compiled: imported when it is needed

    check_fit(fit, "profile")
    level = check_level(level)
    if not isinstance(fit.posterior, MLPosterior) or not isinstance(fit.estimator, ML):
        raise ChoiceError(
            f"profile needs a fit by maximum likelihood; this one is {fit.method}, whose intervals "
            "come from its draws: confint(fit). Use profile(model.fit())."
        )
    every = labels(fit.model)
    chosen = [every[k] for k in select(every, which)]
    ml = _by_ml(fit)
    assert isinstance(ml.posterior, MLPosterior)
    curves = _mixed if ml.model.design.random else _without_effects
    with threads(ml.model.design):
        drawn = tuple(curves(ml, ml.posterior, chosen, level))
    return Profile(ml, tuple(chosen), drawn, level, ml is not fit)


def _by_ml(fit: Fit) -> Fit:
    """The fit, or if it is by REML that by ML."""
    estimator, model = fit.estimator, fit.model
    if isinstance(estimator, ML) and estimator.nagq == 0:
        raise ChoiceError(
            "a fit with nagq=0 does not maximise a likelihood in the coefficients, so there is no "
            "profile of it; fit with nagq=1"
        )
    if not (isinstance(estimator, ML) and estimator.reml):
        return fit
    by_ml = replace(estimator, reml=False)
    estimate = maximum_likelihood(model.design, model.likelihood, by_ml)
    return replace(fit, estimator=by_ml, posterior=MLPosterior(model.design, estimate))


def _mixed(fit: Fit, posterior: MLPosterior, chosen: Sequence[Label], level: float) -> list[Curve]:
    from bayesglmm.laplace.restricted import (
        Fitted,
        Maximum,
        hold_coefficient,
        hold_component,
        hold_residual,
    )

    model, at = fit.model, posterior.estimate
    assert isinstance(fit.estimator, ML)
    fitted = Fitted(model.design, model.likelihood, fit.estimator.nagq, at)
    parts = [label.at for label in labels(model) if isinstance(label.at, Component)]
    units = np.array([at.relative_to / _rms(model.design, part) for part in parts])
    values = _settled(parts, at.component_values, units)
    spreads = np.sqrt(np.diag(at.component_cov))

    def curve(label: Label) -> Curve:
        what, over = label.at, REAL
        if what is None:
            held, estimate, over = hold_residual(fitted), at.sigma, POSITIVE
            spread = float(np.sqrt(0.5 / model.design.n))
        elif isinstance(what, int):
            held, estimate = hold_coefficient(fitted, what), float(at.beta[what])
            spread = _spread(posterior, what)
        else:
            k = parts.index(what)
            estimate, spread = float(values[k]), float(spreads[k])
            if np.isnan(estimate):
                return UNDEFINED
            held = hold_component(fitted, what)
            if what.kind == "sd":
                over, spread = _sd_coordinate(estimate, spread, float(units[k]))
            else:
                over = CORRELATION
                spread = spread * (1.0 - estimate**2) if np.isfinite(spread) else 0.3
        return trace(Maximum(held, estimate), estimate, spread, over, level)

    return [curve(label) for label in chosen]


def _settled(parts: Sequence[Component], values: Array, units: Array) -> Array:
    """Sds and correlations, exact at their boundaries; NaN for a correlation without an sd."""
    out = np.array(values[: len(parts)])
    out[[p.kind == "sd" and v < _ZERO * u for p, v, u in zip(parts, out, units, strict=True)]] = 0.0
    gone = {(p.term, p.row) for p, v in zip(parts, out, strict=True) if p.kind == "sd" and v == 0.0}
    for k, part in enumerate(parts):
        if part.kind == "corr":
            if {(part.term, part.row), (part.term, part.column)} & gone:
                out[k] = np.nan
            elif abs(out[k]) > 1.0 - _AT_EDGE:
                out[k] = np.sign(out[k])
    return out


def _without_effects(
    fit: Fit, posterior: MLPosterior, chosen: Sequence[Label], level: float
) -> list[Curve]:
    """Models without random effects: every point is a fit of the model without the column."""
    from bayesglmm.laplace.surface import without_effects

    design, likelihood, at = fit.model.design, fit.model.likelihood, posterior.estimate

    def coefficient(column: int) -> Curve:
        x, rest = design.X[:, column], np.delete(design.X, column, axis=1)

        def refitted(value: float) -> float:
            return without_effects(rest, design.offset + value * x, likelihood)

        return trace(refitted, float(at.beta[column]), _spread(posterior, column), REAL, level)

    def residual() -> Curve:
        def loglik(sigma: float) -> float:  # the coefficients do not depend on sigma
            return float(np.sum(likelihood.log_density(at.eta, sigma)))

        deviance = likelihood.deviance(likelihood.link.inverse(at.eta))
        sigma = float(np.sqrt(deviance / design.n))
        return trace(loglik, sigma, float(np.sqrt(0.5 / design.n)), POSITIVE, level)

    return [coefficient(v.at) if isinstance(v.at, int) else residual() for v in chosen]


def _spread(posterior: MLPosterior, column: int) -> float:
    """A standard error; where there is none (separation) the size of the estimate, roughly."""
    variance = posterior.estimate.vcov[column, column]
    x = posterior.design.X[:, column]
    unit = 1.0 / float(np.sqrt(np.mean(x * x)))
    if np.isfinite(variance) and variance > 0.0:
        return float(np.sqrt(variance))
    return max(unit, abs(float(posterior.estimate.beta[column])))


def _rms(design: Any, part: Component) -> float:
    """Size of the covariate of a random effect."""
    z = design.random[part.term].Z[:, part.row]
    return float(np.sqrt(np.mean(z * z))) or 1.0


def _sd_coordinate(estimate: float, spread: float, unit: float) -> tuple[Range, float]:
    """Coordinate and spread in it of an sd, from the spread of its logarithm."""
    if np.isfinite(spread) and 0.0 < spread < 1.0:
        return sd_range(estimate), spread
    return NON_NEGATIVE, 0.3 * unit  # at its boundary or near it: the sd itself


def _notes(curve: Curve, level: float) -> list[str]:
    """Why a limit is missing, in words."""
    if np.isnan(curve.estimate):
        return ["not identified, because an sd is zero; no interval"]
    reasons = {
        "flat": "the likelihood levels off, so that no value is ruled out",
        "undefined": "the likelihood cannot be computed that far",
    }
    return [
        f"no {side} limit: {reasons[end]} (|zeta| up to {abs(zeta):.2f})"
        for side, limit, end, zeta in zip(
            ("lower", "upper"), curve.limits(level), curve.ends, curve.zeta[[0, -1]], strict=True
        )
        if np.isnan(limit)
    ]
