"""The pages that problem documents lead to."""

import re
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

import perdure as df
from perdure.error_numbers import NUMBERS, number_of
from perdure.http.problem import SAME_PAGE
from tests.http.conftest import LOCAL, M

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("number", NUMBERS.values())
def test_every_number_has_a_page_that_leads_nowhere_wrong(http: TestClient, number: str) -> None:
    answer = http.get(f"/errors/{number}")

    assert answer.status_code == 200
    assert f"<h1>{number}: " in answer.text and "<h2>What to do</h2>" in answer.text
    for link in re.findall(r'href="([^"#]+)"', answer.text):
        assert http.get(link).status_code == 200, link


def test_the_index_leads_to_all_of_them(http: TestClient) -> None:
    links = set(re.findall(r'href="/errors/(PDR-\d+)"', http.get("/errors").text))

    assert links == set(NUMBERS.values())


def test_a_number_that_nobody_gave_is_not_found_whatever_is_written_in_it(http: TestClient) -> None:
    for number in ("PDR-999", "index", "..%2findex", "%2e%2e%2ferrors%2fPDR-020", "PDR-020.md", "<b>"):
        assert http.get(f"/errors/{number}").status_code == 404, number
    assert http.get("/errors/pdr-020").status_code == 200


@pytest.mark.parametrize(
    ("path", "page"),
    [
        (f"{M}/instances/nobody", "InstanceNotFound"),
        (f"{M}/instances?top=none", "PayloadError"),
        (f"{M}/no/such/path", "the server refused the request"),
        ("/api/nowhere", "the server refused the request"),
    ],
)
def test_the_type_of_a_problem_is_the_address_of_its_page(http: TestClient, path: str, page: str) -> None:
    problem = http.get(path).json()

    explained = http.get(problem["type"])

    assert explained.status_code == 200
    assert f"{problem['number']}: {page}" in explained.text


def test_below_a_prefix_so_are_the_pages(app: df.App) -> None:
    host = app.asgi(store="memory:", access="open")
    site = Starlette(routes=[Mount("/any where", host)], lifespan=host.lifespan)
    with TestClient(site, base_url=LOCAL) as http:
        answer = http.get(f"/any where{M}/instances/nobody")
        problem = answer.json()
        refused = http.get("/any where/", headers={"host": "evil.example"}).json()
        page = http.get(problem["type"])
        index = http.get("/any where/errors")

    assert problem["type"] == "/any%20where/errors/PDR-020"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert refused["type"] == "/any%20where/errors/PDR-090"
    assert page.status_code == 200 and 'href="/any%20where/errors"' in page.text
    assert 'href="/any%20where/errors/PDR-094"' in index.text


def test_refusals_without_a_number_of_their_own_have_a_page_all_the_same() -> None:
    assert all(number_of(code) for code in SAME_PAGE.values())
    assert not any(number_of(code) for code in SAME_PAGE)


def test_the_package_ships_the_pages() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    assert '"docs/errors" = "perdure/http/errors"' in text
