"""`perdure run`: what it serves, where, how it is found, and how it stops."""

import asyncio
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
import typer

from perdure import App
from perdure.cli import run
from perdure.cli.app_loader import SourceError, load_app, watched_folder
from perdure.cli.settings import chosen_of
from perdure.errors import StoreError, StoreFull, StoreInUse
from perdure.server import sockets, store_opening
from perdure.server.options import ServeOptions
from perdure.settings import SERVING, choose
from perdure.store.sqlite.lock import read_server_file
from tests.cli.test_cli import perdure, said

PROGRAM = """
import perdure as df

app = df.App("{name}")

@app.orchestrator
async def waiting(context: df.OrchestrationContext) -> object:
    return await context.wait_for_external_event("go")

@app.route("/begin", methods=["POST"], auth="anonymous")
async def begin(request, client: df.Client):
    return client.create_check_status_response(request, await client.start_new(waiting, "w-1"))
"""
TOKEN = "the-token-of-this-very-start"
KEY = {"x-functions-key": TOKEN}
SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(
        sys.modules, "app", raising=False
    )  # of another test that ran commands in this process
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:  # not libraries: classes of the same name would be two
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@contextmanager
def running(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`perdure run` in a process of its own, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "perdure.cli", "run", "app.py", "--port", "0", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.fspath(SOURCE), "COLUMNS": "200", "PERDURE_TOKEN": TOKEN},
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        yield process, address_of(process)
    finally:
        kill_with_its_children(process)
        assert process.stderr is not None
        process.stderr.close()


def kill_with_its_children(process: subprocess.Popen[str]) -> None:
    """With `--reload` the server is a child of the process. Both are in a process group of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def address_of(process: subprocess.Popen[str]) -> str:
    """The address in the banner. Fails with what was said when there is none."""
    lines = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        found = re.search(r"pages +(http://\S+)/", line)
        if found:
            return found[1]
    raise AssertionError("".join(lines))


def test_a_default_port_that_is_taken_gives_way_to_the_next_free_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        monkeypatch.setattr(sockets, "PORTS_TRIED", 65_535 - taken)
        with run._bound(plan(port=taken, source="default")) as listener:
            moved = listener.getsockname()[1]

    assert moved > taken
    assert f"port {taken} is in use, so this server listens on port {moved}" in capsys.readouterr().err


@pytest.mark.parametrize("given", [{"source": "flag"}, {"source": "default", "host": "0.0.0.0"}])
def test_a_port_that_was_chosen_or_that_others_reach_is_not_exchanged(
    given: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    host = given.get("host", "127.0.0.1")
    with socket.create_server((host, 0)) as other:
        bound = run._bound(plan(port=other.getsockname()[1], **given))
        with pytest.raises(typer.Exit), bound:
            pass

    told = capsys.readouterr().err
    assert f"cannot listen on {host}" in told and "--port" in told


def plan(*, port: int, source: str, host: str = "127.0.0.1") -> ServeOptions:
    chosen = choose(SERVING, {"host": host, "port": port})
    return ServeOptions("app.py", {}, {**chosen, "port": replace(chosen["port"], source=source)})


MOUNTED = """
import fastapi, uvicorn
import perdure as df

durable = df.App("mounted")

@durable.orchestrator
async def waiting(context: df.OrchestrationContext) -> object:
    return await context.wait_for_external_event("go")

host = durable.asgi()
site = fastapi.FastAPI(lifespan=host.lifespan)

@site.post("/begin")
async def begin() -> str:
    return await host.client.start_new("waiting", "w-1")

site.mount("/durable", host)

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print("listens on", self.servers[0].sockets[0].getsockname()[1], flush=True)

