"""History drawn and told: spans on an axis, lines to read, words for durations."""

from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from msgspec import Raw

import perdure as df
from perdure.failure import Failure
from perdure.http import formatting
from perdure.http.host import application
from perdure.http.pages.compact_history import compact_lines
from perdure.http.pages.history_lines import lines_of
from perdure.http.pages.history_views import history_of
from perdure.http.pages.timeline import ROWS, Group, Timeline, View, timeline_of
from perdure.http.pages.timeline_links import Links, view_of
from perdure.model import events as ev
from perdure.model.events import HistoryEvent
from perdure.model.waiting import clock

SECOND = 1_000_000
DAY = 86_400 * SECOND
History = list[tuple[int, HistoryEvent]]

STARTED: tuple[int, HistoryEvent] = (0, ev.ExecutionStarted(name="claims"))


def drawn(history: History, now: int = 0) -> Timeline:
    found = timeline_of(history, now)
    assert found is not None
    return found


def states(timeline: Timeline) -> dict[str, list[tuple[str, str]]]:
    return {row.label: [(span.kind, span.state) for span in row.spans] for row in timeline.rows}


def test_what_ran_at_the_same_time_overlaps() -> None:
    found = drawn(
        [
            STARTED,
            (0, ev.TaskScheduled(id=0, name="fraud")),
            (0, ev.TaskScheduled(id=1, name="damage")),
            (4 * SECOND, ev.TaskCompleted(task_id=0)),
            (8 * SECOND, ev.TaskCompleted(task_id=1)),
            (8 * SECOND, ev.ExecutionCompleted()),
        ]
    )

    fraud, damage = (found.bars(row)[0] for row in found.rows)
    assert (fraud.x, fraud.width) == (0.0, 50.0)
    assert (damage.x, damage.width) == (0.0, 100.0)
    assert not found.hides_idle
    assert found.ticks() == [(25.0 * n, 2 * n * SECOND) for n in range(5)]


def test_attempts_share_a_row_with_the_pauses_between_them() -> None:
    found = drawn(
        [
            STARTED,
            (0, ev.TaskScheduled(id=0, name="pay")),
            (1 * SECOND, ev.TaskFailed(task_id=0, failure=Failure("ConnectionError", "away"))),
            (1 * SECOND, ev.TimerCreated(id=1, fire_at=2 * SECOND, purpose="retry", of=0)),
            (2 * SECOND, ev.TimerFired(timer_id=1)),
            (2 * SECOND, ev.TaskScheduled(id=2, name="pay", call=0, attempt=2)),
        ],
        now=5 * SECOND,
    )

    assert states(found) == {"pay": [("activity", "failed"), ("retry", "done"), ("activity", "open")]}
    assert found.rows[0].attempts == 2
    assert found.rows[0].spans[0].note == "ConnectionError: away"
    assert found.rows[0].lasted(found.end) == 5.0
    assert found.legend() == ["activity", "retry", "failed"]


@pytest.mark.parametrize("early", [False, True])
def test_a_wait_ends_with_its_event_also_when_that_came_before(early: bool) -> None:
    raised: tuple[int, HistoryEvent] = (SECOND, ev.EventRaised(name="GO"))
    awaited: tuple[int, HistoryEvent] = (SECOND, ev.EventAwaited(id=0, name="go"))
    history = [STARTED, *([raised, awaited] if early else [awaited, raised])]

    assert states(drawn([*history, (9 * SECOND, ev.ExecutionCompleted())])) == {"go": [("wait", "done")]}


def test_a_refused_event_leaves_the_wait_open() -> None:
    found = drawn(
        [
            STARTED,
            (0, ev.EventAwaited(id=0, name="go")),
            (SECOND, ev.EventRaised(name="go", input=Raw(b"1"))),
            (SECOND, ev.EventRejected(wait_id=0, name="go", reason="not text")),
        ],
        now=2 * SECOND,
    )

    assert states(found) == {"go": [("wait", "open")]}
    assert found.rows[0].spans[0].note == "rejected: not text"


