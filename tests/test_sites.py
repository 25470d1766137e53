import hashlib

import anndata
import numpy as np
import pytest

from gexlib import CohortError, check_cohort, load_cohort
from gexlib.sources.simulated.pancancer import TYPES
from gexlib.sources.simulated.sites import FEWEST, RARE, SITES, STRENGTH, simulate_sites
from gexlib.sources.tcga import SITE_OF

# sha256 of X in hundredths, as drawn by numpy 2.4 on x86-64
KNOWN = "7f7ca44e6fd334519d358027a5b885dead6435615ce47a5f7b2d542e7e8d4fc1"
TCGA = 5130  # aliquots of the 11 types


@pytest.fixture(scope="module")
def cohort():
    return simulate_sites(n=4000, genes=1000, seed=1)


@pytest.fixture(scope="module")
def gaps(cohort):
    """Mean tumour less mean normal, (types, genes), and its standard error."""
    groups = cohort.to_df().groupby([cohort.obs["tissue"], cohort.obs["cohort"]], observed=True)
    means, errors = groups.mean(), groups.var() / groups.size().to_numpy()[:, None]
    return means.loc["tumour"] - means.loc["normal"], np.sqrt(errors.loc["tumour"] + errors.loc["normal"])


def sizes(obs):
    return obs.groupby(["cohort", "tissue"], observed=False).size().unstack()


def test_the_same_seed_gives_the_same_cohort_on_every_machine():
    hundredths = np.rint(simulate_sites(n=600, genes=150, seed=3).X * 100).astype("<i4")
    assert hashlib.sha256(hundredths.tobytes()).hexdigest() == KNOWN


def test_it_keeps_the_contract_says_that_it_is_simulated_and_can_be_saved(tmp_path):
    cohort = load_cohort("simulated:sites,n=700")
    for label in ("site", "cohort", "tissue"):
        check_cohort(cohort, label)
    assert cohort.shape == (700, 1000) and cohort.uns["simulated"] and cohort.uns["unit"] == "log2(FPKM+1)"
    assert list(cohort.obs) == ["patient", "site", "cohort", "tissue", "plate", "purity"]
    assert list(cohort.obs["cohort"].cat.categories) == [*STRENGTH] and len(STRENGTH) == 11
    assert list(cohort.obs["site"].cat.categories) == SITES and len(SITES) == 8
    assert list(cohort.obs["tissue"].cat.categories) == ["tumour", "normal"]
    assert (cohort.obs["site"].astype(str) == cohort.obs["cohort"].astype(str).map(SITE_OF)).all()
    few = cohort[:5].copy()
    few.write_h5ad(tmp_path / "few.h5ad")
    assert anndata.read_h5ad(tmp_path / "few.h5ad").var.equals(few.var)


def test_more_aliquots_have_the_same_disease(cohort):
    assert simulate_sites(n=600, genes=1000, seed=1).var.equals(cohort.var)
    assert not simulate_sites(n=600, genes=1000, seed=2).var.equals(cohort.var)


def test_the_whole_of_tcga_has_its_table_of_types():
    found = sizes(simulate_sites(n=TCGA, genes=100, seed=1).obs)
    assert {name: tuple(row) for name, row in found.iterrows()} == {name: TYPES[name][:2] for name in STRENGTH}


@pytest.mark.parametrize("n", [600, 601, 777, 1000, 3001, 6000])
def test_at_any_size_rare_sites_keep_theirs_and_each_normal_has_its_tumour(n):
    obs = simulate_sites(n=n, genes=100, seed=1).obs
    found = sizes(obs)
    assert len(obs) == n and obs.index.is_unique
    assert {name: tuple(found.loc[name]) for name in RARE} == {"CHOL": (36, 9), "ESCA": (162, 11)}
    assert found.drop(index=list(RARE)).min(axis=None) >= FEWEST
    normals, tumours = (obs[obs["tissue"] == tissue].set_index("patient") for tissue in ("normal", "tumour"))
    assert tumours.index.is_unique and normals.index.is_unique
    assert (tumours.loc[normals.index, "cohort"] == normals["cohort"]).all()


