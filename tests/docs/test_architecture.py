"""ARCHITECTURE.md shows the table of statuses and verbs as the code has it, and names files that exist."""

import re

import pytest

from perdure.model.instances import RuntimeStatus
from perdure.replay.state import ENDED_AS, LEGAL
from tests.docs.shell import ROOT

TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
BEGUN = {
    RuntimeStatus.Pending: "accepted, has not begun",
    RuntimeStatus.Running: "`ExecutionStarted`",
    RuntimeStatus.Suspended: "`ExecutionSuspended`, `ExecutionParked`",
    RuntimeStatus.Canceled: "kept for Azure's names; the engine never sets it",
}
"""What leads to the statuses that are not the end of an execution."""


def table() -> list[str]:
    """The table as Markdown, a row for each status and a column for each verb."""
    ends = {status: f"`{event.__name__}`" for event, status in ENDED_AS.items()}
    rows = [
        f"| `{status}` | {ends.get(status) or BEGUN[status]} | "
        + " | ".join("yes" if status in legal else "" for legal in LEGAL.values())
        + " |"
        for status in RuntimeStatus
    ]
    verbs = " | ".join(f"`{verb}`" for verb in LEGAL)
    return [f"| status | reached by | {verbs} |", "|---|---" + "|:-:" * len(LEGAL) + "|", *rows]


def test_the_table_of_statuses_and_verbs_is_the_one_in_the_code() -> None:
    lines = TEXT.splitlines()
    start = lines.index(table()[0])
    assert lines[start : start + len(table())] == table()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:[a-z_]+/)+(?:[\w.]+\.(?:py|md))?)`", TEXT))))
def test_each_path_that_is_named_exists(path: str) -> None:
    assert any((base / path).exists() for base in (ROOT, ROOT / "src" / "perdure"))


def test_each_decision_says_problem_choice_place_and_test() -> None:
    decisions = TEXT.partition("## Decisions")[2].partition("## Surprises")[0].split("\n### ")[1:]
    assert decisions
    for decision in decisions:
        assert re.findall(r"^- \*\*(\w+):\*\*", decision, re.MULTILINE) == [
            "Problem",
            "Choice",
            "Where",
            "Test",
        ]
