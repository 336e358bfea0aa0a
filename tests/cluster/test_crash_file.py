"""Whose code killed a process is remembered by the machine, whichever worker runs it next."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from perdure.engine.upkeep import crash_file
from perdure.engine.upkeep.crash_file import StrikeFile

DYING = """
import os, sys
from perdure.engine.upkeep.crash_file import StrikeFile
record = StrikeFile(sys.argv[1])
record.inherit()
record.enter(sys.argv[2])
os._exit(9)
"""


def die(path: Path, instance_id: str) -> None:
    ended = subprocess.run([sys.executable, "-c", DYING, str(path), instance_id], check=False)
    assert ended.returncode == 9


def test_strikes_of_dead_workers_add_up_and_three_park(tmp_path: Path) -> None:
    for number in range(3):
        die(tmp_path / f"{number}.running", "poison")
    die(tmp_path / "x.running", "innocent")
    mine = StrikeFile(tmp_path / "mine.running")
    assert mine.inherit() == ["x.running"]  # which had inherited the others
    assert mine.suspects() == ["poison"]
    assert mine.strikes == {"poison": 3, "innocent": 1}
    assert os.listdir(tmp_path) == ["mine.running"]
    mine.close(for_good=True)
    assert os.listdir(tmp_path) == ["mine.running"]  # it has something to tell


def test_a_living_worker_is_not_blamed(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    living = StrikeFile(folder / "living.running")
    living.enter("busy")
    other = StrikeFile(folder / "other.running")
    assert other.inherit() == []
    assert other.strikes == {}
    living.rename(folder / "renamed.running")
    assert other.inherit() == []
    living.rename(folder / "nowhere" / "living.running")
    living.rename(folder / "living.running")
    assert sorted(os.listdir(folder)) == ["living.running", "other.running"]
    living.close(for_good=True)
    assert os.listdir(folder) == ["other.running"]
    other.close(for_good=True)
    assert os.listdir(tmp_path) == [], "the last worker removes the folder"


def test_a_worker_starts_while_another_removes_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(tmp_path))
    made = crash_file.folder_of

    def removed_at_once(place: str) -> Path:
        monkeypatch.setattr(crash_file, "folder_of", made)
        folder = made(place)
        folder.rmdir()
        return folder

    monkeypatch.setattr(crash_file, "folder_of", removed_at_once)
    mine = crash_file.shared_file("a hub", "mine.running")
    assert mine.path.parent == made("a hub") and mine.path.exists()
    mine.close(for_good=True)
    assert not mine.path.parent.exists()
