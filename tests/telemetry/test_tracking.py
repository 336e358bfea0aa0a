"""Azure's tracking events: one record each, at the commit that makes it true, in Azure's words."""

import logging
import re
import threading
from contextlib import contextmanager

import pytest

import perdure as df
from perdure.engine.core.telemetry import listeners_of
from perdure.engine.engine import TrackingSettings
from perdure.telemetry import tracking
from perdure.telemetry.tracking import Tracking
from perdure.testing import environment
from tests.cluster.shop import shop
from tests.core.styles import both

TRACKED = df.Settings(tracking=TrackingSettings(events=True))
SECRET = "four-eyes-only"


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def told(self, instance_id: str | None = None) -> list[tuple[str, str, str]]:
        """State, kind and name of the function of each record."""
        return [
            (record.prop__state, record.prop__functionType, record.prop__functionName)
            for record in self.records
            if instance_id in (None, record.prop__instanceId)
        ]

    def one(self, state: str, name: str) -> logging.LogRecord:
        [found] = [r for r in self.records if (r.prop__state, r.prop__functionName) == (state, name)]
        return found


@contextmanager
def kept_records():
    handler, log = Kept(), logging.getLogger("perdure.tracking")
    level = log.level
    log.addHandler(handler)
    try:
        yield handler
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@pytest.fixture
def kept():
    with kept_records() as handler:
        yield handler


def claim_yield(context: df.OrchestrationContext):
    yield context.call_activity("assess", SECRET)
    yield context.create_timer(60)
    yield context.call_sub_orchestrator("pay", SECRET, "claim-1-pay")
    yield context.call_entity(df.EntityId("ledger", "l"), "add", SECRET)
    return (yield context.wait_for_external_event("Approval"))


async def claim_async(context: df.OrchestrationContext):
    await context.call_activity("assess", SECRET)
    await context.create_timer(60)
    await context.call_sub_orchestrator("pay", SECRET, "claim-1-pay")
    await context.call_entity(df.EntityId("ledger", "l"), "add", SECRET)
    return await context.wait_for_external_event("Approval")


def office(orchestrator) -> df.App:
    app = df.App("office")
    app.orchestrator(orchestrator, name="claim")

    @app.orchestrator
    async def pay(context: df.OrchestrationContext):
        return context.get_input()

    @app.activity
    def assess(claim: str) -> str:
        return claim

    @app.entity
    def ledger(context: df.EntityContext) -> None:
        context.set_state(1)
        context.set_result(context.get_input())

    return app


@both(claim_yield, claim_async)
async def test_an_orchestration_is_told_from_start_to_end(orchestrator, kept):
    async with environment(office(orchestrator), settings=TRACKED) as env:
        await env.client.start_new("claim", "claim-1", SECRET)
        await env.advance(seconds=61)
        await env.client.raise_event("claim-1", "Approval", SECRET)
        await env.client.wait_for_completion("claim-1", 60)

    assert kept.told("claim-1") == [
        ("Scheduled", "Orchestrator", "claim"),
        ("Started", "Orchestrator", "claim"),
        ("Scheduled", "Activity", "assess"),
        ("Awaited", "Orchestrator", "claim"),
        ("Started", "Activity", "assess"),
        ("Completed", "Activity", "assess"),
        ("Listening", "Orchestrator", "claim"),
        ("Awaited", "Orchestrator", "claim"),
        ("TimerExpired", "Orchestrator", "claim"),
        ("Scheduled", "Orchestrator", "pay"),
        ("Scheduled", "Entity", "ledger"),
        ("ExternalEventRaised", "Orchestrator", "claim"),
        ("Listening", "Orchestrator", "claim"),
        ("Awaited", "Orchestrator", "claim"),
        ("ExternalEventRaised", "Orchestrator", "claim"),
        ("Completed", "Orchestrator", "claim"),
    ]
    assert kept.told("claim-1-pay") == [
        ("Started", "Orchestrator", "pay"),
        ("Completed", "Orchestrator", "pay"),
    ]
    assert kept.told("@ledger@l") == [("EntityBatch", "Entity", "ledger")]

    started = kept.one("Started", "claim")
    assert started.getMessage() == (
        "claim-1: Function 'claim (Orchestrator)' started. IsReplay: False. Input: (Redacted 16 characters). "
        "State: Started. RuntimeStatus: Running. HubName: office. AppName: office. SlotName: . "
        f"ExtensionVersion: {df.__version__}. SequenceNumber: 1. TaskEventId: -1"
    )
    assert (started.name, started.levelname) == ("perdure.tracking", "INFO")
    assert {name: value for name, value in vars(started).items() if name[0] == "C" or "prop__" in name} == {
        "Category": "Host.Triggers.DurableTask",
        "prop__instanceId": "claim-1",
        "prop__functionName": "claim",
        "prop__functionType": "Orchestrator",
        "prop__state": "Started",
        "prop__runtimeStatus": "Running",
        "prop__isReplay": False,
        "prop__input": "(Redacted 16 characters)",
        "prop__taskEventId": -1,
        "prop__hubName": "office",
        "prop__appName": "office",
        "prop__slotName": "",
        "prop__extensionVersion": df.__version__,
        "prop__sequenceNumber": 1,
    }
    assert [record.prop__sequenceNumber for record in kept.records] == list(range(len(kept.records)))
    moments = [record.created for record in kept.records]
    assert moments == sorted(moments)
    assert moments[-1] - moments[0] == pytest.approx(61)
    assert_no_payload(kept)


