"""The description of the API: written from the rows that are served, so it cannot leave one out."""

import json
import re
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

import jsonschema_rs
import pytest
from pydantic import BaseModel
from starlette.requests import Request
from starlette.testclient import TestClient

import perdure as df
from perdure.http.parameters import TOP
from perdure.http.routing import GatedRoute
from tests.http.conftest import LOCAL, M, make_app


class Line(BaseModel):
    article: str
    pieces: int = 1


class Basket(BaseModel):
    lines: list[Line]


@dataclass
class Receipt:
    total: int


def served(app: df.App) -> TestClient:
    return TestClient(app.asgi(store="memory:", access="open"), base_url=LOCAL)


def document(http: TestClient) -> dict[str, Any]:
    answer = http.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for place in document["paths"].values() for operation in place.values()]


def test_every_route_for_programs_is_in_it_and_nothing_else() -> None:
    host = make_app().asgi(store="memory:", access="open")
    with TestClient(host, base_url=LOCAL) as http:
        found = document(http)
        serving: Any = host._serving
        rows = [route.row for route in serving.app.app.routes if isinstance(route, GatedRoute)]

    wanted = {
        (re.sub(r":\w+\}", "}", row.path), method.lower())
        for row in rows
        if not row.is_page and "{credential}" not in row.path
        for method in row.methods
    }
    assert {(path, method) for path, place in found["paths"].items() for method in place} == wanted
    assert len(wanted) > 35


def test_operations_have_names_of_their_own_and_links_lead_to_some(http: TestClient) -> None:
    found = operations(document(http))
    names = [operation["operationId"] for operation in found]
    links = [link for o in found for a in o["responses"].values() for link in a.get("links", {}).values()]

    assert len(set(names)) == len(names)
    assert links and {link["operationId"] for link in links} <= set(names)
    assert all(operation["summary"] for operation in found)


def test_every_schema_is_one_and_every_reference_leads_somewhere(http: TestClient) -> None:
    found = document(http)
    schemas = found["components"]["schemas"]

    for ref in re.findall(r'"\$ref": "([^"]+)"', json.dumps(found)):
        place: Any = found
        for step in ref.removeprefix("#/").split("/"):
            place = place[step]
    for schema in schemas.values():
        jsonschema_rs.meta.validate(schema)


def test_a_client_function_is_described_by_its_own_types() -> None:
    app = make_app()

    @app.route("/shops/{shop}/baskets/{day}", methods=["PUT"])
    async def fill(shop: UUID, day: date, basket: Basket) -> Receipt:
        """Fill a basket."""
        return Receipt(sum(line.pieces for line in basket.lines) + day.day + shop.int)

    with served(app) as http:
        found = document(http)
        done = http.put(f"/api/shops/{UUID(int=5)}/baskets/2026-01-20", json={"lines": [{"article": "a"}]})
        misfit = http.put(f"/api/shops/{UUID(int=5)}/baskets/2026-01-20", json={"lines": [{"pieces": 2}]})
        wrong = http.put("/api/shops/corner/baskets/2026-01-20", json={"lines": []})

    told = found["paths"]["/api/shops/{shop}/baskets/{day}"]["put"]
    assert told["summary"] == "Fill a basket."
    assert [one["schema"]["format"] for one in told["parameters"]] == ["uuid", "date"]
    assert told["requestBody"]["content"]["application/json"]["schema"]["title"] == "Basket"
    assert "article" in found["components"]["schemas"]["Line"]["properties"]
    assert told["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/Receipt")
    assert done.json() == {"total": 26}
    assert (misfit.status_code, misfit.json()["pointer"]) == (400, "/lines/0/article")
    assert (wrong.status_code, wrong.json()["code"]) == (400, "payload")
    assert "shop" in wrong.json()["detail"]


def test_path_parameters_keep_what_starlette_converts_and_default_to_text() -> None:
    app = make_app()

    @app.route("/n/{number:int}/{word}")
    async def both(number: int, word, client: df.Client, request: Request) -> object:  # type: ignore[no-untyped-def]
        return [number, word, request.path_params["number"]]

    with served(app) as http:
        assert http.get("/api/n/7/seven").json() == [7, "seven", 7]


def test_a_parameter_that_a_row_does_not_take_cannot_be_read() -> None:
    app = make_app()
    raised: list[Exception] = []

    @app.route("/top")
    async def top(request: Request) -> None:
        try:
            TOP.of(request)
        except KeyError as error:
            raised.append(error)

    with served(app) as http:
        http.get("/api/top?top=5")

    assert raised


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/instances?top=0", "top"),
        ("/instances?top=1001", "top"),
        ("/instances?top=%D9%A7", "top"),
        ("/instances?runtimeStatus=Asleep", "runtimeStatus"),
        ("/instances?showInput=maybe", "showInput"),
        ("/instances?tag=plain", "tag"),
        ("/instances/x?execution=-1", "execution"),
        ("/instances/x?wait=nan", "wait"),
        ("/audit?since=yesterday", "since"),
        ("/entities?lastOperationTimeTo=x", "lastOperationTimeTo"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(http: TestClient, path: str, name: str) -> None:
    answer = http.get(M + path)

    assert (answer.status_code, answer.json()["code"]) == (400, "payload")
    assert f"parameter {name}=" in answer.json()["detail"]


def test_the_page_for_people_names_every_operation(http: TestClient) -> None:
    page = http.get("/docs")

    assert page.status_code == 200
    for path in document(http)["paths"]:
        assert path in page.text
    assert "http://" not in page.text.replace(LOCAL, "") and "https://" not in page.text
