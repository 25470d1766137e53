"""GeneXNet: its plan, its blocks, what it refuses; and what transfer keeps and moves."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from gexlib import CohortError
from gexlib.evaluate import predictions
from gexlib.models.genexnet import (
    at_equal_parameters,
    folded_side,
    gene_pixels,
    genexnet,
    genexnet_plan,
    repeats,
    split_at,
)
from gexlib.models.rivals import BLOCKS, rivals_of, vision_network
from gexlib.training import BatchTrainer, keras, settle_batch_norm, steps_recipe
from gexlib.transfer import Transfer, pretrain, site_task, site_tasks

SMALL = {"theta_d": 0.05, "theta_r": 0.2, "theta_k": 4, "transitions": (True, False, False, False)}


def values(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_the_default_plan_keeps_an_8_x_8_map_at_the_published_size():
    plan = genexnet_plan(60483)
    assert list(dict.fromkeys(plan["side"])) == [142, 71, 35, 17, 8]
    assert [plan["repeats"][f"stage{k} dense"] for k in (1, 2, 3, 4)] == [2, 3, 6, 4]
    assert [plan["repeats"][f"stage{k} residual"] for k in (1, 2, 3, 4)] == [1, 1, 2, 1]
    assert plan["genes a cell"].iloc[-1] == pytest.approx(945, abs=0.1)


@pytest.mark.parametrize(
    "genes, channels, side", [(60483, 3, 142), (60483, 1, 246), (3567, 3, 35), (680, 3, 16), (1, 3, 1)]
)
def test_any_number_of_genes_folds_to_a_square(genes, channels, side):
    assert folded_side(genes, channels) == side


def test_the_published_default_is_refused_with_its_sizes_and_the_nearest_that_works():
    published = {"theta_d": 1, "theta_r": 1, "stem_pool": True, "transitions": (True,) * 4, "residual_stride": True}
    with pytest.raises(ValueError, match=r"vanishes \(142 - 36 .* - 1 - 0 .*residual_stride=False keeps one of 2 x 2"):
        genexnet_plan(60483, **published)
    genexnet_plan(60483, **published | {"residual_stride": False})


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"theta_d": 1.5}, "theta_d=1.5: expected a share between 0 and 1"),
        ({"theta_k": 0}, "theta_k=0: expected 1 or more"),
        ({"transitions": (True,)}, "transitions has 1 entries; expected one for each of four stages"),
        ({"theta_d": 0, "theta_r": 0, "theta_k": 4}, "theta_k=4 leaves no map after the transitions; take 8 or more"),
        ({"genes": 3}, "no setting keeps a map of 2 x 2 with 3 genes"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        genexnet_plan(**{"genes": 1000} | settings)


@pytest.mark.parametrize(
    "plan",
    [
        {},
        {"theta_d": 0.5, "theta_r": 0.5, "residual_stride": True, "transitions": (False,) * 4},
        {"theta_d": 0, "stem_pool": True, "transitions": (True, False, False, False)},
        {"theta_r": 0, "channels": 1, "stem_stride": 1},
        {"theta_d": 0, "theta_r": 0, "theta_k": 8},
    ],
)
def test_the_network_is_as_planned(plan):
    plan = {"theta_k": 4} | plan
    table, model = genexnet_plan(3567, **plan), genexnet(3567, 5, **plan)
    assert model.get_layer("maps").output.shape[1:] == (*table["side"].iloc[[-1, -1]], table["channels"].iloc[-1])
    for part, row in table.filter(regex="residual|dense", axis=0).iterrows():
        stage, block = part.split()
        last = model.get_layer(f"{stage}_{block}{int(row['repeats'])}_{'sum' if block == 'residual' else 'all'}")
        assert last.output.shape[1:] == (row["side"], row["side"], row["channels"])
    assert values(model(np.zeros((2, 3567), np.float32))).shape == (2, 5)


def test_thetas_are_shares_of_the_published_repeats():
    assert repeats(1, (6, 12, 24, 16)) == [6, 12, 24, 16] and repeats(0.25, (3, 4, 6, 3)) == [1, 1, 2, 1]
    assert repeats(0, (3, 4, 6, 3)) == [0, 0, 0, 0]


def test_three_neighbouring_genes_share_a_pixel_and_the_image_is_filled_row_by_row():
    rows, columns = gene_pixels(1000)
    image = keras.Model(*(lambda m: (m.input, m.get_layer("image").output))(genexnet(1000, 2, **SMALL)))
    x = np.arange(1000, dtype=np.float32)[None]
    folded = values(image(x))[0]
    assert folded.shape == (19, 19, 3) and np.array_equal(folded[rows, columns, np.arange(1000) % 3], x[0])
    assert folded.ravel()[1000:].max() == 0


def test_a_residual_block_adds_to_its_input_and_a_dense_layer_keeps_what_came_before():
    model = genexnet(1000, 2, theta_d=0.25, theta_r=0.5, theta_k=4, transitions=(False,) * 4)
    x = np.random.RandomState(0).standard_normal((2, 1000)).astype(np.float32)
    outputs = [
        "stem_relu",
        "stage1_dense1_all",
        "stage1_residual1_sum",
        "stage1_residual2_3_conv",
        "stage1_residual2_sum",
    ]
    stem, dense, one, added, two = map(
        values, keras.Model(model.input, [model.get_layer(n).output for n in outputs])(x)
    )
    assert np.array_equal(dense[..., : stem.shape[-1]], stem) and dense.shape[-1] == stem.shape[-1] + 4
    assert np.allclose(two, one + added, atol=1e-5)


def test_ablations_have_equal_parameters():
    target = genexnet(1000, 11, **SMALL).count_params()
    for name, build in rivals_of(SMALL, list(BLOCKS)).items():
        assert abs(build(1000, 11).count_params() / target - 1) < 0.25, name
    with pytest.raises(ValueError, match="no network 'MobileNet'.*there are ResNet-50 v2.*both blocks"):
        rivals_of(SMALL, ["MobileNet"])
    assert "theta_k" in at_equal_parameters(target, 1000, 11, theta_d=0.0)


def test_a_vision_network_is_built_on_folded_genes_and_refuses_a_small_image():
    assert vision_network("MobileNetV2", 3567, 4).output_shape == (None, 4)
    with pytest.raises(ValueError, match="1000 genes fold to 19 x 19 x 3; MobileNetV2 needs 32 x 32"):
        vision_network("MobileNetV2", 1000, 4)


def test_a_saved_network_loads_in_a_fresh_process_without_our_code(tmp_path):
    model = genexnet(300, 3, **SMALL)
    x = np.random.RandomState(0).standard_normal((4, 300)).astype(np.float32)
    model.save(tmp_path / "net.keras")
    np.savez(tmp_path / "known.npz", x=x, y=values(model(x)))
    code = (
        "import keras, numpy as np; known = np.load('known.npz'); "
        "found = keras.models.load_model('net.keras')(known['x']); "
        "assert np.allclose(keras.ops.convert_to_numpy(found), known['y'], atol=1e-5)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.parametrize("block", ["stage1", "stage4", "head"])
def test_a_cut_network_computes_what_the_whole_one_does(block):
    model = genexnet(300, 3, **SMALL)
    x = np.random.RandomState(0).standard_normal((4, 300)).astype(np.float32)
    frozen, trained = split_at(model, block, 3)
    trained.set_weights(model.get_weights()[len(frozen.weights) :])
    assert np.allclose(values(trained(frozen(x))), values(model(x)), atol=1e-5)
    with pytest.raises(ValueError, match="block is 'stage9'; expected one of stage1, stage2, stage3, stage4 or head"):
        split_at(model, "stage9", 2)


def test_an_empty_stage_cannot_be_cut_before():
    plan = {"theta_d": 0, "theta_r": 0.1, "theta_k": 4, "transitions": (False,) * 4}
    with pytest.raises(ValueError, match="nothing in stage1"):
        split_at(genexnet(300, 2, **plan), "stage1", 2)


def test_a_network_with_more_outputs_speaks_of_the_classes_it_was_trained_on():
    x, y, patients = two_classes()
    trainer = BatchTrainer(lambda: genexnet(300, 5, **SMALL), 1e-3, batch=16)
    guess = steps_recipe(trainer, 4)(x, y, patients, 0)(x)
    assert guess.shape == (60, 2) and np.allclose(guess.sum(axis=1), 1)


def two_classes(n=60, genes=300):
    rng = np.random.RandomState(3)
    y = np.arange(n) % 2
    x = rng.standard_normal((n, genes)).astype(np.float32)
    x[:, :40] += 2 * y[:, None]
    return x, y, np.array([f"P{k}" for k in range(n)])


def test_fine_tuning_moves_the_last_blocks_and_leaves_the_pretrained_network_alone():
    x, y, patients = two_classes()
    trainer = BatchTrainer(lambda: genexnet(300, 2, momentum=0.8, **SMALL), 3e-3, batch=16)
    before = pretrain(trainer, x, y, patients, epochs=2, seed=0)
    moved, weights = Transfer(trainer.model, "stage4", 2, 3e-3), trainer.model.get_weights()
    maps = moved.maps(before, x)
    guess = moved.recipe(before, 40)(maps[:40], y[:40], patients[:40], 0)(maps[40:])
    assert guess.shape == (20, 2) and (guess.argmax(axis=1) == y[40:]).mean() > 0.7
    assert all(np.array_equal(a, b) for a, b in zip(trainer.model.get_weights(), weights, strict=True))
    again = moved.recipe(before, 40)(maps[:40], y[:40], patients[:40], 0)(maps[40:])
    assert np.array_equal(guess, again)


def test_pretraining_never_sees_a_patient_of_the_target():
    x, y, patients = two_classes()
    patients[1] = patients[0]  # a sample elsewhere of a patient of the target
    seen = {}

    class Spy:
        model = genexnet(300, 2, **SMALL)

        def fit(self, x, y, **how):
            seen["samples"] = len(x)

    before = pretrain(Spy(), x, y, patients, away=np.array([0, 2]), epochs=1)
    assert seen["samples"] == 57
    assert np.allclose(before.scale(x[3:]).mean(axis=0), 0, atol=1e-5)


def test_the_vector_of_weights_steps_as_the_optimizer_would(monkeypatch):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the vector of weights is TensorFlow's alone")
    x, y, _ = two_classes()
    found = []
    for limit in (0, 10_000):
        monkeypatch.setattr("gexlib.training.MANY_WEIGHTS", limit)
        trainer = BatchTrainer(lambda: genexnet(300, 2, **SMALL), 1e-3, batch=16)
        trainer.fit(x, y, epochs=2, seed=4)
        found.append(np.concatenate([w.ravel() for w in trainer.model.get_weights()]))
    assert np.allclose(*found, atol=2e-4) and not np.allclose(found[0], 0)


def test_the_learning_rate_is_halved_on_a_plateau_and_starts_anew_with_every_training():
    x, y, _ = two_classes()
    trainer = BatchTrainer(lambda: genexnet(300, 2, **SMALL), 1e-3, batch=16)
    still = x[:16], 1 - y[:16]  # a loss that rises
    trainer.fit(x, y, epochs=9, seed=0, validation=still, halve_after=2)
    assert float(trainer.optimizer.learning_rate) < 1e-3
    trainer.fit(x, y, epochs=1, seed=0)
    assert float(trainer.optimizer.learning_rate) == pytest.approx(1e-3)


def test_steps_are_about_those_asked_for_however_few_the_samples():
    x, y, patients = two_classes()
    trainer = BatchTrainer(lambda: genexnet(300, 2, **SMALL), 1e-3, batch=16)
    called: list[int] = []
    trainer._advance = lambda x, y, numbers, weights, used: called.append(int(used)) or (0.0, 0.0)
    for n, steps in ((4, 10), (60, 12)):
        called.clear()
        steps_recipe(trainer, 10)(x[:n], y[:n], patients[:n], 0)
        assert sum(called) == steps


def test_settled_means_are_those_of_the_training_samples():
    x, y, _ = two_classes(n=256)
    model = genexnet(300, 2, **SMALL)
    for weight in model.get_layer("stem_norm").non_trainable_variables:
        weight.assign(values(weight) + 5)
    before = model.get_layer("stem_norm").momentum
    settle_batch_norm(model, x, batch=128)
    with pytest.raises(ValueError, match="60 samples are fewer than half a batch of 128"):
        settle_batch_norm(model, x[:60], batch=128)
    into = keras.Model(model.input, model.get_layer("stem_conv").output)
    mean, variance = map(values, model.get_layer("stem_norm").non_trainable_variables)
    maps = values(into(x))
    assert np.allclose(mean, maps.mean(axis=(0, 1, 2)), atol=1e-4)
    assert np.allclose(variance, maps.var(axis=(0, 1, 2)), rtol=0.05)
    assert model.get_layer("stem_norm").momentum == before


@pytest.fixture
def samples():
    types = pd.Series(["LUAD"] * 12 + ["LUSC"] * 12 + ["PRAD"] * 12)
    sites = pd.Series(["lung"] * 24 + ["prostate"] * 12)
    normal = np.arange(36) % 3 == 0
    return types, sites, normal, np.array([f"P{k}" for k in range(36)])


@pytest.mark.parametrize(
    "name, rows, classes", [("lung", 24, [8, 16]), ("lung types", 16, [8, 8]), ("LUAD:PRAD", 16, [8, 8])]
)
def test_a_task_by_its_name(samples, name, rows, classes):
    task = site_task(name, *samples, 3, 0)
    assert len(task.rows) == rows and list(np.bincount(task.y)) == classes
    assert len(task.away) == 24 and set(task.rows) <= set(task.away)
    assert sorted(np.concatenate([test for *_, test in task.parts])) == list(range(rows))
    assert len(task.split[0][2]) == np.ceil(0.15 * rows)


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("liver", "the task 'liver': no sample of 'liver'; there are lung, prostate"),
        ("LUAD:LIHC", "no sample of 'LIHC'; there are LUAD, LUSC, PRAD"),
        ("prostate types", "has the single class 'PRAD'; leave it out"),
    ],
)
def test_a_task_that_cannot_be_is_refused(samples, name, sentence):
    with pytest.raises(CohortError, match=sentence):
        site_task(name, *samples, 3, 0)


def test_the_tasks_of_a_study_are_its_sites_and_the_types_of_those_that_have_several(samples):
    tasks = site_tasks(["lung", "prostate"], ["LUAD:PRAD", "prostate"], *samples, 3, 0)
    assert list(tasks) == ["lung", "prostate", "LUAD:PRAD", "lung types"]
    assert np.array_equal(tasks["LUAD:PRAD"].rows, site_task("LUAD:PRAD", *samples, 3, 0).rows)


def test_transfer_predicts_through_the_usual_loop(samples):
    x, y, patients = two_classes()
    trainer = BatchTrainer(lambda: genexnet(300, 2, **SMALL), 1e-3, batch=16)
    before = pretrain(trainer, x, y, patients, epochs=1, seed=0)
    moved = Transfer(trainer.model, "head", 2)
    parts = [(0, np.arange(30), np.arange(30, 60)), (0, np.arange(30, 60), np.arange(30))]
    guess = predictions(moved.recipe(before, 5), moved.maps(before, x), y, patients, parts)
    assert guess.shape == (1, 60, 2) and np.allclose(guess.sum(axis=2), 1)
