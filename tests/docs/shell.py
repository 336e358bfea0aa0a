"""The terminal of a page: the few commands that the documentation uses, in a folder of the page's own.

`perdure` runs in this process, except for `perdure run`, which serves in a process of its own until the page ends
or kills it, on a port of its own (the page says 7071). `curl` is made of httpx2, so that no program has to be
installed. `<token>` and `<pid>` stand for the token and the process that the server printed, and `<id>` in a command
for the id that was told last, as they do for the reader. A command that is not known here is an error: mark its
block as not run, with the reason.
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import threading
import tty
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import httpx2
from typer.testing import CliRunner

from perdure.cli.main import root
from tests.brokers.servers import Server
from tests.postgres.servers import free_port
from tests.telemetry.prometheus import await_readiness
from tests.telemetry.prometheus import server as prometheus_server

ROOT = Path(__file__).parents[2]
_ID = re.compile(r"\b[0-9a-f]{32}\b")
_TOKEN = re.compile(r"[?&]token=(\S+)")
_PID = re.compile(r"\(process (\d+)\)")
_READY = "Ctrl-C stops the server"
READY_WITHIN = 180.0  # seconds until a server listens, or a program ends, on a machine that is busy
DATABASE = "postgresql://localhost/claims"
"""Of a page's own database in PostgreSQL: it is another one each time."""


def _lines(terminal: IO[str]) -> Iterator[str]:
    """What is written to a terminal, until the other side has closed it."""
    with suppress(OSError):
        for line in terminal:
            yield line.rstrip() + "\n"


class CommandError(Exception):
    """A command could not be run as the page shows it."""


