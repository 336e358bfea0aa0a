"""Testing durable functions: a virtual clock, stubs for activities, handwritten histories, a replayer.

    from perdure.testing import environment

    async def test_an_undecided_claim_expires():
        async with environment(app, activities={"assess": lambda claim: {"risk": 0.1}}) as env:
            status = await env.run("claims", {"amount": 5})        # 72 hours in a millisecond
            assert status.output == {"status": "expired"}

Nothing here needs pytest; `perdure.testing.plugin` has fixtures for it.
`perdure.testing.conformance` is for authors of stores.
"""

from perdure.testing.clock import START, SkippingWaiter, VirtualClock
from perdure.testing.environments import DurableEnvironment, environment
from perdure.testing.history import HistoryBuilder
from perdure.testing.idleness import NothingCanHappen
from perdure.testing.recordings import Recording, Verdict, check_recording, read_recording, recording_of
from perdure.testing.replaying import Replayed, check_history, load_history, replay
from perdure.testing.stubs import Call

__all__ = [
    "START",
    "Call",
    "DurableEnvironment",
    "HistoryBuilder",
    "NothingCanHappen",
    "Recording",
    "Replayed",
    "SkippingWaiter",
    "Verdict",
    "VirtualClock",
    "check_history",
    "check_recording",
    "environment",
    "load_history",
    "read_recording",
    "recording_of",
    "replay",
]
