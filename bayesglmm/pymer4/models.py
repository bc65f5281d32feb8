"""lm, glm, lmer and glmer as pymer4 has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bayesglmm.errors import check_choice
from bayesglmm.laplace import ML
from bayesglmm.post.bootstrap import bootstrap
from bayesglmm.post.confint import confint
from bayesglmm.pymer4.base import Model, Weights, check_method
from bayesglmm.pymer4.columns import hinted
from bayesglmm.pymer4.comparison import compare
from bayesglmm.pymer4.results import CONF_TYPES, NotFittedError, Scale

__all__ = ["compare", "glm", "glmer", "lm", "lmer"]

ConfMethod = Literal["wald", "satterthwaite"]
MixedConfMethod = Literal["wald", "satterthwaite", "boot", "profile"]
ConfType = Literal["perc", "norm", "basic"]


class lm(Model):
    """Linear model by least squares.

    Parameters
    ----------
    formula
        As in R.
    data
        A polars, pandas or pyarrow frame; it is never changed.
    weights
        Column name or one number for each row.

    Examples
    --------
    >>> from bayesglmm.pymer4 import lm, load_dataset
    >>> model = lm("sales ~ tv", data=load_dataset("advertising"))
    >>> model.fit()
    >>> model.result_fit_stats["r_squared"].round(4).item()
    0.6119
    """

    kind = "lm"
    mixed = False

    @hinted
    def __init__(self, formula: str, data: object, weights: Weights = None) -> None:
        super().__init__(formula, data, None, "default", weights)

    @hinted
    def fit(
        self,
        summary: bool = False,
        conf_method: ConfMethod = "wald",
        exponentiate: bool = False,
        verbose: bool = True,
    ) -> Any:
        """Fit the model; ``summary=True`` returns its summary table."""
        check_method(conf_method, ("wald",))
        return self._fit(ML(), summary, exponentiate, "response", verbose)

    @hinted
    def predict(self, data: object) -> NDArray[np.float64]:
        """Predicted means for the rows of ``data``."""
        return self._done("predict()").predict(data, True, "response")

    @hinted
    def simulate(self, nsim: int = 1, seed: int | None = None) -> pl.DataFrame:
        """Responses simulated from the fit, in columns ``sim_1``, ``sim_2``, ..."""
        return self._simulate(nsim, seed, True)


class glm(Model):
    """Generalised linear model by maximum likelihood.

    Parameters
    ----------
    formula, data, weights
        As for :class:`lm`; binomial weights are numbers of trials, as in R.
    family, link
        ``"gaussian"``, ``"binomial"``, ``"poisson"``, and a link or ``"default"``.

    Examples
    --------
    >>> from bayesglmm.pymer4 import glm, load_dataset
    >>> model = glm("survived ~ sex", data=load_dataset("titanic"), family="binomial")
    >>> model.fit()
    >>> model.emmeans("sex")["prob"].round(3).to_list()
    [0.742, 0.189]
    """

    kind = "glm"
    mixed = False

    @hinted
    def __init__(
        self,
        formula: str,
        data: object,
        family: str = "gaussian",
        link: str = "default",
        weights: Weights = None,
    ) -> None:
        super().__init__(formula, data, family, link, weights)

    @hinted
    def fit(
        self,
        summary: bool = False,
        conf_method: ConfMethod = "wald",
        exponentiate: bool = False,
        type_predict: Scale = "response",
        verbose: bool = True,
    ) -> Any:
        """Fit the model; ``exponentiate=True`` shows odds or rate ratios."""
        check_method(conf_method, ("wald",))
        return self._fit(ML(), summary, exponentiate, type_predict, verbose)

    @hinted
    def predict(self, data: object, type_predict: Scale = "response") -> NDArray[np.float64]:
        """Predicted means for the rows of ``data``."""
        return self._done("predict()").predict(data, True, type_predict)

    @hinted
    def simulate(self, nsim: int = 1, seed: int | None = None) -> pl.DataFrame:
        """Responses simulated from the fit, in columns ``sim_1``, ``sim_2``, ..."""
        return self._simulate(nsim, seed, True)


class _Mixed(Model):
    """What only models with random effects have."""

    mixed = True

    @property
    def ranef(self) -> pl.DataFrame | dict[str, pl.DataFrame]:
        """Random effects: ``level`` and a column a term; by factor when there are several."""
        return self._done("ranef").ranef

    @property
    def fixef(self) -> pl.DataFrame | dict[str, pl.DataFrame]:
        """Coefficients of every level (lme4's ``coef``), laid out like :attr:`ranef`."""
        return self._done("fixef").fixef

    @property
    def ranef_var(self) -> pl.DataFrame:
        """Standard deviations and correlations: ``group, term, estimate, conf_low, conf_high``.

        The intervals are null unless ``conf_method="boot"``.
        """
        return self._done("ranef_var").ranef_var

    @property
    def result_boots(self) -> pl.DataFrame:
        """The refits of ``fit(conf_method="boot")``, one a row, a column for each parameter."""
        results = self._done("result_boots")
        if results.boots is None:
            raise NotFittedError(f"{self.kind}: call .fit(conf_method='boot') first")
        return results.result_boots

    @hinted
    def simulate(
        self, nsim: int = 1, use_rfx: bool = True, seed: int | None = None
    ) -> pl.DataFrame:
        """Responses simulated from the fit, in columns ``sim_1``, ``sim_2``, ...

        Parameters
        ----------
        nsim
            Number of simulations.
        use_rfx
            Whether to keep the random effects of the fit; else they are drawn anew.
        seed
            Makes them reproducible.
        """
        return self._simulate(nsim, seed, use_rfx)

    def _fit_mixed(
        self,
        estimator: ML,
        conf_method: str,
        boot: tuple[int, str, int | None],
        summary: bool,
        exponentiate: bool,
        type_predict: Scale,
        verbose: bool,
    ) -> Any:
        """Fit, and bootstrap where that is asked for; ``boot`` is nboot, conf_type and seed."""
        nboot, conf_type, seed = boot
        check_choice("conf_type", conf_type, tuple(CONF_TYPES))
        self._fit(estimator, False, exponentiate, type_predict, verbose)
        results = self._done("fit()")
        if conf_method == "boot":
            boots = bootstrap(results.fit, nboot, seed=seed, progress=verbose)
            found = boots.confint(kind=CONF_TYPES[conf_type])
            self._results = replace(results, intervals=found, boots=boots, conf_type=conf_type)
        elif conf_method == "profile":
            self._results = replace(results, intervals=confint(results.fit, "profile"))
        return self.summary() if summary else None


class lmer(_Mixed):
    """Linear mixed model by REML or maximum likelihood.

    Parameters
    ----------
    formula
        As in lme4.
    data, weights
        As for :class:`lm`.
    REML
        Restricted maximum likelihood, the default.

    Examples
    --------
    >>> from bayesglmm.pymer4 import lmer, load_dataset
    >>> model = lmer("Reaction ~ Days + (Days | Subject)", data=load_dataset("sleep"))
    >>> model.fit()
    >>> model.ranef_var["term"].to_list()
    ['sd__(Intercept)', 'cor__(Intercept).Days', 'sd__Days', 'sd__Observation']
    """

    kind = "lmer"

    @hinted
    def __init__(
        self, formula: str, data: object, weights: Weights = None, REML: bool = True
    ) -> None:
        self.REML = REML
        super().__init__(formula, data, None, "default", weights)

    @hinted
    def fit(
        self,
        summary: bool = False,
        conf_method: MixedConfMethod = "satterthwaite",
        exponentiate: bool = False,
        REML: bool | None = None,
        verbose: bool = True,
        nboot: int = 1000,
        conf_type: ConfType = "perc",
        seed: int | None = None,
    ) -> Any:
        """Fit the model.

        Parameters
        ----------
        summary
            Return the summary table.
        conf_method
            ``"satterthwaite"`` degrees of freedom, or ``"wald"`` for normal intervals (infinite
            df; pymer4 takes n - p - 1 here), or ``"boot"`` for intervals by the parametric
            bootstrap, or ``"profile"`` from the profile likelihood (not in pymer4), those of
            :attr:`ranef_var` included (df and p values: satterthwaite).
        exponentiate
            Show exp(coefficient).
        REML
            None: as given when the model was made.
        verbose
            Warn about singular fits and the like, and show the progress of the bootstrap.
        nboot, conf_type, seed
            Of the bootstrap: number of refits, ``"perc"``, ``"norm"`` or ``"basic"`` intervals,
            and a whole number that makes it reproducible.
        """
        check_method(conf_method, ("satterthwaite", "wald", "boot", "profile"))
        reml = self.REML if REML is None else REML
        df: Any = "asymptotic" if conf_method == "wald" else "satterthwaite"
        return self._fit_mixed(
            ML(reml=reml, df=df),
            conf_method,
            (nboot, conf_type, seed),
            summary,
            exponentiate,
            "response",
            verbose,
        )

    @hinted
    def predict(self, data: object, use_rfx: bool = True) -> NDArray[np.float64]:
        """Predicted means: for the groups in ``data``, or (False) random effects at zero."""
        return self._done("predict()").predict(data, use_rfx, "response")


class glmer(_Mixed):
    """Generalised linear mixed model by maximum likelihood (Laplace or quadrature).

    Parameters
    ----------
    formula, data, weights
        As for :class:`lmer`.
    family, link
        As for :class:`glm`.
    nAGQ
        1 for the Laplace approximation, more for adaptive Gauss-Hermite quadrature.

    Examples
    --------
    >>> from bayesglmm.pymer4 import glmer, load_dataset
    >>> titanic = load_dataset("titanic")
    >>> model = glmer("survived ~ sex + (1 | pclass)", data=titanic, family="binomial")
    >>> model.fit(exponentiate=True)
    >>> model.ranef["(Intercept)"].round(3).to_list()
    [2.414, 1.083, 0.384]
    """

    kind = "glmer"

    @hinted
    def __init__(
        self,
        formula: str,
        data: object,
        family: str = "gaussian",
        link: str = "default",
        weights: Weights = None,
        nAGQ: int = 1,
    ) -> None:
        self.nAGQ = nAGQ
        super().__init__(formula, data, family, link, weights)

    @hinted
    def fit(
        self,
        summary: bool = False,
        conf_method: MixedConfMethod = "wald",
        exponentiate: bool = False,
        type_predict: Scale = "response",
        nAGQ: int | None = None,
        verbose: bool = True,
        nboot: int = 1000,
        conf_type: ConfType = "perc",
        seed: int | None = None,
    ) -> Any:
        """Fit the model; ``exponentiate=True`` shows odds or rate ratios, levels included.

        ``conf_method="boot"`` and its arguments are those of :meth:`lmer.fit`.
        """
        check_method(conf_method, ("wald", "boot", "profile"))
        nodes = self.nAGQ if nAGQ is None else nAGQ
        # A Gaussian glmer with the identity link is an lmer, in R too, REML included.
        linear = self.family == "gaussian" and self.link in ("default", "identity")
        return self._fit_mixed(
            ML(nagq=nodes, reml=linear),
            conf_method,
            (nboot, conf_type, seed),
            summary,
            exponentiate,
            type_predict,
            verbose,
        )

    @hinted
    def predict(
        self, data: object, use_rfx: bool = True, type_predict: Scale = "response"
    ) -> NDArray[np.float64]:
        """Predicted means: for the groups in ``data``, or (False) random effects at zero."""
        return self._done("predict()").predict(data, use_rfx, type_predict)
