"""The spans that a history implies: names, kinds, parents, times and statuses of each row of the table."""

from datetime import timedelta

import pytest

from perdure.failure import Failure
from perdure.model import events as ev
from perdure.model.events import ParentLink
from perdure.model.span_ids import span_id_of, trace_id_of
from perdure.model.trace_context import TraceContext
from perdure.telemetry.spans import ExecutionSpans, Span, SpanKind, SpanStatus, Subject, spans_of
from perdure.testing import HistoryBuilder

SECOND = 1_000_000
SECRET = "s3cret-payload"


def subject(execution_id: str = "0a1b2c3d-1", **facts) -> Subject:
    return Subject(instance_id="claim-1", execution_id=execution_id, name="claims", hub="main", **facts)


def begun(**facts) -> HistoryBuilder:
    return HistoryBuilder("claims").started(SECRET, pairing=ev.AWAITED, **facts)


def named(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == name]


def only(history: HistoryBuilder, name: str, **facts) -> Span:
    [span] = named(spans_of(subject(**facts), history.episodes), name)
    return span


def lasted(span: Span) -> float:
    assert span.end is not None
    return (span.end - span.start) / SECOND


def with_trace(history: HistoryBuilder, trace: str) -> HistoryBuilder:
    at, [first, *rest] = history.episodes[0]
    fields = {name: getattr(first, name) for name in first.__struct_fields__}
    history.episodes[0] = (at, [ev.ExecutionStarted(**fields | {"trace": trace}), *rest])
    return history


# ------------------------------------------------------------------------------------------- the execution


def test_an_orchestration_is_a_server_span_from_its_start_to_its_end():
    history = begun().scheduled("pay").later(2).completed(0, SECRET).returned(SECRET)

    span = only(history, "orchestration:claims", tags={"tenant": "north"}, replays=2)

    assert (span.kind, span.status, lasted(span)) == (SpanKind.SERVER, SpanStatus.OK, 2)
    assert (span.trace_id, span.parent_id) == (trace_id_of("claim-1", "0a1b2c3d-1"), 0)
    assert span.span_id == span_id_of("claim-1", "0a1b2c3d-1")
    assert span.attributes == {
        "durabletask.type": "orchestration",
        "durabletask.task.name": "claims",
        "durabletask.task.instance_id": "claim-1",
        "durabletask.task.execution_id": "0a1b2c3d-1",
        "durabletask.task.status": "Completed",
        "perdure.hub": "main",
        "perdure.episodes": 2,
        "perdure.rewound": 0,
        "perdure.replays": 2,
        "perdure.parked": 0.0,
        "perdure.tag.tenant": "north",
    }


def test_a_failed_orchestration_is_an_error_with_its_message_and_exception():
    span = only(begun().raised_error("ValueError", "no such policy"), "orchestration:claims")

    assert (span.status, span.message) == (SpanStatus.ERROR, "ValueError: no such policy")
    assert span.attributes["error.type"] == "ValueError"
    assert [(one.name, one.attributes) for one in span.events] == [
        ("exception", {"exception.type": "ValueError", "exception.message": "no such policy"})
    ]


def test_messages_of_errors_can_be_left_out():
    history = begun().scheduled("pay").failed(0, "ValueError", SECRET).raised_error("ValueError", SECRET)

    spans = spans_of(subject(messages=False), history.episodes)

    assert {span.status for span in spans} == {SpanStatus.ERROR}
    assert SECRET not in repr(spans)


def test_a_terminated_orchestration_has_no_status_but_says_so():
    span = only(begun().scheduled("pay").later(1).terminated("enough"), "orchestration:claims")

    assert (span.status, span.attributes["durabletask.task.status"]) == (SpanStatus.UNSET, "Terminated")


def test_an_orchestration_that_was_terminated_before_it_began_has_a_span_without_length():
    history = HistoryBuilder("claims").terminated("enough")

    assert lasted(only(history, "orchestration:claims")) == 0


def test_a_version_stands_behind_the_name_as_in_azure():
    span = only(begun(version="1.0").returned(), "orchestration:claims@(1.0)", version="1.0")

    assert span.attributes["durabletask.task.version"] == "1.0"


