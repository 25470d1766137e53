"""What a newcomer copies works as it stands: the skeleton of a sixth study; index, citation and changelog agree."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import nbformat
import pytest
import test_notebooks as rules
import yaml

from gexlib.files import home
from gexlib.results import check_results

SKELETON = home() / "docs" / "skeleton.ipynb"
CLAIMS = yaml.safe_load((home() / "docs" / "skeleton_claims.yaml").read_text(encoding="utf-8"))["claims"]
INDEX = home() / "notebooks" / "index.ipynb"
VERSION = tomllib.loads((home() / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of the skeleton, copied to where CONTRIBUTING.md says, in a repository of its own."""
    room = tmp_path_factory.mktemp("repository")
    shutil.copytree(home() / "gexlib", room / "gexlib", ignore=shutil.ignore_patterns("__pycache__"))
    (room / "notebooks").mkdir()
    shutil.copy(SKELETON, room / "notebooks/08_skeleton.ipynb")
    shutil.copy(home() / "docs/skeleton_claims.yaml", room / "gexlib/claims/08.yaml")
    around = {**os.environ, "PYTHONPATH": str(room)}
    command = [sys.executable, "-m", "gexlib", "run", "08"]
    done = subprocess.run(command, cwd=room, env=around, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return room / "runs/08/tiny"


@pytest.fixture(scope="module")
def found(run):
    return check_results(json.loads((run / "results.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("rule", [rule for name, rule in vars(rules).items() if name.startswith("test_")])
def test_the_skeleton_keeps_every_rule_of_a_notebook(rule, run, tmp_path, monkeypatch):
    shutil.copytree(run / "figures", tmp_path / "figures" / SKELETON.stem)  # the rules look for them where studies are
    monkeypatch.setattr(rules, "home", lambda: tmp_path)
    known = {"path": SKELETON, "notebook": nbformat.read(SKELETON, as_version=4)}
    rule(**{name: known[name] for name in inspect.signature(rule).parameters})


def test_the_skeleton_shows_every_part_that_a_study_has(found):
    families = {row["family"] for row in found["rows"] if row["protocol"] == "corrected"}
    assert families == {"majority", "linear", "network", "shuffled control"}
    assert {row["protocol"] for row in found["rows"]} == {"as_published", "corrected"}
    assert found["faults"] and {row["measure"] for row in found["explanations"]} >= {"precision at 30"}
    assert [claim["id"] for claim in found["claims"]] == [claim["id"] for claim in CLAIMS]
    assert {claim["about"] for claim in CLAIMS} == {"result", "method", "arithmetic"}


def test_the_skeleton_finds_its_planted_fault_and_nothing_on_shuffled_labels(found):
    (fault,) = found["faults"]
    assert fault["as_published"] > fault["high"] and abs(fault["corrected"] - 0.5) < 0.06
    (harm,) = [claim for claim in found["claims"] if claim["id"] == "08.2"]
    assert harm["verdict"] == "fails elsewhere" and harm["low"] > 0
    (shuffled,) = [r for r in found["rows"] if r["family"] == "shuffled control" and r["metric"] == "macro AUC"]
    assert shuffled["low"] < 0.5 < shuffled["high"]


def test_the_skeleton_says_where_to_write_and_contributing_names_its_files():
    cells = nbformat.read(SKELETON, as_version=4).cells
    assert sum("To write" in cell.source for cell in cells) >= 6
    steps = (home() / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:docs|tests|gexlib|notebooks|benchmarks|data)/[\w./]+\w|\w+\.(?:md|cff))`", steps))
    assert len(named) > 8 and "docs/skeleton.ipynb" in named
    new = {name for name in named if not (home() / name).exists()}
    assert all("/08" in name for name in new), new


def test_the_index_leads_to_every_notebook_and_only_to_what_is_there():
    notebook = nbformat.read(INDEX, as_version=4)
    assert (
        all(cell.cell_type == "markdown" for cell in notebook.cells) and notebook.metadata.kernelspec.name == "python3"
    )
    text = "\n".join(cell.source for cell in notebook.cells)
    pictures = re.findall(r'<img src="([^"]+)" alt="([^"]+)" width="\d+">', text)
    links = re.findall(r"\]\(([^)]+)\)", text)
    for target in [*links, *(picture for picture, _ in pictures)]:
        assert (INDEX.parent / target).is_file(), target
    folder = home() / "notebooks"
    for pattern in ("[0-9]*.ipynb", "exercises/*.ipynb", "solutions/*.ipynb"):
        assert {path.relative_to(folder).as_posix() for path in folder.glob(pattern)} <= set(links), pattern
    assert len(pictures) == 5 and all(
        "simulated" in words or "TCGA" in words or "GSE" in words for _, words in pictures
    )


def test_the_citation_names_this_version_and_the_papers_by_their_doi():
    cited = yaml.safe_load((home() / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0" and cited["type"] == "software" and cited["message"]
    assert cited["authors"] == [{"name": "The gexlib founders"}]
    assert (cited["version"], cited["license"]) == (VERSION, "MIT")
    first = [nbformat.read(path, as_version=4).cells[0].source for path in sorted(INDEX.parent.glob("0[1-5]_*.ipynb"))]
    assert [paper["doi"] for paper in cited["references"]] == [
        re.search(r"doi\.org/([^)\s]+)\)", text).group(1) for text in first
    ]
    for paper, text in zip(cited["references"], first, strict=True):
        assert paper["title"] in text and str(paper["year"]) in text
        assert all(author["family-names"] in text for author in paper["authors"])


def test_the_changelog_has_this_version_on_top_and_known_headings():
    lines = (home() / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    versions = [line for line in lines if line.startswith("## ")]
    assert VERSION in versions[0]
    kinds = {line.removeprefix("### ") for line in lines if line.startswith("### ")}
    assert kinds and kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
