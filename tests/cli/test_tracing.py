"""perdure trace: the waterfall, the JSON, and spans sent to a collector."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import perdure as df
from perdure.cli import tracing
from perdure.telemetry.otlp import spans_in
from tests.cli.test_cli import perdure, said, serve

SECRET = "s3cret-payload"


@pytest.fixture
def filled(store: Path) -> Path:
    """A database with some instances, without a server."""

    async def fill(client: df.Client) -> None:
        await client.start_new("family", "done", {"n": SECRET})
        await client.start_new("broken", "failed")
        await client.start_new("approval", "asking", [SECRET])
        await client.wait_for_completion("done", 30)
        await client.wait_for_completion("failed", 30)

    serve(store, fill)
    return store


@dataclass
class Collector:
    """A collector of OpenTelemetry on this machine. `answer` is what it answers with: status and body."""

    url: str
    received: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    answer: tuple[int, bytes] = (200, b'{"partialSuccess":{}}')


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            found.received.append((self.path, headers, json.loads(body)))
            status, text = found.answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def lines_of(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def test_the_spans_are_a_tree_with_durations(filled: Path) -> None:
    result = perdure("trace", "done", store=filled)

    lines = lines_of(result.stdout)
    assert [line[0] for line in lines][:2] == ["orchestration:family done", "└─ orchestration:echo"]
    assert lines[2][0].startswith("   └─ orchestration:echo done::")
    assert {line[1] for line in lines} == {"Completed"}
    assert all(line[2].startswith("+") and line[3] for line in lines)
    assert result.stderr.startswith("trace ")


def test_an_unfinished_instance_shows_what_is_open(filled: Path) -> None:
    lines = lines_of(perdure("trace", "asking", store=filled).stdout)

    assert [line[0] for line in lines] == [
        "orchestration:approval asking",
        "└─ orchestration:approval:wait:ApproverDecision",
    ]
    assert {line[1] for line in lines} == {"Running"}
    assert all(line[3].endswith(" so far") for line in lines)


def test_a_failure_says_why(filled: Path) -> None:
    [line] = lines_of(perdure("trace", "failed", store=filled).stdout)

    assert line[1] == "Failed"
    assert line[4] == "ValueError: <script>alert('broken')</script>"


def test_messages_of_errors_can_be_left_out(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_TELEMETRY_MESSAGES", "false")

    assert "alert" not in perdure("trace", "failed", "--json", store=filled).output


def test_on_a_terminal_a_bar_shows_when(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")

    result = perdure("trace", "done", store=filled)

    assert "TIMELINE" in result.stdout
    assert "━" in result.stdout


def test_json_is_otlp_and_has_the_same_ids_each_time(filled: Path) -> None:
    first, again = (said("trace", "done", store=filled) for _ in range(2))
    [spans] = [scope["spans"] for scope in first["resourceSpans"][0]["scopeSpans"]]

    assert first == again
    assert first["resourceSpans"][0]["resource"]["attributes"] == [
        {"key": "service.name", "value": {"stringValue": "hosts"}}
    ]
    assert len({span["traceId"] for span in spans}) == 1
    assert {span.get("parentSpanId", "") for span in spans} <= {"", *(span["spanId"] for span in spans)}
    assert SECRET not in json.dumps(first)


def test_a_running_server_gives_the_same(filled: Path) -> None:
    found: dict[str, Any] = {}

    async def ask(client: df.Client) -> None:
        found["beside"] = await asyncio.to_thread(said, "trace", "done", store=filled)

    before = said("trace", "done", store=filled)
    serve(filled, ask)

    assert found["beside"] == before


def test_an_instance_that_does_not_exist_ends_with_3(filled: Path) -> None:
    assert perdure("trace", "nowhere", store=filled).exit_code == 3


def test_a_delayed_instance_has_no_spans_yet(store: Path) -> None:
    async def fill(client: df.Client) -> None:
        await client.start_new("echo", "later", start_at=datetime.now(UTC) + timedelta(days=365))

    serve(store, fill)

    assert (
        perdure("trace", "later", store=store).stdout
        == "The instance has not begun, so it has no spans yet.\n"
    )


# -------------------------------------------------------------------------------------------------- sending


def test_spans_are_sent_to_a_collector(
    filled: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b,other=1")

    result = perdure("trace", "done", "--otlp", collector.url, store=filled)

    [(path, headers, document)] = collector.received
    assert result.exit_code == 0, result.output
    assert result.stdout == f"Sent 3 spans to {collector.url}/v1/traces\n"
    assert (path, headers["content-type"], headers["x-key"]) == ("/v1/traces", "application/json", "a b")
    assert document == said("trace", "done", store=filled)


def test_many_spans_are_sent_in_parts(
    filled: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "SENT_AT_ONCE", 2)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "claims-office")

    sent = said("trace", "done", "--otlp", f"{collector.url}/custom", store=filled)

    parts = [document for _, _, document in collector.received]
    assert [len(spans_in(part)) for part in parts] == [2, 1]
    assert [path for path, _, _ in collector.received] == ["/custom", "/custom"]
    assert "claims-office" in json.dumps(parts)
    assert sent == {"sent": 3, "to": f"{collector.url}/custom"}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((503, b"too busy"), "answered with status 503: too busy. Sending them again adds none twice"),
        ((200, b'{"partialSuccess":{"rejectedSpans":"2","errorMessage":"bad"}}'), "rejected 2 spans"),
    ],
)
def test_a_collector_that_refuses_is_an_error(
    filled: Path, collector: Collector, answer: tuple[int, bytes], told: str
) -> None:
    collector.answer = answer

    result = perdure("trace", "done", "--otlp", collector.url, store=filled)

    assert result.exit_code == 1
    assert told in result.stderr


def test_a_collector_that_is_away_ends_with_4_and_no_password_is_shown(filled: Path) -> None:
    result = perdure("trace", "done", "--otlp", "http://user:pa55word@127.0.0.1:9", store=filled)

    assert result.exit_code == 4
    assert "cannot reach the collector at http://127.0.0.1:9/v1/traces" in result.stderr
    assert "pa55word" not in result.output


@pytest.mark.parametrize("url", ["localhost:4318", "ftp://host", "http://"])
def test_an_address_that_is_none_is_wrong_usage(filled: Path, url: str) -> None:
    result = perdure("trace", "done", "--otlp", url, store=filled)

    assert result.exit_code == 2
    assert "must begin with http:// or https://" in " ".join(result.stderr.replace("│", " ").split())


async def test_the_remote_client_reads_what_the_local_one_makes(local: df.Client, remote: Any) -> None:
    await local.start_new("family", "done")
    await local.wait_for_completion("done", 30)

    assert await remote.trace("done") == await tracing.trace_of(local, "done", "hosts", messages=True)
