"""The post: each message arrives once for its key, and a page shows it as it was received."""

import asyncio
import re

import pytest

from examples.claims.services.pages import POLICY
from examples.claims.services.post.letters import parts_of
from examples.claims.services.post.service import make
from examples.claims.services.switches import Setting, Switch

LINK = {
    "label": "Your claim",
    "url": "http://127.0.0.1:7071/claim/C-1/sig",
    "about": "shows C-1, nothing else",
}
MESSAGE = {
    "key": "C-1-paid", "kind": "text", "to": "Customer of C-1", "address": "+1 555 0100", "claim_id": "C-1",
    "subject": "We have paid $52,300", "text": "The money is on its way.", "links": [LINK],
}  # fmt: skip


async def send(client, **changed):
    return await client.post("/messages", json=MESSAGE | changed)


async def counters(client):
    return (await client.get("/counters")).json()


async def messages(client, **query):
    return (await client.get("/messages", params=query)).json()["messages"]


async def test_a_message_arrives_once_also_if_it_is_sent_often_at_once_and_after_a_restart(tmp_path, serving):
    async with serving(make(tmp_path)) as client:
        answers = await asyncio.gather(*(send(client) for _ in range(9)))
    async with serving(make(tmp_path)) as client:
        answers.append(await send(client, text="a retry with other words"))
        assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201]
        assert sorted(answer.json()["tries"] for answer in answers) == list(range(1, 11))
        [found] = await messages(client)
        assert found.pop("at").startswith("20")
        assert found == MESSAGE | {"number": 1, "tries": 10}
        assert await counters(client) == {
            "sent": 1, "mails": 0, "texts": 1, "tried_again": 1, "refused": 0, "arrived_twice": 0, "opened": 0,
        }  # fmt: skip


async def test_the_messages_of_a_claim_are_emptied_and_none_arrives_again(tmp_path, serving):
    async with serving(make(tmp_path)) as client:
        await send(client)
        await send(client, key="C-2-paid", claim_id="C-2")
        answers = [await client.delete("/claims/C-1") for _ in range(2)]
        assert [answer.json() for answer in answers] == [{"erased": 1}, {"erased": 0}]
        assert (await send(client)).status_code == 200
        other, emptied = await messages(client)
        assert (other["claim_id"], other["address"]) == ("C-2", MESSAGE["address"])
        assert (emptied["address"], emptied["text"], emptied["links"]) == ("erased", "", [])
        assert (await client.get("/")).status_code == 200
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("post.db*"))
    assert kept.count(MESSAGE["address"].encode()) == 1


async def test_an_address_that_does_not_exist_is_refused_for_good_and_counted_once(tmp_path, serving):
    async with serving(make(tmp_path)) as client:
        for _ in range(2):
            answer = await send(client, address="ann@nowhere.example")
            refusal = {"refusal": "there is no such mailbox", "key": "C-1-paid"}
            assert (answer.status_code, answer.json()) == (422, refusal)
        found = await counters(client)
        assert (found["sent"], found["refused"]) == (0, 1)


async def test_the_switch_refuses_or_turns_off_but_the_page_stays(tmp_path, serving):
    async with serving(make(tmp_path)) as client:
        await send(client)
        for mode, status in (("refuse", 422), ("away", 503)):
            Switch("post", tmp_path).write(Setting(mode))
            assert (await send(client, key="another")).status_code == status
            assert "We have paid $52,300" in (await client.get("/")).text


async def test_messages_are_found_by_claim_kind_and_words(tmp_path, serving):
    async with serving(make(tmp_path)) as client:
        await send(client)
        await send(client, key="2", claim_id="C-2", kind="mail", subject="You are the second", to="adjusters")
        await send(client, key="3", claim_id="C-2", text="100% of the WINDOWS_are fine")
        for query, keys in (
            ({}, ["3", "2", "C-1-paid"]), ({"claim": "C-2"}, ["3", "2"]), ({"kind": "mail"}, ["2"]),
            ({"q": "second"}, ["2"]), ({"q": "windows_"}, ["3"]), ({"q": "%"}, ["3"]), ({"q": "adjusters"}, ["2"]),
            ({"q": "absent"}, []),
        ):  # fmt: skip
            assert [found["key"] for found in await messages(client, **query)] == keys, query
        assert (await client.get("/messages?kind=fax")).status_code == 400
        assert (await client.get("/?kind=fax")).status_code == 200


async def test_the_page_runs_under_a_strict_policy_and_shows_text_as_text(tmp_path, serving):
    async with serving(make(tmp_path)) as client:
        assert "Nothing was sent yet" in (await client.get("/")).text
        await send(
            client, subject="<script>alert(1)</script>", text="a <b> & <script>c</script>", to='"><img src=x>'
        )
        answer = await client.get("/?q=<script>")
        assert answer.headers["content-security-policy"] == POLICY
        assert "unsafe" not in POLICY
        assert "<b>" not in re.sub(r"<div class=\"link\">.*?</div>", "", answer.text)
        assert "<img" not in answer.text and "alert(1)</script>" not in answer.text
        assert not re.search(r"\sstyle=|\son\w+=|<style|<script>", answer.text)


async def test_following_a_link_leads_to_the_application_and_is_counted(tmp_path, serving):
    async with serving(make(tmp_path)) as client:
        number = (await send(client)).json()["number"]
        assert f'href="/open/{number}/0"' in (await client.get("/")).text
        answer = await client.get(f"/open/{number}/0")
        assert (answer.status_code, answer.headers["location"]) == (303, LINK["url"])
        assert (await counters(client))["opened"] == 1
        assert "Opened once." in (await client.get(f"/?show={number}")).text
        for path in (f"/open/{number}/1", "/open/99/0"):
            assert (await client.get(path)).status_code == 404


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "fax"},
        {"key": ""},
        {"links": [LINK | {"url": "javascript:alert(1)"}]},
        {"links": [LINK | {"url": "data:text/html,x"}]},
        {"links": [LINK] * 11},
        {"text": "x" * 10_001},
    ],
)
async def test_what_is_no_message_is_rejected(tmp_path, serving, changed):
    async with serving(make(tmp_path)) as client:
        assert (await send(client, **changed)).status_code == 400
        assert (await client.post("/messages", content=b"nothing")).status_code == 400
        assert (await counters(client))["sent"] == 0


def test_a_text_has_paragraphs_and_lists():
    text = "One\ntwo\n\n- a\n- b\nthen\n\n\n\nend\n"
    assert [(part.kind, part.lines) for part in parts_of(text)] == [
        ("paragraph", ["One", "two"]), ("list", ["a", "b"]), ("paragraph", ["then"]), ("paragraph", ["end"]),
    ]  # fmt: skip