def test_parked_time_is_counted():
    history = begun().scheduled("pay").parked("poison", "x").later(5).resumed().completed(0).returned()

    span = only(history, "orchestration:claims")

    assert span.attributes["perdure.parked"] == 5
    assert [one.name for one in span.events] == ["parked", "resumed"]


# ------------------------------------------------------------------------------------------------ the parts


def test_each_attempt_of_an_activity_is_a_client_span():
    history = begun().scheduled("pay", SECRET).later(1).failed(0, "IOError", "down").timer(5, purpose="retry")
    history.fired(1).scheduled("pay", SECRET, call=0, attempt=2).later(2).completed(2, SECRET).returned()

    spans = spans_of(subject(), history.episodes)
    first, second = named(spans, "activity:pay")
    root = only(history, "orchestration:claims")

    assert (first.kind, first.status, first.attributes["perdure.attempt"]) == (
        SpanKind.CLIENT,
        SpanStatus.ERROR,
        1,
    )
    assert (second.status, second.attributes["perdure.attempt"], lasted(second)) == (SpanStatus.OK, 2, 2)
    assert first.span_id == span_id_of("claim-1", "0a1b2c3d-1", 0)
    assert second.attributes["durabletask.task.task_id"] == 2
    assert {first.parent_id, second.parent_id} == {root.span_id}
    assert root.status is SpanStatus.OK
    assert SECRET not in repr(spans)


def test_a_timer_lasts_from_its_creation_to_its_firing():
    span = only(begun().timer(3_600).fired(0).returned(), "orchestration:claims:timer")

    assert (span.kind, span.status, lasted(span)) == (SpanKind.INTERNAL, SpanStatus.OK, 3_600)
    assert str(span.attributes["durabletask.fire_at"]).endswith("Z")


def test_a_cancelled_timer_has_no_status():
    history = begun().timer(3_600).scheduled("pay").later(1).completed(1).timer_cancelled(0).returned()

    span = only(history, "orchestration:claims:timer")

    assert (span.status, span.attributes["durabletask.task.status"]) == (SpanStatus.UNSET, "Canceled")


def test_a_wait_lasts_until_its_event_and_is_linked_to_the_raiser():
    history = begun().awaited("Approval").later(timedelta(hours=72))
    history._arrival(ev.EventRaised(name="approval", trace=TraceContext(7, 8).text()))
    history.returned()

    span = only(history, "orchestration:claims:wait:Approval")

    assert (span.kind, span.status, lasted(span)) == (
        SpanKind.INTERNAL,
        SpanStatus.OK,
        72 * 3_600,
    )
    assert span.links == (TraceContext(7, 8),)


def test_a_wait_for_an_event_that_came_before_has_no_length():
    span = only(
        begun().raised("Approval").later(5).scheduled("pay").awaited("Approval").completed(0).returned(),
        "orchestration:claims:wait:Approval",
    )

    assert (span.status, lasted(span)) == (SpanStatus.OK, 0)


def test_a_wait_that_timed_out_says_so():
    history = begun().awaited("Approval", timeout=60).fired(1).wait_cancelled(0).returned()

    span = only(history, "orchestration:claims:wait:Approval")

    assert (span.status, span.attributes["durabletask.task.status"]) == (SpanStatus.UNSET, "TimedOut")
    assert "perdure.deadline" in span.attributes


def test_of_two_waits_the_one_that_took_the_event_ends():
    history = begun().awaited("A").awaited("A").later(1).raised("A").taken(1, 0).later(1).returned()

    other, taken = sorted(
        named(spans_of(subject(), history.episodes), "orchestration:claims:wait:A"),
        key=lambda span: span.attributes["durabletask.task.task_id"],
    )

    assert (taken.status, other.attributes["durabletask.task.status"]) == (SpanStatus.OK, "Canceled")


def test_a_rejected_event_does_not_end_the_wait():
    history = begun().awaited("A").later(1).raised("A").rejected(0, "A").later(1).raised("A").returned()

    span = only(history, "orchestration:claims:wait:A")

    assert (span.status, lasted(span)) == (SpanStatus.OK, 2)


