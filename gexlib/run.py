"""The strict runner: papermill underneath, but nothing mistyped is ignored and nothing unfinished looks finished.

A request is settled into a `Plan`, or refused with a sentence before anything is written. A run writes into an attempt
folder beside its target; the folder takes the target's name only when the notebook has run to its end.
"""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import math
import os
import re
import secrets
import shutil
import tempfile
import textwrap
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from subprocess import DEVNULL
from typing import NamedTuple

import nbformat
import psutil
import yaml

from gexlib.files import home, reported_versions, sha256_of, write_json, write_text
from gexlib.words import nearest

OWN_CELL = "tiny"  # the profile that is the notebook's own parameters cell
CHOOSES_COHORT = ("cohort", "samples")
WITHOUT_RESULTS = ("00", "06", "07")  # no study: the check of the machine, what reads results, what reads a sweep


class RunFailed(RuntimeError):
    """A notebook that started did not come to its end. The message says where it stopped, why, and what is left."""


class Parameter(NamedTuple):
    """One line of a parameters cell, ``name: kind = default``."""

    kind: str
    default: object


@dataclass(frozen=True)
class Plan:
    """A request that has passed every check; nothing has been written yet."""

    number: str
    notebook: Path
    profile: str
    parameters: dict[str, object]
    changed: dict[str, object]  # what differs from the notebook's own cell
    target: Path
    save_models: bool = False

    @property
    def failed(self) -> Path:
        """Where the notebook is kept when it does not come to its end."""
        return self.target.with_name(f"{self.target.name}.failed.ipynb")


def run(
    number: str, profile: str = OWN_CELL, out: str | None = None, save_models: bool = False, jobs: int = 1, **chosen
) -> None:
    """Run one notebook, or ``all`` in order, and say where the results lie; takes what `make_plan` takes.

    With ``all``, a profile applies to the notebooks that have it, and so does saving models; `jobs` run at a time.

    Raises
    ------
    ValueError : a refusal, before anything is written
    RunFailed : a notebook stopped; those that had not begun are not run
    """
    if number != "all":
        plans = [make_plan(number, profile, out, save_models=save_models, **chosen)]
    else:
        if any(chosen.values()):
            raise ValueError("-p, --cohort and --samples belong to one notebook; give its number instead of 'all'.")
        known = {number: profiles(number) for number in notebooks()}
        there = sorted({name for names in known.values() for name in names})
        if profile not in there:
            raise ValueError(f"no notebook has the profile '{profile}' ({nearest(profile, there)}).")
        plans = [
            make_plan(
                number,
                profile if profile in names else OWN_CELL,
                str(Path(out) / number) if out else None,
                save_models=save_models and number in saving(),
            )
            for number, names in known.items()
        ]
    if jobs < 1:
        raise ValueError(f"--jobs is {jobs}; expected at least 1.")
    if min(jobs, len(plans)) > 1:
        return _side_by_side(plans, jobs)
    for plan in plans:
        print(f"[{plan.number}] done, results in {execute(plan)}", flush=True)


