"""Renders templates. The template engine escapes every value. Only the documentation's own pages of errors are marked
safe (`perdure.http.pages.error_pages`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from perdure.errors import PerdureError, outward
from perdure.http import formatting
from perdure.http.languages import (
    AVAILABLE,
    ENGLISH,
    Speech,
    exact,
    name_of,
    say,
    say_number,
    speaking,
    speech,
)
from perdure.http.mounting import prefix_of, quoted
from perdure.http.pages.csrf import set_token, token_of
from perdure.http.pages.forms import Said
from perdure.http.pages.looks import LANGUAGE, TIMES, ZONE, speech_of, theme_of
from perdure.http.principal import caller_of
from perdure.http.problem import ProblemResponse, on_http_exception, on_perdure_error
from perdure.http.routing import client_of
from perdure.http.static_files import ADDRESSES
from perdure.http.table import CODE, Handler
from perdure.http.task_sentences import since
from perdure.model.durations import moment
from perdure.model.instances import OrchestrationStatus, RuntimeStatus

if TYPE_CHECKING:
    from perdure.engine.client.client import Client
    from perdure.http.pages.timeline import Span

OnError = Callable[[Request, Exception], Awaitable[Response]]

FOR_PROGRAMS = ("/api/", "/runtime/", "/durabletask/", "/static/", "/healthz", "/readyz", "/openapi.json")
"""Path prefixes for which an error is always a problem document."""

_TRANSLATED = frozenset(("inbox.html", "decide.html", "decided.html"))
"""The pages that people outside the team see, with the errors for them. The others are in English."""
_HEADINGS = (
    "Bad Request",
    "Conflict",
    "Forbidden",
    "Gone",
    "Not Found",
    "Service Unavailable",
    "Too Many Requests",
)
_REFUSALS = (
    "This link has expired.",
    "This link is not complete. Copy the whole link.",
    "This link is not valid: it was changed, belongs to another request, or its key was revoked.",
)
"""What a catalogue has for the pages of errors: headings, and why a link is refused."""
_IN_SHORT = {
    "payload": "The answer does not fit the question. Check what you have entered. Nothing was sent.",
    "event-refused": "The answer does not fit the question. Check what you have entered. Nothing was sent.",
    "idempotency-conflict": "This form was sent before, with another answer. The first answer counts.",
    "instance-finished": "The instance has finished, so there is nothing left to decide.",
    "instance-not-found": "The instance no longer exists.",
    "overloaded": "The server is busy. Nothing was sent. Try again in a few seconds.",
    "rate-limited": "There were too many requests. Wait a few seconds, and try again.",
    "engine-stopped": "The server is stopping. Nothing was sent. Try again in a few seconds.",
    "store": "The database is away. Nothing was sent. Try again in a few seconds.",
    "unauthenticated": "Sign in, and try again.",
    "task-held": "Another person has claimed this task. Nothing was changed.",
    "task-refused": "Your answer cannot count for this task. It is for another role, or needs another person.",
    "task-closed": "This task is no longer open. Nothing was sent.",
}
"""What other languages than English say for some errors. The errors themselves are in English."""

_IS_TRANSLATED = "perdure.translated"
"""Where the scope of a request says that its page is translated."""

_KINDS = {
    "activity": "activity",
    "child": "sub-orchestration",
    "wait": "event awaited",
    "entity": "entity",
    "timer": "timer",
    "retry": "pause before the next attempt",
    "failed": "failed",
}


def draw(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """Render a template, with the values that every page needs and the visitor's form token."""
    client = client_of(request)
    token = token_of(request)
    spoken = speech_of(request)
    is_for_outsiders = template == "error.html" and (
        request.scope.get(_IS_TRANSLATED, False) or not caller_of(request).scopes
    )
    if template not in _TRANSLATED and not is_for_outsiders:
        spoken = replace(spoken, language=ENGLISH)
    with speaking(spoken):
        text = _rendered(request, template, client, token, spoken, values)
    response = HTMLResponse(
        text, status, {"Content-Language": spoken.language, "Vary": "Accept-Language, Cookie"}
    )
    set_token(request, response, token)
    return response


def _rendered(
    request: Request, template: str, client: Client, token: str, spoken: Speech, values: dict[str, Any]
) -> str:
    return _environment.get_template(template).render(
        {
            "spoken": spoken,
            "theme": theme_of(request),
            "chosen_language": request.cookies.get(LANGUAGE, ""),
            "times_are_utc": request.cookies.get(TIMES) == "utc",
            "zone_is_known": ZONE in request.cookies,
            "here_again": _address_of(request),
            "method": request.method,
            "hub": client.task_hub,
            "base": base_of(request),
            "now": moment(client.gateway.now()),
            "csrf": token,
            "done": "",
            "refresh": None,
            "events": "",
            "caller": caller_of(request),
            "is_shared": getattr(client.gateway.store, "is_shared", False),
            **values,
        }
    )


