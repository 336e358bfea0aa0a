"""Exceptions raised in a thread from outside, for code that has to stop.

CPython delivers such an exception at the next call or backward jump of the thread. One alone is easily swallowed: by
a bare `except:`, or by `finally: continue`. `Insisting` therefore has itself delivered again whenever one is made,
at the very next call or jump, until `disarm` is called. Each leaves one loop or `try` of the code behind, so that
code in Python comes to its end whatever it catches; a call into C that does not return cannot be stopped so. CPython
3.12 counts a backward jump as part of the `try` before its target, where the same exception would be caught for
ever. There a single one in between, at a moment of chance, gets on.

Whoever enters such code must call `disarm` first thing when it comes back: it is a call into C, before which nothing
is delivered. A function in Python would be interrupted itself. `calm` follows it: up to CPython 3.12 the interpreter
keeps looking for an exception that was withdrawn, in every thread, until one is delivered. With 3.11 a process then
hangs when a debugger or a coverage tool traces it; with 3.12 each call of a function is slower.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from perdure.errors import EngineSignal, Interrupted
from perdure.replay.fiber import is_suspended

if TYPE_CHECKING:
    from perdure.replay.decide import Execution
    from perdure.replay.fiber import Body

ROUNDS: Final = 100  # how often a body is told to end; each time it leaves a `try` or a `yield` behind

_NAME: Final = ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
_raise = ctypes.PYFUNCTYPE(None, ctypes.c_ulong, ctypes.py_object)(_NAME)
_clear = ctypes.PYFUNCTYPE(None, ctypes.c_ulong, ctypes.c_void_p)(_NAME)


class CutShort(EngineSignal):
    """Code was interrupted because the engine stops: it is not at fault, and runs again at the next start."""


class _Last(BaseException):
    """Raised and caught by `Interruptions.calm`."""


class Interruptions:
    """What interrupts one thread."""

    __slots__ = ("_insisting", "_thread_id", "disarm")

    def __init__(self, thread_id: int) -> None:
        self._thread_id = thread_id
        self._insisting = _insisting(thread_id)
        self.disarm: Callable[[], object] = partial(_clear, thread_id, None)

    def ask(self) -> None:
        """Raise Interrupted in the thread, once."""
        _raise(self._thread_id, Interrupted)

    def insist(self) -> None:
        """Raise it at each step of the thread until `disarm` is called."""
        _raise(self._thread_id, self._insisting)

    def calm(self) -> None:
        """On the thread itself, after `disarm`: have a harmless exception delivered, the last one looked for."""
        try:
            _raise(self._thread_id, _Last)
            while True:
                pass
        except _Last:
            pass

    def finish(self, body: Body) -> None:
        """On the thread itself: end a body that would not close."""
        disarm = self.disarm
        for _ in range(ROUNDS):
            try:
                body.throw(self._insisting)
            except BaseException:
                disarm()
            if not is_suspended(body):
                return


def put_away(execution: Execution) -> None:
    """Close the code of an execution, also where it swallows that."""
    stubborn = execution.close()
    if stubborn:
        interruptions = Interruptions(threading.get_ident())
        for body in stubborn:
            interruptions.finish(body)
        interruptions.calm()


def give_back_free_memory() -> None:
    """Have the C library return to the system what it keeps free, where it knows how."""
    trim = getattr(ctypes.pythonapi, "malloc_trim", None)
    if trim is not None:
        trim(0)


def _insisting(thread_id: int) -> type[Interrupted]:
    """A class each of whose instances has the next one raised as it is made."""
    kind: Any = type("Interrupted", (Interrupted,), {"__module__": Interrupted.__module__})
    kind.__init__ = staticmethod(partial(_raise, thread_id, kind))
    return kind  # type: ignore[no-any-return]


__all__ = ["CutShort", "Interruptions", "give_back_free_memory", "put_away"]
