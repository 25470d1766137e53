"""The cohort contract: what every cohort promises, and one clear sentence for each promise that is broken."""

import errno
import gzip
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest

from gexlib import CohortError, check_cohort, load_cohort
from gexlib.cohort import (
    case_of,
    describe_cohort,
    drop_unlabelled,
    keep_samples,
    label_of,
    make_cohort,
    meets,
    note_left_out,
    set_inss,
    unless_absent,
)
from gexlib.sources import PREFIXES, split_settings
from gexlib.sources.h5ad import save_cohort

STAGES = ["st1", "ST2", "stage 3", "4", "4S", "INSS 4"]


def a_cohort(X=None, genes=None, samples=None, unit="log2 RMA", **obs):
    X = np.linspace(2, 12, 24, dtype=np.float32).reshape(6, 4) if X is None else np.asarray(X)
    samples = samples or [f"S{i}" for i in range(len(X))]
    var = pd.DataFrame(index=genes or [f"GENE{i}" for i in range(X.shape[1])])
    return make_cohort(X, pd.DataFrame(obs, index=samples), var, name="a cohort", unit=unit, source="a test")


def an_anndata(path, X=None, obs=None, var=None, **uns):
    X = np.linspace(2, 12, 24).reshape(6, 4) if X is None else X
    obs = pd.DataFrame(index=[f"S{i}" for i in range(6)]) if obs is None else obs
    var = pd.DataFrame(index=[f"GENE{i}" for i in range(4)]) if var is None else var
    anndata.AnnData(X=X, obs=obs, var=var, uns=uns).write_h5ad(path)
    return str(path)


# what a cohort is


def test_a_cohort_is_float32_and_names_its_unit_patients_and_provenance():
    cohort = a_cohort()
    assert cohort.X.dtype == np.float32 and cohort.uns["unit"] == "log2 RMA"
    assert list(cohort.obs["patient"]) == list(cohort.obs_names)
    assert "patient set to the sample id" in cohort.uns["provenance"]["transforms"][0]


def test_patients_named_by_the_source_are_kept_as_text():
    assert list(a_cohort(patient=[1, 1, 2, 2, 3, 3]).obs["patient"]) == list("112233")


def test_stages_are_read_in_every_usual_spelling_and_in_their_declared_order():
    cohort = set_inss(a_cohort(inss=STAGES), "inss")
    assert list(cohort.obs["inss_stage"]) == ["1", "2", "3", "4", "4S", "4"]
    assert list(cohort.obs["inss_stage"].cat.categories) == ["1", "2", "3", "4", "4S"]


def test_stage_2_split_into_a_and_b_is_stage_2():
    cohort = set_inss(a_cohort(inss=["2A", "2B", "st2a", "4s", "1", "3"]), "inss")
    assert list(cohort.obs["inss_stage"]) == ["2", "2", "2", "4S", "1", "3"]


def test_samples_without_a_label_are_dropped_and_counted():
    cohort = set_inss(a_cohort(inss=["1", "NA", None, "4", "4S", "2"]), "inss")
    kept = drop_unlabelled(cohort, "inss_stage")
    assert kept.n_obs == 4 and kept.uns["provenance"]["left_out"] == {"samples without 'inss_stage'": 2}
    assert cohort.uns["provenance"]["left_out"] == {}


def test_what_was_done_and_what_was_left_out_is_shown_to_the_reader():
    cohort = a_cohort(label=list("aabbcc"))
    cohort.uns["provenance"]["transforms"].append("halved")
    note_left_out(cohort, "genes of no name", 2)
    note_left_out(cohort, "genes of no name", 1)
    shown = describe_cohort(cohort, "label")
    assert shown["transforms"].endswith("halved") and shown["left out"] == "3 genes of no name"
    assert shown["label"] == "a: 2, b: 2, c: 2"


# what breaks the contract


