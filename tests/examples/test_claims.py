"""The claims process: who is paid, how often, and what has run how many times on the way."""

import sqlite3
from dataclasses import replace
from datetime import date, timedelta

import httpx2
import msgspec
import pytest

import perdure as df
from examples.claims import judgement, remote, rules
from examples.claims.assessing import check_policy, count_points, look_at_photos
from examples.claims.connections import BANK_BOOK, BANK_SWITCH, LEDGER
from examples.claims.ledger import Ledger, payments_per_claim
from examples.claims.model import Claim, Handled, Outcome, Payment, Remedy, Ruling, Stage, Vehicle
from examples.claims.paying import move_money, reverse
from examples.claims.process import app, claims_orchestrator
from examples.claims.reconciling import RECONCILIATION, reconcile_nightly
from examples.claims.source import claims_of, made_up, rows_of
from examples.claims.staff import ADA, BEN, SAM
from examples.claims.standins import Outbox, PhotoAlbum
from examples.claims.telling import remind, send
from perdure.http.host import application
from perdure.http.task_sentences import deadline_sentence
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
    vehicle_amount=9_700,
    vehicle=Vehicle("Saab", "95", 2019),
)
LARGE = replace(CLAIM, severity="Total Loss", vehicle_amount=60_200)
YES = Ruling(verdict="approve", reason="the photos match")
NO = Ruling(verdict="deny", reason="the photos show another car")
PAID_BY_HAND = Remedy(action="settled otherwise", how="a cheque")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMS_HOME", str(tmp_path))
    return tmp_path


async def filed(env, claim=CLAIM):
    return await env.client.start_new(claims_orchestrator, claim.claim_id, claim)


async def task_of(env, event, role=""):
    await env.settled()
    return next(iter((await env.client.list_tasks(event=event, role=role)).tasks), None)


async def decided(env, ruling, person=ADA, event="Decision"):
    task = await task_of(env, event)
    await env.client.complete_task(task.id, person, ruling)
    await env.settled()


async def outcome_of(env, claim_id="claim-1"):
    status = await env.client.wait_for_completion(claim_id)
    return payload.decode(payload.encode(status.output), Outcome)


def runs(env, activity):
    return len(env.calls(activity))


def paid(home):
    return payments_per_claim(home / BANK_BOOK)


def booked(home):
    return payments_per_claim(home / LEDGER)


# ------------------------------------------------------------------------------------------------- money


async def test_an_approved_claim_is_paid_once_booked_and_the_customer_told(perdure_environment, home):
    env = await perdure_environment(app)
    await filed(env)
    await decided(env, YES)
    outcome = await outcome_of(env)
    assert (outcome.status, outcome.payment.amount) == ("paid", 9_500)
    assert paid(home) == booked(home) == {"claim-1": 1}
    letter = (home / "outbox" / "customer" / "claim-1-paid.txt").read_text()
    assert "$9,500" in letter and YES.reason in letter


async def test_no_payment_is_made_before_the_second_of_two_approvals(perdure_environment, home):
    env = await perdure_environment(app)
    await filed(env, LARGE)
    await env.advance(hours=48)
    await decided(env, YES)
    assert runs(env, move_money) == 0
    assert paid(home) == {}
    await decided(env, YES, BEN)
    assert (await outcome_of(env)).status == "paid"
    assert paid(home) == {"claim-1": 1}


async def test_while_the_bank_is_away_only_the_payment_is_tried_again_and_every_time_with_its_key(
    perdure_environment, home
):
    env = await perdure_environment(app)
    (home / BANK_SWITCH).touch()
    await filed(env)
    await decided(env, YES)
    await env.advance(minutes=5)
    attempts = runs(env, move_money)
    assert attempts > 4
    assert paid(home) == {}
    assert (await env.client.get_status("claim-1.payment")).custom_status == "the bank does not answer"

    (home / BANK_SWITCH).unlink()
    await outcome_of(env)
    assert [runs(env, one) for one in (count_points, check_policy, send)] == [1, 1, 1]
    assert {call.input["key"] for call in env.calls(move_money)} == {"claim-1/payment-1"}
    assert paid(home) == {"claim-1": 1}


