"""The full posterior by the No-U-Turn sampler."""

from bayesglmm.nuts.diagnostics import Diagnostics
from bayesglmm.nuts.options import NUTS
from bayesglmm.nuts.sampler import Sampled, sample

__all__ = ["NUTS", "Diagnostics", "Sampled", "sample"]
