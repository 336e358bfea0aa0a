"""The sheet's colours: text is readable on every surface, and the edges of controls are visible, in light and dark.

The ratios are those of WCAG 2, computed from the tokens in the sheet itself.
"""

import re
from pathlib import Path

import pytest

from perdure import http

SHEET = (Path(http.__file__).parent / "static" / "perdure.css").read_text()
SURFACES = ("paper", "card", "shade")
WASHES = ("waiting", "bad")
TEXTS = ("ink", "soft", "accent", "running", "pending", "suspended", "completed", "failed", "terminated")
THEMES = ("light", "dark")


def tokens() -> dict[str, tuple[str, str]]:
    """The colours of the first block by name, for light and for dark."""
    block = SHEET[SHEET.index(":root {") : SHEET.index("}", SHEET.index(":root {"))]
    found = {}
    for name, value in re.findall(r"--([\w-]+): ([^;]+);", block):
        given = re.findall(r"#[0-9a-f]{6}\b", value)
        if given:
            found[name] = (given[0], given[-1])
    return found


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_ratio_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


def test_every_colour_of_text_is_checked() -> None:
    used = set(re.findall(r"(?<![\w-])color: var\(--([\w-]+)\)", SHEET))
    assert used <= {*TEXTS, "on-accent", "line"}, "a colour of text that the table does not name"
    assert {*TEXTS, *SURFACES, *WASHES, "on-accent", "edge"} <= set(tokens())


@pytest.mark.parametrize("theme", range(2), ids=THEMES)
def test_text_is_readable_on_every_surface_and_wash(theme: int) -> None:
    colours = {name: pair[theme] for name, pair in tokens().items()}
    pairs = [(text, ground) for text in TEXTS for ground in (*SURFACES, *WASHES)] + [("on-accent", "accent")]
    weak = {
        f"{text} on {ground}": round(ratio, 2)
        for text, ground in pairs
        if (ratio := contrast(colours[text], colours[ground])) < 4.5
    }
    assert weak == {}


@pytest.mark.parametrize("theme", range(2), ids=THEMES)
def test_the_edges_of_controls_are_visible(theme: int) -> None:
    colours = {name: pair[theme] for name, pair in tokens().items()}
    weak = {
        ground: round(ratio, 2)
        for ground in SURFACES
        if (ratio := contrast(colours["edge"], colours[ground])) < 3
    }
    assert weak == {}


@pytest.mark.parametrize("control", ["input:not(", "button {", ".decide .option {", ".button {"])
def test_controls_have_the_edge_that_is_visible(control: str) -> None:
    [rule] = re.findall(rf"^{re.escape(control)}[^\n]*", SHEET, re.MULTILINE)
    assert "border: 1px solid var(--edge)" in rule