async def test_after_an_outage_the_gate_lets_five_payments_a_second_through(perdure_environment, home):
    env = await perdure_environment(app)
    (home / BANK_SWITCH).touch()
    claims = [replace(CLAIM, claim_id=f"claim-{n}", vehicle_amount=1_000) for n in range(40)]
    for claim in claims:
        await filed(env, claim)
    await env.advance(minutes=2)
    (home / BANK_SWITCH).unlink()
    times = {}
    for claim in claims:
        await outcome_of(env, claim.claim_id)
    for call in env.calls(move_money):
        times[call.input["key"]] = (
            await env.client.get_status(f"{call.input['claim_id']}.payment")
        ).last_updated_time
    whole = sorted(times.values())
    assert len(whole) == 40
    assert all(
        later - earlier >= timedelta(seconds=0.9) for earlier, later in zip(whole, whole[5:], strict=False)
    )


async def test_a_restart_between_attempts_repeats_nothing_but_the_payment(perdure_environment, home):
    env = await perdure_environment(app, store=f"sqlite:///{home / 'hub.db'}")
    (home / BANK_SWITCH).touch()
    await filed(env)
    await decided(env, YES)
    await env.advance(minutes=2)
    before = runs(env, move_money)

    await env.restart()
    await env.advance(minutes=30)
    assert runs(env, move_money) > before > 1
    (home / BANK_SWITCH).unlink()
    await outcome_of(env)
    assert [runs(env, one) for one in (count_points, check_policy)] == [1, 1]
    assert paid(home) == {"claim-1": 1}


async def test_a_payment_whose_answer_got_lost_is_not_made_again(perdure_environment, home):
    env = await perdure_environment(app)
    (home / BANK_SWITCH).write_text("lose")
    await filed(env)
    await decided(env, YES)
    await env.advance(minutes=3)
    assert runs(env, move_money) > 3
    assert paid(home) == {"claim-1": 1}
    (home / BANK_SWITCH).unlink()
    assert (await outcome_of(env)).payment.amount == 9_500
    assert paid(home) == booked(home) == {"claim-1": 1}


async def test_a_payment_that_the_ledger_refuses_for_good_is_taken_back_and_given_to_a_person(
    perdure_environment, home, monkeypatch
):
    def refuse(ledger, payment):
        raise sqlite3.IntegrityError("no such account in the books")

    monkeypatch.setattr(Ledger, "enter", _only_in(LEDGER, refuse))
    env = await perdure_environment(app)
    await filed(env)
    await decided(env, YES)
    await env.advance(days=2)
    task = await task_of(env, "Remedy")
    assert "no such account in the books" in task.facts["why"]
    assert runs(env, reverse) == 1
    assert paid(home) == {}
    await decided(env, PAID_BY_HAND, event="Remedy")
    assert (await outcome_of(env)).status == "settled otherwise"


async def test_a_payment_taken_back_can_be_made_again_under_a_new_key(perdure_environment, home, monkeypatch):
    def refuse(ledger, payment):
        raise sqlite3.IntegrityError("the books are closed for the night")

    env = await perdure_environment(app)
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "enter", _only_in(LEDGER, refuse))
        await filed(env)
        await decided(env, YES)
        await env.advance(days=2)
    await decided(env, Remedy(action="pay again", how="the books are open"), event="Remedy")
    assert (await outcome_of(env)).payment.key == "claim-1/payment-2"
    assert paid(home) == booked(home) == {"claim-1": 1}


def _only_in(name, replacement):
    enter = Ledger.enter

    def entered(ledger, payment):
        (_, _, file) = ledger._connection.execute("pragma database_list").fetchone()
        return (replacement if file.endswith(name) else enter)(ledger, payment)

    return entered


# ------------------------------------------------------------------------------------------------- people


async def test_a_claim_that_nobody_decides_goes_to_a_supervisor_and_is_never_refused(perdure_environment):
    env = await perdure_environment(app)
    await filed(env)
    await env.advance(hours=71, minutes=59)
    assert await task_of(env, "Decision", "adjuster")
    assert [(call.input["kind"], call.input["number"]) for call in env.calls(remind)] == [
        ("remind", 0),  # the task is new
        ("remind", 1),
        ("remind", 2),
    ]
    await env.advance(minutes=1)
    assert await task_of(env, "Decision", "supervisor")
    assert await task_of(env, "Decision", "adjuster") is None
    await env.advance(days=300)
    assert await task_of(env, "Decision", "supervisor")


