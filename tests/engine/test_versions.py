"""Several versions of one orchestrator: which one a start gets, which one an instance keeps, who takes it."""

from itertools import pairwise

import pytest

import perdure as df
from perdure import App, OrchestrationContext, RegistrationError, RuntimeStatus
from perdure.engine.functions.versions import compare
from perdure.testing import environment
from tests.core.styles import both

S = RuntimeStatus


def waits_yield(context: OrchestrationContext):
    yield context.wait_for_external_event("Go")
    return f"by {context.version or 'no version'}"


async def waits_async(context: OrchestrationContext):
    await context.wait_for_external_event("Go")
    return f"by {context.version or 'no version'}"


def second_yield(context: OrchestrationContext):
    yield context.create_timer(1)
    return f"second, {context.version}"


async def second_async(context: OrchestrationContext):
    await context.create_timer(1)
    return f"second, {context.version}"


STYLES = pytest.mark.parametrize(
    ("waits", "second"),
    [
        pytest.param(waits_yield, second_yield, id="yield"),
        pytest.param(waits_async, second_async, id="async"),
    ],
)


def app_of(versions: dict[str, object], **options: object) -> App:
    app = App("claims", **options)
    for version, function in versions.items():
        app.orchestrator(name="main", version=version)(function)
    return app


@STYLES
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_an_instance_stays_with_the_version_it_started_with(waits, second, store, tmp_path):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_of({"1.0": waits}), store=url) as env:
        old = await env.client.start_new("main")
        await env.settled()
        await env.restart(app_of({"1.0": waits, "2.0": second}))
        new = await env.client.start_new("main")
        chosen = await env.client.start_new("main", version="1.0")
        for instance in (old, chosen):
            await env.client.raise_event(instance, "Go")
        outputs = [(await env.client.wait_for_completion(i)).output for i in (old, new, chosen)]

        assert outputs == ["by 1.0", "second, 2.0", "by 1.0"]
        assert (await env.client.get_status(old)).version == "1.0"


@both(waits_yield, waits_async)
async def test_an_instance_of_a_version_nobody_has_waits_and_goes_on(orchestrator):
    async with environment(app_of({"1.0": orchestrator})) as env:
        old = await env.client.start_new("main")
        await env.settled()
        await env.restart(app_of({"2.0": orchestrator}))
        await env.client.raise_event(old, "Go")
        asked = await env.client.start_new("main", version="3.0")
        await env.settled()
        parked = await env.client.get_status(old)
        pending = await env.client.get_status(asked)
        await env.restart(app_of({"1.0": orchestrator, "3.0": orchestrator}))
        await env.client.raise_event(asked, "Go")
        outputs = [(await env.client.wait_for_completion(i)).output for i in (old, asked)]

    assert parked.runtime_status is S.Suspended
    assert parked.reason == (
        "no_worker: no worker here has version '1.0' of the orchestrator 'main'; it has '2.0'"
    )
    assert pending.runtime_status is S.Pending
    assert "version '3.0'" in pending.reason
    assert outputs == ["by 1.0", "by 3.0"]


@both(waits_yield, waits_async)
async def test_code_without_a_version_serves_those_that_have_no_code_of_their_own(orchestrator):
    async with environment(app_of({"": orchestrator}, default_version="2.0")) as env:
        ids = [await env.client.start_new("main", version=v) for v in (None, "1.5", "2.0")]
        for instance in ids:
            await env.client.raise_event(instance, "Go")
        outputs = [(await env.client.wait_for_completion(i)).output for i in ids]

    assert outputs == ["by 2.0", "by 1.5", "by 2.0"]


@pytest.mark.parametrize(
    ("strategy", "taken"),
    [("None", {"1.0", "2.0", "10.0"}), ("Strict", {"2.0"}), ("CurrentOrOlder", {"1.0", "2.0"})],
)
@both(waits_yield, waits_async)
async def test_the_match_strategy_says_which_versions_are_taken(orchestrator, strategy, taken):
    app = app_of({"": orchestrator}, default_version="2.0", version_match_strategy=strategy)
    async with environment(app) as env:
        ids = {v: await env.client.start_new("main", version=v) for v in ("1.0", "2.0", "10.0")}
        await env.settled()
        statuses = {v: await env.client.get_status(i) for v, i in ids.items()}

    assert {v for v, status in statuses.items() if status.runtime_status is S.Running} == taken
    assert all(
        strategy in status.reason and "no_worker" in status.reason
        for v, status in statuses.items()
        if v not in taken
    )


