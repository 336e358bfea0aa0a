"""Every block of code in the documentation does what its page says."""

from pathlib import Path

import pytest

from tests.docs.markdown import blocks_of, indented_code
from tests.docs.running import run_page
from tests.docs.shell import DATABASE, ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_CODE = [page for page in PAGES if blocks_of(page)]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.timeout(900)  # a page may start a server several times, on a machine that is busy
@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_what_a_page_shows_is_so(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    wants_database = any(DATABASE in block.code for block in blocks_of(page) if not block.not_run)
    run_page(page, tmp_path, *([request.getfixturevalue("newest_url")] if wants_database else []))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_is_fenced_and_says_its_language(page: Path) -> None:
    assert [block.place for block in blocks_of(page) if not block.language] == []
    assert [f"{page}:{line}" for line in indented_code(page)] == []
