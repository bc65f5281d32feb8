"""The values of all parameters of a model: of a fit, of a posterior draw, or by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesglmm.design import Design, RandomTerm
from bayesglmm.errors import ChoiceError, DataError, nearest
from bayesglmm.families import Likelihood
from bayesglmm.laplace.covariance import components, covariance_of
from bayesglmm.post.check import check_fit
from bayesglmm.post.tables import params as coefficients
from bayesglmm.post.tables import varcorr
from bayesglmm.priors.default import flat_priors

if TYPE_CHECKING:
    from bayesglmm.fit import Fit
    from bayesglmm.laplace import Estimate
    from bayesglmm.posterior.sampled import SampledPosterior

__all__ = ["Parameters", "drawn", "estimated", "named", "param_values"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Parameters:
    """One value of every parameter.

    Attributes
    ----------
    beta
        (p,) coefficients, link scale.
    factors
        (K_f, K_f) lower-triangular F of every term: its effects have covariance F F', link scale.
    sigma
        Scale of the family (1 for none): for the Gaussian the residual sd of a row of weight 1.
    effects
        (J_f, K_f) random effects of every term, link scale; empty where there are none to go on.
    """

    beta: Array
    factors: tuple[Array, ...]
    sigma: float
    effects: tuple[Array, ...] = ()


def estimated(design: Design, estimate: Estimate) -> Parameters:
    """The maximum-likelihood estimates, with the conditional modes as effects."""
    # By sds and correlations: what theta is relative to depends on the model.
    sds = [np.zeros(term.K) for term in design.random]
    corrs = [np.eye(term.K) for term in design.random]
    parts = components(covariance_of(design.random))
    for part, value in zip(parts, estimate.component_values, strict=False):
        if part.kind == "sd":
            sds[part.term][part.row] = value
        elif np.isfinite(value):  # not with an sd of zero, where it makes no difference
            corrs[part.term][part.row, part.column] = value
            corrs[part.term][part.column, part.row] = value
    factors = tuple(covariance_factor(sd, corr) for sd, corr in zip(sds, corrs, strict=True))
    return Parameters(estimate.beta, factors, estimate.sigma, estimate.modes)


def drawn(posterior: SampledPosterior, at: int) -> Parameters:
    """Posterior draw number ``at``, counted through the chains one after the other."""
    run = posterior.run

    def value(name: str) -> Array:
        values = run.values(name)
        return np.asarray(values.reshape(len(values) * values.shape[1], *values.shape[2:])[at])

    factors, effects = [], []
    for term in posterior.design.random:
        sd = value(f"sd_{term.name}")
        corr = value(f"corr_{term.name}") if term.correlated and term.K > 1 else np.eye(term.K)
        factors.append(covariance_factor(sd, corr))
        effects.append(value(f"b_{term.name}"))
    sigma = float(value("sigma")) if "sigma" in run.tree["posterior"] else 1.0
    return Parameters(value("beta"), tuple(factors), sigma, tuple(effects))


def covariance_factor(sd: Array, corr: Array) -> Array:
    """Lower-triangular F with F F' = diag(sd) corr diag(sd), singular ones included."""
    values, vectors = np.linalg.eigh(corr)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    lower = np.linalg.qr(root.T, mode="r").T
    return np.asarray(sd[:, None] * (lower * np.where(np.diag(lower) < 0.0, -1.0, 1.0)))


def named(design: Design, likelihood: Likelihood, params: Mapping[str, object]) -> Parameters:
    """Parameters from a mapping by name, every one of them.

    Parameters
    ----------
    design, likelihood
        Say which parameters there are.
    params
        Coefficients by name; ``"sd:GROUP"`` a number for a term of one column, else a mapping
        from columns to numbers, or ``"sd:GROUP:COLUMN"``; ``"corr:GROUP"`` a number (for every
        pair), a (K, K) matrix, or a mapping from pairs of columns; ``"sigma"``.

    Raises
    ------
    ChoiceError
        For a name that matches nothing, with the nearest that would, or is given twice.
    DataError
        For a parameter that is missing, a value that is none, or correlations that no
        distribution has.
    """
    if not isinstance(params, Mapping):
        raise DataError(
            f"params is {type(params).__name__}; give a mapping such as "
            "{'(Intercept)': 1.0, 'sd:subject': 0.5, 'sigma': 1.0}"
        )
    wanted = list(flat_priors(design, likelihood).table(design))
    found: dict[str, object] = {}
    for key, value in params.items():
        for name, part in _parts(design, str(key), value).items():
            if name not in wanted:
                raise ChoiceError(
                    f"params[{name!r}] matches no parameter{nearest(name, wanted)}; "
                    f"this model has {_listed(wanted)}"
                )
            if name in found:
                raise ChoiceError(f"params gives {name!r} twice; give it once")
            found[name] = part
    missing = [name for name in wanted if name not in found]
    if missing:
        raise DataError(f"params lacks {_listed(missing)}; this model has {_listed(wanted)}")
    factors = []
    for term in design.random:
        sd = [_number(f"sd:{term.name}:{c}", found, low=0.0) for c in term.columns]
        corr = np.eye(term.K)
        if f"corr:{term.name}" in wanted:
            corr = _correlations(term, found[f"corr:{term.name}"])
        factors.append(covariance_factor(np.array(sd), corr))
    sigma = _number("sigma", found, low=0.0) if "sigma" in wanted else 1.0
    if sigma == 0.0:
        raise DataError("params['sigma'] is 0; give a positive number, however small")
    return Parameters(
        np.array([_number(name, found) for name in design.names]), tuple(factors), sigma
    )