async def test_the_adjusters_time_stands_still_while_the_customer_is_asked(perdure_environment):
    env = await perdure_environment(app)
    await filed(env)
    await env.advance(hours=40)
    await decided(env, Ruling(verdict="ask for more", reason="a photo of the left door"))
    await env.advance(hours=100)
    assert await task_of(env, "Decision") is None
    await env.client.raise_event("claim-1.question-1", "Documents-1", {"photos": ["door"]})
    await env.advance(hours=31)
    assert await task_of(env, "Decision", "adjuster")
    await env.advance(hours=1)
    assert await task_of(env, "Decision", "supervisor")


async def test_the_first_of_four_eyes_asks_for_more_at_once(perdure_environment):
    env = await perdure_environment(app)
    await filed(env, LARGE)
    await decided(env, Ruling(verdict="ask for more", reason="a photo of the left door"))
    assert await task_of(env, "Decision") is None
    await env.client.raise_event("claim-1.question-1", "Documents-1", {"photos": ["door"]})
    assert ((again := await task_of(env, "Decision")).decisions, again.given_by) == (2, ())


async def test_the_task_says_that_it_goes_to_the_supervisor(perdure_environment):
    env = await perdure_environment(app)
    await filed(env)
    task = await task_of(env, "Decision")
    assert task.escalation == (env.now + timedelta(hours=72), "supervisor")
    assert deadline_sentence(task, env.now).endswith("Then it goes to the role supervisor.")


async def test_an_answer_to_an_earlier_request_does_not_end_a_later_one(perdure_environment):
    env = await perdure_environment(app)
    await filed(env)
    for number, photo in ((1, "door"), (2, "roof")):
        await decided(env, Ruling(verdict="ask for more", reason=f"the {photo}"))
        if number == 2:
            with pytest.raises(df.InstanceFinished):
                await env.client.raise_event("claim-1.question-1", "Documents-1", {"photos": ["late"]})
        assert await task_of(env, "Decision") is None
        await env.client.raise_event(f"claim-1.question-{number}", f"Documents-{number}", {"photos": [photo]})
    assert (await task_of(env, "Decision")).facts["photos"] == 2
    assert env.calls(look_at_photos)[-1].input["photos"] == ["door", "roof"]


async def test_a_request_that_stays_without_an_answer_comes_back_to_the_adjuster(perdure_environment):
    env = await perdure_environment(app)
    await filed(env)
    await decided(env, Ruling(verdict="ask for more", reason="the door"))
    await env.advance(rules.DOCUMENTS_WITHIN)
    assert await task_of(env, "Decision", "adjuster")


async def test_the_same_person_is_no_second_pair_of_eyes(perdure_environment):
    env = await perdure_environment(app)
    await filed(env, LARGE)
    await decided(env, YES)
    with pytest.raises(df.TaskRefused, match="another person"):
        await decided(env, YES)
    assert (await task_of(env, "Decision")).given_by == (ADA.name,)


@pytest.mark.parametrize("second", [NO, replace(YES, amount=50_000)])
async def test_two_people_who_differ_get_it_back_and_then_the_supervisor_decides_alone(
    perdure_environment, home, second
):
    env = await perdure_environment(app)
    await filed(env, LARGE)
    for _ in range(2):
        await decided(env, YES)
        await decided(env, second, BEN)
        assert "differently" in (await task_of(env, "Decision")).facts["note"]
    assert (await task_of(env, "Decision", "supervisor")).decisions == 1
    await decided(env, replace(YES, amount=55_000), SAM)
    assert (await outcome_of(env)).payment.amount == 55_000


async def test_nobody_can_approve_more_than_the_policy_pays(perdure_environment):
    env = await perdure_environment(app)
    await filed(env)
    await decided(env, replace(YES, amount=9_501))
    assert "$9,500" in (await task_of(env, "Decision")).facts["note"]
    await decided(env, replace(YES, amount=9_499))
    assert (await outcome_of(env)).payment.amount == 9_499


