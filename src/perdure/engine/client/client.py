"""The client's verbs, the same in process, over HTTP, in the CLI and on the pages.

A verb that changes something sends a message to a `Gateway`. The gateway answers after the commit that
processed the message: a verb that has returned is durable. A verb that reads gets committed state from the
store and never waits for the loop. Verbs that only combine others (waiting, building links) are written once,
here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Unpack

import msgspec

from perdure.engine.client import binding, bulk
from perdure.engine.client.access import AccessVerbs
from perdure.engine.client.azure import AzureVerbs
from perdure.engine.client.bulk import BulkOutcome, BulkPage, BulkRequest, Which
from perdure.engine.client.cluster import ClusterVerbs
from perdure.engine.client.entities import EntityVerbs
from perdure.engine.client.families import finished_family
from perdure.engine.client.gateway import Gateway, Links
from perdure.engine.client.instance_counts import instance_counts, own_counts
from perdure.engine.client.paging import number_in
from perdure.engine.client.searching import Order, checked_statuses, ordered
from perdure.engine.client.starting import Starting, body_of
from perdure.engine.client.statistics import StatisticsVerbs
from perdure.engine.client.status import Detail, count_of, page_of, start_of, status_of
from perdure.engine.client.tasks import TaskVerbs
from perdure.engine.client.watching import WatchVerbs
from perdure.engine.core.audit import NOTE
from perdure.engine.core.repeats import recalled, restart_named
from perdure.errors import IdempotencyConflict, IllegalTransition, InstanceNotFound, PayloadError, StoreError
from perdure.model import payload
from perdure.model.durations import Seconds, instant, micros
from perdure.model.human_tasks import Person
from perdure.model.instances import (
    InstanceCount,
    OrchestrationStatus,
    Page,
    PurgeHistoryResult,
    RuntimeStatus,
    asked_id,
)
from perdure.model.messages import (
    Purge,
    RaiseEvent,
    Resume,
    Rewind,
    Start,
    Suspend,
    Terminate,
)
from perdure.model.names import is_name, is_text, not_a_name
from perdure.model.records import InstanceFilter
from perdure.replay.state import LEGAL

PURGED_AT_ONCE = 250  # sub-orchestrations, so that they share a commit


@dataclass
class Client(
    Starting, EntityVerbs, TaskVerbs, AccessVerbs, AzureVerbs, WatchVerbs, ClusterVerbs, StatisticsVerbs
):
    """Starts, queries and manages instances. Get one from `app.running()` or as a parameter of a route.

    Parameters:
        gateway: where messages go. A function of an Azure Functions app passes the text of its durableClient
            binding instead, and gets a client of the server that called it.
        links: makes the URLs of instances. With the text of a binding it is not used.

    Raises ValueError for a text that is not the binding of a server in this process.
    """

    gateway: Gateway
    links: Links | None

    def __init__(self, gateway: Gateway | str, links: Links | str | None = None) -> None:
        if isinstance(gateway, str):
            self.gateway, self.links = binding.opened(gateway)
        else:
            assert not isinstance(links, str)
            self.gateway, self.links = gateway, links

    @property
    def task_hub(self) -> str:
        """The hub that this client uses."""
        return self.gateway.hub

    # ------------------------------------------------------------------------------------------- starting

    async def restart(
        self,
        instance_id: str,
        restart_with_new_instance_id: bool = True,
        *,
        operation_id: str | None = None,
    ) -> str:
        """Start a finished instance again with its name and input; returns the id of the new run.

        With an `operation_id` a repeat within 24 hours returns the first answer, whatever the state of both
        runs.

        Raises InstanceNotFound, IllegalTransition while the instance is still running.
        """
        store = self.gateway.store
        fresh = restart_with_new_instance_id
        named = restart_named(asked_id(instance_id), operation_id or "", fresh=fresh)
        if operation_id and (first := await self._restarted(named)):
            return first
        found = await self.gateway.read(lambda: start_of(store, instance_id))
        if found is None:
            raise InstanceNotFound(f"no instance {instance_id!r} in this hub: nothing to restart")
        row = found[0].row
        if RuntimeStatus(row.status) not in LEGAL["restart"]:
            raise IllegalTransition(
                f"cannot restart instance {instance_id!r} while it is {row.status}: terminate it first, "
                "or wait until it has finished"
            )
        note = NOTE.get()
        if note is not None and not note.operation:  # the hub receives a plain start
            note.operation, note.detail = "restart", instance_id
        restarted: str = await self.gateway.accept(
            msgspec.structs.replace(
                named,
                instance_id=self.gateway.new_instance_id() if fresh else instance_id,
                name=row.name,
                version=row.version,
                input=found[1],
                tags=payload.decode(row.tags.encode()) if row.tags else None,
            )
        )
        return str(restarted)

    async def _restarted(self, named: Start) -> str:
        """The answer to an earlier restart with this name, "" if there is none."""
        store, names = self.gateway.store, (named.remembered_as, named.operation_id)
        rows = await self.gateway.read(lambda: [store.answered(name) for name in names])
        for row in rows:
            first = recalled(row, named) if row is not None and row.expires_at > self.gateway.now() else None
            if isinstance(first, IdempotencyConflict | StoreError):
                raise first
            if isinstance(first, str):
                return str(first)
        return ""

    # ------------------------------------------------------------------------------------------ messaging

    async def raise_event(
        self,
        instance_id: str,
        event_name: str,
        event_data: Any = None,
        *,
        event_id: str | None = None,
        person: Person | None = None,
    ) -> None:
        """Send an external event. The instance keeps it until a wait for that name takes it, also across
        continue-as-new.

        `event_id` makes a repeat safe: the same id within 24 hours is the same event. The id is scoped to this
        instance and event name; a repeat with different data is rejected.

        `person` is the sender, whose identity the caller has proven: a human task counts their decision, and the
        history names them.

        Raises InstanceNotFound, InstanceFinished, EventRefused (name or shape not admitted),
        IdempotencyConflict for an `event_id` that was used with different data, PayloadError, Overloaded.
        """
        await self.gateway.accept(
            RaiseEvent(
                instance_id=instance_id,
                name=checked_event_name(event_name),
                input=body_of(event_data),
                operation_id=event_id or "",
                decided_by=person.name if person is not None else "",
                roles=person.roles if person is not None else (),
            )
        )

    async def terminate(
        self, instance_id: str, reason: str = "", *, recursive: bool = False, operation_id: str | None = None
    ) -> None:
        """Terminate an instance now. Its running activities are cancelled, and their results are dropped.

        `recursive` also terminates the sub-orchestrations that it waits for. Terminating a finished instance
        raises InstanceFinished.
        """
        await self.gateway.accept(
            Terminate(
                instance_id=instance_id,
                reason=reason or "",
                recursive=recursive,
                operation_id=operation_id or "",
            )
        )

    async def suspend(self, instance_id: str, reason: str = "", *, operation_id: str | None = None) -> None:
        """Suspend an instance: it keeps its messages and runs nothing until `resume`."""
        await self.gateway.accept(
            Suspend(instance_id=instance_id, reason=reason or "", operation_id=operation_id or "")
        )

    async def rewind(self, instance_id: str, reason: str = "", *, operation_id: str | None = None) -> None:
        """Continue a failed instance: retry what failed and keep all completed work.

        Failed activities run again with their idempotency key, their retry policy starts from the beginning,
        and failed sub-orchestrations are rewound with their parent. Code that failed by itself, without a
        failed call, continues after the last result or event it received; without a code change it fails in the
        same way again.

        Raises InstanceNotFound, InstanceFinished when it did not fail, IllegalTransition while it is running.
        """
        await self.gateway.accept(
            Rewind(instance_id=instance_id, reason=reason or "", operation_id=operation_id or "")
        )

    async def resume(self, instance_id: str, reason: str = "", *, operation_id: str | None = None) -> None:
        """Resume a suspended or parked instance; it receives the messages that it kept, in order."""
        await self.gateway.accept(
            Resume(instance_id=instance_id, reason=reason or "", operation_id=operation_id or "")
        )

    # --------------------------------------------------------------------------------------------- asking

    async def get_status(
        self,
        instance_id: str,
        show_history: bool = False,
        show_history_output: bool = False,
        show_input: bool = False,
        *,
        execution: int | None = None,
    ) -> OrchestrationStatus | None:
        """The status of one instance, or None when it does not exist.

        `show_history` adds the events of the current execution, or of an earlier `execution` (1 is the first)
        if its history is kept, and the numbers of the kept executions. `show_history_output` adds their
        results, `show_input` the input. `waiting_for` is always filled in.
        """
        if isinstance(instance_id, str) and not is_text(instance_id):
            return None
        asked_id(instance_id)
        detail = Detail(show_history, show_history_output, show_input, execution)
        gateway = self.gateway
        return await gateway.read(
            lambda: status_of(gateway.store, instance_id, detail, gateway), brief=not show_history
        )

    async def query(
        self,
        *,
        status: Sequence[RuntimeStatus | str] | RuntimeStatus | str = (),
        name: str | None = None,
        prefix: str | None = None,
        tags: Mapping[str, str] | None = None,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        ended_from: datetime | None = None,
        ended_to: datetime | None = None,
        waiting_for: str | None = None,
        parked: bool = False,
        failure: str | None = None,
        parent: str | None = None,
        built_in: bool = True,
        order: Order = "newest",
        top: int = 100,
        continuation: str | None = None,
        show_input: bool = False,
    ) -> Page:
        """Instances that match every given filter, newest first, `top` (1 to 1000) a page.

        Pass `page.continuation` to get the next page. A filter without an index searches for about a second; see
        `page.searched_from`.

        Parameters:
            status: a status, or several.
            name: the orchestrator's name.
            prefix: what the id begins with.
            tags: tags that the instance has.
            created_from, created_to: the time of the start.
            ended_from, ended_to: the time of the end; only finished instances have one.
            waiting_for: the name of an external event with an open wait.
            parked: only instances that the engine has parked, started or not (`status.is_parked`).
            failure: a text in the error of a failed instance, in any case.
            parent: the id of the instance that called it.
            built_in: False leaves out perdure's own orchestrations, such as those of schedules and queues.
            order: newest or oldest, by the start; ended: those that ended last; duration: the longest of the 1,000
                that ended last. The last two have no next page.
        """
        wanted = _filter(
            number_in(continuation),
            _checked_top(top),
            status=status,
            name=name,
            prefix=prefix,
            tags=tags,
            created_from=created_from,
            created_to=created_to,
            ended_from=ended_from,
            ended_to=ended_to,
            waiting_for=waiting_for,
            parked=parked,
            failure=failure,
            parent=parent,
            built_in=built_in,
        )
        wanted = ordered(wanted, order)
        gateway = self.gateway
        return await gateway.read(lambda: page_of(gateway.store, wanted, gateway, show_input=show_input))

    async def count(self, **which: Unpack[Which]) -> InstanceCount:
        """How many instances match the filters of `query`.

        A filter without an index counts for about a second: `searched_from` of the answer says how far back it came.
        """
        store, wanted = self.gateway.store, _filter(None, 1, **which)
        return await self.gateway.read(lambda: count_of(store, wanted))

    async def counts(self, *, built_in: bool = True) -> dict[str, int]:
        """The number of instances in each status; with `built_in` False without perdure's own orchestrations."""
        store, counted = self.gateway.store, instance_counts if built_in else own_counts
        return await self.gateway.read(lambda: counted(store).by_status)

    async def wait_for_completion(
        self, instance_id: str, timeout: Seconds | None = None
    ) -> OrchestrationStatus:
        """Wait until the instance has finished, and return its status with its output.

        Raises TimeoutError after `timeout`, InstanceNotFound when the instance does not exist.
        """
        status = await self.gateway.finished(instance_id, None if timeout is None else micros(timeout) / 1e6)
        if status is None:
            status = await self.get_status(instance_id)
        if status is None:
            raise InstanceNotFound(f"instance {instance_id!r} was purged while waiting for it")
        return status

    # -------------------------------------------------------------------------------------------- purging

    async def purge_instance_history(
        self, instance_id: str, *, recursive: bool = False, operation_id: str | None = None
    ) -> PurgeHistoryResult:
        """Delete a finished instance and all its history; returns how many instances were deleted, 0 for none.

        Parameters:
            recursive: also delete its finished sub-orchestrations and their descendants, including those of
                earlier executions and earlier runs of the id. A sub-orchestration that has not finished stays,
                with all its descendants.

        Raises IllegalTransition while the instance is still running: terminate it first.
        """
        family = await self._family(instance_id) if recursive else []
        purged = 0
        # children first: after an interruption the same call continues
        for start in range(0, len(family), PURGED_AT_ONCE):
            some = family[start : start + PURGED_AT_ONCE]
            purged += sum(await asyncio.gather(*(self._purged(child_id) for child_id in some)))
        return PurgeHistoryResult(purged + await self._purged(instance_id, operation_id or "", strict=True))

    async def _family(self, instance_id: str) -> list[str]:
        """The finished sub-orchestrations of an instance that can be purged."""
        store = self.gateway.store

        def look() -> list[str]:
            stored = store.get(asked_id(instance_id))
            finished = stored is None or stored.row.completed_at is not None
            return finished_family(store, instance_id) if finished else []

        return await self.gateway.read(look)

    async def _purged(self, instance_id: str, operation_id: str = "", *, strict: bool = False) -> int:
        """1 if the instance existed and was purged, else 0; without `strict` an instance that was restarted in
        the meantime stays.
        """
        try:
            await self.gateway.accept(Purge(instance_id=instance_id, operation_id=operation_id))
        except InstanceNotFound:
            return 0
        except IllegalTransition:
            if strict:
                raise
            return 0
        return 1

    async def purge_instance_history_by(
        self,
        created_time_from: datetime | None = None,
        created_time_to: datetime | None = None,
        runtime_status: Sequence[RuntimeStatus | str] | None = None,
        *,
        recursive: bool = False,
    ) -> PurgeHistoryResult:
        """Delete the finished instances that match; returns how many matched. Unfinished instances stay.

        `recursive` deletes their finished sub-orchestrations too, whether these match or not.
        """
        outcome = await self.bulk(
            "purge",
            recursive=recursive,
            status=runtime_status or (),
            created_from=created_time_from,
            created_to=created_time_to,
        )
        return PurgeHistoryResult(outcome.done)

    # ------------------------------------------------------------------------------------------- in bulk

    async def bulk(
        self,
        verb: str,
        *,
        reason: str = "",
        recursive: bool = False,
        dry_run: bool = False,
        at_most: int | None = None,
        progress: Callable[[BulkOutcome], object] = lambda outcome: None,
        **which: Unpack[Which],
    ) -> BulkOutcome:
        """Apply `verb` to every matching instance, a few hundred at a time.

        The call can be interrupted at any time and repeated: each instance is processed completely or not at
        all, and a processed instance no longer matches. An instance in a status that the verb does not change
        is skipped.

        Parameters:
            verb: suspend, resume, terminate or purge.
            reason, recursive: as for the verb.
            dry_run: change nothing; report the number of matching instances and the newest ids.
            at_most: stop after so many instances.
            progress: called with the outcome so far, at the start and after every page.
            which: the filters of `query`, such as status, name, tags, created_to and failure.

        Raises PayloadError for an unknown verb, EngineStopped. Failures of single instances are in the outcome.
        """
        asked = BulkRequest(verb=bulk.verb_named(verb), reason=reason or "", recursive=recursive)
        if dry_run:
            return await self.bulk_preview(verb, which)
        return await bulk.perform(
            lambda: self.bulk_preview(verb, which),
            lambda continuation, top: self.bulk_page(asked, which, continuation, top),
            progress,
            at_most,
        )

    async def bulk_preview(self, verb: str, which: Which) -> BulkOutcome:
        """The number of matching instances and the newest ids: `bulk` with `dry_run`."""
        return await bulk.preview(self, verb, _filter(None, 1, **which))

    async def bulk_page(
        self, asked: BulkRequest, which: Which, continuation: str | None, top: int
    ) -> BulkPage:
        """One page of a bulk operation, for hosts that process one page per request."""
        return await bulk.one_page(self, asked, _filter(number_in(continuation), top, **which))

    # ---------------------------------------------------------------------------------------------- links

    def create_http_management_payload(self, instance_id: Any, request: Any = None) -> dict[str, Any]:
        """The management URLs of this instance, as Azure names them.

        With a `request`, its caller decides which URLs are returned: all of them if the caller's key has the
        scope `operate`, else those that the route names (`links=`), by default the status alone. Without a
        request, or with the server's URL instead, the caller is the server's own code and gets all URLs. The
        order of 2.x, request and id, is accepted too. Raises RuntimeError when the client has no HTTP host.
        """
        if not isinstance(instance_id, str) and isinstance(request, str):
            instance_id, request = request, instance_id
        return self._links().management(request, instance_id)

    def create_check_status_response(self, request: Any, instance_id: str) -> Any:
        """The 202 response for a start: Location, Retry-After and the management URLs as JSON.

        `create_http_management_payload` defines which URLs the caller gets. An anonymous caller whose start
        found an existing instance gets only the id, unless the request has the Idempotency-Key of the first
        start. The response is Starlette's for a request of Starlette or FastAPI, and an `HttpResponse` for one
        of azure.functions.
        """
        return self._links().check_status_response(request, instance_id)

    async def wait_for_completion_or_create_check_status_response(
        self,
        request: Any,
        instance_id: str,
        timeout_in_milliseconds: int = 10_000,
        retry_interval_in_milliseconds: int = 1_000,
    ) -> Any:
        """The result if the instance finishes in time, else the 202 response. The retry interval has no effect."""
        if self._links().hides(request, instance_id):
            return self.create_check_status_response(request, instance_id)
        try:
            status = await self.wait_for_completion(instance_id, timeout_in_milliseconds / 1_000)
        except TimeoutError:
            return self.create_check_status_response(request, instance_id)
        return self._links().completed_response(request, status)

    def _links(self) -> Links:
        if self.links is None:
            raise RuntimeError(
                "this client has no HTTP host, so it cannot make links: use it inside a route, under "
                "`perdure run`, or mount app.asgi()"
            )
        return self.links


