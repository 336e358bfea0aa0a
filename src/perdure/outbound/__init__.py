"""Calls to other systems over HTTP: the policy, sending, and the built-in functions behind `call_http`."""

from perdure.outbound.functions import with_built_ins
from perdure.outbound.policy import HttpPolicy
from perdure.outbound.sending import Sender
from perdure.outbound.webhooks import Webhook

__all__ = ["HttpPolicy", "Sender", "Webhook", "with_built_ins"]
