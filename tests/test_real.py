"""Prepared public cohorts: found by name, brought to the contract, described without loss."""

import os

import anndata
import numpy as np
import pandas as pd
import pytest

from gexlib import CohortError, check_cohort, load_cohort
from gexlib.sources.real import prepared

REAL = os.environ.get("GEXLIB_REAL_DATA")
needs_data = pytest.mark.skipif(not REAL, reason="GEXLIB_REAL_DATA is not set: no prepared public cohorts here")


def needs(name):
    return pytest.mark.skipif(name not in prepared(), reason=f"GEXLIB_REAL_DATA is not set or holds no {name}.h5ad")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of one prepared file in the form of the public ones."""
    obs = pd.DataFrame({"inss_stage": ["1", "4S", "4", "2"], "training": ["Training", "Validation"] * 2}, list("abcd"))
    X = np.linspace(0, 15, 20, dtype=np.float32).reshape(4, 5)
    genes = pd.DataFrame(index=["?|100130426", "A1BG|1", "TP53|7157", "SLC35E2|728661", "SLC35E2|9906"])
    uns = {"unit": "log2 RNA-seq", "source": "GEO GSE49711", "note": "genes chosen by survival on the Training half"}
    anndata.AnnData(X=X, obs=obs, var=genes, uns=uns).write_h5ad(tmp_path / "neuroblastoma_seqc.h5ad")
    monkeypatch.setenv("GEXLIB_REAL_DATA", str(tmp_path))
    return tmp_path


def test_without_the_variable_the_error_says_what_to_set(monkeypatch):
    monkeypatch.delenv("GEXLIB_REAL_DATA", raising=False)
    with pytest.raises(CohortError, match="GEXLIB_REAL_DATA is not set; set it to the folder.*data/README.md"):
        load_cohort("real:neuroblastoma_seqc")
    assert prepared() == []


def test_a_variable_that_names_no_folder_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("GEXLIB_REAL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(CohortError, match="nowhere', which is no folder"):
        load_cohort("real:neuroblastoma_seqc")


@pytest.mark.parametrize("name", ["real:neuroblastoma", "real:neuroblastoma_seqc.h5ad", "neuroblastoma_seqc"])
def test_an_unknown_name_is_told_the_nearest_there_is(folder, name):
    with pytest.raises(CohortError, match="nearest: .*neuroblastoma_seqc"):
        load_cohort(name)


def test_a_name_cannot_leave_the_folder(folder):
    with pytest.raises(CohortError, match="no ../neuroblastoma_seqc.h5ad under GEXLIB_REAL_DATA"):
        load_cohort("real:../neuroblastoma_seqc")


def test_a_prepared_file_becomes_a_cohort_that_says_where_it_is_from(folder):
    cohort = load_cohort("real:neuroblastoma_seqc")
    provenance = cohort.uns["provenance"]
    assert cohort.uns["cohort"] == "real:neuroblastoma_seqc" and cohort.uns["simulated"] is False
    assert provenance["source"] == "GEO GSE49711" and provenance["files"] == ["neuroblastoma_seqc.h5ad"]
    assert provenance["transforms"][0] == "note of the source: genes chosen by survival on the Training half"
    assert str(folder) not in str(dict(cohort.uns))


def test_the_halves_keep_their_name_and_the_stages_their_order(folder):
    obs = load_cohort("real:neuroblastoma_seqc").obs
    assert list(obs["inss_stage"].cat.categories) == ["1", "2", "3", "4", "4S"]
    assert set(obs["training"]) == {"Training", "Validation"}


def test_genes_named_by_symbol_and_entrez_id_are_found_by_symbol(folder):
    cohort = load_cohort("real:neuroblastoma_seqc")
    assert list(cohort.var_names) == ["?|100130426", "A1BG", "TP53", "SLC35E2|728661", "SLC35E2|9906"]
    assert cohort.var.loc["TP53", "entrez"] == "7157"


@needs_data
@pytest.mark.parametrize("name", prepared())
def test_every_prepared_cohort_opens_and_keeps_the_contract(name):
    cohort = check_cohort(load_cohort(f"real:{name}"))
    assert cohort.uns["provenance"]["source"] and cohort.uns["unit"] != "unstated scale"
    assert "patient set to the sample id" not in str(cohort.uns["provenance"]["transforms"])


@needs("neuroblastoma_seqc")
def test_the_neuroblastomas_have_the_published_stage_counts_and_warn_of_their_genes():
    cohort = load_cohort("real:neuroblastoma_seqc")
    counts = cohort.obs["inss_stage"].value_counts(sort=False).to_dict()
    assert counts == {"1": 121, "2": 78, "3": 63, "4": 183, "4S": 53}
    assert cohort.shape == (498, 2040) and set(cohort.obs["training"]) == {"Training", "Validation"}
    assert any("survival on the Training half" in line for line in cohort.uns["provenance"]["transforms"])


@needs("tcga6_rsem_all_genes")
def test_the_six_tcga_cohorts_keep_their_29_nameless_genes_whole():
    names = load_cohort("real:tcga6_rsem_all_genes").var_names
    assert names.str.startswith("?|").sum() == 29 and "TP53" in names
