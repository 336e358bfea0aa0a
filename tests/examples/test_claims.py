"""The claims process: who is paid, how often, and what has run how many times on the way."""

import sqlite3
from dataclasses import replace
from datetime import date, timedelta

import httpx2
import pytest

from examples.claims import judgement
from examples.claims.ledger import GatewayDown, Ledger, payments_per_claim
from examples.claims.model import Claim, Decision, Outcome, PaymentOrder, Stage, Vehicle
from examples.claims.outbox import Outbox
from examples.claims.process import (
    LEDGER,
    SWITCH,
    app,
    ask_adjuster,
    assess_damage,
    claims_orchestrator,
    notify_customer,
    process_payment,
    score_fraud,
)
from examples.claims.source import claims_of, made_up, rows_of
from perdure.http.host import application
from perdure.model import payload

CLAIM = Claim(
    claim_id="claim-1",
    policy_bound=date(2015, 3, 1),
    deductible=500,
    umbrella_limit=0,
    happened=date(2026, 1, 5),
    kind="Parked Car",
    severity="Minor Damage",
    authority="Police",
    police_report=True,
    bodily_injuries=0,
    witnesses=2,
    injury_amount=0,
    property_amount=300,
    vehicle_amount=3_700,
    vehicle=Vehicle("Saab", "95", 2019),
)
SUSPICIOUS = replace(
    CLAIM,
    severity="Major Damage",
    injury_amount=20_000,
    vehicle_amount=60_000,
    witnesses=0,
    police_report=None,
)
YES, NO = Decision(True, by="Grace"), Decision(False, by="Grace", note="the photos show another car")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMS_HOME", str(tmp_path))
    return tmp_path


async def filed(env, claim=CLAIM):
    return await env.client.start_new(claims_orchestrator, claim.claim_id, claim)


async def decided(env, instance_id, decision):
    await env.client.raise_event(instance_id, "ApproverDecision", decision)


def outcome_of(status):
    return payload.decode(payload.encode(status.output), Outcome)


def runs(env, activity):
    return len(env.calls(activity))


# ------------------------------------------------------------------------------------------ the four ends


async def test_an_approved_claim_is_paid_once_and_the_customer_told(perdure_environment, home):
    env = await perdure_environment(app)
    instance_id = await filed(env)
    await decided(env, instance_id, YES)
    outcome = outcome_of(await env.client.wait_for_completion(instance_id))
    assert (outcome.status, outcome.payment.amount) == ("paid", 3_500)
    assert payments_per_claim(home / LEDGER) == {"claim-1": 1}
    assert "paid" in (home / "outbox" / "customer" / "claim-1.txt").read_text()


async def test_a_claim_with_too_many_points_is_rejected_with_its_reasons(perdure_environment, home):
    env = await perdure_environment(app)
    outcome = outcome_of(await env.run(claims_orchestrator, SUSPICIOUS))
    assert outcome.status == "rejected"
    assert "no witness (15)" in outcome.reason
    assert runs(env, ask_adjuster) == runs(env, process_payment) == 0


async def test_a_denied_claim_is_not_paid(perdure_environment, home):
    env = await perdure_environment(app)
    instance_id = await filed(env)
    await decided(env, instance_id, NO)
    outcome = outcome_of(await env.client.wait_for_completion(instance_id))
    assert (outcome.status, outcome.reason) == ("denied", "the photos show another car")
    assert payments_per_claim(home / LEDGER) == {}


async def test_a_claim_that_nobody_decides_expires_after_72_hours(perdure_environment, home):
    env = await perdure_environment(app)
    instance_id = await filed(env)
    await env.advance(hours=71, minutes=59)
    assert "'ApproverDecision'" in (await env.client.get_status(instance_id)).waiting_for
    await env.advance(minutes=1)
    outcome = outcome_of(await env.client.wait_for_completion(instance_id))
    assert outcome.status == "expired"
    assert payments_per_claim(home / LEDGER) == {}


async def test_no_payment_is_made_before_an_approval(perdure_environment, home):
    env = await perdure_environment(app)
    instance_id = await filed(env)
    await env.advance(hours=48)
    assert runs(env, process_payment) == 0
    assert payments_per_claim(home / LEDGER) == {}
    await decided(env, instance_id, YES)
    await env.client.wait_for_completion(instance_id)
    assert payments_per_claim(home / LEDGER) == {"claim-1": 1}


