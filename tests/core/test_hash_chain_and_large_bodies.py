"""The hash chain over history, and bodies kept out of line."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from perdure.model import events as ev
from perdure.model import hash_chain
from perdure.model.large_bodies import body_of, inline, outline
from perdure.testing import HistoryBuilder

SALT = b"0123456789abcdef"


def hashes(rows: list[bytes], salt: bytes = SALT, execution_no: int = 1) -> list[bytes]:
    head, found = hash_chain.base_of(salt, execution_no), []
    for episode, content in enumerate(rows):
        head = hash_chain.link(
            head, execution_no, episode, 1_000 * episode, hash_chain.digest_of(salt, content)
        )
        found.append(head)
    return found


def test_a_changed_row_changes_every_hash_behind_it():
    whole, changed = hashes([b"a", b"b", b"c"]), hashes([b"a", b"B", b"c"])

    assert whole[0] == changed[0]
    assert whole[1] != changed[1]
    assert whole[2] != changed[2]


def test_instances_with_equal_histories_have_different_chains():
    assert hashes([b"a"]) != hashes([b"a"], salt=b"another salt....")


def test_each_execution_has_a_chain_of_its_own():
    assert hashes([b"a"]) != hashes([b"a"], execution_no=2)


def history() -> list[ev.HistoryEvent]:
    builder = HistoryBuilder().started("i" * 100, carried=(("Go", "g" * 100), ("Small", 1)))
    builder.scheduled("a", "x" * 100).completed(0, "y" * 100).raised("Go", "z" * 5).returned("o" * 100)
    return builder.events


def test_large_bodies_leave_the_row_with_a_reference_and_come_back():
    kept, bodies = outline(history(), 50, SALT)

    assert [len(body) for body in bodies] == [102, 102, 102, 102, 102]
    assert max(len(body_of(event)) for event in kept) <= 50
    assert inline(ev.decode_events(ev.encode_events(kept)), dict(enumerate(bodies))) == history()


def test_the_reference_holds_size_and_salted_digest():
    (event,), (body,) = outline([ev.ExecutionCompleted(output=Raw(b'"' + b"o" * 60 + b'"'))], 50, SALT)

    assert event.body == ev.BodyRef(0, 62, hash_chain.digest_of(SALT, body).hex())
    assert event.output == ev.ABSENT


def test_an_erased_body_leaves_its_reference():
    kept, _ = outline(history(), 50, SALT)

    assert inline(kept, {0: b'"only the first"'})[-1].body is not None
    assert inline(kept, {}) == kept


@given(st.integers(0, 200))
def test_any_threshold_loses_nothing(above):
    kept, bodies = outline(history(), above, SALT)

    assert inline(kept, dict(enumerate(bodies))) == history()


def test_events_survive_their_json_form():
    everything = (
        HistoryBuilder()
        .started({"n": 10**30}, parent=ev.ParentLink("p", "1", 0), version="2", carried=(("Go", None),))
        .scheduled("a", call=3, attempt=2, timeout=1.5)
        .child("c")
        .timer(5, purpose="retry", of=0)
        .awaited("Go", timeout=3)
        .completed(0, [1, 2])
        .failed(0, "ValueError", "no")
        .child_completed(1)
        .child_failed(1)
        .fired(2)
        .timer_cancelled(4)
        .wait_cancelled(3)
        .rejected(3, "Go")
        .suspended("s")
        .resumed()
        .parked("poison", "p")
        .continued_as_new({"next": True})
        .terminated("t")
        .events
    )

    assert ev.decode_events(ev.encode_events(everything)) == everything
