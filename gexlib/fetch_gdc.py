"""Downloads from NCI's Genomic Data Commons: ask which files there are, then bring each by its UUID.

GDC gives the md5 of every file, so that a file is placed only when it is right, and one that is right is not brought
again. A cut file is brought anew from its start: it is 4 MB.
"""

from __future__ import annotations

import email.utils
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path

import requests
import urllib3
from tqdm import tqdm

from gexlib.fetch import SETTINGS, FetchError, is_web_page
from gexlib.files import write_json
from gexlib.sources.gdc import manifest_path, read_manifest, star_path

API = "https://api.gdc.cancer.gov"
PAGE = 1000  # files a page of the query
THREADS = 4
LONGEST_WAIT = 600  # seconds that a Retry-After may ask for
GIVE_UP = 10  # files that failed, after which the others are not tried
FIELDS = (
    "file_id", "file_name", "md5sum", "file_size", "cases.submitter_id", "cases.project.project_id",
    "cases.demographic.vital_status", "cases.demographic.days_to_death", "cases.demographic.gender",
    "cases.demographic.age_at_index", "cases.diagnoses.days_to_last_follow_up", "cases.follow_ups.days_to_follow_up",
    "cases.samples.submitter_id", "cases.samples.sample_type", "cases.samples.tissue_type",
    "cases.samples.portions.analytes.aliquots.submitter_id",
)  # fmt: skip


