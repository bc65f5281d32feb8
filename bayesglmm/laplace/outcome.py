"""How a fit ended, in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an optimisation.

    Attributes
    ----------
    converged
        Whether the gradient vanished.
    gradient_norm
        Largest gradient entry (for a model without random effects, the Newton decrement).
    evaluations
        Evaluations of the objective with its gradient.
    trace
        Best log-likelihood after each iteration.
    singular
        Names of variance components estimated at the boundary (an sd of zero, or effects
        perfectly correlated).
    redundant
        Names of variance components that the data cannot tell apart (a flat direction).
    notes
        Sentences for the reader, each with what to do; empty when all is well.
    """

    converged: bool
    gradient_norm: float
    evaluations: int
    trace: tuple[float, ...]
    singular: tuple[str, ...] = ()
    redundant: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
