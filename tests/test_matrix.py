"""Your own matrix: every layout it may come in, and one clear sentence for each that cannot be read."""

import gzip
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gexlib import CohortError, load_cohort
from gexlib.files import home
from gexlib.prep import LowInformationFilter
from gexlib.sources.matrix import gene_table, read_matrix, read_samples, write_example

GENES = ["TP53", "MYCN", "ACTB", "GAPDH", "ALK", "PHOX2B", "TH", "NTRK1"]
SAMPLES = ["S-1", "S-2", "S-3", "S-4", "S-5"]
VALUES = pd.DataFrame(np.linspace(1, 14, 40).reshape(8, 5).round(3), index=GENES, columns=SAMPLES)
TABLE = "sample\tpatient\tinss\tage_days\n" + "".join(
    f"{sample}\t{patient}\t{stage}\t{age}\n"
    for sample, patient, stage, age in zip(SAMPLES, "aabcc", ["st1", "st4", "st4s", "NA", "st1"], range(5), strict=True)
)


def write(path, content):
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


@pytest.fixture
def table(tmp_path):
    return write(tmp_path / "samples.tsv", TABLE)


# layouts

LAYOUTS = {
    "a.tsv": VALUES.to_csv(sep="\t"),
    "a.tsv.gz": VALUES.to_csv(sep="\t", index_label="gene"),
    "a.csv": VALUES.to_csv(),
    "a.csv.gz": VALUES.to_csv(lineterminator="\r\n"),
    "semicolons.csv": VALUES.to_csv(sep=";"),
    "r.txt": "\t".join(SAMPLES) + "\n" + VALUES.to_csv(sep="\t", header=False),
    "r_quoted.txt": " ".join(f'"{s}"' for s in SAMPLES) + "\n" + VALUES.to_csv(sep=" ", header=False),
    "comments.tsv": '# exported\n# 5" probes\n' + VALUES.to_csv(sep="\t", index_label="gene"),
    "byte_order_mark.tsv": "\ufeff" + "\t".join(SAMPLES) + "\n" + VALUES.to_csv(sep="\t", header=False) + "\n\n",
    "samples_in_rows.tsv": VALUES.T.to_csv(sep="\t"),
    "samples_in_rows.csv": VALUES.T.to_csv(),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same_cohort(tmp_path, table, name):
    cohort = load_cohort(write(tmp_path / name, LAYOUTS[name]), samples=table)
    assert list(cohort.obs_names) == SAMPLES and list(cohort.var_names) == GENES
    np.testing.assert_array_equal(cohort.X, VALUES.T.to_numpy(np.float32))


@pytest.mark.parametrize("with_index", [False, True])
def test_parquet_gives_the_same_cohort(tmp_path, table, with_index):
    frame = VALUES if with_index else VALUES.rename_axis("gene").reset_index()
    frame.to_parquet(tmp_path / "a.parquet")
    cohort = load_cohort(str(tmp_path / "a.parquet"), samples=table)
    np.testing.assert_array_equal(cohort.X, VALUES.T.to_numpy(np.float32))


def test_a_gzipped_file_without_the_ending_is_inflated(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(gzip.compress(VALUES.to_csv(sep="\t").encode()))
    assert read_matrix(path).shape == (8, 5)


def test_a_header_that_begins_with_a_hash_is_not_taken_for_a_comment(tmp_path):
    counts = VALUES.astype(int).to_csv(sep="\t", index_label="#gene")
    with pytest.raises(CohortError, match="the first row holds numbers .1, ….; expected ids, and no '#' before them"):
        read_matrix(write(tmp_path / "a.tsv", counts))


def test_whole_numbers_may_be_sample_ids(tmp_path):
    table = read_matrix(write(tmp_path / "a.tsv", VALUES.set_axis(range(1, 6), axis=1).to_csv(sep="\t")))
    assert list(table.columns) == list("12345")


def test_a_row_whose_id_begins_with_a_hash_is_no_comment(tmp_path):
    path = write(tmp_path / "a.tsv", "id\tTP53\tMYCN\n#1\t1\t2\n#2\t3\t4\n")
    assert list(read_matrix(path).index) == ["#1", "#2"]


def test_a_matrix_is_read_as_it_lies_in_the_file_with_missing_cells(tmp_path):
    table = read_matrix(write(tmp_path / "a.tsv", "gene\tS1\tS2\nTP53\tNA\t2\nMYCN\t3e0\t\n"))
    assert table.dtypes.eq(np.float32).all() and list(table.index) == ["TP53", "MYCN"]
    assert table.isna().to_numpy().tolist() == [[True, False], [False, True]]


# orientation


@pytest.mark.parametrize(
    ("rows", "columns", "told"),
    [
        (GENES, SAMPLES, "genes x samples"),
        (SAMPLES, GENES, "samples x genes"),
        ([f"ENSG{i:011d}.4" for i in range(9)], list("abcdef"), "genes x samples"),
        (list("abcdef"), [f"{i}_at" for i in range(5)], "samples x genes"),
        ([f"x{i}" for i in range(60)], list("abcdef"), "genes x samples"),
        (list("abcdef"), [f"x{i}" for i in range(60)], "samples x genes"),
    ],
)
def test_without_a_samples_table_the_ids_or_the_shape_tell_the_orientation(tmp_path, rows, columns, told):
    values = np.linspace(1, 14, len(rows) * len(columns)).reshape(len(rows), len(columns))
    path = write(tmp_path / "a.tsv", pd.DataFrame(values, rows, columns).to_csv(sep="\t"))
    cohort = load_cohort(path)
    assert cohort.shape == (values.shape if told == "samples x genes" else values.T.shape)
    assert told in cohort.uns["provenance"]["transforms"][0]


def test_an_orientation_that_cannot_be_told_is_asked_for(tmp_path):
    path = write(tmp_path / "a.tsv", "\ta\tb\tc\nd\t1\t2\t3\ne\t4\t5\t7\n")
    with pytest.raises(CohortError, match="2 rows, the first 'd'; 3 columns, the first 'a'.*orientation='genes x sam"):
        load_cohort(path)
    assert load_cohort(path, orientation="samples × genes").shape == (2, 3)
    assert load_cohort(path, orientation="genes x samples").shape == (3, 2)


def test_a_transposed_matrix_is_told_which_orientation_fits(tmp_path, table):
    path = write(tmp_path / "a.tsv", VALUES.T.to_csv(sep="\t"))
    with pytest.raises(CohortError, match="5 in its rows; looks transposed: pass orientation='samples x genes'"):
        load_cohort(path, samples=table, orientation="genes x samples")


def test_an_unknown_orientation_names_the_nearest(tmp_path):
    with pytest.raises(CohortError, match="no orientation 'gene x sample' .nearest: genes x samples"):
        load_cohort(write(tmp_path / "a.tsv", VALUES.to_csv(sep="\t")), orientation="gene x sample")


# samples


def test_the_samples_table_is_typed_and_its_stages_and_patients_are_known(tmp_path, table):
    obs = load_cohort(write(tmp_path / "a.tsv", VALUES.to_csv(sep="\t")), samples=table).obs
    assert list(obs["inss_stage"].astype(object).fillna("?")) == ["1", "4", "4S", "?", "1"]
    assert list(obs["patient"]) == list("aabcc") and obs["age_days"].dtype == np.int64


def test_the_sample_ids_may_stand_in_a_named_column(tmp_path):
    path = write(tmp_path / "s.csv", "site,Sample_ID,grade\nX,S-1,1\nY,S-2,2\nX,S-3,\n")
    table = read_samples(path)
    assert list(table.index) == ["S-1", "S-2", "S-3"] and list(table.columns) == ["site", "grade"]
    assert isinstance(table["site"].dtype, pd.CategoricalDtype) and table["grade"].isna().sum() == 1


def test_stages_written_as_bare_numbers_survive_a_missing_one(tmp_path):
    table = write(tmp_path / "s.tsv", "sample\tINSS\nS-1\t1\nS-2\t4\nS-3\tNA\nS-4\t2\nS-5\t3\n")
    cohort = load_cohort(write(tmp_path / "a.tsv", VALUES.to_csv(sep="\t")), samples=table)
    assert list(cohort.obs["inss_stage"].astype(object).fillna("?")) == ["1", "4", "?", "2", "3"]


def test_a_samples_table_may_be_parquet(tmp_path):
    pd.DataFrame({"sample": SAMPLES, "type": list("ababa")}).to_parquet(tmp_path / "s.parquet")
    assert list(read_samples(tmp_path / "s.parquet").index) == SAMPLES


def test_samples_in_one_file_only_are_left_out_and_counted(tmp_path):
    table = write(tmp_path / "s.tsv", "sample\ttype\nS-4\tx\nS-2\ty\nS-3\tx\nS-9\ty\n")
    cohort = load_cohort(write(tmp_path / "a.tsv", VALUES.to_csv(sep="\t")), samples=table)
    assert list(cohort.obs_names) == ["S-2", "S-3", "S-4"] and list(cohort.obs["type"]) == ["y", "x", "x"]
    assert cohort.uns["provenance"]["left_out"] == {
        "samples of the matrix that the samples table does not list": 2,
        "rows of the samples table without expression": 1,
    }
    assert cohort.uns["provenance"]["files"] == ["a.tsv", "s.tsv"]


def test_ids_that_none_share_are_counted_and_near_spellings_pointed_out(tmp_path, table):
    dotted = VALUES.set_axis(VALUES.columns.str.replace("-", "."), axis=1)
    path = write(tmp_path / "a.tsv", dotted.to_csv(sep="\t"))
    told = "8 rows, .*5 columns, the first 'S.1'.*of the 5 sample ids .*'S-1'. 0 are in its columns.*5 differ in case"
    with pytest.raises(CohortError, match=told):
        load_cohort(path, samples=table)


def test_patients_of_tcga_barcodes_are_known_without_a_table(tmp_path):
    barcodes = ["TCGA-AA-0001-01A", "TCGA-AA-0001-11A", "TCGA-AA-0002-01A", "TCGA-AA-0003-01A", "TCGA-AA-0004-01A"]
    cohort = load_cohort(write(tmp_path / "a.tsv", VALUES.set_axis(barcodes, axis=1).to_csv(sep="\t")))
    assert cohort.obs["patient"].nunique() == 4
    assert "TCGA barcode" in cohort.uns["provenance"]["transforms"][-1]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("sample\ttype\nS-1\tx\nS-1\ty\n", "1 duplicated sample ids, the first is 'S-1'"),
        ("sample\ttype\nS-1\tx\n\ty\n", "s.tsv: row 2 below the header has no id"),
        ("sample\ttype\ttype\nS-1\tx\ty\n", "1 duplicated column names, the first is 'type'"),
        ("sample\ttype\nS-1\tx\nS-2\n", "line 3 has 1 fields; expected 2"),
        ("sample\ttype\tpatient\nS-1\tx\ta\nS-2\tx\t\n", "'patient' is missing for 1 of 2 samples, the first is 'S-2'"),
        ("sample\tinss\nS-1\tst1\nS-2\tstage 9\n", "sample 'S-2' has the stage 'stage 9' in 'inss'"),
    ],
)
def test_a_samples_table_that_cannot_serve_says_why(tmp_path, content, told):
    path = write(tmp_path / "a.tsv", VALUES.to_csv(sep="\t"))
    with pytest.raises(CohortError, match=told):
        load_cohort(path, samples=write(tmp_path / "s.tsv", content))


