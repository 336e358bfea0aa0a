"""Every error has one number, every number one page, and people are told the number where they meet the error."""

import importlib
import pickle
import pkgutil
import re
import traceback
from collections import Counter
from collections.abc import Iterator

import pytest

import perdure
from perdure import errors
from perdure.engine.core import recovery
from perdure.error_numbers import NUMBERS, number_of
from perdure.failure import Failure
from perdure.http.problem import problem_of
from perdure.model.waiting import _REASONS
from tests.docs.shell import ROOT

FOLDER = ROOT / "docs" / "errors"
NO_ERRORS = frozenset({"internal", "http", "timeout"})  # problem documents without an error class of ours
PARKED = "parked-"


def load_all() -> None:
    for module in pkgutil.walk_packages(perdure.__path__, "perdure."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def family(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__.partition(".")[0] == "perdure":
            yield from family(child)


def kinds() -> list[type[BaseException]]:
    load_all()
    signals = [kind for kind in family(errors.EngineSignal) if getattr(errors, kind.__name__, None) is kind]
    return sorted({*family(errors.PerdureError), *signals}, key=lambda kind: kind.__name__)


def made(kind: type[BaseException]) -> BaseException:
    return kind("it went wrong", *((Failure("ValueError"),) if kind is errors.TaskFailedError else ()))


def test_every_error_has_a_code_of_its_own_and_every_code_a_number() -> None:
    codes = [kind.code for kind in kinds()]  # type: ignore[attr-defined]
    assert [code for code, count in Counter(codes).items() if count > 1] == []
    assert [code for code in codes if not number_of(code)] == []


def test_no_number_is_given_twice_or_to_nobody() -> None:
    assert [number for number, count in Counter(NUMBERS.values()).items() if count > 1] == []
    codes = {kind.code for kind in kinds()}  # type: ignore[attr-defined]
    assert {code for code in NUMBERS if not code.startswith(PARKED)} == codes | NO_ERRORS


def test_every_number_has_a_page_and_every_page_a_number() -> None:
    assert {page.stem for page in FOLDER.glob("PDR-*.md")} == set(NUMBERS.values())


@pytest.mark.parametrize(("code", "number"), NUMBERS.items())
def test_a_page_names_its_error_and_says_what_to_do(code: str, number: str) -> None:
    text = (FOLDER / f"{number}.md").read_text(encoding="utf-8")
    title = text.splitlines()[0]
    assert re.match(rf"# {number}: \S", title)
    names = [kind.__name__ for kind in kinds() if getattr(kind, "code", "") == code]
    assert all(f"`{name}`" in text for name in names)
    assert f"`{code.removeprefix(PARKED)}`" in text
    for part in ("## What happened", "## Likely causes", "## What to do"):
        assert part in text
    assert f"[{number}]({number}.md)" in (FOLDER / "index.md").read_text(encoding="utf-8")


def test_every_kind_of_parking_has_a_number() -> None:
    kinds_parked = {kind for kind, _ in recovery._PARKED_FOR.values()}
    assert {f"{PARKED}{kind}" for kind in kinds_parked} == {
        code for code in NUMBERS if code.startswith(PARKED)
    }
    for kind in kinds_parked:
        assert number_of(PARKED + kind) in _REASONS[kind]


@pytest.mark.parametrize("kind", list(family(errors.PerdureError)))
def test_a_traceback_ends_with_the_number(kind: type[errors.PerdureError]) -> None:
    number = number_of(kind.code)
    again = pickle.loads(pickle.dumps(made(kind)))
    for error in (made(kind), again):
        assert str(error) == "it went wrong"
        assert traceback.format_exception_only(error)[-1].startswith(f"{number}: ")
        assert len(traceback.format_exception_only(error)) == 2


@pytest.mark.parametrize("kind", list(family(errors.PerdureError)))
def test_a_problem_document_names_the_page(kind: type[errors.PerdureError]) -> None:
    error = made(kind)
    assert isinstance(error, errors.PerdureError)
    assert problem_of(error).problem["number"] == error.number == number_of(kind.code)
