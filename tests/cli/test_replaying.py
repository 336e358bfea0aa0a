"""export and replay: would the code of today do again what instances have done?"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import perdure as df
from perdure.testing import check_recording, read_recording
from tests.cli.test_cli import perdure

BEFORE = """
import perdure as df

app = df.App("shop")

@app.activity
def reserve(order): ...

@app.activity
def ship(order): ...

@app.orchestrator
async def order(context: df.OrchestrationContext):
    if context.instance_id == "picky" and context.get_input() != "x" * 40_000:
        raise ValueError("the input came over changed")
    await context.call_activity("reserve", "x" * 40_000)
    await context.wait_for_external_event("Paid")
    return await context.call_activity("ship", 1)

@app.orchestrator
def slow(context: df.OrchestrationContext):
    yield context.create_timer(3600)
    return "done"

@app.orchestrator
def outer(context: df.OrchestrationContext):
    return (yield context.call_sub_orchestrator("slow"))
"""
AFTER = BEFORE.replace('call_activity("reserve"', 'call_activity("ship"')
WITHOUT = BEFORE.replace("def slow(", "def slowly(")
REFACTORED = BEFORE.replace(
    """    return await context.call_activity("ship", 1)
""",
    """    shipped = await context.call_activity("ship", 1)
    return shipped
