"""SIGKILL at random while claims run. The long version is `python -m tests.crash.long --kills 1000`."""

from __future__ import annotations

from pathlib import Path

from tests.crash.killing import Killer


def test_no_acknowledged_claim_is_lost_and_none_is_paid_twice(tmp_path: Path) -> None:
    """Eight kills. Acknowledged means there; approved means paid, once; filed means ended."""
    account = Killer(tmp_path, seed=8).run(kills=8)
    assert account.ok, account
    assert account.acknowledged == account.filed == account.paid + account.denied > 20, account
    assert account.repeated > 0, "nobody ever had to ask again: these kills prove nothing"
    assert account.bodies_repeated > 0, "no activity was ever cut off: these kills prove nothing"
