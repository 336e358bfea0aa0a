"""The claimant's pages: filing, following, adding, and what their links cannot do."""

import io
import re
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx2
import pytest
from PIL import Image

from examples.claims import connections
from examples.claims.erasing import NoClaim, erase
from examples.claims.model import Ruling
from examples.claims.people import UNKNOWN
from examples.claims.process import app
from examples.claims.screens.office import office
from examples.claims.screens.room import Room
from examples.claims.services.photos.service import make as make_photos
from examples.claims.services.photos.store import PhotoStore
from examples.claims.services.post.service import make as make_post
from examples.claims.staff import ADA, BEN, SAM, SUE
from perdure.engine.upkeep.verification import verify
from perdure.http.access.gate import Access
from perdure.http.api.instance_urls import MANAGEMENT as M
from perdure.http.host import application
from tests.access.conftest import ADMIN

OFFICE, SERVER, STAFF = "http://office.test", "http://localhost:7071", "the-key-of-the-staff"
FIRST = {
    "step": "what", "policy": "v-318-2046", "kind": "crash", "day": "26", "month": "11", "year": "2026",
    "where": ["fl", "l"], "repair": "2,400", "hurt": "no", "report": "yes", "ticket": "a-ticket",
    "words": "Grace Hopper drove into me.",
}  # fmt: skip
REACH = {"tel": "+1 202 555 0117", "mail": "ada@example.org", "account": "DE00 4417"}
PERSONAL = ("Hopper", "555 0117", "ada@example.org", "DE00 4417")


class Visitor:
    """A browser without a script, at the office."""

    def __init__(self, env, home):
        self.env, self.home = env, home
        self.people = connections.people()
        self.photos = PhotoStore(home / "photos")
        self.links = connections.links(OFFICE)
        room = Room(env.client, self.people, self.links, self.photos, STAFF)
        self.http = httpx2.AsyncClient(transport=httpx2.ASGITransport(office(room)), base_url=OFFICE)

    async def post(self, path, data, photos=()):
        files = [("file", (f"{n}.jpg", photo, "image/jpeg")) for n, photo in enumerate(photos)]
        answer = await self.http.post(path, data=data, files=files or [("none", ("", b""))])
        await self.env.settled()
        return answer

    async def files(self, photos=(), **changes):
        """All three steps; returns the last answer."""
        first = FIRST | changes
        answer = await self.post("/file", first)
        if answer.status_code != 200:
            return answer
        answer = await self.post("/file", first | {"step": "photos"}, photos)
        if answer.status_code != 200:
            return answer
        tokens = re.findall(r'name="photo" value="([^"]+)"', answer.text)
        return await self.post("/file", first | REACH | {"step": "check", "photo": tokens})

    async def page(self, path):
        await self.env.settled()
        return await self.http.get(path)

    async def close(self):
        await self.http.aclose()
        self.people.close()


