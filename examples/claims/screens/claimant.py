"""The claimant's pages: file a claim in three steps, and the page behind the link.

The link shows one claim and adds to it: photos, a report, another account, the wish for a second look. No page here
can decide, and none has an address of the server: the office talks to it with a key that no browser gets.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_urlsafe

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

import perdure as df
from examples.claims.model import Documents
from examples.claims.people import UNKNOWN
from examples.claims.screens.filing import KINDS, PLACES, REPORTS, Filing, photo_in, photo_token
from examples.claims.screens.pages import render
from examples.claims.screens.room import Room, room_of
from examples.claims.screens.standing import Standing, standing_of
from examples.claims.services.photos.store import MOST_PHOTOS, PhotoRefused, Refusal

CHUNK = 64 * 1024
MOST_FILES = (
    5 * MOST_PHOTOS
)  # of a form: too many photos are told in words, and the form keeps what was typed
STEPS = {"what": "file-1.html", "photos": "file-2.html", "check": "file-3.html"}


# --------------------------------------------------------------------------------------------- file a claim


async def new_claim(request: Request) -> Response:
    """The first step, empty. Its ticket makes a form that is sent twice one filing."""
    room = room_of(request)
    blank = dict.fromkeys(("policy", "kind", "day", "month", "year", "hurt", "report", "repair", "words"), "")
    return _step(request, room, "what", Filing(blank | {"ticket": token_urlsafe(18)}))


async def file_step(request: Request) -> Response:
    """From one step to the next, or back. A step with a fault comes again, with what was typed."""
    room = room_of(request)
    async with request.form(max_files=MOST_FILES, max_fields=200) as form:
        filing = Filing.of(form, room.links)
        refused = await _uploaded(room, filing, form.getlist("file"))
        came_from, wish = str(form.get("step", "what")), str(form.get("go", "on"))
    if wish != "on" and wish in STEPS:
        return _step(request, room, wish, filing)
    filing.check_facts(_now().date())
    if filing.wrong:
        return _step(request, room, "what", filing, 422)
    if came_from == "what":
        return _step(request, room, "photos", filing)
    if came_from == "photos":
        again = bool(refused) or wish == "photos"
        return _step(request, room, "photos" if again else "check", filing, 422 if refused else 200, refused)
    filing.check_reach()
    if filing.wrong:
        return _step(request, room, "check", filing, 422)
    return await _send(request, room, filing)


async def add_photo(request: Request) -> Response:
    """One photo as the body of a request, streamed: the page's script sends each as it is chosen."""
    room = room_of(request)
    length = request.headers.get("content-length", "")
    try:
        digest = await room.photos.add(request.stream(), int(length) if length.isdigit() else None)
    except PhotoRefused as refused:
        return JSONResponse({"problem": str(refused)}, refused.status)
    token = photo_token(room.links, digest)
    return JSONResponse({"photo": token, "picture": f"/file/photo/{token}"})


async def show_new_photo(request: Request) -> Response:
    """A photo of a form that is not sent yet, by the token that only its sender has."""
    room = room_of(request)
    digest = photo_in(room.links, request.path_params["token"])
    return _picture(room.photos.clean(digest)) if digest else _nothing_here()


async def _send(request: Request, room: Room, filing: Filing) -> Response:
    claim, claimant = filing.claim(), filing.claimant()
    already = render(request, "already.html", 409, claim_id=claim.claim_id)
    known = room.people.find(filing.person)
    if await room.client.get_status(claim.claim_id) is None:
        room.people.add(claimant, filing.person)
    elif known != claimant:  # the account of a claim that is filed is changed on its own page only
        return already
    try:
        await room.client.start_new(
            "claims_orchestrator",
            claim.claim_id,
            claim,
            on_existing="reject",
            operation_id=f"file-{filing.person}",
        )
    except (df.InstanceExists, df.IdempotencyConflict):
        if known == UNKNOWN:
            room.people.erase(filing.person)
        return already
    return RedirectResponse(room.links.path_of(claim.claim_id), 303)


async def _uploaded(room: Room, filing: Filing, files: Sequence[object]) -> list[str]:
    """Store the files of a plain form; returns the problems of those that were refused."""
    problems = []
    for file in files:
        if not isinstance(file, UploadFile) or not file.filename:
            continue
        try:
            digest = await room.photos.add(_chunks(file), file.size)
        except PhotoRefused as refused:
            problems.append(f"{file.filename[:80]}: {refused}")
        else:
            photos = tuple(dict.fromkeys((*filing.photos, digest)))
            if len(photos) > MOST_PHOTOS:
                problems.append(f"{file.filename[:80]}: {Refusal.TOO_MANY}")
            else:
                filing.photos = photos
    return problems


