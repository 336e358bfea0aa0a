"""One claim on one page, to print or to export: who did what, when and why, from the histories of its instances."""

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

import perdure as df
from examples.claims import process
from examples.claims.screens.figures import in_words
from examples.claims.screens.pages import for_staff, render
from examples.claims.screens.room import Room, room_of

Event = dict[str, Any]
WHOLE = {"show_input": True, "show_history": True, "show_history_output": True}
MADE_BY = {  # what a line of the orchestrator calls, and the name of the events that it makes
    "assessing.assess": "assess",
    "asking.ask_for": "ask_claimant",
    "review.review": "review",
    "paying.pay": "pay",
    "telling.tell": "send",
}


@dataclass(frozen=True)
class Deed:
    """Somebody did something, for a reason."""

    at: str
    who: str
    what: str
    why: str = ""


@dataclass(frozen=True)
class Attempt:
    """One try of a payment."""

    at: str
    key: str
    answer: str


@dataclass(frozen=True)
class Line:
    """A line of the orchestrator, and the events that it made."""

    number: int
    code: str
    events: tuple[str, ...]


@dataclass
class Dossier:
    """All of it. `fingerprint` is the SHA-256 of the histories as they are exported."""

    claim_id: str
    claim: dict[str, Any]
    status: str
    reason: str
    amount: int
    took: str
    deeds: list[Deed] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    letters: list[Deed] = field(default_factory=list)
    photos: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    histories: dict[str, list[Event]] = field(default_factory=dict)
    fingerprint: str = ""
    erased: bool = False

    @property
    def events(self) -> int:
        return sum(map(len, self.histories.values()))

    @property
    def people(self) -> list[str]:
        """Who decided, in the order of their decisions."""
        return list(dict.fromkeys(deed.who for deed in self.deeds if "@" in deed.who))


@for_staff
async def show(request: Request) -> Response:
    """The page."""
    room = room_of(request)
    found = await _dossier(room, request.path_params["claim_id"])
    return render(request, "dossier.html", dossier=found, verdict=await _verified(room))


@for_staff
async def export(request: Request) -> Response:
    """The same as JSON, with the whole histories."""
    found = await _dossier(room_of(request), request.path_params["claim_id"])
    content = json.dumps(asdict(found) | {"events": found.events}, default=str, indent=1, ensure_ascii=False)
    name = f'attachment; filename="{found.claim_id}.json"'
    return Response(content, media_type="application/json", headers={"content-disposition": name})


@for_staff
async def photo(request: Request) -> Response:
    """A photo of the claim."""
    room, digest = room_of(request), request.path_params["digest"]
    if digest not in (await _dossier(room, request.path_params["claim_id"])).photos:
        raise HTTPException(404)
    path = room.photos.clean(digest)
    if not path.exists():
        raise HTTPException(404)
    return FileResponse(path, media_type="image/jpeg")


async def _verified(room: Room) -> str:
    """What `perdure verify` says of the hub, where the demo can ask it."""
    return "" if room.stage is None else str(await room.stage.verify())


async def _dossier(room: Room, claim_id: str) -> Dossier:
    whole = await room.client.get_status(claim_id, **WHOLE)
    if whole is None or whole.name != "claims_orchestrator":
        raise HTTPException(404)
    parts = (await room.client.query(prefix=f"{claim_id}.", top=100)).instances
    statuses = [whole, *[await room.client.get_status(part.instance_id, **WHOLE) for part in reversed(parts)]]
    found = told(claim_id, [status for status in statuses if status is not None])
    found.erased = room.people.is_erased(found.claim.get("person", ""))
    return found


