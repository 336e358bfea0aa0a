"""perdure: Durable Functions for Python, on SQLite or PostgreSQL. `import perdure as df`."""

from typing import TYPE_CHECKING, Any

from perdure.app import App, DFApp
from perdure.blueprint import Blueprint
from perdure.connection import connect
from perdure.engine.activities import Concurrency
from perdure.engine.activities.executors.factories import ProcessPool, process_pool
from perdure.engine.client.bulk import BulkOutcome
from perdure.engine.client.client import Client, DurableFunctionsClient, DurableOrchestrationClient
from perdure.engine.client.sync_client import SyncClient
from perdure.engine.client.tasks import OpenTask
from perdure.engine.core.ports import Limits
from perdure.engine.engine import Settings
from perdure.engine.upkeep.retention import Retention
from perdure.errors import (
    ActivityCancelled,
    DecryptionFailed,
    EngineStopped,
    EventRefused,
    ExecutorFailed,
    ExtraMissing,
    ForeignAwaitError,
    FunctionNotFound,
    HttpCallError,
    HttpDenied,
    HttpStatusError,
    IdempotencyConflict,
    IllegalTransition,
    InstanceExists,
    InstanceFinished,
    InstanceNotFound,
    InvalidInstanceId,
    NonDeterminismError,
    OrchestratorError,
    OutcomeUnknown,
    Overloaded,
    PayloadError,
    PerdureError,
    RegistrationError,
    SecretNotFound,
    SettingError,
    StoreError,
    StoreFull,
    StoreInUse,
    StoreTooNew,
    StoreUnusable,
    TaskCancelled,
    TaskClosed,
    TaskFailedError,
    TaskHeld,
    TaskRefused,
    WrongEncryptionKey,
)
from perdure.failure import Failure
from perdure.http.proxy_identity import proxy_identity
from perdure.maintenance import Backup, Copy, backup, copy, rekey
from perdure.model.access import Identity
from perdure.model.entities import EntityId, EntityPage, EntityState
from perdure.model.http_calls import HttpResponse, ManagedIdentityTokenSource, Secret
from perdure.model.human_tasks import Person
from perdure.model.instances import (
    DurableOrchestrationStatus,
    OrchestrationRuntimeStatus,
    OrchestrationStatus,
    Page,
    PurgeHistoryResult,
    RuntimeStatus,
)
from perdure.model.retry import RetryOptions, RetryPolicy
from perdure.model.statistics import HubInterval, HubOutcomes, HubStatistics
from perdure.outbound import HttpPolicy, Webhook
from perdure.replay.activity_context import ActivityContext
from perdure.replay.context import DurableOrchestrationContext, OrchestrationContext
from perdure.replay.entity import DurableEntityContext, EntityContext
from perdure.replay.entity_calls import EntityLock
from perdure.replay.human_tasks import HumanTask, Reminder
from perdure.replay.task import Task, TaskState, TimerTask
from perdure.store.encryption import Encryption
from perdure.telemetry.log_context import LogContext
from perdure.triggers import DeadLetter, Queues, QueueSource, Received, Schedules, Tick
from perdure.version import __version__ as __version__

__all__ = [
    "DeadLetter",
    "QueueSource",
    "Queues",
    "Received",
    "Schedules",
    "Tick",
    "ActivityCancelled",
    "ActivityContext",
    "App",
    "Backup",
    "BulkOutcome",
    "Blueprint",
    "Client",
    "Concurrency",
    "Copy",
    "DFApp",
    "DurableEntityContext",
    "DurableFunctionsClient",
    "DurableOrchestrationClient",
    "DurableOrchestrationContext",
    "DurableOrchestrationStatus",
    "DecryptionFailed",
    "Encryption",
    "EngineStopped",
    "EntityContext",
    "EntityId",
    "EntityLock",
    "EntityPage",
    "EntityState",
    "ExecutorFailed",
    "EventRefused",
    "ExtraMissing",
    "Failure",
    "ForeignAwaitError",
    "FunctionNotFound",
    "HttpCallError",
    "HttpDenied",
    "HttpPolicy",
    "HttpResponse",
    "HttpStatusError",
    "HubInterval",
    "HubOutcomes",
    "HubStatistics",
    "HumanTask",
    "IdempotencyConflict",
    "Identity",
    "IllegalTransition",
    "InstanceExists",
    "InstanceFinished",
    "InstanceNotFound",
    "InvalidInstanceId",
    "Limits",
    "LogContext",
    "ManagedIdentityTokenSource",
    "NonDeterminismError",
    "OpenTask",
    "OrchestrationContext",
    "OrchestrationRuntimeStatus",
    "OrchestrationStatus",
    "OrchestratorError",
    "OutcomeUnknown",
    "Overloaded",
    "Page",
    "PayloadError",
    "PerdureError",
    "Person",
    "PurgeHistoryResult",
    "ProcessPool",
    "RegistrationError",
    "Reminder",
    "Retention",
    "RetryOptions",
    "RetryPolicy",
    "RuntimeStatus",
    "Secret",
    "SecretNotFound",
    "SettingError",
    "Settings",
    "StoreError",
    "StoreFull",
    "StoreInUse",
    "StoreTooNew",
    "StoreUnusable",
    "SyncClient",
    "Task",
    "TaskCancelled",
    "TaskClosed",
    "TaskHeld",
    "TaskRefused",
    "TaskFailedError",
    "TaskState",
    "TimerTask",
    "Webhook",
    "WrongEncryptionKey",
    "backup",
    "connect",
    "process_pool",
    "proxy_identity",
    "copy",
    "rekey",
]

if not TYPE_CHECKING:  # otherwise a type checker would accept every name

    def __getattr__(name: str) -> Any:
        """Raise AttributeError. For a name of Azure's that perdure does not have, it says what to use instead."""
        advice = {
            "Orchestrator": "put @app.orchestrator on the function, or name the function itself in its function.json",
            "Entity": "put @app.entity on the function or class, or name the function itself in its function.json",
        }.get(name, "")
        raise AttributeError(
            f"module 'perdure' has no attribute {name!r}" + (f": {advice}" if advice else "")
        )
