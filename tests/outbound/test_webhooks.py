"""Webhooks: each event once in the hub, signed, retried, and never of a built-in instance."""

from __future__ import annotations

import base64
import hmac
import json
import logging
from datetime import timedelta
from hashlib import sha256

import pytest

import perdure as df
from perdure.testing import environment
from tests.core.styles import both
from tests.outbound.conftest import Server, answer

ADA = df.Person("ada@example.org", ("adjuster",))
BEN = df.Person("ben@example.org", ("adjuster", "supervisor"))
HOUR = timedelta(hours=1)
KEY = base64.b64encode(b"a key of the receiver").decode()


def app_with(server: Server, orchestrator, **options) -> df.App:
    allow = [f"127.0.0.1:{server.port}"]
    app = df.App(
        "claims",
        http=df.HttpPolicy(allow=allow, timeout=30, secrets={"HOOK": f"whsec_{KEY}"}),
        webhooks=[df.Webhook(f"{server.url}/hook", secret=df.Secret("HOOK"), name="crm", **options)],
    )
    app.orchestrator(name="main")(orchestrator)
    server.answers["/hook"] = answer(204)
    return app


def told(server: Server) -> list[dict]:
    return [json.loads(asked.body) for asked in server.asked]


def kinds(server: Server) -> list[str]:
    return [one["type"] for one in told(server)]


def four_eyes(context: df.OrchestrationContext):
    task = context.human_task(
        "Decide", bool, title="Pay?", facts={"amount": 3}, roles=("adjuster",), timeout=72 * HOUR, decisions=2
    )
    return (yield task)


async def four_eyes_async(context: df.OrchestrationContext):
    return await context.human_task(
        "Decide", bool, title="Pay?", facts={"amount": 3}, roles=("adjuster",), timeout=72 * HOUR, decisions=2
    )