def assert_no_payload(kept: Kept) -> None:
    for record in kept.records:
        assert SECRET not in record.getMessage() + repr(vars(record))


async def test_failures_and_what_operators_do_are_told_without_texts(kept):
    app = df.App("office")

    @app.activity
    def reject(claim: str) -> None:
        raise ValueError(f"bad {claim}")

    @app.orchestrator
    async def fails(context: df.OrchestrationContext):
        await context.call_activity(reject, context.get_input())

    @app.orchestrator
    async def waits(context: df.OrchestrationContext):
        await context.wait_for_external_event("Go")

    async with environment(app, settings=TRACKED) as env:
        await env.client.start_new("fails", "f", SECRET)
        await env.client.wait_for_completion("f", 60)
        await env.client.rewind("f", SECRET)
        await env.client.wait_for_completion("f", 60)
        await env.client.start_new("waits", "w")
        await env.client.suspend("w", SECRET)
        await env.client.resume("w", SECRET)
        await env.client.terminate("w", SECRET)

    of_activity = [
        ("Started", "Activity", "reject"),
        ("Failed", "Activity", "reject"),
        ("Failed", "Orchestrator", "fails"),
    ]
    assert [told for told in kept.told("f") if told[0] in ("Started", "Failed", "Rewound")] == [
        ("Started", "Orchestrator", "fails"),
        *of_activity,
        ("Rewound", "Orchestrator", "fails"),
        *of_activity,
    ]
    failed = [record for record in kept.records if record.prop__state == "Failed"]
    assert {record.levelname for record in failed} == {"ERROR"}
    for record in failed:
        name, *frames = record.prop__reason.splitlines()
        assert name in ("ValueError", "perdure.errors.TaskFailedError")
        assert all(re.fullmatch(r'\s+File ".*", line \d+, in \w+', frame) for frame in frames)
    assert [record.prop__state for record in kept.records if record.prop__instanceId == "w"] == [
        "Scheduled",
        "Started",
        "Listening",
        "Awaited",
        "Suspended",
        "Scheduled",
        "Terminated",
    ]
    assert kept.one("Suspended", "waits").prop__reason == f"(Redacted {len(SECRET)} characters)"
    assert_no_payload(kept)


async def test_each_execution_of_an_eternal_instance_begins_and_ends(kept):
    app = df.App("office")

    @app.orchestrator
    async def eternal(context: df.OrchestrationContext):
        if context.get_input() < 3:
            context.continue_as_new(context.get_input() + 1)

    async with environment(app, settings=TRACKED) as env:
        await env.run("eternal", 1)
    told = [(record.prop__state, getattr(record, "prop__continuedAsNew", None)) for record in kept.records]
    once = [("Started", None), ("Completed", True)]
    assert told == [("Scheduled", None), *once, *once, ("Started", None), ("Completed", False)]


async def test_nothing_is_told_twice_after_a_restart(kept):
    app = office(claim_async)
    async with environment(app, settings=TRACKED) as env:
        await env.client.start_new("claim", "claim-1", SECRET)
        await env.settled()
        await env.restart()
        await env.advance(seconds=61)
        await env.client.raise_event("claim-1", "Approval", SECRET)
        await env.client.wait_for_completion("claim-1", 60)
    told = kept.told("claim-1")
    assert told.count(("Started", "Orchestrator", "claim")) == 1
    assert told.count(("Completed", "Activity", "assess")) == 1
    assert told.count(("TimerExpired", "Orchestrator", "claim")) == 1
    assert told[-1] == ("Completed", "Orchestrator", "claim")