@pytest.fixture
async def visitor(perdure_environment, tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMS_HOME", str(tmp_path))
    monkeypatch.setattr(
        "examples.claims.screens.claimant._now", lambda: datetime(2026, 12, 1, 12, tzinfo=UTC)
    )
    env = await perdure_environment(
        app, store=f"sqlite:///{tmp_path / 'hub.db'}", start=datetime(2026, 12, 1, 12, tzinfo=UTC)
    )
    found = Visitor(env, tmp_path)
    yield found
    await found.close()


def jpeg(colour=(30, 80, 150), size=(320, 240)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG")
    return file.getvalue()


async def claims_of(visitor):
    page = await visitor.env.client.query(name="claims_orchestrator")
    return [status.instance_id for status in page.instances]


# ------------------------------------------------------------------------------------------------- filing


async def test_three_steps_file_a_claim_and_lead_to_its_page(visitor):
    answer = await visitor.files([jpeg()])
    assert answer.status_code == 303, answer.text
    page = await visitor.page(answer.headers["location"])
    assert "We have paid" in page.text and "$1,400" in page.text
    [claim_id] = await claims_of(visitor)
    status = await visitor.env.client.get_status(claim_id, show_input=True)
    [digest] = status.input["photos"]
    picture = await visitor.page(f"{answer.headers['location']}/photo/{digest}")
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/jpeg")


async def test_the_same_form_sent_twice_is_one_claim_and_a_stranger_gets_no_link(visitor):
    first, again = await visitor.files([jpeg()]), await visitor.files([jpeg()])
    stranger = await visitor.files([jpeg()], ticket="of-a-stranger")
    assert first.headers["location"] == again.headers["location"]
    assert stranger.status_code == 409 and "/claim/" not in stranger.text
    assert len(await claims_of(visitor)) == 1


@pytest.mark.parametrize("changes", [{"account": "DE99 9999"}, {"account": "DE99 9999", "repair": "9,900"}])
async def test_a_form_that_is_sent_again_with_another_account_changes_nothing(visitor, monkeypatch, changes):
    await visitor.files([jpeg()])
    [claim_id] = await claims_of(visitor)
    status = await visitor.env.client.get_status(claim_id, show_input=True)
    person = status.input["person"]
    monkeypatch.setitem(REACH, "account", changes.pop("account"))
    again = await visitor.files([jpeg()], **changes)
    assert (again.status_code, "/claim/" in again.text) == (409, False)
    assert visitor.people.find(person).account != REACH["account"]
    assert len(await claims_of(visitor)) == 1


async def test_more_photos_than_a_claim_can_have_are_told_in_words(visitor):
    eleven = [jpeg((20 * n, 1, 1)) for n in range(11)]
    answer = await visitor.post("/file", FIRST | {"step": "photos"}, eleven)
    assert (answer.status_code, "one claim can have 10 photos" in answer.text) == (422, True)
    assert len(re.findall(r'name="photo" value=', answer.text)) == 10
    assert FIRST["words"] in answer.text


async def test_a_person_is_in_no_history_and_erasing_them_leaves_histories_that_verify(visitor):
    answer = await visitor.files([jpeg()])
    [claim_id] = await claims_of(visitor)
    status = await visitor.env.client.get_status(claim_id, show_input=True)
    person, [digest] = status.input["person"], status.input["photos"]
    assert visitor.people.find(person).words == FIRST["words"]
    shown = dict(show_input=True, show_history=True, show_history_output=True)
    whole = [
        str(await visitor.env.client.get_status(one.instance_id, **shown))
        for one in (await visitor.env.client.query()).instances
    ]
    assert len(whole) > 2 and digest in "".join(whole)
    for kept in (*whole, *(file.read_bytes().decode("latin-1") for file in visitor.home.glob("claims-*"))):
        assert not [text for text in PERSONAL if text in kept]

    visitor.people.erase(person)
    visitor.photos.remove(digest)
    assert visitor.people.find(person) == UNKNOWN
    report = verify(visitor.env.store)
    assert report.problems == [] and report.instances > 0
    assert (await visitor.page(answer.headers["location"])).status_code == 200


async def test_a_claimant_is_erased_everywhere_while_a_claim_runs_and_after_it_has_ended(
    visitor, monkeypatch
):
    monkeypatch.setenv("CLAIMS_PHOTOS", str(visitor.home / "photos"))
    ended = (await visitor.files([jpeg()])).headers["location"].split("/")[2]
    large = {"repair": "20000", "day": "2", "ticket": "another"}
    running = (await visitor.files([jpeg((200, 9, 9))], **large)).headers["location"].split("/")[2]
    services = [make_photos(visitor.home), make_post(visitor.home)]
    async with AsyncExitStack() as stack:
        for service in services:
            await stack.enter_async_context(service.router.lifespan_context(service))
        photos, post = desks = [
            await stack.enter_async_context(
                httpx2.AsyncClient(transport=httpx2.ASGITransport(service), base_url="http://desk.test")
            )
            for service in services
        ]
        for claim_id in (ended, running):
            claim = (await visitor.env.client.get_status(claim_id, show_input=True)).input
            body = {"claim_id": claim_id, "happened": claim["happened"], "photos": claim["photos"]}
            assert (await photos.post("/assessments", json=body)).status_code == 200
            body = {"key": claim_id, "kind": "mail", "to": "Customer", "address": REACH["mail"]}
            body |= {"claim_id": claim_id, "subject": "We have paid", "text": "Dear Ms Hopper"}
            assert (await post.post("/messages", json=body)).status_code == 201
            for _ in range(2):  # a repeat has no effect
                await erase(claim_id, visitor.env.client, visitor.people, desks)
            assert visitor.people.find(claim["person"]) == UNKNOWN
            assert visitor.photos.original(claim["photos"][0]).exists() is False
            await visitor.http.get(f"/dossier/{claim_id}?key={STAFF}")
            assert "The customer is erased" in (await visitor.http.get(f"/dossier/{claim_id}")).text
        with pytest.raises(NoClaim):
            await erase("VI-0000009", visitor.env.client, visitor.people, desks)
    files = [
        file for file in visitor.home.rglob("*") if file.is_file() and not file.name.startswith("hub.db")
    ]
    for file in files:
        kept = file.read_bytes().decode("latin-1")
        assert not [text for text in PERSONAL if text in kept], file

    await visitor.env.client.complete_task(f"{running}.review:0", ADA, Ruling(verdict="deny", reason="no"))
    await visitor.env.settled()
    assert (await visitor.env.client.get_status(running)).custom_status[-1]["stage"] == "denied"
    report = verify(visitor.env.store)
    assert report.problems == [] and report.instances > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policy": "V-1"}, "do not know this number"),
        ({"year": "1999"}, "more than 3 years ago"),
        ({"year": "2023", "month": "11", "day": "30"}, "more than 3 years ago"),
        ({"year": "2027"}, "is in the future"),
        ({"month": "13"}, "no day of the calendar"),
        ({"day": "<script>"}, "no day of the calendar"),
        ({"repair": "-5"}, "whole dollars"),
        ({"repair": "٣"}, "whole dollars"),
        ({"kind": "flood"}, "Choose what it was"),
    ],
)
async def test_a_wrong_answer_comes_back_with_what_was_typed_and_files_nothing(visitor, changes, words):
    answer = await visitor.files([jpeg()], **changes)
    assert answer.status_code == 422 and words in answer.text
    assert ("<script>" not in answer.text and 'value="v-318-2046"' in answer.text) or "policy" in changes
    assert await claims_of(visitor) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not a photo", "not a photo"),
        (jpeg()[:400], "cut off"),
        (b"\xff\xd8\xff\xe0" + b"x" * (15 * 2**20), "too large"),
        (jpeg() + b"PK\x03\x04 and an archive", "not a photo"),
    ],
)
async def test_a_photo_that_is_none_is_refused_in_plain_words_and_blocks_no_other(visitor, content, words):
    answer = await visitor.post("/file", FIRST | {"step": "photos"}, [content, jpeg()])
    assert answer.status_code == 422 and words in answer.text
    assert len(re.findall(r'name="photo"', answer.text)) == 1
    assert list((visitor.home / "photos" / "drafts").iterdir()) == []
    streamed = await visitor.http.post("/file/photo", content=content)
    assert streamed.status_code >= 400 and words in streamed.json()["problem"]


