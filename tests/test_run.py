"""The strict runner: what it refuses, what it leaves, and when it calls a run done."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from gexlib import run
from gexlib.__main__ import main

PARAMETERS = """\
cohort: str = "simulated:neuroblastoma"  # any name that load_cohort opens
samples: str = ""
seed: int = 7  # of everything random
rate: float = 1e-5  # learning rate, eta = 1e-5
sizes: list[int] = [280, 560]  # patients
fast: bool = False
label: str = "inss_stage"
"""
WRITE_RESULTS = """\
import json, os, pathlib
out = pathlib.Path(os.environ["GEXLIB_OUT"])
user = "user" in globals()  # what a start-up file of the user would set
transport, folder = get_ipython().kernel.parent.transport, pathlib.Path.cwd().name
here = {"seed": seed, "rate": rate, "sizes": sizes, "transport": transport, "folder": folder, "user": user}
_ = (out / "results.json").write_text(json.dumps(here))"""


def write_notebook(path: Path, *cells: str, parameters: str | None = PARAMETERS) -> Path:
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A title")], metadata=kernel)
    if parameters is not None:
        notebook.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A repository with the notebooks 01 and 02b and one profile; the current folder is another."""
    write_notebook(tmp_path / "home/notebooks/01_small.ipynb", WRITE_RESULTS)
    write_notebook(tmp_path / "home/notebooks/02b_none.ipynb", "print(1)", parameters=None)
    (tmp_path / "home/notebooks/profiles/paper").mkdir(parents=True)
    (tmp_path / "home/notebooks/profiles/paper/01.yaml").write_text("rate: 1e-4\nsizes: [5000]\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(run, "home", lambda: tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def papermill_stands_in(monkeypatch):
    """Replaces the kernel by a function that leaves a notebook which ran to its end."""

    def stand_in(plan, attempt, bar, results=True, **record):
        notebook = nbformat.read(plan.notebook, as_version=4)
        notebook.metadata.papermill = {"end_time": "now", "exception": None, **record}
        for cell in notebook.cells:
            cell.metadata.papermill = {"start_time": "now"}
        nbformat.write(notebook, attempt / plan.notebook.name)
        if results:
            (attempt / "results.json").write_text("{}")

    monkeypatch.setattr(run, "_papermill", stand_in)
    return stand_in


def names_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# parameters


def test_a_parameters_cell_gives_names_types_and_defaults(room):
    known = run.read_parameters(room / "notebooks/01_small.ipynb")
    assert list(known) == ["cohort", "samples", "seed", "rate", "sizes", "fast", "label"]
    assert known["seed"] == ("int", 7) and known["rate"] == ("float", 1e-5)
    assert known["sizes"] == ("list[int]", [280, 560])


@pytest.mark.parametrize(
    "line", ["seed: int = 3 + n", "import os", "a = b = print()", "seed: int", "x: dict = {}", "label = 'x'"]
)
def test_a_line_that_is_no_typed_literal_is_refused_with_its_place(tmp_path, line):
    notebook = write_notebook(tmp_path / "03_odd.ipynb", parameters="label: str = 'x'\n" + line)
    with pytest.raises(ValueError, match=r"03_odd.ipynb, parameters cell, line 2: .*expected"):
        run.read_parameters(notebook)


@pytest.mark.parametrize("text", ["{", "[]", '{"cells": [{"source": "1 +", "metadata": {"tags": ["parameters"]}}]}'])
def test_a_file_that_is_no_notebook_is_refused(tmp_path, text):
    (tmp_path / "01_x.ipynb").write_text(text)
    with pytest.raises(ValueError, match="01_x.ipynb is no notebook"):
        run.read_parameters(tmp_path / "01_x.ipynb")


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("3", "int", 3),
        ("3.0", "int", 3),
        ("1e3", "int", 1000),
        ("9007199254740993", "int", 9007199254740993),
        ("1e-5", "float", 1e-5),
        (3, "float", 3.0),
        ("True", "bool", True),
        (False, "bool", False),
        ("true", "str", "true"),
        ("[280, 560]", "list[int]", [280, 560]),
        (["1e-5", 1], "list[float]", [1e-5, 1.0]),
        ("['1', 4S]", "list[str]", ["1", "4S"]),
    ],
)
def test_what_spells_a_value_of_the_type_is_taken_for_it(value, kind, expected):
    taken = run.typed(value, kind)
    assert taken == expected and type(taken) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("three", "int"),
        (3.5, "int"),
        (True, "int"),
        ("nan", "float"),
        (float("inf"), "float"),
        ("1e999", "float"),
        (1, "bool"),
        ("yes", "bool"),
        (4, "str"),
        (None, "str"),
        ("280", "list[int]"),
        ("[1", "list[int]"),
        (["a"], "list[int]"),
    ],
)
def test_another_type_is_refused_with_what_was_expected_and_found(value, kind):
    with pytest.raises(ValueError, match=r"expects (list\[)?(int|float|bool|str)\]?.*found "):
        run.typed(value, kind)


