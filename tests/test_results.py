import json

import numpy as np
import pytest
import yaml
from matplotlib import pyplot as plt

from gexlib.claims import ledger
from gexlib.files import home
from gexlib.results import Record, check_results, number_with_interval, parameters_of
from gexlib.sources.simulated import simulate


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.setenv("GEXLIB_OUT", str(tmp_path))
    return Record("01", simulate("neuroblastoma", n=40, genes=100), {"seed": 1})


def score(record, **changed):
    y = np.arange(40) % 2
    named = {"protocol": "corrected", "part": "test", "family": "network"} | changed
    return record.score("network", y, np.eye(2)[y], np.arange(40), **named)


def judge_all(record):
    for claim in ledger.load_claims("01"):
        record.claim(claim["id"], None, "not measured in this test")


def test_a_complete_record_is_written_under_the_schema_and_rounded(record, tmp_path):
    score(record)
    judge_all(record)
    content = json.loads(record.write().read_text())
    assert check_results(content) == content
    assert {row["metric"] for row in content["rows"]} == {"accuracy", "balanced accuracy", "macro AUC", "micro AUC"}
    assert content["rows"][0] | {"study": "01", "simulated": True, "n": 40, "value": 1.0} == content["rows"][0]
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_record_without_a_verdict_for_every_claim_is_refused_and_writes_nothing(record, tmp_path):
    score(record)
    with pytest.raises(ValueError, match="no verdict for the claims 01.1,"):
        record.write()
    assert not list(tmp_path.iterdir())


def test_a_row_that_breaks_the_schema_is_refused_with_its_place(record):
    score(record, family="magic")
    judge_all(record)
    with pytest.raises(ValueError, match=r"rows/\d+/family: 'magic' must be one of"):
        record.write()


def test_a_figure_is_saved_with_the_numbers_it_draws(record, tmp_path):
    fig, ax = plt.subplots()
    ax.plot([1, 2])
    ax.set_title("A title " * 20, loc="left")
    record.figure(fig, "line", "A line, n = 2.", [1.0, 2.0])
    assert len(ax.get_title(loc="left").splitlines()) > 1
    fig.add_axes((0.95, 0.1, 0.005, 0.8))  # as narrow as a colour bar
    record.figure(fig, "line", "A line, n = 2.", [1.0, 2.0])
    drawn = json.loads((tmp_path / "figures" / "line.json").read_text())
    assert drawn == {
        "caption": "A line, n = 2.",
        "cohort": "simulated:neuroblastoma,n=40,genes=100,seed=1",
        "simulated": True,
        "numbers": [1.0, 2.0],
    }
    assert (tmp_path / "figures" / "line.png").stat().st_size > 1000
    plt.close(fig)


def test_a_cell_that_is_run_again_replaces_what_it_found(record):
    score(record)
    score(record)
    record.fault("a fault", "accuracy", as_published=1.0, corrected=0.5, low=0.4, high=0.6, n=40)
    record.fault("a fault", "accuracy", as_published=1.0, corrected=0.6, low=0.4, high=0.7, n=40)
    assert len(record.content["rows"]) == 4 and [f["corrected"] for f in record.content["faults"]] == [0.6]
    assert record.table(part="test").shape == (1, 4)


def test_a_claim_measured_on_a_simulated_cohort_is_never_judged_as_the_papers_own(record):
    record.simulated, record.cohort = False, "geo:GSE85047"
    record.claim("01.10", True, "more patients help", cohort="simulated:neuroblastoma,n=6000", **NARROW)
    (judged,) = record.content["claims"]
    assert (judged["verdict"], judged["simulated"]) == ("holds elsewhere", True)


def test_parameters_are_the_annotated_names_and_nothing_that_came_later():
    namespace = {"seed": 3, "sizes": [1, 2], "later": "x", "np": np, "__annotations__": {"seed": int, "sizes": list}}
    assert parameters_of(namespace) == {"seed": 3, "sizes": [1, 2]}


