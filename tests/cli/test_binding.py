"""`perdure binding`: what it prints for the server that runs, and when it makes a key."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cli.test_cli import perdure, said
from tests.cli.test_run import PROGRAM, SOURCE, TOKEN, folder, running

__all__ = ["folder"]


def printed(*arguments: str, store: Path) -> dict[str, Any]:
    result = perdure("binding", *arguments, store=store)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_it_names_the_address_and_the_hub_of_the_running_server_and_makes_no_key(folder: Path) -> None:
    (folder / "app.py").write_text(PROGRAM.format(name="served"))
    with running(folder) as (_, address):
        found = printed(store=folder / "perdure.db")
        keys = said("keys", "list", store=folder / "perdure.db")

    port = address.rsplit(":", 1)[1]
    assert found["taskHubName"] == "served"
    assert found["baseUrl"] == f"http://127.0.0.1:{port}/runtime/webhooks/durabletask"
    assert found["requiredQueryStringParameters"] == f"code={TOKEN}"
    assert "durableClient" not in json.dumps(keys)


def test_a_key_is_made_when_it_is_asked_for(folder: Path) -> None:
    (folder / "app.py").write_text(PROGRAM.format(name="served"))
    with running(folder):
        store = folder / "perdure.db"
        found = printed("--new-key", "--address", "https://claims.example", store=store)
        keys = said("keys", "list", store=store)

    assert found["baseUrl"].startswith("https://claims.example/")
    assert found["requiredQueryStringParameters"] != f"code={TOKEN}"
    assert json.dumps(keys).count("durableClient binding") == 1


def test_without_a_server_it_asks_for_a_credential(folder: Path) -> None:
    (folder / "app.py").write_text(PROGRAM.format(name="served"))
    with running(folder):
        pass
    store = folder / "perdure.db"

    refused = perdure("binding", store=store)
    given = printed("--credential", "k", store=store)

    assert refused.exit_code == 2 and "--new-key" in refused.output
    assert given["taskHubName"] == "served" and given["requiredQueryStringParameters"] == "code=k"


def test_a_setting_that_cannot_be_read_is_told_in_a_line(folder: Path) -> None:
    """Commands read no setting when they are imported."""
    ended = subprocess.run(
        [sys.executable, "-m", "perdure.cli", "run", "app.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.fspath(SOURCE), "PERDURE_TOKEN": "short"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode != 0
    assert "PERDURE_TOKEN" in ended.stderr and "Traceback" not in ended.stderr
