"""anova() and drop1(): tests of terms and of nested models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bayesglmm.errors import ChoiceError, check_choice
from bayesglmm.model import not_estimable
from bayesglmm.post.model_tests import model_table
from bayesglmm.post.submodels import estimate_of
from bayesglmm.post.term_tests import drop_table, type_table
from bayesglmm.tables.table import Table

if TYPE_CHECKING:
    from bayesglmm.design import Design
    from bayesglmm.fit import Fit

Type = Literal["I", "II", "III"]
Test = Literal["auto", "F", "wald", "lrt"]


def anova(*fits: Fit, type: Type = "III", test: Test = "auto", refit: bool = True) -> Table:
    """Tests of the terms of one fit, or of nested fits against each other.

    Parameters
    ----------
    fits
        One fit, for tests of the terms of its fixed part; or several of the same response, in
        any order, for a comparison.
    type
        Of the hypotheses about the terms of one fit. ``"I"``: each term given those before it.
        ``"II"``: each given all others but those that contain it. ``"III"``: each given all
        others, at averages of the cell means over the levels of other factors that are not
        weighted, and at covariates of zero. Type III does not depend on the coding of the
        factors; R's ``car::Anova(type=3)`` agrees with sum coding only.
    test
        ``"F"``, ``"wald"`` (chi-square) or ``"lrt"`` (likelihood ratio, by refitting);
        ``"auto"``: for one fit F where there are denominator degrees of freedom, else Wald; for
        several F for models without random effects but with a residual variance, else the
        likelihood ratio.
    refit
        For several fits: refit REML fits by maximum likelihood, as lme4 does. Without,
        restricted likelihoods are compared, which needs the same fixed effects in all.

    Returns
    -------
    Table
        One fit: ``term``, then ``sum_sq, mean_sq`` (linear models), ``num_df, den_df, f_stat,
        p_value``; or ``chi_square, df, p_value``. Coefficients that cannot be estimated count as
        left out of the model: a term without others has zero df, and nulls.
        Several: ``model, npar, AIC, BIC, logLik, deviance`` (-2 logLik), ``chi_square, df,
        p_value``, each model against the row above; or ``model, df_residual, rss, num_df,
        den_df, sum_sq, f_stat, p_value``, with the residual mean square of the largest. Where a
        variance is tested at zero, the edge of its range, ``p_value`` is conservative, and
        ``p_boundary`` is the right one where it is known: for a single variance, or a single
        random slope with its correlations. Models that are not nested get no test.

    Raises
    ------
    ChoiceError
        For a fit by NUTS, different families, links or ``nagq``, a test that does not apply, or
        type III where cells of a product of factors have no data.
    DataError
        For fits of different rows, responses or weights.

    Notes
    -----
    F tests of linear mixed models are those of lmerTest (Kuznetsova et al. 2017,
    doi:10.18637/jss.v082.i13): hypotheses of type I and II come from the cross-products of X, a
    factor is not contained in its product with a covariate, and degrees of freedom are those of
    the fit (``ML(df=...)``): Satterthwaite's or Kenward and Roger's. Two differences: prior
    weights count in the cross-products, so that without variance between groups the tests are
    those of ``lm``; and in ``a + a:b`` the factor a is contained in a:b (lmerTest then tests it at
    the first level of b). Wald tests, and F tests of linear models, are those of R's car: a
    factor is contained in its product with a covariate.
    The boundary p value is a mixture of chi-squares (Self and Liang 1987,
    doi:10.1080/01621459.1987.10478472; Stram and Lee 1994, doi:10.2307/2533455).

    Examples
    --------
    >>> import bayesglmm as bg
    >>> sleep = bg.load_dataset("sleepstudy")
    >>> one = bg.lmer("Reaction ~ Days + (1|Subject)", sleep).fit()
    >>> two = bg.lmer("Reaction ~ Days + (Days|Subject)", sleep).fit()
    >>> bg.anova(one, two)["chi_square"].round(3).to_list()
    [None, 42.139]
    >>> bg.anova(two)["f_stat"].round(3).to_list()
    [48.55]
    """
    check_choice("type", type, ("I", "II", "III"))
    check_choice("test", test, ("auto", "F", "wald", "lrt"))
    if not fits:
        raise ChoiceError("anova needs a fit, or several nested ones: anova(model.fit())")
    if isinstance(fits[0], list | tuple):
        raise ChoiceError("anova: give the fits one by one, not as a list: anova(*fits)")
    if len(fits) == 1:
        estimate_of(fits[0], "anova")
        if not refit:
            raise ChoiceError(
                "refit=False belongs to the comparison of several fits; for tests of the terms "
                "of one fit leave it out"
            )
        design = fits[0].model.design
        if type == "III" and any(":" in name for name in _left_out(design)):
            raise ChoiceError(
                "type='III' averages over the cells of a product, and some have no data: "
                f"{not_estimable(design)}. Use type='II', which compares the cells there are, or "
                "merge levels until every cell has data"
            )
        return type_table(fits[0], type, test)
    if type != "III":
        raise ChoiceError(
            f"type={type!r} belongs to tests of the terms of one fit, anova(fit, type={type!r}); "
            f"{len(fits)} fits are compared as they are"
        )
    return model_table(fits, test, refit)


def _left_out(design: Design) -> list[str]:
    """Names of the coefficients that cannot be estimated."""
    return [name for name in design.all_names if name not in design.names]


def drop1(fit: Fit, test: Literal["lrt", "F"] = "lrt") -> Table:
    """Tests of every term that can be left out: those that no other term contains.

    Parameters
    ----------
    fit
        By maximum likelihood; REML fits are refitted by maximum likelihood for ``"lrt"``.
    test
        ``"lrt"``: each model is fitted without the term (lme4's ``drop1``). ``"F"``: from the
        fit itself, with its degrees of freedom (lmerTest's).

    Returns
    -------
    Table
        ``"lrt"``: ``term, npar, AIC, chi_square, df, p_value``; the row ``<none>`` is the model
        itself. ``AIC`` is 2 npar - 2 logLik with all constants (R's ``drop1`` of ``lm`` leaves
        some out). ``"F"``: ``term, sum_sq, mean_sq, num_df, den_df, f_stat, p_value``.

    Raises
    ------
    ChoiceError
        For a fit by NUTS, a model without terms, or F without degrees of freedom.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> fit = bg.lm("mpg ~ wt * hp + qsec", bg.load_dataset("mtcars")).fit()
    >>> bg.drop1(fit)["term"].to_list()
    ['<none>', 'qsec', 'wt:hp']
    """
    check_choice("test", test, ("lrt", "F"))
    estimate_of(fit, "drop1")
    return drop_table(fit, test)
