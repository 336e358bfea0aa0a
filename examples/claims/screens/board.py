"""The manager's board: is today fine? The heading says it, the tiles say why, the tables what to do first."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import perdure as df
from examples.claims.screens import figures
from examples.claims.screens.figures import AT_RISK, Figures
from examples.claims.screens.pages import for_staff, render
from examples.claims.screens.room import Room, room_of

A_PAGE = 1_000
FRESH = 2.0  # seconds for which a count is shown again
WIDE, NARROW, HIGH = 640, 320, 120


@dataclass
class Count:
    """The last count of all claims, and the tasks whose time is running out."""

    figures: Figures = field(default_factory=Figures)
    urgent: list[dict[str, Any]] = field(default_factory=list)
    at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@for_staff
async def show(request: Request) -> Response:
    """The board. `?part` is its inside, for the page's script."""
    room, now = room_of(request), datetime.now(UTC)
    try:
        count = await _fresh(request.app.state, room, now)
    except (df.EngineStopped, df.OutcomeUnknown, df.Overloaded):
        return render(request, "board-away.html", 503)
    found = count.figures
    filed, paid = figures.each_minute(found.filed_at, now), figures.each_minute(found.paid_at, now)
    highest = max(*filed, *paid, 1)
    return render(
        request,
        "board-part.html" if "part" in request.query_params else "board.html",
        found=found,
        numbers=found.numbers,
        urgent=count.urgent,
        audit=getattr(room.stage, "found", None),
        counted_at=getattr(room.stage, "counted_at", None),
        highest=highest,
        charts=[
            (
                size,
                name,
                figures.line_of(filed, highest, size, HIGH),
                figures.line_of(paid, highest, size, HIGH),
            )
            for size, name in ((WIDE, "desk-only"), (NARROW, "phone-only"))
        ],
        high=HIGH,
        filed_now=sum(filed),
        paid_now=sum(paid),
        in_words=figures.in_words,
        news=_news(count, getattr(room.stage, "found", None)),
    )


def _news(count: Count, audit: Any) -> str:
    """The heading: the news, not the name of the page."""
    lost = "a number is wrong" if audit is not None and not audit.is_clean else "nothing lost"
    at_risk = len(count.urgent)
    return f"Today: {lost}, {at_risk or 'no'} {'claim' if at_risk == 1 else 'claims'} at risk"


async def _fresh(state: Any, room: Room, now: datetime) -> Count:
    """The last count, or a new one when it is old. Readers share it."""
    if not hasattr(state, "board"):
        state.board = Count()
    count: Count = state.board
    async with count.lock:
        if time.monotonic() - count.at > FRESH:
            count.figures, count.urgent = await _counted(room), await _urgent(room, now)
            count.at = time.monotonic()
    return count


async def _counted(room: Room) -> Figures:
    found, continuation = Figures(), None
    while True:
        page = await room.client.query(name="claims_orchestrator", top=A_PAGE, continuation=continuation)
        for claim in page.instances:
            found.add(claim)
        continuation = page.continuation
        if continuation is None:
            return found


async def _urgent(room: Room, now: datetime) -> list[dict[str, Any]]:
    """The decisions that go to a supervisor soon, or have gone, the most urgent first."""
    tasks = (await room.client.list_tasks(event="Decision", top=A_PAGE)).tasks
    rows = []
    for task in tasks:
        left = task.escalation[0] - now if task.escalation is not None else None
        if left is not None and left > AT_RISK:
            continue
        rows.append(
            {
                "claim": task.instance_id.partition(".")[0],
                "waits": _waits(task),
                "left": figures.in_words(max(0.0, left.total_seconds())) if left is not None else "late",
                "payable": str(task.facts.get("payable", "")).partition(" of ")[0],
                "order": left.total_seconds() if left is not None else -1.0,
            }
        )
    return sorted(rows, key=lambda row: row["order"])


def _waits(task: Any) -> str:
    who = "Supervisor" if "supervisor" in task.roles else "Second adjuster" if task.given_by else "Adjuster"
    return f"{who}, held by {task.holder}" if task.holder else f"{who}, free to take"


ROUTES = [Route("/board", show)]
