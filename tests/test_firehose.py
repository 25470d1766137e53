"""Firehose's archives in miniature and its real CHOL file; MSigDB's gene sets; archives that are not to be trusted."""

import os
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from archive_server import (
    ALIQUOTS,
    CLINICAL,
    PATIENTS,
    ArchiveServer,
    firehose_archives,
    firehose_clinical,
    firehose_expression,
    packed,
    tar_of,
)

from gexlib import CohortError, check_cohort, fetch, load_cohort
from gexlib.sources import firehose
from gexlib.sources.firehose import read_clinical

NAME = "firehose:CHOL"
REAL = Path(os.environ.get("GEXLIB_REAL_DATA") or "nowhere", "tcga")
CHOL = REAL / "CHOL.rnaseqv2__illuminahiseq_rnaseqv2__unc_edu__Level_3__RSEM_genes_normalized__data.data.txt.gz"
COUNTS = REAL / "TCGA_CHOL_Counts.exp.gz"
FILES = {
    "CHOL.rnaseqv2__illuminahiseq_rnaseqv2__unc_edu__Level_3__RSEM_genes_normalized__data.data.txt",
    "CHOL.merged_only_clinical_clin_format.txt",
}
HALLMARK = "/release/2023.2.Hs/h.all.v2023.2.Hs.symbols.gmt"
GMT = "HALLMARK_A\thttp://x\tTP53\tMYC\nHALLMARK_B\thttp://y\tEGFR\n"


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """An empty cache, an impatient downloader, and no way to the real archives."""
    monkeypatch.setenv("GEXLIB_DATA", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(firehose, "GDAC", "http://127.0.0.1:9")
    monkeypatch.setattr(fetch, "MSIGDB", "http://127.0.0.1:9")
    for setting, value in {"timeout": 0.4, "tries": 2, "wait": 0.01, "chunk": 64}.items():
        monkeypatch.setattr(fetch.SETTINGS, setting, value)
    return tmp_path / "firehose" / "CHOL"


@pytest.fixture
def server(folder, monkeypatch):
    with ArchiveServer(firehose_archives() | {HALLMARK: GMT.encode()}) as server:
        monkeypatch.setattr(firehose, "GDAC", server.url)
        monkeypatch.setattr(fetch, "MSIGDB", f"{server.url}/release")
        yield server


def write(path, text):
    path.write_bytes(packed(text) if path.suffix == ".gz" else text.encode())
    return str(path)


def archive_of(server, task="RSEM"):
    return next(address for address in server.files if task in address and address.endswith(".tar.gz"))


# the expression file


def test_a_cohort_is_fetched_unpacked_and_opened_with_its_clinical_file(server, folder):
    paths = fetch.fetch(NAME)
    assert [path.name for path in paths] == sorted(FILES, reverse=True)
    cohort = check_cohort(load_cohort(NAME))
    assert cohort.shape == (4, 6) and cohort.uns["unit"] == "log2(RSEM normalised + 1)"
    assert set(cohort.obs["cohort"]) == {"CHOL"} and cohort.uns["cohort"] == NAME
    assert "2016-01-28" in cohort.uns["provenance"]["release"] and len(cohort.uns["provenance"]["sha256"]) == 2


def test_the_values_are_log2_of_the_file_and_one_and_the_last_plate_is_kept(tmp_path):
    cohort = load_cohort(write(tmp_path / "CHOL.txt", firehose_expression()))
    assert list(cohort.obs_names) == list(ALIQUOTS[1:])
    expected = np.log2(np.arange(6) * 7.5 + np.arange(1, 5)[:, None] + 1)
    np.testing.assert_allclose(cohort.X, expected, rtol=1e-6)
    assert sum(cohort.uns["provenance"]["left_out"].values()) == 1
    assert load_cohort(str(tmp_path / "CHOL.txt"), duplicates="keep").n_obs == 5


def test_genes_go_by_symbol_but_for_the_nameless_and_the_ambiguous_which_keep_their_entrez_id(tmp_path):
    cohort = load_cohort(write(tmp_path / "any.name.gz", firehose_expression()))
    names = ["?|100130426", "?|100133144", "TP53", "SLC35E2|728661", "SLC35E2|9906", "A1BG"]
    assert list(cohort.var_names) == names and cohort.var.loc["TP53", "entrez"] == "7157"
    assert "2 genes without a symbol kept as ?|ENTREZ" in cohort.uns["provenance"]["transforms"]


def test_a_path_takes_the_clinical_file_beside_it_or_the_one_that_is_named(tmp_path):
    path = write(tmp_path / "CHOL.rnaseqv2.txt", firehose_expression())
    assert "vital" not in load_cohort(path).obs
    other = write(tmp_path / "elsewhere.txt", firehose_clinical())
    assert "vital" in load_cohort(path, clinical=other).obs
    Path(other).rename(tmp_path / "CHOL.merged_only_clinical_clin_format.txt")
    assert list(load_cohort(path).obs["vital"].astype(object)) == ["dead", "dead", "dead", "alive"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("normalized_count", "raw_count"), "second row says raw_count; expected normalized"),
        (lambda text: text.replace("TCGA-W5-AA2I-11A-11R-A41I-07", "S4"), "no TCGA barcodes, the first is 'S4'"),
        (lambda text: text[:-10], "is the file cut off"),
        (lambda text: text.replace("\t8.5000", "\t-7.5000"), "holds -7.5; expected RSEM values of zero or more"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, change, words):
    with pytest.raises(CohortError, match=words):
        load_cohort(write(tmp_path / "CHOL.txt", change(firehose_expression())))


def test_a_samples_table_is_refused_with_what_takes_its_place(tmp_path):
    with pytest.raises(CohortError, match="pass clinical=PATH"):
        load_cohort(write(tmp_path / "CHOL.txt", firehose_expression()), samples="samples.tsv")


# the clinical file


@pytest.mark.parametrize("header", [True, False])
def test_dead_is_who_any_follow_up_says_is_dead_and_days_are_the_last_that_was_heard(tmp_path, header):
    table = read_clinical(write(tmp_path / "c.txt", firehose_clinical(header=header)))
    assert list(table.index) == list(PATIENTS)
    assert table["dead"].tolist() == [1, 1, 0, 0]
    assert table["days"].tolist() == [519, 119, 12, 400]  # 400 at enrolment, 380 at the follow-up
    assert table["gender"].isna().tolist() == [False, False, True, False]


def test_a_patient_of_whom_no_record_says_anything_is_neither_dead_nor_alive(tmp_path):
    fields = {field: ("NA", *words[1:]) if "vital" in field else words for field, words in CLINICAL.items()}
    assert read_clinical(write(tmp_path / "c.txt", firehose_clinical(fields)))["dead"].isna().tolist()[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("bcr_patient_barcode", "x"), "has no row patient.bcr_patient_barcode"),
        (lambda text: text.replace("\tdead\t", "\t", 1), "row 'patient.vital_status' has 3 values for 4 patients"),
    ],
)
def test_a_clinical_file_of_another_form_is_refused(tmp_path, change, words):
    with pytest.raises(CohortError, match=words):
        read_clinical(write(tmp_path / "c.txt", change(firehose_clinical())))


