"""Which variables of a term get all their columns and which one fewer.

A variable whose columns add up to the constant (a factor) contains the intercept. Written as
"one fewer" plus "the constant", a term is a set of products; those that an earlier term spans are
left out, and the rest are put together again: a product with x reduced, and the same product
without x, make one with all columns of x. The columns are then of full rank unless the data
themselves are short of it (Smith, the Python package patsy, "From terms to columns").
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

__all__ = ["Product", "products_of"]

# The variables of a product, each with whether it has one column fewer.
Product = tuple[tuple[str, bool], ...]


def products_of(
    terms: Sequence[tuple[str, ...]], spanning: AbstractSet[str]
) -> tuple[tuple[Product, ...], ...]:
    """Decide the coding of every variable in every term.

    Parameters
    ----------
    terms
        The variables of each term, in order; the empty term is the intercept.
    spanning
        The variables whose columns add up to the constant.

    Returns
    -------
    tuple
        For each term the products of which its columns consist.

    Examples
    --------
    >>> products_of([(), ("f",), ("f", "x")], {"f"})
    (((),), ((('f', True),),), ((('f', False), ('x', False)),))
    """
    spanned: set[frozenset[tuple[str, bool]]] = set()
    out = []
    for term in terms:
        choices: list[tuple[tuple[str, bool] | None, ...]] = [
            ((name, True), None) if name in spanning else ((name, False),) for name in term
        ]
        every = [tuple(c for c in chosen if c) for chosen in itertools.product(*choices)]
        fresh = [product for product in every if frozenset(product) not in spanned]
        spanned.update(map(frozenset, fresh))
        out.append(_joined(fresh))
    return tuple(out)


def _joined(products: Iterable[Product]) -> tuple[Product, ...]:
    """Put together what differs by one reduced variable."""
    out: tuple[Product, ...] = ()
    for product in sorted(products, key=len):
        for shorter in out:
            extra = set(product) - set(shorter)
            if len(shorter) != len(product) - 1 or len(extra) != 1:
                continue
            name, reduced = next(iter(extra))
            if reduced:
                full = tuple((name, False) if v == (name, True) else v for v in product)
                out = _joined([*(p for p in out if p != shorter), full])
                break
        else:
            out = (*out, product)
    return out
