"""The security page names the test that holds each line of the threat model: those tests are there."""

import re

from tests.docs.shell import ROOT

PAGE = ROOT / "docs" / "reference" / "security.md"
ATTACKERS = (
    "A caller with nothing",
    "A holder of a link",
    "A person",
    "A reader",
    "An operator",
    "Another user of the machine",
    "A malicious page",
    "A damaged disk",
)


def test_every_test_that_the_page_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)`", PAGE.read_text())
    assert len(set(named)) > 12
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_every_attacker_has_a_line_that_says_what_it_can_and_what_holds_that() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| **")]
    assert len(lines) == len(ATTACKERS)
    for attacker, line in zip(ATTACKERS, lines, strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0].startswith(f"**{attacker}"), line
        assert len(cells) == 4 and all(cells)
        assert "`tests/" in cells[3]
