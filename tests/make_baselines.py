"""Execute the notebooks on their embedded cohorts and keep what they show and find.

Replaces the outputs in notebooks/, the numbers in results/NN/tiny.json and the pictures in figures/. Run it with
`make baselines` after a change that is meant to move a number, and read the difference before committing it.
"""

import shutil
import sys

import nbformat

from gexlib.files import home, write_text
from gexlib.run import execute, make_plan, notebooks


def keep_outputs(source, executed) -> None:
    """Copy outputs and counts of an executed notebook into the kept one, without what the run added."""
    kept, done = nbformat.read(source, as_version=4), nbformat.read(executed, as_version=4)
    done_code = [
        c for c in done.cells if c.cell_type == "code" and "injected-parameters" not in c.metadata.get("tags", [])
    ]
    kept_code = [c for c in kept.cells if c.cell_type == "code"]
    for count, (cell, fresh) in enumerate(zip(kept_code, done_code, strict=True), start=1):
        cell.outputs, cell.execution_count = fresh.outputs, count
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    nbformat.validate(kept)
    write_text(source, nbformat.writes(kept) + "\n")


def main(numbers: list[str]) -> None:
    for number, path in notebooks().items():
        if numbers and number not in numbers:
            continue
        folder = execute(make_plan(number))
        keep_outputs(path, folder / path.name)
        if (folder / "results.json").exists():
            target = home() / "results" / number / "tiny.json"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / "results.json", target)
            shutil.rmtree(home() / "figures" / path.stem, ignore_errors=True)
            shutil.copytree(folder / "figures", home() / "figures" / path.stem)


if __name__ == "__main__":
    main(sys.argv[1:])
