"""Durable starts and status reads over HTTP, beside a bare Starlette endpoint, with wrk: `python -m benchmarks.http`.

The bare endpoint reads a body and answers with JSON under the same uvicorn: what it costs, every application pays.
perdure is served as `perdure run` serves it. The caller shows a key, so each start is checked, audited, committed and
answered with eight signed links. Every repetition takes new processes and a new file, and all rows after one another,
so that a ratio compares what was measured within the same minute.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from benchmarks.machine import Meter, facts, wait_until_quiet
from benchmarks.report import table

GOAL = 3_000  # durable starts a second
API = "/runtime/webhooks/durabletask"
KEY = secrets.token_urlsafe(32)
BARE = """
import sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

async def answer(request):
    return JSONResponse({"body": (await request.body()).decode()})

app = Starlette(routes=[Route("/", answer, methods=["GET", "POST"])])
uvicorn.run(app, port=int(sys.argv[1]), log_config=None, access_log=False, server_header=False, proxy_headers=False)
"""
WAITING = """
import perdure as df

app = df.App("bench")

@app.orchestrator
async def waiting(context):
    return await context.wait_for_external_event("go")
"""
HEADERS = {"Content-Type": "application/json", "x-functions-key": KEY}


@dataclass(frozen=True)
class Load:
    """What wrk sends: a row of the table."""

    name: str
    server: str
    method: str
    path: str


LOADS = (
    Load("bare POST", "bare", "POST", "/"),
    Load("durable start", "perdure", "POST", f"{API}/orchestrators/waiting"),
    Load("bare GET", "bare", "GET", "/"),
    Load("status", "perdure", "GET", f"{API}/instances/one"),
)
BESIDE = {"durable start": "bare POST", "status": "bare GET"}


@dataclass(frozen=True)
class Figures:
    """What one run of wrk has shown. CPU is in cores, `micros` in microseconds of the server's for one answer."""

    per_s: float
    p50: float
    p99: float
    micros: float
    server: float
    wrk: float
    foreign: float
    answers: int


@dataclass(frozen=True)
class BenchServer:
    """A server in a process of its own."""

    pid: int
    origin: str

    def ask(self, method: str, path: str) -> bytes:
        body = b"{}" if method == "POST" else None
        request = Request(self.origin + path, body, HEADERS, method=method)
        with urlopen(request, timeout=10) as answer:
            return bytes(answer.read())


@contextmanager
def _serving(command: Sequence[str], port: int, log: Path) -> Iterator[BenchServer]:
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, *command], stdout=output, stderr=output)
    try:
        server = BenchServer(process.pid, f"http://127.0.0.1:{port}")
        if not _is_up(server, process):
            raise SystemExit(f"a server did not come up:\n{log.read_text()}")
        yield server
    finally:
        process.terminate()
        process.wait(20)


def _is_up(server: BenchServer, process: subprocess.Popen[bytes]) -> bool:
    for _ in range(200):
        time.sleep(0.1)
        if process.poll() is not None:
            return False  # another server answers there
        try:
            server.ask("GET", "/")
        except HTTPError:
            return True
        except OSError:
            continue
        return True
    return False


def main() -> None:
    chosen = _arguments()
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs the load generator wrk: `apt-get install wrk`")
    with tempfile.TemporaryDirectory(dir=".") as place:
        folder = Path(place)
        print(", ".join(f"{name} {value}" for name, value in facts(folder).items()), flush=True)
        repetitions = [_repetition(chosen, folder / str(no)) for no in range(chosen.repeat)]
    print("\n" + _shown(repetitions))
    starts = statistics.median(one["durable start"].per_s for one in repetitions)
    print(
        f"\n{starts:,.0f} durable starts a second; the goal is {GOAL:,}: {'met' if starts >= GOAL else 'missed'}"
    )


def _arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repeat", type=int, default=5, help="repetitions, of which the median counts (5)")
    options.add_argument("--seconds", type=int, default=4, help="how long each row lasts (4)")
    options.add_argument("--connections", type=int, default=64)
    options.add_argument("--patience", type=float, default=15.0, help="seconds to wait for a quiet machine")
    options.add_argument(
        "--access", choices=("keys", "open"), default="keys", help="open: the server requires no key"
    )
    options.add_argument("--port", type=int, default=7990)
    return options.parse_args()


