"""Whose code killed a process is remembered by the machine, whichever worker runs it next."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
    living = StrikeFile(tmp_path / "living.running")
    living.enter("busy")
    other = StrikeFile(tmp_path / "other.running")
    assert other.inherit() == []
    assert other.strikes == {}
    living.rename(tmp_path / "renamed.running")
    assert other.inherit() == []
    living.rename(tmp_path / "nowhere" / "living.running")
    living.rename(tmp_path / "living.running")
    assert sorted(os.listdir(tmp_path)) == ["living.running", "other.running"]
    living.close(for_good=True)
    other.close(for_good=True)
    assert os.listdir(tmp_path) == []
