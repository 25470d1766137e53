import os
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from gexlib.models import population
from gexlib.models.mlp import DeepNetSettings, autoencoder_codes, draw_settings, wired_network
from gexlib.models.population import Member, Task, search, start_weights, train_population
from gexlib.splits import inner_split
from gexlib.training import keras

PLAIN = DeepNetSettings("rectifier", (12, 8), l1=0.0, l2=0.0, input_dropout=0.0, hidden_dropout=(0.0, 0.0))
DROPPING = replace(PLAIN, l1=0.001, l2=0.001, input_dropout=0.1, hidden_dropout=(0.05, 0.1))
SHORT = {"epochs": 10, "batch": 16, "optimizer": "adam", "learning_rate": 1e-2}  # one set, so that programs are shared


@pytest.fixture(scope="module")
def data():
    """120 samples x 20 genes, a third cases; three genes carry a signal. 80 to train on, 40 to predict."""
    rng = np.random.RandomState(0)
    x, y = (5 + 2 * rng.standard_normal((120, 20))).astype(np.float32), (np.arange(120) % 3 == 0).astype(int)
    x[:, :3] += 4 * y[:, None]
    return x[:80], y[:80], x[80:], y[80:]


def member(data, settings=PLAIN, seed=1, **changes):
    return Member(**{"x": data[0], "y": data[1], "x_new": data[2], "settings": settings, "seed": seed, **changes})


def one(data, settings, **changes):
    [trained] = train_population([member(data, settings, **changes)], **SHORT)
    return trained


def flat(trained):
    return np.concatenate([part.ravel() for layer in trained.weights for part in layer])


def test_a_member_of_a_population_is_the_same_as_when_trained_alone(data):
    others = [member(data, replace(DROPPING, activation="tanh", widths=(10, 30)), seed) for seed in (2, 3)]
    wider = member(data, draw_settings(1, seed=0)[0], 4)
    together = train_population([*others, member(data, DROPPING), wider], **SHORT)
    assert together[2].probabilities == pytest.approx(one(data, DROPPING).probabilities, abs=1e-4)
    assert together[3].weights[0][0].shape[2] == wider.settings.widths[0]  # and the order is that of the members


def test_training_repeats_to_the_bit_with_the_same_seed_and_differs_with_another(data):
    first, again = (train_population([member(data, DROPPING, s) for s in (1, 2, 1)], **SHORT) for _ in (0, 1))
    assert all(np.array_equal(flat(a), flat(b)) for a, b in zip(first, again, strict=True))
    assert np.array_equal(flat(first[0]), flat(first[2])) and not np.array_equal(flat(first[0]), flat(first[1]))


@pytest.mark.parametrize("activation", ["rectifier", "tanh", "maxout"])
def test_padding_changes_nothing_but_rounding(data, monkeypatch, activation):
    settings = replace(PLAIN, activation=activation, widths=(12, 31), l1=0.002, l2=0.01)
    padded = one(data, settings)
    monkeypatch.setattr(population, "STEPS", {"genes": 1, "rows": 1, "units": 1})
    bare = one(data, settings)
    assert padded.probabilities == pytest.approx(bare.probabilities, abs=1e-4)
    assert flat(padded) == pytest.approx(flat(bare), abs=1e-4) and np.abs(flat(bare)).max() > 0.1


def test_side_by_side_as_on_a_gpu_is_the_same_as_one_after_another(data, monkeypatch):
    members = [member(data, DROPPING, seed) for seed in (1, 2, 3)]
    expected = train_population(members, **SHORT)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(population, "CHUNK", 4)
    for ours, theirs in zip(train_population(members, **SHORT), expected, strict=True):
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-4)