async def test_a_form_cannot_name_a_photo_of_others(visitor):
    answer = await visitor.post("/file", FIRST | REACH | {"step": "check", "photo": ["0" * 64 + ".forged"]})
    [claim_id] = await claims_of(visitor)
    assert answer.status_code == 303
    assert (await visitor.env.client.get_status(claim_id, show_input=True)).input["photos"] == []


# ---------------------------------------------------------------------------------------------- following


async def test_a_customer_who_is_asked_sends_the_photo_and_the_claim_goes_on(visitor):
    link = (await visitor.files()).headers["location"]
    assert "We need one thing from you" in (await visitor.page(link)).text
    late = {"add": "account", "account": "DE00 9999"}
    assert (await visitor.post(link, late)).status_code == 303  # a page of another state: nothing happens
    refused = await visitor.post(link, {"add": "photos"}, [b"not a photo"])
    assert refused.status_code == 422 and "not a photo" in refused.text
    assert "We need one thing from you" in (await visitor.page(link)).text
    await visitor.post(link, {"add": "photos"}, [jpeg()])
    assert "We have paid" in (await visitor.page(link)).text


async def test_a_refusal_by_the_rules_offers_a_second_look_once(visitor):
    link = (await visitor.files([jpeg()], policy="V-555-0001")).headers["location"]
    page = await visitor.page(link)
    assert "We can’t pay this claim" in page.text and "30 September 2026" in page.text
    await visitor.post(link, {"add": "second look"})
    assert "An adjuster has until Friday 12:00" in (await visitor.page(link)).text


