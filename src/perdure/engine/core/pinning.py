"""Pinning: the code version of an instance, set by its first step or a later execution."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perdure.engine.core.batch import OpenBatch
    from perdure.engine.core.instance import Instance
    from perdure.engine.core.ports import OrchestratorEntry


def entry_of(batch: OpenBatch, instance: Instance) -> OrchestratorEntry | None:
    """The code that a running instance is pinned to, if this worker has it."""
    return batch.functions.orchestrator(instance.name, instance.version)


def entry_to_begin(batch: OpenBatch, instance: Instance, version: str = "") -> OrchestratorEntry | None:
    """The code of a new execution: this version, else the instance's, else the default."""
    return batch.functions.orchestrator(instance.name, version or instance.version or None)


def pin(batch: OpenBatch, instance: Instance, version: str) -> None:
    """Pin the instance to this version."""
    if version and version != instance.version:
        instance.version = version
        if not instance.is_new:
            batch.rows.versions.append((instance.no, version))


__all__ = ["entry_of", "entry_to_begin", "pin"]
