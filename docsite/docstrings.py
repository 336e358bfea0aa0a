"""Lays out the sections of our docstrings: `Parameters:` becomes a list, `Raises` a paragraph with a bold head.

Griffe's own styles want one `Name: text` pair a line and drop what they cannot read. Ours are sentences.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_HEAD = re.compile(r"^(Parameters|Attributes|Returns|Raises|Yields):?\s*(.*)$")
_ITEM = re.compile(r"^( *)([\w*, ]+?): (.*)$")


class LayOut(griffe.Extension):
    """Rewrites each docstring once it is loaded."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if not obj.is_alias and obj.docstring is not None:
            obj.docstring.value = laid_out(obj.docstring.value)


def laid_out(docstring: str) -> str:
    """A docstring as Markdown."""
    out: list[str] = []
    lines = docstring.expandtabs().splitlines()
    at = 0
    while at < len(lines):
        head = _HEAD.match(lines[at])
        if head is None:
            out.append(lines[at])
            at += 1
            continue
        at += 1
        body = [head[2]] if head[2] else []
        while at < len(lines) and (
            lines[at].startswith("    ") or not lines[at].strip() or _goes_on(head, body, lines[at])
        ):
            if not lines[at].strip() and not (at + 1 < len(lines) and lines[at + 1].startswith("    ")):
                break
            body.append(lines[at])
            at += 1
        out += ["", *_section(head[1], body), ""]
    return "\n".join(out)


def _goes_on(head: re.Match[str], body: list[str], line: str) -> bool:
    """`Raises InstanceFinished, EventRefused` may go on in the next line, without indentation."""
    return bool(head[2]) and bool(line.strip()) and _HEAD.match(line) is None and bool(body)


def _section(title: str, body: list[str]) -> list[str]:
    if title not in ("Parameters", "Attributes"):
        return [f"**{title}** " + " ".join(line.strip() for line in body if line.strip())]
    items: list[list[str]] = []
    for line in body:
        item = _ITEM.match(line)
        if item and len(item[1]) <= 4:
            names = ", ".join(f"`{name.strip()}`" for name in item[2].split(","))
            items.append([f"{names}: {item[3]}"])
        elif items and line.strip():
            items[-1].append(line.strip())
    return [f"**{title}**", "", *(f"- {' '.join(item)}" for item in items)]
