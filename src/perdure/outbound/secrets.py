"""The values behind `Secret`: looked up when a request is sent, and redacted from responses and errors."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from perdure.errors import SecretNotFound
from perdure.model.http_calls import HttpRequest, SecretUse
from perdure.outbound.policy import HttpPolicy, Lookup

SHORT = 5  # characters; redacting shorter values would also hit other text
BLOT = "[secret]"


@dataclass(frozen=True)
class Revealed:
    """The secrets of one request: the text that is sent for each, and the values to redact."""

    sent: dict[SecretUse, str]
    values: tuple[str, ...]

    def blot(self, text: str) -> str:
        """Redact the secrets in a text, because a server or an error may repeat them."""
        for value in self._forms():
            text = text.replace(value, BLOT)
        return text

    def blot_bytes(self, body: bytes) -> bytes:
        """Redact the secrets in a body."""
        for value in self._forms():
            body = body.replace(value.encode(), BLOT.encode())
        return body

    def _forms(self) -> Iterable[str]:
        """The values in plain form and as JSON strings, the longest first."""
        forms = {form for value in self.values for form in (value, json.dumps(value)[1:-1])}
        return sorted((form for form in forms if len(form) >= SHORT), key=len, reverse=True)


async def reveal(request: HttpRequest, policy: HttpPolicy) -> Revealed:
    """Look up the secrets of a request. Raises SecretNotFound."""
    place = "the environment" if policy.secrets is None else "HttpPolicy.secrets"
    known: dict[str, str] = {}
    for name in dict.fromkeys(use.name for use in request.secrets):
        found = await look_up(os.environ if policy.secrets is None else policy.secrets, name)
        known[name] = _usable(found, name, place)
    sent = {use: use.form.replace("{}", known[use.name], 1) for use in request.secrets}
    return Revealed(sent, tuple(known.values()))


async def look_up(source: Mapping[str, str] | Lookup, name: str) -> Any:
    """The value that a mapping or a function has for a name, or None."""
    if isinstance(source, Mapping):
        return source.get(name)
    found = source(name)
    return await found if inspect.isawaitable(found) else found


def _usable(found: Any, name: str, place: str) -> str:
    if not isinstance(found, str) or not found:
        raise SecretNotFound(
            f"there is no secret {name!r} in {place} of this worker. The request was not sent"
        )
    if not found.isprintable():
        raise SecretNotFound(
            f"the secret {name!r} contains a line break or another control character. The request was not sent"
        )
    return found
