"""The list of people's tasks in a large hub: `python -m benchmarks.tasks [--store URL]`.

A hub with a million instances, of which every tenth waits for a person. The first page of fifty tasks, of all, of one
role, of one person, of those due before a time, of people and roles without tasks, and a page in the middle. CPU time
of this thread; on PostgreSQL, whose work is in another process, the elapsed time. The least and the median of many
rounds. The goal is 20 ms for the first page.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report import table
from perdure.engine.client.tasks import OpenTask, _task
from perdure.model.human_tasks import HumanTaskDetails, TaskRecord, encode_task, role_text
from perdure.model.records import Batch, InstanceRow, TaskFilter, WaitRow, due_key
from perdure.store import open_store

GOAL = 20.0  # ms
ROLES = ("adjuster", "supervisor", "auditor")
AT_ONCE = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tasks", description=__doc__)
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--store", default="", help="an empty database. Default: a new SQLite file")
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = given.store or f"sqlite:///{Path(folder) / 'tasks.db'}"
        store = open_store(url, "tasks")
        first = store.open().next_instance_no
        for batch in _batches(first, given.instances):
            store.commit(batch)
        try:
            print(
                table(
                    ["page", "least", "median", "unit"],
                    list(_measured(store, given.instances, given.rounds, is_remote=bool(given.store))),
                )
            )
        finally:
            store.close()


def _batches(first: int, instances: int) -> Iterator[Batch]:
    record = {role: encode_task(TaskRecord(HumanTaskDetails(title="Pay?", roles=(role,)))) for role in ROLES}
    for start in range(0, instances, AT_ONCE):
        batch = Batch(1)
        for number in range(start, min(start + AT_ONCE, instances)):
            no, waits = first + number, number % 10 == 0
            batch.new_instances.append(_instance(no, waits=waits))
            if waits:
                role = ROLES[0] if number % 1_000 else ROLES[number // 1_000 % 3]
                wait = WaitRow(no, 0, "Decide", 1, 10**15 + (number * 7_919) % 10**9, None, record[role])
                person = f"p{number // 10 % 500}@example.org"
                batch.waits_opened.append(wait._replace(roles=role_text((role,)), assignee=person))
        yield batch


def _instance(no: int, *, waits: bool) -> InstanceRow:
    known = {
        "instance_no": no,
        "instance_id": f"claim-{no}",
        "partition": 0,
        "kind": "orchestration",
        "name": "review",
        "version": "",
        "status": "Running" if waits else "Completed",
        "reason": "",
        "execution_no": 1,
        "episodes": 1,
        "created_at": 1,
        "updated_at": 1,
        "completed_at": None if waits else 2,
        "due_at": None,
        "local_work": 0,
        "parent_id": None,
        "parent_execution": None,
        "parent_task": None,
        "tags": None,
        "salt": b"s" * 16,
        "head": b"h" * 16,
    }
    return InstanceRow(**known)  # type: ignore[arg-type]


def _measured(store: Any, instances: int, rounds: int, *, is_remote: bool) -> Iterator[list[str]]:
    middle = due_key(store.tasks(TaskFilter(top=max(1, instances // 20)))[-1].wait)
    pages = {
        "first, of all": TaskFilter(top=50),
        "first, of the common role": TaskFilter(top=50, role=ROLES[0]),
        "first, of a rare role": TaskFilter(top=50, role=ROLES[1]),
        "first, of one person": TaskFilter(top=50, person="p7@example.org"),
        "first, of a person without tasks": TaskFilter(top=50, person="none@example.org"),
        "first, of a role without tasks": TaskFilter(top=50, role="none"),
        "first, due before a time": TaskFilter(top=50, role=ROLES[0], due_before=10**15 + 10**8),
        "in the middle": TaskFilter(top=50, after=middle),
    }
    for name, wanted in pages.items():
        found = store.tasks(wanted)
        clock = time.perf_counter if is_remote else time.thread_time
        times = _times(rounds, clock, partial(_page, store, wanted))
        least, middling = min(times), median(times)
        yield [f"{name} ({len(found)} tasks)", f"{least:.1f}", f"{middling:.1f}", f"ms (goal: {GOAL:.0f})"]


def _page(store: Any, wanted: TaskFilter) -> list[OpenTask]:
    return [_task(row) for row in store.tasks(wanted)]


def _times(rounds: int, clock: Callable[[], float], work: Callable[[], Any]) -> list[float]:
    found = []
    for _ in range(rounds):
        began = clock()
        work()
        found.append((clock() - began) * 1e3)
    return found


if __name__ == "__main__":
    main()
