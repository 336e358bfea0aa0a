"""Failures as data: type, message, stack and cause of an exception, in text every store accepts."""

import msgspec
import pytest

from perdure.errors import HttpCallError, HttpDenied, TaskFailedError
from perdure.failure import Failure, chain_of, told_of
from perdure.model.failures import failure_of


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


def test_what_was_being_handled_is_told_and_is_no_cause():
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

    told = failure_of(caught(implicit))
    assert told.cause is None
    assert told.context.type == "KeyError"
    assert not told.is_a(KeyError)
    assert [(how, one.type) for how, one in told_of(told)] == [
        ("", "ValueError"),
        ("raised while handling", "KeyError"),
    ]
    silent = failure_of(caught(suppressed))
    assert silent.cause is None
    assert silent.context is None


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


# ------------------------------------------------------------------------------------------------ of which class


class FraudSuspected(CardDeclined):
    pass


class Named:
    class CardDeclined(Exception):
        pass


BankTimeout = type("TimeoutError", (Exception,), {"__module__": "bank.errors"})


@pytest.mark.parametrize(
    "kind",
    [
        FraudSuspected,
        CardDeclined,
        Exception,
        BaseException,
        "CardDeclined",
        "tests.core.test_failures.CardDeclined",
        "test_failures.FraudSuspected",
        "Exception",
    ],
)
def test_a_failure_is_of_its_class_and_of_those_that_it_derives_from(kind):
    assert failure_of(FraudSuspected("no")).is_a(kind)


@pytest.mark.parametrize(
    "kind", [ValueError, Named.CardDeclined, "ValueError", "shop.CardDeclined", "Declined"]
)
def test_a_failure_is_of_no_other_class(kind):
    assert not failure_of(FraudSuspected("no")).is_a(kind)


def test_two_classes_of_one_name_are_told_apart():
    assert not failure_of(TimeoutError("the network")).is_a(BankTimeout)
    assert not failure_of(BankTimeout("the bank")).is_a(TimeoutError)
    assert failure_of(BankTimeout("the bank")).is_a("bank.errors.TimeoutError")
    assert not failure_of(BankTimeout("the bank")).is_a("TimeoutError"), (
        "without a dot it is the built-in one"
    )


def test_a_failure_without_bases_is_of_the_classes_of_its_built_in_name():
    """Those that the engine writes itself, and those in histories of earlier versions."""
    assert Failure("TimeoutError", "took too long").is_a(OSError)
    assert not Failure("TimeoutError").is_a(ValueError)
    assert Failure("SystemExit").is_a(BaseException)
    assert not Failure("SystemExit").is_a(Exception)
    assert Failure("shop.CardDeclined").is_a("CardDeclined")


def test_what_is_no_exception_of_programs_is_not_an_exception():
    failure = failure_of(KeyboardInterrupt())
    assert failure.is_a(BaseException)
    assert not failure.is_a(Exception)


def test_explicit_causes_are_looked_at_and_members_of_groups_at_any_depth():
    group = ExceptionGroup("outer", [ValueError("a"), ExceptionGroup("inner", [FraudSuspected("b")])])
    wrapped = RuntimeError("payment")
    wrapped.__cause__ = group

    assert failure_of(wrapped).is_a(CardDeclined)
    assert failure_of(wrapped).is_a(ExceptionGroup)
    assert not failure_of(wrapped).is_a(KeyError)


def test_a_failed_call_is_asked_like_an_exception():
    error = TaskFailedError("it failed", failure_of(HttpDenied("not that address")))

    assert error.is_a(HttpCallError)
    assert not error.is_a(TimeoutError)


def test_the_message_of_a_group_tells_its_members():
    group = ExceptionGroup("unhandled errors in a TaskGroup", [CardDeclined(f"card {n}") for n in range(30)])

    failure = failure_of(group)

    assert "card 0" in failure.message
    assert failure.message.endswith("and 25 more")
    assert len(failure.members) == 16
    assert [one.message for _, one in told_of(failure)][1:3] == ["card 0", "card 1"]


def test_a_group_in_a_group_in_a_group_ends_somewhere():
    group = ExceptionGroup("g", [ValueError("x")])
    for _ in range(50):
        group = ExceptionGroup("g", [group, group])

    assert len(msgspec.json.encode(failure_of(group))) < 100_000


def test_a_failure_of_an_earlier_version_is_read_and_written_as_it_was():
    before = b'{"type":"ValueError","message":"m","cause":{"type":"KeyError"}}'

    assert msgspec.json.encode(msgspec.json.decode(before, type=Failure)) == before
