import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from gexlib import CohortError, evaluate
from gexlib.models.linear import fixed_ridge_recipe, multinomial_recipe, nearest_centroid_recipe
from gexlib.splits import grouped_folds


@pytest.fixture
def guess():
    """Class numbers and probabilities with ties, better than chance: (200,), (200, 4)."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 200)
    probabilities = rng.dirichlet(np.ones(4), 200)
    probabilities[np.arange(200), y] += 0.3
    probabilities = probabilities.round(1) + 1e-3
    return y, probabilities / probabilities.sum(axis=1, keepdims=True)


def test_metrics_are_those_of_scikit_learn(guess):
    y, p = guess
    found = {metric: value[0] for metric, value in evaluate.scores(y, p).items()}
    assert found["accuracy"] == pytest.approx((p.argmax(axis=1) == y).mean())
    assert found["balanced accuracy"] == pytest.approx(balanced_accuracy_score(y, p.argmax(axis=1)))
    assert found["macro AUC"] == pytest.approx(roc_auc_score(y, p, multi_class="ovr"))
    assert found["micro AUC"] == pytest.approx(roc_auc_score(np.eye(4)[y].ravel(), p.ravel()))


def test_a_weighted_auc_is_that_of_scikit_learn_for_each_row_of_weights(guess):
    y, p = guess
    weights = np.random.default_rng(1).integers(0, 3, (5, 200)).astype(float)
    expected = [roc_auc_score(y == 2, p[:, 2], sample_weight=w) for w in weights]
    assert evaluate.weighted_auc(y == 2, p[:, 2], weights) == pytest.approx(expected)


def test_a_draw_without_a_class_gives_no_auc_and_does_not_spoil_the_rest():
    y, p = np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    assert np.isnan(evaluate.weighted_auc(y == 1, p[:, 1], np.array([[1.0, 1.0, 0.0]]))[0])
    table = evaluate.with_intervals(y, p, np.arange(3))
    assert np.isfinite(table.to_numpy()).all()


def test_intervals_hold_the_value_and_shrink_with_more_patients(guess):
    y, p = guess
    few = evaluate.with_intervals(y[:50], p[:50], np.arange(50))
    many = evaluate.with_intervals(y, p, np.arange(200))
    assert ((few.low <= few.value) & (few.value <= few.high)).all()
    assert ((many.high - many.low) < (few.high - few.low)).all()
    assert (many.n == 200).all()


def test_an_accuracy_interval_covers_the_truth_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(3), 0
    for draw in range(60):
        y = rng.integers(0, 2, 100)
        right = rng.random(100) < 0.7
        p = np.eye(2)[np.where(right, y, 1 - y)]
        row = evaluate.with_intervals(y, p, np.arange(100), seed=draw).loc["accuracy"]
        covered += row.low <= 0.7 <= row.high
    assert 51 <= covered <= 60


def test_samples_of_a_patient_are_drawn_together(guess):
    y, p = guess
    alone = evaluate.with_intervals(y, p, np.arange(200)).loc["accuracy"]
    doubled = evaluate.with_intervals(np.tile(y, 2), np.tile(p, (2, 1)), np.tile(np.arange(200), 2)).loc["accuracy"]
    assert doubled.n == 200 and doubled.high - doubled.low == pytest.approx(alone.high - alone.low)


def test_a_model_never_differs_from_itself_and_a_better_one_does(guess):
    y, p = guess
    assert (evaluate.paired_difference(y, p, p, np.arange(200))[["value", "low", "high"]] == 0).all(axis=None)
    worse = np.random.default_rng(4).dirichlet(np.ones(4), 200)
    assert (evaluate.paired_difference(y, p, worse, np.arange(200)).low > 0).all()


def test_predictions_never_show_a_recipe_the_samples_it_is_tested_on():
    x, y, patients = np.arange(30.0)[:, None], np.arange(30) % 2, np.arange(30)

    def fit(x, y, patients, seed):
        return lambda new: np.stack([np.isin(new[:, 0], x[:, 0]), np.full(len(new), seed)], axis=1).astype(float)

    parts = [(0, np.arange(10, 30), np.arange(10)), (0, np.arange(10), np.arange(10, 20))]
    found = evaluate.predictions(fit, x, y, patients, parts, seed=5)
    assert found.shape == (1, 30, 2) and (found[0, :20, 0] == 0).all() and np.isnan(found[0, 20:]).all()
    assert (found[0, :10, 1] == 5).all() and (found[0, 10:20, 1] == 6).all()


def test_a_training_part_without_a_class_is_refused():
    with pytest.raises(CohortError, match="lacks class number 1"):
        evaluate.predictions(None, np.zeros((4, 1)), np.array([0, 0, 0, 1]), np.arange(4), [(0, np.arange(3), [3])])


def test_a_margin_compares_the_worst_of_one_group_with_the_best_of_the_other(guess):
    y, p = guess
    aucs = evaluate.class_aucs(y, p)[0]
    row = evaluate.with_intervals(y, p, np.arange(200), evaluate.class_margin([0, 1], [2, 3])).loc["margin"]
    assert row.value == pytest.approx(aucs[:2].min() - aucs[2:].max()) and row.low < row.value < row.high


def test_a_shuffled_recipe_sees_every_label_but_in_another_order():
    seen = {}

    def fit(x, y, patients, seed):
        seen[seed] = y

    evaluate.shuffled(fit)(None, np.arange(50), None, seed=1)
    assert sorted(seen[1]) == list(range(50)) and list(seen[1]) != list(range(50))


def test_both_macro_definitions_are_there_and_the_averaged_curve_is_not_below_on_a_small_test(guess):
    y, p = guess
    curves = evaluate.roc_curves(y[:40], p[:40], list("abcd"))
    areas = curves.groupby("curve").auc.first()
    assert areas[list("abcd")].to_numpy() == pytest.approx(evaluate.class_aucs(y[:40], p[:40])[0])
    assert areas["macro"] >= areas[list("abcd")].mean() - 1e-9


def test_a_share_comes_with_its_wilson_interval():
    value, low, high = evaluate.proportion(30, 54)
    assert (round(value, 4), round(low, 3), round(high, 3)) == (0.5556, 0.424, 0.680)


def test_an_auc_within_folds_never_ranks_two_folds_together():
    y, patients = np.tile([0, 1], 20), np.arange(40)
    score = np.where(y == 1, 0.6, 0.4) + np.where(np.arange(40) < 20, 0.5, 0.0)
    p = np.stack([np.column_stack([1 - score, score])] * 2)
    parts = [(r, np.arange(20) + 20 * (1 - k), np.arange(20) + 20 * k) for r in (0, 1) for k in (0, 1)]
    table = evaluate.with_intervals(y, p, patients, evaluate.within_folds(parts, 40))
    assert table.loc["AUC", "value"] == 1.0 and table.loc["AUC", "n"] == 40
    assert evaluate.weighted_auc(y == 1, score, np.ones((1, 40)))[0] < 1.0


def test_only_patients_with_a_prediction_are_counted():
    y, patients = np.tile([0, 1], 20), np.arange(40)
    p = np.full((1, 40, 2), np.nan)
    p[0, :10] = 0.5
    table = evaluate.with_intervals(y, p, patients, evaluate.within_folds([(0, np.arange(10, 40), np.arange(10))], 40))
    assert table.loc["AUC", "n"] == 10 and table.loc["AUC", "value"] == 0.5


def test_the_quick_metrics_are_those_of_the_slow_ones(guess):
    y, p = guess
    weights = np.vstack([np.ones(200), np.random.default_rng(1).integers(0, 3, 200)])
    slow, quick = evaluate.scores(y, p, weights), evaluate.accuracy_scores(y, p, weights)
    for metric, values in quick.items():
        assert values == pytest.approx(slow[metric])


def test_precision_and_recall_are_those_of_scikit_learn(guess):
    y, p = guess
    found = evaluate.class_rates(list("abcd"))(y, p, np.ones((1, 200)))
    precision, recall, _, _ = precision_recall_fscore_support(y, p.argmax(axis=1))
    assert [found[f"precision {c}"][0] for c in "abcd"] == pytest.approx(precision)
    assert [found[f"recall {c}"][0] for c in "abcd"] == pytest.approx(recall)


def test_a_class_that_is_never_called_has_no_precision():
    found = evaluate.class_rates(["a", "b"])(np.array([0, 1]), np.array([[0.9, 0.1]] * 2), np.ones((1, 2)))
    assert np.isnan(found["precision b"][0]) and found["recall b"][0] == 0


def test_confusion_counts_true_by_predicted_and_averages_repeats(guess):
    y, p = guess
    table = evaluate.confusion(y, p, list("abcd"))
    assert table.to_numpy() == pytest.approx(confusion_matrix(y, p.argmax(axis=1)))
    two = evaluate.confusion(y, np.stack([p, np.eye(4)[y]]), list("abcd"))
    assert two.to_numpy() == pytest.approx((table.to_numpy() + np.diag(np.bincount(y))) / 2)


@pytest.fixture
def apart():
    """Three classes that differ in their first genes, and two folds: x (90, 6), y, patients, parts."""
    y, patients = np.arange(90) % 3, np.arange(90)
    x = np.random.default_rng(3).normal(8, 1, (90, 6)).astype("float32")
    x[np.arange(90), y] += 3
    return x, y, patients, list(grouped_folds(y, patients, 2, seed=1))


@pytest.mark.parametrize("recipe", [multinomial_recipe(), multinomial_recipe((1e-3, 1e-1)), nearest_centroid_recipe()])
def test_models_that_are_kept_say_what_predictions_say(apart, recipe):
    x, y, patients, parts = apart
    models = evaluate.fitted(recipe, x, y, patients, parts, seed=2)
    said = evaluate.asked(models, x, parts)
    assert np.array_equal(said, evaluate.predictions(recipe, x, y, patients, parts, seed=2))
    assert (said[0].argmax(axis=1) == y).mean() > 0.85


def test_noise_lowers_accuracy_and_none_leaves_it(apart):
    x, y, patients, parts = apart
    models = {"one": evaluate.fitted(nearest_centroid_recipe(), x, y, patients, parts)}
    curve = evaluate.noise_curve(models, x, y, patients, parts, levels=(0, 1))
    clean = (evaluate.asked(models["one"], x, parts)[0].argmax(axis=1) == y).mean()
    assert curve.value.tolist()[0] == pytest.approx(clean) and curve.value[1] < clean - 0.2
    assert curve.columns.tolist() == ["model", "noise", "value", "low", "high", "n"]


def test_a_sample_that_a_repeat_does_not_test_weighs_nothing_there():
    y, patients = np.arange(20) % 2, np.array([f"P{k}" for k in range(20)])
    right = np.eye(2)[y]
    some = right.copy()
    some[:6] = np.nan
    found = evaluate.with_intervals(y, np.stack([some, right]), patients)
    assert found.loc["accuracy", "value"] == 1 and found.loc["macro AUC", "value"] == 1
    wrong = np.where(np.isnan(some), np.nan, 1 - some)
    assert evaluate.with_intervals(y, wrong, patients).loc["accuracy", ["value", "n"]].tolist() == [0, 14]


def test_cross_entropy_and_macro_auc_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    y, guess = np.arange(30) % 3, rng.dirichlet(np.ones(3), 30)
    ones = np.ones((1, 30))
    assert evaluate.cross_entropy(y, guess, ones)["cross-entropy"][0] == pytest.approx(log_loss(y, guess))
    area = roc_auc_score(y, guess, multi_class="ovr")
    assert evaluate.macro_auc(y, guess, ones)["macro AUC"][0] == pytest.approx(area)


def test_the_curve_of_few_samples_rises_with_them():
    rng = np.random.default_rng(1)
    y, patients = np.arange(120) % 2, np.array([f"P{k}" for k in range(120)])
    x = rng.standard_normal((120, 30)) + 0.6 * y[:, None]
    fit = {"linear": (fixed_ridge_recipe(), x)}
    curve = evaluate.few_samples_curve(fit, y, patients, (2, 30), 5, 0)
    area = curve[curve.metric == "macro AUC"].set_index("samples of each class").value
    assert list(area.index) == [2, 30] and 0.6 < area[2] < area[30]
    assert set(curve.metric) == {"accuracy", "balanced accuracy", "macro AUC", "micro AUC"}


def test_models_beside_one_are_measured_as_they_are_alone():
    rng = np.random.default_rng(0)
    y, patients = rng.integers(0, 3, 90), np.repeat(np.arange(45), 2)
    said = {name: rng.dirichlet(np.ones(3) + 2 * np.eye(3)[y].mean(axis=0), 90) for name in ("a", "b", "c")}
    alone, gaps = evaluate.beside_one(y, said, "b", patients, seed=3)
    for name, guess in said.items():
        pd.testing.assert_frame_equal(alone[name], evaluate.with_intervals(y, guess, patients, seed=3))
    assert set(gaps) == {"a", "c"}
    expected = evaluate.paired_difference(y, said["b"], said["c"], patients, seed=3)
    pd.testing.assert_frame_equal(gaps["c"], expected)
