"""Training in batches: the same as plain `fit` of Keras, repeatable, and stopped as each protocol says."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from gexlib.models.cnn import cnn_1d, cnn_3layer
from gexlib.prep import LowInformationFilter
from gexlib.splits import grouped_folds
from gexlib.training import BatchTrainer, histories, keras, log_loss_of, trained_on_parts


@pytest.fixture(scope="module")
def types():
    """Four classes of 30 samples, each with five genes of its own among 120."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 4
    x = rng.normal(size=(120, 120)).astype("float32")
    for k in range(4):
        x[np.ix_(y == k, np.arange(5 * k, 5 * k + 5))] += 3
    return x, y


def small() -> keras.Model:
    return cnn_1d(120, 4, kernel=10, filters=8, dense=16)


def test_epochs_repeat_to_the_bit_with_the_same_seed_and_differ_with_another(types):
    trainer, runs = BatchTrainer(small, batch=16), []
    for seed in (1, 2, 1):
        trainer.fit(*types, epochs=3, seed=seed)
        runs.append(trainer.predict(types[0]))
    assert np.array_equal(runs[0], runs[2]) and not np.array_equal(runs[0], runs[1])


def test_an_epoch_steps_as_plain_keras_does_through_the_same_batches(types):
    x, y = types
    x, y = x[:50], y[:50]  # the last batch of 16 holds two samples
    trainer, plain = BatchTrainer(small, 1e-2, batch=16), small()
    trainer.fit(x, y, epochs=0, seed=3)
    plain.set_weights(trainer.model.get_weights())
    plain.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = trainer.fit(x, y, epochs=2, seed=3)
    order = np.random.default_rng(3)
    for _ in range(2):
        rows = order.permutation(50)
        losses = [plain.train_on_batch(x[part], y[part]) for part in (rows[:16], rows[16:32], rows[32:48], rows[48:])]
    assert np.all(np.isfinite(losses))
    for ours, theirs in zip(trainer.model.get_weights(), plain.get_weights(), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    assert history["epoch"] == [1, 2] and 0 < history["accuracy"][1] <= 1


def test_folds_of_unequal_size_share_one_compilation_and_padding_changes_nothing(types):
    x, y = types
    padded, bare, said = BatchTrainer(small, batch=16, rows=120), BatchTrainer(small, batch=16), []
    for n in (90, 97):
        padded.fit(x[:n], y[:n], epochs=2, seed=1)
        bare.fit(x[:n], y[:n], epochs=2, seed=1)
        said.append((padded.predict(x), bare.predict(x)))
    for one, other in said:
        assert one == pytest.approx(other, abs=1e-5)


def test_a_seed_gives_the_first_weights_that_keras_gives_for_it(types):
    trainer = BatchTrainer(small, batch=16)
    trainer.fit(*types, epochs=0, seed=5)
    keras.utils.set_random_seed(5)
    for ours, theirs in zip(trainer.model.get_weights(), small().get_weights(), strict=True):
        assert np.array_equal(ours, theirs)


def test_accuracy_is_that_of_plain_fit(types):
    x, y = types
    x = np.concatenate([x + np.random.default_rng(i).normal(size=x.shape).astype("float32") for i in range(4)])
    y, train, test = np.tile(y, 4), np.arange(360), np.arange(360, 480)
    trainer, ours, theirs = BatchTrainer(small, 1e-2, batch=16), [], []
    for seed in range(3):
        trainer.fit(x[train], y[train], epochs=15, seed=seed)
        ours.append((trainer.predict(x[test]).argmax(axis=1) == y[test]).mean())
        keras.utils.set_random_seed(seed)
        plain = small()
        plain.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        plain.fit(x[train], y[train], batch_size=16, epochs=15, verbose=0)
        theirs.append((plain.predict(x[test], verbose=0).argmax(axis=1) == y[test]).mean())
    assert np.mean(ours) > 0.6
    assert abs(np.mean(ours) - np.mean(theirs)) < 0.06


def test_stopping_on_training_accuracy_waits_for_patience_and_keeps_the_last_weights(types):
    x, y = types
    trainer = BatchTrainer(small, 1e-2, batch=16)
    accuracy = trainer.fit(x, y, epochs=200, seed=1, stop_on="training accuracy", patience=3)["accuracy"]
    assert 4 <= len(accuracy) < 200
    assert len(accuracy) - 1 - int(np.argmax(accuracy)) == 3


def test_stopping_on_validation_loss_returns_to_the_best_weights(types):
    x, y = types
    trainer = BatchTrainer(small, 1e-2, batch=16)
    noise = np.random.default_rng(1).permutation(y[:80])
    history = trainer.fit(
        x[:80], noise, epochs=100, seed=1, validation=(x[80:], y[80:]), stop_on="validation loss", patience=2
    )
    assert history["epoch"][-1] < 100
    best = min(history["validation loss"])
    assert log_loss_of(trainer.predict(x[80:]), y[80:]) == pytest.approx(best, rel=1e-4)


def test_batch_normalisation_learns_its_statistics_inside_the_compiled_epoch(types):
    trainer = BatchTrainer(lambda: cnn_3layer(120, 4, filters=(4, 4, 4), dense=(8,)), batch=16)
    trainer.fit(*types, epochs=2, seed=1)
    moving = [w for w in trainer.model.non_trainable_variables if w.name == "moving_mean"]
    assert len(moving) == 3
    assert all(np.abs(keras.ops.convert_to_numpy(w)).max() > 0 for w in moving)


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"stop_on": "luck"}, "stop_on is 'luck'; expected training accuracy, validation loss or nothing"),
        ({"stop_on": "validation loss"}, "there are no validation samples; pass validation"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(types, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        BatchTrainer(small).fit(*types, epochs=1, seed=0, **settings)


def test_jax_learns_the_same(types):
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "import numpy as np, test_training as t\n"
        "rng = np.random.default_rng(0); y = np.arange(120) % 4\n"
        "x = rng.normal(size=(120, 120)).astype('float32')\n"
        "for k in range(4): x[np.ix_(y == k, np.arange(5 * k, 5 * k + 5))] += 3\n"
        "t.test_an_epoch_steps_as_plain_keras_does_through_the_same_batches((x, y))\n"
        "t.test_batch_normalisation_learns_its_statistics_inside_the_compiled_epoch((x, y))\n"
        "print(t.keras.backend.backend())\n"
    )
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert found.stdout.strip() == "jax", found.stderr[-2000:]


@pytest.mark.parametrize("protocol", ["as_published", "corrected"])
def test_networks_of_all_parts_come_from_one_program_and_can_be_asked_again(types, protocol):
    x, y = types
    patients = np.arange(120)
    data = SimpleNamespace(
        X=x + 5, y=y, patients=patients, classes=4, parts=list(grouped_folds(y, patients, 3, seed=1))
    )
    built = []

    def build(genes, classes):
        built.append((genes, classes))
        return small()

    how = {"protocol": protocol, "epochs": 5, "batch": 16, "gene_filter": LowInformationFilter(), "seed": 1}
    models, said = trained_on_parts(build, data, **how)
    assert len(models) == 3 and said.shape == (1, 120, 4) and np.isfinite(said).all()
    assert len({id(model.trainer) for model in models}) == 1 and set(built) == {(120, 4)}
    _, _, test = data.parts[0]
    assert models[0](data.X[test]) == pytest.approx(said[0, test])  # though others were trained since
    assert (models[0].genes is None) == (protocol == "as_published")


def test_what_a_fold_masked_cannot_change_a_prediction(types):
    x, y = types
    x = x + 5
    x[:, 7] = 0.1
    data = SimpleNamespace(X=x, y=y, patients=np.arange(120), classes=4, parts=[(0, np.arange(80), np.arange(80, 120))])
    (model,), said = trained_on_parts(
        lambda *_: small(), data, protocol="corrected", epochs=2, batch=16, gene_filter=LowInformationFilter()
    )
    moved = x.copy()
    moved[:, 7] = 9
    assert not model.genes[7] and np.array_equal(model(moved), model(x))
    assert np.isnan(said[0, :80]).all()


def test_learning_curves_have_a_row_an_epoch_and_leave_out_what_has_none(types):
    x, y = types
    builds = dict.fromkeys(("one", "two", "none"), lambda genes, classes: cnn_1d(genes, classes, filters=2, dense=4))
    curves = histories(builds, x, y, (x, y), epochs={"one": 2, "two": 1, "none": 0}, batch=32)
    assert curves.model.tolist() == ["one", "one", "two"] and (curves.seconds > 0).all()
    assert {"epoch", "loss", "accuracy", "validation loss", "validation accuracy", "parameters"} <= set(curves)
