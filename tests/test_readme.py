"""The README's numbers are those of results/."""

import json

import pytest

from gexlib.files import home

README = (home() / "README.md").read_text(encoding="utf-8")
METRICS = ("accuracy", "balanced accuracy", "macro AUC", "micro AUC")


def table_of(content: dict, part: str) -> list[str]:
    """Markdown rows: the published network, then each model of the corrected protocol on one part of the cohort."""
    cells: dict[str, dict[str, str]] = {}
    for row in content["rows"]:
        published = (row["protocol"], row["part"], row["model"]) == ("as_published", "test", "network")
        if row["metric"] in METRICS and (published or (row["protocol"], row["part"]) == ("corrected", part)):
            cell = f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
            cells.setdefault(row["model"] + ", as published" * published, {})[row["metric"]] = cell
    return [f"| {model} | " + " | ".join(values[m] for m in METRICS) + " |" for model, values in cells.items()]


@pytest.mark.parametrize(("results", "part"), [("01/neuroblastoma_seqc", "outside")])
def test_the_table_of_real_results_is_the_committed_one(results, part):
    content = json.loads((home() / "results" / f"{results}.json").read_text(encoding="utf-8"))
    rows = table_of(content, part)
    assert {"network", "network, as published", "ridge", "class shares", "shuffled network"} <= {
        row.split("|")[1].strip() for row in rows
    }
    for row in rows:
        assert row in README, row


def test_every_command_of_the_readme_exists():
    makefile = (home() / "Makefile").read_text(encoding="utf-8")
    for target in ("run", "test", "test-system", "lab", "baselines"):
        assert f"make {target}" in README and f"\n{target}:" in makefile
