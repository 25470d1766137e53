"""GEO files in their public forms: a miniature of GSE85047, and the original files where GEXLIB_REAL_DATA has them."""

import gzip
import os
import re
from pathlib import Path

import anndata
import numpy as np
import pytest
from geo_server import CHARACTERISTICS, PROCESSING, VALUES, platform_table, series_matrix, soft_family

from gexlib.cohort import CohortError
from gexlib.sources import geo

REAL = Path(os.environ.get("GEXLIB_REAL_DATA", "nowhere")) / "geo"
real = pytest.mark.skipif(not REAL.is_dir(), reason="GEXLIB_REAL_DATA is unset or has no geo/ folder")
MATRIX = "GSE85047_series_matrix.txt.gz"
STAGES = ["1", "2", "3", "4", "4S"]
MYCN = np.array([6.0, 7.0, 8.0, 11.0, 5.0])  # the mean of its two probes


def write(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture
def matrix(tmp_path):
    """The series matrix, with its platform's table beside it."""
    write(tmp_path / "GPL5175.txt", platform_table())
    return write(tmp_path / MATRIX, series_matrix())


def test_a_series_matrix_and_its_platform_make_a_cohort_of_genes(matrix):
    cohort = geo.load(matrix)
    assert list(cohort.var_names) == ["ALK", "MYCN"] and list(cohort.obs_names) == list(CHARACTERISTICS)
    np.testing.assert_allclose(cohort[:, "MYCN"].X.ravel(), MYCN)
    assert cohort.uns["unit"] == "log2 RMA"
    assert list(cohort.var["probes"]) == [1, 2]
    assert list(cohort.obs["title"]) == [f"NRC_{i}" for i in range(1, 6)]
    assert set(cohort.obs["platform_id"]) == {"GPL5175"}
    assert set(cohort.obs["source_name_ch1"]) == {"primary tumour"}
    provenance = cohort.uns["provenance"]
    assert provenance["files"] == [MATRIX, "GPL5175.txt"] and all(len(word) == 64 for word in provenance["sha256"])
    assert provenance["left_out"] == {"probes without a gene symbol": 2, "probes that name several genes": 1}
    assert "1 genes are the mean of 2 probes" in provenance["transforms"]
    assert "GSE85047" in provenance["source"] and provenance["release"] == "Mar 25 2019"


def test_the_first_symbol_rule_keeps_a_probe_that_names_several_genes(matrix):
    cohort = geo.load(matrix, genes="first")
    assert list(cohort.var_names) == ["ALK", "KLHL17", "MYCN"]
    assert "probes that name several genes" not in cohort.uns["provenance"]["left_out"]
    assert any("first where several (1 probes)" in step for step in cohort.uns["provenance"]["transforms"])


def test_characteristics_are_read_by_name_though_a_sample_lacks_an_earlier_field(matrix):
    obs = geo.load(matrix).obs
    assert list(obs["age_at_diagnosis_days"]) == [120, 410, 77, 1500, 50]
    assert list(obs["profression_free_survival_time_days"].isna()) == [False, True, False, False, False]
    assert list(obs["mycn_amplification"].astype(object).fillna("?")) == ["no", "no", "?", "yes", "?"]


def test_inss_stages_are_an_ordered_list_of_five_and_na_stays_missing(matrix):
    stage = geo.load(matrix).obs["inss_stage"]
    assert list(stage.cat.categories) == STAGES
    assert list(stage.astype(object).fillna("?")) == ["1", "2", "?", "4", "4S"]


def test_the_soft_family_gives_the_same_cohort_as_the_series_matrix(matrix, tmp_path, capfd):
    soft = geo.load(write(tmp_path / "GSE85047_family.soft.gz", soft_family()))
    ours = geo.load(matrix)
    np.testing.assert_array_equal(soft.X, ours.X)
    assert list(soft.var_names) == list(ours.var_names) and soft.uns["unit"] == ours.uns["unit"]
    assert soft.obs.astype(str).equals(ours.obs.astype(str))
    assert capfd.readouterr() == ("", "")


def test_a_geo_cohort_survives_writing_and_reading_as_h5ad(matrix, tmp_path):
    text = re.sub("(amplification): [a-z]+", r"\1: NA", series_matrix())  # a column without any value
    cohort = geo.load(write(matrix, text))
    cohort.write_h5ad(tmp_path / "cohort.h5ad")
    again = anndata.read_h5ad(tmp_path / "cohort.h5ad")
    assert again.obs.astype(str).equals(cohort.obs.astype(str)) and again.uns["unit"] == "log2 RMA"


def test_patients_are_the_samples_unless_a_characteristic_names_them(matrix, tmp_path):
    assert list(geo.load(matrix).obs["patient"]) == list(CHARACTERISTICS)
    text = series_matrix().replace("mycn_amplification: no", "patient id: 007").replace("yes", "NA")
    cohort = geo.load(write(tmp_path / "named.txt", text))
    assert list(cohort.obs["patient"]) == ["007", "007", "GSM2259103", "GSM2259104", "GSM2259105"]
    assert any("patient read from 'patient_id'" in step for step in cohort.uns["provenance"]["transforms"])


@pytest.mark.parametrize(
    ("assignment", "symbols"),
    [
        ("NM_005378 // MYCN // proto-oncogene // 2p24.3 // 4613", ["MYCN"]),
        ("NM_1 // MYCN // a // b // 1 /// NM_2 // MYCN // a // b // 1", ["MYCN"]),
        ("NM_1 // KLHL17 // a // b // 1 /// NM_2 // PLEKHN1 // c // d // 2", ["KLHL17", "PLEKHN1"]),
        ("AK1 // --- // a // --- // --- /// NM_2 // ALK // c // d // 2", ["ALK"]),
        ("GENSCAN00000011 // --- // --- // --- // ---", []),
        ("ENST00000281043 // ENSG00000134323 // --- // --- // ---", []),
        ("NM_2 // ALK", ["ALK"]),
        ("---", []),
        ("", []),
        ("  ", []),
        (float("nan"), []),
        ("DDR1", ["DDR1"]),
        ("DDR1 /// MIR4640", ["DDR1", "MIR4640"]),
        ("HLA-A///HLA-B///HLA-A", ["HLA-A", "HLA-B"]),
        ("--Control", []),
    ],
)
def test_the_grammar_of_gene_assignments_gives_the_distinct_symbols_in_order(assignment, symbols):
    assert geo.symbols_of(assignment) == symbols


def test_missing_values_are_an_error_that_names_the_option_and_are_dropped_only_when_asked(tmp_path):
    write(tmp_path / "GPL5175.txt", platform_table())
    values = VALUES | {"2547018": ("null", 6.25, "", 9.5, 5.5)}
    path = write(tmp_path / MATRIX, series_matrix(values))
    with pytest.raises(CohortError, match="1 of 3 rows.*gene 'ALK', sample 'GSM2259101'; pass missing=drop"):
        geo.load(path)
    cohort = geo.load(path, missing="drop")
    assert list(cohort.var_names) == ["MYCN"]
    assert cohort.uns["provenance"]["left_out"]["rows with missing values"] == 1


def test_linear_values_are_refused_by_name_and_transformed_when_asked(tmp_path):
    write(tmp_path / "GPL5175.txt", platform_table())
    values = {probe: tuple(2**value - 1 for value in row) for probe, row in VALUES.items()}
    path = write(tmp_path / MATRIX, series_matrix(values, processing="MAS5"))
    with pytest.raises(CohortError, match="transform=log2"):
        geo.load(path)
    cohort = geo.load(path, transform="log2")
    np.testing.assert_allclose(cohort[:, "MYCN"].X.ravel(), MYCN, rtol=1e-6)
    assert cohort.uns["unit"] == "log2(x + 1)"
    assert geo.load(path, unit="MAS5 signal").uns["unit"] == "MAS5 signal"


def test_a_header_that_speaks_of_logarithms_does_not_hide_linear_values(tmp_path):
    write(tmp_path / "GPL5175.txt", platform_table())
    path = write(tmp_path / MATRIX, series_matrix({probe: (100, 200, 300, 400, 500) for probe in VALUES}))
    with pytest.raises(CohortError, match="transform=log2"):
        geo.load(path)
    assert geo.load(path, transform="log2").uns["unit"] == "log2(x + 1)"


def test_logarithms_are_not_taken_twice(matrix):
    with pytest.raises(CohortError, match="unit=log2 RMA says that the values are logarithms"):
        geo.load(matrix, transform="log2")


@pytest.mark.parametrize(
    ("processing", "unit"),
    [(PROCESSING, "log2 RMA"), ("quantile normalised, log base 2", "log2"), ("quantile", "unstated scale")],
)
def test_the_unit_comes_from_the_header_where_it_says_one(tmp_path, processing, unit):
    write(tmp_path / "GPL5175.txt", platform_table())
    assert geo.load(write(tmp_path / MATRIX, series_matrix(processing=processing))).uns["unit"] == unit


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (gzip.compress(b""), "is empty"),
        (b"<!DOCTYPE html>\n<html>GEO is down</html>", "a web page, not data"),
        (gzip.compress(series_matrix().encode())[:-40], "gzip is cut"),
        (series_matrix().rpartition("!series_matrix_table_end")[0].encode(), "no !series_matrix_table_end"),
        (series_matrix().partition("!series_matrix_table_begin")[0].encode(), "neither a whole series matrix"),
        (series_matrix().replace('\t"NRC_5"', "").encode(), "lines and its table are not of the same samples"),
        (series_matrix().replace('"ID_REF"\t"GSM2259101"', '"ID_REF"\t"GSM1"').encode(), "not of the same samples"),
        (series_matrix().replace('"2547018"\t', '"2547018"\t1\t').encode(), "its table cannot be read"),
        (series_matrix().replace("\t12.0\t", "\thigh\t").encode(), "probe '2469252', sample 'GSM2259104': 'high'"),
        (b"gene\ts1\ts2\nMYCN\t1\t2\n", "neither a whole series matrix nor SOFT"),
        (gzip.compress(soft_family().encode())[:-40], "gzip is cut"),
        (soft_family().rpartition("!sample_table_end")[0].encode(), "no !sample_table_end"),
        (soft_family().rpartition("^SAMPLE")[0].encode(), "only 4 of its 5 samples"),
        (soft_family().replace("2469253\t5.0\n", "2469252\t5.0\n").encode(), "GSM2259101 .* a probe twice"),
        (re.sub("(?<=#)VALUE|VALUE(?=\n)", "SIGNAL", soft_family()).encode(), "lacks ID_REF or VALUE"),
        (soft_family().replace("!platform_table_end\n", "").encode(), "no !platform_table_end"),
    ],
)
def test_a_cut_or_wrong_file_is_one_clear_sentence(tmp_path, content, words):
    write(tmp_path / "GPL5175.txt", platform_table())
    path = tmp_path / "file.txt"
    path.write_bytes(content)
    with pytest.raises(CohortError, match=words) as error:
        geo.load(path)
    assert "file.txt" in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CohortError, match="absent_series_matrix.txt.gz: no such file"):
        geo.load(tmp_path / "absent_series_matrix.txt.gz")