def test_of_several_waits_the_one_that_took_the_event_ends() -> None:
    found = drawn(
        [
            (0, ev.ExecutionStarted(name="claims", pairing=ev.AWAITED)),
            (0, ev.EventAwaited(id=0, name="go")),
            (0, ev.EventAwaited(id=1, name="Go")),
            (SECOND, ev.EventRaised(name="GO")),
            (SECOND, ev.EventTaken(wait_id=1, event=0)),
            (2 * SECOND, ev.EventRaised(name="go")),
            (3 * SECOND, ev.EventAwaited(id=2, name="go")),
            (3 * SECOND, ev.WaitCanceled(wait_id=0)),
        ],
        now=4 * SECOND,
    )

    assert [span.state for row in found.rows for span in row.spans] == ["canceled", "done", "done"]


def test_what_is_open_at_the_end_is_given_up_and_what_was_done_stays_done() -> None:
    found = drawn(
        [
            STARTED,
            (0, ev.EventAwaited(id=0, name="go")),
            (SECOND, ev.EventRaised(name="go")),
            (SECOND, ev.TimerCreated(id=1, fire_at=DAY)),
            (2 * SECOND, ev.ExecutionTerminated(reason="enough")),
        ],
        now=DAY,
    )

    assert states(found) == {"go": [("wait", "done")], "timer": [("timer", "canceled")]}
    assert found.end == 2 * SECOND


def test_days_of_waiting_do_not_hide_milliseconds_of_work() -> None:
    found = drawn(
        [
            STARTED,
            (0, ev.TaskScheduled(id=0, name="quick")),
            (20_000, ev.TaskCompleted(task_id=0)),
            (20_000, ev.EventAwaited(id=1, name="decision")),
            (2 * DAY, ev.EventRaised(name="decision")),
            (2 * DAY, ev.TaskScheduled(id=2, name="late")),
            (2 * DAY + 30_000, ev.TaskCompleted(task_id=2)),
            (2 * DAY + 30_000, ev.ExecutionCompleted()),
        ]
    )

    quick, decision, late = (found.bars(row)[0] for row in found.rows)
    assert found.hides_idle
    assert [piece.end - piece.start for piece in found.axis.cuts] == [2 * DAY - 20_000]
    assert quick.width / late.width == pytest.approx(20 / 30, abs=0.01)
    assert quick.width > 5
    assert late.width > 5
    assert quick.x + quick.width == pytest.approx(decision.x, abs=0.01)
    assert decision.x + decision.width == pytest.approx(late.x, abs=0.01)
    assert late.x + late.width == pytest.approx(100, abs=0.01)


HOURS_OF_WAITING: History = [
    STARTED,
    (0, ev.TaskScheduled(id=0, name="quick")),
    (SECOND, ev.TaskCompleted(task_id=0)),
    (SECOND, ev.EventAwaited(id=1, name="decision")),
    (3_600 * SECOND, ev.EventRaised(name="decision")),
    (3_600 * SECOND, ev.ExecutionCompleted()),
]


