"""Durable starts and status reads over HTTP, beside a bare Starlette endpoint, with wrk: `python -m benchmarks.http`.

One server process (uvicorn) at a time on loopback; wrk runs beside it. Reported are answers a second, answers that
were no 2xx, and the CPU seconds of the server for each second of the run.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BASE = "/runtime/webhooks/durabletask"
SERVER = """
import sys, uvicorn
import perdure as df
app = df.App("bench")
@app.orchestrator
async def waiting(context):
    return await context.wait_for_external_event("go")
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
async def answer(request):
    return JSONResponse({"id": (await request.body()).decode()})
bare = Starlette(routes=[Route("/", answer, methods=["GET", "POST"])])
served = bare if sys.argv[1] == "bare" else app.asgi(store=sys.argv[3], access="open", rate_limit=0)
uvicorn.run(served, port=int(sys.argv[2]), log_level="warning", access_log=False)
"""
POST = 'wrk.method = "POST"\nwrk.body = "{}"\nwrk.headers["Content-Type"] = "application/json"\n'


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wrk(url: str, seconds: int, connections: int, script: Path | None, pid: int) -> dict[str, float]:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    command += ["-s", str(script)] if script else []
    before, began = cpu_of(pid), time.monotonic()
    text = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    spent = (cpu_of(pid) - before) / (time.monotonic() - began)
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    median = re.search(r"50%\s+([\d.]+)(us|ms|s)", text)
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    assert rate and median, text
    return {
        "a second": float(rate[1]),
        "p50 ms": float(median[1]) * scale[median[2]],
        "no 2xx": float(wrong[1]) if wrong else 0.0,
        "server CPU": spent,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=5)
    options.add_argument("--connections", type=int, default=64)
    options.add_argument("--port", type=int, default=7999)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        server = Path(folder, "server.py")
        server.write_text(SERVER)
        post = Path(folder, "post.lua")
        post.write_text(POST)
        origin = f"http://127.0.0.1:{given.port}"
        for kind in ("bare", "perdure"):
            store = f"sqlite:///{folder}/bench.db"
            process = subprocess.Popen([sys.executable, str(server), kind, str(given.port), store])
            try:
                _until_up(origin)
                if kind == "perdure":
                    subprocess.run(
                        [
                            "wrk",
                            "-t1",
                            "-c1",
                            "-d1s",
                            "-s",
                            str(post),
                            f"{origin}{BASE}/orchestrators/waiting/one",
                        ],
                        capture_output=True,
                        check=True,
                    )
                rows = {
                    "bare": [("bare POST", "/", post), ("bare GET", "/", None)],
                    "perdure": [
                        ("durable start", f"{BASE}/orchestrators/waiting", post),
                        ("status", f"{BASE}/instances/one", None),
                    ],
                }[kind]
                for name, path, script in rows:
                    found = wrk(origin + path, given.seconds, given.connections, script, process.pid)
                    print(
                        f"{name:14}",
                        "  ".join(f"{key} {value:,.2f}" for key, value in found.items()),
                        flush=True,
                    )
            finally:
                process.terminate()
                process.wait(20)


def _until_up(origin: str) -> None:
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    for _ in range(100):
        try:
            urlopen(origin, timeout=1)
        except HTTPError:
            return
        except (URLError, OSError):
            time.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    main()