@pytest.mark.parametrize(
    "ruling",
    [
        {"verdict": "approve", "reason": ""},
        {"verdict": "deny"},
        {"verdict": "approve", "amount": -1, "reason": "x"},
    ],
)
async def test_a_decision_without_a_reason_or_with_an_impossible_amount_is_none(perdure_environment, ruling):
    env = await perdure_environment(app)
    await filed(env)
    task = await task_of(env, "Decision")
    with pytest.raises((df.EventRefused, df.PayloadError)):
        await env.client.complete_task(task.id, ADA, ruling)
    assert await task_of(env, "Decision")


async def test_without_an_appeal_within_thirty_days_a_refusal_by_the_rules_is_final(
    perdure_environment, home
):
    env = await perdure_environment(app)
    began = env.now
    outcome = (await env.run(claims_orchestrator, replace(CLAIM, paid_to=date(2026, 1, 4)))).output
    assert outcome["status"] == "rejected"
    assert env.now - began == rules.SECOND_LOOK_WITHIN
    assert paid(home) == {}


# ----------------------------------------------------------------------------------------- what goes wrong


async def test_the_trail_of_the_claim_is_its_custom_status(perdure_environment):
    env = await perdure_environment(app)
    await filed(env)
    await env.advance(hours=5)
    await decided(env, YES)
    status = await env.client.wait_for_completion("claim-1")
    trail = payload.decode(payload.encode(status.custom_status), list[Stage])
    assert [stage.stage for stage in trail] == ["filed", "assessed", "with people", "decided", "paid"]
    assert trail[3].at - trail[2].at == timedelta(hours=5)
    assert trail[3].note == f"approved by {ADA.name}"


async def test_filing_a_claim_again_files_nothing(perdure_environment):
    env = await perdure_environment(app)
    transport = httpx2.ASGITransport(app=application(env.client))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:7071") as http:
        body = payload.encode(CLAIM)
        answers = [await http.post("/api/claims", content=body) for _ in range(2)]
    await env.settled()
    assert [(answer.status_code, answer.json()["id"]) for answer in answers] == [(202, "claim-1")] * 2
    assert runs(env, count_points) == 1


async def test_a_post_that_is_away_for_an_hour_delays_the_message(perdure_environment, home, monkeypatch):
    env = await perdure_environment(app)
    await filed(env)
    await env.settled()
    with monkeypatch.context() as patched:
        patched.setattr(Outbox, "send", _away)
        await decided(env, YES)
        await env.advance(hours=1)
        assert not (home / "outbox" / "customer").exists()
    assert (await outcome_of(env)).status == "paid"
    assert (home / "outbox" / "customer" / "claim-1-paid.txt").exists()
    assert paid(home) == {"claim-1": 1}


async def test_a_post_that_is_away_for_a_day_makes_a_task_for_a_person(perdure_environment, monkeypatch):
    monkeypatch.setattr(Outbox, "send", _away)
    env = await perdure_environment(app)
    await filed(env)
    await decided(env, YES)
    await env.advance(hours=25)
    assert "the post is away" in (await task_of(env, "Told")).facts["why"]
    await decided(env, Handled("I called."), event="Told")
    assert (await outcome_of(env)).status == "paid"


async def test_a_photo_desk_that_is_late_is_waited_for(perdure_environment, monkeypatch):
    look_at, failures = PhotoAlbum.look_at, iter([ConnectionError("the service is away")] * 5)

    async def late(album, claim):
        for error in failures:
            raise error
        return await look_at(album, claim)

    monkeypatch.setattr(PhotoAlbum, "look_at", late)
    env = await perdure_environment(app)
    await filed(env, replace(CLAIM, channel="app", photos=("door",)))
    await env.advance(minutes=2)
    assert await task_of(env, "Decision")
    assert (runs(env, look_at_photos), runs(env, count_points)) == (6, 1)


async def _away(*_):
    raise ConnectionError("the post is away")


# -------------------------------------------------------------------------------------------- every night