def test_single_parameters_win_over_the_profile_and_the_profile_over_the_cell(room):
    plan = run.make_plan("01", "paper", given=[("sizes", "[9]")], cohort="real:x")
    assert plan.parameters["rate"] == 1e-4 and plan.parameters["sizes"] == [9] and plan.parameters["seed"] == 7
    assert plan.changed == {"rate": 1e-4, "sizes": [9], "cohort": "real:x"}


def test_each_profile_cohort_and_set_of_parameters_has_a_target_of_its_own(room):
    def target(*args, **options):
        return str(run.make_plan("01", *args, **options).target.relative_to(room / "runs/01"))

    assert target() == "tiny" and target("paper") == "paper"
    assert target("paper", cohort="real:x") == target("paper", given=[("cohort", "real:x")]) == "paper-real-x"
    assert target(cohort="../data/my.tsv,unit=z", samples="samples.tsv") == "tiny-data-my.tsv-unit-z"
    seed, rate = ("seed", "3"), ("rate", "-1e-5")
    names = {target(given=[seed]), target(given=[rate]), target(given=[seed, rate]), target(given=[seed], cohort="y")}
    assert len(names) == 4 and all(re.fullmatch("tiny(-y)?-[0-9a-f]{8}", name) for name in names)
    assert target(given=[seed, rate]) == target(given=[rate, ("seed", "3.0")])


# refusals


