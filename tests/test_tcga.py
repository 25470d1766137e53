import anndata
import numpy as np
import pandas as pd
import pytest

from gexlib import CohortError, load_cohort
from gexlib.sources.real import prepared
from gexlib.sources.simulated.pancancer import TYPES
from gexlib.sources.tcga import SITE_OF, kept_aliquots, one_per_sample, parse_barcodes, with_sites, with_survival


def cohort_of(*types, **columns):
    obs = pd.DataFrame({"cohort": list(types), **columns}, index=[f"S{i}" for i in range(len(types))])
    return anndata.AnnData(np.zeros((len(obs), 2), np.float32), obs, uns={"cohort": "some.h5ad"})


def test_all_33_types_have_one_of_26_sites():
    assert set(SITE_OF) == set(TYPES) and len(set(SITE_OF.values())) == 26
    assert SITE_OF["KICH"] == SITE_OF["KIRP"] == "kidney" and SITE_OF["READ"] == "colorectal"


def test_sites_are_written_in_the_order_of_the_table():
    site = with_sites(cohort_of("LUSC", "KIRC", "LUAD", "ACC")).obs["site"]
    assert list(site) == ["lung", "kidney", "lung", "adrenal gland"]
    assert list(site.cat.categories) == ["adrenal gland", "kidney", "lung"]


def test_a_categorical_column_of_another_name_will_do():
    cohort = cohort_of("x", "x", type=pd.Categorical(["UVM", "SKCM"], ["SKCM", "UVM", "LGG"]))
    assert list(with_sites(cohort, "type").obs["site"]) == ["eye", "skin"]


def test_a_cohort_that_has_sites_is_left_alone():
    assert list(with_sites(cohort_of("BRCA", "?", site=["here", "there"])).obs["site"]) == ["here", "there"]


def test_what_is_no_type_or_no_column_is_refused_with_the_nearest():
    with pytest.raises(CohortError, match="some.h5ad: 'BRAC' in 'cohort' is no TCGA type .*BRCA"):
        with_sites(cohort_of("LUAD", "BRAC"))
    with pytest.raises(CohortError, match="no column 'cohorts' .*cohort"):
        with_sites(cohort_of("LUAD"), "cohorts")


# barcodes

WHOLE = "TCGA-3X-AAV9-01A-72R-A41I-07"


def test_every_field_of_a_barcode_is_read():
    fields = parse_barcodes([WHOLE]).iloc[0].to_dict()
    assert fields == {
        "patient": "TCGA-3X-AAV9", "type_code": "01", "sample_type": "Primary Solid Tumor", "tissue": "tumour",
        "vial": "A", "portion": "72", "analyte": "R", "plate": "A41I", "centre": "07",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("length", "last"), [(12, "patient"), (15, "tissue"), (16, "vial"), (20, "analyte"), (25, "plate"), (28, "centre")]
)
def test_a_barcode_may_be_cut_behind_any_field(length, last):
    table = parse_barcodes([WHOLE[:length]])
    assert table.columns[-1] == last and table.at[WHOLE[:length], "patient"] == "TCGA-3X-AAV9"


def test_dots_small_letters_and_target_are_understood():
    table = parse_barcodes(["TCGA.3X.AAV9.11A", "tcga-3x-aav9", "TARGET-30-PAPTLY-01A"])
    assert list(table["patient"]) == ["TCGA-3X-AAV9", "TCGA-3X-AAV9", "TARGET-30-PAPTLY"]
    assert list(table["tissue"].astype(object).fillna("?")) == ["normal", "?", "tumour"]
    assert list(table.index) == ["TCGA.3X.AAV9.11A", "tcga-3x-aav9", "TARGET-30-PAPTLY-01A"]


