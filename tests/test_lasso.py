"""The LASSO path against glmnet's own numbers, against its optimality conditions, and at its edges."""

import json
import warnings

import numpy as np
import pytest
from make_glmnet_reference import KEPT, REFERENCE, STUDIES, small_cohort
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from gexlib.models import lasso
from gexlib.models.lasso import (
    LassoClassifier,
    cross_validate,
    fit_paths,
    held_out_probabilities,
    inner_fold_numbers,
    lasso_recipe,
    over_parts,
)
from gexlib.splits import grouped_folds

FAMILIES = {"binomial": "binomial", "gaussian": "squared error"}
MEASURES = {"deviance": "deviance", "auc": "auc", "mse": "deviance"}


@pytest.fixture(scope="module")
def cohort():
    return small_cohort()


def everyone(y):
    return np.ones((1, len(y)), bool)


def gradients(X, y, path, at, family="binomial"):
    """Gradient of the mean loss by each standardised coefficient, and those coefficients."""
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    eta = path.linear_predictor(X, at)
    p = 1 / (1 + np.exp(-eta)) if family == "binomial" else eta
    return z.T @ (y - p) / len(y), path.coefficients[at].toarray()[0] * X.std(axis=0)


@pytest.mark.parametrize("family, measure", STUDIES)
def test_path_and_cross_validation_are_those_of_glmnet(cohort, family, measure):
    X, y, folds = cohort
    r = json.loads(REFERENCE.read_text())[f"{family} {measure}"]
    (own,) = fit_paths(X, y, everyone(y), n_lambdas=2, family=FAMILIES[family])
    assert own.lambdas[0] == pytest.approx(r["largest"], rel=1e-6)
    (found,) = cross_validate(
        X, y, everyone(y), folds[None], r["lambdas"], family=FAMILIES[family], measure=MEASURES[measure]
    )
    assert found.mean == pytest.approx(r["mean"], abs=1e-3)
    assert found.error == pytest.approx(r["error"], abs=1e-3)
    assert [found.lambda_min, found.lambda_1se] == pytest.approx(r["chosen"], rel=1e-6)
    for at in KEPT:
        theirs, ours = np.array(r["coefficients"][str(at)]), found.path.coefficients[at].toarray()[0]
        assert np.abs(ours - theirs[1:]).max() < 1e-3 * np.abs(theirs[1:]).max()
        assert found.path.intercepts[at] == pytest.approx(theirs[0], abs=1e-3 * np.abs(theirs).max())
        assert set(np.flatnonzero(ours)) == set(np.flatnonzero(theirs[1:]))


@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("family", ["binomial", "squared error"])
def test_every_solution_meets_its_optimality_conditions(cohort, family, alpha):
    X, y, _ = cohort
    (path,) = fit_paths(X, y, everyone(y), alpha=alpha, family=family)
    for at in (5, 40, 99):
        slope, beta = gradients(X, y, path, at, family)
        value = path.lambdas[at]
        slope -= value * (1 - alpha) * beta
        assert np.abs(slope[beta != 0] - alpha * value * np.sign(beta[beta != 0])).max() < 2e-4 * value
        assert np.abs(slope[beta == 0]).max() <= alpha * value * (1 + 2e-4)
        assert (beta != 0).any()


def test_training_sets_solved_together_equal_each_solved_alone(cohort):
    X, y, folds = cohort
    masks = np.stack([folds != k for k in range(4)])
    together = fit_paths(X, y, masks)
    for mask, path in zip(masks, together, strict=True):
        (alone,) = fit_paths(X[mask], y[mask], everyone(y[mask]))
        assert path.lambdas == pytest.approx(alone.lambdas, rel=1e-6)
        largest = np.abs(alone.coefficients.toarray()).max(axis=1, initial=1e-9)
        gap = np.abs((path.coefficients - alone.coefficients).toarray()).max(axis=1)
        assert (gap < 2e-3 * largest).all()


def test_the_number_of_threads_changes_nothing(cohort):
    X, y, folds = cohort
    one, two = (cross_validate(X, y, everyone(y), folds[None], threads=t)[0] for t in (1, 2))
    assert (one.mean == two.mean).all() and (one.path.coefficients != two.path.coefficients).nnz == 0


def test_float32_genes_give_the_solution_of_float64(cohort):
    X, y, folds = cohort
    double, single = (cross_validate(x, y, everyone(y), folds[None])[0] for x in (X, X.astype(np.float32)))
    assert single.best == double.best and list(single.genes()) == list(double.genes())
    assert single.mean == pytest.approx(double.mean, abs=1e-4)


