"""Workers of one hub killed and stopped at random. The long version is `python -m tests.postgres.killing --long`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.postgres import killing
from tests.postgres.servers import NEWEST

ATTEMPTS = 3  # whether a kill interrupts anything depends on the machine, too


@pytest.mark.timeout(600)
def test_nothing_accepted_is_lost_and_nothing_is_applied_twice(tmp_path: Path, is_long_run: bool) -> None:
    """Five kills and a stop beyond the lease; with `--long` eight and two."""
    plan = killing.QUICK if is_long_run else killing.SHORTEST
    accounts: list[killing.Account] = []
    while len(accounts) < ATTEMPTS and not (accounts and proves_something(accounts[-1])):
        place = tmp_path / str(len(accounts))
        place.mkdir()
        account = killing.run(NEWEST, plan, 8 + len(accounts), place)
        assert account.ok, killing.table(account)
        assert account.acknowledged == account.filed == account.paid + account.denied, killing.table(account)
        assert account.commits > 0, "the notes of the database are missing"
        accounts.append(account)
    assert proves_something(accounts[-1]), "\n\n".join(map(killing.table, accounts))


def proves_something(account: killing.Account) -> bool:
    """Workers were taken over from, an activity was interrupted, and commits of the client were cut off."""
    return (
        account.takeovers >= account.pauses > 0
        and account.bodies_repeated > 0
        and account.cuts > 1
        and len(account.outages) > 1
        and account.filed > 30
    )
