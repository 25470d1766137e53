"""What the strict runner and a sweep cost beyond the notebook's own work, and what a second worker brings.

    python benchmarks/sweep_overhead.py [--repeats 3] [--runs 4] [--work 3]

The notebook is a toy: its one cell multiplies matrices on one thread for about `--work` seconds, and says how long it
took. Measured, each in wall seconds and in processor seconds (which other programs on the machine disturb less): a
bare kernel that is started and stopped; the import of TensorFlow as notebooks do it; `python -m gexlib run` beyond the
cell; a sweep of `--runs` runs beyond their cells, one worker; and two workers against one. Needs the extra `sweep`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import numpy as np
import psutil

from gexlib.files import home

PARAMETERS = "seed: int = 1\nrounds: int = 100\n"
WORK = """\
import json, os, pathlib, time
import numpy as np
began, used = time.perf_counter(), time.process_time()
a = np.random.default_rng(seed).normal(size=(300, 300))
for _ in range(rounds):
    a = a @ a
    a /= np.abs(a).max()
took = {"rows": [], "timings": {"wall": time.perf_counter() - began, "processor": time.process_time() - used}}
_ = (pathlib.Path(os.environ["GEXLIB_OUT"]) / "results.json").write_text(json.dumps(took))"""
KERNEL = """\
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel()
client.stop_channels()
manager.shutdown_kernel()"""
SWEEP = 'notebook: "01"\nfixed: {{rounds: {rounds}}}\nseeds: {seeds}\nresources: {{cores: 1, memory_gb: 1}}\n'


def timed(command: list[str], folder: Path) -> np.ndarray:
    """Wall and processor seconds of a command and all that it started."""
    used = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    began = time.perf_counter()
    around = {**os.environ, "PYTHONPATH": str(folder), "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *command], cwd=folder, env=around, check=True, capture_output=True)
    return np.array([time.perf_counter() - began, sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - used])


def work_of(folder: Path) -> np.ndarray:
    """Wall and processor seconds of the cells of all runs below a folder."""
    found = [json.loads(path.read_text())["timings"] for path in folder.rglob("results.json")]
    return np.array([sum(one["wall"] for one in found), sum(one["processor"] for one in found)])


def make_room(folder: Path) -> None:
    """A checkout with the toy as its only notebook."""
    for part in ("gexlib", "workflow"):
        shutil.copytree(home() / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(WORK)]
    (folder / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "notebooks/01_toy.ipynb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--work", type=float, default=3.0, help="seconds of the cell")
    chosen = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores when it began; other programs used "
          f"{psutil.cpu_percent(2):.0f} % of them.")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="gexlib-overhead-") as name:
        folder = Path(name).resolve()
        make_room(folder)
        measure(folder, chosen.repeats, chosen.runs, chosen.work)


def measure(folder: Path, repeats: int, runs: int, work: float) -> None:
    run = ["-m", "gexlib", "run", "01", "--out", "one", "-p", "rounds"]
    timed([*run, "100"], folder)
    rounds = str(max(1, int(100 * work / work_of(folder / "one")[0])))
    tables = {"python": [], "a bare kernel": [], "import of TensorFlow": [], "run, beyond its cell": []}
    for _ in range(repeats):
        tables["python"].append(timed(["-c", "pass"], folder))
        tables["a bare kernel"].append(timed(["-c", KERNEL], folder))
        tables["import of TensorFlow"].append(timed(["-c", "import gexlib.training"], folder))
        tables["run, beyond its cell"].append(timed([*run, rounds], folder) - work_of(folder / "one"))
    for what, seconds in tables.items():
        show(what, np.median(seconds, axis=0))
    seeds, walls = list(range(runs)), {}
    (folder / "toy.yaml").write_text(SWEEP.format(rounds=rounds, seeds=seeds))
    for jobs in (1, 2):
        out = f"sweep{jobs}"
        whole = timed(["-m", "gexlib", "sweep", "toy.yaml", "--out", out, "--jobs", str(jobs)], folder)
        walls[jobs] = whole[0]
        show(f"sweep of {runs}, {jobs} at a time, a run", whole / runs)
        if jobs == 1:
            show("... beyond its cell", (whole - work_of(folder / out)) / runs)
    again = timed(["-m", "gexlib", "sweep", "toy.yaml", "--out", "sweep2", "--jobs", "2"], folder)
    show("sweep again, all done", again)
    print(f"two workers against one: {walls[1] / walls[2]:.2f} times as fast.")


def show(what: str, seconds: np.ndarray) -> None:
    print(f"{what:<36} {seconds[0]:7.2f} s wall {seconds[1]:7.2f} s processor", flush=True)


if __name__ == "__main__":
    main()
