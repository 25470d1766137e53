"""Sweeps with Snakemake: what is killed is resumed, nothing finished is repeated; and on a SLURM of one node."""

import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from test_run import write_notebook

from gexlib.files import home

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        importlib.util.find_spec("snakemake") is None, reason="Snakemake, the extra 'sweep', is missing"
    ),
]
PATIENCE = 180  # seconds, on a busy machine
SLURM = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
PARAMETERS = 'room: str = ""\nseed: int = 7\nfail: str = ""\n'
TOY = """\
import json, os, pathlib, time
place = pathlib.Path(room)
(place / f"here-{seed}").write_text(str(os.getpid()))
while not (place / f"gate-{seed}").exists():
    time.sleep(0.05)"""
LAST = """\
if fail == "cell":
    raise ValueError("no such stage")
if fail == "memory":
    held = bytearray(1_500_000_000)
    time.sleep(600)
with open(place / "completed", "a") as stream:
    stream.write(f"{seed}\\n")
_ = (pathlib.Path(os.environ["GEXLIB_OUT"]) / "results.json").write_text(json.dumps({"rows": []}))"""


@pytest.fixture
def room(tmp_path):
    """A checkout with one toy notebook: it says that it is here, waits at its gate, and says that it completed."""
    for part in ("gexlib", "workflow"):
        shutil.copytree(home() / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    write_notebook(tmp_path / "notebooks/01_toy.ipynb", TOY, LAST, parameters=PARAMETERS)
    yield tmp_path
    for process in of_this_sweep(tmp_path / "out"):
        process.kill()


def ask(room: Path, seeds=(1, 2), **parts) -> None:
    lines = {"notebook": '"01"', "fixed": json.dumps({"room": str(room)}), "seeds": list(seeds)}
    lines |= {"resources": "{cores: 1, memory_gb: 1.4, minutes: 9}", **parts}
    (room / "toy.yaml").write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))


def start(room: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "gexlib", "sweep", "toy.yaml", "--out", "out", *options]
    around = {**os.environ, "PYTHONPATH": str(room), "PYTHONUNBUFFERED": "1"}
    with open(room / "said", "w") as said:
        return subprocess.Popen(command, cwd=room, env=around, stdout=said, stderr=said)


def sweep(room: Path, *options: str) -> tuple[int, str]:
    """Run `sweep` to its end: exit code, and what it said."""
    code = start(room, *options).wait(PATIENCE)
    return code, (room / "said").read_text()


