"""Sweeps without Snakemake: what a sweep file asks for, what one run leaves, what is collected."""

import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_run import write_notebook

from gexlib import run, sweep
from gexlib.__main__ import main, make_parser
from gexlib.files import home

PARAMETERS = """\
cohort: str = "simulated:neuroblastoma"
samples: str = ""
seed: int = 7
rate: float = 1e-5
units: int = 16
sizes: list[int] = [280, 560]
label: str = "inss_stage"
"""
RESULTS = """\
import json, os, pathlib
out = pathlib.Path(os.environ["GEXLIB_OUT"])
assert rate < 1, "the rate is no rate"
_ = (out / "results.json").write_text(json.dumps({"threads": os.environ["NPROC"]}))"""
SWEEPS = sorted((home() / "sweeps").glob("*.yaml"))


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A repository with one notebook; gexlib's own code stands still."""
    write_notebook(tmp_path / "notebooks/01_small.ipynb", RESULTS, parameters=PARAMETERS)
    monkeypatch.chdir(tmp_path)
    for module in (run, sweep):
        monkeypatch.setattr(module, "home", lambda: tmp_path)
    return tmp_path


def settled(room: Path, text: str, notebook: str = 'notebook: "01"\n') -> sweep.Sweep:
    (room / "asked.yaml").write_text(notebook + text)
    return sweep.read_sweep(room / "asked.yaml", room / "out")


def chosen(request: sweep.Sweep) -> list[dict]:
    return [run["chosen"] for run in request.runs.values()]


