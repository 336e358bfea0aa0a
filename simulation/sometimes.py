"""Sometimes: the cases a run must have met, or it proves nothing about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

CASES = (
    "a crash before a commit took effect",
    "a crash after a commit took effect",
    "a crash between commit and release",
    "a crash while answers are given",
    "a crash inside recovery",
    "a crash in the middle of user code",
    "a crash in a read of the store",
    "a commit unknown and found done",
    "a commit unknown and found not done",
    "a read of the store failed",
    "the store could not be opened again at once",
    "the store was full and had room again",
    "a culprit isolated by halves",
    "a row refused altogether",
    "user code was interrupted by the watchdog",
    "code did not fit history, and later did",
    "results did not fit the code, and later did",
    "no worker had the orchestrator, and later one did",
    "a minute of the ring ended",
    "the clock went back",
    "the clock leapt ahead",
    "a timer beyond the horizon",
    "an eviction, and a replay after it",
    "user code acted while it was put away",
    "code swallowed what was to end it",
    "a start accepted in the middle of a step",
    "a long step done again in a batch of its own",
    "a batch cut in a cascade, leaving inbox rows",
    "messages that stood in line for the next batch",
    "a next generation deferred",
    "suspended between two generations",
    "an event carried across continue-as-new",
    "an event taken back from a cancelled wait",
    "an event dropped, with a record",
    "an event refused because too many are kept",
    "a person asked, with reminders",
    "a task claimed",
    "a panel decided",
    "a panel decided by several people",
    "an event timed out",
    "an event for one of several waits",
    "an event won against its timeout",
    "messages held and delivered on resume",
    "an activity's result held while suspended",
    "a timer behind a local activity",
    "a client's retry answered from seen",
    "a name that another order had used",
    "a client without an id left in doubt",
    "two starts of one id at once",
    "a delayed start",
    "a finished instance replaced",
    "an instance purged, and its id used again",
    "an instance terminated while suspended",
    "a recursive terminate that reached a child",
    "a child run again under its own id",
    "a child whose id was taken",
    "a finished instance replaced by a child",
    "a retry that succeeded in the end",
    "a retry exhausted",
    "an attempt that exited, or cancelled itself",
    "a failure that is not retried",
    "a payload refused, and not asked for again",
    "a stale activity result dropped",
    "an activity cancelled by its orchestrator",
    "a body that stopped because its call was cancelled",
    "a crash between the commit of a cancellation and the cancelling",
    "a duplicate result dropped",
    "a large body out of line",
    "several generations in one batch",
    "a race won by a later part",
    "an orchestration that failed",
    "an operation that waited for its entity",
    "an operation undone because it failed",
    "an operation that ran outside the loop counted",
    "an operation interrupted by the watchdog",
    "a delayed signal",
    "a lock that was waited for",
    "a critical section entered and left",
    "a holder that ended badly left nothing locked",
    "an entity deleted, with what it held handed on",
    "a failed instance rewound",
    "a trace that was inherited",
    "spans of a history that was read again",
)

SHARED = (
    "a dead worker's counts taken over",
    "a takeover",
    "a takeover that waited for a commit under way",
    "a worker coming back waited for its own commit",
    "a commit landed after its sender had lost the connection",
    "a commit arrived when its incarnation was void",
    "a commit refused by the fence",
    "a commit that took long to arrive",
    "a commit whose answer took long",
    "a worker died with a commit under way",
    "a deadlock, or a serialization failure",
    "two workers raced for one id or operation",
    "an answer of the database lost",
    "the database was away for all",
    "a renewal failed",
    "a renewal under way for long",
    "a lease lost, and noticed",
    "a worker paused beyond its lease, and continued",
    "a loop held up while its lease was prolonged",
    "a worker died",
    "a worker came back as another process",
    "a worker left in good order",
    "a hand-over of partitions",
    "a hand-over with running activities",
    "an entity with an operation outside the loop moved",
    "a start accepted by a worker that does not own it",
    "a request answered by another worker",
    "a request answered after the asker had moved on",
    "a request that no owner answered in time",
    "a client that repeated at another worker",
    "a spilled activity claimed",
    "an activity of a named pool claimed",
    "a claim lost with its worker, and claimed again",
    "a claim of which the answer was lost let go",
    "a result handed in from another worker",
    "a late result dropped",
    "a body of a stale worker ran for nothing",
    "a hint lost",
    "a hint late",
)
SHARED_CASES = (*CASES, *SHARED)

LOG_CASES = (
    "a record without an answer was in the log",
    "a record without an answer was not in the log",
    "a rival took the log in the middle of a commit",
    "an engine waited for the end of its rival",
    "a replica was lost",
    "a machine rebooted",
)


class Sometimes:
    """Counts, per case, in this run."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __call__(self, case: str) -> None:
        assert case in _KNOWN, case
        self.counts[case] += 1


_KNOWN = frozenset((*SHARED_CASES, *LOG_CASES))


def missed(seeds_by_case: Counter[str], cases: Sequence[str] = CASES) -> list[str]:
    """The cases that no seed of a run has met."""
    return [case for case in cases if not seeds_by_case[case]]
