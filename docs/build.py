"""Build the book: `python docs/build.py [FOLDER]` makes a static site of the executed notebooks, without a network.

The sources are staged first, in the layout of the repository, so that links between its files hold in the book.
"""

from __future__ import annotations

import ast
import json
import pkgutil
import re
import shutil
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import nbformat
import yaml

import gexlib
from gexlib.claims.ledger import reason, verdict_in_words
from gexlib.fetch import list_sources
from gexlib.results import number_with_interval

ROOT = Path(__file__).resolve().parents[1]
COPIED = [
    "README.md", "CONTRIBUTING.md", "docs/*.md", "data/README.md", "benchmarks/README.md", "notebooks/[0-9]*.ipynb",
    "notebooks/exercises/*.ipynb", "figures/**/*.png", "figures/**/*.json", "results/*/*.json",
]  # fmt: skip
GUIDES = ["from_laptop_to_cluster", "apply_a_model", "instructor-notes", "quizzes"]  # these first, in this order
PAGES = {"README.md": "/index.md", "CHANGELOG.md": "/changelog.md", "docs/index.md": "/index.md"}
LINK = re.compile(r"(?<!!)\[([^][]*)\]\(([^)\s:#]+)(?:#[^)\s]*)?\)")
LEDGER = """# The ledger

Every claim of the five papers in our words, the paper's own value, and what we measured, with the verdict and one line
why.

- *reproduced*, *not reproduced*: on the paper's own cohort, our interval holds or excludes the paper's value.
- *holds elsewhere*, *fails elsewhere*: the direction or ratio that is claimed, on another cohort. A simulated cohort
  judges only claims about method.
- *arithmetic*: the paper's own numbers settle it.
- *cannot be judged*: with the reason.

The table counts claims by verdict; a claim on which two cohorts disagree is counted under both.

"""
VERDICTS = [
    "reproduced", "not reproduced", "holds elsewhere", "fails elsewhere", "arithmetic: holds", "arithmetic: fails",
    "cannot be judged",
]  # fmt: skip


def stage(folder: Path) -> Path:
    """Lay out in an empty folder all that Sphinx reads: copies of pages and notebooks, and the pages made here."""
    for pattern in COPIED:
        for path in sorted(ROOT.glob(pattern)):
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    (folder / "docs" / "index.md").rename(folder / "index.md")
    pages = {
        "cards.md": cards(),
        "notebooks/index.md": notebooks_page(),
        "findings.md": findings_page(),
        "ledger.md": ledger_page(),
        "figures/index.md": figures_page(),
        "data/README.md": data_page(),
        "guides.md": guides_page(),
        "changelog.md": changelog_page(),
        "api/index.md": api_index(),
    } | {f"api/{module}.md": api_page(module) for module in modules()}
    for name, text in pages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "README.md").unlink()
    for path in [*folder.rglob("*.md"), *folder.rglob("*.ipynb")]:
        path.write_text(relinked(path.read_text(encoding="utf-8"), path.relative_to(folder), folder), encoding="utf-8")
    return folder


def relinked(text: str, page: Path, folder: Path) -> str:
    """Links to files of the repository that are no pages of the book lead to the page that tells of them, or end."""

    def link(found: re.Match) -> str:
        words, target = found.groups()
        original = ROOT / page.parent / target
        if target.startswith("/") or (folder / page.parent / target).exists() or not original.exists():
            return found[0]
        name = original.resolve().relative_to(ROOT).as_posix()
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        instead = PAGES.get(name) or (f"/api/{module}.md" if module in modules() else None)
        return f"[{words}]({instead})" if instead else words

    return LINK.sub(link, text)


def notebooks() -> list[Path]:
    """The notebooks, in the order of their numbers."""
    return sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def first_cell(notebook: Path) -> str:
    return nbformat.read(notebook, as_version=4).cells[0].source


def title_of(notebook: Path) -> str:
    """The heading of its first cell."""
    return re.search(r"^# (.+)$", first_cell(notebook), re.M)[1]


