"""Where the catalogue lies, and finding an entry by name or by path."""

from __future__ import annotations

from pathlib import Path

from bayesglmm.catalogue.entry import Entry, read_entry
from bayesglmm.catalogue.reader import CatalogueError
from bayesglmm.errors import nearest


def catalogue_folder() -> Path:
    """The folder of the bundled entries.

    An installed wheel has them inside the package; a checkout beside it.
    """
    package = Path(__file__).resolve().parent.parent
    inside = package / "models"
    return inside if inside.is_dir() else package.parent / "models"


def entry_names() -> tuple[str, ...]:
    """Names of the bundled entries, in alphabetical order.

    Examples
    --------
    >>> "titanic_glm" in entry_names()
    True
    """
    return tuple(sorted(path.stem for path in catalogue_folder().glob("*.toml")))


def find_entry(name: str) -> Path:
    """The file of an entry: a path to a TOML file, or the name of a bundled one.

    Raises
    ------
    CatalogueError
        If there is no such file, with the nearest name.
    """
    path = Path(name)
    if path.is_file():
        return path
    stem = path.stem if path.suffix == ".toml" else path.name
    bundled = catalogue_folder() / f"{stem}.toml"
    # A path into some other folder must not silently become a bundled entry of that name.
    if bundled.is_file() and path.parent in (Path(), Path("models")):
        return bundled
    names = entry_names()
    raise CatalogueError(
        f"there is no file and no bundled model {name!r}{nearest(stem, names)}; "
        f"bundled: {', '.join(names)}"
    )


def load_entries() -> tuple[Entry, ...]:
    """All bundled entries."""
    return tuple(read_entry(catalogue_folder() / f"{name}.toml") for name in entry_names())
