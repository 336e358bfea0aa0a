"""export and replay: would the code of today do again what instances have done?"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import perdure as df
from perdure.testing import check_recording, read_recording
from tests.hosts.test_cli import perdure

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
