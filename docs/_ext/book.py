"""What the book adds to Sphinx: alternative texts, links from words and file names, formulas as MathML."""

from __future__ import annotations

import json
import re
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from PIL import Image
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

GLOSSARY = "docs/glossary"
ALIKE = 0.8  # correlation of two small pictures; of one figure at two sizes at least 0.89, of two figures at most 0.63
ENTRIES = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Warns")  # sections of a docstring
NO_LINKS = (
    nodes.title, nodes.reference, nodes.literal, nodes.literal_block, nodes.raw, nodes.math, nodes.rubric,
    nodes.caption, nodes.term, addnodes.pending_xref, addnodes.desc_signature, addnodes.download_reference,
    addnodes.toctree,
)  # fmt: skip


class AlternativeTexts(SphinxTransform):
    """A picture that a notebook drew has no alternative text; it is given the caption of the committed figure it shows.

    Where no committed figure is the same picture, the heading above it and the prose before or after it serve.
    """

    default_priority = 400

    def apply(self) -> None:
        if not self.env.docname.startswith("notebooks/"):
            return
        folder = Path(self.env.srcdir, "figures", Path(self.env.docname).name)
        for image in self.document.findall(nodes.image):
            if not image.get("alt"):
                image["alt"] = self.of_figure(image, folder) or prose_about(image)

    def of_figure(self, image: nodes.image, folder: Path) -> str | None:
        path = Path(self.env.srcdir, image["uri"].lstrip("/"))
        drawn = {known: likeness(path, known) for known in sorted(folder.glob("*.png"))}
        best = max(drawn, key=drawn.get, default=None)
        if best is None or drawn[best] < ALIKE:
            return None
        figure = json.loads(best.with_suffix(".json").read_text(encoding="utf-8"))
        return f"{heading_above(image)} {figure['caption']} Cohort: {figure['cohort']}."


@cache
def thumbnail(path: Path) -> np.ndarray:
    picture = Image.open(BytesIO(path.read_bytes())).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    return np.asarray(white.convert("L").resize((48, 48)), dtype=float).ravel()


def likeness(one: Path, other: Path) -> float:
    """Correlation of two pictures, both made small."""
    return float(np.corrcoef(thumbnail(one), thumbnail(other))[0, 1])


def heading_above(node: nodes.Node) -> str:
    while not isinstance(node, nodes.section):
        node = node.parent
    title = node.next_node(nodes.title).astext()
    return title if title.endswith(("?", ".")) else f"{title}:"


def prose_about(image: nodes.image) -> str:
    """The heading above a picture, and the first sentence of the prose before its cell, or after it."""
    cell = image
    while "cell" not in cell.get("classes", []):
        cell = cell.parent
    around = cell.parent.children
    place = around.index(cell)
    near = [node for node in [*reversed(around[:place]), *around[place:]] if isinstance(node, nodes.paragraph)]
    return f"{heading_above(image)} {first_sentence(near[0].astext()) if near else 'a figure'}"


def first_sentence(text: str) -> str:
    return re.split(r"(?<=[.?]) ", " ".join(text.split()))[0]


class FileNames(SphinxTransform):
    """A file or module named in the prose of a page leads to its page, or to the file of numbers."""

    default_priority = 410

    def apply(self) -> None:
        for literal in list(self.document.findall(nodes.literal)):
            name, parent = literal.astext().removeprefix("../"), literal.parent
            if any(isinstance(above, NO_LINKS) for above in ancestors(literal)):
                continue
            if re.fullmatch(r"results/\w+/\w+\.json", name) and Path(self.env.srcdir, name).exists():
                link = addnodes.download_reference(reftarget=f"/{name}", refdoc=self.env.docname, reftype="download")
            elif page := self.page_of(name):
                link = addnodes.pending_xref(
                    reftarget=f"/{page}", refdoc=self.env.docname, refdomain="std", reftype="doc", refexplicit=True
                )
            else:
                continue
            parent.replace(literal, link)
            link += literal

    def page_of(self, name: str) -> str | None:
        stem = re.sub(r"\.(md|ipynb|py)$", "", name)
        dotted = "api/" + stem.removesuffix("/__init__").replace("/", ".")
        pages = {stem, f"notebooks/{stem}", dotted} & self.env.found_docs - {self.env.docname}
        return min(pages, default=None) if "." in name or name.startswith(("0", "docs/")) else None


