"""Saved models: they answer as before, they refuse what they cannot answer, and nothing in a folder runs code."""

import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import anndata
import nbformat
import numpy as np
import pandas as pd
import pytest

from gexlib import CohortError, load_cohort, run, saved
from gexlib.__main__ import main
from gexlib.cohort import keep_samples, make_cohort
from gexlib.models.lasso import LassoClassifier
from gexlib.models.linear import fixed_ridge, ridge_recipe
from gexlib.sources.h5ad import save_cohort

CLASSES = ["low", "mid", "high"]


def a_cohort(n=90, genes=12, seed=0, unit="log2 RMA", prefix="P", name="path/to/ours.h5ad"):
    """Three classes that shift the first genes; the last gene never varies."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    X = rng.normal(8, 1, (n, genes)).astype(np.float32)
    X[:, :4] += y[:, None] * np.float32(1.0)
    X[:, -1] = 5
    obs = pd.DataFrame({"patient": [f"{prefix}{i}" for i in range(n)], "level": np.array(CLASSES)[y]})
    obs.index = [f"S{i}" for i in range(n)]
    var = pd.DataFrame(index=[f"GENE{g}" for g in range(genes)])
    return make_cohort(X, obs, var, name=name, unit=unit, source="drawn", files={"a.tsv": "0" * 64}), y


def save_ridge(folder, cohort=None, y=None, **options):
    cohort, y = a_cohort() if cohort is None else (cohort, y)
    model = fixed_ridge(1e-2).fit(cohort.X, y)
    given = {"label": "level", "parameters": {"cohort": "/home/me/ours.h5ad", "seed": 1}} | options
    return saved.save_model(folder, model, cohort, y, CLASSES[: y.max() + 1], **given), model


def a_network(genes, classes=3, seed=0):
    from gexlib.models.mlp import inss_network
    from gexlib.training import keras

    keras.utils.set_random_seed(seed)
    return inss_network(genes, classes, widths=(6, 4))


def answers(folder, cohort, **options):
    table, note = saved.predict(saved.load_model(folder), cohort, **options)
    return table.filter(like="p_").to_numpy(), note


@pytest.fixture
def ridge(tmp_path):
    return save_ridge(tmp_path / "ridge")[0]


# models answer as before


@pytest.mark.parametrize("classes", [2, 3])
def test_a_saved_linear_model_answers_new_samples_as_the_fitted_one_does(tmp_path, classes):
    cohort, y = a_cohort()
    cohort, y = cohort[y < classes].copy(), y[y < classes]
    folder, model = save_ridge(tmp_path / "ridge", cohort, y)
    new, _ = a_cohort(seed=1)
    said, note = answers(folder, new)
    np.testing.assert_allclose(said, model.predict_proba(new.X), atol=1e-6)
    assert sorted(path.name for path in folder.iterdir()) == ["coefficients.npz", "model.json"]
    assert note["missing"] == [] and note["genes of the model"] == len(saved.load_model(folder).facts["genes"])


def test_what_a_recipe_returns_can_be_saved(tmp_path):
    cohort, y = a_cohort()
    says = ridge_recipe()(cohort.X, y, cohort.obs["patient"].to_numpy(), 0)
    folder = saved.save_model(tmp_path / "m", says, cohort, y, CLASSES, label="level", parameters={})
    np.testing.assert_allclose(answers(folder, cohort)[0], says(cohort.X), atol=1e-6)


def test_of_a_lasso_the_genes_without_a_coefficient_are_left_out_and_not_missed(tmp_path):
    cohort, y = a_cohort(n=120, genes=40)
    model = LassoClassifier(folds=5).fit(cohort.X, (y == 2).astype(int))
    kept = np.flatnonzero(model.coef_[0])
    folder = saved.save_model(tmp_path / "m", model, cohort, y == 2, ["no", "yes"], label="level", parameters={})
    assert saved.load_model(folder).facts["genes"] == cohort.var_names[kept].tolist() and 0 < len(kept) < 40
    said, note = answers(folder, cohort[:, kept])
    np.testing.assert_allclose(said, model.predict_proba(cohort.X), atol=1e-5)
    assert note["missing"] == []


def test_a_lasso_that_keeps_no_gene_says_the_same_of_everyone(tmp_path, capsys):
    cohort, y = a_cohort()
    model = LassoClassifier(folds=3, lambdas=[9.0]).fit(cohort.X, (y == 2).astype(int))
    folder = saved.save_model(tmp_path / "m", model, cohort, y == 2, ["no", "yes"], label="level", parameters={})
    save_cohort(cohort, tmp_path / "new.h5ad")
    saved.apply(folder, str(tmp_path / "new.h5ad"), tmp_path / "out.csv")
    np.testing.assert_allclose(pd.read_csv(tmp_path / "out.csv")["p_yes"], 1 / 3, atol=1e-4)
    assert "keeps no gene: it says the same of everyone" in capsys.readouterr().out


@pytest.mark.parametrize("scaled", [True, False])
def test_a_saved_network_answers_as_before(tmp_path, scaled):
    from gexlib.prep import scaler
    from gexlib.training import keras

    cohort, y = a_cohort()
    network, new = a_network(cohort.n_vars), a_cohort(seed=1)[0]
    saved.save_model(tmp_path / "m", network, cohort, y, CLASSES, label="level", parameters={}, scaled=scaled)
    shown = scaler(scaled).fit(cohort.X).transform(new.X)
    logits = keras.ops.convert_to_numpy(network(shown.astype(np.float32), training=False))
    said, _ = answers(tmp_path / "m", new)
    np.testing.assert_allclose(said, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), atol=1e-5)
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"model.keras", "model.json"}


@pytest.mark.parametrize("activation", ["rectifier", "tanh", "maxout"])
def test_a_network_of_a_population_becomes_keras_layers_and_answers_as_before(tmp_path, activation):
    from gexlib.models import population
    from gexlib.models.mlp import DeepNetSettings

    cohort, y = a_cohort()
    settings = DeepNetSettings(activation, (7, 5), 0.01, 0.01, 0.0, (0.0, 0.0))
    weights = population.start_weights(settings, cohort.n_vars, 3, np.random.RandomState(0))
    varies = np.ptp(cohort.X, axis=0) > 0
    scale = np.where(varies, 1 / np.where(varies, cohort.X.std(axis=0), 1), 0)
    network = population.Trained(activation, weights, cohort.X.mean(axis=0), scale.astype(np.float32))
    saved.save_model(tmp_path / "m", network, cohort, y, CLASSES, label="level", parameters={})
    new = a_cohort(seed=1)[0]
    np.testing.assert_allclose(answers(tmp_path / "m", new)[0], network.predict(new.X), atol=1e-4)


def test_a_network_with_a_layer_of_this_package_loads(tmp_path):
    from gexlib.models.mlp import wired_network

    cohort, y = a_cohort()
    network = wired_network(np.eye(cohort.n_vars, 3, dtype=bool), classes=3)
    saved.save_model(tmp_path / "m", network, cohort, y, CLASSES, label="level", parameters={})
    assert saved.load_model(tmp_path / "m").facts["kind"] == "network"


def test_a_linear_model_is_applied_without_a_framework(tmp_path, ridge):
    save_cohort(a_cohort()[0], tmp_path / "new.h5ad")
    code = "import sys; from gexlib.__main__ import main; main(sys.argv[1:]); print(*sys.modules)"
    command = ["predict", str(ridge), "--cohort", str(tmp_path / "new.h5ad"), "--out", str(tmp_path / "out.csv")]
    seen = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, timeout=60)
    assert seen.returncode == 0 and not set(seen.stdout.split()) & {"tensorflow", "keras", "jax"}
    assert len(pd.read_csv(tmp_path / "out.csv")) == 90


# what is saved


def test_the_facts_say_who_trained_the_model_without_ids_or_folders(ridge):
    facts = saved.load_model(ridge).facts
    training = facts["training"]
    assert (facts["unit"], facts["label"], facts["classes"]) == ("log2 RMA", "level", CLASSES)
    assert (training["cohort"], training["samples"], training["patients"]) == ("ours.h5ad", 90, 90)
    assert training["samples of each class"] == {"low": 30, "mid": 30, "high": 30}
    assert training["files"] == ["a.tsv"] and training["sha256"] == ["0" * 64]
    assert facts["parameters"] == {"cohort": "ours.h5ad", "seed": 1} and {"gexlib", "keras"} <= set(facts["versions"])
    text = (ridge / "model.json").read_text()
    assert '"P17"' not in text and "/home/me" not in text and "not compared with held-out" in text


def test_calibration_has_its_known_answers():
    y, ones = np.array([0, 0, 0, 1, 1] * 20), np.ones((1, 100))
    for sure, brier, error in ((1.0, 0.8, 0.4), (0.85, 2 * (0.6 * 0.15**2 + 0.4 * 0.85**2), 0.25), (0.6, 0.48, 0.0)):
        found = saved.calibration(y, np.tile([sure, 1 - sure], (100, 1)), ones)
        assert found["Brier score"][0] == pytest.approx(brier)
        assert found["expected calibration error"][0] == pytest.approx(error)


def test_held_out_predictions_become_the_calibration_note(tmp_path):
    cohort, y = a_cohort()
    truth = np.eye(3)[y] * 0.7 + 0.1
    facts = saved.load_model(save_ridge(tmp_path / "m", cohort, y, held_out=truth[None])[0]).facts
    assert facts["calibration"]["scores"]["Brier score"]["value"] == pytest.approx(0.06)
    assert facts["calibration"]["scores"]["Brier score"]["n"] == 90
    assert "Brier score 0.06 [0.06, 0.06], n = 90" in facts["calibration"]["note"]
    assert "class shares alone have a Brier score of 0.667" in facts["calibration"]["note"]


def test_a_model_is_saved_whole_or_not_at_all(tmp_path, ridge, monkeypatch):
    former = (ridge / "model.json").read_bytes()
    monkeypatch.setattr(saved, "write_json", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        save_ridge(ridge)
    assert [path.name for path in tmp_path.iterdir()] == ["ridge"]
    assert (ridge / "model.json").read_bytes() == former and saved.load_model(ridge).name == "ridge"


def test_a_model_that_would_answer_otherwise_is_not_saved(tmp_path):
    cohort, y = a_cohort()
    model = fixed_ridge(1e-2).fit(cohort.X * 2, y)  # on other values than those handed over
    with pytest.raises(ValueError, match="not saved, since its probabilities differ by"):
        saved.save_model(tmp_path / "m", model, cohort, y, CLASSES, label="level", parameters={})
    assert not any(tmp_path.iterdir())


def test_other_files_are_not_replaced_and_other_objects_not_saved(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="holds 'thesis.txt', which is no part of a saved model"):
        save_ridge(tmp_path / "mine")
    cohort, y = a_cohort()
    with pytest.raises(ValueError, match="a dict cannot be saved"):
        saved.save_model(tmp_path / "m", {}, cohort, y, CLASSES, label="level", parameters={})
    from gexlib.training import keras

    network = keras.Sequential([keras.Input((cohort.n_vars,)), keras.layers.Dense(3, activation="softmax")])
    with pytest.raises(ValueError, match="ends in softmax; expected logits"):
        saved.save_model(tmp_path / "m", network, cohort, y, CLASSES, label="level", parameters={})


# genes and units


def test_genes_are_matched_by_id_whatever_their_order_and_company(ridge):
    new, _ = a_cohort(seed=1)
    expected, _ = answers(ridge, new)
    order = np.random.default_rng(0).permutation(new.n_vars)
    other = new[:, order].copy()
    other.var_names = [name if name != "GENE11" else "ANOTHER" for name in other.var_names]
    said, note = answers(ridge, other)
    np.testing.assert_allclose(said, expected, atol=1e-6)  # GENE11 never varied in training: it says nothing
    assert set(note["missing"]) <= {"GENE11"}


def test_a_missing_gene_stands_at_its_training_mean(ridge):
    new, training = a_cohort(seed=1)[0], a_cohort()[0]
    said, note = answers(ridge, new[:, 2:])
    stands = new.copy()
    stands.X[:, :2] = training.X[:, :2].mean(axis=0)
    np.testing.assert_allclose(said, answers(ridge, stands)[0], atol=1e-5)
    assert note["missing"] == ["GENE0", "GENE1"]


def test_a_gene_that_never_varied_in_training_says_nothing(tmp_path):
    cohort, y = a_cohort()
    saved.save_model(
        tmp_path / "m", a_network(cohort.n_vars), cohort, y, CLASSES, label="level", parameters={}, scaled=False
    )
    new = a_cohort(seed=1)[0]
    expected, _ = answers(tmp_path / "m", new)
    new.X[:, -1] += 7
    np.testing.assert_allclose(answers(tmp_path / "m", new)[0], expected, atol=1e-6)


def test_the_share_of_missing_genes_has_a_limit_that_can_be_raised(ridge):
    new = a_cohort(seed=1)[0][:, 4:]
    n = len(saved.load_model(ridge).facts["genes"])
    with pytest.raises(CohortError, match=rf"4 of the model's {n} genes are missing \({4 / n:.1%}\).*limit is 20.0%"):
        answers(ridge, new)
    assert len(answers(ridge, new, max_missing=0.5)[1]["missing"]) == 4
    with pytest.raises(ValueError, match="max_missing is 40; expected a share"):
        answers(ridge, new, max_missing=40)


def test_ids_of_another_kind_are_refused_with_an_example_of_each(ridge):
    new, _ = a_cohort()
    new.var_names = [f"ENSG{g:011d}" for g in range(new.n_vars)]
    with pytest.raises(CohortError, match="none of the model's .* the model knows 'GENE0', the cohort 'ENSG0000000000"):
        answers(ridge, new, max_missing=0.99)
    new.var_names = ["GENE0"] * new.n_vars
    with pytest.raises(CohortError, match="1 duplicated gene ids, the first is 'GENE0'"):
        answers(ridge, new)


def test_another_unit_is_refused_unless_the_genes_are_rescaled_over_the_new_samples(ridge):
    new, other = a_cohort(seed=1)[0], a_cohort(seed=1, unit="z")[0]
    other.X[:] = other.X * np.linspace(0.5, 3, other.n_vars, dtype=np.float32) - 4
    with pytest.raises(CohortError, match="the unit is 'z' but the model was trained on 'log2 RMA'.*--rescale"):
        answers(ridge, other)
    said, note = answers(ridge, other, rescale=True)
    np.testing.assert_allclose(said, answers(ridge, new, rescale=True)[0], atol=1e-4)  # no scale is left in it
    assert note["rescaled"] and note["units"] == {"model": "log2 RMA", "cohort": "z"}
    with pytest.raises(CohortError, match="5 samples are too few to rescale"):
        answers(ridge, other[:5], rescale=True)
    new.uns["unit"] = "LOG2  rma"
    answers(ridge, new)


def test_a_shift_of_the_genes_is_told(tmp_path, ridge, capsys):
    new = a_cohort()[0]
    assert answers(ridge, new)[1]["shift"] == pytest.approx(0, abs=1e-4)
    new.X[:] += 2 * new.X.std(axis=0)
    assert answers(ridge, new)[1]["shift"] == pytest.approx(2, abs=1e-3)
    save_cohort(new, tmp_path / "new.h5ad")
    saved.apply(ridge, str(tmp_path / "new.h5ad"), tmp_path / "out.csv")
    assert "2.00 training SDs from its training mean, which is far" in capsys.readouterr().out


# folders that are not what they should be


def change(folder, **facts):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"format": 2}, "has format 2, and this gexlib reads up to 1; install a newer gexlib"),
        ({"format": "x"}, "is damaged"),
        ({"kind": "pickle"}, "lacks a part"),
        ({"classes": ["a", "a", "b"]}, "names 'a' more than once"),
        ({"mean": [1.0]}, "lacks its mean or sd"),
        ({"classes": ["a", "b"]}, r"gives \(1, 3\) for one sample; expected 2 classes"),
        ({"sha256": "0"}, "is not the file that model.json was written with; copy the whole folder again"),
    ],
)
def test_facts_that_do_not_hold_are_refused_in_one_sentence(ridge, facts, sentence):
    change(ridge, **facts)
    with pytest.raises(ValueError, match=sentence) as refusal:
        saved.load_model(ridge)
    assert "\n" not in str(refusal.value)


def test_duplicate_genes_of_a_model_are_refused(ridge):
    genes = saved.load_model(ridge).facts["genes"]
    change(ridge, genes=[genes[0], *genes[:-1]])
    with pytest.raises(ValueError, match="names 'GENE0' more than once"):
        saved.load_model(ridge)


def test_a_folder_without_a_model_is_refused_and_the_models_below_it_are_named(tmp_path, ridge):
    with pytest.raises(ValueError, match="no such folder"):
        saved.load_model(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no model.json in it; there are: ridge below it"):
        saved.load_model(tmp_path)
    (ridge / "coefficients.npz").unlink()
    with pytest.raises(ValueError, match="coefficients.npz is missing"):
        saved.load_model(ridge)
    (ridge / "model.json").write_text('{"format": 1')
    with pytest.raises(ValueError, match="model.json is damaged"):
        saved.load_model(ridge)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(tmp_path, ridge):
    exploded = tmp_path / "exploded"
    assert pickle.dumps(Bomb(exploded))
    file = ridge / "coefficients.npz"
    np.savez(file, coefficients=np.array([Bomb(exploded)], dtype=object), intercepts=np.zeros(3))
    change(ridge, sha256=saved.sha256_of(file))
    with pytest.raises(ValueError, match="does not hold plain coefficients"):
        saved.load_model(ridge)
    assert not exploded.exists()


def with_config(folder, edit):
    """Change the description inside model.keras, and the checksum with it."""
    file = folder / "model.keras"
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["config.json"] = edit(parts["config.json"].decode()).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    change(folder, sha256=saved.sha256_of(file))


def test_a_network_that_could_run_code_is_refused_before_anything_is_imported(tmp_path, monkeypatch):
    from gexlib.training import keras

    cohort, y = a_cohort()
    network, folder = a_network(cohort.n_vars), tmp_path / "m"
    saved.save_model(folder, network, cohort, y, CLASSES, label="level", parameters={})
    (tmp_path / "trap.py").write_text("import pathlib\npathlib.Path(__file__).with_name('sprung').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with_config(
        folder, lambda text: text.replace('"keras.layers", "class_name": "Dropout"', '"trap", "class_name": "Dropout"')
    )
    with pytest.raises(ValueError, match=r"holds a 'Dropout' \(trap\), which could run code"):
        saved.load_model(folder)
    assert not (tmp_path / "sprung").exists()

    network.add(keras.layers.Lambda(lambda x: x * 2))
    network.save(folder / "model.keras")
    change(folder, sha256=saved.sha256_of(folder / "model.keras"))
    with pytest.raises(
        ValueError, match=r"holds a 'Lambda' \(keras.layers\), which could run code.*rebuild"
    ) as refusal:
        saved.load_model(folder)
    assert "\n" not in str(refusal.value)

    (folder / "model.keras").write_bytes(b"not a zip")
    change(folder, sha256=saved.sha256_of(folder / "model.keras"))
    with pytest.raises(ValueError, match="is no .keras file"):
        saved.load_model(folder)


# the command line


def test_predict_writes_a_table_and_a_note_and_scores_new_patients_apart(tmp_path, ridge, capsys):
    old, new = a_cohort()[0], a_cohort(n=60, seed=1, prefix="Q")[0]
    new.obs.index = [f"T{i}" for i in range(60)]
    both = anndata.concat([old[:30], new], merge="same", uns_merge="same")
    save_cohort(both, tmp_path / "both.h5ad")
    out = tmp_path / "deep/er/answers.tsv"
    command = ["predict", str(ridge), "--cohort", str(tmp_path / "both.h5ad"), "--out", str(out), "--label", "level"]
    assert main(command) == 0
    table, note = pd.read_csv(out, sep="\t"), json.loads((tmp_path / "deep/er/answers.tsv.json").read_text())
    assert list(table.columns) == ["sample", "patient", "predicted", "p_low", "p_mid", "p_high"] and len(table) == 90
    np.testing.assert_allclose(table.filter(like="p_").sum(axis=1), 1, atol=1e-4)
    assert (table["predicted"].to_numpy() == np.array(CLASSES)[table.filter(like="p_").to_numpy().argmax(1)]).all()
    said = capsys.readouterr().out
    assert "ridge, trained on 90 samples of ours.h5ad." in said and "30 patients have the id of one who" in said
    assert "All patients, 'level': accuracy" in said and "Patients new to the model, 'level': accuracy" in said
    news = note["scores"]["patients new to the model"]["accuracy"]
    assert note["patients who trained the model"] == 30 and news["n"] == 60
    truth = both.obs["level"].to_numpy()[30:]
    right = (table["predicted"].to_numpy()[30:] == truth).mean()
    assert news["value"] == pytest.approx(right) and right > 0.6
    assert set(note["scores"]["all patients"]) == {
        "accuracy", "macro AUC", "Brier score", "expected calibration error"
    }  # fmt: skip

    assert main([*command[:-1], "levels"]) == 2
    assert "no column 'levels'" in capsys.readouterr().err


def test_labels_unknown_to_the_model_are_left_out_of_the_score(ridge):
    cohort, y = a_cohort(n=60, seed=2, prefix="R")
    cohort.obs["other"] = cohort.obs["level"].astype(object).where(y != 2, "else")
    model = saved.load_model(ridge)
    table, _ = saved.predict(model, cohort)
    assert saved.score(model, table, cohort, "other")["all patients"].loc["accuracy", "n"] == 40
    cohort.obs["other"] = "else"
    with pytest.raises(CohortError, match="'other' holds 'else'; the model knows low, mid, high"):
        saved.score(model, table, cohort, "other")
    assert saved.score(model, table.iloc[:9], cohort[:9], "level") == {}


def test_a_refusal_of_the_command_line_is_one_sentence_and_writes_nothing(tmp_path, ridge, capsys):
    save_cohort(a_cohort(unit="z")[0], tmp_path / "z.h5ad")
    begin = ["predict", str(ridge), "--cohort", str(tmp_path / "z.h5ad"), "--out"]
    assert main([*begin, str(tmp_path / "out.csv")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "the unit is 'z' but the model was trained on 'log2 RMA'" in error
    assert main([*begin, str(tmp_path / "out.xlsx")]) == 2
    assert "expected the name of a .csv or .tsv file" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))
    (tmp_path / "out.csv").write_text("a former file")
    assert main([*begin, str(tmp_path / "out.csv"), "--rescale"]) == 0
    assert len(pd.read_csv(tmp_path / "out.csv")) == 90
    assert "z-scored over these samples" in capsys.readouterr().out
    assert main([*begin[:3], f"{begin[3]},unit=log2 RMA", "--out", str(tmp_path / "said.csv")]) == 0
    np.testing.assert_allclose(
        pd.read_csv(tmp_path / "said.csv")["p_high"], answers(ridge, a_cohort()[0])[0][:, 2], 1e-4
    )


def test_a_matrix_with_its_samples_table_is_predicted(tmp_path, ridge):
    new, _ = a_cohort(seed=1)
    matrix = pd.DataFrame(new.X.T, new.var_names, new.obs_names)
    matrix.to_csv(tmp_path / "matrix.tsv", sep="\t", index_label="gene")
    new.obs.to_csv(tmp_path / "samples.tsv", sep="\t", index_label="sample")
    name = f"{tmp_path}/matrix.tsv,transform=none,unit=log2 RMA"
    saved.apply(ridge, name, tmp_path / "out.csv", samples=str(tmp_path / "samples.tsv"), label="level")
    np.testing.assert_allclose(pd.read_csv(tmp_path / "out.csv").filter(like="p_"), answers(ridge, new)[0], atol=1e-5)


# notebooks save when the runner asks


NOTEBOOK = """\
import os, pathlib
_ = (pathlib.Path(os.environ["GEXLIB_OUT"]) / "results.json").write_text("{}")
if folder := os.environ["GEXLIB_SAVE_MODELS"]:
    pathlib.Path(folder, "m").mkdir(parents=True)
    _ = pathlib.Path(folder, "m/model.json").write_text("{}")  # as saved.save_model would"""


