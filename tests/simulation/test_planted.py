"""The planted bugs still fit the code: one that no longer applies shows nothing."""

import shutil
from pathlib import Path

import pytest

from simulation.planted.__main__ import HERE, ROOT, apply


@pytest.mark.parametrize("patch", sorted(HERE.glob("*.patch")), ids=lambda patch: patch.stem)
def test_the_patch_still_applies(patch: Path, tmp_path: Path) -> None:
    touched = [line[6:] for line in patch.read_text().splitlines() if line.startswith("+++ b/")]
    for name in touched:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)

    assert touched and apply(patch, tmp_path) == ""
    assert all((tmp_path / name).read_text() != (ROOT / name).read_text() for name in touched)
