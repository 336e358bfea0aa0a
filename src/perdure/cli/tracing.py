"""trace: the spans of an instance and its sub-orchestrations, for people, for programs and for a collector."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx2
import msgspec
import typer
from rich.text import Text

from perdure.cli.compressed_axis import Axis, has_thin
from perdure.cli.options import InstanceArgument, on_hub
from perdure.cli.target import HubTarget
from perdure.cli.terminal import (
    EXIT_CODES,
    REFUSED,
    UNAVAILABLE,
    errors,
    fail,
    output,
    print_json,
    print_table,
    status_text,
)
from perdure.http.api.traces import trace_of
from perdure.http.formatting import lasting, plain
from perdure.http.remote.client import RemoteClient
from perdure.settings import tells_messages
from perdure.telemetry.otlp import document_of, left_out_in, spans_in
from perdure.telemetry.spans import SpanKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from perdure.engine.client.client import Client
    from perdure.telemetry.spans import Span

commands = typer.Typer()

SENT_AT_ONCE: Final = 1_000  # spans of one request
SECONDS: Final = 10.0  # for one request to the collector
_PATH: Final = "/v1/traces"
_BAR: Final = 24  # characters
_SHOWN: Final = 300  # characters of a collector's answer


@commands.command(epilog=EXIT_CODES)
@on_hub
def trace(
    target: HubTarget,
    instance_id: InstanceArgument,
    otlp: Annotated[
        str | None,
        typer.Option(
            "--otlp",
            metavar="URL",
            help="Send the spans to an OpenTelemetry collector at this address, such as http://localhost:4318.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show where an instance and its sub-orchestrations spent their time.

    The spans are made from history, at any time with the same ids, and contain
    no inputs and outputs. With --json, the command prints them in OTLP's JSON.
    With --otlp, it sends them to a collector. The variable
    OTEL_EXPORTER_OTLP_HEADERS can hold headers, such as a key.
    """
    collector = None if otlp is None else _collector_at(otlp)
    document = target.ask(lambda client: _read(client, target, instance_id))
    spans, left_out = spans_in(document), left_out_in(document)
    if left_out:
        told = f"note: the tree is too large. {left_out} more instances are not part of this trace."
        errors().print(told, soft_wrap=True)
    if collector is not None:
        _send(collector, spans, _service_of(document), as_json=target.as_json)
    elif target.as_json:
        print_json(document)
    else:
        _print(spans, time.time_ns() // 1_000)


async def _read(client: Client, target: HubTarget, instance_id: str) -> Any:
    if isinstance(client, RemoteClient):
        return await client.trace(instance_id)
    hub = client.task_hub or target.hub_name()
    return await trace_of(client, instance_id, hub, messages=tells_messages())


def _service_of(document: Any) -> str:
    """The name of the service in the document, which is the hub, unless the environment has another."""
    [named] = document["resourceSpans"][0]["resource"]["attributes"][:1]
    return os.environ.get("OTEL_SERVICE_NAME") or str(named["value"]["stringValue"])


# -------------------------------------------------------------------------------------------------- sending


def _collector_at(url: str) -> str:
    """The address that takes spans. Without a path it is that of every collector."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise typer.BadParameter(
            f"the address must begin with http:// or https:// and name a host, but is {url!r}",
            param_hint="--otlp",
        )
    return urlunsplit(parts._replace(path=_PATH)) if parts.path in ("", "/") else url


def _send(url: str, spans: Sequence[Span], service: str, *, as_json: bool) -> None:
    now = time.time_ns() // 1_000
    headers = {**_headers(), "Content-Type": "application/json"}
    with httpx2.Client(timeout=SECONDS, headers=headers) as http:
        for first in range(0, len(spans), SENT_AT_ONCE):
            document = document_of(spans[first : first + SENT_AT_ONCE], service, now)
            refused = _sent(http, url, msgspec.json.encode(document))
            if refused is not None:
                code, why = refused
                sent = f"{first} of {len(spans)} spans were sent before. " if first else ""
                fail(
                    f"{why}. {sent}Sending them again adds none twice: ids stay the same",
                    code,
                    as_json=as_json,
                )
    if as_json:
        print_json({"sent": len(spans), "to": _shown_address(url)})
    else:
        count = "1 span" if len(spans) == 1 else f"{len(spans):,} spans"
        typer.echo(f"Sent {count} to {plain(_shown_address(url))}")


def _sent(http: httpx2.Client, url: str, body: bytes) -> tuple[int, str] | None:
    """Send one part. Returns the exit code and the reason if the collector does not have it."""
    where = plain(_shown_address(url))
    try:
        response = http.post(url, content=body)
    except httpx2.TimeoutException:
        return UNAVAILABLE, f"the collector at {where} has not answered within {SECONDS:g} seconds"
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        return UNAVAILABLE, f"cannot reach the collector at {where} ({str(error) or type(error).__name__})"
    said = plain(response.text[:_SHOWN].strip())
    if not response.is_success:
        return (
            REFUSED,
            f"the collector at {where} answered with status {response.status_code}: {said or 'no text'}",
        )
    rejected = _rejected_in(response.content)
    return (REFUSED, f"the collector at {where} rejected {rejected} spans: {said}") if rejected else None


def _rejected_in(answer: bytes) -> int:
    """The number of spans that an answer of a collector rejects."""
    try:
        found = msgspec.json.decode(answer, type=dict[str, Any]) if answer else {}
        return int((found.get("partialSuccess") or {}).get("rejectedSpans") or 0)
    except (msgspec.MsgspecError, AttributeError, TypeError, ValueError):
        return 0


def _headers() -> dict[str, str]:
    """The headers of the environment, written as OpenTelemetry's SDKs read them: name=value,name=value."""
    given = os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "").split(",")
    pairs = (one.partition("=") for one in given if "=" in one)
    return {unquote(name).strip(): unquote(value).strip() for name, _, value in pairs}


