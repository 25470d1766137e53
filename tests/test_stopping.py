"""Which epoch is scored: the published choice promises, the corrected one does not and sees no test label."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from gexlib.cohort import CohortError, beside, make_cohort
from gexlib.evaluate import mean_fold_auc, predictions, with_intervals, within_folds
from gexlib.models.radiogenomic import ImagingSettings, probabilities_of
from gexlib.models.shallow import comparison_models, fixed_recipe, nested_recipe
from gexlib.splits import bootstrapped, grouped_folds
from gexlib.stopping import (
    at_the_best_epoch,
    at_the_inner_best,
    auc_by_epoch,
    bootstrap_differences,
    bootstrap_table,
    together,
)

QUICK = ImagingSettings((6, 4), optimizer="adam", learning_rate=0.02)
HOW = {"epochs": 12, "batch": 16}
N, GENES = 96, 15


@pytest.fixture(scope="module")
def nothing():
    """Genes and labels that have nothing to do with each other."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((N, GENES)).astype(np.float32), rng.permutation(np.arange(N) % 2)
    patients = np.array([f"P{i}" for i in range(N)])
    return x, y, patients, list(grouped_folds(y, patients, 8, seed=1))


def test_the_auc_of_every_epoch_is_scikit_learns():
    rng = np.random.default_rng(1)
    y, logits = rng.integers(0, 2, 30), rng.standard_normal((4, 30, 1)).round(1)  # with ties
    np.testing.assert_allclose(auc_by_epoch(y, logits), [roc_auc_score(y, one[:, 0]) for one in logits])
    y, logits = rng.integers(0, 3, 30), rng.standard_normal((4, 30, 3))
    theirs = [roc_auc_score(y, p, multi_class="ovr") for p in probabilities_of(logits)]
    np.testing.assert_allclose(auc_by_epoch(y, logits), theirs)


def test_on_labels_of_chance_the_best_epoch_promises_and_the_inner_best_does_not(nothing):
    x, y, patients, parts = nothing
    promised = at_the_best_epoch(x, y, parts, {"": QUICK}, **HOW)
    honest = at_the_inner_best(x, y, patients, parts, {"": QUICK}, **HOW)
    assert promised.curves.max(axis=1).mean() > 0.6  # eight folds of twelve patients, twelve epochs each
    assert abs(mean_fold_auc(y, honest.probabilities, parts) - 0.5) < 0.12
    assert mean_fold_auc(y, promised.probabilities, parts) == pytest.approx(promised.curves.max(axis=1).mean())
    assert mean_fold_auc(y, promised.last(), parts) == pytest.approx(promised.curves[:, -1].mean())


def test_the_inner_best_never_looks_at_the_labels_of_its_test_fold(nothing):
    x, y, patients, parts = nothing
    _, _, test = parts[0]
    other = y.copy()
    other[test] = 1 - other[test]
    one, two = (at_the_inner_best(x, labels, patients, parts[:1], {"": QUICK}, **HOW) for labels in (y, other))
    np.testing.assert_array_equal(one.probabilities[0, test], two.probabilities[0, test])


def test_settings_are_chosen_by_name_and_on_different_samples(nothing):
    x, _, patients, _ = nothing
    y = (x[:, 0] > 0).astype(int)
    parts = list(grouped_folds(y, patients, 4, seed=1))
    two = {"lame": ImagingSettings((6, 4), learning_rate=1e-6), "able": QUICK}
    found = at_the_inner_best(x, y, patients, parts, two, **HOW)
    assert found.chosen == ["able"] * 4
    assert mean_fold_auc(y, found.probabilities, parts) > 0.8
    assert at_the_best_epoch(x, y, parts, two, **HOW).chosen == ["able"] * 4


def test_permuted_labels_are_learned_and_the_true_ones_are_asked(nothing):
    x, _, patients, _ = nothing
    y = (x[:, 0] > 0).astype(int)
    parts = list(grouped_folds(y, patients, 4, seed=1))
    against = at_the_inner_best(x, y, patients, parts, {"": QUICK}, labels=1 - y, **HOW)
    assert mean_fold_auc(y, against.probabilities, parts) < 0.2


