import hashlib

import anndata
import numpy as np
import pytest

from gexlib import check_cohort
from gexlib.sources.simulated.pancancer import MODULES, TISSUE_OF, TYPES, simulate_pancancer

# sha256 of X in hundredths, as drawn by numpy 2.4 on x86-64
KNOWN = "98ad3f9112b6a7e0259e176663ce9caeedd636c336ab1aa105a7f94ec8ac37b0"
TCGA = 11057  # aliquots in the table of types


@pytest.fixture(scope="module")
def cohort():
    return simulate_pancancer(n=3000, genes=1000, seed=1)


@pytest.fixture(scope="module")
def means(cohort):
    """Mean expression by type, (33, genes) of tumours and of normals where a type has two or more."""
    table = cohort.to_df().groupby([cohort.obs["tissue"], cohort.obs["cohort"]], observed=True).mean()
    enough = cohort.obs.loc[cohort.obs["tissue"] == "normal", "cohort"].value_counts() >= 2
    return table.loc["tumour"], table.loc["normal"].loc[lambda normal: enough[normal.index].to_numpy()]


def distance(tumours, one, other):
    return np.sqrt(((tumours.loc[one] - tumours.loc[other]) ** 2).mean())


def test_the_same_seed_gives_the_same_cohort_on_every_machine():
    hundredths = np.rint(simulate_pancancer(n=400, genes=150, seed=3).X * 100).astype("<i4")
    assert hashlib.sha256(hundredths.tobytes()).hexdigest() == KNOWN


def test_it_keeps_the_contract_says_that_it_is_simulated_and_can_be_saved(cohort, tmp_path):
    check_cohort(cohort, "cohort")
    assert cohort.shape == (3000, 1000) and cohort.uns["simulated"] and cohort.uns["unit"] == "log2(FPKM+1)"
    assert cohort.uns["cohort"] == "simulated:pancancer,n=3000,genes=1000,seed=1"
    assert list(cohort.obs) == ["patient", "cohort", "tissue", "plate"]
    assert list(cohort.obs["cohort"].cat.categories) == [*TYPES] and len(TYPES) == 33
    assert cohort.var_names[0] == "SIM00001" and (cohort.X >= 0).all() and cohort.X.max() < 20
    few = cohort[:5].copy()
    few.write_h5ad(tmp_path / "few.h5ad")
    assert anndata.read_h5ad(tmp_path / "few.h5ad").var.equals(few.var)


def test_more_aliquots_have_the_same_disease(cohort):
    assert simulate_pancancer(n=400, genes=1000, seed=1).var.equals(cohort.var)
    assert not simulate_pancancer(n=400, genes=1000, seed=2).var.equals(cohort.var)


def test_the_whole_of_tcga_has_its_table_of_types():
    obs = simulate_pancancer(n=TCGA, genes=100, seed=1).obs
    found = obs.groupby(["cohort", "tissue"], observed=False).size().unstack()
    assert {name: tuple(row) for name, row in found.iterrows()} == {name: row[:2] for name, row in TYPES.items()}


@pytest.mark.parametrize("n", [400, 401, 777, 1200, 3001])
def test_at_any_size_each_type_fills_five_folds_and_each_normal_has_its_tumour(n):
    obs = simulate_pancancer(n=n, genes=100, seed=1).obs
    found = obs.groupby(["cohort", "tissue"], observed=False).size().unstack()
    assert len(obs) == n and obs.index.is_unique and found["tumour"].min() >= 5
    assert all(found["normal"][name] >= min(normals, 2) for name, (_, normals, _) in TYPES.items())
    assert (found["normal"] > 0).equals(found.index.to_series().map(lambda name: TYPES[name][1] > 0).astype(bool))
    normals, tumours = (obs[obs["tissue"] == tissue].set_index("patient") for tissue in ("normal", "tumour"))
    assert tumours.index.is_unique and normals.index.is_unique
    assert (tumours.loc[normals.index, "cohort"] == normals["cohort"]).all()


def test_a_gene_is_of_one_module_or_one_type(cohort):
    var = cohort.var
    tissue, marker = var["truth_tissue"] != "", var["truth_marker"] != ""
    assert not (tissue & marker).any() and not (marker & (var["truth_programme"] != 0)).any()
    assert set(var["truth_tissue"]) == {"", *MODULES} and set(var["truth_marker"]) == {"", *TYPES}
    assert ((var["truth_tissue_effect"] > 0) == tissue).all() and ((var["truth_marker_effect"] > 0) == marker).all()
    assert (var["truth_planted"] == tissue | marker | (var["truth_programme"] != 0)).all()
    assert 0.5 < var["truth_planted"].mean() < 0.65