""",
)


@pytest.fixture
def shop(store: Path, tmp_path: Path) -> Path:
    """A store with instances in flight, and app.py as it was when they were started."""
    (tmp_path / "app.py").write_text(BEFORE)
    names: dict[str, Any] = {}
    exec(compile(BEFORE, "app.py", "exec"), names)

    async def fill() -> None:
        async with names["app"].running(store=str(store)) as client:
            for number in range(3):
                await client.start_new("order", f"order-{number}")
            await client.start_new("order", "picky", "x" * 40_000)
            await client.start_new("outer", "outer")
            await client.start_new("order", "paid")
            await client.raise_event("paid", "Paid")
            await client.wait_for_completion("paid", 10)
            for one in ("order-0", "picky"):
                while (await client.get_status(one)).waiting_for.find("Paid") < 0:
                    await asyncio.sleep(0.01)

    asyncio.run(fill())
    return store


def code(tmp_path: Path, text: str, name: str) -> str:
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    return str(path)


def test_all_in_flight_agree_with_the_code_they_run(shop: Path, tmp_path: Path) -> None:
    result = perdure("replay", "--app", code(tmp_path, BEFORE, "same_app"), store=shop)

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "order\t4\t0\t0\t0\t",
        "outer\t1\t0\t0\t0\t",
        "slow\t1\t0\t0\t0\t",
        "6 of 6 agree with the code.",
    ]


def test_a_change_that_does_not_matter_agrees(shop: Path, tmp_path: Path) -> None:
    assert perdure("replay", "--app", code(tmp_path, REFACTORED, "refactored"), store=shop).exit_code == 0


def test_a_change_that_matters_is_told_with_its_line(shop: Path, tmp_path: Path) -> None:
    result = perdure("replay", "--app", code(tmp_path, AFTER, "changed_app"), store=shop)

    assert result.exit_code == 1
    assert "order\t0\t4\t0\t0" in result.stdout
    assert "reserve" in result.stdout
    assert "changed_app.py" in result.stdout
    assert result.stdout.endswith("2 of 6 agree with the code.\n")


def test_a_function_that_is_gone_is_told(shop: Path, tmp_path: Path) -> None:
    result = perdure("replay", "--app", code(tmp_path, WITHOUT, "lacking_app"), "--json", store=shop)

    told = json.loads(result.stdout)
    assert (result.exit_code, told["checked"], told["agree"]) == (1, 6, 4)
    assert {(one["name"], one["finding"]) for one in told["verdicts"]} == {
        ("slow", "missing"),
        ("outer", "missing"),
    }
    assert all("slow" in one["detail"] for one in told["verdicts"])


@pytest.mark.parametrize(
    ("options", "checked"),
    [
        (("--name", "order"), 4),
        (("--status", "completed"), 1),
        (("--prefix", "order-"), 3),
        (("--waiting-for", "Paid", "--prefix", "picky"), 1),
        (("--prefix", "nobody"), 0),
    ],
)
def test_some_may_be_chosen(shop: Path, tmp_path: Path, options: tuple[str, ...], checked: int) -> None:
    target = code(tmp_path, BEFORE, "same_app")
    result = perdure("replay", "--app", target, *options, "--json", store=shop)

    assert (result.exit_code, json.loads(result.stdout)["checked"]) == (0, checked)


def test_what_is_served_can_be_replayed_beside_the_server(shop: Path, tmp_path: Path) -> None:
    async def during() -> str:
        async with df.App("shop").running(store=str(shop), accept_only=True):
            result = await asyncio.to_thread(
                perdure, "replay", "--app", code(tmp_path, AFTER, "changed_app"), store=shop
            )
            return str(result.stdout)

    assert "2 of 6 agree" in asyncio.run(during())


def test_an_exported_history_is_checked_anywhere(shop: Path, tmp_path: Path) -> None:
    exported = perdure("export", "picky", store=shop)
    saved = tmp_path / "saved.json"
    saved.write_text(exported.stdout)
    document = json.loads(exported.stdout)
    same = perdure("replay", str(saved), "--app", code(tmp_path, BEFORE, "same_app"))
    other = perdure("replay", str(saved), "--app", code(tmp_path, AFTER, "changed_app"))

    assert exported.exit_code == 0
    assert (document["format"], document["instanceId"], document["name"]) == (
        "perdure-history/1",
        "picky",
        "order",
    )
    assert document["events"][0]["input"] == "x" * 40_000
    assert (same.exit_code, same.stdout) == (0, "picky agrees.\n")
    assert other.exit_code == 1
    assert other.stdout.endswith("picky disagrees with the code.\n")


@pytest.mark.parametrize("command", ["export", "history"])
def test_a_recording_is_read_in_every_form(shop: Path, tmp_path: Path, command: str) -> None:
    text = perdure(command, "paid", "--json", store=shop).stdout if command == "history" else ""
    text = text or perdure("export", "paid", store=shop).stdout
    names: dict[str, Any] = {}
    exec(compile(BEFORE, "app.py", "exec"), names)

    assert check_recording(text, names["app"]).agrees
    assert check_recording(json.dumps(json.loads(text)["events"]), names["app"]).agrees
    assert read_recording(text).name == "order"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"events": []}',
        '{"events": [1]}',
        '{"format": "other/1", "events": [{"type": "x"}]}',
        "7",
    ],
)
def test_what_is_no_recording_is_refused(text: str) -> None:
    with pytest.raises(df.PayloadError):
        read_recording(text)


def test_a_history_of_a_newer_version_cannot_be_read_and_says_so(shop: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved.json"
    document = json.loads(perdure("export", "paid", store=shop).stdout)
    document["events"].insert(1, {**document["events"][1], "type": "FromTheFuture"})
    saved.write_text(json.dumps(document))
    result = perdure("replay", str(saved), "--app", code(tmp_path, BEFORE, "same_app"), "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["verdicts"][0]["finding"] == "unreadable"


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (("export", "nobody"), 3),
        (("replay", "none.json"), 4),
        (("replay", "none.json", "--name", "order"), 2),
        (("replay", "--app", "none.py"), 1),
    ],
)
def test_what_cannot_be_done_is_said(
    shop: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...], exit_code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    assert perdure(*arguments, store=shop).exit_code == exit_code


# ---------------------------------------------------------------------------------------------------- misfits

TYPED = """
import asyncio
from dataclasses import dataclass
import perdure as df

app = df.App("typed")

@dataclass
class Claim:
    id: str

@app.activity
def read() -> Claim:
    return Claim("c-1")

@app.activity
def begin(claim: Claim): ...

@app.activity(retry=df.RetryPolicy(first_interval=86_400))
def again(claim: Claim):
    raise ConnectionError("not now")

@app.activity
async def forever(claim: Claim):
    await asyncio.Event().wait()

