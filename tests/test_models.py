import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from gexlib import evaluate
from gexlib.models.linear import (
    after_t_test,
    class_shares_recipe,
    fixed_ridge,
    gene_coefficients,
    pair_auc,
    ridge_recipe,
)
from gexlib.models.mlp import inss_network
from gexlib.sources.simulated import simulate
from gexlib.splits import grouped_folds
from gexlib.training import Trainer, keras, network_recipe


@pytest.fixture(scope="module")
def easy():
    """Two classes told apart by one gene of twenty: x (80, 20), y (80,)."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 20)).astype("float32"), np.arange(80) % 2
    x[:, 3] += 4 * y
    return x, y


def small() -> keras.Model:
    return inss_network(20, classes=2, widths=(16, 8))


def test_the_staging_network_has_the_published_number_of_parameters():
    assert inss_network(13_091).count_params() == 6_869_477


def test_the_staging_network_has_dropout_after_each_of_its_four_hidden_layers_and_none_after_the_logits():
    kinds = [type(layer).__name__ for layer in inss_network(10).layers]
    assert kinds == ["Dense", "LeakyReLU", "Dropout"] * 4 + ["Dense"]
    slopes = {layer.negative_slope for layer in inss_network(10).layers if hasattr(layer, "negative_slope")}
    assert len(slopes) == 1 and slopes.pop() == pytest.approx(0.2)


def test_training_repeats_to_the_bit_with_the_same_seed_and_differs_with_another(easy):
    trainer = Trainer(small, 1e-2)
    runs = []
    for seed in (1, 2, 1):
        trainer.fit(*easy, steps=5, seed=seed)
        runs.append(trainer.predict(easy[0]))
    assert np.array_equal(runs[0], runs[2]) and not np.array_equal(runs[0], runs[1])


def test_the_compiled_steps_do_what_plain_keras_does(easy):
    plain = inss_network(20, classes=2, widths=(16, 8), dropout=0.0)
    trainer = Trainer(lambda: inss_network(20, classes=2, widths=(16, 8), dropout=0.0), 1e-2)
    trainer.fit(*easy, steps=0, seed=3)
    plain.set_weights(trainer.model.get_weights())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    plain.compile(keras.optimizers.Adam(1e-2), loss)
    plain.fit(*easy, batch_size=80, epochs=10, shuffle=False, verbose=0)
    trainer.fit(*easy, steps=10, seed=3)
    for ours, theirs in zip(trainer.model.get_weights(), plain.get_weights(), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_padding_rows_change_nothing_but_rounding(easy):
    def build():
        return inss_network(20, classes=2, widths=(16, 8), dropout=0.0)

    guesses = []
    for rows in (0, 100):
        trainer = Trainer(build, 1e-2, rows=rows)
        trainer.fit(*easy, steps=10, seed=1)
        guesses.append(trainer.predict(easy[0]))
    assert guesses[0] == pytest.approx(guesses[1], abs=1e-4)


def test_early_stopping_returns_the_best_weights_and_stops_before_the_last_step(easy):
    x, y = easy
    noise = np.random.default_rng(1).permutation(y)
    trainer = Trainer(small, 1e-2)
    history = trainer.fit(x, noise, steps=600, seed=1, validation=(x, y), patience=2, check_every=10)
    best = min(history["validation"])
    probabilities = trainer.predict(x)
    assert history["step"][-1] < 600
    assert -np.log(probabilities[np.arange(80), y]).mean() == pytest.approx(best, abs=1e-4)


def test_a_network_learns_what_is_there_and_nothing_from_shuffled_labels():
    rng = np.random.default_rng(0)
    x, y, patients = rng.normal(size=(240, 10)).astype("float32"), np.arange(240) % 2, np.arange(240)
    x[:, 3] += 4 * y
    recipe = network_recipe(
        Trainer(lambda: inss_network(10, 2, widths=(16, 8)), 3e-3, rows=240), 300, scale=True, stop_early=True
    )
    parts = list(grouped_folds(y, patients, folds=3, seed=1))
    learned = evaluate.predictions(recipe, x, y, patients, parts)[0]
    shuffled = evaluate.predictions(evaluate.shuffled(recipe), x, y, patients, parts)[0]
    assert evaluate.scores(y, learned)["accuracy"][0] > 0.9
    assert 0.3 < evaluate.scores(y, shuffled)["accuracy"][0] < 0.7


def test_two_predictors_of_one_trainer_do_not_share_weights(easy):
    x, y = easy
    recipe = network_recipe(Trainer(small, 1e-2), 20, scale=False, stop_early=False)
    first = recipe(x, y, np.arange(80), 1)
    before = first(x)
    recipe(x, 1 - y, np.arange(80), 2)
    assert np.array_equal(first(x), before)


def test_the_rotation_leaves_ridge_as_it_is():
    cohort = simulate("neuroblastoma", n=60, genes=150)
    x, y = cohort.X.astype(float), cohort.obs["inss_stage"].cat.codes.to_numpy()
    z = StandardScaler().fit_transform(x)
    direct = LogisticRegression(C=1e-2, tol=1e-8, max_iter=5000).fit(z, y).coef_
    rotated = gene_coefficients(fixed_ridge(1e-2).set_params(logisticregression__tol=1e-8).fit(x, y))
    assert rotated == pytest.approx(direct, abs=1e-4)


def test_coefficients_have_a_row_for_each_class_also_where_there_are_two(easy):
    x, y = easy
    coefficients = gene_coefficients(fixed_ridge().fit(x, y))
    assert coefficients.shape == (2, 20) and coefficients[1].argmax() == 3 and coefficients[0].argmin() == 3


def test_ridge_beats_class_shares_on_the_simulated_stages():
    cohort = simulate("neuroblastoma", n=280)
    y, patients = cohort.obs["inss_stage"].cat.codes.to_numpy().astype(int), cohort.obs["patient"].to_numpy()
    parts = list(grouped_folds(y, patients, folds=4))
    macro = [
        evaluate.scores(y, evaluate.predictions(recipe, cohort.X, y, patients, parts)[0])["macro AUC"][0]
        for recipe in (ridge_recipe(), class_shares_recipe())
    ]
    assert macro[0] > 0.65 and abs(macro[1] - 0.5) < 0.05


def test_the_auc_of_a_pair_comes_with_an_interval_around_it():
    cohort = simulate("neuroblastoma", n=200, genes=300)
    y = cohort.obs["inss_stage"].cat.codes.to_numpy().astype(int)
    value, low, high = pair_auc(cohort.X, y, cohort.obs["patient"].to_numpy(), (0, 3))
    assert low < value < high and value > 0.75


def test_the_jax_backend_trains_and_explains_as_well():
    code = """if True:
        import numpy as np
        from gexlib import explain
        from gexlib.models.mlp import inss_network
        from gexlib.training import Trainer, keras
        x, y = np.random.default_rng(0).normal(size=(60, 8)).astype("float32"), np.arange(60) % 2
        x[:, 2] += 3 * y
        trainer = Trainer(lambda: inss_network(8, 2, widths=(16,)), 1e-2, rows=64)
        trainer.fit(x, y, steps=60, seed=1, validation=(x, y))
        right = (trainer.predict(x).argmax(axis=1) == y).mean()
        top = np.abs(explain.class_gradients(trainer.model, x, 1).mean(axis=0)).argmax()
        print(keras.backend.backend(), right > 0.9, top)
    """
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout.split() == ["jax", "True", "2"], done.stderr[-500:]


def test_genes_are_chosen_by_t_test_from_training_samples_alone():
    rng = np.random.RandomState(0)
    x, y = rng.standard_normal((60, 30)).astype(np.float32), np.arange(60) % 2
    x[:, 4] += 3 * y
    seen = []

    def fit(x, y, patients, seed):
        seen.append(x)
        return lambda new: np.column_stack([-new[:, 0], new[:, 0]])

    predict = after_t_test(fit, 1)(x[:40], y[:40], np.arange(40), 0)
    assert (seen[0][:, 0] == x[:40, 4]).all() and (predict(x[40:])[:, 1] == x[40:, 4]).all()