def wait_for(true, what: str = "") -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def of_this_sweep(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("GEXLIB_SWEEP") == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def runs(room: Path) -> dict[int, Path]:
    """Seed -> folder of the runs that are done."""
    found = {}
    for done in (room / "out/runs").glob("*/done.json"):
        found[json.loads(done.read_text())["parameters"]["seed"]] = done.parent
    return found


def one_done_one_waiting(room: Path, *options: str) -> subprocess.Popen:
    """A sweep whose run with seed 1 is complete, while that with seed 2 is at work."""
    ask(room)
    (room / "gate-1").touch()
    process = start(room, "--jobs", "2", *options)
    wait_for(lambda: (room / "here-2").exists() and 1 in runs(room) and (room / "here-2").read_text(), "no run began")
    return process


def find(room: Path, who: str) -> psutil.Process:
    kernel = psutil.Process(int((room / "here-2").read_text()))
    runner = kernel.parent()
    wrapper = runner.parent()
    return {"kernel": kernel, "runner": runner, "wrapper": wrapper, "Snakemake": wrapper.parent()}[who]


def complete(room: Path, seeds=(1, 2)) -> None:
    """Every run complete, none twice, none by half, nobody left behind."""
    assert sorted((room / "completed").read_text().split()) == sorted(map(str, seeds))
    assert set(runs(room)) == set(seeds)
    left = {path.name for path in (room / "out/runs").iterdir()}
    assert left == {path.name for path in runs(room).values()}
    assert of_this_sweep(room / "out") == []


TOLD = {
    "kernel": "the kernel was killed",
    "runner": "the runner was killed by SIGKILL",
    "wrapper": "ended without a word",
    "Snakemake": "Snakemake was killed by SIGKILL",
}


@pytest.mark.parametrize("victim", TOLD)
def test_what_is_killed_is_resumed_and_what_is_done_is_not_repeated(room, victim):
    process = one_done_one_waiting(room)
    before = (runs(room)[1] / "done.json").stat().st_mtime_ns
    find(room, victim).send_signal(signal.SIGKILL)

    assert process.wait(PATIENCE) == 1 and of_this_sweep(room / "out") == []
    said = (room / "said").read_text()
    assert "2 runs: 1 done, 1 stopped" in said and TOLD[victim] in said

    (room / "gate-2").touch()
    code, said = sweep(room, "--jobs", "2")
    assert code == 0 and "1 to run" in said and said.endswith("2 runs: 2 done\n")
    complete(room)
    assert (runs(room)[1] / "done.json").stat().st_mtime_ns == before


def test_a_killed_sweep_is_taken_over_from_the_snakemake_that_outlived_it(room):
    process = one_done_one_waiting(room)
    snakemake, kernel = find(room, "Snakemake"), find(room, "kernel")
    process.kill()
    process.wait()
    assert not gone(snakemake) and not gone(kernel)

    process = start(room)
    wait_for(lambda: (room / "here-2").read_text() not in ("", str(kernel.pid)), "the run did not begin anew")
    assert gone(snakemake) and gone(kernel)
    (room / "gate-2").touch()
    assert process.wait(PATIENCE) == 0 and "1 to run" in (room / "said").read_text()
    complete(room)


def test_an_interrupted_sweep_ends_its_runs_and_goes_on_later(room):
    process = one_done_one_waiting(room)
    kernel = find(room, "kernel")
    code, said = sweep(room)
    assert code == 2 and f"another sweep is at work in {room / 'out'} (process {process.pid})" in said
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 130 and of_this_sweep(room / "out") == []
    assert gone(kernel)
    (room / "gate-2").touch()
    assert sweep(room)[0] == 0
    complete(room)


def test_a_failing_run_and_passed_limits_are_reported_and_stop_no_other(room):
    ask(room, (1,), list='[{fail: ""}, {fail: cell}, {fail: memory}]')
    (room / "gate-1").touch()
    code, said = sweep(room, "--jobs", "2")
    assert code == 1 and "3 runs: 1 done, 2 failed" in said
    assert "notebook 01 stopped in code cell 4 of 4: ValueError: no such stage" in said
    assert "passed its memory limit: 1." in said
    assert len(list((room / "out/runs").glob("*.failed.ipynb"))) == 2 and of_this_sweep(room / "out") == []

    code, said = sweep(room)
    assert code == 1 and "0 to run" in said and "ValueError: no such stage" in said
    ask(room, (1,), list='[{fail: ""}, {fail: cell}, {fail: memory}]', resources="{cores: 1, minutes: 0.001}")
    code, said = sweep(room, "--retry-failed")
    assert code == 1 and "2 to run" in said and said.count("passed its time limit of 0.001 minutes") == 4
    assert (room / "completed").read_text() == "1\n"


# SLURM


CONFIGURED = Path("/etc/slurm/slurm.conf")  # a job finds it nowhere else: Snakemake drops SLURM_CONF within one


@pytest.fixture
def slurm():
    """A cluster of one node on this machine, in a folder of its own; ended by the ids of the processes it started."""
    missing = [program for program in SLURM if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} of Debian's slurm-wlm and munge are not installed on this machine")
    if os.getuid() != 0:
        pytest.skip("a SLURM of one node is started by root only")
    if CONFIGURED.exists():
        pytest.skip(f"a SLURM is configured here already, in {CONFIGURED}")
    folder = Path(tempfile.mkdtemp(prefix="gexlib-slurm-"))
    folder.chmod(0o755)
    CONFIGURED.parent.mkdir(exist_ok=True)
    CONFIGURED.unlink(missing_ok=True)  # a link that a killed test has left
    CONFIGURED.symlink_to(folder / "slurm.conf")
    processes = start_slurm(folder)
    try:
        wait_for(lambda: "idle" in ask_slurm("sinfo", "-h", "-o", "%T"), "the node did not come up")
        yield folder
    finally:
        ask_slurm("scancel", "--user", "root")
        wait_for(lambda: not ask_slurm("squeue", "-h"), "a job does not end")
        for process in reversed(processes):
            process.terminate()
            process.wait(30)
        CONFIGURED.unlink()
        shutil.rmtree(folder, ignore_errors=True)


def start_slurm(folder: Path) -> list[subprocess.Popen]:
    host, key = socket.gethostname().split(".")[0], folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    for part in ("munge", "state", "spool"):
        (folder / part).mkdir()
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], other.getsockname()[1]
    lines = {
        "ClusterName": "gexlib", "SlurmctldHost": f"{host}(127.0.0.1)", "SlurmctldPort": ports[0],
        "SlurmdPort": ports[1], "SlurmUser": "root", "SlurmdUser": "root", "AuthType": "auth/munge",
        "AuthInfo": f"socket={folder}/munge/socket", "CredType": "cred/munge", "StateSaveLocation": folder / "state",
        "SlurmdSpoolDir": folder / "spool", "SlurmctldPidFile": folder / "slurmctld.pid",
        "SlurmdPidFile": folder / "slurmd.pid", "ProctrackType": "proctrack/linuxproc", "TaskPlugin": "task/none",
        "SwitchType": "switch/none", "MpiDefault": "none", "ReturnToService": 2, "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core", "AccountingStorageType": "accounting_storage/none", "KillWait": 5,
        "NodeName": f"{host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory=6000 State=UNKNOWN",
        "PartitionName": f"main Nodes={host} Default=YES MaxTime=60 State=UP",
    }  # fmt: skip
    (folder / "slurm.conf").write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
    munge = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge/socket"]
    munge += [f"--{part}-file={folder}/munge/{part}" for part in ("pid", "log", "seed")]
    started = []
    for command in (munge, ["slurmctld", "-D", "-i"], ["slurmd", "-D", "-N", host]):
        with open(folder / f"{command[0]}.out", "w") as out:
            started.append(subprocess.Popen(command, stdout=out, stderr=out))
        wait_for(lambda: (folder / "munge/socket").exists(), "munged did not start")
    return started


def ask_slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()


def test_two_runs_go_through_slurm_and_a_cancelled_job_is_reported_and_resumed(room, slurm):
    process = one_done_one_waiting(room, "--executor", "slurm")
    (at_work,) = [path for path in (room / "out/state").glob("*") if path.stem != runs(room)[1].name]
    state = json.loads(at_work.read_text())
    ask_slurm("scancel", state["slurm_job"])
    assert process.wait(PATIENCE) == 1
    said = (room / "said").read_text()
    assert "2 runs: 1 done, 1 stopped" in said and "ended by SIGTERM" in said
    (room / "gate-2").touch()
    code, said = sweep(room, "--executor", "slurm")
    assert code == 0 and "1 to run" in said and said.endswith("2 runs: 2 done\n")
    complete(room)
