"""How to maximise the likelihood, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bayesglmm.errors import ChoiceError, check_choice


@dataclass(frozen=True, slots=True)
class ML:
    """Maximum likelihood.

    Attributes
    ----------
    nagq
        1 for the Laplace approximation; k > 1 for adaptive Gauss-Hermite quadrature with k
        nodes per effect, for a single random-effects term of up to three columns; 0 for lme4's
        fast approximation, which finds beta by penalised least squares and is not maximum
        likelihood (standard errors are conditional).
    reml
        Restricted maximum likelihood; Gaussian models with random effects only.
    vcov
        Covariance of the coefficients: "hessian" includes the uncertainty of the variance
        parameters, "conditional" holds them at their estimates (what MixedModels.jl prints),
        "auto" is lme4's choice: hessian for generalised, conditional for linear models.
    df
        For linear mixed models: "satterthwaite" (lmerTest) gives t statistics, "asymptotic"
        z statistics. "kenward-roger" (pbkrtest; REML fits only) also corrects the covariance of
        the coefficients for the uncertainty of the variances, which matters in small samples.

    Examples
    --------
    >>> ML(nagq=9, vcov="conditional")
    ML(nagq=9, reml=False, vcov='conditional', df='satterthwaite')
    """

    nagq: int = 1
    reml: bool = False
    vcov: Literal["auto", "hessian", "conditional"] = "auto"
    df: Literal["satterthwaite", "kenward-roger", "asymptotic"] = "satterthwaite"

    def __post_init__(self) -> None:
        check_choice("vcov", self.vcov, ("auto", "hessian", "conditional"))
        check_choice("df", self.df, ("satterthwaite", "kenward-roger", "asymptotic"))
        if not isinstance(self.nagq, int) or isinstance(self.nagq, bool) or self.nagq < 0:
            raise ChoiceError(
                f"nagq={self.nagq!r} is not a number of quadrature nodes; give a whole number "
                "from 1 (Laplace) up, e.g. 9, or 0 for lme4's fast approximation"
            )
        if self.nagq == 0 and self.vcov == "hessian":
            raise ChoiceError(
                "vcov='hessian' needs a likelihood that beta maximises, which nagq=0 does not "
                "give; use vcov='conditional', or nagq=1"
            )
        if self.df == "kenward-roger" and not self.reml:
            raise ChoiceError(
                "df='kenward-roger' is defined for REML fits of linear mixed models: use "
                "fit('reml', df='kenward-roger'), or df='satterthwaite' with maximum likelihood"
            )
        if self.df == "kenward-roger" and self.vcov == "hessian":
            raise ChoiceError(
                "df='kenward-roger' brings its own covariance of the coefficients, which vcov="
                "'hessian' would replace; leave vcov out"
            )
