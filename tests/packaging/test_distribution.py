"""The wheel and the sdist, as the package index gets them. They work in an empty environment.

Each extra is installed into an environment of its own, which has nothing but this extra. A program then uses what the
extra is for. The programs of `tests/cli/test_extras.py` run there, too: each must name the extra that it lacks.
"""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from textwrap import dedent

import pytest

from tests.cli.test_extras import CASES

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = [extra for extra in PROJECT["optional-dependencies"] if extra != "all"]
pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(600)]  # pip installs

ORCHESTRATION = """
    import asyncio
    import perdure as df

    app = df.App("bare")

    {prepare}

    @app.activity
    async def greet(name: {type}) -> {type}:
        return name

    @app.orchestrator
    async def main(context: df.OrchestrationContext, name: {type}) -> {type}:
        return await context.call_activity(greet, name)

    async def run():
        async with app.running(store="sqlite:///hub.db"{options}) as client:
            instance = await client.start_new(main, None, {value})
            return (await client.wait_for_completion(instance)).output

    print(asyncio.run(run()))
"""


def orchestration(value: str = "'Ada'", type: str = "str", prepare: str = "", options: str = "") -> str:
    return ORCHESTRATION.format(value=value, type=type, prepare=prepare, options=options)


HTTP = """
    import asyncio
    import httpx2
    import perdure as df

    app = df.App("bare")

    async def run():
        async with app.running(store="sqlite:///hub.db"):
            transport = httpx2.ASGITransport(app.asgi())
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return (await client.get("/healthz")).status_code

    print(asyncio.run(run()))
"""
KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
MODEL = """
    import pydantic

    class Claim(pydantic.BaseModel):
        amount: int
""".strip()
BROKER = """
    import asyncio
    from perdure.triggers.brokers import {kind}

    async def main():
        try:
            async with {kind}({arguments}).connected():
                pass
        except Exception as error:
            print(type(error).__name__, error)

    asyncio.run(asyncio.wait_for(main(), 30))
"""
NO_SERVER = """
    import asyncio
    import perdure as df

    app = df.App("bare")

    async def run():
        try:
            async with app.running(store="postgresql://127.0.0.1:9/none"):
                pass
        except df.PerdureError as error:
            print(type(error).__name__, error)

    asyncio.run(run())
"""
CONNECTION_STRING = (
    "InstrumentationKey=00000000-0000-0000-0000-000000000001;IngestionEndpoint=http://127.0.0.1:9/"
)
EXPORTS = """
    import os
    os.environ["APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL"] = "true"
    os.environ["APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED"] = "true"
    os.environ[{variable!r} or "UNUSED"] = {value!r}
    from perdure.telemetry.setup import set_up

    set_up({mode!r}, "bare", "worker").flush()
    print("0 left")
"""
USES: dict[str, list[tuple[str, str]]] = {  # what each extra is for: a program, and what its output contains
    "": [(orchestration(), "Ada")],
    "server": [(HTTP, "200")],
    "schema": [(orchestration("Claim(amount=3)", "Claim", MODEL), "'amount': 3")],
    "crypto": [(orchestration(options=f", encryption_keys=df.Encryption({{'k': '{KEY}'}})"), "Ada")],
    "queues": [
        (BROKER.format(kind="RabbitMQ", arguments="'amqp://127.0.0.1:9/', 'q'"), "127.0.0.1"),
        (BROKER.format(kind="RedisStream", arguments="'redis://127.0.0.1:9/', 'q'"), "127.0.0.1"),
    ],
    "postgres": [(NO_SERVER, "127.0.0.1")],
    "azure": [(BROKER.format(kind="AzureStorageQueue", arguments="'UseDevelopmentStorage=true', 'q'"), "")],
    "demo": [("import imagehash, PIL, skimage, sklearn; print('the claims office')", "the claims office")],
    "telemetry": [("import opentelemetry.trace, prometheus_client; print('both')", "both")],
    "otlp": [(EXPORTS.format(mode="otlp", variable="", value=""), "0 left")],
    "azure-monitor": [
        (
            EXPORTS.format(
                mode="azure-monitor",
                variable="APPLICATIONINSIGHTS_CONNECTION_STRING",
                value=CONNECTION_STRING,
            ),
            "0 left",
        )
    ],
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    hatch(ROOT, folder)
    return folder


def hatch(source: Path, folder: Path, *options: str) -> None:
    run(sys.executable, "-m", "hatchling", "build", *options, "-d", str(folder), cwd=source)


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wheel_in(folder: Path) -> Path:
    [wheel] = folder.glob("*.whl")
    return wheel


def sdist_in(folder: Path) -> Path:
    [sdist] = folder.glob("*.tar.gz")
    return sdist


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(wheel_in(built)) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package, errors = ROOT / "src" / "perdure", ROOT / "docs" / "errors"
    expected = {f"perdure/{path.relative_to(package)}" for path in package.rglob("*") if shipped(path)}
    expected |= {f"perdure/http/errors/{path.name}" for path in errors.iterdir()}
    assert names == expected


def shipped(path: Path) -> bool:
    return path.is_file() and path.suffix != ".pyc"


def test_the_sdist_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist_in(built)) as archive:
        archive.extractall(tmp_path, filter="data")
    [source] = tmp_path.iterdir()
    hatch(source, tmp_path / "again", "-t", "wheel")

    assert files(wheel_in(tmp_path / "again")) == files(wheel_in(built))


