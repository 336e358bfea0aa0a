"""Timers, queues, and what functions put into queues, on the virtual clock."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import pytest

from perdure.app import App
from perdure.errors import HostedAppError
from perdure.hosts.azure_functions.application import load
from perdure.hosts.azure_functions.queues import TextQueue
from perdure.hosts.azure_functions.retrying import policy_of, time_span
from perdure.model.retry import RetryPolicy
from perdure.testing import environment
from perdure.triggers import Queues, Schedules
from perdure.triggers.definitions import Queue
from tests.hosted.programs import APPS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> App:
    monkeypatch.setenv("EVERY", "0 0 12 1 1 *")
    monkeypatch.setenv("SECOND", "second")
    return load(APPS / "triggers").app


def seen(kind: str) -> list[Any]:
    return [
        rest[0] if len(rest) == 1 else rest for one, *rest in sys.modules["function_app"].seen if one == kind
    ]


async def test_timers_fire_and_start_orchestrations(app: App) -> None:
    async with environment(app) as env:
        await env.settled()
        assert seen("at_start") == [False]
        await env.advance(days=2)
        assert [late for late, _ in seen("nightly")] == [False, False]
        assert "T03:00:00" in seen("nightly")[0][1]
        outputs = [one.output for one in (await env.client.query(name="work")).instances]
        assert outputs == ["from the timer"] * 2
        assert seen("second") == ["recorded from the timer"] * 2


async def test_a_timer_with_a_retry_is_tried_again(app: App) -> None:
    async with environment(app) as env:
        await env.advance(hours=1)
        assert seen("flaky")[:3] == [0, 1, 2]


async def test_messages_are_text_and_what_a_function_sets_is_sent_when_it_has_succeeded(app: App) -> None:
    async with environment(app) as env:
        queues = Queues(env.client)
        await queues.send("orders", {"a": 1}, message_id="m-1")
        await queues.send("starts", "a text")
        await env.settled()
        assert seen("ordered") == [["m-1", 1, {"a": 1}]]
        assert sorted(seen("second")) == ["no json", "recorded a text", '{"a": 1}']


async def test_a_message_that_fails_too_often_is_a_dead_letter(app: App) -> None:
    async with environment(app) as env:
        await Queues(env.client).send("orders", '"bad"', message_id="m-2")
        await env.settled()
        assert [count for _, count, _ in seen("ordered")] == [1]
        await env.advance(seconds=5)
        assert [count for _, count, _ in seen("ordered")] == [1, 2]
        assert (await Queues(env.client).status("orders")).dead == 1
        assert seen("second") == []


def test_a_connection_string_means_azure_storage(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def sources() -> dict[str, Any]:
        triggers = load(APPS / "triggers").app.registry.triggers
        return {one.name: one.source for one in triggers if isinstance(one, Queue)}

    assert set(sources().values()) == {None}
    monkeypatch.setenv("AzureWebJobsStorage", "UseDevelopmentStorage=true")
    assert set(sources().values()) == {None}
    monkeypatch.setenv("AzureWebJobsStorage", "AccountName=a;AccountKey=b")
    found = sources()
    assert isinstance(found["orders"], TextQueue) and found["second"] is None
    both = load(APPS / "triggers", queues="storage").app.registry.triggers
    assert all(isinstance(one.source, TextQueue) for one in both if isinstance(one, Queue))


def test_a_setting_that_is_missing_is_a_fault(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVERY")
    with pytest.raises(HostedAppError, match="at_start: it needs the setting 'EVERY'"):
        load(APPS / "triggers")
    for nonsense in ("00:61:00", "* * nonsense"):
        monkeypatch.setenv("EVERY", nonsense)
        with pytest.raises(HostedAppError, match="at_start: "):
            load(APPS / "triggers")


async def test_a_time_span_is_a_schedule(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERY", "00:05:00")
    async with environment(load(APPS / "triggers").app) as env:
        listed = {one.name: one.words for one in await Schedules(env.client).list()}
        await env.settled()
        before = len(seen("at_start"))
        await env.advance(minutes=50)
        assert len(seen("at_start")) - before == 10
    assert listed["at_start"] == "Every 0:05:00"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:00:05", 5), ("1.02:03:04", 93784), ("00:00:00.5", 0.5), (3, 3), ("00:01:00.25", 60.25)],
)
def test_durations_are_read_as_azure_writes_them(text: Any, seconds: float) -> None:
    assert time_span(text) == timedelta(seconds=seconds)


def test_retries_as_policies() -> None:
    assert policy_of(None) is None
    told = {"strategy": "exponentialBackoff", "maxRetryCount": -1, "minimumInterval": "00:00:02"}
    assert policy_of(told) == RetryPolicy(
        first_interval=timedelta(seconds=2), max_interval=timedelta(seconds=30), backoff=2.0, max_attempts=0
    )
    with pytest.raises(ValueError, match="no duration"):
        time_span("5 minutes")
