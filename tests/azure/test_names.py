"""The table of Azure's names, against the installed package and against ours."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import perdure
from tests.azure.surface import OURS, classes, names, parameters

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "azure-names.md"
ROW = re.compile(r"^\| (`.+`) \| (.+) \|$", re.MULTILINE)
VERDICTS = ("**same**", "**better**: ", "**not here, because** ")
NAMES = names()


def table() -> dict[str, str]:
    """What each name is said to be; names as they are written, with parameters."""
    return {
        name: verdict
        for left, verdict in ROW.findall(PAGE.read_text())
        for name in re.findall(r"`([^`]+)`", left)
    }


def said_to_be(verdict: str) -> list[str]:
    return [name for name, written in NAMES.items() if table()[written].startswith(verdict)]


def test_every_name_is_in_the_table_and_no_other():
    assert sorted(table()) == sorted(NAMES.values())


def test_every_name_has_a_verdict_with_its_reason():
    for name, verdict in table().items():
        assert verdict.startswith(VERDICTS), name
        assert verdict == "**same**" or len(verdict) > 30, name


@pytest.mark.parametrize("name", said_to_be("**same**"))
def test_what_is_said_to_be_the_same_is(name):
    kind, _, member = name.partition(".")
    theirs, ours = classes()[kind], _ours(kind)
    assert ours is not None
    if not member:
        assert _takes(theirs, ours), (
            f"{inspect.signature(ours)} does not begin as {inspect.signature(theirs)}"
        )
        return
    assert member in dir(ours) or member in _attributes(ours)
    their_value, our_value = getattr(theirs, member, None), getattr(ours, member, None)
    if inspect.isroutine(their_value):
        assert _takes(their_value, our_value), f"{inspect.signature(our_value)}"
        assert inspect.iscoroutinefunction(their_value) == inspect.iscoroutinefunction(our_value)
    else:
        assert not inspect.isroutine(our_value)
    if kind == "DFApp":
        assert inspect.isroutine(getattr(perdure.Blueprint, member))


@pytest.mark.parametrize("name", [name for name in said_to_be("**not here") if "." in name])
def test_what_is_said_to_be_missing_is_missing(name):
    kind, _, member = name.partition(".")

    assert not hasattr(_ours(kind), member), "it is here now: say so in the table"


def test_blueprint_has_no_members_that_the_application_has_not():
    theirs = classes()

    public = [name for name in dir(theirs["Blueprint"]) if not name.startswith("_")]
    assert set(public) <= set(dir(theirs["DFApp"]))


def _ours(kind: str) -> Any:
    return getattr(perdure, OURS.get(kind, kind), None)


def _attributes(ours: Any) -> set[str]:
    return {*getattr(ours, "__annotations__", ()), *(n for base in ours.__mro__ for n in _slots(base))}


def _slots(base: type) -> tuple[str, ...]:
    return tuple(getattr(base, "__slots__", ()))


def _takes(theirs: Any, ours: Any) -> bool:
    """Whether all that theirs takes can be given to ours, by position and by name."""
    if inspect.isclass(theirs) and hasattr(theirs, "__members__"):
        return set(theirs.__members__) == set(ours.__members__)
    if inspect.isclass(ours) and hasattr(ours, "__struct_fields__"):
        return list(ours.__struct_fields__)[: len(parameters(theirs))] == parameters(theirs)
    wanted = parameters(theirs)
    return parameters(ours)[: len(wanted)] == wanted
