"""Human tasks: decisions by people, as waits for events that describe themselves.

A task is composed of what every orchestrator has: a wait for each decision, one after the other, a timer for the
deadline, and one for each reminder and escalation. History shows them all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, Unpack, overload

import msgspec
from msgspec import Raw, structs

from perdure.errors import OrchestratorError, PayloadError
from perdure.model import actions as act
from perdure.model import payload
from perdure.model.durations import Seconds
from perdure.model.events import ANY_TASK
from perdure.model.human_tasks import (
    NO_FACTS,
    Escalation,
    HumanTaskDetails,
    TaskRecord,
    in_words,
    why_unqualified,
)
from perdure.model.names import is_name, not_a_name
from perdure.replay.activity_calls import ActivityCalls
from perdure.replay.task import DONE, FAILED, NO_DEFAULT, PENDING, EventTask, Owner, T_co, Task, TimerTask

if TYPE_CHECKING:
    from perdure.model.events import EventRaised

T = TypeVar("T")
D = TypeVar("D")

FACTS_LIMIT = 16 * 1024  # bytes: they are shown beside the form, and the wait's event carries them
REMIND, ESCALATE = "remind", "escalate"


class Reminder(msgspec.Struct, frozen=True, kw_only=True):
    """What the activity that reminds people receives.

    `kind` is "remind" or "escalate", `number` counts each kind from 1. `roles` are those that may decide from now
    on. `due_at` is the deadline in microseconds since 1970, 0 without one.
    """

    instance_id: str
    event: str
    kind: Literal["remind", "escalate"]
    number: int
    title: str
    roles: tuple[str, ...] = ()
    assignee: str = ""
    due_at: int = 0


class DecisionTask(EventTask[T_co]):
    """The wait for one decision of a human task. `roles` are those that may decide now."""

    __slots__ = ("deadline", "details", "escalated", "given_by")

    def __init__(
        self, context: Owner, task_id: int, name: str, expected: Any, details: HumanTaskDetails
    ) -> None:
        super().__init__(context, task_id, name, expected)
        self.details = details
        self.deadline = 0
        self.escalated = 0  # how many escalations have happened
        self.given_by: tuple[str, ...] = ()

    @property
    def record(self) -> TaskRecord:
        """What the task's row says of it now."""
        return TaskRecord(self.details, self.escalated, self.given_by)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that may decide now."""
        return self.details.roles_at(self.escalated)

    def why_unqualified(self, person: str, roles: tuple[str, ...]) -> str:
        """Why this person's answer does not count now, or ""."""
        return why_unqualified(self.details, self.roles, self.given_by, person, roles)

    @property
    def number(self) -> int:
        """The id of the task: that of its first wait."""
        return self.details.of if self.details.of >= 0 else self.id

    def _unqualified(self, event: EventRaised) -> str:
        if event.task not in (ANY_TASK, self.number):
            return "the answer is for another task"
        return self.why_unqualified(event.decided_by, event.roles)

    def _take(self, item: tuple[int, EventRaised], value: Any) -> None:
        super()._take(item, value)
        self.was_left = False  # a decision belongs to its task: it never moves to a later wait


class HumanTask(Task[T_co]):
    """A decision that people make, or several by different people. Await it like any other task.

    `decided_by` has the proven senders of the decisions so far, in order; "" for an answer without a person.
    """

    __slots__ = (
        "_ask",
        "_deadline",
        "_decisions",
        "_default",
        "_final",
        "_remind",
        "_waits",
        "_warnings",
        "decided_by",
    )

    def __init__(
        self,
        first: DecisionTask[Any],
        ask: Callable[[DecisionTask[Any], tuple[str, ...]], DecisionTask[Any]],
        deadline: TimerTask | None,
        warnings: dict[TimerTask, int],
        remind: Callable[[str, int, tuple[str, ...]], None],
        default: Any,
        final: Callable[[Any], bool] | None,
    ) -> None:
        super().__init__(first._context, first.id)
        self._waits = [first]
        self._ask = ask
        self._deadline = deadline
        self._warnings = warnings
        self._remind = remind
        self._default = default
        self._final = final
        self._decisions: list[Any] = []
        self.decided_by: tuple[str, ...] = ()
        for timer in (*warnings, *((deadline,) if deadline is not None else ())):
            timer._add_waiter(self)
        self._follow(first)

    @property
    def name(self) -> str:
        """The name of the event that answers it."""
        return self._waits[0].name

    def on_done(self, task: Task[Any]) -> None:
        if self._state != PENDING:
            return
        if task is self._waits[-1]:
            self._decided(self._waits[-1])
        elif task is self._deadline:
            self._deadline = None
            self._close()
            self._expire()
        elif isinstance(task, TimerTask):
            self._warn(task)

    def cancel(self) -> None:
        """Withdraw the task. Answers that the code has not seen return to the front of the queue, as those of a
        wait do.
        """
        if self._state == PENDING:
            self._close()
            self._fail(OrchestratorError(f"{self._describe()} was cancelled"))
        for wait in self._waits:
            if wait.event is not None:
                wait.cancel()

    def _follow(self, wait: DecisionTask[Any]) -> None:
        if wait._state == PENDING:
            wait._add_waiter(self)
        else:
            self._decided(wait)

    def _decided(self, wait: DecisionTask[Any]) -> None:
        if wait._state != DONE:
            self._close()
            self._fail(wait._outcome)
            return
        assert wait.event is not None
        self._decisions.append(wait._outcome)
        self.decided_by = (*self.decided_by, wait.event[1].decided_by)
        details = wait.details
        try:
            is_final = self._final is not None and self._final(wait._outcome)
        except Exception as error:  # the function is the orchestrator's: its error is raised where it waits
            self._close()
            self._fail(error)
            return
        if len(self._decisions) < details.decisions and not is_final:
            following = self._ask(wait, self.decided_by)
            self._waits.append(following)
            self._follow(following)
            return
        self._close()
        self._complete(self._decisions if details.decisions > 1 else self._decisions[0])

    def _warn(self, timer: TimerTask) -> None:
        number = self._warnings.pop(timer)
        wait = self._waits[-1]
        if timer.purpose == ESCALATE:
            wait.escalated = number
            self._context._wait_changed(wait)
        self._remind(timer.purpose, number, wait.roles)

    def _close(self) -> None:
        """Cancel what is still open: the wait and the timers."""
        open_timers = [*self._warnings, *((self._deadline,) if self._deadline is not None else ())]
        self._warnings, self._deadline = {}, None
        for timer in open_timers:
            timer._waiters = None
            timer.cancel()
        wait = self._waits[-1]
        if wait._state == PENDING:
            wait._waiters = None
            wait.cancel()

    def _expire(self) -> None:
        if self._default is NO_DEFAULT:
            self._fail(TimeoutError(f"{self._describe()} was not decided before its deadline"))
        else:
            self._complete(self._default)

    def _observe(self) -> None:
        for wait in self._waits:
            wait._observe()
            if wait.gave_back:
                self._state, self._outcome = FAILED, wait._outcome

    def _describe(self) -> str:
        return f"the human task '{self.name}'"


