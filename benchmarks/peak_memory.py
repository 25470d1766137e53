"""How much memory a notebook takes at most: does it fit a laptop, or a free machine of 2 GB on Binder?

    python benchmarks/peak_memory.py 00 01 05 [--profile tiny] [--every 0.05]

Each notebook is run by the strict runner, one after the other, into a folder that is thrown away. Resident memory of
the runner and all that it starts is read every `--every` seconds. Two peaks are printed: of all processes together,
where pages that two of them share count twice, and of the largest one, the kernel. JupyterLab itself comes on top.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

MIB = 2**20


def resident(process: psutil.Process) -> list[int]:
    """Resident bytes of a process and of all below it; one that ends meanwhile has none."""
    sizes = []
    with suppress(psutil.NoSuchProcess):
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                sizes.append(each.memory_info().rss)
    return sizes


def peaks(command: list[str], every: float = 0.05) -> tuple[int, int, float]:
    """Run a command: the most bytes of all its processes together, and of one of them, and the seconds it took.

    Raises
    ------
    RuntimeError : it failed; the message ends with what it said last
    """
    together = largest = 0
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        process = psutil.Process(running.pid)
        while running.poll() is None:
            sizes = resident(process)
            together, largest = max(together, sum(sizes)), max([largest, *sizes])
            time.sleep(every)
        if running.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {said.read().decode(errors='replace')[-800:]}")
    return together, largest, time.perf_counter() - began


def main() -> None:
    """Measure the notebooks that the command line names."""
    parser = argparse.ArgumentParser(description="How much memory a notebook takes at most.")
    parser.add_argument("numbers", nargs="+", metavar="NUMBER", help="00, 01, 02b, …")
    parser.add_argument("--profile", default="tiny", help="a set of parameters (default: %(default)s)")
    parser.add_argument("--every", type=float, default=0.05, help="seconds between two looks (default: %(default)s)")
    args = parser.parse_args()
    for number in args.numbers:
        with tempfile.TemporaryDirectory() as folder:
            out = ["--profile", args.profile, "--out", str(Path(folder) / "run")]
            together, largest, seconds = peaks([sys.executable, "-m", "gexlib", "run", number, *out], args.every)
        found = f"{together / MIB:,.0f} MiB in all, {largest / MIB:,.0f} MiB in the largest process"
        print(f"{number}, {args.profile}: at most {found}, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