async def test_the_page_says_that_we_are_late_before_the_customer_asks(visitor):
    link = (await visitor.files([jpeg()], repair="20000")).headers["location"]
    assert "An adjuster has until" in (await visitor.page(link)).text
    await visitor.env.advance(hours=73)
    assert "We are late, and your claim is still open" in (await visitor.page(link)).text


async def test_a_refused_account_is_replaced_on_the_page(visitor, monkeypatch):
    monkeypatch.setitem(REACH, "account", "DE00 closed")
    link = (await visitor.files([jpeg()])).headers["location"]
    assert "Your bank refused the payment" in (await visitor.page(link)).text
    await visitor.post(link, {"add": "account", "account": "DE00 4417"})
    await visitor.env.advance(seconds=1)  # its turn at the gate
    assert "We have paid" in (await visitor.page(link)).text


# ----------------------------------------------------------------------------------- what no link can do


async def test_a_wrong_link_opens_nothing_and_tells_nothing(visitor):
    link = (await visitor.files([jpeg()])).headers["location"]
    _, _, claim_id, signature = link.split("/")
    assert signature.swapcase() != signature
    other = visitor.links.path_of("VI-0000001").rpartition("/")[2]
    for path in (
        f"/claim/{claim_id}/{signature.swapcase()}",
        f"/claim/{claim_id}/{other}",
        f"/claim/VI-0000001/{other}",
    ):
        answers = [await visitor.http.get(path), await visitor.http.post(path, data={"add": "second look"})]
        assert {answer.status_code for answer in answers} == {404}
    assert (await visitor.http.get(f"{link}/photo/{'0' * 64}")).status_code == 404


async def test_no_link_of_a_claimant_can_decide_terminate_or_purge(visitor):
    """Every address in the pages and letters of claims in every state, tried with every verb of the server."""
    open_, paid, asked, rejected = [
        (await visitor.files(photos, day=str(day), **changes)).headers["location"]
        for day, photos, changes in (
            (1, [jpeg()], {"repair": "20000"}),
            (2, [jpeg()], {}),
            (3, [], {}),
            (4, [jpeg()], {"policy": "V-555-0001"}),
        )
    ]
    pages = [(await visitor.page(link)).text for link in (open_, paid, asked, rejected)]
    letters = [path.read_text() for path in (visitor.home / "outbox" / "customer").iterdir()]
    assert not [
        text for text in (*pages, *letters) if re.search(r"sig=|code=|token=|runtime/webhooks|7071", text)
    ]

    server = httpx2.ASGITransport(
        application(visitor.env.client, access=Access(visitor.env.client, admin_key=ADMIN))
    )
    claim_id = open_.split("/")[2]
    before = await visitor.env.client.get_status(claim_id)
    async with httpx2.AsyncClient(transport=server, base_url=SERVER) as http:
        addresses = {found for text in pages for found in re.findall(r'(?:href|action)="([^"]+)"', text)}
        secrets = [open_.rpartition("/")[2], *filter(None, (urlsplit(one).query for one in addresses))]
        for secret in secrets:
            for name in ("code", "sig", "token", "key"):
                for method, path in (
                    ("POST", f"{M}/instances/{claim_id}/terminate"),
                    ("DELETE", f"{M}/instances/{claim_id}"),
                    ("POST", f"{M}/instances/{claim_id}.review/raiseEvent/Decision"),
                    ("POST", f"{M}/tasks/{claim_id}.review:0/complete"),
                    ("POST", f"{M}/instances/{claim_id}/suspend"),
                    ("POST", f"{M}/instances/{claim_id}/rewind"),
                    ("GET", f"{M}/instances/{claim_id}"),
                ):
                    answer = await http.request(
                        method, path, params={name: secret}, json={"verdict": "approve"}
                    )
                    assert answer.status_code in (401, 403, 404, 429), (method, path, answer.status_code)
    for wish in ("decide", "approve", "terminate", "purge", "photos", "report", "account", "second look"):
        await visitor.post(open_, {"add": wish, "verdict": "approve", "account": "DE00 4417"})
    after = await visitor.env.client.get_status(claim_id)
    assert after.custom_status == before.custom_status and after.runtime_status == "Running"
    await visitor.env.client.complete_task(f"{claim_id}.review:0", ADA, Ruling(verdict="deny", reason="no"))


