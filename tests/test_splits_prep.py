import numpy as np
import pandas as pd
import pytest

from gexlib import CohortError
from gexlib.prep import LowInformationFilter, clinical_matrix, scaler, with_noise
from gexlib.sources.simulated import simulate
from gexlib.splits import (
    few_per_class,
    given_split,
    grouped_folds,
    inner_split,
    need_every_class,
    parts_within,
    plain_split,
    thinned,
)


@pytest.fixture
def cohort():
    return simulate("neuroblastoma", n=60, genes=100)


def test_grouped_folds_test_every_sample_once_a_repeat_and_split_no_patient():
    patients = np.repeat([f"p{i}" for i in range(40)], 2)
    y = np.repeat(["a", "b"] * 20, 2)
    tested = np.zeros((2, 80), int)
    for repeat, train, test in grouped_folds(y, patients, folds=4, repeats=2, seed=1):
        assert not set(patients[train]) & set(patients[test])
        tested[repeat, test] += 1
    assert (tested == 1).all()


def test_repeats_differ_and_a_seed_repeats_them():
    y, patients = np.array(["a", "b"] * 20), np.arange(40)
    first, second = [[tuple(t) for _, _, t in grouped_folds(y, patients, 4, 2, seed=s)] for s in (5, 5)]
    assert first == second and first[:4] != first[4:]


def test_a_class_with_fewer_patients_than_folds_is_named():
    y = np.array(["4"] * 20 + ["4S"] * 3)
    with pytest.raises(CohortError, match="class '4S' has 3 patients, fewer than 5 folds"):
        next(grouped_folds(y, np.arange(23), folds=5))
    with pytest.raises(CohortError, match="class 'rare' has 1 patients, fewer than 5 folds; leave the class out"):
        next(grouped_folds(np.array(["4"] * 20 + ["rare"]), np.arange(21), folds=5))


def test_samples_of_one_patient_do_not_count_as_patients():
    y, patients = np.array(["a"] * 10 + ["b"] * 6), np.array([*range(10), 10, 10, 10, 11, 11, 11])
    with pytest.raises(CohortError, match="class 'b' has 2 patients"):
        next(grouped_folds(y, patients, folds=3))


def test_the_inner_split_stays_inside_and_shrinks_its_folds_for_a_rare_class():
    y, patients = np.array([0] * 30 + [1] * 3), np.arange(33)
    fit, stop = inner_split(y, patients, seed=0)
    assert sorted([*fit, *stop]) == list(range(33)) and (y[stop] == 1).sum() == 1


def test_the_plain_split_has_scikit_learns_size():
    train, test = plain_split(280, 0.2, seed=0)
    assert (len(train), len(test)) == (224, 56)


def test_a_given_split_follows_its_column(cohort):
    cohort.obs["half"] = ["Training", "Validation"] * 30
    train, test = given_split(cohort, "half", "Training")
    assert list(train) == list(range(0, 60, 2)) and list(test) == list(range(1, 60, 2))


@pytest.mark.parametrize(
    ("column", "value", "telling"),
    [("hlf", "Training", "no column 'hlf'.*half"), ("half", "train", "for 0 of 60 samples.*Training")],
)
def test_a_given_split_that_does_not_exist_is_refused(cohort, column, value, telling):
    cohort.obs["half"] = ["Training", "Validation"] * 30
    with pytest.raises(CohortError, match=telling):
        given_split(cohort, column, value)


def test_a_given_split_that_tears_a_patient_apart_is_refused(cohort):
    cohort.obs["half"], cohort.obs["patient"] = ["Training", "Validation"] * 30, ["twin", "twin", *range(58)]
    cohort.obs["patient"] = cohort.obs["patient"].astype(str)
    with pytest.raises(CohortError, match="1 patients are on both sides of 'half', such as 'twin'"):
        given_split(cohort, "half", "Training")


def test_the_scaler_learns_from_training_samples_alone(cohort):
    train, test = cohort.X[:40], cohort.X[40:]
    z = scaler(True).fit(train).transform(test)
    assert z == pytest.approx((test - train.mean(axis=0)) / train.std(axis=0), abs=1e-3)
    assert np.array_equal(scaler(False).fit(train).transform(test), test)


def test_a_constant_gene_scales_to_zero_without_a_warning(recwarn):
    x = np.column_stack([np.full(9, 7.0), np.arange(9.0)])
    assert (scaler(True).fit_transform(x)[:, 0] == 0).all() and not recwarn


def test_clinical_columns_become_numbers_and_a_missing_word_its_own_level():
    obs = pd.DataFrame({"age": [0.0, 3.0, 1023.0], "mycn": pd.Categorical(["normal", None, "amplified"])})
    features = clinical_matrix(obs, ["age", "mycn"])
    assert features["age"].tolist() == [0.0, 2.0, 10.0]
    assert features.filter(like="mycn").sum(axis=1).tolist() == [1, 1, 1] and features["mycn_missing"].tolist() == [
        0,
        1,
        0,
    ]


