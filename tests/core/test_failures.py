"""Failures as data: type, message, stack and cause of an exception, in text every store accepts."""

from perdure.errors import TaskFailedError
from perdure.model.failure import Failure, chain_of, failure_of


class CardDeclined(Exception):
    pass


def caught(raise_it) -> BaseException:
    try:
        raise_it()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_type_message_and_the_line_of_the_stack():
    def raise_it():
        raise CardDeclined("no cover")

    failure = failure_of(caught(raise_it))

    assert failure.type.endswith(".CardDeclined")
    assert failure.message == "no cover"
    assert 'raise CardDeclined("no cover")' in failure.stack


def test_builtin_types_go_without_a_module():
    assert failure_of(ValueError("x")).type == "ValueError"


def test_the_explicit_cause_is_kept():
    def raise_it():
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner

    assert [f.type for f in chain_of(failure_of(caught(raise_it)))] == ["ValueError", "KeyError"]


def test_what_was_being_handled_counts_as_cause_unless_suppressed():
    def implicit():
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer")  # noqa: B904

    def suppressed():
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer") from None

    assert failure_of(caught(implicit)).cause.type == "KeyError"
    assert failure_of(caught(suppressed)).cause is None


def test_a_failed_task_keeps_the_recorded_failure_as_its_cause():
    recorded = Failure("bank.Declined", "4711", "the stack", Failure("OSError"))

    assert failure_of(TaskFailedError("it failed", recorded)).cause == recorded


def test_a_long_message_is_cut_and_of_a_long_stack_the_end_is_kept():
    def deep(n: int):
        if not n:
            raise ValueError("m" * 100_000)
        deep(n - 1)

    failure = failure_of(caught(lambda: deep(300)))

    assert len(failure.message) == 4_000
    assert len(failure.stack) <= 8_000
    assert failure.stack.rstrip().endswith('raise ValueError("m" * 100_000)')


def test_nul_and_lone_surrogates_are_written_out():
    assert failure_of(ValueError("a\0b\ud800")).message == "a\\0b\\ud800"


def test_an_exception_whose_text_fails_is_described_all_the_same():
    class Nasty(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert failure_of(Nasty()).type.endswith("Nasty")


def test_a_cycle_of_causes_ends():
    first, second = ValueError("a"), KeyError("b")
    first.__cause__, second.__cause__ = second, first

    assert len(chain_of(failure_of(first))) <= 6