def _shown_address(url: str) -> str:
    """The address without a user and a password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


# ------------------------------------------------------------------------------------------------- printing


def _print(spans: Sequence[Span], now: int) -> None:
    if not spans:
        typer.echo("The instance has not begun, so it has no spans yet.")
        return
    rows = list(_nested(spans))
    first = min(span.start for span in spans)
    bars = _bars(spans, now) if output().is_terminal else {}
    heads = ("SPAN", "STATUS", "AFTER", "LASTED", *(("TIMELINE",) if bars else ()), "ERROR")
    table = [_row(span, guide, first, now, bars.get(span.span_id)) for guide, span in rows]
    traces = list(dict.fromkeys(f"{span.trace_id:032x}" for span in spans))
    for trace_id in traces:
        errors().print(f"trace {trace_id}", style="dim")
    print_table(heads, table)


def _row(span: Span, guide: str, first: int, now: int, bar: str | None) -> tuple[str | Text, ...]:
    lasted = lasting((max(now, span.start) if span.end is None else span.end) / 1e6 - span.start / 1e6)
    name = Text.assemble((guide, "dim"), plain(span.name))
    if int(span.attributes.get("perdure.attempt", 1)) > 1:
        name.append(f" (attempt {span.attributes['perdure.attempt']})", "dim")
    if span.kind is SpanKind.SERVER:
        name.append(f" {plain(str(span.attributes['durabletask.task.instance_id']))}", "dim")
    return (
        name,
        status_text(str(span.attributes["durabletask.task.status"])),
        f"+{lasting((span.start - first) / 1e6)}",
        f"{lasted} so far" if span.is_open else lasted,
        *((Text(bar, style=_STYLES.get(span.status, "")),) if bar is not None else ()),
        span.message,
    )


_STYLES: Final = {"ERROR": "red", "OK": "green"}


def _nested(spans: Sequence[Span]) -> Iterator[tuple[str, Span]]:
    """The spans as a tree, each after its parent, with the lines that lead to it. Siblings are in order of time."""
    known = {span.span_id for span in spans}
    below: dict[int, list[Span]] = {}
    for span in spans:
        below.setdefault(span.parent_id if span.parent_id in known else 0, []).append(span)
    for siblings in below.values():
        siblings.sort(key=_place)
    stack = [("", "", span) for span in reversed(below.get(0, []))]
    while stack:
        guide, indent, span = stack.pop()
        yield guide, span
        children = below.get(span.span_id, [])
        for place, child in reversed(list(enumerate(children, 1))):
            is_last = place == len(children)
            stack.append(
                (f"{indent}{'└─ ' if is_last else '├─ '}", f"{indent}{'   ' if is_last else '│  '}", child)
            )


def _place(span: Span) -> tuple[int, int]:
    """Of spans that began with the same row of history, the one that the code asked for first comes first."""
    return span.start, int(span.attributes.get("durabletask.task.task_id", -1))


def _bars(spans: Iterable[Span], now: int) -> dict[int, str]:
    """A bar for each span, by its id, on one axis. It is compressed where a linear one would hide spans."""
    times = {span.span_id: (span.start, now if span.end is None else span.end) for span in spans}
    start, end = min(a for a, _ in times.values()), max(b for _, b in times.values())
    compressed = has_thin(times.values(), start, end)
    marks = (
        sorted({mark for pair in times.values() for mark in pair})
        if compressed
        else [start, max(end, start + 1)]
    )
    axis = Axis(marks, compressed=compressed)
    return {span_id: _bar(axis.place(a), axis.place(b)) for span_id, (a, b) in times.items()}


def _bar(begin: float, end: float) -> str:
    left = min(int(begin / 100 * _BAR), _BAR - 1)
    width = max(1, round(end / 100 * _BAR) - left)
    return f"{' ' * left}{'━' * width}".ljust(_BAR)