def test_a_bootstrap_draw_keeps_sides_apart_and_classes_together():
    y, patients = np.arange(40) % 2, np.array([f"P{i}" for i in range(40)])
    parts = bootstrapped(y, patients, 4, 3, seed=5)
    assert [draw for draw, *_ in parts] == [0] * 4 + [1] * 4 + [2] * 4
    for _, train, test, left in parts:
        assert not set(train) & set(test) and not set(left) & (set(train) | set(test))
        assert len(train) == 30 and len(test) == 10 and len(set(train)) < 30
        assert set(y[test]) == set(y[train]) == {0, 1}
    assert any(len(set(test)) < 10 for _, _, test, _ in parts)


def test_bootstrap_differences_are_those_of_the_draws(nothing):
    x, y, patients, _ = nothing
    model, grid = comparison_models(1)["SVM"]
    fixed = {"SVM": fixed_recipe(model, {key: values[0] for key, values in grid.items()})}
    table = bootstrap_table(x, y, bootstrapped(y, patients, 4, 3, 1), QUICK, None, fixed, **HOW)
    assert len(table) == 9 and set(table.model) == {"network, best epoch", "network", "SVM"}
    wide = table.pivot(index="draw", columns="model", values="AUC")
    assert (wide["network, best epoch"] >= wide["network"]).all()
    gap = bootstrap_differences(table).set_index(["way", "model"])
    assert gap.loc[("network", "SVM"), "value"] == pytest.approx((wide["network"] - wide["SVM"]).mean())


def test_traits_together_have_the_mean_of_their_folds(nothing):
    x, y, patients, parts = nothing
    rng = np.random.default_rng(1)
    guess = {t: rng.random((1, N, 2)) for t in "ab"}
    traits, labels = {t: parts for t in "ab"}, {"a": y, "b": 1 - y}
    truths, said, who, places = together(traits, labels, patients, model=guess)
    found = with_intervals(truths, said["model"], who, within_folds(places, len(truths), None)).loc["AUC"]
    assert found.value == pytest.approx(np.mean([mean_fold_auc(labels[t], guess[t], parts) for t in "ab"]))
    assert found.n == N


def test_the_other_models_learn_a_line(nothing):
    x, _, patients, _ = nothing
    y = (x[:, 0] + x[:, 1] > 0).astype(int)
    parts = list(grouped_folds(y, patients, 4, seed=1))
    for name, (model, grid) in comparison_models(1).items():
        nested = mean_fold_auc(y, predictions(nested_recipe(model, grid), x, y, patients, parts), parts)
        assert nested > 0.75, name


def test_the_grids_grow_with_their_points():
    sizes = [sum(np.prod([len(v) for v in grid.values()]) for _, grid in comparison_models(k).values()) for k in (1, 2)]
    assert sizes[0] < sizes[1]
    assert all(len(values) == 1 for values in comparison_models(1)["boosted trees"][1].values())


def small_cohort(name, patients, genes, classes):
    x = np.random.default_rng(len(name)).normal(5, 2, (len(patients), len(genes)))
    obs = pd.DataFrame({"patient": patients, "kind": classes}, [f"{name}{i}" for i in range(len(patients))])
    return make_cohort(x, obs, pd.DataFrame(index=genes), name=name, unit="log2 RMA", source=name)


def test_another_cohort_stands_beside_with_new_patients_shared_genes_and_its_own_scale():
    first = small_cohort("first", list("abcd"), ["G1", "G2", "G3"], ["x", "y", "x", "y"])
    other = small_cohort("other", list("cdefg"), ["G3", "G2", "G9"], ["x", "y", "x", "y", "z"])
    both = beside(first, other, "kind", "kind")
    assert list(both.obs["patient"]) == list("abcdef") and list(both.var_names) == ["G2", "G3"]
    assert list(both.obs["kind"]) == ["x", "y", "x", "y", "x", "y"]
    np.testing.assert_allclose(both.X[4:].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(both.X[:4].std(axis=0), 1, atol=1e-5)
    with pytest.raises(CohortError, match=r"other: 0 new patients of the classes x, y in 'kind', 2 shared genes"):
        beside(first, other[:2], "kind", "kind")