@pytest.mark.parametrize("optimizer", ["adadelta", "adam"])
def test_full_batch_steps_with_both_penalties_are_those_of_keras(data, optimizer):
    settings = replace(PLAIN, l1=0.003, l2=0.02)
    start = start_weights(settings, 20, 2, np.random.RandomState(0))
    full_batch = {"epochs": 3, "batch": None, "optimizer": optimizer}
    [ours] = train_population([member(data, settings, start=start)], **full_batch)
    theirs = keras.Sequential([keras.Input((20,))])
    penalty = {f"{part}_regularizer": keras.regularizers.L1L2(0.003, 0.01) for part in ("kernel", "bias")}
    for units, activation in ((12, "relu"), (8, "relu"), (2, None)):
        theirs.add(keras.layers.Dense(units, activation=activation, **penalty))
    theirs.set_weights([part for w, b in start for part in (w[:, 0], b[0])])
    optimizers = {"adadelta": keras.optimizers.Adadelta(1.0, 0.99, 1e-8), "adam": keras.optimizers.Adam(1e-3)}
    theirs.compile(optimizers[optimizer], keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    theirs.fit((data[0] - ours.mean) * ours.scale, data[1], batch_size=80, epochs=3, verbose=0)
    begun = np.concatenate([part.ravel() for layer in start for part in layer])
    moved = np.concatenate([part.ravel() for part in theirs.get_weights()]) - begun
    assert flat(ours) - begun == pytest.approx(moved, abs=0.01 * float(np.abs(moved).max()))


@pytest.mark.parametrize("activation", ["rectifier", "tanh", "maxout"])
def test_predictions_are_of_the_network_whose_loss_is_minimised(data, activation):
    x, y = data[:2]
    trained = one(data, replace(PLAIN, activation=activation))
    z = (x - trained.mean) * trained.scale
    loss = population._loss(trained.weights, z, y, np.ones(80), None, activation == "tanh")
    assert float(loss) == pytest.approx(-np.log(trained.predict(x)[np.arange(80), y]).mean(), abs=1e-4)
    assert np.array_equal(trained.predict(data[2]), trained.probabilities)
    assert (trained.probabilities.argmax(axis=1) == data[3]).mean() > 0.8


def test_a_third_class_is_learned_by_softmax(data):
    y = np.arange(80) % 3
    x = data[0] + 6 * np.eye(3, 20, dtype=np.float32)[y]
    [trained] = train_population([member(data, x=x, y=y, x_new=x)], classes=3, **SHORT)
    assert trained.probabilities.shape == (80, 3) and (trained.probabilities.argmax(axis=1) == y).mean() > 0.9


def test_l1_shrinks_the_weights(data):
    free, shrunk = (one(data, replace(PLAIN, l1=l1)) for l1 in (0.0, 0.1))
    assert np.abs(flat(shrunk)).sum() < 0.6 * np.abs(flat(free)).sum()


def test_dropout_removes_its_share_and_preserves_the_mean():
    weights = [(np.zeros((size, 1, 1)), None) for size in (400, 200)]
    inputs, hidden = population._kept(jax.random.key(0), weights, 500, np.array([0.1, 0.4], np.float32))
    assert (inputs.shape, hidden.shape) == ((500, 400), (500, 200))
    assert [float((kept == 0).mean()) for kept in (inputs, hidden)] == pytest.approx([0.1, 0.4], abs=0.01)
    assert [float(kept.mean()) for kept in (inputs, hidden)] == pytest.approx([1, 1], abs=0.01)


def test_a_row_of_weight_zero_teaches_nothing(data):
    weight = np.where(np.arange(80) < 70, 1.0, 0.0)
    trained = []
    for y in (data[1], np.where(weight > 0, data[1], 1 - data[1])):
        trained += train_population([member(data, y=y, weight=weight)], **SHORT)
    assert np.array_equal(flat(trained[0]), flat(trained[1]))


def test_a_gene_that_is_constant_in_training_takes_no_part(data):
    x, x_new = data[0].copy(), data[2].copy()
    x[:, 5] = 7.3
    trained = one(data, PLAIN, x=x)
    x_new[:, 5] = 1e3
    assert trained.scale[5] == 0 and np.array_equal(trained.predict(x_new), trained.probabilities)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": np.zeros(80, int)}, r"network 0 .* y holds \[0\]; expected two or more of the classes 0 to 1"),
        ({"x": np.full((80, 20), np.nan)}, "network 0 .* not finite"),
        ({"x_new": np.zeros((4, 19))}, r"x_new \(4, 19\)"),
    ],
)
def test_a_member_that_cannot_be_trained_is_named(data, changes, message):
    with pytest.raises(ValueError, match=message):
        train_population([member(data, **changes)])


