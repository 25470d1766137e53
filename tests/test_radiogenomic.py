"""The imaging networks: the same as Keras', whoever stands beside them, and explained as the paper says."""

import numpy as np
import pytest

from gexlib.explain import class_gradients
from gexlib.models import radiogenomic
from gexlib.models.radiogenomic import (
    Fit,
    ImagingSettings,
    autoencode,
    imaging_network,
    published_settings,
    train_each,
)
from gexlib.training import keras

WIDTHS, EPOCHS = (8, 6, 4), 3
GENES, ROWS = 20, 47  # 47 rows in steps of 10 leave a short last step


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    x = (3 + 2 * rng.standard_normal((ROWS, GENES))).astype(np.float32)
    return x, (x[:, 0] + x[:, 1] > 6).astype(int)


@pytest.fixture(scope="module")
def encoder():
    x = np.random.default_rng(2).standard_normal((60, 3)) @ np.random.default_rng(3).standard_normal((3, GENES))
    return autoencode(x.astype(np.float32), WIDTHS, epochs=200, batch=20, seed=4)


def test_the_published_network_has_its_size():
    assert imaging_network(12042, ImagingSettings()).count_params() == 58_190_001 + 2 * 7000  # with moving statistics


def test_the_published_code_freezes_the_first_layer_of_four_traits_and_tunes_all_of_two():
    settings = published_settings()
    assert {name for name, s in settings.items() if s.frozen == 1} == {"nCET", "necrosis", "edema", "infiltrative"}
    assert {name for name, s in settings.items() if s.taken == 3 and not s.frozen} == {"enhancing", "multifocal"}


@pytest.mark.parametrize("optimizer", ["adadelta", "adam", "nadam"])
def test_it_trains_as_keras_does(data, optimizer):
    x, y = data
    settings = ImagingSettings(WIDTHS, optimizer=optimizer)
    course = train_each(x, y, [Fit(np.arange(ROWS), settings, 5)], epochs=EPOCHS)[0]
    z, rng = course.scaled(x), np.random.RandomState(5)
    sizes = [GENES, *WIDTHS, 1]
    start = [radiogenomic._glorot(rng, *pair) for pair in zip(sizes, sizes[1:], strict=False)]
    order, _ = radiogenomic._orders(np.arange(ROWS), ROWS, EPOCHS, 10, rng)
    model = imaging_network(GENES, settings)
    for layer, arrays in zip([la for la in model.layers if isinstance(la, keras.layers.Dense)], start, strict=True):
        layer.set_weights(arrays)
    made = {
        "adadelta": keras.optimizers.Adadelta(1.0),
        "adam": keras.optimizers.Adam(),
        "nadam": keras.optimizers.Nadam(),
    }
    model.compile(made[optimizer], keras.losses.BinaryCrossentropy(from_logits=True))
    weight = np.where(y == 1, ROWS / (2 * y.sum()), ROWS / (2 * (1 - y).sum()))
    for epoch in range(EPOCHS):
        for rows in order[epoch]:
            rows = rows[rows < ROWS]
            model.train_on_batch(z[rows], y[rows, None], sample_weight=weight[rows])
        said = keras.ops.convert_to_numpy(model(z, training=False))
        np.testing.assert_allclose(course.logits[epoch], said, atol=2e-3)


def test_the_autoencoder_reconstructs_what_has_few_factors_and_not_what_has_none(encoder):
    few = np.random.default_rng(5).standard_normal((40, 3)) @ np.random.default_rng(3).standard_normal((3, GENES))
    assert encoder.losses[-1] < 0.6 * encoder.losses[0]
    assert encoder.explained(few) > 0.5
    assert encoder.explained(np.random.default_rng(6).standard_normal((40, GENES))) < 0.3


def test_the_keras_network_says_the_same(data):
    x, y = data
    for outputs, labels in ((1, y), (3, np.arange(ROWS) % 3)):
        course = train_each(x, labels, [Fit(np.arange(40), ImagingSettings(WIDTHS, dropout=0.3), 1)], epochs=EPOCHS)[0]
        said = keras.ops.convert_to_numpy(course.network()(course.scaled(x), training=False))
        assert said.shape == (ROWS, outputs)
        np.testing.assert_allclose(course.logits[-1], said, atol=1e-5)


def test_a_frozen_layer_stays_and_may_be_computed_once(data, encoder):
    x, y = data
    settings = ImagingSettings(WIDTHS, taken=2, frozen=1)
    course = train_each(x, y, [Fit(np.arange(ROWS), settings, 1, encoder=encoder)], epochs=EPOCHS)[0]
    np.testing.assert_array_equal(course.dense[0][0], encoder.dense[0][0])
    assert np.abs(course.dense[1][0] - encoder.dense[1][0]).max() > 1e-3
    said = keras.ops.convert_to_numpy(course.network()(course.scaled(x), training=False))
    np.testing.assert_allclose(course.logits[-1], said, atol=1e-4)
    np.testing.assert_array_equal(course.mean, encoder.mean)  # scaled as the autoencoder was, as published


def test_the_weights_kept_are_those_of_the_epoch_asked_for(data):
    x, y = data
    early, last = train_each(
        x, y, [Fit(np.arange(ROWS), ImagingSettings(WIDTHS), 2, keep) for keep in (1, None)], epochs=6
    )
    np.testing.assert_array_equal(early.logits, last.logits)
    assert (early.kept, last.kept) == (1, 5)
    for course in (early, last):
        np.testing.assert_allclose(course.masked(x, [np.arange(GENES)])[0], course.logits[course.kept], atol=1e-4)
    assert np.abs(early.dense[0][0] - last.dense[0][0]).max() > 1e-3


