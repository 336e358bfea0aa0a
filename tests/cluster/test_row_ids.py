"""Numbers of rows: unique among workers, in the order of time, and never before what they have to follow."""

from __future__ import annotations

from perdure.engine.core.row_ids import EPOCH_MS, SEATS, Numbers

NOW = (EPOCH_MS + 1_000) * 1_000  # microseconds


def numbers_of(incarnation: int, at: int = NOW) -> Numbers:
    numbers = Numbers()
    numbers.opened(1, incarnation)
    numbers.advance(at)
    return numbers


def test_an_engine_on_its_own_counts() -> None:
    numbers = Numbers()
    numbers.opened(7, 0)
    numbers.advance(NOW)
    assert [numbers.take() for _ in range(3)] == [7, 8, 9]


def test_no_two_workers_give_the_same_however_many_in_a_millisecond() -> None:
    workers = [numbers_of(incarnation) for incarnation in (1, 2, 700)]
    taken = [worker.take() for worker in workers for _ in range(20_000)]
    assert len(set(taken)) == len(taken)


def test_numbers_of_one_worker_grow_and_later_ones_are_greater_whoever_gives_them() -> None:
    early, late = numbers_of(SEATS - 1), numbers_of(1, NOW + 2_000)
    first = [early.take() for _ in range(100)]
    assert first == sorted(first)
    assert first[-1] < late.take()


def test_a_worker_whose_clock_is_behind_goes_on_behind_what_it_has_to_follow() -> None:
    ahead, behind = numbers_of(3, NOW + 60_000_000), numbers_of(2)
    held = ahead.take()
    assert behind.take() < held
    behind.exceed(held)
    following = [behind.take() for _ in range(5_000)]
    assert following == sorted(following)
    assert following[0] > held
    assert not {number >> 12 & SEATS - 1 for number in following} - {2}
    behind.exceed(held)
    assert behind.take() == following[-1] + 1
