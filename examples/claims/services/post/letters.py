"""The plain text of a message, taken apart for a page: paragraphs, and lists of lines that begin with `- `."""

from collections.abc import Iterator
from itertools import groupby
from typing import Literal, NamedTuple

POINT = "- "


class Part(NamedTuple):
    kind: Literal["paragraph", "list"]
    lines: list[str]


def parts_of(text: str) -> Iterator[Part]:
    """The parts of a text, in their order."""
    for paragraph in text.split("\n\n"):
        lines = [line for line in paragraph.splitlines() if line.strip()]
        for is_list, group in groupby(lines, lambda line: line.startswith(POINT)):
            yield Part("list" if is_list else "paragraph", [line.removeprefix(POINT) for line in group])
