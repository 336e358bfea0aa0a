"""An application whose import takes long: the command says so, and waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perdure.cli.app_loader import load_app
from perdure.cli.importing import told_while_importing
from tests.cli.test_run import folder

__all__ = ["folder"]
SLOW = """
import threading
(gates,) = [one.gates for one in threading.enumerate() if hasattr(one, "gates")]
gates[0].set()
gates[1].wait()
import {package} as df
app = df.{app}()
"""


@pytest.fixture
def gates() -> Iterator[tuple[threading.Event, threading.Event]]:
    """The import sets the first when it is at it, and goes on when the second is set."""
    both, thread = (threading.Event(), threading.Event()), threading.main_thread()
    thread.gates = both  # type: ignore[attr-defined]
    yield both
    del thread.gates  # type: ignore[attr-defined]


@pytest.fixture
def level() -> Iterator[None]:
    """The root logger's level, which an Azure app sets, is set back."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


def patience(
    gates: tuple[threading.Event, threading.Event], asked: list[float], most: int
) -> Callable[[float], bool]:
    """Waits for no time: the import lasts for so many lines."""

    def wait(seconds: float) -> bool:
        asked.append(seconds)
        gates[0].wait(60)
        if len(asked) > most:
            gates[1].set()
            return True
        return False

    return wait


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize(
    ("file", "package", "app"),
    [("app.py", "perdure", "App"), ("function_app.py", "azure.durable_functions", "DFApp")],
)
def test_a_slow_import_is_told_with_the_line_that_it_is_at(
    folder: Path,
    gates: tuple[threading.Event, threading.Event],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    package: str,
    app: str,
) -> None:
    monkeypatch.chdir(folder)
    (folder / file).write_text(SLOW.format(package=package, app=app))
    target = file
    if file == "function_app.py":
        (folder / "host.json").write_text("{}")
        target = str(folder)
    asked: list[float] = []
    with (
        caplog.at_level(logging.INFO, "perdure.cli"),
        told_while_importing(target, patience(gates, asked, most=3)),
    ):
        assert load_app(target).name == "default"

    lines = [record.getMessage() for record in caplog.records if record.name == "perdure.cli"]
    place = f": it is at line 5 of {folder / file}"
    assert lines == [f"{target} is being imported, since {seconds} s{place}" for seconds in (5, 35, 65)]
    assert asked == [5.0, 30.0, 30.0, 30.0]


def test_nothing_is_told_of_an_import_that_is_soon_over(
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (folder / "app.py").write_text("import perdure as df\napp = df.App()\n")
    before = threading.active_count()
    with caplog.at_level(logging.INFO, "perdure.cli"), told_while_importing("app.py"):
        load_app(str(folder / "app.py"))
    for thread in threading.enumerate():
        if thread.name == "perdure-import":
            thread.join(60)

    assert not [record for record in caplog.records if record.name == "perdure.cli"]
    assert threading.active_count() <= before
