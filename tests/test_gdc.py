"""GDC's query, downloads and assembly against a local server of its API that misbehaves."""

import json
import subprocess
import sys
import time
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
from gdc_server import GENES, STATUS, GdcServer, counts_of, hit_of, outside_genes, star_file, uuid_of

from gexlib import CohortError, check_cohort, fetch, fetch_gdc, load_cohort
from gexlib.files import sha256_of
from gexlib.sources import gdc, gdc_assembly

NAME = "gdc:TCGA-BRCA"
DATA = f"/data/{uuid_of(2)}"
SYMBOLS = [symbol for _, symbol, _ in GENES[:-1]]


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """The cache, an impatient downloader, and no way to the real GDC."""
    monkeypatch.setenv("GEXLIB_DATA", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch_gdc, "API", "http://127.0.0.1:9")
    monkeypatch.setattr(fetch_gdc, "PAGE", 2)
    for setting, value in {"timeout": 0.4, "tries": 2, "wait": 0.01, "chunk": 64}.items():
        monkeypatch.setattr(fetch.SETTINGS, setting, value)
    return tmp_path / "gdc"


@pytest.fixture
def server(folder, monkeypatch):
    with GdcServer() as server:
        monkeypatch.setattr(fetch_gdc, "API", server.url)
        yield server


@pytest.fixture
def fetched(server):
    fetch_gdc.fetch_gdc(NAME)
    return server


