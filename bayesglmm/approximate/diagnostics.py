"""What an approximation says of itself, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAX_K_HAT = 0.7
_LARGE_SHIFT = 0.25  # posterior standard deviations
_MIN_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class LaplaceDiagnostics:
    """How far to trust the draws.

    Attributes
    ----------
    weights
        What the draws are weighted to: "exact", the posterior itself; "laplace", that of all but
        the random effects as Laplace's approximation gives it.
    k_hat
        Of these weights: below 0.5 good, below 0.7 usable, above it not to be trusted. It sees
        all errors if the weights are exact, and only those of the proposal if not.
    k_hat_exact, k_hat_laplace
        Of both kinds of weights; equal where the model needs no approximation.
    shift
        Largest difference that Laplace's approximation makes to a posterior mean, in posterior
        standard deviations, and the parameter that has it. With exact weights it is found by
        comparing both, and corrected; otherwise it is a rough upper bound of an error that
        remains.
    effective
        Kish's effective number of independent draws.
    distinct
        Number of draws that are not copies of another.
    proposals, candidates
        Points weighed, and draws of the random effects tried at each.
    seconds
        Wall time.
    notes
        Sentences with remedies; empty when all is well.
    """

    weights: Literal["exact", "laplace"]
    k_hat: float
    k_hat_exact: float
    k_hat_laplace: float
    shift: tuple[float, str]
    effective: float
    distinct: int
    proposals: int
    candidates: int
    seconds: float
    notes: tuple[str, ...]

    @property
    def trust(self) -> str:
        """How far to trust the draws, in a line."""
        k = f"k-hat {shown(self.k_hat)}"
        if not self.k_hat <= MAX_K_HAT:
            return f"{k}: do not trust these draws"
        value, name = self.shift
        if self.k_hat_exact == self.k_hat_laplace:
            return f"{k}: draws from the exact posterior"
        if self.weights == "exact":
            return (
                f"{k}: draws from the exact posterior; Laplace's approximation was off by up to "
                f"{value:.2f} sd ({name})"
            )
        return (
            f"{k}: draws from Laplace's approximation, off by less than about "
            f"{value:.2f} sd ({name}); exact weights fail (k-hat {shown(self.k_hat_exact)})"
        )


def shown(k_hat: float) -> str:
    """A k-hat as people read it; below zero all is as well as at zero."""
    return f"{max(k_hat, 0.0):.2f}"


def notes_on(k_hat: float, share: float, surely: float) -> tuple[str, ...]:
    """What needs attention.

    Parameters
    ----------
    share
        What one draw is worth.
    surely
        Error that remains, in posterior standard deviations, beyond doubt.
    """
    notes = []
    if not k_hat <= MAX_K_HAT:
        notes.append(
            f"Pareto k-hat is {k_hat:.2f} (should be below {MAX_K_HAT}): the draws miss part of "
            'the posterior. Use fit("nuts").'
        )
    elif share < _MIN_SHARE:
        notes.append(
            f"The draws are worth {share:.1%} as many independent ones: raise proposals=, or use "
            'fit("nuts").'
        )
    if surely > _LARGE_SHIFT:
        notes.append(
            f"Laplace's approximation is off by more than {surely:.2f} posterior sd for some "
            'parameter, and its error remains. Use fit("nuts").'
        )
    return tuple(notes)
