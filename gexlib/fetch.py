"""Downloads: whole or not at all, resumable, with a checksum recorded at the first and verified at every later call.

`download` brings one address to one verified file and knows nothing of sources. What belongs to a name, and where it
is, says one function a source, listed in FETCHERS.
"""

from __future__ import annotations

import gzip
import itertools
import json
import logging
import os
import re
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from gexlib.cohort import CohortError, nearest
from gexlib.files import data_folder, sha256_of, write_json

CHECKSUMS = "checksums.json"
# Seconds without a byte; attempts; seconds before the second, then doubled; bytes that a cut connection loses at most
SETTINGS = SimpleNamespace(timeout=30.0, tries=4, wait=1.0, chunk=1 << 14)
GEO = "https://ftp.ncbi.nlm.nih.gov/geo"  # static files
GEO_QUERY = "https://www.ncbi.nlm.nih.gov/geo/query/acc.cgi"  # the only place of a platform's table without its samples
GEO_LICENCE = "NCBI places no restriction on GEO data; submitters may hold rights"
COLUMNS = ["name", "what", "release", "size", "licence", "notebook"]
SOURCES = [
    ("geo:GSE85047", "283 primary neuroblastomas, GPL5175, INSS stage", "latest", "some 100 MB", GEO_LICENCE, "01"),
    ("geo:GSE<number>", "any GEO series that has a series matrix", "latest", "by series", GEO_LICENCE, ""),
    ("geo:GSE<number>-GPL<number>", "one platform of a series of several", "latest", "by series", GEO_LICENCE, ""),
]


class FetchError(CohortError):
    """A download that did not work. The message names the address or file, and what to do."""


class _Passing(Exception):
    """A fault that the next attempt may not meet."""


def list_sources() -> pd.DataFrame:
    """What `fetch` can download: name, what, release, size, licence, and the notebook that uses it."""
    return pd.DataFrame(SOURCES, columns=COLUMNS)


def fetch(name: str) -> list[Path]:
    """Download a public cohort into the data folder, or verify what is there already; the expression file comes first.

    Raises
    ------
    FetchError : unknown name, or a download that did not work
    """
    prefix = str(name).partition(":")[0]
    if prefix not in FETCHERS:
        raise FetchError(f"no source '{name}' to fetch from ({nearest(name, list_sources()['name'])}).")
    return FETCHERS[prefix](name)


def fetch_geo(name: str) -> list[Path]:
    """The series matrix of ``geo:GSE85047`` (or ``geo:GSE781-GPL96``) and, where it has values, its platform's table.

    The submitter's table is taken, because NCBI's shorter annotation lacks `gene_assignment`.
    """
    matrix = _geo_matrix(name)
    series = matrix.parent.name
    thousands = re.sub(r"\d{1,3}$", "nnn", series)
    download(f"{GEO}/series/{thousands}/{series}/matrix/{matrix.name}", matrix)
    text = gzip.decompress(matrix.read_bytes())
    platform = re.search(rb'\n!Sample_platform_id\t"?(GPL\d+)', text)
    if platform is None or re.search(rb"\n!series_matrix_table_begin\n[^\n]*\n!", text):
        return [matrix]
    gpl = platform[1].decode()
    query = f"{GEO_QUERY}?acc={gpl}&targ=self&form=text&view=data"
    return [matrix, download(query, matrix.with_name(f"{gpl}.txt"), end=b"!platform_table_end")]


def cached_geo(name: str) -> Path:
    """The series matrix that `fetch` has placed, verified like its neighbours; FetchError where there is none."""
    matrix = _geo_matrix(name)
    if not matrix.is_file():
        raise FetchError(
            f"{name}: nothing is cached in {matrix.parent}; run `python -m gexlib fetch {name}` on a machine with "
            f"network (GEXLIB_DATA says where it is kept, and that folder can be copied)."
        )
    for file in _checksums(matrix.parent):
        _verify(matrix.with_name(file))
    return matrix


def _geo_matrix(name: str) -> Path:
    found = re.fullmatch(r"geo:((GSE\d+)(-GPL\d+)?)", str(name))
    if found is None:
        raise FetchError(f"'{name}' is no GEO series; expected geo:GSE and a number, such as geo:GSE85047.")
    return data_folder() / "geo" / found[2] / f"{found[1]}_series_matrix.txt.gz"


FETCHERS = {"geo": fetch_geo}


def download(url: str, path: Path, end: bytes = b"") -> Path:
    """Bring one address to one file, or verify the file that is there; the first time its checksum is recorded.

    Until it is whole, ``<name>.part`` keeps what has arrived, and only the rest is asked for. A .gz is whole by its
    own sum; another file where `end` stands within its last 256 bytes.

    Raises
    ------
    FetchError : no network, no such file, a web page in place of data, a changed file, or a full disk
    """
    known = _checksums(path.parent).get(path.name, {}).get("sha256")
    if not path.is_file():
        _place(url, path, known, end)
    elif damage := not known and _damage(path, end):
        raise FetchError(f"{path}: {damage}; remove the file and fetch it again.")
    if known:
        _verify(path)
    else:
        entry = {"sha256": sha256_of(path), "bytes": path.stat().st_size, "address": url}
        write_json(path.parent / CHECKSUMS, _checksums(path.parent) | {path.name: entry})
    return path