def cards() -> str:
    """A card a notebook: its title, its paper, what it takes, and the first picture that the README has of it."""
    pictures = re.findall(r"!\[([^\]]*)\]\((figures/([^/]*)/[^)]*)\)", read("README.md"))
    picture = {stem: f"![{alt}](/{path})\n\n" for alt, path, stem in reversed(pictures)}
    text = "::::{container} book-cards\n"
    for path in notebooks():
        text += (
            f":::{{container}} book-card\n{picture.get(path.stem, '')}[{title_of(path)}](/notebooks/{path.name})\n\n"
        )
        claims = ROOT / "gexlib" / "claims" / f"{path.stem[:2]}.yaml"
        paper = [yaml.safe_load(claims.read_text(encoding="utf-8"))["paper"] + "."] if claims.exists() else []
        takes = re.search(r"(?<=^\*\*)An? .*?(?=,)|About .*?(?=,)|(?<=It takes )about .*?(?=,)", first_cell(path), re.M)
        text += " ".join([*paper, f"{takes[0][:1].upper()}{takes[0][1:]}." if takes else ""]) + "\n:::\n"
    return text + "::::\n"


def notebooks_page() -> str:
    """Cards and contents of the notebooks; exercises where there are any."""
    text = "# Notebooks\n\nEach runs from top to bottom in about a minute; here it stands with its committed outputs.\n"
    text += "*Show Source*, at the side of a page, is the notebook itself.\n\n```{include} ../cards.md\n```\n"
    text += toctree([path.stem for path in notebooks()], ":hidden:\n")
    exercises = sorted((ROOT / "notebooks" / "exercises").glob("*.ipynb"))
    if exercises:
        text += "\n## Exercises\n\nTo be done in JupyterLab; the answers are not here.\n"
        text += toctree([f"exercises/{path.stem}" for path in exercises])
    return text


def findings_page() -> str:
    """The README's sections on the studies."""
    sections = re.findall(r"^## \d\d · .*?(?=^## |\Z)", read("README.md"), re.M | re.S)
    return "# Findings\n\nWhat came out, study by study.\n\n" + "".join(sections)


def ledger_page() -> str:
    """Every claim with the paper's value, each committed measurement of it, its verdict and why."""
    text, columns = "", {}
    for path in sorted((ROOT / "gexlib" / "claims").glob("*.yaml")):
        study = yaml.safe_load(path.read_text(encoding="utf-8"))
        title, counts = f"{path.stem} · {study['paper']}", Counter()
        text += f"\n## {title}\n"
        for claim in study["claims"]:
            found = measurements(claim["id"])
            said = {verdict_in_words(judged) for _, judged in found}
            counts.update(said - {"cannot be judged"} or {"cannot be judged"})
            text += f"\n(claim-{claim['id'].replace('.', '-')})=\n:::{{container}} claim\n"
            text += f"**{claim['id']}** {plain(claim['claim'])}\\\n"
            text += f"*The paper: {plain(claim['published'])} ({plain(claim['section'])})*\n\n"
            text += "".join(measurement_line(where, judged) for where, judged in found) + ":::\n"
        columns[path.stem] = [len(study["claims"]), *(counts[verdict] or "" for verdict in VERDICTS)]
    rows = zip(["claims", *VERDICTS], *columns.values(), strict=True)
    return LEDGER + table(["study", *columns], list(rows)) + text


