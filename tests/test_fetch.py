"""Downloads against a local server that truncates, stalls, answers 404 and 503, and sends a web page."""

import gzip
import json
import re

import pytest
from geo_server import MATRIX, QUERY, GeoServer, platform_table, series_matrix

from gexlib import CohortError, fetch
from gexlib.files import sha256_of
from gexlib.sources import geo

NAME = "geo:GSE85047"
FINAL = {"GSE85047_series_matrix.txt.gz", "GPL5175.txt", "checksums.json"}


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """The cache of the series, an impatient downloader, and no way to the real GEO."""
    monkeypatch.setenv("GEXLIB_DATA", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch, "GEO", "http://127.0.0.1:9")
    monkeypatch.setattr(fetch, "GEO_QUERY", "http://127.0.0.1:9/query")
    for setting, value in {"timeout": 0.4, "tries": 2, "wait": 0.01, "chunk": 64}.items():
        monkeypatch.setattr(fetch.SETTINGS, setting, value)
    return tmp_path / "geo" / "GSE85047"


@pytest.fixture
def server(folder, monkeypatch):
    with GeoServer() as server:
        monkeypatch.setattr(fetch, "GEO", server.url)
        monkeypatch.setattr(fetch, "GEO_QUERY", f"{server.url}/query")
        yield server


def names(folder):
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def put(folder, content, name="GSE85047_series_matrix.txt.gz"):
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)


def test_a_series_is_fetched_with_the_platform_that_it_names_and_opens_as_a_cohort(server, folder):
    matrix, platform = fetch.fetch(NAME)
    assert gzip.decompress(matrix.read_bytes()).decode() == series_matrix()
    assert platform.read_text() == platform_table()
    assert names(folder) == FINAL and oct(matrix.stat().st_mode & 0o777) == "0o644"
    assert geo.load(NAME).shape == (5, 2)


def test_the_first_download_records_its_checksum_and_later_calls_verify_it_without_a_network(server, folder):
    matrix, _ = fetch.fetch(NAME)
    record = json.loads((folder / "checksums.json").read_text())[matrix.name]
    assert record == {"sha256": sha256_of(matrix), "bytes": matrix.stat().st_size, "address": server.url + MATRIX}
    asked = len(server.asked)
    assert fetch.fetch(NAME)[0] == fetch.cached_geo(NAME) == matrix
    assert len(server.asked) == asked


@pytest.mark.parametrize("file", sorted(FINAL - {"checksums.json"}))
def test_a_changed_file_is_refused_with_both_sums_and_what_to_do(server, folder, file):
    fetch.fetch(NAME)
    path = folder / file
    recorded = sha256_of(path)
    path.write_bytes(gzip.compress(series_matrix(processing="log2").encode()))
    for call in (fetch.fetch, fetch.cached_geo, geo.load):
        with pytest.raises(fetch.FetchError, match="remove the file and fetch it again") as error:
            call(NAME)
        assert recorded in str(error.value) and sha256_of(path) in str(error.value)


def test_a_file_that_changed_at_the_server_is_refused_and_not_placed(server, folder):
    matrix, _ = fetch.fetch(NAME)
    recorded = sha256_of(matrix)
    matrix.unlink()
    server.files[MATRIX] = gzip.compress(series_matrix(processing="quantile, log2").encode())
    with pytest.raises(fetch.FetchError, match="no longer the file") as error:
        fetch.fetch(NAME)
    assert recorded in str(error.value) and len(set(re.findall(r"\b[0-9a-f]{64}\b", str(error.value)))) == 2
    assert matrix.name not in names(folder)


def test_a_file_put_there_by_hand_is_taken_and_its_checksum_recorded(server, folder):
    put(folder, server.files[MATRIX])
    fetch.fetch(NAME)
    assert MATRIX not in [address for address, _ in server.asked]
    assert set(json.loads((folder / "checksums.json").read_text())) == FINAL - {"checksums.json"}


@pytest.mark.parametrize("content", [b"", b"<html>GEO is down</html>", gzip.compress(series_matrix().encode())[:-20]])
def test_a_damaged_file_put_there_by_hand_is_refused_and_not_recorded(server, folder, content):
    put(folder, content)
    with pytest.raises(fetch.FetchError, match="(damaged or cut|empty).*remove the file and fetch it again"):
        fetch.fetch(NAME)
    assert names(folder) == {"GSE85047_series_matrix.txt.gz"}


