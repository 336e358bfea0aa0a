"""What stands in an app's folder: every fault is told at once, and what is not hosted is listed."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from perdure.errors import HostedAppError
from perdure.hosts.azure_functions.application import load
from perdure.hosts.azure_functions.folder import read_folder, read_json
from perdure.testing import environment

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SOURCE = Path(__file__).parents[2] / "src"
HEAD = """import azure.durable_functions as df
import azure.functions as func
app = df.DFApp()
"""


def folder_of(place: Path, code: str = "", host: str = '{"version": "2.0"}') -> Path:
    (place / "host.json").write_text(host)
    if code:
        (place / "function_app.py").write_text(HEAD + code)
    return place


def faults_of(place: Path, **options: bool) -> tuple[str, ...]:
    with pytest.raises(HostedAppError) as caught:
        load(place, **options)  # type: ignore[arg-type]
    assert all(fault in str(caught.value) for fault in caught.value.faults)
    return caught.value.faults


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    faults = faults_of(
        folder_of(
            tmp_path,
            """
@app.orchestration_trigger(context_name="context")
async def waits(context): ...
@app.activity_trigger(input_name="text")
def shout(text): ...
@app.function_name("SHOUT")
@app.activity_trigger(input_name="text")
def other(text): ...
@app.blob_trigger(arg_name="blob", path="x/{name}", connection="")
def on_blob(blob): ...
""",
        )
    )
    assert len(faults) == 3
    assert "waits: the orchestrator waits" in faults[0] and "async def" in faults[0]
    assert "SHOUT: the name is taken by shout" in faults[1]
    assert faults[2].startswith("on_blob: blobTrigger 'blob' is not hosted")
    assert "function_app.py" in faults[1]


async def test_what_is_not_hosted_is_left_out_with_partial(tmp_path: Path) -> None:
    place = folder_of(
        tmp_path,
        """
@app.activity_trigger(input_name="text")
def shout(text): ...
@app.event_hub_message_trigger(arg_name="hub", event_hub_name="h", connection="c")
def on_hub(hub): ...
@app.orchestration_trigger(context_name="context")
def small(context):
    yield context.task_all([])
    return 1
""",
    )
    assert faults_of(place)[0].startswith("on_hub: eventHubTrigger 'hub' is not hosted")
    hosted = load(place, partial=True)
    assert hosted.told[0].startswith("on_hub")
    async with environment(hosted.app) as env:
        assert (await env.run("small")).output == 1


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import nowhere_at_all", "pip install -r requirements.txt"),
        ("raise RuntimeError('broken at import')", "broken at import (line 4"),
        ("other = df.DFApp()", "2 applications"),
        ("del app", "no application"),
        (
            "@app.activity_trigger(input_name='wrong')\ndef shout(text): ...",
            "its parameter 'text' has no binding; its binding 'wrong' has no parameter",
        ),
        (
            "@app.route(route='a/{b', methods=['GET'])\ndef bad(req): ...",
            "the route 'a/{b' cannot be read",
        ),
        (
            "@app.activity_trigger(input_name='a')\ndef one(a): ...\n"
            "@app.activity_trigger(input_name='a')\ndef one(a): ...",
            "does not have a unique",
        ),
    ],
)
def test_a_fault_of_the_module(tmp_path: Path, code: str, told: str) -> None:
    assert told in faults_of(folder_of(tmp_path, code))[0]


def test_a_folder_without_functions_and_a_file_that_is_no_json(tmp_path: Path) -> None:
    assert "no function to serve" in faults_of(folder_of(tmp_path))[0]
    folder_of(tmp_path, host="{")
    with pytest.raises(HostedAppError, match=r"host\.json cannot be read as JSON"):
        load(tmp_path)
    folder_of(tmp_path, host="[1]")
    with pytest.raises(HostedAppError, match="holds a list"):
        load(tmp_path)


def test_json_with_comments(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('\ufeff{"a": "// no comment", /* one */ "b": [1] // two\n} {"c": 1}', encoding="utf-8")
    assert read_json(path) == {"a": "// no comment", "b": [1]}


def test_app_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path)
    (tmp_path / "local.settings.json").write_text('{"Values": {"HOSTED_A": "file", "HOSTED_B": "file"}}')
    monkeypatch.setenv("HOSTED_B", "environment")
    folder = read_folder(tmp_path)
    assert folder.setting("hosted_a") == "file" and folder.setting("HOSTED_B") == "environment"
    assert folder.resolved("x-%HOSTED_A%-%hosted_b%") == "x-file-environment"
    with pytest.raises(KeyError, match="nowhere"):
        folder.resolved("%nowhere%")


def test_disabled_functions_and_another_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(
        tmp_path,
        host='{"functions": ["shout", "whisper"], "extensions": {"durableTask": {"hubName": "%HUB%"}}}',
    )
    (tmp_path / "other.py").write_text(
        HEAD
        + "\n".join(
            f"@app.activity_trigger(input_name='a')\ndef {name}(a): ..."
            for name in ("shout", "whisper", "sing")
        )
    )
    monkeypatch.setenv("PYTHON_SCRIPT_FILE_NAME", "other.py")
    monkeypatch.setenv("AzureWebJobs.whisper.Disabled", "true")
    monkeypatch.setenv("HUB", "from-a-setting")
    app = load(tmp_path).app
    assert list(app.registry.activities) == ["shout"] and app.name == "from-a-setting"


def test_what_host_json_says_is_heard_and_the_rest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = """{"version": "2.0", "functionTimeout": "00:05:00", "surprise": {"inside": 1},
      "logging": {"logLevel": {"default": "Warning"}, "applicationInsights": {}},
      "extensions": {"durableTask": {"maxConcurrentActivityFunctions": 7, "defaultVersion": "1.2",
        "storageProvider": {},
        "versionMatchStrategy": "strict", "versionFailureStrategy": "Fail", "oddity": 1}, "serviceBus": {}}}"""
    folder_of(tmp_path, "@app.activity_trigger(input_name='a')\nasync def act(a): ...", host)
    hosted = load(tmp_path)
    settings = hosted.app.settings
    assert (settings.concurrency.threads, settings.concurrency.tasks) == (7, 7)
    versioning = settings.versioning
    assert (versioning.default, versioning.match, versioning.failure) == ("1.2", "Strict", "Fail")
    assert hosted.app.registry.activities["act"].timeout == 300_000_000
    assert hosted.settings.log_level == logging.WARNING
    keys = [line.split()[1] for line in hosted.told]
    assert keys == [
        "surprise",
        "logging.applicationInsights",
        "extensions.durableTask.storageProvider",
        "extensions.durableTask.oddity",
        "extensions.serviceBus",
    ]
    monkeypatch.setenv("PYTHON_THREADPOOL_THREAD_COUNT", "3")
    assert load(tmp_path).app.settings.concurrency.threads == 3
    folder_of(tmp_path, host='{"extensions": {"durableTask": {"versionMatchStrategy": "sometimes"}}}')
    with pytest.raises(HostedAppError, match="versionMatchStrategy is one of None, Strict, CurrentOrOlder"):
        load(tmp_path)


def test_names_in_host_json_count_in_any_case(tmp_path: Path) -> None:
    place = folder_of(
        tmp_path,
        "@app.activity_trigger(input_name='a')\nasync def act(a): ...",
        """{"Version": "2.0", "FunctionTimeout": "00:01:00", "Logging": {"LogLevel": {"Default": "Error"}},
            "Extensions": {"DurableTask": {"HubName": "mine", "MaxConcurrentActivityFunctions": 3},
                           "Http": {"RoutePrefix": "v1"}}}""",
    )
    hosted = load(place)
    assert hosted.app.name == "mine"
    assert hosted.app.registry.route_prefix == "/v1"
    assert hosted.settings.timeout == 60_000_000
    assert hosted.settings.log_level == logging.ERROR
    assert hosted.settings.engine.concurrency.tasks == 3
    assert hosted.told == ()


async def test_two_named_functions_may_have_one_python_name(tmp_path: Path) -> None:
    place = folder_of(
        tmp_path,
        """
