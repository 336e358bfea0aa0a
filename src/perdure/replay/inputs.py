"""The parameter that takes a function's input: what fills it when an input came, and when none did.

A call without an input has no body, and then the parameter's own default is used, as in a call in Python. `null` is
an input; it is taken for none only where the parameter does not take None, since Azure's clients and calls recorded
by earlier versions write no other.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Final

from msgspec import Raw

from perdure.errors import PayloadError
from perdure.model import payload
from perdure.model.events import ABSENT

NO_DEFAULT: Final = inspect.Parameter.empty
NO_INPUT: Any = type("NoInput", (), {"__repr__": lambda _: "no input", "__bool__": lambda _: False})()
"""The default of parameters that hand on an input: nothing was given, not even None."""
_NULL = Raw(b"null")


def input_body(value: Any) -> Raw:
    """The body of an input; none for no input. Raises PayloadError."""
    return ABSENT if value is NO_INPUT else Raw(payload.encode(value))


def given(body: Raw | None) -> Any:
    """What to hand on of a body that came from outside: none is no input, whereas `null` is one."""
    return NO_INPUT if body is None else body


@dataclass(frozen=True)
class Input:
    """The parameter that takes a function's input."""

    name: str
    type: Any = Any
    default: Any = NO_DEFAULT

    def read(self, body: Raw) -> Any:
        """What to pass. Raises PayloadError, whose message is a clause, for a body that does not fit."""
        sent = bytes(body)
        if sent in (b"", b"null"):
            return self._without(sent)
        return payload.decode(body, self.type)

    def _without(self, sent: bytes) -> Any:
        takes_none = payload.fits(_NULL, self.type) is None
        if self.default is not NO_DEFAULT and not (sent and takes_none):
            return self.default
        if takes_none:
            return payload.decode(_NULL, self.type)
        raise PayloadError(
            f"it takes {payload.title(self.type)}, and got {'None' if sent else 'no input'}; "
            "give the call an input, or the parameter a default"
        )


__all__ = ["NO_DEFAULT", "NO_INPUT", "Input", "given", "input_body"]
