"""Pages speak the visitor's language, show times in the visitor's zone, and keep the chosen theme."""

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from babel.messages.pofile import read_po
from starlette.testclient import TestClient

import perdure as df
from perdure.engine.client.tasks import OpenTask
from perdure.http import languages
from perdure.http.api.instance_urls import MANAGEMENT as M
from perdure.http.languages import AVAILABLE, Speech, best_of, speaking
from perdure.http.task_sentences import deadline_sentence, due_in_short, lasting_of
from tests.access.conftest import ADMIN, TOKEN, as_key
from tests.http.conftest import LOCAL

SOURCE = Path(languages.__file__).parent.parent
OTHERS = [language for language in AVAILABLE if language != "en"]
NOW = datetime(2026, 11, 30, 17, 50, tzinfo=UTC)


def texts_in_use() -> tuple[set[str], set[str]]:
    """The keys of every text that pages translate, and those with a number."""
    plain, counted = set(), set()
    for file in SOURCE.rglob("*.html"):
        text = file.read_text()
        plain |= set(re.findall(r'\b_\("((?:[^"\\]|\\.)*)"', text))
        counted |= set(re.findall(r'\bnumber\("([^"]*)"', text))
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            name = getattr(getattr(node, "func", None), "id", "")
            if name in ("say", "say_number") and isinstance(node.args[0], ast.Constant):  # type: ignore[attr-defined]
                (plain if name == "say" else counted).add(node.args[0].value)  # type: ignore[attr-defined]
    plain |= {"Overdue", "Today", "Within a week", "Later", "No deadline"}
    from perdure.http.pages import inbox, rendering

    plain |= {*rendering._HEADINGS, *rendering._REFUSALS}
    return plain | set(inbox._SAID.values()) | set(rendering._IN_SHORT.values()), counted


@pytest.mark.parametrize("language", OTHERS)
def test_a_catalogue_has_every_text_and_no_other(language: str) -> None:
    plain, counted = texts_in_use()
    with (SOURCE / "languages" / f"{language}.po").open("rb") as file:
        catalogue = read_po(file, locale=language, abort_invalid=True)
    keys = {one.id for one in catalogue if one.id and isinstance(one.id, str)}
    assert keys == plain
    assert {one.id[0] for one in catalogue if isinstance(one.id, tuple)} == counted
    for one in catalogue:
        ids, strings = (
            (one.id, one.string) if isinstance(one.id, tuple) else ((one.id,), (one.string,))  # type: ignore[assignment]
        )
        holes = [set(re.findall(r"%\((\w+)\)s", text)) for text in (*ids, *strings)]
        if one.id:
            assert all(strings), one.id
            assert set.union(*holes) == holes[-1], one.id
    assert list(catalogue.check()) == []


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("", "en"),
        ("de", "de"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("fr-CH, fr;q=0.9, en;q=0.8, de;q=0.7", "en"),
        ("en-US,en;q=0.9,de;q=0.8", "en"),
        ("xx, *;q=0.5", "en"),
        ("de;q=0, en;q=0.1", "en"),
        ("de;q=x", "en"),
        (",;q=,\t" * 400, "en"),
    ],
)
def test_the_browsers_language_is_taken_if_there_is_a_catalogue(accepted: str, expected: str) -> None:
    assert best_of(accepted) == expected


def task(due: datetime | None, **more: Any) -> OpenTask:
    return OpenTask("t:0", "t", "review", "Decide", "Pay?", NOW - timedelta(hours=1), due, **more)


GERMAN = Speech("de", ZoneInfo("Europe/Berlin"), "Europe/Berlin")


def test_the_sentence_about_a_deadline_in_two_languages_and_zones() -> None:
    due = NOW + timedelta(hours=2, minutes=10)
    one = task(due, then="it is denied", escalation=(NOW + timedelta(hours=1), "supervisor"))
    assert deadline_sentence(one, NOW) == (
        "Due in 1 h, today at 18:50 UTC. Then it goes to the role supervisor. "
        "Its deadline is today at 20:00 UTC. Then it is denied."
    )
    with speaking(GERMAN):
        assert deadline_sentence(one, NOW) == (
            "Fällig in 1 h, heute um 19:50. Danach geht sie an die Rolle supervisor. Die Frist endet heute um 21:00. "
            "Danach: it is denied."
        )


