"""The command line: quick to start, one sentence for a foreseeable fault."""

import subprocess
import sys

import pytest

import gexlib
from gexlib.__main__ import main

FRAMEWORKS = ("tensorflow", "keras", "jax", "papermill", "IPython")
WITHOUT_ANNDATA = """
import importlib.metadata, sys
from unittest import mock
found = importlib.metadata.version
def version(name):
    if name == "anndata":
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)
with mock.patch.dict(sys.modules, anndata=None), mock.patch("importlib.metadata.version", version):
    from gexlib import doctor
    from gexlib.__main__ import main
    del doctor.CHECKS["training"]  # it takes long
    sys.exit(main(sys.argv[1:]))
"""


def python(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, **options)


def test_importing_loads_no_framework():
    code = "import gexlib.run, gexlib.doctor, sys; gexlib.load_cohort; print(*sys.modules)"
    loaded = set(python("-c", code).stdout.split())
    assert "gexlib.run" in loaded and not loaded & set(FRAMEWORKS)


def test_help_loads_no_framework_and_names_every_command():
    seen = python("-X", "importtime", "-m", "gexlib", "--help")
    assert seen.returncode == 0
    loaded = {line.rsplit("|")[-1].strip() for line in seen.stderr.splitlines()}
    assert "argparse" in loaded and not loaded & {*FRAMEWORKS, "pandas", "sklearn"}
    assert all(command in seen.stdout for command in ("doctor", "run", "claims", "fetch", "example"))


def test_the_doctor_reports_a_missing_dependency_that_other_commands_stop_at():
    seen = python("-c", WITHOUT_ANNDATA, "doctor")
    assert seen.returncode == 1 and seen.stderr == ""
    assert "--  anndata             not installed   <- install" in seen.stdout
    assert "ok  numpy" in seen.stdout and seen.stdout.endswith("Something is missing: see the lines marked --.\n")
    seen = python("-c", WITHOUT_ANNDATA, "run", "00")
    assert seen.returncode == 2 and "anndata" in seen.stderr and seen.stderr.count("\n") == 1


def test_the_names_of_the_package_are_there_and_no_others():
    assert {"CohortError", "check_cohort", "load_cohort"} == set(gexlib.__all__)
    assert all(callable(getattr(gexlib, name)) for name in gexlib.__all__)
    with pytest.raises(AttributeError, match="'gexlib' has no attribute 'load_cohorts'"):
        gexlib.load_cohorts  # noqa: B018


def test_a_reader_that_leaves_early_gets_no_traceback():
    process = subprocess.Popen(
        [sys.executable, "-m", "gexlib", "fetch", "--list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 1


@pytest.mark.parametrize("arguments", [[], ["walk"], ["run"], ["run", "00", "-p", "seed"]])
def test_a_command_that_is_not_understood_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2 and "usage: python -m gexlib" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "telling"),
    [
        (ValueError("the label is missing."), "gexlib: the label is missing.\n"),
        (OSError(28, "No space left on device", "x.json"), "gexlib: [Errno 28] No space left on device: 'x.json'\n"),
        (ModuleNotFoundError("No module named 'pooch'"), "gexlib: No module named 'pooch'; install what is missing"),
    ],
)
def test_a_foreseeable_fault_becomes_one_sentence(monkeypatch, capsys, fault, telling):
    def fail():
        raise fault

    monkeypatch.setattr("gexlib.doctor.print_report", fail)
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err.startswith(telling)
