import hashlib

import numpy as np
import pandas as pd
import pytest

from gexlib import CohortError, check_cohort, load_cohort
from gexlib.sources.simulated import simulate
from gexlib.sources.simulated.vital import CANCERS

# sha256 of X in hundredths, as drawn by numpy 2.4 on x86-64
KNOWN = "ebe28a5e9f4aad3e51c9e71f4ead2d99f791371263f8884a48fac696fc1b93d8"
PUBLISHED = {"vital": (1212, 199), "vital_coad": (326, 81), "vital_kipan": (1020, 267)}  # table 1: samples, cases


@pytest.fixture(scope="module")
def brca():
    return simulate("vital", n=1212, genes=1000)


def rows(cohort, tissue):
    return (cohort.obs["tissue"] == tissue).to_numpy()


def pairs(cohort):
    """Rows of the tumours, and of the normals of the same patients."""
    tumours = pd.Series(np.flatnonzero(rows(cohort, "tumour")), index=cohort.obs["patient"][rows(cohort, "tumour")])
    normals = np.flatnonzero(rows(cohort, "normal"))
    return tumours.loc[cohort.obs["patient"].iloc[normals]].to_numpy(), normals


def test_the_same_seed_gives_the_same_cohort_on_every_machine():
    hundredths = np.rint(simulate("vital", n=80, genes=200, seed=3).X * 100).astype("<i4")
    assert hashlib.sha256(hundredths.tobytes()).hexdigest() == KNOWN


@pytest.mark.parametrize("kind", CANCERS)
def test_a_simulated_cohort_keeps_the_contract_and_says_that_it_is_simulated(kind):
    cohort = load_cohort(f"simulated:{kind}")
    check_cohort(cohort, "vital")
    assert cohort.shape == (300, 1000) and cohort.uns["simulated"] and cohort.uns["unit"] == "log2(RSEM+1)"
    assert cohort.var_names[0] == "SIM00001" and cohort.var["module"].nunique() == 50
    assert list(cohort.obs["vital"].cat.categories) == ["alive", "dead"] and cohort.obs["vital"].cat.ordered


@pytest.mark.parametrize("kind", CANCERS)
def test_aliquots_and_cases_are_those_of_the_paper(kind):
    n, cases = PUBLISHED[kind]
    obs = simulate(kind, n=n, genes=100).obs
    found = obs.groupby(["histology", "tissue", "vital"], observed=True).size().to_dict()
    assert len(obs) == n and (obs["vital"] == "dead").sum() == cases
    assert found == CANCERS[kind].counts


@pytest.mark.parametrize("kind", CANCERS)
@pytest.mark.parametrize("n", [60, 61, 97, 150, 301, 777, 2500])
def test_at_any_size_a_patient_has_one_tumour_and_one_status(kind, n):
    obs = simulate(kind, n=n, genes=100).obs
    patients = obs.groupby("patient")
    assert len(obs) == n and obs.index.is_unique
    assert (patients["tissue"].agg(lambda tissue: (tissue == "tumour").sum()) == 1).all()
    assert (patients[["vital", "age", "follow_up_days", "histology"]].nunique() == 1).all(axis=None)
    assert patients.size().max() == 2 and (obs["vital"] == "dead").mean() == pytest.approx(
        PUBLISHED[kind][1] / PUBLISHED[kind][0], abs=3 / n
    )


def test_more_aliquots_have_the_same_disease():
    few, many = simulate("vital", n=80), simulate("vital", n=150)
    assert few.var.drop(columns="module").equals(many.var.drop(columns="module"))
    assert (few.var["module"].astype(str) == many.var["module"].astype(str)).all()


def test_planted_genes_are_recorded_and_their_effects_found_among_many_tumours():
    cohort = simulate("vital_coad", n=6000, genes=400, seed=2)
    truth, X, tumour = cohort.var, cohort.X, rows(cohort, "tumour")
    dead = (cohort.obs["vital"] == "dead").to_numpy()
    found = X[tumour & dead].mean(axis=0) - X[tumour & ~dead].mean(axis=0)
    assert 0.05 < truth["truth_planted"].mean() < 0.15 and truth.loc[truth["truth_set"], "module"].nunique() == 3
    assert np.corrcoef(found, truth["truth_effect"])[0, 1] > 0.8
    assert np.abs(found[truth["truth_planted"]]).mean() > 2 * np.abs(found[~truth["truth_planted"]]).mean()


