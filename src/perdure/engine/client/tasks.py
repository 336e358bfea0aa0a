"""People's tasks: to list what waits for whom, to claim, to assign, and to decide.

A task is an open wait for an external event. Its id names the instance and the wait. Most are described with
`context.human_task`; a plain wait is a task, too, with less to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from perdure.engine.client.starting import body_of
from perdure.errors import PayloadError, PerdureError, TaskClosed
from perdure.model import payload
from perdure.model.durations import instant, moment
from perdure.model.human_tasks import HumanTaskDetails, Person, TaskRecord, in_words, read_task
from perdure.model.messages import CompleteTask, MoveTask
from perdure.model.names import is_name, not_a_name
from perdure.model.records import TaskFilter, TaskRow, due_key

if TYPE_CHECKING:
    from perdure.engine.client.gateway import Gateway
    from perdure.store.port import ClientStore

MOST = 1_000
_AT_ONCE = 500  # rows read at a time while a condition is tested that no index has


@dataclass(frozen=True)
class OpenTask:
    """A task that waits for people.

    Parameters:
        id: names it in every verb.
        instance_id, orchestrator, event: what waits, and for which event.
        title, facts, then: what `context.human_task` says; a plain wait has its event's name in words.
        roles: who may decide now; empty for anyone.
        assignee: the person for whom it is.
        holder, held_since: who has claimed it.
        due: the deadline.
        decisions, given_by: how many people must decide, and who has.
        escalation: the next one: when, and to which role.
        schema: the JSON Schema of the answer.
        needs_person: whether only the answer of a proven person counts.
    """

    id: str
    instance_id: str
    orchestrator: str
    event: str
    title: str
    since: datetime
    due: datetime | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    roles: tuple[str, ...] = ()
    assignee: str = ""
    holder: str = ""
    held_since: datetime | None = None
    decisions: int = 1
    given_by: tuple[str, ...] = ()
    escalation: tuple[datetime, str] | None = None
    then: str = ""
    schema: dict[str, Any] | None = None
    tags: dict[str, str] = field(default_factory=dict)
    needs_person: bool = False

    @property
    def due_now(self) -> datetime | None:
        """Until when those who may decide it now have time: to the next escalation, or to the deadline."""
        return self.escalation[0] if self.escalation is not None else self.due

    def may_be_decided_by(self, person: Person) -> bool:
        """Whether the person may see and decide it: by role, by assignment, or because anyone may."""
        if person.name in (self.assignee, self.holder):
            return True
        return (not self.roles and not self.assignee) or bool(set(self.roles) & set(person.roles))


@dataclass(frozen=True)
class TaskPage:
    """One page of a list of tasks; `continuation` is the token of the next page, None on the last."""

    tasks: list[OpenTask]
    continuation: str | None = None


class TaskVerbs:
    """The part of a client that is about people's tasks."""

    gateway: Gateway

    async def list_tasks(
        self,
        *,
        person: str = "",
        role: str = "",
        orchestrator: str = "",
        event: str = "",
        due_before: datetime | None = None,
        tags: dict[str, str] | None = None,
        text: str = "",
        top: int = 100,
        continuation: str | None = None,
        visible_to: Person | None = None,
    ) -> TaskPage:
        """Open tasks that match every given filter: due first, those without a deadline last.

        Parameters:
            person: who has claimed it, or to whom it is assigned while it is not claimed.
            role: a role that may decide it now.
            orchestrator, event: the names of the function and of the event.
            due_before: only tasks with an earlier deadline.
            tags: the tags of its instance.
            text: what its title contains, in any case.
            top: how many, 1 to 1000.
            continuation: the token of the previous page.
            visible_to: only tasks that this person may decide.

        Raises PayloadError for a token that is not one of a list of tasks, ValueError for another `top`.
        """
        if not 1 <= top <= MOST:
            raise ValueError(f"top must be 1 to {MOST:,}, not {top!r}")
        wanted = TaskFilter(
            person=person,
            role=role,
            name=orchestrator,
            event=event,
            due_before=instant(due_before, "due_before") if due_before is not None else None,
            after=_key_in(continuation),
            top=top,
        )
        store = self.gateway.store
        return await self.gateway.read(
            lambda: _page(store, wanted, _Wanted(tags or {}, text.casefold(), visible_to))
        )

    async def get_task(self, task_id: str) -> OpenTask | None:
        """One open task, or None when it was decided, has expired, or never existed."""
        instance_id, number = _named(task_id)
        store = self.gateway.store
        return await self.gateway.read(lambda: _found(store, instance_id, number))

    async def claim_task(self, task_id: str, person: Person, *, operation_id: str | None = None) -> None:
        """Claim a task for a person, until they decide or release it. A second claim by the same person changes
        nothing.

        Raises TaskHeld when another person has it, TaskRefused for a person who may not decide it, TaskClosed
        when it is no longer open.
        """
        await self.gateway.accept(MoveTask(**_who(task_id, person, operation_id), verb="claim"))

    async def release_task(self, task_id: str, person: Person, *, operation_id: str | None = None) -> None:
        """Give a claimed task back. Raises TaskHeld when another person has it, TaskClosed when it is closed."""
        await self.gateway.accept(MoveTask(**_who(task_id, person, operation_id), verb="release"))

    async def assign_task(
        self, task_id: str, person: Person, to: str, *, operation_id: str | None = None
    ) -> None:
        """Assign a task to another person, who then finds it in their list. `person` is who does so.

        Raises TaskHeld when a third person has it, TaskRefused for a person who may not decide it, TaskClosed
        when it is no longer open.
        """
        await self.gateway.accept(MoveTask(**_who(task_id, person, operation_id), verb="assign", to=to))

    async def complete_task(
        self, task_id: str, person: Person | None, answer: Any = None, *, operation_id: str | None = None
    ) -> None:
        """Answer a task, as `person` or, where the task allows it, as anyone.

        Raises TaskClosed when it was decided before, has expired or was withdrawn, TaskHeld when another person
        has claimed it, TaskRefused when the person's answer cannot count, EventRefused and PayloadError for an
        answer that does not fit.
        """
        instance_id, number = _named(task_id)
        task = await self.get_task(task_id)
        if task is None:
            raise TaskClosed(
                f"task {task_id} is closed: it was decided, has expired, or was withdrawn. Nothing was sent"
            )
        await self.gateway.accept(
            CompleteTask(
                instance_id=instance_id,
                task=number,
                name=task.event,
                input=body_of(answer),
                operation_id=operation_id or "",
                decided_by=person.name if person is not None else "",
                roles=person.roles if person is not None else (),
            )
        )