def _step(
    request: Request,
    room: Room,
    step: str,
    filing: Filing,
    status: int = 200,
    refused: list[str] | None = None,
) -> Response:
    return render(
        request,
        STEPS[step],
        status,
        step=step,
        filing=filing,
        tokens=[photo_token(room.links, digest) for digest in filing.photos],
        refused=refused or [],
        kinds=KINDS,
        places=PLACES,
        reports=REPORTS,
    )


# -------------------------------------------------------------------------------------- the page of a claim


async def show_claim(request: Request) -> Response:
    """Where the claim is, in plain words. `?part` is the inside of the page, for its script."""
    room, claim_id = _opened(request)
    standing = await _standing(room, claim_id)
    if standing is None:
        return render(request, "wait.html", 503)
    template = "status-part.html" if "part" in request.query_params else "status.html"
    claim = await room.client.get_status(claim_id, show_input=True)
    return render(
        request,
        template,
        standing=standing,
        claim_id=claim_id,
        photos=list((claim.input or {}).get("photos", ())) if claim else [],
        here=request.url.path,
        at=_now(),
    )


async def add_to_claim(request: Request) -> Response:
    """Answer what the claimant is asked for now. A page that is out of date changes nothing."""
    room, claim_id = _opened(request)
    standing = await _standing(room, claim_id)
    if standing is None:
        return render(request, "wait.html", 503)
    async with request.form(max_files=MOST_FILES, max_fields=50) as form:
        filing = Filing.of(form, room.links)
        problems = await _uploaded(room, filing, form.getlist("file"))
        wish = str(form.get("add", ""))
        if standing.ask == wish and not problems:
            await _add(room, claim_id, standing, filing, str(form.get("account", "")).strip()[:200])
    if problems:
        return render(request, "refused.html", 422, problems=problems, here=request.url.path)
    return RedirectResponse(request.url.path, 303)


async def show_photo(request: Request) -> Response:
    """A photo of this claim, without its metadata."""
    room, claim_id = _opened(request)
    claim = await room.client.get_status(claim_id, show_input=True)
    digest = request.path_params["digest"]
    if claim is None or digest not in (claim.input or {}).get("photos", ()):
        return _nothing_here()
    return _picture(room.photos.clean(digest))


async def _add(room: Room, claim_id: str, standing: Standing, filing: Filing, account: str) -> None:
    """Pass on what the claimant has sent, as the event that waits for it."""
    question = standing.question
    match standing.ask:
        case "photos" if question is not None and filing.photos:
            await _raise(
                room, f"{claim_id}.question-{question.number}", question.event, Documents(filing.photos)
            )
        case "report" if question is not None:
            report = Documents(filing.photos, police_report=True)
            await _raise(room, f"{claim_id}.question-{question.number}", question.event, report)
        case "second look":
            await _raise(room, claim_id, "SecondLook", None)
        case "account" if len(account) >= 4:
            claim = await room.client.get_status(claim_id, show_input=True)
            person = (claim.input or {}).get("person", "") if claim else ""
            room.people.add(replace(room.people.find(person), account=account), person)
            await _raise(room, f"{claim_id}.payment", "NewAccount", None)


async def _raise(room: Room, instance_id: str, event: str, body: object) -> None:
    await room.client.raise_event(instance_id, event, body)


async def _standing(room: Room, claim_id: str) -> Standing | None:
    """Where a claim is; None while the server does not answer."""
    try:
        claim = await room.client.get_status(claim_id)
        if claim is None:
            raise HTTPException(404)
        page = await room.client.query(prefix=f"{claim_id}.", status="Running")
    except (df.EngineStopped, df.OutcomeUnknown, df.Overloaded):
        return None
    parts = {part.instance_id.removeprefix(f"{claim_id}."): part for part in page.instances}
    return standing_of(claim, parts, _now())


def _opened(request: Request) -> tuple[Room, str]:
    """The claim that a link opens. Every other link leads nowhere, whether there is such a claim or not."""
    room, claim_id = room_of(request), request.path_params["claim_id"]
    if not room.links.opens(claim_id, request.path_params["signature"]):
        raise HTTPException(404)
    return room, claim_id


async def _chunks(file: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await file.read(CHUNK):
        yield chunk


def _picture(path: Path) -> Response:
    if not path.exists():
        return _nothing_here()
    return FileResponse(path, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})


def _nothing_here() -> Response:
    return Response(status_code=404)


def _now() -> datetime:
    return datetime.now(UTC)


CLAIM = "/claim/{claim_id}/{signature}"
ROUTES = [
    Route("/file", new_claim),
    Route("/file", file_step, methods=["POST"]),
    Route("/file/photo", add_photo, methods=["POST"]),
    Route("/file/photo/{token}", show_new_photo),
    Route(CLAIM, show_claim),
    Route(CLAIM, add_to_claim, methods=["POST"]),
    Route(CLAIM + "/photo/{digest}", show_photo),
]