def test_a_missing_label_column_names_the_nearest_column():
    with pytest.raises(CohortError, match="no column 'inss_stag' .*nearest: inss_stage"):
        check_cohort(a_cohort(inss_stage=STAGES), label="inss_stag")


def test_a_label_that_is_missing_for_some_samples_is_counted_and_the_first_named():
    with pytest.raises(CohortError, match="missing for 2 of 6 samples, the first is 'S1'.*drop_unlabelled"):
        label_of(a_cohort(label=["a", None, "b", None, "a", "b"]), "label")


def test_a_label_of_one_class_is_refused():
    with pytest.raises(CohortError, match="single class 'a'"):
        label_of(a_cohort(label=["a"] * 6), "label")


def test_an_unknown_stage_names_the_sample_and_the_value():
    with pytest.raises(CohortError, match="sample 'S2' has the stage '5'.*1, 2, 3, 4, 4S or NA"):
        set_inss(a_cohort(inss=["1", "2", "5", "4", "4S", "1"]), "inss")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"genes": ["A", "B", "A", "B"]}, "2 duplicated gene ids, the first is 'A'"),
        ({"samples": ["S1", "S2", "S1", "S3", "S4", "S5"]}, "1 duplicated sample ids, the first is 'S1'"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_duplicated_ids_are_counted_and_the_first_named(names, told):
    with pytest.raises(CohortError, match=told):
        a_cohort(**names)


@pytest.mark.parametrize("patients", [["a", None, "b", "b", np.nan, "c"], pd.Categorical([1, None, 2, 2, None, 3])])
def test_a_missing_patient_is_no_patient_that_strangers_share(patients):
    told = "'patient' is missing for 2 of 6 samples, the first is 'S1'; name one for every sample"
    with pytest.raises(CohortError, match=told):
        a_cohort(patient=patients)
    cohort = a_cohort()
    cohort.obs["patient"] = patients
    with pytest.raises(CohortError, match=told):
        check_cohort(cohort)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted_and_the_first_place_named(value):
    X = np.linspace(2, 12, 24).reshape(6, 4)
    X[1, 2] = X[4, 0] = value
    with pytest.raises(CohortError, match="2 values are NaN or infinite, the first at sample 'S1', gene 'GENE2'"):
        a_cohort(X)


def test_genes_that_are_all_constant_are_refused():
    with pytest.raises(CohortError, match="every gene is constant over all 6 samples"):
        a_cohort(np.tile([1.0, 2.0, 3.0, 4.0], (6, 1)))


def test_ensembl_ids_mixed_with_symbols_are_counted():
    with pytest.raises(CohortError, match="mix 3 Ensembl ids .first 'ENSG00000000003'. with 1 others .first 'TP53'."):
        a_cohort(genes=["ENSG00000000003", "TP53", "ENSG00000000005", "ENSG00000000419"])


def test_linear_values_called_log2_name_the_gene_and_the_transform():
    X = np.linspace(2, 12, 24).reshape(6, 4)
    X[3, 1] = 812
    with pytest.raises(CohortError, match="'log2 RMA' but gene 'GENE1' reaches 812.*pass transform=log2"):
        a_cohort(X)


def test_negative_values_cannot_be_log2_of_x_plus_1():
    with pytest.raises(CohortError, match="gene 'GENE0' falls to -3"):
        a_cohort(np.linspace(-3, 12, 24).reshape(6, 4), unit="log2(FPKM+1)")


@pytest.mark.parametrize("key", ["unit", "provenance"])
def test_a_cohort_without_unit_or_provenance_is_refused(key):
    cohort = a_cohort()
    del cohort.uns[key]
    with pytest.raises(CohortError, match=f"uns has no '{key}'"):
        check_cohort(cohort)


def test_a_cohort_without_samples_is_refused():
    with pytest.raises(CohortError, match="0 samples x 4 genes"):
        check_cohort(a_cohort()[:0].copy())


# one name opens any cohort


def test_the_library_and_its_names_load_no_heavy_framework():
    code = (
        "import gexlib, sys\n"
        "heavy = {'tensorflow', 'keras', 'jax', 'papermill', 'GEOparse', 'pooch', 'polars'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


def test_a_simulated_cohort_opens_by_name():
    cohort = load_cohort("simulated:neuroblastoma,n=60,genes=200,seed=2")
    assert cohort.shape == (60, 200) and cohort.uns["simulated"] is True


@pytest.mark.parametrize("name", ["neuroblastoma", "simulatd:neuroblastoma", "simulated-neuroblastoma"])
def test_an_unknown_name_is_told_the_nearest_or_all_prefixes(name):
    with pytest.raises(CohortError, match="simulated:neuroblastoma|simulated:KIND, real:NAME, geo:ACCESSION"):
        load_cohort(name)


def test_an_unknown_prefix_names_those_there_are():
    with pytest.raises(CohortError, match="no source 'ega:'; expected simulated:KIND, real:NAME, geo:ACCESSION"):
        load_cohort("ega:EGAD00001000001")


def test_an_address_is_to_be_downloaded_first():
    with pytest.raises(CohortError, match="Download it first"):
        load_cohort("https://example.org/expression.tsv.gz")


def test_every_prefix_is_a_module_that_loads():
    for prefix in PREFIXES:
        module = __import__(f"gexlib.sources.{prefix}", fromlist=["load"])
        assert callable(module.load)


@pytest.mark.parametrize("name", [r"C:\data\mine.h5ad", "d:/data/mine.tsv"])
def test_a_drive_letter_is_no_prefix(name):
    with pytest.raises(CohortError, match="no such file"):
        load_cohort(name)


def test_a_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "expression.tsv.gz").write_bytes(b"")
    with pytest.raises(CohortError, match="no such file in .* \\(nearest: expression.tsv.gz\\)"):
        load_cohort(str(tmp_path / "expresion.tsv.gz"))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CohortError, match="no folder '.*elsewhere'"):
        load_cohort(str(tmp_path / "elsewhere" / "expression.tsv"))


