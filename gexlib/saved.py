"""A trained model goes on: saved in one folder with all that its use needs, and applied to new samples.

The folder holds ``model.json`` (genes in order with their training mean and SD, classes, unit, who it was trained on,
calibration) beside ``coefficients.npz`` of a linear model or ``model.keras`` of a network. Nothing is unpickled, a
network's layers are looked at before Keras opens it in safe mode, and only a network loads Keras.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from gexlib.cohort import CohortError, check_cohort, column_of
from gexlib.evaluate import scores, with_intervals
from gexlib.files import reported_versions, sha256_of, write_json, written_whole
from gexlib.results import number_with_interval

FORMAT = 1
FILES = {"linear": "coefficients.npz", "network": "model.keras"}
KEYS = set("kind sha256 genes mean sd scaled label classes unit training calibration".split())
MAX_MISSING = 0.2  # share of the model's genes
FEWEST_TO_RESCALE = 20  # samples; fewer say too little of a gene's mean and SD
FEWEST_TO_SCORE = 10
ASKED = "GEXLIB_SAVE_MODELS"
LAYERS = frozenset(
    "Sequential Functional InputLayer Dense Dropout Activation LeakyReLU ReLU PReLU ELU Softmax BatchNormalization "
    "LayerNormalization Flatten Reshape Conv1D Conv2D MaxPooling1D MaxPooling2D AveragePooling1D AveragePooling2D "
    "GlobalMaxPooling1D GlobalMaxPooling2D GlobalAveragePooling1D GlobalAveragePooling2D Add Concatenate Multiply "
    "Maximum DTypePolicy __keras_tensor__".split()
)
LAYER_MODULES = ("None", "keras", "keras.layers", "keras.models", "keras.src.models.functional")
OTHER_MODULES = ("keras.initializers", "keras.regularizers", "keras.constraints", "keras.dtype_policies")


@dataclass(frozen=True)
class SavedModel:
    """What `load_model` gives.

    Attributes
    ----------
    name : of its folder
    facts : the content of model.json
    logits : (samples, genes), z-scored unless ``facts["scaled"]`` is False -> (samples, classes)
    """

    name: str
    facts: dict
    logits: Callable[[np.ndarray], np.ndarray]


def asked_folder() -> Path | None:
    """Where a notebook is asked to save its models (GEXLIB_SAVE_MODELS, which `run --save-models` sets), or None."""
    return Path(os.environ[ASKED]) if os.environ.get(ASKED) else None


def save_model(
    folder: str | Path,
    model: object,
    training: anndata.AnnData,
    y: np.ndarray,
    classes: list[str],
    *,
    label: str,
    parameters: Mapping[str, object],
    scaled: bool = True,
    held_out: np.ndarray | None = None,
) -> Path:
    """Save a fitted model with what its use needs, whole or not at all; a former model of the folder is replaced.

    Before the folder gets its name the model is loaded from it and asked about its training samples.

    Parameters
    ----------
    model : a pipeline of `models.linear` or its `predict_proba`, a `LassoClassifier`, a Keras network that gives
        logits, or a `population.Trained`. Of a linear model the genes without a coefficient are left out
    training : the samples it was fitted on, in its order of genes
    y : (samples,) class numbers
    classes : names, in the order of the numbers
    label : the column that the classes are of
    parameters : of the run
    scaled : False for a Keras network that was trained on values as they are
    held_out : (repeats, samples, classes), what the same procedure said of these samples where they were held out;
        without it the probabilities are marked as not looked at

    Raises
    ------
    ValueError : a model of another kind, a folder that holds something else, or a saved model that says otherwise
    """
    model = getattr(model, "__self__", model)
    X, names = np.asarray(check_cohort(training).X), np.asarray(training.var_names, dtype=str)
    mean, sd = _mean_and_sd(X)
    linear = _linear(model, mean, sd)
    used = np.ones(len(names), bool) if linear is None else linear[0].any(axis=0)
    facts = {
        "format": FORMAT,
        "kind": "network" if linear is None else "linear",
        "label": label,
        "classes": [str(name) for name in classes],
        "unit": str(training.uns["unit"]),
        "scaled": bool(scaled),
        "calibration": _calibration_note(np.asarray(y), held_out, training.obs["patient"].to_numpy()),
        "training": _training_facts(training, y, classes),
        "parameters": {k: _last_name(v) if k in ("cohort", "samples") else v for k, v in parameters.items()},
        "versions": reported_versions(),
        "genes": names[used].tolist(),
        "mean": mean[used].tolist(),
        "sd": sd[used].tolist(),
    }
    with _folder_written_whole(Path(folder)) as attempt:
        file = attempt / FILES[facts["kind"]]
        if linear is None:
            network = _network(model)
            network.save(file)
            says = model.predict if network is not model else None
        else:
            np.savez(file, coefficients=linear[0][:, used], intercepts=linear[1])
            says = model.predict_proba
        write_json(attempt / "model.json", {**facts, "sha256": sha256_of(file)})
        itself = says(X) if says else _probabilities(SavedModel("", facts, partial(_outputs, network)), training)
        apart = np.abs(_probabilities(load_model(attempt), training) - itself).max()
        if not apart < 1e-3:
            raise ValueError(f"{folder}: not saved, since its probabilities differ by {apart:.2g} from the model's.")
    return Path(folder)


def save_lasso_and_deepnet(
    training: anndata.AnnData, y: np.ndarray, case: str, settings: list, held_out: Mapping, parameters: Mapping
) -> None:
    """Study 05: where a run asks for models, fit LASSO and DeepNet ii on all of `training` and save them; else nothing.

    LASSO at `lambda_min`; DeepNet ii on LASSO's genes, the best of `settings` by AUC on an inner fifth, fitted to all.

    Parameters
    ----------
    training, y : samples and their labels, 1 where the label is `case`
    settings : of the random search
    held_out : (protocol, model) -> (repeats, samples, classes), of which the corrected ones are looked at
    parameters : of the notebook
    """
    folder = asked_folder()
    if folder is None:
        return
    from gexlib.models import lasso, population

    seed, epochs, label = (parameters[name] for name in ("seed", "epochs", "label"))
    X, patients = np.asarray(training.X), training.obs["patient"].to_numpy()
    fit = lasso.LassoClassifier(end_early=True, seed=seed).fit(X, y, patients)
    own = fit.cross_validation_.signature
    task = population.Task(X[:, own], y, patients, X[:1, own])
    (found,) = population.search([task], [settings], seed=seed, epochs=epochs)
    member = population.Member(task.x, y, task.x_new, found.settings, seed)
    (network,) = population.train_population([member], epochs=epochs)
    others = training.obs[label].astype(str)[y == 0].unique()
    classes = [others[0] if len(others) == 1 else f"not {case}", case]
    for name, model, part in (("LASSO", fit, training), ("DeepNet ii", network, training[:, own])):
        said = held_out["corrected", name]
        place = folder / name.lower().replace(" ", "_")
        save_model(place, model, part, y, classes, label=label, parameters=parameters, held_out=said)


def _mean_and_sd(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each gene; an SD of 0 where it never varies."""
    scaling = StandardScaler().fit(X)
    return scaling.mean_, np.where(np.ptp(X, axis=0) > 0, scaling.scale_, 0)


