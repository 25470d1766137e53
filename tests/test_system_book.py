"""The book as a reader meets it: built once, each page opened from the disk in a real browser, without a network."""

import base64
import functools
import http.server
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup

from gexlib.files import home

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed on this machine"),
    pytest.mark.skipif(
        any(
            importlib.util.find_spec(name) is None for name in ("sphinx", "myst_nb", "numpydoc", "pydata_sphinx_theme")
        ),
        reason="the book's packages are not installed; pip install -e .[docs]",
    ),
]
websocket = pytest.importorskip("websocket", reason="websocket-client, which speaks to chromium, is not installed")
AXE = "axe-core@4.14.1"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-port=0",
]  # fmt: skip
PHONE, DESKTOP = 360, 1280
NOTEBOOKS = sorted((home() / "notebooks").glob("[0-9]*.ipynb"))
CLAIMS = sorted((home() / "gexlib" / "claims").glob("*.yaml"))
OUTSIDE = re.compile(r"\s*(https?:)?//")
PICTURES = "[...document.images].map(i => [i.getAttribute('src'), i.naturalWidth, i.getAttribute('alt')])"
WIDTH = """Math.max(document.scrollingElement.scrollWidth, ...[...document.querySelectorAll("main *")]
  .filter(e => e.checkVisibility() && !e.closest("pre, .pst-scrollable-table-container, .output"))
  .map(e => Math.floor(e.getBoundingClientRect().right)))"""  # of all but what scrolls in a box of its own