@pytest.mark.parametrize(
    ("code", "words", "tissue"),
    [
        ("03", "Primary Blood Derived Cancer - Peripheral Blood", "tumour"),
        ("06", "Metastatic", "tumour"),
        ("40", "Recurrent Blood Derived Cancer - Peripheral Blood", "tumour"),
        ("10", "Blood Derived Normal", "normal"),
        ("14", "Bone Marrow Normal", "normal"),
        ("20", "Control Analyte", "other"),
        ("77", "type 77", "other"),
    ],
)
def test_sample_types_have_words_and_a_tissue(code, words, tissue):
    table = parse_barcodes([f"TCGA-3X-AAV9-{code}A"])
    assert list(table.iloc[0][["sample_type", "tissue"]]) == [words, tissue]


@pytest.mark.parametrize("wrong", ["S1", "TCGA-3X-AAV", "TCGA-3X-AAV9-1", f"{WHOLE}.11", "", None])
def test_what_is_no_barcode_is_named(wrong):
    with pytest.raises(CohortError, match="1 of 2 sample ids are no TCGA barcodes, the first is"):
        parse_barcodes([WHOLE, wrong])


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("TCGA-3X-AAV9-01A-11R-A000-07", "TCGA-3X-AAV9-01B-99R-Z999-07"),  # the first vial
        ("TCGA-3X-AAV9-01A-11H-A000-07", "TCGA-3X-AAV9-01A-99R-Z999-07"),  # H before R
        ("TCGA-3X-AAV9-01A-11R-A000-07", "TCGA-3X-AAV9-01A-99T-Z999-07"),  # R before T
        ("TCGA-3X-AAV9-01A-11R-A41J-07", "TCGA-3X-AAV9-01A-72R-A41I-07"),  # the last plate
        ("TCGA-3X-AAV9-01A-72R-A41I-07", "TCGA-3X-AAV9-01A-11R-A41I-07"),  # then the last portion
        ("TCGA-3X-AAV9-01A-72R-A41I-13", "TCGA-3X-AAV9-01A-72R-A41I-07"),  # then the order as text
    ],
)
def test_of_two_aliquots_the_rule_keeps_one_whatever_their_order(better, worse):
    normal = "TCGA-3X-AAV9-11A-11R-A41I-07"
    assert one_per_sample([better, worse, normal]).tolist() == [True, False, True]
    assert one_per_sample([worse, normal, better]).tolist() == [False, True, True]


def test_samples_of_other_patients_and_types_are_no_duplicates():
    assert one_per_sample([WHOLE, WHOLE.replace("AAV9", "AAVA"), WHOLE.replace("-01A", "-06A")]).all()


def test_what_a_rule_leaves_out_is_counted_and_an_unknown_rule_refused():
    left_out, ids = {}, [WHOLE, WHOLE.replace("A41I", "A41J")]
    assert kept_aliquots(ids, "one", left_out).tolist() == [False, True] and list(left_out.values()) == [1]
    assert kept_aliquots(ids, "keep", left_out).all() and list(left_out.values()) == [0]
    with pytest.raises(CohortError, match="duplicates='first' is not known; expected one"):
        kept_aliquots(ids, "first", {})


def test_survival_goes_to_every_sample_of_a_patient_and_is_missing_where_unknown():
    obs = pd.DataFrame({"patient": ["a", "a", "b", "c"]})
    obs = with_survival(obs, pd.Series({"a": 1, "b": 0}), pd.Series({"a": 30, "b": 400}))
    assert obs["vital"].astype(object).fillna("?").tolist() == ["dead", "dead", "alive", "?"]
    assert obs["os_days"].fillna(-1).tolist() == [30, 30, 400, -1]


@pytest.mark.skipif("tcga_mirna_pancan" not in prepared(), reason="GEXLIB_REAL_DATA is not set: no tcga_mirna_pancan")
def test_the_barcodes_of_ten_thousand_real_aliquots_agree_with_their_table():
    obs = load_cohort("real:tcga_mirna_pancan").obs
    obs = obs[~obs.index.str.endswith(".11")]  # 16 copies with a suffix
    table = parse_barcodes(obs.index)
    assert (table["patient"] == obs["patient"]).all() and (table["type_code"].astype(int) == obs["type_code"]).all()
    assert (table["tissue"] == "normal").sum() == 664 and len(table) - one_per_sample(obs.index).sum() == 9
