import hashlib

import numpy as np
import pytest

from gexlib import CohortError, check_cohort, load_cohort
from gexlib.sources.simulated import simulate
from gexlib.sources.simulated.neuroblastoma import INSS_COUNTS

# sha256 of X in hundredths, as drawn by numpy 2.4 on x86-64
KNOWN = "8bc1b65bf0fa4f6a99253aec92da6ae9c975424869c7eea7e3f92f644d4c94a5"


def test_the_same_seed_gives_the_same_cohort_on_every_machine():
    cohort = simulate("neuroblastoma", n=50, genes=200, seed=3)
    hundredths = np.rint(cohort.X * 100).astype("<i4")
    assert hashlib.sha256(hundredths.tobytes()).hexdigest() == KNOWN


def test_a_simulated_cohort_keeps_the_contract_and_says_that_it_is_simulated():
    cohort = load_cohort("simulated:neuroblastoma")
    check_cohort(cohort, "inss_stage")
    assert cohort.shape == (280, 1000) and cohort.uns["simulated"] and cohort.uns["unit"] == "log2 RMA"
    assert cohort.var_names[0] == "SIM00001" and "simulate(" in cohort.uns["provenance"]["source"]


def test_class_shares_are_those_of_the_public_series():
    cohort = simulate("neuroblastoma", n=498)
    assert cohort.obs["inss_stage"].value_counts().to_dict() == INSS_COUNTS


def test_more_patients_have_the_same_disease():
    few, many = simulate("neuroblastoma", n=40), simulate("neuroblastoma", n=90)
    for column in ("truth_progression", "truth_mycn", "truth_4s"):
        assert np.array_equal(few.var[column], many.var[column])


def test_planted_effects_are_found_in_the_means_of_many_patients():
    cohort = simulate("neuroblastoma", n=5000, genes=300)
    stage, X, truth = cohort.obs["inss_stage"].to_numpy(), cohort.X, cohort.var
    expected = truth["truth_mean_4"] - truth["truth_mean_1"]
    found = X[stage == "4"].mean(axis=0) - X[stage == "1"].mean(axis=0)
    assert np.corrcoef(expected, found)[0, 1] > 0.97
    unplanted = ~truth["truth_planted"].to_numpy()
    assert np.abs(found[unplanted]).max() < 0.15
    amplified = (cohort.obs["mycn"] == "amplified").to_numpy()
    assert X[amplified, 0].mean() - X[~amplified, 0].mean() > 3


def test_4s_is_a_disease_of_infants():
    cohort = simulate("neuroblastoma", n=400)
    assert cohort.obs.loc[cohort.obs["inss_stage"] == "4S", "age_days"].max() < 365


def test_a_name_can_carry_sizes_and_a_seed():
    cohort = load_cohort("simulated:neuroblastoma,n=60,genes=150,seed=4")
    assert cohort.shape == (60, 150) and cohort.uns["cohort"] == "simulated:neuroblastoma,n=60,genes=150,seed=4"


@pytest.mark.parametrize(
    ("name", "telling"),
    [
        ("simulated:neuroblastom", "nearest: neuroblastoma"),
        ("simulated:neuroblastoma,n=many", "whole number"),
        ("simulated:neuroblastoma,patients=9", "expected n=, genes= or seed="),
        ("simulated:neuroblastoma,n=5", "at least 20 patients"),
    ],
)
def test_a_name_that_cannot_be_read_is_refused(name, telling):
    with pytest.raises(CohortError, match=telling):
        load_cohort(name)
