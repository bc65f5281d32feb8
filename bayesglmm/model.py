"""A model: formula, data, family and priors, ready to be fitted by any method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bayesglmm.approximate.options import Laplace
from bayesglmm.design import Design
from bayesglmm.errors import DataError, FitError, OptionError, check_choice, nearest, warn
from bayesglmm.families import Family, Likelihood, Link
from bayesglmm.laplace import ML, maximum_likelihood
from bayesglmm.nuts.options import NUTS, Centring
from bayesglmm.priors import Priors
from bayesglmm.tables import Table, table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit
    from bayesglmm.laplace.structure import Structure
    from bayesglmm.post.predictive import Predictive

Estimator = ML | Laplace | NUTS
METHODS = ("ml", "reml", "laplace", "nuts")
_RECORDS: dict[str, type[ML] | type[Laplace] | type[NUTS]] = {
    "ml": ML,
    "reml": ML,
    "laplace": Laplace,
    "nuts": NUTS,
}
_LARGEST = 1e40  # value of a response, whose powers are computed with
# What options are called in brms, rstanarm, lme4, MixedModels.jl and PyMC.
_ELSEWHERE = {
    "adapt_delta": "target_accept",
    "iter": "draws",
    "nAGQ": "nagq",
    "progressbar": "progress",
    "random_seed": "seed",
    "refresh": "progress",
    "REML": "reml",
    "warmup": "tune",
}


@dataclass(frozen=True, eq=False)
class Model:
    """What is to be fitted. Make one with :func:`bayesglmm.model` or ``glmer`` and friends.

    Attributes
    ----------
    design
        Response, X, random-effects terms, offset: formula and data together.
    family, link
        Records of the response distribution and the link function.
    priors
        Prior of every parameter; used by Bayesian methods only.
    """

    design: Design
    family: Family
    link: Link
    priors: Priors

    @cached_property
    def likelihood(self) -> Likelihood:
        """The family and link bound to the response."""
        design = self.design
        return Likelihood(
            self.family, self.link, design.y, design.total_weights, design.repeated_trials
        )

    @property
    def formula(self) -> str:
        """The formula as written."""
        return self.design.formula.text

    @property
    def prior_table(self) -> Table:
        """The prior of every parameter: ``name`` (under which it can be set) and ``prior``."""
        priors = self.priors.table(self.design)
        return table(
            {"name": list(priors), "prior": [str(prior) for prior in priors.values()]},
            "Priors · used by Bayesian methods · (Intercept): at the mean of the covariates",
        )

    def fit(self, method: str | Estimator = "ml", **options: Any) -> Fit:
        """Fit the model.

        Parameters
        ----------
        method
            ``"ml"`` (default), ``"reml"``, ``"laplace"``, ``"nuts"``, or an estimator value such
            as ``ML(nagq=9)`` or ``NUTS(draws=2000)``.
        options
            Fields of the estimator, when ``method`` is a name: ``fit("nuts", draws=2000)``.

        Raises
        ------
        ChoiceError
            For an unknown method or an option that does not apply to the model.
        OptionError
            For an unknown option, with the nearest that exists.

        Examples
        --------
        >>> import bayesglmm as bg
        >>> m = bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy"))
        >>> round(m.fit("reml").loglik, 2)
        -871.81
        """
        return fit(self, estimator(method, options))

    def to_pymc(self, centred: Centring = False) -> Any:
        """The model as a ``pymc.Model``, yours to read, extend and sample.

        Parameters
        ----------
        centred
            True: random effects are sampled themselves; False: as scaled standard normals;
            "auto": decided for each term from a maximum-likelihood fit; or a mapping by term.

        Returns
        -------
        pymc.Model
            With ``beta[coef]``, ``sd_<group>``, ``corr_<group>``, ``b_<group>``, ``sigma``.
        """
        from bayesglmm.nuts.sampler import choose_centring
        from bayesglmm.pymc_model import build_pymc

        return build_pymc(self, choose_centring(self, NUTS(centred=centred)))

    def prior_predictive(self, draws: int = 1000, *, seed: int | None = None) -> Predictive:
        """Responses that the priors expect; see :func:`bayesglmm.prior_predictive`."""
        from bayesglmm.post.predictive import prior_predictive

        return prior_predictive(self, draws, seed=seed)

    def __repr__(self) -> str:
        design = self.design
        groups = ", ".join(f"{t.factor} ({t.J})" for t in design.random)
        return (
            f"Model({self.formula!r}, family={self.family.name!r}, link={self.link.name!r}, "
            f"{design.n} rows{f' ({design.dropped} dropped)' if design.dropped else ''}"
            f"{f', groups: {groups}' if groups else ''})"
        )


def estimator(method: str | Estimator, options: Mapping[str, Any]) -> Estimator:
    """The estimator value that a method's name and options stand for."""
    if not isinstance(method, str):
        if not isinstance(method, ML | Laplace | NUTS):
            raise OptionError(
                f"method is {type(method).__name__}; give one of {', '.join(map(repr, METHODS))} "
                "or an estimator such as bg.ML(nagq=9) or bg.NUTS(draws=2000)"
            )
        if options:
            raise OptionError(
                f"options {', '.join(options)} given beside an estimator; put them inside it: "
                f"{type(method).__name__}({', '.join(f'{k}=...' for k in options)})"
            )
        return method
    check_choice("method", method.lower(), METHODS)
    record = _RECORDS[method.lower()]
    allowed = [f.name for f in fields(record)]
    for name in options:
        if name not in allowed:
            here = _ELSEWHERE.get(name)
            hint = f"; here it is {here}=" if here in allowed else nearest(name, allowed)
            raise OptionError(
                f"fit({method!r}) has no option {name!r}{hint}; it has {', '.join(allowed)}"
            )
    if method.lower() == "reml":
        return ML(**{**options, "reml": True})
    return record(**options)