@pytest.mark.parametrize(
    ("after", "english", "german"),
    [
        (timedelta(hours=-1), "1 h late", "seit 1 h überfällig"),
        (timedelta(days=-3), "3 days late", "seit 3 Tagen überfällig"),
        (timedelta(minutes=12), "12 min", "12 min"),
        (timedelta(days=2), "Wed 2 Dec, 17:50", "Mi., 2. Dez., 18:50"),
        (None, "no deadline", "keine Frist"),
    ],
)
def test_the_column_of_a_list(after: timedelta | None, english: str, german: str) -> None:
    one = task(None if after is None else NOW + after)
    assert due_in_short(one, NOW) == english
    with speaking(GERMAN):
        assert due_in_short(one, NOW) == german


def test_a_day_begins_at_the_visitors_midnight() -> None:
    one = task(NOW + timedelta(hours=5, minutes=30))  # 23:20 in UTC, 00:20 in Berlin
    assert "today at 23:20 UTC" in deadline_sentence(one, NOW)
    with speaking(GERMAN):
        assert "morgen um 00:20" in deadline_sentence(one, NOW)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "less than a minute"),
        (59, "less than a minute"),
        (60, "1 min"),
        (3_660, "1 h 1 min"),
        (90_000, "1 day 1 h"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: int, said: str) -> None:
    assert lasting_of(timedelta(seconds=seconds)) == said


# ------------------------------------------------------------------------------------------------- pages


@pytest.fixture
def http() -> Iterator[TestClient]:
    app = df.App("desk")

    @app.orchestrator
    async def review(context: df.OrchestrationContext) -> Any:
        return await context.human_task("Decide", bool, title="Pay claim 7?", timeout=timedelta(days=3))

    with TestClient(app.asgi(store="memory:", token=TOKEN, admin_key=ADMIN), base_url=LOCAL) as http:
        http.post(f"{M}/orchestrators/review/r-1", headers=as_key(ADMIN))
        yield http


def german(http: TestClient, path: str) -> str:
    found = http.get(path, headers=as_key(ADMIN) | {"accept-language": "de-DE,de;q=0.9"})
    assert found.headers["content-language"] == "de"
    return found.text


def test_the_inbox_and_the_page_of_a_link_speak_german(http: TestClient) -> None:
    page = german(http, "/inbox/r-1:0")
    assert '<html lang="de">' in page
    for text in ("Posteingang", "Antwort senden", "Tagen", "Ja", "Nein"):
        assert text in page, text
    link = http.post(f"{M}/instances/r-1/links", json={"event": "Decide"}, headers=as_key(ADMIN)).json()[
        "url"
    ]
    asked = http.get(link, headers={"accept-language": "de"}).text
    assert "Es wird nichts gesendet" in asked
    assert "Dieser Link gilt einmal" in asked
    missing = http.post(link, data={}, headers={"accept-language": "de"})
    assert (missing.status_code, "fehlt" in missing.text) == (400, True)
    thanks = http.post(link, data={"field.": "true"}, headers={"accept-language": "de"}).text
    assert "Vielen Dank" in thanks
    assert "wurde schon verwendet" in http.get(link, headers={"accept-language": "de"}).text


def choose(http: TestClient, **wanted: str) -> Any:
    http.get("/login")
    csrf = http.cookies["perdure_csrf"]
    return http.post("/look", data={"csrf": csrf, **wanted}, follow_redirects=False)


def test_a_choice_outlives_the_page(http: TestClient) -> None:
    chosen = choose(http, language="de", theme="dark", times="", back="/inbox?q=x")
    assert (chosen.status_code, chosen.headers["location"]) == (303, "/inbox?q=x")
    page = http.get("/inbox", headers=as_key(ADMIN) | {"accept-language": "en"}).text
    assert '<html lang="de" data-theme="dark">' in page
    choose(http, language="", theme="", times="", back="/inbox")
    assert '<html lang="en">' in http.get("/inbox", headers=as_key(ADMIN)).text


def test_times_are_the_visitors_until_utc_is_chosen(http: TestClient) -> None:
    http.cookies.set("perdure_zone", "Asia/Tokyo")
    page = http.get("/inbox/r-1:0", headers=as_key(ADMIN)).text
    assert " UTC." not in page
    choose(http, times="utc", back="/inbox")
    assert " UTC." in http.get("/inbox/r-1:0", headers=as_key(ADMIN)).text


@pytest.mark.parametrize(
    "back", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:1", "/\n", ""]
)
def test_a_choice_leads_to_no_other_site(http: TestClient, back: str) -> None:
    assert choose(http, back=back).headers["location"] == "/"


@pytest.mark.parametrize(
    "value", ["../de", "xx", "<script>", "de\n", "x" * 5_000, "Europe/../etc/passwd", "/etc/passwd"]
)
def test_a_cookie_with_anything_else_is_ignored(http: TestClient, value: str) -> None:
    cookie = "; ".join(f"{name}={value!r}" for name in ("perdure_language", "perdure_zone", "perdure_theme"))
    page = http.get("/inbox", headers=as_key(ADMIN) | {"cookie": cookie.replace("\n", "")})
    assert page.status_code == 200
    assert '<html lang="en">' in page.text


