"""What becomes of speed when a million instances are stored: disk, restart, W1, W2, lists and counts.

Two files: one of instances that all wait for an event (the claims office), one of finished hello workflows (the
archive). The first of each is run by the engine; the others are its rows again, each with an id, a salt and a
hash chain of its own, written through the store: that takes a minute or two instead of ten.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from pathlib import Path

from benchmarks.machine import wait_until_quiet
from benchmarks.process import KINDS, MeasuredProcess, running
from benchmarks.report import table
from benchmarks.workloads import Row, Sizes, hello_many, hello_single
from perdure.model import hash_chain
from perdure.model.instances import PARTITIONS, partition_of
from perdure.model.records import Batch, HistoryRow, StoredInstance
from perdure.model.ring import base_of
from perdure.store.sqlite.store import SqliteStore

HUB = "bench"
AT_ONCE = 2_000  # instances a commit
PERDURE = KINDS["perdure"]
COLUMNS = (
    ("built s", "build_seconds"),
    ("bytes each", "bytes_each"),
    ("open s", "open_seconds"),
    ("restart s", "process_seconds"),
    ("memory MB", "memory_mb"),
    ("W1 per s", "W1"),
    ("W2 p50 ms", "W2"),
)


def measure(count: int, sizes: Sizes, folder: Path) -> list[Row]:
    """A row for an empty file, and one for each of the two full ones."""
    rows = [_measured("empty", 0, sizes, folder / "stored")]
    for what in ("waiting", "finished"):
        place = folder / "stored"
        begun = time.perf_counter()
        build(what, count, place)
        took = time.perf_counter() - begun
        print(f"{count:,} {what} instances stored in {took:.0f} s", flush=True)
        rows.append({**_measured(what, count, sizes, place), "build_seconds": round(took, 1)})
        shutil.rmtree(place)
    return rows


def build(what: str, count: int, folder: Path) -> None:
    """A file in this folder with so many instances."""
    original = _original(what, folder)
    store = SqliteStore(str(folder / "bench.db"), HUB)
    opening = store.open()
    try:
        first = opening.next_instance_no
        for begin in range(first, first + count - 1, AT_ONCE):
            store.commit(copies(original, range(begin, min(begin + AT_ONCE, first + count - 1))))
            store.maintain(original.row.created_at)
        counted = base_of({original.row.status: count}, {})
        store.commit(Batch(original.row.created_at, ring=[counted]))
    finally:
        store.close()


def _original(what: str, folder: Path) -> StoredInstance:
    """The one that the engine has run."""
    with running(PERDURE, folder) as engine:
        if what == "waiting":
            engine.ask("start_waiting", prefix="idle", count=1)
        else:
            engine.ask("hello", prefix="h", count=1, together=1)
    store = SqliteStore(str(folder / "bench.db"), HUB)
    store.open()
    try:
        found = store.history_of(1, 1)
        assert found is not None
        found.waits = list(store.waits([1]))
    finally:
        store.close()
    return found


def copies(original: StoredInstance, numbers: range) -> Batch:
    """So many rows of what the original has, each an instance of its own."""
    batch = Batch(original.row.created_at)
    for no in numbers:
        salt = secrets.token_bytes(16)
        head = hash_chain.base_of(salt, 1)
        for row in original.history:
            digest = hash_chain.digest_of(salt, row.events)
            head = hash_chain.link(head, 1, row.episode, row.at, digest)
            batch.history.append(HistoryRow(no, 1, row.episode, row.at, row.events, digest, head))
        instance_id = secrets.token_hex(16)
        batch.new_instances.append(
            original.row._replace(
                instance_no=no,
                instance_id=instance_id,
                partition=partition_of(instance_id, PARTITIONS),
                salt=salt,
                head=head,
            )
        )
        batch.waits_opened.extend(wait._replace(instance_no=no) for wait in original.waits)
    return batch


def _measured(what: str, count: int, sizes: Sizes, folder: Path) -> Row:
    if count:
        _forget_pages(folder)
    bytes_stored = sum(file.stat().st_size for file in folder.glob("bench.db*")) if count else 0
    wait_until_quiet((), sizes.patience)
    with running(PERDURE, folder, keep=bool(count)) as engine:
        first = engine.ask("hello", prefix="first", count=1, together=1)["seconds"]
        row: Row = {
            "stored": what,
            "count": count,
            "bytes_each": round(bytes_stored / count) if count else None,
            "open_seconds": round(engine.about["open_seconds"], 3),
            "process_seconds": round(engine.ready_seconds + first, 3),
            "memory_mb": round(engine.memory / 1024, 1),
            **asked(engine, sizes),
        }
    return row


def asked(engine: MeasuredProcess, sizes: Sizes) -> Row:
    """How fast it is, and how long questions take."""
    engine.ask("hello", prefix="warm", count=30, together=10)
    return {
        "W1": hello_many(engine, sizes, "many")["per_s"],
        "W2": hello_single(engine, sizes, "single")["p50_ms"],
        "questions": engine.ask("ask", patience=900)["questions"],
    }


def _forget_pages(folder: Path) -> None:
    """Have the kernel drop what it keeps of the file in memory: a restart begins with a cold cache."""
    for file in folder.glob("bench.db*"):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def tables(rows: list[Row]) -> str:
    """One table of figures, one of questions (median, and the first time in brackets)."""
    figures = [
        [f"{row['count']:,} {row['stored']}", *(_cell(row.get(key)) for _, key in COLUMNS)] for row in rows
    ]
    return "\n\n".join([table(["stored", *(title for title, _ in COLUMNS)], figures), question_table(rows)])


def question_table(rows: list[Row]) -> str:
    """Milliseconds of each question."""
    questions = [
        [
            name,
            *(
                f"{row['questions'][name]['median_ms']} ({row['questions'][name]['first_ms']})"
                for row in rows
            ),
        ]
        for name in rows[0]["questions"]
    ]
    return table(["ms (the first time)", *(row["stored"] for row in rows)], questions)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"
