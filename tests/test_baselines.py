"""The numbers that this test run's notebooks wrote, beside the committed ones in results/.

`make baselines` regenerates the committed ones. Within one processor type the numbers repeat to the bit; between
processors training takes other roundings, hence the tolerances, which are about half an interval's width.
"""

import json

import pytest

from gexlib.files import home
from gexlib.results import check_results

TOLERANCE = {"network": 0.06, "shuffled control": 0.06}  # by family; what is not trained step by step repeats closely
ELSEWHERE = 0.01
STUDIES = sorted(path.parent.name for path in (home() / "results").glob("*/tiny.json"))


@pytest.fixture(params=STUDIES)
def pair(request):
    path = home() / "runs" / request.param / "notebook" / "results.json"
    if not request.config.notebooks_executed:
        pytest.skip("the notebooks were not executed in this run; `make test` executes each once")
    assert path.stat().st_mtime > request.config.started, "the notebook did not come to its end in this run"
    ours = check_results(json.loads(path.read_text(encoding="utf-8")))
    return ours, json.loads((home() / "results" / request.param / "tiny.json").read_text(encoding="utf-8"))


def by_key(rows, *keys):
    return {tuple(row[k] for k in keys): row for row in rows}


def test_every_metric_is_where_it_was(pair):
    keys = ("cohort", "protocol", "part", "model", "metric")
    ours, committed = (by_key(content["rows"], *keys) for content in pair)
    assert ours.keys() == committed.keys()
    for key, row in ours.items():
        assert row["value"] == pytest.approx(committed[key]["value"], abs=TOLERANCE.get(row["family"], ELSEWHERE)), key
        assert row["n"] == committed[key]["n"]


def test_faults_and_explanations_are_where_they_were(pair):
    for section, keys, column, tolerance in (
        ("faults", ("fault", "metric"), "corrected", 0.06),
        ("explanations", ("method", "target", "measure"), "value", 0.15),
    ):
        ours, committed = (by_key(content[section], *keys) for content in pair)
        assert ours.keys() == committed.keys()
        for key, row in ours.items():
            assert row[column] == pytest.approx(committed[key][column], abs=tolerance), key


def test_what_is_exact_is_exact(pair):
    ours, committed = pair
    for key in ("cohort", "parameters"):
        assert ours[key] == committed[key]


def test_no_verdict_has_turned(pair):
    ours, committed = ({claim["id"]: claim["verdict"] for claim in content["claims"]} for content in pair)
    assert ours == committed
