"""The office: every page, under one set of headers."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from examples.claims.screens import board, claimant, dossier, stage
from examples.claims.screens.pages import SecurityHeaders, render
from examples.claims.screens.room import Room

STATIC = Path(__file__).parent / "static"


def office(room: Room) -> Starlette:
    """The web application of the office."""
    routes = [
        Route("/", first_page),
        *claimant.ROUTES,
        *board.ROUTES,
        *dossier.ROUTES,
        *stage.ROUTES,
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(SecurityHeaders)],
        exception_handlers={404: not_found},
    )
    app.state.room = room
    return app


async def first_page(request: Request) -> Response:
    """Customers come here most: they file a claim."""
    return RedirectResponse("/file", 303)


async def not_found(request: Request, error: Exception) -> Response:
    """The same page for a wrong link and for a claim that does not exist."""
    assert isinstance(error, HTTPException)
    return render(request, "not-found.html", 404)
