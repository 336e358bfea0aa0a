"""JSON by perdure's short cuts and by the SDK's own functions: the same texts and the same values."""

from __future__ import annotations

import enum
import json
import sys
from typing import Any

import pytest

from perdure.hosts.azure_functions import sdk

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __repr__(self) -> str:
        return f"Money({self.cents})"

    @staticmethod
    def to_json(money: Money) -> int:
        return money.cents

    @staticmethod
    def from_json(cents: int) -> Money:
        return Money(cents)


class Colour(enum.IntEnum):
    RED = 3


class Text(str):
    """A text of its own kind."""


VALUES = (
    *(None, True, False, 0, -7, 10**30, Colour.RED, 1.5, -0.0, float("nan"), float("inf")),
    *("", "plain", '"quoted" \\ \n\t\0', "ü\u2028\U0001f600", "\ud800", Text("x"), "__class__", "\\u005f"),
    *([], {}, [1, "a", None], {"a": {"b": [True]}}, {1: 2}, (1, 2), Money(5), [Money(5)], {"m": Money(1)}),
)
TEXTS = (
    *("null", "true", "-7", "1e3", "NaN", '"a"', '"\\u005f"', "[1, 2]", '{"a": 1, "a": 2}', " 5 ", "5 "),
    json.dumps({"__class__": "Money", "__module__": __name__, "__data__": 7}),
    json.dumps([{"__class__": "Money", "__module__": __name__, "__data__": 7}]),
    *("", "5 5", "{", "nul", "'a'"),
)


def outcome(function: Any, *given: Any) -> Any:
    """What a function returns, as it is shown, or the kind of what it raises."""
    try:
        return repr(function(*given))
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("is_strict", ["", "1"])
def test_the_texts_are_those_of_the_sdk(is_strict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_FUNCTIONS_DURABLE_STRICT_TYPING", is_strict)
    for value in (*VALUES, object(), {1, 2}):
        assert outcome(sdk.dumps, value) == outcome(sdk.df_dumps, value), value
        assert outcome(sdk.plain, value) == outcome(json.dumps, value), value


@pytest.mark.parametrize("is_strict", ["", "1"])
@pytest.mark.parametrize("expected", [None, int, str, Money])
def test_the_values_are_those_of_the_sdk(
    is_strict: str, expected: type | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_FUNCTIONS_DURABLE_STRICT_TYPING", is_strict)
    for text in (*TEXTS, *(sdk.df_dumps(value) for value in VALUES if not isinstance(value, list | dict))):
        assert outcome(sdk.loads, text, expected) == outcome(sdk.df_loads, text, expected), text


def test_the_inputs_of_actions_are_those_of_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[sdk.CallActivity.__module__]
    quick = [outcome(lambda value: sdk.CallActivity("act", value).input_, value) for value in VALUES]
    monkeypatch.setattr(module, "df_dumps", sdk.df_dumps, raising=False)
    assert quick == [outcome(lambda value: sdk.CallActivity("act", value).input_, value) for value in VALUES]