def test_an_unknown_optimizer_is_refused(data):
    with pytest.raises(ValueError, match="'sgd' is unknown; expected one of adadelta, adam"):
        train_population([member(data)], optimizer="sgd")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "relu"}, "'relu' is unknown; expected one of rectifier, tanh, maxout"),
        ({"widths": (100, 0)}, "expected a layer or more"),
        ({"l1": -0.1}, "penalties of 0 or more"),
        ({"hidden_dropout": (0.1,)}, "1 hidden dropout ratios for 2 layers"),
        ({"input_dropout": 1.0}, "less than 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(PLAIN, **change)


def test_drawn_settings_fill_the_ranges_of_table_2_and_repeat_with_the_seed():
    drawn = draw_settings(300, seed=5)
    assert drawn == draw_settings(300, seed=5) and drawn[:3] != draw_settings(3, seed=6)
    assert {s.activation for s in drawn} == {"rectifier", "tanh", "maxout"}
    assert {len(s.widths) for s in drawn} == {2, 3, 4}
    widths = [width for s in drawn for width in s.widths]
    assert 10 <= min(widths) < 15 and 195 < max(widths) <= 200
    for name in ("l1", "l2", "input_dropout"):
        values = np.array([getattr(s, name) for s in drawn])
        assert 0.001 <= values.min() < 0.005 and 0.095 < values.max() <= 0.1


def tasks_of(data, x_new):
    """Two outer folds of the same patients, two samples a patient."""
    patients = np.repeat(np.arange(40), 2)
    y = np.repeat(data[1][::2], 2)
    x = data[0] + 3 * (y - data[1])[:, None] * (np.arange(20) < 3)
    return [Task(x, y, patients, x_new)] * 2


def test_a_search_refits_the_settings_with_the_best_auc_on_the_inner_fifth(data):
    settings = [PLAIN, replace(PLAIN, activation="tanh"), replace(PLAIN, widths=(30, 20))]
    task = tasks_of(data, data[2])[0]
    [found] = search([task], [settings], seed=3, **SHORT)
    fit, stop = inner_split(task.y, task.patients, seed=3)
    inner = [Member(task.x[fit], task.y[fit], task.x[stop], s, 3 + i) for i, s in enumerate(settings)]
    aucs = [roc_auc_score(task.y[stop], t.probabilities[:, 1]) for t in train_population(inner, **SHORT)]
    assert found.inner_auc == pytest.approx(aucs) and found.settings == settings[int(np.argmax(aucs))]
    [again] = train_population([Member(task.x, task.y, task.x_new, found.settings, 3)], **SHORT)
    assert np.array_equal(found.probabilities, again.probabilities)
    assert roc_auc_score(data[3], found.probabilities[:, 1]) > 0.9


def test_a_network_that_diverged_is_never_chosen(data):
    diverged = population.Trained("tanh", [], np.zeros(1), np.zeros(1), np.full((40, 2), np.nan))
    assert population._auc(data[3], diverged) == 0


def test_the_samples_to_predict_change_neither_the_choice_nor_each_other(data):
    settings = [[PLAIN, replace(PLAIN, activation="tanh")]] * 2
    found = search(tasks_of(data, data[2]), settings, **SHORT)
    x_other = np.vstack([data[2][:5], 1e3 * np.ones((9, 20), np.float32)])
    other = search(tasks_of(data, x_other), settings, **SHORT)
    for one_way, other_way in zip(found, other, strict=True):
        assert one_way.settings == other_way.settings and np.array_equal(one_way.inner_auc, other_way.inner_auc)
        assert one_way.probabilities[:5] == pytest.approx(other_way.probabilities[:5], abs=1e-5)


WIRED = """if True:
    import numpy as np
    from gexlib.models.mlp import autoencoder_codes, wired_network
    from gexlib.training import Trainer, keras
    rng = np.random.RandomState(0)
    x, y = rng.standard_normal((90, 12)).astype("float32"), np.arange(90) % 2
    x[:, 2] += 3 * y
    membership = np.arange(12)[:, None] // 4 == np.arange(2)  # the last four genes are in no set
    trainer = Trainer(lambda: wired_network(membership), 1e-2, rows=96)
    trainer.fit(x, y, steps=80, seed=1)
    elsewhere = np.where(np.arange(12) < 8, x, 100).astype("float32")
    trainer.model.save(folder + "/wired.keras")
    loaded = keras.saving.load_model(folder + "/wired.keras")
    logits = [keras.ops.convert_to_numpy(model(x)) for model in (trainer.model, loaded)]
    codes, new_codes = autoencoder_codes(x[:60], x[60:], width=3, epochs=2)
    found = {
        "learned": bool((trainer.predict(x).argmax(axis=1) == y).mean() > 0.9),
        "wired": np.array_equal(trainer.predict(x), trainer.predict(elsewhere)),
        "saved": np.allclose(*logits, atol=1e-6),
        "codes": codes.shape == (60, 3) and new_codes.shape == (30, 3),
    }
"""
ALL_WELL = {"learned": True, "wired": True, "saved": True, "codes": True}


def test_a_wired_network_keeps_to_its_gene_sets_learns_and_survives_saving(tmp_path):
    names = {"folder": str(tmp_path)}
    exec(WIRED, names)
    assert names["found"] == ALL_WELL


def test_the_population_needs_no_keras_and_the_wired_network_and_the_codes_work_on_its_jax_backend(tmp_path):
    no_keras = "import sys, gexlib.models.population; assert 'keras' not in sys.modules"
    code = f"{no_keras}\nfolder = {str(tmp_path)!r}\n{WIRED}\nprint(keras.backend.backend(), found)"
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout.strip() == f"jax {ALL_WELL}", done.stderr[-800:]


def test_a_gene_set_without_genes_is_refused():
    with pytest.raises(ValueError, match=r"membership is \(3, 2\)"):
        wired_network(np.array([[True, False]] * 3))


def test_codes_hold_the_common_factors_and_do_not_depend_on_the_new_samples():
    rng = np.random.RandomState(0)
    factors = rng.standard_normal((150, 2))
    x = (factors @ rng.standard_normal((2, 60)) + 0.3 * rng.standard_normal((150, 60))).astype(np.float32)
    codes, new = autoencoder_codes(x[:100], x[100:], width=4, epochs=20)
    again, _ = autoencoder_codes(x[:100], 1e3 * x[100:], width=4, epochs=20)
    fitted = np.linalg.lstsq(np.column_stack([codes, np.ones(100)]), factors[:100], rcond=None)[0]
    left = factors[100:] - np.column_stack([new, np.ones(50)]) @ fitted
    assert left.var() < 0.4 * factors[100:].var() and np.array_equal(codes, again)
