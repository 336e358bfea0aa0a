"""Photo assessment over HTTP: what the photos of a claim show, heat maps, and photos without their metadata."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from examples.claims.services.photos import damage
from examples.claims.services.photos.assessment import Assessor, Finding
from examples.claims.services.photos.register import Register
from examples.claims.services.photos.store import MOST_PHOTOS, PhotoStore
from examples.claims.services.switches import Switch, problem

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
CACHED = {"Cache-Control": "private, max-age=86400, immutable"}


class AssessmentRequest(msgspec.Struct, frozen=True):
    claim_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    happened: date
    photos: Annotated[list[Digest], msgspec.Meta(max_length=MOST_PHOTOS)]


def make(home: Path) -> Starlette:
    """The photo assessment with its register and its switch in a folder, and the photos in CLAIMS_PHOTOS."""
    damage.classifier()  # it learns now, not while the first claim waits
    store = PhotoStore(Path(os.environ.get("CLAIMS_PHOTOS", home / "photos")))
    register = Register(home / "photos.db")
    desk = PhotoDesk(store, Assessor(store, register), Switch("photos", home))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        register.close()

    return Starlette(routes=desk.routes(), lifespan=lifespan)


@dataclass(frozen=True)
class PhotoDesk:
    store: PhotoStore
    assessor: Assessor
    switch: Switch
    at_once: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(os.cpu_count() or 1))

    def routes(self) -> list[Route]:
        over = self.switch.over
        return [
            Route("/assessments", over(self.assess), methods=["POST"]),
            Route("/claims/{claim_id}", over(self.erase), methods=["DELETE"]),
            Route("/photos/{digest}.jpg", over(self.show(self.store.clean))),
            Route("/heat-maps/{digest}.png", over(self.show(self.store.heat_map))),
            *self.switch.routes(),
        ]

    async def assess(self, request: Request) -> Response:
        """Look at the photos of one claim."""
        try:
            asked = msgspec.json.decode(await request.body(), type=AssessmentRequest)
        except msgspec.DecodeError as error:
            return problem(400, f"not a request for an assessment: {error}")
        missing = [digest for digest in asked.photos if digest not in self.store]
        if missing:
            return problem(404, f"the folder of photos has no {missing[0]}")
        findings = []
        for digest in asked.photos:
            async with self.at_once:
                findings.append(await asyncio.to_thread(self.assessor.look_at, asked.claim_id, digest))
        return JSONResponse({"photos": [_shown(finding, asked.happened) for finding in findings]})

    async def erase(self, request: Request) -> Response:
        """Delete the photos of one claim."""
        erased = await asyncio.to_thread(self.assessor.erase, request.path_params["claim_id"])
        return JSONResponse({"erased": erased})

    def show(self, path: Callable[[str], Path]) -> Callable[[Request], Any]:
        """An endpoint that sends one file that belongs to a photo."""

        async def send(request: Request) -> Response:
            try:
                found = path(request.path_params["digest"])
            except ValueError as error:
                return problem(404, str(error))
            if not found.exists():
                return problem(404, f"there is no {found.name}")
            return FileResponse(found, headers=CACHED)

        return send


def _shown(finding: Finding, happened: date) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(finding)
    return shown | {
        "problem": finding.problem(happened) or "",
        "heat_map": f"/heat-maps/{finding.digest}.png",
    }
