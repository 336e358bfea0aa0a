"""The demo, run as a stranger runs it, and the audit at its end, which must not be blind."""

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from examples.claims.connections import BANK_BOOK
from examples.claims.demo.__main__ import delete_earlier
from examples.claims.demo.report import audit, book_in
from examples.claims.demo.stage import Run, Stage
from examples.claims.ledger import Ledger
from examples.claims.model import Claim, Payment, Ruling
from examples.claims.process import app, claims_orchestrator
from examples.claims.scenarios import SCENARIOS, DidNotComeTrue, Scenario
from examples.claims.source import claims_of, made_up
from examples.claims.staff import ADA
from tests.postgres.servers import free_port

ROOT = Path(__file__).parents[2]
OTHERS = ("CLAIMS_", "DEMO_", "PERDURE_")


def demo(folder, *options, **variables):
    """Run it once in `folder`; returns its exit code and what it printed."""
    path = os.pathsep.join(place for place in (str(ROOT), os.environ.get("PYTHONPATH")) if place)
    ours = {"DEMO_ONCE": "1", "COLUMNS": "120", "PYTHONPATH": path}
    rest = {name: value for name, value in os.environ.items() if not name.startswith(OTHERS)}
    command = [sys.executable, "-m", "examples.claims.demo", "--claims", "40", "--port", str(free_port())]
    done = subprocess.run(
        [*command, *options],
        cwd=folder,
        env=rest | ours | variables,
        capture_output=True,
        text=True,
        timeout=900,  # it only ends a hang
    )
    return done.returncode, done.stdout + done.stderr


def numbers_in(printed):
    return {
        name: int(number) for name, number in re.findall(r"^(\w[\w ]*?) {2,}(\d+)\b", printed, re.MULTILINE)
    }


@pytest.mark.timeout(1_900)
def test_the_demo_survives_a_kill_and_the_next_run_goes_on_from_there(tmp_path):
    code, printed = demo(tmp_path, "--kills", "1")
    first = numbers_in(printed)
    assert code == 0, printed
    assert "The server was killed" in printed
    assert (first["filed"], first["lost"], first["paid twice"]) == (40, 0, 0), printed
    assert first["paid"] and first["denied"] and first["waiting"], printed

    assert printed.count("came true") == len(SCENARIOS), printed
    assert "did not come true" not in printed
    for name in ("fraud scoring", "photos", "bank", "post", "claimant", "adjuster", "manager"):
        assert re.search(rf"^  {name} +http://", printed, re.MULTILINE), printed
    assert printed.rstrip().endswith("lost 0, paid twice 0"), printed

    code, printed = demo(tmp_path, "--no-stories")
    assert code == 0, printed
    assert "claims-demo.db exists" in printed
    again = numbers_in(printed)
    assert (again["filed"], again["lost"], again["paid twice"]) == (40 + len(SCENARIOS), 0, 0), printed


def test_a_fresh_demo_keeps_no_book_of_an_earlier_one(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMS_HOME", str(tmp_path))
    for name in ("claims-demo.db", "claims-people.db", "bank.db", "bank.db-wal", "post.db", "photos.db"):
        (tmp_path / name).touch()
    (tmp_path / "mine.db").touch()
    delete_earlier(tmp_path / "claims-demo.db")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.db"]


def test_a_csv_that_cannot_be_read_ends_the_demo_before_anything_starts(tmp_path):
    code, printed = demo(tmp_path, CLAIMS_CSV="nowhere.csv")
    assert (code, "nowhere.csv" in printed) == (1, True)
    assert list(tmp_path.iterdir()) == []


async def test_the_audit_sees_what_is_lost_or_paid_wrongly(perdure_environment, tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMS_HOME", str(tmp_path))
    env = await perdure_environment(app)
    approved, vanished, waiting = [harmless(claim) for claim in claims_of(made_up(3))]
    for claim in (approved, vanished, waiting):
        await env.client.start_new(claims_orchestrator, claim.claim_id, claim)
    await env.settled()
    for claim in (approved, vanished):
        ruling = Ruling(verdict="approve", reason="the photos match")
        await env.client.complete_task(f"{claim.claim_id}.review:0", ADA, ruling)
        await env.client.wait_for_completion(claim.claim_id)
    await env.settled()
    filed = {approved.claim_id, vanished.claim_id, waiting.claim_id}

    found = await audit(env.client, filed, book_in(tmp_path / BANK_BOOK))
    assert found.is_clean
    assert dict(found.numbers) | {"filed": 3, "paid": 2, "waiting": 1} == dict(found.numbers)
    assert [status.instance_id for status in found.waiting] == [waiting.claim_id]

    book = Ledger(tmp_path / BANK_BOOK)
    book.enter(Payment("pay-2", approved.claim_id, 1, "another key"))
    book.enter(Payment("pay-3", waiting.claim_id, 1, "a third key"))
    book.close()
    with closing(sqlite3.connect(tmp_path / BANK_BOOK)) as connection, connection:
        connection.execute("delete from payments where claim_id = ?", (vanished.claim_id,))
    found = await audit(env.client, {*filed, "claim-of-which-nobody-knows"}, book_in(tmp_path / BANK_BOOK))
    assert not found.is_clean
    assert found.verdict == (
        "lost 1, paid twice 1, paid but not by the bank 1, paid by the bank but not approved 1"
    )


def harmless(claim: Claim) -> Claim:
    """A claim that no fraud score rejects."""
    return replace(
        claim,
        severity="Minor Damage",
        bodily_injuries=1,
        injury_amount=0,
        property_amount=0,
        vehicle_amount=9_000,
    )


async def test_the_stage_says_which_story_did_not_come_true_and_why():
    async def true(world, claim_id):
        return f"{claim_id[:3]} was paid"

    async def false(world, claim_id):
        raise DidNotComeTrue("the bank has paid [1, 1]")

    async def broken(world, claim_id):
        raise ConnectionError("no server")

    stories = [Scenario(play.__name__, play.__name__, "", "", play) for play in (true, false, broken)]
    stage = Stage(None, None, runs=[Run(story) for story in stories])
    told = []
    await stage.play_all(told.append)
    assert {run.story.name: (run.state, run.end) for run in told} == {
        "true": ("came true", "VI- was paid"),
        "false": ("did not come true", "the bank has paid [1, 1]"),
        "broken": ("did not come true", "ConnectionError: no server"),
    }