class _Passing(Exception):
    """A fault that the next attempt may not meet; `wait`, seconds, where the server says how long it lasts."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


def fetch_gdc(name: str) -> list[Path]:
    """Bring the open STAR count files of ``gdc:TCGA-BRCA`` (a project) or ``gdc:TCGA`` (all of a programme).

    The manifest is written first, whole; from then on it says which files belong to the name, whatever GDC releases
    later, until it is removed. Files that are there and right are verified, not brought again.

    Returns
    -------
    the path of the manifest, which lists the files

    Raises
    ------
    FetchError : an unknown project, or a query or download that did not work; what has arrived is kept
    """
    path = manifest_path(name)
    if not path.is_file():
        found = query(name)
        try:
            write_json(path, found)
        except OSError as error:
            raise FetchError(f"cannot write {path}: {error}; free the disk or set GEXLIB_DATA elsewhere.") from None
    manifest = read_manifest(name)
    _bring_all(name, manifest["files"])
    return [path]


def query(name: str) -> dict:
    """What GDC has under a name: ``release``, ``filters``, ``total``, its ``warnings``, and ``files`` in its words.

    The pages are read in the order of UUIDs. When the total changes between pages, or a file is on two of them, they
    are all read again.

    Raises
    ------
    FetchError : an unknown project, or a query that did not work
    """
    place = name.removeprefix("gdc:")
    field = "cases.project.project_id" if "-" in place else "cases.project.program.name"
    wanted = {
        field: place,
        "data_type": "Gene Expression Quantification",
        "analysis.workflow_type": "STAR - Counts",
        "access": "open",
    }
    clauses = [{"op": "in", "content": {"field": field, "value": [value]}} for field, value in wanted.items()]
    asked = {"filters": {"op": "and", "content": clauses}, "fields": ",".join(FIELDS), "sort": "file_id:asc"}
    with _session() as session:
        status = _persist(f"{API}/status", lambda: _json(session, "GET", f"{API}/status"))
        files, warnings = _persist(f"{API}/files", lambda: _all_pages(session, asked))
    if not files:
        raise FetchError(
            f"{name}: GDC has no open STAR - Counts files under {field} '{place}'; check the name at "
            f"https://portal.gdc.cancer.gov, such as gdc:TCGA-BRCA or gdc:TCGA."
        )
    return {
        "name": name, "api": API, "release": status.get("data_release", "unstated"), "status": status,
        "queried": datetime.now(UTC).isoformat(timespec="seconds"), **asked, "total": len(files),
        "warnings": warnings, "files": files,
    }  # fmt: skip


def _all_pages(session: requests.Session, asked: dict) -> tuple[list[dict], dict]:
    """All hits of one query; each page has its own attempts, so that a cut one does not cost those before it."""
    url, files, total = f"{API}/files", [], None
    while total is None or len(files) < total:
        page = asked | {"format": "JSON", "size": PAGE, "from": len(files)}
        answer = _persist(url, lambda page=page: _json(session, "POST", url, page))
        try:
            hits, found = answer["data"]["hits"], int(answer["data"]["pagination"]["total"])
        except (KeyError, TypeError, ValueError):
            raise FetchError(f"{url}: the answer is not of the form of GDC's API: {str(answer)[:80]}.") from None
        files += hits
        if found != (total := found if total is None else total) or (not hits and len(files) < total):
            raise _Passing(f"the list of files changed while it was read ({total} files, then {found})")
    for hit in files:
        lacking = [key for key in ("file_id", "md5sum", "file_size") if not hit.get(key)]
        if lacking:
            raise FetchError(f"{url}: GDC gives no {lacking[0]} of the file {str(hit)[:80]}; ask GDC's support.")
        star_path(hit["file_id"])
    if len({hit["file_id"] for hit in files}) != total:
        raise _Passing("the list of files changed while it was read (a file is on two pages)")
    return files, answer.get("warnings") or {}


def _bring_all(name: str, files: list[dict]) -> None:
    """Bring what is missing or wrong, a few at once; the failure of one does not stop the others."""
    missing = sum(hit["file_size"] for hit in files if not star_path(hit["file_id"]).is_file())
    place = manifest_path(name).parent
    if missing > (free := shutil.disk_usage(place).free):
        raise FetchError(
            f"{name}: {missing / 1e9:.1f} GB to fetch, {free / 1e9:.1f} GB are free in {place}; free the disk or set "
            f"GEXLIB_DATA elsewhere."
        )
    failed: list[FetchError] = []
    interval = 0.1 if sys.stderr.isatty() else 30
    bar = tqdm(desc=name, total=sum(hit["file_size"] for hit in files), unit="B", unit_scale=True, mininterval=interval)
    with _session() as session, bar, ThreadPoolExecutor(THREADS) as pool:
        jobs = {pool.submit(_bring, session, hit): hit for hit in files}
        try:
            for job in as_completed(jobs):
                try:
                    job.result()
                    bar.update(jobs[job]["file_size"])
                except FetchError as error:
                    failed.append(error)
                    if len(failed) >= GIVE_UP:
                        break
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if failed:
        left = sum(not star_path(hit["file_id"]).is_file() for hit in files)
        raise FetchError(
            f"{name}: {left} of {len(files)} files are not fetched; the first that failed: {failed[0]} What has "
            f"arrived is in place, and the same command goes on from there."
        )


def _bring(session: requests.Session, hit: dict) -> None:
    path, url = star_path(hit["file_id"]), f"{API}/data/{hit['file_id']}"
    if path.is_file() and path.stat().st_size == hit["file_size"] and _md5(path) == hit["md5sum"]:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _persist(url, lambda: _transfer(session, url, path, hit["md5sum"]))
    except OSError as error:
        raise FetchError(f"cannot write {path}: {error}; free the disk or set GEXLIB_DATA elsewhere.") from None


def _transfer(session: requests.Session, url: str, path: Path, md5sum: str) -> None:
    """One attempt; the file takes its name when its md5 is right."""
    part, seen, first = path.with_name(path.name + ".part"), hashlib.md5(usedforsecurity=False), b""
    try:
        with _answer(session, "GET", url) as response, open(part, "wb") as stream:
            for chunk in response.iter_content(SETTINGS.chunk):
                first = first or chunk
                seen.update(chunk)
                stream.write(chunk)
        if seen.hexdigest() != md5sum:
            page = "the server sent a web page in place of data"
            wrong = f"its md5 is {seen.hexdigest()}, but GDC's list says {md5sum}"
            raise _Passing(page if is_web_page(first) else wrong)
        os.replace(part, path)
    except requests.RequestException as error:
        raise _passing(error) from None
    finally:
        part.unlink(missing_ok=True)


def _json(session: requests.Session, method: str, url: str, content: dict | None = None) -> dict:
    try:
        with _answer(session, method, url, content) as response:
            body = response.content
            return response.json()
    except requests.JSONDecodeError:
        page = is_web_page(body[:100])
        raise _Passing(f"the server sent {'a web page' if page else 'cut text'} in place of its answer") from None
    except requests.RequestException as error:
        raise _passing(error) from None


def _answer(session: requests.Session, method: str, url: str, content: dict | None = None) -> requests.Response:
    """The open response of status 200; another status is a fault that may pass, or the end."""
    response = session.request(
        method, url, json=content, stream=True, timeout=SETTINGS.timeout, allow_redirects=method == "GET"
    )
    status, said = response.status_code, f"the server answers {response.status_code} ({response.reason})"
    if status == 200:
        return response
    with response:
        if status == 429 or status >= 500:
            raise _Passing(said, _seconds(response.headers.get("Retry-After", "")))
        if 300 <= status < 400:  # followed, a POST would become a GET without its filters
            raise FetchError(f"{url}: {said}: GDC's API has moved to {response.headers.get('Location', 'elsewhere')}.")
        if status == 404 and "/data/" in url:
            said += "; GDC's release may have changed since the manifest was made: remove it to fetch the new one"
    raise FetchError(f"{url}: {said}.")


def _persist(url: str, attempt: Callable):
    """What `attempt` returns, tried again after a fault that may pass: when the server says, else ever later."""
    reason = ""
    for turn in range(SETTINGS.tries):
        try:
            return attempt()
        except _Passing as fault:
            reason, wait = str(fault), SETTINGS.wait * 2**turn if fault.wait is None else fault.wait
        if wait > LONGEST_WAIT:
            raise FetchError(f"{url}: {reason} and asks to come back in {wait:.0f} s; run the command again then.")
        if turn + 1 < SETTINGS.tries:
            time.sleep(wait)
    raise FetchError(f"{url}: {reason}; gave up after {SETTINGS.tries} attempts. Try again later.")


def _passing(error: requests.RequestException) -> _Passing:
    """The fault in words; requests wraps a stall in mid-answer as a lost connection."""
    causes = (urllib3.exceptions.TimeoutError, requests.Timeout)
    if isinstance(error, requests.Timeout) or any(isinstance(cause, causes) for cause in error.args):
        return _Passing(f"the server sent nothing for {SETTINGS.timeout:g} s")
    cut = (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError)
    if isinstance(error, cut) or any(isinstance(cause, urllib3.exceptions.ProtocolError) for cause in error.args):
        return _Passing("the connection was cut")
    return _Passing(f"the server cannot be reached ({type(error).__name__}); is there a network?")


def _seconds(text: str) -> float | None:
    """The seconds that a Retry-After header asks for, as a number or until a date; None where it says neither."""
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _session() -> requests.Session:
    session = requests.Session()
    session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=THREADS))
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=THREADS))
    return session


def _md5(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