@pytest.mark.parametrize("measure", ["deviance", "auc"])
def test_ending_the_path_early_does_not_change_the_choice(cohort, measure):
    X, y, folds = cohort
    full, early = (
        cross_validate(X, y, everyone(y), folds[None], measure=measure, end_early=end)[0] for end in (False, True)
    )
    assert (early.best, early.best_1se) == (full.best, full.best_1se)
    assert len(early.path.lambdas) < 100
    assert early.predictor == pytest.approx(full.predictor, abs=1e-6)


def test_lambdas_are_sorted_where_they_are_not(cohort):
    X, y, _ = cohort
    (path,) = fit_paths(X, y, everyone(y), [0.01, 0.1, 0.03])
    assert list(path.lambdas) == [0.1, 0.03, 0.01]
    assert (np.diff(path.coefficients.getnnz(axis=1)) > 0).all()


def test_a_single_small_lambda_from_a_cold_start_is_solved(cohort):
    X, y, _ = cohort
    (path,) = fit_paths(X, y, everyone(y), [0.005])
    slope, beta = gradients(X, y, path, 0)
    assert np.abs(slope[beta != 0] - 0.005 * np.sign(beta[beta != 0])).max() < 1e-5


def test_predictions_for_rows_outside_a_training_set_come_with_the_fit(cohort):
    X, y, folds = cohort
    train = folds < 7
    (found,) = cross_validate(X, y, train[None], np.where(train, folds, -1)[None])
    assert found.predictor[:, 0] == pytest.approx(found.path.linear_predictor(X, found.best), abs=1e-8)
    assert roc_auc_score(y[~train], found.predictor[~train, 0]) > 0.6


def test_a_test_sample_never_touches_the_fit(cohort):
    X, y, folds = cohort
    train = folds < 7
    inner, other = np.where(train, folds, -1)[None], X.copy()
    other[~train] = 100 - 3 * other[~train]
    one, two = (cross_validate(x, t, train[None], inner)[0] for x, t in ((X, y), (other, np.where(train, y, 1 - y))))
    assert one.best == two.best and list(one.genes()) == list(two.genes())
    first, second = (found.path.coefficients[found.best].toarray() for found in (one, two))
    assert np.abs(first - second).max() < 1e-3 * np.abs(first).max()


def test_more_samples_than_genes_and_a_single_gene():
    rng = np.random.RandomState(1)
    X = rng.standard_normal((200, 5))
    y = (X[:, 0] + rng.standard_normal(200) > 0).astype(int)
    (path,) = fit_paths(X, y, everyone(y))
    assert path.lambdas[-1] == pytest.approx(1e-4 * path.lambdas[0]) and path.coefficients[-1].nnz == 5
    (path,) = fit_paths(X[:, :1], y, everyone(y))
    assert path.coefficients[-1].toarray()[0, 0] == pytest.approx(1.5, abs=0.6)


@pytest.mark.filterwarnings("error")
def test_a_path_arrives_where_correlated_genes_come_to_separate_the_classes():
    rng = np.random.RandomState(1)
    Z = rng.standard_normal((240, 12)) @ rng.standard_normal((12, 160)) + 0.3 * rng.standard_normal((240, 160))
    X = np.clip(6 + Z, 0, None)
    X[:, 1], X[:, 2] = X[:, 0], X[:, 3] + 1e-4 * rng.standard_normal(240)
    y = (rng.standard_normal(240) + 0.3 * Z[:, 0] > 1).astype(int)
    (path,) = fit_paths(X, y, everyone(y))
    assert ((path.linear_predictor(X, 99) > 0) == y).all()
    for at in (50, 99):
        gradient, beta = gradients(X, y, path, at)
        assert np.abs(gradient).max() <= path.lambdas[at] * 1.001
        active = beta != 0
        assert gradient[active] == pytest.approx(path.lambdas[at] * np.sign(beta[active]), rel=1e-3)


def test_constant_genes_are_never_chosen_and_are_counted(cohort):
    X, y, folds = cohort
    X = X.copy()
    X[:, [3, 5]] = 7.25
    X[folds != 0, 4] = 1.0  # constant in one training set only
    model = LassoClassifier(folds=5).fit(X, y)
    assert model.constant_genes_ == 2 and (model.coef_[0, [3, 5]] == 0).all()
    (path,) = fit_paths(X, y, (folds != 0)[None])
    assert path.coefficients[:, 4].nnz == 0


def test_separable_classes_keep_finite_coefficients_and_a_warning():
    rng = np.random.RandomState(2)
    y = np.arange(60) % 2
    X = rng.standard_normal((60, 30))
    X[:, 0] += 20 * y
    with pytest.warns(UserWarning, match="perfectly separated"):
        model = LassoClassifier(folds=5).fit(X, y)
    assert np.isfinite(model.coef_).all() and (model.predict(X) == y).all()


