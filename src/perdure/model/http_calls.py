"""An HTTP call as data: the recorded request, the response, and the next step.

A secret is a reference. `Secret("NAME")` may be a header's value or part of the content, and history has only
the name, in its own field: `secrets` lists the places. Data that look like a reference are not one, so data
cannot request a secret. The value is inserted when the request is sent.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import SplitResult, urljoin, urlsplit

import msgspec

from perdure.model import payload

BUILT_IN = "BuiltIn::"
"""The prefix of built-in functions; users' names must not begin with it."""
HTTP_ACTIVITY = f"{BUILT_IN}HttpActivity"
HTTP_POLLING = f"{BUILT_IN}HttpPolling"

SENSITIVE = frozenset(
    {"authorization", "cookie", "proxy-authorization", "x-functions-key", "x-api-key", "api-key"}
)
"""Headers that are not sent to another origin."""
ABOUT_CONTENT = frozenset({"content-type", "content-length", "content-encoding", "transfer-encoding"})
METHOD_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ-")
WHOLE = "#"  # the pointer of a secret that is the whole content
ACCEPTED, TOO_MANY, UNAVAILABLE = 202, 429, 503


class Secret:
    """A value known by name: inserted when the request is sent, never written to history, logs or errors.

    Parameters:
        name: its name for the application's `HttpPolicy.secrets`; by default an environment variable.
        form: the sent text, with `{}` for the value, as in "Bearer {}".
    """

    __slots__ = ("form", "name")

    def __init__(self, name: str, *, form: str = "{}") -> None:
        if not name or "{}" not in form:
            raise ValueError('a Secret needs a name, and {} in its form: Secret("TOKEN", form="Bearer {}")')
        self.name = name
        self.form = form

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self.name, self.form) == (other.name, other.form)

    def __hash__(self) -> int:
        return hash((self.name, self.form))

    def __repr__(self) -> str:
        return f"Secret({self.name!r})"

    def __format__(self, spec: str) -> str:
        raise TypeError(
            f"{self!r} has no value in an orchestrator, so it cannot be part of a text: pass "
            f'Secret({self.name!r}, form="Bearer {{}}") as the whole header'
        )


class SecretUse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The place of a secret: a header, or an RFC 6901 pointer into the content."""

    name: str
    header: str = ""
    pointer: str = ""
    form: str = "{}"


class ManagedIdentityTokenSource(msgspec.Struct, frozen=True):
    """A bearer token for `resource`, from the machine's managed identity when the request is sent.

    Azure's class of this name. Outside Azure, `HttpPolicy.tokens` is the source of tokens.
    """

    resource: str


class HttpRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """A recorded request. `form` is the encoding of `content`."""

    method: str
    uri: str
    headers: dict[str, str] = {}
    content: Any = None
    form: Literal["", "json", "text", "base64"] = ""
    secrets: tuple[SecretUse, ...] = ()
    token_resource: str = ""
    idempotent: bool = True  # sends the call's key as Idempotency-Key
    retry_statuses: tuple[int, ...] = ()
    timeout: float = 0.0  # seconds; 0 for the policy's
    attempts: int = (
        1  # in all; 0 means no limit. The last one's response is the response, whatever its status
    )


class HttpResponse(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A response of any status. Azure's `DurableHttpResponse`.

    `content` is text, or base64 for a binary body (`is_base64`). `headers` have lower-case names. `url` is the
    address after redirects.
    """

    status_code: int
    headers: dict[str, str] = {}
    content: str = ""
    url: str = ""
    is_base64: bool = False

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status_code < 300

    @property
    def body(self) -> bytes:
        """The content as bytes."""
        return base64.b64decode(self.content) if self.is_base64 else self.content.encode()

    def json(self, expected_type: Any = Any) -> Any:
        """The content read as JSON, typed if a type is given. Raises PayloadError if it is not JSON or does not
        fit.
        """
        return payload.decode(payload.check(self.body), expected_type)

    def header(self, name: str) -> str | None:
        """A header by name, in any case."""
        return self.headers.get(name.lower())

    def __getitem__(self, key: str) -> Any:
        """Access like the dict of Azure's Python library: "statusCode", "headers", "content"."""
        match key:
            case "statusCode":
                return self.status_code
            case "headers":
                return self.headers
            case "content":
                return self.content
        raise KeyError(key)