def test_a_folder_is_no_cohort(tmp_path):
    with pytest.raises(CohortError, match="is a folder; expected"):
        load_cohort(str(tmp_path))


def test_an_unknown_option_names_those_there_are(tmp_path):
    with pytest.raises(CohortError, match="h5ad cohorts have no option 'orientation' \\(there are: transform, unit\\)"):
        load_cohort(an_anndata(tmp_path / "a.h5ad"), orientation="auto")


def test_options_may_be_written_behind_a_file_name(tmp_path):
    path = an_anndata(tmp_path / "a, b.h5ad", X=np.linspace(0, 900, 24).reshape(6, 4))
    cohort = load_cohort(f"{path},transform=log2,unit=TPM")
    assert cohort.uns["unit"] == "log2(TPM + 1)" and cohort.uns["cohort"].endswith("unit=TPM")
    assert split_settings("a,b.tsv,transform=log2") == ("a,b.tsv", {"transform": "log2"})
    assert split_settings("a.tsv") == ("a.tsv", {})


# .h5ad files


def test_a_saved_cohort_comes_back_as_it_was(tmp_path):
    cohort = load_cohort("simulated:neuroblastoma,n=40,genes=150")
    note_left_out(cohort, "samples of no stage", 3)
    save_cohort(cohort, tmp_path / "saved.h5ad")
    again = load_cohort(str(tmp_path / "saved.h5ad"))
    np.testing.assert_array_equal(again.X, cohort.X)
    pd.testing.assert_frame_equal(again.obs, cohort.obs)
    pd.testing.assert_frame_equal(again.var, cohort.var)
    for key in ("unit", "simulated", "provenance", "truth"):
        assert again.uns[key] == cohort.uns[key], key


def test_a_cohort_that_anndata_itself_wrote_comes_back_with_patients_as_text(tmp_path):
    a_cohort(patient=list("aabbcc")).write_h5ad(tmp_path / "saved.h5ad")
    assert load_cohort(str(tmp_path / "saved.h5ad")).obs["patient"].dtype == object


