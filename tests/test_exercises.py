"""The exercises: generated from their solutions, failed unsolved and by typical wrong answers, passed when solved."""

import contextlib
import io
import re
import runpy
import symtable
from functools import cache
from itertools import permutations

import nbformat
import pytest
from threadpoolctl import threadpool_limits

from gexlib.files import home

ROOT = home()
FOLDER = ROOT / "notebooks"
MAKE = runpy.run_path(str(FOLDER / "make_exercises.py"))
STEMS = sorted(path.stem for path in (FOLDER / "solutions").glob("*.ipynb"))
HEADING = re.compile(r"^### Exercise (\d) · (.+) \(≈ (\d+) minutes\)$", re.M)
OF_THIS_MACHINE = re.compile(r"(?<![\w:/.])/(?:home|root|tmp|usr|work|Users|opt)/|[A-Z]:\\\\|Traceback|Warning")
TRIVIAL = 12  # characters; a shorter line, such as found = [], tells nothing


@cache
def read(folder, stem):
    return nbformat.read(FOLDER / folder / f"{stem}.ipynb", as_version=4)


def tags(cell):
    return cell.metadata.get("tags", [])


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def answers(stem):
    return [cell for cell in code_cells(read("solutions", stem)) if "solution" in tags(cell)]


def exercises(stem):
    """(number, title, minutes) of each exercise, as its heading has it."""
    text = "\n\n".join(cell.source for cell in read("exercises", stem).cells if cell.cell_type == "markdown")
    return [(int(number), title, int(minutes)) for number, title, minutes in HEADING.findall(text)]


def checks_of(notebook, answer):
    """The check cells that follow an answer, up to the next text."""
    found = []
    for cell in notebook.cells[[cell.id for cell in notebook.cells].index(answer) + 1 :]:
        if cell.cell_type != "code":
            break
        found += [cell] if "check" in tags(cell) else []
    return found


def run(source, namespace, what):
    with contextlib.redirect_stdout(io.StringIO()) as said, threadpool_limits(1):
        exec(compile(source, what, "exec"), namespace)
    return said.getvalue()


def refused(check, namespace, what):
    """The sentence with which a check stops; it must stop with one."""
    with pytest.raises(AssertionError) as stopped:
        run(check.source, namespace, f"{what}: its check")
    sentence = str(stopped.value)
    assert len(sentence.split()) >= 4, f"{what}: the check says no more than {sentence!r}"
    return sentence


def names_bound(source):
    """Names that a cell gives a value, its functions among them."""
    return {name.get_name() for name in symtable.symtable(source, "cell", "exec").get_symbols() if name.is_assigned()}


def test_every_study_has_its_exercises():
    studies = {path.stem for path in FOLDER.glob("0[1-5]_*.ipynb")}
    assert set(STEMS) == studies == {path.stem for path in (FOLDER / "exercises").glob("*.ipynb")}
    assert 17 <= sum(len(exercises(stem)) for stem in STEMS) <= 20


def test_the_exercises_are_those_that_the_solutions_give():
    assert MAKE["stale"]() == [], "run python notebooks/make_exercises.py"


def test_a_solution_without_a_stub_is_refused_with_the_cell():
    cell = nbformat.v4.new_code_cell("answer = 1", metadata={"tags": ["solution"]}, id="exercise-1-answer")
    with pytest.raises(ValueError, match=r"01\.ipynb, cell 'exercise-1-answer': tagged solution but without a stub"):
        MAKE["unsolved"](nbformat.v4.new_notebook(cells=[cell]), "01.ipynb")


@pytest.mark.parametrize("stem", STEMS)
def test_an_exercise_is_a_task_a_hint_an_answer_with_the_names_to_fill_and_a_check(stem):
    notebook, listed = read("exercises", stem), exercises(stem)
    assert 3 <= len(listed) <= 4 and [number for number, *_ in listed] == list(range(1, len(listed) + 1))
    assert all(3 <= minutes <= 15 for *_, minutes in listed)
    tasks = [cell.source for cell in notebook.cells if HEADING.search(cell.source)]
    assert len(tasks) == len(answers(stem)) == len(listed)
    for task in tasks:
        told, hint = task.split("<details><summary>Hint</summary>\n\n")
        assert 2 <= len(re.findall(r"[.?!)](?:\s|$)", told.split("\n\n", 1)[1])) <= 8 and hint.endswith("</details>")
    for answer in answers(stem):
        stub = "\n".join(answer.metadata["stub"])
        assert "# to fill in" in stub and answer.metadata["wrong"] and checks_of(notebook, answer.id), answer.id
        assert names_bound(stub) <= names_bound(answer.source), answer.id
    for cell in code_cells(read("solutions", stem)):
        lines = cell.source.splitlines()
        assert len(lines) <= 25 and max(map(len, lines)) <= 120, cell.id


@pytest.mark.parametrize("stem", STEMS)
def test_no_exercise_overwrites_what_another_was_given_or_has_to_fill(stem):
    bound, needed, number = {}, {}, 0
    for cell in read("solutions", stem).cells:
        heading = HEADING.search(cell.source)
        number = int(heading[1]) if heading else number
        if cell.cell_type == "code" and number:
            names = names_bound(cell.source) - {"_"}
            bound.setdefault(number, set()).update(names)
            needed.setdefault(number, set()).update(names if "check" not in tags(cell) else ())
    for one, other in permutations(bound, 2):
        assert not needed[one] & bound[other], f"exercise {other} overwrites names of exercise {one}"


