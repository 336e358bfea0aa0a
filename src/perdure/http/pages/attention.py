"""What needs an operator's hand: rules, each of which gives at most one line with a sentence and a button.

A line is gone once its cause is handled: a rewound instance is no longer Failed, an answered task no longer overdue.
Each rule reads a few rows through an index, never all instances.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from perdure.engine.client.status import page_of
from perdure.failure import chain_of
from perdure.http.formatting import lasting, without_module
from perdure.model.durations import instant, moment
from perdure.model.http_calls import BUILT_IN
from perdure.model.instances import RuntimeStatus
from perdure.model.records import InstanceFilter

if TYPE_CHECKING:
    from datetime import datetime

    from perdure.engine.client.client import Client
    from perdure.engine.client.tasks import OpenTask
    from perdure.model.instances import OrchestrationStatus
    from perdure.model.records import InstanceRow
    from perdure.model.statistics import HubStatistics

SHOWN: Final = 200  # instances and tasks that a rule reads; more are told as "200+"
USUAL_TIMES: Final = 2.0  # more failures than so many times the usual number need attention
OLD: Final = timedelta(minutes=5)
"""A start that has waited longer for its first step is too old, as in the alert PerdurePendingStartIsOld."""
LAST_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Attention:
    """One line: what is up, how many, a sentence, and the page of the button."""

    mark: str  # the class of its status: failed, parked, suspended or pending
    count: str
    subject: str  # the orchestrator that most of it is about; "" for none
    sentence: str
    note: str
    path: str  # below the host's base
    button: str

    @property
    def is_bad(self) -> bool:
        return self.mark == "failed"


async def attention_of(client: Client, last_day: HubStatistics, *, all_tasks: bool) -> list[Attention]:
    """The lines for a hub, the worst first. Tasks are told only to callers who may see them all."""
    now = moment(client.gateway.now())
    found = [
        await _failed(client, last_day, now),
        await _parked(client, last_day),
        await _overdue(client, now) if all_tasks else None,
        await _old(client, now),
    ]
    return [line for line in found if line is not None]


# ---------------------------------------------------------------------------------------------- the rules


async def _failed(client: Client, last_day: HubStatistics, now: datetime) -> Attention | None:
    """Instances that failed in the last hour and are still Failed, if they are more than usual."""
    since = now - LAST_HOUR
    found = await _listed(
        client, InstanceFilter(status=(RuntimeStatus.Failed.value,), ended_from=instant(since), top=SHOWN)
    )
    usual = usual_failures(last_day)
    if len(found) <= USUAL_TIMES * usual:
        return None
    name, alike = _most(found)
    first = min(one.completed_time or now for one in found)
    return Attention(
        mark="failed",
        count=f"{_number(found)} failed",
        subject=name,
        sentence=_cause(alike[0])[:240],
        note=f"The first {lasting((now - first).total_seconds())} ago; usual are {_rate(usual)} an hour. "
        "A rewind repeats only the failed steps.",
        path=f"/instances?{urlencode({'status': 'Failed', 'ended_from': since.strftime('%Y-%m-%dT%H:%MZ')})}",
        button=f"Show the {_number(found)}" if len(found) > 1 else "Show it",
    )


async def _parked(client: Client, last_day: HubStatistics) -> Attention | None:
    """Instances that the engine has parked."""
    if not last_day.parked:
        return None
    found = await _listed(client, InstanceFilter(parked=True, top=SHOWN))
    if not found:
        return None
    name, alike = _most(found)
    return Attention(
        mark="parked",
        count=f"{max(last_day.parked, len(found)):,} parked",
        subject=name,
        sentence=alike[0].reason.partition(": ")[2][:240] or alike[0].reason[:240],
        note="They keep their messages and wait. Mend the code or the worker, then resume them.",
        path="/instances?parked=true",
        button=f"Show the {max(last_day.parked, len(found)):,}" if len(found) > 1 else "Show it",
    )


async def _overdue(client: Client, now: datetime) -> Attention | None:
    """Tasks of people that are past their deadline."""
    page = await client.list_tasks(due_before=now, top=SHOWN)
    late: list[OpenTask] = page.tasks
    if not late:
        return None
    longest = max((now - one.due).total_seconds() for one in late if one.due is not None)
    return Attention(
        mark="suspended",
        count=f"{_number(late)} overdue",
        subject="",
        sentence=f"{late[0].title}: the decision is {lasting(longest)} late."
        if len(late) == 1
        else f"{_number(late)} decisions are late, the oldest by {lasting(longest)}.",
        note="",
        path="/inbox?late=true",
        button="Open the inbox",
    )


async def _old(client: Client, now: datetime) -> Attention | None:
    """The oldest instance that was accepted and has not begun."""
    oldest = await oldest_start(client)
    if oldest is None or now - moment(oldest.created_at) < OLD:
        return None
    age = lasting((now - moment(oldest.created_at)).total_seconds())
    return Attention(
        mark="pending",
        count="Old start",
        subject=oldest.name,
        sentence=f"{oldest.instance_id} was accepted {age} ago and has not begun.",
        note="The workers do not keep up, or none of them has this orchestrator.",
        path="/instances?status=Pending&order=oldest",
        button="Show what waits",
    )


async def oldest_start(client: Client) -> InstanceRow | None:
    """The oldest instance that was accepted, waits for nothing else, and has not begun."""
    store = client.gateway.store
    wanted = InstanceFilter(
        status=(RuntimeStatus.Pending.value,), name_is_own=True, oldest_first=True, top=SHOWN
    )
    rows = await client.gateway.read(lambda: store.query(wanted))
    # A reason: it waits for its time, or for a worker.
    return next((row for row in rows if not row.reason), None)


# -------------------------------------------------------------------------------------------------- parts


def usual_failures(last_day: HubStatistics) -> float:
    """Failures in an hour, on average, over those earlier hours of the day in which instances ended."""
    earlier = [hour for hour in last_day.intervals[:-1] if hour.ended]
    return sum(hour.failed for hour in earlier) / len(earlier) if earlier else 0.0


async def _listed(client: Client, wanted: InstanceFilter) -> list[OrchestrationStatus]:
    gateway = client.gateway
    page = await gateway.read(lambda: page_of(gateway.store, wanted, gateway, show_input=False))
    return [one for one in page.instances if not one.name.startswith(BUILT_IN)]


def _cause(one: OrchestrationStatus) -> str:
    """The error that began it, as `Type: message`."""
    return without_module(str(chain_of(one.failure)[-1])) if one.failure else ""


def _most(found: list[OrchestrationStatus]) -> tuple[str, list[OrchestrationStatus]]:
    """The orchestrator of most of these, and those of it."""
    if not found:
        return "", []
    [(name, _)] = Counter(one.name for one in found).most_common(1)
    return name, [one for one in found if one.name == name]


def _number(found: list[OrchestrationStatus] | list[OpenTask]) -> str:
    return f"{len(found)}+" if len(found) >= SHOWN else str(len(found))


def _rate(usual: float) -> str:
    return f"{usual:.0f}" if usual >= 1 or not usual else "fewer than 1"


__all__ = ["Attention", "attention_of", "oldest_start", "usual_failures"]