class TableCorners(SphinxTransform):
    """The empty corner of a table that pandas wrote is no heading; that of another table gets a name."""

    default_priority = 420

    def apply(self) -> None:
        for raw in self.document.findall(nodes.raw):
            if "<th></th>" in raw.astext():
                raw.replace_self(nodes.raw("", raw.astext().replace("<th></th>", "<td></td>"), **raw.attributes))
        for head in self.document.findall(nodes.thead):
            for entry in head.findall(nodes.entry):
                if not entry.astext():
                    entry[:] = [nodes.paragraph("", "", nodes.inline("", "row", classes=["visually-hidden"]))]


def ancestors(node: nodes.Node):
    while node := node.parent:
        yield node


@cache
def glossary_of(env) -> tuple[dict[str, tuple[str, str]], re.Pattern]:
    """Terms in lower case -> (anchor, first sentence), and the pattern that finds them."""
    terms = {}
    for item in env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
        meaning = first_sentence(item.next_node(nodes.definition).astext())
        for term in item.findall(nodes.term):
            terms[term.astext()] = (term["ids"][0], meaning)
    spelled = sorted(terms, key=len, reverse=True)
    forms = [re.escape(term) if term.isupper() or len(term) < 5 else f"(?i:{re.escape(term)})" for term in spelled]
    return {term.lower(): found for term, found in terms.items()}, re.compile(
        rf"(?<![\w-])({'|'.join(forms)})(?:e?s)?(?![\w-])"
    )


def link_glossary(app, doctree: nodes.document, docname: str) -> None:
    """The first use of each term of the glossary on a page leads to it, and says its first sentence on hovering."""
    if docname == GLOSSARY or docname not in app.env.found_docs:
        return
    terms, pattern = glossary_of(app.env)
    page, seen = app.builder.get_relative_uri(docname, GLOSSARY), set()
    for text in list(doctree.findall(nodes.Text)):
        if any(isinstance(above, NO_LINKS) or "book-card" in above.get("classes", []) for above in ancestors(text)):
            continue
        pieces, end = [], 0
        for found in pattern.finditer(str(text)):
            anchor, meaning = terms[found[1].lower()]
            if anchor in seen:
                continue
            seen.add(anchor)
            pieces.append(nodes.Text(str(text)[end : found.start()]))
            link = nodes.reference("", found[0], internal=True, refuri=f"{page}#{anchor}", reftitle=meaning)
            link["classes"].append("glossary-term")
            pieces.append(link)
            end = found.end()
        if pieces:
            text.parent.replace(text, [*pieces, nodes.Text(str(text)[end:])])


def without_markup(app, what, name, obj, options, lines: list[str]) -> None:
    """A bar or an underscore in a docstring is what it looks like, but for code and for what is quoted."""
    lines[:] = one_line_an_entry(lines)
    for number, line in enumerate(lines):
        pieces = re.split(r"(`+[^`]*`+)", line)
        pieces[::2] = [re.sub(r"\||(?<=\w)_(?!\w)", r"\\\g<0>", piece) for piece in pieces[::2]]
        lines[number] = "".join(pieces)


def one_line_an_entry(lines: list[str]) -> list[str]:
    """Each parameter, error or returned value in one line: numpydoc would part its first line from those below."""
    joined, section = [], ""
    for line, rule in zip(lines, [*lines[1:], ""], strict=True):
        if line and set(rule) == {"-"} and rule:
            section = line
        continues = line.startswith("    ") or section in ("Returns", "Yields")
        entry = section in ENTRIES and joined and joined[-1] and set(joined[-1]) != {"-"} and joined[-1] != section
        if line.strip() and continues and entry:
            joined[-1] += " " + line.strip()
        else:
            joined.append(line)
    return joined


def skip_foreign(app, what, name, obj, skip, options) -> bool | None:
    """Leave out what other packages put into ours."""
    ours = str(getattr(obj, "__module__", "gexlib")).startswith("gexlib")
    return skip or (callable(obj) and not ours) or re.fullmatch(r"set_\w+_request", name) is not None or None


def source_of_notebooks_only(app, pagename, templatename, context, doctree) -> None:
    """*Show Source* is for notebooks, which a reader may want to run."""
    context["show_source"] = pagename.startswith("notebooks/") and pagename != "notebooks/index"


def visit_math(self, node: nodes.math) -> None:
    self.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def visit_displayed_math(self, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app) -> dict:
    app.add_transform(AlternativeTexts)
    app.add_transform(FileNames)
    app.add_transform(TableCorners)
    app.connect("doctree-resolved", link_glossary)
    app.connect("html-page-context", source_of_notebooks_only)
    app.connect("autodoc-process-docstring", without_markup, priority=100)
    app.connect("autodoc-skip-member", skip_foreign)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displayed_math, None))
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": False}
