"""The documentation builds without a warning, and a browser that reads it talks to nobody else."""

import fcntl
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import perdure
from tests.docs.shell import ROOT

FETCHING = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "input": ("src",),
    "use": ("href", "xlink:href"),
    "image": ("href", "xlink:href"),
}
"""Attributes whose address a browser fetches by itself. A link is only followed by the reader."""
LINKED = frozenset({"canonical", "prev", "next", "alternate", "me"})  # rel of <link> that fetches nothing
ELSEWHERE = re.compile(r"^\s*([a-z]+:)?//", re.IGNORECASE)
CSS = re.compile(r"""(?:url\(\s*['"]?|@import\s+['"])((?:https?:)?//[^'")\s]+)""", re.IGNORECASE)
SCRIPTED = re.compile(
    r"https?://(?:unpkg\.com|cdn\.|[a-z.]*jsdelivr\.net|cdnjs\.|fonts\.g|api\.github\.com)[^\"'`\s]*"
)

pytestmark = [
    pytest.mark.xdist_group("site"),
    pytest.mark.timeout(900),
]  # a build takes minutes on a busy machine


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The site, built once for all workers of this run."""
    if worker_id == "master":
        return built(tmp_path_factory.mktemp("site"))
    folder = tmp_path_factory.getbasetemp().parent / "site"
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return folder if folder.is_dir() else built(folder)


def built(folder: Path) -> Path:
    """The site in a folder, as `make docs` builds it."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", os.fspath(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return folder


class Fetches(HTMLParser):
    """The addresses elsewhere that a page makes a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        wanted = FETCHING.get(tag, ())
        if tag == "link" and not LINKED.issuperset(given.get("rel", "").split()):
            wanted = ("href",)
        self.found += [given[name] for name in wanted if ELSEWHERE.match(given.get(name, ""))]
        self.found += CSS.findall(given.get("style", ""))


def fetched_elsewhere(file: Path) -> list[str]:
    """What a built file fetches from another server."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".html":
        page = Fetches()
        page.feed(text)
        return [*page.found, *CSS.findall(text), *SCRIPTED.findall(text)]
    return [*CSS.findall(text), *SCRIPTED.findall(text)]


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    files = [file for file in site.rglob("*") if file.suffix in (".html", ".css", ".js", ".svg")]
    assert len(files) > 10
    assert {file.name: found for file in files if (found := fetched_elsewhere(file))} == {}


def test_the_search_and_every_picture_have_names(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        unnamed = [tag for tag in re.findall(r'<[^>]+role="dialog"[^>]*>', text) if "aria-label=" not in tag]
        empty = re.findall(r'<img[^>]+alt=""[^>]*>', text)
        assert (unnamed, empty) == ([], []), page.name


def test_every_page_is_in_the_site(site: Path) -> None:
    pages = [page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if not (site / page.with_suffix(".html")).is_file()] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script src="https://cdn.example.org/x.js"></script>'),
        ("b.html", '<link rel="stylesheet" href="//fonts.example.org/css">'),
        ("c.html", '<p style="background: url(https://example.org/a.png)">'),
        ("d.css", '@import "https://example.org/a.css";'),
        ("e.css", "a { background: url('//example.org/a.png') }"),
        ("f.js", 'load("https://unpkg.com/mermaid@11/dist/mermaid.min.js")'),
    ],
)
def test_the_search_finds_what_is_fetched(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert fetched_elsewhere(tmp_path / name)


def test_links_are_no_fetches(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="https://example.org/">there</a><link rel="canonical" href="https://x.y/">'
    )
    assert fetched_elsewhere(tmp_path / "a.html") == []


def test_the_reference_has_every_public_name(site: Path) -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (site / "reference" / "api").glob("*.html"))
    errors = {name for name in perdure.__all__ if issubclass_of(getattr(perdure, name), perdure.PerdureError)}
    missing = [
        name
        for name in perdure.__all__
        if f'id="perdure.{"errors." if name in errors else ""}{name}"' not in text
        and f"<code>{name}</code> is" not in text
    ]
    assert missing == []


def issubclass_of(thing: object, kind: type) -> bool:
    return isinstance(thing, type) and issubclass(thing, kind)


def test_commands_and_routes_are_read_from_the_code(site: Path) -> None:
    commands = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    assert "perdure suspend" in commands and "--reason" in commands and "&lt;!-- table" not in commands
    routes = (site / "reference" / "http.html").read_text(encoding="utf-8")
    assert "POST /instances/{id}/raiseEvent/{event}" in routes


def test_sections_of_docstrings_become_lists(site: Path) -> None:
    client = (site / "reference" / "api" / "client.html").read_text(encoding="utf-8")
    assert "<li><code>on_existing</code>:" in client
    assert "Parameters:" not in client
