"""The notebooks' style: what a reader and a regression test rely on."""

import ast
import json
import re

import nbformat
import pytest

from gexlib.files import home

PATHS = sorted((home() / "notebooks").glob("[0-9]*.ipynb"))
STUDIES = [path for path in PATHS if path.stem[:2] not in ("00", "06", "07")]
EVERY = {"cohort", "samples", "label", "patient", "split_column", "train_value", "protocol", "seed"}


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_kernel_and_size(notebook, path):
    assert notebook.metadata.kernelspec.name == "python3"
    assert path.stat().st_size < 1_000_000


def test_every_code_cell_was_executed_in_order_and_kept_its_outputs(notebook):
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))


def test_outputs_hold_no_path_no_warning_no_traceback_and_no_progress(notebook):
    for cell in code_cells(notebook):
        text = json.dumps([{k: v for k, v in o.items() if k != "data"} for o in cell.outputs])
        text += " ".join(
            str(o.data.get(kind, "")) for o in cell.outputs if "data" in o for kind in ("text/plain", "text/html")
        )
        found = re.search(r"(?<![\w:/.])/(?:home|root|tmp|usr|work|Users|opt)/|[A-Z]:\\\\|Traceback|Warning|%\|", text)
        assert not found, found.group()
        assert not any(o.get("name") == "stderr" or o.output_type == "error" for o in cell.outputs)


def test_prose_is_at_least_half_and_code_cells_are_short(notebook):
    code = code_cells(notebook)
    assert len(notebook.cells) - len(code) >= len(code)
    for cell in code:
        limit = 24 if "parameters" in cell.metadata.get("tags", []) else 12
        assert len(cell.source.splitlines()) <= limit, cell.source.splitlines()[0]
        assert max(map(len, cell.source.splitlines()), default=0) <= 120, cell.source.splitlines()[0]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_has_25_to_60_cells_takeaways_claims_and_limits(path):
    notebook = nbformat.read(path, as_version=4)
    assert 25 <= len(notebook.cells) <= 60
    headings = re.findall(r"^## (.+)$", "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown"), re.M)
    assert {"Key takeaways", "Parameters", "The cohort", "Claims and verdicts", "Limits", "References"} <= set(headings)
    assert "doi.org" in notebook.cells[0].source


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_parameters_cell_is_typed_commented_literal_and_complete(path):
    notebook = nbformat.read(path, as_version=4)
    (cell,) = [c for c in code_cells(notebook) if "parameters" in c.metadata.get("tags", [])]
    names = set()
    for statement, line in zip(ast.parse(cell.source).body, cell.source.splitlines(), strict=True):
        assert isinstance(statement, ast.AnnAssign) and "  # " in line
        ast.literal_eval(statement.value)
        names.add(statement.target.id)
    assert names >= EVERY


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_figures_of_the_embedded_cohort_are_committed_with_their_numbers_and_marked_as_simulated(path):
    folder = home() / "figures" / path.stem
    pictures = sorted(folder.glob("*.png"))
    assert pictures
    for picture in pictures:
        drawn = json.loads(picture.with_suffix(".json").read_text(encoding="utf-8"))
        assert drawn["caption"].endswith(".") and drawn["numbers"] and drawn["simulated"] is True
        assert drawn["cohort"].startswith("simulated:")