def test_a_broken_list_of_checksums_is_named(server, folder):
    put(folder, b"{", "checksums.json")
    with pytest.raises(fetch.FetchError, match="checksums.json is not readable JSON; remove it"):
        fetch.fetch(NAME)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("truncate", "the connection was cut"),
        ("stall", "sent nothing for 0.4 s"),
        ("503", "answers 503"),
        ("404", "answers 404"),
        ("html", "a web page in place of data"),
    ],
)
def test_each_fault_is_one_sentence_leaves_no_half_file_and_a_later_call_completes(server, folder, fault, words):
    server.faults = [fault] * fetch.SETTINGS.tries
    with pytest.raises(fetch.FetchError, match=words) as error:
        fetch.fetch(NAME)
    assert MATRIX in str(error.value) and "\n" not in str(error.value)
    kept = folder / "GSE85047_series_matrix.txt.gz.part"
    assert names(folder) == ({kept.name} if fault in ("truncate", "stall") else set())
    resume = f"bytes={kept.stat().st_size}-" if kept.exists() else ""
    assert ("goes on from there" in str(error.value)) == bool(resume)
    server.faults, server.asked = [], []
    matrix, _ = fetch.fetch(NAME)
    assert server.asked[0] == (MATRIX, resume)
    assert matrix.read_bytes() == server.files[MATRIX] and names(folder) == FINAL


@pytest.mark.parametrize("faults", [["truncate", "whole"], ["503", "truncate", "stall"]])
def test_a_passing_fault_or_a_server_without_resume_is_overcome_within_one_call(server, monkeypatch, faults):
    monkeypatch.setattr(fetch.SETTINGS, "tries", 4)
    server.faults = faults
    matrix, _ = fetch.fetch(NAME)
    assert matrix.read_bytes() == server.files[MATRIX]


@pytest.mark.parametrize("size", [10, 5000])
def test_a_part_that_does_not_fit_the_servers_file_is_thrown_away_and_fetched_anew(server, folder, size):
    put(folder, b"z" * size, "GSE85047_series_matrix.txt.gz.part")
    matrix, _ = fetch.fetch(NAME)
    assert matrix.read_bytes() == server.files[MATRIX]


@pytest.mark.parametrize(("address", "words"), [(MATRIX, "damaged or cut"), (QUERY, "not end in !platform_table_end")])
def test_a_file_that_is_cut_at_the_server_is_refused(server, folder, address, words):
    server.files[address] = server.files[address][:-30]
    with pytest.raises(fetch.FetchError, match=words):
        fetch.fetch(NAME)
    assert names(folder) == (set() if address == MATRIX else FINAL - {"GPL5175.txt"})


def test_no_platform_is_fetched_for_a_series_whose_table_is_empty(server):
    server.files = {MATRIX: gzip.compress(series_matrix(values={}).encode())}
    assert [path.name for path in fetch.fetch(NAME)] == ["GSE85047_series_matrix.txt.gz"]


def test_one_series_of_several_platforms_is_named_with_its_platform(server):
    server.files[MATRIX.replace("GSE85047_s", "GSE85047-GPL5175_s")] = server.files.pop(MATRIX)
    assert fetch.fetch("geo:GSE85047-GPL5175")[0].name == "GSE85047-GPL5175_series_matrix.txt.gz"
    with pytest.raises(fetch.FetchError, match="answers 404.*gexlib fetch --list"):
        fetch.fetch(NAME)


def test_without_a_network_the_sentence_says_so(folder):
    with pytest.raises(CohortError, match="cannot be reached .*is there a network"):
        fetch.fetch(NAME)
    assert names(folder) == set()


def test_a_full_disk_is_one_sentence_and_leaves_no_half_file(server, folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gexlib.download.os.replace", full)
    with pytest.raises(fetch.FetchError, match="No space left on device; free the disk or set GEXLIB_DATA"):
        fetch.fetch(NAME)
    assert names(folder) <= {"GSE85047_series_matrix.txt.gz.part"}


def test_an_uncached_series_names_the_command_that_fetches_it_and_is_not_downloaded(server):
    with pytest.raises(CohortError, match="nothing is cached.*python -m gexlib fetch geo:GSE85047.*network"):
        geo.load(NAME)
    assert server.asked == []


@pytest.mark.parametrize("name", ["GSE85047", "geos:GSE85047", "geo:GSM1", "geo:", "geo:../GSE1"])
def test_an_unknown_name_is_refused_with_the_right_form(name, server):
    with pytest.raises(fetch.FetchError, match="geo:GSE"):
        fetch.fetch(name)
    assert server.asked == []


def test_the_list_of_sources_says_what_each_is_and_who_uses_it():
    table = fetch.list_sources()
    assert list(table.columns) == ["name", "what", "release", "size", "licence", "notebook"]
    assert table.set_index("name").at[NAME, "notebook"] == "01"