# fetching


def test_a_fetched_cohort_opens_and_verifies_without_a_network(server, monkeypatch, folder):
    fetch.fetch(NAME)
    asked = len(server.asked)
    monkeypatch.setattr(firehose, "GDAC", "http://127.0.0.1:9")
    assert load_cohort(NAME).n_obs == 4 and len(fetch.fetch(NAME)) == 2 and len(server.asked) == asked
    (folder / "CHOL.merged_only_clinical_clin_format.txt").write_text("changed")
    for call in (load_cohort, fetch.fetch):
        with pytest.raises(CohortError, match="has changed since its download"):
            call(NAME)


def test_a_cohort_without_a_clinical_archive_is_opened_without(server):
    del server.files[archive_of(server, "Clinical")]
    assert len(fetch.fetch(NAME)) == 1 and "vital" not in load_cohort(NAME).obs


def test_what_is_not_cached_names_the_command(server):
    with pytest.raises(CohortError, match="nothing is cached.*python -m gexlib fetch firehose:CHOL"):
        load_cohort(NAME)


def test_an_unknown_cohort_is_told_the_nearest(server):
    with pytest.raises(CohortError, match="no cohort of Firehose .*KIPAN"):
        fetch.fetch("firehose:KIPA")
    assert server.asked == []


def test_an_archive_that_has_not_the_md5_beside_it_is_refused_and_not_placed(server, folder):
    address = archive_of(server)
    right = server.files[f"{address}.md5"]
    server.files[f"{address}.md5"] = b"0" * 32 + b"  x.tar.gz\n"
    with pytest.raises(fetch.FetchError, match="its md5 is [0-9a-f]{32}, and the archive gives 0{32}"):
        fetch.fetch(NAME)
    assert {path.name for path in folder.iterdir()} <= {"checksums.json"}
    server.files[f"{address}.md5"] = right
    assert len(fetch.fetch(NAME)) == 2