def test_a_series_matrix_without_its_platform_says_which_is_needed_and_how_to_get_it(tmp_path):
    path = write(tmp_path / MATRIX, series_matrix())
    with pytest.raises(CohortError, match="platform GPL5175.*platform=PATH.*python -m gexlib fetch geo:GSE85047"):
        geo.load(path)


def test_a_platform_without_a_symbol_column_is_named_with_its_columns(tmp_path):
    path = write(tmp_path / "GSE85047_family.soft", soft_family(platform_table("probe_note")))
    with pytest.raises(CohortError, match="platform GPL5175: no column of gene symbols.*probe_note.*platform=PATH"):
        geo.load(path)
    annotation = write(tmp_path / "GPL5175.annot.gz", platform_table("Gene symbol"))
    assert geo.load(path, platform=annotation).n_vars == 2


def test_an_annotation_of_another_platform_is_noticed(matrix, tmp_path):
    other = write(tmp_path / "other.txt", platform_table().replace("\n2", "\n9"))
    with pytest.raises(CohortError, match="none of its 6 probes.*'2469252'.*0 are in .*'9469252'.*platform=PATH"):
        geo.load(matrix, platform=other)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (platform_table().replace("!platform_table_end\n", ""), "no !platform_table_end"),
        ("^PLATFORM = GPL5175\n!Platform_title = none\n", "holds no platform table"),
        ("<html>Invalid accession</html>", "a web page"),
    ],
)
def test_a_cut_platform_is_one_clear_sentence(tmp_path, text, words):
    with pytest.raises(CohortError, match=words):
        geo.read_platform(write(tmp_path / "GPL5175.txt", text))