def param_values(fit: Fit) -> dict[str, float | dict[tuple[str, str], float]]:
    """The estimates of a fit by name, as :func:`bayesglmm.simulate_new` takes them.

    With them a fit is simulated from with some values changed, or for other data, such as a
    larger sample: ``params={**fit.param_values, "x": 0.5}``.

    Returns
    -------
    dict
        Coefficients (link scale), ``sd:GROUP:COLUMN``, ``corr:GROUP`` as a mapping from pairs of
        columns, ``sigma``. Of draws the posterior means. A correlation that is not defined,
        because an sd is zero, is 0.

    Examples
    --------
    >>> import bayesglmm as bg
    >>> fit = bg.lmer("Reaction ~ Days + (1|Subject)", bg.load_dataset("sleepstudy")).fit()
    >>> {name: round(value, 1) for name, value in bg.param_values(fit).items()}
    {'(Intercept)': 251.4, 'Days': 10.5, 'sd:Subject:(Intercept)': 36.0, 'sigma': 30.9}
    """
    check_fit(fit, "param_values")
    out: dict[str, float | dict[tuple[str, str], float]] = {}
    out |= {
        row["term"]: row["estimate"]
        for row in coefficients(fit).iter_rows(named=True)
        if row["term"] in fit.model.design.names  # aliased ones are not simulated from
    }
    if not (fit.model.design.random or fit.model.family.has_scale):
        return out
    for row in varcorr(fit).iter_rows(named=True):
        if row["kind"] == "residual":
            out["sigma"] = row["estimate"]
        elif row["kind"] == "sd":
            out[f"sd:{row['group']}:{row['term']}"] = row["estimate"]
        else:
            pairs = out.setdefault(f"corr:{row['group']}", {})
            assert isinstance(pairs, dict)
            # Rounding may carry the estimate of a singular fit past 1.
            pairs[row["term"], row["term2"]] = min(max(row["estimate"] or 0.0, -1.0), 1.0)
    return out


def _parts(design: Design, key: str, value: object) -> dict[str, object]:
    """``sd:GROUP`` as its columns; any other name as it is."""
    for term in design.random:
        if key == f"sd:{term.name}" and key not in design.names:
            if isinstance(value, Mapping):
                return {f"{key}:{column}": part for column, part in value.items()}
            if term.K > 1:
                columns = ", ".join(f"{c!r}: ..." for c in term.columns)
                raise DataError(
                    f"params[{key!r}] = {value!r}, but {term.name!r} has {term.K} columns; give a "
                    f"mapping {{{columns}}}"
                )
            return {f"{key}:{term.columns[0]}": value}
    return {key: value}


def _number(name: str, found: Mapping[str, object], low: float = -np.inf) -> float:
    return _checked(f"params[{name!r}]", found[name], low, np.inf)


def _checked(what: str, value: object, low: float, high: float) -> float:
    """One finite number within bounds."""
    number = np.nan
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        number = float(value)
    if not (np.isfinite(number) and low <= number <= high):
        kind = {0.0: "a number of at least 0", -1.0: "a number from -1 to 1"}
        raise DataError(f"{what} = {value!r}; give {kind.get(low, 'a number')}")
    return number


def _correlations(term: RandomTerm, value: object) -> Array:
    """The (K, K) correlation matrix of a term."""
    what, K = f"params['corr:{term.name}']", term.K
    corr = np.eye(K)
    pairs = [(j, i) for i in range(K) for j in range(i)]
    if isinstance(value, Mapping):
        for j, i in pairs:
            one, two = term.columns[j], term.columns[i]
            both = [key for key in ((one, two), (two, one)) if key in value]
            if len(both) != 1:
                raise DataError(f"{what}: give one number under the pair {(one, two)!r}")
            corr[i, j] = corr[j, i] = _checked(f"{what}[{both[0]!r}]", value[both[0]], -1.0, 1.0)
        known = {frozenset((term.columns[j], term.columns[i])) for j, i in pairs}
        for key in value:
            if not isinstance(key, tuple) or frozenset(key) not in known:
                raise ChoiceError(
                    f"{what}[{key!r}] is no pair of columns of {term.name!r}, which has "
                    f"{_listed(term.columns)}"
                )
    elif np.ndim(value) == 0:  # type: ignore[arg-type]
        for j, i in pairs:
            corr[i, j] = corr[j, i] = _checked(what, value, -1.0, 1.0)
    else:
        corr = np.asarray(value, dtype=np.float64)
        if corr.shape != (K, K):
            raise DataError(f"{what} has shape {corr.shape}; {term.name!r} needs ({K}, {K})")
        if not np.all(np.diag(corr) == 1.0) or not np.array_equal(corr, corr.T):
            raise DataError(f"{what} is not a symmetric matrix with ones on its diagonal")
    if not np.isfinite(corr).all() or np.linalg.eigvalsh(corr)[0] < -1e-10:
        raise DataError(f"{what}: no distribution has these correlations together")
    return corr


def _listed(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(map(repr, names))
