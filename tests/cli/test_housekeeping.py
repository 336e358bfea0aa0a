"""backup and copy from a terminal."""

import json
from pathlib import Path

import perdure as df
from tests.cli.test_cli import filled, perdure, said, serve  # noqa: F401  (a fixture)


def test_a_backup_is_made_and_verifies(filled: Path, tmp_path: Path) -> None:  # noqa: F811
    copy = tmp_path / "copy.db"
    result = perdure("backup", str(copy), store=filled)

    assert result.exit_code == 0, result.output
    assert result.stdout == f"{copy}: 4 instances, {copy.stat().st_size:,} bytes, checked.\n"
    assert perdure("verify", store=copy).exit_code == 0
    assert said("list", store=copy) == said("list", store=filled)


def test_a_backup_can_be_made_of_what_is_served(filled: Path, tmp_path: Path) -> None:  # noqa: F811
    made: list[object] = []

    async def during(client: object) -> None:
        made.append(said("backup", str(tmp_path / "copy.db"), store=filled))

    serve(filled, during)
    [told] = made
    assert isinstance(told, dict)
    assert told["hubs"] == {"hosts": {"instances": 4}}
    assert told["bytes"] == (tmp_path / "copy.db").stat().st_size


def test_a_backup_that_is_refused_says_why(filled: Path, tmp_path: Path) -> None:  # noqa: F811
    existing = tmp_path / "precious.db"
    existing.write_text("precious")
    result = perdure("backup", str(existing), "--json", store=filled)

    assert result.exit_code == 4
    assert "already exists" in json.loads(result.stderr)["error"]["message"]
    assert perdure("backup", str(tmp_path / "x.db"), store=tmp_path / "none.db").exit_code == 4


def test_a_hub_is_copied_and_served_from_there(filled: Path, tmp_path: Path) -> None:  # noqa: F811
    copy = tmp_path / "copy.db"
    result = perdure("copy", str(filled), str(copy))

    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("hub hosts: 4 instances and ")
    assert said("list", store=copy) == said("list", store=filled)
    assert (
        perdure("raise", "asking", "ApproverDecision", "-i", '{"approved": true}', store=copy).exit_code == 0
    )
    outputs: list[object] = []

    async def during(client: df.Client) -> None:
        outputs.append((await client.wait_for_completion("asking", 10)).output)

    serve(copy, during)
    assert outputs == ["APPROVED"]


def test_a_copy_that_is_refused_says_why(filled: Path, tmp_path: Path) -> None:  # noqa: F811
    copy = tmp_path / "copy.db"
    first = perdure("copy", str(filled), f"sqlite:///{copy}", "--json")
    second = perdure("copy", str(filled), str(copy), "--json")

    assert (first.exit_code, json.loads(first.stdout)["verified"]) == (0, 4)
    assert second.exit_code == 4
    message = json.loads(second.stderr)["error"]["message"]
    assert "is not empty: it has " in message
    assert "instances already. Copy into" in message
    assert "rows of" not in message
