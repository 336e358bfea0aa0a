"""The disk fails at every operation in turn: clients are told the truth, and the engine goes on by itself."""

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import apsw
import pytest
from msgspec import Raw

from perdure.engine.core.ports import Limits
from perdure.errors import StoreFull
from perdure.model import payload
from perdure.model.messages import Start
from perdure.model.records import InstanceFilter
from perdure.store.sqlite.connection import open_maintenance, open_writer
from perdure.store.sqlite.store import SqliteStore
from perdure.testing.clock import VirtualClock
from powercuts.checks import going_on
from powercuts.disk import Disk, Platter
from powercuts.faults import FAULTS, Trouble
from powercuts.ledger import CutLedger, Submission
from powercuts.machine import FILE, HUB, Machine
from powercuts.operations import Write
from powercuts.parallel_run import quiet
from powercuts.sweep import SIZES, sweep
from powercuts.vfs import mounted


@pytest.fixture(autouse=True)
def _quiet() -> None:
    quiet()


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=[fault.name for fault in FAULTS])
def test_a_failure_at_every_operation(number: int, is_long_run: bool) -> None:
    """Writes and reads are many: here each 43rd of them fails, in `python -m powercuts` each.

    Of the others each third fails, with `--long` each.
    """
    many = Write in FAULTS[number].kinds or FAULTS[number].name == "EIO on one read"
    stride = 43 if many else 1 if is_long_run else 3
    found = sweep(number, first=1 + number if many else 1, stride=stride)
    assert found.problems == []
    assert found.runs == found.struck > 0


def test_nothing_is_built_on_what_a_failed_sync_left_behind(tmp_path: Path) -> None:
    """Found by "EIO on syncs": the log as processes read it and as the disk has it were not the same."""
    disk = Disk()
    clock, ledger = VirtualClock(datetime(2026, 1, 1, tzinfo=UTC)), CutLedger(lambda: len(disk.log))
    with mounted(disk):
        machine = Machine(os.fspath(tmp_path), ledger, SIZES.limits, 1, clock)
        machine.open()
        trouble = Trouble(disk, next(fault for fault in FAULTS if fault.name == "EIO on syncs"), 1)
        machine.ask(_errand(1))
        machine.turn()
        assert trouble.struck and not any(ledger.acknowledged(len(disk.log)))
        trouble.mend()
        assert list(going_on(machine, list(ledger.orders))) == []
        machine.ask(_errand(2))
        assert machine.rest()
        told = {o.message.instance_id for o in ledger.acknowledged(len(disk.log))}
        cut_at = len(disk.log)
        machine.close()
    assert told == {"i1", "i2"}
    for seed in range(20):
        platter = Platter({}, seed)
        platter.take(disk.log[:cut_at])
        for name, content in platter.cut(Random(seed)).items():
            content.save(os.fspath(tmp_path / name))
        found = SqliteStore(os.fspath(tmp_path / FILE), HUB)
        found.open()
        assert {row.instance_id for row in found.query(InstanceFilter())} == told
        found.close()


@pytest.mark.parametrize("read", [1, 2, 3])
def test_a_connection_for_checkpoints_is_closed_when_it_cannot_be_made(read: int, tmp_path: Path) -> None:
    """Otherwise the garbage collector closes it later, and an error of the disk then has no caller."""
    path = os.fspath(tmp_path / FILE)
    open_writer(path).close()
    disk = Disk()
    trouble = Trouble(disk, next(fault for fault in FAULTS if fault.name == "EIO on one read"), read)
    with mounted(disk), pytest.raises(apsw.IOError) as caught:
        open_maintenance(path)
    assert trouble.struck
    assert [one for one in apsw.connections() if _is_open_at(one, path)] == []
    del caught  # the traceback has held the connection until here


def _is_open_at(connection: apsw.Connection, path: str) -> bool:
    try:
        return bool(connection.db_filename("main") == path)
    except apsw.ConnectionClosedError:
        return False


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system with room for little."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "perdure-test", os.fspath(place)]
    made = subprocess.run(mount, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"this kernel or container lets nobody mount: {made.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", os.fspath(place)], check=True)


def test_a_real_disk_fills_up_and_is_enlarged(small_disk: Path) -> None:
    clock, ledger = VirtualClock(datetime(2026, 1, 1, tzinfo=UTC)), CutLedger()
    machine = Machine(os.fspath(small_disk), ledger, Limits(), 1, clock)
    machine.open()
    for number in range(200):
        machine.ask(_errand(number))
        for _ in range(6):
            machine.step()
        if any(isinstance(order.answer, StoreFull) for order in ledger.orders):
            break
    else:
        pytest.fail("two megabytes were never full")
    asked = {order.message.instance_id for order in ledger.orders}
    accepted = [o.message.instance_id for o in ledger.orders if o.is_acknowledged]
    assert accepted and ledger.answers().keys() <= {"ok", "StoreFull", "open"}
    stored = {row.instance_id for row in machine.store.query(InstanceFilter(top=1_000))}
    assert stored == set(accepted), "reads go on, and tell of what was accepted, no more"

    machine.store.maintain(clock.now())  # a full disk is no reason to break
    subprocess.run(["mount", "-o", "remount,size=64m", os.fspath(small_disk)], check=True)
    assert list(going_on(machine, list(ledger.orders))) == []
    finished = machine.store.query(InstanceFilter(top=1_000, status=("Completed",)))
    assert {row.instance_id for row in finished} == asked
    machine.close()


def _errand(number: int) -> Submission:
    task = {"steps": 3, "size": 30_000, "pause": 0}
    operation = f"start-{number}"
    return Submission(
        Start(
            instance_id=f"i{number}",
            name="errand",
            input=Raw(payload.encode(task)),
            operation_id=operation,
        ),
        operation,
    )
