"""An exporter's memory of executions: it may lack episodes, and never makes a span twice."""

import pytest

from perdure.engine.core.instance import Instance
from perdure.engine.core.tracing import Recorded, TracedEpisode
from perdure.telemetry.reading import Readers
from perdure.telemetry.spans import Span, spans_of
from perdure.testing import HistoryBuilder
from tests.telemetry.test_spans import subject

HISTORY = (
    HistoryBuilder("claims")
    .started()
    .scheduled("a")
    .later(1)
    .completed(0)
    .scheduled("b")
    .later(1)
    .completed(1)
    .scheduled("c")
    .later(1)
    .completed(2)
    .returned()
    .episodes
)
WHOLE = spans_of(subject(), HISTORY)


def instance(number: int = 1) -> Instance:
    return Instance(
        no=number,
        instance_id="claim-1",
        partition=0,
        name="claims",
        version="",
        salt=bytes.fromhex("0a1b2c3d"),
        created_at=0,
        parent=None,
        tags=None,
    )


def part(number: int, *, before: Recorded | None = None, of: str = "0a1b2c3d-1") -> TracedEpisode:
    at, events = HISTORY[number]
    return TracedEpisode(instance(), of, "", number, at, events, before)


def readers(most: int = 10) -> tuple[Readers, list[str]]:
    asked: list[str] = []

    def history(_: int, execution_id: str) -> Recorded:
        asked.append(execution_id)
        return HISTORY

    return Readers("main", history, most=most), asked


def bare(spans: list[Span]) -> list[tuple[int, str, int, int | None]]:
    return [(span.span_id, span.name, span.start, span.end) for span in spans]


def test_episode_by_episode_nothing_is_read():
    found, asked = readers()

    spans = [span for number in range(4) for span in found.ended_by(part(number))]

    assert bare(spans) == bare(WHOLE)
    assert asked == []


@pytest.mark.parametrize("before", [None, HISTORY])
def test_an_execution_that_is_not_known_is_read_without_exporting_it_again(before):
    found, asked = readers()

    spans = [*found.ended_by(part(2, before=before)), *found.ended_by(part(3))]

    assert bare(spans) == bare(WHOLE[1:])
    assert len(asked) == (before is None)


def test_what_another_worker_has_exported_is_not_exported_again():
    found, _ = readers()

    spans = [span for number in (0, 1, 3) for span in found.ended_by(part(number))]

    assert bare(spans) == bare([WHOLE[0], *WHOLE[2:]])


def test_an_episode_that_comes_a_second_time_ends_nothing():
    found, _ = readers()
    for number in range(3):
        found.ended_by(part(number))

    assert found.ended_by(part(1)) == []


def test_an_execution_is_forgotten_for_others_and_read_again():
    found, asked = readers(most=1)
    found.ended_by(part(0))
    found.ended_by(part(0, of="0a1b2c3d-2"))

    assert bare(found.ended_by(part(1))) == bare(WHOLE[:1])
    assert asked == ["0a1b2c3d-1"]