@app.function_name("One")
@app.activity_trigger(input_name="x")
def run(x): return x
@app.function_name("Other")
@app.activity_trigger(input_name="x")
def run(x): return x * x
@app.activity_trigger(input_name="x")
def third(x): return -x
@app.function_name("Fourth")
@app.activity_trigger(input_name="x")
def alone(x): return x + 100
@app.orchestration_trigger(context_name="context")
def sums(context):
    calls = [("One", 2), ("other", 3), (third, 4), (alone, 0)]
    return (yield context.task_all([context.call_activity(name, x) for name, x in calls]))
""",
    )
    hosted = load(place)
    assert "run" not in hosted.app.registry.activities
    async with environment(hosted.app) as env:
        assert (await env.run("sums")).output == [2, 9, -4, 100]


async def test_an_app_of_two_hundred_functions_that_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = """
@app.activity_trigger(input_name="x")
def step{n}(x): return x + {n}
"""
    code = "print('loading')\n" + "".join(step.format(n=n) for n in range(199))
    code += """
@app.orchestration_trigger(context_name="context")
def sums(context):
    return sum((yield context.task_all([context.call_activity(f"step{n}", 1) for n in range(199)])))
"""
    hosted = load(folder_of(tmp_path, code))
    assert capsys.readouterr().out == "loading\n"

    async with environment(hosted.app) as env:
        status = await env.run("sums")
    assert status.output == sum(range(199)) + 199


def command(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "perdure.cli", "run", *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.fspath(SOURCE), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.mark.timeout(500)
def test_the_command_ends_with_2_and_lists_what_it_cannot_serve(tmp_path: Path) -> None:
    place = tmp_path / "app"
    place.mkdir()
    folder_of(place, "@app.blob_trigger(arg_name='blob', path='x', connection='')\ndef on_blob(blob): ...")
    ended = command(tmp_path, "app")
    assert ended.returncode == 2
    assert "on_blob: blobTrigger 'blob' is not hosted" in ended.stderr and "--partial" in ended.stderr
    assert "PDR-018" in ended.stderr


@pytest.mark.timeout(500)
def test_an_application_of_perdures_own_loads_nothing_of_azures(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import sys, perdure\napp = perdure.App('x')\n"
        "@app.lifespan\nasync def looks():\n"
        "    found = [n for n in sys.modules if n.startswith(('azure', 'perdure.hosts'))]\n"
        "    sys.exit(f'loaded: {found}')\n"
        "    yield\n"
    )
    ended = command(tmp_path, "app.py", "--port", "0", "--store", "memory:")
    assert "loaded: []" in ended.stderr, ended.stderr
