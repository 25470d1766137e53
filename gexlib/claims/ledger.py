"""The ledger: every claim of the papers, what we measured, and the verdict.

Verdicts: `reproduced` and `not reproduced` need the paper's own cohort and our interval; `holds elsewhere` and `fails
elsewhere` speak of another cohort; `arithmetic` is settled by the paper's own numbers; else `cannot be judged`. A
simulated cohort judges only claims about method.
"""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pandas as pd
import yaml

from gexlib.files import home
from gexlib.words import nearest

WIDEST_INTERVAL = 0.3  # a wider one neither reproduces nor refutes; an accuracy of 56 patients has 0.26
VERDICTS = ["holds", "fails", "divided", "open"]  # of a claim over all that was measured


@cache
def _claims_file(notebook: str) -> dict:
    return yaml.safe_load(Path(__file__).with_name(f"{notebook[:2]}.yaml").read_text(encoding="utf-8"))


def _files() -> list[dict]:
    return [_claims_file(path.stem) for path in sorted(Path(__file__).parent.glob("*.yaml"))]


def load_claims(notebook: str) -> list[dict]:
    """The claims that a notebook must judge: id, section, claim, published, about, and value where it is a number.

    A study's file may leave some of its claims to a second notebook, such as ``02b``.
    """
    return [c for c in _claims_file(notebook)["claims"] if c.get("notebook", notebook[:2]) == notebook]


def decide(id: str, cohort: str, simulated: bool, holds: bool | None, ours: Mapping[str, float | None]) -> str:
    """The verdict on one claim.

    Parameters
    ----------
    id : of the claim, such as ``01.4``
    cohort, simulated : what was measured on
    holds : whether the claim's direction or ratio holds in our measurement; None where it was not measured
    ours : value, low, high, n of our measurement

    Raises
    ------
    ValueError : no such claim
    """
    file = _claims_file(id.split(".")[0])
    claims = {claim["id"]: claim for claim in file["claims"]}
    if id not in claims:
        raise ValueError(f"no claim '{id}' in {file['paper']} ({nearest(id, claims)}).")
    claim = claims[id]
    if claim["about"] == "arithmetic":
        return "arithmetic"
    if holds is None or (simulated and claim["about"] != "method"):
        return "cannot be judged"
    if cohort.split(",")[0] != file["cohort"]:
        return "holds elsewhere" if holds else "fails elsewhere"
    if ours["low"] is not None and ours["high"] - ours["low"] > WIDEST_INTERVAL:
        return "cannot be judged"
    if "value" in claim and ours["low"] is not None:
        holds = ours["low"] <= claim["value"] <= ours["high"]
    return "reproduced" if holds else "not reproduced"


def verdict_in_words(judged: Mapping[str, object]) -> str:
    """The verdict; of one settled by arithmetic also which way."""
    if judged["verdict"] != "arithmetic":
        return str(judged["verdict"])
    return "arithmetic: holds" if judged["holds"] else "arithmetic: fails"


def reason(judged: Mapping[str, object]) -> str:
    """One line why: for a claim about patients, measured on simulated ones, it says that first."""
    spared = judged["simulated"] and judged["verdict"] == "cannot be judged" and judged["holds"] is not None
    return ("simulated patients do not judge it; " if spared else "") + str(judged["why"])


def collect() -> list[tuple[str, dict]]:
    """Committed results, and the latest runs: (where, content of results.json), oldest run first."""
    root = home()
    files = sorted((root / "results").glob("*/*.json"))
    files += sorted((root / "runs").glob("*/*/results.json"), key=lambda path: path.stat().st_mtime)
    return [(str(path.relative_to(root)), json.loads(path.read_text(encoding="utf-8"))) for path in files]


def settled() -> pd.DataFrame:
    """Every claim of the papers with one verdict over all committed results.

    A claim about patients is settled on real cohorts alone; one about method on them or, where none judged it, on
    simulated ones. What holds in one cohort and fails in another is *divided*; what nothing judged is *open*.

    Returns
    -------
    DataFrame, index id, columns paper, section, claim, published, verdict (holds, fails, divided or open), by
    (arithmetic, real cohorts, simulated cohorts or nothing) and measured, the measurements in words
    """
    judged = [c for where, content in collect() if where.startswith("results") for c in content["claims"]]
    rows = []
    for paper, claim in ((file["paper"], claim) for file in _files() for claim in file["claims"]):
        found = [c for c in judged if c["id"] == claim["id"]]
        by, said = _strongest([c for c in found if c["verdict"] != "cannot be judged"])
        holds = {c["holds"] for c in said}
        verdict = "open" if not holds else "divided" if len(holds) > 1 else "holds" if holds.pop() else "fails"
        rows.append({
            "id": claim["id"], "paper": paper, "section": claim["section"], "claim": claim["claim"],
            "published": str(claim["published"]), "verdict": verdict, "by": by,
            "measured": "; ".join(dict.fromkeys(_in_words(c) for c in said)),
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("id")


def _strongest(said: list[dict]) -> tuple[str, list[dict]]:
    """The measurements that count: arithmetic before real cohorts before simulated ones."""
    for by, wanted in (
        ("arithmetic", lambda c: c["verdict"] == "arithmetic"),
        ("real cohorts", lambda c: not c["simulated"]),
        ("simulated cohorts", lambda c: True),
    ):
        if chosen := [c for c in said if wanted(c)]:
            return by, chosen
    return "nothing", []


def _in_words(judged: Mapping[str, object]) -> str:
    from gexlib.results import number_with_interval

    return " ".join(filter(None, (number_with_interval(judged), f"({judged['cohort']})")))


def front_table() -> str:
    """The README's table, in Markdown: of each paper's claims, how many hold, fail, are divided or open."""
    table = settled()
    counts = pd.crosstab(table["paper"], table["verdict"]).reindex(columns=VERDICTS, fill_value=0)
    counts = counts.loc[table["paper"].unique()]
    counts.loc["all five"] = counts.sum()
    lines = ["| paper | claims | " + " | ".join(VERDICTS) + " |", "| --- " * (len(VERDICTS) + 2) + "|"]
    for paper, row in counts.iterrows():
        lines.append(f"| {paper} | {row.sum()} | " + " | ".join(map(str, row)) + " |")
    return "\n".join(lines)


def print_ledger() -> None:
    """Print, claim by claim, the paper's value and every measurement of ours with its verdict and one line why."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    collected = collect()
    for file in _files():
        print(f"{file['claims'][0]['id'].split('.')[0]}  {file['paper']}")
        for claim in file["claims"]:
            print(f"\n{claim['id']}  {textwrap.fill(claim['claim'], width, subsequent_indent='      ')}")
            print(f"      paper: {claim['published']}  ({claim['section']})")
            for line, where in _measurements(claim["id"], collected).items():
                text = f"{line} [{where}]"
                print(textwrap.fill(text, width, initial_indent="      ", subsequent_indent="        "))
        print()
    if not collected:
        print("No results yet: run `python -m gexlib run all`.")


def _measurements(id: str, collected: list[tuple[str, dict]]) -> dict[str, str]:
    """What was found on one claim -> where; what a later run repeats is said once."""
    from gexlib.results import number_with_interval

    lines = {}
    for where, content in collected:
        for judged in content["claims"]:
            if judged["id"] == id:
                kind = "simulated" if judged["simulated"] else judged["cohort"]
                parts = verdict_in_words(judged), kind, number_with_interval(judged), reason(judged)
                lines.setdefault(" · ".join(filter(None, parts)), where)
    return lines
