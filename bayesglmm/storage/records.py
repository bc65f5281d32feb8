"""Records to JSON with arrays beside it, and back: no pickle, nothing is executed.

Only the record classes listed here are made again, by name and fields. A new kind of posterior
is saved once its records are in the list.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayesglmm.design import Design
from bayesglmm.errors import ChoiceError, FileError
from bayesglmm.laplace.structure import Structure
from bayesglmm.storage.draws import is_tree, layout_of, tree_from, tree_parts

if TYPE_CHECKING:
    from bayesglmm.model import Model

__all__ = ["Parts", "decode", "encode"]

Json = Any
_SUFFIX = ".npy"


@lru_cache(maxsize=1)
def _records() -> Mapping[str, type]:
    """Every record that can be in a file, by name."""
    from bayesglmm import priors
    from bayesglmm.approximate import Laplace, LaplaceDiagnostics
    from bayesglmm.approximate.approximated import Approximated
    from bayesglmm.design import codings
    from bayesglmm.design.recipe import Recipe
    from bayesglmm.laplace.estimate import Estimate
    from bayesglmm.laplace.factor import Factor
    from bayesglmm.laplace.optimise import Optimum
    from bayesglmm.laplace.options import ML
    from bayesglmm.laplace.outcome import Outcome
    from bayesglmm.nuts import Sampled
    from bayesglmm.nuts.diagnostics import Diagnostics
    from bayesglmm.nuts.options import NUTS
    from bayesglmm.posterior.approximated import LaplacePosterior
    from bayesglmm.posterior.ml import MLPosterior
    from bayesglmm.posterior.sampled import SampledPosterior

    known: list[type] = [Recipe, priors.Priors, *priors.Prior.__subclasses__()]
    known = [r for r in known if r.__module__.startswith("bayesglmm.")]
    known += [type(coding) for coding in codings.CODINGS.values()] + [codings.Hypotheses]
    known += [ML, Estimate, Factor, Outcome, MLPosterior]
    known += [NUTS, Sampled, Diagnostics, SampledPosterior]
    known += [Laplace, Approximated, LaplaceDiagnostics, Optimum, LaplacePosterior]
    return {record.__name__: record for record in known}


@dataclass(frozen=True, slots=True)
class Parts:
    """What goes beside the JSON: contents by name, collected by `encode`."""

    contents: dict[str, bytes] = field(default_factory=dict)

    def add_array(self, name: str, array: NDArray[Any]) -> None:
        """Keep an array in NumPy's own format."""
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, array, allow_pickle=False)
        self.contents[name + _SUFFIX] = buffer.getvalue()

    def array(self, name: str) -> NDArray[Any]:
        """An array again."""
        buffer = io.BytesIO(self.contents[name + _SUFFIX])
        return np.asarray(np.lib.format.read_array(buffer, allow_pickle=False))


def encode(value: object, name: str, parts: Parts) -> Json:
    """A value as JSON; its arrays and draws go to ``parts``, under names that start with ``name``.

    Raises
    ------
    ChoiceError
        For anything that is not one of this package's records, or made of them.

    Examples
    --------
    >>> from bayesglmm import Normal
    >>> encode({"x": Normal(0, 2.5)}, "priors", Parts())
    {'mapping': {'x': {'record': 'Normal', 'mean': 0, 'sd': 2.5}}}
    """
    from bayesglmm.model import Model

    if value is None or isinstance(value, bool | str) or type(value) is int:
        return value
    if isinstance(value, np.generic):
        return {"numpy": value.dtype.str, "value": encode(value.item(), name, parts)}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        parts.add_array(name, value)
        return {"array": name}
    if is_tree(value):
        parts.contents.update(tree_parts(value, name))
        return {"draws": {"name": name, "layout": layout_of(value)}}
    if isinstance(value, tuple | list):
        return [encode(v, f"{name}/{k}", parts) for k, v in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        return {"mapping": {k: encode(v, f"{name}/{k}", parts) for k, v in value.items()}}
    if isinstance(value, os.PathLike):
        return {"path": os.fspath(value)}
    if isinstance(value, Model):
        return {"again": "model"}
    if isinstance(value, Design):
        return {"again": "design"}
    if isinstance(value, Structure):
        return {"again": "structure", "value": _outline(value)}
    if is_dataclass(value) and _records().get(type(value).__name__) is type(value):
        kept = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        if type(value) is _records()["Factor"]:  # the other triangle was never written
            kept["S"] = np.tril(kept["S"])
        return {
            "record": type(value).__name__,
            **{k: encode(v, f"{name}/{k}", parts) for k, v in kept.items()},
        }
    raise ChoiceError(
        f"{name.replace('/', '.')} is {type(value).__module__}.{type(value).__qualname__}, which "
        "cannot be saved: a file holds only this package's own records, so that it can be loaded "
        "without the code that made the fit"
    )


def decode(json: Json, parts: Parts, model: Model | None = None) -> Any:
    """The value again; ``model`` stands for itself, its design and the structure of its terms.

    Raises
    ------
    FileError
        If a record or field is unknown or missing: another version of the package wrote it.
    """
    if json is None or isinstance(json, bool | int | float | str):
        return json
    if isinstance(json, list):
        return tuple(decode(v, parts, model) for v in json)
    if "record" in json:
        return _record(json, parts, model)
    ((kind, content),) = [(k, v) for k, v in json.items() if k != "value"]
    if kind == "mapping":
        return {k: decode(v, parts, model) for k, v in content.items()}
    if kind == "array":
        return parts.array(content)
    if kind == "float":
        return float(content)
    if kind == "numpy":
        return np.dtype(content).type(decode(json["value"], parts))
    if kind == "path":
        return Path(content)
    if kind == "draws":
        return tree_from(parts.contents, content["name"], content["layout"])
    if kind == "again" and model is not None:
        if content == "structure":
            return _structure(json["value"], model.design)
        if content in ("model", "design"):
            return model if content == "model" else model.design
    raise FileError(
        f"the file holds a {kind!r}, which this version does not know; update bayesglmm"
    )


def _outline(structure: Structure) -> Json:
    """What decides the meaning of a factor's flat arrays."""
    return [list(structure.order), structure.n_chain, structure.values, structure.q]


def _structure(outline: Json, design: Design) -> Structure:
    structure = design.structure
    if _outline(structure) != outline:
        raise FileError(
            "this version of bayesglmm eliminates the random effects in another order than the "
            "one that saved the fit; fit the model again, or load it with that version"
        )
    return structure


def _record(json: Mapping[str, Json], parts: Parts, model: Model | None) -> Any:
    name = json["record"]
    record = _records().get(name)
    if record is None:
        raise FileError(
            f"the file holds a {name}, which this version does not know; update bayesglmm"
        )
    known = {f.name: f for f in fields(record) if f.init}
    given = {k: v for k, v in json.items() if k != "record"}
    required = {
        k for k, f in known.items() if f.default is MISSING and f.default_factory is MISSING
    }
    if unknown := sorted(set(given) - set(known)):
        raise FileError(
            f"{name} has no field {', '.join(unknown)} in this version of bayesglmm; a later "
            "version saved it: update bayesglmm"
        )
    if missing := sorted(required - set(given)):
        raise FileError(
            f"the file's {name} lacks {', '.join(missing)}: an earlier version of bayesglmm saved "
            "it; fit the model again, or load it with that version"
        )
    return record(**{k: decode(v, parts, model) for k, v in given.items()})