def test_real_time_is_shown_when_asked_for() -> None:
    found = timeline_of(HOURS_OF_WAITING, 0, View(idle="show"))

    assert found is not None and found.can_hide and not found.hides_idle
    assert [at // SECOND for _, at in found.ticks()] == [0, 600, 1_200, 1_800, 2_400, 3_000, 3_600]
    assert [round(x, 1) for x, _ in found.ticks()] == [0, 16.7, 33.3, 50, 66.7, 83.3, 100]


def test_a_part_of_the_axis_can_be_chosen() -> None:
    found = timeline_of(HOURS_OF_WAITING, 0, View(idle="show", since=600, until=1_200))

    assert found is not None and found.is_part
    quick, decision = found.rows
    assert (found.elsewhere(quick), found.bars(quick)) == ("before", [])
    assert [(bar.x, bar.width) for bar in found.bars(decision)] == [(0.0, 100.0)]
    assert found.ticks()[0] == (0.0, 600 * SECOND)


def test_long_work_is_not_idle_time() -> None:
    found = drawn(
        [
            STARTED,
            (0, ev.TaskScheduled(id=0, name="long")),
            (DAY, ev.TaskCompleted(task_id=0)),
            (DAY, ev.TaskScheduled(id=1, name="quick")),
            (DAY + SECOND, ev.TaskCompleted(task_id=1)),
        ],
        now=DAY + SECOND,
    )

    assert (found.can_hide, found.hides_idle) == (False, False)


@pytest.mark.parametrize("part", [(5e9, 0), (1e9, 1e9), (0, 1e-9), (3_600, 3_601), (0.000001, 0.000002)])
def test_a_part_that_is_not_there_breaks_nothing(part: tuple[float, float]) -> None:
    for idle in ("", "hide", "show"):
        found = timeline_of(HOURS_OF_WAITING, 0, View(idle=idle, since=part[0], until=part[1]))

        assert found is not None
        places = [x for x, _ in found.ticks()] + [bar.x for row in found.rows for bar in found.bars(row)]
        assert all(0 <= x <= 100 for x in places)
        assert all(0 <= since < until for _, _, since, until in found.axis.parts)


def fan_out(count: int) -> History:
    """`count` calls of one step in turn: number 7 fails, the last is open, the others take their number in ms."""
    history: History = [STARTED]
    at = 0
    for n in range(count):
        history.append((at, ev.TaskScheduled(id=n, name="step")))
        at += n * 1_000
        if n == 6:
            history.append((at, ev.TaskFailed(task_id=n, failure=Failure("ValueError", "no JPEG"))))
        elif n < count - 1:
            history.append((at, ev.TaskCompleted(task_id=n)))
    return history


def test_equal_names_are_one_line_with_the_bad_ones_first() -> None:
    history = [*fan_out(2_000), (0, ev.TaskScheduled(id=5_000, name="other"))]
    at = max(at for at, _ in history)
    found = drawn([*history, (at, ev.TaskCompleted(task_id=5_000))], now=at + SECOND)

    group, other = found.lines
    assert isinstance(group, Group) and other.label == "other"
    assert group.counts == {"done": 1_998, "failed": 1, "open": 1}
    assert [(row.place, row.state) for row in group.chosen] == [(7, "failed"), (2_000, "open")]
    assert group.chosen[0].spans[0].note == "ValueError: no JPEG"
    assert (group.percentile(50), group.percentile(95)) == (0.999, 1.899)
    assert any(block.has_failed for block in found.density(group))


def test_two_of_a_name_stay_two_lines() -> None:
    found = drawn(fan_out(2), now=SECOND)

    assert [line.label for line in found.lines] == ["step", "step"]


def test_a_chosen_group_shows_its_rows_slowest_first_page_by_page() -> None:
    view = View(group="step", kind="activity", sort="slowest", skip=ROWS)
    found = timeline_of([*fan_out(501), (126 * SECOND, ev.TaskCompleted(task_id=500))], 126 * SECOND, view)

    assert found is not None
    (group,) = found.lines
    assert isinstance(group, Group) and group.is_chosen
    lengths = [row.lasted(found.end) for row in group.chosen]
    assert len(lengths) == ROWS and lengths == sorted(lengths, reverse=True)


def test_failed_and_open_lines_come_first_or_all_by_start() -> None:
    history: History = [
        STARTED,
        (0, ev.TaskScheduled(id=0, name="fine")),
        (1, ev.TaskCompleted(task_id=0)),
        (1, ev.TaskScheduled(id=1, name="open")),
        (1, ev.TaskScheduled(id=2, name="bad")),
        (2, ev.TaskFailed(task_id=2, failure=Failure("ValueError", ""))),
    ]

    bad_first, by_start = (timeline_of(history, 9, View(order=order)) for order in ("bad", "start"))
    assert bad_first is not None and by_start is not None
    assert [line.label for line in bad_first.lines] == ["bad", "open", "fine"]
    assert [line.label for line in by_start.lines] == ["fine", "open", "bad"]


def test_the_time_of_the_next_attempt_is_known() -> None:
    found = drawn(
        [
            STARTED,
            (0, ev.TaskScheduled(id=0, name="pay")),
            (SECOND, ev.TaskFailed(task_id=0, failure=Failure("ConnectionError", "away"))),
            (SECOND, ev.TimerCreated(id=1, fire_at=7 * SECOND, purpose="retry", of=0)),
        ],
        now=2 * SECOND,
    )

    (pay,) = found.rows
    assert pay.again_at == 7 * SECOND
    assert [(span.state, span.note) for span in pay.tries] == [("failed", "ConnectionError: away")]


def test_a_full_history_is_shown_in_parts() -> None:
    history: History = [*fan_out(20), (DAY, ev.ExecutionCompleted())]

    full = history_of(history, {"history": "full", "before": "30"}, "/instances/a")
    assert [line.number for line in full.lines] == list(range(30))
    assert (full.is_full, full.earlier) == (True, "")
    assert full.later == "/instances/a?history=full&before=530#history"
    assert history_of(history, {}, "/instances/a").total == len(history)


@pytest.mark.parametrize(
    "query",
    [
        {"from": "nan", "to": "inf"},
        {"from": "-1", "skip": "-1"},
        {"from": "1e400", "skip": "9" * 30},
        {"idle": "x", "order": "y", "sort": "z", "skip": "٣"},
    ],
)
def test_an_address_that_makes_no_sense_is_the_plain_page(query: dict[str, str]) -> None:
    assert view_of(query) == View()


def test_links_keep_what_is_chosen() -> None:
    links = Links("/instances/a", View(idle="show", order="start", group="a&b", kind="activity"))

    assert links.to(order="bad") == "/instances/a?idle=show&group=a%26b&kind=activity#timeline"
    assert Links("/instances/a", View()).whole() == "/instances/a#timeline"


def test_a_great_fan_out_is_drawn_in_part() -> None:
    calls: History = [(0, ev.TaskScheduled(id=n, name=f"call {n}")) for n in range(1_000)]

    found = drawn([STARTED, *calls], now=SECOND)

    assert (len(found.lines), found.left_out) == (ROWS, 1_000 - ROWS)


def test_nothing_that_takes_time_is_nothing_to_draw() -> None:
    assert timeline_of([STARTED, (5, ev.ExecutionCompleted())], 9) is None
    assert timeline_of([], 9) is None


@pytest.mark.parametrize("instant", [0, 1])
def test_no_time_at_all_is_no_division_by_zero(instant: int) -> None:
    found = drawn([STARTED, (0, ev.TaskScheduled(id=0, name="a")), (instant, ev.TaskCompleted(task_id=0))])

    assert 0 <= found.bars(found.rows[0])[0].x <= 100


def test_every_event_has_words() -> None:
    history: History = [
        STARTED,
        (1, ev.TaskScheduled(id=0, name="pay", input=Raw(b"1"), attempt=2)),
        (2, ev.SubOrchestrationCreated(id=1, name="child", instance_id="c")),
        (3, ev.TimerCreated(id=2, fire_at=0)),
        (3, ev.TimerCreated(id=3, fire_at=0, purpose="retry", of=0)),
        (4, ev.EventAwaited(id=4, name="go", deadline=DAY)),
        (5, ev.TaskFailed(task_id=0, failure=Failure("E", "m"))),
        (5, ev.SubOrchestrationFailed(task_id=1, failure=Failure("E", "m"))),
        (5, ev.TaskCompleted(task_id=0, result=Raw(b'"r"'))),
        (5, ev.SubOrchestrationCompleted(task_id=1)),
        (6, ev.TimerFired(timer_id=2)),
        (6, ev.TimerCanceled(timer_id=3)),
        (7, ev.EventRaised(name="go")),
        (7, ev.EventRejected(wait_id=4, name="go", reason="why")),
        (7, ev.WaitCanceled(wait_id=4)),
        (7, ev.EntityCalled(id=5, entity="@a@k", operation="add", input=Raw(b"7"))),
        (7, ev.EntityOperationFailed(task_id=5, failure=Failure("E", "m"))),
        (7, ev.EntityOperationCompleted(task_id=5)),
        (7, ev.EntitySignaled(id=6, entity="@a@k", operation="add", at=DAY)),
        (7, ev.LockRequested(id=7, entities=("@a@k", "@b@k"))),
        (7, ev.LockGranted(task_id=7, entity="@a@k")),
        (7, ev.LockReleased(lock_id=7)),
        (7, ev.EntityOperated(operation="add", count=3, sender="o", failed=1, failure="E: m")),
        (8, ev.ExecutionSuspended(reason="audit")),
        (8, ev.ExecutionParked(kind="poison", detail="again")),
        (8, ev.LoopHeld(milliseconds=2_500, place=", in claims (claims.py:7)")),
        (8, ev.ExecutionResumed(reason="done")),
        (8, ev.TaskCanceled(task_id=0)),
        (9, ev.ExecutionCompleted(output=Raw(b"{}"))),
        (9, ev.ExecutionFailed(failure=Failure("E", "m"))),
        (9, ev.ExecutionTerminated(reason="enough")),
        (9, ev.PatchMarked(name="fraud-check")),
        (9, ev.ExecutionRewound(kept=3, next_id=4, at=9, voided=(0,), reason="gateway is back")),
        (9, ev.ContinuedAsNew()),
        (9, ev.EventTaken(wait_id=4, event=0)),
    ]

    lines = lines_of(history)

    assert {type(event) for _, event in history} == set(ev.HistoryEvent.__args__)
    told = [(line.about, line.tone) for line in lines]
    assert told[1] == ("pay, attempt 2", "decision")
    assert told[4] == ("pause before the retry of pay, due 1970-01-01 00:00:00 UTC", "decision")
    assert told[6] == ("pay: E: m", "bad")
    assert told[11] == ("pause before the retry of pay", "decision")
    assert told[15:23] == [
        ("add of @a@k", "decision"),
        ("add of @a@k: E: m", "bad"),
        ("add of @a@k", "plain"),
        (f"add of @a@k, at {clock(DAY)}", "decision"),
        ("@a@k, @b@k", "decision"),
        ("@a@k", "plain"),
        ("lock of @a@k, @b@k", "decision"),
        ("add 3 times for o; 1 failed: E: m", "plain"),
    ]
    assert told[23] == ("audit", "plain")
    assert [line.body for line in lines if line.body is not None] == [1, "r", 7, {}]


def test_waiting_for_a_lock_and_having_it_are_two_spans_of_a_row() -> None:
    found = drawn(
        [
            STARTED,
            (1, ev.LockRequested(id=0, entities=("@a@k", "@b@k"))),
            (2, ev.LockGranted(task_id=0, entity="@a@k")),
            (4, ev.LockGranted(task_id=0, entity="@b@k")),
            (9, ev.LockReleased(lock_id=0)),
        ]
    )

    (row,) = found.rows
    assert row.label == "lock of @a@k, @b@k"
    assert [(s.kind, s.start, s.end) for s in row.spans] == [("wait", 1, 4), ("entity", 4, 9)]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.000_02, "20 µs"),
        (0.012, "12 ms"),
        (1.44, "1.4 s"),
        (61, "1 min 1 s"),
        (3_600, "1 h"),
        (100_000, "1 day 3 h"),
        (86_400 * 3 + 5, "3 days"),
    ],
)
def test_durations_are_said_in_two_units_at_most(seconds: float, said: str) -> None:
    assert formatting.lasting(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "just now"), (59, "59 s ago"), (200, "3 min ago"), (-7_300, "in 2 h")]
)
def test_instants_are_said_relative_to_now(seconds: float, said: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)

    assert formatting.ago(now - timedelta(seconds=seconds), now) == said