@pytest.fixture
def room(tmp_path, monkeypatch):
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (tmp_path / "notebooks").mkdir()
    for name, code in (("01_saves", NOTEBOOK), ("02_does_not", "1")):
        cells = [nbformat.v4.new_code_cell(code)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / f"notebooks/{name}.ipynb")
    monkeypatch.setattr(run, "home", lambda: tmp_path)
    return tmp_path


def test_the_runner_asks_the_kernel_to_save_and_only_when_it_is_asked(room, monkeypatch, capsys):
    monkeypatch.setenv("GEXLIB_SAVE_MODELS", str(room / "of_another_session"))
    assert main(["run", "01", "--out", str(room / "plain")]) == 0
    assert not (room / "plain/models").exists() and not (room / "of_another_session").exists()
    assert main(["run", "01", "--save-models", "--out", str(room / "kept")]) == 0
    assert (room / "kept/models/m/model.json").is_file()
    assert main(["run", "02", "--save-models"]) == 2
    assert "notebook 02 saves no models; those that do: 01." in capsys.readouterr().err


def test_with_all_those_that_can_save_do(room, monkeypatch):
    plans = []
    monkeypatch.setattr(run, "execute", lambda plan: plans.append(plan) or plan.target)
    run.run("all", save_models=True)
    assert [(plan.number, plan.save_models) for plan in plans] == [("01", True), ("02", False)]


