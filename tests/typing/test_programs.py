"""Types are a feature: two checkers read users' programs, and find exactly the mistakes that are marked there.

`assert_type` in the programs says what comes out. A line with the comment `E:` is a mistake that has to be found;
any other error is one of ours. Both checkers run in their strictest mode, once for all programs.
"""

import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROGRAMS = sorted((HERE / "programs").glob("*.py"))
Found = dict[tuple[str, int], list[str]]  # file and line: what the checker says there


@functools.cache
def mypy() -> Found:
    answer = _run(
        "mypy",
        "--config-file=",
        "--strict",
        "--explicit-package-bases",
        f"--cache-dir={os.devnull}",  # two runs that share a cache break each other
        "--no-error-summary",
        *map(str, PROGRAMS),
    )
    found: Found = {}
    for line in answer.splitlines():
        hit = re.match(r"(.+?):(\d+): error: (.*)", line)
        if hit:
            found.setdefault((Path(hit[1]).name, int(hit[2])), []).append(hit[3])
    return found


def pyright() -> Found:
    answer = _run("pyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(HERE))
    found: Found = {}
    for one in json.loads(answer[answer.index("{") :])["generalDiagnostics"]:
        if one["severity"] == "error":
            place = (Path(one["file"]).name, one["range"]["start"]["line"] + 1)
            found.setdefault(place, []).append(one["message"])
    return found


def _run(*module: str) -> str:
    environment = {
        **os.environ,
        "MYPYPATH": str(ROOT / "src"),
        "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", *module],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


@pytest.mark.xdist_group("mypy")
def test_mypy_says_of_a_wrong_input_which_type_it_should_be_of():
    said = [
        message
        for place, messages in mypy().items()
        if "# E: it takes a Claim" in _line(*place)
        for message in messages
    ]

    assert len(said) > 3
    assert [message for message in said if 'expected "Claim | ' not in message] == []


def _line(program: str, number: int) -> str:
    return (HERE / "programs" / program).read_text().splitlines()[number - 1]


def marked() -> set[tuple[str, int]]:
    return {
        (program.name, number)
        for program in PROGRAMS
        for number, line in enumerate(program.read_text().splitlines(), 1)
        if "# E: " in line
    }


@pytest.mark.parametrize("checker", [pytest.param(mypy, marks=pytest.mark.xdist_group("mypy")), pyright])
def test_a_checker_finds_the_marked_mistakes_and_nothing_else(checker: Callable[[], Found]):
    found = checker()

    assert {place: said for place, said in found.items() if place not in marked()} == {}
    assert marked() - found.keys() == set()
    assert len(marked()) > 40