@both(waits_yield, waits_async)
async def test_what_is_not_taken_fails_where_the_failure_strategy_says_so(orchestrator):
    async with environment(app_of({"1.0": orchestrator})) as env:
        running = await env.client.start_new("main")
        await env.settled()
        settings = {"version_match_strategy": "Strict", "version_failure_strategy": "Fail"}
        await env.restart(
            app_of({"1.0": orchestrator, "2.0": orchestrator}, default_version="2.0", **settings)
        )
        await env.client.raise_event(running, "Go")
        fresh = await env.client.start_new("main", version="1.0")
        statuses = [await env.client.wait_for_completion(i) for i in (running, fresh)]

    assert [status.runtime_status for status in statuses] == [S.Failed, S.Failed]
    assert {status.failure.type for status in statuses} == {"VersionMismatch"}
    assert "default version is '2.0'" in statuses[0].failure.message


def parent_yield(context: OrchestrationContext):
    default = yield context.call_sub_orchestrator("main")
    chosen = yield context.call_sub_orchestrator("main", version="1.0")
    return [default, chosen]


async def parent_async(context: OrchestrationContext):
    default = await context.call_sub_orchestrator("main")
    chosen = await context.call_sub_orchestrator("main", version="1.0")
    return [default, chosen]


def tells_yield(context: OrchestrationContext):
    yield context.create_timer(0)
    return context.version


async def tells_async(context: OrchestrationContext):
    await context.create_timer(0)
    return context.version


@pytest.mark.parametrize(
    ("parent", "child"),
    [
        pytest.param(parent_yield, tells_yield, id="yield"),
        pytest.param(parent_async, tells_async, id="async"),
    ],
)
async def test_sub_orchestrations_get_the_default_or_the_version_asked_for(parent, child):
    app = app_of({"1.0": child, "2.0": child})
    app.orchestrator(name="parent")(parent)
    async with environment(app) as env:
        assert (await env.run("parent")).output == ["2.0", "1.0"]


def moves_yield(context: OrchestrationContext):
    seen = context.get_input() or []
    yield context.create_timer(0)
    seen = [*seen, context.version]
    if len(seen) == 3:
        return seen
    context.continue_as_new(seen, version="2.0" if len(seen) == 2 else None)


async def moves_async(context: OrchestrationContext):
    seen = context.get_input() or []
    await context.create_timer(0)
    seen = [*seen, context.version]
    if len(seen) == 3:
        return seen
    context.continue_as_new(seen, version="2.0" if len(seen) == 2 else None)


@both(moves_yield, moves_async)
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_continue_as_new_keeps_its_version_or_takes_another(orchestrator, store, tmp_path):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_of({"1.0": orchestrator, "2.0": orchestrator}), store=url) as env:
        instance = await env.client.start_new("main", version="1.0")
        status = await env.client.wait_for_completion(instance)

        assert status.output == ["1.0", "1.0", "2.0"]
        assert (await env.client.get_status(instance)).version == "2.0"


@both(moves_yield, moves_async)
async def test_continuing_as_a_version_nobody_has_waits_for_it(orchestrator):
    async with environment(app_of({"1.0": orchestrator})) as env:
        instance = await env.client.start_new("main", version="1.0")
        await env.settled()
        waiting = await env.client.get_status(instance)
        await env.restart(app_of({"1.0": orchestrator, "2.0": orchestrator}))
        finished = await env.client.wait_for_completion(instance)

    assert "version '2.0'" in waiting.reason
    assert finished.output == ["1.0", "1.0", "2.0"]


@both(tells_yield, tells_async)
async def test_an_instance_without_a_version_has_none(orchestrator):
    async with environment(app_of({"": orchestrator})) as env:
        assert (await env.run("main")).output is None
        chosen = await env.client.start_new("main", version="7")
        assert (await env.client.wait_for_completion(chosen)).output == "7"


