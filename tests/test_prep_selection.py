import numpy as np
import pytest
from scipy.stats import ttest_ind

from gexlib import CohortError
from gexlib.prep import t_test_correlation, welch_p_values


@pytest.fixture(scope="module")
def correlated():
    """200 samples x 300 genes in ten co-expressed groups; the first 90 genes differ between the classes."""
    rng = np.random.RandomState(0)
    y = (np.arange(200) % 5 == 0).astype(int)
    x = 0.8 * rng.standard_normal((200, 10))[:, np.arange(300) % 10] + rng.standard_normal((200, 300))
    x[:, :90] += 0.9 * y[:, None]
    return x.astype(np.float32), y


def naive_choice(x, y, target, p):
    """The same rule with one gene and one pair at a time."""
    p_values = [ttest_ind(x[y == 1, g].astype(float), x[y == 0, g].astype(float), equal_var=False).pvalue
                for g in range(x.shape[1])]  # fmt: skip
    passed = sorted((g for g in range(x.shape[1]) if p_values[g] < p), key=lambda g: p_values[g])
    threshold, kept = 0.90, passed
    while len(kept) > target:
        kept = []
        for gene in passed:
            if all(abs(np.corrcoef(x[:, gene], x[:, other])[0, 1]) <= threshold for other in kept):
                kept.append(gene)
        threshold = round(threshold - 0.05, 2)
    return kept


def test_the_p_values_are_those_of_scipys_welch_test(correlated):
    x, y = correlated
    expected = ttest_ind(x[y == 1].astype(float), x[y == 0].astype(float), equal_var=False).pvalue
    assert welch_p_values(x, y) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("target", [3, 10, 30])
def test_the_choice_is_that_of_a_naive_loop(correlated, target):
    chosen = t_test_correlation(*correlated, target)
    assert 0 < len(chosen) <= target and list(chosen) == naive_choice(*correlated, target, 0.001)


def test_fewer_survivors_than_the_target_are_all_kept_in_the_order_of_their_p_values(correlated):
    p_values = welch_p_values(*correlated)
    chosen = t_test_correlation(*correlated, 250)
    assert set(chosen) == set(np.flatnonzero(p_values < 0.001)) and (np.diff(p_values[chosen]) >= 0).all()


def test_where_no_gene_passes_the_ten_smallest_p_values_are_kept():
    rng = np.random.RandomState(1)
    x, y = rng.standard_normal((60, 40)), np.arange(60) % 2
    p_values = welch_p_values(x, y)
    assert p_values.min() > 1e-6
    assert list(t_test_correlation(x, y, 25, p=1e-6)) == list(np.argsort(p_values)[:10])
    assert len(t_test_correlation(x, y, 4, p=1e-6)) == 4


def test_copies_of_one_gene_leave_one(correlated):
    x, y = correlated
    copies = np.repeat(x[:, :1], 5, axis=1) + np.arange(5, dtype=np.float32)
    assert len(t_test_correlation(copies, y, 3, p=0.05)) == 1


def test_a_constant_gene_is_never_chosen_and_one_that_is_constant_within_each_class_always_is(correlated):
    x, y = correlated
    x = np.column_stack([x, np.full(200, 7.0), 3.0 * y])
    p_values = welch_p_values(x, y)
    assert p_values[300] == 1 and p_values[301] == 0 and t_test_correlation(x, y, 20)[0] == 301


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(200, int), "found 200 of class 0"),
        (np.arange(200) % 3, "classes 0 and 1.*66 of class 2"),
        (np.r_[1, np.zeros(199, int)], "1 of class 1"),
    ],
)
def test_labels_that_are_not_two_classes_are_named(correlated, y, message):
    with pytest.raises(CohortError, match=message):
        t_test_correlation(correlated[0], y, 10)


def test_a_missing_value_and_a_target_of_nothing_are_refused(correlated):
    x, y = correlated
    with pytest.raises(CohortError, match="target=0"):
        t_test_correlation(x, y, 0)
    with pytest.raises(CohortError, match="gene number 2 holds a value that is not finite"):
        t_test_correlation(np.where(np.arange(300) == 2, np.nan, x), y, 10)
