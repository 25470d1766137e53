import hashlib
import os
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter
from scipy.stats import mannwhitneyu
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from gexlib import CohortError, check_cohort, load_cohort
from gexlib.cohort import drop_unlabelled
from gexlib.sources.simulated import simulate
from gexlib.sources.simulated.radiogenomics import SETS, TRAITS

# sha256 of X in hundredths, as drawn by numpy 2.4 on x86-64
KNOWN = "239981dc700bbd0880476022b089891d06de0d4500d4d727c5cafbe7ef9992cc"
NEGATIVE = {"Minimal", "Less than 1/3", "Focal", "expansive (T1~FLAIR)"}  # the rest is the class to predict
EXAMPLE = Path(os.environ.get("GEXLIB_REAL_DATA", "")) / "vasari" / "vasari_annotations.csv"
SUM, LARGER, U_SHAPE, NOTHING, PRODUCT, GATE = TRAITS
DRIVEN = [name for name, trait in TRAITS.items() if trait.sets]


@pytest.fixture(scope="module")
def cohort():
    return simulate("radiogenomics")


@pytest.fixture(scope="module")
def many():
    return simulate("radiogenomics", n=24_000, genes=100)


def positive(cohort, column):
    """Which of the patients with a reading are of the class to predict, by patient."""
    return ~cohort.obs[column].dropna().astype(str).isin(NEGATIVE)


def activities(cohort, label):
    return cohort.obsm["truth_activity"][cohort.uns["truth_sets"][label].split()]


def auc(cohort, trait, scores):
    is_positive = positive(cohort, trait)
    return roc_auc_score(is_positive, scores.loc[is_positive.index])


def survival(cohort):
    age = (cohort.obs["age"] - cohort.obs["age"].mean()) / cohort.obs["age"].std()
    return pd.DataFrame({"days": cohort.obs["os_days"], "dead": cohort.obs["vital"] == "dead", "age": age})


def test_the_same_seed_gives_the_same_cohort_on_every_machine():
    cohort = simulate("radiogenomics", n=200, genes=150, seed=3)
    hundredths = np.rint(cohort.X * 100).astype("<i4")
    assert hashlib.sha256(hundredths.tobytes()).hexdigest() == KNOWN
    again = simulate("radiogenomics", n=200, genes=150, seed=3)
    assert again.obs.equals(cohort.obs) and again.obsm["truth_activity"].equals(cohort.obsm["truth_activity"])


def test_it_keeps_the_contract_says_that_it_is_simulated_and_can_be_saved(tmp_path):
    cohort = load_cohort("simulated:radiogenomics")
    assert cohort.shape == (528, 1000) and cohort.uns["simulated"] and cohort.uns["unit"] == "log2 RMA"
    assert cohort.var_names[0] == "SIM00001" and cohort.obs["patient"].is_unique
    assert 1.5 <= cohort.X.min() and cohort.X.max() <= 15
    for trait in TRAITS:
        check_cohort(drop_unlabelled(cohort, trait), trait)
    cohort.write_h5ad(tmp_path / "cohort.h5ad")
    read = anndata.read_h5ad(tmp_path / "cohort.h5ad")
    assert read.obs.equals(cohort.obs) and read.var.equals(cohort.var)
    for name in ("truth", "truth_sets", "truth_auc"):
        assert dict(read.uns[name]) == cohort.uns[name]
    for name in ("truth_activity", "truth_signal"):
        assert read.obsm[name].equals(cohort.obsm[name])


def test_more_patients_have_the_same_disease(cohort):
    more, other = simulate("radiogenomics", n=700), simulate("radiogenomics", seed=2)
    assert more.var.equals(cohort.var) and more.uns["truth_sets"] == cohort.uns["truth_sets"]
    assert not other.var.equals(cohort.var) and other.uns["truth_sets"] != cohort.uns["truth_sets"]


