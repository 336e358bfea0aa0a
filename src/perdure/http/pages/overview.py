"""The page that a hub opens with: what needs a hand, then the last hour or day in numbers and charts.

All of it is read from what the hub counts while it runs, and from a few rows found by an index. No part of the page
takes longer with more instances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse

from perdure.http.formatting import lasting
from perdure.http.pages import charts
from perdure.http.pages.attention import attention_of, oldest_start
from perdure.http.pages.looks import speech_of
from perdure.http.pages.rendering import as_page, base_of, draw
from perdure.http.principal import caller_of
from perdure.http.routing import client_of
from perdure.http.table import Endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from starlette.requests import Request
    from starlette.responses import Response

    from perdure.engine.client.client import Client
    from perdure.model.statistics import HubStatistics, Window

REFRESH = 10  # seconds
_RANGES: dict[Window, str] = {"hour": "Last hour", "day": "Last day"}
_OF_THE_LIST = ("status", "name", "prefix", "waiting_for", "parked", "continuation")
"""The filters that this address took before the list had a page of its own."""


@dataclass(frozen=True)
class Tile:
    """A number with what it is compared with, and its course as a small line."""

    name: str
    value: str
    unit: str = ""
    than: str = ""
    spark: str = ""
    colour: str = ""
    path: str = ""


async def overview(request: Request) -> Response:
    """GET /: what needs a hand, and what the hub did in the last hour or day."""
    if any(request.query_params.get(name) for name in _OF_THE_LIST):
        return RedirectResponse(f"{base_of(request)}/instances?{request.url.query}", 307)
    client = client_of(request)
    last: Window = "day" if request.query_params.get("last") == "day" else "hour"
    last_day = await client.statistics("day")
    found = last_day if last == "day" else await client.statistics(last)
    workers = await client.workers()
    caller = caller_of(request)
    zone = speech_of(request).zone
    return draw(
        request,
        "overview.html",
        refresh=REFRESH,
        done=_DONE.get(request.query_params.get("done", ""), ""),
        last=last,
        ranges=_RANGES,
        attention=await attention_of(client, last_day, all_tasks=caller.may("operate")),
        tiles=_tiles(found, await _oldest(client)),
        workers=_workers([one.state for one in workers]),
        charts=_charts(found, zone),
        counts=[(name, number) for name, number in found.counts.items()],
        total=sum(found.counts.values()),
        orchestrators=_busiest(found),
    )


_DONE = {"purge": "Purged."}


def _busiest(found: HubStatistics) -> list[tuple[str, object]]:
    """The orchestrators with the most to tell: failures first, then what ended."""
    ordered = sorted(found.orchestrators.items(), key=lambda item: (-item[1].failed, -item[1].ended, item[0]))
    return list(ordered[:12])


def _tiles(found: HubStatistics, oldest: Tile) -> list[Tile]:
    *present, parked = _present(found)
    replays = sum(one.replays for one in found.intervals)
    each = f"{replays / found.total.ended:.1f} an instance" if found.total.ended else ""
    replayed = Tile("Replays", f"{replays:,}", than=each, spark=_spark(found, "replays"))
    return [*_flow(found), *_durations(found), *present, oldest, replayed, parked]


async def _oldest(client: Client) -> Tile:
    row = await oldest_start(client)
    if row is None:
        return Tile("Oldest start", "–", than="all have begun")
    value, unit = _split((client.gateway.now() - row.created_at) / 1e6)
    return Tile("Oldest start", value, unit, "not begun", path="/instances?status=Pending&order=oldest")


def _flow(found: HubStatistics) -> list[Tile]:
    """What began and ended."""
    total = found.total
    rate = total.completed / (60 if found.window == "hour" else 24)
    per = "a minute" if found.window == "hour" else "an hour"
    share = f"{100 * total.failed / total.ended:.1f}% of the ended" if total.ended else "none ended"
    return [
        Tile(
            "Completed", f"{total.completed:,}", than=f"{_few(rate)} {per}", spark=_spark(found, "completed")
        ),
        Tile(
            "Failed",
            f"{total.failed:,}",
            than=share,
            spark=_spark(found, "failed"),
            colour="red" if total.failed else "",
            path="/instances?status=Failed",
        ),
    ]


def _durations(found: HubStatistics) -> list[Tile]:
    peak = max((one.p95 for one in found.intervals if one.p95 is not None), default=None)
    p50, p95 = _split(found.total.p50), _split(found.total.p95)
    return [
        Tile("Duration p50", *p50, than="half are faster", spark=_spark(found, "p50")),
        Tile(
            "Duration p95",
            *p95,
            than=f"at most {_lasting(peak)}" if peak is not None else "none ended",
            spark=_spark(found, "p95"),
        ),
    ]


def _present(found: HubStatistics) -> list[Tile]:
    """What is open now."""
    last = found.intervals[-1]
    return [
        Tile(
            "Unfinished",
            f"{last.unfinished:,}",
            than=f"{last.pending:,} not begun",
            spark=_spark(found, "unfinished"),
            path="/instances?status=Pending,Running,Suspended",
        ),
        Tile(
            "Parked",
            f"{found.parked:,}",
            than="wait for a hand" if found.parked else "none",
            spark=_spark(found, "parked"),
            colour="amber" if found.parked else "",
            path="/instances?parked=true",
        ),
    ]


def _workers(states: Sequence[str]) -> str:
    """How many workers serve the hub; "" if it is this server alone."""
    living = sum(state == "living" for state in states)
    if living == len(states):
        return f"{living} workers" if living > 1 else f"{living} worker" if states else ""
    return f"{living} of {len(states)} workers alive"


def _charts(found: HubStatistics, zone: tzinfo) -> list[charts.Chart]:
    labels = [f"{one.start.astimezone(zone):%H:%M}" for one in found.intervals]
    by = "minute" if found.window == "hour" else "hour"
    return [
        charts.bars(
            f"Completed and failed, by {by}",
            [_series("completed", "green", found), _series("failed", "red", found)],
            labels,
            COUNTS,
        ),
        charts.lines(
            f"Duration, by {by} of the end",
            [_series("p95", "amber", found), _series("p50", "blue", found)],
            labels,
            DURATIONS,
        ),
        charts.lines(
            "Unfinished, and not yet begun",
            [_series("unfinished", "blue", found), _series("pending", "amber", found)],
            labels,
            COUNTS,
            area=True,
        ),
        charts.bars(f"Failed, by {by}", [_series("failed", "red", found)], labels, COUNTS),
        charts.bars(f"Replays, by {by}", [_series("replays", "blue", found)], labels, COUNTS),
        charts.lines("Parked", [_series("parked", "amber", found)], labels, COUNTS, area=True),
    ]


def _series(field: str, colour: str, found: HubStatistics) -> charts.Series:
    return charts.Series(field, colour, [getattr(one, field) for one in found.intervals])


def _spark(found: HubStatistics, field: str) -> str:
    return charts.spark([getattr(one, field) for one in found.intervals])


def _few(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:,.1f}"


def _lasting(seconds: float) -> str:
    return lasting(seconds).replace(".0 s", " s") if seconds else "0"


def _split(seconds: float | None) -> tuple[str, str]:
    """A duration as a number and its unit, for a tile."""
    if seconds is None:
        return "–", ""
    number, _, unit = lasting(seconds).partition(" ")
    return number, unit


COUNTS = charts.Kind(lambda value: f"{value:,.0f}", least=1.0)
DURATIONS = charts.Kind(_lasting, units=(0.001, 1.0, 60.0, 3_600.0, 86_400.0))
ENDPOINTS = (Endpoint("/", ("GET",), as_page(overview), "read", is_page=True),)

__all__ = ["ENDPOINTS", "Tile", "overview"]