def _linear(model: object, mean: np.ndarray, sd: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Coefficients on z-scored genes (classes, genes) and intercepts (classes,); None for a network."""
    if isinstance(model, Pipeline):
        _, rotation, regression = (step for _, step in model.steps)
        own = regression.coef_ @ rotation.components_
        intercepts = regression.intercept_ - own @ rotation.mean_
    elif hasattr(model, "coef_"):
        own, intercepts = model.coef_ * sd, model.intercept_ + model.coef_ @ mean
    else:
        return None
    if len(own) == 1:  # of two classes the first stands at 0
        own, intercepts = np.vstack([0 * own, own]), np.array([0, intercepts[0]])
    return own, intercepts


def _network(model: object):
    """The model as a Keras network that gives logits."""
    if hasattr(model, "activation") and hasattr(model, "weights"):
        return _keras_of(model)
    if not hasattr(model, "layers"):
        raise ValueError(f"a {type(model).__name__} cannot be saved; expected a linear model or a Keras network.")
    last = getattr(model.layers[-1], "activation", None)
    if getattr(last, "__name__", "linear") != "linear":
        raise ValueError(f"the network ends in {last.__name__}; expected logits: leave the softmax to the loss.")
    return model


def _keras_of(trained):
    """A `population.Trained` in Keras' own layers; maxout is the largest of the pieces of a dense layer."""
    from gexlib.training import keras

    model = keras.Sequential([keras.Input((len(trained.mean),))], name="deepnet")
    for _, b in trained.weights[:-1]:
        activation = {"rectifier": "relu", "tanh": "tanh", "maxout": "linear"}[trained.activation]
        model.add(keras.layers.Dense(b.size, activation))
        if trained.activation == "maxout":
            model.add(keras.layers.Reshape(b.shape))
            model.add(keras.layers.GlobalMaxPooling1D())
    model.add(keras.layers.Dense(trained.weights[-1][1].size, name="logits"))
    model.set_weights([part for w, b in trained.weights for part in (w.reshape(len(w), -1), b.ravel())])
    return model


def _outputs(network, x: np.ndarray, batch: int = 512) -> np.ndarray:
    from gexlib.training import keras

    parts = [network(x[start : start + batch], training=False) for start in range(0, len(x), batch)]
    return np.concatenate([keras.ops.convert_to_numpy(part) for part in parts])


def _calibration_note(y: np.ndarray, held_out: np.ndarray | None, patients: np.ndarray) -> dict:
    if held_out is None:
        note = "the probabilities were not compared with held-out patients; read them as scores"
        return {"note": note, "scores": {}}
    table = with_intervals(y, held_out, patients, calibration)
    shares = np.bincount(y) / len(y)
    note = (
        f"held-out training patients of cross-validation: {_in_words(table)}; class shares alone have a Brier score of "
        f"{1 - (shares**2).sum():.3g}; the saved model is fitted on all of them and was not recalibrated"
    )
    return {"note": note, "scores": _in_json(table)}


def _in_words(table: pd.DataFrame) -> str:
    return "; ".join(f"{metric} {number_with_interval(row)}" for metric, row in table.iterrows())


def _in_json(table: pd.DataFrame) -> dict:
    return json.loads(table.to_json(orient="index"))


def calibration(y: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """A `statistics` for `evaluate.with_intervals`: do probabilities mean what they say?

    The Brier score is the squared distance to the truth summed over classes (0 to 2). The expected calibration error is
    the mean distance, in ten bins of the largest probability, between it and how often its class was right; chance
    makes it positive, the more so the fewer the samples.
    """
    squared = ((probabilities - np.eye(probabilities.shape[1])[y]) ** 2).sum(axis=1)
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == y
    bins = np.eye(10)[np.minimum((sure * 10).astype(int), 9)]
    total = weights.sum(axis=1)
    gaps = np.abs((weights * (right - sure)) @ bins).sum(axis=1)
    return {"Brier score": weights @ squared / total, "expected calibration error": gaps / total}


def _training_facts(training: anndata.AnnData, y: np.ndarray, classes: list[str]) -> dict:
    provenance = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in training.uns["provenance"].items()}
    counts = np.bincount(y, minlength=len(classes)).tolist()
    return {
        "cohort": _last_name(training.uns["cohort"]),
        "simulated": bool(training.uns["simulated"]),
        "samples": training.n_obs,
        "samples of each class": dict(zip(map(str, classes), counts, strict=True)),
        "patients": int(training.obs["patient"].nunique()),
        "patients, hashed": sorted(_hash(patient) for patient in training.obs["patient"].unique()),
        **provenance,
    }


def _hash(patient: str) -> str:
    """Half the sha256 of an id, which tells later whether a patient trained the model."""
    return hashlib.sha256(str(patient).encode()).hexdigest()[:32]


def _last_name(path: object) -> str:
    """Of a path the last name, so that no folder of this machine is saved."""
    return re.split(r"[\\/]", str(path))[-1]


@contextmanager
def _folder_written_whole(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its name when the block ends well."""
    found = [folder.name] if folder.is_file() else [p.name for p in folder.iterdir()] if folder.is_dir() else []
    foreign = sorted(set(found) - {"model.json", *FILES.values()})
    if foreign:
        raise ValueError(f"{folder} holds '{foreign[0]}', which is no part of a saved model; name another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    attempt = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    former = attempt.with_name(f"{attempt.name}-former")
    try:
        yield attempt
        attempt.chmod(0o755)
        if folder.exists():
            folder.rename(former)
        attempt.rename(folder)
    finally:
        for rest in (attempt, former):
            shutil.rmtree(rest, ignore_errors=True)


def load_model(folder: str | Path) -> SavedModel:
    """Open what `save_model` wrote. Nothing is unpickled; Keras, for a network only, is in safe mode.

    Raises
    ------
    ValueError : no saved model, one of a newer format, files that do not belong together, or a network with a layer
        that could run code
    """
    folder = Path(folder)
    facts = _read_facts(folder)
    file = folder / FILES[facts["kind"]]
    if not file.is_file() or sha256_of(file) != facts["sha256"]:
        found = "is not the file that model.json was written with" if file.is_file() else "is missing"
        raise ValueError(f"{file} {found}; copy the whole folder again, or save the model again.")
    logits = (_load_linear if facts["kind"] == "linear" else _load_network)(file)
    shape = np.shape(logits(np.zeros((1, len(facts["genes"])), np.float32)))
    if shape != (1, len(facts["classes"])):
        raise ValueError(f"{file} gives {shape} for one sample; expected {len(facts['classes'])} classes.")
    return SavedModel(folder.resolve().name, facts, logits)


def _read_facts(folder: Path) -> dict:
    """model.json, checked."""
    path = folder / "model.json"
    if not path.is_file():
        models = sorted(str(found.parent.relative_to(folder)) for found in folder.glob("**/model.json"))
        hint = f"there are: {', '.join(models)} below it" if models else "save one with `run NN --save-models`"
        raise ValueError(f"{folder}: {'no model.json in it' if folder.is_dir() else 'no such folder'}; {hint}.")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] <= FORMAT:
            twice = [name for key in ("genes", "classes") for name, n in Counter(facts[key]).items() if n > 1]
            shapes = {np.shape(np.asarray(facts[key], float)[np.isfinite(facts[key])]) for key in ("mean", "sd")}
            whole = shapes == {(len(facts["genes"]),)} and facts["kind"] in FILES and not KEYS - set(facts)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); save the model again.") from None
    if facts["format"] > FORMAT:
        found = f"has format {facts['format']}, and this gexlib reads up to {FORMAT}"
        raise ValueError(f"{path} {found}; install a newer gexlib.")
    if twice or not whole:
        found = f"names '{twice[0]}' more than once" if twice else "lacks a part, or a gene lacks its mean or sd"
        raise ValueError(f"{path} {found}; save the model again.")
    return facts


def _load_linear(file: Path) -> Callable:
    try:
        with np.load(file, allow_pickle=False) as parts:
            coefficients, intercepts = parts["coefficients"], parts["intercepts"]
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} does not hold plain coefficients and intercepts ({error}).") from None
    return lambda z: z @ coefficients.T + intercepts


def _load_network(file: Path) -> Callable:
    _check_layers(file)
    from gexlib.training import keras

    try:
        network = keras.saving.load_model(file, compile=False, safe_mode=True)
    except Exception as error:  # Keras passes on whatever its layers make of a foreign description
        raise ValueError(f"{file}: Keras cannot open it ({str(error).splitlines()[0]}); save it again.") from None
    return partial(_outputs, network)


def _check_layers(file: Path) -> None:
    """Refuse a network with anything but plain layers, before Keras sees it.

    Keras' safe mode refuses Lambda layers; it still imports whatever module a layer names.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            config = json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, ValueError):
        raise ValueError(f"{file} is no .keras file; save the model again with model.save('model.keras').") from None
    config.pop("compile_config", None)  # not read with compile=False
    for part in _described(config):
        name, module = str(part["class_name"]), str(part.get("module"))
        ours = module.startswith("gexlib.models.") and part.get("registered_name") == f"gexlib>{name}"
        if ours:
            importlib.import_module(module)
        elif module not in OTHER_MODULES and not (module in LAYER_MODULES and name in LAYERS):
            raise ValueError(
                f"{file} holds a '{name}' ({module}), which could run code of whoever made the file; expected plain "
                "layers such as Dense and Dropout: rebuild the network without it."
            )


def _described(config: object) -> Iterator[dict]:
    """Every part of a network's description that names a class."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        config = list(config.values())
    for part in config if isinstance(config, list) else ():
        yield from _described(part)


def predict(
    model: SavedModel, cohort: anndata.AnnData, *, max_missing: float = MAX_MISSING, rescale: bool = False
) -> tuple[pd.DataFrame, dict]:
    """What a saved model says of the samples of a cohort.

    Genes are matched by id. Missing ones stand at their training mean, so that they say nothing.

    Parameters
    ----------
    max_missing : the largest share of the model's genes that may be missing
    rescale : z-score each gene over these samples instead of by the training samples, for a cohort in another unit.
        The answer for one sample then depends on who else is in the cohort, and a cohort with another mix of classes is
        answered wrongly; nothing is learned from labels

    Returns
    -------
    DataFrame with columns sample, patient, predicted and ``p_<class>`` of each class; and a note: counts of genes, the
    shift of the genes, calibration, patients who trained the model

    Raises
    ------
    CohortError : another unit, no shared gene, too many missing ones, too few samples to rescale
    """
    own, where = model.facts, str(check_cohort(cohort).uns["cohort"])
    if not 0 <= max_missing < 1:
        raise ValueError(f"max_missing is {max_missing:g}; expected a share of the genes from 0 to less than 1.")
    if rescale and cohort.n_obs < FEWEST_TO_RESCALE:
        found = f"{cohort.n_obs} samples are too few to rescale genes by"
        raise CohortError(f"{where}: {found}; expected {FEWEST_TO_RESCALE} or more, or the unit '{own['unit']}'.")
    if not rescale and _plain(own["unit"]) != _plain(str(cohort.uns["unit"])):
        raise CohortError(
            f"{where}: the unit is '{cohort.uns['unit']}' but the model was trained on '{own['unit']}'; bring the "
            "cohort to that unit; or write ',unit=…' behind its name, where both words mean one scale; or pass "
            "--rescale, which z-scores each gene over the new samples."
        )
    there = cohort.var_names.get_indexer(own["genes"]) >= 0
    _check_genes(own["genes"], there, cohort.var_names, where, max_missing)
    said = _probabilities(model, cohort, rescale)
    if not np.isfinite(said).all():
        raise ValueError(f"the model {model.name} gives NaN; it was saved from a training that diverged.")
    patients, trained = cohort.obs["patient"].astype(str), set(own["training"]["patients, hashed"])
    table = pd.DataFrame({"sample": cohort.obs_names, "patient": patients.to_numpy()})
    table["predicted"] = np.asarray(own["classes"])[said.argmax(axis=1)]
    table[[f"p_{name}" for name in own["classes"]]] = said
    note = {
        "model": model.name,
        "trained on": own["training"]["cohort"],
        "simulated": own["training"]["simulated"],
        "cohort": _last_name(where),
        "samples": cohort.n_obs,
        "units": {"model": own["unit"], "cohort": str(cohort.uns["unit"])},
        "rescaled": rescale,
        "genes of the model": len(there),
        "missing": np.asarray(own["genes"])[~there].tolist(),
        "shift": _shift(own, cohort),
        "patients who trained the model": sum(_hash(patient) in trained for patient in patients.unique()),
        "calibration": own["calibration"]["note"],
    }
    return table, note


def _plain(unit: str) -> str:
    return re.sub(r"\s", "", unit).lower()


def _check_genes(genes: list[str], there: np.ndarray, known: pd.Index, where: str, max_missing: float) -> None:
    if len(genes) and not there.any():
        raise CohortError(
            f"{where}: none of the model's {len(genes):,} genes is there; the model knows '{genes[0]}', the cohort "
            f"'{known[0]}': map the ids to one kind (symbols, or Ensembl without version) before loading."
        )
    if (~there).sum() > max_missing * len(genes):
        raise CohortError(
            f"{where}: {(~there).sum():,} of the model's {len(genes):,} genes are missing ({(~there).mean():.1%}), the "
            f"first is '{genes[int(np.argmin(there))]}'; the limit is {max_missing:.1%}: check that the ids are of one "
            "kind, or raise it with --max-missing and trust the answer less."
        )


def _probabilities(model: SavedModel, cohort: anndata.AnnData, rescale: bool = False) -> np.ndarray:
    """(samples, classes), with every gene that is missing, or never varied in training, at its training mean."""
    mean, sd = np.array(model.facts["mean"]), np.array(model.facts["sd"])
    there, x = _shared(model.facts, cohort)
    centre, spread = _mean_and_sd(x) if rescale and len(there) else (mean[there], sd[there])
    z = np.zeros((cohort.n_obs, len(mean)), np.float32)
    z[:, there] = np.divide(x - centre, spread, where=spread > 0, out=np.zeros(x.shape))
    return softmax(model.logits(z if model.facts["scaled"] else (z * sd + mean).astype(np.float32)), axis=1)


def _shared(facts: dict, cohort: anndata.AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Positions among the model's genes, and values (samples, genes), of those that the cohort has."""
    at = cohort.var_names.get_indexer(facts["genes"])
    return np.flatnonzero(at >= 0), np.asarray(cohort.X)[:, at[at >= 0]]


def _shift(facts: dict, cohort: anndata.AnnData) -> float | None:
    """Median distance of a gene's mean from its training mean, in training SDs."""
    there, x = _shared(facts, cohort)
    mean, sd = (np.array(facts[key])[there] for key in ("mean", "sd"))
    far = np.abs(x.mean(axis=0) - mean)[sd > 0] / sd[sd > 0]
    return round(float(np.median(far)), 4) if far.size else None


def score(model: SavedModel, table: pd.DataFrame, cohort: anndata.AnnData, label: str) -> dict[str, pd.DataFrame]:
    """Accuracy, macro AUC and `calibration`, with intervals, where the truth is known: of all patients and of new ones.

    Parameters
    ----------
    table : what `predict` gave for this cohort
    label : the column of the truth; samples of classes that the model does not know are left out

    Returns
    -------
    {which patients: table as of `evaluate.with_intervals`}; new ones stand apart only where there are others, and a
    part of under 10 samples or of one class is not scored

    Raises
    ------
    CohortError : no such column, or none of its values is a class of the model
    """
    classes, y = model.facts["classes"], _class_numbers(model, cohort, label)
    known = set(model.facts["training"]["patients, hashed"])
    new = np.array([_hash(patient) not in known for patient in table["patient"]])
    parts = {"all patients": y >= 0} | ({} if new.all() else {"patients new to the model": (y >= 0) & new})
    said, patients = table[[f"p_{name}" for name in classes]].to_numpy(), table["patient"].to_numpy()
    asked = ["accuracy", "macro AUC", "Brier score", "expected calibration error"]
    return {
        part: with_intervals(y[rows], said[rows], patients[rows], lambda *a: scores(*a) | calibration(*a)).loc[asked]
        for part, rows in parts.items()
        if rows.sum() >= FEWEST_TO_SCORE and len(np.unique(y[rows])) > 1
    }


def _class_numbers(model: SavedModel, cohort: anndata.AnnData, label: str) -> np.ndarray:
    """The truth as class numbers of the model, (samples,); -1 where it is missing or a class of another name."""
    classes = model.facts["classes"]
    truth = column_of(cohort, label).astype(object).map(str, na_action="ignore")
    if classes[0] == f"not {classes[-1]}":
        truth = truth.where(truth.isna() | (truth == classes[-1]), classes[0])
    y = pd.Categorical(truth, classes).codes
    if (y < 0).all():
        found = ", ".join(f"'{value}'" for value in truth.dropna().unique()[:5]) or "nothing"
        raise CohortError(f"{cohort.uns['cohort']}: '{label}' holds {found}; the model knows {', '.join(classes)}.")
    return y


def apply(
    folder: str | Path,
    cohort: str,
    out: str | Path,
    samples: str | None = None,
    label: str | None = None,
    max_missing: float = MAX_MISSING,
    rescale: bool = False,
) -> None:
    """`python -m gexlib predict`: write the table of `predict` to `out` and its note beside it as ``<out>.json``.

    Raises
    ------
    ValueError : as `load_model`, `predict` and `score`; or `out` ends in neither .csv nor .tsv
    """
    out = Path(out)
    if out.suffix not in (".csv", ".tsv") or out.is_dir():
        raise ValueError(f"--out is '{out}'; expected the name of a .csv or .tsv file.")
    from gexlib import load_cohort

    model = load_model(folder)
    opened = load_cohort(cohort, samples)
    table, note = predict(model, opened, max_missing=max_missing, rescale=rescale)
    found = score(model, table, opened, label) if label else {}
    note["without a known class"] = int((_class_numbers(model, opened, label) < 0).sum()) if label else None
    note["scores"] = {part: _in_json(rows) for part, rows in found.items()}
    with written_whole(out) as temporary:
        table.to_csv(temporary, sep="," if out.suffix == ".csv" else "\t", index=False, float_format="%.6g")
    write_json(out.with_name(out.name + ".json"), note)
    _tell(model, note, found, label)


def _tell(model: SavedModel, note: dict, found: dict[str, pd.DataFrame], label: str | None) -> None:
    """What a reader has to know beside the file."""
    training, old, shift = model.facts["training"], note["patients who trained the model"], note["shift"]
    kind = " (simulated)" if note["simulated"] else ""
    print(f"{model.name}, trained on {training['samples']:,} samples of {note['trained on']}{kind}.")
    told = f"{len(note['missing']):,} of the model's {note['genes of the model']:,} genes are missing"
    told += " and stand at their training mean" if note["missing"] else ""
    told = told if note["genes of the model"] else "the model keeps no gene: it says the same of everyone"
    print(f"{note['samples']:,} samples of {note['cohort']}; {told}.")
    if note["rescaled"]:
        print("Each gene was z-scored over these samples: an answer depends on who else is among them.")
    elif shift is not None:
        far = ", which is far: do the two come from one scale and one kind of assay?" if shift > 1 else "."
        print(f"In the median a gene's mean lies {shift:.2f} training SDs from its training mean{far}")
    if old:
        print(f"{old:,} patients have the id of one who trained the model: of them a score is no test.")
    print(f"Calibration: {note['calibration']}.")
    for part, rows in found.items():
        print(f"{part.capitalize()}, '{label}': {_in_words(rows)}.")
    if note["without a known class"]:
        print(f"Not scored: {note['without a known class']:,} samples whose '{label}' is no class of the model.")
    if label and len(found) < 1 + bool(old):
        print(f"Too few {'patients new to the model' if found else 'samples'} with a known class to score.")
