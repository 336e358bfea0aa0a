"""README's links work where the file is shown outside the repository, as on PyPI, and lead to files that exist."""

import re

import pytest

from tests.docs.shell import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PLACES = (
    "https://github.com/perdure/perdure/blob/main/",
    "https://raw.githubusercontent.com/perdure/perdure/main/",
)
"""Where the repository's files are read by their path."""
LINKS = re.findall(r"\]\(([^)\s]+)\)", TEXT) + re.findall(r'(?:src|srcset|href)="([^"]+)"', TEXT)


@pytest.mark.parametrize("link", sorted(set(LINKS)))
def test_a_link_is_absolute_and_its_file_exists(link: str) -> None:
    if link.startswith("#"):
        assert f"\n## {link[1:].replace('-', ' ').capitalize()}\n" in TEXT
        return
    place = next((place for place in PLACES if link.startswith(place)), None)
    assert place, "neither in the repository nor within the page"
    assert (ROOT / link.removeprefix(place)).is_file()


def test_each_picture_is_small_and_there_for_both_colour_schemes() -> None:
    pictures = [link.rpartition("/")[2] for link in LINKS if link.endswith(".png")]
    assert sorted(pictures) == [
        f"{name}-{scheme}.png"
        for name in ("instance", "office", "overview-desktop")
        for scheme in ("dark", "light")
    ]
    assert all((ROOT / "docs" / "assets" / name).stat().st_size < 150_000 for name in pictures)