class Shell:
    """Runs commands in a folder; what it leaves running is killed by `close`."""

    def __init__(self, folder: Path, database: str = DATABASE) -> None:
        self.folder = folder
        self.database = database
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PERDURE_")},
            "PYTHONPATH": os.pathsep.join((os.fspath(ROOT / "src"), os.fspath(ROOT))),
            "FORCE_COLOR": "1",
            "COLUMNS": "300",
        }
        self.port = free_port()
        self.servers: list[subprocess.Popen[str]] = []
        self.prometheus: Server | None = None
        self.told = ""
        self.token = ""
        self.served_by = ""

    def run(self, command: str) -> tuple[int, str]:
        """One command line; returns its exit code and all it printed."""
        text = self.here(command).replace("<id>", self.told).replace("<pid>", self.served_by)
        words = shlex.split(text, comments=True)
        settings = {}
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            name, _, value = words.pop(0).partition("=")
            settings[name] = value
        code, output = self._dispatch(words, {**self.env, **settings}, command)
        ids = _ID.findall(output)
        self.told = ids[-1] if ids else self.told
        return code, output.replace(self.database, DATABASE).replace(str(self.port), "7071")

    def here(self, text: str) -> str:
        """What a page says, with the port and the token of this page's own server, and its own database."""
        text = text.replace("localhost:7071", f"localhost:{self.port}").replace("<token>", self.token)
        if self.prometheus is not None:
            text = text.replace("http://localhost:9090", self.prometheus.url)
        return text.replace(DATABASE, self.database)

    def close(self) -> None:
        """End the servers that still run."""
        if self.prometheus is not None:
            self.prometheus.stop()
        for server in self.servers:
            server.kill()
            server.wait()
            assert server.stderr is not None
            server.stderr.close()

    def _dispatch(self, words: list[str], env: dict[str, str], command: str) -> tuple[int, str]:
        match words:
            case []:
                return 0, ""
            case ["perdure", "run", *options]:
                return self._serve(options, env)
            case ["perdure", *arguments]:
                return self._perdure(arguments, env)
            case ["curl", *arguments]:
                return _curl(arguments)
            case ["python" | "python3", *arguments]:
                return self._program([sys.executable, *arguments], env)
            case ["pytest", *arguments]:
                return self._program(
                    [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments], env
                )
            case ["prometheus", configuration]:
                return self._prometheus(self.folder / configuration.removeprefix("--config.file="))
            case ["promtool", *arguments]:
                return self._program(["promtool", *arguments], env)
            case ["mkdir", *folders]:
                for name in folders:
                    (self.folder / name).mkdir(parents=True, exist_ok=True)
                return 0, ""
            case ["cat", file]:
                return 0, (self.folder / file).read_text()
            case ["kill", "-9", number]:
                return self._kill(int(number), signal.SIGKILL)
            case ["kill", number]:
                return self._kill(int(number), signal.SIGTERM)
            case [".", ".venv/bin/activate"]:
                return 0, ""  # the tests have their environment already
        raise CommandError(f"the tests do not know how to run `{command}`")

    def _perdure(self, arguments: list[str], env: dict[str, str]) -> tuple[int, str]:
        cleared = {name: None for name in os.environ if name.startswith("PERDURE_")}
        given = {
            name: env[name]
            for name in env
            if name.startswith("PERDURE_") or name in ("FORCE_COLOR", "COLUMNS")
        }
        result = CliRunner().invoke(root, arguments, prog_name="perdure", env={**cleared, **given})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    def _program(self, arguments: list[str], env: dict[str, str]) -> tuple[int, str]:
        done = subprocess.run(
            arguments,
            cwd=self.folder,
            env={**env, "FORCE_COLOR": "", "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=READY_WITHIN,
            check=False,
        )
        return done.returncode, done.stdout

    def _prometheus(self, configuration: Path) -> tuple[int, str]:
        """Start a Prometheus that scrapes the server of this page."""
        configuration.write_text(self.here(configuration.read_text()))
        self.prometheus = prometheus_server(configuration, self.folder)
        self.prometheus.start()
        await_readiness(self.prometheus.url)
        return 0, ""

    def _serve(self, options: list[str], env: dict[str, str]) -> tuple[int, str]:
        """Start a server and return what it says until it is ready."""
        self._end(signal.SIGTERM)
        given = [] if "--port" in options else ["--port", str(self.port)]
        terminal, stderr = pty.openpty()  # the start-up token is printed on a terminal only
        tty.setraw(stderr)
        server = subprocess.Popen(
            [sys.executable, "-u", "-m", "perdure.cli", "run", *options, *given],
            cwd=self.folder,
            env={**env, "FORCE_COLOR": "", "NO_COLOR": "1", "TERM": "dumb"},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            text=True,
        )
        os.close(stderr)
        server.stderr = os.fdopen(terminal, encoding="utf-8")
        self.servers.append(server)
        said: list[str] = []
        hurry = threading.Timer(READY_WITHIN, server.kill)
        hurry.start()
        assert server.stderr is not None
        for line in _lines(server.stderr):
            said.append(line)
            if _READY in line:
                break
        hurry.cancel()
        printed = _TOKEN.search("".join(said))
        self.token = printed[1] if printed else ""
        numbered = _PID.search(said[-1] if said else "")
        self.served_by = numbered[1] if numbered else ""
        if _READY not in "".join(said[-1:]):
            return server.wait(), "".join(said)
        threading.Thread(target=_drain, args=(server,), daemon=True).start()
        return 0, "".join(said)

    def _kill(self, number: int, how: signal.Signals) -> tuple[int, str]:
        """End a server of this page's, by the number that it has printed itself, and nothing else."""
        [server] = [one for one in self.servers if one.pid == number and one.poll() is None]
        server.send_signal(how)
        server.wait(READY_WITHIN)
        return 0, ""

    def _end(self, how: signal.Signals) -> tuple[int, str]:
        for server in self.servers:
            if server.poll() is None:
                server.send_signal(how)
                server.wait(READY_WITHIN)
        return 0, ""


def _drain(server: subprocess.Popen[str]) -> None:
    """Read on, so that a talkative server does not stand still before a full pipe."""
    try:
        assert server.stderr is not None
        for _ in server.stderr:
            pass
    except (ValueError, OSError):  # closed by the end of the page, or by the end of the server
        pass


def _curl(arguments: list[str]) -> tuple[int, str]:
    parser = argparse.ArgumentParser("curl")
    parser.add_argument("url")
    parser.add_argument("-X", "--request", dest="method")
    parser.add_argument("-H", "--header", dest="headers", action="append", default=[])
    parser.add_argument("-d", "--data", dest="data")
    parser.add_argument("-i", "--include", action="store_true")
    parser.add_argument("-s", "--silent", action="store_true")
    given = parser.parse_args(arguments)
    headers = {
        name.strip(): value.strip() for name, _, value in (one.partition(":") for one in given.headers)
    }
    if given.data is not None:  # as curl does; perdure does not mind
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
    answer = httpx2.request(
        given.method or ("POST" if given.data is not None else "GET"),
        given.url,
        headers=headers,
        content=given.data,
        trust_env=False,
        timeout=60,
    )
    head = ""
    if given.include:
        lines = [
            f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}",
            *(f"{k}: {v}" for k, v in answer.headers.items()),
        ]
        head = "\n".join(lines) + "\n\n"
    return 0, head + answer.text