def files(wheel: Path) -> dict[str, int]:
    with zipfile.ZipFile(wheel) as archive:
        return {one.filename: one.CRC for one in archive.infolist()}


def test_the_index_can_render_the_description(built: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", str(wheel_in(built)), str(sdist_in(built)))


def test_every_link_of_the_description_leads_somewhere_from_the_index(built: Path) -> None:
    text = str(metadata(wheel_in(built)).get_payload())
    targets = re.findall(r"\]\(([^)\s]+)", text) + re.findall(r"(?:src|srcset|href)=\"([^\"]+)", text)

    assert targets
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []


def test_the_metadata_says_where_the_project_lives_and_which_pythons_it_is_tested_on(built: Path) -> None:
    told = metadata(wheel_in(built))
    labels = {line.split(",")[0] for line in told.get_all("Project-URL", [])}
    classifiers = told.get_all("Classifier", [])

    assert labels >= {"Documentation", "Changelog", "Source", "Issues"}
    assert [one for one in classifiers if re.search(r"Python :: 3\.\d+$", one)] == [
        f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)
    ]
    assert set(told.get_all("Provides-Extra", [])) == {*EXTRAS, "all"}


def test_a_program_shows_what_each_extra_is_for() -> None:
    assert set(USES) == {"", *EXTRAS}


@pytest.mark.parametrize(
    "extra",
    [pytest.param(extra, marks=pytest.mark.long if extra else (), id=extra or "none") for extra in USES],
)
def test_it_works_in_an_environment_that_has_only_this_extra(extra: str, built: Path, tmp_path: Path) -> None:
    python = environment(tmp_path, extra, wheel_in(built))

    run(python, "-m", "pip", "check")
    for program, expected in USES[extra]:
        assert expected in run(python, "-I", "-c", dedent(program), cwd=tmp_path)
    for case, (package, needed, program) in CASES.items():
        if installed(python, package):
            continue
        failed = subprocess.run(
            [python, "-I", "-c", dedent(program)], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert f"pip install 'perdure[{needed}]'" in failed.stderr, f"{case}: {failed.stderr}"


@pytest.mark.long
def test_it_installs_from_the_sdist(built: Path, tmp_path: Path) -> None:
    python = environment(tmp_path, "", sdist_in(built))
    for program, expected in USES[""]:
        assert expected in run(python, "-I", "-c", dedent(program), cwd=tmp_path)


def environment(folder: Path, extra: str, package: Path) -> str:
    """An interpreter with the package, this extra and what they need, in the locked versions."""
    run(sys.executable, "-m", "venv", str(folder / "venv"))
    python = str(folder / "venv" / "bin" / "python")
    run(python, str(ROOT / "deploy" / "install.py"), *filter(None, [extra]), "--built", str(package))
    return python


def installed(python: str, package: str) -> bool:
    looked = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([python, "-I", "-c", looked]).returncode == 0