Server(uvicorn.Config(site, port=0, log_level="error")).run()
"""


def test_a_mounted_application_is_found_by_the_commands(folder: Path) -> None:
    (folder / "site_of_mine.py").write_text(MOUNTED)
    process = subprocess.Popen(
        [sys.executable, "-u", "site_of_mine.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.fspath(SOURCE), "PERDURE_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        text=True,
    )
    store = folder / "perdure.db"
    try:
        assert process.stdout is not None
        port = process.stdout.readline().split()[-1]
        httpx2.post(f"http://127.0.0.1:{port}/begin", trust_env=False, timeout=60)
        before = perdure("raise", "w-1", "go", "-i", "1", store=store)
        httpx2.get(
            f"http://127.0.0.1:{port}/durable/healthz", trust_env=False, timeout=60
        )  # tells the host its address
        raised = perdure("raise", "w-1", "go", "-i", "1", store=store)
    finally:
        process.kill()
        process.communicate()

    assert before.exit_code != 0 and "--url" in before.output
    assert raised.exit_code == 0, raised.output


def test_what_goes_to_a_log_is_there_at_once_and_whole(folder: Path) -> None:
    (folder / "app.py").write_text("print('said by the application')\n" + PROGRAM.format(name="served"))
    token = "t" * 60
    with (folder / "out.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "perdure.cli", "run", "app.py", "--port", "0"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.fspath(SOURCE), "COLUMNS": "40", "PERDURE_TOKEN": token},
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        try:
            lines = []
            for line in process.stderr:
                lines.append(line.rstrip("\n"))
                if line.startswith("Ctrl-C"):
                    break
            assert (folder / "out.log").read_text() == "said by the application\n"
        finally:
            process.kill()
            process.wait()
            process.stderr.close()

    assert [line for line in lines if line != line.rstrip()] == []
    assert any(re.fullmatch(r"  pages +http://\S+/", line) for line in lines), lines
    assert any(re.fullmatch(r"  API +http://\S+/", line) for line in lines), lines
    assert token not in "".join(lines), "a token from the settings is not printed"
    assert any("as set with --token or PERDURE_TOKEN" in line for line in lines), lines


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_made_up_token_is_shown_once_and_on_a_terminal_only(folder: Path, is_terminal: bool) -> None:
    (folder / "app.py").write_text(PROGRAM.format(name="served"))
    reading, writing = pty.openpty() if is_terminal else os.pipe()
    cleared = {name: value for name, value in os.environ.items() if not name.startswith("PERDURE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "perdure.cli", "run", "app.py", "--port", "0"],
        cwd=folder,
        env={
            **cleared,
            "PYTHONPATH": os.fspath(SOURCE),
            "COLUMNS": "300",
            "TERM": "dumb",
            "FORCE_COLOR": "1",
        },
        stdout=subprocess.DEVNULL,
        stderr=writing,
    )
    os.close(writing)
    said = ""
    try:
        while "Ctrl-C" not in said:
            said += os.read(reading, 65_536).decode()
        found = read_server_file(str(folder / "perdure.db"))
        assert found is not None and len(found.token) > 24
        assert said.count(found.token) == (1 if is_terminal else 0)
        if not is_terminal:
            assert f"{folder / 'perdure.db'}.server,whichonlythisusercanread" in re.sub(r"\s", "", said)
    finally:
        process.kill()
        process.wait()
        os.close(reading)


def test_a_mounted_application_logs_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: TOKEN)
    host = App("served").asgi(store=f"sqlite:///{tmp_path / 'p.db'}")

    async def live() -> None:
        async with host.lifespan():
            pass

    asyncio.run(live())
    assert "the hub has no access keys yet" in caplog.text
    assert TOKEN not in caplog.text + capsys.readouterr().err


def test_a_served_application_is_found_by_the_commands_and_stops_cleanly(folder: Path) -> None:
    (folder / "app.py").write_text(PROGRAM.format(name="served"))
    database = folder / "perdure.db"

    with running(folder) as (process, address):
        begun = httpx2.post(f"{address}/api/begin", trust_env=False, timeout=60)
        page = httpx2.get(f"{address}/instances/w-1", headers=KEY, trust_env=False, timeout=60)
        listed = said("list", store=database)
        told = perdure("raise", "w-1", "go", "--input", "7", store=database)
        done = said("status", "w-1", "--wait", store=database)
        second = perdure("run", "app.py", "--port", "0", store=database)
        process.send_signal(signal.SIGINT)
        code = process.wait(60)
        said_last = process.stderr.read() if process.stderr else ""

    assert begun.status_code == 202
    assert begun.headers["location"].startswith(address)
    assert "server" not in begun.headers
    assert "Waiting for the event" in page.text
    assert [one["instanceId"] for one in listed["instances"]] == ["w-1"]
    assert told.exit_code == 0
    assert done["output"] == 7
    assert second.exit_code == 4
    assert address in second.stderr or address.replace("localhost", "127.0.0.1") in second.stderr
    assert code == 0
    assert said_last.rstrip().endswith("stopped")
    assert "Traceback" not in said_last
    assert not (folder / "perdure.db-wal").exists()


def test_sigterm_stops_it_as_cleanly(folder: Path) -> None:
    (folder / "app.py").write_text(PROGRAM.format(name="served"))

    with running(folder) as (process, _):
        process.terminate()
        assert process.wait(60) == 0

    assert not (folder / "perdure.db-wal").exists()


BEGINS = """
import asyncio, time
import perdure as df
from perdure.engine.activities import asyncio_host
from perdure.server import forced_exit

