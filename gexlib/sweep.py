"""Sweeps: one notebook under many parameters, each run by the strict runner, side by side, killed and resumed.

A sweep file is settled into a `Sweep`, or refused with a sentence before anything starts. Snakemake (workflow/) starts
the runs, here or on SLURM; whether a run is done is said by its own folder alone. A run's name is a hash of its
parameters, the code of the notebook and of gexlib, and the files its cohort is read from: what is done is not done
again, what has changed is.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import yaml

from gexlib.files import data_folder, home, sha256_of, write_json, write_text, written_whole
from gexlib.run import OWN_CELL, Parameter, make_plan, notebooks, read_parameters
from gexlib.words import nearest

KEYS = ("about", "notebook", "profile", "fixed", "grid", "list", "random", "seeds", "resources", "slurm")
RESOURCES = {"cores": 2, "memory_gb": 4, "gpus": 0, "minutes": 60}
SITE = ("account", "partition", "gres")
RANGE = ("low", "high", "log")
EXECUTORS = ("local", "slurm")
MOST = 10_000  # runs of a sweep
STATES = ("done", "running", "failed", "stopped", "waiting")
PREFERRED = ("macro AUC", "AUC", "balanced accuracy", "accuracy")
FAMILIES = ("network", "linear", "majority")


@dataclass(frozen=True)
class Sweep:
    """A sweep file that has passed every check; nothing has been written yet."""

    folder: Path
    notebook: str
    profile: str
    swept: list[str]  # the parameters that differ between runs
    runs: dict[str, dict[str, object]]  # name -> chosen (as given), parameters (all of the run)
    resources: dict[str, float]
    slurm: dict[str, str]


def sweep(
    file: str, out: str | None = None, jobs: int | None = None, executor: str = "local", dry_run: bool = False,
    retry_failed: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Bring every run of a sweep file to its end and return the table of `status`.

    Parameters
    ----------
    file : the sweep file; docs/from_laptop_to_cluster.md describes it
    out : the folder of the sweep; by default runs/sweeps/<name of the file>
    jobs : runs at a time; by default what the cores and the memory of this machine hold, on SLURM 100
    executor : ``local`` or ``slurm``
    dry_run : only say what would be run
    retry_failed : also those that failed by themselves or passed a limit; what was killed is run again in any case

    Raises
    ------
    ValueError : a refusal, before anything starts; another sweep is at work in the same folder
    ModuleNotFoundError : Snakemake is not installed
    """
    folder = (Path(out) if out else home() / "runs" / "sweeps" / Path(file).stem).resolve()
    request = read_sweep(file, folder)
    jobs = _fit(request, jobs, executor)
    _refuse_foreign(folder)
    plan = _plan(request, executor)
    if dry_run:
        table = status(folder, plan)
        print(f"{_counts(table)}; each with {_needs(request)}\n{in_words(table, every=True)}")
        return table
    with _lock(folder) as lock:
        table = status(folder, plan)
        again = ("waiting", "stopped", "running") + (("failed",) if retry_failed else ())
        plan["todo"] = list(table.index[table["state"].isin(again)])
        write_text(folder / "sweep.yaml", Path(file).read_text(encoding="utf-8"))
        write_json(folder / "plan.json", plan)
        for name in plan["todo"]:
            (folder / "finished" / name).unlink(missing_ok=True)
            if table.loc[name, "state"] != "running":
                (folder / "state" / f"{name}.json").unlink(missing_ok=True)
        print(f"{_counts(table)}; {len(plan['todo'])} to run, {jobs} at a time, in {folder}", flush=True)
        if plan["todo"]:
            _snakemake(folder, plan, jobs, lock)
    table = status(folder)
    table.loc[table["state"] == "waiting", "reason"] = "was not started, see snakemake.log"
    print(f"{_counts(table)}\n{in_words(table)}".rstrip(), flush=True)
    if plan["todo"] and not any((folder / "state" / f"{name}.json").exists() for name in plan["todo"]):
        said = (folder / "snakemake.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise ValueError(f"Snakemake started nothing; {folder / 'snakemake.log'} ends with: {' '.join(said[-3:])}")
    return table


# the sweep file


class _Strict(yaml.SafeLoader):
    """YAML whose mappings name each key once."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"'{key}' is given twice, line {node.start_mark.line + 1} on")
        return super().construct_mapping(node, deep)


def read_sweep(file: str | Path, folder: Path) -> Sweep:
    """Settle a sweep file: every run's parameters of the type its notebook says, and a name for each.

    The runs are all combinations of `list` (one mapping a setting), `grid` (values by parameter), `random` (draws) and
    `seeds`, each on top of `fixed`, that on top of the profile.

    Raises
    ------
    ValueError : the file is no such YAML; an unknown key, notebook, profile or parameter; a wrong type; a parameter
        set in two places; two runs that are the same; a file of the cohort that is not there
    """
    file = Path(file)
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Strict)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}; expected a sweep file, such as those in sweeps/.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file.name} is not YAML: {' '.join(str(error).split())}.") from None
    try:
        return _settle(content, folder)
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from None


def _settle(content: object, folder: Path) -> Sweep:
    _known("the sweep", content, KEYS)
    number, profile = content.get("notebook"), content.get("profile", OWN_CELL)
    if not isinstance(number, str):
        raise ValueError(f'notebook is {number!r}; expected its number in quotes, such as notebook: "01".')
    if number not in notebooks():
        raise ValueError(f"no notebook '{number}' ({nearest(number, notebooks())}).")
    parts = {
        "fixed": [_mapping("fixed", content.get("fixed", {}))],
        "list": _settings(content.get("list", [{}])),
        "grid": _grid(content.get("grid", {})),
        "random": _draws(content.get("random"), read_parameters(notebooks()[number])),
        "seeds": [{"seed": seed} for seed in _values("seeds", content["seeds"])] if "seeds" in content else [{}],
    }
    _once(parts)
    if math.prod(map(len, parts.values())) > MOST:
        raise ValueError(f"it asks for {math.prod(map(len, parts.values())):,} runs; at most {MOST:,} are taken.")
    swept = list(dict.fromkeys(key for part, all in parts.items() if part != "fixed" for one in all for key in one))
    code, files, runs = _code_of(number), {}, {}
    for combination in itertools.product(*parts.values()):
        chosen = {name: value for part in combination for name, value in part.items()}
        plan = make_plan(number, profile, str(folder / "runs" / "new"), chosen.items())
        chosen = {name: plan.parameters[name] for name in chosen}
        for name, value in chosen.items():
            if isinstance(value, str) and value.startswith("-"):
                raise ValueError(f"parameter '{name}' is {value!r}, which a command line takes for an option.")
        behind = {value: _file_checksums(value, files) for value in plan.parameters.values() if isinstance(value, str)}
        whole = json.dumps([number, code, plan.parameters, behind], sort_keys=True)
        name = hashlib.sha256(whole.encode()).hexdigest()[:12]
        if name in runs:
            raise ValueError(f"two runs are the same: {_in_short({key: chosen.get(key) for key in swept})}.")
        runs[name] = {"chosen": chosen, "parameters": plan.parameters}
    needs = _resources(content.get("resources", {}))
    return Sweep(folder, number, profile, swept, runs, needs, _site(content.get("slurm", {}), needs["gpus"]))


def _known(what: str, found: object, keys: tuple[str, ...]) -> None:
    """Refuse what is no mapping, or has a key that is none of these."""
    for key in _mapping(what, found):
        if key not in keys:
            raise ValueError(f"{what} has no key '{key}' ({nearest(str(key), keys)}).")


def _mapping(what: str, found: object) -> dict:
    if not isinstance(found, dict):
        raise ValueError(f"{what} is {found!r}; expected lines such as 'steps: 600'.")
    return found


def _values(what: str, found: object) -> list:
    if not isinstance(found, list) or not found:
        raise ValueError(f"{what} is {found!r}; expected a list of values, such as [1, 2, 3].")
    return found


def _settings(found: object) -> list[dict]:
    """The settings of `list`, each naming the same parameters."""
    settings = [_mapping("a setting of list", setting) for setting in _values("list", found)]
    if len({frozenset(setting) for setting in settings}) > 1:
        raise ValueError("the settings of list name different parameters; expected the same ones in each.")
    return settings


def _grid(found: object) -> list[dict]:
    columns = [[(name, value) for value in _values(name, values)] for name, values in _mapping("grid", found).items()]
    return [dict(cells) for cells in itertools.product(*columns)]


def _draws(found: object, known: Mapping[str, Parameter]) -> list[dict]:
    """Different random draws: uniform between low and high, or uniform in the logarithm; ints include both ends.

    RandomState's stream is promised never to change, so a seed names its draws for good. Six digits are kept.
    """
    if found is None:
        return [{}]
    _known("random", found, ("n", "seed", "ranges"))
    n, seed = found.get("n"), found.get("seed", 1)
    for what, number, least in (("n", n, 1), ("seed", seed, 0)):
        if type(number) is not int or number < least:
            raise ValueError(f"{what} of random is {number!r}; expected a whole number from {least} on.")
    ranges = {
        name: _range(name, range_, known[name].kind if name in known else "float")  # an unknown one is refused later
        for name, range_ in _mapping("ranges", found.get("ranges", {})).items()
    }
    rng, draws = np.random.RandomState(seed), []
    for _ in range(100 * n):
        draw = {name: drawn(rng) for name, drawn in ranges.items()}
        draws += [] if draw in draws else [draw]
        if len(draws) == n:
            return draws
    raise ValueError(f"the ranges of random do not hold {n} different settings; lower n, or widen them.")


def _range(name: str, found: object, kind: str) -> Callable[[np.random.RandomState], float]:
    """What draws one value of a parameter."""
    _known(f"the range of '{name}'", found, RANGE)
    low, high = (_number(f"{end} of '{name}'", found.get(end)) for end in ("low", "high"))
    log, whole = found.get("log", False), kind == "int"
    if kind not in ("int", "float") or type(log) is not bool or not low < high or (log and low <= 0):
        raise ValueError(
            f"the range of '{name}' ({kind}) is {found}; expected numbers, low < high, and 0 < low where log is true."
        )
    ends = np.array([low, high]) + (np.array([-0.5, 0.5]) if whole else 0)

    def draw(rng: np.random.RandomState) -> float:
        value = math.exp(rng.uniform(*np.log(ends))) if log else rng.uniform(*ends)
        return min(max(round(value), math.ceil(low)), math.floor(high)) if whole else float(f"{value:.6g}")

    return draw


def _number(what: str, found: object) -> float:
    with suppress(TypeError, ValueError):
        if not isinstance(found, bool) and math.isfinite(float(found)):  # YAML reads 1e-5 as text
            return float(found)
    raise ValueError(f"{what} is {found!r}; expected a number.")


def _once(parts: Mapping[str, list[dict]]) -> None:
    """Refuse a parameter that two parts of the file set."""
    places: dict[str, str] = {}
    for part, settings in parts.items():
        for name in settings[0]:
            if name in places:
                raise ValueError(f"parameter '{name}' is set by {places[name]} and by {part}; expected one of them.")
            places[name] = part


def _resources(found: object) -> dict[str, float]:
    _known("resources", found, tuple(RESOURCES))
    needs = RESOURCES | {key: _number(f"{key} of resources", value) for key, value in found.items()}
    for key, value in needs.items():
        least = 0 if key == "gpus" else 1 if key == "cores" else 1e-9
        if value < least or (key in ("cores", "gpus") and value != int(value)):
            raise ValueError(f"{key} of resources is {value:g}; expected a {'whole ' * (least in (0, 1))}number.")
        needs[key] = int(value) if value == int(value) else value
    return needs


def _site(found: object, gpus: float) -> dict[str, str]:
    _known("slurm", found, SITE)
    if "gpu" in str(found.get("gres", "")) and not gpus:
        raise ValueError("slurm asks for GPUs by gres and resources for none; expected gpus: 1 or more in resources.")
    return {key: str(value) for key, value in found.items()}


def _code_of(number: str) -> str:
    """A checksum of the code cells of a notebook and of gexlib's files; prose and stored outputs do not count."""
    cells = json.loads(notebooks()[number].read_text(encoding="utf-8"))["cells"]
    total = hashlib.sha256(json.dumps(["".join(c["source"]) for c in cells if c["cell_type"] == "code"]).encode())
    package = Path(__file__).parent
    for path in sorted(path for kind in ("*.py", "*.yaml", "*.json") for path in package.rglob(kind)):
        total.update(f"{path.relative_to(package).as_posix()} {sha256_of(path)}\n".encode())
    return total.hexdigest()


def _file_checksums(value: str, known: dict[str, list[str]]) -> list[str]:
    """The checksums of the files that a parameter's text names: a path, or a cohort that lies in a file."""
    if value not in known:
        known[value] = [sha256_of(path) for path in _files_behind(value)]
    return known[value]


def _files_behind(value: str) -> list[Path]:
    place = re.sub(r"(,[a-z_]+=[^,]*)+$", "", value)  # without the options of load_cohort
    prefix, _, name = place.partition(":")
    with suppress(OSError):  # a text too long for a path
        for path in (Path(value).expanduser(), Path(place).expanduser()):
            if value and path.is_file():
                return [path]
    if prefix == "real" and name:
        path = Path(os.environ.get("GEXLIB_REAL_DATA", "")) / f"{name}.h5ad"
        if "GEXLIB_REAL_DATA" not in os.environ or not path.is_file():
            raise ValueError(f"{place}: no {name}.h5ad under GEXLIB_REAL_DATA; set it to the folder of that file.")
        return [path]
    if name and prefix.isalnum() and (data_folder() / prefix).is_dir():
        downloaded = sorted((data_folder() / prefix).rglob("*"))
        return [path for path in downloaded if path.is_file() and name in path.as_posix()]
    return []


# the folder


def _plan(request: Sweep, executor: str) -> dict:
    """What workflow/ reads: every run with the arguments of `python -m gexlib` that make it."""
    runs = {}
    for name, run in request.runs.items():
        command = ["run", request.notebook, "--profile", request.profile, "--out", str(request.folder / "runs" / name)]
        for parameter, value in run["chosen"].items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            command += ["-p", parameter, text]
        runs[name] = {"command": command, "parameters": run["parameters"]}
    return {
        "notebook": request.notebook, "profile": request.profile, "swept": request.swept, "executor": executor,
        "folder": str(Path.cwd()), "resources": request.resources, "slurm": request.slurm, "todo": [], "runs": runs,
    }  # fmt: skip


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and ((folder / "plan.json").is_file() or not any(folder.iterdir()))):
        raise ValueError(f"{folder} holds no plan.json; expected the folder of a sweep, or a new one: name another.")


