"""Calls to other systems over HTTP: the policy, sending, and the built-in functions behind `call_http`."""

from perdure.outbound.functions import with_built_ins
from perdure.outbound.policy import HttpPolicy
from perdure.outbound.sending import Sender

__all__ = ["HttpPolicy", "Sender", "with_built_ins"]
