"""backup and copy from a terminal."""

import json
from pathlib import Path

from tests.hosts.test_cli import filled, perdure, said, serve  # noqa: F401  (a fixture)


def test_a_backup_is_made_and_verifies(filled: Path, tmp_path: Path) -> None:  # noqa: F811
    copy = tmp_path / "copy.db"
    result = perdure("backup", str(copy), store=filled)

    assert result.exit_code == 0, result.output
    assert result.stdout == f"{copy}: 4 instances, {copy.stat().st_size:,} bytes, checked.\n"
    assert perdure("verify", store=copy).exit_code == 0
    assert perdure("list", store=copy).stdout == perdure("list", store=filled).stdout


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
    assert "exists already" in json.loads(result.stderr)["error"]["message"]
    assert perdure("backup", str(tmp_path / "x.db"), store=tmp_path / "none.db").exit_code == 4