def test_a_missing_samples_table_is_named(tmp_path):
    with pytest.raises(CohortError, match="nowhere.tsv: no such file"):
        load_cohort(write(tmp_path / "a.tsv", VALUES.to_csv(sep="\t")), samples=str(tmp_path / "nowhere.tsv"))


# scale


def test_linear_values_ask_for_the_transform(tmp_path, table):
    path = write(tmp_path / "a.tsv", (VALUES * 1000).to_csv(sep="\t"))
    with pytest.raises(CohortError, match="gene 'NTRK1' reaches 14000.*transform=log2.*transform=none and the unit"):
        load_cohort(path, samples=table)
    with pytest.raises(CohortError, match="such as unit=counts"):
        load_cohort(path, samples=table, transform="none")


def test_log2_is_taken_of_x_plus_1_and_recorded(tmp_path, table):
    path = write(tmp_path / "a.tsv", (VALUES * 1000).to_csv(sep="\t"))
    cohort = load_cohort(path, samples=table, transform="log2")
    np.testing.assert_allclose(cohort.X, np.log2(VALUES.T * 1000 + 1), rtol=1e-6)
    assert cohort.uns["unit"] == "log2(x + 1)" and "log2(x + 1)" in cohort.uns["provenance"]["transforms"]
    assert load_cohort(path, samples=table, transform="log2", unit="TPM").uns["unit"] == "log2(TPM + 1)"