@pytest.mark.parametrize(("n", "imaged"), [(528, 175), (1056, 350), (200, 66), (301, 100)])
def test_a_third_have_images_and_nobody_else_has_traits(n, imaged):
    obs = simulate("radiogenomics", n=n, genes=100).obs
    assert list(obs["imaged"].cat.categories) == ["no", "yes"] and (obs["imaged"] == "yes").sum() == imaged
    readings = obs[[f"{trait}{reader}" for trait in TRAITS for reader in ("", ".reader2")]]
    assert readings[obs["imaged"] == "no"].isna().all(axis=None)
    indeterminate = readings[obs["imaged"] == "yes"].isna()
    assert 0 < indeterminate.sum().sum() and indeterminate.mean(axis=None) == pytest.approx(0.02, abs=0.015)


def test_traits_are_written_in_the_words_of_vasari(cohort):
    proportions = ["Minimal", "Less than 1/3", "Between 1/3 and 2/3", "More than 2/3"]
    ratio = ["expansive (T1~FLAIR)", "mixed (T1 less than FLAIR)", "infiltrative (T1 much smaller than FLAIR)"]
    for trait in (SUM, LARGER, U_SHAPE, GATE):
        assert list(cohort.obs[trait].cat.categories) == proportions
    assert list(cohort.obs["f9.multifocal.or.multicentric"].cat.categories) == ["Focal", "Multifocal or Multicentric"]
    assert list(cohort.obs["f10.t1.flair.ratio"].cat.categories) == ratio
    assert all(cohort.obs[trait].cat.ordered for trait in TRAITS)


@pytest.mark.skipif(
    not (os.environ.get("GEXLIB_REAL_DATA") and EXAMPLE.is_file()),
    reason="GEXLIB_REAL_DATA is not set or holds no vasari/vasari_annotations.csv",
)
def test_columns_words_and_shares_are_those_of_the_public_example(many):
    example = pd.read_csv(EXAMPLE)
    assert set(TRAITS) == {column for column in example if column.startswith("f")}
    for trait in TRAITS:
        shares = example[trait].value_counts(normalize=True)
        found = many.obs[trait].value_counts(normalize=True)
        assert set(shares.index) <= set(found.index)
        assert (found - shares.reindex(found.index, fill_value=0)).abs().max() < 0.02, trait


def test_gene_sets_have_the_stated_sizes_and_planted_ones_are_recorded():
    var = simulate("radiogenomics", n=200, genes=12_042).var
    sizes = var["module"].value_counts()
    assert list(var["module"].cat.categories) == [*SETS, "none"] and len(SETS) == 40
    assert sizes[SETS].between(0.0149 * 12_042, 0.0251 * 12_042).all() and 0.1 < sizes["none"] / 12_042 < 0.3
    assert ((var["truth_share"] > 0) == (var["module"] != "none")).all() and var["truth_share"].max() < 0.35


def test_every_trait_but_one_has_two_sets_of_its_own_and_one_of_them_drives_survival(cohort):
    named = {label: sets.split() for label, sets in cohort.uns["truth_sets"].items()}
    assert list(named) == [*TRAITS, "os_days"] and named[NOTHING] == []
    assert [len(named[trait]) for trait in DRIVEN] == [2] * 5 and named["os_days"] == named[SUM][1:]
    all_sets = [one for trait in DRIVEN for one in named[trait]]
    assert len(set(all_sets)) == 10
    assert (cohort.var["truth_planted"] == cohort.var["module"].isin(all_sets)).all()
    for label, sets in named.items():
        genes = cohort.var["truth_traits"].str.split().map(lambda labels, label=label: label in labels)
        assert set(cohort.var.loc[genes, "module"]) == set(sets), label
        assert all(one in cohort.uns["truth"][label] for one in sets)


def test_signals_are_what_the_truth_says_of_the_activities(many):
    signals = many.obsm["truth_signal"]
    a = {trait: activities(many, trait).to_numpy().T for trait in DRIVEN}
    expected = {
        SUM: a[SUM].sum(axis=0),
        LARGER: a[LARGER].max(axis=0),
        U_SHAPE: a[U_SHAPE][0] ** 2 / np.sqrt(2) + a[U_SHAPE][1],
        PRODUCT: a[PRODUCT].prod(axis=0),
        GATE: np.where(a[GATE][1] > 0, a[GATE][0], 0),
    }
    for trait, values in expected.items():
        assert np.corrcoef(signals[trait], values)[0, 1] == pytest.approx(1), trait
        assert signals[trait].mean() == pytest.approx(0, abs=0.03) and signals[trait].std() == pytest.approx(
            1, abs=0.03
        )
    assert (signals[NOTHING] == 0).all()


