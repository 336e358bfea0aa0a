"""The parameter for a function's input, and its value with and without an input.

A call without an input has no body, and the parameter's own default applies, as in Python. `null` is an input.
It counts as no input only if the parameter does not accept None, because Azure's clients, and calls recorded by
earlier versions, send null for no input.
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
"""The default of parameters that pass on an input: no argument, not even None."""
_NULL = Raw(b"null")


def input_body(value: Any) -> Raw:
    """The body of an input; empty for no input. Raises PayloadError."""
    return ABSENT if value is NO_INPUT else Raw(payload.encode(value))


def given(body: Raw | None) -> Any:
    """The input to pass on from an external body: a missing body is no input, but `null` is one."""
    return NO_INPUT if body is None else body


@dataclass(frozen=True)
class Input:
    """The parameter that takes a function's input."""

    name: str
    type: Any = Any
    default: Any = NO_DEFAULT

    def read(self, body: Raw) -> Any:
        """The argument for a body. Raises PayloadError, whose message is a clause, if it does not fit."""
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
            f"it takes {payload.title(self.type)}, but got {('None' if sent else 'no input')}; give the call "
            "an input, or the parameter a default"
        )


__all__ = ["NO_DEFAULT", "NO_INPUT", "Input", "given", "input_body"]
