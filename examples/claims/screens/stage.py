"""The stage: play a story, switch something off, kill the server, and see whether the numbers stay 0.

The hands behind the buttons are the demo's. In production there are none, and the page says so.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from examples.claims.screens.pages import for_staff, render
from examples.claims.screens.room import room_of

SWITCHES = (
    ("bank", "away", "Bank is off", "Payments wait. They go out 5 a second when it is back."),
    ("bank", "lose", "Answers get lost", "The bank pays, then says nothing"),
    ("fraud", "away", "Fraud scoring is off", "Claims wait for their score"),
    ("photos", "slow", "Photos are slow", "Each look takes 8 s longer"),
    ("post", "away", "Post is off", "Messages wait"),
)
STATES = {"came true": "true", "did not come true": "false", "running": "run", "not run yet": ""}


class Hands(Protocol):
    """What the demo's stage can do."""

    runs: Sequence[Any]
    found: Any
    counted_at: datetime | None
    kills: Sequence[float]
    killed_at: datetime | None

    @property
    def is_down(self) -> bool: ...
    @property
    def pid(self) -> int: ...
    def kill(self) -> None: ...
    def play(self, name: str) -> None: ...
    async def switch(self, service: str, mode: str) -> None: ...
    async def modes(self) -> dict[str, str]: ...


@for_staff
async def show(request: Request) -> Response:
    """Every story with its expected end and what became of it. `?part` is the inside, for the page's script."""
    room, hands = room_of(request), _hands(request)
    if hands is None:
        return render(request, "no-stage.html", 404)
    template = "stage-part.html" if "part" in request.query_params else "stage.html"
    runs = list(hands.runs)
    count = {state: sum(run.state == state for run in runs) for state in STATES}
    modes = await hands.modes()
    return render(
        request,
        template,
        hands=hands,
        runs=runs,
        count=count,
        states=STATES,
        modes=modes,
        switches=[switch for switch in SWITCHES if switch[0] in modes],
        numbers=hands.found.numbers if hands.found is not None else {},
        faults=hands.found is not None and not hands.found.is_clean,
        links={run.claim_id: room.links.path_of(run.claim_id) for run in runs if run.claim_id},
    )


@for_staff
async def act(request: Request) -> Response:
    """A button: kill, play a story, play all, or move a switch."""
    hands = _hands(request)
    if hands is None:
        return render(request, "no-stage.html", 404)
    async with request.form() as form:
        what, value = str(form.get("do", "")), str(form.get("value", ""))
    match what:
        case "kill" if not hands.is_down:
            hands.kill()
        case "play":
            hands.play(value)
        case "play all":
            for run in hands.runs:
                hands.play(run.story.name)
        case "switch":
            service, _, mode = value.partition(" ")
            if mode in ("on", *(switch[1] for switch in SWITCHES if switch[0] == service)):
                await hands.switch(service, mode)
    return RedirectResponse("/stage", 303)


def _hands(request: Request) -> Hands | None:
    hands: Hands | None = room_of(request).stage
    return hands


ROUTES = [Route("/stage", show), Route("/stage", act, methods=["POST"])]
