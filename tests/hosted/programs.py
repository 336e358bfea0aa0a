"""The orchestrators of the app `traps`, what happens to each, and what each returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

APPS = Path(__file__).parent / "apps"


@dataclass(frozen=True)
class Program:
    """One orchestrator: its input, the events raised to it in order, and its output."""

    name: str
    output: Any
    input: Any = None
    events: tuple[tuple[str, Any], ...] = field(default=())


COMPLETED = (
    Program("never_yielded", ["FIRST", "LATER"]),
    Program("twice", ["ONCE", "ONCE", ["ONCE"], "ONCE"]),
    Program("nested_again", ["A", "B", True]),
    Program("reused_timer", [1, 2], events=(("tick", 1), ("Tick", 2))),
    Program("failed_result", [True, True, True]),
    Program("caught", ["Exception", True]),
    Program("nothing", [None]),
    Program("newest_wait", [True, "a", True, "b"], events=(("GO", "a"), ("go", "b"))),
    Program("cancelled_timers", [True, True, False, True]),
    Program("generations", "done after 3"),
    Program("plain_generations", "plain_generations"),
    Program("failed_inner", [True, True, 2]),
    Program("lists_and_none", ["ForeignAwaitError"] * 3),
    Program("names", ["A", 4, 6, ["told_of_itself", True, True], ["x", True], ["y", True], True]),
    Program("values", [4, "Money", [True] * 8]),
    Program(
        "custom_input",
        [0, 7, None],
        input={"__class__": "Money", "__module__": "function_app", "__data__": "7"},
    ),
    Program("histories", ["HistoryEvent"] * 2),
    Program("retried", [3, True, 6.0]),
    Program("retried_together", [True, True]),
    Program("retried_child", True),
    Program("entities", [5, "broken: counter with@sign", 5, 0]),
    Program("identity", [[True, True], 4, False, True]),
    Program("long_timer", 45),
    Program("many", 2450),
)
