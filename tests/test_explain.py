import numpy as np
import pytest

from gexlib import explain
from gexlib.models.cnn import cnn_1d
from gexlib.models.genexnet import genexnet
from gexlib.sources.simulated import simulate
from gexlib.training import keras


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
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    weights = np.random.default_rng(2).normal(size=(6, 3)).astype("float32")
    model.set_weights([weights, np.zeros(3, "float32")])
    gradients = explain.class_gradients(model, np.ones((20, 6), "float32"), output=1, batch=batch)
    assert gradients.shape == (20, 6) and gradients == pytest.approx(np.tile(weights[:, 1], (20, 1)))


@pytest.fixture(scope="module")
def network():
    """A small 1D-CNN with its start weights, 60 samples of 200 genes and their classes."""
    keras.utils.set_random_seed(4)
    rng = np.random.default_rng(4)
    return (
        cnn_1d(200, 3, kernel=20, filters=5, dense=8),
        rng.normal(size=(60, 200)).astype("float32"),
        np.arange(60) % 3,
    )


def by_hand(model, x, k):
    """Guided gradient of one logit of a 1D-CNN with max pooling, (genes,), in plain numpy."""
    (w1, b1), (w2, b2), (w3, _) = ([np.array(v) for v in layer.weights] for layer in model.layers if layer.weights)
    rows = x.reshape(10, 20)
    first = rows @ w1 + b1
    pairs = np.maximum(first, 0).reshape(5, 2, -1)
    dense = pairs.max(axis=1).ravel() @ w2 + b2
    back = w3[:, k] * (w3[:, k] > 0) * (dense > 0)
    back = (w2 @ back).reshape(5, 1, -1) * (pairs == pairs.max(axis=1, keepdims=True))
    back = back.reshape(10, -1)
    return ((back * (back > 0) * (first > 0)) @ w1.T).ravel()


def test_guided_gradients_are_those_computed_by_hand(network):
    model, x, y = network
    ours = explain.class_gradients(model, x, y, guided=True, batch=25)
    assert ours == pytest.approx(np.stack([by_hand(model, row, k) for row, k in zip(x, y, strict=True)]), abs=1e-5)
    plain = explain.class_gradients(model, x, y)
    assert np.abs(plain - ours).max() > 1e-3  # and the rectifiers are as before


def test_gradients_are_finite_differences(network):
    model, x, y = network
    step, gene = 1e-2, 37
    moved = x.copy()
    moved[:, gene] += step
    change = (np.array(model(moved)) - np.array(model(x)))[np.arange(60), y] / step
    gradient = explain.class_gradients(model, x, y)[:, gene]
    assert np.mean(np.isclose(change, gradient, atol=2e-2)) > 0.9  # a rectifier may open on the way


@pytest.mark.parametrize("modifier, change", [("absolute", np.abs), ("relu", lambda g: np.maximum(g, 0))])
def test_sums_are_those_of_scaled_maps_whatever_the_batch(network, modifier, change):
    model, x, y = network
    maps = change(explain.class_gradients(model, x, y, guided=True))
    low, high = maps.min(axis=1, keepdims=True), maps.max(axis=1, keepdims=True)
    maps = (maps - low) / (high - low + 1e-7)
    expected = np.stack([maps[y == k].sum(axis=0) for k in range(3)])
    for batch in (7, 60, 500):
        sums = explain.saliency_sums(model, x, y, modifier=modifier, batch=batch)
        assert sums == pytest.approx(expected, abs=1e-3)
    assert 0 <= sums.min() and sums.max() <= 20


def test_genes_that_a_fold_masked_get_no_saliency(network):
    model, x, y = network
    given = np.arange(200) >= 30
    sums = explain.saliency_sums(model, x, y, guided=False, genes=given)
    assert (sums[:, :30] == 0).all() and (sums[:, 30:].max(axis=1) > 0).all()


def test_genes_hidden_by_subsampling_have_exactly_no_saliency(network):
    _, x, y = network
    hidden = np.arange(200) // 20 % 2 == 1
    sums = explain.saliency_sums(cnn_1d(200, 3, kernel=20, pool="subsample"), x, y, guided=False)
    assert (sums[:, hidden] == 0).all() and (sums[:, ~hidden].sum(axis=0) > 0).all()


def test_integrated_gradients_of_a_linear_network_are_weight_times_way():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(6, 2)).astype("float32")
    model.set_weights([weights, np.zeros(2, "float32")])
    x, baseline = rng.normal(size=(1, 6)).astype("float32"), rng.normal(size=6).astype("float32")
    found = np.abs(weights[:, 1] * (x[0] - baseline))
    sums = explain.saliency_sums(model, x, np.array([1]), baseline=baseline)
    assert sums[1] == pytest.approx((found - found.min()) / (found.max() - found.min()), abs=1e-5)
    assert (sums[0] == 0).all()


def test_an_unknown_modifier_is_refused(network):
    with pytest.raises(ValueError, match="modifier is 'square'; expected one of absolute, relu"):
        explain.saliency_sums(*network, modifier="square")


