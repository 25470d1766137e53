"""Write notebooks/exercises/ from notebooks/solutions/, the only source of exercises and their answers.

    python notebooks/make_exercises.py              write every exercise notebook
    python notebooks/make_exercises.py --check      say which are stale, and end with 1 if any is
    python notebooks/make_exercises.py --execute    run the solutions and keep their outputs, then write

A code cell tagged `solution` becomes its stub, the lines under the key `stub` of its metadata; a text cell tagged
`solution` is left out; all outputs go, and with them the key `wrong`, typical wrong answers that the tests try.
"""

import argparse
import sys
from pathlib import Path
from subprocess import DEVNULL

import nbformat

from gexlib.files import write_text

HERE = Path(__file__).resolve().parent
SOLUTIONS, EXERCISES = HERE / "solutions", HERE / "exercises"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def tags(cell: nbformat.NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def unsolved(solved: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """The exercise notebook of a solved one; cells keep their ids.

    Raises
    ------
    ValueError : a cell tagged `solution` has no stub
    """
    cells = []
    for cell in solved.cells:
        if cell.cell_type != "code":
            if "solution" not in tags(cell):
                cells.append(nbformat.v4.new_markdown_cell(cell.source, id=cell.id))
            continue
        source, kept = cell.source, [tag for tag in tags(cell) if tag != "solution"]
        if "solution" in tags(cell):
            if not cell.metadata.get("stub"):
                raise ValueError(
                    f"{name}, cell '{cell.id}': tagged solution but without a stub; write the lines that learners "
                    f"are to see under the key stub of its metadata."
                )
            source, kept = "\n".join(cell.metadata["stub"]), ["answer"]
        cells.append(nbformat.v4.new_code_cell(source, id=cell.id, metadata={"tags": kept} if kept else {}))
    exercise = nbformat.v4.new_notebook(cells=cells, metadata=METADATA)
    nbformat.validate(exercise)
    return exercise


def written() -> dict[Path, str]:
    """What every exercise notebook should hold: {file: text}."""
    texts = {}
    for path in sorted(SOLUTIONS.glob("*.ipynb")):
        exercise = unsolved(nbformat.read(path, as_version=4), path.name)
        texts[EXERCISES / path.name] = nbformat.writes(exercise) + "\n"
    return texts


def stale() -> list[str]:
    """Exercise notebooks that are missing, differ from what their solutions give, or have no solutions."""
    texts = written()
    kept = {path: path.read_text(encoding="utf-8") for path in EXERCISES.glob("*.ipynb")}
    return sorted(path.name for path in texts.keys() | kept.keys() if texts.get(path) != kept.get(path))


def execute(path: Path) -> None:
    """Run a solutions notebook in its folder, as Jupyter does, and keep its outputs.

    Raises
    ------
    nbclient.exceptions.CellExecutionError : a cell raised; the file is left as it was
    """
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, timeout=300, record_timing=False, resources=resources)
    client.execute(stderr=DEVNULL)  # what the kernel itself has to say; a cell's errors are outputs
    notebook.metadata = METADATA
    nbformat.validate(notebook)
    write_text(path, nbformat.writes(notebook) + "\n")


def main(arguments: list[str]) -> int:
    """Do what the command line asks; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, say which exercise notebooks are stale")
    parser.add_argument("--execute", action="store_true", help="run the solutions first and keep their outputs")
    options = parser.parse_args(arguments)
    if options.check:
        old = stale()
        print("\n".join(f"stale: {name}; run python notebooks/make_exercises.py" for name in old) or "up to date")
        return 1 if old else 0
    for path in sorted(SOLUTIONS.glob("*.ipynb")) if options.execute else ():
        execute(path)
    for path, text in written().items():
        write_text(path, text)
        print(f"written: {path.parent.name}/{path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