class Polling(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request with a 202 response, and how to poll for its outcome."""

    request: HttpRequest
    wait: int  # microseconds until the next poll
    interval: int  # microseconds without a Retry-After
    deadline: int = 0  # microseconds since 1970; 0 for none
    polls: int = 0  # so far, in earlier executions


# ------------------------------------------------------------------------------------------- requests


def request_of(
    method: str, uri: str, content: Any, headers: Mapping[str, str | Secret] | None, *, is_raw_str: bool
) -> HttpRequest:
    """The request to record. Raises ValueError and TypeError for an invalid one."""
    if not isinstance(method, str):
        raise TypeError(f"method must be text, such as GET, not {type(method).__name__}")
    verb = method.upper()
    if not verb or not METHOD_CHARACTERS.issuperset(verb):
        raise ValueError(f"{method!r} is not an HTTP method")
    check_uri(uri)
    if is_raw_str and not isinstance(content, str):
        raise TypeError(f"is_raw_str requires content that is text, not {type(content).__name__}")
    plain, uses = _headers(headers or {})
    form, kept, kind = _content(content, is_raw_str)
    found: list[SecretUse] = []
    if form == "json":
        kept = _without_secrets(kept, "", found)
    if form and "content-type" not in {name.lower() for name in [*plain, *(use.header for use in uses)]}:
        plain["Content-Type"] = kind
    return HttpRequest(verb, uri, plain, kept, form, (*uses, *found))


def check_uri(uri: str) -> None:
    """Raise ValueError unless this is an absolute http or https address without credentials in it."""
    if not isinstance(uri, str):
        raise TypeError(f"uri must be text, not {type(uri).__name__}")
    try:
        parts = urlsplit(uri)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise ValueError(f"the uri cannot be read: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "the uri must not contain a user or password, because history records it: use a header with a "
            "Secret"
        )
    if not usable:
        raise ValueError(f"{uri!r} is not an absolute http or https address")


def _headers(given: Mapping[str, str | Secret]) -> tuple[dict[str, str], list[SecretUse]]:
    plain: dict[str, str] = {}
    uses: list[SecretUse] = []
    for name, value in given.items():
        if (
            not isinstance(name, str)
            or not name.isascii()
            or not name.replace("-", "").replace("_", "").isalnum()
        ):
            raise ValueError(f"{name!r} is not a valid header name")
        if name.lower() in ("host", "content-length", "transfer-encoding", "connection"):
            raise ValueError(f"the header {name} is set from the request and must not be given")
        match value:
            case Secret():
                uses.append(SecretUse(value.name, header=name, form=value.form))
            case str() if value.isprintable():
                plain[name] = value
            case _:
                raise ValueError(f"the header {name} must be one line of text or a Secret")
    return plain, uses


def _content(content: Any, is_raw_str: bool) -> tuple[Literal["", "json", "text", "base64"], Any, str]:
    if content is None:
        return "", None, ""
    if is_raw_str:
        return "text", content, "text/plain; charset=utf-8"
    if isinstance(content, Secret):
        return "json", content, "text/plain; charset=utf-8"
    if isinstance(content, bytes | bytearray):
        return "base64", base64.b64encode(content).decode(), "application/octet-stream"
    return "json", content, "application/json"


def _without_secrets(node: Any, pointer: str, found: list[SecretUse]) -> Any:
    """The content with null for each secret in its dicts and lists; their places are added to `found`."""
    match node:
        case Secret():
            found.append(SecretUse(node.name, pointer=pointer or WHOLE, form=node.form))
            return None
        case dict():
            return {
                key: _without_secrets(value, f"{pointer}/{_token(key)}", found) for key, value in node.items()
            }
        case list() | tuple():
            return [_without_secrets(value, f"{pointer}/{i}", found) for i, value in enumerate(node)]
    return node


def _token(key: object) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")


def body_of(request: HttpRequest, values: Mapping[SecretUse, str]) -> bytes:
    """The bytes to send; `values` has the value of each secret."""
    if request.form == "base64":
        return base64.b64decode(request.content)
    if request.form == "text":
        return str(request.content).encode()
    if not request.form:
        return b""
    content = request.content
    for use in request.secrets:
        if use.pointer == WHOLE:
            return values[use].encode()
        if use.pointer:
            _put(content, use.pointer, values[use])
    return payload.encode(content)


def _put(content: Any, pointer: str, value: str) -> None:
    *path, last = [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]
    node = content
    for token in path:
        node = node[int(token)] if isinstance(node, list) else node[token]
    node[int(last) if isinstance(node, list) else last] = value


def onward(request: HttpRequest, uri: str, *, method: str, came_from: str = "") -> HttpRequest:
    """The next request: after a redirect, or a poll after a 202.

    Another origin gets no secret, token, cookie or key (RFC 9110, 15.4). A GET has no content.
    """
    same = origin(uri) == origin(came_from or request.uri)
    keeps_content = method == request.method
    headers = {
        name: value
        for name, value in request.headers.items()
        if (same or name.lower() not in SENSITIVE) and (keeps_content or name.lower() not in ABOUT_CONTENT)
    }
    secrets = tuple(use for use in request.secrets if same and (use.header or keeps_content))
    return msgspec.structs.replace(
        request,
        method=method,
        uri=uri,
        headers=headers,
        content=request.content if keeps_content else None,
        form=request.form if keeps_content else "",
        secrets=secrets,
        token_resource=request.token_resource if same else "",
    )


def origin(uri: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address."""
    parts: SplitResult = urlsplit(uri)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, (parts.hostname or "").rstrip("."), port


# ------------------------------------------------------------------------------------------ responses


def poll_address(response: HttpResponse, asked: str) -> str | None:
    """The address to poll for the outcome of an accepted request, or None if this is the outcome.

    Raises ValueError when the response's address is not usable.
    """
    location = response.header("location")
    if response.status_code != ACCEPTED or not location:
        return None
    address = urljoin(response.url or asked, location)
    check_uri(address)
    return address


def retry_after(response: HttpResponse, now: datetime) -> int | None:
    """The requested pause (RFC 9110, 10.2.3) in microseconds, or None.

    A date is compared with the response's own Date, so that the two machines' clocks need not agree.
    """
    value = (response.header("retry-after") or "").strip()
    if value.isascii() and value.isdigit():
        return min(int(value[:9]), _LONGEST) * 1_000_000
    at = _date(value)
    if at is None:
        return None
    seconds = (at - (_date(response.header("date") or "") or now)).total_seconds()
    return int(min(max(seconds, 0.0), _LONGEST) * 1_000_000)


_LONGEST = 30 * 86_400  # seconds


def _date(value: str) -> datetime | None:
    try:
        read = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError):
        return None
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)


__all__ = [
    "BUILT_IN",
    "HTTP_ACTIVITY",
    "HTTP_POLLING",
    "HttpRequest",
    "HttpResponse",
    "ManagedIdentityTokenSource",
    "Polling",
    "Secret",
    "SecretUse",
    "body_of",
    "check_uri",
    "onward",
    "poll_address",
    "request_of",
    "retry_after",
]
