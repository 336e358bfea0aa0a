"""What needs an optional package says so alike, with the command that installs it: a process for each, without it."""

import subprocess
import sys
from textwrap import dedent

import pytest

APP = """
    import asyncio
    import perdure as df

    app = df.App("bare")
"""
BROKER = """
    import asyncio
    from perdure.triggers.brokers import {kind}

    async def main():
        async with {kind}({arguments}).connected():
            pass

    asyncio.run(main())
"""
RUNNING = """
    async def main():
        async with app.running(store="postgresql://nowhere/x"):
            pass

    asyncio.run(main())
"""
TRACED = """
    async def main():
        async with app.running(store="memory:", telemetry="on"):
            pass

    asyncio.run(main())
"""
EXPORTS = "from perdure.telemetry.setup import set_up; set_up({mode!r}, 'bare', 'worker')"
KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
CASES = {  # what is done: the package that is missing, its extra, and the program
    "asgi": ("starlette", "server", APP + "    app.asgi()"),
    "asgi without a part of the extra": ("jinja2", "server", APP + "    app.asgi()"),
    "connect": ("httpx2", "server", APP + "    df.connect('http://localhost:7071')"),
    "commands": ("typer", "server", "from perdure.cli import main; main()"),
    "postgresql": ("psycopg", "postgres", APP + RUNNING),
    "encryption": ("cryptography", "crypto", APP + f"    df.Encryption({{'k': '{KEY}'}})"),
    "rabbitmq": ("aio_pika", "queues", BROKER.format(kind="RabbitMQ", arguments="'amqp://localhost/', 'q'")),
    "redis": ("redis", "queues", BROKER.format(kind="RedisStream", arguments="'redis://localhost/', 'q'")),
    "azure": (
        "azure",
        "azure",
        BROKER.format(kind="AzureStorageQueue", arguments="'UseDevelopmentStorage=true', 'q'"),
    ),
    "telemetry": ("opentelemetry", "telemetry", APP + TRACED),
    "otlp": ("opentelemetry", "otlp", EXPORTS.format(mode="otlp")),
    "azure-monitor": ("azure", "azure-monitor", EXPORTS.format(mode="azure-monitor")),
}


@pytest.mark.parametrize("case", CASES)
def test_a_missing_package_is_named_with_the_extra_that_installs_it(case: str) -> None:
    package, extra, program = CASES[case]
    hidden = f"import sys; sys.modules[{package!r}] = None\n"
    ended = subprocess.run(
        [sys.executable, "-c", hidden + dedent(program)], capture_output=True, text=True, check=False
    )

    assert ended.returncode != 0
    assert f"needs the package '{package}', which is not installed" in ended.stderr
    assert f"pip install 'perdure[{extra}]'" in ended.stderr
    assert "PDR-016" in ended.stderr


def test_the_commands_show_no_traceback() -> None:
    program = "import sys; sys.modules['rich'] = None\nfrom perdure.cli import main\nmain()"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert ended.returncode == 4
    assert ended.stderr.startswith("error: the command line needs the package 'rich'")
    assert "Traceback" not in ended.stderr
