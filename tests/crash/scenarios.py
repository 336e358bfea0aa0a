"""What the crash tests run: one small application in both styles, and scripts of what clients do with it.

The orchestrators are written with `yield`; `awaiting` turns each into a coroutine that does the same, so both
drivers are tested by one text. A script asks, lets time pass, and asks again; between its lines the world comes
to rest. What an activity returns depends on its input and attempt alone, so that every run ends the same.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from perdure import ActivityContext, App, OrchestrationContext, RetryPolicy
from tests.crash.world import World, event, manage, start, start_without_id

Context = OrchestrationContext
Flow = Generator[Any, Any, Any]
LARGE = "claim " * 300  # beyond the worlds' inline_bytes
RETRY = RetryPolicy(first_interval=30, backoff=2.0, max_attempts=4)


def awaiting(function: Callable[[Context], Flow]) -> Callable[[Context], Any]:
    """The same orchestrator as a coroutine."""

    async def coroutine(context: Context) -> Any:
        body = function(context)
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                task = body.send(value) if error is None else body.throw(error)
            except StopIteration as stop:
                return stop.value
            value, error = None, None
            try:
                value = await task
            except Exception as raised:
                error = raised

    coroutine.__name__ = function.__name__
    return coroutine


def make_app(style: str) -> App:
    app = App("crash")

    def orchestrator(function: Callable[[Context], Flow]) -> None:
        app.orchestrator(function if style == "yield" else awaiting(function))

    _activities(app)
    _flows(orchestrator)
    _event_flows(orchestrator)
    _families(orchestrator)
    return app


def _activities(app: App) -> None:
    @app.activity
    async def add(x: int) -> int:
        return x + 1

    @app.activity
    def double(x: int) -> int:
        return x * 2

    @app.activity
    def flaky(good_from: int, context: ActivityContext) -> str:
        if context.attempt < good_from:
            raise ConnectionError(f"attempt {context.attempt} finds the gateway down")
        return f"paid at attempt {context.attempt}"

    @app.activity
    def broken() -> None:
        raise ValueError("this never works")

    @app.activity
    def idle(x: int) -> None:
        """For calls that nobody waits for: with the execution that made it ends the duty to run it."""

    @app.activity
    async def enlarge(text: str) -> str:
        return text + LARGE


def _flows(orchestrator: Callable[[Any], None]) -> None:
    @orchestrator
    def sequence(context: Context) -> Flow:
        context.set_custom_status("begun")
        a = yield context.call_activity("add", context.get_input())
        b = yield context.call_activity("double", a)
        context.set_custom_status({"b": b})
        c = yield context.call_activity("add", b)
        return [a, b, c]

    @orchestrator
    def fan(context: Context) -> Flow:
        tasks = [context.call_activity("double" if n % 2 else "add", n) for n in range(context.get_input())]
        results = yield context.task_all(tasks)
        total = yield context.call_activity("add", sum(results))
        return [results, total]

    @orchestrator
    def retrying(context: Context) -> Flow:
        paid = yield context.call_activity("flaky", 3, retry=RETRY)
        try:
            yield context.call_activity("broken", retry=RetryPolicy(first_interval=30, max_attempts=2))
        except Exception as error:
            return [paid, str(error)]

    @orchestrator
    def sleeper(context: Context) -> Flow:
        begun = context.current_utc_datetime
        yield context.create_timer(timedelta(seconds=90))
        slept = context.current_utc_datetime - begun
        first, second = context.create_timer(30), context.create_timer(60)
        winner = yield context.task_any(first, second)
        second.cancel()
        return [slept >= timedelta(seconds=90), winner is first]

    @orchestrator
    def overdue(context: Context) -> Flow:
        """A timer beside an activity that takes its time."""
        work, deadline = context.call_activity("add", 1), context.create_timer(45)
        winner = yield context.task_any(work, deadline)
        late = winner is deadline
        result = yield work
        if not late:
            deadline.cancel()
        return [late, result]

    @orchestrator
    def large(context: Context) -> Flow:
        enlarged = yield context.call_activity("enlarge", context.get_input())
        child = yield context.call_sub_orchestrator("echo", enlarged, "large-child")
        heard = yield context.wait_for_external_event("More")
        return [len(enlarged), len(child), len(heard), enlarged + heard]

    @orchestrator
    def echo(context: Context) -> Flow:
        yield context.create_timer(0)
        return context.get_input()

    @orchestrator
    def payer(context: Context) -> Flow:
        """Its payment fails until it is rewound."""
        a = yield context.call_activity("add", context.get_input())
        slow = context.create_timer(150)
        heard = context.wait_for_external_event("Go")
        paid = yield context.call_activity(
            "flaky", 4, retry=RetryPolicy(first_interval=30, backoff=2.0, max_attempts=3)
        )
        yield slow
        c = yield context.call_activity("add", a)
        return [a, paid, c, (yield heard)]

    @orchestrator
    def careful(context: Context) -> Flow:
        """Does something about the failure before it fails; on the way back that no longer counts."""
        other = context.call_sub_orchestrator("sequence", 10)
        try:
            paid = yield context.call_sub_orchestrator("payer", 1, f"{context.instance_id}-child")
        except Exception:
            yield context.call_activity("double", 7)
            raise
        return [paid, (yield other)]


def _event_flows(orchestrator: Callable[[Any], None]) -> None:
    @orchestrator
    def listener(context: Context) -> Flow:
        heard: list[Any] = []
        while len(heard) < context.get_input():
            heard += [(yield context.wait_for_external_event("Go"))]
        done = yield context.call_activity("add", len(heard))
        return [heard, done]

    @orchestrator
    def decision(context: Context) -> Flow:
        try:
            decided = yield context.wait_for_external_event("Decision", int, timeout=70)
        except TimeoutError:
            decided = "expired"
        extra = yield context.wait_for_external_event("Extra", timeout=50, default="none")
        done = yield context.call_activity("add", 1)
        return [decided, extra, done]

    @orchestrator
    def counter(context: Context) -> Flow:
        """A generation for every event, with a call in each."""
        heard = context.get_input() or []
        value = yield context.wait_for_external_event("Count")
        if value == "stop":
            return heard
        yield context.call_activity("add", len(heard))
        context.continue_as_new([*heard, value])

    @orchestrator
    def hasty(context: Context) -> Flow:
        """Continues as new with an event taken and not looked at, and a timer and a call abandoned."""
        heard = context.get_input() or []
        if len(heard) == 2:
            left = yield context.wait_for_external_event("Count")
            return [*heard, left]
        context.create_timer(3_600)
        context.call_activity("idle", len(heard))
        unseen = context.wait_for_external_event("Count")
        value = yield context.wait_for_external_event("Next")  # of one name, the awaited wait would take both
        unseen.cancel()
        context.continue_as_new([*heard, value])

    @orchestrator
    def deaf(context: Context) -> Flow:
        yield context.create_timer(40)
        return "heard nothing"


def _families(orchestrator: Callable[[Any], None]) -> None:
    @orchestrator
    def parent(context: Context) -> Flow:
        x = context.get_input()
        first, second = yield context.task_all(
            context.call_sub_orchestrator("sequence", x),
            context.call_sub_orchestrator("sequence", x + 10, f"{context.instance_id}-named"),
        )
        try:
            yield context.call_sub_orchestrator("failing", "why")
            failed = ""
        except Exception as error:
            failed = str(error)
        retried = yield context.call_sub_orchestrator(
            "moody", context.instance_id, retry=RetryPolicy(first_interval=40, max_attempts=3)
        )
        last = yield context.call_sub_orchestrator("sequence", 100)
        return [first, second, "why" in failed, retried, last]

    @orchestrator
    def failing(context: Context) -> Flow:
        yield context.call_activity("add", 1)
        raise ValueError(context.get_input())

    @orchestrator
    def moody(context: Context) -> Flow:
        """Fails in its first life, which is the one whose parent's call is the first."""
        yield context.call_activity("add", 5)
        if context.parent_instance_id and context.instance_id.endswith(".5"):
            raise ValueError("not today")
        return "well"

    @orchestrator
    def crowd(context: Context) -> Flow:
        tasks = [context.call_sub_orchestrator("echo", n) for n in range(context.get_input())]
        return (yield context.task_all(tasks))

    @orchestrator
    def grandparent(context: Context) -> Flow:
        mine = context.call_sub_orchestrator("waiting_parent", None, f"{context.instance_id}-mid")
        other = context.call_sub_orchestrator("listener", 1, "stranger")
        try:
            yield other
        except Exception as error:
            context.set_custom_status(type(error).__name__)
        yield mine

    @orchestrator
    def waiting_parent(context: Context) -> Flow:
        yield context.task_all(
            context.call_sub_orchestrator("listener", 1), context.call_sub_orchestrator("listener", 2)
        )


