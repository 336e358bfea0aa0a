"""`telemetry=otlp` and `telemetry=azure-monitor`: perdure sets the SDK up, once a process, and flushes at a stop."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from textwrap import dedent

from tests.telemetry.ingestion import KEY
from tests.telemetry.servers import ENDS_WITHIN, ROOT

PROGRAM = """
import asyncio, logging
import perdure as df

app = df.App("bare")
log = []

@app.activity
async def work(number: int) -> int:
    for name in log:
        logging.getLogger(name).warning("exporting")
    logging.getLogger("bare").warning("working")
    return number

@app.orchestrator
async def main(context: df.OrchestrationContext):
    return await context.call_activity(work, 1)

async def run(mode, **options):
    async with app.running(store="memory:", telemetry=mode, **options) as client:
        status = await client.wait_for_completion(await client.start_new(main), 30)
        print(status.output)

"""


def program(text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM + dedent(text)],
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT / "src"), "NO_PROXY": "*", **environment},
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN,
        check=False,
    )


@contextmanager
def collector() -> Iterator[tuple[str, dict[str, bytes]]]:
    """An OpenTelemetry collector: its address, and what it has received by path."""
    received: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received[self.path] = received.get(self.path, b"") + body
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", received
        server.shutdown()


def test_a_collector_receives_spans_metrics_and_logs_by_the_end():
    with collector() as (address, received):
        ended = program(
            """
            for name in ("opentelemetry.sdk", "urllib3.connectionpool", "azure.core", "perdure.telemetry"):
                log.append(name)  # their records are not exported: each export would cause another
            asyncio.run(run('otlp', worker_name='w-1'))
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=address,
            OTEL_RESOURCE_ATTRIBUTES="deployment.environment=test",
        )
    assert (ended.returncode, ended.stdout) == (0, "1\n"), ended.stderr
    assert set(received) == {"/v1/traces", "/v1/metrics", "/v1/logs"}
    for body in received.values():
        for text in (b"bare", b"w-1", b"deployment.environment"):
            assert text in body
    for text in (b"orchestration:main", b"activity:work", b"create_orchestration:main"):
        assert text in received["/v1/traces"]
    assert b"perdure.instance.ended" in received["/v1/metrics"]
    assert b"working" in received["/v1/logs"]
    assert b"exporting" not in received["/v1/logs"]
    assert ended.stderr.count("working") == 1  # printed as without telemetry


def test_engines_of_one_process_share_the_setup_and_the_environment_names_the_service():
    with collector() as (address, received):
        ended = program(
            """
            asyncio.run(run('otlp'))
            asyncio.run(run('otlp'))
            try:
                asyncio.run(run('azure-monitor'))
            except df.SettingError as error:
                print(error)
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=address,
            OTEL_SERVICE_NAME="claims-west",
            APPLICATIONINSIGHTS_CONNECTION_STRING=f"InstrumentationKey={KEY}",
        )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("1\n1\ntelemetry is azure-monitor, but this process has set up otlp")
    assert received["/v1/traces"].count(b"create_orchestration:main") == 2
    assert b"claims-west" in received["/v1/traces"]


def test_a_provider_of_the_application_is_not_replaced():
    ended = program(
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider

        trace.set_tracer_provider(TracerProvider())
        try:
            asyncio.run(run('otlp'))
        except df.SettingError as error:
            print(error)
        """
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(
        "telemetry is otlp, but the application has set a tracer provider of its own"
    )


def test_a_missing_or_wrong_connection_string_is_named_and_not_repeated():
    ended = program(
        """
        import os, traceback

        for given in ("", "secret-thing", "InstrumentationKey=secret-thing"):
            os.environ["APPLICATIONINSIGHTS_CONNECTION_STRING"] = given
            try:
                asyncio.run(run('azure-monitor'))
            except df.SettingError:
                traceback.print_exc()
        """
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("SettingError: telemetry is azure-monitor, but the environment variable") == 1
    assert ended.stderr.count("APPLICATIONINSIGHTS_CONNECTION_STRING is not a connection string of") == 2
    assert "secret-thing" not in ended.stderr + ended.stdout


def test_without_a_collector_the_engine_works_and_stops():
    ended = program(
        """
        from perdure.telemetry import exporting, setup

        exporting.FLUSH_SECONDS = setup.FLUSH_WITHIN = 0.1
        asyncio.run(run('otlp'))
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
    )
    assert (ended.returncode, ended.stdout) == (0, "1\n"), ended.stderr
    assert "did not take everything within 0.1 seconds" in ended.stderr