def told(claim_id: str, statuses: list[df.OrchestrationStatus]) -> Dossier:
    """The dossier of a claim from the statuses of its instances, with their histories."""
    whole = statuses[0]
    trail = whole.custom_status or []
    last = trail[-1] if trail else {"stage": "filed", "note": "", "at": whole.created_time.isoformat()}
    histories = {status.instance_id: list(status.history or ()) for status in statuses}
    deeds = sorted(
        (deed for history in histories.values() for deed in _deeds(history)), key=lambda deed: deed.at
    )
    exported = json.dumps(histories, default=str, sort_keys=True).encode()
    return Dossier(
        claim_id,
        dict(whole.input or {}),
        last["stage"],
        last["note"],
        _paid(whole.output),
        in_words((datetime.fromisoformat(last["at"]) - whole.created_time).total_seconds()),
        deeds=deeds,
        attempts=[attempt for history in histories.values() for attempt in _attempts(history)],
        letters=[deed for deed in deeds if deed.who == "Post"],
        photos=list(dict.fromkeys(_photos(histories))),
        lines=_lines(histories[claim_id], trail),
        histories=histories,
        fingerprint=hashlib.sha256(exported).hexdigest(),
    )


# ------------------------------------------------------------------------------------- from events to deeds


def _deeds(history: list[Event]) -> Iterator[Deed]:
    made = {event["id"]: event for event in history if "id" in event}
    for event in history:
        of = made.get(event.get("task_id", -1), {})
        tell = TOLD.get(event["type"])
        if tell is not None:
            yield from tell(event, of)


def _started(event: Event, of: Event) -> Iterator[Deed]:
    if event["name"] == "claims_orchestrator":
        claim = event["input"]
        total = sum(claim[part] for part in ("injury_amount", "property_amount", "vehicle_amount"))
        photos = f"{len(claim.get('photos', ()))} photos"
        yield Deed(_at(event), "Customer", "filed the claim", f"{claim['kind']}, ${total:,}, {photos}")


def _child_completed(event: Event, of: Event) -> Iterator[Deed]:
    result: Any = event.get("result")
    if of.get("name") != "assess" or not isinstance(result, dict):
        return
    fraud, photos, cover = result["fraud"], result["photos"], result["cover"]
    points = "; ".join(f"{text} ({n:+d})" for text, n in zip(fraud["reasons"], fraud["points"], strict=False))
    sure = f"{fraud['model']}, confidence {fraud['confidence']:.2f}. "
    yield Deed(_at(event), "Fraud scoring", f"scored {fraud['score']:.2f}", sure + points)
    if photos:
        seen = [
            one["problem"]
            or (f"seen in {one['seen_in']}" if one["seen_in"] else f"damage {one['damage']:.0%}")
            for one in photos
        ]
        yield Deed(_at(event), "Photo assessment", f"looked at {len(photos)} photos", "; ".join(seen))
    remarks = "; ".join(cover["remarks"]) or f"${cover['payable']:,} are payable"
    yield Deed(
        _at(event), "Policy", "refuses" if cover["refusal"] else "covers it", cover["refusal"] or remarks
    )


def _raised(event: Event, of: Event) -> Iterator[Deed]:
    body: Any = event.get("input")
    who = event.get("decided_by") or "Customer"
    match event["name"], body:
        case "Decision", {"verdict": verdict, "reason": reason}:
            amount = f" ${body['amount']:,}" if body.get("amount") is not None else ""
            note = f" Note: {body['note']}" if body.get("note") else ""
            yield Deed(_at(event), who, f"{verdict}{amount}", f"“{reason}”{note}")
        case _, {"how": how}:
            yield Deed(_at(event), who, str(body.get("action", "took care of it")), f"“{how}”")
        case "SecondLook", _:
            yield Deed(_at(event), who, "asked for a person", "after a refusal by the rules")
        case "NewAccount", _:
            yield Deed(_at(event), who, "gave another account")
        case _, {"photos": photos}:
            report = ", the police report" if body.get("police_report") else ""
            yield Deed(_at(event), who, "sent what was asked for", f"{len(photos)} photos{report}")


