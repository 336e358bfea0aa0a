"""Exceptions raised in a thread from outside, to stop its code.

CPython delivers such an exception at the thread's next call or backward jump. A single exception is easily
swallowed by a bare `except:` or by `finally: continue`. The class made by `_insisting` therefore raises itself
again, at the very next call or jump, whenever an instance is created, until `disarm` is called. Each exception
leaves one loop or `try` of the code, so Python code ends whatever it catches; a call into C that does not
return cannot be stopped this way. CPython 3.12 counts a backward jump as part of the `try` before its target,
where the same exception is caught for ever. There `line_events` raises at each line of the running code instead,
and a single exception reaches functions that the code calls later.

The caller of such code must call `disarm` first when the code returns: `disarm` is a call into C, before which
nothing is delivered. A Python function would be interrupted itself. `calm` follows: up to CPython 3.12 the
interpreter keeps looking for a withdrawn exception, in every thread, until one is delivered. With 3.11 a
process then hangs under a debugger or a coverage tool; with 3.12 each function call is slower.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterable
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

from perdure.engine.line_events import LineEvents
from perdure.errors import EngineSignal, Interrupted
from perdure.replay.fiber import is_suspended

if TYPE_CHECKING:
    from perdure.replay.decide import Execution
    from perdure.replay.fiber import Body

ROUNDS: Final = 100  # interruptions of one body; each makes it leave a `try` or a `yield`

_NAME: Final = ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
_raise = ctypes.PYFUNCTYPE(None, ctypes.c_ulong, ctypes.py_object)(_NAME)
_clear = ctypes.PYFUNCTYPE(None, ctypes.c_ulong, ctypes.c_void_p)(_NAME)


class CutShort(EngineSignal):
    """The code was interrupted because the engine stops. It is not at fault and runs again after a restart."""


class _Last(BaseException):
    """Raised and caught by `Interruptions.calm`."""


class Interruptions:
    """Interrupts the code of one thread."""

    __slots__ = ("_insisting", "_lines", "_thread_id", "disarm")

    def __init__(self, thread_id: int) -> None:
        self._thread_id = thread_id
        self._insisting = _insisting(thread_id)
        self._lines = LineEvents(thread_id)
        self.disarm: Callable[[], object] = partial(_clear, thread_id, None)

    def ask(self) -> None:
        _raise(self._thread_id, Interrupted)

    def insist(self, codes: Iterable[CodeType] = ()) -> None:
        """Raise it at each step of the thread until `disarm` and `calm` are called. `codes` is the code that runs."""
        at_lines = self._lines.raise_in(codes)
        _raise(self._thread_id, Interrupted if at_lines else self._insisting)

    def calm(self) -> None:
        """On the thread itself, after `disarm`: deliver a harmless exception, which ends the interpreter's
        search.
        """
        self._lines.stop()
        try:
            _raise(self._thread_id, _Last)
            while True:
                pass
        except _Last:
            pass

    def finish(self, body: Body) -> None:
        """On the thread itself: end a body that did not close."""
        disarm = self.disarm
        for _ in range(ROUNDS):
            try:
                body.throw(self._insisting)
            except BaseException:
                disarm()
            if not is_suspended(body):
                return


def put_away(execution: Execution) -> None:
    """Close the code of an execution, even if the code swallows the exception."""
    stubborn = execution.close()
    if stubborn:
        interruptions = Interruptions(threading.get_ident())
        for body in stubborn:
            interruptions.finish(body)
        interruptions.calm()


def give_back_free_memory() -> None:
    """Return free memory of the C library to the system, if the library supports it."""
    trim = getattr(ctypes.pythonapi, "malloc_trim", None)
    if trim is not None:
        trim(0)


def _insisting(thread_id: int) -> type[Interrupted]:
    """An exception class whose instances, when created, raise the next one in the thread."""
    kind: Any = type("Interrupted", (Interrupted,), {"__module__": Interrupted.__module__})
    kind.__init__ = staticmethod(partial(_raise, thread_id, kind))
    return kind  # type: ignore[no-any-return]


__all__ = ["CutShort", "Interruptions", "give_back_free_memory", "put_away"]
