"""Bulk operations: one verb for every instance that a filter selects, a page at a time.

A page is a few hundred instances, found by key from the newest to the oldest. The verb gets them together, so
that they share a commit. Only the key is kept between pages. An interrupted bulk operation (Ctrl-C, a crash, a
lost connection) has completed some instances and left the others unchanged; the same call again continues with
the instances that still match. That is safe because a verb applies only to statuses that it changes. An
instance that has reached another status in the meantime is skipped and counted, never forced. Over HTTP a page
is one request, so a long operation is many short requests and reports progress after each.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict

import msgspec

from perdure.engine.client.searching import count, search
from perdure.errors import (
    EngineStopped,
    IllegalTransition,
    InstanceFinished,
    InstanceNotFound,
    PayloadError,
    PerdureError,
    outward,
)
from perdure.model.instances import FINISHED, PurgeHistoryResult, RuntimeStatus
from perdure.model.records import InstanceFilter

if TYPE_CHECKING:
    from perdure.engine.client.gateway import Gateway
    from perdure.model.records import InstanceRow

PAGE: Final = 250
EXAMPLES: Final = 10
FAILURES_TOLD: Final = 100
S = RuntimeStatus


class Which(TypedDict, total=False):
    """The filters of `Client.query`: an instance is selected when it matches all given filters.

    `failure` is a text in the error of a failed instance, in any case. `parent` is the id of the instance that called
    it. With `built_in` False, perdure's own orchestrations, such as those of schedules and queues, are left out.
    """

    status: Sequence[RuntimeStatus | str] | RuntimeStatus | str
    name: str | None
    prefix: str | None
    tags: Mapping[str, str] | None
    created_from: datetime | None
    created_to: datetime | None
    ended_from: datetime | None
    ended_to: datetime | None
    waiting_for: str | None
    parked: bool
    failure: str | None
    parent: str | None
    built_in: bool


def is_given(which: Which) -> bool:
    """Whether a filter selects: to leave out perdure's own orchestrations is not enough."""
    return any(value for name, value in which.items() if name != "built_in")


