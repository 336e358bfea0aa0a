"""The clients: they run their orders, lose answers, repeat with the same id, and record the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from msgspec import Raw

from perdure.engine.client.status import start_of
from perdure.engine.core.repeats import CODE, bound, digest_of, restart_named
from perdure.errors import (
    CommitRefused,
    EngineStopped,
    IdempotencyConflict,
    InstanceExists,
    Overloaded,
    PerdureError,
    StoreError,
    StoreFull,
    StoreUnusable,
)
from perdure.model.human_tasks import decode_task
from perdure.model.messages import (
    CompleteTask,
    EntityOperation,
    Message,
    MoveTask,
    Purge,
    RaiseEvent,
    Resume,
    Rewind,
    Start,
    Suspend,
    Terminate,
)
from perdure.model.records import TaskFilter
from perdure.model.trace_context import TraceContext
from simulation.backend import StoreBackend
from simulation.injector import SimulatedCrash
from simulation.plan import Client, Order
from simulation.program import PEOPLE
from simulation.stage import Process, Stage

NOT_DONE = (StoreFull, Overloaded, EngineStopped, CommitRefused)
ANSWER_WITHIN = 12.0  # seconds until a client gives an answer up
PAUSE = 2.0  # seconds before it tries again
RETRIES = 400


@dataclass
class Dealing:
    """What became of one order: every answer that was given to it, heard or not."""

    order: Order
    target: str
    outcome: str = ""  # ok | refused | unknown
    told: list[str] = field(default_factory=list)  # "ok ..." or the error's class
    told_to: list[int] = field(default_factory=list)  # the attempt that each of these answers
    told_before: list[int] = field(
        default_factory=list
    )  # how many answers there were when each attempt was sent
    attempts: int = 0
    done_at: int = 0
    sent_at: int = 0
    asked_at: int = 0  # by the hub's clock
    remembered_as: str = ""  # what its answer is kept under
    task: int = -1  # the task that it is about

    @property
    def operation_id(self) -> str:
        return f"op-{self.order.key}" if self.order.with_id else ""

    @property
    def was_accepted(self) -> bool:
        return any(answer.startswith("ok") for answer in self.told)


class Reply:
    """A future for `tell`, without an event loop."""

    def __init__(self, actor: Actor, dealing: Dealing, attempt: int) -> None:
        self._actor = actor
        self._dealing = dealing
        self._attempt = attempt
        self._is_done = False

    def get_loop(self) -> Any:
        return _AT_ONCE

    def done(self) -> bool:
        return self._is_done

    def set_result(self, value: Any) -> None:
        self._is_done = True
        self._actor.told(self._dealing, self._attempt, value, None)

    def set_exception(self, error: BaseException) -> None:
        self._is_done = True
        self._actor.told(self._dealing, self._attempt, None, error)


class _AtOnce:
    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any) -> None:
        callback(*args)


_AT_ONCE = _AtOnce()


def _about(order: Order, message: Message) -> tuple[str, ...]:
    """The verb and the target of an order, determined without the engine."""
    if order.verb == "restart":
        return ("restart", order.target)
    part = {RaiseEvent: "name", EntityOperation: "operation"}.get(type(message), "")
    return (type(message).__name__, message.instance_id, getattr(message, part, "") if part else "")


class Exchange(Stage, Protocol):
    """What clients need of the world: workers that take their messages, and what other clients have done."""

    backend: StoreBackend
    dealings: list[Dealing]
    known_ids: set[str]
    names: Counter[tuple[str, ...]]
    used: dict[str, tuple[str, ...]]

    def post(self, message: Message, reply: Any, key: int, attempt: int) -> Process | None: ...

    def is_being_started(self, mine: Dealing) -> bool: ...


class Actor:
    """One client at work."""

    def __init__(self, world: Exchange, client: Client) -> None:
        self._world = world
        self._client = client
        self._at = 0
        self._dealing: Dealing | None = None
        self._asked: Process | None = None
        self.is_done = not client.orders
        if not self.is_done:
            self._world.after(client.orders[0].pause, self._begin)

    def _begin(self) -> None:
        order = self._client.orders[self._at]
        patient = self._client.after_start and not self._world.injector.is_healed
        if patient and order.target not in self._world.known_ids:
            self._world.after(0.5, self._begin)
            return
        self._dealing = Dealing(
            order, order.target, sent_at=self._world.steps, asked_at=self._world.clock.now()
        )
        self._world.dealings.append(self._dealing)
        self._try()

    def _try(self) -> None:
        dealing = self._dealing
        assert dealing is not None
        message = self._message(dealing)
        if message is None:
            self._end("refused")
            return
        message = self._named(dealing, message)
        dealing.attempts += 1
        dealing.told_before.append(len(dealing.told))
        if dealing.attempts > RETRIES:
            self._world.ledger.problem("client", f"order {dealing.order} is never taken")
            self._end("unknown")
            return
        attempt = dealing.attempts
        if dealing.order.verb == "start" and self._world.is_being_started(dealing):
            self._world.met("two starts of one id at once")
        before = self._asked
        self._asked = self._world.post(message, Reply(self, dealing, attempt), dealing.order.key, attempt)
        if (
            attempt > 1
            and self._asked is not None
            and self._asked is not before
            and self._world.ledger.shared
        ):
            self._world.met("a client that repeated at another worker")
        if self._asked is None:
            self._world.after(PAUSE, lambda: self._again(dealing, attempt))  # no worker is alive
            return
        self._world.after(ANSWER_WITHIN, lambda: self._gave_up(dealing, attempt))

    def told(self, dealing: Dealing, attempt: int, value: Any, error: BaseException | None) -> None:
        """Record an answer of the engine, which may not reach the client."""
        world = self._world
        if world.injector.crashes("reply"):
            world.met("a crash while answers are given")
            raise SimulatedCrash
        self._note(dealing, attempt, value, error)
        if dealing is not self._dealing:
            return  # to an order long done
        if attempt <= dealing.order.lost or attempt != dealing.attempts:
            return  # lost on its way, or to a request that was given up
        self._hear(dealing, error)

    def _note(self, dealing: Dealing, attempt: int, value: Any, error: BaseException | None) -> None:
        world, order = self._world, dealing.order
        told = f"ok {value}" if error is None else type(error).__name__
        known = dealing.operation_id in world.ledger.seen or dealing.operation_id in world.ledger.requested
        if error is None and dealing.operation_id and not known:
            world.ledger.problem("I16", f"{order.verb} {order.key} was answered before its commit")
        if error is None and order.verb == "start" and world.ledger.run_of(str(value)) is None:
            if not any(run.row.instance_id == value for run in world.ledger.runs.values()):
                world.ledger.problem("I10", f"the start of {value!r} was acknowledged and there is none")
        unanswered = error is None and dealing.operation_id not in world.ledger.seen
        if (unanswered and dealing.operation_id) or "no worker has answered" in str(error):
            world.met("a request that no owner answered in time")
        if error is None and attempt > 1 and any(answer.startswith("ok") for answer in dealing.told):
            world.met("a client's retry answered from seen")
        dealing.told.append(told)
        dealing.told_to.append(attempt)
        world.trace("told", order.key, attempt, told)

    def _hear(self, dealing: Dealing, error: BaseException | None) -> None:
        if error is None:
            if dealing.order.verb == "start":
                self._world.known_ids.add(dealing.target)
            self._end("ok")
        elif isinstance(error, NOT_DONE):
            if isinstance(error, Overloaded):
                self._world.met("an event refused because too many are kept")
                if self._world.injector.is_healed:  # no wait will take it any more
                    self._end("refused")
                    return
            attempt = dealing.attempts
            self._world.after(PAUSE, lambda: self._again(dealing, attempt))
        elif isinstance(error, StoreError) or not isinstance(error, PerdureError):
            self._world.ledger.problem("client", f"{dealing.order.verb} was answered {error!r}")
            self._end("unknown")
        elif isinstance(error, IdempotencyConflict):
            self._world.ledger.problem("I12", f"{dealing.order.verb} {dealing.order.key}: {error}")
            self._end("refused")
        elif type(error).__name__ == "OutcomeUnknown":
            self._in_doubt(dealing)
        else:
            if isinstance(error, InstanceExists):
                self._world.known_ids.add(dealing.target)
            self._end("refused")

    def _gave_up(self, dealing: Dealing, attempt: int) -> None:
        if self._dealing is dealing and dealing.attempts == attempt and not dealing.outcome:
            self._in_doubt(dealing)

    def connection_lost(self, worker: Process) -> None:
        """A process is dead, perhaps the one with the request."""
        dealing = self._dealing
        if dealing is not None and dealing.attempts and self._asked is worker:
            attempt = dealing.attempts
            self._world.after(PAUSE, lambda: self._gave_up(dealing, attempt))

    def _in_doubt(self, dealing: Dealing) -> None:
        """The outcome is unknown: a request with an id is repeated."""
        attempt = dealing.attempts
        if dealing.order.with_id or dealing.order.verb == "start":
            self._world.after(PAUSE, lambda: self._again(dealing, attempt))
        else:
            self._world.met("a client without an id left in doubt")
            self._end("unknown")

    def _again(self, dealing: Dealing, attempt: int) -> None:
        if self._dealing is dealing and dealing.attempts == attempt:
            self._try()

    def _end(self, outcome: str) -> None:
        assert self._dealing is not None
        self._dealing.outcome = outcome
        self._dealing.done_at = self._world.steps
        self._dealing = None
        self._at += 1
        if self._at < len(self._client.orders):
            self._world.after(self._client.orders[self._at].pause, self._begin)
        else:
            self.is_done = True

    # ------------------------------------------------------------------------------------------- messages

    def _message(self, dealing: Dealing) -> Message | None:
        order, key, target = dealing.order, dealing.operation_id, dealing.target
        match order.verb:
            case "start":
                return self._start(order, key)
            case "raise":
                body = Raw(msgspec.json.encode(order.key))
                return RaiseEvent(
                    instance_id=target,
                    name=order.event,
                    input=body,
                    operation_id=key,
                    trace=self._trace(order),
                )
            case "decide" | "complete" | "claim" | "release":
                return self._of_person(dealing)
            case "signal":
                return EntityOperation(
                    instance_id=target,
                    operation=order.operation,
                    input=Raw(msgspec.json.encode(f"client:{order.key}")),
                    is_signal=True,
                    visible_at=self._world.clock.now() + int(order.delay * 1e6) if order.delay else 0,
                    operation_id=key,
                )
            case "suspend":
                return Suspend(instance_id=target, reason="looking at it", operation_id=key)
            case "resume":
                return Resume(instance_id=target, operation_id=key)
            case "terminate":
                reason = "no longer wanted"
                return Terminate(
                    instance_id=target, reason=reason, recursive=order.recursive, operation_id=key
                )
            case "terminate-child":
                return self._terminate_child(dealing)
            case "rewind":
                return Rewind(instance_id=target, reason="it is mended", operation_id=key)
            case "restart":
                return self._restart(dealing)
            case _:
                return Purge(instance_id=target, operation_id=key)

    def _of_person(self, dealing: Dealing) -> Message | None:
        """A person's message. About a task, it names the one that the person sees; without one there is none."""
        order, key, target = dealing.order, dealing.operation_id, dealing.target
        roles = ("judge", "chief") if order.person in PEOPLE else ()
        body = Raw(msgspec.json.encode(order.key))
        if order.verb == "decide":
            return RaiseEvent(
                instance_id=target,
                name=order.event,
                input=body,
                operation_id=key,
                decided_by=order.person,
                roles=roles,
            )
        if dealing.task < 0:
            dealing.task = self._task_in_sight(order)
        if dealing.task < 0:
            return None
        if order.verb == "complete":
            return CompleteTask(
                instance_id=target,
                name=order.event,
                input=body,
                operation_id=key,
                decided_by=order.person,
                roles=roles,
                task=dealing.task,
            )
        return MoveTask(
            instance_id=target,
            task=dealing.task,
            verb="claim" if order.verb == "claim" else "release",
            person=order.person,
            roles=roles,
            operation_id=key,
        )

    def _task_in_sight(self, order: Order) -> int:
        """The open task of the order's target, as a list of tasks names it; -1 without one."""
        try:
            rows = self._world.backend.store.tasks(TaskFilter(event=order.event))
        except StoreUnusable:  # in a log there is no hub before the first engine has made it
            return -1
        for row in rows:
            if row.instance_id == order.target:
                assert row.wait.task is not None
                of = decode_task(row.wait.task).details.of
                return row.wait.wait_id if of < 0 else of
        return -1

    def _named(self, dealing: Dealing, message: Message) -> Message:
        """The message under a name that orders of other verbs, and for other targets, have too.

        In history and in the ledger it keeps an operation id of its own.
        """
        key = dealing.operation_id
        if not key:
            return message
        if not dealing.remembered_as:
            dealing.remembered_as = self._bound(dealing, message)
            self._world.ledger.named[dealing.remembered_as] = key
        content = digest_of(key)
        return msgspec.structs.replace(message, remembered_as=dealing.remembered_as, content=content)

    def _bound(self, dealing: Dealing, message: Message) -> str:
        order, world = dealing.order, self._world
        about = _about(order, message)
        name = f"name-{world.names[about]}"
        world.names[about] += 1
        if world.used.setdefault(name, about) != about:
            world.met("a name that another order had used")
        if order.verb == "restart":
            return restart_named(order.target, name, fresh=order.new_id).remembered_as
        return bound(msgspec.structs.replace(message, operation_id=name), CODE).remembered_as  # type: ignore[union-attr]

    def _start(self, order: Order, key: str) -> Start:
        if order.delay:
            self._world.met("a delayed start")
        in_doubt = self._dealing is not None and self._dealing.attempts > 0 and not key
        return Start(
            instance_id=order.target,
            name=self._world.plan.program.name(order.body),
            input=Raw(b'{"gen":0,"log":[]}'),
            on_existing="return_existing" if in_doubt else order.on_existing,  # type: ignore[arg-type]
            visible_at=self._world.clock.now() + int(order.delay * 1e6) if order.delay else 0,
            operation_id=key,
            trace=self._trace(order),
        )

    def _trace(self, order: Order) -> str:
        """The trace that a caller sends with half of the orders; the same with a repeat."""
        draw = self._world.chance.draw
        if draw("traced", order.key) < 0.5:
            return ""
        return TraceContext(1 + int(draw("trace", order.key) * 2**64), 1 + order.key).text()

    def _terminate_child(self, dealing: Dealing) -> Message | None:
        if dealing.attempts == 0:
            children = [
                run.row.instance_id
                for run in self._world.ledger.living()
                if run.row.parent_id == dealing.target
            ]
            if not children:
                return None
            dealing.target = children[-1]
        return Terminate(instance_id=dealing.target, reason="a child", operation_id=dealing.operation_id)

    def _restart(self, dealing: Dealing) -> Message | None:
        """As `Client.restart` does it. A repeat asks for the same again."""
        order, store = dealing.order, self._world.backend.store
        if dealing.remembered_as and store.answered(dealing.remembered_as) is not None:
            return Start(
                instance_id=dealing.target, name="", input=Raw(b"null"), operation_id=dealing.operation_id
            )
        found = start_of(store, order.target)
        if found is None or (found[0].row.completed_at is None and dealing.attempts == 0):
            return None
        if not bytes(found[1]):
            return None  # ended before it began: its input is gone (see the report)
        target = f"{order.target}+{order.key}.{dealing.attempts}" if order.new_id else order.target
        dealing.target = target
        row = found[0].row
        return Start(
            instance_id=target,
            name=row.name,
            version=row.version,
            input=found[1],
            operation_id=dealing.operation_id,
            fresh=order.new_id,
        )
