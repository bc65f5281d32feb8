"""The full posterior by the No-U-Turn sampler; `sampler.py` loads the compiled kernels."""

from bayesglmm.nuts.diagnostics import Diagnostics
from bayesglmm.nuts.options import NUTS
from bayesglmm.nuts.sampled import Sampled

__all__ = ["NUTS", "Diagnostics", "Sampled"]