def test_a_choice_needs_the_forms_token(http: TestClient) -> None:
    assert http.post("/look", data={"theme": "dark"}, follow_redirects=False).status_code == 403


POLISH = """
msgid ""
msgstr ""
"Content-Type: text/plain; charset=utf-8\\n"
"Plural-Forms: nplurals=3; plural=(n==1 ? 0 : n%10>=2 && n%10<=4 && (n%100<12 || n%100>14) ? 1 : 2);\\n"

msgid "%(number)s day"
msgid_plural "%(number)s days"
msgstr[0] "%(number)s dzień"
msgstr[1] "%(number)s dni"
msgstr[2] "%(number)s dnia"
"""


def test_a_third_language_is_a_file_with_plural_forms_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pl.po").write_text(POLISH)
    monkeypatch.setattr(languages, "FOLDER", tmp_path)
    with speaking(Speech("pl")):
        said = [languages.say_number("%(number)s day", "%(number)s days", number) for number in (1, 2, 5, 22)]
    assert said == ["1 dzień", "2 dni", "5 dnia", "22 dni"]


def test_a_page_without_translation_is_english_and_says_so(http: TestClient) -> None:
    found = http.get("/keys", headers=as_key(ADMIN) | {"accept-language": "de"})
    assert (found.headers["content-language"], '<html lang="en">' in found.text) == ("en", True)
    assert "Abmelden" not in found.text


def test_the_error_of_a_link_is_in_the_language_of_who_opens_it(http: TestClient) -> None:
    made = http.post(f"{M}/instances/r-1/links", json={"event": "Decide"}, headers=as_key(ADMIN)).json()[
        "url"
    ]
    found = http.get(made[:-3], headers={"accept": "text/html", "accept-language": "de"})
    assert (found.headers["content-language"], '<html lang="de">' in found.text) == ("de", True)
    assert "Dieser Link ist nicht vollständig." in found.text
    assert not re.findall(r"Forbidden|What PDR|Copy the whole link", found.text)


def test_every_time_of_the_inbox_and_of_links_has_its_date_and_zone_on_hover(http: TestClient) -> None:
    http.cookies.set("perdure_zone", "Asia/Tokyo")
    link = http.post(f"{M}/instances/r-1/links", json={"event": "Decide"}, headers=as_key(ADMIN)).json()[
        "url"
    ]
    pages = {
        "inbox": (3, lambda: http.get("/inbox/r-1:0", headers=as_key(ADMIN)).text),
        "link": (1, lambda: http.get(link).text),
        "utc": (
            1,
            lambda: http.get(link, headers={"cookie": "perdure_zone=Asia/Tokyo; perdure_times=utc"}).text,
        ),
        "done": (1, lambda: http.post(link, data={"field.": "true"}).text),
    }
    for name, (count, look) in pages.items():
        if name == "utc":
            http.cookies.delete("perdure_zone")
        zone = "UTC" if name in ("utc", "done") else "Asia/Tokyo"
        shown = re.findall(r'<time datetime="([^"]+)" title="(\d{4}-\d\d-\d\d [\d:.]+) ([^"]+)">', look())
        assert [given for _, _, given in shown] == [zone] * count, name
        for instant, written, _ in shown:
            local = datetime.fromisoformat(instant).astimezone(ZoneInfo(zone))
            assert written.startswith(f"{local:%Y-%m-%d %H:%M:%S}"), name


def test_a_page_for_staff_has_no_word_of_another_language(http: TestClient) -> None:
    page = http.get("/instances/r-1", headers=as_key(ADMIN) | {"accept-language": "de"}).text
    assert ("Yes" in page, "Ja" in page, "Fällig" in page) == (True, False, False)


@pytest.mark.parametrize("given", [{"field.": "maybe"}, {}])
def test_a_refused_answer_is_explained_in_the_language_of_the_visitor(
    http: TestClient, given: dict[str, str]
) -> None:
    link = http.post(f"{M}/instances/r-1/links", json={"event": "Decide"}, headers=as_key(ADMIN)).json()[
        "url"
    ]
    page = http.post(link, data=given, headers={"accept-language": "de"})
    [said] = re.findall(r'<p class="problem" role="alert">([^<]*)', page.text)
    assert (page.status_code, "must" in said, "required" in said) == (400, False, False)
    assert said.endswith(("fehlt", "fehlt.", "Werte", "Werte.", "sein", "sein.")), said