def fit(model: Model, method: str | Estimator = "ml") -> Fit:
    """Fit a model by an estimator value: ``fit(model, NUTS(draws=2000, seed=1))``.

    A method's name stands for that estimator with its defaults. Raises as :meth:`Model.fit`.

    Warns
    -----
    BayesglmmWarning
        If the fit is singular, separated, not identified or has not converged, with the remedy.
    """
    return fitted(model, estimator(method, {}))


def fitted(model: Model, method: Estimator, structure: tuple[Structure, ...] = ()) -> Fit:
    """The same, with the structure of the random effects where it is known from another fit."""
    from bayesglmm.fit import Fit
    from bayesglmm.posterior.ml import MLPosterior
    from bayesglmm.posterior.sampled import SampledPosterior

    if isinstance(method, ML):
        check_residual(model)
        estimate = maximum_likelihood(model.design, model.likelihood, method, structure)
        if estimate.outcome.notes:
            warn("\n".join(estimate.outcome.notes))
        return Fit(model, method, MLPosterior(model.design, estimate))
    if isinstance(method, Laplace):
        from bayesglmm.approximate.run import approximate
        from bayesglmm.posterior.approximated import LaplacePosterior

        return Fit(model, method, LaplacePosterior(model.design, approximate(model, method)))
    from bayesglmm.nuts.sampler import sample

    return Fit(model, method, SampledPosterior(model.design, sample(model, method)))


def check_residual(model: Model) -> None:
    """Refuse a residual variance that maximum likelihood cannot estimate.

    Raises
    ------
    FitError
        If there are as many coefficients as rows, if the response is constant, or if a
        random-effects term has as many effects as there are rows (lme4's rule). With priors all
        have an answer.
    """
    if not model.family.has_scale:
        return
    n, p, y = model.design.n, model.design.p, model.design.y
    if n <= p:
        raise FitError(
            f"{p} coefficients and {n} rows leave nothing to estimate the residual variance from; "
            'use fewer terms, or fit with priors: fit("nuts")'
        )
    if n > 1 and np.ptp(y) == 0.0:
        raise FitError(
            f"response {model.design.response.name!r} is constant ({y[0]:g}): it leaves no "
            'residual variance to estimate; check the response, or fit with priors: fit("nuts")'
        )
    for term in model.design.random:
        if n <= term.J * term.K:
            size = f"{term.J} levels" + (f" x {term.K} columns" if term.K > 1 else "")
            raise FitError(
                f"term {term.name!r} has {term.J * term.K} random effects ({size}) for {n} rows: "
                "they cannot be told apart from the residual variance; remove "
                + ("random slopes" if n > term.J else "the term")
                + ', or fit with priors: fit("nuts")'
            )


def not_estimable(design: Design) -> str:
    """Say which coefficients cannot be estimated: ``1 coefficient not estimable: x2 = 2 x``."""
    d = len(design.aliased)
    shown = "; ".join(design.aliased[:5]) + ("; …" if d > 5 else "")
    return f"{d} coefficient{'s' if d > 1 else ''} not estimable: {shown}"


def check_response(design: Design, family: Family) -> None:
    """Refuse a response that the family cannot have produced.

    Raises
    ------
    DataError
        With the offending value and what to do.
    """
    response = design.response
    if response.levels and not family.is_probability:
        raise DataError(
            f"response {response.name!r} is not numeric (levels {', '.join(response.levels)}), "
            f"which family={family.name!r} needs; use family='binomial' for a two-level response"
        )
    trials_given = bool(np.any(response.trials != 1.0))
    if trials_given and not family.has_trials:
        raise DataError(
            f"a number of trials was given, but family={family.name!r} has none; use "
            "family='binomial'"
        )
    if design.random and design.n > 1 and np.ptp(response.y) == 0.0:
        raise DataError(
            f"response {response.name!r} is constant ({response.y[0]:g}): random effects cannot "
            "be estimated from it; check the response"
        )
    family.check(response.y, design.total_weights, response.name)
    largest = float(np.max(np.abs(response.y), initial=0.0))
    if family.has_scale and largest > 0.0 and not 1.0 / _LARGEST <= largest <= _LARGEST:
        raise DataError(
            f"response {response.name!r}: its largest value is {largest:.3g}, and products of such "
            "numbers overflow or vanish; give it in a unit in which that lies between "
            f"{1.0 / _LARGEST:g} and {_LARGEST:g}, divided by {largest:.0e}, say"
        )


Missing = Literal["drop", "error"]