asyncio_host.LAST_WORDS, forced_exit.STOP_WITHIN = 0.3, 3.0  # of 3 and 10 seconds

app = df.App("stubborn")

@app.route("/begin", methods=["POST"], auth="anonymous")
async def begin(client: df.Client):
    await client.start_new("main", "w-1")

@app.orchestrator
async def main(context):
    await context.call_activity("work")
"""
SPINS = """
import perdure as df

app = df.App("stubborn")

@app.route("/begin", methods=["POST"], auth="anonymous")
async def begin(client: df.Client):
    await client.start_new("main", "w-1")

@app.orchestrator
async def main(context):
    open("has-begun", "w").close()
    try:
        await context.wait_for_external_event("Never")
    finally:
        while True:
            try:
                sum(range(100))
            except:
                pass

@app.activity
def work(): ...
"""
BLOCKS = """
@app.activity
async def work():
    open("has-begun", "w").close()
    while True:
        time.sleep(0.1)
"""
SWALLOWS = """
@app.activity
async def work():
    open("has-begun", "w").close()
    while True:
        try:
            await asyncio.sleep(1)
        except:
            pass
"""


@pytest.mark.parametrize(
    ("program", "code", "name"),
    [
        pytest.param(SPINS, 0, "w-1", id="an orchestrator that swallows its end"),
        pytest.param(BEGINS + BLOCKS, 1, "work", id="an activity that blocks the event loop"),
        pytest.param(BEGINS + SWALLOWS, 1, "work", id="an activity that swallows its cancellation"),
    ],
)
def test_sigterm_stops_it_whatever_its_code_does(folder: Path, program: str, code: int, name: str) -> None:
    (folder / "app.py").write_text(program)

    with running(folder) as (process, address):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as line:  # the answer may never come
            line.sendall(b"POST /api/begin HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
            while not (folder / "has-begun").exists():
                time.sleep(0.02)
        process.terminate()
        ended = process.wait(60)
        said_last = process.stderr.read() if process.stderr else ""

    assert ended == code
    assert name in said_last


def test_with_reload_a_changed_file_is_served_anew(folder: Path) -> None:
    (folder / "app.py").write_text(PROGRAM.format(name="before"))

    with running(folder, "--reload") as (process, address):
        before = httpx2.get(f"{address}/", headers=KEY, trust_env=False, timeout=60).text
        (folder / "app.py").write_text(PROGRAM.format(name="after"))
        after = httpx2.get(f"{address_of(process)}/", headers=KEY, trust_env=False, timeout=60).text
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0

    assert '<span class="hub">before</span>' in before
    assert '<span class="hub">after</span>' in after


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.10", "::", "example.com"])
def test_an_address_that_others_reach_is_refused(folder: Path, host: str) -> None:
    (folder / "app.py").write_text(PROGRAM.format(name="served"))

    result = perdure("run", "app.py", "--host", host, store=folder / "perdure.db")

    assert result.exit_code == 2
    assert not (folder / "perdure.db").exists()
    assert "no access keys" in " ".join(result.stderr.replace("│", " ").split())


def test_a_port_that_is_taken_is_said_to_be(folder: Path) -> None:
    import socket

    (folder / "app.py").write_text(PROGRAM.format(name="served"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = perdure("run", "app.py", "--port", str(taken.getsockname()[1]))

    assert result.exit_code == 4
    assert "cannot listen" in result.stderr


@pytest.mark.parametrize("target", ["app.py", "app.py:app", "app", "app:app"])
def test_an_application_is_found_by_file_and_by_module(folder: Path, target: str) -> None:
    (folder / "app.py").write_text("import sibling\n" + PROGRAM.format(name="found"))
    (folder / "sibling.py").write_text("")

    assert load_app(target).name == "found"
    assert watched_folder(target) == folder


def test_an_imported_application_is_the_same_one_twice(folder: Path) -> None:
    (folder / "inner.py").write_text(PROGRAM.format(name="inner"))
    (folder / "app.py").write_text("from inner import app\nalias = app\n")

    assert load_app("app.py").name == "inner"


@pytest.mark.parametrize(
    ("target", "content", "said"),
    [
        ("app.py", None, "there is no file app.py. Give the file that creates the App"),
        ("nothing.here:app", None, "there is no module 'nothing.here'"),
        ("app.py", "x = 1", "has no perdure.App"),
        ("app.py", "import perdure as df\na = df.App('a')\nb = df.App('b')", "several applications (a, b)"),
        ("app.py:c", "import perdure as df\na = df.App('a')", "app.py:c does not exist"),
        ("app.py:x", "x = 1", "is a int, not a perdure.App"),
        ("app.py", "import no_such_module", "No module named 'no_such_module'"),
        ("app", "1 / 0", "ZeroDivisionError"),
        ("app.py", "def broken(:", "SyntaxError"),
    ],
)
def test_what_holds_no_application_is_said_clearly(
    folder: Path, target: str, content: str | None, said: str
) -> None:
    if content is not None:
        (folder / "app.py").write_text(content)

    with pytest.raises(SourceError) as refused:
        load_app(target)
    result = perdure("run", target, "--port", "0")

    assert said in str(refused.value)
    assert "perdure/cli" not in str(refused.value)
    assert "importlib" not in str(refused.value)
    assert result.exit_code == 1


def test_a_function_that_cannot_be_served_ends_with_1(folder: Path) -> None:
    (folder / "app.py").write_text(
        PROGRAM.format(name="served") + "\n@app.activity\ndef broken(a: int, b: int): ...\n"
    )

    result = perdure("run", "app.py", "--port", "0", store=folder / "x.db")

    assert result.exit_code == 1
    assert "broken" in result.stderr
    assert json.dumps("Traceback") not in result.stderr


def test_a_head_without_an_end_is_cut_off(folder: Path) -> None:
    import socket
    from urllib.parse import urlsplit

    (folder / "app.py").write_text(PROGRAM.format(name="served"))
    with running(folder) as (_, address):
        port = urlsplit(address).port or 0
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
            for _ in range(40):
                client.sendall(b"X-A: " + b"a" * 4_000 + b"\r\n")
            assert client.recv(1_000).startswith(b"HTTP/1.1 431 ")


VARIABLES = """
import contextvars
import perdure as df

