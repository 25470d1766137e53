import anndata
import numpy as np
import pandas as pd
import pytest

from gexlib import CohortError
from gexlib.sources.simulated.pancancer import TYPES
from gexlib.sources.tcga import SITE_OF, with_sites


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