def test_linear_values_are_kept_where_their_unit_is_said(tmp_path, table):
    path = write(tmp_path / "a.tsv", (VALUES * 1000).to_csv(sep="\t"))
    cohort = load_cohort(path, samples=table, transform="none", unit="counts")
    assert cohort.X.max() == 14000 and cohort.uns["unit"] == "counts"


def test_intensities_below_zero_are_told_apart_from_other_linear_values(tmp_path, table):
    path = write(tmp_path / "a.tsv", (VALUES * 1000 - 1500).to_csv(sep="\t"))
    told = "'NTRK1' reaches 12500 and gene 'TP53' falls to -500; .* pass transform=log2_floor20, .* unit=intensity"
    with pytest.raises(CohortError, match=told):
        load_cohort(path, samples=table)
    assert load_cohort(path, samples=table, transform="none", unit="intensity").X.min() == -500


def test_a_floor_raises_what_lies_below_it_before_the_logarithm_and_counts_it(tmp_path, table):
    values = VALUES * 1000 - 1500
    path = write(tmp_path / "a.tsv", values.to_csv(sep="\t"))
    cohort = load_cohort(path, samples=table, transform="log2_floor20", unit="intensity")
    np.testing.assert_allclose(cohort.X, np.log2(np.maximum(values.T, 20) + 1), rtol=1e-6)
    raised = f"{(values < 20).sum().sum()} of 40 values raised to 20"
    assert cohort.uns["provenance"]["transforms"][1:3] == [raised, "log2(intensity + 1)"]
    assert cohort.uns["unit"] == "log2(intensity + 1)" and 0 < (values < 20).sum().sum() < 40


