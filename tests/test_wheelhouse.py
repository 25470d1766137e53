"""The folder that a room without a network installs from, on packages of a few lines, the index switched off."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import venv
import zipfile

import make_wheelhouse
import pytest
from make_wheelhouse import (
    PLATFORMS,
    WheelhouseError,
    check,
    download,
    gather,
    main,
    pins_for,
    this_platform,
    write_manifest,
)

from gexlib.files import home

BACKEND = """\
import zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(f"{folder}/{NAME}-1.0-{TAG}.whl", "w") as wheel:
        wheel.writestr(f"{NAME}.py", "")
        wheel.writestr(f"{NAME}-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\\nTag: {TAG}\\n")
        wheel.writestr(f"{NAME}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\\nName: {NAME}\\nVersion: 1.0\\n")
        wheel.writestr(f"{NAME}-1.0.dist-info/RECORD", "")
    return f"{NAME}-1.0-{TAG}.whl"
"""


def write_wheel(folder, name, tag="py3-none-any", needs=()):
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n" + "".join(f"Requires-Dist: {n}\n" for n in needs)
    with zipfile.ZipFile(folder / f"{name}-1.0-{tag}.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"name = '{name}'\n")
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", metadata)
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")


def write_source(folder, name, tag="py3-none-any"):
    files = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": f"NAME, TAG = '{name}', '{tag}'\n{BACKEND}",
    }
    with tarfile.open(folder / f"{name}-1.0.tar.gz", "w:gz") as archive:
        for file, text in files.items():
            info = tarfile.TarInfo(f"{name}-1.0/{file}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that stands for the package index: pip sees nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(folder), "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with a lock file of three packages and a package of its own."""
    folder = tmp_path / "repository"
    (folder / "gexlib").mkdir(parents=True)
    (folder / "gexlib/__init__.py").write_text("import common\n")
    lock = "common==1.0\nconsole==1.0 ; sys_platform == 'win32'\nnvidia-everything==1.0 ; sys_platform == 'linux'\n"
    lines = ["[build-system]", 'requires = ["setuptools>=77"]', 'build-backend = "setuptools.build_meta"', "[project]"]
    lines += ['name = "gexlib"', 'version = "0.1.0"', 'dependencies = ["common"]', "[tool.setuptools]"]
    texts = {"requirements.lock": lock, "README.md": "", "LICENSE": ""}
    texts["pyproject.toml"] = "\n".join([*lines, 'packages = ["gexlib"]', ""])
    for file, text in texts.items():
        (folder / file).write_text(text)
    monkeypatch.setattr(make_wheelhouse, "home", lambda: folder)
    return folder


def names(folder):
    return sorted(wheel.name for wheel in folder.glob("*.whl"))


def test_each_platform_gets_what_the_lock_names_for_it_and_nothing_for_graphics_cards():
    lock = (home() / "requirements.lock").read_text(encoding="utf-8")
    pins = {name: {pin.split("==")[0] for pin in pins_for(lock, name, "3.11")} for name in PLATFORMS}
    assert set.intersection(*pins.values()) >= {"tensorflow", "jax", "jupyterlab", "setuptools", "overrides"}
    own = {name: found - set.union(*(pins[other] for other in pins if other != name)) for name, found in pins.items()}
    assert {"pywinpty", "colorama"} <= own["windows"] and "appnope" in own["macos"]
    assert "pexpect" in pins["linux"] & pins["macos"] and "pexpect" not in pins["windows"]
    assert not any(pin.startswith(("nvidia", "jax-cuda")) for found in pins.values() for pin in found)
    assert "overrides==7.7.0" not in pins_for(lock, "linux", "3.12")


def test_wheels_are_those_of_the_platform_named_and_what_has_none_is_built(index, tmp_path):
    write_wheel(index, "common")
    for tag in ("cp311-cp311-win_amd64", "cp311-cp311-manylinux_2_17_x86_64", "cp312-cp312-win_amd64"):
        write_wheel(index, "compiled", tag)
    write_source(index, "old")
    built = download(["common==1.0", "compiled==1.0", "old==1.0"], "windows", "3.11", tmp_path)
    assert built == ["old==1.0"]
    expected = ["common-1.0-py3-none-any.whl", "compiled-1.0-cp311-cp311-win_amd64.whl", "old-1.0-py3-none-any.whl"]
    assert names(tmp_path) == expected


