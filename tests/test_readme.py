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


STUDY_05 = {
    "KIPAN, miRNA": "mirna_kipan", "BRCA, mRNA": "tcga_brca", "BRCA, miRNA": "mirna_brca", "COAD, miRNA": "mirna_coad",
    "ER status": "tcga_brca_er", "Basal": "tcga_brca_basal",
}  # fmt: skip


def table_of_05() -> list[str]:
    """Markdown rows: AUC of each model of the corrected protocol, a column a cohort or label."""
    cells: dict[str, list[str]] = {}
    for name in STUDY_05.values():
        content = json.loads((home() / "results" / "05" / f"{name}.json").read_text(encoding="utf-8"))
        for row in content["rows"]:
            if (row["protocol"], row["part"], row["metric"]) == ("corrected", "cross-validation", "AUC"):
                cell = f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
                cells.setdefault(row["model"], []).append(cell)
    return [f"| {model} | " + " | ".join(values) + " |" for model, values in cells.items()]


def test_the_table_of_study_05_is_the_committed_one():
    rows = table_of_05()
    assert len(rows) > 5 and "| model | " + " | ".join(STUDY_05) + " |" in README
    for row in rows:
        assert row in README, row


def test_the_table_of_study_02_is_the_committed_one():
    cells: dict[tuple, list[str]] = {}
    for name in ("mirna_pancan", "tcga15_mrna"):
        for row in json.loads((home() / "results" / "02b" / f"{name}.json").read_text(encoding="utf-8"))["rows"]:
            if row["metric"] == "accuracy" and row["part"] in ("tumours", "with Normal"):
                cell = f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
                cells.setdefault((row["model"], row["part"]), []).append(cell)
    assert len(cells) > 6
    for (model, part), values in cells.items():
        assert f"| {model}, {part} | " + " | ".join(values) + " |" in README


def test_every_command_of_the_readme_exists():
    makefile = (home() / "Makefile").read_text(encoding="utf-8")
    for target in ("run", "test", "test-system", "bench", "lab", "baselines"):
        assert f"make {target}" in README and f"\n{target}:" in makefile
