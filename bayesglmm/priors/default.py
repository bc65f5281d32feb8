"""Default priors, scaled to the data, and the user's changes to them.

The scales are rstanarm's (Goodrich, Gabry, Ali & Brilleman, vignette "Prior distributions"):
wide enough to say little, narrow enough to keep every model proper. With s_y the sd of the
response for the identity link (unless the mean is a probability) and 1 on the link scale otherwise:

- intercept, at the mean of the covariates: Normal(g(mean y), 2.5 s_y);
- slopes: Normal(0, 2.5 s_y / s_x), s_x the sd of that column of X; without an intercept both
  are root mean squares about zero, because coefficients then carry the level of the response;
- sds of random effects and the residual sd: HalfStudentT(3, 2.5 s_y);
- correlations: LKJ(2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesglmm.design import Design
from bayesglmm.design.fixed import INTERCEPT
from bayesglmm.errors import ChoiceError, DataError, nearest
from bayesglmm.families import Likelihood
from bayesglmm.priors.prior import LKJ, Flat, HalfFlat, HalfStudentT, Normal, Prior


@dataclass(frozen=True, slots=True)
class Priors:
    """The prior of every parameter of a model.

    Attributes
    ----------
    coefficients
        One per column of X. The intercept's prior is on the linear predictor at the mean of
        the other columns (as in rstanarm and brms), the others' on the coefficient itself.
    sds
        For each random-effects term, one per column.
    correlations
        One per term; used where the term has correlated columns.
    sigma
        One element where the family has a scale, else empty.
    """

    coefficients: tuple[Prior, ...]
    sds: tuple[tuple[Prior, ...], ...]
    correlations: tuple[LKJ, ...]
    sigma: tuple[Prior, ...]

    def table(self, design: Design) -> dict[str, Prior]:
        """Priors by the name under which they can be set."""
        out: dict[str, Prior] = dict(zip(design.names, self.coefficients, strict=True))
        for term, sds, corr in zip(design.random, self.sds, self.correlations, strict=True):
            out |= {f"sd:{term.name}:{c}": p for c, p in zip(term.columns, sds, strict=True)}
            if term.correlated and len(term.columns) > 1:
                out[f"corr:{term.name}"] = corr
        if self.sigma:
            out["sigma"] = self.sigma[0]
        return out


def default_priors(design: Design, likelihood: Likelihood) -> Priors:
    """The documented defaults for a design."""
    y = likelihood.y
    spread = float(_sd(y[:, None])[0]) if len(y) > 1 else 1.0
    on_response = likelihood.link.name == "identity" and not likelihood.family.is_probability
    s_y = (spread if spread > 0 else 1.0) if on_response else 1.0
    centre = float(likelihood.link.link(np.array(likelihood.inside()))) - float(
        np.mean(design.offset)
    )
    s_x = _sd(design.X) if design.n > 1 else np.ones(design.p)
    s_b = s_y
    if INTERCEPT not in design.names:
        # Coefficients then carry the level of the response too (cell means, lines through zero):
        # both spreads are taken about zero.
        s_x = np.sqrt(np.mean(design.X**2, axis=0))
        s_b = float(np.hypot(s_y, centre))
    coefficients: list[Prior] = []
    for name, scale in zip(design.names, s_x, strict=True):
        if name == INTERCEPT:
            coefficients.append(Normal(centre, 2.5 * s_y))
        else:
            coefficients.append(Normal(0.0, 2.5 * s_b / (float(scale) if scale > 0 else 1.0)))
    half = HalfStudentT(3.0, 2.5 * s_y)
    return Priors(
        tuple(coefficients),
        tuple(tuple(half for _ in term.columns) for term in design.random),
        tuple(LKJ(2.0) for _ in design.random),
        (HalfStudentT(3.0, 2.5 * (spread if spread > 0 else 1.0)),)
        if likelihood.family.has_scale
        else (),
    )


def _sd(X: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviations of columns, (p,), in blocks of rows: no copy of X is made."""
    mean = X.mean(axis=0)
    total = np.zeros(X.shape[1])
    for start in range(0, len(X), 1 << 16):
        total += ((X[start : start + (1 << 16)] - mean) ** 2).sum(axis=0)
    return np.asarray(np.sqrt(total / (len(X) - 1)))


def flat_priors(design: Design, likelihood: Likelihood) -> Priors:
    """Constant densities on coefficients and sds, uniform correlations: the likelihood alone."""
    return Priors(
        tuple(Flat() for _ in design.names),
        tuple(tuple(HalfFlat() for _ in term.columns) for term in design.random),
        tuple(LKJ(1.0) for _ in design.random),
        (HalfFlat(),) if likelihood.family.has_scale else (),
    )


