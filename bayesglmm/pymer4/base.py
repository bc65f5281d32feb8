"""What every model of the facade does: it is set up, fitted and asked."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bayesglmm import api
from bayesglmm.errors import BayesglmmWarning, ChoiceError, check_choice
from bayesglmm.fit import Fit
from bayesglmm.formula import parse
from bayesglmm.formula.tokens import tokenize
from bayesglmm.laplace import ML
from bayesglmm.model import Model as Specification
from bayesglmm.pymer4.columns import Columns, hinted
from bayesglmm.pymer4.results import NotFittedError, Results, Scale, empredict, means
from bayesglmm.pymer4.tables import Text, report, summary_table, summary_text
from bayesglmm.tables.table import Table

__all__ = ["Model", "Weights", "check_method"]

Weights = str | Sequence[float] | NDArray[np.float64] | None


class Model(Columns):
    """What the four kinds of model share.

    Attributes
    ----------
    formula
        Without its spaces, as pymer4 shows it.
    family, link
        As given; ``family`` is None for linear models.
    weights
        As given.
    fitted
        Whether there is a fit of the model as it stands.
    """

    kind: ClassVar[str]
    mixed: ClassVar[bool]

    def __init__(
        self, formula: str, data: object, family: str | None, link: str, weights: Weights
    ) -> None:
        super().__init__(data)
        parse(formula)  # what cannot be read is better told now than at fit()
        self.formula = "".join(token.text for token in tokenize(formula))
        self.family = family
        self.link = link
        self.weights = weights
        self._written = formula
        self._results: Results | None = None
        self._emmeans: Table | None = None

    def __repr__(self) -> str:
        outside = "" if self.family is None else f", family={self.family}, link={self.link}"
        return f"{self.kind}(fitted={self.fitted}, formula={self.formula}{outside})"

    # Fitting

    def _specification(self) -> Specification:
        """The package's model of the data as they stand."""
        weights: Any = "" if self.weights is None else self.weights
        common: dict[str, Any] = {"weights": weights, "contrasts": self._codings()}
        if self.family is None:
            build = api.lmer if self.mixed else api.lm
            return build(self._written, self._frame, **common)
        generalised = api.glmer if self.mixed else api.glm
        return generalised(self._written, self._frame, family=self.family, link=self.link, **common)

    def _fit(
        self,
        estimator: ML,
        summary: bool,
        exponentiate: bool,
        type_predict: Scale,
        verbose: bool,
    ) -> Any:
        check_choice("type_predict", type_predict, ("response", "link"))
        with warnings.catch_warnings():
            if not verbose:
                warnings.simplefilter("ignore", BayesglmmWarning)
            fit = self._specification().fit(estimator)
        self._results = Results(fit, exponentiate, type_predict, self.family is None)
        self._emmeans = None
        return self.summary() if summary else None

    def _changed(self) -> None:
        # A fit of other columns would answer questions about a model that no longer exists.
        self._results = None

    @property
    def fitted(self) -> bool:
        """Whether there is a fit of the model as it stands."""
        return self._results is not None

    def _done(self, what: str) -> Results:
        if self._results is None:
            raise NotFittedError(
                f"{self.kind}: call .fit() first; {what} belongs to a fitted model"
            )
        return self._results

    @property
    def fit_(self) -> Fit:
        """The fit of the package itself, with all it can do."""
        return self._done("fit_").fit

    # What a fit leaves behind

    @property
    def params(self) -> pl.DataFrame:
        """``term, estimate``."""
        return self._done("params").result_fit.select("term", "estimate")

    @property
    def result_fit(self) -> pl.DataFrame:
        """Estimates with standard errors, intervals, statistics, df and p values."""
        return self._done("result_fit").result_fit

    @property
    def result_fit_stats(self) -> pl.DataFrame:
        """Log-likelihood, AIC, BIC, deviance and the like; one row."""
        return self._done("result_fit_stats").result_fit_stats

    @property
    def result_emmeans(self) -> Table:
        """What ``emmeans`` gave last."""
        self._done("result_emmeans")
        if self._emmeans is None:
            raise NotFittedError(f"{self.kind}: call .emmeans() first")
        return self._emmeans

    @property
    def convergence_status(self) -> str:
        """How the fit ended, and what needs attention."""
        return self._done("convergence_status").convergence_status

    @property
    def nobs(self) -> int:
        """Rows used by the fit."""
        return self._done("nobs").fit.model.design.n

    @property
    def data(self) -> pl.DataFrame:
        """The model's own data; after ``fit`` with the columns ``fitted`` and ``resid``."""
        if self._results is None:
            return self._frame.clone()
        return self._frame.with_columns(self._results.appended.get_columns())

    # Questions

    @hinted
    def summary(self, pretty: bool = True, decimals: int = 3) -> Any:
        """The fit at a glance.

        Parameters
        ----------
        pretty
            A ``great_tables.GT``; else text in R's layout, on the scale of the coefficients.
        decimals
            Digits after the point.
        """
        results = self._done("summary()")
        if not pretty:
            return summary_text(self.kind, self.formula, results)
        return summary_table(self.kind, self.formula, self.family, self.link, results, decimals)

    @hinted
    def emmeans(
        self,
        marginal_var: str | Sequence[str],
        by: str | Sequence[str] | None = None,
        p_adjust: str | None = "sidak",
        type: Scale = "response",
        normalize: bool = False,
        apply_transforms: bool = True,
        contrasts: str | Mapping[str, Sequence[float]] | None = None,
        at: Mapping[str, object] | None = None,
    ) -> Table:
        """Marginal means of factors, or slopes of a numeric variable, and contrasts of them.

        Parameters
        ----------
        marginal_var
            Factors, or one numeric variable.
        by
            Variables within whose values to do so.
        p_adjust
            Adjustment of intervals and p values: ``"sidak"``, ``"none"``, ``"tukey"``,
            ``"bonf"``, ``"holm"``, ``"fdr"``.
        type
            ``"response"`` or ``"link"``.
        normalize
            Divide contrast weights by their Euclidean norm.
        apply_transforms
            Values in ``at`` are those before ``set_transforms``.
        contrasts
            ``"pairwise"``, or labels with weights on the means in their order.
        at
            Values at which to hold variables.

        Examples
        --------
        >>> from bayesglmm.pymer4 import lm, load_dataset
        >>> model = lm("mpg ~ wt * cyl", data=load_dataset("mtcars"))
        >>> model.set_factors("cyl")
        >>> model.fit()
        >>> model.emmeans("wt", by="cyl")["wt_trend"].round(3).to_list()
        [-5.647, -2.78, -2.192]
        """
        fit = self._done("emmeans()").fit
        weights: Any = contrasts
        if normalize and isinstance(contrasts, Mapping):
            weights = {
                name: np.asarray(w, dtype=np.float64) / np.linalg.norm(w)
                for name, w in contrasts.items()
            }
        where = self._at(at or {}, apply_transforms, observed=False)
        self._emmeans = means(fit, marginal_var, by, p_adjust, type, weights, where)
        return self._emmeans

    @hinted
    def empredict(
        self, at: Mapping[str, object], apply_transforms: bool = True, type: Scale = "response"
    ) -> Table:
        """Predictions at chosen values, random effects at zero.

        Parameters
        ----------
        at
            Values by variable; ``"data"`` stands for all that were observed. Variables left out
            take the mean, factors all their levels.
        apply_transforms
            Values are those before ``set_transforms``; the table shows those of the fit.
        type
            ``"response"`` or ``"link"``.

        Examples
        --------
        >>> from bayesglmm.pymer4 import lm, load_dataset
        >>> model = lm("mpg ~ wt", data=load_dataset("mtcars"))
        >>> model.fit()
        >>> model.empredict({"wt": [2, 3]})["prediction"].round(2).to_list()
        [26.6, 21.25]
        """
        fit = self._done("empredict()").fit
        return empredict(fit, self._at(at, apply_transforms, observed=True), type)

    def report(self) -> Text:
        """The fit in a few sentences."""
        return report(self.kind, self.formula, self._done("report()"))


def check_method(conf_method: str, allowed: tuple[str, ...]) -> None:
    """Refuse an unknown ``conf_method``, and say what there is instead of the bootstrap."""
    if conf_method == "boot":
        raise ChoiceError(
            "conf_method='boot': there is no bootstrap here. Use "
            f"{' or '.join(map(repr, allowed))}, or the posterior: bayesglmm.model(...).fit('nuts')"
        )
    check_choice("conf_method", conf_method, allowed)