def test_a_platform_table_may_lack_fields_marks_and_unix_line_ends(tmp_path):
    path = write(tmp_path / "GPL1.txt", "ID\tGene Symbol\tnote\r\n1\tMYCN\t5' end\r\n2\r\n3\t\"ALK\t\t\r\n")
    assert geo.read_platform(path).fillna("?").to_dict() == {"1": "MYCN", "2": "?", "3": '"ALK'}


def test_a_family_of_several_platforms_asks_for_one(tmp_path):
    path = write(tmp_path / "family.soft", soft_family(others=("GSM2259101", "GSM2259102")))
    with pytest.raises(CohortError, match=r"several platforms \(GPL5175, GPL96\); open the series matrix of one"):
        geo.load(path)


def test_an_empty_table_names_the_supplementary_file_and_opens_with_a_matrix_beside_it(tmp_path):
    path = write(tmp_path / MATRIX, series_matrix(values={}))
    with pytest.raises(CohortError, match="empty for all 5 samples.*GSE85047_RAW.tar.*matrix=PATH"):
        geo.load(path)
    rows = ["gene\tNRC_2\tNRC_1\tNRC_4\tNRC_9", "MYCN\t7\t6\t11\t1", "ALK\t6.25\t6.5\t9.5\t2"]
    beside = write(tmp_path / "expression.tsv", "\n".join(rows) + "\n")
    cohort = geo.load(path, matrix=beside)
    assert list(cohort.obs_names) == ["GSM2259102", "GSM2259101", "GSM2259104"]
    np.testing.assert_allclose(cohort[:, "MYCN"].X.ravel(), [7, 6, 11])
    left_out = {"samples that expression.tsv lacks": 2, "columns of expression.tsv that are no sample": 1}
    assert cohort.uns["provenance"]["left_out"] == left_out
    assert cohort.uns["provenance"]["files"] == [MATRIX, "expression.tsv"]


