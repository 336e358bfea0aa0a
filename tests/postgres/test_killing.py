"""Workers of one hub killed and stopped at random. The long version is `python -m tests.postgres.killing --long`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.postgres import killing
from tests.postgres.servers import NEWEST


@pytest.mark.timeout(240)
def test_nothing_accepted_is_lost_and_nothing_is_applied_twice(tmp_path: Path) -> None:
    """Eight kills, and two stops beyond the lease."""
    account = killing.run(NEWEST, killing.QUICK, 8, tmp_path)
    assert account.ok, killing.table(account)
    assert account.acknowledged == account.filed == account.paid + account.denied > 50, killing.table(account)
    assert account.takeovers >= account.pauses > 0, (
        "nobody was ever taken over from: these kills prove nothing"
    )
    assert account.bodies_repeated > 0, "no activity was ever cut off: these kills prove nothing"
    assert account.cuts > 5, "the client's commits were not cut off"
    assert account.commits > 100, "the notes of the database are missing"
    assert len(account.outages) >= 4, account.outages