def test_a_source_that_builds_for_this_machine_only_is_refused(index, tmp_path):
    write_source(index, "fortran", "cp311-abi3-linux_x86_64")
    with pytest.raises(WheelhouseError, match="fortran==1.0 has no wheel for macos, .* fits this machine only"):
        download(["fortran==1.0"], "macos", "3.11", tmp_path)
    assert names(tmp_path) == []


def test_a_package_that_is_nowhere_is_named(index, tmp_path):
    with pytest.raises(WheelhouseError, match="nowhere==1.0 has no wheel for linux and could not be built .*: ERROR"):
        download(["nowhere==1.0"], "linux", "3.11", tmp_path)


def test_what_was_gathered_installs_with_the_index_switched_off(index, project, tmp_path, monkeypatch, capsys):
    write_wheel(index, "common")
    write_wheel(index, "console", "cp311-cp311-win_amd64")
    house = tmp_path / "wheels"
    gather(["linux", "windows"], "3.11", house)
    own = ["common-1.0-py3-none-any.whl", "console-1.0-cp311-cp311-win_amd64.whl", "gexlib-0.1.0-py3-none-any.whl"]
    assert names(house) == own and "3 wheels" in capsys.readouterr().out
    assert sorted(file.name for file in project.iterdir()) == sorted(
        ["LICENSE", "README.md", "gexlib", "pyproject.toml", "requirements.lock"]
    )
    typed = (house / "install.txt").read_text()
    assert "python3.11 -m venv" in typed and "--find-links wheels" in typed and "for: linux, windows (" in typed

    monkeypatch.delenv("PIP_FIND_LINKS")
    venv.create(tmp_path / "room")
    python = next((tmp_path / "room").glob("[bS]*/python*"))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index"]
    lock = f"--constraint={project / 'requirements.lock'}"
    subprocess.run([*pip, f"--find-links={house}", lock, "gexlib"], check=True)
    code = "import gexlib, common; print(common.name, gexlib.__file__)"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert said.startswith("common ") and str(tmp_path / "room") in said


def test_the_manifest_is_of_the_form_that_sha256sum_reads(tmp_path):
    write_wheel(tmp_path, "common")
    write_manifest(tmp_path)
    (line,) = (tmp_path / "MANIFEST").read_text().splitlines()
    content = (tmp_path / "common-1.0-py3-none-any.whl").read_bytes()
    assert line == f"{hashlib.sha256(content).hexdigest()}  common-1.0-py3-none-any.whl"


def test_a_folder_that_suffered_on_the_way_says_which_wheel(tmp_path):
    for name in ("common", "other"):
        write_wheel(tmp_path, name)
    write_manifest(tmp_path)
    assert check(tmp_path) == 2
    write_wheel(tmp_path, "third")
    with pytest.raises(WheelhouseError, match="1 wheels not listed, the first is third-1.0"):
        check(tmp_path)
    (tmp_path / "third-1.0-py3-none-any.whl").unlink()
    with open(tmp_path / "other-1.0-py3-none-any.whl", "ab") as wheel:
        wheel.write(b"\0")
    with pytest.raises(WheelhouseError, match="1 wheels changed, the first is other-1.0.*copy it again"):
        check(tmp_path)
    (tmp_path / "common-1.0-py3-none-any.whl").unlink()
    with pytest.raises(WheelhouseError, match="1 wheels missing, the first is common-1.0"):
        check(tmp_path)


def test_the_command_line_ends_in_one_sentence(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="MANIFEST: no such file or directory; is this a wheelhouse"):
        main(["--check", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        main(["--platforms", "solaris"])
    assert "invalid choice: 'solaris'" in capsys.readouterr().err
    monkeypatch.setattr(make_wheelhouse.platform, "machine", lambda: "sparc")
    with pytest.raises(WheelhouseError, match="sparc; name the room's with --platforms linux macos windows"):
        this_platform()
