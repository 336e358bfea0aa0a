"""Counts of several workers: as messages, and added up over the deaths of workers."""

import asyncio
import socket

import msgspec

from perdure.engine.functions.registry import Registry
from perdure.server.child import Count, Counted, Gathered, Tether, from_child, line_of
from perdure.telemetry.merging import Place, Row, Snapshot, added, readings_of, snapshot_of
from perdure.telemetry.metrics import Metrics

ENDED = "perdure.instance.ended"
LASTS = "perdure.instance.duration"
WARM = "perdure.warm.instances"
COMPLETED = ("settle", "Completed", "")


def worker(ended: int = 0, seconds: float = 0.2, reason: str = "") -> Metrics:
    metrics = Metrics(Registry(), "memory")
    metrics.counting.ends[COMPLETED] = ended
    for _ in range(ended):
        metrics.counting.lifetimes["settle", "Completed"].add(seconds)
    if ended:
        metrics.counting.lifetimes["settle", "Completed"].keep_slowest(5, seconds, 1, 0xABC)
    if reason:
        metrics.denied[reason] = 1
    return metrics


def sent(snapshot: Snapshot) -> Snapshot:
    """As it arrives in another process."""
    return msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot)


def snapshot(ended: int = 0, reason: str = "") -> Snapshot:
    return sent(snapshot_of(worker(ended, reason=reason).read()))


def value(found: Snapshot, name: str, labels: tuple[str, ...]) -> float:
    (row,) = [row for row in found[name] if row.labels == labels]
    return row.value


def test_readings_are_the_same_after_the_journey():
    before = {reading.metric.name: reading.series for reading in worker(3).read()}
    after = {reading.metric.name: reading.series for reading in readings_of(snapshot(3))}

    assert after.keys() == before.keys()
    assert after[ENDED] == before[ENDED] == {COMPLETED: 3}
    there, here = after[LASTS]["settle", "Completed"], before[LASTS]["settle", "Completed"]
    assert (there.counts, there.total, there.slowest) == (here.counts, here.total, here.slowest)
    assert there.bounds == here.bounds


def test_counters_and_buckets_add_up_and_series_of_either_are_kept():
    found = added(snapshot(2, reason="forbidden"), snapshot(3))

    assert value(found, ENDED, COMPLETED) == 5
    assert sum(found[LASTS][0].counts) == 5
    assert value(found, "perdure.http.denied", ("forbidden",)) == 1


def test_a_place_keeps_what_its_dead_workers_counted():
    place = Place(last=snapshot(2))
    place.ended()
    assert value(place.total, ENDED, COMPLETED) == 2
    place.last = snapshot(0)
    assert value(place.total, ENDED, COMPLETED) == 2
    place.last = snapshot(4)
    assert value(place.total, ENDED, COMPLETED) == 6
    place.ended()
    place.ended()
    assert value(place.total, ENDED, COMPLETED) == 6


def test_gauges_are_those_of_the_living():
    place = Place(last={**snapshot(1), WARM: [Row((), 3.0)]})
    assert value(place.total, WARM, ()) == 3
    place.ended()
    assert WARM not in place.total
    place.last = {WARM: [Row((), 1.0)]}
    assert value(place.total, WARM, ()) == 1


def test_metrics_of_another_version_are_left_out():
    odd = {**snapshot(1), "perdure.of.tomorrow": [*snapshot(1)[ENDED]]}

    assert "perdure.of.tomorrow" not in {reading.metric.name for reading in readings_of(odd)}
    assert "perdure.of.tomorrow" not in added(odd, snapshot(1))


async def test_a_child_answers_its_supervisor_asks_it_and_ignores_what_it_does_not_understand():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    tether, metrics = Tether(1, None, theirs), worker(2)
    tether.listen(stopped.set)
    tether.serve(metrics)
    heard = b""

    async def message() -> object:
        nonlocal heard
        while b"\n" not in heard:
            heard += await loop.sock_recv(ours, 65_536)
        line, _, heard = heard.partition(b"\n")
        return from_child.decode(line)

    await loop.sock_sendall(ours, b'{"type":"of tomorrow"}\n' + line_of(Count(7)))
    answer = await message()
    assert isinstance(answer, Counted)
    assert answer.number == 7
    assert value(answer.snapshot, ENDED, COMPLETED) == 2

    asking = asyncio.create_task(metrics.gather())
    question = await message()
    await loop.sock_sendall(
        ours, line_of(Gathered(question.number, {"host/1": snapshot(2), "host/2": snapshot(3)}))
    )
    assert [name for name, _ in await asking] == ["host/1", "host/2"]

    ours.close()
    await stopped.wait()
    theirs.close()
