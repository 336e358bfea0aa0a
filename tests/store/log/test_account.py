"""The setting of an account, the tokens of an identity, and what the service's refusals say. Without a service."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from perdure.errors import StoreUnusable
from perdure.store.log.account import Tokens, account_of
from perdure.store.log.port import Unknown
from perdure.store.log.requests import Answer, Requests, retry_after

KEY = "AccountKey=a2V5"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("AccountName=claims;SharedAccessSignature=", "no valid AccountKey and no SharedAccessSignature"),
        (f"TableEndpoint=https://t.example;BlobEndpoint=https://b.example;{KEY}", "no AccountName"),
        (f"AccountName=claims;DefaultEndpointsProtocol=htp;{KEY}", "must begin with https://"),
        (f"AccountName=claims;TableEndpoint=t.example;BlobEndpoint=https://b.example;{KEY}", "'t.example'"),
        ("TableEndpoint=ftp://t.example;BlobEndpoint=https://b.example;SharedAccessSignature=s", "ftp://"),
        ("TableEndpoint=https://;BlobEndpoint=https://b.example;SharedAccessSignature=s", "host name"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(text: str, why: str) -> None:
    with pytest.raises(StoreUnusable, match=why):
        account_of({"AzureWebJobsStorage": text})


def test_the_endpoint_of_an_identity_is_checked_too() -> None:
    uris = {"tableServiceUri": "table.example", "blobServiceUri": "https://blob.example"}
    with pytest.raises(StoreUnusable, match=r"table\.example"):
        account_of({f"AzureWebJobsStorage__{name}": uri for name, uri in uris.items()})


class Identity:
    """Gives tokens that last so many seconds, or fails."""

    def __init__(self, lasts: float) -> None:
        self.lasts, self.asked = lasts, 0
        self.error: Exception | None = None

    def get_token(self, scope: str) -> Any:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return SimpleNamespace(token=f"token-{self.asked}", expires_on=time.time_ns() / 1e9 + self.lasts)


class ServiceRequestError(Exception):
    """As the SDK's, when the endpoint of the identity cannot be reached."""


class CredentialUnavailableError(Exception):
    """As the SDK's, on a machine without an identity."""


def signed(tokens: Tokens) -> str:
    headers: dict[str, str] = {}
    assert tokens.sign("GET", "https://t.example/x", headers) == ""
    return headers["Authorization"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Monotonic seconds, moved by the test."""
    now = [1_000.0]
    monkeypatch.setattr("perdure.store.log.account.time.monotonic", lambda: now[0])
    return now


def test_a_token_is_asked_for_again_before_it_ends(clock: list[float]) -> None:
    identity = Identity(3_600)
    tokens = Tokens(identity)
    assert [signed(tokens), signed(tokens)] == ["Bearer token-1"] * 2
    clock[0] += 3_200
    assert signed(tokens) == "Bearer token-1"
    clock[0] += 200
    assert (signed(tokens), identity.asked) == ("Bearer token-2", 2)


def test_a_token_that_lasts_a_short_time_is_not_asked_for_at_each_request(clock: list[float]) -> None:
    identity = Identity(200)
    tokens = Tokens(identity)
    assert {signed(tokens) for _ in range(5)} == {"Bearer token-1"}
    clock[0] += 101
    assert signed(tokens) == "Bearer token-2"


def test_a_token_is_used_to_its_end_while_its_renewal_fails(clock: list[float]) -> None:
    identity = Identity(3_600)
    tokens = Tokens(identity)
    signed(tokens)
    identity.error = ServiceRequestError("the endpoint does not answer")
    clock[0] += 3_400
    assert {signed(tokens) for _ in range(5)} == {"Bearer token-1"}
    assert identity.asked == 2  # the next attempt comes later
    clock[0] += 201
    with pytest.raises(Unknown, match="ServiceRequestError"):  # a commit is tried again
        signed(tokens)
    identity.error = None
    clock[0] += 5
    assert signed(tokens) == "Bearer token-4"


def test_a_machine_without_an_identity_is_told_so() -> None:
    identity = Identity(3_600)
    identity.error = CredentialUnavailableError("no managed identity endpoint found")
    with pytest.raises(StoreUnusable, match="no managed identity endpoint found"):
        signed(Tokens(identity))


def answer(status: int, **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, b"")


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("Tue, 01 Dec 2026 10:00:30 GMT", 30.0), ("soon", 0.0), ("", 0.0)]
)
def test_the_wait_that_the_service_asks_for_is_a_number_or_a_date(header: str, seconds: float) -> None:
    busy = answer(503, retry_after=header, date="Tue, 01 Dec 2026 10:00:00 GMT")
    assert retry_after(busy) == seconds


@pytest.mark.parametrize(
    ("status", "code", "why"),
    [
        (403, "AuthenticationFailed", "signature has run out"),
        (403, "AuthorizationPermissionMismatch", "lacks the roles"),
        (403, "AuthorizationFailure", "firewall"),
        (401, "NoAuthenticationInformation", "lacks the roles"),
    ],
)
def test_a_refusal_says_its_likely_cause(status: int, code: str, why: str) -> None:
    requests = Requests("https://t.example", lambda verb, url, headers: "", timeout=1)
    with pytest.raises(StoreUnusable, match=why):
        requests._judged(answer(status, x_ms_error_code=code))