def _fit(request: Sweep, jobs: int | None, executor: str) -> int:
    """Runs at a time. A run that this machine cannot hold is refused."""
    if executor not in EXECUTORS:
        raise ValueError(f"no executor '{executor}' ({nearest(executor, EXECUTORS)}).")
    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs is {jobs}; expected 1 or more.")
    if executor == "slurm":
        return jobs or 100
    needs, memory = request.resources, psutil.virtual_memory().total / 2**30
    if needs["memory_gb"] > memory:
        raise ValueError(f"a run asks for {needs['memory_gb']:g} GiB of memory; this machine has {memory:.0f}.")
    fits = min((os.cpu_count() or 1) // needs["cores"], int(memory // needs["memory_gb"]))
    return jobs or max(1, fits)


@contextmanager
def _lock(folder: Path) -> Iterator[int]:
    """Hold the folder; yields the lock's descriptor.

    The system frees it when this process and Snakemake, which is handed it, have died: there is no stale lock.
    """
    try:
        import fcntl
    except ImportError:
        raise ValueError("sweeps need file locks of Linux or macOS; on Windows use WSL.") from None
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "sweep.lock", "a+") as stream:
        for attempt in (1, 2):
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                stream.seek(0)
                holder = stream.read().strip()
                if attempt == 2 or not holder.isdigit() or psutil.pid_exists(int(holder)):
                    raise ValueError(f"another sweep is at work in {folder} (process {holder}).") from None
                end_strays(folder)  # its Snakemake outlived it
        end_strays(folder)
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield stream.fileno()


