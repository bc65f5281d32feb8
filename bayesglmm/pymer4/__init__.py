"""pymer4's words over this package: code written for pymer4's models runs without R.

Change the import and nothing else::

    from bayesglmm.pymer4 import glm, glmer, lm, lmer, load_dataset

Here the words mean what pymer4 means by them: models are objects that change when they are
fitted, ``fixef`` holds the coefficients of every level, means and contrasts are on the response
scale and adjusted by Sidak's method, ``lmer`` uses REML and Satterthwaite's degrees of freedom.
The numbers come from the rest of the package, by maximum likelihood; nothing is computed here.

What exists
    Models ``lm``, ``glm``, ``lmer``, ``glmer`` with ``fit``, ``summary``, ``emmeans``,
    ``empredict``, ``predict``, ``simulate``, ``anova``, ``summary_anova``, ``vif``, ``report``;
    ``set_factors``, ``unset_factors``, ``show_factors``; ``set_contrasts``, ``show_contrasts``;
    ``set_transforms``, ``unset_transforms``, ``show_transforms``. After ``fit``: ``params``,
    ``result_fit``, ``result_fit_stats``, ``result_emmeans``, ``result_anova``, ``result_vif``,
    ``data`` (with ``fitted`` and ``resid``), ``nobs``, ``convergence_status``, and for mixed
    models ``ranef``, ``fixef``, ``ranef_var`` and, with ``conf_method="boot"``, ``result_boots``.
    Always: ``formula``, ``family``, ``link``, ``weights``, ``factors``, ``contrasts``,
    ``transformed``, ``fitted``. Functions: ``compare``, ``load_dataset``, and for polars
    expressions ``center``, ``scale``, ``zscore``, ``rank``, ``logit2odds``, ``logit2prob``.

What does not
    ``skmer``, ``lm`` and ``glm`` on resampled rows (``conf_method="boot"``), and whatever hands
    out R objects.

What differs on purpose
    ``summary(pretty=False)`` and ``report()`` return their text (it shows itself in a notebook)
    where pymer4 prints it. Changing factors, contrasts or transforms after a fit asks for a new
    ``fit()``. The bootstrap takes ``seed``, and no ``parallel`` or ``ncpus``: to share the work
    use ``model.fit_.bootstrap(executor=...)``. ``compare`` orders mixed models by their number of
    parameters, numbers included. ``anova`` takes keywords only (pymer4 orders them differently
    for different models) and does not round; ``vif`` counts every row, where pymer4 counts equal
    rows once.
    The caption under a contrast spells out its weights: a label is only a label, and the
    tutorial's ``female_minus_male`` with weights [-1, 1] is male minus female.

For posteriors use the package itself: ``bayesglmm.glmer(...).fit("nuts")``.

Examples
--------
>>> from bayesglmm.pymer4 import glm, load_dataset
>>> model = glm("survived ~ sex", data=load_dataset("titanic"), family="binomial")
>>> model.set_factors("sex")
>>> model.fit(exponentiate=True)
>>> model.params["estimate"].round(3).to_list()
[2.877, 0.081]
"""

from bayesglmm.datasets import load_dataset
from bayesglmm.pymer4.comparison import compare
from bayesglmm.pymer4.expressions import center, logit2odds, logit2prob, rank, scale, zscore
from bayesglmm.pymer4.models import glm, glmer, lm, lmer

__all__ = [
    "lm",
    "glm",
    "lmer",
    "glmer",
    "compare",
    "load_dataset",
    "center",
    "scale",
    "zscore",
    "rank",
    "logit2odds",
    "logit2prob",
]
