"""Client functions that a schedule or a queue calls, and the orchestrations behind them."""

from perdure.triggers.definitions import Queue, Schedule, with_built_ins
from perdure.triggers.queue_admin import DeadLetter, Queues, QueueStatus
from perdure.triggers.schedule_admin import Schedules, ScheduleStatus
from perdure.triggers.schedule_orchestration import Tick
from perdure.triggers.serving import serving
from perdure.triggers.source import QueueSource, Received

__all__ = [
    "DeadLetter",
    "Queue",
    "QueueSource",
    "QueueStatus",
    "Queues",
    "Received",
    "Schedule",
    "ScheduleStatus",
    "Schedules",
    "Tick",
    "serving",
    "with_built_ins",
]
