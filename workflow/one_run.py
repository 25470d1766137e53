"""One run of a sweep: `python one_run.py NAME` in the sweep's folder; called by the Snakefile, on whatever machine.

It waits for the run's lock, caps threads, leases GPUs, starts `python -m gexlib run` in a process of its own, watches
its time, its memory and the life of Snakemake, and writes state/NAME.json. It needs what gexlib needs, and POSIX.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil

from gexlib.files import write_json

POLL = 0.2  # seconds between two looks at a run
GRACE = 30  # seconds that a run has to shut its kernel down before it is killed
THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
    "NPROC",  # the threads of XLA on the CPU, hence of JAX
)  # fmt: skip


class Unwanted(Exception):
    """The run is no longer asked for; the message says why."""


class Wanted:
    """Raises `Unwanted` once this process has been asked to end, or Snakemake, its parent, has died."""

    def __init__(self):
        self.parent, self.asked = os.getppid(), []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: self.asked.append(number))

    def check(self) -> None:
        if self.asked:
            raise Unwanted(f"ended by {signal.Signals(self.asked[0]).name}")
        if os.getppid() != self.parent:
            raise Unwanted("Snakemake was killed")


@contextmanager
def leased(count: int, names: list[str], folder: Path, wanted: Wanted) -> Iterator[dict[str, int]]:
    """`count` of the named things, each by a lock on a file in `folder`: yields {name: descriptor of its file}.

    It waits until so many are free, and never holds some while it waits for others. The system frees a lock when its
    holder, and the children that were handed the descriptor, have died: there are no stale ones.

    Raises
    ------
    ValueError : there are fewer than `count`
    Unwanted : the run was called off while it waited
    """
    if count > len(names):
        raise ValueError(f"{count} GPUs are asked for and {len(names)} are visible here.")
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        with ExitStack() as stack:
            held = {}
            for name in names:
                stream = stack.enter_context(open(folder / name.replace("/", "-"), "a"))
                with suppress(BlockingIOError):
                    if len(held) < count:
                        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        held[name] = stream.fileno()
            if len(held) == count:
                yield held
                return
        wanted.check()
        time.sleep(POLL)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use: CUDA_VISIBLE_DEVICES where it is set, else all that nvidia-smi lists."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [gpu for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if gpu.strip() not in ("", "-1")]
    with suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    return []


def environment(cores: int, gpus: list[str], folder: Path) -> dict[str, str]:
    """What a run's process sees: its threads, its GPUs (none: CPU only), and whose sweep it belongs to."""
    seen = {name: str(cores) for name in THREADS} | {"CUDA_VISIBLE_DEVICES": ",".join(gpus) or "-1"}
    growth = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return {**os.environ, **seen, **growth, "GEXLIB_SWEEP": str(folder), "PYTHONUNBUFFERED": "1"}


def watch(process: subprocess.Popen, minutes: float, memory_gb: float, wanted: Wanted) -> tuple[str, str]:
    """Wait for a run; end it, and its kernel, when it passes a limit or is no longer wanted.

    Returns
    -------
    ("", "") when it ended by itself, else state and reason: `failed` for a limit, `stopped` for what came from outside
    """
    began, family, used = time.monotonic(), {}, 0.0
    state = reason = ""
    while process.poll() is None and not state:
        time.sleep(POLL)
        with suppress(psutil.Error):
            runner = psutil.Process(process.pid)
            now = [runner, *runner.children(recursive=True)]
            family |= {relative.pid: relative for relative in now}
            used = sum(relative.memory_info().rss for relative in now) / 2**30
        try:
            wanted.check()
        except Unwanted as why:
            state, reason = "stopped", str(why)
        if time.monotonic() - began > 60 * minutes:
            state, reason = "failed", f"passed its time limit of {minutes:g} minutes"
        elif used > memory_gb:
            state, reason = "failed", f"passed its memory limit: {used:.1f} of {memory_gb:g} GiB"
    if state:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    for relative in family.values():  # of a runner that was killed the kernel may be left; psutil heeds reused ids
        with suppress(psutil.Error):
            relative.kill()
    process.wait()
    return state, reason


def verdict(code: int, log: str) -> tuple[str, str]:
    """State and reason of a run that ended by itself with this exit code, from the last sentence it said."""
    said = log.rsplit("gexlib: ", 1)[1].split("\nThe partly run notebook")[0].strip() if "gexlib: " in log else ""
    said = " ".join(said.split())
    if code < 0:
        return "stopped", f"the runner was killed by {signal.Signals(-code).name}"
    if code == 130 or "the kernel was killed" in said:
        return "stopped", said
    return "failed", said or f"the runner ended with exit code {code}"


def is_done(target: Path) -> bool:
    """Whether the run stands whole under its name; the runner renames it there with its done.json inside."""
    return (target / "done.json").is_file()


def start(name: str, plan: dict, folder: Path, lock: int, wanted: Wanted) -> tuple[str, str]:
    """Run the notebook in a process of its own; state and reason."""
    needs, log = plan["resources"], folder / "logs" / f"{name}.log"
    with ExitStack() as stack:
        gpus = visible_gpus() if needs["gpus"] else []
        if needs["gpus"] and "SLURM_JOB_ID" not in os.environ:  # there SLURM has done so
            shared = Path(tempfile.gettempdir()) / f"gexlib-gpus-{os.getuid()}"
            gpus = list(stack.enter_context(leased(needs["gpus"], gpus, shared, wanted)))
        stream = stack.enter_context(open(log, "wb"))
        process = subprocess.Popen(
            [sys.executable, "-m", "gexlib", *plan["runs"][name]["command"]],
            cwd=plan["folder"],
            env=environment(needs["cores"], gpus, folder),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),  # while the runner lives, no second one starts
            start_new_session=True,
        )
        state, reason = watch(process, needs["minutes"], needs["memory_gb"], wanted)
    if is_done(folder / "runs" / name):
        return "done", ""
    return (state, reason) if state else verdict(process.returncode, log.read_text(encoding="utf-8", errors="replace"))


def main(name: str) -> int:
    """Bring one run to its end, unless it is there; 0 when it is done."""
    wanted, folder = Wanted(), Path.cwd()
    plan = json.loads(Path("plan.json").read_text(encoding="utf-8"))
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(leased(1, [name], folder / "locks", wanted))[name]
        except Unwanted:
            return 1
        if is_done(folder / "runs" / name):
            return 0
        for left in (folder / "runs").glob(f".{name}-*"):  # of an attempt whose runner was killed
            shutil.rmtree(left, ignore_errors=True)
        (folder / "logs").mkdir(exist_ok=True)
        record = {
            "state": "running", "reason": "", "host": socket.gethostname(), "pid": os.getpid(),
            "slurm_job": os.environ.get("SLURM_JOB_ID", ""), "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        write_json(folder / "state" / f"{name}.json", record)
        began = time.monotonic()
        try:
            state, reason = start(name, plan, folder, lock, wanted)
        except Unwanted as why:
            state, reason = "stopped", str(why)
        except (OSError, ValueError) as error:
            state, reason = "failed", str(error)
        record |= {"state": state, "reason": reason, "seconds": round(time.monotonic() - began, 2)}
        write_json(folder / "state" / f"{name}.json", record)
    return 0 if state == "done" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