@pytest.mark.parametrize("trait", TRAITS)
def test_whoever_knew_the_activities_would_have_the_stated_auc(many, trait):
    best = many.uns["truth_auc"][trait]
    assert auc(many, trait, many.obsm["truth_signal"][trait]) == pytest.approx(best, abs=0.02)  # 4 standard errors
    assert auc(many, f"{trait}.reader2", many.obsm["truth_signal"][trait]) == pytest.approx(best, abs=0.02)


def test_each_set_of_the_linear_trait_tells_it_alone_and_those_of_the_product_do_not(many):
    for one in activities(many, SUM):
        assert auc(many, SUM, many.obsm["truth_activity"][one]) == pytest.approx(0.725, abs=0.03)
    for one in activities(many, PRODUCT):
        assert auc(many, PRODUCT, many.obsm["truth_activity"][one]) == pytest.approx(0.5, abs=0.03)
        assert auc(many, PRODUCT, many.obsm["truth_activity"][one].abs()) == pytest.approx(0.52, abs=0.03)
    assert auc(many, PRODUCT, activities(many, PRODUCT).prod(axis=1)) > 0.74


def test_the_u_shape_shows_at_both_ends_and_the_gate_only_where_it_is_open(many):
    squared, _ = activities(many, U_SHAPE)
    squared = many.obsm["truth_activity"][squared]
    assert auc(many, U_SHAPE, squared) == pytest.approx(0.5, abs=0.03) and auc(many, U_SHAPE, squared.abs()) > 0.7
    gated, gate = (many.obsm["truth_activity"][one] for one in activities(many, GATE))
    is_positive = positive(many, GATE)
    for opened, low, high in ((True, 0.77, 0.9), (False, 0.46, 0.54)):
        rows = is_positive.index[(gate.loc[is_positive.index] > 0) == opened]
        assert low < roc_auc_score(is_positive[rows], gated[rows]) < high


def test_no_set_tells_the_trait_of_noise_nor_a_trait_that_is_not_its_own(many):
    owned = {trait: set(activities(many, trait)) for trait in TRAITS}
    for trait in TRAITS:
        others = [one for one in SETS if one not in owned[trait]]
        is_positive = positive(many, trait)
        scores = many.obsm["truth_activity"].loc[is_positive.index, others]
        above = mannwhitneyu(scores[is_positive], scores[~is_positive]).statistic
        found = above / is_positive.sum() / (~is_positive).sum()  # the AUC of each set
        assert np.abs(found - 0.5).max() < 0.04, trait  # the largest of 38 or 40, standard error about .008
        assert found.std() < 0.012, trait


@pytest.mark.parametrize("trait", TRAITS)
def test_readers_agree_as_far_as_is_stated(many, trait):
    both = many.obs[[trait, f"{trait}.reader2"]].dropna().astype(str)
    words = cohen_kappa_score(both[trait], both[f"{trait}.reader2"])
    classes = cohen_kappa_score(*(both[column].isin(NEGATIVE) for column in both))
    assert 0.37 < words < 0.58 and 0.51 < classes < 0.61


def test_genes_of_a_set_follow_its_activity_and_their_mean_tells_the_linear_trait(cohort):
    x = (cohort.to_df() - cohort.X.mean(axis=0)) / cohort.X.std(axis=0)
    r = pd.Series(
        [
            np.corrcoef(x[gene], cohort.obsm["truth_activity"][one])[0, 1]
            for gene, one in cohort.var["module"].items()
            if one != "none"
        ],
        index=cohort.var_names[cohort.var["module"] != "none"],
    )
    expected = np.sqrt(cohort.var["truth_share"][r.index])
    assert (r - expected).abs().mean() < 0.06 and np.corrcoef(r, expected)[0, 1] > 0.9
    means = x.T.groupby(cohort.var["module"], observed=True).mean().T
    sets = list(activities(cohort, SUM))
    assert auc(cohort, SUM, means[sets].sum(axis=1)) > 0.7
    assert abs(auc(cohort, NOTHING, means[sets].sum(axis=1)) - 0.5) < 0.15


