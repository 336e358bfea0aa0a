"""An app is imported in the event loop that serves it, as on Azure."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hosted.test_loading import folder_of
from tests.hosted.test_other_sdks import ran

APP = """
import asyncio
loop = asyncio.get_running_loop()
ready = loop.create_future()
lock = asyncio.Lock()
async def prepare():
    ready.set_result("ready")
task = loop.create_task(prepare())
@app.activity_trigger(input_name="x")
async def act(x):
    async with lock:
        return [await loop.run_in_executor(None, lambda: x + 1), await ready]
@app.orchestration_trigger(context_name="context")
def small(context):
    return (yield context.call_activity("act", 1))
"""
SERVE = """
import asyncio, warnings
warnings.simplefilter("ignore")
from perdure.cli.azure_app import load
from perdure.server.event_loop import loop_factory
app = load("app")

async def main():
    async with app.running(store="memory:") as client:
        print((await client.wait_for_completion(await client.start_new("small"))).output)

with asyncio.Runner(loop_factory=loop_factory()) as runner:
    runner.run(main())
"""


@pytest.mark.timeout(500)
def test_what_a_module_makes_belongs_to_the_loop_that_serves(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    folder_of(tmp_path / "app", APP)
    ended = ran(tmp_path, "-c", SERVE)
    assert ended.stdout == "[2, 'ready']\n", ended.stderr


TELL = """
import logging, warnings
warnings.simplefilter("ignore")
logging.basicConfig()
from perdure.cli.azure_app import load
load("app", tells={tells})
"""


@pytest.mark.timeout(500)
@pytest.mark.parametrize(("tells", "expected"), [(True, 1), (False, 0)])
def test_what_has_no_effect_is_told_by_one_of_several_workers(
    tmp_path: Path, tells: bool, expected: int
) -> None:
    (tmp_path / "app").mkdir()
    folder_of(tmp_path / "app", APP)
    host = '{"extensions": {"durableTask": {"partitionCount": 4}}}'
    (tmp_path / "app" / "host.json").write_text(host)
    ended = ran(tmp_path, "-c", TELL.format(tells=tells))
    assert ended.returncode == 0 and ended.stderr.count("partitionCount") == expected, ended.stderr
