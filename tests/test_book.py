"""What the book is made of: notebooks, sources, results and docstrings. It is built in test_system_book.py."""

import importlib.util
import json
import re

import pytest
import yaml

from gexlib.fetch import list_sources
from gexlib.files import home

DOCS = home() / "docs"
NOTEBOOKS = sorted(path.stem for path in (home() / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build_the_book", DOCS / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def staged(build, tmp_path_factory):
    return build.stage(tmp_path_factory.mktemp("staged"))


def entries_of(page: str) -> list[str]:
    """What the toctrees of a page list."""
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```", page, re.M | re.S)
    lines = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    return [re.sub(r".*<(.*)>", r"\1", line) for line in lines]


def read(staged, name: str) -> str:
    return (staged / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def glossary() -> dict[str, str]:
    """Each term with its definition; terms on lines below one another share theirs."""
    text = (DOCS / "glossary.md").read_text(encoding="utf-8").partition(":sorted:\n\n")[2].rpartition("```")[0]
    terms, found = [], {}
    for line in filter(None, text.splitlines()):
        if line.startswith("  "):
            assert terms, line
            found |= {term: found.get(term, "") + line.strip() for term in terms}
        else:
            terms = [term for term in terms if term not in found] + [line]
            assert line not in found, line
    return found


def test_the_glossary_defines_each_term_once_in_a_sentence(glossary):
    assert 40 <= len(set(glossary.values())) <= 75
    assert len({term.lower() for term in glossary}) == len(glossary)
    assert [term for term, text in glossary.items() if len(text) < 40 or not text.endswith(".")] == []


def test_the_glossary_refers_to_terms_that_it_has(glossary):
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    named = {target or words for words, target in re.findall(r"\{term\}`([^`<]+?)(?: <([^>]*)>)?`", text)}
    assert named and named <= set(glossary)


def test_every_notebook_is_in_the_contents_and_has_a_card_that_says_what_it_takes(staged):
    assert [entry for entry in entries_of(read(staged, "notebooks/index.md")) if "/" not in entry] == NOTEBOOKS
    cards = read(staged, "cards.md").split(":::{container} book-card\n")[1:]
    assert len(cards) == len(NOTEBOOKS)
    for stem, card in zip(NOTEBOOKS, cards, strict=True):
        assert f"](/notebooks/{stem}.ipynb)\n\n" in card and len(card.split(".ipynb)")[1].strip("\n: ")) > 10, stem


def test_every_page_is_reached_from_the_first_one(staged):
    reached, waiting = set(), ["index"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        path = staged / f"{page}.md"
        below = entries_of(path.read_text(encoding="utf-8")) if path.exists() else []
        folder = page.rpartition("/")[0]
        waiting += [f"{folder}/{entry}".lstrip("/") for entry in below]
    pages = {path.relative_to(staged).with_suffix("").as_posix() for path in staged.rglob("*.md")}
    pages |= {path.relative_to(staged).with_suffix("").as_posix() for path in staged.rglob("*.ipynb")}
    assert pages - {"cards"} == reached


def test_the_data_page_has_every_source_that_can_be_fetched(staged):
    page = read(staged, "data/README.md")
    for source in list_sources().itertuples():
        assert f"| `{source.name}` | {source.what} |" in page, source.name


def test_the_ledger_page_has_every_claim_and_every_committed_verdict(staged):
    page = read(staged, "ledger.md")
    sections = dict(re.findall(r"^\*\*(\d\d\.\d+)\*\* (.*?)^:::$", page, re.M | re.S))
    for path in (home() / "gexlib" / "claims").glob("*.yaml"):
        assert {claim["id"] for claim in yaml.safe_load(path.read_text(encoding="utf-8"))["claims"]} <= set(sections)
    for path in (home() / "results").glob("*/*.json"):
        for judged in json.loads(path.read_text(encoding="utf-8"))["claims"]:
            (line,) = [
                line
                for line in sections[judged["id"]].splitlines()
                if f"[results/{path.parent.name}/{path.name}]" in line
            ]
            assert line.startswith(f"- [{judged['verdict']}"), (path, judged["id"])
            assert ("simulated" in line) >= judged["simulated"]


def test_every_committed_figure_is_on_the_page_of_figures_with_its_caption(staged, build):
    page = read(staged, "figures/index.md")
    for path in (home() / "figures").rglob("*.json"):
        picture = path.with_suffix(".png").relative_to(home()).as_posix()
        assert f"{{figure}} /{picture}\n" in page, picture
        assert build.plain(json.loads(path.read_text(encoding="utf-8"))["caption"]) in page, picture


def test_answers_of_exercises_are_not_in_the_book(staged):
    assert not [path for path in staged.rglob("*") if "solutions" in path.parts]


def test_every_module_has_a_page_and_a_line(staged, build):
    names = build.modules()
    assert {"gexlib", "gexlib.evaluate", "gexlib.models.lasso", "gexlib.sources.simulated.vital"} <= set(names)
    assert entries_of(read(staged, "api/index.md")) == names
    index = read(staged, "api/index.md")
    for name in names:
        assert f".. automodule:: {name}\n" in read(staged, f"api/{name}.md")
        assert re.search(rf"^- \[{re.escape(name)}\]\({re.escape(name)}\.md\): \S", index, re.M), name


def test_the_two_commands_of_the_front_page_are_those_of_the_makefile(staged):
    makefile = (home() / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)|`make (\w+)`", read(staged, "index.md"), re.M):
        assert re.search(rf"^{''.join(target)}:", makefile, re.M), target


@pytest.mark.parametrize(
    ("link", "becomes"),
    [
        ("[contract](../gexlib/cohort.py)", "[contract](/api/gexlib.cohort.md)"),
        ("[readme](../README.md#two-commands)", "[readme](/index.md)"),
        ("[sweeps](../sweeps)", "sweeps"),
        ("[notebook](../notebooks/00_check_setup.ipynb)", "[notebook](../notebooks/00_check_setup.ipynb)"),
        ("[lost](../notebooks/99_lost.ipynb)", "[lost](../notebooks/99_lost.ipynb)"),
        ("[paper](https://doi.org/10.1000/1)", "[paper](https://doi.org/10.1000/1)"),
        ("![figure](../README.md)", "![figure](../README.md)"),
    ],
)
def test_links_to_files_outside_the_book_lead_to_the_page_that_tells_of_them_or_end(build, staged, link, becomes):
    page = (staged / "docs" / "glossary.md").relative_to(staged)
    assert build.relinked(f"See {link}.", page, staged) == f"See {becomes}."


def test_markdown_shows_escaped_text_as_it_was(build):
    assert build.plain("a*b_[c] | <d>\n  $e$ `is_code`") == r"a\*b\_\[c\] \| \<d\> \$e\$ `is_code`"


def test_a_folder_in_use_is_not_built_into(build, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    if importlib.util.find_spec("sphinx"):
        assert "not empty" in build.main([str(tmp_path)])
    else:
        assert "Sphinx is missing" in build.main([str(tmp_path)])
    assert (tmp_path / "thesis.txt").read_text() == "mine"
