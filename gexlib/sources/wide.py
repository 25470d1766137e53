"""Text tables of genes x samples that are too large to read at once: read in blocks, straight into samples x genes."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from gexlib.cohort import CohortError
from gexlib.sources.matrix import NULLS

BLOCK = 1 << 25  # bytes of text at a time


@contextmanager
def opened(path: str | Path) -> Iterator:
    """A file opened for its bytes, inflated where it is gzipped whatever its name says.

    Raises
    ------
    CohortError : no such file, or a gzip that turns out to be cut or damaged
    """
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if packed else raw as stream:
                yield stream
    except (OSError, EOFError, zlib.error) as error:
        found = (getattr(error, "strerror", None) or "the gzip is cut off or damaged").lower()
        raise CohortError(f"{path}: {found}; check the path, or fetch or copy the file again.") from error


def read_wide(
    path: str | Path,
    keep: Callable[[pd.Index], np.ndarray] | None = None,
    skip: re.Pattern | None = None,
    headers: int = 1,
    room: int = 1 << 10,
) -> tuple[pd.Index, pd.Index, np.ndarray, int]:
    """Read a tab-separated table of genes x samples; at no time is more than a block of its text in memory.

    Parameters
    ----------
    path : the file, gzipped or not; its first line names the samples, `headers` lines stand above the first gene
    keep : given the ids of the samples, which of them to read, (samples,) bool; all where it is left out
    skip : rows whose id matches it are no genes, and left out
    room : for how many genes to make room at first; more are taken, at the cost of a copy

    Returns
    -------
    samples, genes : ids in the order of the file
    X : float32, samples x genes; missing cells are NaN
    skipped : how many rows `skip` took

    Raises
    ------
    CohortError : the file is empty, cut, damaged or no table of numbers; the line is named
    """
    with opened(path) as stream:
        head = [stream.readline().decode("utf-8", "replace").rstrip("\r\n").split("\t") for _ in range(headers)]
        samples = pd.Index(head[0][1:], dtype=object)
        if not len(samples):
            raise CohortError(f"{path}: its first line names no samples; expected tab-separated sample ids.")
        kept = np.ones(len(samples), dtype=bool) if keep is None else keep(samples)
        if not kept.any():
            raise CohortError(f"{path}: none of its {len(samples)} samples is wanted; the first is '{samples[0]}'.")
        genes, skipped, line = [], 0, headers + 1
        X = np.empty((kept.sum(), room), dtype=np.float32)
        while text := stream.read(BLOCK):
            text += stream.readline()
            ids, values = _numbers(text, kept, samples, path, line)
            line += len(ids)
            real = ~ids.str.fullmatch(skip) if skip else np.ones(len(ids), dtype=bool)
            start, stop = len(genes), len(genes) + int(real.sum())
            while stop > X.shape[1]:
                X = _wider(X)
            X[:, start:stop] = values[real].T
            genes.extend(ids[real])
            skipped += int((~real).sum())
    if not genes:
        raise CohortError(f"{path}: there is a header and no gene below it; the file is cut: fetch it again.")
    return samples[kept], pd.Index(genes, dtype=object), X[:, : len(genes)], skipped


def _wider(X: np.ndarray) -> np.ndarray:
    """`X` with twice the columns, so that the number of genes need not be known."""
    wide = np.empty((len(X), 2 * X.shape[1]), dtype=X.dtype)
    wide[:, : X.shape[1]] = X
    return wide


def _numbers(
    text: bytes, kept: np.ndarray, samples: pd.Index, path: str | Path, line: int
) -> tuple[pd.Index, np.ndarray]:
    """The ids and the kept numbers, rows x samples, of whole lines of which the first has the number `line`."""
    text = text.replace(b"\r\n", b"\n").rstrip(b"\n")
    rows = text.count(b"\n") + 1
    if text.count(b"\t") != rows * len(samples):
        fields = [row.count(b"\t") for row in text.split(b"\n")]
        odd = next(i for i, found in enumerate(fields) if found != len(samples))
        raise CohortError(
            f"{path}: line {line + odd} has {fields[odd] + 1} fields; expected {len(samples) + 1}, as its header has; "
            f"is the file cut off? Fetch or copy it again."
        )
    columns = [0, *(1 + np.flatnonzero(kept)).tolist()]
    schema = {"0": pl.String} | {str(column): pl.Float32 for column in range(1, len(samples) + 1)}
    try:
        cells = pl.read_csv(
            text, has_header=False, separator="\t", columns=columns, schema=schema, null_values=NULLS, quote_char=None,
            encoding="utf8-lossy",
        )  # fmt: skip
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        word = re.search(r"`(.+)` as dtype `f32` at column '(\d+)'", reason)
        found = f"sample '{samples[int(word[2]) - 1]}' holds '{word[1]}'" if word else reason
        raise CohortError(f"{path}: {found}; expected bare numbers below line {line - 1}.") from error
    ids = cells["0"].to_pandas().astype(object).fillna("").astype(str)
    return pd.Index(ids), cells[:, 1:].to_numpy()
