"""The simulated activities, shared by the pool and the reference."""

from __future__ import annotations

from typing import Any

from simulation.program import Call

ACTIVITIES = (
    "work",
    *(f"work-{number}-{drawn:02x}" for number in range(3) for drawn in range(256)),
    "@slow@",
    "@slow@async",
)
"""The names of all that may be run outside a loop."""
POOL = "gpu"
PAYLOAD = "perdure.errors.PayloadError"
ENDS = {
    "": "Flaky",
    "exits": "SystemExit",
    "task exits": "SystemExit",
    "cancels itself": "asyncio.exceptions.CancelledError",
}
"""How an attempt that fails ends, and the type of its failure then."""


def pool_of(name: str) -> str:
    """The named pool that an activity belongs to, in worlds that have one."""
    return POOL if name.startswith("work-1") else ""


def input_of(call: Call) -> dict[str, Any]:
    """The input of an activity."""
    final = {"final": call.final} if call.final else {}
    ends = {"ends": call.ends} if call.ends else {}
    return {"key": call.key, "fails": call.fails, "fatal": call.fatal, "pad": call.pad, **final, **ends}


def answer_of(asked: dict[str, Any], attempt: int) -> tuple[Any, str]:
    """The result of one attempt and "", or None and the type of its failure."""
    if asked.get("final"):
        return None, PAYLOAD
    if attempt <= asked["fails"]:
        return None, ENDS[asked.get("ends", "")] if not asked["fatal"] else "Fatal"
    return {"v": asked["key"] * 31 + 7, "pad": "x" * asked["pad"]}, ""


def attempts_of(call: Call) -> int:
    """How many attempts a call may make in all."""
    if call.final or (call.fatal and call.fails):
        return 1
    return min(call.fails + 1, max(call.attempts, 1))


def pause_after(call: Call, attempt: int) -> int:
    """Microseconds between the failure of an attempt and the next one."""
    return int(round(call.first * 1_000_000) * call.backoff ** (attempt - 1))