def end_strays(folder: Path, patience: float = 40) -> int:
    """End, by process id, what a killed sweep of this folder left on this machine; how many there were.

    They are known by the variable GEXLIB_SWEEP of their environment. Jobs of SLURM are left to it. Runners are asked
    first, so that they shut their kernels down.
    """
    strays = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            around = process.environ()
            if around.get("GEXLIB_SWEEP") == str(folder) and "SLURM_JOB_ID" not in around:
                strays.append(process)
    strays = [process for process in strays if process.pid != os.getpid()]
    for process in strays:
        with suppress(psutil.Error):
            process.kill() if "-m snakemake" in " ".join(process.cmdline()) else process.terminate()
    for process in psutil.wait_procs(strays, timeout=patience)[1]:
        with suppress(psutil.Error):
            process.kill()
    return len(strays)


def _snakemake(folder: Path, plan: dict, jobs: int, lock: int) -> None:
    """Run Snakemake over plan.json to its end and print a line for each run that ends."""
    try:
        import snakemake  # noqa: F401
    except ImportError:
        raise ModuleNotFoundError("sweeps need Snakemake, the extra 'sweep': pip install -e '.[sweep]'") from None
    workflow, needs = home() / "workflow", plan["resources"]
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", workflow / "Snakefile", "--directory", folder,
        "--profile", workflow / "profiles" / plan["executor"],
    ]  # fmt: skip
    if plan["executor"] == "local":
        free = int(psutil.virtual_memory().total / 2**20)
        command += ["--cores", jobs * needs["cores"], "--resources", f"mem_mb={free}"]
    else:
        command += ["--jobs", jobs]
    around = {**os.environ, "GEXLIB_SWEEP": str(folder)}
    around.pop("SNAKEMAKE_PROFILE", None)
    with open(folder / "snakemake.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            list(map(str, command)),
            env=around,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(lock,),
        )
    try:
        seen = set()
        while process.poll() is None:
            time.sleep(0.5)
            _tell(folder, plan, seen)
        end_strays(folder)  # none, unless Snakemake was killed
        _tell(folder, plan, seen)
        if process.returncode < 0:
            print(f"Snakemake was killed by {signal.Signals(-process.returncode).name}; sweep again goes on from here.")
    except BaseException:
        if plan["executor"] == "slurm":
            process.send_signal(signal.SIGINT)  # it cancels its jobs
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
        process.kill()
        process.wait()
        end_strays(folder)
        raise


