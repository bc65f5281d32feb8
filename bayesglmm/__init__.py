"""Generalised linear mixed models: maximum likelihood and the full posterior, one formula.

>>> import bayesglmm as bg
>>> m = bg.glmer("survived ~ sex + (1|pclass)", bg.load_dataset("titanic"), family="binomial")
>>> m.fit().params["estimate"].round(2).to_list()
[1.37, -2.64]
"""

from bayesglmm.api import glm, glmer, lm, lmer, model
from bayesglmm.datasets import list_datasets, load_dataset
from bayesglmm.design import Treatment
from bayesglmm.errors import (
    BayesglmmError,
    BayesglmmWarning,
    ChoiceError,
    DataError,
    FitError,
    FormulaError,
    OptionError,
)
from bayesglmm.fit import Fit
from bayesglmm.laplace import ML
from bayesglmm.model import Model, fit
from bayesglmm.nuts.options import NUTS
from bayesglmm.post.compare import compare
from bayesglmm.post.confint import confint
from bayesglmm.post.emmeans import emmeans, emtrends
from bayesglmm.post.predict import predict
from bayesglmm.post.profile import profile
from bayesglmm.post.residuals import residuals
from bayesglmm.post.statistics import statistics
from bayesglmm.post.summary import summary
from bayesglmm.post.tables import coef, params, ranef, varcorr
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
    StudentT,
)

__version__ = "0.1.0"

__all__ = [
    "LKJ",
    "ML",
    "NUTS",
    "BayesglmmError",
    "BayesglmmWarning",
    "Cauchy",
    "ChoiceError",
    "DataError",
    "Exponential",
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
    "OptionError",
    "StudentT",
    "Treatment",
    "coef",
    "compare",
    "confint",
    "emmeans",
    "emtrends",
    "fit",
    "glm",
    "glmer",
    "list_datasets",
    "lm",
    "lmer",
    "load_dataset",
    "model",
    "params",
    "predict",
    "profile",
    "ranef",
    "residuals",
    "statistics",
    "summary",
    "varcorr",
]