def test_an_archive_without_an_md5_beside_it_is_taken(server):
    for address in [address for address in server.files if address.endswith(".md5")]:
        del server.files[address]
    fetch.fetch(NAME)
    assert load_cohort(NAME).n_obs == 4


@pytest.mark.parametrize("fault", ["truncate", "reset", "stall", "429", "503", "html", "flip", "404", "moved"])
def test_after_each_fault_of_an_archive_a_second_call_completes(server, folder, fault):
    server.files.pop(f"{archive_of(server)}.md5")
    server.faults = [fault] * fetch.SETTINGS.tries
    if fault == "moved":
        assert len(fetch.fetch(NAME)) == 2
    else:
        with pytest.raises(fetch.FetchError, match="RSEM_genes_normalized"):
            fetch.fetch(NAME)
        left = {path.suffix for path in folder.iterdir()} if folder.exists() else set()
        assert left <= {".part", ".json"}
    server.faults = []
    assert {path.name for path in fetch.fetch(NAME)} == FILES and load_cohort(NAME).n_obs == 4


# archives


def link(kind, name="x/link", target="/etc/passwd"):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


WANTED = "x/CHOL.rnaseqv2__RSEM_genes_normalized__data.data.txt"
EVIL = {
    "above": (tar_of({WANTED: "a", "../../evil.txt": "b"}), r"holds '../../evil.txt', which would be written outside"),
    "inside out": (tar_of({WANTED: "a", "x/../../evil.txt": "b"}), "would be written outside"),
    "absolute": (tar_of({"/evil.data.txt": "b", WANTED: "a"}), "holds '/evil.data.txt', which would be"),
    "windows": (tar_of({WANTED: "a", "C:\\evil.txt": "b"}), "would be written outside"),
    "symbolic link": (tar_of({WANTED: "a"}, link(tarfile.SYMTYPE)), "holds 'x/link', a link to '/etc/passwd'"),
    "hard link": (tar_of({WANTED: "a"}, link(tarfile.LNKTYPE)), "holds 'x/link', a link to"),
    "link by the name": (tar_of({}, link(tarfile.SYMTYPE, WANTED)), "a link to '/etc/passwd'"),
    "device": (tar_of({WANTED: "a"}, link(tarfile.CHRTYPE, "x/null", "")), "holds 'x/null', a device"),
    "pipe": (tar_of({WANTED: "a"}, link(tarfile.FIFOTYPE, "x/pipe", "")), "holds 'x/pipe', a device"),
    "without the file": (tar_of({"x/README.txt": "a"}), "holds 0 files like"),
    "no archive": (packed("not a tar"), "is no whole tar archive"),
}