async def test_a_waiting_claim_shows_what_it_has_passed(perdure_environment):
    env = await perdure_environment(app)
    instance_id = await filed(env)
    await env.settled()
    status = await env.client.get_status(instance_id)
    assert [stage["stage"] for stage in status.custom_status or ()] == ["filed", "assessed", "asked"]


async def test_the_custom_status_is_the_trail_of_the_claim(perdure_environment):
    env = await perdure_environment(app)
    instance_id = await filed(env)
    await env.advance(hours=5)
    await decided(env, instance_id, YES)
    status = await env.client.wait_for_completion(instance_id)
    trail = payload.decode(payload.encode(status.custom_status), list[Stage])
    assert [stage.stage for stage in trail] == ["filed", "assessed", "asked", "decided", "paid"]
    assert trail[3].at - trail[2].at == timedelta(hours=5)
    assert trail[3].note == "approved by Grace"


async def test_filing_a_claim_again_files_nothing(perdure_environment):
    env = await perdure_environment(app)
    transport = httpx2.ASGITransport(app=application(env.client))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:7071") as http:
        body = payload.encode(CLAIM)
        answers = [await http.post("/api/claims", content=body) for _ in range(2)]
    await env.settled()
    assert [(answer.status_code, answer.json()["id"]) for answer in answers] == [(202, "claim-1")] * 2
    assert runs(env, score_fraud) == 1


# --------------------------------------------------------------------------------------- when things fail


async def test_while_the_bank_is_down_only_the_payment_is_tried_again(perdure_environment, home):
    env = await perdure_environment(app)
    (home / SWITCH).touch()
    instance_id = await filed(env)
    await decided(env, instance_id, YES)
    await env.advance(minutes=5)
    attempts = runs(env, process_payment)
    assert attempts > 3
    assert payments_per_claim(home / LEDGER) == {}
    assert "'process_payment'" in (await env.client.get_status(instance_id)).waiting_for

    (home / SWITCH).unlink()
    await env.client.wait_for_completion(instance_id)
    assert [runs(env, a) for a in (score_fraud, assess_damage, ask_adjuster, notify_customer)] == [1, 1, 1, 1]
    assert runs(env, process_payment) == attempts + 1
    assert len({call.idempotency_key for call in env.calls(process_payment)}) == 1
    assert payments_per_claim(home / LEDGER) == {"claim-1": 1}


@pytest.mark.parametrize("mail_to", ["adjuster", "customer"])
async def test_a_mail_server_that_is_away_fails_no_claim(perdure_environment, home, monkeypatch, mail_to):
    env = await perdure_environment(app)
    instance_id = await filed(env)
    if mail_to == "customer":
        await env.settled()
    send, failures = Outbox.send, iter([ConnectionError("the mail server is away")] * 3)

    def late(outbox, *message):
        for error in failures:
            raise error
        send(outbox, *message)

    monkeypatch.setattr(Outbox, "send", late)
    await decided(env, instance_id, YES)
    outcome = outcome_of(await env.client.wait_for_completion(instance_id))
    assert outcome.status == "paid"
    assert payments_per_claim(home / LEDGER) == {"claim-1": 1}
    assert runs(env, ask_adjuster if mail_to == "adjuster" else notify_customer) == 4


@pytest.mark.parametrize("activity", [score_fraud, assess_damage])
async def test_an_opinion_that_is_late_is_waited_for(perdure_environment, monkeypatch, activity):
    answers = iter([ConnectionError("the service is away")] * 5)
    asked = {score_fraud: "score", assess_damage: "assess"}[activity]
    give = getattr(judgement, asked)

    def late(claim):
        for error in answers:
            raise error
        return give(claim)

    monkeypatch.setattr(judgement, asked, late)
    env = await perdure_environment(app)
    instance_id = await filed(env)
    await env.advance(minutes=2)
    assert "'ApproverDecision'" in (await env.client.get_status(instance_id)).waiting_for
    assert runs(env, activity) == 6


