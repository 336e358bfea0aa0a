"""Sources of executors: an executor, a function that creates one, or a generator that also cleans up.

An executor created here belongs to one running engine and ends with it; an executor passed ready-made belongs
to its owner. Only an executor that can be created again survives the death of a worker process.
"""

from __future__ import annotations

import inspect
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from perdure.engine.functions.callables import is_same, where
from perdure.engine.functions.registry import Activity
from perdure.errors import RegistrationError

Source = Executor | Callable[[], Executor] | Callable[[], Iterator[Executor]]


@dataclass(frozen=True, eq=False)
class ProcessPool:
    """Creates a pool of worker processes for each running engine. See `process_pool`."""

    workers: int

    def __call__(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.workers, mp_context=multiprocessing.get_context("spawn"), initializer=prepare_worker
        )

    def __str__(self) -> str:
        return f"process pool of {self.workers}"


def process_pool(workers: int | None = None) -> ProcessPool:
    """Worker processes for CPU-bound activities: `@app.activity(executor=df.process_pool(workers=4))`.

    Activities with the same pool share it. Processes are spawned (never forked) when first needed, end with the
    engine, and are replaced when one dies.

    Parameters:
        workers: how many processes; default one for each core.

    Raises RegistrationError unless `workers` is 1 or more.
    """
    count = os.cpu_count() or 1 if workers is None else workers
    if count < 1:
        raise RegistrationError(f"process_pool(workers={workers!r}): a pool needs at least one process")
    return ProcessPool(count)


def prepare_worker() -> None:
    """In a new worker process: end with the parent process, and leave Ctrl-C to the parent."""
    with suppress(ValueError, OSError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(
            target=_end_with, args=(parent.sentinel,), name="perdure-parent", daemon=True
        ).start()


def _end_with(sentinel: Any) -> None:
    wait([sentinel])
    os._exit(1)


class Opened:
    """An open executor, and how to close it."""

    def __init__(self, source: Source) -> None:
        self._cleaning: Any = None
        self._context = copy_context()  # a generator's context variables are set and reset in the same one
        self._is_ours = not isinstance(source, Executor)
        self.executor = source if isinstance(source, Executor) else self._context.run(self._make, source)

    def _make(self, source: Callable[[], Any]) -> Executor:
        made = source()
        if inspect.isgenerator(made):
            self._cleaning = made
            made = next(made)
        if not isinstance(made, Executor):
            raise RegistrationError(
                f"{where(source)} returned {type(made).__name__}, not a concurrent.futures.Executor"
            )
        return made

    def close(self, *, wait: bool = True) -> None:
        """Shut down the executor if the engine owns it, and run the code after the generator's `yield`."""
        if self._is_ours:
            self.executor.shutdown(wait=wait)
        if self._cleaning is not None:
            self._context.run(next, self._cleaning, None)


def checked_source(source: Any, function: object) -> Any:
    """A source, or the name of one. Raises RegistrationError for anything else."""
    if source is None or isinstance(source, (str, Executor)) or callable(source):
        return source
    raise RegistrationError(
        f"{where(function)}: executor={source!r} is neither a concurrent.futures.Executor, nor a function that "
        "makes one (such as perdure.process_pool(workers=4)), nor the name of one registered with app.executor"
    )


def check_crossing(function: Any) -> None:
    """Raise RegistrationError for a function that another process cannot import."""
    name = getattr(function, "__qualname__", "")
    if not name or "<" in name:
        what = (
            "a lambda" if "<lambda>" in name else "defined inside another function" if name else "no function"
        )
        raise RegistrationError(
            f"{where(function)}: an activity with an executor is imported by the process that runs it, and this "
            f"one is {what}. Define it with `def` at the top level of a module"
        )


def place_of(activity: Activity) -> str:
    """`module:qualname`, by which another process finds the function. Raises RegistrationError."""
    function = activity.function
    check_crossing(function)
    module = _module_of(function)
    found: Any = sys.modules.get(function.__module__)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is None or not is_same(inspect.unwrap(found), inspect.unwrap(function)):
        raise RegistrationError(
            f"{where(function)}: an activity with an executor is imported by the process that runs it, but "
            f"{module}.{function.__qualname__} is {'not there' if found is None else 'something else'}. Keep it "
            "at the top level of its module, under its own name"
        )
    return f"{module}:{function.__qualname__}"


def _module_of(function: Any) -> str:
    """Its module; that of a script is importable if Python knows it by a name or a file."""
    module = str(function.__module__)
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name)
    if not os.path.exists(getattr(main, "__file__", None) or ""):
        raise RegistrationError(
            f"{where(function)}: it was typed into an interactive session, where no other process finds it. Put "
            "activities with an executor into a file, and import them from there"
        )
    return module