def _side_by_side(plans: list[Plan], jobs: int) -> None:
    """Execute plans, `jobs` at a time, each in a process of its own, with a line at its begin and at its end."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting, place = iter(plans), count(1)
        running = {pool.submit(_execute_quietly, plan): plan for plan in islice(waiting, jobs)}
        while running:
            for one in wait(running, return_when=FIRST_COMPLETED).done:
                plan = running.pop(one)
                print(f"[{plan.number}] done, {next(place)} of {len(plans)}, results in {one.result()}", flush=True)
                running |= {pool.submit(_execute_quietly, plan): plan for plan in islice(waiting, 1)}


def _execute_quietly(plan: Plan) -> Path:
    print(f"[{plan.number}] begun", flush=True)
    return execute(plan, bar=False)


def notebooks() -> dict[str, Path]:
    """The numbered notebooks, number -> file, in order."""
    return {file.name.split("_")[0]: file for file in sorted((home() / "notebooks").glob("[0-9][0-9]*_*.ipynb"))}


def profiles(number: str) -> list[str]:
    """The profiles that notebook `number` has: its own cell, then notebooks/profiles/<profile>/<number>.yaml."""
    return [OWN_CELL, *sorted(file.parent.name for file in (home() / "notebooks/profiles").glob(f"*/{number}.yaml"))]


def saving() -> list[str]:
    """The notebooks that can save what they trained."""
    return [number for number, file in notebooks().items() if "saved.save_" in file.read_text(encoding="utf-8")]


def make_plan(
    number: str,
    profile: str = OWN_CELL,
    out: str | None = None,
    given: Iterable[tuple[str, str]] = (),
    cohort: str | None = None,
    samples: str | None = None,
    save_models: bool = False,
) -> Plan:
    """Settle what is to be run: the notebook's own cell < profile < cohort and samples < single parameters.

    Parameters
    ----------
    number : of the notebook, such as ``01``
    profile : ``tiny`` is the notebook's own cell
    out : the target folder; by default runs/<number>/<profile>[-<cohort>][-<hash of the given parameters>]
    given : (name, value) pairs, values as typed on a command line
    cohort, samples : what `load_cohort` takes
    save_models : keep what is trained in models/ of the target

    Raises
    ------
    ValueError : an unknown notebook, profile or parameter, a wrong type, a target that is not a former run, a notebook
        that saves no models
    """
    there = notebooks()
    if number not in there:
        raise ValueError(f"no notebook '{number}' in {home() / 'notebooks'} ({nearest(number, there)}).")
    if save_models and number not in saving():
        raise ValueError(f"notebook {number} saves no models; those that do: {', '.join(saving())}.")
    known = read_parameters(there[number])
    values = {name: parameter.default for name, parameter in known.items()}
    values |= _settle(number, known, read_profile(number, profile).items(), f"profiles/{profile}/{number}.yaml: ")
    options = [(name, value) for name, value in (("cohort", cohort), ("samples", samples)) if value is not None]
    overrides = _settle(number, known, [*options, *given])
    values |= overrides
    changed = {name: value for name, value in values.items() if value != known[name].default}
    target = Path(out) if out else home() / "runs" / number / _folder_name(profile, changed, overrides)
    _refuse_foreign(target, number)
    return Plan(number, there[number], profile, values, changed, target.resolve(), save_models)


def _settle(number: str, known: Mapping[str, Parameter], pairs: Iterable[tuple], where: str = "") -> dict[str, object]:
    """The pairs of name and value, each value as its parameter's type."""
    settled = {}
    for name, value in pairs:
        if name not in known:
            raise ValueError(f"{where}notebook {number} has no parameter '{name}' ({nearest(name, known)}).")
        try:
            settled[name] = typed(value, known[name].kind)
        except ValueError as error:
            raise ValueError(f"{where}parameter '{name}' {error}.") from None
    return settled


def _folder_name(profile: str, changed: Mapping[str, object], overrides: Mapping[str, object]) -> str:
    """A name of its own for each profile, cohort and set of single parameters, so that none replaces another's run."""
    parts = [profile]
    if "cohort" in changed:
        parts.append(re.sub(r"[^\w.]+", "-", str(changed["cohort"])).strip("-.")[-80:])
    single = {name: value for name, value in overrides.items() if name not in CHOOSES_COHORT}
    if single:
        parts.append(hashlib.sha256(json.dumps(single, sort_keys=True).encode()).hexdigest()[:8])
    return "-".join(parts)


def _refuse_foreign(target: Path, number: str) -> None:
    """Refuse to replace what is not a former run of this notebook."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    try:
        found = "a run of " + json.loads((target / "done.json").read_text(encoding="utf-8"))["notebook"]
    except (OSError, ValueError, KeyError, TypeError):
        found = "no done.json"
    if not found.startswith(f"a run of {number}_"):
        raise ValueError(f"{target} holds {found}; expected a former run of notebook {number}: name another --out.")


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """What a notebook can be told: the lines of the cell tagged ``parameters``; empty where there is no such cell.

    Raises
    ------
    ValueError : the file is no notebook, or a line of the cell is not ``name: kind = literal``
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        tagged = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        lines = ast.parse(tagged[0]).body if tagged else []
    except (ValueError, KeyError, TypeError, SyntaxError) as error:
        raise ValueError(f"{notebook.name} is no notebook with Python in its parameters cell ({error}).") from None
    parameters = {}
    for line in lines:
        try:
            name, kind = line.target.id, ast.unparse(line.annotation)
            parameters[name] = Parameter(kind, typed(ast.literal_eval(line.value), kind))
        except (AttributeError, ValueError, TypeError):
            raise ValueError(
                f"{notebook.name}, parameters cell, line {line.lineno}: '{ast.unparse(line)}'; expected a literal of "
                "type str, int, float, bool or a list of one of them, such as 'seed: int = 7'."
            ) from None
    return parameters


