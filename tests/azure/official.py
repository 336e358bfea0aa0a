"""The installed official package, to compare with. It warns while it is imported; that is not our business."""

import importlib
import json
import warnings
from types import ModuleType
from typing import Any


def package() -> ModuleType:
    """azure.durable_functions, 1.7."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("azure.durable_functions")


def module(name: str) -> ModuleType:
    """One of its modules."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"azure.durable_functions.{name}")


def context(instance_id: str, now: str) -> Any:
    """The official context of an instance whose present episode is at `now`."""
    common = {"EventId": -1, "IsPlayed": False, "Timestamp": now}
    started = {"EventType": 0, "Name": "f", "Version": "", "Input": None}
    document = {
        "history": [{"EventType": 12, **common}, {**started, **common}],
        "instanceId": instance_id,
        "isReplaying": False,
        "parentInstanceId": None,
        "input": None,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return package().DurableOrchestrationContext.from_json(json.dumps(document))


def functions() -> ModuleType:
    """azure.functions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("azure.functions")