async def test_a_restart_between_attempts_repeats_nothing_but_the_payment(perdure_environment, home):
    env = await perdure_environment(app, store=f"sqlite:///{home / 'hub.db'}")
    (home / SWITCH).touch()
    instance_id = await filed(env)
    await decided(env, instance_id, YES)
    await env.advance(minutes=2)
    before = runs(env, process_payment)

    await env.restart()
    await env.advance(minutes=30)
    assert runs(env, process_payment) > before > 1
    (home / SWITCH).unlink()
    await env.client.wait_for_completion(instance_id)
    assert [runs(env, a) for a in (score_fraud, assess_damage, ask_adjuster)] == [1, 1, 1]
    assert len({call.idempotency_key for call in env.calls(process_payment)}) == 1
    assert payments_per_claim(home / LEDGER) == {"claim-1": 1}


async def test_a_payment_whose_answer_got_lost_is_not_made_again(perdure_environment, home, monkeypatch):
    pay, answers = Ledger.pay, []

    def forgetful(ledger, order, key):
        answers.append(pay(ledger, order, key))
        if len(answers) < 3:
            raise ConnectionResetError("the bank has paid, and its answer is lost")
        return answers[-1]

    monkeypatch.setattr(Ledger, "pay", forgetful)
    env = await perdure_environment(app)
    instance_id = await filed(env)
    await decided(env, instance_id, YES)
    outcome = outcome_of(await env.client.wait_for_completion(instance_id))
    assert answers == [outcome.payment] * 3
    assert payments_per_claim(home / LEDGER) == {"claim-1": 1}


# -------------------------------------------------------------------------------------------- the parts


def test_the_ledger_pays_a_key_once_and_two_keys_twice(home):
    ledger = Ledger(home / LEDGER, home / SWITCH)
    first = ledger.pay(PaymentOrder("claim-1", 100), "a")
    assert ledger.pay(PaymentOrder("claim-1", 999), "a") == first
    assert ledger.pay(PaymentOrder("claim-1", 100), "b") != first
    assert payments_per_claim(home / LEDGER) == {"claim-1": 2}
    (home / SWITCH).touch()
    with pytest.raises(GatewayDown):
        ledger.pay(PaymentOrder("claim-1", 100), "a")
    ledger.close()
    with pytest.raises(sqlite3.ProgrammingError):
        ledger._connection.execute("select 1")


@pytest.mark.parametrize(
    ("changes", "points"),
    [
        ({}, 0),
        ({"witnesses": 0}, 15),
        ({"police_report": None}, 10),
        ({"injury_amount": 900}, 25),
        ({"injury_amount": 900, "bodily_injuries": 1}, 0),
        ({"severity": "Major Damage", "authority": None}, 40),
        ({"policy_bound": date(2025, 10, 1)}, 20),
        ({"policy_bound": date(2026, 1, 6)}, 100),
        ({"vehicle_amount": 60_000, "umbrella_limit": 1_000_000}, 20),
    ],
)
def test_the_points_card_can_be_checked_by_hand(changes, points):
    scored = judgement.score(replace(CLAIM, **changes))
    assert scored.score == points / 100
    assert bool(scored.reasons) == bool(points)


def test_what_does_not_fit_is_remarked_and_the_deductible_taken_off():
    assessed = judgement.assess(replace(CLAIM, vehicle_amount=40_000, vehicle=Vehicle("Saab", "95", 2001)))
    assert assessed.payout == 40_300 - 500
    assert assessed.remarks == ("$40,000 for minor damage", "$40,000 for a car of 25 years")
    assert judgement.assess(replace(CLAIM, deductible=9_000)).payout == 0


def test_made_up_claims_are_the_same_each_time_and_some_are_suspicious():
    claims = list(claims_of(made_up(1_000)))
    suspicious = [claim for claim in claims if judgement.score(claim).score > judgement.FRAUD_LIMIT]
    assert claims == list(claims_of(made_up(1_000)))
    assert len({claim.claim_id for claim in claims}) == 1_000
    assert 50 <= len(suspicious) <= 150
    assert claims[0].total >= 100_000 and claims[0] not in suspicious


def test_a_csv_file_is_read_and_one_without_the_columns_is_refused(tmp_path):
    rows = list(made_up(3))
    rows[1] |= {"police_report_available": "?", "authorities_contacted": "?"}
    file = tmp_path / "claims.csv"
    file.write_text("\n".join(",".join(line) for line in [rows[0], *(row.values() for row in rows)]))
    assert rows_of(file) == rows
    unknown = list(claims_of(rows_of(file)))[1]
    assert (unknown.police_report, unknown.authority) == (None, None)
    file.write_text("policy_number\n1\n")
    with pytest.raises(ValueError, match="lacks the columns policy_bind_date"):
        rows_of(file)
