"""The power is cut under the real engine: what was acknowledged is there afterwards. See powercuts/disk.py."""

import os
from pathlib import Path
from random import Random

import pytest

from perdure.store.sqlite.store import SqliteStore
from powercuts.content import Content
from powercuts.disk import Disk, Platter
from powercuts.operations import FailedSync, LinkFile, Sync, SyncNames, Truncate, UnlinkFile, Write
from powercuts.parallel_run import cut_many, figures, quiet
from powercuts.vfs import mounted


@pytest.fixture(autouse=True)
def _quiet() -> None:
    quiet()


def _found(*operations: object, under_way: object = None) -> list[dict[str, bytes]]:
    """What may be found after these operations, over many chances."""
    platter = Platter({})
    platter.take(operations)  # type: ignore[arg-type]
    images = [platter.cut(Random(n), under_way) for n in range(200)]  # type: ignore[arg-type]
    return [{name: content.bytes() for name, content in image.items()} for image in images]


def test_nothing_acknowledged_is_lost_in_any_cut() -> None:
    tally = cut_many(300, seed=1)
    assert tally.problems == []
    assert tally.cuts == 300 and tally.commits > 100 and tally.acknowledged > 100
    assert {"opening", "working", "checkpoint", "closing"} <= tally.phases.keys()
    assert tally.generations.keys() == {1, 2, 3}
    assert figures(tally, 1)["lost_commits"] == 0


def test_at_normal_the_same_test_finds_losses() -> None:
    tally = cut_many(60, seed=1, careless=True)
    assert tally.cuts_with_loss >= 5 and tally.lost_commits > 20 and tally.lost_orders > 20
    assert tally.corruptions == 0


def test_on_a_lying_disk_it_finds_corruption_too() -> None:
    tally = cut_many(60, seed=1, lies=True)
    assert tally.cuts_with_loss and tally.corruptions


# -------------------------------------------------------------------------------------------- the disk itself


def test_what_was_synced_is_there() -> None:
    found = _found(LinkFile("a", 0), Write(0, 0, b"x" * 600), Sync(0), SyncNames())
    assert all(image == {"a": b"x" * 600} for image in found)


def test_a_name_is_certain_only_when_the_directory_is_synced() -> None:
    found = _found(LinkFile("a", 0), Write(0, 0, b"x"), Sync(0))
    assert {frozenset(image) for image in found} == {frozenset(), frozenset("a")}
    back = _found(LinkFile("a", 0), SyncNames(), Write(0, 0, b"x"), Sync(0), UnlinkFile("a"))
    assert [image.get("a") for image in back if image] == [b"x"] * sum(map(bool, back))
    assert {bool(image) for image in back} == {True, False}


def test_writes_are_lost_kept_reordered_and_torn() -> None:
    old, new, newest = b"a" * 1024, b"b" * 1024, b"c" * 1024
    made = LinkFile("f", 0), SyncNames(), Write(0, 0, old), Sync(0)
    found = {image["f"] for image in _found(*made, Write(0, 0, new), Write(0, 0, newest))}
    assert {old, new, newest} <= found
    assert old[:512] + new[512:] in found and newest[:512] + old[512:] in found
    assert all({image[:512], image[512:]} <= {b"a" * 512, b"b" * 512, b"c" * 512} for image in found)


def test_a_write_under_way_may_be_there_or_not() -> None:
    made = LinkFile("f", 0), SyncNames(), Write(0, 0, b"a"), Sync(0)
    assert {image["f"] for image in _found(*made, under_way=Write(0, 0, b"b"))} == {b"a", b"b"}


def test_a_truncation_may_be_lost_and_a_grown_file_may_hold_garbage() -> None:
    made = LinkFile("f", 0), SyncNames(), Write(0, 0, b"a" * 512), Sync(0)
    assert {len(image["f"]) for image in _found(*made, Truncate(0, 10))} == {10, 512}
    grown = {image["f"] for image in _found(*made, Write(0, 512, b"b" * 1024))}
    tails = {image[512:] for image in grown}
    assert {b"", b"b" * 1024, bytes(1024)} <= tails
    assert any(set(tail) - set(b"\0b") for tail in tails)
    assert all(image[:512] == b"a" * 512 for image in grown)


def test_after_a_failed_sync_a_later_one_makes_nothing_certain() -> None:
    operations = LinkFile("f", 0), SyncNames(), Write(0, 0, b"x"), FailedSync(0), Write(0, 1, b"y"), Sync(0)
    images = []
    for seed in range(40):
        platter = Platter({}, seed)
        platter.take(operations)
        images.append(platter.cut(Random(1))["f"].bytes())
    assert {b"xy", b"\0y"} == set(images)


def test_zeros_take_no_room() -> None:
    content = Content()
    content.write(0, b"x")
    content.write(4_096, bytes(65_536))
    assert (len(content.data), content.size) == (1, 69_632)
    content.write(5_000, b"y")
    assert content.bytes()[:5_001] == b"x" + bytes(4_999) + b"y"


def test_a_disk_that_is_told_of_a_name_twice_has_one_file() -> None:
    disk = Disk({"a": Content(b"x")})
    assert disk.file("a") == 0 and disk.file("b") == 1 and disk.file("b") == 1
    assert disk.log == [LinkFile("b", 1)]


# ------------------------------------------------------------------------------------ what the cuts have found


def test_a_cut_while_the_file_is_created_leaves_one_that_can_be_opened(tmp_path: Path) -> None:
    """A journal is to be played back; a connection that may only read cannot do that (seed 4, cut 13)."""
    (tmp_path / "first").mkdir()
    disk = Disk()
    with mounted(disk):
        maker = SqliteStore(os.fspath(tmp_path / "first" / "hub.db"), "h")
        maker.open()
        maker.close()
    platter, chance = Platter({}), Random(1)
    for at, under_way in enumerate(disk.log[:40]):
        for fate in range(2):
            place = tmp_path / f"{at}-{fate}"
            place.mkdir()
            for name, content in platter.cut(chance, under_way).items():
                content.save(os.fspath(place / name))
            store = SqliteStore(os.fspath(place / "hub.db"), "h")
            assert store.open().next_instance_no == 1
            store.close()
        platter.take([under_way])
