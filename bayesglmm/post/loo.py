"""Leave-one-out cross-validation of a Bayesian fit: of rows, or of whole groups."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bayesglmm.design import Design
from bayesglmm.errors import ChoiceError, check_whole, named_arguments
from bayesglmm.nuts.options import NUTS
from bayesglmm.post.groups import levels_of
from bayesglmm.post.pointwise import Chains, chains_of, conditional, draws_of, row_blocks
from bayesglmm.tables.table import Table, table
from bayesglmm.tables.text import html_note, html_table, text_table

if TYPE_CHECKING:
    from bayesglmm.fit import Fit
    from bayesglmm.model import Model
    from bayesglmm.post.integrated import Block
    from bayesglmm.posterior.sampled import SampledPosterior

Array = NDArray[np.float64]
Index = NDArray[np.intp]
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Loo:
    """What :func:`loo` returns.

    Attributes
    ----------
    group
        The factor whose levels were left out one at a time; ``"row"`` for single rows.
    table
        ``term, estimate, std_error`` of ``elpd_loo`` (the expected log predictive density, summed
        over what was left out), ``p_loo`` (the effective number of parameters) and ``looic``
        (-2 elpd_loo).
    pointwise
        A row for each row of the data that was used, or each group: ``row|level, elpd_loo,
        p_loo, pareto_k``.
    largest_k
        Pareto k above which an estimate is not to be trusted: min(1 - 1 / log10(S), 0.7) for S
        draws.
    """

    group: str
    table: Table
    pointwise: Table
    largest_k: float

    @property
    def elpd(self) -> float:
        """The expected log predictive density."""
        return float(self.pointwise["elpd_loo"].sum())

    @property
    def bad(self) -> list[Any]:
        """The rows or levels whose Pareto k is too large (or not finite)."""
        good = self.pointwise["pareto_k"].fill_null(math.inf) <= self.largest_k
        return self.pointwise.filter(~good)[self.pointwise.columns[0]].to_list()

    def text(self) -> str:
        """The table as plain text."""
        return "\n".join([text_table(*self._rows()), f"  {self.table.caption}"])

    def _rows(self) -> tuple[list[str], list[list[Any]]]:
        rows = [[name, f"{v:.1f}", f"{se:.1f}"] for name, v, se in self.table.iter_rows()]
        return ["", "estimate", "SE"], rows

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return html_table("Cross-validation", *self._rows()) + html_note(self.table.caption)


@named_arguments({"reloo": "write refit=True"})
def loo(
    fit: Fit,
    group: str | None = None,
    *,
    nodes: int | None = None,
    thin: int = 1,
    refit: bool = False,
) -> Loo:
    """Leave-one-out cross-validation by Pareto-smoothed importance sampling (PSIS).

    How well the model predicts a row, or all rows of a group, that it has not seen. Random
    effects that belong to no other row (or group) are integrated over their distribution, draw
    by draw: given those of the posterior, which have seen the data that are left out, importance
    weights fail. The others, such as those of a crossed factor, stay at their draws.

    Parameters
    ----------
    fit
        By sampling.
    group
        A grouping factor of the model or a column of the data: its levels are left out one at a
        time, and the new level is predicted from its covariates alone. None leaves out single
        rows, of groups that stay known; effects of a term with a level for each row (an
        observation-level effect) are integrated.
    nodes
        Of the adaptive Gauss-Hermite rule, per effect; None takes 11, 7 or 5 for terms of one,
        two or three columns (7, 5 or 3 around terms that are nested in them). Terms of more
        columns have Laplace's approximation; linear models are exact.
    thin
        Use every ``thin``-th draw of each chain.
    refit
        Whether to sample again, by the same options, without each row or group whose Pareto k
        is too large (brms' ``reloo``): its elpd is then exact up to Monte Carlo error, and its
        ``pareto_k`` zero.

    Returns
    -------
    Loo
        Print it; ``table`` has the sums, ``pointwise`` every row or group, ``bad`` those that
        PSIS could not estimate.

    Raises
    ------
    ChoiceError
        For a fit by maximum likelihood, an unknown group, or terms that lie inside the groups
        and cross each other; for ``refit`` of a fit that is not by NUTS.
    DataError
        For a column with missing values, or with one level.
    FitError
        If the model cannot be sampled again, as without the only other level of a factor.

    References
    ----------
    Vehtari, Gelman and Gabry 2017, doi:10.1007/s11222-016-9696-4; Vehtari et al. 2024,
    jmlr.org/papers/v25/19-556.html; for groups Merkle, Furr and Rabe-Hesketh 2019,
    doi:10.1007/s11336-019-09679-0.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> m = bg.lmer("Reaction ~ Days + (Days|Subject)", bg.load_dataset("sleepstudy"))
    >>> fit = m.fit("nuts", seed=1)  # doctest: +SKIP
    >>> bg.loo(fit)  # doctest: +SKIP
    >>> bg.loo(fit, group="Subject")  # doctest: +SKIP
    """
    posterior = draws_of(fit, "loo", ", or fit.statistics for AIC and BIC")
    _check_whole("nodes", nodes)
    _check_whole("thin", thin)
    if not isinstance(refit, bool | np.bool_):
        raise ChoiceError(f"refit={refit!r}: give True or False")
    options = _nuts(posterior) if refit else None  # asked before the work is done
    model, design = fit.model, fit.model.design
    levels, index = levels_of(design, group)
    chains = chains_of(posterior, thin)
    if chains.size < 100:
        raise ChoiceError(
            f"loo has {chains.size} draws, too few for the tail of importance weights; use 100 or "
            f"more ({'a smaller thin=' if thin > 1 else 'draws='})"
        )
    from bayesglmm.post.integrated import nest, nested_terms  # compiled: loaded when called

    blocks = nest(design, nested_terms(design, index), index)
    if nodes is not None and (not blocks or model.likelihood.is_linear):
        raise ChoiceError(
            f"nodes={nodes}: nothing is integrated by quadrature here; leave it out, or leave out "
            "the levels of a grouping factor, group="
            if not blocks
            else f"nodes={nodes}: a linear model is integrated exactly; leave it out"
        )
    efficiency = _efficiency(posterior)
    parts = [
        _psis(likelihoods, efficiency)
        for likelihoods in _likelihoods(model, chains, index, len(levels), blocks, nodes)
    ]
    elpd, p, k = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    key = "row" if group is None else "level"
    method = (
        f"PSIS leave-one-{'row' if group is None else group}-out · {posterior.method}"
        f"{f', every {thin}th draw' if thin > 1 else ''}"
    )
    largest = min(1.0 - 1.0 / math.log10(chains.size), 0.7)
    note = f"{method} · log scale{_integral_note(model, blocks, nodes)}"
    bad = [levels[j] for j in np.flatnonzero(~(k <= largest))]
    if options is not None and bad:
        from bayesglmm.post.loo_refit import sample_without

        units = np.flatnonzero(~(k <= largest))
        named = dict(zip(units, bad, strict=True))
        found = sample_without(model, options, index, named, nodes, thin)
        p[units] += elpd[units] - found  # the log density of the whole posterior stays
        elpd[units], k[units] = found, 0.0
        note, bad = f"{note} · {len(units)} of {len(elpd)} {key}s sampled again without them", []
    sums = [elpd.sum(), p.sum(), -2.0 * elpd.sum()]
    spread = math.sqrt(len(elpd))
    errors = [spread * elpd.std(ddof=1), spread * p.std(ddof=1), 2.0 * spread * elpd.std(ddof=1)]
    return Loo(
        key if group is None else group,
        table(
            {"term": ["elpd_loo", "p_loo", "looic"], "estimate": sums, "std_error": errors},
            f"{note} · {_k_note(bad, len(levels), key, largest, _larger(design, group))}",
        ),
        table({key: levels, "elpd_loo": elpd, "p_loo": p, "pareto_k": k}, note),
        largest,
    )


def _nuts(posterior: SampledPosterior) -> NUTS:
    options = posterior.run.options
    if not isinstance(options, NUTS):
        raise ChoiceError(
            f"loo(refit=True) samples again by NUTS, and this fit is {posterior.method}; use "
            'model.fit("nuts")'
        )
    return options


def _check_whole(name: str, value: int | None) -> None:
    if value is None and name == "nodes":
        return
    check_whole(name, value)


def _likelihoods(
    model: Model,
    chains: Chains,
    index: Index,
    n_groups: int,
    blocks: tuple[Block, ...],
    nodes: int | None,
) -> Iterator[Array]:
    """(S, groups) log-likelihoods, in the order of the groups; rows come in parts."""
    from bayesglmm.post.integrated import group_likelihood

    n = model.design.n
    if blocks:
        yield group_likelihood(model, chains, index, n_groups, blocks, nodes)
    elif n_groups == n:
        for rows in row_blocks(n, chains.size):
            yield conditional(model, chains, rows)
    else:
        total = np.zeros((chains.size, n_groups))
        for rows in row_blocks(n, chains.size):
            np.add.at(total.T, index[rows], conditional(model, chains, rows).T)
        yield total


def _psis(likelihoods: Array, efficiency: float) -> tuple[Array, Array, Array]:
    """elpd, effective number of parameters and Pareto k of every column."""
    from arviz_stats.base import array_stats
    from scipy.special import logsumexp

    draws = likelihoods.T
    weights, k = array_stats.psislw(draws, r_eff=efficiency, axis=-1)
    elpd = logsumexp(weights + draws, axis=1)
    lpd = logsumexp(draws, axis=1) - math.log(draws.shape[1])
    return elpd, lpd - elpd, np.asarray(k, dtype=np.float64)


def _efficiency(posterior: SampledPosterior) -> float:
    """Mean relative effective sample size of the parameters, as ArviZ takes it."""
    from arviz_stats.base import array_stats

    names = ["beta", *(f"b_{t.name}" for t in posterior.design.random)]
    values = [posterior.run.values(name) for name in names]
    values += [posterior.component_draws.values]
    if values[0].shape[0] == 1:
        return 1.0
    flat = np.concatenate([v.reshape(*v.shape[:2], -1) for v in values], axis=2)
    ess = np.asarray(array_stats.ess(flat, chain_axis=0, draw_axis=1, method="mean"))
    with np.errstate(invalid="ignore"):
        share = float(np.nanmean(ess)) / (flat.shape[0] * flat.shape[1])
    return share if math.isfinite(share) else 1.0


def _integral_note(model: Model, blocks: tuple[Block, ...], nodes: int | None) -> str:
    if not blocks:
        return ""
    from bayesglmm.post.integrated import LARGEST_RULE, nodes_of

    linear, terms = model.likelihood.is_linear, model.design.random
    names = ", ".join(terms[f].name for block in blocks for f in block.terms)
    if linear:
        how = "exactly"
    elif any(block.K > LARGEST_RULE for block in blocks):
        how = "by Laplace's approximation where a term has more than three columns"
    else:
        rule = " x ".join(map(str, nodes_of(blocks, linear, nodes)))
        how = f"by adaptive Gauss-Hermite quadrature ({rule} nodes)"
    return f" · effects of {names} integrated {how}"


def _larger(design: Design, group: str | None) -> str:
    """A grouping factor to leave out instead of single rows; empty for none."""
    factors = [t.factor for t in design.random if design.n > t.J]
    return factors[0] if factors and group is None else ""


def _k_note(
    bad: list[Any],
    count: int,
    key: str,
    largest: float,
    larger: str,
) -> str:
    if not bad:
        return f"all Pareto k below {largest:.2f}"
    named = ", ".join(map(str, bad[:_NAMED])) + (", …" if len(bad) > _NAMED else "")
    remedy = (
        "loo(refit=True) samples again without them; ask whether the model allows for such outliers"
    )
    if larger:
        remedy += f"; loo(group={larger!r}) leaves out whole groups"
    return (
        f"Pareto k above {largest:.2f} in {len(bad)} of {count} {key}s ({named}): their elpd is "
        f"not reliable, mostly too high; {remedy}"
    )


def loo_compare(*models: Fit | Loo, group: str | None = None) -> Table:
    """Compare fits by their expected log predictive density, as ``loo::loo_compare`` in R.

    Parameters
    ----------
    models
        Two or more fits by sampling to the same response, or what :func:`loo` gave for them.
    group
        As for :func:`loo`, for fits.

    Returns
    -------
    Table
        The best first: ``model`` (its place among the arguments, with the formula for a fit),
        ``elpd_diff`` to the best with its ``se_diff`` (of the paired differences), ``elpd_loo``,
        ``se``, ``p_loo``, ``looic``, ``bad_k`` (how many Pareto k are too large).

    Raises
    ------
    ChoiceError
        For fewer than two, or fits of different responses, rows or groups.

    References
    ----------
    Vehtari, Gelman and Gabry 2017, doi:10.1007/s11222-016-9696-4. When a difference is small
    (below 4) or there are few units (below 100), its error is larger than ``se_diff`` says:
    Sivula, Magnusson, Matamoros and Vehtari 2025, arXiv:2008.10296.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> data = bg.load_dataset("sleepstudy")
    >>> fits = [bg.lmer(f"Reaction ~ {rhs}", data).fit("nuts", seed=1)
    ...         for rhs in ("Days + (1|Subject)", "Days + (Days|Subject)")]  # doctest: +SKIP
    >>> bg.loo_compare(*fits)  # doctest: +SKIP
    """
    from bayesglmm.fit import Fit

    if len(models) == 1 and isinstance(models[0], Sequence | Mapping):
        raise ChoiceError("loo_compare takes fits one by one: loo_compare(*fits)")
    if len(models) < 2:
        raise ChoiceError(f"loo_compare needs two fits or more; got {len(models)}")
    for model in models:
        if not isinstance(model, Fit | Loo):
            raise ChoiceError(
                f"loo_compare needs fits, or what loo() gave; got {type(model).__name__}"
            )
    fits = [model for model in models if isinstance(model, Fit)]
    for other in fits[1:]:
        _same_response(fits[0], other)
    found = [loo(model, group) if isinstance(model, Fit) else model for model in models]
    key = found[0].pointwise.columns[0]
    for k, one in enumerate(found[1:], start=2):
        same = one.group == found[0].group
        if not (same and one.pointwise[key].equals(found[0].pointwise[key])):
            raise ChoiceError(
                f"loo_compare needs the same units left out: the first left out "
                f"{found[0].pointwise.height} of {found[0].group!r}, number {k} "
                f"{one.pointwise.height} of {one.group!r}, or others"
            )
    names = [
        f"{k}: {model.model.formula}" if isinstance(model, Fit) else str(k)
        for k, model in enumerate(models, start=1)
    ]
    order = sorted(range(len(found)), key=lambda k: -found[k].elpd)
    best = found[order[0]].pointwise["elpd_loo"].to_numpy()
    rows: list[dict[str, Any]] = []
    for k in order:
        own = found[k].pointwise["elpd_loo"].to_numpy()
        elpd, p, looic = found[k].table.iter_rows()
        rows.append(
            {
                "model": names[k],
                "elpd_diff": float(np.sum(own - best)),
                "se_diff": float(math.sqrt(len(own)) * np.std(own - best, ddof=1)),
                "elpd_loo": elpd[1],
                "se": elpd[2],
                "p_loo": p[1],
                "looic": looic[1],
                "bad_k": len(found[k].bad),
            }
        )
    unit = "row" if found[0].group == "row" else found[0].group
    caption = f"Comparison by PSIS leave-one-{unit}-out · differences to the best, log scale"
    if len(best) < 100 or any(abs(row["elpd_diff"]) < 4.0 for row in rows[1:]):
        caption += " · under 100 units, or differences below 4: errors are larger than se_diff"
    return table(pl.DataFrame(rows).to_dict(), caption)


def _same_response(one: Fit, other: Fit) -> None:
    a, b = one.model.design, other.model.design
    if not np.array_equal(a.rows, b.rows) or not np.array_equal(a.y, b.y):
        raise ChoiceError(
            f"loo_compare needs fits of the same response and rows; {one.model.formula!r} and "
            f"{other.model.formula!r} used {a.n} and {b.n} rows, or their responses differ"
        )