async def test_every_difference_of_ledger_and_bank_becomes_one_task_and_stays_it(perdure_environment, home):
    env = await perdure_environment(app)
    bank, ledger = Ledger(home / BANK_BOOK), Ledger(home / LEDGER)
    for kept in (bank, ledger):
        kept.enter(Payment("pay-1", "claim-1", 100, "claim-1/payment-1"))
    bank.enter(Payment("pay-2", "claim-2", 200, "claim-2/payment-1"))
    ledger.enter(Payment("pay-3", "claim-3", 300, "claim-3/payment-1"))
    await env.client.start_new(reconcile_nightly, RECONCILIATION)
    await env.advance(days=3)
    found = (await env.client.list_tasks(event="Cleared")).tasks
    assert {
        task.facts["key"]: (task.facts["in our ledger"], task.facts["at the bank"]) for task in found
    } == {
        "claim-2/payment-1": ("$0", "$200"),
        "claim-3/payment-1": ("$300", "$0"),
    }
    assert len(found) == 2
    assert (await env.client.get_status(RECONCILIATION)).runtime_status == "Running"

    ledger.enter(Payment("pay-2", "claim-2", 200, "claim-2/payment-1"))
    for task in found:
        await env.client.complete_task(task.id, SAM, Handled("booked by hand"))
    await env.advance(days=1)
    left = (await env.client.list_tasks(event="Cleared")).tasks
    assert [task.facts["key"] for task in left] == ["claim-3/payment-1"]
    for kept in (bank, ledger):
        kept.close()


# -------------------------------------------------------------------------------------------- the parts


def test_a_book_enters_a_key_once_and_two_keys_twice(home):
    ledger = Ledger(home / LEDGER)
    first = ledger.enter(Payment("pay-1", "claim-1", 100, "a"))
    assert ledger.enter(Payment("pay-9", "claim-1", 999, "a")) == first
    assert ledger.enter(Payment("pay-2", "claim-1", 100, "b")) != first
    assert payments_per_claim(home / LEDGER) == {"claim-1": 2}
    for _ in range(2):
        ledger.reverse("a")
    assert payments_per_claim(home / LEDGER) == {"claim-1": 1}
    ledger.close()
    with pytest.raises(sqlite3.ProgrammingError):
        ledger.standing()


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
    cover = rules.cover_of(replace(CLAIM, vehicle_amount=40_000, vehicle=Vehicle("Saab", "95", 2001)))
    assert cover.payable == 40_300 - 500
    assert cover.remarks == ("$40,000 for minor damage", "$40,000 for a car of 25 years")
    assert rules.cover_of(replace(CLAIM, deductible=90_000)).payable == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policy_bound": date(2026, 1, 6)}, "began on 6 January 2026"),
        ({"paid_to": date(2026, 1, 4)}, "ended on 4 January 2026"),
        ({"deductible": 10_000}, "not above your deductible of $10,000"),
        ({"paid_to": date(2026, 1, 5)}, ""),
    ],
)
def test_what_a_policy_does_not_cover_is_said_with_the_reason(changes, words):
    refusal = rules.cover_of(replace(CLAIM, **changes)).refusal
    assert words in refusal if words else refusal == ""


def test_made_up_claims_are_the_same_each_time_and_some_are_suspicious():
    claims = list(claims_of(made_up(1_000)))
    suspicious = [claim for claim in claims if judgement.score(claim).score > rules.FRAUD_LIMIT]
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


async def test_a_photo_that_was_erased_does_not_hold_up_its_claim(monkeypatch):
    def desk(request):
        digests = msgspec.json.decode(request.content)["photos"]
        if "gone" in digests:
            return httpx2.Response(404, json={"detail": "the folder of photos has no gone"})
        found = {"problem": "", "seen_before": None, "taken": None}
        damage = {"share": 0.2, "confidence": 0.9, "box": None}
        shown = [found | {"digest": digest, "damage": damage} for digest in digests]
        return httpx2.Response(200, json={"photos": shown})

    def client(url):
        return httpx2.AsyncClient(transport=httpx2.MockTransport(desk), base_url=url)

    monkeypatch.setattr(remote, "_client", client)
    service = remote.PhotoService("http://desk.test")
    photos = await service.look_at(replace(CLAIM, photos=("door", "gone")))
    await service.close()
    assert [(photo.digest, photo.problem, photo.damage) for photo in photos] == [
        ("door", "", 0.2),
        ("gone", "erased", 0.0),
    ]