def test_the_notebooks_of_01_and_05_can_save():
    assert run.saving() == ["01", "05"]


def test_the_models_of_study_05_are_fitted_and_saved_when_asked_for(tmp_path, monkeypatch):
    from gexlib.models.mlp import draw_settings

    cohort, y = a_cohort(n=120)
    y, held_out = (y == 2).astype(int), np.tile([0.6, 0.4], (1, 120, 1))
    given = {
        "held_out": {("corrected", name): held_out for name in ("LASSO", "DeepNet ii")},
        "parameters": {"seed": 1, "epochs": 2, "label": "level"},
    }
    monkeypatch.delenv("GEXLIB_SAVE_MODELS", raising=False)
    saved.save_lasso_and_deepnet(cohort, y, "high", draw_settings(1, 0), **given)
    assert not any(tmp_path.iterdir())
    monkeypatch.setenv("GEXLIB_SAVE_MODELS", str(tmp_path / "models"))
    saved.save_lasso_and_deepnet(cohort, y, "high", draw_settings(1, 0), **given)
    for name in ("lasso", "deepnet_ii"):
        model = saved.load_model(tmp_path / "models" / name)
        assert model.facts["classes"] == ["not high", "high"]
        table, _ = saved.predict(model, cohort)
        assert saved.score(model, table, cohort, "level")["all patients"].loc["accuracy", "n"] == 120
    assert saved.load_model(tmp_path / "models/lasso").facts["genes"] == model.facts["genes"]