def _tell(folder: Path, plan: dict, seen: set[str]) -> None:
    for name in plan["todo"]:
        record = _read(folder / "state" / f"{name}.json") if name not in seen else {}
        if record.get("state") in ("done", "failed", "stopped"):
            seen.add(name)
            chosen = _in_short({key: plan["runs"][name]["parameters"][key] for key in plan["swept"]})
            why = f": {record['reason']}" if record["reason"] else ""
            place = f"[{len(seen)}/{len(plan['todo'])}] {name}"
            print(f"{place}  {chosen}  {record['state']} in {record['seconds']:.0f} s{why}", flush=True)


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


# what came of it


def status(folder: str | Path, plan: dict | None = None) -> pd.DataFrame:
    """Where each run of a sweep stands, indexed by its name: state, reason, seconds, host, and the swept parameters.

    `done`: it stands whole in its folder. `failed`: the notebook stopped, or a limit was passed; it is run again with
    ``--retry-failed``. `stopped`: it was killed or called off; the next `sweep` runs it again. `running`, `waiting`.

    Raises
    ------
    ValueError : the folder is none of a sweep
    """
    folder = Path(folder)
    plan = plan or _read(folder / "plan.json")
    if not plan:
        raise ValueError(f"{folder} holds no plan.json; expected the folder of a sweep.")
    rows = {}
    for name, run in plan["runs"].items():
        done, record = _read(folder / "runs" / name / "done.json"), _read(folder / "state" / f"{name}.json")
        state, reason = record.get("state", "waiting"), record.get("reason", "")
        if done:
            state, reason = "done", ""
        elif state == "running" and not _held(folder / "locks" / name):
            state, reason = "stopped", "it ended without a word: killed, or the machine went down"
        elif state == "done":
            state, reason = "waiting", "its folder is gone"
        swept = {key: _cell(run["parameters"][key]) for key in plan["swept"]}
        rows[name] = swept | {"state": state, "seconds": done.get("seconds", record.get("seconds")), "reason": reason}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")