def placed(folder):
    """Every file of the cache: its path below it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def whole(server, folder):
    """True where the manifest and all files are there, are right, and nothing else is."""
    wanted = {gdc.star_path(uuid): content for uuid, content in server.contents.items()}
    names = sorted(["TCGA-BRCA/manifest.json", *(str(path.relative_to(folder)) for path in wanted)])
    return placed(folder) == names and all(path.read_bytes() == content for path, content in wanted.items())


# The query


def test_the_query_asks_for_open_star_counts_in_pages_and_writes_the_manifest(server, folder):
    [path] = fetch_gdc.fetch_gdc(NAME)
    asked = {c["content"]["field"]: c["content"]["value"] for c in server.queries[0]["filters"]["content"]}
    assert asked == {
        "cases.project.project_id": ["TCGA-BRCA"],
        "data_type": ["Gene Expression Quantification"],
        "analysis.workflow_type": ["STAR - Counts"],
        "access": ["open"],
    }
    assert [(query["from"], query["size"]) for query in server.queries] == [(0, 2), (2, 2), (4, 2)]
    assert {query["sort"] for query in server.queries} == {"file_id:asc"}
    manifest = json.loads(path.read_text())
    assert manifest["release"] == STATUS["data_release"] and manifest["total"] == 5
    assert sorted(manifest["files"], key=lambda hit: hit["cases"][0]["submitter_id"]) == server.hits
    assert whole(server, folder)


def test_a_programme_is_asked_for_by_its_name_and_shares_its_files_with_its_projects(fetched):
    asked = len(fetched.fetched())
    fetch_gdc.fetch_gdc("gdc:TCGA")
    assert fetched.queries[-1]["filters"]["content"][0]["content"]["field"] == "cases.project.program.name"
    assert len(fetched.fetched()) == asked
    assert gdc.load("gdc:TCGA").n_obs == 5


def test_a_second_call_asks_for_nothing(fetched, folder):
    asked = len(fetched.asked)
    fetch_gdc.fetch_gdc(NAME)
    assert len(fetched.asked) == asked


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        (["truncate"] * 2, "the connection was cut"),
        (["cut"] * 2, "the connection was cut"),
        (["", "truncate", "truncate"], "the connection was cut"),
        (["short"] * 2, "cut text in place of its answer"),
        (["stall"] * 2, "sent nothing for 0.4 s"),
        (["503"] * 2, "answers 503"),
        (["404"], "answers 404"),
        (["html"] * 2, "a web page in place of its answer"),
        (["moved"], "GDC's API has moved to .*/moved/files"),
        (["form"], "not of the form of GDC's API"),
        (["", "grow"] * 2, r"changed while it was read \(5 files, then 6\)"),
        (["", "twice", "", "", "twice", ""], "changed while it was read .a file is on two pages"),
        (["", "empty"] * 2, "changed while it was read"),
        (["429 long"], "asks to come back in 3600 s"),
    ],
)
def test_a_fault_of_the_query_is_one_sentence_leaves_nothing_and_a_later_call_completes(server, folder, faults, words):
    server.faults["/files"] = list(faults)
    with pytest.raises(fetch.FetchError, match=words) as error:
        fetch_gdc.fetch_gdc(NAME)
    assert f"{server.url}/files" in str(error.value) and "\n" not in str(error.value)
    assert placed(folder) == [] and server.fetched() == []
    server.faults.clear()
    fetch_gdc.fetch_gdc(NAME)
    assert whole(server, folder)


@pytest.mark.parametrize("fault", ["truncate", "cut", "short", "503", "429", "html"])
@pytest.mark.parametrize("address", ["/status", "/files"])
def test_a_passing_fault_of_the_query_is_overcome_within_one_call(server, folder, address, fault):
    server.faults[address] = [fault]
    fetch_gdc.fetch_gdc(NAME)
    assert whole(server, folder)


def test_a_list_that_grows_while_it_is_read_is_read_again_from_its_start(server, folder):
    server.faults["/files"] = ["", "grow"]
    fetch_gdc.fetch_gdc(NAME)
    assert [query["from"] for query in server.queries] == [0, 2, 0, 2, 4] and whole(server, folder)


def test_an_unknown_project_and_a_name_of_another_form_are_refused(server, folder):
    with pytest.raises(fetch.FetchError, match="GDC has no open STAR - Counts files.*TCGA-BRAC.*check the name"):
        fetch_gdc.fetch_gdc("gdc:TCGA-BRAC")
    for name in ("TCGA-BRCA", "gdc:", "gdc:../x", "gdc:a/b"):
        with pytest.raises(fetch.FetchError, match="expected gdc:TCGA-BRCA"):
            fetch_gdc.fetch_gdc(name)
    assert placed(folder) == []


def test_a_file_id_that_names_a_place_outside_the_cache_is_refused(server, folder):
    server.hits[0]["file_id"] = "../../../evil"
    with pytest.raises(fetch.FetchError, match="'../../../evil' is no UUID"):
        fetch_gdc.fetch_gdc(NAME)
    assert placed(folder) == []


# The downloads


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("truncate", "the connection was cut"),
        ("cut", "the connection was cut"),
        ("short", "its md5 is [0-9a-f]{32}, but GDC's list says [0-9a-f]{32}"),
        ("wrong", "its md5 is"),
        ("stall", "sent nothing for 0.4 s"),
        ("503", "answers 503"),
        ("404", "answers 404.*release may have changed.*remove it"),
        ("html", "a web page in place of data"),
        ("429 long", "asks to come back in 3600 s"),
    ],
)
def test_a_fault_of_one_file_is_one_sentence_the_others_arrive_and_a_later_call_completes(server, folder, fault, words):
    server.faults[DATA] = [fault] * fetch.SETTINGS.tries
    with pytest.raises(fetch.FetchError, match=words) as error:
        fetch_gdc.fetch_gdc(NAME)
    assert "1 of 5 files are not fetched" in str(error.value) and DATA in str(error.value)
    assert "\n" not in str(error.value)
    assert len(placed(folder)) == 5 and not gdc.star_path(uuid_of(2)).exists()
    server.faults.clear()
    server.asked.clear()
    fetch_gdc.fetch_gdc(NAME)
    assert server.fetched() == [uuid_of(2)] and whole(server, folder)


@pytest.mark.parametrize("fault", ["truncate", "cut", "short", "wrong", "stall", "503", "429", "html", "moved"])
def test_a_passing_fault_or_a_moved_file_is_overcome_within_one_call(server, folder, fault):
    server.faults[DATA] = [fault]
    fetch_gdc.fetch_gdc(NAME)
    assert whole(server, folder)


@pytest.mark.parametrize(("fault", "least"), [("429", 0.2), ("429 date", 0.0)])
def test_retry_after_is_waited_for(server, fault, least, monkeypatch):
    slept = []
    monkeypatch.setattr(fetch_gdc.time, "sleep", slept.append)
    server.faults[DATA] = [fault]
    fetch_gdc.fetch_gdc(NAME)
    assert len(slept) == 1 and least <= slept[0] <= 1


def test_a_damaged_file_of_the_cache_is_brought_anew_and_only_that(fetched, folder):
    path = gdc.star_path(uuid_of(3))
    path.write_bytes(path.read_bytes()[::-1])
    path.with_name(path.name + ".part").write_bytes(b"left by a kill")
    fetched.asked.clear()
    fetch_gdc.fetch_gdc(NAME)
    assert fetched.fetched() == [uuid_of(3)] and whole(fetched, folder)


def test_after_ten_failures_the_others_are_not_tried(folder, monkeypatch):
    with GdcServer(40) as server:
        monkeypatch.setattr(fetch_gdc, "API", server.url)
        server.contents.clear()
        with pytest.raises(fetch.FetchError, match="40 of 40 files are not fetched"):
            fetch_gdc.fetch_gdc(NAME)
        assert len(server.fetched()) < 20
    assert placed(folder) == ["TCGA-BRCA/manifest.json"]


def test_a_full_disk_is_refused_before_and_named_during_the_download(server, folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    real = fetch_gdc.os.replace
    for allowed, found in ((0, []), (1, ["TCGA-BRCA/manifest.json"])):
        turns = iter([real] * allowed + [full] * 9)
        with monkeypatch.context() as patched:
            patched.setattr(fetch_gdc.os, "replace", lambda *paths, turns=turns: next(turns)(*paths))
            with pytest.raises(fetch.FetchError, match="No space left on device; free the disk or set GEXLIB_DATA"):
                fetch_gdc.fetch_gdc(NAME)
        assert placed(folder) == found
    monkeypatch.setattr(fetch_gdc.shutil, "disk_usage", lambda _: _Free())
    with pytest.raises(fetch.FetchError, match="GB to fetch, 0.0 GB are free"):
        fetch_gdc.fetch_gdc(NAME)


class _Free:
    free = 0


def test_without_a_network_the_sentence_says_so(folder):
    with pytest.raises(CohortError, match="cannot be reached .*is there a network"):
        fetch_gdc.fetch_gdc(NAME)
    assert placed(folder) == []


def test_an_uncached_project_names_the_command_and_a_broken_manifest_is_named(server, folder):
    with pytest.raises(CohortError, match=f"nothing is cached.*python -m gexlib fetch {NAME}.*network"):
        gdc.load(NAME)
    assert server.asked == []
    path = gdc.manifest_path(NAME)
    path.parent.mkdir(parents=True)
    path.write_text('{"total": 2, "files": [')
    for call in (gdc.load, fetch_gdc.fetch_gdc):
        with pytest.raises(CohortError, match="manifest.json is no whole manifest; remove it"):
            call(NAME)


# The cohort


def expected(number, by=1):
    return np.log2(np.array(counts_of(number)[:-1], dtype=np.float32) / by + 1)


@pytest.mark.parametrize(
    ("values", "by", "unit"),
    [("counts", 1, "counts"), ("tpm", 2, "TPM"), ("fpkm", 4, "FPKM"), ("fpkm_uq", 8, "FPKM-UQ")],
)
def test_each_column_is_read_and_its_unit_said(fetched, values, by, unit):
    cohort = gdc.load(NAME, values=values)
    assert cohort.uns["unit"] == f"log2({unit} + 1)"
    for i, sample in enumerate(cohort.obs_names):
        np.testing.assert_allclose(cohort.X[i], expected(int(sample[8:12]), by), rtol=1e-6)
    linear = gdc.load(NAME, values=values, transform="none")
    assert linear.uns["unit"] == unit
    np.testing.assert_allclose(linear.X, np.exp2(cohort.X) - 1, rtol=1e-4, atol=1e-4)


def test_samples_are_joined_to_case_type_vital_status_and_follow_up(fetched):
    obs = gdc.load(NAME).obs
    assert list(obs.index) == [
        "TCGA-A1-0001-01A", "TCGA-A1-0002-01A", "TCGA-A1-0003-01A", "TCGA-A1-0004-01A", "TCGA-A1-0005-11A"
    ]  # fmt: skip
    third = obs.loc["TCGA-A1-0003-01A"]
    assert (third["patient"], third["project"], third["cohort"]) == ("TCGA-A1-0003", "TCGA-BRCA", "BRCA")
    assert (third["vital_status"], third["days_to_death"], third["os_days"]) == ("Dead", 103, 103)
    assert list(obs["vital_status"].cat.categories) == ["Alive", "Dead"]
    assert list(obs["days_to_last_follow_up"]) == [201, 202, 203, 204, 205]
    assert list(obs["sample_type"]) == ["Primary Tumor"] * 4 + ["Solid Tissue Normal"]
    assert obs["file_id"].iloc[0] == uuid_of(1) and set(obs["plate"]) == {"A00Z"}
    assert list(obs["vital"].cat.categories) == ["dead", "alive"] and third["vital"] == "dead"
    assert list(obs["tissue"]) == ["tumour"] * 4 + ["normal"]
    for name, count in outside_genes(1).items():
        assert obs[name.lower()].iloc[0] == count


def test_provenance_says_release_gene_model_and_what_was_left_out(fetched):
    cohort = gdc.load(NAME)
    provenance = cohort.uns["provenance"]
    assert provenance["release"] == STATUS["data_release"]
    assert dict(zip(provenance["files"], provenance["sha256"], strict=True)) == {
        "manifest.json": sha256_of(gdc.manifest_path(NAME))
    }
    assert provenance["left_out"] == {"copies on Y of pseudoautosomal genes": 1}
    assert "tpm_unstranded of 5 files, gene model GENCODE v36" in provenance["transforms"]
    assert "the copies on Y that were left out reach at most 0" in provenance["transforms"]


def test_genes_have_ensembl_ids_without_version_and_keep_symbol_type_and_the_id_of_the_file(fetched):
    var = gdc.load(NAME).var
    assert list(var.index) == [gene.split(".")[0] for gene, _, _ in GENES[:-1]]
    assert list(var["symbol"]) == SYMBOLS
    assert list(var["id_in_file"]) == [gene for gene, _, _ in GENES[:-1]]


def test_of_several_files_of_one_sample_one_is_kept_and_the_others_counted(server):
    more = {6: ("TCGA-A1-0002-01A", "TCGA-A1-0002-01A-21R-A00Z-07"), 7: ("TCGA-A1-0001-01A", None)}
    for number, (sample, aliquot) in more.items():
        content = star_file(number)
        hit = hit_of(number, content)
        hit["cases"][0]["submitter_id"] = sample[:12]
        hit["cases"][0]["samples"][0] |= {"submitter_id": sample}
        hit["cases"][0]["samples"][0]["portions"][0]["analytes"][0]["aliquots"][0]["submitter_id"] = aliquot
        server.hits.append(hit)
        server.contents[uuid_of(number)] = content
    fetch_gdc.fetch_gdc(NAME)
    one = gdc.load(NAME)
    further = "further aliquots of a patient and sample type (first vial, last plate kept)"
    assert one.n_obs == 5 and one.uns["provenance"]["left_out"][further] == 2
    assert one.obs.loc["TCGA-A1-0002-01A", "file_id"] == uuid_of(6)
    np.testing.assert_allclose(one["TCGA-A1-0002-01A"].X[0], expected(6, 2), rtol=1e-6)
    every = gdc.load(NAME, duplicates="keep")
    assert every.n_obs == 7 and {uuid_of(7), "TCGA-A1-0002-01A-11R-A00Z-07"} < set(every.obs_names)
    assert every.obs["patient"].nunique() == 5


def test_outside_tcga_and_target_the_last_barcode_of_a_sample_is_kept(server):
    for number, hit in enumerate(server.hits, start=1):
        case = hit["cases"][0]
        case |= {"submitter_id": f"C3L-{number}", "project": {"project_id": "CPTAC-3"}}
        case["samples"][0] |= {"submitter_id": "S" if number > 3 else f"S{number}"}
        case["samples"][0]["portions"][0]["analytes"][0]["aliquots"][0]["submitter_id"] = f"CPT{9 - number}"
    fetch_gdc.fetch_gdc("gdc:CPTAC-3")
    cohort = gdc.load("gdc:CPTAC-3")
    assert sorted(cohort.obs_names) == ["S", "S1", "S2", "S3"] and set(cohort.obs["cohort"]) == {"CPTAC-3"}
    assert cohort.obs.loc["S", "file_id"] == uuid_of(4) and "plate" not in cohort.obs
    further = "further aliquots of a patient and sample type (last barcode kept)"
    assert cohort.uns["provenance"]["left_out"][further] == 1


def test_a_file_of_two_samples_is_left_out_and_counted(server):
    server.hits[0]["cases"] *= 2
    fetch_gdc.fetch_gdc(NAME)
    cohort = gdc.load(NAME)
    assert cohort.n_obs == 4 and cohort.uns["provenance"]["left_out"]["files of no single case and sample"] == 1


def test_only_the_genes_and_samples_asked_for_are_given_and_the_others_counted(fetched, tmp_path):
    full = gdc.load(NAME)
    part = gdc.load(NAME, genes="XIST+TP53+NOSUCH", keep="sample_type == 'Primary Tumor' and vital_status == 'Alive'")
    assert list(part.var["symbol"]) == ["TP53", "XIST"] and part.n_obs == 3
    np.testing.assert_array_equal(part.X, full[part.obs_names, part.var_names].X)
    left_out = part.uns["provenance"]["left_out"]
    assert left_out["genes asked for that GDC's files lack"] == 1 and 2 in left_out.values()
    assert list(gdc.load(NAME, genes="misc_RNA").var["symbol"]) == ["Y_RNA", "Y_RNA"]
    assert list(gdc.load(NAME, genes=["ENSG00000141510.18", "ENSG00000171862"]).var["symbol"]) == ["TP53", "PTEN"]
    listed = tmp_path / "genes.txt"
    listed.write_text("# two\nPTEN\nTP53 a comment\n")
    assert gdc.load(NAME, genes=str(listed)).n_vars == 2
    by_symbol = gdc.load(NAME, ids="symbol")
    assert list(by_symbol.var_names) == ["PLCXD1", "TP53", "PTEN", "XIST"]
    assert by_symbol.uns["provenance"]["left_out"]["genes whose symbol is shared by several"] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"values": "rpkm"}, "values='rpkm' is not known"),
        ({"transform": "log10"}, "transform='log10' is not known"),
        ({"ids": "entrez"}, "ids='entrez' is not known"),
        ({"duplicates": "mean"}, "duplicates='mean' is not known"),
        ({"genes": "TP35"}, "none of the 1 genes asked for is in GDC's files .nearest: TP53"),
        ({"genes": "Y_RNA", "ids": "symbol"}, "every gene asked for shares its symbol"),
        ({"keep": "stage == 3"}, "cannot read keep='stage == 3'.*columns: patient"),
        ({"keep": "age_at_index > 400"}, "no sample meets keep='age_at_index > 400'"),
        ({"samples": "x.tsv"}, "leave samples='x.tsv' out"),
    ],
)
def test_what_cannot_be_given_is_refused_in_one_sentence(fetched, options, words):
    with pytest.raises(CohortError, match=words) as error:
        gdc.load(NAME, **options)
    assert NAME in str(error.value)


def test_a_name_opens_it_like_any_cohort(server):
    fetch.fetch(NAME)
    cohort = load_cohort(f"{NAME},values=fpkm,genes=protein_coding")
    assert cohort.shape == (5, 3) and cohort.uns["unit"] == "log2(FPKM + 1)"


def test_what_gdc_leaves_out_of_its_answer_is_missing_and_its_warnings_are_kept(server):
    for hit in server.hits:
        case = hit["cases"][0]
        del case["demographic"], case["diagnoses"], case["follow_ups"], case["samples"][0]["portions"]
        case["samples"][0] |= {"sample_type": None, "tissue_type": None}
    server.warnings = {"fields": "unrecognized values: [cases.samples.sample_type]"}
    fetch_gdc.fetch_gdc(NAME)
    cohort = gdc.load(NAME, duplicates="keep")
    assert sorted(cohort.obs_names) == sorted(server.contents)
    gone = ["vital_status", "days_to_death", "days_to_last_follow_up", "os_days", "sample_type", "sex", "age_at_index"]
    assert cohort.obs[gone].isna().all(axis=None) and cohort.obs["patient"].notna().all()
    assert "unrecognized values: [cases.samples.sample_type]" in " ".join(cohort.uns["provenance"]["transforms"])


def test_a_file_without_md5_is_refused(server, folder):
    server.hits[0]["md5sum"] = None
    with pytest.raises(fetch.FetchError, match="GDC gives no md5sum of the file"):
        fetch_gdc.fetch_gdc(NAME)
    assert placed(folder) == []


# The assembly


def test_the_assembled_file_keeps_the_contract_in_anyones_anndata(fetched):
    gdc.load(NAME)
    cohort = anndata.read_h5ad(gdc.manifest_path(NAME).with_name("tpm_log2.h5ad"))
    assert check_cohort(cohort).shape == (5, 6) and cohort.X.dtype == np.float32


def test_an_assembled_cohort_opens_without_the_files_and_is_made_anew_when_the_manifest_changes(fetched):
    first = gdc.load(NAME)
    kept = {path: path.read_bytes() for path in map(gdc.star_path, fetched.contents)}
    for path in kept:
        path.unlink()
    np.testing.assert_array_equal(gdc.load(NAME).X, first.X)
    path = gdc.manifest_path(NAME)
    path.write_text(path.read_text().replace("Release 45.0", "Release 46.0"))
    with pytest.raises(CohortError, match="5 of 5 files are missing.*python -m gexlib fetch gdc:TCGA-BRCA"):
        gdc.load(NAME)
    for place, content in kept.items():
        place.write_bytes(content)
    assert gdc.load(NAME).uns["provenance"]["release"].startswith("Data Release 46.0")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace(b"\t10.0000\t", b"\tabcdefg\t"), "cannot be read .*fetch it again"),
        (lambda text: text.replace(b"\t10.0000\t", b"\t       \t"), "fetch it again"),
        (lambda text: text.replace(b"\t10.0000\t", b"\t-9.0000\t"), "missing or below zero"),
        (lambda text: text.replace(b"ENSG00000141510.18", b"ENSG00000141510.17"), "not the 7 of the other files"),
        (lambda text: text.replace(b"tpm_unstranded", b"tpm_unstrandex"), "no column 'tpm_unstranded' among"),
        (lambda text: b"<html>" + text[6:], "begins with '<html>.*expected a comment, a header"),
        (lambda text: text[:40].ljust(len(text), b" "), "begins with"),
    ],
)
def test_a_damaged_file_of_the_right_length_is_named(fetched, folder, change, words):
    path = gdc.star_path(uuid_of(2))  # its first gene has 20 reads, TPM 10
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CohortError, match=words) as error:
        gdc.load(NAME)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not (folder / "TCGA-BRCA" / "tpm_log2.h5ad").exists()
    fetch_gdc.fetch_gdc(NAME)
    assert gdc.load(NAME).n_obs == 5


def test_a_disk_without_space_for_the_assembly_is_refused_before_it(fetched, monkeypatch):
    monkeypatch.setattr(gdc_assembly.shutil, "disk_usage", lambda _: _Free())
    with pytest.raises(OSError, match="assembly needs .* GB are free; free some space"):
        gdc.load(NAME)


@pytest.mark.parametrize("chunks", [(4, 3), (16, 16), None])
def test_a_part_of_a_matrix_is_what_numpy_would_take(tmp_path, chunks):
    rng = np.random.default_rng(0)
    whole = rng.random((23, 31), dtype=np.float32)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        X = file.create_dataset("X", data=whole, chunks=chunks)
        for rows, columns in ((np.arange(23), np.arange(31)), (np.array([22, 3, 7]), np.array([30, 0, 5, 6, 29]))):
            np.testing.assert_array_equal(gdc_assembly.read_part(X, rows, columns), whole[np.ix_(rows, columns)])
        assert gdc_assembly.read_part(X, np.arange(23), rng.permutation(31)).shape == (23, 31)


def test_where_another_process_finishes_first_its_file_is_taken(fetched, monkeypatch):
    write = gdc_assembly._write_whole

    def overtaken(*given):
        write(*given)
        raise FileNotFoundError("the blocks are gone")

    monkeypatch.setattr(gdc_assembly, "_write_whole", overtaken)
    assert gdc.load(NAME).n_obs == 5


SLOW = """
import sys, time
from gexlib.sources import gdc_assembly
gdc_assembly.BLOCK, read = 4, gdc_assembly.read_star
def slowly(*given):
    time.sleep(0.05)
    return read(*given)
