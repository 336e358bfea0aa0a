"""Renders templates. The template engine escapes every value. Only the documentation's own pages of errors are marked
safe (`perdure.http.pages.error_pages`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from perdure.errors import PerdureError, outward
from perdure.http import formatting
from perdure.http.mounting import prefix_of, quoted
from perdure.http.pages.csrf import set_token, token_of
from perdure.http.principal import caller_of
from perdure.http.problem import ProblemResponse, on_http_exception, on_perdure_error
from perdure.http.routing import client_of
from perdure.http.static_files import ADDRESSES
from perdure.http.table import CODE, Handler
from perdure.model.durations import moment
from perdure.model.instances import OrchestrationStatus, RuntimeStatus

if TYPE_CHECKING:
    from perdure.http.pages.timeline import Span

OnError = Callable[[Request, Exception], Awaitable[Response]]

FOR_PROGRAMS = ("/api/", "/runtime/", "/durabletask/", "/static/", "/healthz", "/readyz", "/openapi.json")
"""Path prefixes for which an error is always a problem document."""

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
    text = _environment.get_template(template).render(
        {
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
    response = HTMLResponse(text, status)
    set_token(request, response, token)
    return response


def told(request: Request, error: PerdureError) -> str:
    """The text of an error that a page shows. The audit log gets its code."""
    request.scope[CODE] = error.code
    return outward(error)


def as_page(handler: Handler) -> Handler:
    """Turn errors into pages instead of problem documents, unless the caller accepts JSON."""

    @wraps(handler)
    async def shown(request: Request) -> Response:
        if _wants_json(request):
            return await handler(request)
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
        exact=formatting.exact,
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
    )
    return environment


_environment = _new_environment()

__all__ = ["as_page", "base_of", "draw", "error_page", "for_people", "told"]
