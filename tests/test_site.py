"""The built documentation: whole on every screen, searchable, from a server and from a disk."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTHS = {"desk": 1280, "phone": 390}
LEFT = "net::ERR_ABORTED"  # the next page was opened before
SOUGHT = "CosineAnnealingLR"

pytest.importorskip("mkdocs", reason="mkdocs builds the documentation")

# Text that is wider than its own box or than the window; the 4 px are the padding of inline code.
# Tables scroll in a box of their own; so do commands and output, but on the first screen of a desk.
CUT = """() => [...document.querySelectorAll(
    '.md-content :is(h1, h2, h3, p, li, img, table, pre > code)')]
  .filter(e => !e.closest('.md-typeset__scrollwrap'))
  .filter(e => e.scrollWidth > e.clientWidth + 4 || e.getBoundingClientRect().right > innerWidth)
  .filter(e => !e.closest('.language-console, .language-text')
    || innerWidth > 960 && e.getBoundingClientRect().top < innerHeight)
  .concat(document.body.scrollWidth > innerWidth ? [document.body] : [])
  .map(e => `${e.tagName}: ${e.textContent}`)
"""


class Links(HTMLParser):
    """Collect the links and the anchors of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for key, value in attrs:
            if key in ("href", "src") and value:
                self.links.append(value)
            elif key in ("id", "name"):
                self.anchors.add(value)


@pytest.fixture(scope="session")
def site(shared):
    """Build the documentation once, as `make docs` does."""
    folder = shared / "documentation"
    with FileLock(shared / "documentation.lock"):
        if not folder.exists():
            made = shared / "documentation.part"
            done = subprocess.run(
                [sys.executable, "-m", "mkdocs", "--quiet", "build", "--strict", "-d", made],
                cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-4000:]
            made.rename(folder)
    return folder


@pytest.fixture(scope="session")
def pages(site):
    """Return the text of every page but the server's own, by path."""
    return {path: path.read_text() for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_link_leads_to_a_file_and_an_anchor_without_a_server(pages):
    parsed = {path: Links(text) for path, text in pages.items()}
    assert len(parsed) > 25
    for path, page in parsed.items():
        for link in page.links:
            target = urlsplit(urljoin(path.as_uri(), link))
            if target.scheme != "file":
                assert target.scheme in ("https", "data"), link
                continue
            there = Path(unquote(target.path))
            assert there.is_file(), (path, link)
            if target.fragment and there in parsed and not target.fragment.startswith("__"):
                assert unquote(target.fragment) in parsed[there].anchors, (path, link)


def test_nothing_is_fetched_from_elsewhere(pages):
    for path, text in pages.items():
        fetched = re.findall(r'<(?:script|img|link rel="?stylesheet"?)[^>]*="?https?:[^>]*', text)
        assert not fetched, (path, fetched)


def test_the_search_index_is_there_for_a_server_and_for_a_disk(site):
    text = (site / "search" / "search_index.json").read_text()
    assert (site / "search" / "search_index.js").read_text() == f"var __index = {text}"
    found = {doc["location"].partition("#")[0] for doc in json.loads(text)["docs"]
             if SOUGHT in doc["text"] + doc["title"]}  # fmt: skip
    assert {"api.html", "schedules.html"} <= found


@pytest.fixture(scope="module")
def browser():
    """Start a Chromium of the system's without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def served(site):
    """Serve the documentation on a port of this machine; return its address."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=site))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["server", "disk"])
def address(request, site):
    return request.getfixturevalue("served") if request.param == "server" else f"{site.as_uri()}/"


@pytest.fixture(params=WIDTHS)
def width(request):
    return WIDTHS[request.param]


@pytest.fixture(params=["light", "dark"])
def page(request, browser, address, width):
    """Open a page whose requests, but to `address`, and whose errors fail the test."""
    window = {"width": width, "height": 844}
    context = browser.new_context(viewport=window, color_scheme=request.param)
    opened, wrong = context.new_page(), []
    opened.set_default_timeout(60_000)
    inside = (address, "data:", "blob:", "about:")
    opened.on("request", lambda r: r.url.startswith(inside) or wrong.append(r.url))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("response", lambda r: r.ok or r.status == 304 or wrong.append(f"{r.status}: {r.url}"))
    opened.on("requestfailed", lambda r: r.failure == LEFT or wrong.append(f"{r.failure}: {r.url}"))
    yield opened
    context.close()
    assert wrong == []


def test_no_page_is_cut(page, address, site, pages):
    for path in sorted(pages):
        page.goto(address + path.relative_to(site).as_posix())
        page.wait_for_function("document.querySelectorAll('.md-content table').length == 0 ||"
                               " document.querySelector('.md-typeset__scrollwrap')")  # fmt: skip
        assert page.evaluate(CUT) == [], path
        assert page.evaluate("[...document.images].every(i => i.naturalWidth > 0)"), path


def test_the_reader_has_the_colours_that_they_prefer(page, address):
    page.goto(f"{address}index.html")
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    page.wait_for_selector(f"body[data-md-color-scheme={'slate' if dark else 'default'}]")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    channels = [int(x) for x in re.findall(r"\d+", colour)[:3]]
    assert max(channels) < 64 if dark else min(channels) > 192


def test_search_finds_a_class(page, address, width):
    page.goto(f"{address}index.html")
    if width < 960:
        page.click("label.md-header__button[for=__search]")
    else:
        page.click("input.md-search__input")
    page.wait_for_function("document.querySelector('.md-search__input:focus')")
    page.keyboard.type(SOUGHT)
    # Results change while it types: a link that only mentions the class may come first.
    page.click(f".md-search-result__link[href$='{SOUGHT}'] >> nth=0")
    page.wait_for_url(f"{address}*.html*#*{SOUGHT}")
    assert SOUGHT in page.inner_text(f"h3[id$={SOUGHT}]")
