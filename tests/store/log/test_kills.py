"""kill -9 at each request to the log; the replica stays or is lost; engines that hand a hub over while both live."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.store.log.copying import write_copy
from tests.store.log.engine_process import live, store_of
from tests.store.log.file_service import FileService
from tests.store.log.rig import contents, numbers

pytestmark = pytest.mark.timeout(3_000)
COMMITS = 9


@pytest.fixture(scope="module")
def spawning() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.store.log.engine_process"])
    return context


class Life:
    """One process, and what it said until it died."""

    def __init__(
        self, context: Any, path: Path, machine: str, at: int, first: int, commits: int, **given: int
    ):
        self._heard: list[tuple[str, int]] = []
        self._ears, mouth = context.Pipe(duplex=False)
        how = given.get("how", signal.SIGKILL)
        arguments = (str(path), machine, how, at, first, commits, mouth)
        self._process = context.Process(target=live, args=arguments)
        self._process.start()
        mouth.close()

    def await_signal(self) -> None:
        """Return when it is about to get its signal."""
        while not self._heard or self._heard[-1][0] != "signal":
            self._heard.append(self._ears.recv())

    def wake(self) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def end(self) -> list[tuple[str, int]]:
        said = [*self._heard, *self._said()]
        self._process.join(60)
        assert self._process.exitcode in (0, -signal.SIGKILL), self._process.exitcode
        self._process.close()
        self._ears.close()
        return said

    def _said(self) -> Iterator[tuple[str, int]]:
        while True:
            try:
                yield self._ears.recv()
            except EOFError:
                return


def check(path: Path, said: list[tuple[str, int]]) -> None:
    """The next engine has all that was acknowledged, and nothing that nobody tried; and so has the log."""
    store = store_of(str(path), "a", FileService(f"{path}/log.db"))
    store.open()
    found = numbers(store)
    acknowledged = {number for what, number in said if what == "has"}
    tried = {number for what, number in said if what == "tries"}
    assert acknowledged <= set(found) <= tried
    copy = path / "copy.db"
    write_copy(FileService(f"{path}/log.db"), "claims", str(copy))
    assert contents(store.location) == contents(str(copy))
    copy.unlink()
    store.close()


def requests_of_a_life(spawning: Any, path: Path) -> int:
    path.mkdir()
    said = Life(spawning, path, "a", 1_000_000, 1, COMMITS).end()
    return 1_000_000 - said[-1][1]


def test_killed_at_each_request(spawning: Any, tmp_path: Path, is_long_run: bool) -> None:
    count = requests_of_a_life(spawning, tmp_path / "whole")
    assert count > 60
    for dies_at in range(1, count + 1, 1 if is_long_run else 7):
        path = tmp_path / str(dies_at)
        path.mkdir()
        said = Life(spawning, path, "a", dies_at, 1, COMMITS).end()
        if dies_at % 2:
            shutil.rmtree(path / "a", ignore_errors=True)
        check(path, said)


def test_one_hub_through_many_kills(spawning: Any, tmp_path: Path, is_long_run: bool) -> None:
    chance = random.Random(5)
    said: list[tuple[str, int]] = []
    for life in range(1_000 if is_long_run else 12):
        if chance.random() < 0.3:
            shutil.rmtree(tmp_path / "a", ignore_errors=True)
        said += Life(spawning, tmp_path, "a", chance.randint(8, 60), life * 100 + 1, COMMITS).end()
    check(tmp_path, said)


def test_engines_that_hand_a_hub_over_under_load(spawning: Any, tmp_path: Path, is_long_run: bool) -> None:
    """Each begins while the one before still commits: it is stopped, and goes on after the takeover."""
    chance, path = random.Random(7), tmp_path
    said: list[tuple[str, int]] = []
    turns = 200 if is_long_run else 6
    for turn in range(turns):
        at, number = chance.randint(40, 150), turn * 1_000
        first = Life(spawning, path, f"m{turn % 3}", at, number + 1, 400, how=signal.SIGSTOP)
        first.await_signal()
        second = Life(spawning, path, f"m{(turn + 1) % 3}", 1_000_000, number + 501, 5)
        said += second.end()
        first.wake()
        told = first.end()
        assert [what for what, _ in told[-2:]] == ["fenced", "closed"]
        said += told
    check(path, said)
