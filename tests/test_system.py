"""What pip alone cannot test: the page in a real browser, and our statistics beside R's."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from gexlib.evaluate import false_discovery_rate, proportion, weighted_auc
from gexlib.files import home

pytestmark = pytest.mark.system
NOTEBOOKS = sorted((home() / "notebooks").glob("[0-9]*.ipynb"))


def needs(program: str):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed on this machine")


def in_r(code: str) -> np.ndarray:
    run = subprocess.run(["Rscript", "--vanilla", "-e", code], capture_output=True, text=True, timeout=120, check=True)
    return np.array(run.stdout.split(), dtype=float)


def r_vector(values) -> str:
    return "c(" + ",".join(repr(float(v)) for v in values) + ")"


@needs("Rscript")
def test_the_area_under_the_roc_curve_is_that_of_the_wilcoxon_statistic_in_r():
    rng = np.random.default_rng(1)
    positive, score = rng.random(60) < 0.4, rng.normal(size=60).round(1)
    found = weighted_auc(positive, score, np.ones((1, 60)))[0]
    cases, controls = r_vector(score[positive]), r_vector(score[~positive])
    expected = in_r(f"x={cases}; y={controls}; cat(wilcox.test(x, y, exact=FALSE)$statistic/length(x)/length(y))")[0]
    assert found == pytest.approx(expected, abs=1e-6)


@needs("Rscript")
def test_false_discovery_rates_and_wilson_intervals_are_those_of_r():
    p = np.random.default_rng(2).uniform(size=40) ** 3
    assert false_discovery_rate(p) == pytest.approx(in_r(f"cat(p.adjust({r_vector(p)}, 'BH'))"), rel=1e-5)
    expected = in_r("cat(prop.test(30, 54, correct=FALSE)$conf.int)")
    assert proportion(30, 54)[1:] == pytest.approx(tuple(expected), abs=1e-5)


@needs("chromium")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_rendered_notebook_shows_its_figures_in_a_browser(notebook, tmp_path):
    from nbconvert import HTMLExporter

    body, _ = HTMLExporter(template_name="basic").from_filename(str(notebook))
    probe = "<script>onload=()=>document.title=[...document.images].map(i=>i.naturalWidth).join(' ')</script>"
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><title>none</title>{probe}{body}", encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    command = ["chromium", *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    widths = re.search(r"<title>(.*?)</title>", shown).group(1).split()
    figures = body.count("data:image/png;base64")
    assert widths.count("0") == 0 and len(widths) == figures
    assert figures > 0 or notebook.stem.startswith("00")