def test_a_missing_number_becomes_zero_beside_a_column_that_says_so():
    features = clinical_matrix(pd.DataFrame({"age": [1.0, np.nan]}), ["age"])
    assert features.to_dict("list") == {"age": [1.0, 0.0], "age_missing": [0.0, 1.0]}


def test_a_blank_in_the_split_column_is_on_neither_side(cohort):
    cohort.obs["half"] = ["Training", "Validation", None] * 20
    train, test = given_split(cohort, "half", "Training")
    assert len(train) == len(test) == 20


def test_a_part_without_a_class_is_named():
    labels = pd.Series(["1", "1", "4S"])
    with pytest.raises(CohortError, match="training part holds no '4S'"):
        need_every_class(labels, {"training": np.array([0, 1])})


@pytest.mark.parametrize(
    ("column", "telling"), [("agee", "no clinical column 'agee'.*age"), ("age", "negative numbers")]
)
def test_clinical_columns_that_cannot_serve_are_named(column, telling):
    with pytest.raises(CohortError, match=telling):
        clinical_matrix(pd.DataFrame({"age": [1.0, -2.0]}), [column])


def test_folds_within_some_samples_point_at_the_same_samples():
    parts, rows = (
        [(0, np.array([0, 1, 4]), np.array([2, 3])), (1, np.array([2, 3]), np.array([0, 1, 4]))],
        np.array([4, 1, 2]),
    )
    inside = parts_within(parts, rows)
    for (repeat, *sides), (again, *found) in zip(parts, inside, strict=True):
        assert repeat == again
        assert [set(rows[part]) for part in found] == [set(part) & set(rows) for part in sides]


def test_thinning_takes_samples_of_one_kind_from_training_alone_and_by_patient():
    patients, some = np.repeat(np.arange(30), 2), np.arange(60) < 40
    parts = [(0, np.arange(50), np.arange(50, 60))]
    ((repeat, train, test),) = thinned(parts, some, patients, share=0.25, seed=1)
    assert repeat == 0 and list(test) == list(range(50, 60))
    assert some[train].sum() == 10 and (~some[train]).sum() == 10
    assert (np.bincount(patients[train[some[train]]])[np.unique(patients[train[some[train]]])] == 2).all()


def test_the_low_information_filter_learns_from_what_it_is_given_and_masks():
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(3, 1, 50), rng.normal(3, 0.1, 50), rng.normal(0, 1, 50)], axis=1).astype("float32")
    fitted = LowInformationFilter().fit(x)
    assert fitted.kept_.tolist() == [True, False, False]
    new = np.full((4, 3), 7, "float32")
    assert fitted.transform(new).tolist() == [[7, 0, 0]] * 4 and new.min() == 7
    assert fitted.transform(new).dtype == np.float32


def test_a_filter_that_nothing_passes_says_what_to_do():
    with pytest.raises(CohortError, match="no gene has a mean of 0.5 and an SD of 0.8; lower them"):
        LowInformationFilter().fit(np.zeros((5, 3)))


def test_noise_has_the_stated_size_is_clipped_and_grows_along_the_same_draws():
    x, means = np.full((4000, 2), 20, "float32"), np.array([20.0, 2.0])
    one, two = with_noise(x, means, 0.1, 3), with_noise(x, means, 0.2, 3)
    assert (one - x).std(axis=0) == pytest.approx([2, 0.2], rel=0.05)
    assert two - x == pytest.approx(2 * (one - x), abs=1e-4)
    assert with_noise(x, means, 5, 3).min() == 0 and np.array_equal(with_noise(x, means, 0, 3), x)


def test_few_per_class_takes_one_sample_of_a_patient_and_tests_no_relative():
    patients = np.array([f"P{k // 2}" for k in range(40)])  # a tumour and a normal of each
    y = np.arange(40) % 2
    parts = few_per_class(y, patients, 4, 6, 0)
    assert [draw for draw, *_ in parts] == list(range(6))
    for _, train, test in parts:
        assert list(np.bincount(y[train])) == [4, 4] and len(set(patients[train])) == 8
        assert not set(patients[train]) & set(patients[test]) and len(test) == 40 - 16
    assert len({tuple(train) for _, train, _ in parts}) > 1
    assert np.array_equal(few_per_class(y, patients, 4, 6, 0)[2][1], parts[2][1])
    with pytest.raises(CohortError, match="class '1' has 9 patients to draw 11 from; draw fewer"):
        few_per_class(y, patients, 11, 1, 0)