@pytest.mark.parametrize(
    ("arguments", "telling"),
    [
        (["01", "-p", "sead", "3"], "no parameter 'sead' (nearest: seed"),
        (["01", "-p", "seed", "x"], "'seed' expects int, found 'x'"),
        (["02b", "-p", "seed", "3"], "notebook 02b has no parameter 'seed' (there are none)"),
        (["01", "--profile", "papr"], "no profile 'papr' (nearest: paper)"),
        (["1"], "no notebook '1' in {home}/notebooks (nearest: 01"),
        (["01", "--out", "{home}/notebooks"], "notebooks holds no done.json; expected a former run of notebook 01"),
        (["01", "--out", "{home}/runs/02b/tiny"], "holds a run of 02b_none.ipynb"),
        (["all", "-p", "seed", "3"], "belong to one notebook"),
        (["all", "--profile", "huge"], "no notebook has the profile 'huge' (there are: paper, tiny)"),
    ],
)
def test_a_refusal_says_what_is_right_and_leaves_nothing_behind(room, capsys, arguments, telling):
    (room / "runs/02b/tiny").mkdir(parents=True)
    (room / "runs/02b/tiny/done.json").write_text('{"notebook": "02b_none.ipynb"}')
    before = names_below(room.parent)
    assert main(["run", *(argument.format(home=room) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("gexlib: ") and telling.format(home=room) in error and error.count("\n") == 1
    assert names_below(room.parent) == before


@pytest.mark.parametrize(
    ("text", "telling"),
    [
        ("cohort: real:x", "never changes the cohort: use --cohort"),
        ("stepz: 3", "profiles/bad/01.yaml: notebook 01 has no parameter 'stepz'"),
        ("seed: many", "profiles/bad/01.yaml: parameter 'seed' expects int"),
        ("- 3", "holds a list"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_profile_that_breaks_the_rules_is_refused_by_name(room, text, telling):
    (room / "notebooks/profiles/bad").mkdir()
    (room / "notebooks/profiles/bad/01.yaml").write_text(text)
    with pytest.raises(ValueError) as refusal:
        run.make_plan("01", "bad")
    assert telling in str(refusal.value)


# what a run leaves, without a kernel


@pytest.mark.parametrize(
    ("fault", "telling"),
    [
        ({"results": False}, "wrote no results.json"),
        ({"end_time": None}, "before its last cell"),
        ({"exception": True}, "before its last cell"),
    ],
)
def test_a_run_that_only_looks_finished_is_not_done(room, papermill_stands_in, monkeypatch, fault, telling):
    monkeypatch.setattr(run, "_papermill", lambda *a: papermill_stands_in(*a, **fault))
    with pytest.raises(run.RunFailed, match=telling):
        run.execute(run.make_plan("01"))
    assert names_below(room / "runs") == {"01", "01/tiny.failed.ipynb"}


@pytest.mark.parametrize(("step", "kept"), [("_papermill", False), ("write_json", True)])
def test_a_full_disk_fails_the_run_and_keeps_the_former_one(room, papermill_stands_in, monkeypatch, step, kept):
    run.execute(run.make_plan("01"))
    whole = names_below(room / "runs/01")
    assert whole == {"tiny", "tiny/01_small.ipynb", "tiny/done.json", "tiny/results.json"}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, step, full)
    with pytest.raises(run.RunFailed, match="No space left on device") as failure:
        run.execute(run.make_plan("01"))
    assert names_below(room / "runs/01") == whole | ({"tiny.failed.ipynb"} if kept else set())
    assert str(failure.value).endswith("tiny.failed.ipynb" if kept else "The notebook could not be kept.")


def test_a_former_run_or_an_empty_folder_is_replaced_whole(room, papermill_stands_in):
    Path("mine").mkdir()
    plan = run.make_plan("01", out="mine")
    assert run.execute(plan) == Path("mine").resolve()
    Path("mine/of_the_former_run").touch()
    plan.failed.write_text("of an attempt before")
    run.execute(run.make_plan("01", out="mine"))
    assert names_below(Path(".")) == {"mine", "mine/01_small.ipynb", "mine/done.json", "mine/results.json"}


def test_all_runs_in_order_and_stops_at_the_first_failure(room, papermill_stands_in, monkeypatch, capsys):
    write_notebook(room / "notebooks/03_last.ipynb")
    monkeypatch.setattr(run, "_papermill", lambda plan, *a: papermill_stands_in(plan, *a, results=plan.number != "02b"))
    assert main(["run", "all", "--profile", "paper"]) == 1
    output = capsys.readouterr()
    assert output.out == f"[01] done, results in {room / 'runs/01/paper'}\n" and "notebook 02b stopped" in output.err
    assert (room / "runs/01/paper/done.json").is_file() and not (room / "runs/03").exists()


# what a run leaves, with a kernel


def test_a_finished_run_stands_whole_under_its_name(room, capsys, monkeypatch):
    startup = room.parent / "ipython/profile_default/startup/00.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("user = 1")
    monkeypatch.setenv("IPYTHONDIR", str(room.parent / "ipython"))

    assert main(["run", "01", "-p", "rate", "-1e-5", "-p", "seed", "3"]) == 0

    said = capsys.readouterr()
    (target,) = (room / "runs/01").iterdir()
    assert said.out == f"[01] done, results in {target}\n" and "[01]: 100%" in said.err and "4/4" in said.err
    assert names_below(target) == {"01_small.ipynb", "done.json", "results.json"}
    results = json.loads((target / "results.json").read_text())
    assert (results["seed"], results["rate"], results["sizes"]) == (3, -1e-5, [280, 560])
    assert results["transport"] == ("tcp" if os.name == "nt" else "ipc")
    assert results["folder"] == "elsewhere" and results["user"] is False
    done = json.loads((target / "done.json").read_text())
    assert done["parameters"]["seed"] == 3 and done["parameters"]["rate"] == -1e-5 and done["seconds"] > 0
    assert done["notebook_sha256"] == run.sha256_of(room / "notebooks/01_small.ipynb")
    assert done["versions"]["tensorflow"][0].isdigit()
    text = (target / "01_small.ipynb").read_text()
    assert '"injected-parameters"' in text and '"end_time": "2' in text and str(room) not in text


def test_two_notebooks_run_side_by_side_and_a_failure_begins_no_more(room, capfd):
    write_notebook(room / "notebooks/02b_none.ipynb", WRITE_RESULTS)
    assert main(["run", "all", "--jobs", "2"]) == 0
    said = capfd.readouterr().out.splitlines()
    assert {"[01] begun", "[02b] begun"} < set(said) and len(said) == 4
    assert "done, 2 of 2, results in" in said[-1]
    assert all((room / f"runs/{number}/tiny/done.json").is_file() for number in ("01", "02b"))
    for number in ("01", "02b"):
        write_notebook(next(room.glob(f"notebooks/{number}_*.ipynb")), "raise ValueError('no such stage')")
    for number in ("03", "04", "05", "06"):
        write_notebook(room / f"notebooks/{number}_later.ipynb", WRITE_RESULTS)
    assert main(["run", "all", "--jobs", "2"]) == 1
    assert "stopped in code cell 2 of 2: ValueError: no such stage" in capfd.readouterr().err
    assert not (room / "runs/04").exists() and not (room / "runs/06").exists()


def test_a_failing_cell_keeps_the_former_run_and_the_partly_run_notebook(room, capsys):
    (room / "runs/01/tiny").mkdir(parents=True)
    (room / "runs/01/tiny/done.json").write_text('{"notebook": "01_small.ipynb"}')
    write_notebook(room / "notebooks/01_small.ipynb", "print('so far')", "raise ValueError('no such\\nstage')", "1")

    assert main(["run", "01"]) == 1

    kept = room / "runs/01/tiny.failed.ipynb"
    assert capsys.readouterr().err.endswith(
        "gexlib: notebook 01 stopped in code cell 3 of 4: ValueError: no such stage\n"
        f"The partly run notebook is {kept}\n"
    )
    assert "so far" in kept.read_text() and str(room) not in kept.read_text()
    assert names_below(room / "runs/01") == {"tiny", "tiny/done.json", "tiny.failed.ipynb"}


def test_a_killed_kernel_speaks_of_memory_and_does_not_look_finished(room, capsys):
    write_notebook(room / "notebooks/01_small.ipynb", "import os\nos.kill(os.getpid(), 9)", "1")
    assert main(["run", "01"]) == 1
    error = capsys.readouterr().err
    assert "in code cell 2 of 3: the kernel was killed, most likely because memory ran out" in error
    assert "GiB are free now" in error and "smaller profile or cohort" in error
    kept = json.loads((room / "runs/01/tiny.failed.ipynb").read_text())
    assert kept["metadata"]["papermill"]["exception"] is True


@pytest.fixture
def heeds_interrupts():
    """A process that a shell starts in the background ignores the signal; a test must not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_run_ends_cleanly_with_130(room, capsys, heeds_interrupts):
    write_notebook(room / "notebooks/01_small.ipynb", "import os, time\nos.kill(os.getppid(), 2)\ntime.sleep(60)")
    assert main(["run", "01"]) == 130
    assert "stopped in code cell 2 of 2: interrupted." in capsys.readouterr().err
    assert names_below(room / "runs/01") == {"tiny.failed.ipynb"}


def test_plain_papermill_fills_the_same_parameters_from_another_folder(room):
    notebook = write_notebook(room / "notebooks/01_small.ipynb", "print(seed, rate)")
    command = [sys.executable, "-m", "papermill", str(notebook), "out.ipynb", "-p", "seed", "3"]
    subprocess.run(command, check=True, capture_output=True)
    assert "3 1e-05" in Path("out.ipynb").read_text()