def test_coexpression_within_sets_is_as_stated_and_there_is_none_between_them(cohort):
    r = np.corrcoef(cohort.X.T)
    np.fill_diagonal(r, np.nan)
    members = {one: np.flatnonzero(cohort.var["module"] == one) for one in SETS}
    within = [np.nanmean(r[np.ix_(genes, genes)]) for genes in members.values()]
    between = [np.nanmean(r[np.ix_(members[one], members[other])]) for one, other in zip(SETS, SETS[1:], strict=False)]
    assert np.mean(within) == pytest.approx(0.155, abs=0.02) and min(within) > 0.05
    assert abs(np.mean(between)) < 0.02 and np.abs(between).max() < 0.15


def test_broad_factors_and_subtypes_hold_the_stated_shares_of_the_variance(cohort):
    x = (cohort.X - cohort.X.mean(axis=0)) / cohort.X.std(axis=0)
    shares = np.linalg.eigvalsh(x @ x.T)[::-1] / x.size
    assert shares[0] == pytest.approx(0.13, abs=0.025) and shares[:6].sum() == pytest.approx(0.43, abs=0.04)
    assert shares[6] < 0.02
    means = pd.DataFrame(x).groupby(cohort.obs["subtype"].to_numpy(), observed=True).transform("mean")
    assert means.to_numpy().var() == pytest.approx(0.115, abs=0.025)
    assert cohort.obs["subtype"].value_counts(normalize=True).between(0.15, 0.35).all()


def test_survival_has_the_median_and_the_deaths_of_tcga(many):
    table = survival(many)
    curve = KaplanMeierFitter().fit(table["days"], table["dead"])
    assert curve.median_survival_time_ == pytest.approx(427, rel=0.08) and (table["days"] >= 1).all()
    assert table["dead"].mean() == pytest.approx(0.83, abs=0.015)
    for days, alive in ((365, 0.58), (730, 0.23), (1825, 0.06)):
        assert curve.predict(days) == pytest.approx(alive, abs=0.06)


def test_age_and_one_set_drive_the_hazard_as_stated_and_no_other_set_does(many):
    table = survival(many).join(many.obsm["truth_activity"])
    table["male"] = many.obs["gender"] == "male"
    found = CoxPHFitter().fit(table, "days", "dead").params_
    (harmful,) = many.uns["truth_sets"]["os_days"].split()
    assert found["age"] == pytest.approx(0.49, abs=0.03) and found[harmful] == pytest.approx(0.14, abs=0.025)
    assert found.drop(["age", harmful]).abs().max() < 0.05  # standard error .007 of a set, .015 of sex


def test_age_sex_and_race_are_distributed_as_in_tcga(many):
    obs = many.obs
    assert obs["age"].mean() == pytest.approx(57.8, abs=0.5) and obs["age"].std() == pytest.approx(14.4, abs=0.5)
    assert obs["age"].between(10, 89).all() and list(obs["vital"].cat.categories) == ["alive", "dead"]
    assert (obs["gender"] == "male").mean() == pytest.approx(0.61, abs=0.015)
    assert (obs["race"] == "white").mean() == pytest.approx(0.89, abs=0.015)


@pytest.mark.parametrize(
    ("name", "telling"),
    [
        ("simulated:radiogenomics,n=199", "expected at least 200 patients and 100 genes"),
        ("simulated:radiogenomics,genes=99", "expected at least 200 patients and 100 genes"),
        ("simulated:radiogenomic", "nearest: radiogenomics"),
    ],
)
def test_a_name_that_cannot_be_read_is_refused(name, telling):
    with pytest.raises(CohortError, match=telling):
        load_cohort(name)
