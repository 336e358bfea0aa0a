"""The files that pages load: a browser keeps them for a year, and loads the new ones after an upgrade."""

import hashlib
import re
from pathlib import Path

from starlette.testclient import TestClient

import perdure.http

FOLDER = Path(perdure.http.__file__).parent / "static"


def loaded_by_a_page(http: TestClient) -> list[str]:
    return re.findall(r'(?:href|src)="(/static/[^"]+)"', http.get("/").text)


def test_a_page_loads_each_file_by_a_name_that_changes_with_the_file(http: TestClient) -> None:
    paths = loaded_by_a_page(http)

    assert len(paths) == 3
    for path in paths:
        stem, digest, suffix = Path(path).name.split(".")
        body = (FOLDER / f"{stem}.{suffix}").read_bytes()
        assert hashlib.sha256(body).hexdigest().startswith(digest)
        assert http.get(path).content == body


def test_a_browser_keeps_the_hashed_names_only(http: TestClient) -> None:
    for path in loaded_by_a_page(http):
        assert http.get(path).headers["cache-control"] == "public, max-age=31536000, immutable"
    for name in ("perdure.css", "perdure.js", "icon.svg"):
        assert http.get(f"/static/{name}").headers["cache-control"] == "no-store"


def test_a_name_with_another_hash_is_not_found(http: TestClient) -> None:
    answer = http.get("/static/perdure.0123456789ab.css")

    assert answer.status_code == 404
    assert answer.headers["cache-control"] == "no-store"


def test_files_are_compressed_where_the_browser_takes_it(http: TestClient) -> None:
    [style] = [path for path in loaded_by_a_page(http) if path.endswith(".css")]
    packed = http.get(style, headers={"Accept-Encoding": "gzip"})
    plain = http.get(style, headers={"Accept-Encoding": "identity"})

    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(plain.content) / 2
    assert packed.content == plain.content
    assert packed.headers["vary"].lower() == "accept-encoding"
