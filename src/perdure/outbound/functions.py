"""The built-in functions of every application, registered under reserved names."""

from __future__ import annotations

from perdure.engine.functions.registry import Activity, Orchestrator, Registry
from perdure.errors import HttpStatusError
from perdure.model.http_calls import HTTP_ACTIVITY, HTTP_POLLING, HttpRequest, HttpResponse
from perdure.outbound import webhooks
from perdure.outbound.polling import polling
from perdure.outbound.sending import Sender
from perdure.outbound.webhooks import Webhook
from perdure.replay.activity_context import ActivityContext


async def http_activity(request: HttpRequest, context: ActivityContext, sender: Sender) -> HttpResponse:
    """Send one request. A status counts as a failure only if the call lists it and attempts are left."""
    response = await sender.send(request, context.idempotency_key)
    attempts_left = not request.attempts or context.attempt < request.attempts
    if response.status_code in request.retry_statuses and attempts_left:
        raise HttpStatusError(f"{request.method} {request.uri} returned status {response.status_code}")
    return response


ACTIVITIES = (Activity(HTTP_ACTIVITY, http_activity),)
ORCHESTRATORS = (Orchestrator(HTTP_POLLING, polling), webhooks.ORCHESTRATOR)


def with_built_ins(registry: Registry) -> Registry:
    """A copy of the registry with the built-in functions added."""
    joined = Registry()
    joined.include(registry)
    joined.adopt(registry)
    joined.supplement((*ACTIVITIES, *ORCHESTRATORS))
    joined.supplement(one.activity for one in registry.webhooks if isinstance(one, Webhook))
    return joined
