import numpy as np
import pytest

from gexlib import explain
from gexlib.sources.simulated import simulate


def test_a_perfect_ranking_recovers_everything_and_a_reversed_one_nothing():
    planted = np.arange(200) < 40
    perfect = explain.recovery(np.arange(200.0)[::-1], planted, k=40)
    assert perfect.value.tolist() == [1.0, 1.0] and perfect.null.tolist() == [0.2, 0.5]
    assert explain.recovery(np.arange(200.0), planted, k=40).value.tolist() == [0.0, 0.0]


def test_a_random_ranking_recovers_about_the_null_within_its_interval():
    rng = np.random.default_rng(0)
    table = explain.recovery(rng.random(1000), rng.random(1000) < 0.2, k=100)
    assert ((table.low <= table.null) & (table.null <= table.high)).all()


def test_one_vs_rest_t_points_at_the_class_and_is_zero_for_a_constant_gene():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(90, 3)), np.arange(90) % 3
    x[y == 2, 1] += 3
    x[:, 2] = 5
    t = explain.one_vs_rest_t(x, y)
    assert t.shape == (3, 3) and t[2, 1] > 8 and (t[:, 2] == 0).all()


def test_pairs_of_stages_with_planted_genes_have_more_significant_genes_than_those_without():
    cohort = simulate("neuroblastoma", n=600, genes=300)
    y = cohort.obs["inss_stage"].cat.codes.to_numpy()
    pairs = explain.compare_pairs(cohort.X, y, list("12345")).set_index(["first", "second"])
    assert len(pairs) == 10 and pairs.genes[("1", "4")] > 20 > pairs.genes[("1", "2")]


@pytest.mark.parametrize("batch", [7, 256])
def test_gradients_of_a_linear_network_are_its_weights(batch):
    from gexlib.training import keras

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    weights = np.random.default_rng(2).normal(size=(6, 3)).astype("float32")
    model.set_weights([weights, np.zeros(3, "float32")])
    gradients = explain.class_gradients(model, np.ones((20, 6), "float32"), output=1, batch=batch)
    assert gradients.shape == (20, 6) and gradients == pytest.approx(np.tile(weights[:, 1], (20, 1)))
