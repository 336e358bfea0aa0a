"""An SDK that perdure does not know is driven by the JSON protocol where that is possible, or is a clear error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hosted.test_loading import folder_of

ROOT = Path(__file__).parents[2]
APP = """
@app.activity_trigger(input_name="x")
def act(x): return x + 1
@app.orchestration_trigger(context_name="context")
def small(context):
    try:
        yield context.call_activity_with_retry("act", df.RetryOptions(1, 1), "x")
    except Exception:
        pass
    return (yield context.task_all([context.call_activity("act", n) for n in (1, 2)]))
@app.route(route="start", auth_level=func.AuthLevel.ANONYMOUS)
@app.durable_client_input(client_name="client")
async def start(req: func.HttpRequest, client):
    return await client.start_new("small", "one")
"""
LACKING = """
import asyncio, sys, warnings
warnings.simplefilter("ignore")
import azure.durable_functions
name = "azure.durable_functions.models.{module}"
__import__(name)
delattr(sys.modules[name], "{attribute}")
from perdure.errors import HostedAppError
from perdure.hosts.azure_functions.application import load
from perdure.testing import environment

async def main():
    hosted = load("app")
    print(hosted.told)
    async with environment(hosted.app) as env:
        print((await env.run("small")).output)

try:
    asyncio.run(main())
except HostedAppError as error:
    print(error)
"""


def ran(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in a folder whose own packages precede the installed ones."""
    path = os.pathsep.join((os.fspath(place), os.fspath(ROOT / "src")))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    folder_of(tmp_path / "app", APP)
    return tmp_path


@pytest.mark.timeout(500)
@pytest.mark.parametrize(
    ("module", "attribute"),
    [("FunctionContext", "FunctionContext"), ("actions.CallHttpAction", "CallHttpAction")],
)
def test_an_sdk_without_a_name_of_its_inside_is_driven_by_the_protocol(
    place: Path, module: str, attribute: str
) -> None:
    ended = ran(place, "-c", LACKING.format(module=module, attribute=attribute))
    told, output = ended.stdout.splitlines() or [ended.stderr, ""]
    assert f"is not as expected (it has no {module}.{attribute})" in told
    assert "by the JSON protocol" in told and output == "[2, 3]"


@pytest.mark.timeout(500)
def test_an_sdk_whose_client_asks_otherwise_is_refused(place: Path) -> None:
    program = LACKING.format(module="DurableOrchestrationClient", attribute="post_async_request")
    ended = ran(place, "-c", program)
    assert "has no post_async_request" in ended.stdout and "1.3 to 1.7" in ended.stdout, ended.stderr


@pytest.mark.timeout(500)
def test_an_sdk_that_breaks_at_its_import_is_a_clear_error(place: Path) -> None:
    broken = place / "azure" / "durable_functions"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise TypeError('it does not fit this Python')")
    ended = ran(place, "-m", "perdure.cli", "run", "app")
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert "cannot be imported (TypeError: it does not fit this Python)" in " ".join(ended.stderr.split())


@pytest.mark.timeout(500)
def test_the_next_generation_of_the_sdk_is_refused_with_what_to_do(place: Path) -> None:
    metadata = place / "azure_functions_durable-2.0.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: azure-functions-durable\nVersion: 2.0.0\n"
    )
    ended = ran(place, "-m", "perdure.cli", "run", "app")
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert "azure-functions-durable 2.0.0 is installed" in ended.stderr
    assert "pip install 'azure-functions-durable<2'" in " ".join(ended.stderr.split())


@pytest.mark.timeout(500)
@pytest.mark.parametrize("host", ['{"version": "2.0"} // a comment', '{"version": "2.0"}{"version": "2.0"}'])
def test_an_app_is_loaded_from_its_own_folder_whatever_its_host_json_has_beside_json(
    place: Path, host: str
) -> None:
    """The SDK cannot be imported in such a folder, where it reads the host.json too."""
    (place / "app" / "host.json").write_text(host)
    path = os.pathsep.join(("..", os.fspath(ROOT / "src")))
    program = (
        "from perdure.cli.azure_app import load\nimport sys\n"
        "sys.path.append('__editable__.other.finder.__path_hook__')\n"
        "found = sorted(load('.').registry.activities)\n"
        "print(found, [entry for entry in sys.path if not entry.startswith('/')])"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=place / "app",
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert ended.stdout == "['act'] ['__editable__.other.finder.__path_hook__']\n", ended.stderr
