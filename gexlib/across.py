"""Every study's task with every family of model, on the same folds: the numbers that notebook 06 reads.

`python -m gexlib.across NAME …` runs tasks of `TASKS` and keeps them as results/06/NAME.json; without a name it lists
them. Real cohorts are read from GEXLIB_REAL_DATA. Nothing here is chosen on test samples: penalties, epochs, settings
and genes are chosen on inner folds of the training part, by patient.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier

from gexlib import evaluate, splits
from gexlib.cohort import beside, drop_unlabelled, keep_samples, label_of
from gexlib.files import home, write_json
from gexlib.models.linear import class_shares_recipe, multinomial_recipe, nearest_centroid_recipe, ridge_recipe
from gexlib.results import Record, check_results
from gexlib.sources import load_cohort
from gexlib.sources.tcia import TRAITS, traits_of
from gexlib.words import nearest

METRIC = {"AUC": "macro AUC"}  # a mean over test folds: models of different folds are never ranked together
MANY = 2000  # samples from which on one inner fifth is enough to choose a penalty
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Task:
    """A label of a cohort, and the network that its study would use for it.

    Parameters
    ----------
    study : number of the notebook
    cohort, label : what `load_cohort` takes; the column of classes
    network : a key of `NETWORKS`
    keep : a condition on the samples table
    outside, outside_label : another cohort that is tested once, in place of folds
    split_column, train_value : where a column says who trains; the others are tested once
    folds : of the cross-validation, by patient
    sizes : training patients of each class, for a curve; `draws` of each
    """

    study: str
    cohort: str
    label: str
    network: str
    keep: str = ""
    outside: str = ""
    outside_label: str = ""
    split_column: str = ""
    train_value: str = ""
    folds: int = 5
    sizes: tuple[int, ...] = ()
    draws: int = 5


TRAITS_TASK = Task("04", "simulated:radiogenomics", "", "imaging network", folds=10)
TASKS = {
    "stage_simulated": Task("01", "simulated:neuroblastoma", "inss_stage", "INSS network"),
    "stage": Task(
        "01", "real:neuroblastoma_seqc", "inss_stage", "INSS network", split_column="training", train_value="Training"
    ),
    "types_simulated": Task("02", "simulated:pancancer", "cohort", "1D-CNN", 'tissue == "tumour"'),
    "types_mirna": Task(
        "02", "real:tcga_mirna_pancan", "cohort", "1D-CNN", 'sample_type == "Tumour"', sizes=(4, 8, 16, 32), draws=3
    ),
    "types_mrna": Task("02", "real:tcga15_mrna", "cohort", "1D-CNN", 'sample_type == "Tumour"', sizes=(4, 8, 16)),
    "sites_simulated": Task("03", "simulated:sites", "cohort", "GeneXNet", 'tissue == "tumour"', folds=3),
    **{f"trait_{trait.name}": replace(TRAITS_TASK, label=short) for short, trait in TRAITS.items()},
    "gbm_subtype": Task(
        "04", "real:tcga_gbm_clanc840", "verhaak", "imaging network", outside="real:tcga_gbm", outside_label="subtype"
    ),
    "vital_simulated": Task("05", "simulated:vital_kipan", "vital", "DeepNet ii", 'tissue == "tumour"', folds=10),
    "vital_kipan": Task(
        "05", "real:tcga_mirna_pancan", "vital_any", "DeepNet ii",
        'cohort in ["KIRC", "KIRP", "KICH"] and sample_type == "Tumour"', folds=10,
    ),
    "vital_breast": Task("05", "real:tcga_brca", "vital", "DeepNet ii", 'vital in ["alive", "dead"]', folds=10),
    "er_breast": Task(
        "05", "real:tcga_brca", "er", "DeepNet ii", 'er in ["positive", "negative"]', folds=10,
        sizes=(16, 64), draws=3,
    ),
}  # fmt: skip

NAMES = {
    "stage_simulated": "01 stage, simulated", "stage": "01 stage, neuroblastoma",
    "types_simulated": "02 33 types, simulated", "types_mirna": "02 32 types, miRNA", "types_mrna": "02 15 types, mRNA",
    "sites_simulated": "03 types of eight sites, simulated",
    **{f"trait_{trait.name}": f"04 {trait.name}, simulated" for trait in TRAITS.values()},
    "gbm_subtype": "04 subtype, glioblastoma, other patients", "vital_simulated": "05 vital status, simulated",
    "vital_kipan": "05 vital status, kidney miRNA", "vital_breast": "05 vital status, breast",
    "er_breast": "05 ER status, breast",
}  # fmt: skip

EXPLANATIONS = {  # words in the name of a method -> the kind that notebook 06 compares; the first that fits
    "Gene-CAM × guided": "guided Gene-CAM", "Gene-CAM": "Gene-CAM", "× input": "gradient × input",
    "integrated": "integrated gradients", "guided": "guided gradient", "gradient": "plain gradient",
    "activation": "activation maximisation", "masked genes": "masking of single genes",
    "true rule": "masking, true rule",
    "masking": "masking of sets", "statistic": "univariate test", "correlation with": "univariate test",
    "t-test": "frequency of selection by t-test", "LASSO": "frequency of selection by LASSO",
    "coefficient": "linear coefficients", "mean of the set": "mean of the set's genes",
}  # fmt: skip

FAULTS = {  # words in the name of a fault -> its kind
    "best epoch": "score at the best epoch of the test fold", "saw the target": "pretraining that saw the test samples",
    "scaling": "scaling before the split", "in-sample": "masking of training patients",
    "no majority": "accuracy beside no majority baseline", "micro AUC": "micro AUC read against 0.5",
    "one small split": "one small split, no interval", "relatives": "one patient on both sides",
    "normal tissue": "normals among the patients", "50 genes": "genes chosen on all samples (shuffled labels)",
    "protocol of": "filter on all samples, no inner stop", "subsampling": "pooling that drops half of the genes",
}  # fmt: skip


def kind_of(name: str, kinds: Mapping[str, str]) -> str:
    """The kind of a method or a fault, by the first words of `kinds` that its name holds; else the name."""
    return next((kind for words, kind in kinds.items() if words in name), name)


def faults_of(content: Mapping) -> pd.DataFrame:
    """The faults that one results.json holds, with study, cohort and kind; the published pooling of 02 among them.

    A micro AUC read against one half stands as what it has above one half, as its corrected value has what it has
    above the class shares.
    """
    rows, faults = pd.DataFrame(content["rows"]), list(content["faults"])
    of = rows[(rows.part == "tumours") & (rows.protocol == "as_published") & (rows.metric == "accuracy")]
    of = of.set_index("model")
    if "1D-CNN, subsampled" in of.index:
        better, worse = of.loc["1D-CNN"], of.loc["1D-CNN, subsampled", "value"]
        numbers = {"as_published": worse, "corrected": better.value} | dict(better[["low", "high", "n"]])
        faults.append({"fault": "subsampling pool", "metric": "accuracy"} | numbers)
    name = "simulated" if content["cohort"]["simulated"] else content["cohort"]["name"].split(",")[0]
    table = pd.DataFrame(faults, columns=["fault", "metric", "as_published", "corrected", "low", "high", "n"])
    table = table.assign(study=content["notebook"], cohort=name.removeprefix("real:"))
    table["as_published"] -= 0.5 * table["fault"].str.contains("read against 0.5")
    return table.assign(kind=[kind_of(fault, FAULTS) for fault in table["fault"]])


def open_task(task: Task) -> SimpleNamespace:
    """The samples of a task: cohort, X, y, patients, classes, parts and, where others wait outside, all of them."""
    cohort = load_cohort(task.cohort)
    if task.label in TRAITS:
        cohort.obs[task.label] = traits_of(cohort.obs)[task.label]
    cohort = keep_samples(drop_unlabelled(cohort, task.label), task.keep)
    data = beside(cohort, load_cohort(task.outside), task.label, task.outside_label) if task.outside else cohort
    kinds = label_of(data, task.label).astype("category").cat.remove_unused_categories()
    y, patients = kinds.cat.codes.to_numpy().astype(int), data.obs["patient"].to_numpy()
    if task.outside:
        parts = [(0, np.arange(cohort.n_obs), np.arange(cohort.n_obs, data.n_obs))]
    elif task.split_column:
        parts = [(0, *splits.given_split(data, task.split_column, task.train_value))]
    else:
        parts = list(splits.grouped_folds(y, patients, splits.at_most(task.folds, y, patients), seed=7))
    whole = SimpleNamespace(cohort=cohort, X=np.asarray(data.X), y=y, patients=patients, parts=parts)
    whole.classes = [str(name) for name in kinds.cat.categories]
    return whole


def compare(task: Task, seed: int = 7) -> dict:
    """One task with every family, their paired differences to the network, and the curves over training patients.

    Returns
    -------
    content of a results.json: rows of part "test" (or "8 of each class" and so on), models named by what they are; and
    rows of part "difference", network minus each other model
    """
    data = open_task(task)
    record = Record("06", data.cohort, asdict(task) | {"seed": seed})
    linear = ridge_recipe() if len(data.y) < MANY else multinomial_recipe(PENALTIES)  # inner folds, or one inner fifth
    models = {
        task.network: ("network", NETWORKS[task.network](data)),
        "ridge": ("linear", _folded(linear)),
        "random forest": ("trees", _folded(_forest)),
        "nearest centroid": ("nearest centroid", _folded(nearest_centroid_recipe())),
        "class shares": ("majority", _folded(class_shares_recipe())),
        "shuffled ridge": ("shuffled control", _folded(evaluate.shuffled(linear))),
    }
    _measure(record, task, data, models, data.parts, "test", seed)
    some = {name: models[name] for name in (task.network, "ridge", "random forest")}
    for size in task.sizes:
        drawn = splits.few_per_class(data.y, data.patients, size, task.draws, seed)
        _measure(record, task, data, some, drawn, f"{size} of each class", seed)
    return record.content


def _measure(record: Record, task: Task, data, models: Mapping, parts: list, part: str, seed: int) -> None:
    said = {}
    for name, (_, predict) in models.items():
        with record.timed(f"{name}, {part}"):
            said[name] = predict(data.X, data.y, data.patients, parts, seed)
    for statistics in (evaluate.within_folds(parts, len(data.y), None), evaluate.accuracy_scores):
        alone, gaps = evaluate.beside_one(data.y, said, task.network, data.patients, statistics, seed)
        for name, table in alone.items():
            for metric, row in table.dropna().iterrows():
                record.number(name, METRIC.get(metric, metric), row, part=part, family=models[name][0])
        for name, table in gaps.items():
            for metric, row in table.dropna().iterrows():
                what = f"{task.network} minus {name}"
                record.number(what, METRIC.get(metric, metric), row, part=f"difference, {part}", family="network")


def _folded(recipe: Callable) -> Callable:
    return partial(evaluate.predictions, recipe)


def _forest(x, y, patients, seed):
    return RandomForestClassifier(500, class_weight="balanced", n_jobs=2, random_state=seed).fit(x, y).predict_proba


def _inss(data) -> Callable:
    from gexlib.models.mlp import inss_network
    from gexlib.training import Trainer, network_recipe

    trainer = Trainer(lambda: inss_network(data.X.shape[1], len(data.classes)), 1e-5, rows=len(data.y))
    return _folded(network_recipe(trainer, 5000, scale=True, stop_early=True))


def _cnn(data) -> Callable:
    from gexlib.models.cnn import cnn_1d
    from gexlib.prep import LowInformationFilter
    from gexlib.training import BatchTrainer, batch_recipe

    trainer = BatchTrainer(partial(cnn_1d, data.X.shape[1], len(data.classes)), rows=len(data.y))
    return _folded(batch_recipe(trainer, 50, protocol="corrected", gene_filter=LowInformationFilter()))


def _genexnet(data) -> Callable:
    from gexlib.models.genexnet import genexnet
    from gexlib.training import BatchTrainer, steps_recipe

    plan = dict(theta_d=0.05, theta_r=0.2, theta_k=8, transitions=(True, False, False, False), momentum=0.9)
    build = partial(genexnet, data.X.shape[1], len(data.classes), **plan)
    trainer = BatchTrainer(build, 3e-3, rows=len(data.y), batch=64)
    return _folded(steps_recipe(trainer, 600, scale=True, halve_after=50))


def _imaging(data) -> Callable:
    from gexlib.models.radiogenomic import ImagingSettings
    from gexlib.stopping import at_the_inner_best

    candidates = {str(rate): ImagingSettings((300, 150, 75), dropout=rate) for rate in (0.2, 0.4)}

    def predict(x, y, patients, parts, seed):
        how = dict(inner=3, epochs=100, batch=10, seed=seed)
        return at_the_inner_best(x, y, patients, parts, candidates, **how).probabilities

    return predict


def _deepnet(data) -> Callable:
    from gexlib.models import lasso, population
    from gexlib.models.mlp import draw_settings

    def predict(x, y, patients, parts, seed):
        fits, tasks = lasso.over_parts(x, y, patients, parts, inner_folds=5, seed=seed, end_early=True), []
        for fit, (_, train, test) in zip(fits, parts, strict=True):
            own = fit.signature
            tasks.append(population.Task(x[train][:, own], y[train], patients[train], x[test][:, own]))
        found = population.search(tasks, [draw_settings(30, seed)] * len(tasks), seed=seed, epochs=10)
        return evaluate.placed(parts, [fitted.probabilities for fitted in found], len(y))

    return predict


NETWORKS = {
    "INSS network": _inss,
    "1D-CNN": _cnn,
    "GeneXNet": _genexnet,
    "imaging network": _imaging,
    "DeepNet ii": _deepnet,
}


def main(names: list[str]) -> int:
    """Run the tasks named and keep what they found."""
    if not names:
        print(*TASKS, sep="\n")
    for name in names:
        if name not in TASKS:
            raise ValueError(f"no task '{name}' ({nearest(name, TASKS)}).")
    for name in names:
        target = home() / "results" / "06" / f"{name}.json"
        write_json(target, check_results(compare(TASKS[name])))
        print(target.relative_to(home()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
