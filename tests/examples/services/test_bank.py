"""The bank: one row and one movement of money for a key, whatever is repeated, lost, refused or taken back."""

import asyncio

import pytest

from examples.claims.services.bank.service import make
from examples.claims.services.pages import POLICY
from examples.claims.services.switches import Setting, Switch

ACCOUNT = "DE02 1203 0000 0000 2020 51"


async def pay(client, key, claim_id="C-1", amount=100, account=ACCOUNT):
    body = {"claim_id": claim_id, "amount": amount, "account": account}
    return await client.post("/payments", json=body, headers={"Idempotency-Key": key})


async def counters(client):
    return (await client.get("/counters")).json()


async def entries(client, **query):
    return (await client.get("/payments", params=query)).json()["payments"]


async def test_a_key_pays_once_also_if_many_ask_at_once_and_after_a_restart(tmp_path, serving):
    async with serving(make(tmp_path)) as client:
        answers = await asyncio.gather(*(pay(client, "C-1/payment-1") for _ in range(20)))
    async with serving(make(tmp_path)) as client:
        answers.append(await pay(client, "C-1/payment-1"))
        assert sorted(answer.status_code for answer in answers) == [200] * 20 + [201]
        assert len({answer.text for answer in answers}) == 1
        assert await counters(client) == {
            "payments": 1, "amount": 100, "reversed": 0, "refused": 0, "repeats": 20, "paid_twice": 0,
        }  # fmt: skip
        assert len(await entries(client)) == 1


@pytest.mark.parametrize("changed", [{"amount": 101}, {"claim_id": "C-2"}, {"account": "DE03"}])
async def test_a_key_is_not_taken_for_another_payment(tmp_path, serving, changed):
    async with serving(make(tmp_path)) as client:
        await pay(client, "key")
        answer = await pay(client, "key", **changed)
        assert (answer.status_code, answer.json()["detail"]) == (409, "key 'key' was used for $100 for C-1")
        assert (await counters(client))["amount"] == 100


@pytest.mark.parametrize(
    ("account", "why"), [("DE02 closed", "the account is closed"), ("unknown", "there is no such account")]
)
async def test_a_refusal_is_final_for_its_key(tmp_path, serving, account, why):
    async with serving(make(tmp_path)) as client:
        for _ in range(2):
            answer = await pay(client, "key", account=account)
            assert (answer.status_code, answer.json()) == (422, {"refusal": why, "key": "key"})
        [entry] = await entries(client)
        assert (entry["state"], entry["refusal"]) == ("refused", why)
        assert (await counters(client))["payments"] == 0


async def test_a_switch_refuses_every_payment_and_a_new_key_pays_afterwards(tmp_path, serving):
    switch = Switch("bank", tmp_path)
    async with serving(make(tmp_path)) as client:
        await pay(client, "C-1/payment-0", claim_id="C-0")
        switch.write(Setting("refuse"))
        assert (await pay(client, "C-1/payment-0", claim_id="C-0")).status_code == 200  # it is paid already
        assert (await pay(client, "C-1/payment-1")).status_code == 422
        switch.write(Setting())
        assert (await pay(client, "C-1/payment-1")).status_code == 422
        assert (await pay(client, "C-1/payment-2")).status_code == 201


async def test_the_money_of_a_lost_answer_has_moved_once(tmp_path, serving):
    switch = Switch("bank", tmp_path)
    async with serving(make(tmp_path)) as client:
        switch.write(Setting("lose"))
        assert (await pay(client, "key")).status_code == 504
        assert (await pay(client, "key")).status_code == 504
        switch.write(Setting())
        assert (await pay(client, "key")).json()["state"] == "paid"
        assert (await counters(client))["amount"] == 100


async def test_an_account_can_lose_its_first_answer_only(tmp_path, serving):
    async with serving(make(tmp_path)) as client:
        statuses = [(await pay(client, "key", account="DE02 lost")).status_code for _ in range(3)]
        assert (statuses, (await counters(client))["payments"]) == ([504, 200, 200], 1)


