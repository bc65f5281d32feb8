"""Separation: do the fixed effects predict some outcomes without error?

Then the likelihood grows for ever along a direction d of the coefficients, and the estimates of
those that d moves are infinite. For links with a log-concave likelihood such a d exists if and
only if a linear programme has a solution (Albert & Anderson 1984, doi:10.1093/biomet/71.1.1;
Konis 2007, *Linear programming algorithms for detecting separated data in binary logistic
regression models*, DPhil thesis, Oxford; R's package detectseparation):

    x_i'd >= 0 where every outcome of row i is a success, x_i'd <= 0 where none is,
    x_i'd = 0 where there are both, and x_i'd != 0 for some i.

For counts with a log link, rows of zeros are the failures and all others the rows with both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayesglmm.design import Design, RandomTerm
from bayesglmm.design.fixed import INTERCEPT
from bayesglmm.families import Likelihood
from bayesglmm.laplace.covariance import components, covariance_of
from bayesglmm.laplace.estimate import Estimate
from bayesglmm.laplace.structure import Array

_LINKS = ("logit", "probit", "cloglog")
# The programme is solved only where a fitted mean is this close to its limit ...
_EXTREME = 1e-4
# ... and the data hold less than this information, relative to columns of unit length, on some
# direction: along d the weights of all rows vanish.
_INFORMATION = 1e-3
_WIDE = 6.0  # an sd on the link scale that few data call for: only then groups are looked at
_APART = 1e-4  # of the largest allowed |x_i'd|, which is one; below, it counts as zero


@dataclass(frozen=True, slots=True)
class Separation:
    """Rows that the fixed effects predict without error.

    Attributes
    ----------
    rows
        (n,) whether a direction of the coefficients sets the row apart.
    moved
        (p,) whether the estimate of the coefficient is infinite.
    alone
        (p,) whether the column separates all outcomes by itself, which says more.
    """

    rows: NDArray[np.bool_]
    moved: NDArray[np.bool_]
    alone: NDArray[np.bool_]

    @property
    def complete(self) -> bool:
        """Whether every outcome is predicted without error."""
        return bool(self.rows.all())


def judge_separation(estimate: Estimate, design: Design, likelihood: Likelihood) -> Estimate:
    """The estimate with a note on separation, if there is any.

    Standard errors of infinite estimates become NaN: the likelihood has no curvature along them.
    The others are those of the rows that are not set apart (Geyer 2009, doi:10.1214/08-EJS349).
    """
    if not can_separate(likelihood) or not suspected(design, likelihood, estimate.beta):
        return estimate
    found = find_separation(design.X, likelihood)
    if not found.rows.any():
        return estimate
    notes = (_note(found, design.names, likelihood), *estimate.outcome.notes)
    vcov = np.array(estimate.vcov)
    if not design.random:
        vcov = _remaining_covariance(
            design.X, likelihood.expected_weights(estimate.eta), ~found.rows
        )
    vcov[found.moved, :] = vcov[:, found.moved] = np.nan
    return replace(estimate, vcov=vcov, outcome=replace(estimate.outcome, notes=notes))


def judge_groups(estimate: Estimate, design: Design, likelihood: Likelihood) -> Estimate:
    """The estimate with a note where random effects separate the outcomes.

    If the effects of every level can predict its outcomes without error, nothing bounds their
    sds from above.
    """
    if not can_separate(likelihood) or not likelihood.family.is_probability:
        return estimate
    parts = components(covariance_of(design.random))
    wide = set()
    for c, sd in zip(parts, estimate.component_values, strict=False):
        if c.kind == "sd":
            column = design.random[c.term].Z[:, c.row]
            if sd * float(np.sqrt(column @ column / len(column))) > _WIDE:
                wide.add(c.term)
    notes = [
        f"Separation by {design.random[f].name}: its effects can predict the outcomes of every "
        "level without error, so nothing bounds their sd from above, and the estimate is an "
        'accident of the approximation. Fit with a prior: fit("nuts").'
        for f in sorted(wide)
        if _separates(design.random[f], likelihood)
    ]
    if not notes:
        return estimate
    notes.extend(estimate.outcome.notes)
    return replace(estimate, outcome=replace(estimate.outcome, notes=tuple(notes)))


def _separates(term: RandomTerm, likelihood: Likelihood) -> bool:
    """Whether for every level some effects b have z'b > 0 at successes and < 0 at failures."""
    from scipy.optimize import linprog

    counted = likelihood.w > 0.0
    y = likelihood.y
    if np.any(counted & (y > 0.0) & (y < 1.0)):
        return False  # a row with both
    Z = np.where(y > 0.0, 1.0, -1.0)[:, None] * term.Z
    order = np.argsort(term.index, kind="stable")
    for rows in np.split(Z[order], np.cumsum(np.bincount(term.index, minlength=term.J))[:-1]):
        if term.K == 1:
            if not ((rows > 0.0).all() or (rows < 0.0).all()):
                return False
        elif not linprog(
            np.zeros(term.K), -rows, -np.ones(len(rows)), bounds=[(None, None)] * term.K
        ).success:
            return False
    return True


def can_separate(likelihood: Likelihood) -> bool:
    """Whether the likelihood is one that separated outcomes leave without a maximum."""
    if likelihood.family.is_probability:
        return likelihood.link.name in _LINKS
    return likelihood.family.name == "poisson" and likelihood.link.name == "log"