def test_without_a_broad_signal_only_planted_genes_have_an_effect(brca):
    assert (brca.var["truth_effect"] != 0).equals(brca.var["truth_planted"])


def test_normals_differ_from_tumours_as_far_as_measured(brca):
    tumours, normals = pairs(brca)
    difference = np.abs((brca.X[normals] - brca.X[tumours]).mean(axis=0))[brca.X.mean(axis=0) > 1]
    assert 0.4 < np.median(difference) < 0.7 and 1.0 < np.sqrt((difference**2).mean()) < 1.7


def test_a_normal_resembles_the_tumour_of_its_own_patient_a_little(brca):
    tumours, normals = pairs(brca)
    one, other = brca.X[tumours], brca.X[normals]
    varies = (one.std(axis=0) > 0.05) & (other.std(axis=0) > 0.05)
    one, other = ((x - x.mean(axis=0)) / x.std(axis=0) for x in (one[:, varies], other[:, varies]))
    assert 0.04 < (one * other).mean() < 0.18
    assert abs((one * other[np.roll(np.arange(len(other)), 1)]).mean()) < 0.04


def test_more_normals_than_tumours_are_of_the_dead(brca):
    dead = brca.obs["vital"] == "dead"
    assert dead[rows(brca, "normal")].mean() > 2 * dead[rows(brca, "tumour")].mean()


def test_the_dead_are_older_and_were_followed_to_their_death_while_genes_see_no_follow_up(brca):
    obs, X = brca.obs[rows(brca, "tumour")], brca.X[rows(brca, "tumour")]
    dead = obs["vital"] == "dead"
    assert obs.loc[dead, "age"].mean() > obs.loc[~dead, "age"].mean() and (obs["follow_up_days"] > 0).all()
    r = np.corrcoef(X[:, X.std(axis=0) > 0].T, obs["follow_up_days"])[-1, :-1]
    assert (r**2).mean() * (len(obs) - 1) < 1.6  # 1 by chance; plates add a little


def test_low_genes_read_zero_and_some_are_constant(brca):
    zeros = (brca.X == 0).mean(axis=0)
    assert 5 <= (brca.X.std(axis=0) == 0).sum() < 30 and 0.2 < (zeros > 0).mean() < 0.45
    assert (zeros == 1)[brca.var["truth_planted"]].sum() == 0


def test_broad_factors_hold_the_measured_shares_of_the_variance(brca):
    x = brca.X[rows(brca, "tumour")][:, brca.X.mean(axis=0) > 1][:, :300]
    shares = np.linalg.eigvalsh(np.corrcoef(x.T))[::-1] / x.shape[1]
    assert 0.07 < shares[0] < 0.14 and 0.3 < shares[:10].sum() < 0.45


def test_kidney_histologies_differ_in_genes_and_in_deaths():
    cohort = simulate("vital_kipan", n=1020, genes=300)
    obs, tumour = cohort.obs, rows(cohort, "tumour")
    clear = (obs["histology"] == "KIRC").to_numpy()
    assert list(obs["histology"].cat.categories) == ["KIRC", "KIRP", "KICH"]
    gap = cohort.X[tumour & clear].mean(axis=0) - cohort.X[tumour & ~clear].mean(axis=0)
    assert np.sqrt((gap**2).mean()) > 0.5
    dead = obs["vital"] == "dead"
    assert dead[tumour & clear].mean() > 1.5 * dead[tumour & ~clear].mean()


@pytest.mark.parametrize(
    ("name", "telling"),
    [
        ("simulated:vital_lung", "nearest: vital"),
        ("simulated:vital,n=20", "at least 60 aliquots"),
        ("simulated:vital,genes=20", "100 genes"),
        ("simulated:vital_kipan,patients=90", "expected n=, genes= or seed="),
    ],
)
def test_a_name_that_cannot_be_read_is_refused(name, telling):
    with pytest.raises(CohortError, match=telling):
        load_cohort(name)