def test_numbers_are_said_with_their_interval_and_n():
    assert number_with_interval({"value": 0.71, "low": 0.65, "high": 0.7654, "n": 249}) == "0.71 [0.65, 0.765], n = 249"
    assert number_with_interval({"value": None, "low": None, "high": None, "n": None}) == ""


NARROW, WIDE = {"low": 0.70, "high": 0.75}, {"low": 0.5, "high": 0.9}


@pytest.mark.parametrize(
    ("id", "cohort", "simulated", "holds", "ours", "verdict"),
    [
        ("01.4", "geo:GSE85047", False, True, NARROW, "reproduced"),
        ("01.4", "geo:GSE85047", False, True, {"low": 0.80, "high": 0.85}, "not reproduced"),
        ("01.4", "geo:GSE85047", False, True, WIDE, "cannot be judged"),
        ("01.6", "geo:GSE85047", False, False, NARROW, "not reproduced"),
        ("01.4", "real:neuroblastoma_seqc", False, True, NARROW, "holds elsewhere"),
        ("01.6", "real:neuroblastoma_seqc", False, False, NARROW, "fails elsewhere"),
        ("01.6", "real:neuroblastoma_seqc", False, None, NARROW, "cannot be judged"),
        ("01.6", "simulated:neuroblastoma", True, True, NARROW, "cannot be judged"),
        ("01.10", "simulated:neuroblastoma,n=6000", True, True, NARROW, "holds elsewhere"),
        ("01.12", "simulated:neuroblastoma", True, False, NARROW, "arithmetic"),
    ],
)
def test_verdicts_follow_from_claim_and_cohort(id, cohort, simulated, holds, ours, verdict):
    assert ledger.decide(id, cohort, simulated, holds, ours) == verdict


def test_a_study_may_leave_some_of_its_claims_to_a_second_notebook():
    first, second = ({claim["id"] for claim in ledger.load_claims(notebook)} for notebook in ("02", "02b"))
    assert first and second and not first & second


def test_an_unknown_claim_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"no claim '01.99'"):
        ledger.decide("01.99", "geo:GSE85047", False, True, {})


@pytest.mark.parametrize("path", sorted((home() / "gexlib" / "claims").glob("*.yaml")), ids=lambda path: path.stem)
def test_claims_files_are_complete(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    ids = [claim["id"] for claim in content["claims"]]
    assert len(ids) == len(set(ids)) and all(id.startswith(f"{path.stem}.") for id in ids)
    for claim in content["claims"]:
        assert {"id", "section", "claim", "published", "about"} <= set(claim)
        assert claim["about"] in ("result", "method", "arithmetic")


@pytest.mark.parametrize(
    "path", sorted((home() / "results").glob("*/*.json")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_committed_results_keep_the_schema_and_judge_every_claim(path):
    content = check_results(json.loads(path.read_text(encoding="utf-8")))
    assert content["notebook"][:2] == path.parent.name[:2]
    asked = [] if content["notebook"] == "06" else ledger.load_claims(content["notebook"])  # 06 is no paper
    assert {c["id"] for c in content["claims"]} == {c["id"] for c in asked}


def test_the_ledger_prints_each_claim_with_the_papers_value_and_ours(tmp_path, monkeypatch, capsys, record):
    score(record)
    judge_all(record)
    record.claim("01.10", True, "the gap is there", value=0.31, low=0.3, high=0.32, n=40)
    content = json.loads(record.write().read_text())
    monkeypatch.setattr(ledger, "collect", lambda: [("results/01/tiny.json", content)])
    ledger.print_ledger()
    printed = " ".join(capsys.readouterr().out.split())
    assert "01.4 The macro-average test AUC is 0.71. paper: 0.71 (Results)" in printed
    assert "holds elsewhere · simulated · 0.31 [0.3, 0.32], n = 40 · the gap is there [results/01/tiny.json]" in printed
