"""What the site adds to MkDocs: an order for its pages, the marks of what the tests do not run, and no strangers.

Pages need not be listed anywhere. A page is shown in the section of its folder: first those named here, in this
order, then the others by name.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from tables import filled  # noqa: E402, RUF100 (MkDocs loads this file by its path)

SECTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Tutorial", "tutorial", ()),
    (
        "How to",
        "how-to",
        (
            "what-is-my-instance-waiting-for.md",
            "parked-instance.md",
            "changing-code.md",
            "replay-before-deploy.md",
            "activity-may-run-twice.md",
            "activities.md",
            "timers-and-retries.md",
            "undo-with-a-saga.md",
            "events-and-approvals.md",
            "people-in-the-loop.md",
            "identity.md",
            "add-a-language.md",
            "entities.md",
            "call-http.md",
            "webhooks.md",
            "rewind.md",
            "testing.md",
            "organise-an-app.md",
            "deploy-and-run.md",
            "from-demo-to-production.md",
            "azure-functions-app.md",
            "leave-azure.md",
            "several-workers.md",
            "sizing.md",
            "containers.md",
            "housekeeping.md",
            "monitor.md",
            "traces.md",
            "logs.md",
            "application-insights.md",
            "encrypt-payloads.md",
        ),
    ),
    (
        "Concepts",
        "concepts",
        ("how-replay-works.md", "history.md", "several-workers.md", "capacity.md", "other-databases.md"),
    ),
    (
        "Reference",
        "reference",
        (
            "api",
            "cli.md",
            "settings.md",
            "http.md",
            "spans.md",
            "glossary.md",
            "security.md",
            "azure-names.md",
        ),
    ),
    ("Errors", "errors", ()),
)
LOOSE = {"reliability.md": "Concepts", "migrating-from-azure.md": "How to"}
"""Pages beside the folders, and the section that shows them, at its end."""
TITLES = {"api": "Python API"}
INNER = {
    "api": (
        "app.md",
        "orchestrators.md",
        "tasks.md",
        "activities.md",
        "entities.md",
        "http-calls.md",
        "client.md",
        "status.md",
        "housekeeping.md",
        "testing.md",
        "errors.md",
        "more.md",
    )
}
"""What comes first in a folder within a section's."""

_PAGES = "<!-- pages of this folder -->"
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_PARAGRAPH = re.compile(r"^(?![#<|\-*!]|```|\d+\.).+(?:\n.+)*", re.MULTILINE)
_NOT_RUN = re.compile(r"^( *)<!-- not run: (.+?) -->\n(\s*`{3,}.*?\n\s*`{3,}[ ]*$)", re.MULTILINE | re.DOTALL)
_ELSEWHERE = re.compile(r"https://(unpkg\.com|api\.github\.com|gitlab\.com|bitbucket\.org)/[^\"'`]*")
_SETUP = re.compile(r"^<!-- setup\n.*?^-->\n", re.MULTILINE | re.DOTALL)


def on_config(config: Any) -> Any:
    """Build the navigation from the folders."""
    config.nav = navigation(Path(config.docs_dir))
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Show the reason under each block that the tests do not run, and put in what is read from code and folders."""
    docs = Path(config.docs_dir)
    if _PAGES in markdown:
        markdown = markdown.replace(_PAGES, contents(docs, (docs / page.file.src_uri).parent))
    return filled(_NOT_RUN.sub(_with_reason, _SETUP.sub("", markdown)))


def _with_reason(block: re.Match[str]) -> str:
    """The block with the reason below it. Readers expect that tests do not install packages, so that is not said."""
    indent, reason, code = block.groups()
    if re.match(r"(it )?installs\b", reason):
        return indent + code
    return f"{indent}{code}\n\n{indent}*Not run by the tests: {reason}.*{{ .not-run }}"


def on_post_page(output: str, **_: Any) -> str:
    """Name the theme's search dialog, for screen readers."""
    dialog = 'data-md-component="search" role="dialog"'
    return output.replace(dialog, f'{dialog} aria-label="Search"')


on_post_template = on_post_page  # the page of a wrong address is a template


def on_post_build(config: Any) -> None:
    """Take the addresses out of the theme's script that it would fetch things from, in cases we do not have."""
    for script in Path(config.site_dir, "assets", "javascripts").glob("bundle.*.js"):
        text = script.read_text(encoding="utf-8")
        script.write_text(_ELSEWHERE.sub("about:blank", text), encoding="utf-8")


def navigation(docs: Path) -> list[Any]:
    """The pages as MkDocs wants them: a list of paths and of sections."""
    nav: list[Any] = [{"Home": "index.md"}]
    for title, folder, first in SECTIONS:
        pages = _section(docs, docs / folder, first)
        pages += [name for name, section in LOOSE.items() if section == title and (docs / name).is_file()]
        if pages:
            nav.append({title: pages})
    known = {"index.md", *LOOSE}
    nav += [page.name for page in sorted(docs.glob("*.md")) if page.name not in known]
    return nav


def contents(docs: Path, folder: Path) -> str:
    """A list of the folder's other pages, each with its first sentence, in the order of the navigation."""
    first = next((names for _, name, names in SECTIONS if docs / name == folder), ())
    pages = [docs / name for name in _section(docs, folder, first) if isinstance(name, str)]
    return "\n".join(_entry(page) for page in pages if page.name != "index.md")


def _entry(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    title, opening = _TITLE.search(text), _PARAGRAPH.search(text)
    sentence = re.match(r"(?s).{40,}?[.?!](?=\s|$)|.+", opening[0]) if opening else None
    said = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", sentence[0].replace("\n", " ")) if sentence else ""
    return f"- **[{title[1] if title else page.stem}]({page.name})**<br>{said}"


def _section(docs: Path, folder: Path, first: tuple[str, ...]) -> list[Any]:
    def rank(entry: Path) -> tuple[int, str]:
        if entry.name == "index.md":
            return -1, ""
        return first.index(entry.name) if entry.name in first else len(first), entry.name

    found: list[Any] = []
    for entry in sorted(folder.glob("*"), key=rank):
        if entry.is_dir():
            inner = _section(docs, entry, INNER.get(entry.name, ()))
            if inner:
                found.append({TITLES.get(entry.name, entry.name.replace("-", " ").capitalize()): inner})
        elif entry.suffix == ".md":
            found.append(entry.relative_to(docs).as_posix())
    return found
