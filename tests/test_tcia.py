"""VASARI readings: the authors' own file where GEXLIB_REAL_DATA has it, and a sheet in TCIA's form written here."""

import os
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from gexlib import CohortError
from gexlib.cohort import make_cohort
from gexlib.sources import tcia

REAL = Path(os.environ.get("GEXLIB_REAL_DATA", "nowhere"))
OWN = REAL / "vasari" / "vasari_annotations.csv"
real = pytest.mark.skipif(not OWN.is_file(), reason="GEXLIB_REAL_DATA is unset or has no vasari/vasari_annotations.csv")
PAPER = """patient,scan.type,f9.multifocal.or.multicentric,f5.proportion.enhancing,f10.t1.flair.ratio
TCGA-02-0047,pre-operative,Focal,Less than 1/3,expansive (T1~FLAIR)
TCGA-02-0060-01A,pre-operative,Multifocal or Multicentric,Minimal,mixed (T1 less than FLAIR)
TCGA-02-0068,pre-operative,Gliomatosis,More than 2/3,infiltrative (T1 much smaller than FLAIR)
TCGA-06-0168,pre-operative,n/a,Between 1/3 and 2/3,indeterminate
TCGA-06-0171,post-operative,Focal,More than 2/3,
TCGA-06-0174,pre-operative,focal ,,
"""
# Three readers; codes as whole and decimal numbers; the third reader left two patients out
SHEET = """Sample;Radiologist;ID;F1;F5;F6 Proportion nCET;F7;F9;F10 T1/FLAIR Ratio;F14;comments
TCGA-02-0047;Radiologist #1;1;2;4;6.0;2;1;1;4;
TCGA-02-0047;Radiologist #2;2;2;5;6;3;1;2;4;a,b
TCGA-02-0047;Radiologist #3;3;2;5;5;9;2;3;4;
TCGA-02-0060;Radiologist #1;4;1;3;3;5;3;1;7;
TCGA-02-0060;Radiologist #2;5;1;3;8;5;1;2;1;
TCGA-02-0068;Radiologist #1;6;3;6;4;4;4;3;2;
TCGA-02-0068;Radiologist #2;7;3;6;4;8;2;3;6;
TCGA-06-0168;Radiologist #3;8;3;1;4;2;1;1;2;
"""


