"""Entities in histories: replay asks for the same again, and says what is different when it does not."""

import pytest

from perdure import EntityId, NonDeterminismError, OrchestrationContext
from perdure.testing import HistoryBuilder, replay
from tests.core.styles import both

A, B = EntityId("account", "a"), EntityId("account", "b")


def moves_yield(context: OrchestrationContext):
    context.signal_entity(B, "note")
    with (yield context.lock(B, A)):
        balance = yield context.call_entity(A, "get")
        yield context.call_entity(B, "add", balance)
    return balance


async def moves_async(context: OrchestrationContext):
    context.signal_entity(B, "note")
    async with context.lock(B, A):
        balance = await context.call_entity(A, "get")
        await context.call_entity(B, "add", balance)
    return balance


def history() -> HistoryBuilder:
    return (
        HistoryBuilder("main")
        .started()
        .entity_signalled(B, "note")
        .lock_requested(A, B)
        .lock_granted(1, A)
        .lock_granted(1, B)
        .entity_called(A, "get")
        .entity_answered(2, 7)
        .entity_called(B, "add", 7)
        .entity_answered(3)
        .lock_released(1)
        .returned(7)
    )


@both(moves_yield, moves_async)
def test_the_same_code_fits(orchestrator):
    replay(orchestrator, history())


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (HistoryBuilder("main").started().entity_signalled(A, "note"), "@account@a note"),
        (HistoryBuilder("main").started().entity_signalled(B, "forget"), "@account@b forget"),
        (HistoryBuilder("main").started().entity_called(B, "note"), "call the entity"),
        (
            HistoryBuilder("main").started().entity_signalled(B, "note").lock_requested(A),
            "@account@a' (id 1)",
        ),
    ],
)
@both(moves_yield, moves_async)
def test_other_entities_operations_or_locks_do_not(orchestrator, other, said):
    with pytest.raises(NonDeterminismError) as refused:
        replay(orchestrator, other)
    assert said in str(refused.value)