def test_long_values_are_cut_and_said_to_be() -> None:
    shown = formatting.pretty("x" * 50_000)

    assert len(shown.text) == formatting.SHOWN
    assert shown.left_out == 50_002 - formatting.SHOWN


def at_once(*states: str) -> History:
    """Calls of one activity, each a millisecond longer than the one before."""
    made: History = [(0, ev.TaskScheduled(id=n, name="step")) for n in range(len(states))]
    for n, state in enumerate(states):
        if state == "done":
            made.append(((n + 1) * 1_000, ev.TaskCompleted(task_id=n)))
        elif state == "failed":
            made.append(((n + 1) * 1_000, ev.TaskFailed(task_id=n, failure=Failure("ValueError", f"no {n}"))))
    return [STARTED, *made]


def test_history_in_short_has_a_line_for_a_call_with_its_end() -> None:
    history: History = [
        STARTED,
        (0, ev.TaskScheduled(id=0, name="pay", input=Raw(b"7"))),
        (SECOND, ev.TaskFailed(task_id=0, failure=Failure("ConnectionError", "away"))),
        (SECOND, ev.TimerCreated(id=1, fire_at=2 * SECOND, purpose="retry", of=0)),
        (2 * SECOND, ev.TimerFired(timer_id=1)),
        (2 * SECOND, ev.TaskScheduled(id=2, name="pay", call=0, attempt=2)),
        (5 * SECOND, ev.TaskCompleted(task_id=2, result=Raw(b'"paid"'))),
        (5 * SECOND, ev.EventAwaited(id=3, name="go")),
    ]
    lines = compact_lines(history)
    assert [(line.what, line.about, line.state, line.lasted) for line in lines[1:]] == [
        ("activity", "pay: ConnectionError: away", "failed", 1.0),
        ("timer", "pause before the retry of pay, due 1970-01-01 00:00:02 UTC", "fired", 1.0),
        ("activity", "pay, attempt 2", "done", 3.0),
        ("event awaited", "go", "open", None),
    ]
    assert [(line.given, line.result, line.tone) for line in lines[1:4:2]] == [
        (7, None, "bad"),
        (None, "paid", "plain"),
    ]
    ended = compact_lines([*history, (6 * SECOND, ev.ExecutionTerminated(reason="enough"))])
    assert ended[-2].state == "canceled"


