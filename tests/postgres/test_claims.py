"""The claims example with three workers on PostgreSQL, which are killed: nothing is lost, nothing paid twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.claims.source import claims_of, made_up
from tests.postgres.claims import processed


@pytest.mark.timeout(180)
async def test_claims_are_paid_once_though_workers_die(
    newest_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAIMS_HOME", str(tmp_path))
    claims = list(claims_of(made_up(150)))
    found, kills = await processed(newest_url, tmp_path, claims, 6, gap=0.8)
    assert kills == 6
    assert found.numbers["filed"] == 150
    assert (found.numbers["lost"], found.numbers["paid twice"]) == (0, 0)
    assert found.is_clean, found.verdict
    assert found.numbers["paid"] > 50
