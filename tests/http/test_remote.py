"""The remote client: the same verbs, the same answers, the same errors as in process."""

from datetime import UTC, datetime
from types import CodeType

import httpx2
import pytest

import perdure as df
from perdure.engine.client.client import Client
from perdure.http.remote.client import RemoteClient
from perdure.http.remote.gateway import HttpGateway
from tests.http.conftest import LOCAL


async def test_an_instance_is_started_asked_about_and_finished(remote: RemoteClient) -> None:
    started = await remote.start_new("approval", "a-1", {"n": 1}, tags={"region": "eu"})
    before = await remote.get_status("a-1", show_history=True, show_input=True)
    await remote.raise_event("a-1", "ApproverDecision", {"approved": True})
    after = await remote.wait_for_completion("a-1", 10)

    assert started == "a-1"
    assert before is not None
    assert before.input == {"n": 1}
    assert before.tags == {"region": "eu"}
    assert before.waiting is not None
    assert before.waiting.events[0].name == "ApproverDecision"
    assert before.waiting_for == before.waiting.sentence()
    assert before.history is not None
    assert before.history[0]["type"] == "ExecutionStarted"
    assert after.runtime_status is df.RuntimeStatus.Completed
    assert after.output == "APPROVED"


@pytest.mark.parametrize("name", ["broken", "echo", "approval"])
async def test_a_status_is_the_same_at_both_ends(local: df.Client, remote: RemoteClient, name: str) -> None:
    await local.start_new(name, "x", [1, {"a": None}])
    if name != "approval":
        await local.wait_for_completion("x", 10)

    assert await remote.get_status("x", True, True, True) == await local.get_status("x", True, True, True)
    assert (await remote.query(show_input=True)).instances == (await local.query(show_input=True)).instances
    assert await remote.counts() == await local.counts()
    assert await remote.statistics("day") == await local.statistics("day")


async def test_a_query_is_paged_and_filtered(remote: RemoteClient) -> None:
    for number in range(5):
        await remote.start_new("sleeper", f"s-{number}", tags={"n": str(number)})
    await remote.start_new("approval", "a-1")

    first = await remote.query(name="sleeper", top=3)
    second = await remote.query(name="sleeper", top=3, continuation=first.continuation)
    by_tag = await remote.query(tags={"n": "2"}, status=["Running", df.RuntimeStatus.Pending])
    waiting = await remote.query(
        waiting_for="ApproverDecision", created_from=datetime(2020, 1, 1, tzinfo=UTC)
    )

    assert [one.instance_id for one in first.instances + second.instances] == [
        "s-4",
        "s-3",
        "s-2",
        "s-1",
        "s-0",
    ]
    assert [one.instance_id for one in by_tag.instances] == ["s-2"]
    assert [one.instance_id for one in waiting.instances] == ["a-1"]


async def test_every_other_verb_arrives(remote: RemoteClient) -> None:
    await remote.start_new("sleeper", "s-1")
    await remote.suspend("s-1", "audit & co")
    suspended = await remote.get_status("s-1")
    await remote.resume("s-1")
    await remote.terminate("s-1", "enough", recursive=True)
    terminated = await remote.wait_for_completion("s-1", 10)
    restarted = await remote.restart("s-1")
    in_place = await remote.restart("s-1", False)
    await remote.terminate("s-1")
    await remote.wait_for_completion("s-1", 10)
    await remote.start_new("broken", "b-1")
    await remote.wait_for_completion("b-1", 10)
    await remote.rewind("b-1", "it is mended")
    await remote.wait_for_completion("b-1", 10)
    rewound = await remote.get_status("b-1", True)
    assert rewound is not None
    assert "it is mended" in [e.get("reason") for e in rewound.history or ()]
    assert rewound.executions == [1]
    with pytest.raises(df.InstanceFinished):
        await remote.rewind("s-1")

    assert suspended is not None
    assert "audit & co" in suspended.reason
    assert terminated.output == "enough"
    assert restarted != "s-1"
    assert in_place == "s-1"
    assert await remote.purge_instance_history("s-1") == 1
    assert await remote.purge_instance_history("s-1") == 0
    assert await remote.get_status("s-1") is None


async def test_an_id_that_needs_quoting_arrives_as_it_is(remote: RemoteClient) -> None:
    await remote.start_new("open_door", "a b%20+&=ü", "x")
    await remote.raise_event("a b%20+&=ü", "anything at all", [1])

    assert (await remote.wait_for_completion("a b%20+&=ü", 10)).output == [1]


@pytest.mark.parametrize(
    ("verb", "arguments", "error"),
    [
        ("start_new", ("nothing",), df.FunctionNotFound),
        ("start_new", ("echo", "a#b"), df.InvalidInstanceId),
        ("start_new", ("sleeper", "here"), df.InstanceExists),
        ("start_new", ("echo", None, float("nan")), df.PayloadError),
        ("raise_event", ("nobody", "e"), df.InstanceNotFound),
        ("raise_event", ("asking", "Other"), df.EventRefused),
        ("raise_event", ("asking", "ApproverDecision", {"approved": 3}), df.EventRefused),
        ("terminate", ("nobody",), df.InstanceNotFound),
        ("restart", ("here",), df.IllegalTransition),
        ("restart", ("nobody",), df.InstanceNotFound),
        ("purge_instance_history", ("here",), df.IllegalTransition),
        ("wait_for_completion", ("here", 0.01), TimeoutError),
        ("wait_for_completion", ("nobody", 1), df.InstanceNotFound),
    ],
)
async def test_an_error_is_the_one_that_the_verb_raises_in_process(
    local: df.Client, remote: RemoteClient, verb: str, arguments: tuple[object, ...], error: type[Exception]
) -> None:
    await local.start_new("sleeper", "here")
    await local.start_new("approval", "asking")

    with pytest.raises(error) as nearby:
        await getattr(local, verb)(*arguments)
    with pytest.raises(error) as far:
        await getattr(remote, verb)(*arguments)

    assert type(far.value) is type(nearby.value)
    assert getattr(far.value, "pointer", "") == getattr(nearby.value, "pointer", "")


