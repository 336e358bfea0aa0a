"""The pages that explain errors: /errors, and for example /errors/PDR-020, the `type` of a problem document.

They are Markdown pages of the documentation, shipped with the package. In a checkout they are read from the
documentation's folder. Every caller who gets an error can read them, so they need no key.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt
from markupsafe import Markup
from starlette.exceptions import HTTPException

from perdure.http.pages.rendering import as_page, base_of, draw
from perdure.http.problem import ERRORS
from perdure.http.table import Endpoint

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_PACKAGED = Path(__file__).parents[1] / "errors"
_CHECKOUT = Path(__file__).parents[4] / "docs" / "errors"
_NAME = re.compile(r"PDR-\d{3}")
_LINK = re.compile(r"\[([^\]]+)\]\((?!PDR-)[^)]*\)")
"""Links to the rest of the documentation, which the server does not have."""
_MARKDOWN = MarkdownIt("commonmark").enable("table")


async def index_page(request: Request) -> Response:
    """GET errors: list every error, by number."""
    return _drawn(request, "index", "Errors")


async def error_page(request: Request) -> Response:
    """GET errors/{number}: explain an error: what happened, why, and what to do."""
    number = request.path_params["number"].upper()
    if not _NAME.fullmatch(number):
        raise HTTPException(404, "There is no error with this number. The page /errors lists all errors.")
    return _drawn(request, number, number)


def _drawn(request: Request, name: str, title: str) -> Response:
    text = html_of(name)
    if text is None:
        raise HTTPException(404, f"There is no page about {name}. The page /errors lists all errors.")
    # The only HTML that is not escaped. It comes from perdure's own documentation, never from a visitor.
    shown = Markup(text.replace(f'href="{ERRORS}/', f'href="{base_of(request)}{ERRORS}/'))
    return draw(request, "explanation.html", title=title, text=shown, is_index=name == "index")


@cache
def html_of(name: str) -> str | None:
    """A page of the errors as HTML; None if there is none."""
    path = (_PACKAGED if _PACKAGED.is_dir() else _CHECKOUT) / f"{name}.md"
    if not path.is_file():
        return None
    markdown = _LINK.sub(r"\1", path.read_text(encoding="utf-8"))
    html: str = _MARKDOWN.render(markdown)
    return re.sub(r'href="(PDR-\d{3})\.md"', rf'href="{ERRORS}/\1"', html)


ENDPOINTS = (
    Endpoint(ERRORS, ("GET",), as_page(index_page), "open", is_page=True, name="list_errors"),
    Endpoint(
        f"{ERRORS}/{{number}}", ("GET",), as_page(error_page), "open", is_page=True, name="explain_error"
    ),
)

__all__ = ["ENDPOINTS", "html_of"]
