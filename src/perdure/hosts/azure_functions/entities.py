"""Entities: one operation a call through the JSON of the handle, which is the SDK's public contract."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from msgspec import Raw

from perdure.engine.functions.callables import presented
from perdure.hosts.azure_functions import sdk
from perdure.hosts.azure_functions.asking import body_of
from perdure.replay.entity import EntityContext


class OperationFailed(Exception):
    """An operation of an entity has raised; the text is that of its exception."""


def entity_body(handle: Any) -> Callable[..., Any]:
    """An entity as perdure runs it; a function that is no handle gets perdure's own context."""
    found = sdk.entity_of(handle)
    if not (found.is_handle or found.is_hidden):
        return found.function  # type: ignore[no-any-return]

    def operate(context: EntityContext) -> None:
        _operate(handle, context)

    return presented(operate, found.function, {"context": EntityContext})


def _operate(handle: Any, context: EntityContext) -> None:
    before: Raw | None = context.get_state(None, expected_type=Raw)
    text = None if before is None else bytes(before).decode()
    after = sdk.operated(handle, _document(context, text))
    (outcome,) = after["results"]
    if outcome["isError"]:
        raise OperationFailed(json.loads(outcome["result"]))
    if not after["entityExists"]:
        context.destruct_on_exit()
    elif after["entityState"] != text:
        context.set_state(body_of(after["entityState"]))
    context.set_result(body_of(outcome["result"]))


def _document(context: EntityContext, state: str | None) -> dict[str, Any]:
    operation = {
        "name": context.operation_name,
        "input": json.dumps(bytes(context.get_input(Raw)).decode()),
        "signal": False,
    }
    return {
        "self": {"name": context.entity_name, "key": context.entity_key},
        "exists": state is not None,
        "state": state,
        "batch": [operation],
    }


__all__ = ["OperationFailed", "entity_body"]