def _address_of(request: Request) -> str:
    """The path and query of the page, to come back to it; without the query of a link that was refused."""
    query = request.url.query
    is_secret = any(mark in query for mark in ("sig=", "code=", "token=")) and not caller_of(request).link
    return request.url.path + (f"?{query}" if query and not is_secret else "")


def told(request: Request, error: PerdureError) -> str:
    """The text of an error that a page shows. The audit log gets its code."""
    request.scope[CODE] = error.code
    in_short = _IN_SHORT.get(error.code)
    is_said = isinstance(next(iter(error.args), ""), Said)
    return outward(error) if in_short is None or is_said or speech().language == ENGLISH else say(in_short)


def as_page(handler: Handler, *, translated: bool = False) -> Handler:
    """Turn errors into pages instead of problem documents, unless the caller accepts JSON.

    A `translated` page and its errors are in the visitor's language. The others are in English as a whole.
    """

    @wraps(handler)
    async def shown(request: Request) -> Response:
        if _wants_json(request):
            return await handler(request)
        request.scope[_IS_TRANSLATED] = translated
        with speaking(speech_of(request) if translated else replace(speech_of(request), language=ENGLISH)):
            return await answered(request)

    async def answered(request: Request) -> Response:
        try:
            return await handler(request)
        except HTTPException as error:
            answer = await on_http_exception(request, error)
        except PerdureError as error:
            request.scope[CODE] = error.code
            answer = await on_perdure_error(request, error)
        return error_page(request, answer) if isinstance(answer, ProblemResponse) else answer

    return shown


def for_people(answer_to: OnError) -> OnError:
    """Turn an error handler's problem document into a page if the caller is a browser."""

    @wraps(answer_to)
    async def answered(request: Request, error: Exception) -> Response:
        answer = await answer_to(request, error)
        if isinstance(answer, ProblemResponse) and _wants_page(request):
            return error_page(request, answer)
        return answer

    return answered


def error_page(request: Request, problem: ProblemResponse) -> Response:
    """A problem document as a page. If the store is not available, the page reloads itself."""
    again = problem.headers.get("Retry-After", "") if problem.status_code == 503 else ""
    page = draw(
        request,
        "error.html",
        status=problem.status_code,
        heading=problem.problem["title"],
        detail=problem.problem["detail"],
        in_short=_IN_SHORT.get(problem.problem["code"], ""),
        number=problem.problem["number"],
        again=again if request.method == "GET" else "",
    )
    own = ("content-type", "content-length")
    page.headers.update({name: value for name, value in problem.headers.items() if name not in own})
    return page


def _wants_page(request: Request) -> bool:
    path = request.url.path.removeprefix(base_of(request)).casefold()
    return (
        "text/html" in request.headers.get("accept", "")
        and not _wants_json(request)
        and not path.startswith(FOR_PROGRAMS)
    )


def _wants_json(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    return "json" in accept and "text/html" not in accept.partition("json")[0]


def base_of(request: Request) -> str:
    """The path prefix of this host, for links."""
    return prefix_of(request.scope)


def _summary(one: OrchestrationStatus) -> str:
    """The text in the list for an instance that does not wait."""
    if one.failure is not None:
        return formatting.went_wrong(one)[:200]
    if one.runtime_status is RuntimeStatus.Terminated:
        return str(one.output or "")
    return formatting.compact(one.output, 120) if one.output is not None else ""


def _span_title(span: Span, end: int) -> str:
    lasted = formatting.lasting(((end if span.end is None else span.end) - span.start) / 1e6)
    return f"{_KINDS[span.kind]}: {span.state}, {lasted}" + (f", {span.note}" if span.note else "")


def _shown(value: Any) -> Any:
    """Escape a value for a template, because an instance's data can contain anything. Markup is already escaped."""
    return formatting.plain(value, "\r\n\t") if type(value) is str else value


def _new_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("perdure.http"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.globals.update(
        ago=formatting.ago,
        exact=exact,
        sentence=formatting.sentence,
        wall_clock=formatting.wall_clock,
        moment=moment,
        lasting=formatting.lasting,
        pretty=formatting.pretty,
        ranges=formatting.ranges,
        compact=formatting.compact,
        quoted=quoted,
        summary=_summary,
        span_title=_span_title,
        legend=_KINDS,
        static=ADDRESSES,
        _=say,
        number=say_number,
        languages=[(code, name_of(code)) for code in AVAILABLE],
        since=since,
    )
    return environment


_environment = _new_environment()

__all__ = ["as_page", "base_of", "draw", "error_page", "for_people", "told"]