def test_recovery_by_class_looks_at_each_classs_own_genes():
    planted = np.zeros((3, 40), bool)
    planted[0, :5] = planted[1, 5:10] = True  # the third class has none
    table = explain.recovery_by_class(planted + 0.0, planted, k=5)
    assert table.value.tolist() == [1.0, 1.0] and table.n.tolist() == [2, 2] and table.null.tolist() == [0.125, 0.5]
    swapped = explain.recovery_by_class(planted[[1, 0, 2]] + 0.0, planted, k=5)
    assert swapped.value["precision at 5"] == 0


@pytest.mark.parametrize("law", ["power law", "log-normal", "exponential"])
def test_the_law_that_scores_were_drawn_from_fits_best(law):
    rng, n = np.random.default_rng(0), 60_000
    drawn = {
        "power law": 0.01 * rng.random(n) ** (-1 / 1.5),
        "log-normal": np.exp(-2.5 + 0.6 * rng.standard_normal(n)),
        "exponential": rng.exponential(0.1, n),
    }[law]
    table = explain.tail_laws(drawn, lowest=0.05)
    assert table["log-likelihood"].idxmax() == law or abs(table["against power law"][law]) < 2
    if law != "power law":
        assert table["against power law"][law] > 5 and table.p[law] < 1e-6
    else:
        assert table["against power law"]["exponential"] < -5


def test_too_few_scores_have_no_law():
    with pytest.raises(ValueError, match="3 scores of at least 0.5; a law needs 20"):
        explain.tail_laws(np.array([0.1, 0.6, 0.7, 0.8]), 0.5)


def test_markers_that_differ_are_seen_and_a_class_without_markers_has_no_difference():
    rng, y = np.random.default_rng(0), np.arange(120) % 3
    x, markers = rng.normal(size=(120, 60)), np.zeros((3, 60), bool)
    markers[0, :5] = True
    x[np.ix_(y == 0, np.arange(5))] += 2
    table = explain.marker_differences(x, y, markers)
    assert table.markers.tolist() == [5, 0, 0, 5] and list(table.index) == [0, 1, 2, "all"]
    assert table.loc[0, "difference"] == pytest.approx(2, abs=0.3) and table.p[0] < 1e-3
    assert table.loc[0, "others"] < 0.4 and np.isnan(table.p[1])


@pytest.fixture(scope="module")
def genexnet_and_samples():
    model = genexnet(300, 4, theta_d=0.05, theta_r=0.2, theta_k=4, transitions=(True, False, False, False))
    return model, np.random.RandomState(2).standard_normal((6, 300)).astype(np.float32)


def test_the_class_activation_map_is_that_of_the_gradient(genexnet_and_samples):
    model, x = genexnet_and_samples
    layer, classes = model.get_layer("maps"), np.array([0, 1, 2, 3, 0, 1])
    maps = keras.ops.convert_to_numpy(keras.Model(model.input, layer.output)(x))
    tail, small = keras.Model(layer.output, model.output), 1e-2
    moved = np.empty((6, *maps.shape[1:]), np.float64)  # equation 7 by differences: a weight of 0.01 on every cell
    for place in np.ndindex(maps.shape[1:]):
        other = maps.copy()
        other[:, *place] += small
        change = (keras.ops.convert_to_numpy(tail(other)) - keras.ops.convert_to_numpy(tail(maps))) / small
        moved[:, *place] = change[np.arange(6), classes]
    importance = moved.mean(axis=(1, 2))
    theirs = np.maximum(np.einsum("nijk,nk->nij", maps, importance), 0)
    ours = explain.class_activation_maps(model, x, classes, batch=4)
    assert ours.max() > 0 and np.allclose(ours, theirs, atol=1e-4)


def test_gene_cam_gives_neighbours_of_a_pixel_one_value_and_the_guided_one_each_its_own(genexnet_and_samples):
    model, x = genexnet_and_samples
    chosen = explain.class_activation_maps(model, x, np.arange(6) % 4).reshape(6, -1).max(axis=1).argmax()
    x, output = x[[chosen]], int(chosen % 4)
    cam, guided = explain.gene_cam(model, x, output)[0], explain.gene_cam(model, x, output, guided=True)[0]
    assert cam.shape == (300,) and (cam >= 0).all() and cam.max() > 0
    assert np.array_equal(cam[::3], cam[1::3]) and np.array_equal(cam[::3], cam[2::3])
    gradient = np.abs(explain.class_gradients(model, x, output, guided=True))[0]
    assert np.allclose(guided, cam * gradient) and len(np.unique(guided)) > len(np.unique(cam))


def test_gene_cam_needs_a_genexnet():
    with pytest.raises(ValueError, match="has no layers maps, average and logits; Gene-CAM needs a GeneXNet"):
        explain.gene_cam(cnn_1d(300, 3), np.zeros((2, 300), np.float32), 0)


def test_scores_by_class_and_the_highest_of_each_row():
    scores = np.array([[1.0, 2, 3], [3, 4, 5], [0, 9, 0]])
    found = explain.mean_by_class(scores, np.array([0, 0, 2]), 3)
    assert np.array_equal(found[[0, 2]], [[2, 3, 4], [0, 9, 0]]) and np.isnan(found[1]).all()
    assert np.array_equal(explain.highest(np.array([[1, 3, 3], [np.nan, -1, 2]]), 1), [[0, 1, 0], [0, 0, 1]])
    assert not explain.highest(np.array([[0.0, 0, 0], [np.nan] * 3]), 2).any()