def test_history_in_short_has_one_line_for_many_calls_of_one_name() -> None:
    lines = compact_lines(at_once(*["done"] * 300, "failed", *["done"] * 700))
    assert [(line.about, line.state, line.count) for line in lines[1:]] == [
        ("step", "done", 300),
        ("step: ValueError: no 300", "failed", 1),
        ("step", "done", 700),
    ]
    assert lines[-1].lasted == pytest.approx(1.001)


async def test_the_kept_executions_of_an_eternal_one_have_links() -> None:
    app = df.App("eternal", keep_executions=3)

    @app.orchestrator
    async def eternal(context: df.OrchestrationContext, number: int) -> int:
        await context.create_timer(context.current_utc_datetime)
        if number < 5:
            context.continue_as_new(number + 1)
        return number

    async with (
        app.running(store="memory:") as client,
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=application(client)), base_url="http://localhost:7071"
        ) as http,
    ):
        await client.start_new("eternal", "e-1", 1)
        assert (await client.wait_for_completion("e-1")).output == 5
        current = (await http.get("/instances/e-1")).text
        earlier = (await http.get("/instances/e-1?execution=4")).text
        gone = (await http.get("/instances/e-1?execution=1")).text

    assert 'href="/instances/e-1?execution=4#timeline"' in current
    assert "Execution 3</a>" in current and "Execution 2</a>" not in current
    assert 'aria-current="true">Execution 4</a>' in earlier and "ContinuedAsNew" in earlier
    assert "/instances/e-1?execution=4&amp;history=full#history" in earlier
    assert "The history of execution 1 is not kept." in gone