def _repetition(chosen: argparse.Namespace, folder: Path) -> dict[str, Figures]:
    folder.mkdir()
    found: dict[str, Figures] = {}
    with _bare(chosen.port, folder) as bare, _perdure(chosen.port + 1, folder, chosen.access) as perdure:
        servers = {"bare": bare, "perdure": perdure}
        perdure.ask("POST", f"{API}/orchestrators/waiting/one")
        for load in LOADS:
            _wrk(servers[load.server], load, folder, 1, chosen.connections)
        stored = _stored(perdure)
        for load in LOADS:
            wait_until_quiet((), chosen.patience)
            figures = _wrk(servers[load.server], load, folder, chosen.seconds, chosen.connections)
            found[load.name] = figures
            print(f"{load.name:14}{figures.per_s:9,.0f}/s  foreign cores {figures.foreign:.2f}", flush=True)
        answered, stored = found["durable start"].answers, _stored(perdure) - stored
    if stored < answered:
        raise SystemExit(f"{answered:,} starts were answered and {stored:,} are stored")
    return found


def _bare(port: int, folder: Path) -> AbstractContextManager[BenchServer]:
    script = folder / "bare.py"
    script.write_text(BARE)
    return _serving([str(script), str(port)], port, folder / "bare.log")


def _perdure(port: int, folder: Path, access: str) -> AbstractContextManager[BenchServer]:
    script = folder / "app.py"
    script.write_text(WAITING)
    options = ["--port", str(port), "--store", f"sqlite:///{folder}/bench.db", "--access", access]
    options += ["--rate-limit", "1000000"]  # out of reach, and counted all the same
    options += ["--admin-key", KEY] if access == "keys" else []
    return _serving(["-m", "perdure.cli", "run", str(script), *options], port, folder / "perdure.log")


def _stored(perdure: BenchServer) -> int:
    counts: dict[str, int] = json.loads(perdure.ask("GET", f"{API}/counts"))
    return sum(counts.values())


def _wrk(server: BenchServer, load: Load, folder: Path, seconds: int, connections: int) -> Figures:
    script = folder / f"{load.method}.lua"
    lines = [f'wrk.method = "{load.method}"', *(f'wrk.headers["{n}"] = "{v}"' for n, v in HEADERS.items())]
    script.write_text("\n".join([*lines, 'wrk.body = "{}"' if load.method == "POST" else ""]))
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "10s",
        "--latency",
        "-s",
        str(script),
    ]
    meter, before = Meter(server.pid), _cpu_of_children()
    text = subprocess.run([*command, server.origin + load.path], capture_output=True, text=True).stdout
    used, own = meter.stop(), _cpu_of_children() - before
    if re.search("Non-2xx|Socket errors", text) or "requests in" not in text:
        raise SystemExit(f"{load.name} went wrong:\n{text}")
    answers = int(_found(r"(\d+) requests in", text))
    return Figures(
        per_s=_found(r"Requests/sec:\s+([\d.]+)", text),
        p50=_milliseconds("50%", text),
        p99=_milliseconds("99%", text),
        micros=used.cpu / answers * 1e6,
        server=used.cpu / used.seconds,
        wrk=own / used.seconds,
        foreign=max(used.foreign_cores - own / used.seconds, 0.0),
        answers=answers,
    )


def _cpu_of_children() -> float:
    """Of those that have ended: wrk."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _found(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    if found is None:
        raise SystemExit(f"wrk said something else:\n{text}")
    return float(found[1])


def _milliseconds(percentile: str, text: str) -> float:
    for unit, scale in (("us", 1e-3), ("ms", 1.0), ("s", 1e3)):
        found = re.search(rf"{percentile}\s+([\d.]+){unit}\s", text)
        if found:
            return float(found[1]) * scale
    raise SystemExit(f"wrk said something else:\n{text}")


def _shown(repetitions: Sequence[dict[str, Figures]]) -> str:
    heads = (
        "",
        "a second",
        "of bare",
        "p50 ms",
        "p99 ms",
        "server us each",
        "server CPU",
        "wrk CPU",
        "foreign",
    )
    return table(heads, [_line(load.name, repetitions) for load in LOADS])


def _line(name: str, repetitions: Sequence[dict[str, Figures]]) -> list[str]:
    def median(field: str) -> float:
        return float(statistics.median(getattr(one[name], field) for one in repetitions))

    bare = BESIDE.get(name)
    ratio = statistics.median(one[name].per_s / one[bare].per_s for one in repetitions) if bare else 1.0
    figures = [f"{median(field):.1f}" for field in ("p50", "p99")]
    cores = [f"{median(field):.2f}" for field in ("server", "wrk", "foreign")]
    return [name, f"{median('per_s'):,.0f}", f"{ratio:.2f}", *figures, f"{median('micros'):.0f}", *cores]


if __name__ == "__main__":
    main()