@pytest.fixture
def one_run():
    pytest.importorskip("fcntl", reason="sweeps need the file locks of Linux or macOS")
    specification = importlib.util.spec_from_file_location("one_run", home() / "workflow/one_run.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


# the sweep file


def test_runs_are_all_combinations_on_top_of_what_is_fixed(room):
    request = settled(
        room, "fixed: {units: 8}\nlist: [{label: a}, {label: b}]\ngrid: {rate: [1e-4, 0.5]}\nseeds: [1, 2, 3]"
    )
    assert len(request.runs) == 12 and request.swept == ["label", "rate", "seed"]
    assert chosen(request)[0] == {"units": 8, "label": "a", "rate": 1e-4, "seed": 1}
    assert {run["parameters"]["sizes"] == [280, 560] for run in request.runs.values()} == {True}


def test_random_draws_repeat_by_their_seed_and_fill_their_ranges(room):
    text = "random: {n: 400, seed: 3, ranges: {rate: {low: 1e-5, high: 1e-1, log: true}, units: {low: 2, high: 5}}}"
    draws = pd.DataFrame(chosen(settled(room, text)))
    assert draws.equals(pd.DataFrame(chosen(settled(room, text))))
    assert draws["rate"].between(1e-5, 1e-1).all() and abs(np.log10(draws["rate"]).mean() + 3) < 0.2  # 3.5 SE
    assert set(draws["units"]) == {2, 3, 4, 5} and draws["units"].value_counts().min() > 66  # 100 - 4 SE
    assert not draws.equals(pd.DataFrame(chosen(settled(room, text.replace("seed: 3", "seed: 4")))))


@pytest.mark.parametrize(
    ("text", "telling"),
    [
        ("grid: {rat: [1, 2]}", "asked.yaml: notebook 01 has no parameter 'rat' (nearest: rate"),
        ("fixed: {seed: many}", "asked.yaml: parameter 'seed' expects int, found 'many'"),
        ("grid: {units: [8, 8.5]}", "parameter 'units' expects int, found 8.5"),
        ("grid: {sizes: [280]}", "parameter 'sizes' expects list[int]"),
        ("grid: {rate: 0.5}", "rate is 0.5; expected a list of values"),
        ("gird: {rate: [0.5]}", "the sweep has no key 'gird' (nearest: grid"),
        ("profile: papr", "no profile 'papr'"),
        ("fixed: {rate: 1}\ngrid: {rate: [1, 2]}", "'rate' is set by fixed and by grid"),
        ("grid: {seed: [1]}\nseeds: [1]", "'seed' is set by grid and by seeds"),
        ("grid: {rate: [1e-4, 0.0001]}", "two runs are the same: rate 0.0001"),
        ("grid: {rate: [1]}\ngrid: {rate: [2]}", "'grid' is given twice"),
        ("list: [{rate: 1}, {seed: 2}]", "name different parameters"),
        ("random: {n: 0, ranges: {}}", "n of random is 0"),
        ("random: {n: 9, ranges: {units: {low: 1, high: 4}}}", "do not hold 9 different settings"),
        ("random: {n: 2, ranges: {rate: {low: 1, high: 1}}}", "expected numbers, low < high"),
        ("random: {n: 2, ranges: {rate: {low: 0, high: 1, log: true}}}", "0 < low where log"),
        ("random: {n: 2, ranges: {label: {low: 0, high: 1}}}", "the range of 'label' (str)"),
        ("random: {n: 2, ranges: {rate: {low: 0, hihg: 1}}}", "no key 'hihg' (nearest: high"),
        ("resources: {core: 2}", "resources has no key 'core' (nearest: cores"),
        ("resources: {memory_gb: lots}", "memory_gb of resources is 'lots'"),
        ("resources: {cores: 0.5}", "cores of resources is 0.5"),
        ("slurm: {queue: long}", "slurm has no key 'queue'"),
        ("slurm: {gres: 'gpu:1'}", "slurm asks for GPUs by gres and resources for none"),
        ("fixed: {label: --out}", "which a command line takes for an option"),
        ("fixed: {cohort: real:none}", "no none.h5ad under GEXLIB_REAL_DATA"),
        ("grid: {units: [" + ", ".join(map(str, range(101))) + "], seed: [" + ", ".join(map(str, range(101))) + "]}",
         "it asks for 10,201 runs"),
        ("grid: [", "asked.yaml is not YAML"),
    ],
)  # fmt: skip
def test_a_sweep_file_that_breaks_a_rule_is_refused_with_what_is_right(room, monkeypatch, text, telling):
    monkeypatch.delenv("GEXLIB_REAL_DATA", raising=False)
    with pytest.raises(ValueError) as refusal:
        settled(room, text)
    assert telling in str(refusal.value) and str(refusal.value).count("asked.yaml") == 1
    assert not (room / "out").exists()


@pytest.mark.parametrize(
    ("notebook", "telling"), [("notebook: 01\n", "in quotes"), ('notebook: "9"\n', "no notebook '9'")]
)
def test_a_notebook_is_named_by_a_number_that_is_there(room, notebook, telling):
    with pytest.raises(ValueError, match=telling):
        settled(room, "seeds: [1]", notebook)


@pytest.mark.parametrize(
    ("options", "telling"),
    [
        (["none.yaml"], "none.yaml: No such file"),
        (["asked.yaml", "--executor", "sge"], "no executor 'sge'"),
        (["asked.yaml", "--jobs", "0"], "--jobs is 0"),
        (["asked.yaml", "--out", "notebooks"], "holds no plan.json"),
    ],
)
def test_a_request_that_cannot_be_met_ends_with_2_and_leaves_nothing(room, capsys, options, telling):
    (room / "asked.yaml").write_text('notebook: "01"\nseeds: [1]')
    before = sorted(room.rglob("*"))
    assert main(["sweep", *options, "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert telling in error and error.count("\n") == 1 and sorted(room.rglob("*")) == before


def test_a_run_that_needs_more_memory_than_there_is_is_refused(room, capsys):
    (room / "asked.yaml").write_text('notebook: "01"\nresources: {memory_gb: 90000}')
    assert main(["sweep", "asked.yaml"]) == 2
    assert "a run asks for 90000 GiB of memory; this machine has" in capsys.readouterr().err


def test_a_dry_run_lists_every_run_and_writes_nothing(room, capsys):
    settled(room, "grid: {rate: [1e-4, 0.5]}")
    before = sorted(room.rglob("*"))
    assert main(["sweep", "asked.yaml", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "2 runs: 2 waiting; each with cores 2, memory_gb 4" in said and "0.5" in said
    assert sorted(room.rglob("*")) == before


# names


def names(room: Path, text: str = "seeds: [1, 2]") -> list[str]:
    return list(settled(room, text).runs)


def test_a_name_stays_where_nothing_that_counts_has_changed(room):
    before = names(room)
    assert names(room, "seeds: [2, 1]\nresources: {cores: 1}\nabout: the same runs") == before[::-1]
    notebook = room / "notebooks/01_small.ipynb"
    content = json.loads(notebook.read_text())
    content["cells"][0]["source"] = "# Another title"
    content["cells"][-1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "1"}]
    notebook.write_text(json.dumps(content))
    assert names(room) == before


def test_a_name_changes_with_parameters_code_and_the_cohorts_file(room, monkeypatch):
    before = names(room)
    assert not set(names(room, "fixed: {rate: 0.5}\nseeds: [1, 2]")) & set(before)
    (room / "matrix.tsv").write_text("1")
    on_file = "fixed: {cohort: 'matrix.tsv,transform=log2'}"
    first = names(room, on_file)
    (room / "matrix.tsv").write_text("2")
    assert names(room, on_file) != first
    monkeypatch.setenv("GEXLIB_DATA", str(room / "data"))
    (room / "data/geo/GSE1").mkdir(parents=True)
    absent = names(room, "fixed: {cohort: geo:GSE1}")
    (room / "data/geo/GSE1/GSE1_series_matrix.txt.gz").write_text("1")
    assert names(room, "fixed: {cohort: geo:GSE1}") != absent
    write_notebook(room / "notebooks/01_small.ipynb", RESULTS + "\n1", parameters=PARAMETERS)
    assert not set(names(room)) & set(before)


def test_the_command_of_a_run_reads_back_as_what_was_chosen(room):
    request = settled(room, "list: [{rate: -1e-5, sizes: [1, 2], label: 'a b\"ü'}, {rate: 0.5, sizes: [], label: ''}]")
    for planned in sweep._plan(request, "local")["runs"].values():
        parsed = make_parser().parse_args(shlex.split(shlex.join(planned["command"])))
        plan = run.make_plan(parsed.number, parsed.profile, str(room / "new"), parsed.given)
        assert plan.parameters == planned["parameters"]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_that_is_shipped_fits_its_notebook(path, tmp_path):
    request = sweep.read_sweep(path, tmp_path / "out")
    assert path.name.startswith(request.notebook) and len(request.runs) > 3
    assert len(request.runs) == 24 or path.stem != "01_rate_by_cohort_size"


def test_each_study_has_a_sweep():
    assert {path.name[:2] for path in SWEEPS} >= {"01", "02", "03", "04", "05"}


# one run


def planned(room: Path, text: str, resources: str = "{cores: 1}") -> tuple[Path, list[str]]:
    request = settled(room, f"{text}\nresources: {resources}")
    plan = sweep._plan(request, "local")
    (room / "out").mkdir()
    (room / "out/plan.json").write_text(json.dumps(plan))
    return room / "out", list(request.runs)


def test_a_run_is_done_once_with_its_threads_and_a_failing_one_is_told(room, monkeypatch):
    folder, (good, bad) = planned(room, "grid: {rate: [0.5, 2]}")
    for part in ("gexlib", "workflow"):
        shutil.copytree(home() / part, room / part, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONPATH", str(room))
    codes = [
        subprocess.run([sys.executable, room / "workflow/one_run.py", name], cwd=folder).returncode
        for name in (good, bad, good)
    ]
    assert codes == [0, 1, 0]
    table = sweep.status(folder)
    assert list(table["state"]) == ["done", "failed"]
    assert "AssertionError: the rate is no rate" in table.loc[bad, "reason"]
    assert json.loads((folder / "runs" / good / "results.json").read_text()) == {"threads": "1"}
    assert {path.name for path in (folder / "runs").iterdir()} == {good, f"{bad}.failed.ipynb"}
    assert f"[01] done, results in {folder / 'runs' / good}" in (folder / "logs" / f"{good}.log").read_text()


@pytest.mark.parametrize(
    ("code", "log", "expected"),
    [
        (1, "50%\ngexlib: notebook 01 stopped in code cell 3 of 4: ValueError: no\nsuch\nThe partly run notebook is x",
         ("failed", "notebook 01 stopped in code cell 3 of 4: ValueError: no such")),
        (1, "gexlib: notebook 01 stopped in code cell 2 of 3: the kernel was killed, most likely …",
         ("stopped", "notebook 01 stopped in code cell 2 of 3: the kernel was killed, most likely …")),
        (130, "gexlib: notebook 01 stopped: interrupted.", ("stopped", "notebook 01 stopped: interrupted.")),
        (-9, "50%", ("stopped", "the runner was killed by SIGKILL")),
        (3, "", ("failed", "the runner ended with exit code 3")),
    ],
)  # fmt: skip
def test_what_was_killed_is_stopped_and_what_ended_by_itself_has_failed(one_run, code, log, expected):
    assert one_run.verdict(code, log) == expected


def test_a_gpu_has_one_holder_and_its_lease_ends_with_the_holder(one_run, tmp_path):
    wanted = one_run.Wanted()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    with one_run.leased(1, ["0", "1"], tmp_path, wanted) as first:
        with one_run.leased(1, ["0", "1"], tmp_path, wanted) as second:
            assert list(first) == ["0"] and list(second) == ["1"]
            wanted.asked.append(signal.SIGTERM)
            with pytest.raises(one_run.Unwanted, match="ended by SIGTERM"):
                one_run.leased(1, ["0", "1"], tmp_path, wanted).__enter__()
        with one_run.leased(1, ["0", "1"], tmp_path, wanted) as third:
            assert list(third) == ["1"]
    with pytest.raises(ValueError, match="2 GPUs are asked for and 1 are visible"):
        one_run.leased(2, ["0"], tmp_path, wanted).__enter__()


def test_a_run_sees_its_gpus_alone_or_none(one_run, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert one_run.visible_gpus() == ["2", "3"]
    assert one_run.environment(2, ["3"], tmp_path)["CUDA_VISIBLE_DEVICES"] == "3"
    assert one_run.environment(2, [], tmp_path)["CUDA_VISIBLE_DEVICES"] == "-1"
    assert one_run.environment(2, [], tmp_path)["OMP_NUM_THREADS"] == "2"


# where a sweep stands


def test_states_are_read_from_what_is_there(room):
    folder, (first, second, third, fourth) = planned(room, "seeds: [1, 2, 3, 4]")
    for part in ("state", "locks", f"runs/{first}"):
        (folder / part).mkdir(parents=True)
    (folder / "runs" / first / "done.json").write_text('{"seconds": 3.5}')
    (folder / "state" / f"{second}.json").write_text('{"state": "failed", "reason": "no such stage"}')
    (folder / "state" / f"{third}.json").write_text('{"state": "running", "reason": ""}')
    table = sweep.status(folder)
    assert list(table["state"]) == ["done", "failed", "stopped", "waiting"] and list(table["seed"]) == [1, 2, 3, 4]
    assert table.loc[first, "seconds"] == 3.5 and "ended without a word" in table.loc[third, "reason"]
    import fcntl

    with open(folder / "locks" / third, "a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert sweep.status(folder).loc[third, "state"] == "running"


def test_a_folder_has_one_sweep_at_a_time_and_a_lock_file_that_is_left_holds_nothing(room):
    (room / "out").mkdir()
    (room / "out/sweep.lock").write_text("4711")
    with sweep._lock(room / "out"):
        with pytest.raises(ValueError, match=rf"another sweep is at work in .*out \(process {os.getpid()}\)"):
            with sweep._lock(room / "out"):
                pass
    with sweep._lock(room / "out"):
        pass


# what is collected


@pytest.fixture
def finished(room):
    """Twelve runs by hand, one of them failed: macro AUC 0.6 and up for the network, 0.7 for ridge."""
    folder, all_names = planned(room, "grid: {rate: [1e-4, 1e-3, 0.01], units: [8, 16]}\nseeds: [1, 2]")
    plan = json.loads((folder / "plan.json").read_text())
    for i, name in enumerate(all_names[:-1]):
        (folder / "runs" / name).mkdir(parents=True)
        done = {"seconds": 10.0 + i, "started": "2026-01-01T00:00:00+00:00", "versions": {"numpy": "2.4.6"}}
        (folder / "runs" / name / "done.json").write_text(json.dumps(done))
        common = {"study": "01", "cohort": "c", "simulated": True, "protocol": "corrected", "part": "test", "n": 50}
        rows = []
        for model, family, value in (("network", "network", 0.6 + i / 100), ("ridge", "linear", 0.7)):
            measured = {"metric": "macro AUC", "value": value, "low": value - 0.05, "high": value + 0.05}
            rows.append({**common, "model": model, "family": family, **measured})
            rows.append({**rows[-1], "protocol": "as_published"})
        results = {"cohort": {"name": "c", "simulated": True}, "rows": rows, "timings": {"fit": 1.5}}
        (folder / "runs" / name / "results.json").write_text(json.dumps(results))
    (folder / "state").mkdir()
    (folder / "state" / f"{all_names[-1]}.json").write_text('{"state": "failed", "reason": "no such stage"}')
    assert plan["swept"] == ["rate", "units", "seed"]
    return folder


def test_a_sweep_is_collected_into_one_tidy_table_and_a_figure(finished, capsys):
    assert main(["collect", str(finished)]) == 0
    assert "56 rows of 12 runs in collected.parquet" in capsys.readouterr().out
    table = pd.read_parquet(finished / "collected.parquet")
    assert table["run"].nunique() == 12 and len(table) == 11 * 5 + 1
    assert table["kind"].value_counts().to_dict() == {"metric": 44, "timing": 11}
    assert {"p_rate", "p_sizes", "low", "high", "n", "seconds", "version_numpy", "simulated"} <= set(table.columns)
    assert table["p_rate"].dtype == float and table["p_sizes"].iloc[0] == "[280, 560]"
    (failed,) = table[table["state"] == "failed"].to_dict("records")
    assert failed["reason"] == "no such stage" and failed["p_units"] == 16 and np.isnan(failed["value"])
    assert (finished / "collected.png").stat().st_size > 10_000


def test_the_figure_has_a_panel_for_each_value_and_a_point_for_each_run(finished):
    table = sweep.collect(finished)
    assert sweep.swept_in(table) == ["rate", "units", "seed"]
    figure = sweep.small_multiples(table)
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["units 8", "units 16"]
    assert [panel.get_xlabel() for panel in figure.axes] == ["rate", "rate"]
    points = [container[0].get_ydata() for panel in figure.axes for container in panel.containers]
    assert sorted(map(len, points)) == [5, 5, 6, 6] and "11 runs (simulated)" in figure._suptitle.get_text()
    assert {label.get_text() for label in figure.legends[0].get_texts()} == {"network", "ridge"}
    assert sweep.to_draw(table)["protocol"].unique() == ["corrected"]


def test_a_random_search_is_drawn_a_panel_a_parameter(finished):
    table = sweep.collect(finished)
    network = table[(table["kind"] == "metric") & (table["protocol"] == "corrected")].copy()
    network["p_rate"], network["p_units"] = np.logspace(-5, -1, len(network)), np.arange(len(network))
    figure = sweep.small_multiples(network)
    assert {panel.get_xlabel() for panel in figure.axes} == {"rate", "units"}
    assert [panel.get_xscale() for panel in figure.axes] == ["log", "linear"]


def test_what_cannot_be_collected_is_told(room, finished):
    with pytest.raises(ValueError, match=r"no metric 'macro AUK' was measured \(nearest: macro AUC"):
        sweep.collect(finished, "macro AUK")
    with pytest.raises(ValueError, match="holds no plan.json"):
        sweep.collect(room / "notebooks")
    for done in finished.glob("runs/*/done.json"):
        done.unlink()
    with pytest.raises(ValueError, match=r"no run is done.*11 waiting|1 failed, 11 waiting"):
        sweep.collect(finished)
