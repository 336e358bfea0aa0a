"""Human tasks: decisions by people, with deadline, reminders, escalation and four eyes."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import pytest

from perdure import (
    IdempotencyConflict,
    OrchestrationContext,
    PayloadError,
    Person,
    RuntimeStatus,
    TaskClosed,
    TaskHeld,
    TaskRefused,
)
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import app_with

ADA = Person("ada@example.org", ("adjuster",))
BEN = Person("ben@example.org", ("adjuster",))
SAM = Person("sam@example.org", ("supervisor",))
HOUR = timedelta(hours=1)


@pytest.fixture(params=["memory", "sqlite"])
def hub(request, tmp_path):
    return "memory:" if request.param == "memory" else str(tmp_path / "hub.db")


@dataclass
class Decision:
    approve: bool


def asked(context: OrchestrationContext):
    task = context.human_task("Decide", Decision, roles=("adjuster",), timeout=72 * HOUR)
    decision = yield task
    return [decision.approve, list(task.decided_by)]


async def asked_async(context: OrchestrationContext):
    task = context.human_task("Decide", Decision, roles=("adjuster",), timeout=72 * HOUR)
    decision = await task
    return [decision.approve, list(task.decided_by)]


@both(asked, asked_async)
async def test_a_person_with_the_role_decides(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Decide", Decision(True), person=ADA)

        assert await env.client.wait_for_completion(instance) is not None
        status = await env.client.get_status(instance)
        assert status.output == [True, ["ada@example.org"]]


@both(asked, asked_async)
@pytest.mark.parametrize(
    ("person", "why"), [(None, "a decision by a known person"), (SAM, "the role adjuster, which sam@")]
)
async def test_an_answer_without_a_person_or_the_role_does_not_count(orchestrator, person, why):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        with pytest.raises(TaskRefused, match=why):
            await env.client.raise_event(instance, "Decide", Decision(False), person=person)
        assert (await env.client.get_status(instance)).runtime_status is RuntimeStatus.Running
        await env.client.raise_event(instance, "Decide", Decision(True), person=BEN)

        status = await env.client.wait_for_completion(instance)
        assert status.output == [True, ["ben@example.org"]]


def expiring(context: OrchestrationContext):
    return (
        yield context.human_task(
            "Decide", Decision, roles=("adjuster",), timeout=72 * HOUR, default="too late"
        )
    )


async def expiring_async(context: OrchestrationContext):
    return await context.human_task(
        "Decide", Decision, roles=("adjuster",), timeout=72 * HOUR, default="too late"
    )


@both(expiring, expiring_async)
async def test_a_task_expires_with_its_default(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        status = await env.client.wait_for_completion(instance)
        assert status.output == "too late"
        assert status.completed_time - status.created_time >= 72 * HOUR


async def failing_late(context: OrchestrationContext):
    await context.human_task("Decide", Decision, timeout=HOUR)


async def test_without_a_default_the_deadline_raises_a_timeout():
    async with environment(app_with(failing_late)) as env:
        status = await env.run("main")
        assert status.runtime_status is RuntimeStatus.Failed
        assert "the human task 'Decide' was not decided before its deadline" in str(status.output)


REMINDED: list[str] = []


def remind_people(reminder: dict) -> None:
    REMINDED.append(f"{reminder['kind']} {reminder['number']} {reminder['title']} {reminder['roles']}")


async def escalating(context: OrchestrationContext):
    task = context.human_task(
        "Decide",
        Decision,
        title="Pay claim 7?",
        facts={"amount": 51_200},
        roles=("adjuster",),
        timeout=72 * HOUR,
        remind=(24 * HOUR, 36 * HOUR),
        escalate={48 * HOUR: "supervisor"},
        remind_with="remind_people",
    )
    decision = await task
    return [decision.approve, task.decided_by[0]]


async def test_reminders_and_an_escalation_come_at_their_times():
    REMINDED.clear()
    async with environment(app_with(escalating, remind_people)) as env:
        instance = await env.client.start_new("main")
        await env.evict()
        await env.advance(49 * HOUR)
        assert REMINDED == [
            "remind 1 Pay claim 7? ['adjuster']",
            "remind 2 Pay claim 7? ['adjuster']",
            "escalate 1 Pay claim 7? ['supervisor']",
        ]
        await env.evict()
        with pytest.raises(TaskRefused, match="the role supervisor"):
            await env.client.raise_event(instance, "Decide", Decision(False), person=ADA)
        await env.evict()
        await env.client.raise_event(instance, "Decide", Decision(True), person=SAM)
        assert (await env.client.wait_for_completion(instance)).output == [True, "sam@example.org"]


async def four_eyes(context: OrchestrationContext):
    task = context.human_task("Decide", Decision, decisions=2, roles=("adjuster",), timeout=72 * HOUR)
    decisions = await task
    return [[decision.approve for decision in decisions], list(task.decided_by)]


def four_eyes_yield(context: OrchestrationContext):
    task = context.human_task("Decide", Decision, decisions=2, roles=("adjuster",), timeout=72 * HOUR)
    decisions = yield task
    return [[decision.approve for decision in decisions], list(task.decided_by)]


@both(four_eyes_yield, four_eyes)
async def test_several_decisions_are_by_different_people(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Decide", Decision(True), person=ADA)
        await env.evict()
        with pytest.raises(TaskRefused, match="another person must give the next"):
            await env.client.raise_event(instance, "Decide", Decision(True), person=ADA)
        await env.evict()
        assert (await env.client.get_status(instance)).runtime_status is RuntimeStatus.Running
        await env.client.raise_event(instance, "Decide", Decision(False), person=BEN)

        status = await env.client.wait_for_completion(instance)
        assert status.output == [[True, False], ["ada@example.org", "ben@example.org"]]


def is_no(decision: Decision) -> bool:
    return not decision.approve


async def first_no(context: OrchestrationContext):
    task = context.human_task("Decide", Decision, decisions=3, final=is_no)
    return [[decision.approve for decision in await task], list(task.decided_by)]


def first_no_yield(context: OrchestrationContext):
    task = context.human_task("Decide", Decision, decisions=3, final=is_no)
    decisions = yield task
    return [[decision.approve for decision in decisions], list(task.decided_by)]


@both(first_no_yield, first_no)
async def test_a_final_decision_ends_a_task_that_waits_for_more(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Decide", Decision(True), person=ADA)
        await env.evict()
        await env.client.raise_event(instance, "Decide", Decision(False), person=BEN)
        status = await env.client.wait_for_completion(instance)
        assert status.output == [[True, False], ["ada@example.org", "ben@example.org"]]
        assert not (await env.client.list_tasks()).tasks


async def unsure(context: OrchestrationContext):
    try:
        await context.human_task("Decide", Decision, decisions=2, final=lambda decision: decision.nothing)
    except AttributeError:
        return "the function failed"


async def test_an_error_of_the_function_that_says_what_is_final_is_raised_where_the_task_is_awaited():
    async with environment(app_with(unsure)) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Decide", Decision(True), person=ADA)
        assert (await env.client.wait_for_completion(instance)).output == "the function failed"


async def early(context: OrchestrationContext):
    await context.wait_for_external_event("Go")
    task = context.human_task(
        "Decide", Decision, decisions=2, timeout=72 * HOUR, escalate={HOUR: "supervisor"}
    )
    return [[one.approve for one in await task], list(task.decided_by)]


async def test_decisions_that_came_before_the_task_count_by_the_same_rules():
    async with environment(app_with(early)) as env:
        instance = await env.client.start_new("main")
        for person in (None, ADA, ADA, BEN):
            await env.client.raise_event(instance, "Decide", Decision(person is ADA), person=person)
        await env.client.raise_event(instance, "Go")

        status = await env.client.wait_for_completion(instance)
        assert status.output == [[True, False], ["ada@example.org", "ben@example.org"]]


async def withdrawn(context: OrchestrationContext):
    task = context.human_task("Decide", Decision, timeout=72 * HOUR, remind=(HOUR,))
    stop = context.wait_for_external_event("Stop")
    winner = await context.task_any(task, stop)
    task.cancel()
    return "stopped" if winner is stop else "decided"


async def test_a_task_can_be_withdrawn():
    async with environment(app_with(withdrawn)) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Stop")
        status = await env.client.wait_for_completion(instance)
        assert status.output == "stopped"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"remind": (73 * HOUR,), "timeout": 72 * HOUR}, "a reminder after .* when the task has expired"),
        ({"remind": (0,)}, "a reminder must come after the task's beginning"),
        ({"escalate": {72 * HOUR: "boss"}, "timeout": 72 * HOUR}, "an escalation after .* has expired"),
        ({"decisions": 0}, "decisions must be 1 or more, not 0"),
        ({"roles": "adjuster"}, "not one text"),
        ({"facts": {"photo": "x" * 20_000}}, "16"),
    ],
)
async def test_a_task_that_cannot_be_is_refused_where_it_is_written(options, message):
    async def main(context: OrchestrationContext):
        await context.human_task("Decide", Decision, **options)

    async with environment(app_with(main)) as env:
        status = await env.run("main")
        assert status.runtime_status is RuntimeStatus.Failed
        assert pytest.raises(AssertionError, match=message).matches(AssertionError(str(status.output)))


# ------------------------------------------------------------------------------------ lists and claims


async def plain(context: OrchestrationContext):
    return await context.wait_for_external_event("Photo", str)


async def test_a_task_is_listed_with_what_it_says(hub):
    async with environment(app_with(escalating, remind_people), store=hub) as env:
        instance = await env.client.start_new("main", tags={"desk": "motor"})
        [task] = (await env.client.list_tasks()).tasks

        assert task == await env.client.get_task(task.id)
        assert (task.instance_id, task.orchestrator, task.event) == (instance, "main", "Decide")
        assert (task.title, task.facts, task.roles) == ("Pay claim 7?", {"amount": 51_200}, ("adjuster",))
        assert task.due == task.since + 72 * HOUR
        assert task.escalation == (task.since + 48 * HOUR, "supervisor")
        assert "approve" in str(task.schema)

        await env.advance(49 * HOUR)
        [later] = (await env.client.list_tasks()).tasks
        assert (later.roles, later.escalation) == (("supervisor",), None)
        assert not (await env.client.list_tasks(role="adjuster")).tasks
        assert (await env.client.list_tasks(role="supervisor")).tasks == [later]

        await env.client.complete_task(task.id, SAM, Decision(True))
        assert not (await env.client.list_tasks()).tasks
        assert await env.client.get_task(task.id) is None
        with pytest.raises(TaskClosed):
            await env.client.complete_task(task.id, SAM, Decision(True))


async def test_a_plain_wait_is_a_task_with_less_to_say(hub):
    async with environment(app_with(plain), store=hub) as env:
        instance = await env.client.start_new("main")
        [task] = (await env.client.list_tasks()).tasks
        assert (task.title, task.roles, task.due, task.needs_person) == ("Photo", (), None, False)

        await env.client.claim_task(task.id, BEN)
        with pytest.raises(TaskHeld, match="ben@example.org claimed this task at"):
            await env.client.complete_task(task.id, ADA, "front")
        await env.client.release_task(task.id, BEN)
        await env.client.complete_task(task.id, None, "front")
        assert (await env.client.wait_for_completion(instance)).output == "front"


async def test_one_person_holds_a_task(hub):
    async with environment(app_with(four_eyes), store=hub) as env:
        instance = await env.client.start_new("main")
        [task] = (await env.client.list_tasks()).tasks
        await env.client.claim_task(task.id, ADA)
        await env.evict()
        await env.client.claim_task(task.id, ADA)
        for refused in (
            env.client.claim_task(task.id, BEN),
            env.client.release_task(task.id, BEN),
            env.client.assign_task(task.id, BEN, "ben@example.org"),
            env.client.complete_task(task.id, BEN, Decision(True)),
        ):
            with pytest.raises(TaskHeld, match="ada@example.org claimed this task"):
                await refused
        with pytest.raises(TaskRefused, match="the role adjuster"):
            await env.client.claim_task(task.id, SAM)
        assert [one.id for one in (await env.client.list_tasks(person="ada@example.org")).tasks] == [task.id]

        await env.client.complete_task(task.id, ADA, Decision(True))
        second = await env.client.get_task(task.id)
        assert (second.given_by, second.holder) == (("ada@example.org",), "")
        with pytest.raises(TaskRefused, match="another person must give the next"):
            await env.client.claim_task(task.id, ADA)
        await env.client.complete_task(task.id, BEN, Decision(False))
        assert (await env.client.wait_for_completion(instance)).output[0] == [True, False]


async def test_an_assigned_task_is_in_the_list_of_the_person(hub):
    async with environment(app_with(asked_async), store=hub) as env:
        await env.client.start_new("main")
        [task] = (await env.client.list_tasks()).tasks
        await env.client.assign_task(task.id, ADA, "ben@example.org")
        [his] = (await env.client.list_tasks(person="ben@example.org")).tasks
        assert (his.assignee, his.holder) == ("ben@example.org", "")
        assert not (await env.client.list_tasks(person="ada@example.org")).tasks


async def test_a_repeat_under_one_operation_id_is_the_same_request(hub):
    async with environment(app_with(asked_async), store=hub) as env:
        instance = await env.client.start_new("main")
        [task] = (await env.client.list_tasks()).tasks
        await env.client.claim_task(task.id, ADA, operation_id="c1")
        await env.client.claim_task(task.id, ADA, operation_id="c1")
        with pytest.raises(IdempotencyConflict):
            await env.client.claim_task(task.id, BEN, operation_id="c1")
        await env.client.complete_task(task.id, ADA, Decision(True), operation_id="d1")
        assert (await env.client.wait_for_completion(instance)).output[0] is True


async def test_a_suspended_instance_keeps_its_tasks(hub):
    async with environment(app_with(asked_async), store=hub) as env:
        instance = await env.client.start_new("main")
        [task] = (await env.client.list_tasks()).tasks
        await env.client.suspend(instance)
        await env.evict()
        await env.client.claim_task(task.id, ADA)
        with pytest.raises(TaskHeld):
            await env.client.complete_task(task.id, BEN, Decision(True))
        await env.client.complete_task(task.id, ADA, Decision(True))
        await env.client.resume(instance)
        assert (await env.client.wait_for_completion(instance)).output == [True, ["ada@example.org"]]


async def test_pages_and_filters_of_a_list(hub):
    async with environment(app_with(several), store=hub) as env:
        for number in range(7):
            await env.client.start_new("main", None, number, tags={"odd": str(number % 2)})
        titles, token = [], None
        while True:
            page = await env.client.list_tasks(top=3, continuation=token)
            titles += [task.title for task in page.tasks]
            token = page.continuation
            if token is None:
                break
        assert titles == [f"Claim {number}" for number in (6, 5, 4, 3, 2, 1, 0)]
        odd = await env.client.list_tasks(tags={"odd": "1"}, text="claim")
        assert [task.title for task in odd.tasks] == ["Claim 5", "Claim 3", "Claim 1"]
        soon = odd.tasks[0].since + 5 * HOUR
        assert len((await env.client.list_tasks(due_before=soon)).tasks) == 3
        with pytest.raises(PayloadError, match="continuation token"):
            await env.client.list_tasks(continuation="x")


async def several(context: OrchestrationContext):
    number = context.get_input(int)
    timeout = (8 - number) * HOUR if number else None
    await context.human_task("Decide", Decision, title=f"Claim {number}", timeout=timeout)


async def overrun(context: OrchestrationContext):
    first = await context.human_task("Decide", Decision, timeout=HOUR, default=None, remind=(HOUR / 2,))
    await context.wait_for_external_event("Go")
    return first


async def test_a_decision_after_the_deadline_is_told_so(hub):
    async with environment(app_with(overrun), store=hub) as env:
        instance = await env.client.start_new("main")
        [task] = (await env.client.list_tasks()).tasks
        await env.advance(2 * HOUR)
        with pytest.raises(TaskClosed, match="has expired"):
            await env.client.complete_task(task.id, ADA, Decision(True))
        assert [one.event for one in (await env.client.list_tasks()).tasks] == ["Go"]
        await env.client.raise_event(instance, "Go")
        status = await env.client.wait_for_completion(instance)
        assert (status.runtime_status, status.output) == (RuntimeStatus.Completed, None)


async def test_a_terminated_instance_has_no_tasks(hub):
    async with environment(app_with(asked_async), store=hub) as env:
        instance = await env.client.start_new("main")
        [task] = (await env.client.list_tasks()).tasks
        await env.client.claim_task(task.id, ADA)
        await env.client.terminate(instance)
        assert not (await env.client.list_tasks()).tasks
        for refused in (
            env.client.complete_task(task.id, ADA, Decision(True)),
            env.client.release_task(task.id, ADA),
        ):
            with pytest.raises(TaskClosed):
                await refused


async def test_two_people_who_answer_at_once(hub):
    """One counts; the other is told that the task is closed."""
    async with environment(app_with(asked_async), store=hub) as env:
        instance = await env.client.start_new("main")
        [task] = (await env.client.list_tasks()).tasks
        answers = await asyncio.gather(
            env.client.complete_task(task.id, ADA, Decision(True)),
            env.client.complete_task(task.id, BEN, Decision(False)),
            return_exceptions=True,
        )
        assert sorted(type(answer).__name__ for answer in answers) == ["NoneType", "TaskClosed"]
        winner = ADA if answers[0] is None else BEN
        assert (await env.client.wait_for_completion(instance)).output[1] == [winner.name]


async def test_a_claim_survives_a_restart(hub):
    async with environment(app_with(asked_async), store=hub) as env:
        await env.client.start_new("main")
        [task] = (await env.client.list_tasks()).tasks
        await env.client.claim_task(task.id, ADA)
        client = await env.restart()
        with pytest.raises(TaskHeld):
            await client.claim_task(task.id, BEN)
        await client.complete_task(task.id, ADA, Decision(True))


async def test_the_history_names_who_decided(hub):
    async with environment(app_with(asked_async), store=hub) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Decide", Decision(True), person=ADA)
        await env.client.wait_for_completion(instance)
        stored = env.store.get(instance, history=True)
        assert b'"decided_by":"ada@example.org"' in b"".join(row.events for row in stored.history)


async def handed_to_one(context: OrchestrationContext):
    task = context.human_task("Decide", Decision, assignee="ada@example.org")
    return [(await task).approve, *task.decided_by]


async def by_event(env, instance, person):
    await env.client.raise_event(instance, "Decide", Decision(True), person=person)


@pytest.mark.parametrize("asleep", [False, True], ids=["awake", "evicted"])
@pytest.mark.parametrize("suspended", [False, True], ids=["running", "suspended"])
async def test_an_event_is_no_way_around_an_assignment(hub, asleep, suspended):
    async with environment(app_with(handed_to_one), store=hub) as env:
        instance = await env.client.start_new("main")
        if suspended:
            await env.client.suspend(instance)
        if asleep:
            await env.evict()
        with pytest.raises(TaskRefused, match="assigned to ada@example.org"):
            await by_event(env, instance, BEN)
        await by_event(env, instance, ADA)
        if suspended:
            await env.client.resume(instance)
        assert (await env.client.wait_for_completion(instance)).output == [True, "ada@example.org"]


@pytest.mark.parametrize("asleep", [False, True], ids=["awake", "evicted"])
@pytest.mark.parametrize("suspended", [False, True], ids=["running", "suspended"])
@both(asked, asked_async)
async def test_an_event_is_no_way_around_a_claim(hub, orchestrator, asleep, suspended):
    async with environment(app_with(orchestrator), store=hub) as env:
        instance = await env.client.start_new("main")
        [task] = (await env.client.list_tasks()).tasks
        await env.client.claim_task(task.id, ADA)
        if suspended:
            await env.client.suspend(instance)
        if asleep:
            await env.evict()
        with pytest.raises(TaskHeld, match="ada@example.org claimed this task"):
            await by_event(env, instance, BEN)
        await by_event(env, instance, ADA)
        if suspended:
            await env.client.resume(instance)
        assert (await env.client.wait_for_completion(instance)).output == [True, ["ada@example.org"]]


async def test_a_claim_of_a_plain_wait_binds_people_and_no_programs(hub):
    async with environment(app_with(plain), store=hub) as env:
        instance = await env.client.start_new("main")
        [task] = (await env.client.list_tasks()).tasks
        await env.client.claim_task(task.id, ADA)
        with pytest.raises(TaskHeld):
            await env.client.raise_event(instance, "Photo", "front", person=BEN)
        await env.client.raise_event(instance, "Photo", "front")
        assert (await env.client.wait_for_completion(instance)).output == "front"


def two_at_once(context: OrchestrationContext):
    tasks = [
        context.human_task("Decide", Decision, title=title, roles=("adjuster",)) for title in ("one", "two")
    ]
    decisions = yield context.task_all(tasks)
    return [decision.approve for decision in decisions]


async def two_at_once_async(context: OrchestrationContext):
    tasks = [
        context.human_task("Decide", Decision, title=title, roles=("adjuster",)) for title in ("one", "two")
    ]
    return [decision.approve for decision in await context.task_all(tasks)]


@pytest.mark.parametrize("suspended", [False, True], ids=["running", "suspended"])
@both(two_at_once, two_at_once_async)
async def test_an_answer_reaches_the_task_that_it_names(hub, orchestrator, suspended):
    async with environment(app_with(orchestrator), store=hub) as env:
        instance = await env.client.start_new("main")
        one, two = (await env.client.list_tasks()).tasks
        if suspended:
            await env.client.suspend(instance)
        await env.client.complete_task(two.id, ADA, Decision(False))
        if suspended:
            await env.client.resume(instance)
        await env.evict()
        assert [task.title for task in (await env.client.list_tasks()).tasks] == ["one"]
        await env.client.complete_task(one.id, ADA, Decision(True))
        assert (await env.client.wait_for_completion(instance)).output == [True, False]


async def test_an_answer_to_a_closed_task_reaches_no_other(hub):
    async def again(context: OrchestrationContext, round: int):
        waits = [
            context.human_task("Decide", Decision, roles=("adjuster",)),
            context.wait_for_external_event("Go"),
        ]
        await context.task_any(waits)
        if round == 1:
            waits[0].cancel()
            second = context.human_task("Decide", Decision, roles=("adjuster",))
            return (await second).approve
        context.continue_as_new(round + 1)

    async with environment(app_with(again), store=hub) as env:
        instance = await env.client.start_new("main", client_input=0)
        for _ in range(2):
            [task] = [one for one in (await env.client.list_tasks()).tasks if one.event == "Decide"]
            await env.client.suspend(instance)
            await env.client.raise_event(instance, "Go")
            await env.client.complete_task(task.id, ADA, Decision(False))
            await env.client.resume(instance)
        [last] = (await env.client.list_tasks()).tasks
        await env.client.complete_task(last.id, BEN, Decision(True))
        assert (await env.client.wait_for_completion(instance)).output is True
