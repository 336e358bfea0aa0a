"""The code blocks of a Markdown page, and what its author says about them.

A fence names its language. `title="file.py"` says that the block is a file: it is written to the page's folder.
Three comments speak to the tests: `<!-- not run: the reason -->` before a block that cannot run (the site shows the
reason under the block); `<!-- setup` ... `-->`, Python that runs and is not shown; and `<!-- files of: page.md -->`,
which puts the files that an earlier page made into the folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,})\s*(?P<language>[\w+-]*)(?P<info>.*)$")
_TITLE = re.compile(r'title="([^"]+)"')
_NOT_RUN = re.compile(r"^\s*<!-- not run: (?P<reason>.+?) -->\s*$")
_FILES = re.compile(r"^<!-- files of: (\S+) -->$", re.MULTILINE)
_SETUP = re.compile(r"^<!-- setup$")
_LIST = re.compile(r"^\s*([-*+]|\d+[.)]|!!!|\?\?\?|===|:)\s")


@dataclass(frozen=True)
class Block:
    """One block of code. `line` is that of its first line of code, counted from 1."""

    page: Path
    line: int
    language: str
    code: str
    title: str = ""
    not_run: str = ""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page and its hidden setup, in order. Raises ValueError for a fence left open."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found: list[Block] = []
    at, reason = 0, ""
    while at < len(lines):
        line = lines[at]
        marked = _NOT_RUN.match(line)
        fence = _FENCE.match(line)
        if _SETUP.match(line):
            end = _closing(lines, at, lambda text: text.strip() == "-->", page)
            found.append(Block(page, at + 2, "python", "\n".join(lines[at + 1 : end])))
            at = end
        elif fence:
            ticks = fence["ticks"]
            end = _closing(lines, at, lambda text, ticks=ticks: text.strip() == ticks, page)
            code = "\n".join(text.removeprefix(fence["indent"]) for text in lines[at + 1 : end])
            title = _TITLE.search(fence["info"])
            language = fence["language"].lower()
            found.append(Block(page, at + 2, language, code, title[1] if title else "", reason))
            at, reason = end, ""
        elif marked:
            reason = marked["reason"]
        elif line.strip():
            reason = ""
        at += 1
    return found


def earlier_files(page: Path) -> list[Block]:
    """The files that a page needs from the pages it goes on from."""
    pages = [page.parent / name for name in _FILES.findall(page.read_text(encoding="utf-8"))]
    return [block for earlier in pages for block in blocks_of(earlier) if block.title]


def indented_code(page: Path) -> list[int]:
    """The lines where code begins that is only indented: it has no language, so nobody knows what it is."""
    found: list[int] = []
    inside, ticks, listed, before = False, "", False, ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if inside:
            inside = line.strip() != ticks
        elif fence:
            inside, ticks = True, fence["ticks"]
        elif line.strip():
            if not line.startswith(" "):
                listed = bool(_LIST.match(line))
            elif line.startswith("    ") and not before.strip() and not listed:
                found.append(number)
        before = line
    return found


def _closing(lines: list[str], opening: int, closes, page: Path) -> int:
    for at in range(opening + 1, len(lines)):
        if closes(lines[at]):
            return at
    raise ValueError(f"{page}:{opening + 1}: what is opened here is never closed")