DurableOrchestrationClient = Client
DurableFunctionsClient = Client
"""The name of `Client` in azure-functions-durable 2.x."""


def checked_event_name(name: object) -> str:
    if not isinstance(name, str) or not is_name(name):
        raise PayloadError(not_a_name(name, "an event name"))
    return name


def _filter(before_no: int | None, top: int, **which: Unpack[Which]) -> InstanceFilter:
    texts = [which.get("name"), which.get("prefix"), which.get("waiting_for")]
    texts += [which.get("failure"), which.get("parent")]
    texts += [part for pair in (which.get("tags") or {}).items() for part in pair]
    for text in filter(None, texts):
        if not is_text(text):
            raise PayloadError(
                f"a filter contains NUL or a lone surrogate, which JSON cannot represent: {ascii(text)[:60]}"
            )
    failure = which.get("failure") or ""
    return InstanceFilter(
        status=checked_statuses(_statuses(which.get("status", ())), failure),
        name=which.get("name"),
        prefix=which.get("prefix"),
        tags=tuple(sorted((which.get("tags") or {}).items())),
        created_from=_instant(which, "created_from"),
        created_to=_instant(which, "created_to"),
        ended_from=_instant(which, "ended_from"),
        ended_to=_instant(which, "ended_to"),
        waiting_for=which.get("waiting_for"),
        parked=which.get("parked", False),
        failure=failure,
        parent=which.get("parent"),
        name_is_own=not which.get("built_in", True),
        before_no=before_no,
        top=top,
    )


def _instant(which: Which, name: str) -> int | None:
    at: Any = which.get(name)
    return instant(at, name) if at else None


def _statuses(status: Sequence[RuntimeStatus | str] | RuntimeStatus | str) -> tuple[str, ...]:
    given = (status,) if isinstance(status, str) else tuple(status)
    return tuple(RuntimeStatus(one).value for one in given)


def _checked_top(top: int) -> int:
    if not 1 <= top <= 1_000:
        raise PayloadError(f"top is 1 to 1000, not {top}")
    return top
