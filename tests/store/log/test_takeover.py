"""Who holds a hub, when another engine takes over, and that nothing of the first one counts afterwards."""

import msgspec
import pytest

from perdure.errors import FenceLost, StoreError, StoreInUse
from perdure.store.log.holding import Holder
from perdure.store.log.records import Epoch, content_of
from tests.store.log.rig import Rig, numbers, start, step


def test_a_second_engine_waits_for_a_sign_of_life_and_names_the_holder(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = rig.engine("a"), rig.engine("b")
    first.open()
    first.publish("http://10.0.0.7:8400", "t")
    alive = iter(range(100))

    def sleep(seconds: float) -> None:
        rig.seconds += seconds
        if next(alive) % 2:
            first.maintain(0)

    rig.sleep = sleep  # type: ignore[method-assign]
    second._patience.sleep = sleep
    with pytest.raises(StoreInUse, match=r"a on .* holds .* serves it at http://10\.0\.0\.7:8400"):
        second.open()
    assert "waiting for a sign of life" in caplog.text
    first.commit(start(1))  # it is as if nothing had happened


def test_an_engine_takes_over_when_the_lease_has_run_out(rig: Rig) -> None:
    first, second = rig.engine("a"), rig.engine("b")
    first.open()
    first.commit(start(1))
    before = rig.seconds
    second.open()
    assert 9 <= rig.seconds - before <= 12
    assert numbers(second) == [1]
    second.commit(step(1))
    with pytest.raises(FenceLost, match="another engine has taken"):
        first.commit(start(2))
    with pytest.raises(StoreInUse):
        first.reopen()
    with pytest.raises(StoreError):
        first.load(["claim-1"])
    second.close()
    first.reopen()
    assert first.load(["claim-1"])[0].row.episodes == 2


def test_a_standby_waits_for_as_long_as_the_holder_lives(rig: Rig) -> None:
    first, second = rig.engine("a"), rig.engine("b", standby=True)
    first.open()
    begin = rig.seconds

    def sleep(seconds: float) -> None:
        rig.seconds += seconds
        if rig.seconds - begin < 100:
            first.maintain(0)

    second._patience.sleep = sleep
    second.open()
    assert 104 <= rig.seconds - begin <= 112


def test_an_engine_that_leaves_makes_room_at_once(rig: Rig) -> None:
    first = rig.engine("a")
    first.open()
    first.close()
    before = rig.seconds
    rig.engine("b").open()
    assert rig.seconds == before


def test_a_restart_on_the_same_machine_does_not_wait_for_the_lease(rig: Rig) -> None:
    """The lock of the replica shows that the process before has ended."""
    first = rig.engine("a")
    first.open()
    first.commit(start(1))
    rig.kill(first)
    before = rig.seconds
    again = rig.engine("a")
    again.open()
    assert rig.seconds == before
    assert numbers(again) == [1]


def test_an_idle_engine_renews_its_lease_every_third_of_it(rig: Rig) -> None:
    store = rig.engine("a")
    store.open()
    rig.service.requests.clear()
    for _ in range(60):
        rig.seconds += 2.0
        store.maintain(0)
        assert rig.service.log().head().age < 5
    rig.service.requests.pop("head")
    assert rig.service.requests == {"touch": 30}  # one in four seconds, and nothing else


def test_a_sleeping_holder_wakes_up_after_the_takeover_and_commits_nothing(rig: Rig) -> None:
    first, second = rig.engine("a"), rig.engine("b")
    first.open()
    under_way = rig.service.held("append")
    rig.service.faults = lambda verb: "cut" if verb == "append" else "done"
    with pytest.raises(StoreError):
        first.commit(start(1))
    rig.service.faults = lambda verb: "done"
    rig.seconds += 60
    second.open()
    second.commit(start(2))
    end = rig.service.log().head().end
    for request in under_way[:-2]:
        with pytest.raises(Exception, match=r"^$"):
            request()
    assert rig.service.log().head().end == end
    assert numbers(second) == [2]


def test_many_hand_overs_lose_and_double_nothing(rig: Rig) -> None:
    """Each engine commits until it is fenced; what it was told is durable stays."""
    engines = [rig.engine(name) for name in "abc"]
    acknowledged: list[int] = []
    number = 0
    for turn in range(30):
        store, before = engines[turn % 3], engines[(turn - 1) % 3]
        rig.seconds += 11
        store.reopen()
        for _ in range(3):
            number += 1
            store.commit(start(number))
            acknowledged.append(number)
            number += 1
            if turn:
                with pytest.raises(StoreError):
                    before.commit(start(number))
        assert numbers(store) == acknowledged
    records, _ = rig.service.log().read(0)
    epochs = [no for no, record in enumerate(records) if isinstance(content_of(record.content), Epoch)]
    assert len(epochs) == 30
    assert len(records) == 30 + 90


def test_the_head_names_the_holder_with_its_address(rig: Rig) -> None:
    store = rig.engine("a")
    store.open()
    store.publish("http://a:1", "secret-token")
    store.maintain(0)
    head = rig.service.log().head()
    assert msgspec.json.decode(head.holder, type=Holder).address == "http://a:1"
    assert b"secret-token" not in head.holder