gdc_assembly.read_star = slowly
gdc_assembly.assemble("gdc:TCGA-BRCA")
"""


def test_an_assembly_that_was_killed_goes_on_where_it_was_and_gives_the_identical_file(folder, monkeypatch):
    with GdcServer(48) as server:
        monkeypatch.setattr(fetch_gdc, "API", server.url)
        monkeypatch.setattr(fetch_gdc, "PAGE", 100)
        fetch_gdc.fetch_gdc(NAME)
    monkeypatch.setattr(gdc_assembly, "BLOCK", 4)
    target = gdc_assembly.assemble(NAME)
    unbroken = sha256_of(target)
    target.unlink()
    process = subprocess.Popen([sys.executable, "-c", SLOW], stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[1])
    until = time.monotonic() + 60
    while len(done := list(target.parent.glob(".tpm_log2-*.blocks/??????.npy"))) < 3:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    process.kill()
    assert process.wait() != 0 and not target.exists() and len(done) < 12
    read = []
    star = gdc_assembly.read_star
    monkeypatch.setattr(gdc_assembly, "read_star", lambda path, column: read.append(path) or star(path, column))
    assert sha256_of(gdc_assembly.assemble(NAME)) == unbroken
    assert 0 < len(read) <= 48 - 4 * len(done)
    assert sorted(path.name for path in target.parent.iterdir()) == ["manifest.json", "tpm_log2.h5ad"]


def test_a_kill_while_the_finished_file_is_written_leaves_no_half_of_it(fetched, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(gdc_assembly.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            gdc.load(NAME)
    target = gdc.manifest_path(NAME).with_name("tpm_log2.h5ad")
    assert not target.exists()
    assert gdc.load(NAME).n_obs == 5 and len(list(target.parent.iterdir())) == 2
