"""Xena's tables in miniature: fetched from a server that misbehaves, and opened as cohorts."""

import json
import math

import numpy as np
import pytest
from archive_server import ALIQUOTS, ENSEMBL, LINEAR, ArchiveServer, date_in, packed, probemap, xena_matrix

from gexlib import CohortError, check_cohort, fetch, load_cohort
from gexlib.sources import h5ad, wide, xena
from gexlib.sources.wide import read_wide

NAME, MATRIX = "xena:TCGA-CHOL", "/gdc/TCGA-CHOL.htseq_fpkm.tsv.gz"
PHENOTYPE = "submitter_id.samples\tgender.demographic\tsample_type.samples\ttissue\tempty/column\n" + "".join(
    f"{aliquot[:16]}\t{'male' if i % 2 else 'female'}\tPrimary Tumor\tliver\t\n"
    for i, aliquot in enumerate(ALIQUOTS[:4])
)
SURVIVAL = (
    "sample\tOS\t_PATIENT\tOS.time\nTCGA-3X-AAV9-01A\t1\tTCGA-3X-AAV9\t519\nTCGA-W5-AA2I-01A\t0\tTCGA-W5-AA2I\t30\n"
)
PANCAN = (*ALIQUOTS[:4], "TARGET-30-PAPTLY-01A")
CLINICAL_MATRIX = "sampleID\tGeneExp_Subtype\t_PATIENT\nTCGA-3X-AAV9-01\tClassical\tTCGA-3X-AAV9\n"


def log2p1(x):
    return math.log2(x + 1)


