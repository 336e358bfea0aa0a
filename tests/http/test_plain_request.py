"""The indexed headers of a request answer as Starlette's do."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from perdure.http.plain_request import PlainRequest

RAW = [(b"host", b"a:1"), (b"x-functions-key", b"one"), (b"x-functions-key", b"tw\xf6"), (b"cookie", b"")]


def request(headers: list[tuple[bytes, bytes]]) -> PlainRequest:
    return PlainRequest({"type": "http", "headers": headers, "query_string": b""})


@pytest.mark.parametrize("name", ["host", "Host", "X-FUNCTIONS-KEY", "cookie", "origin"])
@pytest.mark.parametrize("raw", [RAW, RAW[:2]], ids=["a name twice", "each name once"])
def test_every_question_gets_the_answer_of_starlettes_headers(
    name: str, raw: list[tuple[bytes, bytes]]
) -> None:
    theirs, ours = Headers(raw=raw), request(raw).headers

    assert ours.get(name) == theirs.get(name)
    assert ours.get(name, "none") == theirs.get(name, "none")
    assert ours.getlist(name) == theirs.getlist(name)
    assert (name in ours) == (name in theirs)
    assert ours == theirs and list(ours) == list(theirs) and ours.raw == theirs.raw


def test_a_missing_header_is_named_in_the_error() -> None:
    with pytest.raises(KeyError, match="Origin"):
        request(RAW).headers["Origin"]


def test_the_next_request_object_reads_headers_that_were_replaced_in_the_scope() -> None:
    one = request(RAW)
    assert one.headers["host"] == "a:1"

    one.scope["headers"] = [(b"host", b"b:2")]

    assert PlainRequest(one.scope).headers["host"] == "b:2"
