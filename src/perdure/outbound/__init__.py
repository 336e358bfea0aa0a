"""Calling other systems over HTTP: what may be called, how it is sent, and the built-in functions that do it."""

from perdure.outbound.functions import with_built_ins
from perdure.outbound.policy import HttpPolicy
from perdure.outbound.sending import Sender

__all__ = ["HttpPolicy", "Sender", "with_built_ins"]