@both(four_eyes, four_eyes_async)
async def test_a_task_is_told_when_it_is_created_and_when_the_last_person_has_decided(server, orchestrator):
    async with environment(app_with(server, orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        assert kinds(server) == ["task.created"]
        await env.client.raise_event(instance, "Decide", True, person=ADA)
        await env.settled()
        assert kinds(server) == ["task.created"]
        await env.client.raise_event(instance, "Decide", False, person=BEN)
        await env.settled()

        assert sorted(kinds(server)[1:]) == ["instance.completed", "task.completed"]
        created = told(server)[0]
        done = next(one for one in told(server) if one["type"] == "task.completed")
        assert created["data"]["task"]["id"] == done["data"]["task"]["id"] == f"{instance}:0"
        assert created["data"]["task"]["title"] == "Pay?"
        assert created["data"]["task"]["decidedBy"] == []
        assert done["data"]["task"]["decidedBy"] == ["ada@example.org", "ben@example.org"]
        assert (created["hub"], created["version"]) == ("claims", 1)
        assert created["data"]["instanceId"] == instance
        assert "amount" not in str(told(server))


@both(four_eyes, four_eyes_async)
async def test_details_are_sent_only_to_a_receiver_that_asks_for_them(server, orchestrator):
    async with environment(app_with(server, orchestrator, details=True)) as env:
        instance = await env.client.start_new("main")
        for person in (ADA, BEN):
            await env.client.raise_event(instance, "Decide", True, person=person)
        await env.settled()
        by_kind = {one["type"]: one["data"] for one in told(server)}
        assert by_kind["task.created"]["facts"] == {"amount": 3}
        assert by_kind["instance.completed"]["output"] == [True, True]


async def test_the_receiver_can_verify_each_request_by_the_scheme_of_standard_webhooks(server):
    async with environment(app_with(server, four_eyes)) as env:
        await env.client.start_new("main")
        await env.settled()
    (asked,) = server.asked
    signed = b".".join(
        [asked.headers["webhook-id"].encode(), asked.headers["webhook-timestamp"].encode(), asked.body]
    )
    expected = base64.b64encode(hmac.digest(b"a key of the receiver", signed, sha256)).decode()
    assert asked.headers["webhook-signature"] == f"v1,{expected}"
    assert asked.headers["webhook-id"] == json.loads(asked.body)["id"]
    assert asked.headers["content-type"] == "application/json"


async def test_a_failed_delivery_is_repeated_with_the_same_id_and_body_also_after_a_restart(server, tmp_path):
    app = app_with(server, four_eyes)
    server.answers["/hook"] = answer(503)
    async with environment(app, store=str(tmp_path / "hub.db")) as env:
        await env.client.start_new("main")
        await env.settled()
        first = len(server.asked)
        assert first == 1
        await env.restart()
        server.answers["/hook"] = answer(200)
        await env.advance(minutes=1)
        assert len(server.asked) == 2
        assert server.asked[0].body == server.asked[1].body
        assert server.asked[0].headers["webhook-id"] == server.asked[1].headers["webhook-id"]
        assert server.asked[0].headers["webhook-timestamp"] != server.asked[1].headers["webhook-timestamp"]
        await env.advance(hours=5)
        assert len(server.asked) == 2


async def test_a_delivery_that_succeeded_leaves_no_instance(server):
    async with environment(app_with(server, four_eyes, events=["task.created"])) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        assert kinds(server) == ["task.created"]
        assert [one.instance_id for one in (await env.client.query()).instances] == [instance]


async def test_a_dead_receiver_is_given_up_in_the_end_and_a_rewind_delivers_again(server, caplog):
    caplog.set_level(logging.ERROR, "perdure.webhooks")
    async with environment(app_with(server, four_eyes, give_up_after=HOUR)) as env:
        server.answers["/hook"] = answer(500)
        await env.client.start_new("main")
        await env.advance(hours=3)
        (failed,) = (await env.client.query(status=[df.RuntimeStatus.Failed])).instances
        assert failed.instance_id.startswith("webhook:crm:evt_")
        assert "gave up on task.created" in caplog.text
        assert 5 < len(server.asked) < 20  # the pauses double

        tried = len(server.asked)
        server.answers["/hook"] = answer(200)
        await env.client.rewind(failed.instance_id)
        await env.settled()
        assert len(server.asked) == tried + 1
        assert await env.client.get_status(failed.instance_id) is None


async def test_410_and_an_address_outside_the_policy_end_a_delivery_at_once(server, caplog):
    caplog.set_level(logging.ERROR, "perdure.webhooks")
    async with environment(app_with(server, four_eyes)) as env:
        server.answers["/hook"] = answer(410)
        await env.client.start_new("main")
        await env.advance(hours=2)
        assert len(server.asked) == 1
    app = df.App("claims", http=df.HttpPolicy(secrets={"HOOK": "k"}))
    app.registry.webhooks = (df.Webhook(f"{server.url}/hook", secret=df.Secret("HOOK")),)
    app.orchestrator(name="main")(four_eyes)
    async with environment(app) as env:
        await env.client.start_new("main")
        await env.advance(hours=2)
        assert len(server.asked) == 1
    assert caplog.text.count("gave up") == 2


def escalating(context: df.OrchestrationContext):
    task = context.human_task(
        "Decide",
        bool,
        roles=("adjuster",),
        timeout=72 * HOUR,
        escalate={48 * HOUR: "supervisor"},
        default=False,
    )
    return (yield task)


async def escalating_async(context: df.OrchestrationContext):
    return await context.human_task(
        "Decide",
        bool,
        roles=("adjuster",),
        timeout=72 * HOUR,
        escalate={48 * HOUR: "supervisor"},
        default=False,
    )


@both(escalating, escalating_async)
async def test_escalation_due_soon_and_expiry_come_in_their_order(server, orchestrator):
    async with environment(app_with(server, orchestrator, due_soon=2 * HOUR)) as env:
        await env.client.start_new("main")
        await env.advance(hours=47)
        assert kinds(server) == ["task.created"]
        await env.advance(hours=2)
        assert kinds(server)[1:] == ["task.escalated"]
        assert told(server)[1]["data"]["task"]["roles"] == ["supervisor"]
        await env.advance(hours=22)
        assert kinds(server)[2:] == ["task.due_soon"]
        await env.advance(hours=2)
        assert sorted(kinds(server)[3:]) == ["instance.completed", "task.closed"]


@both(escalating, escalating_async)
async def test_a_task_that_was_decided_is_not_due_soon(server, orchestrator):
    async with environment(app_with(server, orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Decide", True, person=ADA)
        await env.advance(hours=80)
        assert sorted(kinds(server)) == ["instance.completed", "task.completed", "task.created"]


def plain(context: df.OrchestrationContext):
    yield context.wait_for_external_event("GoOn", timeout=HOUR)


async def plain_async(context: df.OrchestrationContext):
    await context.wait_for_external_event("GoOn", timeout=HOUR)


@both(plain, plain_async)
async def test_a_plain_wait_and_the_ends_of_instances(server, orchestrator):
    async with environment(app_with(server, orchestrator)) as env:
        failing = await env.client.start_new("main")
        await env.advance(hours=2)
        terminated = await env.client.start_new("main")
        await env.settled()
        await env.client.terminate(terminated, "no longer needed")
        await env.settled()
        of = {
            who: [one["type"] for one in told(server) if one["data"]["instanceId"] == who]
            for who in (failing, terminated)
        }
        assert sorted(of[failing]) == ["instance.failed", "task.closed", "task.created", "task.due_soon"]
        assert sorted(of[terminated])[0] == "instance.terminated"
        failure = next(one for one in told(server) if one["type"] == "instance.failed")
        assert failure["data"]["failure"] == "TimeoutError"
        assert "message" not in failure["data"]


def parked(server):
    return [one["data"]["reason"] for one in told(server) if one["type"] == "instance.parked"]


async def test_a_parked_instance_is_told_once(server):
    app = app_with(server, four_eyes)
    async with environment(app) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        other = app_with(server, plain)
        for _ in range(2):  # the worker's start retries the instance and parks it again: that is no news
            await env.restart(other)
            await env.client.raise_event(instance, "Decide", True, person=ADA)
            await env.settled()
        assert parked(server) == ["nondeterminism"]
        await env.client.resume(instance)  # a person learns whether it helped
        await env.settled()
        assert parked(server) == ["nondeterminism"] * 2


async def test_built_in_instances_and_other_kinds_are_not_told(server):
    app = app_with(server, four_eyes, events=["instance.completed"])
    async with environment(app) as env:
        instance = await env.client.start_new("main")
        for person in (ADA, BEN):
            await env.client.raise_event(instance, "Decide", True, person=person)
        await env.advance(hours=100)
        assert [(one["type"], one["data"]["instanceId"]) for one in told(server)] == [
            ("instance.completed", instance)
        ]


async def test_each_receiver_gets_the_same_id(server):
    app = app_with(server, four_eyes)
    other = df.Webhook(f"{server.url}/other", secret=df.Secret("HOOK"), name="mail")
    app.registry.webhooks = (*app.registry.webhooks, other)
    server.answers["/other"] = answer(200)
    async with environment(app) as env:
        await env.client.start_new("main")
        await env.settled()
    assert {asked.target for asked in server.asked} == {"/hook", "/other"}
    assert len({asked.headers["webhook-id"] for asked in server.asked}) == 1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"events": ["task.made"]}, "'task.made' is none of task.created"),
        ({"events": "task.created"}, "a list of kinds"),
        ({"url": "ftp://x"}, "not an absolute http or https"),
        ({"secret": "plain"}, "must be a Secret"),
        ({"name": "a b"}, "name 'a b' is invalid"),
        ({"give_up_after": 0}, "more than 0"),
    ],
)
def test_a_mistake_in_a_declaration_is_named(options, why):
    given = {"url": "https://crm.example.org/hook", "secret": df.Secret("HOOK"), **options}
    with pytest.raises(df.RegistrationError, match=why):
        df.Webhook(given.pop("url"), **given)


def test_two_receivers_need_two_names():
    hook = df.Webhook("https://crm.example.org/hook", secret=df.Secret("HOOK"))
    with pytest.raises(df.RegistrationError, match=r"two webhooks are named 'crm\.example\.org'"):
        df.App("x", webhooks=[hook, hook])
