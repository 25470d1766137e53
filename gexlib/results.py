"""What a run found: rows, faults, explanations, verdicts and figures, written to one folder under one schema."""

from __future__ import annotations

import json
import os
import re
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import anndata
import fastjsonschema
import numpy as np
import pandas as pd

from gexlib.claims.ledger import decide, load_claims, reason, verdict_in_words
from gexlib.evaluate import scores, with_intervals
from gexlib.files import home, reported_versions, write_json, written_whole

SCHEMA = Path(__file__).with_name("results_schema.json")


def parameters_of(namespace: Mapping[str, object]) -> dict[str, object]:
    """The parameters of a notebook, given its `globals()`: the names that its parameters cell annotates with a type."""
    return {name: namespace[name] for name in namespace["__annotations__"]}


class Record:
    """Collects what one run of one notebook finds and writes ``results.json`` and ``figures/`` beside it.

    The folder is that of `run_folder`.

    Parameters
    ----------
    notebook : its number, such as ``01``
    cohort : the cohort that was opened
    parameters : what `parameters_of` gave
    """

    def __init__(self, notebook: str, cohort: anndata.AnnData, parameters: Mapping[str, object]):
        self.notebook, self.simulated = notebook, bool(cohort.uns["simulated"])
        self.cohort = re.split(r"[\\/]", str(cohort.uns["cohort"]))[-1]  # of a path the file's name says enough
        self.folder = run_folder(notebook)
        provenance = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in cohort.uns["provenance"].items()}
        self.content = {
            "schema": 1,
            "notebook": notebook,
            "cohort": {
                "name": self.cohort,
                "simulated": self.simulated,
                "unit": str(cohort.uns["unit"]),
                "samples": cohort.n_obs,
                "genes": cohort.n_vars,
                "provenance": provenance,
            },
            "parameters": dict(parameters),
            "rows": [],
            "faults": [],
            "explanations": [],
            "claims": [],
            "timings": {},
            "versions": reported_versions(),
        }

    @property
    def what(self) -> str:
        """The words that every title of this run carries: simulated, or the name of the real cohort."""
        return "simulated" if self.simulated else self.cohort

    def _is_simulated(self, cohort: str) -> bool:
        return self.simulated if cohort == self.cohort else cohort.startswith("simulated:")

    def score(
        self,
        model: str,
        y: np.ndarray,
        probabilities: np.ndarray,
        patients: np.ndarray,
        *,
        part: str,
        family: str,
        protocol: str = "corrected",
        statistics: Callable = scores,
        cohort: str = "",
    ) -> pd.DataFrame:
        """Measure one model on one part of the cohort, keep the rows, and return them (see `with_intervals`).

        `cohort` names another cohort than the run's own, where one was simulated on the way.
        """
        cohort = cohort or self.cohort
        common = {"study": self.notebook, "cohort": cohort, "simulated": self._is_simulated(cohort)}
        common |= {"protocol": protocol, "part": part, "model": model, "family": family}
        table = with_intervals(y, probabilities, patients, statistics, self.content["parameters"].get("seed", 0))
        for metric, row in table.dropna().iterrows():  # the precision of a class that is never called is none
            self._keep("rows", {**common, "metric": metric}, _plain(row))
        return table

    def number(
        self,
        model: str,
        metric: str,
        row: Mapping[str, float],
        *,
        part: str,
        family: str,
        protocol: str = "corrected",
    ) -> None:
        """Keep a row that was measured otherwise, such as a paired difference: value, low, high and n."""
        common = {"study": self.notebook, "cohort": self.cohort, "simulated": self.simulated, "protocol": protocol}
        self._keep("rows", {**common, "part": part, "model": model, "family": family, "metric": metric}, _plain(row))

    def _keep(self, section: str, key: Mapping[str, object], numbers: Mapping[str, object]) -> None:
        """Add an entry, in place of one with the same key: a cell may be run again."""
        others = [entry for entry in self.content[section] if any(entry[k] != v for k, v in key.items())]
        self.content[section] = [*others, {**key, **numbers}]

    def rows(self, **where: str) -> pd.DataFrame:
        """The rows whose columns equal `where`."""
        rows = pd.DataFrame(self.content["rows"])
        for column, wanted in where.items():
            rows = rows[rows[column] == wanted]
        return rows

    def fault(self, fault: str, metric: str, **numbers: float) -> None:
        """Add one fault of the published protocol: as_published, corrected, and low, high, n of the corrected value."""
        self._keep("faults", {"fault": fault, "metric": metric}, _plain(numbers))

    def explanation(self, table: pd.DataFrame, method: str, target: str) -> None:
        """Add what `explain.recovery` gave for one method of explanation and one target class."""
        for measure, row in table.iterrows():
            self._keep("explanations", {"method": method, "target": target, "measure": measure}, _plain(row))

    def claim(
        self,
        id: str,
        holds: bool | None,
        why: str,
        row: Mapping[str, float] | None = None,
        *,
        cohort: str = "",
        **ours: float,
    ) -> None:
        """Judge one claim of the paper; `row` or `ours` may hold value, low, high and n of our own measurement.

        `cohort` names another cohort than the run's own, where the measurement was made on one simulated on the way.

        Raises
        ------
        ValueError : the ledger has no such claim
        """
        ours = dict({} if row is None else row) | ours
        numbers = {k: ours.get(k) for k in ("value", "low", "high", "n")}
        cohort = cohort or self.cohort
        simulated = self._is_simulated(cohort)
        verdict = decide(id, cohort, simulated, holds, numbers)
        holds = None if holds is None else bool(holds)
        judged = {"id": id, "verdict": verdict, "holds": holds, **_plain(numbers), "why": why}
        judged |= {"cohort": cohort, "simulated": simulated}
        self.content["claims"] = [c for c in self.content["claims"] if c["id"] != id] + [judged]

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the seconds that the block took to the timings."""
        start = time.perf_counter()
        yield
        self.content["timings"][what] = round(time.perf_counter() - start, 2)

    def figure(self, figure, name: str, caption: str, numbers: object) -> None:
        """Save a figure of this run, as `save_figure` does."""
        save_figure(figure, self.folder, name, caption, numbers, self.cohort, self.simulated)

    def table(self, **where: str) -> pd.DataFrame:
        """Rows that match `where`, models x metrics, each cell ``value [low, high]``."""
        rows = self.rows(**where)
        rows = rows.assign(cell=[f"{r.value:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in rows.itertuples()])
        cells = rows.pivot(index="model", columns="metric", values="cell").rename_axis(index=None, columns=None)
        return cells.loc[rows["model"].unique(), rows["metric"].unique()]

    def claims_table(self) -> pd.DataFrame:
        """The paper's claims beside what this run says of each."""
        judged = {c["id"]: c for c in self.content["claims"]}
        rows = []
        for claim in load_claims(self.notebook):
            ours = judged[claim["id"]]
            rows.append({
                "id": claim["id"], "claim": claim["claim"], "paper": str(claim["published"]),
                "ours": number_with_interval(ours), "verdict": verdict_in_words(ours), "why": reason(ours),
            })  # fmt: skip
        return pd.DataFrame(rows).set_index("id")

    def write(self) -> Path:
        """Check against the schema, require a verdict for every claim, and write ``results.json``.

        Raises
        ------
        ValueError : a claim has no verdict or the content breaks the schema
        """
        missing = {c["id"] for c in load_claims(self.notebook)} - {c["id"] for c in self.content["claims"]}
        if missing:
            raise ValueError(f"notebook {self.notebook}: no verdict for the claims {', '.join(sorted(missing))}.")
        content = _rounded(self.content)
        check_results(content)
        write_json(self.folder / "results.json", content)
        return self.folder / "results.json"


