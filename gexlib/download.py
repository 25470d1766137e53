"""One address brought to one file: whole or not at all, resumable, its checksum recorded at the first download.

`pooch` places the file and compares its sum; the transfer is ours because pooch starts every one anew.
"""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import itertools
import json
import logging
import os
import re
import threading
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

from gexlib.cohort import CohortError
from gexlib.files import sha256_of, write_json

CHECKSUMS = "checksums.json"
# Seconds without a byte; attempts; seconds before the second, then doubled; bytes that a cut connection loses at most;
# the longest wait, in seconds, that a server may ask for
SETTINGS = SimpleNamespace(timeout=30.0, tries=4, wait=1.0, chunk=1 << 14, patience=120.0)
RECORDING = threading.Lock()


class FetchError(CohortError):
    """A download that did not work. The message names the address or file, and what to do."""


class NotThereError(FetchError):
    """The server has no such file, or none that is public: status 403, 404 or 410."""


class _Passing(Exception):
    """A fault that the next attempt may not meet; `wait` is how many seconds the server asked for."""

    def __init__(self, reason: str, wait: float = 0.0):
        super().__init__(reason)
        self.wait = wait


def download(url: str, path: Path, end: bytes = b"", md5: str = "") -> Path:
    """Bring one address to one file, or verify the file that is there; the first time its checksum is recorded.

    Until it is whole, ``<name>.part`` keeps what has arrived, and only the rest is asked for. A .gz is whole by its
    own sum; another file where `end` stands within its last 256 bytes (a line end: as its last byte); either must have
    the `md5` that is given.

    Raises
    ------
    NotThereError : the server has no such file
    FetchError : no network, a web page in place of data, a wrong md5, a changed file, or a full disk
    """
    known = _checksums(path.parent).get(path.name, {}).get("sha256")
    if not path.is_file():
        _place(url, path, known, end, md5)
    elif damage := not known and _damage(path, end, md5):
        raise FetchError(f"{path}: {damage}; remove the file and fetch it again.")
    if known:
        _verify(path)
    else:
        record(path, url)
    return path


def record(path: Path, address: str) -> None:
    """Write the checksum of a file, and where it is from, into the list of its folder; `cached` verifies it."""
    entry = {"sha256": sha256_of(path), "bytes": path.stat().st_size, "address": address}
    with RECORDING:
        write_json(path.parent / CHECKSUMS, _checksums(path.parent) | {path.name: entry})


def forget(path: Path) -> None:
    """Remove a downloaded file and its checksum, so that the next `fetch` asks for it anew."""
    path.unlink(missing_ok=True)
    with RECORDING:
        others = {file: entry for file, entry in _checksums(path.parent).items() if file != path.name}
        write_json(path.parent / CHECKSUMS, others)


def cached(name: str, path: Path) -> Path:
    """The file of `name` that `fetch` has placed at `path`; every recorded file of that folder is verified.

    Raises
    ------
    FetchError : it is not there, or a file has changed since its download
    """
    if not path.is_file():
        raise FetchError(
            f"{name}: nothing is cached in {path.parent}; run `python -m gexlib fetch {name}` on a machine with "
            f"network (GEXLIB_DATA says where it is kept, and that folder can be copied)."
        )
    for file in _checksums(path.parent):
        _verify(path.with_name(file))
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


def _place(url: str, path: Path, known: str | None, end: bytes, md5: str) -> None:
    """Let pooch place the file and compare its sum; the downloader is ours because pooch starts every one anew."""
    import pooch

    part = path.with_name(path.name + ".part")
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        pooch.retrieve(
            url,
            known,
            path.name,
            path.parent,
            downloader=lambda _, to, __: os.replace(_arrive(url, part, end, md5), to),
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


def _arrive(url: str, part: Path, end: bytes, md5: str) -> Path:
    """Attempt after attempt until `part` is whole."""
    reason, asked = "", 0.0
    for attempt in range(SETTINGS.tries):
        time.sleep(max(asked, SETTINGS.wait * 2 ** (attempt - 1)) if attempt else 0)
        asked = 0.0
        try:
            _transfer(url, part)
            if not (damage := _damage(part, end, md5)):
                return part
            part.unlink()
            reason = f"it arrived, but {damage}"
        except _Passing as error:
            reason, asked = str(error), error.wait
            if asked > SETTINGS.patience:
                raise FetchError(f"{url}: {reason} and asks to wait {asked:.0f} s; run it again after that.") from None
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
    if status in (408, 416, 429) or status >= 500:
        raise _Passing(answer, _wait_asked(response.headers.get("Retry-After", "")))
    if status >= 400:
        kind = NotThereError if status in (403, 404, 410) else FetchError
        raise kind(f"{url}: {answer}; is the name right? `python -m gexlib fetch --list` shows the forms.")
    chunks = response.raw.stream(SETTINGS.chunk, decode_content=False)  # the bytes as stored: a .gz stays one
    first = next(chunks, b"")
    if status == 200 and is_web_page(first):
        raise FetchError(f"{url}: the server sent a web page in place of data; is the name right, and public?")
    total = int(response.headers.get("Content-Length", 0)) or None
    bar = tqdm(desc=part.stem, total=total, unit="B", unit_scale=True, disable=None, leave=False)
    with open(part, "ab" if status == 206 else "wb") as stream, bar:
        for chunk in itertools.chain([first], chunks):
            bar.update(stream.write(chunk))


def _wait_asked(header: str) -> float:
    """Seconds from now that a Retry-After header names, as a number or as a date; 0 where it says neither."""
    if header.strip().isdigit():
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


def _damage(path: Path, end: bytes, md5: str) -> str:
    """What is wrong with a file that may have the right length and still be cut or mixed; empty where nothing is."""
    if md5:
        with open(path, "rb") as stream:
            found = hashlib.file_digest(stream, "md5").hexdigest()
        if found != md5.lower():
            return f"its md5 is {found}, and the archive gives {md5}"
    last = b""
    try:
        with gzip.open(path) if path.name.removesuffix(".part").endswith(".gz") else open(path, "rb") as stream:
            while chunk := stream.read(1 << 20):
                last = (last + chunk)[-256:]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return f"the gzip is damaged or cut ({error})"
    if not last:
        return "the file is empty"
    if last.endswith(end) if end == b"\n" else end in last:
        return ""
    return f"the file is cut: it does not end in {end.decode().strip() or 'a whole line'}"


def is_web_page(start: bytes) -> bool:
    """True where the first bytes of a file are those of an HTML page."""
    return re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|\?xml)", start, re.IGNORECASE) is not None