# real patients


@pytest.mark.skipif(
    not Path(os.environ.get("GEXLIB_REAL_DATA", ""), "tcga_gbm_clanc840.h5ad").is_file()
    or not os.environ.get("GEXLIB_REAL_DATA"),
    reason="GEXLIB_REAL_DATA holds no tcga_gbm_clanc840.h5ad",
)
def test_glioblastomas_of_one_table_are_told_apart_by_a_model_of_another(tmp_path):
    core, others = load_cohort("real:tcga_gbm_clanc840"), load_cohort("real:tcga_gbm")
    others = keep_samples(others, 'verhaak != verhaak and subtype != "G-CIMP"')
    subtype = others.obs["subtype"].astype("category").cat.remove_unused_categories()
    classes, y = list(subtype.cat.categories), subtype.cat.codes.to_numpy().astype(int)
    model = fixed_ridge().fit(others.X, y)
    folder = saved.save_model(tmp_path / "m", model, others, y, classes, label="subtype", parameters={})
    with pytest.raises(CohortError, match="the unit is 'centred log2, unified across three platforms'"):
        answers(folder, core)
    with pytest.raises(CohortError, match=r"546 of the model's 1,375 genes are missing \(39.7%\)"):
        answers(folder, core, rescale=True)
    loaded = saved.load_model(folder)
    table, note = saved.predict(loaded, core, rescale=True, max_missing=0.4)
    assert note["patients who trained the model"] == 0
    assert saved.score(loaded, table, core, "verhaak")["all patients"].loc["accuracy", "low"] > 0.6
