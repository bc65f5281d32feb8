"""The families and links by name."""

from __future__ import annotations

from dataclasses import replace

from bayesglmm.errors import ChoiceError, check_choice
from bayesglmm.families.binomial import BINOMIAL, _check_bernoulli, _draw_bernoulli
from bayesglmm.families.family import Family
from bayesglmm.families.gaussian import GAUSSIAN
from bayesglmm.families.links import LINKS, Link
from bayesglmm.families.poisson import POISSON

BERNOULLI = replace(
    BINOMIAL, name="bernoulli", has_trials=False, check=_check_bernoulli, draw=_draw_bernoulli
)

FAMILIES: dict[str, Family] = {
    family.name: family for family in (GAUSSIAN, BINOMIAL, BERNOULLI, POISSON)
}


def find_family(name: str | Family) -> Family:
    """The family of that name; a record of your own is taken as it is.

    Raises
    ------
    ChoiceError
        If there is none; the message names the nearest.

    Examples
    --------
    >>> find_family("poisson").links
    ('log', 'identity')
    """
    if isinstance(name, Family):
        return name
    check_choice("family", name, tuple(FAMILIES))
    return FAMILIES[name]


def find_link(family: Family, name: str = "default") -> Link:
    """The link of that name for a family; ``"default"`` is the family's first.

    Raises
    ------
    ChoiceError
        If the link is unknown or the family does not allow it.

    Examples
    --------
    >>> find_link(find_family("binomial")).name
    'logit'
    """
    if name == "default":
        return LINKS[family.links[0]]
    if name not in LINKS:
        check_choice("link", name, family.links)
    if name not in family.links:
        raise ChoiceError(
            f"link={name!r} is not available for family={family.name!r}; choose one of "
            f"{', '.join(map(repr, family.links))}"
        )
    return LINKS[name]