def test_a_matrix_of_other_samples_is_refused_with_how_many_match(tmp_path, matrix):
    beside = write(tmp_path / "other.tsv", "gene\tA\tB\nMYCN\t7\t6\nALK\t6\t5\n")
    with pytest.raises(CohortError, match="0 of its 2 columns .first 'A'.*such as 'GSM2259101' or 'NRC_1'"):
        geo.load(write(tmp_path / "empty.txt", series_matrix(values={})), matrix=beside)
    with pytest.raises(CohortError, match="has its own expression table"):
        geo.load(matrix, matrix=beside)


@pytest.mark.parametrize("option", ["genes", "missing", "samples"])
def test_an_option_that_is_not_understood_is_refused_by_name(matrix, option):
    with pytest.raises(CohortError, match=f"{option}='wrong'"):
        geo.load(matrix, **{option: "wrong"})


@real
def test_the_series_matrix_of_gse49711_holds_498_samples_with_inss_stages_by_name_and_needs_a_matrix(tmp_path):
    path = REAL / "GSE49711_series_matrix.txt.gz"
    with pytest.raises(CohortError, match="empty for all 498 samples.*GSE49711_SEQC_NB_MAV_G_log2.*matrix=PATH"):
        geo.load(path)
    series = geo.read_geo(path)
    assert series.expression.shape == (0, 498) and series.header["geo_accession"] == ["GSE49711"]
    assert series.samples["inss_stage"].value_counts().to_dict() == {"1": 121, "2": 78, "3": 63, "4": 183, "4S": 53}
    rows = [["gene", *series.samples["title"]], ["MYCN", *"34" * 249], ["ALK", *"56" * 249]]
    beside = write(tmp_path / "expression.tsv.gz", "\n".join("\t".join(row) for row in rows) + "\n")
    cohort = geo.load(path, matrix=beside)
    assert cohort.shape == (498, 2) and cohort.uns["unit"] == "log2"
    assert list(cohort.obs["inss_stage"].value_counts(sort=False)) == [121, 78, 63, 183, 53]


@real
def test_geos_example_family_opens_as_a_cohort():
    cohort = geo.load(REAL / "soft_ex_family.txt")
    assert cohort.shape == (3, 18) and "cell_line" in cohort.obs
    assert cohort.uns["provenance"]["left_out"] == {"probes without a gene symbol": 2}


@real
@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("GSE105845_family.soft", "empty for all 2 samples.*GSE105845_RAW.tar"),
        ("GPL20814_family.soft", "no !platform_table_end"),
        ("GPL96.txt.gz", "neither a whole series matrix nor SOFT with samples"),
        ("GDS507.soft.gz", "transform=log2"),
    ],
)
def test_original_files_that_hold_no_cohort_are_refused_in_one_sentence(file, words):
    with pytest.raises(CohortError, match=words):
        geo.load(REAL / file)


@real
def test_the_file_of_one_sample_opens_with_the_annotation_of_its_platform():
    cohort = geo.load(REAL / "GSM11805.txt.gz", transform="log2", platform=REAL / "GPL96.txt.gz")
    assert cohort.shape == (1, 12632) and list(cohort.obs_names) == ["GSM11805"]
    assert cohort.uns["provenance"]["left_out"] == {
        "probes without a gene symbol": 1288,
        "probes that name several genes": 862,
    }


@real
def test_a_gds_opens_with_patients_from_its_subsets():
    cohort = geo.load(REAL / "GDS507.soft.gz", transform="log2", platform=REAL / "GPL97.annot.gz")
    assert cohort.shape == (17, 8411) and cohort.obs["patient"].nunique() == 10
    assert cohort.obs["disease_state"].value_counts().to_dict() == {"RCC": 9, "normal": 8}


@real
@pytest.mark.parametrize(
    ("file", "probe", "symbol", "counted"),
    [
        ("GPL96.txt.gz", "1053_at", "RFC2", (22283, 20133, 862)),
        ("GPL97.annot.gz", "200000_s_at", "PRPF8", (22645, 12425, 754)),
    ],
)
def test_the_annotations_of_gpl96_and_gpl97_map_probes_to_symbols(file, probe, symbol, counted):
    annotation = geo.read_platform(REAL / file)
    named = annotation.map(geo.symbols_of).str.len()
    assert (len(annotation), (named == 1).sum(), (named > 1).sum()) == counted
    assert annotation[probe] == symbol