def _checksums(folder: Path) -> dict[str, dict]:
    path = folder / CHECKSUMS
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except (ValueError, TypeError):
        raise FetchError(f"{path} is not readable JSON; remove it, and the next fetch records the sums anew.") from None


def _verify(path: Path) -> None:
    known = _checksums(path.parent)[path.name]["sha256"]
    if path.is_file() and (found := sha256_of(path)) != known:
        raise FetchError(
            f"{path} has changed since its download: its sha256 is {found}, {CHECKSUMS} records {known}; remove the "
            f"file and fetch it again, or its entry from {CHECKSUMS} if the change is meant."
        )


def _place(url: str, path: Path, known: str | None, end: bytes) -> None:
    """Let pooch place the file and compare its sum; the downloader is ours because pooch starts every one anew."""
    import pooch

    part = path.with_name(path.name + ".part")
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        pooch.retrieve(
            url, known, path.name, path.parent, downloader=lambda _, to, __: os.replace(_arrive(url, part, end), to)
        )
    except FetchError:
        raise
    except ValueError as error:
        raise FetchError(
            f"{url} is no longer the file whose sha256 {known} is recorded ({error}); to accept the new one, remove "
            f"the entry '{path.name}' from {path.parent / CHECKSUMS} and fetch again."
        ) from None
    except OSError as error:
        raise FetchError(f"cannot write {path}: {error}; free the disk or set GEXLIB_DATA elsewhere.") from None


def _arrive(url: str, part: Path, end: bytes) -> Path:
    """Attempt after attempt until `part` is whole."""
    reason = ""
    for attempt in range(SETTINGS.tries):
        time.sleep(SETTINGS.wait * 2 ** (attempt - 1) if attempt else 0)
        try:
            _transfer(url, part)
            if not (damage := _damage(part, end)):
                return part
            part.unlink()
            reason = f"it arrived, but {damage}"
        except _Passing as error:
            reason = str(error)
    kept = f" ({part.name} keeps what arrived, and the same command goes on from there)" if part.exists() else ""
    raise FetchError(f"{url}: {reason}; gave up after {SETTINGS.tries} attempts. Try again later{kept}.")


def _transfer(url: str, part: Path) -> None:
    """One attempt: add to `part` what it lacks."""
    import requests
    import urllib3

    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=SETTINGS.timeout) as response:
            _receive(response, url, part)
    except (requests.Timeout, urllib3.exceptions.TimeoutError):
        raise _Passing(f"the server sent nothing for {SETTINGS.timeout:g} s") from None
    except urllib3.exceptions.HTTPError:
        raise _Passing("the connection was cut") from None
    except requests.RequestException as error:
        raise _Passing(f"the server cannot be reached ({type(error).__name__}); is there a network?") from None


def _receive(response, url: str, part: Path) -> None:
    from tqdm import tqdm

    status, answer = response.status_code, f"the server answers {response.status_code} ({response.reason})"
    if status == 416:  # what was kept does not fit the server's file
        part.unlink(missing_ok=True)
    if status in (416, 429) or status >= 500:
        raise _Passing(answer)
    if status >= 400:
        raise FetchError(f"{url}: {answer}; is the name right? `python -m gexlib fetch --list` shows the forms.")
    chunks = response.raw.stream(SETTINGS.chunk, decode_content=False)  # the bytes as stored: a .gz stays one
    first = next(chunks, b"")
    if status == 200 and is_web_page(first):
        raise FetchError(f"{url}: the server sent a web page in place of data; is the name right, and public?")
    total = int(response.headers.get("Content-Length", 0)) or None
    bar = tqdm(desc=part.stem, total=total, unit="B", unit_scale=True, disable=None, leave=False)
    with open(part, "ab" if status == 206 else "wb") as stream, bar:
        for chunk in itertools.chain([first], chunks):
            bar.update(stream.write(chunk))


def _damage(path: Path, end: bytes) -> str:
    """What is wrong with a file that may have the right length and still be cut or mixed; empty where nothing is."""
    last = b""
    try:
        with gzip.open(path) if ".gz" in path.suffixes else open(path, "rb") as stream:
            while chunk := stream.read(1 << 20):
                last = (last + chunk)[-256:]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return f"the gzip is damaged or cut ({error})"
    if not last:
        return "the file is empty"
    return "" if end in last else f"the file is cut: it does not end in {end.decode()}"


def is_web_page(start: bytes) -> bool:
    """True where the first bytes of a file are those of an HTML page."""
    return re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|\?xml)", start, re.IGNORECASE) is not None
