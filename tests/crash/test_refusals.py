"""A commit that the store refuses for its data: the one culprit is parked, and nobody else notices (A4)."""

from __future__ import annotations

from typing import Any

import apsw
import pytest

from perdure.errors import CommitRefused
from perdure.store.memory import MemoryStore
from perdure.store.sqlite.store import SqliteStore
from perdure.testing.faults import Fault, FaultPlan
from tests.crash.checks import verify
from tests.crash.sweep import APPS, on_files
from tests.crash.world import TINY, Limits, World, event, start


def world(plan: FaultPlan | None = None, **options: Any) -> World:
    return World(APPS["yield"], MemoryStore("crash"), [plan or FaultPlan()], **options)


def stands(w: World, instance_id: str) -> tuple[str, str]:
    status = w.status(instance_id)
    return status.runtime_status.value, status.reason.partition(":")[0]


@pytest.mark.parametrize("limits", [Limits(), TINY])
def test_commit_refused_for_one_row(limits: Limits) -> None:
    """Of five starts in one batch one is refused: it is parked, with its input; it goes on when it may."""
    w = world(FaultPlan(refused={"c"}), limits=limits)
    answers = w.ask(*(start("sequence", i, 3) for i in "abcde"))
    assert answers == list("abcde")
    assert stands(w, "c") == ("Suspended", "poison") and "rejected" in w.status("c").reason
    assert {stands(w, i) for i in "abde"} == {("Completed", "")}
    assert w.unknown == 0 and "reopen" not in w.calls
    w.kill()  # the next store has nothing against it
    w.manage("resume", "c")
    assert w.status("c").output == [4, 8, 9]
    verify(w)


def test_a_refused_result_parks_its_instance_and_nobody_else() -> None:
    """Results of three instances in one batch. What the activity did is kept until the resume."""
    w = world()
    w.paused = True
    w.ask(*(start("sequence", i, 3) for i in "abc"))
    w.store.plan.refused = {"b"}
    w.paused = False
    w.settle()
    assert stands(w, "b") == ("Suspended", "poison")
    assert {stands(w, i) for i in "ac"} == {("Completed", "")}
    ran = len(w.witness)
    w.store.plan.refused.clear()
    w.manage("resume", "b")
    assert w.status("b").output == [4, 8, 9]
    assert len(w.witness) == ran + 2, "the result was thrown away and its activity run again"
    verify(w)


def test_a_refused_event_parks_its_instance_and_is_kept() -> None:
    w = world()
    w.ask(start("listener", "a", 1), start("listener", "b", 1))
    w.store.plan.refused = {"a"}
    answers = w.ask(event("a", "Go", 1), event("b", "Go", 2))
    assert answers == [None, None]
    assert stands(w, "a") == ("Suspended", "poison")
    assert w.status("b").output == [[2], 2]
    w.store.plan.refused.clear()
    w.kill()
    w.manage("resume", "a")
    assert w.status("a").output == [[1], 2]
    verify(w)


def test_a_refused_timer_parks_its_instance() -> None:
    w = world()
    w.ask(start("sleeper", "a"), start("sleeper", "b"))
    w.store.plan.refused = {"a"}
    w.pass_time(95)
    assert stands(w, "a") == ("Suspended", "poison")
    w.store.plan.refused.clear()
    w.manage("resume", "a")
    w.pass_time(65)
    assert w.status("a").output == w.status("b").output == [True, True]


def test_a_refused_child_parks_whoever_caused_it() -> None:
    """The child's start is part of its parent's step: that is what cannot be written."""
    w = world(FaultPlan(refused={"c-named"}))
    w.ask(start("parent", "c", 1), start("sequence", "a", 1))
    assert stands(w, "c") == ("Suspended", "poison")
    assert w.status("c-named") is None
    assert w.status("a").output == [2, 4, 5]
    w.store.plan.refused.clear()
    w.manage("resume", "c")
    w.pass_time(45)
    assert w.status("c").runtime_status == "Completed"
    verify(w)


