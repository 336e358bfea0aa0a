"""The commands for many instances: who is meant, what is asked first, what is told afterwards."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli import filled, perdure, said, serve  # noqa: F401  (a fixture)


def counts(store: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in said("list", store=store)["instances"]:
        found[one["runtimeStatus"]] = found.get(one["runtimeStatus"], 0) + 1
    return found


def test_a_filter_is_previewed_and_not_obeyed_without_a_yes(filled: Path) -> None:  # noqa: F811
    dry = perdure("terminate", "--name", "sleeper", "--dry-run", store=filled)
    unsure = perdure("terminate", "--name", "sleeper", store=filled)

    assert dry.stdout == "1 instance would be terminated: asleep.\n"
    assert (unsure.exit_code, unsure.stdout) == (2, "")
    assert "1 instance would be terminated: asleep. Add --yes" in unsure.stderr
    assert counts(filled) == {"Running": 2, "Completed": 1, "Failed": 1}


def test_with_a_yes_it_is_done_and_told(filled: Path) -> None:  # noqa: F811
    held = perdure("suspend", "--all", "--yes", store=filled)
    outcome = said("terminate", "--status", "suspended", "--reason", "enough", "--yes", store=filled)
    purged = perdure("purge", "--older-than", "0s", "--yes", store=filled)

    assert held.stdout == "2 instances suspended.\n"
    assert outcome == {
        "verb": "terminate",
        "dryRun": False,
        "matched": 2,
        "examples": ["asleep", "asking"],
        "done": 2,
        "skipped": {},
        "failed": 0,
        "failures": [],
        "finished": True,
    }
    assert purged.stdout == "4 instances purged.\n"
    assert counts(filled) == {}


def test_nobody_is_no_failure(filled: Path) -> None:  # noqa: F811
    result = perdure("resume", "--prefix", "nobody", "--yes", store=filled)

    assert (result.exit_code, result.stdout) == (0, "No instance matches: nothing to resume.\n")


def test_several_may_be_named_and_one_refusal_does_not_keep_the_others(filled: Path) -> None:  # noqa: F811
    result = perdure("suspend", "asleep", "done", "nobody", "asking", store=filled)

    assert result.stdout == "2 instances suspended.\n"
    assert "'done'" in result.stderr
    assert "'nobody'" in result.stderr
    assert result.exit_code == 3
    assert counts(filled) == {"Suspended": 2, "Completed": 1, "Failed": 1}


@pytest.mark.parametrize(
    "arguments",
    [
        ("terminate",),
        ("terminate", "asleep", "--all"),
        ("terminate", "asleep", "--name", "sleeper"),
        ("purge", "--older-than", "soon"),
        ("purge", "--older-than", "3d", "--created-before", "2026-01-01"),
        ("purge", "--all", "--reason", "none is kept"),
        ("suspend", "--all", "--at-most", "0"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(filled: Path, arguments: tuple[str, ...]) -> None:  # noqa: F811
    assert perdure(*arguments, "--yes", store=filled).exit_code == 2


def test_a_program_is_told_in_json_that_it_has_to_confirm(filled: Path) -> None:  # noqa: F811
    result = perdure("purge", "--all", "--json", store=filled)
    told: dict[str, Any] = json.loads(result.stderr)

    assert (result.exit_code, told["error"]["code"]) == (2, "unconfirmed")
