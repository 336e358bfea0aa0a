"""The pages of bank and post, for people who want to see that each payment and each message is there once.

They run under a strict Content-Security-Policy: no inline script, no inline style, nothing from elsewhere.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

HERE = Path(__file__).parent
STATIC = Mount("/static", StaticFiles(directory=HERE / "static"))
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the links in messages are secrets
    "X-Content-Type-Options": "nosniff",
}
PAGES = Environment(
    loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def page(template: str, **values: Any) -> HTMLResponse:
    """A page from a template, with the time when it was made."""
    return HTMLResponse(PAGES.get_template(template).render(now=datetime.now(UTC), **values), headers=HEADERS)
