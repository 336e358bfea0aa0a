"""What `perdure run` lists of an application at its start."""

from __future__ import annotations

import perdure as df
from perdure.cli.banner import AppTerminal
from perdure.server.options import ServeOptions
from perdure.settings import TABLE, choose
from perdure.testing import environment

app = df.App("listed")


@app.orchestrator(aliases=["former_name"])
def process(context: df.OrchestrationContext) -> None: ...


@app.activity(aliases=["old_step"])
def step() -> None: ...


@app.entity
class Counter:
    value: int = 0


async def test_each_function_is_listed_once_by_its_own_name() -> None:
    options = ServeOptions("app.py", {}, choose(TABLE, {}))
    async with environment(app) as env:
        facts = dict(await AppTerminal(options, app).facts(env.client, None))

    assert facts["orchestrators"] == "process"
    assert facts["activities"] == "step"
    assert facts["entities"] == "counter"


async def test_an_application_without_entities_has_no_line_for_them() -> None:
    none = df.App("none")
    options = ServeOptions("app.py", {}, choose(TABLE, {}))
    async with environment(none) as env:
        facts = dict(await AppTerminal(options, none).facts(env.client, None))

    assert facts["entities"] == ""
    assert facts["orchestrators"] == facts["activities"] == "none"