def _held(lock: Path) -> bool:
    """Whether a living process holds this lock."""
    import fcntl

    with suppress(FileNotFoundError), open(lock) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _cell(value: object) -> object:
    """A parameter as a cell of a table: lists as their text."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def _in_short(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _counts(table: pd.DataFrame) -> str:
    counts = table["state"].value_counts()
    return f"{len(table)} runs: " + ", ".join(f"{counts[state]} {state}" for state in STATES if state in counts)


def _needs(request: Sweep) -> str:
    return _in_short(request.resources)


def in_words(table: pd.DataFrame, every: bool = False) -> str:
    """The runs that are not done, and why, as one table; with `every` all of them."""
    shown = table if every else table[table["state"] != "done"]
    return shown.fillna("").to_string(max_colwidth=120) if len(shown) else ""


def collect(folder: str | Path, metric: str | None = None) -> pd.DataFrame:
    """Gather a sweep into one tidy table and draw it: writes collected.parquet and collected.png to its folder.

    Returns
    -------
    One row a measurement: run, state, reason, seconds, started, notebook, profile, cohort, simulated; every parameter
    as p_NAME (lists as their text); kind (metric, explanation or timing), protocol, part, model, family, metric, value,
    low, high, n; every version as version_NAME. A run that is not done has one row without a measurement.

    Raises
    ------
    ValueError : the folder is none of a sweep, no run is done, or `metric` is none of those measured
    """
    folder = Path(folder)
    states, plan, rows = status(folder), _read(folder / "plan.json"), []
    if not (states["state"] == "done").any():
        raise ValueError(f"{folder}: no run is done, so there is nothing to collect ({_counts(states)}).")
    for name, run in plan["runs"].items():
        done = _read(folder / "runs" / name / "done.json")
        results = _read(folder / "runs" / name / "results.json")
        common = {"run": name, **states.loc[name, ["state", "reason", "seconds"]], "started": done.get("started")}
        common |= {"notebook": plan["notebook"], "profile": plan["profile"]}
        cohort = results.get("cohort", {})
        common |= {"cohort": cohort.get("name"), "simulated": cohort.get("simulated")}
        common |= {f"p_{key}": _cell(value) for key, value in run["parameters"].items()}
        versions = {f"version_{key}": value for key, value in done.get("versions", {}).items()}
        rows += [{**common, **measured, **versions} for measured in _measured(results) or [{}]]
    columns = ("kind", "protocol", "part", "model", "family", "metric", "value", "low", "high", "n")
    table = pd.DataFrame(rows)
    table = table.reindex(columns=[*table.columns, *(column for column in columns if column not in table)])
    table["n"] = table["n"].astype("Int64")
    with written_whole(folder / "collected.parquet") as temporary:
        table.to_parquet(temporary, index=False)
    if (table["kind"] == "metric").any():
        figure = small_multiples(table, metric)
        with written_whole(folder / "collected.png") as temporary:
            figure.savefig(temporary, format="png", bbox_inches="tight", dpi=130)
    return table


def _measured(results: Mapping) -> list[dict]:
    metrics = [{k: v for k, v in row.items() if k not in ("study", "cohort", "simulated")} | {"kind": "metric"}
               for row in results.get("rows", [])]  # fmt: skip
    explanations = [{"kind": "explanation", "model": row["method"], "part": row["target"], "metric": row["measure"]}
                    | {k: row[k] for k in ("value", "low", "high", "n")}
                    for row in results.get("explanations", [])]  # fmt: skip
    timings = [{"kind": "timing", "metric": what, "value": seconds} for what, seconds in
               results.get("timings", {}).items()]  # fmt: skip
    return metrics + explanations + timings


def to_draw(table: pd.DataFrame, metric: str | None = None) -> pd.DataFrame:
    """The rows of a collected table that the figure shows: one metric, one protocol and part, a model a family.

    Without `metric` the first of macro AUC, AUC, balanced accuracy, accuracy that was measured, else any. Of protocols
    `corrected` goes first; of parts the one with most models.

    Raises
    ------
    ValueError : there is no such metric
    """
    rows = table[table["kind"] == "metric"]
    known = list(dict.fromkeys(rows["metric"]))
    metric = metric or next((name for name in PREFERRED if name in known), known[0])
    if metric not in known:
        raise ValueError(f"no metric '{metric}' was measured ({nearest(metric, known)}).")
    rows = rows[rows["metric"] == metric]
    protocols = list(rows["protocol"])
    rows = rows[rows["protocol"] == ("corrected" if "corrected" in protocols else protocols[0])]
    models = rows.groupby("part", sort=False)["model"].nunique()
    rows = rows[rows["part"] == models.idxmax()]
    first = rows.drop_duplicates("family").set_index("family")["model"]
    shown = [first[family] for family in FAMILIES if family in first] or list(first)[:3]
    return rows[rows["model"].isin(shown)]


def swept_in(table: pd.DataFrame) -> list[str]:
    """The parameters (without p_) that differ between the runs of a collected table; most values first, seed last."""
    counts = {column[2:]: table[column].nunique() for column in table if column.startswith("p_")}
    return sorted((name for name in counts if counts[name] > 1), key=lambda name: (name == "seed", -counts[name]))


def small_multiples(table: pd.DataFrame, metric: str | None = None):
    """Draw one metric over the swept parameters; every run is a point with its own 95 % interval.

    Up to three swept parameters beside the seed: the one with most values along x, the others as columns and rows of
    panels, a line through the mean over seeds. More of them, or no grid as in a random search: a panel each.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib import pyplot as plt

    rows = to_draw(table, metric)
    swept = [name for name in swept_in(table) if name != "seed"] or ["seed"]
    settings = rows[[f"p_{name}" for name in swept]].drop_duplicates()
    search = len(swept) > 3 or 2 * len(settings) < settings.nunique().prod()  # far from a grid
    across = [None] if search or len(swept) < 2 else _levels(rows, swept[1])
    down = [None] if search or len(swept) < 3 else _levels(rows, swept[2])
    wide = len(swept) if search else len(across)
    size = (max(3.0 * wide, 4.5) + 1.6, 2.6 * len(down) + 0.6)
    figure, panels = plt.subplots(len(down), wide, figsize=size, sharey=True, squeeze=False, layout="constrained")
    for i, panel in enumerate(panels.flat):
        points, title = rows, []
        if not search:
            for name, level in ((swept[1:2], across[i % wide]), (swept[2:3], down[i // wide])):
                if level is not None:
                    points = points[points[f"p_{name[0]}"] == level]
                    title.append(f"{name[0]} {_short_names(_levels(rows, name[0]))[level]}")
        _panel(panel, points, swept[i] if search else swept[0], rows, search)
        panel.set_title("\n".join(title), fontsize=9, loc="left")
    simulated = rows["simulated"].eq(True).any()
    what = f"{rows['metric'].iloc[0]}, {rows['protocol'].iloc[0]}, {rows['part'].iloc[0]}"
    figure.suptitle(f"{what}: {rows['run'].nunique()} runs{' (simulated)' if simulated else ''}", fontsize=11)
    for panel in panels[:, 0]:
        panel.set_ylabel(rows["metric"].iloc[0])
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=9)
    return figure


def _levels(rows: pd.DataFrame, name: str) -> list:
    """The values of a parameter in order: numbers by size, also those that texts such as n=280 differ in."""
    found = list(rows[f"p_{name}"].dropna().unique())
    digits = {value: [int(part) for part in "".join(c if c.isdigit() else " " for c in str(value)).split()]
              for value in found}  # fmt: skip
    return sorted(found) if not any(isinstance(value, str) for value in found) else sorted(
        found, key=lambda value: (digits[value], str(value))
    )  # fmt: skip


def _short_names(levels: list) -> dict:
    """Texts without what all of them begin with, numbers as they are written."""
    common = os.path.commonprefix([str(level) for level in levels]) if len(levels) > 1 else ""
    cut = max(common.rfind(mark) for mark in ",:/") + 1
    return {level: str(level)[cut:] if isinstance(level, str) else f"{level:g}" for level in levels}


def _panel(ax, points: pd.DataFrame, name: str, rows: pd.DataFrame, search: bool) -> None:
    levels, models, seeds = _levels(rows, name), list(dict.fromkeys(rows["model"])), sorted(rows["p_seed"].unique())
    numeric = search and pd.api.types.is_numeric_dtype(rows[f"p_{name}"])
    for k, model in enumerate(models):
        own = points[points["model"] == model]
        place = own[f"p_{name}"].astype(float) if numeric else own[f"p_{name}"].map(levels.index).astype(float)
        if not numeric:
            spread = own["p_seed"].map(seeds.index) - (len(seeds) - 1) / 2
            place = place + (0.6 * (k - (len(models) - 1) / 2) + 0.5 * spread / len(seeds)) / len(models)
        reach = (own["value"] - own["low"]).to_numpy(), (own["high"] - own["value"]).to_numpy()
        ax.errorbar(place.to_numpy(), own["value"].to_numpy(), reach, fmt="o", ms=4, lw=1, color=f"C{k}", label=model)
        if not search:
            mean = own.assign(place=place).groupby(f"p_{name}")[["place", "value"]].mean().sort_values("place")
            ax.plot(mean["place"], mean["value"], color=f"C{k}", lw=1.2, alpha=0.6)
    if numeric and min(levels) > 0 and max(levels) / min(levels) > 50:
        ax.set_xscale("log")
    if not numeric:
        ax.set_xticks(range(len(levels)), list(_short_names(levels).values()))
        ax.set_xlim(-0.5, len(levels) - 0.5)
    ax.set_xlabel(name)
