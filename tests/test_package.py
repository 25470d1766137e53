"""The plan of the house, as far as a machine can check it."""

import ast

from gexlib.files import home

SOURCES = sorted((home() / "gexlib").rglob("*.py"))


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gexlib"):
            yield from (f"{node.module}.{alias.name}".split(".")[1] for alias in node.names)
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("gexlib."))


def rooms(name):
    return [path for path in SOURCES if path.relative_to(home() / "gexlib").parts[0].removesuffix(".py") == name]


def lines_of_code(path):
    """Lines that hold code: no blank ones, no comments, no docstrings."""
    text = path.read_text(encoding="utf-8")
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, documented) and ast.get_docstring(node)]
    prose = {n for node in nodes for n in range(node.body[0].lineno, node.body[0].end_lineno + 1)}
    numbered = enumerate(text.splitlines(), start=1)
    return sum(n not in prose and bool(line.strip()) and not line.strip().startswith("#") for n, line in numbered)


def test_the_package_stays_small():
    assert sum(map(lines_of_code, SOURCES)) < 9500  # five studies, their simulators, archives, sweeps and saved models


def test_nothing_imports_the_runner_or_the_command_line():
    for path in SOURCES:
        if path.stem not in ("run", "__main__", "doctor", "sweep"):
            assert not {"run", "__main__"} & set(imported(path)), path


def test_models_know_no_sources_and_plots_know_no_models():
    for room, foreign in {"models": "sources", "plots": "models", "cohort": "sources", "evaluate": "models"}.items():
        for path in rooms(room):
            assert foreign not in set(imported(path)), path


def test_sources_know_only_the_cohort_the_files_the_words_and_each_other():
    for path in rooms("sources"):
        assert set(imported(path)) <= {"cohort", "files", "sources", "fetch", "words"}, path


def test_every_public_function_says_what_it_does():
    for path in SOURCES:
        module = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(module), path
        for node in module.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), (path, node.name)
