"""Draws as parts of the file: a Zarr group, which other tools can open too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bayesglmm.model import Model

__all__ = ["is_tree", "layout_of", "observed", "tree_from", "tree_parts", "without_data"]

_DATA = ("observed_data", "constant_data")


def is_tree(value: object) -> bool:
    """Whether it is an xarray DataTree, without importing xarray."""
    kind = type(value)
    return kind.__name__ == "DataTree" and kind.__module__.startswith("xarray.")


def tree_parts(tree: Any, name: str) -> dict[str, bytes]:
    """The keys of a Zarr group ``name``, format 3."""
    from zarr.storage import MemoryStore

    keys: dict[str, Any] = {}
    store = MemoryStore(keys)
    # A chunk of zeros would be left out, and with it the sign of -0.
    tree.to_zarr(store, zarr_format=3, consolidated=False, write_empty_chunks=True)
    return {f"{name}/{key}": value.to_bytes() for key, value in keys.items()}


def layout_of(tree: Any) -> dict[str, list[list[str]]]:
    """By group the names of its variables and coordinates, in order: Zarr has no order."""
    return {
        group: [list(map(str, part)) for part in (tree[group].data_vars, tree[group].coords)]
        for group in tree.groups
    }


def tree_from(contents: Mapping[str, bytes], name: str, layout: Mapping[str, Any]) -> Any:
    """The DataTree again, in memory."""
    import xarray as xr
    from zarr.buffer.cpu import Buffer
    from zarr.storage import MemoryStore

    start = f"{name}/"
    keys: dict[str, Any] = {
        key.removeprefix(start): Buffer.from_bytes(value)
        for key, value in contents.items()
        if key.startswith(start)
    }
    store: Any = MemoryStore(keys, read_only=True)
    tree: Any = xr.open_datatree(store, engine="zarr", consolidated=False).load()
    ordered = {}
    for group, (variables, coords) in layout.items():
        part = tree[group].to_dataset(inherit=False)
        ordered[group] = xr.Dataset(
            {v: part[v].variable for v in variables}, {c: part[c] for c in coords}, part.attrs
        )
    return xr.DataTree.from_dict(ordered)


def without_data(tree: Any) -> Any:
    """The tree without the groups that hold the data."""
    return tree.filter(lambda node: node.name not in _DATA)


def observed(tree: Any, model: Model) -> Any:
    """The tree with the response, which was left out of the file."""
    import xarray as xr

    rows = np.asarray(model.design.rows)
    data = xr.Dataset({"y": ("obs", model.likelihood.y)}, coords={"obs": rows})
    return tree.assign({"observed_data": xr.DataTree(data)})