@pytest.mark.parametrize("kind", EVIL)
def test_an_archive_that_is_not_to_be_trusted_is_refused_whole_and_a_good_one_taken_later(server, folder, kind):
    address, (content, words) = archive_of(server), EVIL[kind]
    good = server.files[address]
    server.files.pop(f"{address}.md5")
    server.files[address] = content
    with pytest.raises(fetch.FetchError, match=words) as error:
        fetch.fetch(NAME)
    assert "nothing was taken out of it" in str(error.value) and "\n" not in str(error.value)
    everything = {path.name for path in folder.parents[1].rglob("*") if path.is_file()}
    assert everything == {"checksums.json"} and not (folder.parents[2] / "evil.txt").exists()
    server.files[address] = good
    assert len(fetch.fetch(NAME)) == 2


# gene sets


def test_gene_sets_are_fetched_by_collection_and_release(server, tmp_path):
    server.files["/release/7.5.1/c2.cgp.v7.5.1.symbols.gmt"] = GMT.encode()
    (path,) = fetch.fetch("msigdb:h.all")
    assert path.read_text() == GMT and path == fetch.cached_msigdb("msigdb:h.all")
    assert fetch.fetch("msigdb:c2.cgp.v7.5.1")[0].name == "c2.cgp.v7.5.1.symbols.gmt"


def test_gene_sets_that_are_cut_are_refused(server, tmp_path):
    server.files[HALLMARK] = GMT.encode()[:-4]
    with pytest.raises(fetch.FetchError, match="does not end in a whole line"):
        fetch.fetch("msigdb:h.all")
    assert not list((tmp_path / "msigdb").glob("*.gmt"))


@pytest.mark.parametrize("name", ["msigdb:", "msigdb:h", "msigdb:../x", "msigdb:h.all.v../x"])
def test_a_name_that_is_no_collection_is_refused(name, server):
    with pytest.raises(fetch.FetchError, match="no collection of MSigDB; expected a form like msigdb:h.all"):
        fetch.fetch(name)
    assert server.asked == []


def test_the_list_says_of_every_fetcher_what_release_size_and_licence():
    table = fetch.list_sources()
    assert set(table["name"].str.partition(":")[0]) == set(fetch.FETCHERS)
    assert (table[["what", "release", "size", "licence"]] != "").all(axis=None)


# the real files


@pytest.mark.skipif(not CHOL.is_file(), reason="GEXLIB_REAL_DATA is not set or holds no tcga/CHOL.rnaseqv2__… file")
def test_the_real_file_of_cholangiocarcinoma_agrees_with_the_prepared_cohort_to_its_rounding():
    cohort = check_cohort(load_cohort(str(CHOL)))
    assert cohort.shape == (45, 20531) and cohort.var_names.str.startswith("?|").sum() == 29
    assert cohort.obs["tissue"].value_counts().to_dict() == {"tumour": 36, "normal": 9}
    assert cohort.obs["plate"].unique().tolist() == ["A41I"] and not cohort.uns["provenance"]["left_out"]
    prepared = load_cohort("real:tcga6_rsem_all_genes")
    prepared = prepared[prepared.obs["cohort"] == "CHOL"]
    assert set(prepared.obs_names) == set(cohort.obs_names) and prepared.uns["unit"] == cohort.uns["unit"]
    difference = np.abs(cohort[prepared.obs_names, prepared.var_names].X - prepared.X)
    assert difference.max() < 0.0056  # rounded to 3 and then to 2 decimals: 0.0005 + 0.005


@pytest.mark.skipif(not COUNTS.is_file(), reason="GEXLIB_REAL_DATA is not set or holds no tcga/TCGA_CHOL_Counts.exp.gz")
def test_the_real_matrix_of_ensembl_counts_is_a_cohort():
    with pytest.raises(CohortError, match="look linear: pass transform=log2"):
        load_cohort(str(COUNTS))
    cohort = check_cohort(load_cohort(str(COUNTS), transform="log2", unit="counts"))
    assert cohort.shape == (36, 56537) and cohort.uns["unit"] == "log2(counts + 1)"
    assert all(re.fullmatch(r"ENSG\d{11}", gene) for gene in cohort.var_names)
    assert cohort.obs["patient"].nunique() == 36 and cohort.to_df().at[
        "TCGA-W5-AA2G-01A-11R-A41I-07", "ENSG00000000003"
    ] == pytest.approx(np.log2(1778), rel=1e-6)