@app.orchestrator
async def result(context: df.OrchestrationContext):
    try:
        await context.call_activity(read)
    except Exception:
        pass
    await context.wait_for_external_event("Never")

@app.orchestrator
async def input_(context: df.OrchestrationContext, claim: Claim):
    await context.wait_for_external_event("Never")

@app.orchestrator
async def activity(context: df.OrchestrationContext):
    await context.call_activity("forever", {"id": "c-1"})

@app.orchestrator
async def retry(context: df.OrchestrationContext):
    await context.call_activity(again, {"id": "c-1"})

@app.orchestrator
async def child(context: df.OrchestrationContext):
    await context.call_sub_orchestrator("input_", {"id": "c-1"})

@app.orchestrator(events={"Decision": Claim, "Never": object})
async def buffered(context: df.OrchestrationContext):
    await context.wait_for_external_event("Never")

@app.orchestrator
async def held(context: df.OrchestrationContext):
    await context.wait_for_external_event("Decision", Claim)

@app.entity
@dataclass
class Till:
    last: Claim | None = None

    def put(self, last: Claim) -> None:
        self.last = last
"""
NARROWER = TYPED.replace("    id: str\n", "    id: str\n    region: str\n").replace(
    'Claim("c-1")', 'Claim("c-1", "eu")'
)
WIDER = NARROWER.replace("    region: str\n", '    region: str = "eu"\n')
WHOSE = {
    "result": "the result of call 0",
    "input_": "the input",
    "activity": "the input of call 0 (activity 'forever')",
    "retry": "the input of call 0 (activity 'again')",
    "child": "the input of call 0 (sub-orchestration 'input_')",
    "buffered": "event 'Decision'",
    "held": "the event 'Decision'",
    "@till": "the state of the entity @till@1",
}


@pytest.fixture
def typed(store: Path, tmp_path: Path) -> Path:
    """A store with something of every kind that may not fit."""
    names: dict[str, Any] = {"__name__": "typed"}
    exec(compile(TYPED, "app.py", "exec"), names)

    async def fill() -> None:
        async with names["app"].running(store=str(store)) as client:
            for name in WHOSE:
                if name != "@till":
                    await client.start_new(name, name, {"id": "c-1"})
            await client.raise_event("buffered", "Decision", {"id": "c-1"})
            await client.suspend("held")
            await client.raise_event("held", "Decision", {"id": "c-1"})
            await client.signal_entity("@till@1", "put", {"id": "c-1"})
            while not (await client.read_entity_state("@till@1")).exists:
                await asyncio.sleep(0.01)
            while (
                "again" not in (await client.get_status("retry")).waiting_for
                or not (await client.get_status("retry")).waiting.retries
            ):
                await asyncio.sleep(0.01)
            for name in ("result", "input_", "activity", "child"):
                while not (await client.get_status(name)).waiting_for:
                    await asyncio.sleep(0.01)

    asyncio.run(fill())
    return store


def test_misfits_are_found_before_the_deploy_also_in_what_has_not_been_read(
    typed: Path, tmp_path: Path
) -> None:
    result = perdure("replay", "--app", code(tmp_path, NARROWER, "narrower"), "--json", store=typed)

    assert result.exit_code == 1, result.output
    found = {one["name"]: one for one in json.loads(result.stdout)["verdicts"]}
    assert set(found) == set(WHOSE)
    for name, whose in WHOSE.items():
        assert found[name]["finding"] == "misfit"
        assert whose in found[name]["detail"]
        assert "`region`" in found[name]["detail"]


def test_misfits_have_a_column_where_there_are_any(typed: Path, tmp_path: Path) -> None:
    told = perdure("replay", "--app", code(tmp_path, NARROWER, "narrower_too"), store=typed)
    agreed = perdure("replay", "--app", code(tmp_path, WIDER, "wider"), store=typed)

    assert "result\t0\t0\t1\t0\t0" in told.stdout
    assert "give 'region' a default" in told.stdout
    assert agreed.exit_code == 0, agreed.output
    assert "result\t1\t0\t0\t0" in agreed.stdout