def choose_priors(
    design: Design, likelihood: Likelihood, given: str | Mapping[str, Prior]
) -> Priors:
    """The defaults, ``"flat"``, or the defaults with some replaced by name.

    Parameters
    ----------
    given
        ``"default"``, ``"flat"``, or a mapping from names to priors. Names are coefficient
        names, ``"slopes"`` (all coefficients but the intercept), ``"sd:GROUP"``,
        ``"sd:GROUP:COLUMN"``, ``"corr:GROUP"`` and ``"sigma"``.

    Raises
    ------
    ChoiceError
        If a name matches nothing (with the nearest that would), or a prior does not fit the
        support of its parameter.
    DataError
        If a prior is not one of this package's records.
    """
    if isinstance(given, str):
        if given not in ("default", "flat"):
            raise ChoiceError(
                f"priors={given!r} is not known; give 'default', 'flat', or a mapping such as "
                "{'(Intercept)': bg.Normal(0, 5)}"
            )
        return (default_priors if given == "default" else flat_priors)(design, likelihood)
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ChoiceError(
            f"priors={given!r}: give 'default', 'flat', or a mapping from names of parameters to "
            "priors, such as {'(Intercept)': bg.Normal(0, 5)}"
        )
    priors = default_priors(design, likelihood)
    coefficients = list(priors.coefficients)
    sds = [list(term) for term in priors.sds]
    correlations, sigma = list(priors.correlations), list(priors.sigma)
    slopes = [k for k, name in enumerate(design.names) if name != INTERCEPT]
    # The general before the particular, whatever the order they are written in.
    for name in sorted(given, key=lambda key: (key != "slopes", key.count(":"))):
        prior = given[name]
        if not isinstance(prior, Prior):
            raise DataError(
                f"priors[{name!r}] is {type(prior).__name__}, not a prior; use bg.Normal, "
                "bg.StudentT, bg.Exponential, bg.HalfNormal, bg.LKJ, ..."
            )
        if name in design.names:
            _needs(name, prior, "real")
            coefficients[design.names.index(name)] = prior
        elif name == "slopes":
            _needs(name, prior, "real")
            for k in slopes:
                coefficients[k] = prior
        elif name == "sigma" and sigma:
            _needs(name, prior, "positive")
            sigma = [prior]
        elif name in design.all_names:
            raise ChoiceError(
                f"priors[{name!r}]: this coefficient cannot be estimated and is not in the model "
                f"({'; '.join(c for c in design.aliased if c.startswith(f'{name} = '))}); set "
                "the priors of the coefficients it is a combination of"
            )
        elif not _set_group_prior(design, name, prior, sds, correlations):
            allowed = [*design.names, "slopes", *(["sigma"] if sigma else [])]
            for term in design.random:
                allowed += [f"sd:{term.name}", *(f"sd:{term.name}:{c}" for c in term.columns)]
                if term.correlated and len(term.columns) > 1:
                    allowed.append(f"corr:{term.name}")
            raise ChoiceError(
                f"priors[{name!r}] matches no parameter{nearest(name, allowed)}; this model has "
                f"{', '.join(map(repr, allowed))}"
            )
    return Priors(
        tuple(coefficients),
        tuple(tuple(term) for term in sds),
        tuple(correlations),
        tuple(sigma),
    )


def _needs(name: str, prior: Prior, support: str) -> None:
    if prior.support != support:
        what = {
            "real": "a coefficient: a prior on the whole line such as bg.Normal(0, 5)",
            "positive": "a standard deviation: a prior on the positive half-line such as "
            "bg.HalfNormal(1) or bg.Exponential(1)",
            "correlation": "a correlation matrix: bg.LKJ(2)",
        }[support]
        raise ChoiceError(f"priors[{name!r}] = {prior!r}, but {name!r} is {what}")


def _set_group_prior(
    design: Design, name: str, prior: Prior, sds: list[list[Prior]], correlations: list[LKJ]
) -> bool:
    """Set ``sd:GROUP``, ``sd:GROUP:COLUMN`` or ``corr:GROUP``; False if the name is none."""
    for f, term in enumerate(design.random):
        if name == f"corr:{term.name}" and term.correlated and len(term.columns) > 1:
            _needs(name, prior, "correlation")
            assert isinstance(prior, LKJ)
            correlations[f] = prior
            return True
        for k, column in enumerate(term.columns):
            if name in (f"sd:{term.name}", f"sd:{term.name}:{column}"):
                _needs(name, prior, "positive")
                sds[f][k] = prior
        if name in (f"sd:{term.name}", *(f"sd:{term.name}:{c}" for c in term.columns)):
            return True
    return False