def test_an_instance_of_which_nothing_can_be_written_is_refused_to_the_client() -> None:
    """Not even parking it is possible: its client is told, and the loop neither spins nor stops."""
    w = world(FaultPlan(unwritable={"x"}))
    answers = w.ask(start("sequence", "x", 1), start("sequence", "a", 1))
    assert isinstance(answers[0], CommitRefused) and answers[1] == "a"
    before = len(w.calls)
    w.pass_time(100)
    assert set(w.calls[before:]) == {"poll"}
    assert w.status("x") is None and w.status("a").output == [2, 4, 5]


@pytest.mark.parametrize("then", ["resume", "restart"])
def test_a_result_that_cannot_be_kept_parks_its_instance_visibly(then: str) -> None:
    """The body itself is what the store will not have, in a history row and in the inbox alike."""
    with on_files() as make_store:
        store = make_store()
        w = World(APPS["yield"], store, limits=Limits(inline_bytes=10**9))
        w.start("sequence", "a", 1)
        store._writer.limit(apsw.SQLITE_LIMIT_LENGTH, 1_500)  # type: ignore[attr-defined]
        w.paused = True
        w.ask(start("large", "b", "x" * 7), start("listener", "e", 1))
        assert stands(w, "b") == ("Running", "")
        w.paused = False
        w.settle()
        w.raise_event("e", "Go", 1)
        assert w.status("e").output == [[1], 2]
        assert stands(w, "b") == ("Suspended", "poison")
        assert "TooBig" in w.status("b").reason
        if then == "resume":
            store._writer.limit(apsw.SQLITE_LIMIT_LENGTH, 10**9)  # type: ignore[attr-defined]
        else:
            w.kill()
        w.manage("resume", "b")
        w.raise_event("b", "More", "!")
        assert w.status("b").output[:3] == [1_807, 1_807, 1]
        verify(w)
        w.end()


def test_a_refused_row_beside_a_failing_store() -> None:
    """While the culprit is looked for by halves, the store fails as well."""
    for number in range(2, 14):
        w = world(FaultPlan({number: Fault.LOSE_ANSWER}, refused={"c"}))
        answers = w.ask(*(start("sequence", i, 3) for i in "abcde"))
        assert answers == list("abcde")
        assert stands(w, "c") == ("Suspended", "poison")
        assert {stands(w, i) for i in "abde"} == {("Completed", "")}
        w.store.plan.refused.clear()
        w.manage("resume", "c")
        assert w.status("c").output == [4, 8, 9]
        verify(w)


def test_a_parked_instance_can_be_terminated_and_purged() -> None:
    w = world(FaultPlan(refused={"c"}))
    w.start("sequence", "c", 1)
    assert stands(w, "c") == ("Suspended", "poison")
    w.store.plan.refused.clear()
    w.kill()
    assert w.manage("terminate", "c", "no use") is None
    assert w.manage("purge_instance_history", "c") == 1
    w.start("sequence", "c", 3)
    assert w.status("c").output == [4, 8, 9]


def test_a_quarantined_instance_is_parked_whenever_its_turn_comes() -> None:
    """The quarantine of an instance that killed its process lasts beyond the first batch of the next one."""
    w = world()
    w.ask(start("listener", "killer", 1), start("listener", "other", 2))
    w.kill()
    w.process.core.quarantine["killer"] = "the process died three times while its code was running"
    w.raise_event("other", "Go", 1)
    w.raise_event("killer", "Go", 1)
    assert stands(w, "killer") == ("Suspended", "poison")
    w.manage("resume", "killer")
    assert stands(w, "killer") == ("Completed", "")


def test_sqlite_refuses_one_row_for_certain() -> None:
    """What the store says when it refuses: rolled back, and the connection goes on."""
    with on_files() as make_store:
        store = make_store()
        assert isinstance(store, SqliteStore)
        w = World(APPS["yield"], store)
        w.start("sequence", "a", 1)
        store._writer.limit(apsw.SQLITE_LIMIT_LENGTH, 900)  # type: ignore[union-attr]
        answers = w.ask(
            start("listener", "b", 1), start("listener", "x" * 200, 1), start("echo", "c", "y" * 950)
        )
        assert answers[0] == "b" and answers[1] == "x" * 200
        assert w.raise_event("b", "Go", 1) is None
        assert w.status("b").output == [[1], 2]
        assert "reopen" not in w.calls
        w.end()