def suspected(design: Design, likelihood: Likelihood, beta: Array) -> bool:
    """Whether the fit looks as if it were separated; costs one pass over the data.

    Parameters
    ----------
    beta
        (p,) where the search ended: with separated data far out, but finite.
    """
    if not design.p:
        return False
    eta = design.X @ beta
    mean = likelihood.link.inverse(eta)
    rest = np.minimum(mean, 1.0 - mean) if likelihood.family.is_probability else mean
    if rest.min(initial=1.0) > _EXTREME:
        return False
    weights = likelihood.expected_weights(eta) / likelihood.w
    Q = np.linalg.qr(design.X)[0]
    return bool(np.linalg.eigvalsh(Q.T @ (weights[:, None] * Q))[0] < _INFORMATION)


def find_separation(X: Array, likelihood: Likelihood) -> Separation:
    """Find every row that some direction sets apart, and the coefficients that are infinite.

    Parameters
    ----------
    X
        (n, p) of full rank.
    likelihood
        Binomial with a logit, probit or cloglog link, or Poisson with a log link.
    """
    y = likelihood.y
    failure = y == 0.0
    success = y == 1.0 if likelihood.family.is_probability else np.zeros(len(y), dtype=bool)
    # Rows with both kinds of outcome count twice, once as each.
    sides = np.concatenate([np.flatnonzero(~failure), np.flatnonzero(~success)])
    sign = np.concatenate([np.ones(int((~failure).sum())), -np.ones(int((~success).sum()))])
    Q = np.linalg.qr(X)[0] * np.sqrt(len(X))
    distinct, cell = np.unique(sign[:, None] * Q[sides], axis=0, return_inverse=True)
    apart = np.zeros(len(y), dtype=bool)
    apart[sides[_set_apart(distinct)[cell.reshape(-1)]]] = True
    alone = np.zeros(X.shape[1], dtype=bool)
    if apart.all():
        alone[:] = [_splits(x, failure, success) for x in X.T]
    return Separation(apart, _unbounded(X, ~apart), alone)


def _set_apart(rows: Array) -> NDArray[np.bool_]:
    """Which rows r have r'd > 0 for some d with r'd >= 0 for all rows.

    The programme maximises the sum of r'd, each at most one. What it leaves at zero may still be
    set apart by another direction: the rows found are taken out, since a large multiple of the
    direction found keeps them positive, and the rest is tried again.
    """
    from scipy.optimize import LinearConstraint, milp

    apart = np.zeros(len(rows), dtype=bool)
    while not apart.all():
        left = np.flatnonzero(~apart)
        solved = milp(
            -rows[left].sum(axis=0),
            constraints=LinearConstraint(rows[left], 0.0, 1.0),
            bounds=(-np.inf, np.inf),
        )
        if solved.x is None:
            break
        fresh = left[rows[left] @ solved.x > _APART]
        if not fresh.size:
            break
        apart[fresh] = True
    return apart


def _splits(x: Array, failure: NDArray[np.bool_], success: NDArray[np.bool_]) -> bool:
    """Whether a threshold on one column tells all outcomes apart."""
    if not failure.any() or not success.any():
        return False
    low, high = x[failure], x[success]
    return bool(low.max() < high.min() or high.max() < low.min())


def _unbounded(X: Array, rest: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(p,) the coefficients that the other rows do not determine."""
    values, Vt = _spectrum(X[rest] / np.linalg.norm(X, axis=0))
    return np.asarray(np.abs(Vt[len(values) :]).max(axis=0, initial=0.0) > 1e-6)


def _remaining_covariance(X: Array, weights: Array, rest: NDArray[np.bool_]) -> Array:
    """(X'WX)^-1 of the other rows, on the coefficients that they determine."""
    size = np.linalg.norm(X, axis=0)
    values, Vt = _spectrum(np.sqrt(weights[rest])[:, None] * X[rest] / size)
    half = Vt[: len(values)] / values[:, None] / size
    return np.asarray(half.T @ half)


def _spectrum(X: Array) -> tuple[Array, Array]:
    """The singular values that are not zero, and all right singular vectors, (p, p)."""
    *_, values, Vt = np.linalg.svd(np.linalg.qr(X, mode="r"))
    return values[values > 1e-8 * values.max(initial=0.0)], Vt


def _note(found: Separation, names: tuple[str, ...], likelihood: Likelihood) -> str:
    rows, n = int(found.rows.sum()), len(found.rows)
    alone = bool(found.alone.any())
    chosen = found.alone if alone else found.moved
    shown = [name for name, there in zip(names, chosen, strict=True) if there]
    # The intercept moves along with whatever it is that separates: it is not named.
    shown = [name for name in shown if name != INTERCEPT] or shown
    many, several = len(shown) > 1, int(found.moved.sum()) > 1
    who = ", ".join(shown[:8]) + (", …" if len(shown) > 8 else "")
    who += (" (each alone)" if alone else " (together)") if many else ""
    if np.ptp(likelihood.y) == 0.0:
        what = f"all {n} outcomes are the same"
    elif likelihood.family.is_probability:
        count = f"all {n} rows" if rows == n else f"{rows} of the {n} rows"
        what = f"{who} separate{'' if many else 's'} the outcomes of {count}"
    else:
        what = f"{who} set{'' if many else 's'} apart {rows} of the {n} rows, which have no events"
    return (
        f"{'Complete' if found.complete else 'Quasi-complete'} separation: {what}, so the "
        + ("estimates are infinite and their" if several else "estimate is infinite and its")
        + f" standard error{'s' if several else ''} meaningless. Remove the predictor, merge its "
        'levels, or fit with a prior: fit("nuts").'
    )
