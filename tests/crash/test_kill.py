"""SIGKILL at random while claims run. The long version is `python -m tests.crash.long --kills 1000`."""

from __future__ import annotations

from pathlib import Path

from tests.crash.killing import Account, Killer

ATTEMPTS = 3  # whether a kill interrupts anything depends on the machine, too


def test_no_acknowledged_claim_is_lost_and_none_is_paid_twice(tmp_path: Path, is_long_run: bool) -> None:
    """Six kills, thirty with `--long`. Acknowledged means there; approved means paid, once; filed means ended."""
    accounts: list[Account] = []
    while len(accounts) < ATTEMPTS and not (accounts and proves_something(accounts[-1])):
        place = tmp_path / str(len(accounts))
        place.mkdir()
        account = Killer(place, seed=8 + len(accounts)).run(kills=30 if is_long_run else 6)
        assert account.ok, account
        assert account.acknowledged == account.filed == account.paid + account.denied, account
        accounts.append(account)
    assert proves_something(accounts[-1]), accounts


def proves_something(account: Account) -> bool:
    """A client had to ask again, and an activity was interrupted."""
    return account.filed > 20 and account.repeated > 0 and account.bodies_repeated > 0
