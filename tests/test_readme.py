"""The README's numbers are those of results/."""

import json

import pytest
from make_readme import with_front_table

from gexlib.claims.ledger import settled
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


def accuracies(study: str, parts: tuple[str, ...]) -> dict[tuple, list[str]]:
    """Cells of the README by model and protocol: a column a part, miRNA before mRNA."""
    cells: dict[tuple, list[str]] = {}
    for part in parts:
        for name in ("mirna_pancan", "tcga15_mrna"):
            for row in json.loads((home() / "results" / study / f"{name}.json").read_text(encoding="utf-8"))["rows"]:
                if row["metric"] == "accuracy" and row["part"] == part:
                    cell = f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
                    cells.setdefault((row["model"], row["protocol"]), []).append(cell)
    return cells


def test_the_tables_of_study_02_are_the_committed_ones():
    cells = accuracies("02", ("tumours", "with Normal"))
    for (model, protocol), values in cells.items():
        if len(values) == 4:
            published = ", as published" * (protocol == "as_published")
            assert f"| {model}{published} | " + " | ".join(values) + " |" in README
    assert sum(len(values) == 4 for values in cells.values()) == 9
    lists = {k: v for (k, _), v in accuracies("02b", ("with Normal",)).items() if k.startswith("multinomial, ")}
    assert len(lists) == 4
    for model, values in lists.items():
        assert f"| {model}, with Normal | " + " | ".join(values) + " |" in README


def test_every_command_of_the_readme_exists():
    makefile = (home() / "Makefile").read_text(encoding="utf-8")
    for target in ("run", "test", "test-system", "lab", "book", "exercises", "wheelhouse", "bench", "baselines"):
        assert f"make {target}" in README and f"\n{target}:" in makefile


def test_the_front_table_is_drawn_from_the_committed_ledger():
    assert with_front_table(README) == README, "run `python tests/make_readme.py`"


def test_a_stale_front_table_is_noticed():
    table = settled()
    holding = (table.verdict == "holds").sum()
    stale = README.replace(f"| all five | {len(table)} | {holding} |", f"| all five | {len(table)} | {holding + 1} |")
    assert stale != README and with_front_table(stale) == README


def test_marks_that_are_gone_are_missed():
    with pytest.raises(ValueError, match="expected the marks"):
        with_front_table("no marks")


def test_a_claim_about_patients_is_settled_on_real_ones_alone():
    table = settled()
    assert set(table.verdict) <= {"holds", "fails", "divided", "open"}
    assert (table.by[table.verdict == "open"] == "nothing").all() and (
        table.by[table.verdict != "open"] != "nothing"
    ).all()
    assert (table.by[table.verdict == "divided"] == "real cohorts").all()