async def test_an_adjusters_own_link_shows_and_decides_one_task_once_and_does_nothing_else(visitor):
    server = httpx2.ASGITransport(
        application(visitor.env.client, access=Access(visitor.env.client, admin_key=ADMIN, public_url=SERVER))
    )
    claim_id, other = [
        (await visitor.files([jpeg()], repair="20000", day=day)).headers["location"].split("/")[2]
        for day in ("1", "2")
    ]
    await visitor.env.advance(hours=73)
    mails = {
        person.name: [path.read_text() for path in (visitor.home / "outbox" / person.name).iterdir()]
        for person in (ADA, BEN, SAM, SUE)
    }
    assert {name: len(found) for name, found in mails.items()} == {
        ADA.name: 6,
        BEN.name: 6,
        SAM.name: 2,
        SUE.name: 2,
    }  # of two claims: when it is new and two reminders; the supervisors' after 72 hours
    links = {name: [found.split()[-1] for found in one] for name, one in mails.items()}
    [sams] = [link for link in links[SAM.name] if claim_id in link]
    [sues] = [link for link in links[SUE.name] if claim_id in link]
    adas = next(link for link in links[ADA.name] if claim_id in link)
    answer = {"field.verdict": '"deny"', "field.reason": "The photos show another car."}
    async with httpx2.AsyncClient(transport=server, base_url=SERVER) as http:
        page = await http.get(sams)
        task = await visitor.env.client.get_task(f"{claim_id}.review:0")
        assert task.title in page.text and SAM.name in page.text and other not in page.text
        assert (await http.post(adas, data=answer)).status_code == 403  # the adjusters' time is over
        signature = sams.partition("?")[2]
        for method, path in (
            ("POST", sams.replace(claim_id, other).partition("?")[0].removeprefix(SERVER)),
            ("POST", f"{M}/instances/{claim_id}.review/terminate"),
            ("DELETE", f"{M}/instances/{claim_id}.review"),
            ("POST", f"{M}/tasks/{other}.review:0/complete"),
            ("GET", f"{M}/instances/{claim_id}"),
        ):
            refused = await http.request(method, f"{path}?{signature}", data=answer)
            assert refused.status_code in (401, 403, 404, 429), (method, path, refused.status_code)
        assert (await http.post(sams, data=answer)).status_code == 200
        assert {(await http.post(link, data=answer)).status_code for link in (sams, sues)} <= {409, 410}
    await visitor.env.settled()
    trail = (await visitor.env.client.get_status(claim_id)).custom_status
    assert f"denied by {SAM.name}" in [stage["note"] for stage in trail]
    assert (await visitor.env.client.get_status(f"{other}.review")).runtime_status == "Running"


async def test_the_staffs_pages_need_the_key_of_the_staff(visitor):
    for path in ("/stage", "/stage?key=wrong"):
        assert (await visitor.http.get(path)).status_code == 403
        assert (await visitor.http.post(path, data={"do": "kill"})).status_code == 403
    opened = await visitor.http.get(f"/stage?key={STAFF}")
    assert opened.status_code == 303 and "httponly" in opened.headers["set-cookie"].lower()
    elsewhere = await visitor.http.post("/stage", headers={"origin": "http://evil.test"})
    assert elsewhere.status_code == 403