def typed(value: object, kind: str) -> object:
    """`value` as the type `kind`. Text that spells a number is taken for it: YAML reads ``1e-5`` as text.

    Raises
    ------
    ValueError : it is of another type, or not finite; the message begins with "expects"
    """
    if kind.startswith("list["):
        with suppress(yaml.YAMLError):
            value = yaml.safe_load(value) if isinstance(value, str) else value
        if isinstance(value, list):
            return [typed(item, kind[5:-1]) for item in value]
    elif kind == "str" and isinstance(value, str):
        return value
    elif kind == "bool" and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    elif kind in ("int", "float"):
        with suppress(ArithmeticError, ValueError):
            number = Decimal(str(value))  # exact, unlike float
            if math.isfinite(number) and (kind == "float" or number == int(number)):
                return float(number) if kind == "float" else int(number)
    hints = {"list": ": write it as [280, 560]", "str": ": put it in quotes", "bool": ": write true or false"}
    hint = hints.get(kind.partition("[")[0], "")
    raise ValueError(f"expects {kind}, found {value!r} ({type(value).__name__}){hint}")


def read_profile(number: str, profile: str) -> dict[str, object]:
    """The parameters that a profile sets, as read from its YAML file.

    Raises
    ------
    ValueError : there is no such profile, the file is no flat mapping, or it chooses a cohort
    """
    if profile not in profiles(number):
        raise ValueError(f"notebook {number} has no profile '{profile}' ({nearest(profile, profiles(number))}).")
    if profile == OWN_CELL:
        return {}
    where = f"profiles/{profile}/{number}.yaml"
    try:
        values = yaml.safe_load((home() / "notebooks" / where).read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{where} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise ValueError(f"{where} holds a {type(values).__name__}; expected lines such as 'steps: 5000'.")
    for name in CHOOSES_COHORT:
        if name in values:
            raise ValueError(f"{where} sets '{name}', but a profile never changes the cohort: use --{name} instead.")
    return values


def execute(plan: Plan, bar: bool = True) -> Path:
    """Run the notebook in a kernel of its own and return the target folder; a progress `bar` counts its cells.

    Raises
    ------
    RunFailed : the notebook did not come to its end; it is then kept as <target>.failed.ipynb
    KeyboardInterrupt : it was interrupted; the partly run notebook is kept likewise
    """
    from papermill.exceptions import PapermillExecutionError

    versions = reported_versions()  # a package that is missing is told now, not after the last cell
    attempt = plan.target.with_name(f".{plan.target.name}-{secrets.token_hex(4)}")
    attempt.mkdir(parents=True)
    plan.failed.unlink(missing_ok=True)
    try:
        started = datetime.now(UTC)
        _papermill(plan, attempt, bar)
        _finish(plan, attempt, started, versions)
        _publish(attempt, plan.target)
    except (PapermillExecutionError, RuntimeError, OSError, KeyboardInterrupt) as error:
        stop = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else RunFailed
        place = _keep_failed(plan, attempt)
        left = f"partly run notebook is {plan.failed}" if plan.failed.exists() else "notebook could not be kept."
        raise stop(f"notebook {plan.number} stopped {place}: {_reason(error)}\nThe {left}") from None
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
    return plan.target


def _papermill(plan: Plan, attempt: Path, bar: bool) -> None:
    """Execute with papermill, in a kernel of this very Python whatever kernels are installed under the same name."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.execute import execute_notebook

    log = logging.getLogger("papermill")
    log.setLevel(logging.CRITICAL + 1)  # what it warns of has been checked here, what it reports is said by RunFailed

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **_):
            with tempfile.TemporaryDirectory(prefix="gexlib-", ignore_cleanup_errors=True) as folder:
                sockets = os.name != "nt" and len(folder) < 80  # the path of a socket holds about 100 bytes
                kernel = AsyncKernelManager(
                    kernel_name=kernel_name,
                    kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
                    transport="ipc" if sockets else "tcp",  # ports of parallel kernels race, socket files do not
                    connection_file=f"{folder}/k.json",
                )
                environment = {
                    **os.environ,
                    "GEXLIB_OUT": str(attempt),
                    "GEXLIB_SAVE_MODELS": str(attempt / "models") if plan.save_models else "",
                    "IPYTHONDIR": f"{folder}/ipython",  # a user's start-up files do not reach the run
                    "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # also where a cluster sets another
                }
                client = PapermillNotebookClient(nb_man, km=kernel, iopub_timeout=60, coalesce_streams=True, log=log)
                client.execute(env=environment, cleanup_kc=True, stdout=DEVNULL, stderr=DEVNULL)

    papermill_engines.register("gexlib", Engine)
    execute_notebook(
        plan.notebook,
        attempt / plan.notebook.name,
        parameters=plan.changed,
        engine_name="gexlib",
        kernel_name="python3",
        language="python",
        progress_bar={"desc": f"[{plan.number}]", "miniters": 1, "disable": not bar},
    )


def _finish(plan: Plan, attempt: Path, started: datetime, versions: dict[str, str]) -> None:
    """Write done.json, or raise RunFailed when a notebook that raised no error is unfinished all the same."""
    content = nbformat.read(attempt / plan.notebook.name, as_version=4)
    if content.metadata.papermill.exception or not content.metadata.papermill.end_time:
        raise RunFailed("it left by SystemExit before its last cell.")
    if plan.number not in WITHOUT_RESULTS and not (attempt / "results.json").is_file():
        raise RunFailed("it ran to its end but wrote no results.json; its last section has to write the results.")
    _write_notebook(content, attempt / plan.notebook.name)
    done = {
        "notebook": plan.notebook.name,
        "notebook_sha256": sha256_of(plan.notebook),
        "profile": plan.profile,
        "parameters": plan.parameters,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(UTC) - started).total_seconds(), 1),
        "versions": versions,
    }
    write_json(attempt / "done.json", done)


def _write_notebook(content: nbformat.NotebookNode, path: Path, **record: object) -> None:
    """Write an executed notebook with papermill's record set right: file names in it, not this machine's paths."""
    content.metadata.papermill.update(record, input_path=path.name, output_path=path.name)
    write_text(path, nbformat.writes(content) + "\n")


def _publish(attempt: Path, target: Path) -> None:
    """Give the attempt the target's name; a former run goes only when the new one is in its place."""
    former = attempt.with_name(f"{attempt.name}-former")
    if target.exists():
        target.rename(former)
    attempt.rename(target)
    shutil.rmtree(former, ignore_errors=True)


def _keep_failed(plan: Plan, attempt: Path) -> str:
    """Move the partly run notebook to `plan.failed` and say, as a clause, in which of its code cells it stopped."""
    begun, code = 0, []
    with suppress(OSError, ValueError):  # a full disk, or a notebook cut short: what there is stays as it is
        os.replace(attempt / plan.notebook.name, plan.failed)
        content = nbformat.read(plan.failed, as_version=4)
        code = [cell.metadata.papermill for cell in content.cells if cell.cell_type == "code"]
        begun = sum(record.start_time is not None for record in code)
        _write_notebook(content, plan.failed, exception=True)  # papermill lets a killed run look complete
    return f"in code cell {begun} of {len(code)}" if begun else "before its first cell"


def _reason(error: BaseException) -> str:
    """Why a run stopped, as a sentence."""
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    if isinstance(error, KeyboardInterrupt):
        return "interrupted."
    if isinstance(error, PapermillExecutionError):
        return textwrap.shorten(f"{error.ename}: {error.evalue}", 600, placeholder=" …")
    if isinstance(error, DeadKernelError):
        memory = psutil.virtual_memory()
        found = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB are free now"
        return (
            f"the kernel was killed, most likely because memory ran out ({found}). Close other programs, take a "
            "smaller profile or cohort, or a larger machine; else `python -m gexlib doctor` checks the installation."
        )
    return str(error)