class Browser:
    """Chromium, told what to do over its DevTools protocol; it keeps what it says of the page that it shows."""

    def __init__(self, profile: Path):
        command = ["chromium", *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline, told = time.monotonic() + 60, profile / "DevToolsActivePort"
        while not (told.exists() and told.read_text().strip()):
            assert time.monotonic() < deadline and self.process.poll() is None, "chromium did not start"
            time.sleep(0.1)
        with urlopen(f"http://127.0.0.1:{told.read_text().split()[0]}/json/list") as answer:
            (page,) = [target for target in json.load(answer) if target["type"] == "page"]
        self.socket = websocket.create_connection(page["webSocketDebuggerUrl"], suppress_origin=True, timeout=120)
        self.events, self.number = [], 0
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.ask("Page.setLifecycleEventsEnabled", enabled=True)

    def ask(self, method: str, **params) -> dict:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while (message := json.loads(self.socket.recv())).get("id") != self.number:
            self.events.append(message)
        assert "error" not in message, (method, message)
        return message["result"]

    def width(self, pixels: int) -> None:
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=pixels, height=900, deviceScaleFactor=1, mobile=pixels < 800
        )

    def open(self, url: str, width: int = DESKTOP) -> None:
        self.width(width)
        self.events.clear()
        loader = self.ask("Page.navigate", url=url)["loaderId"]
        while not any(
            event["method"] == "Page.lifecycleEvent"
            and event["params"]["loaderId"] == loader
            and event["params"]["name"] == "load"
            for event in self.events
        ):
            self.events.append(json.loads(self.socket.recv()))

    def value(self, expression: str):
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 30):
        deadline = time.monotonic() + seconds
        while not (found := self.value(expression)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, uncaught exceptions, files that did not load."""
        said = []
        for event in self.events:
            method, params = event["method"], event["params"]
            if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                said.append(params["entry"]["text"])
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                said.append(str([argument.get("value") for argument in params["args"]]))
            elif method == "Runtime.exceptionThrown":
                said.append(json.dumps(params["exceptionDetails"])[:300])
            elif method == "Network.loadingFailed":
                said.append(params["errorText"])
        return said

    def asked_for(self) -> list[str]:
        """Every address that the page made the browser load."""
        sent = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        self.socket.close()
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(30)


@pytest.fixture(scope="session")
def book(tmp_path_factory) -> Path:
    """The folder of the built pages."""
    folder = tmp_path_factory.mktemp("book")
    command = [sys.executable, str(home() / "docs" / "build.py"), str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr[-3000:]
    return folder / "html"


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory) -> str:
    """The accessibility checker, as a script."""
    if shutil.which("npm") is None:
        pytest.skip("npm, which brings axe-core, is not installed on this machine")
    folder = tmp_path_factory.mktemp("axe")
    run = subprocess.run(["npm", "pack", AXE, "--silent"], cwd=folder, capture_output=True, text=True, timeout=120)
    if run.returncode:
        pytest.skip(f"npm could not bring {AXE}: {run.stderr.strip()[-200:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        return archive.extractfile("package/axe.min.js").read().decode() + "; 0"


@pytest.fixture(scope="session")
def pages(book) -> dict[str, BeautifulSoup]:
    """Every page by its path: what stands in the file, before any script has run."""
    paths = [path for path in sorted(book.rglob("*.html")) if "_static" not in path.parts]
    return {path.relative_to(book).as_posix(): BeautifulSoup(path.read_bytes(), "html.parser") for path in paths}


@pytest.fixture(scope="session")
def visits(browser, book, pages) -> dict[str, dict]:
    """What the browser found on every page: complaints, addresses, pictures, and its width on a phone."""
    return {page: visit(browser, (book / page).as_uri()) for page in pages}


def visit(browser: Browser, url: str) -> dict:
    browser.open(url)
    found = {"pictures": browser.value(PICTURES)}
    browser.width(PHONE)
    found["width"] = browser.value(WIDTH)
    return found | {"complaints": browser.complaints(), "asked for": browser.asked_for()}


def violations(browser: Browser, axe: str, url: str, context: str = "document", dark: bool = False) -> list[str]:
    """What axe-core finds wrong with a page."""
    theme = "dark" if dark else "light"
    wishes = [{"name": "prefers-color-scheme", "value": theme}, {"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.ask("Emulation.setEmulatedMedia", features=wishes)  # without motion no colour is caught halfway
    browser.open(url)
    assert browser.value("document.documentElement.dataset.theme ?? 'light'") == theme
    browser.value(axe)
    found = browser.value(
        f"axe.run({context}, {{preload: false, resultTypes: ['violations']}}).then(r => r.violations)"
    )
    return [f"{v['id']}, {len(v['nodes'])} times: {v['nodes'][0]['html'][:200]}" for v in found]


def broken_links(pages: dict[str, BeautifulSoup], folder: Path) -> list[str]:
    """Links and sources of every page that lead to no file, or to no place on the page."""
    places = {page: {tag["id"] for tag in soup.find_all(id=True)} for page, soup in pages.items()}
    broken = []
    for page, soup in pages.items():
        for tag in soup.find_all(["a", "img", "script", "link", "source", "iframe"]):
            address = urlsplit(tag.get("href") or tag.get("src") or "")
            if address.scheme in ("http", "https", "mailto") and tag.name == "a":
                continue
            path = (
                Path(os.path.normpath(folder / page / ".." / unquote(address.path))) if address.path else folder / page
            )
            name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else ""
            lost = address.fragment and name in pages and unquote(address.fragment) not in places[name]
            if address.scheme or address.netloc or not path.is_file() or lost:
                broken.append(f"{page}: {address.geturl()}")
    return broken


def fetched_from_elsewhere(pages: dict[str, BeautifulSoup], folder: Path) -> list[str]:
    """Addresses outside the book of scripts, styles, fonts and pictures."""
    found = [
        f"{page}: {address}"
        for page, soup in pages.items()
        for tag in soup.find_all(["script", "link", "img", "iframe", "source", "video", "audio", "object", "embed"])
        if OUTSIDE.match(address := str(tag.get("src") or tag.get("href") or tag.get("data") or ""))
    ]
    for style in folder.rglob("*.css"):
        addresses = re.findall(r"(?:@import\s+|url\()\s*[\"']?([^\"')]+)", style.read_text(encoding="utf-8"))
        found += [f"{style.name}: {address}" for address in addresses if OUTSIDE.match(address)]
    return found


def test_the_checks_notice_a_page_that_is_broken_in_every_way(browser, axe, tmp_path):
    (tmp_path / "style.css").write_text("@import 'https://example.org/font.css';", encoding="utf-8")
    page = tmp_path / "page.html"
    page.write_text(
        "<!doctype html><html lang=en><title>x</title><main><h1>Broken</h1><h4>skips</h4>"
        "<div style='width:900px'>wide</div>"
        "<p style='color:#bbb;background:#fff'>pale</p><img src=none.png><a href=gone.html>a</a><a href=#nowhere>b</a>"
        "<script src=//example.org/x.js></script><script>console.error('wrong')</script></main></html>",
        encoding="utf-8",
    )
    soup = {"page.html": BeautifulSoup(page.read_bytes(), "html.parser")}
    assert [line.split(": ")[1] for line in broken_links(soup, tmp_path)] == [
        "none.png", "gone.html", "#nowhere", "//example.org/x.js",
    ]  # fmt: skip
    assert len(fetched_from_elsewhere(soup, tmp_path)) == 2
    found = visit(browser, page.as_uri())
    assert found["pictures"] == [["none.png", 0, None]] and found["width"] > PHONE
    assert any("wrong" in line for line in found["complaints"]) and any("ERR_" in line for line in found["complaints"])
    said = {line.split(",")[0] for line in violations(browser, axe, page.as_uri())}
    assert {"color-contrast", "heading-order", "image-alt"} <= said


def test_the_book_has_a_page_for_every_notebook_module_and_guide(pages):
    expected = {f"notebooks/{path.stem}.html" for path in NOTEBOOKS} | {"docs/glossary.html", "data/README.html"}
    expected |= {"index.html", "findings.html", "ledger.html", "figures/index.html", "changelog.html", "search.html"}
    expected |= {"api/gexlib.evaluate.html", "api/gexlib.models.lasso.html", "docs/from_laptop_to_cluster.html"}
    assert expected <= set(pages)
    api = pages["api/gexlib.evaluate.html"].get_text(" ", strip=True)
    assert "paired_difference" in api and "Parameters :" in api and "Raises :" in api


def test_every_link_leads_somewhere(pages, book):
    assert broken_links(pages, book) == []


def test_nothing_is_fetched_from_elsewhere(pages, book, visits):
    assert fetched_from_elsewhere(pages, book) == []
    asked = {address for found in visits.values() for address in found["asked for"]}
    assert [address for address in asked if not address.startswith((book.as_uri(), "data:"))] == []


def test_every_page_opens_without_a_complaint(visits):
    assert {page: found["complaints"] for page, found in visits.items() if found["complaints"]} == {}


def test_every_picture_is_shown_and_has_an_alternative_text_in_words(visits):
    bad = [
        (page, source)
        for page, found in visits.items()
        for source, width, alt in found["pictures"]
        if not width or not alt or len(alt.split()) < 2 or re.search(r"\.(png|svg|jpe?g)$|[/\\]", alt)
    ]
    assert bad == [] and sum(len(found["pictures"]) for found in visits.values()) > 50


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_the_outputs_that_it_was_committed_with(notebook, pages):
    page = pages[f"notebooks/{notebook.stem}.html"]
    outputs = [output for cell in nbformat.read(notebook, as_version=4).cells for output in cell.get("outputs", [])]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    tables = sum(
        output.data["text/html"].count("<table") for output in outputs if "text/html" in output.get("data", {})
    )
    assert len(page.select(".cell_output img")) == pictures and len(page.select(".cell_output table")) == tables
    said = " ".join(page.select_one("article").get_text(" ").split())
    for output in outputs:
        if output.output_type == "stream":
            assert " ".join(output.text.splitlines()[-1].split()) in said


def test_the_alternative_text_of_a_picture_is_the_caption_of_its_figure(pages):
    figures = home() / "figures" / "02_pancancer_cnns"
    captions = [
        json.loads((figures / f"accuracy_{task}.json").read_text())["caption"] for task in ("tumours", "with_normal")
    ]
    alts = [picture["alt"] for picture in pages["notebooks/02_pancancer_cnns.html"].select(".cell_output img")]
    first, second = ([place for place, alt in enumerate(alts) if caption in alt] for caption in captions)
    assert len(first) == len(second) == 1 and first[0] + 1 == second[0]


def test_no_page_scrolls_sideways_on_a_phone(visits):
    assert {page: found["width"] for page, found in visits.items() if found["width"] > PHONE} == {}


def test_every_page_passes_the_accessibility_check(browser, axe, book, pages):
    """The colours of code, the same on every page, are checked on one."""
    context = {page: "document" if page.startswith("notebooks/01_") else "{exclude: ['pre']}" for page in pages}
    found = {page: violations(browser, axe, (book / page).as_uri(), context[page]) for page in pages}
    assert {page: said for page, said in found.items() if said} == {}


@pytest.mark.parametrize(
    "page", ["index", "ledger", "docs/glossary", "api/gexlib.evaluate", "notebooks/00_check_setup"]
)
def test_pages_pass_it_in_dark_colours_too(page, browser, axe, book):
    assert violations(browser, axe, (book / f"{page}.html").as_uri(), dark=True) == []


def found_by_search(browser: Browser, url: str) -> list[str]:
    """The pages that a search lists."""
    browser.open(url)
    assert browser.wait_for("document.querySelector('#search-results ul.search li a') !== null"), "nothing found"
    browser.wait_for("/found/i.test(document.querySelector('.search-summary')?.textContent ?? '')")
    assert browser.complaints() == []
    return browser.value("[...document.querySelectorAll('#search-results ul.search li a')].map(a => a.pathname)")


def test_search_finds_saliency_from_the_disk(browser, book):
    found = found_by_search(browser, (book / "search.html").as_uri() + "?q=saliency")
    assert any(path.endswith("notebooks/02b_pancancer_markers.html") for path in found)


def test_search_finds_saliency_and_shows_excerpts_from_a_server(browser, book):
    handler = functools.partial(Quiet, directory=str(book))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = found_by_search(browser, f"http://127.0.0.1:{server.server_port}/search.html?q=saliency")
        assert browser.wait_for("document.querySelector('#search-results p.context') !== null"), "no excerpt"
        server.shutdown()
    assert "/notebooks/02b_pancancer_markers.html" in found


def test_a_word_that_is_nowhere_is_not_found(browser, book):
    browser.open((book / "search.html").as_uri() + "?q=qwrtzx")
    assert browser.wait_for("/did not match/.test(document.querySelector('#search-results').textContent)")


def test_the_first_use_of_a_term_leads_to_the_glossary_once_a_page_and_not_from_headings_or_code(pages):
    known = {tag["id"] for tag in pages["docs/glossary.html"].select("dt[id]")}
    for page, soup in pages.items():
        links = soup.select("a.glossary-term")
        anchors = [link["href"].partition("#")[2] for link in links]
        assert len(anchors) == len(set(anchors)) and set(anchors) <= known, page
        assert not any(link.find_parent(["h1", "h2", "h3", "pre", "code"]) for link in links), page
        assert all(len(link["title"]) > 20 for link in links), page
    prose = [
        text
        for text in pages["notebooks/05_lasso_vs_deepnet.html"]
        .select_one("article")
        .find_all(string=re.compile("LASSO"))
        if not text.find_parent(["h1", "h2", "h3", "pre", "code", "nav"])
    ]
    assert prose[0].find_parent("a")["href"].endswith("glossary.html#term-LASSO")


def test_formulas_are_drawn_by_the_browser_itself(pages):
    assert pages["docs/glossary.html"].select("math mi")
    assert not any("mathjax" in str(script).lower() for soup in pages.values() for script in soup.find_all("script"))


def test_the_ledger_has_every_claim_and_a_verdict_on_each(pages):
    claims = pages["ledger.html"].select("div.claim")
    expected = [claim["id"] for path in CLAIMS for claim in yaml.safe_load(path.read_text(encoding="utf-8"))["claims"]]
    assert [claim.find("strong").text for claim in claims] == expected
    assert all(claim.select(".verdict") for claim in claims)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        """Say nothing."""
