"""Orchestrators that block, and orchestrators that do I/O: found, named, and kept from hurting others."""

import asyncio
import gc
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perdure import App, OrchestrationContext, RuntimeStatus, Settings
from perdure.engine.upkeep.crash_file import StrikeFile
from perdure.engine.upkeep.watchdog import Marker, Watchdog
from perdure.errors import Interrupted
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import app_with

S = RuntimeStatus
QUICK_TO_INTERRUPT = Settings(interrupt_after=0.3)
spins = {"on": True}


def spin_yield(context: OrchestrationContext):
    yield context.create_timer(0)
    while spins["on"]:
        pass
    return "let go"


async def spin_async(context: OrchestrationContext):
    await context.create_timer(0)
    while spins["on"]:
        pass
    return "let go"


@both(spin_yield, spin_async)
async def test_the_watchdog_interrupts_a_spinning_orchestrator_and_parks_it_while_others_go_on(orchestrator):
    async def fine(context: OrchestrationContext):
        return await context.call_activity("work")

    def work() -> str:
        return "worked"

    spins["on"] = True
    app = app_with(orchestrator, work, settings=QUICK_TO_INTERRUPT)
    app.orchestrator(fine)
    async with environment(app) as env:
        spinning, other = await asyncio.gather(env.client.start_new("main"), env.client.start_new("fine"))
        assert (await env.client.wait_for_completion(other)).output == "worked"
        await env.settled()
        parked = await env.client.get_status(spinning)
        spins["on"] = False
        await env.client.resume(spinning)
        status = await env.client.wait_for_completion(spinning)

    assert (parked.runtime_status, parked.reason.partition(":")[0]) == (S.Suspended, "poison")
    assert "failed again and again" in parked.waiting_for
    assert status.output == "let go"


