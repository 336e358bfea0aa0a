"""What an adjuster sees beside the facts of a decision: the photos with the damage marked, duplicates side by side,
and the customer's own words.

The pictures have addresses that only the server can have made, as they lie outside of perdure's sign-in.
"""

import asyncio
import hmac
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.responses import Response

import perdure as df
from examples.claims import album, connections
from examples.claims.model import Photo
from examples.claims.services.photos.store import PhotoStore

functions = df.Blueprint()

TEMPLATE = Path(__file__).parent / "screens" / "templates" / "panel.html"
OLD = {"cache-control": "private, max-age=3600"}


@dataclass(frozen=True)
class Picture:
    """A photo of the claim as the panel shows it."""

    number: int
    shown: str
    marked: str
    shows: str
    odd: str
    seen_in: str
    earlier: str


@functions.task_panel("Decision", template=TEMPLATE)
async def claim_panel(task: df.OpenTask) -> dict[str, Any]:
    """The values of the panel, from the facts of the task."""
    claim_id = str(task.facts.get("claim", ""))
    people = connections.people()
    try:
        claimant = people.find(task.facts.get("customer", ""))
    finally:
        people.close()
    return {
        "pictures": [_picture(n, photo) for n, photo in enumerate(album.read(claim_id), 1)],
        "words": claimant.words,
        "reach": claimant.phone or claimant.mail,
        "office": os.environ.get("CLAIMS_OFFICE_URL", ""),
        "claim": claim_id,
    }


@functions.route("/pictures/{kind}/{token}", auth="anonymous")
async def picture(kind: str, token: str) -> Response:
    """A photo without its metadata, or with the damage marked on it."""
    digest, _, signature = token.partition(".")
    if kind not in ("plain", "marked") or not hmac.compare_digest(
        _signature(digest).encode(), signature.encode()
    ):
        return Response(status_code=404)
    try:
        content = await asyncio.to_thread(_drawn, digest, kind == "marked")
    except (FileNotFoundError, ValueError):
        return Response(status_code=404)
    return Response(content, media_type="image/jpeg", headers=OLD)


def _picture(number: int, photo: Photo) -> Picture:
    shows = f"{photo.damage:.0%} of it, {photo.where or 'all over'}; sure to {photo.confidence:.0%}"
    return Picture(
        number,
        shown=_path("plain", photo.digest),
        marked=_path("marked", photo.digest) if _has_heat_map(photo.digest) else "",
        shows=shows if photo.damage else "none was found",
        odd=photo.problem,
        seen_in=photo.seen_in,
        earlier=_path("plain", photo.seen_photo) if photo.seen_photo else "",
    )


def _has_heat_map(digest: str) -> bool:
    """Whether the assessment has drawn one: the stand-in does not."""
    try:
        return PhotoStore(connections.photo_folder()).heat_map(digest).exists()
    except ValueError:
        return False


def _path(kind: str, digest: str) -> str:
    return f"/api/pictures/{kind}/{digest}.{_signature(digest)}"


def _signature(digest: str) -> str:
    return connections.links().signature_of("photo", digest)


def _drawn(digest: str, is_marked: bool) -> bytes:
    """The photo, and on it the heat map of the assessment."""
    store = PhotoStore(connections.photo_folder())
    if not is_marked:
        return store.clean(digest).read_bytes()
    with Image.open(store.clean(digest)) as photo, Image.open(store.heat_map(digest)) as heat:
        below = photo.convert("RGBA")
        below.alpha_composite(heat.convert("RGBA").resize(below.size))
    file = io.BytesIO()
    below.convert("RGB").save(file, "JPEG", quality=88)
    return file.getvalue()
