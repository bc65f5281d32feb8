"""hypothesis(): what the posterior says of a statement about parameters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bayesglmm.design import Design
from bayesglmm.design.fixed import INTERCEPT
from bayesglmm.errors import ChoiceError, DataError, FormulaError
from bayesglmm.post.linear_hypothesis import read_equation
from bayesglmm.post.parameter_draws import (
    pairs,
    parameter_draws,
    parameter_names,
    parameter_priors,
)
from bayesglmm.post.pointwise import chains_of, draws_of
from bayesglmm.post.predictive import chains_of_parameters
from bayesglmm.post.tables import check_level, scale
from bayesglmm.posterior import Draws
from bayesglmm.priors import Normal
from bayesglmm.priors.parameters import draw_parameters, intercept_shift
from bayesglmm.tables.table import Table, table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit
    from bayesglmm.model import Model

Array = NDArray[np.float64]
_PRIOR_DRAWS = 200_000


def hypothesis(fit: Fit, hypotheses: str | Sequence[str], *, level: float = 0.95) -> Table:
    """Evidence for statements about the parameters (brms' ``hypothesis``).

    Parameters
    ----------
    fit
        By sampling.
    hypotheses
        Such as ``"sexmale < 0"``, ``"Days > 5"``, ``"a - b = 0"``, ``"2*a < b + 1"``,
        ``"sd:Subject:Days > 3"``; a list gives a row for each, not a joint statement. Names are
        those of ``prior_table`` and ``simulate_new``: coefficients, ``sd:GROUP:COLUMN``,
        ``corr:GROUP:COLUMN:COLUMN``, ``sigma``; ``sd:GROUP`` and ``corr:GROUP`` where there is
        one. brms' names (``Intercept``, ``sd_Subject__Days``, ``cor_Subject__Intercept__Days``)
        work too.
    level
        Probability of the intervals.

    Returns
    -------
    Table
        ``hypothesis``; ``estimate, std_error, conf_low, conf_high`` of its left minus its right
        side (posterior mean, sd, highest-density interval); ``evid_ratio``: for ``<`` and ``>``
        the posterior odds, infinite where all draws agree; for ``=`` the Savage-Dickey ratio,
        posterior over prior density at equality, which is the Bayes factor for it;
        ``post_prob``: the probability of the statement; for ``=`` with even prior odds.

    Raises
    ------
    FormulaError
        For a statement that cannot be read, with a caret under the place.
    ChoiceError
        For a fit by maximum likelihood (see :func:`bayesglmm.wald_test`), and for ``=`` about
        parameters with flat priors.

    Notes
    -----
    The posterior density at a point is a kernel estimate, as is that of priors that are not
    normal. When the point is beyond all but ten draws, the ratio is an upper bound (one draw's
    kernel at the point), and the caption says so. The ratio depends on the prior as much as on
    the data: the wide default priors favour equality.

    References
    ----------
    Wagenmakers, Lodewyckx, Kuriyal and Grasman 2010, doi:10.1016/j.cogpsych.2009.12.001.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> m = bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy"))
    >>> fit = m.fit("nuts", seed=1)  # doctest: +SKIP
    >>> fit.hypothesis(["Days > 5", "sd:Subject:Days > 3"])  # doctest: +SKIP
    """
    posterior = draws_of(fit, "hypothesis", "; for p values there is wald_test")
    level = check_level(level)
    texts = [hypotheses] if isinstance(hypotheses, str) else hypotheses
    if not (isinstance(texts, Sequence) and texts and all(isinstance(t, str) for t in texts)):
        raise DataError(
            f"hypotheses={hypotheses!r}: give a statement such as 'x < 0', or a list of them"
        )
    model = fit.model
    names = parameter_names(model.design, model.family.has_scale)
    every = parameter_draws(model.design, chains_of(posterior), model.family.has_scale)
    shape = posterior.run.values("beta").shape[:2]
    rows, points, rare = [], False, []
    for text in texts:
        weights, value, sign = _read(text, model.design, names)
        values = (every @ weights - value).reshape(*shape, 1)
        draws = Draws(values)
        summary = {**draws.point(), **draws.interval(level)}
        if sign == "=":
            points = True
            ratio, few = _savage_dickey(model, names, weights, value, values.ravel())
            if few:
                rare.append(text)
            probability = ratio / (1.0 + ratio)
        else:
            true = values > 0.0 if sign == ">" else values < 0.0
            probability = float(true.mean())
            ratio = probability / (1.0 - probability) if probability < 1.0 else np.inf
        rows.append(
            {
                "hypothesis": text.strip(),
                **{name: float(column[0]) for name, column in summary.items()},
                "evid_ratio": ratio,
                "post_prob": probability,
            }
        )
    note = (
        f"Hypotheses · {posterior.method} · coefficients on the {scale(fit)} · "
        f"{posterior.interval(level)} of left minus right side · evid_ratio: posterior odds"
    )
    if points:
        note += "; for = Savage-Dickey ratios (Bayes factors for equality)"
    if rare:
        note += f" · too few draws near equality, the ratio is an upper bound: {', '.join(rare)}"
    columns = pl.DataFrame(rows).with_columns(pl.col("evid_ratio", "post_prob").fill_nan(None))
    return table(columns.to_dict(), note)


def _read(text: str, design: Design, names: tuple[str, ...]) -> tuple[Array, float, str]:
    """Weights (m,) of the parameters, the right-hand side, and the sign between."""
    aliases = _aliases(design, names)
    # Names may hold the signs that join them, such as 'age<5'.
    known = "|".join(re.escape(name) for name in sorted(aliases, key=len, reverse=True))
    found = [m for m in re.finditer(rf"(?:{known})(?![\w.:])|([<>]=?|=)", text) if m[1]]
    if len(found) != 1:
        raise FormulaError(
            "a hypothesis has one of <, > and =, such as 'x > 0'; give several as a list",
            text,
            found[1].start() if found else len(text.rstrip()) - 1,
        )
    (sign,) = found
    # The same length, so that carets point at the right place.
    equation = text[: sign.start()] + "=".ljust(len(sign[1])) + text[sign.end() :]
    try:
        wide, value = read_equation(equation, tuple(aliases), "parameter")
    except FormulaError as problem:  # shown as it was written
        raise FormulaError(problem.message, text, problem.position, problem.width) from None
    weights = np.zeros(len(names))
    for weight, name in zip(wide, aliases.values(), strict=True):
        weights[names.index(name)] += weight
    if not np.any(weights):
        raise FormulaError("there is no parameter in it", text)
    return weights, value, sign[1][0]


def _aliases(design: Design, names: tuple[str, ...]) -> dict[str, str]:
    """Every name a parameter may be given by, and its own."""
    out = {name: name for name in names}
    if INTERCEPT in out:
        out.setdefault(_plain(INTERCEPT), INTERCEPT)
    for term in design.random:
        for column in term.columns:
            whole = f"sd:{term.name}:{column}"
            out.setdefault(f"sd_{term.name}__{_plain(column)}", whole)
            if term.K == 1:
                out.setdefault(f"sd:{term.name}", whole)
        for i, j in pairs(term.K) if term.correlated else []:
            one, two = term.columns[j], term.columns[i]
            whole = f"corr:{term.name}:{one}:{two}"
            out.setdefault(f"corr:{term.name}:{two}:{one}", whole)
            for a, b in ((one, two), (two, one)):
                out.setdefault(f"cor_{term.name}__{_plain(a)}__{_plain(b)}", whole)
            if term.K == 2:
                out.setdefault(f"corr:{term.name}", whole)
    return out


def _plain(column: str) -> str:
    return "Intercept" if column == INTERCEPT else column


def _savage_dickey(
    model: Model, names: tuple[str, ...], weights: Array, value: float, draws: Array
) -> tuple[float, bool]:
    """Posterior over prior density where the draws are zero; and whether few draws are near."""
    used = [name for name, weight in zip(names, weights, strict=True) if weight]
    priors = dict(zip(names, parameter_priors(model.priors, model.design), strict=True))
    # The intercept's prior is at the mean of the other columns.
    others = model.design.names if INTERCEPT in used else ()
    own = {name: priors[name] for name in dict.fromkeys((*used, *others))}
    flat = [name for name, prior in own.items() if not prior.is_proper]
    if flat:
        raise ChoiceError(
            f"a hypothesis with '=' compares prior and posterior densities, but the prior of "
            f"{', '.join(map(repr, flat))} is flat; give one by priors=, or ask with < or >"
        )
    positive = len(used) == 1 and (used[0] == "sigma" or used[0].startswith("sd:"))
    edge = -value if positive else -np.inf  # of the support, where a kernel would spill over
    if all(isinstance(prior, Normal) for prior in own.values()):
        mean, sd = _normal(model, weights)
        prior = np.exp(-0.5 * ((mean - value) / sd) ** 2) / (sd * np.sqrt(2.0 * np.pi))
    else:
        prior = _prior_density(model, weights, value, edge)[0]
    posterior, least = _density_at_zero(draws, edge)
    few = min(np.sum(draws > 0.0), np.sum(draws < 0.0)) < 10 and edge != 0.0
    return float((max(posterior, least) if few else posterior) / prior), bool(few)


def _normal(model: Model, weights: Array) -> tuple[float, float]:
    """Mean and sd of the weighted sum of coefficients under normal priors."""
    design = model.design
    own: Any = model.priors.coefficients
    w = weights[: design.p].copy()
    if INTERCEPT in design.names:
        w = w + w[design.names.index(INTERCEPT)] * intercept_shift(design)
    chosen = [k for k in range(design.p) if w[k]]
    mean = sum(w[k] * own[k].mean for k in chosen)
    return float(mean), float(np.sqrt(sum((w[k] * own[k].sd) ** 2 for k in chosen)))


def _prior_density(model: Model, weights: Array, value: float, edge: float) -> tuple[float, float]:
    rng = np.random.default_rng(0)  # the density is a number of the model, not of the run
    values = draw_parameters(model.priors, model.design, rng, _PRIOR_DRAWS)
    chains = chains_of_parameters(model.design, values)
    every = parameter_draws(model.design, chains, model.family.has_scale)
    return _density_at_zero(every @ weights - value, edge)


def _density_at_zero(draws: Array, edge: float) -> tuple[float, float]:
    """Gaussian kernel density at zero, by Silverman's rule, and what one draw adds at its own.

    Draws below the edge of the support do not exist: the kernels are reflected there.
    """
    quartiles = np.quantile(draws, [0.25, 0.75])
    width = min(float(draws.std()), float(quartiles[1] - quartiles[0]) / 1.349)
    if width == 0.0:
        return np.nan, np.nan
    width *= 0.9 * len(draws) ** -0.2
    total = np.exp(-0.5 * (draws / width) ** 2).sum()
    if np.isfinite(edge):
        total += np.exp(-0.5 * ((2.0 * edge - draws) / width) ** 2).sum()
    one = 1.0 / (len(draws) * width * np.sqrt(2.0 * np.pi))
    return float(total * one), float(one)
