"""The pan-cancer networks: the published sizes, any number of genes, and what each pooling lets through."""

import numpy as np
import pytest

from gexlib.models.cnn import NETWORKS, cnn_1d, cnn_3layer, cnn_hybrid, cnn_vanilla, folded_shape
from gexlib.training import keras


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_variables)


@pytest.mark.parametrize(
    "build, classes, settings, size",
    [
        (cnn_1d, 33, {}, 211_489),
        (cnn_1d, 34, {"pool": "subsample"}, 211_618),
        (cnn_1d, 5, {"dense": 0}, 10_309),
        (cnn_vanilla, 33, {}, 1_420_737),
        (cnn_vanilla, 34, {}, 1_420_866),
        (cnn_vanilla, 33, {"stride": 1}, 5_721_537),
        (cnn_hybrid, 33, {}, 362_177),
        (cnn_hybrid, 34, {}, 362_306),
        (cnn_3layer, 33, {}, 26_211_233),
    ],
)
def test_sizes_are_those_of_the_published_code(build, classes, settings, size):
    assert trainable(build(7091, classes, **settings)) == size


@pytest.mark.parametrize("kernel", [50, 71, 100, 142])
def test_the_published_kernels_divide_the_padded_genes(kernel):
    model = cnn_1d(7100, 33, kernel=kernel)
    assert model.get_layer("convolution").kernel.shape == (kernel, 32)
    assert model.get_layer("dense").kernel.shape == (-(-7100 // kernel // 2) * 32, 128)


@pytest.mark.parametrize("genes, shape", [(7091, (100, 71)), (680, (31, 22)), (3567, (72, 50)), (1, (1, 1))])
def test_genes_fold_as_the_paper_folds_them(genes, shape):
    assert folded_shape(genes) == shape
    assert shape[0] * shape[1] >= genes


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_takes_any_number_of_genes(name):
    model = NETWORKS[name](301, 4)
    assert keras.ops.convert_to_numpy(model(np.zeros((2, 301), np.float32))).shape == (2, 4)


def test_the_row_product_is_the_strided_convolution():
    x = np.random.RandomState(0).standard_normal((3, 210)).astype(np.float32)
    model = cnn_1d(210, 4, kernel=21)
    kernel, bias = (keras.ops.convert_to_numpy(w) for w in model.get_layer("convolution").weights)
    theirs = keras.ops.conv(x[:, :, None], kernel[:, None, :], strides=21, padding="valid")
    rows = keras.Model(model.input, model.get_layer("convolution").output)
    theirs = np.maximum(keras.ops.convert_to_numpy(theirs) + bias, 0)
    assert np.allclose(keras.ops.convert_to_numpy(rows(x)).reshape(theirs.shape), theirs, atol=1e-5)
    limit = np.sqrt(6 / (21 + 21 * 32))  # Glorot's, of the convolution
    assert 0.9 * limit < np.abs(kernel).max() <= limit


def test_subsampling_hides_every_second_row_of_genes():
    x = np.random.RandomState(1).standard_normal((4, 300)).astype(np.float32)
    odd = np.arange(300) // 20 % 2 == 1
    other = np.where(odd, x + 5, x).astype(np.float32)
    for pool, hidden in (("subsample", True), ("max2", False)):
        model = cnn_1d(300, 3, kernel=20, pool=pool)
        one, two = (keras.ops.convert_to_numpy(model(values)) for values in (x, other))
        assert np.array_equal(one, two) == hidden


@pytest.mark.parametrize(
    "build, settings, sentence",
    [
        (cnn_1d, {"pool": "mean"}, "pool is 'mean'; expected one of max2, subsample"),
        (cnn_1d, {"kernel": 0}, "kernel=0: expected 1 or more"),
        (cnn_vanilla, {"genes": 60}, "60 genes fold to 9 x 7, too few for a 10 x 10 kernel"),
        (cnn_3layer, {"genes": 60}, "too few for three poolings"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(build, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(**{"genes": 300, "classes": 3} | settings)