def test_an_ordinary_anndata_becomes_a_cohort(tmp_path):
    obs = pd.DataFrame({"INSS.stage": STAGES, "patient_id": list("aabbcc")}, index=[f"S{i}" for i in range(6)])
    path = an_anndata(tmp_path / "theirs.h5ad", obs=obs, unit="log2 RMA", source="a series", note="half of the genes")
    cohort = load_cohort(path)
    assert list(cohort.obs["inss_stage"]) == ["1", "2", "3", "4", "4S", "4"]
    assert list(cohort.obs["patient"]) == list("aabbcc")
    provenance = cohort.uns["provenance"]
    assert provenance["source"] == "a series" and provenance["files"] == ["theirs.h5ad"]
    assert len(provenance["sha256"][0]) == 64 and "half of the genes" in provenance["transforms"][0]


def test_a_sparse_anndata_of_doubles_becomes_dense_float32(tmp_path):
    from scipy import sparse

    path = an_anndata(tmp_path / "sparse.h5ad", X=sparse.csr_matrix(np.linspace(0, 9, 24).reshape(6, 4)))
    cohort = load_cohort(path, unit="log2(CPM + 1)")
    assert isinstance(cohort.X, np.ndarray) and cohort.X.dtype == np.float32
    assert "patient set to the sample id" in cohort.uns["provenance"]["transforms"][0]


def test_an_anndata_of_linear_values_without_a_unit_asks_for_the_transform(tmp_path):
    with pytest.raises(CohortError, match="gene 'GENE3' reaches 900.*transform=log2"):
        load_cohort(an_anndata(tmp_path / "linear.h5ad", X=np.linspace(0, 900, 24).reshape(6, 4)))


def test_a_transposed_anndata_is_recognised(tmp_path):
    genes = pd.DataFrame(index=[f"ENSG0000000000{i}" for i in range(6)])
    with pytest.raises(CohortError, match="looks transposed, its first sample is called 'ENSG00000000000'"):
        load_cohort(an_anndata(tmp_path / "turned.h5ad", obs=genes))


def test_a_patient_left_empty_is_refused(tmp_path):
    obs = pd.DataFrame({"patient": ["a", None, "b", "b", None, "c"]}, index=[f"S{i}" for i in range(6)])
    with pytest.raises(CohortError, match="a.h5ad: 'patient' is missing for 2 of 6 samples, the first is 'S1'"):
        load_cohort(an_anndata(tmp_path / "a.h5ad", obs=obs))


def test_a_samples_table_beside_an_h5ad_is_refused(tmp_path):
    with pytest.raises(CohortError, match="holds its samples table"):
        load_cohort(an_anndata(tmp_path / "a.h5ad"), samples="samples.tsv")


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", gzip.compress(b"\x89HDF")])
def test_an_h5ad_that_is_not_one_is_refused(tmp_path, content):
    (tmp_path / "a.h5ad").write_bytes(content)
    with pytest.raises(CohortError, match="a.h5ad: not an HDF5 file"):
        load_cohort(str(tmp_path / "a.h5ad"))