class HumanTaskOptions(TypedDict, total=False):
    """The optional arguments of a human task."""

    title: str
    facts: Mapping[str, Any] | None
    roles: Collection[str]
    assignee: str
    timeout: Seconds | None
    remind: Collection[Seconds]
    escalate: Mapping[timedelta, str] | Mapping[float, str] | None
    remind_with: str | Callable[..., Any] | None
    then: str
    final: Callable[[Any], bool] | None


class HumanTasks(ActivityCalls):
    """The part of an orchestration's context that asks people."""

    __slots__ = ()

    @overload
    def human_task(  # type: ignore[overload-overlap]
        self,
        name: str,
        expected_type: type[T],
        *,
        decisions: Literal[1] = 1,
        **options: Unpack[HumanTaskOptions],
    ) -> HumanTask[T]: ...
    @overload
    def human_task(
        self,
        name: str,
        expected_type: type[T],
        *,
        decisions: Literal[1] = 1,
        default: D,
        **options: Unpack[HumanTaskOptions],
    ) -> HumanTask[T | D]: ...
    @overload
    def human_task(
        self, name: str, expected_type: type[T], *, decisions: int, **options: Unpack[HumanTaskOptions]
    ) -> HumanTask[list[T]]: ...
    @overload
    def human_task(
        self,
        name: str,
        expected_type: type[T],
        *,
        decisions: int,
        default: D,
        **options: Unpack[HumanTaskOptions],
    ) -> HumanTask[list[T] | D]: ...
    @overload
    def human_task(
        self,
        name: str,
        expected_type: UnionType | None = None,
        *,
        decisions: int = 1,
        default: Any = NO_DEFAULT,
        **options: Unpack[HumanTaskOptions],
    ) -> HumanTask[Any]: ...
    def human_task(
        self,
        name: str,
        expected_type: Any = None,
        *,
        decisions: int = 1,
        default: Any = NO_DEFAULT,
        **options: Unpack[HumanTaskOptions],
    ) -> HumanTask[Any]:
        """Ask people for a decision, and wait for it: a wait for the external event `name` with a description.

        The task appears in the inbox until it is decided, expires or is cancelled. With `roles`, `assignee`,
        `escalate` or several `decisions`, only the answer of a proven person counts; any other is rejected, and
        the wait continues.

        Parameters:
            expected_type: the type of a decision, which makes the form. An answer that does not fit is rejected.
            title: what is asked, in one line. The default is the type's name in words.
            facts: what a person needs to decide, by label; at most 16 KiB as JSON.
            roles: the roles that may decide; empty for anyone.
            assignee: the person for whom the task is.
            timeout: how long to wait, in seconds or as a timedelta. Afterwards the task raises TimeoutError, or
                returns `default`.
            remind: when to remind, after the task's beginning and before its end.
            escalate: from when on the task is for another role instead: `{timedelta(hours=48): "supervisor"}`.
            remind_with: the activity that reminds; it receives a `Reminder` at each time of `remind` and
                `escalate`. Its failure does not touch the task.
            then: what happens at the deadline, for people: "it goes to the archive".
            decisions: how many different people must decide.
            final: a function of a decision. If it returns True, the task ends at once with the decisions so far,
                without waiting for the others. It must be deterministic, and its error is the task's.

        Returns: a task of the decision, or of the list of decisions in the order of arrival if `decisions` is
            above 1. Its `decided_by` names the people.

        Raises:
            OrchestratorError for a name that the orchestrator's `events` do not admit. ValueError for a reminder
            or an escalation that is not between the beginning and the deadline, and for `decisions` below 1.
            PayloadError for facts that are too large or no JSON object.
        """
        self._check_wait(name, expected_type)
        timeout = options.get("timeout")
        deadline = self._after(timeout, "the deadline", "deadline") if timeout is not None else 0
        details = self._details(name, expected_type, decisions, deadline, options)
        wanted = Any if expected_type is None else expected_type
        first = self._ask_person(DecisionTask(self, self._take_id(), name, wanted, details), deadline)
        timers: dict[TimerTask, int] = {}
        limit: TimerTask | None = None
        if first._state == PENDING or decisions > 1:
            if first.deadline:
                limit = self._timer(first.deadline, "timeout", first.id)
            timers = self._warning_timers(details, first.id)

        def ask(before: DecisionTask[Any], given_by: tuple[str, ...]) -> DecisionTask[Any]:
            following = structs.replace(before.details, number=before.details.number + 1, of=first.id)
            wait: DecisionTask[Any] = DecisionTask(self, self._take_id(), name, wanted, following)
            wait.escalated, wait.given_by = before.escalated, given_by
            return self._ask_person(wait, first.deadline)

        def remind(kind: str, number: int, roles: tuple[str, ...]) -> None:
            activity = options.get("remind_with")
            if activity is not None:
                self.call_activity(
                    activity,
                    Reminder(
                        instance_id=self._identity.instance_id,
                        event=name,
                        kind="escalate" if kind == ESCALATE else "remind",
                        number=number,
                        title=details.title,
                        roles=roles,
                        assignee=details.assignee,
                        due_at=first.deadline,
                    ),
                )

        return HumanTask(first, ask, limit, timers, remind, default, options.get("final"))

    def _ask_person(self, wait: DecisionTask[Any], deadline: int) -> DecisionTask[Any]:
        """Record the wait and open it."""
        recorded = self._emit(act.AwaitEvent(wait.id, wait.name, deadline, wait.details))
        wait.deadline = recorded.deadline if recorded is not None else deadline
        if recorded is not None:
            wait.details = recorded.task or HumanTaskDetails()  # what the people saw
        self._open_wait(wait)
        return wait

    def _warning_timers(self, details: HumanTaskDetails, wait_id: int) -> dict[TimerTask, int]:
        """The timers of reminders and escalations, with the number of each."""
        timers = {self._timer(at, REMIND, wait_id): number for number, at in enumerate(details.reminders, 1)}
        for number, step in enumerate(details.escalations, 1):
            timers[self._timer(step.at, ESCALATE, wait_id)] = number
        return timers

    def _details(
        self, name: str, expected_type: Any, decisions: int, deadline: int, options: HumanTaskOptions
    ) -> HumanTaskDetails:
        if decisions < 1:
            raise ValueError(f"decisions must be 1 or more, not {decisions!r}")
        facts = options.get("facts")
        escalate: Mapping[Any, str] = options.get("escalate") or {}
        return HumanTaskDetails(
            title=options.get("title") or in_words(getattr(expected_type, "__name__", name)),
            facts=_facts(facts) if facts else NO_FACTS,
            roles=tuple(_names(options.get("roles", ()), "roles")),
            assignee=options.get("assignee", ""),
            reminders=tuple(
                sorted(self._between(after, deadline, "a reminder") for after in options.get("remind", ()))
            ),
            escalations=tuple(
                sorted(
                    (
                        Escalation(self._between(after, deadline, "an escalation"), role)
                        for after, role in escalate.items()
                    ),
                    key=lambda step: step.at,
                )
            ),
            then=options.get("then", ""),
            decisions=decisions,
        )

    def _between(self, after: Seconds, deadline: int, what: str) -> int:
        """The time of a reminder or an escalation. Raises ValueError unless the task can be open then."""
        at = self._after(after, what)
        if at <= self._now:
            raise ValueError(f"{what} must come after the task's beginning, not after {after!r}")
        if deadline and at >= deadline:
            raise ValueError(
                f"{what} after {after!r} would come when the task has expired: set a longer timeout"
            )
        return at


def _facts(facts: Mapping[str, Any]) -> Raw:
    if not isinstance(facts, Mapping):
        raise PayloadError(f"facts are a mapping from label to value, not {type(facts).__name__}")
    return Raw(payload.encode(dict(facts), limit=FACTS_LIMIT))


def _names(names: Collection[str], what: str) -> Collection[str]:
    if isinstance(names, str):
        raise ValueError(f"{what} is a collection of names, not one text: write {what}=({names!r},)")
    for name in names:
        if not is_name(name):
            raise ValueError(not_a_name(name, f"each of {what}"))
    return names


__all__ = ["DecisionTask", "HumanTask", "HumanTasks", "Reminder"]