@pytest.mark.parametrize("genes", [100, 137, 250])
def test_a_gene_of_a_site_is_planted_for_nothing_else(genes):
    var = simulate_sites(n=600, genes=genes, seed=1).var
    site, programme = var["truth_site"] != "", var["truth_programme"] != 0
    others = (var["truth_tissue"] != "") | (var["truth_marker"] != "") | programme
    assert not (site & others).any() and (var["truth_planted"] == site | others).all()
    assert ((var["truth_site_effect"] != 0) == site).all()
    assert set(var["truth_site"]) == {"", *SITES} and var["truth_site"].value_counts()[SITES].nunique() == 1


def test_the_shared_programme_tells_tumours_from_normals_in_every_site_at_the_strength_of_the_type(cohort, gaps):
    gap, error = gaps
    planted = cohort.var["truth_programme"].to_numpy()
    genes = planted != 0
    for name, strength in STRENGTH.items():
        slope = np.polyfit(planted[genes], gap.loc[name, genes], 1)[0]
        assert slope == pytest.approx(strength, rel=0.25, abs=0.2), name  # zeros and the background blur it
        t = (np.sign(planted) * gap.loc[name] / error.loc[name])[genes]
        assert t.mean() > 2, name


def test_a_site_programme_is_in_the_tumours_of_that_site_only(cohort, gaps):
    gap, error = gaps
    site, effect = cohort.var["truth_site"].astype(str), cohort.var["truth_site_effect"]
    for name in STRENGTH:
        for planted in SITES:
            genes = site == planted
            along = np.sign(effect[genes]) * gap.loc[name, genes]
            if planted == SITE_OF[name]:
                assert along.mean() > 0.7 and (along / error.loc[name, genes]).mean() > 3, name
            else:
                assert abs(along.mean()) < 0.4, (name, planted)


def test_normals_are_all_normal_and_tumours_about_seven_tenths_tumour(cohort):
    tumour = cohort.obs["tissue"] == "tumour"
    purity = cohort.obs["purity"]
    assert (purity[~tumour] == 1).all() and purity[tumour].between(0.05, 1).all()
    assert purity[tumour].mean() == pytest.approx(0.7, abs=0.01) and purity[tumour].std() == pytest.approx(
        0.15, abs=0.01
    )


def test_less_pure_tumours_differ_less_from_normals(cohort):
    tumour, purity = (cohort.obs["tissue"] == "tumour").to_numpy(), cohort.obs["purity"].to_numpy()
    planted = cohort.var["truth_programme"].to_numpy()
    score = cohort.X[:, planted > 0].mean(axis=1) - cohort.X[:, planted < 0].mean(axis=1)
    for name, least in (("BRCA", 0.4), ("LUAD", 0.4), ("ESCA", 0.2), ("PRAD", 0.0)):
        rows = (cohort.obs["cohort"] == name).to_numpy()
        assert np.corrcoef(score[rows & tumour], purity[rows & tumour])[0, 1] > least, name
        if name == "BRCA":
            normal, low = score[rows & ~tumour].mean(), tumour & (purity < 0.6)
            gap = [score[rows & some].mean() - normal for some in (low, tumour & (purity > 0.8))]
            expected = [purity[rows & some].mean() for some in (low, tumour & (purity > 0.8))]
            assert gap[0] / gap[1] == pytest.approx(expected[0] / expected[1], rel=0.2)


def test_tissue_genes_are_those_of_pancancer_for_the_types_that_are_here(cohort):
    share = cohort.var["truth_tissue"].astype(str).value_counts(normalize=True)
    assert set(share.index) == {""}.union(*(TYPES[name][2] for name in STRENGTH)) and len(share) == 10
    assert 0.1 < 1 - share[""] < 0.16 and share["liver"] == pytest.approx(3 * share["breast"], rel=0.1)


@pytest.mark.parametrize(
    ("name", "telling"),
    [
        ("simulated:sites,n=599", "expected at least 600 aliquots and 100 genes"),
        ("simulated:sites,genes=99", "100 genes"),
        ("simulated:site", "nearest: sites"),
    ],
)
def test_a_name_that_cannot_be_read_is_refused(name, telling):
    with pytest.raises(CohortError, match=telling):
        load_cohort(name)