def test_an_entity_call_is_a_client_span_and_a_signal_a_producer_span():
    history = begun().entity_called("@counter@k", "add", SECRET).entity_signalled("@counter@k", "reset")
    history.later(1).entity_answered(0, SECRET).returned()

    called, signalled = only(history, "entity:counter:add"), only(history, "entity:counter:reset")

    assert (called.kind, called.status, lasted(called)) == (SpanKind.CLIENT, SpanStatus.OK, 1)
    assert (signalled.kind, lasted(signalled)) == (SpanKind.PRODUCER, 0)
    assert called.attributes["durabletask.task.operation"] == "add"
    assert called.attributes["durabletask.event.target_instance_id"] == "@counter@k"


def test_what_was_open_at_the_end_is_cut_off_there():
    history = begun().scheduled("pay").timer(60).awaited("A").child("assess").later(1).terminated("enough")

    spans = spans_of(subject(), history.episodes)

    assert len(spans) == 5
    assert {span.attributes["durabletask.task.status"] for span in spans} == {"Canceled", "Terminated"}
    assert len({span.end for span in spans}) == 1
    assert spans[-1].name == "orchestration:claims"


def test_unfinished_parts_are_open():
    spans = spans_of(subject(), begun().scheduled("pay").awaited("A").episodes)

    assert [(span.name, span.is_open) for span in spans] == [
        ("orchestration:claims", True),
        ("activity:pay", True),
        ("orchestration:claims:wait:A", True),
    ]


def test_row_by_row_gives_what_the_whole_history_gives():
    history = (
        begun().scheduled("pay").awaited("A").later(1).raised("A").completed(0).timer(9).fired(2).returned()
    )
    reader = ExecutionSpans(subject())

    piece_by_piece = [span for at, events in history.episodes for span in reader.read(at, events)]

    assert piece_by_piece == spans_of(subject(), history.episodes)
    assert reader.open() == []


# ------------------------------------------------------------------------------------------------- families


