"""The doctor: each line says ok, or what to do."""

import subprocess
import sys
import tempfile
from types import SimpleNamespace

import psutil
import pytest

from gexlib import doctor
from gexlib.__main__ import main


def only(lines, what):
    (line,) = [line for line in lines if line.what == what]
    return line


def test_versions_of_this_environment_meet_the_declared_ones():
    lines = doctor.check_versions()
    assert all(line.ok for line in lines), lines
    assert {"Python", "gexlib", "tensorflow", "keras", "jax", "scikit-learn"} <= {line.what for line in lines}


def test_an_old_and_a_missing_package_are_named_with_what_is_needed(monkeypatch):
    real = doctor.importlib.metadata.version

    def version(name):
        if name == "pooch":
            raise doctor.importlib.metadata.PackageNotFoundError(name)
        return "2.1" if name == "keras" else real(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    lines = doctor.check_versions()
    keras, pooch = only(lines, "keras"), only(lines, "pooch")
    assert (keras.ok, keras.found) == (False, "2.1") and ">=3" in keras.what_to_do
    assert (pooch.ok, pooch.found) == (False, "not installed")


def test_an_unsupported_python_is_told_which_to_use(monkeypatch):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.9.1")
    line = only(doctor.check_versions(), "Python")
    assert not line.ok and "3.11" in line.what_to_do


@pytest.mark.parametrize(("free", "ok"), [(1, False), (3, True)])
def test_too_little_memory_is_told_what_to_do(monkeypatch, free, ok):
    memory = SimpleNamespace(total=16 * doctor.GIB, available=free * doctor.GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    line = only(doctor.check_machine(), "memory")
    assert line.ok is ok and f"{free}.0 of 16.0 GiB" in line.found and ("2 GiB are needed" in line.what_to_do) is not ok


def test_a_folder_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GEXLIB_DATA", str(tmp_path / "file/data"))
    line = only(doctor.check_folders(), "folder: downloads")
    assert not line.ok and str(tmp_path / "file/data") in line.found and line.what_to_do


def test_checking_folders_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "home", lambda: tmp_path)
    monkeypatch.setenv("GEXLIB_DATA", str(tmp_path / "not/yet/there"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert all(line.ok for line in doctor.check_folders() if line.what.startswith("folder"))
    assert list(tmp_path.iterdir()) == []


def test_real_data_are_optional_but_a_wrong_folder_is_not(monkeypatch, tmp_path):
    monkeypatch.delenv("GEXLIB_REAL_DATA", raising=False)
    assert doctor.check_folders()[-1].ok
    monkeypatch.setenv("GEXLIB_REAL_DATA", str(tmp_path / "none"))
    line = doctor.check_folders()[-1]
    assert not line.ok and "none" in line.what_to_do


@pytest.mark.parametrize(
    ("code", "out", "error", "ok", "telling"),
    [
        (0, '{"losses": [2.0, 0.5], "seconds": 1.2, "accelerators": []}', "", True, "loss 2.000 to 0.500 in 1.2 s"),
        (0, '{"losses": [2.0, 2.5], "seconds": 1.2, "accelerators": []}', "", False, "loss 2.000 to 2.500"),
        (1, "", "Traceback\nImportError: no tensorflow", False, "ImportError: no tensorflow"),
        (-4, "", "", False, "exit code -4"),
    ],
)
def test_training_that_fails_becomes_a_line(monkeypatch, code, out, error, ok, telling):
    done = subprocess.CompletedProcess([], code, out, error)
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: done)
    line = doctor.check_training()[0]
    assert line.ok is ok and telling in line.found and bool(line.what_to_do) is not ok


@pytest.mark.parametrize("ok", [True, False])
def test_the_exit_code_says_whether_something_is_missing(monkeypatch, capsys, ok):
    line = doctor.Check("disk", ok, "3 GiB", "" if ok else "free some")
    monkeypatch.setattr(doctor, "CHECKS", {"machine": lambda: [line]})
    assert main(["doctor"]) == (0 if ok else 1)
    said = capsys.readouterr().out
    assert ("Everything needed is here." in said) is ok and ("free some" in said) is not ok


def test_a_check_that_cannot_be_made_is_a_line_too(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.delitem(doctor.CHECKS, "training")
    assert not doctor.print_report()
    said = capsys.readouterr().out
    assert "--  machine" in said and "psutil" in said and "ok  folder: runs" in said