def served():
    return {
        MATRIX: packed(xena_matrix(of=log2p1)),
        "/gdc/TCGA-CHOL.GDC_phenotype.tsv.gz": packed(PHENOTYPE),
        "/gdc/TCGA-CHOL.survival.tsv": SURVIVAL.encode(),  # without .gz, as some projects have it
        "/gdc/gencode.v22.annotation.gene.probeMap": probemap().encode(),
        "/gdc/gencode.v36.annotation.gtf.gene.probemap": probemap().encode(),
        "/gdc/TCGA-CHOL.star_tpm.tsv.gz": packed(xena_matrix(of=log2p1)),
        "/gdc/GDC-PANCAN.htseq_fpkm-uq.tsv.gz": packed(xena_matrix(samples=PANCAN, corner="xena_sample", of=log2p1)),
        "/gdc/GDC-PANCAN.basic_phenotype.tsv.gz": packed(
            "sample\tprogram\tproject_id\n" + "".join(f"{s[:16]}\tTCGA\tTCGA-CHOL\n" for s in PANCAN[:4])
        ),
        "/store/TCGA.GBM.sampleMap%2FHT_HG-U133A.gz": packed(
            xena_matrix(("TP53", "EGFR", "A1BG", "MYC"), corner="sample", length=15, of=lambda x: 3 + x / 100)
        ),
        "/tcga/TCGA.GBM.sampleMap/GBM_clinicalMatrix": CLINICAL_MATRIX.encode(),
        "/toil/tcga_RSEM_gene_fpkm.gz": packed(
            xena_matrix(corner="sample", length=15, of=lambda x: math.log2(x + 0.001))
        ),
        "/toil/probeMap%2Fgencode.v23.annotation.gene.probemap": probemap().encode(),
        "/atlas/Survival_SupplementalTable_S1_20171025_xena_sp": (
            b"sample\tcancer type abbreviation\tOS\tOS.time\nTCGA-3X-AAV9-01\tCHOL\t1\t519\n"
        ),
    }


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """An empty cache, an impatient downloader, and no way to the real Xena."""
    monkeypatch.setenv("GEXLIB_DATA", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for hub in ("GDC_HUB", "TCGA_HUB", "TCGA_STORE", "TOIL_HUB", "PANCAN_ATLAS"):
        monkeypatch.setattr(xena, hub, "http://127.0.0.1:9")
    for setting, value in {"timeout": 0.4, "tries": 2, "wait": 0.01, "chunk": 64, "patience": 5.0}.items():
        monkeypatch.setattr(fetch.SETTINGS, setting, value)
    return tmp_path / "xena" / "TCGA-CHOL"


@pytest.fixture
def server(folder, monkeypatch):
    with ArchiveServer(served()) as server:
        hubs = {
            "GDC_HUB": "gdc",
            "TCGA_HUB": "tcga",
            "TCGA_STORE": "store",
            "TOIL_HUB": "toil",
            "PANCAN_ATLAS": "atlas",
        }
        for hub, place in hubs.items():
            monkeypatch.setattr(xena, hub, f"{server.url}/{place}")
        yield server


def fetched(name, server):
    fetch.fetch(name)
    return check_cohort(load_cohort(name))


# what the loaders make of the files


def test_a_project_opens_with_its_unit_release_phenotype_survival_and_symbols(server):
    cohort = fetched(NAME, server)
    provenance = cohort.uns["provenance"]
    assert cohort.uns["unit"] == "log2(FPKM+1)" and "HTSeq, GENCODE v22" in provenance["release"]
    assert list(cohort.var_names) == ["ENSG00000000003", "ENSG00000141510", "ENSG00000182378"]
    assert list(cohort.var["id_in_file"]) == list(ENSEMBL[:3]) and list(cohort.var["symbol"])[1] == "TP53"
    assert cohort.obs_names[0] == "TCGA-3X-AAV9-01A" and set(cohort.obs["cohort"]) == {"CHOL"}
    assert list(cohort.obs["tissue"]) == ["tumour", "tumour", "normal", "tumour"]
    assert list(cohort.obs["vital"].astype(object).fillna("?")) == ["dead", "alive", "alive", "?"]
    assert cohort.obs["os_days"].tolist()[:3] == [519, 30, 30]  # the normal's patient is the tumour's
    assert list(cohort.obs["gender.demographic"])[:2] == ["female", "female"]
    assert len(provenance["files"]) == 4 and cohort.uns["cohort"] == NAME


def test_the_values_are_those_of_the_file_and_duplicates_are_counted(server):
    cohort = fetched(NAME, server)
    expected = np.log2(np.array(LINEAR)[:3, 1:] + 1).T
    np.testing.assert_allclose(cohort.X, expected, atol=2e-6)
    left_out = cohort.uns["provenance"]["left_out"]
    assert left_out["rows that are no gene, or the copy on Y of one"] == 1
    assert left_out["further aliquots of a patient and sample type (first vial, last plate kept)"] == 1


def test_a_column_that_the_barcode_gives_already_keeps_its_own_name(server):
    obs = fetched(NAME, server).obs
    assert list(obs["tissue_in_file"])[:3] == ["liver"] * 3 and "empty_column" not in obs


def test_two_samples_of_one_id_can_only_be_refused(server):
    fetch.fetch(NAME)
    with pytest.raises(CohortError, match="duplicated sample ids, the first is 'TCGA-3X-AAV9-01A'"):
        load_cohort(f"{NAME},duplicates=keep")


def test_the_current_release_is_another_data_set_of_the_same_project(server):
    cohort = fetched("xena:TCGA-CHOL.star_tpm", server)
    assert cohort.uns["unit"] == "log2(TPM+1)" and "GENCODE v36" in cohort.uns["provenance"]["release"]


def test_the_pancancer_file_leaves_other_programmes_out_and_says_so(server):
    cohort = fetched("xena:GDC-PANCAN", server)
    assert cohort.n_obs == 3 and cohort.uns["unit"] == "log2(FPKM-UQ+1)"
    assert cohort.uns["provenance"]["left_out"]["samples of other programmes than TCGA"] == 1
    assert set(cohort.obs["cohort"]) == {"CHOL"}
    everyone = load_cohort("xena:GDC-PANCAN,program=all")
    assert "TARGET-30-PAPTLY" in set(everyone.obs["patient"])


def test_the_glioblastoma_arrays_are_by_symbol_in_log2_rma_from_the_second_address(server):
    cohort = fetched("xena:TCGA-GBM-U133A", server)
    assert cohort.uns["unit"] == "log2 RMA" and list(cohort.var_names) == ["TP53", "EGFR", "A1BG", "MYC"]
    assert cohort.obs.loc["TCGA-3X-AAV9-01", "GeneExp_Subtype"] == "Classical"
    assert "3 samples are not in GBM_clinicalMatrix" in cohort.uns["provenance"]["transforms"]


def test_log2_of_x_and_a_thousandth_is_undone_and_said(server):
    cohort = fetched("xena:TOIL", server)
    np.testing.assert_allclose(cohort.X, np.log2(np.array(LINEAR)[:3, 1:] + 1).T, atol=2e-5)
    assert cohort.X.min() >= 0 and cohort.uns["unit"] == "log2(FPKM+1)"
    assert cohort.uns["provenance"]["transforms"][0] == "log2(x + 0.001) of the file undone"
    assert cohort.obs["cohort"].dropna().tolist() == ["CHOL"]


def test_a_cohort_of_xena_is_saved_and_opened_again(server, tmp_path):
    cohort = fetched(NAME, server)
    h5ad.save_cohort(cohort, tmp_path / "chol.h5ad")
    again = load_cohort(str(tmp_path / "chol.h5ad"))
    np.testing.assert_array_equal(again.X, cohort.X)
    assert list(again.obs["vital"].astype(object).fillna("?")) == list(cohort.obs["vital"].astype(object).fillna("?"))


def test_a_table_that_the_hub_lacks_is_done_without(server):
    del server.files["/gdc/TCGA-CHOL.survival.tsv"]
    assert "vital" not in fetched(NAME, server).obs


# names


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("xena:TCGA-BRAC", "'TCGA-BRAC' is no project of TCGA .*TCGA-BRCA"),
        ("xena:TCGA-BRCA.star_fpmk", "no data set 'star_fpmk' .*star_fpkm"),
        ("xena:GDC-PANCAN-U133A", "no data set of Xena; expected xena:GDC-PANCAN"),
        ("xena:../x", "no data set of Xena"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, words, server):
    for call in (fetch.fetch, load_cohort):
        with pytest.raises(CohortError, match=words):
            call(name)
    assert server.asked == []


def test_what_is_not_cached_names_the_command_and_is_not_downloaded(server):
    with pytest.raises(CohortError, match="nothing is cached.*python -m gexlib fetch xena:TCGA-CHOL.*network"):
        load_cohort(NAME)
    assert server.asked == []


def test_a_fetched_project_opens_and_verifies_without_a_network(server, monkeypatch):
    fetched(NAME, server)
    asked = len(server.asked)
    monkeypatch.setattr(xena, "GDC_HUB", "http://127.0.0.1:9")
    assert load_cohort(NAME).n_obs == 4
    assert [path.name for path in fetch.fetch(NAME)][0] == "TCGA-CHOL.htseq_fpkm.tsv.gz" and len(server.asked) == asked


def test_a_file_that_has_changed_in_the_cache_is_refused(server, folder):
    fetch.fetch(NAME)
    (folder / "TCGA-CHOL.survival.tsv").write_bytes(b"sample\tOS\tOS.time\n")
    with pytest.raises(CohortError, match="has changed since its download"):
        load_cohort(NAME)


# faults of the server: (fault, words of the sentence where it persists); None where one call overcomes it

FAULTS = [
    ("truncate", "the connection was cut"),
    ("reset", "the connection was cut|cannot be reached"),
    ("chunked", "the connection was cut"),
    ("stall", "sent nothing for 0.4 s"),
    ("404", "answers 404"),
    ("403", "answers 403"),
    ("429", "answers 429"),
    ("503", "answers 503"),
    ("html", "a web page in place of data"),
    ("flip", "the gzip is damaged or cut"),
    ("moved", None),
]


@pytest.mark.parametrize(("fault", "words"), FAULTS)
def test_after_each_fault_a_sentence_or_a_success_nothing_half_written_and_a_second_call_completes(
    server, folder, fault, words
):
    server.faults = [fault] * fetch.SETTINGS.tries
    if words is None:
        assert fetch.fetch(NAME)[0].read_bytes() == server.files[MATRIX]
    else:
        with pytest.raises(fetch.FetchError, match=words) as error:
            fetch.fetch(NAME)
        assert MATRIX in str(error.value) and "\n" not in str(error.value)
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
        assert names <= {"TCGA-CHOL.htseq_fpkm.tsv.gz.part"}
    server.faults = []
    assert fetch.fetch(NAME)[0].read_bytes() == server.files[MATRIX]
    assert load_cohort(NAME).n_obs == 4


@pytest.mark.parametrize("fault", ["truncate", "reset", "chunked", "stall", "429", "503", "flip"])
def test_a_fault_that_passes_is_overcome_within_one_call(server, fault):
    server.faults = [fault]
    assert fetch.fetch(NAME)[0].read_bytes() == server.files[MATRIX]


@pytest.mark.parametrize(("asks", "seconds"), [("1", 1.0), ("a date", 3600.0), ("soon", 0.0), ("-5", 0.0)])
def test_retry_after_is_heeded_as_a_number_and_as_a_date(server, monkeypatch, asks, seconds):
    waits = []
    monkeypatch.setattr("gexlib.download.time.sleep", waits.append)
    monkeypatch.setattr(fetch.SETTINGS, "patience", 7200.0)
    server.faults, server.retry_after = ["429"], date_in(3600) if asks == "a date" else asks
    fetch.fetch(NAME)
    assert waits[1] == pytest.approx(max(seconds, 0.01), abs=60 if seconds > 60 else 1e-9)


def test_a_server_that_asks_for_more_patience_than_there_is_is_not_waited_for(server):
    server.faults, server.retry_after = ["503"], "600"
    with pytest.raises(fetch.FetchError, match="answers 503 .* asks to wait 600 s; run it again after that"):
        fetch.fetch(NAME)
    assert len(server.asked) == 1


def test_the_checksums_of_every_file_are_recorded(server, folder):
    fetch.fetch(NAME)
    recorded = json.loads((folder / "checksums.json").read_text())
    assert set(recorded) == {path.name for path in folder.iterdir()} - {"checksums.json"}


# the reader of wide tables


def write(path, text):
    path.write_bytes(packed(text) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("block", [2000, 50_000, 1 << 25])
def test_a_table_read_in_blocks_of_any_size_is_the_same(tmp_path, monkeypatch, block):
    rng = np.random.default_rng(1)
    values = rng.exponential(3, (3000, 5)).round(6)
    path = write(tmp_path / "a.tsv.gz", xena_matrix([f"G{i}" for i in range(3000)], values=values))
    monkeypatch.setattr(wide, "BLOCK", block)
    samples, genes, X, skipped = read_wide(path, lambda ids: np.array([True, False, True, True, False]))
    assert list(samples) == [ALIQUOTS[i][:16] for i in (0, 2, 3)] and len(genes) == 3000 and skipped == 0
    np.testing.assert_array_equal(X, values[:, [0, 2, 3]].T.astype(np.float32))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[:-30], r"line 5 has \d fields; expected 6.*is the file cut off"),
        (lambda text: text.replace("1.000000", "many"), "sample 'TCGA-3X-AAV9-01A' holds 'many'"),
        (lambda text: text.split("\n")[0], "a header and no gene below it"),
        (lambda text: "", "names no samples"),
    ],
)
def test_a_damaged_table_is_refused_with_its_place(tmp_path, change, words):
    with pytest.raises(CohortError, match=words):
        read_wide(write(tmp_path / "a.tsv", change(xena_matrix())))


def test_a_cut_gzip_is_refused(tmp_path):
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(packed(xena_matrix())[:-12])
    with pytest.raises(CohortError, match="the gzip is cut off or damaged"):
        read_wide(path)


def test_line_ends_of_windows_are_understood(tmp_path):
    _, genes, X, _ = read_wide(write(tmp_path / "a.tsv", xena_matrix().replace("\n", "\r\n")))
    assert list(genes) == list(ENSEMBL) and X[3, 0] == 1023
