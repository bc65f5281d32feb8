"""Generalised linear mixed models: maximum likelihood and the full posterior, one formula.

>>> import bayesglmm as bg
>>> m = bg.glmer("survived ~ sex + (1|pclass)", bg.load_dataset("titanic"), family="binomial")
>>> m.fit().params["estimate"].round(2).to_list()
[1.37, -2.64]
"""

from bayesglmm.api import glm, glmer, lm, lmer, model
from bayesglmm.approximate import Laplace
from bayesglmm.datasets import list_datasets, load_dataset
from bayesglmm.design import Treatment
from bayesglmm.errors import (
    BayesglmmError,
    BayesglmmWarning,
    ChoiceError,
    DataError,
    FileError,
    FitError,
    FormulaError,
    OptionError,
)
from bayesglmm.fit import Fit
from bayesglmm.laplace import ML
from bayesglmm.model import Model, fit
from bayesglmm.nuts.options import NUTS
from bayesglmm.post.anova import anova, drop1
from bayesglmm.post.bootstrap import bootstrap
from bayesglmm.post.caic import caic
from bayesglmm.post.collinearity import vif
from bayesglmm.post.compare import compare
from bayesglmm.post.confint import confint
from bayesglmm.post.emmeans import emmeans, emtrends
from bayesglmm.post.hypothesis import hypothesis
from bayesglmm.post.icc import icc
from bayesglmm.post.influence import influence
from bayesglmm.post.leverage import cooks_distance, hatvalues
from bayesglmm.post.linear_hypothesis import wald_test
from bayesglmm.post.loo import loo, loo_compare
from bayesglmm.post.marginal_likelihood import bayes_factor, marginal_likelihood
from bayesglmm.post.overdispersion import overdispersion
from bayesglmm.post.parameters import param_values
from bayesglmm.post.pointwise import log_likelihood
from bayesglmm.post.predict import predict
from bayesglmm.post.predictive import posterior_predictive, prior_predictive
from bayesglmm.post.profile import profile
from bayesglmm.post.r2 import r2
from bayesglmm.post.refit import refit
from bayesglmm.post.residuals import residuals
from bayesglmm.post.sensitivity import prior_sensitivity
from bayesglmm.post.simulate import simulate, simulate_new
from bayesglmm.post.statistics import statistics
from bayesglmm.post.summary import summary
from bayesglmm.post.tables import coef, params, ranef, ranef_vcov, varcorr
from bayesglmm.priors import (
    LKJ,
    Cauchy,
    Exponential,
    Flat,
    Gamma,
    HalfCauchy,
    HalfFlat,
    HalfNormal,
    HalfStudentT,
    Normal,
    Prior,
    StudentT,
)
from bayesglmm.storage import load, save

__version__ = "0.1.0"

__all__ = [
    "LKJ",
    "ML",
    "Laplace",
    "NUTS",
    "BayesglmmError",
    "BayesglmmWarning",
    "Cauchy",
    "ChoiceError",
    "DataError",
    "Exponential",
    "FileError",
    "Fit",
    "FitError",
    "Flat",
    "FormulaError",
    "Gamma",
    "HalfCauchy",
    "HalfFlat",
    "HalfNormal",
    "HalfStudentT",
    "Model",
    "Normal",
    "Prior",
    "OptionError",
    "StudentT",
    "Treatment",
    "anova",
    "bayes_factor",
    "bootstrap",
    "caic",
    "coef",
    "compare",
    "cooks_distance",
    "drop1",
    "confint",
    "emmeans",
    "emtrends",
    "fit",
    "glm",
    "glmer",
    "hatvalues",
    "hypothesis",
    "icc",
    "influence",
    "list_datasets",
    "lm",
    "lmer",
    "load",
    "load_dataset",
    "log_likelihood",
    "loo",
    "loo_compare",
    "marginal_likelihood",
    "model",
    "overdispersion",
    "param_values",
    "params",
    "posterior_predictive",
    "predict",
    "prior_predictive",
    "prior_sensitivity",
    "r2",
    "profile",
    "ranef",
    "ranef_vcov",
    "refit",
    "residuals",
    "save",
    "simulate",
    "simulate_new",
    "statistics",
    "summary",
    "varcorr",
    "vif",
    "wald_test",
]