def test_a_call_of_a_child_is_a_client_span_that_is_the_parent_of_the_child():
    history = (
        begun().child("assess", SECRET, instance_id="child-1").later(1).child_completed(0, SECRET).returned()
    )
    link = ParentLink("claim-1", "0a1b2c3d-1", 0)
    child = Subject(instance_id="child-1", execution_id="ffff0000-1", name="assess", parent=link)

    called = only(history, "orchestration:assess")
    [own] = spans_of(child, HistoryBuilder("assess").started(parent=link).later(1).returned().episodes)

    assert (called.kind, own.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
    assert (own.parent_id, own.trace_id) == (called.span_id, called.trace_id)
    assert called.attributes["perdure.child.instance_id"] == "child-1"


def test_a_grandchild_belongs_to_the_trace_of_its_tree():
    link = ParentLink("child-1", "ffff0000-1", 0)
    found = Subject(instance_id="c", execution_id="11111111-1", name="leaf", parent=link, root_trace=42)

    [own] = spans_of(found, HistoryBuilder("leaf").started(parent=link).returned().episodes)

    assert (own.trace_id, own.parent_id) == (42, span_id_of("child-1", "ffff0000-1", 0))


def test_a_start_with_a_trace_is_part_of_it():
    history = with_trace(begun().scheduled("pay").completed(0).returned(), TraceContext(7, 8).text())

    called, root = spans_of(subject(), history.episodes)

    assert (root.trace_id, root.parent_id) == (7, 8)
    assert (called.trace_id, called.parent_id) == (7, root.span_id)


def test_a_child_inherits_the_trace_but_not_the_parent():
    link = ParentLink("claim-1", "0a1b2c3d-1", 3)
    found = Subject(instance_id="c", execution_id="11111111-1", name="leaf", parent=link)
    history = with_trace(HistoryBuilder("leaf").started(parent=link).returned(), TraceContext(7, 8).text())

    [own] = spans_of(found, history.episodes)

    assert (own.trace_id, own.parent_id) == (7, span_id_of("claim-1", "0a1b2c3d-1", 3))


def test_an_execution_that_continues_is_a_new_trace_linked_to_the_one_before():
    first = spans_of(subject(), begun().continued_as_new(SECRET).episodes)
    [second] = spans_of(subject("0a1b2c3d-2"), begun().returned().episodes)

    assert first[-1].attributes["durabletask.task.status"] == "ContinuedAsNew"
    assert (second.parent_id, second.trace_id) == (0, trace_id_of("claim-1", "0a1b2c3d-2"))
    assert [(one.trace_id, one.span_id) for one in second.links] == [(first[-1].trace_id, first[-1].span_id)]


# -------------------------------------------------------------------------------------------------- rewinds


def rewound() -> HistoryBuilder:
    history = begun().scheduled("pay").awaited("A").later(1).failed(0, "IOError", "down")
    history.raised_error("IOError", "down").later(100)
    places = sum(len(events) for _, events in history.episodes)
    history._arrival(ev.ExecutionRewound(kept=places - 1, next_id=2, at=history._at, voided=(0,)))
    return history.later(1).completed(0).later(1).raised("A").returned()


def test_a_rewind_adds_spans_with_ids_of_their_own():
    spans = spans_of(subject(), rewound().episodes)
    failed, done = named(spans, "orchestration:claims")
    before, after = named(spans, "activity:pay")
    cut, taken = named(spans, "orchestration:claims:wait:A")

    assert (failed.status, failed.attributes["perdure.rewound"], lasted(failed)) == (SpanStatus.ERROR, 0, 1)
    assert (done.status, done.attributes["perdure.rewound"], lasted(done)) == (SpanStatus.OK, 1, 2)
    assert done.span_id == span_id_of("claim-1", "0a1b2c3d-1", ending=1)
    assert (before.status, after.status, lasted(after)) == (SpanStatus.ERROR, SpanStatus.OK, 1)
    assert (cut.status, taken.status, lasted(taken)) == (SpanStatus.UNSET, SpanStatus.OK, 2)
    assert {before.parent_id, cut.parent_id} == {failed.span_id}
    assert {after.parent_id, taken.parent_id} == {done.span_id}
    assert len({span.span_id for span in spans}) == len(spans) == 6
    assert [one.name for one in done.events] == ["rewound"]


def test_the_spans_before_a_rewind_stay_as_they_were():
    history = rewound().episodes

    before = spans_of(subject(), history[:2])

    assert spans_of(subject(), history)[: len(before)] == before


def test_a_failure_may_have_causes_and_no_message():
    failure = Failure("app.Broken", cause=Failure("OSError", "disk"))

    span = only(begun().raised_error(failure), "orchestration:claims")

    assert span.message == "app.Broken"


# ---------------------------------------------------------------------------------------------- the formula


@pytest.mark.parametrize(
    ("instance_id", "execution_id", "trace_id", "spans"),
    [
        (
            "claim-1",
            "0a1b2c3d-1",
            "190c54b2dbc4c618a0b4ff5d0ce0b4d6",
            [
                "04f0fff1fbe859ad",
                "dbc18d73b036a073",
                "c09787d2267dbbf9",
                "3798ad1f9aa801a5",
                "8da165b67b43a22d",
            ],
        ),
        (
            "Grüße",
            "00000000-7",
            "9afcfecff286843f439ed00c1ca8a9d0",
            [
                "18b4f55c10c17e4f",
                "350120638d93db4e",
                "f86e3501756b01f5",
                "31a676b5c2a1388a",
                "4ec4e8fef766831b",
            ],
        ),
        (
            "@counter@k",
            "deadbeef-12",
            "417411ac596dfb4abd8c64e52294aee4",
            [
                "3405e03ce06d1e9e",
                "26279077625e4365",
                "002c939108e5bc28",
                "4d0f49c13386af00",
                "398743c96dd465a1",
            ],
        ),
    ],
)
def test_ids_never_change(instance_id, execution_id, trace_id, spans):
    """These numbers are a format: what an exporter sent years ago must have the same ids today."""
    parts = [("execution", 0), ("execution", 1), (0, 0), (17, 0), (17, 2)]
    found = [span_id_of(instance_id, execution_id, part, ending) for part, ending in parts]

    assert f"{trace_id_of(instance_id, execution_id):032x}" == trace_id
    assert [f"{one:016x}" for one in found] == spans


def test_an_id_is_never_zero(monkeypatch):
    class Zeros:
        def __init__(self, data: bytes, digest_size: int) -> None:
            self._size = digest_size

        def digest(self) -> bytes:
            return bytes(self._size)

    monkeypatch.setattr("perdure.model.span_ids.blake2b", Zeros)

    assert (trace_id_of("a", "b"), span_id_of("a", "b")) == (1, 1)
