"""The custom status: anything JSON, 16 KiB at most, read back."""

from perdure.replay.context import OrchestrationContext
from perdure.testing import HistoryBuilder, replay
from tests.core.styles import both


def sets_yield(context: OrchestrationContext):
    before = context.custom_status
    context.set_custom_status({"step": context.get_input()})
    yield context.create_timer(0)
    return [before, context.custom_status]


async def sets_async(context: OrchestrationContext):
    before = context.custom_status
    context.set_custom_status({"step": context.get_input()})
    await context.create_timer(0)
    return [before, context.custom_status]


@both(sets_yield, sets_async)
def test_the_status_can_be_read_back(orchestrator):
    history = HistoryBuilder().started("x").timer(0).fired(0)

    assert replay(orchestrator, history).output == [None, {"step": "x"}]


@both(sets_yield, sets_async)
def test_more_than_16_kib_are_refused_where_it_is_set(orchestrator):
    failure = replay(orchestrator, HistoryBuilder().started("x" * 17_000)).failure

    assert failure.type == "perdure.errors.PayloadError"