async def test_a_server_that_is_not_there_has_done_nothing() -> None:
    async with RemoteClient("http://127.0.0.1:9") as remote:
        with pytest.raises(df.EngineStopped, match="cannot reach"):
            await remote.start_new("echo")
        with pytest.raises(df.EngineStopped):
            await remote.get_status("x")


async def test_an_answer_that_got_lost_is_an_unknown_outcome() -> None:
    def lose(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError("the line broke", request=request)

    async with RemoteClient(LOCAL, transport=httpx2.MockTransport(lose)) as remote:
        with pytest.raises(df.OutcomeUnknown):
            await remote.raise_event("x", "e")


async def test_an_answer_from_something_else_is_an_error_all_the_same() -> None:
    def proxy(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(502, text="<html>Bad Gateway</html>")

    async with RemoteClient(LOCAL, transport=httpx2.MockTransport(proxy)) as remote:
        with pytest.raises(df.PerdureError, match="502"):
            await remote.start_new("echo")


async def test_every_change_bears_an_idempotency_key_and_the_hub() -> None:
    seen: list[httpx2.Request] = []

    def note(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(202, json={"id": "x"})

    async with RemoteClient(LOCAL, hub="claims", key="k", transport=httpx2.MockTransport(note)) as remote:
        await remote.start_new("echo", operation_id="op-1")
        await remote.raise_event("x", "e", event_id="ev-1")
        await remote.terminate("x")

    keys = [request.headers["idempotency-key"] for request in seen]
    assert keys[:2] == ["op-1", "ev-1"]
    assert len(keys[2]) == 32
    assert all(request.url.params["taskHub"] == "claims" for request in seen)
    assert all(request.headers["x-functions-key"] == "k" for request in seen)


async def test_bulk_operations_go_page_by_page(
    local: df.Client, remote: RemoteClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.engine.client.bulk.PAGE", 3)
    for number in range(7):
        await remote.start_new("sleeper", f"s-{number}", tags={"n": str(number % 2)})
    told: list[int] = []

    seen = await remote.bulk("terminate", dry_run=True, prefix="s-", tags={"n": "1"})
    held = await remote.bulk("suspend", tags={"n": "1"}, reason="audit")
    ended = await remote.bulk("terminate", name="sleeper", progress=lambda outcome: told.append(outcome.done))
    purged = await remote.purge_instance_history_by(runtime_status=["Terminated"])

    assert (seen.matched, seen.examples, seen.dry_run) == (3, ["s-5", "s-3", "s-1"], True)
    assert held.done == 3
    assert (ended.matched, ended.done, ended.finished, told) == (7, 7, True, [0, 3, 6, 7])
    assert purged == 7
    assert await local.counts() == {}
    with pytest.raises(df.PayloadError, match="restart"):
        await remote.bulk("restart")


async def test_a_purge_takes_sub_orchestrations_along(local: df.Client, remote: RemoteClient) -> None:
    for one in ("p", "q"):
        await local.start_new("parent", one)
        await local.wait_for_completion(one, 10)

    assert await remote.purge_instance_history("p", recursive=True) == 2
    assert await remote.purge_instance_history("p", recursive=True) == 0
    assert (await remote.bulk("purge", name="parent", recursive=True)).done == 1
    assert (await local.query()).instances == []


async def test_parked_instances_are_found(local: df.Client, remote: RemoteClient) -> None:
    await local.start_new("lost", "parked")
    await local.start_new("approval", "held")
    await local.suspend("held")

    found = (await remote.query(parked=True)).instances
    assert [(one.instance_id, one.is_parked) for one in found] == [("parked", True)]
    assert not (await remote.get_status("held")).is_parked  # type: ignore[union-attr]
    several = await remote.query(status=["Pending", "Suspended"])
    assert {one.instance_id for one in several.instances} == {"parked", "held"}


QUESTIONS = {"store", "read", "watching", "record", "pulses", "salt_at_hand"}
OF_SERVERS = {
    "_is_own",
    "first_link_key",
}  # what an engine in process met; the key that a server signs links with


def names_in(code: CodeType) -> set[str]:
    """Every attribute and global that a function names, also in the functions inside it."""
    inner = (names_in(one) for one in code.co_consts if isinstance(one, CodeType))
    return set(code.co_names).union(*inner)


def asks(verb: str) -> bool:
    """Whether a method of `Client` asks a store, by itself or by a private method."""
    code = getattr(getattr(Client, verb), "__code__", None)
    named = names_in(code) if code is not None else set()
    private = {one for one in named - OF_SERVERS if one.startswith("_") and hasattr(Client, one)}
    return bool(named & QUESTIONS) or any(asks(one) for one in private)


def test_a_remote_client_has_its_own_way_to_ask_whatever_a_client_asks_a_store() -> None:
    asking = {verb for verb in set(dir(Client)) - OF_SERVERS if not verb.startswith("_") and asks(verb)}
    assert {"get_status", "query", "counts", "read_entity_state", "keys", "audit"} <= asking
    assert {verb for verb in asking if getattr(RemoteClient, verb) is getattr(Client, verb)} == set()
    assert not any(hasattr(HttpGateway, question) for question in QUESTIONS)
