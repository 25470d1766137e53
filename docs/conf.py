"""How Sphinx makes the book out of what `docs/build.py` has staged. Nothing is fetched, no notebook is executed."""

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="", JAX_PLATFORMS="cpu")  # the API pages import gexlib

project = "gexlib"
author = "the authors of gexlib"
copyright = "the authors of gexlib, MIT"  # noqa: A001, the name that Sphinx reads
release = installed_version("gexlib")
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc", "book"]
exclude_patterns = ["cards.md"]
suppress_warnings = ["myst.header"]  # a notebook may go from a title to a third-level heading
highlight_language = "none"
default_role = "py:obj"  # of docstrings

nb_execution_mode = "off"  # the outputs are those of the committed notebooks
nb_merge_streams = True
nb_ipywidgets_js = {}  # no scripts from elsewhere
myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource", "ignore-module-all": True}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
add_module_names = False
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = "Deep learning on gene expression"
html_static_path = [str(HERE / "_static")]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_favicon = str(HERE / "_static" / "favicon.svg")
html_domain_indices = False  # api/index.md is better
html_math_renderer = "mathml"
html_sourcelink_suffix = ""
html_permalinks_icon = "#"
html_context = {"default_mode": "auto"}
ALONE = [
    "index",
    "findings",
    "ledger",
    "figures/index",
    "docs/glossary",
    "data/README",
    "changelog",
    "genindex",
    "search",
]
html_sidebars = dict.fromkeys(ALONE, [])
html_theme_options = {
    "logo": {"text": "gexlib"},
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "search_bar_text": "Search the book",
    "secondary_sidebar_items": ["page-toc", "sourcelink"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
    "back_to_top_button": True,
}
