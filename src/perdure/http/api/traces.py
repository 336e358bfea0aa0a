"""The trace of an instance over the management API, in OTLP's JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.http.api.management import endpoint
from perdure.http.contract import Answer, Contract
from perdure.http.responses import json_response
from perdure.http.routing import client_of
from perdure.http.running_engine import engine_of
from perdure.model.instances import asked_id
from perdure.telemetry.otlp import TraceDocument, document_of
from perdure.telemetry.trees import tree_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from perdure.engine.client.client import Client


async def get_trace(request: Request) -> Response:
    """GET instances/{id}/trace: return the spans of an instance and its sub-orchestrations, as OTLP JSON.

    They are made from history, at any time with the same ids. They contain no inputs, outputs or event data.
    """
    client = client_of(request)
    messages = engine_of(client).settings.telemetry.messages
    return json_response(
        await trace_of(client, request.path_params["id"], client.task_hub, messages=messages)
    )


async def trace_of(client: Client, instance_id: str, hub: str, *, messages: bool) -> TraceDocument:
    """The trace of an instance from the store of this client. `messages`: with the text of errors.

    Raises InvalidInstanceId, InstanceNotFound, DecryptionFailed.
    """
    gateway = client.gateway
    asked_id(instance_id)
    tree = await gateway.read(lambda: tree_of(gateway.store, instance_id, hub, messages=messages))
    return document_of(tree.spans, hub, gateway.now(), left_out=tree.left_out)


ENDPOINTS = (
    endpoint(
        "/instances/{id}/trace",
        "GET",
        get_trace,
        "read",
        Contract((), None, (Answer(200, TraceDocument, "The spans. Those that are open end now."),)),
    ),
)
"""Below /runtime/webhooks/durabletask."""

__all__ = ["ENDPOINTS", "trace_of"]
