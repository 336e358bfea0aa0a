"""`perdure run` of a program whose process has a tracer provider, as `opentelemetry-instrument` sets one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2

INSTRUMENT = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

provider = TracerProvider()
out = open(sys.argv.pop(1), "w")
lines = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(None) + "\\n")
provider.add_span_processor(BatchSpanProcessor(lines))
trace.set_tracer_provider(provider)

from perdure.cli import main
main()
"""
APP = """
import perdure as df

app = df.App("trips")

@app.activity
def book(city: str) -> str:
    return f"hotel in {city}"

@app.orchestrator
async def trip(context: df.OrchestrationContext, city: str) -> str:
    return await context.call_activity(book, city)
"""
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_provider_set_before_the_start_gets_the_spans_of_the_server(tmp_path: Path) -> None:
    (tmp_path / "trips.py").write_text(APP)
    spans, token = tmp_path / "spans.json", "a-token-that-is-long-enough"
    command = [
        sys.executable,
        "-c",
        INSTRUMENT,
        str(spans),
        "run",
        "trips.py",
        "--port",
        "0",
        "--store",
        "memory:",
    ]
    server = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PERDURE_TOKEN": token, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert server.stdout is not None
        told = ""
        while "http://" not in told:
            line = server.stdout.readline()
            assert line, told
            told += line
        address = "http://" + told.partition("http://")[2].split()[0].partition("/?")[0].rstrip("/")
        headers = {"x-functions-key": token, "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        url = f"{address}/runtime/webhooks/durabletask"
        started = httpx2.post(f"{url}/orchestrators/trip/trip-1", json="Rome", headers=headers, timeout=60)
        assert started.status_code == 202, started.text
        done = httpx2.get(f"{url}/instances/trip-1", params={"wait": 60}, headers=headers, timeout=90)
        assert done.json()["output"] == "hotel in Rome"
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
    found = [json.loads(line) for line in spans.read_text().splitlines()]
    assert sorted((span["kind"], span["name"]) for span in found) == [
        ("SpanKind.CLIENT", "activity:book"),
        ("SpanKind.PRODUCER", "create_orchestration:trip"),
        ("SpanKind.SERVER", "activity:book"),
        ("SpanKind.SERVER", "orchestration:trip"),
    ]
    assert {span["context"]["trace_id"] for span in found} == {f"0x{TRACE}"}