def test_a_shorter_training_is_the_beginning_of_a_longer_one(data):
    x, y = data
    fit = Fit(np.arange(ROWS), ImagingSettings(WIDTHS, dropout=0.2), 3)
    short, long = (train_each(x, y, [fit], epochs=epochs)[0] for epochs in (2, 5))
    np.testing.assert_allclose(short.logits, long.logits[:2], atol=1e-6)


def test_a_network_depends_on_itself_alone(data, encoder, monkeypatch):
    x, y = data
    fits = [
        Fit(np.arange(40), ImagingSettings(WIDTHS, taken=3, dropout=0.2), seed, encoder=encoder) for seed in range(3)
    ]
    fits.append(Fit(np.arange(40), ImagingSettings(WIDTHS), 1))
    together, alone = train_each(x, y, fits, epochs=2), [train_each(x, y, [fit], epochs=2)[0] for fit in fits]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)
    monkeypatch.setattr(radiogenomic.jax, "default_backend", lambda: "gpu")
    for one, other in zip(train_each(x, y, fits, epochs=2), alone, strict=True):
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)
        np.testing.assert_allclose(one.dense[0][0], other.dense[0][0], atol=1e-4)


def test_labels_of_a_fit_replace_those_of_all(data):
    x, y = data
    other = np.roll(y, 7)
    own = train_each(x, y, [Fit(np.arange(ROWS), ImagingSettings(WIDTHS), 3, y=other)], epochs=2)[0]
    named = train_each(x, other, [Fit(np.arange(ROWS), ImagingSettings(WIDTHS), 3)], epochs=2)[0]
    np.testing.assert_array_equal(own.logits, named.logits)


def test_masking_is_the_network_on_a_sample_with_other_genes_at_the_mean(data):
    x, y = data
    course = train_each(x, y, [Fit(np.arange(ROWS), ImagingSettings(WIDTHS), 3)], epochs=EPOCHS)[0]
    sets = [np.array([0, 5]), np.array([7]), np.array([], int), np.arange(GENES)]
    found, model = course.masked(x, sets), course.network()
    for logits, genes in zip(found, sets, strict=True):
        z = np.zeros((ROWS, GENES), np.float32)
        z[:, genes] = course.scaled(x)[:, genes]
        np.testing.assert_allclose(logits, keras.ops.convert_to_numpy(model(z, training=False)), atol=1e-5)
    assert np.ptp(found[2]) == 0  # no gene, no difference between patients


@pytest.mark.parametrize("activation, guided", [("tanh", False), ("relu", False), ("relu", True)])
def test_saliency_is_the_gradient_of_the_logit(data, activation, guided):
    x, y = data
    course = train_each(x, y, [Fit(np.arange(ROWS), ImagingSettings(WIDTHS, activation), 3)], epochs=EPOCHS)[0]
    if not guided:  # batch normalisation stands between unit and rectifier, which Keras has as a layer of its own
        theirs = class_gradients(course.network(), course.scaled(x), 0)
        np.testing.assert_allclose(course.saliency(x), theirs, atol=1e-5)
    else:
        assert np.abs(course.saliency(x, guided=True) - course.saliency(x)).max() > 1e-4
    z, step = course.scaled(x), np.zeros(GENES, np.float32)
    step[3] = 1e-2
    up, down = (keras.ops.convert_to_numpy(course.network()(z + s, training=False))[:, 0] for s in (step, -step))
    if activation == "tanh":
        np.testing.assert_allclose(course.saliency(x)[:, 3], (up - down) / 2e-2, atol=2e-3)


def test_guided_saliency_is_refused_where_it_is_the_plain_gradient(data):
    x, y = data
    course = train_each(x, y, [Fit(np.arange(ROWS), ImagingSettings(WIDTHS), 3)], epochs=1)[0]
    with pytest.raises(ValueError, match="with tanh it is the plain gradient"):
        course.saliency(x, guided=True)


@pytest.mark.parametrize(
    "wrong, words",
    [
        (dict(activation="gelu"), "'gelu' is unknown"),
        (dict(optimizer="sgd"), "'sgd' is unknown"),
        (dict(widths=()), "a layer or more"),
        (dict(dropout=1.0), "less than 1"),
        (dict(taken=1, frozen=2), "are frozen"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        ImagingSettings(**{"widths": WIDTHS, **wrong})


def test_fits_that_cannot_be_trained_are_refused(data, encoder):
    x, y = data
    rows = np.arange(ROWS)
    with pytest.raises(ValueError, match=r"fit 0: its \d+ training rows hold class \[1\] alone"):
        train_each(x, y, [Fit(rows[y == 1], ImagingSettings(WIDTHS), 1)])
    with pytest.raises(ValueError, match="there is no autoencoder"):
        train_each(x, y, [Fit(rows, ImagingSettings(WIDTHS, taken=1), 1)])
    with pytest.raises(ValueError, match=r"the autoencoder's layers have \(8, 6\) units"):
        train_each(x, y, [Fit(rows, ImagingSettings((9, 6, 4), taken=2), 1, encoder=encoder)])
    with pytest.raises(ValueError, match="not finite"):
        train_each(np.where(x > 6, np.nan, x), y, [Fit(rows, ImagingSettings(WIDTHS), 1)])