app = df.App("tenants")
tenant = contextvars.ContextVar("tenant", default="nobody")

@app.route("/enter/{name}", auth="anonymous")
async def enter(name: str):
    before = tenant.get()
    tenant.set(name)
    return before
"""


def test_what_a_request_puts_into_context_variables_the_next_on_its_connection_does_not_see(
    folder: Path,
) -> None:
    """Of those that are sent without waiting for the answers each is begun by the end of the one before."""
    (folder / "app.py").write_text(VARIABLES)
    ask = "GET /api/enter/{} HTTP/1.1\r\nhost: localhost\r\n{}\r\n"
    with running(folder) as (_, address):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as line:
            line.sendall(
                "".join(ask.format(n, "connection: close\r\n" * (n == 3)) for n in range(4)).encode()
            )
            said = b"".join(iter(lambda: line.recv(65_536), b""))

    assert said.count(b"nobody") == 4


FULL = """
    mount -t tmpfs -o size=200k tmpfs {folder}
    head -c {filled}k /dev/zero > {folder}/filler 2>/dev/null
    {python} -m perdure.cli run {program} --port 0 --store {folder}/hub.db
    echo "exit $?" >&2
"""


ON_A_FULL_DISK = pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux" or shutil.which("unshare") is None,
    reason="a disk that is full is made by root on Linux, with unshare",
)


@ON_A_FULL_DISK
@pytest.mark.parametrize("filled", [200, 190, 180, 100, 4])
def test_a_start_on_a_full_disk_ends_in_one_line(folder: Path, filled: int) -> None:
    """Whatever does not fit: the side file, the database, its log, its shared memory, or what is kept of the code."""
    (folder / "app.py").write_text(PROGRAM.format(name="full"))
    (folder / "disk").mkdir()
    script = FULL.format(
        folder=folder / "disk", filled=filled, python=sys.executable, program=folder / "app.py"
    )
    _demand_one_line(_on_a_disk_of_its_own(script).stderr)


@ON_A_FULL_DISK
def test_a_second_start_on_a_full_disk_ends_in_one_line_too(folder: Path) -> None:
    """The first has left a log without its shared memory."""
    (folder / "app.py").write_text(PROGRAM.format(name="full"))
    (folder / "disk").mkdir()
    script = FULL.format(folder=folder / "disk", filled=180, python=sys.executable, program=folder / "app.py")
    *before, start, code = script.strip().splitlines()
    done = _on_a_disk_of_its_own("\n".join([*before, f"{start} 2>/dev/null", start, code]))
    _demand_one_line(done.stderr)


@ON_A_FULL_DISK
def test_a_start_on_a_disk_without_room_for_a_new_file_ends_in_one_line(folder: Path) -> None:
    (folder / "app.py").write_text(PROGRAM.format(name="full"))
    (folder / "disk").mkdir()
    script = FULL.format(folder=folder / "disk", filled=0, python=sys.executable, program=folder / "app.py")
    # Inodes for the folder, the filler, the side file and the database; none for the database's log.
    done = _on_a_disk_of_its_own(script.replace("size=200k", "size=2m,nr_inodes=4"))
    _demand_one_line(done.stderr)


def _on_a_disk_of_its_own(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        env={**os.environ, "PYTHONPATH": os.fspath(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )


def _demand_one_line(stderr: str) -> None:
    [told, code] = [line for line in stderr.splitlines() if not line.startswith("INFO")]
    assert told.startswith("error: no space is left for ") and "PDR-041" in told
    assert code == "exit 4"


class Reluctant:
    """An application whose store fails while it is being opened, so many times."""

    def __init__(self, failures: list[Exception]) -> None:
        self.failures = failures

    @asynccontextmanager
    async def running(self, **_: Any) -> AsyncIterator[str]:
        if self.failures:
            raise self.failures.pop(0)
        yield "open"


@pytest.mark.parametrize(
    ("failures", "wait", "outcome"),
    [
        ([StoreError("it goes away"), StoreError("it starts")], 60.0, "open"),
        ([StoreError("it goes away")], 0.0, StoreError),
        ([StoreInUse("another engine")], 60.0, StoreInUse),
        ([StoreFull("no space")], 60.0, StoreFull),
    ],
)
async def test_the_whole_opening_waits_for_a_database_and_for_nothing_else(
    failures: list[Exception], wait: float, outcome: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_opening, "LOOK_EVERY", 0.0)
    plan = ServeOptions("app.py", {}, chosen_of({"store_wait": wait}))
    async with AsyncExitStack() as stack:
        opening = store_opening.open_client(
            stack, cast("App", Reluctant(list(failures))), plan, lambda _: None
        )
        if isinstance(outcome, str):
            assert await opening == outcome
            return
        with pytest.raises(outcome):
            await opening
