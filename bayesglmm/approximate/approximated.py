"""A finished approximation of the posterior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayesglmm.approximate.diagnostics import LaplaceDiagnostics
from bayesglmm.approximate.options import Laplace
from bayesglmm.laplace.optimise import Optimum

if TYPE_CHECKING:
    from bayesglmm.model import Model

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Approximated:
    """A finished approximation.

    Attributes
    ----------
    model
        What was fitted.
    variables
        Draws by name, (1, draws, ...), as NUTS names them.
    options
        As asked for, with the seed and the proposals that were used.
    diagnostics
        What the approximation says of itself.
    mode
        Covariance parameters t (log sds, atanh partial correlations, log sigma; see
        `bayesglmm.nuts.scales`) and, unless they are integrated out (Gaussian response),
        coefficients at the marginal mode, and the log posterior there, up to no constant that
        depends on them.
    """

    model: Model
    variables: Mapping[str, Array]
    options: Laplace
    diagnostics: LaplaceDiagnostics
    mode: Optimum

    def values(self, name: str) -> Array:
        """Draws of one variable, (1, draws, ...)."""
        return self.variables[name]

    @property
    def tree(self) -> Any:
        """The draws as an ArviZ DataTree."""
        from bayesglmm.nuts.tree import build_tree

        return build_tree(self.model, self.variables, {})
