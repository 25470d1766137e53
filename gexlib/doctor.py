"""Does this machine have what the notebooks need? `python -m gexlib doctor`, to be asked a day ahead of a workshop."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from gexlib.files import REPORTED_VERSIONS, data_folder, home

GIB = 2**30
INSTALL = "install the package again from its lock file, in a fresh environment"


class Check(NamedTuple):
    """One line of the report; `what_to_do` is empty where it is ok."""

    what: str
    ok: bool
    found: str
    what_to_do: str


def _check(what: str, ok: bool, found: str, cure: str = "") -> Check:
    return Check(what, ok, found, "" if ok else cure)


def check_versions() -> list[Check]:
    """Python and the packages, against what gexlib's own metadata requires."""
    from packaging.requirements import Requirement

    package = importlib.metadata.metadata("gexlib")
    needs = [f"Python{package['Requires-Python']}", "gexlib", *package.get_all("Requires-Dist")]
    needs = [need for need in map(Requirement, needs) if need.marker is None or need.marker.evaluate({"extra": ""})]
    lines = [_check_version(need.name, need.specifier) for need in needs]
    shown = [line for line in lines if not line.ok or line.what in ("Python", *REPORTED_VERSIONS)]
    return [*shown, _check("other packages", True, f"{len(lines) - len(shown)} at the versions needed")]


def _check_version(name: str, wanted) -> Check:
    try:
        found = platform.python_version() if name == "Python" else importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return _check(name, False, "not installed", INSTALL)
    return _check(name, wanted.contains(found, prereleases=True), found, f"{wanted} is needed: {INSTALL}")


def check_machine() -> list[Check]:
    """Cores, memory and disk."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(home()).free
    found = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    return [
        _check("cores", True, str(cores)),
        _check("memory", memory.available >= 2 * GIB, found, "close other programs: 2 GiB are needed"),
        _check("disk", disk >= 2 * GIB, f"{disk / GIB:.0f} GiB free", "free 2 GiB on the disk of the repository"),
    ]


def check_folders() -> list[Check]:
    """The folders that runs and downloads write to, and the optional one of prepared real data."""
    folders = {"runs": home() / "runs", "downloads": data_folder(), "temporary": Path(tempfile.gettempdir())}
    lines = [_check_writable(f"folder: {what}", folder) for what, folder in folders.items()]
    real = os.environ.get("GEXLIB_REAL_DATA")
    found = "set" if real else "not set (only cohorts named real: need it)"
    cure = f"there is no folder {real}: unset it, or set it to the folder of prepared cohorts"
    return [*lines, _check("GEXLIB_REAL_DATA", not real or Path(real).is_dir(), found, cure)]


def _check_writable(what: str, folder: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=next(path for path in (folder, *folder.parents) if path.exists())):
            return _check(what, True, "can be written")
    except OSError as error:
        return _check(what, False, f"{folder} cannot be written ({error.strerror})", "give yourself the right to")


def check_training() -> list[Check]:
    """Train a tiny network in a process of its own, so that a broken TensorFlow cannot take this one with it."""
    code = "import json; from gexlib.doctor import train_a_little; print(json.dumps(train_a_little()))"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired:
        return [_check("training", False, "no end after 180 s", "close other programs and try again")]
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return [_check("training", False, last[:200], INSTALL)]
    result = json.loads(done.stdout.splitlines()[-1])
    first, last = result["losses"]
    found = f"loss {first:.3f} to {last:.3f} in {result['seconds']:.1f} s"
    accelerators = ", ".join(result["accelerators"]) or "none: the CPU is enough (an NVIDIA card needs the extra 'gpu')"
    training = _check("training", last < first, found, f"the loss should fall: {INSTALL}")
    return [training, _check("accelerator", True, accelerators)]


def train_a_little() -> dict[str, object]:
    """Fit a tiny network to random data for 100 steps: its losses, first and last, its seconds, and accelerators."""
    import jax
    import numpy as np

    from gexlib.training import keras

    x = np.random.default_rng(7).normal(size=(640, 50)).astype("float32")
    keras.utils.set_random_seed(7)
    network = keras.Sequential([keras.layers.Dense(32, activation="leaky_relu"), keras.layers.Dense(1)])
    network.compile(optimizer="adam", loss="mse")
    began = time.perf_counter()
    losses = network.fit(x, x[:, :1] - x[:, 1:2], epochs=10, batch_size=64, verbose=0).history["loss"]
    seconds = time.perf_counter() - began
    devices = {*keras.distribution.list_devices(), *(f"jax {device.device_kind}" for device in jax.devices())}
    accelerators = sorted(device for device in devices if "cpu" not in device.lower())
    return {"losses": [losses[0], losses[-1]], "seconds": seconds, "accelerators": accelerators}


CHECKS = {"packages": check_versions, "machine": check_machine, "folders": check_folders, "training": check_training}


def print_report() -> bool:
    """Print each check as it is made, with ok or what to do; True when all that is needed is here."""
    good = True
    for what, check in CHECKS.items():
        try:
            lines = check()
        except ImportError as missing:  # what is missing may be what the check itself needs
            lines = [_check(what, False, str(missing), INSTALL)]
        for line in lines:
            cure = "" if line.ok else f"   <- {line.what_to_do}"
            print(f"{'ok' if line.ok else '--'}  {line.what:<18}  {line.found}{cure}", flush=True)
            good = good and line.ok
    print("\nEverything needed is here." if good else "\nSomething is missing: see the lines marked --.")
    return good
