from itertools import combinations

import numpy as np
import pytest

from gexlib.explain import selection_stability


def fits(number, genes, chosen, seed=0):
    """Independent fits, each of which selects gene g with probability chosen[g]."""
    return np.random.default_rng(seed).random((number, genes)) < chosen


def test_fits_that_agree_on_every_gene_are_perfectly_stable():
    found = selection_stability(np.tile([True, False, False, True, False], (6, 1)))
    assert found.to_dict() == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 6}


def test_fits_that_select_at_random_are_about_as_stable_as_chance():
    found = selection_stability(fits(200, 400, 0.1))
    assert abs(found.value) < 0.01 and found.low < 0 < found.high


def test_the_index_of_three_small_fits_is_that_worked_out_by_hand():
    selected = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]], bool)  # variances 0, 1/3, 1/3, 0; size 2 of 4
    assert selection_stability(selected).value == pytest.approx(1 - (2 / 3 / 4) / (1 / 2 * 1 / 2))


def test_with_equal_sizes_it_is_the_mean_agreement_of_pairs_beyond_chance():
    rng, genes, size = np.random.default_rng(3), 30, 7
    sets = [set(rng.permutation(12)[:size]) for _ in range(9)]
    selected = np.array([[gene in chosen for gene in range(genes)] for chosen in sets])
    chance = size**2 / genes
    pairs = [(len(one & other) - chance) / (size - chance) for one, other in combinations(sets, 2)]
    assert selection_stability(selected).value == pytest.approx(np.mean(pairs))


def test_the_interval_is_that_of_the_sum_written_out_gene_by_gene():
    selected = fits(11, 17, np.linspace(0.05, 0.9, 17), seed=5).astype(int)
    m, d = selected.shape
    p, k = selected.sum(axis=0) / m, selected.sum(axis=1)
    mean = k.sum() / m
    denominator = mean / d * (1 - mean / d)
    index = 1 - sum(np.var(selected[:, f], ddof=1) for f in range(d)) / d / denominator
    pulls = []
    for i in range(m):
        shared = sum(selected[i, f] * p[f] for f in range(d)) / d - k[i] * mean / d**2
        correction = index / 2 * (2 * mean * k[i] / d**2 - k[i] / d - mean / d + 1)
        pulls.append((shared + correction) / denominator)
    variance = 4 / m**2 * sum((pull - sum(pulls) / m) ** 2 for pull in pulls)
    found = selection_stability(selected)
    assert found.value == pytest.approx(index)
    assert found.value - found.low == pytest.approx(1.96 * np.sqrt(variance))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    chosen = np.where(np.arange(100) < 10, 0.7, 0.03)
    size = chosen.mean()
    truth = 1 - np.mean(chosen * (1 - chosen)) / (size * (1 - size))
    found = [selection_stability(fits(60, 100, chosen, seed)) for seed in range(300)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.90 <= covered <= 0.98


def test_fits_of_different_sizes_are_compared_without_favour():
    nested = np.arange(50) < np.array([[5], [10], [20]])
    assert 0 < selection_stability(nested).value < 1


@pytest.mark.parametrize(
    ("selected", "telling"),
    [
        (np.zeros((4, 9), bool), "all 4 fits select no gene"),
        (np.ones((4, 9), bool), "every gene"),
        (np.ones((1, 9), bool), "at least two fits"),
        (np.ones(9, bool), "at least two fits"),
    ],
)
def test_an_index_that_is_undefined_is_refused(selected, telling):
    with pytest.raises(ValueError, match=telling):
        selection_stability(selected)