def test_a_floor_leaves_a_missing_value_missing(tmp_path, table):
    values = VALUES * 1000
    values.loc["ALK", "S-3"] = np.nan
    with pytest.raises(CohortError, match="1 values are NaN or infinite, the first at sample 'S-3', gene 'ALK'"):
        path = write(tmp_path / "a.tsv", values.to_csv(sep="\t", na_rep="NA"))
        load_cohort(path, samples=table, transform="log2_floor20")


def test_small_values_of_an_unsaid_scale_say_so(tmp_path, table):
    cohort = load_cohort(write(tmp_path / "a.tsv", VALUES.to_csv(sep="\t")), samples=table)
    assert cohort.uns["unit"] == "unstated scale"


@pytest.mark.parametrize(
    ("values", "options", "told"),
    [
        (VALUES * 1000 - 1500, {"transform": "log2"}, "'TP53' falls to -500, and .* zero or more: pass .*log2_floor20"),
        (VALUES * 1000 - 1500, {"transform": "log2", "unit": "intensity"}, "falls to -500.*or transform=none and the"),
        (VALUES, {"transform": "log2"}, "values from 0 to 14 look like logarithms.*leave it out"),
        (VALUES, {"transform": "log2", "unit": "log2(TPM + 1)"}, "leave transform=log2 out"),
        (VALUES - 9, {"transform": "log2_floor1"}, "values from -8 to 5 look like logarithms; transform=log2_floor1"),
        (VALUES, {"transform": "log10"}, "no transform 'log10'; expected log2, log2_floor20 or none"),
        (VALUES, {"transform": "log2_floor"}, "no transform 'log2_floor'; expected log2, log2_floor20 or none"),
        (VALUES * 1000, {"unit": "log2 RMA"}, "reaches 14000.*pass transform=log2"),
    ],
)
def test_a_transform_that_does_not_fit_the_values_is_refused(tmp_path, table, values, options, told):
    with pytest.raises(CohortError, match=told):
        load_cohort(write(tmp_path / "a.tsv", values.to_csv(sep="\t")), samples=table, **options)


