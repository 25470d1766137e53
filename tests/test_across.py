"""One comparison for every study: same folds, paired differences, and the words that sort methods and faults."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gexlib import across, evaluate
from gexlib.across import EXPLANATIONS, FAULTS, NAMES, TASKS, Task, compare, faults_of, kind_of, open_task
from gexlib.files import home
from gexlib.models.linear import fixed_ridge_recipe
from gexlib.results import check_results

SMALL = Task("01", "simulated:neuroblastoma,n=120,genes=200", "inss_stage", "stand-in", folds=3, sizes=(4,), draws=2)


@pytest.fixture
def stand_in(monkeypatch):
    """A linear model in the network's place, which costs nothing."""
    one = lambda data: lambda x, y, who, parts, seed: evaluate.predictions(fixed_ridge_recipe(), x, y, who, parts, seed)  # noqa: E731
    monkeypatch.setitem(across.NETWORKS, "stand-in", one)


def test_every_task_has_a_name_and_a_network():
    assert list(NAMES) == list(TASKS)
    assert {task.network for task in TASKS.values()} == set(across.NETWORKS)


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.cohort.startswith("simulated:")])
def test_a_task_keeps_the_samples_of_a_patient_on_one_side(name):
    data = open_task(TASKS[name])
    assert len(data.classes) == data.y.max() + 1 and np.bincount(data.y).min() > 0
    tested = np.concatenate([test for _, _, test in data.parts])
    assert sorted(tested) == list(range(len(data.y)))
    for _, train, test in data.parts:
        assert not set(data.patients[train]) & set(data.patients[test])


def test_compare_measures_every_family_and_its_difference_to_the_network(stand_in):
    content = check_results(compare(SMALL))
    rows = pd.DataFrame(content["rows"])
    tested = rows[(rows.part == "test") & (rows.metric == "macro AUC")].set_index("model")
    assert set(tested.family) == {"network", "linear", "trees", "nearest centroid", "majority", "shuffled control"}
    assert tested.value["stand-in"] > 0.6 > tested.value["shuffled ridge"]
    gaps = rows[(rows.part == "difference, test") & (rows.metric == "macro AUC")].set_index("model")
    for other in ("ridge", "random forest"):
        gap = tested.value["stand-in"] - tested.value[other]
        assert gaps.value[f"stand-in minus {other}"] == pytest.approx(gap)
    assert {"4 of each class", "difference, 4 of each class"} < set(rows.part)


def test_few_patients_of_each_class_train_and_all_others_are_tested(stand_in):
    rows = pd.DataFrame(compare(replace(SMALL, sizes=(6,)))["rows"])
    few = rows[rows.part == "6 of each class"]
    assert set(few.model) == {"stand-in", "ridge", "random forest"}
    assert (few.n <= 120).all() and (few.n > 60).all()


def test_an_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="no task 'stag'.*stage"):
        across.main(["stag"])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("guided saliency, positive part, with Normal", "guided gradient"),
        ("Gene-CAM × guided gradient", "guided Gene-CAM"),
        ("plain gradient × input", "gradient × input"),
        ("selection frequency, t-test and correlation filter", "frequency of selection by t-test"),
        ("t statistic", "univariate test"),
        ("something new", "something new"),
    ],
)
def test_the_first_words_that_fit_name_the_kind(name, kind):
    assert kind_of(name, EXPLANATIONS) == kind


def test_every_committed_fault_and_method_has_a_kind():
    for file in (home() / "results").glob("0[1-5]*/*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        assert set(faults_of(content).kind) <= set(FAULTS.values()), file
        for method in {entry["method"] for entry in content["explanations"]}:
            assert "trait" in method or kind_of(method, EXPLANATIONS) in EXPLANATIONS.values(), (file, method)


def test_the_published_pooling_counts_as_a_fault():
    content = json.loads((home() / "results/02/tiny.json").read_text(encoding="utf-8"))
    pooling = faults_of(content).set_index("fault").loc["subsampling pool"]
    rows = pd.DataFrame(content["rows"]).query(
        "part == 'tumours' and protocol == 'as_published' and metric == 'accuracy'"
    )
    values = rows.set_index("model").value
    assert pooling.as_published == values["1D-CNN, subsampled"] and pooling.corrected == values["1D-CNN"]