def test_tissue_genes_are_high_in_tumours_and_more_so_in_normals_of_the_tissue(cohort, means):
    tumours, normals = means
    for name in set(normals.index) - {"KICH", "LUSC", "CHOL"}:
        own = cohort.var["truth_tissue"] == TISSUE_OF[name]
        elsewhere = [other for other in tumours.index if TISSUE_OF[other] != TISSUE_OF[name]]
        rise = (tumours.loc[name, own] - tumours.loc[elsewhere, own].mean()).mean()
        elsewhere = [other for other in normals.index if TISSUE_OF[other] != TISSUE_OF[name]]
        rise_of_normals = (normals.loc[name, own] - normals.loc[elsewhere, own].mean()).mean()
        assert rise > 0.5 and rise_of_normals > 1.2, (name, rise, rise_of_normals)
    liver = cohort.var["truth_tissue"] == "liver"
    kept = [tumours.loc[name, liver].mean() for name in ("CHOL", "LIHC")]
    assert kept[0] + 0.5 < kept[1] < normals.loc["LIHC", liver].mean() - 0.2
    assert abs(normals.loc["CHOL", liver].mean() - normals.loc["LIHC", liver].mean()) < 0.3


def test_squamous_genes_are_high_in_squamous_lung_tumours_and_not_in_their_normals(cohort, means):
    squamous = cohort.var["truth_tissue"] == "squamous"
    tumours, normals = (table.loc[:, squamous].mean(axis=1) for table in means)
    assert tumours["LUSC"] > tumours["LUAD"] + 1 and normals["HNSC"] > normals["LUSC"] + 1
    assert tumours["LUAD"] + 0.3 < tumours["BLCA"] < tumours["LUSC"]


def test_markers_are_high_in_tumours_of_the_type_and_not_in_normals(cohort, means):
    tumours, normals = means
    marker, effect = cohort.var["truth_marker"].astype(str), cohort.var["truth_marker_effect"]
    own = marker.isin(normals.index) & ~marker.isin(["COAD", "READ"])
    genes, types = marker.index[own], marker[own]
    here, normal = (np.array([t.loc[y, g] for g, y in zip(genes, types, strict=True)]) for t in (tumours, normals))
    others = np.array([tumours.loc[tumours.index != y, g].mean() for g, y in zip(genes, types, strict=True)])
    assert (here - normal).mean() > 0.9 and (here - others).mean() > 0.9
    assert abs((normal - normals[genes].mean().to_numpy()).mean()) < 0.25
    assert effect[marker.isin(["COAD", "READ"])].max() < effect[own].median()


def test_the_programme_tells_all_tumours_from_all_normals(cohort, means):
    tumours, normals = means
    gap = (tumours.loc[normals.index] - normals).mean()
    planted = cohort.var["truth_programme"]
    assert np.corrcoef(gap[planted != 0], planted[planted != 0])[0, 1] > 0.75
    assert 0.35 < (planted[planted != 0] > 0).mean() < 0.65
    score = cohort.X[:, planted > 0].mean(axis=1) - cohort.X[:, planted < 0].mean(axis=1)
    tumour = (cohort.obs["tissue"] == "tumour").to_numpy()
    assert (score[tumour][:, None] > score[~tumour]).mean() > 0.9


def test_near_types_are_near_and_colon_and_rectum_all_but_one(means):
    tumours, _ = means
    unrelated = np.median([distance(tumours, "BRCA", other) for other in ("LIHC", "KIRC", "PRAD", "LUAD", "SKCM")])
    assert distance(tumours, "COAD", "READ") < 0.25 * unrelated
    for pair in (("LUAD", "LUSC"), ("KIRC", "KIRP"), ("LGG", "GBM")):
        assert 0.4 * unrelated < distance(tumours, *pair) < 0.8 * unrelated


def test_the_filter_for_low_information_drops_a_fifth_of_the_genes(cohort):
    dropped = (cohort.X.mean(axis=0) < 0.5) | (cohort.X.std(axis=0) < 0.8)
    assert 0.15 < dropped.mean() < 0.3
    assert dropped[~cohort.var["truth_planted"]].mean() > 2 * dropped[cohort.var["truth_planted"]].mean()


def test_low_genes_read_zero_and_some_are_high_in_one_class_only(cohort):
    zeros = (cohort.X == 0).mean(axis=0)
    assert 0.1 < (zeros > 0.5).mean() < 0.3
    two_humps = (zeros > 0.3) & ((cohort.X > 2.5).mean(axis=0) > 0.02)
    assert two_humps[cohort.var["truth_tissue"] != ""].mean() > 0.05


def test_plates_hold_thirty_aliquots_mostly_of_one_type(cohort):
    plates = cohort.obs.groupby("plate", observed=True)["cohort"]
    assert set(plates.size()) == {30}
    assert plates.agg(lambda types: types.value_counts(normalize=True).iloc[0]).median() > 0.7


def test_a_normal_resembles_the_tumour_of_its_own_patient_a_little(cohort):
    residual = cohort.to_df() - cohort.to_df().groupby(
        [cohort.obs["tissue"], cohort.obs["cohort"]], observed=True
    ).transform("mean")
    residual = residual.loc[:, cohort.X.mean(axis=0) > 2]
    rows = {
        tissue: residual[cohort.obs["tissue"] == tissue].set_axis(
            cohort.obs.loc[cohort.obs["tissue"] == tissue, "patient"]
        )
        for tissue in ("tumour", "normal")
    }
    normal, tumour = rows["normal"].to_numpy(), rows["tumour"].loc[rows["normal"].index].to_numpy()
    own = (normal * tumour).mean() / np.sqrt((normal**2).mean() * (tumour**2).mean())
    assert 0.04 < own < 0.2