def test_a_missing_value_is_named_before_any_model_sees_it(tmp_path, table):
    values = VALUES.copy()
    values.loc["ALK", "S-3"] = np.nan
    with pytest.raises(CohortError, match="1 values are NaN or infinite, the first at sample 'S-3', gene 'ALK'"):
        load_cohort(write(tmp_path / "a.tsv", values.to_csv(sep="\t", na_rep="NA")), samples=table)


# genes


def test_ensembl_versions_are_taken_off_and_copies_on_y_counted(tmp_path, table):
    genes = [f"ENSG{i:011d}.{i}" for i in range(1, 8)] + ["ENSG00000000003.3_PAR_Y"]
    cohort = load_cohort(write(tmp_path / "a.tsv", VALUES.set_axis(genes).to_csv(sep="\t")), samples=table)
    assert cohort.var_names[2] == "ENSG00000000003" and cohort.var["id_in_file"].iloc[2] == "ENSG00000000003.3"
    assert cohort.uns["provenance"]["left_out"] == {"copies on Y of pseudoautosomal genes": 1}


def test_two_versions_of_one_ensembl_id_are_refused(tmp_path, table):
    genes = [f"ENSG{i:011d}.1" for i in range(7)] + ["ENSG00000000003.2"]
    with pytest.raises(CohortError, match="1 duplicated gene ids, the first is 'ENSG00000000003'"):
        load_cohort(write(tmp_path / "a.tsv", VALUES.set_axis(genes).to_csv(sep="\t")), samples=table)


def test_symbols_with_entrez_ids_become_symbols_where_those_are_unique():
    genes = gene_table(pd.Index(["?|100130426", "A1BG|1", "SLC35E2|728661", "SLC35E2|9906", "TP53|7157"]))
    assert list(genes.index) == ["?|100130426", "A1BG", "SLC35E2|728661", "SLC35E2|9906", "TP53"]
    assert list(genes["entrez"]) == ["100130426", "1", "728661", "9906", "7157"]


# files that are no matrix


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.tsv", "", "the file is empty"),
        ("a.tsv.gz", "", "the file is empty"),
        ("a.tsv", "# only\n# comments\n", "the file is empty"),
        ("a.tsv", "gene\tS-1\tS-2\n", "a header and not one row below it"),
        ("a.tsv", "gene\nTP53\n", "the header 'gene' is one word"),
        ("a.tsv", "gene\tS-1\tS-2\nTP53\t1\tlow\n", "column 'S-2' holds 'low'; expected bare numbers"),
        ("a.tsv", "gene\tS-1\tS-2\nTP53\t1,5\t2\n", "column 'S-1' holds '1,5'; .*1.5, no commas"),
        ("a.tsv", "gene\tS-1\tS-2\nTP53\t1\t2\nALK\t3\n", "line 3 has 2 fields; expected 3; is the file cut off"),
        ("a.tsv", "gene\tS-1\tS-2\nTP53\t1\t2\nALK\t3\t4\t5\n", "line 3 has 4 fields; expected 3"),
        ("a.tsv", "gene\tS-1\tS-2\nTP53\t1\n", "line 2 has 2 fields; expected 3"),
        ("a.tsv", "gene\tS-1\tS-2\nTP53\t1\t2\t\n", "line 2 has 4 fields; expected 3"),
        ("a.tsv", "gene\tS-1\tS-2\nTP53\t1\t2\n\t3\t4\n", "row 2 below the header has no id"),
        ("a.tsv", 'gene\tS-1\tS-2\n"TP53\t1\t2\nALK\t3\t4\n', "expected .*(quotes|3)"),
        ("a.tsv", "TP53\t1.5\t2.5\nALK\t3.5\t4.5\n", "the first row holds numbers"),
        ("a.txt", "<!DOCTYPE html>\n<html><body>503</body></html>", "this is a web page, not data"),
        ("a.csv", b"PK\x03\x04\x14\x00\x06\x00", "this is no plain text"),
        ("a.parquet", b"PAR1 not quite", "cannot be read as parquet"),
    ],
)
def test_a_file_that_is_no_matrix_says_so_in_one_sentence(tmp_path, name, content, told):
    path = write(tmp_path / name, content)
    with pytest.raises(CohortError, match=told) as error:
        load_cohort(path)
    assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("cut", [-4, -20, 15])