# --------------------------------------------------------------------------------------------------- scripts


@dataclass(frozen=True)
class Scenario:
    """A script, and what its instances have come to by the end of it."""

    script: Callable[[World], None]
    outputs: dict[str, Any]

    @property
    def name(self) -> str:
        return self.script.__name__


SCENARIOS: dict[str, Scenario] = {}


def scenario(**outputs: Any) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Register a script. Instance ids with underscores stand for ids with dashes."""

    def register(script: Callable[[World], None]) -> Callable[[World], None]:
        expected = {name.replace("_", "-"): output for name, output in outputs.items()}
        SCENARIOS[script.__name__] = Scenario(script, expected)
        return script

    return register


@scenario(a=[4, 8, 9])
def activities_in_sequence(w: World) -> None:
    w.start("sequence", "a", 3)


@scenario(f=[[1, 2, 3, 6, 5, 10], 28])
def fan_out_and_in(w: World) -> None:
    w.start("fan", "f", 6)


@scenario(r=["paid at attempt 3", "Activity function 'broken' failed: ValueError: this never works"])
def retries_on_timers(w: World) -> None:
    w.start("retrying", "r")
    w.pass_time(35)
    w.pass_time(65)
    w.pass_time(40)


@scenario(s=[True, True])
def timers_near_and_far(w: World) -> None:
    w.start("sleeper", "s")
    w.pass_time(95)
    w.pass_time(70)


@scenario(o=[True, 2], p=[False, 2])
def timer_beside_an_activity(w: World) -> None:
    w.paused = True
    w.start("overdue", "o")
    w.pass_time(50)
    w.paused = False
    w.start("overdue", "p")
    w.pass_time(50)


@scenario(e=[["before", "after", "last"], 4])
def events_before_and_after_the_wait(w: World) -> None:
    w.ask(start("listener", "e", 3), event("e", "Go", "before"), event("e", "go", "after"))
    w.raise_event("e", "Other", "nobody waits for this")
    w.raise_event("e", "Go", "last")
    w.raise_event("e", "Go", "too late")


@scenario(in_time=[7, "x", 2], late=["expired", "none", 2], misfit=[8, "none", 2])
def waits_with_a_deadline(w: World) -> None:
    w.ask(*(start("decision", i) for i in ("in-time", "late", "misfit")))
    w.ask(event("in-time", "Decision", 7), event("misfit", "Decision", "rubbish"))
    w.pass_time(10)
    w.ask(event("in-time", "Extra", "x"), event("misfit", "Decision", 8))
    w.pass_time(70)
    w.pass_time(60)


@scenario(p=[[2, 4, 5], [12, 24, 25], True, "well", [101, 202, 203]])
def sub_orchestrations(w: World) -> None:
    w.start("parent", "p", 1)
    w.pass_time(45)


@scenario(c=[*range(8)])
def many_children_in_one_batch(w: World) -> None:
    w.start("crowd", "c", 8)


@scenario(c=["a", "b", "c", "d"], h=["y", "w", "x"])
def continue_as_new_with_events(w: World) -> None:
    w.ask(start("counter", "c"), event("c", "Count", "a"), event("c", "Count", "b"))
    w.paused = True
    w.raise_event("c", "Count", "c")
    w.raise_event("c", "Count", "d")
    w.paused = False
    w.raise_event("c", "Count", "stop")
    w.start("hasty", "h")
    w.ask(
        event("h", "Count", "x"), event("h", "Next", "y"), event("h", "Count", "z"), event("h", "Next", "w")
    )


@scenario(e=[["one", "two"], 3], a=[2, 4, 5])
def suspend_and_resume(w: World) -> None:
    w.paused = True
    w.ask(start("listener", "e", 2), start("sequence", "a", 1))
    w.ask(manage("suspend", "e", "audit"), manage("suspend", "a"))
    w.paused = False
    w.raise_event("e", "Go", "one")
    w.manage("suspend", "e", "again")
    w.raise_event("e", "Go", "two")
    w.pass_time(30)
    w.ask(manage("resume", "e"), manage("resume", "a", "go on"))
    w.manage("resume", "e")


@scenario(s=[True, True], d=["expired", "none", 2])
def suspended_timers(w: World) -> None:
    w.ask(start("sleeper", "s"), start("decision", "d"))
    w.ask(manage("suspend", "s"), manage("suspend", "d"))
    w.pass_time(100)
    w.ask(manage("resume", "s"), manage("resume", "d"))
    w.pass_time(65)


@scenario(g="enough", g_mid="enough", stranger=[["for me"], 2])
def terminate_recursively(w: World) -> None:
    w.start("listener", "stranger", 1)
    w.start("grandparent", "g")
    w.raise_event("g-mid", "Hello", "nobody waits for this")
    w.manage("terminate", "g", "enough", recursive=True)
    w.manage("terminate", "g", "twice")
    w.raise_event("stranger", "Go", "for me")


@scenario(l=[2, 4, 5], e=[["early"], 2])
def start_at_a_time(w: World) -> None:
    at = w.clock.datetime + timedelta(seconds=75)
    w.ask(start("sequence", "l", 1, start_at=at), start("listener", "e", 1, start_at=at))
    w.raise_event("e", "Go", "early")
    w.pass_time(80)


@scenario(a=[6, 12, 13])
def purge_and_use_the_id_again(w: World) -> None:
    w.start("sequence", "a", 1)
    w.ask(manage("purge_instance_history", "a"), start("listener", "a", 1))
    w.manage("purge_instance_history", "a")
    w.raise_event("a", "Go", 1)
    w.start("sequence", "a", 3)
    w.ask(manage("purge_instance_history", "a"))
    w.manage("purge_instance_history", "a")
    w.raise_event("a", "Go", "to nobody")
    w.start("sequence", "a", 5)


@scenario(b=[1807, 1807, 1801, "x" * 7 + "claim " * 600 + "!"])
def large_bodies(w: World) -> None:
    w.start("large", "b", "x" * 7)
    w.raise_event("b", "More", LARGE + "!")


@scenario(d="heard nothing")
def events_that_nobody_takes(w: World) -> None:
    w.start("deaf", "d")
    w.ask(event("d", "Hello", 1), event("d", "Hello", 2))
    w.pass_time(45)
    w.raise_event("d", "Hello", "too late")


@scenario(p=[2, "paid at attempt 4", 3, "now"], f=[[2, "paid at attempt 4", 3, "now"], [11, 22, 23]])
def rewind_what_failed(w: World) -> None:
    w.ask(start("payer", "p", 1), start("careful", "f", 1))
    w.pass_time(120)
    w.manage("rewind", "p", "the gateway is back")
    w.manage("rewind", "f")
    w.manage("rewind", "f", "twice")
    w.pass_time(100)
    w.ask(event("p", "Go", "now"), event("f-child", "Go", "now"))


@scenario(a=[2, 4, 5])
def clients_without_operation_ids(w: World) -> None:
    w.ask(start_without_id("sequence", "a", 1), start_without_id("sequence", "a", 1))
    w.ask(start_without_id("sequence", "a", 1))
