"""A room without a network: everything is gathered here, then installed as install.txt says, the index switched off."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from make_wheelhouse import WheelhouseError, check, download, gather, pins_for, this_platform

from gexlib.files import home

pytestmark = pytest.mark.system
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def room():
    """A copy of what an installation needs of the repository; gone afterwards, for it grows to four gigabytes."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        shutil.copytree(home() / "gexlib", folder / "gexlib", ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "README.md", "LICENSE", "requirements.lock"):
            shutil.copy(home() / file, folder)
        yield folder


def need_the_index(folder: Path) -> None:
    """Skip where not even a small package can be had."""
    lock = (home() / "requirements.lock").read_text(encoding="utf-8")
    try:
        name = this_platform()
        download([pin for pin in pins_for(lock, name, PYTHON) if pin.startswith("six==")], name, PYTHON, folder)
    except WheelhouseError as error:
        pytest.skip(f"nothing can be gathered here: {error}")


def test_a_room_without_a_network_installs_and_the_doctor_finds_everything(room, tmp_path):
    need_the_index(tmp_path)
    house = room / "wheelhouse"
    gather([this_platform()], PYTHON, house)
    assert check(house) > 150

    typed = (house / "install.txt").read_text(encoding="utf-8")
    lines = re.findall(r"^    (.+)$", typed, re.M)  # two for Linux and macOS, two for Windows
    make, install = lines[2:] if os.name == "nt" else lines[:2]
    assert len(lines) == 4 and make.endswith(" -m venv .venv")
    subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=room, check=True)
    around = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "GEXLIB_"))}
    around |= {
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_COMPILE": "1",
    }  # compiled when first imported
    done = subprocess.run(install.split(), cwd=room, env=around, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]

    command = [room / install.split()[0], "-m", "gexlib", "doctor"]
    said = subprocess.run(command, cwd=room, env=around, capture_output=True, text=True)
    assert said.returncode == 0 and "Everything needed is here." in said.stdout, said.stdout + said.stderr[-2000:]
