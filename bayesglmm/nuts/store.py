"""Draws on disk while they come: a directory of small zarr groups that only ever grows.

    store/lock                         held by the process that samples into it
    store/specification.json           what was asked for
    store/used.json                    what was chosen: coordinates, warm-up
    store/chain-0/block-00000000/      draws of the first chain from the first on: a zarr group
    store/chain-0/block-00000400/      draws from 400 on, and so forth

Every file or directory is written under another name and renamed when it is complete, so that a
process may die at any moment: what is there under its name is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np
from filelock import FileLock, Timeout

from bayesglmm.errors import ChoiceError, FileError, FitError
from bayesglmm.nuts.options import NUTS
from bayesglmm.nuts.run import Block

if TYPE_CHECKING:
    from bayesglmm.model import Model

_FORMAT = 1
_FILE, _USED, _LOCK = "specification.json", "used.json", "lock"
# What may differ between the calls that make one run.
_FREE = ("draws", "min_ess", "cores", "progress", "store", "seed")

Specification = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Used:
    """What was chosen for a run.

    Attributes
    ----------
    kind
        The coordinates, in words.
    size
        How many there are.
    centred
        Parameterisation of each random-effects term in plain coordinates.
    settings
        Fields of :class:`bayesglmm.NUTS` with the values chosen for them.
    """

    kind: str
    size: int
    centred: Mapping[str, bool]
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Store:
    """An open store: a :class:`bayesglmm.nuts.run.Keeper`.

    Attributes
    ----------
    path
        The directory.
    seed
        The seed of the run it holds.
    lock
        Held until :meth:`close`, or until the process ends, however it ends.
    """

    path: Path
    seed: int
    lock: FileLock = field(compare=False, repr=False)

    def close(self) -> None:
        """Let other processes sample into it."""
        self.lock.release()

    @property
    def used(self) -> Used:
        """What was chosen for the run it holds."""
        return Used(**json.loads((self.path / _USED).read_text(encoding="utf-8")))

    def settle(self, used: Used) -> None:
        """Keep what was chosen, or see that it is the same.

        Raises
        ------
        ChoiceError
            If it is not.
        """
        if not (self.path / _USED).exists():
            _write(self.path / _USED, asdict(used))
        elif (there := self.used) != used:
            apart = [
                f"{name}={there.settings.get(name)!r}, now {now!r}"
                for name, now in used.settings.items()
                if there.settings.get(name) != now
            ]
            if (there.kind, there.size) != (used.kind, used.size) or not apart:
                apart = [
                    f"{there.kind} ({there.size} parameters), now {used.kind} ({used.size})",
                    *apart,
                ]
            raise ChoiceError(
                f"store={str(self.path)!r} holds draws that another version chose to sample in "
                f"another way ({'; '.join(apart)}); give a new directory"
            )

    def blocks(self, chain: int) -> list[Block]:
        """Blocks of a chain on disk, in order, up to the first gap.

        Raises
        ------
        FileError
            If something is missing from a block, or cannot be read.
        """
        import zarr

        out: list[Block] = []
        for at in sorted((self.path / f"chain-{chain}").glob("block-*")):
            start = int(at.name.removeprefix("block-"))
            if start != (out[-1].stop if out else 0):
                break
            try:
                group = zarr.open_group(at, mode="r")
                if any(array.nchunks_initialized < array.nchunks for _, array in group.arrays()):
                    raise ValueError("a piece is missing")
                found = {unquote(name): np.asarray(array[:]) for name, array in group.arrays()}
                last = found["last"]
            except Exception as error:  # whatever zarr and its codecs raise
                raise FileError(
                    f"store={str(self.path)!r}: chain {chain} cannot be read from draw {start} on "
                    f"({error}). Restore {str(at)!r}, or delete it and what follows in its folder: "
                    "the draws are then taken again"
                ) from error
            parts: dict[str, dict[str, Any]] = {"posterior": {}, "sample_stats": {}}
            for name, values in found.items():
                kind, _, variable = name.partition("/")
                if kind in parts:
                    parts[kind][variable] = values
            out.append(Block(start, parts["posterior"], parts["sample_stats"], last))
        return out

    def write(self, chain: int, block: Block) -> None:
        """Write a block under another name, then rename it.

        Raises
        ------
        FitError
            If it is there already: another process samples into the same store.
        """
        import zarr

        folder = self.path / f"chain-{chain}"
        folder.mkdir(exist_ok=True)
        unfinished = folder / f"unfinished-{os.getpid()}"
        group = zarr.open_group(unfinished, mode="w")
        for name, values in {
            **{f"posterior/{name}": values for name, values in block.values.items()},
            **{f"sample_stats/{name}": values for name, values in block.statistics.items()},
            "last": block.last,
        }.items():
            group.create_array(
                quote(name, safe=""),
                data=np.ascontiguousarray(values),
                config={"write_empty_chunks": True},  # so that a lost one is missed
            )
        try:
            unfinished.rename(folder / f"block-{block.start:08d}")
        except OSError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise FitError(
                f"store={str(self.path)!r} already holds draw {block.start} of chain {chain}: "
                "another process samples into it. Wait for it, or give another directory."
            ) from error


def specification(model: Model, options: NUTS) -> dict[str, Any]:
    """What has to be the same for draws to belong together, as JSON values."""
    design = model.design
    asked = {
        f"NUTS option {f.name}": _plain(getattr(options, f.name))
        for f in fields(options)
        if f.name not in _FREE
    }
    return {
        "format": _FORMAT,
        "formula": model.formula,
        "family": model.family.name,
        "link": model.link.name,
        "rows of data": design.n,
        "data": _fingerprint(model),
        "priors": {name: repr(prior) for name, prior in model.priors.table(design).items()},
        **asked,
    }


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _fingerprint(model: Model) -> str:
    """SHA-256 of everything the likelihood is computed from, and of the names of it."""
    design, total = model.design, hashlib.sha256()
    arrays = [design.y, design.X, design.offset, design.total_weights]
    names = [*design.names]
    for term in design.random:
        arrays += [np.asarray(term.index, dtype=np.int64), term.Z]
        names += [term.name, *term.columns, *map(str, term.levels)]
    for array in arrays:
        total.update(repr((array.dtype.str, array.shape)).encode())
        total.update(np.ascontiguousarray(array).tobytes())
    total.update(json.dumps(names).encode())
    return total.hexdigest()


def open_store(path: str | os.PathLike[str], wanted: Specification, seed: int | None) -> Store:
    """Open a store, or make one; without draws of another model, data or options.

    Parameters
    ----------
    wanted
        :func:`specification` of the run.
    seed
        Of the run; None takes that of the store, or a fresh one for a new store.

    Raises
    ------
    ChoiceError
        If the directory holds something else, and what differs, or another process samples into
        it.
    """
    folder = Path(path)
    file = folder / _FILE
    if not file.exists():
        empty = folder.is_dir() and all(
            f.name.startswith("unfinished-") or f.name == _LOCK for f in folder.iterdir()
        )
        if folder.exists() and not empty:
            raise ChoiceError(
                f"store={str(path)!r} is not a store of draws, and not empty; give a new directory"
            )
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0.0)
    except Timeout:
        raise ChoiceError(
            f"store={str(path)!r} is in use: another process samples into it. Wait for it, or "
            "give another directory"
        ) from None
    try:
        found = _opened(path, file, wanted, seed)
    except BaseException:
        lock.release()
        raise
    for folder_of_chain in folder.glob("chain-*"):  # left by processes that were killed
        for unfinished in folder_of_chain.glob("unfinished-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
    return Store(folder, found, lock)


def _opened(path: Any, file: Path, wanted: Specification, seed: int | None) -> int:
    """The seed of a store, which is a new one or that of another run of the same."""
    if not file.exists():
        seed = secrets.randbelow(2**31) if seed is None else seed
        _write(file, {**wanted, "seed": seed})
        return seed
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        found = int(stored["seed"])
    except (ValueError, KeyError, TypeError):
        raise ChoiceError(
            f"store={str(path)!r}: {_FILE} cannot be read; give a new directory"
        ) from None
    _compare(path, stored, wanted)
    if seed is not None and seed != found:
        raise ChoiceError(
            f"store={str(path)!r} holds draws with seed={found}, and this is seed={seed}; leave "
            "seed= out to go on, or give a new directory"
        )
    return found


def _write(file: Path, content: Mapping[str, Any]) -> None:
    temporary = file.with_name(f"unfinished-{os.getpid()}.json")
    temporary.write_text(json.dumps(content, indent=2), encoding="utf-8")
    temporary.replace(file)


def _compare(path: str | os.PathLike[str], stored: Specification, wanted: Specification) -> None:
    plain = json.loads(json.dumps(wanted))
    different = [key for key in plain if stored.get(key) != plain[key]]
    if not different:
        return
    key = different[0]
    said = f"its {key} is {_shown(stored.get(key))}, and this is {_shown(plain[key])}"
    if key == "data":
        said = "its data are not these data"
    elif key == "priors":
        there, here = stored.get(key, {}), plain[key]
        name = next(n for n in {**there, **here} if there.get(n) != here.get(n))
        said = f"its prior of {name!r} is {there.get(name)}, and this is {here.get(name)}"
    raise ChoiceError(
        f"store={str(path)!r} holds draws of another run: {said}. Fit as before, or give a new "
        "directory."
    )


def _shown(value: object) -> str:
    return "left to the default" if value is None else repr(value)