def run_folder(notebook: str) -> Path:
    """Where a notebook writes: GEXLIB_OUT, which the strict runner sets, else ``runs/<notebook>/notebook``."""
    return Path(os.environ.get("GEXLIB_OUT") or home() / "runs" / notebook / "notebook")


def save_figure(
    figure, folder: Path, name: str, caption: str, numbers: object, cohort: str, simulated: bool = False
) -> None:
    """Save a matplotlib figure as PNG, and the numbers it draws, with its caption, as JSON beside it.

    Titles too long for their axes are broken into lines; those that have lines keep them.
    """
    for ax in figure.axes:
        title, inches = ax.get_title(loc="left"), ax.get_position().width * figure.get_figwidth()
        wide = max(20, int(12 * inches))
        ax.set_title("\n".join(textwrap.fill(line, wide) for line in title.split("\n")), loc="left")
    with written_whole(folder / "figures" / f"{name}.png") as temporary:
        figure.savefig(temporary, format="png")
    numbers = json.loads(numbers.to_json(orient="records")) if hasattr(numbers, "to_json") else numbers
    content = {"caption": caption, "cohort": cohort, "simulated": simulated, "numbers": numbers}
    write_json(folder / "figures" / f"{name}.json", _rounded(content))


def check_results(content: dict) -> dict:
    """Return `content` when it keeps the results schema.

    Raises
    ------
    ValueError : says where the schema is broken
    """
    try:
        fastjsonschema.validate(json.loads(SCHEMA.read_text(encoding="utf-8")), content)
    except fastjsonschema.JsonSchemaValueException as error:
        asked = error.message.removeprefix(error.name).strip()
        raise ValueError(f"results: {'/'.join(error.path[1:])}: {str(error.value)[:80]!r} {asked}") from None
    return content


def lies_above(row: Mapping[str, float], threshold: float, margin: float = 0.0) -> bool | None:
    """True where an interval lies above the threshold, False where it ends below threshold + margin, else None."""
    return True if row["low"] > threshold else False if row["high"] < threshold + margin else None


def number_with_interval(row: Mapping[str, float | None]) -> str:
    """``0.71 [0.65, 0.77], n = 249``, as far as the parts are known."""
    if row["value"] is None:
        return ""
    text = f"{row['value']:.3g}"
    if row["low"] is not None:
        text += f" [{row['low']:.3g}, {row['high']:.3g}]"
    return text + (f", n = {row['n']:.0f}" if row["n"] is not None else "")


def _plain(row: Mapping[str, object]) -> dict[str, object]:
    return {k: v.item() if isinstance(v, np.generic) else v for k, v in dict(row).items()} | (
        {"n": int(row["n"])} if row.get("n") is not None else {}
    )


def _rounded(content):
    """Floats to five significant digits, so that a file does not differ by the last bit of a processor."""
    if isinstance(content, dict):
        return {k: _rounded(v) for k, v in content.items()}
    if isinstance(content, (list, tuple)):
        return [_rounded(v) for v in content]
    return float(f"{content:.5g}") if isinstance(content, float) else content