def write(tmp_path, text, name="vasari.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def classes(column):
    return [None if pd.isna(value) else value for value in column]


def cohort_of(patients, **columns):
    obs = pd.DataFrame({"patient": patients, **columns}, [f"S{i}" for i in range(len(patients))])
    X = np.arange(3.0 * len(patients)).reshape(-1, 3)
    return make_cohort(X, obs, pd.DataFrame(index=list("abc")), name="own", unit="z", source="test", simulated=True)


def test_the_positive_class_is_the_one_that_the_published_encoding_made_one():
    assert list(tcia.TRAITS) == ["f5", "f6", "f7", "f14", "f9", "f10"]
    for trait in tcia.TRAITS.values():  # LabelEncoder sorts by the alphabet
        assert sorted([trait.negative, trait.positive]) == [trait.negative, trait.positive]
    assert [tcia.TRAITS[short].positive for short in ("f5", "f9", "f10")] == [
        "More than 1/3", "non-focal", "infiltrative"
    ]  # fmt: skip


@real
def test_the_authors_twenty_patients_have_the_counts_of_a_count_by_hand():
    binary = tcia.binarise(tcia.read_vasari(OWN))
    counts = {short: binary[short].value_counts(sort=False).tolist() for short in tcia.TRAITS}
    assert counts == {"f5": [11, 9], "f6": [13, 7], "f7": [17, 3], "f14": [12, 8], "f9": [16, 4], "f10": [11, 8]}
    assert len(binary) == binary["patient"].nunique() == 20 and set(binary["reader"]) == {"1"}
    open_ones = binary[binary[list(tcia.TRAITS)].isna().any(axis=1)]
    assert open_ones["patient"].tolist() == ["TCGA-14-1401"]  # its T1/FLAIR ratio is empty


@real
def test_fourteen_of_the_authors_patients_are_in_the_prepared_glioblastomas():
    path = REAL / "tcga_gbm.h5ad"
    if not path.is_file():
        pytest.skip("GEXLIB_REAL_DATA has no tcga_gbm.h5ad")
    cohort = tcia.add_traits(anndata.read_h5ad(path), OWN)
    assert tcia.traits_of(cohort.obs)["f5"].notna().sum() == 14
    assert "readings of 14 of 304 patients" in cohort.uns["provenance"]["transforms"][-1]


def test_the_authors_form_is_read_as_written_without_operated_patients(tmp_path):
    readings = tcia.read_vasari(write(tmp_path, PAPER))
    assert list(readings) == ["patient", "reader", "f5", "f9", "f10"]
    assert readings["patient"].tolist()[:2] == ["TCGA-02-0047", "TCGA-02-0060"] and len(readings) == 5
    assert readings["f9"].tolist() == ["Focal", "Multifocal or Multicentric", "Gliomatosis", "n/a", "focal"]
    assert readings.attrs["left_out"] == {"scans that are not pre-operative": 1}


def test_binary_traits_have_the_negative_class_first_and_nothing_for_what_was_not_read(tmp_path):
    binary = tcia.binarise(tcia.read_vasari(write(tmp_path, PAPER)))
    for short in ("f5", "f9", "f10"):
        assert list(binary[short].cat.categories) == [tcia.TRAITS[short].negative, tcia.TRAITS[short].positive]
    assert classes(binary["f5"]) == ["Less than 1/3", "Less than 1/3", "More than 1/3", "More than 1/3", None]
    assert classes(binary["f9"]) == ["focal", "non-focal", "non-focal", None, "focal"]
    assert classes(binary["f10"]) == ["expansive", "infiltrative", "infiltrative", None, None]


def test_codes_are_cut_where_the_words_are():
    codes = [str(code) for code in range(1, 10)]
    readings = pd.DataFrame({"patient": codes, "reader": "1", "f7": codes})
    low, high = "Less than 1/3", "More than 1/3"
    assert classes(tcia.binarise(readings)["f7"]) == [None, low, low, low, high, high, high, high, None]
    few = pd.DataFrame({"patient": codes[:3], "reader": "1", "f9": codes[:3], "f10": codes[:3]})
    assert classes(tcia.binarise(few)["f9"]) == ["focal", "non-focal", "non-focal"]
    assert classes(tcia.binarise(few)["f10"]) == ["expansive", "infiltrative", "infiltrative"]


def test_a_sheet_of_three_readers_is_read_by_its_numbers(tmp_path):
    readings = tcia.read_vasari(write(tmp_path, SHEET))
    assert list(readings) == ["patient", "reader", "f5", "f6", "f7", "f14", "f9", "f10"]  # not F1, not the record's ID
    assert len(readings) == 8 and readings["reader"].nunique() == 3
    assert readings.loc[0, ["f5", "f6", "f7", "f14", "f9", "f10"]].tolist() == ["4", "6", "2", "4", "1", "1"]


def test_an_excel_sheet_is_read_where_pandas_can_and_refused_with_the_way_out(tmp_path, monkeypatch):
    table = pd.read_csv(write(tmp_path, SHEET), sep=";", dtype=str, keep_default_na=False)
    monkeypatch.setattr(pd, "read_excel", lambda path, **options: table)
    expected = tcia.read_vasari(tmp_path / "vasari.csv")
    pd.testing.assert_frame_equal(tcia.read_vasari(tmp_path / "VASARI.xlsx"), expected)

    def without(path, **options):
        raise ImportError("openpyxl")

    monkeypatch.setattr(pd, "read_excel", without)
    with pytest.raises(CohortError, match=r"VASARI.xls: pandas reads this form with a package that is not here; save"):
        tcia.read_vasari(tmp_path / "VASARI.xls")


def test_most_readers_decide_and_ties_are_left_open_and_counted(tmp_path):
    agreed = tcia.consensus(tcia.read_vasari(write(tmp_path, SHEET)))
    assert agreed.index.tolist() == ["TCGA-02-0047", "TCGA-02-0060", "TCGA-02-0068", "TCGA-06-0168"]
    low, high = "Less than 1/3", "More than 1/3"
    assert classes(agreed["f5"]) == [high, low, high, None]  # 4 5 5 | 3 3 | 6 6 | the only reader could not say
    assert classes(agreed["f6"]) == [high, None, low, low]  # 6 6 5 | 3 8 tie | 4 4 | 4
    assert classes(agreed["f7"]) == [low, high, None, low]  # 2 3 and 9, no vote | 5 5 | 4 8 tie | 2
    assert classes(agreed["f14"]) == [low, high, None, low]  # 4 4 4 | 7 and 1, no vote | 2 6 tie | 2
    assert classes(agreed["f9"]) == ["focal", None, "non-focal", "focal"]  # 1 1 2 | 3 1 tie | 4 2 | 1
    assert agreed.attrs["ties"] == {"f5": 0, "f6": 1, "f7": 1, "f14": 1, "f9": 1, "f10": 1}


def test_kappa_is_that_worked_by_hand_and_that_of_scikit_learn():
    # 20 patients: both say no 8 times, both yes 6, first alone yes 4, second alone yes 2
    first, second = [0] * 8 + [1] * 6 + [1] * 4 + [0] * 2, [0] * 8 + [1] * 6 + [0] * 4 + [1] * 2
    words = np.array(["Less than 1/3", "More than 1/3"])
    readings = pd.DataFrame(
        {"patient": [f"P{i}" for i in range(20)] * 2, "reader": ["A"] * 20 + ["B"] * 20, "f6": words[first + second]}
    )
    readings.loc[len(readings)] = ["P99", "A", "More than 1/3"]  # whom B did not read
    found = tcia.agreement(readings).iloc[0]
    assert (found["trait"], found["first"], found["second"], found["n"]) == ("f6", "A", "B", 20)
    assert found["agree"] == pytest.approx(14 / 20)
    assert found["kappa"] == pytest.approx((0.7 - 0.5) / (1 - 0.5))  # by chance .5 * .4 + .5 * .6
    assert found["kappa"] == pytest.approx(cohen_kappa_score(first, second))
    assert -1 <= found["low"] < 0.4 < found["high"] <= 1


def test_the_interval_of_kappa_covers_the_truth_about_as_often_as_it_says():
    rng, covered, studies = np.random.default_rng(0), 0, 100
    words = np.array(["focal", "non-focal"])
    for _ in range(studies):  # truth .5; each reader right in nine of ten: kappa (.82 - .5) / .5
        truth = rng.random(100) < 0.5
        calls = [words[(truth ^ (rng.random(100) < 0.1)).astype(int)] for _ in range(2)]
        patients = np.tile(np.arange(100).astype(str), 2)
        found = tcia.agreement(
            pd.DataFrame({"patient": patients, "reader": np.repeat(["1", "2"], 100), "f9": np.concatenate(calls)})
        ).iloc[0]
        covered += found["low"] <= 0.64 <= found["high"]
    assert 0.95 - 4 * np.sqrt(0.95 * 0.05 / studies) < covered / studies <= 1


def test_kappa_is_unknown_where_nobody_was_read_twice_or_all_are_called_alike(tmp_path):
    found = tcia.agreement(tcia.read_vasari(write(tmp_path, SHEET))).set_index(["trait", "first", "second"])
    assert len(found) == 18
    of = found.loc[("f5", "Radiologist #1", "Radiologist #2")]
    assert of["n"] == 3 and of["agree"] == pytest.approx(2 / 3)
    alone = found.loc[("f14", "Radiologist #1", "Radiologist #3")]
    assert alone["n"] == 1 and alone["agree"] == 1 and np.isnan(alone["kappa"])
    with pytest.raises(CohortError, match=r"agreement needs two readers or more; the readings are of \['1'\]"):
        tcia.agreement(tcia.read_vasari(write(tmp_path, PAPER)))


def test_a_samples_table_gives_the_traits_that_it_carries_in_its_own_order():
    cohort = cohort_of(
        ["B", "A", "C"],
        **{
            "f9.multifocal.or.multicentric": ["Focal", "Multifocal or Multicentric", "n/a"],
            "f14.proportion.edema": pd.Categorical(["Minimal", "More than 2/3", None]),
            "f14.proportion.edema.reader2": ["Minimal", "Minimal", "More than 2/3"],
            "f14.latent": [0.1, 0.2, 0.3],
        },
    )
    found = tcia.traits_of(cohort.obs)
    assert list(found) == ["f14", "f9"] and found.index.equals(cohort.obs.index)
    assert classes(found["f14"]) == ["Less than 1/3", "More than 1/3", None]
    second = tcia.traits_of(cohort.obs, reader=2)
    assert list(second) == ["f14"] and classes(second["f14"])[2] == "More than 1/3"
    readings = tcia.readings_of(cohort.obs)
    assert readings["reader"].tolist() == ["1"] * 3 + ["2"] * 3 and readings["patient"].tolist() == list("BACBAC")
    row = tcia.agreement(readings).set_index("trait").loc["f14"]
    assert (row["n"], row["agree"]) == (2, 0.5)


def test_a_samples_table_without_traits_names_the_six_columns():
    cohort = cohort_of(["A", "B"])
    for ask in (tcia.traits_of, tcia.readings_of):
        with pytest.raises(CohortError) as error:
            ask(cohort.obs)
        assert all(trait.column in str(error.value) for trait in tcia.TRAITS.values())
    with pytest.raises(CohortError, match="f10.t1.flair.ratio.reader2"):
        tcia.traits_of(cohort.obs, reader=2)


def test_readings_are_joined_by_patient_and_provenance_says_how_many(tmp_path):
    patients = ["TCGA-06-0168", "TCGA-02-0047-01A-01R", "TCGA-99-9999", "TCGA-02-0047"]
    cohort, path = tcia.add_traits(cohort_of(patients), write(tmp_path, SHEET)), tmp_path / "out.h5ad"
    assert classes(tcia.traits_of(cohort.obs)["f6"]) == ["Less than 1/3", "More than 1/3", None, "More than 1/3"]
    assert cohort.uns["provenance"]["transforms"][-1] == (
        "VASARI readings of 2 of 3 patients joined from vasari.csv (4 patients, 3 readers, 5 ties left open)"
    )
    assert cohort.uns["provenance"]["files"] == ["vasari.csv"] and len(cohort.uns["provenance"]["sha256"][0]) == 64
    cohort.write_h5ad(path)
    again = anndata.read_h5ad(path)
    pd.testing.assert_frame_equal(tcia.traits_of(again.obs), tcia.traits_of(cohort.obs))
    assert len(tcia.add_traits(again, tmp_path / "vasari.csv").uns["provenance"]["files"]) == 2


def test_a_sheet_of_other_patients_is_refused(tmp_path):
    with pytest.raises(CohortError) as error:
        tcia.add_traits(cohort_of(["P1", "P2"]), write(tmp_path, PAPER))
    assert "none of its 5 patients (first 'TCGA-02-0047') is among the 2 of own (first 'P1')" in str(error.value)


@pytest.mark.parametrize(
    "change, says",
    [
        (("Minimal", "Minmal"), r"column f5 \(f5.proportion.enhancing\): 'Minmal' of patient 'TCGA-02-0060', reader "
                                r"'1', is no value of it \(nearest: Minimal"),
        (("Gliomatosis", "7"), r"column f9 .*: '7' of patient 'TCGA-02-0068'.* \(there are: focal, 1, non-focal"),
    ],
)  # fmt: skip
def test_an_unknown_value_is_named_with_its_column_its_patient_and_the_nearest_known(tmp_path, change, says):
    readings = tcia.read_vasari(write(tmp_path, PAPER.replace(*change)))
    with pytest.raises(CohortError, match=says):
        tcia.binarise(readings)


@pytest.mark.parametrize(
    "text, says",
    [
        (PAPER + PAPER.splitlines()[1], "patient 'TCGA-02-0047' occurs twice for reader '1'; keep one reading"),
        (SHEET.replace("TCGA-06-0168", "tcga.02.0047"), "'TCGA-02-0047' occurs twice for reader 'Radiologist #3'"),
        ("", "there is no row of readings"),
        (PAPER.splitlines()[0] + "\n", "there is no row of readings; expected a header and a row for each patient"),
        (PAPER.replace("patient,", "who,"), "no column of patients among who, scan.type"),
        ("patient,age\nA,50\n", "no column of a VASARI trait; expected f5.proportion.enhancing, f6.proportion.ncet"),
        ("patient,F5,f5.proportion.enhancing\nA,4,Minimal\n", "columns 'F5' and 'f5.proportion.enhancing' both are"),
        ("patient,F5\nA,4\n,5\n", "row 2 below the header names no patient"),
        ("patient,F5\nA,4,6\n", "more fields than the header"),
        ("patient,F5\nA,4\nB,4,6,7\n", "cannot be read .*; save it as CSV in UTF-8"),
        ("<!DOCTYPE html><html>", "this is a web page, not data"),
    ],
)
def test_a_sheet_that_cannot_be_used_says_why(tmp_path, text, says):
    with pytest.raises(CohortError, match=f"vasari.csv: .*{says}"):
        tcia.read_vasari(write(tmp_path, text))


def test_a_sheet_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CohortError, match="none.csv: no such file"):
        tcia.read_vasari(tmp_path / "none.csv")
