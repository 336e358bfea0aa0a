"""Webhooks: signed, retried requests that tell other systems of tasks and instances.

The engine starts one built-in orchestration for each event and receiver, in the transaction that causes the event
(`engine/core/announcing.py`). Its activity signs the event by the scheme of Standard Webhooks, and sends it under the
application's `HttpPolicy`. Headers, payload and signature are public, and never change within a version.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import os
import re
from collections.abc import Collection, Generator
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from perdure.engine.client.client import Client
from perdure.engine.functions.registry import Activity, Orchestrator
from perdure.errors import HttpDenied, HttpStatusError, RegistrationError, SecretNotFound, TaskFailedError
from perdure.model.announcements import DELIVERY, KINDS, VERSION, Delivery, Subscription
from perdure.model.durations import Seconds, micros, moment
from perdure.model.http_calls import HttpRequest, Secret, check_uri
from perdure.model.retry import RetryPolicy
from perdure.outbound.policy import HttpPolicy
from perdure.outbound.secrets import look_up
from perdure.outbound.sending import Sender
from perdure.replay.context import OrchestrationContext
from perdure.replay.task import Task

GONE: Final = 410
AT_A_TIME: Final = 8  # requests to one receiver: a slow one delays only its own events
PREFIX: Final = "whsec_"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,49}")
log = logging.getLogger("perdure.webhooks")


@dataclass(frozen=True, init=False)
class Webhook(Subscription):
    """A receiver of events about tasks and instances, for `App(webhooks=[...])`.

    A delivery is repeated until the receiver answers with a status 2xx: after 5 seconds, 10 seconds, and so on up to
    an hour, until `give_up_after`. A receiver that answers 410 gets the event no more. Each event is delivered at
    least once, in any order, and has the same `webhook-id` each time.

    Parameters:
        url: the address, reached under the application's `HttpPolicy`.
        events: the kinds of events, such as "task.created". Default: all.
        secret: signs each request. A value that begins with `whsec_` is base64 after it, as Standard Webhooks has
            it; any other value is used as it is.
        name: a short name that stays the same when the address changes. Default: the host of the address.
        give_up_after: for how long a delivery is repeated, in seconds or as a timedelta.
        due_soon: how long before its deadline a task is due soon, in seconds or as a timedelta.
        details: whether events also contain the task's facts, the instance's output, and messages of failures.

    Raises RegistrationError for an invalid address, event or name.
    """

    url: str = ""
    secret: Secret = field(default_factory=lambda: Secret("WEBHOOK_SECRET"))
    give_up_after: Seconds = timedelta(days=3)

    def __init__(
        self,
        url: str,
        *,
        secret: Secret,
        events: Collection[str] | None = None,
        name: str = "",
        give_up_after: Seconds = timedelta(days=3),
        due_soon: Seconds = timedelta(hours=4),
        details: bool = False,
    ) -> None:
        kinds = frozenset(KINDS if events is None else _checked(events))
        try:
            check_uri(url)
        except (TypeError, ValueError) as error:
            raise RegistrationError(f"Webhook: {error}") from None
        if not isinstance(secret, Secret):
            raise RegistrationError('Webhook.secret must be a Secret, such as df.Secret("WEBHOOK_SECRET")')
        if micros(give_up_after) <= 0 or micros(due_soon) < 0:
            raise RegistrationError(
                "Webhook: give_up_after must be more than 0 seconds, and due_soon not negative"
            )
        named = name or _host_of(url)
        if not NAME.fullmatch(named):
            raise RegistrationError(
                f"Webhook name {named!r} is invalid: it must have 1 to 50 letters, digits, dots, dashes and "
                "underscores"
            )
        super().__init__(named, kinds, micros(due_soon), details)
        object.__setattr__(self, "url", url)
        object.__setattr__(self, "secret", secret)
        object.__setattr__(self, "give_up_after", give_up_after)

    @property
    def activity(self) -> Activity:
        """The activity that sends one request to this receiver."""

        async def send(delivery: Delivery, client: Client, sender: Sender) -> str:
            return await _send(self, delivery, client, sender)

        retry = RetryPolicy(
            5.0,
            max_attempts=0,
            backoff=2.0,
            max_interval=3_600.0,
            max_elapsed=self.give_up_after,
            jitter=0.2,
            non_retryable=(HttpDenied,),
        )
        return Activity(activity_name(self.name), send, retry=retry, concurrency=AT_A_TIME)


def activity_name(webhook: str) -> str:
    """The activity of a receiver."""
    return f"{DELIVERY}:{webhook}"


def delivering(context: OrchestrationContext, delivery: Delivery) -> Generator[Task[Any], Any, str]:
    """The built-in orchestrator of one event for one receiver."""
    try:
        outcome: str = yield context.call_activity(activity_name(delivery.webhook), delivery, str)
    except TaskFailedError as error:
        if not context.is_replaying:
            log.error(
                "webhook %s: gave up on %s event %s of instance %s: %s. A rewind of %s delivers it again",
                delivery.webhook,
                delivery.event.kind,
                delivery.event.id,
                delivery.event.data.get("instanceId"),
                error,
                context.instance_id,
            )
        raise
    return outcome


ORCHESTRATOR: Final = Orchestrator(DELIVERY, delivering)


def checked_webhooks(webhooks: Collection[Webhook]) -> tuple[Webhook, ...]:
    """The receivers of an application. Raises RegistrationError for two with one name."""
    names = [one.name for one in webhooks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RegistrationError(f"two webhooks are named {twice[0]!r}: give one of them name=...")
    return tuple(webhooks)


async def _send(webhook: Webhook, delivery: Delivery, client: Client, sender: Sender) -> str:
    """Sign and send. Returns what happened in a word; raises an error for a delivery to repeat."""
    if delivery.while_open and await client.get_task(delivery.while_open) is None:
        return "no longer open"
    body = body_of(delivery, client.task_hub)
    key = await _key(webhook.secret, sender.policy)
    now = client.gateway.now() // 1_000_000  # the engine's clock, so that a virtual clock applies
    headers = {
        "Content-Type": "application/json",
        "webhook-id": delivery.event.id,
        "webhook-timestamp": str(now),
        "webhook-signature": f"v1,{signature(key, delivery.event.id, now, body)}",
    }
    request = HttpRequest("POST", webhook.url, headers, body, "text", idempotent=False)
    response = await sender.send(request, "")
    if response.status_code == GONE:
        raise HttpDenied(f"the webhook {webhook.name} answered 410: it wants this event no more")
    if not response.ok:
        raise HttpStatusError(f"the webhook {webhook.name} answered with status {response.status_code}")
    return "delivered"


def body_of(delivery: Delivery, hub: str) -> str:
    """The body of a request: the same bytes in each attempt."""
    event = delivery.event
    data = {**event.data, **event.details}
    said = {
        "id": event.id,
        "type": event.kind,
        "version": VERSION,
        "timestamp": f"{moment(event.at):%Y-%m-%dT%H:%M:%S.%fZ}",
        "hub": hub,
        "data": data,
    }
    return msgspec.json.encode(said).decode()


def signature(key: bytes, event_id: str, timestamp: int, body: str) -> str:
    """The signature of Standard Webhooks: HMAC-SHA256 over id, timestamp and body, in base64."""
    signed = f"{event_id}.{timestamp}.{body}".encode()
    return base64.b64encode(hmac.digest(key, signed, sha256)).decode()


async def _key(secret: Secret, policy: HttpPolicy) -> bytes:
    """The bytes that sign, from the application's secrets. Raises SecretNotFound."""
    source = os.environ if policy.secrets is None else policy.secrets
    found = await look_up(source, secret.name)
    if not isinstance(found, str) or not found:
        raise SecretNotFound(f"there is no secret {secret.name!r} on this worker. The webhook was not sent")
    if not found.startswith(PREFIX):
        return found.encode()
    try:
        return base64.b64decode(found.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise SecretNotFound(
            f"the secret {secret.name!r} begins with {PREFIX}, but what follows is not base64. The webhook was "
            "not sent"
        ) from None


def _checked(events: Collection[str]) -> Collection[str]:
    if isinstance(events, str):
        raise RegistrationError("Webhook.events must be a list of kinds, not a string")
    unknown = sorted(set(events) - set(KINDS))
    if unknown:
        raise RegistrationError(f"Webhook.events: {unknown[0]!r} is none of {', '.join(KINDS)}")
    return events


def _host_of(url: str) -> str:
    return (urlsplit(url).hostname or "")[:50]


__all__ = ["ORCHESTRATOR", "Webhook", "activity_name", "body_of", "checked_webhooks", "signature"]
