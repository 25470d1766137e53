"""Execute the notebooks and keep what they find, where the tests and the README look for it.

`make baselines` runs every notebook on its embedded cohort and replaces the outputs in notebooks/, the numbers in
results/NN/tiny.json and the pictures in figures/. Read the difference before committing it.

`python tests/make_baselines.py keep RUN NAME` keeps the numbers and pictures of a finished full-size run of the strict
runner as results/NN/NAME.json and figures/<notebook>/NAME/, such as `keep runs/01/seqc-real-neuroblastoma_seqc
neuroblastoma_seqc`.
"""

import shutil
import sys
from pathlib import Path

import nbformat

from gexlib.files import home, write_text
from gexlib.run import execute, make_plan, notebooks


def keep_outputs(source: Path, executed: Path) -> None:
    """Copy outputs of an executed notebook into the kept one, without what the run added."""
    kept, done = nbformat.read(source, as_version=4), nbformat.read(executed, as_version=4)
    fresh = [cell for cell in done.cells if cell.cell_type == "code"]
    for count, (cell, new) in enumerate(
        zip((cell for cell in kept.cells if cell.cell_type == "code"), fresh, strict=True), start=1
    ):
        cell.outputs, cell.execution_count = new.outputs, count
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    kept.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.validate(kept)
    write_text(source, nbformat.writes(kept) + "\n")


def keep_results(run: Path, name: str) -> None:
    """Copy results.json, where there is one, and the pictures of one run; those of other runs stay."""
    stem = next(run.glob("*.ipynb")).stem
    if (run / "results.json").exists():
        target = home() / "results" / stem.split("_")[0] / f"{name}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / "results.json", target)
    if not (run / "figures").exists():
        return
    pictures = home() / "figures" / stem / ("" if name == "tiny" else name)
    pictures.mkdir(parents=True, exist_ok=True)
    for old in [*pictures.glob("*.png"), *pictures.glob("*.json")]:
        old.unlink()
    shutil.copytree(run / "figures", pictures, dirs_exist_ok=True)


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["keep"]:
        keep_results(Path(arguments[1]), arguments[2])
        return
    for number, path in notebooks().items():
        run = execute(make_plan(number))
        keep_outputs(path, run / path.name)
        keep_results(run, "tiny")


if __name__ == "__main__":
    main(sys.argv[1:])
