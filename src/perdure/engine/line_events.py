"""Exceptions at each line of some code, raised with `sys.monitoring` on CPython 3.12.

There an exception that another thread raises is delivered at a backward jump, which the interpreter counts as part
of the `try` before its target. So a loop around a `try` with a bare `except:` catches every one. An exception at
the first line of the loop, outside the `try`, leaves it. Other versions do not need this, and for them `LineEvents`
does nothing. Nothing is observed, and no code is slower, before `raise_in` and after `stop`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import partial
from threading import get_ident
from types import CodeType
from typing import Final

from perdure.errors import Interrupted

TOOL_IDS: Final = (4, 3)
"""Ids that Python reserves for no kind of tool, such as debuggers."""


class LineEvents:
    """Raises Interrupted in one thread at each line of the code that it is given."""

    __slots__ = ("_codes", "_thread_id", "_tool_id")

    def __init__(self, thread_id: int) -> None:
        self._thread_id = thread_id
        self._tool_id: int | None = None
        self._codes: dict[int, CodeType] = {}  # by identity: equal code may be different code

    if sys.version_info[:2] == (3, 12):

        def raise_in(self, codes: Iterable[CodeType]) -> bool:
            """From now on, raise at each line of this code too. Returns False if other tools have all ids."""
            if self._tool_id is None:
                self._tool_id = self._take_id()
            if self._tool_id is None:
                return False
            for code in codes:
                self._codes[id(code)] = code
                sys.monitoring.set_local_events(self._tool_id, code, sys.monitoring.events.LINE)
            return True

        def stop(self) -> None:
            """Raise nothing more."""
            if self._tool_id is None:
                return
            for code in self._codes.values():
                sys.monitoring.set_local_events(self._tool_id, code, 0)
            sys.monitoring.register_callback(self._tool_id, sys.monitoring.events.LINE, None)
            sys.monitoring.free_tool_id(self._tool_id)
            self._tool_id = None
            self._codes.clear()

        def _take_id(self) -> int | None:
            for tool_id in TOOL_IDS:
                if sys.monitoring.get_tool(tool_id) is None:
                    sys.monitoring.use_tool_id(tool_id, "perdure")
                    at_line = partial(_raise_in, self._thread_id)
                    sys.monitoring.register_callback(tool_id, sys.monitoring.events.LINE, at_line)
                    return tool_id
            return None

    else:

        def raise_in(self, codes: Iterable[CodeType]) -> bool:
            """Other versions of Python need no help."""
            return False

        def stop(self) -> None:
            """Other versions of Python need no help."""


def _raise_in(thread_id: int, code: CodeType, line: int) -> None:
    if get_ident() == thread_id:
        raise Interrupted


__all__ = ["LineEvents"]
