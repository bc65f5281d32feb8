"""A fitted model. Every method here is one line: the work is in `bayesglmm.post`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bayesglmm.errors import ChoiceError
from bayesglmm.model import Estimator, Model
from bayesglmm.posterior.ml import MLPosterior
from bayesglmm.posterior.sampled import SampledPosterior

if TYPE_CHECKING:
    from bayesglmm.laplace import Outcome
    from bayesglmm.nuts import Diagnostics
    from bayesglmm.post.confint import Method
    from bayesglmm.post.emmeans import Means
    from bayesglmm.post.profile import Profile
    from bayesglmm.post.summary import Summary
    from bayesglmm.tables.table import Table


@dataclass(frozen=True, eq=False)
class Fit:
    """A model and what an estimator learned of it.

    Attributes
    ----------
    model
        What was fitted.
    estimator
        How: :class:`bayesglmm.ML` or :class:`bayesglmm.NUTS`.
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
    def fixef(self) -> Table:
        """The same as :attr:`params`, by lme4's name."""
        return self.params

    @property
    def ranef(self) -> Table:
        """Random effects of every level; see :func:`bayesglmm.ranef`."""
        from bayesglmm.post.tables import ranef

        return ranef(self)

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
        """Everything at a glance, as text and in a notebook."""
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

    def confint(
        self,
        method: Method = "default",
        *,
        level: float = 0.95,
        which: str | Sequence[str] | None = None,
        nsim: int = 1000,
        seed: int | None = None,
    ) -> Table:
        """Intervals of every parameter; see :func:`bayesglmm.confint`."""
        from bayesglmm.post.confint import confint

        return confint(self, method, level=level, which=which, nsim=nsim, seed=seed)

    def profile(self, which: str | Sequence[str] | None = None, *, level: float = 0.99) -> Profile:
        """The profile likelihood of an ML fit; see :func:`bayesglmm.profile`."""
        from bayesglmm.post.profile import profile

        return profile(self, which, level=level)

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
    def diagnostics(self) -> Diagnostics:
        """Convergence diagnostics of a NUTS fit, over all parameters."""
        return self._draws("diagnostics").run.diagnostics

    @property
    def vcov(self) -> NDArray[np.float64]:
        """(p, p) covariance of the coefficients (of their draws for NUTS), link scale."""
        return self.posterior.beta.covariance()

    def to_arviz(self) -> Any:
        """The draws of a NUTS fit as an ArviZ DataTree with named dims and coords."""
        return self._draws("to_arviz").run.tree

    def _ml(self, what: str) -> MLPosterior:
        if not isinstance(self.posterior, MLPosterior):
            raise ChoiceError(f"{what} belongs to an ML fit; this one is {self.method}")
        return self.posterior

    def _draws(self, what: str) -> SampledPosterior:
        if not isinstance(self.posterior, SampledPosterior):
            raise ChoiceError(
                f"{what} belongs to a fit by sampling; this one is {self.method}. "
                'Use model.fit("nuts").'
            )
        return self.posterior

    def __repr__(self) -> str:
        return self.summary().text()

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()