async def test_a_function_that_is_passed_runs_in_its_own_version():
    app = App("claims")

    @app.orchestrator(name="main", version="1.0")
    async def first(context: OrchestrationContext) -> str:
        return context.version

    @app.orchestrator(name="main", version="2.0")
    async def second(context: OrchestrationContext) -> str:
        return context.version

    async with environment(app) as env:
        assert [(await env.run(f)).output for f in (first, second, "main")] == ["1.0", "2.0", "2.0"]


async def test_a_start_accepted_before_its_code_was_known_is_pinned_when_it_begins(tmp_path):
    url = f"sqlite:///{tmp_path}/hub.db"
    app = app_of({"1.0": waits_async})
    async with app.running(store=url, accept_only=True) as client:
        instance = await client.start_new("main")
    async with app.running(store=url) as client:
        await client.raise_event(instance, "Go")
        assert (await client.wait_for_completion(instance, 10)).output == "by 1.0"
        assert (await client.get_status(instance)).version == "1.0"


# --------------------------------------------------------------------------------------------- names that change


def calls_yield(context: OrchestrationContext):
    first = yield context.call_activity("pay")
    yield context.wait_for_external_event("Go")
    return [first, (yield context.call_activity("pay"))]


async def calls_async(context: OrchestrationContext):
    first = await context.call_activity("pay")
    await context.wait_for_external_event("Go")
    return [first, await context.call_activity("pay")]


def renamed_yield(context: OrchestrationContext):
    first = yield context.call_activity("charge")
    yield context.wait_for_external_event("Go")
    return [first, (yield context.call_activity("charge"))]


async def renamed_async(context: OrchestrationContext):
    first = await context.call_activity("charge")
    await context.wait_for_external_event("Go")
    return [first, await context.call_activity("charge")]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(calls_yield, renamed_yield, id="yield"),
        pytest.param(calls_async, renamed_async, id="async"),
    ],
)
async def test_renamed_functions_keep_their_instances_by_an_alias(before, after):
    def pay() -> str:
        return "paid"

    old, new = App("claims"), App("claims")
    old.orchestrator(name="main")(before)
    old.activity(pay)
    new.orchestrator(name="renamed", aliases=("main",))(after)
    new.activity(name="charge", aliases=["pay"])(pay)
    async with environment(old) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        await env.restart(new)
        await env.client.raise_event(instance, "Go")
        finished = await env.client.wait_for_completion(instance)
        fresh = await env.client.get_status(await env.client.start_new("main"))

    assert finished.output == ["paid", "paid"]
    assert fresh.name == "renamed"


async def test_a_function_under_two_names_is_called_by_its_own():
    app = App("claims")

    @app.activity(name="old")
    @app.activity
    @app.activity(name="older")
    def pay(context: df.ActivityContext) -> str:
        return context.activity_name

    @app.orchestrator
    async def main(context: OrchestrationContext) -> list[str]:
        return [await context.call_activity(pay), await context.call_activity("old")]

    async with environment(app) as env:
        assert (await env.run(main)).output == ["pay", "old"]


def test_versions_compare_as_azures():
    ordered = ["", "0.9", "1", "1.0.1", "1.9", "1.10", "2.0"]
    assert all(compare(a, b) < 0 < compare(b, a) for a, b in pairwise(ordered))
    assert compare("1.0", "1.0.0") == compare("Beta", "beta") == 0
    assert compare("alpha", "beta") < 0


@pytest.mark.parametrize(
    "options",
    [
        {"version_match_strategy": "Newest"},
        {"version_failure_strategy": "Explode"},
        {"default_version": "x" * 101},
        {"keep_executions": 0},
    ],
)
def test_settings_that_are_none_are_refused(options):
    with pytest.raises(RegistrationError):
        App("claims", **options)


def test_one_version_can_be_registered_once():
    app = app_of({"1.0": waits_yield, "2.0": second_yield})
    with pytest.raises(RegistrationError, match=r"'main' is already taken in version '1.0' by waits_yield"):
        app.orchestrator(name="main", version="1.0")(second_yield)
