"""The switch of a service: a file, the same over HTTP, and what each mode does."""

import asyncio

import pytest

from examples.claims.services.bank.service import make
from examples.claims.services.switches import Setting, Switch

PAYMENT = {"claim_id": "C-1", "amount": 100, "account": "DE02"}


async def pay(client, key="C-1/payment-1", **changed):
    return await client.post("/payments", json=PAYMENT | changed, headers={"Idempotency-Key": key})


async def payments(client):
    return (await client.get("/counters")).json()["payments"]


async def test_an_empty_file_turns_a_service_off_until_it_is_removed(tmp_path, serving):
    async with serving(make(tmp_path)) as client:
        (tmp_path / "bank.switch").touch()
        assert (await pay(client)).status_code == 503
        assert (await client.get("/payments")).status_code == 503
        assert await payments(client) == 0  # the counters are always there
        assert (await client.get("/health")).json() == {"service": "bank", "mode": "away"}

        (tmp_path / "bank.switch").unlink()
        assert (await pay(client)).status_code == 201


async def test_the_switch_over_http_is_the_same_file(tmp_path, serving):
    async with serving(make(tmp_path)) as client:
        for setting in ({"mode": "slow", "seconds": 2.5}, {"mode": "refuse", "seconds": 0.0}):
            assert (await client.put("/switch", json=setting)).json() == setting
            assert (await client.get("/switch")).json() == setting
            assert Switch("bank", tmp_path).read() == Setting(**setting)
        await client.put("/switch", json={"mode": "on"})
        assert not list(tmp_path.glob("*.switch*"))


@pytest.mark.parametrize(
    "body", [b"", b"{}}", b'{"mode": "broken"}', b'{"mode": "slow", "seconds": -1}', b"[]"]
)
async def test_a_setting_that_is_none_is_rejected_and_changes_nothing(tmp_path, serving, body):
    async with serving(make(tmp_path)) as client:
        answer = await client.put("/switch", content=body)
        assert (answer.status_code, (await client.get("/switch")).json()["mode"]) == (400, "on")
        assert "The modes are on, away, slow" in answer.json()["detail"]


@pytest.mark.parametrize("text", ["", "nonsense", "slow much", "slow -3", "slow inf"])
def test_a_file_with_any_other_text_means_away(tmp_path, text):
    (tmp_path / "bank.switch").write_text(text)
    assert Switch("bank", tmp_path).read() == Setting("away")


async def test_a_wrong_service_answers_with_a_page_and_does_nothing(tmp_path, serving):
    Switch("bank", tmp_path).write(Setting("wrong"))
    async with serving(make(tmp_path)) as client:
        answer = await pay(client)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert await payments(client) == 0


async def test_a_slow_service_answers_after_its_seconds(tmp_path, serving, monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    Switch("bank", tmp_path).write(Setting("slow", 3))
    async with serving(make(tmp_path)) as client:
        assert (await pay(client)).status_code == 201
    assert slept == [3]