async def test_a_payment_is_taken_back_once_and_a_late_repeat_does_not_pay_again(tmp_path, serving):
    async with serving(make(tmp_path)) as client:
        await pay(client, "C-1/payment-1")
        for _ in range(2):
            answer = await client.post("/reversals", json={"key": "C-1/payment-1"})
            assert (answer.status_code, answer.json()["state"]) == (200, "reversed")
        late = await pay(client, "C-1/payment-1")
        assert (late.status_code, late.json()["state"]) == (200, "reversed")
        assert (await counters(client))["amount"] == 0

        await pay(client, "C-1/payment-2")
        assert (await counters(client))["paid_twice"] == 0  # one of the two was taken back


async def test_only_payments_can_be_taken_back(tmp_path, serving):
    async with serving(make(tmp_path)) as client:
        assert (await client.post("/reversals", json={"key": "none"})).status_code == 404
        await pay(client, "key", account="closed")
        assert (await client.post("/reversals", json={"key": "key"})).json()["state"] == "refused"
        assert (await client.post("/reversals", json={})).status_code == 400


async def test_a_second_payment_under_another_key_is_counted(tmp_path, serving):
    async with serving(make(tmp_path)) as client:
        await pay(client, "C-1/payment-1")
        await pay(client, "C-1/payment-2")
        assert (await counters(client))["paid_twice"] == 1  # the counter is not blind


async def test_the_book_is_listed_in_pages_by_state_and_by_claim(tmp_path, serving):
    async with serving(make(tmp_path)) as client:
        for number in range(5):
            await pay(
                client, f"key-{number}", claim_id=f"C-{number}", account="closed" if number == 3 else ACCOUNT
            )
        seen, after = [], 0
        while after is not None:
            page = (await client.get("/payments", params={"after": after, "limit": 2})).json()
            seen += [entry["key"] for entry in page["payments"]]
            after = page["next"]
        assert seen == [f"key-{number}" for number in range(5)]
        assert [entry["key"] for entry in await entries(client, state="refused")] == ["key-3"]
        assert [entry["account"] for entry in await entries(client, claim="C-2")] == [ACCOUNT]
        assert (await client.get("/payments?limit=0")).status_code == 400


async def test_the_page_shows_each_row_and_stays_when_the_bank_is_away(tmp_path, serving):
    async with serving(make(tmp_path)) as client:
        assert "Nothing was paid yet" in (await client.get("/")).text
        for _ in range(3):
            await pay(client, "C-1/payment-1", amount=52_300)
        await pay(client, "<script>/1", claim_id="<b>", account="closed")
        Switch("bank", tmp_path).write(Setting("away"))
        answer = await client.get("/")
        assert answer.headers["content-security-policy"] == POLICY
        for said in (
            "1 payment, each once",
            "$52,300",
            "2 repeats",
            "the account is closed",
            "switched to away",
        ):
            assert said in answer.text, said
        assert "<b>" not in answer.text and "<script>" not in answer.text
        assert (await client.get("/static/services.css")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({}, b'{"claim_id": "C-1", "amount": 1, "account": "a"}'),
        ({"Idempotency-Key": "k" * 201}, b'{"claim_id": "C-1", "amount": 1, "account": "a"}'),
        ({"Idempotency-Key": "k"}, b'{"claim_id": "C-1", "amount": 0, "account": "a"}'),
        ({"Idempotency-Key": "k"}, b'{"claim_id": "C-1", "amount": 1.5, "account": "a"}'),
        ({"Idempotency-Key": "k"}, b'{"claim_id": "C-1", "amount": 1}'),
        ({"Idempotency-Key": "k"}, b"nothing"),
    ],
)
async def test_what_is_no_payment_is_rejected(tmp_path, serving, headers, content):
    async with serving(make(tmp_path)) as client:
        answer = await client.post("/payments", content=content, headers=headers)
        assert (answer.status_code, await entries(client)) == (400, [])
