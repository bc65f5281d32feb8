"""One file of named parts: written whole or not at all, read with every checksum verified.

The file is an ordinary zip archive. Its first part, ``manifest.json``, names the format and
carries the SHA-256 of all others.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import time
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from bayesglmm.errors import FileError, nearest

__all__ = ["FORMAT", "read", "write"]

FORMAT = 1
"""Version of the format that this package writes; it reads this and all earlier ones."""

_NAME = "bayesglmm fit"
_MANIFEST = "manifest.json"
_BROKEN = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, KeyError),
    *(NotImplementedError, RuntimeError, ValueError, OSError, MemoryError, TypeError),
)


def write(
    path: str | os.PathLike[str],
    parts: Mapping[str, bytes],
    versions: Mapping[str, str],
    overwrite: bool,
) -> Path:
    """Write the parts under a temporary name beside ``path``, then rename.

    Parameters
    ----------
    path
        Where to; the name is taken as it is.
    parts
        Contents by name.
    versions
        Of the software, kept in the manifest.
    overwrite
        Whether a file that is there may be replaced.

    Returns
    -------
    Path
        Where the file is.

    Raises
    ------
    FileError
        If the file exists and ``overwrite`` is false, or it cannot be written. What was there
        before is left as it was.
    """
    target = _path(path)
    temporary = target.with_name(f".bayesglmm-{secrets.token_hex(8)}.part")
    try:
        _check_target(target, overwrite)
        with open(temporary, "xb") as file:
            _archive(file, parts, versions)
            file.flush()
            os.fsync(file.fileno())
        _check_target(target, overwrite)
        os.replace(temporary, target)
    except FileError:
        raise
    except OSError as problem:
        raise FileError(f"{str(target)!r} cannot be written: {problem}") from problem
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync_directory(target.parent)
    return target


def read(path: str | os.PathLike[str]) -> tuple[dict[str, bytes], dict[str, str]]:
    """The parts of a file, and the versions of the software that wrote it.

    Raises
    ------
    FileError
        If there is no such file, it is none of ours, it is of a later format, or anything in it
        is missing or damaged.
    """
    target = _path(path)
    shown = repr(str(target))
    try:
        file = open(target, "rb")  # noqa: SIM115
    except FileNotFoundError:
        raise FileError(f"there is no file {shown}{_nearby(target)}") from None
    except IsADirectoryError:
        raise FileError(f"{shown} is a directory; a saved fit is one file") from None
    except OSError as problem:
        raise FileError(f"{shown} cannot be read: {problem}") from problem
    with file:
        try:
            return _parts(file, shown)
        except FileError:
            raise
        except _BROKEN as problem:
            reason = str(problem).strip("'\"") or type(problem).__name__
            raise FileError(
                f"{shown} is damaged or incomplete ({reason}); take a copy of it, or save the fit "
                "again"
            ) from None


def _parts(file: io.BufferedReader, shown: str) -> tuple[dict[str, bytes], dict[str, str]]:
    foreign = f"{shown} is not a saved fit; fit.save(path) writes them"
    start = file.read(2)
    if not start:
        raise EOFError("the file is empty")
    if start != b"PK":
        raise FileError(foreign)
    with zipfile.ZipFile(file) as archive:
        if _MANIFEST not in archive.namelist():
            raise FileError(foreign)
        manifest = json.loads(archive.read(_MANIFEST))
        if not isinstance(manifest, dict) or manifest.get("format") != _NAME:
            raise FileError(foreign)
        versions = {str(k): str(v) for k, v in manifest["versions"].items()}
        if int(manifest["version"]) > FORMAT:
            raise FileError(
                f"{shown} was saved in format {manifest['version']} by bayesglmm "
                f"{versions.get('bayesglmm', '?')}; this version reads formats up to {FORMAT}. "
                "Update bayesglmm"
            )
        parts = {}
        for name, digest in manifest["parts"].items():
            parts[name] = archive.read(name)
            if hashlib.sha256(parts[name]).hexdigest() != digest:
                raise zipfile.BadZipFile(f"wrong checksum of {name}")
        return parts, versions


def _archive(
    file: io.BufferedWriter, parts: Mapping[str, bytes], versions: Mapping[str, str]
) -> None:
    manifest = {
        "format": _NAME,
        "version": FORMAT,
        "versions": dict(versions),
        "parts": {name: hashlib.sha256(part).hexdigest() for name, part in parts.items()},
    }
    first = {_MANIFEST: json.dumps(manifest, indent=1, ensure_ascii=False).encode()}
    now = time.localtime()[:6]
    with zipfile.ZipFile(file, "w") as archive:
        for name, part in (first | dict(parts)).items():
            info = zipfile.ZipInfo(name, now)
            info.external_attr = 0o644 << 16
            # Arrays and draws hardly shrink, or are compressed already.
            info.compress_type = (
                zipfile.ZIP_DEFLATED if name.endswith(".json") else zipfile.ZIP_STORED
            )
            archive.writestr(info, part)


def _path(path: str | os.PathLike[str]) -> Path:
    """The file itself where the path is a link to it."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        shown = repr(path) if isinstance(path, str | int | float | None) else type(path).__name__
        raise FileError(f"path is {shown}; give the name of a file, e.g. 'fit.bglmm'")
    return Path(os.path.realpath(os.fspath(path)))


def _check_target(target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise FileError(f"{str(target)!r} is a directory; give the name of a file")
    if not target.parent.is_dir():
        raise FileError(f"there is no directory {str(target.parent)!r}; make it first")
    if not overwrite and target.exists():
        raise FileError(
            f"{str(target)!r} exists; save(path, overwrite=True) replaces it, or give another name"
        )


def _nearby(target: Path) -> str:
    if not target.parent.is_dir():
        return f": there is no directory {str(target.parent)!r}"
    try:
        return nearest(target.name, sorted(os.listdir(target.parent)))
    except OSError:
        return ""


def _sync_directory(folder: Path) -> None:
    """Make the new name outlast a power cut, where directories can be synchronised."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