async def test_every_page_has_a_strict_policy_and_no_inline_script_or_style(visitor):
    link = (await visitor.files()).headers["location"]
    for path in ("/file", link, "/nowhere", "/stage"):
        page = await visitor.page(path)
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "unsafe" not in page.headers["content-security-policy"]
        assert page.headers["referrer-policy"] == "no-referrer"
        assert not re.search(r"<style|\sstyle=|<script>|\son[a-z]+=", page.text)


# --------------------------------------------------------------------------------------------- the adjuster


async def test_the_panel_of_a_decision_shows_photos_by_addresses_that_cannot_be_made_up(visitor):
    from examples.claims.panel import claim_panel

    await visitor.files([jpeg()], repair="20000")
    [task] = (await visitor.env.client.list_tasks(event="Decision")).tasks
    values = await claim_panel(task)
    [picture] = values["pictures"]
    assert values["words"] == FIRST["words"]
    server = httpx2.ASGITransport(application(visitor.env.client))
    async with httpx2.AsyncClient(transport=server, base_url=SERVER) as http:
        shown = await http.get(picture.shown)
        assert (shown.status_code, shown.headers["content-type"]) == (200, "image/jpeg")
        for wrong in (
            picture.shown + "x",
            picture.shown.replace("plain", "secret"),
            "/api/pictures/plain/x.y",
        ):
            assert (await http.get(wrong)).status_code == 404


# --------------------------------------------------------------------------------------------- the dossier


async def test_the_dossier_tells_who_did_what_and_which_line_made_which_event(visitor):
    link = (await visitor.files([jpeg()], repair="20000")).headers["location"]
    claim_id = link.split("/")[2]
    ruling = Ruling(verdict="approve", amount=18_000, reason="It fits.", note="seen by phone")
    await visitor.env.client.complete_task(f"{claim_id}.review:0", ADA, ruling)
    await visitor.env.settled()
    assert (await visitor.http.get(f"/dossier/{claim_id}")).status_code == 403
    await visitor.http.get(f"/dossier/{claim_id}?key={STAFF}")

    page = (await visitor.http.get(f"/dossier/{claim_id}")).text
    for words in ("filed the claim", "scored 0.", ADA.name, "“It fits.” Note: seen by phone", "paid $18,000"):
        assert words in page
    assert not [text for text in PERSONAL if text in page]
    document = (await visitor.http.get(f"/dossier/{claim_id}.json")).json()
    assert document["attempts"] == [document["attempts"][0] | {"key": f"{claim_id}/payment-1"}]
    made = {line["code"].strip(): line["events"] for line in document["lines"] if line["events"]}
    assert any("ExecutionStarted" in event for event in made["async def claims_orchestrator(context: "
               "df.OrchestrationContext, claim: Claim) -> Outcome:"])  # fmt: skip
    assert sum("pay" in event for events in made.values() for event in events) == 1
    assert (await visitor.http.get("/dossier/VI-0000009")).status_code == 404


async def test_the_board_counts_what_the_claims_say(visitor):
    for day, photos, changes in ((1, [jpeg()], {"repair": "20000"}), (2, [jpeg()], {}), (3, [], {})):
        await visitor.files(photos, day=str(day), **changes)
    await visitor.http.get(f"/board?key={STAFF}")
    page = (await visitor.http.get("/board")).text
    tiles = dict(re.findall(r'<dt>([^<]+)</dt><dd class="big">([^<]+)</dd>', page))
    assert {name: tiles[name] for name in ("Filed", "Paid", "Open", "Paid out", "Without a person")} == {
        "Filed": "3", "Paid": "1", "Open": "2", "Paid out": "$1,400", "Without a person": "100%",
    }  # fmt: skip
    assert "Today: nothing lost, no claims at risk" in page
    await visitor.env.advance(hours=73)
