"""Gather all that a room without a network needs.

`python tests/make_wheelhouse.py [--platforms linux macos windows] [--python 3.11] [--out wheelhouse]`, or `make
wheelhouse`, puts into one folder: wheels of every package of requirements.lock but those for graphics cards, for this
machine or for the platforms named; gexlib's own wheel; a MANIFEST of their SHA-256; and install.txt, which says what
to type in the room. Carry the folder there beside the repository.

`python tests/make_wheelhouse.py --check [--out wheelhouse]` compares a carried folder with its MANIFEST.
"""

from __future__ import annotations

import argparse
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from gexlib.files import home, sha256_of, write_text

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
FOR_GRAPHICS_CARDS = re.compile(r"nvidia-|jax-cuda")  # what only the extra `gpu` brings, several gigabytes
NO_WHEEL = re.compile(r"No matching distribution found for (\S+)")


class Platform(NamedTuple):
    """What wheels of a platform are tagged with, the newest first, and how its Python describes itself to markers."""

    tags: list[str]
    sys_platform: str
    system: str
    machine: str


PLATFORMS = {
    "linux": Platform(
        [*(f"manylinux_2_{n}_x86_64" for n in (28, 27, 24, 17, 12, 5)), "manylinux2014_x86_64", "manylinux1_x86_64"],
        "linux", "Linux", "x86_64",
    ),
    "macos": Platform(["macosx_12_0_arm64"], "darwin", "Darwin", "arm64"),
    "windows": Platform(["win_amd64"], "win32", "Windows", "AMD64"),
}  # fmt: skip

IN_THE_ROOM = """\
Install without a network. Needed: Python {python}, this folder, and the repository beside it.
Open a terminal in the repository (the folder that holds pyproject.toml) and type two lines.

Linux and macOS:

    python{python} -m venv .venv
    .venv/bin/python -m pip install --no-index --find-links {folder} --constraint requirements.lock --editable .

Windows:

    py -{python} -m venv .venv
    .venv\\Scripts\\python -m pip install --no-index --find-links {folder} --constraint requirements.lock --editable .

Then ask whether everything is here:   .venv/bin/python -m gexlib doctor
On Windows:                            .venv\\Scripts\\python -m gexlib doctor

Wheels of this folder are for: {platforms} (Linux with glibc 2.28, macOS 12 on Apple silicon, Windows 10, or later).
"""


class WheelhouseError(RuntimeError):
    """Something cannot be gathered, or a carried folder is not what was gathered. The message says what."""


def this_platform() -> str:
    """The name in `PLATFORMS` of this machine.

    Raises
    ------
    WheelhouseError : it is none of them
    """
    here = sys.platform, platform.machine()
    for name, known in PLATFORMS.items():
        if (known.sys_platform, known.machine) == here:
            return name
    raise WheelhouseError(f"this machine is {' '.join(here)}; name the room's with --platforms {' '.join(PLATFORMS)}.")


def pins_for(lock: str, name: str, python: str) -> list[str]:
    """The lines of a lock file, as ``package==version``, that a platform and a Python, such as ``3.11``, need."""
    about = PLATFORMS[name]
    markers = {
        "python_version": python, "python_full_version": f"{python}.9", "implementation_name": "cpython",
        "platform_python_implementation": "CPython", "os_name": "nt" if name == "windows" else "posix",
        "sys_platform": about.sys_platform, "platform_system": about.system, "platform_machine": about.machine,
        "extra": "",
    }  # fmt: skip
    lines = [Requirement(line) for line in lock.splitlines() if line.strip()]
    needed = [line for line in lines if line.marker is None or line.marker.evaluate(markers)]
    return [f"{line.name}{line.specifier}" for line in needed if not FOR_GRAPHICS_CARDS.match(line.name)]


def download(pins: list[str], name: str, python: str, folder: Path) -> list[str]:
    """Put wheels of the packages into a folder; what has none is built from its source, where that fits any machine.

    Returns
    -------
    the packages that were built

    Raises
    ------
    WheelhouseError : pip cannot get a package, or a package has to be built on the platform itself
    """
    tags = [f"--platform={tag}" for tag in PLATFORMS[name].tags]
    built = []
    while pins:
        command = [*PIP, "download", "--no-deps", "--only-binary=:all:", f"--python-version={python}", *tags]
        done = subprocess.run([*command, f"--dest={folder}", *pins], capture_output=True, text=True)
        if done.returncode == 0:
            break
        lacking = NO_WHEEL.findall(done.stderr)
        if not lacking or lacking[0] not in pins:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise WheelhouseError(f"pip could not download for {name}: {last}")
        build(lacking[0], folder, name)
        built.append(lacking[0])
        pins = [pin for pin in pins if pin != lacking[0]]
    return built


