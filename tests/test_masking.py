"""Gene masking: the set that carries the label is found, others are not, and answers are scored as the paper does."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score

from gexlib import masking
from gexlib.models.radiogenomic import ImagingSettings
from gexlib.splits import grouped_folds

GENES, ROWS = 60, 90
SETS = [np.arange(begin, begin + 10) for begin in range(0, GENES, 10)]  # set 0 carries the label


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(1)
    activity = rng.standard_normal((ROWS, len(SETS)))
    x = 5 + np.repeat(activity, 10, axis=1) + rng.standard_normal((ROWS, GENES))
    y = (activity[:, 0] + 0.5 * rng.standard_normal(ROWS) > 0).astype(int)
    return x.astype(np.float32), y, list(grouped_folds(y, np.arange(ROWS), 3, seed=1))


@pytest.fixture(scope="module")
def asked(cohort):
    x, y, parts = cohort
    return masking.trained_on(x, y, parts, ImagingSettings((16, 8)), seed=2, epochs=20, batch=20)


def test_the_set_that_carries_the_label_is_the_one_that_masking_finds_in_unseen_patients(cohort, asked):
    x, y, _ = cohort
    scores = masking.set_scores(y, masking.masked_odds(asked[0], x, asked[1], SETS))
    assert scores["AUC"].idxmax() == 0 and scores["AUC"][0] > 0.85
    assert scores["AUC"][1:].between(0.3, 0.7).all()


def test_masked_odds_are_those_of_the_fold_less_those_of_nobody(cohort, asked):
    x, _, _ = cohort
    odds = masking.masked_odds(asked[0], x, asked[1], SETS[:2])
    course, (_, _, test) = asked[0][1], asked[1][1]
    kept = np.where(np.isin(np.arange(GENES), SETS[1]), x[test], course.mean)
    both = course.masked(kept, [np.arange(GENES), []])[..., 0]
    np.testing.assert_allclose(odds[1, test], both[0] - both[1], atol=1e-4)


def test_samples_that_no_part_tests_stay_unknown_and_do_not_count(cohort, asked):
    x, y, _ = cohort
    some = [(0, train, test[:10]) for _, train, test in asked[1]]
    odds = masking.masked_odds(asked[0], x, some, SETS)
    known = np.concatenate([test for _, _, test in some])
    assert np.isnan(odds).all(axis=0).sum() == ROWS - 30
    again = masking.set_scores(y[known], odds[:, known])
    pd.testing.assert_frame_equal(masking.set_scores(y, odds), again)


def test_log_odds_of_one_class_of_several_are_those_of_its_probability():
    logits = np.random.default_rng(0).normal(size=(5, 4))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(masking.log_odds(logits, 2), np.log(p[:, 2] / (1 - p[:, 2])))
    np.testing.assert_array_equal(masking.log_odds(logits[:, :1], 3), logits[:, 0])


def test_scores_of_sets_are_those_of_scikit_learn_ties_included():
    rng = np.random.default_rng(2)
    y, odds = rng.integers(0, 2, 50), rng.normal(size=(3, 50)).round(1)
    found = masking.set_scores(y, odds)
    for row, one in zip(found.itertuples(index=False), odds, strict=True):
        precision, recall, _ = precision_recall_curve(y, one)
        assert row[0] == pytest.approx(roc_auc_score(y, one))
        assert row[1] == pytest.approx(auc(recall, precision))


def test_random_sets_have_the_sizes_asked_for_and_no_gene_twice():
    drawn = masking.random_sets([7, 3, 7], 10, 4, seed=0)
    assert list(drawn) == [3, 7] and {len(np.unique(one)) for one in drawn[7]} == {7}
    assert len(drawn[3]) == 4 and max(map(max, drawn[3])) < 10


def test_a_set_stands_beside_random_sets_of_its_own_size():
    null = {5: np.linspace(0.4, 0.6, 99), 9: np.linspace(0.7, 0.9, 99)}
    table = masking.against_random(pd.Series([0.65, 0.65], ["small", "large"]), [5, 9], null)
    assert table.loc["small", "p"] == pytest.approx(0.01) and table.loc["large", "p"] == 1
    assert table.loc["small", "q"] == pytest.approx(0.02)
    assert table.loc["large", "mean"] == pytest.approx(0.8)


def test_under_the_null_p_values_are_uniform(cohort, asked):
    x, y, _ = cohort
    null = masking.random_sets([10], GENES, 200, seed=3)
    drawn = masking.random_sets([10], GENES, 200, seed=4)[10]
    score = masking.set_scores(y, masking.masked_odds(asked[0], x, asked[1], [*drawn, *null[10]])).AUC.to_numpy()
    p = masking.against_random(score[:200], [10] * 200, {10: score[200:]})["p"]
    assert 0.4 < p.mean() < 0.6 and 0.01 < (p < 0.05).mean() < 0.12


def test_saliency_maps_are_of_the_network_that_has_not_seen_the_patient_and_know_the_sign(cohort, asked):
    x, _, _ = cohort
    maps = masking.saliency_maps(asked[0], x, asked[1])
    course, (_, _, test) = asked[0][2], asked[1][2]
    np.testing.assert_allclose(maps[test], course.saliency(x[test]), atol=1e-5)
    assert maps[:, SETS[0]].mean() > 5 * abs(maps[:, SETS[3]].mean())
    few = masking.saliency_maps(asked[0], x, [(0, train, test[:1]) for _, train, test in asked[1]])
    assert np.isnan(few).all(axis=1).sum() == ROWS - 3


def test_maps_of_two_patients_are_more_alike_than_those_of_two_networks(cohort, asked):
    x, _, parts = cohort
    likeness = masking.map_likeness(asked[0], x)
    assert 0 < likeness["one patient, two networks"] < likeness["two patients, one network"] < 1


def test_what_lies_between_networks_is_all_of_it_or_what_chance_gives():
    rng, names = np.random.default_rng(5), pd.Index([f"P{i}" for i in range(400)])
    parts = [(0, None, part) for part in np.split(rng.permutation(400), 10)]
    fold = np.empty(400, int)
    for number, (_, _, test) in enumerate(parts):
        fold[test] = number
    table = pd.DataFrame({"network": fold < 4, "patient": rng.random(400) < 0.4, "constant": True}, names)
    share = masking.between_networks(table, parts, names)
    assert share["network"] == pytest.approx(1) and share["patient"] < 0.07 and "constant" not in share


def test_the_difference_of_shares_is_that_of_patients_with_both_known():
    indicator = pd.Series([True, True, False, False, True, None], dtype=object)
    label = pd.Series([True, True, True, False, False, False])
    row = masking.share_difference(indicator, label).iloc[0]
    assert row["value"] == pytest.approx(2 / 3 - 1 / 2) and row["n"] == 5
    assert row["low"] < row["value"] < row["high"]


def test_activation_maximisation_raises_the_genes_that_carry_the_label(asked):
    z = masking.activation_maximum(asked[0][0])
    assert z[SETS[0]].mean() > 2 * max(abs(z[one].mean()) for one in SETS[1:])
    assert np.linalg.norm(z) <= 10 + 1e-3  # 20 steps of half a unit