def test_a_truncated_h5ad_is_refused(tmp_path):
    path = an_anndata(tmp_path / "a.h5ad")
    content = (tmp_path / "a.h5ad").read_bytes()
    (tmp_path / "a.h5ad").write_bytes(content[: len(content) // 2])
    with pytest.raises(CohortError, match="not a readable AnnData file"):
        load_cohort(path)


@pytest.mark.filterwarnings("ignore:Element")
def test_hdf5_of_another_kind_is_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5ad", "w") as other:
        other["weights"] = np.zeros(3)
    with pytest.raises(CohortError, match="a.h5ad: .*(AnnData|X is empty)"):
        load_cohort(str(tmp_path / "a.h5ad"))


def test_a_full_disk_leaves_the_former_file_and_nothing_else(tmp_path, monkeypatch):
    cohort, path = a_cohort(), tmp_path / "mine.h5ad"
    save_cohort(cohort, path)
    former = path.read_bytes()

    def half(self, content):
        with open(self, "wb") as stream:
            stream.write(content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", half)
    with pytest.raises(OSError, match="mine.h5ad: not written \\(No space left on device\\).*free some space"):
        save_cohort(cohort, path)
    assert path.read_bytes() == former and [file.name for file in tmp_path.iterdir()] == ["mine.h5ad"]


def test_a_broken_cohort_is_not_saved(tmp_path):
    cohort = a_cohort()
    cohort.X[0, 0] = np.nan
    with pytest.raises(CohortError, match="NaN"):
        save_cohort(cohort, tmp_path / "mine.h5ad")
    assert not list(tmp_path.iterdir())


def test_samples_are_kept_by_a_condition_and_the_others_counted():
    cohort = load_cohort("simulated:vital")
    kept = keep_samples(cohort, 'tissue == "tumour" and vital == "dead"')
    assert set(kept.obs["tissue"]) == {"tumour"} and set(kept.obs["vital"]) == {"dead"}
    assert list(kept.uns["provenance"]["left_out"].values()) == [cohort.n_obs - kept.n_obs]
    assert kept.uns["cohort"] == 'simulated:vital, tissue == "tumour" and vital == "dead"'
    assert keep_samples(cohort, "") is cohort and meets(cohort, "").all()
    with pytest.raises(CohortError, match="no sample meets"):
        keep_samples(cohort, 'tissue == "cell line"')
    with pytest.raises(CohortError, match="cannot read the condition 'tisue == 1'.* tissue"):
        keep_samples(cohort, "tisue == 1")


def test_plates_are_read_from_whole_aliquot_barcodes_alone(tmp_path):
    codes = [f"TCGA-OR-A5J{i}-01A-11R-A29{i}-13" for i in range(4)]
    for names, known in ((codes, True), ([code[:15] for code in codes], False)):
        values = np.random.default_rng(0).normal(8, 1, (4, 3)).astype("float32")
        adata = anndata.AnnData(values, pd.DataFrame(index=names), pd.DataFrame(index=["TP53", "MYC", "EGFR"]))
        adata.uns["unit"] = "log2(FPKM+1)"
        adata.write_h5ad(tmp_path / "a.h5ad")
        cohort = load_cohort(tmp_path / "a.h5ad")
        assert ("plate" in cohort.obs) == known
    assert load_cohort(tmp_path / "a.h5ad").obs["patient"].tolist() == [code[:12] for code in codes]


def test_a_default_column_that_a_cohort_lacks_is_let_go_and_said_but_a_named_one_is_kept():
    cohort = load_cohort("simulated:neuroblastoma,n=60,genes=200")
    own = 'tissue == "tumour"'
    assert unless_absent(cohort, own, own) == "" and unless_absent(cohort, "mycn", "mycn") == "mycn"
    assert unless_absent(cohort, 'tisue == "tumour"', own) == 'tisue == "tumour"'  # and is refused where it is asked
    unless_absent(cohort, own, own)
    said = [line for line in cohort.uns["provenance"]["transforms"] if "'tissue'" in line]
    assert said == [f"{own} not asked: the samples table has no column 'tissue'"]


def test_the_case_is_the_class_named_else_the_rarer_of_two_else_refused():
    cohort = load_cohort("simulated:neuroblastoma,n=60,genes=200")
    assert case_of(cohort, "mycn", "normal", "dead") == "normal"
    assert case_of(cohort, "mycn", "dead", "dead") == "amplified"
    with pytest.raises(CohortError, match="'mycn' holds no 'amplfied' to be the case .nearest: amplified"):
        case_of(cohort, "mycn", "amplfied", "dead")
    with pytest.raises(CohortError, match="'inss_stage' holds no 'dead' to be the case"):
        case_of(cohort, "inss_stage", "dead", "dead")