async def test_a_replay_is_one_record_if_that_is_asked_for(kept):
    tracking = TrackingSettings(events=True, replays=True)
    async with environment(office(claim_async), settings=df.Settings(tracking=tracking)) as env:
        await env.client.start_new("claim", "claim-1", SECRET)
        await env.settled()
        await env.restart()
        await env.advance(seconds=61)
        await env.evict()
        await env.client.raise_event("claim-1", "Approval", SECRET)
        await env.client.wait_for_completion("claim-1", 60)
    replayed = [record for record in kept.records if record.prop__state == "Replayed"]
    assert [(record.prop__reason, record.prop__replays) for record in replayed] == [
        ("restart", 1),
        ("evicted", 2),
    ]
    assert "claim-1: Function 'claim (Orchestrator)' was replayed. Reason: restart. Replays: 1. State:" in (
        replayed[0].getMessage()
    )
    assert {record.prop__isReplay for record in kept.records} == {False}


async def test_payloads_of_any_size_are_counted_also_in_an_encrypted_hub(kept, tmp_path):
    app = df.App("office")

    @app.activity
    def copy(text: str) -> str:
        return text

    @app.orchestrator
    async def main(context: df.OrchestrationContext):
        return await context.call_activity(copy, context.get_input())

    large = "x" * 100_000  # stored apart from history
    keys = df.Encryption({"k1": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="})
    store = f"sqlite:///{tmp_path / 'hub.db'}"
    async with app.running(store=store, encryption_keys=keys, tracking=True) as client:
        for instance_id, text in (("small", "ä"), ("large", large)):
            await client.start_new("main", instance_id, text)
            await client.wait_for_completion(instance_id, 60)

    for instance_id, size in (("small", 3), ("large", 100_002)):
        ours = [vars(record) for record in kept.records if record.prop__instanceId == instance_id]
        told = [one["prop__input"] for one in ours if "prop__input" in one]
        told += [one["prop__output"] for one in ours if "prop__output" in one]
        assert told == [f"(Redacted {size} characters)"] * 4


async def test_each_event_is_told_by_one_worker_of_a_hub(kept):
    app = df.App("office")

    @app.activity(pool="far")
    def assess(claim: str) -> str:
        return claim

    @app.orchestrator
    async def claim(context: df.OrchestrationContext):
        return await context.call_activity(assess, context.get_input())

    async with shop(app, {"tracking": True}, {"tracking": True, "pool": ["far"]}) as opened:
        await opened.shared_out()
        mine = opened[0].own_id()
        await opened[1].client.start_new("claim", mine, SECRET)  # the other worker's client
        await opened[1].client.wait_for_completion(mine, 30)
    assert sorted(kept.told(mine)) == [
        ("Awaited", "Orchestrator", "claim"),
        ("Completed", "Activity", "assess"),
        ("Completed", "Orchestrator", "claim"),
        ("Scheduled", "Activity", "assess"),
        ("Scheduled", "Orchestrator", "claim"),
        ("Started", "Activity", "assess"),
        ("Started", "Orchestrator", "claim"),
    ]
    assert_no_payload(kept)


async def test_without_the_setting_nothing_is_told(kept):
    async with environment(office(claim_async)) as env:
        await env.client.start_new("claim", "claim-1", SECRET)
        await env.settled()
        assert not any(isinstance(one, Tracking) for one in listeners_of(env.engine.telemetry))
    assert kept.records == []


async def test_a_handler_that_fails_costs_its_own_records_only(kept, monkeypatch):
    def emit(record: logging.LogRecord) -> None:
        raise ValueError("disk full")

    monkeypatch.setattr(kept, "emit", emit)
    async with environment(office(claim_async), settings=TRACKED) as env:
        assert (await env.run("pay", 1)).output == 1


async def test_what_does_not_fit_is_dropped_and_said_once(kept, caplog, monkeypatch):
    go_on, writes = threading.Event(), kept.emit
    monkeypatch.setattr(kept, "emit", lambda record: (go_on.wait(30), writes(record)))
    monkeypatch.setattr(tracking, "PENDING", 3)
    async with environment(office(claim_async), settings=TRACKED) as env:
        for number in range(20):
            assert (await env.run("pay", number)).output == number
        go_on.set()
    assert 0 < len(kept.records) < 3 * 20
    said = [record.getMessage() for record in caplog.records if record.name == "perdure.telemetry"]
    assert said == ["the handlers of perdure.tracking are slow: some of its records are dropped"]


async def test_records_carry_the_span_of_their_instance_also_if_its_code_is_not_in_memory(kept, collected):
    async with environment(office(claim_async), settings=TRACKED) as env:
        await env.client.start_new("claim", "claim-1", SECRET)
        await env.settled()
        await env.evict()
        await env.client.terminate("claim-1")
        await env.client.wait_for_completion("claim-1", 60)
    assert kept.told("claim-1")[-1] == ("Terminated", "Orchestrator", "claim")
    span = collected.one("orchestration:claim")
    assert {(record.trace_id, record.span_id) for record in kept.records} == {
        (f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}")
    }
