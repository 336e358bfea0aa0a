"""The number of each error. A page of the documentation explains the error: docs/errors/PDR-020.md.

The table maps the stable `code` of an error, a problem document or a parked instance to its number. The number of a
code never changes. Tracebacks, the command line, problem documents and the reasons of parked instances contain the
number. `tests/docs/test_errors.py` checks that table, errors and pages agree.
"""

from __future__ import annotations

from typing import Final

NUMBERS: Final = {
    # in general
    "perdure-error": "PDR-001",
    "internal": "PDR-002",
    "http": "PDR-003",
    # your code and your data
    "payload": "PDR-010",
    "event-refused": "PDR-011",
    "registration": "PDR-012",
    "function-not-found": "PDR-013",
    "invalid-instance-id": "PDR-014",
    "source": "PDR-015",
    "extra-missing": "PDR-016",
    "setting": "PDR-017",
    "hosted-app": "PDR-018",
    # instances
    "instance-not-found": "PDR-020",
    "instance-exists": "PDR-021",
    "illegal-transition": "PDR-022",
    "instance-finished": "PDR-023",
    # the engine
    "overloaded": "PDR-030",
    "engine-stopped": "PDR-031",
    "outcome-unknown": "PDR-032",
    "timeout": "PDR-033",
    # the store
    "store": "PDR-040",
    "store-full": "PDR-041",
    "store-in-use": "PDR-042",
    "store-too-new": "PDR-043",
    "store-unusable": "PDR-044",
    "commit-refused": "PDR-045",
    "fence-lost": "PDR-046",
    "wrong-encryption-key": "PDR-047",
    "decryption-failed": "PDR-048",
    "commit-conflict": "PDR-049",
    # inside orchestrators
    "task-failed": "PDR-050",
    "non-determinism": "PDR-051",
    "orchestrator": "PDR-052",
    "foreign-await": "PDR-053",
    "task-cancelled": "PDR-054",
    "activity-cancelled": "PDR-055",
    "executor-failed": "PDR-056",
    "message-refused": "PDR-057",
    "misfit": "PDR-058",
    # signals of the engine
    "engine-signal": "PDR-060",
    "evicted": "PDR-061",
    "function-missing": "PDR-062",
    "interrupted": "PDR-063",
    # parked instances, by the kind in their reason
    "parked-nondeterminism": "PDR-070",
    "parked-poison": "PDR-071",
    "parked-no_worker": "PDR-072",
    "parked-misfit": "PDR-073",
    "parked-damaged": "PDR-076",
    # HTTP calls of applications
    "http-call": "PDR-080",
    "http-denied": "PDR-081",
    "http-status": "PDR-082",
    "secret-not-found": "PDR-083",
    # access
    "forbidden": "PDR-090",
    "unauthenticated": "PDR-091",
    "link-spent": "PDR-092",
    "rate-limited": "PDR-093",
    "key-not-found": "PDR-094",
    "idempotency-conflict": "PDR-095",
    # people's tasks
    "task-closed": "PDR-096",
    "task-held": "PDR-097",
    "task-refused": "PDR-098",
}


def number_of(code: str) -> str:
    """The number of a code; "" for a code without a number."""
    return NUMBERS.get(code, "")


def note_of(code: str) -> str:
    """The last line of a traceback; "" for a code without a number."""
    number = NUMBERS.get(code)
    return f"{number}: explained in the documentation, errors/{number}" if number else ""
