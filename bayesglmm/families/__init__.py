"""Response distributions and link functions, one record each."""

from bayesglmm.families.family import Family, Likelihood
from bayesglmm.families.links import LINKS, Link
from bayesglmm.families.registry import FAMILIES, find_family, find_link

__all__ = ["FAMILIES", "LINKS", "Family", "Likelihood", "Link", "find_family", "find_link"]