@pytest.mark.parametrize("stem", STEMS)
def test_no_solution_leaks_into_its_exercise(stem):
    exercise, solved = read("exercises", stem), read("solutions", stem)
    raw = (FOLDER / "exercises" / f"{stem}.ipynb").read_text(encoding="utf-8")
    assert '"wrong"' not in raw and '"stub"' not in raw and '"solution"' not in raw
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code_cells(exercise))
    assert {tag for cell in exercise.cells for tag in tags(cell)} == {"answer", "check"}
    text = "\n".join(cell.source for cell in exercise.cells)
    given = [c.source for c in code_cells(solved) if not {"solution", "check"} & set(tags(c))]
    for answer in answers(stem):
        known = {
            line.strip() for source in [*given, "\n".join(answer.metadata["stub"])] for line in source.splitlines()
        }
        own = {line.strip() for line in answer.source.splitlines()} - known
        own = {line for line in own if len(line) >= TRIVIAL}
        assert own, f"{answer.id}: nothing of the solution is its own"
        assert not [line for line in own if line in text], answer.id
        for wrong in answer.metadata["wrong"]:
            assert wrong["why"] not in text
    for cell in solved.cells:
        if cell.cell_type == "markdown" and "solution" in tags(cell):
            assert not [sentence for sentence in re.split(r"(?<=[.?]) ", cell.source) if sentence in text], cell.id


@pytest.mark.parametrize("stem", STEMS)
def test_unsolved_every_check_stops_with_a_sentence_and_all_that_is_given_runs(stem):
    namespace, answer, stopped = {}, None, 0
    for cell in code_cells(read("exercises", stem)):
        if "check" not in tags(cell):
            run(cell.source, namespace, cell.id)
            answer = cell.id if "answer" in tags(cell) else answer
        elif cell is checks_of(read("exercises", stem), answer)[0]:
            assert "Still to fill in" in refused(cell, namespace, answer)
            stopped += 1
    assert stopped == len(exercises(stem))


@pytest.mark.parametrize("stem", STEMS)
def test_typical_wrong_answers_fail_with_another_sentence_and_the_solution_passes(stem):
    namespace, exercise = {}, read("exercises", stem)
    for cell in code_cells(read("solutions", stem)):
        if "check" in tags(cell):
            continue
        if "solution" not in tags(cell):
            run(cell.source, namespace, cell.id)
            continue
        checks = checks_of(exercise, cell.id)
        for wrong in cell.metadata["wrong"]:
            run("\n".join(wrong["source"]), namespace, f"{cell.id}, {wrong['why']}")
            assert "Still to fill in" not in refused(checks[0], namespace, f"{cell.id}, {wrong['why']}")
        run(cell.source, namespace, cell.id)
        said = "".join(run(check.source, namespace, check.id) for check in checks)
        assert said.startswith("Right. "), cell.id


@pytest.mark.parametrize("stem", STEMS)
def test_the_solutions_are_kept_executed_and_clean(stem):
    cells = code_cells(read("solutions", stem))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert not any(o.get("name") == "stderr" or o.output_type == "error" for o in cell.outputs), cell.id
        assert not OF_THIS_MACHINE.search("".join(o.get("text", "") or str(o.get("data", "")) for o in cell.outputs))


@pytest.mark.parametrize("stem", STEMS)
def test_an_exercise_notebook_opens_with_needs_and_words_and_closes_with_takeaways(stem):
    texts = [cell.source for cell in read("exercises", stem).cells if cell.cell_type == "markdown"]
    assert f"](../{stem}.ipynb)" in texts[0] and "**You need**" in texts[0] and "**simulated**" in texts[0]
    assert texts[1].startswith("## Words used here") and 5 <= texts[1].count("\n- **") <= 8
    assert texts[-1].startswith("## Key takeaways") and texts[-1].count("\n- ") == 3


@pytest.mark.parametrize("stem", STEMS)
def test_links_of_an_exercise_lead_somewhere(stem):
    text = "\n".join(cell.source for cell in read("exercises", stem).cells)
    targets = re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", text)
    assert targets
    for path, anchor in targets:
        file = (FOLDER / "exercises" / path).resolve()
        assert file.is_file(), path
        if anchor:
            heads = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.M)
            assert anchor in {head.lower().replace(" ", "-") for head in heads}, anchor


def test_the_quiz_has_four_questions_a_study_with_folded_answers_that_say_why():
    studies = (ROOT / "docs/quizzes.md").read_text(encoding="utf-8").split("\n## Study ")[1:]
    assert [study[:2] for study in studies] == [stem[:2] for stem in STEMS]
    for study in studies:
        questions = re.split(r"^\*\*\d\. ", study, flags=re.M)[1:]
        assert len(questions) == 4
        for question in questions:
            assert len(re.findall(r"^- [a-d]\) ", question, re.M)) in (3, 4)
            (answer,) = re.findall(r"<details><summary>Answer</summary>\n\n(.+?)\n\n</details>", question, re.S)
            assert re.match(r"\*\*[a-d]\.\*\* ", answer) and len(answer.split()) >= 15


def test_the_instructor_notes_list_every_exercise_with_its_minutes():
    notes = (ROOT / "docs/instructor-notes.md").read_text(encoding="utf-8")
    for stem in STEMS:
        for number, title, minutes in exercises(stem):
            assert re.search(rf"^\| {stem[:2]}\.{number} \| {re.escape(title)} \| .*\| {minutes} \|", notes, re.M), (
                title
            )