def test_the_estimator_keeps_to_scikit_learns_manners(cohort):
    X, y, _ = cohort
    names = np.array(["alive", "dead"])[y]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = clone(LassoClassifier(folds=5, seed=3)).fit(X, names)
    assert model.get_params()["seed"] == 3 and list(model.classes_) == ["alive", "dead"]
    assert model.predict_proba(X).sum(axis=1) == pytest.approx(1.0)
    assert set(model.predict(X)) <= {"alive", "dead"}
    assert (model.coef_ != 0).sum() == len(model.cross_validation_.genes())
    assert roc_auc_score(y, model.predict_proba(X)[:, 1]) > 0.7


def test_groups_stay_in_one_inner_fold():
    groups = np.repeat(np.arange(40), 3)
    folds = inner_fold_numbers(groups % 2, groups, 5, seed=0)
    assert all(len(set(folds[groups == g])) == 1 for g in range(40)) and set(folds) == set(range(5))


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda a: a["X"].__setitem__((4, 7), np.nan), "row 4, column 7"),
        (lambda a: a.update(y=a["y"] * 0), "training set 0: 150 samples of one class"),
        (lambda a: a.update(y=a["y"] + 1), "expected 0 and 1"),
        (lambda a: a.update(lambdas=[0.1, -0.1]), "positive"),
        (lambda a: a.update(lambdas=[]), "positive"),
        (lambda a: a.update(alpha=0.0), "linear.ridge"),
        (lambda a: a.update(family="cox"), "family is 'cox'"),
        (lambda a: a.update(measure="accuracy"), "measure is 'accuracy'"),
        (lambda a: a.update(y=a["y"][:-1]), "expected the same samples"),
        (lambda a: a["inner_folds"].__setitem__(slice(None), 0), "1 inner fold"),
        (lambda a: a["X"].__setitem__(slice(None), 1.0), "every gene is constant"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(cohort, change, sentence):
    X, y, folds = cohort
    arguments = {"X": X.copy(), "y": y, "train_masks": everyone(y), "inner_folds": folds[None].copy()}
    change(arguments)
    with pytest.raises(ValueError, match=sentence):
        cross_validate(**arguments)


def test_too_few_cases_for_the_inner_folds_names_the_fold_and_the_count(cohort):
    X, y, folds = cohort
    y = np.zeros_like(y)
    y[:3] = 1
    masks, inner = np.stack([folds < 9, folds != 0]), np.stack([folds, np.where(np.arange(150) < 3, 1, folds)])
    with pytest.raises(ValueError, match=r"training set 1: all samples outside inner fold 1 .* \(3 cases among"):
        cross_validate(X, y, masks, inner)
    with pytest.raises(ValueError, match="class '1' has 3 patients, fewer than 10 folds"):
        LassoClassifier().fit(X, y)
    with pytest.raises(ValueError, match="holds 1 classes"):
        LassoClassifier().fit(X, y * 0)
    with pytest.raises(ValueError, match="choice is 'best'"):
        LassoClassifier(choice="best").fit(X, y)


def test_a_batch_of_training_sets_equals_one_at_a_time(cohort, monkeypatch):
    X, y, folds = cohort
    masks = np.stack([folds != k for k in range(3)])
    inner = np.where(masks, (folds + 1) % 5, -1)
    seen = []
    batched = cross_validate(X, y, masks, inner, end_early=True, progress=lambda *done: seen.append(done))
    monkeypatch.setattr(lasso, "SETS_AT_ONCE", 1)
    single = cross_validate(X, y, masks, inner, end_early=True)
    assert seen == [(3, 3)]
    for one, other in zip(batched, single, strict=True):
        assert one.best == other.best and one.mean == pytest.approx(other.mean, abs=1e-6)


def test_a_signature_is_never_empty(cohort):
    X, y, folds = cohort
    (found,) = cross_validate(X, np.random.RandomState(3).permutation(y), everyone(y), folds[None])
    assert len(found.genes()) == 0 or found.best > 0
    assert len(found.signature) > 0


def test_parts_of_a_repeated_cross_validation_give_test_probabilities(cohort):
    X, y, _ = cohort
    patients = np.repeat(np.arange(75), 2)
    parts = list(grouped_folds(y[::2].repeat(2), patients, 3, repeats=2, seed=0))
    fits = over_parts(X, y[::2].repeat(2), patients, parts, inner_folds=4, end_early=True)
    said = held_out_probabilities(fits, parts, len(y))
    assert said.shape == (2, 150, 2) and said.sum(axis=2) == pytest.approx(np.ones((2, 150)))
    first = lasso_recipe(4)(X[parts[0][1]], y[::2].repeat(2)[parts[0][1]], patients[parts[0][1]], 0)
    assert said[0, parts[0][2]] == pytest.approx(first(X[parts[0][2]]), abs=1e-6)
