"""What a fit knows of its parameters: a Gaussian (ML) or draws (NUTS)."""

from bayesglmm.posterior.draws import Draws
from bayesglmm.posterior.gaussian import Gaussian

__all__ = ["Draws", "Gaussian"]