def measurements(claim: str) -> list[tuple[str, dict]]:
    """What the committed results say of a claim, the real cohorts first: (file, judgement)."""
    found = []
    for path in sorted((ROOT / "results").glob("*/*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        found += [(path.relative_to(ROOT).as_posix(), judged) for judged in content["claims"] if judged["id"] == claim]
    return sorted(found, key=lambda pair: pair[1]["simulated"])


def measurement_line(where: str, judged: dict) -> str:
    """A line of a list: verdict, cohort, number, why, and the file that says so."""
    verdict = verdict_in_words(judged)
    colour = (
        "open" if verdict == "cannot be judged" else "fails" if "not " in verdict or "fails" in verdict else "holds"
    )
    kind = "simulated" if judged["simulated"] else plain(judged["cohort"])
    parts = [f"[{verdict}]{{.verdict .{colour}}} {kind}", number_with_interval(judged), plain(reason(judged))]
    return "- " + " · ".join(filter(None, parts)) + f" · [{where}](/{where})\n"


def figures_page() -> str:
    """Every committed figure with its caption and its numbers, notebook by notebook."""
    text = (
        "# Figures\n\nEvery picture, with what it draws. Those of simulated patients show a method, never a finding.\n"
    )
    for notebook in notebooks():
        files = [path.relative_to(ROOT) for path in sorted((ROOT / "figures" / notebook.stem).rglob("*.json"))]
        if files:
            text += f"\n## {title_of(notebook)}\n\n[Open the notebook](/notebooks/{notebook.name})\n\n"
            figures = "".join(figure(path) for path in sorted(files, key=lambda path: (len(path.parts), path)))
            text += f"::::{{container}} book-figures\n{figures}::::\n"
    return text


def figure(path: Path) -> str:
    """One figure, from the JSON beside it."""
    drawn = json.loads(read(path))
    picture, caption = path.with_suffix(".png").as_posix(), plain(drawn["caption"])
    text = f"```{{figure}} /{picture}\n:alt: Chart, {path.stem.replace('_', ' ')}\n\n{caption} "
    return text + f"Cohort: {plain(drawn['cohort'])} ([numbers](/{path.as_posix()}))\n```\n\n"


def data_page() -> str:
    """The page of `data/`, and what `fetch` can download."""
    sources = list_sources()
    rows = [[f"`{row[0]}`", *row[1:]] for row in sources.itertuples(index=False)]
    text = "## What `fetch` can download\n\n`python -m gexlib fetch NAME` brings it and notes its checksum.\n\n"
    return read("data/README.md") + "\n" + text + table(list(sources.columns), rows)


def guides_page() -> str:
    """Contents of the other pages of `docs/`, and the benchmarks."""
    others = sorted({path.stem for path in (ROOT / "docs").glob("*.md")} - {"index", "glossary", *GUIDES})
    pages = [f"docs/{name}" for name in GUIDES + others if (ROOT / "docs" / f"{name}.md").exists()]
    pages += ["CONTRIBUTING"] * (ROOT / "CONTRIBUTING.md").exists() + ["benchmarks/README"]
    return "# Guides\n\nFor whoever brings data, runs much, teaches, takes part, or asks how fast it is.\n" + toctree(
        pages
    )


def changelog_page() -> str:
    """The changelog, once there is one."""
    return read("CHANGELOG.md") if (ROOT / "CHANGELOG.md").exists() else "# Changelog\n\nNo release yet.\n"


def modules() -> list[str]:
    """Every public module of gexlib, by name."""
    found = [module.name for module in pkgutil.walk_packages(gexlib.__path__, "gexlib.")]
    return ["gexlib", *sorted(name for name in found if "._" not in name)]


def api_index() -> str:
    """The modules, each with the first line of its docstring."""
    text = "# API reference\n\nThe package behind the notebooks, a page a module; arrays are given by shape.\n\n"
    for module in modules():
        source = Path(find_spec(module).origin).read_text(encoding="utf-8")
        said = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0]
        text += f"- [{module}]({module}.md): {plain(said.removeprefix('gexlib: '))}\n"
    return text + toctree([f"{module.removeprefix('gexlib.')} <{module}>" for module in modules()], ":hidden:\n")


def api_page(module: str) -> str:
    """A module's page, filled by autodoc."""
    return f"# {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n```\n"


def read(name: str | Path) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def plain(text: object) -> str:
    """Text in one line, so escaped that Markdown shows it as it is; what stands between backticks is code."""
    pieces = re.split(r"(`[^`]+`)", " ".join(str(text).split()))
    pieces[::2] = [re.sub(r"([\\`*_{}\[\]<>#|$~])", r"\\\1", piece) for piece in pieces[::2]]
    return "".join(pieces)


def table(header: list[str], rows: list) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(str(cell).replace("\n", " ") for cell in line) + " |\n" for line in lines)


def toctree(pages: list[str], options: str = ":maxdepth: 1\n") -> str:
    return "\n```{toctree}\n" + options + "\n" + "\n".join(pages) + "\n```\n"


def build(folder: Path) -> Path:
    """Stage and build in an empty folder; the page to open.

    Raises
    ------
    RuntimeError : Sphinx found something to complain of, which it has printed
    """
    source, html = stage(folder / "source"), folder / "html"
    sphinx = [sys.executable, "-m", "sphinx", "--builder", "html", "--fail-on-warning", "--keep-going", "--quiet"]
    sphinx += ["--conf-dir", str(ROOT / "docs"), "--doctree-dir", str(folder / "doctrees"), str(source), str(html)]
    if subprocess.run(sphinx).returncode:
        raise RuntimeError("the book has faults, see above; nothing is wrong with the notebooks' numbers.")
    return html / "index.html"


def main(given: list[str]) -> str | None:
    """Build into the folder given, or anew into docs/_build."""
    if find_spec("sphinx") is None:
        return 'Sphinx is missing: pip install --constraint requirements.lock --editable ".[docs]"'
    folder = Path(given[0]) if given else ROOT / "docs" / "_build"
    if given and folder.exists() and any(folder.iterdir()):
        return f"{folder} is not empty; name an empty or a new folder."
    if not given:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"The book: {build(folder)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