def _completed(event: Event, of: Event) -> Iterator[Deed]:
    result: Any = event.get("result")
    match of.get("name"), result:
        case "send", _:
            yield Deed(
                _at(event), "Post", f"told: {of['input']['subject']}", of["input"]["text"].replace("\n", " ")
            )
        case "move_money", {"payment": {"payment_id": number, "amount": amount}}:
            yield Deed(_at(event), "Bank", f"paid ${amount:,}", f"{number}, key {of['input']['key']}")
        case "move_money", {"refusal": why}:
            yield Deed(_at(event), "Bank", "refused the payment", why)
        case "book", _:
            yield Deed(_at(event), "Ledger", "booked the payment")
        case "reverse", _:
            yield Deed(_at(event), "Bank", "took the payment back")


def _awaited(event: Event, of: Event) -> Iterator[Deed]:
    task: Any = event.get("task")
    if task is not None and task.get("number", 1) == 1:
        people = f"{task.get('decisions', 1)} of {', '.join(task.get('roles', ()))}"
        yield Deed(_at(event), "Process", "asked people", f"{people}: {task['title']}")
    elif event["name"].startswith("Documents"):
        yield Deed(_at(event), "Process", "waits for the customer", f"under the event {event['name']}")


def _failed(event: Event, of: Event) -> Iterator[Deed]:
    who = {"move_money": "Bank", "send": "Post"}.get(of.get("name", ""), "Process")
    yield Deed(_at(event), who, "did not answer", _failure(event))


TOLD: dict[str, Callable[[Event, Event], Iterator[Deed]]] = {
    "ExecutionStarted": _started,
    "SubOrchestrationCompleted": _child_completed,
    "EventRaised": _raised,
    "EventAwaited": _awaited,
    "TaskCompleted": _completed,
    "TaskFailed": _failed,
}


def _attempts(history: list[Event]) -> Iterator[Attempt]:
    """Every try to pay, with its key and what came back."""
    orders = {
        event["id"]: event
        for event in history
        if event["type"] == "TaskScheduled" and event["name"] == "move_money"
    }
    for event in history:
        order = orders.get(event.get("task_id", -1))
        if order is not None and event["type"] in ("TaskCompleted", "TaskFailed"):
            result: Any = event.get("result") or {}
            paid = (result.get("payment") or {}).get("payment_id", "")
            answer = paid or result.get("refusal") or _failure(event)
            yield Attempt(_at(event), order["input"]["key"], answer)


def _photos(histories: Mapping[str, list[Event]]) -> Iterator[str]:
    for history in histories.values():
        for event in history:
            body = event.get("input")
            if isinstance(body, dict) and isinstance(body.get("photos"), list):
                yield from (digest for digest in body["photos"] if isinstance(digest, str))


# ------------------------------------------------------------------------------------------ lines and events


def _lines(history: list[Event], trail: list[dict[str, Any]]) -> list[Line]:
    """The orchestrator's code, with the events and the stages that each line made."""
    source, first = inspect.getsourcelines(process.claims_orchestrator)
    numbered = list(enumerate(history))
    lines = []
    for number, code in enumerate(source, first):
        made = [f"{n} {event['type']} {event['name']}" for n, event in numbered if _is_made_by(code, event)]
        noted = [stage for stage in trail if f'note("{stage["stage"]}"' in code]
        stages = [f"{stage['at'][11:19]} {stage['note']}".strip() for stage in noted]
        lines.append(Line(number, code.rstrip(), (*made, *stages)))
    return lines


def _is_made_by(code: str, event: Event) -> bool:
    if event["type"] == "ExecutionStarted":
        return "async def claims_orchestrator" in code
    return event["type"] in ("SubOrchestrationCreated", "TaskScheduled") and any(
        call in code and event["name"] == name for call, name in MADE_BY.items()
    )


def _paid(output: Any) -> int:
    payment = output.get("payment") if isinstance(output, dict) else None
    return int(payment["amount"]) if payment else 0


def _failure(event: Event) -> str:
    failure: Any = event.get("failure") or event.get("reason") or ""
    return str(failure.get("message", "")) if isinstance(failure, dict) else str(failure)


def _at(event: Event) -> str:
    return str(event["timestamp"])


ROUTES = [
    Route("/dossier/{claim_id}.json", export),
    Route("/dossier/{claim_id}", show),
    Route("/dossier/{claim_id}/photo/{digest}", photo),
]