def test_a_truncated_gzip_says_so(tmp_path, cut):
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(VALUES.to_csv(sep="\t").encode())[:cut])
    with pytest.raises(CohortError, match="a.tsv.gz: the gzip is cut off or damaged"):
        load_cohort(str(tmp_path / "a.tsv.gz"))


def test_a_parquet_column_of_words_is_named(tmp_path):
    VALUES.assign(note="x").to_parquet(tmp_path / "a.parquet")
    with pytest.raises(CohortError, match="column 'note' holds 'x'; expected bare numbers"):
        load_cohort(str(tmp_path / "a.parquet"))


# the page on it


def test_the_page_on_your_own_matrix_quotes_what_is_said(tmp_path, table):
    page = (home() / "docs/your_own_matrix.md").read_text(encoding="utf-8")
    twice, missing = pd.concat([VALUES, VALUES.iloc[:1]]), VALUES.mask(VALUES == VALUES.iloc[0, 0])
    for values, settings in (
        (VALUES * 1000, ""),
        (VALUES * 1000 - 1500, ""),
        (VALUES, ",transform=log2"),
        (VALUES.add_prefix("x", axis=1), ""),
        (twice, ""),
        (missing, ""),
        (VALUES.astype(str).replace("1.0", "1,5"), ""),
    ):
        path = write(tmp_path / "a.tsv", values.to_csv(sep="\t", na_rep="NA"))
        with pytest.raises(CohortError) as error:
            load_cohort(path + settings, samples=table)
        said = re.sub(r"-?\d+(,\d)?|'[^']*'", "#", str(error.value))
        quoted = [re.sub(r"-?\d+(,\d)?|'[^']*'", "#", words) for words in re.findall(r"^\| `(.+?)`", page, re.M)]
        assert any(all(part in said for part in words.split(" … ")) for words in quoted), said
    for option in ("transform=log2,unit=TPM", "transform=log2_floor20,unit=intensity", "transform=none,unit=intensity"):
        path = write(tmp_path / "a.tsv", (VALUES * 1000).to_csv(sep="\t"))
        assert option in page and load_cohort(f"{path},{option}", samples=table).n_obs == 5


# the template


def test_the_example_is_a_cohort_that_serves_the_studies_and_is_never_replaced(tmp_path):
    paths = write_example(tmp_path / "mine")
    assert [path.name for path in paths] == ["expression.tsv", "samples.csv"]
    cohort = load_cohort(str(paths[0]), samples=str(paths[1]), unit="log2 RMA")
    assert cohort.shape == (120, 1200) and list(cohort.obs["inss_stage"].cat.categories) == ["1", "2", "3", "4", "4S"]
    assert list(cohort.obs.columns[:2]) == ["patient", "response"] and cohort.uns["provenance"]["left_out"] == {}
    assert list(cohort.obs["response"].value_counts()) == [76, 44]
    assert LowInformationFilter(mean=0.5, sd=0.8).fit(cohort.X).kept_.sum() >= 190  # enough for the kernels of 02
    former = paths[0].read_bytes()
    with pytest.raises(CohortError, match="expression.tsv: exists already and is not replaced"):
        write_example(tmp_path / "mine")
    assert paths[0].read_bytes() == former


def test_the_example_is_called_simulated_and_other_matrices_are_not(tmp_path, table):
    paths = write_example(tmp_path)
    assert load_cohort(str(paths[0]), samples=str(paths[1])).uns["simulated"] is True
    assert load_cohort(write(tmp_path / "a.tsv", VALUES.to_csv(sep="\t")), samples=table).uns["simulated"] is False


def test_the_genes_of_the_example_have_something_to_say_about_its_response(tmp_path):
    cohort = load_cohort(str(write_example(tmp_path)[0]), samples=str(tmp_path / "samples.csv"))
    y = (cohort.obs["response"] == "yes").to_numpy()
    ridge = make_pipeline(StandardScaler(), RidgeClassifier(1e4))
    assert cross_val_score(ridge, cohort.X, y, cv=5, scoring="roc_auc").mean() > 0.75


def test_the_example_is_the_same_file_every_time(tmp_path):
    one, other = write_example(tmp_path / "one"), write_example(tmp_path / "other")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