async def tasks_of(gateway: Gateway, instance_id: str) -> list[OpenTask]:
    """The open tasks of one instance, in the order in which it asked; none without the instance."""
    store = gateway.store
    return await gateway.read(lambda: _of_instance(store, instance_id))


def task_id_of(instance_id: str, number: int) -> str:
    """The id of a task: that of its instance, and the number of its first wait."""
    return f"{instance_id}:{number}"


def _named(task_id: str) -> tuple[str, int]:
    instance_id, _, number = task_id.rpartition(":")
    if not instance_id or not (number.isascii() and number.isdigit() and len(number) < 12):
        raise PayloadError(f"{task_id[:200]!r} is not the id of a task: copy it from a list of tasks")
    return instance_id, int(number)


def _who(task_id: str, person: Person, operation_id: str | None) -> dict[str, Any]:
    instance_id, number = _named(task_id)
    if not is_name(person.name):
        raise PayloadError(not_a_name(person.name, "the name of a person"))
    return {
        "instance_id": instance_id,
        "task": number,
        "person": person.name,
        "roles": person.roles,
        "operation_id": operation_id or "",
    }


def _key_in(continuation: str | None) -> tuple[int, int, int] | None:
    if continuation is None:
        return None
    parts = continuation.split("-")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts):
        raise PayloadError("this is not a continuation token of a list of tasks")
    due, instance_no, wait_id = (min(int(part), 2**63 - 1) for part in parts)
    return due, instance_no, wait_id


@dataclass(frozen=True)
class _Wanted:
    """The conditions that no index has. Titles may be encrypted, so they are compared here."""

    tags: dict[str, str]
    text: str
    person: Person | None

    def __bool__(self) -> bool:
        return bool(self.tags or self.text or self.person is not None)

    def selects(self, task: OpenTask) -> bool:
        return (
            self.text in task.title.casefold()
            and self.tags.items() <= task.tags.items()
            and (self.person is None or task.may_be_decided_by(self.person))
        )


def _page(store: ClientStore, wanted: TaskFilter, also: _Wanted) -> TaskPage:
    """A page; with further conditions the rows are read a few hundred at a time."""
    found: list[OpenTask] = []
    page = replace(wanted, top=max(wanted.top, _AT_ONCE) if also else wanted.top)
    while True:
        rows = store.tasks(page)
        for row in rows:
            task = _task(row)
            if not also.selects(task):
                continue
            found.append(task)
            if len(found) == wanted.top:
                return TaskPage(found, "-".join(map(str, due_key(row.wait))))
        if len(rows) < page.top:
            return TaskPage(found)
        page = replace(page, after=due_key(rows[-1].wait))


def _found(store: ClientStore, instance_id: str, number: int) -> OpenTask | None:
    wanted = task_id_of(instance_id, number)
    return next((task for task in _of_instance(store, instance_id) if task.id == wanted), None)


def _of_instance(store: ClientStore, instance_id: str) -> list[OpenTask]:
    stored = store.get(instance_id)
    if stored is None:
        return []
    row = stored.row
    return [
        _task(TaskRow(wait, row.instance_id, row.name, row.tags, row.status))
        for wait in sorted(stored.waits, key=lambda wait: wait.wait_id)
    ]


def _task(row: TaskRow) -> OpenTask:
    wait = row.wait
    record = read_task(wait.task) or TaskRecord(HumanTaskDetails())
    details = record.details
    upcoming = details.escalations[record.escalated :]
    return OpenTask(
        id=task_id_of(row.instance_id, details.of if details.of >= 0 else wait.wait_id),
        instance_id=row.instance_id,
        orchestrator=row.name,
        event=wait.name,
        title=details.title or in_words(wait.name),
        since=moment(wait.since),
        due=moment(wait.deadline) if wait.deadline else None,
        facts=_object(bytes(details.facts)),
        roles=record.roles,
        assignee=wait.assignee,
        holder=wait.holder,
        held_since=moment(wait.held_since) if wait.held_since else None,
        decisions=details.decisions,
        given_by=record.given_by,
        escalation=(moment(upcoming[0].at), upcoming[0].role) if upcoming else None,
        then=details.then,
        schema=_object(wait.schema) or None,
        tags=_object(row.tags.encode() if row.tags else b""),
        needs_person=details.needs_person,
    )


def _object(body: bytes | None) -> dict[str, Any]:
    """A JSON object for display; empty when it is damaged."""
    try:
        found = payload.decode(body) if body else {}
    except PerdureError:
        return {}
    return found if isinstance(found, dict) else {}


__all__ = ["OpenTask", "TaskPage", "TaskVerbs", "task_id_of", "tasks_of"]