def build(what: str | Path, folder: Path, name: str = "any platform") -> Path:
    """Build the wheel of a package, or of a folder with a pyproject.toml, that fits any machine, into a folder.

    Raises
    ------
    WheelhouseError : it cannot be built, or fits this machine only
    """
    with tempfile.TemporaryDirectory() as attempt:
        command = [*PIP, "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={attempt}", str(what)]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(attempt).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise WheelhouseError(f"{what} has no wheel for {name} and could not be built from its source: {last}")
        if not wheels[0].name.endswith("-none-any.whl"):
            raise WheelhouseError(
                f"{what} has no wheel for {name}, and what its source gives, {wheels[0].name}, fits this machine only; "
                f"gather on a machine of the room's kind."
            )
        return Path(shutil.copy(wheels[0], folder))


def own_wheel(folder: Path) -> Path:
    """Build gexlib's wheel from a copy, so that nothing is left in the repository."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(home() / "gexlib", Path(copy, "gexlib"), ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(home() / file, copy)
        return build(copy, folder)


def write_manifest(folder: Path) -> None:
    """Write the SHA-256 of every wheel, in the form that `sha256sum --check` reads."""
    lines = [f"{sha256_of(wheel)}  {wheel.name}\n" for wheel in sorted(folder.glob("*.whl"))]
    write_text(folder / "MANIFEST", "".join(lines))


def check(folder: Path) -> int:
    """Compare the wheels of a folder with its MANIFEST; the number of wheels.

    Raises
    ------
    WheelhouseError : there is no MANIFEST, or wheels are missing, changed or not listed; the first is named
    """
    try:
        lines = (folder / "MANIFEST").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise WheelhouseError(f"{folder / 'MANIFEST'}: {error.strerror.lower()}; is this a wheelhouse?") from None
    listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    there = {wheel.name for wheel in folder.glob("*.whl")}
    changed = {name for name in there & set(listed) if sha256_of(folder / name) != listed[name]}
    for what, names in (("missing", set(listed) - there), ("changed", changed), ("not listed", there - set(listed))):
        if names:
            raise WheelhouseError(f"{folder}: {len(names)} wheels {what}, the first is {min(names)}; copy it again.")
    return len(listed)


def gather(names: list[str], python: str, folder: Path) -> None:
    """Fill a folder for some platforms; wheels that are there already stay."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (home() / "requirements.lock").read_text(encoding="utf-8")
    for name in names:
        pins = pins_for(lock, name, python)
        built = ", ".join(download(pins, name, python, folder)) or "none"
        print(f"{name}, Python {python}: {len(pins)} packages, of these built from source: {built}", flush=True)
    own_wheel(folder)
    write_manifest(folder)
    words = {"python": python, "folder": folder.name, "platforms": ", ".join(names)}
    write_text(folder / "install.txt", IN_THE_ROOM.format(**words))
    megabytes = sum(wheel.stat().st_size for wheel in folder.glob("*.whl")) / 1e6
    print(f"{check(folder)} wheels, {megabytes:,.0f} MB, in {folder}; install.txt says what to type in the room")


def main(arguments: list[str] | None = None) -> None:
    """Gather or check, as the command line says."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    parser = argparse.ArgumentParser(description="Gather all that a room without a network needs.")
    parser.add_argument("--platforms", nargs="+", choices=[*PLATFORMS, "all"], help="default: that of this machine")
    parser.add_argument("--python", choices=["3.11", "3.12"], default=here, help="of the room (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=home() / "wheelhouse", help="the folder (default: wheelhouse/)")
    parser.add_argument("--check", action="store_true", help="compare a carried folder with its MANIFEST")
    args = parser.parse_args(arguments)
    try:
        if args.check:
            print(f"{check(args.out)} wheels, all as gathered.")
        else:
            names = args.platforms or [this_platform()]
            gather([*PLATFORMS] if "all" in names else names, args.python, args.out)
    except WheelhouseError as error:
        sys.exit(f"make_wheelhouse: {error}")


if __name__ == "__main__":
    main()