class BulkOutcome(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The progress of a bulk operation.

    `matched` is the number of matching instances at the start, `examples` the ids of the newest of them.
    `skipped` counts, by reason, instances that the verb did not apply to when they were processed; `failures`
    are (id, reason) of the first hundred failures. An outcome with `dry_run` has changed nothing.
    """

    verb: str
    matched: int = 0
    examples: list[str] = []
    done: int = 0
    skipped: dict[str, int] = {}
    failed: int = 0
    failures: list[tuple[str, str]] = []
    dry_run: bool = False
    finished: bool = False

    @property
    def seen(self) -> int:
        """The number of instances processed so far."""
        return self.done + sum(self.skipped.values()) + self.failed

    def after(self, page: BulkPage) -> BulkOutcome:
        """This outcome plus one page."""
        return msgspec.structs.replace(
            self,
            done=self.done + page.done,
            skipped=dict(Counter(self.skipped) + Counter(page.skipped)),
            failed=self.failed + page.failed,
            failures=[*self.failures, *page.failures][:FAILURES_TOLD],
        )


class BulkPage(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one page; `continuation` is the token of the next page, None on the last."""

    done: int = 0
    skipped: dict[str, int] = {}
    failed: int = 0
    failures: list[tuple[str, str]] = []
    continuation: str | None = None


class BulkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A verb and its arguments."""

    verb: str
    reason: str = ""
    recursive: bool = False


class Verbs(Protocol):
    """The client's verbs that bulk operations call for each instance, and its gateway."""

    @property
    def gateway(self) -> Gateway: ...

    async def suspend(self, instance_id: str, reason: str = ...) -> None: ...

    async def resume(self, instance_id: str, reason: str = ...) -> None: ...

    async def terminate(self, instance_id: str, reason: str = ..., *, recursive: bool = ...) -> None: ...

    async def rewind(self, instance_id: str, reason: str = ...) -> None: ...

    async def purge_instance_history(
        self, instance_id: str, *, recursive: bool = ...
    ) -> PurgeHistoryResult: ...


class _BulkVerb(msgspec.Struct, frozen=True):
    """`changes`: the statuses that the verb changes. `apply` does it for one instance."""

    changes: frozenset[RuntimeStatus]
    apply: Callable[[Verbs, str, BulkRequest], Awaitable[Any]]


async def _purge(client: Verbs, instance_id: str, asked: BulkRequest) -> None:
    if not await client.purge_instance_history(instance_id, recursive=asked.recursive):
        raise InstanceNotFound(f"instance {instance_id!r} is already purged")


VERBS: Final[dict[str, _BulkVerb]] = {
    "suspend": _BulkVerb(
        frozenset({S.Pending, S.Running}), lambda client, i, asked: client.suspend(i, asked.reason)
    ),
    "resume": _BulkVerb(frozenset({S.Suspended}), lambda client, i, asked: client.resume(i, asked.reason)),
    "terminate": _BulkVerb(
        frozenset({S.Pending, S.Running, S.Suspended}),
        lambda client, i, asked: client.terminate(i, asked.reason, recursive=asked.recursive),
    ),
    "rewind": _BulkVerb(frozenset({S.Failed}), lambda client, i, asked: client.rewind(i, asked.reason)),
    "purge": _BulkVerb(FINISHED, _purge),
}
"""The bulk verbs. Start and restart are not among them, because a repeated page would start instances twice."""


def verb_named(name: str) -> str:
    """The name, if there is such a verb. Raises PayloadError."""
    if name not in VERBS:
        raise PayloadError(f"no bulk operation {name!r}; choose one of {', '.join(VERBS)}")
    return name


def selected(verb: str, wanted: InstanceFilter) -> InstanceFilter | None:
    """The filter narrowed to statuses that the verb changes; None when no status is left."""
    changes = VERBS[verb_named(verb)].changes
    given = wanted.status or tuple(sorted(changes))
    status = tuple(one for one in given if RuntimeStatus(one) in changes)
    return replace(wanted, status=status) if status else None


async def preview(client: Verbs, verb: str, wanted: InstanceFilter) -> BulkOutcome:
    """The number of instances that the operation would process, and the newest of them. Changes nothing."""
    narrowed = selected(verb, wanted)
    if narrowed is None:
        return BulkOutcome(verb=verb, dry_run=True)
    store, first = client.gateway.store, replace(narrowed, top=EXAMPLES)
    (matched, _), found = await client.gateway.read(lambda: (count(store, narrowed), search(store, first)))
    examples = [row.instance_id for row in found.rows]
    return BulkOutcome(verb=verb, matched=matched, examples=examples, dry_run=True)


async def one_page(client: Verbs, asked: BulkRequest, wanted: InstanceFilter) -> BulkPage:
    """Apply the verb to the newest `wanted.top` instances below `wanted.before_no`. Raises EngineStopped."""
    narrowed = selected(asked.verb, wanted)
    if narrowed is None:
        return BulkPage()
    store = client.gateway.store
    found = await client.gateway.read(lambda: search(store, narrowed))
    # Parents have smaller numbers than their children: within a page they come first, before their children
    # end.
    results = await asyncio.gather(*(_tried(client, asked, row) for row in reversed(found.rows)))
    page = _summed(results)
    following = None if found.continuation is None else str(found.continuation)
    return msgspec.structs.replace(page, continuation=following)


Tried = tuple[str, str, str]
"""Instance id, the reason it was skipped or "", the failure or ""."""


async def _tried(client: Verbs, asked: BulkRequest, row: InstanceRow) -> Tried:
    try:
        await VERBS[asked.verb].apply(client, row.instance_id, asked)
    except EngineStopped:
        raise
    except InstanceNotFound:
        return row.instance_id, "purged meanwhile", ""
    except InstanceFinished:
        return row.instance_id, "finished meanwhile", ""
    except IllegalTransition:
        return row.instance_id, "its status changed meanwhile", ""
    except PerdureError as error:
        return row.instance_id, "", outward(error)
    return row.instance_id, "", ""


def _summed(results: Sequence[Tried]) -> BulkPage:
    failures = [(instance_id, failure) for instance_id, _, failure in results if failure]
    skipped = Counter(skip for _, skip, _ in results if skip)
    return BulkPage(
        done=len(results) - len(failures) - skipped.total(),
        skipped=dict(skipped),
        failed=len(failures),
        failures=failures[:FAILURES_TOLD],
    )


async def perform(
    preview: Callable[[], Awaitable[BulkOutcome]],
    page: Callable[[str | None, int], Awaitable[BulkPage]],
    progress: Callable[[BulkOutcome], object],
    at_most: int | None,
) -> BulkOutcome:
    """Process page after page until none is left or `at_most` instances are processed."""
    outcome = msgspec.structs.replace(await preview(), dry_run=False)
    progress(outcome)
    continuation: str | None = None
    left = at_most
    while left is None or left > 0:
        found = await page(continuation, PAGE if left is None else min(PAGE, left))
        outcome = outcome.after(found)
        left = None if at_most is None else at_most - outcome.seen
        continuation = found.continuation
        if continuation is None:
            outcome = msgspec.structs.replace(outcome, finished=True)
            progress(outcome)
            break
        progress(outcome)
    return outcome
