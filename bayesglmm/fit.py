"""A fitted model. Every method here is one line: the work is in `bayesglmm.post`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from bayesglmm.errors import ChoiceError, named_arguments
from bayesglmm.model import Estimator, Model
from bayesglmm.posterior.ml import MLPosterior
from bayesglmm.posterior.sampled import SampledPosterior

if TYPE_CHECKING:
    from bayesglmm.api import ColumnOrValues
    from bayesglmm.approximate import LaplaceDiagnostics
    from bayesglmm.laplace import Outcome
    from bayesglmm.nuts import Diagnostics
    from bayesglmm.post.bootstrap import Bootstrap
    from bayesglmm.post.confint import Method
    from bayesglmm.post.emmeans import Means
    from bayesglmm.post.influence import Influence
    from bayesglmm.post.loo import Loo
    from bayesglmm.post.predictive import Known, Predictive
    from bayesglmm.post.profile import Profile
    from bayesglmm.post.residuals import Type
    from bayesglmm.post.summary import Summary
    from bayesglmm.post.variances import Distribution
    from bayesglmm.tables.table import Table


@dataclass(frozen=True, eq=False)
class Fit:
    """A model and what an estimator learned of it.

    Attributes
    ----------
    model
        What was fitted.
    estimator
        How: :class:`bayesglmm.ML`, :class:`bayesglmm.Laplace` or :class:`bayesglmm.NUTS`.
    posterior
        What is known of the parameters: estimates with covariance, or draws.
    """

    model: Model
    estimator: Estimator
    posterior: MLPosterior | SampledPosterior

    @property
    def method(self) -> str:
        """How the numbers were got, e.g. ``"ML-Laplace"``."""
        return self.posterior.method

    @property
    def params(self) -> Table:
        """Population-level coefficients; see :func:`bayesglmm.params`."""
        from bayesglmm.post.tables import params

        return params(self)

    @property
    def param_values(self) -> dict[str, float | dict[tuple[str, str], float]]:
        """Estimates by name, to simulate from; see :func:`bayesglmm.param_values`."""
        from bayesglmm.post.parameters import param_values

        return param_values(self)

    @property
    def fixef(self) -> Table:
        """The same as :attr:`params`, by lme4's name."""
        return self.params

    @property
    def ranef(self) -> Table:
        """Random effects of every level; see :func:`bayesglmm.ranef`."""
        from bayesglmm.post.tables import ranef

        return ranef(self)

    @property
    def ranef_vcov(self) -> Table:
        """Covariances of the random effects; see :func:`bayesglmm.ranef_vcov`."""
        from bayesglmm.post.tables import ranef_vcov

        return ranef_vcov(self)

    @property
    def coef(self) -> Table:
        """Coefficients of every level; see :func:`bayesglmm.coef`."""
        from bayesglmm.post.tables import coef

        return coef(self)

    @property
    def varcorr(self) -> Table:
        """Standard deviations and correlations; see :func:`bayesglmm.varcorr`."""
        from bayesglmm.post.tables import varcorr

        return varcorr(self)

    @property
    def statistics(self) -> Table:
        """logLik, AIC, BIC, deviance of an ML fit; see :func:`bayesglmm.statistics`."""
        from bayesglmm.post.statistics import statistics

        return statistics(self)

    def summary(self, *, level: float = 0.95, exponentiate: bool = False) -> Summary:
        """Everything at a glance, as text and in a notebook; see :func:`bayesglmm.summary`."""
        from bayesglmm.post.summary import summary

        return summary(self, level=level, exponentiate=exponentiate)

    def emmeans(
        self,
        specs: str | Sequence[str],
        *,
        by: str | Sequence[str] = (),
        at: Mapping[str, Any] | None = None,
        contrasts: str | Mapping[str, Sequence[float]] | None = None,
        type: Literal["response", "link"] = "response",
        adjust: str = "default",
        level: float = 0.95,
    ) -> Means:
        """Estimated marginal means and contrasts; see :func:`bayesglmm.emmeans`."""
        from bayesglmm.post.emmeans import emmeans

        return emmeans(
            self, specs, by=by, at=at, contrasts=contrasts, type=type, adjust=adjust, level=level
        )

    def emtrends(
        self,
        variable: str,
        *,
        by: str | Sequence[str] = (),
        at: Mapping[str, Any] | None = None,
        contrasts: str | Mapping[str, Sequence[float]] | None = None,
        adjust: str = "default",
        level: float = 0.95,
    ) -> Means:
        """Slopes of a covariate, averaged like marginal means; see :func:`bayesglmm.emtrends`."""
        from bayesglmm.post.emmeans import emtrends

        return emtrends(
            self, variable, by=by, at=at, contrasts=contrasts, adjust=adjust, level=level
        )

    def predict(
        self,
        newdata: object = None,
        *,
        type: Literal["response", "link"] = "response",
        re: Literal["fitted", "zero"] = "fitted",
        level: float = 0.95,
    ) -> Table:
        """Predictions with intervals; see :func:`bayesglmm.predict`."""
        from bayesglmm.post.predict import predict

        return predict(self, newdata, type=type, re=re, level=level)

    def anova(
        self,
        *others: Fit,
        type: Literal["I", "II", "III"] = "III",
        test: Literal["auto", "F", "wald", "lrt"] = "auto",
        refit: bool = True,
    ) -> Table:
        """Tests of the terms, or of nested fits against each other; see :func:`bayesglmm.anova`."""
        from bayesglmm.post.anova import anova

        return anova(self, *others, type=type, test=test, refit=refit)

    def drop1(self, test: Literal["lrt", "F"] = "lrt") -> Table:
        """Tests of every term that can be left out; see :func:`bayesglmm.drop1`."""
        from bayesglmm.post.anova import drop1

        return drop1(self, test)

    def wald_test(
        self,
        hypotheses: str | Sequence[str] | ArrayLike,
        *,
        rhs: ArrayLike = 0.0,
        test: Literal["auto", "F", "wald"] = "auto",
    ) -> Table:
        """Joint test of linear hypotheses; see :func:`bayesglmm.wald_test`."""
        from bayesglmm.post.linear_hypothesis import wald_test

        return wald_test(self, hypotheses, rhs=rhs, test=test)

    def simulate(
        self,
        nsim: int = 1,
        *,
        seed: int | None = None,
        re: Literal["new", "fitted", "zero"] = "new",
    ) -> Table:
        """Responses simulated from the fit; see :func:`bayesglmm.simulate`."""
        from bayesglmm.post.simulate import simulate

        return simulate(self, nsim, seed=seed, re=re)

    def posterior_predictive(
        self,
        draws: int = 1000,
        *,
        newdata: object = None,
        re: Known = "fitted",
        trials: ColumnOrValues = "",
        weights: ColumnOrValues = "",
        seed: int | None = None,
    ) -> Predictive:
        """Responses that the fit expects; see :func:`bayesglmm.posterior_predictive`."""
        from bayesglmm.post.predictive import posterior_predictive

        return posterior_predictive(
            self, draws, newdata=newdata, re=re, trials=trials, weights=weights, seed=seed
        )

    def pp_check(self, draws: int = 50, *, seed: int | None = None) -> Any:
        """The data over posterior predictive draws, as a matplotlib Figure."""
        return self.posterior_predictive(draws, seed=seed).plot()

    def hypothesis(self, hypotheses: str | Sequence[str], *, level: float = 0.95) -> Table:
        """Evidence for statements such as "x < 0"; see :func:`bayesglmm.hypothesis`."""
        from bayesglmm.post.hypothesis import hypothesis

        return hypothesis(self, hypotheses, level=level)

    def prior_sensitivity(self) -> Table:
        """Sensitivity to priors and likelihood; see :func:`bayesglmm.prior_sensitivity`."""
        from bayesglmm.post.sensitivity import prior_sensitivity

        return prior_sensitivity(self)

    def refit(self, y: Sequence[Any] | NDArray[Any] | pl.Series) -> Fit:
        """The same model fitted to another response; see :func:`bayesglmm.refit`."""
        from bayesglmm.post.refit import refit

        return refit(self, y)

    def bootstrap(
        self,
        nsim: int = 1000,
        *,
        seed: int | None = None,
        statistic: Callable[[Fit], Any] | None = None,
        executor: Executor | None = None,
        progress: bool = True,
        re: Literal["new", "fitted", "zero"] = "new",
    ) -> Bootstrap:
        """Parametric bootstrap of an ML fit; see :func:`bayesglmm.bootstrap`."""
        from bayesglmm.post.bootstrap import bootstrap

        return bootstrap(
            self,
            nsim,
            seed=seed,
            statistic=statistic,
            executor=executor,
            progress=progress,
            re=re,
        )

    def residuals(
        self,
        type: Type = "pearson",
        *,
        scale: Literal["none", "sigma", "leverage"] = "none",
        seed: int = 0,
    ) -> Table:
        """Residuals of every row of the data; see :func:`bayesglmm.residuals`."""
        from bayesglmm.post.residuals import residuals

        return residuals(self, type, scale=scale, seed=seed)

    def hatvalues(self) -> Table:
        """Diagonal of the hat matrix; see :func:`bayesglmm.hatvalues`."""
        from bayesglmm.post.leverage import hatvalues

        return hatvalues(self)

    def cooks_distance(self) -> Table:
        """Cook's distance of every row, by one step; see :func:`bayesglmm.cooks_distance`."""
        from bayesglmm.post.leverage import cooks_distance

        return cooks_distance(self)

    def overdispersion(self) -> Table:
        """Pearson's chi-square over its df; see :func:`bayesglmm.overdispersion`."""
        from bayesglmm.post.overdispersion import overdispersion

        return overdispersion(self)

    def vif(self) -> Table:
        """Variance-inflation factors of the terms; see :func:`bayesglmm.vif`."""
        from bayesglmm.post.collinearity import vif

        return vif(self)

    def caic(
        self,
        *,
        df: Literal["default", "corrected", "trace", "refits"] = "default",
        executor: Executor | None = None,
    ) -> Table:
        """Conditional AIC; see :func:`bayesglmm.caic`."""
        from bayesglmm.post.caic import caic

        return caic(self, df=df, executor=executor)

    def influence(self, group: str | None = None, *, executor: Executor | None = None) -> Influence:
        """Refits without each group, or each row; see :func:`bayesglmm.influence`."""
        from bayesglmm.post.influence import influence

        return influence(self, group, executor=executor)

    def r2(self, *, distribution: Distribution = "default", level: float = 0.95) -> Table:
        """Marginal and conditional R²; see :func:`bayesglmm.r2`."""
        from bayesglmm.post.r2 import r2

        return r2(self, distribution=distribution, level=level)

    def icc(self, *, distribution: Distribution = "default", level: float = 0.95) -> Table:
        """Intraclass correlations; see :func:`bayesglmm.icc`."""
        from bayesglmm.post.icc import icc

        return icc(self, distribution=distribution, level=level)

    def confint(
        self,
        method: Method = "default",
        *,
        level: float = 0.95,
        which: str | Sequence[str] | None = None,
        nsim: int = 1000,
        seed: int | None = None,
        executor: Executor | None = None,
        progress: bool = True,
    ) -> Table:
        """Intervals of every parameter; see :func:`bayesglmm.confint`."""
        from bayesglmm.post.confint import confint

        return confint(
            self,
            method,
            level=level,
            which=which,
            nsim=nsim,
            seed=seed,
            executor=executor,
            progress=progress,
        )

    def profile(self, which: str | Sequence[str] | None = None, *, level: float = 0.99) -> Profile:
        """The profile likelihood of an ML fit; see :func:`bayesglmm.profile`."""
        from bayesglmm.post.profile import profile

        return profile(self, which, level=level)

    def save(
        self, path: str | PathLike[str], *, data: bool = True, overwrite: bool = False
    ) -> Path:
        """Save the fit to one file for :func:`bayesglmm.load`; see :func:`bayesglmm.save`."""
        from bayesglmm.storage.save import save

        return save(self, path, data=data, overwrite=overwrite)

    @property
    def loglik(self) -> float:
        """Log-likelihood of an ML fit, all constants included (REML: the restricted one).

        Raises
        ------
        ChoiceError
            For a fit by NUTS.
        """
        return self._ml("loglik").estimate.loglik

    @property
    def outcome(self) -> Outcome:
        """How the optimisation of an ML fit ended."""
        return self._ml("outcome").estimate.outcome

    @property
    def diagnostics(self) -> Diagnostics | LaplaceDiagnostics:
        """How far to trust draws: convergence of a NUTS fit, k-hat of Laplace's approximation."""
        return self._draws("diagnostics").run.diagnostics

    @property
    def vcov(self) -> NDArray[np.float64]:
        """(p, p) covariance of the coefficients (of their draws for NUTS), link scale."""
        return self.posterior.beta.covariance()

    def to_arviz(self, *, log_likelihood: bool = False) -> Any:
        """The draws of a Bayesian fit as an ArviZ DataTree with named dims and coords.

        With ``log_likelihood`` it has that group too, (chain, draw, obs), as ``arviz.loo`` needs.
        """
        from bayesglmm.post.pointwise import with_log_likelihood

        tree = self._draws("to_arviz").run.tree
        return with_log_likelihood(self) if log_likelihood else tree

    def log_likelihood(self) -> NDArray[np.float64]:
        """Of every row and draw, (chains, draws, n); see :func:`bayesglmm.log_likelihood`."""
        from bayesglmm.post.pointwise import log_likelihood

        return log_likelihood(self)

    @named_arguments({"reloo": "write refit=True"})
    def loo(
        self,
        group: str | None = None,
        *,
        nodes: int | None = None,
        thin: int = 1,
        refit: bool = False,
    ) -> Loo:
        """Leave-one-out cross-validation of rows or groups; see :func:`bayesglmm.loo`."""
        from bayesglmm.post.loo import loo

        return loo(self, group, nodes=nodes, thin=thin, refit=refit)

    def marginal_likelihood(self, *, seed: int | None = None) -> Table:
        """Of a NUTS fit, by bridge sampling; see :func:`bayesglmm.marginal_likelihood`."""
        from bayesglmm.post.marginal_likelihood import marginal_likelihood

        return marginal_likelihood(self, seed=seed)

    def _ml(self, what: str) -> MLPosterior:
        if not isinstance(self.posterior, MLPosterior):
            raise ChoiceError(
                f"{what} belongs to an ML fit; this one is {self.method}. Use model.fit()."
            )
        return self.posterior

    def _draws(self, what: str) -> SampledPosterior:
        if not isinstance(self.posterior, SampledPosterior):
            raise ChoiceError(
                f"{what} belongs to a Bayesian fit; this one is {self.method}. "
                'Use model.fit("nuts") or model.fit("laplace").'
            )
        return self.posterior

    def __repr__(self) -> str:
        return self.summary().text()

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()
