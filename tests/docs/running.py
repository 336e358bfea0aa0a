"""Runs a page from its top to its end, in a folder of its own, as a reader would.

Its Python blocks share one namespace and may `await` at their top. A block that defines tests is followed by running
them. A command has to succeed, and to say what the page shows; one that the page shows failing has to fail so.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from perdure.testing import environment
from tests.docs.likeness import is_like
from tests.docs.markdown import Block, blocks_of, earlier_files
from tests.docs.shell import DATABASE, ROOT, Shell

SHOWN_ONLY = frozenset({"text", "sql", "html", "http", "css", "ini", "dockerfile", "diff"})
"""Languages of what is only looked at."""
PROMPT = "$ "
ASKING = ("perdure status ", "perdure list", "perdure history ", "perdure trace ", "promtool query ")
"""Commands that change nothing, and may be asked again until what they tell about has happened."""
ENDS_WITHIN = 60.0  # seconds, on a machine that is busy


class PageError(AssertionError):
    """A page shows something that is not so."""


def run_page(page: Path, folder: Path, database: str = DATABASE) -> None:
    """Run every block of a page. Raises PageError, or what its code raises, naming page and line."""
    blocks = blocks_of(page)
    shell = Shell(folder, database)
    for file in earlier_files(page):
        _write(file, folder)
    with _inside(folder), _module(page) as module, asyncio.Runner() as runner:
        try:
            for block in blocks:
                if not block.not_run:
                    _run(block, module, runner, shell)
        finally:
            shell.close()


def _run(block: Block, module: ModuleType, runner: asyncio.Runner, shell: Shell) -> None:
    match block.language:
        case "python" | "py":
            _write(block, shell.folder)
            _execute(block, module, runner, shell)
        case "console":
            for command, shown in _session(block):
                _perform(block, shell, command, shown)
        case "bash" | "sh" | "shell":
            for command in _commands(block.code):
                _perform(block, shell, command, "")
        case "json":
            _write(block, shell.folder)
            _check(block, json.loads)
        case "toml":
            _write(block, shell.folder)
            _check(block, tomllib.loads)
        case "yaml" | "yml":
            _write(block, shell.folder)
            _check(block, yaml.safe_load)
        case "":
            raise PageError(f"{block.place}: this block has no language: name one, `text` for mere text")
        case language if language not in SHOWN_ONLY:
            raise PageError(f"{block.place}: the tests do not know the language {language!r}")


# ---------------------------------------------------------------------------------------------- python


def _execute(block: Block, module: ModuleType, runner: asyncio.Runner, shell: Shell) -> None:
    before = dict(vars(module))
    padded = "\n" * (block.line - 1) + shell.here(block.code)
    code = compile(
        padded, os.fspath(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    if code.co_flags & inspect.CO_COROUTINE:
        runner.run(_awaited(code, module))
    else:
        exec(code, vars(module))
    if block.title:
        return  # tests in a file are run by the page's own `pytest`
    for name, value in list(vars(module).items()):
        if name.startswith("test_") and value is not before.get(name) and callable(value):
            runner.run(_test(value))


async def _awaited(code: Any, module: ModuleType) -> None:
    await eval(code, vars(module))


async def _test(function: Any) -> None:
    """Run a test as pytest would; the one fixture it may ask for is perdure's own."""
    async with AsyncExitStack() as stack:

        async def start(app: Any, **options: Any) -> Any:
            return await stack.enter_async_context(environment(app, **options))

        fixtures = {"perdure_environment": start}
        given = {name: fixtures[name] for name in inspect.signature(function).parameters}
        outcome = function(**given)
        if inspect.isawaitable(outcome):
            await outcome


# ------------------------------------------------------------------------------------------- commands


def _session(block: Block) -> Iterator[tuple[str, str]]:
    """Commands behind `$ `, each with the output shown below it."""
    command, shown = "", []
    for line in block.code.splitlines():
        if line.startswith(PROMPT):
            if command:
                yield command, "\n".join(shown)
            command, shown = line.removeprefix(PROMPT), []
        elif command.endswith("\\"):
            command = command.removesuffix("\\") + line.strip().removeprefix("> ")
        elif not command and line.strip():
            raise PageError(f"{block.place}: a console block begins with `$ ` and a command")
        else:
            shown.append(line)
    if command:
        yield command, "\n".join(shown)


def _commands(code: str) -> list[str]:
    joined = code.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _perform(block: Block, shell: Shell, command: str, shown: str) -> None:
    exit_code, said = shell.run(command)
    patience = time.monotonic() + ENDS_WITHIN if command.startswith(ASKING) else 0.0
    while shown.strip() and not is_like(shown, said) and time.monotonic() < patience:
        time.sleep(0.05)  # a server is at work: a reader, too, would ask again
        exit_code, said = shell.run(command)
    if shown.strip() and not is_like(shown, said):
        raise PageError(f"{block.place}: `{command}` is shown to say\n\n{shown}\n\nand says\n\n{said}")
    if exit_code and not shown.strip():
        raise PageError(f"{block.place}: `{command}` ended with {exit_code}:\n\n{said}")


# ------------------------------------------------------------------------------------------ the place


def _write(block: Block, folder: Path) -> None:
    if block.title:
        place = folder / block.title
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(block.code + "\n", encoding="utf-8")


def _check(block: Block, reader: Any) -> None:
    try:
        reader(block.code)
    except Exception as error:
        raise PageError(f"{block.place}: this is no {block.language}: {error}") from error


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in the folder; afterwards its modules are forgotten and the environment is as before."""
    before, path, modules, env = Path.cwd(), list(sys.path), set(sys.modules), dict(os.environ)
    for name in [name for name in os.environ if name.startswith("PERDURE_")]:
        del os.environ[name]
    os.chdir(folder)
    sys.path.insert(0, os.fspath(folder))
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = path
        os.environ.clear()
        os.environ.update(env)
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).is_relative_to(folder):
                del sys.modules[name]


@contextmanager
def _module(page: Path) -> Iterator[ModuleType]:
    """The module that a page's blocks are: annotations are looked up by its name."""
    relative = page.relative_to(ROOT) if page.is_relative_to(ROOT) else Path(page.name)
    name = "page_" + "_".join(relative.with_suffix("").parts).replace("-", "_").replace(".", "_")
    module = ModuleType(name)
    module.__file__ = os.fspath(page)
    sys.modules[name] = module
    try:
        yield module
    finally:
        del sys.modules[name]
