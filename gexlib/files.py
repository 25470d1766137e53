"""Files written whole or not at all, and their checksums."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

REPORTED_VERSIONS = ("gexlib", "tensorflow", "keras", "jax", "scikit-learn", "numpy", "pandas", "anndata")


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not.

    Raises
    ------
    OSError : the disk is full or the folder cannot be written; `path` is then as it was before
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: object) -> None:
    """Write JSON whole or not at all; NaN and infinity, which JSON has no word for, are refused."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def sha256_of(path: str | Path) -> str:
    """The sha256 of a file, read in pieces."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def data_folder() -> Path:
    """Where downloads are kept: GEXLIB_DATA, or `data/` of the repository."""
    return Path(os.environ.get("GEXLIB_DATA") or home() / "data")


def home() -> Path:
    """The repository's root when the package runs from a checkout, else the current folder."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "notebooks").is_dir() else Path.cwd()


def reported_versions() -> dict[str, str]:
    """Versions of Python and of the packages that the numbers depend on, read without importing them."""
    return {"python": platform.python_version()} | {package: version(package) for package in REPORTED_VERSIONS}