async def test_code_that_swallows_the_interruption_is_parked_all_the_same():
    def stubborn(context: OrchestrationContext):
        try:
            while spins["on"]:
                pass
        except:  # noqa: E722  (what some code does)
            pass
        return "as if nothing had happened"
        yield

    spins["on"] = True
    async with environment(app_with(stubborn, settings=QUICK_TO_INTERRUPT)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        status = await env.client.get_status(instance)
        spins["on"] = False

    assert (status.runtime_status, status.reason.partition(":")[0]) == (S.Suspended, "poison")


async def test_what_arrives_for_a_parked_spinner_is_kept():
    def spin(context: OrchestrationContext):
        yield context.wait_for_external_event("Go")
        while spins["on"]:
            pass
        return (yield context.wait_for_external_event("Go"))

    spins["on"] = True
    async with environment(app_with(spin, settings=QUICK_TO_INTERRUPT)) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Go", 1)
        await env.client.raise_event(instance, "Go", 2)
        spins["on"] = False
        await env.client.resume(instance)

        assert (await env.client.wait_for_completion(instance)).output == 2


async def test_the_watchdog_says_where_the_orchestrator_spins(caplog):
    spins["on"] = True
    async with environment(app_with(spin_async, settings=QUICK_TO_INTERRUPT)) as env:
        instance = await env.client.start_new("main")
        await env.settled()

    assert any(
        instance in record.getMessage() for record in caplog.records if record.name == "perdure.watchdog"
    )


# --------------------------------------------------------------------------------------------- the audit hook


def reads_file(context: OrchestrationContext):
    with open(__file__) as file:
        file.read(10)
    yield context.create_timer(0)


async def opens_socket(context: OrchestrationContext):
    with socket.socket() as channel:
        channel.settimeout(0.001)
        channel.connect_ex(("127.0.0.1", 9))
    await context.create_timer(0)


async def runs_process(context: OrchestrationContext):
    subprocess.run([sys.executable, "-c", ""], check=True)
    await context.create_timer(0)


@pytest.mark.parametrize(
    ("orchestrator", "what"),
    [(reads_file, "open"), (opens_socket, "socket.connect"), (runs_process, "subprocess.Popen")],
)
async def test_files_sockets_and_processes_opened_by_an_orchestrator_are_reported_with_the_line(
    orchestrator, what, caplog
):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.client.wait_for_completion(instance)

    reports = [r.getMessage() for r in caplog.records if r.name == "perdure.watchdog"]
    assert any(what in report and instance in report for report in reports)
    assert any(__file__ in report and "move it into an activity" in report for report in reports)


async def test_imports_tracebacks_and_activities_may_open_files(caplog):
    def work() -> int:
        with open(__file__) as file:
            return len(file.read(3))

    async def main(context: OrchestrationContext):
        import colorsys  # noqa: F401

        try:
            raise ValueError("a traceback reads source files")
        except ValueError:
            import traceback

            traceback.format_exc()
        return await context.call_activity("work")

    sys.modules.pop("colorsys", None)
    async with environment(app_with(main, work)) as env:
        assert (await env.run("main")).output == 3

    assert [r for r in caplog.records if r.name == "perdure.watchdog"] == []


async def test_the_switch_interval_is_what_commits_beside_busy_threads_need():
    async with environment(app_with(opens_socket)):
        assert sys.getswitchinterval() <= 1e-4


@pytest.mark.parametrize(("before", "after"), [(700, 10_000), (50_000, 50_000), (0, 0)])
async def test_the_collector_looks_less_often_unless_it_was_told_what_to_do(before: int, after: int):
    usual = gc.get_threshold()
    gc.set_threshold(before, 7, 9)
    try:
        async with environment(app_with(opens_socket)):
            assert gc.get_threshold()[:2] == (after, 7)
    finally:
        gc.set_threshold(*usual)


@pytest.fixture(autouse=True)
def _logging(caplog):
    caplog.set_level(logging.WARNING, "perdure")


# ------------------------------------------------------------------------------- activities that block the event loop


@pytest.mark.parametrize("how", ["itself", "in a task of its own"])
async def test_an_async_activity_that_blocks_the_event_loop_is_named_with_its_stack(how, caplog):
    def told() -> list[str]:
        return [r.getMessage() for r in caplog.records if "event loop" in r.getMessage()]

    async def block_here() -> None:
        while not told():
            pass

    async def blocks() -> None:
        await asyncio.sleep(0)
        await (block_here() if how == "itself" else asyncio.create_task(block_here()))

    async def calls(context: OrchestrationContext):
        await context.call_activity("blocks")

    async with environment(app_with(calls, blocks)) as env:
        await env.run("main", None, "i-1")

    report = told()[0]
    assert "blocks" in report
    assert "block_here" in report
    assert how != "itself" or "i-1" in report


# ---------------------------------------------------------------------------------------- what is left of a long turn


def holds_yield(context: OrchestrationContext):
    yield context.create_timer(0)
    until_it_is_marked()
    yield context.wait_for_external_event("Go")
    return "went on"


async def holds_async(context: OrchestrationContext):
    await context.create_timer(0)
    until_it_is_marked()
    await context.wait_for_external_event("Go")
    return "went on"


marked = {"by": lambda: True}


def until_it_is_marked() -> None:
    while not marked["by"]():
        pass


@both(holds_yield, holds_async)
async def test_an_orchestrator_that_held_the_loop_leaves_a_trace_that_replay_passes_over(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        marker = env.engine._marker
        marked["by"] = lambda: marker.is_marked
        await env.client.start_new("main", "i-1")
        await env.settled()
        marked["by"] = lambda: True
        await env.evict()
        await env.client.raise_event("i-1", "Go")
        status = await env.client.wait_for_completion("i-1")
        history = (await env.client.get_status("i-1", show_history=True)).history

    (trace,) = [event for event in history if event["type"] == "LoopHeld"]
    assert status.output == "went on"
    assert trace["milliseconds"] > 1_000
    assert __file__ in trace["place"]


@pytest.mark.parametrize("style", ["yield", "async"])
async def test_what_an_endless_loop_of_calls_allocated_is_freed_when_it_is_parked(style):
    def calls_yield(context: OrchestrationContext):
        yield context.create_timer(0)
        while spins["on"]:
            context.call_activity("work")

    async def calls_async(context: OrchestrationContext):
        await context.create_timer(0)
        while spins["on"]:
            context.call_activity("work")

    def work() -> None: ...

    spins["on"] = True
    app = app_with(calls_yield if style == "yield" else calls_async, work, settings=QUICK_TO_INTERRUPT)
    gc.collect()
    gc.disable()
    try:
        async with environment(app) as env:
            instance = await env.client.start_new("main")
            await env.settled()
            parked = await env.client.get_status(instance)
            left = sum(type(one).__name__ == "CallTask" for one in gc.get_objects())
            spins["on"] = False
    finally:
        gc.enable()

    assert parked.runtime_status is S.Suspended
    assert left < 1_000


TRACED = """
import asyncio, sys
import perdure as df
from perdure.testing import environment

app = df.App("traced", settings=df.Settings(interrupt_after=0.3))

@app.orchestrator
async def stubborn(context: df.OrchestrationContext) -> None:
    while True:
        try:
            await context.wait_for_external_event("Go")
        except:
            pass

@app.orchestrator
async def endless(context: df.OrchestrationContext) -> None:
    while True:
        pass

async def main():
    async with environment(app) as env:
        await env.client.start_new(stubborn, "s")
        await env.client.start_new(endless, "e")
        await env.settled()
        await env.client.terminate("s", "enough")
        await env.settled()
        assert (await env.client.get_status("e")).runtime_status == "Suspended"
    sys.settrace(lambda *_: None)  # as a debugger, or coverage
    (lambda: None)()
    sys.settrace(None)
    print("traced")

asyncio.run(main())
"""


def test_a_process_whose_code_was_interrupted_can_be_traced() -> None:
    """CPython 3.11 goes round in circles when an exception that was withdrawn is still looked for."""
    ended = subprocess.run(
        [sys.executable, "-c", TRACED], capture_output=True, text=True, timeout=100, check=False
    )
    assert ended.stdout == "traced\n", ended.stderr


# ------------------------------------------------------------------------ what the engine does in the middle


class Turn:
    """User code on this thread, under a marker and a watchdog whose thread does not run."""

    def __init__(self, tmp_path: Path) -> None:
        self.strikes = StrikeFile(tmp_path / "running")
        self.marker = Marker(self.strikes)
        self.marker.on_this_thread()
        self.watchdog = Watchdog(self.marker)
        self.instance = SimpleNamespace(instance_id="long")

    def run(self, code: Callable[[], Any]) -> Any:
        return self.marker.run(self.instance, code)  # type: ignore[arg-type]

    @property
    def is_blamed(self) -> bool:
        """Whether the instance would get a strike, if the process died now."""
        return self.strikes._map[0] == 1


@pytest.fixture
def turn(tmp_path: Path) -> Iterator[Turn]:
    turn = Turn(tmp_path)
    yield turn
    turn.strikes.close()


def test_no_interruption_reaches_what_the_engine_does_in_the_middle_of_the_code(turn: Turn) -> None:
    marker = turn.marker
    asked: list[bool] = []

    def work() -> None:
        asked.append(marker.interrupt(marker.turn))

    def code() -> str:
        marker.aside(work)
        marker.interrupt(marker.turn)
        while True:
            pass

    with pytest.raises(Interrupted):  # the code's turn goes on, and ends by the second one
        turn.run(code)
    assert asked == [False], "an interruption was raised in the middle of the engine's work"


def test_an_interruption_that_is_on_its_way_goes_before_the_work_of_the_engine(turn: Turn) -> None:
    marker = turn.marker
    done: list[str] = []

    def code() -> None:
        marker.interrupting = True  # announced by the watchdog, and about to be delivered
        marker.aside(lambda: done.append("work"))

    with pytest.raises(Interrupted):
        turn.run(code)
    assert not done and not marker.is_aside


def test_the_code_is_not_blamed_for_what_the_engine_does_in_its_middle(turn: Turn) -> None:
    marker, watchdog = turn.marker, turn.watchdog
    seen: list[Any] = []

    def work() -> None:
        seen.append((turn.is_blamed, watchdog.held()[0]))

    def code() -> None:
        watchdog._seen, watchdog._since = marker.turn, 0.0  # the watchdog has seen it a long time ago
        seen.append((turn.is_blamed, watchdog.held()[0]))
        marker.aside(work)
        seen.append((turn.is_blamed, watchdog.held()[0]))

    turn.run(code)

    assert seen == [(True, "long"), (False, ""), (True, "long")]
    assert not turn.is_blamed


def test_the_time_that_the_engine_takes_in_the_middle_is_not_the_codes(turn: Turn) -> None:
    marker, watchdog = turn.marker, turn.watchdog

    def code() -> float:
        watchdog._seen, watchdog._since = marker.turn, 0.0
        marker.aside_for += 1e6
        return watchdog.held()[1]

    assert turn.run(code) < time.monotonic() - 1e6 + 1.0


def test_what_the_engine_does_in_the_middle_may_fail_without_a_trace(turn: Turn) -> None:
    def fails() -> None:
        raise ValueError("it failed")

    with pytest.raises(ValueError):
        turn.run(lambda: turn.marker.aside(fails))
    assert not turn.marker.is_aside and not turn.is_blamed


async def test_code_that_spins_is_interrupted_although_starts_are_accepted_in_its_middle():
    spins["on"] = True
    app = App("spinning", settings=QUICK_TO_INTERRUPT)

    @app.orchestrator
    async def asks_for_ever(context: OrchestrationContext):
        while spins["on"]:
            context._pause()  # as each thousand calls do, without their weight

    @app.orchestrator
    async def small(context: OrchestrationContext, value: int) -> int:
        return value

    async with app.running(store="memory://") as client:
        starting = asyncio.ensure_future(client.start_new(asks_for_ever))
        others = [await client.start_new(small, None, 1)]
        while not starting.done():
            others.append(await client.start_new(small, None, 1))
        spinning = await starting
        parked = await client.get_status(spinning)
        assert (await client.wait_for_completion(others[-1])).output == 1
        spins["on"] = False
        await client.resume(spinning)
        assert (await client.wait_for_completion(spinning)).runtime_status is S.Completed
    assert parked.reason.startswith("poison")
